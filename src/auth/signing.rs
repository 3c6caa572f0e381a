//! `SigningKey`: a key that the gateway signs its own tokens with. When a key is made, published and
//! retired is the matter of `tokens`; how a signature is checked, of `signature`.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256,
    RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::algorithm::Algorithm;

/// A private key or a secret, for one algorithm.
pub(crate) struct SigningKey {
    kid: String,
    algorithm: Algorithm,
    pair: Pair,
}

enum Pair {
    Hmac(Box<hmac::Key>, Vec<u8>),
    Rsa(Box<RsaKeyPair>, &'static dyn RsaEncoding),
    Ecdsa(Box<EcdsaKeyPair>),
    Ed25519(Box<Ed25519KeyPair>),
}

/// The family of an algorithm, with what its keys are made and used with.
enum Family {
    Hmac(hmac::Algorithm, usize),
    Rsa(&'static dyn RsaEncoding),
    Ecdsa(&'static EcdsaSigningAlgorithm, &'static str),
    Ed25519,
}

fn family(algorithm: Algorithm) -> Family {
    match algorithm {
        Algorithm::Hs256 => Family::Hmac(hmac::HMAC_SHA256, 32),
        Algorithm::Hs384 => Family::Hmac(hmac::HMAC_SHA384, 48),
        Algorithm::Hs512 => Family::Hmac(hmac::HMAC_SHA512, 64),
        Algorithm::Rs256 => Family::Rsa(&RSA_PKCS1_SHA256),
        Algorithm::Rs384 => Family::Rsa(&RSA_PKCS1_SHA384),
        Algorithm::Rs512 => Family::Rsa(&RSA_PKCS1_SHA512),
        Algorithm::Ps256 => Family::Rsa(&RSA_PSS_SHA256),
        Algorithm::Ps384 => Family::Rsa(&RSA_PSS_SHA384),
        Algorithm::Ps512 => Family::Rsa(&RSA_PSS_SHA512),
        Algorithm::Es256 => Family::Ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"),
        Algorithm::Es384 => Family::Ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"),
        Algorithm::Es512 => Family::Ecdsa(&ECDSA_P521_SHA512_FIXED_SIGNING, "P-521"),
        Algorithm::EdDsa => Family::Ed25519,
    }
}

/// Something about a key cannot be done; what, the caller knows.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the key cannot be made or is damaged")]
pub(crate) struct BadKey;

impl std::fmt::Debug for SigningKey {
    /// A key is never shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey {} for {}", self.kid, self.algorithm)
    }
}

impl SigningKey {
    /// Makes a new key: its bytes, a secret or a private key in PKCS#8 (RFC 5958).
    ///
    /// # Errors
    /// Where the system has no random numbers.
    pub(crate) fn generate(algorithm: Algorithm) -> Result<Vec<u8>, BadKey> {
        let bytes = match family(algorithm) {
            Family::Hmac(_, length) => {
                let mut secret = vec![0; length];
                rand::fill(&mut secret).map_err(|_| BadKey)?;
                return Ok(secret);
            }
            Family::Rsa(_) => RsaKeyPair::generate(KeySize::Rsa2048)
                .and_then(|pair| Ok(pair.as_der()?.as_ref().to_vec())),
            Family::Ecdsa(kind, _) => EcdsaKeyPair::generate(kind)
                .and_then(|pair| Ok(pair.to_pkcs8v1()?.as_ref().to_vec())),
            Family::Ed25519 => {
                Ed25519KeyPair::generate().and_then(|pair| Ok(pair.to_pkcs8()?.as_ref().to_vec()))
            }
        };
        bytes.map_err(|_| BadKey)
    }

    /// Reads what [`SigningKey::generate`] made.
    ///
    /// # Errors
    /// Where the bytes are no key of the algorithm.
    pub(crate) fn read(kid: &str, algorithm: Algorithm, bytes: &[u8]) -> Result<Self, BadKey> {
        let pair = match family(algorithm) {
            Family::Hmac(hash, length) if bytes.len() >= length => {
                Pair::Hmac(Box::new(hmac::Key::new(hash, bytes)), bytes.to_vec())
            }
            Family::Hmac(..) => return Err(BadKey),
            Family::Rsa(encoding) => Pair::Rsa(
                Box::new(RsaKeyPair::from_pkcs8(bytes).map_err(|_| BadKey)?),
                encoding,
            ),
            Family::Ecdsa(kind, _) => Pair::Ecdsa(Box::new(
                EcdsaKeyPair::from_pkcs8(kind, bytes).map_err(|_| BadKey)?,
            )),
            Family::Ed25519 => Pair::Ed25519(Box::new(
                Ed25519KeyPair::from_pkcs8(bytes).map_err(|_| BadKey)?,
            )),
        };
        Ok(Self {
            kid: kid.to_owned(),
            algorithm,
            pair,
        })
    }

    /// The name of the key in tokens and key sets.
    pub(crate) fn kid(&self) -> &str {
        &self.kid
    }

    /// A token with these claims (RFC 7515 section 7.1).
    ///
    /// # Errors
    /// Where the system has no random numbers.
    pub(crate) fn sign(&self, claims: &Map<String, Value>) -> Result<String, BadKey> {
        let header = json!({"alg": self.algorithm.name(), "kid": self.kid, "typ": "JWT"});
        let payload = Value::Object(claims.clone()).to_string();
        let mut token = URL_SAFE_NO_PAD.encode(header.to_string());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(payload, &mut token);
        let message = token.as_bytes();
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Hmac(key, _) => hmac::sign(key, message).as_ref().to_vec(),
            Pair::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &random, message, &mut signature)
                    .map_err(|_| BadKey)?;
                signature
            }
            Pair::Ecdsa(pair) => {
                let signature = pair.sign(&random, message).map_err(|_| BadKey)?;
                signature.as_ref().to_vec()
            }
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        };
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    /// The key as a member of a key set (RFC 7517), as it may be published; `None` for a secret.
    pub(crate) fn public_jwk(&self) -> Option<Value> {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match &self.pair {
            Pair::Hmac(..) => return None,
            Pair::Rsa(pair, _) => {
                let key = pair.public_key();
                json!({
                    "kty": "RSA",
                    "n": encode(key.modulus().big_endian_without_leading_zero()),
                    "e": encode(key.exponent().big_endian_without_leading_zero()),
                })
            }
            Pair::Ecdsa(pair) => {
                let Family::Ecdsa(_, curve) = family(self.algorithm) else {
                    return None;
                };
                // An uncompressed point (SEC 1 section 2.3.3).
                let point = pair.public_key().as_ref().get(1..)?;
                let (x, y) = point.split_at_checked(point.len() / 2)?;
                json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)})
            }
            Pair::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref())})
            }
        };
        self.describe(&mut jwk);
        Some(jwk)
    }

    /// The key as a member of a key set for the gateway's own verifier, a secret too.
    pub(crate) fn verifying_jwk(&self) -> Option<Value> {
        let Pair::Hmac(_, secret) = &self.pair else {
            return self.public_jwk();
        };
        let mut jwk = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(secret)});
        self.describe(&mut jwk);
        Some(jwk)
    }

    fn describe(&self, jwk: &mut Value) {
        if let Some(members) = jwk.as_object_mut() {
            members.insert("kid".to_owned(), self.kid.as_str().into());
            members.insert("alg".to_owned(), self.algorithm.name().into());
            members.insert("use".to_owned(), "sig".into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::algorithm::AlgorithmSet;
    use super::super::jws::Jws;
    use super::super::keys::{KeySet, KeySource, ShortSecrets};
    use super::*;

    #[test]
    fn every_algorithm_signs_what_its_published_key_verifies() {
        for algorithm in Algorithm::ALL {
            let bytes = SigningKey::generate(algorithm).unwrap();
            let key = SigningKey::read("k1", algorithm, &bytes).unwrap();
            let claims = json!({"sub": "alice"});
            let token = key.sign(claims.as_object().unwrap()).unwrap();
            let set = json!({"keys": [key.verifying_jwk().unwrap()]}).to_string();
            let source = KeySource::Jwks(set.into_bytes());
            let (keys, _) = KeySet::load(&[source], &[], ShortSecrets::Refuse).unwrap();
            let jws = Jws::parse(&token).unwrap();
            assert_eq!(jws.kid.as_deref(), Some("k1"));
            assert_eq!(keys.verify(&jws, AlgorithmSet::ALL), Ok(()), "{algorithm}");
            assert_eq!(
                key.public_jwk().is_none(),
                AlgorithmSet::HMAC.contains(algorithm)
            );
            let published = key.public_jwk().map(|jwk| jwk.to_string());
            assert!(!published.unwrap_or_default().contains("\"d\""));
            assert!(SigningKey::read("k1", algorithm, b"short").is_err());
        }
    }
}
