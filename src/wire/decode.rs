//! Decodes the framing of bodies (RFC 9112 sections 6 and 7), from clients and apps alike. Takes slices and returns
//! positions: nothing here waits, and nothing is copied.

use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::SizeHint;

use super::chunk::{Chunks, Piece};
use super::mend::mend;

/// The most fields in trailers.
const MOST_TRAILERS: usize = 64;

/// How the rest of a body is framed.
#[derive(Debug)]
pub(crate) enum Coming {
    /// This many bytes are left.
    Length(u64),
    /// Chunks.
    Chunked(Chunks),
    /// Everything until the sender closes.
    UntilClose,
    /// Nothing is left.
    Nothing,
}

/// What the next bytes of a body are.
#[derive(Debug)]
pub(crate) enum Step {
    /// All of them are framing, and the body continues.
    More,
    /// After `skip` bytes of framing, `length` bytes of data.
    Data {
        /// Bytes before the data.
        skip: usize,
        /// Bytes of data.
        length: usize,
    },
    /// The body ends after this many bytes; these are its trailers.
    End(usize, Option<HeaderMap>),
}

impl Coming {
    /// Chunks whose trailers may have this many bytes.
    pub(crate) fn chunked(longest_trailers: usize) -> Self {
        Self::Chunked(Chunks::with_trailers(longest_trailers))
    }

    /// Chunks from an app, whose trailers may have this many bytes.
    pub(crate) fn chunked_by_an_app(longest_trailers: usize) -> Self {
        Self::Chunked(Chunks::of_an_app(longest_trailers))
    }

    /// Whether the body has ended.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// How much is left, if known.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Length(left) => SizeHint::with_exact(*left),
            Self::Nothing => SizeHint::with_exact(0),
            Self::Chunked(_) | Self::UntilClose => SizeHint::default(),
        }
    }

    /// Decodes the next step of `bytes`, which must not be empty. What the returned step covers counts as consumed.
    ///
    /// # Errors
    /// A description of the framing error.
    pub(crate) fn step(&mut self, bytes: &[u8]) -> Result<Step, &'static str> {
        match self {
            Self::Nothing => Ok(Step::End(0, None)),
            Self::UntilClose => Ok(Step::Data {
                skip: 0,
                length: bytes.len(),
            }),
            Self::Length(left) => {
                let there = usize::try_from(*left).unwrap_or(usize::MAX);
                let length = there.min(bytes.len());
                *left -= length as u64;
                if *left == 0 {
                    *self = Self::Nothing;
                }
                Ok(Step::Data { skip: 0, length })
            }
            Self::Chunked(chunks) => match chunks.piece(bytes)? {
                Piece::Framing => Ok(Step::More),
                Piece::Data { skip, length } => Ok(Step::Data { skip, length }),
                Piece::End(length) => {
                    let lines = chunks.take_trailers();
                    let trailers = match lines.as_slice() {
                        b"\r\n" | b"\n" => None,
                        lines if chunks.is_an_apps() => trailers(&mend(lines)?.text)?,
                        lines => trailers(lines)?,
                    };
                    *self = Self::Nothing;
                    Ok(Step::End(length, trailers))
                }
            },
        }
    }

    /// Whether these bytes, received right after data, are the end of the body without trailers, and nothing more. If
    /// so, the body has ended and they are consumed, so that the data and the end can be forwarded together.
    ///
    /// # Errors
    /// A description of the framing error.
    pub(crate) fn ends_with(&mut self, bytes: &[u8]) -> Result<bool, &'static str> {
        const LAST: &[u8] = b"\r\n0\r\n\r\n";
        let Self::Chunked(chunks) = self else {
            return Ok(false);
        };
        if bytes == LAST && matches!(chunks.piece(bytes)?, Piece::End(_)) {
            *self = Self::Nothing;
            return Ok(true);
        }
        Ok(false)
    }
}

/// The fields of trailers, or `None` if there are none.
fn trailers(lines: &[u8]) -> Result<Option<HeaderMap>, &'static str> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_TRAILERS];
    let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(lines, &mut fields)
    else {
        return Err("the trailers are malformed");
    };
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_bytes(field.value);
        match (name, value) {
            (Ok(name), Ok(value)) => drop(trailers.append(name, value)),
            _ => return Err("the trailers are malformed"),
        }
    }
    Ok(Some(trailers))
}
