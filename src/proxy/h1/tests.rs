//! Answers in all their framings, whole and in pieces, good and bad; and what hyper's own client makes
//! of the same bytes.

use http::header::HeaderValue;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;
use http::HeaderMap;

/// What became of an answer: status, body, trailers, and whether the connection can be used again.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Seen {
    Answer {
        status: u16,
        body: Vec<u8>,
        trailers: usize,
        kept: bool,
    },
    /// The body broke off or is malformed.
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

/// An app that waits for a request and then says these pieces; it closes if it is told to.
async fn app(pieces: Vec<Vec<u8>>, close: bool) -> (UnixStream, tokio::task::JoinHandle<()>) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let task = tokio::spawn(async move {
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            if theirs.read_buf(&mut seen).await.unwrap_or(0) == 0 {
                return;
            }
        }
        for piece in pieces {
            if theirs.write_all(&piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        if !close {
            theirs.read_buf(&mut seen).await.ok();
        }
    });
    (ours, task)
}

async fn ask(method: Method, pieces: Vec<Vec<u8>>, close: bool) -> Seen {
    let (stream, app) = app(pieces, close).await;
    let connection = Box::new(Connection::new(Stream::Unix(stream)));
    let head = RequestHead {
        method: &method,
        target: &PathAndQuery::from_static("/"),
        fields: &Fields::default(),
    };
    let mut exchange = Exchange::begin(connection, head, Outgoing::Empty);
    let is_head = method == Method::HEAD;
    let answer = exchange.answer(is_head, Instant::now(), Duration::from_secs(5));
    let mut head = match answer.await {
        Ok(head) => head,
        Err(Fault::Gone(_)) => return Seen::Gone,
        Err(Fault::Malformed(_)) => return Seen::Refused,
        Err(other) => panic!("{other:?}"),
    };
    let status = head.status.as_u16();
    let mut frames = AnswerFrames::new(exchange, &mut head);
    let (mut body, mut trailers) = (Vec::new(), 0);
    while let Some(frame) = poll_fn(|cx| frames.poll_frame(cx)).await {
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(data)) => body.extend_from_slice(&data),
            Ok(Err(frame)) => trailers = frame.into_trailers().unwrap().len(),
            Err(_) => return Seen::Broken(status),
        }
    }
    let kept = frames
        .finish()
        .is_some_and(|connection| connection.is_quiet());
    app.abort();
    Seen::Answer {
        status,
        body,
        trailers,
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
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let bytes = answer.as_bytes();
    for pieces in [
        vec![bytes.to_vec()],
        bytes.iter().map(|byte| vec![*byte]).collect(),
    ] {
        let count = pieces.len();
        let seen = runtime.block_on(ask(method.clone(), pieces, close));
        assert_eq!(seen, *expected, "{answer:?} in {count} pieces");
    }
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
    for status in [204, 304] {
        check(
            &format!("HTTP/1.1 {status} x\r\nContent-Length: 5\r\n\r\n"),
            false,
            &whole(status, "", true),
        );
    }
    check_method(
        &Method::HEAD,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        false,
        &whole(200, "", true),
    );
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
    // What comes after the end of an answer belongs to nobody.
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab";
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let seen = runtime.block_on(ask(Method::GET, vec![answer.into()], false));
    assert_eq!(seen, whole(200, "a", false));
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2",
        "HTTP/1.1 200 OK\r\nContent-Length: +1",
        "HTTP/1.1 200 OK\r\nContent-Length: 1, 1",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
        "HTTP/1.1 200 OK\r\nA: b\nContent-Length: 1",
        "HTTP/1.1 200 OK\nContent-Length: 1",
        "HTTP/1.1 200 OK\r\nA : b",
        "HTTP/1.1 200 OK\r\nA: b\r\n c",
        "HTTP/1.1 200 OK\r\nA: b\0",
        "HTTP/2 200 OK",
        "HTTP/1.1 20 OK",
        "ICY 200 OK",
    ] {
        check(&format!("{head}\r\n\r\na"), false, &Seen::Refused);
    }
    let many = "a: b\r\n".repeat(200);
    check(
        &format!("HTTP/1.1 200 OK\r\n{many}\r\n"),
        false,
        &Seen::Refused,
    );
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
        let text = format!("HTTP/1.1 200 OK\r\n{text}\r\n");
        let Ok(Parsed::Final(head)) = head::parse(text.as_bytes(), false) else {
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
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_late() {
    let (stream, _app) = app(Vec::new(), false).await;
    let head = RequestHead {
        method: &Method::GET,
        target: &PathAndQuery::from_static("/"),
        fields: &Fields::default(),
    };
    let connection = Box::new(Connection::new(Stream::Unix(stream)));
    let mut exchange = Exchange::begin(connection, head, Outgoing::Empty);
    let late = exchange.answer(false, Instant::now(), Duration::from_millis(20));
    assert!(matches!(late.await, Err(Fault::Late)));
}

#[test]
fn a_head_is_written_with_the_framing_of_its_body() {
    let mut fields = Fields::default();
    fields.set(http::header::HOST, HeaderValue::from_static("h"));
    fields.set(http::header::CONTENT_LENGTH, HeaderValue::from_static("7"));
    let text = |method: Method| {
        let mut out = Vec::new();
        let head = RequestHead {
            method: &method,
            target: &PathAndQuery::from_static("/a?b"),
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

/// The same with hyper's client.
async fn ask_hyper(pieces: Vec<Vec<u8>>) -> Seen {
    let (stream, app) = app(pieces, true).await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let driver = tokio::spawn(connection);
    let request = http::Request::new(http_body_util::Empty::<bytes::Bytes>::new());
    let Ok(response) = sender.send_request(request).await else {
        return Seen::Refused;
    };
    let status = response.status().as_u16();
    let seen = match response.into_body().collect().await {
        Ok(collected) => Seen::Answer {
            status,
            trailers: collected.trailers().map_or(0, HeaderMap::len),
            body: collected.to_bytes().to_vec(),
            kept: false,
        },
        Err(_) => Seen::Broken(status),
    };
    app.abort();
    driver.abort();
    seen
}

/// Parts that answers are made of, good ones and bad ones.
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
    ]);
    let body = prop::sample::select(vec![
        "",
        "hello",
        "hello and more",
        "5\r\nhello\r\n0\r\n\r\n",
        "05;a=b\r\nhello\r\n00\r\nt: 1\r\n\r\n",
        "3\r\nabc\r\n",
        "ffffffffffffffffff\r\n",
    ]);
    (line, prop::collection::vec(field, 0..4), body)
        .prop_map(|(line, fields, body)| format!("{line}{}\r\n{body}", fields.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever hyper's client refuses is refused here; what is taken here hyper takes for the same.
    #[test]
    fn hypers_client_sees_the_same_or_this_one_refuses(
        answer in parts(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(answer.len() + 1)).collect();
        ends.push(answer.len());
        ends.sort_unstable();
        let mut from = 0;
        let pieces: Vec<Vec<u8>> = ends
            .iter()
            .map(|end| {
                let piece = answer.as_bytes()[from..*end].to_vec();
                from = *end;
                piece
            })
            .filter(|piece| !piece.is_empty())
            .collect();
        let theirs = runtime.block_on(ask_hyper(pieces.clone()));
        let mut ours = runtime.block_on(ask(Method::GET, pieces, true));
        if let Seen::Answer { kept, .. } = &mut ours {
            *kept = false;
        }
        prop_assert!(ours == theirs || ours == Seen::Refused, "{answer:?}: {ours:?}, hyper {theirs:?}");
    }

    /// Any bytes at all get an end, and no panic.
    #[test]
    fn reading_is_total(bytes in any::<Vec<u8>>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(ask(Method::GET, vec![b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(), bytes.clone()], true));
        runtime.block_on(ask(Method::GET, vec![bytes], true));
    }
}
