//! HTTP/2 beside HTTP/1.1: one request is judged alike over both, and what a hostile client can do with frames alone.

use std::time::{Duration, Instant};

use super::support::{
    Answer, App, Authority, Folder, Frame, Framed, Gateway, H2, Wire, config, eventually,
    fields_of, request, status_of, within,
};

async fn start(app: &App, settings: &str) -> Gateway {
    let text = format!("{settings}routes: [{{path: /*, proxy: '@app', auth: none}}]\n");
    Gateway::start(&config(&text, &[("app", &app.url())])).await
}

#[tokio::test]
async fn a_method_that_is_not_in_capitals_is_501() {
    let app = App::echo().await;
    let gateway = start(&app, "").await;
    let longest = "A".repeat(32);
    for (method, status) in [
        ("GET", 200),
        ("DELETE", 200),
        ("M-SEARCH", 200),
        (longest.as_str(), 200),
        ("post", 501),
        ("Post", 501),
        ("POSt", 501),
        (&"A".repeat(33), 501),
    ] {
        let mut wire = gateway.connect().await;
        wire.send(request(method, "/x", &[], "")).await;
        assert_eq!(wire.reply().await.status, status, "{method}");
        let mut h2 = Framed::connect(gateway.address(), &[]).await;
        h2.send(&[Frame::head(1, true, &fields_of(method, "/x"))])
            .await;
        let answer = h2.answer(1).await.unwrap();
        assert_eq!(answer.0, status, "{method} over HTTP/2");
    }
    assert_eq!(app.requests(), 8);
}

#[tokio::test]
async fn a_route_names_any_method_in_capitals() {
    let app = App::echo().await;
    let text = "routes:\n  - {path: /pot, methods: [BREW, VERSION-CONTROL, GET], proxy: '@app', auth: none}\n  \
        - {path: /pot, methods: [X_1], respond: {status: 204}}\n";
    let gateway = Gateway::start(&config(text, &[("app", &app.url())])).await;
    for (method, status) in [
        ("BREW", 200),
        ("VERSION-CONTROL", 200),
        ("X_1", 204),
        ("HEAD", 200),
        ("WHEN", 405),
        ("POST", 405),
    ] {
        let mut h2 = Framed::connect(gateway.address(), &[]).await;
        h2.send(&[Frame::head(1, true, &fields_of(method, "/pot"))])
            .await;
        assert_eq!(
            h2.answer(1).await.unwrap().0,
            status,
            "{method} over HTTP/2"
        );
        if method == "HEAD" {
            continue;
        }
        let mut wire = gateway.connect().await;
        wire.send(request(method, "/pot", &[], "")).await;
        let reply = wire.reply().await;
        assert_eq!(reply.status, status, "{method}");
        if status == 405 {
            let allow = reply.field("allow").unwrap_or_default();
            let mut names: Vec<&str> = allow.split(", ").collect();
            names.sort_unstable();
            assert_eq!(names, ["BREW", "GET", "HEAD", "VERSION-CONTROL", "X_1"]);
        }
    }
}

#[tokio::test]
async fn a_rule_for_a_method_is_not_passed_by_a_small_letter() {
    let app = App::echo().await;
    let text = "jwt: {app: {algorithms: [HS256], secret: 0123456789abcdef0123456789abcdef}}\n\
        routes:\n  - {path: /orders, methods: [POST], proxy: '@app', auth: app}\n  \
        - {path: /orders, proxy: '@app', auth: none}\n";
    let gateway = Gateway::start(&config(text, &[("app", &app.url())])).await;
    for (method, status) in [("POST", 401), ("post", 501), ("pOST", 501), ("GET", 200)] {
        let mut wire = gateway.connect().await;
        wire.send(request(method, "/orders", &[], "")).await;
        assert_eq!(wire.reply().await.status, status, "{method}");
    }
    assert_eq!(app.requests(), 1);
}

#[tokio::test]
async fn cookies_are_joined_before_they_are_counted() {
    let app = App::echo().await;
    let gateway = start(&app, "limits: {header_count: 20}\n").await;
    let crumbs: Vec<String> = (0..60).map(|at| format!("c{at}=v{at}")).collect();
    let mut fields: Vec<(&str, &str)> = crumbs
        .iter()
        .map(|crumb| ("cookie", crumb.as_str()))
        .collect();
    fields.insert(30, ("x-a", "1"));
    let mut h2 = H2::connect(gateway.address()).await;
    assert_eq!(h2.get("/crumbs", &fields).await.status, 200);
    assert_eq!(app.last().all("cookie"), [crumbs.join("; ")]);
    let many = [("x-a", "1"); 21];
    assert_eq!(h2.get("/many", &many).await.status, 431);
}

#[tokio::test]
async fn the_port_of_the_scheme_may_be_left_out() {
    let app = App::echo().await;
    let gateway = start(&app, "").await;
    for (authority, host, status) in [
        ("gateway.test:80", "gateway.test", 200),
        ("gateway.test", "gateway.test:80", 200),
        ("gateway.test:80", "gateway.test:81", 400),
        ("gateway.test:443", "gateway.test", 400),
        ("gateway.test", "other.test", 400),
    ] {
        let mut wire = gateway.connect().await;
        let target = format!("http://{authority}/x");
        wire.send(request("GET", &target, &[("Host", host)], ""))
            .await;
        assert_eq!(wire.reply().await.status, status, "{authority} {host}");
        let mut fields = fields_of("GET", "/x").to_vec();
        fields[2].1 = authority.as_bytes();
        fields.push(("host", host.as_bytes()));
        let mut h2 = Framed::connect(gateway.address(), &[]).await;
        h2.send(&[Frame::head(1, true, &fields)]).await;
        let answer = h2.answer(1).await.unwrap();
        assert_eq!(answer.0, status, "{authority} {host} over HTTP/2");
    }
}

#[tokio::test]
async fn plain_http_on_a_tls_port_is_told_so() {
    let authority = Authority::new();
    let folder = Folder::new();
    let issued = authority.issue("gateway.test");
    folder.write("cert.pem", &issued.cert);
    folder.write("key.pem", &issued.key);
    let text = "listeners: [{address: 127.0.0.1:0, tls: {certificates: [{cert: cert.pem, key: key.pem}]}}]\n\
        routes: [{path: /*, respond: {body: page}}]\n";
    let gateway = Gateway::start_in(folder, &config(text, &[])).await;
    for pieces in [1, 5] {
        let mut wire = Wire::connect(gateway.address()).await;
        let target = format!("/plain/{pieces}");
        let bytes = request("GET", &target, &[], "");
        for piece in bytes.chunks(bytes.len().div_ceil(pieces)) {
            wire.send(piece).await;
        }
        let reply = wire.reply().await;
        assert_eq!(reply.status, 400);
        assert!(reply.text().contains("https://"), "{}", reply.text());
        assert_eq!(reply.field("connection"), Some("close"));
        wire.closed().await;
        let record = gateway.record(&target).await;
        assert_eq!(
            (&record["status"], &record["reason"]),
            (&400.into(), &"plain_http".into())
        );
    }
    // What is neither is closed as before.
    let mut wire = Wire::connect(gateway.address()).await;
    wire.send([0x80, 0x2e, 1, 0, 2]).await;
    assert_ne!(wire.rest().await.get(..4), Some(b"HTTP".as_slice()));
}

/// The code of a GOAWAY or RST_STREAM for a client that is to calm down, for one whose stream is no longer cared for, and for
/// one that breaks the protocol (RFC 9113 section 7).
const ENHANCE_YOUR_CALM: u32 = 11;
const CANCEL: u32 = 8;
const PROTOCOL_ERROR: u32 = 1;
/// SETTINGS_INITIAL_WINDOW_SIZE (section 6.5.2).
const INITIAL_WINDOW: u16 = 4;

/// An app that answers with more than fits into any buffer.
async fn endless() -> App {
    const SIZE: usize = 32 * 1024 * 1024;
    App::start(|seen| match seen.target() {
        "/small" => Answer::Ok("small"),
        _ => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
            Answer::Raw([head.into_bytes(), vec![b'x'; SIZE]].concat())
        }
    })
    .await
}

#[tokio::test]
async fn a_stream_that_takes_nothing_is_reset_and_others_are_not() {
    let app = endless().await;
    for window in [0, 1, 100, 65_535] {
        let gateway = start(&app, "timeouts: {send: 1s}\n").await;
        let mut h2 = Framed::connect(gateway.address(), &[(INITIAL_WINDOW, window)]).await;
        let path = format!("/large/{window}");
        h2.send(&[Frame::get(1, &path)]).await;
        let reset = h2.until(|frame| frame.is(Frame::RST_STREAM, 1)).await;
        assert_eq!(reset.codes().1, CANCEL, "{window}");
        app.saw(&path, |seen| seen.gone).await;
        assert_eq!(gateway.record(&path).await["reason"], "client_gone");
        h2.send(&[
            Frame::window(0, 100_000),
            Frame::get(3, "/small"),
            Frame::window(3, 100),
        ])
        .await;
        assert_eq!(
            h2.answer(3).await,
            Some((200, b"small".to_vec())),
            "{window}"
        );
    }
}

#[tokio::test]
async fn a_small_answer_without_a_window_is_reset_too() {
    let app = endless().await;
    let folder = Folder::new();
    folder.write("files/two.txt", "x".repeat(10_000));
    let text = "timeouts: {send: 1s}\nroutes:\n  - {path: /files/*, static: files}\n  \
        - {path: /said, respond: {body: a fixed response}}\n  - {path: /*, proxy: '@app', auth: none}\n";
    let gateway = Gateway::start_in(folder, &config(text, &[("app", &app.url())])).await;
    for window in [0, 1] {
        let mut h2 = Framed::connect(gateway.address(), &[(INITIAL_WINDOW, window)]).await;
        let paths = ["/small", "/files/two.txt", "/said"];
        for (at, path) in (0_u32..).zip(paths) {
            h2.send(&[Frame::get(2 * at + 1, path)]).await;
        }
        let mut reset = 0;
        while reset < paths.len() {
            let frame = h2.until(|frame| frame.kind == Frame::RST_STREAM).await;
            assert_eq!(frame.codes().1, CANCEL);
            reset += 1;
        }
    }
}

#[tokio::test]
async fn a_stream_that_takes_a_little_now_and_then_is_served() {
    let app = endless().await;
    let gateway = start(&app, "timeouts: {send: 1s}\n").await;
    let mut h2 = Framed::connect(gateway.address(), &[(INITIAL_WINDOW, 1)]).await;
    h2.send(&[Frame::get(1, "/small")]).await;
    let mut body = Vec::new();
    while body.len() < 5 {
        let frame = h2.until(|frame| frame.kind == Frame::DATA).await;
        body.extend(frame.payload);
        tokio::time::sleep(Duration::from_millis(400)).await;
        h2.send(&[Frame::window(1, 1)]).await;
    }
    assert_eq!(body, b"small");
}

#[tokio::test]
async fn streams_without_a_window_hold_little_memory() {
    const CONNECTIONS: u64 = 10;
    const ALLOWED: u64 = 4 * 1024 * 1024;
    let folder = Folder::new();
    folder.write("files/large.bin", vec![b'x'; 4 << 20]);
    let text = "workers: 1\nroutes: [{path: /*, static: files}]\n";
    let gateway = Gateway::start_in(folder, &config(text, &[])).await;
    assert_eq!(gateway.get("/large.bin", &[]).await.status, 200);
    let Some(before) = gateway.resident() else {
        return;
    };
    let mut all = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut h2 = Framed::connect(gateway.address(), &[(INITIAL_WINDOW, 0)]).await;
        let many: Vec<Frame> = (0..128)
            .map(|at| Frame::get(2 * at + 1, "/large.bin"))
            .collect();
        h2.send(&many).await;
        for _ in 0..128 {
            h2.until(|frame| frame.kind == Frame::HEADERS).await;
        }
        all.push(h2);
    }
    let after = gateway.resident().unwrap();
    let each = after.saturating_sub(before) / CONNECTIONS;
    assert!(each < ALLOWED, "{each} bytes a connection");
}

#[tokio::test]
async fn answers_of_apps_that_wait_for_a_window_hold_little_memory() {
    const CONNECTIONS: u64 = 5;
    const ALLOWED: u64 = 5 * 1024 * 1024;
    let app = App::start(|_| {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n";
        Answer::Raw([&head[..], &[b'x'; 60_000]].concat())
    })
    .await;
    let gateway = start(&app, "workers: 1\n").await;
    assert_eq!(gateway.get("/", &[]).await.body.len(), 60_000);
    let Some(before) = gateway.resident() else {
        return;
    };
    let mut all = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut h2 = Framed::connect(gateway.address(), &[(INITIAL_WINDOW, 0)]).await;
        let many: Vec<Frame> = (0..128).map(|at| Frame::get(2 * at + 1, "/")).collect();
        h2.send(&many).await;
        for _ in 0..128 {
            h2.until(|frame| frame.kind == Frame::HEADERS).await;
        }
        all.push(h2);
    }
    let after = gateway.resident().unwrap();
    let each = after.saturating_sub(before) / CONNECTIONS;
    assert!(each < ALLOWED, "{each} bytes a connection");
}

#[tokio::test]
async fn half_a_head_ends_after_header_read() {
    let app = App::echo().await;
    let gateway = start(&app, "timeouts: {header_read: 500ms, keep_alive: 60s}\n").await;
    let whole = Frame::get(1, "/x").bytes();
    let mut open = Frame::get(1, "/x");
    open.flags = Frame::END_STREAM;
    let cases: [(&str, Vec<u8>); 4] = [
        ("half a frame's head", whole[..5].to_vec()),
        ("half a payload", whole[..12].to_vec()),
        ("a block that is not whole", open.bytes()),
        ("half a SETTINGS frame", vec![0, 0, 6, 4, 0, 0, 0, 0, 0, 0]),
    ];
    for (name, bytes) in &cases {
        for trickles in [false, true] {
            let mut h2 = Framed::connect(gateway.address(), &[]).await;
            let began = Instant::now();
            h2.send_bytes(bytes).await;
            if trickles && open.bytes() == *bytes {
                // A frame now and then does not buy more time.
                for _ in 0..4 {
                    let more = Frame::new(Frame::CONTINUATION, 0, 1, []);
                    h2.try_send(&more.bytes()).await.ok();
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            let frames = h2.rest().await;
            let goaway = frames.iter().find(|frame| frame.kind == Frame::GOAWAY);
            let goaway = goaway.unwrap_or_else(|| panic!("{name}: no GOAWAY in {frames:?}"));
            assert_eq!(goaway.codes(), (0, PROTOCOL_ERROR), "{name}");
            let took = began.elapsed();
            assert!((400..8_000).contains(&took.as_millis()), "{name}: {took:?}");
        }
    }
    // Half a preface is not even HTTP/2 yet.
    let mut wire = gateway.connect().await;
    wire.send("PRI * HT").await;
    assert_eq!(wire.reply().await.status, 408);
    wire.closed().await;
    // A head that comes in pieces, in time, is served.
    let mut h2 = Framed::connect(gateway.address(), &[]).await;
    for piece in whole.chunks(7) {
        h2.send_bytes(piece).await;
    }
    assert_eq!(h2.answer(1).await.unwrap().0, 200);
}

#[tokio::test]
async fn an_idle_connection_ends_so_that_no_request_is_lost() {
    let app = App::echo().await;
    let gateway = start(&app, "timeouts: {keep_alive: 500ms, header_read: 60s}\n").await;
    for answers in [true, false] {
        let mut h2 = Framed::connect(gateway.address(), &[]).await;
        h2.send(&[Frame::get(1, "/first")]).await;
        assert_eq!(h2.answer(1).await.unwrap().0, 200);
        let goaway = h2.until(|frame| frame.kind == Frame::GOAWAY).await;
        assert_eq!(
            goaway.codes(),
            (0x7fff_ffff, 0),
            "a warning first (RFC 9113 section 6.8)"
        );
        let mut last = 1;
        if answers {
            // What was on its way is served.
            let ping = h2.until(|frame| frame.kind == Frame::PING).await;
            h2.send(&[
                Frame::head(3, true, &fields_of("POST", "/on-its-way")),
                Frame::new(Frame::PING, 1, 0, ping.payload),
            ])
            .await;
            let status = h2.answer(3).await.unwrap().0;
            assert_eq!(status, 200);
            last = 3;
        }
        let frames = h2.rest().await;
        let goaway = frames.iter().rfind(|frame| frame.kind == Frame::GOAWAY);
        let goaway = goaway.map(Frame::codes);
        // The POST of the client that is answered may have its GOAWAY in front of its answer, where `answer` went by it.
        assert!(
            goaway == Some((last, 0)) || (answers && goaway.is_none()),
            "{answers}: {goaway:?} {frames:?}"
        );
    }
}

#[tokio::test]
async fn a_client_that_is_gone_is_noticed_while_it_is_answered() {
    let app = App::start(|_| Answer::Silent).await;
    let text = "timeouts: {keep_alive: 500ms, header_read: 1s}\n\
        upstreams: {app: {servers: ['@app'], timeouts: {response: 60s}}}\n\
        routes: [{path: /*, proxy: app, auth: none}]\n";
    let gateway = Gateway::start(&config(text, &[("app", &app.url())])).await;
    let mut h2 = Framed::connect(gateway.address(), &[]).await;
    h2.send(&[Frame::get(1, "/silent")]).await;
    for _ in 0..3 {
        let ping = h2
            .until(|frame| frame.kind == Frame::PING && frame.flags == 0)
            .await;
        h2.send(&[Frame::new(Frame::PING, 1, 0, ping.payload)])
            .await;
    }
    assert!(!app.last().gone);
    let frames = h2.rest().await;
    assert!(
        frames.iter().any(|frame| frame.kind == Frame::GOAWAY),
        "{frames:?}"
    );
    app.saw("/silent", |seen| seen.gone).await;
}

/// Opens a hundred streams at a time and lets `spoil` end each a little later, until the gateway ends the connection.
async fn flood(spoil: fn(u32) -> Frame, ends: bool) -> (Vec<Frame>, usize) {
    let app = App::start(|_| Answer::Silent).await;
    let gateway = start(&app, "").await;
    let mut h2 = Framed::connect(gateway.address(), &[]).await;
    for round in 0..10 {
        let streams: Vec<u32> = (0..100).map(|at| 2 * (100 * round + at) + 1).collect();
        let asks = streams
            .iter()
            .map(|id| Frame::head(*id, ends, &fields_of("POST", "/flood")).bytes());
        if h2
            .try_send(&asks.collect::<Vec<_>>().concat())
            .await
            .is_err()
        {
            break;
        }
        // All of them have reached the app, as far as they come.
        let began = Instant::now();
        while app.requests() < 100 * (usize::try_from(round).unwrap() + 1)
            && began.elapsed() < Duration::from_secs(1)
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let spoils = streams.iter().map(|id| spoil(*id).bytes());
        if h2
            .try_send(&spoils.collect::<Vec<_>>().concat())
            .await
            .is_err()
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    (h2.rest().await, app.requests())
}

#[tokio::test]
async fn a_client_that_resets_most_of_its_requests_is_told_to_calm_down() {
    let (frames, asked) = flood(Frame::reset, true).await;
    let goaway = frames.iter().find(|frame| frame.kind == Frame::GOAWAY);
    assert_eq!(goaway.map(|frame| frame.codes().1), Some(ENHANCE_YOUR_CALM));
    assert!(
        (100..=300).contains(&asked),
        "{asked} requests reached the app"
    );
}

/// A name, what ends a stream, and whether its request has no body.
type Spoil = (&'static str, fn(u32) -> Frame, bool);

#[tokio::test]
async fn resets_that_a_client_provokes_count_alike() {
    let spoils: [Spoil; 4] = [
        (
            "a window of nothing",
            |stream| Frame::window(stream, 0),
            true,
        ),
        (
            "a window that overflows",
            |stream| Frame::window(stream, 0x7fff_ffff),
            true,
        ),
        (
            "data behind the end",
            |stream| Frame::new(Frame::DATA, 0, stream, b"x"),
            true,
        ),
        (
            "trailers that do not end",
            |stream| Frame::head(stream, false, &[("x-a", b"1")]),
            false,
        ),
    ];
    for (name, spoil, ends) in spoils {
        let (frames, asked) = flood(spoil, ends).await;
        let goaway = frames.iter().find(|frame| frame.kind == Frame::GOAWAY);
        assert!(
            goaway.is_some_and(|frame| frame.codes().1 != 0),
            "{name}: {goaway:?}"
        );
        assert!(asked <= 300, "{name}: {asked} requests reached the app");
    }
}

#[tokio::test]
async fn a_client_that_resets_less_than_half_goes_on() {
    let app = App::start(|seen| match seen.target() {
        "/silent" => Answer::Silent,
        _ => Answer::Ok("good"),
    })
    .await;
    let gateway = start(&app, "").await;
    let mut h2 = Framed::connect(gateway.address(), &[]).await;
    let mut stream = 1;
    for _ in 0..110 {
        h2.send(&[
            Frame::get(stream, "/good"),
            Frame::get(stream + 2, "/good"),
            Frame::get(stream + 4, "/silent"),
        ])
        .await;
        for _ in 0..2 {
            h2.until(|frame| frame.ends_stream()).await;
        }
        h2.send(&[Frame::reset(stream + 4)]).await;
        stream += 6;
    }
    h2.send(&[Frame::get(stream, "/good")]).await;
    assert_eq!(h2.answer(stream).await, Some((200, b"good".to_vec())));
}

/// A client that goes on with its body whatever it is answered, as far as its windows let it.
async fn upload(h2: &mut Framed, stream: u32, path: &str, length: usize) -> (u16, bool) {
    const FRAME: usize = 16_384;
    let text = length.to_string();
    let mut fields = fields_of("POST", path).to_vec();
    fields.push(("content-length", text.as_bytes()));
    h2.send(&[Frame::head(stream, false, &fields)]).await;
    let (mut own, mut shared) = (65_535_usize, 65_535_usize);
    let (mut sent, mut status, mut reset, mut ended) = (0, None, false, false);
    let mut settled = false;
    while !reset && (!ended || sent < length) {
        let count = FRAME.min(length - sent);
        if count > 0 && settled && own.min(shared) >= count {
            let flags = u8::from(sent + count == length);
            h2.send(&[Frame::new(Frame::DATA, flags, stream, vec![b'x'; count])])
                .await;
            (own, shared, sent) = (own - count, shared - count, sent + count);
            continue;
        }
        let frame = h2.next().await.expect("the connection has ended");
        match frame.kind {
            Frame::SETTINGS if frame.flags == 0 => {
                own = 1 << 20;
                settled = true;
                h2.send(&[Frame::new(Frame::SETTINGS, 1, 0, [])]).await;
            }
            Frame::WINDOW_UPDATE => {
                let more = frame
                    .payload
                    .iter()
                    .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
                if frame.stream == 0 {
                    shared += more;
                } else {
                    own += more;
                }
            }
            Frame::HEADERS => {
                status = Some(status_of(&frame.payload));
                ended = frame.ends_stream();
            }
            Frame::DATA => ended = frame.ends_stream(),
            Frame::RST_STREAM => reset = true,
            _ => {}
        }
    }
    (status.expect("no answer"), reset)
}

#[tokio::test]
async fn a_refused_upload_is_taken_in_and_its_answer_is_read() {
    let app = App::start(|_| Answer::Early(early())).await;
    let text = "routes:\n  - {path: /small/*, proxy: '@app', auth: none, body_bytes: 64KiB}\n  \
        - {path: /*, proxy: '@app', auth: none, body_bytes: 1GiB}\n";
    let gateway = Gateway::start(&config(text, &[("app", &app.url())])).await;
    for (path, status) in [("/small/x", 413), ("/early", 403)] {
        let mut h2 = Framed::connect(gateway.address(), &[]).await;
        let answer = upload(&mut h2, 1, path, 8 << 20).await;
        assert_eq!(answer, (status, false), "{path}");
        // The connection is as good as before.
        h2.send(&[Frame::get(3, "/small/y")]).await;
        assert!(h2.answer(3).await.is_some());
    }
}

fn early() -> tokio::sync::mpsc::Receiver<Vec<u8>> {
    let (send, receive) = tokio::sync::mpsc::channel(1);
    let answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
    send.try_send(answer.to_vec()).unwrap();
    receive
}

/// Names and values of a head.
type Fields<'a> = Vec<(&'a str, &'a [u8])>;

#[tokio::test]
async fn what_http2_itself_refuses_is_recorded_once() {
    let app = App::echo().await;
    let gateway = start(&app, "limits: {header_bytes: 4KiB}\n").await;
    let large = "a".repeat(6_000);
    let good = fields_of("GET", "/x");
    let with = |name: &'static str, value: &'static [u8]| {
        let mut fields = good.to_vec();
        fields.push((name, value));
        fields
    };
    let mut too_large = good.to_vec();
    too_large.push(("x-a", large.as_bytes()));
    let cases: [(&str, Fields<'_>, &str); 6] = [
        (
            "a field of a connection",
            with("connection", b"close"),
            "bad_request",
        ),
        ("te", with("te", b"gzip"), "bad_request"),
        (
            "a pseudo-header field twice",
            with(":path", b"/y"),
            "bad_request",
        ),
        ("no path", good[..3].to_vec(), "bad_request"),
        (
            "a length that is none",
            with("content-length", b"1x"),
            "bad_request",
        ),
        ("too large", too_large, "head_too_large"),
    ];
    let mut expected = 0;
    for (name, fields, reason) in cases {
        let mut h2 = Framed::connect(gateway.address(), &[]).await;
        h2.send(&[Frame::head(1, true, &fields), Frame::get(3, "/good")])
            .await;
        assert_eq!(h2.answer(3).await.unwrap().0, 200, "{name}");
        expected += 2;
        let records = eventually(name, async || {
            let records = gateway.records();
            (records.len() >= expected).then_some(records)
        })
        .await;
        assert_eq!(records.len(), expected, "{name}");
        let mut refused = records.iter().filter(|record| record["path"] != "/good");
        let last = refused.next_back().unwrap();
        assert_eq!(last["reason"], reason, "{name}");
        let path = if name == "no path" { "/" } else { "/x" };
        assert_eq!(
            (&last["path"], &last["method"]),
            (&path.into(), &"GET".into()),
            "{name}"
        );
        assert_eq!(last["protocol"], "HTTP/2.0", "{name}");
    }
    assert_eq!(app.requests(), 6);
}

#[tokio::test]
async fn a_length_is_read_as_over_http1() {
    let app = App::echo().await;
    let gateway = start(&app, "").await;
    let cases: [(&[&[u8]], u16); 4] = [
        (&[b"0"], 200),
        (&[b"00"], 400),
        (&[b"0", b"0"], 400),
        (&[b"0, 0"], 400),
    ];
    for (lengths, status) in cases {
        let mut fields = fields_of("POST", "/x").to_vec();
        let mut wire = gateway.connect().await;
        let mut head = b"POST /x HTTP/1.1\r\nHost: a\r\n".to_vec();
        for length in lengths {
            fields.push(("content-length", length));
            head.extend([b"Content-Length: ", *length, b"\r\n"].concat());
        }
        head.extend(b"\r\n");
        wire.send(head).await;
        assert_eq!(wire.reply().await.status, status, "{lengths:?}");
        let mut h2 = Framed::connect(gateway.address(), &[]).await;
        h2.send(&[Frame::head(1, true, &fields)]).await;
        let answer = h2.answer(1).await.map_or(400, |answer| answer.0);
        assert_eq!(answer, status, "{lengths:?} over HTTP/2");
    }
}

#[tokio::test]
async fn a_head_without_a_body_is_answered_without_one() {
    let app = App::start(|_| {
        Answer::Raw(
            b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.0\r\nContent-Length: 9\r\n\r\n"
                .to_vec(),
        )
    })
    .await;
    let text = "routes:\n  - {path: /app, proxy: '@app', auth: none}\n  - {path: /said, respond: {body: something}}\n";
    let gateway = Gateway::start(&config(text, &[("app", &app.url())])).await;
    let mut h2 = Framed::connect(gateway.address(), &[]).await;
    for (stream, path) in [(1, "/said"), (3, "/nowhere"), (5, "/app")] {
        h2.send(&[Frame::head(stream, true, &fields_of("HEAD", path))])
            .await;
        let head = h2.until(|frame| frame.stream == stream).await;
        assert!(
            head.kind == Frame::HEADERS && head.ends_stream(),
            "{path}: {head:?}"
        );
    }
}

#[tokio::test]
async fn a_target_is_judged_as_over_http1() {
    let app = App::echo().await;
    let gateway = start(&app, "").await;
    let long = format!("/{}#", "a".repeat(300));
    let cases: [(&[u8], u16); 10] = [
        (b"/good", 200),
        (b"/good?a=%23", 200),
        (b"/path#fragment", 400),
        (b"/path?query#fragment", 400),
        (b"/#", 400),
        (long.as_bytes(), 400),
        (b"/caf\xc3\xa9", 400),
        (b"/path?caf\xc3\xa9", 400),
        (b"/latin\xe9", 400),
        (b"no-slash", 400),
    ];
    for (target, status) in cases {
        let shown = String::from_utf8_lossy(target).into_owned();
        let mut wire = gateway.connect().await;
        wire.send([b"GET ", target, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat())
            .await;
        assert_eq!(wire.reply().await.status, status, "{shown}");
        let mut fields = fields_of("GET", "/").to_vec();
        fields[3].1 = target;
        let mut h2 = Framed::connect(gateway.address(), &[]).await;
        h2.send(&[Frame::head(1, true, &fields)]).await;
        // Where it is not even text, there is no answer but a reset.
        let answer = h2.answer(1).await.map_or(400, |answer| answer.0);
        assert_eq!(answer, status, "{shown} over HTTP/2");
    }
    assert_eq!(app.requests(), 4);

    // The same through hyper's client, whose fields are compressed: many requests share one table.
    let mut h2 = H2::connect(gateway.address()).await;
    for at in 0..300 {
        let path = format!("/compressed/{at}?q={}", "x".repeat(at));
        let value = "v".repeat(at % 50);
        let reply = h2.get(&path, &[("x-a", &value), ("x-b", "same")]).await;
        assert_eq!(reply.status, 200, "{at}");
    }
}

#[tokio::test]
async fn pseudo_header_fields_in_trailers_are_refused() {
    let app = App::start(|_| Answer::EchoBody).await;
    let gateway = start(&app, "").await;
    for (name, good) in [
        ("x-checksum", true),
        (":path", false),
        (":status", false),
        (":x", false),
    ] {
        let mut h2 = Framed::connect(gateway.address(), &[]).await;
        h2.send(&[
            Frame::head(1, false, &fields_of("POST", "/trailers")),
            Frame::new(Frame::DATA, 0, 1, b"body"),
            Frame::head(1, true, &[(name, b"/y")]),
        ])
        .await;
        let answer = h2.answer(1).await;
        assert_eq!(
            answer.as_ref().is_some_and(|answer| answer.0 == 200),
            good,
            "{name}: {answer:?}"
        );
        let bad = answer.is_none_or(|answer| answer.0 == 400);
        assert_eq!(bad, !good, "{name}");
    }
}

#[tokio::test]
async fn a_refused_request_has_its_own_path_in_its_record() {
    let app = App::echo().await;
    let gateway = start(&app, "").await;
    for (path, recorded) in [
        (&b"/own/path"[..], "/own/path"),
        (b"/latin/\xe9", "/latin/%E9"),
    ] {
        let mut fields = fields_of("DELETE", "/").to_vec();
        fields[3].1 = path;
        fields.push(("te", b"gzip"));
        let mut h2 = Framed::connect(gateway.address(), &[]).await;
        h2.send(&[Frame::head(1, true, &fields)]).await;
        let record = gateway.record(recorded).await;
        assert_eq!(
            (&record["status"], &record["reason"]),
            (&400.into(), &"bad_request".into())
        );
        assert_eq!(record["method"], "DELETE");
    }
    assert_eq!(app.requests(), 0);
}

#[tokio::test]
async fn who_waits_for_100_over_http2_gets_it_when_the_body_is_wanted() {
    let app = App::start(|_| Answer::EchoBody).await;
    let text = "routes:
  - {path: /*, proxy: '@app', auth: none}
  - {path: /large, proxy: '@app', auth: none, body_bytes: 3}
  - {path: /streamed, proxy: direct, auth: none}
  - {path: /fixed, respond: {body: pong}}
upstreams: {direct: {servers: ['@app'], buffer: off}}
";
    let gateway = Gateway::start(&config(text, &[("app", &app.url())])).await;
    let head = |path: &'static str, more: &[(&'static str, &'static [u8])]| {
        let mut fields = fields_of("POST", path).to_vec();
        fields.extend_from_slice(more);
        Frame::head(1, false, &fields)
    };
    let data = |ends: bool| Frame::new(Frame::DATA, u8::from(ends), 1, *b"body");
    for (path, expect) in [
        ("/", &b"100-continue"[..]),
        ("/a", b"100-Continue"),
        ("/streamed", b"100-continue"),
    ] {
        for length in [None, Some(("content-length", &b"4"[..]))] {
            let mut fields = vec![("expect", expect)];
            fields.extend(length);
            let mut h2 = Framed::connect(gateway.address(), &[]).await;
            h2.send(&[head(path, &fields)]).await;
            let interim = h2.until(|frame| frame.stream == 1).await;
            assert!(
                interim.is(Frame::HEADERS, 1) && !interim.ends_stream(),
                "{path}"
            );
            assert_eq!(status_of(&interim.payload), 100, "{path}");
            h2.send(&[data(true)]).await;
            let (status, body) = h2.answer(1).await.unwrap();
            assert_eq!((status, body.as_slice()), (200, &b"body"[..]), "{path}");
            assert_eq!(app.last().field("expect"), None, "{path}");
        }
    }
    // Who is refused, is answered without its body, or has sent it already, gets none.
    let whole = |path| [head(path, &[("expect", b"100-continue")]), data(true)];
    let large = [("expect", &b"100-continue"[..]), ("content-length", b"4")];
    for (frames, status) in [
        (vec![head("/large", &large)], 413),
        (vec![head("/fixed", &large)], 200),
        (whole("/").to_vec(), 200),
        (whole("/streamed").to_vec(), 200),
        (vec![head("/", &[("expect", b"else")]), data(true)], 200),
    ] {
        let mut h2 = Framed::connect(gateway.address(), &[]).await;
        h2.send(&frames).await;
        let first = h2.until(|frame| frame.stream == 1).await;
        assert_eq!(status_of(&first.payload), status, "{frames:?}");
    }
    // And nobody who does not ask for it.
    let mut h2 = Framed::connect(gateway.address(), &[]).await;
    h2.send(&[head("/", &[])]).await;
    assert!(
        within(
            Duration::from_millis(300),
            h2.until(|frame| frame.stream == 1)
        )
        .await
        .is_none()
    );
    h2.send(&[data(true)]).await;
    assert_eq!(h2.answer(1).await.unwrap().0, 200);
}
