//! Made-up clients that a guard would allow, used to test whether another guard allows them too: this is how a reload
//! detects that access became wider. Their tokens have no signature, and no request is ever checked with them.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::api_key::KeyHash;
use super::binding::{CONFIRMATION, Cnf, Holder, THUMBPRINT};
use super::claims::{ClaimPath, Claims};
use super::guard::{Guard, Scheme};
use super::jwt_guard::JwtGuard;
use super::policy::Parameters;
use super::verify::{Audience, Verifier};
use crate::net::tls::{ClientCertificate, Fingerprint};

/// How many clients represent a guard, at most: a requirement with many alternatives has many.
const MOST: usize = 256;
/// A value that no rule requires.
const ANYTHING: &str = "portcullis-probe";
/// Stands for a certificate that no made-up client has.
const PROBE_KEY: &[u8] = b"portcullis-probe of somebody else";
/// The lifetime of a token where nothing limits it.
const LONG: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A client that a guard allows, made up: its token is not signed, and nobody has its certificate.
#[derive(Clone, Debug)]
pub(crate) struct Witness {
    token: Option<Token>,
    certificate: Option<Arc<ClientCertificate>>,
}

/// Stand for a verifier, where a client has an API key or a password.
const API_KEY: &str = "(api_key)";
const PASSWORD: &str = "(basic)";

/// What a client has in the place of a token.
#[derive(Clone, Debug)]
enum Secret {
    /// The API key with this hash.
    Key(KeyHash),
    /// The password of the user of this name.
    Password(String),
}

/// A token without its signature, or what a client has in its place.
#[derive(Clone, Debug)]
struct Token {
    /// The name of the verifier whose key it is signed with; [`API_KEY`] or [`PASSWORD`] in the place of a token.
    verifier: String,
    /// What it is, if not a token.
    secret: Option<Secret>,
    /// Its `typ`.
    typ: Option<String>,
    claims: Claims,
    /// Whether it is bound to a client certificate that its sender need not have.
    is_unbound: bool,
}

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
    /// Clients that this guard allows, those without a token first: one for each way to meet the demand on
    /// certificates, and with tokens for each verifier and each way to satisfy `require` a minimal one, and variants of
    /// it with the values that `other` refuses by name. `params` are the route's path parameters.
    pub(crate) fn witnesses(
        &self,
        other: &Self,
        params: &Parameters<'_>,
        now: SystemTime,
    ) -> Vec<Witness> {
        let mut certificates: Vec<Option<Arc<ClientCertificate>>> = vec![None];
        certificates.extend(self.certificates(now).into_iter().map(Some));
        let anonymous = certificates.iter().map(|certificate| Witness {
            token: None,
            certificate: certificate.clone(),
        });
        let mut all: Vec<Witness> = anonymous.collect();
        if let Some(guard) = self.jwt() {
            let wanted = guard.wanted(other, params);
            for (verifier, _) in &guard.verifiers {
                for certificate in &certificates {
                    all.extend(bearers(verifier, certificate.as_ref(), &wanted, now));
                }
            }
        }
        let keys = self.api_keys().into_iter();
        let keys = keys.flat_map(|keys| keys.examples(now));
        let keys = keys.map(|(hash, claims)| (API_KEY, Secret::Key(*hash), claims));
        let users = self.basic().into_iter().flat_map(|basic| {
            let names = basic.names();
            names.filter_map(|name| Some((name.to_owned(), basic.claims(name)?)))
        });
        let users = users.map(|(name, claims)| (PASSWORD, Secret::Password(name), claims));
        let mut secrets: Vec<_> = keys.chain(users).collect();
        // Those that are new come first: there may be more than are looked at.
        secrets.sort_by_key(|(_, secret, _)| other.knows(secret, now));
        for (verifier, secret, claims) in secrets.into_iter().take(MOST) {
            let token = Token {
                verifier: verifier.to_owned(),
                secret: Some(secret),
                typ: None,
                claims: claims.clone(),
                is_unbound: false,
            };
            all.extend(certificates.iter().map(|certificate| Witness {
                token: Some(token.clone()),
                certificate: certificate.clone(),
            }));
        }
        // A made-up token may contradict itself.
        all.retain(|witness| {
            let own = |name: &str| Some(name) == witness.verifier();
            self.says(witness, &own, params, now) > Says::No
        });
        all.truncate(MOST);
        all
    }

    /// Whether this client is known, whatever it may do.
    fn knows(&self, secret: &Secret, now: SystemTime) -> bool {
        let guard = self.jwt();
        guard.is_some_and(|guard| guard.claims_of(secret, now).is_some())
    }

    /// Made-up certificates, one for each way to meet the demand on them.
    pub(crate) fn certificates(&self, now: SystemTime) -> Vec<Arc<ClientCertificate>> {
        let rule = self.certificate();
        rule.map_or_else(Vec::new, |rule| rule.examples(ANYTHING, now))
    }

    /// The guard's decision on a request of this client, where `signed` are the verifiers, by name, that accept the
    /// signature of its token.
    pub(crate) fn says(
        &self,
        client: &Witness,
        signed: &dyn Fn(&str) -> bool,
        params: &Parameters<'_>,
        now: SystemTime,
    ) -> Says {
        let Ok(certified) = self.certify(client.certificate.as_ref(), now) else {
            return Says::No;
        };
        let guard = match self.scheme() {
            Scheme::Open => return Says::Yes,
            Scheme::Ask(_) => return Says::Asks,
            Scheme::Jwt(guard) => guard,
        };
        let allowed = guard.only_reports
            || match &client.token {
                None => guard.optional && guard.allows(&Claims::default(), params),
                Some(Token {
                    secret: Some(secret),
                    ..
                }) => {
                    let claims = guard.claims_of(secret, now);
                    claims.is_some_and(|claims| guard.allows(claims, params))
                }
                Some(token) => {
                    guard.accepts(token, certified.holder(), signed, now)
                        && guard.allows(&token.claims, params)
                }
            };
        if allowed { Says::Yes } else { Says::No }
    }
}

impl JwtGuard {
    /// Sets of claims that satisfy `require`, and the same with values that another guard refuses by name.
    fn wanted(&self, other: &Guard, params: &Parameters<'_>) -> Vec<Map<String, Value>> {
        let others = other.jwt().and_then(|other| other.require.as_ref());
        let refused: Vec<(ClaimPath, Value)> = others
            .map(|require| require.refused_values(params))
            .into_iter()
            .flatten()
            .collect();
        let mut wanted: Vec<Map<String, Value>> = match &self.require {
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
        wanted
    }

    /// The claims of who has this, where it is known.
    fn claims_of(&self, secret: &Secret, now: SystemTime) -> Option<&Claims> {
        match secret {
            Secret::Key(hash) => self.keys.as_ref()?.claims(hash, now),
            Secret::Password(name) => self.basic.as_ref()?.claims(name),
        }
    }

    fn allows(&self, claims: &Claims, params: &Parameters<'_>) -> bool {
        let require = self.require.as_ref();
        require.is_none_or(|require| require.is_satisfied(claims, params))
    }

    fn accepts(
        &self,
        token: &Token,
        holder: Holder<'_>,
        signed: &dyn Fn(&str) -> bool,
        now: SystemTime,
    ) -> bool {
        let verifiers = self.verifiers.iter().map(|(verifier, _)| verifier);
        verifiers
            .filter(|verifier| signed(verifier.name()))
            .any(|verifier| {
                let typ = token.typ.as_deref();
                let checked = verifier.check_assumed(typ, &token.claims, holder, now);
                checked.is_ok()
            })
    }
}

/// Clients with this certificate, or one of their own, and the tokens of [`tokens_of`]: bound as the verifier demands,
/// and where it does not look at that, bound to a certificate that they do not have and in a way that nobody checks.
fn bearers(
    verifier: &Verifier,
    certificate: Option<&Arc<ClientCertificate>>,
    wanted: &[Map<String, Value>],
    now: SystemTime,
) -> Vec<Witness> {
    let own = || ClientCertificate::made_up(Vec::new(), Fingerprint::of(ANYTHING.as_bytes()), now);
    let bound_to = |print: &Fingerprint| json!({THUMBPRINT: print.base64url()});
    let mut all = Vec::new();
    let mut add =
        |claims: Map<String, Value>, certificate: Option<&Arc<ClientCertificate>>, is_unbound| {
            all.push(Witness {
                token: Some(Token {
                    verifier: verifier.name().to_owned(),
                    secret: None,
                    typ: verifier.typ().map(str::to_owned),
                    claims: Claims::new(claims),
                    is_unbound,
                }),
                certificate: certificate.cloned(),
            });
        };
    for claims in tokens_of(verifier, wanted, now) {
        let with = |cnf: Value| {
            let mut claims = claims.clone();
            claims.insert(CONFIRMATION.to_owned(), cnf);
            claims
        };
        match verifier.cnf() {
            Cnf::Check => add(claims, certificate, false),
            Cnf::Require => {
                let holder = certificate.cloned().unwrap_or_else(own);
                add(with(bound_to(holder.fingerprint())), Some(&holder), false);
            }
            Cnf::Ignore => {
                let others = Fingerprint::of(PROBE_KEY);
                add(with(bound_to(&others)), certificate, true);
                add(with(json!({"jkt": others.base64url()})), certificate, true);
                add(claims, certificate, false);
            }
        }
    }
    all
}

/// The claims of tokens that a verifier accepts, each with one of these sets beside its own: one for each issuer and
/// each audience, and those whose expiry shows how much the verifier grants.
fn tokens_of(
    verifier: &Verifier,
    wanted: &[Map<String, Value>],
    now: SystemTime,
) -> Vec<Map<String, Value>> {
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
                    all.push(claims);
                }
            }
        }
    }
    all
}

impl Witness {
    /// The name of the verifier whose key its token is signed with, where it has one.
    pub(crate) fn verifier(&self) -> Option<&str> {
        self.token.as_ref().map(|token| token.verifier.as_str())
    }

    /// What it has in the place of a token, in words, where it has something.
    pub(crate) fn secret(&self) -> Option<&'static str> {
        match self.token.as_ref()?.secret.as_ref()? {
            Secret::Key(_) => Some("API keys"),
            Secret::Password(_) => Some("users with passwords"),
        }
    }

    /// Whether it has a certificate.
    pub(crate) fn has_certificate(&self) -> bool {
        self.certificate.is_some()
    }

    /// Whether its token is bound to a certificate that it does not have.
    pub(crate) fn is_unbound(&self) -> bool {
        self.token.as_ref().is_some_and(|token| token.is_unbound)
    }

    /// The same client with this certificate.
    pub(crate) fn with(&self, certificate: Arc<ClientCertificate>) -> Self {
        Self {
            token: self.token.clone(),
            certificate: Some(certificate),
        }
    }
}
