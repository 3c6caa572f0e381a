//! `static.else`: a file where there is one, and the app for everything else.

use serde_json::json;

use super::support::{
    App, Folder, Gateway, H2, Kind, Reply, config, key, request, run_to_end, token,
};

const TEXT: &str = "jwt: {app: {algorithms: [HS256], secret: '@secret'}}
upstreams: {shop: {servers: ['@app']}}
routes:
  - {path: /*, static: {root: ./public, else: shop}, auth: none, body_bytes: 100, compress: true}
  - {path: /closed/*, static: {root: ./public, else: shop}, auth: {jwt: app, forward: {X-User: sub}}}
  - {path: /below/*, static: {root: ./public, else: shop}, auth: none, rewrite: {strip_prefix: /below}}
tests:
  - {request: GET /a.txt, expect: {status: 200}}
  - {request: GET /none, expect: {upstream: shop}}
  - {request: POST /a.txt, expect: {upstream: shop}}
  - {request: GET /closed/a.txt, expect: {status: 401}}
  - {request: GET /closed/none, claims: {sub: ada}, expect: {upstream: shop, headers: {X-User: ada}}}
";

fn site() -> Folder {
    let folder = Folder::new();
    for (name, content) in [
        ("public/a.txt", "a file"),
        ("public/index.html", "<p>home"),
        ("public/docs/index.html", "<p>docs"),
        ("public/bare/b.txt", "b"),
        ("public/.env", "SECRET=1"),
    ] {
        folder.write(name, content);
    }
    folder
}

async fn start() -> (App, Gateway) {
    let app = App::echo().await;
    let url = app.url();
    let values = [
        ("secret", key(Kind::Secret, 0).public.as_str()),
        ("app", url.as_str()),
    ];
    let gateway = Gateway::start_in(site(), &config(TEXT, &values)).await;
    (app, gateway)
}

async fn send(gateway: &Gateway, method: &str, target: &str) -> Reply {
    let mut wire = gateway.connect().await;
    wire.send(request(method, target, &[], "")).await;
    match method {
        "HEAD" => wire.head().await,
        _ => wire.reply().await,
    }
}

#[tokio::test]
async fn a_file_is_served_and_all_else_is_the_apps() {
    let (app, gateway) = start().await;
    for (target, body) in [
        ("/a.txt", "a file"),
        ("/", "<p>home"),
        ("/docs/", "<p>docs"),
        ("/bare/b.txt", "b"),
        ("/below/a.txt", "a file"),
    ] {
        gateway.answers(target, 200, body).await;
    }
    assert_eq!(
        send(&gateway, "HEAD", "/a.txt")
            .await
            .field("content-length"),
        Some("6")
    );
    let redirect = send(&gateway, "GET", "/docs?x=1").await;
    assert_eq!(
        (redirect.status, redirect.field("location")),
        (301, Some("/docs/?x=1"))
    );
    assert_eq!(app.requests(), 0, "the app was asked for none of these");
    for (method, target) in [
        ("GET", "/none"),
        ("GET", "/none/"),
        ("GET", "/bare"),
        ("GET", "/bare/"),
        ("GET", "/.env"),
        ("GET", "/a%2Ftxt"),
        ("GET", "/a.txt/"),
        ("GET", "/a%FF.txt"),
        ("POST", "/a.txt"),
        ("DELETE", "/docs/"),
        ("OPTIONS", "/a.txt"),
        ("HEAD", "/none"),
    ] {
        let before = app.requests();
        let reply = send(&gateway, method, target).await;
        assert_eq!(reply.status, 200, "{method} {target}");
        assert_eq!(app.requests(), before + 1, "{method} {target}");
        let seen = app.last();
        assert_eq!((seen.method(), seen.target()), (method, target));
    }
    send(&gateway, "GET", "/below/none").await;
    assert_eq!(app.last().target(), "/none");
    let mut client = H2::connect(gateway.address()).await;
    assert_eq!(client.get("/a.txt", &[]).await.text(), "a file");
    client.get("/other", &[]).await;
    assert_eq!(app.last().target(), "/other");
}

#[tokio::test]
async fn what_is_a_file_is_answered_as_files_are() {
    let (app, gateway) = start().await;
    let reply = gateway.get("/a.txt", &[("Range", "bytes=0-0")]).await;
    assert_eq!((reply.status, reply.text().as_str()), (206, "a"));
    let reply = gateway.get("/a.txt", &[("Range", "bytes=9-")]).await;
    assert_eq!(reply.status, 416);
    let reply = gateway.get("/a.txt", &[("If-None-Match", "*")]).await;
    assert_eq!(reply.status, 304);
    assert_eq!(reply.field("cache-control"), Some("no-cache"));
    let record = gateway.record("/a.txt").await;
    assert_eq!(record["upstream"].as_str(), None, "{record}");
    assert_eq!(app.requests(), 0);
    gateway.get("/none", &[]).await;
    assert_eq!(gateway.record("/none").await["upstream"], "shop");
    // A tunnel is the app's, whatever its path is.
    let upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    gateway.get("/", &upgrade).await;
    assert_eq!(app.last().target(), "/");
    let mut wire = gateway.connect().await;
    wire.send(request("POST", "/a.txt", &[], "x".repeat(101)))
        .await;
    assert_eq!(wire.reply().await.status, 413);
}

#[tokio::test]
async fn one_guard_is_for_both() {
    let (app, gateway) = start().await;
    for target in ["/closed/a.txt", "/closed/none", "/closed/docs"] {
        assert_eq!(gateway.get(target, &[]).await.status, 401, "{target}");
    }
    assert_eq!(app.requests(), 0);
    let bearer = format!("Bearer {}", token(json!({"sub": "ada"})));
    let fields = [("Authorization", bearer.as_str())];
    let reply = gateway.get("/closed/a.txt", &fields).await;
    assert_eq!(reply.text(), "a file");
    assert_eq!(reply.field("cache-control"), Some("private, no-cache"));
    gateway.get("/closed/none", &fields).await;
    assert_eq!(app.last().field("x-user").as_deref(), Some("ada"));
}

#[tokio::test]
async fn a_file_that_comes_is_served_and_one_that_goes_is_the_apps() {
    let (app, gateway) = start().await;
    gateway.get("/new.txt", &[]).await;
    assert_eq!(app.requests(), 1);
    gateway.folder.write("public/new.txt", "new");
    gateway.answers("/new.txt", 200, "new").await;
    std::fs::remove_file(gateway.folder.path("public/new.txt")).unwrap();
    super::support::eventually("the app", async || {
        gateway.get("/new.txt", &[]).await;
        (app.requests() > 1).then_some(())
    })
    .await;
}

#[test]
fn explain_knows_both_and_mistakes_are_said() {
    let folder = site();
    let write = |text: &str| {
        let values = [
            ("secret", key(Kind::Secret, 0).public.as_str()),
            ("app", "http://127.0.0.1:9"),
        ];
        folder.write("gateway.yaml", config(text, &values));
    };
    let run = |arguments: &[&str]| {
        let output = run_to_end(&folder, arguments, &[]);
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8(text).unwrap()
    };
    write(TEXT);
    let text = run(&["test"]);
    assert!(text.contains("5 passed"), "{text}");
    let text = run(&["explain", "/a.txt"]);
    assert!(text.contains("answer     200 from a file"), "{text}");
    let text = run(&["explain", "/none"]);
    assert!(text.contains("file       none: the app is asked"), "{text}");
    assert!(text.contains("app sees   GET /none"), "{text}");
    for (from, to, said) in [
        (
            "else: shop}, auth: none, body",
            "else: shop, fallback: /index.html}, auth: none, body",
            "`fallback` and `else`",
        ),
        (
            "else: shop}, auth: none, body",
            "else: shop, listing: true}, auth: none, body",
            "`listing` and `else`",
        ),
        (
            "else: shop}, auth: none, body",
            "else: shop}, proxy: shop, auth: none, body",
            "more than one way",
        ),
        (
            "else: shop}, auth: none, body",
            "else: shop}, body",
            "nobody says who may use this proxied route",
        ),
        (
            "else: shop}, auth: none, body",
            "else: shp}, auth: none, body",
            "there is no upstream `shp`",
        ),
        (
            "else: shop}, auth: none, body",
            "index: []}, auth: none, body",
            "`body_bytes` means something only beside `proxy`",
        ),
    ] {
        write(&TEXT.replacen(from, to, 1));
        let text = run(&["check"]);
        assert!(text.contains(said), "{said}: {text}");
    }
}
