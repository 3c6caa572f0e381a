//! One HTTP/2 stream: reads the body of its request and sends its response. Each stream has a task of its own.

use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::response::Parts;
use http::{HeaderMap, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::shared::Shared;
use crate::message::body::{Body, BodyError, Carry};
use crate::wire::{LINGER, LINGER_BYTES};

/// How many bytes of a response, per stream, are handed to `h2` before they are written.
pub(super) const MOST_HANDED: usize = 32 * 1024;

/// The 100 that a client waits for before it sends its body (RFC 9110 section 10.1.1): the reader of the body, possibly
/// in another task, requests it, and the task of the stream sends it.
#[derive(Debug, Default)]
pub(super) struct Interim {
    wanted: AtomicBool,
    task: OnceLock<Waker>,
}

impl Interim {
    /// The body is being read, and nothing of it has arrived.
    fn want(&self, cx: &Context<'_>) {
        self.wanted.store(true, Ordering::Relaxed);
        if let Some(task) = self.task.get().filter(|task| !task.will_wake(cx.waker())) {
            task.wake_by_ref();
        }
    }

    /// Whether it is to be sent; the task, which stays the same, is woken when it is.
    fn is_wanted(&self, cx: &Context<'_>) -> bool {
        self.task.get_or_init(|| cx.waker().clone());
        self.wanted.load(Ordering::Relaxed)
    }
}

/// The body of a request.
pub(super) struct Incoming {
    /// `None` when it was read to its end.
    coming: Option<RecvStream>,
    /// Its length, if announced.
    length: Option<u64>,
    data_ended: bool,
    /// What the client waits for before it sends any of it.
    interim: Option<Arc<Interim>>,
    shared: Arc<Shared>,
}

impl Incoming {
    /// The body of a request.
    pub(super) fn of(
        coming: RecvStream,
        length: Option<u64>,
        interim: Option<Arc<Interim>>,
        shared: &Arc<Shared>,
    ) -> Body {
        if coming.is_end_stream() {
            return Body::Empty;
        }
        Body::stream(Self {
            coming: Some(coming),
            length,
            data_ended: false,
            interim,
            shared: Arc::clone(shared),
        })
    }

    /// Ends the body with this error, unless that is a regular end.
    fn end(&mut self, error: h2::Error) -> Option<Result<Frame<Bytes>, BodyError>> {
        self.coming = None;
        // The client wants no more of its request to be read (RFC 9113 section 8.1).
        let stops = error.reason() == Some(Reason::NO_ERROR) && error.is_remote();
        (!stops).then(|| Err(BodyError::Client(io::Error::other(error))))
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Some(coming) = &mut this.coming else {
            return Poll::Ready(None);
        };
        if !this.data_ended {
            let polled = pin!(coming.data()).poll(cx);
            if let Some(interim) = this.interim.take()
                && polled.is_pending()
            {
                interim.want(cx);
            }
            match ready!(polled) {
                Some(Ok(data)) => {
                    let count = data.len();
                    this.shared.line.receive(count as u64);
                    // An error means that the stream is gone, which the next frame reports.
                    drop(coming.flow_control().release_capacity(count));
                    this.length = this
                        .length
                        .map(|length| length.saturating_sub(count as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(this.end(error)),
                None => this.data_ended = true,
            }
        }
        let stream = coming.stream_id().as_u32();
        let polled = pin!(coming.trailers()).poll(cx);
        Poll::Ready(match ready!(polled) {
            Ok(Some(_)) if this.shared.has_spoilt_trailers(stream) => {
                this.coming = None;
                let what = "a trailer field's name is malformed";
                Some(Err(BodyError::Malformed(what)))
            }
            Ok(trailers) => {
                this.coming = None;
                trailers.map(|trailers| Ok(Frame::trailers(trailers)))
            }
            Err(error) => this.end(error),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.coming.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match self.length {
            Some(length) => SizeHint::with_exact(length),
            None => SizeHint::default(),
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let Some(coming) = self.coming.take() else {
            return;
        };
        // If the stream is ended before the client has sent its body, the client may never look at the response.
        if !coming.is_end_stream()
            && let Ok(runtime) = Handle::try_current()
        {
            let shared = Arc::clone(&self.shared);
            shared.line.enter();
            runtime.spawn(async move {
                // Whether it reaches its end does not matter: the stream is reset then.
                drop(timeout(LINGER, drain(coming)).await);
                shared.line.leave(Instant::now());
            });
        }
    }
}

/// Reads and discards the rest.
async fn drain(mut coming: RecvStream) {
    let mut taken = 0_u64;
    while taken < LINGER_BYTES
        && let Some(Ok(data)) = coming.data().await
    {
        taken += data.len() as u64;
        if coming.flow_control().release_capacity(data.len()).is_err() {
            return;
        }
    }
}

/// Bytes of a response, counted until they are written or dropped.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Bytes,
    counted: usize,
    shared: Arc<Shared>,
}

impl Piece {
    fn new(bytes: Bytes, shared: &Arc<Shared>) -> Self {
        shared.take(bytes.len());
        Self {
            counted: bytes.len(),
            bytes,
            shared: Arc::clone(shared),
        }
    }

    /// Splits off the first bytes.
    fn split_to(&mut self, count: usize) -> Self {
        let count = count.min(self.bytes.len());
        self.counted -= count;
        Self {
            bytes: self.bytes.split_to(count),
            counted: count,
            shared: Arc::clone(&self.shared),
        }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.shared.give(self.counted);
    }
}

/// Counts what a body has read ahead of its client.
struct TakenAhead {
    count: usize,
    shared: Arc<Shared>,
}

impl TakenAhead {
    fn is(&mut self, count: usize) {
        if count > self.count {
            self.shared.take(count - self.count);
        } else if count < self.count {
            self.shared.give(self.count - count);
        }
        self.count = count;
    }
}

impl Drop for TakenAhead {
    fn drop(&mut self) {
        self.shared.give(self.count);
    }
}

/// Why sending a response stopped.
#[derive(Debug, thiserror::Error)]
enum Stop {
    /// The stream was reset, or the connection has ended.
    #[error("the client closed the stream or the connection")]
    Gone,
    /// The client has read nothing for too long.
    #[error("the client does not read the response")]
    Stalled,
    /// Its body failed.
    #[error(transparent)]
    Broken(BodyError),
}

/// Waits for the response to a request and sends it. If the client resets the stream, the request is dropped with it.
pub(super) async fn answer<F, B, E>(
    mut answering: Pin<Box<F>>,
    mut respond: SendResponse<Piece>,
    is_head: bool,
    mut interim: Option<Arc<Interim>>,
    shared: Arc<Shared>,
) where
    F: Future<Output = Result<Response<B>, E>>,
    B: Carry + Unpin,
{
    let answered = std::future::poll_fn(|cx| {
        if let Poll::Ready(answered) = answering.as_mut().poll(cx) {
            return Poll::Ready(Some(answered));
        }
        if interim.take_if(|interim| interim.is_wanted(cx)).is_some() {
            let mut head = Response::new(());
            *head.status_mut() = StatusCode::CONTINUE;
            // An error means that the stream is gone, which `poll_reset` reports.
            drop(respond.send_informational(head));
        }
        respond.poll_reset(cx).map(|_| None)
    })
    .await;
    drop(answering);
    let Some(Ok(response)) = answered else {
        shared.end(true);
        return;
    };
    let (mut parts, body) = response.into_parts();
    let ends = is_head || is_bodiless(parts.status) || body.is_end_stream();
    prepare(&mut parts, &body.size_hint(), is_head, &shared);
    let sent = match respond.send_response(Response::from_parts(parts, ()), ends) {
        Ok(_) if ends => Ok(()),
        Ok(mut stream) => {
            let sent = send(&mut stream, body, &shared).await;
            match &sent {
                Err(Stop::Stalled) => stream.send_reset(Reason::CANCEL),
                Err(Stop::Broken(_)) => stream.send_reset(Reason::INTERNAL_ERROR),
                Err(Stop::Gone) | Ok(()) => {}
            }
            sent
        }
        Err(_) => {
            // The stream was reset while its body was read, which the response was to report.
            shared.end(true);
            return;
        }
    };
    if let Err(stop) = sent {
        tracing::debug!(error = %stop, "the response was aborted");
    }
    shared.end(false);
}

/// Status codes whose responses never have a body, whatever the request.
fn is_bodiless(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Completes the head of a response and removes fields that HTTP/2 forbids (RFC 9113 section 8.2.2).
fn prepare(parts: &mut Parts, hint: &SizeHint, is_head: bool, shared: &Shared) {
    let headers = &mut parts.headers;
    remove_fields_of_connections(headers);
    if let Some(length) = hint.exact()
        && parts.status != StatusCode::NO_CONTENT
        && (length > 0 || !(is_head || parts.status == StatusCode::NOT_MODIFIED))
        && !headers.contains_key(header::CONTENT_LENGTH)
    {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    if !headers.contains_key(header::DATE)
        && let Some(date) = shared.date()
    {
        headers.insert(header::DATE, date);
    }
}

fn remove_fields_of_connections(headers: &mut HeaderMap) {
    let is_one = |name: &http::HeaderName| {
        *name == header::CONNECTION
            || *name == header::TRANSFER_ENCODING
            || *name == header::UPGRADE
            || *name == header::TE
            || matches!(name.as_str(), "keep-alive" | "proxy-connection")
    };
    while let Some(name) = headers.keys().find(|name| is_one(name)).cloned() {
        headers.remove(name);
    }
}

/// Sends a complete body.
async fn send<B>(
    stream: &mut SendStream<Piece>,
    mut body: B,
    shared: &Arc<Shared>,
) -> Result<(), Stop>
where
    B: Carry + Unpin,
{
    Pin::new(&mut body).go_gently();
    let mut patience = Patience::new(shared.bounds.timeouts.send);
    let mut ahead = TakenAhead {
        count: 0,
        shared: Arc::clone(shared),
    };
    loop {
        while !shared.has_room() {
            patience.wait(stream, pin!(shared.room())).await?;
        }
        let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
        let frame = match unless_reset(stream, pin!(frame)).await? {
            Some(frame) => frame.map_err(Stop::Broken)?,
            None => {
                return stream
                    .send_data(Piece::new(Bytes::new(), shared), true)
                    .map_err(gone);
            }
        };
        ahead.is(body.ahead());
        match frame.into_data() {
            Ok(data) => {
                let is_last = body.is_end_stream();
                let piece = Piece::new(data, shared);
                let mut source = (&mut body, &mut ahead);
                hand_over(stream, piece, is_last, &mut source, &mut patience).await?;
                if is_last {
                    return Ok(());
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return stream.send_trailers(trailers).map_err(gone);
                }
            }
        }
    }
}

/// Hands bytes to `h2` as the client's windows permit; waiting for a window happens here, and has a deadline.
async fn hand_over<B: Carry + Unpin>(
    stream: &mut SendStream<Piece>,
    mut piece: Piece,
    is_last: bool,
    source: &mut (&mut B, &mut TakenAhead),
    patience: &mut Patience,
) -> Result<(), Stop> {
    loop {
        let left = piece.remaining();
        if left > 0 {
            stream.reserve_capacity(left.min(MOST_HANDED));
            if stream.capacity() == 0 {
                patience.wait_for_window(stream, source).await?;
            }
            patience.begin_again();
        }
        if left == 0 && !is_last {
            return Ok(());
        }
        let count = left.min(stream.capacity());
        if count == left {
            return stream.send_data(piece, is_last).map_err(gone);
        }
        stream
            .send_data(piece.split_to(count), false)
            .map_err(gone)?;
    }
}

fn gone(_: h2::Error) -> Stop {
    Stop::Gone
}

/// Waits, unless the client resets the stream.
async fn unless_reset<F: Future>(
    stream: &mut SendStream<Piece>,
    mut wait: Pin<&mut F>,
) -> Result<F::Output, Stop> {
    std::future::poll_fn(|cx| match wait.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => stream.poll_reset(cx).map(|_| Err(Stop::Gone)),
    })
    .await
}

/// How long the client may read nothing. The timer is created at the first wait.
struct Patience {
    allowed: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    runs: bool,
}

impl Patience {
    fn new(allowed: Duration) -> Self {
        Self {
            allowed,
            timer: None,
            runs: false,
        }
    }

    /// The client has read something.
    fn begin_again(&mut self) {
        self.runs = false;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let allowed = self.allowed;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(allowed)));
        if !self.runs {
            self.runs = true;
            timer.as_mut().reset(Instant::now() + allowed);
        }
        timer.as_mut().poll(cx)
    }

    /// Waits for an action of the client.
    async fn wait<F: Future>(
        &mut self,
        stream: &mut SendStream<Piece>,
        mut wait: Pin<&mut F>,
    ) -> Result<F::Output, Stop> {
        std::future::poll_fn(|cx| {
            if let Poll::Ready(output) = wait.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            if stream.poll_reset(cx).is_ready() {
                return Poll::Ready(Err(Stop::Gone));
            }
            self.poll(cx).map(|()| Err(Stop::Stalled))
        })
        .await
    }

    /// Waits until some of the reserved bytes may be sent; meanwhile reads the response ahead, as far as there is room.
    async fn wait_for_window<B: Carry + Unpin>(
        &mut self,
        stream: &mut SendStream<Piece>,
        (body, ahead): &mut (&mut B, &mut TakenAhead),
    ) -> Result<(), Stop> {
        std::future::poll_fn(|cx| {
            loop {
                match stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(0))) => {}
                    Poll::Ready(Some(Ok(_))) => return Poll::Ready(Ok(())),
                    Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Err(Stop::Gone)),
                    Poll::Pending => {
                        if ahead.shared.has_room() {
                            Pin::new(&mut **body).poll_ahead(cx);
                            ahead.is(body.ahead());
                        }
                        return self.poll(cx).map(|()| Err(Stop::Stalled));
                    }
                }
            }
        })
        .await
    }
}
