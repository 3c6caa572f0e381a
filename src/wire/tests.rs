//! What hyper is given for what a client sends, however the bytes are cut.

use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

const LIMITS: Limits = Limits {
    connections: 10,
    connections_per_ip: 10,
    header_bytes: 1000,
    header_count: 10,
    uri_bytes: 200,
    body_bytes: 100,
};
const TIMEOUTS: Timeouts = Timeouts {
    header_read: Duration::from_secs(10),
    body_read: Duration::from_secs(10),
    keep_alive: Duration::from_secs(75),
    tls_handshake: Duration::from_secs(10),
    send: Duration::from_secs(60),
    shutdown: Duration::from_secs(10),
};

/// Sends `pieces` and gives what comes through until there is nothing more, and the refusal.
async fn through(pieces: &[&[u8]]) -> (Vec<u8>, Option<Reject>) {
    let (mut client, server) = duplex(64);
    let line = Arc::new(Line::new());
    let mut wire = Wire::new(server, Arc::clone(&line), LIMITS, TIMEOUTS);
    let send = async {
        for piece in pieces {
            client.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        // The client waits for its answer; a refused one may never get rid of its bytes.
        std::future::pending::<()>().await;
    };
    let mut seen = Vec::new();
    let receive = async {
        let mut room = [0; 300];
        // The clock stands still, so this waits just until nobody has anything to do.
        while let Ok(Ok(read)) =
            tokio::time::timeout(Duration::from_millis(1), wire.read(&mut room)).await
        {
            if read == 0 {
                break;
            }
            seen.extend_from_slice(&room[..read]);
        }
    };
    tokio::select! {
        () = receive => {}
        () = send => {}
    }
    (seen, line.refusal())
}

const GOOD: &[u8] = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
const POST: &[u8] = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";
const CHUNKED: &[u8] =
    b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
const BAD: &[u8] = b"GET /a HTTP/1.1\nHost: h\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn good_messages_pass_as_they_are() {
    for message in [GOOD, POST, CHUNKED] {
        assert_eq!(through(&[message]).await, (message.to_vec(), None));
    }
    let all = [GOOD, POST, CHUNKED, GOOD].concat();
    assert_eq!(through(&[&all]).await, (all.clone(), None));
}

#[tokio::test(start_paused = true)]
async fn a_head_comes_whole_or_not_at_all() {
    assert_eq!(
        through(&[&GOOD[..GOOD.len() - 1]]).await,
        (Vec::new(), None)
    );
    assert_eq!(
        through(&[&GOOD[..9], &GOOD[9..]]).await,
        (GOOD.to_vec(), None)
    );
}

#[tokio::test(start_paused = true)]
async fn a_bad_head_is_replaced_after_the_good_ones_before_it() {
    let (seen, refusal) = through(&[&[POST, BAD, GOOD].concat()]).await;
    assert_eq!(seen, [POST, STAND_IN].concat());
    assert_eq!(refusal.map(Reject::reason), Some("bad_request"));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_takes_too_long_is_refused() {
    let (mut client, server) = duplex(64);
    let line = Arc::new(Line::new());
    let mut wire = Wire::new(server, Arc::clone(&line), LIMITS, TIMEOUTS);
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
    let mut wire = Wire::new(server, Arc::clone(&line), LIMITS, TIMEOUTS);
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

proptest! {
    #[test]
    fn how_the_bytes_are_cut_makes_no_difference(
        parts in prop::collection::vec(0..4usize, 1..5),
        cuts in prop::collection::vec(1..40usize, 0..30),
    ) {
        let all = [GOOD, POST, CHUNKED, BAD];
        let message = parts.iter().map(|part| all[*part]).collect::<Vec<_>>().concat();
        let mut pieces = Vec::new();
        let mut rest = message.as_slice();
        for cut in cuts {
            let (piece, later) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece);
            rest = later;
        }
        pieces.push(rest);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let whole = runtime.block_on(through(&[&message]));
        let cut = runtime.block_on(through(&pieces));
        prop_assert_eq!(whole, cut);
    }
}
