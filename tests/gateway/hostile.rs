//! The hostile wire: one way to read each message, or a refusal and the end of the connection.
//! Every refused row stands beside an allowed sister.

use super::support::{Answer, App, Gateway, H2, Wire, config, eventually, request};

async fn echo() -> (App, Gateway) {
    let app = App::start(|_| Answer::EchoBody).await;
    let text = config(
        "routes: [{path: /*, proxy: @app, auth: none}]",
        &[("app", &app.url())],
    );
    let gateway = Gateway::start(&text).await;
    (app, gateway)
}

/// A POST of these field lines and this body.
fn post(fields: &[u8], body: &[u8]) -> Vec<u8> {
    [
        b"POST /x HTTP/1.1\r\nHost: a.test\r\n",
        fields,
        b"\r\n",
        body,
    ]
    .concat()
}

/// A request with this in place of its head's first lines.
fn head(lines: &[u8]) -> Vec<u8> {
    [lines, b"\r\n"].concat()
}

/// Sends refused and allowed rows; a refused one must get one of its statuses (or nothing but the
/// end) and be the last on its connection.
async fn check(rows: &[(&str, Vec<u8>, &[u16])]) {
    let (app, gateway) = echo().await;
    let mut failures = Vec::new();
    for (name, bytes, statuses) in rows {
        let before = app.requests();
        let mut wire = gateway.connect().await;
        wire.try_send(bytes).await.ok();
        if !wire.answers().await {
            failures.push(format!("{name}: closed without an answer"));
            continue;
        }
        let reply = wire.reply().await;
        if !statuses.contains(&reply.status) {
            failures.push(format!("{name}: {} instead of {statuses:?}", reply.status));
        }
        if reply.status < 300 {
            continue;
        }
        wire.try_send(request("GET", "/smuggled", &[], ""))
            .await
            .ok();
        let rest = wire.rest().await;
        if !rest.is_empty() {
            failures.push(format!(
                "{name}: {:?} came after it",
                String::from_utf8_lossy(&rest)
            ));
        }
        if app.seen()[before..].iter().any(|seen| seen.complete) {
            failures.push(format!("{name}: the app got a whole request"));
        }
    }
    assert!(
        failures.is_empty(),
        "{} failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[tokio::test]
async fn what_the_gateway_does_not_serve_is_refused_by_it() {
    let lines = |line: &str| head(format!("{line} HTTP/1.1\r\nHost: a.test\r\n").as_bytes());
    check(&[
        ("GET", lines("GET /x"), &[200]),
        ("an unknown method", lines("MKCOL /x"), &[200]),
        ("CONNECT", lines("CONNECT /x"), &[501]),
        (
            "CONNECT of an authority",
            lines("CONNECT a.test:443"),
            &[501],
        ),
        ("TRACE", lines("TRACE /x"), &[501]),
        ("a query", lines("GET /x?a=%3C"), &[200]),
        ("a query with <", lines("GET /x?a=<"), &[200]),
        ("a query with a fragment", lines("GET /x?a=<#b"), &[400]),
        ("a path with <", lines("GET /<"), &[400]),
        ("a path without its slash", lines("GET foo/bar"), &[400]),
        ("a URI without a host", lines("GET http:///x"), &[400]),
    ])
    .await;
}

#[tokio::test]
async fn a_client_of_http_1_0_without_a_host_is_given_one() {
    let (app, gateway) = echo().await;
    let mut wire = gateway.connect().await;
    wire.try_send(b"GET /x HTTP/1.0\r\n\r\n").await.ok();
    assert_eq!(wire.reply().await.status, 200);
    let authority = app.url().replace("http://", "");
    assert_eq!(app.last().field("host"), Some(authority));
}

#[tokio::test]
async fn a_body_has_one_length_or_the_request_is_refused() {
    const NOTHING: &[u8] = b"0\r\n\r\n";
    let chunked = b"Transfer-Encoding: chunked\r\n".as_slice();
    check(&[
        (
            "a Content-Length",
            post(b"Content-Length: 5\r\n", b"12345"),
            &[200],
        ),
        ("chunked", post(chunked, NOTHING), &[200]),
        (
            "Chunked in capitals",
            post(b"Transfer-Encoding: CHUNKED\r\n", NOTHING),
            &[200],
        ),
        (
            "Content-Length, then Transfer-Encoding",
            post(
                b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                NOTHING,
            ),
            &[400],
        ),
        (
            "Transfer-Encoding, then Content-Length",
            post(
                b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
                NOTHING,
            ),
            &[400],
        ),
        (
            "two Content-Lengths",
            post(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"123456"),
            &[400],
        ),
        (
            "two in a list",
            post(b"Content-Length: 5, 6\r\n", b"123456"),
            &[400],
        ),
        (
            "a negative length",
            post(b"Content-Length: -1\r\n", b""),
            &[400],
        ),
        (
            "a plus sign",
            post(b"Content-Length: +5\r\n", b"12345"),
            &[400],
        ),
        (
            "a hexadecimal length",
            post(b"Content-Length: 0x5\r\n", b"12345"),
            &[400],
        ),
        (
            "an empty length",
            post(b"Content-Length: \r\n", b""),
            &[400],
        ),
        (
            "a length past 64 bits",
            post(b"Content-Length: 18446744073709551621\r\n", b"12345"),
            &[400, 413],
        ),
        (
            "gzip",
            post(b"Transfer-Encoding: gzip\r\n", NOTHING),
            &[501],
        ),
        (
            "gzip, chunked",
            post(b"Transfer-Encoding: gzip, chunked\r\n", NOTHING),
            &[501],
        ),
        (
            "chunked twice",
            post(b"Transfer-Encoding: chunked, chunked\r\n", NOTHING),
            &[400],
        ),
        (
            "chunked on two lines",
            post(&[chunked, chunked].concat(), NOTHING),
            &[400],
        ),
        (
            "chunked not last",
            post(b"Transfer-Encoding: chunked, gzip\r\n", NOTHING),
            &[400, 501],
        ),
        (
            "an empty coding",
            post(b"Transfer-Encoding: \r\n", NOTHING),
            &[400, 501],
        ),
        (
            "a hidden chunked",
            post(b"Transfer-Encoding: \x0bchunked\r\n", NOTHING),
            &[400, 501],
        ),
        (
            "chunked in HTTP/1.0",
            [
                b"POST /x HTTP/1.0\r\nHost: a.test\r\n",
                chunked,
                b"\r\n",
                NOTHING,
            ]
            .concat(),
            &[400],
        ),
    ])
    .await;
}

#[tokio::test]
async fn chunks_are_read_in_one_way() {
    let chunks = |body: &[u8]| post(b"Transfer-Encoding: chunked\r\n", body);
    check(&[
        ("one chunk", chunks(b"5\r\n12345\r\n0\r\n\r\n"), &[200]),
        (
            "capital digits",
            chunks(b"A\r\n1234567890\r\n0\r\n\r\n"),
            &[200],
        ),
        (
            "an extension",
            chunks(b"5;a=b\r\n12345\r\n0\r\n\r\n"),
            &[200],
        ),
        (
            "a size past 64 bits",
            chunks(b"10000000000000005\r\n12345\r\n0\r\n\r\n"),
            &[400, 413],
        ),
        ("a prefix", chunks(b"0x5\r\n12345\r\n0\r\n\r\n"), &[400]),
        ("a sign", chunks(b"+5\r\n12345\r\n0\r\n\r\n"), &[400]),
        ("an empty size", chunks(b"\r\n12345\r\n0\r\n\r\n"), &[400]),
        (
            "junk behind the size",
            chunks(b"5 x\r\n12345\r\n0\r\n\r\n"),
            &[400],
        ),
        (
            "a space before the size",
            chunks(b" 5\r\n12345\r\n0\r\n\r\n"),
            &[400],
        ),
        (
            "a size ended by LF",
            chunks(b"5\n12345\r\n0\r\n\r\n"),
            &[400],
        ),
        (
            "a size ended by CR",
            chunks(b"5\r12345\r\n0\r\n\r\n"),
            &[400],
        ),
        (
            "an LF in an extension",
            chunks(b"5;a\nb\r\n12345\r\n0\r\n\r\n"),
            &[400],
        ),
        (
            "data without its CRLF",
            chunks(b"5\r\n123456\r\n0\r\n\r\n"),
            &[400],
        ),
        ("a trailer", chunks(b"0\r\nX-Sum: 1\r\n\r\n"), &[200]),
        (
            "a trailer without a colon",
            chunks(b"0\r\nX-Sum\r\n\r\n"),
            &[400],
        ),
    ])
    .await;
}

#[tokio::test]
async fn lines_and_fields_are_read_in_one_way() {
    let with = |line: &[u8]| head(&[b"GET / HTTP/1.1\r\nHost: a.test\r\n", line, b"\r\n"].concat());
    check(&[
        ("a plain field", with(b"X-A: b"), &[200]),
        ("no white space", with(b"X-A:b"), &[200]),
        (
            "a tab and high bytes in a value",
            with(b"X-A: b\tc\xe9"),
            &[200],
        ),
        ("an empty value", with(b"X-A:"), &[200]),
        ("a space before the colon", with(b"X-A : b"), &[400]),
        ("a tab before the colon", with(b"X-A\t: b"), &[400]),
        ("a folded line", with(b"X-A: b\r\n c"), &[400]),
        (
            "a folded first line",
            head(b"GET / HTTP/1.1\r\n Host: a.test\r\n"),
            &[400],
        ),
        ("a field ended by LF", with(b"X-A: b\nX-B: c"), &[400]),
        ("a bare CR", with(b"X-A: b\rc"), &[400]),
        ("NUL", with(b"X-A: b\0c"), &[400]),
        ("a control character", with(b"X-A: b\x01c"), &[400]),
        ("DEL", with(b"X-A: b\x7fc"), &[400]),
        ("no colon", with(b"X-A"), &[400]),
        ("an empty name", with(b": b"), &[400]),
        ("a name with a parenthesis", with(b"X(A): b"), &[400]),
        ("a name with a high byte", with(b"X-\xe9: b"), &[400]),
        (
            "a request line ended by LF",
            head(b"GET / HTTP/1.1\nHost: a.test\r\n"),
            &[400],
        ),
        (
            "two spaces",
            head(b"GET  / HTTP/1.1\r\nHost: a.test\r\n"),
            &[400],
        ),
        (
            "a space at the end",
            head(b"GET / HTTP/1.1 \r\nHost: a.test\r\n"),
            &[400],
        ),
        (
            "a space in the target",
            head(b"GET /a b HTTP/1.1\r\nHost: a.test\r\n"),
            &[400],
        ),
        (
            "a control character in the target",
            head(b"GET /\x01 HTTP/1.1\r\nHost: a.test\r\n"),
            &[400],
        ),
        (
            "a small http",
            head(b"GET / http/1.1\r\nHost: a.test\r\n"),
            &[400, 505],
        ),
        (
            "another version",
            head(b"GET / HTTP/3.7\r\nHost: a.test\r\n"),
            &[400, 505],
        ),
        (
            "a strange method",
            head(b"G(T / HTTP/1.1\r\nHost: a.test\r\n"),
            &[400],
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_request_names_exactly_one_host() {
    check(&[
        (
            "a host",
            head(b"GET / HTTP/1.1\r\nHost: a.test\r\n"),
            &[200],
        ),
        (
            "a host with a port",
            head(b"GET / HTTP/1.1\r\nHost: a.test:80\r\n"),
            &[200],
        ),
        (
            "an address",
            head(b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n"),
            &[200],
        ),
        (
            "the same in the target",
            head(b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n"),
            &[200],
        ),
        ("none", head(b"GET / HTTP/1.1\r\nX-A: b\r\n"), &[400]),
        ("an empty one", head(b"GET / HTTP/1.1\r\nHost:\r\n"), &[400]),
        (
            "two",
            head(b"GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n"),
            &[400],
        ),
        (
            "the same twice",
            head(b"GET / HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n"),
            &[400],
        ),
        (
            "a list",
            head(b"GET / HTTP/1.1\r\nHost: a.test, b.test\r\n"),
            &[400],
        ),
        (
            "a path",
            head(b"GET / HTTP/1.1\r\nHost: a.test/b\r\n"),
            &[400],
        ),
        (
            "a user",
            head(b"GET / HTTP/1.1\r\nHost: me@a.test\r\n"),
            &[400],
        ),
        (
            "a strange port",
            head(b"GET / HTTP/1.1\r\nHost: a.test:80x\r\n"),
            &[400],
        ),
        (
            "another in the target",
            head(b"GET http://b.test/ HTTP/1.1\r\nHost: a.test\r\n"),
            &[400],
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_bad_request_behind_a_good_one_is_refused_in_its_turn() {
    let (app, gateway) = echo().await;
    let mut wire = gateway.connect().await;
    let good = request("GET", "/good", &[], "");
    let bad = request("GET", "/bad", &[("X-A ", "b")], "");
    wire.send([&good[..], &bad, &good].concat()).await;

    assert_eq!(wire.reply().await.status, 200);
    assert_eq!(wire.reply().await.status, 400);
    wire.closed().await;
    assert_eq!(app.requests(), 1);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (_app, gateway) = echo().await;
    let mut wire = gateway.connect().await;
    let all = ["one", "two", "three"]
        .map(|body| request("POST", "/x", &[], body))
        .concat();
    wire.send(all).await;

    for body in ["one", "two", "three"] {
        assert_eq!(wire.reply().await.text(), body);
    }
}

#[tokio::test]
async fn a_refusal_is_a_problem_document_and_an_access_record() {
    let (_app, gateway) = echo().await;
    let mut wire = gateway.connect().await;
    wire.send("GET /lines HTTP/1.1\r\nHost: a.test\r\nX-A : b\r\n\r\n")
        .await;
    let reply = wire.reply().await;

    assert_eq!(reply.status, 400);
    assert_eq!(reply.field("connection"), Some("close"));
    assert_eq!(
        reply.field("content-type"),
        Some("application/problem+json")
    );
    let problem: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(problem["status"], 400);
    eventually("the record", async || {
        gateway
            .records()
            .into_iter()
            .find(|record| record["reason"] == "bad_request")
    })
    .await;
}

#[tokio::test]
async fn garbage_and_a_half_closed_client_harm_nobody() {
    let (_app, gateway) = echo().await;
    for garbage in [
        b"\x16\x03\x01\x02\x00".as_slice(),
        b"\r\n\r\n\r\n\r\n",
        &[0xff; 4096],
        b"GET",
    ] {
        let mut wire = gateway.connect().await;
        wire.try_send(garbage).await.ok();
        wire.finish().await;
        wire.rest().await;
    }
    // A client that ends its side may have left; it is answered, or the connection ends.
    let mut wire = gateway.connect().await;
    wire.send(request("POST", "/x", &[], "whole")).await;
    wire.finish().await;
    let rest = String::from_utf8(wire.rest().await).unwrap();
    assert!(rest.is_empty() || rest.ends_with("whole"), "{rest}");
    assert_eq!(gateway.get("/good", &[]).await.status, 200);
}

#[tokio::test]
async fn a_name_with_an_underscore_does_not_shadow_what_frames_a_body() {
    let (app, gateway) = echo().await;
    let fields = [
        ("Content_Length", "3"),
        ("Transfer_Encoding", "chunked"),
        ("X_Mine", "goes"),
    ];
    let mut wire = gateway.connect().await;
    wire.send(request("POST", "/x", &fields, "body")).await;

    assert_eq!(wire.reply().await.text(), "body");
    let seen = app.last();
    assert_eq!(
        (
            seen.field("content_length"),
            seen.field("transfer_encoding")
        ),
        (None, None)
    );
    assert_eq!(seen.field("x_mine"), None);
}

#[tokio::test]
async fn an_http2_request_cannot_carry_fields_of_a_connection() {
    let (app, gateway) = echo().await;
    let mut client = H2::connect(gateway.address()).await;
    assert_eq!(client.get("/good", &[("te", "trailers")]).await.status, 200);

    // hyper's client leaves such fields out, so the frames are written by hand.
    let mut wire = Wire::connect(gateway.address()).await;
    wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await;
    wire.send(headers_frame(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "gateway.test"),
        (":path", "/bad"),
        ("transfer-encoding", "chunked"),
    ]))
    .await;
    wire.finish().await;
    wire.rest().await;
    assert!(app.seen().iter().all(|seen| seen.target() != "/bad"));
}

/// A HEADERS frame of stream 1 that ends the stream; every field is written out (RFC 7541 6.2.2).
fn headers_frame(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    let length = u8::try_from(block.len()).unwrap();
    [&[0, 0, length, 1, 0x5, 0, 0, 0, 1][..], &block].concat()
}
