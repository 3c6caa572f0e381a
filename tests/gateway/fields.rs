//! What of a client's header fields reaches an app, in which spelling, and what the app is told of the client.

use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use super::support::{
    App, Folder, Gateway, H2, Kind, Wire, chunked, config, eventually, free_port, key, request,
    run_to_end, token,
};

/// What CGI, WSGI, PHP, Rack and Node read as `-`.
const ODD: &str = "_.~!#$%&'*+^`|";

/// Names that a client must not set, on a route whose `headers` set the last two, beside one with claims.
const RESERVED: &[&str] = &[
    "X-User-Id",
    "X-Copied",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Prefix",
    "X-Forwarded-User",
    "X-Request-Id",
    "X-Real-IP",
    "X-Original-URL",
    "X-Original-Method",
    "X-Rewrite-URL",
    "True-Client-IP",
    "CF-Connecting-IP",
    "X-Cluster-Client-IP",
    "Client-Cert",
    "X-Accel-Redirect",
    "Transfer-Encoding",
    "Content-Length",
    "X-Stage",
    "X-Secret-Key",
];

async fn start(upstream: &str) -> (App, Gateway) {
    let app = App::echo().await;
    let text = format!(
        "jwt: {{own: {{algorithms: [HS256], secret: '@secret'}}}}
upstreams: {{app: {{servers: ['@app']{upstream}}}}}
defaults: {{headers: {{request: {{remove: [X-Secret-Key]}}}}}}
routes:
  - {{path: /claims, proxy: app, auth: {{jwt: own, forward: {{X-User-Id: sub}}}}}}
  - {{path: /asked, proxy: app, auth: {{ask: '@app/', copy: [X-Copied]}}}}
  - {{path: /open, proxy: app, auth: none, headers: {{request: {{set: {{X-Stage: live}}}}}}}}
"
    );
    let secret = &key(Kind::Secret, 0).public;
    let values = [("app", app.url()), ("secret", secret.clone())];
    let values = values
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let gateway = Gateway::start(&config(&text, &values)).await;
    (app, gateway)
}

/// A name's spellings, but its own.
fn spellings(name: &str) -> impl Iterator<Item = String> {
    ODD.chars().flat_map(move |odd| {
        let odd = odd.to_string();
        [name.replace('-', &odd), name.replacen('-', &odd, 1)]
    })
}

#[tokio::test]
async fn no_spelling_of_a_reserved_name_reaches_an_app() {
    let (app, gateway) = start(", underscores: pass").await;
    let mut h1 = gateway.connect().await;
    let mut h2 = H2::connect(gateway.address()).await;
    for name in RESERVED {
        let spellings: Vec<String> = spellings(name).collect();
        for some in spellings.chunks(20) {
            let mut fields: Vec<(&str, &str)> = some.iter().map(|it| (&**it, "evil")).collect();
            fields.push(("X-Free", "free"));
            assert_eq!(h1.get("/open", &fields).await.status, 200, "{name}");
            let over_h1 = app.last();
            let lower: Vec<String> = some.iter().map(|it| it.to_lowercase()).collect();
            let mut fields: Vec<(&str, &str)> = lower.iter().map(|it| (&**it, "evil")).collect();
            fields.push(("x-free", "free"));
            assert_eq!(h2.get("/open", &fields).await.status, 200, "{name}");
            for seen in [over_h1, app.last()] {
                assert!(!seen.head.contains("evil"), "{}", seen.head);
                assert_eq!(seen.all("x-free"), ["free"]);
                assert_eq!(seen.all("x-stage"), ["live"]);
            }
        }
    }
}

#[tokio::test]
async fn no_spelling_of_a_reserved_name_stands_in_trailers() {
    let (app, gateway) = start(", underscores: pass").await;
    for name in RESERVED {
        let lines = spellings(name).map(|it| format!("{it}: evil\r\n"));
        let lines = lines
            .chain([format!("{name}: evil\r\n")])
            .collect::<Vec<_>>();
        for some in lines.chunks(10) {
            let mut wire = gateway.connect().await;
            let fields = [("Transfer-Encoding", "chunked")];
            wire.send(request("POST", "/open", &fields, "")).await;
            let trailers = format!("0\r\nX-Sum: in\r\n{}\r\n", some.concat());
            wire.send([&chunked("body")[..], trailers.as_bytes()].concat())
                .await;
            assert_eq!(wire.reply().await.status, 200, "{name}");
            let seen = app.saw("/open", |seen| seen.complete).await.trailers;
            assert!(!seen.contains("evil"), "{seen}");
        }
    }
}

#[tokio::test]
async fn names_with_an_underscore_reach_an_app_that_says_so() {
    let fields = [
        ("X_Free", "free"),
        ("X.Free", "dotted"),
        ("X-User_Id", "evil"),
    ];
    for (upstream, passes) in [("", false), (", underscores: pass", true)] {
        let (app, gateway) = start(upstream).await;
        let mut h2 = H2::connect(gateway.address()).await;
        assert_eq!(gateway.get("/open", &fields).await.status, 200);
        let over_h1 = app.last();
        let lower = [
            ("x_free", "free"),
            ("x.free", "dotted"),
            ("x-user_id", "evil"),
        ];
        assert_eq!(h2.get("/open", &lower).await.status, 200);
        for seen in [over_h1, app.last()] {
            assert_eq!(seen.field("x_free").is_some(), passes, "{}", seen.head);
            assert_eq!(seen.all("x.free"), ["dotted"]);
            assert!(!seen.head.contains("evil"), "{}", seen.head);
        }
    }
}

#[tokio::test]
async fn claims_and_copies_have_one_spelling() {
    let (app, gateway) = start(", underscores: pass").await;
    let bearer = format!("Bearer {}", token(json!({"sub": "alice"})));
    for path in ["/claims", "/asked", "/open"] {
        let fields = [
            ("Authorization", bearer.as_str()),
            ("X.User.Id", "evil"),
            ("X~User-Id", "evil"),
            ("X-User-Id", "evil"),
            ("X!Copied", "evil"),
            ("X-Copied", "evil"),
        ];
        assert_eq!(gateway.get(path, &fields).await.status, 200, "{path}");
        let seen = app.last();
        assert!(!seen.head.contains("evil"), "{path}: {}", seen.head);
        let expected = (path == "/claims").then(|| "alice".to_owned());
        assert_eq!(seen.field("x-user-id"), expected);
    }
}

/// What the app saw of these fields, and the client of the access record.
async fn told(trusted: &str, fields: &[(&str, &str)]) -> (Vec<String>, String) {
    let app = App::echo().await;
    let text = format!(
        "trusted_proxies: [{trusted}]\nroutes: [{{path: /*, proxy: '@app', auth: none}}]\n"
    );
    let gateway = Gateway::start(&config(&text, &[("app", &app.url())])).await;
    let mut wire = gateway.connect().await;
    let mut all = vec![("Host", "a.test:81")];
    all.extend(fields);
    assert_eq!(wire.get("/a", &all).await.status, 200);
    let seen = app.last();
    let names = [
        "x-forwarded-for",
        "x-real-ip",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-port",
        "forwarded",
    ];
    let fields = names.map(|name| seen.all(name).join(" | "));
    let client = gateway.record("/a").await["client"]
        .as_str()
        .unwrap()
        .to_owned();
    (fields.to_vec(), client)
}

#[tokio::test]
async fn an_app_hears_one_tale_of_its_client() {
    let own = ["127.0.0.1", "127.0.0.1", "http", "a.test:81", "81", ""];
    let stranger = told(
        "10.0.0.0/8",
        &[
            ("Forwarded", "for=6.6.6.6;proto=https;host=evil"),
            ("X-Forwarded-Proto", "https"),
            ("X-Real-IP", "6.6.6.6"),
        ],
    )
    .await;
    assert_eq!(
        stranger,
        (own.map(String::from).to_vec(), "127.0.0.1".into())
    );

    let edge = [
        "203.0.113.9, 127.0.0.1",
        "203.0.113.9",
        "https",
        "shop.example",
        "443",
        "",
    ];
    for fields in [
        &[(
            "Forwarded",
            "for=6.6.6.6, For=\"203.0.113.9:4711\";Proto=HTTPS;host=shop.example",
        )][..],
        &[
            ("X-Forwarded-For", "203.0.113.9"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "shop.example"),
            ("Forwarded", "for=6.6.6.6;proto=http;host=evil"),
            ("X-Real-IP", "6.6.6.6"),
        ],
    ] {
        let seen = told("127.0.0.1", fields).await;
        assert_eq!(
            seen,
            (edge.map(String::from).to_vec(), "203.0.113.9".into())
        );
    }
}

#[tokio::test]
async fn a_request_that_comes_back_is_508() {
    let port = free_port();
    // One hop lies between, as the configuration would not be good without it.
    let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = relay.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = relay.accept().await.unwrap();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                drop(copy_bidirectional(&mut client, &mut server).await);
            });
        }
    });
    let text = config(
        "listeners: [{address: '127.0.0.1:@port'}]
routes:
  - {path: /*, proxy: 'http://127.0.0.1:@other', auth: none}
  - {path: /asked, respond: {status: 200, body: in}, auth: none}
",
        &[("port", &port.to_string()), ("other", &other.to_string())],
    );
    let gateway = Gateway::start(&text).await;
    let mut wire = gateway.connect().await;
    // Nothing that a stranger writes hides the gateway's own id.
    let fields = [
        ("Connection", "cdn-loop, close"),
        ("CDN-Loop", "other.test"),
    ];
    wire.send(request("GET", "/a", &fields, "")).await;
    assert_eq!(wire.reply().await.status, 508);
    let records = eventually("both records", async || {
        Some(gateway.records()).filter(|records| records.len() >= 2)
    })
    .await;
    let loops = records.iter().filter(|it| it["reason"] == "loop_detected");
    assert_eq!((loops.count(), records.len()), (1, 2), "{records:?}");
    let mut h2 = H2::connect(gateway.address()).await;
    assert_eq!(h2.get("/a", &[]).await.status, 508);
    let mut other = Wire::connect(gateway.address()).await;
    assert_eq!(
        other
            .get("/a", &[("CDN-Loop", "portcullis-0123456789abcdef")])
            .await
            .status,
        508
    );
}

#[tokio::test]
async fn values_of_headers_say_what_a_request_is() {
    let app = App::echo().await;
    let text = "jwt: {own: {algorithms: [HS256], secret: '@secret'}}
trusted_proxies: [127.0.0.1]
defaults:
  headers: {request: {set: {X-Default: 'of {claim:sub}'}}}
routes:
  - path: /in
    proxy: '@app'
    auth: {jwt: own, optional: true}
    headers:
      request: {set: {X-Who: '{claim:sub}@{host}', X-From: '{client} {scheme} {{id}}', X-Id: '{id}'}}
      response: {set: {X-Id: '{id}', X-Client: '{client}'}}
  - {path: /open, proxy: '@app', auth: none}
";
    let secret = &key(Kind::Secret, 0).public;
    let values = [("app", app.url()), ("secret", secret.clone())];
    let values = values
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let gateway = Gateway::start(&config(text, &values)).await;
    let ask = async |path: &str, sub: Option<&str>| {
        let bearer = sub.map(|sub| format!("Bearer {}", token(json!({"sub": sub}))));
        let mut fields = vec![
            ("Host", "Shop.test:81"),
            ("X-Forwarded-For", "203.0.113.9"),
            ("X-Forwarded-Proto", "https"),
            ("X-Who", "evil"),
            ("X~Default", "evil"),
        ];
        fields.extend(bearer.as_deref().map(|bearer| ("Authorization", bearer)));
        gateway.connect().await.get(path, &fields).await
    };
    let reply = ask("/in", Some("alice")).await;
    let seen = app.last();
    assert_eq!(seen.all("x-who"), ["alice@shop.test"]);
    assert_eq!(seen.all("x-from"), ["203.0.113.9 https {id}"]);
    assert_eq!(seen.all("x-default"), ["of alice"]);
    assert_eq!(reply.field("x-id").map(str::to_owned), seen.field("x-id"));
    assert_eq!(reply.field("x-id").map(str::len), Some(16));
    assert_eq!(reply.field("x-client"), Some("203.0.113.9"));
    for path in ["/in", "/open"] {
        assert_eq!(ask(path, None).await.status, 200);
        let seen = app.last();
        assert_eq!(seen.field("x-default"), None, "{path}");
        // Of another route's headers a client may have its own.
        let own = (path == "/open").then(|| "evil".to_owned());
        assert_eq!(seen.field("x-who"), own, "{path}");
    }
    let reply = ask("/in", Some("a\r\nX-Admin: 1")).await;
    assert_eq!(reply.status, 403);
    assert_eq!(
        reply.field("x-client"),
        Some("203.0.113.9"),
        "refusals, too"
    );
}

#[test]
fn headers_that_cannot_be_said_are_configuration_errors() {
    for (headers, message) in [
        ("request: {set: {X-A: '{clientt}'}}", "is no placeholder"),
        ("request: {set: {X-A: '{\"a\": 1}'}}", "is no placeholder"),
        ("request: {set: {X-A: 'a}'}}", "a brace stands alone"),
        ("request: {set: {X-A: '{claim:sub}'}}", "no token"),
        (
            "response: {set: {X-A: '{claim:sub}'}}",
            "cannot carry a claim",
        ),
        (
            "request: {set: {Connection: close}}",
            "the gateway itself sets",
        ),
        (
            "request: {set: {Transfer_Encoding: chunked}}",
            "the gateway itself sets",
        ),
        ("response: {set: {Upgrade: h2c}}", "the gateway itself sets"),
        (
            "response: {set: {Content-Length: '5'}}",
            "the gateway itself sets",
        ),
    ] {
        let folder = Folder::new();
        let route = format!(
            "{{path: /*, proxy: 'http://127.0.0.1:9', auth: none, headers: {{{headers}}}}}"
        );
        folder.write("gateway.yaml", config(&format!("routes: [{route}]\n"), &[]));
        let output = run_to_end(&folder, &["check"], &[]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{headers}: {said}");
        assert!(said.contains(message), "{headers}: {said}");
    }
}

#[test]
fn no_configuration_takes_the_marks_from_requests_that_end_loops() {
    let refused = "a request that comes back with it is 508";
    for (headers, message) in [
        ("request: {remove: [CDN-Loop]}", Some(refused)),
        ("request: {remove: [Via, cdn_loop, Accept]}", Some(refused)),
        ("request: {set: {CDN-Loop: a}}", Some(refused)),
        ("request: {set: {Cdn.Loop: a}}", Some(refused)),
        ("response: {remove: [CDN-Loop]}", None),
        ("response: {set: {CDN-Loop: a}}", None),
        ("request: {remove: [CDN-Loops]}", None),
    ] {
        let route = "path: /*, proxy: 'http://127.0.0.1:9', auth: none";
        let headers = format!("headers: {{{headers}}}");
        for text in [
            format!("routes: [{{{route}, {headers}}}]\n"),
            format!("defaults: {{{headers}}}\nroutes: [{{{route}}}]\n"),
        ] {
            let folder = Folder::new();
            folder.write("gateway.yaml", config(&text, &[]));
            let output = run_to_end(&folder, &["check"], &[]);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let code = if message.is_some() { 2 } else { 0 };
            assert_eq!(output.status.code(), Some(code), "{text}: {said}");
            if let Some(message) = message {
                assert!(said.contains(message), "{text}: {said}");
            }
        }
    }
}
