//! One connection of HTTP/2 towards a client (RFC 9113). `h2`, which is hyper's own, has its frames, the compression of its
//! fields and the states of its streams; here is what a gateway adds: deadlines and bounds for each stream, an end that loses no
//! request, and an end for clients that give up most of what they ask for. Who answers is the caller's matter.
//!
//! hyper's own server would give each response to `h2` whole, know nothing of a stream that takes nothing, and tell neither
//! which stream a request came on nor why a connection is to end.

mod blocks;
mod frames;
mod huffman;
mod passing;
mod shared;
mod stream;

use std::convert::Infallible;
use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use h2::server::{Builder, Connection, Handshake, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version, header};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

pub(super) use self::frames::Frames;
pub(super) use self::shared::Shared;
use self::shared::{Fate, Word};
use self::stream::{Incoming, Interim, MOST_HANDED, Piece};
use super::head::length_of;
use super::line::Line;
use super::{REST_AFTER, target};
use crate::message::body::{Body, Carry};
use crate::message::reject::Reject;
use crate::net::limits::Bounds;

/// Streams that one connection may have open.
const MAX_STREAMS: u32 = 128;
/// How much of a request's body, and of all bodies of one connection, a client may send before it is read: what an app that
/// does not listen makes the gateway hold. Smaller windows make uploads from afar slow, and cost more for each byte; larger
/// ones, and larger frames, cost as much as these.
const WINDOW: u32 = 1 << 20;
/// Why a request is refused that `h2` does not hand over.
const BROKEN: Reject = Reject::BadRequest("the request breaks HTTP/2");
/// What a client says that waits for 100.
const CONTINUE: &[u8] = b"100-continue";
/// How many streams may be reset because of what the client sent.
const MAX_FAULTS: usize = 1024;

/// A connection that is served while it is polled; ready at its end.
pub(crate) struct Http2<S, A> {
    state: State<S>,
    shared: Arc<Shared>,
    answer: A,
}

enum State<S> {
    Begins(Box<Handshake<Frames<S>, Piece>>),
    Serves(Box<Serving<S>>),
}

struct Serving<S> {
    connection: Connection<Frames<S>, Piece>,
    ping: Option<PingPong>,
}

impl<S, A> fmt::Debug for Http2<S, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2").finish_non_exhaustive()
    }
}

impl<S, A, F, B> Http2<S, A>
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: FnMut(Box<Request<Body>>, Option<Reject>) -> F + Unpin,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: Carry + Unpin + Send + 'static,
{
    /// Begins with a stream of which `held` was read already. `answer` is given each request, and why it is to be refused, if
    /// it is; also those of which nobody is sent the response, so that they are known.
    pub(crate) fn new(
        stream: S,
        held: BytesMut,
        line: Arc<Line>,
        bounds: Arc<Bounds>,
        answer: A,
    ) -> Self {
        let header_bytes = bounds.limits.header_bytes;
        let shared = Arc::new(Shared::new(line, bounds));
        let frames = Frames::new(stream, held, Arc::clone(&shared));
        let handshake = Builder::new()
            .max_concurrent_streams(MAX_STREAMS)
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX))
            .max_local_error_reset_streams(Some(MAX_FAULTS))
            .max_send_buffer_size(MOST_HANDED)
            .handshake(frames);
        Self {
            state: State::Begins(Box::new(handshake)),
            shared,
            answer,
        }
    }

    /// The connection is to end when its requests are answered: the client is told which of them will be, and can send the
    /// others elsewhere (RFC 9113 section 6.8). It has to be polled then.
    pub(crate) fn leave(&mut self) {
        self.shared.leave();
        if let State::Serves(serving) = &mut self.state {
            serving.connection.graceful_shutdown();
        }
    }

    /// Somebody else needs its descriptor: a connection that has been silent for so long that one of HTTP/1.1 would rest is to
    /// end, in the same way. It has to be polled then.
    pub(crate) fn leave_if_idle(&mut self) {
        let line = &self.shared.line;
        let is_idle = line.is_idle() && Instant::now() >= line.idle_since() + REST_AFTER;
        if is_idle && !self.shared.is_leaving() {
            self.leave();
        }
    }

    fn poll_serving(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        self.shared.is_polled_by(cx.waker());
        loop {
            let State::Serves(serving) = &mut self.state else {
                return Poll::Pending;
            };
            let accepted = pin!(serving.connection.accept()).poll(cx);
            match accepted {
                Poll::Ready(Some(Ok((request, respond)))) => self.serve(request, respond),
                Poll::Ready(Some(Err(error))) => {
                    let left = error.is_io() || error.is_remote();
                    self.record_refused(Some(if left { Reject::ClientGone } else { BROKEN }));
                    return Poll::Ready(Err(error));
                }
                Poll::Ready(None) => {
                    self.record_refused(Some(Reject::ClientGone));
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => {
                    // All requests that wait were handed over.
                    self.record_refused(None);
                    let word = self.shared.heard();
                    if word == Word::GoOn {
                        return Poll::Pending;
                    }
                    self.follow(word, cx);
                }
            }
        }
    }

    /// Hands a request over, in a task of its own.
    fn serve(&mut self, request: Request<RecvStream>, respond: SendResponse<Piece>) {
        let fragment = self.shared.hand_over(respond.stream_id().as_u32());
        let interim = waits_for_100(&request).then(Arc::default);
        let (mut request, mut refusal) = whole(request, interim.clone(), &self.shared);
        if let Some(path) = fragment {
            // `http` has dropped it unseen.
            refusal = Some(target::MALFORMED);
            let target = target::legible(&path, self.shared.bounds.limits.uri_bytes);
            *request.uri_mut() = with_path(request.uri(), target);
        }
        let is_head = *request.method() == Method::HEAD;
        let answering = Box::pin((self.answer)(request, refusal));
        let shared = Arc::clone(&self.shared);
        tokio::spawn(stream::answer(answering, respond, is_head, interim, shared));
    }

    /// Requests that `h2` refuses by itself, for they break HTTP, are recorded as others are; at the end of the connection also
    /// those that were not handed over, and why.
    fn record_refused(&mut self, at_the_end: Option<Reject>) {
        while let Some(refused) = self.shared.refused(at_the_end.is_some()) {
            let reject = match (refused.fate, at_the_end) {
                (Fate::TooLarge, _) => Reject::HeadTooLarge,
                (Fate::Unknown, Some(Reject::ClientGone)) if self.shared.is_leaving() => {
                    // It was told which requests are not looked at, and can send them again.
                    continue;
                }
                (Fate::Unknown, Some(reject)) => reject,
                (Fate::Reset | Fate::Unknown, _) => BROKEN,
            };
            let mut request = Box::new(Request::new(Body::Empty));
            *request.version_mut() = Version::HTTP_2;
            *request.method_mut() = refused.method;
            *request.uri_mut() =
                target::legible(&refused.path, self.shared.bounds.limits.uri_bytes);
            let answering = (self.answer)(request, Some(reject));
            tokio::spawn(async move { drop(answering.await) });
        }
    }

    /// Does what the frames or the streams have said.
    fn follow(&mut self, word: Word, cx: &mut Context<'_>) {
        if word == Word::Leave {
            return self.leave();
        }
        let State::Serves(serving) = &mut self.state else {
            return;
        };
        let end = |serving: &mut Serving<S>, reason| serving.connection.abrupt_shutdown(reason);
        match word {
            Word::Late => end(serving, Reason::PROTOCOL_ERROR),
            Word::Calm => {
                tracing::debug!(
                    reason = "reset_flood",
                    "a connection gave most of its requests up"
                );
                end(serving, Reason::ENHANCE_YOUR_CALM);
            }
            Word::Left | Word::Gone => end(serving, Reason::NO_ERROR),
            Word::Ask => {
                if let Some(ping) = &mut serving.ping {
                    // Whatever comes counts as a response. That to the last question is taken note of, so that there can be
                    // another one; where it has not come, it is still asked for.
                    drop(ping.poll_pong(cx));
                    drop(ping.send_ping(Ping::opaque()));
                }
            }
            Word::GoOn | Word::Leave => {}
        }
    }
}

impl<S, A, F, B> Future for Http2<S, A>
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: FnMut(Box<Request<Body>>, Option<Reject>) -> F + Unpin,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: Carry + Unpin + Send + 'static,
{
    type Output = Result<(), h2::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let State::Begins(handshake) = &mut this.state {
            let begun = Pin::new(&mut **handshake).poll(cx);
            if begun.is_pending() && (this.shared.heard() != Word::GoOn || this.shared.is_leaving())
            {
                // There is nothing yet that could be lost.
                return Poll::Ready(Ok(()));
            }
            let mut connection = ready!(begun)?;
            let ping = connection.ping_pong();
            if this.shared.is_leaving() {
                connection.graceful_shutdown();
            }
            this.state = State::Serves(Box::new(Serving { connection, ping }));
        }
        this.poll_serving(cx)
    }
}

/// A request of HTTP/2 as one of HTTP/1.1 would be, and why it is to be refused, if it is.
fn whole(
    request: Request<RecvStream>,
    interim: Option<Arc<Interim>>,
    shared: &Arc<Shared>,
) -> (Box<Request<Body>>, Option<Reject>) {
    let judged = judge(&request);
    let length = judged.ok().flatten();
    let mut request = Box::new(request.map(|coming| Incoming::of(coming, length, interim, shared)));
    join_cookies(request.headers_mut());
    let refusal = judged.err();
    let path = request.uri().path();
    if refusal.is_some() && !target::is_plain(path.as_bytes()) {
        let target = target::legible(path.as_bytes(), shared.bounds.limits.uri_bytes);
        *request.uri_mut() = with_path(request.uri(), target);
    }
    (request, refusal)
}

/// Whether the client sends its body only when it is told to, or after a while (RFC 9110 section 10.1.1).
fn waits_for_100(request: &Request<RecvStream>) -> bool {
    if request.body().is_end_stream() {
        return false;
    }
    let mut expected = request.headers().get_all(header::EXPECT).iter();
    expected.any(|value| value.as_bytes().trim_ascii().eq_ignore_ascii_case(CONTINUE))
}

/// The same with the path of a target that is refused; who is asked stays known.
fn with_path(uri: &Uri, target: Uri) -> Uri {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = target.path_and_query().cloned();
    Uri::from_parts(parts).unwrap_or(target)
}

/// Looks at what HTTP/1.1 would refuse and `h2` lets pass; gives the length of the body, where it is said.
fn judge<B>(request: &Request<B>) -> Result<Option<u64>, Reject> {
    let said = request.uri().path_and_query();
    if said.is_some_and(|said| !target::is_plain(said.as_str().as_bytes())) {
        return Err(target::MALFORMED);
    }
    let mut length = None;
    for (name, value) in request.headers() {
        if *name == header::CONTENT_LENGTH {
            if length.is_some() {
                return Err(Reject::BadRequest("Content-Length is repeated"));
            }
            length = Some(length_of(value.as_bytes())?);
        }
    }
    Ok(length)
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
