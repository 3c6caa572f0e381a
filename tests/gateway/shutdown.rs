//! The end: requests in flight finish, idle connections close, the bound holds.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, Sender};

use super::support::{Answer, App, Gateway, H2, Wire, config, eventually, request};

/// A gateway before an app whose first answer is what the test sends; the later ones are silence.
async fn start(bound: &str) -> (App, Gateway, Sender<Vec<u8>>) {
    let (sender, receiver) = mpsc::channel(1);
    let receiver = Mutex::new(Some(receiver));
    let app = App::start(move |_| match receiver.lock().unwrap().take() {
        Some(receiver) => Answer::Stream(receiver),
        None => Answer::Silent,
    })
    .await;
    let text = "timeouts: {shutdown: @bound}
routes: [{path: /*, proxy: '@app', auth: none}, {path: /ping, respond: {status: 200, body: pong}}]
";
    let gateway = Gateway::start(&config(text, &[("bound", bound), ("app", &app.url())])).await;
    (app, gateway, sender)
}

#[tokio::test]
async fn what_is_in_flight_finishes_and_the_program_ends_well() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let (app, mut gateway, answer) = start("20s").await;
        let address = gateway.address();
        let mut busy = gateway.connect().await;
        busy.send(request("GET", "/busy", &[], "")).await;
        app.saw("/busy", |seen| seen.complete).await;

        gateway.signal(signal);
        eventually("new connections to be refused", async || {
            TcpStream::connect(address).await.is_err().then_some(())
        })
        .await;
        answer
            .send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwh".into())
            .await
            .unwrap();
        answer.send(b"ole".into()).await.unwrap();
        let reply = busy.reply().await;
        assert_eq!(reply.text(), "whole");
        assert_eq!(reply.field("connection"), Some("close"));
        busy.closed().await;
        assert_eq!(gateway.exit().await.code(), Some(0), "{signal:?}");
        assert!(
            gateway
                .records()
                .iter()
                .any(|record| record["path"] == "/busy")
        );
    }
}

#[tokio::test]
async fn signals_without_a_meaning_end_nothing() {
    let (app, gateway, answer) = start("20s").await;
    let mut busy = gateway.connect().await;
    busy.send(request("GET", "/busy", &[], "")).await;
    app.saw("/busy", |seen| seen.complete).await;
    for signal in [Signal::USR2, Signal::PIPE, Signal::WINCH, Signal::XFSZ] {
        gateway.signal(signal);
    }
    assert_eq!(gateway.get("/ping", &[]).await.text(), "pong");
    answer
        .send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole".into())
        .await
        .unwrap();
    assert_eq!(busy.reply().await.text(), "whole");
}

#[tokio::test]
async fn an_http2_request_in_flight_finishes_too() {
    let (app, mut gateway, answer) = start("20s").await;
    let mut client = H2::connect(gateway.address()).await;
    let mut second = client.clone();
    let busy = tokio::spawn(async move { client.get("/busy", &[]).await });
    app.saw("/busy", |seen| seen.complete).await;
    assert_eq!(second.get("/ping", &[]).await.text(), "pong");

    gateway.signal(Signal::TERM);
    answer
        .send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole".into())
        .await
        .unwrap();
    assert_eq!(busy.await.unwrap().text(), "whole");
    assert_eq!(gateway.exit().await.code(), Some(0));
}

#[tokio::test]
async fn an_idle_connection_is_closed_at_once() {
    let (_app, mut gateway, _) = start("20s").await;
    let mut idle = gateway.connect().await;
    assert_eq!(idle.get("/ping", &[]).await.text(), "pong");
    let mut fresh = gateway.connect().await;
    let mut h2 = H2::connect(gateway.address()).await;
    assert_eq!(h2.get("/ping", &[]).await.text(), "pong");

    let start = Instant::now();
    gateway.signal(Signal::TERM);
    idle.closed().await;
    fresh.closed().await;
    assert_eq!(gateway.exit().await.code(), Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn what_does_not_finish_within_the_bound_is_cut() {
    let (app, mut gateway, _answer) = start("700ms").await;
    let mut stuck = Wire::connect(gateway.address()).await;
    stuck.send(request("GET", "/stuck", &[], "")).await;
    app.saw("/stuck", |seen| seen.complete).await;

    let start = Instant::now();
    gateway.signal(Signal::TERM);
    let status = gateway.exit().await;
    assert_eq!(status.code(), Some(0));
    let took = start.elapsed();
    assert!((600..5_000).contains(&took.as_millis()), "{took:?}");
    stuck.rest().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_one_message_and_exit_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = super::support::Folder::new();
    let address = taken.local_addr().unwrap().to_string();
    let text = "listeners: [{address: '@address'}]
routes: [{path: /*, respond: {status: 200, body: in}}]
";
    folder.write("gateway.yaml", config(text, &[("address", &address)]));
    let output = super::support::run_to_end(&folder, &["run"], &[]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains(&address), "{stderr}");
    assert!(!stderr.contains("panicked at"), "{stderr}");
}
