//! What the client gets when the app is away, slow, or speaks nonsense; and what is tried anew.

use super::support::{Answer, App, Gateway, H2, chunked, config, eventually, free_port, request};

/// A gateway with one worker before an upstream of these settings.
async fn start(server: &str, settings: &str) -> Gateway {
    let text = format!(
        "workers: 1\nupstreams: {{app: {{servers: ['@app'], {settings}}}}}\n\
         routes: [{{path: /*, proxy: app, auth: none, body_bytes: 100KiB}}]\n"
    );
    Gateway::start(&config(&text, &[("app", server)])).await
}

#[tokio::test]
async fn an_app_that_is_not_there_is_502() {
    let gateway = start(&format!("http://127.0.0.1:{}", free_port()), "").await;
    let reply = gateway.get("/a", &[]).await;
    assert_eq!(reply.status, 502);
    assert_eq!(
        reply.field("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(gateway.record("/a").await["reason"], "upstream_unreachable");
    assert_eq!(
        H2::connect(gateway.address())
            .await
            .get("/b", &[])
            .await
            .status,
        502
    );
}

#[tokio::test]
async fn an_app_that_does_not_answer_in_time_is_504_and_let_go() {
    let app = App::start(|seen| match seen.target() {
        "/slow" => Answer::Silent,
        _ => Answer::Ok("in time"),
    })
    .await;
    let gateway = start(&app.url(), "timeouts: {response: 300ms}").await;

    assert_eq!(gateway.get("/slow", &[]).await.status, 504);
    assert_eq!(gateway.record("/slow").await["reason"], "upstream_timeout");
    app.saw("/slow", |seen| seen.gone).await;
    assert_eq!(gateway.get("/quick", &[]).await.text(), "in time");
}

#[tokio::test]
async fn a_client_that_pauses_longer_than_the_app_may_is_not_the_apps_fault() {
    let app = App::start(|seen| match seen.target() {
        "/slow" => Answer::Silent,
        _ => Answer::EchoBody,
    })
    .await;
    let gateway = start(&app.url(), "timeouts: {response: 200ms}").await;
    for (target, status) in [("/paused", 200), ("/slow", 504)] {
        let mut wire = gateway.connect().await;
        let head = format!("POST {target} HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n");
        wire.send(format!("{head}he")).await;
        // The pause itself is what is tested.
        tokio::time::sleep(std::time::Duration::from_millis(600)).await;
        wire.send("llo").await;
        assert_eq!(wire.reply().await.status, status, "{target}");
    }
}

#[tokio::test]
async fn an_app_that_comes_back_is_served_again() {
    let app = App::start(|_| Answer::Ok("first")).await;
    let port = app.port();
    let gateway = start(&app.url(), "").await;
    assert_eq!(gateway.get("/", &[]).await.text(), "first");

    app.stop().await;
    eventually("502", async || {
        (gateway.get("/", &[]).await.status == 502).then_some(())
    })
    .await;

    let _app = App::start_on(port, |_| Answer::Ok("second")).await;
    gateway.answers("/", 200, "second").await;
}

#[tokio::test]
async fn a_kept_connection_that_the_app_has_closed_costs_nobody_an_answer() {
    let app = App::start(|_| {
        // No `Connection: close`: the gateway cannot know.
        Answer::RawThenClose(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into())
    })
    .await;
    let gateway = start(&app.url(), "").await;
    for _ in 0..30 {
        assert_eq!(gateway.get("/", &[]).await.text(), "ok");
    }
}

#[tokio::test]
async fn a_kept_connection_that_closes_under_a_request_is_retried_if_that_is_safe() {
    // The second request of every connection is met with its end.
    let app = App::start(|seen| {
        if seen.nth == 0 {
            Answer::Ok("ok")
        } else {
            Answer::Close
        }
    })
    .await;
    let gateway = start(&app.url(), "").await;
    for _ in 0..10 {
        assert_eq!(gateway.get("/safe", &[]).await.text(), "ok");
    }
    assert_eq!(gateway.get("/kept", &[]).await.text(), "ok");
    let mut wire = gateway.connect().await;
    wire.send(request("POST", "/unsafe", &[], "once")).await;
    let reply = wire.reply().await;
    let tries = app
        .seen()
        .iter()
        .filter(|seen| seen.target() == "/unsafe")
        .count();
    assert_eq!(
        (reply.status, tries),
        (502, 1),
        "a POST is never sent twice"
    );
}

#[tokio::test]
async fn an_answer_that_can_be_read_in_two_ways_is_502() {
    let rows: &[(&str, &[u8])] = &[
        (
            "both lengths",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "two lengths",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        ),
        (
            "a strange length",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2x\r\n\r\nab",
        ),
        (
            "an unknown coding",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
        ),
        ("garbage", b"\x00\x01\x02 hello\r\n\r\n"),
        ("another protocol", b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
        ("no status", b"HTTP/1.1 OK\r\n\r\n"),
        (
            "a long status",
            b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "a bare CR",
            b"HTTP/1.1 200 OK\r\nX-A: b\rc\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "NUL",
            b"HTTP/1.1 200 OK\r\nX-A: b\0c\r\nContent-Length: 0\r\n\r\n",
        ),
        ("half a head", b"HTTP/1.1 200 OK\r\nContent-Le"),
        ("nothing", b""),
        (
            "a tunnel that nobody asked for",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        ),
    ];
    let app = App::start(move |seen| {
        let at: Option<usize> = seen.target()[1..].parse().ok();
        match at {
            Some(at) => Answer::RawThenClose(rows[at].1.to_vec()),
            None => Answer::Ok("fine"),
        }
    })
    .await;
    let gateway = start(&app.url(), "timeouts: {response: 3s}").await;
    let mut failures = Vec::new();
    for (at, (name, _)) in rows.iter().enumerate() {
        let path = format!("/{at}");
        let status = gateway.get(&path, &[]).await.status;
        if status != 502 {
            failures.push(format!("{name}: {status}, {}", gateway.record(&path).await));
        }
        // The allowed sister, on whatever connection is there now.
        assert_eq!(
            gateway.get("/good", &[]).await.text(),
            "fine",
            "after {name}"
        );
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[tokio::test]
async fn an_endless_head_of_an_answer_is_502() {
    let app = App::start(|_| {
        let line = format!("X-A: {}\r\n", "a".repeat(1_000));
        Answer::RawThenClose(format!("HTTP/1.1 200 OK\r\n{}\r\n", line.repeat(2_000)).into())
    })
    .await;
    let gateway = start(&app.url(), "").await;
    assert_eq!(gateway.get("/", &[]).await.status, 502);
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_for_the_client_too() {
    let app = App::start(|seen| {
        Answer::RawThenClose(match seen.target() {
            "/length" => b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".into(),
            "/chunk" => {
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n".into()
            }
            "/junk" => {
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n".into()
            }
            _ => b"HTTP/1.1 200 OK\r\n\r\nhalf".into(),
        })
    })
    .await;
    let gateway = start(&app.url(), "").await;
    for path in ["/length", "/chunk", "/junk"] {
        let mut wire = gateway.connect().await;
        wire.send(request("GET", path, &[], "")).await;
        let reply = wire.head().await;
        let rest = String::from_utf8(wire.rest().await).unwrap();
        if reply.status == 502 {
            continue;
        }
        assert_eq!(reply.status, 200, "{path}");
        assert!(
            !rest.ends_with("0\r\n\r\n"),
            "{path}: the client takes half for the whole"
        );
        assert_ne!(reply.field("content-length"), Some("4"), "{path}");
    }
    // A body that the end of the connection ends is whole.
    assert_eq!(gateway.get("/until-the-end", &[]).await.text(), "half");
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_still_sends() {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let receiver = std::sync::Mutex::new(Some(receiver));
    let app = App::start(move |_| Answer::Early(receiver.lock().unwrap().take().unwrap())).await;
    let gateway = start(&app.url(), "buffer: off").await;
    let mut wire = gateway.connect().await;
    wire.send(request("POST", "/", &[("Content-Length", "50000")], ""))
        .await;
    wire.send("only the beginning").await;
    sender
        .send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno".into())
        .await
        .unwrap();
    let reply = wire.reply().await;
    assert_eq!((reply.status, reply.text().as_str()), (403, "no"));
}

#[tokio::test]
async fn a_body_past_the_limit_is_413_before_the_app_has_it_all() {
    let app = App::start(|_| Answer::EchoBody).await;
    let gateway = start(&app.url(), "").await;
    let limit = 100 * 1024;

    let mut wire = gateway.connect().await;
    wire.send(request("POST", "/most", &[], "x".repeat(limit)))
        .await;
    assert_eq!(wire.reply().await.body.len(), limit);

    let mut wire = gateway.connect().await;
    wire.send(request(
        "POST",
        "/declared",
        &[("Content-Length", &(limit + 1).to_string())],
        "",
    ))
    .await;
    assert_eq!(wire.reply().await.status, 413, "at once, without the body");
    assert!(app.seen().iter().all(|seen| seen.target() != "/declared"));

    let mut wire = gateway.connect().await;
    wire.send(request(
        "POST",
        "/chunked",
        &[("Transfer-Encoding", "chunked")],
        "",
    ))
    .await;
    wire.try_send(chunked("x".repeat(limit + 1))).await.ok();
    assert_eq!(wire.reply().await.status, 413);
    assert!(
        app.seen()
            .iter()
            .all(|seen| seen.target() != "/chunked" || !seen.complete)
    );
    assert_eq!(gateway.record("/chunked").await["reason"], "body_too_large");

    let body = http_body_util::Full::new(bytes::Bytes::from("x".repeat(limit + 1)));
    let mut client = H2::connect(gateway.address()).await;
    assert_eq!(client.send("POST", "/h2", &[], body).await.status, 413);
}

#[tokio::test]
async fn after_a_refused_body_the_rest_of_it_is_not_taken_for_a_request() {
    let app = App::start(|_| Answer::EchoBody).await;
    let gateway = start(&app.url(), "").await;
    let smuggled = request("GET", "/smuggled", &[], "").repeat(4_000);
    let mut wire = gateway.connect().await;
    wire.try_send(request("POST", "/large", &[], &smuggled))
        .await
        .ok();
    assert_eq!(wire.reply().await.status, 413);
    assert!(wire.rest().await.is_empty());
    assert_eq!(gateway.get("/good", &[]).await.status, 200);
    assert_eq!(app.requests(), 1);
}
