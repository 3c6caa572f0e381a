//! What clients are told of refusals and of errors of apps: pages of the site's own, sizes that name the key, and the
//! usual security fields.

use super::support::{Answer, App, Folder, Gateway, H2, Reply, config, request, run_to_end};

const PAGE: (&str, &str) = ("Accept", "text/html,application/xhtml+xml");

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write(
        "site/404.html",
        "<style>p{color:red}</style><p>{status} {title}: {detail} ({reason}, {id})",
    );
    folder.write("pages/5xx.html", "<p>oops {status}");
    folder.write("pages/shop.html", "<p>the shop has no {status}");
    folder.write("site/index.html", "home");
    folder
}

const TEXT: &str = "errors: {404: site/404.html, 5xx: pages/5xx.html, intercept: [404, 5xx]}
routes:
  - {path: /site/*, static: ./site, auth: none}
  - {path: /gone/*, proxy: 'http://127.0.0.1:1', auth: none, cors: {origins: '*'}}
  - {path: /shop/*, proxy: '@app', auth: none, errors: {4xx: pages/shop.html}}
  - {path: /raw/*, proxy: '@app', auth: none, errors: {404: pages/shop.html, intercept: ['503']}}
  - {path: /app/*, proxy: '@app', auth: none}
";

/// An app that answers with the status that its path ends in.
async fn app() -> App {
    App::start(|seen| {
        let status = seen.target().rsplit('/').next().unwrap().to_owned();
        Answer::Raw(
            format!(
                "HTTP/1.1 {status} Word\r\nContent-Length: 5\r\nContent-Type: text/plain\r\nContent-Encoding: gzip\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nRetry-After: 7\r\nX-Own: 1\r\nETag: \"x\"\r\n\r\nbytes"
            )
            .into_bytes(),
        )
    })
    .await
}

async fn navigate(gateway: &Gateway, path: &str) -> Reply {
    gateway.get(path, &[PAGE]).await
}

#[tokio::test]
async fn browsers_get_the_sites_pages_and_programs_the_problem() {
    let app = app().await;
    let gateway = Gateway::start_in(folder(), &config(TEXT, &[("app", &app.url())])).await;
    for path in ["/none", "/site/none"] {
        let reply = navigate(&gateway, path).await;
        assert_eq!(reply.status, 404);
        assert_eq!(
            reply.field("content-type"),
            Some("text/html; charset=utf-8")
        );
        assert_eq!(reply.all("cache-control"), ["no-store"]);
        let record = gateway.record(path).await;
        let id = record["id"].as_str().unwrap();
        let reason = record["reason"].as_str().unwrap();
        let text = reply.text();
        assert!(
            text.starts_with("<style>p{color:red}</style><p>404 Not Found: "),
            "{text}"
        );
        assert!(text.ends_with(&format!("({reason}, {id})")), "{text}");
        let problem = gateway.get(path, &[]).await;
        assert_eq!(
            problem.field("content-type"),
            Some("application/problem+json")
        );
    }
    // By class, with the fields of its route.
    let fields = [PAGE, ("Origin", "https://a.example")];
    let reply = gateway.get("/gone/", &fields).await;
    assert_eq!((reply.status, reply.text().as_str()), (502, "<p>oops 502"));
    assert_eq!(reply.field("access-control-allow-origin"), Some("*"));
    // A status without a page has the built-in one.
    let reply = gateway.get("/../x", &[PAGE]).await;
    assert!(reply.status == 400 && reply.text().contains("<h1>Bad Request</h1>"));
    let mut h2 = H2::connect(gateway.address()).await;
    let reply = h2.get("/gone/", &[("accept", "text/html")]).await;
    assert_eq!(reply.text(), "<p>oops 502");
}

#[tokio::test]
async fn an_apps_own_errors_are_replaced_for_navigations_alone() {
    let app = app().await;
    let gateway = Gateway::start_in(folder(), &config(TEXT, &[("app", &app.url())])).await;
    let reply = navigate(&gateway, "/app/404").await;
    assert_eq!(reply.status, 404);
    assert!(
        reply.text().contains("404 Not Found: the app responded"),
        "{}",
        reply.text()
    );
    assert_eq!(reply.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(reply.field("retry-after"), Some("7"));
    for name in ["x-own", "etag", "content-encoding"] {
        assert_eq!(reply.field(name), None, "{name}");
    }
    assert_eq!(reply.field("cache-control"), Some("no-store"));
    assert_eq!(navigate(&gateway, "/app/503").await.text(), "<p>oops 503");
    let record = gateway.record("/app/503").await;
    assert_eq!(record["reason"].as_str(), None, "it is the app's own");

    // Untouched: what is not named, what a script fetches, what reads JSON, another method.
    let fetched = [PAGE, ("Sec-Fetch-Mode", "cors")];
    for (path, fields) in [
        ("/app/403", &[PAGE][..]),
        ("/app/200", &[PAGE]),
        ("/app/404", &[]),
        ("/app/404", &fetched),
        ("/raw/404", &[PAGE]),
    ] {
        let reply = gateway.get(path, fields).await;
        assert_eq!(reply.text(), "bytes", "{path} {fields:?}");
        assert_eq!(reply.field("x-own"), Some("1"));
    }
    let mut wire = gateway.connect().await;
    wire.send(request("DELETE", "/app/404", &[PAGE], "")).await;
    assert_eq!(wire.reply().await.text(), "bytes");
    wire.send(request("HEAD", "/app/404", &[PAGE], "")).await;
    let head = wire.head().await;
    assert_eq!((head.status, head.field("x-own")), (404, None));
    // The route's own: an exact page of the site goes before its class.
    assert!(
        navigate(&gateway, "/shop/404")
            .await
            .text()
            .contains("404 Not Found")
    );
    assert_eq!(navigate(&gateway, "/shop/403").await.text(), "bytes");
    assert_eq!(navigate(&gateway, "/raw/503").await.text(), "<p>oops 503");
    assert_eq!(navigate(&gateway, "/raw/502").await.text(), "bytes");
}

#[tokio::test]
async fn a_page_in_place_of_a_compressed_response_is_not_logged_as_compressed() {
    let app = App::start(|_| {
        let body = "a long text ".repeat(500);
        let head = format!("Content-Type: text/plain\r\nContent-Length: {}", body.len());
        Answer::Raw(format!("HTTP/1.1 404 Word\r\n{head}\r\n\r\n{body}").into_bytes())
    })
    .await;
    let text = TEXT.replace("/app/*, ", "/app/*, compress: true, ");
    let gateway = Gateway::start_in(folder(), &config(&text, &[("app", &app.url())])).await;
    let gzip = ("Accept-Encoding", "gzip");
    let page = gateway.get("/app/page", &[PAGE, gzip]).await;
    assert_eq!(page.field("content-encoding"), None);
    assert!(page.text().contains("404 Not Found"));
    let record = gateway.record("/app/page").await;
    assert_eq!(record["encoding"].as_str(), None, "{record}");
    let own = gateway.get("/app/own", &[gzip]).await;
    assert_eq!(own.field("content-encoding"), Some("gzip"));
    assert_eq!(gateway.record("/app/own").await["encoding"], "gzip");
}

#[tokio::test]
async fn a_page_that_changes_is_taken_up_and_one_that_is_wrong_is_not() {
    let app = app().await;
    let gateway = Gateway::start_in(folder(), &config(TEXT, &[("app", &app.url())])).await;
    let before = gateway.reloads();
    gateway.folder.write("pages/5xx.html", "<p>sorry");
    gateway.reloaded_after(before).await;
    assert_eq!(navigate(&gateway, "/gone/").await.text(), "<p>sorry");
    let log = gateway.stderr().len();
    gateway.folder.write("pages/5xx.html", b"<p>\xff");
    super::support::eventually("the refusal", async || {
        gateway.stderr()[log..]
            .contains("is not UTF-8 (line 1, column 4)")
            .then_some(())
    })
    .await;
    assert_eq!(navigate(&gateway, "/gone/").await.text(), "<p>sorry");
}

#[test]
fn pages_that_cannot_be_served_are_errors_with_their_place() {
    let folder = folder();
    folder.write("large.html", vec![b'a'; (256 << 10) + 1]);
    for (errors, said) in [
        ("{404: none.html}", "`none.html` cannot be read"),
        ("{404: large.html}", "an error page has at most 256 KiB"),
        ("{404: site}", "`site` cannot be read"),
        ("{40x: site/404.html}", "unknown key `40x`"),
        ("{200: site/404.html}", "unknown key `200`"),
        ("{intercept: [200]}", "a status from 400 to 599"),
        ("{intercept: []}", "an empty list"),
    ] {
        let text = format!("errors: {errors}\nroutes: [{{path: /*, respond: {{body: a}}}}]\n");
        folder.write("gateway.yaml", config(&text, &[]));
        let output = run_to_end(&folder, &["check"], &[]);
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{errors}\n{log}");
        assert!(log.contains(said) && log.contains('^'), "{errors}\n{log}");
    }
}

#[tokio::test]
async fn what_is_too_large_names_its_limit_and_key() {
    let text = "limits: {uri_bytes: 1KiB, header_bytes: 4KiB, header_count: 20}
routes: [{name: upload, path: /*, proxy: 'http://127.0.0.1:1', auth: none, body_bytes: 1MiB}]
";
    let gateway = Gateway::start(&config(text, &[])).await;
    let long = format!("/{}", "a".repeat(2000));
    let large = "a".repeat(5000);
    let uri = gateway.get(&long, &[]).await;
    assert!(
        uri.status == 414 && uri.text().contains("1024 bytes (limits.uri_bytes)"),
        "{}",
        uri.text()
    );
    for fields in [vec![("X-A", large.as_str())], vec![("X-A", "1"); 30]] {
        let head = gateway.get("/", &fields).await;
        assert_eq!(head.status, 431);
        let text = head.text();
        assert!(
            text.contains("4096 bytes (limits.header_bytes) and 20 fields (limits.header_count)"),
            "{text}"
        );
    }
    let mut wire = gateway.connect().await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n")
        .await;
    let body = wire.reply().await;
    assert_eq!(body.status, 413);
    let said = "route `upload` takes bodies of at most 1048576 bytes (body_bytes)";
    assert!(body.text().contains(said), "{}", body.text());
}

#[tokio::test]
async fn security_fields_are_set_where_a_response_has_none() {
    let app = App::start(|_| {
        Answer::Raw(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Frame-Options: DENY\r\n\r\nok".to_vec(),
        )
    })
    .await;
    let text = "trusted_proxies: [127.0.0.1]
defaults: {headers: {security: true}}
routes:
  - {path: /app, proxy: '@app', auth: none}
  - {path: /own, proxy: '@app', auth: none, headers: {response: {set: {Referrer-Policy: no-referrer}, remove: [Cross-Origin-Opener-Policy]}}}
  - {path: /off, proxy: '@app', auth: none, headers: {security: false}}
";
    let gateway = Gateway::start(&config(text, &[("app", &app.url())])).await;
    let names = [
        "x-content-type-options",
        "referrer-policy",
        "x-frame-options",
        "cross-origin-opener-policy",
        "strict-transport-security",
    ];
    let usual = [
        Some("nosniff"),
        Some("strict-origin-when-cross-origin"),
        Some("SAMEORIGIN"),
        Some("same-origin"),
        None,
    ];
    let tls = [
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-For", "192.0.2.1"),
    ];
    for (path, fields, expected) in [
        ("/none", &[][..], usual),
        (
            "/none",
            &tls,
            [
                usual[0],
                usual[1],
                usual[2],
                usual[3],
                Some("max-age=31536000"),
            ],
        ),
        (
            "/app",
            &[],
            [usual[0], usual[1], Some("DENY"), usual[3], None],
        ),
        (
            "/own",
            &[],
            [usual[0], Some("no-referrer"), Some("DENY"), None, None],
        ),
        ("/off", &tls, [None, None, Some("DENY"), None, None]),
    ] {
        let reply = gateway.get(path, fields).await;
        let seen = names.map(|name| reply.field(name));
        assert_eq!(seen, expected, "{path} {fields:?}");
    }
}
