//! Queries reach the app as the client wrote them, over HTTP/1.1 and HTTP/2: also with characters that curl, node and Go
//! send unescaped.

use std::time::Duration;

use serde_json::json;

use super::support::{
    App, Frame, Framed, Gateway, block, config, eventually, fields_of, request, within,
};

/// All visible ASCII characters but `#`, which no target may contain.
const ALL: &str = "!\"$%25&'()*+,-./09:;<=>?@AZ[\\]^_`az{|}~";
/// The flags of HEADERS (RFC 9113 section 6.2).
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

async fn start(settings: &str) -> (App, Gateway) {
    let app = App::echo().await;
    let text = format!("{settings}routes: [{{path: /*, proxy: '@app', auth: none}}]\n");
    let gateway = Gateway::start(&config(&text, &[("app", &app.url())])).await;
    (app, gateway)
}

/// The status of a request over HTTP/1.1.
async fn status(gateway: &Gateway, target: &[u8]) -> u16 {
    let mut wire = gateway.connect().await;
    wire.send([b"GET ", target, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat())
        .await;
    wire.reply().await.status
}

/// A head whose `:path` is this; a reset stream counts as 400.
async fn status_h2(gateway: &Gateway, target: &[u8]) -> u16 {
    let mut h2 = Framed::connect(gateway.address(), &[]).await;
    let mut fields = fields_of("GET", "");
    fields[3].1 = target;
    h2.send(&[Frame::head(1, true, &fields)]).await;
    h2.answer(1).await.map_or(400, |answer| answer.0)
}

#[tokio::test]
async fn every_character_of_a_query_arrives_over_both_protocols() {
    let (app, gateway) = start("").await;
    let mut h2 = Framed::connect(gateway.address(), &[]).await;
    let singles = ALL.chars().map(|it| format!("/a?q=x{it}y&z"));
    let targets: Vec<String> = singles
        .chain([
            format!("/a?{ALL}"),
            format!("/a?{ALL}{}{ALL}", "\"<>".repeat(300)),
            "/a?\"".to_owned(),
            "/a?<>".to_owned(),
            "/a?>".to_owned(),
        ])
        .collect();
    for (at, target) in (0_u32..).zip(&targets) {
        assert_eq!(status(&gateway, target.as_bytes()).await, 200, "{target}");
        assert_eq!(app.last().target(), target);
        h2.send(&[Frame::get(2 * at + 1, target)]).await;
        let answer = h2.answer(2 * at + 1).await.unwrap();
        assert_eq!(answer.0, 200, "{target} over HTTP/2");
        assert_eq!(app.last().target(), target, "over HTTP/2");
    }
    let records = gateway.records_of(2 * targets.len()).await;
    assert!(records.iter().all(|record| record["path"] == "/a"));
}

#[tokio::test]
async fn a_target_with_raw_characters_is_judged_as_over_http1() {
    let (app, gateway) = start("limits: {uri_bytes: 200}\n").await;
    let within_limit = format!("/long?{}", "<".repeat(194));
    let beyond_limit = format!("/long?{}", "<".repeat(195));
    let escaped = format!("/long?{}", "%3C".repeat(65));
    let cases: [(&[u8], u16); 19] = [
        (b"/good?{\"a\":1}", 200),
        (b"//good//?<", 200),
        (b"/good\"path?\"", 200),
        (within_limit.as_bytes(), 200),
        (beyond_limit.as_bytes(), 414),
        (escaped.as_bytes(), 414),
        (b"/path?\"#fragment", 400),
        (b"/path#fragment?\"", 400),
        (b"/path?<caf\xc3\xa9>", 400),
        (b"/caf\xc3\xa9?\"", 400),
        (b"/path?\"\xe9", 400),
        (b"/path?\" \"", 400),
        (b"/path?\"\x01", 400),
        (b"/path?\"\x7f", 400),
        (b"/path<?\"", 400),
        (b"/path`?\"", 400),
        (b"/../up?\"", 400),
        (b"no-slash?\"", 400),
        (b"*?\"", 400),
    ];
    let (mut served, mut count) = (Vec::new(), 0);
    for (target, expected) in cases {
        let shown = String::from_utf8_lossy(target).into_owned();
        assert_eq!(status(&gateway, target).await, expected, "{shown}");
        assert_eq!(
            status_h2(&gateway, target).await,
            expected,
            "{shown} over HTTP/2"
        );
        count += 2;
        let records = gateway.records_of(count).await;
        let (one, two) = (&records[count - 2], &records[count - 1]);
        assert_eq!(one["path"], two["path"], "{shown}");
        assert_eq!(one["reason"], two["reason"], "{shown}");
        served.extend(
            [shown.clone(), shown]
                .into_iter()
                .filter(|_| expected == 200),
        );
    }
    let seen: Vec<String> = app.seen().iter().map(|it| it.target().to_owned()).collect();
    assert_eq!(seen, served);
}

#[tokio::test]
async fn a_path_in_the_clients_table_is_the_same_each_time() {
    let (app, gateway) = start("").await;
    let mut h2 = Framed::connect(gateway.address(), &[]).await;
    // `:method` GET, `:scheme` http, and `:authority`, which is entered into the table (RFC 7541 section 6.2.1).
    let first = b"\x82\x86\x41\x0cgateway.test";
    // The same, known by now as the entry before the path's.
    let again = b"\x82\x86\xbf";
    let blocks: [(&[u8], &[u8], &str); 10] = [
        (first, b"\x44\x08/a?\"<>\"b", "/a?\"<>\"b"),
        (again, b"\xbe", "/a?\"<>\"b"),
        (again, b"\xbe", "/a?\"<>\"b"),
        // Not entered, or never to be.
        (again, b"\x04\x04/b?<", "/b?<"),
        (again, b"\x14\x04/c?>", "/c?>"),
        (again, b"\x00\x05:path\x04/d?\"", "/d?\""),
        (again, b"\xbe", "/a?\"<>\"b"),
        // The name of an entry.
        (again, b"\x0f\x2f\x04/e?<", "/e?<"),
        // A smaller table keeps the path alone; then it is empty.
        (
            b"\x3f\x0e\x82\x86\x01\x0cgateway.test",
            b"\xbe",
            "/a?\"<>\"b",
        ),
        (
            b"\x20\x82\x86\x01\x0cgateway.test",
            b"\x04\x04/f?\"",
            "/f?\"",
        ),
    ];
    for (at, (begin, path, target)) in (0_u32..).zip(blocks) {
        let stream = 2 * at + 1;
        let flags = Frame::END_HEADERS | Frame::END_STREAM;
        let head = [begin, path].concat();
        h2.send(&[Frame::new(Frame::HEADERS, flags, stream, head)])
            .await;
        assert_eq!(h2.answer(stream).await.unwrap().0, 200, "{at}: {target}");
        assert_eq!(app.last().target(), target, "{at}");
    }
}

#[tokio::test]
async fn a_head_may_come_in_any_frames_and_pieces() {
    let (app, gateway) = start("").await;
    let target = "/a?q=<\"b\">&c";
    let fields = block(&fields_of("GET", target));
    let end = Frame::END_STREAM;
    let mut heads: Vec<Vec<Frame>> = Vec::new();
    for flags in [0, PADDED, PRIORITY, PADDED | PRIORITY] {
        let mut payload = Vec::new();
        payload.extend((flags & PADDED != 0).then_some(7));
        payload.extend_from_slice(&[0, 0, 0, 0, 9][..if flags & PRIORITY != 0 { 5 } else { 0 }]);
        payload.extend_from_slice(&fields);
        payload.extend_from_slice(&[0; 7][..if flags & PADDED != 0 { 7 } else { 0 }]);
        let flags = flags | end | Frame::END_HEADERS;
        heads.push(vec![Frame::new(Frame::HEADERS, flags, 1, payload)]);
    }
    for at in 0..=fields.len() {
        let (begin, rest) = fields.split_at(at);
        let (middle, last) = rest.split_at(rest.len().min(2));
        heads.push(vec![
            Frame::new(Frame::HEADERS, end, 1, begin),
            Frame::new(Frame::CONTINUATION, 0, 1, middle),
            Frame::new(Frame::CONTINUATION, Frame::END_HEADERS, 1, last),
        ]);
    }
    for (at, mut head) in heads.into_iter().enumerate() {
        // Another request stands behind it, in the same pieces.
        head.push(Frame::get(3, "/behind?\""));
        let bytes: Vec<u8> = head.iter().flat_map(Frame::bytes).collect();
        let mut h2 = Framed::connect(gateway.address(), &[]).await;
        for piece in bytes.chunks([bytes.len(), 1, 13][at % 3]) {
            h2.send_bytes(piece).await;
        }
        let mut answered = 0;
        while answered < 2 {
            let frame = h2.next().await.expect("both are answered");
            assert!(
                matches!(
                    frame.kind,
                    Frame::HEADERS | Frame::DATA | Frame::SETTINGS | Frame::WINDOW_UPDATE
                ),
                "{at}: {frame:?}"
            );
            answered += u32::from(frame.ends_stream());
        }
        let mut seen: Vec<String> = app
            .seen()
            .iter()
            .rev()
            .take(2)
            .map(|it| it.target().to_owned())
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, [target, "/behind?\""], "{at}");
    }
}

#[tokio::test]
async fn many_streams_at_once_keep_their_own_queries() {
    let (app, gateway) = start("limits: {connections: 1000}\n").await;
    let mut h2 = Framed::connect(gateway.address(), &[]).await;
    // More than there may be: the others are refused, and may be sent again.
    let target = |at: u32| format!("/{at}?{}\"{at}<{at}>", "x".repeat(at as usize % 200));
    let heads: Vec<Frame> = (0..600)
        .map(|at| Frame::get(2 * at + 1, &target(at)))
        .collect();
    h2.send(&heads).await;
    let mut ended = 0;
    while ended < 600 {
        let frame = h2.next().await.expect("the connection has ended");
        ended += u32::from(frame.ends_stream() || frame.kind == Frame::RST_STREAM);
    }
    let seen = app.seen();
    assert!(seen.len() >= 128, "{}", seen.len());
    for seen in seen {
        let at = seen.target()[1..].split('?').next().unwrap();
        assert_eq!(seen.target(), target(at.parse().unwrap()));
    }
}

#[tokio::test]
async fn a_block_that_is_interrupted_or_too_long_ends_as_before() {
    let (app, gateway) =
        start("limits: {header_bytes: 4KiB}\ntimeouts: {header_read: 60s}\n").await;
    let fields = block(&fields_of("GET", "/interrupted?\""));
    let begin = Frame::new(Frame::HEADERS, Frame::END_STREAM, 1, fields.clone());
    for rest in [
        vec![Frame::new(Frame::PING, 0, 0, [0; 8])],
        vec![Frame::new(Frame::DATA, 0, 1, b"x")],
        // Far more than fits.
        vec![Frame::new(Frame::CONTINUATION, 0, 1, b"\x00\x01a\x01b".repeat(3_000)); 2],
        vec![Frame::new(Frame::CONTINUATION, 0, 1, []); 10_000],
    ] {
        let mut h2 = Framed::connect(gateway.address(), &[]).await;
        h2.send(std::slice::from_ref(&begin)).await;
        let bytes: Vec<u8> = rest.iter().flat_map(Frame::bytes).collect();
        h2.try_send(&bytes).await.ok();
        let frames = within(Duration::from_secs(20), h2.rest()).await;
        let frames = frames.expect("the connection has ended");
        let goaway = frames.iter().rfind(|frame| frame.kind == Frame::GOAWAY);
        assert!(
            goaway.is_some_and(|frame| frame.codes().1 != 0),
            "{rest:.2?}"
        );
    }
    // A head of one or more frames that is too large is told so.
    let large = "v".repeat(6_000);
    let mut fields = fields_of("GET", "/large?\"").to_vec();
    fields.push(("x-a", large.as_bytes()));
    let fields = block(&fields);
    let (one, two) = fields.split_at(3_000);
    for head in [
        vec![Frame::new(Frame::HEADERS, 5, 1, fields.clone())],
        vec![
            Frame::new(Frame::HEADERS, 1, 1, one),
            Frame::new(Frame::CONTINUATION, 4, 1, two),
        ],
    ] {
        let mut h2 = Framed::connect(gateway.address(), &[]).await;
        h2.send(&head).await;
        h2.send(&[Frame::get(3, "/behind?<")]).await;
        assert_eq!(h2.answer(3).await.unwrap().0, 200);
        let record = eventually("a record", async || {
            let mut records = gateway.records().into_iter();
            records.rfind(|record| record["path"] == "/large")
        })
        .await;
        assert_eq!(record["reason"], json!("head_too_large"));
    }
    assert_eq!(app.requests(), 2);
}

#[tokio::test]
async fn rewrites_and_redirects_get_the_same_query_over_both_protocols() {
    let app = App::echo().await;
    let text = "routes:
  - {path: /short/*, proxy: '@app', auth: none, rewrite: {strip_prefix: /short}}
  - {path: /moved/*, redirect: {to: '/new/{rest}'}}
";
    let gateway = Gateway::start(&config(text, &[("app", &app.url())])).await;
    let mut h2 = Framed::connect(gateway.address(), &[]).await;
    for (at, (target, seen)) in (0_u32..).zip([
        ("/short/x?q=\"<>\"", "/x?q=\"<>\""),
        ("/short?q=\"<>\"", "/?q=\"<>\""),
    ]) {
        h2.send(&[Frame::get(2 * at + 1, target)]).await;
        let over_h2 = h2.answer(2 * at + 1).await.unwrap().0;
        let mut wire = gateway.connect().await;
        wire.send(request("GET", target, &[], "")).await;
        assert_eq!(wire.reply().await.status, over_h2, "{target}");
        if over_h2 == 200 {
            let both = app.seen();
            assert!(
                both.iter().rev().take(2).all(|it| it.target() == seen),
                "{target}"
            );
        }
    }
    let target = "/moved/x?q={\"<>\"}";
    let escaped = "/moved/x?q={%22%3C%3E%22}";
    let reply = gateway.get(target, &[]).await;
    assert_eq!(reply.field("location"), Some("/new/x?q={%22%3C%3E%22}"));
    // Over HTTP/2 it is the same as that of the escaped query: the heads are, unless their dates differ.
    let mut stream = 101;
    eventually("three heads of one second", async || {
        let mut heads = Vec::new();
        for target in [escaped, target, escaped] {
            h2.send(&[Frame::get(stream, target)]).await;
            let head = h2.until(|frame| frame.is(Frame::HEADERS, stream)).await;
            heads.push(head.payload);
            stream += 2;
        }
        (heads[0] == heads[2]).then(|| assert_eq!(heads[0], heads[1]))
    })
    .await;
}
