//! How many requests are in flight at a server, over all workers. Only upstreams whose settings ask for it count.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The requests in flight at one server. On cache lines of its own, because all workers write to it for each request;
/// nobody waits for it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Load(AtomicUsize);

impl Load {
    /// One more request is in flight.
    pub(super) fn enter(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One of them has ended.
    pub(super) fn leave(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
