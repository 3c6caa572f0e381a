//! What is kept away from an app: addresses, rates, requests in flight. Each time somebody is served beside who is not.

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::support::{
    Answer, App, Folder, Gateway, H2, Kind, Reply, config, eventually, key, request, run_to_end,
    token,
};

/// One route with these keys, behind a proxy that tells who the client is.
fn one_route(app: &App, keys: &str) -> String {
    config(
        &format!(
            "trusted_proxies: [127.0.0.1]\njwt: {{app: {{algorithms: [HS256], secret: '@secret'}}}}\nroutes: [{{name: api, path: /*, proxy: '@app', auth: none, {keys}}}]\n"
        ),
        &[
            ("secret", &key(Kind::Secret, 0).public),
            ("app", &app.url()),
        ],
    )
}

async fn from(gateway: &Gateway, path: &str, client: &str) -> Reply {
    gateway.get(path, &[("X-Forwarded-For", client)]).await
}

#[tokio::test]
async fn addresses_decide_before_anything_of_the_body_is_read() {
    let app = App::echo().await;
    let keys = "addresses: {allow: [10.0.0.0/8, 192.0.2.7, '2001:db8::/32'], deny: [10.9.0.0/16]}";
    let gateway = Gateway::start(&one_route(&app, keys)).await;
    for (client, status) in [
        ("10.0.0.1", 200),
        ("192.0.2.7", 200),
        ("2001:db8::1", 200),
        ("::ffff:10.1.2.3", 200),
        ("10.9.1.1", 403),
        ("192.0.2.8", 403),
        ("2001:db9::1", 403),
        ("127.0.0.1", 403),
    ] {
        let reply = from(&gateway, "/", client).await;
        assert_eq!(reply.status, status, "{client}");
    }
    assert_eq!(app.requests(), 4);
    let mut wire = gateway.connect().await;
    wire.send("POST /posted HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\n")
        .await;
    let refused = wire.reply().await;
    assert_eq!(refused.status, 403, "before the body came");
    let record = gateway.record("/posted").await;
    assert_eq!(record["reason"], "address_refused");
    assert_eq!(app.requests(), 4);
}

#[tokio::test]
async fn a_client_is_refused_over_its_rate_and_another_is_served() {
    let app = App::echo().await;
    let keys = "rate_limit: {name: user, by: ip, rate: 3/h}";
    let gateway = Gateway::start(&one_route(&app, keys)).await;
    for left in [2, 1, 0] {
        let reply = from(&gateway, "/", "192.0.2.1").await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.field("ratelimit-policy"), Some("\"user\";q=3;w=3600"));
        let reset = 1200 * (3 - left);
        let limit = format!("\"user\";r={left};t={reset}");
        assert_eq!(reply.field("ratelimit"), Some(limit.as_str()));
        assert_eq!(reply.field("retry-after"), None);
    }
    for client in ["192.0.2.1", "::ffff:192.0.2.1"] {
        let reply = from(&gateway, "/over", client).await;
        assert_eq!(reply.status, 429);
        assert_eq!(reply.field("cache-control"), Some("no-store"));
        let retry: u64 = reply.field("retry-after").unwrap().parse().unwrap();
        assert!((1190..=1200).contains(&retry), "{retry}");
        assert!(
            reply
                .field("ratelimit")
                .unwrap()
                .starts_with("\"user\";r=0;t=")
        );
        let problem: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(
            problem["type"],
            "https://iana.org/assignments/http-problem-types#quota-exceeded"
        );
        assert_eq!(problem["violated-policies"], json!(["user"]));
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains("`user` is 3/h for the route api"),
            "{detail}"
        );
    }
    let record = gateway.record("/over").await;
    assert_eq!(record["reason"], "rate_limited");
    assert_eq!(record["limit"], "user");
    assert_eq!(from(&gateway, "/", "192.0.2.2").await.status, 200);
    assert_eq!(app.requests(), 4);
    // A browser gets a page; HTTP/2 the same refusal.
    let fields = [("X-Forwarded-For", "192.0.2.1"), ("Accept", "text/html")];
    let page = gateway.get("/", &fields).await;
    assert!(page.status == 429 && page.text().contains("too many requests"));
    let mut h2 = H2::connect(gateway.address()).await;
    let reply = h2.get("/", &[("x-forwarded-for", "192.0.2.1")]).await;
    assert_eq!(reply.status, 429);
}

#[tokio::test]
async fn the_count_is_exact_over_all_workers_and_connections() {
    let app = App::echo().await;
    let keys = "rate_limit: {by: ip, rate: 100/d}";
    let text = format!("workers: 4\n{}", one_route(&app, keys));
    let gateway = Gateway::start(&text.replacen("workers: 2\n", "", 1)).await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let mut wire = gateway.connect().await;
        clients.spawn(async move {
            let mut passed = 0;
            for _ in 0..20 {
                passed += usize::from(wire.get("/", &[]).await.status == 200);
            }
            passed
        });
    }
    let passed: usize = clients.join_all().await.into_iter().sum();
    assert_eq!(passed, 100);
    assert_eq!(app.requests(), 100);
}

/// A path, fields, the client's address, the status.
type Row<'r> = (&'r str, &'r [(&'r str, &'r str)], &'r str, u16);

#[tokio::test]
async fn limits_count_by_header_cookie_path_and_claim() {
    let app = App::echo().await;
    let text = config(
        "trusted_proxies: [127.0.0.1]
jwt: {app: {algorithms: [HS256], secret: '@secret'}}
routes:
  - {path: /h, proxy: '@app', auth: none, rate_limit: {by: 'header:X-Key', rate: 1/d}}
  - {path: /c, proxy: '@app', auth: none, rate_limit: {by: 'cookie:sid', rate: 1/d}}
  - {path: '/u/{user}/*', proxy: '@app', auth: none, rate_limit: {by: 'path:user', rate: 1/d}}
  - {path: /t, proxy: '@app', auth: {jwt: app, optional: true}, rate_limit: {by: 'claim:sub', rate: 1/d}}
  - {path: /all, proxy: '@app', auth: none, rate_limit: {rate: 1/d}}
",
        &[
            ("secret", &key(Kind::Secret, 0).public),
            ("app", &app.url()),
        ],
    );
    let gateway = Gateway::start(&text).await;
    let bearer = |sub: Value| format!("Bearer {}", token(json!({"sub": sub})));
    let (ann, bob) = (bearer(json!("ann")), bearer(json!("bob")));
    let (seven, other) = (bearer(json!(7)), bearer(json!("7")));
    let rows: &[Row<'_>] = &[
        ("/h", &[("X-Key", "a")], "192.0.2.1", 200),
        ("/h", &[("X-Key", "a")], "192.0.2.2", 429),
        ("/h", &[("X-Key", "b")], "192.0.2.2", 200),
        // Without it, or with two, by address, which is a space of its own.
        ("/h", &[], "192.0.2.1", 200),
        ("/h", &[], "192.0.2.1", 429),
        ("/h", &[("X-Key", "a"), ("X-Key", "c")], "192.0.2.1", 429),
        ("/h", &[], "192.0.2.2", 200),
        ("/c", &[("Cookie", "x=1; sid=a")], "192.0.2.1", 200),
        ("/c", &[("Cookie", "sid=a")], "192.0.2.2", 429),
        ("/c", &[("Cookie", "sid=b")], "192.0.2.2", 200),
        ("/u/7/a", &[], "192.0.2.1", 200),
        ("/u/%37/b", &[], "192.0.2.2", 429),
        ("/u/8/a", &[], "192.0.2.1", 200),
        // An app might read another user there.
        ("/u/7;x/a", &[], "192.0.2.1", 400),
        ("/t", &[("Authorization", &ann)], "192.0.2.1", 200),
        ("/t", &[("Authorization", &ann)], "192.0.2.2", 429),
        ("/t", &[("Authorization", &bob)], "192.0.2.1", 200),
        ("/t", &[("Authorization", &seven)], "192.0.2.1", 200),
        ("/t", &[("Authorization", &other)], "192.0.2.1", 429),
        ("/t", &[], "192.0.2.1", 200),
        ("/t", &[], "192.0.2.1", 429),
        ("/all", &[], "192.0.2.1", 200),
        ("/all", &[], "192.0.2.2", 429),
    ];
    for (path, fields, client, status) in rows {
        let fields = [*fields, &[("X-Forwarded-For", client)]].concat();
        let reply = gateway.get(path, &fields).await;
        assert_eq!(reply.status, *status, "{path} {fields:?}");
    }
}

#[tokio::test]
async fn who_guesses_is_refused_even_with_the_right_token() {
    let app = App::echo().await;
    let text = config(
        "trusted_proxies: [127.0.0.1]
jwt: {app: {algorithms: [HS256], secret: '@secret'}}
routes:
  - path: /*
    proxy: '@app'
    auth: {jwt: app, require: {role: clerk}}
    rate_limit: {name: guessing, by: ip, rate: 3/d, count: refused}
",
        &[
            ("secret", &key(Kind::Secret, 0).public),
            ("app", &app.url()),
        ],
    );
    let gateway = Gateway::start(&text).await;
    let clerk = format!("Bearer {}", token(json!({"role": "clerk"})));
    let guest = format!("Bearer {}", token(json!({})));
    let send = async |client: &'static str, token: &str| {
        let fields = [("X-Forwarded-For", client), ("Authorization", token)];
        gateway.get("/", &fields).await
    };
    for _ in 0..10 {
        let reply = send("192.0.2.1", &clerk).await;
        assert_eq!((reply.status, reply.field("ratelimit")), (200, None));
    }
    assert_eq!(send("192.0.2.1", "Bearer x.y.z").await.status, 401);
    assert_eq!(send("192.0.2.1", &guest).await.status, 403);
    assert_eq!(send("192.0.2.1", &clerk).await.status, 200);
    assert_eq!(send("192.0.2.1", "Bearer x.y.z").await.status, 401);
    let refused = send("192.0.2.1", &clerk).await;
    assert_eq!(refused.status, 429, "although it is right");
    assert!(
        refused
            .field("ratelimit")
            .unwrap()
            .starts_with("\"guessing\";r=0;t=")
    );
    assert_eq!(send("192.0.2.2", &clerk).await.status, 200);
}

#[tokio::test]
async fn a_limit_that_only_reports_lets_pass_and_says_so() {
    let app = App::echo().await;
    let keys = "rate_limit: {name: shadow, by: ip, rate: 1/d, enforce: report, fields: false, except: [10.0.0.0/8]}";
    let mut gateway = Gateway::start(&one_route(&app, keys)).await;
    for (path, client, reported) in [
        ("/1", "192.0.2.1", None),
        ("/2", "192.0.2.1", Some("rate_limited")),
        ("/3", "10.0.0.1", None),
        ("/4", "10.0.0.1", None),
    ] {
        let reply = from(&gateway, path, client).await;
        assert_eq!((reply.status, reply.field("ratelimit")), (200, None));
        let record = gateway.record(path).await;
        assert_eq!(record["would_refuse"].as_str(), reported, "{path}");
        let name = reported.map(|_| "shadow");
        assert_eq!(record["limit"].as_str(), name, "{path}");
        assert_eq!(record["reason"].as_str(), None);
    }
    gateway.signal(Signal::TERM);
    assert!(gateway.exit().await.success());
    let said = gateway.stderr();
    assert!(
        said.contains("requests were over a limit") && said.contains("limit=\"shadow\" count=1"),
        "{said}"
    );
}

#[tokio::test]
async fn a_place_in_flight_is_held_until_the_last_byte_or_until_the_client_leaves() {
    let (sender, receiver) = mpsc::channel(4);
    let receiver = std::sync::Mutex::new(Some(receiver));
    let app = App::start(move |seen| match seen.target() {
        "/stream" => Answer::Stream(receiver.lock().unwrap().take().unwrap()),
        "/silent" => Answer::Silent,
        "/socket" => Answer::Upgrade,
        _ => Answer::Ok("yes"),
    })
    .await;
    let keys = "in_flight: [{by: ip, max: 1}, {max: 2}]";
    let gateway = Gateway::start(&one_route(&app, keys)).await;
    let mut streaming = gateway.connect().await;
    let fields = [("X-Forwarded-For", "192.0.2.1")];
    streaming.send(request("GET", "/stream", &fields, "")).await;
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n12";
    sender.send(head.to_vec()).await.unwrap();
    assert_eq!(streaming.head().await.status, 200);
    let refused = from(&gateway, "/refused", "192.0.2.1").await;
    assert_eq!(
        (refused.status, refused.field("retry-after")),
        (429, Some("1"))
    );
    let record = gateway.record("/refused").await;
    assert_eq!(record["reason"], "too_many_in_flight");
    assert_eq!(record["limit"], "api");
    assert_eq!(from(&gateway, "/other", "192.0.2.2").await.status, 200);
    // A place is given back before the record is written.
    gateway.record("/other").await;

    // A second client waits for an app that says nothing, and leaves.
    let mut waiting = gateway.connect().await;
    let fields = [("X-Forwarded-For", "192.0.2.2")];
    waiting.send(request("GET", "/silent", &fields, "")).await;
    // It has its place: a request of another client before that could take it.
    app.saw("/silent", |_| true).await;
    let reply = from(&gateway, "/", "192.0.2.3").await;
    assert_eq!(reply.status, 429, "both places are taken");
    drop(waiting);
    eventually("a place given back", async || {
        let reply = from(&gateway, "/", "192.0.2.2").await;
        (reply.status == 200).then_some(())
    })
    .await;

    sender.send(b"34".to_vec()).await.unwrap();
    drop(sender);
    eventually("the stream's place given back", async || {
        let reply = from(&gateway, "/", "192.0.2.1").await;
        (reply.status == 200).then_some(())
    })
    .await;

    // A tunnel has its place as long as it is open.
    let fields = [
        ("X-Forwarded-For", "192.0.2.1"),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
    ];
    let socket = eventually("a tunnel", async || {
        let mut socket = gateway.connect().await;
        socket.send(request("GET", "/socket", &fields, "")).await;
        (socket.head().await.status == 101).then_some(socket)
    })
    .await;
    assert_eq!(from(&gateway, "/", "192.0.2.1").await.status, 429);
    drop(socket);
    eventually("the tunnel's place given back", async || {
        let reply = from(&gateway, "/", "192.0.2.1").await;
        (reply.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_reload_keeps_counts_and_takes_the_debt_over() {
    let app = App::echo().await;
    let with = |keys: &str| one_route(&app, keys);
    let gateway = Gateway::start(&with(
        "rate_limit: {name: user, by: ip, rate: 2/d, keys: 1024}",
    ))
    .await;
    for status in [200, 200, 429] {
        assert_eq!(from(&gateway, "/", "192.0.2.1").await.status, status);
    }
    // Another rate, another size: the same clients.
    let changed = with("rate_limit: {name: user, by: ip, rate: 3/d, keys: 4096}, body_bytes: 1MiB");
    gateway.reconfigure(&changed).await;
    assert_eq!(from(&gateway, "/", "192.0.2.1").await.status, 429);
    assert_eq!(from(&gateway, "/", "192.0.2.2").await.status, 200);
    // Another name is another limit.
    gateway
        .reconfigure(&with("rate_limit: {name: new, by: ip, rate: 2/d}"))
        .await;
    assert_eq!(from(&gateway, "/", "192.0.2.1").await.status, 200);
}

#[tokio::test]
async fn defaults_count_for_all_routes_together_and_off_ends_them() {
    let app = App::echo().await;
    let text = "trusted_proxies: [127.0.0.1]
defaults: {rate_limit: {by: ip, rate: 2/d}, addresses: {deny: [203.0.113.0/24]}}
routes:
  - {path: /a, proxy: '@app', auth: none}
  - {path: /b, proxy: '@app', auth: none}
  - {path: /free, proxy: '@app', auth: none, rate_limit: off, addresses: off}
  - {path: /own, proxy: '@app', auth: none, rate_limit: {rate: 100/d}}
state: data/
tokens: {keys: keys/, users: users.yaml, throttle: off}
";
    let folder = Folder::new();
    folder.write("users.yaml", "{}");
    let gateway = Gateway::start_in(folder, &config(text, &[("app", &app.url())])).await;
    for (path, client, status) in [
        ("/a", "192.0.2.1", 200),
        ("/b", "192.0.2.1", 200),
        ("/a", "192.0.2.1", 429),
        ("/free", "192.0.2.1", 200),
        ("/own", "192.0.2.1", 200),
        // The gateway's own endpoints have those of the defaults.
        ("/.well-known/jwks.json", "192.0.2.1", 429),
        ("/.well-known/jwks.json", "192.0.2.2", 200),
        ("/.well-known/jwks.json", "203.0.113.1", 403),
        ("/api/token/", "203.0.113.1", 403),
        ("/a", "203.0.113.1", 403),
        ("/own", "203.0.113.1", 403),
        ("/free", "203.0.113.1", 200),
    ] {
        assert_eq!(
            from(&gateway, path, client).await.status,
            status,
            "{path} {client}"
        );
    }
}

#[tokio::test]
async fn more_addresses_are_wider_access() {
    let app = App::echo().await;
    let with = |keys: &str| one_route(&app, keys);
    let gateway = Gateway::start(&with("addresses: {allow: [10.0.0.0/8]}")).await;
    for (keys, wider) in [
        ("addresses: {allow: [10.0.0.0/9]}", None),
        (
            "addresses: {allow: [10.0.0.0/8]}",
            Some("such as 10.128.0.0 (route api)"),
        ),
        ("addresses: {deny: [10.0.0.0/8]}", Some("such as ")),
        ("body_bytes: 1MiB", Some("such as 10.0.0.0 (route api)")),
    ] {
        let before = gateway.stderr().len();
        gateway.reconfigure(&with(keys)).await;
        let log = gateway.stderr();
        let new = &log[before..];
        match wider {
            Some(said) => assert!(
                new.contains("ACCESS GOT WIDER: /") && new.contains(said),
                "{keys}: {new}"
            ),
            None => assert!(!new.contains("ACCESS GOT WIDER"), "{keys}: {new}"),
        }
    }
}

#[test]
fn explain_and_tests_know_the_clients_address() {
    let folder = Folder::new();
    folder.write(
        "gateway.yaml",
        "listeners: [{address: 127.0.0.1:8080}]
routes:
  - name: api
    path: /*
    respond: {body: yes}
    addresses: {allow: [10.0.0.0/8, unix]}
    rate_limit: [{name: address, by: ip, rate: 20/s, burst: 40, except: [10.1.0.0/16]}, {name: all, rate: 100/s, enforce: report}]
    in_flight: {max: 5}
tests:
  - {request: GET /, from: 10.1.2.3, expect: {status: 200}}
  - {request: GET /, from: unix, expect: {status: 200}}
  - {request: GET /, expect: {status: 403, reason: address_refused}}
",
    );
    let check = run_to_end(&folder, &["test"], &[]);
    assert!(check.status.success(), "{check:?}");
    let explained = |arguments: &[&str]| {
        let output = run_to_end(&folder, &[&["explain", "/"], arguments].concat(), &[]);
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), text)
    };
    let (code, text) = explained(&["--from", "10.1.2.3"]);
    assert_eq!(code, Some(0), "{text}");
    for line in [
        "addresses  10.1.2.3 is allowed",
        "limit      `api` for everybody together: 5 in flight",
        "           `address` by ip: 20/s, burst 40, every request; this address is excepted",
        "           `all` for everybody together: 100/s, every request; only reported",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let (code, text) = explained(&[]);
    assert!(
        code == Some(3) && text.contains("403 address_refused"),
        "{text}"
    );
    let (code, _) = explained(&["--from", "nobody"]);
    assert_eq!(code, Some(2));
}

#[test]
fn errors_of_the_configuration_say_where_and_what_would_be_right() {
    let folder = Folder::new();
    for (keys, said) in [
        (
            "rate_limit: {by: ip, rate: 0/s}",
            "zero would refuse everything",
        ),
        (
            "rate_limit: {by: ip, rate: 10}",
            "write `10/s` if seconds are meant",
        ),
        ("rate_limit: {by: ip}", "`rate` is missing"),
        (
            "rate_limit: {by: ip, rate: 1/s, burst: 0}",
            "a number from 1",
        ),
        (
            "rate_limit: {by: ip, rate: 1/d, burst: 400}",
            "out of bounds",
        ),
        ("rate_limit: {by: ip, rate: 2000000/s}", "out of bounds"),
        ("rate_limit: {by: ipp, rate: 1/s}", "did you mean `ip`?"),
        ("rate_limit: {by: header, rate: 1/s}", "write `header:NAME`"),
        (
            "rate_limit: {by: 'heder:X', rate: 1/s}",
            "did you mean `header`?",
        ),
        (
            "rate_limit: {by: 'claim:sub', rate: 1/s}",
            "no token whose claim",
        ),
        (
            "rate_limit: {by: 'path:usr', rate: 1/s}",
            "did you mean `user`?",
        ),
        (
            "rate_limit: [{rate: 1/s}, {by: ip, rate: 1/s}]",
            "the name of another limit here",
        ),
        (
            "rate_limit: [{name: 'a\"b', rate: 1/s}]",
            "ASCII characters without",
        ),
        ("rate_limit: []", "a list of maps"),
        ("rate_limit: no", "`off`, a map, or a list of maps"),
        (
            "rate_limit: {rate: 1/s, count: refusd}",
            "did you mean `refused`?",
        ),
        (
            "rate_limit: {rate: 1/s, shared: true}",
            "unknown key `shared`",
        ),
        ("in_flight: {max: 0}", "a number from 1 to 1000000"),
        (
            "in_flight: [{by: ip, max: 2}, {by: ip, max: 3}]",
            "counts by the same",
        ),
        ("in_flight: {by: ip}", "`max` is missing"),
        ("addresses: {}", "this allows and denies nobody"),
        (
            "addresses: {allow: [10.0.0.0/8], deny: ['::ffff:10.0.0.0/104']}",
            "this network is in both lists",
        ),
        (
            "addresses: {allow: [10.0.0.1/8]}",
            "write `10.0.0.0/8` for the whole network",
        ),
        ("addresses: {alow: [10.0.0.0/8]}", "did you mean `allow`?"),
    ] {
        let text = format!("routes: [{{path: '/{{user}}/*', respond: {{body: a}}, {keys}}}]\n");
        folder.write("gateway.yaml", config(&text, &[]));
        let output = run_to_end(&folder, &["check"], &[]);
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{keys}\n{log}");
        assert!(log.contains(said) && log.contains('^'), "{keys}\n{log}");
    }
    let defaults = "defaults: {rate_limit: {by: 'path:user', rate: 1/s}}\nroutes: [{path: /*, respond: {body: a}}]\n";
    folder.write("gateway.yaml", config(defaults, &[]));
    let output = run_to_end(&folder, &["check"], &[]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("no parameter in common"));
}

#[tokio::test]
async fn a_flood_of_addresses_neither_takes_memory_nor_frees_who_is_refused() {
    let text = config(
        "trusted_proxies: [127.0.0.1]\nlog: {access: off}\nroutes: [{path: /*, respond: {body: yes}, rate_limit: {by: ip, rate: 5/h}}]\n",
        &[],
    );
    let gateway = Gateway::start(&text).await;
    while from(&gateway, "/", "192.0.2.1").await.status == 200 {}
    let mut wire = gateway.connect().await;
    // Pipelined, a thousand at a time.
    let mut flood = async |thousands: std::ops::Range<u32>| {
        for thousand in thousands {
            let batch: String = (0..1000)
                .map(|at| {
                    let ip = std::net::Ipv4Addr::from_bits(0x0a00_0000 + thousand * 1000 + at);
                    format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {ip}\r\n\r\n")
                })
                .collect();
            wire.send(batch).await;
            for _ in 0..1000 {
                assert_eq!(wire.reply().await.status, 200);
            }
        }
    };
    flood(0..20).await;
    let before = gateway.resident();
    flood(20..60).await;
    assert_eq!(from(&gateway, "/", "192.0.2.1").await.status, 429);
    if let (Some(before), Some(after)) = (before, gateway.resident()) {
        // The table has a mebibyte; 40,000 more clients would take more than that if they were kept anywhere.
        assert!(after < before + (4 << 20), "{before} {after}");
    }
}
