//! The bodies on both sides of an upstream: what goes out, and what comes back.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::ahead::Paced;
use super::buffer::Held;
use super::h1::AnswerFrames;
use super::headers;
use super::pool::Home;
use super::reserved::TrailerRules;
use super::spool::SpoolReader;
use crate::message::body::{Body, BodyError, Carry};

/// A request body on its way to the app.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// There is none.
    Empty,
    /// As the client sends it.
    Streamed(ClientBody),
    /// The beginning is here, or all of it.
    Held(Box<Held<ClientBody>>),
    /// All of it is here already, perhaps on disk.
    Stored(SpoolReader),
    /// It is one piece in memory.
    Own(Bytes),
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Streamed(body) => Pin::new(body).poll_frame(cx),
            Self::Held(body) => Pin::new(body.as_mut()).poll_frame(cx),
            Self::Stored(body) => Pin::new(body).poll_frame(cx),
            Self::Own(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streamed(body) => body.is_end_stream(),
            Self::Held(body) => body.is_end_stream(),
            Self::Stored(body) => body.is_end_stream(),
            Self::Own(bytes) => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streamed(body) => body.size_hint(),
            Self::Held(body) => body.size_hint(),
            Self::Stored(body) => body.size_hint(),
            Self::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}

impl Carry for Outgoing {}

/// A client's body, bounded in bytes and in silence.
#[derive(Debug)]
pub(crate) struct ClientBody {
    incoming: Body,
    taken: u64,
    limit: u64,
    silence: Silence,
    /// What its trailers must not say.
    rules: TrailerRules,
}

impl ClientBody {
    /// Takes at most `limit` bytes, with at most `body_read` between two pieces.
    pub(crate) fn new(
        incoming: Body,
        limit: u64,
        body_read: Duration,
        rules: TrailerRules,
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
            rules,
        }
    }
}

impl http_body::Body for ClientBody {
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
                return Poll::Ready(Some(Err(BodyError::ClientIdle)));
            }
        };
        this.silence.end();
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => return Poll::Ready(None),
        };
        if let Some(data) = frame.data_ref() {
            this.taken = this.taken.saturating_add(data.len() as u64);
            if this.taken > this.limit {
                return Poll::Ready(Some(Err(BodyError::TooLarge(this.limit))));
            }
        }
        Poll::Ready(Some(Ok(headers::cleaned(frame, Some(&this.rules)))))
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
    /// `None` when it has ended.
    coming: Option<(AnswerFrames, Home)>,
    silence: Silence,
}

impl AnswerBody {
    /// Lets the app be silent for `idle`; `None` is for ever.
    pub(crate) fn new(frames: AnswerFrames, home: Home, idle: Option<Duration>) -> Self {
        let silence = Silence {
            allowed: idle,
            timer: None,
        };
        let mut body = Self {
            coming: Some((frames, home)),
            silence,
        };
        body.release_at_end();
        body
    }

    /// Whether all that is still to come of it was read already.
    pub(crate) fn is_here(&self) -> bool {
        self.coming
            .as_ref()
            .is_none_or(|(frames, _)| frames.is_here())
    }

    /// At the end the connection is free for the next request.
    fn release_at_end(&mut self) {
        if let Some((frames, home)) = self.coming.take_if(|(frames, _)| frames.is_ended()) {
            if let Some(connection) = frames.finish() {
                home.take_back(connection);
            }
        }
    }
}

impl Paced for AnswerBody {
    fn read_at_most(&mut self, most: usize) {
        if let Some((frames, _)) = &mut self.coming {
            frames.read_at_most(most);
        }
    }

    fn read_less(&mut self) {
        if let Some((frames, _)) = &mut self.coming {
            frames.read_less();
        }
    }
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Some((frames, _)) = &mut this.coming else {
            return Poll::Ready(None);
        };
        let frame = match frames.poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(this.silence.poll(cx));
                Some(Err(BodyError::UpstreamIdle))
            }
        };
        this.silence.end();
        if matches!(frame, Some(Err(_))) {
            this.coming = None;
        }
        this.release_at_end();
        Poll::Ready(frame.map(|frame| frame.map(|frame| headers::cleaned(frame, None))))
    }

    fn is_end_stream(&self) -> bool {
        self.coming.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.coming
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), |(frames, _)| frames.size_hint())
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
