//! Answers that come before their request has ended: the client sees them, and loses no request behind them.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::support::{Answer, App, Gateway, Wire, chunked, config, request, within};

/// An app that answers before it has read, and what refuses before an app is asked.
const ROUTES: &str = "limits: {body_bytes: 100MiB}\n\
    jwt: {app: {algorithms: [HS256], secret: 0123456789abcdef0123456789abcdef}}\n\
    upstreams: {early: {servers: ['@app'], buffer: off}}\n\
    routes:\n  - {path: /early, proxy: early, auth: none}\n  - {path: /secret/*, proxy: early, auth: app}\n  \
    - {path: /small, proxy: early, auth: none, body_bytes: 1KiB}\n  - {path: /said, respond: {status: 200, body: said}}\n";

async fn start() -> (App, Gateway) {
    let app = App::start(|_| Answer::Refuse).await;
    let gateway = Gateway::start(&config(ROUTES, &[("app", &app.url())])).await;
    (app, gateway)
}

/// Sends the pieces of a request, with so many milliseconds between each two.
async fn pieces(wire: &mut Wire, pieces: &[&[u8]], delay: u64) {
    for piece in pieces {
        wire.try_send(piece).await.ok();
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
}

#[tokio::test]
async fn no_request_is_lost_behind_an_early_answer() {
    let (_app, gateway) = start().await;
    let mut asked = 0;
    for (target, status) in [
        ("/early", 403),
        ("/secret/x", 401),
        ("/nowhere", 404),
        ("/said", 200),
    ] {
        for delay in [0, 1, 20, 100] {
            for chunks in [false, true] {
                let framing = if chunks {
                    ("Transfer-Encoding", "chunked")
                } else {
                    ("Content-Length", "10")
                };
                let head = request("POST", target, &[framing], "");
                let (first, second) = if chunks {
                    (
                        chunked("hello"),
                        [&chunked("world")[..], b"0\r\n\r\n"].concat(),
                    )
                } else {
                    (b"hello".to_vec(), b"world".to_vec())
                };
                let mut wire = gateway.connect().await;
                for round in 0..3 {
                    pieces(&mut wire, &[&head, &first, &second], delay).await;
                    let reply = wire.reply().await;
                    let what = format!("{target}, {delay} ms, chunks: {chunks}, {round}");
                    assert_eq!(reply.status, status, "{what}");
                    assert_eq!(reply.field("connection"), None, "{what}");
                    asked += 1;
                }
                // The next one right behind the body.
                let last = [&second[..], &request("GET", "/said", &[], "")].concat();
                pieces(&mut wire, &[&head, &first, &last], delay).await;
                assert_eq!(wire.reply().await.status, status);
                assert_eq!(wire.reply().await.text(), "said");
                asked += 2;
            }
        }
    }
    let records = gateway.records_of(asked).await;
    assert!(
        records.iter().all(|record| record["status"] != 408),
        "{records:#?}"
    );
}

#[tokio::test]
async fn who_waits_for_100_and_is_refused_is_told_that_the_connection_ends() {
    let (_app, gateway) = start().await;
    for target in ["/secret/x", "/nowhere"] {
        let mut wire = gateway.connect().await;
        let fields = [("Content-Length", "5"), ("Expect", "100-continue")];
        wire.send(request("POST", target, &fields, "")).await;
        let reply = wire.reply().await;
        assert!(
            matches!(reply.status, 401 | 404),
            "{target}: {}",
            reply.status
        );
        assert_eq!(reply.field("connection"), Some("close"), "{target}");
    }
}

#[tokio::test]
async fn a_body_that_does_not_follow_is_the_next_requests_408() {
    let (_app, gateway) = start().await;
    let mut wire = gateway.connect().await;
    wire.send(request("POST", "/early", &[("Content-Length", "10")], ""))
        .await;
    assert_eq!(wire.reply().await.status, 403);
    let began = Instant::now();
    assert_eq!(wire.reply().await.status, 408);
    assert!(began.elapsed() >= Duration::from_secs(4));
    let records = gateway.records_of(2).await;
    assert_eq!(records[1]["reason"], "request_timeout", "{records:#?}");
    // Nothing of the body is taken for the head of a request.
    assert_eq!(records[1]["path"], "/", "{records:#?}");
}

#[tokio::test]
async fn a_refused_upload_gets_its_answer_though_the_client_sends_all_first() {
    const SIZE: usize = 16 * 1024 * 1024;
    let (_app, gateway) = start().await;
    let body = vec![b'x'; SIZE];
    for (target, status) in [
        ("/small", 413),
        ("/secret/x", 401),
        ("/nowhere", 404),
        ("/early", 403),
        ("/../b", 400),
    ] {
        let mut wire = gateway.connect().await;
        wire.send(request("POST", target, &[], &body)).await;
        let reply = wire.reply().await;
        assert_eq!(reply.status, status, "{target}");
        assert_eq!(reply.field("connection"), Some("close"), "{target}");
        if status == 413 {
            let said = reply.text();
            for word in ["body_bytes", "1024", "/small"] {
                assert!(said.contains(word), "{word} is not in {said}");
            }
        }
        wire.closed().await;
    }
}

#[tokio::test]
async fn a_client_that_still_sends_does_not_hold_the_end_up() {
    let (_app, mut gateway) = start().await;
    let mut wire = gateway.connect().await;
    wire.send(request(
        "POST",
        "/small",
        &[("Content-Length", "10000000")],
        "",
    ))
    .await;
    assert_eq!(wire.reply().await.status, 413);
    let began = Instant::now();
    gateway.signal(Signal::TERM);
    within(Duration::from_secs(10), gateway.exit())
        .await
        .unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(6),
        "{:?}",
        began.elapsed()
    );
}
