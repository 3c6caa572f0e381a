//! The command line itself: its words, its help, and what scripts and editors read of it.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};

use super::support::{Folder, Kind, config, key, program, run_to_end, token};

const TEXT: &str = "jwt: {app: {algorithms: [HS256], secret: '@secret'}}
defaults: {auth: app}
routes:
  - path: /api/*
    proxy: http://127.0.0.1:9
  - {name: home, path: /, respond: {body: hello}, auth: none}
  - {path: '/users/{id}/orders', respond: {status: 204}, host: shop.example}
";

fn folder() -> Folder {
    let folder = Folder::new();
    let secret = &key(Kind::Secret, 0).public;
    folder.write("gateway.yaml", config(TEXT, &[("secret", secret)]));
    folder
}

/// What a command writes to its two outputs, and its exit code.
fn run(folder: &Folder, arguments: &[&str]) -> (String, String, i32) {
    let output = run_to_end(folder, arguments, &[]);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    (text(output.stdout), text(output.stderr), code)
}

fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn the_configuration_is_named_before_or_behind_the_command() {
    let folder = folder();
    std::fs::rename(folder.path("gateway.yaml"), folder.path("other.yaml")).unwrap();
    for arguments in [
        &["-c", "other.yaml", "check"][..],
        &["check", "-c", "other.yaml"],
        &["check", "other.yaml"],
        &["validate", "other.yaml"],
        &["-t", "-c", "other.yaml"],
        &["-tc", "other.yaml"],
        &["-c", "other.yaml", "-t"],
        &["-c", "other.yaml", "explain", "/"],
        &["explain", "-c", "other.yaml", "/"],
        &["--config", "other.yaml", "test"],
    ] {
        let (out, err, code) = run(&folder, arguments);
        assert_eq!(code, 0, "{arguments:?}: {out}{err}");
    }
    for (arguments, said) in [
        (&["check"][..], "gateway.yaml"),
        (&["-t"], "gateway.yaml"),
        (&["check", "-c", "other.yaml", "other.yaml"], "not both"),
        (&["-c", "other.yaml"], "subcommand"),
        (&["-t", "run"], "run"),
    ] {
        let (out, err, code) = run(&folder, arguments);
        assert_eq!(code, 2, "{arguments:?}: {out}{err}");
        assert!(err.contains(said), "{arguments:?}: {err}");
    }
}

#[test]
fn version_and_help_are_commands_and_each_help_has_two_examples() {
    let folder = Folder::new();
    let version = run(&folder, &["version"]);
    assert_eq!(version, run(&folder, &["--version"]));
    assert_eq!(
        version.0,
        format!("portcullis {}\n", env!("CARGO_PKG_VERSION"))
    );
    for command in [
        "run",
        "serve",
        "check",
        "validate",
        "explain",
        "test",
        "user",
        "token",
        "key",
        "demo",
        "user add",
        "user password",
        "user disable",
        "user enable",
        "user remove",
        "user list",
        "token issue",
        "token revoke",
        "token decode",
        "token verify",
        "key generate",
        "key rotate",
        "key list",
        "cert",
        "cert local",
        "diff",
        "init",
        "completions",
        "man",
    ] {
        let words: Vec<&str> = std::iter::once("help").chain(command.split(' ')).collect();
        let (out, err, code) = run(&folder, &words);
        assert_eq!(code, 0, "{command}: {err}");
        let examples = out.split_once("Examples:").map_or("", |(_, rest)| rest);
        let lines = examples.lines().filter(|line| line.starts_with("  "));
        let count = lines.filter(|line| line.contains("portcullis ")).count();
        assert!(count >= 2, "{command}: {out}");
    }
    let (out, _, code) = run(&folder, &["help"]);
    assert!(
        code == 0 && out.contains("alias: serve") && out.contains("alias: validate"),
        "{out}"
    );
    // Nothing to do is a wrong use of it.
    assert_eq!(run(&folder, &[]).2, 2);
}

#[test]
fn a_local_certificate_is_made_beside_the_configuration_and_serves() {
    let folder = Folder::new();
    let (out, err, code) = run(&folder, &["cert", "local", "app.test", "10.1.2.3"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let line = "tls: {certificates: [{cert: certs/app.test.pem, key: certs/app.test.key}]}";
    assert!(out.contains(line), "{out}");
    assert!(
        out.contains("curl --cacert certs/local-ca/root.pem https://app.test/\n"),
        "{out}"
    );
    let text = format!(
        "listeners: [{{address: '127.0.0.1:0', {line}}}]\n\
         routes: [{{host: app.test, path: /, respond: {{status: 204}}}}]\n"
    );
    folder.write("gateway.yaml", text);
    let (_, err, code) = run(&folder, &["check"]);
    assert!(code == 0 && !err.contains("certificate"), "{err}");

    let root = std::fs::read(folder.path("certs/local-ca/root.pem")).unwrap();
    let (out, err, code) = run(&folder, &["cert", "local", "app.test"]);
    assert!(code == 0 && out.contains("are replaced"), "{out}{err}");
    assert_eq!(
        std::fs::read(folder.path("certs/local-ca/root.pem")).unwrap(),
        root
    );
    folder.write("mine/_.b.test.pem", "somebody's");
    let elsewhere = ["cert", "local", "--dir", "mine", "*.b.test"];
    let (_, err, code) = run(&folder, &elsewhere);
    assert!(code == 1 && err.contains("--force"), "{err}");
    let (out, err, code) = run(&folder, &[&elsewhere[..], &["--force"]].concat());
    assert!(code == 0 && out.contains("mine/_.b.test.pem"), "{out}{err}");
    let (_, err, code) = run(&folder, &["cert", "local", "localhost", "example.com"]);
    assert!(
        code == 2 && err.contains("`example.com` is no local name"),
        "{err}"
    );
}

#[test]
fn explain_takes_a_path_alone_and_a_token() {
    let folder = folder();
    let (get, _, code) = run(&folder, &["explain", "/api/x"]);
    assert_eq!(code, 3);
    assert_eq!(get, run(&folder, &["explain", "GET", "/api/x"]).0);
    assert!(get.contains("401 token_missing"), "{get}");
    assert!(get.contains("lines      gateway.yaml:7-8\n"), "{get}");
    assert!(
        get.contains("           gateway.yaml:5 (defaults.auth)\n"),
        "{get}"
    );

    let good = token(json!({"sub": "7"}));
    let (said, _, code) = run(&folder, &["explain", "/api/x", "--token", &good]);
    assert!(
        code == 0 && said.contains("verifier app: accepts it"),
        "{said}"
    );
    assert!(!said.contains(&good), "{said}");
    let (_, err, code) = run(&folder, &["explain", "/", "--token", "a b\u{1}"]);
    assert!(code == 2 && err.contains("--token"), "{err}");
    assert_eq!(
        run(
            &folder,
            &["explain", "/", "--token", &good, "--claims", "{}"]
        )
        .2,
        2
    );
}

#[test]
fn a_404_names_the_nearest_routes() {
    let folder = folder();
    for (path, near) in [
        ("/apu/orders", "/api/*"),
        ("/ap", "/api/*"),
        ("/user/7/orders", "shop.example/users/{id}/orders"),
    ] {
        let (said, _, code) = run(&folder, &["explain", path]);
        assert_eq!(code, 3);
        let line = said.lines().find(|line| line.contains("nearest"));
        assert!(
            line.is_some_and(|line| line.contains(near)),
            "{path}: {said}"
        );
    }
    let (said, _, _) = run(&folder, &["explain", "/something/entirely/different"]);
    assert!(!said.contains("nearest"), "{said}");
}

#[test]
fn explain_speaks_json() {
    let folder = folder();
    let (said, _, code) = run(&folder, &["explain", "--json", "/api/x"]);
    assert_eq!(code, 3);
    let said = read(&said);
    assert_eq!(said["allowed"], false);
    assert_eq!(said["outcome"], "refused");
    assert_eq!(
        (&said["status"], &said["reason"]),
        (&json!(401), &json!("token_missing"))
    );
    assert_eq!(said["route"], "/api/*");
    assert_eq!(
        said["lines"],
        json!([
            {"of": "route", "file": "gateway.yaml", "first": 7, "last": 8},
            {"of": "defaults.auth", "file": "gateway.yaml", "first": 5, "last": 5},
        ])
    );
    let steps = said["steps"].as_array().unwrap();
    assert!(
        steps.contains(&json!({"step": "path", "text": "/api/x"})),
        "{steps:?}"
    );

    let good = token(json!({"sub": "7"}));
    let (said, _, code) = run(&folder, &["explain", "--json", "/api/x", "--token", &good]);
    assert!(!said.contains(&good));
    let said = read(&said);
    assert_eq!(code, 0);
    assert_eq!(
        (&said["outcome"], &said["upstream"]),
        (&json!("forwarded"), &json!("http://127.0.0.1:9"))
    );
    assert_eq!(said["status"], Value::Null);
    assert!(
        said["app_sees"]
            .as_array()
            .is_some_and(|fields| !fields.is_empty())
    );
    // A wrong configuration is words, not JSON.
    folder.write("gateway.yaml", "routes: 1\n");
    let (out, err, code) = run(&folder, &["explain", "--json", "/"]);
    assert!(
        code == 2 && out.is_empty() && err.contains("gateway.yaml:1:9"),
        "{out}{err}"
    );
}

#[test]
fn test_ends_with_a_count_and_speaks_json() {
    let folder = folder();
    folder.write(
        "a.test.yaml",
        "- {request: GET /, expect: {status: 200}}\n- {request: 'GET /api/x?token=hush', expect: {status: 200}}\n",
    );
    let (said, _, code) = run(&folder, &["test", "--coverage"]);
    assert_eq!(code, 1);
    assert!(said.ends_with("\n1 passed, 1 failed\n"), "{said}");
    let (said, _, code) = run(&folder, &["test", "--json"]);
    assert_eq!(code, 1);
    assert!(!said.contains("hush"), "{said}");
    let said = read(&said);
    assert_eq!((&said["passed"], &said["failed"]), (&json!(1), &json!(1)));
    let tests = said["tests"].as_array().unwrap();
    assert_eq!(tests[0]["passed"], true);
    assert_eq!(tests[0]["place"], "./a.test.yaml:1:3");
    assert_eq!(tests[1]["request"], "GET /api/x");
    let why = tests[1]["why"].as_str().unwrap();
    assert!(why.contains("expected status 200"), "{why}");
    assert!(said.get("untested").is_none());
    let (said, _, _) = run(&folder, &["test", "--json", "--coverage"]);
    assert_eq!(
        read(&said)["untested"],
        json!(["/api/*", "shop.example/users/{id}/orders"])
    );
    std::fs::remove_file(folder.path("a.test.yaml")).unwrap();
    let (said, _, code) = run(&folder, &["test"]);
    assert_eq!((said.as_str(), code), ("0 passed, 0 failed\n", 0));
}

#[test]
fn check_speaks_json_to_editors() {
    let folder = folder();
    let (said, err, code) = run(&folder, &["check", "--format", "json"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let said = read(&said);
    assert_eq!(said["good"], true);
    assert!(
        said["summary"]
            .as_str()
            .unwrap()
            .starts_with("1 listener, 3 routes")
    );
    assert!(said["messages"].is_array());

    folder.write(
        "gateway.yaml",
        config("routes:\n  - {path: /a, respond: {body: a}, methods: [GTE]}\n  - path: /b\n    prox: x\n", &[]),
    );
    let (said, err, code) = run(&folder, &["check", "--format=json"]);
    assert_eq!((code, err.as_str()), (2, ""));
    let said = read(&said);
    assert_eq!((&said["good"], &said["more"]), (&json!(false), &json!(0)));
    let messages = said["messages"].as_array().unwrap();
    let error = messages
        .iter()
        .find(|message| message["severity"] == "error")
        .unwrap();
    assert_eq!(error["message"], "unknown key `prox`");
    assert_eq!(
        (&error["file"], &error["line"], &error["column"]),
        (&json!("gateway.yaml"), &json!(7), &json!(5))
    );
    assert!(
        error["hint"]
            .as_str()
            .unwrap()
            .starts_with("did you mean `proxy`?")
    );
    let warning = messages
        .iter()
        .find(|message| message["severity"] == "warning")
        .unwrap();
    assert_eq!(
        (&warning["line"], &warning["column"]),
        (&json!(5), &json!(46))
    );
    assert!(
        warning["message"]
            .as_str()
            .unwrap()
            .contains("did you mean `GET`"),
        "{warning}"
    );
    assert!(
        messages
            .iter()
            .all(|message| message["message"].is_string())
    );
}

#[test]
fn the_count_of_errors_ends_its_line() {
    let folder = Folder::new();
    folder.write("gateway.yaml", "routes: 7\n");
    for command in [
        "check",
        "run",
        "explain /",
        "test",
        "user list",
        "demo -c gateway.yaml",
    ] {
        let arguments: Vec<&str> = command.split(' ').collect();
        let (_, err, code) = run(&folder, &arguments);
        assert_ne!(code, 0);
        assert!(
            err.ends_with("\n\n2 errors in gateway.yaml\n"),
            "{command}: {err:?}"
        );
    }
    folder.write("gateway.yaml", config("routes: 7\n", &[]));
    let (_, err, _) = run(&folder, &["check"]);
    assert!(err.ends_with("\n1 error in gateway.yaml\n"), "{err}");
}

#[test]
fn what_is_read_by_programs_has_no_colour() {
    let folder = folder();
    for arguments in [
        &["explain", "/api/x"][..],
        &["help"],
        &["check"],
        &["check", "none.yaml"],
    ] {
        let output = program()
            .args(arguments)
            .env_remove("NO_COLOR")
            .current_dir(folder.path(""))
            .output()
            .unwrap();
        let all = [output.stdout, output.stderr].concat();
        assert!(!all.contains(&0x1b), "{arguments:?}");
    }
}

#[test]
fn what_init_writes_is_good_and_has_three_tests_that_pass() {
    let public = ["--host", "www.example.com"];
    let provider = [
        "--issuer",
        "https://sso.example.com/realms/main",
        "--audience",
        "orders",
    ];
    for kind in ["django", "fastapi", "node", "static", "spa", "proxy"] {
        for options in [&[][..], &public, &provider] {
            if kind == "static" && options.len() > 2 {
                continue;
            }
            let folder = Folder::new();
            let (out, err, code) = run(&folder, &[&["init", kind], options].concat());
            assert_eq!(code, 0, "{kind} {options:?}: {err}");
            assert!(out.contains("gateway.yaml is written"), "{out}");
            let (out, err, code) = run(&folder, &["check"]);
            assert_eq!(code, 0, "{kind} {options:?}: {out}{err}");
            let (out, err, code) = run(&folder, &["test"]);
            assert_eq!(code, 0, "{kind} {options:?}: {out}{err}");
            assert!(
                out.contains("3 passed, 0 failed"),
                "{kind} {options:?}: {out}"
            );

            // A guard that is taken away fails its test; the tests are no decoration.
            let text = std::fs::read_to_string(folder.path("gateway.yaml")).unwrap();
            if let Some((begin, end)) = text.split_once("auth: {jwt:") {
                let (_, end) = end.split_once("}}").unwrap();
                folder.write("gateway.yaml", format!("{begin}auth: none{end}"));
                let (out, err, code) = run(&folder, &["test"]);
                assert_ne!(code, 0, "{kind} {options:?}: {out}{err}");
            }
        }
    }
}

#[test]
fn init_looks_at_the_folder_and_overwrites_nothing() {
    for (file, text, said) in [
        ("manage.py", "", "for Django"),
        (
            "requirements.txt",
            "uvicorn\nFastAPI==0.115\n",
            "for FastAPI",
        ),
        ("package.json", "{}", "for Node"),
        ("vite.config.js", "", "for a single-page app"),
        ("index.html", "", "for a folder of files"),
        ("main.go", "", "for an app"),
    ] {
        let folder = Folder::new();
        folder.write(file, text);
        let (out, err, code) = run(&folder, &["init"]);
        assert_eq!(code, 0, "{file}: {err}");
        assert!(out.contains(said), "{file}: {out}");
    }
    let folder = Folder::new();
    folder.write("gateway.yaml", "mine");
    let (_, err, code) = run(&folder, &["init", "proxy"]);
    assert_eq!(
        (code, err.contains("nothing is overwritten")),
        (1, true),
        "{err}"
    );
    assert_eq!(
        std::fs::read_to_string(folder.path("gateway.yaml")).unwrap(),
        "mine"
    );
    assert!(
        !folder.path("data").exists(),
        "nothing is made before it is known that it may be"
    );
    for arguments in [
        &["init", "static", "--app", "http://127.0.0.1:1"][..],
        &["init", "proxy", "--root", "x"],
        &["init", "proxy", "--issuer", "https://sso.example.com"],
        &["init", "proxy", "--host", "https://www.example.com/"],
        &["init", "proxy", "--host", "*.example.com"],
        &["init", "spa", "--root", "a\"b"],
        &["init", "spa", "--root", "${HOME}"],
        &["init", "static", "--user", "alice"],
        &["init", "perl"],
    ] {
        let folder = Folder::new();
        let (out, err, code) = run(&folder, arguments);
        assert_eq!(code, 2, "{arguments:?}: {out}{err}");
        assert!(!folder.path("gateway.yaml").exists(), "{arguments:?}");
    }
}

#[test]
fn the_first_user_of_init_may_log_in() {
    let folder = Folder::new();
    let mut child = program()
        .args(["init", "--user", "alice"])
        .current_dir(folder.path(""))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"a long password\n").unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
    let (out, _, code) = run(&folder, &["user", "list"]);
    assert_eq!((code, out.starts_with("alice\tactive")), (0, true), "{out}");
}

#[test]
fn completions_and_man_pages_know_every_command() {
    let folder = Folder::new();
    for shell in ["bash", "zsh", "fish"] {
        let (out, err, code) = run(&folder, &["completions", shell]);
        assert_eq!(code, 0, "{err}");
        for word in ["explain", "init", "--audience", "renew"] {
            assert!(
                out.contains(word.trim_start_matches('-')),
                "{shell}: {word}"
            );
        }
    }
    let (_, err, code) = run(&folder, &["man", "pages/man1"]);
    assert_eq!(code, 0, "{err}");
    let page =
        |name: &str| std::fs::read_to_string(folder.path(&format!("pages/man1/{name}.1"))).unwrap();
    assert!(
        page("portcullis").contains("portcullis\\-explain(1)"),
        "{}",
        page("portcullis")
    );
    assert!(page("portcullis-explain").contains("EXTRA"), "its examples");
    assert!(page("portcullis-user-add").contains("\\-\\-set"));
    folder.write("file", "");
    let (_, err, code) = run(&folder, &["man", "file"]);
    assert_eq!((code, err.contains("file")), (1, true), "{err}");
}

#[test]
fn diff_says_what_changes_and_where_access_gets_wider() {
    let folder = folder();
    let old = std::fs::read_to_string(folder.path("gateway.yaml")).unwrap();
    let diff = |new: &str| {
        folder.write("new.yaml", new);
        run(&folder, &["diff", "gateway.yaml", "new.yaml"])
    };
    let (out, err, code) = diff(&format!("# A remark.\n{old}"));
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    assert!(err.contains("nothing changed"), "{err}");

    // What no word of a reload tells.
    for (from, to, said) in [
        (
            "routes:",
            "timeouts: {body_read: 2m}\nroutes:",
            "timeouts body_read: 30s -> 2m",
        ),
        (
            "path: /api/*",
            "path: /api/*\n    body_bytes: 5MiB",
            "routes /api/* body_bytes",
        ),
        (
            "path: /api/*",
            "path: /api/*\n    auth: {jwt: app, forward: {X-User: sub}}",
            "auth forward X-User added (sub)",
        ),
        (
            "body: hello",
            "body: bye",
            "routes home respond body: hello -> bye",
        ),
        (
            "routes:",
            "routes:\n  - {path: /more, respond: {body: m}}",
            "/more added (respond 200",
        ),
        ("status: 204", "status: 205", "respond status: 204 -> 205"),
        (":9\n", ":10\n", "http://127.0.0.1:10"),
    ] {
        assert!(old.contains(from), "{from}");
        let (out, err, code) = diff(&old.replacen(from, to, 1));
        assert_eq!(code, 1, "{from} -> {to}: {out}{err}");
        assert!(out.contains(said), "{from} -> {to}: {out}");
        assert!(!out.contains("WIDER"), "{out}");
    }

    for (from, to) in [
        ("path: /api/*", "path: /api/*\n    auth: none"),
        (
            "routes:",
            "routes:\n  - {path: /api/reports/*, respond: {status: 200}, auth: none}",
        ),
    ] {
        let (out, err, code) = diff(&old.replacen(from, to, 1));
        assert_eq!(code, 3, "{to}: {out}{err}");
        assert!(out.starts_with("ACCESS GOT WIDER: "), "{out}");
    }
    let (out, _, code) = diff(&old.replacen("auth: none", "auth: app", 1));
    assert_eq!(code, 1, "narrower is no alarm: {out}");

    let secret = &key(Kind::Secret, 1).public;
    let (out, err, _) = diff(&old.replace(&key(Kind::Secret, 0).public, secret));
    assert!(!out.contains(secret) && !err.contains(secret), "{out}{err}");
    let (_, err, code) = diff("routes: [{path: /, answer: x}]");
    assert_eq!((code, err.contains("new.yaml:1:")), (2, true), "{err}");
}
