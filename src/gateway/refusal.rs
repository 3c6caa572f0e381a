//! A `Reject` as a response: a problem document (RFC 9457), a page for browsers, a gRPC status
//! for gRPC.

mod page;

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};

use crate::auth::Guard;
use crate::message::body::Body;
use crate::message::fields;
use crate::message::reject::{Exceeded, Longest, Reject};
use crate::message::request_id::RequestId;
use crate::proxy::is_grpc;
use crate::route::{Route, Target};

/// The `Cache-Control` of every refusal.
pub(super) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// The type of a problem document for a client that exceeded a rate limit (draft-ietf-httpapi-ratelimit-headers-11).
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

/// The form in which a client wants a refusal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Asked {
    /// `application/problem+json`.
    Problem(Version),
    /// An HTML page, for a browser's navigation.
    Page(Version),
    /// A gRPC status, for a call to an app.
    Grpc,
}

impl Asked {
    /// Reads the form from the request.
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        if is_grpc(request) {
            return Self::Grpc;
        }
        let accepted = fields::rare(request.headers(), &header::ACCEPT);
        if accepted.is_some_and(|kinds| kinds.as_bytes().starts_with(b"text/html")) {
            Self::Page(request.version())
        } else {
            Self::Problem(request.version())
        }
    }

    /// The form on this route: a gRPC status only for a call to an app whose upstream streams calls; one with a
    /// `buffer` does not.
    pub(crate) fn on(self, route: Option<&Route>) -> Self {
        match (self, route.map(|route| &route.target)) {
            (Self::Grpc, Some(Target::Upstream { forward, .. }))
                if forward.upstream.streams_calls() =>
            {
                self
            }
            (Self::Grpc, _) => Self::Problem(Version::HTTP_2),
            (Self::Problem(_) | Self::Page(_), _) => self,
        }
    }

    /// Builds the response. `route` is the request's route, where one was found; `metadata` gives the URL of the
    /// document that tells how to get a token.
    pub(crate) fn answer(
        self,
        reject: Reject,
        route: Option<&Route>,
        id: RequestId,
        metadata: impl FnOnce() -> Option<String>,
    ) -> Response<Body> {
        let asked = self.on(route);
        let guard = route.map(|route| &route.guard);
        let status = reject.status();
        let detail = asked.detail(reject, route);
        let title = status.canonical_reason().unwrap_or("Error");
        let (version, kind, body) = match asked {
            Self::Grpc => return grpc(reject, &detail),
            Self::Problem(version) => (version, "application/problem+json", {
                let (kind, members) = members(reject, route);
                format!(
                    "{{\"type\":\"{kind}\",\"title\":\"{title}\",\"status\":{},\"detail\":\"{detail}\"{members},\"request_id\":\"{id}\"}}\n",
                    status.as_u16(),
                )
            }),
            Self::Page(version) => (version, "text/html; charset=utf-8", page::page(reject, id)),
        };
        let mut response = Response::new(Body::full(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CACHE_CONTROL, NO_STORE);
        special(headers, reject, guard, metadata);
        if version != Version::HTTP_2 && ends_connection(reject) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl Asked {
    /// The detail text, escaped for this form. It names the route and its limit, where that is what has to be changed.
    fn detail(self, reject: Reject, route: Option<&Route>) -> Cow<'static, str> {
        let detail = reject.detail();
        let Some(route) = route else {
            return detail;
        };
        let limits = route.limits.as_deref();
        let mut text = match reject {
            Reject::BodyTooLarge(Longest::BodyBytes(_)) => detail.into_owned() + " for the route ",
            Reject::RateLimited(Exceeded { limit, retry }) => {
                let Some(rate) = limits.and_then(|limits| limits.rates.get(usize::from(limit)))
                else {
                    return detail;
                };
                let (name, words) = (&rate.rule.id.name, &rate.words);
                format!("try again in {retry} s: the limit `{name}` is {words} for the route ")
            }
            Reject::TooManyInFlight { limit } => {
                let found = limits.and_then(|limits| limits.in_flight.get(usize::from(limit)));
                let Some(found) = found else {
                    return detail;
                };
                let (name, max) = (&found.rule.id.name, found.max);
                format!("{detail}: the limit `{name}` is {max} in flight for the route ")
            }
            _ => return detail,
        };
        self.escape(&route.name, &mut text);
        text.into()
    }

    /// Appends a text of the configuration, escaped for this form.
    fn escape(self, name: &str, text: &mut String) {
        for char in name.chars() {
            match (self, char) {
                (_, ' ' | '!' | '#'..='%' | '\''..=';' | '=' | '?'..='[' | ']'..='~') => {
                    text.push(char);
                }
                (Self::Problem(_), _) if char.is_ascii() => {
                    *text += &format!("\\u{:04x}", u32::from(char));
                }
                (Self::Problem(_), _) => text.push(char),
                (Self::Grpc | Self::Page(_), _) => text.push('?'),
            }
        }
    }
}

/// The members of a problem document that only some refusals have: its type, and what belongs to that.
fn members(reject: Reject, route: Option<&Route>) -> (&'static str, String) {
    let limits = route.and_then(|route| route.limits.as_deref());
    if let (Reject::RateLimited(Exceeded { limit, .. }), Some(limits)) = (reject, limits)
        && let Some(rate) = limits.rates.get(usize::from(limit))
    {
        let violated = format!(",\"violated-policies\":[\"{}\"]", rate.rule.id.name);
        return (QUOTA_EXCEEDED, violated);
    }
    let code = match reject {
        // Front ends written for simplejwt check it before they renew a token.
        Reject::TokenInvalid(_) => ",\"code\":\"token_not_valid\"",
        _ => "",
    };
    ("about:blank", code.to_owned())
}

/// Header fields of particular refusals.
fn special(
    headers: &mut HeaderMap,
    reject: Reject,
    guard: Option<&Guard>,
    metadata: impl FnOnce() -> Option<String>,
) {
    if let Some(challenge) = guard.and_then(|guard| guard.challenge(reject, metadata)) {
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    if let Some(challenge) = guard.and_then(|guard| guard.basic_challenge(reject)) {
        headers.append(header::WWW_AUTHENTICATE, challenge);
    }
    match reject {
        Reject::MethodNotAllowed(methods) => {
            headers.insert(header::ALLOW, methods.allow());
        }
        Reject::RangeNotSatisfiable { length, varies } => {
            if varies {
                headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
            }
            if let Ok(range) = HeaderValue::try_from(format!("bytes */{length}")) {
                headers.insert(header::CONTENT_RANGE, range);
            }
        }
        Reject::UpstreamBusy | Reject::AskFailed | Reject::TooManyInFlight { .. } => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        Reject::RateLimited(Exceeded { retry, .. }) => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(retry));
        }
        // The next key fetch that a token can trigger is at most this many seconds away.
        Reject::KeysMissing => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("10"));
        }
        Reject::BadRequest(_)
        | Reject::PlainHttp
        | Reject::BadPath
        | Reject::BadHost
        | Reject::UnknownTransferCoding
        | Reject::RequestTimeout
        | Reject::UriTooLong
        | Reject::HeadTooLarge
        | Reject::BodyTooLarge(_)
        | Reject::VersionNotSupported
        | Reject::MethodNotServed
        | Reject::NoRoute
        | Reject::TokenMissing
        | Reject::TokenMalformed(_)
        | Reject::TokenInvalid(_)
        | Reject::AskDenied { .. }
        | Reject::CertificateMissing
        | Reject::CertificateRefused
        | Reject::Forbidden
        | Reject::OriginRefused
        | Reject::ClaimUnfit
        | Reject::FileNotFound
        | Reject::FileForbidden
        | Reject::PreconditionFailed
        | Reject::UpstreamUnreachable
        | Reject::UpstreamInvalid
        | Reject::UpstreamTimeout
        | Reject::AddressRefused
        | Reject::LoopDetected
        | Reject::ClientGone
        | Reject::Internal => {}
    }
}

/// Whether the start of the next request is unknown, or reading up to it is not worth the cost.
fn ends_connection(reject: Reject) -> bool {
    matches!(
        reject,
        Reject::BadRequest(_)
            | Reject::PlainHttp
            | Reject::BadPath
            | Reject::BadHost
            | Reject::UnknownTransferCoding
            | Reject::RequestTimeout
            | Reject::UriTooLong
            | Reject::HeadTooLarge
            | Reject::BodyTooLarge(_)
            | Reject::VersionNotSupported
            | Reject::MethodNotServed
    )
}

/// Refuses a gRPC call with a gRPC status, in a response without a body.
fn grpc(reject: Reject, detail: &str) -> Response<Body> {
    let code = match reject.status() {
        StatusCode::BAD_REQUEST => "13",
        StatusCode::UNAUTHORIZED => "16",
        StatusCode::FORBIDDEN => "7",
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => "12",
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS => "8",
        StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => "4",
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => "14",
        _ => "2",
    };
    let mut response = Response::new(Body::Empty);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    headers.insert("grpc-status", HeaderValue::from_static(code));
    if let Ok(message) = HeaderValue::from_str(detail) {
        headers.insert("grpc-message", message);
    }
    response
}
