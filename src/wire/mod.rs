//! The strict front of an HTTP/1.1 connection: bytes between the socket and hyper.
//!
//! A request head is handed on whole or not at all, and only if there is exactly one way to read
//! it; body framing is followed far enough to know where the next head begins. What it refuses it
//! replaces by a stand-in request and a note in [`Line`], so that the refusal is answered, logged
//! and closed by the same code as every other. It knows nothing of routes.

mod chunk;
mod gathered;
mod head;
mod line;
#[cfg(any(test, fuzzing))]
pub(crate) mod properties;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

pub(crate) use self::chunk::{Chunks, Piece};
use self::gathered::Gathered;
use self::head::{Head, HeadScan};
pub(crate) use self::line::Line;
use crate::limits::Bounds;
use crate::reject::Reject;

/// What stands in for a head that was refused; `Line` says why.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";
/// The client's half of the HTTP/2 preface (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a closed connection goes on taking in what the client still sends, so that the
/// answer is not destroyed by a reset (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;
/// Room for the first head of a connection, which most fit into.
const HEAD_ROOM: usize = 4096;
/// How long a connection is silent between requests before what serves it is given back.
const REST_AFTER: Duration = Duration::from_secs(1);
/// How often it is seen whether a request that takes its time has ended.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// What a connection begins with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Opening {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Silence: it may rest.
    Nothing,
}

/// One connection's bytes.
#[derive(Debug)]
pub(crate) struct Wire<S> {
    stream: S,
    line: Arc<Line>,
    bounds: Arc<Bounds>,
    expect: Expect,
    /// Bytes that arrived and are not handed on yet: a part of a head, or what follows one.
    held: BytesMut,
    /// How many of `held` may be handed on.
    ready: usize,
    /// When the head that is arriving began.
    head_began: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    send_timer: Option<Pin<Box<Sleep>>>,
    lingering: Option<(Pin<Box<Sleep>>, usize)>,
    end_of_input: bool,
    /// Whether all that was written was flushed.
    flushed: bool,
    /// Frames of HTTP/2 that wait to be written with others.
    gathered: Gathered,
    /// How many requests had been answered when such frames were last written.
    told: u32,
    /// Whether the present silence was found to be long enough for a rest.
    quiet: bool,
}

/// What the next byte belongs to.
#[derive(Debug)]
enum Expect {
    /// A request head, scanned so far.
    Head(HeadScan),
    /// A body of this many more bytes.
    Body(u64),
    /// A chunked body.
    Chunks(Chunks),
    /// A refused head: its stand-in is still to be handed on, behind the requests before it.
    StandIn(&'static [u8], Reject),
    /// A broken body: an error is still to be reported.
    Broken(&'static str),
    /// Nothing: all further input is ignored.
    Nothing,
    /// Whatever it is: HTTP/2, or a tunnel.
    Anything,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// A connection that nothing was read from yet.
    pub(crate) fn new(stream: S, line: Arc<Line>, bounds: Arc<Bounds>) -> Self {
        Self {
            stream,
            line,
            bounds,
            expect: Expect::Head(HeadScan::default()),
            held: BytesMut::new(),
            ready: 0,
            head_began: None,
            timer: None,
            send_timer: None,
            lingering: None,
            end_of_input: false,
            flushed: true,
            gathered: Gathered::default(),
            told: 0,
            quiet: false,
        }
    }

    /// What the bytes come from and go to.
    pub(crate) fn stream(&self) -> &S {
        &self.stream
    }

    /// Its sizes and deadlines.
    pub(crate) fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// Gives back what a silent connection does not need. Call it between requests only.
    pub(crate) fn rest(&mut self) {
        self.held = BytesMut::new();
        self.timer = None;
        self.send_timer = None;
        self.quiet = false;
        self.line.stir();
    }

    /// When the silence between two requests has lasted too long.
    pub(crate) fn closes_at(&self) -> Instant {
        self.line.idle_since() + self.bounds.timeouts.keep_alive
    }

    /// Takes every byte as it is from now on.
    pub(crate) fn pass_through(&mut self) {
        self.expect = Expect::Anything;
        self.ready = self.held.len();
    }

    /// Reads until it is clear whether the client begins with HTTP/2's preface, or that it is in
    /// no hurry to begin at all.
    ///
    /// # Errors
    /// The connection broke, or the preface did not become whole within `keep_alive`.
    pub(crate) async fn sniff(&mut self) -> io::Result<Opening> {
        let quiet = Instant::now() + REST_AFTER;
        loop {
            let seen = self.held.len().min(PREFACE.len());
            if self.held.get(..seen) != PREFACE.get(..seen) {
                return Ok(Opening::Http1);
            }
            if seen == PREFACE.len() {
                return Ok(Opening::Http2);
            }
            let closes = self.closes_at();
            let until = if seen == 0 { quiet.min(closes) } else { closes };
            if seen == 0 {
                self.held.reserve(HEAD_ROOM);
            }
            let read = tokio::io::AsyncReadExt::read_buf(&mut self.stream, &mut self.held);
            match tokio::time::timeout_at(until, read).await {
                Ok(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) if until < closes => return Ok(Opening::Nothing),
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }

    /// Follows the framing of `bytes` and says how many of them may be handed on.
    fn follow(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        let mut heads = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match &mut self.expect {
                Expect::Anything => return bytes.len(),
                Expect::Nothing | Expect::StandIn(..) | Expect::Broken(_) => return at,
                Expect::Body(left) => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= taken as u64;
                    at += taken;
                    if *left == 0 {
                        self.expect = Expect::Head(HeadScan::default());
                    }
                }
                Expect::Chunks(chunks) => match chunks.follow(rest) {
                    Ok((taken, end)) => {
                        at += taken;
                        if end {
                            self.expect = Expect::Head(HeadScan::default());
                        }
                    }
                    Err(what) => {
                        if heads == 1 && self.line.unanswered() == 1 {
                            // It came with its head: no request but this one is concerned.
                            self.line.break_body(Reject::BadRequest(what));
                        }
                        self.expect = Expect::Broken(what);
                        return at;
                    }
                },
                Expect::Head(scan) => match scan.scan(rest, &self.bounds.limits) {
                    Ok(Some((length, head))) => {
                        at += length;
                        heads += 1;
                        self.line.hand_on();
                        self.head_began = None;
                        self.expect = match head {
                            Head::NoBody => Expect::Head(HeadScan::default()),
                            Head::Length(length) => Expect::Body(length),
                            Head::Chunked => {
                                Expect::Chunks(Chunks::new(self.bounds.limits.header_bytes))
                            }
                        };
                    }
                    Ok(None) => return at,
                    Err(reject) => {
                        self.refuse(reject);
                        return at;
                    }
                },
            }
        }
        at
    }

    fn refuse(&mut self, reject: Reject) {
        self.expect = Expect::StandIn(STAND_IN, reject);
        self.head_began = None;
    }

    /// Whether the peer may still have things to say that nobody will read.
    fn is_unread(&self) -> bool {
        let between = matches!(&self.expect, Expect::Head(_)) && self.held.is_empty();
        !self.end_of_input && !between
    }

    /// The time at which the present silence has lasted too long; `None` where silence is fine.
    fn deadline(&self) -> Option<Instant> {
        match &self.expect {
            Expect::Head(_) => match self.head_began {
                Some(began) => Some(began + self.bounds.timeouts.header_read),
                // hyper reads on while a request is in flight, to learn of a client that leaves.
                None if self.line.unanswered() > 0 => None,
                None if self.quiet => Some(self.closes_at()),
                None => Some(self.closes_at().min(self.line.idle_since() + REST_AFTER)),
            },
            Expect::Anything if self.line.is_http2() && self.line.is_idle() => {
                Some(self.closes_at())
            }
            Expect::Body(_)
            | Expect::Chunks(_)
            | Expect::StandIn(..)
            | Expect::Broken(_)
            | Expect::Nothing
            | Expect::Anything => None,
        }
    }

    /// Arms the timer; ready when the deadline has passed.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let deadline = self.deadline();
            if deadline.is_none() && !matches!(self.expect, Expect::Head(_)) {
                return Poll::Pending;
            }
            // hyper does not read again after an answer whose request left a read waiting: the
            // timer has to be armed before there is a silence.
            let timer = self.timer.get_or_insert_with(|| {
                let until = deadline.unwrap_or_else(|| Instant::now() + REST_AFTER);
                Box::pin(sleep_until(until))
            });
            // A timer that fires too early is set anew then: arming it for every request, or
            // looking at the clock, would cost more than that.
            if let Some(deadline) = deadline
                && timer.deadline() > deadline
            {
                timer.as_mut().reset(deadline);
            }
            ready!(timer.as_mut().poll(cx));
            match deadline {
                Some(deadline) if timer.deadline() >= deadline => return Poll::Ready(()),
                Some(deadline) => timer.as_mut().reset(deadline),
                None => {
                    let again = LOOK_AGAIN.min(self.bounds.timeouts.keep_alive);
                    timer.as_mut().reset(Instant::now() + again);
                }
            }
        }
    }

    /// The silence has lasted too long, or long enough for a rest.
    fn expire(&mut self) {
        if self.head_began.is_some() {
            self.held.clear();
            self.refuse(Reject::RequestTimeout);
        } else if Instant::now() < self.closes_at() {
            self.quiet = true;
            // hyper flushes at the end of each turn: where that was the last it did, it holds
            // nothing that is still to be written.
            if self.flushed {
                self.line.rest();
            }
        } else {
            self.end_of_input = true;
            self.expect = Expect::Nothing;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<S> {
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
        if this.line.is_tunnel() && !matches!(this.expect, Expect::Anything) {
            this.pass_through();
        }
        loop {
            if this.ready > 0 {
                let taken = this.ready.min(buf.remaining());
                if let Some(bytes) = this.held.get(..taken) {
                    buf.put_slice(bytes);
                }
                this.held.advance(taken);
                this.ready -= taken;
                if this.held.is_empty() {
                    this.held = BytesMut::new();
                }
                return Poll::Ready(Ok(()));
            }
            match &mut this.expect {
                Expect::StandIn(rest, reject) => {
                    if rest.len() == STAND_IN.len() {
                        this.line.hand_on();
                    }
                    this.line.refuse(*reject);
                    let taken = rest.len().min(buf.remaining());
                    let (now, later) = rest.split_at(taken);
                    buf.put_slice(now);
                    *rest = later;
                    if later.is_empty() {
                        this.expect = Expect::Nothing;
                    }
                    return Poll::Ready(Ok(()));
                }
                Expect::Broken(what) => {
                    let error = io::Error::new(io::ErrorKind::InvalidData, *what);
                    this.line.break_body(Reject::BadRequest(what));
                    this.expect = Expect::Nothing;
                    return Poll::Ready(Err(error));
                }
                // The end of the input is the end of the connection to hyper: a refusal that is
                // still to be answered has none.
                Expect::Nothing if this.end_of_input => return Poll::Ready(Ok(())),
                Expect::Nothing => return Poll::Pending,
                Expect::Head(_) if !this.held.is_empty() => {
                    // A part of a head is here (or all of it, after `sniff`).
                    let held = std::mem::take(&mut this.held);
                    let ready = this.follow(&held);
                    this.held = held;
                    this.ready = ready;
                    if ready > 0 || !matches!(this.expect, Expect::Head(_)) {
                        continue;
                    }
                    if this.head_began.is_none() {
                        this.head_began = Some(Instant::now());
                    }
                    match Pin::new(&mut this.stream).poll_read_buf(cx, &mut this.held) {
                        Poll::Ready(Ok(0)) => {
                            this.end_of_input = true;
                            this.held.clear();
                            this.expect = Expect::Nothing;
                        }
                        Poll::Ready(Ok(_)) => {}
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => {
                            ready!(this.poll_deadline(cx));
                            this.expire();
                        }
                    }
                }
                Expect::Head(_) | Expect::Body(_) | Expect::Chunks(_) | Expect::Anything => {
                    let before = buf.filled().len();
                    match Pin::new(&mut this.stream).poll_read(cx, buf) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => {
                            ready!(this.poll_deadline(cx));
                            this.expire();
                            continue;
                        }
                    }
                    if std::mem::take(&mut this.quiet) {
                        this.line.stir();
                    }
                    let read = buf.filled().len() - before;
                    if read == 0 {
                        this.end_of_input = true;
                        return Poll::Ready(Ok(()));
                    }
                    let fresh = buf.filled().get(before..).unwrap_or_default();
                    let taken = this.follow(fresh);
                    if taken == read {
                        return Poll::Ready(Ok(()));
                    }
                    if matches!(this.expect, Expect::Head(_)) {
                        this.held
                            .extend_from_slice(fresh.get(taken..).unwrap_or_default());
                        this.head_began = Some(Instant::now());
                    }
                    buf.set_filled(before + taken);
                    if taken > 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }
}

/// `read_buf` as a poll function.
trait PollReadBuf {
    fn poll_read_buf(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        held: &mut BytesMut,
    ) -> Poll<io::Result<usize>>;
}

impl<S: AsyncRead + Unpin> PollReadBuf for S {
    fn poll_read_buf(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        held: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let mut room = [0; 4096];
        let mut buf = ReadBuf::new(&mut room);
        ready!(self.poll_read(cx, &mut buf))?;
        held.extend_from_slice(buf.filled());
        Poll::Ready(Ok(buf.filled().len()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
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
        let timer = self
            .send_timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(send)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
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

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.line.is_http2() {
            return self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)]);
        }
        let this = self.get_mut();
        this.flushed = false;
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.watch_send(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.flushed = false;
        if this.line.is_http2() {
            if let Some(taken) = this.gathered.take(slices) {
                return Poll::Ready(Ok(taken));
            }
            ready!(this.poll_gathered(cx))?;
        }
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
        this.flushed = flushed.is_ready();
        this.watch_send(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingering.is_none() {
            if !this.gathered.is_empty() {
                ready!(this.poll_gathered(cx))?;
            }
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if !this.is_unread() {
                return Poll::Ready(Ok(()));
            }
        }
        let (timer, taken) = this
            .lingering
            .get_or_insert_with(|| (Box::pin(tokio::time::sleep(LINGER)), 0));
        let mut room = [0; 4096];
        while *taken < LINGER_BYTES && timer.as_mut().poll(cx).is_pending() {
            let mut buf = ReadBuf::new(&mut room);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => *taken += buf.filled().len(),
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
