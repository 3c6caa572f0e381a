//! `Verifier`: is this token genuine, and are its registered claims valid (RFC 7519 section 4.1)? What the token
//! permits is decided by `policy`; signatures are checked by `keys`.

mod why;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::algorithm::{Algorithm, AlgorithmSet};
use super::binding::{Binding, Cnf, Holder};
use super::claims::{ClaimPath, Claims, equal};
use super::jws::Jws;
use super::key_fault::KeyFault;
use super::keys::{KeySet, KeySource, ShortSecrets};
use super::remote::RemoteKeys;
use super::revoked::{Admitted, LiveRevoked, Revoked};
use super::token::{MAX_BYTES, TokenSource};
use crate::message::reject::TokenFault;
use crate::observe::counts::{Lanes, TokenLane};

/// The settings of a verifier; one with equal settings is preserved across a reload.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct VerifierSettings {
    /// The name, which is also the realm of its challenges.
    pub(crate) name: String,
    /// The accepted algorithms; may be empty with key sets.
    pub(crate) algorithms: Vec<Algorithm>,
    /// Where the keys come from; empty where the keys are at a URL.
    pub(crate) keys: Vec<KeySource>,
    /// The keys at a URL.
    pub(crate) remote: Option<Arc<RemoteKeys>>,
    /// The accepted values of `iss`; it is not checked where the list is empty.
    pub(crate) issuer: Vec<String>,
    /// The requirement on `aud`.
    pub(crate) audience: Audience,
    /// The allowed clock difference between issuer and gateway.
    pub(crate) leeway: Duration,
    /// How much further in the future `iat` may be: it grants nothing.
    pub(crate) iat_ahead: Duration,
    /// Whether a token must have an `exp`.
    pub(crate) require_exp: bool,
    /// The maximum time between `iat` and `exp`.
    pub(crate) max_lifetime: Option<Duration>,
    /// The required `typ`, with or without `application/`.
    pub(crate) typ: Option<String>,
    /// Claims that must be present with this value.
    pub(crate) claims: Vec<(ClaimPath, Value)>,
    /// What a token's `cnf` demands of the client's certificate.
    pub(crate) cnf: Cnf,
    /// Where the token is accepted; only in the header where the list is empty.
    pub(crate) from: Vec<TokenSource>,
    /// Whether secrets shorter than the hash are accepted.
    pub(crate) weak_secret: bool,
    /// The revoked tokens. A verifier that differs in nothing else is the same one.
    pub(crate) revoked: Revoked,
    /// Revocations at run time.
    pub(crate) live: Option<Arc<LiveRevoked>>,
    /// The users who may have sessions; like `revoked`, a change makes no other verifier.
    pub(crate) admitted: Option<Arc<Admitted>>,
}

impl VerifierSettings {
    /// Whether the other settings make the same verifier, except for the revoked tokens.
    fn make_the_same_as(&self, other: &Self) -> bool {
        let like_other = Self {
            revoked: other.revoked.clone(),
            admitted: other.admitted.clone(),
            ..self.clone()
        };
        like_other == *other
    }
}

/// The requirement on `aud` (RFC 7519 section 4.1.3).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Audience {
    /// The verifier names no audience: a token that has one is meant for another recipient.
    Unset,
    /// Any audience.
    Any,
    /// One of these.
    OneOf(Vec<String>),
}

/// Identifies a verifier among all that this process ever created.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct VerifierId(u64);

impl VerifierId {
    /// An id that no other verifier has.
    pub(crate) fn fresh() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Which verifier accepted a token, with which state of its keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Stamp {
    verifier: VerifierId,
    epoch: u64,
}

impl Stamp {
    /// Whether the other one is of the same verifier, with the same or newer keys.
    pub(super) fn is_replaced_by(self, other: Self) -> bool {
        self.verifier == other.verifier && self.epoch <= other.epoch
    }

    /// Two states of one verifier's keys, the older one first.
    #[cfg(test)]
    pub(super) fn two_states() -> (Self, Self) {
        let older = Self::fresh();
        let epoch = older.epoch + 1;
        (older, Self { epoch, ..older })
    }

    /// A stamp that no other verifier has.
    #[cfg(test)]
    pub(super) fn fresh() -> Self {
        Self {
            verifier: VerifierId::fresh(),
            epoch: 0,
        }
    }
}

/// Why a token was not accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Unverified {
    /// A check of it failed.
    Token(TokenFault),
    /// The keys that would verify it are not available.
    NoKeys,
}

/// A token whose signature was not verified.
#[derive(Debug)]
pub(crate) struct Unsigned {
    /// Why.
    pub(crate) why: Unverified,
    /// The key set of which a newer version may change that.
    pub(crate) lack: Option<Lack>,
}

/// A key set that does not contain a token's key.
#[derive(Debug)]
pub(crate) struct Lack {
    /// The keys.
    pub(crate) keys: Arc<RemoteKeys>,
    /// How many fetches had ended before.
    pub(crate) fetches: u64,
}

impl From<TokenFault> for Unverified {
    fn from(fault: TokenFault) -> Self {
        Self::Token(fault)
    }
}

/// A token that a verifier accepted.
#[derive(Debug, Default)]
pub(crate) struct Verified {
    claims: Claims,
    terms: Terms,
    /// The verifier that accepted it.
    by: Option<VerifierId>,
}

impl Verified {
    /// The claims of who has no token, without dates.
    pub(crate) fn of(claims: Claims) -> Self {
        Self {
            claims,
            ..Self::default()
        }
    }

    /// Whether this verifier accepted it.
    pub(super) fn is_by(&self, verifier: &Verifier) -> bool {
        self.by == Some(verifier.id)
    }

    /// The claims of the token.
    pub(crate) fn claims(&self) -> &Claims {
        &self.claims
    }

    /// When it expires, with the verifier's leeway.
    pub(crate) fn ends(&self) -> Option<SystemTime> {
        let dates = &self.terms.dates;
        let ends = Duration::try_from_secs_f64(dates.exp? + dates.leeway).ok()?;
        UNIX_EPOCH.checked_add(ends)
    }
}

/// Why a connection that a token opened has to end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ended {
    /// It has expired.
    Expired,
    /// It was revoked.
    Revoked,
    /// Its session has ended, or its user was removed.
    Session,
}

impl Ended {
    /// The reason code of the access record.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Expired => TokenFault::Expired.reason(),
            Self::Revoked => TokenFault::Revoked.reason(),
            Self::Session => "session_ended",
        }
    }
}

/// What a token that was verified is checked for again on each request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terms {
    dates: Dates,
    /// The client certificate that it is bound to.
    binding: Binding,
}

/// The dates of a token, in seconds since 1970.
#[derive(Clone, Copy, Debug, Default)]
struct Dates {
    exp: Option<f64>,
    nbf: Option<f64>,
    iat: Option<f64>,
    /// The allowed clock difference between issuer and gateway.
    leeway: f64,
}

impl Dates {
    fn of(claims: &Claims, leeway: f64) -> Result<Self, TokenFault> {
        Ok(Self {
            leeway,
            exp: numeric_date(claims, "exp")?,
            nbf: numeric_date(claims, "nbf")?,
            iat: numeric_date(claims, "iat")?,
        })
    }
}

/// A NumericDate (RFC 7519 section 2): a number of seconds, perhaps with a fraction.
fn numeric_date(claims: &Claims, name: &'static str) -> Result<Option<f64>, TokenFault> {
    /// From this value on, a double cannot represent every second.
    const LIMIT: f64 = 9_007_199_254_740_992.0;
    let Some(claim) = claims.get(name) else {
        return Ok(None);
    };
    match claim
        .as_f64()
        .filter(|seconds| seconds.is_finite() && seconds.abs() < LIMIT)
    {
        Some(seconds) => Ok(Some(seconds)),
        None => Err(TokenFault::Claim(name)),
    }
}

/// Verifies tokens, with the keys and rules of one entry of the configuration.
#[derive(Debug)]
pub(crate) struct Verifier {
    id: VerifierId,
    name: String,
    keys: Arc<Keys>,
    issuer: Vec<String>,
    audience: Audience,
    leeway: f64,
    iat_ahead: f64,
    require_exp: bool,
    max_lifetime: Option<f64>,
    typ: Option<String>,
    claims: Vec<(ClaimPath, Value)>,
    cnf: Cnf,
    from: Vec<TokenSource>,
    revoked: Revoked,
    live: Option<Arc<LiveRevoked>>,
    admitted: Option<Arc<Admitted>>,
    warnings: Vec<String>,
    counts: OnceLock<Arc<Lanes<TokenLane>>>,
}

/// The keys of a verifier.
#[derive(Debug)]
enum Keys {
    /// Keys from the configuration.
    Fixed(KeySet),
    /// Keys at a URL, which may change; of their algorithms, these are accepted.
    Remote(Arc<RemoteKeys>, AlgorithmSet),
}

impl Verifier {
    /// Loads the keys, or reuses the keys and the identity of `before`, if it differs only in the revoked tokens.
    ///
    /// # Errors
    /// Every problem with the keys.
    pub(crate) fn new(
        settings: VerifierSettings,
        before: Option<(&VerifierSettings, &Self)>,
    ) -> Result<Self, Vec<KeyFault>> {
        let before = before
            .filter(|(made_of, _)| made_of.make_the_same_as(&settings))
            .map(|(_, before)| before);
        let (id, keys, warnings) = match (before, &settings.remote) {
            (Some(before), _) => (before.id, Arc::clone(&before.keys), before.warnings.clone()),
            (None, Some(remote)) => {
                let keys = Keys::Remote(Arc::clone(remote), accepted(&settings)?);
                (VerifierId::fresh(), Arc::new(keys), Vec::new())
            }
            (None, None) => {
                let short = if settings.weak_secret {
                    ShortSecrets::Allow
                } else {
                    ShortSecrets::Refuse
                };
                let (keys, warnings) = KeySet::load(&settings.keys, &settings.algorithms, short)?;
                let keys = Arc::new(Keys::Fixed(keys));
                (VerifierId::fresh(), keys, warnings)
            }
        };
        let from = if settings.from.is_empty() {
            vec![TokenSource::Header]
        } else {
            settings.from
        };
        Ok(Self {
            id,
            name: settings.name,
            keys,
            issuer: settings.issuer,
            audience: settings.audience,
            leeway: settings.leeway.as_secs_f64(),
            iat_ahead: settings.iat_ahead.as_secs_f64(),
            require_exp: settings.require_exp,
            max_lifetime: settings.max_lifetime.map(|lifetime| lifetime.as_secs_f64()),
            typ: settings.typ,
            claims: settings.claims,
            cnf: settings.cnf,
            from,
            revoked: settings.revoked,
            live: settings.live,
            admitted: settings.admitted,
            warnings,
            counts: OnceLock::new(),
        })
    }

    /// The identity of the verifier and the state of its keys; read it before the keys.
    pub(crate) fn stamp(&self) -> Stamp {
        let epoch = match &*self.keys {
            Keys::Fixed(_) => 0,
            Keys::Remote(remote, _) => remote.epoch(),
        };
        Stamp {
            verifier: self.id,
            epoch,
        }
    }

    /// Counts its tokens here, unless they are counted somewhere already.
    pub(crate) fn count_in(&self, counts: Arc<Lanes<TokenLane>>) {
        self.counts.get_or_init(|| counts);
    }

    /// Where this worker counts its tokens.
    pub(super) fn lane(&self, worker: usize) -> Option<&TokenLane> {
        self.counts.get()?.of(worker)
    }

    /// The keys, if they are at a URL.
    pub(crate) fn remote(&self) -> Option<&Arc<RemoteKeys>> {
        match &*self.keys {
            Keys::Fixed(_) => None,
            Keys::Remote(remote, _) => Some(remote),
        }
    }

    /// Which of several secrets signed a token with a valid signature, in words.
    pub(crate) fn secret_in_words(&self, jws: &Jws<'_>) -> Option<String> {
        let Keys::Fixed(set) = &*self.keys else {
            return None;
        };
        let (nth, all) = set.secret_of(jws)?;
        Some(format!("signed with secret {nth} of {all}"))
    }

    /// Its name in the configuration.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Warnings for the operator at every start, such as an accepted weak secret.
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Where its tokens are accepted.
    pub(crate) fn places(&self) -> &[TokenSource] {
        &self.from
    }

    /// Whether its issuers are authorization servers. The issuer of tokens signed with a shared secret is an app, and
    /// the gateway's own service speaks simplejwt's protocol, not OAuth.
    pub(crate) fn is_of_an_authorization_server(&self) -> bool {
        let is_public = match &*self.keys {
            Keys::Fixed(set) => set.algorithms().and(AlgorithmSet::HMAC).is_empty(),
            Keys::Remote(..) => true,
        };
        is_public && self.live.is_none()
    }

    /// The issuers whose tokens it accepts.
    pub(crate) fn issuers(&self) -> impl Iterator<Item = &str> {
        self.issuer.iter().map(String::as_str)
    }

    /// The requirement on `aud`.
    pub(crate) fn audience(&self) -> &Audience {
        &self.audience
    }

    /// The maximum time between `iat` and `exp`, in whole seconds.
    pub(crate) fn longest_life(&self) -> Option<Duration> {
        self.max_lifetime
            .and_then(|seconds| Duration::try_from_secs_f64(seconds.floor()).ok())
    }

    /// The required `typ`.
    pub(crate) fn typ(&self) -> Option<&str> {
        self.typ.as_deref()
    }

    /// What a token's `cnf` demands of the client's certificate.
    pub(crate) fn cnf(&self) -> Cnf {
        self.cnf
    }

    /// The claims that must be present with a given value.
    pub(crate) fn own_claims(&self) -> &[(ClaimPath, Value)] {
        &self.claims
    }

    /// Whether it accepts tokens of this issuer by name.
    pub(crate) fn has_issuer(&self, issuer: Option<&str>) -> bool {
        issuer.is_some_and(|issuer| self.issuer.iter().any(|known| known == issuer))
    }

    /// Whether one of its keys fits the token's algorithm and `kid`, or a newer one may.
    pub(crate) fn fits(&self, jws: &Jws<'_>) -> bool {
        match &*self.keys {
            Keys::Fixed(set) => set.fits(jws, AlgorithmSet::ALL),
            Keys::Remote(remote, accepted) => {
                jws.algorithm.is_some_and(|it| accepted.contains(it))
                    && remote.current().is_none_or(|now| {
                        now.set.fits(jws, *accepted) || !now.set.has_named_by(jws)
                    })
            }
        }
    }

    /// Verifies the signature.
    ///
    /// # Errors
    /// Which check failed, as [`KeySet::verify`]; and the key set, where a newer version may have the token's key.
    pub(crate) fn check_signature(&self, jws: &Jws<'_>) -> Result<(), Unsigned> {
        let (remote, accepted) = match &*self.keys {
            Keys::Fixed(set) => {
                return set
                    .verify(jws, AlgorithmSet::ALL)
                    .map_err(|fault| Unsigned {
                        why: fault.into(),
                        lack: None,
                    });
            }
            Keys::Remote(remote, accepted) => (remote, *accepted),
        };
        if !jws.algorithm.is_some_and(|it| accepted.contains(it)) {
            return Err(Unsigned {
                why: TokenFault::Algorithm.into(),
                lack: None,
            });
        }
        // Read the number before the set, and the set only once: a fetch that ends meanwhile is noticed later.
        let lack = Lack {
            fetches: remote.fetches(),
            keys: Arc::clone(remote),
        };
        let Some(now) = remote.current() else {
            return Err(Unsigned {
                why: Unverified::NoKeys,
                lack: Some(lack),
            });
        };
        now.set.verify(jws, accepted).map_err(|fault| Unsigned {
            why: fault.into(),
            // A name is a hint (RFC 7515 section 4.1.4): an issuer that was set up again may use the old name for
            // another key.
            lack: (fault != TokenFault::Malformed).then_some(lack),
        })
    }

    /// Checks the registered claims and the verifier's own, for a token whose signature is valid and that this client
    /// sent.
    ///
    /// No library's validation is used: jsonwebtoken's reads the clock itself and cannot recheck a cached token. All
    /// the rules are here and in `check_dates`, which this calls.
    pub(crate) fn check_claims(
        &self,
        typ: Option<&str>,
        claims: &Claims,
        holder: Holder<'_>,
        now: SystemTime,
    ) -> Result<Terms, TokenFault> {
        self.check_goes_on(claims)?;
        self.check_assumed(typ, claims, holder, now)
    }

    /// The same for a token that nobody issued: it has no session that could have ended.
    pub(crate) fn check_assumed(
        &self,
        typ: Option<&str>,
        claims: &Claims,
        holder: Holder<'_>,
        now: SystemTime,
    ) -> Result<Terms, TokenFault> {
        self.check_type(typ)?;
        let dates = Dates::of(claims, self.leeway)?;
        self.check_revoked(claims, &dates)?;
        self.check_issuer(claims)?;
        self.check_audience(claims)?;
        self.check_dates(&dates, now)?;
        self.check_own(claims)?;
        let binding = Binding::of(claims, self.cnf)?;
        binding.check(holder)?;
        Ok(Terms { dates, binding })
    }

    fn check_type(&self, typ: Option<&str>) -> Result<(), TokenFault> {
        let Some(expected) = &self.typ else {
            return Ok(());
        };
        let same = typ.is_some_and(|typ| bare(typ).eq_ignore_ascii_case(bare(expected)));
        if same { Ok(()) } else { Err(TokenFault::Type) }
    }

    fn check_revoked(&self, claims: &Claims, dates: &Dates) -> Result<(), TokenFault> {
        if self.revoked.has(claims, dates.iat) {
            Err(TokenFault::Revoked)
        } else {
            Ok(())
        }
    }

    /// Checks that the session has not ended, for a token that the gateway issued itself.
    fn check_goes_on(&self, claims: &Claims) -> Result<(), TokenFault> {
        let ended = self.live.as_ref().is_some_and(|live| live.has(claims));
        let gone = self.admitted.as_ref().is_some_and(|it| !it.admits(claims));
        if ended || gone {
            Err(TokenFault::Revoked)
        } else {
            Ok(())
        }
    }

    fn check_own(&self, claims: &Claims) -> Result<(), TokenFault> {
        let satisfied = |(path, expected): &(ClaimPath, Value)| {
            claims.at(path).is_some_and(|claim| equal(claim, expected))
        };
        if self.claims.iter().all(satisfied) {
            Ok(())
        } else {
            Err(TokenFault::RequiredClaim)
        }
    }

    /// A token with these claims that this verifier accepted.
    pub(super) fn found(&self, claims: Claims, terms: Terms) -> Verified {
        Verified {
            claims,
            terms,
            by: Some(self.id),
        }
    }

    /// Whether its keys are at a URL and were never fetched.
    pub(super) fn was_never_fetched(&self) -> bool {
        self.remote().is_some_and(|remote| remote.fetches() == 0)
    }

    /// Why a token that was accepted is no longer valid: it was revoked, or its session has ended. Its expiry is
    /// checked elsewhere.
    pub(super) fn why_ended(&self, verified: &Verified) -> Option<Ended> {
        if self.check_goes_on(&verified.claims).is_err() {
            return Some(Ended::Session);
        }
        let revoked = self.check_revoked(&verified.claims, &verified.terms.dates);
        revoked.is_err().then_some(Ended::Revoked)
    }

    /// Whether a token that this verifier accepted is valid from this client and at this time too.
    pub(crate) fn is_still_right(
        &self,
        verified: &Verified,
        holder: Holder<'_>,
        now: SystemTime,
    ) -> bool {
        let Terms { dates, binding } = &verified.terms;
        self.check_dates(dates, now).is_ok()
            && self.check_goes_on(&verified.claims).is_ok()
            && self.check_revoked(&verified.claims, dates).is_ok()
            && binding.check(holder).is_ok()
    }

    /// Verifies a token that does not come from a request: its structure, its signature, its claims. Whoever sent it
    /// need not be its holder: it opens nothing.
    ///
    /// # Errors
    /// Which check failed.
    pub(crate) fn verify(&self, token: &str, now: SystemTime) -> Result<Claims, TokenFault> {
        let claims = self.verify_of_any_session(token, now)?;
        self.check_goes_on(&claims)?;
        Ok(claims)
    }

    /// The same for a token whose session may have ended.
    ///
    /// # Errors
    /// As [`Verifier::verify`].
    pub(crate) fn verify_of_any_session(
        &self,
        token: &str,
        now: SystemTime,
    ) -> Result<Claims, TokenFault> {
        if token.len() > MAX_BYTES {
            return Err(TokenFault::TooLong);
        }
        let jws = Jws::parse(token)?;
        self.check_signature(&jws)
            .map_err(|unsigned| match unsigned.why {
                Unverified::Token(fault) => fault,
                Unverified::NoKeys => TokenFault::UnknownKey,
            })?;
        let claims = jws.claims()?;
        self.check_assumed(jws.typ.as_deref(), &claims, Holder::Nobody, now)?;
        Ok(claims)
    }

    /// All checks that depend on dates, for fresh and for cached tokens alike.
    fn check_dates(&self, dates: &Dates, now: SystemTime) -> Result<(), TokenFault> {
        let now = match now.duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_secs_f64(),
            Err(before) => -before.duration().as_secs_f64(),
        };
        match dates.exp {
            Some(exp) if now >= exp + self.leeway => return Err(TokenFault::Expired),
            None if self.require_exp => return Err(TokenFault::Claim("exp")),
            Some(_) | None => {}
        }
        if dates.nbf.is_some_and(|nbf| nbf > now + self.leeway) {
            return Err(TokenFault::Immature);
        }
        let iat_leeway = self.leeway + self.iat_ahead;
        if dates.iat.is_some_and(|iat| iat > now + iat_leeway) {
            return Err(TokenFault::IssuedInFuture);
        }
        if let Some(longest) = self.max_lifetime {
            let exp = dates.exp.ok_or(TokenFault::Claim("exp"))?;
            let iat = dates.iat.ok_or(TokenFault::Claim("iat"))?;
            if exp - iat > longest {
                return Err(TokenFault::Lifetime);
            }
        }
        Ok(())
    }

    fn check_issuer(&self, claims: &Claims) -> Result<(), TokenFault> {
        if self.issuer.is_empty() {
            return Ok(());
        }
        let issuer = claims
            .get("iss")
            .and_then(Value::as_str)
            .ok_or(TokenFault::Claim("iss"))?;
        if self.has_issuer(Some(issuer)) {
            Ok(())
        } else {
            Err(TokenFault::Issuer)
        }
    }

    fn check_audience(&self, claims: &Claims) -> Result<(), TokenFault> {
        let accepted = match &self.audience {
            Audience::Any => return Ok(()),
            Audience::Unset => {
                return claims
                    .get("aud")
                    .map_or(Ok(()), |_| Err(TokenFault::Audience));
            }
            Audience::OneOf(accepted) => accepted,
        };
        let malformed = TokenFault::Claim("aud");
        let is_accepted = |name: &str| accepted.iter().any(|one| one == name);
        let meant = match claims.get("aud") {
            Some(Value::String(name)) => is_accepted(name),
            Some(Value::Array(names)) if names.iter().all(Value::is_string) => {
                names.iter().filter_map(Value::as_str).any(is_accepted)
            }
            Some(_) | None => return Err(malformed),
        };
        if meant {
            Ok(())
        } else {
            Err(TokenFault::Audience)
        }
    }
}

/// The algorithms that are accepted for keys at a URL. HMAC is never among them, whatever the configuration says: a
/// published secret is not secret.
fn accepted(settings: &VerifierSettings) -> Result<AlgorithmSet, Vec<KeyFault>> {
    if settings.algorithms.is_empty() {
        return Ok(AlgorithmSet::ALL.without(AlgorithmSet::HMAC));
    }
    let named: AlgorithmSet = settings.algorithms.iter().copied().collect();
    let secret = named.and(AlgorithmSet::HMAC);
    if secret.is_empty() {
        Ok(named)
    } else {
        Err(vec![KeyFault::SecretAtUrl(secret)])
    }
}

/// A media type without `application/`, which may be omitted (RFC 7515 section 4.1.9).
fn bare(typ: &str) -> &str {
    const PREFIX: &str = "application/";
    match typ.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) => rest,
        Some(_) | None => typ,
    }
}

#[cfg(test)]
mod tests;
