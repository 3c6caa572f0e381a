//! Servers that are taken out after failures of clients' requests, and how they come back. Which failures there are is
//! defined in `retry`; who is chosen instead, in `upstream`.

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::retry::{Condition, Conditions};

/// `eject` of an upstream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct EjectSettings {
    /// How many failures in a row, over all workers.
    pub(crate) consecutive_failures: u32,
    /// How long the first time.
    pub(crate) time: Duration,
    /// How long at most; each time is twice the one before.
    pub(crate) longest: Duration,
    /// The most servers that may be out, in percent.
    pub(crate) most: u32,
    /// The failures that count.
    pub(crate) on: Conditions,
}

impl EjectSettings {
    /// Whether one more server may be taken out, of `all` of which `out` are out: some must stay.
    fn may_take_out(&self, out: usize, all: usize) -> bool {
        let out = out + 1;
        out < all && out.saturating_mul(100) <= all.saturating_mul(self.most as usize)
    }

    /// How long a server is out that was out for `last` and has been back for `since`; the times before are forgotten
    /// after as long.
    fn how_long(&self, last: Option<(Duration, Duration)>) -> Duration {
        match last {
            Some((last, since)) if since < last => (last * 2).clamp(self.time, self.longest),
            Some(_) | None => self.time.min(self.longest),
        }
    }
}

/// What is known of a server's failures. Read for each request, written only where something changes.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// How many in a row.
    failures: AtomicU32,
    /// When it may be tried again, as a [`Moment`]; 0 while it is in.
    out: AtomicU64,
    /// How long it was out last, and when it came back.
    last: Mutex<Option<(Duration, Moment)>>,
    /// How often it was taken out.
    ejections: AtomicU64,
}

/// Milliseconds since the upstream was made; never 0.
pub(super) type Moment = u64;

/// For how long a server that may be tried again waits for a request that does no harm.
const PATIENCE: u64 = 1_000;

impl Standing {
    /// Whether it is out.
    pub(super) fn is_out(&self) -> bool {
        self.out.load(Ordering::Relaxed) != 0
    }

    /// How often it was taken out.
    pub(super) fn ejections(&self) -> u64 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// When it may be tried again, if it is out.
    pub(super) fn due(&self) -> Option<Moment> {
        Some(self.out.load(Ordering::Relaxed)).filter(|due| *due != 0)
    }

    /// Whether this request is the one that tries a server that is out: one that may be repeated, or any if none such
    /// comes. If it is never told how that went, another one tries after `again`.
    pub(super) fn tries(&self, now: Moment, repeatable: bool, again: Duration) -> bool {
        let Some(due) = self.due() else {
            return false;
        };
        let is_due = now >= due && (repeatable || now >= due + PATIENCE);
        let next = now + millis(again);
        let (set, read) = (Ordering::Relaxed, Ordering::Relaxed);
        is_due && self.out.compare_exchange(due, next, set, read).is_ok()
    }

    /// A request has failed; returns how many in a row.
    fn fails(&self) -> u32 {
        self.failures
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1)
    }
}

/// How a server was chosen for a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Chosen {
    /// It was in.
    In,
    /// It was out, and the request finds out whether it is back.
    Due,
    /// It was out, and all others have failed.
    Last,
}

/// What the servers of an upstream have in common; the next configuration keeps it.
#[derive(Debug)]
pub(super) struct Standings {
    began: Instant,
    /// Counts the changes, so that workers notice them.
    changes: AtomicU64,
    /// Held while a change is decided: whether it was said that no more servers are taken out.
    deciding: Mutex<bool>,
}

/// What became of a server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// It is taken out for this long; so many of all are left.
    Out(Duration, usize, usize),
    /// It should be, but too few would be left; not said before.
    Kept,
    /// It is back; so many of all are in.
    Back(usize, usize),
}

impl Default for Standings {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            changes: AtomicU64::new(0),
            deciding: Mutex::new(false),
        }
    }
}

impl Standings {
    /// This moment.
    pub(super) fn moment(&self, now: Instant) -> Moment {
        millis(now.saturating_duration_since(self.began)).saturating_add(1)
    }

    /// Something has changed.
    pub(super) fn change(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// How many changes there were.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// The request to a server has failed in this way; `all` are the upstream's servers.
    pub(super) fn fails<'s>(
        &self,
        eject: &EjectSettings,
        failure: Condition,
        (server, chosen): (&Standing, Chosen),
        all: impl Iterator<Item = &'s Standing> + Clone,
    ) -> Change {
        if !eject.on.contains(failure) {
            return Change::None;
        }
        let is_enough = server.fails() >= eject.consecutive_failures;
        if !is_enough && chosen != Chosen::Due {
            return Change::None;
        }
        let mut was_said = self.decide();
        let (is_out, count) = (server.is_out(), all.clone().count());
        let others = all.filter(|it| it.is_out()).count();
        let now = self.moment(Instant::now());
        match (is_out, chosen) {
            (true, Chosen::Due) => {}
            // Others decide: this one was under way when it was taken out, or had nowhere else to go.
            (true, Chosen::In | Chosen::Last) => return Change::None,
            // Another one has brought it back meanwhile.
            (false, _) if !is_enough => return Change::None,
            (false, _) if eject.may_take_out(others, count) => {}
            (false, _) => {
                let change = if *was_said {
                    Change::None
                } else {
                    Change::Kept
                };
                *was_said = true;
                return change;
            }
        }
        let mut last = server.last.lock().unwrap_or_else(PoisonError::into_inner);
        let before = last.map(|(long, back)| {
            let since = if is_out { 0 } else { now.saturating_sub(back) };
            (long, Duration::from_millis(since))
        });
        let time = eject.how_long(before);
        *last = Some((time, now));
        server
            .out
            .store(now.saturating_add(millis(time)), Ordering::Relaxed);
        server.failures.store(0, Ordering::Relaxed);
        server.ejections.fetch_add(1, Ordering::Relaxed);
        self.changes.fetch_add(1, Ordering::Relaxed);
        let left = count.saturating_sub(others + usize::from(!is_out));
        Change::Out(time, left, count)
    }

    /// The request to a server was answered well.
    pub(super) fn succeeds<'s>(
        &self,
        (server, chosen): (&Standing, Chosen),
        all: impl Iterator<Item = &'s Standing>,
    ) -> Change {
        if server.failures.load(Ordering::Relaxed) != 0 {
            server.failures.store(0, Ordering::Relaxed);
        }
        if chosen == Chosen::In {
            return Change::None;
        }
        let mut was_said = self.decide();
        if !server.is_out() {
            return Change::None;
        }
        let mut last = server.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, back)) = &mut *last {
            *back = self.moment(Instant::now());
        }
        server.out.store(0, Ordering::Relaxed);
        *was_said = false;
        self.changes.fetch_add(1, Ordering::Relaxed);
        let (mut count, mut left) = (0, 0);
        for standing in all {
            count += 1;
            left += usize::from(!standing.is_out());
        }
        Change::Back(left, count)
    }

    fn decide(&self) -> MutexGuard<'_, bool> {
        self.deciding.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2)
}
