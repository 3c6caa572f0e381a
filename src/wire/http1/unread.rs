//! Reads and discards the rest of a request that is already answered, so that the response reaches the client (RFC 9112
//! section 9.6) and a connection with a short rest can be reused. Limited in bytes and time, and scheduled after all
//! other work of its worker. What a body means is not known here.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncRead;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::{BODY_ROOM, Link};
use crate::net::stream::Carrier;
use crate::wire::decode::Coming;
use crate::wire::line::Line;
use crate::wire::request_body::Feed;
use crate::wire::{DROP_WITHIN, DROPPED, LINGER, LINGER_BYTES, QUIET};

/// How many bytes are discarded before other tasks get their turn.
const TURN: u64 = 64 * 1024;

/// The result of discarding.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Dropped {
    /// The body has ended.
    All,
    /// The rest of it cannot be read.
    Stopped,
}

impl<S: AsyncRead + Carrier> Link<S> {
    /// Whether the rest of the current body, if unread, is discarded so that the next request can be read. A chunked
    /// body does not announce its length.
    pub(super) fn may_be_dropped(&self) -> bool {
        match self.coming {
            Coming::Nothing | Coming::Chunked(_) => true,
            Coming::Length(left) => left <= DROPPED,
            Coming::UntilClose => false,
        }
    }

    /// Discards the received part of a body that is no longer read.
    pub(super) async fn drop_what_is_here(&mut self, feed: Option<&Feed>) {
        if self.coming.is_over() || !feed.is_some_and(Feed::is_abandoned) {
            return;
        }
        // The client's further bytes are awaited later.
        poll_fn(|cx| Poll::Ready(self.poll_drop(cx).is_ready())).await;
    }

    /// Discards the rest of the body, up to its end or the time limit.
    pub(super) async fn drop_rest(&mut self, line: &Line) {
        let dropping = poll_fn(|cx| {
            if line.is_closing() {
                return Poll::Ready(Dropped::Stopped);
            }
            self.poll_drop(cx)
        });
        // Boxed: most requests have nothing to discard, and need not reserve the space.
        drop(Box::pin(timeout(DROP_WITHIN, dropping)).await);
    }

    /// Discards incoming bytes of the body. Yields to other tasks from time to time.
    pub(super) fn poll_drop(&mut self, cx: &mut Context<'_>) -> Poll<Dropped> {
        let mut now = 0;
        loop {
            if self.coming.is_over() {
                return Poll::Ready(Dropped::All);
            }
            if self.dropped >= LINGER_BYTES {
                self.broken = true;
            }
            if self.broken {
                return Poll::Ready(Dropped::Stopped);
            }
            if now >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match ready!(self.poll_body(cx)) {
                Some(Ok(frame)) => {
                    let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                    now += length;
                    self.dropped += length;
                }
                Some(Err(_)) => self.broken = true,
                None => {}
            }
        }
    }

    /// Closes the connection gracefully: ends the sending half, and reads what the client still sends, so that no reset
    /// destroys the response.
    pub(crate) async fn close(&mut self) {
        let parting = async {
            poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx)).await?;
            let between = self.coming.is_over() && self.held.is_empty() && !self.broken;
            if between {
                return Ok(());
            }
            self.out = Vec::new();
            self.spare = None;
            self.linger().await
        };
        // Success does not matter: the stream is dropped next.
        drop(timeout(LINGER, parting).await);
    }

    /// Reads what the client sends until it is done, which the end of a body that can be parsed shows, or else silence.
    async fn linger(&mut self) -> io::Result<()> {
        loop {
            let before = self.dropped;
            let dropping = poll_fn(|cx| self.poll_drop(cx));
            match timeout(DROP_WITHIN, dropping).await {
                Ok(_) => break,
                Err(_) if self.dropped > before => {}
                // It neither sends nor closes.
                Err(_) => return Ok(()),
            }
        }
        while !self.input_ended && self.dropped < LINGER_BYTES {
            self.held.clear();
            let reading = poll_fn(|cx| self.poll_more(cx, (BODY_ROOM.0, 1)));
            let Ok(read) = timeout(QUIET, reading).await else {
                break;
            };
            self.dropped += read? as u64;
            yield_now().await;
        }
        self.held = BytesMut::new();
        Ok(())
    }
}
