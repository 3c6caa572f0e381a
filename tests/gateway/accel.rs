//! Files that an app names in its response (`accel`): they are sent in its place, and nothing else is.

use super::support::{
    Answer, App, Folder, Gateway, H2, Reply, config, eventually, find, request, run_to_end,
};

const TEXT: &str = "routes:
  - {path: /*, proxy: '@app', auth: none}
  - {path: /one/*, proxy: '@app', auth: none, accel: ./media}
  - {path: /map/*, proxy: '@app', auth: none, compress: true, accel: {/protected/: ./media, /protected/own/: ./own}}
";

fn folder() -> Folder {
    let folder = Folder::new();
    for (name, content) in [
        ("media/a.txt", "0123456789"),
        ("media/app-BX3kQ9az.js", "hashed"),
        ("media/50% off?.txt", "odd"),
        ("media/\u{444}.txt", "cyrillic"),
        ("media/.env", "SECRET=1"),
        ("media/page.css", "plain, and longer"),
        ("media/page.css.gz", "gzipped"),
        ("media/sub/b.txt", "below"),
        ("own/a.txt", "own"),
        ("secret.txt", "SECRET=1"),
    ] {
        folder.write(name, content);
    }
    folder.link("media/out.txt", "../secret.txt");
    folder
}

/// An app whose response has the header lines in the client's `X-Say`, separated by `|`, and the status before them.
async fn app() -> App {
    App::start(|seen| {
        let said = seen.field("x-say").unwrap();
        let (status, lines) = said.split_once('|').unwrap();
        let lines: String = lines.split('|').map(|line| format!("{line}\r\n")).collect();
        let body = if seen.method() == "HEAD" {
            ""
        } else {
            "the app's own"
        };
        Answer::Raw(
            format!("HTTP/1.1 {status} Word\r\n{lines}Content-Length: 13\r\n\r\n{body}")
                .into_bytes(),
        )
    })
    .await
}

async fn start() -> (App, Gateway) {
    let app = app().await;
    let url = app.url();
    let gateway = Gateway::start_in(folder(), &config(TEXT, &[("app", &url)])).await;
    (app, gateway)
}

async fn say(gateway: &Gateway, path: &str, said: &str, fields: &[(&str, &str)]) -> Reply {
    let fields = [&[("X-Say", said)], fields].concat();
    gateway.get(path, &fields).await
}

#[tokio::test]
async fn the_file_that_the_app_names_is_sent_and_no_other() {
    let (_app, gateway) = start().await;
    let absolute = gateway.folder.path("media/a.txt");
    let absolute = absolute.canonicalize().unwrap();
    let outside = gateway.folder.path("secret.txt").canonicalize().unwrap();
    for (path, field, value, expected) in [
        ("/one/", "X-Accel-Redirect", "/a.txt", Some("0123456789")),
        ("/one/", "X-Accel-Redirect", "/sub/b.txt", Some("below")),
        (
            "/map/",
            "X-Accel-Redirect",
            "/protected/a.txt",
            Some("0123456789"),
        ),
        (
            "/map/",
            "x-accel-redirect",
            "/protected/own/a.txt",
            Some("own"),
        ),
        (
            "/map/",
            "X-Accel-Redirect",
            "/protected/50%25%20off%3F.txt",
            Some("odd"),
        ),
        (
            "/map/",
            "X-Accel-Redirect",
            "/protected/%D1%84.txt",
            Some("cyrillic"),
        ),
        (
            "/one/",
            "X-Sendfile",
            absolute.to_str().unwrap(),
            Some("0123456789"),
        ),
        (
            "/map/",
            "X-Sendfile",
            absolute.to_str().unwrap(),
            Some("0123456789"),
        ),
        ("/map/", "X-Accel-Redirect", "/a.txt", None),
        ("/map/", "X-Accel-Redirect", "/protected/none.txt", None),
        (
            "/map/",
            "X-Accel-Redirect",
            "/protected/../secret.txt",
            None,
        ),
        (
            "/map/",
            "X-Accel-Redirect",
            "/protected/%2e%2e/secret.txt",
            None,
        ),
        ("/map/", "X-Accel-Redirect", "/protected/out.txt", None),
        ("/map/", "X-Accel-Redirect", "/protected/.env", None),
        ("/map/", "X-Accel-Redirect", "/protected/sub", None),
        ("/map/", "X-Accel-Redirect", "/protected/", None),
        ("/one/", "X-Sendfile", outside.to_str().unwrap(), None),
        ("/one/", "X-Sendfile", "/etc/passwd", None),
        ("/one/", "X-Sendfile", "media/a.txt", None),
    ] {
        let reply = say(&gateway, path, &format!("200|{field}: {value}"), &[]).await;
        match expected {
            Some(body) => assert_eq!((reply.status, &*reply.text()), (200, body), "{value}"),
            None => {
                assert_eq!(reply.status, 404, "{value}");
                let said = "there is no such file any more";
                assert!(reply.text().contains(said), "{value}");
                assert!(!reply.text().contains("SECRET"));
            }
        }
        for name in ["x-accel-redirect", "x-sendfile"] {
            assert_eq!(reply.field(name), None, "{value}");
        }
    }
    say(&gateway, "/one/none", "200|X-Accel-Redirect: /none", &[]).await;
    assert_eq!(
        gateway.record("/one/none").await["reason"],
        "accel_not_found"
    );
    let twice = "200|X-Accel-Redirect: /a.txt|X-Accel-Redirect: /sub/b.txt";
    assert_eq!(say(&gateway, "/one/", twice, &[]).await.status, 404);
    eventually("the name in the log", async || {
        let log = gateway.stderr();
        (log.contains("/protected/none.txt") && log.contains("an app named a file")).then_some(())
    })
    .await;
    // Without `accel`, and without a name, the response is the app's.
    let plain = say(&gateway, "/", "200|X-Accel-Redirect: /a.txt", &[]).await;
    assert_eq!(plain.text(), "the app's own");
    assert_eq!(plain.field("x-accel-redirect"), None);
    let plain = say(&gateway, "/one/", "200|X-Own: 1", &[]).await;
    assert_eq!(
        (plain.text().as_str(), plain.field("x-own")),
        ("the app's own", Some("1"))
    );
}

#[tokio::test]
async fn it_is_sent_as_the_clients_request_asks_for_it() {
    let (_app, gateway) = start().await;
    let said = "200|X-Accel-Redirect: /protected/a.txt";
    let whole = say(&gateway, "/map/", said, &[]).await;
    let etag = whole.field("etag").unwrap();
    let part = say(&gateway, "/map/", said, &[("Range", "bytes=2-4")]).await;
    assert_eq!((part.status, part.text().as_str()), (206, "234"));
    assert_eq!(
        say(&gateway, "/map/", said, &[("Range", "bytes=10-")])
            .await
            .status,
        416
    );
    let known = say(&gateway, "/map/", said, &[("If-None-Match", etag)]).await;
    assert_eq!((known.status, known.body.len()), (304, 0));
    assert_eq!(
        say(&gateway, "/map/", said, &[("If-Match", "\"x\"")])
            .await
            .status,
        412
    );
    let gzip = [("Accept-Encoding", "gzip")];
    let css = "200|X-Accel-Redirect: /protected/page.css|Vary: Accept-Encoding|Vary: Cookie";
    let reply = say(&gateway, "/map/coded", css, &gzip).await;
    assert_eq!(
        (reply.field("content-encoding"), &*reply.text()),
        (Some("gzip"), "gzipped")
    );
    assert_eq!(reply.all("vary"), ["Accept-Encoding", "Cookie"]);
    let record = gateway.record("/map/coded").await;
    assert_eq!(record["encoding"], "gzip");
    assert!(record["upstream"].is_string(), "{record}");
    let mut wire = gateway.connect().await;
    wire.send(request("HEAD", "/map/", &[("X-Say", said)], ""))
        .await;
    let head = wire.head().await;
    assert_eq!(
        (head.status, head.field("content-length")),
        (200, Some("10"))
    );
    // A POST may end in a file, and its conditions mean nothing.
    let fields = [
        ("X-Say", said),
        ("If-None-Match", etag),
        ("Range", "bytes=0-0"),
    ];
    wire.send(request("POST", "/map/", &fields, "make")).await;
    let made = wire.reply().await;
    assert_eq!((made.status, made.text().as_str()), (200, "0123456789"));
    let mut client = H2::connect(gateway.address()).await;
    let reply = client
        .get("/map/", &[("x-say", said), ("range", "bytes=0-0")])
        .await;
    assert_eq!((reply.status, reply.text().as_str()), (206, "0"));
    // A large one is carried by the system.
    let large: Vec<u8> = (0_u32..)
        .flat_map(u32::to_le_bytes)
        .take(3_000_000)
        .collect();
    gateway.folder.write("media/large.bin", &large);
    let said = "200|X-Accel-Redirect: /protected/large.bin";
    assert!(say(&gateway, "/map/", said, &[]).await.body == large);
    let parts = say(
        &gateway,
        "/map/",
        said,
        &[("Range", "bytes=0-9,1000000-2000000")],
    )
    .await;
    assert!(find(&parts.body, &large[1_000_000..=2_000_000]).is_some());
}

#[tokio::test]
async fn what_the_app_says_of_the_file_stays() {
    let (_app, gateway) = start().await;
    let said = "200|X-Accel-Redirect: /a.txt|Content-Type: application/pdf|Content-Disposition: attachment; filename=x.pdf|Set-Cookie: a=1|Set-Cookie: b=2|Cache-Control: max-age=5|Expires: 0|Content-Language: de|X-Own: 1|ETag: \"app\"|Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT";
    let reply = say(&gateway, "/one/", said, &[]).await;
    for (name, values) in [
        ("content-type", vec!["application/pdf"]),
        ("content-disposition", vec!["attachment; filename=x.pdf"]),
        ("set-cookie", vec!["a=1", "b=2"]),
        ("cache-control", vec!["max-age=5"]),
        ("expires", vec!["0"]),
        ("content-language", vec!["de"]),
        ("x-own", vec![]),
        ("x-content-type-options", vec!["nosniff"]),
        ("content-length", vec!["10"]),
    ] {
        assert_eq!(reply.all(name), values, "{name}");
    }
    assert_ne!(reply.field("etag"), Some("\"app\""));
    assert_eq!(reply.all("last-modified").len(), 1);
    // A framework's default for an empty response is no word about the file; nor is a hash in its name for all.
    let said = "200|X-Accel-Redirect: /app-BX3kQ9az.js|Content-Type: text/html; charset=utf-8";
    let reply = say(&gateway, "/one/", said, &[]).await;
    assert_eq!(
        reply.field("content-type"),
        Some("text/javascript; charset=utf-8")
    );
    assert_eq!(reply.field("cache-control"), Some("private, no-cache"));
    // The page of what is gone is whole for everybody.
    for (status, fields, expected) in [
        ("404", vec![("Range", "bytes=0-0")], (404, "0123456789")),
        ("410", vec![("If-None-Match", "*")], (410, "0123456789")),
        ("302", vec![], (200, "0123456789")),
        ("500", vec![("Range", "bytes=0-0")], (206, "0")),
    ] {
        let said = format!("{status}|X-Accel-Redirect: /a.txt");
        let reply = say(&gateway, "/one/", &said, &fields).await;
        assert_eq!((reply.status, reply.text().as_str()), expected, "{status}");
    }
}

#[test]
fn explain_and_check_know_accel() {
    let folder = folder();
    let write = |text: &str| {
        let text = config(text, &[("app", "http://127.0.0.1:9")]);
        folder.write("gateway.yaml", text);
    };
    let run = |arguments: &[&str]| {
        let output = run_to_end(&folder, arguments, &[]);
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    write(TEXT);
    let text = run(&["explain", "/map/x"]);
    assert!(
        text.contains("accel      a file, if the app names one: /protected/own/ is "),
        "{text}"
    );
    let map = "{/protected/: ./media, /protected/own/: ./own}";
    for (from, to, said) in [
        ("accel: ./media", "accel: ./none", "none` cannot be served"),
        (map, "{protected: ./media}", "write `/protected/`"),
        (map, "{/protected: ./media}", "write `/protected/`"),
        (map, "{}", "a map from beginnings of paths"),
        (
            map,
            ".",
            "clients could fetch what the gateway itself reads",
        ),
        (
            "proxy: '@app', auth: none, accel",
            "static: ./own, auth: none, accel",
            "`accel` means something only beside `proxy`",
        ),
    ] {
        write(&TEXT.replacen(from, to, 1));
        let text = run(&["check"]);
        assert!(text.contains(said), "{said}: {text}");
    }
}
