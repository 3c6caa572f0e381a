//! Tokens that are bound to a client certificate (RFC 8705): good for their holder, and for no thief, wherever they come
//! from and however often they were seen before.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::Empty;
use rustls::ClientConfig;
use serde_json::{Value, json};

use super::clients::{Parties, attempt, config_only, connect, fingerprint, named, text};
use super::support::{
    Answer, App, Gateway, H2, Kind, Wire, identified, key, request, run_to_end, token,
};

const TLS13: &rustls::SupportedProtocolVersion = &rustls::version::TLS13;

const UPGRADE: &[(&str, &str)] = &[
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// The holder of tokens, and two thieves: with a certificate of their own, and with none.
struct Clients {
    holder: [Arc<ClientConfig>; 2],
    thieves: [[Arc<ClientConfig>; 2]; 2],
    print: String,
}

impl Clients {
    /// For HTTP/1.1 and HTTP/2 each.
    fn new(parties: &Parties) -> Self {
        let own = parties.clients.client(named("holder"));
        let other = parties.clients.client(named("thief"));
        let both = |issued| [&[][..], &["h2"]].map(|alpn| identified(issued, TLS13, alpn));
        Self {
            holder: both(Some(&own)),
            thieves: [both(Some(&other)), both(None)],
            print: fingerprint(&own),
        }
    }

    /// A token for the holder; each is another one.
    fn token(&self, id: &str) -> String {
        token(json!({"jti": id, "cnf": {"x5t#S256": self.print}}))
    }
}

/// A gateway of one worker, which remembers all tokens that it has seen.
async fn start(parties: Parties, rest: &str, values: &[(&str, &str)]) -> Gateway {
    let secret = &key(Kind::Secret, 0).public;
    let rest = config_only(rest, &[values, &[("secret", secret.as_str())]].concat());
    let text = text("{ca: ca.pem, required: false}", &rest);
    let text = text.replace("workers: 2\n", "workers: 1\n");
    Gateway::start_in(parties.folder, &text).await
}

/// The status and the challenge of a request.
async fn answer(
    client: &[Arc<ClientConfig>; 2],
    to: SocketAddr,
    h2: bool,
    path: &str,
    fields: &[(&str, &str)],
) -> (u16, String) {
    let reply = if h2 {
        let stream = connect(&client[1], to).await.unwrap();
        let mut h2 = H2::over(stream).await;
        h2.send("GET", path, fields, Empty::new()).await
    } else {
        attempt(&client[0], to, path, fields).await.unwrap().0
    };
    let challenge = reply.field("www-authenticate").unwrap_or_default();
    (reply.status, challenge.to_owned())
}

#[tokio::test]
async fn a_stolen_token_opens_nothing_wherever_it_comes_from() {
    let parties = Parties::new();
    let clients = Clients::new(&parties);
    let app = App::start(|_| Answer::Ok("app")).await;
    let gateway = start(
        parties,
        "jwt: {app: {algorithms: [HS256], secret: '@secret', from: [header, 'cookie:at', 'query:at', websocket, basic]}}
routes: [{path: /*, proxy: '@app', auth: app}]
",
        &[("app", &app.url())],
    )
    .await;
    let to = gateway.address();
    for (place, make) in [
        (
            "header",
            (|token| ("/", vec![("Authorization", format!("Bearer {token}"))])) as fn(String) -> _,
        ),
        ("basic", |token| {
            let basic = STANDARD.encode(format!("me:{token}"));
            ("/", vec![("Authorization", format!("Basic {basic}"))])
        }),
        ("cookie", |token| {
            ("/", vec![("Cookie", format!("a=b; at={token}"))])
        }),
        ("query", |token| ("/?at=", vec![("X-Token", token)])),
        ("websocket", |token| {
            (
                "/",
                vec![("Sec-WebSocket-Protocol", format!("bearer, {token}"))],
            )
        }),
        // Another cookie of the same name beside it.
        ("cookies", |token| {
            ("/", vec![("Cookie", format!("at={token}; at=old"))])
        }),
    ] {
        for h2 in [false, true] {
            if h2 && place == "websocket" {
                continue;
            }
            let ask = async |client: &[Arc<ClientConfig>; 2], token: &str| {
                let (path, fields) = make(token.to_owned());
                let path = match path {
                    "/?at=" => format!("/?at={token}"),
                    path => path.to_owned(),
                };
                let fields: Vec<(&str, &str)> = fields
                    .iter()
                    .map(|(name, value)| (*name, value.as_str()))
                    .collect();
                answer(client, to, h2, &path, &fields).await
            };
            let refused = async |token: &str| {
                for thief in &clients.thieves {
                    let (status, challenge) = ask(thief, token).await;
                    assert_eq!(status, 401, "{place} {h2}");
                    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
                    assert!(!challenge.contains(&clients.print), "{challenge}");
                }
            };
            let id = format!("{place} {h2}");
            // The thief comes first.
            let fresh = clients.token(&format!("{id} fresh"));
            refused(&fresh).await;
            assert_eq!(ask(&clients.holder, &fresh).await.0, 200, "{id}");
            // The holder came first, and the token is remembered.
            let seen = clients.token(&id);
            for _ in 0..3 {
                assert_eq!(ask(&clients.holder, &seen).await.0, 200, "{id}");
                refused(&seen).await;
            }
        }
    }
    let records = gateway.records_of(132).await;
    let reasons: Vec<&Value> = records.iter().filter_map(|it| it.get("reason")).collect();
    assert!(
        reasons.iter().all(|reason| *reason == "token_binding"),
        "{reasons:?}"
    );
    assert_eq!(reasons.len(), 88);
    // What the app saw was the holder's alone.
    assert!(app.seen().len() == records.len() - reasons.len());
}

#[tokio::test]
async fn a_stolen_token_opens_no_tunnel() {
    let parties = Parties::new();
    let clients = Clients::new(&parties);
    let app = App::start(|_| Answer::Upgrade).await;
    let gateway = start(
        parties,
        "jwt: {app: {algorithms: [HS256], secret: '@secret', from: [header, websocket]}}
routes: [{path: /*, proxy: '@app', auth: app}]
",
        &[("app", &app.url())],
    )
    .await;
    let token = clients.token("live");
    let offer = format!("bearer, {token}");
    let bearer = format!("Bearer {token}");
    for field in [
        ("Sec-WebSocket-Protocol", &*offer),
        ("Authorization", &*bearer),
    ] {
        for (client, status) in [
            (&clients.holder, 101),
            (&clients.thieves[0], 401),
            (&clients.thieves[1], 401),
            (&clients.holder, 101),
        ] {
            let stream = connect(&client[0], gateway.address()).await.unwrap();
            let mut wire = Wire::over(stream);
            wire.send(request("GET", "/live", &[UPGRADE, &[field]].concat(), ""))
                .await;
            assert_eq!(wire.head().await.status, status);
        }
    }
}

#[tokio::test]
async fn what_a_verifier_makes_of_a_binding_is_configured() {
    let parties = Parties::new();
    let clients = Clients::new(&parties);
    let gateway = start(
        parties,
        "jwt:
  check: {algorithms: [HS256], secret: '@secret'}
  require: {algorithms: [HS256], secret: '@secret', cnf: require}
  ignore: {algorithms: [HS256], secret: '@secret', cnf: ignore}
routes:
  - {path: /check, respond: {status: 200}, auth: check}
  - {path: /require, respond: {status: 200}, auth: require}
  - {path: /ignore, respond: {status: 200}, auth: ignore}
  - {path: /both, respond: {status: 200}, auth: {jwt: [check, ignore]}}
  - {path: /report, respond: {status: 200}, auth: {jwt: check, enforce: report}}
",
        &[],
    )
    .await;
    let to = gateway.address();
    let print = &clients.print;
    let paths = ["/check", "/require", "/ignore", "/both", "/report"];
    for (cnf, holder, thief) in [
        (
            json!(null),
            [200, 401, 200, 200, 200],
            [200, 401, 200, 200, 200],
        ),
        (
            json!({"x5t#S256": print}),
            [200, 200, 200, 200, 200],
            [401, 401, 200, 200, 200],
        ),
        (
            json!({"x5t#S256": [print]}),
            [401, 401, 200, 200, 200],
            [401, 401, 200, 200, 200],
        ),
        (
            json!({"jkt": print}),
            [401, 401, 200, 200, 200],
            [401, 401, 200, 200, 200],
        ),
        (
            json!({}),
            [401, 401, 200, 200, 200],
            [401, 401, 200, 200, 200],
        ),
        (
            json!("x5t#S256"),
            [401, 401, 200, 200, 200],
            [401, 401, 200, 200, 200],
        ),
    ] {
        let token = match &cnf {
            Value::Null => token(json!({})),
            cnf => token(json!({"cnf": cnf})),
        };
        let bearer = format!("Bearer {token}");
        for (at, path) in paths.iter().enumerate() {
            // Whoever is first, and again.
            for (client, expected) in [
                (&clients.holder, holder[at]),
                (&clients.thieves[0], thief[at]),
                (&clients.thieves[1], thief[at]),
                (&clients.holder, holder[at]),
            ] {
                let fields = [("Authorization", bearer.as_str())];
                let (status, _) = answer(client, to, false, path, &fields).await;
                assert_eq!(status, expected, "{path} {cnf}");
            }
        }
    }
    let records = gateway.records_of(120).await;
    let refused = |record: &&Value| record["status"] == 401;
    assert!(
        records
            .iter()
            .filter(refused)
            .all(|it| it["reason"] == "token_binding")
    );
    let reported = records
        .iter()
        .filter(|it| it["would_refuse"] == "token_binding");
    assert_eq!(reported.count(), 18);
}

#[tokio::test]
async fn a_listener_without_client_certificates_takes_no_bound_token() {
    let parties = Parties::new();
    let clients = Clients::new(&parties);
    let app = App::start(|_| Answer::Ok("app")).await;
    let gateway = start(
        parties,
        "trusted_proxies: [127.0.0.0/8]
jwt: {app: {algorithms: [HS256], secret: '@secret'}}
routes: [{path: /*, proxy: '@app', auth: app}]
",
        &[("app", &app.url())],
    )
    .await;
    let bearer = format!("Bearer {}", clients.token("x"));
    let bearer = ("Authorization", bearer.as_str());
    let (status, _) = answer(&clients.holder, gateway.address(), false, "/", &[bearer]).await;
    assert_eq!(status, 200);
    // What a trusted proxy says of a certificate is for the app, and proves nothing here.
    let plain = "listeners: [{address: 127.0.0.1:0}]\n";
    let whole = std::fs::read_to_string(gateway.folder.path("gateway.yaml")).unwrap();
    let (before, after) = whole.split_once("listeners:").unwrap();
    let after = &after[after.find("timeouts:").unwrap()..];
    let other = Gateway::start(&format!("{before}{plain}{after}")).await;
    for field in [("X-Nothing", ""), ("Client-Cert", ":MIIB:")] {
        assert_eq!(other.get("/", &[bearer, field]).await.status, 401);
    }
}

#[tokio::test]
async fn the_services_own_tokens_may_be_bound() {
    let parties = Parties::new();
    let clients = Clients::new(&parties);
    let folder = &parties.folder;
    let rest = "state: state
tokens: {keys: keys, login: 'http://127.0.0.1:1/login'}
routes: [{path: /*, respond: {status: 200}, auth: tokens}]
";
    std::fs::create_dir(folder.path("state")).unwrap();
    let gateway = start(parties, rest, &[]).await;
    let issue = |claim: &str| {
        let arguments = ["token", "issue", "u", "-c", "gateway.yaml", "--set", claim];
        let output = run_to_end(&gateway.folder, &arguments, &[]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let bound = issue(&format!("cnf={{\"x5t#S256\": \"{}\"}}", clients.print));
    let bearer = format!("Bearer {bound}");
    let fields = [("Authorization", bearer.as_str())];
    for (client, expected) in [
        (&clients.holder, 200),
        (&clients.thieves[0], 401),
        (&clients.thieves[1], 401),
        (&clients.holder, 200),
    ] {
        let (status, _) = answer(client, gateway.address(), false, "/", &fields).await;
        assert_eq!(status, expected);
    }
}

#[tokio::test]
async fn clients_are_told_where_only_bound_tokens_are_accepted() {
    let parties = Parties::new();
    let public = &key(Kind::P256, 0).public;
    parties.folder.write("issuer.pem", public);
    let gateway = start(
        parties,
        "jwt:
  check: {algorithms: [ES256], keys: [issuer.pem], issuer: 'https://id.test'}
  require: {algorithms: [ES256], keys: [issuer.pem], issuer: 'https://id.test', cnf: require}
routes:
  - {path: /check, respond: {status: 200}, auth: check}
  - {path: /require, respond: {status: 200}, auth: require}
",
        &[],
    )
    .await;
    let client = identified(None, TLS13, &[]);
    for (path, expected) in [("check", Value::Null), ("require", json!(true))] {
        let path = format!("/.well-known/oauth-protected-resource/{path}");
        let (reply, _) = attempt(&client, gateway.address(), &path, &[])
            .await
            .unwrap();
        let document: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(
            document["authorization_servers"],
            json!(["https://id.test"])
        );
        assert_eq!(
            document["tls_client_certificate_bound_access_tokens"],
            expected
        );
    }
}
