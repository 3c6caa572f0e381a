//! Request bodies that are not read: the rest of the body, the response before it, and the request after it.

use super::*;
use crate::wire::{DROP_WITHIN, DROPPED, LINGER, QUIET};

/// Responds at once, and reads no body.
async fn early(_: Box<Request<Body>>, refusal: Option<Reject>) -> Response<Body> {
    let mut response = Response::new(Body::full("early"));
    if let Some(reject) = refusal {
        *response.status_mut() = reject.status();
    }
    response
}

/// Heads of a POST with five bytes of body, and the pieces of these.
const FRAMED: [(&[u8], &[u8], &[u8]); 2] = [
    (
        b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n",
        b"he",
        b"llo",
    ),
    (
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"2\r\nhe\r\n",
        b"3\r\nllo\r\n0\r\n\r\n",
    ),
];

#[tokio::test(start_paused = true)]
async fn a_short_body_that_comes_behind_its_answer_costs_no_request() {
    for (head, first, second) in FRAMED {
        for delay in [0, 1, 20, 100].map(Duration::from_millis) {
            let (mut client, _, _served) = serve(1000, early);
            for round in 0..3 {
                for piece in [head, first, second] {
                    client.write_all(piece).await.unwrap();
                    tokio::time::sleep(delay).await;
                }
                let text = read(&mut client).await;
                assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{round}: {text}");
                assert!(!text.contains("connection: close"), "{text}");
                assert!(text.ends_with("\r\n\r\nearly"), "{text}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_sent_right_behind_such_a_body_is_answered() {
    for (head, first, second) in FRAMED {
        let (mut client, _, _served) = serve(1000, early);
        client.write_all(head).await.unwrap();
        assert!(read(&mut client).await.ends_with("early"));
        client
            .write_all(&[first, second, GOOD].concat())
            .await
            .unwrap();
        let text = read(&mut client).await;
        assert_eq!(text.matches("HTTP/1.1 200 OK\r\n").count(), 1, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_rest_is_the_end_of_the_connection_and_the_answer_says_so() {
    for (length, keeps) in [(DROPPED, true), (DROPPED + 1, false)] {
        let (mut client, _, _served) = serve(1000, early);
        let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        let text = read(&mut client).await;
        assert!(text.ends_with("early"), "{text}");
        assert_eq!(text.contains("connection: close"), !keeps, "{text}");
        // It is read all the same, so that nothing destroys the response.
        let body = vec![b'x'; usize::try_from(length).unwrap()];
        client.write_all(&body).await.unwrap();
        client.write_all(GOOD).await.unwrap();
        let text = read(&mut client).await;
        assert_eq!(text.starts_with("HTTP/1.1 200 OK"), keeps, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rest_that_does_not_come_is_408_for_the_next_request() {
    for (head, first, _) in FRAMED {
        let (mut client, _, served) = serve(1000, early);
        client.write_all(&[head, first].concat()).await.unwrap();
        let text = read(&mut client).await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        let began = Instant::now();
        tokio::time::sleep(DROP_WITHIN).await;
        let text = read(&mut client).await;
        assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
        assert!(text.contains("connection: close"), "{text}");
        assert!(matches!(served.await.unwrap(), Ended::Over));
        assert!(began.elapsed() <= DROP_WITHIN + QUIET + REST_AFTER);
    }
}

#[tokio::test(start_paused = true)]
async fn who_sends_all_before_it_reads_gets_a_long_answer_too() {
    for length in [20_000, usize::try_from(DROPPED).unwrap() + 1] {
        let (mut client, _, _served) = serve(300, async |_, _| {
            Response::new(Body::full(vec![b'y'; 20_000]))
        });
        let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
        let upload = [head.into_bytes(), vec![b'x'; length]].concat();
        let sent = timeout(Duration::from_secs(1), client.write_all(&upload)).await;
        assert!(
            sent.is_ok(),
            "{length}: the client waits for the gateway, and the gateway for the client"
        );
        assert_eq!(read(&mut client).await.matches('y').count(), 20_000);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_behind_a_refusal_is_taken_in_but_not_for_ever() {
    let (mut client, _, served) = serve(300, early);
    let head = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10000000\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    assert!(read(&mut client).await.ends_with("early"));
    let began = Instant::now();
    while client.write_all(b"x").await.is_ok() {
        tokio::time::sleep(REST_AFTER).await;
    }
    assert!(matches!(served.await.unwrap(), Ended::Over));
    let took = began.elapsed();
    assert!(
        took >= LINGER - REST_AFTER && took <= LINGER + 2 * REST_AFTER,
        "{took:?}"
    );
}
