//! The bytes of an HTTP/2 connection between the socket and hyper: frames that are written in one turn leave
//! together, and a client that is silent without a request, or takes nothing of its answers, is cut off.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::gathered::Gathered;
use super::line::Line;
use super::{DROPPED, QUIET, poll_until};
use crate::body::{Body, BodyError};
use crate::limits::Bounds;

/// The frames of one connection.
#[derive(Debug)]
pub(crate) struct Frames<S> {
    stream: S,
    line: Arc<Line>,
    bounds: Arc<Bounds>,
    /// What was read before it was clear that it is HTTP/2.
    held: BytesMut,
    timer: Option<Pin<Box<Sleep>>>,
    send_timer: Option<Pin<Box<Sleep>>>,
    lingering: Option<(Pin<Box<Sleep>>, u64)>,
    end_of_input: bool,
    /// Frames that wait to be written with others.
    gathered: Gathered,
    /// How many requests had been answered when such frames were last written.
    told: u32,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    /// A connection of which `held` was read already.
    pub(crate) fn new(stream: S, held: BytesMut, line: Arc<Line>, bounds: Arc<Bounds>) -> Self {
        Self {
            stream,
            line,
            bounds,
            held,
            timer: None,
            send_timer: None,
            lingering: None,
            end_of_input: false,
            gathered: Gathered::default(),
            told: 0,
        }
    }

    /// Ready when the silence without a request has lasted too long.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.line.is_idle() {
            return Poll::Pending;
        }
        let deadline = self.line.idle_since() + self.bounds.timeouts.keep_alive;
        poll_until(&mut self.timer, cx, deadline)
    }

    /// Watches a write that waits: a client that takes nothing for `send` is cut off.
    fn watch_send<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.send_timer = None;
            return written;
        }
        let send = self.bounds.timeouts.send;
        let timer = self.send_timer.get_or_insert_with(|| Box::pin(sleep(send)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Writes and flushes what was gathered.
    fn poll_gathered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = Pin::new(&mut self.stream);
        let written = self.gathered.poll_write_to(stream, cx, self.line.is_idle());
        ready!(self.watch_send(cx, written))?;
        self.told = self.line.answered();
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch_send(cx, flushed)
    }

    /// Whether one answer alone waits to be written, and no other is on its way.
    fn is_last_answer(&self) -> bool {
        self.line.is_idle() && self.line.answered().wrapping_sub(self.told) <= 1
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Frames<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.gathered.is_empty()
            && let Poll::Ready(Err(error)) = this.poll_gathered(cx)
        {
            return Poll::Ready(Err(error));
        }
        if !this.held.is_empty() {
            let taken = this.held.len().min(buf.remaining());
            buf.put_slice(this.held.get(..taken).unwrap_or_default());
            this.held.advance(taken);
            if this.held.is_empty() {
                this.held = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        if this.end_of_input {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Ready(read) => {
                read?;
                this.end_of_input = buf.filled().len() == before;
            }
            // The end of the input is the end of the connection to hyper.
            Poll::Pending => {
                ready!(this.poll_deadline(cx));
                this.end_of_input = true;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Frames<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(taken) = this.gathered.take(slices) {
            return Poll::Ready(Ok(taken));
        }
        ready!(this.poll_gathered(cx))?;
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.watch_send(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.gathered.is_empty() {
            if !this.is_last_answer() && !this.gathered.is_stuck() {
                // Other streams may have their answers ready in this very turn of the event loop, and
                // h2 may have more of them at hand: the task comes to `poll_read` once more, behind
                // them.
                cx.waker().wake_by_ref();
                return Poll::Ready(Ok(()));
            }
            return this.poll_gathered(cx);
        }
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        this.watch_send(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingering.is_none() {
            if !this.gathered.is_empty() {
                ready!(this.poll_gathered(cx))?;
            }
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if this.end_of_input {
                return Poll::Ready(Ok(()));
            }
        }
        let (timer, taken) = this
            .lingering
            .get_or_insert_with(|| (Box::pin(sleep(QUIET)), 0));
        let mut room = [0; 4096];
        while *taken < DROPPED && timer.as_mut().poll(cx).is_pending() {
            let mut buf = ReadBuf::new(&mut room);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => *taken += buf.filled().len() as u64,
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// A request of HTTP/2 as one of HTTP/1.1 would be.
pub(crate) fn request(request: Request<Incoming>) -> Box<Request<Body>> {
    let mut request = Box::new(request.map(|incoming| {
        if incoming.is_end_stream() {
            Body::Empty
        } else {
            Body::stream(Streamed(incoming))
        }
    }));
    join_cookies(request.headers_mut());
    request
}

/// Clients may send each cookie in a field of its own; one field is made of them before anything reads or counts them
/// (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let is_cookie = |(name, _): &(&HeaderName, &HeaderValue)| **name == header::COOKIE;
    if headers.iter().filter(is_cookie).count() < 2 {
        return;
    }
    let crumbs = headers.get_all(header::COOKIE).iter();
    let crumbs: Vec<&[u8]> = crumbs.map(HeaderValue::as_bytes).collect();
    // What is joined of values can always be one.
    if let Ok(joined) = HeaderValue::try_from(crumbs.join(b"; ".as_slice())) {
        headers.insert(header::COOKIE, joined);
    }
}

/// hyper's body as ours.
struct Streamed(Incoming);

impl http_body::Body for Streamed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.0).poll_frame(cx));
        Poll::Ready(
            frame.map(|frame| frame.map_err(|error| BodyError::Client(io::Error::other(error)))),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
