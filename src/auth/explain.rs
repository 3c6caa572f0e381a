//! The results of checking a token, step by step, and assumed tokens: for `explain` and the policy tests. The steps
//! are the same as for requests, but no request runs this code.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use serde_json::{Map, Value};

use super::binding::Holder;
use super::certificate::Certified;
use super::claims::{ClaimPath, Claims};
use super::guard::Guard;
use super::jws::Jws;
use super::jwt_guard::{JwtGuard, issuer};
use super::policy::Parameters;
use super::principal::Principal;
use super::token::{self, TokenSource};
use super::verify::{Audience, Verified, Verifier};
use crate::message::reject::{Reject, TokenFault};

/// The lifetime of an assumed token.
const ASSUMED_LIFE: Duration = Duration::from_secs(300);

impl JwtGuard {
    /// The result of checking one token, in words.
    fn explain_found(
        &self,
        found: &token::Found<'_>,
        holder: Holder<'_>,
        now: SystemTime,
    ) -> Vec<String> {
        let places: Vec<String> = self
            .places
            .iter()
            .zip(0_u32..u64::BITS)
            .filter(|(_, at)| found.places & 1_u64 << at != 0)
            .map(|(it, _)| place(it))
            .collect();
        let mut lines = vec![format!(
            "{} bytes from {}",
            found.token.len(),
            places.join(", ")
        )];
        let text = match found.text() {
            Ok(text) => text,
            Err(reject) => return vec![reject.detail().into_owned()],
        };
        let jws = match Jws::parse(text) {
            Ok(jws) => jws,
            Err(fault) => {
                lines.push(fault.to_string());
                return lines;
            }
        };
        let claims = match jws.claims() {
            Ok(claims) => claims,
            Err(fault) => {
                lines.push(format!("{fault}: its claims are not a strict JSON object"));
                return lines;
            }
        };
        for verifier in self.candidates(found.places, issuer(&claims)) {
            for (at, line) in explain_by(verifier, &jws, &claims, (holder, now))
                .iter()
                .enumerate()
            {
                let besides = if at == 0 { "" } else { "besides, " };
                lines.push(format!("verifier {}: {besides}{line}", verifier.name()));
            }
        }
        lines
    }
}

impl Guard {
    /// The result of checking the request's token, in words.
    pub(crate) fn explain_token(
        &self,
        certified: &Certified<'_>,
        headers: &HeaderMap,
        query: Option<&str>,
        now: SystemTime,
    ) -> Vec<String> {
        let Some(guard) = self.jwt() else {
            return Vec::new();
        };
        if let Some(basic) = &guard.basic {
            return basic.explain(headers);
        }
        let keys = guard.keys.as_ref();
        let key = keys.map_or_else(Vec::new, |keys| keys.explain(headers, query, now));
        if guard.verifiers.is_empty() {
            return key;
        }
        let tokens = self.explain_tokens(guard, certified, (headers, query), now);
        key.into_iter().chain(tokens).collect()
    }

    fn explain_tokens(
        &self,
        guard: &JwtGuard,
        certified: &Certified<'_>,
        (headers, query): (&HeaderMap, Option<&str>),
        now: SystemTime,
    ) -> Vec<String> {
        let holder = certified.holder();
        let found = match token::find(headers, query, &guard.places) {
            Ok(Some(found)) => found,
            Ok(None) => {
                let places: Vec<String> = guard.places.iter().map(place).collect();
                let mut lines = vec![format!("none in {}", places.join(", "))];
                if headers.contains_key(http::header::AUTHORIZATION)
                    && guard.places.contains(&TokenSource::Header)
                {
                    lines.push("the scheme of Authorization is not Bearer".to_owned());
                }
                return lines;
            }
            Err(reject) => return vec![reject.detail().into_owned()],
        };
        if found.rivals.is_empty() {
            return guard.explain_found(&found, holder, now);
        }
        let mut lines = vec!["several cookies of one name; the valid one is used".to_owned()];
        for (at, found) in found.each().enumerate() {
            for line in guard.explain_found(&found, holder, now) {
                lines.push(format!("cookie {}: {line}", at + 1));
            }
        }
        lines
    }

    /// The principal that a token of these claims, signed for one of the route's verifiers, would give. Claims that a
    /// verifier requires and that are not given are assumed to be valid; null means that the claim is absent.
    ///
    /// # Errors
    /// Why the verifiers refuse it, also in words.
    pub(crate) fn assume(
        &self,
        certified: &Certified<'_>,
        claims: &Claims,
        now: SystemTime,
    ) -> Result<Principal, (Reject, String)> {
        let Some(guard) = self.jwt() else {
            return Ok(Principal::anonymous());
        };
        if guard.verifiers.is_empty() && (guard.keys.is_some() || guard.basic.is_some()) {
            return Ok(Principal::bearer(Arc::new(Verified::of(claims.clone()))));
        }
        let holder = certified.holder();
        let mut refused = None;
        // The verifiers that would check it: those whose issuer it names, or all of them.
        for verifier in guard.candidates(u64::MAX, issuer(claims)) {
            let (claims, typ) = verifier.completed(claims.members(), now);
            match verifier.check_assumed(typ.as_deref(), &claims, holder, now) {
                Ok(terms) => {
                    return Ok(Principal::bearer(Arc::new(verifier.found(claims, terms))));
                }
                Err(fault) => {
                    let unsigned = "eyJhbGciOiJub25lIn0.e30.";
                    let why = Jws::parse(unsigned).map_or_else(
                        |_| fault.to_string(),
                        |jws| verifier.why(&jws, Some(&claims), fault.into(), now),
                    );
                    let why = format!("verifier {}: {why}", verifier.name());
                    refused.get_or_insert((Reject::TokenInvalid(fault), why));
                }
            }
        }
        Err(refused.unwrap_or_else(|| {
            let unknown = Reject::TokenInvalid(TokenFault::UnknownKey);
            (unknown, "the route has no verifier".to_owned())
        }))
    }

    /// The principal if the token is genuine, where the keys that would prove it were never fetched; `None` where
    /// authentication failed for another reason.
    ///
    /// # Errors
    /// Why the token is refused in either case.
    pub(crate) fn assume_genuine(
        &self,
        certified: &Certified<'_>,
        headers: &HeaderMap,
        query: Option<&str>,
        now: SystemTime,
    ) -> Option<Result<Principal, Reject>> {
        let guard = self.jwt()?;
        let holder = certified.holder();
        let found = token::find(headers, query, &guard.places).ok()??;
        let jws = Jws::parse(found.text().ok()?).ok()?;
        let claims = jws.claims().ok()?;
        let mut refused = None;
        for verifier in guard.candidates(found.places, issuer(&claims)) {
            if !verifier.was_never_fetched() || !verifier.fits(&jws) {
                continue;
            }
            match verifier.check_claims(jws.typ.as_deref(), &claims, holder, now) {
                Ok(terms) => {
                    let verified = verifier.found(claims.clone(), terms);
                    return Some(Ok(Principal::bearer(Arc::new(verified))));
                }
                Err(fault) => refused = Some(Err(Reject::TokenInvalid(fault))),
            }
        }
        refused
    }

    /// Which of the route's requirements on the claims are not met, in words.
    pub(crate) fn explain_claims(
        &self,
        principal: &Principal,
        params: &Parameters<'_>,
    ) -> Vec<String> {
        let Some(guard) = self.jwt() else {
            return Vec::new();
        };
        let Some(require) = &guard.require else {
            return Vec::new();
        };
        match principal.claims() {
            Some(claims) => require.why_not(claims, params),
            None => require.why_not(&Claims::default(), params),
        }
    }
}

/// The errors that one verifier finds in a token, in words; empty where it accepts the token.
pub(crate) fn faults_of(verifier: &Verifier, token: &str, now: SystemTime) -> Vec<String> {
    let parsed = Jws::parse(token).and_then(|jws| Ok((jws.claims()?, jws)));
    match parsed {
        Err(fault) => vec![fault.to_string()],
        Ok((claims, jws)) => faults(verifier, &jws, &claims, (Holder::Nobody, now)),
    }
}

fn explain_by(
    verifier: &Verifier,
    jws: &Jws<'_>,
    claims: &Claims,
    by: (Holder<'_>, SystemTime),
) -> Vec<String> {
    let mut lines = faults(verifier, jws, claims, by);
    let signed = verifier.secret_in_words(jws);
    match (lines.is_empty(), signed) {
        (true, Some(signed)) => lines.push(format!("accepts it, {signed}")),
        (true, None) => lines.push("accepts it".to_owned()),
        (false, signed) => lines.extend(signed),
    }
    lines
}

fn faults(
    verifier: &Verifier,
    jws: &Jws<'_>,
    claims: &Claims,
    (holder, now): (Holder<'_>, SystemTime),
) -> Vec<String> {
    let unsigned = verifier.check_signature(jws).err();
    // Errors in the claims help too, even where the signature decides.
    unsigned
        .map(|unsigned| verifier.why(jws, None, unsigned.why, now))
        .into_iter()
        .chain(verifier.all_why(jws, claims, holder, now))
        .collect()
}

fn place(place: &TokenSource) -> String {
    match place {
        TokenSource::Header => "the Authorization header".to_owned(),
        TokenSource::Basic => "the password of Basic".to_owned(),
        TokenSource::Cookie(name) => format!("the cookie {name}"),
        TokenSource::Query(name) => format!("the query parameter {name}"),
        TokenSource::WebSocket => "Sec-WebSocket-Protocol".to_owned(),
    }
}

impl Verifier {
    /// These claims, completed with those that this verifier requires of every token.
    fn completed(&self, claims: &Map<String, Value>, now: SystemTime) -> (Claims, Option<String>) {
        let mut all = claims.clone();
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut missing: Vec<(String, Value)> = vec![
            ("iat".to_owned(), since.as_secs().into()),
            ("exp".to_owned(), (since + ASSUMED_LIFE).as_secs().into()),
        ];
        if let Some(issuer) = self.issuers().next() {
            missing.push(("iss".to_owned(), issuer.into()));
        }
        if let Audience::OneOf(names) = self.audience()
            && let Some(name) = names.first()
        {
            missing.push(("aud".to_owned(), name.as_str().into()));
        }
        for (name, value) in missing {
            all.entry(name).or_insert(value);
        }
        for (path, value) in self.own_claims() {
            put(&mut all, path, value);
        }
        all.retain(|_, value| !value.is_null());
        (Claims::new(all), self.typ().map(str::to_owned))
    }
}

/// Sets a claim unless it is present.
fn put(claims: &mut Map<String, Value>, path: &ClaimPath, value: &Value) {
    let mut here = claims;
    let Some((last, outer)) = path.names().split_last() else {
        return;
    };
    for name in outer {
        let inner = here
            .entry(name.clone())
            .or_insert_with(|| Value::Object(Map::new()));
        match inner.as_object_mut() {
            Some(members) => here = members,
            None => return,
        }
    }
    here.entry(last.clone()).or_insert_with(|| value.clone());
}
