//! Whole responses, from real directories.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::time::{Duration, UNIX_EPOCH};

use http_body::Body as _;
use http_body_util::BodyExt;
use tempfile::TempDir;

use super::*;
use crate::compress::{CompressRules, CompressedFiles};

/// Sun, 06 Nov 1994 08:49:37 GMT; when all files of the fixture were written.
const MODIFIED: u64 = 784_111_777;
const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const BROWSER: (&str, &str) = ("accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8");

struct Site {
    directory: TempDir,
    files: Files,
}

fn root(path: PathBuf) -> RootSettings {
    RootSettings { path, folder: None }
}

fn settings(directory: &TempDir) -> FilesSettings {
    FilesSettings {
        roots: vec![root(directory.path().join("site"))],
        index: vec!["index.html".to_owned(), "index.htm".to_owned()],
        fallback: None,
        precompressed: vec![Coding::Br, Coding::Zstd, Coding::Gzip],
        describe: DescribeRules::default(),
        listing: false,
        compression: None,
        workers: 1,
    }
}

fn site_with(change: impl FnOnce(&mut FilesSettings)) -> Site {
    let directory = tempfile::tempdir().unwrap();
    let files: [(&str, &[u8]); 13] = [
        ("index.html", b"<p>home"),
        ("a.css", b"0123456789"),
        ("app.js", b"app"),
        ("empty.txt", b""),
        ("LICENSE", b"free"),
        ("docs/index.htm", b"<p>docs"),
        ("bare/a.txt", b"a"),
        ("a b/index.html", b"<p>space"),
        ("c;d/index.html", b"<p>semicolon"),
        (".env", b"secret"),
        (".git/config", b"secret"),
        ("docs/.hidden", b"secret"),
        (".well-known/security.txt", b"mail us"),
    ];
    for (name, content) in files {
        write(&directory.path().join("site").join(name), content);
    }
    write(&directory.path().join("secret.txt"), b"secret");
    let mut settings = settings(&directory);
    change(&mut settings);
    Site {
        files: Files::open(settings).unwrap(),
        directory,
    }
}

fn site() -> Site {
    site_with(|_| {})
}

fn app() -> Site {
    site_with(|settings| settings.fallback = Some("/index.html".to_owned()))
}

fn write(path: &std::path::Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    let modified = UNIX_EPOCH + Duration::from_secs(MODIFIED);
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_modified(modified)
        .unwrap();
}

/// What a client sees.
#[derive(Debug, Eq, PartialEq)]
struct Seen {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Seen {
    #[track_caller]
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// Puts a text of the same length in the place of the random boundary of several parts.
    fn name_the_boundary(&mut self) {
        const NAME: &[u8; 32] = b"boundary-boundary-boundary-bound";
        let kind = self.header("content-type");
        let Some(boundary) = kind.strip_prefix("multipart/byteranges; boundary=") else {
            return;
        };
        assert!(boundary.len() == 32 && boundary.bytes().all(|it| it.is_ascii_hexdigit()));
        let boundary = boundary.to_owned();
        for at in memchr::memmem::find_iter(&self.body.clone(), boundary.as_bytes()) {
            self.body[at..at + NAME.len()].copy_from_slice(NAME);
        }
        let kind = format!("multipart/byteranges; boundary={}", NAME.escape_ascii());
        self.headers
            .insert(header::CONTENT_TYPE, kind.parse().unwrap());
    }

    /// The parts of a response of several: their heads and bytes.
    #[track_caller]
    fn parts(&self) -> Vec<(String, &[u8])> {
        assert_eq!(self.status, 206);
        assert_eq!(self.header("content-range"), "");
        assert_eq!(
            self.header("content-length"),
            self.body.len().to_string(),
            "the length is exact"
        );
        let kind = self.header("content-type");
        let boundary = kind.split_once("boundary=").unwrap().1;
        let begin = format!("--{boundary}\r\n");
        let mut rest = self.body.strip_prefix(begin.as_bytes()).unwrap();
        let mut parts = Vec::new();
        loop {
            let head = memchr::memmem::find(rest, b"\r\n\r\n").unwrap();
            let end = memchr::memmem::find(rest, format!("\r\n--{boundary}").as_bytes()).unwrap();
            let text = String::from_utf8(rest[..head].to_vec()).unwrap();
            parts.push((text, &rest[head + 4..end]));
            rest = &rest[end + 4 + boundary.len()..];
            if rest == b"--\r\n" {
                return parts;
            }
            rest = rest.strip_prefix(b"\r\n").unwrap();
        }
    }
}

impl Site {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("site").join(name)
    }

    async fn ask(
        &self,
        method: Method,
        target: &str,
        skip: usize,
        fields: &[(&str, &str)],
    ) -> Result<Seen, Reject> {
        let now = UNIX_EPOCH + Duration::from_secs(MODIFIED + 3600);
        self.ask_at(now, method, target, skip, fields).await
    }

    /// Requests an hour from now, when a file written just now may be cached.
    async fn ask_later(&self, target: &str, fields: &[(&str, &str)]) -> Result<Seen, Reject> {
        self.ask_after(1, target, fields).await
    }

    /// The same after this many hours.
    async fn ask_after(
        &self,
        hours: u64,
        target: &str,
        fields: &[(&str, &str)],
    ) -> Result<Seen, Reject> {
        let now = crate::clock::now() + Duration::from_hours(hours);
        self.ask_at(now, Method::GET, target, 0, fields).await
    }

    async fn ask_at(
        &self,
        now: SystemTime,
        method: Method,
        target: &str,
        skip: usize,
        fields: &[(&str, &str)],
    ) -> Result<Seen, Reject> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = header::HeaderName::try_from(*name).unwrap();
            headers.append(name, value.parse().unwrap());
        }
        let target = target.parse::<http::uri::PathAndQuery>().unwrap();
        let path = RequestPath::parse(&target)?;
        let mut seen = None;
        // The bytes sent are the same with and without `sendfile`.
        for carries in [false, true] {
            let response = self
                .files
                .serve(
                    Permit::for_tests(),
                    FileRequest {
                        worker: 0,
                        method: &method,
                        version: Version::HTTP_11,
                        headers: &headers,
                        path: &path,
                        skip,
                        query: target.query(),
                        now,
                        at: Instant::now(),
                        carries,
                    },
                )
                .await?;
            let (mut head, body) = response.into_parts();
            // The code that sends a body adds its length.
            let len = body.size_hint().exact();
            let is_sent = method == Method::GET && matches!(head.status.as_u16(), 200 | 206);
            if let Some(len) = len.filter(|len| is_sent && *len > 0) {
                assert_eq!(head.headers.get(header::CONTENT_LENGTH), None);
                head.headers.insert(header::CONTENT_LENGTH, len.into());
            }
            let body = body.collect().await.unwrap().to_bytes().to_vec();
            let mut now = Seen {
                status: head.status.as_u16(),
                headers: head.headers,
                body,
            };
            now.name_the_boundary();
            if let Some(before) = seen.replace(now) {
                assert_eq!(Some(before), seen);
            }
        }
        Ok(seen.unwrap())
    }

    async fn get(&self, target: &str, fields: &[(&str, &str)]) -> Result<Seen, Reject> {
        self.ask(Method::GET, target, 0, fields).await
    }

    async fn check(&self, target: &str, expected: Result<&str, Reject>) {
        self.check_with(target, &[], expected).await;
    }

    async fn check_with(
        &self,
        target: &str,
        fields: &[(&str, &str)],
        expected: Result<&str, Reject>,
    ) {
        let seen = self.get(target, fields).await;
        let seen = seen
            .as_ref()
            .map(|seen| std::str::from_utf8(&seen.body).unwrap());
        assert_eq!(
            seen,
            expected.as_ref().copied(),
            "{target:?} with {fields:?}"
        );
    }
}

#[tokio::test]
async fn a_file_comes_with_its_headers() {
    let site = site();
    let seen = site.get("/a.css?v=1", &[]).await.unwrap();
    assert_eq!(
        (seen.status, seen.body.as_slice()),
        (200, b"0123456789".as_slice())
    );
    assert_eq!(seen.header("content-type"), "text/css; charset=utf-8");
    assert_eq!(seen.header("content-length"), "10");
    assert_eq!(seen.header("last-modified"), DATE);
    assert_eq!(seen.header("accept-ranges"), "bytes");
    assert_eq!(seen.header("x-content-type-options"), "nosniff");
    assert_eq!(seen.header("cache-control"), "no-cache");
    assert!(!seen.headers.contains_key("vary"));
    let etag = seen.header("etag");
    assert!(
        etag.starts_with('"') && etag.ends_with('"') && etag.len() > 8,
        "{etag}"
    );
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let site = site();
    for target in ["/a.css", "/", "/empty.txt", "/LICENSE", "/docs"] {
        let get = site.get(target, &[]).await.unwrap();
        let head = site.ask(Method::HEAD, target, 0, &[]).await.unwrap();
        assert_eq!(
            head,
            Seen {
                body: Vec::new(),
                ..get
            },
            "{target}"
        );
    }
}

#[tokio::test]
async fn other_methods_are_refused_for_whatever_path() {
    let site = site();
    let refused = Err(Reject::MethodNotAllowed(MethodSet::READ));
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        assert_eq!(site.ask(method.clone(), "/a.css", 0, &[]).await, refused);
        assert_eq!(site.ask(method, "/missing", 0, &[]).await, refused);
    }
}

#[tokio::test]
async fn the_route_has_the_first_segments() {
    let site = site();
    let ask = |target, skip| site.ask(Method::GET, target, skip, &[]);
    assert_eq!(ask("/assets/a.css", 1).await.unwrap().body, b"0123456789");
    assert_eq!(
        ask("/v1/assets/a.css", 2).await.unwrap().body,
        b"0123456789"
    );
    assert_eq!(ask("/assets/", 1).await.unwrap().body, b"<p>home");
    assert_eq!(
        ask("/assets", 1).await.unwrap().header("location"),
        "/assets/"
    );
    assert_eq!(ask("/.app/a.css", 1).await.unwrap().status, 200);
    assert_eq!(ask("/assets/a.css", 0).await, Err(Reject::FileNotFound));
}

#[tokio::test]
async fn a_directory_is_its_index() {
    let site = site();
    site.check("/", Ok("<p>home")).await;
    site.check("/docs/", Ok("<p>docs")).await;
    site.check("/a%20b/", Ok("<p>space")).await;
    site.check("/bare/", Err(Reject::FileNotFound)).await;
    site.check("/bare/a.txt", Ok("a")).await;
    site.check("/a.css/", Err(Reject::FileNotFound)).await;
    site.check("/a.css/index.html", Err(Reject::FileNotFound))
        .await;
    let seen = site.get("/docs/", &[]).await.unwrap();
    assert_eq!(seen.header("content-type"), "text/html; charset=utf-8");
}

#[tokio::test]
async fn the_first_root_that_has_a_file_serves_it() {
    let site = site_with(|settings| {
        let own = settings.roots[0].path.clone();
        let vendor = own.with_file_name("vendor");
        for (name, content) in [
            ("a.css", "vendor"),
            ("b.css", "vendor"),
            ("b.css.gz", "vendor, gzip"),
            ("bare/index.html", "<p>vendor"),
            ("docs/index.html", "<p>vendor"),
            ("LICENSE/index.html", "<p>vendor"),
            ("LICENSE/b.txt", "vendor"),
            ("lib/b.txt", "vendor"),
            ("app", "a file that is a directory in the other"),
            ("spa.html", "<p>app"),
            (".env", "secret"),
        ] {
            write(&vendor.join(name), content.as_bytes());
        }
        write(&own.join("app/x.txt"), b"x");
        write(&own.join("a.css.gz"), b"gzip");
        symlink("../vendor/b.css", own.join("out.css")).unwrap();
        settings.roots.push(root(vendor));
        settings.fallback = Some("/spa.html".to_owned());
    });
    for (target, expected) in [
        // The first has it, and the second has it alone.
        ("/a.css", Ok("0123456789")),
        ("/b.css", Ok("vendor")),
        ("/lib/b.txt", Ok("vendor")),
        // An index of the first goes before one of the second, whatever their names.
        ("/docs/", Ok("<p>docs")),
        ("/bare/", Ok("<p>vendor")),
        ("/bare/a.txt", Ok("a")),
        // A file of the second goes before the redirect to a directory of the first.
        ("/app", Ok("a file that is a directory in the other")),
        ("/app/x.txt", Ok("x")),
        ("/LICENSE", Ok("free")),
        ("/LICENSE/b.txt", Ok("vendor")),
        ("/.env", Err(Reject::FileNotFound)),
        ("/out.css", Err(Reject::FileNotFound)),
        ("/none.css", Err(Reject::FileNotFound)),
    ] {
        // The second time it comes from memory.
        for _ in 0..2 {
            site.check(target, expected).await;
        }
    }
    let redirect = site.get("/lib", &[]).await.unwrap();
    assert_eq!(
        (redirect.status, redirect.header("location")),
        (301, "/lib/")
    );
    site.check_with("/orders/7", &[BROWSER], Ok("<p>app")).await;
    // All forms are of one root.
    for (target, coding, body) in [
        ("/a.css", "gzip", "gzip"),
        ("/b.css", "gzip", "vendor, gzip"),
        ("/app.js", "", "app"),
    ] {
        let seen = site.get(target, &[("accept-encoding", "gzip")]).await;
        let seen = seen.unwrap();
        assert_eq!(seen.header("content-encoding"), coding, "{target}");
        assert_eq!(seen.body, body.as_bytes(), "{target}");
    }
    fs::remove_file(site.path("a.css")).unwrap();
    let seen = site.ask_later("/a.css", &[]).await.unwrap();
    assert_eq!(seen.body, b"vendor");
}

#[tokio::test]
async fn a_directory_without_its_slash_is_redirected_with_its_query() {
    let site = site();
    let row = async |target: &str, location: &str| {
        let seen = site.get(target, &[]).await.unwrap();
        assert_eq!(
            (seen.status, seen.header("location")),
            (301, location),
            "{target}"
        );
        assert!(seen.body.is_empty());
    };
    row("/docs", "/docs/").await;
    row("/docs?a=1&b=/x", "/docs/?a=1&b=/x").await;
    row("/docs?", "/docs/?").await;
    row("//docs", "/docs/").await;
    row("/x/..//docs", "/docs/").await;
    row("/a%20b", "/a%20b/").await;
    // A bare `;` in the location would begin a parameter.
    row("/c%3Bd", "/c%3Bd/").await;
    row("/c;d", "/c%3Bd/").await;
    row("/%64ocs", "/docs/").await;
}

#[tokio::test]
async fn hidden_files_are_not_there() {
    let site = site();
    for target in [
        "/.env",
        "/.git/config",
        "/.git/",
        "/.git",
        "/docs/.hidden",
        "/%2Eenv",
        "/...",
    ] {
        site.check(target, Err(Reject::FileNotFound)).await;
    }
    site.check("/.well-known/security.txt", Ok("mail us")).await;
}

#[tokio::test]
async fn paths_that_can_be_read_in_two_ways_are_refused() {
    let site = site();
    for target in [
        "/%ff",
        "/%c0%ae%c0%ae/secret.txt",
        "/%ed%a0%80",
        "/..",
        "/%2e%2e/secret.txt",
    ] {
        site.check(target, Err(Reject::BadPath)).await;
    }
    fs::write(site.path("café.txt"), "olé").unwrap();
    site.check("/caf%C3%A9.txt", Ok("olé")).await;
}

#[tokio::test]
async fn symlinks_stay_below_the_root() {
    let site = site();
    symlink("a.css", site.path("in.css")).unwrap();
    symlink("../secret.txt", site.path("out.txt")).unwrap();
    symlink(site.path("a.css"), site.path("absolute.css")).unwrap();
    site.check("/in.css", Ok("0123456789")).await;
    site.check("/out.txt", Err(Reject::FileNotFound)).await;
    site.check("/absolute.css", Err(Reject::FileNotFound)).await;
}

#[tokio::test]
async fn the_fallback_is_for_navigations_alone() {
    let site = app();
    site.check_with("/orders/7", &[BROWSER], Ok("<p>home"))
        .await;
    site.check_with("/orders/", &[BROWSER], Ok("<p>home")).await;
    site.check_with("/bare/", &[BROWSER], Ok("<p>home")).await;
    for page in [
        "/users/john.doe",
        "/@ada@host.example",
        "/@ada@example.com",
        "/v1.2",
        "/hosts/10.0.0.1",
    ] {
        site.check_with(page, &[BROWSER], Ok("<p>home")).await;
    }
    for asset in ["/missing.js", "/v1.2/missing.CSS", "/@ada@2x.png"] {
        site.check_with(asset, &[BROWSER], Err(Reject::FileNotFound))
            .await;
    }
    site.check_with("/orders/7", &[("accept", "*/*")], Err(Reject::FileNotFound))
        .await;
    site.check_with(
        "/orders/7",
        &[("accept", "text/htmlx")],
        Err(Reject::FileNotFound),
    )
    .await;
    site.check_with("/orders/7", &[], Err(Reject::FileNotFound))
        .await;
    site.check_with("/.git/head", &[BROWSER], Err(Reject::FileNotFound))
        .await;
    site.check_with("/app.js", &[BROWSER], Ok("app")).await;
    let head = site
        .ask(Method::HEAD, "/orders/7", 0, &[BROWSER])
        .await
        .unwrap();
    assert_eq!((head.status, head.header("content-length")), (200, "7"));
    assert_eq!(head.header("cache-control"), "no-cache");
    let post = site.ask(Method::POST, "/orders/7", 0, &[BROWSER]).await;
    assert_eq!(post, Err(Reject::MethodNotAllowed(MethodSet::READ)));
}

#[tokio::test]
async fn copies_have_one_etag() {
    let site = site();
    let etag = async |name: &str, content: &[u8]| {
        write(&site.path(name), content);
        let seen = site.get(&format!("/{name}"), &[]).await.unwrap();
        seen.header("etag").to_owned()
    };
    let first = etag("one.bin", b"content").await;
    assert_eq!(etag("two.bin", b"content").await, first);
    assert_ne!(etag("two.bin", b"longer content").await, first);
}

#[tokio::test]
async fn without_a_fallback_a_navigation_is_not_found() {
    site()
        .check_with("/orders/7", &[BROWSER], Err(Reject::FileNotFound))
        .await;
}

#[tokio::test]
async fn a_fallback_that_is_missing_is_not_found() {
    let site = app();
    fs::remove_file(site.path("index.html")).unwrap();
    site.check_with("/orders/7", &[BROWSER], Err(Reject::FileNotFound))
        .await;
    fs::create_dir(site.path("index.html")).unwrap();
    site.check_with("/orders/7", &[BROWSER], Err(Reject::FileNotFound))
        .await;
}

#[tokio::test]
async fn cache_control_is_the_configured_one_or_follows_the_name() {
    let plain = site();
    assert_eq!(
        plain.get("/", &[]).await.unwrap().header("cache-control"),
        "no-cache"
    );
    let year = site_with(|settings| {
        let year = HeaderValue::from_static("public, max-age=31536000");
        settings.describe.cache_control = vec![(FilePattern::any(), CacheControl::Value(year))];
    });
    for target in ["/", "/a.css"] {
        let seen = year.get(target, &[]).await.unwrap();
        assert_eq!(seen.header("cache-control"), "public, max-age=31536000");
    }
}

#[tokio::test]
async fn what_the_client_has_is_not_sent_again() {
    let site = site();
    let first = site.get("/", &[]).await.unwrap();
    let etag = first.header("etag");
    for fields in [[("if-none-match", etag)], [("if-modified-since", DATE)]] {
        for method in [Method::GET, Method::HEAD] {
            let seen = site.ask(method, "/", 0, &fields).await.unwrap();
            assert_eq!((seen.status, seen.body.len()), (304, 0));
            assert_eq!(seen.header("etag"), etag);
            assert_eq!(seen.header("last-modified"), DATE);
            assert_eq!(seen.header("cache-control"), "no-cache");
            assert!(!seen.headers.contains_key("content-length"));
        }
    }
    site.check_with("/", &[("if-none-match", "\"other\"")], Ok("<p>home"))
        .await;
    site.check_with("/", &[("if-match", etag)], Ok("<p>home"))
        .await;
    site.check_with(
        "/",
        &[("if-match", "\"other\"")],
        Err(Reject::PreconditionFailed),
    )
    .await;
}

#[tokio::test]
async fn another_content_has_another_tag() {
    let site = site();
    let tag = async || {
        site.get("/a.css", &[])
            .await
            .unwrap()
            .header("etag")
            .to_owned()
    };
    let first = tag().await;
    assert_eq!(tag().await, first);
    let written = UNIX_EPOCH + Duration::new(MODIFIED, 1);
    File::options()
        .write(true)
        .open(site.path("a.css"))
        .unwrap()
        .set_modified(written)
        .unwrap();
    let second = tag().await;
    assert_ne!(second, first);
    write(&site.path("new.css"), b"other content");
    fs::rename(site.path("new.css"), site.path("a.css")).unwrap();
    assert!(![first, second].contains(&tag().await));
}

#[tokio::test]
async fn preconditions_do_not_touch_what_is_no_file() {
    let site = site();
    assert_eq!(
        site.get("/docs", &[("if-none-match", "*")])
            .await
            .unwrap()
            .status,
        301
    );
    let missing = site.get("/missing", &[("if-match", "\"x\"")]).await;
    assert_eq!(missing, Err(Reject::FileNotFound));
}

#[tokio::test]
async fn one_range_is_served() {
    let site = site();
    let seen = site.get("/a.css", &[("range", "bytes=2-4")]).await.unwrap();
    assert_eq!(
        (seen.status, seen.body.as_slice()),
        (206, b"234".as_slice())
    );
    assert_eq!(seen.header("content-range"), "bytes 2-4/10");
    assert_eq!(seen.header("content-length"), "3");
    assert_eq!(seen.header("content-type"), "text/css; charset=utf-8");
    let etag = seen.header("etag");
    for (fields, expected) in [
        (vec![("range", "bytes=-3")], Ok("789")),
        (vec![("range", "bytes=8-99")], Ok("89")),
        (
            vec![("range", "bytes=10-")],
            Err(Reject::RangeNotSatisfiable {
                length: 10,
                varies: false,
            }),
        ),
        (vec![("range", "bytes=0-1,4-5")], Ok("012345")),
        (
            vec![("range", "bytes=0-1"), ("range", "bytes=0-1")],
            Ok("0123456789"),
        ),
        (vec![("range", "rows=0-1")], Ok("0123456789")),
        (vec![("range", "bytes=2-4"), ("if-range", etag)], Ok("234")),
        (vec![("range", "bytes=2-4"), ("if-range", DATE)], Ok("234")),
        (
            vec![("range", "bytes=2-4"), ("if-range", "\"other\"")],
            Ok("0123456789"),
        ),
        (
            vec![("range", "bytes=99-"), ("if-range", "\"other\"")],
            Ok("0123456789"),
        ),
        (vec![("if-range", "\"other\"")], Ok("0123456789")),
        (
            vec![("range", "bytes=2-4"), ("if-match", "\"x\"")],
            Err(Reject::PreconditionFailed),
        ),
    ] {
        site.check_with("/a.css", &fields, expected).await;
    }
}

/// Bytes in which no two positions look the same.
fn counted(len: usize) -> Vec<u8> {
    (0_u32..).flat_map(u32::to_le_bytes).take(len).collect()
}

#[tokio::test]
async fn several_ranges_are_parts_of_one_response() {
    let site = site();
    // In memory, kept open and copied, and with parts that the system carries.
    for len in [2_000, 300_000, 3_000_000] {
        let content = counted(len);
        write(&site.path("a.css"), &content);
        let (far, end) = (len / 2, len - 1);
        let range = format!("bytes={far}-{}, 0-99 ,,-7,{len}-", far + len / 4);
        // The second time it is in memory, or open.
        for _ in 0..2 {
            let seen = site.get("/a.css", &[("range", &range)]).await.unwrap();
            assert_eq!(seen.header("accept-ranges"), "bytes");
            assert_eq!(seen.header("x-content-type-options"), "nosniff");
            assert!(!seen.header("etag").is_empty());
            let expected = [far..=far + len / 4, 0..=99, len - 7..=end].map(|bytes| {
                let head = format!(
                    "Content-Type: text/css; charset=utf-8\r\nContent-Range: bytes {}-{}/{len}",
                    bytes.start(),
                    bytes.end(),
                );
                (head, &content[bytes])
            });
            assert!(seen.parts() == expected, "{len}");
        }
        let etag = site.get("/a.css", &[]).await.unwrap();
        let etag = etag.header("etag");
        for (fields, status) in [
            ([("range", range.as_str()), ("if-range", etag)], 206),
            ([("range", &range), ("if-range", "\"other\"")], 200),
            ([("range", &range), ("if-none-match", etag)], 304),
        ] {
            let seen = site.get("/a.css", &fields).await.unwrap();
            assert_eq!(seen.status, status, "{fields:?}");
            assert!(status != 200 || seen.body == content);
        }
        let head = site
            .ask(Method::HEAD, "/a.css", 0, &[("range", &range)])
            .await
            .unwrap();
        assert_eq!(head.status, 200);
        assert_eq!(head.header("content-length"), len.to_string());
    }
}

#[tokio::test]
async fn parts_that_are_not_shorter_than_the_file_are_the_file() {
    let site = site();
    let content = counted(600);
    write(&site.path("a.css"), &content);
    // The heads of the parts count.
    let seen = site
        .get("/a.css", &[("range", "bytes=0-199,400-599")])
        .await;
    let seen = seen.unwrap();
    assert_eq!((seen.status, seen.body.len()), (200, 600));
    assert_eq!(seen.header("content-type"), "text/css; charset=utf-8");
    let seen = site.get("/a.css", &[("range", "bytes=0-9,400-409")]).await;
    let seen = seen.unwrap();
    assert_eq!(seen.parts().len(), 2);
    assert!(seen.body.len() < 600);
    let many: Vec<_> = (0..17).map(|at| format!("{at}-{at}")).collect();
    let many = format!("bytes={}", many.join(","));
    let seen = site.get("/a.css", &[("range", &many)]).await.unwrap();
    assert_eq!((seen.status, seen.body.len()), (200, 600));
    let beyond = site.get("/a.css", &[("range", "bytes=600-,700-800")]).await;
    let refused = Reject::RangeNotSatisfiable {
        length: 600,
        varies: false,
    };
    assert_eq!(beyond, Err(refused));
}

#[tokio::test]
async fn parts_of_a_coded_form_say_the_coding_each() {
    let site = site();
    write(&site.path("a.css"), &counted(9_000));
    let coded = counted(4_000);
    write(&site.path("a.css.br"), &coded);
    let range = ("range", "bytes=0-9,2000-2009");
    let seen = site.get("/a.css", &[range, ALL]).await.unwrap();
    // The body as a whole is not coded: a client that decoded it would fail.
    assert_eq!(seen.header("content-encoding"), "");
    assert_eq!(seen.header("vary"), "Accept-Encoding");
    assert!(seen.header("etag").ends_with("-br\""));
    let parts = seen.parts();
    assert_eq!(
        parts[1].0,
        "Content-Type: text/css; charset=utf-8\r\nContent-Encoding: br\r\n\
         Content-Range: bytes 2000-2009/4000"
    );
    assert_eq!(parts[1].1, &coded[2000..2010]);

    let site = compressing(&[Coding::Gzip]);
    let text: String = (0..4_000).map(|at| format!("{at} ")).collect();
    write(&site.path("long.txt"), text.as_bytes());
    let gzip = ("accept-encoding", "gzip");
    let whole = site.ask_later("/long.txt", &[gzip]).await.unwrap();
    assert_eq!(whole.header("content-encoding"), "gzip");
    let seen = site.ask_later("/long.txt", &[range, gzip]).await.unwrap();
    assert_eq!(seen.header("etag"), whole.header("etag"));
    assert_eq!(seen.parts()[0].1, &whole.body[..10]);
}

#[tokio::test]
async fn head_has_no_ranges() {
    let seen = site()
        .ask(Method::HEAD, "/a.css", 0, &[("range", "bytes=99-")])
        .await
        .unwrap();
    assert_eq!((seen.status, seen.header("content-length")), (200, "10"));
}

#[tokio::test]
async fn large_files_and_large_ranges_are_streamed_whole() {
    let site = site();
    let content: Vec<u8> = (0_u32..)
        .flat_map(u32::to_le_bytes)
        .take(1_000_003)
        .collect();
    fs::write(site.path("large.bin"), &content).unwrap();
    let seen = site.get("/large.bin", &[]).await.unwrap();
    assert_eq!(seen.header("content-length"), "1000003");
    assert!(seen.body == content);
    let seen = site
        .get("/large.bin", &[("range", "bytes=3-900000")])
        .await
        .unwrap();
    assert_eq!(seen.header("content-range"), "bytes 3-900000/1000003");
    assert!(seen.body == content[3..=900_000]);
}

#[tokio::test]
async fn a_file_replaced_while_it_is_served_is_the_old_one() {
    let site = site();
    let old = vec![b'o'; 600_000];
    fs::write(site.path("large.bin"), &old).unwrap();
    let target = http::uri::PathAndQuery::from_static("/large.bin");
    let path = RequestPath::parse(&target).unwrap();
    let (none, now) = (HeaderMap::new(), UNIX_EPOCH);
    let permit = Permit::for_tests();
    let response = site
        .files
        .serve(
            permit,
            FileRequest {
                worker: 0,
                method: &Method::GET,
                version: Version::HTTP_11,
                headers: &none,
                path: &path,
                skip: 0,
                query: None,
                now,
                at: Instant::now(),
                carries: false,
            },
        )
        .await;
    fs::write(site.path("next"), vec![b'n'; 700_000]).unwrap();
    fs::rename(site.path("next"), site.path("large.bin")).unwrap();

    assert!(
        response
            .unwrap()
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            == old
    );
    assert_eq!(
        site.get("/large.bin", &[]).await.unwrap().body.len(),
        700_000
    );
}

#[tokio::test]
async fn what_is_kept_in_memory_is_what_is_on_the_disk() {
    let site = site();
    // Each an hour later, when the file system is queried again.
    let hours = std::cell::Cell::new(1);
    let body = async |target: &str| {
        hours.set(hours.get() + 1);
        let seen = site.ask_after(hours.get(), target, &[]).await;
        Ok::<_, Reject>(seen?.body)
    };
    let is_kept = |name: &str| {
        let at = crate::clock::now();
        site.files.trees[0]
            .store
            .get(0, name, at, |_, _| true)
            .is_some()
    };
    let first = site.ask_later("/a.css", &[]).await.unwrap();
    assert!(is_kept("a.css"));
    assert_eq!(site.ask_later("/a.css", &[]).await.unwrap(), first);
    let part = site.ask_later("/a.css", &[("range", "bytes=2-4")]).await;
    assert_eq!(part.unwrap().body, b"234");
    let same = [("if-none-match", first.header("etag"))];
    let kept = site.ask_later("/a.css", &same).await.unwrap();
    assert_eq!((kept.status, kept.body.len()), (304, 0));

    // Written in place, with the old length and the old date.
    write(&site.path("a.css"), b"9876543210");
    assert_eq!(body("/a.css").await.unwrap(), b"9876543210");
    // Replaced.
    write(&site.path("new.css"), b"new");
    fs::rename(site.path("new.css"), site.path("a.css")).unwrap();
    assert_eq!(body("/a.css").await.unwrap(), b"new");
    // A link that leads outside, to the very same name.
    fs::remove_file(site.path("a.css")).unwrap();
    symlink("../secret.txt", site.path("a.css")).unwrap();
    assert_eq!(body("/a.css").await, Err(Reject::FileNotFound));
    fs::remove_file(site.path("a.css")).unwrap();
    assert_eq!(body("/a.css").await, Err(Reject::FileNotFound));

    assert_eq!(body("/").await.unwrap(), b"<p>home");
    assert!(is_kept("index.html"));
    fs::write(site.path("large.bin"), vec![b'x'; 300_000]).unwrap();
    assert_eq!(body("/large.bin").await.unwrap().len(), 300_000);
    assert!(!is_kept("large.bin"));
}

#[tokio::test]
async fn a_head_or_a_304_reads_no_file_into_memory() {
    let site = site();
    let now = crate::clock::now() + Duration::from_secs(3600);
    site.ask_at(now, Method::HEAD, "/a.css", 0, &[])
        .await
        .unwrap();
    let seen = site.ask_later("/a.css", &[("if-none-match", "*")]).await;
    assert_eq!(seen.unwrap().status, 304);
    let kept = site.files.trees[0].store.get(0, "a.css", now, |_, _| true);
    assert!(kept.is_none());
}

#[tokio::test]
async fn a_head_or_a_304_reads_nothing_of_a_file() {
    let row = async |name: &str, method: Method, fields: &[(&str, &str)], status: u16| {
        let site = site();
        fs::write(site.path("large.bin"), vec![b'x'; 300_000]).unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = header::HeaderName::try_from(*name).unwrap();
            headers.append(name, value.parse().unwrap());
        }
        let target = format!("/{name}").parse().unwrap();
        let asked = FileRequest {
            worker: 0,
            method: &method,
            version: Version::HTTP_11,
            headers: &headers,
            path: &RequestPath::parse(&target).unwrap(),
            skip: 0,
            query: None,
            now: crate::clock::now() + Duration::from_hours(1),
            at: Instant::now(),
            carries: false,
        };
        let Found::File(target) = site.files.find(&Permit::for_tests(), asked).unwrap() else {
            panic!("no file");
        };
        let outcome = judge(asked, target).unwrap();
        // From here on, every reader gets less than announced.
        fs::write(site.path(name), b"").unwrap();
        let answer = site.files.answer(asked, outcome, false).await;
        let whole = match answer {
            Ok(answer) => {
                assert_eq!(answer.status(), status);
                answer.into_body().collect().await.is_ok()
            }
            Err(reject) => {
                assert_eq!(reject, Reject::Internal);
                false
            }
        };
        let reads = method == Method::GET && status != 304;
        assert_eq!(whole, !reads, "{method} {name} {fields:?}");
    };
    for name in ["a.css", "large.bin"] {
        row(name, Method::HEAD, &[], 200).await;
        for method in [Method::HEAD, Method::GET] {
            row(name, method, &[("if-none-match", "*")], 304).await;
        }
        row(name, Method::GET, &[], 200).await;
        row(name, Method::GET, &[("range", "bytes=2-4")], 206).await;
    }
}

#[tokio::test]
async fn what_is_kept_open_is_what_is_on_the_disk() {
    const SIZE: usize = 300_000;
    let site = site();
    let body = async || Ok::<_, Reject>(site.ask_later("/large.bin", &[]).await?.body);
    let is_held = || {
        let at = crate::clock::now();
        let held = site.files.trees[0]
            .descriptors
            .get(0, "large.bin", at, |_, _| true);
        held.is_some()
    };
    write(&site.path("large.bin"), &[b'a'; SIZE]);
    site.get("/large.bin", &[]).await.unwrap();
    assert!(!is_held(), "it was written just now");
    let first = site.ask_later("/large.bin", &[]).await.unwrap();
    assert!(first.body == [b'a'; SIZE] && is_held());
    assert_eq!(site.ask_later("/large.bin", &[]).await.unwrap(), first);
    let part = site.ask_later("/large.bin", &[("range", "bytes=-2")]).await;
    assert_eq!(part.unwrap().body, b"aa");
    let same = [("if-none-match", first.header("etag"))];
    let kept = site.ask_later("/large.bin", &same).await.unwrap();
    assert_eq!((kept.status, kept.body.len()), (304, 0));

    // Each within the second. Written in place, with the old length and the old date.
    write(&site.path("large.bin"), &[b'b'; SIZE]);
    assert!(body().await.unwrap() == [b'b'; SIZE]);
    // Longer, and shorter.
    write(&site.path("large.bin"), &[b'c'; SIZE + 1]);
    assert!(body().await.unwrap() == [b'c'; SIZE + 1]);
    write(&site.path("large.bin"), b"d");
    assert_eq!(body().await.unwrap(), b"d");
    // An hour passes, because a small file is cached now. Then the file is replaced.
    write(&site.path("large.bin"), &[b'e'; SIZE]);
    let seen = site.ask_after(2, "/large.bin", &[]).await.unwrap();
    assert!(seen.body == [b'e'; SIZE] && is_held());
    write(&site.path("new.bin"), &[b'f'; SIZE]);
    fs::rename(site.path("new.bin"), site.path("large.bin")).unwrap();
    assert!(site.ask_after(2, "/large.bin", &[]).await.unwrap().body == [b'f'; SIZE]);
    // A link that leads outside, to the very same name.
    write(&site.directory.path().join("secret.bin"), &[b's'; SIZE]);
    fs::remove_file(site.path("large.bin")).unwrap();
    symlink("../secret.bin", site.path("large.bin")).unwrap();
    let seen = site.ask_after(2, "/large.bin", &[]).await;
    assert_eq!(seen, Err(Reject::FileNotFound));
    assert!(!is_held());
}

#[tokio::test]
async fn a_file_that_moved_away_unchanged_is_served_for_a_second_at_most() {
    let site = site();
    fs::create_dir(site.path("old")).unwrap();
    write(&site.path("old/large.bin"), &[b'a'; 300_000]);
    site.ask_later("/old/large.bin", &[]).await.unwrap();
    fs::rename(site.path("old"), site.path("new")).unwrap();
    let seen = site.ask_after(2, "/old/large.bin", &[]).await;
    assert_eq!(seen, Err(Reject::FileNotFound));
    assert!(site.ask_later("/new/large.bin", &[]).await.is_ok());
}

#[test]
fn settings_that_lead_elsewhere_are_refused() {
    #[track_caller]
    fn check(change: impl FnOnce(&mut FilesSettings), good: bool) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("site")).unwrap();
        let mut settings = settings(&directory);
        change(&mut settings);
        let shown = format!("{settings:?}");
        assert_eq!(Files::open(settings).is_ok(), good, "{shown}");
    }
    check(|_| {}, true);
    check(
        |settings| settings.fallback = Some("/app/index.html".to_owned()),
        true,
    );
    check(
        |settings| settings.fallback = Some("index.html".to_owned()),
        false,
    );
    check(
        |settings| settings.fallback = Some("/../secret".to_owned()),
        false,
    );
    check(|settings| settings.fallback = Some("/".to_owned()), false);
    check(|settings| settings.index = vec![".htm".to_owned()], true);
    check(
        |settings| settings.index = vec!["../secret".to_owned()],
        false,
    );
    check(|settings| settings.index = vec![String::new()], false);
    check(|settings| settings.index = vec!["..".to_owned()], false);
    check(|settings| settings.roots[0].path.push("missing"), false);
    check(|settings| settings.roots.clear(), false);
    check(
        |settings| {
            let again = settings.roots[0].path.clone();
            settings.roots.push(root(again));
        },
        true,
    );
    check(
        |settings| {
            settings
                .roots
                .push(root(settings.roots[0].path.join("missing")));
        },
        false,
    );
}

/// Writes a file that was modified so many seconds after all others.
fn write_after(site: &Site, name: &str, content: &[u8], seconds: u64) {
    write(&site.path(name), content);
    let modified = UNIX_EPOCH + Duration::from_secs(MODIFIED + seconds);
    let file = File::options().write(true).open(site.path(name)).unwrap();
    file.set_modified(modified).unwrap();
}

const ALL: (&str, &str) = ("accept-encoding", "gzip, br, zstd");

#[tokio::test]
async fn the_form_that_the_client_prefers_is_sent_and_among_equals_the_smallest() {
    let site = site();
    write(&site.path("a.css.gz"), b"gzip");
    write(&site.path("a.css.br"), b"br!");
    write(&site.path("a.css.zst"), b"longer than all");
    for (accepted, expected, body) in [
        ("gzip, br, zstd", "br", "br!"),
        ("gzip, br;q=0.9, zstd;q=0.8", "gzip", "gzip"),
        // What alone is accepted is sent, however long it is.
        ("zstd", "zstd", "longer than all"),
        ("zstd, identity", "", "0123456789"),
        ("zstd, identity;q=0.5", "zstd", "longer than all"),
        ("x-gzip", "gzip", "gzip"),
        ("*", "br", "br!"),
        ("*, br;q=0", "gzip", "gzip"),
        ("identity, gzip;q=0.5", "", "0123456789"),
        ("identity;q=0, *;q=0", "", "0123456789"),
        ("deflate", "", "0123456789"),
        ("", "", "0123456789"),
        ("gzip;q=x", "", "0123456789"),
    ] {
        let seen = site.get("/a.css", &[("accept-encoding", accepted)]).await;
        let seen = seen.unwrap();
        assert_eq!(seen.header("content-encoding"), expected, "{accepted}");
        assert_eq!(seen.body, body.as_bytes(), "{accepted}");
        assert_eq!(seen.header("vary"), "Accept-Encoding");
        assert_eq!(seen.header("content-type"), "text/css; charset=utf-8");
        assert_eq!(seen.header("content-length"), body.len().to_string());
    }
    let plain = site.get("/a.css", &[]).await.unwrap();
    assert_eq!(plain.header("vary"), "Accept-Encoding");
    assert_eq!(plain.body, b"0123456789");
    // By its own name it is another file, with one form.
    let own = site.get("/a.css.br", &[ALL]).await.unwrap();
    assert_eq!(own.header("vary"), "");
    assert_eq!(own.header("content-encoding"), "");
    assert_ne!(own.header("content-type"), "text/css; charset=utf-8");
}

#[tokio::test]
async fn each_form_has_its_own_tag_ranges_and_conditions() {
    let site = site();
    // Of the same length and the same time.
    for name in ["a.css.gz", "a.css.br", "a.css.zst"] {
        write(&site.path(name), b"abcdefghij");
    }
    let tag = async |accepted: &str| {
        let seen = site.get("/a.css", &[("accept-encoding", accepted)]).await;
        seen.unwrap().header("etag").to_owned()
    };
    let tags = [
        tag("identity").await,
        tag("gzip").await,
        tag("br").await,
        tag("zstd").await,
    ];
    let mut different = tags.to_vec();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), 4, "{tags:?}");
    let br = ("accept-encoding", "br");
    for (tag, status) in [(&tags[2], 304), (&tags[0], 200), (&tags[1], 200)] {
        let seen = site.get("/a.css", &[br, ("if-none-match", tag)]).await;
        let seen = seen.unwrap();
        assert_eq!(seen.status, status);
        assert_eq!(seen.header("vary"), "Accept-Encoding");
        assert_eq!(seen.header("etag"), tags[2]);
    }
    let part = site.get("/a.css", &[br, ("range", "bytes=2-3")]).await;
    let part = part.unwrap();
    assert_eq!((part.status, part.body.as_slice()), (206, b"cd".as_slice()));
    assert_eq!(part.header("content-range"), "bytes 2-3/10");
    assert_eq!(part.header("content-encoding"), "br");
    assert_eq!(part.header("vary"), "Accept-Encoding");
    let same = [br, ("range", "bytes=2-3"), ("if-range", tags[0].as_str())];
    assert_eq!(site.get("/a.css", &same).await.unwrap().status, 200);
    let beyond = site.get("/a.css", &[br, ("range", "bytes=10-")]).await;
    let refused = Reject::RangeNotSatisfiable {
        length: 10,
        varies: true,
    };
    assert_eq!(beyond, Err(refused));
    let head = site.ask(Method::HEAD, "/a.css", 0, &[br]).await.unwrap();
    assert_eq!(head.header("content-encoding"), "br");
    assert_eq!(head.header("content-length"), "10");
}

#[tokio::test]
async fn an_old_sibling_and_what_is_no_file_of_the_root_are_not_sent() {
    let site = site();
    write(&site.directory.path().join("secret.gz"), b"secret");
    symlink("../secret.gz", site.path("a.css.gz")).unwrap();
    fs::create_dir(site.path("a.css.zst")).unwrap();
    let seen = site.get("/a.css", &[ALL]).await.unwrap();
    assert_eq!(
        (seen.header("vary"), seen.header("content-encoding")),
        ("", "")
    );
    // Older by a second, though the file is served from memory.
    write_after(&site, "app.js", b"new content", 5);
    write_after(&site, "app.js.gz", b"old", 4);
    for hours in 1..4 {
        let seen = site.ask_after(hours, "/app.js", &[ALL]).await.unwrap();
        assert_eq!(seen.body, b"new content");
        assert_eq!(seen.header("vary"), "");
    }
    // Compressed again, and forgotten again.
    write_after(&site, "app.js.gz", b"new", 5);
    assert_eq!(
        site.ask_after(5, "/app.js", &[ALL]).await.unwrap().body,
        b"new"
    );
    write_after(&site, "app.js", b"newer content", 9);
    let seen = site.ask_after(6, "/app.js", &[ALL]).await.unwrap();
    assert_eq!(seen.body, b"newer content");
    fs::remove_file(site.path("app.js.gz")).unwrap();
    write_after(&site, "app.js.br", b"br", 9);
    assert_eq!(
        site.ask_after(7, "/app.js", &[ALL]).await.unwrap().body,
        b"br"
    );
    // A sibling alone is nothing.
    write(&site.path("alone.js.gz"), b"gzip");
    site.check_with("/alone.js", &[ALL], Err(Reject::FileNotFound))
        .await;
    // Dotfiles stay hidden.
    write(&site.path(".env.gz"), b"secret");
    site.check_with("/.env", &[ALL], Err(Reject::FileNotFound))
        .await;
}

#[tokio::test]
async fn an_index_and_the_fallback_have_forms_too_and_large_ones_are_streamed() {
    let site = app();
    write(&site.path("index.html.br"), b"br");
    for target in ["/", "/orders/7"] {
        let seen = site.get(target, &[ALL, BROWSER]).await.unwrap();
        assert_eq!(seen.body, b"br", "{target}");
        assert_eq!(seen.header("content-type"), "text/html; charset=utf-8");
    }
    write(&site.path("large.js"), &[b'a'; 900_000]);
    write(&site.path("large.js.gz"), &[b'b'; 400_000]);
    for hours in 1..3 {
        let seen = site.ask_after(hours, "/large.js", &[ALL]).await.unwrap();
        assert!(seen.body == [b'b'; 400_000]);
        let seen = site.ask_after(hours, "/large.js", &[]).await.unwrap();
        assert!(seen.body == [b'a'; 900_000]);
    }
    let none = site_with(|settings| settings.precompressed = Vec::new());
    write(&none.path("a.css.br"), b"br");
    let seen = none.get("/a.css", &[ALL]).await.unwrap();
    assert_eq!(
        (seen.body.as_slice(), seen.header("vary")),
        (b"0123456789".as_slice(), "")
    );
}

#[tokio::test]
async fn what_users_upload_runs_in_nobodys_name() {
    let site = site_with(|settings| settings.describe.untrusted = true);
    write(&site.path("a.png"), b"png");
    for (target, is_shown) in [("/a.png", true), ("/", false), ("/a.css", false)] {
        let seen = site.get(target, &[]).await.unwrap();
        assert_eq!(
            seen.header("content-security-policy"),
            "sandbox; default-src 'none'"
        );
        assert_eq!(seen.header("x-content-type-options"), "nosniff");
        assert_eq!(!seen.headers.contains_key("content-disposition"), is_shown);
    }
}

/// A site whose files are compressed.
fn compressing(codings: &[Coding]) -> Site {
    let codings = codings.to_vec();
    site_with(|settings| {
        settings.compression = Some(FileCompression {
            rules: CompressRules {
                codings,
                ..CompressRules::default()
            },
            made: Arc::new(CompressedFiles::new(1 << 20)),
        });
    })
}

#[tokio::test]
async fn a_text_is_compressed_once_and_has_its_own_tag_and_ranges() {
    let site = compressing(&[Coding::Gzip]);
    let text = "a text that is worth it. ".repeat(1000);
    write(&site.path("long.txt"), text.as_bytes());
    let gzip = ("accept-encoding", "gzip");
    let first = site.ask_later("/long.txt", &[gzip]).await.unwrap();
    assert_eq!(first.header("content-encoding"), "gzip");
    assert_eq!(first.header("vary"), "Accept-Encoding");
    assert_eq!(first.header("content-type"), "text/plain; charset=utf-8");
    assert!(first.body.len() < 500);
    let mut plain = String::new();
    let mut decoder = flate2::read::GzDecoder::new(&*first.body);
    io::Read::read_to_string(&mut decoder, &mut plain).unwrap();
    assert_eq!(plain, text);
    assert_eq!(site.ask_later("/long.txt", &[gzip]).await.unwrap(), first);
    // From the store of all routes, an hour later.
    assert_eq!(
        site.ask_after(2, "/long.txt", &[gzip]).await.unwrap(),
        first
    );
    let etag = first.header("etag");
    let whole = site.ask_later("/long.txt", &[]).await.unwrap();
    assert_eq!(whole.header("vary"), "Accept-Encoding");
    assert_ne!(whole.header("etag"), etag);
    assert_eq!(whole.body, text.as_bytes());
    let same = [gzip, ("if-none-match", etag)];
    assert_eq!(
        site.ask_later("/long.txt", &same).await.unwrap().status,
        304
    );
    let part = [gzip, ("range", "bytes=0-1"), ("if-range", etag)];
    let part = site.ask_later("/long.txt", &part).await.unwrap();
    assert_eq!((part.status, part.body.as_slice()), (206, &first.body[..2]));
    // Another version.
    write(&site.path("long.txt"), text.to_uppercase().as_bytes());
    let second = site.ask_after(3, "/long.txt", &[gzip]).await.unwrap();
    assert_ne!(second.header("etag"), etag);
    assert_ne!(second.body, first.body);
}

#[tokio::test]
async fn what_is_short_or_changed_just_now_or_of_another_type_is_sent_as_it_is() {
    let site = compressing(&Coding::ALL);
    let text = "a text that is worth it. ".repeat(1000);
    write(&site.path("long.txt"), text.as_bytes());
    write(&site.path("long.png"), text.as_bytes());
    write(&site.path("short.txt"), b"short");
    let plain = async |target: &str, varies: bool| {
        let seen = site.ask_later(target, &[ALL]).await.unwrap();
        assert_eq!(seen.header("content-encoding"), "", "{target}");
        assert_eq!(seen.headers.contains_key("vary"), varies, "{target}");
    };
    plain("/long.png", false).await;
    plain("/short.txt", false).await;
    // Written a moment ago, by the clock of the file system.
    let now = crate::clock::now();
    let fresh = site.ask_at(now, Method::GET, "/long.txt", 0, &[ALL]).await;
    let fresh = fresh.unwrap();
    assert_eq!(fresh.header("content-encoding"), "");
    assert_eq!(fresh.header("vary"), "Accept-Encoding");
    let later = site.ask_later("/long.txt", &[ALL]).await.unwrap();
    assert_eq!(later.header("content-encoding"), "zstd");
    // What does not get shorter.
    let mut state = 88_172_645_463_325_252_u64;
    let noise: Vec<u8> = (0..1000)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect();
    write(&site.path("noise.txt"), &noise);
    for hours in 1..4 {
        let seen = site.ask_after(hours, "/noise.txt", &[ALL]).await.unwrap();
        assert_eq!(seen.header("content-encoding"), "");
        assert!(seen.body == noise);
    }
}

#[tokio::test]
async fn a_sibling_comes_before_what_the_gateway_would_make() {
    let site = compressing(&Coding::ALL);
    let text = "a text that is worth it. ".repeat(1000);
    write(&site.path("long.txt"), text.as_bytes());
    write(&site.path("long.txt.br"), b"br");
    let row = async |accepted: &str, expected: &str| {
        let fields = [("accept-encoding", accepted)];
        let seen = site.ask_later("/long.txt", &fields).await.unwrap();
        assert_eq!(seen.header("content-encoding"), expected, "{accepted}");
        assert_eq!(expected == "br", seen.body == b"br", "{accepted}");
    };
    row("gzip, br, zstd", "br").await;
    row("gzip, zstd", "zstd").await;
    row("gzip", "gzip").await;
    row("zstd, br;q=0.9", "zstd").await;
    row("identity", "").await;
}

/// The names in a listing, as its page has them.
fn listed(page: &[u8]) -> Vec<String> {
    let page = std::str::from_utf8(page).unwrap();
    let rows = page.split("<a href=\"./").skip(1);
    let names = rows.map(|row| row.split(['>', '<']).nth(1).unwrap().to_owned());
    names.collect()
}

fn listing_site() -> Site {
    let site = site_with(|settings| {
        let vendor = settings.roots[0].path.with_file_name("vendor");
        for name in ["bare/a.txt", "bare/z.txt", "only/b.txt", "docs/vendor.txt"] {
            write(&vendor.join(name), b"vendor, and longer");
        }
        settings.listing = true;
        settings.roots.push(root(vendor));
    });
    fs::create_dir(site.path("bare/dir")).unwrap();
    write(&site.path("bare/.secret"), b"secret");
    write(&site.path("bare/<i>.txt"), b"x");
    write(&site.path("bare/back\\slash"), b"not served");
    symlink("../a.css", site.path("bare/link.css")).unwrap();
    symlink("../docs", site.path("bare/linked")).unwrap();
    symlink("../../secret.txt", site.path("bare/out.txt")).unwrap();
    symlink("nowhere", site.path("bare/dangling")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(site.path("bare/socket")).unwrap();
    site
}

#[tokio::test]
async fn a_directory_without_an_index_is_listed_and_only_what_is_served() {
    let site = listing_site();
    let seen = site.get("/bare/", &[]).await.unwrap();
    assert_eq!(
        listed(&seen.body),
        [
            "dir/",
            "linked/",
            "&lt;i&gt;.txt",
            "a.txt",
            "link.css",
            "z.txt"
        ]
    );
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "no-cache"),
        ("vary", "Accept"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(seen.header(name), value);
    }
    assert!(
        seen.header("content-security-policy")
            .starts_with("default-src 'none'")
    );
    let text = String::from_utf8(seen.body.clone()).unwrap();
    assert!(text.contains("<title>Index of /bare/</title>") && text.contains("\"../\""));
    // What the first root has is what would be served.
    assert!(text.contains("<td title=\"1 bytes\">"), "{text}");
    let json = site.get("/bare/", &[("accept", "application/json")]).await;
    let json: serde_json::Value = serde_json::from_slice(&json.unwrap().body).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 6);
    assert_eq!(
        json[3],
        serde_json::json!({"name": "a.txt", "type": "file", "mtime": DATE, "size": 1})
    );
    for entry in json.as_array().unwrap() {
        let slash = if entry["type"] == "directory" {
            "/"
        } else {
            ""
        };
        let name = entry["name"]
            .as_str()
            .unwrap()
            .replace('<', "%3C")
            .replace('>', "%3E");
        let seen = site.get(&format!("/bare/{name}{slash}"), &[]).await;
        assert_eq!(seen.unwrap().status, 200, "{name}");
    }
    let head = site.ask(Method::HEAD, "/bare/", 0, &[]).await.unwrap();
    assert_eq!(head.header("content-length"), seen.body.len().to_string());
    // One that only the second root has; one with an index; the top, which has no parent; no directory.
    assert_eq!(
        listed(&site.get("/only/", &[]).await.unwrap().body),
        ["b.txt"]
    );
    site.check("/docs/", Ok("<p>docs")).await;
    fs::remove_file(site.path("index.html")).unwrap();
    let top = site.ask(Method::GET, "/files/", 1, &[]).await.unwrap();
    let text = String::from_utf8(top.body).unwrap();
    assert!(
        !text.contains("\"../\"") && text.contains(".well-known/"),
        "{text}"
    );
    assert!(!text.contains(".git") && !text.contains(".env"));
    let redirect = site.get("/bare", &[]).await.unwrap();
    assert_eq!(redirect.status, 301);
    site.check("/none/", Err(Reject::FileNotFound)).await;
    site.check("/bare/dir/none/", Err(Reject::FileNotFound))
        .await;
    site.check("/.git/", Err(Reject::FileNotFound)).await;
    site.check("/a.css/", Err(Reject::FileNotFound)).await;
}

#[tokio::test]
async fn directories_are_not_listed_unless_the_route_says_so() {
    site().check("/bare/", Err(Reject::FileNotFound)).await;
    app().check("/bare/", Err(Reject::FileNotFound)).await;
}

#[tokio::test]
async fn a_listing_has_ten_thousand_entries_at_most() {
    let site = site_with(|settings| settings.listing = true);
    for at in 0..10_001 {
        File::create(site.path(&format!("bare/{at}"))).unwrap();
    }
    let seen = site.get("/bare/", &[]).await.unwrap();
    assert_eq!(listed(&seen.body).len(), 10_000);
    let text = String::from_utf8(seen.body).unwrap();
    assert!(text.contains("There are more"));
    fs::remove_file(site.path("bare/1")).unwrap();
    fs::remove_file(site.path("bare/2")).unwrap();
    let seen = site.get("/bare/", &[]).await.unwrap();
    assert_eq!(listed(&seen.body).len(), 10_000, "with a.txt");
    assert!(
        !String::from_utf8(seen.body)
            .unwrap()
            .contains("There are more")
    );
}
