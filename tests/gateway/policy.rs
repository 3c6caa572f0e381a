//! What a route does beside yes and no: it reports instead of refusing, ends what it opened, asks
//! another server, says how to get a token, and takes tokens back.

use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;

use super::support::{
    Answer, App, Folder, Gateway, H2, Kind, config, eventually, key, now, request, token, within,
};

const UPGRADE: &[(&str, &str)] = &[
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// A way to send a token: its name, the query and the fields.
type Way<'w> = (&'w str, &'w str, &'w [(&'w str, &'w str)]);

fn app_verifier() -> (&'static str, &'static str) {
    ("secret", &key(Kind::Secret, 0).public)
}

fn bearer(changes: serde_json::Value) -> String {
    format!("Bearer {}", token(changes))
}

#[tokio::test]
async fn a_route_that_only_reports_lets_pass_and_says_what_it_would_refuse() {
    let app = App::echo().await;
    let text = config(
        "jwt: {app: {algorithms: [HS256], secret: '@secret'}}\nroutes:\n  - path: /*\n    proxy: '@app'\n    auth: {jwt: app, enforce: report, require: {role: clerk}, forward: {X-User: sub, X-Name: name}}\n",
        &[app_verifier(), ("app", &app.url())],
    );
    let mut gateway = Gateway::start(&text).await;
    let good = bearer(json!({"role": "clerk"}));
    let poor = bearer(json!({}));
    let unfit = bearer(json!({"role": "clerk", "name": "a\nb"}));
    let expired = bearer(json!({"exp": now() - 60}));
    for (path, token, reported, user) in [
        ("/good", Some(&good), None, Some("u-1")),
        ("/none", None, Some("token_missing"), None),
        ("/poor", Some(&poor), Some("forbidden"), Some("u-1")),
        ("/unfit", Some(&unfit), Some("claim_unfit"), Some("u-1")),
        ("/expired", Some(&expired), Some("token_expired"), None),
    ] {
        let mut fields = vec![("X-User", "mallory"), ("X_User", "mallory")];
        fields.extend(token.map(|token| ("Authorization", token.as_str())));
        let reply = gateway.get(path, &fields).await;
        assert_eq!(reply.status, 200, "{path}");
        let seen = app.saw(path, |_| true).await;
        assert_eq!(seen.field("x-user").as_deref(), user, "{path}");
        assert_eq!(seen.field("x_user"), None, "{path}");
        let record = gateway.record(path).await;
        assert_eq!(record["would_refuse"].as_str(), reported, "{path}");
        assert_eq!(record["reason"].as_str(), None, "{path}");
    }
    gateway.signal(rustix::process::Signal::TERM);
    assert!(gateway.exit().await.success());
    let said = gateway.stderr();
    assert!(
        said.contains("enforce: report") && said.contains("count=4"),
        "{said}"
    );
    assert!(said.contains("remembered tokens"), "{said}");
}

#[tokio::test]
async fn a_websocket_carries_its_token_among_the_protocols() {
    let app = App::start(|_| Answer::Upgrade).await;
    let text = config(
        "jwt: {app: {algorithms: [HS256], secret: '@secret', from: [header, websocket]}}\nroutes:\n  - {path: /kept, proxy: '@app', auth: app}\n  - {path: /stripped, proxy: '@app', auth: {jwt: app, strip_token: true}}\n",
        &[app_verifier(), ("app", &app.url())],
    );
    let gateway = Gateway::start(&text).await;
    let token = token(json!({}));
    let offer = format!("chat, bearer, {token}");
    for (path, left) in [("/kept", offer.as_str()), ("/stripped", "chat")] {
        let mut wire = gateway.connect().await;
        let fields = [UPGRADE, &[("Sec-WebSocket-Protocol", &offer)]].concat();
        wire.send(request("GET", path, &fields, "")).await;
        let reply = wire.head().await;
        assert_eq!(reply.status, 101);
        // The app chose none; the browser waits for one.
        assert_eq!(reply.field("sec-websocket-protocol"), Some("bearer"));
        let seen = app.saw(path, |_| true).await;
        assert_eq!(seen.field("sec-websocket-protocol").as_deref(), Some(left));
        wire.send("ping").await;
        assert_eq!(wire.take(4).await, b"ping");
    }
    let forged = format!("bearer, {}x", token);
    let mut wire = gateway.connect().await;
    let fields = [UPGRADE, &[("Sec-WebSocket-Protocol", &forged)]].concat();
    wire.send(request("GET", "/kept", &fields, "")).await;
    assert_eq!(wire.reply().await.status, 401);
    let both = bearer(json!({"sub": "other"}));
    let mut wire = gateway.connect().await;
    let fields = [
        UPGRADE,
        &[("Sec-WebSocket-Protocol", &offer), ("Authorization", &both)],
    ]
    .concat();
    wire.send(request("GET", "/kept", &fields, "")).await;
    assert_eq!(wire.reply().await.status, 400);
}

#[tokio::test]
async fn a_tunnel_and_a_stream_end_with_their_token_where_the_route_says_so() {
    let sockets = App::start(|_| Answer::Upgrade).await;
    let events = App::start(|_| {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            let mut next = head.to_owned();
            while sender.send(next.into_bytes()).await.is_ok() {
                next = "6\r\ntick\n\n\r\n".to_owned();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        Answer::Stream(receiver)
    })
    .await;
    let text = config(
        "jwt: {app: {algorithms: [HS256], secret: '@secret', leeway: 1s}}\nroutes:\n  - {path: /socket/close, proxy: '@sockets', auth: {jwt: app, on_expiry: close}}\n  - {path: /socket/keep, proxy: '@sockets', auth: {jwt: app, on_expiry: keep}}\n  - {path: /events/close, proxy: '@events', auth: {jwt: app, on_expiry: close}}\n  - {path: /events/keep, proxy: '@events', auth: app}\n",
        &[
            app_verifier(),
            ("sockets", &sockets.url()),
            ("events", &events.url()),
        ],
    );
    let gateway = Gateway::start(&text).await;
    let token = bearer(json!({"exp": now() + 2}));
    let open = async |path: &str, fields: &[(&str, &str)]| {
        let mut wire = gateway.connect().await;
        let fields = [fields, &[("Authorization", &token)]].concat();
        wire.send(request("GET", path, &fields, "")).await;
        let status = wire.head().await.status;
        (wire, status)
    };
    let (mut closing, status) = open("/socket/close", UPGRADE).await;
    assert_eq!(status, 101);
    let (mut kept, status) = open("/socket/keep", UPGRADE).await;
    assert_eq!(status, 101);
    let (mut ending, status) = open("/events/close", &[]).await;
    assert_eq!(status, 200);
    let (mut going_on, status) = open("/events/keep", &[]).await;
    assert_eq!(status, 200);
    closing.send("ping").await;
    assert_eq!(closing.take(4).await, b"ping");

    let time = Duration::from_secs(8);
    assert!(within(time, closing.closed()).await.is_some());
    assert!(within(time, ending.rest()).await.is_some());
    for path in ["/socket/close", "/events/close"] {
        assert_eq!(
            gateway.record(path).await["reason"],
            "token_expired",
            "{path}"
        );
    }
    kept.send("pong").await;
    assert_eq!(kept.take(4).await, b"pong");
    assert!(going_on.chunk().await.is_some());
}

#[tokio::test]
async fn what_a_revoked_token_opened_ends_where_the_route_says_so() {
    let sockets = App::start(|_| Answer::Upgrade).await;
    let events = App::start(|_| {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n6\r\ntick\n\n\r\n";
            // Silent after the first.
            sender.send(head.into()).await.ok();
            sender.closed().await;
        });
        Answer::Stream(receiver)
    })
    .await;
    let text = config(
        "jwt: {app: {algorithms: [HS256], secret: '@secret', require_exp: false, revoked: revoked.yaml}}\nroutes:\n  - {path: /socket/*, proxy: '@sockets', auth: {jwt: app, on_expiry: close}}\n  - {path: /events/*, proxy: '@events', auth: {jwt: app, on_expiry: close}}\n  - {path: /kept/*, proxy: '@sockets', auth: app}\n",
        &[
            app_verifier(),
            ("sockets", &sockets.url()),
            ("events", &events.url()),
        ],
    );
    let folder = Folder::new();
    folder.write("revoked.yaml", "[]\n");
    let gateway = Gateway::start_in(folder, &text).await;
    // Remembered or not, with an expiry or without.
    let tokens = [
        bearer(json!({"sub": "mallory"})),
        bearer(json!({"sub": "mallory", "exp": null})),
        bearer(json!({"sub": "alice"})),
    ];
    let open = async |path: &str, fields: &[(&str, &str)], token: &str| {
        let mut wire = gateway.connect().await;
        let fields = [fields, &[("Authorization", token)]].concat();
        wire.send(request("GET", path, &fields, "")).await;
        let status = wire.head().await.status;
        assert_eq!(
            status,
            if path.starts_with("/events") {
                200
            } else {
                101
            }
        );
        wire
    };
    let (mut ending, mut going_on) = (Vec::new(), Vec::new());
    for (at, token) in tokens.iter().enumerate() {
        for (kind, fields) in [("socket", UPGRADE), ("events", &[])] {
            let path = format!("/{kind}/{at}");
            let wire = open(&path, fields, token).await;
            if at == 2 {
                going_on.push((path, wire));
            } else {
                ending.push((path, wire));
            }
        }
    }
    let kept = open("/kept/0", UPGRADE, &tokens[0]).await;
    going_on.push(("/kept/0".to_owned(), kept));
    let mut h2 = H2::connect(gateway.address()).await;
    let over_h2 = {
        let token = tokens[0].clone();
        // It panics where the response breaks off.
        tokio::spawn(async move { h2.get("/events/h2", &[("Authorization", &token)]).await })
    };
    events.saw("/events/h2", |_| true).await;

    let before = gateway.reloads();
    gateway.folder.write("revoked.yaml", "[{sub: mallory}]\n");
    gateway.reloaded_after(before).await;
    let time = Duration::from_secs(9);
    for (path, wire) in &mut ending {
        assert!(within(time, wire.rest()).await.is_some(), "{path}");
        assert_eq!(
            gateway.record(path).await["reason"],
            "token_revoked",
            "{path}"
        );
    }
    let broken = within(time, over_h2).await.unwrap();
    assert!(broken.is_err_and(|error| error.is_panic()));
    assert_eq!(
        gateway.record("/events/h2").await["reason"],
        "token_revoked"
    );
    for (path, wire) in &mut going_on {
        if path.starts_with("/events") {
            assert!(
                within(Duration::from_millis(100), wire.rest())
                    .await
                    .is_none()
            );
        } else {
            wire.send("pong").await;
            assert_eq!(wire.take(4).await, b"pong", "{path}");
        }
    }
}

#[tokio::test]
async fn the_server_that_is_asked_and_the_files_mean_one_path() {
    let folder = Folder::new();
    folder.write("media/ada/a.txt", "ada's");
    folder.write("media/bob/b.txt", "bob's");
    // As an app would compare it.
    let decider = App::start(|seen| {
        let uri = seen.field("x-original-uri").unwrap_or_default();
        let status = if uri.starts_with("/media/ada/") {
            204
        } else {
            403
        };
        Answer::Raw(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").into_bytes())
    })
    .await;
    let text = "routes: [{path: '/media/*', static: media, auth: {ask: '@decider/may'}}]\n";
    let gateway = Gateway::start_in(folder, &config(text, &[("decider", &decider.url())])).await;
    for (path, status) in [
        ("/media/ada/a.txt", 200),
        ("/media/bob/b.txt", 403),
        ("/media/ada/../bob/b.txt", 400),
        ("/media/ada/%2e%2e/bob/b.txt", 400),
        ("/media/ada//../../bob/b.txt", 400),
        ("/media/ada/..%2fbob/b.txt", 400),
        ("/media/ada/;/../../bob/b.txt", 400),
        ("/media//ada/a.txt", 400),
    ] {
        let asked = decider.requests();
        assert_eq!(gateway.get(path, &[]).await.status, status, "{path}");
        let mut h2 = H2::connect(gateway.address()).await;
        assert_eq!(h2.get(path, &[]).await.status, status, "{path} over HTTP/2");
        if status == 400 {
            assert_eq!(decider.requests(), asked, "{path}");
        }
    }
}

#[tokio::test]
async fn another_server_on_a_unix_socket_is_asked_for_its_path() {
    let folder = Folder::new();
    let socket = folder.path("decider.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 4096];
        let length = tokio::io::AsyncReadExt::read(&mut stream, &mut head)
            .await
            .unwrap();
        let reply = b"HTTP/1.1 204 No Content\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut stream, reply)
            .await
            .unwrap();
        String::from_utf8_lossy(&head[..length])
            .lines()
            .next()
            .unwrap()
            .to_owned()
    });
    let app = App::echo().await;
    let text = "routes: [{path: /*, proxy: '@app', auth: {ask: 'unix:decider.sock:/may?x=1'}}]\n";
    let gateway = Gateway::start_in(folder, &config(text, &[("app", &app.url())])).await;
    assert_eq!(gateway.get("/a", &[]).await.status, 200);
    assert_eq!(asked.await.unwrap(), "GET /may?x=1 HTTP/1.1");
}

#[tokio::test]
async fn another_server_decides_where_the_route_asks_it() {
    let app = App::echo().await;
    let answer = |status: &str, fields: &str, body: &str| {
        let length = body.len();
        Answer::Raw(
            format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{fields}\r\n{body}")
                .into_bytes(),
        )
    };
    let decider = App::start(move |seen| match seen.field("x-want").as_deref() {
        Some("yes") => answer("200 OK", "X-User: alice\r\nX-Secret: no\r\n", "take this"),
        Some("nobody") => answer("204 No Content", "", ""),
        Some("401") => answer(
            "401 Unauthorized",
            "WWW-Authenticate: Basic realm=\"x\"\r\n",
            "who?",
        ),
        Some("403") => answer("403 Forbidden", "Content-Type: text/plain\r\n", "not you"),
        Some("302") => answer("302 Found", "Location: /login\r\n", ""),
        Some("500") => answer("500 Internal Server Error", "", "oops"),
        Some("twice") => answer("200 OK", "X-User: alice\r\nX-User: bob\r\n", ""),
        Some("close") => Answer::Close,
        _ => Answer::Silent,
    })
    .await;
    let text = config(
        "routes:\n  - {path: /*, proxy: '@app', auth: {ask: '@decider/verify?x=1', copy: [X-User]}}\n  - {path: /open, proxy: '@app', auth: none}\n",
        &[("app", &app.url()), ("decider", &decider.url())],
    );
    let gateway = Gateway::start(&text).await;
    let ask = async |path: &str, want: &str| {
        let fields = [
            ("X-Want", want),
            ("X-User", "mallory"),
            ("X_User", "mallory"),
            ("X-Original-URI", "/forged"),
            ("X_Original_URI", "/forged"),
            ("X-Original_Method", "HEAD"),
            ("Cookie", "session=7"),
            ("Range", "bytes=0-0"),
        ];
        let mut wire = gateway.connect().await;
        wire.send(request("POST", path, &fields, "body")).await;
        wire.reply().await
    };
    assert_eq!(ask("/a/b?q=%20", "yes").await.status, 200);
    let asked = decider.last();
    assert_eq!(asked.line(), "GET /verify?x=1 HTTP/1.1");
    for (name, value) in [
        ("x-original-method", Some("POST")),
        ("x-original-uri", Some("/a/b?q=%20")),
        ("cookie", Some("session=7")),
        ("x-user", None),
        ("x_user", None),
        ("x_original_uri", None),
        ("x-original_method", None),
        ("content-length", None),
        ("range", None),
        ("x-forwarded-for", Some("127.0.0.1")),
    ] {
        assert_eq!(asked.field(name).as_deref(), value, "{name}");
    }
    assert!(asked.body.is_empty());
    let seen = app.saw("/a/b?q=%20", |_| true).await;
    assert_eq!(seen.all("x-user"), ["alice"]);
    assert_eq!((seen.field("x-secret"), seen.field("x_user")), (None, None));
    assert_eq!(seen.body, b"body");

    // The server that is asked reads the bytes that the app will be asked for.
    for raw in [
        "/public/../a/b",
        "//a/b",
        "/%61/b%2fc;d?e=%2f",
        "/x/..//a/./b",
    ] {
        assert_eq!(ask(raw, "yes").await.status, 200);
        assert_eq!(decider.last().all("x-original-uri"), [raw]);
        assert_eq!(app.last().target(), raw);
    }
    assert_eq!(ask("http://gateway.test?x", "yes").await.status, 200);
    assert_eq!(decider.last().all("x-original-uri"), ["/?x"]);

    assert_eq!(ask("/nobody", "nobody").await.status, 200);
    assert_eq!(app.saw("/nobody", |_| true).await.field("x-user"), None);

    let reply = ask("/401", "401").await;
    assert_eq!((reply.status, reply.text().as_str()), (401, "who?"));
    assert_eq!(reply.field("www-authenticate"), Some("Basic realm=\"x\""));
    assert_eq!(gateway.record("/401").await["reason"], "asked_and_denied");
    let reply = ask("/403", "403").await;
    assert_eq!((reply.status, reply.text().as_str()), (403, "not you"));
    for want in ["302", "500", "twice", "close"] {
        let path = format!("/{want}");
        let reply = ask(&path, want).await;
        assert_eq!(reply.status, 503, "{want}");
        assert_eq!(gateway.record(&path).await["reason"], "ask_failed");
    }
    let start = std::time::Instant::now();
    assert_eq!(ask("/silent", "silent").await.status, 503);
    assert!(start.elapsed() < Duration::from_secs(10));
    decider.stop().await;
    assert_eq!(ask("/gone", "yes").await.status, 503);
    // What it would say is nobody else's to say.
    let open = ask("/open", "yes").await;
    assert_eq!(open.status, 200);
    let seen = app.saw("/open", |_| true).await;
    assert_eq!((seen.field("x-user"), seen.field("x_user")), (None, None));
    let asked_for: Vec<String> = app
        .seen()
        .iter()
        .map(|seen| seen.target().to_owned())
        .collect();
    let expected = [
        "/a/b?q=%20",
        "/public/../a/b",
        "//a/b",
        "/%61/b%2fc;d?e=%2f",
        "/x/..//a/./b",
        "/?x",
        "/nobody",
        "/open",
    ];
    assert_eq!(asked_for, expected);
}

#[tokio::test]
async fn a_server_that_is_asked_may_change_the_credentials_of_its_own_route() {
    let app = App::echo().await;
    let decider = App::start(|seen| {
        let fields = match seen.field("authorization").as_deref() {
            Some("Bearer opaque") => "Authorization: Bearer exchanged\r\n",
            _ => "",
        };
        Answer::Raw(format!("HTTP/1.1 204 No Content\r\n{fields}\r\n").into_bytes())
    })
    .await;
    let text = config(
        "routes:\n  - {path: /asked, proxy: '@app', auth: {ask: '@decider', copy: [Authorization]}}\n  - {path: /open, proxy: '@app', auth: none}\n",
        &[("app", &app.url()), ("decider", &decider.url())],
    );
    let gateway = Gateway::start(&text).await;
    for (path, sent, seen) in [
        ("/asked", "Bearer opaque", Some("Bearer exchanged")),
        // What the server did not answer, the app does not see.
        ("/asked?2", "Bearer other", None),
        ("/open", "Bearer own", Some("Bearer own")),
    ] {
        assert_eq!(
            gateway.get(path, &[("Authorization", sent)]).await.status,
            200
        );
        let at_app = app.saw(path, |_| true).await;
        assert_eq!(at_app.field("authorization").as_deref(), seen, "{path}");
    }
    for name in [
        "Host",
        "Connection",
        "Content-Length",
        "X-Forwarded-For",
        "X-Request-Id",
    ] {
        for auth in [
            format!("{{ask: '@decider', copy: [{name}]}}"),
            format!("{{jwt: app, forward: {{{name}: sub}}}}"),
        ] {
            let text = format!(
                "jwt: {{app: {{algorithms: [HS256], secret: '@secret'}}}}\nroutes: [{{path: /a, proxy: '@app', auth: {auth}}}]\n"
            );
            let values = [
                app_verifier(),
                ("app", &app.url()),
                ("decider", &decider.url()),
            ];
            let folder = Folder::new();
            folder.write("gateway.yaml", config(&text, &values));
            let output = super::support::run_to_end(&folder, &["check"], &[]);
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(said.contains("the gateway itself sets"), "{name}: {said}");
        }
    }
}

#[tokio::test]
async fn a_client_of_grpc_that_is_denied_reads_a_status_of_grpc() {
    let app = App::echo().await;
    let decider = App::start(|_| {
        Answer::Raw(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno".to_vec())
    })
    .await;
    let text = config(
        "routes: [{path: /*, proxy: '@app', auth: {ask: '@decider'}}]\n",
        &[("app", &app.url()), ("decider", &decider.url())],
    );
    let gateway = Gateway::start(&text).await;
    let fields = [("content-type", "application/grpc")];
    let mut h2 = H2::connect(gateway.address()).await;
    let body = http_body_util::Full::<bytes::Bytes>::default();
    let reply = h2.send("POST", "/a", &fields, body).await;
    assert_eq!((reply.status, reply.field("grpc-status")), (200, Some("7")));
    assert_eq!(reply.field("cache-control"), Some("no-store"));
    // Over HTTP/1.1 there is no gRPC: the decider's own answer comes.
    let reply = gateway.get("/b", &fields).await;
    assert_eq!((reply.status, reply.text().as_str()), (403, "no"));
    assert_eq!(reply.field("cache-control"), Some("no-store"));
    assert_eq!(gateway.record("/a").await["reason"], "asked_and_denied");
}

#[tokio::test]
async fn a_client_without_a_token_is_told_where_to_get_one() {
    let app = App::echo().await;
    let text = config(
        "jwt:\n  sso: {algorithms: [ES256], keys: [sso.pem], issuer: 'https://sso.example.com'}\n  app: {algorithms: [HS256], secret: '@secret', issuer: app}\n  \
         django: {algorithms: [HS256], secret: '@secret', issuer: 'https://www.example.com'}\n\
         tokens: {keys: keys/, users: users.yaml, issuer: 'https://www.example.com'}\nstate: data/\n\
         trusted_proxies: [127.0.0.2/32]\n\
         routes:\n  - {path: /api/*, proxy: '@app', auth: {jwt: [tokens, sso, app], require: {scope: [read, write]}}}\n  \
         - {path: /own/*, proxy: '@app', auth: app}\n  - {path: /issued/*, proxy: '@app', auth: tokens}\n  - {path: /shared/*, proxy: '@app', auth: django}\n  - {path: /*, proxy: '@app', auth: none}\n",
        &[app_verifier(), ("app", &app.url())],
    );
    let folder = Folder::new();
    folder.write("sso.pem", &key(Kind::P256, 0).public);
    folder.write("users.yaml", "{}\n");
    let gateway = Gateway::start_in(folder, &text).await;
    let reply = gateway.get("/api/users/7?x=1", &[]).await;
    assert_eq!(reply.status, 401);
    let url = String::from("http://gateway.test/.well-known/oauth-protected-resource/api/users/7");
    assert_eq!(
        reply.field("www-authenticate"),
        Some(format!("Bearer realm=\"tokens\", resource_metadata=\"{url}\"").as_str())
    );
    let path = "/.well-known/oauth-protected-resource/api/users/7";
    let reply = gateway.get(path, &[]).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.field("content-type"), Some("application/json"));
    let document: serde_json::Value = serde_json::from_str(&reply.text()).unwrap();
    assert_eq!(
        document,
        json!({
            "resource": "http://gateway.test/api/users/7",
            "authorization_servers": ["https://sso.example.com"],
            "bearer_methods_supported": ["header"],
            "scopes_supported": ["read", "write"],
        })
    );
    // An issuer that is no URL, an app that signs with a shared secret and the gateway's own service are no
    // authorization servers.
    for (path, realm) in [
        ("/own/a", "app"),
        ("/shared/a", "django"),
        ("/issued/a", "tokens"),
    ] {
        let reply = gateway.get(path, &[]).await;
        let alone = format!("Bearer realm=\"{realm}\"");
        assert_eq!(reply.field("www-authenticate"), Some(&*alone));
    }
    for path in [
        "/own/a",
        "/shared/a",
        "/issued/a",
        "",
        "/",
        "/api/..%2f",
        "/other",
    ] {
        let path = format!("/.well-known/oauth-protected-resource{path}");
        let status = gateway.get(&path, &[]).await.status;
        assert!(status == 404 || status == 400, "{path}: {status}");
    }
    for (method, status) in [("POST", 405), ("OPTIONS", 204)] {
        let mut wire = gateway.connect().await;
        wire.send(request(method, path, &[], "")).await;
        assert_eq!(wire.reply().await.status, status, "{method}");
    }
    assert_eq!(app.requests(), 0);

    // An app that says it itself goes on.
    let own = text.replace("/own/*", "/.well-known/*");
    gateway.reconfigure(&own).await;
    let token = bearer(json!({"iss": "app"}));
    assert_eq!(
        gateway.get(path, &[("Authorization", &token)]).await.status,
        200
    );
    assert_eq!(app.last().target(), path);
}

#[tokio::test]
async fn what_a_token_or_another_server_opened_is_private_unless_the_app_says_otherwise() {
    let app = App::start(|seen| {
        let path = seen.target().split('?').next().unwrap_or_default();
        let (status, more) = match path {
            "/app/cached" => ("200 OK", "Cache-Control: max-age=60\r\n"),
            "/app/public" => ("200 OK", "Cache-Control: public\r\n"),
            "/app/moved" => ("302 Found", "Location: /\r\n"),
            "/app/missing" => ("404 Not Found", ""),
            _ => ("200 OK", ""),
        };
        Answer::Raw(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n{more}\r\n").into())
    })
    .await;
    let asked = App::echo().await;
    let folder = Folder::new();
    for (name, text) in [("files/a.txt", "abc"), ("files/index.html", "<p>")] {
        folder.write(name, text);
    }
    let text = config(
        "jwt: {app: {algorithms: [HS256], secret: '@secret', from: [header, cookie:t, query:t]}}\nroutes:\n  - {path: /in, respond: {body: in}, auth: app}\n  - {path: /set, respond: {body: in}, auth: app, headers: {response: {set: {Cache-Control: no-store}}}}\n  - {path: /app/*, proxy: '@app', auth: {jwt: app, optional: true}}\n  - {path: /asked/*, proxy: '@app', auth: {ask: '@asked'}}\n  - {path: /old, redirect: {to: /new}, auth: app}\n  - {path: /files/*, static: {root: files}, auth: app}\n  - {path: /aged/*, static: {root: files, cache_control: max-age=60}, auth: app}\n  - {path: /given/*, static: {root: files, cache_control: 'public, max-age=60'}, auth: app}\n  - {path: /open/*, static: {root: files, cache_control: max-age=60}, auth: none}\n",
        &[app_verifier(), ("app", &app.url()), ("asked", &asked.url())],
    );
    let gateway = Gateway::start_in(folder, &text).await;
    let token = token(json!({}));
    let (bearer, cookie) = (format!("Bearer {token}"), format!("t={token}"));
    let ways: [Way<'_>; 3] = [
        ("header", "", &[("Authorization", &bearer)]),
        ("cookie", "", &[("Cookie", &cookie)]),
        ("query", &format!("?t={token}"), &[]),
    ];
    for (path, expected) in [
        ("/in", Some("private")),
        ("/set", Some("no-store")),
        ("/app/plain", Some("private")),
        ("/app/cached", Some("max-age=60")),
        ("/app/public", Some("public")),
        ("/app/moved", Some("private")),
        ("/app/missing", Some("private")),
        ("/asked/plain", Some("private")),
        ("/old", Some("private")),
        ("/files/a.txt", Some("private, no-cache")),
        ("/files/", Some("private, no-cache")),
        ("/files", Some("private")),
        ("/aged/a.txt", Some("private, max-age=60")),
        ("/given/a.txt", Some("public, max-age=60")),
        ("/open/a.txt", Some("max-age=60")),
    ] {
        for (way, query, fields) in ways {
            let target = format!("{path}{query}");
            let mut h2 = H2::connect(gateway.address()).await;
            for reply in [
                gateway.get(&target, fields).await,
                h2.get(&target, fields).await,
            ] {
                let said = reply.all("cache-control");
                let expected: Vec<_> = expected.into_iter().collect();
                assert_eq!(said, expected, "{path} by {way}: {}", reply.status);
            }
        }
    }
    // Nobody is known: the answer is for everybody.
    let open = gateway.get("/app/plain", &[]).await;
    assert_eq!((open.status, open.field("cache-control")), (200, None));
    // Parts of a file, and that it is as it was.
    let whole = gateway.get("/files/a.txt", ways[0].2).await;
    let etag = whole.field("etag").unwrap();
    for (field, status) in [
        (("Range", "bytes=0-0"), 206),
        (("If-None-Match", etag), 304),
    ] {
        let reply = gateway.get("/files/a.txt", &[ways[0].2[0], field]).await;
        let seen = (reply.status, reply.field("cache-control"));
        assert_eq!(seen, (status, Some("private, no-cache")));
    }
}

#[tokio::test]
async fn tokens_are_taken_back_at_once() {
    let text = config(
        "jwt: {app: {algorithms: [HS256], secret: '@secret', revoked: revoked.yaml}}\nroutes: [{path: /in, respond: {body: in}, auth: app}]\n",
        &[app_verifier()],
    );
    let folder = Folder::new();
    folder.write("revoked.yaml", "[]\n");
    let gateway = Gateway::start_in(folder, &text).await;
    let alice = bearer(json!({"sub": "alice", "jti": "a1"}));
    let other = bearer(json!({"sub": "alice", "jti": "a2"}));
    let bob = bearer(json!({"sub": "bob"}));
    let status = async |token: &str| {
        let reply = gateway.get("/in", &[("Authorization", token)]).await;
        let said = reply
            .field("www-authenticate")
            .unwrap_or_default()
            .contains("was revoked");
        assert_eq!(said, reply.status == 401);
        reply.status
    };
    // Remembered from here on.
    for token in [&alice, &other, &bob] {
        assert_eq!(status(token).await, 200);
    }
    let revoke = async |list: &str| {
        let before = gateway.reloads();
        gateway.folder.write("revoked.yaml", list);
        gateway.reloaded_after(before).await;
    };
    revoke("- jti: a1\n").await;
    assert_eq!(
        (
            status(&alice).await,
            status(&other).await,
            status(&bob).await
        ),
        (401, 200, 200)
    );
    revoke("[{sub: alice}]").await;
    assert_eq!(
        (
            status(&alice).await,
            status(&other).await,
            status(&bob).await
        ),
        (401, 401, 200)
    );
    revoke("[{sub: bob, before: 2100-01-01T00:00:00+02:00}, {sub: alice, before: 2020-01-01T00:00:00Z}]").await;
    assert_eq!(
        (
            status(&alice).await,
            status(&other).await,
            status(&bob).await
        ),
        (200, 200, 401)
    );

    // A list that cannot be read takes nothing back that it did not, and gives nothing free.
    for (broken, said) in [
        ("", "empty"),
        (
            "- {sub: alice, before: yesterday}\n",
            "2026-11-23T12:00:00Z",
        ),
        ("- {jti: a, sub: b}\n", "which tokens are meant"),
        (
            "- {before: 2026-11-23T12:00:00Z}\n",
            "which tokens are meant",
        ),
        ("- alice\n", "expected"),
        ("[{sub: bob", "expected"),
    ] {
        gateway.folder.write("revoked.yaml", broken);
        eventually("the refusal", async || {
            let log = gateway.stderr();
            let last = log
                .rsplit("configuration refused")
                .next()
                .unwrap_or_default();
            (last.contains("revoked.yaml") && last.contains(said)).then_some(())
        })
        .await;
        assert_eq!(status(&bob).await, 401, "{broken}");
    }
    revoke("[]").await;
    assert_eq!(status(&bob).await, 200);
}
