//! `buffer` on an upstream: however slow the client, the app is held for its own time alone.

use std::time::Duration;

use super::support::{Answer, App, Folder, Gateway, chunked, config, eventually, request, within};

async fn start(app: &App, buffer: &str) -> Gateway {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("spool")).unwrap();
    let text = format!(
        "limits: {{body_bytes: 1GiB}}\nupstreams: {{app: {{servers: ['@app'], buffer: {buffer}}}}}\n\
         routes: [{{path: /*, proxy: app, auth: none}}]\n"
    );
    Gateway::start_in(folder, &config(&text, &[("app", &app.url())])).await
}

const BUFFER: &str = "{request: 64KiB, response: 64KiB, spool: spool/, spool_bytes: 1GiB}";

#[tokio::test]
async fn the_app_is_not_asked_before_the_request_is_complete() {
    let app = App::start(|_| Answer::EchoBody).await;
    let gateway = start(&app, BUFFER).await;
    // In memory, and on disk.
    for (path, size) in [("/small", 1_000), ("/large", 1_000_000)] {
        let piece = "x".repeat(size);
        let mut slow = gateway.connect().await;
        slow.send(request(
            "POST",
            path,
            &[("Transfer-Encoding", "chunked")],
            "",
        ))
        .await;
        slow.send(chunked(&piece)).await;

        // A whole round of another client passes meanwhile.
        for _ in 0..3 {
            let quick = gateway.get("/quick", &[]).await;
            assert_eq!(quick.status, 200);
        }
        assert!(
            app.seen().iter().all(|seen| seen.target() != path),
            "{path}: asked too early"
        );

        slow.send([&chunked(&piece)[..], b"0\r\n\r\n"].concat())
            .await;
        let reply = slow.reply().await;
        assert_eq!((reply.status, reply.body.len()), (200, 2 * size), "{path}");
    }
}

#[tokio::test]
async fn the_app_is_let_go_though_the_client_reads_nothing() {
    const SIZE: usize = 64 * 1024 * 1024;
    let app = App::start(|_| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
        Answer::Raw([head.into_bytes(), vec![b'x'; SIZE]].concat())
    })
    .await;
    let gateway = start(&app, BUFFER).await;
    let mut slow = gateway.connect().await;
    slow.send(request("GET", "/", &[], "")).await;

    app.saw("/", |seen| seen.answered).await;
    if let Some(resident) = gateway.resident() {
        assert!(resident < 48 * 1024 * 1024, "the answer is in memory");
    }
    assert_eq!(slow.reply().await.body.len(), SIZE);
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_its_request_never_reaches_the_app() {
    let app = App::echo().await;
    let gateway = start(&app, BUFFER).await;
    let mut wire = gateway.connect().await;
    wire.send(request("POST", "/gone", &[("Content-Length", "100")], ""))
        .await;
    wire.send("half").await;
    drop(wire);

    gateway.record("/gone").await;
    assert_eq!(gateway.get("/quick", &[]).await.status, 200);
    assert_eq!(app.requests(), 1);
}

#[tokio::test]
async fn a_full_spool_is_503_and_nobody_elses_trouble() {
    let app = App::start(|_| Answer::EchoBody).await;
    let gateway = start(
        &app,
        "{request: 64KiB, response: 64KiB, spool: spool/, spool_bytes: 256KiB}",
    )
    .await;
    let mut wire = gateway.connect().await;
    wire.try_send(request("POST", "/large", &[], "x".repeat(1_000_000)))
        .await
        .ok();
    assert_eq!(wire.reply().await.status, 503);
    assert_eq!(gateway.record("/large").await["reason"], "upstream_busy");

    let mut wire = gateway.connect().await;
    wire.send(request("POST", "/small", &[], "x".repeat(60_000)))
        .await;
    assert_eq!(wire.reply().await.status, 200);
}

#[tokio::test]
async fn nothing_is_left_in_the_spool() {
    let app = App::start(|_| Answer::EchoBody).await;
    let gateway = start(&app, BUFFER).await;
    let mut wire = gateway.connect().await;
    wire.send(request("POST", "/", &[], "x".repeat(1_000_000)))
        .await;
    assert_eq!(wire.reply().await.body.len(), 1_000_000);
    eventually("an empty spool", async || {
        let left = std::fs::read_dir(gateway.folder.path("spool"))
            .unwrap()
            .count();
        (left == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_buffer_a_slow_client_does_hold_the_app() {
    // The sister of the tests above: they would pass on an app that is never held.
    let app = App::start(|_| Answer::EchoBody).await;
    let text = config(
        "routes: [{path: /*, proxy: '@app', auth: none}]\n",
        &[("app", &app.url())],
    );
    let gateway = Gateway::start(&text).await;
    let mut slow = gateway.connect().await;
    slow.send(request("POST", "/slow", &[("Content-Length", "10")], ""))
        .await;
    slow.send("half").await;
    let held = app.saw("/slow", |seen| seen.body == b"half" && !seen.complete);
    assert!(within(Duration::from_secs(15), held).await.is_some());
}
