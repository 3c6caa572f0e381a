//! Table tests, and a property: the tree finds the same route as a naive search over all routes.

use proptest::prelude::*;

use super::*;
use crate::edits::HeaderEdits;

fn host_of(text: &str) -> Host {
    match text.strip_prefix('*') {
        Some(suffix) => Host::Below(suffix.to_owned()),
        None => Host::Exact(text.to_owned()),
    }
}

fn route(host: &str, path: &str, methods: &[&str]) -> Arc<Route> {
    let set = methods
        .iter()
        .fold(MethodSet::default(), |set, name| set.with(name).unwrap());
    Arc::new(Route {
        index: 0,
        name: format!("{host}{path}"),
        hosts: match host {
            "" => vec![Host::Any],
            hosts => hosts.split(' ').map(host_of).collect(),
        },
        pattern: Pattern::parse(path).unwrap(),
        methods: (!methods.is_empty()).then_some(set),
        guard: Guard::open(),
        addresses: None,
        limits: None,
        ask: None,
        cors: None,
        target: Target::Respond {
            ready: false,
            status: StatusCode::OK,
            body: bytes::Bytes::new(),
        },
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        errors: None,
        body_bytes: 0,
        counts: RouteCounts::default(),
    })
}

fn table(routes: &[(&str, &str, &[&str])]) -> RouteTable {
    let mut table = RouteTable::default();
    for (host, path, methods) in routes {
        table.insert(&route(host, path, methods)).unwrap();
    }
    table
}

fn path(text: &str) -> RequestPath {
    RequestPath::parse(&text.parse().unwrap()).unwrap()
}

#[track_caller]
fn check(table: &RouteTable, host: &str, at: &str, expected: &str) {
    let found = RequestPath::parse(&at.parse().unwrap());
    let found = found.and_then(|path| table.find(host, &path, &Method::GET));
    assert_eq!(
        found.map_or_else(|reject| reject.reason(), |route| &route.name),
        expected,
        "{at}"
    );
}

#[test]
fn the_most_specific_path_wins_whatever_the_order() {
    let table = table(&[
        ("", "/*", &[]),
        ("", "/users/{user}", &[]),
        ("", "/users/me", &[]),
        ("", "/users/{user}/orders/*", &[]),
        ("", "/assets/*", &[]),
        ("", "/assets", &[]),
    ]);
    check(&table, "h", "/", "/*");
    check(&table, "h", "/x/y", "/*");
    check(&table, "h", "/users/me", "/users/me");
    check(&table, "h", "/users/7", "/users/{user}");
    check(&table, "h", "/users/7/", "/*");
    check(&table, "h", "/users/", "/*");
    check(&table, "h", "/users/me/orders", "/users/{user}/orders/*");
    check(&table, "h", "/users/7/orders/1/2", "/users/{user}/orders/*");
    check(&table, "h", "/assets", "/assets");
    check(&table, "h", "/assets/", "/assets/*");
    check(&table, "h", "/assetsx", "/*");
}

#[test]
fn the_most_specific_host_wins_and_hostless_routes_serve_all() {
    let table = table(&[
        ("", "/*", &[]),
        ("*.example.com", "/*", &[]),
        ("*.eu.example.com", "/a", &[]),
        ("api.example.com", "/a", &[]),
    ]);
    check(&table, "api.example.com", "/a", "api.example.com/a");
    check(&table, "api.example.com", "/b", "*.example.com/*");
    check(&table, "x.eu.example.com", "/a", "*.eu.example.com/a");
    check(&table, "x.eu.example.com", "/b", "*.example.com/*");
    check(&table, "example.com", "/b", "/*");
    check(&table, "evil-example.com", "/b", "/*");
}

#[test]
fn the_path_decides_before_the_method() {
    let table = table(&[
        ("", "/*", &[]),
        ("", "/a", &["POST"]),
        ("", "/a/*", &["PUT"]),
    ]);
    let reject = table.find("h", &path("/a"), &Method::GET).unwrap_err();
    let Reject::MethodNotAllowed(set) = reject else {
        panic!("{reject:?}")
    };
    assert_eq!(set.allow(), "POST");
    assert!(table.find("h", &path("/a"), &Method::POST).is_ok());
}

#[test]
fn ties_are_refused_and_disjoint_methods_are_none() {
    let mut table = table(&[("", "/a/{x}", &["GET"])]);
    assert!(table.insert(&route("", "/a/{y}", &["HEAD"])).is_err());
    assert!(table.insert(&route("", "/a/{y}", &["POST"])).is_ok());
    assert!(table.insert(&route("", "/a/{y}", &[])).is_ok());
    assert!(table.insert(&route("", "/a/{z}", &[])).is_err());
    assert!(table.insert(&route("h", "/a/{z}", &[])).is_ok());
}

#[test]
fn paths_that_make_no_sense_are_refused() {
    for text in [
        "a", "/a*", "/*/b", "/{a", "/{a}/{a}", "/{rest}", "/a//b", "/a//*", "/%2f", "/a?b", "/..",
        "/a;b", "/a\\b", "/%5C",
    ] {
        assert!(Pattern::parse(text).is_err(), "{text}");
    }
    for text in [
        "/",
        "/*",
        "/a",
        "/a/",
        "/{a}/*",
        "/caf%C3%A9",
        "/café",
        "/a.b",
        "/a%3Bb",
    ] {
        assert!(Pattern::parse(text).is_ok(), "{text}");
    }
    assert_eq!(
        Pattern::parse("/caf%c3%a9").unwrap().segments,
        Pattern::parse("/café").unwrap().segments
    );
}

#[test]
fn templates_take_parts_of_the_path() {
    let pattern = Pattern::parse("/users/{user}/old/*").unwrap();
    let fill = |text: &str, at: &str| Template::parse(text, &pattern).map(|t| t.fill(&path(at)));
    assert_eq!(
        fill("/v2/{user}/{rest}", "/users/a%20b/old/x/y").unwrap(),
        "/v2/a%20b/x/y"
    );
    assert_eq!(fill("/v2/{rest}", "/users/7/old").unwrap(), "/v2/");
    // As written.
    assert_eq!(
        fill("/v2/{user}/{rest}", "/users/%61%2Bb/old//x/%7e;v/").unwrap(),
        "/v2/%61%2Bb//x/%7e;v/"
    );
    // In a query, no part may split a field.
    assert_eq!(
        fill(
            "/v2?u={user}&r={rest}#{user}",
            "/users/a&b=c+d;e%26/old/x=1&y"
        )
        .unwrap(),
        "/v2?u=a%26b%3Dc%2Bd%3Be%26&r=x%3D1%26y#a%26b%3Dc%2Bd%3Be%26"
    );
    assert_eq!(
        fill("/v2/{user}?x", "/users/a&b=c/old").unwrap(),
        "/v2/a&b=c?x"
    );
    assert!(fill("/v2/{nobody}", "/").is_err());
    assert!(fill("/v2/{user", "/").is_err());
    assert!(fill("/v2/ x", "/").is_err());
}

/// A redirect whose template contains parts of the path.
fn redirect(path: &str, to: &str) -> Arc<Route> {
    Arc::new(properties::redirect(path, to).unwrap())
}

#[test]
fn a_path_is_refused_only_where_its_readings_differ_in_what_they_open() {
    let mut table = table(&[
        ("", "/*", &[]),
        ("", "/admin/*", &[]),
        ("", "/exact", &[]),
        ("", "/x/*", &[]),
        ("", "/x/admin/y", &[]),
        ("", "/pairs/{one}/{two}", &[]),
    ]);
    table
        .insert(&redirect("/users/{user}/*", "/u/{user}"))
        .unwrap();
    table.insert(&redirect("/old/*", "/new/{rest}")).unwrap();
    for (at, expected) in [
        ("/open//x", "/*"),
        ("/open/./x/../y", "/*"),
        ("/open%2Fx/%5c", "/*"),
        ("/open;v=1/x", "/*"),
        ("/administrator//x", "/*"),
        ("/%61dmin/x", "/admin/*"),
        ("/admin/x//../y%2f;z", "/admin/*"),
        ("/open/../admin/x", "bad_path"),
        ("/open/%2e%2E/admin/x", "bad_path"),
        ("/open%2F..%2Fadmin/x", "bad_path"),
        ("/open//../admin/x", "bad_path"),
        ("/open/..%2fadmin/x", "bad_path"),
        ("/open/..%5cadmin/x", "bad_path"),
        ("/open/..\\admin/x", "bad_path"),
        ("//admin/x", "bad_path"),
        ("/./admin/x", "bad_path"),
        ("/%2e/admin/x", "bad_path"),
        ("/admin%2fx", "bad_path"),
        ("/admin;x/y", "bad_path"),
        ("/;x/admin", "bad_path"),
        ("/open/..;/admin/x", "bad_path"),
        ("/open/..;a=b%2Fadmin/x", "bad_path"),
        ("/open/%2e%2e;/admin/x", "bad_path"),
        ("/open;/..%2f..;/..;%2f/admin", "bad_path"),
        ("/admin/..", "bad_path"),
        ("/admin/..;/x", "bad_path"),
        ("/exact/", "/*"),
        ("/exact//", "/*"),
        ("/exact/.", "/*"),
        ("/exact;", "bad_path"),
        ("/exact/x/..", "/*"),
        // Escapes are decoded once: no app reads this as a slash or a dot.
        ("/%252e%252e%252Fadmin", "/*"),
        ("/admin%252Fx", "/*"),
        ("/admin%3Bx", "/*"),
        // An app that resolves dots before it merges slashes gets another path.
        ("/x/admin//../y", "bad_path"),
        // One app treats the escaped slash as a slash, but not the backslash.
        ("/x%5Cy%2F..%2Fadmin", "bad_path"),
        // A parameter that matters is the same for all.
        ("/users/7/a//b", "/users/{user}/*"),
        ("/users/%37/;b", "/users/{user}/*"),
        ("/users/7;x/a", "bad_path"),
        ("/users/7%2F..%2F8/a", "bad_path"),
        ("/users/7/../8/a", "bad_path"),
        ("/users/7/../7/a", "/users/{user}/*"),
        ("/pairs/a;b/c", "/pairs/{one}/{two}"),
        ("/pairs/a%2fb/c", "bad_path"),
        // What is appended to another path stays there.
        ("/old/a/../b", "/old/*"),
        ("/old/../old/b", "bad_path"),
        ("/old/..;/old/b", "bad_path"),
    ] {
        check(&table, "h", at, expected);
    }
}

#[test]
fn a_path_that_has_a_route_in_some_readings_only_is_refused() {
    let table = table(&[("", "/a/*", &["POST"]), ("", "/b", &[])]);
    check(&table, "h", "/x//../y", "no_route");
    check(&table, "h", "//b", "bad_path");
    check(&table, "h", "/x/../a/b", "bad_path");
    check(&table, "h", "/a//b", "method_not_allowed");
}

/// How specific a match is, segment by segment: literal before parameter before star.
fn naive<'a>(routes: &'a [Arc<Route>], at: &RequestPath) -> Option<&'a Arc<Route>> {
    let segments: Vec<&[u8]> = at.resolved().segments().collect();
    let rank = |route: &Route| -> Option<Vec<u8>> {
        let wanted = &route.pattern.segments;
        let fits_length = if route.pattern.star {
            segments.len() >= wanted.len()
        } else {
            segments.len() == wanted.len()
        };
        if !fits_length {
            return None;
        }
        let mut rank = Vec::new();
        for (segment, wanted) in segments.iter().zip(wanted) {
            rank.push(match wanted {
                Segment::Literal(text) if text == segment => 3,
                Segment::Parameter(_) if !segment.is_empty() => 2,
                Segment::Literal(_) | Segment::Parameter(_) => return None,
            });
        }
        rank.push(if route.pattern.star { 1 } else { 4 });
        Some(rank)
    };
    routes
        .iter()
        .filter_map(|route| Some((rank(route)?, route)))
        .max_by(|a, b| a.0.cmp(&b.0))
        .map(|found| found.1)
}

proptest! {
    #[test]
    fn the_tree_agrees_with_a_naive_search(
        patterns in prop::collection::vec("(/(a|b|\\{x\\})){0,1}(/(a|b|\\{y\\})){0,2}(/\\*)?", 1..12),
        paths in prop::collection::vec("(/[ab]){0,4}/?", 1..12),
    ) {
        let mut table = RouteTable::default();
        let mut routes = Vec::new();
        for text in patterns {
            let Ok(_) = Pattern::parse(&text) else { continue };
            let route = route("", &text, &[]);
            if table.insert(&route).is_ok() {
                routes.push(route);
            }
        }
        for text in paths {
            let Ok(target) = text.parse() else { continue };
            let at = RequestPath::parse(&target).unwrap();
            if !at.has_one_reading() { continue }
            let found = table.find("h", &at, &Method::GET).ok().map(|route| &route.name);
            prop_assert_eq!(found, naive(&routes, &at).map(|route| &route.name), "{}", text);
        }
    }

    #[test]
    fn no_two_apps_open_different_things(
        patterns in prop::collection::vec("(/(a|b|\\{x\\})){0,2}(/(a|b|\\{y\\})){0,1}(/\\*)?", 1..12),
        paths in prop::collection::vec("/((a|b|c|\\.\\.|\\.|%2e%2E|;a?)?(/|/|%2f|%5C|\\\\)){0,5}[ab]?", 1..12),
    ) {
        let mut table = RouteTable::default();
        for text in patterns {
            let to = if text.contains("{x}") { "/t/{x}" } else { "/t" };
            if let Some(route) = properties::redirect(&text, to) {
                drop(table.insert(&Arc::new(route)));
            }
        }
        for text in paths {
            properties::opens_one(&table, &text.parse().unwrap());
            properties::target_holds(text.as_bytes());
        }
    }
}

#[test]
fn a_route_serves_each_of_its_hosts() {
    let table = table(&[("a.example *.b.example", "/x", &[]), ("", "/*", &[])]);
    check(&table, "a.example", "/x", "a.example *.b.example/x");
    check(&table, "y.b.example", "/x", "a.example *.b.example/x");
    check(&table, "b.example", "/x", "/*");
    check(&table, "c.example", "/x", "/*");
}
