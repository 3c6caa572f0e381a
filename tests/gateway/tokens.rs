//! The token service from outside: simplejwt's wire format, refresh families, users, keys, and what is
//! left of all that after kill -9.

use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::support::{
    Answer, App, Folder, Gateway, Reply, Seen, Wire, config, eventually, free_port, get, local,
    request, run_to_end, within,
};

const PASSWORD: &str = "correct horse battery";

fn text(more: &str) -> String {
    config(
        &format!(
            "tokens:\n  issuer: https://www.example.com\n  keys: keys/\n  users: users.yaml\n  claims: {{roles: '{{user.roles}}', user_id: '{{user.name}}', tenant: 7}}\n{more}state: data/\n\
             routes:\n  - {{path: /in, respond: {{body: in}}, auth: tokens}}\n  - {{path: /clerks, respond: {{body: in}}, auth: {{jwt: tokens, require: {{roles: [clerk]}}}}}}\n  - {{path: /*, respond: {{body: open}}}}\n"
        ),
        &[],
    )
}

const FREE: &str = "  throttle: off\n";

/// A folder with this configuration and the users alice, a clerk, and bob.
fn folder(text: &str) -> Folder {
    let folder = Folder::new();
    folder.write("gateway.yaml", text);
    user(&folder, &["add", "alice", "--set", "roles=[\"clerk\"]"]);
    user(&folder, &["add", "bob"]);
    folder
}

#[tokio::test]
async fn a_start_waits_for_a_state_that_another_process_still_uses() {
    let folder = folder(&text(FREE));
    let data = folder.path("data");
    let mut first = Gateway::start_in(folder, &text(FREE)).await;
    let next = Folder::new();
    for name in ["keys", "users.yaml"] {
        next.link(name, first.folder.path(name));
    }
    let there = text(FREE).replace("state: data/", &format!("state: '{}'", data.display()));
    let ending = async {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        first.signal(Signal::TERM);
        first.exit().await;
    };
    let (second, ()) = tokio::join!(Gateway::start_in(next, &there), ending);
    assert!(second.stderr().contains("another process uses `state`"));
    login(&second, "alice").await;
}

/// `portcullis user`, with the password in a pipe.
fn user(folder: &Folder, arguments: &[&str]) -> String {
    let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .arg("user")
        .args(arguments)
        .arg("-c")
        .arg(folder.path("gateway.yaml"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, format!("{PASSWORD}\n").as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

async fn gateway(more: &str) -> Gateway {
    let folder = folder(&text(more));
    Gateway::start_as_it_is(folder, 1, &[]).await
}

async fn post(gateway: &Gateway, path: &str, body: &Value) -> Reply {
    let mut wire = gateway.connect().await;
    let fields = [("Content-Type", "application/json")];
    wire.send(request("POST", path, &fields, body.to_string()))
        .await;
    wire.reply().await
}

fn body_of(reply: &Reply) -> Value {
    serde_json::from_str(&reply.text()).unwrap_or(Value::Null)
}

/// The access and the refresh token of a login.
async fn login(gateway: &Gateway, name: &str) -> (String, String) {
    let reply = post(
        gateway,
        "/api/token/",
        &json!({"username": name, "password": PASSWORD}),
    )
    .await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    pair(&reply)
}

fn pair(reply: &Reply) -> (String, String) {
    let body = body_of(reply);
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    (text("access"), text("refresh"))
}

async fn opens(gateway: &Gateway, access: &str) -> u16 {
    let field = format!("Bearer {access}");
    gateway
        .get("/in", &[("Authorization", &field)])
        .await
        .status
}

fn claims(token: &str) -> Value {
    use base64::Engine as _;
    let part = token.split('.').nth(1).unwrap();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(part)
        .unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[tokio::test]
async fn the_endpoints_answer_as_simplejwt_does() {
    let gateway = gateway(FREE).await;
    let (access, refresh) = login(&gateway, "alice").await;
    let refused = json!({"detail": "No active account found with the given credentials"});
    let required = json!(["This field is required."]);
    let not_valid = |detail: &str| json!({"detail": detail, "code": "token_not_valid"});
    for (path, body, status, answer) in [
        (
            "/api/token/",
            json!({"username": "alice", "password": "x"}),
            401,
            refused.clone(),
        ),
        (
            "/api/token/",
            json!({"username": "nobody", "password": PASSWORD}),
            401,
            refused.clone(),
        ),
        (
            "/api/token/",
            json!({}),
            400,
            json!({"username": required, "password": required}),
        ),
        (
            "/api/token/",
            json!({"username": "a", "password": ""}),
            400,
            json!({"password": ["This field may not be blank."]}),
        ),
        (
            "/api/token/refresh/",
            json!({}),
            400,
            json!({"refresh": required}),
        ),
        (
            "/api/token/refresh/",
            json!({"refresh": "x"}),
            401,
            not_valid("Token is invalid"),
        ),
        (
            "/api/token/refresh/",
            json!({"refresh": access}),
            401,
            not_valid("Token has wrong type"),
        ),
        (
            "/api/token/verify/",
            json!({"token": access}),
            200,
            json!({}),
        ),
        (
            "/api/token/verify/",
            json!({"token": refresh}),
            200,
            json!({}),
        ),
        (
            "/api/token/verify/",
            json!({"token": "x"}),
            401,
            not_valid("Token is invalid"),
        ),
        (
            "/api/token/verify/",
            json!({}),
            400,
            json!({"token": required}),
        ),
        (
            "/api/token/blacklist/",
            json!({"refresh": access}),
            401,
            not_valid("Token has wrong type"),
        ),
        (
            "/api/token/blacklist/",
            json!({"refresh": refresh}),
            200,
            json!({}),
        ),
        (
            "/api/token/blacklist/",
            json!({"refresh": refresh}),
            401,
            not_valid("Token is blacklisted"),
        ),
        (
            "/api/token/refresh/",
            json!({"refresh": refresh}),
            401,
            not_valid("Token is blacklisted"),
        ),
        (
            "/api/token/verify/",
            json!({"token": refresh}),
            401,
            not_valid("Token is blacklisted"),
        ),
        (
            "/api/token/verify/",
            json!({"token": access}),
            401,
            not_valid("Token is blacklisted"),
        ),
    ] {
        let reply = post(&gateway, path, &body).await;
        assert_eq!(
            (reply.status, body_of(&reply)),
            (status, answer),
            "{path} {body}"
        );
        assert_eq!(reply.field("cache-control"), Some("no-store"));
        assert_eq!(reply.field("content-type"), Some("application/json"));
        let challenge = (status == 401).then_some("Bearer realm=\"api\"");
        assert_eq!(reply.field("www-authenticate"), challenge, "{path} {body}");
    }
    let send = async |method: &str, kind: &str, body: &str| {
        let mut wire = gateway.connect().await;
        wire.send(request(
            method,
            "/api/token/",
            &[("Content-Type", kind)],
            body,
        ))
        .await;
        wire.reply().await
    };
    let reply = send("GET", "application/json", "").await;
    assert_eq!((reply.status, reply.field("allow")), (405, Some("POST")));
    assert_eq!(
        body_of(&reply),
        json!({"detail": "Method \"GET\" not allowed."})
    );
    assert_eq!(send("POST", "application/json", "{").await.status, 400);
    assert_eq!(send("POST", "application/json", "[1]").await.status, 400);
    assert_eq!(send("POST", "text/plain", "x").await.status, 415);
    let long = format!("{{\"username\":\"{}\"}}", "x".repeat(70_000));
    assert_eq!(send("POST", "application/json", &long).await.status, 413);
    let form = format!("username=alice&password={}", PASSWORD.replace(' ', "+"));
    assert_eq!(
        send("POST", "application/x-www-form-urlencoded", &form)
            .await
            .status,
        200
    );
    // A slash at the end may be left out.
    let body = json!({"username": "alice", "password": PASSWORD});
    assert_eq!(post(&gateway, "/api/token", &body).await.status, 200);
    // RFC 7009: whatever the token was, it is no longer good.
    let (access, _) = login(&gateway, "alice").await;
    for token in [access.as_str(), "x"] {
        let reply = post(&gateway, "/api/token/revoke/", &json!({"token": token})).await;
        assert_eq!((reply.status, reply.text().as_str()), (200, ""));
    }
    assert_eq!(opens(&gateway, &access).await, 401);
}

#[tokio::test]
async fn tokens_say_what_the_configuration_and_the_users_file_say() {
    let gateway = gateway(FREE).await;
    let (access, refresh) = login(&gateway, "alice").await;
    let (access_claims, refresh_claims) = (claims(&access), claims(&refresh));
    for (name, value) in [
        ("token_type", json!("access")),
        ("iss", json!("https://www.example.com")),
        ("sub", json!("alice")),
        ("user_id", json!("alice")),
        ("roles", json!(["clerk"])),
        ("tenant", json!(7)),
    ] {
        assert_eq!(access_claims[name], value, "{name}");
    }
    let life = |claims: &Value| claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
    assert_eq!((life(&access_claims), life(&refresh_claims)), (300, 86_400));
    assert_eq!(refresh_claims["token_type"], "refresh");
    assert_eq!(refresh_claims["roles"], Value::Null);
    assert_ne!(access_claims["jti"], refresh_claims["jti"]);
    let field = format!("Bearer {access}");
    let clerk = [("Authorization", field.as_str())];
    assert_eq!(gateway.get("/clerks", &clerk).await.status, 200);
    let (bob, _) = login(&gateway, "bob").await;
    let field = format!("Bearer {bob}");
    assert_eq!(
        gateway
            .get("/clerks", &[("Authorization", &field)])
            .await
            .status,
        403
    );
    assert_eq!(opens(&gateway, &bob).await, 200);
    // A refresh token opens nothing.
    assert_eq!(opens(&gateway, &refresh).await, 401);
    // Neither does a key set that is published make tokens.
    let set = body_of(&gateway.get("/.well-known/jwks.json", &[]).await);
    let key = &set["keys"][0];
    assert_eq!(
        (&key["kty"], &key["alg"], &key["d"]),
        (&json!("EC"), &json!("ES256"), &Value::Null)
    );
    for token in [&access, &refresh] {
        let log = gateway.output() + &gateway.stderr();
        assert!(!log.contains(token.as_str()) && !log.contains(PASSWORD));
    }
}

#[tokio::test]
async fn a_refresh_token_is_good_once_and_its_late_reuse_ends_the_family() {
    let gateway = gateway("  throttle: off\n  refresh_grace: 1s\n").await;
    let (first_access, first) = login(&gateway, "alice").await;
    let renew =
        async |token: &str| post(&gateway, "/api/token/refresh/", &json!({"refresh": token})).await;
    let reply = renew(&first).await;
    assert_eq!(reply.status, 200);
    let (access, second) = pair(&reply);
    assert_eq!(opens(&gateway, &access).await, 200);
    // Two tabs: the same successor.
    let (_, again) = pair(&renew(&first).await);
    assert_eq!(claims(&again)["jti"], claims(&second)["jti"]);
    assert_eq!(claims(&again), claims(&second));
    // Whether a token was spent is not told to who only looks.
    for token in [&first, &second] {
        let reply = post(&gateway, "/api/token/verify/", &json!({"token": token})).await;
        assert_eq!(reply.status, 200);
    }
    let (_, third) = pair(&renew(&second).await);
    assert_ne!(claims(&third)["jti"], claims(&second)["jti"]);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    // A thief comes late: everybody is out, at once, with the access tokens too.
    let reply = renew(&second).await;
    assert_eq!(
        (reply.status, body_of(&reply)["code"].as_str()),
        (401, Some("token_not_valid"))
    );
    assert_eq!(
        gateway.record("/api/token/refresh/").await["route"],
        "tokens refresh"
    );
    for token in [&first, &second, &third] {
        assert_eq!(renew(token).await.status, 401);
    }
    for _ in 0..8 {
        assert_eq!(opens(&gateway, &first_access).await, 401);
        assert_eq!(opens(&gateway, &access).await, 401);
    }
    assert!(gateway.stderr().contains("used again"));
}

#[tokio::test]
async fn a_thousand_refreshes_of_one_token_make_one_successor_for_two() {
    let gateway = std::sync::Arc::new(gateway("  throttle: off\n  refresh_grace: 1m\n").await);
    let (_, token) = login(&gateway, "alice").await;
    let address = gateway.address();
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let body = json!({"refresh": token}).to_string();
            tokio::spawn(async move {
                let mut wire = Wire::connect(address).await;
                let mut seen = Vec::new();
                for _ in 0..50 {
                    let fields = [("Content-Type", "application/json")];
                    wire.send(request("POST", "/api/token/refresh/", &fields, &body))
                        .await;
                    let reply = wire.reply().await;
                    seen.push((reply.status, pair(&reply)));
                }
                seen
            })
        })
        .collect();
    let mut seen = Vec::new();
    for task in tasks {
        seen.extend(task.await.unwrap());
    }
    assert_eq!(seen.len(), 1000);
    // Who spent it, and once more; whoever comes then has a copy, and all are out.
    let (good, refused): (Vec<_>, Vec<_>) =
        seen.into_iter().partition(|(status, _)| *status == 200);
    assert!(refused.iter().all(|(status, _)| *status == 401));
    let jti = |of: &(u16, (String, String))| claims(&of.1.1)["jti"].clone();
    assert_eq!(good.len(), 2);
    assert_eq!(jti(&good[0]), jti(&good[1]));
    assert_eq!(opens(&gateway, &good[0].1.0).await, 401);
}

#[tokio::test]
async fn logging_out_everywhere_ends_the_other_sessions_and_not_the_next_one() {
    let gateway = gateway(FREE).await;
    let (phone_access, phone) = login(&gateway, "alice").await;
    let (_, laptop) = login(&gateway, "alice").await;
    let (bob, _) = login(&gateway, "bob").await;
    assert_eq!(opens(&gateway, &phone_access).await, 200);
    let everywhere = json!({"refresh": laptop, "everywhere": true});
    assert_eq!(
        post(&gateway, "/api/token/blacklist/", &everywhere)
            .await
            .status,
        200
    );
    assert_eq!(opens(&gateway, &phone_access).await, 401);
    let renewed = post(&gateway, "/api/token/refresh/", &json!({"refresh": phone})).await;
    assert_eq!(renewed.status, 401);
    assert_eq!(opens(&gateway, &bob).await, 200);
    let (access, _) = login(&gateway, "alice").await;
    assert_eq!(opens(&gateway, &access).await, 200);
}

#[tokio::test]
async fn what_a_session_opened_ends_with_it_where_the_route_says_so() {
    let app = App::start(|_| Answer::Upgrade).await;
    let text = text(FREE).replace(
        "routes:\n",
        &format!(
            "routes:\n  - {{path: /socket/*, proxy: '{}', auth: {{jwt: tokens, on_expiry: close}}}}\n",
            app.url()
        ),
    );
    let gateway = Gateway::start_as_it_is(folder(&text), 1, &[]).await;
    let open = async |path: &str, access: &str| {
        let mut wire = gateway.connect().await;
        let bearer = format!("Bearer {access}");
        let fields = [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Authorization", &bearer),
        ];
        wire.send(request("GET", path, &fields, "")).await;
        assert_eq!(wire.head().await.status, 101);
        wire
    };
    let (one, refresh) = login(&gateway, "alice").await;
    let (two, _) = login(&gateway, "alice").await;
    let (bob, _) = login(&gateway, "bob").await;
    assert_eq!(
        claims(&one)["auth_time"]
            .as_u64()
            .map(|at| at > 1_700_000_000),
        Some(true)
    );
    let mut wires = Vec::new();
    for (path, access) in [
        ("/socket/1", &one),
        ("/socket/2", &two),
        ("/socket/3", &bob),
    ] {
        wires.push((path, open(path, access).await));
    }
    let ended = async |(path, wire): &mut (&str, Wire)| {
        let closed = within(Duration::from_secs(9), wire.closed()).await;
        assert!(closed.is_some(), "{path}");
        assert_eq!(
            gateway.record(path).await["reason"],
            "session_ended",
            "{path}"
        );
    };
    let body = json!({"refresh": refresh});
    let reply = post(&gateway, "/api/token/blacklist/", &body).await;
    assert_eq!(reply.status, 200);
    ended(&mut wires[0]).await;
    for (_, wire) in &mut wires[1..] {
        wire.send("ping").await;
        assert_eq!(wire.take(4).await, b"ping");
    }
    user(&gateway.folder, &["disable", "bob"]);
    ended(&mut wires[2]).await;
    user(&gateway.folder, &["remove", "alice"]);
    ended(&mut wires[1]).await;
}

#[tokio::test]
async fn a_route_says_of_a_bad_token_what_simplejwts_clients_look_for() {
    let gateway = gateway(FREE).await;
    let (_, refresh) = login(&gateway, "alice").await;
    for (fields, status, code) in [
        (vec![], 401, Value::Null),
        (vec!["Bearer "], 400, Value::Null),
        (vec!["Bearer x.y.z"], 401, json!("token_not_valid")),
        (
            vec![&*format!("Bearer {refresh}")],
            401,
            json!("token_not_valid"),
        ),
    ] {
        let fields: Vec<_> = fields.iter().map(|it| ("Authorization", *it)).collect();
        let reply = gateway.get("/in", &fields).await;
        let body = body_of(&reply);
        assert_eq!((reply.status, &body["code"]), (status, &code), "{fields:?}");
        assert_eq!(body["status"], status);
    }
}

#[tokio::test]
async fn who_is_disabled_or_removed_is_out_and_who_is_new_is_in() {
    let gateway = gateway(FREE).await;
    let (alice, alice_refresh) = login(&gateway, "alice").await;
    let (bob, bob_refresh) = login(&gateway, "bob").await;
    for token in [&alice, &bob] {
        assert_eq!(opens(&gateway, token).await, 200);
    }
    let change = async |arguments: &[&str]| {
        let before = gateway.reloads();
        user(&gateway.folder, arguments);
        gateway.reloaded_after(before).await;
    };
    change(&["disable", "alice"]).await;
    change(&["remove", "bob"]).await;
    change(&["add", "carol"]).await;
    for (access, refresh) in [(&alice, &alice_refresh), (&bob, &bob_refresh)] {
        eventually("the end of the session", async || {
            (opens(&gateway, access).await == 401).then_some(())
        })
        .await;
        let reply = post(
            &gateway,
            "/api/token/refresh/",
            &json!({"refresh": refresh}),
        )
        .await;
        assert_eq!(reply.status, 401);
    }
    let refused = post(
        &gateway,
        "/api/token/",
        &json!({"username": "alice", "password": PASSWORD}),
    )
    .await;
    assert_eq!(refused.status, 401);
    let (carol, _) = login(&gateway, "carol").await;
    assert_eq!(opens(&gateway, &carol).await, 200);
    change(&["enable", "alice"]).await;
    let (alice, _) = login(&gateway, "alice").await;
    assert_eq!(opens(&gateway, &alice).await, 200);
    let list = user(&gateway.folder, &["list"]);
    assert!(
        list.contains("alice\tactive") && list.contains("carol\tactive") && !list.contains("bob")
    );
    assert!(!list.contains("argon2"), "{list}");
    let file = std::fs::metadata(gateway.folder.path("users.yaml")).unwrap();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&file.permissions()) & 0o777,
        0o600
    );
}

#[tokio::test]
async fn hashes_that_were_brought_along_log_in_and_are_renewed() {
    let folder = Folder::new();
    folder.write("gateway.yaml", text(FREE));
    // Django's and htpasswd's of "correct horse battery".
    let django = "pbkdf2_sha256$1000$saltsalt$2vLrmxK8YFROnGTL6oinO4bfT02gvTppeFbz7HWz5X0=";
    let htpasswd = "$2b$04$bMKNKDsPvCoO.CUpmz5nteGG9S0VGw74ZvaDPUx9KDd7bw7vPOvju";
    let users =
        format!("# By hand.\ndora: {{password: {django}, id: 7}}\neve: {{password: {htpasswd}}}\n");
    folder.write("users.yaml", users);
    let gateway = Gateway::start_as_it_is(folder, 1, &[]).await;
    let file = || std::fs::read_to_string(gateway.folder.path("users.yaml")).unwrap();
    // Faster after each other than any reload.
    for name in ["dora", "eve"] {
        login(&gateway, name).await;
    }
    eventually("hashes of today's kind", async || {
        (file().matches("$argon2id$").count() == 2).then_some(())
    })
    .await;
    for name in ["dora", "eve"] {
        let (access, _) = login(&gateway, name).await;
        assert_eq!(opens(&gateway, &access).await, 200);
    }
    assert!(file().contains("\n  id: 7\n") && file().matches("$argon2id$").count() == 2);
}

#[tokio::test]
async fn tries_are_counted_for_an_address_and_for_a_user() {
    let gateway = gateway("  throttle: {per_ip: 100/m, per_user: 3/m}\n").await;
    let body = |name: &str| json!({"username": name, "password": "wrong"});
    for _ in 0..3 {
        assert_eq!(
            post(&gateway, "/api/token/", &body("alice")).await.status,
            401
        );
    }
    let reply = post(&gateway, "/api/token/", &body("alice")).await;
    assert_eq!(reply.status, 429);
    let wait: u64 = reply.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=20).contains(&wait), "{wait}");
    assert!(reply.text().contains("Request was throttled"));
    eventually("the record", async || {
        let records = gateway.records();
        let throttled = |record: &Value| record["reason"] == "throttled";
        records.iter().any(throttled).then_some(())
    })
    .await;
    // Others may still try.
    let (access, _) = login(&gateway, "bob").await;
    assert_eq!(opens(&gateway, &access).await, 200);
}

#[tokio::test]
async fn keys_rotate_without_a_token_refused() {
    let gateway = gateway("  throttle: off\n  rotate_keys_after: 1s\n").await;
    let (old, old_refresh) = login(&gateway, "alice").await;
    let before = gateway.reloads();
    let rotated = run_to_end(&gateway.folder, &["key", "rotate"], &[]);
    assert!(rotated.status.success());
    gateway.reloaded_after(before).await;
    let kid = |token: &str| {
        use base64::Engine as _;
        let part = token.split('.').next().unwrap();
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(part)
            .unwrap();
        let header: Value = serde_json::from_slice(&bytes).unwrap();
        header["kid"].as_str().unwrap().to_owned()
    };
    // Published at once, signing a little later, without a reload.
    let set = body_of(&gateway.get("/.well-known/jwks.json", &[]).await);
    assert_eq!(set["keys"].as_array().unwrap().len(), 2);
    eventually("the new key", async || {
        let (access, _) = login(&gateway, "alice").await;
        assert_eq!(opens(&gateway, &access).await, 200);
        (kid(&access) != kid(&old)).then_some(())
    })
    .await;
    assert_eq!(opens(&gateway, &old).await, 200);
    let renewed = post(
        &gateway,
        "/api/token/refresh/",
        &json!({"refresh": old_refresh}),
    )
    .await;
    assert_eq!(renewed.status, 200);
    let list = run_to_end(&gateway.folder, &["key", "list"], &[]);
    let list = String::from_utf8(list.stdout).unwrap();
    assert!(
        list.contains("signs\n") && list.contains("verifies\n"),
        "{list}"
    );
    for entry in std::fs::read_dir(gateway.folder.path("keys")).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions();
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777,
            0o600
        );
    }
}

#[tokio::test]
async fn a_token_is_shown_and_checked_at_the_prompt() {
    let gateway = gateway(FREE).await;
    let (access, refresh) = login(&gateway, "alice").await;
    let run = |arguments: &[&str]| {
        let output = run_to_end(&gateway.folder, arguments, &[]);
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code().unwrap(), said)
    };
    let (status, said) = run(&["token", "decode", &access]);
    assert!(
        status == 0 && said.contains("\"sub\": \"alice\"") && said.contains("ES256"),
        "{said}"
    );
    assert_eq!(run(&["token", "decode", "x.y"]).0, 1);
    let (status, said) = run(&["token", "verify", &access]);
    assert!(status == 0 && said.contains("tokens: accepts it"), "{said}");
    let (status, said) = run(&["token", "verify", &refresh]);
    assert_eq!(status, 1);
    assert!(
        said.contains("token_type is \"refresh\", the verifier wants \"access\""),
        "{said}"
    );
    let (status, said) = run(&["token", "verify", &format!("{access}x")]);
    assert!(status == 1 && said.contains("tokens: "), "{said}");
}

#[tokio::test]
async fn what_was_answered_survives_kill_9() {
    let text = text("  throttle: off\n  refresh_grace: 0s\n");
    let mut folder = folder(&text);
    let mut tokens: Vec<String> = Vec::new();
    for round in 0..6 {
        let mut gateway = Gateway::start_as_it_is(folder, 1, &[]).await;
        // Every session that was answered goes on.
        for token in std::mem::take(&mut tokens) {
            let reply = post(&gateway, "/api/token/refresh/", &json!({"refresh": token})).await;
            assert_eq!(reply.status, 200, "round {round}");
            tokens.push(pair(&reply).1);
        }
        // And none that was ended comes back.
        if let Some(ended) = tokens.pop() {
            let body = json!({"refresh": ended});
            assert_eq!(
                post(&gateway, "/api/token/blacklist/", &body).await.status,
                200
            );
            tokens.push(login(&gateway, "alice").await.1);
            gateway.signal(Signal::KILL);
            gateway.exit().await;
            folder = std::mem::replace(&mut gateway.folder, Folder::new());
            gateway = Gateway::start_as_it_is(folder, 1, &[]).await;
            assert_eq!(
                post(&gateway, "/api/token/refresh/", &body).await.status,
                401
            );
        }
        tokens.push(login(&gateway, "bob").await.1);
        // In the middle of whatever goes on.
        let address = gateway.address();
        let traffic: Vec<_> = (0..4)
            .map(|_| {
                tokio::spawn(async move {
                    let body = json!({"username": "alice", "password": PASSWORD}).to_string();
                    let fields = [("Content-Type", "application/json")];
                    let mut wire = Wire::connect(address).await;
                    drop(
                        wire.try_send(request("POST", "/api/token/", &fields, &body))
                            .await,
                    );
                    wire.fill().await
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(37 * round)).await;
        gateway.signal(Signal::KILL);
        gateway.exit().await;
        for task in traffic {
            drop(task.await);
        }
        folder = std::mem::replace(&mut gateway.folder, Folder::new());
    }
    assert!(tokens.len() >= 6);
}

#[tokio::test]
async fn two_gateways_do_not_share_a_folder_and_mistakes_are_said() {
    let gateway = gateway(FREE).await;
    let second = run_to_end(&gateway.folder, &["run"], &[]);
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(
        !second.status.success() && said.contains("token service cannot start"),
        "{said}"
    );
    assert_eq!(
        get(local(gateway.address().port()), "/", &[]).await.status,
        200
    );
    for (from, to, said) in [
        ("state: data/\n", "", "need `state`"),
        ("  keys: keys/\n", "", "`keys` is missing"),
        ("  users: users.yaml\n", "", "who may log in is not said"),
        (
            "  throttle: off\n",
            "  login: http://127.0.0.1:1/in\n",
            "either `users` or `login`",
        ),
        (
            "  users: users.yaml\n",
            "  login: ftp://127.0.0.1/\n",
            "URL of an app",
        ),
        (
            "  throttle: off\n",
            "  username_field: password\n",
            "such as `email`",
        ),
        ("tenant: 7", "sub: x", "a claim of the service's own"),
        ("tenant: 7", "aud: x", "a claim of the service's own"),
        ("{user.name}", "{user.password}", "nobody's to read"),
        ("{user.name}", "{name}", "{user.roles}"),
        (
            "  throttle: off\n",
            "  throttle: {per_ip: 10}\n",
            "rates are",
        ),
        ("  throttle: off\n", "  algorithm: none\n", "an algorithm"),
        (
            "  throttle: off\n",
            "  access_lifetime: 1500ms\n",
            "no fraction",
        ),
        (
            "  throttle: off\n",
            "  refresh_lifetime: 1m\n",
            "renews nothing",
        ),
        ("  throttle: off\n", "  path: /*\n", "a star stands last"),
        ("path: /in", "path: /api/token/", "has the path"),
    ] {
        let folder = Folder::new();
        folder.write("users.yaml", "{}");
        let changed = text(FREE).replace(from, to);
        assert_ne!(changed, text(FREE), "{from}");
        folder.write("gateway.yaml", changed);
        let output = run_to_end(&folder, &["check"], &[]);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{to}");
        assert!(errors.contains(said), "{said}: {errors}");
    }
    for (users, said) in [
        ("alice: {password: plain}", "portcullis user password"),
        ("[]", "a map of users"),
        ("alice: {active: 1}", "true or false"),
    ] {
        let folder = Folder::new();
        folder.write("users.yaml", users);
        folder.write("gateway.yaml", text(FREE));
        let output = run_to_end(&folder, &["check"], &[]);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(
            errors.contains(said) && errors.contains("users.yaml"),
            "{errors}"
        );
    }
    // `check` makes neither keys nor a store.
    let folder = Folder::new();
    folder.write("users.yaml", "{}");
    folder.write("gateway.yaml", text(FREE));
    assert!(run_to_end(&folder, &["check"], &[]).status.success());
    assert!(!folder.path("keys").exists() && !folder.path("data").exists());
}

#[tokio::test]
async fn sessions_end_with_what_the_users_file_says_whether_or_not_the_gateway_ran_then() {
    let mut gateway = gateway(FREE).await;
    let refused = async |gateway: &Gateway, (access, refresh): &(String, String)| {
        let body = json!({"refresh": refresh});
        let renewed = post(gateway, "/api/token/refresh/", &body).await.status;
        let verified = post(gateway, "/api/token/verify/", &json!({"token": access})).await;
        (opens(gateway, access).await, renewed, verified.status)
    };
    let (alice, bob) = (login(&gateway, "alice").await, login(&gateway, "bob").await);
    // Another hash, put there by hand: whoever logged in with the old password until the gateway saw it is out.
    let users = gateway.folder.path("users.yaml");
    let hash_of = |name: &str| {
        let text = std::fs::read_to_string(&users).unwrap();
        let (_, user) = text.split_once(&format!("{name}:\n")).unwrap();
        let (_, hash) = user.split_once("password: ").unwrap();
        hash.lines().next().unwrap().to_owned()
    };
    let text = std::fs::read_to_string(&users).unwrap();
    let before = gateway.reloads();
    gateway.folder.write(
        "users.yaml",
        text.replace(&hash_of("bob"), &hash_of("alice")),
    );
    gateway.reloaded_after(before).await;
    eventually("the end of bob's session", async || {
        (refused(&gateway, &bob).await == (401, 401, 401)).then_some(())
    })
    .await;
    assert_eq!(refused(&gateway, &alice).await, (200, 200, 200));
    let (alice, bob) = (login(&gateway, "alice").await, login(&gateway, "bob").await);
    // Off and on again, mostly within one reload.
    let before = gateway.reloads();
    user(&gateway.folder, &["disable", "alice"]);
    user(&gateway.folder, &["enable", "alice"]);
    gateway.reloaded_after(before).await;
    assert_eq!(refused(&gateway, &alice).await, (401, 401, 401));
    eventually("alice is enabled again", async || {
        let body = json!({"username": "alice", "password": PASSWORD});
        let reply = post(&gateway, "/api/token/", &body).await;
        (reply.status == 200).then_some(())
    })
    .await;
    let alice = login(&gateway, "alice").await;
    assert_eq!(opens(&gateway, &alice.0).await, 200);

    gateway.signal(Signal::KILL);
    gateway.exit().await;
    let folder = std::mem::replace(&mut gateway.folder, Folder::new());
    user(&folder, &["password", "alice"]);
    user(&folder, &["remove", "bob"]);
    user(&folder, &["add", "bob"]);
    let gateway = Gateway::start_as_it_is(folder, 1, &[]).await;
    for gone in [&alice, &bob] {
        assert_eq!(refused(&gateway, gone).await, (401, 401, 401));
    }
    for name in ["alice", "bob"] {
        let (access, _) = login(&gateway, name).await;
        assert_eq!(opens(&gateway, &access).await, 200);
    }
    let list = user(&gateway.folder, &["list"]);
    assert!(!list.contains("since"), "{list}");
}

#[test]
fn the_first_user_and_the_first_key_get_a_directory_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = Folder::new();
    let users = text(FREE).replace("users: users.yaml", "users: accounts/of/users.yaml");
    folder.write("gateway.yaml", users);
    let list = run_to_end(&folder, &["user", "list"], &[]);
    assert_eq!(list.status.code(), Some(1), "looking makes nothing");
    assert!(!folder.path("accounts").exists());
    user(&folder, &["add", "alice"]);
    let key = run_to_end(
        &folder,
        &["apikey", "add", "ci", "--file", "keyed/keys.yaml"],
        &[],
    );
    assert!(key.status.success(), "{key:?}");
    for (path, mode) in [
        ("accounts", 0o700),
        ("accounts/of", 0o700),
        ("accounts/of/users.yaml", 0o600),
        ("keyed", 0o700),
        ("keyed/keys.yaml", 0o600),
    ] {
        let there = std::fs::metadata(folder.path(path)).unwrap();
        assert_eq!(there.permissions().mode() & 0o777, mode, "{path}");
    }
    // One that is there keeps its mode.
    let open = std::fs::Permissions::from_mode(0o750);
    std::fs::set_permissions(folder.path("accounts/of"), open).unwrap();
    user(&folder, &["add", "bob"]);
    let kept = std::fs::metadata(folder.path("accounts/of")).unwrap();
    assert_eq!(kept.permissions().mode() & 0o777, 0o750);
}

#[tokio::test]
async fn a_users_file_or_keys_that_vanish_end_nobodys_session() {
    let gateway = gateway(FREE).await;
    let (access, _) = login(&gateway, "alice").await;
    let users = gateway.folder.path("users.yaml");
    let aside = gateway.folder.path("aside.yaml");
    std::fs::rename(&users, &aside).unwrap();
    eventually("the refusal of the reload", async || {
        gateway.stderr().contains("is gone").then_some(())
    })
    .await;
    assert_eq!(opens(&gateway, &access).await, 200);
    login(&gateway, "alice").await;
    std::fs::rename(&aside, &users).unwrap();
    std::fs::rename(gateway.folder.path("keys"), gateway.folder.path("k")).unwrap();
    eventually("the refusal of the reload", async || {
        gateway
            .stderr()
            .contains("no longer has signing keys")
            .then_some(())
    })
    .await;
    assert_eq!(opens(&gateway, &access).await, 200);
    std::fs::rename(gateway.folder.path("k"), gateway.folder.path("keys")).unwrap();
    user(&gateway.folder, &["add", "carol"]);
    eventually("carol's login", async || {
        let body = json!({"username": "carol", "password": PASSWORD});
        (post(&gateway, "/api/token/", &body).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(opens(&gateway, &access).await, 200);
}

#[tokio::test]
async fn the_endpoints_are_on_every_host_that_has_routes() {
    let text = text(FREE).replace(
        "routes:\n",
        "routes:\n  - {host: api.example.com, path: /in, respond: {body: in}, auth: tokens}\n",
    );
    let gateway = Gateway::start_as_it_is(folder(&text), 1, &[]).await;
    let body = json!({"username": "alice", "password": PASSWORD}).to_string();
    for host in ["api.example.com", "elsewhere.example.com"] {
        let fields = [("Content-Type", "application/json"), ("Host", host)];
        let mut wire = gateway.connect().await;
        wire.send(request("POST", "/api/token/", &fields, &body))
            .await;
        let reply = wire.reply().await;
        assert_eq!(reply.status, 200, "{host}: {}", reply.text());
        let token = format!("Bearer {}", pair(&reply).0);
        let fields = [("Authorization", token.as_str()), ("Host", host)];
        assert_eq!(gateway.get("/in", &fields).await.status, 200, "{host}");
    }
}

#[tokio::test]
async fn without_its_servers_a_gateway_starts_and_issues_nothing() {
    let port = free_port();
    let folder = folder(&text_with_state(&format!(
        "redis://:s3cret@127.0.0.1:{port}/1"
    )));
    let printed = run_to_end(&folder, &["check", "--print"], &[]);
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.contains("state: '***'") && !printed.contains("s3cret"));
    let gateway = Gateway::start_as_it_is(folder, 1, &[]).await;
    let body = json!({"username": "alice", "password": PASSWORD});
    let reply = post(&gateway, "/api/token/", &body).await;
    assert_eq!((reply.status, reply.field("retry-after")), (503, Some("5")));
    gateway.answers("/", 200, "open").await;
    assert_eq!(gateway.get("/in", &[]).await.status, 401);
    eventually("the word of it", async || {
        gateway.stderr().contains("does not work").then_some(())
    })
    .await;
    assert!(!gateway.stderr().contains("s3cret"), "{}", gateway.stderr());
    for (state, said) in [
        ("http://127.0.0.1", "redis://10.0.0.5:6379"),
        ("redis://me:s3cret@127.0.0.1:x", "no URL of Redis"),
        (
            "[redis://127.0.0.1, rediss://127.0.0.1]",
            "speak TLS, or none",
        ),
        (
            "{redis: redis://127.0.0.1, ca: gateway.yaml}",
            "certificate",
        ),
        ("{redis: redis://127.0.0.1, pasword: s3cret}", "password"),
        ("[]", "a URL of Redis"),
    ] {
        let folder = Folder::new();
        folder.write("users.yaml", "{}");
        folder.write("gateway.yaml", text_with_state(state));
        let output = run_to_end(&folder, &["check"], &[]);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{state}");
        assert!(errors.contains(said), "{said}: {errors}");
        assert!(!errors.contains("s3cret"), "{errors}");
    }
}

fn text_with_state(state: &str) -> String {
    text(FREE).replace("state: data/", &format!("state: {state}"))
}

/// A gateway whose logins this app decides.
async fn gateway_with_login(app: &App) -> Gateway {
    let text = text("  throttle: off\n  username_field: email\n")
        .replace(
            "  users: users.yaml\n",
            &format!("  login: {}/internal/login\n", app.url()),
        )
        .replace("user.name", "user.id");
    let folder = Folder::new();
    folder.write("gateway.yaml", text);
    Gateway::start_as_it_is(folder, 1, &[]).await
}

/// The app's decision on a login.
fn decide(seen: &Seen) -> Vec<u8> {
    let asked: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
    let (status, body) = match (asked["username"].as_str(), asked["password"].as_str()) {
        (Some("alice"), Some("pw")) => (
            "200 OK",
            r#"{"sub": 7, "id": 70, "roles": ["clerk"], "plan": "gold"}"#,
        ),
        (Some("odd"), _) => ("200 OK", r#"{"exp": 99999999999}"#),
        (Some("page"), _) => ("200 OK", "<html>"),
        (Some("broken"), _) => ("500 Internal Server Error", "{}"),
        (Some("often"), _) => ("429 Too Many Requests", "{}"),
        _ => ("401 Unauthorized", r#"{"detail": "no"}"#),
    };
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nRetry-After: 17\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

#[tokio::test]
async fn the_app_may_decide_who_logs_in() {
    let app = App::start(|_| Answer::Made(decide)).await;
    let gateway = gateway_with_login(&app).await;
    let ask = async |name: &str, password: &str| {
        let body = json!({"email": name, "password": password});
        let mut wire = gateway.connect().await;
        let fields = [
            ("Content-Type", "application/json"),
            ("Authorization", "Bearer x"),
            ("Cookie", "a=b"),
            ("Accept-Encoding", "gzip"),
            ("X-Forwarded-For", "1.2.3.4"),
        ];
        wire.send(request("POST", "/api/token/", &fields, body.to_string()))
            .await;
        wire.reply().await
    };
    let reply = ask("alice", "pw").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let (access, refresh) = pair(&reply);
    let said = claims(&access);
    for (name, value) in [
        ("sub", json!("7")),
        ("roles", json!(["clerk"])),
        ("plan", json!("gold")),
        ("user_id", json!(70)),
        ("tenant", json!(7)),
    ] {
        assert_eq!(said[name], value, "{name}");
    }
    let seen = app.last();
    assert_eq!((seen.method(), seen.target()), ("POST", "/internal/login"));
    let sent: Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(sent, json!({"username": "alice", "password": "pw"}));
    assert_eq!(seen.field("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(seen.field("accept-encoding").as_deref(), Some("identity"));
    for name in ["authorization", "cookie"] {
        assert_eq!(seen.field(name), None, "{name}");
    }
    // What the app said goes on with the session, which the app is not asked about again.
    let asked = app.requests();
    let body = json!({"refresh": refresh});
    let (access, refresh) = pair(&post(&gateway, "/api/token/refresh/", &body).await);
    assert_eq!(claims(&access)["plan"], "gold");
    assert_eq!(app.requests(), asked);
    let clerks = [("Authorization", &*format!("Bearer {access}"))];
    assert_eq!(gateway.get("/clerks", &clerks).await.status, 200);
    let body = json!({"refresh": refresh});
    let ended = post(&gateway, "/api/token/blacklist/", &body).await;
    assert_eq!((ended.status, opens(&gateway, &access).await), (200, 401));

    for (name, status, wait) in [
        ("alice", 401, None),
        ("nobody", 401, None),
        ("odd", 503, Some("5")),
        ("page", 503, Some("5")),
        ("broken", 503, Some("5")),
        ("often", 429, Some("17")),
    ] {
        let reply = ask(name, "x").await;
        let got = (reply.status, reply.field("retry-after"));
        assert_eq!(got, (status, wait), "{name}");
    }
    let lacking = post(&gateway, "/api/token/", &json!({"username": "a"})).await;
    let required = json!(["This field is required."]);
    let expected = json!({"email": required, "password": required});
    assert_eq!((lacking.status, body_of(&lacking)), (400, expected));
    app.stop().await;
    let reply = ask("alice", "pw").await;
    assert_eq!(reply.status, 503);
    assert_eq!(
        gateway.record("/api/token/").await["route"],
        "tokens obtain"
    );
    let said = gateway.stderr();
    assert!(
        said.contains("the gateway's to say") && !said.contains("pw"),
        "{said}"
    );
}

#[tokio::test]
async fn spellings_of_one_name_share_its_tries_where_an_app_decides() {
    let app =
        App::start(|_| Answer::Raw(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n".into())).await;
    let text =
        "tokens: {keys: keys/, login: '@app/login', throttle: {per_ip: 1000/m, per_user: 3/m}}
state: data/
routes: [{path: /*, respond: {body: open}}]
";
    let gateway = Gateway::start(&config(text, &[("app", &app.url())])).await;
    for (name, status) in [
        ("alice", 401),
        ("ALICE", 401),
        ("\u{ff21}lice", 401),
        (" Alice", 429),
        ("bob", 401),
    ] {
        let login = json!({"username": name, "password": "x"});
        let reply = post(&gateway, "/api/token/", &login).await;
        assert_eq!(reply.status, status, "{name}");
    }
}

#[tokio::test]
async fn the_grace_of_a_spent_token_is_for_who_spent_it() {
    let text = text("  throttle: off\n") + "trusted_proxies: [127.0.0.1]\n";
    let gateway = Gateway::start_as_it_is(folder(&text), 1, &[]).await;
    let renew = async |token: &str, client: &str| {
        let mut wire = gateway.connect().await;
        let fields = [
            ("Content-Type", "application/json"),
            ("X-Forwarded-For", client),
        ];
        let body = json!({"refresh": token}).to_string();
        wire.send(request("POST", "/api/token/refresh/", &fields, body))
            .await;
        wire.reply().await
    };
    for (other, status) in [("2001:db8::2", 200), ("2001:db8:0:1::1", 401)] {
        let (_, first) = login(&gateway, "alice").await;
        let (_, second) = pair(&renew(&first, "2001:db8::1").await);
        assert_eq!(renew(&first, other).await.status, status, "{other}");
        // Whoever it was, it gets it once, and a theft ends the session.
        assert_eq!(renew(&first, "2001:db8::1").await.status, 401);
        assert_eq!(renew(&second, "2001:db8::1").await.status, 401);
    }
}

#[tokio::test]
async fn names_are_what_they_say_and_one_that_is_wrong_keeps_nobody_out() {
    let folder = folder(&text(FREE));
    let long = "\u{1f600}".repeat(150);
    for name in ["<<", "${HOME}", "a${b", "#", "null", "a: b", long.as_str()] {
        user(&folder, &["add", name]);
    }
    let output = run_to_end(&folder, &["check"], &[]);
    assert!(output.status.success(), "{output:?}");
    user(&folder, &["disable", "bob"]);
    user(&folder, &["remove", "#"]);
    let file = folder.path("users.yaml");
    let mut users = std::fs::read_to_string(&file).unwrap();
    users.push_str("\"mallory\": {\"password\": \"plain\"}\n\"\\ud83d\\ude00\": {\"active\": false}\nodd: {x: 0x1f}\n");
    std::fs::write(&file, users).unwrap();
    let output = run_to_end(&folder, &["check"], &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("the user \"mallory\" is ignored"), "{said}");
    assert!(said.contains("the user \"odd\" is ignored"), "{said}");
    let gateway = Gateway::start_as_it_is(folder, 1, &[]).await;
    for (name, status) in [
        ("alice", 200),
        ("${HOME}", 200),
        ("<<", 200),
        ("null", 200),
        (long.as_str(), 200),
        ("mallory", 401),
        ("bob", 401),
    ] {
        let login = json!({"username": name, "password": PASSWORD});
        let reply = post(&gateway, "/api/token/", &login).await;
        assert_eq!(reply.status, status, "{name}");
    }
    // What could not be written anew is not thrown away.
    let refused = run_to_end(&gateway.folder, &["user", "disable", "alice"], &[]);
    assert_eq!(refused.status.code(), Some(1));
    user(&gateway.folder, &["remove", "odd"]);
    user(&gateway.folder, &["disable", "alice"]);
    let list = user(&gateway.folder, &["list"]);
    assert!(
        list.contains("\u{1f600}\tdisabled") && list.contains("mallory"),
        "{list}"
    );
    user(&gateway.folder, &["remove", "mallory"]);
}

#[tokio::test]
async fn tokens_may_be_cookies_that_other_sites_cannot_use() {
    let gateway = gateway(
        "  throttle: off\n  refresh_grace: 0s\n  cookies: {access: at, refresh: rt, origins: [https://app.example.com]}\n",
    )
    .await;
    let ask = async |path: &str, fields: &[(&str, &str)], body: &Value| {
        let kind = [("Content-Type", "application/json")];
        let fields = [&kind[..], fields].concat();
        let mut wire = gateway.connect().await;
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        wire.send(request("POST", path, &fields, body)).await;
        wire.reply().await
    };
    let cookie = |reply: &Reply, name: &str| {
        let lines = reply.all("set-cookie");
        let line = lines
            .iter()
            .find_map(|line| line.strip_prefix(&format!("{name}=")));
        let (value, rest) = line
            .unwrap_or_else(|| panic!("{lines:?}"))
            .split_once(';')
            .unwrap();
        (value.to_owned(), rest.to_owned())
    };
    let own = ("Origin", "http://gateway.test");
    let evil = ("Origin", "http://evil.test");
    let user = json!({"username": "alice", "password": PASSWORD});
    // Another site logs nobody in as somebody else.
    let refused = ask("/api/token/", &[evil], &user).await;
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("CSRF") && refused.all("set-cookie").is_empty());

    for fields in [&[][..], &[own], &[("Origin", "https://app.example.com")]] {
        let reply = ask("/api/token/", fields, &user).await;
        assert_eq!(reply.status, 200, "{fields:?}");
    }
    let reply = ask("/api/token/", &[own], &user).await;
    let expected = json!({"expires_in": 300, "refresh_expires_in": 86400});
    assert_eq!(body_of(&reply), expected);
    let (access, attributes) = cookie(&reply, "at");
    let all = " Path=/; Max-Age=300; HttpOnly; Secure; SameSite=Lax";
    assert_eq!(attributes, all);
    let (refresh, attributes) = cookie(&reply, "rt");
    let all = " Path=/api/token; Max-Age=86400; HttpOnly; Secure; SameSite=Lax";
    assert_eq!(attributes, all);

    let open = async |line: &str| gateway.get("/in", &[("Cookie", line)]).await.status;
    assert_eq!(open(&format!("at={access}")).await, 200);
    // A browser may hold one more, of another domain.
    for line in [
        format!("at={access}; at={refresh}"),
        format!("at=x.y.z; at={access}"),
    ] {
        assert_eq!(open(&line).await, 200, "{line}");
    }
    let bob = json!({"username": "bob", "password": PASSWORD});
    let (of_bob, _) = cookie(&ask("/api/token/", &[own], &bob).await, "at");
    assert_eq!(open(&format!("at={access}; at={of_bob}")).await, 400);
    assert_eq!(opens(&gateway, &access).await, 200);
    assert_eq!(open(&format!("at={refresh}")).await, 401);
    assert_eq!(open(&format!("rt={access}")).await, 401);

    let line = format!("at={access}; rt={refresh}");
    let sent = ("Cookie", line.as_str());
    let is_good = ask("/api/token/verify/", &[sent, own], &json!({})).await;
    assert_eq!(is_good.status, 200);
    for fields in [
        &[sent][..],
        &[sent, evil],
        &[sent, ("Sec-Fetch-Site", "same-site")],
    ] {
        for path in ["/api/token/refresh/", "/api/token/blacklist/"] {
            let refused = ask(path, fields, &Value::Null).await;
            assert_eq!(refused.status, 403, "{path} {fields:?}");
        }
    }
    // None of them spent it. A body is not needed; one with a token comes first.
    let reply = ask("/api/token/refresh/", &[sent, own], &Value::Null).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let (access, _) = cookie(&reply, "at");
    let (next, _) = cookie(&reply, "rt");
    assert_eq!(claims(&next)["gen"], 1);
    // Its own token is of no use to another site either: the answer would log somebody in as somebody else.
    let reply = ask("/api/token/refresh/", &[evil], &json!({"refresh": next})).await;
    assert_eq!(reply.status, 403);
    let reply = ask("/api/token/refresh/", &[], &json!({"refresh": next})).await;
    assert_eq!(reply.status, 200, "no browser sends this");
    let (mut next, _) = cookie(&reply, "rt");
    // Of two cookies of one name the good one decides, and the last of its session.
    for others in ["", "rt=x.y.z; "] {
        let two = format!("{others}rt={next}; rt={refresh}");
        let fields = [("Cookie", two.as_str()), own];
        let reply = ask("/api/token/refresh/", &fields, &Value::Null).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        next = cookie(&reply, "rt").0;
    }
    let lacking = ask("/api/token/refresh/", &[own], &Value::Null).await;
    assert_eq!(lacking.status, 400);

    // Signed out, the browser forgets them, also where the session had ended before.
    let line = format!("at={access}; rt={next}");
    for status in [200, 401] {
        let fields = [("Cookie", line.as_str()), ("Sec-Fetch-Site", "same-origin")];
        let reply = ask(
            "/api/token/blacklist/",
            &fields,
            &json!({"everywhere": false}),
        )
        .await;
        assert_eq!(reply.status, status);
        for name in ["at", "rt"] {
            let (value, attributes) = cookie(&reply, name);
            assert!(
                value.is_empty() && attributes.contains("Max-Age=0"),
                "{attributes}"
            );
        }
    }
    assert_eq!(open(&format!("at={access}")).await, 401);
    for (cookies, said) in [
        ("{refresh: __Host-rt}", "for the path / of one host"),
        ("{refresh: __HOST-rt}", "for the path / of one host"),
        ("{access: __Host-at, domain: example.com}", "of one host"),
        ("{access: a, refresh: a}", "one name"),
        ("{access: 'a b'}", "a name of letters"),
        ("{same_site: none}", "`lax` or `strict`"),
        ("{origins: [app.example.com]}", "https://app.example.com"),
        ("{domain: com}", "example.com"),
    ] {
        let folder = Folder::new();
        folder.write("users.yaml", "{}");
        folder.write("gateway.yaml", text(&format!("  cookies: {cookies}\n")));
        let output = run_to_end(&folder, &["check"], &[]);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{cookies}");
        assert!(errors.contains(said), "{said}: {errors}");
    }
}

/// `portcullis` with these arguments on a gateway's folder: its exit status and what it said.
fn prompt(folder: &Folder, arguments: &[&str]) -> (Option<i32>, String) {
    let output = run_to_end(folder, arguments, &[]);
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn tokens_are_issued_and_sessions_ended_at_the_prompt() {
    let mut gateway = gateway(FREE).await;
    let issue = |gateway: &Gateway, more: &[&str]| {
        let arguments = [&["token", "issue"][..], more].concat();
        prompt(&gateway.folder, &arguments)
    };
    let (status, token) = issue(
        &gateway,
        &[
            "alice",
            "--lifetime",
            "1h",
            "--set",
            "plan=gold",
            "--set",
            "n=[1]",
        ],
    );
    assert_eq!(status, Some(0), "{token}");
    let token = token.trim().to_owned();
    let said = claims(&token);
    let life = said["exp"].as_u64().unwrap() - said["iat"].as_u64().unwrap();
    assert_eq!(
        (life, &said["plan"], &said["n"]),
        (3600, &json!("gold"), &json!([1]))
    );
    assert_eq!(
        (&said["sub"], &said["roles"]),
        (&json!("alice"), &json!(["clerk"]))
    );
    assert_eq!(opens(&gateway, &token).await, 200);
    let verify = json!({"token": token});
    assert_eq!(
        post(&gateway, "/api/token/verify/", &verify).await.status,
        200
    );
    let revoke = post(&gateway, "/api/token/revoke/", &verify).await;
    assert_eq!(body_of(&revoke), json!({"error": "unsupported_token_type"}));
    for (more, said) in [
        (&["nobody"][..], "no active user"),
        (&["alice", "--lifetime", "25h"], "outlive its key"),
        (&["alice", "--lifetime", "1"], "write `1s`"),
        (&["alice", "--set", "exp=1"], "not yours to set"),
        (&["alice", "--set", "x"], "write --set"),
    ] {
        let (status, why) = issue(&gateway, more);
        assert!(status == Some(1) && why.contains(said), "{more:?}: {why}");
    }

    // Of a gateway that runs, and of one that does not.
    let (alice, alice_refresh) = login(&gateway, "alice").await;
    let (other, other_refresh) = login(&gateway, "alice").await;
    let (bob, bob_refresh) = login(&gateway, "bob").await;
    let (status, said) = prompt(&gateway.folder, &["token", "revoke", &alice]);
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(opens(&gateway, &alice).await, 401);
    assert_eq!(opens(&gateway, &other).await, 200);
    let (status, said) = prompt(&gateway.folder, &["token", "revoke", "--sub", "bob"]);
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(
        (opens(&gateway, &bob).await, opens(&gateway, &other).await),
        (401, 200)
    );
    assert_eq!(
        prompt(&gateway.folder, &["token", "revoke", &token]).0,
        Some(1)
    );
    assert_eq!(
        prompt(&gateway.folder, &["token", "revoke", "x.y.z"]).0,
        Some(1)
    );
    gateway.signal(Signal::KILL);
    gateway.exit().await;
    let folder = std::mem::replace(&mut gateway.folder, Folder::new());
    assert_eq!(
        prompt(&folder, &["token", "revoke", "--sub", "alice"]).0,
        Some(0)
    );
    let (status, said) = prompt(&folder, &["key", "generate"]);
    assert!(status == Some(1) && said.contains("already"), "{said}");
    let gateway = Gateway::start_as_it_is(folder, 1, &[]).await;
    for refresh in [alice_refresh, other_refresh, bob_refresh] {
        let body = json!({"refresh": refresh});
        assert_eq!(
            post(&gateway, "/api/token/refresh/", &body).await.status,
            401
        );
    }
    assert_eq!(opens(&gateway, &other).await, 401);

    // Keys can be there before the first start.
    let folder = Folder::new();
    folder.write("gateway.yaml", text(FREE));
    assert_eq!(prompt(&folder, &["key", "generate"]).0, Some(0));
    assert!(prompt(&folder, &["key", "list"]).1.contains("\tsigns"));
}
