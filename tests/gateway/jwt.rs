//! The denial matrix: every family of algorithms, every defect of a token, both protocols, both
//! ways to serve. Each refused row stands beside an allowed one.

use std::collections::HashMap;

use jsonwebtoken::Algorithm::{self, ES256, ES384, EdDSA, HS256, HS512, PS256, RS256, RS512};
use serde_json::{Value, json};

use super::support::{
    App, Folder, Gateway, H2, Kind, Reply, claims, config, eventually, key, now, sign,
    sign_with_header,
};

const LEEWAY: i64 = 20;

/// The verifiers, and the key that each has.
const FAMILIES: &[(&str, Algorithm, Kind)] = &[
    ("hs256", HS256, Kind::Secret),
    ("hs512", HS512, Kind::Secret),
    ("rs256", RS256, Kind::Rsa),
    ("rs512", RS512, Kind::Rsa),
    ("ps256", PS256, Kind::Rsa),
    ("es256", ES256, Kind::P256),
    ("es384", ES384, Kind::P384),
    ("eddsa", EdDSA, Kind::Ed25519),
];

/// What a request gets.
#[derive(Clone, Copy, Debug)]
enum Expected {
    Allowed,
    /// 401 and one of these words in the log.
    Refused(&'static [&'static str]),
    /// 401 without an error.
    Missing,
    /// 400.
    Malformed,
    /// 403.
    Forbidden,
}
use Expected::{Allowed, Forbidden, Malformed, Missing, Refused};

/// A case: what is wrong, the values of `Authorization`, what comes of it.
type Row = (&'static str, Vec<String>, Expected);

fn rows(algorithm: Algorithm, kind: Kind) -> Vec<Row> {
    let own = key(kind, 0);
    let other = key(kind, 1);
    let all = |changes: Value| {
        let mut base = json!({
            "iss": "https://issuer.test", "aud": ["orders"], "token_type": "access",
            "scope": "orders:read orders:write",
        });
        base.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        claims(base)
    };
    let kid = |kid: &str| json!({"typ": "JWT", "kid": kid});
    let with = |changes: Value| {
        vec![format!(
            "Bearer {}",
            sign_with_header(algorithm, own, &kid("k1"), &all(changes).to_string())
        )]
    };
    let header = |header: Value| {
        vec![format!(
            "Bearer {}",
            sign_with_header(algorithm, own, &header, &all(json!({})).to_string())
        )]
    };
    let text = |claims: &str| {
        vec![format!(
            "Bearer {}",
            sign_with_header(algorithm, own, &kid("k1"), claims)
        )]
    };
    let good = with(json!({}));
    let token = good[0].strip_prefix("Bearer ").unwrap();
    let unsigned = token.rsplit_once('.').unwrap().0;
    let none = sign_with_header(
        HS256,
        key(Kind::Secret, 0),
        &json!({"alg": "none"}),
        &all(json!({})).to_string(),
    );
    // The key's public half as a secret: what a verifier that trusts `alg` would accept.
    let confused = {
        let secret = jsonwebtoken::EncodingKey::from_secret(own.public.as_bytes());
        let mut header = jsonwebtoken::Header::new(HS256);
        header.kid = Some("k1".to_owned());
        jsonwebtoken::encode(&header, &all(json!({})), &secret).unwrap()
    };
    let foreign = if kind == Kind::Secret {
        (RS256, Kind::Rsa)
    } else {
        (HS256, Kind::Secret)
    };
    let foreign = sign(foreign.0, key(foreign.1, 0), &all(json!({})));
    let forged = sign_with_header(algorithm, other, &kid("k1"), &all(json!({})).to_string());
    let embedded = json!({"typ": "JWT", "kid": "k1", "jwk": {"kty": "oct", "k": "AAAA"}, "jku": "http://127.0.0.1:9/"});
    let embedded = sign_with_header(algorithm, other, &embedded, &all(json!({})).to_string());
    let deep = format!(
        "{{\"exp\":{},\"x\":{}{}}}",
        now() + 60,
        "[".repeat(40),
        "]".repeat(40)
    );
    let twice = format!("{{\"exp\":{},\"sub\":\"a\",\"sub\":\"b\"}}", now() + 60);
    let b = |token: String| vec![format!("Bearer {token}")];

    let mut rows: Vec<Row> = vec![
        ("good", good.clone(), Allowed),
        (
            "small-scheme",
            vec![good[0].replace("Bearer", "bearer")],
            Allowed,
        ),
        (
            "good-twice",
            vec![good[0].clone(), good[0].clone()],
            Allowed,
        ),
        ("aud-as-text", with(json!({"aud": "orders"})), Allowed),
        (
            "aud-one-of-two",
            with(json!({"aud": ["bills", "orders"]})),
            Allowed,
        ),
        (
            "expired-within-leeway",
            with(json!({"exp": now() - LEEWAY + 12})),
            Allowed,
        ),
        (
            "early-within-leeway",
            with(json!({"nbf": now() + LEEWAY - 12})),
            Allowed,
        ),
        (
            "fractional-exp",
            with(json!({"exp": now() as f64 + 60.5})),
            Allowed,
        ),
        ("missing", vec![], Missing),
        ("another-scheme", vec!["Basic dTpw".to_owned()], Missing),
        (
            "two-tokens",
            vec![good[0].clone(), with(json!({"sub": "u-2"}))[0].clone()],
            Malformed,
        ),
        (
            "no-token-behind-the-scheme",
            vec!["Bearer".to_owned()],
            Malformed,
        ),
        ("two-words", vec![format!("{} x", good[0])], Malformed),
        ("alg-none", b(none.clone()), Refused(&["token_algorithm"])),
        (
            "alg-none-unsigned",
            b(format!("{}.", none.rsplit_once('.').unwrap().0)),
            Refused(&["token_algorithm", "token_malformed"]),
        ),
        ("another-family", b(foreign), Refused(&["token_algorithm"])),
        ("forged", b(forged), Refused(&["token_signature"])),
        (
            "key-in-the-token",
            b(embedded),
            Refused(&["token_signature"]),
        ),
        (
            "signature-cut",
            b(token[..token.len() - 8].to_owned()),
            Refused(&["token_signature", "token_malformed"]),
        ),
        (
            "signature-empty",
            b(format!("{unsigned}.")),
            Refused(&["token_signature", "token_malformed"]),
        ),
        (
            "payload-changed",
            b(format!(
                "{}e30{}",
                &token[..unsigned.rfind('.').unwrap() + 1],
                &token[unsigned.len()..]
            )),
            Refused(&["token_signature"]),
        ),
        (
            "crit",
            header(json!({"crit": ["b64"], "b64": true, "kid": "k1"})),
            Refused(&["token_critical"]),
        ),
        (
            "expired",
            with(json!({"exp": now() - LEEWAY - 2})),
            Refused(&["token_expired"]),
        ),
        (
            "no-exp",
            with(json!({"exp": null})),
            Refused(&["token_claim"]),
        ),
        (
            "exp-as-text",
            with(json!({"exp": "9999999999"})),
            Refused(&["token_claim"]),
        ),
        (
            "early",
            with(json!({"nbf": now() + LEEWAY + 30})),
            Refused(&["token_immature"]),
        ),
        (
            "issued-in-future",
            with(json!({"iat": now() + LEEWAY + 30})),
            Refused(&["token_issued_in_future"]),
        ),
        (
            "wrong-iss",
            with(json!({"iss": "https://evil.test"})),
            Refused(&["token_issuer"]),
        ),
        (
            "no-iss",
            with(json!({"iss": null})),
            Refused(&["token_issuer", "token_claim"]),
        ),
        (
            "wrong-aud",
            with(json!({"aud": ["bills"]})),
            Refused(&["token_audience"]),
        ),
        (
            "no-aud",
            with(json!({"aud": null})),
            Refused(&["token_audience", "token_claim"]),
        ),
        (
            "required-claim-missing",
            with(json!({"token_type": null})),
            Refused(&["token_required_claim"]),
        ),
        (
            "required-claim-differs",
            with(json!({"token_type": "refresh"})),
            Refused(&["token_required_claim"]),
        ),
        (
            "not-base64url",
            b("a+b/c.de~f.gh".to_owned()),
            Refused(&["token_malformed"]),
        ),
        (
            "one-part",
            b("abc".to_owned()),
            Refused(&["token_malformed"]),
        ),
        (
            "four-parts",
            b(format!("{token}.e30")),
            Refused(&["token_malformed"]),
        ),
        (
            "claims-not-json",
            text("hello"),
            Refused(&["token_malformed"]),
        ),
        ("claims-a-list", text("[]"), Refused(&["token_malformed"])),
        ("member-twice", text(&twice), Refused(&["token_malformed"])),
        ("too-deep", text(&deep), Refused(&["token_malformed"])),
        (
            "huge",
            b(format!("{unsigned}.{}", "A".repeat(17 * 1024))),
            Refused(&["token_too_long"]),
        ),
        ("no-scope", with(json!({"scope": null})), Forbidden),
        (
            "another-scope",
            with(json!({"scope": "orders:readable"})),
            Forbidden,
        ),
    ];
    if kind == Kind::Secret {
        rows.push((
            "kid-is-nothing-to-a-secret",
            header(json!({"kid": "k9"})),
            Allowed,
        ));
    } else {
        rows.push((
            "wrong-kid",
            header(json!({"kid": "k9"})),
            Refused(&["token_unknown_key"]),
        ));
        rows.push((
            "public-key-as-secret",
            b(confused),
            Refused(&["token_algorithm"]),
        ));
    }
    rows
}

fn gateway_yaml() -> String {
    let mut jwt = String::from("jwt:\n");
    let mut routes = String::from("routes:\n");
    for (name, algorithm, kind) in FAMILIES {
        let source = match kind {
            Kind::Secret => format!("secret: \"{}\"", key(*kind, 0).public),
            _ => format!("keys: [{{kid: k1, file: {kind:?}.pem}}]"),
        };
        jwt += &format!(
            "  {name}: {{algorithms: [{algorithm:?}], {source}, issuer: 'https://issuer.test', audience: orders, \
             leeway: {LEEWAY}s, claims: {{token_type: access}}}}\n"
        );
        let auth = format!("auth: {{jwt: [{name}], require: {{scope: ['orders:read']}}}}");
        routes +=
            &format!("  - {{name: {name}-app, path: /app/{name}/*, proxy: '@app', {auth}}}\n");
        routes += &format!(
            "  - {{name: {name}-files, path: /files/{name}/*, static: ./files, {auth}}}\n"
        );
    }
    jwt + &routes
}

#[tokio::test]
async fn every_defect_is_refused_in_every_family_over_every_protocol_on_every_kind_of_route() {
    let app = App::echo().await;
    let folder = Folder::new();
    for kind in [Kind::Rsa, Kind::P256, Kind::P384, Kind::Ed25519] {
        folder.write(&format!("{kind:?}.pem"), &key(kind, 0).public);
    }
    for (_, algorithm, kind) in FAMILIES {
        for (case, ..) in rows(*algorithm, *kind) {
            folder.write(&format!("files/{case}-h1"), "content");
            folder.write(&format!("files/{case}-h2"), "content");
        }
    }
    let gateway = Gateway::start_in(folder, &config(&gateway_yaml(), &[("app", &app.url())])).await;
    let mut failures = Vec::new();
    let mut answers = Vec::new();
    let mut sent = Vec::new();
    for (family, algorithm, kind) in FAMILIES {
        // Signed when their turn comes: some are good for a few seconds more.
        for (case, values, expected) in rows(*algorithm, *kind) {
            let fields: Vec<_> = values
                .iter()
                .map(|value| ("authorization", value.as_str()))
                .collect();
            let mut h2 = H2::connect(gateway.address()).await;
            for (target, protocol) in [
                ("app", "h1"),
                ("app", "h2"),
                ("files", "h1"),
                ("files", "h2"),
            ] {
                let path = format!("/{target}/{family}/{case}-{protocol}");
                let before = app.requests();
                let reply = match protocol {
                    "h1" => gateway.get(&path, &fields).await,
                    _ => h2.get(&path, &fields).await,
                };
                let served = app.requests() > before;
                if served != (target == "app" && matches!(expected, Allowed)) {
                    failures.push(format!("{path}: the app was asked: {served}"));
                }
                answers.push((path, format!("{family}-{target}"), expected, reply));
            }
            sent.extend(values.into_iter().map(|value| (case, value)));
        }
    }
    let records = eventually("all records", async || {
        Some(gateway.records()).filter(|records| records.len() >= answers.len())
    })
    .await;
    let records: HashMap<_, _> = records
        .iter()
        .map(|record| (record["path"].as_str().unwrap_or_default(), record))
        .collect();
    for (path, route, expected, reply) in &answers {
        let record = records.get(path.as_str()).copied().unwrap_or(&Value::Null);
        if let Err(problem) = judge(*expected, reply, record) {
            failures.push(format!("{path}: {problem}; {record}"));
        }
        if record["route"] != *route {
            failures.push(format!(
                "{path}: the record names the route {}",
                record["route"]
            ));
        }
    }
    let output = gateway.output();
    for (case, value) in &sent {
        let token = value.strip_prefix("Bearer ").unwrap_or_default();
        let longest = token
            .split('.')
            .max_by_key(|part| part.len())
            .unwrap_or_default();
        if longest.len() > 16 && output.contains(longest) {
            failures.push(format!("{case}: the token is in a log"));
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {} failed:\n{}",
        failures.len(),
        answers.len(),
        failures.join("\n")
    );
}

/// Compares a reply and its access record with what a row expects.
fn judge(expected: Expected, reply: &Reply, record: &Value) -> Result<(), String> {
    let challenge = reply.all("www-authenticate").join(" & ");
    let reason = record["reason"].as_str().unwrap_or_default();
    let (status, reasons, parts): (u16, &[&str], Vec<String>) = match expected {
        Allowed => (200, &[""], vec![]),
        Missing => (401, &["token_missing"], vec![]),
        Malformed => (
            400,
            &["token_request_malformed"],
            vec!["error=\"invalid_request\"".into()],
        ),
        Forbidden => (
            403,
            &["forbidden"],
            vec![
                "error=\"insufficient_scope\"".into(),
                "scope=\"orders:read\"".into(),
            ],
        ),
        Refused(reasons) => (
            401,
            reasons,
            vec![
                "error=\"invalid_token\"".into(),
                format!("error_description=\"{}", description(reason)),
            ],
        ),
    };
    if reply.status != status || record["status"] != status {
        return Err(format!("status {} instead of {status}", reply.status));
    }
    if !reasons.contains(&reason) {
        return Err(format!("reason {reason:?} instead of {reasons:?}"));
    }
    let refused = status != 200;
    if refused != challenge.starts_with("Bearer realm=\"") {
        return Err(format!("challenge {challenge:?}"));
    }
    if matches!(expected, Missing) && challenge.contains("error") {
        return Err(format!("an error where no token was: {challenge}"));
    }
    match parts.iter().find(|part| !challenge.contains(*part)) {
        Some(part) => Err(format!("no {part} in {challenge}")),
        None if refused && reply.text().contains("content") && !reply.text().contains("title") => {
            Err("the content came along".to_owned())
        }
        None => Ok(()),
    }
}

/// How the client is told what the log calls `reason`; for a claim the beginning alone.
fn description(reason: &str) -> &'static str {
    match reason {
        "token_too_long" => "the token is too long",
        "token_malformed" => "the token is malformed",
        "token_algorithm" => "the token's algorithm is not accepted",
        "token_critical" => "the token has critical header parameters that are not understood",
        "token_unknown_key" => "the token's key is not known",
        "token_signature" => "the token's signature is invalid",
        "token_expired" => "the token has expired",
        "token_immature" => "the token is not valid yet",
        "token_issued_in_future" => "the token was issued in the future",
        "token_claim" => "the token's claim ",
        "token_issuer" => "the token's issuer is not accepted",
        "token_audience" => "the token is not meant for this audience",
        "token_required_claim" => "a claim of the token does not have the value that is required",
        _ => "?",
    }
}
