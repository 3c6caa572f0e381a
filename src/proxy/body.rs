//! The bodies on both sides of an upstream: what goes out, and what comes back.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

use super::headers::{self, Vouched};
use super::pool::Lease;
use super::refusal_of;
use super::spool::SpoolReader;
use crate::body::BodyError;
use crate::reject::Reject;

/// A request body on its way to the app.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// There is none.
    Empty,
    /// As the client sends it.
    Streamed(ClientBody),
    /// All of it is here already.
    Stored(SpoolReader),
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Streamed(body) => Pin::new(body).poll_frame(cx),
            Self::Stored(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streamed(body) => body.is_end_stream(),
            Self::Stored(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streamed(body) => body.size_hint(),
            Self::Stored(body) => body.size_hint(),
        }
    }
}

/// How far a request body has come, and what ended it early. Shared with the wait for the answer,
/// whose time starts anew with each piece that is sent.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    began: Instant,
    state: Option<Arc<Mutex<Advance>>>,
}

/// When the last piece was sent, and what ended the body early.
type Advance = (Instant, Option<Reject>);

impl Progress {
    /// Nothing was sent yet.
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            state: None,
        }
    }

    /// When the last piece was sent.
    pub(crate) fn since(&self) -> Instant {
        let state = self
            .state
            .as_ref()
            .and_then(|state| state.lock().ok().map(|state| state.0));
        state.unwrap_or(self.began)
    }

    /// What is wrong with the client's side of the request.
    pub(crate) fn fault(&self) -> Option<Reject> {
        self.state
            .as_ref()
            .and_then(|state| state.lock().ok().and_then(|state| state.1))
    }

    /// Shares the progress with a body that is there to be sent.
    pub(crate) fn share(&mut self) -> Self {
        self.state
            .get_or_insert_with(|| Arc::new(Mutex::new((self.began, None))));
        self.clone()
    }

    fn advance(&self) {
        if let Some(mut state) = self.state.as_ref().and_then(|state| state.lock().ok()) {
            state.0 = Instant::now();
        }
    }

    fn fail(&self, reject: Reject) {
        if let Some(mut state) = self.state.as_ref().and_then(|state| state.lock().ok()) {
            state.1.get_or_insert(reject);
        }
    }
}

/// A client's body, bounded in bytes and in silence.
#[derive(Debug)]
pub(crate) struct ClientBody {
    incoming: Incoming,
    taken: u64,
    limit: u64,
    silence: Silence,
    progress: Progress,
    /// What its trailers must not say.
    vouched: Vouched,
}

impl ClientBody {
    /// Takes at most `limit` bytes, with at most `body_read` between two pieces.
    pub(crate) fn new(
        incoming: Incoming,
        limit: u64,
        body_read: Duration,
        progress: Progress,
        vouched: Vouched,
    ) -> Self {
        let silence = Silence {
            allowed: Some(body_read),
            timer: None,
        };
        Self {
            incoming,
            taken: 0,
            limit,
            silence,
            progress,
            vouched,
        }
    }

    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(self.silence.poll(cx));
                return Poll::Ready(Some(Err(BodyError::ClientIdle)));
            }
        };
        self.silence.end();
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(BodyError::Client(error)))),
            None => return Poll::Ready(None),
        };
        if let Some(data) = frame.data_ref() {
            self.taken = self.taken.saturating_add(data.len() as u64);
            if self.taken > self.limit {
                return Poll::Ready(Some(Err(BodyError::TooLarge(self.limit))));
            }
        }
        self.progress.advance();
        Poll::Ready(Some(Ok(headers::cleaned(frame, Some(&self.vouched)))))
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = ready!(this.poll_piece(cx));
        if let Some(Err(error)) = &frame {
            this.progress.fail(refusal_of(error));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// An app's answer; its connection goes back to the pool at its end, and is closed before it.
#[derive(Debug)]
pub(crate) struct AnswerBody {
    incoming: Incoming,
    lease: Option<Lease>,
    silence: Silence,
}

impl AnswerBody {
    /// Lets the app be silent for `idle`; `None` is for ever.
    pub(crate) fn new(incoming: Incoming, lease: Lease, idle: Option<Duration>) -> Self {
        let silence = Silence {
            allowed: idle,
            timer: None,
        };
        Self {
            incoming,
            lease: Some(lease),
            silence,
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(this.silence.poll(cx));
                this.lease = None;
                return Poll::Ready(Some(Err(BodyError::UpstreamIdle)));
            }
        };
        this.silence.end();
        match frame {
            Some(Ok(frame)) => {
                if this.incoming.is_end_stream() {
                    if let Some(lease) = this.lease.take() {
                        lease.give_back();
                    }
                }
                Poll::Ready(Some(Ok(headers::cleaned(frame, None))))
            }
            Some(Err(error)) => {
                this.lease = None;
                Poll::Ready(Some(Err(BodyError::Upstream(error))))
            }
            None => {
                if let Some(lease) = this.lease.take() {
                    lease.give_back();
                }
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// A bound on the time between two pieces; its timer is made at the first wait.
#[derive(Debug)]
struct Silence {
    allowed: Option<Duration>,
    timer: Option<(Pin<Box<Sleep>>, bool)>,
}

impl Silence {
    /// Ready when the silence has lasted too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(allowed) = self.allowed else {
            return Poll::Pending;
        };
        let (timer, running) = self
            .timer
            .get_or_insert_with(|| (Box::pin(sleep(allowed)), true));
        if !*running {
            timer.as_mut().reset(Instant::now() + allowed);
            *running = true;
        }
        timer.as_mut().poll(cx)
    }

    /// A piece came.
    fn end(&mut self) {
        if let Some((_, running)) = &mut self.timer {
            *running = false;
        }
    }
}
