//! The end: requests in flight finish, idle connections close, the bound holds.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, Sender};

use super::support::{Answer, App, Folder, Gateway, H2, Wire, config, eventually, request};

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

/// An app with a WebSocket, a stream of events, and one request that is answered when the test says so.
async fn streaming(timeouts: &str) -> (App, Gateway, Sender<Vec<u8>>, Vec<Sender<Vec<u8>>>) {
    let (slow, receiver) = mpsc::channel(1);
    let receiver = Mutex::new(Some(receiver));
    let mut senders = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..4 {
        let (sender, receiver) = mpsc::channel(4);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
        sender.send(head.into()).await.unwrap();
        senders.push(sender);
        streams.push(receiver);
    }
    let streams = Mutex::new(streams);
    let app = App::start(move |seen| match seen.target() {
        "/live" => Answer::Upgrade,
        "/slow" => Answer::Stream(receiver.lock().unwrap().take().unwrap()),
        _ => Answer::Stream(streams.lock().unwrap().pop().unwrap()),
    })
    .await;
    let text = "timeouts: {@timeouts}
routes: [{path: /*, proxy: '@app', auth: none}]
";
    let values = [("timeouts", timeouts), ("app", &app.url())];
    let gateway = Gateway::start(&config(text, &values)).await;
    (app, gateway, slow, senders)
}

async fn tunnel(gateway: &Gateway) -> Wire {
    let mut wire = gateway.connect().await;
    let fields = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    wire.send(request("GET", "/live", &fields, "")).await;
    assert_eq!(wire.head().await.status, 101);
    wire
}

#[tokio::test]
async fn tunnels_and_streams_do_not_hold_up_the_end() {
    let (app, mut gateway, _slow, _events) =
        streaming("shutdown: 60s, shutdown_streams: 300ms").await;
    let mut live = tunnel(&gateway).await;
    let mut events = gateway.connect().await;
    events.send(request("GET", "/events", &[], "")).await;
    events.until(b"data: 1").await;
    let mut h2 = H2::connect(gateway.address()).await;
    let h2_events = tokio::spawn(async move { h2.get("/h2-events", &[]).await });
    app.saw("/h2-events", |seen| seen.complete).await;
    tokio::time::sleep(Duration::from_millis(100)).await;

    let start = Instant::now();
    gateway.signal(Signal::TERM);
    live.send("still here").await;
    assert_eq!(live.take(10).await, b"still here");
    assert_eq!(gateway.exit().await.code(), Some(0));
    let took = start.elapsed();
    assert!((250..10_000).contains(&took.as_millis()), "{took:?}");
    for path in ["/live", "/events", "/h2-events"] {
        let record = gateway.record(path).await;
        assert_eq!(record["reason"], "gateway_stopped", "{record}");
    }
    assert!(h2_events.await.is_err());
}

#[tokio::test]
async fn a_request_beside_a_stream_has_all_of_the_drain() {
    let (app, mut gateway, slow, events) =
        streaming("shutdown: 60s, shutdown_streams: 100ms").await;
    let mut h2 = H2::connect(gateway.address()).await;
    let mut second = h2.clone();
    let stream = tokio::spawn(async move { h2.get("/events", &[]).await });
    app.saw("/events", |seen| seen.complete).await;
    let busy = tokio::spawn(async move { second.get("/slow", &[]).await });
    app.saw("/slow", |seen| seen.complete).await;

    gateway.signal(Signal::TERM);
    tokio::time::sleep(Duration::from_millis(700)).await;
    slow.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole".into())
        .await
        .unwrap();
    assert_eq!(busy.await.unwrap().text(), "whole");
    assert_eq!(gateway.exit().await.code(), Some(0));
    assert!(stream.await.is_err());
    drop(events);
}

#[tokio::test]
async fn a_second_signal_ends_the_drain() {
    let (app, mut gateway, _slow, _events) = streaming("shutdown: 60s").await;
    let mut busy = gateway.connect().await;
    busy.send(request("GET", "/slow", &[], "")).await;
    app.saw("/slow", |seen| seen.complete).await;
    let start = Instant::now();
    // Two at once are one.
    gateway.signal(Signal::TERM);
    gateway.signal(Signal::INT);
    let address = gateway.address();
    eventually("new connections to be refused", async || {
        TcpStream::connect(address).await.is_err().then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.exit().await.code(), Some(0));
    let took = start.elapsed();
    assert!((450..10_000).contains(&took.as_millis()), "{took:?}");
}

#[tokio::test]
async fn a_start_waits_for_a_port_that_is_about_to_be_free() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = "listeners: [{address: 127.0.0.1:0}, {address: '@address'}]
routes: [{path: /*, respond: {status: 200, body: in}}]
";
    let freeing = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        drop(taken);
    });
    let text = config(text, &[("address", &address.to_string())]);
    let gateway = Gateway::start(&text).await;
    freeing.await.unwrap();
    assert!(gateway.stderr().contains("waiting for it to be free"));
    assert_eq!(super::support::get(address, "/", &[]).await.text(), "in");
}

#[tokio::test]
async fn the_next_process_takes_a_unix_socket_while_the_old_one_drains() {
    let folder = Folder::new();
    let path = folder.path("gateway.sock");
    let (app, mut old, slow, _events) = streaming("shutdown: 60s").await;
    let listeners = format!(
        "listeners: [{{address: 127.0.0.1:0}}, {{address: 'unix:{}'}}]\n",
        path.display()
    );
    let text = |body: &str| {
        let text =
            "routes: [{path: /slow, proxy: '@app', auth: none}, {path: /*, respond: {body: @body}}]
timeouts: {shutdown: 60s}
";
        config(
            &(listeners.clone() + text),
            &[("app", &app.url()), ("body", body)],
        )
    };
    old.reconfigure(&text("old")).await;
    let ask = async || {
        let stream = tokio::net::UnixStream::connect(&path).await.ok()?;
        Some(Wire::over(stream).get("/", &[]).await.text())
    };
    assert_eq!(ask().await.as_deref(), Some("old"));
    let mut busy = old.connect().await;
    busy.send(request("GET", "/slow", &[], "")).await;
    app.saw("/slow", |seen| seen.complete).await;
    old.signal(Signal::TERM);

    let next = Folder::new();
    next.write("gateway.yaml", text("new"));
    let _new = Gateway::start_as_it_is(next, 1, &[]).await;
    eventually("the new process", async || {
        (ask().await.as_deref() == Some("new")).then_some(())
    })
    .await;
    slow.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole".into())
        .await
        .unwrap();
    assert_eq!(busy.reply().await.text(), "whole");
    assert_eq!(old.exit().await.code(), Some(0));
    assert_eq!(ask().await.as_deref(), Some("new"));
}

#[tokio::test]
async fn a_port_that_is_taken_is_one_message_and_exit_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = Folder::new();
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
