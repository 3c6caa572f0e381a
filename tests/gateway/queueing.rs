//! `max` and the queue: how many requests a server has at the same time, who waits for a place, and who does not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::support::{
    Answer, App, Folder, Gateway, Wire, config, eventually, free_port, request, run_to_end,
};

/// An app that answers `/slow...` when it is told to, and everything else at once.
struct Slow {
    app: App,
    open: Arc<Mutex<HashMap<String, mpsc::Sender<Vec<u8>>>>>,
}

impl Slow {
    async fn start() -> Self {
        let open: Arc<Mutex<HashMap<_, _>>> = Arc::default();
        let shared = Arc::clone(&open);
        let app = App::start(move |seen| {
            let target = seen.target();
            if target.starts_with("/live") {
                return Answer::Upgrade;
            }
            if !target.starts_with("/slow") {
                return Answer::Ok("ok");
            }
            let (end, pieces) = mpsc::channel(4);
            shared.lock().unwrap().insert(target.to_owned(), end);
            Answer::Stream(pieces)
        })
        .await;
        Self { app, open }
    }

    /// Sends a piece of the response to this target.
    async fn send(&self, target: &str, bytes: &str) {
        let sender = eventually("the app's script", async || {
            self.open.lock().unwrap().get(target).cloned()
        });
        sender.await.send(bytes.into()).await.unwrap();
    }

    /// Sends the last piece of the response to this target; then the connection closes.
    async fn end(&self, target: &str, bytes: &str) {
        self.send(target, bytes).await;
        self.open.lock().unwrap().remove(target);
    }

    /// Completes the response to this target.
    async fn finish(&self, target: &str) {
        self.end(target, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await;
    }

    /// The targets of all slow requests, in their order.
    fn targets(&self) -> Vec<String> {
        let seen = self.app.seen();
        seen.iter().map(|seen| seen.target().to_owned()).collect()
    }

    async fn has(&self, count: usize) {
        eventually("requests at the app", async || {
            (self.app.requests() >= count).then_some(())
        })
        .await;
    }
}

fn text(workers: usize, servers: &str, settings: &str, apps: &[&Slow]) -> String {
    let urls: Vec<String> = apps.iter().map(|slow| slow.app.url()).collect();
    let values: Vec<_> = ["a", "b", "c"]
        .into_iter()
        .zip(urls.iter().map(String::as_str))
        .collect();
    let text = format!(
        "workers: {workers}\nupstreams: {{app: {{servers: {servers}, {settings}}}}}\n\
         routes: [{{path: /*, proxy: app, auth: none}}]\n"
    );
    config(&text, &values)
}

/// Sends a request; its response is read later.
async fn ask(gateway: &Gateway, target: &str) -> Wire {
    let mut wire = gateway.connect().await;
    wire.send(request("GET", target, &[], "")).await;
    wire
}

/// Long enough for a request that would not wait to be at its app.
async fn a_moment() {
    sleep(Duration::from_millis(150)).await;
}

#[tokio::test]
async fn as_many_as_max_are_at_a_server_over_all_workers_and_the_others_wait() {
    let slow = Slow::start().await;
    let settings = "connections: {max: 3, wait: 60s}";
    let gateway = Gateway::start(&text(2, "['@a']", settings, &[&slow])).await;
    let mut wires = HashMap::new();
    for nth in 0..12 {
        let target = format!("/slow/{nth}");
        wires.insert(target.clone(), ask(&gateway, &target).await);
    }
    for ended in 0..12 {
        let here = (ended + 3).min(12);
        slow.has(here).await;
        a_moment().await;
        let targets = slow.targets();
        assert_eq!(targets.len(), here, "after {ended}");
        let target = &targets[ended];
        slow.finish(target).await;
        assert_eq!(wires.get_mut(target).unwrap().reply().await.status, 200);
    }
    let last = slow.targets().pop().unwrap();
    let queued = gateway.record(&last).await["queued_ms"].as_f64().unwrap();
    assert!(queued > 500.0, "{queued}");
    let first = slow.targets().remove(0);
    assert!(gateway.record(&first).await["queued_ms"].is_null());
}

#[tokio::test]
async fn who_came_first_is_served_first_whichever_worker_it_came_to() {
    let slow = Slow::start().await;
    let settings = "connections: {max: 1, wait: 60s}";
    let gateway = Gateway::start(&text(4, "['@a']", settings, &[&slow])).await;
    let mut wires = Vec::new();
    let targets: Vec<String> = (0..8).map(|nth| format!("/slow/{nth}")).collect();
    for target in &targets {
        wires.push(ask(&gateway, target).await);
        sleep(Duration::from_millis(40)).await;
    }
    for (nth, wire) in wires.iter_mut().enumerate() {
        slow.has(nth + 1).await;
        slow.finish(&targets[nth]).await;
        assert_eq!(wire.reply().await.status, 200);
    }
    assert_eq!(slow.targets(), targets);
}

#[tokio::test]
async fn a_queue_has_a_length_and_waiting_an_end() {
    let slow = Slow::start().await;
    let settings = "connections: {max: 1, queue: 1, wait: 700ms}";
    let gateway = Gateway::start(&text(2, "['@a']", settings, &[&slow])).await;
    let _busy = ask(&gateway, "/slow/busy").await;
    slow.has(1).await;
    let begun = Instant::now();
    let mut second = ask(&gateway, "/second").await;
    a_moment().await;
    let mut third = gateway.connect().await;
    third.send(request("POST", "/third", &[], "a body")).await;
    let reply = third.reply().await;
    assert!(begun.elapsed() < Duration::from_millis(600), "at once");
    assert_eq!((reply.status, reply.field("retry-after")), (503, Some("1")));
    assert_eq!(gateway.record("/third").await["reason"], "upstream_busy");

    let reply = second.reply().await;
    assert!(begun.elapsed() >= Duration::from_millis(690));
    assert_eq!((reply.status, reply.field("retry-after")), (503, Some("1")));
    let record = gateway.record("/second").await;
    assert_eq!(record["reason"], "upstream_busy");
    assert!(record["queued_ms"].as_f64().unwrap() >= 690.0, "{record}");
    assert_eq!(slow.targets(), ["/slow/busy"]);

    // Without a queue nobody waits, and nothing is lost.
    let next = text(2, "['@a']", "connections: {max: 1, queue: 0}", &[&slow]);
    gateway.reconfigure(&next).await;
    assert_eq!(gateway.get("/now", &[]).await.status, 503);
    slow.finish("/slow/busy").await;
    eventually("the place", async || {
        (gateway.get("/then", &[]).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_that_leaves_gives_its_place_back() {
    let slow = Slow::start().await;
    let settings = "connections: {max: 1, queue: 1, wait: 60s}";
    let gateway = Gateway::start(&text(1, "['@a']", settings, &[&slow])).await;
    let busy = ask(&gateway, "/slow/busy").await;
    slow.has(1).await;
    // It leaves the queue.
    drop({
        let wire = ask(&gateway, "/leaves").await;
        a_moment().await;
        wire
    });
    assert_eq!(gateway.record("/leaves").await["reason"], "client_gone");
    // So there is room for another one, which gets the place of one that leaves in flight.
    let mut next = ask(&gateway, "/next").await;
    a_moment().await;
    drop(busy);
    assert_eq!(next.reply().await.status, 200);
    assert_eq!(slow.targets(), ["/slow/busy", "/next"]);
}

#[tokio::test]
async fn streams_and_tunnels_count_until_they_end() {
    let slow = Slow::start().await;
    let settings = "connections: {max: 1, wait: 60s}";
    let gateway = Gateway::start(&text(1, "['@a']", settings, &[&slow])).await;
    let mut stream = ask(&gateway, "/slow/stream").await;
    slow.has(1).await;
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    slow.send("/slow/stream", head).await;
    slow.send("/slow/stream", "3\r\na\n\n\r\n").await;
    assert_eq!(stream.head().await.status, 200);
    let mut next = ask(&gateway, "/next").await;
    a_moment().await;
    assert_eq!(slow.app.requests(), 1);
    slow.end("/slow/stream", "0\r\n\r\n").await;
    assert_eq!(next.reply().await.status, 200);

    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let mut tunnel = gateway.connect().await;
    tunnel.send(request("GET", "/live", &upgrade, "")).await;
    assert_eq!(tunnel.head().await.status, 101);
    let before = slow.app.requests();
    let mut next = ask(&gateway, "/after").await;
    a_moment().await;
    assert_eq!(slow.app.requests(), before);
    drop(tunnel);
    assert_eq!(next.reply().await.status, 200);
}

#[tokio::test]
async fn each_server_has_its_own_max_and_backups_serve_while_all_are_full() {
    let (a, b, c) = (
        Slow::start().await,
        Slow::start().await,
        Slow::start().await,
    );
    let apps = [&a, &b, &c];
    let servers = "[{url: '@a', max: 1}, '@b', {url: '@c', backup: true, max: 1}]";
    for balance in ["round_robin", "least_requests", "random_two"] {
        let settings = format!("balance: {balance}, connections: {{max: 2, wait: 60s}}");
        let gateway = Gateway::start(&text(1, servers, &settings, &apps)).await;
        let before = apps.map(|slow| slow.app.requests());
        let count = || {
            let now = apps.map(|slow| slow.app.requests());
            [now[0] - before[0], now[1] - before[1], now[2] - before[2]]
        };
        let mut wires = Vec::new();
        for (nth, expected) in [3, 4, 4].into_iter().enumerate() {
            let clients = if nth == 0 { 3 } else { 1 };
            for client in 0..clients {
                wires.push(ask(&gateway, &format!("/slow/{balance}/{nth}/{client}")).await);
            }
            eventually("the requests", async || {
                (count().iter().sum::<usize>() >= expected).then_some(())
            })
            .await;
            a_moment().await;
            let backup = usize::from(nth > 0);
            assert_eq!(count(), [1, 2, backup], "{balance} {nth}");
        }
        // The fifth gets the first place there is.
        let last = b.targets().pop().unwrap();
        b.finish(&last).await;
        eventually("the fifth", async || (count() == [1, 3, 1]).then_some(())).await;
    }
}

#[tokio::test]
async fn a_reload_keeps_who_is_counted_and_who_waits() {
    let slow = Slow::start().await;
    let settings = "connections: {max: 1, wait: 60s}";
    let gateway = Gateway::start(&text(2, "['@a']", settings, &[&slow])).await;
    let mut wires = Vec::new();
    for nth in 0..4 {
        wires.push(ask(&gateway, &format!("/slow/{nth}")).await);
        a_moment().await;
    }
    assert_eq!(slow.targets(), ["/slow/0"]);
    // One that changes nothing of the limit, one that raises it, one that lowers it.
    for (settings, here) in [
        ("connections: {max: 1, wait: 50s}", 1),
        ("connections: {max: 3, wait: 50s}", 3),
        ("connections: {max: 2, wait: 50s}", 3),
    ] {
        gateway
            .reconfigure(&text(2, "['@a']", settings, &[&slow]))
            .await;
        slow.has(here).await;
        a_moment().await;
        assert_eq!(slow.app.requests(), here, "{settings}");
    }
    slow.finish("/slow/0").await;
    assert_eq!(wires[0].reply().await.status, 200);
    a_moment().await;
    assert_eq!(slow.app.requests(), 3, "two are as many as there may be");
    slow.finish("/slow/1").await;
    slow.has(4).await;
    // Without the limit nobody waits.
    wires.push(ask(&gateway, "/slow/4").await);
    a_moment().await;
    assert_eq!(slow.app.requests(), 4);
    gateway
        .reconfigure(&text(2, "['@a']", "underscores: pass", &[&slow]))
        .await;
    slow.has(5).await;
}

#[tokio::test]
async fn who_waits_for_an_app_that_is_restarted_waits_for_a_place_as_well() {
    let port = free_port();
    let text = format!(
        "workers: 2\nupstreams: {{app: {{servers: ['http://127.0.0.1:{port}'], retries: {{hold: 20s}}, \
         connections: {{max: 2, queue: 30, wait: 20s}}}}}}\nroutes: [{{path: /*, proxy: app, auth: none}}]\n"
    );
    let gateway = Gateway::start(&config(&text, &[])).await;
    let mut clients = tokio::task::JoinSet::new();
    for nth in 0..30 {
        let address = gateway.address();
        clients.spawn(async move {
            let mut wire = Wire::connect(address).await;
            let method = if nth % 2 == 0 { "POST" } else { "GET" };
            wire.send(request(method, &format!("/{nth}"), &[], "a body"))
                .await;
            let reply = wire.reply().await;
            (reply.status, reply.text())
        });
    }
    sleep(Duration::from_millis(700)).await;
    let app = App::start_on(port, |_| Answer::EchoBody).await;
    for reply in clients.join_all().await {
        assert_eq!(reply, (200, "a body".to_owned()));
    }
    assert_eq!(app.requests(), 30, "each once");
    // Two places, two workers: each may have needed both.
    assert!(app.connections() <= 4, "{}", app.connections());
}

#[tokio::test]
async fn a_request_that_is_tried_again_waits_for_a_place_at_the_other_server() {
    let bad = App::start(|_| Answer::Close).await;
    let slow = Slow::start().await;
    let servers = format!("['{}', {{url: '@a', max: 1}}]", bad.url());
    let settings = "eject: off, retries: {on: [broken], budget: 100%}, connections: {wait: 60s}";
    let gateway = Gateway::start(&text(1, &servers, settings, &[&slow])).await;
    let mut busy = ask(&gateway, "/slow/busy").await;
    slow.has(1).await;
    let mut next = ask(&gateway, "/next").await;
    eventually("the first try", async || {
        bad.seen()
            .iter()
            .any(|seen| seen.target() == "/next")
            .then_some(())
    })
    .await;
    a_moment().await;
    assert_eq!(slow.app.requests(), 1, "it waits");
    slow.finish("/slow/busy").await;
    assert_eq!(busy.reply().await.status, 200);
    assert_eq!(next.reply().await.status, 200);
    let record = gateway.record("/next").await;
    assert_eq!(record["tries"], 2);
    assert!(record["queued_ms"].as_f64().unwrap() > 100.0, "{record}");
}

#[tokio::test]
async fn a_server_that_is_taken_out_gets_nobody_who_waits() {
    let (a, b) = (Slow::start().await, Slow::start().await);
    let apps = [&a, &b];
    let settings = "eject: {consecutive_failures: 1, for: 60s}, connections: {max: 1, wait: 60s}";
    let gateway = Gateway::start(&text(1, "['@a', '@b']", settings, &apps)).await;
    let mut first = ask(&gateway, "/slow/0").await;
    let mut second = ask(&gateway, "/slow/1").await;
    a.has(1).await;
    b.has(1).await;
    let mut next = ask(&gateway, "/next").await;
    a_moment().await;
    // One closes without a response: it is out, and its place is nobody's.
    let (at_a, at_b) = (a.targets().remove(0), b.targets().remove(0));
    eventually("the script", async || {
        a.open.lock().unwrap().remove(&at_a).map(drop)
    })
    .await;
    eventually("the ejection", async || {
        gateway.stderr().contains("taken out").then_some(())
    })
    .await;
    a_moment().await;
    assert_eq!(a.app.requests() + b.app.requests(), 2, "it waits");
    b.finish(&at_b).await;
    assert_eq!(next.reply().await.status, 200);
    assert_eq!(a.app.requests(), 1);
    let mut statuses = [first.reply().await.status, second.reply().await.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 502]);
}

#[test]
fn limits_that_make_no_sense_are_errors_and_explain_says_the_others() {
    let run = |command: &[&str], settings: &str| {
        let folder = Folder::new();
        let text = format!(
            "listeners: [{{address: 127.0.0.1:0}}]\nupstreams: {{app: {{{settings}}}}}\n\
             routes: [{{path: /*, proxy: app, auth: none}}]\n"
        );
        folder.write("gateway.yaml", text);
        let output = run_to_end(&folder, command, &[]);
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    for (settings, said) in [
        ("connections: {max: 0}", "a number from 1 to 1000000"),
        (
            "connections: {queue: 3}",
            "`queue` without `max` or `retries.hold`",
        ),
        ("connections: {wait: 3s}", "`wait` without `max`"),
        (
            "connections: {max: 3, wait: 0s}",
            "zero leaves no time at all",
        ),
    ] {
        let (code, errors) = run(
            &["check"],
            &format!("servers: ['http://127.0.0.1:9'], {settings}"),
        );
        assert_eq!(code, Some(2), "{settings}: {errors}");
        assert!(errors.contains(said), "{settings}: {errors}");
    }
    let servers = "servers: [{url: 'http://127.0.0.1:9', max: 64}, 'http://127.0.0.1:8'], connections: {max: 8}";
    let (_, said) = run(&["explain", "GET", "/"], servers);
    let line = "round_robin of http://127.0.0.1:9 (max 64), http://127.0.0.1:8 (max 8)";
    assert!(said.contains(line), "{said}");
}
