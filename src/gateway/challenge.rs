//! The stage that answers http-01 (RFC 8555 section 8.3) on plain listeners, before redirects and routes. Only a token that
//! is pending for the request's host is answered; any other path goes its usual way, to an app's own certbot too.

use http::{HeaderValue, Method, Request, Response, header};

use super::refusal;
use crate::message::body::Body;
use crate::net::tls::Challenges;

/// Where directories look for the answers.
const PREFIX: &str = "/.well-known/acme-challenge/";

/// The answer to a challenge, where the request is for one that is pending.
pub(super) fn answer(
    challenges: &Challenges,
    host: &str,
    request: &Request<Body>,
) -> Option<Response<Body>> {
    let token = request.uri().path().strip_prefix(PREFIX)?;
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    let answer = challenges.http(host, token)?;
    let mut response = Response::new(Body::full(answer));
    let headers = response.headers_mut();
    let bytes = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, bytes);
    headers.insert(header::CACHE_CONTROL, refusal::NO_STORE);
    Some(response)
}
