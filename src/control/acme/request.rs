//! Keys, certificate requests (RFC 2986), and the certificates of tls-alpn-01 challenges (RFC 8737). Making an RSA key
//! takes a moment, so callers run this off the control side's loop.

use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, RsaKeySize,
};

use crate::snapshot::KeyKind;

/// A new private key, PEM.
///
/// # Errors
/// The crypto provider failed.
pub(super) fn new_key(kind: KeyKind) -> Result<String, rcgen::Error> {
    let key = match kind {
        KeyKind::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
        KeyKind::P384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
        KeyKind::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
    };
    Ok(key?.serialize_pem())
}

/// A request for a certificate of these names with this key, DER.
///
/// # Errors
/// The key is damaged, or a name cannot be in a certificate.
pub(super) fn request(names: &[String], key: &str) -> Result<Vec<u8>, rcgen::Error> {
    let key = KeyPair::from_pem(key)?;
    let mut params = CertificateParams::new(names)?;
    // Names stand in the extension alone; a common name is not looked at by anybody.
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(&key)?.der().to_vec())
}

/// The certificate, DER, and its key, PKCS#8, that answer a tls-alpn-01 challenge with this digest of the key
/// authorization (RFC 8737 section 3).
///
/// # Errors
/// The name cannot be in a certificate, or the crypto provider failed.
pub(super) fn challenge(name: &str, digest: &[u8]) -> Result<(Vec<u8>, Vec<u8>), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key)?;
    Ok((certificate.der().to_vec(), key.serialize_der()))
}
