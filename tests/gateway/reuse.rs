//! Connections to apps that serve many requests: what one of them leaves behind never becomes the
//! response to another.

use std::time::Duration;

use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::support::{Gateway, H2, Reply, config, find, get, request};

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
                            let mut attacker = super::support::Wire::connect(address).await;
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
    let app = super::support::App::start(|seen| {
        super::support::Answer::Raw(match seen.target() {
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
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(wire.get("/changed", &[]).await.status, 200);
    assert_eq!(app.connections(), 1);
}
