//! Which responses are compressed, for whom, and what is said of them.

use http_body_util::BodyExt;

use super::*;

const LONG: &str = "a text that is long enough to be worth it. ";

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let name = HeaderName::try_from(*name).unwrap();
        headers.append(name, value.parse().unwrap());
    }
    headers
}

fn response(status: u16, fields: &[(&str, &str)]) -> Response<Body> {
    let mut response = Response::new(Body::full(LONG.repeat(100)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    *response.headers_mut() = headers(fields);
    response
}

/// Asks with these fields, and gets what was made of the response.
fn ask(
    rules: &CompressRules,
    asked: &[(&str, &str)],
    answered: Response<Body>,
) -> (Option<&'static str>, Response<Body>) {
    ask_as(rules, &Method::GET, Version::HTTP_11, asked, answered)
}

fn ask_as(
    rules: &CompressRules,
    method: &Method,
    version: Version,
    asked: &[(&str, &str)],
    mut answered: Response<Body>,
) -> (Option<&'static str>, Response<Body>) {
    let headers = headers(asked);
    let wish = rules.wish(&Asker {
        method,
        version,
        headers: &headers,
        is_private: false,
        has_key: false,
        has_certificate: false,
    });
    let encoding = rules.apply(&wish, &Arc::default(), &mut answered);
    (encoding, answered)
}

const GZIP: (&str, &str) = ("accept-encoding", "gzip");
const TEXT: (&str, &str) = ("content-type", "text/plain");

#[track_caller]
fn field<'r>(response: &'r Response<Body>, name: &str) -> Option<&'r str> {
    let value = response.headers().get(name)?;
    Some(value.to_str().unwrap())
}

#[tokio::test]
async fn a_text_is_compressed_and_says_so() {
    let fields = [
        TEXT,
        ("etag", "\"x\""),
        ("accept-ranges", "bytes"),
        ("content-md5", "x"),
        ("content-digest", "x"),
        ("repr-digest", "x"),
        ("content-length", "4300"),
        ("vary", "Cookie"),
    ];
    let rules = CompressRules::default();
    let (encoding, compressed) = ask(&rules, &[GZIP], response(200, &fields));
    assert_eq!(encoding, Some("gzip"));
    assert_eq!(field(&compressed, "content-encoding"), Some("gzip"));
    assert_eq!(field(&compressed, "etag"), Some("W/\"x\""));
    for gone in [
        "accept-ranges",
        "content-md5",
        "content-digest",
        "repr-digest",
        "content-length",
    ] {
        assert_eq!(field(&compressed, gone), None, "{gone}");
    }
    let vary: Vec<_> = compressed.headers().get_all("vary").iter().collect();
    assert_eq!(vary, ["Cookie", "Accept-Encoding"]);
    let body = compressed.into_body().collect().await.unwrap().to_bytes();
    assert!(body.len() < 200);
}

#[test]
fn among_equals_the_gateways_order_counts() {
    let all = ("accept-encoding", "gzip, br, zstd");
    let rules = CompressRules::default();
    assert_eq!(ask(&rules, &[all], response(200, &[TEXT])).0, Some("zstd"));
    let rules = CompressRules {
        codings: vec![Coding::Gzip, Coding::Br],
        ..rules
    };
    assert_eq!(ask(&rules, &[all], response(200, &[TEXT])).0, Some("gzip"));
    let br = ("accept-encoding", "gzip;q=0.5, br");
    assert_eq!(ask(&rules, &[br], response(200, &[TEXT])).0, Some("br"));
    let zstd = ("accept-encoding", "zstd");
    assert_eq!(ask(&rules, &[zstd], response(200, &[TEXT])).0, None);
}

#[test]
fn what_is_never_compressed_by_what_it_is() {
    let rules = CompressRules::default();
    for (status, fields) in [
        (204, &[TEXT][..]),
        (205, &[TEXT]),
        (206, &[TEXT]),
        (304, &[TEXT]),
        (101, &[TEXT]),
        (200, &[("content-type", "image/png")]),
        (200, &[("content-type", "text/event-stream")]),
        (200, &[("content-type", "application/grpc")]),
        (200, &[("content-type", "multipart/mixed")]),
        (200, &[]),
        (200, &[TEXT, ("content-range", "bytes 0-1/2")]),
        (200, &[TEXT, ("content-encoding", "br")]),
        (200, &[TEXT, ("content-encoding", "identity")]),
        (200, &[TEXT, ("cache-control", "max-age=1, No-Transform")]),
        (200, &[TEXT, ("content-length", "1023")]),
    ] {
        let (encoding, kept) = ask(&rules, &[GZIP], response(status, fields));
        assert_eq!(encoding, None, "{status} {fields:?}");
        assert_eq!(kept.headers(), &headers(fields), "{status} {fields:?}");
    }
    let mut short = response(200, &[TEXT]);
    *short.body_mut() = Body::full("short");
    assert_eq!(ask(&rules, &[GZIP], short).0, None);
    for status in [200, 404, 500] {
        let (encoding, _) = ask(&rules, &[GZIP], response(status, &[TEXT]));
        assert_eq!(encoding, Some("gzip"), "{status}");
    }
}

#[test]
fn who_gets_it_plain_is_told_that_others_do_not() {
    let rules = CompressRules::default();
    let plain = |version, asked: &[(&str, &str)]| {
        let answered = response(200, &[TEXT, ("etag", "\"x\"")]);
        let (encoding, kept) = ask_as(&rules, &Method::GET, version, asked, answered);
        assert_eq!(field(&kept, "content-encoding"), None, "{asked:?}");
        assert_eq!(field(&kept, "vary"), Some("Accept-Encoding"), "{asked:?}");
        assert_eq!(field(&kept, "etag"), Some("\"x\""));
        encoding
    };
    assert_eq!(plain(Version::HTTP_11, &[]), None);
    assert_eq!(
        plain(Version::HTTP_11, &[("accept-encoding", "deflate")]),
        None
    );
    assert_eq!(
        plain(Version::HTTP_11, &[GZIP, ("range", "bytes=0-1")]),
        None
    );
    assert_eq!(plain(Version::HTTP_10, &[GZIP]), None);
    assert_eq!(
        plain(Version::HTTP_2, &[GZIP, ("cookie", "a=b")]),
        Some("private")
    );
    for known in ["*", "accept-encoding", "Cookie, Accept-Encoding"] {
        let answered = response(200, &[TEXT, ("vary", known)]);
        let (_, kept) = ask(&rules, &[GZIP], answered);
        let vary: Vec<_> = kept.headers().get_all("vary").iter().collect();
        assert_eq!(vary, [known]);
    }
}

#[test]
fn credentials_that_browsers_add_need_the_browsers_word() {
    let rules = |private| CompressRules {
        private,
        ..CompressRules::default()
    };
    let site = |value| ("sec-fetch-site", value);
    let cookie = ("cookie", "a=b");
    let bearer = ("authorization", "Bearer x");
    let basic = ("authorization", "Basic x");
    for (asked, same_origin, never) in [
        (&[][..], true, true),
        (&[bearer], true, true),
        (&[("authorization", "DPoP x")], true, true),
        (&[cookie], false, false),
        (&[cookie, site("same-origin")], true, false),
        (&[cookie, site("none")], true, false),
        (&[cookie, site("same-site")], false, false),
        (&[cookie, site("cross-site")], false, false),
        (&[cookie, site("none"), site("none")], false, false),
        (&[basic], false, false),
        (&[basic, site("same-origin")], true, false),
        (&[("authorization", "Negotiate x")], false, false),
        (&[bearer, basic], false, false),
        (&[bearer, cookie], false, false),
        (&[site("cross-site")], true, true),
    ] {
        let asked = [&[GZIP], asked].concat();
        for (private, expected) in [
            (Private::SameOrigin, same_origin),
            (Private::Never, never),
            (Private::Always, true),
        ] {
            let (encoding, _) = ask(&rules(private), &asked, response(200, &[TEXT]));
            let expected = if expected { "gzip" } else { "private" };
            assert_eq!(encoding, Some(expected), "{private:?} {asked:?}");
        }
    }
    // A certificate; what allowed the request without any of these fields, such as a key in the query; and a key in a
    // header, which says nothing of a cookie or a certificate beside it.
    let cookie = ("cookie", "a=1");
    for (is_private, has_key, has_certificate, fields, expected) in [
        (false, false, true, vec![], Err(Denied::Private)),
        (true, false, false, vec![], Err(Denied::Private)),
        (true, true, false, vec![], Ok(Coding::Gzip)),
        (true, true, true, vec![], Err(Denied::Private)),
        (true, true, false, vec![cookie], Err(Denied::Private)),
        (true, true, false, vec![basic], Err(Denied::Private)),
    ] {
        let headers = headers(&[&[GZIP], fields.as_slice()].concat());
        let wish = rules(Private::SameOrigin).wish(&Asker {
            method: &Method::GET,
            version: Version::HTTP_2,
            headers: &headers,
            is_private,
            has_key,
            has_certificate,
        });
        assert_eq!(wish.coding(), expected);
    }
}

#[test]
fn a_304_has_the_tag_that_the_client_knows() {
    let rules = CompressRules::default();
    for (known, expected, varies) in [
        ("W/\"x\"", "W/\"x\"", true),
        ("\"y\", W/\"x\"", "W/\"x\"", true),
        ("\"x\"", "\"x\"", false),
        ("W/\"y\"", "\"x\"", false),
    ] {
        let asked = [GZIP, ("if-none-match", known)];
        let (_, kept) = ask(&rules, &asked, response(304, &[("etag", "\"x\"")]));
        assert_eq!(field(&kept, "etag"), Some(expected), "{known}");
        assert_eq!(field(&kept, "vary").is_some(), varies, "{known}");
    }
}

#[test]
fn head_says_what_get_would_without_a_length() {
    let rules = CompressRules::default();
    let head = |fields: &[(&str, &str)]| {
        let mut answered = response(200, fields);
        *answered.body_mut() = Body::Empty;
        ask_as(&rules, &Method::HEAD, Version::HTTP_11, &[GZIP], answered)
    };
    let (encoding, kept) = head(&[TEXT, ("content-length", "5000")]);
    assert_eq!(
        (encoding, field(&kept, "content-length")),
        (Some("gzip"), None)
    );
    assert!(matches!(kept.body(), Body::Empty));
    assert_eq!(head(&[TEXT, ("content-length", "5")]).0, None);
    assert_eq!(head(&[TEXT]).0, Some("gzip"));
}

#[test]
fn past_so_many_at_once_responses_go_plain() {
    let rules = CompressRules::default();
    let home = Arc::new(Encoders::default());
    let headers = headers(&[GZIP]);
    let wish = rules.wish(&Asker {
        method: &Method::GET,
        version: Version::HTTP_2,
        headers: &headers,
        is_private: false,
        has_key: false,
        has_certificate: false,
    });
    let mut all: Vec<_> = (0..100).map(|_| response(200, &[TEXT])).collect();
    let encodings: Vec<_> = all
        .iter_mut()
        .map(|response| rules.apply(&wish, &home, response))
        .collect();
    let count = |word| encodings.iter().filter(|it| **it == Some(word)).count();
    assert_eq!((count("gzip"), count("busy")), (64, 36));
    drop(all);
    let mut next = response(200, &[TEXT]);
    assert_eq!(rules.apply(&wish, &home, &mut next), Some("gzip"));
}
