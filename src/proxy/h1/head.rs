//! Message heads: writes those of requests, and parses those of responses (RFC 9112 sections 2 to 6) if they are
//! unambiguous. Bytes in, bytes out: nothing here waits.

use std::mem::MaybeUninit;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use http_body::Body as _;
use hyper::ext::ReasonPhrase;

use super::{LONGEST_HEAD, Outgoing, RequestHead};
use crate::proxy::orders::{Orders, is_order};
use crate::proxy::reserved::is_hop_by_hop;
use crate::wire::{Framing, decimal, field, mend, name_of};

/// The most fields of a response.
const MOST_FIELDS: usize = 256;

/// The head of a response.
#[derive(Debug)]
pub(crate) struct AnswerHead {
    /// The status.
    pub(crate) status: StatusCode,
    /// The app's own reason phrase, if it has one.
    pub(crate) reason: Option<ReasonPhrase>,
    /// The fields, without those that belong to the app's connection, and without the length of a body that follows,
    /// which the sender adds. A response that switches protocols, or demands it, keeps its `Upgrade`.
    pub(crate) headers: HeaderMap,
    /// What the app says to the gateway alone.
    pub(crate) orders: Orders,
    /// How the body is framed.
    pub(super) framing: AnswerFraming,
    /// Whether the app keeps the connection open after this response.
    pub(super) keeps: bool,
    /// How long it keeps it open, less a second to avoid a race with its closing.
    pub(super) rests: Option<Duration>,
    /// What was read after the head.
    pub(super) rest: Bytes,
}

/// How the body of a response is framed (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum AnswerFraming {
    /// There is none.
    None,
    /// This many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// Everything until the app closes.
    UntilClose,
}

impl AnswerHead {
    /// Takes the bytes after the head of a response that switches protocols.
    pub(crate) fn take_rest(&mut self) -> Bytes {
        std::mem::take(&mut self.rest)
    }

    /// Whether there is no body.
    pub(crate) fn is_bodiless(&self) -> bool {
        matches!(self.framing, AnswerFraming::None | AnswerFraming::Length(0))
    }
}

/// What the received bytes begin with.
#[derive(Debug)]
pub(super) enum Parsed {
    /// An incomplete head.
    Partial,
    /// An interim response of this many bytes.
    Interim(usize),
    /// The head of the final response, of this many bytes.
    Final(Box<AnswerHead>, usize),
}

/// Writes a request's head, and returns how its body has to be framed.
pub(super) fn write(out: &mut Vec<u8>, head: RequestHead<'_>, body: &Outgoing) -> Framing {
    let framing = match (body, body.size_hint().exact()) {
        (Outgoing::Empty, _) => Framing::None,
        (_, Some(length)) => Framing::Length(length),
        (_, None) => Framing::Chunked { trailers: true },
    };
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in head.fields.iter() {
        // Not even from a configuration.
        if *name == header::CONTENT_LENGTH || *name == header::TRANSFER_ENCODING {
            continue;
        }
        field(out, name, value.bytes());
    }
    match framing {
        Framing::None => {
            // These methods are expected to have a body (RFC 9110 section 8.6).
            if matches!(*head.method, Method::POST | Method::PUT | Method::PATCH) {
                out.extend_from_slice(b"content-length: 0\r\n");
            }
        }
        Framing::Length(length) => {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(HeaderValue::from(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked { .. } => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        // A request cannot end like this.
        Framing::UntilClose => {}
    }
    out.extend_from_slice(b"\r\n");
    framing
}

/// Parses the head of a response from the bytes received so far; field values are slices of them. `spare` is an empty
/// map to reuse. Lines that violate RFC 9112 are normalised first.
///
/// # Errors
/// A description of the error, also if the body could be framed in two ways.
pub(super) fn parse(
    all: &Bytes,
    is_head: bool,
    spare: &mut Option<HeaderMap>,
) -> Result<Parsed, &'static str> {
    match read(all, is_head, spare) {
        Ok(parsed) => Ok(parsed),
        Err(Unread::For(what)) => Err(what),
        Err(Unread::OddLines) => read_mended(all, is_head, spare),
    }
}

/// Why a head was not parsed.
enum Unread {
    /// It has lines that the parser rejects.
    OddLines,
    /// It is invalid for this reason.
    For(&'static str),
}

impl From<&'static str> for Unread {
    fn from(what: &'static str) -> Self {
        Self::For(what)
    }
}

/// The same for a head whose lines have to be normalised.
fn read_mended(
    all: &Bytes,
    is_head: bool,
    spare: &mut Option<HeaderMap>,
) -> Result<Parsed, &'static str> {
    let within = all.get(..LONGEST_HEAD).unwrap_or(all);
    // Empty lines before a response are skipped.
    let empty = within
        .iter()
        .take_while(|byte| matches!(**byte, b'\r' | b'\n'));
    let empty = empty.count();
    let behind = within.get(empty..).unwrap_or_default();
    let Some(feed) = memchr::memchr(b'\n', behind) else {
        return Ok(Parsed::Partial);
    };
    let (line, lines) = behind.split_at_checked(feed + 1).unwrap_or_default();
    let mended = mend(lines)?;
    let Some(length) = mended.length else {
        return Ok(Parsed::Partial);
    };
    let length = empty + line.len() + length;
    let text = Bytes::from([line, &mended.text].concat());
    match read(&text, is_head, spare) {
        Ok(Parsed::Final(head, _)) => Ok(Parsed::Final(head, length)),
        Ok(Parsed::Interim(_)) => Ok(Parsed::Interim(length)),
        Ok(Parsed::Partial) | Err(Unread::OddLines) => Err("the head is malformed"),
        Err(Unread::For(what)) => Err(what),
    }
}

fn read(all: &Bytes, is_head: bool, spare: &mut Option<HeaderMap>) -> Result<Parsed, Unread> {
    let bytes = all.as_ref();
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    // A head that is too long is rejected even if all of it has been received.
    let within = bytes.get(..LONGEST_HEAD).unwrap_or(bytes);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        within,
        &mut fields,
    );
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(Parsed::Partial),
        Err(httparse::Error::TooManyHeaders) => return Err("there are too many fields".into()),
        Err(httparse::Error::HeaderName | httparse::Error::HeaderValue) => {
            return Err(Unread::OddLines);
        }
        Err(
            httparse::Error::NewLine
            | httparse::Error::Status
            | httparse::Error::Token
            | httparse::Error::Version,
        ) => return Err("the head is malformed".into()),
    };
    let status = response
        .code
        .and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or("the status is malformed")?;
    if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
        // What follows would be read as the final response.
        if response.headers.iter().any(announces_body) {
            return Err("an interim response announces a body".into());
        }
        return Ok(Parsed::Interim(length));
    }
    let is_1_0 = response.version == Some(0);
    let mut headers = spare.take().unwrap_or_default();
    headers.reserve(response.headers.len() + 4);
    let mut own = Own::default();
    let mut orders = Orders::default();
    for field in response.headers.iter() {
        let name = name_of(field.name.as_bytes());
        let name = name.map_err(|_| "a field's name is malformed")?;
        if !own.take(&name, field.value, status)? {
            continue;
        }
        let is_order = is_order(name.as_str());
        let from = (field.value.as_ptr() as usize).wrapping_sub(bytes.as_ptr() as usize);
        let to = from.saturating_add(field.value.len());
        let value = if to <= all.len() {
            HeaderValue::from_maybe_shared(all.slice(from..to))
        } else {
            HeaderValue::from_bytes(field.value)
        };
        let value = value.map_err(|_| "a field's value is malformed")?;
        if is_order {
            orders.add(name, value);
        } else {
            headers.append(name, value);
        }
    }
    for name in &own.named {
        headers.remove(name);
    }
    let framing = own.framing(status, is_head, is_1_0)?;
    let follows = matches!(framing, AnswerFraming::Length(1..));
    if let Some(length) = own.length.filter(|_| !follows) {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    let own_words = response
        .reason
        .filter(|reason| !reason.is_empty() && Some(*reason) != status.canonical_reason());
    let stays = !own.closes && (!is_1_0 || own.stays);
    let head = Box::new(AnswerHead {
        status,
        reason: own_words.and_then(|reason| ReasonPhrase::try_from(reason.as_bytes()).ok()),
        keeps: stays && framing != AnswerFraming::UntilClose && own.ends_here(framing, is_head),
        rests: own.rests,
        headers,
        orders,
        framing,
        rest: Bytes::new(),
    });
    Ok(Parsed::Final(head, length))
}

/// What the fields say about the connection and the framing of the body.
#[derive(Default)]
struct Own {
    length: Option<u64>,
    chunked: bool,
    closes: bool,
    stays: bool,
    rests: Option<Duration>,
    /// The fields that `Connection` names.
    named: Vec<HeaderName>,
}

impl Own {
    /// Processes a field, and returns whether it is forwarded unchanged.
    fn take(
        &mut self,
        name: &HeaderName,
        value: &[u8],
        status: StatusCode,
    ) -> Result<bool, &'static str> {
        if *name == header::CONTENT_LENGTH {
            // Repeating the same number, on another line or in a list, changes nothing (RFC 9110 section 8.6).
            for digits in value.split(|byte| *byte == b',') {
                let number = length(digits.trim_ascii())?;
                if self.length.is_some_and(|known| known != number) {
                    return Err("there are two Content-Lengths");
                }
                self.length = Some(number);
            }
            return Ok(false);
        }
        if *name == header::TRANSFER_ENCODING {
            // The body ends at the same place, however often this is repeated.
            let mut codings = value.split(|byte| *byte == b',');
            if !codings.all(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"chunked")) {
                return Err("Transfer-Encoding is not chunked alone");
            }
            self.chunked = true;
            return Ok(false);
        }
        if *name == header::CONNECTION {
            for option in value.split(|byte| *byte == b',') {
                self.option(option.trim_ascii());
            }
            return Ok(false);
        }
        let text = name.as_str();
        if text == "keep-alive" {
            self.rests = rests(value);
            return Ok(false);
        }
        // 426 has to name the protocol (RFC 9110 section 15.5.22).
        let switches = matches!(
            status,
            StatusCode::SWITCHING_PROTOCOLS | StatusCode::UPGRADE_REQUIRED
        );
        Ok((switches && *name == header::UPGRADE) || !is_hop_by_hop(text))
    }

    /// One option of `Connection` (RFC 9110 section 7.6.1).
    fn option(&mut self, option: &[u8]) {
        if option.eq_ignore_ascii_case(b"keep-alive") {
            self.stays = true;
        } else if option.eq_ignore_ascii_case(b"close") {
            self.closes = true;
        } else if let Ok(name) = HeaderName::from_bytes(option) {
            if name != header::CONTENT_LENGTH && name != header::UPGRADE {
                self.named.push(name);
            }
        }
    }

    /// Whether nothing follows a response that has no body. Some servers send one all the same: the one that they
    /// announced or, for HEAD without a length, any.
    fn ends_here(&self, framing: AnswerFraming, is_head: bool) -> bool {
        match framing {
            AnswerFraming::None if is_head => self.length == Some(0),
            AnswerFraming::None => !self.chunked && self.length.is_none_or(|length| length == 0),
            AnswerFraming::Length(_) | AnswerFraming::Chunked | AnswerFraming::UntilClose => true,
        }
    }

    /// How the body is framed (RFC 9112 section 6.3).
    fn framing(
        &self,
        status: StatusCode,
        is_head: bool,
        is_1_0: bool,
    ) -> Result<AnswerFraming, &'static str> {
        let bodiless = is_head
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED
            || status == StatusCode::SWITCHING_PROTOCOLS;
        match (self.chunked, self.length) {
            (true, Some(_)) => Err("both Content-Length and Transfer-Encoding are given"),
            (true, None) if is_1_0 => Err("HTTP/1.0 has no Transfer-Encoding"),
            _ if bodiless => Ok(AnswerFraming::None),
            (true, None) => Ok(AnswerFraming::Chunked),
            (false, Some(length)) => Ok(AnswerFraming::Length(length)),
            (false, None) => Ok(AnswerFraming::UntilClose),
        }
    }
}

/// `timeout=N` of a `Keep-Alive` field, less one second. RFC 2068 section 19.7.1.1 defines the field; no later RFC
/// does, but app servers send it.
fn rests(value: &[u8]) -> Option<Duration> {
    let seconds = std::str::from_utf8(value)
        .ok()?
        .split(',')
        .find_map(|part| {
            let (name, value) = part.split_once('=')?;
            let is_timeout = name.trim().eq_ignore_ascii_case("timeout");
            is_timeout.then(|| value.trim().trim_matches('"').parse::<u64>().ok())?
        })?;
    Some(Duration::from_secs(seconds.saturating_sub(1)))
}

/// Whether a field announces a body, which one of an interim response must not (RFC 9110 section 8.6).
fn announces_body(field: &httparse::Header<'_>) -> bool {
    let is = |name: &HeaderName| field.name.eq_ignore_ascii_case(name.as_str());
    let mut lengths = field.value.split(|byte| *byte == b',');
    is(&header::TRANSFER_ENCODING)
        || (is(&header::CONTENT_LENGTH)
            && lengths.any(|digits| length(digits.trim_ascii()) != Ok(0)))
}

fn length(digits: &[u8]) -> Result<u64, &'static str> {
    decimal(digits).ok_or("Content-Length is not a number")
}
