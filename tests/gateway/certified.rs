//! Client certificates before anybody connects: `explain`, policy tests, and what a reload says of them.

use rcgen::SerialNumber;
use serde_json::{Value, json};

use super::clients::{Parties, config_only, fingerprint, named, text};
use super::support::{Folder, Gateway, Kind, config, key, run_to_end};

const ROUTES: &str = "jwt: {app: {algorithms: [HS256], secret: '@secret'}}
routes:
  - {path: /open, respond: {status: 200}}
  - {path: /any, respond: {status: 200}, auth: {certificate: any}}
  - {path: /pinned, respond: {status: 200}, auth: {certificate: {fingerprint: '@print'}}}
  - {path: /both, respond: {status: 200}, auth: {jwt: app, certificate: any}}
  - {path: /told, proxy: 'http://127.0.0.1:1', auth: {certificate: any, forward: {X-Client: 'certificate:subject'}}}
  - {path: /token, respond: {status: 200}, auth: app}
";

/// A folder with the configuration, and the certificates of three clients.
fn folder(client_auth: &str, rest: &str) -> (Folder, String) {
    let parties = Parties::new();
    let own = parties.clients.client(named("own"));
    let print = fingerprint(&own);
    let folder = parties.folder;
    folder.write("own.pem", &own.cert);
    folder.write("own.der", &own.der);
    folder.write("plain.pem", parties.clients.client(named("plain")).cert);
    folder.write("other.pem", parties.others.client(named("other")).cert);
    let old = parties.clients.client(|params| {
        named("old")(params);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    folder.write("old.pem", old.cert);
    let revoked = parties.clients.client(|params| {
        params.serial_number = Some(SerialNumber::from(vec![7]));
    });
    folder.write("revoked.pem", revoked.cert);
    folder.write("clients.crl", parties.clients.revoke(&[7]));
    let secret = &key(Kind::Secret, 0).public;
    let values = [("secret", secret.as_str()), ("print", print.as_str())];
    let text = text(client_auth, &config_only(rest, &values));
    folder.write("gateway.yaml", &text);
    (folder, print)
}

fn explain(folder: &Folder, arguments: &[&str]) -> Value {
    let arguments = [&["explain", "-c", "gateway.yaml", "--json"], arguments].concat();
    let output = run_to_end(folder, &arguments, &[]);
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn explain_stands_for_a_client_with_a_certificate() {
    let (folder, print) = folder("{ca: ca.pem, required: false}", ROUTES);
    let claims = json!({"cnf": {"x5t#S256": print}}).to_string();
    for (path, certificate, more, reason, said) in [
        ("/any", Some("own.pem"), &[][..], None, "CN=own, accepted"),
        ("/any", Some("own.der"), &[], None, "CN=own, accepted"),
        (
            "/any",
            None,
            &[],
            Some("certificate_missing"),
            "the route wants any certificate",
        ),
        (
            "/pinned",
            Some("own.pem"),
            &[],
            None,
            "the client certificate is enough",
        ),
        (
            "/pinned",
            Some("plain.pem"),
            &[],
            Some("certificate_refused"),
            "its fingerprint:",
        ),
        (
            "/any",
            Some("other.pem"),
            &[],
            Some("tls_client_certificate"),
            "refused: invalid peer certificate",
        ),
        (
            "/any",
            Some("old.pem"),
            &[],
            Some("tls_client_certificate"),
            "expired",
        ),
        (
            "/both",
            Some("own.pem"),
            &[],
            Some("token_missing"),
            "CN=own, accepted",
        ),
        (
            "/both",
            Some("own.pem"),
            &["--claims", "{}"],
            None,
            "CN=own, accepted",
        ),
        (
            "/both",
            None,
            &["--claims", "{}"],
            Some("certificate_missing"),
            "no certificate, and none is required",
        ),
        (
            "/token",
            Some("own.pem"),
            &["--claims", &claims],
            None,
            "CN=own, accepted",
        ),
        (
            "/token",
            Some("plain.pem"),
            &["--claims", &claims],
            Some("token_binding"),
            "bound to another",
        ),
        (
            "/token",
            None,
            &["--claims", &claims],
            Some("token_binding"),
            "the connection has none",
        ),
    ] {
        let mut arguments = vec![path];
        arguments.extend(more);
        if let Some(file) = certificate {
            arguments.extend(["--certificate", file]);
        }
        let decision = explain(&folder, &arguments);
        assert_eq!(
            decision["reason"].as_str(),
            reason,
            "{path} {certificate:?} {decision}"
        );
        assert_eq!(decision["allowed"], reason.is_none());
        assert!(
            decision.to_string().contains(said),
            "{path} {certificate:?}: {decision:#}"
        );
    }
    let told = explain(&folder, &["/told", "--certificate", "own.pem"]);
    let seen = told["app_sees"].as_array().unwrap();
    assert!(
        seen.contains(&json!({"name": "x-client", "value": "CN=own"})),
        "{told:#}"
    );
    let output = run_to_end(
        &folder,
        &[
            "explain",
            "-c",
            "gateway.yaml",
            "/any",
            "--certificate",
            "server.key",
        ],
        &[],
    );
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("there is no certificate in this file")
    );
}

#[test]
fn explain_takes_the_listener_that_lets_the_client_in() {
    let (folder, _) = folder("{ca: ca.pem}", ROUTES);
    let without = explain(&folder, &["/open"]);
    assert_eq!(without["outcome"], "no_connection");
    assert_eq!(without["reason"], "tls_client_certificate");
    assert_eq!(
        explain(&folder, &["/open", "--certificate", "own.pem"])["status"],
        200
    );
    let whole = std::fs::read_to_string(folder.path("gateway.yaml")).unwrap();
    let both = whole.replace("listeners:\n", "listeners:\n  - {address: 127.0.0.1:0}\n");
    folder.write("gateway.yaml", both);
    assert_eq!(explain(&folder, &["/open"])["status"], 200);
    assert_eq!(explain(&folder, &["/any"])["reason"], "certificate_missing");
    assert_eq!(
        explain(&folder, &["/any", "--certificate", "own.pem"])["status"],
        200
    );
    // Over plain HTTP there is none to show.
    let plain = explain(
        &folder,
        &["http://gateway.test/any", "--certificate", "own.pem"],
    );
    assert_eq!(plain["reason"], "certificate_missing");
    assert!(
        plain
            .to_string()
            .contains("for which the listener does not ask")
    );
}

#[test]
fn policy_tests_stand_for_clients_with_certificates() {
    let tests = "tests:
  - {request: GET /any, certificate: own.pem, expect: {status: 200}}
  - {request: GET /any, expect: {reason: certificate_missing}}
  - {request: GET /pinned, certificate: plain.pem, expect: {reason: certificate_refused}}
  - {request: GET /any, certificate: other.pem, expect: {reason: tls_client_certificate}}
  - {request: GET /both, certificate: own.pem, claims: {}, expect: {status: 200}}
  - {request: GET /told, certificate: own.pem, expect: {headers: {X-Client: CN=own}}}
  # Neither dates nor lists count, or a start would depend on them, and a revoked certificate could stop its own list.
  - {request: GET /any, certificate: old.pem, expect: {status: 200}}
  - {request: GET /any, certificate: revoked.pem, expect: {status: 200}}
";
    let auth = "{ca: ca.pem, required: false, crl: clients.crl}";
    let (folder, _) = folder(auth, &format!("{ROUTES}{tests}"));
    let check = || {
        let output = run_to_end(&folder, &["check", "-c", "gateway.yaml"], &[]);
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, said) = check();
    assert_eq!(code, Some(0), "{said}");
    let whole = std::fs::read_to_string(folder.path("gateway.yaml")).unwrap();
    for (from, to, expected) in [
        (
            "/any, certificate: own.pem",
            "/any, certificate: other.pem",
            "the handshake ends with tls_client_certificate (certificate CN=other, refused:",
        ),
        (
            "/any, certificate: own.pem",
            "/pinned, certificate: plain.pem",
            "it is 403 certificate_refused (the route wants",
        ),
        ("own.pem", "none.pem", "cannot be read"),
        (
            "own.pem",
            "server.key",
            "there is no certificate in this file",
        ),
    ] {
        folder.write("gateway.yaml", whole.replacen(from, to, 1));
        let (code, said) = check();
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(expected) && said.contains('^'), "{said}");
    }
}

#[tokio::test]
async fn a_reload_says_where_certificates_count_for_less() {
    let parties = Parties::new();
    parties
        .folder
        .write("some.crl", parties.clients.revoke(&[7, 8]));
    parties
        .folder
        .write("fewer.crl", parties.clients.revoke(&[8]));
    let both = parties.clients.pem() + &parties.others.pem();
    parties.folder.write("both.pem", both);
    let listener = |auth: &str| {
        format!(
            "  - {{address: '127.0.0.1:0', tls: {{certificates: [{{cert: server.pem, key: server.key}}], client_auth: {auth}}}}}\n"
        )
    };
    let secret = &key(Kind::Secret, 0).public;
    let with = |listeners: &str, auth: &str, cnf: &str| {
        config(
            &format!(
                "listeners:\n{listeners}jwt: {{app: {{algorithms: [HS256], secret: {secret}, cnf: {cnf}}}}}\nroutes: [{{path: /a, respond: {{status: 200}}, auth: {auth}}}]\n"
            ),
            &[],
        )
    };
    let own = |auth: &str| with(&listener("{ca: ca.pem}"), auth, "check");
    let first = own("{certificate: any}");
    let gateway = Gateway::start_in(parties.folder, &first).await;
    let mut seen = gateway.stderr().len();
    let mut change = async |text: &str, said: Option<&str>| {
        gateway.reconfigure(text).await;
        let log = gateway.stderr();
        let new = &log[seen..];
        match said {
            Some(said) => assert!(
                new.contains(&format!("ACCESS GOT WIDER: {said}")),
                "{said}: {new}"
            ),
            None => assert!(!new.contains("ACCESS GOT WIDER"), "{new}"),
        }
        seen = log.len();
    };
    let narrow = own("{certificate: {san: ['dns:a.test']}}");
    change(&narrow, None).await;
    change(
        &own("{certificate: {san: ['dns:*.test']}}"),
        Some("/a accepts client certificates that it refused"),
    )
    .await;
    change(&narrow, None).await;
    change(
        &own("{certificate: {san: ['dns:a.test', 'dns:b.test']}}"),
        Some("/a accepts client certificates that it refused"),
    )
    .await;
    change(&own("{certificate: {fingerprint: '0000000000000000000000000000000000000000000000000000000000000000'}}"), Some("/a accepts client certificates that it refused")).await;
    change(
        &first,
        Some("/a accepts client certificates that it refused"),
    )
    .await;
    change(
        &own("{certificate: any, enforce: report}"),
        Some("/a needs no client certificate any more"),
    )
    .await;
    change(&own("{jwt: app, certificate: any}"), None).await;
    change(&own("app"), Some("/a needs no client certificate any more")).await;
    change(&own("{jwt: app, certificate: any}"), None).await;
    change(
        &first,
        Some("/a needs nothing but a client certificate any more"),
    )
    .await;
    change(
        &own("none"),
        Some("/a needs no client certificate any more"),
    )
    .await;

    let cnf = |cnf| with(&listener("{ca: ca.pem}"), "app", cnf);
    change(&cnf("require"), None).await;
    change(
        &cnf("check"),
        Some("/a accepts tokens of `app` that it refused"),
    )
    .await;
    change(
        &cnf("ignore"),
        Some("/a accepts tokens of `app` from others than those that they are bound to"),
    )
    .await;
    change(&cnf("require"), None).await;
    change(&cnf("ignore"), Some("/a accepts tokens of `app`")).await;

    let listeners = |all: &[&str]| {
        with(
            &all.iter().map(|auth| listener(auth)).collect::<String>(),
            "none",
            "check",
        )
    };
    let plain = "{ca: ca.pem}";
    change(&listeners(&[plain]), Some("/a needs no token any more")).await;
    let at = "listener 127.0.0.1:0";
    change(
        &listeners(&["{ca: ca.pem, required: false}"]),
        Some(&format!("{at} requires no client certificate any more")),
    )
    .await;
    change(&listeners(&[plain]), None).await;
    change(
        &listeners(&["{ca: both.pem}"]),
        Some(&format!(
            "{at} accepts client certificates of CN=Portcullis tests, which it refused"
        )),
    )
    .await;
    change(&listeners(&["{ca: others.pem}"]), None).await;
    change(
        &listeners(&[plain]),
        Some(&format!("{at} accepts client certificates of")),
    )
    .await;
    change(&listeners(&["{ca: ca.pem, crl: some.crl}"]), None).await;
    change(
        &listeners(&["{ca: ca.pem, crl: fewer.crl}"]),
        Some(&format!(
            "{at} no longer revokes 1 of the client certificates of"
        )),
    )
    .await;
    change(
        &listeners(&[plain]),
        Some(&format!("{at} no longer revokes 1 of")),
    )
    .await;
    change(
        &listeners(&[plain, "{ca: ca.pem, required: false}"]),
        Some(&format!(
            "{at} lets in clients without a certificate, which no listener did"
        )),
    )
    .await;
    // There is one already.
    change(
        &listeners(&[
            plain,
            "{ca: ca.pem, required: false}",
            "{ca: ca.pem, required: false}",
        ]),
        None,
    )
    .await;
}
