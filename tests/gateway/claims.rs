//! What claims open, where tokens come from, and which headers the app sees of them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::Algorithm::HS256;
use serde_json::{Value, json};

use super::support::{App, Gateway, H2, Kind, Reply, config, key, now, sign_with_header, token};

async fn start(text: &str, app: &App) -> Gateway {
    let jwt = "jwt: {app: {algorithms: [HS256], secret: '@secret', \
               from: [header, 'cookie:access_token', 'query:token']}}\n";
    let secret = &key(Kind::Secret, 0).public;
    Gateway::start(&config(
        &format!("{jwt}{text}"),
        &[("secret", secret), ("app", &app.url())],
    ))
    .await
}

async fn get(gateway: &Gateway, path: &str, claims: Value) -> Reply {
    let value = format!("Bearer {}", token(claims));
    gateway.get(path, &[("Authorization", &value)]).await
}

#[tokio::test]
async fn a_rule_opens_for_the_claims_that_satisfy_it_alone() {
    let app = App::echo().await;
    let gateway = start(
        "routes:
  - {path: /any, proxy: '@app', auth: {jwt: app, require: {realm_access.roles: {any: [clerk, admin]}}}}
  - {path: /all, proxy: '@app', auth: {jwt: app, require: {roles: {all: [clerk, admin]}}}}
  - {path: /not, proxy: '@app', auth: {jwt: app, require: {roles: {not: [guest]}}}}
  - {path: '/users/{user}/*', proxy: '@app', auth: {jwt: app, require: {sub: '{user}'}}}
  - {path: /owner, proxy: '@app', auth: {jwt: app, require: {sub: '{claim:owner}'}}}
  - {path: /dot, proxy: '@app', auth: {jwt: app, require: {'a\\.b': yes-please}}}
  - {path: /either, proxy: '@app', auth: {jwt: app, require: [{team: red}, {level: high}]}}
  - {path: /scope, proxy: '@app', auth: {jwt: app, require: {scope: [a, b]}}}
",
        &app,
    )
    .await;
    for (path, claims, status) in [
        ("/any", json!({"realm_access": {"roles": ["clerk"]}}), 200),
        ("/any", json!({"realm_access": {"roles": ["guest"]}}), 403),
        ("/any", json!({"realm_access": "clerk"}), 403),
        ("/any", json!({"realm_access.roles": ["clerk"]}), 403),
        ("/all", json!({"roles": ["admin", "x", "clerk"]}), 200),
        ("/all", json!({"roles": ["clerk"]}), 403),
        ("/not", json!({"roles": ["clerk"]}), 200),
        ("/not", json!({"roles": ["clerk", "guest"]}), 403),
        ("/users/7/orders", json!({"sub": "7"}), 200),
        ("/users/8/orders", json!({"sub": "7"}), 403),
        ("/users/7/../8/orders", json!({"sub": "7"}), 400),
        ("/users/%37/orders", json!({"sub": "7"}), 200),
        ("/owner", json!({"owner": "u-1"}), 200),
        ("/owner", json!({"owner": "u-2"}), 403),
        ("/owner", json!({}), 403),
        ("/dot", json!({"a.b": "yes-please"}), 200),
        ("/dot", json!({"a": {"b": "yes-please"}}), 403),
        ("/either", json!({"team": "red"}), 200),
        ("/either", json!({"level": "high"}), 200),
        ("/either", json!({"team": "blue", "level": "low"}), 403),
        ("/scope", json!({"scope": "b c a"}), 200),
        (
            "/scope",
            json!({"scp": ["a", "b"], "scope": ["a", "b"]}),
            200,
        ),
        ("/scope", json!({"scope": "a"}), 403),
    ] {
        let reply = get(&gateway, path, claims.clone()).await;
        assert_eq!(reply.status, status, "{path} with {claims}");
    }
}

#[tokio::test]
async fn numbers_are_what_their_digits_say() {
    let app = App::echo().await;
    let gateway = start(
        "routes:
  - {path: /mine, proxy: '@app', auth: {jwt: app, require: {uid: '{claim:owner}'}}}
  - {path: /team, proxy: '@app', auth: {jwt: app, require: {owners: ['{claim:uid}']}}}
  - {path: /not, proxy: '@app', auth: {jwt: app, require: {uid: {not: '{claim:owner}'}}}}
  - {path: /one, proxy: '@app', auth: {jwt: app, require: {uid: 123456789012345678901}}}
  - {path: '/users/{user}', proxy: '@app', auth: {jwt: app, require: {uid: '{user}'}}}
  - {path: /who, proxy: '@app', auth: {jwt: app, forward: {X-User-Id: uid, X-Teams: owners}}}
tests:
  - {request: GET /one, claims: {uid: 123456789012345678901}, expect: {upstream: '@app'}}
  - {request: GET /one, claims: {uid: 123456789012345678902}, expect: {status: 403}}
",
        &app,
    )
    .await;
    let (one, two) = ("123456789012345678901", "123456789012345678902");
    for (path, members, status) in [
        ("/mine", format!("\"uid\":{one},\"owner\":{one}"), 200),
        ("/mine", format!("\"uid\":{one},\"owner\":{one}.0"), 200),
        ("/mine", format!("\"uid\":{one},\"owner\":{two}"), 403),
        ("/mine", format!("\"uid\":-{one},\"owner\":{one}"), 403),
        ("/mine", "\"uid\":1e3,\"owner\":1000".to_owned(), 200),
        (
            "/mine",
            "\"uid\":9007199254740993.0,\"owner\":9007199254740992.0".to_owned(),
            403,
        ),
        ("/team", format!("\"uid\":{one},\"owners\":[7,{two}]"), 403),
        ("/team", format!("\"uid\":{one},\"owners\":[7,{one}]"), 200),
        ("/not", format!("\"uid\":{one},\"owner\":{two}"), 200),
        (
            "/not",
            format!("\"uid\":{one},\"owner\":1.23456789012345678901e20"),
            403,
        ),
        ("/one", format!("\"uid\":{one}"), 200),
        ("/one", format!("\"uid\":{two}"), 403),
        (
            "/users/123456789012345678901",
            format!("\"uid\":{one}"),
            200,
        ),
        (
            "/users/123456789012345678901",
            format!("\"uid\":{two}"),
            403,
        ),
        ("/users/1e3", "\"uid\":1e3".to_owned(), 403),
        ("/users/-0", "\"uid\":-0".to_owned(), 403),
        ("/mine", "\"uid\":1e999,\"owner\":1e999".to_owned(), 401),
        (
            "/mine",
            "\"uid\":{\"$serde_json::private::Number\":\"1\"},\"owner\":1".to_owned(),
            401,
        ),
    ] {
        let claims = format!("{{\"exp\":{},{members}}}", now() + 600);
        let own = key(Kind::Secret, 0);
        let token = sign_with_header(HS256, own, &json!({}), &claims);
        let bearer = format!("Bearer {token}");
        let reply = gateway.get(path, &[("Authorization", &bearer)]).await;
        assert_eq!(reply.status, status, "{path} with {members}");
    }
    let claims = format!(
        "{{\"exp\":{},\"uid\":{two},\"owners\":[{one},1.50]}}",
        now() + 600
    );
    let token = sign_with_header(HS256, key(Kind::Secret, 0), &json!({}), &claims);
    let bearer = format!("Bearer {token}");
    gateway.get("/who", &[("Authorization", &bearer)]).await;
    let seen = app.saw("/who", |_| true).await;
    assert_eq!(seen.field("x-user-id").as_deref(), Some(two));
    assert_eq!(
        seen.field("x-teams").as_deref(),
        Some("123456789012345678901,1.50")
    );
}

#[tokio::test]
async fn a_token_may_be_the_password_of_basic() {
    let app = App::echo().await;
    let secret = &key(Kind::Secret, 0).public;
    let gateway = Gateway::start(&config(
        "jwt:
  app: {algorithms: [HS256], secret: '@secret', from: [header, basic]}
  plain: {algorithms: [HS256], secret: '@secret'}
routes:
  - {path: /simple/*, proxy: '@app', auth: app}
  - {path: /stripped/*, proxy: '@app', auth: {jwt: app, strip_token: true, require: {role: x}}}
  - {path: /plain/*, proxy: '@app', auth: plain}
",
        &[("secret", secret), ("app", &app.url())],
    ))
    .await;
    let basic = |user: &str, password: &str| {
        format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
    };
    let good = token(json!({"role": "x"}));
    let expired = token(json!({"exp": now() - 600}));
    for (path, authorization, status) in [
        ("/simple/a", None, 401),
        ("/simple/a", Some(basic("__token__", &good)), 200),
        ("/simple/a", Some(basic("", &good)), 200),
        ("/simple/a", Some(format!("Bearer {good}")), 200),
        ("/simple/a", Some(basic("alice", "hunter2")), 401),
        ("/simple/a", Some(basic("alice", "")), 401),
        ("/simple/a", Some("Basic ???".to_owned()), 401),
        ("/simple/a", Some(basic("alice", &expired)), 401),
        ("/stripped/a", Some(basic("alice", &good)), 200),
        ("/stripped/a", Some(basic("alice", &token(json!({})))), 403),
        ("/plain/a", Some(basic("alice", &good)), 401),
    ] {
        let fields: Vec<_> = authorization
            .iter()
            .map(|value| ("Authorization", value.as_str()))
            .collect();
        let mut h2 = H2::connect(gateway.address()).await;
        for reply in [
            gateway.get(path, &fields).await,
            h2.get(path, &fields).await,
        ] {
            assert_eq!(reply.status, status, "{path} {authorization:?}");
            let offered = reply.all("www-authenticate");
            let basic = r#"Basic realm="app", charset="UTF-8""#;
            let offers = status == 401 && !path.starts_with("/plain");
            assert_eq!(offered.contains(&basic), offers, "{path} {offered:?}");
            let bearers = offered
                .iter()
                .filter(|it| it.starts_with("Bearer realm="))
                .count();
            assert_eq!(bearers, usize::from(status != 200), "{path} {offered:?}");
        }
    }
    let seen = app.saw("/stripped/a", |_| true).await;
    assert_eq!(seen.field("authorization"), None);
    let seen = app.saw("/simple/a", |_| true).await;
    assert!(seen.field("authorization").is_some());
}

#[tokio::test]
async fn a_user_may_go_where_apps_behind_other_proxies_read_it() {
    let app = App::echo().await;
    let gateway = start(
        "trusted_proxies: [127.0.0.1/32]
routes:
  - path: /in/*
    proxy: '@app'
    auth: {jwt: app, forward: {X-Forwarded-User: sub, X-Forwarded-Email: email, X-Forwarded-Groups: groups, X-Forwarded-Preferred-Username: name}}
  - {path: /*, proxy: '@app', auth: none}
",
        &app,
    )
    .await;
    let names =
        ["User", "Email", "Groups", "Preferred-Username"].map(|it| format!("X-Forwarded-{it}"));
    let value = format!("Bearer {}", token(json!({"groups": ["a", "b"]})));
    let mut fields = vec![("Authorization", value.as_str())];
    fields.extend(names.iter().map(|name| (name.as_str(), "mallory")));
    for (path, expected) in [
        ("/in/a", [Some("u-1"), None, Some("a,b"), None]),
        ("/open", [None; 4]),
    ] {
        assert_eq!(gateway.get(path, &fields).await.status, 200);
        let seen = app.saw(path, |_| true).await;
        for (name, expected) in names.iter().zip(expected) {
            let seen = seen.field(&name.to_ascii_lowercase());
            assert_eq!(seen.as_deref(), expected, "{name} at {path}");
        }
    }
}

#[tokio::test]
async fn claims_reach_the_app_as_headers_and_a_clients_own_never_do() {
    let app = App::echo().await;
    let gateway = start(
        "routes:
  - path: /in/*
    proxy: '@app'
    auth: {jwt: app, forward: {X-User-Id: sub, X-User-Roles: realm_access.roles, X-User-Extra: extra}}
  - {path: /open/*, proxy: '@app', auth: none}
  - {path: /other/*, proxy: '@app', auth: app}
",
        &app,
    )
    .await;
    let value = format!(
        "Bearer {}",
        token(
            json!({"sub": "alice", "realm_access": {"roles": ["clerk", "admin"]}, "extra": {"a": [1, true]}})
        )
    );
    let own = [
        ("Authorization", value.as_str()),
        ("X-User-Id", "root"),
        ("x-user-id", "root"),
        ("X_User_Id", "root"),
        ("x_user-id", "root"),
        ("X-User-Roles", "root"),
        ("X-Mine", "stays"),
        ("Connection", "x-user-id, x-user-roles"),
    ];

    assert_eq!(gateway.get("/in/a", &own).await.status, 200);
    let seen = app.last();
    assert_eq!(seen.all("x-user-id"), ["alice"]);
    assert_eq!(seen.field("x-user-roles").as_deref(), Some("clerk,admin"));
    assert_eq!(
        seen.field("x-user-extra").as_deref(),
        Some("{\"a\":[1,true]}")
    );

    for path in ["/in/a", "/open/a", "/other/a"] {
        assert_eq!(gateway.get(path, &own).await.status, 200);
        let seen = app.last();
        assert!(!seen.head.contains("root"), "{path}: {}", seen.head);
        assert_eq!(seen.field("x-mine").as_deref(), Some("stays"));
    }
    assert_eq!(gateway.record("/in/a").await["sub"], "alice");
}

#[tokio::test]
async fn a_claim_that_no_header_can_carry_refuses_the_request() {
    let app = App::echo().await;
    let text = "routes: [{path: /*, proxy: '@app', auth: {jwt: app, forward: {X-User-Id: sub}}}]\n";
    let gateway = start(text, &app).await;

    assert_eq!(
        get(&gateway, "/good", json!({"sub": "a b"})).await.status,
        200
    );
    assert_eq!(
        get(&gateway, "/bad", json!({"sub": "a\r\nX-Admin: 1"}))
            .await
            .status,
        403
    );
    assert_eq!(gateway.record("/bad").await["reason"], "claim_unfit");
    assert_eq!(app.requests(), 1);

    assert_eq!(
        get(&gateway, "/none", json!({"sub": null})).await.status,
        200
    );
    assert_eq!(app.last().field("x-user-id"), None);
}

#[tokio::test]
async fn a_token_may_come_from_a_cookie_or_the_query_where_the_verifier_says_so() {
    let app = App::echo().await;
    let gateway = start("routes: [{path: /*, proxy: '@app', auth: app}]\n", &app).await;
    let (one, two) = (token(json!({})), token(json!({"sub": "u-2"})));
    let bearer = format!("Bearer {one}");
    let cookie = format!("a=1; access_token={one}; b=2");
    let another = format!("access_token={two}");

    for (target, fields, status, why) in [
        ("/a".to_owned(), vec![("Cookie", &cookie)], 200, "a cookie"),
        (format!("/b?x=1&token={one}"), vec![], 200, "the query"),
        (
            format!("/c?token={one}"),
            vec![("Authorization", &bearer), ("Cookie", &cookie)],
            200,
            "the same thrice",
        ),
        (
            "/d".to_owned(),
            vec![("Authorization", &bearer), ("Cookie", &another)],
            400,
            "two in two places",
        ),
        (
            format!("/e?token={one}&token={two}"),
            vec![],
            400,
            "two in the query",
        ),
        (format!("/f?tokens={one}"), vec![], 401, "another parameter"),
    ] {
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        assert_eq!(gateway.get(&target, &fields).await.status, status, "{why}");
    }
    gateway.record("/f").await;
    let output = gateway.output();
    assert!(
        !output.contains(&one) && !output.contains(&two),
        "a token is in a log: {output}"
    );
}

#[tokio::test]
async fn strip_token_takes_the_token_and_leaves_the_rest() {
    let app = App::echo().await;
    let gateway = start(
        "routes:
  - {path: /strip, proxy: '@app', auth: {jwt: app, strip_token: true}}
  - {path: /keep, proxy: '@app', auth: app}
",
        &app,
    )
    .await;
    let token = token(json!({}));
    let bearer = format!("Bearer {token}");
    let cookie = format!("a=1; access_token={token}; b=2");
    let query = |path: &str| format!("{path}?x=1&token={token}&y=2");
    let fields = [
        ("Authorization", bearer.as_str()),
        ("Cookie", cookie.as_str()),
    ];

    assert_eq!(gateway.get(&query("/strip"), &fields).await.status, 200);
    let seen = app.last();
    assert_eq!(seen.target(), "/strip?x=1&y=2");
    assert_eq!(seen.field("authorization"), None);
    assert_eq!(seen.field("cookie").as_deref(), Some("a=1; b=2"));

    assert_eq!(gateway.get(&query("/keep"), &fields).await.status, 200);
    let seen = app.last();
    assert_eq!(seen.target(), query("/keep"));
    assert_eq!(seen.field("authorization"), Some(bearer.clone()));
    assert_eq!(seen.field("cookie"), Some(cookie.clone()));
}

#[tokio::test]
async fn optional_lets_the_anonymous_in_but_never_a_bad_token() {
    let app = App::echo().await;
    let text = "routes: [{path: /*, proxy: '@app', auth: {jwt: app, optional: true, forward: {X-User-Id: sub}}}]\n";
    let gateway = start(text, &app).await;

    assert_eq!(gateway.get("/", &[("X-User-Id", "root")]).await.status, 200);
    assert_eq!(app.last().field("x-user-id"), None);
    assert_eq!(
        get(&gateway, "/", json!({"sub": "alice"})).await.status,
        200
    );
    assert_eq!(app.last().field("x-user-id").as_deref(), Some("alice"));
    assert_eq!(get(&gateway, "/", json!({"exp": 1})).await.status, 401);
    assert_eq!(app.requests(), 2);
}

#[tokio::test]
async fn a_default_verifier_guards_every_route_that_is_not_public_out_loud() {
    let app = App::echo().await;
    let folder = super::support::Folder::new();
    folder.write("files/a.txt", "public");
    let text =
        "jwt: {app: {algorithms: [HS256], secret: '@secret'}}\ndefaults: {auth: app}\nroutes:
  - {path: /app/*, proxy: '@app'}
  - {path: /open/*, proxy: '@app', auth: none}
  - {path: /files/*, static: ./files, auth: none}
  - {path: /private/*, static: ./files}
  - {path: /ping, respond: {body: pong}}
  - {path: /old, redirect: {to: /app/}}
";
    let secret = &key(Kind::Secret, 0).public;
    let gateway = Gateway::start_in(
        folder,
        &config(text, &[("secret", secret), ("app", &app.url())]),
    )
    .await;

    assert_eq!(gateway.get("/app/x", &[]).await.status, 401);
    assert_eq!(get(&gateway, "/app/x", json!({})).await.status, 200);
    assert_eq!(gateway.get("/open/x", &[]).await.status, 200);
    assert_eq!(gateway.get("/files/a.txt", &[]).await.text(), "public");
    for path in ["/private/a.txt", "/private/none", "/ping", "/old"] {
        assert_eq!(gateway.get(path, &[]).await.status, 401, "{path}");
    }
    let private = get(&gateway, "/private/a.txt", json!({})).await;
    assert_eq!((private.status, private.text().as_str()), (200, "public"));
    assert_eq!(get(&gateway, "/ping", json!({})).await.text(), "pong");
    assert_eq!(get(&gateway, "/old", json!({})).await.status, 308);
}
