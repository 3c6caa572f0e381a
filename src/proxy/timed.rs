//! A response body that must end in time (`timeouts.total`). The time between two pieces is limited in `silence`.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Sleep;

use crate::message::body::{Body, BodyError, Carry};

/// A body with a deadline.
#[derive(Debug)]
pub(super) struct Timed {
    /// `None` once the deadline has passed: its connection is closed.
    body: Option<Body>,
    ends: Pin<Box<Sleep>>,
    /// Whether the end of a body that was late was returned.
    told: bool,
}

impl Timed {
    /// A body that breaks off when `ends` is over.
    pub(super) fn new(body: Body, ends: Pin<Box<Sleep>>) -> Self {
        Self {
            body: Some(body),
            ends,
            told: false,
        }
    }

    /// The body, unless it is late.
    fn in_time(&mut self, cx: &mut Context<'_>) -> Option<&mut Body> {
        let lasts = self.body.as_ref().is_some_and(|body| !body.is_end_stream());
        if lasts && self.ends.as_mut().poll(cx).is_ready() {
            self.body = None;
        }
        self.body.as_mut()
    }
}

impl http_body::Body for Timed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(body) = this.in_time(cx) {
            return Pin::new(body).poll_frame(cx);
        }
        let told = std::mem::replace(&mut this.told, true);
        Poll::Ready((!told).then_some(Err(BodyError::TotalTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.body
            .as_ref()
            .map_or(self.told, http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(SizeHint::default, http_body::Body::size_hint)
    }
}

impl Carry for Timed {
    fn go_gently(self: Pin<&mut Self>) {
        if let Some(body) = &mut self.get_mut().body {
            Pin::new(body).go_gently();
        }
    }

    fn poll_ahead(self: Pin<&mut Self>, cx: &mut Context<'_>) {
        if let Some(body) = self.get_mut().in_time(cx) {
            Pin::new(body).poll_ahead(cx);
        }
    }

    fn ahead(&self) -> usize {
        self.body.as_ref().map_or(0, Carry::ahead)
    }
}
