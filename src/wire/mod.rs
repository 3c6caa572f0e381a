//! Client connections as bytes. HTTP/1.1 is parsed and written here, strictly: a request with two readings is rejected.
//! HTTP/2 is handled by `h2`; its streams are limited, timed and validated here. Knows nothing of routes.
//!
//! Code common to both directions (chunks, bodies, sending them) is also used for upstream connections.

mod answer;
mod chunk;
mod decode;
mod gathered;
mod head;
mod http1;
mod http2;
mod line;
mod mend;
mod names;
#[cfg(any(test, fuzzing))]
pub(crate) mod properties;
mod request_body;
mod send;
mod target;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::{Instant, Sleep, sleep_until};

pub(crate) use self::chunk::Chunks;
pub(crate) use self::decode::{Coming, Step};
pub(crate) use self::head::decimal;
pub(crate) use self::http1::{Ended, Link, Opening};
pub(crate) use self::http2::Http2;
#[cfg(any(test, fuzzing))]
pub(crate) use self::http2::properties::client_holds;
pub(crate) use self::line::Line;
pub(crate) use self::mend::mend;
pub(crate) use self::names::name_of;
pub(crate) use self::send::{Framing, SendFault, Sending, field};
pub(crate) use self::target::verbatim_query;

/// The client's half of the HTTP/2 preface (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a connection must be idle between requests before the resources that serve it are released.
const REST_AFTER: Duration = Duration::from_secs(1);
/// How many bytes of an unread body are discarded so that the connection can serve the next request, and for how long.
/// If more is left, the connection is closed, and the response announces it. A chunked body does not announce its
/// length, so it is discarded for as long as the time limit permits.
const DROPPED: u64 = 1 << 20;
const DROP_WITHIN: Duration = Duration::from_secs(5);
/// How long, and for how many bytes, a rejected upload is read and discarded after its response, so that a reset does
/// not destroy the response (RFC 9112 section 9.6): most clients read only after they have sent everything.
const LINGER: Duration = Duration::from_secs(30);
const LINGER_BYTES: u64 = 1 << 30;
/// How long a client must be silent to count as done, where its bytes do not tell.
const QUIET: Duration = Duration::from_secs(2);

/// The largest header map, in fields, that is kept for reuse.
pub(crate) const SPARE_FIELDS: usize = 64;

/// Makes room for the next read: `wanted` bytes if that costs no allocation, and otherwise at least `least`. Pieces
/// still in use share their memory with the next ones, so that a few bytes never keep much memory alive.
pub(crate) fn make_room(buf: &mut BytesMut, (wanted, least): (usize, usize)) {
    let spare = buf.capacity() - buf.len();
    if spare < wanted && !buf.try_reclaim(wanted) && spare < least {
        buf.reserve(wanted);
    }
}

/// Ready when the deadline has passed. A timer that fires too early is reset only then, because resetting it for every
/// request would cost more.
pub(crate) fn poll_until(
    timer: &mut Option<Pin<Box<Sleep>>>,
    cx: &mut Context<'_>,
    deadline: Instant,
) -> Poll<()> {
    let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
    if timer.deadline() > deadline {
        timer.as_mut().reset(deadline);
    }
    loop {
        ready!(timer.as_mut().poll(cx));
        if timer.deadline() >= deadline {
            return Poll::Ready(());
        }
        timer.as_mut().reset(deadline);
    }
}
