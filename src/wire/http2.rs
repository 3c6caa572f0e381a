//! One HTTP/2 connection to a client (RFC 9113). `h2`, which hyper uses too, handles frames, header compression and
//! stream states. This module adds what a gateway needs: deadlines and limits per stream, a shutdown that loses no
//! request, and protection from clients that cancel most of their requests. The caller answers requests.
//!
//! hyper's own server would hand each response to `h2` whole, would not notice a stream whose client reads nothing, and
//! would report neither the stream of a request nor why a connection is to end.

mod blocks;
mod coming;
mod frames;
mod huffman;
mod passing;
#[cfg(any(test, fuzzing))]
pub(super) mod properties;
mod shared;
mod stand_in;
mod stream;

use std::convert::Infallible;
use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use h2::server::{Builder, Connection, Handshake, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version, header};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

pub(super) use self::frames::Frames;
pub(super) use self::shared::Shared;
use self::shared::{Fate, Path, Word};
use self::stream::{Incoming, Interim, MOST_HANDED, Piece};
use super::head::length_of;
use super::line::Line;
use super::{REST_AFTER, target};
use crate::message::body::{Body, Carry};
use crate::message::reject::Reject;
use crate::net::limits::Bounds;

/// The most streams that one connection may have open.
const MAX_STREAMS: u32 = 128;
/// How many bytes of a request's body, and of all bodies of one connection, a client may send before they are read, and
/// so how much an app that does not read makes the gateway buffer. Smaller windows slow down uploads over long
/// distances and cost more per byte; larger windows, and larger frames, cost no less.
const WINDOW: u32 = 1 << 20;
/// The reason for rejecting a request that `h2` does not hand over.
const BROKEN: Reject = Reject::BadRequest("the request breaks HTTP/2");
/// The value of `Expect` in a request that waits for 100.
const CONTINUE: &[u8] = b"100-continue";
/// How many streams may be reset because of protocol errors by the client.
const MAX_FAULTS: usize = 1024;

/// A connection that is served while it is polled; ready when it ends.
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
    /// Starts with a stream of which `held` was read already. `answer` is called with each request and the reason to
    /// reject it, if any; also for requests whose response is not sent, so that they are recorded.
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

    /// Ends the connection once its requests are answered: GOAWAY tells the client which of them will be, so that it
    /// can send the others elsewhere (RFC 9113 section 6.8). It has to be polled afterwards.
    pub(crate) fn leave(&mut self) {
        self.shared.leave();
        if let State::Serves(serving) = &mut self.state {
            serving.connection.graceful_shutdown();
        }
    }

    /// Ends the connection in the same way to free its descriptor, if it has been silent for as long as makes an
    /// HTTP/1.1 connection idle. It has to be polled afterwards.
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
                    // All waiting requests have been handed over.
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

    /// Handles a request in a task of its own.
    fn serve(&mut self, request: Request<RecvStream>, respond: SendResponse<Piece>) {
        let path = self.shared.hand_over(respond.stream_id().as_u32());
        let interim = waits_for_100(&request).then(Arc::default);
        let (mut request, refusal) = whole(request, interim.clone(), &self.shared);
        let uri_bytes = self.shared.bounds.limits.uri_bytes;
        let refused_path = own_path(&mut request, path, uri_bytes).err();
        let refusal = refusal.or(refused_path);
        let is_head = *request.method() == Method::HEAD;
        let answering = Box::pin((self.answer)(request, refusal));
        let shared = Arc::clone(&self.shared);
        tokio::spawn(stream::answer(answering, respond, is_head, interim, shared));
    }

    /// Records requests that `h2` rejects by itself because they violate HTTP, like all others; at the end of the
    /// connection also those that were not handed over, and why.
    fn record_refused(&mut self, at_the_end: Option<Reject>) {
        while let Some(refused) = self.shared.refused(at_the_end.is_some()) {
            let reject = match (refused.fate, at_the_end) {
                (Fate::TooLarge, _) => Reject::HeadTooLarge,
                (Fate::Unknown, Some(Reject::ClientGone)) if self.shared.is_leaving() => {
                    // The client was told which requests are not processed, and can send them again.
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

    /// Acts on a message from the frames or the streams.
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
                    "the client cancelled most of the requests of a connection"
                );
                end(serving, Reason::ENHANCE_YOUR_CALM);
            }
            Word::Left | Word::Gone => end(serving, Reason::NO_ERROR),
            Word::Ask => {
                if let Some(ping) = &mut serving.ping {
                    // Any input counts as a response. The last pong is consumed, so that another ping can be sent; if
                    // it has not arrived, the last ping is still outstanding.
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
                // Nothing can be lost yet.
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

/// Converts an HTTP/2 request to the form of an HTTP/1.1 request, with the reason to reject it, if any.
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

/// Puts the client's own path into a request, where `h2` reports another one, and checks it.
///
/// # Errors
/// What HTTP/1.1 would reject, too; and what is not known well enough.
fn own_path(request: &mut Request<Body>, path: Path, uri_bytes: usize) -> Result<(), Reject> {
    let path = match path {
        Path::Reported => return Ok(()),
        Path::Own(path) => path,
        Path::Forgotten => return Err(BROKEN),
    };
    let reported = request.uri().path_and_query();
    let reported = reported.map_or("", PathAndQuery::as_str).as_bytes();
    let read = if path.len() > uri_bytes {
        Err(Reject::UriTooLong)
    } else if !target::is_plain(&path) {
        Err(target::MALFORMED)
    } else if !stand_in::is_for(reported, &path) {
        Err(BROKEN)
    } else {
        target::read_path(&path)
    };
    let (target, refusal) = match read {
        Ok((own, query)) => {
            if let Some(query) = query {
                target::mark(request, query);
            }
            (own.into(), Ok(()))
        }
        Err(reject) => (target::legible(&path, uri_bytes), Err(reject)),
    };
    *request.uri_mut() = with_path(request.uri(), target);
    refusal
}

/// Whether the client sends its body only after a 100, or after a while (RFC 9110 section 10.1.1).
fn waits_for_100(request: &Request<RecvStream>) -> bool {
    if request.body().is_end_stream() {
        return false;
    }
    let mut expected = request.headers().get_all(header::EXPECT).iter();
    expected.any(|value| value.as_bytes().trim_ascii().eq_ignore_ascii_case(CONTINUE))
}

/// Replaces the path and query by those of a target; the authority is kept.
fn with_path(uri: &Uri, target: Uri) -> Uri {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = target.path_and_query().cloned();
    Uri::from_parts(parts).unwrap_or(target)
}

/// Checks what HTTP/1.1 would reject and `h2` accepts; returns the announced length of the body, if any.
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

/// Clients may send each cookie in a field of its own; they are joined into one field before anything reads or counts
/// them (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let is_cookie = |(name, _): &(&HeaderName, &HeaderValue)| **name == header::COOKIE;
    if headers.iter().filter(is_cookie).count() < 2 {
        return;
    }
    let crumbs = headers.get_all(header::COOKIE).iter();
    let crumbs: Vec<&[u8]> = crumbs.map(HeaderValue::as_bytes).collect();
    // Joining valid values always gives a valid value.
    if let Ok(joined) = HeaderValue::try_from(crumbs.join(b"; ".as_slice())) {
        headers.insert(header::COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn tables_stay_equal_whatever_a_client_sends(
            choices in proptest::collection::vec(any::<u8>(), 0..3000),
        ) {
            properties::client_holds(&choices);
        }
    }
}
