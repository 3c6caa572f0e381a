//! API keys: programs that have no token. Each key that is accepted stands beside one that is not.

use serde_json::json;

use super::support::{Answer, App, Folder, Gateway, Kind, Reply, config, key, run_to_end, token};

/// Makes a key with the command line; returns it.
fn add(folder: &Folder, arguments: &[&str]) -> String {
    let output = run_to_end(folder, &[&["apikey", "add"], arguments].concat(), &[]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn send(gateway: &Gateway, path: &str, api_key: &str) -> Reply {
    gateway.get(path, &[("X-Api-Key", api_key)]).await
}

const TEXT: &str = "jwt: {app: {algorithms: [HS256], secret: '@secret'}}
routes:
  - {name: ci, path: /ci/*, proxy: '@app', auth: {api_key: {file: keys.yaml}, require: {scope: [deploy]}, forward: {X-User: sub}, strip_token: true}}
  - {name: any, path: /any/*, proxy: '@app', auth: {api_key: {file: keys.yaml, from: ['header:X-Api-Key', 'query:key']}, strip_token: true}}
  - {name: both, path: /both/*, proxy: '@app', auth: {jwt: app, api_key: {file: keys.yaml}, forward: {X-User: sub}}}
  - {name: maybe, path: /maybe/*, proxy: '@app', auth: {api_key: {file: keys.yaml}, optional: true}}
  - {name: limited, path: /limited/*, proxy: '@app', auth: {api_key: {file: keys.yaml}}, rate_limit: {by: 'claim:sub', rate: 1/d}}
tests:
  - {request: GET /ci/a, expect: {status: 401, reason: api_key_missing}}
  - {request: GET /ci/a, claims: {sub: x}, expect: {status: 403}}
  - {request: GET /ci/a, claims: {sub: x, scope: deploy}, expect: {headers: {X-User: x}}}
";

async fn start() -> (App, Gateway, [String; 3]) {
    let app = App::echo().await;
    let folder = Folder::new();
    let file = folder.path("keys.yaml");
    let file = file.to_str().unwrap();
    let deploy = add(
        &folder,
        &[
            "ci",
            "--claim",
            "scope=deploy",
            "--expires",
            "90d",
            "--file",
            file,
        ],
    );
    let plain = add(&folder, &["backup", "--claim", "sub=robot", "--file", file]);
    let old = add(&folder, &["old", "--file", file]);
    let text = std::fs::read_to_string(file).unwrap();
    assert!(
        ![&deploy, &plain, &old]
            .iter()
            .any(|key| text.contains(key.as_str()))
    );
    let at = text.find("old:").unwrap();
    let (before, after) = text.split_at(at);
    let after = after.replacen("old:\n", "old:\n  expires: 2020-01-01T00:00:00Z\n", 1);
    folder.write("keys.yaml", [before, after.as_str()].concat());
    let values = [
        ("secret", key(Kind::Secret, 0).public.as_str()),
        ("app", &app.url()),
    ];
    let gateway = Gateway::start_in(folder, &config(TEXT, &values)).await;
    (app, gateway, [deploy, plain, old])
}

#[tokio::test]
async fn a_key_gives_its_claims_and_its_refused_sisters_say_why() {
    let (app, gateway, [deploy, plain, old]) = start().await;
    let reply = send(&gateway, "/ci/good", &deploy).await;
    assert_eq!(reply.status, 200);
    let seen = app.saw("/ci/good", |_| true).await;
    assert_eq!(seen.field("x-user").as_deref(), Some("ci"));
    assert_eq!(seen.field("x-api-key"), None, "stripped");
    assert_eq!(reply.field("cache-control"), Some("private"));
    let record = gateway.record("/ci/good").await;
    assert_eq!(record["sub"], "ci");
    for (path, api_key, status, reason) in [
        ("/ci/poor", plain.as_str(), 403, "forbidden"),
        ("/ci/old", &old, 401, "api_key_expired"),
        (
            "/ci/wrong",
            &deploy[..deploy.len() - 1],
            401,
            "api_key_refused",
        ),
        ("/ci/case", &deploy.to_uppercase(), 401, "api_key_refused"),
        ("/ci/empty", "", 401, "api_key_missing"),
    ] {
        let reply = send(&gateway, path, api_key).await;
        assert_eq!(reply.status, status, "{path}");
        let challenge = (status == 401).then_some("ApiKey realm=\"ci\"");
        assert_eq!(reply.field("www-authenticate"), challenge, "{path}");
        assert_eq!(gateway.record(path).await["reason"], reason, "{path}");
    }
    assert_eq!(send(&gateway, "/any/a", &plain).await.status, 200);
    let query = gateway
        .get(&format!("/any/query?a=1&key={plain}"), &[])
        .await;
    assert_eq!(query.status, 200);
    let seen = app.saw("/any/query?a=1", |_| true).await;
    assert_eq!(seen.target(), "/any/query?a=1", "stripped");
    let two = [
        ("X-Api-Key", plain.as_str()),
        ("X-Api-Key", deploy.as_str()),
    ];
    assert_eq!(gateway.get("/any/two", &two).await.status, 400);
    // Neither logs nor pages have a key.
    let output = gateway.output();
    for api_key in [&deploy, &plain, &old] {
        assert!(!output.contains(api_key.as_str()));
    }
}

#[tokio::test]
async fn beside_tokens_either_is_enough_and_both_must_be_right() {
    let (app, gateway, [deploy, plain, old]) = start().await;
    let bearer = format!("Bearer {}", token(json!({"sub": "ada"})));
    for (path, fields, status, user) in [
        (
            "/both/key",
            vec![("X-Api-Key", plain.as_str())],
            200,
            Some("robot"),
        ),
        (
            "/both/token",
            vec![("Authorization", bearer.as_str())],
            200,
            Some("ada"),
        ),
        (
            "/both/two",
            vec![("Authorization", bearer.as_str()), ("X-Api-Key", &deploy)],
            200,
            Some("ada"),
        ),
        (
            "/both/old",
            vec![("Authorization", bearer.as_str()), ("X-Api-Key", &old)],
            401,
            None,
        ),
        (
            "/both/bad",
            vec![("Authorization", "Bearer x.y.z"), ("X-Api-Key", &deploy)],
            401,
            None,
        ),
        ("/both/none", vec![], 401, None),
    ] {
        let reply = gateway.get(path, &fields).await;
        assert_eq!(reply.status, status, "{path}");
        if status == 200 {
            let seen = app.saw(path, |_| true).await;
            assert_eq!(seen.field("x-user").as_deref(), user, "{path}");
        } else {
            let challenge = reply.field("www-authenticate").unwrap();
            assert!(challenge.starts_with("Bearer realm=\"app\""), "{challenge}");
        }
    }
    assert_eq!(gateway.get("/maybe/a", &[]).await.status, 200);
    assert_eq!(send(&gateway, "/maybe/b", &old).await.status, 401);
    // Limits count by the key's claims.
    for (api_key, status) in [(&deploy, 200), (&deploy, 429), (&plain, 200)] {
        assert_eq!(send(&gateway, "/limited/a", api_key).await.status, status);
    }
}

#[tokio::test]
async fn a_key_that_is_added_or_removed_counts_at_once() {
    let (_app, gateway, [deploy, ..]) = start().await;
    assert_eq!(send(&gateway, "/any/a", &deploy).await.status, 200);
    let before = gateway.reloads();
    let new = add(&gateway.folder, &["new"]);
    gateway.reloaded_after(before).await;
    assert_eq!(send(&gateway, "/any/a", &new).await.status, 200);
    assert!(
        gateway
            .stderr()
            .contains("accepts API keys that it refused")
    );
    let listed = run_to_end(&gateway.folder, &["apikey", "list"], &[]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(
        listed.contains("backup\texpires never\t{\"sub\":\"robot\"}"),
        "{listed}"
    );
    assert!(
        listed.lines().count() == 4 && !listed.contains(&new),
        "{listed}"
    );
    let before = gateway.reloads();
    let gone = run_to_end(&gateway.folder, &["apikey", "remove", "ci"], &[]);
    assert!(gone.status.success(), "{gone:?}");
    gateway.reloaded_after(before).await;
    assert_eq!(send(&gateway, "/any/a", &deploy).await.status, 401);
    let again = run_to_end(&gateway.folder, &["apikey", "remove", "ci"], &[]);
    assert_eq!(again.status.code(), Some(1));
    let twice = run_to_end(&gateway.folder, &["apikey", "add", "new"], &[]);
    assert_eq!(twice.status.code(), Some(1));

    let explained = |api_key: &str| {
        let header = format!("X-Api-Key: {api_key}");
        let output = run_to_end(&gateway.folder, &["explain", "/any/a", "-H", &header], &[]);
        String::from_utf8(output.stdout).unwrap()
    };
    let text = explained(&new);
    assert!(text.contains("the API key `new` of "), "{text}");
    assert!(!text.contains(&new), "{text}");
    assert!(explained(&deploy).contains("401 api_key_refused"));
}

#[tokio::test]
async fn a_wrong_file_of_keys_changes_nothing() {
    let (_app, gateway, [deploy, ..]) = start().await;
    let log = gateway.stderr().len();
    gateway.folder.write("keys.yaml", "ci: {sha256: pk_oops}\n");
    super::support::eventually("the refusal", async || {
        gateway.stderr()[log..]
            .contains("64 hexadecimal digits")
            .then_some(())
    })
    .await;
    assert_eq!(send(&gateway, "/any/a", &deploy).await.status, 200);
}

#[tokio::test]
async fn errors_of_the_configuration() {
    let app = App::start(|_| Answer::Ok("x")).await;
    let folder = Folder::new();
    folder.write("keys.yaml", "{}\n");
    for (auth, said) in [
        ("{api_key: {}}", "`file` is missing"),
        ("{api_key: {file: none.yaml}}", "cannot be read"),
        (
            "{api_key: {file: keys.yaml, from: 'cookie:a'}}",
            "known here: header:NAME, query:NAME",
        ),
        (
            "{api_key: {file: keys.yaml}, on_expiry: close}",
            "unknown key `on_expiry`",
        ),
        (
            "{jwt: app, api_key: {file: keys.yaml}, on_expiry: close}",
            "does not end with it",
        ),
        (
            "{api_key: {file: keys.yaml}, ask: 'http://127.0.0.1:1/'}",
            "unknown key `api_key`",
        ),
    ] {
        let text = format!(
            "jwt: {{app: {{algorithms: [HS256], secret: '@secret'}}}}\nroutes: [{{path: /*, proxy: '@app', auth: {auth}}}]\n"
        );
        let values = [
            ("secret", key(Kind::Secret, 0).public.as_str()),
            ("app", &app.url()),
        ];
        folder.write("gateway.yaml", config(&text, &values));
        let output = run_to_end(&folder, &["check"], &[]);
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{auth}\n{log}");
        assert!(log.contains(said), "{auth}\n{log}");
    }
}

#[tokio::test]
async fn a_key_in_a_header_is_nothing_that_another_site_can_make_a_browser_send() {
    let app = App::start(|_| {
        let body = "a long text ".repeat(500);
        let head = format!("Content-Type: text/plain\r\nContent-Length: {}", body.len());
        Answer::Raw(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}").into_bytes())
    })
    .await;
    let folder = Folder::new();
    let file = folder.path("keys.yaml");
    let key = add(&folder, &["ci", "--file", file.to_str().unwrap()]);
    let text = "routes:
  - path: /*
    proxy: '@app'
    compress: [gzip]
    auth: {api_key: {file: keys.yaml, from: ['header:X-Api-Key', 'query:key']}}
";
    let gateway = Gateway::start_in(folder, &config(text, &[("app", &app.url())])).await;
    let gzip = ("Accept-Encoding", "gzip");
    let header = ("X-Api-Key", key.as_str());
    let in_query = format!("/query?key={key}");
    for (target, fields, encoding) in [
        ("/header", vec![gzip, header], "gzip"),
        ("/cookie", vec![gzip, header, ("Cookie", "a=1")], "private"),
        (&in_query, vec![gzip], "private"),
    ] {
        let reply = gateway.get(target, &fields).await;
        assert_eq!(reply.status, 200);
        let coded = reply.field("content-encoding").is_some();
        assert_eq!(coded, encoding == "gzip", "{target}");
        let path = target.split('?').next().unwrap();
        assert_eq!(gateway.record(path).await["encoding"], encoding);
    }
}
