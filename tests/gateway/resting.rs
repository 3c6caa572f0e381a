//! Connections that say nothing for a while: what serves them is given back, and they notice
//! nothing of it.

use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::support::{
    Answer, App, Authority, Folder, Gateway, H2, Wire, config, eventually, request,
};

/// A connection rests after a second of silence.
const A_WHILE: Duration = Duration::from_millis(1_400);

const ROUTES: &str = "routes:
  - {path: /ping, respond: {status: 200, body: pong}, auth: none}
  - {path: /*, proxy: '@app', auth: none}
";

async fn start(settings: &str, app: &App) -> Gateway {
    let text = format!("{settings}{ROUTES}");
    Gateway::start(&config(&text, &[("app", &app.url())])).await
}

#[tokio::test]
async fn a_request_after_a_rest_may_take_its_time() {
    let (send, receive) = mpsc::channel(1);
    let receive = std::sync::Mutex::new(Some(receive));
    let app = App::start(move |_| match receive.lock().unwrap().take() {
        Some(answer) => Answer::Stream(answer),
        None => Answer::EchoBody,
    })
    .await;
    let gateway = start("", &app).await;
    let mut rested = gateway.connect().await;
    let mut fresh = gateway.connect().await;
    let mut busy = gateway.connect().await;
    assert_eq!(rested.get("/ping", &[]).await.text(), "pong");
    busy.send(request("GET", "/slow", &[], "")).await;
    app.saw("/slow", |seen| seen.complete).await;
    for turn in 0..2 {
        sleep(A_WHILE).await;
        for wire in [&mut rested, &mut fresh] {
            wire.send(request("POST", "/echo", &[], "hello")).await;
            assert_eq!(wire.reply().await.text(), "hello", "turn {turn}");
        }
    }
    send.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nla".into())
        .await
        .unwrap();
    sleep(A_WHILE).await;
    send.send(b"te".into()).await.unwrap();
    assert_eq!(busy.reply().await.text(), "late");
    sleep(A_WHILE).await;
    assert_eq!(busy.get("/ping", &[]).await.text(), "pong");
}

#[tokio::test]
async fn a_rest_ends_in_the_middle_of_a_head_and_for_every_protocol() {
    let app = App::start(|seen| match seen.field("upgrade") {
        Some(_) => Answer::Upgrade,
        None => Answer::EchoBody,
    })
    .await;
    let gateway = start("", &app).await;
    let mut wire = gateway.connect().await;
    let silent = tokio::net::TcpStream::connect(gateway.address())
        .await
        .unwrap();
    sleep(A_WHILE).await;

    let (first, second) = ("GET /ping HTTP/1.1\r\nHo", "st: a.test\r\n\r\n");
    wire.send(first).await;
    sleep(A_WHILE).await;
    wire.send(second).await;
    assert_eq!(wire.reply().await.text(), "pong");

    let mut h2 = H2::over(silent).await;
    assert_eq!(h2.get("/ping", &[]).await.text(), "pong");
    sleep(A_WHILE).await;
    assert_eq!(h2.get("/ping", &[]).await.text(), "pong");

    sleep(A_WHILE).await;
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    wire.send(request("GET", "/live", &upgrade, "")).await;
    assert_eq!(wire.head().await.status, 101);
    sleep(A_WHILE).await;
    wire.send("still here").await;
    assert_eq!(wire.take(10).await, b"still here");

    // Whoever has spoken HTTP/1.1 does not begin with HTTP/2.
    let mut wire = gateway.connect().await;
    assert_eq!(wire.get("/ping", &[]).await.text(), "pong");
    sleep(A_WHILE).await;
    wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(wire.reply().await.status, 505);
}

#[tokio::test]
async fn a_rest_over_tls_ends_as_well() {
    let app = App::start(|_| Answer::EchoBody).await;
    let authority = Authority::new();
    let issued = authority.issue("a.test");
    let folder = Folder::new();
    folder.write("a.pem", &issued.cert);
    folder.write("a.key", &issued.key);
    let text = format!(
        "listeners: [{{address: '127.0.0.1:0', tls: {{certificates: [{{cert: a.pem, key: a.key}}]}}}}]\n{ROUTES}"
    );
    let gateway = Gateway::start_in(folder, &config(&text, &[("app", &app.url())])).await;
    let mut spoke = Wire::over(
        authority
            .connect(gateway.address(), "a.test", &[])
            .await
            .unwrap(),
    );
    let mut silent = Wire::over(
        authority
            .connect(gateway.address(), "a.test", &[])
            .await
            .unwrap(),
    );
    assert_eq!(spoke.get("/ping", &[]).await.text(), "pong");
    for _ in 0..2 {
        sleep(A_WHILE).await;
        for wire in [&mut spoke, &mut silent] {
            wire.send(request("POST", "/echo", &[], "hello")).await;
            assert_eq!(wire.reply().await.text(), "hello");
        }
    }
    sleep(A_WHILE).await;
    gateway.signal(Signal::TERM);
    spoke.closed().await;
    silent.closed().await;
}

#[tokio::test]
async fn a_rest_ends_with_keep_alive_the_drain_or_the_client() {
    let app = App::start(|_| Answer::EchoBody).await;
    let gateway = start("timeouts: {keep_alive: 3s}\n", &app).await;
    let mut wire = gateway.connect().await;
    let mut silent = gateway.connect().await;
    assert_eq!(wire.get("/ping", &[]).await.text(), "pong");
    sleep(A_WHILE).await;
    assert_eq!(wire.get("/ping", &[]).await.text(), "pong");
    let start = std::time::Instant::now();
    silent.closed().await;
    wire.closed().await;
    assert!(start.elapsed() > Duration::from_secs(2), "both had 3 s");

    let mut gateway = start_with_two_places(&app).await;
    let gone = [gateway.connect().await, gateway.connect().await];
    sleep(A_WHILE).await;
    assert!(!gateway.connect().await.answers().await, "two at a time");
    drop(gone);
    let mut last = eventually("a place to be free", async || {
        let mut wire = gateway.connect().await;
        wire.try_send(request("GET", "/ping", &[], "")).await.ok()?;
        wire.answers().await.then_some(wire)
    })
    .await;
    assert_eq!(last.reply().await.text(), "pong");
    sleep(A_WHILE).await;
    gateway.signal(Signal::TERM);
    last.closed().await;
    assert_eq!(gateway.exit().await.code(), Some(0));
}

async fn start_with_two_places(app: &App) -> Gateway {
    start("limits: {connections: 2}\n", app).await
}
