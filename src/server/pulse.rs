//! Whether the workers turn: each takes one beat off when it comes to its orders. What a worker is busy with is not told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many workers have not answered yet.
#[derive(Clone, Debug)]
pub(crate) struct Pulse(Arc<AtomicUsize>);

impl Pulse {
    /// None of so many workers has answered.
    pub(crate) fn of(workers: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(workers)))
    }

    /// One worker turns.
    pub(crate) fn beat(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether all have answered.
    pub(crate) fn is_complete(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// All have answered.
    #[cfg(test)]
    pub(crate) fn complete() -> Self {
        Self::of(0)
    }
}
