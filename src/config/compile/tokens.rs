//! `tokens`: compiles keys, users and settings to the token service, and its endpoints to routes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::Compiler;
use super::access::Verifiers;
use super::upstreams::Upstreams;
use crate::auth::{
    Admitted, Algorithm, Audience, ClaimPath, Cnf, Guard, KeySource, LiveRevoked, Revoked,
    TokenSource, Verifier, VerifierSettings,
};
use crate::config::error::Errors;
use crate::config::json;
use crate::config::merge;
use crate::config::node::Kind;
use crate::config::parsed;
use crate::config::place::Place;
use crate::config::source::why;
use crate::config::tree;
use crate::edits::HeaderEdits;
use crate::message::method::MethodSet;
use crate::observe::counts::RouteCounts;
use crate::proxy::{Ask, Forward, Purpose};
use crate::route::{Host, Pattern, Route, RouteTable, Target};
use crate::state::State;
use crate::tokens::{
    Cookies, Endpoint, HOST_PREFIX, Issued, KeyRing, OWN, Rate, SLACK, SameSite, TokenService,
    TokenSettings, Users, is_prefixed,
};

/// The name of the verifier of the gateway's own tokens, for `auth`.
pub(super) const NAME: &str = "tokens";
/// The usual path of key sets.
const JWKS: &str = "/.well-known/jwks.json";

impl Compiler<'_> {
    /// Creates the service, and the verifier that `auth: tokens` names.
    pub(super) fn tokens(
        &mut self,
        gateway: &parsed::Gateway,
        state: Option<&State>,
        verifiers: &mut Verifiers,
        ended: &Arc<LiveRevoked>,
    ) -> Option<Arc<TokenService>> {
        let parsed = gateway.tokens.as_ref()?;
        let before = self.errors.count();
        if let Some((name, _)) = gateway.jwt.iter().find(|(name, _)| name.value == NAME) {
            let problem = "`tokens` is the name of the verifier of the gateway's own tokens";
            self.errors.at(name.place, problem);
        }
        if gateway.state.is_none() {
            if !parsed.broken && !self.errors.is_unread("state") {
                self.errors
                    .at(
                        parsed.place,
                        "`tokens` need `state`, where refresh tokens are written down",
                    )
                    .hint("add `state: data/`");
            }
            verifiers.push((NAME.to_owned(), None));
            return None;
        }
        let settings = self.token_settings(parsed);
        let at = state.map(|state| state.at.clone());
        let ring = self.ring(&parsed.keys);
        let users = match &parsed.users {
            Some(file) => self.users(file),
            None => Some((Users::default(), Vec::new())),
        };
        let (Some(settings), Some(at), Some(ring), Some(users), false) = (
            settings,
            at,
            ring,
            users,
            parsed.broken || self.errors.count() != before,
        ) else {
            verifiers.push((NAME.to_owned(), None));
            return None;
        };
        let earlier = self.previous.and_then(|previous| previous.tokens.as_ref());
        // Where the app decides on logins, there is no list of users to check sessions against.
        let admitted = parsed.users.as_ref().map(|_| Arc::new(users.0.admitted()));
        let access = self.own_verifier(&settings, &ring, "access", ended, &admitted);
        let refresh = self.own_verifier(&settings, &ring, "refresh", ended, &admitted);
        let (Some(access), Some(refresh)) = (access, refresh) else {
            let problem = "the signing keys cannot be used";
            self.errors.at(parsed.keys.place, problem);
            verifiers.push((NAME.to_owned(), None));
            return None;
        };
        self.summary.insert(
            "tokens".to_owned(),
            format!("{} with {} keys", settings.algorithm, ring.keys().len()),
        );
        let service = TokenService::new(
            settings,
            (at, Arc::clone(ended), Arc::clone(&self.hashing)),
            ring,
            users,
            (Arc::clone(&access.1), refresh.1),
            earlier.map(|earlier| &**earlier),
        );
        verifiers.push((NAME.to_owned(), Some(access)));
        Some(Arc::new(service))
    }

    /// The service of the previous configuration.
    fn before(&self) -> Option<&TokenService> {
        self.previous?.tokens.as_deref()
    }

    fn token_settings(&mut self, parsed: &parsed::Tokens) -> Option<TokenSettings> {
        let algorithm = match Algorithm::parse(&parsed.algorithm.value) {
            Ok(algorithm) => algorithm,
            Err(problem) => {
                self.errors.at(parsed.algorithm.place, problem);
                return None;
            }
        };
        if parsed.refresh_lifetime.value < parsed.access_lifetime.value {
            self.errors.at(
                parsed.refresh_lifetime.place,
                "a refresh token with a shorter lifetime than the access token renews nothing",
            );
        }
        let mut claims = Vec::new();
        for (name, value) in &parsed.claims {
            if OWN.contains(&name.value.as_str()) {
                let problem = format!("{} is a claim of the service's own", name.shown());
                self.errors.at(name.place, problem);
                continue;
            }
            match issued(&value.value) {
                Ok(issued) => claims.push((name.value.clone(), issued)),
                Err(problem) => {
                    self.errors.at(value.place, problem);
                }
            }
        }
        let cookies = match &parsed.cookies {
            None => None,
            Some(cookies) => Some(self.cookies(cookies, &parsed.path.value)?),
        };
        let rate = |rate: Option<(std::num::NonZeroU32, Duration)>| {
            rate.map(|(tries, per)| Rate { tries, per })
        };
        Some(TokenSettings {
            issuer: parsed.issuer.as_ref().map(|issuer| issuer.value.clone()),
            algorithm,
            keys: parsed.keys.value.clone(),
            users: parsed.users.as_ref().map(|file| file.value.clone()),
            access_lifetime: parsed.access_lifetime.value,
            refresh_lifetime: parsed.refresh_lifetime.value,
            rotate_refresh: parsed.rotate_refresh.value,
            refresh_grace: parsed.refresh_grace.value,
            rotate_keys_after: parsed.rotate_keys_after.value,
            cookies,
            username_field: parsed.username_field.value.clone(),
            claims,
            per_ip: rate(parsed.throttle.per_ip),
            per_user: rate(parsed.throttle.per_user),
        })
    }

    /// The cookie settings. Browsers enforce rules for names that begin with `__Host-` or `__Secure-` (RFC 6265bis
    /// section 4.1.3).
    fn cookies(&mut self, parsed: &parsed::Cookies, path: &str) -> Option<Cookies> {
        let path = match path.trim_end_matches('/') {
            "" => "/",
            path => path,
        };
        let before = self.errors.count();
        for (name, path) in [(&parsed.access, "/"), (&parsed.refresh, path)] {
            if is_prefixed(&name.value, HOST_PREFIX) && (path != "/" || parsed.domain.is_some()) {
                let problem = format!(
                    "browsers take {} for the path / of one host alone",
                    name.shown()
                );
                self.errors
                    .at(name.place, problem)
                    .hint("`__Secure-` is the name for others");
            }
        }
        (self.errors.count() == before).then(|| Cookies {
            access: parsed.access.value.clone(),
            refresh: parsed.refresh.value.clone(),
            same_site: if parsed.is_lax.value {
                SameSite::Lax
            } else {
                SameSite::Strict
            },
            domain: parsed.domain.as_ref().map(|domain| domain.value.clone()),
            origins: parsed.origins.iter().map(|it| it.value.clone()).collect(),
            path: path.to_owned(),
        })
    }

    /// The signing keys; a directory that does not exist yet has none.
    fn ring(&mut self, directory: &parsed::Spanned<PathBuf>) -> Option<KeyRing> {
        let paths = match self.loader.list(&directory.value, "*.json") {
            Ok(paths) => paths,
            Err(error) => {
                let shown = directory.value.display();
                let problem = format!("`{shown}` cannot be read: {}", why(&error));
                self.errors.at(directory.place, problem);
                return None;
            }
        };
        if paths.is_empty() && self.before().is_some_and(|it| !it.ring().keys().is_empty()) {
            let shown = directory.value.display();
            let problem = format!("`{shown}` no longer has signing keys");
            self.errors
                .at(directory.place, problem)
                .hint("every issued token would be refused; a restart creates new keys");
            return None;
        }
        let mut files = Vec::new();
        for path in paths {
            let bytes = self.file(&path, directory.place)?;
            files.push((path, bytes));
        }
        match KeyRing::read(&files) {
            Ok(ring) => Some(ring),
            Err((path, fault)) => {
                let problem = format!("`{}` is no signing key: {fault}", path.display());
                self.errors.at(directory.place, problem);
                None
            }
        }
    }

    /// The users, and the bytes of their file.
    fn users(&mut self, file: &parsed::Spanned<PathBuf>) -> Option<(Users, Vec<u8>)> {
        let path = file.value.clone();
        let there = self
            .loader
            .patiently(&file.value, move || path.try_exists());
        if matches!(there, Ok(false)) {
            // Nobody can log in yet; the first `portcullis user add` creates the file.
            self.loader.watch(&file.value);
            let shown = file.value.display();
            if self
                .before()
                .is_some_and(|it| it.users().iter().next().is_some())
            {
                let problem = format!("`{shown}` is gone: every session would end");
                self.errors.at(file.place, problem);
                return None;
            }
            self.warnings
                .push(format!("`{shown}` does not exist: nobody can log in"));
            return Some((Users::default(), Vec::new()));
        }
        let bytes = self.file(&file.value, file.place)?;
        let node = merge::plain_file(&file.value, file.place, self.loader, self.errors)?;
        let Some(users) = users_of(node.kind) else {
            let problem = "write a map of users, such as {alice: {password: HASH}}";
            self.errors.at(node.place, problem);
            return None;
        };
        for (name, why) in users.broken() {
            let shown = file.value.display();
            self.warnings.push(format!(
                "`{shown}`: the user {name:?} is ignored and cannot log in: {why}"
            ));
        }
        Some((users, bytes))
    }

    /// The verifier of the service's own tokens of one type; without a signing key it accepts none.
    fn own_verifier(
        &mut self,
        settings: &TokenSettings,
        ring: &KeyRing,
        kind: &str,
        ended: &Arc<LiveRevoked>,
        admitted: &Option<Arc<Admitted>>,
    ) -> Option<(VerifierSettings, Arc<Verifier>)> {
        let set = if ring.keys().is_empty() {
            // A random key that signs nothing.
            KeyRing::stranger()?.verifying()
        } else {
            ring.verifying()
        };
        let made_of = VerifierSettings {
            name: if kind == "access" {
                NAME.to_owned()
            } else {
                format!("{NAME} {kind}")
            },
            algorithms: Vec::new(),
            keys: vec![KeySource::Jwks(set)],
            remote: None,
            issuer: settings.issuer.iter().cloned().collect(),
            audience: Audience::Unset,
            leeway: Duration::ZERO,
            // Another gateway may have issued the token, or this one before its clock was set back.
            iat_ahead: Duration::from_secs(SLACK),
            require_exp: true,
            max_lifetime: None,
            typ: None,
            claims: vec![(ClaimPath::parse("token_type").ok()?, Value::from(kind))],
            cnf: Cnf::Check,
            from: [TokenSource::Header]
                .into_iter()
                .chain(
                    settings
                        .cookies
                        .iter()
                        .filter(|_| kind == "access")
                        .map(|cookies| TokenSource::Cookie(cookies.access.clone())),
                )
                .collect(),
            weak_secret: false,
            revoked: Revoked::default(),
            live: Some(Arc::clone(ended)),
            admitted: admitted.clone(),
        };
        let kept = self.previous.and_then(|previous| {
            let mut all = previous.verifiers.iter();
            all.find(|(before, _)| *before == made_of)
        });
        let verifier = match kept {
            Some((_, verifier)) => Arc::clone(verifier),
            None => {
                let before = self.previous.and_then(|previous| {
                    let mut all = previous.verifiers.iter();
                    all.find(|(before, _)| before.name == made_of.name)
                });
                let before = before.map(|(settings, verifier)| (settings, &**verifier));
                Arc::new(Verifier::new(made_of.clone(), before).ok()?)
            }
        };
        verifier.count_in(self.counts.verifier(verifier.name()));
        Some((made_of, verifier))
    }

    /// Adds the endpoints to the routes.
    pub(super) fn endpoints(
        &mut self,
        parsed: &parsed::Tokens,
        service: &Arc<TokenService>,
        response_headers: &HeaderEdits,
        (table, routes): (&mut RouteTable, &mut Vec<(Arc<Route>, Place)>),
        upstreams: &mut Upstreams,
    ) {
        let login = match &parsed.login {
            None => None,
            Some(login) => {
                let (server, target) = &login.value;
                let Some(upstream) = self.bare(server, Purpose::Login, login.place, upstreams)
                else {
                    return;
                };
                Some((upstream, target))
            }
        };
        let posted = MethodSet::default().with("POST");
        let cors = self.cors(parsed.cors.as_ref(), posted, NAME);
        let base = parsed.path.value.trim_end_matches('/');
        let paths = Endpoint::ALL.into_iter().flat_map(|(endpoint, suffix)| {
            let with = format!("{base}{suffix}");
            let without = with.trim_end_matches('/').to_owned();
            [(endpoint, with), (endpoint, without)]
        });
        let all: Vec<_> = paths
            .chain([(Endpoint::Keys, JWKS.to_owned())])
            .filter(|(_, path)| !path.is_empty())
            .collect();
        // A host with routes of its own does not fall back to routes for any host.
        let mut hosts = vec![Host::Any];
        for (route, _) in routes.iter() {
            for host in &route.hosts {
                if !hosts.contains(host) {
                    hosts.push(host.clone());
                }
            }
        }
        let everywhere = all
            .iter()
            .flat_map(|(endpoint, path)| hosts.iter().map(move |host| (*endpoint, path, host)));
        let limiting = self.defaults.limiting();
        for (endpoint, path, host) in everywhere {
            let pattern = match Pattern::parse(path) {
                Ok(pattern) if !pattern.star && pattern.parameters().next().is_none() => pattern,
                Ok(_) => {
                    let problem = "the path of the endpoints has neither a star nor parameters";
                    self.errors.at(parsed.path.place, problem);
                    return;
                }
                Err(problem) => {
                    self.errors.at(parsed.path.place, problem);
                    return;
                }
            };
            let methods = match endpoint {
                Endpoint::Keys => MethodSet::default()
                    .with("GET")
                    .and_then(|methods| methods.with("OPTIONS")),
                Endpoint::Obtain
                | Endpoint::Refresh
                | Endpoint::Verify
                | Endpoint::Blacklist
                | Endpoint::Revoke => None,
            };
            let route = Arc::new(Route {
                index: routes.len(),
                name: endpoint.name().to_owned(),
                hosts: vec![host.clone()],
                pattern,
                methods,
                guard: Guard::open(),
                addresses: limiting.addresses.clone(),
                limits: limiting.limits.clone(),
                ask: login.as_ref().filter(|_| endpoint == Endpoint::Obtain).map(
                    |(upstream, target)| {
                        Box::new(Ask {
                            forward: Forward {
                                upstream: Arc::clone(upstream),
                                timeouts: upstream.settings().timeouts,
                                by: None,
                            },
                            target: (*target).clone(),
                        })
                    },
                ),
                // The key set is public anyway.
                cors: cors.clone().filter(|_| endpoint != Endpoint::Keys),
                target: Target::Tokens {
                    service: Arc::clone(service),
                    endpoint,
                },
                request_headers: HeaderEdits::default(),
                response_headers: response_headers.clone(),
                errors: self.site.whole.clone(),
                body_bytes: crate::tokens::BODY_BYTES as u64,
                counts: RouteCounts::default(),
            });
            match table.insert(&route) {
                Ok(()) => routes.push((route, Place::default())),
                Err(other) => {
                    let problem = format!("`{}` has the path {path} of an endpoint", other.name);
                    self.errors
                        .at(parsed.place, problem)
                        .hint("give `tokens` another `path`, or leave that route out");
                }
            }
        }
    }
}

/// The users of a file; `None` where it is not a map.
fn users_of(file: Kind) -> Option<Users> {
    let users = match file {
        Kind::Map(users) => users,
        Kind::Null => Vec::new(),
        Kind::Scalar(_) | Kind::List(_) | Kind::Broken => return None,
    };
    Some(Users::read(users.into_iter().map(|(key, user)| {
        // Users that cannot be read all get the same message.
        let content = json::json(&user, &mut Errors::default());
        (key.text, content)
    })))
}

/// Parses the text of a users file as the gateway does.
///
/// # Errors
/// Why it cannot be parsed.
pub(crate) fn read_users(text: &str) -> Result<Users, String> {
    let mut errors = Errors::default();
    let file = errors.add_file("users.yaml", text);
    let node = tree::parse(file, text, &mut errors);
    errors.finish().map_err(|errors| errors.to_string())?;
    node.and_then(|node| users_of(node.kind))
        .ok_or_else(|| "it is no map of users".to_owned())
}

/// The value of an issued claim: `"{user.roles}"` is replaced by the value in the users file, anything else is literal.
fn issued(value: &Value) -> Result<Issued, String> {
    let Some(text) = value.as_str().filter(|text| text.contains(['{', '}'])) else {
        return Ok(Issued::Fixed(value.clone()));
    };
    let name = text
        .strip_prefix("{user.")
        .and_then(|rest| rest.strip_suffix('}'))
        .filter(|name| !name.is_empty() && !name.contains(['{', '}']));
    match name {
        Some("name") => Ok(Issued::Name),
        Some("password") => Err("a password's hash is nobody's to read".to_owned()),
        Some(name) => Ok(Issued::OfUser(name.to_owned())),
        None => Err(
            "write \"{user.roles}\" for what the users' file says under `roles`, or \"{user.name}\"".to_owned(),
        ),
    }
}
