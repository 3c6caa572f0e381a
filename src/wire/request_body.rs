//! Streams the body of an HTTP/1.1 request: the reader requests the next frame, and the connection, which alone
//! accesses the socket, delivers it here.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::line::Line;
use crate::message::body::BodyError;

/// The connection's end.
#[derive(Debug)]
pub(super) struct Feed {
    shared: Arc<Mutex<Shared>>,
    line: Arc<Line>,
}

/// The reader's end.
#[derive(Debug)]
pub(super) struct Fed {
    shared: Arc<Mutex<Shared>>,
    /// How much is left, if known.
    left: Option<u64>,
}

/// Only one thread uses this, though perhaps in two of its tasks.
#[derive(Debug, Default)]
struct Shared {
    /// What was delivered and not taken yet.
    next: Option<Result<Frame<Bytes>, BodyError>>,
    ended: bool,
    /// Whether the reader waits for the next frame.
    wanted: bool,
    reader: Option<Waker>,
    connection: Option<Waker>,
}

/// A body that is being received, with its length if known.
pub(super) fn feed(length: Option<u64>, line: &Arc<Line>) -> (Feed, Fed) {
    let shared = Arc::new(Mutex::new(Shared::default()));
    let fed = Fed {
        shared: Arc::clone(&shared),
        left: length,
    };
    let line = Arc::clone(line);
    (Feed { shared, line }, fed)
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Stores a waker, unless it is stored already.
fn keep(place: &mut Option<Waker>, cx: &Context<'_>) {
    if !place
        .as_ref()
        .is_some_and(|known| known.will_wake(cx.waker()))
    {
        *place = Some(cx.waker().clone());
    }
}

/// Wakes the other end, unless that is the task that is running.
fn wake(place: Option<&Waker>, cx: &Context<'_>) {
    if let Some(waker) = place.filter(|waker| !waker.will_wake(cx.waker())) {
        waker.wake_by_ref();
    }
}

impl Feed {
    /// Whether the reader waits. Otherwise the connection is woken when it does.
    pub(super) fn is_wanted(&self, cx: &Context<'_>) -> bool {
        let mut shared = lock(&self.shared);
        keep(&mut shared.connection, cx);
        shared.wanted
    }

    /// Whether the reader is gone.
    pub(super) fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.shared) == 1
    }

    /// Delivers a frame, an error, or the end; `ended` is also true with the last frame.
    pub(super) fn lay_down(
        &self,
        cx: &Context<'_>,
        next: Option<Result<Frame<Bytes>, BodyError>>,
        ended: bool,
    ) {
        if let Some(Ok(frame)) = &next {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            self.line.receive(bytes as u64);
        }
        let mut shared = lock(&self.shared);
        shared.next = next;
        shared.ended = ended;
        shared.wanted = false;
        wake(shared.reader.as_ref(), cx);
    }
}

impl Body for Fed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut shared = lock(&self.shared);
        if let Some(next) = shared.next.take() {
            drop(shared);
            let length = next.as_ref().ok().and_then(Frame::data_ref).map(Bytes::len);
            if let (Some(left), Some(length)) = (&mut self.left, length) {
                *left = left.saturating_sub(length as u64);
            }
            return Poll::Ready(Some(next));
        }
        if shared.ended {
            return Poll::Ready(None);
        }
        keep(&mut shared.reader, cx);
        if !shared.wanted {
            shared.wanted = true;
            wake(shared.connection.as_ref(), cx);
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        let shared = lock(&self.shared);
        shared.ended && shared.next.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}
