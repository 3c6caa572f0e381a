//! Several parts of a file in one body (`multipart/byteranges`, RFC 9110 section 14.6): the head of each part, then its
//! bytes, which may come from memory or from an open file. Which parts those are is decided in `range`.

use std::collections::VecDeque;
use std::fmt::Write;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderValue;
use http_body::{Frame, SizeHint};

use super::about::About;
use super::range::Part;
use super::stream::FileStream;
use crate::message::body::{BodyError, Carried, Carry, SendFile};
use crate::message::reject::Reject;

/// Parts of a file, with what stands around them.
#[derive(Debug)]
pub(super) struct Parts {
    parts: Vec<Part>,
    /// What separates them: random, so that no file can have it in it.
    boundary: String,
    /// The heads of all parts and the end, one after the other.
    text: Bytes,
    /// Where each of them ends in `text`.
    ends: Vec<usize>,
}

impl Parts {
    /// Parts of a file that is described like this. `None` if they are not shorter than the file.
    ///
    /// # Errors
    /// `Internal` if the system has no random numbers.
    pub(super) fn of(parts: Vec<Part>, about: &About) -> Result<Option<Self>, Reject> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|_| Reject::Internal)?;
        let boundary = format!("{:032x}", u128::from_le_bytes(random));
        let mut text = Vec::new();
        let mut ends = Vec::with_capacity(parts.len() + 1);
        for part in &parts {
            let begins = if ends.is_empty() { "--" } else { "\r\n--" };
            text.extend_from_slice(begins.as_bytes());
            text.extend_from_slice(boundary.as_bytes());
            text.extend_from_slice(b"\r\nContent-Type: ");
            text.extend_from_slice(about.told.content_type.as_bytes());
            // A coding is one of the file's bytes, and not of what stands around them: who decodes the whole body would
            // find nothing to decode.
            if let Some(coding) = about.coding {
                text.extend_from_slice(b"\r\nContent-Encoding: ");
                text.extend_from_slice(coding.name().as_bytes());
            }
            let mut range = String::new();
            let Part { first, last } = part;
            write!(
                range,
                "\r\nContent-Range: bytes {first}-{last}/{}\r\n\r\n",
                about.len
            )
            .map_err(|_| Reject::Internal)?;
            text.extend_from_slice(range.as_bytes());
            ends.push(text.len());
        }
        text.extend_from_slice(b"\r\n--");
        text.extend_from_slice(boundary.as_bytes());
        text.extend_from_slice(b"--\r\n");
        ends.push(text.len());
        let made = Self {
            parts,
            boundary,
            text: text.into(),
            ends,
        };
        Ok((made.len() < about.len).then_some(made))
    }

    /// The length of the body.
    pub(super) fn len(&self) -> u64 {
        let parts = self.parts.iter();
        parts.fold(self.text.len() as u64, |sum, part| {
            sum.saturating_add(part.len())
        })
    }

    /// The parts of the file.
    pub(super) fn ranges(&self) -> &[Part] {
        &self.parts
    }

    /// The value of `Content-Type`.
    pub(super) fn content_type(&self) -> Result<HeaderValue, Reject> {
        let value = format!("multipart/byteranges; boundary={}", self.boundary);
        HeaderValue::try_from(value).map_err(|_| Reject::Internal)
    }

    /// The body, with the bytes of each part from `bytes_of`.
    pub(super) fn into_body(self, mut bytes_of: impl FnMut(Part) -> Segment) -> MultipartBody {
        let left = self.len();
        let mut segments = VecDeque::with_capacity(2 * self.parts.len() + 1);
        let mut from = 0;
        let mut parts = self.parts.into_iter();
        for end in self.ends {
            segments.push_back(Segment::Bytes(self.text.slice(from..end)));
            segments.extend(parts.next().map(&mut bytes_of));
            from = end;
        }
        MultipartBody { segments, left }
    }
}

/// A piece of the body.
pub(super) enum Segment {
    /// In memory.
    Bytes(Bytes),
    /// In a file.
    File(FileStream),
}

/// The body.
pub(super) struct MultipartBody {
    segments: VecDeque<Segment>,
    /// How many bytes are left.
    left: u64,
}

impl MultipartBody {
    fn gave(&mut self, count: usize) {
        self.left = self.left.saturating_sub(count as u64);
    }
}

impl http_body::Body for MultipartBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        while let Some(segment) = this.segments.front_mut() {
            let data = match segment {
                Segment::Bytes(bytes) => Some(std::mem::take(bytes)),
                Segment::File(stream) => {
                    let frame = ready!(Pin::new(stream).poll_frame(cx)?);
                    frame.and_then(|frame| frame.into_data().ok())
                }
            };
            // What stands in memory is given as a whole: a file behind it can be carried at once.
            if data.is_none() || matches!(segment, Segment::Bytes(_)) {
                this.segments.pop_front();
            }
            if let Some(data) = data.filter(|data| !data.is_empty()) {
                this.gave(data.len());
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl Carry for MultipartBody {
    fn go_gently(self: Pin<&mut Self>) {
        for segment in &mut self.get_mut().segments {
            if let Segment::File(stream) = segment {
                Pin::new(stream).go_gently();
            }
        }
    }

    fn may_carry(&self) -> bool {
        match self.segments.front() {
            Some(Segment::File(stream)) => stream.may_carry(),
            Some(Segment::Bytes(_)) | None => false,
        }
    }

    fn poll_carry(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        send: &mut SendFile<'_>,
    ) -> Poll<Carried> {
        let this = self.get_mut();
        let Some(Segment::File(stream)) = this.segments.front_mut() else {
            return Poll::Ready(Ok(None));
        };
        let carried = ready!(Pin::new(stream).poll_carry(cx, send))?;
        if let Some(Ok(count)) = &carried {
            this.gave(*count);
        }
        Poll::Ready(Ok(carried))
    }
}
