//! The crypto provider for jsonwebtoken: its `JwtVerifier` and `JwtSigner` on aws-lc-rs, created once per key and
//! reused. Which key and algorithm a token must have is decided in `keys` and `signing`.
//!
//! jsonwebtoken's own provider on aws-lc-rs parses a public key for each signature, and the boxes that its factories
//! return cannot be shared between workers. Therefore the types behind the traits are implemented here. ES512 has no
//! variant in jsonwebtoken's `Algorithm` (<https://github.com/Keats/jsonwebtoken/issues/250>): keys on P-521 implement
//! `Verifier` and `Signer`, the supertraits of both traits, and lack only the name.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
    ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED, ECDSA_P521_SHA512_FIXED_SIGNING,
    ED25519, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding, RsaKeyPair, RsaParameters, RsaPublicKeyComponents,
    VerificationAlgorithm,
};
use jsonwebtoken::crypto::{JwtSigner, JwtVerifier};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::signature::{Error, Signer, Verifier};
use jsonwebtoken::{Algorithm as Jwt, DecodingKey, DecodingKeyKind, EncodingKey};

use super::algorithm::Algorithm;
use super::public_key::PublicKey;

/// Verifies signatures of one algorithm with one key, for all workers.
pub(super) type SignatureVerifier = Box<dyn Verifier<Vec<u8>> + Send + Sync>;

/// Creates signatures of one algorithm with one key, for all workers.
pub(super) type SignatureSigner = Box<dyn Signer<Vec<u8>> + Send + Sync>;

/// Prepares a key for verifying signatures.
///
/// # Errors
/// `InvalidAlgorithm` where the key is of another family, `Invalid...Key` where its numbers are not a valid key.
pub(super) fn verifier(algorithm: Algorithm, key: &DecodingKey) -> Result<SignatureVerifier> {
    Ok(match algorithm {
        Algorithm::Jwt(algorithm) => Box::new(JwtKey {
            key: VerifyingKey::new(algorithm, key)?,
            algorithm,
        }),
        Algorithm::Es512 => Box::new(VerifyingKey::point(&ECDSA_P521_SHA512_FIXED, key)?),
    })
}

/// Prepares a key for signing. Also returns its public part; a secret has none.
///
/// # Errors
/// As [`verifier`].
pub(super) fn signer(
    algorithm: Algorithm,
    key: &EncodingKey,
) -> Result<(SignatureSigner, Option<PublicKey>)> {
    Ok(match algorithm {
        Algorithm::Jwt(algorithm) => {
            let key = JwtKey {
                key: SigningPair::new(algorithm, key)?,
                algorithm,
            };
            let public = key.key.public(algorithm);
            (Box::new(key), public)
        }
        Algorithm::Es512 => {
            let pair = ecdsa(&ECDSA_P521_SHA512_FIXED_SIGNING, key)?;
            let public = PublicKey::P521(pair.public_key().as_ref().to_vec());
            (Box::new(SigningPair::Ecdsa(pair)), Some(public))
        }
    })
}

/// A key with jsonwebtoken's name of its algorithm.
struct JwtKey<K> {
    algorithm: Jwt,
    key: K,
}

impl Verifier<Vec<u8>> for JwtKey<VerifyingKey> {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        self.key.verify(message, signature)
    }
}

impl JwtVerifier for JwtKey<VerifyingKey> {
    fn algorithm(&self) -> Jwt {
        self.algorithm
    }
}

impl Signer<Vec<u8>> for JwtKey<SigningPair> {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, Error> {
        self.key.try_sign(message)
    }
}

impl JwtSigner for JwtKey<SigningPair> {
    fn algorithm(&self) -> Jwt {
        self.algorithm
    }
}

/// A parsed key that verifies signatures.
enum VerifyingKey {
    /// A shared secret (RFC 7518 section 3.2).
    Hmac(Box<hmac::Key>),
    /// A public key (RFC 7518 sections 3.3 to 3.5, RFC 8037 section 3.1).
    Public(ParsedPublicKey),
}

impl VerifyingKey {
    fn new(algorithm: Jwt, key: &DecodingKey) -> Result<Self> {
        if key.family() != algorithm.family() {
            return Err(ErrorKind::InvalidAlgorithm.into());
        }
        match algorithm {
            Jwt::HS256 => Self::secret(hmac::HMAC_SHA256, key),
            Jwt::HS384 => Self::secret(hmac::HMAC_SHA384, key),
            Jwt::HS512 => Self::secret(hmac::HMAC_SHA512, key),
            Jwt::RS256 => Self::rsa(&RSA_PKCS1_2048_8192_SHA256, key),
            Jwt::RS384 => Self::rsa(&RSA_PKCS1_2048_8192_SHA384, key),
            Jwt::RS512 => Self::rsa(&RSA_PKCS1_2048_8192_SHA512, key),
            Jwt::PS256 => Self::rsa(&RSA_PSS_2048_8192_SHA256, key),
            Jwt::PS384 => Self::rsa(&RSA_PSS_2048_8192_SHA384, key),
            Jwt::PS512 => Self::rsa(&RSA_PSS_2048_8192_SHA512, key),
            Jwt::ES256 => Self::point(&ECDSA_P256_SHA256_FIXED, key),
            Jwt::ES384 => Self::point(&ECDSA_P384_SHA384_FIXED, key),
            Jwt::EdDSA => Self::point(&ED25519, key),
            _ => Err(ErrorKind::UnsupportedAlgorithm.into()),
        }
    }

    fn secret(hash: hmac::Algorithm, key: &DecodingKey) -> Result<Self> {
        let secret = bytes(key).ok_or(ErrorKind::InvalidKeyFormat)?;
        Ok(Self::Hmac(Box::new(hmac::Key::new(hash, secret))))
    }

    fn rsa(scheme: &'static RsaParameters, key: &DecodingKey) -> Result<Self> {
        let parsed = match key.kind() {
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                RsaPublicKeyComponents { n, e }.to_parsed_public_key(scheme)
            }
            DecodingKeyKind::SecretOrDer(der) => ParsedPublicKey::new(scheme, der),
        };
        let parsed = parsed.map_err(|error| ErrorKind::InvalidRsaKey(error.to_string()))?;
        Ok(Self::Public(parsed))
    }

    /// A key that is a point on a curve.
    fn point(curve: &'static dyn VerificationAlgorithm, key: &DecodingKey) -> Result<Self> {
        let point = bytes(key).ok_or(ErrorKind::InvalidKeyFormat)?;
        let parsed = ParsedPublicKey::new(curve, point);
        Ok(Self::Public(
            parsed.map_err(|_| ErrorKind::InvalidEcdsaKey)?,
        ))
    }
}

fn bytes(key: &DecodingKey) -> Option<&[u8]> {
    match key.kind() {
        DecodingKeyKind::SecretOrDer(bytes) => Some(bytes),
        DecodingKeyKind::RsaModulusExponent { .. } => None,
    }
}

impl Verifier<Vec<u8>> for VerifyingKey {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        let verified = match self {
            // Compared in constant time.
            Self::Hmac(key) => hmac::verify(key, message, signature),
            Self::Public(key) => key.verify_sig(message, signature),
        };
        verified.map_err(|_| Error::new())
    }
}

/// A parsed key that signs.
enum SigningPair {
    Hmac(Box<hmac::Key>),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SigningPair {
    fn new(algorithm: Jwt, key: &EncodingKey) -> Result<Self> {
        if key.family() != algorithm.family() {
            return Err(ErrorKind::InvalidAlgorithm.into());
        }
        let hmac = |hash| Ok(Self::Hmac(Box::new(hmac::Key::new(hash, key.as_bytes()))));
        let rsa = |encoding| {
            let pair = RsaKeyPair::from_pkcs8(key.as_bytes());
            let pair = pair.map_err(|error| ErrorKind::InvalidRsaKey(error.to_string()))?;
            Ok(Self::Rsa(pair, encoding))
        };
        match algorithm {
            Jwt::HS256 => hmac(hmac::HMAC_SHA256),
            Jwt::HS384 => hmac(hmac::HMAC_SHA384),
            Jwt::HS512 => hmac(hmac::HMAC_SHA512),
            Jwt::RS256 => rsa(&RSA_PKCS1_SHA256),
            Jwt::RS384 => rsa(&RSA_PKCS1_SHA384),
            Jwt::RS512 => rsa(&RSA_PKCS1_SHA512),
            Jwt::PS256 => rsa(&RSA_PSS_SHA256),
            Jwt::PS384 => rsa(&RSA_PSS_SHA384),
            Jwt::PS512 => rsa(&RSA_PSS_SHA512),
            Jwt::ES256 => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, key).map(Self::Ecdsa),
            Jwt::ES384 => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, key).map(Self::Ecdsa),
            Jwt::EdDSA => {
                let pair = Ed25519KeyPair::from_pkcs8(key.as_bytes());
                Ok(Self::Ed25519(pair.map_err(|_| ErrorKind::InvalidEddsaKey)?))
            }
            _ => Err(ErrorKind::UnsupportedAlgorithm.into()),
        }
    }

    fn public(&self, algorithm: Jwt) -> Option<PublicKey> {
        match self {
            Self::Hmac(_) => None,
            Self::Rsa(pair, _) => {
                let key = pair.public_key();
                Some(PublicKey::rsa(
                    key.modulus().big_endian_without_leading_zero(),
                    key.exponent().big_endian_without_leading_zero(),
                ))
            }
            Self::Ecdsa(pair) => {
                let point = pair.public_key().as_ref().to_vec();
                Some(if algorithm == Jwt::ES256 {
                    PublicKey::P256(point)
                } else {
                    PublicKey::P384(point)
                })
            }
            Self::Ed25519(pair) => Some(PublicKey::Ed25519(pair.public_key().as_ref().to_vec())),
        }
    }
}

fn ecdsa(curve: &'static EcdsaSigningAlgorithm, key: &EncodingKey) -> Result<EcdsaKeyPair> {
    let pair = EcdsaKeyPair::from_pkcs8(curve, key.as_bytes());
    Ok(pair.map_err(|_| ErrorKind::InvalidEcdsaKey)?)
}

impl Signer<Vec<u8>> for SigningPair {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, Error> {
        let random = SystemRandom::new();
        match self {
            Self::Hmac(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
            Self::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &random, message, &mut signature)
                    .map_err(|_| Error::new())?;
                Ok(signature)
            }
            Self::Ecdsa(pair) => {
                let signature = pair.sign(&random, message).map_err(|_| Error::new())?;
                Ok(signature.as_ref().to_vec())
            }
            Self::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;

    use super::super::testing::{KEYS, OTHER, SECRET, public_key, sign};
    use super::*;

    /// jsonwebtoken's own provider, which parses keys each time, is the reference.
    #[test]
    fn signatures_are_judged_as_by_jsonwebtokens_own_provider() {
        for algorithm in Algorithm::ALL {
            let Algorithm::Jwt(name) = algorithm else {
                continue;
            };
            let is_secret = algorithm.secret_bytes().is_some();
            let key = if is_secret {
                DecodingKey::from_secret(SECRET)
            } else {
                public_key(&KEYS, algorithm).decoding_key()
            };
            let right = sign(&KEYS, algorithm, b"message");
            let cuts = [0, 1, right.len() / 2, right.len() - 1];
            let mut signatures: Vec<Vec<u8>> = cuts.map(|at| right[..at].to_vec()).into();
            for at in cuts {
                let mut tampered = right.clone();
                tampered[at] ^= 1;
                signatures.push(tampered);
            }
            signatures.push([right.as_slice(), &[0]].concat());
            signatures.push([&[0], right.as_slice()].concat());
            signatures.push(vec![0; right.len()]);
            signatures.push(sign(&OTHER, algorithm, b"message"));
            signatures.push(sign(&KEYS, algorithm, b"massage"));
            signatures.push(right);
            let ours = verifier(algorithm, &key).unwrap();
            let theirs = (DEFAULT_PROVIDER.verifier_factory)(&name, &key).unwrap();
            let mut good = 0;
            for signature in signatures {
                let accepted = ours.verify(b"message", &signature).is_ok();
                assert_eq!(accepted, theirs.verify(b"message", &signature).is_ok());
                good += usize::from(accepted);
            }
            // The same secret is shared by all here.
            assert_eq!(good, usize::from(is_secret) + 1, "{algorithm}");
            assert_eq!(theirs.algorithm(), name);
        }
    }

    #[test]
    fn a_key_of_another_family_or_without_sense_is_refused() {
        let secret = DecodingKey::from_secret(SECRET);
        let point = DecodingKey::from_ec_der(&[4; 65]);
        let numbers = DecodingKey::from_rsa_raw_components(&[], &[]);
        for algorithm in Algorithm::ALL {
            let fits = |key| match verifier(algorithm, key) {
                Ok(_) => true,
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    false
                }
            };
            let is_secret = matches!(
                algorithm,
                Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512
            );
            assert_eq!(fits(&secret), is_secret, "{algorithm}");
            assert!(!fits(&point) && !fits(&numbers), "{algorithm}");
            let damaged = EncodingKey::from_ec_der(b"short");
            assert!(signer(algorithm, &damaged).is_err(), "{algorithm}");
        }
    }

    #[test]
    fn the_name_of_the_algorithm_goes_with_the_key() {
        let key = VerifyingKey::new(Jwt::HS384, &DecodingKey::from_secret(SECRET)).unwrap();
        let algorithm = Jwt::HS384;
        assert_eq!(
            JwtVerifier::algorithm(&JwtKey { algorithm, key }),
            algorithm
        );
        let key = SigningPair::new(Jwt::HS384, &EncodingKey::from_secret(SECRET)).unwrap();
        assert_eq!(JwtSigner::algorithm(&JwtKey { algorithm, key }), algorithm);
    }
}
