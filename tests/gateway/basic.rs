//! Users with passwords from a file of `htpasswd` (`auth.basic`). Each that comes in stands beside one that does not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::support::{Answer, App, Folder, Gateway, Reply, config, eventually, run_to_end};

const TEXT: &str = "routes:
  - {name: admin, path: /admin/*, proxy: '@app', auth: {basic: {users: admin.htpasswd, realm: \"the \\\"site\\\"\"}, forward: {X-User: sub}}}
  - {name: ada, path: /ada/*, proxy: '@app', auth: {basic: admin.htpasswd, require: {sub: ada}}}
  - {name: pass, path: /pass/*, proxy: '@app', auth: {basic: {users: admin.htpasswd, pass: true}}}
  - {name: files, path: /files/*, static: files, auth: {basic: admin.htpasswd}}
  - {name: limited, path: /limited/*, proxy: '@app', auth: {basic: admin.htpasswd}, rate_limit: {by: 'claim:sub', rate: 1/d}}
tests:
  - {request: GET /admin/a, expect: {status: 401, reason: basic_missing}}
  - {request: GET /ada/a, claims: {sub: bob}, expect: {status: 403}}
  - {request: GET /admin/a, claims: {sub: ada}, expect: {headers: {X-User: ada, Authorization: null}}}
";

fn line(name: &str, password: &str) -> String {
    format!("{name}:{}\n", bcrypt::hash(password, 4).unwrap())
}

fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

async fn send(gateway: &Gateway, path: &str, pair: &str) -> Reply {
    let authorization = basic(pair);
    gateway
        .get(path, &[("Authorization", authorization.as_str())])
        .await
}

async fn start() -> (App, Gateway) {
    let app = App::echo().await;
    let folder = Folder::new();
    let users = line("ada", "love:lace") + "# a comment\n\n" + &line("b\u{f6}b", "p\u{e4}ss");
    folder.write("admin.htpasswd", users);
    folder.write("files/a.txt", "of the files");
    let gateway = Gateway::start_in(folder, &config(TEXT, &[("app", &app.url())])).await;
    (app, gateway)
}

#[tokio::test]
async fn who_has_the_password_comes_in_and_the_app_does_not_see_it() {
    let (app, gateway) = start().await;
    for (path, pair, user) in [
        ("/admin/a", "ada:love:lace", "ada"),
        ("/admin/again", "ada:love:lace", "ada"),
        ("/admin/b", "b\u{f6}b:p\u{e4}ss", "b\u{f6}b"),
    ] {
        let reply = send(&gateway, path, pair).await;
        assert_eq!(reply.status, 200, "{path}");
        assert_eq!(reply.field("cache-control"), Some("private"), "{path}");
        let seen = app.saw(path, |_| true).await;
        assert_eq!(seen.field("authorization"), None, "{path}");
        assert_eq!(gateway.record(path).await["sub"], user, "{path}");
    }
    let seen = app.saw("/admin/a", |_| true).await;
    assert_eq!(seen.field("x-user").as_deref(), Some("ada"));
    assert_eq!(send(&gateway, "/pass/a", "ada:love:lace").await.status, 200);
    let seen = app.saw("/pass/a", |_| true).await;
    assert_eq!(seen.field("authorization"), Some(basic("ada:love:lace")));
    let file = send(&gateway, "/files/a.txt", "ada:love:lace").await;
    assert_eq!((file.status, &file.body[..]), (200, &b"of the files"[..]));
    // Limits count by the name.
    for (pair, status) in [
        ("ada:love:lace", 200),
        ("ada:love:lace", 429),
        ("b\u{f6}b:p\u{e4}ss", 200),
    ] {
        assert_eq!(send(&gateway, "/limited/a", pair).await.status, status);
    }
}

#[tokio::test]
async fn who_has_not_is_told_what_is_missing_and_nothing_else() {
    let (_app, gateway) = start().await;
    let challenge = "Basic realm=\"the ?site?\", charset=\"UTF-8\"";
    let lines = [
        ("/admin/none", None, 401, "basic_missing"),
        (
            "/admin/bearer",
            Some("Bearer abc".to_owned()),
            401,
            "basic_missing",
        ),
        (
            "/admin/wrong",
            Some(basic("ada:lovelace")),
            401,
            "basic_refused",
        ),
        (
            "/admin/nobody",
            Some(basic("eve:love:lace")),
            401,
            "basic_refused",
        ),
        (
            "/admin/case",
            Some(basic("Ada:love:lace")),
            401,
            "basic_refused",
        ),
        ("/admin/empty", Some(basic("ada:")), 401, "basic_refused"),
        (
            "/admin/junk",
            Some("Basic ###".to_owned()),
            401,
            "basic_refused",
        ),
    ];
    for (path, authorization, status, reason) in lines {
        let fields: Vec<(&str, &str)> = authorization
            .iter()
            .map(|value| ("Authorization", value.as_str()))
            .collect();
        let reply = gateway.get(path, &fields).await;
        assert_eq!(reply.status, status, "{path}");
        assert_eq!(reply.field("www-authenticate"), Some(challenge), "{path}");
        assert_eq!(gateway.record(path).await["reason"], reason, "{path}");
    }
    let forbidden = send(&gateway, "/ada/a", "b\u{f6}b:p\u{e4}ss").await;
    assert_eq!(forbidden.status, 403);
    assert_eq!(forbidden.field("www-authenticate"), None);
    let two = (basic("ada:love:lace"), basic("ada:x"));
    let two = [
        ("Authorization", two.0.as_str()),
        ("Authorization", two.1.as_str()),
    ];
    assert_eq!(gateway.get("/admin/two", &two).await.status, 400);
    assert_eq!(gateway.get("/files/a.txt", &[]).await.status, 401);
    let output = gateway.output();
    assert!(
        !output.contains("lace") && !output.contains("$2b$"),
        "{output}"
    );
}

#[tokio::test]
async fn ten_wrong_passwords_are_enough() {
    let (_app, gateway) = start().await;
    for _ in 0..30 {
        assert_eq!(gateway.get("/admin/none", &[]).await.status, 401);
    }
    assert_eq!(
        send(&gateway, "/admin/a", "ada:love:lace").await.status,
        200
    );
    for nth in 0..10 {
        let path = if nth % 2 == 0 {
            "/admin/guess"
        } else {
            "/ada/guess"
        };
        let reply = send(&gateway, path, &format!("ada:{nth}")).await;
        assert_eq!(reply.status, 401, "{nth}");
    }
    // No password is looked at any more, not even the right one, on no route with passwords.
    for path in ["/admin/late", "/pass/late"] {
        let reply = send(&gateway, path, "ada:love:lace").await;
        assert_eq!(reply.status, 429, "{path}");
        let wait: u64 = reply.field("retry-after").unwrap().parse().unwrap();
        assert!((1..=6).contains(&wait), "{wait}");
        let record = gateway.record(path).await;
        assert_eq!(record["reason"], "throttled", "{path}");
        assert_eq!(record["limit"], "wrong passwords", "{path}");
    }
}

#[tokio::test]
async fn a_change_of_the_file_counts_at_once_and_a_wrong_one_changes_nothing() {
    let (_app, gateway) = start().await;
    assert_eq!(
        send(&gateway, "/admin/a", "ada:love:lace").await.status,
        200
    );
    let before = gateway.reloads();
    gateway
        .folder
        .write("admin.htpasswd", line("ada", "new") + &line("carol", "c"));
    gateway.reloaded_after(before).await;
    assert_eq!(
        send(&gateway, "/admin/a", "ada:love:lace").await.status,
        401
    );
    assert_eq!(send(&gateway, "/admin/a", "ada:new").await.status, 200);
    assert_eq!(send(&gateway, "/admin/a", "carol:c").await.status, 200);
    assert_eq!(
        send(&gateway, "/admin/a", "b\u{f6}b:p\u{e4}ss")
            .await
            .status,
        401
    );
    let log = gateway.stderr();
    assert!(
        log.contains("accepts users with passwords that it refused"),
        "{log}"
    );

    let from = log.len();
    gateway.folder.write("admin.htpasswd", "ada:plain\n");
    eventually("the refusal", async || {
        gateway.stderr()[from..]
            .contains("has a hash that is neither bcrypt")
            .then_some(())
    })
    .await;
    assert_eq!(send(&gateway, "/admin/a", "ada:new").await.status, 200);

    let explained = |pair: &str| {
        let header = format!("Authorization: {}", basic(pair));
        let output = run_to_end(
            &gateway.folder,
            &["explain", "/admin/a", "-H", &header],
            &[],
        );
        String::from_utf8(output.stdout).unwrap()
    };
    gateway.folder.write("admin.htpasswd", line("ada", "new"));
    let text = explained("ada:new");
    assert!(text.contains("the password of \"ada\" in "), "{text}");
    assert!(text.contains("10/m, wrong passwords only"), "{text}");
    assert!(explained("ada:old").contains("401 basic_refused"));
    assert!(explained("eve:new").contains("has no user \"eve\""));
}

#[tokio::test]
async fn errors_and_warnings_of_the_configuration() {
    let app = App::start(|_| Answer::Ok("x")).await;
    let folder = Folder::new();
    folder.write("good", line("ada", "x"));
    folder.write(
        "bad",
        line("ada", "x") + "bob:{SHA}abc\ncarol\n" + &line("ada", "y"),
    );
    folder.write("latin", b"b\xf6b:x");
    let check = |auth: &str, listeners: &str| {
        let text = format!("routes: [{{name: r, path: /*, proxy: '@app', auth: {auth}}}]\n");
        let text = config(&text, &[("app", &app.url())]);
        folder.write(
            "gateway.yaml",
            text.replace("address: 127.0.0.1:0", listeners),
        );
        let output = run_to_end(&folder, &["check"], &[]);
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), log)
    };
    for (auth, said) in [
        ("{basic: {}}", "`users` is missing"),
        ("{basic: none}", "cannot be read"),
        ("{basic: latin}", "is not UTF-8"),
        ("{basic: bad}", "bad` has a hash that is neither bcrypt"),
        ("{basic: bad}", "line 3 of `"),
        ("{basic: bad}", "bad` has a name that is there before"),
        ("{basic: {users: good, relm: a}}", "did you mean `realm`?"),
        (
            "{basic: good, jwt: app}",
            "`jwt` does not stand beside `basic`",
        ),
        (
            "{basic: good, api_key: {file: k}}",
            "`api_key` does not stand beside",
        ),
        ("{basic: good, optional: true}", "unknown key `optional`"),
    ] {
        let (code, log) = check(auth, "address: 127.0.0.1:0");
        assert_eq!(code, Some(2), "{auth}\n{log}");
        assert!(log.contains(said), "{auth}\n{log}");
        assert!(!log.contains("{SHA}abc"), "{log}");
    }
    let clear = "passwords cross the network unencrypted";
    for (listener, is_warned) in [
        ("address: 127.0.0.1:0", false),
        ("address: 0.0.0.0:0", true),
    ] {
        let (code, log) = check("{basic: good}", listener);
        assert_eq!(code, Some(0), "{log}");
        assert_eq!(log.contains(clear), is_warned, "{log}");
    }
}
