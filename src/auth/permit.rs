//! `Permit`: the proof that a request satisfies its route. Who gets one is decided by the guards.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::claims::ClaimPath;
#[cfg(test)]
use super::claims::Claims;
use super::lease::Lease;
use super::principal::Principal;
use super::token::{self, TokenSource};
#[cfg(test)]
use super::verify::Verified;
use crate::message::reject::Reject;

/// The proof that a request satisfies its route. Only `Guard::authorize` and `AskGuard::judge` create one.
#[must_use = "whatever serves the request consumes its permit"]
pub(crate) struct Permit {
    pub(super) principal: Principal,
    pub(super) identity: Vec<(HeaderName, HeaderValue)>,
    /// Where the route looks for tokens.
    pub(super) places: Option<Arc<[TokenSource]>>,
    /// The header fields of API keys and passwords.
    pub(super) key_headers: Arc<[HeaderName]>,
    /// Whether the token is removed from them.
    pub(super) strips: bool,
    /// A lease of the token, where what the request opens has to end with it.
    pub(super) lease: Option<Lease>,
    pub(super) reported: Option<Reject>,
    /// Whether the response is for this client alone.
    pub(super) is_private: bool,
    /// Whether failed checks are only reported.
    pub(super) only_reports: bool,
    /// Client headers that are not sent to this route's app, although other routes forward them.
    pub(super) replaced: Arc<[HeaderName]>,
}

impl fmt::Debug for Permit {
    /// Claims and the headers made from them are never printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("principal", &self.principal)
            .finish_non_exhaustive()
    }
}

impl Permit {
    /// A permit for this principal, everything else empty.
    pub(super) fn of(principal: Principal) -> Self {
        Self {
            principal,
            identity: Vec::new(),
            places: None,
            key_headers: Arc::default(),
            strips: false,
            lease: None,
            reported: None,
            is_private: false,
            only_reports: false,
            replaced: Arc::default(),
        }
    }

    /// A permit without a request, for the tests of its consumers.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self::of(Principal::anonymous())
    }

    /// A permit for a token with these claims, for the tests of its consumers.
    #[cfg(test)]
    #[expect(clippy::needless_pass_by_value, reason = "rows read better")]
    pub(crate) fn with_claims(claims: serde_json::Value) -> Self {
        let members = claims.as_object().cloned().unwrap_or_default();
        let verified = Verified::of(Claims::new(members));
        Self::of(Principal::bearer(Arc::new(verified)))
    }

    /// Takes the lease of the token, where what the request opens has to end with it.
    pub(crate) fn take_lease(&mut self) -> Option<Lease> {
        self.lease.take()
    }

    /// Whether a token or another server's decision allowed the request, so that the response is for nobody else.
    pub(crate) fn is_private(&self) -> bool {
        self.is_private
    }

    /// Whether the request has an API key in a header of its own, which browsers never add by themselves.
    pub(crate) fn has_key_in_header(&self, headers: &HeaderMap) -> bool {
        let mut own = self.key_headers.iter();
        own.any(|name| *name != header::AUTHORIZATION && headers.contains_key(name))
    }

    /// Why the request would be rejected if the checks were enforced.
    pub(crate) fn reported(&self) -> Option<Reject> {
        self.reported
    }

    /// Whether a WebSocket client offered its token after the protocol `bearer`, and so waits for a protocol to be
    /// selected.
    pub(crate) fn offers_bearer(&self, headers: &HeaderMap) -> bool {
        let places = self.places.as_deref().unwrap_or_default();
        places.contains(&TokenSource::WebSocket) && token::offers_bearer(headers)
    }

    /// The client's headers that are not sent to this route's app; other routes forward them.
    pub(crate) fn replaced(&self) -> &[HeaderName] {
        &self.replaced
    }

    /// A claim as part of a header; `None` where it is absent, or where failed checks are only reported.
    ///
    /// # Errors
    /// `ClaimUnfit` where it cannot be one.
    pub(crate) fn claim(&self, path: &ClaimPath) -> Result<Option<HeaderValue>, Reject> {
        match self.principal.header(path) {
            Err(_) if self.only_reports => Ok(None),
            claim => claim,
        }
    }

    /// A claim that is a text.
    ///
    /// # Errors
    /// `Forbidden` where it is absent, and `ClaimUnfit` where it is something else.
    pub(crate) fn claim_as_name(&self, path: &ClaimPath) -> Result<&str, Reject> {
        match self.principal.claim(path).filter(|it| !it.is_null()) {
            None => Err(Reject::Forbidden),
            Some(claim) => claim.as_str().ok_or(Reject::ClaimUnfit),
        }
    }

    /// A claim as text: a text unchanged, anything else as JSON. `None` where it is absent or null.
    pub(crate) fn claim_text(&self, path: &ClaimPath) -> Option<Cow<'_, [u8]>> {
        self.principal.text(path)
    }

    /// The headers that tell the app who the user is; an absent claim gives none.
    pub(crate) fn identity(&self) -> &[(HeaderName, HeaderValue)] {
        &self.identity
    }

    /// Where the route has `strip_token`, removes the token from wherever it was: the field line of the scheme Bearer,
    /// or only that cookie or query parameter. Returns the new target where its query changed.
    pub(crate) fn strip_token(&self, headers: &mut HeaderMap, target: &str) -> Option<String> {
        let places = self.places.as_deref().filter(|_| self.strips)?;
        for name in &*self.key_headers {
            headers.remove(name);
        }
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let query = token::strip(headers, query, places)?;
        Some(if query.is_empty() {
            path.to_owned()
        } else {
            format!("{path}?{query}")
        })
    }
}
