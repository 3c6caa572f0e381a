//! `SignatureKey`: a key made ready for one algorithm, and the check of a signature with it. Which
//! key and which algorithm are right for a token is decided in `keys`.
//!
//! This stands on aws-lc-rs itself and not on jsonwebtoken: there the algorithms are a closed enum
//! without ES512, which no crypto provider can add to, and each check makes the key anew.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
};

use super::algorithm::Algorithm;
use super::public_key::PublicKey;

/// A key for one algorithm, ready to check signatures.
pub(crate) enum SignatureKey {
    /// A shared secret (RFC 7518 section 3.2).
    Hmac(Box<hmac::Key>),
    /// A public key (RFC 7518 sections 3.3 to 3.5, RFC 8037 section 3.1).
    Public(ParsedPublicKey),
}

impl std::fmt::Debug for SignatureKey {
    /// A key is never shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Hmac(_) => "a secret",
            Self::Public(_) => "a public key",
        })
    }
}

impl SignatureKey {
    /// A secret for an algorithm; `None` where that is none of HMAC.
    pub(crate) fn secret(secret: &[u8], algorithm: Algorithm) -> Option<Self> {
        let hash = match algorithm {
            Algorithm::Hs256 => hmac::HMAC_SHA256,
            Algorithm::Hs384 => hmac::HMAC_SHA384,
            Algorithm::Hs512 => hmac::HMAC_SHA512,
            Algorithm::Rs256
            | Algorithm::Rs384
            | Algorithm::Rs512
            | Algorithm::Ps256
            | Algorithm::Ps384
            | Algorithm::Ps512
            | Algorithm::Es256
            | Algorithm::Es384
            | Algorithm::Es512
            | Algorithm::EdDsa => return None,
        };
        Some(Self::Hmac(Box::new(hmac::Key::new(hash, secret))))
    }

    /// A public key for an algorithm; `None` where they do not fit, or the numbers are no key.
    pub(crate) fn public(key: &PublicKey, algorithm: Algorithm) -> Option<Self> {
        let parsed = match (key, algorithm) {
            (PublicKey::Rsa { n, e }, _) => RsaPublicKeyComponents { n, e }
                .to_parsed_public_key(rsa(algorithm)?)
                .ok()?,
            (PublicKey::P256(point), Algorithm::Es256) => {
                ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).ok()?
            }
            (PublicKey::P384(point), Algorithm::Es384) => {
                ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).ok()?
            }
            (PublicKey::P521(point), Algorithm::Es512) => {
                ParsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, point).ok()?
            }
            (PublicKey::Ed25519(key), Algorithm::EdDsa) => {
                ParsedPublicKey::new(&ED25519, key).ok()?
            }
            (
                PublicKey::P256(_)
                | PublicKey::P384(_)
                | PublicKey::P521(_)
                | PublicKey::Ed25519(_),
                _,
            ) => return None,
        };
        Some(Self::Public(parsed))
    }

    /// Whether this is the message's signature.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            // Compared in constant time.
            Self::Hmac(key) => hmac::verify(key, message, signature).is_ok(),
            Self::Public(key) => key.verify_sig(message, signature).is_ok(),
        }
    }
}

fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    match algorithm {
        Algorithm::Rs256 => Some(&RSA_PKCS1_2048_8192_SHA256),
        Algorithm::Rs384 => Some(&RSA_PKCS1_2048_8192_SHA384),
        Algorithm::Rs512 => Some(&RSA_PKCS1_2048_8192_SHA512),
        Algorithm::Ps256 => Some(&RSA_PSS_2048_8192_SHA256),
        Algorithm::Ps384 => Some(&RSA_PSS_2048_8192_SHA384),
        Algorithm::Ps512 => Some(&RSA_PSS_2048_8192_SHA512),
        Algorithm::Hs256
        | Algorithm::Hs384
        | Algorithm::Hs512
        | Algorithm::Es256
        | Algorithm::Es384
        | Algorithm::Es512
        | Algorithm::EdDsa => None,
    }
}
