//! In which form a refusal comes, and what it says to caches.

use bytes::Bytes;
use http_body_util::Full;

use super::support::{App, Folder, Gateway, H2, Reply, Wire, config, free_port, request};

/// Names and values.
type Fields<'f> = &'f [(&'f str, &'f str)];

/// Files, an app that cannot be reached, and routes that say how long their answers may be kept.
async fn start() -> (App, Gateway) {
    let app = App::echo().await;
    let folder = Folder::new();
    folder.write("site/app.js", "run()");
    folder.write("users.yaml", "{}");
    let away = format!("http://127.0.0.1:{}", free_port());
    let text = config(
        "jwt: {app: {algorithms: [HS256], secret: 0123456789abcdef0123456789abcdef}}\n\
         tokens: {keys: keys/, users: users.yaml}\nstate: data/\n\
         defaults: {headers: {response: {set: {Cache-Control: 'public, max-age=31536000'}}}}\n\
         upstreams:\n  away: '@away'\n  kept: {servers: ['@away'], buffer: {}}\n\
         routes:\n  - {path: /files/*, static: site}\n  - {path: /private/*, proxy: away, auth: app}\n  \
         - {path: /away/*, proxy: away, auth: none, methods: [GET, POST]}\n  \
         - {path: /kept/*, proxy: kept, auth: none}\n  - {path: /said, respond: {body: said}}\n",
        &[("away", &away)],
    );
    (app, Gateway::start_in(folder, &text).await)
}

const GRPC: (&str, &str) = ("Content-Type", "application/grpc");

#[tokio::test]
async fn the_word_of_grpc_changes_no_refusal_but_that_of_a_call() {
    let (_app, gateway) = start().await;
    let rows: &[(&str, Fields<'_>, u16)] = &[
        ("/files/app.js", &[("If-Match", "\"x\"")], 412),
        (
            "/files/app.js",
            &[("If-Unmodified-Since", "Thu, 01 Jan 1970 00:00:01 GMT")],
            412,
        ),
        ("/files/app.js", &[("Range", "bytes=99999-")], 416),
        ("/files/none.js", &[], 404),
        ("/private/x.js", &[], 401),
        ("/away/x", &[], 502),
        ("/nowhere", &[], 404),
        ("/../b", &[], 400),
    ];
    let mut h2 = H2::connect(gateway.address()).await;
    for (path, fields, status) in rows {
        let with = [*fields, &[GRPC]].concat();
        let over_h1 = gateway.get(path, &with).await;
        let over_h2 = h2.get(path, &with).await;
        for reply in [gateway.get(path, fields).await, over_h1, over_h2] {
            assert_refused(&reply, *status, path);
        }
    }
    // A POST over HTTP/1.1 is no call either, nor is what no app is called for.
    let mut wire = gateway.connect().await;
    wire.send(request("POST", "/away/x", &[GRPC], "abc")).await;
    assert_refused(&wire.reply().await, 502, "POST /away/x");
    for (path, fields, status) in [
        ("/files/app.js", GRPC, 405),
        ("/nowhere", GRPC, 404),
        ("/kept/x", GRPC, 502),
        ("/away/x", ("Content-Type", "application/grpc-web"), 502),
    ] {
        let body = Full::new(Bytes::from("abc"));
        let reply = h2.send("POST", path, &[fields], body).await;
        assert_refused(&reply, status, path);
    }
    for (path, status) in [("/away/x", "14"), ("/private/x", "16")] {
        for kind in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc; a=b",
        ] {
            let body = Full::new(Bytes::from("abc"));
            let reply = h2.send("POST", path, &[("content-type", kind)], body).await;
            assert_eq!(
                (reply.status, reply.field("grpc-status")),
                (200, Some(status)),
                "{kind}"
            );
            assert_eq!(reply.field("cache-control"), Some("no-store"), "{path}");
        }
    }
}

#[tokio::test]
async fn every_refusal_says_no_store_whatever_the_route_says() {
    let (_app, gateway) = start().await;
    for (method, path, status) in [
        ("DELETE", "/away/x", 405),
        ("OPTIONS", "/away/x", 405),
        ("POST", "/files/app.js", 405),
        ("GET", "/api/token/", 405),
        ("OPTIONS", "/nowhere", 404),
        ("TRACE", "/files/app.js", 501),
    ] {
        let mut wire = gateway.connect().await;
        wire.send(request(method, path, &[], "")).await;
        let reply = wire.reply().await;
        assert_eq!(
            reply.all("cache-control"),
            ["no-store"],
            "{method} {path}: {}",
            reply.status
        );
        assert_eq!(reply.status, status, "{method} {path}");
    }
    let mut wire = gateway.connect().await;
    wire.send("GET /\u{1} HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_refused(&wire.reply().await, 400, "a malformed head");
    let mut wire: Wire = gateway.connect().await;
    wire.send(request(
        "POST",
        "/api/token/",
        &[("Content-Type", "application/json")],
        "{}",
    ))
    .await;
    let reply = wire.reply().await;
    assert!(reply.status >= 400, "{}", reply.status);
    assert_eq!(reply.all("cache-control"), ["no-store"]);
    // The sister: an answer is kept as long as the route says.
    let reply = gateway.get("/files/app.js", &[]).await;
    assert_eq!(
        reply.field("cache-control"),
        Some("public, max-age=31536000")
    );
}

#[track_caller]
fn assert_refused(reply: &Reply, status: u16, what: &str) {
    assert_eq!(reply.status, status, "{what}");
    assert_eq!(reply.all("cache-control"), ["no-store"], "{what}");
    assert_eq!(
        reply.field("content-type"),
        Some("application/problem+json"),
        "{what}"
    );
    assert!(!reply.body.is_empty(), "{what}");
}

const PAGE: (&str, &str) = ("Accept", "text/html,application/xhtml+xml,*/*;q=0.8");

#[tokio::test]
async fn a_browser_gets_a_page_for_visitors_and_the_operator_the_reason() {
    let (_app, gateway) = start().await;
    for (path, status, sentence, reason, detail) in [
        (
            "/nowhere",
            404,
            "There is nothing at this address.",
            "no_route",
            "no route of the gateway",
        ),
        (
            "/files/none",
            404,
            "There is nothing at this address.",
            "file_not_found",
            "no such file",
        ),
        (
            "/private/x",
            401,
            "You need to sign in to see this page.",
            "token_missing",
            "bearer token",
        ),
        (
            "/away/x",
            502,
            "not available at the moment",
            "upstream_unreachable",
            "could not be reached",
        ),
    ] {
        let reply = gateway.get(path, &[PAGE]).await;
        let page = reply.text();
        assert_eq!(reply.status, status, "{path}");
        assert_eq!(
            reply.field("content-type"),
            Some("text/html; charset=utf-8")
        );
        assert_eq!(reply.all("cache-control"), ["no-store"]);
        assert!(page.contains(sentence) && !page.contains(detail), "{page}");
        for part in [
            "<html lang=\"en\">",
            "prefers-color-scheme:dark",
            "system-ui",
            "place-items:center",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        let record = gateway.record(path).await;
        assert_eq!(record["reason"], reason);
        let id = record["id"].as_str().unwrap();
        assert!(
            page.contains(&format!("Request <code>{id}</code>")),
            "{page}"
        );
        assert!(!page.to_lowercase().contains("portcullis"), "{page}");
        // The sister: who reads JSON gets the detail.
        let problem = gateway.get(path, &[]).await.text();
        assert!(problem.contains(detail), "{problem}");
    }
}
