//! HTTP/2 beside HTTP/1.1: one request is judged alike over both, and what a hostile client can do with frames alone.

use super::support::{
    App, Frame, Framed, Gateway, config, fields_of, request,
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

