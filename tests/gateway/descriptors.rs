//! The process's file descriptors: whatever clients do with apps, some are left for other clients.

use std::time::Duration;

use super::support::{Answer, App, Frame, Framed, Gateway, H2, config, eventually, within};

#[tokio::test]
async fn requests_to_silent_apps_leave_descriptors_to_other_clients() {
    let app = App::start(|seen| match seen.target() {
        target if target.starts_with("/silent") => Answer::Silent,
        _ => Answer::Ok("ok"),
    })
    .await;
    let text = "workers: 1\nroutes:\n\
        - {path: /ping, respond: {body: pong}}\n\
        - {path: /*, proxy: '@app', auth: none}\n";
    let text = config(text, &[("app", &app.url())]);
    let gateway = Gateway::start_with_descriptors(&text, 256).await;
    // Clients that have been idle for more than a second, and one that has a request in flight.
    let mut idle = Vec::new();
    for _ in 0..20 {
        let mut wire = gateway.connect().await;
        assert_eq!(wire.get("/ping", &[]).await.text(), "pong");
        idle.push(wire);
    }
    let mut idle_h2 = tokio::task::JoinSet::new();
    for at in 0..9 {
        let mut h2 = Framed::connect(gateway.address(), &[]).await;
        h2.send(&[Frame::get(1, "/ping")]).await;
        assert_eq!(h2.answer(1).await.unwrap().1, b"pong");
        idle_h2.spawn(is_sent_away(h2, at > 0));
    }
    let mut busy = Framed::connect(gateway.address(), &[]).await;
    busy.send(&[Frame::get(1, "/silent/busy")]).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;

    let mut crowd = tokio::task::JoinSet::new();
    for connection in 0..3 {
        let client = H2::connect(gateway.address()).await;
        for stream in 0..100 {
            let mut client = client.clone();
            let target = format!("/silent/{connection}/{stream}");
            crowd.spawn(
                async move { within(Duration::from_secs(8), client.get(&target, &[])).await },
            );
        }
    }
    eventually("refusals for want of descriptors", async || {
        let refused = gateway.records();
        let refused = refused
            .iter()
            .filter(|record| record["reason"] == "upstream_busy" && record["status"] == 503);
        (refused.count() >= 50).then_some(())
    })
    .await;
    assert_eq!(gateway.get("/ping", &[]).await.text(), "pong");
    // 69 are kept back, and the program has some of its own.
    assert!((100..187).contains(&app.requests()), "{}", app.requests());
    for wire in &mut idle {
        assert!(!wire.fill().await, "an idle client's connection is closed");
    }
    idle_h2.join_all().await;
    // A client whose request is still answered is not idle.
    busy.send(&[Frame::new(Frame::PING, 0, 0, [7; 8])]).await;
    let heard = busy
        .until(|frame| frame.kind == Frame::GOAWAY || frame.payload == [7; 8])
        .await;
    assert_eq!(heard.kind, Frame::PING);
    drop(crowd);
    // The clients are gone, and so are their connections to the app.
    gateway.answers("/quick", 200, "ok").await;
}

/// An idle connection of HTTP/2 ends in an orderly way: what is sent before the client has heard of it is answered.
async fn is_sent_away(mut h2: Framed, hears: bool) {
    let left = h2.until(|frame| frame.kind == Frame::GOAWAY).await;
    assert_eq!(left.codes(), (u32::MAX >> 1, 0));
    if !hears {
        // A client that says nothing more is not waited for.
        h2.rest().await;
        return;
    }
    let asked = h2.until(|frame| frame.kind == Frame::PING).await;
    let heard = Frame::new(Frame::PING, 1, 0, asked.payload);
    h2.send(&[Frame::get(3, "/ping"), heard]).await;
    assert_eq!(h2.answer(3).await.unwrap().1, b"pong");
    h2.rest().await;
}
