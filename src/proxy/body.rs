//! The body of an app's response. Request bodies are in `outgoing`.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::ahead::Paced;
use super::h1::AnswerFrames;
use super::headers;
use super::pool::Home;
use super::silence::Silence;
use crate::message::body::BodyError;

/// An app's response. Its connection returns to the pool when the response is complete, and is closed otherwise.
#[derive(Debug)]
pub(crate) struct AnswerBody {
    /// `None` when it has ended.
    coming: Option<(AnswerFrames, Home)>,
    silence: Silence,
}

impl AnswerBody {
    /// Permits the app to be silent for `idle`; `None` means no limit.
    pub(crate) fn new(frames: AnswerFrames, home: Home, idle: Option<Duration>) -> Self {
        let silence = Silence::new(idle);
        let mut body = Self {
            coming: Some((frames, home)),
            silence,
        };
        body.release_at_end();
        body
    }

    /// Whether the rest of it was read already.
    pub(crate) fn is_here(&self) -> bool {
        self.coming
            .as_ref()
            .is_none_or(|(frames, _)| frames.is_here())
    }

    /// At the end, releases the connection for the next request.
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
