//! Sizes and deadlines that hold for every connection and request. Values only; who enforces
//! them is said at each.

use std::time::Duration;

/// `limits:` of the configuration.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Limits {
    /// Open connections over all listeners; past it a new one is closed at once.
    pub(crate) connections: usize,
    /// Open connections of one address; trusted proxies are not counted.
    pub(crate) connections_per_ip: u32,
    /// Bytes of one request head, the request line included.
    pub(crate) header_bytes: usize,
    /// Fields of one request head.
    pub(crate) header_count: usize,
    /// Bytes of a request target.
    pub(crate) uri_bytes: usize,
    /// Bytes of a request body, where the route says nothing else.
    pub(crate) body_bytes: u64,
}

/// `timeouts:` of the configuration. All are idle times: progress starts them anew.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Timeouts {
    /// From the first byte of a request head to its last.
    pub(crate) header_read: Duration,
    /// Between two pieces of a request body.
    pub(crate) body_read: Duration,
    /// A connection without a request.
    pub(crate) keep_alive: Duration,
    /// From accept to the end of the TLS handshake.
    pub(crate) tls_handshake: Duration,
    /// A client that takes nothing of what is sent to it.
    pub(crate) send: Duration,
    /// The time that requests in flight have when the gateway stops.
    pub(crate) shutdown: Duration,
    /// The part of it that tunnels and streams have, which do not end by themselves.
    pub(crate) shutdown_streams: Duration,
}

/// All of them, as connections share them: each keeps those that it began with.
#[derive(Debug)]
pub(crate) struct Bounds {
    /// Sizes.
    pub(crate) limits: Limits,
    /// Deadlines.
    pub(crate) timeouts: Timeouts,
}
