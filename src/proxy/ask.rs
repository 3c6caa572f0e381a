//! Subrequests: an authorization server decides whether a request is allowed, as with nginx's auth_request. The caller
//! interprets its response.

use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, Uri, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use super::body::AnswerBody;
use super::h1::{AnswerFrames, RequestHead};
use super::outgoing::Outgoing;
use super::reserved::{CDN_LOOP, Vouched};
use super::upstream::Wish;
use super::{Course, Forward, headers};
use crate::message::body::Body;
use crate::message::reject::Reject;
use crate::message::request_id::RequestId;
use crate::net::client::{Client, Peer};

/// How long a response may take, and then its body, for which no one waits.
const DEADLINE: Duration = Duration::from_secs(5);
/// How many bytes of an unused body are read so that the connection can be reused.
const DISREGARDED: u64 = 64 * 1024;

static X_ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
static X_ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");

/// The server to query.
#[derive(Debug)]
pub(crate) struct Ask {
    /// The connection to it.
    pub(crate) forward: Forward,
    /// The path and query to request.
    pub(crate) target: PathAndQuery,
}

/// The request to be authorised.
#[derive(Debug)]
pub(crate) struct AskedAbout<'a> {
    /// Its method.
    pub(crate) method: &'a Method,
    /// Its target, as the client wrote it.
    pub(crate) uri: &'a Uri,
    /// Its path and query as an app would receive them, but without the route's rewriting: the authorization server
    /// must not see another path than the gateway.
    pub(crate) target: &'a str,
    /// Its headers.
    pub(crate) headers: &'a HeaderMap,
    /// The worker that serves it.
    pub(crate) worker: usize,
    /// The peer that sent it.
    pub(crate) peer: &'a Peer,
    /// The client, as identified by the peer's address and trusted proxies.
    pub(crate) client: &'a Client,
    /// Fields that only the gateway may set.
    pub(crate) vouched: &'a Vouched,
    /// Its id.
    pub(crate) id: RequestId,
}

impl Ask {
    /// Sends a GET with the request's headers and no body, and the original method and target in `X-Original-Method`
    /// and `X-Original-URI`. The response's body is streamed.
    ///
    /// # Errors
    /// `AskFailed` if there is no response within 5 s, `LoopDetected` if the request has passed this gateway before.
    pub(crate) async fn ask(&self, about: AskedAbout<'_>) -> Result<Response<Body>, Reject> {
        let headers = askable(about.headers);
        let mut fields = prepared(&about, &headers, &self.forward)?;
        let original = HeaderValue::from_str(about.target).map_err(|_| Reject::BadPath)?;
        let method = HeaderValue::from_str(about.method.as_str()).map_err(|_| Reject::Internal)?;
        fields.set(&X_ORIGINAL_METHOD, method);
        fields.set(&X_ORIGINAL_URI, original);
        self.exchange(&about, &Method::GET, &fields, Outgoing::Empty)
            .await
    }

    /// Sends a POST with a JSON document instead. Of the request's headers, only those that identify the sender are
    /// passed on.
    ///
    /// # Errors
    /// As for [`Ask::ask`].
    pub(crate) async fn post(
        &self,
        about: AskedAbout<'_>,
        document: Bytes,
    ) -> Result<Response<Body>, Reject> {
        let mut headers = HeaderMap::new();
        for name in [header::HOST, header::USER_AGENT, header::ACCEPT_LANGUAGE] {
            if let Some(value) = about.headers.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        // Without these, the server could not detect a loop.
        let loops = about.headers.get_all(&CDN_LOOP).iter();
        headers.extend(loops.map(|value| (CDN_LOOP.clone(), value.clone())));
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json.clone());
        headers.insert(header::ACCEPT, json);
        // The response is read here; without this, any coding would be permitted (RFC 9110 section 12.5.3).
        let identity = HeaderValue::from_static("identity");
        headers.insert(header::ACCEPT_ENCODING, identity);
        let fields = prepared(&about, &headers, &self.forward)?;
        self.exchange(&about, &Method::POST, &fields, Outgoing::Own(document))
            .await
    }

    async fn exchange(
        &self,
        about: &AskedAbout<'_>,
        method: &Method,
        fields: &headers::Fields<'_>,
        body: Outgoing,
    ) -> Result<Response<Body>, Reject> {
        let now = Instant::now();
        let head = RequestHead {
            method,
            target: self.target.as_str(),
            fields,
        };
        let mut course = Course::default();
        let asking = (self.forward).exchange(
            (about.worker, now, Wish::default()),
            head,
            body,
            &mut course,
        );
        let answered = timeout_at(now + DEADLINE, asking).await;
        let (mut head, exchange, home) =
            answered.map_err(|_| Reject::AskFailed)?.map_err(|reject| {
                // A client that disconnected is not a failure of the server.
                if reject == Reject::ClientGone {
                    reject
                } else {
                    Reject::AskFailed
                }
            })?;
        let bodiless = head.is_bodiless();
        let idle = Some(self.forward.timeouts.idle);
        let body = AnswerBody::new(AnswerFrames::new(exchange, &mut head), home, idle);
        let mut response = Response::new(if bodiless {
            Body::Empty
        } else {
            Body::stream(body)
        });
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        Ok(response)
    }
}

/// The headers to be sent to the authorization server.
fn prepared<'a>(
    about: &AskedAbout<'a>,
    headers: &'a HeaderMap,
    forward: &'a Forward,
) -> Result<headers::Fields<'a>, Reject> {
    let hop = headers::Hop {
        peer: about.peer,
        client: about.client,
        vouched: about.vouched,
        edits: None,
        underscores: forward.upstream.underscores(),
        id: about.id,
        host: &forward.upstream.host,
    };
    headers::prepare(headers, about.uri, None, hop)
}

/// Reads a short, unused body to its end in the background, so that its connection can be reused.
pub(crate) fn disregard(mut body: Body) {
    if body.is_end_stream() {
        return;
    }
    let taking_in = async move {
        let mut taken = 0;
        while let Some(Ok(frame)) = body.frame().await {
            taken += frame.data_ref().map_or(0, |data| data.len() as u64);
            if taken > DISREGARDED {
                return;
            }
        }
    };
    // A slower body is not worth the connection.
    tokio::spawn(timeout_at(Instant::now() + DEADLINE, taking_in));
}

/// The request's headers without those that request less than the whole response, or describe a body that is not sent.
fn askable(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for name in [
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_UNMODIFIED_SINCE,
        header::IF_RANGE,
        header::RANGE,
        header::EXPECT,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
    ] {
        headers.remove(name);
    }
    headers
}
