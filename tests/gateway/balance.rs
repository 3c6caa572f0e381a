//! Several servers behind one name: who gets how many requests, who stands in, and what is counted.

use tokio::sync::mpsc;

use super::support::{
    Answer, App, Folder, Gateway, Wire, config, eventually, free_port, request, run_to_end,
};

/// A gateway before an upstream of these servers.
async fn start(workers: usize, servers: &str, balance: &str, apps: &[&App]) -> Gateway {
    let urls: Vec<String> = apps.iter().map(|app| app.url()).collect();
    let names = ["a", "b", "c", "d"];
    let values: Vec<_> = names
        .into_iter()
        .zip(urls.iter().map(String::as_str))
        .collect();
    let text = format!(
        "workers: {workers}\nupstreams: {{app: {{servers: {servers}, balance: {balance}}}}}\n\
         routes: [{{path: /*, proxy: app, auth: none}}]\n"
    );
    Gateway::start(&config(&text, &values)).await
}

async fn apps<const N: usize>() -> [App; N] {
    let mut apps = Vec::new();
    for _ in 0..N {
        apps.push(App::start(|_| Answer::Ok("ok")).await);
    }
    apps.try_into().ok().unwrap()
}

/// Who got these requests, one after the other over one connection.
async fn order(gateway: &Gateway, apps: &[&App], count: usize) -> Vec<usize> {
    let mut wire = gateway.connect().await;
    let mut order = Vec::new();
    for _ in 0..count {
        let before: Vec<usize> = apps.iter().map(|app| app.requests()).collect();
        assert_eq!(wire.get("/", &[]).await.status, 200);
        let now = apps.iter().map(|app| app.requests());
        order.push(
            now.zip(before)
                .position(|(now, before)| now > before)
                .unwrap(),
        );
    }
    order
}

#[tokio::test]
async fn weights_are_interleaved_and_a_weight_of_0_gets_nobody() {
    let [a, b, c, d] = apps().await;
    let servers = "[{url: '@a', weight: 2}, '@b', {url: '@c'}, {url: '@d', weight: 0}]";
    let all = [&a, &b, &c, &d];
    let gateway = start(1, servers, "round_robin", &all).await;
    assert_eq!(order(&gateway, &all, 8).await, [0, 1, 2, 0, 0, 1, 2, 0]);
}

#[tokio::test]
async fn a_server_that_is_down_passes_its_requests_on_and_backups_wait_for_the_last() {
    let [a, b] = apps().await;
    let servers = format!(
        "['@a', 'http://127.0.0.1:{}', {{url: '@b', backup: true}}]",
        free_port()
    );
    let gateway = start(1, &servers, "round_robin", &[&a, &b]).await;
    assert_eq!(order(&gateway, &[&a, &b], 6).await, [0; 6]);
    a.stop().await;
    eventually("the backup", async || {
        (gateway.get("/", &[]).await.status == 200).then_some(())
    })
    .await;
    assert!(b.requests() > 0);
}

/// An app that begins no answer to `/slow` until the sender has one, and switches protocols at `/live`.
async fn slow() -> (App, mpsc::Sender<Vec<u8>>) {
    let (end, pieces) = mpsc::channel(1);
    let pieces = std::sync::Mutex::new(Some(pieces));
    let app = App::start(move |seen| match seen.target() {
        "/slow" => pieces
            .lock()
            .unwrap()
            .take()
            .map_or(Answer::Silent, Answer::Stream),
        "/live" => Answer::Upgrade,
        _ => Answer::Ok("ok"),
    })
    .await;
    (app, end)
}

/// Sends a request that is not answered yet; the index of the app that has it.
async fn occupy(gateway: &Gateway, apps: &[&App], head: Vec<u8>) -> (Wire, usize) {
    let target = String::from_utf8_lossy(&head);
    let target = target.split(' ').nth(1).unwrap().to_owned();
    let mut wire = gateway.connect().await;
    wire.send(&head).await;
    let has = |app: &&App| {
        app.seen()
            .last()
            .is_some_and(|seen| seen.target() == target)
    };
    let at = eventually("the request", async || apps.iter().position(has)).await;
    (wire, at)
}

/// Waits until this app gets requests again.
async fn serves_again(gateway: &Gateway, app: &App) {
    let before = app.requests();
    eventually("a request", async || {
        gateway.get("/", &[]).await;
        (app.requests() > before).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_least_busy_server_is_found_over_all_workers() {
    for balance in ["least_requests", "random_two"] {
        let ((a, end_a), (b, end_b)) = (slow().await, slow().await);
        let (apps, mut ends) = ([&a, &b], vec![end_a, end_b]);
        let gateway = start(2, "['@a', '@b']", balance, &apps).await;
        let (mut wire, busy) = occupy(&gateway, &apps, request("GET", "/slow", &[], "")).await;
        let before = apps[busy].requests();
        // Many connections: both workers serve some of them.
        for _ in 0..20 {
            assert_eq!(gateway.get("/", &[]).await.status, 200);
        }
        assert_eq!(apps[busy].requests(), before, "{balance}");

        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        // With the sender the app's connection ends, too.
        let end = ends.swap_remove(busy);
        end.send(answer.to_vec()).await.unwrap();
        drop(end);
        assert_eq!(wire.reply().await.status, 200);
        serves_again(&gateway, apps[busy]).await;
    }
}

#[tokio::test]
async fn a_tunnel_is_in_flight_until_it_closes_and_a_request_until_its_client_leaves() {
    let ((a, _end_a), (b, _end_b)) = (slow().await, slow().await);
    let apps = [&a, &b];
    let gateway = start(1, "['@a', '@b']", "least_requests", &apps).await;
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for head in [
        request("GET", "/live", &upgrade, ""),
        request("GET", "/slow", &[], ""),
    ] {
        let (wire, busy) = occupy(&gateway, &apps, head).await;
        assert_eq!(order(&gateway, &apps, 4).await, [1 - busy; 4]);
        drop(wire);
        serves_again(&gateway, apps[busy]).await;
    }
}

#[tokio::test]
async fn a_reload_changes_weights_and_keeps_connections_and_counts() {
    let ((a, _end_a), (b, _end_b)) = (slow().await, slow().await);
    let apps = [&a, &b];
    let text = |servers: &str, more: &str| {
        let text = format!(
            "workers: 1\nupstreams: {{app: {{servers: {servers}, balance: least_requests{more}}}}}\n\
             routes: [{{path: /*, proxy: app, auth: none}}]\n"
        );
        config(&text, &[("a", &a.url()), ("b", &b.url())])
    };
    let gateway = Gateway::start(&text("['@a', '@b']", "")).await;
    let (_wire, busy) = occupy(&gateway, &apps, request("GET", "/slow", &[], "")).await;
    let other = 1 - busy;
    assert_eq!(order(&gateway, &apps, 3).await, [other; 3]);
    let connections = apps[other].connections();

    let next = text(
        "[{url: '@b', weight: 3}, {url: '@a', weight: 3}]",
        ", timeouts: {response: 50s}",
    );
    gateway.reconfigure(&next).await;
    assert_eq!(
        order(&gateway, &apps, 3).await,
        [other; 3],
        "the count is kept"
    );
    assert_eq!(
        apps[other].connections(),
        connections,
        "and the connections"
    );
    let log = gateway.stderr();
    assert!(log.contains("(weight 3)"), "{log}");
}

#[test]
fn explain_says_who_the_servers_are() {
    let folder = Folder::new();
    folder.write(
        "gateway.yaml",
        "listeners: [{address: 127.0.0.1:0}]\nupstreams:\n  app:\n    balance: least_requests\n    servers:\n    \
         - http://127.0.0.1:1\n    - {url: http://127.0.0.1:2, weight: 5}\n    - {url: http://127.0.0.1:3, backup: true}\n\
         routes: [{path: /*, proxy: app, auth: none}]\n",
    );
    let said = run_to_end(&folder, &["explain", "GET", "/"], &[]);
    let said = String::from_utf8(said.stdout).unwrap();
    let line = "least_requests of http://127.0.0.1:1, http://127.0.0.1:2 (weight 5), http://127.0.0.1:3 (backup)";
    assert!(said.contains(line), "{said}");
}

#[test]
fn servers_that_no_request_could_reach_are_errors() {
    let check = |servers: &str| {
        let folder = Folder::new();
        let text = format!(
            "upstreams: {{app: {{servers: {servers}}}}}\nroutes: [{{path: /*, proxy: app, auth: none}}]\n"
        );
        folder.write("gateway.yaml", config(&text, &[]));
        let output = run_to_end(&folder, &["check"], &[]);
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    for (servers, said) in [
        (
            "[{url: 'http://a:1', weight: 0}, {url: 'http://b:1', weight: 0}]",
            "no server has a `weight` above 0",
        ),
        (
            "[{url: 'http://a:1', weight: 0}, {url: 'http://b:1', backup: true}]",
            "no server has a `weight` above 0",
        ),
        (
            "[{url: 'http://a:1', backup: true}]",
            "every server is a `backup`",
        ),
        ("['http://a:1', 'http://a:1']", "`http://a:1` is here twice"),
        (
            "[{url: 'http://a:1', weight: 257}]",
            "a number from 0 to 256",
        ),
        ("[{url: 'http://a:1', wait: 2}]", "unknown key `wait`"),
    ] {
        let (code, errors) = check(servers);
        assert_eq!(code, Some(2), "{servers}: {errors}");
        assert!(errors.contains(said), "{servers}: {errors}");
    }
}

#[tokio::test]
async fn a_server_that_comes_back_begins_with_a_tenth_of_its_share() {
    let [a, b] = apps().await;
    let port = b.port();
    let text = |start: &str| {
        let text = format!(
            "workers: 1\nupstreams: {{app: {{servers: ['@a', 'http://127.0.0.1:{port}'], slow_start: {start}, \
             health: {{tcp: true, interval: 100ms, unhealthy_after: 1, healthy_after: 1}}}}}}\n\
             routes: [{{path: /*, proxy: app, auth: none}}]\n"
        );
        config(&text, &[("a", &a.url())])
    };
    let gateway = Gateway::start(&text("10m")).await;
    let first = order(&gateway, &[&a, &b], 10).await;
    assert_eq!(
        first.iter().filter(|at| **at == 1).count(),
        5,
        "at the start all have their share"
    );
    b.stop().await;
    let says = async |what: &str| {
        eventually(what, async || gateway.stderr().contains(what).then_some(())).await;
    };
    says("taken out, 1 of 2 left").await;
    let b = App::start_on(port, |_| Answer::Ok("ok")).await;
    says("back, 2 of 2").await;
    // The check's own connections carry no request.
    let order_now = order(&gateway, &[&a, &b], 44).await;
    assert_eq!(order_now.iter().filter(|at| **at == 1).count(), 4);
    gateway.reconfigure(&text("0s")).await;
    let order_now = order(&gateway, &[&a, &b], 10).await;
    assert_eq!(order_now.iter().filter(|at| **at == 1).count(), 5);
}
