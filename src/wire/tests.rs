//! What hyper is given for what a client sends, however the bytes are cut.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::properties::{TIMEOUTS, bounds, request_holds, through};
use super::*;

/// What comes through for these pieces, and the refusal.
fn pass(pieces: &[&[u8]]) -> (Vec<u8>, Option<Reject>) {
    let pieces = pieces.iter().map(|piece| piece.to_vec()).collect();
    let passed = through(pieces, false, 300);
    (passed.bytes, passed.refusal)
}

const GOOD: &[u8] = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
const POST: &[u8] = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";
const CHUNKED: &[u8] =
    b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
const BAD: &[u8] = b"GET /a HTTP/1.1\nHost: h\r\n\r\n";

#[test]
fn good_messages_pass_as_they_are() {
    for message in [GOOD, POST, CHUNKED] {
        assert_eq!(pass(&[message]), (message.to_vec(), None));
    }
    let all = [GOOD, POST, CHUNKED, GOOD].concat();
    assert_eq!(pass(&[&all]), (all.clone(), None));
}

#[test]
fn a_head_comes_whole_or_not_at_all() {
    assert_eq!(pass(&[&GOOD[..GOOD.len() - 1]]), (Vec::new(), None));
    assert_eq!(pass(&[&GOOD[..9], &GOOD[9..]]), (GOOD.to_vec(), None));
}

#[test]
fn a_bad_head_is_replaced_after_the_good_ones_before_it() {
    let (seen, refusal) = pass(&[&[POST, BAD, GOOD].concat()]);
    assert_eq!(seen, [POST, STAND_IN].concat());
    assert_eq!(refusal.map(Reject::reason), Some("bad_request"));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_takes_too_long_is_refused() {
    let (mut client, server) = duplex(64);
    let line = Arc::new(Line::new());
    let mut wire = Wire::new(server, Arc::clone(&line), bounds());
    client.write_all(b"GET / HT").await.unwrap();
    let mut room = [0; 300];
    let read = wire.read(&mut room).await.unwrap();
    assert_eq!(&room[..read], STAND_IN);
    assert_eq!(line.refusal(), Some(Reject::RequestTimeout));
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_ends_but_not_under_a_request() {
    let (mut client, server) = duplex(64);
    let line = Arc::new(Line::new());
    let mut wire = Wire::new(server, Arc::clone(&line), bounds());
    client.write_all(GOOD).await.unwrap();
    let mut room = [0; 300];
    assert_eq!(wire.read(&mut room).await.unwrap(), GOOD.len());
    line.enter();
    let long = tokio::time::timeout(Duration::from_secs(1000), wire.read(&mut room)).await;
    assert!(long.is_err());
    line.leave(Instant::now());
    let began = Instant::now();
    assert_eq!(wire.read(&mut room).await.unwrap(), 0);
    assert!(began.elapsed() >= Duration::from_secs(75));
    assert_eq!(line.refusal(), None);
}

#[test]
fn a_broken_body_refuses_no_request_before_it() {
    let broken = [&CHUNKED[..CHUNKED.len() - 10], b"x"].concat();
    for before in [&[][..], &[GOOD], &[GOOD, GOOD], &[POST]] {
        let bytes = [&before.concat(), broken.as_slice()].concat();
        for seed in 0..16 {
            request_holds(&bytes, seed, false);
        }
    }
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

/// Parts that requests are made of, good ones and bad ones.
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
    let mut wire = Wire::new(server, Arc::clone(&line), bounds());
    line.become_http2();
    wire.pass_through();
    let mut room = [0; 64];

    wire.write_all(b"settings").await.unwrap();
    wire.flush().await.unwrap();
    assert_eq!(client.read(&mut room).await.unwrap(), 8, "at once");

    line.enter();
    for frame in [b"one", b"two"] {
        wire.write_all(frame).await.unwrap();
        wire.flush().await.unwrap();
    }
    let early = tokio::time::timeout(Duration::from_secs(1), client.read(&mut room)).await;
    assert!(early.is_err(), "not written yet");
    let next_turn = tokio::time::timeout(Duration::from_secs(1), wire.read(&mut room)).await;
    assert!(next_turn.is_err(), "nothing to read");
    let read = client.read(&mut room).await.unwrap();
    assert_eq!(&room[..read], b"onetwo");

    // The last one's answer has nothing to wait for; those of several wait for each other.
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
    let next_turn = tokio::time::timeout(Duration::from_secs(1), wire.read(&mut room)).await;
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
    let mut wire = Wire::new(server, Arc::clone(&line), bounds());
    line.become_http2();
    wire.pass_through();
    line.enter();
    wire.write_all(b"too much").await.unwrap();
    wire.flush().await.unwrap();
    let began = Instant::now();
    let cut = wire.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(cut.kind(), io::ErrorKind::TimedOut);
    assert_eq!(began.elapsed().as_secs(), TIMEOUTS.send.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_may_rest_once_all_is_written() {
    let (mut client, server) = duplex(64);
    let line = Arc::new(Line::new());
    let mut wire = Wire::new(server, Arc::clone(&line), bounds());
    let mut room = [0; 300];
    let mut silence = async |wire: &mut Wire<_>, time| {
        let silent = tokio::time::timeout(time, wire.read(&mut room)).await;
        assert!(silent.is_err());
    };
    silence(&mut wire, REST_AFTER / 2).await;
    assert!(!line.rests());
    silence(&mut wire, REST_AFTER).await;
    assert!(line.rests());
    wire.rest();
    assert!(!line.rests());

    client.write_all(GOOD).await.unwrap();
    assert_eq!(wire.read(&mut [0; 300]).await.unwrap(), GOOD.len());
    // Its request has not begun yet, and then is in flight.
    silence(&mut wire, 3 * REST_AFTER).await;
    assert!(!line.rests());
    line.enter();
    silence(&mut wire, LOOK_AGAIN).await;
    assert!(!line.rests());
    wire.write_all(b"answer").await.unwrap();
    line.leave(Instant::now());
    silence(&mut wire, 2 * LOOK_AGAIN).await;
    assert!(!line.rests(), "not flushed");
    wire.flush().await.unwrap();
    client.write_all(GOOD).await.unwrap();
    assert_eq!(wire.read(&mut [0; 300]).await.unwrap(), GOOD.len());
    line.enter();
    line.leave(Instant::now());
    silence(&mut wire, 2 * LOOK_AGAIN).await;
    assert!(line.rests());
}
