//! Files: conditions, ranges, and what must never be served.

use std::os::unix::fs::symlink;

use super::support::{Folder, Gateway, H2, Reply, config, request};

const TEN: &str = "0123456789";

fn site() -> Folder {
    let folder = Folder::new();
    for (name, content) in [
        ("site/index.html", "<p>home"),
        ("site/ten.txt", TEN),
        ("site/dir/index.html", "<p>dir"),
        ("site/a b.txt", "space"),
        ("site/.env", "SECRET=1"),
        ("site/.git/config", "SECRET=1"),
        ("site/.well-known/security.txt", "contact"),
        ("outside/secret.txt", "SECRET=1"),
    ] {
        folder.write(name, content);
    }
    std::fs::create_dir(folder.path("site/empty")).unwrap();
    symlink("../outside/secret.txt", folder.path("site/out.txt")).unwrap();
    symlink("../outside", folder.path("site/outdir")).unwrap();
    symlink(
        folder.path("site/ten.txt"),
        folder.path("site/absolute.txt"),
    )
    .unwrap();
    symlink("ten.txt", folder.path("site/inside.txt")).unwrap();
    folder
}

async fn start() -> Gateway {
    start_with(site()).await
}

async fn start_with(folder: Folder) -> Gateway {
    let text = "routes:
  - path: /*
    static: {root: ./site, cache_control: 'public, max-age=60'}
  - path: /spa/*
    static: {root: ./site, fallback: /index.html}
";
    Gateway::start_in(folder, &config(text, &[])).await
}

fn brief(reply: &Reply) -> (u16, String) {
    (reply.status, reply.text())
}

#[tokio::test]
async fn a_file_is_served_with_its_type_its_validators_and_nosniff() {
    let gateway = start().await;
    let reply = gateway.get("/ten.txt", &[]).await;
    assert_eq!(brief(&reply), (200, TEN.to_owned()));
    assert_eq!(
        reply.field("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(reply.field("content-length"), Some("10"));
    assert_eq!(reply.field("accept-ranges"), Some("bytes"));
    assert_eq!(reply.field("x-content-type-options"), Some("nosniff"));
    assert_eq!(reply.field("cache-control"), Some("public, max-age=60"));
    assert!(
        reply.field("etag").unwrap().starts_with('"'),
        "a strong one"
    );
    assert!(httpdate::parse_http_date(reply.field("last-modified").unwrap()).is_ok());
    for (path, body) in [
        ("/", "<p>home"),
        ("/dir/", "<p>dir"),
        ("/a%20b.txt", "space"),
        ("/inside.txt", TEN),
        ("/.well-known/security.txt", "contact"),
        ("/ten.txt?v=1", TEN),
    ] {
        assert_eq!(
            brief(&gateway.get(path, &[]).await),
            (200, body.to_owned()),
            "{path}"
        );
    }
    let mut h2 = H2::connect(gateway.address()).await;
    assert_eq!(brief(&h2.get("/ten.txt", &[]).await), (200, TEN.to_owned()));
}

#[tokio::test]
async fn what_lies_outside_or_is_hidden_is_not_there() {
    let gateway = start().await;
    for path in [
        "/nothing.txt",
        "/.env",
        "/.git/config",
        "/out.txt",
        "/outdir/secret.txt",
        "/absolute.txt",
        "/empty/",
        "/ten.txt/",
        "/ten.txt/x",
        "/dir/.env",
        "/%2eenv",
    ] {
        let reply = gateway.get(path, &[]).await;
        assert_eq!(reply.status, 404, "{path}");
        assert!(!reply.text().contains("SECRET"), "{path}");
    }
    for path in [
        "/../outside/secret.txt",
        "/%2e%2e/outside/secret.txt",
        "/..%2foutside/secret.txt",
        "/dir/../../outside/secret.txt",
        "/..\\outside\\secret.txt",
        "/ten.txt%00.html",
        "/%c0%ae%c0%ae/x",
    ] {
        let reply = gateway.get(path, &[]).await;
        assert_eq!(reply.status, 400, "{path}");
        assert!(!reply.text().contains("SECRET"), "{path}");
    }
}

#[tokio::test]
async fn a_folder_without_its_slash_is_redirected_with_its_query() {
    let gateway = start().await;
    let reply = gateway.get("/dir?a=b", &[]).await;
    assert!(
        matches!(reply.status, 301 | 302 | 307 | 308),
        "{}",
        reply.status
    );
    assert!(reply.field("location").unwrap().ends_with("/dir/?a=b"));
    let reply = gateway.get("//dir", &[]).await;
    assert!(
        !reply
            .field("location")
            .unwrap_or_default()
            .starts_with("//"),
        "not another site"
    );
}

#[tokio::test]
async fn other_methods_are_405_and_head_is_get_without_the_body() {
    let gateway = start().await;
    let get = gateway.get("/ten.txt", &[]).await;
    let mut wire = gateway.connect().await;
    wire.send(request("HEAD", "/ten.txt", &[], "")).await;
    let head = wire.head().await;
    for name in ["content-length", "content-type", "etag", "last-modified"] {
        assert_eq!(head.field(name), get.field(name), "{name}");
    }
    for method in ["POST", "PUT", "DELETE"] {
        wire.send(request(method, "/ten.txt", &[], "")).await;
        let reply = wire.reply().await;
        assert_eq!(
            (reply.status, reply.field("allow")),
            (405, Some("GET, HEAD")),
            "{method}"
        );
    }
}

#[tokio::test]
async fn conditions_are_honored() {
    let gateway = start().await;
    let first = gateway.get("/ten.txt", &[]).await;
    let tag = first.field("etag").unwrap();
    let date = first.field("last-modified").unwrap();
    let weak = format!("W/{tag}");
    let list = format!("\"x\", {tag}");
    let (past, future) = (
        "Thu, 01 Jan 1998 00:00:00 GMT",
        "Fri, 01 Jan 2100 00:00:00 GMT",
    );
    for (fields, status) in [
        (vec![("If-None-Match", tag)], 304),
        (vec![("If-None-Match", weak.as_str())], 304),
        (vec![("If-None-Match", list.as_str())], 304),
        (vec![("If-None-Match", "*")], 304),
        (vec![("If-None-Match", "\"x\"")], 200),
        (vec![("If-Modified-Since", date)], 304),
        (vec![("If-Modified-Since", past)], 200),
        (vec![("If-Modified-Since", "yesterday")], 200),
        (
            vec![("If-None-Match", "\"x\""), ("If-Modified-Since", future)],
            200,
        ),
        (vec![("If-Match", tag)], 200),
        (vec![("If-Match", "*")], 200),
        (vec![("If-Match", "\"x\"")], 412),
        (vec![("If-Match", weak.as_str())], 412),
        (vec![("If-Unmodified-Since", past)], 412),
        (vec![("If-Unmodified-Since", future)], 200),
    ] {
        let reply = gateway.get("/ten.txt", &fields).await;
        assert_eq!(reply.status, status, "{fields:?}");
        if status == 304 {
            assert_eq!((reply.field("etag"), reply.body.len()), (Some(tag), 0));
        }
    }
}

#[tokio::test]
async fn ranges_are_served() {
    let gateway = start().await;
    let first = gateway.get("/ten.txt", &[]).await;
    let tag = first.field("etag").unwrap();
    for (range, content_range, body) in [
        ("bytes=0-0", "bytes 0-0/10", "0"),
        ("bytes=2-4", "bytes 2-4/10", "234"),
        ("bytes=7-", "bytes 7-9/10", "789"),
        ("bytes=-3", "bytes 7-9/10", "789"),
        ("bytes=-30", "bytes 0-9/10", TEN),
        ("bytes=8-100", "bytes 8-9/10", "89"),
    ] {
        for fields in [
            vec![("Range", range)],
            vec![("Range", range), ("If-Range", tag)],
        ] {
            let reply = gateway.get("/ten.txt", &fields).await;
            assert_eq!(brief(&reply), (206, body.to_owned()), "{range}");
            assert_eq!(reply.field("content-range"), Some(content_range), "{range}");
        }
    }
    for range in ["bytes=10-", "bytes=-0", "bytes=100-200"] {
        let reply = gateway.get("/ten.txt", &[("Range", range)]).await;
        assert_eq!(
            (reply.status, reply.field("content-range")),
            (416, Some("bytes */10")),
            "{range}"
        );
    }
    for fields in [
        vec![("Range", "lines=1-2")],
        vec![("Range", "bytes=4-2")],
        vec![("Range", "bytes=a-b")],
        vec![("Range", "bytes=0-1"), ("If-Range", "\"x\"")],
    ] {
        assert_eq!(
            brief(&gateway.get("/ten.txt", &fields).await),
            (200, TEN.to_owned()),
            "{fields:?}"
        );
    }
}

/// The parts of a response: their heads and their bytes.
fn parts(reply: &Reply) -> Vec<(String, Vec<u8>)> {
    assert_eq!(reply.status, 206);
    assert_eq!(reply.field("content-range"), None);
    let length = reply.field("content-length").unwrap();
    assert_eq!(length, reply.body.len().to_string());
    let kind = reply.field("content-type").unwrap();
    let boundary = kind
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap();
    let mut parts = Vec::new();
    let begins = format!("--{boundary}");
    let mut rest = reply.body.strip_prefix(begins.as_bytes()).unwrap();
    while rest != b"--\r\n" {
        let find = |text: &str| {
            let mut windows = rest.windows(text.len());
            windows.position(|it| it == text.as_bytes()).unwrap()
        };
        let (head, end) = (find("\r\n\r\n"), find(&format!("\r\n{begins}")));
        let text = String::from_utf8(rest[2..head].to_vec()).unwrap();
        parts.push((text, rest[head + 4..end].to_vec()));
        rest = &rest[end + 2 + begins.len()..];
    }
    parts
}

#[tokio::test]
async fn several_ranges_are_parts_over_both_protocols() {
    let folder = site();
    let content: Vec<u8> = (0_u32..)
        .flat_map(u32::to_le_bytes)
        .take(3_000_000)
        .collect();
    folder.write("site/large.bin", &content);
    let gateway = start_with(folder).await;
    // The system carries the second part and the third.
    let range = "bytes=100-199,1000000-2500000,500000-599999,-1,5000000-";
    let expected = [
        100..=199,
        1_000_000..=2_500_000,
        500_000..=599_999,
        2_999_999..=2_999_999,
    ];
    let expected = expected.map(|bytes| {
        let range = format!(
            "Content-Range: bytes {}-{}/3000000",
            bytes.start(),
            bytes.end()
        );
        let head = format!("Content-Type: application/octet-stream\r\n{range}");
        (head, content[bytes].to_vec())
    });
    let mut client = H2::connect(gateway.address()).await;
    // The second time the file is open.
    for _ in 0..2 {
        let reply = gateway.get("/large.bin", &[("Range", range)]).await;
        assert!(parts(&reply) == expected);
        let reply = client.get("/large.bin", &[("range", range)]).await;
        assert!(parts(&reply) == expected);
    }
    let mut wire = gateway.connect().await;
    wire.send(request("HEAD", "/large.bin", &[("Range", range)], ""))
        .await;
    let head = wire.head().await;
    assert_eq!(head.status, 200);
    assert_eq!(head.field("content-length"), Some("3000000"));
    // The next response on the connection is where it should be.
    let range = [("Range", "bytes=0-9,2000000-2100000")];
    let first = request("GET", "/large.bin", &range, "");
    wire.send([first, request("GET", "/ten.txt", &[], "")].concat())
        .await;
    let reply = wire.reply().await;
    assert_eq!(parts(&reply)[1].1, &content[2_000_000..=2_100_000]);
    assert_eq!(wire.reply().await.text(), TEN);
}

#[tokio::test]
async fn several_ranges_are_never_an_attack() {
    let gateway = start().await;
    // The range that is left, and the file in pieces.
    let reply = gateway.get("/ten.txt", &[("Range", "bytes=0-1,3-4")]).await;
    assert_eq!(brief(&reply), (206, "01234".to_owned()));
    for range in [
        "bytes=0-1, 8-9".to_owned(),
        format!("bytes={}", vec!["0-9"; 1_000].join(",")),
        format!("bytes={}", vec!["0-0"; 17].join(",")),
        format!("bytes=0-0,{}", vec!["-1"; 400].join(",")),
    ] {
        let reply = gateway.get("/ten.txt", &[("Range", &range)]).await;
        assert_eq!(brief(&reply), (200, TEN.to_owned()), "{range}");
    }
    let reply = gateway.get("/ten.txt", &[("Range", "bytes=10-,-0")]).await;
    assert_eq!(
        (reply.status, reply.field("content-range")),
        (416, Some("bytes */10"))
    );
}

#[tokio::test]
async fn a_fallback_is_for_navigations_alone() {
    let gateway = start().await;
    let page = [("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
    assert_eq!(
        brief(&gateway.get("/spa/orders/7", &page).await),
        (200, "<p>home".to_owned())
    );
    assert_eq!(
        gateway
            .get("/spa/missing.js", &[("Accept", "*/*")])
            .await
            .status,
        404
    );
    assert_eq!(
        brief(&gateway.get("/spa/ten.txt", &page).await),
        (200, TEN.to_owned())
    );
    assert_eq!(
        gateway.get("/orders/7", &page).await.status,
        404,
        "no fallback, no page"
    );
}

#[tokio::test]
async fn several_roots_are_looked_in_in_their_order() {
    let folder = site();
    folder.write("vendor/ten.txt", "vendor");
    folder.write("vendor/lib.js", "vendor");
    let text = "routes: [{path: /*, static: {root: [./site, ./vendor]}, auth: none}]
tests: [{request: GET /lib.js, expect: {status: 200}}, {request: GET /none, expect: {reason: file_not_found}}]
";
    let gateway = Gateway::start_in(folder, &config(text, &[])).await;
    for (target, body) in [
        ("/ten.txt", TEN),
        ("/lib.js", "vendor"),
        ("/dir/", "<p>dir"),
    ] {
        gateway.answers(target, 200, body).await;
    }
    assert_eq!(gateway.get("/.env", &[]).await.status, 404);
    assert_eq!(gateway.get("/none", &[]).await.status, 404);
    for (root, said) in [
        (
            "[./site, ./none]",
            "none` cannot be served: there is no such file",
        ),
        ("[./site, ./site]", "is here twice"),
        (
            "[./site, ./site/ten.txt]",
            "cannot be served: not a directory",
        ),
        (
            "[./site, .]",
            "clients could fetch what the gateway itself reads",
        ),
        ("[]", "an empty list"),
    ] {
        let text = text.replace("[./site, ./vendor]", root);
        let log = gateway.reconfigure_in_vain(&config(&text, &[])).await;
        assert!(log.contains(said), "{root}: {log}");
    }
}

#[tokio::test]
async fn a_file_that_is_replaced_while_it_is_served_is_served_whole() {
    const SIZE: usize = 32 * 1024 * 1024;
    let gateway = start().await;
    gateway.folder.write("site/large.bin", vec![b'a'; SIZE]);
    let mut wire = gateway.connect().await;
    wire.send(request("GET", "/large.bin", &[], "")).await;
    let head = wire.head().await;
    assert_eq!(
        head.field("content-length"),
        Some(SIZE.to_string().as_str())
    );
    let tag = head.field("etag").unwrap().to_owned();

    gateway.folder.write("site/large.bin", vec![b'b'; SIZE / 2]);
    assert!(wire.take(SIZE).await.iter().all(|byte| *byte == b'a'));
    let new = gateway.get("/large.bin", &[]).await;
    assert!(new.body.len() == SIZE / 2 && new.body.iter().all(|byte| *byte == b'b'));
    assert_ne!(new.field("etag"), Some(tag.as_str()));
}

#[tokio::test]
async fn an_empty_file_is_a_good_answer() {
    let gateway = start().await;
    gateway.folder.write("site/empty.txt", "");
    let reply = gateway.get("/empty.txt", &[]).await;
    assert_eq!(
        (reply.status, reply.field("content-length")),
        (200, Some("0"))
    );
    assert_eq!(
        gateway
            .get("/empty.txt", &[("Range", "bytes=0-0")])
            .await
            .status,
        416
    );
}

#[tokio::test]
async fn a_client_that_has_said_its_last_gets_all_of_a_file_that_is_in_memory() {
    use rustix::io::{ReadWriteFlags, preadv2};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let gateway = start().await;
    // Where the file system cannot tell, the file is waited for, and who has closed counts as gone.
    let file = std::fs::File::open(gateway.folder.path("site/ten.txt")).unwrap();
    let mut byte = [0];
    let mut room = [std::io::IoSliceMut::new(&mut byte)];
    if preadv2(&file, &mut room, 0, ReadWriteFlags::NOWAIT).is_err() {
        return;
    }
    // Small, kept open, and large: each is sent in another way, twice.
    for (name, length) in [("a", 5_000), ("b", 100_000), ("c", 12_000_000)] {
        let content: Vec<u8> = (0_u32..).flat_map(u32::to_le_bytes).take(length).collect();
        gateway
            .folder
            .write(&format!("site/{name}"), content.clone());
        for _ in 0..2 {
            let address = gateway.address();
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let text = request("GET", &format!("/{name}"), &[], "");
            stream.write_all(text.as_ref()).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
            assert!(answer.ends_with(&content), "{length}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_never_has_a_body_is_whole_without_one() {
    let text = "routes: [{path: /none, respond: {status: 204, body: x}, auth: none}]";
    let gateway = Gateway::start_in(site(), &config(text, &[])).await;
    let reply = gateway.get("/none", &[]).await;
    assert_eq!(brief(&reply), (204, String::new()));
    assert_eq!(reply.field("content-length"), None);
    assert_eq!(gateway.record("/none").await["reason"].as_str(), None);
}
