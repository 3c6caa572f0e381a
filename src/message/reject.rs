//! `Reject`: every reason for which the gateway refuses a request.
//!
//! Status, reason code and title are defined only here. `gateway` adds headers that depend on the route (the realm, the
//! scope).

use http::StatusCode;

use crate::message::method::MethodSet;

/// Why the gateway refused a request.
///
/// The client learns which check failed, but no value that the check compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reject {
    /// The message head violates RFC 9112, or is ambiguous.
    BadRequest(&'static str),
    /// A plain-text request on a TLS port.
    PlainHttp,
    /// The path's readings lead to different routes, or it climbs above the root, or cannot be decoded.
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
    /// An HTTP version that is not supported.
    VersionNotSupported,
    /// CONNECT, TRACE, and names that are not in capitals or too long (see `method::is_served`).
    MethodNotServed,
    /// No route has this host and path.
    NoRoute,
    /// The route does not allow this method; carries the value of `Allow`.
    MethodNotAllowed(MethodSet),
    /// The route requires a bearer token and the request has none (RFC 6750 section 3.1).
    TokenMissing,
    /// Two different tokens, or a malformed `Authorization` field (RFC 6750 section 3.1).
    TokenMalformed(&'static str),
    /// The token is malformed, forged, expired, or meant for someone else.
    TokenInvalid(TokenFault),
    /// The route requires an API key and the request has none.
    ApiKeyMissing,
    /// The API key is not known.
    ApiKeyRefused,
    /// The API key has expired.
    ApiKeyExpired,
    /// The route requires a name and a password and the request has none.
    BasicMissing,
    /// There is no such user, or the password is wrong.
    BasicRefused,
    /// The route requires a client certificate and the connection has none.
    CertificateMissing,
    /// The connection's client certificate is not one of those that the route requires.
    CertificateRefused,
    /// The keys for checking the token could not be fetched.
    KeysMissing,
    /// The external authorization server gave no decision.
    AskFailed,
    /// The external authorization server denied the request, with 401 or with 403.
    AskDenied {
        /// Whether it was 401: the client is not authenticated.
        nobody: bool,
    },
    /// The token is valid, but its claims do not satisfy the route.
    Forbidden,
    /// The route's `addresses` do not allow the client's address.
    AddressRefused,
    /// The client has sent more requests than a limit of the route allows.
    RateLimited(Exceeded),
    /// The client has as many requests in flight as a limit of the route allows.
    TooManyInFlight {
        /// Which of the route's limits.
        limit: u8,
    },
    /// The client has sent too many wrong passwords, or too many passwords wait to be checked.
    Throttled {
        /// The seconds after which a request passes, at least 1.
        retry: u64,
    },
    /// A preflight from an origin that the route's `cors` does not allow.
    OriginRefused,
    /// A claim that must be sent as a header contains bytes that a header cannot.
    ClaimUnfit,
    /// There is no such file.
    FileNotFound,
    /// An app named a file to be sent in place of its response, and there is no such file in the folders of `accel`.
    AccelNotFound,
    /// The gateway's user has no permission to read the file.
    FileForbidden,
    /// `If-Match` or `If-Unmodified-Since` does not hold (RFC 9110 section 13.2.2).
    PreconditionFailed,
    /// The range lies outside the file (RFC 9110 section 15.5.17).
    RangeNotSatisfiable {
        /// The file's length, in the form that the client was to get.
        length: u64,
        /// Whether other clients may get another form.
        varies: bool,
    },
    /// The upstream refused or broke the connection, or could not be reached.
    UpstreamUnreachable,
    /// The upstream's response violates HTTP.
    UpstreamInvalid,
    /// The upstream did not respond in time.
    UpstreamTimeout,
    /// Too many requests are queued for the upstream, or the spool is full.
    UpstreamBusy,
    /// Health checks have taken out all servers of the upstream; carries the seconds until the next check.
    UpstreamUnhealthy(u64),
    /// A request loop: an upstream leads back to this gateway (RFC 8586).
    LoopDetected,
    /// The client closed the connection before the response; this one is never sent.
    ClientGone,
    /// An internal error of the gateway.
    Internal,
}

/// A rate limit that a client has exceeded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Exceeded {
    /// Which of the route's limits.
    pub(crate) limit: u8,
    /// The seconds after which a request passes, at least 1.
    pub(crate) retry: u64,
}

/// A limit of the body length in bytes, and its origin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Longest {
    /// `body_bytes` of its route.
    BodyBytes(u64),
    /// The limit of the gateway's own endpoint.
    Endpoint(u64),
    /// The limit of the upstream's `buffer` for one client.
    Buffer(u64),
}

/// Which check refused a token; the text is RFC 6750's `error_description`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum TokenFault {
    /// Longer than 16 KiB.
    #[error("the token is too long")]
    TooLong,
    /// Not three parts of base64url, or no JSON objects inside, or a duplicate member.
    #[error("the token is malformed")]
    Malformed,
    /// An algorithm that the verifier does not accept.
    #[error("the token's algorithm is not accepted")]
    Algorithm,
    /// `crit` names an extension (RFC 7515 section 4.1.11); none is supported.
    #[error("the token has critical header parameters that are not understood")]
    Critical,
    /// No key matches the token's `kid` and algorithm.
    #[error("the token's key is not known")]
    UnknownKey,
    /// The signature is not valid.
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
    /// A required claim is missing or has the wrong type; carries its name.
    #[error("the token's claim {0} is missing or malformed")]
    Claim(&'static str),
    /// `iss` names another issuer.
    #[error("the token's issuer is not accepted")]
    Issuer,
    /// `aud` names another audience, or is present where none is expected.
    #[error("the token is not meant for this audience")]
    Audience,
    /// `typ` is another token type.
    #[error("the token's type is not accepted")]
    Type,
    /// The token is revoked.
    #[error("the token was revoked")]
    Revoked,
    /// One of the verifier's required `claims` is missing or differs.
    #[error("a claim of the token does not have the value that is required")]
    RequiredClaim,
    /// `cnf` binds the token to a client certificate that the connection does not have, or cannot be checked (RFC 8705
    /// section 3); says which.
    #[error("{0}")]
    Binding(&'static str),
}

impl TokenFault {
    /// The reason code for the access log.
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
            Self::Binding(_) => "token_binding",
        }
    }
}

impl Reject {
    /// The status sent to the client.
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
            Self::NoRoute | Self::FileNotFound | Self::AccelNotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::TokenMissing
            | Self::TokenInvalid(_)
            | Self::ApiKeyMissing
            | Self::ApiKeyRefused
            | Self::ApiKeyExpired
            | Self::BasicMissing
            | Self::BasicRefused
            | Self::AskDenied { nobody: true } => StatusCode::UNAUTHORIZED,
            Self::AskDenied { nobody: false }
            | Self::CertificateMissing
            | Self::CertificateRefused
            | Self::Forbidden
            | Self::AddressRefused
            | Self::OriginRefused
            | Self::ClaimUnfit
            | Self::FileForbidden => StatusCode::FORBIDDEN,
            Self::RateLimited(_) | Self::TooManyInFlight { .. } | Self::Throttled { .. } => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::RangeNotSatisfiable { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::UpstreamUnreachable | Self::UpstreamInvalid => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::UpstreamBusy
            | Self::UpstreamUnhealthy(_)
            | Self::KeysMissing
            | Self::AskFailed => StatusCode::SERVICE_UNAVAILABLE,
            Self::LoopDetected => StatusCode::LOOP_DETECTED,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The reason code for the access log; stable, so that it can be counted.
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
            Self::ApiKeyMissing => "api_key_missing",
            Self::ApiKeyRefused => "api_key_refused",
            Self::ApiKeyExpired => "api_key_expired",
            Self::BasicMissing => "basic_missing",
            Self::BasicRefused => "basic_refused",
            Self::CertificateMissing => "certificate_missing",
            Self::CertificateRefused => "certificate_refused",
            Self::KeysMissing => "keys_missing",
            Self::AskFailed => "ask_failed",
            Self::AskDenied { .. } => "asked_and_denied",
            Self::Forbidden => "forbidden",
            Self::AddressRefused => "address_refused",
            Self::RateLimited(_) => "rate_limited",
            Self::TooManyInFlight { .. } => "too_many_in_flight",
            Self::Throttled { .. } => "throttled",
            Self::OriginRefused => "origin_refused",
            Self::ClaimUnfit => "claim_unfit",
            Self::FileNotFound => "file_not_found",
            Self::AccelNotFound => "accel_not_found",
            Self::FileForbidden => "file_forbidden",
            Self::PreconditionFailed => "precondition_failed",
            Self::RangeNotSatisfiable { .. } => "range_not_satisfiable",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamInvalid => "upstream_invalid",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamBusy => "upstream_busy",
            Self::UpstreamUnhealthy(_) => "upstream_unhealthy",
            Self::LoopDetected => "loop_detected",
            Self::ClientGone => "client_gone",
            Self::Internal => "internal",
        }
    }

    /// The detail of the problem document; never contains a value of the request.
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
            Self::ApiKeyMissing => "an API key is needed".into(),
            Self::ApiKeyRefused => "the API key is not valid".into(),
            Self::ApiKeyExpired => "the API key has expired".into(),
            Self::BasicMissing => "a name and a password are needed".into(),
            Self::BasicRefused => "name or password is wrong".into(),
            Self::CertificateMissing => "a client certificate is needed".into(),
            Self::CertificateRefused => {
                "the client certificate does not grant what this resource needs".into()
            }
            Self::KeysMissing => "the issuer's keys could not be fetched; try again".into(),
            Self::AskDenied { .. } => "the external authorization server denied the request".into(),
            Self::AskFailed => "the authorization check failed; try again".into(),
            Self::Forbidden => "the token does not grant what this resource needs".into(),
            Self::AddressRefused => "this resource is not for the client's address".into(),
            Self::RateLimited(Exceeded { retry, .. }) => {
                format!("too many requests; try again in {retry} s").into()
            }
            Self::TooManyInFlight { .. } => "too many requests at the same time".into(),
            Self::Throttled { retry } => {
                format!("too many attempts; try again in {retry} s").into()
            }
            Self::OriginRefused => "pages of this origin may not use this resource".into(),
            Self::ClaimUnfit => "a claim of the token cannot be passed on".into(),
            Self::FileNotFound => "there is no such file".into(),
            Self::AccelNotFound => "there is no such file any more".into(),
            Self::FileForbidden => "the file may not be read".into(),
            Self::PreconditionFailed => "a precondition of the request does not hold".into(),
            Self::RangeNotSatisfiable { .. } => "the range lies outside the file".into(),
            Self::UpstreamUnreachable => "the app behind the gateway could not be reached".into(),
            Self::UpstreamInvalid => "the app's response is not valid HTTP".into(),
            Self::UpstreamTimeout => "the app did not respond in time".into(),
            Self::UpstreamBusy => "the app is busy; try again".into(),
            Self::UpstreamUnhealthy(_) => "the app is not healthy; try again".into(),
            Self::LoopDetected => {
                "the request came back to this gateway: an upstream leads to it".into()
            }
            Self::ClientGone => "the client closed the connection".into(),
            Self::Internal => "the gateway failed".into(),
        }
    }
}
