//! Whether the workers turn: each takes one beat off when it comes to its orders. What a worker is busy with is not told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How many workers have not answered yet, and how long they took.
#[derive(Clone, Debug)]
pub(crate) struct Pulse(Arc<Asked>);

#[derive(Debug)]
struct Asked {
    at: Instant,
    left: AtomicUsize,
    /// The longest answer, in microseconds.
    longest: AtomicU64,
}

impl Pulse {
    /// None of so many workers has answered.
    pub(crate) fn of(workers: usize) -> Self {
        Self(Arc::new(Asked {
            at: Instant::now(),
            left: AtomicUsize::new(workers),
            longest: AtomicU64::new(0),
        }))
    }

    /// One worker turns.
    pub(crate) fn beat(&self) {
        let took = u64::try_from(self.0.at.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.0.longest.fetch_max(took, Ordering::Relaxed);
        self.0.left.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether all have answered.
    pub(crate) fn is_complete(&self) -> bool {
        self.0.left.load(Ordering::Relaxed) == 0
    }

    /// How long the answer took; how long there has been none, if there is none.
    pub(crate) fn took(&self, now: Instant) -> Duration {
        if self.is_complete() {
            Duration::from_micros(self.0.longest.load(Ordering::Relaxed))
        } else {
            now.saturating_duration_since(self.0.at)
        }
    }

    /// All have answered.
    #[cfg(test)]
    pub(crate) fn complete() -> Self {
        Self::of(0)
    }
}
