//! Authentication and authorization of requests: `Guard` is what a route requires, `Permit` the proof that the
//! requirement was met. No upstream connection or file is opened without a `Permit`.

mod algorithm;
mod claims;
mod explain;
mod json;
mod jwk;
mod jws;
mod key_fault;
mod keys;
mod lease;
mod number;
mod pem;
mod policy;
mod principal;
mod provider;
mod public_key;
mod remembered;
mod remote;
mod revoked;
mod signing;
mod token;
mod verify;
mod witness;

#[cfg(test)]
mod rfc_examples;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod wycheproof;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Map, Value};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

pub(crate) use self::algorithm::Algorithm;
pub(crate) use self::claims::{ClaimPath, Claims};
pub(crate) use self::explain::faults_of;
pub(crate) use self::json::{parse_object, read_number};
#[cfg(any(test, fuzzing))]
pub(crate) use self::jws::token_holds;
pub(crate) use self::keys::{KeySet, KeySource, MAX_TRIES};
pub(crate) use self::lease::Lease;
pub(crate) use self::number::whole;
pub(crate) use self::policy::{Parameters, Requirement};
pub(crate) use self::principal::Principal;
pub(crate) use self::remembered::Remembered;
pub(crate) use self::remote::{
    Fetched, Location, NotFetched, RemoteKeys, RemoteSettings, jwks_uri,
};
pub(crate) use self::revoked::{Admitted, LiveRevoked, Revoked};
pub(crate) use self::signing::SigningKey;
pub(crate) use self::token::{TokenSource, tokens_of_cookies};
pub(crate) use self::verify::{Audience, Ended, Verifier, VerifierSettings};
pub(crate) use self::witness::{Says, Witness};

use self::jws::Jws;
use self::verify::{Dates, Lack, Stamp, Unsigned, Unverified, Verified};
use crate::message::reject::{Reject, TokenFault};

/// How many verifiers of a route are tried for one token.
const MAX_VERIFIERS: usize = 4;
/// The total time that a request waits for newer keys; slightly longer than a fetch takes.
const PATIENCE: Duration = Duration::from_secs(6);

/// What a route requires of a request.
#[derive(Debug)]
pub(crate) enum Guard {
    /// Nothing: `auth: none`.
    Open,
    /// A valid token.
    Jwt(Box<JwtGuard>),
    /// The decision of a server that is queried for each request.
    Ask(AskGuard),
}

/// A guard that queries another server.
#[derive(Debug)]
pub(crate) struct AskGuard {
    /// The response headers that are copied to the app.
    pub(crate) copy: Vec<HeaderName>,
}

impl AskGuard {
    /// Interprets a response with this status and these headers.
    ///
    /// # Errors
    /// `AskFailed` where the response does not say whether the request is allowed, or contradicts itself.
    pub(crate) fn judge(&self, status: StatusCode, headers: &HeaderMap) -> Result<Word, Reject> {
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            return Ok(Word::No);
        }
        if !status.is_success() {
            return Err(Reject::AskFailed);
        }
        let mut identity = Vec::with_capacity(self.copy.len());
        for name in &self.copy {
            let mut values = headers.get_all(name).iter();
            if let Some(value) = values.next() {
                identity.push((name.clone(), value.clone()));
            }
            if values.next().is_some() {
                return Err(Reject::AskFailed);
            }
        }
        Ok(Word::Yes(Permit {
            identity,
            is_private: true,
            replaced: credentials(&self.copy),
            ..Permit::of(Principal::anonymous())
        }))
    }
}

/// The credentials among these header names. The apps of other routes, and the server that is queried, receive them
/// unchanged.
fn credentials(names: &[HeaderName]) -> Arc<[HeaderName]> {
    let is_credential = |name: &&HeaderName| is_credential(name);
    names.iter().filter(is_credential).cloned().collect()
}

/// Whether clients authenticate themselves with this header.
pub(crate) fn is_credential(name: &HeaderName) -> bool {
    *name == AUTHORIZATION || *name == COOKIE
}

/// The decision of a server that was queried.
#[derive(Debug)]
pub(crate) enum Word {
    /// The request is allowed.
    Yes(Permit),
    /// It is denied, and the client gets that server's response.
    No,
}

/// The settings of a guard that requires a token.
#[derive(Debug)]
pub(crate) struct JwtGuardSettings {
    /// The verifiers, any of which may accept the token; the first one names the realm.
    pub(crate) verifiers: Vec<Arc<Verifier>>,
    /// Whether requests without a token are allowed.
    pub(crate) optional: bool,
    /// The requirements on the claims.
    pub(crate) require: Option<Requirement>,
    /// Which claims are sent to the app, in which headers.
    pub(crate) forward: Vec<(HeaderName, ClaimPath)>,
    /// Whether the token is removed from the request.
    pub(crate) strip_token: bool,
    /// Whether requests that fail the checks are allowed and only reported.
    pub(crate) only_reports: bool,
    /// Whether a tunnel or a response in progress is closed when the token ends.
    pub(crate) ends_with_token: bool,
}

/// A guard that requires a token.
#[derive(Debug)]
pub(crate) struct JwtGuard {
    /// Each verifier with the places in which its tokens are accepted, as bits of `places`.
    verifiers: Vec<(Arc<Verifier>, u64)>,
    /// Where to look for tokens.
    places: Arc<[TokenSource]>,
    optional: bool,
    require: Option<Requirement>,
    forward: Vec<(HeaderName, ClaimPath)>,
    strip_token: bool,
    only_reports: bool,
    ends_with_token: bool,
    /// How many requests were allowed although they failed the checks.
    reported: AtomicU64,
    /// The credentials among the headers in which it forwards claims.
    replaced: Arc<[HeaderName]>,
}

impl JwtGuard {
    /// Creates a guard from these settings. Without verifiers it accepts no token.
    pub(crate) fn new(settings: JwtGuardSettings) -> Self {
        let mut places: Vec<TokenSource> = Vec::new();
        for place in settings
            .verifiers
            .iter()
            .flat_map(|verifier| verifier.places())
        {
            if !places.contains(place) {
                places.push(place.clone());
            }
        }
        let bits = |verifier: &Verifier| {
            places
                .iter()
                .zip(0_u32..u64::BITS)
                .filter(|(place, _)| verifier.places().contains(place))
                .fold(0, |bits, (_, at)| bits | 1_u64 << at)
        };
        let verifiers = settings
            .verifiers
            .into_iter()
            .map(|verifier| {
                let bits = bits(&verifier);
                (verifier, bits)
            })
            .collect();
        let forwarded: Vec<HeaderName> = settings
            .forward
            .iter()
            .map(|(name, _)| name.clone())
            .collect();
        let replaced = credentials(&forwarded);
        Self {
            verifiers,
            places: places.into(),
            optional: settings.optional,
            require: settings.require,
            forward: settings.forward,
            strip_token: settings.strip_token,
            only_reports: settings.only_reports,
            ends_with_token: settings.ends_with_token,
            reported: AtomicU64::new(0),
            replaced,
        }
    }

    /// Whether every request is allowed, and failed checks are only reported.
    pub(crate) fn only_reports(&self) -> bool {
        self.only_reports
    }

    /// Whether every request without a token is allowed.
    pub(crate) fn is_optional(&self) -> bool {
        self.optional && self.require.is_none()
    }

    /// How many requests were allowed only because failed checks are merely reported.
    pub(crate) fn reported(&self) -> u64 {
        self.reported.load(Ordering::Relaxed)
    }

    /// The issuers from which clients can get a token (RFC 8414): those with public keys whose name is a URL.
    fn authorization_servers(&self) -> impl Iterator<Item = &str> {
        let issuers = self
            .verifiers
            .iter()
            .filter(|(verifier, _)| verifier.is_of_an_authorization_server())
            .flat_map(|(verifier, _)| verifier.issuers());
        issuers.filter(|issuer| issuer.starts_with("https://") || issuer.starts_with("http://"))
    }

    /// A lease of a principal's token, for whatever has to end with it.
    fn lease(&self, principal: &Principal) -> Option<Lease> {
        let verified = principal.verified()?;
        let mut verifiers = self.verifiers.iter().map(|(verifier, _)| verifier);
        let verifier = verifiers.find(|verifier| verified.is_by(verifier))?;
        Some(Lease::new(Arc::clone(verified), Arc::clone(verifier)))
    }

    /// The realm of its challenges.
    fn realm(&self) -> &str {
        self.verifiers
            .first()
            .map_or("portcullis", |(first, _)| first.name())
    }

    /// The headers that tell the app who the user is; copies sent by clients are removed on every route.
    pub(crate) fn identity_names(&self) -> impl Iterator<Item = &HeaderName> {
        self.forward.iter().map(|(name, _)| name)
    }

    /// The verifiers that check a token from these places: those whose issuer the token names, or all of them if none
    /// matches.
    fn candidates<'g, 'i>(
        &'g self,
        places: u64,
        issuer: Option<&'i str>,
    ) -> impl Iterator<Item = &'g Arc<Verifier>> + Clone + use<'g, 'i> {
        let listed = self
            .verifiers
            .iter()
            .filter(move |(_, bits)| bits & places != 0)
            .map(|(verifier, _)| verifier);
        let by_issuer = listed.clone().any(|verifier| verifier.has_issuer(issuer));
        listed.filter(move |verifier| !by_issuer || verifier.has_issuer(issuer))
    }

    /// Checks the route's requirements on the claims.
    fn check(&self, principal: &Principal, params: &Parameters<'_>) -> Result<(), Reject> {
        if principal.is_anonymous() && !self.optional {
            return Err(Reject::TokenMissing);
        }
        let satisfied = self
            .require
            .as_ref()
            .is_none_or(|require| match principal.claims() {
                Some(claims) => require.is_satisfied(claims, params),
                None => require.is_satisfied(&Claims::default(), params),
            });
        match satisfied {
            true => Ok(()),
            false if principal.is_anonymous() => Err(Reject::TokenMissing),
            false => Err(Reject::Forbidden),
        }
    }

    /// Verifies the tokens of several cookies of one name. The valid one is used; of several valid ones, the one that
    /// was issued last. The user must not be in doubt, because another host of the domain may have set a cookie of
    /// that name.
    fn verify_one_of(
        &self,
        found: token::Found<'_>,
        remembered: &Remembered,
        now: SystemTime,
    ) -> Result<Arc<Verified>, Unauthenticated> {
        let mut best: Option<Arc<Verified>> = None;
        let mut refused = None;
        for found in found.each() {
            let verified = match self.verify(&found, remembered, now) {
                Ok(verified) => verified,
                Err(why) => {
                    refused.get_or_insert(why);
                    continue;
                }
            };
            let claim = |of: &Verified, name| of.claims().get(name).cloned();
            let issued = |of: &Verified| claim(of, "iat").and_then(|iat| iat.as_f64());
            let Some(other) = &best else {
                best = Some(verified);
                continue;
            };
            if ["iss", "sub"]
                .iter()
                .any(|name| claim(other, name) != claim(&verified, name))
            {
                let why = "cookies of one name are good, and of different users";
                return Err(Reject::TokenMalformed(why).into());
            }
            if issued(&verified) > issued(other) {
                best = Some(verified);
            }
        }
        let none = || Reject::TokenMissing.into();
        best.ok_or_else(|| refused.unwrap_or_else(none))
    }

    /// Verifies a token, or finds it in the cache of verified tokens.
    fn verify(
        &self,
        found: &token::Found<'_>,
        remembered: &Remembered,
        now: SystemTime,
    ) -> Result<Arc<Verified>, Unauthenticated> {
        // A cached token gets the same result as a fresh one would on this very route.
        let known = remembered.find(&found.token, |stamp, verified| {
            let candidates = self.candidates(found.places, issuer(verified.claims()));
            candidates.clone().count() <= MAX_VERIFIERS
                && candidates
                    .filter(|verifier| verifier.stamp() == stamp)
                    .any(|verifier| verifier.is_still_right(verified, now))
        });
        if let Some(verified) = known {
            return Ok(verified);
        }
        let jws = Jws::parse_with(found.text()?, |part| remembered.header(part));
        let unverified = |fault| Refused::from(Unverified::Token(fault));
        let jws = jws.map_err(unverified)?;
        let mut all = self.candidates(found.places, None);
        let (stamp, verified) = if let (Some(only), None) = (all.next(), all.next()) {
            verify_by_one(only, &jws, now)?
        } else {
            // The issuer is read before the signature is checked, but only to choose the verifier.
            let claims = jws.claims().map_err(unverified)?;
            let (stamp, verifier, dates) = self.verify_by_any(&jws, &claims, found.places, now)?;
            (stamp, verifier.found(claims, dates))
        };
        let verified = Arc::new(verified);
        remembered.keep_header(jws.header_part(), &jws.header);
        remembered.insert(&found.token, stamp, Arc::clone(&verified));
        Ok(verified)
    }

    fn verify_by_any(
        &self,
        jws: &Jws<'_>,
        claims: &Claims,
        places: u64,
        now: SystemTime,
    ) -> Result<(Stamp, &Arc<Verifier>, Dates), Refused> {
        let candidates = self.candidates(places, issuer(claims));
        let fitting = || {
            candidates
                .clone()
                .filter(|verifier| verifier.fits(jws))
                .take(MAX_VERIFIERS)
        };
        let (mut why, mut wrong_claims, mut lacks) = (None, None, Vec::new());
        for verifier in fitting() {
            let stamp = verifier.stamp();
            if let Err(Unsigned { why: wrong, lack }) = verifier.check_signature(jws) {
                lacks.extend(lack);
                why = match (why, wrong) {
                    // A verifier without keys might have accepted the token.
                    (_, Unverified::NoKeys) | (None, _) => Some(wrong),
                    (why @ Some(_), Unverified::Token(_)) => why,
                };
                continue;
            }
            match verifier.check_claims(jws.typ.as_deref(), claims, now) {
                Ok(dates) => return Ok((stamp, verifier, dates)),
                Err(wrong) => wrong_claims = Some(wrong),
            }
        }
        if let Some(wrong) = wrong_claims {
            // The token is that verifier's own, so its error says the most.
            return Err(Unverified::Token(wrong).into());
        }
        // If no verifier fits, report the error of the first.
        let unfit = || Some(candidates.clone().next()?.check_signature(jws).err()?.why);
        let why = why
            .or_else(unfit)
            .unwrap_or(Unverified::Token(TokenFault::UnknownKey));
        Err(Refused { why, lacks })
    }
}

fn verify_by_one(
    verifier: &Verifier,
    jws: &Jws<'_>,
    now: SystemTime,
) -> Result<(Stamp, Verified), Refused> {
    let stamp = verifier.stamp();
    verifier.check_signature(jws).map_err(|unsigned| Refused {
        why: unsigned.why,
        lacks: unsigned.lack.into_iter().collect(),
    })?;
    let claims = jws.claims().map_err(Unverified::from)?;
    let dates = verifier.check_claims(jws.typ.as_deref(), &claims, now);
    let dates = dates.map_err(Unverified::from)?;
    Ok((stamp, verifier.found(claims, dates)))
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

/// A token that was not accepted.
struct Refused {
    why: Unverified,
    /// The key sets of which a newer version may contain its key.
    lacks: Vec<Lack>,
}

impl From<Unverified> for Refused {
    fn from(why: Unverified) -> Self {
        Self {
            why,
            lacks: Vec::new(),
        }
    }
}

/// A request that could not be authenticated with the keys at hand.
#[derive(Debug)]
pub(crate) struct Unauthenticated {
    /// The reason.
    pub(crate) reject: Reject,
    /// The key sets of which a newer version may change the result.
    lacks: Vec<Lack>,
}

impl From<Reject> for Unauthenticated {
    fn from(reject: Reject) -> Self {
        Self {
            reject,
            lacks: Vec::new(),
        }
    }
}

impl From<Refused> for Unauthenticated {
    fn from(refused: Refused) -> Self {
        Self {
            reject: match refused.why {
                Unverified::Token(fault) => Reject::TokenInvalid(fault),
                Unverified::NoKeys => Reject::KeysMissing,
            },
            lacks: refused.lacks,
        }
    }
}

fn issuer(claims: &Claims) -> Option<&str> {
    claims.get("iss").and_then(Value::as_str)
}

impl Guard {
    /// Authenticates the request: exactly one token in the places that the route's verifiers list, with a valid
    /// signature and valid registered claims. If the token's key is unknown, waits for a newer key set, where one may
    /// be requested from the issuer.
    ///
    /// # Errors
    /// `TokenMissing`, `TokenMalformed`, `TokenInvalid` or `KeysMissing`.
    pub(crate) async fn authenticate(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        remembered: &Remembered,
        now: SystemTime,
    ) -> Result<Principal, Reject> {
        let mut deadline = None;
        loop {
            let refused = match self.authenticate_at_once(headers, query, remembered, now) {
                Ok(principal) => return Ok(principal),
                Err(refused) => refused,
            };
            // Where failed checks are only reported, do not wait for keys.
            let waits = !refused.lacks.is_empty() && !self.only_reports();
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
            let news = async { waits && any_newer(refused.lacks).await };
            if !timeout_at(deadline, news).await.unwrap_or(false) {
                return self.let_pass(refused.reject);
            }
        }
    }

    /// Whether a claim is compared with the path parameter of this name.
    pub(crate) fn uses_parameter(&self, name: &str) -> bool {
        match self {
            Self::Jwt(guard) => {
                let require = guard.require.as_ref();
                require.is_some_and(|require| require.uses_parameter(name))
            }
            Self::Open | Self::Ask(_) => false,
        }
    }

    fn only_reports(&self) -> bool {
        match self {
            Self::Jwt(guard) => guard.only_reports,
            Self::Open | Self::Ask(_) => false,
        }
    }

    /// Counts a request that was allowed although it failed the checks.
    pub(crate) fn count_reported(&self) {
        if let Self::Jwt(guard) = self {
            guard.reported.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// An anonymous principal with this reason, where failed checks are only reported.
    ///
    /// # Errors
    /// The reason, where they are enforced.
    pub(crate) fn let_pass(&self, reject: Reject) -> Result<Principal, Reject> {
        match self {
            Self::Jwt(_) if self.only_reports() => Ok(Principal::unknown(reject)),
            Self::Jwt(_) | Self::Open | Self::Ask(_) => Err(reject),
        }
    }

    /// The same, with the keys at hand.
    ///
    /// # Errors
    /// As [`Guard::authenticate`].
    pub(crate) fn authenticate_at_once(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        remembered: &Remembered,
        now: SystemTime,
    ) -> Result<Principal, Unauthenticated> {
        let Self::Jwt(guard) = self else {
            return Ok(Principal::anonymous());
        };
        match token::find(headers, query, &guard.places)? {
            Some(found) => {
                let verified = if found.rivals.is_empty() {
                    guard.verify(&found, remembered, now)?
                } else {
                    guard.verify_one_of(found, remembered, now)?
                };
                Ok(Principal::bearer(verified))
            }
            None if guard.optional => Ok(Principal::anonymous()),
            None => Err(Reject::TokenMissing.into()),
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
        params: &Parameters<'_>,
    ) -> Result<Permit, Reject> {
        let guard = match self {
            Self::Open => return Ok(Permit::of(principal)),
            Self::Jwt(guard) => guard,
            // Only the server that is queried can decide.
            Self::Ask(_) => return Err(Reject::AskFailed),
        };
        let mut reported = principal.refused();
        if let Err(reject) = guard.check(&principal, params) {
            if !guard.only_reports {
                return Err(reject);
            }
            reported = reported.or(Some(reject));
        }
        let mut identity = Vec::with_capacity(guard.forward.len());
        for (name, claim) in &guard.forward {
            match principal.header(claim) {
                Ok(Some(value)) => identity.push((name.clone(), value)),
                Ok(None) => {}
                Err(reject) if guard.only_reports => reported = reported.or(Some(reject)),
                Err(reject) => return Err(reject),
            }
        }
        Ok(Permit {
            is_private: !principal.is_anonymous() || reported.is_some(),
            lease: guard
                .ends_with_token
                .then(|| guard.lease(&principal))
                .flatten(),
            principal,
            identity,
            places: Some(Arc::clone(&guard.places)),
            strips: guard.strip_token,
            reported,
            only_reports: guard.only_reports,
            replaced: Arc::clone(&guard.replaced),
        })
    }

    /// The document that tells a client without a token where to get one (RFC 9728 section 2), for a resource of this
    /// URL. `None` where no configured issuer is a URL.
    pub(crate) fn metadata(&self, resource: &str) -> Option<String> {
        let Self::Jwt(guard) = self else { return None };
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
        Some(Value::Object(metadata).to_string())
    }

    /// Whether [`Guard::metadata`] returns a document.
    pub(crate) fn has_metadata(&self) -> bool {
        match self {
            Self::Open | Self::Ask(_) => false,
            Self::Jwt(guard) => guard.authorization_servers().next().is_some(),
        }
    }

    /// `WWW-Authenticate` for a request that this guard rejected (RFC 6750 section 3); `None` for reasons without one.
    /// `metadata` returns the URL of [`Guard::metadata`] (RFC 9728 section 5.1).
    pub(crate) fn challenge(
        &self,
        reject: Reject,
        metadata: impl FnOnce() -> Option<String>,
    ) -> Option<HeaderValue> {
        let Self::Jwt(guard) = self else { return None };
        let mut challenge = format!("Bearer realm={}", quoted(guard.realm()));
        let mut add = |name: &str, value: &str| {
            challenge.extend([", ", name, "=", &quoted(value)]);
        };
        match reject {
            Reject::TokenMissing => {}
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
            | Reject::KeysMissing
            | Reject::AskFailed
            | Reject::AskDenied { .. }
            | Reject::OriginRefused
            | Reject::ClaimUnfit
            | Reject::FileNotFound
            | Reject::FileForbidden
            | Reject::PreconditionFailed
            | Reject::RangeNotSatisfiable(_)
            | Reject::UpstreamUnreachable
            | Reject::UpstreamInvalid
            | Reject::UpstreamTimeout
            | Reject::UpstreamBusy
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
}

impl Guard {
    /// The second `WWW-Authenticate` of a rejected request, for clients that send a token as the password of Basic
    /// (RFC 7617 section 2), and only when challenged; `None` where no verifier of the route accepts that.
    pub(crate) fn basic_challenge(&self, reject: Reject) -> Option<HeaderValue> {
        let Self::Jwt(guard) = self else { return None };
        if reject.status() != StatusCode::UNAUTHORIZED
            || !guard.places.contains(&TokenSource::Basic)
        {
            return None;
        }
        let realm = quoted(guard.realm());
        HeaderValue::try_from(format!("Basic realm={realm}, charset=\"UTF-8\"")).ok()
    }
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

/// The proof that a request satisfies its route. Only [`Guard::authorize`] and [`AskGuard::judge`] create one.
#[must_use = "whatever serves the request consumes its permit"]
pub(crate) struct Permit {
    principal: Principal,
    identity: Vec<(HeaderName, HeaderValue)>,
    /// Where the route looks for tokens.
    places: Option<Arc<[TokenSource]>>,
    /// Whether the token is removed from them.
    strips: bool,
    /// A lease of the token, where what the request opens has to end with it.
    lease: Option<Lease>,
    reported: Option<Reject>,
    /// Whether the response is for this client alone.
    is_private: bool,
    /// Whether failed checks are only reported.
    only_reports: bool,
    /// Client headers that are not sent to this route's app, although other routes forward them.
    replaced: Arc<[HeaderName]>,
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
    fn of(principal: Principal) -> Self {
        Self {
            principal,
            identity: Vec::new(),
            places: None,
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

    /// Takes the lease of the token, where what the request opens has to end with it.
    pub(crate) fn take_lease(&mut self) -> Option<Lease> {
        self.lease.take()
    }

    /// Whether a token or another server's decision allowed the request, so that the response is for nobody else.
    pub(crate) fn is_private(&self) -> bool {
        self.is_private
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

    /// The headers that tell the app who the user is; an absent claim gives none.
    pub(crate) fn identity(&self) -> &[(HeaderName, HeaderValue)] {
        &self.identity
    }

    /// Where the route has `strip_token`, removes the token from wherever it was: the field line of the scheme Bearer,
    /// or only that cookie or query parameter. Returns the new query where it changed; an empty one means that the
    /// target no longer needs a `?`.
    pub(crate) fn strip_token(
        &self,
        headers: &mut HeaderMap,
        query: Option<&str>,
    ) -> Option<String> {
        let places = self.places.as_deref().filter(|_| self.strips)?;
        token::strip(headers, query, places)
    }
}

#[cfg(test)]
mod tests;
