//! Bodies pass through as they come, both ways, and nobody's slowness fills the gateway's memory.

use std::convert::Infallible;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use tokio::sync::mpsc::{self, Sender};

use super::support::{Answer, App, Gateway, H2, chunked, config, eventually, request, within};

const MIB: usize = 1024 * 1024;

/// An app whose one answer is what the test sends.
async fn poured(upstream: &str) -> (App, Gateway, Sender<Vec<u8>>) {
    let (sender, receiver) = mpsc::channel(1);
    let receiver = Mutex::new(Some(receiver));
    let app = App::start(move |_| match receiver.lock().unwrap().take() {
        Some(receiver) => Answer::Stream(receiver),
        None => Answer::Ok("other"),
    })
    .await;
    let text = format!(
        "limits: {{body_bytes: 1GiB}}\nupstreams: {{app: {{servers: ['@app'], {upstream}}}}}\n\
         routes: [{{path: /*, proxy: app, auth: none}}]\n"
    );
    let gateway = Gateway::start(&config(&text, &[("app", &app.url())])).await;
    (app, gateway, sender)
}

#[tokio::test]
async fn the_app_gets_each_piece_of_a_body_before_the_next_is_sent() {
    let app = App::start(|_| Answer::EchoBody).await;
    let text = config(
        "upstreams: {app: {servers: ['@app'], buffer: off}}\nroutes: [{path: /*, proxy: app, auth: none}]\n",
        &[("app", &app.url())],
    );
    let gateway = Gateway::start(&text).await;
    let mut wire = gateway.connect().await;

    wire.send(request(
        "POST",
        "/up",
        &[("Transfer-Encoding", "chunked")],
        "",
    ))
    .await;
    app.saw("/up", |seen| seen.body.is_empty()).await;
    wire.send(chunked("one ")).await;
    app.saw("/up", |seen| seen.body == b"one ").await;
    wire.send(chunked("two")).await;
    app.saw("/up", |seen| seen.body == b"one two" && !seen.complete)
        .await;
    wire.send("0\r\n\r\n").await;
    assert_eq!(wire.reply().await.text(), "one two");
}

#[tokio::test]
async fn the_client_gets_each_event_before_the_next_is_sent() {
    for upstream in [
        "",
        "buffer: off",
        "buffer: {request: 64KiB, response: 64KiB}",
    ] {
        let (_app, gateway, app) = poured(upstream).await;
        let mut wire = gateway.connect().await;
        wire.send(request(
            "GET",
            "/events",
            &[("Accept", "text/event-stream")],
            "",
        ))
        .await;
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
            Transfer-Encoding: chunked\r\n\r\n";
        app.send(head.into()).await.unwrap();
        assert_eq!(wire.head().await.status, 200);
        for tick in 0..5 {
            let event = format!("data: {tick}\n\n");
            app.send(chunked(&event)).await.unwrap();
            assert_eq!(wire.chunk().await.unwrap(), event.as_bytes(), "{upstream}");
        }
        app.send("0\r\n\r\n".into()).await.unwrap();
        assert_eq!(wire.chunk().await, None);
    }
}

/// A claim's header is the gateway's alone, after the body as before it, streamed and buffered.
#[tokio::test]
async fn a_trailer_cannot_say_who_the_client_is() {
    for buffer in [
        "",
        "buffer: off",
        "buffer: {request: 64KiB, response: 64KiB}",
    ] {
        let app = App::start(|_| Answer::Ok("OK")).await;
        let text = format!(
            "jwt: {{app: {{algorithms: [HS256], secret: {}}}}}\n\
             upstreams: {{app: {{servers: ['@app'], {buffer}}}}}\n\
             routes:\n  - {{path: /*, proxy: app, auth: none}}\n  \
             - {{path: /me/*, proxy: app, auth: {{jwt: app, forward: {{X-User-Id: sub}}}}}}\n",
            "k".repeat(32),
        );
        let gateway = Gateway::start(&config(&text, &[("app", &app.url())])).await;
        let mut wire = gateway.connect().await;
        let fields = [
            ("Trailer", "X-Sum, X-User-Id"),
            ("Transfer-Encoding", "chunked"),
        ];
        wire.send(request("POST", "/up", &fields, "")).await;
        let trailers = b"0\r\nX-Sum: in\r\nX-User-Id: root\r\nx_user_id: root\r\n\
            X_Forwarded_For: 6.6.6.6\r\nX-Request-Id: 6\r\n\r\n";
        wire.send([&chunked("body")[..], trailers].concat()).await;
        assert_eq!(wire.reply().await.status, 200, "{buffer:?}");
        let seen = app.saw("/up", |seen| seen.complete).await.trailers;
        assert_eq!(seen.trim().to_ascii_lowercase(), "x-sum: in", "{buffer:?}");
    }
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let app = App::start(|_| {
        let answer = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
            4\r\nbody\r\n0\r\nX-Sum: out\r\n\r\n";
        Answer::Raw(answer.into())
    })
    .await;
    let text = config(
        "routes: [{path: /*, proxy: '@app', auth: none}]\n",
        &[("app", &app.url())],
    );
    let gateway = Gateway::start(&text).await;
    let wanted = [("x-sum".to_owned(), "out".to_owned())];

    let mut wire = gateway.connect().await;
    let fields = [
        ("TE", "trailers"),
        ("Trailer", "X-Sum"),
        ("Transfer-Encoding", "chunked"),
    ];
    wire.send(request("POST", "/h1", &fields, "")).await;
    wire.send([&chunked("body")[..], b"0\r\nX-Sum: in\r\n\r\n"].concat())
        .await;
    assert_eq!(wire.reply().await.trailers, wanted);
    assert!(
        app.saw("/h1", |seen| seen.complete)
            .await
            .trailers
            .contains("in")
    );

    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", "in".parse().unwrap());
    // Mapped, the body has no length that could be announced: HTTP/1.1 has trailers in chunks alone.
    let body = Full::new(Bytes::from("body"))
        .with_trailers(async { Some(Ok::<_, Infallible>(trailers)) })
        .map_frame(|frame| frame);
    let mut client = H2::connect(gateway.address()).await;
    let reply = client
        .send(
            "POST",
            "/h2",
            &[("te", "trailers"), ("trailer", "x-sum")],
            body,
        )
        .await;
    assert_eq!(
        (reply.text().as_str(), &reply.trailers[..]),
        ("body", &wanted[..])
    );
    assert!(
        app.saw("/h2", |seen| seen.complete)
            .await
            .trailers
            .contains("in")
    );
}

#[tokio::test]
async fn an_app_that_reads_nothing_holds_the_client_back() {
    let app = App::start(|_| Answer::Stall).await;
    let text = "limits: {body_bytes: 1GiB}\nroutes: [{path: /*, proxy: '@app', auth: none}]\n";
    let gateway = Gateway::start(&config(text, &[("app", &app.url())])).await;
    let mut wire = gateway.connect().await;
    wire.send(request(
        "POST",
        "/",
        &[("Content-Length", &(256 * MIB).to_string())],
        "",
    ))
    .await;

    let piece = vec![b'x'; MIB];
    let mut sent = 0;
    while sent < 256
        && within(Duration::from_secs(2), wire.try_send(&piece))
            .await
            .is_some()
    {
        sent += 1;
    }
    assert!(sent < 64, "the gateway took {sent} MiB that nobody wanted");
    assert_small(&gateway);
}

#[tokio::test]
async fn a_client_that_reads_nothing_holds_the_app_back() {
    let (_app, gateway, app) = poured("").await;
    let mut wire = gateway.connect().await;
    wire.send(request("GET", "/", &[], "")).await;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 256 * MIB);
    app.send(head.into()).await.unwrap();

    let mut sent = 0;
    while sent < 256
        && within(Duration::from_secs(2), app.send(vec![b'x'; MIB]))
            .await
            .is_some()
    {
        sent += 1;
    }
    assert!(sent < 64, "the gateway took {sent} MiB that nobody wanted");
    assert_small(&gateway);
}

#[tokio::test]
async fn a_large_body_arrives_whole_both_ways() {
    let app = App::start(|_| Answer::EchoBody).await;
    let text = "limits: {body_bytes: 64MiB}\nroutes: [{path: /*, proxy: '@app', auth: none}]\n";
    let gateway = Gateway::start(&config(text, &[("app", &app.url())])).await;
    let body: Vec<u8> = (0..8 * MIB)
        .map(|at| u8::try_from(at % 251).unwrap())
        .collect();

    let mut wire = gateway.connect().await;
    wire.send(request("POST", "/", &[], &body)).await;
    assert!(wire.reply().await.body == body);
    let mut client = H2::connect(gateway.address()).await;
    let reply = client
        .send("POST", "/", &[], Full::new(Bytes::from(body.clone())))
        .await;
    assert!(reply.body == body);
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_request() {
    let app = App::start(|_| Answer::Silent).await;
    let text = config(
        "routes: [{path: /*, proxy: '@app', auth: none}]\n",
        &[("app", &app.url())],
    );
    let gateway = Gateway::start(&text).await;

    let mut wire = gateway.connect().await;
    wire.send(request("GET", "/h1", &[], "")).await;
    app.saw("/h1", |seen| seen.complete).await;
    drop(wire);
    app.saw("/h1", |seen| seen.gone).await;
    assert_eq!(gateway.record("/h1").await["reason"], "client_gone");

    let mut client = H2::connect(gateway.address()).await;
    let asking = tokio::spawn(async move { client.get("/h2", &[]).await });
    app.saw("/h2", |seen| seen.complete).await;
    asking.abort();
    app.saw("/h2", |seen| seen.gone).await;
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_an_answer_cancels_the_rest() {
    let (upstream, gateway, app) = poured("").await;
    let mut wire = gateway.connect().await;
    wire.send(request("GET", "/", &[], "")).await;
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    app.send(head.into()).await.unwrap();
    assert_eq!(wire.head().await.status, 200);
    drop(wire);
    eventually("the end of the app's answer", async || {
        within(Duration::from_secs(1), app.send(chunked("more"))).await;
        upstream.last().gone.then_some(())
    })
    .await;
}

/// Whatever passes through, the gateway stays small.
fn assert_small(gateway: &Gateway) {
    if let Some(resident) = gateway.resident() {
        assert!(
            resident < 192 * 1024 * 1024,
            "{} MiB are resident",
            resident / 1024 / 1024
        );
    }
}
