//! Known attacks on the verification of tokens, each by its name and played against the real
//! gateway. An honest request of the same form passes beside every attack, so that no test is
//! content with a gateway that refuses everything. Which defect gets which answer in which family,
//! protocol and kind of route is the matter of `jwt`.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm::{
    self, ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, RS256, RS384, RS512,
};
use jsonwebtoken::EncodingKey;
use serde_json::{Map, Value, json};

use super::support::{
    Answer, App, Authority, Folder, Gateway, Kind, Wire, chunked, claims, config, key, local, now,
    request, run_to_end, sign, sign_with_header, token,
};

/// What a request gets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    /// 200 from the app.
    Allowed,
    /// 401 `invalid_token` with this description.
    Invalid(&'static str),
    /// 400 `invalid_request`.
    Malformed,
    /// 401 without an error.
    Missing,
    /// 403 `insufficient_scope`.
    Forbidden,
}
use Verdict::{Allowed, Forbidden, Invalid, Malformed, Missing};

const ALGORITHM: Verdict = Invalid("the token's algorithm is not accepted");
const AUDIENCE: Verdict = Invalid("the token is not meant for this audience");
const CLAIM_AUD: Verdict = Invalid("the token's claim aud is missing or malformed");
const CLAIM_EXP: Verdict = Invalid("the token's claim exp is missing or malformed");
const CLAIM_IAT: Verdict = Invalid("the token's claim iat is missing or malformed");
const CLAIM_ISS: Verdict = Invalid("the token's claim iss is missing or malformed");
const CLAIM_NBF: Verdict = Invalid("the token's claim nbf is missing or malformed");
const CRITICAL: Verdict =
    Invalid("the token has critical header parameters that are not understood");
const EXPIRED: Verdict = Invalid("the token has expired");
const FORM: Verdict = Invalid("the token is malformed");
const IMMATURE: Verdict = Invalid("the token is not valid yet");
const ISSUED_IN_FUTURE: Verdict = Invalid("the token was issued in the future");
const ISSUER: Verdict = Invalid("the token's issuer is not accepted");
const REQUIRED_CLAIM: Verdict =
    Invalid("a claim of the token does not have the value that is required");
const SIGNATURE: Verdict = Invalid("the token's signature is invalid");
const TOO_LONG: Verdict = Invalid("the token is too long");
const TYPE: Verdict = Invalid("the token's type is not accepted");
const UNKNOWN_KEY: Verdict = Invalid("the token's key is not known");

/// The longest token that is read.
const MAX_BYTES: usize = 16 * 1024;

/// The verifier of HS256 tokens with the first secret.
const OWN: &str = "own: {algorithms: [HS256], secret: '@own'}";

/// What is wrong with a token, the token, and what it gets.
type Attack = (String, String, Verdict);

/// An app behind a gateway of one worker, and one connection that all requests take: an attack
/// does not spoil it for the honest.
struct Trial {
    app: App,
    gateway: Gateway,
    wire: Wire,
    /// What the app must have seen so far.
    served: usize,
}

impl Trial {
    /// Starts with these verifiers, one a line, each of them on a route of its own: `/NAME/*`.
    async fn of(verifiers: &[&str]) -> Self {
        Self::start(Folder::new(), verifiers, &[]).await
    }

    /// Starts in a folder with the first keys as `KIND.pem`; `more` are routes by name, with the
    /// `auth` of each.
    async fn start(folder: Folder, verifiers: &[&str], more: &[(&str, &str)]) -> Self {
        for kind in [Kind::Rsa, Kind::P256, Kind::P384, Kind::Ed25519] {
            folder.write(&format!("{kind:?}.pem"), &key(kind, 0).public);
        }
        let single = verifiers.iter().map(|verifier| {
            let name = verifier.split(':').next().unwrap();
            (name, name)
        });
        let mut text = String::from("workers: 1\njwt:\n");
        for verifier in verifiers {
            text += &format!("  {verifier}\n");
        }
        text += "routes:\n";
        for (name, auth) in single.chain(more.iter().copied()) {
            text += &format!("  - {{path: /{name}/*, proxy: '@app', auth: {auth}}}\n");
        }
        let app = App::start(|_| Answer::Ok("in")).await;
        let values = [
            ("own", key(Kind::Secret, 0).public.as_str()),
            ("other", key(Kind::Secret, 1).public.as_str()),
            ("app", &app.url()),
        ];
        let gateway = Gateway::start_in(folder, &config(&text, &values)).await;
        let wire = gateway.connect().await;
        Self {
            app,
            gateway,
            wire,
            served: 0,
        }
    }

    /// Sends a GET; the answer is as expected, and the app saw it only if it is allowed.
    async fn judge(
        &mut self,
        what: &str,
        target: &str,
        fields: &[(&str, &str)],
        expected: Verdict,
    ) {
        let reply = self.wire.get(target, fields).await;
        let challenge = reply.all("www-authenticate").join(" & ");
        let (status, parts) = match expected {
            Allowed => (200, vec![]),
            Invalid(description) => (
                401,
                vec![
                    "error=\"invalid_token\"".to_owned(),
                    format!("error_description=\"{description}\""),
                ],
            ),
            Malformed => (400, vec!["error=\"invalid_request\"".to_owned()]),
            Missing => (401, vec![]),
            Forbidden => (403, vec!["error=\"insufficient_scope\"".to_owned()]),
        };
        let what = format!("{what} at {target}: {challenge}");
        assert_eq!(reply.status, status, "{what}");
        for part in &parts {
            assert!(challenge.contains(part), "{what} lacks {part}");
        }
        assert_eq!(challenge.contains("error="), !parts.is_empty(), "{what}");
        let allowed = expected == Allowed;
        assert_eq!(reply.text() == "in", allowed, "{what}");
        assert_eq!(challenge.starts_with("Bearer realm=\""), !allowed, "{what}");
        self.served += usize::from(allowed);
        assert_eq!(self.app.requests(), self.served, "{what} reached the app");
    }

    /// The same with a token behind `Authorization: Bearer`.
    async fn present(&mut self, what: &str, route: &str, token: &str, expected: Verdict) {
        let value = format!("Bearer {token}");
        let target = format!("/{route}/x");
        let fields = [("Authorization", value.as_str())];
        self.judge(what, &target, &fields, expected).await;
    }

    async fn allows(&mut self, what: &str, route: &str, token: &str) {
        self.present(what, route, token, Allowed).await;
    }

    /// The honest token passes before and behind every attack.
    async fn refuses(&mut self, route: &str, honest: &str, attacks: &[Attack]) {
        assert!(!attacks.is_empty());
        self.allows("the honest token", route, honest).await;
        for (what, token, verdict) in attacks {
            self.present(what, route, token, *verdict).await;
            let after = format!("the honest token after {what}");
            self.allows(&after, route, honest).await;
        }
    }
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// This text with an HMAC behind it, whatever the text says.
fn sealed(algorithm: Algorithm, secret: impl AsRef<[u8]>, message: &str) -> String {
    let key = EncodingKey::from_secret(secret.as_ref());
    let mac = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
    format!("{message}.{mac}")
}

/// A token of these very texts under an HMAC of this secret.
fn of_secret(
    algorithm: Algorithm,
    secret: impl AsRef<[u8]>,
    header: &str,
    claims: impl AsRef<[u8]>,
) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    sealed(algorithm, secret, &message)
}

fn own_secret() -> &'static str {
    &key(Kind::Secret, 0).public
}

/// A token of these very texts, signed as the issuer of [`OWN`] does.
fn own(header: &str, claims: impl AsRef<[u8]>) -> String {
    of_secret(HS256, own_secret(), header, claims)
}

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// Good claims as text, with this put in front of the others.
fn claims_with(members: &str) -> String {
    format!("{{{members},\"exp\":{}}}", now() + 600)
}

fn good_claims() -> String {
    claims(json!({})).to_string()
}

/// Header and payload, and the signature's bytes.
fn split(token: &str) -> (&str, Vec<u8>) {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    (signed, decode(signature))
}

/// The token with these bytes as its signature.
fn resigned(token: &str, signature: impl AsRef<[u8]>) -> String {
    format!("{}.{}", split(token).0, encode(signature))
}

/// The bytes of a PEM file.
fn der(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.contains('-')).collect();
    STANDARD.decode(body).unwrap()
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

/// A public key without the wrapping that says what it is: an RSAPublicKey, a point, or 32 bytes.
fn bare(kind: Kind, nth: usize) -> Vec<u8> {
    let der = der(&key(kind, nth).public);
    let length = match kind {
        Kind::Secret => panic!("a secret is not public"),
        Kind::Rsa => 270,
        Kind::P256 => 65,
        Kind::P384 => 97,
        Kind::Ed25519 => 32,
    };
    der[der.len() - length..].to_vec()
}

/// The modulus of an RSA key.
fn modulus(nth: usize) -> Vec<u8> {
    let bare = bare(Kind::Rsa, nth);
    let (start, rest) = bare.split_at(9);
    assert_eq!(start, hex("3082010a0282010100"));
    let (modulus, exponent) = rest.split_at(256);
    assert_eq!(exponent, hex("0203010001"));
    modulus.to_vec()
}

/// A public key as a JWK.
fn jwk(kind: Kind, nth: usize) -> Value {
    let bare = bare(kind, nth);
    let curve = |name: &str| {
        assert_eq!(bare[0], 4);
        let (x, y) = bare[1..].split_at(bare.len() / 2);
        json!({"kty": "EC", "crv": name, "x": encode(x), "y": encode(y)})
    };
    match kind {
        Kind::Secret => panic!("a secret is not public"),
        Kind::Rsa => json!({"kty": "RSA", "n": encode(modulus(nth)), "e": "AQAB"}),
        Kind::P256 => curve("P-256"),
        Kind::P384 => curve("P-384"),
        Kind::Ed25519 => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(bare)}),
    }
}

/// The members of both objects.
fn joined(one: Value, other: Value) -> Value {
    let mut all: Map<String, Value> = one.as_object().unwrap().clone();
    all.extend(other.as_object().unwrap().clone());
    Value::Object(all)
}

/// The sum of two numbers as long as each other, their first byte the greatest; longer by a byte
/// where it does not fit.
fn sum(one: &[u8], other: &[u8]) -> Vec<u8> {
    assert_eq!(one.len(), other.len());
    let mut carry = 0;
    let mut digits: Vec<u8> = Vec::new();
    for (a, b) in one.iter().zip(other).rev() {
        let all = u16::from(*a) + u16::from(*b) + carry;
        digits.push(all.to_le_bytes()[0]);
        carry = all >> 8;
    }
    if carry > 0 {
        digits.push(1);
    }
    digits.reverse();
    digits
}

#[tokio::test]
async fn alg_none_is_refused_in_every_spelling() {
    let mut trial = Trial::of(&[
        OWN,
        "rsa: {algorithms: [RS256], keys: [Rsa.pem]}",
        "p256: {algorithms: [ES256], keys: [P256.pem]}",
    ])
    .await;
    for (route, algorithm, kind) in [
        ("own", HS256, Kind::Secret),
        ("rsa", RS256, Kind::Rsa),
        ("p256", ES256, Kind::P256),
    ] {
        let honest = sign(algorithm, key(kind, 0), &claims(json!({})));
        let signature = honest.rsplit_once('.').unwrap().1;
        let mut attacks = Vec::new();
        for none in [
            "none",
            "None",
            "NONE",
            "nOnE",
            "NonE",
            "none ",
            " none",
            "",
            " ",
            "\\u006eone",
            "none\\u0000",
            "no\\u006Ee",
            "null",
            "undefined",
            "HS256 ",
            "hs256",
            "rs256",
            "es256",
            "HS256\\u0000",
            "HS1",
            "ES256K",
            "RSA1_5",
            "dir",
            "*",
            "HS256,none",
            "\u{ff28}S256",
        ] {
            let header = format!(r#"{{"alg":"{none}","typ":"JWT"}}"#);
            let message = format!("{}.{}", encode(header), encode(good_claims()));
            for (with, token) in [
                ("nothing", format!("{message}.")),
                ("an honest signature", format!("{message}.{signature}")),
                ("an empty HMAC key", sealed(HS256, "", &message)),
                ("the secret", sealed(HS256, own_secret(), &message)),
                ("junk", format!("{message}.AAAA")),
            ] {
                attacks.push((format!("alg {none:?} with {with}"), token, ALGORITHM));
            }
        }
        let header = encode(r#"{"alg":"none"}"#);
        let payload = encode(good_claims());
        attacks.push((
            "no last dot".to_owned(),
            format!("{header}.{payload}"),
            FORM,
        ));
        trial.refuses(route, &honest, &attacks).await;
    }
}

#[tokio::test]
async fn a_token_whose_algorithm_is_absent_or_no_text_is_refused() {
    let mut trial = Trial::of(&[OWN]).await;
    let attacks: Vec<Attack> = [
        r#"{}"#,
        r#"{"typ":"JWT"}"#,
        r#"{"alg":null}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":["none","HS256"]}"#,
        r#"{"alg":{"name":"HS256"}}"#,
        r#"{"alg":256}"#,
        r#"{"alg":true}"#,
        r#"{"Alg":"HS256"}"#,
        r#"{"ALG":"HS256"}"#,
        r#"{"alg ":"HS256"}"#,
        r#""HS256""#,
        r#"["alg","HS256"]"#,
        "null",
        "HS256",
        "",
    ]
    .into_iter()
    .map(|header| {
        (
            format!("the header {header}"),
            own(header, good_claims()),
            FORM,
        )
    })
    .collect();
    let honest = own(r#"{"alg":"HS256"}"#, good_claims());
    trial.refuses("own", &honest, &attacks).await;
}

/// All that somebody may take a public key's bytes for.
fn as_secrets(kind: Kind) -> Vec<(&'static str, Vec<u8>)> {
    let text = &key(kind, 0).public;
    let body: Vec<&str> = text.lines().filter(|line| !line.contains('-')).collect();
    let jwk = jwk(kind, 0);
    let member = if kind == Kind::Rsa { "n" } else { "x" };
    let member = jwk[member].as_str().unwrap();
    let mut secrets = vec![
        ("the PEM file", text.clone().into_bytes()),
        ("the file without its last line end", text.trim_end().into()),
        ("the file with CRLF", text.replace('\n', "\r\n").into()),
        ("the file's base64", body.concat().into()),
        ("the file's base64 lines", body.join("\n").into()),
        ("SubjectPublicKeyInfo", der(text)),
        ("the bare key", bare(kind, 0)),
        ("the JWK", jwk.to_string().into()),
        ("the JWKS", json!({"keys": [jwk]}).to_string().into()),
        ("a member of the JWK", member.into()),
        ("a member of the JWK, decoded", decode(member)),
        ("the file's name", format!("{kind:?}.pem").into()),
        ("nothing", Vec::new()),
    ];
    if kind == Kind::Rsa {
        let file = pem("RSA PUBLIC KEY", &bare(kind, 0));
        secrets.push(("the PKCS#1 file", file.into()));
    }
    secrets
}

/// Public keys as HMAC secrets, on every kind of verifier that has the key: none takes them for
/// secrets, not even one that has a secret, too.
async fn confuse(kind: Kind, algorithm: Algorithm) {
    let folder = Folder::new();
    let set = json!({"keys": [joined(jwk(kind, 0), json!({"kid": "k1"}))]});
    folder.write("set.json", set.to_string());
    let verifiers = [
        OWN,
        &format!("bare: {{algorithms: [{algorithm:?}], keys: [{kind:?}.pem]}}"),
        &format!("named: {{algorithms: [{algorithm:?}], keys: [{{kid: k1, file: {kind:?}.pem}}]}}"),
        "set: {jwks: set.json}",
        &format!(
            "mixed: {{algorithms: [HS256, {algorithm:?}], secret: '@own', keys: [{kind:?}.pem]}}"
        ),
    ];
    let either = [
        ("either", "{jwt: [own, named]}"),
        ("rather", "{jwt: [named, own]}"),
    ];
    let mut trial = Trial::start(folder, &verifiers, &either).await;
    for (route, has_secret) in [
        ("bare", false),
        ("named", false),
        ("set", false),
        ("mixed", true),
        ("either", true),
        ("rather", true),
    ] {
        let mut attacks = Vec::new();
        for (what, secret) in as_secrets(kind) {
            for mac in [HS256, HS384, HS512] {
                let verdict = if has_secret && mac == HS256 {
                    SIGNATURE
                } else {
                    ALGORITHM
                };
                for kid in ["", r#","kid":"k1""#, r#","kid":"k9""#] {
                    let header = format!(r#"{{"alg":"{mac:?}","typ":"JWT"{kid}}}"#);
                    let token = of_secret(mac, &secret, &header, good_claims());
                    attacks.push((format!("{what} and {header}"), token, verdict));
                }
            }
        }
        let header = json!({"typ": "JWT", "kid": "k1"});
        let honest = sign_with_header(algorithm, key(kind, 0), &header, &good_claims());
        trial.refuses(route, &honest, &attacks).await;
        if has_secret {
            let honest = token(json!({}));
            trial.allows("an honest HMAC", route, &honest).await;
        }
    }
}

#[tokio::test]
async fn an_rsa_public_key_is_never_an_hmac_secret() {
    confuse(Kind::Rsa, RS256).await;
}

#[tokio::test]
async fn an_ecdsa_public_key_is_never_an_hmac_secret() {
    confuse(Kind::P256, ES256).await;
    confuse(Kind::P384, ES384).await;
}

#[tokio::test]
async fn an_ed25519_public_key_is_never_an_hmac_secret() {
    confuse(Kind::Ed25519, EdDSA).await;
}

#[tokio::test]
async fn a_signature_is_good_for_the_algorithm_that_made_it_alone() {
    let mut trial = Trial::of(&[
        "rsa: {algorithms: [RS256, RS512, PS256], keys: [Rsa.pem]}",
        "rs256: {algorithms: [RS256], keys: [Rsa.pem]}",
        "hmac: {algorithms: [HS256, HS512], secret: '@own'}",
        "own: {algorithms: [HS256], secret: '@own'}",
    ])
    .await;
    for (route, kind, algorithms, accepted) in [
        (
            "rsa",
            Kind::Rsa,
            [RS256, RS384, RS512, PS256].as_slice(),
            [RS256, RS512, PS256].as_slice(),
        ),
        ("rs256", Kind::Rsa, &[RS256, RS384, RS512, PS256], &[RS256]),
        (
            "hmac",
            Kind::Secret,
            &[HS256, HS384, HS512],
            &[HS256, HS512],
        ),
        ("own", Kind::Secret, &[HS256, HS384, HS512], &[HS256]),
    ] {
        for named in algorithms {
            for used in algorithms {
                let header = json!({"alg": format!("{named:?}"), "typ": "JWT"});
                let token = sign_with_header(*used, key(kind, 0), &header, &good_claims());
                let verdict = match (accepted.contains(named), named == used) {
                    (true, true) => Allowed,
                    (true, false) => SIGNATURE,
                    (false, _) => ALGORITHM,
                };
                let what = format!("a signature of {used:?} under the name {named:?}");
                trial.present(&what, route, &token, verdict).await;
            }
        }
    }
}

#[tokio::test]
async fn a_kid_never_opens_a_file() {
    const KNOWN: &str = "the known content of a file";
    let folder = Folder::new();
    let known = folder.write("keys/known.txt", KNOWN);
    let known = known.to_str().unwrap().to_owned();
    let set = json!({"keys": [{"kty": "oct", "kid": "k1", "k": encode(own_secret())}]});
    folder.write("set.json", set.to_string());
    let verifiers = [OWN, "named: {algorithms: [HS256], jwks: set.json}"];
    let mut trial = Trial::start(folder, &verifiers, &[]).await;
    let mut contents: Vec<(String, String)> = [
        "/dev/null",
        "../../../../dev/null",
        "../../../../../../../../../../dev/null",
        "..\\\\..\\\\..\\\\dev\\\\null",
        "....//....//....//dev/null",
        "%2e%2e%2f%2e%2e%2fdev%2fnull",
        "file:///dev/null",
        "file://localhost/dev/null",
        "/dev/null\\u0000.pem",
        "/proc/self/fd/0",
        "keys/none.txt",
        "",
        ".",
    ]
    .map(|kid| (kid.to_owned(), String::new()))
    .into();
    for kid in [
        known.clone(),
        format!("file://{known}"),
        format!("/../../../..{known}"),
        format!("{known}\\u0000"),
        "keys/known.txt".to_owned(),
        "./keys/known.txt".to_owned(),
        "keys/../keys/known.txt".to_owned(),
    ] {
        contents.push((kid, KNOWN.to_owned()));
    }
    // Files of a system whose content everybody knows.
    for file in [
        "/proc/sys/kernel/randomize_va_space",
        "/proc/sys/kernel/ostype",
    ] {
        if let Ok(content) = std::fs::read_to_string(file) {
            contents.push((file.to_owned(), content.trim_end().to_owned()));
            contents.push((file.to_owned(), content));
        }
    }
    for (kid, content) in contents {
        let header = format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#);
        let attack = of_secret(HS256, &content, &header, good_claims());
        let what = format!("kid {kid:?} with the key {content:?}");
        // The very same header under the secret: a lone secret has no name, and every kid is it.
        let honest = own(&header, good_claims());
        let attacks = [(what.clone(), attack.clone(), SIGNATURE)];
        trial.refuses("own", &honest, &attacks).await;
        let named = own(r#"{"alg":"HS256","kid":"k1"}"#, good_claims());
        let attacks = [(what, attack, UNKNOWN_KEY)];
        trial.refuses("named", &named, &attacks).await;
    }
}

#[tokio::test]
async fn a_kid_never_reaches_a_database_or_a_shell() {
    let folder = Folder::new();
    let set = json!({"keys": [{"kty": "oct", "kid": "k1", "k": encode(own_secret())}]});
    folder.write("set.json", set.to_string());
    let trace = folder.path("trace");
    let path = trace.to_str().unwrap().to_owned();
    let verifiers = [OWN, "named: {algorithms: [HS256], jwks: set.json}"];
    let mut trial = Trial::start(folder, &verifiers, &[]).await;
    for kid in [
        "x' UNION SELECT 'key",
        "x' UNION SELECT 'key' -- ",
        "x\\\" UNION SELECT \\\"key",
        "k1' OR '1'='1",
        "k1'; DROP TABLE keys; --",
        "%' OR kid LIKE 'k%",
        "*)(kid=*",
        "${jndi:ldap://127.0.0.1:9/a}",
        "{{7*7}}",
        &format!("| touch {path}"),
        &format!("; touch {path} #"),
        &format!("$(touch {path})"),
        &format!("`touch {path}`"),
        &format!("k1\\ntouch {path}\\n"),
        &format!("k1 && touch {path}"),
    ] {
        let header = format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#);
        let attack = of_secret(HS256, "key", &header, good_claims());
        let attacks = [(format!("kid {kid:?}"), attack.clone(), SIGNATURE)];
        trial
            .refuses("own", &own(&header, good_claims()), &attacks)
            .await;
        let named = own(r#"{"alg":"HS256","kid":"k1"}"#, good_claims());
        let attacks = [(format!("kid {kid:?}"), attack, UNKNOWN_KEY)];
        trial.refuses("named", &named, &attacks).await;
    }
    assert!(!trace.exists(), "a kid was run");
    let output = trial.gateway.output();
    for word in ["UNION", "jndi", "touch"] {
        assert!(!output.contains(word), "a kid is in a log");
    }
}

#[tokio::test]
async fn a_kid_is_a_text_and_is_compared_whole() {
    let folder = Folder::new();
    let set = json!({"keys": [
        {"kty": "oct", "kid": "k1", "k": encode(own_secret())},
        {"kty": "oct", "kid": "k2", "k": encode(&key(Kind::Secret, 1).public)},
    ]});
    folder.write("set.json", set.to_string());
    let verifiers = ["named: {algorithms: [HS256], jwks: set.json}"];
    let mut trial = Trial::start(folder, &verifiers, &[]).await;
    // All are signed with the secret of k1.
    let of = |kid: &str| own(&format!(r#"{{"alg":"HS256","kid":{kid}}}"#), good_claims());
    let long = format!("\"{}\"", "k".repeat(8_000));
    let mut attacks: Vec<Attack> = [
        r#""k1\u0000""#,
        r#""k1\u0000.pem""#,
        r#""\u0000k1""#,
        r#""K1""#,
        r#""k1 ""#,
        r#"" k1""#,
        r#""k1\n""#,
        r#""k""#,
        r#""k11""#,
        r#""""#,
        r#""\u200bk1""#,
        r#""k\u0131""#,
        r#""k*""#,
        r#""k1,k2""#,
        &long,
    ]
    .map(|kid| (format!("kid {kid:.40}"), of(kid), UNKNOWN_KEY))
    .into();
    attacks.extend(
        [
            "1",
            "-1",
            "null",
            "true",
            "[]",
            r#"["k1"]"#,
            r#"{"k1":true}"#,
            r#"{"$ne":""}"#,
            "1e999",
            r#""\ud800""#,
        ]
        .map(|kid| (format!("kid {kid}"), of(kid), FORM)),
    );
    attacks.push((
        "the kid of another key".to_owned(),
        of(r#""k2""#),
        SIGNATURE,
    ));
    trial.refuses("named", &of(r#""k1""#), &attacks).await;
    trial
        .allows("the kid with an escape", "named", &of(r#""\u006b1""#))
        .await;
}

#[tokio::test]
async fn a_key_that_comes_with_the_token_is_never_used() {
    let mut trial = Trial::of(&[
        OWN,
        "rsa: {algorithms: [RS256], keys: [{kid: k1, file: Rsa.pem}]}",
        "p256: {algorithms: [ES256], keys: [{kid: k1, file: P256.pem}]}",
        "ed25519: {algorithms: [EdDSA], keys: [Ed25519.pem]}",
    ])
    .await;
    for (route, algorithm, kind) in [
        ("rsa", RS256, Kind::Rsa),
        ("p256", ES256, Kind::P256),
        ("ed25519", EdDSA, Kind::Ed25519),
    ] {
        let stranger = jwk(kind, 1);
        let full = json!({"kid": "k1", "use": "sig", "alg": format!("{algorithm:?}")});
        let full = joined(stranger.clone(), full);
        for member in [
            json!({"jwk": stranger}),
            json!({"jwk": full}),
            json!({"jwk": full.to_string()}),
            json!({"jwk": [full]}),
            json!({"jwks": {"keys": [full]}}),
            json!({"keys": [full]}),
            json!({"key": key(kind, 1).public}),
            json!({"x5c": [STANDARD.encode(der(&key(kind, 1).public))]}),
            json!({"x5c": []}),
            json!({"pub": encode(bare(kind, 1))}),
        ] {
            let header = joined(json!({"typ": "JWT", "kid": "k1"}), member.clone());
            let attack = sign_with_header(algorithm, key(kind, 1), &header, &good_claims());
            // The honest one may say so, too: it is ignored, not refused.
            let honest = sign_with_header(algorithm, key(kind, 0), &header, &good_claims());
            let attacks = [(member.to_string(), attack, SIGNATURE)];
            trial.refuses(route, &honest, &attacks).await;
        }
    }
    let header = r#"{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"}}"#;
    let attack = of_secret(HS256, decode("AAAA"), header, good_claims());
    let attacks = [("a jwk that is a secret".to_owned(), attack, SIGNATURE)];
    trial
        .refuses("own", &own(header, good_claims()), &attacks)
        .await;
}

#[tokio::test]
async fn a_certificate_that_comes_with_the_token_is_never_used() {
    let mut trial = Trial::of(&[
        "named: {algorithms: [ES256], keys: [{kid: k1, file: P256.pem}]}",
        "bare: {algorithms: [ES256], keys: [P256.pem]}",
    ])
    .await;
    let issued = Authority::new().issue("issuer.test");
    let private = EncodingKey::from_ec_pem(issued.key.as_bytes()).unwrap();
    let of = |algorithm: &'static digest::Algorithm| encode(digest::digest(algorithm, &issued.der));
    let (sha1, sha256) = (of(&digest::SHA1_FOR_LEGACY_USE_ONLY), of(&digest::SHA256));
    let x5c = STANDARD.encode(&issued.der);
    for member in [
        json!({"x5c": [x5c]}),
        json!({"x5c": [x5c, x5c]}),
        json!({"x5c": x5c}),
        json!({"x5t": sha1}),
        json!({"x5t#S256": sha256}),
        json!({"x5c": [x5c], "x5t": sha1, "x5t#S256": sha256}),
    ] {
        for (route, kid, verdict) in [
            ("named", "k1", SIGNATURE),
            ("named", sha256.as_str(), UNKNOWN_KEY),
            ("bare", &sha256, SIGNATURE),
        ] {
            let header = joined(json!({"alg": "ES256", "kid": kid}), member.clone());
            let message = format!("{}.{}", encode(header.to_string()), encode(good_claims()));
            let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &private, ES256);
            let attack = format!("{message}.{}", signature.unwrap());
            let header = joined(header, json!({"kid": "k1"}));
            let honest = sign_with_header(ES256, key(Kind::P256, 0), &header, &good_claims());
            let attacks = [(header.to_string(), attack, verdict)];
            trial.refuses(route, &honest, &attacks).await;
        }
    }
}

#[tokio::test]
async fn an_address_in_the_token_is_never_called() {
    let set = |kid: &str| joined(jwk(Kind::Rsa, 1), json!({"kid": kid, "use": "sig"}));
    let body = json!({"keys": [set("k1"), set("k9")]}).to_string();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let trap = App::start(move |_| Answer::Raw(answer.clone().into_bytes())).await;
    let mut trial = Trial::of(&[
        "named: {algorithms: [RS256], keys: [{kid: k1, file: Rsa.pem}]}",
        "bare: {algorithms: [RS256], keys: [Rsa.pem]}",
    ])
    .await;
    let address = format!("{}/jwks.json", trap.url());
    for member in [
        "jku",
        "x5u",
        "iss",
        "jwks_uri",
        "jwk",
        "kid",
        "openid_configuration",
    ] {
        for url in [
            address.clone(),
            address.replace("http://", "//"),
            address.replace("http://", "http://issuer.test@"),
            address.replace("http://", "HTTP://"),
            format!("{}#https://issuer.test/", trap.url()),
        ] {
            for (route, kid, verdict) in [
                ("named", "k1", SIGNATURE),
                ("named", "k9", UNKNOWN_KEY),
                ("bare", "k9", SIGNATURE),
            ] {
                let header = joined(json!({"typ": "JWT", "kid": kid}), json!({member: url}));
                let attack = sign_with_header(RS256, key(Kind::Rsa, 1), &header, &good_claims());
                let verdict = match (route, member) {
                    ("named", "kid") => UNKNOWN_KEY,
                    _ => verdict,
                };
                let header = joined(json!({member: url}), json!({"kid": "k1"}));
                let honest = sign_with_header(RS256, key(Kind::Rsa, 0), &header, &good_claims());
                let attacks = [(header.to_string(), attack, verdict)];
                trial.refuses(route, &honest, &attacks).await;
            }
        }
    }
    let claims = claims(json!({"iss": trap.url(), "jku": address}));
    let header = json!({"kid": "k9"});
    let attack = sign_with_header(RS256, key(Kind::Rsa, 1), &header, &claims.to_string());
    let honest = sign_with_header(RS256, key(Kind::Rsa, 0), &header, &claims.to_string());
    let attacks = [("an issuer of his own".to_owned(), attack, SIGNATURE)];
    trial.refuses("bare", &honest, &attacks).await;
    assert_eq!(trap.connections(), 0, "an address of a token was called");
    // The trap would have worked.
    let reply = Wire::connect(local(trap.port()))
        .await
        .get("/jwks.json", &[])
        .await;
    assert_eq!((reply.status, trap.connections()), (200, 1));
}

/// The order of P-256, and of P-384.
const ORDERS: [&str; 2] = [
    "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf\
     581a0db248b0a77aecec196accc52973",
];

/// A number as DER has it.
fn der_integer(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let mut digits = number[zeros..].to_vec();
    if digits.first().is_none_or(|first| *first >= 0x80) {
        digits.insert(0, 0);
    }
    [&[2, u8::try_from(digits.len()).unwrap()], &digits[..]].concat()
}

/// An ECDSA signature as X.509 and TLS have it.
fn der_signature(r: &[u8], s: &[u8]) -> Vec<u8> {
    let numbers = [der_integer(r), der_integer(s)].concat();
    [&[0x30, u8::try_from(numbers.len()).unwrap()], &numbers[..]].concat()
}

#[tokio::test]
async fn psychic_signatures_of_ecdsa_are_refused() {
    let mut trial = Trial::of(&[
        "p256: {algorithms: [ES256], keys: [P256.pem]}",
        "p384: {algorithms: [ES384], keys: [P384.pem]}",
    ])
    .await;
    for (route, algorithm, kind, order) in [
        ("p256", ES256, Kind::P256, ORDERS[0]),
        ("p384", ES384, Kind::P384, ORDERS[1]),
    ] {
        let honest = sign(algorithm, key(kind, 0), &claims(json!({})));
        let n = hex(order);
        let zero = vec![0; n.len()];
        let mut one = zero.clone();
        *one.last_mut().unwrap() = 1;
        let mut next = n.clone();
        *next.last_mut().unwrap() += 1;
        let most = vec![0xff; n.len()];
        let bare = bare(kind, 0);
        let x = bare[1..=n.len()].to_vec();
        let (_, signature) = split(&honest);
        let (r, s) = signature.split_at(n.len());
        let numbers = [
            ("0", zero),
            ("1", one),
            ("n", n),
            ("n+1", next),
            ("all ones", most),
            ("the key's x", x),
        ];
        let mut attacks = Vec::new();
        for (first, one) in &numbers {
            for (second, other) in &numbers {
                let raw = [&one[..], other].concat();
                let what = format!("r = {first}, s = {second}");
                attacks.push((what.clone(), resigned(&honest, raw), SIGNATURE));
                let der = der_signature(one, other);
                attacks.push((format!("{what}, in DER"), resigned(&honest, der), SIGNATURE));
            }
            for (what, pair) in [("r", [one, s].concat()), ("s", [r, one].concat())] {
                let what = format!("{what} = {first}, the other honest");
                attacks.push((what, resigned(&honest, pair), SIGNATURE));
            }
        }
        trial.refuses(route, &honest, &attacks).await;
    }
}

#[tokio::test]
async fn an_ecdsa_signature_has_one_form() {
    let mut trial = Trial::of(&[
        "p256: {algorithms: [ES256], keys: [P256.pem]}",
        "p384: {algorithms: [ES384], keys: [P384.pem]}",
    ])
    .await;
    for (route, algorithm, kind) in [("p256", ES256, Kind::P256), ("p384", ES384, Kind::P384)] {
        let honest = sign(algorithm, key(kind, 0), &claims(json!({})));
        let (_, signature) = split(&honest);
        let (r, s) = signature.split_at(signature.len() / 2);
        let attacks: Vec<Attack> = [
            ("DER", der_signature(r, s)),
            ("swapped halves", [s, r].concat()),
            (
                "halves turned round",
                r.iter().rev().chain(s.iter().rev()).copied().collect(),
            ),
            ("a zero before each half", [&[0], r, &[0], s].concat()),
            ("a zero in front", [&[0], r, s].concat()),
            ("a zero behind", [r, s, &[0]].concat()),
            ("one byte less", signature[1..].to_vec()),
            (
                "one byte less behind",
                signature[..signature.len() - 1].to_vec(),
            ),
            ("one half", r.to_vec()),
            ("twice", [r, s, r, s].concat()),
            ("nothing", Vec::new()),
            ("one zero", vec![0]),
            ("a point's mark in front", [&[4], r, s].concat()),
            ("its own text", encode(&signature).into_bytes()),
        ]
        .into_iter()
        .map(|(what, bytes)| (what.to_owned(), resigned(&honest, bytes), SIGNATURE))
        .collect();
        trial.refuses(route, &honest, &attacks).await;
    }
}

#[tokio::test]
async fn an_rsa_signature_is_as_long_as_its_key_and_below_its_modulus() {
    let mut trial = Trial::of(&[
        "rs256: {algorithms: [RS256], keys: [Rsa.pem]}",
        "ps256: {algorithms: [PS256], keys: [Rsa.pem]}",
    ])
    .await;
    for (route, algorithm) in [("rs256", RS256), ("ps256", PS256)] {
        // One of about 256 begins with a zero.
        let honest = (0..)
            .map(|nth: u32| sign(algorithm, key(Kind::Rsa, 0), &claims(json!({"jti": nth}))))
            .find(|token| split(token).1[0] == 0)
            .unwrap();
        let (_, signature) = split(&honest);
        let n = modulus(0);
        let mut one = vec![0; 256];
        one[255] = 1;
        let mut last = n.clone();
        *last.last_mut().unwrap() -= 1;
        let attacks: Vec<Attack> = [
            ("its leading zero stripped", signature[1..].to_vec()),
            ("a zero in front", [&[0], &signature[..]].concat()),
            ("a zero behind", [&signature[..], &[0]].concat()),
            ("one byte less behind", signature[..255].to_vec()),
            ("the modulus added", sum(&signature, &n)),
            ("zero", vec![0; 256]),
            ("one zero", vec![0]),
            ("nothing", Vec::new()),
            ("one", one),
            ("the modulus", n.clone()),
            ("the modulus less one", last),
            ("all ones", vec![0xff; 256]),
            ("twice", [&signature[..], &signature].concat()),
            ("half", signature[..128].to_vec()),
            (
                "as of a key of 4096 bits",
                [vec![0; 256], signature.clone()].concat(),
            ),
            ("turned round", signature.iter().rev().copied().collect()),
            ("its own text", encode(&signature).into_bytes()),
        ]
        .into_iter()
        .map(|(what, bytes)| (what.to_owned(), resigned(&honest, bytes), SIGNATURE))
        .collect();
        trial.refuses(route, &honest, &attacks).await;
    }
}

#[tokio::test]
async fn an_ed25519_signature_has_one_form() {
    let mut trial = Trial::of(&["ed25519: {algorithms: [EdDSA], keys: [Ed25519.pem]}"]).await;
    let honest = sign(EdDSA, key(Kind::Ed25519, 0), &claims(json!({})));
    let (_, signature) = split(&honest);
    let (r, s) = signature.split_at(32);
    let mut greater: Vec<u8> = s.iter().rev().copied().collect();
    let order = hex("1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed");
    let mut malleable = Vec::new();
    // The group's order may be added until the number does not fit.
    for nth in 1..=7 {
        greater = sum(&greater, &order);
        let s: Vec<u8> = greater.iter().rev().copied().collect();
        malleable.push((format!("s and {nth} times the order"), [r, &s].concat()));
    }
    // The neutral element, and a point of small order, as R and as A.
    let neutral = hex("0100000000000000000000000000000000000000000000000000000000000000");
    let small = hex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a");
    let zero = vec![0; 32];
    let attacks: Vec<Attack> = malleable
        .into_iter()
        .chain(
            [
                ("zero", vec![0; 64]),
                ("nothing", Vec::new()),
                ("R neutral, s zero", [&neutral[..], &zero].concat()),
                ("R of small order, s zero", [&small[..], &zero].concat()),
                ("R neutral, s honest", [&neutral, s].concat()),
                ("R honest, s zero", [r, &zero].concat()),
                ("R honest, s the order", [r, &order].concat()),
                ("R the key", [&bare(Kind::Ed25519, 0)[..], s].concat()),
                ("all ones", vec![0xff; 64]),
                ("swapped halves", [s, r].concat()),
                ("one byte less", signature[..63].to_vec()),
                ("a zero behind", [r, s, &[0]].concat()),
                ("a zero in front", [&[0], r, s].concat()),
                ("twice", [r, s, r, s].concat()),
                ("DER", der_signature(r, s)),
            ]
            .map(|(what, bytes)| (what.to_owned(), bytes)),
        )
        .map(|(what, bytes)| (what, resigned(&honest, bytes), SIGNATURE))
        .collect();
    trial.refuses("ed25519", &honest, &attacks).await;
}

#[tokio::test]
async fn a_mac_that_is_cut_is_refused() {
    let mut trial = Trial::of(&[OWN]).await;
    let honest = token(json!({}));
    let (_, mac) = split(&honest);
    let mut attacks: Vec<Attack> = (0..mac.len())
        .map(|length| {
            let what = format!("the first {length} bytes");
            (what, resigned(&honest, &mac[..length]), SIGNATURE)
        })
        .collect();
    let mut flipped = mac.clone();
    flipped[31] ^= 1;
    for (what, bytes) in [
        ("one bit changed", flipped),
        ("a zero behind", [&mac[..], &[0]].concat()),
        ("twice", [&mac[..], &mac].concat()),
        ("zero", vec![0; 32]),
        ("its own text", encode(&mac).into_bytes()),
        (
            "its digits",
            mac.iter()
                .flat_map(|byte| format!("{byte:02x}").into_bytes())
                .collect(),
        ),
    ] {
        attacks.push((what.to_owned(), resigned(&honest, bytes), SIGNATURE));
    }
    trial.refuses("own", &honest, &attacks).await;
}

#[tokio::test]
async fn a_blank_or_short_secret_is_refused_before_anybody_guesses_it() {
    let folder = Folder::new();
    folder.write("empty", "");
    folder.write("blank", "\n".repeat(64));
    folder.write("line", format!("{}\n", "k".repeat(40)));
    let set = |k: String| json!({"keys": [{"kty": "oct", "k": k, "alg": "HS256"}]}).to_string();
    folder.write("empty.json", set(String::new()));
    folder.write("blank.json", set(encode(" ".repeat(64))));
    folder.write("short.json", set(encode("k".repeat(31))));
    folder.write("long.json", set(encode("k".repeat(32))));
    let short = |length| format!("algorithms: [HS256], secret: {}", "k".repeat(length));
    for (rest, accepted) in [
        ("algorithms: [HS256], secret: ''".to_owned(), false),
        ("algorithms: [HS256], secret:".to_owned(), false),
        ("algorithms: [HS256], secret: ' '".to_owned(), false),
        (
            format!("algorithms: [HS256], secret: '{}'", " ".repeat(64)),
            false,
        ),
        (
            "algorithms: [HS256], secret: '', weak_secret: allow".to_owned(),
            false,
        ),
        (
            format!(
                "algorithms: [HS256], secret: '{}', weak_secret: allow",
                " ".repeat(64)
            ),
            false,
        ),
        (
            "algorithms: [HS256], secret: \"\\t\\n\", weak_secret: allow".to_owned(),
            false,
        ),
        ("algorithms: [HS256], secret: '${EMPTY}'".to_owned(), false),
        (
            "algorithms: [HS256], secret: '${EMPTY}', weak_secret: allow".to_owned(),
            false,
        ),
        (
            "algorithms: [HS256], secret: '${EMPTY:-}', weak_secret: allow".to_owned(),
            false,
        ),
        (
            "algorithms: [HS256], secret: '${file:empty}', weak_secret: allow".to_owned(),
            false,
        ),
        (
            "algorithms: [HS256], secret: '${file:blank}', weak_secret: allow".to_owned(),
            false,
        ),
        (
            "algorithms: [HS256], secret: '${file:line}'".to_owned(),
            true,
        ),
        ("algorithms: [HS256]".to_owned(), false),
        (short(1), false),
        (short(31), false),
        (short(32), true),
        (short(32).replace("[HS256]", "[HS384]"), false),
        (short(48).replace("[HS256]", "[HS384]"), true),
        (short(48).replace("[HS256]", "[HS256, HS512]"), false),
        (short(64).replace("[HS256]", "[HS256, HS512]"), true),
        (format!("{}, weak_secret: allow", short(1)), true),
        ("jwks: empty.json".to_owned(), false),
        ("jwks: empty.json, weak_secret: allow".to_owned(), false),
        ("jwks: blank.json, weak_secret: allow".to_owned(), false),
        ("jwks: short.json".to_owned(), false),
        ("jwks: long.json".to_owned(), true),
    ] {
        let text = format!(
            "jwt: {{a: {{{rest}}}}}\nroutes: [{{path: /*, respond: {{status: 200, body: in}}, auth: a}}]\n"
        );
        folder.write("gateway.yaml", config(&text, &[]));
        let output = run_to_end(&folder, &["check", "-c", "gateway.yaml"], &[("EMPTY", "")]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = if accepted { 0 } else { 2 };
        assert_eq!(output.status.code(), Some(code), "{rest}: {said}");
        let mut errors = said.lines().filter(|line| !line.starts_with("warning: "));
        let is_said = errors.any(|line| line.starts_with("gateway.yaml:"));
        assert_eq!(is_said, !accepted, "{rest}: {said}");
    }
}

#[tokio::test]
async fn a_token_of_a_blank_or_common_secret_is_refused() {
    let mut trial = Trial::of(&[OWN]).await;
    let honest = own(HEADER, good_claims());
    let line = format!("{}\n", own_secret());
    let short = &own_secret()[..own_secret().len() - 1];
    let padded = [own_secret().as_bytes(), &[0]].concat();
    let mut secrets = [
        "",
        " ",
        "\n",
        "\0",
        "secret",
        "password",
        "changeme",
        "key",
        "your-256-bit-secret",
        "null",
        "undefined",
        "none",
        "own",
        "@own",
        "HS256",
        "${SECRET}",
        &line,
        short,
    ]
    .map(|secret| secret.as_bytes().to_vec())
    .to_vec();
    secrets.push(vec![0; 32]);
    secrets.push(vec![0; 64]);
    secrets.push(encode(own_secret()).into_bytes());
    let attacks: Vec<Attack> = secrets
        .into_iter()
        // The secret is longer than a block of SHA-256, so HMAC hashes it (RFC 2104 section 2), and
        // a zero behind it makes another key.
        .chain([padded])
        .map(|secret| {
            let what = format!("the secret {:?}", String::from_utf8_lossy(&secret));
            (
                what,
                of_secret(HS256, secret, HEADER, good_claims()),
                SIGNATURE,
            )
        })
        .collect();
    trial.refuses("own", &honest, &attacks).await;
}

#[tokio::test]
async fn a_member_that_stands_twice_is_refused() {
    let mut trial = Trial::of(&[OWN]).await;
    let honest = own(
        r#"{"\u0061lg":"HS256","ty\u0070":"JWT"}"#,
        claims_with(r#""\u0073ub":"u-1","x":{"sub":"a"},"y":[{"sub":"b"}],"Sub":"c""#),
    );
    let headers = [
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","alg":"none"}"#,
        r#"{"alg":"HS256","\u0061lg":"none"}"#,
        r#"{"\u0061\u006c\u0067":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","kid":"a","kid":"b"}"#,
        r#"{"alg":"HS256","typ":"JWT","t\u0079p":"JWT"}"#,
        r#"{"alg":"HS256","x":1,"x":1}"#,
        r#"{"alg":"HS256","jwk":{"k":"a","k":"b"}}"#,
    ];
    let exp = now() + 600;
    let payloads = [
        format!(r#"{{"exp":{exp},"sub":"a","sub":"b"}}"#),
        format!(r#"{{"exp":{exp},"sub":"a","sub":"a"}}"#),
        format!(r#"{{"exp":{exp},"sub":"a","\u0073ub":"b"}}"#),
        format!(r#"{{"exp":{exp},"su\u0062":"a","s\u0075b":"b"}}"#),
        format!(r#"{{"exp":1,"exp":{exp}}}"#),
        format!(r#"{{"exp":{exp},"exp":1}}"#),
        format!(r#"{{"\u0065xp":1,"exp":{exp}}}"#),
        format!(r#"{{"exp":{exp},"realm_access":{{"roles":["a"],"roles":["admin"]}}}}"#),
        format!(r#"{{"exp":{exp},"x":[[{{"a":1,"\u0061":2}}]]}}"#),
        format!(r#"{{"exp":{exp},"":1,"":2}}"#),
    ];
    let attacks: Vec<Attack> = headers
        .into_iter()
        .map(|header| {
            (
                format!("the header {header}"),
                own(header, good_claims()),
                FORM,
            )
        })
        .chain(payloads.into_iter().map(|payload| {
            let token = own(HEADER, &payload);
            (format!("the claims {payload}"), token, FORM)
        }))
        .collect();
    trial.refuses("own", &honest, &attacks).await;
}

#[tokio::test]
async fn a_text_that_two_readers_read_differently_is_refused() {
    let mut trial = Trial::of(&[OWN]).await;
    let good = good_claims();
    let honest = own(" {\t\"alg\" :\r\n\"HS256\" } ", format!("\n {good} \r\n"));
    let bytes = |text: &[u8]| {
        let exp = format!(",\"exp\":{}}}", now() + 600);
        [b"{\"sub\":\"", text, b"\"", exp.as_bytes()].concat()
    };
    let utf16 = |text: &str| {
        text.encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect::<Vec<_>>()
    };
    let payloads: Vec<(&str, Vec<u8>)> = vec![
        ("a byte order mark", format!("\u{feff}{good}").into()),
        ("UTF-16", utf16(&good)),
        ("bytes that are not UTF-8", bytes(b"\xff\xfe")),
        ("an overlong form", bytes(b"\xc0\xaf")),
        ("a surrogate in UTF-8", bytes(b"\xed\xa0\x80")),
        ("half a surrogate pair", bytes(br"\ud800")),
        ("a control character", bytes(b"a\nb")),
        ("an unknown escape", bytes(br"\x41")),
        ("a NUL behind it", format!("{good}\0").into()),
        ("a second value", format!("{good}{good}").into()),
        ("a comment", format!("/* */{good}").into()),
        ("a comma too much", good.replace('}', ",}").into()),
        ("simple quotes", good.replace('"', "'").into()),
        (
            "names without quotes",
            good.replace("\"exp\"", "exp").into(),
        ),
        ("a list around it", format!("[{good}]").into()),
        (
            "a text of it",
            Value::from(good.as_str()).to_string().into(),
        ),
        ("half of it", good[..good.len() / 2].into()),
        ("a list", b"[]".into()),
        ("null", b"null".into()),
        ("a number", b"1".into()),
        ("nothing", b"".into()),
        ("white space", b" ".into()),
        ("YAML", format!("sub: u-1\nexp: {}\n", now() + 600).into()),
        ("a form", format!("sub=u-1&exp={}", now() + 600).into()),
    ];
    let mut attacks: Vec<Attack> = payloads
        .into_iter()
        .map(|(what, payload)| (format!("in the claims: {what}"), own(HEADER, payload), FORM))
        .collect();
    for header in [
        "\u{feff}{\"alg\":\"HS256\"}",
        "{\"alg\":\"HS256\"}\0",
        "{\"alg\":\"HS256\"}{}",
        "{\"alg\":\"HS256\",}",
        "{'alg':'HS256'}",
        "{alg:\"HS256\"}",
        "{\"alg\":\"HS256\"",
        "alg=HS256",
    ] {
        attacks.push((format!("the header {header:?}"), own(header, &good), FORM));
    }
    trial.refuses("own", &honest, &attacks).await;
}

#[tokio::test]
async fn nested_bombs_are_refused_before_and_behind_the_signature() {
    let folder = Folder::new();
    let verifiers = [OWN, "other: {algorithms: [HS256], secret: '@other'}"];
    // With two verifiers the claims are read before the signature, to find the issuer.
    let mut trial = Trial::start(folder, &verifiers, &[("either", "{jwt: [own, other]}")]).await;
    let lists = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let maps = |levels| format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
    let member = |value: &str| claims_with(&format!("\"x\":{value}"));
    let header = |value: &str| format!(r#"{{"alg":"HS256","x":{value}}}"#);
    // The outermost object is one of the 32.
    let wide = format!("[{}[]]", "[],".repeat(900));
    for value in [lists(31), maps(31), wide] {
        for route in ["own", "either"] {
            let token = own(HEADER, member(&value));
            trial.allows("32 levels of claims", route, &token).await;
            let token = own(&header(&value), good_claims());
            trial.allows("32 levels of a header", route, &token).await;
        }
    }
    let honest = own(HEADER, good_claims());
    for (what, value, verdict) in [
        ("33 levels of lists", lists(32), FORM),
        ("33 levels of objects", maps(32), FORM),
        ("129 levels", lists(128), FORM),
        ("5,900 levels of lists", lists(5_900), FORM),
        ("1,900 levels of objects", maps(1_900), FORM),
        ("10,000 levels that nobody closes", "[".repeat(10_000), FORM),
        (
            "2,400 objects that nobody closes",
            r#"{"a":"#.repeat(2_400),
            FORM,
        ),
        ("10,000 levels", lists(10_000), TOO_LONG),
    ] {
        for route in ["own", "either"] {
            let attacks = [
                (
                    format!("{what} of claims"),
                    own(HEADER, member(&value)),
                    verdict,
                ),
                (
                    format!("{what} in a header"),
                    own(&header(&value), good_claims()),
                    verdict,
                ),
            ];
            trial.refuses(route, &honest, &attacks).await;
        }
        // From somebody without a key: a lone verifier never reads the claims.
        let unread = if verdict == FORM { SIGNATURE } else { verdict };
        let forged = |header: &str, claims: &str| of_secret(HS256, "forged", header, claims);
        let claims = forged(HEADER, &member(&value));
        let headers = forged(&header(&value), &good_claims());
        let of = |what: &str, token: &str, verdict| (what.to_owned(), token.to_owned(), verdict);
        let attacks = [of(what, &claims, unread), of(what, &headers, verdict)];
        trial.refuses("own", &honest, &attacks).await;
        let attacks = [of(what, &claims, verdict), of(what, &headers, verdict)];
        trial.refuses("either", &honest, &attacks).await;
    }
}

#[tokio::test]
async fn numbers_that_no_double_holds_are_refused() {
    let mut trial = Trial::of(&[OWN]).await;
    let digits = "9".repeat(10_000);
    for value in [
        "1e400",
        "-1e400",
        "1e99999999999",
        &digits,
        &format!("-{digits}.5"),
    ] {
        let attacks: Vec<Attack> = [
            (HEADER, claims_with(&format!("\"x\":{value}"))),
            (HEADER, claims_with(&format!("\"x\":[{{\"y\":{value}}}]"))),
            (HEADER, format!("{{\"exp\":{value}}}")),
            (&format!(r#"{{"alg":"HS256","x":{value}}}"#), good_claims()),
        ]
        .into_iter()
        .map(|(header, claims)| (format!("{value:.20}"), own(header, claims), FORM))
        .collect();
        let honest = own(HEADER, claims_with("\"x\":[1e300,-1e300,1e-400,0.1e1]"));
        trial.refuses("own", &honest, &attacks).await;
    }
    let nearly = own(HEADER, claims_with(&format!("\"x\":{}", "9".repeat(300))));
    trial.allows("300 digits", "own", &nearly).await;
}

/// A good token of exactly this many bytes.
fn of_length(length: usize) -> String {
    let header = r#"{"alg":"HS256"}"#;
    let rest = encode(header).len() + 43 + 2;
    let bytes = (length - rest) * 3 / 4;
    let frame = claims_with(r#""x":"""#);
    let claims = claims_with(&format!("\"x\":\"{}\"", "a".repeat(bytes - frame.len())));
    let token = own(header, claims);
    assert_eq!(token.len(), length);
    token
}

#[tokio::test]
async fn a_token_is_read_up_to_16_kib_and_no_further() {
    let mut trial = Trial::of(&[
        OWN,
        "cookie: {algorithms: [HS256], secret: '@own', from: 'cookie:at'}",
    ])
    .await;
    let honest = of_length(MAX_BYTES);
    let attacks: Vec<Attack> = [
        ("one byte more", of_length(MAX_BYTES + 1)),
        ("20 KiB", of_length(20 * 1024)),
        (
            "a long signature",
            format!("{}.{}", split(&token(json!({}))).0, "A".repeat(MAX_BYTES)),
        ),
        ("one letter again and again", "A".repeat(MAX_BYTES + 1)),
        ("dots", ".".repeat(MAX_BYTES + 1)),
    ]
    .map(|(what, token)| (what.to_owned(), token, TOO_LONG))
    .into();
    trial.refuses("own", &honest, &attacks).await;
    for (what, token, verdict) in attacks {
        let honest = format!("at={honest}");
        let attack = format!("at={token}");
        trial
            .judge(&what, "/cookie/x", &[("Cookie", &attack)], verdict)
            .await;
        trial
            .judge(&what, "/cookie/x", &[("Cookie", &honest)], Allowed)
            .await;
    }
}

#[tokio::test]
async fn a_token_of_a_mebibyte_costs_its_own_connection_alone() {
    let mut trial = Trial::of(&[OWN]).await;
    let honest = token(json!({}));
    trial.allows("the honest token", "own", &honest).await;
    for token in ["A".repeat(1 << 20), of_length(1 << 20), ".".repeat(1 << 20)] {
        let mut wire = trial.gateway.connect().await;
        let value = format!("Bearer {token}");
        let bytes = request("GET", "/own/x", &[("Authorization", &value)], "");
        // The gateway need not take all of it.
        wire.try_send(bytes).await.ok();
        let reply = wire.reply().await;
        assert_eq!(reply.status, 431, "{}", reply.text());
        assert_eq!(reply.field("www-authenticate"), None);
        wire.closed().await;
        trial
            .allows("a connection from before", "own", &honest)
            .await;
        trial.wire = trial.gateway.connect().await;
        trial.allows("a new connection", "own", &honest).await;
    }
}

#[tokio::test]
async fn a_token_has_three_parts() {
    let mut trial = Trial::of(&[OWN]).await;
    let honest = token(json!({}));
    let (header, rest) = honest.split_once('.').unwrap();
    let (payload, signature) = rest.split_once('.').unwrap();
    let dots = ".".repeat(10_000);
    let attacks: Vec<Attack> = [
        ("no dot", honest.replace('.', ""), FORM),
        ("two parts", format!("{header}.{payload}"), FORM),
        ("four parts", format!("{honest}.{signature}"), FORM),
        ("a dot behind", format!("{honest}."), FORM),
        ("a dot in front", format!(".{honest}"), FORM),
        (
            "a dot twice",
            format!("{header}..{payload}.{signature}"),
            FORM,
        ),
        ("one dot", ".".to_owned(), FORM),
        ("two dots", "..".to_owned(), FORM),
        ("three dots", "...".to_owned(), FORM),
        ("ten thousand dots", dots.clone(), FORM),
        (
            "dots in the middle",
            format!("{header}.{dots}.{signature}"),
            FORM,
        ),
        ("no header", format!(".{payload}.{signature}"), FORM),
        ("no payload", format!("{header}..{signature}"), SIGNATURE),
        (
            "no payload, signed so",
            sealed(HS256, own_secret(), &format!("{header}.")),
            FORM,
        ),
        (
            "no header, signed so",
            sealed(HS256, own_secret(), &format!(".{payload}")),
            FORM,
        ),
        ("no signature", format!("{header}.{payload}."), SIGNATURE),
        ("the header alone", format!("{header}.."), SIGNATURE),
        ("twice", format!("{honest}.{honest}"), FORM),
    ]
    .map(|(what, token, verdict)| (what.to_owned(), token, verdict))
    .into();
    trial.refuses("own", &honest, &attacks).await;
}

#[tokio::test]
async fn base64_has_one_alphabet_and_no_padding() {
    let mut trial = Trial::of(&[OWN]).await;
    // Texts whose base64url has both letters that base64 writes in another way.
    let header = encode(r#"{"alg":"HS256","x":"~?>>>???"}"#);
    let payload = encode(claims_with(r#""x":"~?>>>???~~~""#));
    let message = format!("{header}.{payload}");
    let honest = (0..)
        .map(|nth: u32| {
            let payload = encode(claims_with(&format!(r#""jti":{nth},"x":">>>???~~~""#)));
            sealed(HS256, own_secret(), &format!("{header}.{payload}"))
        })
        .find(|token| token.rsplit_once('.').unwrap().1.contains(['-', '_']))
        .unwrap();
    let standard = |text: &str| text.replace('-', "+").replace('_', "/");
    for part in [&header, &payload] {
        assert_ne!(standard(part), **part);
    }
    let seal = |message: String| sealed(HS256, own_secret(), &message);
    let (signed, signature) = honest.rsplit_once('.').unwrap();
    let attacks: Vec<Attack> = [
        ("the standard alphabet", standard(&honest), FORM),
        (
            "the standard alphabet in the signature",
            format!("{signed}.{}", standard(signature)),
            FORM,
        ),
        (
            "the header's, signed so",
            seal(format!("{}.{payload}", standard(&header))),
            FORM,
        ),
        (
            "the payload's, signed so",
            seal(format!("{header}.{}", standard(&payload))),
            FORM,
        ),
        ("padding behind", format!("{honest}="), FORM),
        ("more padding behind", format!("{honest}=="), FORM),
        (
            "padding of the header",
            seal(format!("{header}=.{payload}")),
            Malformed,
        ),
        (
            "padding of the payload",
            seal(format!("{header}.{payload}=")),
            Malformed,
        ),
        ("a space", honest.replacen('.', ". ", 1), Malformed),
        ("a tab", honest.replacen('.', ".\t", 1), Malformed),
        (
            "a percent escape",
            honest.replacen('.', "%2E", 1),
            Malformed,
        ),
        ("a comma", honest.replacen('.', ",", 1), Malformed),
        ("quotes", format!("\"{honest}\""), Malformed),
        (
            "a letter that is not ASCII",
            format!("{honest}\u{e9}"),
            Malformed,
        ),
        ("a colon in front", format!(":{honest}"), Malformed),
        ("a tilde behind", format!("{honest}~"), FORM),
        (
            "a tilde in the header",
            seal(format!("{header}~.{payload}")),
            FORM,
        ),
        (
            "a tilde in the payload",
            seal(format!("{header}.{payload}~")),
            FORM,
        ),
        (
            "a letter too much in the signature",
            format!("{honest}AA"),
            FORM,
        ),
        (
            "hexadecimal digits",
            {
                let digits = decode(signature)
                    .iter()
                    .fold(String::new(), |all, byte| all + &format!("{byte:02x}"));
                format!("{signed}.{digits}")
            },
            SIGNATURE,
        ),
    ]
    .map(|(what, token, verdict)| (what.to_owned(), token, verdict))
    .into();
    trial.refuses("own", &honest, &attacks).await;
    trial
        .allows("the same letters, signed", "own", &seal(message))
        .await;
    let value = format!("  Bearer   {honest}  ");
    let fields = [("Authorization", value.as_str())];
    trial
        .judge("space around it", "/own/x", &fields, Allowed)
        .await;
}

/// The other spellings of the last letter that decode to the same bytes, where a reader lets
/// them.
fn with_spare_bits(text: &str) -> Vec<String> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let part = text.rsplit('.').next().unwrap();
    let spare = part.len() * 6 % 8;
    let (front, last) = text.split_at(text.len() - 1);
    let value = LETTERS
        .iter()
        .position(|letter| *letter == last.as_bytes()[0])
        .unwrap();
    (1..1 << spare)
        .map(|bits| format!("{front}{}", char::from(LETTERS[value | bits])))
        .collect()
}

#[tokio::test]
async fn spare_bits_of_base64_are_zero() {
    let mut trial = Trial::of(&[
        OWN,
        "hs512: {algorithms: [HS512], secret: '@own'}",
        "rsa: {algorithms: [RS256], keys: [Rsa.pem]}",
        "p256: {algorithms: [ES256], keys: [P256.pem]}",
        "ed25519: {algorithms: [EdDSA], keys: [Ed25519.pem]}",
    ])
    .await;
    for (route, algorithm, kind, spellings) in [
        ("own", HS256, Kind::Secret, 3),
        ("hs512", HS512, Kind::Secret, 15),
        ("rsa", RS256, Kind::Rsa, 15),
        ("p256", ES256, Kind::P256, 15),
        ("ed25519", EdDSA, Kind::Ed25519, 15),
    ] {
        // A remembered token is not found by another spelling either: the honest one comes first.
        let honest = sign(algorithm, key(kind, 0), &claims(json!({})));
        let attacks: Vec<Attack> = with_spare_bits(&honest)
            .into_iter()
            .map(|token| ("spare bits of the signature".to_owned(), token, FORM))
            .collect();
        let (_, signature) = honest.rsplit_once('.').unwrap();
        assert_eq!(with_spare_bits(signature).len(), spellings);
        assert_eq!(attacks.len(), with_spare_bits(&honest).len());
        trial.refuses(route, &honest, &attacks).await;
    }
    // 16 bytes, and a length that gives as many spare bits.
    let header = encode(r#"{"alg":"HS256" }"#);
    let mut payload = good_claims();
    while payload.len() % 3 != 1 {
        payload.push(' ');
    }
    let payload = encode(payload);
    let seal =
        |header: &str, payload: &str| sealed(HS256, own_secret(), &format!("{header}.{payload}"));
    let attacks: Vec<Attack> = with_spare_bits(&header)
        .iter()
        .map(|header| {
            (
                "spare bits of the header".to_owned(),
                seal(header, &payload),
                FORM,
            )
        })
        .chain(with_spare_bits(&payload).iter().map(|payload| {
            (
                "spare bits of the payload".to_owned(),
                seal(&header, payload),
                FORM,
            )
        }))
        .collect();
    assert_eq!(attacks.len(), 30);
    trial
        .refuses("own", &seal(&header, &payload), &attacks)
        .await;
}

#[tokio::test]
async fn an_extension_that_is_critical_is_refused() {
    let mut trial = Trial::of(&[OWN]).await;
    let mut attacks: Vec<Attack> = [
        r#""crit":["x"],"x":1"#,
        r#""crit":["http://example.com/UNDEFINED"],"http://example.com/UNDEFINED":true"#,
        r#""crit":["exp"],"exp":1"#,
        r#""crit":["alg"]"#,
        r#""crit":["b64"],"b64":true"#,
        r#""crit":["b64"],"b64":false"#,
        r#""crit":["b64"]"#,
        r#""crit":[]"#,
        r#""crit":null"#,
        r#""crit":"b64""#,
        r#""crit":{}"#,
        r#""crit":[1]"#,
        r#""crit":false"#,
        r#""\u0063rit":["x"]"#,
        r#""b64":false"#,
        r#""b64":null"#,
        r#""b64":"false""#,
        r#""b64":0"#,
        r#""\u00624":1,"b\u00364":false"#,
    ]
    .map(|members| {
        let header = format!(r#"{{"alg":"HS256",{members}}}"#);
        (
            format!("the header {header}"),
            own(&header, good_claims()),
            CRITICAL,
        )
    })
    .into();
    // RFC 7797: the payload stands there as it is, and the signature covers it so.
    let header = encode(r#"{"alg":"HS256","b64":false,"crit":["b64"]}"#);
    for (payload, verdict) in [
        ("plain", CRITICAL),
        ("", CRITICAL),
        (&good_claims(), Malformed),
    ] {
        let token = sealed(HS256, own_secret(), &format!("{header}.{payload}"));
        attacks.push((format!("the payload {payload:?} as it is"), token, verdict));
    }
    let honest = own(
        r#"{"alg":"HS256","b64":true,"Crit":["x"],"x":{"crit":["x"]}}"#,
        good_claims(),
    );
    trial.refuses("own", &honest, &attacks).await;
}

#[tokio::test]
async fn an_encrypted_a_detached_or_a_wrapped_token_is_refused() {
    let mut trial = Trial::of(&[OWN]).await;
    let honest = token(json!({}));
    let (header, rest) = honest.split_once('.').unwrap();
    let (payload, signature) = rest.split_once('.').unwrap();
    let flattened = json!({"protected": header, "payload": payload, "signature": signature});
    let part = json!({"protected": header, "signature": signature});
    let general = json!({"payload": payload, "signatures": [part]});
    let jwe = |header: &str| format!("{}.{}.AAAA.{payload}.AAAA", encode(header), encode("key"));
    let direct = format!(
        "{}..AAAA.{payload}.AAAA",
        encode(r#"{"alg":"dir","enc":"A256GCM"}"#)
    );
    let nested = r#"{"alg":"HS256","cty":"JWT"}"#;
    // A deflate stream of one stored block: what is not inflated is not JSON.
    let good = good_claims();
    let length = u16::try_from(good.len()).unwrap();
    let stored = [
        &[1],
        &length.to_le_bytes()[..],
        &(!length).to_le_bytes(),
        good.as_bytes(),
    ]
    .concat();
    let attacks: Vec<Attack> = [
        ("a JWE", jwe(r#"{"alg":"RSA-OAEP","enc":"A256GCM"}"#), FORM),
        (
            "a JWE under our algorithm",
            jwe(r#"{"alg":"HS256","enc":"A256GCM"}"#),
            FORM,
        ),
        (
            "a JWE of a password",
            jwe(r#"{"alg":"PBES2-HS256+A128KW","p2c":2147483647,"enc":"A128GCM"}"#),
            FORM,
        ),
        ("a JWE with the key itself", direct, FORM),
        (
            "a flattened JSON serialization",
            flattened.to_string(),
            Malformed,
        ),
        (
            "a general JSON serialization",
            general.to_string(),
            Malformed,
        ),
        (
            "the former in base64url",
            encode(flattened.to_string()),
            FORM,
        ),
        ("the latter in base64url", encode(general.to_string()), FORM),
        (
            "a detached payload",
            format!("{header}..{signature}"),
            SIGNATURE,
        ),
        (
            "an honest token in a stranger's",
            of_secret(HS256, "stranger", nested, &honest),
            SIGNATURE,
        ),
        (
            "an honest token in an honest one",
            own(nested, &honest),
            FORM,
        ),
        (
            "the same as a JSON text",
            own(nested, Value::from(honest.as_str()).to_string()),
            FORM,
        ),
        (
            "an unsecured token in an honest one",
            own(
                nested,
                format!("{}.{payload}.", encode(r#"{"alg":"none"}"#)),
            ),
            FORM,
        ),
        (
            "deflated claims",
            own(r#"{"alg":"HS256","zip":"DEF"}"#, stored),
            FORM,
        ),
        ("the whole in base64url", encode(&honest), FORM),
        ("a PASETO", format!("v4.public.{payload}{signature}"), FORM),
        ("SD-JWT", format!("{honest}~"), FORM),
    ]
    .map(|(what, token, verdict)| (what.to_owned(), token, verdict))
    .into();
    trial.refuses("own", &honest, &attacks).await;
}

#[tokio::test]
async fn a_date_that_is_no_date_is_refused() {
    let mut trial = Trial::of(&[OWN]).await;
    let later = now() + 600;
    let texts = [
        format!("\"{later}\""),
        "\"\"".to_owned(),
        "\"never\"".to_owned(),
        "\"2099-01-01T00:00:00Z\"".to_owned(),
        "\"NaN\"".to_owned(),
        "true".to_owned(),
        "false".to_owned(),
        "null".to_owned(),
        format!("[{later}]"),
        "[]".to_owned(),
        format!("{{\"$date\":{later}}}"),
        "9007199254740992".to_owned(),
        "9007199254740993".to_owned(),
        "9223372036854775807".to_owned(),
        "9223372036854775808".to_owned(),
        "18446744073709551615".to_owned(),
        "18446744073709551616".to_owned(),
        "-9223372036854775808".to_owned(),
        "-9223372036854775809".to_owned(),
        "1e16".to_owned(),
        "1e308".to_owned(),
        "-1e308".to_owned(),
    ];
    let mut attacks = Vec::new();
    for (name, verdict) in [("exp", CLAIM_EXP), ("nbf", CLAIM_NBF), ("iat", CLAIM_IAT)] {
        for text in &texts {
            let payload = match name {
                "exp" => format!("{{\"exp\":{text}}}"),
                _ => claims_with(&format!("\"{name}\":{text}")),
            };
            attacks.push((payload.clone(), own(HEADER, &payload), verdict));
        }
        // These are not even JSON.
        for text in [
            "NaN",
            "Infinity",
            "-Infinity",
            "1e400",
            "0x7fffffffffff",
            "+9",
            "09",
            "9_9",
            "",
        ] {
            let payload = format!("{{\"{name}\":{text},\"x\":1}}");
            attacks.push((payload.clone(), own(HEADER, &payload), FORM));
        }
    }
    for (payload, verdict) in [
        ("{}".to_owned(), CLAIM_EXP),
        (format!("{{\"Exp\":{later}}}"), CLAIM_EXP),
        (format!("{{\"exp \":{later}}}"), CLAIM_EXP),
        (
            format!("{{\"expires\":{later},\"x\":{{\"exp\":{later}}}}}"),
            CLAIM_EXP,
        ),
        ("{\"exp\":0}".to_owned(), EXPIRED),
        ("{\"exp\":-0.0}".to_owned(), EXPIRED),
        ("{\"exp\":-1}".to_owned(), EXPIRED),
        (format!("{{\"exp\":-{later}}}"), EXPIRED),
        ("{\"exp\":-9007199254740991}".to_owned(), EXPIRED),
        ("{\"exp\":1e-400}".to_owned(), EXPIRED),
        ("{\"exp\":4294967295e-1}".to_owned(), EXPIRED),
        (format!("{{\"exp\":{}}}", now() - 60), EXPIRED),
        (format!("{{\"exp\":{}.9}}", now() - 60), EXPIRED),
    ] {
        attacks.push((payload.clone(), own(HEADER, &payload), verdict));
    }
    let honest = own(
        HEADER,
        format!("{{\"exp\":{later}.5,\"nbf\":-1,\"iat\":0}}"),
    );
    trial.refuses("own", &honest, &attacks).await;
    for exp in ["9007199254740991", "9e15", "9007199254740991.0"] {
        let far = own(HEADER, format!("{{\"exp\":{exp}}}"));
        trial.allows("a date far away", "own", &far).await;
    }
}

#[tokio::test]
async fn a_token_from_the_future_is_refused() {
    let mut trial = Trial::of(&[OWN]).await;
    let mut attacks = Vec::new();
    for seconds in [60, 3_600, 1_000_000_000, 9_000_000_000_000] {
        for (name, verdict) in [("nbf", IMMATURE), ("iat", ISSUED_IN_FUTURE)] {
            // Even one that lives still longer.
            let then = now() + seconds;
            let claims = json!({name: then, "exp": then + 600});
            let token = sign(HS256, key(Kind::Secret, 0), &claims);
            attacks.push((claims.to_string(), token, verdict));
        }
    }
    let honest = token(json!({"nbf": now() - 1, "iat": now() - 1}));
    trial.refuses("own", &honest, &attacks).await;
    let leeway = token(json!({"nbf": now() + 10, "iat": now() + 10}));
    trial.allows("within the leeway", "own", &leeway).await;
}

#[tokio::test]
async fn an_audience_is_one_of_the_configured_texts() {
    let mut trial = Trial::of(&[
        "orders: {algorithms: [HS256], secret: '@own', audience: orders}",
        OWN,
    ])
    .await;
    let attacks: Vec<Attack> = [
        (json!(null), CLAIM_AUD),
        (json!(7), CLAIM_AUD),
        (json!(true), CLAIM_AUD),
        (json!({"orders": true}), CLAIM_AUD),
        (json!(["orders", 7]), CLAIM_AUD),
        (json!([null, "orders"]), CLAIM_AUD),
        (json!([["orders"]]), CLAIM_AUD),
        (json!([{"aud": "orders"}]), CLAIM_AUD),
        (json!([true]), CLAIM_AUD),
        (json!([]), AUDIENCE),
        (json!([""]), AUDIENCE),
        (json!(""), AUDIENCE),
        (json!("*"), AUDIENCE),
        (json!("Orders"), AUDIENCE),
        (json!("orders "), AUDIENCE),
        (json!("orders\u{0}"), AUDIENCE),
        (json!("orders/"), AUDIENCE),
        (json!("order"), AUDIENCE),
        (json!("my-orders"), AUDIENCE),
        (json!("orders,bills"), AUDIENCE),
        (json!("orders bills"), AUDIENCE),
        (json!("[\"orders\"]"), AUDIENCE),
        (json!(["bills", "orders-2"]), AUDIENCE),
    ]
    .map(|(aud, verdict)| {
        // Written as text: a null in `token` would take the claim away.
        let token = own(HEADER, claims_with(&format!("\"aud\":{aud}")));
        (format!("aud {aud}"), token, verdict)
    })
    .into();
    let honest = token(json!({"aud": "orders"}));
    trial.refuses("orders", &honest, &attacks).await;
    let listed = token(json!({"aud": ["bills", "orders"]}));
    let absent = token(json!({}));
    let attacks = [("no aud".to_owned(), absent.clone(), CLAIM_AUD)];
    trial.refuses("orders", &listed, &attacks).await;
    let attacks: Vec<Attack> = [json!("orders"), json!([]), json!(""), json!(null), json!(7)]
        .map(|aud| {
            let token = own(HEADER, claims_with(&format!("\"aud\":{aud}")));
            (format!("aud {aud} where nobody is named"), token, AUDIENCE)
        })
        .into();
    trial.refuses("own", &absent, &attacks).await;
}

#[tokio::test]
async fn an_issuer_is_the_configured_text() {
    let folder = Folder::new();
    let verifiers = [
        "one: {algorithms: [HS256], secret: '@own', issuer: 'https://issuer.test'}",
        "two: {algorithms: [HS256], secret: '@other', issuer: 'https://two.test'}",
    ];
    let mut trial = Trial::start(folder, &verifiers, &[("either", "{jwt: [one, two]}")]).await;
    let rows = [
        (json!(null), CLAIM_ISS),
        (json!(7), CLAIM_ISS),
        (json!(["https://issuer.test"]), CLAIM_ISS),
        (json!([]), CLAIM_ISS),
        (json!({"https://issuer.test": true}), CLAIM_ISS),
        (json!(""), ISSUER),
        (json!("https://issuer.test/"), ISSUER),
        (json!("https://ISSUER.test"), ISSUER),
        (json!("http://issuer.test"), ISSUER),
        (json!("issuer.test"), ISSUER),
        (json!("https://issuer.test.evil.test"), ISSUER),
        (json!("https://evil.test/https://issuer.test"), ISSUER),
        (json!("https://issuer.test@evil.test"), ISSUER),
        (json!("https://issuer.test\u{0}"), ISSUER),
        (json!(" https://issuer.test"), ISSUER),
        (json!("https://\u{456}ssuer.test"), ISSUER),
    ];
    let attacks: Vec<Attack> = rows
        .iter()
        .map(|(iss, verdict)| {
            let token = own(HEADER, claims_with(&format!("\"iss\":{iss}")));
            (format!("iss {iss}"), token, *verdict)
        })
        .chain([("no iss".to_owned(), token(json!({})), CLAIM_ISS)])
        .collect();
    let honest = token(json!({"iss": "https://issuer.test"}));
    trial.refuses("one", &honest, &attacks).await;
    trial.refuses("either", &honest, &attacks).await;
    let other = sign(
        HS256,
        key(Kind::Secret, 1),
        &claims(json!({"iss": "https://issuer.test"})),
    );
    let stolen = token(json!({"iss": "https://two.test"}));
    let attacks = [
        ("the issuer of another key".to_owned(), other, SIGNATURE),
        ("the key of another issuer".to_owned(), stolen, SIGNATURE),
    ];
    trial.refuses("either", &honest, &attacks).await;
}

#[tokio::test]
async fn a_token_of_another_kind_is_refused() {
    let mut trial = Trial::of(&[
        "access: {algorithms: [HS256], secret: '@own', typ: at+jwt}",
        "django: {algorithms: [HS256], secret: '@own', claims: {token_type: access}}",
    ])
    .await;
    let typed = |typ: &str| own(&format!(r#"{{"alg":"HS256"{typ}}}"#), good_claims());
    let mut attacks: Vec<Attack> = [
        ("", TYPE),
        (r#","typ":"JWT""#, TYPE),
        (r#","typ":"id_token+jwt""#, TYPE),
        (r#","typ":"logout+jwt""#, TYPE),
        (r#","typ":"dpop+jwt""#, TYPE),
        (r#","typ":"rt+jwt""#, TYPE),
        (r#","typ":"at""#, TYPE),
        (r#","typ":"at+jwt ""#, TYPE),
        (r#","typ":"at+jwt;v=1""#, TYPE),
        (r#","typ":"at+jwt\u0000""#, TYPE),
        (r#","typ":"text/at+jwt""#, TYPE),
        (r#","typ":"application/application/at+jwt""#, TYPE),
        (r#","typ":"application/""#, TYPE),
        (r#","typ":"""#, TYPE),
        (r#","Typ":"at+jwt""#, TYPE),
        (r#","cty":"at+jwt""#, TYPE),
        (r#","typ":["at+jwt"]"#, FORM),
        (r#","typ":null"#, FORM),
        (r#","typ":1"#, FORM),
    ]
    .map(|(typ, verdict)| (format!("the header {typ}"), typed(typ), verdict))
    .into();
    let id_token =
        json!({"iss": "https://issuer.test", "nonce": "n", "at_hash": "h", "typ": "at+jwt"});
    attacks.push(("an ID token".to_owned(), token(id_token), TYPE));
    trial
        .refuses("access", &typed(r#","typ":"at+jwt""#), &attacks)
        .await;
    let long = typed(r#","typ":"Application/AT+JWT""#);
    trial.allows("the type in full", "access", &long).await;

    let attacks: Vec<Attack> = [
        json!({"token_type": "refresh"}),
        json!({"token_type": "Access"}),
        json!({"token_type": ["access"]}),
        json!({"token_type": {"access": true}}),
        json!({"token_type": true}),
        json!({"Token_type": "access"}),
        json!({"x": {"token_type": "access"}}),
        json!({}),
    ]
    .map(|claims| (claims.to_string(), token(claims), REQUIRED_CLAIM))
    .into();
    let honest = token(json!({"token_type": "access"}));
    trial.refuses("django", &honest, &attacks).await;
}

#[tokio::test]
async fn a_token_of_one_issuer_never_opens_the_route_of_another() {
    let folder = Folder::new();
    let of = |name: &str, rest: &str, issuer: &str| {
        format!("{name}: {{algorithms: [HS256], {rest}, issuer: 'https://{issuer}.test'}}")
    };
    folder.write("named.json", {
        let key = |kid: &str, nth| json!({"kty": "oct", "kid": kid, "k": encode(&key(Kind::Secret, nth).public)});
        json!({"keys": [key("a", 0), key("b", 1)]}).to_string()
    });
    let verifiers = [
        of("a", "secret: '@own'", "a"),
        of("b", "secret: '@other'", "b"),
        // Two realms of one server, with one key.
        of("realm", "secret: '@own'", "realm"),
        of("set", "jwks: named.json", "b"),
    ];
    let verifiers: Vec<&str> = verifiers.iter().map(String::as_str).collect();
    let mut trial = Trial::start(folder, &verifiers, &[("either", "{jwt: [a, b]}")]).await;
    let of = |nth, issuer: &str, kid: &str| {
        let claims = claims(json!({"iss": format!("https://{issuer}.test")}));
        sign_with_header(
            HS256,
            key(Kind::Secret, nth),
            &json!({"kid": kid}),
            &claims.to_string(),
        )
    };
    let a = of(0, "a", "a");
    let b = of(1, "b", "b");
    let attack = |what: &str, token: &str, verdict| [(what.to_owned(), token.to_owned(), verdict)];
    trial.refuses("a", &a, &attack("of b", &b, SIGNATURE)).await;
    trial.refuses("b", &b, &attack("of a", &a, SIGNATURE)).await;
    trial
        .refuses(
            "a",
            &a,
            &attack("of another realm", &of(0, "realm", "a"), ISSUER),
        )
        .await;
    trial
        .refuses("realm", &of(0, "realm", "a"), &attack("of a", &a, ISSUER))
        .await;
    trial
        .refuses(
            "set",
            &b,
            &attack("of a, whose key is in the set", &a, ISSUER),
        )
        .await;
    trial
        .refuses(
            "set",
            &b,
            &attack("of b by the kid of a", &of(1, "b", "a"), SIGNATURE),
        )
        .await;
    trial
        .allows("of a where both are welcome", "either", &a)
        .await;
    trial
        .refuses(
            "either",
            &b,
            &attack("of a that says b", &of(0, "b", "a"), SIGNATURE),
        )
        .await;
    trial
        .refuses(
            "either",
            &a,
            &attack("of b that says a", &of(1, "a", "b"), SIGNATURE),
        )
        .await;
    trial
        .refuses(
            "either",
            &a,
            &attack("of a realm", &of(0, "realm", "a"), ISSUER),
        )
        .await;
}

#[tokio::test]
async fn parts_of_two_honest_tokens_do_not_mix() {
    let mut trial = Trial::of(&[
        "own: {algorithms: [HS256], secret: '@own'}",
        "rsa: {algorithms: [RS256], keys: [Rsa.pem]}",
        "p256: {algorithms: [ES256], keys: [P256.pem]}",
        "ed25519: {algorithms: [EdDSA], keys: [Ed25519.pem]}",
    ])
    .await;
    for (route, algorithm, kind) in [
        ("own", HS256, Kind::Secret),
        ("rsa", RS256, Kind::Rsa),
        ("p256", ES256, Kind::P256),
        ("ed25519", EdDSA, Kind::Ed25519),
    ] {
        let of = |sub: &str| {
            let header = json!({"typ": "JWT", "kid": sub});
            let claims = claims(json!({"sub": sub}));
            sign_with_header(algorithm, key(kind, 0), &header, &claims.to_string())
        };
        let (guest, admin) = (of("guest"), of("admin"));
        let guest: Vec<&str> = guest.split('.').collect();
        let admin: Vec<&str> = admin.split('.').collect();
        // Twice: the honest ones are remembered the second time.
        for _ in 0..2 {
            for mix in 0..8 {
                let part = |at: usize| {
                    if mix >> at & 1 == 0 {
                        guest[at]
                    } else {
                        admin[at]
                    }
                };
                let token = [part(0), part(1), part(2)].join(".");
                let verdict = if mix == 0 || mix == 7 {
                    Allowed
                } else {
                    SIGNATURE
                };
                let what = format!("the parts of mix {mix:03b}");
                trial.present(&what, route, &token, verdict).await;
            }
            let moved = [guest[1], guest[0], guest[2]].join(".");
            trial
                .present("header and payload swapped", route, &moved, FORM)
                .await;
            let joined = format!("{}.{}{}.{}", guest[0], guest[1], admin[1], guest[2]);
            trial
                .present("two payloads in one", route, &joined, SIGNATURE)
                .await;
        }
    }
}

#[tokio::test]
async fn a_remembered_token_opens_no_other_route() {
    let folder = Folder::new();
    let verifiers = [
        OWN,
        "other: {algorithms: [HS256], secret: '@other'}",
        "twin: {algorithms: [HS256], secret: '@own'}",
        "algorithm: {algorithms: [HS512], secret: '@own'}",
        "issuer: {algorithms: [HS256], secret: '@own', issuer: 'https://issuer.test'}",
        "audience: {algorithms: [HS256], secret: '@own', audience: orders}",
        "typed: {algorithms: [HS256], secret: '@own', typ: at+jwt}",
        "claims: {algorithms: [HS256], secret: '@own', claims: {token_type: access}}",
        "short: {algorithms: [HS256], secret: '@own', max_lifetime: 5m}",
        "cookie: {algorithms: [HS256], secret: '@own', from: 'cookie:at'}",
    ];
    let more = [
        ("admin", "{jwt: own, require: {role: admin}}"),
        ("both", "{jwt: [other, issuer]}"),
        ("moved", "{jwt: [other, cookie]}"),
    ];
    let mut trial = Trial::start(folder, &verifiers, &more).await;
    let remembered = token(json!({"sub": "remembered"}));
    let of = |changes| token(changes);
    let typed = own(r#"{"alg":"HS256","typ":"at+jwt"}"#, good_claims());
    let other = sign(HS256, key(Kind::Secret, 1), &claims(json!({})));
    for _ in 0..3 {
        trial.allows("the token", "own", &remembered).await;
        trial
            .allows("the token at a twin", "twin", &remembered)
            .await;
        for (route, honest, verdict) in [
            ("other", other.clone(), SIGNATURE),
            (
                "algorithm",
                sign(HS512, key(Kind::Secret, 0), &claims(json!({}))),
                ALGORITHM,
            ),
            (
                "issuer",
                of(json!({"iss": "https://issuer.test"})),
                CLAIM_ISS,
            ),
            ("audience", of(json!({"aud": "orders"})), CLAIM_AUD),
            ("typed", typed.clone(), TYPE),
            (
                "claims",
                of(json!({"token_type": "access"})),
                REQUIRED_CLAIM,
            ),
            (
                "short",
                of(json!({"exp": now() + 100})),
                Invalid("the token lives too long"),
            ),
            ("admin", of(json!({"role": "admin"})), Forbidden),
            // The issuer's verifier has the right key; what it misses says the most.
            ("both", other.clone(), CLAIM_ISS),
            ("moved", other.clone(), SIGNATURE),
        ] {
            let what = "the remembered token".to_owned();
            let attacks = [(what, remembered.clone(), verdict)];
            trial.refuses(route, &honest, &attacks).await;
        }
        trial
            .present("in a header", "cookie", &remembered, Missing)
            .await;
        let cookie = format!("at={remembered}");
        trial
            .judge(
                "in its cookie",
                "/cookie/x",
                &[("Cookie", &cookie)],
                Allowed,
            )
            .await;
        trial
            .judge("in a cookie", "/own/x", &[("Cookie", &cookie)], Missing)
            .await;
    }
    // Nor does another that is nearly it.
    let (signed, signature) = split(&remembered);
    let mut flipped = signature.clone();
    flipped[0] ^= 0x80;
    let upper = signed.replacen("ey", "eY", 1);
    let attacks = [
        (
            "another signature".to_owned(),
            resigned(&remembered, flipped),
            SIGNATURE,
        ),
        ("no signature".to_owned(), format!("{signed}."), SIGNATURE),
        ("its beginning".to_owned(), signed.to_owned(), FORM),
        ("more behind it".to_owned(), format!("{remembered}AA"), FORM),
        ("padding".to_owned(), format!("{remembered}="), FORM),
        (
            "another case".to_owned(),
            format!("{upper}.{}", encode(&signature)),
            FORM,
        ),
    ];
    trial.refuses("own", &remembered, &attacks).await;
}

#[tokio::test]
async fn the_scheme_is_bearer_in_any_case_and_nothing_else() {
    let mut trial = Trial::of(&[OWN]).await;
    let honest = token(json!({}));
    let forged = of_secret(HS256, "forged", HEADER, good_claims());
    for scheme in [
        "Bearer",
        "bearer",
        "BEARER",
        "bEaReR",
        "BEARER  ",
        "bearer     ",
    ] {
        let (good, bad) = (format!("{scheme} {honest}"), format!("{scheme} {forged}"));
        trial
            .judge(scheme, "/own/x", &[("Authorization", &good)], Allowed)
            .await;
        trial
            .judge(scheme, "/own/x", &[("Authorization", &bad)], SIGNATURE)
            .await;
        let fields = [("aUTHORIZATION", good.as_str())];
        trial.judge(scheme, "/own/x", &fields, Allowed).await;
    }
    for (value, verdict) in [
        (honest.clone(), Missing),
        (String::new(), Missing),
        (format!("Basic {honest}"), Missing),
        (format!("JWT {honest}"), Missing),
        (format!("Token {honest}"), Missing),
        (format!("DPoP {honest}"), Missing),
        (format!("Bearer2 {honest}"), Missing),
        (format!("Bearer-Token {honest}"), Missing),
        (format!("XBearer {honest}"), Missing),
        (format!("Bearer{honest}"), Missing),
        (format!("Bear er {honest}"), Missing),
        (format!("Basic dTpw, Bearer {honest}"), Missing),
        (format!("\"Bearer {honest}\""), Missing),
        (format!("B\u{435}arer {honest}"), Missing),
        ("Bearer".to_owned(), Malformed),
        (format!("Bearer:{honest}"), Malformed),
        (format!("Bearer={honest}"), Malformed),
        (format!("Bearer,{honest}"), Malformed),
        (format!("Bearer\t{honest}"), Malformed),
        (format!("Bearer \t{honest}"), Malformed),
        (format!("Bearer Bearer {honest}"), Malformed),
        (format!("Bearer token={honest}"), Malformed),
        (format!("Bearer \"{honest}\""), Malformed),
        (format!("Bearer <{honest}>"), Malformed),
        (format!("Bearer {honest}, Basic dTpw"), Malformed),
        (format!("Bearer {honest}; charset=utf-8"), Malformed),
    ] {
        let what = format!("Authorization: {value:.20}");
        trial
            .judge(&what, "/own/x", &[("Authorization", &value)], verdict)
            .await;
        let value = format!("Bearer {honest}");
        trial
            .judge(&what, "/own/x", &[("Authorization", &value)], Allowed)
            .await;
    }
}

#[tokio::test]
async fn two_different_tokens_are_refused_whichever_is_honest() {
    let places =
        "all: {algorithms: [HS256], secret: '@own', from: [header, 'cookie:at', 'query:token']}";
    let mut trial = Trial::of(&[places]).await;
    let honest = token(json!({"sub": "a"}));
    let others = [
        token(json!({"sub": "b"})),
        of_secret(HS256, "forged", HEADER, good_claims()),
        format!("{}.{}.", encode(r#"{"alg":"none"}"#), encode(good_claims())),
        "x".to_owned(),
    ];
    for other in others.iter().chain([&honest]) {
        let verdict = if *other == honest { Allowed } else { Malformed };
        for (first, second) in [(&honest, other), (other, &honest)] {
            let bearer = format!("Bearer {first}");
            let again = format!("bearer {second}");
            let cookie = format!("at={second}");
            let query = format!("/all/x?token={second}");
            let a = ("Authorization", bearer.as_str());
            let b = ("Authorization", again.as_str());
            let c = ("Cookie", cookie.as_str());
            let basic = ("Authorization", "Basic dTpw");
            trial
                .judge("two field lines", "/all/x", &[a, b], verdict)
                .await;
            trial
                .judge("one between them", "/all/x", &[a, basic, b], verdict)
                .await;
            trial
                .judge("field and cookie", "/all/x", &[a, c], verdict)
                .await;
            trial
                .judge("cookie and field", "/all/x", &[c, a], verdict)
                .await;
            trial.judge("field and query", &query, &[a], verdict).await;
            let cookies = format!("at={first}; at={second}");
            // Of cookies of one name the good one decides, unless there are good ones of two users.
            let one_is_good = *other != others[0];
            let verdict_of_cookies = if one_is_good { Allowed } else { Malformed };
            let fields = [("Cookie", cookies.as_str())];
            trial
                .judge("two cookies", "/all/x", &fields, verdict_of_cookies)
                .await;
            let query = format!("/all/x?token={first}&tok%65n={second}");
            trial.judge("two parameters", &query, &[], verdict).await;
            let list = format!("Bearer {first}, Bearer {second}");
            let fields = [("Authorization", list.as_str())];
            trial.judge("a list", "/all/x", &fields, Malformed).await;
        }
        let value = format!("Bearer {honest}");
        trial
            .judge(
                "the honest alone",
                "/all/x",
                &[("Authorization", &value)],
                Allowed,
            )
            .await;
    }
}

#[tokio::test]
async fn a_token_in_a_place_that_is_not_listed_is_not_seen() {
    let mut trial = Trial::of(&[
        OWN,
        "cookie: {algorithms: [HS256], secret: '@own', from: 'cookie:at'}",
        "query: {algorithms: [HS256], secret: '@own', from: 'query:token'}",
    ])
    .await;
    let honest = token(json!({}));
    let forged = of_secret(HS256, "forged", HEADER, good_claims());
    let bearer = format!("Bearer {honest}");
    let good = ("Authorization", bearer.as_str());
    for name in [
        "Proxy-Authorization",
        "X-Authorization",
        "X-Access-Token",
        "X-Auth-Token",
        "X-JWT-Assertion",
        "X-Forwarded-Access-Token",
        "X-Original-Authorization",
        "X-Amzn-Oidc-Data",
        "Token",
        "Bearer",
        "Authentication",
        "Sec-WebSocket-Protocol",
        "Www-Authenticate",
        "X-HTTP-Authorization",
        "Authorization_",
        "Http-Authorization",
        "Authorizations",
    ] {
        for value in [bearer.as_str(), &honest] {
            trial.judge(name, "/own/x", &[(name, value)], Missing).await;
        }
        // There a bad token is nothing, either.
        let bad = format!("Bearer {forged}");
        trial
            .judge(name, "/own/x", &[good, (name, &bad)], Allowed)
            .await;
    }
    for query in [
        "token",
        "access_token",
        "jwt",
        "authorization",
        "bearer_token",
        "id_token",
    ] {
        let target = format!("/own/x?{query}={honest}");
        trial.judge("a query", &target, &[], Missing).await;
        let target = format!("/own/x?{query}={forged}");
        trial
            .judge("a query beside it", &target, &[good], Allowed)
            .await;
    }
    for cookie in [
        "at",
        "access_token",
        "jwt",
        "token",
        "Authorization",
        "session",
    ] {
        let value = format!("{cookie}={honest}");
        trial
            .judge("a cookie", "/own/x", &[("Cookie", &value)], Missing)
            .await;
        let value = format!("{cookie}={forged}");
        trial
            .judge(
                "a cookie beside it",
                "/own/x",
                &[good, ("Cookie", &value)],
                Allowed,
            )
            .await;
    }
    let cookie = format!("at={honest}");
    let query = format!("/query/x?token={honest}");
    trial
        .judge("the cookie", "/cookie/x", &[("Cookie", &cookie)], Allowed)
        .await;
    trial.judge("the query", &query, &[], Allowed).await;
    for (what, target, fields) in [
        ("a header where a cookie is listed", "/cookie/x", vec![good]),
        (
            "a query there",
            &format!("/cookie/x?at={honest}&token={honest}"),
            vec![],
        ),
        ("a header where a query is listed", "/query/x", vec![good]),
        ("a cookie there", "/query/x", vec![("Cookie", &cookie)]),
        (
            "another case",
            "/cookie/x",
            vec![("Cookie", &cookie.replace("at=", "AT="))],
        ),
        (
            "another name",
            "/cookie/x",
            vec![("Cookie", &cookie.replace("at=", "at2="))],
        ),
        (
            "a name with a prefix",
            "/cookie/x",
            vec![("Cookie", &cookie.replace("at=", "__Host-at="))],
        ),
        (
            "a query of another case",
            &query.replace("token", "Token"),
            vec![],
        ),
        (
            "a query of a list",
            &query.replace("token", "token[]"),
            vec![],
        ),
        (
            "a path parameter",
            &format!("/query/x;token={honest}"),
            vec![],
        ),
        ("a path", &format!("/query/token={honest}"), vec![]),
    ] {
        trial.judge(what, target, &fields, Missing).await;
    }
}

#[tokio::test]
async fn a_token_in_a_body_or_a_trailer_is_not_seen() {
    let trial = Trial::of(&[OWN]).await;
    let honest = token(json!({}));
    let bearer = format!("Bearer {honest}");
    let form = format!("access_token={honest}");
    let kind = ("Content-Type", "application/x-www-form-urlencoded");
    let trailer = [
        &b"Transfer-Encoding: chunked\r\nTrailer: Authorization\r\n\r\n"[..],
        &chunked("body"),
        format!("0\r\nAuthorization: {bearer}\r\n\r\n").as_bytes(),
    ]
    .concat();
    let start = b"POST /own/x HTTP/1.1\r\nHost: gateway.test\r\n".as_slice();
    let field = format!("Authorization: {bearer}\r\n");
    for (what, bytes, status) in [
        ("a form", request("POST", "/own/x", &[kind], &form), 401),
        (
            "a form beside a field",
            request("POST", "/own/x", &[kind, ("Authorization", &bearer)], &form),
            200,
        ),
        ("a trailer", [start, &trailer].concat(), 401),
        (
            "a trailer beside a field",
            [start, field.as_bytes(), &trailer].concat(),
            200,
        ),
    ] {
        let before = trial.app.requests();
        let mut wire = trial.gateway.connect().await;
        wire.send(bytes).await;
        let reply = wire.reply().await;
        assert_eq!(reply.status, status, "{what}");
        let challenge = reply.field("www-authenticate").unwrap_or_default();
        assert!(!challenge.contains("error"), "{what}: {challenge}");
        let served = trial.app.requests() - before;
        assert_eq!(served, usize::from(status == 200), "{what}");
    }
}
