//! One HTTP/1.1 connection to a client (RFC 9112): requests are parsed, strictly, and answered one after another. The
//! caller answers them; nothing here knows of routes.
//!
//! One task owns the socket. It reads ahead only what a request needs, writes the head of a response together with the
//! start of its body, and meanwhile checks whether the client is still connected. Timers for deadlines are not reset
//! for each request. `unread` handles request bodies that are not read.

mod unread;

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use tokio::io::AsyncRead;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::io::poll_read_buf;

use super::answer::{self, DateLine, To};
use super::chunk::Chunks;
use super::decode::{Coming, Step};
use super::head::{self, Head, HeadScan, Manners};
use super::line::Line;
use super::request_body::{Feed, feed};
use super::send::{Framing, SendFault, Sending};
use super::{PREFACE, REST_AFTER, SPARE_FIELDS, make_room, poll_until};
use crate::message::body::{Body, BodyError, Carry};
use crate::message::reject::Reject;
use crate::net::limits::Bounds;
use crate::net::stream::{Carrier, SEGMENT};

/// The buffer for reading a head, and the least free space in it before it grows.
const HEAD_ROOM: (usize, usize) = (8 * 1024, 1024);
/// How many bytes of a body are read at a time: at first, and at most, once that many have been consumed.
const BODY_ROOM: (usize, usize) = (16 * 1024, SEGMENT);
/// The most buffer space for output that is kept for the next request.
const OUT_ROOM: usize = 32 * 1024;
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What a connection starts with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Opening {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Silence: the connection may become idle.
    Nothing,
}

/// Why a connection serves no more requests.
#[derive(Debug)]
pub(crate) enum Ended<B> {
    /// It is silent and may become idle.
    Rests,
    /// It is to be closed.
    Over,
    /// It is unusable: the client is gone, or only a broken connection can tell it that its response was aborted.
    Broken,
    /// It switches to another protocol; this is the body of the response that announced it.
    Switched(B),
}

/// A connection: its stream, and the bytes that were read from it and not consumed yet.
#[derive(Debug)]
pub(crate) struct Link<S> {
    stream: S,
    bounds: Arc<Bounds>,
    held: BytesMut,
    scan: HeadScan,
    /// When the first bytes of the current head arrived.
    head_began: Option<Instant>,
    /// How the rest of the current request's body is framed.
    coming: Coming,
    /// How many bytes of it are read at a time.
    body_room: usize,
    /// How many bytes of it were passed to its reader.
    given: u64,
    /// How many bytes of it were read and discarded.
    dropped: u64,
    /// The unsent rest of a `100 Continue` that the client waits for.
    interim: &'static [u8],
    /// Whether the client's further input can no longer be parsed.
    broken: bool,
    /// Whether the client has closed its sending half.
    input_ended: bool,
    /// Output that is not sent yet; empty between two requests.
    out: Vec<u8>,
    date: DateLine,
    /// An empty map for the fields of the next request.
    spare: Option<HeaderMap>,
    timer: Option<Pin<Box<Sleep>>>,
    send_timer: Option<(u64, Pin<Box<Sleep>>)>,
}

/// The result of waiting for a request.
#[derive(Clone, Copy, Debug)]
enum Heard {
    /// A head of this many bytes.
    Head(usize, Head),
    /// Input that is not a request, or that came too slowly.
    Refused(Reject),
    Silence,
    End,
}

/// A request whose head has been received.
#[derive(Debug)]
struct Heading {
    request: Box<Request<Body>>,
    /// Why it is to be rejected.
    refusal: Option<Reject>,
    manners: Manners,
    feed: Option<Feed>,
}

impl<S: AsyncRead + Carrier> Link<S> {
    /// A connection from which nothing has been read yet.
    pub(crate) fn new(stream: S, bounds: Arc<Bounds>) -> Self {
        Self {
            stream,
            bounds,
            held: BytesMut::new(),
            scan: HeadScan::default(),
            head_began: None,
            coming: Coming::Nothing,
            body_room: BODY_ROOM.0,
            given: 0,
            dropped: 0,
            interim: &[],
            broken: false,
            input_ended: false,
            out: Vec::new(),
            date: DateLine::default(),
            spare: None,
            timer: None,
            send_timer: None,
        }
    }

    /// The stream that the bytes are read from and written to.
    pub(crate) fn stream(&self) -> &S {
        &self.stream
    }

    /// The stream, and the bytes that were read from it and not consumed.
    pub(crate) fn into_parts(self) -> (S, BytesMut, Arc<Bounds>) {
        (self.stream, self.held, self.bounds)
    }

    /// When the connection has been idle for too long.
    pub(crate) fn closes_at(&self, line: &Line) -> Instant {
        line.idle_since() + self.bounds.timeouts.keep_alive
    }

    /// Releases what an idle connection does not need. Call it only between requests.
    pub(crate) fn rest(&mut self) {
        self.held = BytesMut::new();
        self.scan = HeadScan::default();
        self.out = Vec::new();
        self.date = DateLine::default();
        self.spare = None;
        self.timer = None;
        self.send_timer = None;
    }

    /// Reads until it is clear whether the client starts with the HTTP/2 preface, or sends nothing for now.
    ///
    /// # Errors
    /// The connection failed.
    pub(crate) async fn sniff(&mut self, line: &Line) -> io::Result<Opening> {
        let quiet = Instant::now() + REST_AFTER;
        loop {
            let seen = self.held.len().min(PREFACE.len());
            if self.held.get(..seen) != PREFACE.get(..seen) {
                return Ok(Opening::Http1);
            }
            if seen == PREFACE.len() {
                self.head_began = None;
                return Ok(Opening::Http2);
            }
            let closes = self.closes_at(line);
            let until = match self.head_began {
                None => quiet.min(closes),
                Some(began) => began + self.bounds.timeouts.header_read,
            };
            let read = poll_fn(|cx| self.poll_more(cx, HEAD_ROOM));
            match tokio::time::timeout_at(until, read).await {
                Ok(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(Ok(_)) => {
                    self.head_began.get_or_insert_with(Instant::now);
                }
                Ok(Err(error)) => return Err(error),
                // A partial preface counts as a head that came too slowly, whatever it was to become.
                Err(_) if self.head_began.is_some() => return Ok(Opening::Http1),
                Err(_) if until < closes => return Ok(Opening::Nothing),
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }

    /// Serves requests until the connection may become idle, switches to another protocol, or ends. `answer` is called
    /// with each request, and with the reason to reject it, if there is one.
    ///
    /// If the client disconnects, its request is dropped, with the response.
    pub(crate) async fn serve<F, B>(
        &mut self,
        line: &Arc<Line>,
        mut answer: impl FnMut(Box<Request<Body>>, Option<Reject>) -> F,
    ) -> Ended<B>
    where
        F: Future<Output = Result<Response<B>, Infallible>>,
        B: Carry + Unpin,
    {
        loop {
            let heading = match poll_fn(|cx| self.poll_head(cx, line)).await {
                Heard::Head(length, head) => self.heading(length, head, line),
                Heard::Refused(reject) => {
                    // Bytes after an unread body are not a request.
                    let head = if self.coming.is_over() {
                        &self.held
                    } else {
                        [].as_slice()
                    };
                    let request = head::refused(head, &self.bounds.limits, Body::Empty);
                    self.refused(reject, request)
                }
                Heard::Silence => return Ended::Rests,
                Heard::End => return Ended::Over,
            };
            let Heading {
                request,
                refusal,
                manners,
                feed,
            } = heading;
            self.broken |= refusal.is_some();
            let to = To::new(request.method(), manners);
            let answered = {
                let mut answering = pin!(answer(request, refusal));
                poll_fn(|cx| self.poll_answering(cx, answering.as_mut(), feed.as_ref())).await
            };
            let Some(Ok(response)) = answered else {
                return Ended::Broken;
            };
            let interim = std::mem::take(&mut self.interim);
            // A client that still waits for 100 may send its body or not: the next bytes could be either.
            let unasked = interim.len() == CONTINUE.len();
            if !unasked {
                // The rest of a 100 that was partly sent.
                self.out.extend_from_slice(interim);
                self.drop_what_is_here(feed.as_ref()).await;
            }
            let (parts, body) = response.into_parts();
            let hint = body.size_hint();
            let framing = answer::framing(to, parts.status, &hint);
            // Whether or not the rest of the body is read to its end: the response may be complete before that.
            let readable = self.coming.is_over() || (!unasked && self.may_be_dropped());
            let may_stay = readable
                && !self.broken
                && !manners.closes
                && (manners.stays || !manners.http_1_0)
                && framing != Framing::UntilClose
                && !line.is_closing();
            let date = (&mut self.date, line.answering());
            let framed = (&hint, framing);
            let keeps = answer::write(&mut self.out, to, &parts, framed, may_stay, date);
            self.keep_table(parts.headers);
            if parts.status == StatusCode::SWITCHING_PROTOCOLS {
                let mut sending = Sending::<B>::nothing();
                return match self.send(&mut sending, None).await {
                    Ok(()) => Ended::Switched(body),
                    Err(()) => Ended::Broken,
                };
            }
            let mut sending = Sending::new(body, framing);
            if self.send(&mut sending, feed.as_ref()).await.is_err() {
                return Ended::Broken;
            }
            drop(sending);
            if keeps && !self.coming.is_over() {
                self.drop_rest(line).await;
            }
            if !keeps || self.broken {
                return Ended::Over;
            }
            self.shrink();
        }
    }

    /// Reads more into `held`. `room`: the buffer size, and the least free space in it before it is reallocated.
    fn poll_more(&mut self, cx: &mut Context<'_>, room: (usize, usize)) -> Poll<io::Result<usize>> {
        make_room(&mut self.held, room);
        let count = ready!(poll_read_buf(
            Pin::new(&mut self.stream),
            cx,
            &mut self.held
        ))?;
        self.input_ended |= count == 0;
        Poll::Ready(Ok(count))
    }

    fn poll_head(&mut self, cx: &mut Context<'_>, line: &Line) -> Poll<Heard> {
        if !self.coming.is_over() {
            // The last body is still unread. If the client has sent another request after it, it must get a response.
            return Poll::Ready(if line.is_closing() {
                Heard::End
            } else {
                Heard::Refused(Reject::RequestTimeout)
            });
        }
        loop {
            if !self.held.is_empty() {
                match self.scan.scan(&self.held, &self.bounds.limits) {
                    Ok(Some((length, head))) => {
                        if self.head_began.take().is_some() {
                            // It may be set to a later time than the idle period after this request needs.
                            self.timer = None;
                        }
                        return Poll::Ready(Heard::Head(length, head));
                    }
                    Ok(None) => {
                        self.head_began.get_or_insert_with(Instant::now);
                    }
                    Err(reject) => return Poll::Ready(Heard::Refused(reject)),
                }
            }
            // A head that has begun is read to its end, within its time limit.
            if (line.is_closing() && self.held.is_empty()) || self.input_ended {
                return Poll::Ready(Heard::End);
            }
            match self.poll_more(cx, HEAD_ROOM) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Heard::End),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => {
                    ready!(self.poll_deadline(cx, line));
                    if self.head_began.is_some() {
                        return Poll::Ready(Heard::Refused(Reject::RequestTimeout));
                    }
                    return Poll::Ready(if Instant::now() < self.closes_at(line) {
                        Heard::Silence
                    } else {
                        Heard::End
                    });
                }
            }
        }
    }

    /// Ready when the current head, or the idle period before it, takes too long.
    fn poll_deadline(&mut self, cx: &mut Context<'_>, line: &Line) -> Poll<()> {
        // The task's waker stays the same, and is registered from the first poll on.
        let waits = |timer: &Pin<Box<Sleep>>| !timer.is_elapsed();
        if self.head_began.is_none() && self.timer.as_ref().is_some_and(waits) {
            return Poll::Pending;
        }
        let deadline = match self.head_began {
            Some(began) => began + self.bounds.timeouts.header_read,
            None => self.closes_at(line).min(line.idle_since() + REST_AFTER),
        };
        poll_until(&mut self.timer, cx, deadline)
    }

    /// Builds a request from the head that was scanned.
    fn heading(&mut self, length: usize, head: Head, line: &Arc<Line>) -> Heading {
        let manners = self.scan.manners();
        let bytes = self.held.split_to(length).freeze();
        let mut refusal = None;
        let (body, feed) = match head {
            Head::NoBody => (Body::Empty, None),
            Head::Length(length) => match usize::try_from(length) {
                Ok(length) if length <= self.held.len() => {
                    line.receive(length as u64);
                    (Body::full(self.held.split_to(length).freeze()), None)
                }
                _ => {
                    self.coming = Coming::Length(length);
                    let (feed, fed) = feed(Some(length), line);
                    (Body::stream(fed), Some(feed))
                }
            },
            Head::Chunked => {
                // A body that is already malformed is not started.
                let longest = self.bounds.limits.header_bytes;
                let followed = Chunks::new(longest).follow(&self.held);
                refusal = followed.err().map(Reject::BadRequest);
                self.coming = Coming::chunked(longest);
                let (feed, fed) = feed(None, line);
                (Body::stream(fed), Some(feed))
            }
        };
        if manners.expects && !manners.http_1_0 && feed.is_some() && self.held.is_empty() {
            self.interim = CONTINUE;
        }
        let spare = self.spare.take().unwrap_or_default();
        match self.scan.request(&bytes, body, spare) {
            Ok(request) => Heading {
                request,
                refusal,
                manners,
                feed,
            },
            Err(reject) => {
                let request = head::refused(&bytes, &self.bounds.limits, Body::Empty);
                self.refused(reject, request)
            }
        }
    }

    /// Represents a request whose head cannot be parsed; no request is read after it.
    fn refused(&mut self, reject: Reject, request: Box<Request<Body>>) -> Heading {
        self.broken = true;
        Heading {
            request,
            refusal: Some(reject),
            manners: Manners::default(),
            feed: None,
        }
    }

    /// Waits for the response; `None` if the client disconnected. Meanwhile the request's body is read on demand.
    fn poll_answering<F: Future>(
        &mut self,
        cx: &mut Context<'_>,
        mut answering: Pin<&mut F>,
        feed: Option<&Feed>,
    ) -> Poll<Option<F::Output>> {
        loop {
            if let Poll::Ready(response) = answering.as_mut().poll(cx) {
                return Poll::Ready(Some(response));
            }
            match self.poll_client(cx, feed) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(())) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Watches the client while the response is awaited: reads its body on demand, and otherwise checks whether it is
    /// still connected. Ready when a piece of the body was delivered, or no more of it will come.
    /// # Errors
    /// It has disconnected.
    fn poll_client(&mut self, cx: &mut Context<'_>, feed: Option<&Feed>) -> Poll<Result<(), ()>> {
        match feed {
            Some(feed) if !self.coming.is_over() && !self.broken => {
                if feed.is_abandoned() {
                    // A client that waits for 100 has sent nothing to discard, and must not be asked to.
                    if !self.interim.is_empty() {
                        return Poll::Pending;
                    }
                    return self.poll_drop(cx).map(|_| Ok(()));
                }
                if !feed.is_wanted(cx) {
                    return Poll::Pending;
                }
                let next = ready!(self.poll_body(cx));
                self.broken |= matches!(next, Some(Err(_)));
                feed.lay_down(cx, next, self.coming.is_over() || self.broken);
                Poll::Ready(Ok(()))
            }
            _ => {
                ready!(self.poll_gone(cx));
                Poll::Ready(Err(()))
            }
        }
    }

    /// Ready when the client disconnects. A small amount of data that it sends before its response is kept for later.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.input_ended && !self.broken {
            if self.held.len() > self.bounds.limits.header_bytes {
                return Poll::Pending;
            }
            if ready!(self.poll_more(cx, (HEAD_ROOM.1, 1))).is_err() {
                return Poll::Ready(());
            }
        }
        if self.input_ended {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// The next frame of the current request's body.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            while !self.held.is_empty() && !self.coming.is_over() {
                match self.coming.step(&self.held) {
                    Ok(Step::More) => self.held.clear(),
                    Ok(Step::Data { skip, length }) => {
                        drop(self.held.split_to(skip));
                        let data = self.held.split_to(length).freeze();
                        self.given = self.given.saturating_add(length as u64);
                        match self.coming.ends_with(&self.held) {
                            Ok(true) => self.held.clear(),
                            Ok(false) => {}
                            Err(what) => return Poll::Ready(Some(Err(BodyError::Malformed(what)))),
                        }
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    Ok(Step::End(length, trailers)) => {
                        drop(self.held.split_to(length));
                        return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                    }
                    Err(what) => return Poll::Ready(Some(Err(BodyError::Malformed(what)))),
                }
            }
            if self.coming.is_over() {
                return Poll::Ready(None);
            }
            if let Err(error) = ready!(self.poll_interim(cx)) {
                return Poll::Ready(Some(Err(BodyError::Client(error))));
            }
            let room = self.body_room;
            match ready!(self.poll_more(cx, (room, BODY_ROOM.0 / 2))) {
                Ok(0) => {
                    let early = io::ErrorKind::UnexpectedEof.into();
                    return Poll::Ready(Some(Err(BodyError::Client(early))));
                }
                // A client that fills the buffer has more to send, and a reader that has consumed this much wants more.
                Ok(count) if count >= room && self.given >= BODY_ROOM.1 as u64 => {
                    self.body_room = (room * 2).min(BODY_ROOM.1);
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(BodyError::Client(error)))),
            }
        }
    }

    /// Sends the 100 that the client waits for, if any.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.interim.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.interim.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, self.interim))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.interim = self.interim.get(written..).unwrap_or_default();
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Keeps a map for the fields of the next request. It is emptied at once: its values are slices of the buffer that
    /// the app's response was read to, which the app's connection reuses only when they are dropped.
    fn keep_table(&mut self, mut table: HeaderMap) {
        if table.capacity() <= SPARE_FIELDS {
            table.clear();
            self.spare = Some(table);
        }
    }

    /// Releases buffers that an unusually large request needed.
    fn shrink(&mut self) {
        if self.held.is_empty() && self.held.capacity() > HEAD_ROOM.0 {
            self.held = BytesMut::new();
        }
        if self.out.capacity() > OUT_ROOM {
            self.out = Vec::new();
        }
        self.body_room = BODY_ROOM.0;
        self.given = 0;
        self.dropped = 0;
    }

    /// Sends a complete response.
    ///
    /// # Errors
    /// It failed because of the client or the body. The connection is unusable afterwards.
    async fn send<B>(&mut self, sending: &mut Sending<B>, feed: Option<&Feed>) -> Result<(), ()>
    where
        B: Carry + Unpin,
    {
        poll_fn(|cx| {
            loop {
                match sending.poll(cx, &mut self.stream, &mut self.out) {
                    Poll::Ready(Ok(())) => {
                        self.send_timer = None;
                        return Poll::Ready(Ok(()));
                    }
                    Poll::Ready(Err(SendFault::Reader(error))) => {
                        tracing::debug!(%error, "the response could not be sent to the client");
                        return Poll::Ready(Err(()));
                    }
                    Poll::Ready(Err(SendFault::Body(error))) => {
                        tracing::debug!(%error, "the response was aborted");
                        return Poll::Ready(Err(()));
                    }
                    Poll::Pending => {}
                }
                if sending.waits_for_body(&self.out) {
                    self.send_timer = None;
                } else {
                    if self.poll_send_deadline(cx, sending.taken()).is_ready() {
                        return Poll::Ready(Err(()));
                    }
                    sending.poll_ahead(cx);
                    // A disconnected client reads nothing, which the stream reports.
                    if self.coming.is_over() || self.broken {
                        return Poll::Pending;
                    }
                }
                ready!(self.poll_client(cx, feed))?;
            }
        })
        .await
    }

    /// Ready when the client has read nothing for `send`.
    fn poll_send_deadline(&mut self, cx: &mut Context<'_>, taken: u64) -> Poll<()> {
        let send = self.bounds.timeouts.send;
        let (known, timer) = self
            .send_timer
            .get_or_insert_with(|| (taken, Box::pin(sleep(send))));
        if *known != taken {
            *known = taken;
            timer.as_mut().reset(Instant::now() + send);
        }
        timer.as_mut().poll(cx)
    }
}
