//! `Guard`: what a route requires. It authenticates a request, and authorizes whoever sent it. How a rejected client
//! is told what it lacks is said in `challenge`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, StatusCode};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::api_key::ApiKeys;
use super::ask::{AskGuard, Word};
use super::basic::BasicUsers;
use super::certificate::{self, CertificateRule, Certified};
use super::claims::ClaimPath;
use super::jwt_guard::{JwtGuard, Unauthenticated};
use super::permit::Permit;
use super::policy::Parameters;
use super::principal::Principal;
use super::remembered::Remembered;
use super::token;
use super::verify::Lack;
use crate::message::reject::Reject;
use crate::net::tls::ClientCertificate;

/// The total time that a request waits for newer keys; slightly longer than a fetch takes.
const PATIENCE: Duration = Duration::from_secs(6);

/// What a route requires of a request.
#[derive(Debug)]
pub(crate) struct Guard {
    /// What it makes of the client's certificate.
    certificate: Option<Box<CertificateRule>>,
    scheme: Scheme,
    /// How many requests were allowed although they failed the checks.
    reported: AtomicU64,
}

/// How clients authenticate themselves, beside their certificate.
#[derive(Debug)]
pub(crate) enum Scheme {
    /// They need not: `auth: none`, or the certificate is enough.
    Open,
    /// By a valid token.
    Jwt(Box<JwtGuard>),
    /// By the decision of a server that is queried for each request.
    Ask(AskGuard),
}

impl Guard {
    /// Requires what the scheme and the rule for certificates do.
    pub(crate) fn new(scheme: Scheme, certificate: Option<CertificateRule>) -> Self {
        Self {
            certificate: certificate.map(Box::new),
            scheme,
            reported: AtomicU64::new(0),
        }
    }

    /// Requires nothing.
    pub(crate) fn open() -> Self {
        Self::new(Scheme::Open, None)
    }

    /// How clients authenticate themselves, beside their certificate.
    pub(crate) fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// The rule for certificates.
    pub(crate) fn certificate(&self) -> Option<&CertificateRule> {
        self.certificate.as_deref()
    }

    /// Whether clients need a certificate.
    pub(crate) fn demands_certificate(&self) -> bool {
        self.certificate().is_some_and(|rule| rule.demand.is_some())
    }

    /// Whether it requires nothing.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.scheme, Scheme::Open) && !self.demands_certificate()
    }

    /// Whether every request is allowed, with a token or without one.
    pub(crate) fn is_optional(&self) -> bool {
        let optional = self.jwt().is_some_and(JwtGuard::is_optional);
        optional && !self.demands_certificate()
    }

    /// The tokens that it accepts, where it accepts any.
    pub(super) fn jwt(&self) -> Option<&JwtGuard> {
        match &self.scheme {
            Scheme::Jwt(guard) => Some(guard),
            Scheme::Open | Scheme::Ask(_) => None,
        }
    }

    /// The API keys that it accepts, where it accepts any.
    pub(crate) fn api_keys(&self) -> Option<&ApiKeys> {
        self.jwt()?.keys.as_ref()
    }

    /// The users whose passwords it accepts, where it accepts any.
    pub(crate) fn basic(&self) -> Option<&BasicUsers> {
        self.jwt()?.basic.as_deref()
    }

    /// Looks at the client's certificate, before anything else.
    ///
    /// # Errors
    /// `CertificateMissing` or `CertificateRefused`.
    pub(crate) fn certify<'c>(
        &self,
        certificate: Option<&'c Arc<ClientCertificate>>,
        now: SystemTime,
    ) -> Result<Certified<'c>, Reject> {
        match &self.certificate {
            None => Ok(certificate::unasked(certificate)),
            Some(rule) => rule.certify(certificate, now),
        }
    }

    /// Authenticates the request: exactly one token in the places that the route's verifiers list, with a valid
    /// signature and valid registered claims. If the token's key is unknown, waits for a newer key set, where one may
    /// be requested from the issuer. Where users have passwords, theirs instead.
    ///
    /// # Errors
    /// `TokenMissing`, `TokenMalformed`, `TokenInvalid` or `KeysMissing`; those of API keys and of passwords.
    pub(crate) async fn authenticate(
        &self,
        certified: &Certified<'_>,
        headers: &HeaderMap,
        query: Option<&str>,
        remembered: &Remembered,
        now: SystemTime,
    ) -> Result<Principal, Reject> {
        if let Some(basic) = self.basic() {
            let user = Box::pin(basic.authenticate(headers, remembered, now)).await;
            return user.map(Principal::bearer);
        }
        let mut deadline = None;
        loop {
            let authenticated =
                self.authenticate_at_once(certified, headers, query, remembered, now);
            let mut refused = match authenticated {
                Ok(principal) => return Ok(principal),
                Err(refused) => refused,
            };
            let lacks = std::mem::take(&mut refused.lacks);
            // Where failed checks are only reported, do not wait for keys.
            let waits = !lacks.is_empty() && !self.only_reports();
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
            let news = async { waits && any_newer(lacks).await };
            if !timeout_at(deadline, news).await.unwrap_or(false) {
                refused.count(remembered);
                return self.let_pass(refused.reject);
            }
        }
    }

    /// Whether a claim is compared with the path parameter of this name.
    pub(crate) fn uses_parameter(&self, name: &str) -> bool {
        let require = self.jwt().and_then(|guard| guard.require.as_ref());
        require.is_some_and(|require| require.uses_parameter(name))
    }

    /// Whether every request is allowed, and failed checks are only reported.
    pub(crate) fn only_reports(&self) -> bool {
        match &self.scheme {
            Scheme::Jwt(guard) => guard.only_reports,
            Scheme::Open => self.certificate().is_some_and(|rule| rule.only_reports),
            Scheme::Ask(_) => false,
        }
    }

    /// Counts a request that was allowed although it failed the checks.
    pub(crate) fn count_reported(&self) {
        self.reported.fetch_add(1, Ordering::Relaxed);
    }

    /// How many requests were allowed only because failed checks are merely reported.
    pub(crate) fn reported(&self) -> u64 {
        self.reported.load(Ordering::Relaxed)
    }

    /// The headers that tell the app who the client is; copies sent by clients are removed on every route.
    pub(crate) fn identity_names(&self) -> impl Iterator<Item = &HeaderName> {
        let (claims, copied): (&[(HeaderName, ClaimPath)], &[HeaderName]) = match &self.scheme {
            Scheme::Open => (&[], &[]),
            Scheme::Jwt(guard) => (&guard.forward, &[]),
            Scheme::Ask(guard) => (&[], &guard.copy),
        };
        let parts = self
            .certificate()
            .into_iter()
            .flat_map(|rule| &rule.forward);
        let claims = claims.iter().map(|(name, _)| name);
        claims.chain(copied).chain(parts.map(|(name, _)| name))
    }

    /// An anonymous principal with this reason, where failed checks are only reported.
    ///
    /// # Errors
    /// The reason, where they are enforced.
    pub(crate) fn let_pass(&self, reject: Reject) -> Result<Principal, Reject> {
        match &self.scheme {
            Scheme::Jwt(_) if self.only_reports() => Ok(Principal::unknown(reject)),
            Scheme::Jwt(_) | Scheme::Open | Scheme::Ask(_) => Err(reject),
        }
    }

    /// The same, with the keys at hand. Passwords are hashed on this thread.
    ///
    /// # Errors
    /// As [`Guard::authenticate`].
    pub(crate) fn authenticate_at_once(
        &self,
        certified: &Certified<'_>,
        headers: &HeaderMap,
        query: Option<&str>,
        remembered: &Remembered,
        now: SystemTime,
    ) -> Result<Principal, Unauthenticated> {
        let Scheme::Jwt(guard) = &self.scheme else {
            return Ok(Principal::anonymous());
        };
        if let Some(basic) = &guard.basic {
            return Ok(Principal::bearer(basic.verify(headers)?));
        }
        let key = match &guard.keys {
            Some(keys) => keys.verify(headers, query, now)?,
            None => None,
        };
        match token::find(headers, query, &guard.places)? {
            // With a key beside it, both must be valid, and the token decides.
            Some(found) => {
                let holder = certified.holder();
                let verified = if found.rivals.is_empty() {
                    guard.verify(&found, holder, remembered, now)?
                } else {
                    guard.verify_one_of(found, holder, remembered, now)?
                };
                Ok(Principal::bearer(verified))
            }
            None => match key {
                Some(key) => Ok(Principal::bearer(key)),
                None if guard.optional => Ok(Principal::anonymous()),
                None => Err(guard.missing().into()),
            },
        }
    }

    /// Authorizes the principal: the route's `require` holds, and the claims can be written as headers. `params` are
    /// the route's path parameters.
    ///
    /// # Errors
    /// `Forbidden` where the claims do not satisfy the route, and `TokenMissing` where an anonymous principal does
    /// not; `ClaimUnfit` where a claim cannot be a header; `AskFailed` where another server has to decide.
    pub(crate) fn authorize(
        &self,
        principal: Principal,
        certified: &Certified<'_>,
        params: &Parameters<'_>,
    ) -> Result<Permit, Reject> {
        let mut permit = match &self.scheme {
            Scheme::Open => Permit::of(principal),
            Scheme::Jwt(guard) => guard.authorize(principal, params)?,
            // Only the server that is queried can decide.
            Scheme::Ask(_) => return Err(Reject::AskFailed),
        };
        self.add_certificate(&mut permit, certified);
        Ok(permit)
    }

    /// Interprets the response of the server that is queried.
    ///
    /// # Errors
    /// `AskFailed` where the response does not say whether the request is allowed, or contradicts itself.
    pub(crate) fn judge(
        &self,
        certified: &Certified<'_>,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Result<Word, Reject> {
        let Scheme::Ask(guard) = &self.scheme else {
            return Err(Reject::AskFailed);
        };
        let mut word = guard.judge(status, headers)?;
        if let Word::Yes(permit) = &mut word {
            self.add_certificate(permit, certified);
        }
        Ok(word)
    }

    fn add_certificate(&self, permit: &mut Permit, certified: &Certified<'_>) {
        let Some(rule) = &self.certificate else {
            return;
        };
        permit.identity.extend(rule.headers(certified));
        permit.is_private |= rule.demand.is_some() || certified.has_certificate();
        permit.reported = certified.reported().or(permit.reported);
    }
}

impl JwtGuard {
    /// Authorizes the principal by its token alone.
    fn authorize(&self, principal: Principal, params: &Parameters<'_>) -> Result<Permit, Reject> {
        let mut reported = principal.refused();
        if let Err(reject) = self.check(&principal, params) {
            if !self.only_reports {
                return Err(reject);
            }
            reported = reported.or(Some(reject));
        }
        let mut identity = Vec::with_capacity(self.forward.len());
        for (name, claim) in &self.forward {
            match principal.header(claim) {
                Ok(Some(value)) => identity.push((name.clone(), value)),
                Ok(None) => {}
                Err(reject) if self.only_reports => reported = reported.or(Some(reject)),
                Err(reject) => return Err(reject),
            }
        }
        Ok(Permit {
            is_private: !principal.is_anonymous() || reported.is_some(),
            lease: self
                .ends_with_token
                .then(|| self.lease(&principal))
                .flatten(),
            principal,
            identity,
            places: Some(Arc::clone(&self.stripped)),
            key_headers: Arc::clone(&self.key_headers),
            strips: self.strip_token,
            reported,
            only_reports: self.only_reports,
            replaced: Arc::clone(&self.replaced),
        })
    }
}

/// Waits until one of these key sets was fetched again; returns whether one was.
async fn any_newer(lacks: Vec<Lack>) -> bool {
    let mut waiting = JoinSet::new();
    for Lack { keys, fetches } in lacks {
        waiting.spawn(async move { keys.newer(fetches).await });
    }
    while let Some(came) = waiting.join_next().await {
        if came.unwrap_or(false) {
            return true;
        }
    }
    false
}
