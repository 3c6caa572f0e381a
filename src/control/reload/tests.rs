use super::*;

#[test]
fn changes_are_said_in_words() {
    let map = |rows: &[(&str, &str)]| -> BTreeMap<String, String> {
        rows.iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
            .collect()
    };
    let old = map(&[
        ("route /a auth", "sso"),
        ("route /b", "proxy b"),
        ("x", "1"),
    ]);
    let new = map(&[
        ("route /a auth", "none"),
        ("route /b", "proxy b"),
        ("y", "2"),
    ]);
    assert_eq!(
        changes(&old, &new),
        ["route /a auth: sso -> none", "x removed (1)", "y added (2)"]
    );
}

/// The configuration that both sides of a row share.
const BOTH: &str = "
listeners: [{address: 127.0.0.1:0}]
upstreams: {app: {servers: [http://127.0.0.1:9]}}
";

/// The snapshot of these lines with [`BOTH`], and with a verifier where they define none.
fn snapshot(lines: &str) -> Snapshot {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("gateway.yaml");
    let secret = "k".repeat(32);
    let verifiers = if lines.contains("jwt:\n") {
        String::new()
    } else {
        format!(
            "jwt:\n  sso: {{algorithms: [HS256], secret: {secret}, issuer: https://sso.example.com}}\n  \
             other: {{algorithms: [HS256], secret: {}, issuer: https://other.example.com}}\n",
            "o".repeat(32)
        )
    };
    std::fs::write(directory.path().join("revoked"), "jti a\n").unwrap();
    std::fs::write(&config, format!("{BOTH}{verifiers}{lines}")).unwrap();
    match config::load(&config, &[], &judge) {
        Ok(loaded) => loaded.snapshot,
        Err(refused) => panic!("{}", refused.errors),
    }
}

/// A verifier with these settings in addition to algorithm and secret, and one route for it.
fn verifier(settings: &str) -> String {
    format!(
        "jwt:\n  sso: {{algorithms: [HS256], secret: {}, {settings}}}\nroutes:\n  - {{path: /a, proxy: app, auth: sso}}\n",
        "k".repeat(32)
    )
}

/// Routes to the app: a pattern and its `auth`, which may be followed by other keys.
fn routes(rows: &[(&str, &str)]) -> String {
    let rows = rows
        .iter()
        .map(|(path, auth)| format!("  - {{path: '{path}', proxy: app, auth: {auth}}}\n"));
    format!("routes:\n{}", rows.collect::<String>())
}

#[track_caller]
fn check(old: &str, new: &str, expected: &[&str]) {
    let now = clock::now();
    let (old, new) = (snapshot(old), snapshot(new));
    assert_eq!(explain::wider(&old, &new, now), expected);
    // An unchanged configuration is never wider.
    assert_eq!(explain::wider(&old, &old, now), [""; 0]);
    assert_eq!(explain::wider(&new, &new, now), [""; 0]);
}

#[track_caller]
fn check_routes(old: &[(&str, &str)], new: &[(&str, &str)], expected: &[&str]) {
    check(&routes(old), &routes(new), expected);
}

#[test]
fn a_guard_that_is_gone_is_wider_and_one_that_came_is_not() {
    let open = "/a needs no token any more (route /a)";
    check_routes(&[("/a", "sso")], &[("/a", "none")], &[open]);
    check_routes(&[("/a", "none")], &[("/a", "sso")], &[]);
    let optional = "{jwt: sso, optional: true}";
    check_routes(&[("/a", "sso")], &[("/a", optional)], &[open]);
    let report = "{jwt: sso, enforce: report}";
    check_routes(&[("/a", "sso")], &[("/a", report)], &[open]);
    check_routes(&[("/a", optional)], &[("/a", "none")], &[]);
    let ask = "{ask: 'http://127.0.0.1:9/'}";
    let asked = "/a is for another server to decide now (route /a)";
    check_routes(&[("/a", "sso")], &[("/a", ask)], &[asked]);
    check_routes(&[("/a", ask)], &[("/a", "none")], &[open]);
    check_routes(&[("/a", ask)], &[("/a", "sso")], &[]);
}

#[test]
fn an_open_route_below_a_guarded_one_is_wider_and_a_new_one_beside_it_is_not() {
    let old = [("/api/*", "sso")];
    let below = [("/api/*", "sso"), ("/api/reports/*", "none")];
    let line = "/api/reports needs no token any more (route /api/reports/* instead of /api/*)";
    check_routes(&old, &below, &[line]);
    check_routes(&old, &[("/api/*", "sso"), ("/new/*", "none")], &[]);
    let parameter = [("/api/*", "sso"), ("/api/{id}", "none")];
    let line = "/api/portcullis-probe needs no token any more (route /api/{id} instead of /api/*)";
    check_routes(&old, &parameter, &[line]);
    let hosted = "routes:\n  - {path: /api/*, proxy: app, auth: sso}\n  - {host: b.test, path: /api/*, proxy: app, auth: none}\n";
    let line = "/api needs no token any more (route b.test/api/* instead of /api/*)";
    check(&routes(&old), hosted, &[line]);
}

#[test]
fn a_guarded_route_that_is_gone_from_above_an_open_one_is_wider() {
    let old = [("/*", "none"), ("/admin/*", "sso")];
    let line = "/admin needs no token any more (route /* instead of /admin/*)";
    check_routes(&old, &[("/*", "none")], &[line]);
    check_routes(&[("/admin/*", "sso")], &[("/other", "none")], &[]);
    // The star is gone: paths below now belong to the open route.
    let exact = [("/*", "none"), ("/admin", "sso")];
    let line = "/admin/portcullis-probe needs no token any more (route /* instead of /admin/*)";
    check_routes(&old, &exact, &[line]);
    let parameter = [("/*", "none"), ("/admin", "sso"), ("/admin/{x}", "sso")];
    let line = "/admin/portcullis-probe/portcullis-probe needs no token any more (route /* instead of /admin/*)";
    check_routes(&old, &parameter, &[line]);
}

#[test]
fn methods_are_told_apart() {
    let old = [("/a", "sso")];
    let new = [("/a", "sso"), ("/a", "none, methods: [GET]")];
    let line = "GET /a needs no token any more (route /a)";
    check_routes(&old, &new, &[line]);
    let guarded = [
        ("/a", "none, methods: [GET]"),
        ("/a", "sso, methods: [POST]"),
    ];
    check_routes(
        &guarded,
        &[("/a", "none")],
        &["POST /a needs no token any more (route /a)"],
    );
    // The old configuration has no route for this method.
    check_routes(
        &[("/a", "sso, methods: [GET]")],
        &[
            ("/a", "sso, methods: [GET]"),
            ("/a", "none, methods: [POST]"),
        ],
        &[],
    );
}

#[test]
fn a_token_that_was_refused_is_wider() {
    let sso = "/a accepts tokens of `sso` that it refused (route /a)";
    let require = |text: &str| format!("{{jwt: sso, require: {text}}}");
    for (old, new, wider) in [
        ("{role: admin}", "{role: [admin]}", false),
        ("{role: admin}", "{role: {any: [admin, user]}}", true),
        ("{role: {any: [admin, user]}}", "{role: user}", false),
        ("{role: [admin, auditor]}", "{role: admin}", true),
        // A list did not equal `admin`.
        ("{role: admin}", "{role: [admin, auditor]}", true),
        ("{role: [admin]}", "{role: [admin, auditor]}", false),
        ("{role: admin, tenant: a}", "{role: admin}", true),
        ("{role: admin}", "[{role: admin}, {tenant: a}]", true),
        ("[{role: admin}, {tenant: a}]", "{tenant: a}", false),
        ("{role: {not: guest}}", "{role: {not: banned}}", true),
        (
            "{role: {not: guest}}",
            "{role: {not: [guest, banned]}}",
            false,
        ),
        (
            "{role: {not: [guest, banned]}}",
            "{role: {not: guest}}",
            true,
        ),
        ("{scope: [read, write]}", "{scope: read}", true),
        ("{scope: read}", "{scope: [read, write]}", false),
        ("{a.b: 1}", "{a.b: 2}", true),
        ("{a: '{claim:b}'}", "{a: '{claim:b}', c: 1}", false),
        ("{a: '{claim:b}'}", "{a: {not: x}}", true),
    ] {
        let expected: &[&str] = if wider { &[sso] } else { &[] };
        check_routes(&[("/a", &require(old))], &[("/a", &require(new))], expected);
    }
    check_routes(
        &[("/a", &require("{role: admin}"))],
        &[("/a", "sso")],
        &[sso],
    );
    check_routes(&[("/a", "sso")], &[("/a", &require("{role: admin}"))], &[]);
    let user = [("/users/{id}", "{jwt: sso, require: {sub: '{id}'}}")];
    let line =
        "/users/portcullis-probe accepts tokens of `sso` that it refused (route /users/{id})";
    check_routes(&user, &[("/users/{id}", "sso")], &[line]);
    check_routes(
        &user,
        &[("/users/{who}", "{jwt: sso, require: {sub: '{who}'}}")],
        &[],
    );
    let both = "{jwt: [sso, other]}";
    let other = "/a accepts tokens of `other` that it refused (route /a)";
    check_routes(&[("/a", "sso")], &[("/a", both)], &[other]);
    check_routes(&[("/a", both)], &[("/a", "sso")], &[]);
    check_routes(&[("/a", "sso")], &[("/a", "other")], &[other]);
}

#[test]
fn a_verifier_that_asks_for_less_is_wider() {
    let sso = "/a accepts tokens of `sso` that it refused (route /a)";
    for (old, new, wider) in [
        (
            "issuer: 'https://a.test'",
            "issuer: ['https://a.test', 'https://b.test']",
            true,
        ),
        (
            "issuer: ['https://a.test', 'https://b.test']",
            "issuer: 'https://b.test'",
            false,
        ),
        ("issuer: 'https://a.test'", "audience: any", true),
        ("audience: orders", "audience: any", true),
        ("audience: orders", "audience: [billing, orders]", true),
        ("audience: any", "audience: orders", false),
        ("claims: {token_type: access}", "leeway: 60s", true),
        ("leeway: 60s", "claims: {token_type: access}", false),
        ("typ: at+jwt", "leeway: 60s", true),
        ("leeway: 60s", "typ: at+jwt", false),
        ("require_exp: true", "require_exp: false", true),
        ("require_exp: false", "require_exp: true", false),
        ("max_lifetime: 1h", "max_lifetime: 2h", true),
        ("max_lifetime: 1h", "leeway: 60s", true),
        ("max_lifetime: 2h", "max_lifetime: 1h", false),
    ] {
        let expected: &[&str] = if wider { &[sso] } else { &[] };
        check(&verifier(old), &verifier(new), expected);
    }
}

#[test]
fn another_name_or_another_key_of_a_verifier_is_not_wider() {
    let old = verifier("issuer: 'https://a.test'");
    let renamed = old.replace("sso", "login");
    check(&old, &renamed, &[]);
    let rotated = old.replace(&"k".repeat(32), &"n".repeat(32));
    check(&old, &rotated, &[]);
}

#[test]
fn a_page_that_may_read_more_is_wider() {
    let cors = |origins: &str, more: &str| {
        format!(
            "routes:\n  - {{path: /a, proxy: app, auth: none, cors: {{origins: {origins}{more}}}}}\n"
        )
    };
    let credentials = ", credentials: true";
    let (a, b) = ("'https://a.test'", "'https://b.test'");
    let both = format!("[{a}, {b}]");
    for ((old, more), (new, now), wider) in [
        ((a, ""), (both.as_str(), ""), true),
        ((both.as_str(), ""), (b, ""), false),
        ((a, ""), (b, ""), true),
        ((a, ""), ("'https://*.a.test'", ""), true),
        ((a, ""), (a, credentials), true),
        ((a, credentials), (a, ""), false),
        ((a, ""), ("'*'", ""), true),
        (("'*'", ""), (a, ""), false),
        (("'*'", ""), (a, credentials), true),
    ] {
        let (old, new) = (snapshot(&cors(old, more)), snapshot(&cors(new, now)));
        let found = explain::wider(&old, &new, clock::now());
        assert_eq!(found.len(), usize::from(wider), "{found:?}");
        assert!(
            found.iter().all(|line| line.starts_with("/a cors: ")),
            "{found:?}"
        );
    }
    let none = routes(&[("/a", "none")]);
    check(&none, &cors(a, ""), &["/a cors added (https://a.test)"]);
    check(&cors(a, ""), &none, &[]);
}
