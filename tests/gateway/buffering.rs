//! Bodies are taken in before they are asked for: however slow the client, the app is held for its own time alone.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

use super::support::{
    Answer, App, Folder, Gateway, H2, chunked, config, eventually, request, within,
};

/// Names and values.
type Fields<'f> = &'f [(&'f str, &'f str)];

/// A body of what a channel brings.
struct Fed(mpsc::Receiver<Bytes>);

impl Body for Fed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.0.poll_recv(cx);
        piece.map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

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
        "{request: 64KiB, response: 64KiB, spool: spool/, spool_bytes: 2MiB}",
    )
    .await;
    // One client has a quarter of it, in which one of these fits.
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut wire = gateway.connect().await;
        wire.send(request(
            "POST",
            "/large",
            &[("Content-Length", "500001")],
            "",
        ))
        .await;
        wire.try_send("x".repeat(500_000)).await.ok();
        held.push(wire);
    }
    eventually("a full spool", async || {
        let records = gateway.records().into_iter();
        let busy = records.filter(|record| record["reason"] == "upstream_busy");
        (busy.count() >= 2).then_some(())
    })
    .await;
    assert_eq!(gateway.record("/large").await["status"], 503);

    let mut wire = gateway.connect().await;
    wire.send(request("POST", "/small", &[], "x".repeat(60_000)))
        .await;
    assert_eq!(wire.reply().await.status, 200);
    drop(held);
    eventually("a free spool", async || {
        let mut wire = gateway.connect().await;
        let upload = request("POST", "/again", &[], "x".repeat(500_000));
        wire.try_send(upload).await.ok();
        (wire.reply().await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_body_that_can_never_fit_is_413() {
    let app = App::start(|_| Answer::Ok("taken")).await;
    let gateway = start(
        &app,
        "{request: 64KiB, response: 64KiB, spool: spool/, spool_bytes: 256KiB}",
    )
    .await;
    // 64 KiB in memory, and as much on disk.
    for (length, status) in [(131_072, 200), (131_073, 413), (1_000_000, 413)] {
        for chunks in [false, true] {
            let body = "x".repeat(length);
            let path = format!("/{length}-{chunks}");
            // What the one before held is given back behind its answer.
            let answered = eventually("room in the spool", async || {
                let mut wire = gateway.connect().await;
                if chunks {
                    let fields = [("Transfer-Encoding", "chunked")];
                    wire.send(request("POST", &path, &fields, "")).await;
                    let body = [&chunked(&body)[..], b"0\r\n\r\n"].concat();
                    wire.try_send(body).await.ok();
                } else {
                    wire.try_send(request("POST", &path, &[], &body)).await.ok();
                }
                Some(wire.reply().await).filter(|reply| reply.status != 503)
            });
            let reply = answered.await;
            assert_eq!(reply.status, status, "{path}");
            if status == 413 {
                assert!(reply.text().contains("131072"), "{}", reply.text());
                eventually("its record", async || {
                    let mut records = gateway.records().into_iter();
                    records.find(|record| {
                        record["path"] == *path && record["reason"] == "body_too_large"
                    })
                })
                .await;
            }
        }
    }
    assert_eq!(app.requests(), 2);
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
        "upstreams: {app: {servers: ['@app'], buffer: off}}\nroutes: [{path: /*, proxy: app, auth: none}]\n",
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

/// A gateway without a word on buffering, and its app.
async fn by_default() -> (App, Gateway) {
    let app = App::start(|_| Answer::Echo).await;
    let text = "limits: {body_bytes: 1GiB}\nroutes: [{path: /*, proxy: '@app', auth: none}]\n";
    let gateway = Gateway::start(&config(text, &[("app", &app.url())])).await;
    (app, gateway)
}

#[tokio::test]
async fn by_default_a_body_of_64_kib_is_complete_before_the_app_is_asked_and_has_a_length() {
    let (app, gateway) = by_default().await;
    for (path, size) in [("/1", 1), ("/2", 1000), ("/3", 40_000), ("/4", 65_536)] {
        for chunks in [true, false] {
            let path = format!("{path}-{chunks}");
            let body = vec![b'x'; size];
            let (first, second) = body.split_at(size / 2);
            let mut wire = gateway.connect().await;
            let framing = if chunks {
                ("Transfer-Encoding", "chunked".to_owned())
            } else {
                ("Content-Length", size.to_string())
            };
            let fields = [(framing.0, &*framing.1)];
            wire.send(request("POST", &path, &fields, "")).await;
            if !first.is_empty() {
                wire.send(if chunks {
                    chunked(first)
                } else {
                    first.to_vec()
                })
                .await;
            }
            // A whole round of another client passes meanwhile.
            for _ in 0..3 {
                assert_eq!(gateway.get("/quick", &[]).await.status, 200);
            }
            assert!(
                app.seen().iter().all(|seen| seen.target() != path),
                "{path}"
            );
            if chunks {
                wire.send([&chunked(second)[..], b"0\r\n\r\n"].concat())
                    .await;
            } else {
                wire.send(second).await;
            }
            assert_eq!(wire.reply().await.status, 200, "{path}");
            let seen = app.saw(&path, |seen| seen.complete).await;
            assert_eq!(
                seen.field("content-length"),
                Some(size.to_string()),
                "{path}"
            );
            assert_eq!(seen.field("transfer-encoding"), None, "{path}");
            assert!(seen.body == body, "{path}");
        }
    }

    // HTTP/2, without a length.
    let mut client = H2::connect(gateway.address()).await;
    let body = Full::new(Bytes::from("name=ada")).map_frame(|frame| frame);
    let reply = client.send("POST", "/h2", &[], body).await;
    assert_eq!(reply.status, 200);
    let seen = app.saw("/h2", |seen| seen.complete).await;
    assert_eq!(seen.field("content-length").as_deref(), Some("8"));
}

#[tokio::test]
async fn by_default_a_longer_body_streams_from_64_kib_on() {
    let (app, gateway) = by_default().await;
    let piece: Vec<u8> = (0..50_000_u32)
        .map(|at| (at % 251).to_le_bytes()[0])
        .collect();
    for chunks in [true, false] {
        let path = format!("/up-{chunks}");
        let mut wire = gateway.connect().await;
        let fields = if chunks {
            ("Transfer-Encoding", "chunked")
        } else {
            ("Content-Length", "150000")
        };
        wire.send(request("POST", &path, &[fields], "")).await;
        let framed = if chunks {
            chunked(&piece)
        } else {
            piece.clone()
        };
        wire.send(&framed).await;
        assert_eq!(gateway.get("/quick", &[]).await.status, 200);
        assert!(
            app.seen().iter().all(|seen| seen.target() != path),
            "{path}"
        );
        wire.send(&framed).await;
        app.saw(&path, |seen| seen.body.len() == 100_000 && !seen.complete)
            .await;
        wire.send(&framed).await;
        if chunks {
            wire.send("0\r\n\r\n").await;
        }
        assert_eq!(wire.reply().await.status, 200, "{path}");
        let seen = app.saw(&path, |seen| seen.complete).await;
        assert!(seen.body == piece.repeat(3), "{path}");
        let length = seen.field("content-length");
        assert_eq!(length.is_none(), chunks, "{path}: {length:?}");
    }
}

#[tokio::test]
async fn by_default_who_waits_for_100_gets_it_when_the_body_is_wanted() {
    let (app, gateway) = by_default().await;
    let mut wire = gateway.connect().await;
    let fields = [("Content-Length", "5"), ("Expect", "100-continue")];
    wire.send(request("POST", "/100", &fields, "")).await;
    assert_eq!(wire.head().await.status, 100);
    assert_eq!(app.requests(), 0);
    wire.send("hello").await;
    assert!(wire.reply().await.text().ends_with("hello"));
}

/// The words with which a client could ask for a stream through.
#[tokio::test]
async fn no_clients_word_opens_a_way_around_the_buffer() {
    for buffer in ["", ", buffer: {request: 64KiB}"] {
        let app = App::start(|_| Answer::Echo).await;
        let text = format!(
            "upstreams: {{app: {{servers: ['@app']{buffer}}}}}\nroutes: [{{path: /*, proxy: app, auth: none}}]\n"
        );
        let gateway = Gateway::start(&config(&text, &[("app", &app.url())])).await;
        let rows: [(&str, &str, Fields<'_>); 4] = [
            ("POST", "/grpc", &[("Content-Type", "application/grpc")]),
            (
                "POST",
                "/grpc-proto",
                &[("Content-Type", "application/grpc+proto")],
            ),
            (
                "GET",
                "/ws",
                &[("Connection", "Upgrade"), ("Upgrade", "websocket")],
            ),
            ("POST", "/events", &[("Accept", "text/event-stream")]),
        ];
        for (method, path, fields) in rows {
            let mut wire = gateway.connect().await;
            let fields = [fields, &[("Content-Length", "6")]].concat();
            wire.send(request(method, path, &fields, "")).await;
            wire.send("hel").await;
            for _ in 0..3 {
                assert_eq!(gateway.get("/quick", &[]).await.status, 200);
            }
            assert!(
                app.seen().iter().all(|seen| seen.target() != path),
                "{path}{buffer}"
            );
            wire.send("lo!").await;
            assert_eq!(wire.reply().await.status, 200, "{path}{buffer}");
            let seen = app.saw(path, |seen| seen.complete).await;
            assert_eq!(seen.field("upgrade"), None, "a handshake has no body");
        }
    }
}

#[tokio::test]
async fn calls_of_grpc_stream_where_the_upstream_says_nothing_else() {
    for (buffer, streams) in [("", true), (", buffer: off", true), (", buffer: {}", false)] {
        let app = App::start(|_| Answer::EchoBody).await;
        let text = format!(
            "upstreams: {{app: {{servers: ['@app']{buffer}}}}}\nroutes: [{{path: /*, proxy: app, auth: none}}]\n"
        );
        let gateway = Gateway::start(&config(&text, &[("app", &app.url())])).await;
        let mut client = H2::connect(gateway.address()).await;
        let (sender, receiver) = mpsc::channel(1);
        let body = Fed(receiver);
        let fields = [
            ("content-type", "application/grpc+proto"),
            ("te", "trailers"),
        ];
        let call = client.send("POST", "/call", &fields, body);
        let feeding = async {
            sender.send(Bytes::from("one")).await.unwrap();
            if streams {
                app.saw("/call", |seen| seen.body == b"one" && !seen.complete)
                    .await;
            } else {
                for _ in 0..3 {
                    assert_eq!(gateway.get("/quick", &[]).await.status, 200);
                }
                assert!(app.seen().iter().all(|seen| seen.target() != "/call"));
            }
            sender.send(Bytes::from("two")).await.unwrap();
            drop(sender);
        };
        let (reply, ()) = tokio::join!(call, feeding);
        assert_eq!(reply.text(), "onetwo", "{buffer}");
    }
}

/// An answer is passed on as it comes, whatever is read ahead of its client.
#[tokio::test]
async fn each_piece_of_an_answer_is_passed_on_before_the_next_comes() {
    let (sender, receiver) = mpsc::channel::<Vec<u8>>(1);
    let receivers = Mutex::new(vec![receiver]);
    let app = App::start(move |_| match receivers.lock().unwrap().pop() {
        Some(receiver) => Answer::Stream(receiver),
        None => Answer::Ok("other"),
    })
    .await;
    let text = "routes: [{path: /*, proxy: '@app', auth: none}]\n";
    let gateway = Gateway::start(&config(text, &[("app", &app.url())])).await;
    let mut wire = gateway.connect().await;
    wire.send(request("GET", "/", &[], "")).await;
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    sender.send(head.to_vec()).await.unwrap();
    assert_eq!(wire.head().await.status, 200);
    for length in [1, 100, 70_000, 1] {
        let piece = vec![b'x'; length];
        sender.send(chunked(&piece)).await.unwrap();
        let mut got = 0;
        while got < length {
            got += wire.chunk().await.unwrap().len();
        }
        assert_eq!(got, length);
    }
    sender.send(b"0\r\n\r\n".to_vec()).await.unwrap();
    assert_eq!(wire.chunk().await, None);
}

/// Of any length and framing, over both protocols, with and without a pause behind the head.
#[tokio::test]
async fn answers_of_any_length_come_whole() {
    let app = App::start(|seen| {
        let (kind, length) = seen.target()[1..].split_once('/').unwrap();
        let body: Vec<u8> = (0..length.parse().unwrap())
            .map(|at: usize| u8::try_from(at % 251).unwrap())
            .collect();
        match kind {
            "length" => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                Answer::Raw([head.as_bytes(), &body].concat())
            }
            "chunks" => {
                let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                let chunks: Vec<u8> = body.chunks(5000).flat_map(chunked).collect();
                Answer::Raw([&head[..], &chunks, b"0\r\n\r\n"].concat())
            }
            _ => Answer::RawThenClose([b"HTTP/1.1 200 OK\r\n\r\n", &body[..]].concat()),
        }
    })
    .await;
    let text = "routes: [{path: /*, proxy: '@app', auth: none}]\n";
    let gateway = Gateway::start(&config(text, &[("app", &app.url())])).await;
    let mut h2 = H2::connect(gateway.address()).await;
    for kind in ["length", "chunks", "close"] {
        for length in [0, 1, 1000, 9000, 65_536, 65_537, 1_000_000] {
            let path = format!("/{kind}/{length}");
            for reply in [gateway.get(&path, &[]).await, h2.get(&path, &[]).await] {
                assert_eq!((reply.status, reply.body.len()), (200, length), "{path}");
                let right = |(at, byte): (usize, &u8)| usize::from(*byte) == at % 251;
                assert!(reply.body.iter().enumerate().all(right), "{path}");
            }
        }
    }
}
