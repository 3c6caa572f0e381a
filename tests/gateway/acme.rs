//! Certificates from an ACME directory, as far as no directory is needed: what the configuration may say, that nothing
//! waits for a directory, and what strangers get meanwhile. `tests/interop/acme.py` has the stories with directories.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use super::support::{
    Authority, Folder, Gateway, Wire, config, eventually, free_port, get, run_to_end,
};

/// A listener with TLS and a plain one; the directory is at a port where nobody listens.
const TEXT: &str = "state: data/
listeners:
  - {address: 127.0.0.1:0, redirect_to_https: false}
  - {address: 127.0.0.1:0, tls: {acme: {directory: 'http://127.0.0.1:@port/dir'}}}
routes:
  - {host: a.test, path: /*, respond: {status: 200, body: served}}
";

fn text(port: u16) -> String {
    config(TEXT, &[("port", &port.to_string())])
}

fn check(acme: &str, more: &str) -> (bool, String) {
    let folder = Folder::new();
    folder.write(
        "gateway.yaml",
        format!("{more}\n  - {{address: 127.0.0.1:0, tls: {{acme: {acme}}}}}\n"),
    );
    folder.write("bad.pem", "nothing\n");
    folder.write("good.pem", Authority::new().pem());
    let hook = folder.write("hook", "#!/bin/sh\n");
    std::fs::set_permissions(hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = run_to_end(&folder, &["check"], &[]);
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(!said.contains("panicked at"), "{said}");
    (output.status.success(), said)
}

const WITH_STATE: &str = "state: data/\nroutes: [{path: /*, host: a.test, respond: {status: 200}}]\nlisteners:\n  - {address: 127.0.0.1:0}";

#[test]
fn every_mistake_has_its_place_and_a_remedy() {
    for (acme, said) in [
        (
            "{domains: []}",
            "expected a list of names, found an empty list",
        ),
        (
            "{domains: [a.test, a.test]}",
            "`a.test` is in two certificates",
        ),
        (
            "{domains: [[a.test, b.test], b.test]}",
            "`b.test` is in two certificates",
        ),
        (
            "{domains: ['10.0.0.1']}",
            "certificates for addresses are not ordered",
        ),
        (
            "{domains: ['[::1]']}",
            "certificates for addresses are not ordered",
        ),
        (
            "{domains: ['*.a.test']}",
            "has a star, which only `dns-01` proves",
        ),
        (
            "{domains: ['*.a.test'], challenges: [http-01], dns: {hook: hook}}",
            "add `dns-01` to `challenges`",
        ),
        (
            "{domains: ['*.co.uk'], dns: {hook: hook}}",
            "everybody can have a name below `co.uk`",
        ),
        (
            "{domains: ['*.*.a.test'], dns: {hook: hook}}",
            "a star stands alone",
        ),
        ("{dns: {}}", "`hook` is missing"),
        ("{dns: {hook: none}}", "the hook `"),
        ("{dns: {hook: bad.pem}}", "it is not executable: chmod +x"),
        ("{dns: {hook: .}}", "it is no file"),
        ("{dns: {hook: hook, wait: soon}}", "expected a duration"),
        ("{directory: []}", "found an empty list"),
        (
            "{directory: [letsencrypt, letsencript]}",
            "did you mean `letsencrypt`?",
        ),
        (
            "{directory: [letsencrypt, letsencrypt]}",
            "this directory is here twice",
        ),
        (
            "{directory: [letsencrypt, zerossl]}",
            "`zerossl` needs `eab`",
        ),
        (
            "{directory: [google, zerossl], eab: {kid: a, hmac: c2Vj}}",
            "`zerossl` needs another one",
        ),
        ("{domains: [a_b.test]}", "letters, digits and inner dashes"),
        ("{domains: [a.test], domian: x}", "did you mean `domains`?"),
        ("{directory: letsencript}", "did you mean `letsencrypt`?"),
        ("{directory: 'http://ca.test/dir'}", "anybody on the way"),
        (
            "{directory: 'https://u:p@ca.test/dir'}",
            "a user or password in a URL",
        ),
        ("{ca: good.pem}", "`ca` is for a directory with a URL"),
        (
            "{directory: 'https://ca.test/dir', ca: none.pem}",
            "cannot be read",
        ),
        (
            "{directory: 'https://ca.test/dir', ca: bad.pem}",
            "there is no certificate in this file",
        ),
        ("{email: ops}", "such as ops@example.com"),
        ("{directory: zerossl}", "`zerossl` needs `eab`"),
        ("{directory: google}", "`google` needs `eab`"),
        ("{eab: {kid: a}}", "`hmac` is missing"),
        ("{eab: {kid: a, hmac: 'a+/'}}", "a key in base64url"),
        ("{challenges: []}", "found an empty list"),
        (
            "{challenges: [http-01, http-01]}",
            "`http-01` is here twice",
        ),
        ("{challenges: [dns-01]}", "`dns-01` needs `dns`"),
        ("{challenges: [dns-1]}", "did you mean `dns-01`?"),
        ("{key: p265}", "did you mean `p256`?"),
        ("", "expected a map, found nothing"),
    ] {
        let (good, text) = check(acme, WITH_STATE);
        assert!(
            !good && text.contains(said) && text.contains('^'),
            "{acme}:\n{text}"
        );
    }
    let (_, text) = check("{eab: {kid: a, hmac: 'c2VjcmV0/'}}", WITH_STATE);
    assert!(!text.contains("c2VjcmV0"), "{text}");

    let route = "routes: [{path: /*, respond: {status: 200}}]\nlisteners:";
    for (acme, before, said) in [
        ("{domains: [a.test]}", route, "`acme` needs `state`"),
        (
            "{}",
            &format!("state: data/\n{route}"),
            "no route has a `host`",
        ),
        (
            "{domains: [a.test]}",
            &format!("state: redis://127.0.0.1:1\n{route}"),
            "which need `state.key` to seal them",
        ),
        (
            "{domains: [a.test]}",
            &format!("state: {{redis: 'redis://127.0.0.1:1', key: c2hvcnQ=}}\n{route}"),
            "expected 32 bytes in base64, found a hidden value",
        ),
        (
            "{domains: [a.test]}",
            &format!("state: {{redis: 'redis://127.0.0.1:1', key: []}}\n{route}"),
            "found an empty list",
        ),
        (
            "{domains: [a.test], challenges: [http-01]}",
            &format!("state: data/\n{route}"),
            "there is none",
        ),
        (
            "{domains: [a.test]}, unknown_name: first",
            &format!("state: data/\n{route}"),
            "there is no first certificate",
        ),
        (
            "{domains: [[a.test, b.test]]}",
            &format!(
                "state: data/\n{route}\n  - {{address: 127.0.0.1:1, tls: {{acme: {{domains: [b.test]}}}}}}"
            ),
            "`b.test` is in two certificates",
        ),
        (
            "{domains: [a.test], key: p384}",
            &format!(
                "state: data/\n{route}\n  - {{address: 127.0.0.1:1, tls: {{acme: {{domains: [a.test]}}}}}}"
            ),
            "a.test is ordered in two ways",
        ),
    ] {
        let (good, text) = check(acme, before);
        assert!(!good && text.contains(said), "{acme} {before}:\n{text}");
    }
}

#[test]
fn what_is_right_is_accepted_and_what_it_needs_is_said() {
    for acme in [
        "{}",
        "{domains: [a.test, [b.test, C.test.]]}",
        "{directory: letsencrypt-staging, email: ops@a.test, key: rsa2048, profile: shortlived}",
        "{directory: 'https://ca.test:14000/dir', challenges: [http-01, tls-alpn-01]}",
        "{directory: google, eab: {kid: a, hmac: c2VjcmV0}}",
        "{directory: [letsencrypt, 'https://ca.test/dir', zerossl], ca: good.pem, eab: {kid: a, hmac: c2Vj}}",
    ] {
        let (good, text) = check(acme, WITH_STATE);
        assert!(good, "{acme}:\n{text}");
        assert!(
            text.contains("neither a plain listener on port 80"),
            "{text}"
        );
    }
    for acme in [
        "{domains: [a.test, '*.a.test'], dns: {hook: hook}, challenges: [dns-01]}",
        "{domains: [[a.test, '*.a.test']], dns: {hook: hook, wait: 0s}}",
    ] {
        let (good, text) = check(acme, WITH_STATE);
        assert!(good && !text.contains("port 80"), "{acme}:\n{text}");
    }
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    for keys in [key.to_owned(), format!("[{key}, {key}]")] {
        let state = format!("state: {{redis: 'redis://127.0.0.1:1', key: {keys}}}");
        let with_key = WITH_STATE.replace("state: data/", &state);
        let (good, text) = check("{}", &with_key);
        assert!(good && !text.contains(key), "{text}");
        let folder = Folder::new();
        folder.write("gateway.yaml", &with_key);
        let output = run_to_end(&folder, &["check", "--print"], &[]);
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success(), "{text}");
        assert!(text.contains("'***'") && !text.contains(key), "{text}");
    }
    // Listeners that order the same share it.
    let both = format!("{WITH_STATE}\n  - {{address: 127.0.0.1:1, tls: {{acme: {{}}}}}}");
    assert!(check("{}", &both).0);
    let folder = Folder::new();
    let text = "state: data/\nlisteners:\n  - {address: 127.0.0.1:443, tls: {acme: {eab: {kid: a, hmac: c2VjcmV0}}}}\nroutes: [{path: /*, host: a.test, respond: {status: 200}}]\n";
    folder.write("gateway.yaml", text);
    let output = run_to_end(&folder, &["check", "--print"], &[]);
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(
        said.contains("hmac: '***'") && !said.contains("c2VjcmV0"),
        "{said}"
    );
    assert!(!said.contains("port 80"), "{said}");
    assert!(!folder.path("data").exists(), "`check` makes nothing");
}

#[tokio::test]
async fn nothing_waits_for_a_directory_and_no_certificate_is_made_up() {
    let authority = Authority::new();
    let (port, before) = (free_port(), Instant::now());
    let gateway = Gateway::start(&text(port)).await;
    assert!(before.elapsed() < Duration::from_secs(10));
    let [plain, secure] = gateway.addresses()[..] else {
        panic!("two listeners");
    };
    let host = [("Host", "a.test")];
    assert_eq!(get(plain, "/", &host).await.text(), "served");
    for (name, alpn) in [
        ("a.test", &["h2", "http/1.1"][..]),
        ("b.test", &[]),
        // Nothing is pending.
        ("a.test", &["acme-tls/1"]),
        ("b.test", &["acme-tls/1"]),
    ] {
        let why = authority.connect(secure, name, alpn).await.unwrap_err();
        assert!(
            why.to_string().contains("UnrecognisedName"),
            "{name} {alpn:?}: {why}"
        );
    }
    eventually("a failure", async || {
        gateway
            .stderr()
            .contains("certificate not issued")
            .then_some(())
    })
    .await;
    let log = gateway.stderr();
    assert!(
        log.contains("Connection refused") && log.contains("again_in="),
        "{log}"
    );
    // Orders are not made by asking for names.
    assert!(!log.contains("b.test"), "{log}");

    // What is no pending challenge goes its usual way, whatever the path.
    for path in [
        "/.well-known/acme-challenge/",
        "/.well-known/acme-challenge/none",
    ] {
        assert_eq!(get(plain, path, &host).await.text(), "served", "{path}");
    }
    let list = run_to_end(&gateway.folder, &["cert", "list"], &[]);
    let list = String::from_utf8(list.stdout).unwrap();
    assert!(list.starts_with("a.test\tnone yet\t-\t20"), "{list}");
    assert!(list.contains("1 failed: "), "{list}");
    let list = run_to_end(&gateway.folder, &["cert", "list", "--format", "json"], &[]);
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(list["certificates"][0]["failures"], 1);

    let state = gateway.folder.path("data");
    let mode = |path: &str| {
        let path = if path.is_empty() {
            state.clone()
        } else {
            state.join(path)
        };
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(mode(""), 0o700);
    assert_eq!(mode("acme"), 0o700);
    let row = format!("acme/127.0.0.1_{port}/a.test/meta.json");
    assert_eq!(mode(&row), 0o600);
}

#[tokio::test]
async fn a_start_does_not_wait_for_redis_and_nothing_is_ordered_without_it() {
    let (directory, redis) = (free_port(), free_port());
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let state = format!("{{redis: 'redis://:s3cret@127.0.0.1:{redis}', key: {key}}}");
    let text = text(directory).replace("data/", &state);
    let before = Instant::now();
    let gateway = Gateway::start(&text).await;
    assert!(before.elapsed() < Duration::from_secs(10));
    let host = [("Host", "a.test")];
    assert_eq!(
        get(gateway.addresses()[0], "/", &host).await.text(),
        "served"
    );
    eventually("the failure", async || {
        let said =
            "no certificate can be ordered, those that are there serve on: `state`: redis://127";
        gateway.stderr().contains(said).then_some(())
    })
    .await;
    for words in [&["cert", "list"][..], &["cert", "renew", "a.test"]] {
        let output = run_to_end(&gateway.folder, words, &[]);
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("Connection refused"), "{said}");
    }
    let log = gateway.stderr();
    assert!(!log.contains("certificate not issued"), "{log}");
    assert!(!log.contains("s3cret") && !log.contains(key), "{log}");
}

#[tokio::test]
async fn a_restart_waits_as_long_as_before_and_a_request_for_renewal_does_not() {
    let folder = Folder::new();
    let text = text(free_port());
    let mut gateway = Gateway::start_in(folder, &text).await;
    let failures = |gateway: &Gateway| gateway.stderr().matches("certificate not issued").count();
    eventually("a failure", async || (failures(&gateway) > 0).then_some(())).await;
    gateway.signal(rustix::process::Signal::TERM);
    gateway.exit().await;

    let kept = gateway.folder.path("data");
    let next = Folder::new();
    std::fs::rename(&kept, next.path("data")).unwrap();
    let gateway = Gateway::start_in(next, &text).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(failures(&gateway), 0, "the pause is a minute");
    let asked = run_to_end(&gateway.folder, &["cert", "renew", "A.test."], &[]);
    assert!(asked.status.success());
    eventually("another attempt", async || {
        (failures(&gateway) > 0).then_some(())
    })
    .await;
    assert!(
        gateway.stderr().contains("failures=2"),
        "{}",
        gateway.stderr()
    );
    let other = run_to_end(&gateway.folder, &["cert", "renew", "b.test"], &[]);
    assert_eq!(other.status.code(), Some(1));
    let said = String::from_utf8(other.stderr).unwrap();
    assert!(said.contains("these are: a.test"), "{said}");
}

#[tokio::test]
async fn files_serve_beside_acme_and_a_reload_follows_the_names() {
    let authority = Authority::new();
    let folder = Folder::new();
    let own = authority.issue("own.test");
    folder.write("own.pem", &own.cert);
    folder.write("own.key", &own.key);
    let port = free_port();
    let text = |names: &str| {
        config(
            "state: data/
listeners:
  - address: 127.0.0.1:0
    tls:
      certificates: [{cert: own.pem, key: own.key}]
      acme: {domains: [@names], directory: 'http://127.0.0.1:@port/dir'}
routes: [{path: /*, respond: {status: 200, body: served}}]
",
            &[("names", names), ("port", &port.to_string())],
        )
    };
    let gateway = Gateway::start_in(folder, &text("a.test")).await;
    let connect = |name: &'static str| authority.connect(gateway.address(), name, &[]);
    let stream = connect("own.test").await.unwrap();
    assert_eq!(
        Wire::over(stream)
            .get("/", &[("Host", "own.test")])
            .await
            .text(),
        "served"
    );
    let unknown = |why: std::io::Error| why.to_string().contains("UnrecognisedName");
    assert!(
        unknown(connect("a.test").await.unwrap_err()),
        "it has none yet, even with a first one"
    );
    // Another name gets the first certificate, which this client refuses.
    assert!(!unknown(connect("b.test").await.unwrap_err()));
    gateway.reconfigure(&text("a.test, b.test")).await;
    assert!(unknown(connect("b.test").await.unwrap_err()));
    gateway.reconfigure(&text("b.test")).await;
    assert!(!unknown(connect("a.test").await.unwrap_err()));
}
