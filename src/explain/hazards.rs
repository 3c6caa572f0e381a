//! Warns about access that may be unintended: an exact path with a less strict twin (with or without the trailing
//! slash), and access to the app's login decision. Like [`mod@super::wider`], it decides sample requests.
//!
//! Hazards of files and addresses are found where these are parsed, in `config`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use http::{Method, Request};

use super::wider::{Both, Signers, host_of, methods, parsed, path_of};
use crate::gateway::upstream_target;
use crate::proxy::{Address, Upstream};
use crate::route::{Pattern, Route, Segment, Target};
use crate::snapshot::Snapshot;

/// The warnings, each with the index of its route; a route has at most one of each kind.
pub(crate) fn hazards(snapshot: &Snapshot, now: SystemTime) -> Vec<(usize, String)> {
    let mut found = twins(snapshot, now);
    found.extend(logins(snapshot));
    found.extend(shared_files(snapshot));
    found
}

/// Routes whose guard compares a parameter of the path, which is no part of the file's name: below `static` only what the
/// star takes is.
fn shared_files(snapshot: &Snapshot) -> impl Iterator<Item = (usize, String)> {
    let routes = snapshot.routes.iter();
    routes.filter_map(|route| {
        let is_of_all = route.pattern.star && route.has_files();
        let (name, _) = route.deciding_parameters().next().filter(|_| is_of_all)?;
        let warning = format!(
            "`{{{name}}}` decides who has access, and is no part of a file's name: below `{}` everybody opens the same files",
            route.pattern.text
        );
        Some((route.index, warning))
    })
}

/// Exact paths whose twin, with or without the trailing slash, another route allows: most frameworks treat the two as
/// one.
fn twins(snapshot: &Snapshot, now: SystemTime) -> Vec<(usize, String)> {
    let signers = Signers::of(snapshot, snapshot);
    let mut found = BTreeMap::new();
    for route in snapshot.routes.iter().filter(|it| !it.pattern.star) {
        let path = path_of(&route.pattern);
        let above = path.strip_suffix('/');
        let twin = above.map_or_else(|| format!("{path}/"), str::to_owned);
        let (Some(own), Some(other)) = (parsed(&path), parsed(&twin)) else {
            continue;
        };
        for host in route.hosts.iter().map(host_of) {
            let Ok(there) = snapshot.table.at(&host, &other) else {
                continue;
            };
            for name in methods(std::slice::from_ref(route), there) {
                let Ok(method) = Method::from_bytes(name.as_bytes()) else {
                    continue;
                };
                let decided = snapshot.table.find(&host, &own, &method);
                if !decided.is_ok_and(|it| Arc::ptr_eq(it, route)) {
                    continue;
                }
                let Ok(is) = snapshot.table.find(&host, &other, &method) else {
                    continue;
                };
                let both = Both {
                    was: route,
                    is,
                    signers: &signers,
                    now,
                };
                if reaches_the_same(route, is) && both.allowed(&own, &other).is_some()
                    || refuses(route) && matches!(is.target, Target::Upstream { .. })
                {
                    found
                        .entry(route.index)
                        .or_insert_with(|| warning(route, is));
                }
            }
        }
    }
    found.into_iter().collect()
}

fn warning(route: &Route, other: &Route) -> String {
    let text = route.pattern.text.as_str();
    let above = text.trim_end_matches('/');
    let twin = if above == text {
        format!("{text}/")
    } else {
        above.to_owned()
    };
    format!(
        "`{text}` is stricter than `{twin}`, which the route {} serves, and many apps take one for the other: `{above}/*` takes both",
        other.name
    )
}

/// Whether both lead to the same server, which may treat both paths as one.
fn reaches_the_same(one: &Route, other: &Route) -> bool {
    match (&one.target, &other.target) {
        (Target::Upstream { forward: one, .. }, Target::Upstream { forward: other, .. }) => {
            share(&one.upstream, &other.upstream)
        }
        _ => false,
    }
}

/// Whether the route refuses everybody.
fn refuses(route: &Route) -> bool {
    matches!(route.target, Target::Respond { status, .. } if status.is_client_error())
}

fn share(one: &Upstream, other: &Upstream) -> bool {
    let (one, other) = (&one.settings().servers, &other.settings().servers);
    one.iter()
        .any(|server| other.iter().any(|it| is_same(&server.address, &it.address)))
}

/// Whether two addresses are the same server; all loopback names are one.
fn is_same(one: &Address, other: &Address) -> bool {
    match (one, other) {
        (Address::Tcp(one, port), Address::Tcp(other, at)) => {
            port == at && (one == other || is_here(one) && is_here(other))
        }
        (one, other) => one == other,
    }
}

fn is_here(host: &str) -> bool {
    let address = host.parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|it| it.to_canonical().is_loopback())
}

/// Routes through which clients can reach the login decision, and so try passwords without a throttle.
fn logins(snapshot: &Snapshot) -> Vec<(usize, String)> {
    let mut found = BTreeMap::new();
    for asking in &snapshot.routes {
        let (Target::Tokens { .. }, Some(ask)) = (&asking.target, &asking.ask) else {
            continue;
        };
        for route in &snapshot.routes {
            let Target::Upstream { forward, .. } = &route.target else {
                continue;
            };
            if !share(&forward.upstream, &ask.forward.upstream) {
                continue;
            }
            if let Some(path) = leads_to(snapshot, route, ask.target.path()) {
                let warning = format!(
                    "`{path}` is where the app decides on logins, and clients reach it through this route, past the throttle of `tokens`: \
                     add a route `{{path: {path}/*, respond: {{status: 404}}}}`"
                );
                found.entry(route.index).or_insert(warning);
            }
        }
    }
    found.into_iter().collect()
}

/// A path for which this route sends its app a POST to `wanted`.
fn leads_to(snapshot: &Snapshot, route: &Arc<Route>, wanted: &str) -> Option<String> {
    let Target::Upstream { rewrite, .. } = &route.target else {
        return None;
    };
    let hosts = || route.hosts.iter().map(host_of);
    candidates(&route.pattern, wanted).into_iter().find(|path| {
        let Some(read) = parsed(path) else {
            return false;
        };
        let Ok(request) = Request::post(path.as_str()).body(()) else {
            return false;
        };
        let is_asked = match upstream_target(rewrite.as_ref(), &read, &request) {
            Some(target) => target == wanted,
            None => path == wanted,
        };
        is_asked
            && hosts().any(|host| {
                let decided = snapshot.table.find(&host, &read, &Method::POST);
                decided.is_ok_and(|it| Arc::ptr_eq(it, route))
            })
    })
}

/// Paths of the pattern that may become `wanted`: `wanted` itself, and the pattern's prefix with each suffix of it.
fn candidates(pattern: &Pattern, wanted: &str) -> Vec<String> {
    let mut paths = vec![wanted.to_owned()];
    let base = path_of(pattern);
    let ends = wanted
        .match_indices('/')
        .filter_map(|(at, _)| wanted.get(at..));
    if pattern.star {
        paths.extend(ends.map(|end| format!("{base}{end}")));
    }
    let has_parameter = |it: &Segment| matches!(it, Segment::Parameter(_));
    if pattern.segments.iter().any(has_parameter) {
        let segments = wanted.split('/').filter(|segment| !segment.is_empty());
        paths.extend(segments.map(|segment| base.replace(super::wider::PROBE, segment)));
    }
    paths.push(base);
    paths
}
