//! What the server reads of a client's input, however it is split, and how it responds.

mod unread;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use http::{Request, Response, StatusCode};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{Instant, timeout};

use super::http2::{Frames, Shared};
use super::properties::{End, TIMEOUTS, bounds, heard, request_holds};
use super::*;
use crate::message::body::{Body, BodyError};
use crate::message::reject::Reject;

const GOOD: &[u8] = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
const POST: &[u8] = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";
const CHUNKED: &[u8] =
    b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
const BAD: &[u8] = b"GET /a HTTP/1.1\nHost: h\r\n\r\n";

/// A target and a body.
type Seen = (String, Option<Vec<u8>>);

/// The requests read from these pieces, and why the last one was rejected.
fn hear(pieces: &[&[u8]]) -> (Vec<Seen>, Option<Reject>) {
    let (heard, _) = heard(pieces.iter().map(|piece| piece.to_vec()).collect(), false);
    let refusal = heard.last().and_then(|last| last.refusal);
    let seen = heard
        .into_iter()
        .map(|request| (request.target.to_string(), request.body));
    (seen.collect(), refusal)
}

fn body(text: &str) -> Seen {
    ("/a".to_owned(), Some(text.into()))
}

#[test]
fn good_messages_are_heard_one_after_the_other() {
    for (message, text) in [(GOOD, ""), (POST, "hello"), (CHUNKED, "abc")] {
        assert_eq!(hear(&[message]), (vec![body(text)], None));
    }
    let all = [GOOD, POST, CHUNKED, GOOD].concat();
    let expected = vec![body(""), body("hello"), body("abc"), body("")];
    assert_eq!(hear(&[&all]), (expected, None));
}

#[test]
fn a_request_begins_with_a_whole_head() {
    assert_eq!(hear(&[&GOOD[..GOOD.len() - 1]]), (Vec::new(), None));
    assert_eq!(hear(&[&GOOD[..9], &GOOD[9..]]), (vec![body("")], None));
}

#[test]
fn a_bad_head_is_refused_after_the_good_ones_before_it() {
    let (seen, refusal) = hear(&[&[POST, BAD, GOOD].concat()]);
    assert_eq!(seen, [body("hello"), ("/a".to_owned(), None)]);
    assert_eq!(refusal.map(Reject::reason), Some("bad_request"));
}

#[test]
fn what_comes_behind_a_request_that_closes_is_not_heard() {
    let closing = b"GET * HTTP/1.0\r\n\r\n";
    let bytes = [closing.as_slice(), GOOD].concat();
    for seed in 0..16 {
        request_holds(&bytes, seed, false);
    }
    let (heard, end) = heard(vec![bytes], false);
    assert_eq!((heard.len(), end), (1, End::Closed));
}

#[test]
fn a_broken_body_refuses_no_request_before_it() {
    let broken = [&CHUNKED[..CHUNKED.len() - 7], b"x"].concat();
    for before in [&[][..], &[GOOD], &[GOOD, GOOD], &[POST]] {
        let bytes = [&before.concat(), broken.as_slice()].concat();
        for seed in 0..16 {
            request_holds(&bytes, seed, false);
        }
        let (heard, end) = heard(vec![bytes], false);
        assert_eq!((heard.len(), end), (before.len() + 1, End::Closed));
    }
}

/// Serves one end of a duplex in a task, with one way to answer.
fn serve<F>(
    size: usize,
    mut answer: impl FnMut(Box<Request<Body>>, Option<Reject>) -> F + Send + 'static,
) -> (
    DuplexStream,
    Arc<Line>,
    tokio::task::JoinHandle<Ended<Body>>,
)
where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let (client, server) = duplex(size);
    let line = Arc::new(Line::new());
    let task = tokio::spawn({
        let line = Arc::clone(&line);
        async move {
            let mut link = Link::new(server, bounds());
            let ended = link
                .serve(&line, |request, refusal| {
                    line.enter();
                    let answering = answer(request, refusal);
                    let line = &line;
                    async move {
                        let response = answering.await;
                        line.leave(Instant::now());
                        Ok(response)
                    }
                })
                .await;
            if matches!(ended, Ended::Over) {
                link.close().await;
            }
            ended
        }
    });
    (client, line, task)
}

/// Reads until nothing has arrived for a while, or the end.
async fn read(client: &mut DuplexStream) -> String {
    let mut text = Vec::new();
    let mut room = [0; 1024];
    while let Ok(Ok(count @ 1..)) =
        timeout(Duration::from_millis(100), client.read(&mut room)).await
    {
        text.extend_from_slice(&room[..count]);
    }
    String::from_utf8(text).unwrap()
}

/// The text of responses without their dates.
fn undated(text: &str) -> String {
    let lines = text.split_inclusive("\r\n");
    lines.filter(|line| !line.starts_with("date: ")).collect()
}

async fn echo(request: Box<Request<Body>>, refusal: Option<Reject>) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    match refusal {
        Some(reject) => *response.status_mut() = reject.status(),
        None => *response.body_mut() = request.into_body(),
    }
    response
}

#[tokio::test(start_paused = true)]
async fn a_head_that_takes_too_long_is_refused() {
    let (mut client, _, served) = serve(300, echo);
    client.write_all(b"GET / HT").await.unwrap();
    let began = Instant::now();
    tokio::time::sleep(TIMEOUTS.header_read).await;
    let text = read(&mut client).await;
    assert!(
        text.starts_with("HTTP/1.1 408 Request Timeout\r\n"),
        "{text}"
    );
    assert!(text.contains("\r\nconnection: close\r\n"), "{text}");
    assert!(matches!(served.await.unwrap(), Ended::Over));
    assert!(began.elapsed() >= TIMEOUTS.header_read);
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_rests_but_not_under_a_request() {
    let (mut client, line, mut served) = serve(300, async |request, refusal| {
        tokio::time::sleep(20 * REST_AFTER).await;
        echo(request, refusal).await
    });
    tokio::time::sleep(REST_AFTER / 2).await;
    assert!(!served.is_finished());
    client.write_all(GOOD).await.unwrap();
    assert!(timeout(20 * REST_AFTER, &mut served).await.is_err());
    let text = read(&mut client).await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    let quiet = Instant::now();
    assert!(matches!(served.await.unwrap(), Ended::Rests));
    assert!(quiet.elapsed() <= REST_AFTER && line.is_idle());
}

#[tokio::test(start_paused = true)]
async fn a_drained_connection_ends_with_its_request() {
    let (mut client, line, served) = serve(300, async |request, refusal| {
        tokio::time::sleep(REST_AFTER).await;
        echo(request, refusal).await
    });
    client.write_all(&[GOOD, GOOD].concat()).await.unwrap();
    tokio::time::sleep(REST_AFTER / 2).await;
    line.close();
    tokio::time::sleep(REST_AFTER).await;
    let text = read(&mut client).await;
    assert_eq!(text.matches("HTTP/1.1 200 OK\r\n").count(), 1, "{text}");
    assert!(text.contains("\r\nconnection: close\r\n"), "{text}");
    assert!(matches!(served.await.unwrap(), Ended::Over));
}

#[tokio::test(start_paused = true)]
async fn a_request_is_dropped_when_its_client_leaves() {
    let (mut client, _, served) = serve(300, async |_, _| std::future::pending().await);
    client.write_all(GOOD).await.unwrap();
    tokio::time::sleep(REST_AFTER).await;
    assert!(!served.is_finished());
    drop(client);
    assert!(matches!(served.await.unwrap(), Ended::Broken));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_100_gets_one_when_the_body_is_wanted() {
    const HEAD: &[u8] =
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    let (mut client, _, _served) = serve(300, echo);
    client.write_all(HEAD).await.unwrap();
    let text = read(&mut client).await;
    assert!(
        text.starts_with("HTTP/1.1 200 OK\r\n"),
        "the head of an answer says it, too: {text}"
    );
    client.write_all(b"hello").await.unwrap();
    assert_eq!(read(&mut client).await, "hello");

    let (mut client, _, _served) = serve(300, async |request: Box<Request<Body>>, _| {
        let body = http_body_util::BodyExt::collect(request.into_body()).await;
        Response::new(Body::full(body.unwrap().to_bytes()))
    });
    client.write_all(HEAD).await.unwrap();
    assert_eq!(read(&mut client).await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"hello").await.unwrap();
    let text = read(&mut client).await;
    assert!(
        text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\nhello"),
        "{text}"
    );

    let (mut client, _, served) = serve(300, async |_, _| Response::new(Body::Empty));
    client.write_all(HEAD).await.unwrap();
    let text = read(&mut client).await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(
        text.contains("\r\nconnection: close\r\n"),
        "it may or may not come: {text}"
    );
    drop(client);
    assert!(matches!(served.await.unwrap(), Ended::Over));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_read_does_not_become_a_request() {
    let length = GOOD.len() + 1;
    let smuggled = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
    let body = [GOOD, b"!", GOOD].concat();
    for pieces in [
        vec![[smuggled.as_bytes(), &body].concat()],
        vec![smuggled.clone().into_bytes(), body],
    ] {
        let (mut client, _, _served) = serve(1000, async |_, _| Response::new(Body::Empty));
        let mut text = String::new();
        for piece in pieces {
            client.write_all(&piece).await.unwrap();
            text += &read(&mut client).await;
        }
        let answers = text.matches("HTTP/1.1 200 OK\r\n").count();
        assert_eq!(answers, 2, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_of_an_answer_is_cut_off() {
    let (mut client, _, served) = serve(64, async |_, _| Response::new(Body::full(vec![0; 500])));
    client.write_all(GOOD).await.unwrap();
    tokio::time::sleep(TIMEOUTS.send / 2).await;
    client.read_exact(&mut [0; 64]).await.unwrap();
    tokio::time::sleep(TIMEOUTS.send / 2 + REST_AFTER).await;
    assert!(!served.is_finished(), "it took some");
    tokio::time::sleep(TIMEOUTS.send / 2).await;
    assert!(matches!(served.await.unwrap(), Ended::Broken));
}

/// A body of unknown length, which may break.
struct Pieces(Vec<Result<&'static str, ()>>, bool);

impl http_body::Body for Pieces {
    type Data = bytes::Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, BodyError>>> {
        if self.0.is_empty() {
            let trailers = std::mem::take(&mut self.1).then(|| {
                let trailers = [(http::header::ETAG, http::HeaderValue::from_static("x"))];
                Ok(http_body::Frame::trailers(trailers.into_iter().collect()))
            });
            return Poll::Ready(trailers);
        }
        Poll::Ready(Some(match self.0.remove(0) {
            Ok(text) => Ok(http_body::Frame::data(text.into())),
            Err(()) => Err(BodyError::UpstreamIdle),
        }))
    }
}

#[tokio::test(start_paused = true)]
async fn answers_are_framed_as_their_requests_allow() {
    let get = |rest: &str| format!("GET / HTTP/1.1\r\nHost: h\r\n{rest}\r\n");
    let old = |rest: &str| format!("GET / HTTP/1.0\r\n{rest}\r\n");
    let head = || "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned();
    let full = || Response::new(Body::full("hello"));
    let stream = || Response::new(Body::stream(Pieces(vec![Ok("he"), Ok("llo")], true)));
    let with = |status: u16, name: &'static str, value: &'static str| {
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        let headers = response.headers_mut();
        headers.insert(name, http::HeaderValue::from_static(value));
        response
    };
    let cases: Vec<(String, Response<Body>, &str)> = vec![
        (
            get(""),
            full(),
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        ),
        (
            get("Connection: x, Close\r\n"),
            full(),
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello",
        ),
        (
            get(""),
            stream(),
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        ),
        (
            get("TE: trailers\r\n"),
            stream(),
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\netag: x\r\n\r\n",
        ),
        (
            old(""),
            full(),
            "HTTP/1.0 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello",
        ),
        (
            old("Connection: Keep-Alive\r\n"),
            full(),
            "HTTP/1.0 200 OK\r\ncontent-length: 5\r\nconnection: keep-alive\r\n\r\nhello",
        ),
        (
            old("Connection: keep-alive\r\n"),
            stream(),
            "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\nhello",
        ),
        (
            head(),
            full(),
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
        ),
        (head(), stream(), "HTTP/1.1 200 OK\r\n\r\n"),
        (
            head(),
            with(200, "content-length", "7"),
            "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n",
        ),
        (
            get(""),
            with(204, "content-length", "7"),
            "HTTP/1.1 204 No Content\r\n\r\n",
        ),
        (
            get(""),
            with(304, "content-length", "7"),
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n",
        ),
        (
            get(""),
            with(404, "content-length", "7"),
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            get(""),
            with(599, "transfer-encoding", "chunked"),
            "HTTP/1.1 599 Unknown\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            get(""),
            with(400, "connection", "close"),
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        ),
        (
            get(""),
            with(200, "x-a", "b"),
            "HTTP/1.1 200 OK\r\nx-a: b\r\ncontent-length: 0\r\n\r\n",
        ),
    ];
    for (request, response, expected) in cases {
        let mut response = Some(response);
        let (mut client, _, _served) = serve(1000, move |_, _| {
            std::future::ready(response.take().unwrap())
        });
        client.write_all(request.as_bytes()).await.unwrap();
        let text = read(&mut client).await;
        assert!(text.contains("\r\ndate: "), "{text}");
        assert_eq!(undated(&text), expected, "{request:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_breaks_ends_the_connection_without_an_end() {
    let (mut client, _, served) = serve(1000, async |_, _| {
        Response::new(Body::stream(Pieces(vec![Ok("he"), Err(())], false)))
    });
    client.write_all(&[GOOD, GOOD].concat()).await.unwrap();
    let text = read(&mut client).await;
    assert!(!text.contains("0\r\n\r\n"), "{text}");
    assert!(matches!(served.await.unwrap(), Ended::Broken));
}

#[tokio::test(start_paused = true)]
async fn what_comes_behind_a_request_that_switches_is_kept_for_the_tunnel() {
    let (mut client, server) = duplex(300);
    let line = Arc::new(Line::new());
    client.write_all(&[GOOD, b"early"].concat()).await.unwrap();
    let mut link = Link::new(server, bounds());
    let ended = link
        .serve(&line, async |_, _| {
            let mut response = Response::new(Body::full("the tunnel's"));
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let headers = response.headers_mut();
            headers.insert("connection", http::HeaderValue::from_static("upgrade"));
            headers.insert("upgrade", http::HeaderValue::from_static("websocket"));
            Ok(response)
        })
        .await;
    assert!(matches!(ended, Ended::Switched(Body::Full(_))));
    assert_eq!(link.into_parts().1, b"early".as_slice());
    assert_eq!(
        undated(&read(&mut client).await),
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    );
}

#[test]
fn the_requests_that_others_collected_are_read_in_one_way() {
    let text = include_str!("../../tests/vectors/http11probe/requests.json");
    let file: serde_json::Value = serde_json::from_str(text).unwrap();
    for case in file["requests"].as_array().unwrap() {
        let bytes = STANDARD.decode(case["payload"].as_str().unwrap()).unwrap();
        for seed in 0..4 {
            request_holds(&bytes, seed, seed % 2 == 0);
        }
    }
}

/// Parts that requests are made of, valid and invalid.
fn parts() -> impl Strategy<Value = Vec<u8>> {
    let message = prop::sample::select(vec![GOOD, POST, CHUNKED, BAD]).prop_map(<[u8]>::to_vec);
    let part = prop::sample::select(vec![
        "GET / HTTP/1.1\r\n",
        "POST http://h/?a HTTP/1.1\r\n",
        "GET * HTTP/1.0\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "Host: h\r\n",
        "Host: refused\r\n",
        "Connection: close\r\n",
        "Connection: keep-alive, x\r\n",
        "Content-Length: 4\r\n",
        "Content-Length:0\r\n",
        "X:\x0c\r\n",
        "X: \r\r\n",
        "X : y\r\n",
        "X:\t y \t\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Expect: 100-continue\r\n",
        "\r\n",
        "4\r\nabcd\r\n",
        "4;a=\"b\"\r\nabcd\r\n",
        "0\r\n",
        "\n",
        "abcd",
    ]);
    let long = (any::<u8>(), 0..1200_usize).prop_map(|(byte, length)| vec![byte; length]);
    let some = prop_oneof![
        4 => message,
        16 => part.prop_map(|part| part.as_bytes().to_vec()),
        1 => long,
        1 => any::<Vec<u8>>(),
    ];
    prop::collection::vec(some, 1..12).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn how_the_bytes_are_cut_makes_no_difference(
        bytes in parts(),
        seed in any::<u8>(),
        closes in any::<bool>(),
    ) {
        request_holds(&bytes, seed, closes);
    }
}

#[tokio::test(start_paused = true)]
async fn frames_wait_for_each_other_only_where_there_are_several_answers() {
    let (mut client, server) = duplex(64);
    let line = Arc::new(Line::new());
    let shared = Arc::new(Shared::new(Arc::clone(&line), bounds()));
    let mut wire = Frames::new(server, BytesMut::new(), shared);
    let mut room = [0; 64];

    wire.write_all(b"settings").await.unwrap();
    wire.flush().await.unwrap();
    assert_eq!(client.read(&mut room).await.unwrap(), 8, "at once");

    line.enter();
    for frame in [b"one", b"two"] {
        wire.write_all(frame).await.unwrap();
        wire.flush().await.unwrap();
    }
    let early = timeout(Duration::from_secs(1), client.read(&mut room)).await;
    assert!(early.is_err(), "not written yet");
    let next_turn = timeout(Duration::from_secs(1), wire.read(&mut room)).await;
    assert!(next_turn.is_err(), "nothing to read");
    let read = client.read(&mut room).await.unwrap();
    assert_eq!(&room[..read], b"onetwo");

    // The last response has nothing to wait for; several responses wait for each other.
    line.leave(Instant::now());
    wire.write_all(b"last").await.unwrap();
    wire.flush().await.unwrap();
    assert_eq!(client.read(&mut room).await.unwrap(), 4, "at once");
    for _ in 0..2 {
        line.enter();
        line.leave(Instant::now());
    }
    for frame in [b"three", b"four!"] {
        wire.write_all(frame).await.unwrap();
        wire.flush().await.unwrap();
    }
    let next_turn = timeout(Duration::from_secs(1), wire.read(&mut room)).await;
    assert!(next_turn.is_err(), "nothing to read");
    let read = client.read(&mut room).await.unwrap();
    assert_eq!(&room[..read], b"threefour!");

    wire.write_all(b"bye").await.unwrap();
    wire.shutdown().await.unwrap();
    assert_eq!(client.read(&mut room).await.unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_frames_is_cut_off() {
    let (_client, server) = duplex(4);
    let line = Arc::new(Line::new());
    let shared = Arc::new(Shared::new(Arc::clone(&line), bounds()));
    let mut wire = Frames::new(server, BytesMut::new(), shared);
    line.enter();
    wire.write_all(b"too much").await.unwrap();
    wire.flush().await.unwrap();
    let began = Instant::now();
    let cut = wire.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(cut.kind(), io::ErrorKind::TimedOut);
    assert_eq!(began.elapsed().as_secs(), TIMEOUTS.send.as_secs());
}

#[test]
fn small_pieces_that_are_held_share_their_memory() {
    let mut buf = BytesMut::new();
    let room = (1 << 20, 8 << 10);
    let mut held = Vec::new();
    for _ in 0..1000 {
        make_room(&mut buf, room);
        assert!(buf.capacity() >= room.1);
        buf.extend_from_slice(&[0; 4096]);
        let piece = buf.split().freeze();
        held.push(piece);
    }
    let bytes = 1000 * 4096;
    let memory: usize = held
        .windows(2)
        .filter(|pair| {
            // Where the next piece does not follow the last one, there is new memory.
            pair[1].as_ptr() as usize != pair[0].as_ptr() as usize + 4096
        })
        .count()
        * room.0;
    assert!(memory <= bytes + room.0, "{memory}");

    drop(held);
    make_room(&mut buf, room);
    assert!(buf.capacity() >= room.0, "used again");
}

/// What hyper's server takes and is refused here. ARCHITECTURE.md says why, in the same words, under "The packages".
const STRICTER: &[(&str, &str)] = &[
    ("lines that end in LF alone", "GET / HTTP/1.1\nHost: h\n\n"),
    (
        "several empty lines before a request",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
    ),
    (
        "HTTP/1.1 without `Host`, or with an empty one",
        "GET / HTTP/1.1\r\n\r\n",
    ),
    (
        "HTTP/1.1 without `Host`, or with an empty one",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
    ),
    (
        "`Host` more than once",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    ),
    (
        "`Content-Length` more than once, even with one value",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
    ),
    (
        "`Content-Length` with leading zeros",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 01\r\n\r\na",
    ),
    (
        "`Content-Length` beside `Transfer-Encoding`",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "transfer codings beside `chunked`",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "`chunked` more than once",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "`chunked` more than once",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a fragment in the target",
        "GET /#a HTTP/1.1\r\nHost: h\r\n\r\n",
    ),
    (
        "bytes outside ASCII in the target",
        "GET /\u{e9} HTTP/1.1\r\nHost: h\r\n\r\n",
    ),
    (
        "blanks behind a chunk's size",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1 \r\na\r\n0\r\n\r\n",
    ),
    (
        "chunk extensions that are malformed",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;=\u{1}\r\na\r\n0\r\n\r\n",
    ),
];

#[test]
fn what_hyper_takes_and_is_refused_here_is_written_down() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/ARCHITECTURE.md"));
    let page = page.unwrap();
    for (what, bytes) in STRICTER {
        let (ours, _) = heard(vec![bytes.as_bytes().to_vec()], true);
        assert!(
            ours.iter().any(|request| request.refusal.is_some()),
            "{what} is taken here"
        );
        let theirs = properties::heard_by_hyper(vec![bytes.as_bytes().to_vec()], true);
        assert!(
            matches!(theirs.as_slice(), [request] if request.body.is_some()),
            "hyper refuses {what}"
        );
        assert!(page.contains(&format!("\n| {what} | ")), "{what}");
    }
}
