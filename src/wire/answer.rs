//! Writes the head of an HTTP/1.1 response (RFC 9112 section 4) and chooses the framing of its body (section 6).
//! Produces bytes; nothing here waits.

use http::header;
use http::response::Parts;
use http::{Method, StatusCode};
use http_body::SizeHint;
use hyper::ext::ReasonPhrase;

use super::head::Manners;
use super::send::{Framing, field};
use crate::clock;

/// The request that a response belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct To {
    /// Whether its method is HEAD.
    pub(super) is_head: bool,
    /// What it says about its connection.
    pub(super) manners: Manners,
}

impl To {
    /// For a request with this method.
    pub(super) fn new(method: &Method, manners: Manners) -> Self {
        Self {
            is_head: *method == Method::HEAD,
            manners,
        }
    }
}

/// How the body of a response is framed (RFC 9112 section 6.3).
pub(super) fn framing(to: To, status: StatusCode, hint: &SizeHint) -> Framing {
    if to.is_head || is_bodiless(status) {
        return Framing::None;
    }
    match hint.exact() {
        Some(length) => Framing::Length(length),
        None if to.manners.http_1_0 => Framing::UntilClose,
        None => Framing::Chunked {
            trailers: to.manners.trailers,
        },
    }
}

/// Status codes whose responses never have a body, whatever the request.
fn is_bodiless(status: StatusCode) -> bool {
    status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
}

/// Writes the head and returns whether the connection stays open after it: it does if it `may_stay` and the response
/// does not say otherwise. `at` is the time in milliseconds since the connection began.
pub(super) fn write(
    out: &mut Vec<u8>,
    to: To,
    parts: &Parts,
    (hint, framing): (&SizeHint, Framing),
    may_stay: bool,
    (date, at): (&mut DateLine, u64),
) -> bool {
    let mut keeps = may_stay;
    let switches = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    status_line(out, to, parts);
    let (mut dated, mut offers) = (false, false);
    let mut length = None;
    for (name, value) in &parts.headers {
        match *name {
            header::CONTENT_LENGTH => {
                length = Some(value);
                continue;
            }
            header::TRANSFER_ENCODING => continue,
            header::CONNECTION if !switches => {
                keeps &= !value.as_bytes().eq_ignore_ascii_case(b"close");
                continue;
            }
            header::DATE => dated = true,
            // HTTP/1.0 has no `Upgrade` (RFC 9110 section 7.8).
            header::UPGRADE if to.manners.http_1_0 => continue,
            header::UPGRADE => offers = !switches,
            _ => {}
        }
        field(out, name, value.as_bytes());
    }
    match framing {
        Framing::Length(length) => content_length(out, length),
        Framing::Chunked { .. } => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::UntilClose => {}
        // The length that the body of a GET would have, if known.
        Framing::None if to.is_head || parts.status == StatusCode::NOT_MODIFIED => {
            match (length, hint.exact()) {
                (Some(length), _) => field(out, &header::CONTENT_LENGTH, length.as_bytes()),
                (None, Some(length)) if length > 0 => content_length(out, length),
                (None, _) => {}
            }
        }
        Framing::None => {}
    }
    if offers {
        out.extend_from_slice(b"connection: upgrade\r\n");
    }
    if !keeps && !switches {
        out.extend_from_slice(b"connection: close\r\n");
    } else if to.manners.http_1_0 {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
    if !dated {
        date.write(out, at);
    }
    out.extend_from_slice(b"\r\n");
    keeps
}

fn status_line(out: &mut Vec<u8>, to: To, parts: &Parts) {
    let reason = parts.extensions.get::<ReasonPhrase>();
    if parts.status == StatusCode::OK && reason.is_none() && !to.manners.http_1_0 {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.extend_from_slice(if to.manners.http_1_0 {
        b"HTTP/1.0 "
    } else {
        b"HTTP/1.1 "
    });
    out.extend_from_slice(parts.status.as_str().as_bytes());
    out.push(b' ');
    match reason {
        Some(reason) => out.extend_from_slice(reason.as_bytes()),
        None => {
            let canonical = parts.status.canonical_reason().unwrap_or("Unknown");
            out.extend_from_slice(canonical.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
}

fn content_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"content-length: ");
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The `Date` line (RFC 9110 section 6.6.1). It is formatted, and the clock read, once a second.
#[derive(Debug, Default)]
pub(super) struct DateLine {
    /// When its second is over, in milliseconds since the connection began.
    until: u64,
    text: Vec<u8>,
}

impl DateLine {
    /// Writes it; `at` is the time in milliseconds since the connection began.
    fn write(&mut self, out: &mut Vec<u8>, at: u64) {
        if at >= self.until || self.text.is_empty() {
            let now = clock::now();
            let (_, millis) = clock::since_epoch(now);
            self.until = at + 1000 - u64::from(millis);
            self.text = format!("date: {}\r\n", httpdate::fmt_http_date(now)).into();
        }
        out.extend_from_slice(&self.text);
    }
}
