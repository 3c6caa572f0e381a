//! Public keys in PEM files (RFC 7468): SubjectPublicKeyInfo, PKCS#1 RSA, or a certificate, of which only the key is
//! used. A certificate's dates and names are ignored.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::key_fault::KeyProblem;
use super::public_key::PublicKey;
use crate::net::der::{BIT_STRING, INTEGER, OBJECT_ID, SEQUENCE, certificate_key, expect, whole};

const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const ELLIPTIC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// Whether the bytes look like a PEM file, which is never a shared secret.
pub(crate) fn is_pem(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, b"-----BEGIN ").is_some()
}

/// The content of a PEM file.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Found {
    /// The key.
    pub(crate) key: PublicKey,
    /// Of a certificate, `x5t` and `x5t#S256` (RFC 7515 sections 4.1.7 and 4.1.8).
    pub(crate) thumbprints: Vec<String>,
}

/// The one public key of a PEM file. Its strength is not checked here.
///
/// # Errors
/// Where the file is not a PEM file, or contains a private key, several keys, or a key of another kind.
pub(crate) fn public_key(file: &[u8]) -> Result<Found, KeyProblem> {
    let text = std::str::from_utf8(file).map_err(|_| KeyProblem::NotPem)?;
    let (_, after) = text.split_once("-----BEGIN ").ok_or(KeyProblem::NotPem)?;
    let (label, after) = after.split_once("-----").ok_or(KeyProblem::NotPem)?;
    if label.contains("PRIVATE KEY") {
        return Err(KeyProblem::PrivateKey);
    }
    let (body, rest) = after
        .split_once(&format!("-----END {label}-----"))
        .ok_or(KeyProblem::NotPem)?;
    if rest.contains("-----BEGIN ") {
        return Err(KeyProblem::SeveralKeys);
    }
    let body: String = body.split_ascii_whitespace().collect();
    let der = STANDARD.decode(body).map_err(|_| KeyProblem::NotPem)?;
    let key = match label {
        "PUBLIC KEY" => whole(&der, SEQUENCE).map(key_info),
        "CERTIFICATE" => certificate_key(&der)
            .and_then(|(key, _)| whole(key, SEQUENCE))
            .map(key_info),
        "RSA PUBLIC KEY" => Some(rsa(&der).ok_or(BROKEN)),
        _ => return Err(KeyProblem::NotPem),
    };
    let thumbprints = if label == "CERTIFICATE" {
        [&digest::SHA1_FOR_LEGACY_USE_ONLY, &digest::SHA256]
            .map(|hash| URL_SAFE_NO_PAD.encode(digest::digest(hash, &der)))
            .into()
    } else {
        Vec::new()
    };
    Ok(Found {
        key: key.ok_or(BROKEN)??,
        thumbprints,
    })
}

const BROKEN: KeyProblem = KeyProblem::Malformed("the PEM file's content is damaged");

/// The key of a SubjectPublicKeyInfo's content (RFC 5280 section 4.1.2.7).
fn key_info(content: &[u8]) -> Result<PublicKey, KeyProblem> {
    let (algorithm, rest) = expect(content, SEQUENCE).ok_or(BROKEN)?;
    let (id, parameters) = expect(algorithm, OBJECT_ID).ok_or(BROKEN)?;
    let bits = whole(rest, BIT_STRING).ok_or(BROKEN)?;
    let key = bits.strip_prefix(&[0]).ok_or(BROKEN)?;
    match id {
        RSA => rsa(key).ok_or(BROKEN),
        ED25519 => Ok(PublicKey::Ed25519(key.to_vec())),
        ELLIPTIC => match whole(parameters, OBJECT_ID).ok_or(BROKEN)? {
            P256 => Ok(PublicKey::P256(key.to_vec())),
            P384 => Ok(PublicKey::P384(key.to_vec())),
            P521 => Ok(PublicKey::P521(key.to_vec())),
            _ => Err(KeyProblem::Unsupported(
                "the curve is not P-256, P-384 or P-521",
            )),
        },
        _ => Err(KeyProblem::Unsupported(
            "the key is not RSA, P-256, P-384, P-521 or Ed25519",
        )),
    }
}

/// A PKCS#1 RSAPublicKey (RFC 8017 appendix A.1.1).
fn rsa(der: &[u8]) -> Option<PublicKey> {
    let (n, rest) = expect(whole(der, SEQUENCE)?, INTEGER)?;
    let e = whole(rest, INTEGER)?;
    Some(PublicKey::rsa(n, e))
}
