//! What a client still sends of a request that was answered already: it is read and dropped, so that the response reaches the
//! client (RFC 9112 section 9.6), and a connection whose rest is short can go on. Bounded in bytes and time, and behind all
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

/// How much is dropped before others have their turn.
const TURN: u64 = 64 * 1024;

/// What came of dropping.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Dropped {
    /// The body has ended.
    All,
    /// The rest of it cannot be had.
    Stopped,
}

impl<S: AsyncRead + Carrier> Link<S> {
    /// Whether the rest of the present body, if nobody reads it, is dropped in favour of the next request. A chunked one does
    /// not say how long it is.
    pub(super) fn may_be_dropped(&self) -> bool {
        match self.coming {
            Coming::Nothing | Coming::Chunked(_) => true,
            Coming::Length(left) => left <= DROPPED,
            Coming::UntilClose => false,
        }
    }

    /// Drops what is here already of a body that nobody reads any more.
    pub(super) async fn drop_what_is_here(&mut self, feed: Option<&Feed>) {
        if self.coming.is_over() || !feed.is_some_and(Feed::is_abandoned) {
            return;
        }
        // What it waits for, the client's next bytes, is waited for later.
        poll_fn(|cx| Poll::Ready(self.poll_drop(cx).is_ready())).await;
    }

    /// Drops the rest of the body, up to its end or for a while.
    pub(super) async fn drop_rest(&mut self, line: &Line) {
        let dropping = poll_fn(|cx| {
            if line.is_closing() {
                return Poll::Ready(Dropped::Stopped);
            }
            self.poll_drop(cx)
        });
        // In a box: most requests have no such rest, and no room for it.
        drop(Box::pin(timeout(DROP_WITHIN, dropping)).await);
    }

    /// Drops what comes of the body. Others have their turn from time to time.
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

    /// Ends the connection in an orderly way: it says its last, and takes in what the client still sends, so that no reset
    /// destroys the response.
    pub(crate) async fn close(&mut self) {
        let parting = async {
            poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx)).await?;
            let between = self.coming.is_over() && self.held.is_empty() && !self.broken;
            if between {
                return Ok(());
            }
            self.out = Vec::new();
            self.spare = http::HeaderMap::new();
            self.linger().await
        };
        // Whether it succeeds is all the same: the stream is dropped next.
        drop(timeout(LINGER, parting).await);
    }

    /// Takes in what the client sends until it is done: the end of a body that can be followed tells, or else a silence.
    async fn linger(&mut self) -> io::Result<()> {
        loop {
            let before = self.dropped;
            let dropping = poll_fn(|cx| self.poll_drop(cx));
            match timeout(DROP_WITHIN, dropping).await {
                Ok(_) => break,
                Err(_) if self.dropped > before => {}
                // It neither sends nor ends.
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
