//! `jwt` and `auth`: compiles keys to verifiers, rules to guards.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::Compiler;
use super::clients::{self, Said};
use crate::auth::{
    Algorithm, ApiKeys, AskGuard, Audience, BasicUsers, ClaimPath, Cnf, Guard, JwtGuard,
    JwtGuardSettings, KeySource, Location, Passwords, RemoteKeys, RemoteSettings, Requirement,
    Revoked, Scheme, TokenSource, Verifier, VerifierSettings,
};
use crate::config::api_keys;
use crate::config::basic;
use crate::config::decode::suggest;
use crate::config::error::Errors;
use crate::config::json;
use crate::config::node::{Kind, Node};
use crate::config::parsed;
use crate::config::place::Place;
use crate::config::revoked;
use crate::net::url::Url;
use crate::proxy;
use crate::route::Pattern;

/// Verifiers by name; `None` for one whose errors were reported.
pub(super) type Verifiers = Vec<(String, Option<(VerifierSettings, Arc<Verifier>)>)>;

impl Compiler<'_> {
    /// Creates the verifiers, or keeps unchanged ones.
    pub(super) fn verifiers(&mut self, parsed: &parsed::Named<parsed::Verifier>) -> Verifiers {
        let mut verifiers = Vec::new();
        for (name, parsed) in parsed {
            let made = self.verifier(&name.value, parsed);
            verifiers.push((name.value.clone(), made));
        }
        verifiers
    }

    fn verifier(
        &mut self,
        name: &str,
        parsed: &parsed::Verifier,
    ) -> Option<(VerifierSettings, Arc<Verifier>)> {
        let before = self.errors.count();
        let algorithms = self.algorithms(parsed);
        let (keys, places) = self.key_sources(parsed);
        let remote = self.remote(parsed);
        let revoked = parsed.revoked.as_ref().map_or_else(
            || Some(Revoked::default()),
            |file| revoked::read(&file.value, file.place, self.loader, self.errors),
        );
        let mut claims = Vec::new();
        for (path, value) in &parsed.claims {
            match ClaimPath::parse(&path.value) {
                Ok(claim) => claims.push((claim, value.value.clone())),
                Err(problem) => {
                    self.errors.at(path.place, problem);
                }
            }
        }
        if parsed.broken || self.errors.count() != before {
            return None;
        }
        let settings = VerifierSettings {
            name: name.to_owned(),
            algorithms,
            keys,
            remote: remote?,
            issuer: parsed
                .issuer
                .iter()
                .map(|issuer| issuer.value.clone())
                .collect(),
            audience: match parsed.audience.as_ref().map(|audience| &audience.value) {
                None => Audience::Unset,
                Some(parsed::Audience::Any) => Audience::Any,
                Some(parsed::Audience::OneOf(names)) => Audience::OneOf(names.clone()),
            },
            leeway: parsed.leeway.value,
            iat_ahead: Duration::ZERO,
            require_exp: parsed.require_exp.value,
            max_lifetime: parsed.max_lifetime.as_ref().map(|lifetime| lifetime.value),
            typ: parsed.typ.as_ref().map(|typ| typ.value.clone()),
            claims,
            cnf: match parsed.cnf.value {
                parsed::Cnf::Check => Cnf::Check,
                parsed::Cnf::Require => Cnf::Require,
                parsed::Cnf::Ignore => Cnf::Ignore,
            },
            from: parsed
                .from
                .iter()
                .map(|source| token_source(&source.value))
                .collect(),
            weak_secret: parsed.weak_secret.is_some(),
            revoked: revoked?,
            live: None,
            admitted: None,
        };
        let kept = self.previous.and_then(|previous| {
            previous
                .verifiers
                .iter()
                .find(|(before, _)| *before == settings)
        });
        if let Some((_, verifier)) = kept {
            let verifier = Arc::clone(verifier);
            return Some(self.verifier_made(settings, verifier));
        }
        let before = self.previous.and_then(|previous| {
            let of_this_name = |(before, _): &&(VerifierSettings, _)| before.name == name;
            previous.verifiers.iter().find(of_this_name)
        });
        let before = before.map(|(settings, verifier)| (settings, &**verifier));
        match Verifier::new(settings.clone(), before) {
            Ok(verifier) => Some(self.verifier_made(settings, Arc::new(verifier))),
            Err(faults) => {
                for fault in faults {
                    let place = fault.key().and_then(|key| places.get(key).copied());
                    self.errors
                        .at(place.unwrap_or(parsed.place), fault.to_string());
                }
                None
            }
        }
    }

    fn verifier_made(
        &mut self,
        settings: VerifierSettings,
        verifier: Arc<Verifier>,
    ) -> (VerifierSettings, Arc<Verifier>) {
        verifier.count_in(self.counts.verifier(verifier.name()));
        for warning in verifier.warnings() {
            self.warnings
                .push(format!("jwt `{}`: {warning}", settings.name));
        }
        let kept = self.previous.is_some_and(|previous| {
            previous
                .verifiers
                .iter()
                .any(|(_, before)| Arc::ptr_eq(before, &verifier))
        });
        let part = format!("verifier {}", settings.name);
        let earlier = self
            .previous
            .and_then(|previous| previous.summary.get(&part));
        // The settings contain secrets and are not shown, only that they have changed.
        let said = match (kept, earlier) {
            (true, Some(earlier)) => earlier.clone(),
            (false, Some(earlier)) if earlier == "keys and checks" => {
                "keys and checks, changed".to_owned()
            }
            (false, Some(_)) | (true | false, None) => "keys and checks".to_owned(),
        };
        self.summary.insert(part, said);
        let revokes = format!("verifier {} revokes", settings.name);
        self.summary
            .insert(revokes, settings.revoked.len().to_string());
        (settings, verifier)
    }

    fn algorithms(&mut self, parsed: &parsed::Verifier) -> Vec<Algorithm> {
        let mut algorithms = Vec::new();
        for name in &parsed.algorithms {
            match Algorithm::parse(&name.value) {
                Ok(algorithm) => algorithms.push(algorithm),
                Err(problem) => {
                    self.errors.at(name.place, problem);
                }
            }
        }
        let named = !parsed.secret.is_empty() || !parsed.keys.is_empty();
        if named && parsed.algorithms.is_empty() && !parsed.broken {
            self.errors.at(parsed.place, "a secret or a PEM file needs `algorithms`").hint(
                "name what the issuer signs with, such as `algorithms: [HS256]`; it is never taken from a token",
            );
        }
        algorithms
    }

    /// The keys, and the places that their error messages point to.
    fn key_sources(&mut self, parsed: &parsed::Verifier) -> (Vec<KeySource>, Vec<Place>) {
        let mut keys = Vec::new();
        let mut places = Vec::new();
        for secret in &parsed.secret {
            keys.push(KeySource::Secret(secret.value.expose().to_vec()));
            places.push(secret.place);
        }
        for key in &parsed.keys {
            if let Some(bytes) = self.file(&key.file.value, key.file.place) {
                let kid = key.kid.as_ref().map(|kid| kid.value.clone());
                keys.push(KeySource::Pem { kid, bytes });
                places.push(key.file.place);
            }
        }
        if let Some(jwks) = &parsed.jwks
            && let parsed::Jwks::File(path) = &jwks.value
            && let Some(bytes) = self.file(path, jwks.place)
        {
            keys.push(KeySource::Jwks(bytes));
            places.push(jwks.place);
        }
        (keys, places)
    }

    /// The keys at a URL, configured or found by discovery; `Some(None)` where there are none, `None` where an error
    /// was reported. All verifiers with the same settings share one key set, also across reloads.
    #[expect(clippy::option_option, reason = "an error is not the same as no URL")]
    fn remote(&mut self, parsed: &parsed::Verifier) -> Option<Option<Arc<RemoteKeys>>> {
        let named = parsed.jwks.as_ref().and_then(|jwks| match &jwks.value {
            parsed::Jwks::Url(url) => Some((url, jwks.place)),
            parsed::Jwks::File(_) => None,
        });
        let has_own = !parsed.secret.is_empty() || !parsed.keys.is_empty();
        if let Some((_, place)) = named.filter(|_| has_own) {
            self.errors
                .at(place, "a key set at a URL stands alone")
                .hint("give the other keys a verifier of their own; a route may name several");
            return None;
        }
        let location = match (named, parsed.issuer.as_slice()) {
            (Some((url, _)), _) => Location::Jwks(url.clone()),
            (None, _) if has_own || parsed.jwks.is_some() => {
                return self.no_remote(parsed).then_some(None);
            }
            (None, [issuer]) => self.discovered(issuer)?,
            (None, []) => return self.no_remote(parsed).then_some(None),
            (None, [_, second, ..]) => {
                self.errors
                    .at(
                        second.place,
                        "one verifier cannot discover the keys of several issuers",
                    )
                    .hint("give each issuer a verifier of its own; a route may name several");
                return None;
            }
        };
        let ca = match &parsed.ca {
            None => None,
            Some(ca) => {
                let pem = self.roots(ca)?;
                if !location.url().is_https() {
                    let problem = "`ca` means something only where the keys are at https://";
                    self.errors.at(ca.place, problem);
                    return None;
                }
                Some(pem)
            }
        };
        if let Some(place) = parsed.weak_secret {
            let problem = "`weak_secret` means something only beside a secret";
            self.errors.at(place, problem);
            return None;
        }
        let settings = RemoteSettings {
            location,
            refresh: parsed.jwks_refresh.as_ref().map(|refresh| refresh.value),
            stale_for: parsed.stale_for.value,
            ca,
        };
        let before = || {
            self.previous.into_iter().flat_map(|previous| {
                let verifiers = previous.verifiers.iter();
                verifiers.filter_map(|(_, verifier)| verifier.remote())
            })
        };
        let kept = before()
            .chain(&self.remotes)
            .find(|keys| *keys.settings() == settings);
        let keys = match kept {
            Some(kept) => Arc::clone(kept),
            None => {
                let there = before().find(|keys| keys.settings().location == settings.location);
                RemoteKeys::new(settings, there.map(|keys| &**keys))
            }
        };
        self.remotes.push(Arc::clone(&keys));
        Some(Some(keys))
    }

    /// Keys of the configuration that have no effect without keys at a URL are errors.
    fn no_remote(&mut self, parsed: &parsed::Verifier) -> bool {
        let written = |place: Place| (place != Place::default()).then_some(place);
        let places = [
            (
                "jwks_refresh",
                parsed.jwks_refresh.as_ref().map(|it| it.place),
            ),
            ("stale_for", written(parsed.stale_for.place)),
            ("ca", parsed.ca.as_ref().map(|it| it.place)),
        ];
        let before = self.errors.count();
        for (key, place) in places {
            if let Some(place) = place {
                let problem = format!("`{key}` means something only where the keys are at a URL");
                self.errors.at(place, problem);
            }
        }
        self.errors.count() == before
    }

    /// The location of an issuer's discovery document (OpenID Connect Discovery 1.0 section 4).
    fn discovered(&mut self, issuer: &parsed::Spanned<String>) -> Option<Location> {
        let document = Url::parse(&issuer.value)
            .and_then(|url| url.beneath("/.well-known/openid-configuration"));
        match document {
            Ok(document) => Some(Location::Issuer {
                issuer: issuer.value.clone(),
                document,
            }),
            Err(why) => {
                self.errors
                    .at(
                        issuer.place,
                        format!("the issuer's keys cannot be discovered: {why}"),
                    )
                    .hint("an issuer that is no URL needs `jwks`, `keys` or `secret` beside it");
                None
            }
        }
    }

    /// The guard of a route; `None` where an error was reported.
    pub(super) fn guard(
        &mut self,
        auth: &parsed::Auth,
        (pattern, realm): (&Pattern, &str),
        verifiers: &Verifiers,
    ) -> Option<Guard> {
        let rule = match auth {
            parsed::Auth::Public(_) => return Some(Guard::open()),
            parsed::Auth::Jwt(rule) => rule,
            parsed::Auth::Certificate(rule) => {
                let before = self.errors.count();
                let certificate = self.certificate_rule(&Said {
                    certificate: Some(&rule.certificate),
                    forward: &rule.forward,
                    only_reports: rule.only_reports.value,
                });
                let good = self.errors.count() == before;
                return good.then(|| Guard::new(Scheme::Open, certificate));
            }
            parsed::Auth::Ask(rule) => {
                let before = self.errors.count();
                for name in &rule.copy {
                    self.is_the_gateways(name);
                }
                for (name, _) in &rule.forward {
                    if rule.copy.iter().any(|copied| copied.value == name.value) {
                        let problem = format!("`{}` is in `copy`, too", name.value);
                        self.errors.at(name.place, problem);
                    }
                }
                let certificate = self.certificate_rule(&Said {
                    certificate: rule.certificate.as_ref(),
                    forward: &rule.forward,
                    only_reports: false,
                });
                let copy = rule.copy.iter().map(|name| name.value.clone()).collect();
                let good = self.errors.count() == before;
                return good.then(|| Guard::new(Scheme::Ask(AskGuard { copy }), certificate));
            }
        };
        let before = self.errors.count();
        let mut found = Vec::new();
        let keys = rule.api_key.as_ref();
        let keys = keys.and_then(|keys| self.api_keys(keys, realm));
        let basic = rule.basic.as_ref();
        let basic = basic.and_then(|basic| self.basic_users(basic, realm));
        let mut missing = match (&rule.api_key, &rule.basic) {
            (_, Some(_)) => basic.is_none(),
            (Some(_), None) => keys.is_none(),
            (None, None) => rule.verifiers.is_empty(),
        };
        for name in &rule.verifiers {
            match verifiers.iter().find(|(known, _)| *known == name.value) {
                Some((_, Some((_, verifier)))) => found.push(Arc::clone(verifier)),
                Some((_, None)) => missing = true,
                None if self.errors.is_unread("jwt") || self.errors.is_unread("tokens") => {
                    missing = true;
                }
                None => {
                    let known = verifiers.iter().map(|(known, _)| known.as_str());
                    let hint = suggest(&name.value, known, "the verifiers under `jwt`");
                    self.errors
                        .at(name.place, format!("there is no verifier {}", name.shown()))
                        .hint(hint);
                }
            }
        }
        let parameters: Vec<&str> = pattern.parameters().map(|(name, _)| name).collect();
        let mut require = None;
        if let Some(node) = &rule.require {
            if let Some(rules) = json::json(node, self.errors) {
                match Requirement::parse(&rules, &parameters) {
                    Ok(parsed) => require = Some(parsed),
                    Err(mistakes) => {
                        for (pointer, problem) in mistakes {
                            self.errors.at(place_at(node, &pointer), problem);
                        }
                    }
                }
            }
        }
        let mut forward = Vec::new();
        for (header, claim) in &rule.forward {
            self.is_the_gateways(header);
            match ClaimPath::parse(&claim.value) {
                Ok(path) => forward.push((header.value.clone(), path)),
                Err(problem) => {
                    self.errors.at(claim.place, problem);
                }
            }
        }
        let certificate = self.certificate_rule(&Said {
            certificate: rule.certificate.as_ref(),
            forward: &rule.forward_certificate,
            only_reports: rule.only_reports.value,
        });
        if missing || self.errors.count() != before {
            return None;
        }
        let scheme = Scheme::Jwt(Box::new(JwtGuard::new(JwtGuardSettings {
            verifiers: found,
            keys,
            strip_token: rule.strip_token.value || basic.as_ref().is_some_and(|it| !it.pass),
            basic,
            optional: rule.optional.value,
            require,
            forward,
            only_reports: rule.only_reports.value,
            ends_with_token: rule.ends_with_token.value,
        })));
        Some(Guard::new(scheme, certificate))
    }
}

impl Compiler<'_> {
    /// The API keys of a route; each file is read once. `None` where an error was reported.
    fn api_keys(&mut self, parsed: &parsed::ApiKeyRule, realm: &str) -> Option<ApiKeys> {
        let file = &parsed.file;
        let known = self.key_files.get(&file.value).cloned();
        let keys = match known {
            Some(known) => known?,
            None => {
                let read = api_keys::read(&file.value, file.place, self.loader, self.errors);
                let keys = read.map(|keys| Arc::new(keys.into_iter().collect()));
                self.key_files.insert(file.value.clone(), keys.clone());
                keys?
            }
        };
        Some(ApiKeys {
            keys,
            file: file.value.clone(),
            places: parsed
                .from
                .iter()
                .map(|place| place.value.clone())
                .collect(),
            realm: realm.to_owned(),
        })
    }

    /// The users of a route; each file is read once, and kept where it did not change.
    fn basic_users(&mut self, parsed: &parsed::BasicRule, realm: &str) -> Option<BasicUsers> {
        let file = &parsed.users;
        let known = self.password_files.get(&file.value).cloned();
        let passwords = match known {
            Some(known) => known?,
            None => {
                let read = self.passwords(file);
                self.password_files.insert(file.value.clone(), read.clone());
                read?
            }
        };
        Some(BasicUsers {
            passwords,
            realm: parsed
                .realm
                .as_ref()
                .map_or_else(|| realm.to_owned(), |realm| realm.value.clone()),
            pass: parsed.pass.value,
            hashing: Arc::clone(&self.hashing),
        })
    }

    fn passwords(&mut self, file: &parsed::Spanned<PathBuf>) -> Option<Arc<Passwords>> {
        let shown = file.value.display();
        let bytes = self.file(&file.value, file.place)?;
        self.loader
            .keep_secret(&file.value, "password hashes", file.place);
        let Ok(text) = String::from_utf8(bytes) else {
            self.errors
                .at(file.place, format!("`{shown}` is not UTF-8"));
            return None;
        };
        let users = match basic::parse(&text) {
            Ok(users) => users,
            Err(faults) => {
                for (line, fault) in faults {
                    let problem = format!("line {line} of `{shown}` {}", fault.in_words());
                    self.errors
                        .at(file.place, problem)
                        .hint(format!("`htpasswd -B {shown} NAME` writes a good line"));
                }
                return None;
            }
        };
        let passwords = match Passwords::new(file.value.clone(), users) {
            Ok(passwords) => passwords,
            Err(why) => {
                self.errors.at(file.place, why);
                return None;
            }
        };
        let before = (self.previous.iter()).flat_map(|previous| &previous.routes);
        let before = before.filter_map(|route| route.guard.basic());
        let kept = before
            .map(|basic| &basic.passwords)
            .find(|known| known.is_same(&passwords));
        Some(kept.map_or_else(|| Arc::new(passwords), Arc::clone))
    }

    /// A header that controls connections or forwarding cannot carry an identity.
    pub(super) fn is_the_gateways(&mut self, name: &parsed::Spanned<HeaderName>) {
        if proxy::is_the_gateways(&name.value) {
            let problem = format!("`{}` is a header that the gateway itself sets", name.value);
            self.errors
                .at(name.place, problem)
                .hint("take one of your own, such as X-User-Id");
        }
    }
}

/// The place of a JSON pointer (RFC 6901) below a node: that of the nearest existing node.
fn place_at(node: &Node, pointer: &str) -> Place {
    let mut here = node;
    for step in pointer.split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~");
        let below = match &here.kind {
            Kind::Map(entries) => entries
                .iter()
                .find(|(key, _)| key.text == step)
                .map(|(_, below)| below),
            Kind::List(items) => step.parse::<usize>().ok().and_then(|at| items.get(at)),
            Kind::Null | Kind::Scalar(_) | Kind::Broken => None,
        };
        match below {
            Some(below) => here = below,
            None => break,
        }
    }
    here.place
}

/// Describes a rule, for the log of a reload.
pub(super) fn in_words(auth: &parsed::Auth) -> String {
    match auth {
        parsed::Auth::Public(_) => "none".to_owned(),
        parsed::Auth::Ask(rule) => {
            let (server, target) = &rule.url.value;
            let (address, path) = (super::upstreams::address(server), target.path());
            let besides = besides(rule.certificate.as_ref());
            format!("ask {address}{path}{besides}")
        }
        parsed::Auth::Certificate(rule) => {
            let reported = if rule.only_reports.value {
                ", only reported"
            } else {
                ""
            };
            format!("{}{reported}", clients::in_words(&rule.certificate.value))
        }
        parsed::Auth::Jwt(rule) => {
            let names: Vec<&str> = rule
                .verifiers
                .iter()
                .map(|name| name.value.as_str())
                .collect();
            let mut names = names;
            if rule.api_key.is_some() {
                names.push("API key");
            }
            if rule.basic.is_some() {
                names.push("password");
            }
            let mut words = names.join(" or ") + &besides(rule.certificate.as_ref());
            if rule.optional.value {
                words.push_str(", optional");
            }
            if rule.only_reports.value {
                words.push_str(", only reported");
            }
            if let Some(require) = &rule.require {
                words.push_str(", require ");
                let rules = json::json(require, &mut Errors::default());
                words.push_str(&rules.unwrap_or_default().to_string());
            }
            words
        }
    }
}

fn besides(certificate: Option<&parsed::Spanned<parsed::Accepted>>) -> String {
    certificate.map_or_else(String::new, |certificate| {
        format!(" and {}", clients::in_words(&certificate.value))
    })
}

fn token_source(parsed: &parsed::TokenSource) -> TokenSource {
    match parsed {
        parsed::TokenSource::Header => TokenSource::Header,
        parsed::TokenSource::Cookie(name) => TokenSource::Cookie(name.clone()),
        parsed::TokenSource::Query(name) => TokenSource::Query(name.clone()),
        parsed::TokenSource::WebSocket => TokenSource::WebSocket,
        parsed::TokenSource::Basic => TokenSource::Basic,
    }
}
