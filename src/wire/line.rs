//! `Line`: the state shared between a connection and its requests.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The shared state of one connection. Only one thread uses it; it is `Sync` only because the runtime requires it.
#[derive(Debug)]
pub(crate) struct Line {
    began: Instant,
    /// Whether the connection is to close when its request ends.
    closing: AtomicBool,
    /// Whether it was cut off with its streams.
    cut: AtomicBool,
    in_flight: AtomicU32,
    /// How many of them are streams, which do not end by themselves.
    streams: AtomicU32,
    /// Requests whose responses are complete.
    answered: AtomicU32,
    /// Milliseconds after `began` at which the last response began.
    answering: AtomicU64,
    /// Milliseconds after `began` at which the last request ended.
    idle_since: AtomicU64,
    /// Bytes of request bodies that were not counted for a request yet.
    received: AtomicU64,
}

impl Line {
    /// The state of a connection that begins now.
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            closing: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            streams: AtomicU32::new(0),
            answered: AtomicU32::new(0),
            answering: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
            received: AtomicU64::new(0),
        }
    }

    /// Closes an HTTP/1.1 connection after its current request, if any. Its task has to be polled afterwards.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Whether it is to close.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Bytes of a request's body have arrived.
    pub(super) fn receive(&self, bytes: u64) {
        let sum = self.received.load(Ordering::Relaxed).wrapping_add(bytes);
        self.received.store(sum, Ordering::Relaxed);
    }

    /// The bytes of bodies that have arrived since this was called last. Of requests that run at the same time, the one
    /// that ends first takes them all.
    pub(crate) fn take_received(&self) -> u64 {
        let received = self.received.load(Ordering::Relaxed);
        if received != 0 {
            self.received.store(0, Ordering::Relaxed);
        }
        received
    }

    /// A request begins.
    pub(crate) fn enter(&self) {
        add(&self.in_flight, 1);
    }

    /// The response to a request is complete.
    pub(crate) fn leave(&self, now: Instant) {
        add(&self.in_flight, u32::MAX);
        add(&self.answered, 1);
        self.idle_since
            .store(self.milliseconds(now), Ordering::Relaxed);
    }

    /// The response of a request in flight turned out to be a stream, of events or of calls.
    pub(crate) fn enter_stream(&self) {
        add(&self.streams, 1);
    }

    /// A stream has ended. Call it before [`Line::leave`].
    pub(crate) fn leave_stream(&self) {
        add(&self.streams, u32::MAX);
    }

    /// Whether there are streams in flight, and nothing else.
    pub(crate) fn has_only_streams(&self) -> bool {
        let streams = self.streams.load(Ordering::Relaxed);
        streams > 0 && streams == self.in_flight.load(Ordering::Relaxed)
    }

    /// The connection is cut off, because the process ends.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    /// Whether it was.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// The head of a response is ready.
    pub(crate) fn answer(&self, now: Instant) {
        self.answering
            .store(self.milliseconds(now), Ordering::Relaxed);
    }

    /// Milliseconds after the connection began.
    fn milliseconds(&self, now: Instant) -> u64 {
        let elapsed = now.duration_since(self.began);
        elapsed.as_secs() * 1000 + u64::from(elapsed.subsec_millis())
    }

    /// When the head of the last response was ready, in milliseconds after the connection began.
    pub(super) fn answering(&self) -> u64 {
        self.answering.load(Ordering::Relaxed)
    }

    /// How many requests have been answered completely; wraps around.
    pub(super) fn answered(&self) -> u32 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Whether no request is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) == 0
    }

    /// When the last request ended, or the connection began.
    pub(super) fn idle_since(&self) -> Instant {
        self.began + Duration::from_millis(self.idle_since.load(Ordering::Relaxed))
    }
}

/// Adds, wrapping around. Only one thread calls this, so that no update is lost between load and store.
fn add(count: &AtomicU32, more: u32) {
    let sum = count.load(Ordering::Relaxed).wrapping_add(more);
    count.store(sum, Ordering::Relaxed);
}
