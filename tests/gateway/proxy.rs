//! What a forwarded request and its response look like on the other side.

use super::support::{Answer, App, Folder, Gateway, H2, Wire, config, eventually, request};

async fn in_front_of(app: &App, more: &str) -> Gateway {
    let text = format!("{more}routes: [{{path: /*, proxy: '@app', auth: none}}]\n");
    Gateway::start(&config(&text, &[("app", &app.url())])).await
}

#[tokio::test]
async fn method_target_body_and_host_go_through_as_they_came() {
    let app = App::echo().await;
    let gateway = in_front_of(&app, "").await;
    let mut wire = gateway.connect().await;
    let fields = [
        ("Host", "Shop.example:8080"),
        ("X-Mine", "1"),
        ("X-Mine", "2"),
    ];
    wire.send(request("PATCH", "/a/%C3%A9?q=%20&&r", &fields, "body"))
        .await;
    let reply = wire.reply().await;

    assert_eq!(reply.status, 200);
    let seen = app.last();
    assert_eq!(seen.line(), "PATCH /a/%C3%A9?q=%20&&r HTTP/1.1");
    assert_eq!(seen.all("host"), ["Shop.example:8080"]);
    assert_eq!(seen.all("x-mine"), ["1", "2"]);
    assert_eq!(seen.all("content-length"), ["4"]);
    assert_eq!(seen.body, b"body");
}

#[tokio::test]
async fn an_http2_request_reaches_the_app_as_http1() {
    let app = App::echo().await;
    let gateway = in_front_of(&app, "").await;
    let mut client = H2::connect(gateway.address()).await;
    let body = http_body_util::Full::new(bytes::Bytes::from("body"));
    let reply = client
        .send(
            "POST",
            "/a?b",
            &[("cookie", "a=1"), ("cookie", "b=2")],
            body,
        )
        .await;

    assert_eq!(reply.status, 200);
    let seen = app.last();
    assert_eq!(seen.line(), "POST /a?b HTTP/1.1");
    assert_eq!(seen.all("host"), ["gateway.test"]);
    assert_eq!(
        seen.all("cookie"),
        ["a=1; b=2"],
        "one line, as RFC 9113 section 8.2.3 wants it"
    );
    assert_eq!(seen.body, b"body");
}

#[tokio::test]
async fn fields_of_one_connection_stop_at_the_gateway() {
    let app = App::start(|_| {
        let answer = "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Inner\r\nConnection: X-Other\r\n\
            X-Inner: 1\r\nX-Other: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: close\r\n\
            X-Outer: 1\r\nContent-Length: 2\r\n\r\nok";
        Answer::Raw(answer.into())
    })
    .await;
    let gateway = in_front_of(&app, "").await;
    let fields = [
        ("Connection", "keep-alive, X-First"),
        ("Connection", " x-second ,close-not"),
        ("X-First", "1"),
        ("X-Second", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authorization", "Basic dTpw"),
        ("TE", "gzip"),
        ("X-Stays", "1"),
    ];
    let reply = gateway.get("/", &fields).await;

    let seen = app.last();
    for gone in [
        "x-first",
        "x-second",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
    ] {
        assert_eq!(seen.field(gone), None, "{gone}");
    }
    assert!(!seen.field("te").unwrap_or_default().contains("gzip"));
    assert!(!seen.field("connection").unwrap_or_default().contains("x-"));
    assert_eq!(seen.all("x-stays"), ["1"]);
    for gone in ["x-inner", "x-other", "keep-alive", "proxy-connection"] {
        assert_eq!(reply.field(gone), None, "{gone}");
    }
    assert_eq!(reply.field("x-outer"), Some("1"));
}

#[tokio::test]
async fn a_client_cannot_strike_what_the_gateway_sets() {
    let app = App::echo().await;
    let gateway = in_front_of(&app, "").await;
    let names = "x-forwarded-for, x-forwarded-proto, x-forwarded-host, host, content-length";
    let mut wire = gateway.connect().await;
    wire.send(request("POST", "/", &[("Connection", names)], "body"))
        .await;

    assert_eq!(wire.reply().await.status, 200);
    let seen = app.last();
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["http"]);
    assert_eq!(seen.all("host"), ["gateway.test"]);
    assert_eq!(seen.body, b"body");
}

const FORWARDED: &[(&str, &str)] = &[
    ("X-Forwarded-For", "203.0.113.7, 198.51.100.9"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "outer.test"),
    ("X-Forwarded-Port", "8443"),
    ("X_Forwarded_For", "203.0.113.66"),
];

#[tokio::test]
async fn what_a_stranger_says_about_the_client_is_replaced() {
    let app = App::echo().await;
    let gateway = in_front_of(&app, "").await;
    assert_eq!(gateway.get("/a", FORWARDED).await.status, 200);

    let seen = app.last();
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["http"]);
    assert_eq!(seen.all("x-forwarded-host"), ["gateway.test"]);
    assert_eq!(seen.all("x-forwarded-port"), ["80"], "not the listener's");
    assert!(!seen.head.contains("203.0.113"), "{}", seen.head);
    assert_eq!(gateway.record("/a").await["client"], "127.0.0.1");
}

#[tokio::test]
async fn what_a_trusted_proxy_says_about_the_client_is_kept_and_appended_to() {
    let app = App::echo().await;
    let gateway = in_front_of(&app, "trusted_proxies: [127.0.0.0/8]\n").await;
    assert_eq!(gateway.get("/a", FORWARDED).await.status, 200);

    let seen = app.last();
    let chain = seen.field("x-forwarded-for").unwrap();
    assert_eq!(chain, "203.0.113.7, 198.51.100.9, 127.0.0.1");
    assert_eq!(seen.all("x-forwarded-proto"), ["https"]);
    assert_eq!(seen.all("x-forwarded-host"), ["outer.test"]);
    assert_eq!(seen.all("x-forwarded-port"), ["8443"]);
    assert!(!seen.head.contains("203.0.113.66"), "{}", seen.head);
    assert_eq!(gateway.record("/a").await["client"], "198.51.100.9");
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    let app = App::start(|seen| match seen.target() {
        "/204" => Answer::Raw(b"HTTP/1.1 204 No Content\r\n\r\n".into()),
        "/304" => Answer::Raw(b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n".into()),
        _ => Answer::Ok("a body"),
    })
    .await;
    let gateway = in_front_of(&app, "").await;
    let mut wire = gateway.connect().await;
    assert_eq!(wire.get("/204", &[]).await.status, 204);
    assert_eq!(wire.get("/304", &[]).await.field("etag"), Some("\"a\""));
    wire.send(request("HEAD", "/head", &[], "")).await;
    assert_eq!(wire.head().await.field("content-length"), Some("6"));
    assert_eq!(wire.get("/get", &[]).await.text(), "a body");
}

#[tokio::test]
async fn connections_to_the_app_are_kept_and_used_again() {
    let app = App::echo().await;
    let gateway = in_front_of(&app, "workers: 1\n").await;
    for _ in 0..20 {
        assert_eq!(gateway.get("/", &[]).await.status, 200);
    }
    assert!(
        app.connections() <= 2,
        "{} connections for 20 requests",
        app.connections()
    );
}

#[tokio::test]
async fn an_old_client_gets_a_body_that_it_can_read() {
    let app = App::start(|_| {
        let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n";
        Answer::Raw(answer.into())
    })
    .await;
    let gateway = in_front_of(&app, "").await;
    let mut wire = gateway.connect().await;
    wire.send("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n").await;
    let reply = wire.reply().await;

    assert_eq!(reply.field("transfer-encoding"), None);
    assert_eq!(reply.text(), "body");
}

#[tokio::test]
async fn a_client_that_expects_100_gets_it_before_its_body_is_due() {
    let app = App::start(|_| Answer::EchoBody).await;
    let gateway = in_front_of(&app, "").await;
    let mut wire = gateway.connect().await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        .await;

    assert_eq!(wire.head().await.status, 100);
    wire.send("body").await;
    assert_eq!(wire.reply().await.text(), "body");
}

#[tokio::test]
async fn an_app_may_listen_on_a_unix_socket() {
    let folder = Folder::new();
    let app = App::start_unix(&folder.path("app.sock"), |_| Answer::Echo);
    let text = config(
        "upstreams: {app: {servers: ['unix:@path']}}\nroutes: [{path: /*, proxy: app, auth: none}]\n",
        &[("path", folder.path("app.sock").to_str().unwrap())],
    );
    let gateway = Gateway::start_in(folder, &text).await;

    assert_eq!(gateway.get("/over/unix", &[]).await.status, 200);
    assert_eq!(app.last().target(), "/over/unix");
    assert_eq!(app.last().all("host"), ["gateway.test"]);
}

#[tokio::test]
async fn a_path_is_rewritten_as_the_route_says() {
    let app = App::echo().await;
    let text = "routes:
  - {path: /api/*, proxy: '@app', auth: none, rewrite: {strip_prefix: /api}}
  - {path: '/u/{user}/*', proxy: '@app', auth: none, rewrite: {path: '/v2/{user}/{rest}'}}
";
    let gateway = Gateway::start(&config(text, &[("app", &app.url())])).await;
    for (path, forwarded) in [
        ("/api/a/b?c=d", "/a/b?c=d"),
        ("/api/", "/"),
        ("/u/7/a/b?c", "/v2/7/a/b?c"),
    ] {
        assert_eq!(gateway.get(path, &[]).await.status, 200, "{path}");
        assert_eq!(app.last().target(), forwarded, "{path}");
    }
}

#[tokio::test]
async fn the_most_specific_route_decides_and_then_its_methods() {
    let app = App::echo().await;
    let text = "routes:
  - {path: /*, respond: {status: 200, body: all}}
  - {path: /a/*, respond: {status: 200, body: below}}
  - {path: /a/b, methods: [POST], respond: {status: 200, body: exact}}
  - {host: other.test, path: /*, respond: {status: 200, body: host}}
  - {path: /old/*, redirect: {to: '/new/{rest}', status: 308}}
";
    let gateway = Gateway::start(&config(text, &[("app", &app.url())])).await;
    for (path, host, status, body) in [
        ("/x", "a.test", 200, "all"),
        ("/a", "a.test", 200, "below"),
        ("/a/c/d", "a.test", 200, "below"),
        ("/a//c", "a.test", 200, "below"),
        ("/a/c", "OTHER.test:80", 200, "host"),
    ] {
        let reply = gateway.get(path, &[("Host", host)]).await;
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (status, body),
            "{path} at {host}"
        );
    }
    let reply = gateway.get("/a/b", &[]).await;
    assert_eq!((reply.status, reply.field("allow")), (405, Some("POST")));
    let reply = gateway.get("/old/a/b?c", &[]).await;
    assert_eq!(reply.status, 308);
    assert!(reply.field("location").unwrap().starts_with("/new/a/b"));
}

#[tokio::test]
async fn no_route_is_404_as_a_problem_document() {
    let gateway = Gateway::start(&config(
        "routes: [{path: /a, respond: {status: 200, body: a}}]\n",
        &[],
    ))
    .await;
    let reply = gateway.get("/b", &[]).await;
    assert_eq!(reply.status, 404);
    assert_eq!(
        reply.field("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(gateway.record("/b").await["reason"], "no_route");
}

#[tokio::test]
async fn headers_are_edited_as_the_configuration_says() {
    let app = App::start(|_| {
        Answer::Raw(b"HTTP/1.1 200 OK\r\nServer: app\r\nContent-Length: 0\r\n\r\n".into())
    })
    .await;
    let text = "defaults: {headers: {response: {set: {X-Set: '1'}, remove: [Server]}}}
routes: [{path: /*, proxy: '@app', auth: none, headers: {request: {set: {X-In: '2'}, remove: [X-Out]}}}]
";
    let gateway = Gateway::start(&config(text, &[("app", &app.url())])).await;
    let reply = gateway
        .get("/", &[("X-In", "client"), ("X-Out", "client")])
        .await;

    assert_eq!(
        (reply.field("x-set"), reply.field("server")),
        (Some("1"), None)
    );
    assert_eq!(app.last().all("x-in"), ["2"]);
    assert_eq!(app.last().field("x-out"), None);
}

#[tokio::test]
async fn odd_answers_that_have_one_reading_reach_the_client() {
    let app = App::start(|seen| {
        let cookies = "Set-Cookie: a=b\r\n".repeat(200);
        Answer::Raw(match seen.target() {
            "/spaced" => "HTTP/1.1 200 OK\r\nX-Odd : b\r\nContent-Length: 2\r\n\r\nok".into(),
            "/folded" => "HTTP/1.1 200 OK\r\nX-Odd: b\r\n\tc\r\nContent-Length: 2\r\n\r\nok".into(),
            "/bare" => "HTTP/1.1 200 OK\nX-Odd: b\nTransfer-Encoding: chunked\n\n2 \nok\n0\n\n".into(),
            "/cookies" => format!("HTTP/1.1 200 OK\r\n{cookies}Content-Length: 2, 2\r\n\r\nok").into(),
            "/upgrade" => "HTTP/1.1 426 Upgrade Required\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nok".into(),
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok".into(),
        })
    })
    .await;
    let gateway = in_front_of(&app, "").await;
    let mut h2 = H2::connect(gateway.address()).await;
    for (target, odd) in [("/spaced", "b"), ("/folded", "b c"), ("/bare", "b")] {
        let reply = gateway.get(target, &[]).await;
        assert_eq!((reply.status, reply.text()), (200, "ok".into()), "{target}");
        assert_eq!(reply.field("x-odd"), Some(odd), "{target}");
        let reply = h2.get(target, &[]).await;
        assert_eq!(
            (reply.status, reply.field("x-odd")),
            (200, Some(odd)),
            "{target}"
        );
    }
    assert_eq!(
        gateway.get("/cookies", &[]).await.all("set-cookie").len(),
        200
    );
    assert_eq!(h2.get("/cookies", &[]).await.all("set-cookie").len(), 200);
    let reply = gateway.get("/upgrade", &[]).await;
    assert_eq!(
        (reply.status, reply.field("upgrade")),
        (426, Some("websocket"))
    );
    assert_eq!(reply.field("connection"), Some("upgrade"));
    let reply = h2.get("/upgrade", &[]).await;
    assert_eq!(
        (reply.status, reply.field("upgrade")),
        (426, None),
        "HTTP/2 has none"
    );
    assert_eq!(gateway.get("/two", &[]).await.status, 502);
    assert_eq!(h2.get("/two", &[]).await.status, 502);
}

#[tokio::test]
async fn a_listener_may_be_a_unix_socket() {
    let folder = Folder::new();
    let path = folder.path("gateway.sock");
    let text = "listeners: [{address: 127.0.0.1:0}, {address: 'unix:@path'}]
routes: [{path: /*, respond: {status: 200, body: in}}]
";
    folder.write(
        "gateway.yaml",
        config(text, &[("path", path.to_str().unwrap())]),
    );
    let _gateway = Gateway::start_as_it_is(folder, 1, &[]).await;
    let stream = eventually("the socket", async || {
        tokio::net::UnixStream::connect(&path).await.ok()
    })
    .await;
    assert_eq!(Wire::over(stream).get("/", &[]).await.text(), "in");
}

#[tokio::test]
async fn what_the_app_says_to_the_gateway_never_reaches_a_client() {
    let app = App::start(|seen| {
        let own = "X-Accel-Redirect: /p/a\r\nX-Sendfile: /srv/a\r\nx-accel-expires: 9\r\nX-Accel-Buffering: no\r\nX-Accel-Odd: 1\r\nX-SENDFILE-TYPE: x\r\nX-Own: 1\r\n";
        let text = match seen.target() {
            "/trailers" => format!(
                "HTTP/1.1 200 OK\r\n{own}Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sendfile: /srv/a\r\nX-Own: 2\r\n\r\n"
            ),
            _ => format!("HTTP/1.1 404 No\r\n{own}Content-Length: 2\r\n\r\nok"),
        };
        Answer::Raw(text.into_bytes())
    })
    .await;
    let gateway = in_front_of(&app, "").await;
    let mut client = H2::connect(gateway.address()).await;
    for path in ["/", "/trailers"] {
        let replies = [
            gateway
                .get(path, &[("TE", "trailers"), ("Connection", "TE")])
                .await,
            client.get(path, &[]).await,
        ];
        for reply in replies {
            assert_eq!(reply.text(), "ok");
            assert_eq!(reply.field("x-own"), Some("1"));
            let mut fields = reply.fields.iter().chain(&reply.trailers);
            let told = fields
                .find(|(name, _)| name.starts_with("x-accel") || name.starts_with("x-sendfile"));
            assert_eq!(told, None, "{path}");
        }
    }
}
