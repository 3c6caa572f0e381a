//! Heads of requests: what is read, and what is refused.

use super::*;

const LIMITS: Limits = Limits {
    connections: 10,
    connections_per_ip: 10,
    header_bytes: 400,
    header_count: 5,
    uri_bytes: 100,
    body_bytes: 10,
};

#[track_caller]
fn check(text: &str, expected: Result<Option<Head>, Reject>) {
    let mut scan = HeadScan::default();
    let whole = scan.scan(text.as_bytes(), &LIMITS);
    if let Ok(Some((length, _))) = whole {
        let head = Bytes::copy_from_slice(&text.as_bytes()[..length]);
        let request = scan.request(&head, (), HeaderMap::new());
        if let Err(reject) = request {
            assert_eq!(Err(reject), expected, "{text:?}");
            return;
        }
    }
    assert_eq!(
        whole.map(|found| found.map(|found| found.1)),
        expected,
        "{text:?}"
    );
    // Byte by byte: the same result, and never a byte more than the head.
    let mut scan = HeadScan::default();
    let mut slowly = Ok(None);
    for end in 1..=text.len() {
        slowly = scan.scan(&text.as_bytes()[..end], &LIMITS);
        if let Ok(Some((length, _))) = slowly {
            assert_eq!(length, end);
        }
        if !matches!(slowly, Ok(None)) {
            break;
        }
    }
    assert_eq!(
        slowly.map(|found| found.map(|found| found.1)),
        expected,
        "{text:?} slowly"
    );
}

fn bad(what: &'static str) -> Result<Option<Head>, Reject> {
    Err(Reject::BadRequest(what))
}

#[test]
fn heads_say_how_their_bodies_are_framed() {
    check("GET / HTTP/1.1\r\nHost: h\r\n\r\n", Ok(Some(Head::NoBody)));
    check(
        "\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        Ok(Some(Head::NoBody)),
    );
    check("GET / HTTP/1.0\r\n\r\n", Ok(Some(Head::NoBody)));
    check(
        "POST / HTTP/1.1\r\nhost: h\r\nCONTENT-LENGTH:  12 \r\n\r\n",
        Ok(Some(Head::Length(12))),
    );
    check(
        "POST / HTTP/1.1\r\nhost: h\r\nContent-Length: 18446744073709551615\r\n\r\n",
        Ok(Some(Head::Length(u64::MAX))),
    );
    check(
        "POST / HTTP/1.1\r\nhost: h\r\nTransfer-Encoding: Chunked\r\n\r\n",
        Ok(Some(Head::Chunked)),
    );
    check("GET / HTTP/1.1\r\nHost: h\r\n", Ok(None));
}

#[test]
fn two_ways_to_frame_a_body_are_refused() {
    let both = bad("both Content-Length and Transfer-Encoding are given");
    check(
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        both,
    );
    check(
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        both,
    );
    check(
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n",
        bad("Content-Length is repeated"),
    );
    for length in [
        "00",
        "012",
        "+1",
        "-1",
        "1, 1",
        "0x1",
        "",
        "1 1",
        "18446744073709551616",
        "99999999999999999999",
    ] {
        check(
            &format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n"),
            bad("Content-Length is not a number"),
        );
    }
}

#[test]
fn chunked_stands_once_and_alone() {
    let head =
        |coding: &str| format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: {coding}\r\n");
    for coding in ["gzip", "gzip, chunked", "xchunked", "identity"] {
        check(&head(coding), Err(Reject::UnknownTransferCoding));
    }
    for coding in [
        "chunked, chunked",
        "chunked, gzip",
        "chunked,",
        "\"chunked\"",
        "chunked\x08",
    ] {
        assert!(
            matches!(
                HeadScan::default().scan(head(coding).as_bytes(), &LIMITS),
                Err(Reject::BadRequest(_))
            ),
            "{coding}"
        );
    }
    check(
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        bad("HTTP/1.0 has no Transfer-Encoding"),
    );
}

#[test]
fn hosts_are_counted() {
    check("GET / HTTP/1.1\r\n\r\n", Err(Reject::BadHost));
    check("GET / HTTP/1.1\r\nHost:\r\n", Err(Reject::BadHost));
    check(
        "GET / HTTP/1.1\r\nHost: h\r\nhost: h\r\n",
        Err(Reject::BadHost),
    );
}

#[test]
fn lines_are_read_in_one_way() {
    let line = bad("a line of the head does not end in CR LF");
    check("GET / HTTP/1.1\nHost: h\n\n", line);
    check("GET / HTTP/1.1\r\nHost: h\n", line);
    check("\n", line);
    check(
        "GET / HTTP/1.1\r\nHost: h\r\n b\r\n",
        bad("a header field is folded over several lines"),
    );
    check(
        "GET / HTTP/1.0\r\nHost : h\r\n\r\n",
        bad("a header field's name is malformed"),
    );
    check(
        "GET / HTTP/1.0\r\nX: a\rb\r\n\r\n",
        bad("a header field's value holds a control character"),
    );
    for value in ["a\0b", "\r", " \r", "a\x0c", "\x0b", "a \x1f\t"] {
        check(
            &format!("GET / HTTP/1.0\r\nX:{value}\r\n\r\n"),
            bad("a header field's value holds a control character"),
        );
    }
    check(
        "GET / HTTP/1.0\r\nX: \t \r\nY:\r\n\r\n",
        Ok(Some(Head::NoBody)),
    );
    check(
        "GET / HTTP/1.1\r\nnonsense\r\n",
        bad("a header field has no colon"),
    );
    for text in [
        "GET  / HTTP/1.1\r\n",
        "GET / HTTP/1.1 \r\n",
        "GET /\r\n",
        "G@T / HTTP/1.1\r\n",
        "GET / http/1.1\r\n",
    ] {
        check(text, bad("the request line is malformed"));
    }
    check("GET / HTTP/1.2\r\n", Err(Reject::VersionNotSupported));
    check("GET / HTTP/2.0\r\n", Err(Reject::VersionNotSupported));
}

#[test]
fn a_target_is_a_path_a_star_or_a_uri() {
    for target in [
        "/",
        "/a?b=c?d",
        "*",
        "http://h/x",
        "h:443",
        "/a\"b",
        "/?`",
        "/?a=>",
        "/?a=\"",
        "http://h?<",
    ] {
        check(
            &format!("GET {target} HTTP/1.0\r\n\r\n"),
            Ok(Some(Head::NoBody)),
        );
    }
    for target in [
        "/#a",
        "/\t",
        "/a<b",
        "/a`b",
        "/a<b?<",
        "/?a=<#",
        "foo/bar",
        "?x",
        "://",
        "http://",
        "http:///x",
        "http://[::1/",
        "http://h<x/",
        "http://h/x#a",
        "http://h/#\u{e9}",
    ] {
        check(
            &format!("GET {target} HTTP/1.0\r\n\r\n"),
            bad("the request target is malformed"),
        );
    }
}

#[test]
fn sizes_are_bounded() {
    check(&"a".repeat(300), bad("the request line is malformed"));
    check(
        &format!("GET /{} HTTP/1.1\r\n", "a".repeat(100)),
        Err(Reject::UriTooLong),
    );
    check(
        &format!("GET /{}", "a".repeat(200)),
        Err(Reject::UriTooLong),
    );
    // Too long in itself, in one piece or in many.
    check(
        &format!("{} / HTTP/1.1\r\nHost: h\r\n\r\n", "A".repeat(170)),
        bad("the request line is malformed"),
    );
    check(
        &format!("GET / {}\n", "a".repeat(170)),
        Err(Reject::UriTooLong),
    );
    check(
        &format!("GET / HTTP/1.1\r\nX: {}\n", "a".repeat(400)),
        Err(Reject::HeadTooLarge),
    );
    check(
        &format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(400)),
        Err(Reject::HeadTooLarge),
    );
    check(
        &format!("GET / HTTP/1.1\r\n{}", "X: a\r\n".repeat(6)),
        Err(Reject::HeadTooLarge),
    );
}

#[test]
fn numbers_are_digits_and_nothing_else() {
    for (text, number) in [
        ("0", Some(0)),
        ("007", Some(7)),
        ("18446744073709551615", Some(u64::MAX)),
        ("18446744073709551616", None),
        ("99999999999999999999", None),
        ("", None),
        ("+1", None),
        ("-1", None),
        ("1_0", None),
        ("1 ", None),
        ("0x1", None),
        ("\u{661}", None),
    ] {
        assert_eq!(decimal(text.as_bytes()), number, "{text:?}");
    }
}
