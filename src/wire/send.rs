//! Sends a message, a request to an app or a response to a client: first its head, which is written already, then the
//! body, piece by piece with its framing, as fast as one side reads and the other supplies it.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderName;
use http_body::Frame;
use tokio::io::AsyncWrite;

use crate::message::body::{BodyError, Carry};
use crate::net::stream::Carrier;

/// Pieces up to this long are copied after their framing; longer ones are written without a copy.
const COPIED: usize = 8 * 1024;
/// No more pieces are gathered once this many bytes wait to be written.
const GATHERED: usize = 16 * 1024;

/// How a body is framed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Framing {
    /// There is none.
    None,
    /// This many bytes are left.
    Length(u64),
    /// Chunks, with trailers if `trailers` is set.
    Chunked {
        /// Whether the reader understands trailers.
        trailers: bool,
    },
    /// The end of the connection ends it.
    UntilClose,
}

/// Why a message could not be sent to its end.
#[derive(Debug)]
pub(crate) enum SendFault {
    /// The reader accepts no more.
    Reader(io::Error),
    /// The body failed.
    Body(BodyError),
}

/// The progress of sending a message.
#[derive(Debug)]
pub(crate) struct Sending<B> {
    /// `None` once it is no longer polled.
    body: Option<B>,
    framing: Framing,
    /// How many bytes of the connection's `write` have been sent.
    at: usize,
    /// A long piece to be sent after `write`.
    piece: Bytes,
    /// Whether the long piece is followed by the line end of its chunk.
    owes_line_end: bool,
    /// Whether the body has been read to its end.
    complete: bool,
    done: bool,
    /// Whether the reader's stream may still buffer some of the bytes.
    unflushed: bool,
    /// Whether the body was pending at the last poll.
    is_dry: bool,
    /// How many pieces the body has supplied.
    pieces: u64,
    /// How many bytes the stream has accepted.
    taken: u64,
}

impl<B: Carry + Unpin> Sending<B> {
    /// A body to be sent after a head that waits in `write`.
    pub(crate) fn new(body: B, framing: Framing) -> Self {
        Self {
            body: Some(body),
            framing,
            at: 0,
            piece: Bytes::new(),
            owes_line_end: false,
            complete: framing == Framing::None,
            done: false,
            unflushed: false,
            is_dry: false,
            pieces: 0,
            taken: 0,
        }
    }

    /// Nothing to be sent.
    pub(crate) fn nothing() -> Self {
        Self {
            body: None,
            framing: Framing::None,
            at: 0,
            piece: Bytes::new(),
            owes_line_end: false,
            complete: true,
            done: true,
            unflushed: false,
            is_dry: false,
            pieces: 0,
            taken: 0,
        }
    }

    /// Whether the whole message has been sent.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// Whether everything that the body has supplied is sent, and the body is pending.
    pub(crate) fn waits_for_body(&self, write: &[u8]) -> bool {
        self.is_dry && self.piece.is_empty() && write.len() == self.at && !self.unflushed
    }

    /// Lets the body read ahead while the reader accepts nothing.
    pub(crate) fn poll_ahead(&mut self, cx: &mut Context<'_>) {
        if let Some(body) = &mut self.body {
            Pin::new(body).poll_ahead(cx);
        }
    }

    /// How many pieces the body has supplied so far.
    pub(crate) fn pieces(&self) -> u64 {
        self.pieces
    }

    /// How many bytes the reader's stream has accepted so far.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// Sends; ready when everything is sent.
    pub(crate) fn poll<S: Carrier>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        write: &mut Vec<u8>,
    ) -> Poll<Result<(), SendFault>> {
        loop {
            if ready!(self.poll_carry(cx, stream, write))? {
                continue;
            }
            let is_carried = self.gather(cx, stream.carries(), write);
            if is_carried.map_err(SendFault::Body)? {
                continue;
            }
            while write.len() > self.at || !self.piece.is_empty() {
                ready!(self.poll_write(cx, stream, write)).map_err(SendFault::Reader)?;
            }
            write.clear();
            self.at = 0;
            if std::mem::take(&mut self.owes_line_end) {
                write.extend_from_slice(b"\r\n");
                continue;
            }
            if self.complete || self.is_dry {
                ready!(self.poll_flush(cx, stream)).map_err(SendFault::Reader)?;
                if !self.complete {
                    return Poll::Pending;
                }
                self.done = true;
                // Frees what the body holds, such as the space of a spool, before the other half has ended.
                self.body = None;
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Lets the kernel send bytes of the body from its file (`sendfile`) where possible; returns whether it did.
    fn poll_carry<S: Carrier>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        write: &mut Vec<u8>,
    ) -> Poll<Result<bool, SendFault>> {
        let Framing::Length(left) = self.framing else {
            return Poll::Ready(Ok(false));
        };
        let Some(body) = self
            .body
            .as_mut()
            .filter(|body| left > 0 && body.may_carry())
        else {
            return Poll::Ready(Ok(false));
        };
        if !stream.carries() || !self.piece.is_empty() {
            return Poll::Ready(Ok(false));
        }
        while let Some(rest) = write.get(self.at..).filter(|rest| !rest.is_empty()) {
            let written = ready!(stream.poll_write_more(cx, rest)).map_err(SendFault::Reader)?;
            if written == 0 {
                return Poll::Ready(Err(SendFault::Reader(io::ErrorKind::WriteZero.into())));
            }
            self.at += written;
            self.taken += written as u64;
        }
        write.clear();
        self.at = 0;
        self.is_dry = false;
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        let mut send = |cx: &mut Context<'_>, file: &File, offset, count: usize| {
            stream.poll_send_file(cx, file, offset, count.min(most))
        };
        let carried = ready!(Pin::new(body).poll_carry(cx, &mut send)).map_err(SendFault::Body)?;
        let Some(sent) = carried else {
            return Poll::Ready(Ok(false));
        };
        let sent = sent.map_err(SendFault::Reader)? as u64;
        self.taken += sent;
        self.framing = Framing::Length(left.saturating_sub(sent));
        self.complete = sent >= left;
        Poll::Ready(Ok(true))
    }

    /// Collects pieces of the body while it has some ready and they are short; returns whether they end where the body
    /// continues with bytes that the kernel can send.
    fn gather(
        &mut self,
        cx: &mut Context<'_>,
        carries: bool,
        write: &mut Vec<u8>,
    ) -> Result<bool, BodyError> {
        self.is_dry = false;
        while !self.complete && self.piece.is_empty() && write.len() - self.at < GATHERED {
            let Some(body) = &mut self.body else {
                self.end(write)?;
                return Ok(false);
            };
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(Some(frame)) => {
                    let continues = carries && body.may_carry();
                    self.pieces += 1;
                    self.take(frame?, write)?;
                    if continues && self.piece.is_empty() && !self.complete {
                        return Ok(matches!(self.framing, Framing::Length(_)));
                    }
                }
                Poll::Ready(None) => self.end(write)?,
                Poll::Pending => {
                    self.is_dry = true;
                    break;
                }
            }
        }
        Ok(false)
    }

    fn poll_flush<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
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
        self.unflushed = true;
        self.taken += written as u64;
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
                if let (Framing::Chunked { trailers: true }, Ok(trailers)) =
                    (self.framing, frame.into_trailers())
                {
                    write.extend_from_slice(b"0\r\n");
                    for (name, value) in &trailers {
                        field(write, name, value.as_bytes());
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
        let chunked = matches!(self.framing, Framing::Chunked { .. });
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

    /// The body has reached its end.
    fn end(&mut self, write: &mut Vec<u8>) -> Result<(), BodyError> {
        match self.framing {
            Framing::None | Framing::UntilClose | Framing::Length(0) => {}
            Framing::Length(_) => return Err(other_length("less")),
            Framing::Chunked { .. } => write.extend_from_slice(b"0\r\n\r\n"),
        }
        self.complete = true;
        Ok(())
    }
}

/// Writes one field line. Neither names nor values can contain a line end.
pub(crate) fn field(out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The body is not as long as its sender announced.
fn other_length(than: &str) -> BodyError {
    let what = format!("the body has {than} bytes than announced");
    BodyError::Io(io::Error::new(io::ErrorKind::InvalidData, what))
}
