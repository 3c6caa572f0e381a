//! `JwtGuard`: access by token. It chooses the verifiers of a token, and remembers those that were accepted. What the
//! claims must be is said in `policy`.

use std::cell::Cell;
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderName;
use serde_json::Value;

use super::api_key::ApiKeys;
use super::ask::credentials;
use super::basic::BasicUsers;
use super::binding::Holder;
use super::claims::{ClaimPath, Claims};
use super::jws::Jws;
use super::lease::Lease;
use super::policy::{Parameters, Requirement};
use super::principal::Principal;
use super::remembered::Remembered;
use super::token::{Found, TokenSource};
use super::verify::{Lack, Stamp, Terms, Unsigned, Unverified, Verified, Verifier};
use crate::message::reject::{Reject, TokenFault};

/// How many verifiers of a route are tried for one token.
const MAX_VERIFIERS: usize = 4;

/// The settings of a guard that requires a token.
#[derive(Debug)]
pub(crate) struct JwtGuardSettings {
    /// The verifiers, any of which may accept the token; the first one names the realm.
    pub(crate) verifiers: Vec<Arc<Verifier>>,
    /// The API keys that are accepted, too, or instead of tokens.
    pub(crate) keys: Option<ApiKeys>,
    /// The users whose passwords are accepted instead of tokens and keys.
    pub(crate) basic: Option<BasicUsers>,
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
    pub(super) verifiers: Vec<(Arc<Verifier>, u64)>,
    /// The API keys that are accepted.
    pub(super) keys: Option<ApiKeys>,
    /// The users whose passwords it accepts, and nothing else.
    pub(super) basic: Option<Box<BasicUsers>>,
    /// Where to look for tokens.
    pub(super) places: Arc<[TokenSource]>,
    /// The same, and the query parameters of API keys.
    pub(super) stripped: Arc<[TokenSource]>,
    /// The header fields of API keys and passwords.
    pub(super) key_headers: Arc<[HeaderName]>,
    pub(super) optional: bool,
    pub(super) require: Option<Requirement>,
    pub(super) forward: Vec<(HeaderName, ClaimPath)>,
    pub(super) strip_token: bool,
    pub(super) only_reports: bool,
    pub(super) ends_with_token: bool,
    /// The credentials among the headers in which it forwards claims.
    pub(super) replaced: Arc<[HeaderName]>,
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
        let mut stripped = places.clone();
        let keys = settings.keys.iter();
        let parameters = keys.clone().flat_map(ApiKeys::parameters);
        stripped.extend(parameters.map(|name| TokenSource::Query(name.to_owned())));
        let password = settings.basic.as_ref().and_then(BasicUsers::stripped);
        let key_headers = keys.flat_map(ApiKeys::headers).cloned();
        let key_headers: Vec<HeaderName> = key_headers.chain(password).collect();
        Self {
            verifiers,
            keys: settings.keys,
            basic: settings.basic.map(Box::new),
            places: places.into(),
            stripped: stripped.into(),
            key_headers: key_headers.into(),
            optional: settings.optional,
            require: settings.require,
            forward: settings.forward,
            strip_token: settings.strip_token,
            only_reports: settings.only_reports,
            ends_with_token: settings.ends_with_token,
            replaced,
        }
    }

    /// The reason for which a request without any credentials is refused.
    pub(super) fn missing(&self) -> Reject {
        match &self.keys {
            _ if self.basic.is_some() => Reject::BasicMissing,
            Some(_) if self.verifiers.is_empty() => Reject::ApiKeyMissing,
            Some(_) | None => Reject::TokenMissing,
        }
    }

    /// Whether every request without a token is allowed.
    pub(super) fn is_optional(&self) -> bool {
        self.optional && self.require.is_none()
    }

    /// A lease of a principal's token, for whatever has to end with it.
    pub(super) fn lease(&self, principal: &Principal) -> Option<Lease> {
        let verified = principal.verified()?;
        let mut verifiers = self.verifiers.iter().map(|(verifier, _)| verifier);
        let verifier = verifiers.find(|verifier| verified.is_by(verifier))?;
        Some(Lease::new(Arc::clone(verified), Arc::clone(verifier)))
    }

    /// The verifiers that check a token from these places: those whose issuer the token names, or all of them if none
    /// matches.
    pub(super) fn candidates<'g, 'i>(
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
    pub(super) fn check(
        &self,
        principal: &Principal,
        params: &Parameters<'_>,
    ) -> Result<(), Reject> {
        if principal.is_anonymous() && !self.optional {
            return Err(self.missing());
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
            false if principal.is_anonymous() => Err(self.missing()),
            false => Err(Reject::Forbidden),
        }
    }

    /// Verifies the tokens of several cookies of one name. The valid one is used; of several valid ones, the one that
    /// was issued last. The user must not be in doubt, because another host of the domain may have set a cookie of
    /// that name.
    pub(super) fn verify_one_of(
        &self,
        found: Found<'_>,
        holder: Holder<'_>,
        remembered: &Remembered,
        now: SystemTime,
    ) -> Result<Arc<Verified>, Unauthenticated> {
        let mut best: Option<Arc<Verified>> = None;
        let mut refused = None;
        for found in found.each() {
            let verified = match self.verify(&found, holder, remembered, now) {
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

    /// Verifies a token that this client sent, or finds it in the cache of verified tokens.
    pub(super) fn verify(
        &self,
        found: &Found<'_>,
        holder: Holder<'_>,
        remembered: &Remembered,
        now: SystemTime,
    ) -> Result<Arc<Verified>, Unauthenticated> {
        // A cached token gets the same result as a fresh one would on this very route.
        let by = Cell::new(None);
        let known = remembered.find(&found.token, |stamp, verified| {
            let candidates = self.candidates(found.places, issuer(verified.claims()));
            if candidates.clone().count() > MAX_VERIFIERS {
                return false;
            }
            let mut fitting = candidates.filter(|verifier| verifier.stamp() == stamp);
            let found = fitting.find(|verifier| verifier.is_still_right(verified, holder, now));
            by.set(found);
            found.is_some()
        });
        if let Some(verified) = known {
            if let Some(lane) = by.get().and_then(|by| by.lane(remembered.worker)) {
                lane.remembered.one();
            }
            return Ok(verified);
        }
        let jws = Jws::parse_with(found.text()?, |part| remembered.header(part));
        let unverified = |fault| Refused::from(Unverified::Token(fault));
        let jws = jws.map_err(unverified)?;
        let mut all = self.candidates(found.places, None);
        let (by, stamp, verified) = if let (Some(only), None) = (all.next(), all.next()) {
            let verified = verify_by_one(only, &jws, holder, now);
            let (stamp, verified) = verified.map_err(|refused| refused.by(only))?;
            (only, stamp, verified)
        } else {
            // The issuer is read before the signature is checked, but only to choose the verifier.
            let claims = jws.claims().map_err(unverified)?;
            let (stamp, verifier, terms) =
                self.verify_by_any(&jws, &claims, found.places, holder, now)?;
            (verifier, stamp, verifier.found(claims, terms))
        };
        if let Some(lane) = by.lane(remembered.worker) {
            lane.verified.one();
        }
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
        holder: Holder<'_>,
        now: SystemTime,
    ) -> Result<(Stamp, &Arc<Verifier>, Terms), Refused> {
        let candidates = self.candidates(places, issuer(claims));
        let fitting = || {
            candidates
                .clone()
                .filter(|verifier| verifier.fits(jws))
                .take(MAX_VERIFIERS)
        };
        let (mut why, mut wrong_claims, mut lacks) = (None, None, Vec::new());
        let mut by = None;
        for verifier in fitting() {
            let stamp = verifier.stamp();
            if let Err(Unsigned { why: wrong, lack }) = verifier.check_signature(jws) {
                lacks.extend(lack);
                by = by.or(Some(verifier));
                why = match (why, wrong) {
                    // A verifier without keys might have accepted the token.
                    (_, Unverified::NoKeys) | (None, _) => Some(wrong),
                    (why @ Some(_), Unverified::Token(_)) => why,
                };
                continue;
            }
            match verifier.check_claims(jws.typ.as_deref(), claims, holder, now) {
                Ok(terms) => return Ok((stamp, verifier, terms)),
                Err(wrong) => wrong_claims = Some((wrong, verifier)),
            }
        }
        if let Some((wrong, verifier)) = wrong_claims {
            // The token is that verifier's own, so its error says the most.
            return Err(Refused::from(Unverified::Token(wrong)).by(verifier));
        }
        // If no verifier fits, report the error of the first.
        let unfit = || Some(candidates.clone().next()?.check_signature(jws).err()?.why);
        let why = why
            .or_else(unfit)
            .unwrap_or(Unverified::Token(TokenFault::UnknownKey));
        let by = by.map(Arc::clone);
        Err(Refused { why, lacks, by })
    }
}

fn verify_by_one(
    verifier: &Verifier,
    jws: &Jws<'_>,
    holder: Holder<'_>,
    now: SystemTime,
) -> Result<(Stamp, Verified), Refused> {
    let stamp = verifier.stamp();
    verifier.check_signature(jws).map_err(|unsigned| Refused {
        why: unsigned.why,
        lacks: unsigned.lack.into_iter().collect(),
        by: None,
    })?;
    let claims = jws.claims().map_err(Unverified::from)?;
    let terms = verifier.check_claims(jws.typ.as_deref(), &claims, holder, now);
    let terms = terms.map_err(Unverified::from)?;
    Ok((stamp, verifier.found(claims, terms)))
}

/// A token that was not accepted.
struct Refused {
    why: Unverified,
    /// The key sets of which a newer version may contain its key.
    lacks: Vec<Lack>,
    /// The verifier that refused it, if one was chosen.
    by: Option<Arc<Verifier>>,
}

impl Refused {
    /// Refused by this verifier.
    fn by(self, verifier: &Arc<Verifier>) -> Self {
        let by = Some(Arc::clone(verifier));
        Self { by, ..self }
    }
}

impl From<Unverified> for Refused {
    fn from(why: Unverified) -> Self {
        Self {
            why,
            lacks: Vec::new(),
            by: None,
        }
    }
}

/// A request that could not be authenticated with the keys at hand.
#[derive(Debug)]
pub(crate) struct Unauthenticated {
    /// The reason.
    pub(crate) reject: Reject,
    /// The key sets of which a newer version may change the result.
    pub(super) lacks: Vec<Lack>,
    /// The verifier that refused the token, if one was chosen.
    pub(super) by: Option<Arc<Verifier>>,
}

impl Unauthenticated {
    /// Counts the token that was refused, if there was one.
    pub(super) fn count(&self, remembered: &Remembered) {
        if !matches!(
            self.reject,
            Reject::TokenInvalid(_) | Reject::KeysMissing | Reject::TokenMalformed(_)
        ) {
            return;
        }
        let by = self.by.as_ref();
        let words = by.and_then(|by| Some(&by.lane(remembered.worker)?.refused));
        let words = words.unwrap_or(&remembered.unchosen);
        words.count(self.reject.reason());
    }
}

impl From<Reject> for Unauthenticated {
    fn from(reject: Reject) -> Self {
        Self {
            reject,
            lacks: Vec::new(),
            by: None,
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
            by: refused.by,
        }
    }
}

pub(super) fn issuer(claims: &Claims) -> Option<&str> {
    claims.get("iss").and_then(Value::as_str)
}
