//! The bytes of clients' connections. HTTP/1.1 is read and written here, strictly: a request that can be read in two
//! ways is refused. HTTP/2 is `h2`'s; its streams are bounded, timed and judged here. Knows nothing of routes.
//!
//! What both directions have in common, chunks, bodies and their sending, is used towards apps, too.

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
pub(crate) use self::http1::{Ended, Link, Opening};
pub(crate) use self::http2::Http2;
pub(crate) use self::line::Line;
pub(crate) use self::mend::mend;
pub(crate) use self::names::name_of;
pub(crate) use self::send::{Framing, SendFault, Sending, field};
pub(crate) use self::target::verbatim_query;

/// The client's half of the HTTP/2 preface (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a connection is silent between requests before what serves it is given back.
const REST_AFTER: Duration = Duration::from_secs(1);
/// How much of a body that nobody reads is dropped in favour of the next request on its connection, in bytes, and for how
/// long. A longer rest is the end of the connection, which the response says. A chunked body does not tell how long it is: it
/// is dropped as long as it may take.
const DROPPED: u64 = 1 << 20;
const DROP_WITHIN: Duration = Duration::from_secs(5);
/// How long, and for how many bytes, a refused upload is taken in and dropped behind its response, so that the response is not
/// destroyed by a reset (RFC 9112 section 9.6): most clients read when they have sent all.
const LINGER: Duration = Duration::from_secs(30);
const LINGER_BYTES: u64 = 1 << 30;
/// How long a client is silent that is taken to be done, where its bytes do not tell.
const QUIET: Duration = Duration::from_secs(2);

/// For how many fields a table is kept to be used again, at most.
pub(crate) const SPARE_FIELDS: usize = 64;

/// Makes room for what is read next: as much as is `wanted` where that costs nothing, and else at least so much as is
/// `least`. Pieces that are still held share their memory with the next ones: few bytes never hold much of it.
pub(crate) fn make_room(buf: &mut BytesMut, (wanted, least): (usize, usize)) {
    let spare = buf.capacity() - buf.len();
    if spare < wanted && !buf.try_reclaim(wanted) && spare < least {
        buf.reserve(wanted);
    }
}

/// Ready when the deadline has passed. A timer that fires too early is set anew then: setting it for every request
/// would cost more than that.
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
