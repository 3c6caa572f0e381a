//! Files in the form that the client prefers, and what is said of them: who may keep them, of what type they are, whether
//! they are shown.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;

use super::support::{
    Folder, Gateway, H2, Kind, Reply, config, eventually, key, request, run_to_end, token,
};

const FORMS: [(&str, &str); 4] = [
    ("site/app.js", "plain, and the longest of all"),
    ("site/app.js.br", "br"),
    ("site/app.js.zst", "zstd"),
    ("site/app.js.gz", "gzipped"),
];

fn verifier() -> (&'static str, &'static str) {
    ("secret", &key(Kind::Secret, 0).public)
}

/// Sets when a file was modified, in seconds since 2001.
fn modified(path: &Path, seconds: u64) {
    let at = UNIX_EPOCH + Duration::from_secs(978_307_200 + seconds);
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(at).unwrap();
}

fn site() -> Folder {
    let folder = Folder::new();
    for (name, content) in FORMS {
        modified(&folder.write(name, content), 0);
    }
    for (name, content) in [
        ("site/index-BX3kQ9az.css", "hashed"),
        ("site/one.txt", "one form"),
        ("site/exports/\u{444}.csv", "a,b"),
        ("site/exports/plain.csv", "a,b"),
        ("site/model.glb", "glb"),
        ("site/data.json", "{}"),
        ("site/x.svg", "<svg/>"),
        ("site/x.png", "png"),
    ] {
        folder.write(name, content);
    }
    folder
}

const ROUTES: &str = "jwt: {app: {algorithms: [HS256], secret: '@secret'}}
routes:
  - {path: /*, static: ./site, auth: none}
  - {path: /closed/*, static: ./site, auth: app}
  - path: /said/*
    static:
      root: ./site
      cache_control: {/exports/*: no-store, '*.css': immutable, '*.json': 'public, max-age=5'}
      types: {.glb: model/gltf-binary, .TXT: text/x-own}
      charset: windows-1251
      download: ['*.csv', /model.glb]
      precompressed: [gzip]
    auth: none
  - {path: /stored/*, static: {root: ./site, download: true}, auth: none}
  - {path: /uploads/*, static: {root: ./site, untrusted: true}, auth: none}
";

async fn start() -> Gateway {
    Gateway::start_in(site(), &config(ROUTES, &[verifier()])).await
}

fn coding(reply: &Reply) -> Option<&str> {
    reply.field("content-encoding")
}

#[tokio::test]
async fn a_client_gets_the_form_that_it_prefers_over_both_protocols() {
    let gateway = start().await;
    for (accepted, expected) in [
        ("gzip, deflate, br, zstd", Some("br")),
        ("gzip, zstd", Some("zstd")),
        ("gzip, br;q=0.5", Some("gzip")),
        ("x-gzip", Some("gzip")),
        ("identity", None),
        ("*;q=0", None),
        ("deflate", None),
    ] {
        let fields = [("Accept-Encoding", accepted)];
        let mut h2 = H2::connect(gateway.address()).await;
        for reply in [
            gateway.get("/app.js", &fields).await,
            h2.get("/app.js", &fields).await,
        ] {
            assert_eq!(
                (reply.status, coding(&reply)),
                (200, expected),
                "{accepted}"
            );
            let (_, body) = FORMS
                .iter()
                .find(|(name, _)| match expected {
                    Some("br") => name.ends_with(".br"),
                    Some("zstd") => name.ends_with(".zst"),
                    Some(_) => name.ends_with(".gz"),
                    None => name.ends_with(".js"),
                })
                .unwrap();
            assert_eq!(reply.text(), *body, "{accepted}");
            assert_eq!(reply.all("vary"), ["Accept-Encoding"]);
            let kind = reply.field("content-type").unwrap();
            assert!(kind.contains("javascript"), "{kind}");
        }
    }
    // One form, and nothing to vary by.
    let one = gateway.get("/one.txt", &[("Accept-Encoding", "br")]).await;
    assert_eq!(
        (one.status, coding(&one), one.field("vary")),
        (200, None, None)
    );
}

#[tokio::test]
async fn every_answer_of_a_file_with_forms_varies_once() {
    let gateway = start().await;
    let br = ("Accept-Encoding", "br");
    let tag = gateway.get("/app.js", &[br]).await;
    let tag = tag.field("etag").unwrap().to_owned();
    for (more, status) in [
        (("Range", "bytes=0-0"), 206),
        (("Range", "bytes=99-"), 416),
        (("If-None-Match", tag.as_str()), 304),
        (("X-Nothing", "x"), 200),
    ] {
        for accepted in [br, ("Accept-Encoding", "identity")] {
            let reply = gateway.get("/app.js", &[accepted, more]).await;
            // Without br, the tag is that of another form.
            let expected = if status == 304 && accepted != br {
                200
            } else {
                status
            };
            assert_eq!(reply.status, expected, "{more:?}");
            assert_eq!(reply.all("vary"), ["Accept-Encoding"], "{more:?}");
        }
    }
    let beyond = gateway.get("/app.js", &[br, ("Range", "bytes=99-")]).await;
    assert_eq!(beyond.field("content-range"), Some("bytes */2"));
    let mut wire = gateway.connect().await;
    wire.send(request("HEAD", "/app.js", &[br], "")).await;
    let head = wire.head().await;
    assert_eq!(head.field("content-encoding"), Some("br"));
    assert_eq!(head.field("content-length"), Some("2"));
    assert_eq!(head.all("vary"), ["Accept-Encoding"]);
}

#[tokio::test]
async fn a_form_that_a_deployment_forgot_is_not_sent_and_named_once() {
    let gateway = start().await;
    let br = [("Accept-Encoding", "br")];
    assert_eq!(coding(&gateway.get("/app.js", &br).await), Some("br"));
    modified(&gateway.folder.write("site/app.js", "the new version"), 60);
    for name in ["site/app.js.zst", "site/app.js.gz"] {
        modified(&gateway.folder.path(name), 60);
    }
    gateway.answers("/app.js", 200, "the new version").await;
    for _ in 0..5 {
        let reply = gateway.get("/app.js", &br).await;
        assert_eq!(
            (coding(&reply), reply.text().as_str()),
            (None, "the new version")
        );
    }
    eventually("a line in the log", async || {
        gateway.stderr().contains("app.js.br").then_some(())
    })
    .await;
    // Compressed again.
    modified(&gateway.folder.write("site/app.js.br", "new br"), 61);
    eventually("the new form", async || {
        let reply = gateway.get("/app.js", &br).await;
        (reply.text() == "new br").then_some(())
    })
    .await;
    let log = gateway.stderr();
    assert_eq!(log.matches("app.js.br").count(), 1, "{log}");
    assert!(!log.contains("app.js.gz"), "{log}");
}

#[tokio::test]
async fn who_may_keep_a_file_follows_from_its_name_and_its_guard() {
    let gateway = start().await;
    let bearer = format!("Bearer {}", token(json!({})));
    let signed = [("Authorization", bearer.as_str())];
    const YEAR: &str = "max-age=31536000, immutable";
    for (path, fields, expected) in [
        ("/index-BX3kQ9az.css", &[][..], format!("public, {YEAR}")),
        ("/one.txt", &[], "no-cache".to_owned()),
        (
            "/closed/index-BX3kQ9az.css",
            &signed,
            format!("private, {YEAR}"),
        ),
        ("/closed/one.txt", &signed, "private, no-cache".to_owned()),
        ("/said/index-BX3kQ9az.css", &[], format!("public, {YEAR}")),
        ("/said/exports/plain.csv", &[], "no-store".to_owned()),
        ("/said/data.json", &[], "public, max-age=5".to_owned()),
        ("/said/one.txt", &[], "no-cache".to_owned()),
    ] {
        let reply = gateway.get(path, fields).await;
        assert_eq!(reply.all("cache-control"), [expected], "{path}");
    }
}

#[tokio::test]
async fn types_downloads_and_uploads_are_as_the_route_says() {
    let gateway = start().await;
    for (path, kind, disposition) in [
        (
            "/said/model.glb",
            "model/gltf-binary",
            Some("attachment; filename=\"model.glb\""),
        ),
        ("/said/one.txt", "text/x-own; charset=windows-1251", None),
        (
            "/said/exports/plain.csv",
            "text/csv; charset=windows-1251",
            Some("attachment; filename=\"plain.csv\""),
        ),
        (
            "/said/exports/%D1%84.csv",
            "text/csv; charset=windows-1251",
            Some("attachment; filename*=UTF-8''%D1%84.csv"),
        ),
        (
            "/stored/x.png",
            "image/png",
            Some("attachment; filename=\"x.png\""),
        ),
        ("/uploads/x.png", "image/png", None),
        (
            "/uploads/x.svg",
            "image/svg+xml",
            Some("attachment; filename=\"x.svg\""),
        ),
        ("/x.svg", "image/svg+xml", None),
    ] {
        let reply = gateway.get(path, &[]).await;
        assert_eq!(reply.field("content-type"), Some(kind), "{path}");
        assert_eq!(reply.field("content-disposition"), disposition, "{path}");
        assert_eq!(reply.field("x-content-type-options"), Some("nosniff"));
        let policy = path
            .starts_with("/uploads")
            .then_some("sandbox; default-src 'none'");
        assert_eq!(reply.field("content-security-policy"), policy, "{path}");
    }
    // Of several codings this route looks for one.
    let fields = [("Accept-Encoding", "br, gzip;q=0.1")];
    assert_eq!(
        coding(&gateway.get("/said/app.js", &fields).await),
        Some("gzip")
    );
}

#[test]
fn explain_says_which_form_and_which_rule() {
    let folder = site();
    folder.write("gateway.yaml", config(ROUTES, &[verifier()]));
    for (arguments, parts) in [
        (
            &["/app.js", "-H", "Accept-Encoding: br"][..],
            &[
                "br from the file beside it",
                "Cache-Control: no-cache: the name has no hash",
            ][..],
        ),
        (&["/app.js"], &["as it is: no other form is accepted"]),
        (
            &["/index-BX3kQ9az.css"],
            &["there is no other form", "immutable: the name has a hash"],
        ),
        (
            &["/said/data.json"],
            &["max-age=5: `cache_control` of *.json"],
        ),
        (
            &["/closed/one.txt", "--claims", "{}"],
            &["Cache-Control: private, no-cache"],
        ),
    ] {
        let output = run_to_end(&folder, &[&["explain"], arguments].concat(), &[]);
        let said = String::from_utf8(output.stdout).unwrap();
        for part in parts {
            assert!(said.contains(part), "{arguments:?}: no {part:?} in\n{said}");
        }
    }
}

#[test]
fn mistakes_are_said_with_their_place_and_what_would_be_right() {
    let folder = site();
    for (files, parts) in [
        (
            "precompressed: [bz2]",
            &["expected a coding", "known here: br, zstd, gzip"][..],
        ),
        ("precompressed: [br, br]", &["`br` is here twice"]),
        (
            "cache_control: {a/*: no-cache}",
            &["picks no files", "write `/a/*`"],
        ),
        ("cache_control: {/a/*.js: no-cache}", &["beside a slash"]),
        ("cache_control: {}", &["expected a value"]),
        (
            "types: {glb: model/gltf-binary}",
            &["no end of a name", "write `.glb`"],
        ),
        ("types: {.glb: gltf}", &["expected a media type"]),
        ("types: {.a: a/b, .A: a/c}", &["`.a` is here twice"]),
        ("charset: 'utf 8'", &["expected a charset"]),
        ("download: [a/b]", &["expected a pattern", "write `/a/b`"]),
        ("download: yes", &["write `true`"]),
        ("untrusted: maybe", &["expected `true` or `false`"]),
        ("precompresed: [br]", &["did you mean `precompressed`?"]),
    ] {
        let text =
            format!("routes: [{{path: /*, static: {{root: ./site, {files}}}, auth: none}}]\n");
        folder.write("gateway.yaml", config(&text, &[]));
        let output = run_to_end(&folder, &["check"], &[]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{files}\n{said}");
        for part in ["gateway.yaml:", "^"].iter().chain(parts) {
            assert!(said.contains(part), "{files}: no {part:?} in\n{said}");
        }
    }
}

#[tokio::test]
async fn files_are_compressed_by_default_and_the_store_outlives_a_reload() {
    let folder = Folder::new();
    let text = "a text that is worth it. ".repeat(2_000);
    let long = folder.write("site/long.txt", &text);
    modified(&long, 0);
    folder.write("site/off/long.txt", &text);
    let routes = "routes:
  - {path: /*, static: ./site, auth: none}
  - {path: /off/*, static: ./site/off, auth: none, compress: off}
  - {path: /br/*, static: ./site, auth: none, compress: [br]}
";
    let gateway = Gateway::start_in(folder, &config(routes, &[])).await;
    let all = [("Accept-Encoding", "gzip, br, zstd")];
    // What was written just now is not compressed yet.
    let expected = [("/long.txt", "zstd"), ("/br/long.txt", "br")];
    let mut tags = Vec::new();
    for (path, coding_) in expected {
        let reply = eventually("a compressed file", async || {
            let reply = gateway.get(path, &all).await;
            reply.field("content-encoding").is_some().then_some(reply)
        })
        .await;
        assert_eq!(coding(&reply), Some(coding_));
        assert_eq!(
            reply.field("content-length"),
            Some(&*reply.body.len().to_string())
        );
        assert!(reply.body.len() < 1_000);
        tags.push(reply.field("etag").unwrap().to_owned());
    }
    eventually("its access record", async || {
        let mut records = gateway.records().into_iter();
        records.find(|it| it["path"] == "/br/long.txt" && it["encoding"] == "br")
    })
    .await;
    let off = gateway.get("/off/long.txt", &all).await;
    assert_eq!((coding(&off), off.field("vary")), (None, None));
    gateway
        .reconfigure(&config(&format!("{routes}# changed\n"), &[]))
        .await;
    let again = gateway.get("/long.txt", &all).await;
    assert_eq!(again.field("etag"), Some(tags[0].as_str()));
    let mut wire = gateway.connect().await;
    wire.send("GET /long.txt HTTP/1.0\r\nHost: h\r\nAccept-Encoding: gzip\r\n\r\n")
        .await;
    assert_eq!(coding(&wire.reply().await), None);
}

#[test]
fn precompress_writes_what_is_worth_it_and_leaves_what_is_newer() {
    let folder = Folder::new();
    let text = "a text that is worth it. ".repeat(200);
    for (name, content) in [
        ("dist/app.js", text.as_str()),
        ("dist/deep/page.html", &text),
        ("dist/short.css", "a{}"),
        ("dist/image.png", &text),
        ("dist/.hidden.js", &text),
    ] {
        modified(&folder.write(name, content), 0);
    }
    let run = |arguments: &[&str]| {
        let output = run_to_end(&folder, &[&["precompress"], arguments].concat(), &[]);
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code(), said)
    };
    let (code, said) = run(&["dist"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.starts_with("2 files: 6 compressed files written"),
        "{said}"
    );
    for (name, is_there) in [
        ("dist/app.js.br", true),
        ("dist/app.js.zst", true),
        ("dist/deep/page.html.gz", true),
        ("dist/short.css.br", false),
        ("dist/image.png.br", false),
        ("dist/.hidden.js.br", false),
        ("dist/app.js.br.br", false),
    ] {
        assert_eq!(folder.path(name).exists(), is_there, "{name}");
    }
    let br = std::fs::read(folder.path("dist/app.js.br")).unwrap();
    let mut plain = String::new();
    let mut decoder = brotli_decompressor::Decompressor::new(&*br, 4096);
    std::io::Read::read_to_string(&mut decoder, &mut plain).unwrap();
    assert_eq!(plain, text);
    // Nothing to do; then one that was changed; then one coding alone.
    assert!(run(&["dist"]).1.contains("0 compressed files written"));
    folder.write("dist/app.js", text.to_uppercase());
    let (_, said) = run(&["dist", "--codings", "gzip"]);
    assert!(said.contains("1 compressed files written"), "{said}");
    assert_eq!(run(&["nowhere"]).0, Some(2));
    assert_eq!(run(&["dist", "--codings", "bz2"]).0, Some(2));
}
