//! HTTP/2 beside HTTP/1.1: one request is judged alike over both, and what a hostile client can do with frames alone.

use super::support::{
    App, Authority, Folder, Frame, Framed, Gateway, H2, Wire, config, fields_of, request,
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
async fn a_token_among_many_cookies_is_found() {
    let app = App::echo().await;
    let text = "jwt:\n  app: {algorithms: [HS256], secret: 0123456789abcdef0123456789abcdef, from: ['cookie:at']}\n\
        routes: [{path: /*, proxy: '@app', auth: app}]\n";
    let gateway = Gateway::start(&config(text, &[("app", &app.url())])).await;
    let mut h2 = H2::connect(gateway.address()).await;
    // One cookie of that name said twice is one field with two: the same over both protocols.
    let twice = [("cookie", "at=a"), ("cookie", "b=1"), ("cookie", "at=b")];
    let two = h2.get("/", &twice).await;
    let one = gateway.get("/", &[("Cookie", "at=a; b=1; at=b")]).await;
    assert_eq!(two.status, one.status);
    assert_eq!(two.field("www-authenticate"), one.field("www-authenticate"));
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
