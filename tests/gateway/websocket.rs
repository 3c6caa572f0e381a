//! Upgrades: a tunnel after the token check, and never before it.

use serde_json::json;

use super::support::{Answer, App, Gateway, Kind, Wire, config, eventually, key, request, token};

const UPGRADE: &[(&str, &str)] = &[
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

async fn start(app: &App) -> Gateway {
    let text = "jwt: {app: {algorithms: [HS256], secret: '@secret'}}
upstreams: {buffered: {servers: ['@app'], buffer: {request: 64KiB, response: 64KiB}}}
routes:
  - {path: /live, proxy: '@app', auth: app}
  - {path: /buffered, proxy: buffered, auth: app}
";
    let secret = &key(Kind::Secret, 0).public;
    Gateway::start(&config(text, &[("secret", secret), ("app", &app.url())])).await
}

async fn upgrade(gateway: &Gateway, path: &str, fields: &[(&str, &str)]) -> Wire {
    let mut wire = gateway.connect().await;
    wire.send(request("GET", path, &[UPGRADE, fields].concat(), ""))
        .await;
    wire
}

#[tokio::test]
async fn a_tunnel_opens_for_a_token_and_carries_every_byte() {
    let app = App::start(|_| Answer::Upgrade).await;
    let gateway = start(&app).await;
    let value = format!("Bearer {}", token(json!({})));
    for path in ["/live", "/buffered"] {
        let mut wire = upgrade(&gateway, path, &[("Authorization", &value)]).await;
        let reply = wire.head().await;
        assert_eq!(reply.status, 101);
        assert_eq!(
            reply.field("upgrade").map(str::to_lowercase).as_deref(),
            Some("websocket")
        );
        assert_eq!(
            reply.field("sec-websocket-accept"),
            Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        for frame in [
            b"\x81\x05hello".as_slice(),
            b"\0\xff\r\n\r\n",
            &[7; 100_000],
        ] {
            wire.send(frame).await;
            assert!(wire.take(frame.len()).await == frame);
        }
        let seen = app.last();
        assert_eq!(seen.field("upgrade").as_deref(), Some("websocket"));
        assert_eq!(seen.field("connection").unwrap().to_lowercase(), "upgrade");
        drop(wire);
        app.saw(path, |seen| seen.gone).await;
        assert_eq!(gateway.record(path).await["status"], 101);
    }
}

#[tokio::test]
async fn without_a_good_token_no_tunnel_is_opened_and_the_app_hears_nothing() {
    let app = App::start(|_| Answer::Upgrade).await;
    let gateway = start(&app).await;
    let expired = format!("Bearer {}", token(json!({"exp": 1})));
    for fields in [vec![], vec![("Authorization", expired.as_str())]] {
        let mut wire = upgrade(&gateway, "/live", &fields).await;
        assert_eq!(wire.reply().await.status, 401);
    }
    assert!(app.seen().is_empty());
}

#[tokio::test]
async fn an_app_may_refuse_the_upgrade() {
    let app = App::start(|_| Answer::Ok("no tunnel here")).await;
    let gateway = start(&app).await;
    let value = format!("Bearer {}", token(json!({})));
    let mut wire = upgrade(&gateway, "/live", &[("Authorization", &value)]).await;
    let reply = wire.reply().await;
    assert_eq!(
        (reply.status, reply.text().as_str()),
        (200, "no tunnel here")
    );
}

#[tokio::test]
async fn the_end_of_the_apps_side_ends_the_tunnel() {
    let app = App::start(|_| Answer::Upgrade).await;
    let gateway = start(&app).await;
    let value = format!("Bearer {}", token(json!({})));
    let mut wire = upgrade(&gateway, "/live", &[("Authorization", &value)]).await;
    assert_eq!(wire.head().await.status, 101);
    app.stop().await;
    wire.closed().await;
}

#[tokio::test]
async fn bytes_behind_the_upgrade_request_are_the_tunnels_first() {
    let app = App::start(|_| Answer::Upgrade).await;
    let gateway = start(&app).await;
    let value = format!("Bearer {}", token(json!({})));
    let fields = [UPGRADE, &[("Authorization", value.as_str())]].concat();
    let mut wire = gateway.connect().await;
    wire.send([&request("GET", "/live", &fields, "")[..], b"early"].concat())
        .await;
    assert_eq!(wire.head().await.status, 101);
    assert_eq!(wire.take(5).await, b"early");
    eventually("one request", async || (app.requests() == 1).then_some(())).await;
}
