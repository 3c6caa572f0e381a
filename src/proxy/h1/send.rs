//! The sending half of an exchange: what was written of the head, then the body, piece by piece, each
//! with its framing, as fast as the app takes it and the client gives it.

use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body as _, Frame};
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use super::Outgoing;
use super::head;
use crate::body::BodyError;
use crate::stream::Stream;

/// Pieces up to this long are copied behind their framing; longer ones are written from where they are.
const COPIED: usize = 8 * 1024;
/// No more pieces are gathered when so much waits to be written.
const GATHERED: usize = 16 * 1024;

/// How the body of a request is framed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Framing {
    /// There is none.
    None,
    /// So many bytes are still to come.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// Why a request could not be sent to its end.
#[derive(Debug)]
pub(super) enum SendFault {
    /// The app takes no more.
    App(io::Error),
    /// The client gives no more.
    Client(BodyError),
}

/// How far the sending has come.
#[derive(Debug)]
pub(super) struct Sending {
    body: Outgoing,
    framing: Framing,
    /// How much of the connection's `write` has left.
    at: usize,
    /// A long piece that leaves after `write`.
    piece: Bytes,
    /// Whether the long piece is followed by the end of its chunk.
    owes_line_end: bool,
    /// Whether the body has given all.
    complete: bool,
    done: bool,
    last_piece: Option<Instant>,
}

impl Sending {
    /// A body to be sent behind a head that waits in `write`.
    pub(super) fn new(body: Outgoing, framing: Framing) -> Self {
        Self {
            body,
            framing,
            at: 0,
            piece: Bytes::new(),
            owes_line_end: false,
            complete: framing == Framing::None,
            done: false,
            last_piece: None,
        }
    }

    /// Nothing to be sent.
    pub(super) fn nothing() -> Self {
        Self {
            done: true,
            ..Self::new(Outgoing::Empty, Framing::None)
        }
    }

    /// Whether all of the request has left.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Whether all that the client has sent has left, and more is to come.
    pub(super) fn waits_for_client(&self, write: &[u8]) -> bool {
        !self.complete && self.piece.is_empty() && write.len() == self.at
    }

    /// When the body gave its last piece so far.
    pub(super) fn last_piece(&self) -> Option<Instant> {
        self.last_piece
    }

    /// Sends; ready when all has left.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        write: &mut Vec<u8>,
    ) -> Poll<Result<(), SendFault>> {
        loop {
            while !self.complete && self.piece.is_empty() && write.len() - self.at < GATHERED {
                match Pin::new(&mut self.body).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        self.last_piece = Some(Instant::now());
                        self.take(frame, write).map_err(SendFault::Client)?;
                    }
                    Poll::Ready(Some(Err(error))) => {
                        return Poll::Ready(Err(SendFault::Client(error)));
                    }
                    Poll::Ready(None) => self.end(write).map_err(SendFault::Client)?,
                    Poll::Pending => break,
                }
            }
            if write.len() == self.at && self.piece.is_empty() {
                if !self.complete {
                    return Poll::Pending;
                }
                write.clear();
                self.at = 0;
                self.done = true;
                // What it holds, a spool's space say, is not kept until the answer has ended.
                self.body = Outgoing::Empty;
                return Poll::Ready(Ok(()));
            }
            while write.len() > self.at || !self.piece.is_empty() {
                ready!(self.poll_write(cx, stream, write)).map_err(SendFault::App)?;
            }
            write.clear();
            self.at = 0;
            if std::mem::take(&mut self.owes_line_end) {
                write.extend_from_slice(b"\r\n");
            }
        }
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        write: &[u8],
    ) -> Poll<io::Result<()>> {
        let left = write.get(self.at..).unwrap_or_default();
        let written = if self.piece.is_empty() {
            ready!(Pin::new(stream).poll_write(cx, left))?
        } else {
            let slices = [IoSlice::new(left), IoSlice::new(&self.piece)];
            ready!(Pin::new(stream).poll_write_vectored(cx, &slices))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let ours = written.min(left.len());
        self.at += ours;
        self.piece.advance(written - ours);
        Poll::Ready(Ok(()))
    }

    /// Frames a piece of the body, or its trailers.
    fn take(&mut self, frame: Frame<Bytes>, write: &mut Vec<u8>) -> Result<(), BodyError> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                if let (Framing::Chunked, Ok(trailers)) = (self.framing, frame.into_trailers()) {
                    write.extend_from_slice(b"0\r\n");
                    for (name, value) in &trailers {
                        head::field(write, name, value);
                    }
                    write.extend_from_slice(b"\r\n");
                    self.complete = true;
                    return Ok(());
                }
                return self.end(write);
            }
        };
        if data.is_empty() {
            return Ok(());
        }
        if let Framing::Length(left) = &mut self.framing {
            *left = left
                .checked_sub(data.len() as u64)
                .ok_or_else(|| other_length("more"))?;
        }
        let chunked = self.framing == Framing::Chunked;
        if chunked {
            write!(write, "{:x}\r\n", data.len())?;
        }
        if data.len() <= COPIED {
            write.extend_from_slice(&data);
            if chunked {
                write.extend_from_slice(b"\r\n");
            }
        } else {
            self.piece = data;
            self.owes_line_end = chunked;
        }
        if self.framing == Framing::Length(0) {
            self.complete = true;
        }
        Ok(())
    }

    /// The body has given its last.
    fn end(&mut self, write: &mut Vec<u8>) -> Result<(), BodyError> {
        match self.framing {
            Framing::None | Framing::Length(0) => {}
            Framing::Length(_) => return Err(other_length("less")),
            Framing::Chunked => write.extend_from_slice(b"0\r\n\r\n"),
        }
        self.complete = true;
        Ok(())
    }
}

/// The body is not as long as its sender said.
fn other_length(than: &str) -> BodyError {
    let what = format!("the request body has {than} bytes than announced");
    BodyError::Io(io::Error::new(io::ErrorKind::InvalidData, what))
}
