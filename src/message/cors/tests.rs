//! Which origins may send what and read which responses, row by row.

use super::*;

fn cors(origins: &[&str], change: impl FnOnce(&mut CorsSettings)) -> Cors {
    let mut settings = CorsSettings {
        origins: origins
            .iter()
            .map(|text| Origin::parse(text).unwrap())
            .collect(),
        credentials: false,
        methods: MethodSet::COMMON,
        headers: vec!["Authorization".to_owned(), "X-A".to_owned()],
        expose: vec!["Retry-After".to_owned()],
        max_age: Duration::from_secs(600),
    };
    change(&mut settings);
    Cors::new(settings)
}

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

/// All values of a field.
fn all(headers: &HeaderMap, name: &str) -> String {
    let lines: Vec<&str> = headers
        .get_all(name)
        .iter()
        .map(|line| line.to_str().unwrap())
        .collect();
    lines.join(" | ")
}

#[test]
fn origins_are_written_as_browsers_write_them() {
    for (text, expected) in [
        ("https://A.example.com", Some("https://a.example.com")),
        ("HTTPS://a", Some("https://a")),
        ("https://a:443", Some("https://a")),
        ("https://a:0443", Some("https://a")),
        ("http://a:80", Some("http://a")),
        ("http://a:443", Some("http://a:443")),
        ("http://[::1]:8080", Some("http://[::1]:8080")),
        ("http://[::1]", Some("http://[::1]")),
        ("http://[::1]:80", Some("http://[::1]")),
        ("https://", None),
        ("https://:443", None),
        ("a.example.com", None),
        ("ftp://a", None),
        ("capacitor://localhost", Some("capacitor://localhost")),
        ("Tauri://Localhost", Some("tauri://localhost")),
        ("ionic://localhost", Some("ionic://localhost")),
        (
            "chrome-extension://mdplmiioglkpgkgblfdilgebpppgdlma",
            Some("chrome-extension://mdplmiioglkpgkgblfdilgebpppgdlma"),
        ),
        (
            "moz-extension://3c078156-979c-498b-8990-85f7987dd929",
            Some("moz-extension://3c078156-979c-498b-8990-85f7987dd929"),
        ),
        ("capacitor://", None),
        ("capacitor://localhost/", None),
        ("capacitor://localhost:1", None),
        ("capacitor://a b", None),
        ("javascript://a", None),
        ("file://a", None),
        ("https://a/b", None),
        ("https://a/", None),
        ("https://a b", None),
        ("https://a:", None),
        ("https://a:+443", None),
        ("https://a:65536", None),
        ("https://a:1:2", None),
        ("https://::1", None),
        ("https://[a]", None),
        ("https://u@a", None),
        ("null", None),
        ("", None),
    ] {
        assert_eq!(normal(text).as_deref(), expected, "{text}");
    }
}

#[test]
fn origins_are_read_or_it_is_said_what_to_write() {
    for (text, expected) in [
        ("*", Ok("*")),
        ("https://App.example.com:443", Ok("https://app.example.com")),
        ("https://*.Example.com", Ok("https://*.example.com")),
        ("http://*.a:8080", Ok("http://*.a:8080")),
        ("https://*.a:443", Ok("https://*.a")),
        ("null", Err("sandboxed")),
        ("app.example.com", Err("write `https://app.example.com`")),
        ("", Err("origins are")),
        ("https://a/", Err("no path; write `https://a`")),
        ("https://*.A/b", Err("no path; write `https://*.a`")),
        ("https://a?b", Err("no path; write `https://a`")),
        ("https://app-*.example.com", Err("a star stands")),
        ("https://*", Err("a star stands")),
        ("https://*.*.a", Err("a star stands")),
        ("*.example.com", Err("origins are")),
        ("https://*.10.0.0.1", Err("no hosts below")),
        ("https://*.[::1]:1", Err("no hosts below")),
        ("capacitor://localhost", Ok("capacitor://localhost")),
        ("capacitor://*.a", Err("none below")),
        ("javascript:alert(1)", Err("origins are")),
        ("safari-web-extension://a", Err("origins are")),
        ("https://b\u{fc}cher.example", Err("origins are")),
        ("https://a, https://b", Err("origins are")),
    ] {
        let read = Origin::parse(text);
        match (read, expected) {
            (Ok(origin), Ok(expected)) => assert_eq!(origin.to_string(), expected, "{text}"),
            (Err(hint), Err(expected)) => assert!(hint.contains(expected), "{text}: {hint}"),
            (read, expected) => panic!("{text}: {read:?}, not {expected:?}"),
        }
    }
}

#[test]
fn only_pages_of_origins_that_are_named_may_read() {
    let listed = cors(
        &[
            "https://app.example.com",
            "https://*.example.org",
            "http://*.dev.test:3000",
        ],
        |_| {},
    );
    for (origins, may) in [
        (&["https://app.example.com"][..], true),
        (&["https://a.example.org"], true),
        (&["https://a.b-c.example.org"], true),
        (&["http://x.dev.test:3000"], true),
        (&[], false),
        (&["null"], false),
        (&[""], false),
        (&["*"], false),
        (&["https://app.example.com", "null"], false),
        (
            &["https://app.example.com", "https://app.example.com"],
            false,
        ),
        (&["https://app.example.com https://evil.org"], false),
        (&["https://app.example.com,https://evil.org"], false),
        (&["http://app.example.com"], false),
        (&["https://app.example.com:443"], false),
        (&["https://app.example.com:8443"], false),
        (&["HTTPS://app.example.com"], false),
        (&["https://App.example.com"], false),
        (&["https://app.example.com/"], false),
        (&["https://app.example.com.evil.org"], false),
        (&["https://evilapp.example.com"], false),
        (&["https://x.app.example.com"], false),
        // A subdomain pattern excludes the name itself, and names that merely end with the same text.
        (&["https://example.org"], false),
        (&["https://.example.org"], false),
        (&["https://evilexample.org"], false),
        (&["https://a.example.org.evil.org"], false),
        (&["https://evil.org/.example.org"], false),
        (&["https://evil.org:1.example.org"], false),
        (&["https://evil.org#.example.org"], false),
        (&["https://u@x.example.org"], false),
        (&["https://a..example.org"], false),
        (&["https://A.example.org"], false),
        (&["http://a.example.org"], false),
        (&["https://a.example.org:8443"], false),
        (&["http://x.dev.test"], false),
        (&["http://x.dev.test:3001"], false),
        (&["http://x.dev.test:30000"], false),
    ] {
        let fields: Vec<_> = origins.iter().map(|origin| ("origin", *origin)).collect();
        let request = headers(&fields);
        let reader = listed.reader(&request);
        assert_eq!(reader.is_some(), may, "{origins:?}");
        if let Some(reader) = reader {
            assert_eq!(reader, origins[0]);
        }
        let any = cors(&["*"], |_| {});
        assert_eq!(any.reader(&request).unwrap(), "*", "{origins:?}");
    }
    let mut odd = HeaderMap::new();
    odd.insert("origin", HeaderValue::from_bytes(b"https://\xff").unwrap());
    assert_eq!(listed.reader(&odd), None);
}

#[test]
fn an_answer_says_who_may_read_it_and_the_app_does_not() {
    let app = [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-origin", "https://evil.org"),
        ("access-control-allow-credentials", "true"),
        ("access-control-expose-headers", "X-Secret"),
        ("access-control-max-age", "1"),
    ];
    let said = |cors: &Cors, origin: Option<&str>, more: &[(&'static str, &str)]| {
        let fields: Vec<_> = origin.iter().map(|origin| ("origin", *origin)).collect();
        let mut answer = headers(&[&app, more].concat());
        cors.apply(cors.reader(&headers(&fields)), &mut answer);
        assert_eq!(all(&answer, "access-control-max-age"), "1");
        [
            "access-control-allow-origin",
            "access-control-allow-credentials",
            "access-control-expose-headers",
            "vary",
        ]
        .map(|name| all(&answer, name))
    };
    let listed = cors(&["https://a"], |_| {});
    assert_eq!(
        said(&listed, Some("https://a"), &[]),
        ["https://a", "", "Retry-After", "Origin"]
    );
    assert_eq!(
        said(&listed, Some("https://b"), &[]),
        ["", "", "", "Origin"]
    );
    assert_eq!(said(&listed, None, &[]), ["", "", "", "Origin"]);
    let with = cors(&["https://a"], |settings| {
        settings.credentials = true;
        settings.expose.clear();
    });
    assert_eq!(
        said(&with, Some("https://a"), &[]),
        ["https://a", "true", "", "Origin"]
    );
    assert_eq!(said(&with, Some("https://b"), &[]), ["", "", "", "Origin"]);
    let any = cors(&["*"], |_| {});
    assert_eq!(
        said(&any, Some("https://a"), &[]),
        ["*", "", "Retry-After", ""]
    );
    assert_eq!(said(&any, None, &[]), ["*", "", "Retry-After", ""]);
    // The app's cache headers are kept.
    for (vary, expected) in [
        ("Accept", "Accept | Origin"),
        ("accept-language, ORIGIN", "accept-language, ORIGIN"),
        ("*", "*"),
        ("X-Origin", "X-Origin | Origin"),
    ] {
        let [.., seen] = said(&listed, None, &[("vary", vary)]);
        assert_eq!(seen, expected);
    }
    let [.., seen] = said(&any, None, &[("vary", "Accept")]);
    assert_eq!(seen, "Accept");
}

#[test]
fn a_preflight_is_one_origin_that_asks_about_one_method() {
    const ORIGIN: (&str, &str) = ("origin", "https://a");
    const ASKED: (&str, &str) = ("access-control-request-method", "PUT");
    let asked = |method: &str, fields: &[(&'static str, &str)]| {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        preflighted(&method, &headers(fields)).map(|method| method.to_string())
    };
    assert_eq!(asked("OPTIONS", &[ORIGIN, ASKED]), Some("PUT".to_owned()));
    let odd = ("access-control-request-method", "brew");
    assert_eq!(asked("OPTIONS", &[ORIGIN, odd]), Some("brew".to_owned()));
    for (method, fields) in [
        ("GET", &[ORIGIN, ASKED][..]),
        ("OPTIONS", &[]),
        ("OPTIONS", &[ORIGIN]),
        ("OPTIONS", &[ASKED]),
        ("OPTIONS", &[ORIGIN, ORIGIN, ASKED]),
        ("OPTIONS", &[ORIGIN, ASKED, ASKED]),
        ("OPTIONS", &[ORIGIN, ("access-control-request-method", "")]),
        (
            "OPTIONS",
            &[ORIGIN, ("access-control-request-method", "PUT, GET")],
        ),
    ] {
        assert_eq!(asked(method, fields), None, "{method} {fields:?}");
    }
}

#[test]
fn a_preflight_is_told_what_a_page_may_send() {
    let ask = |cors: &Cors, origin: &str, asked: &[&str]| {
        let mut fields = vec![("origin", origin)];
        fields.extend(
            asked
                .iter()
                .map(|line| ("access-control-request-headers", *line)),
        );
        cors.preflight(&headers(&fields)).map(|answer| {
            assert_eq!(
                all(&answer, "vary"),
                "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
            );
            let mut with_origin = answer.clone();
            cors.apply(cors.reader(&headers(&fields)), &mut with_origin);
            assert_eq!(all(&with_origin, "vary"), all(&answer, "vary"));
            [
                "access-control-allow-methods",
                "access-control-allow-headers",
                "access-control-max-age",
            ]
            .map(|name| all(&answer, name))
        })
    };
    let common = "GET, HEAD, POST, PUT, PATCH, DELETE";
    let named = cors(&["https://a"], |_| {});
    for asked in [&["x-b"][..], &[], &["authorization"]] {
        assert_eq!(
            ask(&named, "https://a", asked).unwrap(),
            [common, "Authorization, X-A", "600"]
        );
    }
    for origin in ["https://b", "null", "https://a.evil.org"] {
        assert_eq!(ask(&named, origin, &[]), Err(Reject::OriginRefused));
    }
    let bare = cors(&["*"], |settings| {
        settings.headers.clear();
        settings.methods = MethodSet::READ;
        settings.max_age = Duration::ZERO;
    });
    assert_eq!(
        ask(&bare, "null", &["x-b"]).unwrap(),
        ["GET, HEAD", "", "0"]
    );
    let echo = cors(&["https://a"], |settings| {
        settings.headers = vec!["*".to_owned()];
    });
    for (asked, said) in [
        (
            &["authorization,x-b, X-C_1"][..],
            "authorization,x-b, X-C_1",
        ),
        (&["x-b", "x-c"], "x-b | x-c"),
        (&[], ""),
        (&["x-b: 1"], ""),
        (&["x-b\tx"], ""),
        (&["<script>"], ""),
        (&["x\"y"], ""),
        (&["x-b", "(x)"], "x-b"),
    ] {
        let [_, seen, _] = ask(&echo, "https://a", asked).unwrap();
        assert_eq!(seen, said, "{asked:?}");
    }
}

#[test]
fn it_is_told_in_words() {
    let both = cors(&["https://a", "https://*.b:1"], |settings| {
        settings.credentials = true;
    });
    assert_eq!(
        both.to_string(),
        "https://a, https://*.b:1, with credentials"
    );
    assert_eq!(cors(&["*"], |_| {}).to_string(), "*");
}
