//! A body that is compressed as it comes. It never waits for more than the app has sent: when the app pauses, all of it
//! is on its way. Which bodies are compressed is decided elsewhere.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;

use super::encoder::{Encoder, Lent};
use crate::message::body::{Body, BodyError, Carry};

/// How many bytes one turn of a stream compresses; then the worker's other streams have theirs.
const TURN: usize = 16 * 1024;

/// What is to be returned for a frame.
type Next = Option<Result<Frame<Bytes>, BodyError>>;

/// A body that is compressed as it comes.
#[derive(Debug)]
pub(super) struct Compressed {
    plain: Body,
    /// `None` once the stream has ended, or broken off.
    encoder: Option<Lent>,
    /// What is not compressed yet of the last piece.
    piece: Bytes,
    /// Whether the encoder may hold bytes that its reader does not have.
    holds: bool,
    /// How many bytes were compressed in this turn.
    turn: usize,
    /// What follows the compressed bytes: trailers, or the error that broke off the body.
    last: Next,
}

impl Compressed {
    /// Compresses this body with that encoder.
    pub(super) fn new(plain: Body, encoder: Lent) -> Self {
        Self {
            plain,
            encoder: Some(encoder),
            piece: Bytes::new(),
            holds: false,
            turn: 0,
            last: None,
        }
    }

    /// Puts what the encoder does to so many bytes in a frame; `None` where that is nothing.
    fn frame(
        &mut self,
        before: usize,
        work: impl FnOnce(&mut Encoder, &mut Vec<u8>) -> io::Result<()>,
    ) -> Result<Option<Frame<Bytes>>, BodyError> {
        let mut out = Vec::new();
        if let Some(encoder) = &mut self.encoder {
            work(encoder.get()?, &mut out)?;
            encoder.count(before, out.len());
        }
        Ok((!out.is_empty()).then(|| Frame::data(out.into())))
    }

    /// Ends the stream; `last` follows it.
    fn end(&mut self, last: Next) -> Next {
        let frame = self.frame(0, Encoder::finish);
        self.encoder = None;
        match frame {
            Ok(Some(frame)) => {
                self.last = last;
                Some(Ok(frame))
            }
            Ok(None) => last,
            Err(error) => Some(Err(error)),
        }
    }

    /// The body has broken off: its reader gets what came before, and then the error, never an end.
    fn break_off(&mut self, error: BodyError) -> Next {
        let frame = self.frame(0, Encoder::flush);
        self.encoder = None;
        match frame {
            Ok(Some(frame)) => {
                self.last = Some(Err(error));
                Some(Ok(frame))
            }
            Ok(None) | Err(_) => Some(Err(error)),
        }
    }
}

impl http_body::Body for Compressed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            if this.encoder.is_none() {
                return Poll::Ready(this.last.take());
            }
            if this.piece.is_empty() {
                match Pin::new(&mut this.plain).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                        Ok(data) => this.piece = data,
                        Err(trailers) => return Poll::Ready(this.end(Some(Ok(trailers)))),
                    },
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(this.break_off(error)),
                    Poll::Ready(None) => return Poll::Ready(this.end(None)),
                    Poll::Pending => {
                        this.turn = 0;
                        if std::mem::take(&mut this.holds)
                            && let Some(frame) = this.frame(0, Encoder::flush)?
                        {
                            return Poll::Ready(Some(Ok(frame)));
                        }
                        return Poll::Pending;
                    }
                }
                continue;
            }
            if this.turn >= TURN {
                this.turn = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let piece = this.piece.split_to(this.piece.len().min(TURN - this.turn));
            this.turn += piece.len();
            this.holds = true;
            let is_last = this.piece.is_empty() && this.plain.is_end_stream();
            let frame = this.frame(piece.len(), |encoder, out| {
                encoder.write(&piece, out)?;
                if is_last { encoder.finish(out) } else { Ok(()) }
            });
            if is_last || frame.is_err() {
                this.encoder = None;
            }
            if let Some(frame) = frame? {
                return Poll::Ready(Some(Ok(frame)));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.encoder.is_none() && self.last.is_none()
    }
}

impl Carry for Compressed {
    fn go_gently(self: Pin<&mut Self>) {
        Pin::new(&mut self.get_mut().plain).go_gently();
    }

    fn poll_ahead(self: Pin<&mut Self>, cx: &mut Context<'_>) {
        Pin::new(&mut self.get_mut().plain).poll_ahead(cx);
    }

    fn ahead(&self) -> usize {
        self.plain.ahead()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::Read;
    use std::sync::{Arc, Mutex};
    use std::task::Waker;

    use http::HeaderMap;
    use http_body::Body as _;

    use super::super::encoder::{Encoders, Level};
    use super::*;
    use crate::message::accept::Coding;

    /// What an app does next.
    enum Step {
        Sends(Vec<u8>),
        /// Until it is resumed.
        Pauses,
        Breaks,
        Trailers,
    }

    type Steps = Arc<Mutex<VecDeque<Step>>>;

    struct App(Steps);

    impl http_body::Body for App {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            let mut steps = self.0.lock().unwrap();
            let frame = match steps.pop_front() {
                Some(Step::Sends(bytes)) => Ok(Frame::data(bytes.into())),
                Some(Step::Pauses) => {
                    steps.push_front(Step::Pauses);
                    return Poll::Pending;
                }
                Some(Step::Breaks) => Err(BodyError::UpstreamIdle),
                Some(Step::Trailers) => Ok(Frame::trailers(HeaderMap::new())),
                None => return Poll::Ready(None),
            };
            Poll::Ready(Some(frame))
        }
    }

    /// Ends the app's pause.
    fn resume(steps: &Steps) {
        assert!(matches!(
            steps.lock().unwrap().pop_front(),
            Some(Step::Pauses)
        ));
    }

    fn compressed(coding: Coding, steps: Vec<Step>) -> (Compressed, Steps, Arc<Encoders>) {
        let home = Arc::new(Encoders::default());
        let lent = home.take(coding, Level::Default).unwrap();
        let steps: Steps = Arc::new(Mutex::new(steps.into()));
        let plain = Body::stream(App(Arc::clone(&steps)));
        (Compressed::new(plain, lent), steps, home)
    }

    /// The bytes until the next pause, and what followed them.
    fn until_pause(body: &mut Compressed) -> (Vec<u8>, Option<Next>) {
        let mut cx = Context::from_waker(Waker::noop());
        let mut bytes = Vec::new();
        loop {
            match Pin::new(&mut *body).poll_frame(&mut cx) {
                Poll::Pending => return (bytes, None),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => bytes.extend_from_slice(&data),
                    Err(frame) => return (bytes, Some(Some(Ok(frame)))),
                },
                Poll::Ready(other) => return (bytes, Some(other)),
            }
        }
    }

    /// What a client makes of the beginning of a stream.
    fn so_far(bytes: &[u8]) -> Vec<u8> {
        let mut plain = vec![0; 1 << 20];
        let mut decoder = flate2::read::GzDecoder::new(bytes);
        let mut length = 0;
        while let Ok(read @ 1..) = decoder.read(&mut plain[length..]) {
            length += read;
        }
        plain.truncate(length);
        plain
    }

    #[test]
    fn each_event_is_with_the_client_when_the_app_pauses() {
        let events = [b"data: one\n\n".to_vec(), b"data: two\n\n".to_vec()];
        let mut steps = Vec::new();
        for event in &events {
            steps.extend([Step::Sends(event.clone()), Step::Pauses]);
        }
        let (mut body, steps, home) = compressed(Coding::Gzip, steps);
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for event in &events {
            let (more, next) = until_pause(&mut body);
            assert!(next.is_none());
            bytes.extend(more);
            expected.extend_from_slice(event);
            assert_eq!(so_far(&bytes), expected);
            resume(&steps);
        }
        let (more, next) = until_pause(&mut body);
        assert!(matches!(next, Some(None)) && body.is_end_stream());
        assert_eq!(so_far(&[bytes, more].concat()), expected);
        assert_eq!(home.count().0, 0);
    }

    #[test]
    fn a_pause_without_news_sends_nothing() {
        let steps = vec![Step::Pauses, Step::Sends(vec![1]), Step::Pauses];
        let (mut body, steps, _home) = compressed(Coding::Zstd, steps);
        let mut lengths = vec![until_pause(&mut body).0.len()];
        resume(&steps);
        lengths.extend((0..2).map(|_| until_pause(&mut body).0.len()));
        assert!(
            lengths[0] == 0 && lengths[1] > 0 && lengths[2] == 0,
            "{lengths:?}"
        );
    }

    #[test]
    fn what_breaks_off_is_never_ended_and_gives_its_encoder_back() {
        for coding in Coding::ALL {
            let steps = vec![Step::Sends(b"abc".to_vec()), Step::Breaks];
            let (mut body, _, home) = compressed(coding, steps);
            let (bytes, next) = until_pause(&mut body);
            assert!(!bytes.is_empty());
            assert!(matches!(next, Some(Some(Err(BodyError::UpstreamIdle)))));
            assert!(matches!(until_pause(&mut body).1, Some(None)));
            assert_eq!(home.count().0, 0);
            if coding == Coding::Gzip {
                assert_eq!(so_far(&bytes), b"abc");
                let mut all = Vec::new();
                let mut decoder = flate2::read::GzDecoder::new(&*bytes);
                assert!(decoder.read_to_end(&mut all).is_err());
            }
        }
    }

    #[test]
    fn trailers_follow_the_end() {
        let steps = vec![Step::Sends(b"abc".to_vec()), Step::Trailers];
        let (mut body, ..) = compressed(Coding::Gzip, steps);
        let (bytes, next) = until_pause(&mut body);
        assert_eq!(so_far(&bytes), b"abc");
        assert!(matches!(next, Some(Some(Ok(frame))) if frame.is_trailers()));
    }

    #[test]
    fn a_long_piece_is_compressed_in_turns() {
        let long: Vec<u8> = (0_u32..)
            .flat_map(u32::to_le_bytes)
            .take(5 * TURN)
            .collect();
        let (mut body, ..) = compressed(Coding::Gzip, vec![Step::Sends(long.clone())]);
        let (mut bytes, mut turns) = (Vec::new(), 0);
        loop {
            let (more, next) = until_pause(&mut body);
            bytes.extend(more);
            if next.is_some() {
                break;
            }
            turns += 1;
        }
        assert_eq!(turns, 4);
        assert!(so_far(&bytes) == long);
    }

    #[test]
    fn a_body_that_is_here_is_one_frame() {
        let home = Arc::new(Encoders::default());
        let lent = home.take(Coding::Br, Level::Default).unwrap();
        let mut body = Compressed::new(Body::full("abc".repeat(1000)), lent);
        let mut cx = Context::from_waker(Waker::noop());
        let frame = Pin::new(&mut body).poll_frame(&mut cx);
        assert!(matches!(frame, Poll::Ready(Some(Ok(_)))));
        assert!(body.is_end_stream());
    }
}
