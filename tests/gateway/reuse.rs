//! Connections to apps that serve many requests: what one of them leaves behind never becomes the
//! response to another.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::support::{
    Answer, App, Gateway, H2, Reply, Wire, config, eventually, find, get, request,
};

/// A whole response that an attacker has uploaded as a file.
const EVIL: &str = "HTTP/1.1 200 OK\r\nX-User: root\r\nContent-Type: application/json\r\n\
    Content-Length: 14\r\n\r\n{\"sub\":\"root\"}";

/// Methods and heads behind which no body may follow, and an app sends one all the same.
const HEADS: [(&str, &str); 8] = [
    ("HEAD", "200 OK\r\nContent-Length: @"),
    ("HEAD", "200 OK\r\nTransfer-Encoding: chunked"),
    ("HEAD", "200 OK\r\nX-Length: none"),
    ("HEAD", "304 Not Modified\r\nX-Length: none"),
    ("DELETE", "204 No Content\r\nContent-Length: @"),
    ("DELETE", "204 No Content\r\nX-Length: none"),
    ("GET", "304 Not Modified\r\nContent-Length: @"),
    ("GET", "304 Not Modified\r\nX-Length: none"),
];

/// An app that answers `/left/HEAD/DELAY` with the head of that number and, after so many
/// milliseconds, a body; anything else with the target.
async fn app() -> (u16, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            tokio::spawn(serve(stream));
        }
    });
    (port, task)
}

async fn serve(mut stream: TcpStream) -> Option<()> {
    let mut read = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = find(&read, b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut read).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8(read.drain(..end).collect()).ok()?;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().unwrap());
        while read.len() < length {
            stream.read_buf(&mut read).await.ok()?;
        }
        read.drain(..length);
        let target = head.split(' ').nth(1)?;
        let left: Vec<&str> = target.split('/').skip(1).collect();
        if let ["left", nth, delay] = *left {
            let (_, head) = HEADS[nth.parse::<usize>().unwrap()];
            let head = head.replace('@', &EVIL.len().to_string());
            let head = format!("HTTP/1.1 {head}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.ok()?;
            let delay = delay.parse().unwrap();
            if delay > 0 {
                tokio::time::sleep(Duration::from_millis(delay)).await;
            }
            stream.write_all(EVIL.as_bytes()).await.ok()?;
        } else {
            let status = if target.starts_with("/denied") {
                "401 Unauthorized"
            } else {
                "200 OK"
            };
            let length = target.len();
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{target}");
            stream.write_all(answer.as_bytes()).await.ok()?;
        }
    }
}

fn is_own(reply: &Reply, target: &str) -> bool {
    reply.status == 200 && reply.text() == target
}

#[tokio::test]
async fn a_body_behind_an_answer_that_has_none_is_nobodys_answer() {
    let (port, _app) = app().await;
    let url = format!("http://127.0.0.1:{port}");
    let text = "workers: 1\nlog: {access: off}\nroutes: [{path: /*, proxy: '@app', auth: none}]\n";
    let gateway = Gateway::start(&config(text, &[("app", &url)])).await;
    let mut clients = tokio::task::JoinSet::new();
    for (nth, (method, _)) in HEADS.into_iter().enumerate() {
        for delay in [0, 1, 20, 100] {
            for http2 in [false, true] {
                let address = gateway.address();
                clients.spawn(async move {
                    let mut wrong = Vec::new();
                    let left = format!("/left/{nth}/{delay}");
                    let mut h2 = H2::connect(address).await;
                    for round in 0..20 {
                        let mine = format!("/mine/{nth}/{delay}/{http2}/{round}");
                        let reply = if http2 {
                            h2.send(method, &left, &[], Full::default()).await;
                            h2.get(&mine, &[]).await
                        } else {
                            let mut attacker = Wire::connect(address).await;
                            attacker.send(request(method, &left, &[], "")).await;
                            attacker.head().await;
                            get(address, &mine, &[]).await
                        };
                        if !is_own(&reply, &mine) {
                            wrong.push(format!("{mine}: {} {}", reply.status, reply.text()));
                        }
                    }
                    wrong
                });
            }
        }
    }
    let wrong: Vec<String> = clients.join_all().await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}: {wrong:#?}", wrong.len());
}

#[tokio::test]
async fn what_decides_who_a_client_is_shares_no_connection_with_clients() {
    let (port, _app) = app().await;
    let url = format!("http://127.0.0.1:{port}");
    let text = "workers: 1\nlog: {access: off}\nstate: data/\n\
        tokens: {keys: keys/, login: '@app/denied/login', throttle: off}\n\
        routes:\n\
        - {path: /*, proxy: '@app', auth: none}\n\
        - {path: /admin, proxy: '@app', auth: {ask: '@app/denied/auth'}}\n";
    let gateway = Gateway::start(&config(text, &[("app", &url)])).await;
    let login = request(
        "POST",
        "/api/token/",
        &[("Content-Type", "application/json")],
        "{\"username\":\"root\",\"password\":\"wrong\"}",
    );
    for (nth, (method, _)) in HEADS.into_iter().enumerate() {
        for delay in [0, 1] {
            for _ in 0..10 {
                let left = format!("/left/{nth}/{delay}");
                let mut attacker = gateway.connect().await;
                attacker.send(request(method, &left, &[], "")).await;
                attacker.head().await;
                let mut client = gateway.connect().await;
                client.send(&login).await;
                assert_eq!(client.reply().await.status, 401, "{left}");
                attacker.send(request(method, &left, &[], "")).await;
                attacker.head().await;
                assert_eq!(gateway.get("/admin", &[]).await.status, 401, "{left}");
            }
        }
    }
}

#[tokio::test]
async fn an_app_whose_answers_end_where_they_should_keeps_its_connections() {
    let app = App::start(|seen| {
        Answer::Raw(match seen.target() {
            "/changed" => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into(),
            "/empty" => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into(),
            "/pieces" => {
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".into()
            }
            _ => b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n".into(),
        })
    })
    .await;
    let text = "workers: 1\nlog: {access: off}\nroutes: [{path: /*, proxy: '@app', auth: none}]\n";
    let gateway = Gateway::start(&config(text, &[("app", &app.url())])).await;
    let mut wire = gateway.connect().await;
    for _ in 0..20 {
        for target in ["/changed", "/empty", "/pieces"] {
            assert_eq!(wire.get(target, &[]).await.status, 200);
        }
    }
    assert_eq!(app.connections(), 1);
    // Behind a 304 a connection is used again after a pause, which is what is waited for.
    assert_eq!(wire.get("/unchanged", &[]).await.status, 304);
    tokio::time::sleep(Duration::from_millis(1300)).await;
    assert_eq!(wire.get("/changed", &[]).await.status, 200);
    assert_eq!(app.connections(), 1);
}

/// A gateway of one worker before an upstream of these settings.
async fn before(app: &App, settings: &str) -> Gateway {
    Gateway::start(&upstream(&[&app.url()], settings)).await
}

fn upstream(servers: &[&str], settings: &str) -> String {
    let text = "workers: 1\nlog: {access: off}\n\
        upstreams: {app: {servers: [@servers], @settings}}\n\
        routes: [{path: /*, proxy: app, auth: none}]\n";
    config(
        text,
        &[("servers", &servers.join(", ")), ("settings", settings)],
    )
}

async fn post(gateway: &Gateway) -> Reply {
    let mut wire = gateway.connect().await;
    wire.send(request("POST", "/unsafe", &[], "once")).await;
    wire.reply().await
}

#[tokio::test]
async fn a_request_that_cannot_be_repeated_meets_no_connection_that_may_be_closing() {
    // The second request of every connection is met with its end, as if it had been closing.
    let app = App::start(|seen| match (seen.nth, seen.method()) {
        (0, _) | (_, "GET") => Answer::Ok("ok"),
        _ => Answer::Close,
    })
    .await;
    let gateway = before(&app, "connections: {fresh: 300ms}").await;
    for _ in 0..3 {
        assert_eq!(gateway.get("/safe", &[]).await.text(), "ok");
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(post(&gateway).await.text(), "ok");
    }
    // Younger ones are used; and what can be repeated uses older ones, too.
    let connections = app.connections();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(gateway.get("/safe", &[]).await.text(), "ok");
    assert_eq!(post(&gateway).await.status, 502);
    assert_eq!(app.connections(), connections);

    let never = before(&app, "connections: {fresh: 0s}").await;
    for _ in 0..3 {
        assert_eq!(never.get("/safe", &[]).await.text(), "ok");
        assert_eq!(post(&never).await.text(), "ok");
    }
}

#[tokio::test]
async fn an_app_that_says_how_long_it_keeps_connections_is_believed() {
    let app = App::start(|seen| {
        let timeout = seen.target().trim_start_matches('/');
        Answer::Raw(
            format!("HTTP/1.1 200 OK\r\nKeep-Alive: {timeout}\r\nContent-Length: 2\r\n\r\nok")
                .into(),
        )
    })
    .await;
    let gateway = before(&app, "connections: {keep_alive: 8}").await;
    for (target, more) in [
        ("/timeout=5", 1),
        ("/timeout=5", 0),
        ("/max=100,timeout=1", 0),
        ("/timeout=0", 1),
        ("/TIMEOUT=1,max=5", 1),
        ("/max=100", 1),
        ("/timeout=x", 0),
        ("/timeout=3", 0),
    ] {
        let connections = app.connections();
        let reply = gateway.get(target, &[]).await;
        assert_eq!(
            (reply.text().as_str(), reply.field("keep-alive")),
            ("ok", None)
        );
        assert_eq!(app.connections(), connections + more, "{target}");
    }
    tokio::time::sleep(Duration::from_millis(2300)).await;
    let connections = app.connections();
    gateway.get("/timeout=5", &[]).await;
    assert_eq!(app.connections(), connections + 1, "after 3 - 1 s");
}

#[tokio::test]
async fn as_many_connections_are_kept_as_a_busy_time_needs_and_closed_after_it() {
    let together = Arc::new(tokio::sync::Barrier::new(150));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let made = Arc::new(AtomicUsize::new(0));
    let open = Arc::new(AtomicUsize::new(0));
    let counts = (Arc::clone(&made), Arc::clone(&open));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let together = Arc::clone(&together);
            let (made, open) = counts.clone();
            made.fetch_add(1, Ordering::SeqCst);
            open.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while let Ok(1..) = stream.read(&mut request).await {
                    together.wait().await;
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                    stream.write_all(answer).await.unwrap();
                }
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    let url = format!("http://127.0.0.1:{port}");
    let gateway = Gateway::start(&upstream(&[&url], "timeouts: {idle: 3s}")).await;
    for _ in 0..2 {
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..150 {
            let address = gateway.address();
            clients.spawn(async move { get(address, "/", &[]).await.status });
        }
        assert_eq!(clients.join_all().await, [200; 150]);
    }
    assert_eq!(made.load(Ordering::SeqCst), 150);
    eventually("the end of idle connections", async || {
        (open.load(Ordering::SeqCst) == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_reload_keeps_the_connections_of_servers_that_stay_and_closes_those_of_others() {
    let app = App::start(|_| Answer::Ok("ok")).await;
    let other = App::start(|seen| match seen.target() {
        "/held" => Answer::Stall,
        _ => Answer::Ok("ok"),
    })
    .await;
    let both = [app.url(), other.url()];
    let both: Vec<&str> = both.iter().map(String::as_str).collect();
    let gateway = Gateway::start(&upstream(&both, "timeouts: {response: 30s}")).await;
    let round = async || {
        for _ in 0..2 {
            assert_eq!(gateway.get("/", &[]).await.text(), "ok");
        }
        (app.connections(), other.connections())
    };
    assert_eq!(round().await, (1, 1));
    for settings in [
        "timeouts: {response: 20s}",
        "connections: {keep_alive: 3}",
        "buffer: {request: 1KiB}",
        "connections: {fresh: 2s}",
    ] {
        gateway.reconfigure(&upstream(&both, settings)).await;
        assert_eq!(round().await, (1, 1), "{settings}");
    }
    gateway
        .reconfigure(&upstream(&[both[1], both[0]], "balance: round_robin"))
        .await;
    assert_eq!(round().await, (1, 1), "another order");

    // A request holds on to what is left; the other connection of that server is closed all the same.
    let mut held = gateway.connect().await;
    held.send(request("GET", "/held", &[], "")).await;
    other.saw("/held", |_| true).await;
    gateway.get("/", &[]).await;
    gateway.get("/", &[]).await;
    gateway.get("/", &[]).await;
    gateway
        .reconfigure(&upstream(&both[..1], "timeouts: {response: 30s}"))
        .await;
    eventually("the end of the idle connection", async || {
        (other.open() <= 1).then_some(())
    })
    .await;
    assert_eq!(gateway.get("/", &[]).await.text(), "ok");
    assert_eq!(app.connections(), 1);
}
