//! `portcullis explain` and `portcullis test`: what they say of requests, and that a configuration
//! whose own tests fail is not taken up.

use jsonwebtoken::Algorithm::{ES256, HS256};
use serde_json::{Value, json};

use super::support::{
    App, Folder, Gateway, Kind, claims, config, eventually, key, now, run_to_end, sign,
    sign_with_header, token,
};

const TEXT: &str = "jwt:
  app: {algorithms: [HS256], secret: '@secret', claims: {token_type: access}}
  sso: {algorithms: [ES256], keys: [{kid: k1, file: one.pem}, {kid: k2, file: two.pem}], issuer: 'https://sso.example.com', audience: orders-api}
  far: {jwks: 'https://issuer.invalid/keys'}
routes:
  - name: orders
    host: api.example.com
    methods: [GET, POST]
    path: /users/{user}/orders/*
    proxy: '@app'
    auth: {jwt: [app, sso], require: {scope: [orders:read], sub: '{user}'}, forward: {X-User: sub}, strip_token: true}
    rewrite: {strip_prefix: /users}
  - {path: /files/*, static: ./files, auth: sso}
  - {path: /far/*, proxy: '@app', auth: far}
  - {path: /far/b/*, proxy: '@app', auth: {jwt: far, require: {role: clerk}}}
  - {path: /asked/*, proxy: '@app', auth: {ask: 'http://127.0.0.1:1/verify'}}
  - {path: /old/*, redirect: {to: '/new/{rest}'}}
  - {path: /teapot, respond: {status: 418}}
  - {path: /shadow, respond: {status: 204}, auth: {jwt: app, enforce: report}}
  - {path: /*, respond: {status: 204}}
";

fn folder(text: &str) -> Folder {
    let folder = Folder::new();
    folder.write("one.pem", &key(Kind::P256, 0).public);
    folder.write("two.pem", &key(Kind::P256, 1).public);
    folder.write("files/a.txt", "a");
    let secret = &key(Kind::Secret, 0).public;
    let app = "http://127.0.0.1:9";
    folder.write(
        "gateway.yaml",
        config(text, &[("secret", secret), ("app", app)]),
    );
    folder
}

/// What `explain` prints, and its exit status.
fn explain(folder: &Folder, arguments: &[&str]) -> (String, i32) {
    let output = run_to_end(folder, &[&["explain"], arguments].concat(), &[]);
    let said = [output.stdout, output.stderr].concat();
    (
        String::from_utf8(said).unwrap(),
        output.status.code().unwrap(),
    )
}

const URL: &str = "http://api.example.com/users/7/orders/a%20b?x=1";

#[test]
fn each_step_of_a_request_is_said() {
    let folder = folder(TEXT);
    let good = json!({"sub": "7", "scope": "orders:read", "token_type": "access"});
    let good = format!("Authorization: Bearer {}", token(good));
    let (said, status) = explain(&folder, &["GET", URL, "-H", &good, "-H", "X-User: mallory"]);
    assert_eq!(status, 0, "{said}");
    for line in [
        "host       api.example.com",
        "path       /users/7/orders/a%20b",
        "{user} is \"7\"",
        "route      orders (/users/{user}/orders/*)",
        "not /*: less specific",
        "from the Authorization header",
        "verifier app: accepts it",
        "upstream   http://127.0.0.1:9",
        "app sees   GET /7/orders/a%20b?***",
        "x-user: 7",
        "answer     the app's",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    assert!(
        !said.contains("mallory") && !said.contains("authorization:"),
        "{said}"
    );
    let shown = explain(&folder, &["GET", "/", "-H", &good]).0;
    let (_, token) = good.rsplit_once(' ').unwrap();
    assert!(!said.contains(token) && !shown.contains(token));
}

#[test]
fn each_reason_to_refuse_a_token_is_said_with_its_values() {
    let folder = folder(TEXT);
    let app = |changes: Value| {
        let mut claims =
            claims(json!({"sub": "7", "scope": "orders:read", "token_type": "access"}));
        let members = claims.as_object_mut().unwrap();
        for (name, value) in changes.as_object().unwrap() {
            members.insert(name.clone(), value.clone());
        }
        sign(HS256, key(Kind::Secret, 0), &claims)
    };
    let sso = |kid: &str, changes: Value| {
        let header = json!({"kid": kid});
        sign_with_header(
            ES256,
            key(Kind::P256, 0),
            &header,
            &claims(changes).to_string(),
        )
    };
    let issuer = "https://sso.example.com";
    for (token, status, said) in [
        // A few seconds go by until it is said.
        (app(json!({"exp": now() - 41})), 3, "expired 4"),
        (app(json!({"exp": now() - 41})), 3, "(leeway 30 s)"),
        (
            app(json!({"token_type": "refresh"})),
            3,
            "token_type is \"refresh\", the verifier wants \"access\"",
        ),
        (
            app(json!({"scope": "orders:write"})),
            3,
            "scope is \"orders:write\", and must hold \"orders:read\"",
        ),
        (
            app(json!({"sub": "8"})),
            3,
            "sub is \"8\", and must be {user} (here \"7\")",
        ),
        (
            app(json!({"aud": "web"})),
            3,
            "aud is \"web\", and the verifier names no audience",
        ),
        (
            app(json!({"nbf": now() + 100})),
            3,
            "not valid for another 1 min",
        ),
        (
            sso(
                "k1",
                json!({"iss": format!("{issuer}/"), "aud": "orders-api"}),
            ),
            3,
            "they differ only by a trailing slash",
        ),
        (
            sso("k1", json!({"iss": issuer, "aud": "web"})),
            3,
            "aud is \"web\", the verifier wants \"orders-api\"",
        ),
        (
            sso("k3", json!({"iss": issuer, "aud": "orders-api"})),
            3,
            "kid \"k3\" with alg \"ES256\" is not among k1, k2",
        ),
        (
            sso("k2", json!({"iss": issuer, "aud": "orders-api"})),
            3,
            "the signature is not one of the key \"k2\"",
        ),
        ("abc".to_owned(), 3, "the token is malformed"),
    ] {
        let field = format!("Authorization: Bearer {token}");
        let (text, code) = explain(&folder, &["GET", URL, "-H", &field]);
        assert_eq!(code, status, "{said}: {text}");
        assert!(text.contains(said), "{said}: {text}");
        assert!(
            text.contains("WWW-Authenticate: Bearer realm=\"app\""),
            "{text}"
        );
        assert!(!text.contains(&token) || token == "abc");
    }
    // Everything that is wrong is said, not the first alone.
    let token = sso("k2", json!({"iss": "x", "aud": "web", "exp": now() - 100}));
    let field = format!("Authorization: Bearer {token}");
    let (text, _) = explain(&folder, &["GET", "/files/a.txt", "-H", &field]);
    for said in [
        "signature",
        "iss is \"x\"",
        "aud is \"web\"",
        "expired 1 min 4",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
}

#[test]
fn what_is_refused_before_and_beside_tokens_is_said() {
    let folder = folder(TEXT);
    let files = json!({"iss": "https://sso.example.com"}).to_string();
    for (arguments, status, said) in [
        (vec!["GET", URL], 3, "none in the Authorization header"),
        (
            vec!["GET", URL, "-H", "Authorization: Basic dTpw"],
            3,
            "is not Bearer",
        ),
        (vec!["DELETE", URL], 3, "405 method_not_allowed"),
        (vec!["DELETE", URL], 3, "only for GET"),
        // The host of the one route that has the path; another one is said.
        (
            vec!["GET", "/users/7/orders/"],
            3,
            "host       api.example.com",
        ),
        (
            vec!["GET", "http://localhost/users/7/orders/"],
            0,
            "not for the host \"localhost\"",
        ),
        (vec!["GET", "/teapot"], 3, "418, fixed"),
        (
            vec!["POST", URL, "-H", "Content-Length: 99999999999"],
            3,
            "401",
        ),
        (
            vec!["GET", "/shadow", "--claims", "{\"exp\": 1}"],
            0,
            "would be refused (token_expired)",
        ),
        (vec!["GET", "/a%00"], 3, "400 bad_path"),
        // How apps may read the path, and where each of them is led.
        (vec!["GET", "/%61%2Db"], 0, "read as /a-b\n"),
        (
            vec!["GET", "/a%2fb"],
            0,
            "read as /a/b (%2F as a slash, resolved): /*",
        ),
        (vec!["GET", "/x/../old/a"], 3, "400 bad_path"),
        (
            vec!["GET", "/x/../old/a"],
            3,
            "read as /old/a (resolved): /old/*",
        ),
        (
            vec!["GET", "/x/../old/a"],
            3,
            "read as /x/../old/a (as written): /*",
        ),
        (
            vec!["GET", "/old;v=1/a"],
            3,
            "read as /old/a (without ; parameters, resolved): /old/*",
        ),
        (
            vec!["GET", "http://api.example.com/users/7;x/orders/"],
            3,
            "resolved): orders (/users/{user}/orders/*), {user} is \"7\"",
        ),
        (vec!["GET", "/old/a"], 0, "308 to /new/a"),
        (vec!["GET", "/else"], 0, "204, fixed"),
        (
            vec!["GET", "/asked/a"],
            3,
            "http://127.0.0.1:1/verify decides",
        ),
        (
            vec!["GET", "/files/a.txt", "--claims", &files],
            0,
            "200 from a file",
        ),
        (
            vec!["GET", "/files/b.txt", "--claims", &files],
            3,
            "404 file_not_found",
        ),
        (
            vec!["GET", "/files/a.txt", "--claims", "{\"exp\": null}"],
            3,
            "exp is missing",
        ),
        (
            vec!["GET", "/files/a.txt", "--claims", "[]"],
            2,
            "JSON object",
        ),
        (vec!["get", "/"], 2, "write `GET`"),
        (vec!["GET", "else"], 2, "write it as"),
        (vec!["GET", "/", "-H", "nonsense"], 2, "Name: value"),
    ] {
        let (text, code) = explain(&folder, &arguments);
        assert_eq!(code, status, "{arguments:?}: {text}");
        assert!(text.contains(said), "{arguments:?}: {text}");
    }
    let unknown = sign_with_header(
        ES256,
        key(Kind::P256, 0),
        &json!({"kid": "k3"}),
        &claims(json!({})).to_string(),
    );
    let field = format!("Authorization: Bearer {unknown}");
    let (text, code) = explain(&folder, &["GET", "/far/a", "-H", &field]);
    assert_eq!(code, 3);
    assert!(
        text.contains("--online fetches them") && !text.contains("503"),
        "{text}"
    );
    assert!(
        text.contains("answer     the app's\n")
            && text.contains("not known: this where the token is genuine"),
        "{text}"
    );
    // What is refused in either case is.
    for (changes, said) in [
        (json!({"exp": now() - 41}), "answer     401 token_expired"),
        (json!({"role": "guest"}), "answer     403 forbidden"),
    ] {
        let claims = claims(changes).to_string();
        let token = sign_with_header(ES256, key(Kind::P256, 0), &json!({"kid": "k3"}), &claims);
        let field = format!("Authorization: Bearer {token}");
        let (text, code) = explain(&folder, &["GET", "/far/b/a", "-H", &field]);
        assert!(code == 3 && text.contains(said), "{text}");
    }
    let (text, code) = explain(&folder, &["GET", "/far/a", "-H", &field, "--online"]);
    assert_eq!(code, 3);
    assert!(
        text.contains("https://issuer.invalid/keys: DNS: ") && text.contains("503 keys_missing"),
        "{text}"
    );
}

#[test]
fn of_several_secrets_the_one_that_fits_is_said() {
    let text = "jwt: {app: {algorithms: [HS256], secret: ['@second', '@first', '@first']}}
routes:
  - {path: /*, respond: {status: 204}, auth: app}
";
    let values = [
        ("first", key(Kind::Secret, 0).public.as_str()),
        ("second", key(Kind::Secret, 1).public.as_str()),
    ];
    let folder = Folder::new();
    folder.write("gateway.yaml", config(text, &values));
    for (nth, said) in [
        (1, "accepts it, signed with secret 1 of 2"),
        (0, "accepts it, signed with secret 2 of 2"),
    ] {
        let token = sign(HS256, key(Kind::Secret, nth), &claims(json!({})));
        let field = format!("Authorization: Bearer {token}");
        let (text, code) = explain(&folder, &["GET", "/a", "-H", &field]);
        assert_eq!(code, 0, "{text}");
        assert!(text.contains(said), "{text}");
    }
    let output = run_to_end(&folder, &["check", "--print"], &[]);
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(
        output.status.success() && !said.contains("secret-"),
        "{said}"
    );
    folder.write(
        "gateway.yaml",
        config(text, &[("first", "short"), ("second", values[1].1)]),
    );
    let output = run_to_end(&folder, &["check"], &[]);
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(
        !output.status.success() && said.contains("HS256 needs 32"),
        "{said}"
    );
    assert!(
        !said.contains("short,") && !said.contains("secret-"),
        "{said}"
    );
}

const TESTS: &str = "tests:
  - {request: 'GET http://api.example.com/users/7/orders/', expect: {status: 401, reason: token_missing}}
  - {request: 'GET http://api.example.com/users/7/orders/', claims: {sub: '7', scope: orders:read}, expect: {route: orders, upstream: 'http://127.0.0.1:9', headers: {X-User: '7', Authorization: null}}}
  - {request: 'GET http://api.example.com/users/8/orders/', claims: {sub: '7', scope: orders:read}, expect: {status: 403}}
  - {request: GET /old/a, expect: {status: 308}}
";

#[test]
fn policy_tests_hold_or_say_why_not() {
    let folder = folder(&format!("{TEXT}{TESTS}"));
    let test = |arguments: &[&str]| {
        let output = run_to_end(&folder, &[&["test"], arguments].concat(), &[]);
        let said = [output.stdout, output.stderr].concat();
        (
            String::from_utf8(said).unwrap(),
            output.status.code().unwrap(),
        )
    };
    let (said, status) = test(&[]);
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("4 passed, 0 failed"), "{said}");
    folder.write(
        "more.test.yaml",
        "- {request: GET /else, expect: {headers: {X-User: null}}}\n- {request: 'GET http://api.example.com/users/7/orders/?token=hunter2', headers: {Authorization: Bearer hunter2}, claims: {sub: '7', scope: orders:read}, expect: {headers: {X-User: null, Authorization: null}}}\n",
    );
    let (said, status) = test(&[]);
    assert_eq!(status, 1);
    for part in [
        "expected that an app sees headers, but it is 204",
        "expected that the app sees x-user absent, but it is \"7\"",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("hunter2"), "{said}");
    std::fs::remove_file(folder.path("more.test.yaml")).unwrap();
    let (said, status) = test(&["--coverage"]);
    assert_eq!(status, 0);
    assert!(said.contains("refusal of the route /files/*"), "{said}");
    assert!(
        said.contains("refusal of the route /far/*") && !said.contains("route orders"),
        "{said}"
    );

    folder.write(
        "more.test.yaml",
        "- {request: GET /files/a.txt, expect: {status: 401}}\n- {request: GET /files/a.txt, claims: {sub: a}, expect: {status: 200}}\n- {request: GET /files/a.txt, claims: {sub: a, aud: web}, expect: {status: 200}}\n- {request: GET /else, expect: {route: orders}}\n- {request: GET /files/a.txt, expect: {route: /files/*}}\n",
    );
    let (said, status) = test(&["--coverage"]);
    assert_eq!(status, 1, "{said}");
    for part in [
        "6 passed, 3 failed",
        "more.test.yaml:3:3 GET /files/a.txt",
        "expected status 200, but it is 401 token_audience (verifier sso: aud is \"web\", the verifier wants \"orders-api\")",
        "expected the route orders, but it is /*",
        "expected that it may pass, but it is 401 token_missing",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    assert!(!said.contains("refusal of the route /files/*"), "{said}");
    let alone = folder.write(
        "one.yaml",
        "tests: [{request: GET /else, expect: {status: 204}}]\n",
    );
    let (said, status) = test(&[alone.to_str().unwrap()]);
    assert_eq!(status, 0);
    assert!(said.contains("5 passed, 0 failed"), "{said}");
    for (broken, what) in [
        (
            "- {request: GET, expect: {status: 204}}",
            "expected a request",
        ),
        ("- {request: GET /a}", "`expect` is missing"),
        ("- {request: GET /a, expect: {}}", "expects nothing"),
        (
            "- {request: GET /a, expect: {state: 1}}",
            "unknown key `state`",
        ),
        (
            "- {request: GET /a, claims: [a], expect: {status: 1}}",
            "a map of claims",
        ),
        (
            "- {request: GET /a, expect: {status: 99}}",
            "a status from 100 to 599",
        ),
    ] {
        folder.write("more.test.yaml", broken);
        let (said, status) = test(&[]);
        assert_eq!(status, 2, "{said}");
        assert!(
            said.contains(what) && said.contains("more.test.yaml"),
            "{what}: {said}"
        );
    }
}

#[tokio::test]
async fn a_configuration_whose_own_tests_fail_is_not_taken_up() {
    let app = App::echo().await;
    let good = "jwt: {app: {algorithms: [HS256], secret: '@secret'}}\nroutes:\n  - {path: /in, proxy: '@app', auth: app}\ntests:\n  - {request: GET /in, expect: {status: 401}}\n";
    let secret = &key(Kind::Secret, 0).public;
    let values = [("secret", secret.as_str()), ("app", &app.url())];
    let gateway = Gateway::start(&config(good, &values)).await;
    assert_eq!(gateway.get("/in", &[]).await.status, 401);
    let open = config(&good.replace("auth: app", "auth: none"), &values);
    let said = gateway.reconfigure_in_vain(&open).await;
    assert!(
        said.contains("this test fails: expected status 401, but the app answers"),
        "{said}"
    );
    assert_eq!(gateway.get("/in", &[]).await.status, 401);

    // Neither does it start, and `check` says so.
    let folder = Folder::new();
    folder.write("gateway.yaml", open);
    for command in ["check", "run"] {
        let output = run_to_end(&folder, &[command], &[]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert!(
            said.contains("this test fails") && said.contains("^"),
            "{said}"
        );
    }
    let changed = good.replace("/in", "/out");
    gateway.reconfigure(&config(&changed, &values)).await;
    eventually("the new route", async || {
        (gateway.get("/out", &[]).await.status == 401).then_some(())
    })
    .await;
}
