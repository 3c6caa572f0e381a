//! The admin thread: the control socket and the admin listener, metrics that agree with the access log, health, reloads and
//! the level of the log on demand, and who may ask for what.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::support::{
    App, Folder, Gateway, Kind, Reply, Wire, config, eventually, free_port, get, key, local,
    program, request, run_to_end, token,
};

const TOKEN: &str = "the-token-that-may-change-everything";
const READS: &str = "the-token-that-may-only-read-things";

/// A gateway with a control socket in its own directory.
async fn start(text: &str) -> Gateway {
    let folder = Folder::new();
    folder.write("gateway.yaml", config(text, &[]));
    let runtime = folder.path("").display().to_string();
    Gateway::start_as_it_is(folder, 1, &[("RUNTIME_DIRECTORY", &runtime)]).await
}

fn socket_of(gateway: &Gateway) -> PathBuf {
    gateway.folder.path("control.sock")
}

/// One request over the control socket.
async fn control(gateway: &Gateway, method: &str, path: &str, body: &str) -> Reply {
    let stream = UnixStream::connect(socket_of(gateway)).await.unwrap();
    let mut wire = Wire::over(stream);
    wire.send(request(method, path, &[], body)).await;
    wire.reply().await
}

fn json_of(reply: &Reply) -> Value {
    serde_json::from_str(&reply.text()).unwrap_or_else(|_| panic!("not JSON: {}", reply.text()))
}

/// The samples of the metrics, by name and labels as they are written.
async fn samples(gateway: &Gateway) -> BTreeMap<String, f64> {
    let reply = control(gateway, "GET", "/metrics", "").await;
    assert_eq!(reply.status, 200);
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    assert_eq!(reply.field("content-type"), Some(kind));
    let text = reply.text();
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

/// The sum of the samples whose names begin like this.
fn sum(samples: &BTreeMap<String, f64>, beginning: &str) -> f64 {
    let all = samples.iter();
    all.filter(|(name, _)| name.starts_with(beginning))
        .map(|(_, value)| value)
        .sum()
}

/// The command line beside the gateway's file.
fn prompt(gateway: &Gateway, arguments: &[&str]) -> (String, Option<i32>) {
    let output = program()
        .args(arguments)
        .env("RUNTIME_DIRECTORY", gateway.folder.path(""))
        .current_dir(gateway.folder.path(""))
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8(said).unwrap(), output.status.code())
}

#[tokio::test]
async fn metrics_agree_with_the_access_log() {
    let app = App::echo().await;
    let text = format!(
        "jwt: {{app: {{algorithms: [HS256], secret: '{secret}'}}}}
upstreams: {{shop: {{servers: ['{url}']}}}}
routes:
  - {{path: /ping, respond: {{body: pong}}}}
  - {{name: 'od\"d\\name', path: /odd, respond: {{body: odd}}}}
  - {{name: api, path: /api/*, proxy: shop, auth: app}}
  - {{path: /limited, respond: {{body: x}}, rate_limit: {{name: few, rate: 1/h}}}}
",
        url = app.url(),
        secret = key(Kind::Secret, 0).public,
    );
    let gateway = start(&text).await;
    let good = token(json!({"sub": "7"}));
    let bearer = format!("Bearer {good}");
    for _ in 0..3 {
        assert_eq!(gateway.get("/ping", &[]).await.status, 200);
        let api = gateway.get("/api/x", &[("Authorization", &bearer)]).await;
        assert_eq!(api.status, 200, "{}", api.text());
    }
    assert_eq!(gateway.get("/odd", &[]).await.status, 200);
    assert_eq!(gateway.get("/api/x", &[]).await.status, 401);
    let forged = format!("{bearer}x");
    assert_eq!(
        gateway
            .get("/api/x", &[("Authorization", &forged)])
            .await
            .status,
        401
    );
    assert_eq!(gateway.get("/nothing", &[]).await.status, 404);
    assert_eq!(gateway.get("/limited", &[]).await.status, 200);
    assert_eq!(gateway.get("/limited", &[]).await.status, 429);
    let mut broken = gateway.connect().await;
    broken
        .send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        .await;
    assert_eq!(broken.reply().await.status, 400);
    let mut upload = gateway.connect().await;
    let field = [("Authorization", bearer.as_str())];
    upload
        .send(request("POST", "/api/up", &field, "seven b"))
        .await;
    assert_eq!(upload.reply().await.status, 200);

    let records = gateway.records_of(14).await;
    let now = samples(&gateway).await;
    #[expect(clippy::cast_precision_loss, reason = "they are fourteen")]
    let lines = records.len() as f64;
    assert_eq!(sum(&now, "portcullis_requests_total"), lines, "{now:#?}");
    for (name, expected) in [
        (
            r#"portcullis_requests_total{route="/ping",code="2xx"}"#,
            3.0,
        ),
        (
            r#"portcullis_requests_total{route="/ping",code="5xx"}"#,
            0.0,
        ),
        (
            r#"portcullis_requests_total{route="od\"d\\name",code="2xx"}"#,
            1.0,
        ),
        (r#"portcullis_requests_total{route="api",code="2xx"}"#, 4.0),
        (r#"portcullis_requests_total{route="api",code="4xx"}"#, 2.0),
        (
            r#"portcullis_requests_total{route="(none)",code="4xx"}"#,
            2.0,
        ),
        (
            r#"portcullis_refused_total{route="api",reason="token_missing"}"#,
            1.0,
        ),
        (
            r#"portcullis_refused_total{route="api",reason="token_signature"}"#,
            1.0,
        ),
        (
            r#"portcullis_refused_total{route="(none)",reason="no_route"}"#,
            1.0,
        ),
        (
            r#"portcullis_refused_total{route="/limited",reason="rate_limited"}"#,
            1.0,
        ),
        (
            r#"portcullis_limit_refused_total{route="/limited",limit="few"}"#,
            1.0,
        ),
        (
            r#"portcullis_tokens_total{verifier="app",result="verified"}"#,
            1.0,
        ),
        (
            r#"portcullis_tokens_total{verifier="app",result="remembered"}"#,
            3.0,
        ),
        (
            r#"portcullis_tokens_total{verifier="app",result="token_signature"}"#,
            1.0,
        ),
        (r#"portcullis_request_bytes_total{route="api"}"#, 7.0),
        (r#"portcullis_response_bytes_total{route="/ping"}"#, 12.0),
        ("portcullis_requests_in_flight", 0.0),
        ("portcullis_config_last_reload_successful", 1.0),
        (
            r#"portcullis_request_duration_seconds_count{route="/ping"}"#,
            3.0,
        ),
        (
            r#"portcullis_request_duration_seconds_bucket{route="/ping",le="+Inf"}"#,
            3.0,
        ),
        (
            r#"portcullis_upstream_first_byte_seconds_count{upstream="shop"}"#,
            4.0,
        ),
    ] {
        // Two workers remember tokens each for itself.
        let found = now.get(name).copied();
        if name.contains("tokens_total") && !name.contains("signature") {
            continue;
        }
        assert_eq!(found, Some(expected), "{name}\n{now:#?}");
    }
    let tokens = r#"portcullis_tokens_total{verifier="app""#;
    assert_eq!(sum(&now, tokens), 5.0, "each token once");
    let server = format!(
        r#"portcullis_upstream_requests_total{{upstream="shop",server="{}",code="2xx"}}"#,
        app.url()
    );
    assert_eq!(now.get(&server), Some(&4.0), "{now:#?}");
    assert_eq!(sum(&now, "portcullis_connections_total"), 14.0);
    eventually("the connections to be closed", async || {
        let open = samples(&gateway).await;
        (sum(&open, "portcullis_connections_open") <= 2.0).then_some(())
    })
    .await;

    // A reload resets nothing, and what is gone is told no more.
    let less = text.replace("  - {path: /ping, respond: {body: pong}}\n", "");
    gateway.reconfigure(&config(&less, &[])).await;
    let after = samples(&gateway).await;
    let api = r#"portcullis_requests_total{route="api",code="2xx"}"#;
    assert_eq!(after.get(api), Some(&4.0));
    assert_eq!(
        sum(&after, r#"portcullis_requests_total{route="/ping""#),
        0.0
    );
    let limit = r#"portcullis_limit_refused_total{route="/limited",limit="few"}"#;
    assert_eq!(after.get(limit), Some(&1.0));
    assert_eq!(
        sum(&after, r#"portcullis_config_reloads_total{result="good"}"#),
        1.0
    );
    assert_eq!(sum(&after, &server), 4.0);
}

#[tokio::test]
async fn routes_beyond_the_most_are_counted_together() {
    let gateway = start(
        "metrics: {routes: 1}
routes: [{path: /a, respond: {body: a}}, {path: /b, respond: {body: b}}, {path: /c, respond: {body: c}}]
",
    )
    .await;
    for (nth, path) in (1..).zip(["/a", "/b", "/c", "/c"]) {
        assert_eq!(gateway.get(path, &[]).await.status, 200);
        // A request is counted when its record is written, which may be behind the next one on another worker.
        gateway.records_of(nth).await;
    }
    let now = samples(&gateway).await;
    let of = |route: &str| {
        sum(
            &now,
            &format!(r#"portcullis_requests_total{{route="{route}""#),
        )
    };
    assert_eq!(
        (of("/a"), of("/b"), of("/c"), of("(other)")),
        (1.0, 0.0, 0.0, 3.0)
    );
    assert_eq!(now["portcullis_metrics_routes_folded"], 2.0);
}

#[tokio::test]
async fn openmetrics_is_there_for_who_asks() {
    let gateway = start("routes: [{path: /a, respond: {body: a}}]\n").await;
    let stream = UnixStream::connect(socket_of(&gateway)).await.unwrap();
    let mut wire = Wire::over(stream);
    let accept = [(
        "Accept",
        "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
    )];
    wire.send(request("GET", "/metrics", &accept, "")).await;
    let reply = wire.reply().await;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(reply.field("content-type"), Some(kind));
    assert!(reply.text().ends_with("# EOF\n"));
    assert!(reply.text().contains("# TYPE portcullis_requests counter"));
}

#[tokio::test]
async fn the_control_socket_is_its_owners_and_ends_with_the_process() {
    let mut gateway = start("routes: [{path: /a, respond: {body: a}}]\n").await;
    let file = std::fs::symlink_metadata(socket_of(&gateway)).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    let status = json_of(&control(&gateway, "GET", "/status", "").await);
    assert_eq!(status["pid"], json!(gateway.id()));
    let config = gateway.folder.path("gateway.yaml").canonicalize().unwrap();
    assert_eq!(status["config"], json!(config));
    assert_eq!(
        (&status["ready"], &status["routes"]),
        (&json!(true), &json!(1))
    );
    assert_eq!(
        json_of(&control(&gateway, "GET", "/healthz", "").await),
        json!({"healthy": true})
    );
    assert_eq!(control(&gateway, "GET", "/nothing", "").await.status, 404);
    let wrong = control(&gateway, "POST", "/metrics", "").await;
    assert_eq!(
        (wrong.status, wrong.field("allow")),
        (405, Some("GET, HEAD"))
    );
    assert_eq!(control(&gateway, "GET", "/reload", "").await.status, 405);
    gateway.signal(Signal::TERM);
    gateway.exit().await;
    assert!(!socket_of(&gateway).exists());
}

#[tokio::test]
async fn a_reload_is_waited_for_and_its_mistakes_are_told() {
    let gateway = start("routes: [{path: /a, respond: {body: a}, auth: none}]\n").await;
    let write = |text: &str| gateway.folder.write("gateway.yaml", config(text, &[]));
    write(
        "routes: [{path: /a, respond: {body: a}, auth: none}, {path: /b, respond: {body: b}, auth: none}]\n",
    );
    let (said, code) = prompt(&gateway, &["reload"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(gateway.get("/b", &[]).await.status, 200);
    write("routes: [{path: /a, answer: {body: a}}]\n");
    let (said, code) = prompt(&gateway, &["reload"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("unknown key `answer`"), "{said}");
    assert!(said.contains("the old one stays"), "{said}");
    assert_eq!(gateway.get("/b", &[]).await.status, 200);
    let now = samples(&gateway).await;
    assert_eq!(now["portcullis_config_last_reload_successful"], 0.0);
    assert!(sum(&now, r#"portcullis_config_reloads_total{result="refused"}"#) >= 1.0);

    let rows = json_of(&control(&gateway, "GET", "/reloads", "").await);
    let rows = rows.as_array().unwrap();
    assert_eq!(rows[0]["result"], "refused");
    assert!(rows[0]["mistakes"].as_str().unwrap().contains("answer"));
    assert_eq!(rows.last().unwrap()["by"], "start");
    assert!(rows.iter().any(|row| row["by"] == "prompt"), "{rows:?}");
    let changed = rows
        .iter()
        .flat_map(|row| row["changes"].as_array().unwrap());
    assert!(
        changed
            .clone()
            .any(|change| change["text"].as_str().unwrap().contains("/b"))
    );
    let (said, code) = prompt(&gateway, &["reloads"]);
    assert_eq!(code, Some(0));
    assert!(said.contains("refused (prompt)"), "{said}");
    let (said, code) = prompt(&gateway, &["status"]);
    assert_eq!(code, Some(0));
    assert!(
        said.starts_with("serving, process ") && said.contains("routes     2\n"),
        "{said}"
    );
    assert_eq!(
        prompt(&gateway, &["status", "--quick"]),
        (String::new(), Some(0))
    );
    let (said, code) = prompt(&gateway, &["status", "--json"]);
    assert_eq!(code, Some(0));
    assert!(serde_json::from_str::<Value>(&said).is_ok(), "{said}");
}

#[tokio::test]
async fn another_gateways_socket_is_refused() {
    let gateway = start("routes: [{path: /a, respond: {body: a}}]\n").await;
    gateway.folder.write("other.yaml", "");
    for command in [
        &["status"][..],
        &["reload"],
        &["reloads"],
        &["log-level", "debug"],
    ] {
        let (said, code) = prompt(&gateway, &[command, &["-c", "other.yaml"]].concat());
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("no gateway runs for `other.yaml`"), "{said}");
        assert!(said.contains("runs with `"), "{said}");
    }
    assert_eq!(gateway.reloads(), 0);
}

#[tokio::test]
async fn another_level_of_the_log_lasts_for_a_while() {
    let gateway = start("routes: [{path: /a, respond: {body: a}}]\n").await;
    let level =
        async || json_of(&control(&gateway, "GET", "/status", "").await)["log_level"].clone();
    assert_eq!(level().await, "info");
    let (said, code) = prompt(&gateway, &["log-level", "debug", "--for", "2s"]);
    assert_eq!(code, Some(0), "{said}");
    eventually("debug", async || (level().await == "debug").then_some(())).await;
    eventually("info", async || (level().await == "info").then_some(())).await;
    let (said, code) = prompt(&gateway, &["log-level", "trace"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("error, warn, info or debug"), "{said}");
    let (_, code) = prompt(&gateway, &["log-level", "debug", "--for", "2d"]);
    assert_eq!(code, Some(1));
}

#[tokio::test]
async fn the_admin_listener_tells_reading_from_changing() {
    let port = free_port();
    let gateway = start(&format!(
        "admin: {{address: '127.0.0.1:{port}', token: {TOKEN}, read_token: {READS}, hosts: [gateway.internal]}}
routes: [{{path: /a, respond: {{body: a}}}}]
"
    ))
    .await;
    let ask = async |method: &str, path: &str, fields: &[(&str, &str)]| {
        let mut wire = Wire::connect(local(port)).await;
        let fields = [&[("Host", "localhost")], fields].concat();
        wire.send(request(method, path, &fields, "")).await;
        wire.reply().await
    };
    eventually("the admin listener", async || {
        tokio::net::TcpStream::connect(local(port))
            .await
            .ok()
            .map(drop)
    })
    .await;
    let (change, read) = (format!("Bearer {TOKEN}"), format!("Bearer {READS}"));
    let (change, read) = ([("Authorization", &*change)], [("Authorization", &*read)]);
    assert_eq!(ask("GET", "/healthz", &[]).await.status, 200);
    assert_eq!(ask("GET", "/readyz", &[]).await.status, 200);
    let refused = ask("GET", "/metrics", &[]).await;
    assert_eq!(
        (refused.status, refused.field("www-authenticate")),
        (401, Some("Bearer"))
    );
    assert_eq!(ask("GET", "/metrics", &read).await.status, 200);
    assert_eq!(ask("GET", "/config", &read).await.status, 200);
    assert_eq!(ask("POST", "/reload", &[]).await.status, 401);
    assert_eq!(ask("POST", "/reload", &read).await.status, 403);
    assert_eq!(
        ask("POST", "/reload", &[("Portcullis-Admin", "1")])
            .await
            .status,
        401
    );
    assert_eq!(ask("POST", "/reload", &change).await.status, 200);
    assert_eq!(ask("OPTIONS", "/metrics", &change).await.status, 405);
    let foreign = [change[0], ("Origin", "http://evil.example")];
    let answer = ask("GET", "/status", &foreign).await;
    assert_eq!(answer.status, 403);
    assert_eq!(answer.field("access-control-allow-origin"), None);
    let page = [change[0], ("Sec-Fetch-Site", "cross-site")];
    assert_eq!(ask("GET", "/status", &page).await.status, 403);
    // DNS rebinding: the name of somebody else's.
    for (host, status) in [
        ("evil.example", 403),
        ("gateway.internal:7", 200),
        ("127.0.0.1", 200),
    ] {
        let mut wire = Wire::connect(local(port)).await;
        let bytes = format!(
            "GET /status HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        );
        wire.send(bytes).await;
        assert_eq!(wire.reply().await.status, status, "{host}");
    }
    // The data side has no admin path.
    assert_eq!(gateway.get("/metrics", &[]).await.status, 404);
    let wrong = [(
        "Authorization",
        "Bearer of-a-token-that-is-wrong-altogether",
    )];
    for _ in 0..5 {
        assert_eq!(ask("GET", "/status", &wrong).await.status, 401);
    }
    eventually("a line about it", async || {
        gateway.stderr().contains("had a wrong token").then_some(())
    })
    .await;
    let said = gateway.stderr();
    assert!(said.matches("had a wrong token").count() <= 2, "{said}");
    for secret in [TOKEN, READS, "wrong-altogether"] {
        assert!(!gateway.output().contains(secret));
    }
    let printed = ask("GET", "/config", &read).await;
    assert!(!printed.text().contains(TOKEN) && !printed.text().contains(READS));
}

#[tokio::test]
async fn without_a_token_changing_takes_a_field_and_the_listener_moves_with_a_reload() {
    let (first, second) = (free_port(), free_port());
    let text = |port: u16| {
        format!(
            "admin: {{address: '127.0.0.1:{port}'}}\nroutes: [{{path: /a, respond: {{body: a}}}}]\n"
        )
    };
    let gateway = start(&text(first)).await;
    let status = async |port: u16, fields: &[(&str, &str)]| {
        let mut wire = Wire::connect(local(port)).await;
        let fields = [&[("Host", "localhost")], fields].concat();
        wire.send(request("POST", "/reload", &fields, "")).await;
        wire.reply().await.status
    };
    let host = [("Host", "127.0.0.1")];
    assert_eq!(get(local(first), "/status", &host).await.status, 200);
    assert_eq!(status(first, &[]).await, 403);
    assert_eq!(status(first, &[("Portcullis-Admin", "1")]).await, 200);
    gateway.reconfigure(&config(&text(second), &[])).await;
    eventually("the new address", async || {
        let connected = tokio::net::TcpStream::connect(local(second)).await;
        connected.ok().map(drop)
    })
    .await;
    assert_eq!(status(second, &[("Portcullis-Admin", "1")]).await, 200);
    eventually("the old address to be closed", async || {
        let connected = tokio::net::TcpStream::connect(local(first)).await;
        connected.is_err().then_some(())
    })
    .await;
    // An address that cannot be bound refuses the reload.
    let taken = std::net::TcpListener::bind(local(first)).unwrap();
    let said = gateway
        .reconfigure_in_vain(&config(&text(first), &[]))
        .await;
    assert!(said.contains("cannot listen on 127.0.0.1"), "{said}");
    drop(taken);
    assert_eq!(get(local(second), "/status", &host).await.status, 200);
}

#[tokio::test]
async fn explain_is_asked_of_the_configuration_in_force() {
    let gateway = start(&format!(
        "jwt: {{app: {{algorithms: [HS256], secret: '{secret}'}}}}
routes: [{{name: api, path: /api/*, respond: {{body: a}}, auth: {{jwt: app, require: {{role: clerk}}}}}}]
",
        secret = key(Kind::Secret, 0).public
    ))
    .await;
    let ask = async |body: Value| {
        let reply = control(&gateway, "POST", "/explain", &body.to_string()).await;
        (reply.status, json_of(&reply))
    };
    let (status, said) = ask(json!({"url": "/api/x"})).await;
    assert_eq!((status, &said["reason"]), (200, &json!("token_missing")));
    let (_, said) = ask(json!({"url": "/api/x", "claims": {"role": "clerk"}})).await;
    assert_eq!(
        (&said["allowed"], &said["route"]),
        (&json!(true), &json!("api"))
    );
    let (_, said) = ask(json!({"url": "/api/x", "claims": {"role": "cook"}})).await;
    assert_eq!(said["reason"], "forbidden");
    let (_, said) = ask(json!({"url": "/api/x", "token": "nonsense"})).await;
    assert_eq!(said["reason"], "token_malformed");
    assert!(
        said["lines"][0]["file"]
            .as_str()
            .unwrap()
            .ends_with("gateway.yaml")
    );
    for wrong in [
        json!({}),
        json!([]),
        json!({"url": "x y"}),
        json!({"url": "/", "uri": "/"}),
    ] {
        assert_eq!(ask(wrong.clone()).await.0, 400, "{wrong}");
    }
    let long = "x".repeat(70_000);
    let reply = control(
        &gateway,
        "POST",
        "/explain",
        &json!({"url": long}).to_string(),
    )
    .await;
    assert_eq!(reply.status, 413);
}

#[tokio::test]
async fn load_balancers_have_time_to_look_before_the_drain() {
    let mut gateway = start(
        "timeouts: {shutdown_delay: 2s}
routes: [{path: /ready, respond: {ready: true}}, {path: /a, respond: {body: a}}]
",
    )
    .await;
    assert_eq!(gateway.get("/ready", &[]).await.status, 200);
    assert_eq!(control(&gateway, "GET", "/readyz", "").await.status, 200);
    gateway.signal(Signal::TERM);
    eventually("not to be ready", async || {
        (gateway.get("/ready", &[]).await.status == 503).then_some(())
    })
    .await;
    let ready = control(&gateway, "GET", "/readyz", "").await;
    assert_eq!(
        (ready.status, json_of(&ready)["why"].clone()),
        (503, json!("draining"))
    );
    assert_eq!(control(&gateway, "GET", "/healthz", "").await.status, 200);
    assert_eq!(gateway.get("/a", &[]).await.status, 200, "it serves on");
    assert_eq!(control(&gateway, "POST", "/reload", "").await.status, 503);
    assert_eq!(gateway.exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_begins_the_drain_at_once() {
    let mut gateway =
        start("timeouts: {shutdown_delay: 1h}\nroutes: [{path: /a, respond: {body: a}}]\n").await;
    gateway.signal(Signal::TERM);
    eventually("the delay", async || {
        gateway
            .stderr()
            .contains("not ready any more")
            .then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.exit().await.code(), Some(0));
    assert!(gateway.stderr().contains("draining"));
}

#[tokio::test]
async fn mistakes_about_the_admin_listener_have_their_places() {
    for (admin, expected) in [
        (
            "{address: '0.0.0.0:9000'}",
            "anyone who can reach it could read and reload",
        ),
        (
            "{address: '127.0.0.1:9000', token: short}",
            "a token has at least 24 characters",
        ),
        (
            "{address: '127.0.0.1:9000', token: 'a token with blanks in it, long'}",
            "ASCII without spaces",
        ),
        (
            "{address: '127.0.0.1:9000', token: aaaaaaaaaaaaaaaaaaaaaaaaa, read_token: aaaaaaaaaaaaaaaaaaaaaaaaa}",
            "`token` and `read_token` are equal",
        ),
        (
            "{address: '127.0.0.1:9000', read_token: aaaaaaaaaaaaaaaaaaaaaaaaa}",
            "`read_token` needs a `token`",
        ),
        (
            "{token: aaaaaaaaaaaaaaaaaaaaaaaaa}",
            "which has no `address`",
        ),
        (
            "{address: '127.0.0.1:8080'}",
            "this address is a listener's too",
        ),
        (
            "{address: '127.0.0.1:9000', hosts: ['gateway.internal:80']}",
            "write `gateway.internal`",
        ),
        (
            "{address: '127.0.0.1:9000', hosts: ['*.internal']}",
            "without `*`",
        ),
        (
            "{address: '127.0.0.1:9000', reed_token: x}",
            "did you mean `read_token`?",
        ),
        (
            "{address: '127.0.0.1:9000', tls: {}}",
            "`certificates` is missing",
        ),
    ] {
        let folder = Folder::new();
        folder.write(
            "gateway.yaml",
            format!(
                "listeners: [{{address: '127.0.0.1:8080'}}]\nadmin: {admin}\nroutes: [{{path: /, respond: {{body: a}}}}]\n"
            ),
        );
        let output = run_to_end(&folder, &["check"], &[]);
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(2), "{admin}\n{said}");
        assert!(said.contains(expected), "{admin}\n{said}");
        assert!(said.contains("gateway.yaml:2:"), "{said}");
        assert!(!said.contains("aaaaaaaaa"), "a token is shown\n{said}");
    }
}
