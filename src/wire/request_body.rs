//! The body of a request of HTTP/1.1 while it comes: whoever reads it asks the connection for the next frame, and
//! the connection, which alone touches the socket, lays it down here.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::message::body::BodyError;

/// The connection's end.
#[derive(Debug)]
pub(super) struct Feed(Arc<Mutex<Shared>>);

/// The reader's end.
#[derive(Debug)]
pub(super) struct Fed {
    shared: Arc<Mutex<Shared>>,
    /// How much is still to come, where that is known.
    left: Option<u64>,
}

/// One thread alone comes here, though perhaps two of its tasks.
#[derive(Debug, Default)]
struct Shared {
    /// What was laid down and not taken yet.
    next: Option<Result<Frame<Bytes>, BodyError>>,
    ended: bool,
    /// Whether the reader waits for something to be laid down.
    wanted: bool,
    reader: Option<Waker>,
    connection: Option<Waker>,
}

/// A body that comes, of so many bytes where that is known.
pub(super) fn feed(length: Option<u64>) -> (Feed, Fed) {
    let shared = Arc::new(Mutex::new(Shared::default()));
    let fed = Fed {
        shared: Arc::clone(&shared),
        left: length,
    };
    (Feed(shared), fed)
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a waker, unless it is there already.
fn keep(place: &mut Option<Waker>, cx: &Context<'_>) {
    if !place
        .as_ref()
        .is_some_and(|known| known.will_wake(cx.waker()))
    {
        *place = Some(cx.waker().clone());
    }
}

/// Wakes the other end, where that is not the very task that runs.
fn wake(place: Option<&Waker>, cx: &Context<'_>) {
    if let Some(waker) = place.filter(|waker| !waker.will_wake(cx.waker())) {
        waker.wake_by_ref();
    }
}

impl Feed {
    /// Whether the reader waits; it is heard of when it does.
    pub(super) fn is_wanted(&self, cx: &Context<'_>) -> bool {
        let mut shared = lock(&self.0);
        keep(&mut shared.connection, cx);
        shared.wanted
    }

    /// Whether nobody will read any more.
    pub(super) fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// Lays down what came: a frame or a fault, or the end; `ended` also where it is the last frame.
    pub(super) fn lay_down(
        &self,
        cx: &Context<'_>,
        next: Option<Result<Frame<Bytes>, BodyError>>,
        ended: bool,
    ) {
        let mut shared = lock(&self.0);
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
