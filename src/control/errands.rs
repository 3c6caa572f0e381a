//! The periodic tasks of the control side and their intervals. None of them blocks.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::time::{Interval, interval};

use super::Control;
use crate::clock;

/// A periodic task.
#[derive(Clone, Copy, Debug)]
pub(super) struct Errand {
    /// The interval.
    every: Duration,
    /// The task.
    pub(super) run: fn(&Control),
}

/// All periodic tasks.
const ERRANDS: [Errand; 4] = [
    // Rehashes passwords with old hashes after a successful login.
    Errand {
        every: Duration::from_secs(2),
        run: renew_hashes,
    },
    // Reports lost access records and refused connections.
    Errand {
        every: Duration::from_secs(1),
        run: tell,
    },
    // Removes expired entries.
    Errand {
        every: Duration::from_secs(60),
        run: clean,
    },
    // Begins a new key of session tickets, and forgets old ones.
    Errand {
        every: Duration::from_secs(60),
        run: turn_tickets,
    },
];

/// The schedule of all tasks.
#[derive(Debug)]
pub(super) struct Errands([(Errand, Interval); ERRANDS.len()]);

impl Errands {
    /// All tasks, due at once and then at their intervals.
    pub(super) fn begin() -> Self {
        Self(ERRANDS.map(|errand| (errand, interval(errand.every))))
    }

    /// The next task that is due. Cancel-safe.
    pub(super) async fn next(&mut self) -> Errand {
        poll_fn(|cx| {
            let due = |(errand, interval): &mut (Errand, Interval)| {
                interval.poll_tick(cx).is_ready().then_some(*errand)
            };
            match self.0.iter_mut().find_map(due) {
                Some(errand) => Poll::Ready(errand),
                None => Poll::Pending,
            }
        })
        .await
    }
}

fn renew_hashes(control: &Control) {
    if let Some(tokens) = &control.snapshot().tokens {
        tokens.renew_hashes();
    }
}

fn tell(control: &Control) {
    control.server.tell(Instant::now());
    if let Some(log) = &control.snapshot().access_log {
        log.tell(Instant::now());
    }
}

fn clean(control: &Control) {
    if let Some(tokens) = &control.snapshot().tokens {
        let tokens = Arc::clone(tokens);
        tokio::spawn(async move { tokens.clean(clock::now()).await });
    }
}

fn turn_tickets(control: &Control) {
    if let Err(error) = control.snapshot().tickets.turn(Instant::now()) {
        tracing::error!(%error, "no new key for session tickets could be made");
    }
}
