//! One connection of HTTP/1.1 towards a client (RFC 9112): requests are read, strictly, and answered, one after the
//! other. Who answers them is the caller's matter; nothing here knows of routes.
//!
//! One task has the socket. It reads ahead only what a request needs, writes a response's head together with the first of its
//! body, and looks meanwhile whether the client is still there. Deadlines are on timers that are not touched for each request.
//! What becomes of a body that nobody reads is in `unread`.

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
use crate::net::stream::Carrier;

/// How much room a head is read into, and the least that is left for it.
const HEAD_ROOM: (usize, usize) = (8 * 1024, 1024);
/// How much of a body is read at a time: at first, and at most, once so much of it was taken.
const BODY_ROOM: (usize, usize) = (16 * 1024, 64 * 1024);
/// How much memory for what is to be written is kept for the next request.
const OUT_ROOM: usize = 32 * 1024;
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

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

/// Why a connection serves no more requests.
#[derive(Debug)]
pub(crate) enum Ended<B> {
    /// It is silent, and may rest.
    Rests,
    /// It is to be closed.
    Over,
    /// It is good for nothing: the client has left, or cannot be told that its response broke off in another way.
    Broken,
    /// It speaks another protocol from now on; this is the body of the response that said so.
    Switched(B),
}

/// A connection: its stream, and what was read of it and not used yet.
#[derive(Debug)]
pub(crate) struct Link<S> {
    stream: S,
    bounds: Arc<Bounds>,
    held: BytesMut,
    scan: HeadScan,
    /// When the head that is arriving began.
    head_began: Option<Instant>,
    /// What is still to come of the present request's body.
    coming: Coming,
    /// How much of it is read at a time.
    body_room: usize,
    /// How much of it was given to its reader.
    given: u64,
    /// How much of it was read for nobody.
    dropped: u64,
    /// What is still to be written of a 100 that the client waits for.
    interim: &'static [u8],
    /// Whether no more can be understood of what the client sends.
    broken: bool,
    /// Whether the client has said its last.
    input_ended: bool,
    /// What is to be written; empty between two requests.
    out: Vec<u8>,
    date: DateLine,
    /// The fields of the last response, whose memory the next request's take.
    spare: HeaderMap,
    timer: Option<Pin<Box<Sleep>>>,
    send_timer: Option<(u64, Pin<Box<Sleep>>)>,
}

/// What came of waiting for a request.
#[derive(Clone, Copy, Debug)]
enum Heard {
    /// A head of so many bytes.
    Head(usize, Head),
    /// Something that is none, or not in time.
    Refused(Reject),
    Silence,
    End,
}

/// A request whose head is here.
#[derive(Debug)]
struct Heading {
    request: Box<Request<Body>>,
    /// Why it is to be refused.
    refusal: Option<Reject>,
    manners: Manners,
    feed: Option<Feed>,
}

impl<S: AsyncRead + Carrier> Link<S> {
    /// A connection that nothing was read from yet.
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
            spare: HeaderMap::new(),
            timer: None,
            send_timer: None,
        }
    }

    /// What the bytes come from and go to.
    pub(crate) fn stream(&self) -> &S {
        &self.stream
    }

    /// The stream, and what was read of it and not used.
    pub(crate) fn into_parts(self) -> (S, BytesMut, Arc<Bounds>) {
        (self.stream, self.held, self.bounds)
    }

    /// When the silence between two requests has lasted too long.
    pub(crate) fn closes_at(&self, line: &Line) -> Instant {
        line.idle_since() + self.bounds.timeouts.keep_alive
    }

    /// Gives back what a silent connection does not need. Call it between requests only.
    pub(crate) fn rest(&mut self) {
        self.held = BytesMut::new();
        self.scan = HeadScan::default();
        self.out = Vec::new();
        self.date = DateLine::default();
        self.spare = HeaderMap::new();
        self.timer = None;
        self.send_timer = None;
    }

    /// Reads until it is clear whether the client begins with HTTP/2's preface, or that it is in
    /// no hurry to begin at all.
    ///
    /// # Errors
    /// The connection broke.
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
                // Half a preface is a head that is too slow, whatever it was to become.
                Err(_) if self.head_began.is_some() => return Ok(Opening::Http1),
                Err(_) if until < closes => return Ok(Opening::Nothing),
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }

    /// Serves requests until the connection may rest, switches to another protocol, or ends. `answer` is given each
    /// request, and why it is to be refused, if it is.
    ///
    /// A request whose client has left is dropped, with its response.
    pub(crate) async fn serve<F, B>(
        &mut self,
        line: &Line,
        mut answer: impl FnMut(Box<Request<Body>>, Option<Reject>) -> F,
    ) -> Ended<B>
    where
        F: Future<Output = Result<Response<B>, Infallible>>,
        B: Carry + Unpin,
    {
        loop {
            let heading = match poll_fn(|cx| self.poll_head(cx, line)).await {
                Heard::Head(length, head) => self.heading(length, head),
                Heard::Refused(reject) => {
                    // What comes behind a body that is still in the way is none.
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
            // Who still waits for 100 may send its body, or not: what comes next could be either.
            let unasked = interim.len() == CONTINUE.len();
            if !unasked {
                // What is left of a 100 that was begun.
                self.out.extend_from_slice(interim);
                self.drop_what_is_here(feed.as_ref()).await;
            }
            let (parts, body) = response.into_parts();
            let hint = body.size_hint();
            let framing = answer::framing(to, parts.status, &hint);
            // Whether or not somebody reads the rest of the body to its end: the response may be shorter than that.
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
            self.spare = parts.headers;
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

    /// Reads more into `held`: `room` is how much, and how little there may be left of it before there is new memory.
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
            // The rest of the last body is still in the way. Who sent another request behind it is to have a response.
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
                            // It may be set to a later time than the silence behind this request needs.
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
            // A head that has begun is read to its end, in its time.
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

    /// Ready when the present head takes too long, or the silence before it.
    fn poll_deadline(&mut self, cx: &mut Context<'_>, line: &Line) -> Poll<()> {
        // The task's waker stays the same, and is woken from the first poll on.
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

    /// Makes a request of the head that was scanned.
    fn heading(&mut self, length: usize, head: Head) -> Heading {
        let manners = self.scan.manners();
        let bytes = self.held.split_to(length).freeze();
        let mut refusal = None;
        let (body, feed) = match head {
            Head::NoBody => (Body::Empty, None),
            Head::Length(length) => match usize::try_from(length) {
                Ok(length) if length <= self.held.len() => {
                    (Body::full(self.held.split_to(length).freeze()), None)
                }
                _ => {
                    self.coming = Coming::Length(length);
                    let (feed, fed) = feed(Some(length));
                    (Body::stream(fed), Some(feed))
                }
            },
            Head::Chunked => {
                // What is broken already is not begun with.
                let longest = self.bounds.limits.header_bytes;
                let followed = Chunks::new(longest).follow(&self.held);
                refusal = followed.err().map(Reject::BadRequest);
                self.coming = Coming::chunked(longest);
                let (feed, fed) = feed(None);
                (Body::stream(fed), Some(feed))
            }
        };
        if manners.expects && !manners.http_1_0 && feed.is_some() && self.held.is_empty() {
            self.interim = CONTINUE;
        }
        match self
            .scan
            .request(&bytes, body, std::mem::take(&mut self.spare))
        {
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

    /// What stands for a request whose head cannot be read; none is read after it.
    fn refused(&mut self, reject: Reject, request: Box<Request<Body>>) -> Heading {
        self.broken = true;
        Heading {
            request,
            refusal: Some(reject),
            manners: Manners::default(),
            feed: None,
        }
    }

    /// Waits for the response; `None` when the client has left. The request's body is read meanwhile, as it is asked for.
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

    /// Looks after the client while it is answered: reads its body where it is asked for, and else whether it is
    /// still there. Ready when a piece of the body was laid down, or no more of it is to come.
    ///
    /// # Errors
    /// It has left.
    fn poll_client(&mut self, cx: &mut Context<'_>, feed: Option<&Feed>) -> Poll<Result<(), ()>> {
        match feed {
            Some(feed) if !self.coming.is_over() && !self.broken => {
                if feed.is_abandoned() {
                    // Who waits for 100 sends nothing that could be dropped, and is not to be asked for it.
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

    /// Ready when the client has left. What it sends before its request is answered is kept for later, if it is not much.
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

    /// The next frame of the present request's body.
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
                // A client that fills the room has more, and whoever has taken so much takes more.
                Ok(count) if count >= room && self.given >= BODY_ROOM.1 as u64 => {
                    self.body_room = (room * 2).min(BODY_ROOM.1);
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(BodyError::Client(error)))),
            }
        }
    }

    /// Sends the 100 that the client waits for, if it waits for one.
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

    /// Gives back what a request needed that was larger than most.
    fn shrink(&mut self) {
        if self.held.is_empty() && self.held.capacity() > HEAD_ROOM.0 {
            self.held = BytesMut::new();
        }
        if self.out.capacity() > OUT_ROOM {
            self.out = Vec::new();
        }
        if self.spare.capacity() > SPARE_FIELDS {
            self.spare = HeaderMap::new();
        }
        self.body_room = BODY_ROOM.0;
        self.given = 0;
        self.dropped = 0;
    }

    /// Sends a response to its end.
    ///
    /// # Errors
    /// It cannot be, for a reason of the client's or of the body's. The connection is good for nothing then.
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
                        tracing::debug!(%error, "the client takes no more of an answer");
                        return Poll::Ready(Err(()));
                    }
                    Poll::Ready(Err(SendFault::Body(error))) => {
                        tracing::debug!(%error, "an answer broke off");
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
                    // A client that is gone takes nothing, of which the stream will tell.
                    if self.coming.is_over() || self.broken {
                        return Poll::Pending;
                    }
                }
                ready!(self.poll_client(cx, feed))?;
            }
        })
        .await
    }

    /// Ready when the client has taken nothing for `send`.
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
