//! Limits and deadlines: what is too large, too slow or too many is refused, and others are served.

use std::time::{Duration, Instant};

use super::support::{
    Answer, App, Folder, Gateway, H2, Wire, chunked, config, eventually, request, within,
};

async fn start(settings: &str) -> (App, Gateway) {
    let app = App::start(|_| Answer::EchoBody).await;
    let text = format!("{settings}routes: [{{path: /*, proxy: '@app', auth: none}}]\n");
    let gateway = Gateway::start(&config(&text, &[("app", &app.url())])).await;
    (app, gateway)
}

#[tokio::test]
async fn a_target_that_is_too_long_is_414() {
    let (app, gateway) = start("limits: {uri_bytes: 1KiB}\n").await;
    let of = |length: usize| format!("/{}", "a".repeat(length - 1));
    assert_eq!(gateway.get(&of(1024), &[]).await.status, 200);
    assert_eq!(gateway.get(&of(1025), &[]).await.status, 414);
    assert_eq!(
        gateway.get(&format!("/?{}", of(1023)), &[]).await.status,
        414,
        "the query counts"
    );
    let mut h2 = H2::connect(gateway.address()).await;
    assert_eq!(h2.get(&of(1000), &[]).await.status, 200);
    assert_eq!(h2.get(&of(1025), &[]).await.status, 414);
    assert_eq!(app.requests(), 2);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_431() {
    let (app, gateway) = start("limits: {header_bytes: 4KiB, header_count: 20}\n").await;
    let large = "a".repeat(5_000);
    let fitting = "a".repeat(3_000);
    assert_eq!(gateway.get("/", &[("X-A", &fitting)]).await.status, 200);
    assert_eq!(gateway.get("/", &[("X-A", &large)]).await.status, 431);
    assert_eq!(gateway.get("/", &[("X-A", "1"); 19]).await.status, 200);
    assert_eq!(
        gateway.get("/", &[("X-A", "1"); 20]).await.status,
        431,
        "Host is the twenty-first"
    );
    assert_eq!(app.requests(), 2);

    let mut endless = gateway.connect().await;
    endless
        .send("GET / HTTP/1.1\r\nHost: a.test\r\nX-A: ")
        .await;
    for _ in 0..100 {
        if endless.try_send("a".repeat(1_000)).await.is_err() {
            break;
        }
    }
    assert_eq!(endless.reply().await.status, 431);
    endless.closed().await;
}

#[tokio::test]
async fn a_slow_head_is_408_and_closed() {
    let (_app, gateway) = start("timeouts: {header_read: 500ms}\n").await;
    let mut slow = gateway.connect().await;
    let start = Instant::now();
    slow.send("GET / HTTP/1.1\r\n").await;
    // A byte now and then does not buy more time.
    let ended = eventually("408", async || {
        slow.try_send("X").await.ok();
        within(Duration::from_millis(50), slow.fill())
            .await
            .map(|_| start.elapsed())
    })
    .await;
    assert!((400..5_000).contains(&ended.as_millis()), "{ended:?}");
    assert_eq!(slow.reply().await.status, 408);
    slow.closed().await;

    let mut in_time = gateway.connect().await;
    assert_eq!(in_time.get("/", &[]).await.status, 200);
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_after_keep_alive() {
    let (_app, gateway) = start("timeouts: {keep_alive: 500ms, header_read: 20s}\n").await;
    let mut wire = gateway.connect().await;
    assert_eq!(wire.get("/", &[]).await.status, 200);
    assert_eq!(wire.get("/", &[]).await.status, 200);
    let start = Instant::now();
    wire.closed().await;
    let took = start.elapsed();
    assert!((300..5_000).contains(&took.as_millis()), "{took:?}");
}

#[tokio::test]
async fn a_body_that_stops_coming_is_408_and_one_that_trickles_is_served() {
    let (app, gateway) = start("timeouts: {body_read: 700ms}\n").await;
    let mut stuck = gateway.connect().await;
    stuck
        .send(request("POST", "/stuck", &[("Content-Length", "10")], ""))
        .await;
    stuck.send("half").await;
    assert_eq!(stuck.reply().await.status, 408);
    stuck.closed().await;
    assert_eq!(gateway.record("/stuck").await["reason"], "request_timeout");
    assert_eq!(app.requests(), 0, "the app has no part in it");

    let mut slow = gateway.connect().await;
    let start = Instant::now();
    slow.send(request(
        "POST",
        "/slow",
        &[("Transfer-Encoding", "chunked")],
        "",
    ))
    .await;
    let mut pieces = 0;
    while start.elapsed() < Duration::from_millis(1_500) {
        slow.send(chunked("x")).await;
        pieces += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    slow.send("0\r\n\r\n").await;
    assert_eq!(slow.reply().await.body.len(), pieces);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_let_go_after_send() {
    const SIZE: usize = 64 * 1024 * 1024;
    let app = App::start(|_| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
        Answer::Raw([head.into_bytes(), vec![b'x'; SIZE]].concat())
    })
    .await;
    let text = "timeouts: {send: 500ms}\nroutes: [{path: /*, proxy: '@app', auth: none}]\n";
    let gateway = Gateway::start(&config(text, &[("app", &app.url())])).await;
    let mut wire = gateway.connect().await;
    wire.send(request("GET", "/", &[], "")).await;
    app.saw("/", |seen| seen.gone).await;
    assert!(wire.rest().await.len() < SIZE);
    assert_eq!(gateway.get("/", &[]).await.body.len(), SIZE);
}

#[tokio::test]
async fn connections_of_one_address_are_counted() {
    let (_app, gateway) = start("limits: {connections_per_ip: 10}\n").await;
    let mut open = Vec::new();
    for _ in 0..10 {
        let mut wire = gateway.connect().await;
        assert_eq!(wire.get("/", &[]).await.status, 200);
        open.push(wire);
    }
    let mut eleventh = gateway.connect().await;
    eleventh.try_send(request("GET", "/", &[], "")).await.ok();
    assert!(eleventh.rest().await.is_empty());
    eventually("a line in the log", async || {
        let log = gateway.stderr();
        let line = log.lines().find(|line| line.contains("beyond a limit"))?;
        assert!(
            line.contains("limit=\"connections_per_ip\" client=127.0.0.1 count=1"),
            "{line}"
        );
        Some(())
    })
    .await;

    open.pop();
    eventually("a free place", async || {
        let mut wire = gateway.connect().await;
        wire.try_send(request("GET", "/", &[], "")).await.ok();
        wire.fill().await.then_some(())
    })
    .await;
}

/// The limits that let thousands of connections of one address in.
const MANY: &str = "limits: {connections_per_ip: 20000}\ntimeouts: {header_read: 60s}\n";

#[tokio::test]
async fn a_thousand_slow_heads_stop_nobody() {
    let (_app, gateway) = start(MANY).await;
    let mut slow = Vec::new();
    for _ in 0..1_000 {
        let mut wire = Wire::connect(gateway.address()).await;
        wire.send("GET / HTTP/1.1\r\nHost: a.test\r\nX-").await;
        slow.push(wire);
    }
    for wire in &mut slow {
        wire.send("A: ").await;
    }
    assert_others_are_served(&gateway).await;
    let mut one = slow.pop().unwrap();
    one.send("b\r\n\r\n").await;
    assert_eq!(one.reply().await.status, 200, "the slow are served too");
}

#[tokio::test]
async fn ten_thousand_idle_connections_stop_nobody() {
    let (_app, gateway) = start(MANY).await;
    // Fewer only where the system lets a process have fewer; other tests need some, too.
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let count = files.map_or(10_000, |files| files.saturating_sub(2_000).min(10_000));
    assert!(count >= 1_000, "too few open files are allowed: {files:?}");
    let mut idle = Vec::new();
    for at in 0..count {
        let mut wire = Wire::connect(gateway.address()).await;
        if at % 2 == 0 {
            assert_eq!(wire.get("/", &[]).await.status, 200);
        }
        idle.push(wire);
    }
    assert_others_are_served(&gateway).await;
    let mut last = idle.pop().unwrap();
    assert_eq!(last.get("/", &[]).await.status, 200);
    if let Some(resident) = gateway.resident() {
        assert!(
            resident < 256 * 1024 * 1024,
            "{resident} bytes for {count} connections"
        );
    }
}

async fn assert_others_are_served(gateway: &Gateway) {
    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(gateway.get("/", &[]).await.status, 200);
    }
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

/// A gateway on a Unix socket, and a function's worth of connections to it: how many of four were served.
async fn served_over_a_socket(settings: &str) -> (usize, String) {
    let app = App::echo().await;
    let folder = Folder::new();
    let path = folder.path("gateway.sock");
    let text = format!(
        "{settings}limits: {{connections_per_ip: 2}}
listeners: [{{address: 127.0.0.1:0}}, {{address: 'unix:@path'}}]
routes: [{{path: /*, proxy: '@app', auth: none}}]
"
    );
    let values = [("path", path.to_str().unwrap()), ("app", &app.url())];
    folder.write("gateway.yaml", config(&text, &values));
    let gateway = Gateway::start_as_it_is(folder, 1, &[]).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let stream = eventually("the socket", async || {
            tokio::net::UnixStream::connect(&path).await.ok()
        });
        let mut wire = Wire::over(stream.await);
        let fields = [("Host", "a.test"), ("X-Forwarded-For", "203.0.113.9")];
        let asked = wire.try_send(request("GET", "/", &fields, "")).await;
        let served =
            asked.is_ok() && within(Duration::from_secs(5), wire.fill()).await == Some(true);
        held.push((wire, served));
    }
    let client = gateway.record("/").await["client"].to_string();
    (held.iter().filter(|(_, served)| *served).count(), client)
}

#[tokio::test]
async fn a_unix_socket_counts_as_one_client_unless_it_is_trusted() {
    let seen = served_over_a_socket("").await;
    assert_eq!(seen, (2, "\"unix\"".to_owned()));
    let seen = served_over_a_socket("trusted_proxies: [unix]\n").await;
    assert_eq!(seen, (4, "\"203.0.113.9\"".to_owned()));
}
