//! Properties that hold for any client input: how it is split makes no difference, and hyper's server reads the same
//! requests from the same bytes, as far as they are not rejected. For tests and `fuzz/`.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "whatever does not hold stops the test"
)]

use std::cell::RefCell;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::*;
use crate::message::body::{Body, BodyError};
use crate::message::reject::Reject;
use crate::net::limits::{Bounds, Limits, Timeouts};
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
    shutdown_delay: Duration::ZERO,
    shutdown_streams: Duration::from_secs(3),
};

/// The bounds of the tests' connections.
pub(super) fn bounds() -> Arc<Bounds> {
    Arc::new(Bounds {
        limits: LIMITS,
        timeouts: TIMEOUTS,
    })
}

/// A request as it was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Heard {
    pub(super) method: Method,
    pub(super) target: Uri,
    /// Its query as it was written, if its target has another.
    query: Option<String>,
    version: http::Version,
    fields: HeaderMap,
    /// `None` if it is incomplete.
    pub(super) body: Option<Vec<u8>>,
    /// Why it was rejected, also because of its body.
    pub(super) refusal: Option<Reject>,
}

impl Heard {
    fn new<B>(request: &http::Request<B>) -> Self {
        Self {
            method: request.method().clone(),
            target: request.uri().clone(),
            query: verbatim_query(request).map(str::to_owned),
            version: request.version(),
            fields: request.headers().clone(),
            body: None,
            refusal: None,
        }
    }
}

/// The state of a connection after a test.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    /// It stays open.
    Open,
    /// It has ended.
    Closed,
    /// It is HTTP/2.
    Http2,
}

/// The requests that our server reads from these pieces; each is read to its end and answered.
pub(super) fn heard(pieces: Vec<Vec<u8>>, closes: bool) -> (Vec<Heard>, End) {
    let length = pieces.iter().map(Vec::len).sum();
    let heard = RefCell::new(Vec::new());
    let answer = async |request: Box<http::Request<Body>>, refusal: Option<Reject>| {
        heard.borrow_mut().push(Heard {
            refusal,
            ..Heard::new(&request)
        });
        let mut data = Vec::new();
        let mut body = request.into_body();
        let fault = loop {
            // The body of a rejected request is not read.
            if refusal.is_some() {
                break None;
            }
            match body.frame().await {
                None => break None,
                Some(Err(error)) => break Some(error),
                Some(Ok(frame)) => {
                    data.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                }
            }
        };
        if let Some(last) = heard.borrow_mut().last_mut() {
            match fault {
                None => last.body = refusal.is_none().then_some(data),
                Some(BodyError::Malformed(what)) => last.refusal = Some(Reject::BadRequest(what)),
                Some(_) => {}
            }
        }
        Ok::<_, Infallible>(not_found(Body::Empty))
    };
    let mut link = Link::new(Script::new(pieces, closes), bounds());
    let line = Arc::new(Line::new());
    let end = drive(length, async {
        match link.sniff(&line).await {
            Ok(Opening::Http1) => {}
            Ok(Opening::Http2) => return End::Http2,
            Ok(Opening::Nothing) => return End::Open,
            Err(_) => return End::Closed,
        }
        match link.serve(&line, answer).await {
            Ended::Rests => End::Open,
            Ended::Over | Ended::Broken | Ended::Switched(_) => End::Closed,
        }
    });
    (heard.into_inner(), end.unwrap_or(End::Open))
}

fn not_found<B>(body: B) -> Response<B> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

/// What hyper's server reads from the same.
pub(super) fn heard_by_hyper(pieces: Vec<Vec<u8>>, closes: bool) -> Vec<Heard> {
    let length: usize = pieces.iter().map(Vec::len).sum();
    let heard = RefCell::new(Vec::new());
    let service = service_fn(async |request: http::Request<Incoming>| {
        heard.borrow_mut().push(Heard::new(&request));
        if let Ok(body) = request.into_body().collect().await
            && let Some(last) = heard.borrow_mut().last_mut()
        {
            last.body = Some(body.to_bytes().into());
        }
        Ok::<_, Infallible>(not_found(Empty::<Bytes>::new()))
    });
    drive(length, async {
        let mut builder = http1::Builder::new();
        builder.header_read_timeout(None);
        let script = Script::new(pieces, closes);
        let served = builder.serve_connection(TokioIo::new(script), service);
        served.await.ok();
    });
    heard.into_inner()
}

/// A client sends these bytes, split according to the seed: how makes no difference, and hyper reads the same requests,
/// as far as we do not reject them.
#[track_caller]
pub(crate) fn request_holds(bytes: &[u8], seed: u8, closes: bool) {
    let (mut whole, whole_end) = heard(vec![bytes.to_vec()], closes);
    let pieces = cut(bytes, seed);
    let (mut pieced, pieced_end) = heard(pieces.clone(), closes);
    assert_eq!(
        whole_end,
        pieced_end,
        "{:?} in pieces",
        bytes.escape_ascii().to_string()
    );
    for heard in [&mut whole, &mut pieced] {
        for (at, request) in heard.iter().enumerate() {
            assert!(
                request.refusal.is_none() || at + 1 == heard.len(),
                "nothing is heard behind what is refused: {heard:?}"
            );
        }
    }
    assert_eq!(whole, pieced, "{:?}", bytes.escape_ascii().to_string());
    // hyper does not accept lengths close to the maximum.
    if whole_end == End::Http2 || memchr::memmem::find(bytes, b"1844674407370955161").is_some() {
        return;
    }
    for pieces in [vec![bytes.to_vec()], pieces] {
        let hypers = heard_by_hyper(pieces, closes);
        for (at, ours) in whole.iter().enumerate() {
            // hyper rejects characters that its targets cannot hold.
            if ours.refusal.is_some() || ours.query.is_some() {
                break;
            }
            let theirs = hypers.get(at);
            assert_eq!(Some(ours), theirs, "{:?}", bytes.escape_ascii().to_string());
        }
    }
}

/// Parses digits.
pub(crate) fn number(digits: &[u8]) -> u64 {
    let text = std::str::from_utf8(digits).expect("digits");
    text.parse().expect("a number")
}
