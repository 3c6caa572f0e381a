//! `Line`: what the two ends of one connection, its bytes and its requests, tell each other.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use http::{HeaderMap, header};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::reject::Reject;

/// The host that a stand-in for a refused head has.
pub(super) const STAND_IN_HOST: &[u8] = b"refused";

/// The shared state of one connection. All of it is used by one thread alone; it is `Sync` only
/// because hyper asks for it.
#[derive(Debug)]
pub(crate) struct Line {
    began: Instant,
    refused: AtomicBool,
    body_broke: AtomicBool,
    refusal: Mutex<Option<Reject>>,
    tunnel: AtomicBool,
    http2: AtomicBool,
    rests: AtomicBool,
    /// Heads of HTTP/1.1 that were handed on.
    heads: AtomicU32,
    in_flight: AtomicU32,
    /// Requests that were answered to the end.
    answered: AtomicU32,
    tunnel_ended: Notify,
    /// Milliseconds after `began` at which the last request ended.
    idle_since: AtomicU64,
}

impl Line {
    /// The state of a connection that begins now.
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            refused: AtomicBool::new(false),
            body_broke: AtomicBool::new(false),
            refusal: Mutex::new(None),
            tunnel: AtomicBool::new(false),
            http2: AtomicBool::new(false),
            rests: AtomicBool::new(false),
            heads: AtomicU32::new(0),
            in_flight: AtomicU32::new(0),
            answered: AtomicU32::new(0),
            tunnel_ended: Notify::new(),
            idle_since: AtomicU64::new(0),
        }
    }

    /// Notes why the bytes were refused; the first reason stays.
    pub(crate) fn refuse(&self, reject: Reject) {
        if let Ok(mut refusal) = self.refusal.lock() {
            refusal.get_or_insert(reject);
        }
        self.refused.store(true, Ordering::Relaxed);
    }

    /// Notes that the body of the present request is broken.
    pub(crate) fn break_body(&self, reject: Reject) {
        self.body_broke.store(true, Ordering::Relaxed);
        self.refuse(reject);
    }

    /// Why the bytes were refused, if they were.
    pub(crate) fn refusal(&self) -> Option<Reject> {
        if !self.refused.load(Ordering::Relaxed) {
            return None;
        }
        self.refusal.lock().ok().and_then(|refusal| *refusal)
    }

    /// Why this very request was refused: whether it is the stand-in of a refused head. hyper may
    /// have read the stand-in while a request before it was still to be served. A client that
    /// sends the stand-in's host itself, and breaks its next head, refuses only itself.
    pub(crate) fn refusal_of(&self, headers: &HeaderMap) -> Option<Reject> {
        let refusal = self.refusal()?;
        let host = headers.get(header::HOST);
        let stand_in = host.is_some_and(|host| host.as_bytes() == STAND_IN_HOST);
        // A body that breaks is the present request's: hyper reads no further before its end.
        (stand_in || self.body_broke.load(Ordering::Relaxed)).then_some(refusal)
    }

    /// From here on the connection is a tunnel.
    pub(crate) fn become_tunnel(&self) {
        self.tunnel.store(true, Ordering::Relaxed);
    }

    /// Whether the connection is a tunnel.
    pub(crate) fn is_tunnel(&self) -> bool {
        self.tunnel.load(Ordering::Relaxed)
    }

    /// The connection speaks HTTP/2.
    pub(crate) fn become_http2(&self) {
        self.http2.store(true, Ordering::Relaxed);
    }

    /// Whether the connection speaks HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.http2.load(Ordering::Relaxed)
    }

    /// The connection is silent, and nothing is left to be written: what serves it may be given
    /// back.
    pub(crate) fn rest(&self) {
        self.rests.store(true, Ordering::Relaxed);
    }

    /// The silence is over.
    pub(crate) fn stir(&self) {
        self.rests.store(false, Ordering::Relaxed);
    }

    /// Whether the connection may rest.
    pub(crate) fn rests(&self) -> bool {
        self.rests.load(Ordering::Relaxed)
    }

    /// A head of HTTP/1.1 is handed on; its request is to begin.
    pub(super) fn hand_on(&self) {
        add(&self.heads, 1);
    }

    /// A request begins.
    pub(crate) fn enter(&self) {
        add(&self.in_flight, 1);
    }

    /// A request is answered to the end.
    pub(crate) fn leave(&self, now: Instant) {
        add(&self.in_flight, u32::MAX);
        add(&self.answered, 1);
        let elapsed = now.duration_since(self.began);
        let elapsed = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        self.idle_since.store(elapsed, Ordering::Relaxed);
        if self.is_tunnel() {
            self.tunnel_ended.notify_one();
        }
    }

    /// How many requests were answered to the end; it wraps around.
    pub(super) fn answered(&self) -> u32 {
        self.answered.load(Ordering::Relaxed)
    }

    /// How many heads of HTTP/1.1 were handed on whose requests are not answered to the end: hyper
    /// may not have begun yet with the last.
    pub(super) fn unanswered(&self) -> u32 {
        let heads = self.heads.load(Ordering::Relaxed);
        heads.wrapping_sub(self.answered())
    }

    /// Ready when the tunnel, if the connection is one, has ended.
    pub(crate) async fn tunnel_ended(&self) {
        while self.is_tunnel() && !self.is_idle() {
            self.tunnel_ended.notified().await;
        }
    }

    /// Whether no request is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) == 0
    }

    /// When the last request ended, or the connection began.
    pub(crate) fn idle_since(&self) -> Instant {
        self.began + std::time::Duration::from_millis(self.idle_since.load(Ordering::Relaxed))
    }
}

/// Adds, wrapping around. One thread alone comes here: nothing is lost between the two.
fn add(count: &AtomicU32, more: u32) {
    let sum = count.load(Ordering::Relaxed).wrapping_add(more);
    count.store(sum, Ordering::Relaxed);
}
