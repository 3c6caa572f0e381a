//! The response body type and its constructors. It does not know where bodies come from.

use std::fs::File;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// Why a body broke off before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// A file or a spool could not be read.
    #[error("reading a file failed: {0}")]
    Io(#[from] io::Error),
    /// The upstream aborted its response.
    #[error("the upstream aborted its response: {0}")]
    Upstream(#[source] io::Error),
    /// The upstream violated the framing of its response.
    #[error("the upstream's response is malformed: {0}")]
    UpstreamMalformed(&'static str),
    /// The upstream sent nothing within its timeout.
    #[error("the upstream sent nothing within its timeout")]
    UpstreamIdle,
    /// The response did not end within the whole request's timeout.
    #[error("the response did not end in time")]
    TotalTimeout,
    /// The token or session behind the response has ended; carries the reason code.
    #[error("its token or session has ended: {0}")]
    Ended(&'static str),
    /// The client aborted its request.
    #[error("the client aborted its request: {0}")]
    Client(#[source] io::Error),
    /// The client violated the framing of its request.
    #[error("the request body is malformed: {0}")]
    Malformed(&'static str),
    /// The client sent nothing within its timeout.
    #[error("the client sent nothing within its timeout")]
    ClientIdle,
    /// The request body is longer than its limit, which this carries.
    #[error("the request body exceeds {0} bytes")]
    TooLarge(u64),
}

/// A boxed stream of frames, for bodies that are not in memory.
pub(crate) type Stream =
    Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError> + Send + 'static>>;

/// Sends up to the given number of bytes of a file from an offset, without copying (sendfile); returns how many.
pub(crate) type SendFile<'a> =
    dyn FnMut(&mut Context<'_>, &File, u64, usize) -> Poll<io::Result<usize>> + 'a;

/// The result of a sendfile attempt: the number of bytes sent, or why it failed; `None` where the body must be polled
/// for a frame instead.
pub(crate) type Carried = Result<Option<io::Result<usize>>, BodyError>;

/// A body that can let the kernel send its bytes from a file to a socket. Most cannot.
pub(crate) trait Carry: http_body::Body<Data = Bytes, Error = BodyError> {
    /// Whether sendfile may be worth an attempt.
    fn may_carry(&self) -> bool {
        false
    }

    /// Limits read-ahead: the reader is slow, and many such bodies may wait at once.
    fn go_gently(self: Pin<&mut Self>) {}

    /// Sends some of the next bytes with `send` and advances past them.
    fn poll_carry(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut SendFile<'_>,
    ) -> Poll<Carried> {
        Poll::Ready(Ok(None))
    }

    /// Reads ahead while the reader accepts nothing, where that is worthwhile. Polled again when there is more.
    fn poll_ahead(self: Pin<&mut Self>, _: &mut Context<'_>) {}

    /// How many bytes were read ahead and not delivered yet.
    fn ahead(&self) -> usize {
        0
    }
}

/// A boxed body that supports [`Carry`].
pub(crate) type CarryStream = Pin<Box<dyn Carry + Send + 'static>>;

/// The body of every response of the gateway.
pub(crate) enum Body {
    /// No body.
    Empty,
    /// Completely in memory; `None` once it was taken.
    Full(Option<Bytes>),
    /// A stream of frames.
    Stream(Stream),
    /// Read from a file.
    File(CarryStream),
    /// A stream of frames with read-ahead.
    Ahead(CarryStream),
}

impl Body {
    /// A body that is in memory.
    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() {
            Self::Empty
        } else {
            Self::Full(Some(bytes))
        }
    }

    /// A body that is a stream of frames.
    pub(crate) fn stream<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error = BodyError> + Send + 'static,
    {
        Self::Stream(Box::pin(body))
    }

    /// A body with read-ahead.
    pub(crate) fn ahead<B>(body: B) -> Self
    where
        B: Carry + Send + 'static,
    {
        Self::Ahead(Box::pin(body))
    }

    /// A body that is read from a file.
    pub(crate) fn file<B>(body: B) -> Self
    where
        B: Carry + Send + 'static,
    {
        Self::File(Box::pin(body))
    }
}

impl Carry for Body {
    fn go_gently(self: Pin<&mut Self>) {
        match self.get_mut() {
            Self::File(body) | Self::Ahead(body) => body.as_mut().go_gently(),
            Self::Empty | Self::Full(_) | Self::Stream(_) => {}
        }
    }

    fn may_carry(&self) -> bool {
        match self {
            Self::File(file) => file.may_carry(),
            Self::Empty | Self::Full(_) | Self::Stream(_) | Self::Ahead(_) => false,
        }
    }

    fn poll_carry(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        send: &mut SendFile<'_>,
    ) -> Poll<Carried> {
        match self.get_mut() {
            Self::File(file) => file.as_mut().poll_carry(cx, send),
            Self::Empty | Self::Full(_) | Self::Stream(_) | Self::Ahead(_) => Poll::Ready(Ok(None)),
        }
    }

    fn poll_ahead(self: Pin<&mut Self>, cx: &mut Context<'_>) {
        if let Self::Ahead(body) = self.get_mut() {
            body.as_mut().poll_ahead(cx);
        }
    }

    fn ahead(&self) -> usize {
        match self {
            Self::Ahead(body) => body.ahead(),
            Self::Empty | Self::Full(_) | Self::Stream(_) | Self::File(_) => 0,
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::Full(_) => "Full",
            Self::Stream(_) => "Stream",
            Self::File(_) => "File",
            Self::Ahead(_) => "Ahead",
        })
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(stream) => stream.as_mut().poll_frame(cx),
            Self::File(body) | Self::Ahead(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty | Self::Full(None) => true,
            Self::Full(Some(_)) => false,
            Self::Stream(stream) => stream.is_end_stream(),
            Self::File(body) | Self::Ahead(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Full(None) => SizeHint::with_exact(0),
            Self::Full(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(stream) => stream.size_hint(),
            Self::File(body) | Self::Ahead(body) => body.size_hint(),
        }
    }
}
