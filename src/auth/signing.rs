//! `SigningKey`: a key with which the gateway signs its own tokens. `tokens` decides when a key is created, published
//! and retired; `provider` implements the signature.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;
use serde_json::{Map, Value, json};

use super::algorithm::{Algorithm, AlgorithmSet};
use super::provider::{self, SignatureSigner};
use super::public_key::PublicKey;

/// A private key or a secret, for one algorithm.
pub(crate) struct SigningKey {
    kid: String,
    algorithm: Algorithm,
    signer: SignatureSigner,
    part: Part,
}

/// The part of a key that verifiers get.
enum Part {
    Secret(Vec<u8>),
    Public(PublicKey),
}

/// An operation on a key failed; the caller knows which.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the key cannot be created or is damaged")]
pub(crate) struct BadKey;

impl std::fmt::Debug for SigningKey {
    /// A key is never printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey {} for {}", self.kid, self.algorithm)
    }
}

impl SigningKey {
    /// Generates a key: its bytes, a secret or a private key in PKCS#8 (RFC 5958).
    ///
    /// # Errors
    /// Where the system has no random numbers.
    pub(crate) fn generate(algorithm: Algorithm) -> Result<Vec<u8>, BadKey> {
        if let Some(length) = algorithm.secret_bytes() {
            let mut secret = vec![0; length];
            rand::fill(&mut secret).map_err(|_| BadKey)?;
            return Ok(secret);
        }
        let on_curve = |curve: &'static EcdsaSigningAlgorithm| {
            let pair = EcdsaKeyPair::generate(curve)?;
            Ok(pair.to_pkcs8v1()?.as_ref().to_vec())
        };
        let bytes = match algorithm {
            Algorithm::ES256 => on_curve(&ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::ES384 => on_curve(&ECDSA_P384_SHA384_FIXED_SIGNING),
            Algorithm::ES512 => on_curve(&ECDSA_P521_SHA512_FIXED_SIGNING),
            Algorithm::EDDSA => {
                Ed25519KeyPair::generate().and_then(|pair| Ok(pair.to_pkcs8()?.as_ref().to_vec()))
            }
            Algorithm::Jwt(_) => RsaKeyPair::generate(KeySize::Rsa2048)
                .and_then(|pair| Ok(pair.as_der()?.as_ref().to_vec())),
        };
        bytes.map_err(|_| BadKey)
    }

    /// Parses the output of [`SigningKey::generate`].
    ///
    /// # Errors
    /// Where the bytes are not a key of the algorithm.
    pub(crate) fn read(kid: &str, algorithm: Algorithm, bytes: &[u8]) -> Result<Self, BadKey> {
        let key = if let Some(length) = algorithm.secret_bytes() {
            if bytes.len() < length {
                return Err(BadKey);
            }
            EncodingKey::from_secret(bytes)
        } else if AlgorithmSet::RSA.contains(algorithm) {
            EncodingKey::from_rsa_der(bytes)
        } else if algorithm == Algorithm::EDDSA {
            EncodingKey::from_ed_der(bytes)
        } else {
            EncodingKey::from_ec_der(bytes)
        };
        let (signer, public) = provider::signer(algorithm, &key).map_err(|_| BadKey)?;
        Ok(Self {
            kid: kid.to_owned(),
            algorithm,
            signer,
            part: public.map_or_else(|| Part::Secret(bytes.to_vec()), Part::Public),
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
        let signature = self.signer.try_sign(token.as_bytes());
        let signature = signature.map_err(|_| BadKey)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    /// The key as a member of a published key set (RFC 7517); `None` for a secret.
    pub(crate) fn public_jwk(&self) -> Option<Value> {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let Part::Public(key) = &self.part else {
            return None;
        };
        let curve = |name, point: &[u8]| {
            // An uncompressed point (SEC 1 section 2.3.3).
            let numbers = point.get(1..)?;
            let (x, y) = numbers.split_at_checked(numbers.len() / 2)?;
            Some(json!({"kty": "EC", "crv": name, "x": encode(x), "y": encode(y)}))
        };
        let mut jwk = match key {
            PublicKey::Rsa { n, e } => json!({"kty": "RSA", "n": encode(n), "e": encode(e)}),
            PublicKey::P256(point) => curve("P-256", point)?,
            PublicKey::P384(point) => curve("P-384", point)?,
            PublicKey::P521(point) => curve("P-521", point)?,
            PublicKey::Ed25519(key) => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(key)}),
        };
        self.describe(&mut jwk);
        Some(jwk)
    }

    /// The key as a member of a key set for the gateway's own verifier, including a secret.
    pub(crate) fn verifying_jwk(&self) -> Option<Value> {
        let Part::Secret(secret) = &self.part else {
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
