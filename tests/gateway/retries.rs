//! What is tried again when a server fails, what is never sent twice, and who waits for an app that is restarted.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::support::{
    Answer, App, Folder, Gateway, Seen, config, eventually, free_port, request, run_to_end,
};

/// A gateway of one worker before these servers, with these settings.
async fn start(servers: &[&str], settings: &str) -> Gateway {
    Gateway::start(&text(servers, settings)).await
}

fn text(servers: &[&str], settings: &str) -> String {
    let servers: Vec<String> = servers.iter().map(|url| format!("'{url}'")).collect();
    // Who is taken out would get no more requests to count.
    let text = format!(
        "workers: 1\nupstreams: {{app: {{servers: [{}], eject: off, {settings}}}}}\n\
         routes: [{{path: /*, proxy: app, auth: none}}]\n",
        servers.join(", ")
    );
    config(&text, &[])
}

fn down() -> String {
    format!("http://127.0.0.1:{}", free_port())
}

/// How an app responds.
type Script = fn(&Seen) -> Answer;

/// How an app fails, and what the client gets if nothing is tried again.
fn failures() -> [(&'static str, Script, u16); 7] {
    fn status(status: &str) -> Answer {
        Answer::Raw(format!("HTTP/1.1 {status} No\r\nContent-Length: 2\r\n\r\nno").into())
    }
    [
        ("broken", |_| Answer::Close, 502),
        ("timeout", |_| Answer::Silent, 504),
        (
            "invalid",
            |_| Answer::RawThenClose(b"220 mail.test ESMTP\r\n".into()),
            502,
        ),
        ("'429'", |_| status("429"), 429),
        ("'502'", |_| status("502"), 502),
        ("'503'", |_| status("503"), 503),
        ("'504'", |_| status("504"), 504),
    ]
}

/// So many requests with each of these methods, and their statuses.
async fn statuses(gateway: &Gateway, methods: &[&str], count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for nth in 0..count {
        for method in methods {
            let mut wire = gateway.connect().await;
            wire.send(request(method, &format!("/{method}/{nth}"), &[], "a body"))
                .await;
            statuses.push(wire.reply().await.status);
        }
    }
    statuses
}

#[tokio::test]
async fn what_was_not_sent_goes_to_another_server_with_its_body() {
    let app = App::start(|_| Answer::EchoBody).await;
    let gateway = start(&[&down(), &app.url(), &down()], "retries: {}").await;
    for method in ["GET", "POST", "PATCH"] {
        for nth in 0..4 {
            let mut wire = gateway.connect().await;
            let target = format!("/{method}/{nth}");
            wire.send(request(method, &target, &[], "a body")).await;
            let reply = wire.reply().await;
            assert_eq!(
                (reply.status, reply.text().as_str()),
                (200, "a body"),
                "{target}"
            );
        }
    }
    assert_eq!(app.requests(), 12);
    let record = gateway.record("/GET/0").await;
    assert_eq!(
        (&record["server"], &record["tries"]),
        (&app.url().into(), &2.into())
    );
}

#[tokio::test]
async fn without_retries_a_server_that_is_down_costs_its_share() {
    let app = App::start(|_| Answer::Ok("ok")).await;
    let gateway = start(&[&down(), &app.url()], "retries: off").await;
    let mut statuses = statuses(&gateway, &["GET"], 4).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 502, 502]);
}

#[tokio::test]
async fn each_failure_is_tried_again_where_it_is_named_and_nowhere_else() {
    for (condition, fails, status) in failures() {
        for is_named in [true, false] {
            let bad = App::start(fails).await;
            let good = App::start(|_| Answer::EchoBody).await;
            let on = if is_named {
                condition
            } else {
                "connect_failure"
            };
            let settings = format!("retries: {{on: [{on}], budget: 100%, per_try: 300ms}}");
            let gateway = start(&[&bad.url(), &good.url()], &settings).await;
            let all = statuses(&gateway, &["GET", "PUT", "DELETE"], 2).await;
            let failed = all.iter().filter(|it| **it == status).count();
            let succeeded = all.iter().filter(|it| **it == 200).count();
            let expected = if is_named { (0, 6) } else { (3, 3) };
            assert_eq!(
                (failed, succeeded),
                expected,
                "{condition} {is_named}: {all:?}"
            );

            // Whatever is named, what may have been done is not done twice.
            let posts = statuses(&gateway, &["POST", "PATCH"], 2).await;
            let failed = posts.iter().filter(|it| **it == status).count();
            assert_eq!(failed, 2, "{condition}: {posts:?}");
            for app in [&bad, &good] {
                let seen = app.seen();
                let posts = seen
                    .iter()
                    .filter(|it| ["POST", "PATCH"].contains(&it.method()));
                assert_eq!(posts.count(), 2, "{condition}");
            }
        }
    }
}

#[tokio::test]
async fn a_body_is_the_same_the_second_time() {
    let bad = App::start(|_| Answer::Close).await;
    let good = App::start(|_| Answer::EchoBody).await;
    let settings = "retries: {on: [broken], budget: 100%}";
    let gateway = start(&[&bad.url(), &good.url()], settings).await;
    let long: String = (0..8_000).map(|nth| format!("{nth:06} ")).collect();
    for body in [&long[..10], &long[..50_000], &long[..]] {
        for chunked in [false, true] {
            for _ in 0..2 {
                let mut wire = gateway.connect().await;
                // In pieces: the gateway has it only when it was put together.
                let (head, framed) = if chunked {
                    let framed: Vec<u8> = body
                        .as_bytes()
                        .chunks(999)
                        .flat_map(super::support::chunked)
                        .collect();
                    (
                        "Transfer-Encoding: chunked".to_owned(),
                        [&framed[..], b"0\r\n\r\n"].concat(),
                    )
                } else {
                    (
                        format!("Content-Length: {}", body.len()),
                        body.as_bytes().to_vec(),
                    )
                };
                wire.send(format!("PUT /long HTTP/1.1\r\nHost: h\r\n{head}\r\n\r\n"))
                    .await;
                wire.send(&framed).await;
                let reply = wire.reply().await;
                assert_eq!(reply.status, 200, "{} {chunked}", body.len());
                assert_eq!(reply.text(), body);
            }
        }
    }
    // What is longer than the buffer is gone once it was sent.
    let mut statuses = Vec::new();
    for _ in 0..2 {
        let mut wire = gateway.connect().await;
        wire.send(request("PUT", "/longer", &[], "x".repeat(200 << 10)))
            .await;
        statuses.push(wire.reply().await.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 502]);
}

#[tokio::test]
async fn the_last_answer_reaches_the_client_whole() {
    let busy = |seen: &Seen| {
        if seen.target() == "/ok" {
            return Answer::Ok("ok");
        }
        Answer::Raw(
            b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 9\r\n\r\nall busy!".into(),
        )
    };
    let (a, b) = (App::start(busy).await, App::start(busy).await);
    let settings = "retries: {attempts: 3, on: ['503'], budget: 100%}";
    let gateway = start(&[&a.url(), &b.url()], settings).await;
    // What is sent again is a share of all requests: some must have been there.
    let saved = 10;
    for _ in 0..saved {
        assert_eq!(gateway.get("/ok", &[]).await.status, 200);
    }
    for _ in 0..3 {
        let reply = gateway.get("/", &[]).await;
        assert_eq!((reply.status, reply.text().as_str()), (503, "all busy!"));
        assert_eq!(reply.field("retry-after"), Some("7"));
    }
    assert_eq!(a.requests() + b.requests() - saved, 12, "four tries each");
    assert!(
        a.connections() + b.connections() <= 4,
        "connections are used again"
    );
    assert_eq!(gateway.record("/").await["tries"], 4);
}

#[tokio::test]
async fn the_budget_bounds_what_is_sent_again() {
    let bad = App::start(|_| Answer::Close).await;
    let settings = "retries: {on: [broken], budget: 50%}";
    let gateway = start(&[&bad.url()], settings).await;
    let begun = Instant::now();
    let count = 40;
    assert_eq!(statuses(&gateway, &["GET"], count).await, vec![502; count]);
    let free = usize::try_from(begun.elapsed().as_secs()).unwrap() + 1;
    let again = bad.requests() - count;
    assert!(
        again >= count / 2 - 1 && again <= count / 2 + free,
        "{again}"
    );
}

#[tokio::test]
async fn requests_that_are_not_idempotent_are_sent_twice_only_on_demand_and_with_a_warning() {
    let bad = App::start(|_| Answer::Close).await;
    let good = App::start(|_| Answer::EchoBody).await;
    let settings = "retries: {on: [broken], budget: 100%, non_idempotent: true}";
    let gateway = start(&[&bad.url(), &good.url()], settings).await;
    assert_eq!(statuses(&gateway, &["POST", "PATCH"], 2).await, [200; 4]);
    let log = gateway.stderr();
    assert!(log.contains("may be sent twice"), "{log}");
}

#[tokio::test]
async fn an_idle_connection_that_closes_costs_nobody_a_request() {
    // Answers once a connection, and closes it at the next request.
    let app = App::start(|seen| match seen.nth {
        0 => Answer::EchoBody,
        _ => Answer::Close,
    })
    .await;
    for settings in ["retries: {}", "retries: off"] {
        let gateway = start(&[&app.url()], settings).await;
        for nth in 0..6 {
            for method in ["GET", "PUT"] {
                let mut wire = gateway.connect().await;
                wire.send(request(method, &format!("/{nth}"), &[], "a body"))
                    .await;
                let reply = wire.reply().await;
                assert_eq!(
                    (reply.status, reply.text().as_str()),
                    (200, "a body"),
                    "{settings}: {method} {nth}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_request_has_a_time_as_a_whole() {
    let (send, pieces) = mpsc::channel(1);
    let pieces = std::sync::Mutex::new(Some(pieces));
    let app = App::start(move |seen| match seen.target() {
        "/slow" | "/own/slow" => Answer::Silent,
        "/stream" => Answer::Stream(pieces.lock().unwrap().take().unwrap()),
        _ => Answer::Ok("ok"),
    })
    .await;
    let text = "workers: 1\nupstreams: {app: {servers: ['@app'], timeouts: {total: 400ms}}}\nroutes:\n\
        - {path: /*, proxy: app, auth: none}\n- {path: /own/*, proxy: app, auth: none, timeouts: {total: 100ms}}\n";
    let gateway = Gateway::start(&config(text, &[("app", &app.url())])).await;
    for path in ["/slow", "/own/slow"] {
        assert_eq!(gateway.get(path, &[]).await.status, 504);
        assert_eq!(gateway.record(path).await["reason"], "upstream_timeout");
        app.saw(path, |seen| seen.gone).await;
    }
    assert_eq!(gateway.get("/quick", &[]).await.status, 200);

    // The stream never pauses for long, and yet it ends.
    let mut wire = gateway.connect().await;
    wire.send(request("GET", "/stream", &[], "")).await;
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    send.send(head.to_vec()).await.unwrap();
    let pouring = tokio::spawn(async move {
        while send.send(b"data: x\n\n".to_vec()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert_eq!(wire.head().await.status, 200);
    let came = wire.rest().await;
    assert!(!came.ends_with(b"0\r\n\r\n"), "it is cut off, not ended");
    assert_eq!(gateway.record("/stream").await["reason"], "total_timeout");
    app.saw("/stream", |seen| seen.gone).await;
    pouring.abort();
}

/// Starts an app on this port after a while.
fn later(port: u16, millis: u64) -> tokio::task::JoinHandle<App> {
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(millis)).await;
        App::start_on(port, |_| Answer::EchoBody).await
    })
}

#[tokio::test]
async fn requests_wait_for_an_app_that_is_restarted() {
    for servers in [1, 2] {
        let ports: Vec<u16> = (0..servers).map(|_| free_port()).collect();
        let urls: Vec<String> = ports
            .iter()
            .map(|port| format!("http://127.0.0.1:{port}"))
            .collect();
        let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
        let gateway = start(&urls, "retries: {hold: 20s}").await;
        let app = later(*ports.last().unwrap(), 700);
        let mut clients = tokio::task::JoinSet::new();
        for nth in 0..20 {
            let address = gateway.address();
            clients.spawn(async move {
                let mut wire = super::support::Wire::connect(address).await;
                let method = if nth % 2 == 0 { "POST" } else { "GET" };
                wire.send(request(method, &format!("/{nth}"), &[], "a body"))
                    .await;
                let reply = wire.reply().await;
                (reply.status, reply.text())
            });
        }
        for reply in clients.join_all().await {
            assert_eq!(reply, (200, "a body".to_owned()));
        }
        let app = app.await.unwrap();
        assert_eq!(app.requests(), 20, "each once");
        assert!(gateway.record("/0").await["queued_ms"].as_f64().unwrap() > 0.0);

        // Once more, with connections that were idle.
        let port = app.port();
        app.stop().await;
        let app = later(port, 400);
        assert_eq!(gateway.get("/again", &[]).await.status, 200);
        drop(app.await.unwrap());
    }
}

#[tokio::test]
async fn waiting_has_an_end_and_the_queue_a_length() {
    let url = down();
    let gateway = start(&[&url], "retries: {hold: 600ms}, connections: {queue: 2}").await;
    assert_eq!(gateway.get("/alone", &[]).await.status, 502);
    let record = gateway.record("/alone").await;
    assert_eq!(record["reason"], "upstream_unreachable");
    assert!(record["queued_ms"].as_f64().unwrap() > 500.0, "{record}");

    // Two wait, which leaves the third no room; when a client leaves, there is some.
    let gateway = start(&[&url], "retries: {hold: 60s}, connections: {queue: 2}").await;
    let mut waiting = Vec::new();
    for target in ["/first", "/second"] {
        let mut wire = gateway.connect().await;
        wire.send(request("GET", target, &[], "")).await;
        // It has tried to connect, and waits.
        tokio::time::sleep(Duration::from_secs(1)).await;
        waiting.push(wire);
    }
    eventually("503", async || {
        let mut wire = gateway.connect().await;
        wire.send(request("GET", "/third", &[], "")).await;
        let reply = super::support::within(Duration::from_millis(500), wire.reply()).await?;
        assert_eq!((reply.status, reply.field("retry-after")), (503, Some("1")));
        Some(())
    })
    .await;
    assert_eq!(gateway.record("/third").await["reason"], "upstream_busy");
    drop(waiting.pop());
    assert_eq!(gateway.record("/second").await["reason"], "client_gone");
    let app = later(url.rsplit(':').next().unwrap().parse().unwrap(), 0);
    let app = app.await.unwrap();
    assert_eq!(waiting.pop().unwrap().reply().await.status, 200);
    assert!(app.seen().iter().all(|seen| seen.target() != "/second"));
}

#[test]
fn retries_that_make_no_sense_are_errors() {
    let check = |settings: &str| {
        let folder = Folder::new();
        folder.write("gateway.yaml", text(&["http://127.0.0.1:9"], settings));
        let output = run_to_end(&folder, &["check"], &[]);
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    for (settings, said) in [
        ("retries: {attempts: 11}", "a number from 0 to 10"),
        ("retries: {on: []}", "an empty list"),
        (
            "retries: {on: ['500']}",
            "statuses are 429, 502, 503 and 504",
        ),
        (
            "retries: {on: [conect_failure]}",
            "did you mean `connect_failure`",
        ),
        ("retries: {budget: 20}", "percentages are 20%"),
        ("retries: {budget: 101%}", "at most 100%"),
        ("retries: {hold: 61s}", "a duration from 0s to 60s"),
        ("retries: {true: [broken]}", "`on`"),
        (
            "connections: {queue: 10}",
            "`queue` without `max` or `retries.hold`",
        ),
        ("timeouts: {total: 0s}", "zero leaves no time at all"),
    ] {
        let (code, errors) = check(settings);
        assert_eq!(code, Some(2), "{settings}: {errors}");
        assert!(errors.contains(said), "{settings}: {errors}");
    }
}
