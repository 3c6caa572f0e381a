//! What the control side does by the clock: a list of errands with their intervals. None of them waits.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::time::{Interval, interval};

use super::Control;
use crate::clock;

/// Something that is done again and again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Errand {
    /// How often.
    every: Duration,
    /// What.
    pub(super) run: fn(&Control),
}

/// All errands.
const ERRANDS: [Errand; 3] = [
    // Hashes of older kinds are written anew, those that were found to be right.
    Errand {
        every: Duration::from_secs(2),
        run: renew_hashes,
    },
    // What was lost of the access log, and which connections were refused.
    Errand {
        every: Duration::from_secs(1),
        run: tell,
    },
    // What has expired is cleaned up.
    Errand {
        every: Duration::from_secs(60),
        run: clean,
    },
];

/// When each errand is due.
#[derive(Debug)]
pub(super) struct Errands([(Errand, Interval); ERRANDS.len()]);

impl Errands {
    /// All of them, due at once and then by their intervals.
    pub(super) fn begin() -> Self {
        Self(ERRANDS.map(|errand| (errand, interval(errand.every))))
    }

    /// The next one that is due. Who drops the future and asks again misses none.
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
