//! Keys that live elsewhere: how they are fetched, renewed and given up, and what requests see of it
//! while the issuer is well, ill or gone. Real issuers are the matter of `tests/interop`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jsonwebtoken::Algorithm::{ES256, HS256, RS256};
use jsonwebtoken::jwk::Jwk;
use serde_json::{Value, json};

use super::support::{
    Answer, App, Authority, Folder, Gateway, Kind, claims, config, eventually, free_port, key,
    run_to_end, sign_with_header,
};

/// The public key of a family as a JWK of this name.
fn jwk(kind: Kind, nth: usize, kid: &str) -> Value {
    let algorithm = match kind {
        Kind::Rsa => RS256,
        Kind::P256 => ES256,
        other => panic!("{other:?}"),
    };
    let jwk = Jwk::from_encoding_key(key(kind, nth).private(), algorithm).unwrap();
    let mut jwk = serde_json::to_value(jwk).unwrap();
    jwk["kid"] = kid.into();
    jwk
}

fn bearer(kind: Kind, nth: usize, kid: &str) -> String {
    let algorithm = if kind == Kind::Rsa { RS256 } else { ES256 };
    let header = json!({"kid": kid});
    let claims = claims(json!({})).to_string();
    let token = sign_with_header(algorithm, key(kind, nth), &header, &claims);
    format!("Bearer {token}")
}

/// An issuer whose answer can be changed while it runs.
#[derive(Clone)]
struct Issuer {
    answer: Arc<Mutex<Vec<u8>>>,
    asked: Arc<AtomicUsize>,
}

fn http(status: &str, fields: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{fields}\r\n{body}").into_bytes()
}

fn set(keys: &[Value]) -> Vec<u8> {
    http("200 OK", "", &json!({"keys": keys}).to_string())
}

impl Issuer {
    fn new(answer: Vec<u8>) -> Self {
        Self {
            answer: Arc::new(Mutex::new(answer)),
            asked: Arc::default(),
        }
    }

    fn answers(&self, answer: Vec<u8>) {
        *self.answer.lock().unwrap() = answer;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Serves; an empty answer is none at all.
    async fn serve_on(&self, port: u16) -> App {
        let issuer = self.clone();
        App::start_on(port, move |_| {
            issuer.asked.fetch_add(1, Ordering::SeqCst);
            match issuer.answer.lock().unwrap().clone() {
                none if none.is_empty() => Answer::Silent,
                answer => Answer::RawThenClose(answer),
            }
        })
        .await
    }
}

/// A gateway with one route for tokens of the issuer, and one for everybody.
async fn gateway(verifier: &str) -> Gateway {
    Gateway::start(&text(verifier)).await
}

fn text(verifier: &str) -> String {
    config(
        &format!(
            "jwt: {{sso: {{{verifier}}}}}\nroutes:\n  - {{path: /open, respond: {{body: open}}}}\n  - {{path: /in, respond: {{body: in}}, auth: sso}}\n"
        ),
        &[],
    )
}

async fn status(gateway: &Gateway, token: &str) -> u16 {
    gateway.get("/in", &[("Authorization", token)]).await.status
}

#[tokio::test]
async fn a_key_set_at_a_url_is_fetched_and_its_tokens_pass() {
    let issuer = Issuer::new(set(&[
        jwk(Kind::Rsa, 0, "a"),
        // What is published is no secret.
        json!({"kty": "oct", "kid": "s", "k": "c2VjcmV0LTAtc2VjcmV0LTAtc2VjcmV0LTAtc2VjcmV0LTAt"}),
    ]));
    let app = issuer.serve_on(0).await;
    let gateway = gateway(&format!("jwks: {}/keys", app.url())).await;
    let secret = {
        let claims = claims(json!({})).to_string();
        let own = key(Kind::Secret, 0);
        let token = sign_with_header(HS256, own, &json!({"kid": "s"}), &claims);
        format!("Bearer {token}")
    };
    for (token, expected) in [
        (bearer(Kind::Rsa, 0, "a"), 200),
        (bearer(Kind::Rsa, 1, "a"), 401),
        (bearer(Kind::P256, 0, "a"), 401),
        (secret, 401),
    ] {
        assert_eq!(status(&gateway, &token).await, expected);
    }
    assert_eq!(app.last().target(), "/keys");
    assert_eq!(
        app.last().field("accept-encoding").as_deref(),
        Some("identity")
    );
    // One of the bad signatures asked for a newer set, and no more within 10 s.
    assert_eq!(issuer.asked(), 2);
}

#[tokio::test]
async fn a_new_key_under_the_old_name_is_asked_for_and_each_key_left_out_is_named() {
    let with = |mut key: Value, more: Value| {
        let more = more.as_object().unwrap().clone();
        key.as_object_mut().unwrap().extend(more);
        key
    };
    let old = set(&[jwk(Kind::P256, 0, "a")]);
    let issuer = Issuer::new(old);
    let app = issuer.serve_on(0).await;
    let gateway = gateway(&format!("jwks: {}/keys", app.url())).await;
    assert_eq!(status(&gateway, &bearer(Kind::P256, 0, "a")).await, 200);
    let out = [
        ("use-spiffe", json!({"use": "jwt-svid"})),
        ("ops-sign", json!({"use": null, "key_ops": ["sign"]})),
        ("alg-new", json!({"alg": "RS1"})),
        ("curve", json!({"kty": "EC", "crv": "secp256k1"})),
        ("usual", json!({"use": "enc"})),
    ];
    let mut keys = vec![
        // Two of one name, the right one second; and nothing where other servers write null.
        with(jwk(Kind::Rsa, 1, "a"), json!({"alg": null, "use": ""})),
        with(
            jwk(Kind::P256, 1, "a"),
            json!({"alg": "", "use": null, "key_ops": []}),
        ),
        jwk(Kind::P256, 1, "a"),
    ];
    keys.extend(
        out.iter()
            .map(|(kid, more)| with(jwk(Kind::Rsa, 0, kid), more.clone())),
    );
    let document = format!("\u{feff}{}", json!({"keys": keys}));
    issuer.answers(http("200 OK", "", &document));
    assert_eq!(status(&gateway, &bearer(Kind::P256, 1, "a")).await, 200);
    assert_eq!(status(&gateway, &bearer(Kind::Rsa, 1, "a")).await, 200);
    assert_eq!(status(&gateway, &bearer(Kind::P256, 0, "a")).await, 401);
    assert_eq!(issuer.asked(), 2);
    let curve = eventually("the log", async || {
        let said = gateway.stderr();
        said.contains("secp256k1").then_some(said)
    });
    let said = curve.await;
    for (kid, _) in &out {
        let lines = said.lines().filter(|line| {
            line.contains(&format!("kid \\\"{kid}\\\"")) || line.contains(&format!("kid \"{kid}\""))
        });
        let wanted = usize::from(*kid != "usual");
        assert_eq!(lines.count(), wanted, "{kid}: {said}");
    }
}

#[tokio::test]
async fn a_token_with_a_new_key_waits_for_it_and_all_who_wait_share_one_fetch() {
    let issuer = Issuer::new(set(&[jwk(Kind::Rsa, 0, "a")]));
    let app = issuer.serve_on(0).await;
    let gateway = Arc::new(gateway(&format!("jwks: {}", app.url())).await);
    assert_eq!(status(&gateway, &bearer(Kind::Rsa, 0, "a")).await, 200);
    assert_eq!(issuer.asked(), 1);

    issuer.answers(set(&[jwk(Kind::Rsa, 0, "a"), jwk(Kind::P256, 0, "b")]));
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let gateway = Arc::clone(&gateway);
            tokio::spawn(async move { status(&gateway, &bearer(Kind::P256, 0, "b")).await })
        })
        .collect();
    for one in waiting {
        assert_eq!(one.await.unwrap(), 200);
    }
    assert_eq!(issuer.asked(), 2);

    // Within the next 10 s no token asks again: neither a forged one, nor a flood of them.
    let start = Instant::now();
    for at in 0..50 {
        let unknown = bearer(Kind::P256, 1, &format!("forged-{at}"));
        assert_eq!(status(&gateway, &unknown).await, 401);
    }
    assert!(start.elapsed() < Duration::from_secs(9));
    assert_eq!(issuer.asked(), 2);
    assert_eq!(status(&gateway, &bearer(Kind::Rsa, 0, "a")).await, 200);
}

#[tokio::test]
async fn keys_without_a_name_come_and_go_as_well() {
    let unnamed = |kind, nth| {
        let mut jwk = jwk(kind, nth, "x");
        jwk.as_object_mut().unwrap().remove("kid");
        jwk
    };
    let issuer = Issuer::new(set(&[unnamed(Kind::P256, 0)]));
    let app = issuer.serve_on(0).await;
    let gateway = gateway(&format!("jwks: {}", app.url())).await;
    let token = |nth| {
        let claims = claims(json!({})).to_string();
        let token = sign_with_header(ES256, key(Kind::P256, nth), &json!({}), &claims);
        format!("Bearer {token}")
    };
    assert_eq!(status(&gateway, &token(0)).await, 200);
    issuer.answers(set(&[unnamed(Kind::P256, 1)]));
    assert_eq!(status(&gateway, &token(1)).await, 200);
    // The old key is gone, and with it what was remembered of its tokens.
    assert_eq!(status(&gateway, &token(0)).await, 401);
}

#[tokio::test]
async fn an_issuer_that_is_down_at_the_start_is_waited_for_by_nobody_but_its_own_tokens() {
    let port = free_port();
    let start = Instant::now();
    let gateway = gateway(&format!("jwks: 'http://127.0.0.1:{port}/keys'")).await;
    assert!(start.elapsed() < Duration::from_secs(3));
    let token = bearer(Kind::Rsa, 0, "a");
    let reply = gateway.get("/in", &[("Authorization", &token)]).await;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.field("retry-after"), Some("10"));
    assert_eq!(reply.field("www-authenticate"), None);
    assert_eq!(gateway.get("/in", &[]).await.status, 401);
    gateway.answers("/open", 200, "open").await;
    let said = gateway.stderr();
    let url = format!("http://127.0.0.1:{port}/keys");
    assert!(said.contains(&url) && said.contains("TCP: "), "{said}");

    let issuer = Issuer::new(set(&[jwk(Kind::Rsa, 0, "a")]));
    let _app = issuer.serve_on(port).await;
    eventually("the keys", async || {
        (status(&gateway, &token).await == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn whatever_an_ill_issuer_answers_the_last_good_set_goes_on_and_no_other_key_counts() {
    let issuer = Issuer::new(set(&[jwk(Kind::Rsa, 0, "a")]));
    let app = issuer.serve_on(0).await;
    let page = "<html>404</html>";
    let keys = |keys: Value| json!({ "keys": keys }).to_string();
    let forged = keys(json!([jwk(Kind::P256, 0, "b")]));
    let huge = format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(1 << 20));
    let short = json!([{"kty": "RSA", "kid": "b", "n": "AQAB", "e": "AQAB"}]);
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{huge}\r\n0\r\n\r\n",
        huge.len()
    );
    let elsewhere = "Location: http://192.0.2.1/keys\r\n";
    for (answer, why) in [
        (http("404 Not Found", "", page), "404"),
        (http("503 Service Unavailable", "", &forged), "503"),
        (http("304 Not Modified", "", ""), "304"),
        (http("200 OK", "", page), "JSON: "),
        (http("200 OK", "", ""), "JSON: "),
        (
            http("200 OK", "", &keys(json!([]))),
            "no key of the set can be used",
        ),
        (http("200 OK", "", &keys(short)), "2048"),
        (http("200 OK", "", "{\"keys\":[],\"keys\":[]}"), "JSON: "),
        (http("200 OK", "", &huge), "larger than 1 MiB"),
        (chunked.into_bytes(), "larger than 1 MiB"),
        (
            http("302 Found", elsewhere, ""),
            "redirect to http://192.0.2.1/keys",
        ),
        (
            http("302 Found", "Location: /again\r\n", ""),
            "more than 3 redirects",
        ),
        (http("302 Found", "", ""), "without a Location"),
        (b"SSH-2.0-OpenSSH_9.9\r\n".to_vec(), "HTTP: "),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_vec(),
            "HTTP: ",
        ),
        // It never answers.
        (Vec::new(), "HTTP: no answer within 5 s"),
    ] {
        issuer.answers(set(&[jwk(Kind::Rsa, 0, "a")]));
        let gateway = gateway(&format!("jwks: {}/keys", app.url())).await;
        let good = bearer(Kind::Rsa, 0, "a");
        assert_eq!(status(&gateway, &good).await, 200);
        issuer.answers(answer);
        // It asks for keys, and gets none.
        let forged = bearer(Kind::P256, 0, "b");
        let (forged, good, open) = tokio::join!(
            status(&gateway, &forged),
            async {
                let start = Instant::now();
                let status = status(&gateway, &good).await;
                (status, start.elapsed() < Duration::from_secs(2))
            },
            gateway.get("/open", &[]),
        );
        assert_eq!(
            (forged, good, open.status),
            (401, (200, true), 200),
            "{why}"
        );
        eventually(why, async || gateway.stderr().contains(why).then_some(())).await;
        assert!(gateway.stderr().contains("last_good_set=\"goes on\""));
    }
}

#[tokio::test]
async fn a_set_that_cannot_be_renewed_is_given_up_after_its_time() {
    let issuer = Issuer::new(set(&[jwk(Kind::Rsa, 0, "a")]));
    let app = issuer.serve_on(0).await;
    let url = app.url();
    let gateway = gateway(&format!("jwks: {url}, jwks_refresh: 10s, stale_for: 1s")).await;
    let token = bearer(Kind::Rsa, 0, "a");
    assert_eq!(status(&gateway, &token).await, 200);
    let port = app.port();
    app.stop().await;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        assert_eq!(status(&gateway, &token).await, 200, "{:?}", start.elapsed());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // What was remembered goes with the keys.
    eventually("503", async || {
        (status(&gateway, &token).await == 503).then_some(())
    })
    .await;
    let _app = issuer.serve_on(port).await;
    eventually("the keys", async || {
        (status(&gateway, &token).await == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_issuer_says_itself_where_its_keys_are() {
    let port = free_port();
    let issuer = format!("http://127.0.0.1:{port}/realms/main");
    let named = Arc::new(Mutex::new(issuer.clone()));
    let said = Arc::clone(&named);
    let app = App::start_on(port, move |seen| {
        let issuer = said.lock().unwrap().clone();
        let body = match seen.target() {
            "/realms/main/.well-known/openid-configuration" => {
                json!({"issuer": issuer, "jwks_uri": format!("http://127.0.0.1:{port}/moved")})
            }
            "/moved" => {
                return Answer::Raw(http("307 Temporary Redirect", "Location: /keys\r\n", ""));
            }
            "/keys" => json!({"keys": [jwk(Kind::P256, 0, "b")]}),
            other => panic!("{other}"),
        };
        Answer::Raw(http("200 OK", "", &body.to_string()))
    })
    .await;
    let gateway = gateway(&format!("issuer: '{issuer}'")).await;
    let token = |issuer: &str| {
        let claims = claims(json!({"iss": issuer})).to_string();
        let header = json!({"kid": "b"});
        let token = sign_with_header(ES256, key(Kind::P256, 0), &header, &claims);
        format!("Bearer {token}")
    };
    assert_eq!(status(&gateway, &token(&issuer)).await, 200);
    assert_eq!(status(&gateway, &token(&format!("{issuer}/"))).await, 401);
    assert_eq!(app.requests(), 3);

    // One issuer does not speak for another.
    *named.lock().unwrap() = "https://other.example".to_owned();
    let second = self::gateway(&format!("issuer: '{issuer}'")).await;
    assert_eq!(status(&second, &token(&issuer)).await, 503);
    let said = second.stderr();
    assert!(said.contains("https://other.example"), "{said}");
}

#[tokio::test]
async fn the_issuers_certificate_is_checked_by_the_roots_that_are_named() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let issued = authority.issue("localhost");
    let folder = Folder::new();
    folder.write("cert.pem", &issued.cert);
    folder.write("key.pem", &issued.key);
    let keys = json!({"keys": [jwk(Kind::Rsa, 0, "a")]}).to_string();
    folder.write("site/keys", keys);
    let text = config(
        "listeners: [{address: 127.0.0.1:0, tls: {certificates: [{cert: cert.pem, key: key.pem}]}}]\nroutes: [{path: /*, static: ./site}]\n",
        &[],
    );
    let issuer = Gateway::start_in(folder, &text).await;
    let port = issuer.address().port();
    let token = bearer(Kind::Rsa, 0, "a");
    for (ca, host, expected, said) in [
        (Some(authority.pem()), "localhost", 200, ""),
        (Some(stranger.pem()), "localhost", 503, "TLS: "),
        (Some(authority.pem()), "127.0.0.1", 503, "TLS: "),
        (None, "localhost", 503, "TLS: "),
    ] {
        let folder = Folder::new();
        let mut verifier = format!("jwks: 'https://{host}:{port}/keys'");
        if let Some(ca) = ca {
            folder.write("ca.pem", ca);
            verifier.push_str(", ca: ca.pem");
        }
        let gateway = Gateway::start_in(folder, &self::text(&verifier)).await;
        assert_eq!(status(&gateway, &token).await, expected, "{host} {said}");
        eventually(said, async || gateway.stderr().contains(said).then_some(())).await;
    }
}

#[tokio::test]
async fn a_reload_that_does_not_touch_a_verifier_keeps_its_keys() {
    let issuer = Issuer::new(set(&[jwk(Kind::Rsa, 0, "a")]));
    let app = issuer.serve_on(0).await;
    let verifier = format!("jwks: {}", app.url());
    let gateway = gateway(&verifier).await;
    let token = bearer(Kind::Rsa, 0, "a");
    assert_eq!(status(&gateway, &token).await, 200);
    app.stop().await;
    for change in ["", ", audience: any", ", audience: any, leeway: 1s"] {
        let verifier = format!("{verifier}{change}");
        let before = gateway.reloads();
        let changed = text(&verifier).replace("body: open", &format!("body: open{}", change.len()));
        gateway.folder.write("gateway.yaml", changed);
        gateway.reloaded_after(before).await;
        assert_eq!(status(&gateway, &token).await, 200, "{change}");
    }
    assert_eq!(issuer.asked(), 1);
    // Another life goes on with the set that is there, too.
    let before = gateway.reloads();
    let other = text(&format!("{verifier}, jwks_refresh: 1h"));
    gateway.folder.write("gateway.yaml", other);
    gateway.reloaded_after(before).await;
    assert_eq!(status(&gateway, &token).await, 200);
    let before = gateway.reloads();
    let elsewhere = format!("{verifier}/elsewhere");
    gateway.folder.write("gateway.yaml", text(&elsewhere));
    gateway.reloaded_after(before).await;
    assert_eq!(status(&gateway, &token).await, 503);
}

#[tokio::test]
async fn one_issuer_that_hangs_does_not_hold_up_the_tokens_of_another() {
    let hangs = Issuer::new(Vec::new());
    let good = Issuer::new(set(&[jwk(Kind::Rsa, 0, "a")]));
    let apps = [
        hangs.serve_on(0).await,
        hangs.serve_on(0).await,
        hangs.serve_on(0).await,
        good.serve_on(0).await,
    ];
    let text = config(
        "jwt:\n  one: {jwks: '@one'}\n  two: {jwks: '@two'}\n  three: {jwks: '@three'}\n  four: {jwks: '@four'}\n\
         routes:\n  - {path: /in, respond: {body: in}, auth: {jwt: [one, two, three, four]}}\n  \
         - {path: /shadow, respond: {body: in}, auth: {jwt: [one, two], enforce: report}}\n",
        &[
            ("one", &apps[0].url()),
            ("two", &apps[1].url()),
            ("three", &apps[2].url()),
            ("four", &apps[3].url()),
        ],
    );
    let gateway = Gateway::start(&text).await;
    let start = Instant::now();
    assert_eq!(status(&gateway, &bearer(Kind::Rsa, 0, "a")).await, 200);
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    // Whoever is refused waits for all of them, once.
    let start = Instant::now();
    let refused = status(&gateway, &bearer(Kind::Rsa, 0, "b")).await;
    assert_eq!(refused, 503);
    assert!(
        start.elapsed() < Duration::from_secs(9),
        "{:?}",
        start.elapsed()
    );
    // Where refusals are only reported, nobody waits.
    let start = Instant::now();
    let token = bearer(Kind::Rsa, 0, "c");
    let reply = gateway.get("/shadow", &[("Authorization", &token)]).await;
    assert_eq!(reply.status, 200);
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn several_issuers_on_one_route_judge_their_own_tokens() {
    let (one, two) = (
        Issuer::new(set(&[jwk(Kind::Rsa, 0, "k")])),
        Issuer::new(set(&[jwk(Kind::Rsa, 1, "k")])),
    );
    let (first, second) = (one.serve_on(0).await, two.serve_on(0).await);
    let text = config(
        "jwt:\n  one: {jwks: '@one', issuer: one}\n  two: {jwks: '@two', issuer: two}\n\
         routes: [{path: /in, respond: {body: in}, auth: {jwt: [one, two]}}]\n",
        &[("one", &first.url()), ("two", &second.url())],
    );
    let gateway = Gateway::start(&text).await;
    let token = |issuer: &str, nth| {
        let claims = claims(json!({"iss": issuer})).to_string();
        let token = sign_with_header(RS256, key(Kind::Rsa, nth), &json!({"kid": "k"}), &claims);
        format!("Bearer {token}")
    };
    for _ in 0..2 {
        assert_eq!(status(&gateway, &token("one", 0)).await, 200);
        assert_eq!(status(&gateway, &token("two", 1)).await, 200);
        assert_eq!(status(&gateway, &token("one", 1)).await, 401);
        assert_eq!(status(&gateway, &token("two", 0)).await, 401);
        assert_eq!(status(&gateway, &token("three", 0)).await, 401);
    }
    // Bad signatures ask for newer sets, once in 10 s.
    for issuer in [one, two] {
        let asked = issuer.asked();
        assert!((2..=3).contains(&asked), "{asked}");
    }
}

#[tokio::test]
async fn settings_of_keys_at_a_url_that_cannot_be_right_are_refused() {
    for (verifier, said) in [
        ("jwks: 'http://issuer.example/keys'", "write https://"),
        ("jwks: 'ftp://issuer.example/keys'", "https://"),
        (
            "jwks: 'https://u:p@issuer.example/keys'",
            "not supported here",
        ),
        (
            "jwks: 'https://issuer.example/', algorithms: [HS256]",
            "public keys alone",
        ),
        (
            "jwks: 'https://issuer.example/', jwks_refresh: 9s",
            "10s to 24h",
        ),
        (
            "jwks: 'https://issuer.example/', jwks_refresh: 25h",
            "10s to 24h",
        ),
        (
            "jwks: 'https://issuer.example/', ca: gateway.yaml",
            "no certificate",
        ),
        (
            "jwks: 'https://issuer.example/', algorithms: [HS256], secret: 0123456789abcdef0123456789abcdef",
            "stands alone",
        ),
        ("issuer: accounts.example.com", "cannot be discovered"),
        ("issuer: 'http://issuer.example'", "cannot be discovered"),
        ("issuer: 'https://issuer.example/?a=b'", "no query"),
        ("jwks: 'https://issuer.example:99999/'", "a port is"),
        (
            "jwks: 'https://issuer.example/', weak_secret: allow",
            "only beside a secret",
        ),
        (
            "issuer: ['https://a.example', 'https://b.example']",
            "several issuers",
        ),
        (
            "secret: 0123456789abcdef0123456789abcdef, algorithms: [HS256], stale_for: 1h",
            "only where the keys are at a URL",
        ),
        (
            "secret: 0123456789abcdef0123456789abcdef, algorithms: [HS256, RS256]",
            "no key is for RS256",
        ),
    ] {
        let folder = Folder::new();
        folder.write("gateway.yaml", text(verifier));
        let output = run_to_end(&folder, &["check"], &[]);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{verifier}");
        assert!(errors.contains(said), "{verifier}: {errors}");
    }
    // What is only not there yet is no mistake.
    let folder = Folder::new();
    folder.write("gateway.yaml", text("issuer: 'https://issuer.invalid/'"));
    assert_eq!(run_to_end(&folder, &["check"], &[]).status.code(), Some(0));
}
