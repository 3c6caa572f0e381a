//! TLS at the front door: certificates by name, protocols, redirects, renewal.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::support::{
    Authority, Folder, Gateway, H2, Issued, Wire, config, connect_offering, eventually, free_port,
    local, request, resuming,
};

/// One listener with TLS and these certificates, given by the stems of their files.
fn text(stems: &[&str]) -> String {
    let list: Vec<_> = stems
        .iter()
        .map(|stem| format!("{{cert: {stem}.pem, key: {stem}.key}}"))
        .collect();
    let text = "listeners: [{address: 127.0.0.1:0, tls: {certificates: [@list]}}]
timeouts: {tls_handshake: 500ms}
routes: [{path: /*, respond: {status: 200, body: safe}}]
";
    config(text, &[("list", &list.join(", "))])
}

fn put(folder: &Folder, stem: &str, issued: &Issued) {
    folder.write(&format!("{stem}.key"), &issued.key);
    folder.write(&format!("{stem}.pem"), &issued.cert);
}

/// A gateway with the certificates of a.test and b.test.
async fn start(authority: &Authority) -> (Gateway, Issued, Issued) {
    let folder = Folder::new();
    let (a, b) = (authority.issue("a.test"), authority.issue("b.test"));
    put(&folder, "a", &a);
    put(&folder, "b", &b);
    let gateway = Gateway::start_in(folder, &text(&["a", "b"])).await;
    (gateway, a, b)
}

/// Whether the peer has shown this certificate.
fn shown(stream: &TlsStream<TcpStream>, issued: &Issued) -> bool {
    let (_, session) = stream.get_ref();
    session.peer_certificates().and_then(|chain| chain.first()) == Some(&issued.der)
}

#[tokio::test]
async fn the_certificate_is_picked_by_the_name_that_the_client_asks_for() {
    let authority = Authority::new();
    let (gateway, a, b) = start(&authority).await;
    for (name, issued) in [("a.test", &a), ("b.test", &b), ("A.TEST", &a)] {
        let stream = authority
            .connect(gateway.address(), name, &[])
            .await
            .unwrap();
        assert!(shown(&stream, issued), "{name}");
        assert_eq!(
            Wire::over(stream).get("/", &[("Host", name)]).await.text(),
            "safe"
        );
    }
    assert!(
        authority
            .connect(gateway.address(), "c.test", &[])
            .await
            .is_err()
    );
}

/// A certificate of each kind of key for a.test, and one for an address; unknown names get what the text says.
async fn start_with_twins(unknown_name: &str) -> (Gateway, [Issued; 3]) {
    let authority = Authority::new();
    let folder = Folder::new();
    let (ec, rsa) = (&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_RSA_SHA256);
    let all = [
        authority.issue_of(ec, &["a.test"]),
        authority.issue_of(rsa, &["a.test"]),
        authority.issue_of(ec, &["b.test", "127.0.0.2"]),
    ];
    for (stem, issued) in ["ec", "rsa", "address"].iter().zip(&all) {
        put(&folder, stem, issued);
    }
    let text = text(&["ec", "rsa", "address"])
        .replace("127.0.0.1:0", "'[::]:0'")
        .replace("tls: {", &format!("tls: {{unknown_name: {unknown_name}, "));
    (Gateway::start_in(folder, &text).await, all)
}

#[tokio::test]
async fn of_two_certificates_for_a_name_the_client_gets_the_one_that_it_can_verify() {
    let (gateway, [ec, rsa, address]) = start_with_twins("first").await;
    let port = gateway.address().port();
    let both = [
        SignatureScheme::RSA_PSS_SHA256,
        SignatureScheme::ECDSA_NISTP256_SHA256,
    ];
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (at, name, schemes, wanted) in [
            ([127, 0, 0, 1], "a.test", &both[..], &ec),
            ([127, 0, 0, 1], "a.test", &both[..1], &rsa),
            ([127, 0, 0, 1], "a.test", &both[1..], &ec),
            ([127, 0, 0, 1], "b.test", &both, &address),
            ([127, 0, 0, 1], "unknown.test", &both, &ec),
            ([127, 0, 0, 1], "unknown.test", &both[..1], &rsa),
            // An address is no name that is sent; the one that the client came to decides.
            ([127, 0, 0, 1], "127.0.0.1", &both, &ec),
            ([127, 0, 0, 2], "127.0.0.2", &both, &address),
        ] {
            let connect = connect_offering((at, port).into(), name, schemes, version);
            let stream = connect.await.unwrap();
            assert!(
                shown(&stream, wanted),
                "{at:?} {name} {schemes:?} {version:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_client_that_asks_for_an_unknown_name_is_refused_where_that_is_configured() {
    let (gateway, [ec, _, address]) = start_with_twins("refuse").await;
    let port = gateway.address().port();
    let schemes = [SignatureScheme::ECDSA_NISTP256_SHA256];
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (at, name, wanted) in [
            ([127, 0, 0, 1], "a.test", Some(&ec)),
            ([127, 0, 0, 2], "127.0.0.2", Some(&address)),
            ([127, 0, 0, 1], "unknown.test", None),
            ([127, 0, 0, 1], "sub.a.test", None),
            ([127, 0, 0, 1], "127.0.0.1", None),
        ] {
            let connect = connect_offering((at, port).into(), name, &schemes, version);
            match (connect.await, wanted) {
                (Ok(stream), Some(wanted)) => assert!(shown(&stream, wanted), "{name}"),
                (Err(error), None) => {
                    let error = error.to_string();
                    assert!(error.contains("UnrecognisedName"), "{name}: {error}");
                }
                (connected, _) => panic!("{name} {version:?}: {connected:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_host_without_a_certificate_is_warned_of() {
    let authority = Authority::new();
    let folder = Folder::new();
    put(&folder, "a", &authority.issue("a.test"));
    let text = text(&["a"]).replace(
        "routes: [",
        "routes: [{host: [a.test, c.test], path: /*, respond: {status: 200}}, ",
    );
    let gateway = Gateway::start_in(folder, &text).await;
    let said = gateway.stderr();
    assert!(
        said.contains("no TLS listener has a certificate for `c.test`"),
        "{said}"
    );
    assert!(!said.contains("certificate for `a.test`"), "{said}");
}

#[tokio::test]
async fn the_protocol_is_agreed_by_alpn() {
    let authority = Authority::new();
    let (gateway, ..) = start(&authority).await;
    for (offer, agreed) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&["http/1.1", "h2"], Some("h2")),
        (&[], None),
    ] {
        let stream = authority
            .connect(gateway.address(), "a.test", offer)
            .await
            .unwrap();
        let alpn = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(alpn.as_deref(), agreed.map(str::as_bytes), "{offer:?}");
        let reply = match agreed {
            Some("h2") => H2::over(stream).await.get("/", &[]).await,
            _ => Wire::over(stream).get("/", &[("Host", "a.test")]).await,
        };
        assert_eq!(reply.text(), "safe");
    }
}

#[tokio::test]
async fn both_versions_of_tls_are_spoken() {
    let authority = Authority::new();
    let (gateway, ..) = start(&authority).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let versions = [version];
        let connect = authority.connect_with(gateway.address(), "a.test", &["h2"], &versions);
        let stream = connect.await.unwrap();
        assert_eq!(
            H2::over(stream).await.get("/", &[]).await.text(),
            "safe",
            "{version:?}"
        );
    }
}

#[tokio::test]
async fn a_plain_listener_may_send_its_clients_to_the_one_with_tls() {
    let authority = Authority::new();
    let folder = Folder::new();
    put(&folder, "a", &authority.issue("a.test"));
    let (plain, secure) = (free_port(), free_port());
    let text = "listeners:
  - {address: '127.0.0.1:@plain', redirect_to_https: true}
  - {address: '127.0.0.1:@secure', tls: {certificates: [{cert: a.pem, key: a.key}]}}
routes: [{path: /*, respond: {status: 200, body: safe}}]
";
    let ports = [("plain", plain.to_string()), ("secure", secure.to_string())];
    let ports = ports.each_ref().map(|(name, port)| (*name, port.as_str()));
    let _gateway = Gateway::start_in(folder, &config(text, &ports)).await;

    let mut wire = Wire::connect(local(plain)).await;
    wire.send(request(
        "POST",
        "/a/b?c=d",
        &[("Host", &format!("a.test:{plain}"))],
        "body",
    ))
    .await;
    let reply = wire.reply().await;
    assert_eq!(reply.status, 308);
    let target = format!("https://a.test:{secure}/a/b?c=d");
    assert_eq!(reply.field("location"), Some(target.as_str()));

    let stream = authority
        .connect(local(secure), "a.test", &[])
        .await
        .unwrap();
    assert_eq!(
        Wire::over(stream)
            .get("/", &[("Host", "a.test")])
            .await
            .text(),
        "safe"
    );
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_up_and_open_connections_stay() {
    let authority = Authority::new();
    let (gateway, old, _) = start(&authority).await;
    let stream = authority
        .connect(gateway.address(), "a.test", &[])
        .await
        .unwrap();
    assert!(shown(&stream, &old));
    let mut kept = Wire::over(stream);

    let new = authority.issue("a.test");
    put(&gateway.folder, "a", &new);
    eventually("the new certificate", async || {
        let stream = authority
            .connect(gateway.address(), "a.test", &[])
            .await
            .unwrap();
        shown(&stream, &new).then_some(())
    })
    .await;
    assert_eq!(kept.get("/", &[("Host", "a.test")]).await.text(), "safe");
}

/// Connects, makes a request, which also reads the tickets, and tells whether the session was resumed.
async fn resumes(client: &Arc<ClientConfig>, address: SocketAddr) -> bool {
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("a.test").unwrap();
    let connector = TlsConnector::from(Arc::clone(client));
    let stream = connector.connect(name, stream).await.unwrap();
    let kind = stream.get_ref().1.handshake_kind();
    let mut wire = Wire::over(stream);
    let reply = wire.get("/", &[("Host", "a.test")]).await;
    assert_eq!(reply.text(), "safe");
    kind == Some(HandshakeKind::Resumed)
}

#[tokio::test]
async fn a_reload_ends_no_session() {
    let authority = Authority::new();
    let (gateway, ..) = start(&authority).await;
    let (other, ..) = start(&authority).await;
    let clients = [&rustls::version::TLS12, &rustls::version::TLS13].map(resuming);
    for client in &clients {
        assert!(!resumes(client, gateway.address()).await);
        assert!(resumes(client, gateway.address()).await);
    }
    let before = gateway.reloads();
    put(&gateway.folder, "b", &authority.issue("b.test"));
    gateway.reloaded_after(before).await;
    gateway
        .reconfigure(&text(&["b", "a"]).replace("/*", "/"))
        .await;
    for client in &clients {
        assert!(resumes(client, gateway.address()).await);
        // A ticket of one process means nothing to another.
        assert!(!resumes(client, other.address()).await);
    }
}

#[tokio::test]
async fn a_certificate_that_does_not_fit_its_key_is_refused_and_the_old_one_serves() {
    let authority = Authority::new();
    let (gateway, old, _) = start(&authority).await;
    gateway
        .folder
        .write("a.pem", authority.issue("a.test").cert);
    eventually("a refusal", async || {
        gateway
            .stderr()
            .contains("configuration refused")
            .then_some(())
    })
    .await;
    let stream = authority
        .connect(gateway.address(), "a.test", &[])
        .await
        .unwrap();
    assert!(shown(&stream, &old));
}

#[tokio::test]
async fn a_client_that_never_shakes_hands_is_let_go_and_holds_nobody_up() {
    let authority = Authority::new();
    let (gateway, ..) = start(&authority).await;
    let mut silent = Wire::connect(gateway.address()).await;
    let mut plain = Wire::connect(gateway.address()).await;
    plain.send(request("GET", "/", &[], "")).await;
    let stream = authority
        .connect(gateway.address(), "a.test", &[])
        .await
        .unwrap();
    assert_eq!(
        Wire::over(stream)
            .get("/", &[("Host", "a.test")])
            .await
            .text(),
        "safe"
    );

    let start = std::time::Instant::now();
    silent.rest().await;
    assert!(start.elapsed() < Duration::from_secs(5));
    plain.rest().await;
}

#[tokio::test]
async fn the_app_is_told_that_the_client_came_over_tls() {
    let authority = Authority::new();
    let folder = Folder::new();
    put(&folder, "a", &authority.issue("a.test"));
    let app = super::support::App::echo().await;
    let text =
        "listeners: [{address: 127.0.0.1:0, tls: {certificates: [{cert: a.pem, key: a.key}]}}]
routes: [{path: /*, proxy: '@app', auth: none}]
";
    let gateway = Gateway::start_in(folder, &config(text, &[("app", &app.url())])).await;
    let stream = authority
        .connect(gateway.address(), "a.test", &["h2"])
        .await
        .unwrap();
    assert_eq!(H2::over(stream).await.get("/", &[]).await.status, 200);
    assert_eq!(app.last().all("x-forwarded-proto"), ["https"]);
}
