//! Sizes and timeouts that apply to every connection and request. Values only; they are enforced elsewhere.

use std::time::Duration;

/// `limits:` of the configuration.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Limits {
    /// Open connections over all listeners; beyond it new ones are closed at once.
    pub(crate) connections: usize,
    /// Open connections per address; trusted proxies are not counted.
    pub(crate) connections_per_ip: u32,
    /// Bytes of a request head, including the request line.
    pub(crate) header_bytes: usize,
    /// Fields of a request head.
    pub(crate) header_count: usize,
    /// Bytes of a request target.
    pub(crate) uri_bytes: usize,
    /// Bytes of a request body, where the route sets no limit.
    pub(crate) body_bytes: u64,
}

/// `timeouts:` of the configuration. All are idle timeouts: progress restarts them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Timeouts {
    /// From the first byte of a request head to its last.
    pub(crate) header_read: Duration,
    /// Between two reads of a request body.
    pub(crate) body_read: Duration,
    /// A connection without a request.
    pub(crate) keep_alive: Duration,
    /// From accept to the end of the TLS handshake.
    pub(crate) tls_handshake: Duration,
    /// A client that reads nothing of what is sent to it.
    pub(crate) send: Duration,
    /// The time that requests in flight have to finish when the gateway stops.
    pub(crate) shutdown: Duration,
    /// The part of it for tunnels and streams, which do not end by themselves.
    pub(crate) shutdown_streams: Duration,
    /// The time before that in which the gateway is not ready, and serves on.
    pub(crate) shutdown_delay: Duration,
}

/// Limits and timeouts, shared by connections: each keeps those it started with.
#[derive(Debug)]
pub(crate) struct Bounds {
    /// Sizes.
    pub(crate) limits: Limits,
    /// Deadlines.
    pub(crate) timeouts: Timeouts,
}
