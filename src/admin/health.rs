//! Whether the workers turn. Each is asked once a second, through its orders; how long its answers took is remembered for
//! a minute. What apps and issuers do is not looked at.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::server::Pulse;

/// How often the workers are asked.
pub(super) const EVERY: Duration = Duration::from_secs(1);
/// A worker that was silent for so long does not turn.
const STUCK: Duration = Duration::from_secs(5);
/// How many answers are remembered.
const REMEMBERED: usize = 60;

/// What the workers have answered.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<Vec<Beats>>);

/// What one worker has answered.
#[derive(Debug, Default)]
struct Beats {
    /// The question that is open.
    asked: Option<Pulse>,
    /// How long the last answers took.
    took: VecDeque<Duration>,
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, Vec<Beats>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the answers, and asks who has answered again: `ask` gives a question for each worker.
    pub(super) fn ask(&self, now: Instant, ask: impl FnOnce() -> Vec<Pulse>) {
        let mut all = self.lock();
        let asked = ask();
        all.resize_with(asked.len(), Beats::default);
        for (beats, next) in all.iter_mut().zip(asked) {
            match &beats.asked {
                // The open question stays: how long it has been open is what counts.
                Some(open) if !open.is_complete() => {}
                answered => {
                    if let Some(answered) = answered {
                        if beats.took.len() == REMEMBERED {
                            beats.took.pop_front();
                        }
                        beats.took.push_back(answered.took(now));
                    }
                    beats.asked = Some(next);
                }
            }
        }
    }

    /// The workers that do not turn.
    pub(super) fn stuck(&self, now: Instant) -> Vec<usize> {
        let all = self.lock();
        let is_stuck = |beats: &Beats| {
            let open = beats.asked.as_ref().filter(|open| !open.is_complete());
            open.is_some_and(|open| open.took(now) >= STUCK)
        };
        (0..)
            .zip(&*all)
            .filter(|(_, it)| is_stuck(it))
            .map(|(at, _)| at)
            .collect()
    }

    /// The longest time in the last minute in which each worker did not turn.
    pub(super) fn stalls(&self, now: Instant) -> Vec<Duration> {
        let all = self.lock();
        let longest = |beats: &Beats| {
            let open = beats.asked.as_ref().map(|open| open.took(now));
            beats
                .took
                .iter()
                .copied()
                .chain(open)
                .max()
                .unwrap_or_default()
        };
        all.iter().map(longest).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_does_not_answer_is_stuck_until_it_does() {
        let health = Health::default();
        let (one, two) = (Pulse::of(1), Pulse::of(1));
        let asked = Instant::now();
        health.ask(asked, || vec![one.clone(), two.clone()]);
        one.beat();
        for second in 1..5 {
            let now = asked + Duration::from_secs(second);
            assert!(health.stuck(now).is_empty(), "{second}");
            health.ask(now, || vec![Pulse::complete(), Pulse::of(1)]);
        }
        let now = asked + Duration::from_secs(6);
        assert_eq!(health.stuck(now), [1]);
        assert!(health.stalls(now)[1] >= Duration::from_secs(5));
        assert!(health.stalls(now)[0] < Duration::from_secs(5));
        two.beat();
        assert!(health.stuck(now).is_empty());
        health.ask(now, || vec![Pulse::complete(), Pulse::complete()]);
        assert_eq!(health.stalls(now).len(), 2);
    }
}
