//! Client certificates: who is let in, what routes demand of them, and what the app is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DnType, SanType, SerialNumber};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind, SupportedProtocolVersion};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::support::{
    Answer, App, Authority, Folder, Gateway, H2, Issued, Kind, Reply, Wire, config, eventually,
    identified, key, now, request, run_to_end, token,
};

static VERSIONS: [&SupportedProtocolVersion; 2] =
    [&rustls::version::TLS12, &rustls::version::TLS13];

/// An authority for clients, another one, and a folder with both, and the gateway's own certificate.
pub(super) struct Parties {
    pub(super) clients: Authority,
    pub(super) others: Authority,
    pub(super) folder: Folder,
}

impl Parties {
    pub(super) fn new() -> Self {
        let (clients, others, folder) = (Authority::new(), Authority::new(), Folder::new());
        let server = Authority::new().issue("gateway.test");
        folder.write("server.pem", &server.cert);
        folder.write("server.key", &server.key);
        folder.write("ca.pem", clients.pem());
        folder.write("others.pem", others.pem());
        Self {
            clients,
            others,
            folder,
        }
    }
}

/// One listener with this `client_auth`, and these routes.
pub(super) fn text(client_auth: &str, rest: &str) -> String {
    let text = "listeners:
  - {address: 127.0.0.1:0, tls: {certificates: [{cert: server.pem, key: server.key}], client_auth: @auth}}
timeouts: {tls_handshake: 2s}
@rest";
    config(text, &[("auth", client_auth), ("rest", rest)])
}

const OPEN: &str = "routes: [{path: /*, respond: {status: 200, body: in}}]\n";

pub(super) fn named(name: &str) -> impl FnOnce(&mut CertificateParams) {
    let name = name.to_owned();
    move |params| params.distinguished_name.push(DnType::CommonName, name)
}

fn numbered(serial: u8) -> impl FnOnce(&mut CertificateParams) {
    move |params| params.serial_number = Some(SerialNumber::from(vec![serial]))
}

fn ia5(text: &str) -> Ia5String {
    Ia5String::try_from(text.to_owned()).unwrap()
}

pub(super) async fn connect(
    client: &Arc<ClientConfig>,
    to: SocketAddr,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(to).await.unwrap();
    let name = ServerName::try_from("gateway.test").unwrap();
    let connector = TlsConnector::from(Arc::clone(client));
    connector.connect(name, stream).await
}

/// The response to a GET on a new connection, and whether its session was resumed; `None` where there is no connection.
/// With TLS 1.3 a client learns only after the handshake that it is refused.
pub(super) async fn attempt(
    client: &Arc<ClientConfig>,
    to: SocketAddr,
    path: &str,
    fields: &[(&str, &str)],
) -> Option<(Reply, bool)> {
    let stream = connect(client, to).await.ok()?;
    let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
    let mut wire = Wire::over(stream);
    wire.try_send(request("GET", path, fields, "")).await.ok()?;
    if !wire.answers().await {
        return None;
    }
    Some((wire.reply().await, resumed))
}

async fn status(client: &Arc<ClientConfig>, to: SocketAddr, path: &str) -> Option<u16> {
    let (reply, _) = attempt(client, to, path, &[]).await?;
    Some(reply.status)
}

#[tokio::test]
async fn a_listener_lets_in_clients_of_its_authorities() {
    let parties = Parties::new();
    let own = parties.clients.client(named("own"));
    let other = parties.others.client(named("other"));
    let auth = |required| text(&format!("{{ca: ca.pem, required: {required}}}"), OPEN);
    let gateway = Gateway::start_in(parties.folder, &auth(true)).await;
    let to = gateway.address();
    for required in [true, false] {
        gateway.reconfigure(&(auth(required) + "\n")).await;
        for version in VERSIONS {
            let client = |issued| identified(issued, version, &[]);
            let none = (!required).then_some(200);
            assert_eq!(status(&client(Some(&own)), to, "/").await, Some(200));
            // What is bad is not the same as absent.
            assert_eq!(status(&client(Some(&other)), to, "/").await, None);
            assert_eq!(status(&client(None), to, "/").await, none, "{version:?}");
        }
    }
    // Two clients without a certificate were let in, and nobody with another.
    let records = gateway.records_of(6).await;
    let of = |record: &serde_json::Value| record.get("certificate").cloned();
    let (own, none): (Vec<_>, Vec<_>) = records.iter().map(of).partition(Option::is_some);
    assert_eq!((own.len(), none.len()), (4, 2));
    assert!(own.iter().all(|it| *it == Some(json!("CN=own"))), "{own:?}");
}

fn till(parties: &Parties) -> Issued {
    parties.clients.client(|params| {
        named("till 7, \"Zoë\"")(params);
        params.subject_alt_names = vec![
            SanType::URI(ia5("spiffe://example.org/pay/7")),
            SanType::DnsName(ia5("till.example.org")),
        ];
    })
}

#[tokio::test]
async fn a_route_demands_a_certificate_and_tells_the_app_of_it() {
    let parties = Parties::new();
    let (till, plain) = (till(&parties), parties.clients.client(named("plain")));
    let print = fingerprint(&till);
    let app = App::start(|_| Answer::Ok("app")).await;
    let rest = "listeners: dropped
routes:
  - {path: /any, proxy: '@app', auth: {certificate: any}}
  - {path: /till, proxy: '@app', auth: {certificate: {san: ['uri:spiffe://example.org/pay/*', 'dns:x.test']}}}
  - {path: /dns, proxy: '@app', auth: {certificate: {san: 'dns:*.example.org'}}}
  - {path: /pinned, proxy: '@app', auth: {certificate: {fingerprint: '@print'}}}
  - {path: /reported, proxy: '@app', auth: {certificate: any, enforce: report}}
  - path: /told
    proxy: '@app'
    auth:
      certificate: any
      forward: {X-Client: 'certificate:subject', X-Print: 'certificate:fingerprint', X-Names: 'certificate:san', X-Serial: 'certificate:serial', X-Until: 'certificate:not_after', Client-Cert: 'certificate:rfc9440', X-Forwarded-Client-Cert: 'certificate:xfcc'}
  - {path: /open, proxy: '@app', auth: none}
".replace("listeners: dropped\n", "");
    let values = [("app", app.url()), ("print", print.clone())];
    let values = values
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let text = text(
        "{ca: ca.pem, required: false}",
        &config_only(&rest, &values),
    );
    // Beside it a listener that asks for none.
    let text = text.replace("listeners:\n", "listeners:\n  - {address: 127.0.0.1:0}\n");
    let gateway = Gateway::start_in(parties.folder, &text).await;
    let (open, to) = (gateway.addresses()[0], gateway.addresses()[1]);

    let tls13 = &rustls::version::TLS13;
    let clients = [Some(&till), Some(&plain), None].map(|it| identified(it, tls13, &[]));
    for (path, expected) in [
        ("/any", [200, 200, 403]),
        ("/till", [200, 403, 403]),
        ("/dns", [200, 403, 403]),
        ("/pinned", [200, 403, 403]),
        ("/reported", [200, 200, 200]),
        ("/open", [200, 200, 200]),
    ] {
        for (client, expected) in clients.iter().zip(expected) {
            assert_eq!(status(client, to, path).await, Some(expected), "{path}");
        }
        // Whoever does not come through TLS has no certificate.
        let (reply, expected) = (Wire::connect(open).await.get(path, &[]).await, expected[2]);
        assert_eq!(reply.status, expected, "{path}");
        if expected == 403 {
            let problem: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
            assert_eq!(problem["detail"], "a client certificate is needed");
            assert_eq!(reply.field("www-authenticate"), None);
        }
    }
    let records = gateway.records_of(24).await;
    // Each worker writes its own records in order, and no other's.
    let of = |path: &str, certificate: Option<&str>, name: &str| {
        let mut found: Vec<_> = records
            .iter()
            .filter(|record| {
                record["path"] == path && record["certificate"].as_str() == certificate
            })
            .map(|record| record[name].as_str().unwrap_or_default())
            .collect();
        found.dedup();
        found.join(", ")
    };
    let subject = r#"CN=till 7\, \"Zo\C3\AB\""#;
    assert_eq!(of("/till", Some(subject), "reason"), "");
    assert_eq!(
        of("/till", Some("CN=plain"), "reason"),
        "certificate_refused"
    );
    assert_eq!(of("/till", None, "reason"), "certificate_missing");
    assert_eq!(of("/reported", None, "would_refuse"), "certificate_missing");

    // What the app is told, and that no client can say it in its place.
    let forged = [
        ("X-Client", "CN=admin"),
        ("x_client", "CN=admin"),
        ("X.Client", "CN=admin"),
        ("Client-Cert", ":YWRtaW4=:"),
        ("client_cert", ":YWRtaW4=:"),
        ("Client-Cert-Chain", ":YWRtaW4=:"),
        ("X-Forwarded-Client-Cert", "Hash=0;Subject=\"CN=admin\""),
        ("X-Print", "0"),
    ];
    let (reply, _) = attempt(&clients[0], to, "/told", &forged).await.unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!(reply.field("cache-control"), Some("private"));
    let seen = app.last();
    assert_eq!(seen.all("x-client"), [subject]);
    assert_eq!(seen.all("x-print"), [print]);
    assert_eq!(
        seen.all("x-names"),
        ["uri:spiffe://example.org/pay/7, dns:till.example.org"]
    );
    assert!(seen.all("client-cert")[0].starts_with(":MII"));
    assert!(seen.all("x-forwarded-client-cert")[0].ends_with(
        r#";Subject="CN=till 7\, \22Zo\C3\AB\22";URI=spiffe://example.org/pay/7;DNS=till.example.org"#
    ));
    for name in ["x-serial", "x-until"] {
        assert_eq!(seen.all(name).len(), 1, "{name}");
    }
    assert!(
        !seen.head.contains("admin") && !seen.head.contains("YWRtaW4"),
        "{}",
        seen.head
    );
    // On another route, and without TLS.
    for (client, path) in [(Some(&clients[0]), "/open"), (None, "/open")] {
        match client {
            Some(client) => drop(attempt(client, to, path, &forged).await.unwrap()),
            None => drop(Wire::connect(open).await.get(path, &forged).await),
        }
        let head = app.last().head;
        assert!(
            !head.contains("admin") && !head.contains("YWRtaW4"),
            "{head}"
        );
        assert_eq!(app.last().all("x-client"), [""; 0]);
    }
}

/// The text with its values, without anything added.
pub(super) fn config_only(text: &str, values: &[(&str, &str)]) -> String {
    let mut whole = text.to_owned();
    for (name, value) in values {
        whole = whole.replace(&format!("@{name}"), value);
    }
    whole
}

/// The SHA-256 of a certificate in base64url, computed by OpenSSL's digest.
pub(super) fn fingerprint(issued: &Issued) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &issued.der);
    URL_SAFE_NO_PAD.encode(digest)
}

#[tokio::test]
async fn a_certificate_and_a_token_are_both_demanded_and_the_certificate_first() {
    let parties = Parties::new();
    let (own, other) = (
        parties.clients.client(named("own")),
        parties.clients.client(named("other")),
    );
    let asked = App::start(|seen| {
        if seen.head.contains("Let-Me: in") || seen.head.contains("let-me: in") {
            Answer::Ok("")
        } else {
            Answer::Refuse
        }
    })
    .await;
    let rest = "jwt: {app: {algorithms: [HS256], secret: '@secret'}}
routes:
  - {path: /jwt, respond: {status: 200}, auth: {jwt: app, certificate: {fingerprint: '@print'}}}
  - {path: /optional, respond: {status: 200}, auth: {jwt: app, optional: true, certificate: {fingerprint: '@print'}}}
  - {path: /ask, respond: {status: 200}, auth: {ask: '@asked/check', certificate: {fingerprint: '@print'}}}
";
    let secret = &key(Kind::Secret, 0).public;
    let values = [
        ("secret", secret.clone()),
        ("print", fingerprint(&own)),
        ("asked", asked.url()),
    ];
    let values = values
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let text = text("{ca: ca.pem, required: false}", &config_only(rest, &values));
    let gateway = Gateway::start_in(parties.folder, &text).await;
    let to = gateway.address();
    let bearer = format!("Bearer {}", token(json!({})));
    let tls13 = &rustls::version::TLS13;
    let [own, other, none] = [Some(&own), Some(&other), None].map(|it| identified(it, tls13, &[]));
    for (path, credential) in [
        ("/jwt", ("Authorization", bearer.as_str())),
        ("/ask", ("Let-Me", "in")),
        ("/optional", ("X-Nothing", "")),
    ] {
        for (client, with, without) in [(&own, 200, 401), (&other, 403, 403), (&none, 403, 403)] {
            let (reply, _) = attempt(client, to, path, &[credential]).await.unwrap();
            assert_eq!(reply.status, with, "{path}");
            let (reply, _) = attempt(client, to, path, &[]).await.unwrap();
            let without = match (path, without) {
                ("/ask", 401) => 403,
                ("/optional", 401) => 200,
                _ => without,
            };
            assert_eq!(reply.status, without, "{path}");
        }
    }
    // Nobody was asked about clients without the certificate.
    assert_eq!(asked.seen().len(), 2);
}

#[tokio::test]
async fn a_revoked_client_and_whoever_is_connected_go_when_the_list_comes() {
    let parties = Parties::new();
    let good = parties.clients.client(numbered(7));
    let bad = parties.clients.client(numbered(8));
    parties
        .folder
        .write("clients.crl", parties.clients.revoke(&[]));
    let text = text("{ca: ca.pem, crl: clients.crl}", OPEN);
    let gateway = Gateway::start_in(parties.folder, &text).await;
    let to = gateway.address();
    let tls13 = &rustls::version::TLS13;
    let [good, bad] = [&good, &bad].map(|it| identified(Some(it), tls13, &[]));
    let h2 = identified_with_h2(&parties.clients);
    let mut idle = Wire::over(connect(&bad, to).await.unwrap());
    assert_eq!(idle.get("/", &[]).await.status, 200);
    let mut silent = Wire::over(connect(&bad, to).await.unwrap());
    let mut streams = H2::over(connect(&h2, to).await.unwrap()).await;
    assert_eq!(streams.get("/", &[]).await.status, 200);
    // A handshake that has begun with what held before.
    let unfinished = TcpStream::connect(to).await.unwrap();

    let before = gateway.reloads();
    gateway
        .folder
        .write("clients.crl", parties.clients.revoke(&[8]));
    gateway.reloaded_after(before).await;
    idle.closed().await;
    silent.closed().await;
    streams.ended().await;
    let name = ServerName::try_from("gateway.test").unwrap();
    let late = TlsConnector::from(Arc::clone(&bad))
        .connect(name, unfinished)
        .await;
    if let Ok(late) = late {
        let mut late = Wire::over(late);
        late.try_send(request("GET", "/", &[], "")).await.ok();
        assert!(!late.answers().await);
    }
    for _ in 0..3 {
        assert_eq!(status(&bad, to, "/").await, None);
        assert_eq!(status(&good, to, "/").await, Some(200));
    }

    // What demands nothing more ends nobody's connection.
    let mut kept = Wire::over(connect(&good, to).await.unwrap());
    assert_eq!(kept.get("/", &[]).await.status, 200);
    let wider = self::text("{ca: ca.pem, crl: clients.crl, required: false}", OPEN);
    gateway.reconfigure(&wider).await;
    assert_eq!(kept.get("/", &[]).await.status, 200);
    gateway.reconfigure(&text).await;
    kept.closed().await;
    let said = gateway.stderr();
    assert!(
        said.contains("requires no client certificate any more"),
        "{said}"
    );
}

fn identified_with_h2(authority: &Authority) -> Arc<ClientConfig> {
    let issued = authority.client(named("h2"));
    identified(Some(&issued), &rustls::version::TLS13, &["h2"])
}

#[tokio::test]
async fn a_ticket_opens_no_listener_that_asks_for_something_else() {
    let parties = Parties::new();
    let own = parties.clients.client(named("own"));
    parties
        .folder
        .write("clients.crl", parties.clients.revoke(&[]));
    let tls = |auth: &str| {
        format!(
            "  - {{address: 127.0.0.1:0, tls: {{certificates: [{{cert: server.pem, key: server.key}}]{auth}}}}}\n"
        )
    };
    let listeners = [
        tls(", client_auth: {ca: ca.pem}"),
        tls(", client_auth: {ca: ca.pem}"),
        tls(", client_auth: {ca: ca.pem, required: false}"),
        tls(", client_auth: {ca: others.pem}"),
        tls(", client_auth: {ca: ca.pem, crl: clients.crl}"),
        tls(""),
    ];
    let text = config(&format!("listeners:\n{}{OPEN}", listeners.concat()), &[]);
    let gateway = Gateway::start_in(parties.folder, &text).await;
    let all = gateway.addresses();
    for version in VERSIONS {
        let resumes = async |at: usize| {
            // Each has a ticket of the first one alone.
            let client = identified(Some(&own), version, &[]);
            let first = attempt(&client, all[0], "/", &[]).await.unwrap();
            assert_eq!((first.0.status, first.1), (200, false));
            let next = attempt(&client, all[at], "/", &[]).await;
            next.map(|(reply, resumed)| (reply.status, resumed))
        };
        assert_eq!(resumes(0).await, Some((200, true)), "{version:?}");
        assert_eq!(resumes(1).await, Some((200, true)), "{version:?}");
        assert_eq!(resumes(2).await, Some((200, false)), "{version:?}");
        assert_eq!(resumes(3).await, None, "{version:?}");
        assert_eq!(resumes(4).await, Some((200, false)), "{version:?}");
        assert_eq!(resumes(5).await, Some((200, false)), "{version:?}");
    }
    let resumed = gateway.records_of(22).await;
    let of_own = |record: &&serde_json::Value| record["certificate"] == "CN=own";
    // Those of the last listener, which asks for none, are the only ones without.
    assert_eq!(resumed.iter().filter(of_own).count() + 2, resumed.len());
}

#[tokio::test]
async fn a_session_ends_with_its_certificate() {
    let parties = Parties::new();
    let app = App::start(|_| Answer::Ok("app")).await;
    let rest = config_only(
        "routes: [{path: /*, proxy: '@app', auth: {certificate: any}}]\n",
        &[("app", &app.url())],
    );
    let text = text("{ca: ca.pem}", &rest);
    let gateway = Gateway::start_in(parties.folder, &text).await;
    let to = gateway.address();
    let ends = u64::try_from(now()).unwrap() + 4;
    let short = parties.clients.client(|params| {
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(ends);
    });
    let clients = VERSIONS.map(|version| identified(Some(&short), version, &[]));
    let other = identified(Some(&short), VERSIONS[1], &[]);
    let mut open = Wire::over(connect(&other, to).await.unwrap());
    assert_eq!(open.get("/", &[]).await.status, 200);
    for client in &clients {
        let (first, resumed) = attempt(client, to, "/", &[]).await.unwrap();
        assert_eq!((first.status, resumed), (200, false));
        let (next, resumed) = attempt(client, to, "/", &[]).await.unwrap();
        assert_eq!((next.status, resumed), (200, true));
    }
    eventually("the end of the certificate", async || {
        (u64::try_from(now()).unwrap() > ends).then_some(())
    })
    .await;
    for client in &clients {
        assert!(attempt(client, to, "/", &[]).await.is_none());
    }
    // The connection that is still there is not what the route demands any more.
    let reply = open.get("/", &[]).await;
    assert_eq!(reply.status, 403);
    eventually("the record", async || {
        let mut records = gateway.records().into_iter();
        records.find(|record| record["reason"] == "certificate_refused")
    })
    .await;
}

#[tokio::test]
async fn mistakes_are_found_with_their_places() {
    let parties = Parties::new();
    let (folder, other) = (&parties.folder, parties.others.revoke(&[]));
    folder.write("other.crl", other);
    folder.write("empty.pem", "nothing");
    let check = |text: &str| {
        folder.write("gateway.yaml", text);
        let output = run_to_end(folder, &["check", "-c", "gateway.yaml"], &[]);
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(!check(&text("{ca: ca.pem}", OPEN)).contains("error"));
    for (auth, line, said) in [
        (
            "{ca: empty.pem}",
            "empty.pem",
            "there is no certificate in this file",
        ),
        (
            "{ca: server.key}",
            "server.key",
            "there is no certificate in this file",
        ),
        ("{ca: none.pem}", "none.pem", "cannot be read"),
        ("{required: true}", "client_auth", "`ca` is missing"),
        (
            "{ca: ca.pem, crl: other.crl}",
            "other.crl",
            "no CA in `ca` signed",
        ),
        (
            "{ca: ca.pem, crl: [ca.pem]}",
            "ca.pem",
            "there is no certificate revocation list",
        ),
        ("{ca: ca.pem, required: maybe}", "maybe", "expected"),
        ("{ca: ca.pem, depth: 2}", "depth", "unknown key `depth`"),
    ] {
        let output = check(&text(auth, OPEN));
        assert!(
            output.contains(said) && output.contains(line),
            "{auth}: {output}"
        );
        assert!(output.contains('^'), "{auth}: {output}");
    }
    let route = |auth: &str| {
        format!(
            "jwt: {{app: {{algorithms: [HS256], secret: {}}}}}\nroutes: [{{path: /*, proxy: 'http://127.0.0.1:1', auth: {auth}}}]\n",
            key(Kind::Secret, 0).public
        )
    };
    for (auth, said) in [
        ("{certificate: all}", "`any`"),
        ("{certificate: {}}", "this names no certificate"),
        ("{certificate: {san: []}}", "expected"),
        ("{certificate: {san: 'cn:till'}}", "names are `dns:`"),
        ("{certificate: {san: 'dns:*'}}", "DNS names are"),
        ("{certificate: {fingerprint: abc}}", "-fingerprint -sha256"),
        ("{certificate: {cn: till}}", "unknown key `cn`"),
        (
            "{certificate: any, require: {a: b}}",
            "unknown key `require`",
        ),
        (
            "{certificate: any, forward: {X-A: sub}}",
            "certificate:subject",
        ),
        (
            "{certificate: any, forward: {X-A: 'certificate:subjct'}}",
            "did you mean `subject`?",
        ),
        (
            "{certificate: any, forward: {Host: 'certificate:subject'}}",
            "the gateway itself sets",
        ),
        (
            "{certificate: any, forward: {Cookie: 'certificate:subject'}}",
            "a client's own credentials",
        ),
        (
            "{jwt: app, forward: {X-A: 'certificate:cn'}}",
            "the parts of a certificate",
        ),
    ] {
        let output = check(&text("{ca: ca.pem}", &route(auth)));
        assert!(
            output.contains(said) && output.contains('^'),
            "{auth}: {output}"
        );
    }
    // Without a listener that asks for them, nobody can show one.
    for auth in [
        "{certificate: any}",
        "{jwt: app, certificate: any}",
        "{jwt: app, forward: {X-A: 'certificate:subject'}}",
    ] {
        let output = check(&config(&route(auth), &[]));
        assert!(
            output.contains("no client can show a certificate"),
            "{auth}: {output}"
        );
    }
}
