//! Servers that are taken out after failures: when, for how long, who stays, and how they come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::support::{Answer, App, Folder, Gateway, Seen, config, eventually, request, run_to_end};

/// How an app responds.
type Script = fn(&Seen) -> Answer;

fn text(apps: &[&App], settings: &str) -> String {
    let servers: Vec<String> = apps.iter().map(|app| format!("'{}'", app.url())).collect();
    let text = format!(
        "workers: 1\nupstreams: {{app: {{servers: [{}], {settings}}}}}\n\
         routes: [{{path: /*, proxy: app, auth: none}}]\n",
        servers.join(", ")
    );
    config(&text, &[])
}

async fn start(apps: &[&App], settings: &str) -> Gateway {
    Gateway::start(&text(apps, settings)).await
}

/// An app that fails in this way as long as the switch is on.
async fn faulty(fails: fn(&Seen) -> Answer) -> (App, Arc<AtomicBool>) {
    let switch = Arc::new(AtomicBool::new(true));
    let is_on = Arc::clone(&switch);
    let app = App::start(move |seen| match is_on.load(Ordering::SeqCst) {
        true => fails(seen),
        false => Answer::Ok("ok"),
    })
    .await;
    (app, switch)
}

async fn good() -> App {
    App::start(|_| Answer::Ok("ok")).await
}

/// So many requests, one after the other.
async fn send(gateway: &Gateway, method: &str, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        let mut wire = gateway.connect().await;
        wire.send(request(method, "/", &[], "")).await;
        statuses.push(wire.reply().await.status);
    }
    statuses
}

#[tokio::test]
async fn each_failure_takes_a_server_out_if_it_counts() {
    fn busy(_: &Seen) -> Answer {
        Answer::Raw(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".into())
    }
    fn error(_: &Seen) -> Answer {
        Answer::Raw(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n".into())
    }
    let cases: [(&str, Script, &str, bool); 7] = [
        ("broken", |_| Answer::Close, "", true),
        (
            "invalid",
            |_| Answer::RawThenClose(b"nonsense\r\n\r\n".into()),
            "",
            true,
        ),
        ("timeout", |_| Answer::Silent, "", true),
        ("503", busy, "", false),
        ("503", busy, ", on: ['503']", true),
        ("500", error, "", false),
        (
            "broken",
            |_| Answer::Close,
            ", on: [connect_failure]",
            false,
        ),
    ];
    for (failure, fails, on, counts) in cases {
        let ((bad, _), good) = (faulty(fails).await, good().await);
        let settings =
            format!("timeouts: {{response: 200ms}}, eject: {{consecutive_failures: 3{on}}}");
        let gateway = start(&[&bad, &good], &settings).await;
        send(&gateway, "GET", 12).await;
        let expected = if counts { 3 } else { 6 };
        assert_eq!(bad.requests(), expected, "{failure}{on}");
        let log = gateway.stderr();
        assert_eq!(
            log.matches("the server is taken out, 1 of 2 left").count(),
            usize::from(counts),
            "{log}"
        );
        assert_eq!(log.contains(&format!("failure={failure}")), counts, "{log}");
    }
}

#[tokio::test]
async fn failures_that_are_not_in_a_row_do_not_count() {
    let app = App::start(|seen| match seen.target() {
        "/bad" => Answer::Close,
        _ => Answer::Ok("ok"),
    })
    .await;
    let other = App::start(|_| Answer::Ok("ok")).await;
    let gateway = start(&[&app, &other], "eject: {consecutive_failures: 3}").await;
    for _ in 0..5 {
        for target in ["/bad", "/bad", "/bad", "/bad", "/good", "/good"] {
            gateway.get(target, &[]).await;
        }
    }
    assert!(!gateway.stderr().contains("taken out"));
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_left_alone_and_found_again() {
    let (a, b) = (good().await, good().await);
    let port = a.port();
    let gateway = start(&[&a, &b], "eject: {consecutive_failures: 3, for: 300ms}").await;
    assert_eq!(send(&gateway, "GET", 4).await, [200; 4]);
    a.stop().await;
    // No client sees it: what was not sent goes elsewhere.
    assert_eq!(send(&gateway, "POST", 12).await, [200; 12]);
    assert!(
        gateway
            .stderr()
            .contains("the server is taken out, 1 of 2 left")
    );

    let a = App::start_on(port, |_| Answer::Ok("ok")).await;
    eventually("the server's return", async || {
        assert_eq!(send(&gateway, "GET", 1).await, [200]);
        gateway
            .stderr()
            .contains("the server is back, 2 of 2")
            .then_some(())
    })
    .await;
    let before = a.requests();
    assert_eq!(send(&gateway, "GET", 4).await, [200; 4]);
    assert_eq!(a.requests(), before + 2, "its turns are as before");
}

#[tokio::test]
async fn one_request_tries_whether_a_server_is_back_and_each_time_is_longer() {
    let ((bad, switch), good) = (faulty(|_| Answer::Close).await, good().await);
    let settings = "retries: {on: [broken], budget: 100%}, eject: {consecutive_failures: 2, for: 400ms, longest: 1h}";
    let gateway = start(&[&bad, &good], settings).await;
    eventually("the ejection", async || {
        assert_eq!(send(&gateway, "GET", 1).await, [200]);
        gateway.stderr().contains("taken out").then_some(())
    })
    .await;
    // The pause is what is tested: after it, one try a period.
    let before = bad.requests();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(
        send(&gateway, "GET", 5).await,
        [200; 5],
        "the try itself is tried again elsewhere"
    );
    assert_eq!(bad.requests(), before + 1);
    let log = gateway.stderr();
    assert!(
        log.contains("for=400ms") && log.contains("for=800ms"),
        "{log}"
    );

    switch.store(false, Ordering::SeqCst);
    eventually("the return", async || {
        assert_eq!(send(&gateway, "GET", 1).await, [200]);
        gateway
            .stderr()
            .contains("the server is back, 2 of 2")
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn somebody_stays_and_who_is_out_is_tried_last() {
    let ((a, a_fails), (b, b_fails)) = (
        faulty(|_| Answer::Close).await,
        faulty(|_| Answer::Close).await,
    );
    let settings = "retries: {on: [broken], budget: 100%}, eject: {consecutive_failures: 2, for: 1h, longest: 1h}";
    let gateway = start(&[&a, &b], settings).await;
    send(&gateway, "GET", 10).await;
    let log = gateway.stderr();
    assert_eq!(log.matches("is taken out").count(), 1, "{log}");
    assert_eq!(log.matches("is not taken out").count(), 1, "{log}");

    // The one that is out answers again: it is found, because the other one fails.
    let is_a_out = log.contains(&format!("endpoint={} failure=broken for=", a.url()));
    let back = if is_a_out { a_fails } else { b_fails };
    back.store(false, Ordering::SeqCst);
    assert_eq!(send(&gateway, "GET", 4).await, [200; 4]);
    assert!(gateway.stderr().contains("the server is back"));
}

#[tokio::test]
async fn a_reload_keeps_who_is_out_until_ejection_is_off() {
    let ((bad, _), good) = (faulty(|_| Answer::Close).await, good().await);
    let apps = [&bad, &good];
    let gateway = start(
        &apps,
        "eject: {consecutive_failures: 2, for: 1h, longest: 1h}",
    )
    .await;
    send(&gateway, "GET", 8).await;
    assert_eq!(bad.requests(), 2);
    gateway
        .reconfigure(&text(
            &apps,
            "balance: least_requests, eject: {consecutive_failures: 9, longest: 1h}",
        ))
        .await;
    assert_eq!(send(&gateway, "GET", 6).await, [200; 6]);
    assert_eq!(bad.requests(), 2);
    gateway.reconfigure(&text(&apps, "eject: off")).await;
    send(&gateway, "GET", 4).await;
    assert_eq!(bad.requests(), 4);
}

#[test]
fn ejections_that_make_no_sense_are_errors() {
    let check = |settings: &str| {
        let folder = Folder::new();
        let text = format!(
            "upstreams: {{app: {{servers: ['http://127.0.0.1:8', 'http://127.0.0.1:9'], {settings}}}}}\n\
             routes: [{{path: /*, proxy: app, auth: none}}]\n"
        );
        folder.write("gateway.yaml", config(&text, &[]));
        let output = run_to_end(&folder, &["check"], &[]);
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    for (settings, said) in [
        (
            "eject: {consecutive_failures: 0}",
            "a number from 1 to 1000",
        ),
        ("eject: {for: 10m}", "`longest` is shorter than `for`"),
        ("eject: {on: ['500']}", "statuses are 429, 502, 503 and 504"),
        ("eject: {most: 50}", "percentages are 20%"),
        ("eject: {max: 50%}", "unknown key `max`"),
        ("eject: no", "expected `off` or a map"),
    ] {
        let (code, errors) = check(settings);
        assert_eq!(code, Some(2), "{settings}: {errors}");
        assert!(errors.contains(said), "{settings}: {errors}");
    }
}
