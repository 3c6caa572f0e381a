//! What claims open, where tokens come from, and which headers the app sees of them.

use serde_json::{Value, json};

use super::support::{App, Gateway, Kind, Reply, config, key, token};

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
