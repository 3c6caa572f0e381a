//! Pages of other origins: preflights are answered before anybody is authenticated, and every answer of
//! a route with `cors` says who may read it, also where the gateway refuses.

use bytes::Bytes;
use http_body_util::Full;
use serde_json::json;

use super::support::{
    Answer, App, Folder, Gateway, H2, Kind, Reply, config, key, request, run_to_end, token,
};

const APP: &str = "https://app.example.com";
const EVIL: &str = "https://app.example.com.evil.org";

const TEXT: &str = "jwt: {app: {algorithms: [HS256], secret: '@secret'}}
routes:
  - {name: orders, path: /orders/*, methods: [GET, PUT], proxy: '@app', auth: {jwt: app, require: {scope: [orders]}}, body_bytes: 8B, cors: {origins: ['https://app.example.com', 'https://*.example.org']}}
  - {name: posted, path: /orders/*, methods: [POST], proxy: '@app', auth: none}
  - {name: mine, path: /mine/*, proxy: '@app', auth: none, cors: {origins: [https://app.example.com], credentials: true, methods: [GET, PATCH], headers: ['*'], expose: [X-Total], max_age: 0s}}
  - {name: open, path: /open/*, proxy: '@app', auth: none, cors: {origins: '*'}}
  - {name: own, path: /own/*, proxy: '@app', auth: none, cors: {origins: [https://app.example.com]}, headers: {response: {set: {Access-Control-Expose-Headers: X-Mine}}}}
  - {name: gone, path: /gone, proxy: 'http://127.0.0.1:1', auth: none, cors: {origins: [https://app.example.com]}}
  - {name: asked, path: /asked, proxy: '@app', auth: {ask: '@app/denied'}, cors: {origins: [https://app.example.com]}}
  - {name: files, path: /files/*, static: ./files, cors: {origins: [https://app.example.com]}}
  - {name: moved, path: /moved, redirect: {to: /files/a.txt}, cors: {origins: [https://app.example.com]}}
  - {name: plain, path: /*, proxy: '@app', auth: none}
";

/// An app that has its own mind about CORS.
async fn app() -> App {
    App::start(|seen| {
        let vary = match seen.target() {
            "/denied" => {
                let no = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
                return Answer::Raw(no.to_vec());
            }
            "/mine/vary" => "Vary: Accept-Encoding, origin\r\n",
            _ => "Vary: Accept\r\n",
        };
        let fields = "Access-Control-Allow-Origin: https://evil.org\r\nAccess-Control-Allow-Origin: null\r\n\
            Access-Control-Allow-Credentials: true\r\nAccess-Control-Expose-Headers: X-Secret\r\n";
        Answer::Raw(
            format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n{fields}{vary}\r\nyes").into_bytes(),
        )
    })
    .await
}

async fn start() -> (App, Gateway) {
    let app = app().await;
    let folder = Folder::new();
    folder.write("files/a.txt", "a");
    let secret = &key(Kind::Secret, 0).public;
    let values = [("secret", secret.as_str()), ("app", &app.url())];
    let gateway = Gateway::start_in(folder, &config(TEXT, &values)).await;
    (app, gateway)
}

async fn send(gateway: &Gateway, method: &str, path: &str, fields: &[(&str, &str)]) -> Reply {
    let mut wire = gateway.connect().await;
    wire.send(request(method, path, fields, "")).await;
    wire.reply().await
}

async fn preflight(
    gateway: &Gateway,
    path: &str,
    origin: &str,
    method: &str,
    headers: &str,
) -> Reply {
    let fields = [
        ("Origin", origin),
        ("Access-Control-Request-Method", method),
        ("Access-Control-Request-Headers", headers),
    ];
    send(gateway, "OPTIONS", path, &fields).await
}

/// Allow-Origin, Allow-Credentials and Expose-Headers, each at most once, and all of Vary.
#[track_caller]
fn said(reply: &Reply) -> [String; 4] {
    [
        "access-control-allow-origin",
        "access-control-allow-credentials",
        "access-control-expose-headers",
        "vary",
    ]
    .map(|name| {
        let all = reply.all(name);
        assert!(all.len() < 2 || name == "vary", "{name}: {all:?}");
        all.join(", ")
    })
}

const EXPOSED: &str = "WWW-Authenticate, Retry-After, RateLimit, RateLimit-Policy";
const ASKED: &str = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";

#[tokio::test]
async fn a_preflight_is_answered_before_anybody_is_authenticated() {
    let (app, gateway) = start().await;
    let reply = preflight(
        &gateway,
        "/orders/1",
        APP,
        "PUT",
        "authorization,content-type",
    )
    .await;
    assert_eq!((reply.status, reply.body.len()), (204, 0));
    assert_eq!(said(&reply), [APP, "", EXPOSED, ASKED]);
    for (name, value) in [
        ("access-control-allow-methods", "GET, HEAD, PUT"),
        (
            "access-control-allow-headers",
            "Authorization, Content-Type",
        ),
        ("access-control-max-age", "600"),
    ] {
        assert_eq!(reply.all(name), [value], "{name}");
    }
    let record = gateway.record("/orders/1").await;
    assert_eq!(
        (&record["route"], &record["status"]),
        (&json!("orders"), &json!(204))
    );
    assert_eq!(record["reason"], json!(null));
    let below = "https://a.b.example.org";
    let reply = preflight(&gateway, "/orders/2", below, "GET", "authorization").await;
    assert_eq!((reply.status, said(&reply)[0].as_str()), (204, below));

    let with = preflight(&gateway, "/mine/1", APP, "PATCH", "x-a,x-b").await;
    assert_eq!(said(&with), [APP, "true", "X-Total", ASKED]);
    for (name, value) in [
        ("access-control-allow-methods", "GET, HEAD, PATCH"),
        ("access-control-allow-headers", "x-a,x-b"),
        ("access-control-max-age", "0"),
    ] {
        assert_eq!(with.all(name), [value], "{name}");
    }
    let odd = preflight(&gateway, "/mine/2", APP, "PATCH", "x-a: <b>").await;
    assert_eq!(
        (odd.status, odd.field("access-control-allow-headers")),
        (204, None)
    );
    let open = preflight(&gateway, "/open/1", "null", "DELETE", "").await;
    assert_eq!(open.status, 204);
    assert_eq!(said(&open), ["*", "", EXPOSED, ASKED]);
    let methods = open.field("access-control-allow-methods");
    assert_eq!(methods, Some("GET, HEAD, POST, PUT, PATCH, DELETE"));
    assert_eq!(app.requests(), 0);
}

#[tokio::test]
async fn a_preflight_of_an_origin_that_is_not_named_is_refused() {
    let (app, gateway) = start().await;
    for (at, origin) in [
        EVIL,
        "null",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://example.org",
        "https://evilexample.org",
        "https://APP.example.com",
        "*",
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/orders/{at}");
        let reply = preflight(&gateway, &path, origin, "GET", "").await;
        assert_eq!(reply.status, 403, "{origin}");
        assert_eq!(said(&reply), ["", "", "", "Origin"], "{origin}");
        for name in ["methods", "headers", "max-age"] {
            let name = format!("access-control-allow-{name}");
            assert_eq!(reply.field(&name), None, "{origin}");
        }
        assert!(reply.text().contains("pages of this origin may not use"));
        let record = gateway.record(&path).await;
        assert_eq!(record["reason"], "origin_refused");
        assert_eq!(record["route"], "orders");
    }
    assert_eq!(app.requests(), 0);
}

#[tokio::test]
async fn what_is_no_preflight_goes_its_ordinary_way() {
    let (app, gateway) = start().await;
    let method = ("Access-Control-Request-Method", "GET");
    for (path, fields) in [
        ("/mine/none", &[][..]),
        ("/mine/origin", &[("Origin", APP)]),
        ("/mine/method", &[method]),
        ("/mine/two", &[("Origin", APP), ("Origin", APP), method]),
        ("/mine/both", &[("Origin", APP), method, method]),
        // A route without `cors` leaves it to its app.
        ("/plain", &[("Origin", APP), method]),
    ] {
        let reply = send(&gateway, "OPTIONS", path, fields).await;
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (200, "yes"),
            "{path}"
        );
        assert_eq!(app.last().line(), format!("OPTIONS {path} HTTP/1.1"));
    }
    let seen = app.requests();
    // The method that is asked about decides: POST is another route's, PATCH is nobody's.
    for asked in ["POST", "PATCH"] {
        let reply = preflight(&gateway, "/orders/1", APP, asked, "").await;
        assert_eq!(reply.status, 405, "{asked}");
        assert_eq!(said(&reply), ["", "", "", ""], "{asked}");
    }
    assert_eq!(app.requests(), seen);
    let reply = send(&gateway, "OPTIONS", "*", &[("Origin", APP), method]).await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn every_answer_says_who_may_read_it_and_every_refusal() {
    let (app, gateway) = start().await;
    let good = format!("Bearer {}", token(json!({"scope": "orders"})));
    let poor = format!("Bearer {}", token(json!({})));
    let (good, poor) = (
        ("Authorization", good.as_str()),
        ("Authorization", poor.as_str()),
    );
    for (method, path, more, status) in [
        ("GET", "/orders/200", &[good][..], 200),
        ("GET", "/orders/401", &[], 401),
        (
            "GET",
            "/orders/401b",
            &[("Authorization", "Bearer x.y.z")],
            401,
        ),
        ("GET", "/orders/400", &[good, poor], 400),
        ("GET", "/orders/403", &[poor], 403),
        ("PUT", "/orders/413", &[good, ("Content-Length", "9")], 413),
        ("GET", "/gone", &[], 502),
        ("GET", "/asked", &[], 403),
        ("GET", "/files/a.txt", &[], 200),
        ("GET", "/files/none", &[], 404),
        ("POST", "/files/a.txt", &[], 405),
        ("GET", "/moved", &[], 308),
    ] {
        for origin in [Some(APP), Some(EVIL), Some("null"), None] {
            let mut fields = more.to_vec();
            fields.extend(origin.map(|origin| ("Origin", origin)));
            let reply = send(&gateway, method, path, &fields).await;
            assert_eq!(reply.status, status, "{path} {origin:?}");
            let [allowed, credentials, exposed, vary] = said(&reply);
            let (reader, readable) = match origin {
                Some(APP) => (APP, EXPOSED),
                _ => ("", ""),
            };
            assert_eq!(allowed, reader, "{path} {origin:?}");
            assert_eq!(exposed, readable, "{path} {origin:?}");
            assert_eq!(credentials, "", "{path} {origin:?}");
            assert!(vary.ends_with("Origin"), "{path} {origin:?}: {vary}");
        }
    }
    // A page sends what it likes to its own host, and says its origin with it.
    let own = [good, ("Origin", "http://gateway.test")];
    assert_eq!(send(&gateway, "PUT", "/orders/own", &own).await.status, 200);
    let two = [good, ("Origin", APP), ("Origin", APP)];
    let reply = send(&gateway, "GET", "/orders/two", &two).await;
    assert_eq!((reply.status, said(&reply)[0].as_str()), (200, ""));
    let not_modified = [("Origin", APP), ("If-None-Match", "*")];
    let reply = send(&gateway, "GET", "/files/a.txt", &not_modified).await;
    assert_eq!(reply.status, 304);
    assert_eq!(said(&reply), [APP, "", EXPOSED, "Origin"]);
    // The app hears the origin as before.
    let reply = send(&gateway, "GET", "/mine/heard", &[("Origin", APP)]).await;
    assert_eq!(reply.status, 200);
    assert_eq!(app.last().field("origin").as_deref(), Some(APP));
}

#[tokio::test]
async fn what_the_app_says_itself_is_replaced_where_the_route_has_cors_alone() {
    let (_app, gateway) = start().await;
    for (path, origin, expected) in [
        (
            "/mine/a",
            Some(APP),
            [APP, "true", "X-Total", "Accept, Origin"],
        ),
        ("/mine/b", Some(EVIL), ["", "", "", "Accept, Origin"]),
        ("/mine/c", None, ["", "", "", "Accept, Origin"]),
        (
            "/mine/vary",
            Some(APP),
            [APP, "true", "X-Total", "Accept-Encoding, origin"],
        ),
        ("/open/a", Some(EVIL), ["*", "", EXPOSED, "Accept"]),
        ("/open/b", Some("null"), ["*", "", EXPOSED, "Accept"]),
        ("/open/c", None, ["*", "", EXPOSED, "Accept"]),
        // `headers` has the last word.
        ("/own/a", Some(APP), [APP, "", "X-Mine", "Accept, Origin"]),
    ] {
        let fields: Vec<_> = origin.iter().map(|origin| ("Origin", *origin)).collect();
        let reply = gateway.get(path, &fields).await;
        assert_eq!(said(&reply), expected, "{path}");
    }
    let plain = gateway.get("/plain", &[("Origin", APP)]).await;
    let origins = plain.all("access-control-allow-origin");
    assert_eq!(origins, ["https://evil.org", "null"]);
    assert_eq!(plain.all("access-control-expose-headers"), ["X-Secret"]);
    assert_eq!(plain.all("vary"), ["Accept"]);
}

#[tokio::test]
async fn http2_is_told_the_same() {
    let (_app, gateway) = start().await;
    let mut h2 = H2::connect(gateway.address()).await;
    let none = Full::<Bytes>::default;
    let asks = [
        ("origin", APP),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "authorization"),
    ];
    let reply = h2.send("OPTIONS", "/orders/1", &asks, none()).await;
    assert_eq!(reply.status, 204);
    assert_eq!(said(&reply), [APP, "", EXPOSED, ASKED]);
    let asks = [("origin", EVIL), ("access-control-request-method", "PUT")];
    let reply = h2.send("OPTIONS", "/orders/1", &asks, none()).await;
    assert_eq!(reply.status, 403);
    let reply = h2.get("/orders/1", &[("origin", APP)]).await;
    assert_eq!(reply.status, 401);
    assert_eq!(said(&reply), [APP, "", EXPOSED, "Origin"]);
    let reply = h2.get("/mine/1", &[("origin", APP)]).await;
    assert_eq!(said(&reply), [APP, "true", "X-Total", "Accept, Origin"]);
}

#[tokio::test]
async fn tunnels_and_grpc_open_from_everywhere_as_before() {
    let app = App::start(|_| Answer::Upgrade).await;
    let text = config(
        "routes:\n  - {path: /live, proxy: '@app', auth: none, cors: {origins: [https://app.example.com]}}\n  - {path: /rpc, proxy: 'http://127.0.0.1:1', auth: none, cors: {origins: [https://app.example.com], expose: [grpc-status, grpc-message]}}\n",
        &[("app", &app.url())],
    );
    let gateway = Gateway::start(&text).await;
    for origin in [APP, EVIL] {
        let fields = [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Origin", origin),
        ];
        let mut wire = gateway.connect().await;
        wire.send(request("GET", "/live", &fields, "")).await;
        assert_eq!(wire.head().await.status, 101, "{origin}");
        wire.send("ping").await;
        assert_eq!(wire.take(4).await, b"ping");
    }
    let fields = [("Origin", APP), ("Content-Type", "application/grpc")];
    let mut h2 = H2::connect(gateway.address()).await;
    let reply = h2
        .send("POST", "/rpc", &fields, Full::<Bytes>::default())
        .await;
    assert_eq!(
        (reply.status, reply.field("grpc-status")),
        (200, Some("14"))
    );
    assert_eq!(
        said(&reply),
        [APP, "", "grpc-status, grpc-message", "Origin"]
    );
}

const USERS: &str = "alice: {password: \"pbkdf2_sha256$1000$saltsalt$qQDPSZa3Ormyy9oK1Pu0ZLLwP2Svzmx3yu8OvDdq/J0=\"}\n";

/// A gateway that issues tokens, and lets pages of other origins ask for them, or not.
async fn issuing(more: &str) -> Gateway {
    let folder = Folder::new();
    folder.write("users.yaml", USERS);
    let text = config(
        &format!(
            "tokens:\n  keys: keys/\n  users: users.yaml\n{more}state: data/\nroutes: [{{path: /*, respond: {{body: open}}}}]\n"
        ),
        &[],
    );
    Gateway::start_in(folder, &text).await
}

async fn post(gateway: &Gateway, path: &str, fields: &[(&str, &str)], body: &str) -> Reply {
    let fields = [fields, &[("Content-Type", "application/json")]].concat();
    let mut wire = gateway.connect().await;
    wire.send(request("POST", path, &fields, body)).await;
    wire.reply().await
}

#[tokio::test]
async fn pages_of_other_origins_get_tokens_where_they_may() {
    let gateway = issuing(
        "  cors: {origins: [https://app.example.com]}\n  throttle: {per_ip: 3/m, per_user: 100/m}\n",
    )
    .await;
    let path = "/api/token/";
    let reply = preflight(&gateway, path, APP, "POST", "content-type").await;
    assert_eq!(reply.status, 204);
    assert_eq!(said(&reply), [APP, "", EXPOSED, ASKED]);
    assert_eq!(reply.field("access-control-allow-methods"), Some("POST"));
    assert_eq!(
        preflight(&gateway, path, EVIL, "POST", "").await.status,
        403
    );

    let right = r#"{"username": "alice", "password": "correct horse"}"#;
    let wrong = r#"{"username": "alice", "password": "wrong"}"#;
    let page = [("Origin", APP)];
    let reply = post(&gateway, path, &page, right).await;
    assert_eq!((reply.status, said(&reply)[0].as_str()), (200, APP));
    let tokens: serde_json::Value = serde_json::from_str(&reply.text()).unwrap();
    let reply = post(&gateway, path, &page, wrong).await;
    assert_eq!(reply.status, 401);
    assert_eq!(said(&reply), [APP, "", EXPOSED, "Origin"]);
    let reply = post(&gateway, path, &[("Origin", EVIL)], wrong).await;
    assert_eq!(reply.status, 401);
    assert_eq!(said(&reply), ["", "", "", "Origin"]);
    let reply = post(&gateway, path, &page, right).await;
    assert_eq!(reply.status, 429);
    assert!(reply.field("retry-after").is_some());
    assert_eq!(said(&reply), [APP, "", EXPOSED, "Origin"]);

    let refresh = json!({"refresh": tokens["refresh"]}).to_string();
    let path = "/api/token/refresh/";
    let reply = post(&gateway, path, &page, &refresh).await;
    assert_eq!((reply.status, said(&reply)[0].as_str()), (200, APP));
    let reply = post(&gateway, path, &page, &"x".repeat(70_000)).await;
    assert_eq!((reply.status, said(&reply)[0].as_str()), (413, APP));
    // The key set is everybody's, as ever, with whatever a script sends along.
    let mut wire = gateway.connect().await;
    let asks = [
        ("Origin", EVIL),
        ("Access-Control-Request-Method", "GET"),
        ("Access-Control-Request-Headers", "authorization, x-a"),
    ];
    let preflight = request("OPTIONS", "/.well-known/jwks.json", &asks, "");
    wire.send(preflight).await;
    let reply = wire.reply().await;
    assert_eq!((reply.status, said(&reply)[0].as_str()), (204, "*"));
    let allowed = reply.field("access-control-allow-headers");
    assert_eq!(allowed, Some("*, Authorization"));
    for fields in [&page[..], &[("Origin", EVIL)], &[]] {
        let reply = gateway.get("/.well-known/jwks.json", fields).await;
        assert_eq!(said(&reply), ["*", "", "", ""]);
    }
    let other = gateway.get("/", &page).await;
    assert_eq!(said(&other), ["", "", "", ""]);
}

#[tokio::test]
async fn cookies_go_to_another_origin_that_stands_in_both_lists() {
    let gateway = issuing(
        "  cookies: {origins: [https://app.example.com]}\n  cors: {origins: [https://app.example.com, https://b.example.com], credentials: true}\n",
    )
    .await;
    let right = r#"{"username": "alice", "password": "correct horse"}"#;
    let reply = post(&gateway, "/api/token/", &[("Origin", APP)], right).await;
    assert_eq!(reply.status, 200);
    assert_eq!(said(&reply), [APP, "true", EXPOSED, "Origin"]);
    let cookies: Vec<_> = reply
        .all("set-cookie")
        .iter()
        .map(|line| line.split(';').next().unwrap().to_owned())
        .collect();
    let cookies = cookies.join("; ");
    for (origin, status, reader) in [
        (APP, 200, APP),
        // It reads why it may not.
        ("https://b.example.com", 403, "https://b.example.com"),
        (EVIL, 403, ""),
    ] {
        let fields = [("Origin", origin), ("Cookie", cookies.as_str())];
        let reply = post(&gateway, "/api/token/refresh/", &fields, "").await;
        assert_eq!(reply.status, status, "{origin}");
        assert_eq!(said(&reply)[0], reader, "{origin}");
    }
}

#[tokio::test]
async fn a_reload_opens_and_closes_a_route_to_pages_and_says_so() {
    let text = |cors: &str| {
        config(
            &format!("routes: [{{path: /a, respond: {{body: in}}{cors}}}]\n"),
            &[],
        )
    };
    let gateway = Gateway::start(&text("")).await;
    let mut kept = gateway.connect().await;
    let page = [("Origin", APP)];
    assert_eq!(said(&kept.get("/a", &page).await), ["", "", "", ""]);
    for (cors, reader, log) in [
        (
            ", cors: {origins: [https://app.example.com]}",
            APP,
            "ACCESS GOT WIDER: /a cors added (https://app.example.com)",
        ),
        (
            ", cors: {origins: [https://app.example.com, 'https://*.example.org'], credentials: true}",
            APP,
            "ACCESS GOT WIDER: /a cors: https://app.example.com -> https://app.example.com, https://*.example.org, with credentials",
        ),
        (
            ", cors: {origins: ['https://*.example.org']}",
            "",
            "changed: /a cors: https://app.example.com, https://*.example.org, with credentials -> https://*.example.org",
        ),
        (
            ", cors: {origins: '*'}",
            "*",
            "ACCESS GOT WIDER: /a cors: https://*.example.org -> *",
        ),
        ("", "", "changed: /a cors removed (*)"),
    ] {
        gateway.reconfigure(&text(cors)).await;
        assert_eq!(said(&kept.get("/a", &page).await)[0], reader, "{cors}");
        assert!(
            gateway.stderr().contains(log),
            "{log}\n{}",
            gateway.stderr()
        );
    }
}

#[test]
fn explain_and_tests_decide_as_the_gateway_does() {
    let folder = Folder::new();
    folder.write("files/a.txt", "a");
    let secret = &key(Kind::Secret, 0).public;
    let tests = "tests:
  - {request: OPTIONS /orders/1, headers: {Origin: 'https://app.example.com', Access-Control-Request-Method: PUT}, expect: {status: 204, route: orders}}
  - {request: OPTIONS /orders/1, headers: {Origin: 'https://evil.org', Access-Control-Request-Method: PUT}, expect: {reason: origin_refused}}
  - {request: OPTIONS /orders/1, headers: {Origin: 'https://evil.org', Access-Control-Request-Method: POST}, expect: {status: 405}}
";
    let values = [("secret", secret.as_str()), ("app", "http://127.0.0.1:9")];
    folder.write("gateway.yaml", config(&format!("{TEXT}{tests}"), &values));
    let run = |arguments: &[&str]| {
        let output = run_to_end(&folder, arguments, &[]);
        let said = [output.stdout, output.stderr].concat();
        (
            String::from_utf8(said).unwrap(),
            output.status.code().unwrap(),
        )
    };
    let asks = |method: &str, path: &str, fields: &[&str]| {
        let mut arguments = vec!["explain", method, path];
        arguments.extend(fields.iter().flat_map(|field| ["-H", *field]));
        run(&arguments)
    };
    let (app, evil) = (
        "Origin: https://app.example.com",
        "Origin: https://evil.org",
    );
    let put = "Access-Control-Request-Method: PUT";
    let (said, status) = asks(
        "OPTIONS",
        "/orders/1",
        &[
            app,
            put,
            "Access-Control-Request-Headers: x-a,authorization",
        ],
    );
    assert_eq!(status, 0, "{said}");
    for line in [
        "route      orders (/orders/*)",
        "cors       a preflight: may a page of https://app.example.com send PUT?\n",
        "access-control-allow-origin: https://app.example.com\n",
        "access-control-allow-methods: GET, HEAD, PUT\n",
        "the browser will not send it: x-a is not among its headers\n",
        "answer     204\n",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    assert!(!said.contains("authorization is not"), "{said}");
    let patch = "Access-Control-Request-Method: DELETE";
    let (said, _) = asks("OPTIONS", "/mine/1", &[app, patch]);
    assert!(said.contains("DELETE is not among its methods"), "{said}");
    let (said, status) = asks("OPTIONS", "/orders/1", &[evil, put]);
    assert_eq!(status, 3);
    assert!(
        said.contains("no: `cors` names https://app.example.com, https://*.example.org\n"),
        "{said}"
    );
    assert!(said.contains("answer     403 origin_refused: "), "{said}");
    for (path, origin, line) in [
        (
            "/orders/1",
            app,
            "https://app.example.com may read the answer\n",
        ),
        (
            "/mine/1",
            app,
            "may read the answer, also with credentials\n",
        ),
        (
            "/mine/1",
            evil,
            "may not read the answer: `cors` names https://app.example.com, with credentials\n",
        ),
        ("/open/1", evil, "https://evil.org may read the answer\n"),
        (
            "/mine/1",
            "Origin: http://localhost",
            "it is the host's own\n",
        ),
        ("/plain", evil, "there is no `cors`\n"),
    ] {
        let (said, _) = asks("GET", path, &[origin]);
        assert!(said.contains(line), "{path} {origin}: {line}\n{said}");
    }
    assert!(!asks("GET", "/mine/1", &[]).0.contains("cors"));
    let (said, status) = run(&["test", "--coverage"]);
    assert_eq!(status, 0, "{said}");
    // Which pages may ask says nothing of who may come in.
    assert!(said.contains("refusal of the route orders"), "{said}");
}
