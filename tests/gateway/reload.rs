//! Reloads: whichever way the file is saved, one swap; a refused one changes nothing.

use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::support::{
    Answer, App, Folder, Gateway, H2, Kind, Wire, claims, config, eventually, free_port, key,
    local, request, sign,
};

/// A configuration that answers /gen with its number, in a header and in the body.
fn generation(number: usize) -> String {
    config(
        "routes: [{path: /gen, respond: {status: 200, body: '@n'}, \
         headers: {response: {set: {X-Gen: '@n'}}}}]\n",
        &[("n", &number.to_string())],
    )
}

#[tokio::test]
async fn a_file_renamed_over_the_old_one_is_taken_up() {
    let gateway = Gateway::start(&generation(1)).await;
    gateway.answers("/gen", 200, "1").await;
    gateway.reconfigure(&generation(2)).await;
    assert_eq!(gateway.get("/gen", &[]).await.text(), "2");
}

#[tokio::test]
async fn a_file_truncated_and_written_in_pieces_is_taken_up_when_it_is_whole() {
    let gateway = Gateway::start(&generation(1)).await;
    let text = generation(2);
    let (first, second) = text.split_at(text.len() / 2);
    let mut file = fs::File::create(gateway.folder.path("gateway.yaml")).unwrap();
    file.write_all(first.as_bytes()).unwrap();
    file.flush().unwrap();
    assert_eq!(gateway.get("/gen", &[]).await.text(), "1");
    file.write_all(second.as_bytes()).unwrap();
    drop(file);
    gateway.answers("/gen", 200, "2").await;
}

#[tokio::test]
async fn a_swapped_link_of_a_config_map_is_taken_up() {
    let folder = Folder::new();
    folder.write("v1/gateway.yaml", generation(1));
    folder.write("v2/gateway.yaml", generation(2));
    folder.link("data", "v1");
    folder.link("gateway.yaml", "data/gateway.yaml");
    let gateway = Gateway::start_as_it_is(folder, 1, &[]).await;
    gateway.answers("/gen", 200, "1").await;
    gateway.folder.link("data", "v2");
    gateway.answers("/gen", 200, "2").await;
}

#[tokio::test]
async fn a_hangup_signal_reloads() {
    // The secret of the environment of a file that is not watched cannot be changed from outside;
    // a signal without any change is a reload all the same.
    let gateway = Gateway::start(&generation(1)).await;
    let before = gateway.reloads();
    gateway.signal(Signal::HUP);
    gateway.reloaded_after(before).await;
    assert_eq!(gateway.get("/gen", &[]).await.text(), "1");
}

#[tokio::test]
async fn an_included_file_is_watched_and_a_new_one_is_found() {
    let folder = Folder::new();
    let route = |path: &str, body: &str| {
        format!("routes: [{{path: {path}, respond: {{status: 200, body: '{body}'}}}}]\n")
    };
    folder.write("conf.d/a.yaml", route("/a", "one"));
    let gateway = Gateway::start_in(folder, &config("include: [conf.d/*.yaml]\n", &[])).await;
    assert_eq!(gateway.get("/a", &[]).await.text(), "one");

    gateway.folder.write("conf.d/a.yaml", route("/a", "two"));
    gateway.answers("/a", 200, "two").await;
    gateway.folder.write("conf.d/b.yaml", route("/b", "new"));
    gateway.answers("/b", 200, "new").await;
    fs::remove_file(gateway.folder.path("conf.d/b.yaml")).unwrap();
    eventually("404", async || {
        (gateway.get("/b", &[]).await.status == 404).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_refused_edit_says_why_and_changes_nothing_on_an_open_connection() {
    let gateway = Gateway::start(&generation(1)).await;
    let mut wire = gateway.connect().await;
    assert_eq!(wire.get("/gen", &[]).await.text(), "1");

    let start = Instant::now();
    let log = gateway
        .reconfigure_in_vain(&generation(2).replace("respond:", "respnd:"))
        .await;
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    assert!(
        log.contains("gateway.yaml:") && log.contains("respnd"),
        "{log}"
    );
    assert!(
        log.contains("respond"),
        "the nearest word is suggested: {log}"
    );
    assert_eq!(wire.get("/gen", &[]).await.text(), "1");
    assert_eq!(gateway.get("/gen", &[]).await.text(), "1");

    gateway.reconfigure(&generation(3)).await;
    assert_eq!(wire.get("/gen", &[]).await.text(), "3");
}

#[tokio::test]
async fn a_file_that_goes_away_changes_nothing() {
    let gateway = Gateway::start(&generation(1)).await;
    fs::remove_file(gateway.folder.path("gateway.yaml")).unwrap();
    eventually("a refusal", async || {
        gateway
            .stderr()
            .contains("configuration refused")
            .then_some(())
    })
    .await;
    assert_eq!(gateway.get("/gen", &[]).await.text(), "1");
    gateway.reconfigure(&generation(2)).await;
    assert_eq!(gateway.get("/gen", &[]).await.text(), "2");
}

#[tokio::test]
async fn an_open_connection_of_either_protocol_sees_the_new_configuration() {
    let gateway = Gateway::start(&generation(1)).await;
    let mut h1 = gateway.connect().await;
    let mut h2 = H2::connect(gateway.address()).await;
    for number in 1..4 {
        if number > 1 {
            gateway.reconfigure(&generation(number)).await;
        }
        assert_eq!(h1.get("/gen", &[]).await.text(), number.to_string());
        assert_eq!(h2.get("/gen", &[]).await.text(), number.to_string());
    }
}

#[tokio::test]
async fn a_request_in_flight_ends_as_it_began() {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let receiver = std::sync::Mutex::new(Some(receiver));
    let app = App::start(move |_| Answer::Stream(receiver.lock().unwrap().take().unwrap())).await;
    let text = config(
        "routes: [{path: /*, proxy: '@app', auth: none}]\n",
        &[("app", &app.url())],
    );
    let gateway = Gateway::start(&text).await;
    let mut wire = gateway.connect().await;
    wire.send(request("GET", "/", &[], "")).await;
    app.saw("/", |seen| seen.complete).await;

    gateway.reconfigure(&generation(2)).await;
    sender
        .send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nold ".into())
        .await
        .unwrap();
    gateway.reconfigure(&generation(3)).await;
    sender.send(b"land".into()).await.unwrap();
    assert_eq!(wire.reply().await.text(), "old land");
    assert_eq!(gateway.get("/gen", &[]).await.text(), "3");
}

#[tokio::test]
async fn an_open_tunnel_stays() {
    let app = App::start(|_| Answer::Upgrade).await;
    let text = config(
        "routes: [{path: /*, proxy: '@app', auth: none}]\n",
        &[("app", &app.url())],
    );
    let gateway = Gateway::start(&text).await;
    let mut wire = gateway.connect().await;
    let upgrade = [("Connection", "upgrade"), ("Upgrade", "websocket")];
    wire.send(request("GET", "/", &upgrade, "")).await;
    assert_eq!(wire.head().await.status, 101);

    gateway.reconfigure(&generation(2)).await;
    wire.send("still here").await;
    assert_eq!(wire.take(10).await, b"still here");
}

#[tokio::test]
async fn kept_connections_of_an_unchanged_upstream_stay() {
    let app = App::echo().await;
    let text = |more: &str| {
        config(
            &format!(
                "workers: 1\nupstreams: {{app: {{servers: ['@app']}}}}\nroutes:\n  \
                 - {{path: /*, proxy: app, auth: none}}\n{more}"
            ),
            &[("app", &app.url())],
        )
    };
    let gateway = Gateway::start(&text("")).await;
    assert_eq!(gateway.get("/", &[]).await.status, 200);
    let before = app.connections();
    gateway
        .reconfigure(&text(
            "  - {path: /new, respond: {status: 200, body: new}}\n",
        ))
        .await;
    assert_eq!(gateway.get("/new", &[]).await.text(), "new");
    assert_eq!(gateway.get("/", &[]).await.status, 200);
    assert_eq!(app.connections(), before);
}

#[tokio::test]
async fn listeners_come_and_go_with_the_configuration() {
    let (first, second) = (free_port(), free_port());
    let text = |ports: &[u16]| {
        let list: Vec<_> = ports
            .iter()
            .map(|port| format!("{{address: '127.0.0.1:{port}'}}"))
            .collect();
        format!("listeners: [{}]\n", list.join(", "))
            + &generation(1).replace("listeners: [{address: 127.0.0.1:0}]\n", "")
    };
    let gateway = Gateway::start(&text(&[first])).await;
    let mut kept = Wire::connect(local(first)).await;
    assert_eq!(kept.get("/gen", &[]).await.status, 200);

    gateway.reconfigure(&text(&[first, second])).await;
    assert_eq!(
        super::support::get(local(second), "/gen", &[]).await.text(),
        "1"
    );
    assert_eq!(
        kept.get("/gen", &[]).await.status,
        200,
        "the old listener's connection stays"
    );

    gateway.reconfigure(&text(&[second])).await;
    assert_eq!(
        super::support::get(local(second), "/gen", &[]).await.text(),
        "1"
    );
    eventually("the first port to be closed", async || {
        tokio::net::TcpStream::connect(local(first))
            .await
            .is_err()
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_listener_that_cannot_be_bound_refuses_the_reload() {
    let taken = std::net::TcpListener::bind(local(0)).unwrap();
    let gateway = Gateway::start(&generation(1)).await;
    let text = generation(2).replace(
        "{address: 127.0.0.1:0}",
        &format!(
            "{{address: 127.0.0.1:0}}, {{address: '{}'}}",
            taken.local_addr().unwrap()
        ),
    );
    gateway.reconfigure_in_vain(&text).await;
    assert_eq!(gateway.get("/gen", &[]).await.text(), "1");
}

/// Answers of new connections, again and again until it is told to stop; none may fail.
fn hammer(port: u16, stop: &Arc<AtomicBool>) -> tokio::task::JoinHandle<usize> {
    let stop = Arc::clone(stop);
    tokio::spawn(async move {
        let mut asked = 0;
        while !stop.load(Ordering::Relaxed) {
            let reply = super::support::get(local(port), "/gen", &[]).await;
            assert_eq!(reply.status, 200);
            asked += 1;
        }
        asked
    })
}

#[tokio::test]
async fn a_listener_moves_on_its_own_port() {
    for (old, new) in [
        ("0.0.0.0", "127.0.0.1"),
        ("127.0.0.1", "0.0.0.0"),
        ("0.0.0.0", "[::]"),
        ("[::]", "0.0.0.0"),
        ("[::]", "127.0.0.1"),
        ("127.0.0.1", "[::]"),
    ] {
        let port = free_port();
        let text = |address: &str, number| {
            let listener = format!("listeners: [{{address: '{address}:{port}'}}]");
            generation(number).replace("listeners: [{address: 127.0.0.1:0}]", &listener)
        };
        let gateway = Gateway::start(&text(old, 1)).await;
        let stop = Arc::new(AtomicBool::new(false));
        let hammers = [hammer(port, &stop), hammer(port, &stop)];
        let mut early = Wire::connect(local(port)).await;
        early.send("GET /gen HTTP/1.1\r\nHost: a.test\r\n").await;
        gateway.reconfigure(&text(new, 2)).await;
        // What had begun is answered, by the configuration that is in force then.
        early.send("\r\n").await;
        assert_eq!(early.reply().await.text(), "2", "{old} -> {new}");
        let asked = super::support::get(local(port), "/gen", &[]).await;
        assert_eq!(asked.text(), "2", "{old} -> {new}");
        // And back again.
        gateway.reconfigure(&text(old, 3)).await;
        let asked = super::support::get(local(port), "/gen", &[]).await;
        assert_eq!(asked.text(), "3", "{new} -> {old}");
        stop.store(true, Ordering::Relaxed);
        for hammer in hammers {
            assert!(hammer.await.unwrap() > 0, "{old} -> {new}");
        }
    }
}

#[tokio::test]
async fn two_listeners_that_would_take_each_others_clients_are_refused() {
    let port = free_port();
    let text = |addresses: &[&str], number| {
        let list: Vec<_> = addresses
            .iter()
            .map(|address| format!("{{address: '{address}:{port}'}}"))
            .collect();
        let listeners = format!("listeners: [{}]", list.join(", "));
        generation(number).replace("listeners: [{address: 127.0.0.1:0}]", &listeners)
    };
    let gateway = Gateway::start(&text(&["127.0.0.1"], 1)).await;
    for addresses in [
        ["127.0.0.1", "0.0.0.0"],
        ["0.0.0.0", "[::]"],
        ["[::]", "[::1]"],
    ] {
        gateway.reconfigure_in_vain(&text(&addresses, 2)).await;
    }
    gateway
        .reconfigure(&text(&["127.0.0.1", "127.0.0.2"], 3))
        .await;
    assert_eq!(
        super::support::get(local(port), "/gen", &[]).await.text(),
        "3"
    );
}

#[tokio::test]
async fn a_unix_socket_under_another_name_of_its_folder_is_taken_over() {
    let folder = Folder::new();
    fs::create_dir(folder.path("run")).unwrap();
    folder.link("link", folder.path("run"));
    let text = |name: &str, number: usize| {
        let unix = folder.path(name).join("gateway.sock");
        let listeners = format!(
            "listeners: [{{address: 127.0.0.1:0}}, {{address: 'unix:{}'}}]",
            unix.display()
        );
        generation(number).replace("listeners: [{address: 127.0.0.1:0}]", &listeners)
    };
    let other = Folder::new();
    other.write("gateway.yaml", text("run", 1));
    let gateway = Gateway::start_as_it_is(other, 1, &[]).await;
    let ask = async || {
        let stream = tokio::net::UnixStream::connect(folder.path("run/gateway.sock")).await;
        Wire::over(stream.unwrap()).get("/gen", &[]).await.text()
    };
    eventually("the socket", async || {
        folder.path("run/gateway.sock").exists().then_some(())
    })
    .await;
    assert_eq!(ask().await, "1");
    gateway.reconfigure(&text("link", 2)).await;
    assert_eq!(ask().await, "2");
    let gone = generation(3);
    gateway.reconfigure(&gone).await;
    assert!(
        !folder.path("run/gateway.sock").exists(),
        "the file of a closed listener stays"
    );
}

#[tokio::test]
async fn a_secret_in_a_file_is_exchanged_without_a_restart() {
    let folder = Folder::new();
    folder.write("secrets/jwt", &key(Kind::Secret, 0).public);
    let text = "jwt: {app: {algorithms: [HS256], secret: '${file:secrets/jwt}'}}
routes: [{path: /*, respond: {status: 200, body: in}, auth: app}]
";
    let gateway = Gateway::start_in(folder, &config(text, &[])).await;
    let [old, new] = [0, 1].map(|nth| {
        let token = sign(
            jsonwebtoken::Algorithm::HS256,
            key(Kind::Secret, nth),
            &claims(json!({})),
        );
        format!("Bearer {token}")
    });
    let status = async |value: &str| gateway.get("/", &[("Authorization", value)]).await.status;
    assert_eq!((status(&old).await, status(&new).await), (200, 401));

    gateway
        .folder
        .write("secrets/jwt", &key(Kind::Secret, 1).public);
    eventually("the new secret", async || {
        (status(&new).await == 200).then_some(())
    })
    .await;
    assert_eq!(
        status(&old).await,
        401,
        "a token that was good before is forgotten"
    );
    assert!(!gateway.output().contains(&key(Kind::Secret, 1).public));
}

#[tokio::test]
async fn a_guard_that_is_added_holds_for_open_connections_too() {
    let secret = &key(Kind::Secret, 0).public;
    let text = |auth: &str| {
        config(
            &format!(
                "jwt: {{app: {{algorithms: [HS256], secret: '@secret'}}}}\n\
                 routes: [{{path: /gen, respond: {{status: 200, body: in}}, auth: {auth}}}]\n"
            ),
            &[("secret", secret)],
        )
    };
    let gateway = Gateway::start(&text("none")).await;
    let mut wire = gateway.connect().await;
    assert_eq!(wire.get("/gen", &[]).await.status, 200);
    gateway.reconfigure(&text("app")).await;
    assert_eq!(wire.get("/gen", &[]).await.status, 401);
}

#[tokio::test]
async fn a_hundred_reloads_under_traffic_cost_no_request_and_mix_nothing() {
    let gateway = Gateway::start(&generation(0)).await;
    let address = gateway.address();
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..6)
        .map(|client| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            tokio::spawn(async move {
                let mut wire = Wire::connect(address).await;
                let mut last = 0;
                while !stop.load(Ordering::Relaxed) {
                    // Half of the clients come anew for every request.
                    if client % 2 == 0 {
                        wire = Wire::connect(address).await;
                    }
                    let reply = wire.get("/gen", &[]).await;
                    assert_eq!(reply.status, 200);
                    assert_eq!(
                        reply.field("x-gen"),
                        Some(reply.text().as_str()),
                        "a mixture"
                    );
                    let number: usize = reply.text().parse().unwrap();
                    assert!(
                        number >= last || client % 2 == 0,
                        "{number} came after {last}"
                    );
                    last = number;
                    served.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();

    for number in 1..=100 {
        gateway.folder.write("gateway.yaml", generation(number));
        gateway.signal(Signal::HUP);
        gateway.answers("/gen", 200, &number.to_string()).await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    assert!(served.load(Ordering::Relaxed) > 200);
}
