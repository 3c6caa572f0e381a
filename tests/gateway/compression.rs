//! Apps' responses compressed on their way: which, for whom, and that streams come through as they are written.

use std::io::Read as _;
use std::sync::Mutex;

use serde_json::json;
use tokio::sync::mpsc;

use super::support::{
    Answer, App, Folder, Gateway, H2, Kind, Reply, Wire, chunked, config, key, request, run_to_end,
    token,
};

const PAGE: &str = "<p>a page that is long enough to be worth it</p>\n";

const ROUTES: &str = "jwt: {app: {algorithms: [HS256], secret: '@secret'}}
defaults: {compress: true}
routes:
  - {path: /*, proxy: '@app', auth: none}
  - {path: /off/*, proxy: '@app', auth: none, compress: off}
  - {path: /gzip/*, proxy: '@app', auth: none, compress: [gzip]}
  - {path: /always/*, proxy: '@app', auth: none, compress: {private: always}}
  - {path: /token/*, proxy: '@app', auth: app}
";

fn verifier() -> (&'static str, &'static str) {
    ("secret", &key(Kind::Secret, 0).public)
}

/// The text of a compressed body.
fn plain(reply: &Reply) -> String {
    let mut text = String::new();
    match reply.field("content-encoding") {
        Some("gzip") => flate2::read::GzDecoder::new(&*reply.body)
            .read_to_string(&mut text)
            .unwrap(),
        Some("br") => brotli_decompressor::Decompressor::new(&*reply.body, 4096)
            .read_to_string(&mut text)
            .unwrap(),
        Some("zstd") => ruzstd::decoding::StreamingDecoder::new(&*reply.body)
            .unwrap()
            .read_to_string(&mut text)
            .unwrap(),
        _ => return reply.text(),
    };
    text
}

async fn start() -> (App, Gateway) {
    let app = App::start(|seen| {
        let page = PAGE.repeat(200);
        let (more, body) = match seen.target().rsplit('/').next().unwrap_or_default() {
            "image" => ("Content-Type: image/png\r\n", page),
            "short" => ("Content-Type: text/html\r\n", PAGE.to_owned()),
            "coded" => ("Content-Type: text/html\r\nContent-Encoding: br\r\n", page),
            "kept" => ("Content-Type: text/html\r\nCache-Control: no-transform\r\n", page),
            "tagged" => (
                "Content-Type: text/html\r\nETag: \"v1\"\r\nAccept-Ranges: bytes\r\nVary: Cookie\r\n",
                page,
            ),
            _ => ("Content-Type: text/html\r\n", page),
        };
        let known = seen.field("if-none-match").is_some_and(|it| it.contains("\"v1\""));
        if known && seen.target().ends_with("tagged") {
            let head = "HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\nVary: Cookie\r\n\r\n";
            return Answer::Raw(head.into());
        }
        let length = body.len();
        let body = if seen.method() == "HEAD" { String::new() } else { body };
        let head = format!("HTTP/1.1 200 OK\r\n{more}Content-Length: {length}\r\n\r\n");
        Answer::Raw((head + &body).into())
    })
    .await;
    let text = config(ROUTES, &[("app", &app.url()), verifier()]);
    let gateway = Gateway::start(&text).await;
    (app, gateway)
}

#[tokio::test]
async fn a_page_is_compressed_over_both_protocols_and_logged() {
    let (app, gateway) = start().await;
    for (at, (accepted, expected)) in [
        ("gzip, deflate, br, zstd", Some("zstd")),
        ("gzip, deflate, br", Some("br")),
        ("gzip", Some("gzip")),
        ("gzip;q=0", None),
        ("identity", None),
        ("deflate", None),
    ]
    .into_iter()
    .enumerate()
    {
        let fields = [("Accept-Encoding", accepted)];
        let target = format!("/page-{at}");
        let mut h2 = H2::connect(gateway.address()).await;
        for reply in [
            gateway.get(&target, &fields).await,
            h2.get(&target, &fields).await,
        ] {
            assert_eq!(reply.status, 200);
            assert_eq!(reply.field("content-encoding"), expected, "{accepted}");
            assert_eq!(plain(&reply), PAGE.repeat(200));
            assert_eq!(reply.all("vary"), ["Accept-Encoding"], "{accepted}");
            assert_eq!(expected.is_some(), reply.body.len() < 1000);
        }
        // The app is asked what the client asked.
        assert_eq!(
            app.last().field("accept-encoding").as_deref(),
            Some(accepted)
        );
        let record = gateway.record(&target).await;
        assert_eq!(record["encoding"].as_str(), expected);
    }
    let reply = gateway
        .get("/gzip/page", &[("Accept-Encoding", "zstd, gzip")])
        .await;
    assert_eq!(reply.field("content-encoding"), Some("gzip"));
}

#[tokio::test]
async fn what_is_not_worth_it_or_must_not_be_goes_as_it_is() {
    let (_app, gateway) = start().await;
    let gzip = ("Accept-Encoding", "gzip");
    for (target, coding, varies) in [
        ("/image", None, false),
        ("/short", None, false),
        ("/coded", Some("br"), false),
        ("/kept", None, false),
        ("/off/page", None, false),
    ] {
        let reply = gateway.get(target, &[gzip]).await;
        assert_eq!(reply.field("content-encoding"), coding, "{target}");
        assert_eq!(reply.field("vary").is_some(), varies, "{target}");
        assert!(reply.field("content-length").is_some(), "{target}");
    }
    let part = gateway.get("/page", &[gzip, ("Range", "bytes=0-1")]).await;
    assert_eq!(part.field("content-encoding"), None);
    let mut wire = gateway.connect().await;
    wire.send("GET /page HTTP/1.0\r\nHost: h\r\nAccept-Encoding: gzip\r\n\r\n")
        .await;
    let old = wire.reply().await;
    assert_eq!(old.field("content-encoding"), None);
    // The gateway's own pages are never compressed.
    let refused = gateway.get("/token/page", &[gzip]).await;
    assert_eq!(
        (refused.status, refused.field("content-encoding")),
        (401, None)
    );
}

#[tokio::test]
async fn what_another_site_may_have_sent_with_cookies_is_not_compressed() {
    let (_app, gateway) = start().await;
    let gzip = ("Accept-Encoding", "gzip");
    let cookie = ("Cookie", "session=1");
    let site = |value| ("Sec-Fetch-Site", value);
    for (at, (fields, expected)) in [
        (vec![gzip], "gzip"),
        (vec![gzip, cookie], "private"),
        (vec![gzip, cookie, site("cross-site")], "private"),
        (vec![gzip, cookie, site("same-site")], "private"),
        (vec![gzip, cookie, site("same-origin")], "gzip"),
        (vec![gzip, cookie, site("none")], "gzip"),
        (vec![gzip, ("Authorization", "Basic YTpi")], "private"),
    ]
    .into_iter()
    .enumerate()
    {
        let target = format!("/secret-{at}");
        let reply = gateway.get(&target, &fields).await;
        let coding = (expected == "gzip").then_some("gzip");
        assert_eq!(reply.field("content-encoding"), coding, "{fields:?}");
        assert_eq!(reply.field("vary"), Some("Accept-Encoding"));
        assert_eq!(gateway.record(&target).await["encoding"], expected);
    }
    let always = gateway.get("/always/page", &[gzip, cookie]).await;
    assert_eq!(always.field("content-encoding"), Some("gzip"));
    // A bearer token is nothing that another site can make a browser send.
    let bearer = format!("Bearer {}", token(json!({})));
    let api = gateway
        .get("/token/page", &[gzip, ("Authorization", &bearer)])
        .await;
    assert_eq!(
        (api.status, api.field("content-encoding")),
        (200, Some("gzip"))
    );
}

#[tokio::test]
async fn tags_are_weak_and_known_again_and_head_is_as_get() {
    let (_app, gateway) = start().await;
    let gzip = ("Accept-Encoding", "gzip");
    let first = gateway.get("/tagged", &[gzip]).await;
    assert_eq!(first.field("etag"), Some("W/\"v1\""));
    assert_eq!(first.field("accept-ranges"), None);
    assert_eq!(first.all("vary"), ["Cookie", "Accept-Encoding"]);
    let again = gateway
        .get("/tagged", &[gzip, ("If-None-Match", "W/\"v1\"")])
        .await;
    assert_eq!((again.status, again.field("etag")), (304, Some("W/\"v1\"")));
    let plain = gateway.get("/tagged", &[("If-None-Match", "\"v1\"")]).await;
    assert_eq!((plain.status, plain.field("etag")), (304, Some("\"v1\"")));
    let mut wire = gateway.connect().await;
    wire.send(request("HEAD", "/tagged", &[gzip], "")).await;
    let head = wire.head().await;
    for name in ["content-encoding", "etag", "content-type"] {
        assert_eq!(head.field(name), first.field(name), "{name}");
    }
    assert_eq!(head.field("content-length"), None);
}

/// Reads chunks until the bytes so far, decompressed, are this text.
async fn until(wire: &mut Wire, got: &mut Vec<u8>, expected: &str) {
    loop {
        let mut text = Vec::new();
        // What is there of a stream that goes on.
        let mut decoder = flate2::read::GzDecoder::new(&got[..]);
        let mut room = [0; 256];
        while let Ok(read @ 1..) = decoder.read(&mut room) {
            text.extend_from_slice(&room[..read]);
        }
        if text == expected.as_bytes() {
            return;
        }
        assert!(expected.as_bytes().starts_with(&text), "{text:?}");
        got.extend(wire.chunk().await.unwrap());
    }
}

async fn poured(kind: &str) -> (App, Gateway, mpsc::Sender<Vec<u8>>) {
    let (sender, receiver) = mpsc::channel(1);
    let receiver = Mutex::new(Some(receiver));
    let app = App::start(move |_| match receiver.lock().unwrap().take() {
        Some(receiver) => Answer::Stream(receiver),
        None => Answer::Ok("other"),
    })
    .await;
    let text = "defaults: {compress: [gzip]}\nroutes: [{path: /*, proxy: '@app', auth: none}]\n";
    let gateway = Gateway::start(&config(text, &[("app", &app.url())])).await;
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n");
    sender.send(head.into()).await.unwrap();
    (app, gateway, sender)
}

#[tokio::test]
async fn tokens_and_progress_come_through_as_they_are_written() {
    for kind in [
        "application/x-ndjson",
        "text/html",
        "text/plain; charset=utf-8",
    ] {
        let (_app, gateway, sender) = poured(kind).await;
        let mut wire = gateway.connect().await;
        wire.send(request(
            "GET",
            "/stream",
            &[("Accept-Encoding", "gzip")],
            "",
        ))
        .await;
        let head = wire.head().await;
        assert_eq!(head.field("content-encoding"), Some("gzip"), "{kind}");
        let (mut got, mut expected) = (Vec::new(), String::new());
        for word in ["Once", " upon", " a", " time", " a", " gateway"] {
            sender.send(chunked(word)).await.unwrap();
            expected.push_str(word);
            // Each is here before the next is sent.
            until(&mut wire, &mut got, &expected).await;
        }
        sender.send(b"0\r\n\r\n".to_vec()).await.unwrap();
        while let Some(more) = wire.chunk().await {
            got.extend(more);
        }
        let mut text = String::new();
        flate2::read::GzDecoder::new(&got[..])
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, expected);
    }
}

#[tokio::test]
async fn event_streams_are_left_alone() {
    let (_app, gateway, sender) = poured("text/event-stream").await;
    let mut wire = gateway.connect().await;
    wire.send(request(
        "GET",
        "/events",
        &[("Accept-Encoding", "gzip")],
        "",
    ))
    .await;
    let head = wire.head().await;
    assert_eq!(
        (head.field("content-encoding"), head.field("vary")),
        (None, None)
    );
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        sender.send(chunked(event)).await.unwrap();
        assert_eq!(wire.chunk().await.unwrap(), event.as_bytes());
    }
}

#[tokio::test]
async fn what_the_app_breaks_off_is_broken_off() {
    let (_app, gateway, sender) = poured("text/html").await;
    let mut wire = gateway.connect().await;
    wire.send(request(
        "GET",
        "/broken",
        &[("Accept-Encoding", "gzip")],
        "",
    ))
    .await;
    wire.head().await;
    sender.send(chunked("half a page")).await.unwrap();
    let mut got = Vec::new();
    until(&mut wire, &mut got, "half a page").await;
    drop(sender);
    // The connection ends without the last chunk.
    let rest = wire.rest().await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "{rest:?}");
    let record = gateway.record("/broken").await;
    assert_eq!(record["reason"], "upstream_broke_off");
}

#[test]
fn mistakes_are_said_and_explain_says_why() {
    let folder = Folder::new();
    for (compress, parts) in [
        (
            "[bz2]",
            &["expected a coding", "known here: zstd, br, gzip"][..],
        ),
        ("[gzip, gzip]", &["`gzip` is here twice"]),
        ("[]", &["empty list"]),
        ("gzip", &["write `[gzip]`"]),
        ("yes", &["write `true`"]),
        ("no", &["write `off`"]),
        ("{level: 9}", &["expected `fast`, `default` or `small`"]),
        ("{min: 1k}", &["write `1KiB`"]),
        ("{types: [text]}", &["expected a media type"]),
        ("{private: same-origin}", &["did you mean `same_origin`?"]),
        ("{coding: [gzip]}", &["did you mean `codings`?"]),
    ] {
        let text = format!(
            "routes: [{{path: /*, proxy: 'http://127.0.0.1:9', auth: none, compress: {compress}}}]\n"
        );
        folder.write("gateway.yaml", config(&text, &[]));
        let output = run_to_end(&folder, &["check"], &[]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{compress}\n{said}");
        for part in ["gateway.yaml:", "^"].iter().chain(parts) {
            assert!(said.contains(part), "{compress}: no {part:?} in\n{said}");
        }
    }
    let nowhere = "routes: [{path: /*, respond: {body: x}, compress: true}]\n";
    folder.write("gateway.yaml", config(nowhere, &[]));
    let output = run_to_end(&folder, &["check"], &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("only beside `static` and `proxy`"), "{said}");
    let cookies = "jwt: {app: {algorithms: [HS256], secret: '@secret', from: [header, cookie:t]}}
routes: [{path: /*, proxy: 'http://127.0.0.1:9', auth: app, compress: {private: always}}]\n";
    folder.write("gateway.yaml", config(cookies, &[verifier()]));
    let output = run_to_end(&folder, &["check"], &[]);
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("BREACH"), "{said}");

    let text = config(
        "routes: [{path: /*, proxy: 'http://127.0.0.1:9', auth: none, compress: true}]\n",
        &[],
    );
    folder.write("gateway.yaml", text);
    for (arguments, part) in [
        (
            &["-H", "Accept-Encoding: br"][..],
            "br, if it is one of the types",
        ),
        (&[], "no: the client accepts none of zstd, br, gzip"),
        (
            &["-H", "Accept-Encoding: br", "-H", "Cookie: a=b"],
            "Sec-Fetch-Site",
        ),
        (
            &["-H", "Accept-Encoding: br", "-H", "Range: bytes=0-1"],
            "no: the client asks for a part",
        ),
    ] {
        let output = run_to_end(&folder, &[&["explain", "/x"], arguments].concat(), &[]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains(part), "{arguments:?}: no {part:?} in\n{said}");
    }
}
