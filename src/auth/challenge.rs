//! What a rejected client is told of how to get in: `WWW-Authenticate` (RFC 6750 section 3), and where tokens come from
//! (RFC 9728).

use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value};

use super::binding::Cnf;
use super::guard::Guard;
use super::jwt_guard::JwtGuard;
use super::policy::Requirement;
use super::token::TokenSource;
use crate::message::reject::Reject;

impl Guard {
    /// The document that tells a client without a token where to get one (RFC 9728 section 2), for a resource of this
    /// URL. `None` where no configured issuer is a URL.
    pub(crate) fn metadata(&self, resource: &str) -> Option<String> {
        let guard = self.jwt()?;
        let mut servers: Vec<&str> = Vec::new();
        for server in guard.authorization_servers() {
            if !servers.contains(&server) {
                servers.push(server);
            }
        }
        if servers.is_empty() {
            return None;
        }
        let mut methods: Vec<&str> = Vec::new();
        for place in &*guard.places {
            match place {
                TokenSource::Header => methods.push("header"),
                TokenSource::Query(name) if name == "access_token" => methods.push("query"),
                TokenSource::Query(_)
                | TokenSource::Cookie(_)
                | TokenSource::WebSocket
                | TokenSource::Basic => {}
            }
        }
        let mut metadata = Map::new();
        metadata.insert("resource".to_owned(), resource.into());
        metadata.insert("authorization_servers".to_owned(), servers.into());
        metadata.insert("bearer_methods_supported".to_owned(), methods.into());
        if let Some(scope) = guard.require.as_ref().and_then(Requirement::scope) {
            let scopes: Vec<&str> = scope.split(' ').collect();
            metadata.insert("scopes_supported".to_owned(), scopes.into());
        }
        // RFC 8705 section 3.3.
        if guard
            .verifiers
            .iter()
            .any(|(verifier, _)| verifier.cnf() == Cnf::Require)
        {
            metadata.insert(
                "tls_client_certificate_bound_access_tokens".to_owned(),
                true.into(),
            );
        }
        Some(Value::Object(metadata).to_string())
    }

    /// Whether [`Guard::metadata`] returns a document.
    pub(crate) fn has_metadata(&self) -> bool {
        let guard = self.jwt();
        guard.is_some_and(|guard| guard.authorization_servers().next().is_some())
    }

    /// `WWW-Authenticate` for a request that this guard rejected (RFC 6750 section 3); `None` for reasons without one.
    /// `metadata` returns the URL of [`Guard::metadata`] (RFC 9728 section 5.1).
    pub(crate) fn challenge(
        &self,
        reject: Reject,
        metadata: impl FnOnce() -> Option<String>,
    ) -> Option<HeaderValue> {
        let guard = self.jwt()?;
        if let (true, Some(keys)) = (guard.verifiers.is_empty(), &guard.keys) {
            if reject.status() != StatusCode::UNAUTHORIZED {
                return None;
            }
            return HeaderValue::try_from(format!("ApiKey realm={}", quoted(&keys.realm))).ok();
        }
        if let Some(basic) = &guard.basic {
            let is_asked = reject.status() == StatusCode::UNAUTHORIZED;
            return is_asked.then(|| basic_of(&basic.realm)).flatten();
        }
        let mut challenge = format!("Bearer realm={}", quoted(guard.realm()));
        let mut add = |name: &str, value: &str| {
            challenge.extend([", ", name, "=", &quoted(value)]);
        };
        match reject {
            Reject::TokenMissing
            | Reject::ApiKeyMissing
            | Reject::ApiKeyRefused
            | Reject::ApiKeyExpired
            | Reject::BasicMissing
            | Reject::BasicRefused => {}
            Reject::TokenMalformed(what) => {
                add("error", "invalid_request");
                add("error_description", what);
            }
            Reject::TokenInvalid(fault) => {
                add("error", "invalid_token");
                add("error_description", &fault.to_string());
            }
            Reject::Forbidden => {
                add("error", "insufficient_scope");
                if let Some(scope) = guard.require.as_ref().and_then(Requirement::scope) {
                    add("scope", scope);
                }
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
            | Reject::MethodNotAllowed(_)
            | Reject::CertificateMissing
            | Reject::CertificateRefused
            | Reject::KeysMissing
            | Reject::AskFailed
            | Reject::AskDenied { .. }
            | Reject::OriginRefused
            | Reject::ClaimUnfit
            | Reject::FileNotFound
            | Reject::AccelNotFound
            | Reject::FileForbidden
            | Reject::PreconditionFailed
            | Reject::RangeNotSatisfiable { .. }
            | Reject::UpstreamUnreachable
            | Reject::UpstreamInvalid
            | Reject::UpstreamTimeout
            | Reject::UpstreamBusy
            | Reject::UpstreamUnhealthy(_)
            | Reject::AddressRefused
            | Reject::RateLimited(_)
            | Reject::TooManyInFlight { .. }
            | Reject::Throttled { .. }
            | Reject::LoopDetected
            | Reject::ClientGone
            | Reject::Internal => return None,
        }
        if self.has_metadata()
            && let Some(metadata) = metadata()
        {
            challenge.extend([", resource_metadata=", &quoted(&metadata)]);
        }
        HeaderValue::try_from(challenge).ok()
    }

    /// The second `WWW-Authenticate` of a rejected request, for clients that send a token as the password of Basic
    /// (RFC 7617 section 2), and only when challenged; `None` where no verifier of the route accepts that.
    pub(crate) fn basic_challenge(&self, reject: Reject) -> Option<HeaderValue> {
        let guard = self.jwt()?;
        if reject.status() != StatusCode::UNAUTHORIZED
            || !guard.places.contains(&TokenSource::Basic)
        {
            return None;
        }
        basic_of(guard.realm())
    }
}

impl JwtGuard {
    /// The issuers from which clients can get a token (RFC 8414): those with public keys whose name is a URL.
    fn authorization_servers(&self) -> impl Iterator<Item = &str> {
        let issuers = self
            .verifiers
            .iter()
            .filter(|(verifier, _)| verifier.is_of_an_authorization_server())
            .flat_map(|(verifier, _)| verifier.issuers());
        issuers.filter(|issuer| issuer.starts_with("https://") || issuer.starts_with("http://"))
    }

    /// The realm of its challenges.
    fn realm(&self) -> &str {
        self.verifiers
            .first()
            .map_or("portcullis", |(first, _)| first.name())
    }
}

/// The challenge of RFC 7617 section 2.
fn basic_of(realm: &str) -> Option<HeaderValue> {
    let realm = quoted(realm);
    HeaderValue::try_from(format!("Basic realm={realm}, charset=\"UTF-8\"")).ok()
}

/// A quoted string (RFC 9110 section 5.6.4); characters that RFC 6750 does not allow inside become `?`.
fn quoted(text: &str) -> String {
    let letters = text.chars().map(|letter| match letter {
        ' '..='~' if letter != '"' && letter != '\\' => letter,
        _ => '?',
    });
    std::iter::once('"')
        .chain(letters)
        .chain(std::iter::once('"'))
        .collect()
}
