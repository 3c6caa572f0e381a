//! What of a message's fields passes, in both directions.

use proptest::prelude::*;

use super::*;
use crate::net::client::TrustedProxies;

fn map(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            value.parse().unwrap(),
        );
    }
    headers
}

fn prepared(fields: &[(&str, &str)], trusted: bool) -> HeaderMap {
    let mut sent = sent(fields, trusted, false);
    assert!(sent.remove("cdn-loop").is_some());
    sent
}

fn sent(fields: &[(&str, &str)], trusted: bool, underscores: bool) -> HeaderMap {
    let peer = Peer::new(Some("203.0.113.9".parse().unwrap()), true);
    let vouched = Vouched::new([HeaderName::from_static("x-user-id")], None);
    let fields = map(fields);
    let networks = vec!["203.0.113.0/24".parse().unwrap()];
    let trusting = TrustedProxies {
        networks: if trusted { networks } else { Vec::new() },
        unix: false,
    };
    let edits = HeaderEdits::new(
        vec![(
            HeaderName::from_static("x-stage"),
            Written::parse("live").unwrap(),
        )],
        vec![HeaderName::from_static("x-secret-key")],
    );
    let hop = Hop {
        peer: &peer,
        client: &trusting.client(&peer, &fields),
        vouched: &vouched,
        edits: Some(&edits),
        underscores,
        id: RequestId(7),
        host: &HeaderValue::from_static("app"),
    };
    let uri = Uri::from_static("/");
    let prepared = prepare(&fields, &uri, None, hop).unwrap();
    prepared
        .iter()
        .map(|(name, value)| (name.clone(), value.to_header().unwrap()))
        .collect()
}

#[test]
fn a_request_has_a_host() {
    assert_eq!(prepared(&[], false)["host"], "app");
    assert_eq!(prepared(&[("host", "h")], false)["host"], "h");
}

#[test]
fn fields_of_the_connection_stop_here() {
    let headers = prepared(
        &[
            ("connection", "close"),
            ("connection", " x-debug ,keep-alive, host"),
            ("x-debug", "1"),
            ("keep-alive", "5"),
            ("te", "gzip"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
            ("transfer-encoding", "chunked"),
            ("proxy-authorization", "x"),
            ("accept", "*/*"),
            ("host", "h"),
        ],
        false,
    );
    let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "accept",
            "host",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-port",
            "x-forwarded-proto",
            "x-real-ip",
            "x-request-id"
        ]
    );
}

#[test]
fn connection_cannot_strike_what_the_gateway_sets() {
    let headers = prepared(
        &[("host", "h"), ("connection", "x-forwarded-for, x-user-id")],
        false,
    );
    assert_eq!(headers["x-forwarded-for"], "203.0.113.9");
}

#[test]
fn a_strangers_word_on_forwarding_is_replaced() {
    let theirs = [
        ("host", "h"),
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-proto", "gopher"),
        ("x-forwarded-host", "evil"),
        ("x-forwarded-port", "1"),
        ("x-forwarded-prefix", "/x"),
        ("forwarded", "for=1.1.1.1"),
        ("x_forwarded_for", "1.1.1.1"),
    ];
    let headers = prepared(&theirs, false);
    assert_eq!(headers["x-forwarded-for"], "203.0.113.9");
    assert_eq!(headers["x-forwarded-proto"], "https");
    assert_eq!(headers["x-forwarded-host"], "h");
    assert_eq!(headers["x-forwarded-port"], "443");
    assert_eq!(headers["x-real-ip"], "203.0.113.9");
    assert!(!headers.contains_key("forwarded") && !headers.contains_key("x-forwarded-prefix"));
    assert!(!headers.contains_key("x_forwarded_for"));
    let headers = prepared(&theirs, true);
    assert_eq!(headers["x-forwarded-for"], "1.1.1.1, 203.0.113.9");
    assert_eq!(
        headers["x-forwarded-proto"], "https",
        "nonsense is not passed on"
    );
    assert_eq!(headers["x-forwarded-host"], "evil");
    assert_eq!(headers["x-forwarded-port"], "1");
    assert_eq!(headers["x-real-ip"], "1.1.1.1");
    assert!(!headers.contains_key("forwarded"), "one tale");
    assert_eq!(headers["x-forwarded-prefix"], "/x");
    assert!(!headers.contains_key("x_forwarded_for"));
}

#[test]
fn a_clients_own_identity_never_passes() {
    for name in ["x-user-id", "x_user_id", "x-user_id", "X_User-Id"] {
        let headers = prepared(&[("host", "h"), (name, "root"), ("x-user", "fine")], true);
        assert!(
            headers
                .keys()
                .all(|name| !name.as_str().contains("user-id") && !name.as_str().contains('_')),
            "{name}"
        );
        assert_eq!(headers["x-user"], "fine");
    }
}

/// Bytes that apps read as `-`.
const ODD: &str = "_.~!#$%&'*+^`|";

#[test]
fn no_spelling_passes_what_only_the_gateway_says() {
    for byte in ODD.chars() {
        for name in [
            "x-user-id",
            "x-stage",
            "x-secret-key",
            "x-forwarded-for",
            "x-real-ip",
            "x-request-id",
            "x-original-url",
            "transfer-encoding",
            "content-length",
            "cdn-loop",
        ] {
            for odd in [
                name.replace('-', &byte.to_string()),
                name.replacen('-', &byte.to_string(), 1),
            ] {
                for trusted in [false, true] {
                    let headers = sent(&[("host", "h"), (&odd, "6")], trusted, true);
                    let passed = headers.values().any(|value| value == "6");
                    assert!(!passed, "{odd}");
                }
            }
        }
        let free = format!("x{byte}free");
        let passes = |underscores| {
            let headers = sent(&[("host", "h"), (&free, "6")], false, underscores);
            headers.contains_key(&free)
        };
        assert!(passes(true), "{free}");
        assert_eq!(passes(false), byte != '_', "{free}");
    }
    // Nor does the plain spelling of fields that the route sets or removes, or that carry claims.
    for name in ["x-stage", "x-secret-key", "x-user-id", "proxy"] {
        let headers = sent(&[("host", "h"), (name, "6")], true, true);
        assert!(!headers.contains_key(name), "{name}");
    }
    let headers = sent(&[("host", "h"), ("true-client-ip", "6")], true, true);
    assert_eq!(headers["true-client-ip"], "6", "a trusted proxy's");
}

#[test]
fn trailers_say_no_more_than_heads() {
    let rules = TrailerRules {
        vouched: fields::NameSet::new([HeaderName::from_static("x-user-id")]),
        edited: fields::NameSet::new([HeaderName::from_static("x-stage")]),
        underscores: false,
    };
    let mut trailers = map(&[
        ("x.user.id", "6"),
        ("x-user-id", "6"),
        ("x~stage", "6"),
        ("x-real-ip", "6"),
        ("x!forwarded!for", "6"),
        ("content.length", "6"),
        ("authorization", "6"),
        ("x_free", "6"),
        ("x-checksum", "7"),
    ]);
    clean_trailers(&mut trailers, Some(&rules));
    assert_eq!(trailers, map(&[("x-checksum", "7")]));
    let mut of_an_app = map(&[("x_free", "6"), ("x-user-id", "6"), ("te", "6")]);
    clean_trailers(&mut of_an_app, None);
    assert_eq!(of_an_app, map(&[("x_free", "6"), ("x-user-id", "6")]));
}

#[test]
fn the_port_is_the_clients() {
    for (host, port) in [
        ("a.test", "443"),
        ("a.test:8443", "8443"),
        ("a.test:", "443"),
        ("[::1]", "443"),
        ("[2001:db8::1]:81", "81"),
    ] {
        assert_eq!(prepared(&[("host", host)], false)["x-forwarded-port"], port);
    }
}

#[test]
fn a_request_that_has_been_here_comes_to_its_end() {
    let peer = Peer::new(None, false);
    let vouched = Vouched::default();
    let client = TrustedProxies::default().client(&peer, &HeaderMap::new());
    let hop = Hop {
        peer: &peer,
        client: &client,
        vouched: &vouched,
        edits: None,
        underscores: false,
        id: RequestId(7),
        host: &HeaderValue::from_static("app"),
    };
    let own = vouched.id.to_str().unwrap();
    let uri = Uri::from_static("/");
    for (theirs, expected) in [
        (vec![], Some(own.to_owned())),
        (
            vec!["cdn.test", "b; v=1"],
            Some(format!("cdn.test, b; v=1, {own}")),
        ),
        (vec![own], None),
        (vec!["cdn.test", &format!("a, {own}; x, b")], None),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert("connection", HeaderValue::from_static("cdn-loop"));
        for line in theirs {
            headers.append("cdn-loop", line.parse().unwrap());
        }
        let prepared = prepare(&headers, &uri, None, hop);
        let seen = prepared.map(|fields| {
            let own = fields.iter().filter(|(name, _)| **name == CDN_LOOP);
            let all: Vec<String> = own
                .map(|(_, value)| String::from_utf8(value.bytes().to_vec()).unwrap())
                .collect();
            all.join(" | ")
        });
        assert_eq!(seen.ok(), expected);
    }
}

proptest! {
    #[test]
    fn preparing_twice_is_preparing_once(
        fields in prop::collection::vec(("(connection|te|x-a|x-b|upgrade|forwarded|x-forwarded-for|x_user_id|keep-alive)", "[a-z, -]{0,12}"), 0..8),
    ) {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let once = prepared(&fields, false);
        let twice: Vec<(&str, &str)> = once.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        prop_assert_eq!(&prepared(&twice, false), &once);
    }
}
