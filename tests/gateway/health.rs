//! Health checks: what is sent, who is taken out and comes back, what requests get while nobody is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::support::{
    Answer, App, Folder, Gateway, config, eventually, free_port, request, run_to_end,
};

/// An app whose `/healthz` has a status that can be changed, and is seen on connections of its own.
struct Checked {
    app: App,
    status: Arc<AtomicU16>,
}

impl Checked {
    async fn start(status: u16) -> Self {
        let status = Arc::new(AtomicU16::new(status));
        let shared = Arc::clone(&status);
        let app = App::start(move |seen| {
            if !seen.target().starts_with("/healthz") {
                return Answer::Ok("ok");
            }
            let status = shared.load(Ordering::SeqCst);
            let location = if status == 301 {
                "Location: https://x/\r\n"
            } else {
                ""
            };
            let answer =
                format!("HTTP/1.1 {status} Said\r\n{location}Content-Length: 5\r\n\r\nwell!");
            Answer::Raw(answer.into_bytes())
        })
        .await;
        Self { app, status }
    }

    fn set(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    fn checks(&self) -> usize {
        let seen = self.app.seen();
        seen.iter()
            .filter(|seen| seen.target().starts_with("/healthz"))
            .count()
    }

    fn requests(&self) -> usize {
        self.app.requests() - self.checks()
    }

    /// Waits for so many more checks.
    async fn checked(&self, more: usize) {
        let before = self.checks();
        eventually("checks", async || {
            (self.checks() >= before + more).then_some(())
        })
        .await;
    }
}

fn text(workers: usize, settings: &str, apps: &[&Checked]) -> String {
    let urls: Vec<String> = apps
        .iter()
        .map(|it| format!("'{}'", it.app.url()))
        .collect();
    let text = format!(
        "workers: {workers}\nupstreams: {{app: {{servers: [{}], {settings}}}}}\n\
         routes: [{{path: /*, proxy: app, auth: none}}]\n",
        urls.join(", ")
    );
    config(&text, &[])
}

const QUICK: &str = "interval: 100ms, timeout: 100ms";

/// The lines of the log that say something of a health check.
fn said(gateway: &Gateway) -> Vec<String> {
    let log = gateway.stderr();
    let lines = log.lines().filter(|line| line.contains("health check of"));
    lines.map(str::to_owned).collect()
}

async fn says(gateway: &Gateway, what: &str) {
    eventually(what, async || {
        said(gateway)
            .iter()
            .any(|line| line.contains(what))
            .then_some(())
    })
    .await;
}

async fn get(gateway: &Gateway, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(gateway.get("/", &[]).await.status);
    }
    statuses
}

#[tokio::test]
async fn a_server_that_fails_gets_no_requests_until_it_passes() {
    let (a, b) = (Checked::start(200).await, Checked::start(200).await);
    let settings = format!("health: {{path: /healthz, {QUICK}}}");
    let gateway = Gateway::start(&text(2, &settings, &[&a, &b])).await;
    a.checked(3).await;
    assert_eq!(get(&gateway, 10).await, [200; 10]);
    assert!(a.requests() > 0 && b.requests() > 0);
    assert_eq!(said(&gateway), [""; 0], "nothing has changed");

    a.set(500);
    let url = a.app.url();
    says(
        &gateway,
        &format!("health check of {url}: 500, expected 200-399, 3 times; taken out, 1 of 2 left"),
    )
    .await;
    let before = a.requests();
    assert_eq!(get(&gateway, 10).await, [200; 10]);
    assert_eq!(a.requests(), before);

    a.set(204);
    says(&gateway, &format!("{url}: passed, 2 times; back, 2 of 2")).await;
    eventually("a request", async || {
        get(&gateway, 1).await;
        (a.requests() > before).then_some(())
    })
    .await;
    assert_eq!(said(&gateway).len(), 2, "a line at each change");
}

#[tokio::test]
async fn the_first_check_decides_and_nothing_waits_for_it() {
    let (a, b) = (Checked::start(503).await, Checked::start(200).await);
    let settings = "health: {path: /healthz, interval: 1h}";
    let gateway = Gateway::start(&text(1, settings, &[&a, &b])).await;
    says(&gateway, "503, expected 200-399; taken out, 1 of 2 left").await;
    assert_eq!(get(&gateway, 6).await, [200; 6]);
    assert_eq!((a.checks(), b.checks(), a.requests()), (1, 1, 0));

    // One that swallows its check serves until the check has failed.
    let silent = App::start(|seen| match seen.target() {
        "/healthz" => Answer::Silent,
        _ => Answer::Ok("ok"),
    })
    .await;
    let text = "upstreams: {app: {servers: ['@app'], health: {path: /healthz, interval: 1h, timeout: 2s}}}\n\
                routes: [{path: /*, proxy: app, auth: none}]\n";
    let gateway = Gateway::start(&config(text, &[("app", &silent.url())])).await;
    silent.saw("/healthz", |_| true).await;
    assert_eq!(get(&gateway, 2).await, [200; 2]);
    says(&gateway, "no response within 2s; taken out, 0 of 1 left").await;
    let reply = gateway.get("/", &[]).await;
    assert_eq!(
        (reply.status, reply.field("retry-after")),
        (503, Some("3600"))
    );
}

#[tokio::test]
async fn a_check_is_what_the_configuration_says_and_nothing_of_a_client() {
    let checked = Checked::start(200).await;
    let settings = format!(
        "health: {{path: '/healthz?deep=1', method: OPTIONS, host: app.example, \
         headers: {{X-Forwarded-Proto: https}}, {QUICK}}}"
    );
    let gateway = Gateway::start(&text(1, &settings, &[&checked])).await;
    checked.checked(3).await;
    assert_eq!(get(&gateway, 1).await, [200]);
    checked.checked(1).await;
    let seen = checked.app.seen();
    let checks: Vec<_> = seen
        .iter()
        .filter(|seen| seen.target().starts_with("/healthz"))
        .collect();
    for check in &checks {
        let mut lines: Vec<&str> = check.head.lines().collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                "OPTIONS /healthz?deep=1 HTTP/1.1",
                "connection: close",
                "host: app.example",
                "user-agent: portcullis-health",
                "x-forwarded-proto: https",
            ]
        );
        assert_eq!(check.nth, 0, "a connection of its own");
    }
    let gets = seen.iter().filter(|seen| seen.target() == "/").count();
    assert_eq!(gets, 1);
    drop(gateway);

    let settings = format!("health: {{path: /healthz, {QUICK}}}");
    let gateway = Gateway::start(&text(1, &settings, &[&checked])).await;
    checked.checked(2).await;
    let host = checked.app.seen().pop().unwrap().field("host");
    assert_eq!(host.unwrap(), format!("127.0.0.1:{}", checked.app.port()));
    drop(gateway);
}

#[tokio::test]
async fn statuses_and_bodies_pass_as_they_are_named_and_common_faults_have_hints() {
    for (settings, status, passes, what) in [
        ("path: /healthz", 301, true, ""),
        (
            "path: /healthz, status: [200-299]",
            301,
            false,
            "301, expected 200-299; taken out, 0 of 1 left (the app redirects",
        ),
        (
            "path: /healthz",
            400,
            false,
            "400, expected 200-399; taken out, 0 of 1 left (the app may not know the check's Host",
        ),
        ("path: /healthz, status: [200, 400-404]", 404, true, ""),
        (
            "path: /healthz, status: [200, 400-404]",
            201,
            false,
            "201, expected 200, 400-404",
        ),
        ("path: /healthz, body: well", 200, true, ""),
        (
            "path: /healthz, body: ill",
            200,
            false,
            "the body has no \"ill\" in its first 64 KiB",
        ),
        ("path: /healthz, method: HEAD", 200, true, ""),
        ("tcp: true", 500, true, ""),
    ] {
        let checked = Checked::start(status).await;
        let settings = format!("health: {{{settings}, interval: 1h}}");
        let gateway = Gateway::start(&text(1, &settings, &[&checked])).await;
        if passes {
            sleep(Duration::from_millis(300)).await;
            assert_eq!(said(&gateway), [""; 0], "{settings}");
            assert_eq!(get(&gateway, 1).await, [200], "{settings}");
        } else {
            says(&gateway, what).await;
            assert_eq!(get(&gateway, 1).await, [503], "{settings}");
        }
    }
}

#[tokio::test]
async fn what_an_app_may_send_instead_of_a_response_is_a_failure() {
    let long: &'static str = Box::leak(format!("{}well", "x".repeat(80_000)).into_boxed_str());
    type Script = fn(&str) -> Answer;
    let scripts: [(&str, Script, &str); 4] = [
        ("", |_| Answer::Close, "closed without a response"),
        (
            "",
            |_| Answer::RawThenClose(b"220 mail ESMTP\r\n".into()),
            "the response is not HTTP",
        ),
        (
            ", timeout: 200ms",
            |_| Answer::Silent,
            "no response within 200ms",
        ),
        (
            ", body: well",
            |long| {
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{long}",
                    long.len()
                );
                Answer::Raw(head.into_bytes())
            },
            "the body has no",
        ),
    ];
    for (settings, script, what) in scripts {
        let app = App::start(move |_| script(long)).await;
        let text = format!(
            "upstreams: {{app: {{servers: ['@app'], health: {{path: /healthz, interval: 1h{settings}}}}}}}\n\
             routes: [{{path: /*, proxy: app, auth: none}}]\n"
        );
        let gateway = Gateway::start(&config(&text, &[("app", &app.url())])).await;
        says(&gateway, what).await;
    }
    // Nobody there.
    let text = format!(
        "upstreams: {{app: {{servers: ['http://127.0.0.1:{}'], health: tcp}}}}\n\
         routes: [{{path: /*, proxy: app, auth: none}}]\n",
        free_port()
    );
    let gateway = Gateway::start(&config(&text, &[])).await;
    says(&gateway, "taken out, 0 of 1 left").await;
    assert!(said(&gateway)[0].contains("ERROR"), "{:?}", said(&gateway));
}

#[tokio::test]
async fn while_nobody_is_left_requests_are_refused_or_tried() {
    let (a, b) = (Checked::start(500).await, Checked::start(500).await);
    let refuse = "health: {path: /healthz, interval: 100ms, healthy_after: 1}";
    let gateway = Gateway::start(&text(1, refuse, &[&a, &b])).await;
    says(&gateway, "0 of 2 left").await;
    let begun = Instant::now();
    for method in ["GET", "POST"] {
        let mut wire = gateway.connect().await;
        wire.send(request(method, "/refused", &[], "")).await;
        let reply = wire.reply().await;
        assert_eq!((reply.status, reply.field("retry-after")), (503, Some("1")));
    }
    assert!(begun.elapsed() < Duration::from_millis(900), "at once");
    assert_eq!(
        gateway.record("/refused").await["reason"],
        "upstream_unhealthy"
    );
    assert_eq!((a.requests(), b.requests()), (0, 0));

    let try_all = "health: {path: /healthz, interval: 100ms, healthy_after: 1, all_down: try}";
    gateway.reconfigure(&text(1, try_all, &[&a, &b])).await;
    assert_eq!(get(&gateway, 6).await, [200; 6]);
    assert!(
        a.requests() > 0 && b.requests() > 0,
        "as if none were checked"
    );
    // As soon as one passes, the other is out again.
    a.set(200);
    says(&gateway, "back, 1 of 2").await;
    let before = b.requests();
    assert_eq!(get(&gateway, 6).await, [200; 6]);
    assert_eq!(b.requests(), before);
}

#[tokio::test]
async fn a_backup_stands_in_for_servers_that_checks_have_taken_out() {
    let (a, b) = (Checked::start(500).await, Checked::start(200).await);
    let text = format!(
        "upstreams: {{app: {{servers: ['{}', {{url: '{}', backup: true}}], health: /healthz}}}}\n\
         routes: [{{path: /*, proxy: app, auth: none}}]\n",
        a.app.url(),
        b.app.url()
    );
    let gateway = Gateway::start(&config(&text, &[])).await;
    says(&gateway, "1 of 2 left").await;
    assert_eq!(get(&gateway, 4).await, [200; 4]);
    assert_eq!((a.requests(), b.requests()), (0, 4));
}

#[tokio::test]
async fn a_reload_keeps_what_is_known_and_checks_of_the_same_kind_go_on() {
    let (a, b) = (Checked::start(500).await, Checked::start(200).await);
    let hourly = "health: {path: /healthz, interval: 1h}";
    let gateway = Gateway::start(&text(1, hourly, &[&a, &b])).await;
    says(&gateway, "1 of 2 left").await;
    a.set(200);
    // Something else changes: no check, and the state stays.
    let other = format!("{hourly}, timeouts: {{response: 50s}}");
    gateway.reconfigure(&text(1, &other, &[&b, &a])).await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(get(&gateway, 4).await, [200; 4]);
    assert_eq!((a.checks(), a.requests()), (1, 0));
    // The check changes: it begins anew, from what is known.
    let changed = "health: {path: /healthz, interval: 300ms, healthy_after: 3}";
    gateway.reconfigure(&text(1, changed, &[&b, &a])).await;
    a.checked(1).await;
    assert_eq!(get(&gateway, 4).await, [200; 4]);
    assert_eq!(a.requests(), 0, "one check is not three");
    says(&gateway, "passed, 3 times; back, 2 of 2").await;
    // Without checks all are up; with them again, the first one decides.
    a.set(500);
    says(&gateway, "500, expected 200-399, 3 times").await;
    gateway
        .reconfigure(&text(1, "underscores: pass", &[&b, &a]))
        .await;
    eventually("a request", async || {
        get(&gateway, 1).await;
        (a.requests() > 0).then_some(())
    })
    .await;
    let lines = said(&gateway).len();
    let checks = a.checks();
    sleep(Duration::from_millis(500)).await;
    assert_eq!(a.checks(), checks, "nobody checks any more");
    gateway.reconfigure(&text(1, hourly, &[&b, &a])).await;
    eventually("the line", async || {
        (said(&gateway).len() > lines).then_some(())
    })
    .await;
    assert!(
        said(&gateway)
            .pop()
            .unwrap()
            .contains("500, expected 200-399; taken out")
    );
}

#[tokio::test]
async fn a_check_that_passes_ends_an_ejection() {
    let failing = Arc::new(AtomicUsize::new(1));
    let shared = Arc::clone(&failing);
    let bad = App::start(move |seen| match seen.target() {
        "/healthz" => Answer::Ok("ok"),
        _ if shared.load(Ordering::SeqCst) > 0 => Answer::Close,
        _ => Answer::Ok("ok"),
    })
    .await;
    let good = Checked::start(200).await;
    let text = format!(
        "workers: 1\nupstreams: {{app: {{servers: ['{}', '{}'], health: {{path: /healthz, interval: 2s}}, \
         eject: {{consecutive_failures: 1, for: 1h, longest: 1h}}}}}}\n\
         routes: [{{path: /*, proxy: app, auth: none}}]\n",
        bad.url(),
        good.app.url()
    );
    let gateway = Gateway::start(&config(&text, &[])).await;
    eventually("the ejection", async || {
        get(&gateway, 1).await;
        gateway
            .stderr()
            .contains("the server is taken out")
            .then_some(())
    })
    .await;
    failing.store(0, Ordering::SeqCst);
    eventually("the end of the ejection", async || {
        gateway
            .stderr()
            .contains("the server is back")
            .then_some(())
    })
    .await;
    let before = bad.requests();
    assert_eq!(get(&gateway, 4).await, [200; 4]);
    assert!(bad.requests() > before);
}

#[tokio::test]
async fn at_most_64_checks_are_under_way() {
    let app = App::start(|_| Answer::Silent).await;
    let urls: Vec<String> = (0..90)
        .map(|nth| format!("  u{nth}: {{servers: ['{}'], health: {{path: /healthz, interval: 1h, timeout: 5s}}}}\n", app.url()))
        .collect();
    let text = format!(
        "upstreams:\n{}routes: [{{path: /*, proxy: u0, auth: none}}]\n",
        urls.concat()
    );
    let gateway = Gateway::start(&config(&text, &[])).await;
    eventually("64 checks", async || (app.open() == 64).then_some(())).await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(app.open(), 64);
    drop(gateway);
}

#[test]
fn checks_that_make_no_sense_are_errors() {
    let check = |health: &str, server: &str| {
        let folder = Folder::new();
        let text = format!(
            "listeners: [{{address: 127.0.0.1:0}}]\nupstreams: {{app: {{servers: ['{server}'], health: {health}}}}}\n\
             routes: [{{path: /*, proxy: app, auth: none}}]\n"
        );
        folder.write("gateway.yaml", text);
        let output = run_to_end(&folder, &["check"], &[]);
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let http = "http://127.0.0.1:9";
    for (health, server, said) in [
        ("healthz", http, "a path begins with `/`"),
        ("[/healthz]", http, "a path, `tcp`, `off` or a map"),
        ("{interval: 5s}", http, "`path` or `tcp: true`"),
        ("{path: /, tcp: true}", http, "`path` with `tcp`"),
        ("{tcp: true, status: [200]}", http, "`status` with `tcp`"),
        (
            "{path: /, interval: 50ms}",
            http,
            "a duration from 100ms to 3600s",
        ),
        (
            "{path: /, interval: 1s, timeout: 2s}",
            http,
            "`timeout` is longer than `interval`",
        ),
        ("{path: /, status: [99]}", http, "a status from 100 to 599"),
        ("{path: /, status: [399-200]}", http, "the range is empty"),
        ("{path: /, status: []}", http, "an empty list"),
        ("{path: /, method: POST}", http, "GET, HEAD"),
        (
            "{path: /, method: HEAD, body: ok}",
            http,
            "a response to HEAD has no `body`",
        ),
        ("{path: '/a b'}", http, "this is no path"),
        ("{path: '/#x'}", http, "a fragment"),
        ("{path: /, port: 0}", http, "a number from 1 to 65535"),
        (
            "{path: /, port: 80}",
            "unix:/run/x.sock",
            "a Unix socket has no other `port`",
        ),
        ("{path: /, all_down: panic}", http, "refuse, try"),
        ("{path: /, grpc: x}", http, "unknown key `grpc`"),
    ] {
        let (code, errors) = check(health, server);
        assert_eq!(code, Some(2), "{health}: {errors}");
        assert!(errors.contains(said), "{health}: {errors}");
    }
    for health in [
        "/healthz",
        "tcp",
        "off",
        "{tcp: true}",
        "{path: /x, interval: 500ms}",
    ] {
        let (code, errors) = check(health, http);
        assert_eq!(code, Some(0), "{health}: {errors}");
    }
}
