//! Detects where access got wider from one configuration to the next. It decides sample requests with both instead of
//! comparing their settings: an open route below a guarded one is wider though no route changed.
//!
//! Nothing is served, queried or connected to, and no token is real.

mod listeners;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, header};

use crate::auth::{Says, VerifierSettings, Witness};
use crate::message::cors::{ANY, CREDENTIALS, Cors};
use crate::message::path::RequestPath;
use crate::net::addresses::Addresses;
use crate::route::{Host, Pattern, Route, Segment};
use crate::snapshot::Snapshot;

/// Stands for any host, segment, method and origin that no route names.
pub(super) const PROBE: &str = "portcullis-probe";
const PROBE_HOST: &str = "portcullis-probe.invalid";
const PROBE_METHOD: &str = "PORTCULLIS-PROBE";
const PROBE_ORIGIN: &str = "https://portcullis-probe.invalid";
/// The limit for segments that are tried below a star.
const DEEPEST: usize = 4;

/// Describes the requests that `new` allows and `old` refused: a line for each pair of routes and kind. Requests
/// without a route in `old` are new, not wider.
pub(crate) fn wider(old: &Snapshot, new: &Snapshot, now: SystemTime) -> Vec<String> {
    let signers = Signers::of(old, new);
    let mut said = BTreeMap::new();
    for (host, path) in probes(old, new) {
        let Some(parsed) = parsed(&path) else {
            continue;
        };
        let (Ok(before), Ok(after)) = (old.table.at(&host, &parsed), new.table.at(&host, &parsed))
        else {
            continue;
        };
        for name in methods(before, after) {
            let Ok(method) = Method::from_bytes(name.as_bytes()) else {
                continue;
            };
            let found = [old, new].map(|side| side.table.find(&host, &parsed, &method));
            let [Ok(was), Ok(is)] = found else {
                continue;
            };
            let both = Both {
                was,
                is,
                signers: &signers,
                now,
            };
            let request = if name == PROBE_METHOD {
                path.clone()
            } else {
                format!("{name} {path}")
            };
            both.compare(&request, &parsed, &mut said);
        }
    }
    let mut lines: Vec<String> = said.into_values().collect();
    lines.extend(listeners::wider(old, new));
    lines.extend(no_longer_revoked(old, new));
    lines
}

/// The routes of one request, before and after.
pub(super) struct Both<'s> {
    pub(super) was: &'s Arc<Route>,
    pub(super) is: &'s Arc<Route>,
    pub(super) signers: &'s Signers,
    pub(super) now: SystemTime,
}

/// Who is allowed now and was refused before.
pub(super) enum Allowed {
    /// Everybody, without a token.
    Everybody,
    /// Whomever an external server allows.
    Asked,
    /// Clients without a certificate, where one was needed.
    Uncertified,
    /// Clients with a certificate, where another was needed.
    Certified,
    /// Clients with a certificate, where something besides was needed.
    CertificateAlone,
    /// A client with this token.
    Token(Witness),
    /// A client with this token, whoever it was issued to.
    Unbound(Witness),
}

/// The messages, one for each pair of routes and kind.
type Said = BTreeMap<(usize, usize, &'static str), String>;

impl Both<'_> {
    fn compare(&self, request: &str, path: &RequestPath, said: &mut Said) {
        let (was, is) = (self.was, self.is);
        let mut say = |kind: &'static str, text: &dyn Fn() -> String| {
            let key = (was.index, is.index, kind);
            said.entry(key).or_insert_with(text);
        };
        let routes = || {
            if was.name == is.name {
                format!("route {}", is.name)
            } else {
                format!("route {} instead of {}", is.name, was.name)
            }
        };
        match self.allowed(path, path) {
            None => {}
            Some(Allowed::Everybody) => say("everybody", &|| {
                format!("{request} needs no token any more ({})", routes())
            }),
            Some(Allowed::Asked) => say("asked", &|| {
                format!(
                    "{request} is for another server to decide now ({})",
                    routes()
                )
            }),
            Some(Allowed::Uncertified) => say("uncertified", &|| {
                format!(
                    "{request} needs no client certificate any more ({})",
                    routes()
                )
            }),
            Some(Allowed::Certified) => say("certified", &|| {
                format!(
                    "{request} accepts client certificates that it refused ({})",
                    routes()
                )
            }),
            Some(Allowed::CertificateAlone) => say("certificate", &|| {
                format!(
                    "{request} needs nothing but a client certificate any more ({})",
                    routes()
                )
            }),
            Some(Allowed::Token(witness)) => say("token", &|| {
                let verifier = witness.verifier().unwrap_or_default();
                if let Some(secrets) = witness.secret() {
                    return format!("{request} accepts {secrets} that it refused ({})", routes());
                }
                format!(
                    "{request} accepts tokens of `{verifier}` that it refused ({})",
                    routes()
                )
            }),
            Some(Allowed::Unbound(witness)) => say("unbound", &|| {
                let verifier = witness.verifier().unwrap_or_default();
                format!(
                    "{request} accepts tokens of `{verifier}` from others than those that they are bound to ({})",
                    routes()
                )
            }),
        }
        let was_allowed = was.addresses.as_ref();
        let everybody = Addresses::default();
        let now_allowed = is.addresses.as_deref().unwrap_or(&everybody);
        if let Some(client) = was_allowed.and_then(|was| now_allowed.more_than(was)) {
            say("addresses", &|| {
                format!(
                    "{request} is open to addresses that it refused, such as {client} ({})",
                    routes()
                )
            });
        }
        if reads_more(was.cors.as_deref(), is.cors.as_deref()) {
            say("cors", &|| {
                let now = is.cors.as_ref().map(ToString::to_string);
                let now = now.unwrap_or_default();
                match &was.cors {
                    Some(before) => format!("{} cors: {before} -> {now}", is.name),
                    None => format!("{} cors added ({now})", is.name),
                }
            });
        }
    }

    /// Whom `is` allows for `after` and `was` refused for `before`, if anybody.
    pub(super) fn allowed(&self, before: &RequestPath, after: &RequestPath) -> Option<Allowed> {
        let (was, is) = (&self.was.guard, &self.is.guard);
        if was.is_open() {
            return None;
        }
        let (before, after) = (self.was.parameters(before), self.is.parameters(after));
        let says_before = |client: &Witness| {
            let signed = client.verifier().unwrap_or_default();
            let accepts = |name: &str| self.signers.has(name, signed);
            was.says(client, &accepts, &before, self.now)
        };
        let says_now = |client: &Witness| {
            let own = |name: &str| Some(name) == client.verifier();
            is.says(client, &own, &after, self.now)
        };
        let clients = is.witnesses(was, &after, self.now);
        let gained = |client: &Witness| match client.verifier() {
            None => says_now(client) > says_before(client),
            // Where another server decided, a token may be what it wanted.
            Some(_) => says_before(client) == Says::No,
        };
        let client = clients.into_iter().find(gained)?;
        // Whether one of the certificates that were demanded is all that it lacks.
        let mut demanded = was.certificates(self.now).into_iter();
        let lacks_certificate = demanded.any(|one| says_before(&client.with(one)) > Says::No);
        Some(match (client.verifier(), client.has_certificate()) {
            (_, true) if lacks_certificate => Allowed::Certified,
            (_, false) if lacks_certificate => Allowed::Uncertified,
            (None, true) => Allowed::CertificateAlone,
            (None, false) if says_now(&client) == Says::Asks => Allowed::Asked,
            (None, false) => Allowed::Everybody,
            (Some(_), _) if client.is_unbound() => Allowed::Unbound(client),
            (Some(_), _) => Allowed::Token(client),
        })
    }
}

/// Which old verifiers accept signatures of which new ones: those of the same name, whose keys may have been rotated,
/// and those with the same keys.
pub(super) struct Signers(BTreeSet<(String, String)>);

impl Signers {
    pub(super) fn of(old: &Snapshot, new: &Snapshot) -> Self {
        let keys = |one: &VerifierSettings, other: &VerifierSettings| {
            one.keys == other.keys
                && one.remote == other.remote
                && one.algorithms == other.algorithms
        };
        let mut pairs = BTreeSet::new();
        for (was, _) in &old.verifiers {
            for (is, _) in &new.verifiers {
                if was.name == is.name || keys(was, is) {
                    pairs.insert((was.name.clone(), is.name.clone()));
                }
            }
        }
        Self(pairs)
    }

    fn has(&self, old: &str, new: &str) -> bool {
        self.0.contains(&(old.to_owned(), new.to_owned()))
    }
}

/// Sample requests that together cover every route of either side: hosts and paths that its pattern matches.
fn probes(old: &Snapshot, new: &Snapshot) -> BTreeSet<(String, String)> {
    let routes = || old.routes.iter().chain(&new.routes);
    let deepest = routes().map(|route| route.pattern.depth()).max();
    let deepest = deepest.unwrap_or_default();
    let mut probes = BTreeSet::new();
    for route in routes() {
        let base = path_of(&route.pattern);
        let mut paths = vec![if base.is_empty() {
            "/".to_owned()
        } else {
            base.clone()
        }];
        if route.pattern.star {
            // Another route may have a parameter where this one has its star.
            let below = deepest.saturating_sub(route.pattern.depth()) + 1;
            let depths = 1..=below.min(DEEPEST);
            paths
                .extend(depths.map(|depth| format!("{base}{}", format!("/{PROBE}").repeat(depth))));
        }
        for host in route.hosts.iter().map(host_of) {
            probes.extend(paths.iter().map(|path| (host.clone(), path.clone())));
        }
    }
    probes
}

/// A host that matches.
pub(super) fn host_of(host: &Host) -> String {
    match host {
        Host::Any => PROBE_HOST.to_owned(),
        Host::Exact(name) => name.clone(),
        Host::Below(suffix) => format!("{PROBE}{suffix}"),
    }
}

/// A path that the pattern matches, without the star's part.
pub(super) fn path_of(pattern: &Pattern) -> String {
    let mut path = String::new();
    for segment in &pattern.segments {
        path.push('/');
        match segment {
            Segment::Parameter(_) => path.push_str(PROBE),
            Segment::Literal(bytes) => {
                for byte in bytes {
                    if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
                        path.push(char::from(*byte));
                    } else {
                        path.push_str(&format!("%{byte:02X}"));
                    }
                }
            }
        }
    }
    path
}

pub(super) fn parsed(path: &str) -> Option<RequestPath> {
    let target = PathAndQuery::try_from(path).ok()?;
    RequestPath::parse(&target).ok()
}

/// The methods by which these routes differ: those that any of them names, and one that none does.
pub(super) fn methods(before: &[Arc<Route>], after: &[Arc<Route>]) -> BTreeSet<String> {
    let routes = before.iter().chain(after);
    let named = routes.filter_map(|route| route.methods.as_ref());
    let mut names: BTreeSet<String> = named
        .flat_map(|methods| methods.names().map(str::to_owned))
        .collect();
    names.insert(PROBE_METHOD.to_owned());
    names
}

/// Whether pages of some origin may do more than before.
fn reads_more(was: Option<&Cors>, is: Option<&Cors>) -> bool {
    let Some(is) = is else {
        return false;
    };
    let mut origins = vec![PROBE_ORIGIN.to_owned()];
    for cors in was.into_iter().chain([is]) {
        let text = cors.to_string();
        let text = text.strip_suffix(CREDENTIALS).unwrap_or(&text);
        let named = text.split(", ").filter(|origin| *origin != ANY);
        origins.extend(named.map(|origin| origin.replace('*', PROBE)));
    }
    // The access of a page: none, without or with the user's cookies.
    let reach = |cors: &Cors, origin: &str| {
        let Ok(origin) = HeaderValue::from_str(origin) else {
            return 0;
        };
        let request = HeaderMap::from_iter([(header::ORIGIN, origin)]);
        match cors.reader(&request) {
            None => 0,
            Some(_) if cors.has_credentials() => 2,
            Some(_) => 1,
        }
    };
    origins.iter().any(|origin| {
        let before = was.map_or(0, |was| reach(was, origin));
        reach(is, origin) > before
    })
}

/// Verifiers that no longer revoke entries that they revoked before.
fn no_longer_revoked(old: &Snapshot, new: &Snapshot) -> Vec<String> {
    let verifiers = new.verifiers.iter().filter_map(|(is, _)| {
        let (was, _) = old.verifiers.iter().find(|(was, _)| was.name == is.name)?;
        let lost = was.revoked.lost_in(&is.revoked);
        (lost > 0).then(|| {
            format!(
                "verifier {} no longer revokes {lost} of the entries that it revoked",
                is.name
            )
        })
    });
    verifiers.collect()
}
