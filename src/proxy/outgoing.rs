//! Request bodies sent to an app. Response bodies are in `body`.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::buffer::Held;
use super::headers;
use super::reserved::TrailerRules;
use super::silence::Silence;
use super::spool::SpoolReader;
use crate::message::body::{Body, BodyError, Carry};

/// A request body to be sent to the app.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// There is none.
    Empty,
    /// Streamed from the client.
    Streamed(ClientBody),
    /// Its beginning is in memory, or all of it.
    Held(Box<Held<ClientBody>>),
    /// All of it is stored, possibly on disk.
    Stored(SpoolReader),
    /// It is one piece in memory.
    Own(Bytes),
}

impl Outgoing {
    /// The same body once more, if all of it is in memory and nothing was taken from it yet.
    pub(super) fn again(&mut self) -> Option<Self> {
        match self {
            Self::Empty => Some(Self::Empty),
            Self::Own(bytes) => Some(Self::Own(bytes.clone())),
            Self::Streamed(body) => match &body.incoming {
                Body::Full(Some(bytes)) => Some(Self::Own(bytes.clone())),
                Body::Empty
                | Body::Full(None)
                | Body::Stream(_)
                | Body::File(_)
                | Body::Ahead(_) => None,
            },
            Self::Held(held) => held.again().map(Box::new).map(Self::Held),
            Self::Stored(_) => None,
        }
    }
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

/// A client's body, with limits on its bytes and on the time between pieces.
#[derive(Debug)]
pub(crate) struct ClientBody {
    incoming: Body,
    taken: u64,
    limit: u64,
    silence: Silence,
    /// Fields that its trailers must not contain.
    rules: TrailerRules,
}

impl ClientBody {
    /// Accepts at most `limit` bytes, with at most `body_read` between two pieces.
    pub(crate) fn new(
        incoming: Body,
        limit: u64,
        body_read: Duration,
        rules: TrailerRules,
    ) -> Self {
        let silence = Silence::new(Some(body_read));
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
