//! TLS at the front door: certificates by name, protocols, redirects, renewal.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::support::{
    Authority, Folder, Gateway, H2, Issued, Wire, config, eventually, free_port, local, request,
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
