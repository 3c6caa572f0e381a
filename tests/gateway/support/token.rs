//! Keys and tokens of every family, created once per run.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256,
};
use serde_json::{Value, json};

/// A family of keys.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Kind {
    Secret,
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// A key: its private half for tokens, and the gateway's side.
pub(crate) struct Key {
    private: EncodingKey,
    /// The PEM of the public key, or the text of the secret.
    pub(crate) public: String,
}

impl Key {
    /// The private half.
    pub(crate) fn private(&self) -> &EncodingKey {
        &self.private
    }
}

/// A key of the family; `nth` distinguishes several of one family.
pub(crate) fn key(kind: Kind, nth: usize) -> &'static Key {
    static KEYS: LazyLock<BTreeMap<(Kind, usize), Key>> = LazyLock::new(|| {
        let kinds = [
            Kind::Secret,
            Kind::Rsa,
            Kind::P256,
            Kind::P384,
            Kind::Ed25519,
        ];
        kinds
            .into_iter()
            .flat_map(|kind| [0, 1].map(|nth| ((kind, nth), make(kind, nth))))
            .collect()
    });
    &KEYS[&(kind, nth)]
}

fn make(kind: Kind, nth: usize) -> Key {
    let algorithm = match kind {
        Kind::Secret => {
            let public = format!("secret-{nth}-").repeat(8);
            return Key {
                private: EncodingKey::from_secret(public.as_bytes()),
                public,
            };
        }
        Kind::Rsa => &PKCS_RSA_SHA256,
        Kind::P256 => &PKCS_ECDSA_P256_SHA256,
        Kind::P384 => &PKCS_ECDSA_P384_SHA384,
        Kind::Ed25519 => &PKCS_ED25519,
    };
    let pair = KeyPair::generate_for(algorithm).unwrap();
    let pem = pair.serialize_pem();
    let private = match kind {
        Kind::Rsa => EncodingKey::from_rsa_pem(pem.as_bytes()),
        Kind::Ed25519 => EncodingKey::from_ed_pem(pem.as_bytes()),
        Kind::Secret | Kind::P256 | Kind::P384 => EncodingKey::from_ec_pem(pem.as_bytes()),
    };
    Key {
        private: private.unwrap(),
        public: pair.public_key_pem(),
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// Valid claims for ten minutes, changed by `changes`; a null there removes a claim.
pub(crate) fn claims(changes: Value) -> Value {
    let mut claims = json!({"sub": "u-1", "iat": now(), "exp": now() + 600});
    let object = claims.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            object.remove(name);
        } else {
            object.insert(name.clone(), value.clone());
        }
    }
    claims
}

/// An HS256 token with the first secret, and valid claims changed by `changes`.
pub(crate) fn token(changes: Value) -> String {
    sign(Algorithm::HS256, key(Kind::Secret, 0), &claims(changes))
}

/// A token with exactly these claims.
pub(crate) fn sign(algorithm: Algorithm, key: &Key, claims: &Value) -> String {
    sign_with_header(algorithm, key, &json!({"typ": "JWT"}), &claims.to_string())
}

/// A token with this text as claims and these header members; `alg` is added if it is missing.
pub(crate) fn sign_with_header(
    algorithm: Algorithm,
    key: &Key,
    header: &Value,
    claims: &str,
) -> String {
    let mut header = header.clone();
    header
        .as_object_mut()
        .unwrap()
        .entry("alg")
        .or_insert_with(|| json!(algorithm));
    let message = [header.to_string().as_str(), claims]
        .map(|part| URL_SAFE_NO_PAD.encode(part))
        .join(".");
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), &key.private, algorithm).unwrap();
    format!("{message}.{signature}")
}
