//! Keys and tokens for the tests of this module, signed without the library that verifies them.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512,
    RsaEncoding, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::algorithm::Algorithm;
use super::binding::Cnf;
use super::keys::KeySource;
use super::public_key::PublicKey;
use super::revoked::Revoked;
use super::verify::{Audience, VerifierSettings};

/// A secret that is long enough for every HMAC.
pub(super) const SECRET: &[u8] =
    b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The time of the tests, in seconds since 1970.
pub(super) const NOW: u64 = 1_790_000_000;

/// The time of the tests.
pub(super) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

/// One key pair of each kind.
pub(super) struct Keys {
    pub(super) rsa: RsaKeyPair,
    pub(super) p256: EcdsaKeyPair,
    pub(super) p384: EcdsaKeyPair,
    pub(super) p521: EcdsaKeyPair,
    pub(super) ed25519: Ed25519KeyPair,
}

fn generate() -> Keys {
    Keys {
        rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
        p256: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
        p384: EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap(),
        p521: EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING).unwrap(),
        ed25519: Ed25519KeyPair::generate().unwrap(),
    }
}

/// The keys of the issuer.
pub(super) static KEYS: LazyLock<Keys> = LazyLock::new(generate);
/// The keys of another issuer.
pub(super) static OTHER: LazyLock<Keys> = LazyLock::new(generate);

/// base64url without padding.
pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The signature of these bytes.
pub(super) fn sign(keys: &Keys, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
    let random = SystemRandom::new();
    let rsa = |encoding: &'static dyn RsaEncoding| {
        let mut signature = vec![0; keys.rsa.public_modulus_len()];
        keys.rsa
            .sign(encoding, &random, message, &mut signature)
            .unwrap();
        signature
    };
    let mac = |kind| {
        hmac::sign(&hmac::Key::new(kind, SECRET), message)
            .as_ref()
            .to_vec()
    };
    match algorithm {
        Algorithm::HS256 => mac(hmac::HMAC_SHA256),
        Algorithm::HS384 => mac(hmac::HMAC_SHA384),
        Algorithm::HS512 => mac(hmac::HMAC_SHA512),
        Algorithm::RS256 => rsa(&RSA_PKCS1_SHA256),
        Algorithm::RS384 => rsa(&RSA_PKCS1_SHA384),
        Algorithm::RS512 => rsa(&RSA_PKCS1_SHA512),
        Algorithm::PS256 => rsa(&RSA_PSS_SHA256),
        Algorithm::PS384 => rsa(&RSA_PSS_SHA384),
        Algorithm::PS512 => rsa(&RSA_PSS_SHA512),
        Algorithm::ES256 => keys.p256.sign(&random, message).unwrap().as_ref().to_vec(),
        Algorithm::ES384 => keys.p384.sign(&random, message).unwrap().as_ref().to_vec(),
        Algorithm::ES512 => keys.p521.sign(&random, message).unwrap().as_ref().to_vec(),
        Algorithm::EDDSA => keys.ed25519.sign(message).as_ref().to_vec(),
        Algorithm::Jwt(unknown) => panic!("{unknown:?}"),
    }
}

/// A token with exactly this header and payload, signed by the issuer.
pub(super) fn raw(algorithm: Algorithm, header: &str, payload: &str) -> String {
    raw_by(&KEYS, algorithm, header, payload)
}

/// A token with exactly this header and payload, signed with these keys.
pub(super) fn raw_by(keys: &Keys, algorithm: Algorithm, header: &str, payload: &str) -> String {
    let signed = format!("{}.{}", encode(header), encode(payload));
    let signature = encode(sign(keys, algorithm, signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// An ordinary token of the issuer with these claims, and `exp` an hour from now.
pub(super) fn mint(algorithm: Algorithm, claims: &Value) -> String {
    let mut claims = claims.clone();
    let members = claims.as_object_mut().unwrap();
    members.entry("exp").or_insert_with(|| json!(NOW + 3600));
    let header = json!({"alg": algorithm.name(), "typ": "JWT"});
    raw(algorithm, &header.to_string(), &claims.to_string())
}

/// The public key for an algorithm as SubjectPublicKeyInfo, in DER.
pub(super) fn spki(keys: &Keys, algorithm: Algorithm) -> Vec<u8> {
    match algorithm {
        Algorithm::ES256 => keys.p256.public_key().as_der().unwrap().as_ref().to_vec(),
        Algorithm::ES384 => keys.p384.public_key().as_der().unwrap().as_ref().to_vec(),
        Algorithm::ES512 => keys.p521.public_key().as_der().unwrap().as_ref().to_vec(),
        Algorithm::EDDSA => keys
            .ed25519
            .public_key()
            .as_der()
            .unwrap()
            .as_ref()
            .to_vec(),
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => panic!("a secret is not public"),
        Algorithm::Jwt(_) => keys.rsa.public_key().as_der().unwrap().as_ref().to_vec(),
    }
}

/// The public key for an algorithm.
pub(super) fn public_key(keys: &Keys, algorithm: Algorithm) -> PublicKey {
    super::pem::public_key(&pem("PUBLIC KEY", &spki(keys, algorithm)))
        .unwrap()
        .key
}

/// A PEM file.
pub(super) fn pem(label: &str, der: &[u8]) -> Vec<u8> {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> = body
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
    .into_bytes()
}

/// The issuer's key for an algorithm: the secret, or the public key as a PEM file.
pub(super) fn source(algorithm: Algorithm) -> KeySource {
    match algorithm {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
            KeySource::Secret(SECRET.to_vec())
        }
        Algorithm::Jwt(_) | Algorithm::Es512 => KeySource::Pem {
            kid: None,
            bytes: pem("PUBLIC KEY", &spki(&KEYS, algorithm)),
        },
    }
}

/// The issuer's public key for an algorithm as a JWK.
pub(super) fn jwk(algorithm: Algorithm) -> Value {
    jwk_of(&KEYS, algorithm)
}

/// The public key of these for an algorithm as a JWK.
pub(super) fn jwk_of(keys: &Keys, algorithm: Algorithm) -> Value {
    let curve = |name: &str, point: &[u8]| {
        let (x, y) = point[1..].split_at((point.len() - 1) / 2);
        json!({"kty": "EC", "crv": name, "x": encode(x), "y": encode(y)})
    };
    match algorithm {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
            json!({"kty": "oct", "k": encode(SECRET)})
        }
        Algorithm::ES256 => curve("P-256", keys.p256.public_key().as_ref()),
        Algorithm::ES384 => curve("P-384", keys.p384.public_key().as_ref()),
        Algorithm::ES512 => curve("P-521", keys.p521.public_key().as_ref()),
        Algorithm::EDDSA => {
            json!({"kty": "OKP", "crv": "Ed25519", "x": encode(keys.ed25519.public_key())})
        }
        Algorithm::Jwt(_) => {
            let n = keys
                .rsa
                .public_key()
                .modulus()
                .big_endian_without_leading_zero()
                .to_vec();
            let e = keys
                .rsa
                .public_key()
                .exponent()
                .big_endian_without_leading_zero()
                .to_vec();
            json!({"kty": "RSA", "n": encode(n), "e": encode(e)})
        }
    }
}

/// A key set of these keys.
pub(super) fn jwks(keys: &[Value]) -> KeySource {
    KeySource::Jwks(json!({"keys": keys}).to_string().into_bytes())
}

/// A plain verifier for one algorithm, with the issuer's key.
pub(super) fn settings(algorithm: Algorithm) -> VerifierSettings {
    VerifierSettings {
        name: "app".to_owned(),
        algorithms: vec![algorithm],
        keys: vec![source(algorithm)],
        remote: None,
        issuer: Vec::new(),
        audience: Audience::Unset,
        leeway: Duration::from_secs(30),
        iat_ahead: Duration::ZERO,
        require_exp: true,
        max_lifetime: None,
        typ: None,
        claims: Vec::new(),
        cnf: Cnf::Check,
        from: Vec::new(),
        weak_secret: false,
        revoked: Revoked::default(),
        live: None,
        admitted: None,
    }
}
