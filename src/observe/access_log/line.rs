//! Formats one access record.

use std::io::Write;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, Version};
use tokio::time::Instant;

use crate::clock;
use crate::message::alphabet::Alphabet;
use crate::message::request_id::RequestId;

/// The bytes that a JSON string may contain as they are.
static UNESCAPED: Alphabet = Alphabet::without_controls_and(b"\"\\");

/// The values of one access record.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    /// When the request began.
    pub(crate) time: SystemTime,
    /// The request's id.
    pub(crate) id: RequestId,
    /// The client's address; `None` on a Unix socket.
    pub(crate) client: Option<&'a str>,
    /// The method.
    pub(crate) method: &'a Method,
    /// The host as the client wrote it.
    pub(crate) host: &'a str,
    /// The path as the client wrote it, without the query.
    pub(crate) path: &'a str,
    /// The HTTP version.
    pub(crate) version: Version,
    /// Whether the client used TLS.
    pub(crate) tls: bool,
    /// The status.
    pub(crate) status: u16,
    /// The reason code of a refusal or of a response that broke off.
    pub(crate) reason: Option<&'static str>,
    /// The reason code for which the request would have been refused, on a route that only reports refusals.
    pub(crate) reported: Option<&'static str>,
    /// The limit that the request exceeded, or would have.
    pub(crate) limit: Option<&'a str>,
    /// The route's name.
    pub(crate) route: Option<&'a str>,
    /// The upstream's name.
    pub(crate) upstream: Option<&'a str>,
    /// The server that was tried last, of an upstream that has several.
    pub(crate) server: Option<&'a str>,
    /// How often a server was tried.
    pub(crate) tries: u32,
    /// How long the request waited for a server.
    pub(crate) queued: Duration,
    /// The coding of the response, or why it has none.
    pub(crate) encoding: Option<&'static str>,
    /// The token's subject.
    pub(crate) subject: Option<&'a str>,
    /// The id that a PROXY header gave the connection.
    pub(crate) proxy_id: Option<&'a str>,
    /// The subject of the client's certificate.
    pub(crate) certificate: Option<&'a str>,
    /// Bytes of the response body.
    pub(crate) bytes: u64,
    /// When the request's head arrived, on the monotonic clock.
    pub(crate) began: Instant,
    /// When the response's head was ready.
    pub(crate) first_byte: Instant,
    /// When the response ended.
    pub(crate) ended: Instant,
    /// `Referer` and `User-Agent`, where the format includes them.
    pub(crate) agent: Option<&'a (Option<HeaderValue>, Option<HeaderValue>)>,
}

/// The cached text of the current second.
#[derive(Debug, Default)]
pub(crate) struct Stamp {
    second: u64,
    text: Vec<u8>,
}

impl Stamp {
    /// The text of this second, which `make` formats once. All calls on one stamp must use the same `make`.
    fn at(&mut self, second: u64, make: impl FnOnce(u64) -> String) -> &[u8] {
        if self.second != second || self.text.is_empty() {
            self.second = second;
            self.text = make(second).into();
        }
        &self.text
    }
}

/// `2026-11-27T20:15:00`
fn iso(second: u64) -> String {
    let (year, month, day, hour, minute, rest) = clock::civil(second);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{rest:02}")
}

/// `27/Nov/2026:20:15:00 +0000`
fn apache(second: u64) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (year, month, day, hour, minute, rest) = clock::civil(second);
    let month = usize::try_from(month)
        .ok()
        .and_then(|month| MONTHS.get(month.wrapping_sub(1)));
    let month = month.copied().unwrap_or("-");
    format!("{day:02}/{month}/{year}:{hour:02}:{minute:02}:{rest:02} +0000")
}

fn number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn milliseconds(out: &mut Vec<u8>, duration: Duration) {
    number(
        out,
        duration.as_secs() * 1000 + u64::from(duration.subsec_millis()),
    );
    out.push(b'.');
    thousandths(out, duration.subsec_micros() % 1000);
}

/// Three digits.
fn thousandths(out: &mut Vec<u8>, value: u32) {
    let digit = |value: u32| b'0' + u8::try_from(value % 10).unwrap_or_default();
    out.extend_from_slice(&[digit(value / 100), digit(value / 10), digit(value)]);
}

/// A JSON string with its quotes.
fn quoted(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    if text.bytes().all(|byte| UNESCAPED.has(byte)) {
        out.extend_from_slice(text.as_bytes());
    } else {
        for c in text.chars() {
            match c {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                c if c.is_control() => escape(out, format_args!("\\u{:04x}", u32::from(c))),
                c => escape(out, format_args!("{c}")),
            }
        }
    }
    out.push(b'"');
}

/// Formats into memory, which cannot fail.
fn escape(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    if out.write_fmt(text).is_err() {
        out.push(b'?');
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

impl Entry<'_> {
    /// Writes a JSON object and a line end.
    pub(crate) fn json(&self, out: &mut Vec<u8>, stamp: &mut Stamp) {
        let (second, millis) = clock::since_epoch(self.time);
        out.reserve(512);
        out.extend_from_slice(b"{\"time\":\"");
        out.extend_from_slice(stamp.at(second, iso));
        out.push(b'.');
        thousandths(out, millis);
        out.extend_from_slice(b"Z\",\"id\":\"");
        out.extend_from_slice(&self.id.digits());
        out.extend_from_slice(b"\",\"client\":\"");
        out.extend_from_slice(self.client.unwrap_or("unix").as_bytes());
        // A method is a token, in which nothing has to be escaped.
        out.extend_from_slice(b"\",\"method\":\"");
        out.extend_from_slice(self.method.as_str().as_bytes());
        out.extend_from_slice(b"\",\"host\":");
        quoted(out, self.host);
        out.extend_from_slice(b",\"path\":");
        quoted(out, self.path);
        out.extend_from_slice(b",\"protocol\":\"");
        out.extend_from_slice(protocol(self.version).as_bytes());
        out.extend_from_slice(if self.tls {
            b"\",\"tls\":true"
        } else {
            b"\",\"tls\":false"
        });
        out.extend_from_slice(b",\"status\":");
        number(out, u64::from(self.status));
        let mut field = |name: &[u8], value: Option<&str>| {
            if let Some(value) = value {
                out.extend_from_slice(name);
                quoted(out, value);
            }
        };
        field(b",\"reason\":", self.reason);
        field(b",\"would_refuse\":", self.reported);
        field(b",\"limit\":", self.limit);
        field(b",\"route\":", self.route);
        field(b",\"upstream\":", self.upstream);
        field(b",\"server\":", self.server);
        field(b",\"encoding\":", self.encoding);
        field(b",\"sub\":", self.subject);
        field(b",\"proxy_id\":", self.proxy_id);
        field(b",\"certificate\":", self.certificate);
        if self.tries > 1 {
            out.extend_from_slice(b",\"tries\":");
            number(out, u64::from(self.tries));
        }
        if !self.queued.is_zero() {
            out.extend_from_slice(b",\"queued_ms\":");
            milliseconds(out, self.queued);
        }
        out.extend_from_slice(b",\"bytes\":");
        number(out, self.bytes);
        out.extend_from_slice(b",\"first_byte_ms\":");
        milliseconds(out, self.first_byte.duration_since(self.began));
        out.extend_from_slice(b",\"duration_ms\":");
        milliseconds(out, self.ended.duration_since(self.began));
        out.extend_from_slice(b"}\n");
    }

    /// Writes a line of Apache's combined format.
    pub(crate) fn combined(&self, out: &mut Vec<u8>, stamp: &mut Stamp) {
        let (second, _) = clock::since_epoch(self.time);
        out.reserve(256);
        out.extend_from_slice(self.client.unwrap_or("unix").as_bytes());
        out.extend_from_slice(b" - ");
        spaced(out, self.subject.unwrap_or("-"));
        out.extend_from_slice(b" [");
        out.extend_from_slice(stamp.at(second, apache));
        out.extend_from_slice(b"] \"");
        out.extend_from_slice(self.method.as_str().as_bytes());
        out.push(b' ');
        spaced(out, self.path);
        out.push(b' ');
        out.extend_from_slice(protocol(self.version).as_bytes());
        out.extend_from_slice(b"\" ");
        number(out, u64::from(self.status));
        out.push(b' ');
        number(out, self.bytes);
        let (referer, agent) = self.agent.map_or((&None, &None), |(r, a)| (r, a));
        for value in [referer, agent] {
            let text = value.as_ref().and_then(|value| value.to_str().ok());
            // The query may contain a token.
            let text = text.and_then(|text| text.split('?').next());
            out.push(b' ');
            quoted(out, text.unwrap_or("-"));
        }
        out.push(b'\n');
    }
}

/// Writes a text without spaces, quotes or control characters.
fn spaced(out: &mut Vec<u8>, text: &str) {
    let plain = |byte: u8| (byte > b' ') & (byte < 0x7f) & (byte != b'"');
    // Without an early exit the loop is vectorised.
    if text.bytes().fold(true, |all, byte| all & plain(byte)) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    for c in text.chars() {
        let c = if c.is_whitespace() || c.is_control() || c == '"' {
            '_'
        } else {
            c
        };
        escape(out, format_args!("{c}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry<'static> {
        let began = Instant::now();
        Entry {
            time: std::time::UNIX_EPOCH + Duration::from_millis(951_827_696_007),
            id: RequestId(0xab),
            client: Some("203.0.113.9"),
            method: &Method::GET,
            host: "h",
            path: "/a\"b",
            version: Version::HTTP_11,
            tls: true,
            status: 401,
            reason: Some("token_missing"),
            reported: None,
            limit: None,
            route: Some("api"),
            upstream: None,
            server: None,
            tries: 1,
            queued: Duration::ZERO,
            encoding: None,
            subject: None,
            proxy_id: None,
            certificate: None,
            bytes: 12,
            began,
            first_byte: began + Duration::from_micros(7),
            ended: began + Duration::from_micros(12_034),
            agent: None,
        }
    }

    #[test]
    fn json_lines_parse_and_say_what_happened() {
        let mut out = Vec::new();
        entry().json(&mut out, &mut Stamp::default());
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["time"], "2000-02-29T12:34:56.007Z");
        assert_eq!(value["path"], "/a\"b");
        assert_eq!(value["duration_ms"], 12.034);
        assert_eq!(value["first_byte_ms"], 0.007);
        assert_eq!(value["id"], "00000000000000ab");
        assert_eq!(value.get("sub"), None);
        assert!(out.ends_with(b"}\n"));
    }

    #[test]
    fn combined_lines_cannot_be_broken_by_a_path() {
        let mut out = Vec::new();
        entry().combined(&mut out, &mut Stamp::default());
        let text = String::from_utf8(out).unwrap();
        let expected = "203.0.113.9 - - [29/Feb/2000:12:34:56 +0000] \"GET /a_b HTTP/1.1\" 401 12 \"-\" \"-\"\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn combined_lines_name_referer_and_agent_without_queries() {
        let agent = (
            Some(HeaderValue::from_static("https://a.test/x?token=1")),
            Some(HeaderValue::from_static("agent \"1\"")),
        );
        let entry = Entry {
            subject: Some("al ice"),
            agent: Some(&agent),
            ..entry()
        };
        let (mut out, mut stamp) = (Vec::new(), Stamp::default());
        entry.combined(&mut out, &mut stamp);
        let later = Entry {
            time: entry.time + Duration::from_secs(1),
            ..entry
        };
        later.combined(&mut out, &mut stamp);
        let text = String::from_utf8(out).unwrap();
        let line = |second| {
            format!(
                "203.0.113.9 - al_ice [29/Feb/2000:12:34:{second} +0000] \"GET /a_b HTTP/1.1\" 401 12 \"https://a.test/x\" \"agent \\\"1\\\"\"\n"
            )
        };
        assert_eq!(text, [line(56), line(57)].concat());
    }
}
