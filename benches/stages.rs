//! The stages of a request in isolation: path and route, a token, a file; and a complete forwarded request, from a
//! client's socket to an app and back.
//!
//! `cargo bench --bench stages`. Comparisons with other gateways are in `peers/`.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot run is to stop"
)]

use std::fs;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::{Criterion, criterion_group, criterion_main};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, header};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use portcullis::RunOptions;
use portcullis::bench::Stages;
use rcgen::PublicKeyData as _;
use tempfile::TempDir;

const SECRET: &str = "0123456789abcdef0123456789abcdef-bench";

fn configuration(folder: &TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("gateway.yaml");
    fs::write(&path, text).unwrap();
    path
}

fn target(text: &str) -> PathAndQuery {
    text.parse().unwrap()
}

/// 10 and 1,000 routes, and a path that matches a parameter deep in them.
fn route(c: &mut Criterion) {
    for count in [10, 1000] {
        let folder = tempfile::tempdir().unwrap();
        let mut text =
            String::from("listeners: [{address: \"127.0.0.1:0\"}]\nlog: {access: off}\nroutes:\n");
        for at in 0..count {
            text.push_str(&format!(
                "  - {{path: \"/service-{at}/users/{{user}}/orders/*\", respond: {{status: 204}}}}\n"
            ));
        }
        let stages = Stages::load(&configuration(&folder, &text)).unwrap();
        let path = target("/service-7/users/42/orders/2026/11");
        assert!(stages.route(&path));
        c.bench_function(&format!("route/{count} routes"), |b| {
            b.iter(|| stages.route(black_box(&path)));
        });
    }
}

/// A limit by address: the same path without one beside it, one client, and clients that are always new.
fn limit(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let text = "listeners: [{address: \"127.0.0.1:0\"}]\nlog: {access: off}\nroutes:\n  - {path: /free, respond: {status: 204}}\n  - {path: /limited, respond: {status: 204}, rate_limit: {by: ip, rate: 1000000/s}}\n";
    let stages = Stages::load(&configuration(&folder, text)).unwrap();
    let start = Instant::now();
    let client = |at: u32| IpAddr::from(Ipv4Addr::from_bits(at));
    for (name, path, clients) in [
        ("none", "/free", 1),
        ("one client", "/limited", 1),
        ("many clients", "/limited", 1_000_000),
    ] {
        let path = target(path);
        let mut at = 0_u32;
        c.bench_function(&format!("limit/{name}"), |b| {
            b.iter(|| {
                at += 1;
                let now = start + Duration::from_micros(u64::from(at) * 10);
                stages.counts(black_box(&path), client(at % clients), now)
            });
        });
    }
}

/// A token of each family, verified and from the cache, and no token at all.
fn verify(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    type FromPem = fn(&[u8]) -> jsonwebtoken::errors::Result<EncodingKey>;
    let keys: [(_, _, FromPem, &'static dyn VerificationAlgorithm); 3] = [
        (
            Algorithm::RS256,
            &rcgen::PKCS_RSA_SHA256,
            EncodingKey::from_rsa_pem,
            &RSA_PKCS1_2048_8192_SHA256,
        ),
        (
            Algorithm::ES256,
            &rcgen::PKCS_ECDSA_P256_SHA256,
            EncodingKey::from_ec_pem,
            &ECDSA_P256_SHA256_FIXED,
        ),
        (
            Algorithm::EdDSA,
            &rcgen::PKCS_ED25519,
            EncodingKey::from_ed_pem,
            &ED25519,
        ),
    ];
    let mut verifiers = format!("  HS256: {{algorithms: [HS256], secret: \"{SECRET}\"}}\n");
    let secret = EncodingKey::from_secret(SECRET.as_bytes());
    let mut signers = vec![(Algorithm::HS256, secret, None)];
    for (algorithm, kind, from_pem, bare) in keys {
        let pair = rcgen::KeyPair::generate_for(kind).unwrap();
        let file = format!("{algorithm:?}.pem");
        fs::write(folder.path().join(&file), pair.public_key_pem()).unwrap();
        verifiers.push_str(&format!(
            "  {algorithm:?}: {{algorithms: [{algorithm:?}], keys: [{file}]}}\n"
        ));
        let signer = from_pem(pair.serialize_pem().as_bytes()).unwrap();
        let bare = ParsedPublicKey::new(bare, pair.subject_public_key_info()).unwrap();
        signers.push((algorithm, signer, Some(bare)));
    }
    let mut text = format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]\nlog: {{access: off}}\njwt:\n{verifiers}routes:\n  - {{path: /open, proxy: \"http://127.0.0.1:1\", auth: none}}\n"
    );
    for (algorithm, _, _) in &signers {
        text.push_str(&format!(
            "  - {{path: /{algorithm:?}, proxy: \"http://127.0.0.1:1\", auth: {algorithm:?}}}\n"
        ));
    }
    let stages = Stages::load(&configuration(&folder, &text)).unwrap();
    c.bench_function("verify/no token", |b| {
        let (path, headers) = (target("/open"), HeaderMap::new());
        b.iter(|| stages.admits(&path, black_box(&headers), false));
    });
    for (algorithm, signer, bare) in signers {
        let claims = serde_json::json!({
            "sub": "user-0000007", "iss": "https://issuer.example", "iat": seconds() - 60,
            "exp": seconds() + 3600, "jti": "7c3fd2a0d3f14b6e", "token_type": "access",
        });
        let token = jsonwebtoken::encode(&Header::new(algorithm), &claims, &signer).unwrap();
        let mut headers = HeaderMap::new();
        let value = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
        headers.insert(header::AUTHORIZATION, value);
        let path = target(&format!("/{algorithm:?}"));
        // The cost of the signature check alone, with a prepared key.
        let (message, signature) = token.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        if let Some(bare) = &bare {
            c.bench_function(&format!("verify/{algorithm:?}/bare aws-lc-rs"), |b| {
                b.iter(|| {
                    bare.verify_sig(black_box(message.as_bytes()), &signature)
                        .is_ok()
                });
            });
        }
        for (how, anew) in [("anew", true), ("remembered", false)] {
            assert!(stages.admits(&path, &headers, anew));
            assert!(!stages.admits(&path, &HeaderMap::new(), anew));
            c.bench_function(&format!("verify/{algorithm:?}/{how}"), |b| {
                b.iter(|| stages.admits(&path, black_box(&headers), anew));
            });
        }
    }
}

fn seconds() -> u64 {
    now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark has the present time"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

/// A file of 1 KiB that is opened and read, and one cached in memory.
fn file(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("site")).unwrap();
    fs::write(folder.path().join("site/1k.txt"), "x".repeat(1024)).unwrap();
    let text = "listeners: [{address: \"127.0.0.1:0\"}]\nlog: {access: off}\nroutes: [{path: /*, static: ./site}]\n";
    let stages = Stages::load(&configuration(&folder, text)).unwrap();
    let path = target("/1k.txt");
    // A file counts as settled an hour after it was written, but not before.
    for (how, now) in [
        ("opened", now() - Duration::from_secs(3600)),
        ("kept", now() + Duration::from_secs(3600)),
    ] {
        assert_eq!(stages.file(&path, now), Some(1024));
        c.bench_function(&format!("file/1 KiB/{how}"), |b| {
            b.iter(|| stages.file(black_box(&path), now));
        });
    }
}

/// Sequential requests over one connection: the time of four passes through the kernel, and of the work between them.
fn forward(c: &mut Criterion) {
    let app = TcpListener::bind("127.0.0.1:0").unwrap();
    let app_address = app.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in app.incoming() {
            std::thread::spawn(move || serve(stream.unwrap()));
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let text = format!(
        "workers: 1\nlisteners: [{{address: \"{address}\"}}]\nlog: {{level: error, access: off}}\nroutes: [{{path: /*, proxy: \"http://{app_address}\", auth: none}}]\n"
    );
    start(&configuration(&folder, &text));
    for (name, address) in [("straight", app_address), ("through the gateway", address)] {
        let mut client = TcpStream::connect(address).unwrap();
        client.set_nodelay(true).unwrap();
        c.bench_function(&format!("forward/1 KiB/{name}"), |b| {
            b.iter(|| ask(&mut client, address));
        });
    }
}

/// Starts the gateway and waits until it listens. It ends with the process.
fn start(config: &Path) {
    let (ready, is_ready) = mpsc::channel();
    let config = config.to_owned();
    std::thread::spawn(move || {
        let options = RunOptions {
            on_ready: Some(Box::new(move || ready.send(()).unwrap())),
        };
        portcullis::run(&config, options).unwrap();
    });
    is_ready.recv().unwrap();
}

fn ask(client: &mut TcpStream, address: SocketAddr) {
    let request = format!("GET /a HTTP/1.1\r\nHost: {address}\r\n\r\n");
    client.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut room = [0; 4096];
    while !answer.ends_with(b"x\n") {
        let count = client.read(&mut room).unwrap();
        assert!(count > 0, "the connection ended");
        answer.extend_from_slice(&room[..count]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

/// An app that responds to each request with 1 KiB; the only line feed of the body is its last byte.
fn serve(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let body = "x".repeat(1023);
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n{body}\n");
    let mut request = Vec::new();
    let mut room = [0; 4096];
    loop {
        let count = stream.read(&mut room).unwrap_or(0);
        if count == 0 {
            return;
        }
        request.extend_from_slice(&room[..count]);
        if request.ends_with(b"\r\n\r\n") {
            stream.write_all(answer.as_bytes()).unwrap();
            request.clear();
        }
    }
}

criterion_group!(stages, route, limit, verify, file, forward);
criterion_main!(stages);
