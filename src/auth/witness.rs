//! Made-up tokens that a guard would accept, used to test whether another guard accepts them too: this is how a reload
//! detects that access became wider. They have no signature, and no request is ever checked with them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::claims::{ClaimPath, Claims};
use super::guard::Guard;
use super::jwt_guard::JwtGuard;
use super::policy::Parameters;
use super::verify::{Audience, Verifier};

/// How many tokens represent a guard, at most: a requirement with many alternatives has many.
const MOST: usize = 256;
/// A value that no rule requires.
const ANYTHING: &str = "portcullis-probe";
/// The lifetime of a token where nothing limits it.
const LONG: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A token that a guard accepts, without its signature.
#[derive(Clone, Debug)]
pub(crate) struct Witness {
    /// The name of the verifier whose key it is signed with.
    verifier: String,
    /// Its `typ`.
    typ: Option<String>,
    claims: Claims,
}

/// A token, and which verifiers of the tested guard, by name, accept its signature.
pub(crate) type Signed<'a> = (&'a Witness, &'a dyn Fn(&str) -> bool);

/// A guard's decision on a request.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Says {
    /// It is refused.
    No,
    /// Another server decides.
    Asks,
    /// It is allowed.
    Yes,
}

impl Guard {
    /// Tokens that this guard accepts: for each verifier and each way to satisfy `require` a minimal one, and variants
    /// of it with the values that `other` refuses by name. `params` are the route's path parameters.
    pub(crate) fn witnesses(
        &self,
        other: &Self,
        params: &Parameters<'_>,
        now: SystemTime,
    ) -> Vec<Witness> {
        let Self::Jwt(guard) = self else {
            return Vec::new();
        };
        let refused: Vec<(ClaimPath, Value)> = match other {
            Self::Jwt(other) => other
                .require
                .iter()
                .flat_map(|require| require.refused_values(params))
                .collect(),
            Self::Open | Self::Ask(_) => Vec::new(),
        };
        let mut wanted: Vec<Map<String, Value>> = match &guard.require {
            Some(require) => require.examples(params),
            None => vec![Map::new()],
        };
        for example in wanted.clone() {
            for (path, value) in &refused {
                let mut example = example.clone();
                path.put(&mut example, value.clone());
                wanted.push(example);
            }
        }
        let verifiers = guard.verifiers.iter().map(|(verifier, _)| verifier);
        verifiers
            .flat_map(|verifier| tokens_of(verifier, &wanted, now))
            // A made-up token may contradict itself.
            .filter(|witness| {
                let own = |name: &str| name == witness.verifier;
                self.says(Some((witness, &own)), params, now) == Says::Yes
            })
            .take(MOST)
            .collect()
    }

    /// The guard's decision on a request with this token, or without one.
    pub(crate) fn says(
        &self,
        token: Option<Signed<'_>>,
        params: &Parameters<'_>,
        now: SystemTime,
    ) -> Says {
        let guard = match self {
            Self::Open => return Says::Yes,
            Self::Ask(_) => return Says::Asks,
            Self::Jwt(guard) => guard,
        };
        let allowed = guard.only_reports
            || match token {
                None => guard.optional && guard.allows(&Claims::default(), params),
                Some((witness, accepts)) => {
                    guard.accepts(witness, accepts, now) && guard.allows(&witness.claims, params)
                }
            };
        if allowed { Says::Yes } else { Says::No }
    }
}

impl JwtGuard {
    fn allows(&self, claims: &Claims, params: &Parameters<'_>) -> bool {
        let require = self.require.as_ref();
        require.is_none_or(|require| require.is_satisfied(claims, params))
    }

    fn accepts(&self, witness: &Witness, signed: &dyn Fn(&str) -> bool, now: SystemTime) -> bool {
        let verifiers = self.verifiers.iter().map(|(verifier, _)| verifier);
        verifiers
            .filter(|verifier| signed(verifier.name()))
            .any(|verifier| {
                let typ = witness.typ.as_deref();
                verifier.check_assumed(typ, &witness.claims, now).is_ok()
            })
    }
}

/// Tokens that a verifier accepts, each with one of these sets of claims beside its own: one for each issuer and each
/// audience, and those whose expiry shows how much the verifier grants.
fn tokens_of(verifier: &Verifier, wanted: &[Map<String, Value>], now: SystemTime) -> Vec<Witness> {
    let seconds = |after: Duration| {
        let at = now.checked_add(after).unwrap_or(now);
        at.duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    };
    let issuers: Vec<Option<&str>> = match verifier.issuers().collect::<Vec<_>>().as_slice() {
        [] => vec![None, Some(ANYTHING)],
        issuers => issuers.iter().copied().map(Some).collect(),
    };
    let audiences: Vec<Option<&str>> = match verifier.audience() {
        Audience::Unset => vec![None],
        Audience::Any => vec![None, Some(ANYTHING)],
        Audience::OneOf(names) => names.iter().map(|name| Some(name.as_str())).collect(),
    };
    let first = (issuers.first().copied(), audiences.first().copied());
    let ends = [
        Some(Duration::from_secs(60)),
        Some(verifier.longest_life().unwrap_or(LONG)),
        None,
    ];
    let mut all = Vec::new();
    for issuer in &issuers {
        for audience in &audiences {
            // Varying one at a time is enough: the checks do not depend on one another.
            if Some(*issuer) != first.0 && Some(*audience) != first.1 {
                continue;
            }
            for end in ends {
                if end != ends[0] && (Some(*issuer), Some(*audience)) != first {
                    continue;
                }
                for extra in wanted {
                    let mut claims = extra.clone();
                    claims.insert("iat".to_owned(), seconds(Duration::ZERO).into());
                    if let Some(end) = end {
                        claims.insert("exp".to_owned(), seconds(end).into());
                    }
                    for (name, value) in [("iss", issuer), ("aud", audience)] {
                        if let Some(value) = value {
                            claims
                                .entry(name)
                                .or_insert_with(|| (*value).to_owned().into());
                        }
                    }
                    for (path, value) in verifier.own_claims() {
                        path.put(&mut claims, value.clone());
                    }
                    all.push(Witness {
                        verifier: verifier.name().to_owned(),
                        typ: verifier.typ().map(str::to_owned),
                        claims: Claims::new(claims),
                    });
                }
            }
        }
    }
    all
}

impl Witness {
    /// The name of the verifier whose key it is signed with.
    pub(crate) fn verifier(&self) -> &str {
        &self.verifier
    }
}
