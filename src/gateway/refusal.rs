//! A `Reject` as a response: a problem document (RFC 9457), a page for browsers, a gRPC status
//! for gRPC.

mod page;

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};

use crate::auth::Guard;
use crate::message::body::Body;
use crate::message::error_pages::{ErrorPages, Told};
use crate::message::fields;
use crate::message::reject::{Exceeded, Longest, Reject};
use crate::message::request_id::RequestId;
use crate::net::limits::Limits;
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

/// What a refusal is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About<'a> {
    /// The request's route, where one was found.
    pub(crate) route: Option<&'a Route>,
    /// The error pages of that route, or of the site.
    pub(crate) pages: Option<&'a ErrorPages>,
    /// The size limits of heads.
    pub(crate) limits: &'a Limits,
    /// The request's id.
    pub(crate) id: RequestId,
}

/// The built-in page, where only a status and a sentence are known.
pub(super) fn plain_page(status: StatusCode, sentence: &str, id: RequestId) -> String {
    page::page(status, sentence, id)
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

    /// Whether it is a page.
    pub(crate) fn is_page(self) -> bool {
        matches!(self, Self::Page(_))
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

    /// Builds the response. `metadata` gives the URL of the document that tells how to get a token.
    pub(crate) fn answer(
        self,
        reject: Reject,
        about: &About<'_>,
        metadata: impl FnOnce() -> Option<String>,
    ) -> Response<Body> {
        let About { route, id, .. } = *about;
        let asked = self.on(route);
        let guard = route.map(|route| &route.guard);
        let status = reject.status();
        let detail = asked.detail(reject, about);
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
            Self::Page(version) => {
                let page = about.pages.and_then(|pages| pages.page(status));
                let told = Told {
                    status,
                    detail: &detail,
                    reason: reject.reason(),
                    id,
                };
                let html = page.map_or_else(|| page::of(reject, id), |page| page.fill(&told));
                (version, "text/html; charset=utf-8", html)
            }
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
    fn detail(self, reject: Reject, about: &About<'_>) -> Cow<'static, str> {
        let detail = reject.detail();
        let sizes = about.limits;
        if reject == Reject::UriTooLong {
            let most = sizes.uri_bytes;
            return format!("targets have at most {most} bytes (limits.uri_bytes)").into();
        }
        if reject == Reject::HeadTooLarge {
            let (bytes, count) = (sizes.header_bytes, sizes.header_count);
            return format!(
                "heads have at most {bytes} bytes (limits.header_bytes) and {count} fields (limits.header_count)"
            )
            .into();
        }
        let Some(route) = about.route else {
            return detail;
        };
        let mut name = String::new();
        self.escape(&route.name, &mut name);
        if let Reject::BodyTooLarge(Longest::BodyBytes(most)) = reject {
            return format!("route `{name}` takes bodies of at most {most} bytes (body_bytes)")
                .into();
        }
        let limits = route.limits.as_deref();
        if let Reject::RateLimited(Exceeded { limit, retry }) = reject
            && let Some(rate) = limits.and_then(|limits| limits.rates.get(usize::from(limit)))
        {
            let (limit, words) = (&rate.rule.id.name, &rate.words);
            return format!(
                "try again in {retry} s: the limit `{limit}` is {words} for the route {name}"
            )
            .into();
        }
        if let Reject::TooManyInFlight { limit } = reject
            && let Some(found) = limits.and_then(|limits| limits.in_flight.get(usize::from(limit)))
        {
            let (limit, max) = (&found.rule.id.name, found.max);
            return format!(
                "{detail}: the limit `{limit}` is {max} in flight for the route {name}"
            )
            .into();
        }
        detail
    }

    /// Appends a text of the configuration, escaped for this form.
    fn escape(self, name: &str, text: &mut String) {
        for char in name.chars() {
            match (self, char) {
                // A page escapes what it is filled with.
                (Self::Page(_), _) => text.push(char),
                (_, ' ' | '!' | '#'..='%' | '\''..=';' | '=' | '?'..='[' | ']'..='~') => {
                    text.push(char);
                }
                (Self::Problem(_), _) if char.is_ascii() => {
                    *text += &format!("\\u{:04x}", u32::from(char));
                }
                (Self::Problem(_), _) => text.push(char),
                (Self::Grpc, _) => text.push('?'),
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
    // Front ends written for simplejwt check it before they renew a token.
    let code = if matches!(reject, Reject::TokenInvalid(_)) {
        ",\"code\":\"token_not_valid\""
    } else {
        ""
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
        Reject::RateLimited(Exceeded { retry, .. }) | Reject::Throttled { retry } => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(retry));
        }
        Reject::UpstreamUnhealthy(retry) => {
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
        | Reject::ApiKeyMissing
        | Reject::ApiKeyRefused
        | Reject::ApiKeyExpired
        | Reject::BasicMissing
        | Reject::BasicRefused
        | Reject::CertificateMissing
        | Reject::CertificateRefused
        | Reject::Forbidden
        | Reject::OriginRefused
        | Reject::ClaimUnfit
        | Reject::FileNotFound
        | Reject::AccelNotFound
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
