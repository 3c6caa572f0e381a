//! What an app is asked for: the client's own bytes, and nothing that another way to read them would open. Properties of the
//! readings are beside `path` and `route`.

use serde_json::json;

use super::support::{
    Answer, App, Authority, Folder, Frame, Framed, Gateway, H2, Kind, config, fields_of, free_port,
    key, request, token,
};

/// One host with one route, another one with guards beside the wide route.
async fn start() -> (App, Gateway) {
    let app = App::start(|_| Answer::EchoBody).await;
    let text = "jwt: {app: {algorithms: [HS256], secret: '@secret'}}
routes:
  - {path: /*, proxy: '@app', auth: none}
  - {host: two.test, path: /*, proxy: '@app', auth: none}
  - {host: two.test, path: /admin/*, proxy: '@app', auth: app}
  - {host: two.test, path: /exact, proxy: '@app', auth: app}
  - {host: two.test, path: /x/secret/y, proxy: '@app', auth: app}
  - {host: two.test, path: '/users/{user}/*', proxy: '@app', auth: {jwt: app, require: {sub: '{user}'}}}
";
    let secret = &key(Kind::Secret, 0).public;
    let text = config(text, &[("secret", secret), ("app", &app.url())]);
    let gateway = Gateway::start(&text).await;
    (app, gateway)
}

const KEPT: &[&str] = &[
    "/",
    "/a%3Bv=1/x",
    "/a;v=1/x",
    "/a%2Bb",
    "/it%27s/%28a%29/%2A",
    "/lower/%c3%a9",
    "/%61bc/%7e",
    "/_matrix/federation/v1/make_join/%21r%3Aa.test/%40u%3Ab.test",
    "/@acme%2fpackage",
    "/api/queues/%2F/q",
    "/unsafe/300x200/https://example.com/a.png",
    "/bucket/x//y.txt",
    "/bucket/x/./y.txt",
    "/bucket/z/../x/y",
    "/bucket/z/%2e%2E/x/y",
    "//lead",
    "///",
    "/tail//",
    "/tail/.",
    "/file%5Cname",
    "/app/..;/app/x",
    "/%252e%252e/%252F",
    "/%ff%fe",
    "/a?x=%2f..//;&%zz=1",
];

#[tokio::test]
async fn an_app_gets_the_clients_own_bytes() {
    let (app, gateway) = start().await;
    let mut h2 = H2::connect(gateway.address()).await;
    for target in KEPT {
        assert_eq!(gateway.get(target, &[]).await.status, 200, "{target}");
        assert_eq!(app.last().target(), *target);
        assert_eq!(h2.get(target, &[]).await.status, 200, "{target}");
        assert_eq!(app.last().target(), *target, "over HTTP/2");
        let path = target.split('?').next().unwrap();
        assert_eq!(gateway.record(path).await["path"], path);
    }
    // An absolute target without a path is the root (RFC 3986 section 6.2.3).
    for (target, seen) in [
        ("http://gateway.test?x=/admin", "/?x=/admin"),
        ("http://gateway.test", "/"),
        ("http://gateway.test//a/../b", "//a/../b"),
    ] {
        assert_eq!(gateway.get(target, &[]).await.status, 200, "{target}");
        assert_eq!(app.last().target(), seen, "{target}");
    }
}

#[tokio::test]
async fn what_no_reading_may_have_is_refused_everywhere() {
    let (app, gateway) = start().await;
    let mut h2 = H2::connect(gateway.address()).await;
    for target in [
        "/%00",
        "/a%",
        "/a%2",
        "/a%zz",
        "/a;%00",
        "/..",
        "/../x",
        "/a/../../x",
        "/%2e%2e/x",
        "/a%2f..%2f..",
        "/..%5cx",
        "/..\\x",
        "/..;/x",
        "/a//../..",
        "/.;a/..;b/c",
    ] {
        let reply = gateway.get(target, &[]).await;
        assert_eq!(reply.status, 400, "{target}");
        assert_eq!(h2.get(target, &[]).await.status, 400, "{target}");
        assert_eq!(gateway.record(target).await["reason"], "bad_path");
    }
    assert!(app.seen().is_empty());
    // Only in the path.
    assert_eq!(gateway.get("/a?/../..%00", &[]).await.status, 200);
}

/// Ways into `/admin` past a gateway that reads the path otherwise than its app, from reports about nginx, Apache, Tomcat,
/// Spring, Jetty, IIS, Envoy and Traefik.
const TRAVERSALS: &[&str] = &[
    "/open/../admin/x",
    "/open/./../admin/x",
    "/open/%2e%2e/admin/x",
    "/open/.%2E/admin/x",
    "/open/%2e./admin/x",
    "/open%2F..%2Fadmin/x",
    "/open%2f%2e%2e%2fadmin%2fx",
    "/open//../admin/x",
    "/open///..//..//admin/x",
    "/open/..%2fadmin/x",
    "/open/..%5cadmin/x",
    "/open/..\\admin/x",
    "/open\\..\\admin\\x",
    "/open%5C..%5Cadmin",
    "/open/x%5Cy%2F..%2F..%2Fadmin/x",
    "//admin/x",
    "///admin",
    "/./admin/x",
    "/%2e/admin",
    "/.//admin/",
    "/admin%2fx",
    "/admin%5Cx",
    "/admin\\x",
    "/%5Cadmin",
    "/%2Fadmin/x",
    "/\\admin/x",
    "/admin;x/y",
    "/admin;/x",
    "/admin;a=b;c",
    "/;/admin/x",
    "/;a=b/admin",
    "/.;/admin/x",
    "/open/..;/admin/x",
    "/open/..;a=b/admin/x",
    "/open/%2e%2e;/admin/x",
    "/open/..;%2f/admin/x",
    "/open;/..%2fadmin/x",
    "/open/.;/../admin/x",
    "/open%2F..;%2Fadmin/x",
    "/admin/..",
    "/admin/../open",
    "/admin/%2e%2e/open",
    "/admin/..;/open",
    "/admin/..%2fopen",
    "/exact;",
    "/exact;a",
    "/exact%2f..%2fexact",
    "/./exact",
    "//exact",
    "/x/secret//../y",
    "/x//secret/y",
    "/x/./secret/y",
    "/x/%2e/secret/y",
    "/x/secret;v=1/y",
    "/x%2fsecret/y",
    "/users/7/../8/orders",
    "/users/7%2F..%2F8/orders",
    "/users/7;/orders",
    "/users/7;a/../8/orders",
    "/users//7/orders",
    "/users/./7/orders",
    "/users/7%5c/orders",
];

#[tokio::test]
async fn a_target_is_refused_where_its_readings_open_different_things() {
    let (app, gateway) = start().await;
    let bearer = format!("Bearer {}", token(json!({"sub": "7"})));
    let host = ("Host", "two.test");
    let with_token = [host, ("Authorization", bearer.as_str())];
    for target in TRAVERSALS {
        // Nor for whom a part of it is open.
        for fields in [&[host][..], &with_token] {
            let reply = gateway.get(target, fields).await;
            assert_eq!(reply.status, 400, "{target}");
        }
    }
    assert!(app.seen().is_empty());

    // Their sisters lead to one route, whoever reads them.
    for target in [
        "/open/../other/x",
        "/open//x",
        "/administrator/..;/x",
        "/admin/a/../x",
        "/admin//x",
        "/admin/..admin/x",
        "/%61dmin/x/%2e",
        "/admin/a%2fb;c",
        "/users/7//orders",
        "/users/7/a/..;b/orders",
        "/users/%37/x",
        "/exac%74",
    ] {
        let reply = gateway.get(target, &with_token).await;
        assert_eq!(reply.status, 200, "{target}");
        assert_eq!(app.last().target(), target);
    }
    // And the guard has the word.
    let before = app.requests();
    for (target, fields, status) in [
        ("/admin//x", &[host][..], 401),
        ("/exac%74", &[host], 401),
        ("/users/8//orders", &with_token, 403),
        ("/users/8/x/../7", &with_token, 403),
    ] {
        assert_eq!(gateway.get(target, fields).await.status, status, "{target}");
    }
    assert_eq!(app.requests(), before);
}

#[tokio::test]
async fn rewrites_and_redirects_go_on_with_the_clients_bytes() {
    let app = App::start(|_| Answer::EchoBody).await;
    let text = "routes:
  - {path: /strip/*, proxy: '@app', auth: none, rewrite: {strip_prefix: /strip}}
  - {path: '/path/{one}/*', proxy: '@app', auth: none, rewrite: {path: '/v2/{one}/{rest}'}}
  - {path: '/query/{one}/*', proxy: '@app', auth: none, rewrite: {path: '/v2?one={one}&rest={rest}'}}
  - {path: '/to/{one}/*', redirect: {to: 'https://new.test/{one}/{rest}'}}
  - {path: '/find/{one}', redirect: {to: '/search?q={one}&lang=en'}}
  - {path: /here/*, redirect: {to: '/{rest}'}}
";
    let gateway = Gateway::start(&config(text, &[("app", &app.url())])).await;
    for (target, seen) in [
        ("/strip/a%2Fb//c;d/%7e", "/a%2Fb//c;d/%7e"),
        ("/strip//x", "//x"),
        ("/%73trip/x?y", "/x?y"),
        ("/strip/x/../y", "/x/../y"),
        ("/path/%61%2Bb/x//y", "/v2/%61%2Bb/x//y"),
        ("/path/a/x%2f;y", "/v2/a/x%2f;y"),
        (
            "/query/a&b=c+d/e;f=1",
            "/v2?one=a%26b%3Dc%2Bd&rest=e%3Bf%3D1",
        ),
        ("/query/a%26b%23/e", "/v2?one=a%26b%23&rest=e"),
    ] {
        let reply = gateway.get(target, &[]).await;
        assert_eq!(reply.status, 200, "{target}: {}", reply.text());
        assert_eq!(app.last().target(), seen, "{target}");
    }
    let before = app.requests();
    for target in [
        "/strip/../strip/x",
        "/strip/x/../../strip/y",
        "/strip/..;/strip/y",
        "/path/a/../../path/b/x",
        "/path/a;b/x",
        "/path/a%2fb/x",
        "/path/../path/a/x",
        "/to/a/../../to/a/x",
        "/find/a;b",
        // The name of another host.
        "/here//evil.test",
        "/here/\\evil.test",
    ] {
        let reply = gateway.get(target, &[]).await;
        assert_eq!(reply.status, 400, "{target}: {:?}", reply.field("location"));
    }
    assert_eq!(app.requests(), before);
    for (target, location) in [
        ("/to/%61/b//c%2B?q", "https://new.test/%61/b//c%2B?q"),
        ("/find/a&b=c+d", "/search?q=a%26b%3Dc%2Bd&lang=en"),
        ("/find/%26%2b%23", "/search?q=%26%2b%23&lang=en"),
        ("/here/a//b", "/a//b"),
        ("/here/%2Fevil.test", "/%2Fevil.test"),
    ] {
        let reply = gateway.get(target, &[]).await;
        assert_eq!(reply.status, 308, "{target}");
        assert_eq!(reply.field("location"), Some(location), "{target}");
    }
}

#[tokio::test]
async fn other_methods_and_preflights_are_refused_alike() {
    let app = App::start(|_| Answer::EchoBody).await;
    let text = "jwt: {app: {algorithms: [HS256], secret: '@secret'}}
routes:
  - {path: /*, proxy: '@app', auth: none, cors: {origins: ['https://app.test']}}
  - {path: /admin/*, methods: [POST], proxy: '@app', auth: app}
  - {path: /admin/*, methods: [GET], proxy: '@app', auth: none}
";
    let secret = &key(Kind::Secret, 0).public;
    let values = [("secret", secret.as_str()), ("app", &app.url())];
    let gateway = Gateway::start(&config(text, &values)).await;
    for method in ["GET", "POST", "DELETE", "OPTIONS"] {
        let fields = [
            ("Origin", "https://app.test"),
            ("Access-Control-Request-Method", "POST"),
        ];
        let mut wire = gateway.connect().await;
        wire.send(request(method, "/x/../admin/y", &fields, ""))
            .await;
        assert_eq!(wire.reply().await.status, 400, "{method}");
    }
    assert!(app.seen().is_empty());
    assert_eq!(gateway.get("/admin/x//y", &[]).await.status, 200);
    let mut wire = gateway.connect().await;
    wire.send(request("POST", "/admin/x//y", &[], "")).await;
    assert_eq!(wire.reply().await.status, 401);
    let mut wire = gateway.connect().await;
    wire.send(request("DELETE", "/admin/x//y", &[], "")).await;
    assert_eq!(wire.reply().await.status, 405);
}

#[tokio::test]
async fn a_redirect_to_https_keeps_the_clients_bytes() {
    let folder = Folder::new();
    let pair = Authority::new().issue("gateway.test");
    folder.write("cert.pem", &pair.cert);
    folder.write("key.pem", &pair.key);
    let port = free_port();
    let text = format!(
        "listeners:
  - {{address: 127.0.0.1:0, redirect_to_https: true}}
  - {{address: 127.0.0.1:{port}, tls: {{certificates: [{{cert: cert.pem, key: key.pem}}]}}}}
routes: [{{path: /*, respond: {{status: 200}}}}]
"
    );
    let gateway = Gateway::start_in(folder, &config(&text, &[])).await;
    for target in ["/a%2Fb//c;d?e=%2f", "//evil.test/x", "/a/../b"] {
        let reply = gateway.get(target, &[]).await;
        let location = format!("https://gateway.test:{port}{target}");
        assert_eq!(reply.field("location"), Some(location.as_str()));
    }
    assert_eq!(gateway.get("/../x", &[]).await.status, 400);
}

#[tokio::test]
async fn a_redirect_keeps_the_clients_query() {
    let text = "routes:
  - {path: /own, redirect: {to: '/new?src=old'}}
  - {path: /open, redirect: {to: '/new?'}}
  - {path: /plain, redirect: {to: /new}}
  - {path: /part, redirect: {to: '/new#part'}}
  - {path: /both, redirect: {to: 'https://new.test/a?b=c#part?x'}}
";
    let gateway = Gateway::start(&config(text, &[])).await;
    for (target, location) in [
        ("/own", "/new?src=old"),
        ("/own?", "/new?src=old"),
        ("/own?page=2&src=x", "/new?src=old&page=2&src=x"),
        ("/open?page=2", "/new?page=2"),
        ("/plain?page=2", "/new?page=2"),
        ("/plain", "/new"),
        ("/part?page=2", "/new?page=2#part"),
        ("/part", "/new#part"),
        ("/both?page=2", "https://new.test/a?b=c&page=2#part?x"),
    ] {
        let reply = gateway.get(target, &[]).await;
        assert_eq!(reply.field("location"), Some(location), "{target}");
    }
}

#[tokio::test]
async fn a_prefix_that_is_taken_away_is_told_and_has_its_slash() {
    let app = App::start(|_| Answer::EchoBody).await;
    let text = "routes:
  - {path: /app/*, proxy: '@app', auth: none, rewrite: {strip_prefix: /app}}
  - {path: /v1/users/*, proxy: '@app', auth: none, rewrite: {strip_prefix: /v1}}
  - {path: /exact, proxy: '@app', auth: none, rewrite: {strip_prefix: /exact}}
  - {path: /café/*, proxy: '@app', auth: none, rewrite: {strip_prefix: /café}}
  - {path: /*, proxy: '@app', auth: none}
";
    let gateway = Gateway::start(&config(text, &[("app", &app.url())])).await;
    let mut h2 = H2::connect(gateway.address()).await;
    for (target, location) in [
        ("/app", "/app/"),
        ("/app?x=1", "/app/?x=1"),
        ("/%61pp", "/%61pp/"),
    ] {
        for reply in [gateway.get(target, &[]).await, h2.get(target, &[]).await] {
            assert_eq!(reply.status, 308, "{target}");
            assert_eq!(reply.field("location"), Some(location));
        }
        let mut wire = gateway.connect().await;
        wire.send(request("HEAD", target, &[("Connection", "close")], ""))
            .await;
        assert!(wire.rest().await.starts_with(b"HTTP/1.1 308"));
    }
    assert_eq!(app.requests(), 0);
    let mut wire = gateway.connect().await;
    wire.send(request("POST", "/app", &[], "body")).await;
    assert_eq!(wire.reply().await.status, 200);
    assert_eq!(app.last().target(), "/");
    for (target, seen, prefix) in [
        ("/app/", "/", Some("/app")),
        ("/app/x", "/x", Some("/app")),
        ("/v1/users", "/users", Some("/v1")),
        ("/exact", "/", Some("/exact")),
        ("/caf%c3%a9/x", "/x", Some("/caf%C3%A9")),
        ("/other", "/other", None),
    ] {
        let strangers = [("X-Forwarded-Prefix", "/theirs")];
        assert_eq!(
            gateway.get(target, &strangers).await.status,
            200,
            "{target}"
        );
        assert_eq!(app.last().target(), seen);
        assert_eq!(app.last().field("x-forwarded-prefix").as_deref(), prefix);
    }
    let trusting = format!("trusted_proxies: [127.0.0.1]\n{text}");
    gateway
        .reconfigure(&config(&trusting, &[("app", &app.url())]))
        .await;
    for outer in ["/outer", "/outer/"] {
        gateway
            .get("/app/x", &[("X-Forwarded-Prefix", outer)])
            .await;
        assert_eq!(app.last().all("x-forwarded-prefix"), ["/outer/app"]);
    }
    gateway
        .get("/other", &[("X-Forwarded-Prefix", "/outer")])
        .await;
    assert_eq!(app.last().all("x-forwarded-prefix"), ["/outer"]);
}

#[tokio::test]
async fn a_query_reaches_the_app_as_it_was_written() {
    let app = App::start(|_| Answer::EchoBody).await;
    let text = "jwt: {app: {algorithms: [HS256], secret: '@secret', from: [header, 'query:token']}}
routes:
  - {path: /*, proxy: '@app', auth: none}
  - {path: /strip/*, proxy: '@app', auth: none, rewrite: {strip_prefix: /strip}}
  - {path: '/find/{what}', proxy: '@app', auth: none, rewrite: {path: '/search?q={what}'}}
  - {path: /own/*, proxy: '@app', auth: {jwt: app, strip_token: true}}
  - {path: /to/*, redirect: {to: '/new/{rest}'}}
";
    let secret = &key(Kind::Secret, 0).public;
    let values = [("secret", secret.as_str()), ("app", &app.url())];
    let gateway = Gateway::start(&config(text, &values)).await;
    let odd = r#"q={"a":[1]}&<b>|^c`d\~!$'()*,;:@/?=%22%3c%zz"#;
    for (target, seen) in [
        (format!("/a?{odd}"), format!("/a?{odd}")),
        (format!("http://gateway.test?{odd}"), format!("/?{odd}")),
        (format!("http://gateway.test/a?{odd}"), format!("/a?{odd}")),
        (format!("/strip/a?{odd}"), format!("/a?{odd}")),
        (format!("/find/a?{odd}"), format!("/search?q=a&{odd}")),
        ("/a?\"".to_owned(), "/a?\"".to_owned()),
        ("/a?".to_owned(), "/a?".to_owned()),
    ] {
        let reply = gateway.get(&target, &[]).await;
        assert_eq!(reply.status, 200, "{target}");
        assert_eq!(app.last().target(), seen, "{target}");
    }
    let target = format!("/own/a?x=<1>&token={}&y=\"2\"", token(json!({})));
    assert_eq!(gateway.get(&target, &[]).await.status, 200);
    assert_eq!(app.last().target(), "/own/a?x=<1>&y=\"2\"");
    // A `Location` is a URI.
    let reply = gateway.get("/to/a?x=\"<>", &[]).await;
    assert_eq!(reply.field("location"), Some("/new/a?x=%22%3C%3E"));
    let before = app.requests();
    for target in [
        "/a?b#c",
        "/a#b",
        "/a?\u{e9}",
        "/\u{e9}",
        "/a?\u{7f}",
        "/<",
        "/a>?\"",
        "/`?<",
    ] {
        assert_eq!(gateway.get(target, &[]).await.status, 400, "{target}");
    }
    assert_eq!(app.requests(), before);
}

#[tokio::test]
async fn the_record_of_a_head_that_is_refused_says_what_was_asked_for() {
    let (app, gateway) = start().await;
    let long = format!("/long/{}", "a".repeat(20_000));
    let many = "X-A: a\r\n".repeat(200);
    let head = |line: &str, fields: &str| format!("{line}\r\nHost: a\r\n{fields}\r\n");
    let cut = &long[..8 * 1024];
    let cases: [(String, &str, &str, &str); 21] = [
        (
            head("PUT /name HTTP/1.1", "X A: b\r\n"),
            "bad_request",
            "PUT",
            "/name",
        ),
        (
            head("PUT /value?q=secret HTTP/1.1", "X-A: \u{1}\r\n"),
            "bad_request",
            "PUT",
            "/value",
        ),
        (
            head("POST /colon HTTP/1.1", "X-A\r\n"),
            "bad_request",
            "POST",
            "/colon",
        ),
        (
            head("POST /fold HTTP/1.1", " x\r\n"),
            "bad_request",
            "POST",
            "/fold",
        ),
        (
            head("POST /length HTTP/1.1", "Content-Length: +1\r\n"),
            "bad_request",
            "POST",
            "/length",
        ),
        (
            head("POST /coding HTTP/1.1", "Transfer-Encoding: br\r\n"),
            "unknown_transfer_coding",
            "POST",
            "/coding",
        ),
        (
            head("DELETE /hosts HTTP/1.1", "Host: b\r\n"),
            "bad_host",
            "DELETE",
            "/hosts",
        ),
        (
            "PATCH /host HTTP/1.1\r\n\r\n".to_owned(),
            "bad_host",
            "PATCH",
            "/host",
        ),
        (
            "\r\nPATCH /host/2 HTTP/1.1\r\n\r\n".to_owned(),
            "bad_host",
            "PATCH",
            "/host/2",
        ),
        (
            head("POST /many HTTP/1.1", &many),
            "head_too_large",
            "POST",
            "/many",
        ),
        (
            head(&format!("POST {long} HTTP/1.1"), ""),
            "uri_too_long",
            "POST",
            cut,
        ),
        (
            head("GET /version HTTP/3.0", ""),
            "version_not_supported",
            "GET",
            "/version",
        ),
        (
            head("PUT /a b HTTP/1.1", ""),
            "bad_request",
            "PUT",
            "/a%20b",
        ),
        (
            head("PUT /control/\u{1}\u{7f} HTTP/1.1", ""),
            "bad_request",
            "PUT",
            "/control/%01%7F",
        ),
        (
            head("PUT /fragment#x HTTP/1.1", ""),
            "bad_request",
            "PUT",
            "/fragment%23x",
        ),
        (
            head("PUT /caf\u{e9}?\u{e9} HTTP/1.1", ""),
            "bad_request",
            "PUT",
            "/caf%C3%A9",
        ),
        (
            head("PUT /odd/<`>\"\\{} HTTP/1.1", ""),
            "bad_request",
            "PUT",
            "/odd/%3C%60%3E\"\\{}",
        ),
        (
            head("PUT http://a.test/whole#x HTTP/1.1", ""),
            "bad_request",
            "PUT",
            "/whole%23x",
        ),
        (
            head("PUT http://a<b.test/authority HTTP/1.1", ""),
            "bad_request",
            "PUT",
            "/authority",
        ),
        (
            head("PUT /no-version", ""),
            "bad_request",
            "PUT",
            "/no-version",
        ),
        // What is no request line says nothing.
        (
            "\u{16}\u{3}\u{1} /x y\r\n\r\n".to_owned(),
            "bad_request",
            "GET",
            "/",
        ),
    ];
    for (count, (bytes, reason, method, path)) in cases.iter().enumerate() {
        let mut wire = gateway.connect().await;
        wire.try_send(bytes).await.ok();
        assert!(wire.reply().await.status >= 400, "{bytes:.60}");
        let records = gateway.records_of(count + 1).await;
        let last = records.last().unwrap();
        let told = (&last["reason"], &last["method"], &last["path"]);
        assert_eq!(
            told,
            (&json!(reason), &json!(method), &json!(path)),
            "{bytes:.60}"
        );
    }
    // What is asked with HEAD is answered without a body.
    let mut wire = gateway.connect().await;
    wire.send("HEAD /bad HTTP/1.1\r\nHost: a\r\nX A: b\r\n\r\n")
        .await;
    let head = wire.head().await;
    assert_eq!(head.status, 400);
    wire.closed().await;
    assert!(app.seen().is_empty());

    // The same over HTTP/2.
    let paths: [(&[u8], &str); 4] = [
        (b"/h2/fragment#x", "/h2/fragment%23x"),
        ("/h2/caf\u{e9}".as_bytes(), "/h2/caf%C3%A9"),
        (b"/h2/<`>\"\\{}", "/h2/%3C%60%3E\"\\{}"),
        (b"/h2/a b?q", "/h2/a%20b"),
    ];
    for (sent, path) in paths {
        let mut h2 = Framed::connect(gateway.address(), &[]).await;
        let mut fields = fields_of("PUT", "");
        fields[3].1 = sent;
        h2.send(&[Frame::head(1, true, &fields)]).await;
        let record = gateway.record(path).await;
        let told = (&record["reason"], &record["method"]);
        assert_eq!(told, (&json!("bad_request"), &json!("PUT")), "{path}");
    }
}

#[tokio::test]
async fn the_record_of_a_head_that_is_too_slow_says_what_was_asked_for() {
    let app = App::echo().await;
    let text = "timeouts: {header_read: 300ms}
routes: [{path: /*, proxy: '@app', auth: none}]
";
    let gateway = Gateway::start(&config(text, &[("app", &app.url())])).await;
    for head in [
        "POST /slow HTTP/1.1\r\nHost: a\r\nX-",
        "POST /slow HTTP/1.1\r\n",
    ] {
        let mut wire = gateway.connect().await;
        wire.send(head).await;
        assert_eq!(wire.reply().await.status, 408);
    }
    let records = gateway.records_of(2).await;
    for record in &records {
        assert_eq!(
            (&record["method"], &record["path"]),
            (&json!("POST"), &json!("/slow"))
        );
    }
}
