//! Parses one request head, strictly (RFC 9112 sections 2 to 6) and in one pass: its end, the framing of its body, what
//! it says about the connection, and the positions of its fields. Bytes in, a request out: nothing here waits.

use std::ops::Range;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Version};

use super::names::name_of;
use super::target;
use crate::message::alphabet::TOKEN;
use crate::message::reject::Reject;
use crate::net::limits::Limits;

/// How the body after a head is framed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Head {
    /// There is none.
    NoBody,
    /// This many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// What a request says about its connection.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Manners {
    /// It uses HTTP/1.0.
    pub(super) http_1_0: bool,
    /// `Connection` contains `close`.
    pub(super) closes: bool,
    /// `Connection` contains `keep-alive`, which HTTP/1.0 requires.
    pub(super) stays: bool,
    /// It waits for 100 before it sends its body (RFC 9110 section 10.1.1).
    pub(super) expects: bool,
    /// It understands trailers (RFC 9110 section 10.1.4).
    pub(super) trailers: bool,
}

/// The position of a field in the head.
#[derive(Clone, Copy, Debug)]
struct Place {
    name: (usize, usize),
    value: (usize, usize),
}

/// A head that is being parsed; parsing resumes where it stopped.
#[derive(Debug, Default)]
pub(crate) struct HeadScan {
    /// Where the current line begins.
    line: usize,
    request_line: bool,
    method: Range<usize>,
    target: Range<usize>,
    fields: Vec<Place>,
    manners: Manners,
    hosts: usize,
    length: Option<u64>,
    chunked: bool,
}

impl HeadScan {
    /// Continues with `bytes`, which start at the beginning of the head. Returns where the head ends and what follows,
    /// or `None` if it has not ended yet.
    ///
    /// # Errors
    /// The reason why the head is rejected.
    pub(crate) fn scan(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
    ) -> Result<Option<(usize, Head)>, Reject> {
        while let Some(rest) = bytes.get(self.line..) {
            let feed = memchr::memchr(b'\n', rest);
            // A line that is too long is rejected for that, whether its end has arrived or not.
            self.measure(rest, feed, limits)?;
            let Some(feed) = feed else {
                break;
            };
            let Some((line, b"\r\n")) = rest
                .get(..=feed)
                .and_then(|line| line.split_at_checked(feed.wrapping_sub(1)))
            else {
                return Err(Reject::BadRequest(
                    "a line of the head does not end in CR LF",
                ));
            };
            let at = self.line;
            self.line += feed + 1;
            if !self.request_line {
                // One empty line before a request is ignored (RFC 9112 section 2.2).
                if line.is_empty() && self.line == 2 {
                    continue;
                }
                self.request_line(line, at, limits)?;
                self.request_line = true;
            } else if line.is_empty() {
                return self.end().map(|head| Some((self.line, head)));
            } else {
                self.field(line, at, limits)?;
            }
        }
        Ok(None)
    }

    /// Checks the length of the current line, complete or not.
    fn measure(&self, rest: &[u8], feed: Option<usize>, limits: &Limits) -> Result<(), Reject> {
        let end = self.line + feed.map_or(rest.len(), |feed| feed + 1);
        if !self.request_line {
            let most = longest_line(limits);
            if end > most && most <= limits.header_bytes {
                let begun = rest.get(..=most.saturating_sub(self.line)).unwrap_or(rest);
                return Err(if memchr::memchr(b' ', begun).is_some() {
                    self.too_large(limits)
                } else {
                    Reject::BadRequest("the request line is malformed")
                });
            }
        }
        if end > limits.header_bytes {
            return Err(self.too_large(limits));
        }
        Ok(())
    }

    fn too_large(&self, limits: &Limits) -> Reject {
        let in_target = !self.request_line && limits.uri_bytes < limits.header_bytes;
        if in_target {
            Reject::UriTooLong
        } else {
            Reject::HeadTooLarge
        }
    }

    fn request_line(&mut self, line: &[u8], at: usize, limits: &Limits) -> Result<(), Reject> {
        let malformed = Reject::BadRequest("the request line is malformed");
        let mut parts = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed);
        };
        if target.len() > limits.uri_bytes {
            return Err(Reject::UriTooLong);
        }
        if method.is_empty() || !method.iter().all(|byte| TOKEN.has(*byte)) {
            return Err(malformed);
        }
        if !target::is_plain(target) {
            return Err(target::MALFORMED);
        }
        match version {
            b"HTTP/1.1" => {}
            b"HTTP/1.0" => self.manners.http_1_0 = true,
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                return Err(Reject::VersionNotSupported);
            }
            _ => return Err(malformed),
        }
        self.method = at..at + method.len();
        let target_at = self.method.end + 1;
        self.target = target_at..target_at + target.len();
        Ok(())
    }

    fn field(&mut self, line: &[u8], at: usize, limits: &Limits) -> Result<(), Reject> {
        if self.fields.len() >= limits.header_count {
            return Err(Reject::HeadTooLarge);
        }
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(Reject::BadRequest(
                "a header field is folded over several lines",
            ));
        }
        let Some(colon) = memchr::memchr(b':', line) else {
            return Err(Reject::BadRequest("a header field has no colon"));
        };
        let (name, value) = line.split_at_checked(colon).unwrap_or_default();
        let value = value.strip_prefix(b":").unwrap_or(value);
        // Whether all of their bytes are permitted is checked when the request is built.
        let before = value.iter().take_while(|byte| is_blank(**byte)).count();
        let kept = value.get(before..).unwrap_or_default();
        let behind = kept
            .iter()
            .rev()
            .take_while(|byte| is_blank(**byte))
            .count();
        let end = self.line - 2 - behind;
        self.fields.push(Place {
            name: (at, at + colon),
            value: (end - (kept.len() - behind), end),
        });
        match name.len() {
            2 if name.eq_ignore_ascii_case(b"te") => {
                self.manners.trailers |= has_option(value, b"trailers");
            }
            4 if name.eq_ignore_ascii_case(b"host") => {
                self.hosts += 1;
                if self.hosts > 1 || value.trim_ascii().is_empty() {
                    return Err(Reject::BadHost);
                }
            }
            6 if name.eq_ignore_ascii_case(b"expect") => {
                self.manners.expects |= value.trim_ascii().eq_ignore_ascii_case(b"100-continue");
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                self.manners.closes |= has_option(value, b"close");
                self.manners.stays |= has_option(value, b"keep-alive");
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if self.length.is_some() {
                    return Err(Reject::BadRequest("Content-Length is repeated"));
                }
                self.length = Some(length_of(value)?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                let coding = value.trim_ascii();
                if self.chunked || coding.is_empty() {
                    return Err(Reject::BadRequest("Transfer-Encoding is repeated or empty"));
                }
                if !coding.eq_ignore_ascii_case(b"chunked") {
                    return Err(refused_coding(coding));
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// What the head says about its connection. Call it when all of it is scanned.
    pub(super) fn manners(&self) -> Manners {
        self.manners
    }

    /// The request with this head, which must be scanned completely; field values are slices of it. `spare` is an empty
    /// map to reuse. Afterwards the scan is ready for the next head.
    ///
    /// # Errors
    /// The head contains something that `http` rejects.
    pub(super) fn request<B>(
        &mut self,
        head: &Bytes,
        body: B,
        spare: HeaderMap,
    ) -> Result<Box<Request<B>>, Reject> {
        // Boxed from the start, because it is moved several times.
        let mut request = Box::new(Request::new(body));
        let method = Method::from_bytes(head.get(self.method.clone()).unwrap_or_default());
        *request.method_mut() =
            method.map_err(|_| Reject::BadRequest("the method is malformed"))?;
        let (uri, query) = target::read(head, self.target.clone())?;
        *request.uri_mut() = uri;
        if let Some(query) = query {
            target::mark(&mut request, query);
        }
        if self.manners.http_1_0 {
            *request.version_mut() = Version::HTTP_10;
        }
        let mut headers = spare;
        headers.reserve(self.fields.len());
        for place in &self.fields {
            let name = head.get(place.name.0..place.name.1).unwrap_or_default();
            let name = name_of(name)
                .map_err(|_| Reject::BadRequest("a header field's name is malformed"))?;
            let value = HeaderValue::from_maybe_shared(head.slice(place.value.0..place.value.1))
                .map_err(|_| {
                    Reject::BadRequest("a header field's value holds a control character")
                })?;
            headers.append(name, value);
        }
        *request.headers_mut() = headers;
        self.begin_again();
        Ok(request)
    }

    /// Starts with the next head.
    pub(super) fn begin_again(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self {
            fields,
            ..Self::default()
        };
    }

    fn end(&self) -> Result<Head, Reject> {
        if self.hosts == 0 && !self.manners.http_1_0 {
            return Err(Reject::BadHost);
        }
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Reject::BadRequest(
                "both Content-Length and Transfer-Encoding are given",
            )),
            (true, None) if self.manners.http_1_0 => {
                Err(Reject::BadRequest("HTTP/1.0 has no Transfer-Encoding"))
            }
            (true, None) => Ok(Head::Chunked),
            (false, None | Some(0)) => Ok(Head::NoBody),
            (false, Some(length)) => Ok(Head::Length(length)),
        }
    }
}

/// Represents a request whose head is rejected, with the method and the path of its first line if they can be read.
/// Only the bytes that made the line too long are examined, so that the result does not depend on how they were split
/// into reads.
pub(super) fn refused<B>(head: &[u8], limits: &Limits, body: B) -> Box<Request<B>> {
    let mut request = Box::new(Request::new(body));
    let longest = longest_line(limits).min(limits.header_bytes);
    let (begun, is_cut) = match head.get(..=longest) {
        Some(begun) => (begun, true),
        None => (head, false),
    };
    let begun = begun.strip_prefix(b"\r\n").unwrap_or(begun);
    let line = match memchr::memchr(b'\n', begun) {
        Some(feed) => begun.get(..feed).unwrap_or_default(),
        None if is_cut => begun,
        // The rest of the line is not known.
        None => return request,
    };
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let Some((method, rest)) = memchr::memchr(b' ', line).and_then(|at| line.split_at_checked(at))
    else {
        return request;
    };
    let Some(method) = Method::from_bytes(method).ok() else {
        return request;
    };
    let rest = rest.strip_prefix(b" ").unwrap_or(rest);
    let target_ends = memchr::memmem::rfind(rest, b" HTTP/").unwrap_or(rest.len());
    let (target, version) = rest.split_at_checked(target_ends).unwrap_or_default();
    *request.method_mut() = method;
    *request.uri_mut() = target::legible(target, limits.uri_bytes);
    if version == b" HTTP/1.0" {
        *request.version_mut() = Version::HTTP_10;
    }
    request
}

/// The longest permitted request line: method, version and line end besides the target.
fn longest_line(limits: &Limits) -> usize {
    limits.uri_bytes.saturating_add(64)
}

/// Parses the value of `Content-Length`.
///
/// # Errors
/// It is not a number, or is ambiguous.
pub(super) fn length_of(value: &[u8]) -> Result<u64, Reject> {
    let digits = value.trim_ascii();
    // Some parsers read a leading zero as octal.
    let zeros = digits.len() > 1 && digits.starts_with(b"0");
    decimal(digits)
        .filter(|_| !zeros)
        .ok_or(Reject::BadRequest("Content-Length is not a number"))
}

/// The number that these decimal digits mean; `None` for anything else, and where it does not fit.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    let number = digits.iter().try_fold(0_u64, |number, byte| {
        let digit = char::from(*byte).to_digit(10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    });
    number.filter(|_| !digits.is_empty())
}

/// Whether a list of options contains this one.
fn has_option(value: &[u8], option: &[u8]) -> bool {
    let mut options = value.split(|byte| *byte == b',');
    options.any(|word| word.trim_ascii().eq_ignore_ascii_case(option))
}

/// 501 for an unknown coding; 400 if `chunked` is not last, or repeated (RFC 9112 section 6.3).
fn refused_coding(codings: &[u8]) -> Reject {
    let mut names = codings.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let malformed = |name: &[u8]| {
        let plain = |byte: &u8| TOKEN.has(*byte) || matches!(byte, b';' | b'=' | b' ');
        name.is_empty() || !name.iter().all(plain)
    };
    let last = names.next_back().unwrap_or_default();
    let misused = names.any(|name| malformed(name) || name.eq_ignore_ascii_case(b"chunked"));
    if misused || malformed(last) {
        Reject::BadRequest("Transfer-Encoding is malformed")
    } else {
        Reject::UnknownTransferCoding
    }
}

/// White space around a field's value (RFC 9110 section 5.6.3), and no other.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[cfg(test)]
mod tests;
