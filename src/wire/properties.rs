//! What holds for whatever a client sends: the cuts make no difference, and hyper reads what is let
//! pass as a reader does that knows nothing of either. For tests and `fuzz/`.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "whatever does not hold stops the test"
)]

use std::cell::RefCell;
use std::convert::Infallible;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncReadExt;

use super::*;
use crate::limits::{Limits, Timeouts};
use crate::script::{Script, cut, drive};

/// So small that a few bytes reach them.
pub(super) const LIMITS: Limits = Limits {
    connections: 10,
    connections_per_ip: 10,
    header_bytes: 1000,
    header_count: 10,
    uri_bytes: 200,
    body_bytes: 100,
};
pub(super) const TIMEOUTS: Timeouts = Timeouts {
    header_read: Duration::from_secs(10),
    body_read: Duration::from_secs(10),
    keep_alive: Duration::from_secs(75),
    tls_handshake: Duration::from_secs(10),
    send: Duration::from_secs(60),
    shutdown: Duration::from_secs(10),
};

/// What the wire makes of a client's bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Passed {
    /// What hyper is given, the stand-in of a refused head included.
    pub(super) bytes: Vec<u8>,
    pub(super) refusal: Option<Reject>,
    end: End,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    /// The connection is kept.
    Open,
    /// The client's end is passed on.
    Closed,
    /// A body is broken.
    Broken,
    /// It is HTTP/2.
    Http2,
}

/// Those that the tests' connections keep.
pub(super) fn bounds() -> Arc<Bounds> {
    Arc::new(Bounds {
        limits: LIMITS,
        timeouts: TIMEOUTS,
    })
}

/// Sends the pieces, and gives what comes through until there is nothing more, `room` at a time.
pub(super) fn through(pieces: Vec<Vec<u8>>, closes: bool, room: usize) -> Passed {
    let length = pieces.iter().map(Vec::len).sum();
    let line = Arc::new(Line::new());
    let mut wire = Wire::new(Script::new(pieces, closes), Arc::clone(&line), bounds());
    let mut bytes = Vec::new();
    let end = drive(length, async {
        match wire.sniff().await {
            Ok(Opening::Http1) => {}
            Ok(Opening::Http2) => return End::Http2,
            Ok(Opening::Nothing) => return End::Open,
            Err(_) => return End::Closed,
        }
        let mut room = vec![0; room];
        loop {
            match wire.read(&mut room).await {
                Ok(0) => return End::Closed,
                Ok(read) => bytes.extend_from_slice(&room[..read]),
                Err(_) => return End::Broken,
            }
        }
    });
    Passed {
        bytes,
        refusal: line.refusal(),
        end: end.unwrap_or(End::Open),
    }
}

/// A client sends these bytes, cut as the seed says: the cuts make no difference, and hyper hears
/// the requests that are in what the wire lets pass.
#[track_caller]
pub(crate) fn request_holds(bytes: &[u8], seed: u8, closes: bool) {
    let room = [7, 64, 300, 4096][usize::from(seed / 4 % 4)];
    let whole = through(vec![bytes.to_vec()], closes, 64 * 1024);
    let pieces = cut(bytes, seed);
    let pieced = through(pieces.clone(), closes, room);
    assert_eq!(
        (whole.refusal, whole.end),
        (pieced.refusal, pieced.end),
        "{:?} in pieces",
        bytes.escape_ascii().to_string()
    );
    let expected = requests(&whole);
    if whole.end == End::Broken {
        // How much comes before the break depends on when it is seen.
        assert!(whole.bytes.starts_with(&pieced.bytes) || pieced.bytes.starts_with(&whole.bytes));
        assert_eq!(expected, requests(&pieced));
    } else {
        assert_eq!(whole.bytes, pieced.bytes);
    }
    if whole.end == End::Http2 {
        return;
    }
    let passed = whole.bytes.strip_suffix(STAND_IN).unwrap_or(&whole.bytes);
    assert!(bytes.starts_with(passed), "it is passed as it came");
    for pieces in [vec![bytes.to_vec()], pieces] {
        let heard = heard(pieces, closes, &whole, expected.len());
        assert!(heard.len() <= expected.len(), "{heard:?}");
        for (heard, expected) in heard.iter().zip(&expected) {
            assert_eq!(heard, expected);
        }
        // hyper reads on unless it, too, reads that the client wants to close.
        let closed = heard.last().is_some_and(Request::may_close);
        assert!(
            closed || heard.len() == expected.len(),
            "{heard:?}, not {expected:?}"
        );
    }
}

/// A request; `body` is `None` where it is not all there.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Request {
    method: Method,
    target: Uri,
    fields: HeaderMap,
    body: Option<Vec<u8>>,
    version: http::Version,
}

impl Request {
    fn may_close(&self) -> bool {
        let options = self.fields.get_all(http::header::CONNECTION);
        let mut options = options
            .iter()
            .flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
        self.version == http::Version::HTTP_10
            || options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
    }
}

/// What hyper's server hears through the wire.
fn heard(pieces: Vec<Vec<u8>>, closes: bool, whole: &Passed, count: usize) -> Vec<Request> {
    let length: usize = pieces.iter().map(Vec::len).sum();
    let line = Arc::new(Line::new());
    let script = Script::new(pieces, closes);
    let mut wire = Wire::new(script, Arc::clone(&line), bounds());
    let heard = RefCell::new(Vec::new());
    let service = service_fn(async |request: http::Request<Incoming>| {
        line.enter();
        let (head, mut body) = request.into_parts();
        let at = heard.borrow().len();
        let refused = line.refusal_of(&head.headers).is_some();
        heard.borrow_mut().push(Request {
            method: head.method,
            target: head.uri,
            fields: head.headers.clone(),
            body: None,
            version: head.version,
        });
        let own = head
            .headers
            .get("host")
            .is_some_and(|host| host == "refused");
        assert!(!refused || own || (at + 1 == count && whole.end == End::Broken));
        let mut data = Vec::new();
        let complete = loop {
            match body.frame().await {
                None => break true,
                Some(Err(_)) => break false,
                Some(Ok(frame)) => {
                    data.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                }
            }
        };
        if let Some(last) = heard.borrow_mut().last_mut() {
            last.body = complete.then_some(data);
        }
        line.leave(Instant::now());
        let mut response = Response::new(Empty::<bytes::Bytes>::new());
        *response.status_mut() = StatusCode::NOT_FOUND;
        Ok::<_, Infallible>(response)
    });
    drive(length, async {
        if wire.sniff().await.is_ok() {
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(None);
            let served = builder.serve_connection(TokioIo::new(wire), service);
            served.with_upgrades().await.ok();
        }
    });
    heard.into_inner()
}

/// The requests in what the wire let pass, read naively.
fn requests(passed: &Passed) -> Vec<Request> {
    let mut requests = Vec::new();
    let mut rest = passed.bytes.as_slice();
    loop {
        rest = rest.strip_prefix(b"\r\n").unwrap_or(rest);
        let Some((head, behind)) = split_head(rest) else {
            assert!(rest.is_empty(), "a head is passed whole or not at all");
            return requests;
        };
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let mut words = line.split(|byte| *byte == b' ');
        let [method, target, version] = std::array::from_fn(|_| words.next().unwrap_or_default());
        let chunked = !values(head, "transfer-encoding").is_empty();
        let length = values(head, "content-length");
        let length = length.first().map_or(0, |digits| number(digits));
        let body = if chunked {
            dechunked(behind)
        } else {
            let body = usize::try_from(length).ok();
            let body = body.and_then(|length| behind.get(..length));
            body.map(|body| (body.to_vec(), body.len()))
        };
        let complete = body.is_some();
        rest = behind
            .get(body.as_ref().map_or(behind.len(), |body| body.1)..)
            .unwrap_or_default();
        requests.push(Request {
            method: Method::from_bytes(method).expect("a method"),
            target: Uri::try_from(target).expect("a target"),
            fields: fields(head),
            body: body.map(|body| body.0),
            version: match version {
                b"HTTP/1.0" => http::Version::HTTP_10,
                _ => http::Version::HTTP_11,
            },
        });
        if !complete {
            return requests;
        }
    }
}

/// A head without the empty line that ends it, and what is behind that.
pub(crate) fn split_head(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n")?;
    Some((bytes.get(..end)?, bytes.get(end + 4..)?))
}

/// The names and the values of the fields of a head.
fn pairs(head: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    head.split(|byte| *byte == b'\n')
        .skip(1)
        .filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let value = line.get(colon + 1..)?;
            Some((line.get(..colon)?, value.trim_ascii()))
        })
}

/// The fields of a head.
pub(crate) fn fields(head: &[u8]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for (name, value) in pairs(head) {
        let name = HeaderName::from_bytes(name).expect("a name");
        fields.append(name, HeaderValue::from_bytes(value).expect("a value"));
    }
    fields
}

/// The values of all fields of a name.
pub(crate) fn values<'h>(head: &'h [u8], name: &str) -> Vec<&'h [u8]> {
    pairs(head)
        .filter(|field| field.0.eq_ignore_ascii_case(name.as_bytes()))
        .map(|field| field.1)
        .collect()
}

/// Digits, read.
pub(crate) fn number(digits: &[u8]) -> u64 {
    let text = std::str::from_utf8(digits).expect("digits");
    text.parse().expect("a number")
}

/// The data of a chunked body and the length of its framing and data together; `None` where it is
/// not all there.
pub(crate) fn dechunked(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut data = Vec::new();
    let mut rest = bytes;
    let line = |rest: &mut &[u8]| -> Option<Vec<u8>> {
        let end = memchr::memmem::find(rest, b"\r\n")?;
        let line = rest.get(..end)?.to_vec();
        *rest = rest.get(end + 2..)?;
        Some(line)
    };
    loop {
        let size = line(&mut rest)?;
        let digits = size.split(|byte| *byte == b';').next()?;
        let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        if size == 0 {
            while !line(&mut rest)?.is_empty() {}
            return Some((data, bytes.len() - rest.len()));
        }
        data.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
}
