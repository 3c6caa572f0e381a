//! Decodes the framing of a response's body (RFC 9112 sections 6 and 7).

use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio::io::AsyncReadExt;

use super::head::{AnswerFraming, AnswerHead};
use super::{Connection, Exchange};
use crate::message::body::BodyError;
use crate::net::stream::SEGMENT;
use crate::wire::{Chunks, Coming, Step, make_room};

/// The read size, at first and at most.
const READ: (usize, usize) = (16 * 1024, 4 * SEGMENT);
/// The longest trailers of a response.
const LONGEST_TRAILERS: usize = 32 * 1024;

/// The frames of a response that is being received.
#[derive(Debug)]
pub(crate) struct AnswerFrames {
    exchange: Exchange,
    coming: Coming,
    keeps: bool,
    /// What was read and not decoded yet.
    pending: Bytes,
    room: BytesMut,
    read: usize,
}

impl AnswerFrames {
    /// The body that follows this head.
    pub(crate) fn new(mut exchange: Exchange, head: &mut AnswerHead) -> Self {
        exchange.connection.suspect = head.framing == AnswerFraming::None;
        exchange.connection.rests = head.rests;
        Self {
            exchange,
            coming: match head.framing {
                AnswerFraming::None | AnswerFraming::Length(0) => Coming::Nothing,
                AnswerFraming::Length(length) => Coming::Length(length),
                AnswerFraming::Chunked => Coming::chunked_by_an_app(LONGEST_TRAILERS),
                AnswerFraming::UntilClose => Coming::UntilClose,
            },
            keeps: head.keeps,
            pending: head.take_rest(),
            room: BytesMut::new(),
            read: READ.0,
        }
    }

    /// Whether all of it was returned.
    pub(crate) fn is_ended(&self) -> bool {
        self.coming.is_over()
    }

    /// Whether the rest of it was read already.
    pub(crate) fn is_here(&self) -> bool {
        let here = self.pending.len() as u64;
        match &self.coming {
            Coming::Nothing => true,
            Coming::Length(left) => *left <= here,
            // Parsed from the beginning, where the body still is when this is called.
            Coming::Chunked(_) => Chunks::new(LONGEST_TRAILERS)
                .follow(&self.pending)
                .is_ok_and(|(_, ended)| ended),
            Coming::UntilClose => false,
        }
    }

    /// Limits the current read size to `most`.
    pub(crate) fn read_at_most(&mut self, most: usize) {
        self.read = self.read.min(most);
    }

    /// Reads little at a time, until the app turns out to have more again.
    pub(crate) fn read_less(&mut self) {
        self.read = READ.0;
    }

    /// How many bytes are left, if known.
    pub(crate) fn size_hint(&self) -> SizeHint {
        self.coming.size_hint()
    }

    /// The connection, after a response that permits reuse: all of the request was sent, and no bytes were received
    /// that belong to no response.
    pub(crate) fn finish(self) -> Option<Box<Connection>> {
        let clean = self.keeps && self.is_ended() && self.pending.is_empty();
        self.exchange.finish().filter(|_| clean)
    }

    /// The next frame. Meanwhile the request continues to be sent.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.is_ended() {
            return Poll::Ready(None);
        }
        self.exchange.poll_send(cx)?;
        loop {
            if let Some(frame) = self.decode().map_err(BodyError::UpstreamMalformed)? {
                return Poll::Ready(Some(Ok(frame)));
            }
            if self.is_ended() {
                return Poll::Ready(None);
            }
            match ready!(self.poll_read(cx)) {
                Ok(0) if matches!(self.coming, Coming::UntilClose) => {
                    self.coming = Coming::Nothing;
                    return Poll::Ready(None);
                }
                Ok(0) => {
                    let early = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Poll::Ready(Some(Err(BodyError::Upstream(early))));
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(BodyError::Upstream(error)))),
            }
        }
    }

    /// Reads into `pending`, which must be empty.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        make_room(&mut self.room, (self.read, READ.0 / 2));
        let reading = self.exchange.connection.stream.read_buf(&mut self.room);
        let count = ready!(pin!(reading).poll(cx))?;
        // An app that fills the buffer has more.
        if count >= self.read {
            self.read = (self.read * 2).min(READ.1);
        }
        self.pending = self.room.split().freeze();
        Poll::Ready(Ok(count))
    }

    /// Decodes one frame of `pending`; `None` if that needs more.
    fn decode(&mut self) -> Result<Option<Frame<Bytes>>, &'static str> {
        if self.pending.is_empty() || self.is_ended() {
            return Ok(None);
        }
        match self.coming.step(&self.pending)? {
            Step::More => {
                self.pending = Bytes::new();
                Ok(None)
            }
            Step::Data { skip, length } => {
                // Taking all of it costs less than splitting off a part.
                let mut data = if skip + length == self.pending.len() {
                    std::mem::take(&mut self.pending)
                } else {
                    self.pending.split_to(skip + length)
                };
                data.advance(skip);
                if self.coming.ends_with(&self.pending)? {
                    self.pending = Bytes::new();
                }
                Ok(Some(Frame::data(data)))
            }
            Step::End(length, trailers) => {
                drop(self.pending.split_to(length));
                Ok(trailers.map(Frame::trailers))
            }
        }
    }
}
