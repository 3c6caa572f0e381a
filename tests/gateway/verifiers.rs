//! How a verifier is configured, and what it then lets in.

use jsonwebtoken::Algorithm::HS256;
use serde_json::{Value, json};

use super::support::{Gateway, Kind, claims, config, key, now, sign, sign_with_header, token};

#[tokio::test]
async fn an_audience_that_nobody_asked_for_is_refused_unless_any_is_welcome() {
    let secret = &key(Kind::Secret, 0).public;
    let text = config(
        "jwt:\n  strict: {algorithms: [HS256], secret: '@secret'}\n  \
         any: {algorithms: [HS256], secret: '@secret', audience: any}\n\
         routes:\n  - {path: /strict, respond: {status: 200, body: in}, auth: strict}\n  \
         - {path: /any, respond: {status: 200, body: in}, auth: any}\n",
        &[("secret", secret)],
    );
    let gateway = Gateway::start(&text).await;
    let with = |changes| format!("Bearer {}", token(changes));
    let meant = with(json!({"aud": "somebody"}));
    let plain = with(json!({}));
    for (path, token, status) in [
        ("/strict", &meant, 401),
        ("/strict", &plain, 200),
        ("/any", &meant, 200),
        ("/any", &plain, 200),
    ] {
        assert_eq!(
            gateway.get(path, &[("Authorization", token)]).await.status,
            status,
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_type_a_life_and_a_missing_exp_are_judged_as_configured() {
    let secret = &key(Kind::Secret, 0).public;
    let text = config(
        "jwt:\n  typed: {algorithms: [HS256], secret: '@secret', typ: at+jwt}\n  \
         short: {algorithms: [HS256], secret: '@secret', max_lifetime: 1h}\n  \
         endless: {algorithms: [HS256], secret: '@secret', require_exp: false}\n\
         routes:\n  - {path: /typed, respond: {status: 200, body: in}, auth: typed}\n  \
         - {path: /short, respond: {status: 200, body: in}, auth: short}\n  \
         - {path: /endless, respond: {status: 200, body: in}, auth: endless}\n",
        &[("secret", secret)],
    );
    let gateway = Gateway::start(&text).await;
    let own = key(Kind::Secret, 0);
    let typed = |typ: &str| {
        sign_with_header(
            HS256,
            own,
            &json!({"typ": typ}),
            &claims(json!({})).to_string(),
        )
    };
    let with = |changes: Value| sign(HS256, own, &claims(changes));
    for (path, token, status, why) in [
        ("/typed", typed("at+jwt"), 200, "the type"),
        (
            "/typed",
            typed("application/AT+JWT"),
            200,
            "the type in its long form",
        ),
        ("/typed", typed("JWT"), 401, "another type"),
        ("/short", with(json!({})), 200, "a short life"),
        (
            "/short",
            with(json!({"exp": now() + 7200})),
            401,
            "a long life",
        ),
        (
            "/short",
            with(json!({"iat": null})),
            401,
            "a life of unknown length",
        ),
        ("/endless", with(json!({"exp": null})), 200, "no end"),
        (
            "/endless",
            with(json!({"exp": now() - 90})),
            401,
            "an end that has passed",
        ),
    ] {
        let value = format!("Bearer {token}");
        assert_eq!(
            gateway.get(path, &[("Authorization", &value)]).await.status,
            status,
            "{why}"
        );
    }
}

#[tokio::test]
async fn the_verifier_of_the_tokens_issuer_decides() {
    let text = config(
        "jwt:\n  one: {algorithms: [HS256], secret: '@zero', issuer: 'https://one.test'}\n  \
         two: {algorithms: [HS256], secret: '@first', issuer: 'https://two.test'}\n\
         routes: [{path: /*, respond: {status: 200, body: in}, auth: {jwt: [one, two]}}]\n",
        &[
            ("zero", &key(Kind::Secret, 0).public),
            ("first", &key(Kind::Secret, 1).public),
        ],
    );
    let gateway = Gateway::start(&text).await;
    for (nth, issuer, status) in [
        (0, "https://one.test", 200),
        (1, "https://two.test", 200),
        (0, "https://two.test", 401),
        (1, "https://three.test", 401),
    ] {
        let value = format!(
            "Bearer {}",
            sign(
                HS256,
                key(Kind::Secret, nth),
                &claims(json!({"iss": issuer}))
            )
        );
        let reply = gateway.get("/", &[("Authorization", &value)]).await;
        assert_eq!(reply.status, status, "key {nth} and {issuer}");
    }
}
