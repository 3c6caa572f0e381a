//! Requests that wait for a server while none can be connected to. One of them tries to connect for all, over all
//! workers; when it is through, the others follow.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, Notify};
use tokio::time::{Instant, sleep_until};

/// How often a connection is tried.
const EVERY: Duration = Duration::from_millis(250);

/// Who waits at an upstream.
#[derive(Debug, Default)]
pub(super) struct Hold {
    waiting: AtomicUsize,
    /// Held by the request that tries to connect for all; when the last try ended in vain.
    trying: Mutex<Option<Instant>>,
    /// A connection was made.
    open: Notify,
}

/// A request that waits, and is counted until this is dropped.
#[derive(Debug)]
pub(super) struct Waiting<'h>(&'h Hold);

/// What a request that waits does next.
#[derive(Debug)]
pub(super) enum Woken<'h> {
    /// It tries to connect for all.
    Tries(Trying<'h>),
    /// Another one is through: it follows.
    Follows,
    /// It has waited long enough.
    Late,
}

/// The right to try to connect for all.
#[derive(Debug)]
pub(super) struct Trying<'h> {
    hold: &'h Hold,
    last: MutexGuard<'h, Option<Instant>>,
}

impl Hold {
    /// Whether requests wait.
    pub(super) fn is_used(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// How many wait.
    pub(super) fn count(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// One more request waits; `None` if there are `most`.
    pub(super) fn enter(&self, most: usize) -> Option<Waiting<'_>> {
        // Counted before it is known whether there is room, and so at least by who leaves at once.
        let waiting = Waiting(self);
        (self.waiting.fetch_add(1, Ordering::Relaxed) < most).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<'h> Waiting<'h> {
    /// Waits until there is something to do, at most until this moment.
    pub(super) async fn wait(&self, until: Instant) -> Woken<'h> {
        let hold = self.0;
        let mut open = pin!(hold.open.notified());
        // From here on a connection is noticed, also while this one still waits for its turn to try.
        open.as_mut().enable();
        let trying = async {
            let last = hold.trying.lock().await;
            if let Some(last) = *last {
                sleep_until(last + EVERY).await;
            }
            Trying { hold, last }
        };
        tokio::select! {
            biased;
            () = open => Woken::Follows,
            () = sleep_until(until) => Woken::Late,
            trying = trying => Woken::Tries(trying),
        }
    }
}

impl Trying<'_> {
    /// A connection was made: all others follow.
    pub(super) fn succeeded(mut self) {
        *self.last = None;
        self.hold.open.notify_waiters();
    }

    /// It was in vain; who tries next pauses before.
    pub(super) fn failed(mut self) {
        *self.last = Some(Instant::now());
    }
}
