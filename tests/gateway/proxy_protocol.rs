//! PROXY headers in front of connections: who may send one, how it is read, and what it makes of the client.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::task::JoinSet;

use super::support::{
    App, Authority, Folder, Gateway, H2, Wire, config, eventually, request, within,
};

/// 192.0.2.7:51234 to 198.51.100.1:8443, in version 1.
const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 8443\r\n";

/// The same in version 2, with these TLVs behind.
fn block(tlvs: &[(u8, &[u8])]) -> Vec<u8> {
    let tlvs = tlvs.iter().flat_map(|(kind, value)| {
        let length = u16::try_from(value.len()).unwrap().to_be_bytes();
        [&[*kind], &length[..], value].concat()
    });
    let addresses = [192, 0, 2, 7, 198, 51, 100, 1, 0xc8, 0x22, 0x20, 0xfb];
    let rest: Vec<u8> = addresses.into_iter().chain(tlvs).collect();
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11", &length[..], &rest].concat()
}

/// The TLV that says that the client uses TLS, and one that says that it does not.
const OVER_TLS: (u8, &[u8]) = (0x20, &[1, 0, 0, 0, 0]);
const PLAINLY: (u8, &[u8]) = (0x20, &[0, 0, 0, 0, 0]);

/// A gateway that reads PROXY headers of 127.0.0.1, with these settings, and the app behind it.
async fn start(settings: &str) -> (App, Gateway) {
    let app = App::echo().await;
    let text = format!(
        "listeners: [{{address: 127.0.0.1:0, proxy_protocol: true}}]
trusted_proxies: [127.0.0.1, 10.0.0.0/8]
routes: [{{path: /*, proxy: '@app', auth: none}}]
{settings}"
    );
    let gateway = Gateway::start(&config(&text, &[("app", &app.url())])).await;
    (app, gateway)
}

/// A connection from this address of the machine.
async fn from(source: [u8; 4], address: SocketAddr) -> Wire {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::from(source), 0).into()).unwrap();
    Wire::over(socket.connect(address).await.unwrap())
}

/// A connection that begins with these bytes.
async fn behind(header: &[u8], gateway: &Gateway) -> Wire {
    let mut wire = gateway.connect().await;
    wire.send(header).await;
    wire
}

/// Waits for a line of the log with all of these words.
async fn logged(gateway: &Gateway, words: &[&str]) -> String {
    eventually(&format!("{words:?} in the log"), async || {
        let log = gateway.stderr();
        let mut lines = log.lines();
        let found = lines.find(|line| words.iter().all(|word| line.contains(word)));
        found.map(str::to_owned)
    })
    .await
}

#[tokio::test]
async fn who_the_header_names_is_the_client() {
    let (app, gateway) = start("").await;
    for (name, header) in [("/line", LINE), ("/block", &block(&[]))] {
        let mut wire = behind(header, &gateway).await;
        let strange = [
            ("X-Forwarded-For", "9.9.9.9"),
            ("X-Forwarded-Proto", "https"),
        ];
        assert_eq!(wire.get(name, &strange).await.status, 200);
        let seen = app.last();
        for (field, value) in [
            ("x-forwarded-for", "192.0.2.7"),
            ("x-real-ip", "192.0.2.7"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-port", "8443"),
        ] {
            assert_eq!(seen.field(field).as_deref(), Some(value), "{name} {field}");
        }
        // What Host says of the port goes before.
        wire.get(name, &[("Host", "a.test:81")]).await;
        assert_eq!(app.last().field("x-forwarded-port").as_deref(), Some("81"));
        let record = gateway.record(name).await;
        assert_eq!(record["client"], "192.0.2.7");
        assert_eq!(record["tls"], false);
        assert_eq!(record.get("proxy_id"), None);
    }
    // A proxy that the header names is believed as if it had connected itself.
    let line = b"PROXY TCP4 10.1.2.3 198.51.100.1 51234 80\r\n";
    let mut wire = behind(line, &gateway).await;
    wire.get("/chain", &[("X-Forwarded-For", "203.0.113.9")])
        .await;
    let chain = app.last().field("x-forwarded-for");
    assert_eq!(chain.as_deref(), Some("203.0.113.9, 10.1.2.3"));
    assert_eq!(gateway.record("/chain").await["client"], "203.0.113.9");
}

#[tokio::test]
async fn without_an_address_the_client_is_the_peer() {
    let (app, gateway) = start("").await;
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec();
    for (name, header) in [
        ("/unknown", b"PROXY UNKNOWN\r\n".to_vec()),
        ("/local", local),
        ("/unspec", b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0".to_vec()),
    ] {
        let mut wire = behind(&header, &gateway).await;
        wire.get(name, &[]).await;
        assert_eq!(gateway.record(name).await["client"], "127.0.0.1");
        assert_eq!(app.last().field("x-forwarded-port").as_deref(), Some("80"));
        // The peer is a trusted proxy.
        wire.get(name, &[("X-Forwarded-For", "203.0.113.9")]).await;
        assert_eq!(
            app.last().field("x-real-ip").as_deref(),
            Some("203.0.113.9")
        );
    }
}

#[tokio::test]
async fn a_header_may_say_that_the_client_uses_tls_and_name_the_connection() {
    let authority = Authority::new();
    let folder = Folder::new();
    let issued = authority.issue("a.test");
    folder.write("a.pem", &issued.cert);
    folder.write("a.key", &issued.key);
    let app = App::echo().await;
    let port = super::support::free_port().to_string();
    let text = "listeners:
  - {address: 127.0.0.1:0, proxy_protocol: true, redirect_to_https: true}
  - {address: '127.0.0.1:@port', tls: {certificates: [{cert: a.pem, key: a.key}]}}
trusted_proxies: [127.0.0.1]
routes: [{path: /*, proxy: '@app', auth: none}]
";
    let values = [("port", port.as_str()), ("app", &app.url())];
    let gateway = Gateway::start_in(folder, &config(text, &values)).await;

    let mut plain = behind(&block(&[PLAINLY]), &gateway).await;
    let reply = plain.get("/plain", &[("Host", "a.test")]).await;
    let to = format!("https://a.test:{port}/plain");
    assert_eq!((reply.status, reply.field("location")), (308, Some(&*to)));

    let mut secure = behind(&block(&[(0x05, b"lb-1/77"), OVER_TLS]), &gateway).await;
    assert_eq!(secure.get("/secure", &[]).await.status, 200);
    let proto = app.last().field("x-forwarded-proto");
    assert_eq!(proto.as_deref(), Some("https"));
    let record = gateway.record("/secure").await;
    assert_eq!(
        (&record["proxy_id"], &record["tls"]),
        (&"lb-1/77".into(), &false.into())
    );
}

#[tokio::test]
async fn without_a_server_name_the_certificate_is_of_the_address_that_the_client_came_to() {
    let authority = Authority::new();
    let folder = Folder::new();
    for (file, name) in [("a", "a.test"), ("ip", "198.51.100.1")] {
        let issued = authority.issue(name);
        folder.write(&format!("{file}.pem"), &issued.cert);
        folder.write(&format!("{file}.key"), &issued.key);
    }
    let text = "listeners:
  - address: 127.0.0.1:0
    proxy_protocol: true
    tls: {certificates: [{cert: a.pem, key: a.key}, {cert: ip.pem, key: ip.key}]}
trusted_proxies: [127.0.0.1]
routes: [{path: /*, respond: {body: ok}}]
";
    let gateway = Gateway::start_in(folder, &config(text, &[])).await;
    let versions = [&rustls::version::TLS13];
    for header in [LINE.to_vec(), block(&[])] {
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        stream.write_all(&header).await.unwrap();
        let stream = authority.over(stream, "198.51.100.1", &[], &versions).await;
        let mut wire = Wire::over(stream.unwrap());
        assert_eq!(wire.get("/", &[]).await.text(), "ok");
    }
}

#[tokio::test]
async fn strangers_are_closed_before_a_byte_is_read() {
    let (app, gateway) = start("log: {level: debug}\n").await;
    let mut stranger = from([127, 0, 0, 2], gateway.address()).await;
    // Nothing is waited for: it is closed without a byte from it.
    stranger.closed().await;
    let mut stranger = from([127, 0, 0, 2], gateway.address()).await;
    stranger
        .try_send([LINE, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat())
        .await
        .ok();
    stranger.closed().await;
    logged(
        &gateway,
        &[
            "WARN",
            "reason=\"proxy_untrusted\"",
            "client=127.0.0.2",
            "trusted_proxies",
        ],
    )
    .await;
    logged(&gateway, &["DEBUG", "proxy_untrusted", "127.0.0.2"]).await;
    assert_eq!(app.requests(), 0);
    let mut wire = behind(LINE, &gateway).await;
    assert_eq!(wire.get("/", &[]).await.status, 200);
}

#[tokio::test]
async fn what_is_no_header_is_closed_and_never_guessed() {
    let (app, gateway) = start("").await;
    let get = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    for bytes in [
        get.to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.07 198.51.100.1 51234 8443\r\n".to_vec(),
        [&b"\r\n"[..], LINE].concat(),
        [&block(&[])[..13], b"\x12", &block(&[])[14..]].concat(),
        block(&[(0x03, b"\0\0\0\0")]),
    ] {
        let mut wire = gateway.connect().await;
        wire.try_send([&bytes, &get[..]].concat()).await.ok();
        wire.closed().await;
    }
    // Two headers: the second is the beginning of a request, and refused as one.
    let mut wire = behind(&[LINE, LINE].concat(), &gateway).await;
    assert_eq!(wire.reply().await.status, 400);
    wire.closed().await;
    assert_eq!(app.requests(), 0);
    logged(
        &gateway,
        &[
            "WARN",
            "reason=\"proxy_header\"",
            "client=127.0.0.1",
            "does not begin with one",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_header_comes_whole_within_its_time() {
    let (_app, gateway) = start("timeouts: {header_read: 500ms}\n").await;
    let mut silent = gateway.connect().await;
    let mut slow = behind(&LINE[..20], &gateway).await;
    silent.closed().await;
    slow.closed().await;
    logged(
        &gateway,
        &["WARN", "reason=\"proxy_header\"", "did not arrive in time"],
    )
    .await;
    // One that closes by itself is a probe, and nothing to warn of.
    drop(gateway.connect().await);
    let mut wire = behind(LINE, &gateway).await;
    assert_eq!(wire.get("/", &[]).await.status, 200);
}

/// A stream to the address that begins with the header. What is written comes in pieces of this size, with a pause behind
/// each of the first.
async fn in_pieces(
    address: SocketAddr,
    header: &[u8],
    size: usize,
    pause: Duration,
) -> DuplexStream {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (near, far) = tokio::io::duplex(1 << 16);
    let (mut from_client, mut to_client) = tokio::io::split(far);
    let (mut read, mut write) = stream.into_split();
    let header = header.to_vec();
    tokio::spawn(async move {
        let mut bytes = header;
        // The first bytes of what follows come with the header's last.
        from_client.read_buf(&mut bytes).await.unwrap();
        for (at, piece) in bytes.chunks(size).enumerate() {
            write.write_all(piece).await.unwrap();
            if at < 60 {
                tokio::time::sleep(pause).await;
            }
        }
        tokio::io::copy(&mut from_client, &mut write).await.ok();
    });
    tokio::spawn(async move { tokio::io::copy(&mut read, &mut to_client).await.ok() });
    near
}

#[tokio::test]
async fn in_whatever_pieces_it_comes_it_is_the_same() {
    let authority = Arc::new(Authority::new());
    let folder = Folder::new();
    let issued = authority.issue("a.test");
    folder.write("a.pem", &issued.cert);
    folder.write("a.key", &issued.key);
    let text = "listeners:
  - {address: 127.0.0.1:0, proxy_protocol: true}
  - {address: 127.0.0.1:0, proxy_protocol: true, tls: {certificates: [{cert: a.pem, key: a.key}]}}
trusted_proxies: [127.0.0.1]
routes: [{path: /*, respond: {body: ok}}]
";
    let gateway = Gateway::start_in(folder, &config(text, &[])).await;
    let [plain, secure] = gateway.addresses()[..] else {
        panic!("two listeners")
    };
    let long = block(&[(0x04, &[7; 300]), (0x05, b"x")]);
    let mut stories = JoinSet::new();
    let mut paths = Vec::new();
    for (pause, sizes) in [
        (0, &[1, 7, 1000][..]),
        (1, &[1, 7, 1000]),
        (20, &[1, 16, 46, 47]),
        (100, &[13, 45, 46, 47, 1000]),
    ] {
        for (kind, header) in [("line", LINE), ("block", &block(&[])), ("long", &long)] {
            for size in sizes {
                let path = format!("/{kind}/{pause}/{size}");
                let pause = Duration::from_millis(pause);
                for protocol in ["h1", "h2", "tls-h1", "tls-h2"] {
                    let (header, size) = (header.to_vec(), *size);
                    let (path, authority) = (format!("{path}/{protocol}"), Arc::clone(&authority));
                    paths.push(path.clone());
                    stories.spawn(async move {
                        let tls = protocol.starts_with("tls");
                        let address = if tls { secure } else { plain };
                        let stream = in_pieces(address, &header, size, pause).await;
                        let reply = match protocol {
                            "h1" => Wire::over(stream).get(&path, &[]).await,
                            "h2" => H2::over(stream).await.get(&path, &[]).await,
                            _ => {
                                let alpn = [if protocol == "tls-h2" {
                                    "h2"
                                } else {
                                    "http/1.1"
                                }];
                                let versions = [&rustls::version::TLS13];
                                let stream = authority.over(stream, "a.test", &alpn, &versions);
                                let stream = stream.await.unwrap();
                                if protocol == "tls-h2" {
                                    H2::over(stream).await.get(&path, &[]).await
                                } else {
                                    Wire::over(stream).get(&path, &[]).await
                                }
                            }
                        };
                        assert_eq!(reply.text(), "ok", "{path}");
                    });
                }
            }
        }
    }
    while let Some(ended) = stories.join_next().await {
        ended.unwrap();
    }
    let records = gateway.records_of(paths.len()).await;
    for path in paths {
        let record = records.iter().find(|it| it["path"] == *path).unwrap();
        assert_eq!(record["client"], "192.0.2.7", "{path}");
        assert_eq!(record["tls"], path.contains("/tls-"), "{path}");
    }
}

#[tokio::test]
async fn connections_are_counted_for_whom_the_header_names() {
    let (_app, gateway) = start("limits: {connections_per_ip: 3}\n").await;
    let line = |ip: &str| format!("PROXY TCP4 {ip} 198.51.100.1 1 80\r\n").into_bytes();
    let mut held = Vec::new();
    for ip in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
        for _ in 0..3 {
            let mut wire = behind(&line(ip), &gateway).await;
            assert_eq!(wire.get("/", &[]).await.status, 200);
            held.push(wire);
        }
    }
    let mut beyond = behind(&line("192.0.2.2"), &gateway).await;
    beyond.try_send(request("GET", "/", &[], "")).await.ok();
    assert!(beyond.rest().await.is_empty());
    logged(
        &gateway,
        &["limit=\"connections_per_ip\"", "client=192.0.2.2"],
    )
    .await;
    // The proxy itself, and other proxies that it names, stand for many.
    for header in [b"PROXY UNKNOWN\r\n".to_vec(), line("10.0.0.9")] {
        for _ in 0..5 {
            let mut wire = behind(&header, &gateway).await;
            assert_eq!(wire.get("/", &[]).await.status, 200);
            held.push(wire);
        }
    }
    held.drain(3..6);
    eventually("a free place", async || {
        let mut wire = behind(&line("192.0.2.2"), &gateway).await;
        wire.try_send(request("GET", "/", &[], "")).await.ok();
        wire.fill().await.then_some(())
    })
    .await;
}

async fn over_socket(path: &Path, header: &[u8]) -> Wire {
    let stream = eventually("the socket", async || UnixStream::connect(path).await.ok());
    let mut wire = Wire::over(stream.await);
    wire.send(header).await;
    wire
}

#[tokio::test]
async fn on_a_unix_socket_whoever_may_connect_is_believed() {
    let app = App::echo().await;
    let folder = Folder::new();
    let path = folder.path("front.sock");
    // Large enough for the system to send it by itself, over TCP.
    folder.write("files/large", vec![b'x'; 3 << 20]);
    let text = "listeners: [{address: 127.0.0.1:0}, {address: 'unix:@path', proxy_protocol: true}]
limits: {connections_per_ip: 2}
routes: [{path: /*, proxy: '@app', auth: none}, {path: /files/*, static: files, auth: none}]
";
    let values = [("path", path.to_str().unwrap()), ("app", &app.url())];
    folder.write("gateway.yaml", config(text, &values));
    let gateway = Gateway::start_as_it_is(folder, 1, &[]).await;
    let mut held = Vec::new();
    for nth in 0..6 {
        let line = format!(
            "PROXY TCP6 2001:db8:{}::1 2001:db8::ff 1 8443\r\n",
            nth / 2 + 1
        );
        let mut wire = over_socket(&path, line.as_bytes()).await;
        let strange = [("X-Forwarded-For", "9.9.9.9")];
        assert_eq!(wire.get(&format!("/{nth}"), &strange).await.status, 200);
        let client = format!("2001:db8:{}::1", nth / 2 + 1);
        assert_eq!(app.last().field("x-forwarded-for"), Some(client.clone()));
        assert_eq!(gateway.record(&format!("/{nth}")).await["client"], *client);
        held.push(wire);
    }
    assert_eq!(held[0].get("/files/large", &[]).await.body.len(), 3 << 20);
    // Without an address they count as one client, as on a socket without headers.
    for nth in 0..3 {
        let mut wire = over_socket(&path, b"PROXY UNKNOWN\r\n").await;
        wire.try_send(request("GET", "/unknown", &[], ""))
            .await
            .ok();
        assert_eq!(wire.answers().await, nth < 2, "{nth}");
        held.push(wire);
    }
    let mut wire = over_socket(&path, b"GET / HTTP/1.1\r\n").await;
    wire.closed().await;
}

#[tokio::test]
async fn a_reload_decides_for_new_connections() {
    let (app, gateway) = start("").await;
    let with = config(
        "listeners: [{address: 127.0.0.1:0, proxy_protocol: true}]
trusted_proxies: [127.0.0.1]
routes: [{path: /*, proxy: '@app', auth: none}]
",
        &[("app", &app.url())],
    );
    let mut old = behind(LINE, &gateway).await;
    assert_eq!(old.get("/old", &[]).await.status, 200);
    gateway
        .reconfigure(&with.replace(", proxy_protocol: true", ""))
        .await;
    let mut new = gateway.connect().await;
    assert_eq!(new.get("/new", &[]).await.status, 200);
    assert_eq!(gateway.record("/new").await["client"], "127.0.0.1");
    old.get("/old/again", &[]).await;
    assert_eq!(gateway.record("/old/again").await["client"], "192.0.2.7");
    gateway
        .reconfigure(&with.replace("[127.0.0.1]", "[127.0.0.9]"))
        .await;
    gateway.connect().await.closed().await;
    let refused = with.replace("[127.0.0.1]", "[unix]");
    let log = gateway.reconfigure_in_vain(&refused).await;
    assert!(log.contains("nobody may speak it"), "{log}");
}

#[tokio::test]
async fn who_sends_no_header_does_not_delay_the_end() {
    let (_app, mut gateway) = start("timeouts: {shutdown: 20s}\n").await;
    let mut silent = gateway.connect().await;
    let mut half = behind(&LINE[..9], &gateway).await;
    let mut served = behind(LINE, &gateway).await;
    assert_eq!(served.get("/", &[]).await.status, 200);
    gateway.signal(Signal::TERM);
    let ended = within(Duration::from_secs(5), gateway.exit()).await;
    assert_eq!(ended.unwrap().code(), Some(0));
    silent.closed().await;
    half.closed().await;
}
