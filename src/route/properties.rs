//! Invariants of every target: where a route is found, every app that reads the client's bytes arrives at that same
//! route, with the parameters that were checked. For tests and fuzzing only.

use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{Method, StatusCode};

use super::{Host, Pattern, Route, RouteTable, Target, Template};
use crate::auth::Guard;
use crate::edits::HeaderEdits;
use crate::message::path::{Reading, RequestPath, apps};
use crate::observe::counts::RouteCounts;

/// Checks any bytes against a table in which some routes are stricter than others.
pub(crate) fn target_holds(target: &[u8]) {
    let Ok(target) = PathAndQuery::try_from(target) else {
        return;
    };
    let mut table = RouteTable::default();
    for (path, to) in [
        ("/*", "/all"),
        ("/a/*", "/a"),
        ("/a/b", "/b"),
        ("/a/{x}/*", "/{x}"),
        ("/b/{x}/c", "/c"),
        ("/b/*", "/{rest}"),
    ] {
        if let Some(route) = redirect(path, to) {
            drop(table.insert(&Arc::new(route)));
        }
    }
    opens_one(&table, &target);
}

/// Where the table finds a route for a target, all apps arrive at it.
#[track_caller]
pub(super) fn opens_one(table: &RouteTable, target: &PathAndQuery) {
    let Ok(path) = RequestPath::parse(target) else {
        return;
    };
    let Ok(route) = table.find("h", &path, &Method::GET) else {
        return;
    };
    for (app, read) in apps::APPS {
        let segments = read(target.path().as_bytes());
        assert!(segments.is_some(), "{target} is above the root for {app}");
        let segments = segments.unwrap_or_default();
        let joined = segments.join(&0);
        let routes = table.read("h", Reading::of_segments(&joined));
        let opened = routes.and_then(|routes| RouteTable::of_method(routes, &Method::GET).ok());
        assert!(
            opened.is_some_and(|opened| Arc::ptr_eq(opened, route)),
            "{target} for {app}"
        );
        for (name, at) in route.deciding_parameters() {
            let value = path.resolved().segments().nth(at);
            assert_eq!(
                segments.get(at).map(Vec::as_slice),
                value,
                "{{{name}}} of {target} for {app}"
            );
        }
    }
}

/// A redirect whose template contains parts of the path.
pub(super) fn redirect(path: &str, to: &str) -> Option<Route> {
    let pattern = Pattern::parse(path).ok()?;
    Some(Route {
        index: 0,
        name: path.to_owned(),
        hosts: vec![Host::Any],
        methods: None,
        guard: Guard::open(),
        addresses: None,
        limits: None,
        ask: None,
        cors: None,
        target: Target::Redirect {
            status: StatusCode::FOUND,
            to: Template::parse(to, &pattern).ok()?,
        },
        pattern,
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        errors: None,
        body_bytes: 0,
        counts: RouteCounts::default(),
    })
}
