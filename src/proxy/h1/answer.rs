//! The body of an answer, taken out of its framing (RFC 9112 sections 6 and 7).

use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};
use tokio::io::AsyncReadExt;

use super::head::{AnswerFraming, AnswerHead};
use super::{Connection, Exchange};
use crate::body::BodyError;
use crate::wire::{Chunks, Piece};

/// How much is read at a time, at first and at most.
const READ: (usize, usize) = (16 * 1024, 256 * 1024);
/// The longest trailers of an answer.
const LONGEST_TRAILERS: usize = 32 * 1024;
/// The most fields in trailers.
const MOST_TRAILERS: usize = 64;

/// The frames of an answer, while they come.
#[derive(Debug)]
pub(crate) struct AnswerFrames {
    exchange: Exchange,
    framing: Framing,
    keeps: bool,
    /// What was read and not taken out of its framing yet.
    pending: Bytes,
    room: BytesMut,
    read: usize,
}

#[derive(Debug)]
enum Framing {
    Length(u64),
    Chunked(Chunks),
    UntilClose,
    Ended,
}

impl AnswerFrames {
    /// The body that follows this head.
    pub(crate) fn new(exchange: Exchange, head: &mut AnswerHead) -> Self {
        Self {
            exchange,
            framing: match head.framing {
                AnswerFraming::None | AnswerFraming::Length(0) => Framing::Ended,
                AnswerFraming::Length(length) => Framing::Length(length),
                AnswerFraming::Chunked => Framing::Chunked(Chunks::with_trailers(LONGEST_TRAILERS)),
                AnswerFraming::UntilClose => Framing::UntilClose,
            },
            keeps: head.keeps,
            pending: head.take_rest(),
            room: BytesMut::new(),
            read: READ.0,
        }
    }

    /// Whether all of it was given.
    pub(crate) fn is_ended(&self) -> bool {
        matches!(self.framing, Framing::Ended)
    }

    /// How much is still to come, where that is known.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.framing {
            Framing::Length(left) => SizeHint::with_exact(left),
            Framing::Ended => SizeHint::with_exact(0),
            Framing::Chunked(_) | Framing::UntilClose => SizeHint::default(),
        }
    }

    /// The connection, after the end of an answer that lets it be used again: all of the request
    /// was sent, and nothing came that belongs to no answer.
    pub(crate) fn finish(self) -> Option<Box<Connection>> {
        let clean = self.keeps && self.is_ended() && self.pending.is_empty();
        self.exchange.finish().filter(|_| clean)
    }

    /// The next frame. The request goes on being sent meanwhile.
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
                Ok(0) if matches!(self.framing, Framing::UntilClose) => {
                    self.framing = Framing::Ended;
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

    /// Reads into `pending`, which is empty.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.room.reserve(self.read);
        let reading = self.exchange.connection.stream.read_buf(&mut self.room);
        let count = ready!(pin!(reading).poll(cx))?;
        // An app that fills the room has more.
        if count >= self.read {
            self.read = (self.read * 2).min(READ.1);
        }
        self.pending = self.room.split().freeze();
        Poll::Ready(Ok(count))
    }

    /// Takes one frame out of `pending`; `None` where that needs more.
    fn decode(&mut self) -> Result<Option<Frame<Bytes>>, &'static str> {
        while !self.pending.is_empty() {
            match &mut self.framing {
                Framing::Ended => return Ok(None),
                Framing::UntilClose => {
                    return Ok(Some(Frame::data(std::mem::take(&mut self.pending))));
                }
                Framing::Length(left) => {
                    let there = usize::try_from(*left).unwrap_or(usize::MAX);
                    let data = self.pending.split_to(there.min(self.pending.len()));
                    *left -= data.len() as u64;
                    if *left == 0 {
                        self.framing = Framing::Ended;
                    }
                    return Ok(Some(Frame::data(data)));
                }
                Framing::Chunked(chunks) => match chunks.piece(&self.pending)? {
                    Piece::Framing => self.pending = Bytes::new(),
                    Piece::Data { skip, length } => {
                        let data = self.pending.slice(skip..skip + length);
                        drop(self.pending.split_to(skip + length));
                        self.end_if_here()?;
                        return Ok(Some(Frame::data(data)));
                    }
                    Piece::End(length) => {
                        drop(self.pending.split_to(length));
                        let trailers = trailers(&chunks.take_trailers())?;
                        self.framing = Framing::Ended;
                        return Ok(trailers.map(Frame::trailers));
                    }
                },
            }
        }
        Ok(None)
    }

    /// Where the end of the last chunk came with its data, the body ends with this frame: hyper
    /// then sends both in one write, and the connection is free sooner.
    fn end_if_here(&mut self) -> Result<(), &'static str> {
        const LAST: &[u8] = b"\r\n0\r\n\r\n";
        if self.pending == LAST {
            if let Framing::Chunked(chunks) = &mut self.framing {
                if matches!(chunks.piece(LAST)?, Piece::End(_)) {
                    self.pending = Bytes::new();
                    self.framing = Framing::Ended;
                }
            }
        }
        Ok(())
    }
}

/// The fields of trailers, `None` where there are none.
fn trailers(lines: &[u8]) -> Result<Option<HeaderMap>, &'static str> {
    if lines == b"\r\n" {
        return Ok(None);
    }
    let mut fields = [httparse::EMPTY_HEADER; MOST_TRAILERS];
    let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(lines, &mut fields)
    else {
        return Err("the trailers are malformed");
    };
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_bytes(field.value);
        match (name, value) {
            (Ok(name), Ok(value)) => drop(trailers.append(name, value)),
            _ => return Err("the trailers are malformed"),
        }
    }
    Ok(Some(trailers))
}
