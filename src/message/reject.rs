//! `Reject`: every reason why the gateway itself answers instead of serving.
//!
//! Status, reason and title stand here and nowhere else. Headers that depend on the route
//! (the realm, the scope) are added by `gateway`, which knows the route.

use http::StatusCode;

use crate::message::method::MethodSet;

/// Why the gateway answered a request itself instead of serving it.
///
/// The client learns which check failed, never a value that the check compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reject {
    /// The head of the message breaks RFC 9112, or can be read in two ways.
    BadRequest(&'static str),
    /// A plain request on a port that speaks TLS.
    PlainHttp,
    /// Readings of the path differ in what they open, or it climbs above the root, or cannot be decoded.
    BadPath,
    /// `Host` is missing, empty, repeated, malformed, or disagrees with the target (RFC 9112 section 3.2).
    BadHost,
    /// A transfer coding other than `chunked` (RFC 9112 section 6.1).
    UnknownTransferCoding,
    /// A head or a body did not arrive in time (RFC 9110 section 15.5.9).
    RequestTimeout,
    /// The request target is longer than `limits.uri_bytes`.
    UriTooLong,
    /// The head is longer than `limits.header_bytes` or has more than `limits.header_count` fields.
    HeadTooLarge,
    /// The body is longer than the limit that this carries.
    BodyTooLarge(Longest),
    /// A version of HTTP that is not served.
    VersionNotSupported,
    /// CONNECT, TRACE, and what is not in capitals or too long to be a method (see `method::is_served`).
    MethodNotServed,
    /// No route has this host and path.
    NoRoute,
    /// The route is there, but not for this method; carries what `Allow` says.
    MethodNotAllowed(MethodSet),
    /// The route wants a bearer token and the request has none (RFC 6750 section 3.1).
    TokenMissing,
    /// Two different tokens, or a malformed `Authorization` field (RFC 6750 section 3.1).
    TokenMalformed(&'static str),
    /// The token is malformed, forged, expired, or meant for someone else.
    TokenInvalid(TokenFault),
    /// The keys that the token would be checked with could not be fetched.
    KeysMissing,
    /// The server that decides whether the request may pass gave no response that says so.
    AskFailed,
    /// The server that decides said no; because it does not know who asks, or because it does.
    AskDenied {
        /// Whether it does not know.
        nobody: bool,
    },
    /// The token is valid, but its claims do not satisfy the route.
    Forbidden,
    /// A preflight for a page of an origin that the route's `cors` does not name.
    OriginRefused,
    /// A claim that a header must carry holds bytes that no header can.
    ClaimUnfit,
    /// There is no such file.
    FileNotFound,
    /// The file may not be read by the gateway's user.
    FileForbidden,
    /// `If-Match` or `If-Unmodified-Since` does not hold (RFC 9110 section 13.2.2).
    PreconditionFailed,
    /// The range lies outside the file (RFC 9110 section 15.5.17); carries the file's length.
    RangeNotSatisfiable(u64),
    /// The upstream refused or broke the connection, or could not be reached.
    UpstreamUnreachable,
    /// The upstream's response breaks HTTP.
    UpstreamInvalid,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// Too many requests wait for the upstream already, or the spool is full.
    UpstreamBusy,
    /// The request has been here before: an upstream leads back to this gateway (RFC 8586).
    LoopDetected,
    /// The client went away before it was answered; nobody sees this response.
    ClientGone,
    /// A fault of the gateway's own.
    Internal,
}

/// How long a body may be, in bytes, and what says so.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Longest {
    /// `body_bytes` of its route.
    BodyBytes(u64),
    /// The endpoint of the gateway's own that it is meant for.
    Endpoint(u64),
    /// What the upstream's `buffer` holds at most for one client.
    Buffer(u64),
}

/// Which check refused a token; the text is RFC 6750's `error_description`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum TokenFault {
    /// Longer than 16 KiB.
    #[error("the token is too long")]
    TooLong,
    /// Not three parts of base64url, or not JSON objects inside, or a member twice.
    #[error("the token is malformed")]
    Malformed,
    /// An algorithm that the verifier does not accept.
    #[error("the token's algorithm is not accepted")]
    Algorithm,
    /// `crit` names an extension (RFC 7515 section 4.1.11); none is understood.
    #[error("the token has critical header parameters that are not understood")]
    Critical,
    /// No key fits the token's `kid` and algorithm.
    #[error("the token's key is not known")]
    UnknownKey,
    /// The signature does not fit.
    #[error("the token's signature is invalid")]
    Signature,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` lies in the future.
    #[error("the token is not valid yet")]
    Immature,
    /// `iat` lies in the future.
    #[error("the token was issued in the future")]
    IssuedInFuture,
    /// `exp - iat` exceeds `max_lifetime`.
    #[error("the token lives too long")]
    Lifetime,
    /// A claim that must be there is not, or has the wrong type; carries its name.
    #[error("the token's claim {0} is missing or malformed")]
    Claim(&'static str),
    /// `iss` is another issuer.
    #[error("the token's issuer is not accepted")]
    Issuer,
    /// `aud` names somebody else, or somebody where nobody is expected.
    #[error("the token is not meant for this audience")]
    Audience,
    /// `typ` is another type of token.
    #[error("the token's type is not accepted")]
    Type,
    /// `revoked` takes it back.
    #[error("the token was revoked")]
    Revoked,
    /// One of the verifier's own `claims` is absent or differs.
    #[error("a claim of the token does not have the value that is required")]
    RequiredClaim,
}

impl TokenFault {
    /// The word for the access log.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::TooLong => "token_too_long",
            Self::Malformed => "token_malformed",
            Self::Algorithm => "token_algorithm",
            Self::Critical => "token_critical",
            Self::UnknownKey => "token_unknown_key",
            Self::Signature => "token_signature",
            Self::Expired => "token_expired",
            Self::Immature => "token_immature",
            Self::IssuedInFuture => "token_issued_in_future",
            Self::Lifetime => "token_lifetime",
            Self::Claim(_) => "token_claim",
            Self::Issuer => "token_issuer",
            Self::Audience => "token_audience",
            Self::Type => "token_type",
            Self::Revoked => "token_revoked",
            Self::RequiredClaim => "token_required_claim",
        }
    }
}

impl Reject {
    /// The status that the client sees.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::BadRequest(_)
            | Self::PlainHttp
            | Self::BadPath
            | Self::BadHost
            | Self::TokenMalformed(_) => StatusCode::BAD_REQUEST,
            Self::UnknownTransferCoding | Self::MethodNotServed => StatusCode::NOT_IMPLEMENTED,
            Self::RequestTimeout | Self::ClientGone => StatusCode::REQUEST_TIMEOUT,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::VersionNotSupported => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::NoRoute | Self::FileNotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::TokenMissing | Self::TokenInvalid(_) | Self::AskDenied { nobody: true } => {
                StatusCode::UNAUTHORIZED
            }
            Self::AskDenied { nobody: false }
            | Self::Forbidden
            | Self::OriginRefused
            | Self::ClaimUnfit
            | Self::FileForbidden => StatusCode::FORBIDDEN,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::RangeNotSatisfiable(_) => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::UpstreamUnreachable | Self::UpstreamInvalid => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::UpstreamBusy | Self::KeysMissing | Self::AskFailed => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::LoopDetected => StatusCode::LOOP_DETECTED,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The word for the access log; stable, so that it can be counted.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad_request",
            Self::PlainHttp => "plain_http",
            Self::BadPath => "bad_path",
            Self::BadHost => "bad_host",
            Self::UnknownTransferCoding => "unknown_transfer_coding",
            Self::RequestTimeout => "request_timeout",
            Self::UriTooLong => "uri_too_long",
            Self::HeadTooLarge => "head_too_large",
            Self::BodyTooLarge(_) => "body_too_large",
            Self::VersionNotSupported => "version_not_supported",
            Self::MethodNotServed => "method_not_served",
            Self::NoRoute => "no_route",
            Self::MethodNotAllowed(_) => "method_not_allowed",
            Self::TokenMissing => "token_missing",
            Self::TokenMalformed(_) => "token_request_malformed",
            Self::TokenInvalid(fault) => fault.reason(),
            Self::KeysMissing => "keys_missing",
            Self::AskFailed => "ask_failed",
            Self::AskDenied { .. } => "asked_and_denied",
            Self::Forbidden => "forbidden",
            Self::OriginRefused => "origin_refused",
            Self::ClaimUnfit => "claim_unfit",
            Self::FileNotFound => "file_not_found",
            Self::FileForbidden => "file_forbidden",
            Self::PreconditionFailed => "precondition_failed",
            Self::RangeNotSatisfiable(_) => "range_not_satisfiable",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamInvalid => "upstream_invalid",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamBusy => "upstream_busy",
            Self::LoopDetected => "loop_detected",
            Self::ClientGone => "client_gone",
            Self::Internal => "internal",
        }
    }

    /// What the problem document says beside the status; never a value of the request.
    pub(crate) fn detail(self) -> std::borrow::Cow<'static, str> {
        match self {
            Self::BadRequest(what) | Self::TokenMalformed(what) => what.into(),
            Self::PlainHttp => "a plain HTTP request was sent to an HTTPS port: use https://".into(),
            Self::BadPath => "the path can be read in more than one way".into(),
            Self::BadHost => "exactly one valid Host is needed, the same as the target's".into(),
            Self::UnknownTransferCoding => "the only transfer coding served is chunked".into(),
            Self::RequestTimeout => "the request did not arrive in time".into(),
            Self::UriTooLong => "the request target is too long".into(),
            Self::HeadTooLarge => "the request's header fields are too large or too many".into(),
            Self::BodyTooLarge(Longest::BodyBytes(limit)) => {
                format!("the limit `body_bytes` is {limit} bytes").into()
            }
            Self::BodyTooLarge(Longest::Endpoint(limit)) => {
                format!("this endpoint takes bodies of {limit} bytes at most").into()
            }
            Self::BodyTooLarge(Longest::Buffer(limit)) => {
                format!("the upstream's `buffer` holds {limit} bytes at most for one client").into()
            }
            Self::VersionNotSupported => "this version of HTTP is not served".into(),
            Self::MethodNotServed => "only methods in capitals of at most 32 bytes are served, and neither CONNECT nor TRACE".into(),
            Self::NoRoute => "no route of the gateway has this host and path".into(),
            Self::MethodNotAllowed(_) => "the resource does not have this method".into(),
            Self::TokenMissing => "a bearer token is needed".into(),
            Self::TokenInvalid(fault) => fault.to_string().into(),
            Self::KeysMissing => "the issuer's keys could not be fetched; try again".into(),
            Self::AskDenied { .. } => "the server that decides said no".into(),
            Self::AskFailed => "whether this may pass could not be found out; try again".into(),
            Self::Forbidden => "the token does not grant what this resource needs".into(),
            Self::OriginRefused => "pages of this origin may not use this resource".into(),
            Self::ClaimUnfit => "a claim of the token cannot be passed on".into(),
            Self::FileNotFound => "there is no such file".into(),
            Self::FileForbidden => "the file may not be read".into(),
            Self::PreconditionFailed => "a precondition of the request does not hold".into(),
            Self::RangeNotSatisfiable(_) => "the range lies outside the file".into(),
            Self::UpstreamUnreachable => "the app behind the gateway could not be reached".into(),
            Self::UpstreamInvalid => "the app's answer is not valid HTTP".into(),
            Self::UpstreamTimeout => "the app did not answer in time".into(),
            Self::UpstreamBusy => "the app is busy; try again".into(),
            Self::LoopDetected => {
                "the request came back to this gateway: an upstream leads to it".into()
            }
            Self::ClientGone => "the client went away".into(),
            Self::Internal => "the gateway failed".into(),
        }
    }
}
