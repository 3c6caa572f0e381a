//! Responses in all framings, whole and in pieces, valid and invalid.

use http::header::HeaderValue;
use proptest::prelude::*;

use super::properties::{End, answer_holds, ask};
use super::*;
use crate::script::{Script, cut};

/// The result of a response: status, body, trailers, and whether the connection can be reused.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Seen {
    Answer {
        status: u16,
        body: Vec<u8>,
        trailers: usize,
        kept: bool,
    },
    /// The body was interrupted or is malformed.
    Broken(u16),
    Refused,
    Gone,
}

fn whole(status: u16, body: &str, kept: bool) -> Seen {
    Seen::Answer {
        status,
        body: body.into(),
        trailers: 0,
        kept,
    }
}

#[track_caller]
fn check(answer: &str, close: bool, expected: &Seen) {
    check_method(&Method::GET, answer, close, expected);
}

/// In one piece, and byte by byte.
#[track_caller]
fn check_method(method: &Method, answer: &str, close: bool, expected: &Seen) {
    let bytes = answer.as_bytes();
    for pieces in [vec![bytes.to_vec()], cut(bytes, 0)] {
        let count = pieces.len();
        let outcome = ask(method, Script::new(pieces, close), bytes.len());
        let status = outcome.head.map_or(0, |head| head.status.as_u16());
        let seen = match outcome.end {
            End::Whole { trailers, kept } => Seen::Answer {
                status,
                body: outcome.body,
                trailers: trailers.map_or(0, |trailers| trailers.len()),
                kept,
            },
            End::Broken(_) => Seen::Broken(status),
            End::Refused(_) => Seen::Refused,
            End::Gone => Seen::Gone,
            End::Switched(_) | End::Waits => panic!("{answer:?}: {:?}", outcome.end),
        };
        assert_eq!(seen, *expected, "{answer:?} in {count} pieces");
    }
    answer_holds(method, bytes, 0, close, false);
}

#[test]
fn bodies_are_framed_in_four_ways() {
    check(
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        false,
        &whole(200, "hello", true),
    );
    check(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
        false,
        &whole(200, "abcde", true),
    );
    check(
        "HTTP/1.1 200 OK\r\n\r\nto the end",
        true,
        &whole(200, "to the end", false),
    );
    check(
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        false,
        &whole(200, "", true),
    );
}

/// Servers that send a body after such a head all the same send the one that they announced, or, for HEAD, one that
/// they could not announce; it must not be read as the next response.
#[test]
fn what_announces_a_body_that_it_must_not_have_is_the_connections_last() {
    for status in [204, 304] {
        for (fields, kept) in [
            ("", true),
            ("Content-Length: 0\r\n", true),
            ("Content-Length: 5\r\n", false),
            ("Transfer-Encoding: chunked\r\n", false),
        ] {
            let answer = format!("HTTP/1.1 {status} x\r\n{fields}\r\n");
            check(&answer, false, &whole(status, "", kept));
        }
    }
    for (fields, kept) in [
        ("", false),
        ("Content-Length: 0\r\n", true),
        ("Content-Length: 5\r\n", false),
        ("Transfer-Encoding: chunked\r\n", false),
    ] {
        for status in [200, 204, 304, 404] {
            let answer = format!("HTTP/1.1 {status} x\r\n{fields}\r\n");
            check_method(&Method::HEAD, &answer, false, &whole(status, "", kept));
        }
    }
    let last = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na";
    for (fields, seen) in [
        ("Content-Length: 0\r\n", whole(200, "a", true)),
        ("Content-Length: 5\r\n", Seen::Refused),
        ("content-length: x\r\n", Seen::Refused),
        ("Transfer-Encoding: chunked\r\n", Seen::Refused),
    ] {
        let answer = format!("HTTP/1.1 103 Early Hints\r\n{fields}\r\n{last}");
        check(&answer, false, &seen);
    }
}

#[test]
fn trailers_are_read() {
    check(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: 1\r\ny: 2\r\n\r\n",
        false,
        &Seen::Answer {
            status: 200,
            body: b"a".to_vec(),
            trailers: 2,
            kept: true,
        },
    );
    check(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx 1\r\n\r\n",
        false,
        &Seen::Broken(200),
    );
}

#[test]
fn interim_answers_are_passed_over() {
    check(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
        false,
        &whole(200, "a", true),
    );
    check(
        &"HTTP/1.1 100 Continue\r\n\r\n".repeat(MOST_INTERIM + 1),
        false,
        &Seen::Refused,
    );
}

#[test]
fn a_connection_is_kept_only_where_the_app_keeps_it() {
    for (version, connection, kept) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: x, Close\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: keep-alive\r\n", true),
    ] {
        check(
            &format!("HTTP/{version} 200 OK\r\n{connection}Content-Length: 1\r\n\r\na"),
            false,
            &whole(200, "a", kept),
        );
    }
    // Bytes after the end of a response belong to no response.
    check(
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
        false,
        &whole(200, "a", false),
    );
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2",
        "HTTP/1.1 200 OK\r\nContent-Length: +1",
        "HTTP/1.1 200 OK\r\nContent-Length: 1, 2",
        "HTTP/1.1 200 OK\r\nContent-Length: 1,",
        "HTTP/1.1 200 OK\r\nContent-Length:",
        "HTTP/1.1 200 OK\r\nContent-Length : 1\r\nContent-Length: 2",
        "HTTP/1.1 200 OK\r\nContent-Length\r\nA: b",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n 0",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\nTransfer-Encoding : chunked",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n chunked",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
        "HTTP/1.1 200 OK\r\n A: b",
        "HTTP/1.1 200 OK\r\nA: b\r\n \r\nContent-Length: 1",
        "HTTP/1.1 200 OK\r\nA: b\rContent-Length: 1",
        "HTTP/1.1 200 OK\r\nBad header",
        "HTTP/1.1 200 OK\r\nBad header: b",
        "HTTP/1.1 200 OK\r\nA: b\0",
        "HTTP/2 200 OK",
        "HTTP/1.1 20 OK",
        "ICY 200 OK",
    ] {
        check(&format!("{head}\r\n\r\na"), false, &Seen::Refused);
    }
    let many = "a: b\r\n".repeat(257);
    check(
        &format!("HTTP/1.1 200 OK\r\n{many}\r\n"),
        false,
        &Seen::Refused,
    );
}

#[test]
fn odd_heads_that_have_one_reading_are_read() {
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1",
        "HTTP/1.1 200 OK\r\nContent-Length: 1, 1",
        "HTTP/1.1 200 OK\r\nContent-Length : 1",
        "HTTP/1.1 200 OK\r\nContent-Length\t: 1\r\nContent-Length: 01 ,1",
        "HTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 1",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 1",
        "HTTP/1.1 200 OK\r\nA: b\nContent-Length: 1",
        "HTTP/1.1 200 OK\nContent-Length: 1",
        "\r\n\nHTTP/1.1 200 OK\nA : b\nContent-Length: 1",
        "HTTP/1.1 200 OK\r\nHTTP/1.1 200 OK\r\nContent-Length: 1",
        "HTTP/1.1 200 OK\r\nName\r\nContent-Length: 1",
        "HTTP/1.1 103 Early Hints\nA : b\n\nHTTP/1.1 200 OK\r\nContent-Length: 1",
    ] {
        check(&format!("{head}\r\n\r\na"), false, &whole(200, "a", true));
    }
    let many = "Set-Cookie: a=b\r\n".repeat(255);
    check(
        &format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 1\r\n\r\na"),
        false,
        &whole(200, "a", true),
    );
    for chunks in [
        "\r\n1\r\na\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        "Connection: keep-alive\r\n\r\n1 \r\na\r\n0 \r\n\r\n",
        "\n1\na\n0\n\n",
        "\r\n1 ; x\r\na\n0;\r\n\n",
    ] {
        for coding in ["chunked", "Chunked, chunked"] {
            check(
                &format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n{chunks}"),
                false,
                &whole(200, "a", true),
            );
        }
    }
    check(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\nx : 1\n 2\ny\n\n",
        false,
        &Seen::Answer {
            status: 200,
            body: Vec::new(),
            trailers: 2,
            kept: true,
        },
    );
}

#[test]
fn a_long_head_is_too_long_in_one_piece_and_in_many() {
    let (line, end) = ("HTTP/1.1 200 OK\r\nX: ", "\r\nContent-Length: 0\r\n\r\n");
    let longest = LONGEST_HEAD - line.len() - end.len();
    for (length, taken) in [(longest, true), (longest + 1, false)] {
        let answer = format!("{line}{}{end}", "a".repeat(length));
        for pieces in [vec![answer.clone().into_bytes()], cut(answer.as_bytes(), 3)] {
            let outcome = ask(&Method::GET, Script::new(pieces, false), answer.len());
            let kept = matches!(outcome.end, End::Whole { kept: true, .. });
            assert_eq!(kept, taken, "{length}");
            assert!(taken || matches!(outcome.end, End::Refused("the head is too long")));
        }
    }
}

#[test]
fn what_breaks_off_is_never_taken_for_whole() {
    check("", true, &Seen::Gone);
    check("HTTP/1.1 200 OK\r\nContent-", true, &Seen::Refused);
    check(
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        true,
        &Seen::Broken(200),
    );
    for chunks in [
        "5\r\nhel",
        "5\r\nhello\r\n",
        "5\r\nhello\r\n0\r\n",
        "x\r\n",
        "1\r\nabc",
    ] {
        check(
            &format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"),
            true,
            &Seen::Broken(200),
        );
    }
}

#[test]
fn fields_of_the_apps_connection_stop_here() {
    let fields = |text: &str| {
        let text = Bytes::from(format!("HTTP/1.1 200 OK\r\n{text}\r\n"));
        // For HEAD, because then the body does not determine the length.
        let Ok(Parsed::Final(head, _)) = head::parse(&text, true, &mut None) else {
            panic!("{text:?}");
        };
        let field = |(name, value): (&http::HeaderName, &HeaderValue)| {
            format!("{name}: {}", value.to_str().unwrap())
        };
        head.headers.iter().map(field).collect::<Vec<_>>()
    };
    assert_eq!(
        fields("Connection: close, X-Own\r\nX-Own: 1\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\nX: 2\r\n"),
        ["x: 2"]
    );
    assert_eq!(fields("Transfer-Encoding: chunked\r\n"), [""; 0]);
    for (theirs, ours) in [("005", "5"), ("00", "0"), ("0", "0"), ("10", "10")] {
        let text = format!("Connection: content-length\r\nContent-Length: {theirs}\r\n");
        assert_eq!(fields(&text), [format!("content-length: {ours}")]);
    }
    assert_eq!(
        fields("X-A : b\r\nX-B: c\r\n\td \r\nX-C\r\nX-D:\r\n e\r\n"),
        ["x-a: b", "x-b: c d", "x-c: ", "x-d: e"]
    );
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_late() {
    let head = RequestHead {
        method: &Method::GET,
        target: "/",
        fields: &Fields::default(),
    };
    let connection = Box::new(Connection::new(Stream::Script(Script::new([], false))));
    let mut exchange = Exchange::begin(connection, head, Outgoing::Empty);
    let late = exchange.answer(false, Instant::now(), Duration::from_millis(20));
    assert!(matches!(late.await, Err(Fault::Late)));
}

#[test]
fn a_head_is_written_with_the_framing_of_its_body() {
    let mut fields = Fields::default();
    fields.set(&http::header::HOST, HeaderValue::from_static("h"));
    fields.set(&http::header::CONTENT_LENGTH, HeaderValue::from_static("7"));
    let text = |method: Method| {
        let mut out = Vec::new();
        let head = RequestHead {
            method: &method,
            target: "/a?b",
            fields: &fields,
        };
        head::write(&mut out, head, &Outgoing::Empty);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(text(Method::GET), "GET /a?b HTTP/1.1\r\nhost: h\r\n\r\n");
    assert_eq!(
        text(Method::POST),
        "POST /a?b HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n"
    );
}

/// Parts that responses are made of, valid and invalid.
fn parts() -> impl Strategy<Value = String> {
    let line = prop::sample::select(vec![
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 204 No Content\r\n",
        "HTTP/1.0 200 OK\r\n",
        "HTTP/1.1 404 \r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n",
    ]);
    let field = prop::sample::select(vec![
        "Content-Length: 5\r\n",
        "Content-Length: 0\r\n",
        "Content-Length: 05\r\n",
        "Content-Length: x\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: Chunked\r\n",
        "Connection: close\r\n",
        "X: y\r\n",
        "Bad header\r\n",
        "Y:\tz \r\n",
        "Content-Length : 5\r\n",
        "Content-Length: 5, 5\n",
        "Transfer-Encoding : chunked\n",
        "Name\r\n",
        "Z : y\n",
        " folded\r\n",
        "\tfolded\n",
        "HTTP/1.1 200 OK\r\n",
    ]);
    let body = prop::sample::select(vec![
        "",
        "hello",
        "hello and more",
        "5\r\nhello\r\n0\r\n\r\n",
        "05;a=b\r\nhello\r\n00\r\nt: 1\r\n\r\n",
        "5 \nhello\n0\t; x y\nt : 1\n 2\n\n",
        "3\r\nabc\r\n",
        "ffffffffffffffffff\r\n",
    ]);
    (line, prop::collection::vec(field, 0..4), body)
        .prop_map(|(line, fields, body)| format!("{line}{}\r\n{body}", fields.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    /// What is accepted here, hyper's client reads in the same way, however it is split.
    #[test]
    fn an_answer_is_read_in_one_way(
        answer in parts(),
        method in prop::sample::select(vec![Method::GET, Method::HEAD, Method::POST]),
        seed in any::<u8>(),
        closes in any::<bool>(),
        deaf in prop::bool::weighted(0.1),
    ) {
        answer_holds(&method, answer.as_bytes(), seed, closes, deaf);
    }

    /// Any input ends with a result, and without a panic.
    #[test]
    fn reading_is_total(bytes in any::<Vec<u8>>(), seed in any::<u8>(), closes in any::<bool>()) {
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        for answer in [&[chunked, bytes.as_slice()].concat(), &bytes] {
            answer_holds(&Method::GET, answer, seed, closes, false);
        }
    }
}
