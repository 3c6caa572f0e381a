//! A body is taken out of its framing (RFC 9112 sections 6 and 7), a client's and an app's alike. Slices in,
//! places out: nothing here waits, and nothing is copied.

use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::SizeHint;

use super::chunk::{Chunks, Piece};
use super::mend::mend;

/// The most fields in trailers.
const MOST_TRAILERS: usize = 64;

/// How what is still to come of a body is framed.
#[derive(Debug)]
pub(crate) enum Coming {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunks),
    /// All that comes until the sender closes.
    UntilClose,
    /// Nothing is to come.
    Nothing,
}

/// What the next bytes of a body are.
#[derive(Debug)]
pub(crate) enum Step {
    /// All of them are framing, and the body goes on.
    More,
    /// After `skip` bytes of framing, so many of data.
    Data {
        /// Bytes before the data.
        skip: usize,
        /// Bytes of data.
        length: usize,
    },
    /// So many bytes end the body; these are its trailers.
    End(usize, Option<HeaderMap>),
}

impl Coming {
    /// Chunks, whose trailers may have so many bytes.
    pub(crate) fn chunked(longest_trailers: usize) -> Self {
        Self::Chunked(Chunks::with_trailers(longest_trailers))
    }

    /// Chunks that an app sends, whose trailers may have so many bytes.
    pub(crate) fn chunked_by_an_app(longest_trailers: usize) -> Self {
        Self::Chunked(Chunks::of_an_app(longest_trailers))
    }

    /// Whether the body has ended.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// How much is still to come, where that is known.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Length(left) => SizeHint::with_exact(*left),
            Self::Nothing => SizeHint::with_exact(0),
            Self::Chunked(_) | Self::UntilClose => SizeHint::default(),
        }
    }

    /// Says what the next of these bytes, which are not none, are. What it says is used up when it returns.
    ///
    /// # Errors
    /// What breaks the framing.
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

    /// Whether these bytes, which came right behind data, are the end of the body, without trailers, and nothing
    /// more: then it has ended, and they are used up. The data and the end can go their way together.
    ///
    /// # Errors
    /// What breaks the framing.
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

/// The fields of trailers, `None` where there are none.
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
