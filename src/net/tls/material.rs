//! Reads certificate and private key files. For a file of the wrong kind, it tells what the file is and which command
//! converts it. How TLS uses them is not known here.

use std::path::Path;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::net::der::{INTEGER, OBJECT_ID, OCTET_STRING, SEQUENCE, element, expect};

/// The problem with a file, and the remedy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Wrong {
    /// What the file is, or how it is damaged.
    pub(crate) problem: String,
    /// The remedy, usually a command; `FILE` in it stands for the file's path.
    pub(crate) remedy: &'static str,
}

impl Wrong {
    /// The remedy for the file of this path.
    pub(crate) fn remedy_for(&self, path: &Path) -> String {
        self.remedy.replace("FILE", &path.display().to_string())
    }

    pub(super) fn new(problem: impl Into<String>, remedy: &'static str) -> Self {
        Self {
            problem: problem.into(),
            remedy,
        }
    }
}

/// The kind of a file, as far as it helps somebody who named the wrong one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Nothing,
    Utf16,
    Certificate,
    DerCertificate,
    Request,
    Pkcs7,
    DerPkcs7,
    Pkcs12,
    RevocationList,
    PublicKey,
    Key,
    DerKey,
    EncryptedKey,
    SshKey,
    DsaKey,
    Parameters,
    Unknown,
}

impl Kind {
    /// Detects the kind; in a PEM file the first block that is not parameters decides.
    fn of(bytes: &[u8]) -> Self {
        if bytes.trim_ascii().is_empty() {
            return Self::Nothing;
        }
        if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
            return Self::Utf16;
        }
        if bytes.first() == Some(&SEQUENCE) {
            return Self::of_der(bytes);
        }
        let text = String::from_utf8_lossy(bytes);
        let mut found = Self::Unknown;
        for part in text.split("-----BEGIN ").skip(1) {
            let label = part.split("-----").next().unwrap_or_default();
            found = match label {
                "CERTIFICATE" | "TRUSTED CERTIFICATE" | "X509 CERTIFICATE" => Self::Certificate,
                "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => Self::Request,
                "PKCS7" | "CMS" => Self::Pkcs7,
                "X509 CRL" => Self::RevocationList,
                "PUBLIC KEY" | "RSA PUBLIC KEY" => Self::PublicKey,
                "ENCRYPTED PRIVATE KEY" => Self::EncryptedKey,
                "OPENSSH PRIVATE KEY" => Self::SshKey,
                "DSA PRIVATE KEY" => Self::DsaKey,
                // RFC 1421 section 4.6.1.1.
                _ if label.ends_with("PRIVATE KEY") && part.contains("ENCRYPTED") => {
                    Self::EncryptedKey
                }
                _ if label.ends_with("PRIVATE KEY") => Self::Key,
                _ if label.ends_with("PARAMETERS") => {
                    found = Self::Parameters;
                    continue;
                }
                _ => Self::Unknown,
            };
            break;
        }
        found
    }

    fn of_der(bytes: &[u8]) -> Self {
        let Some((content, _)) = expect(bytes, SEQUENCE) else {
            return Self::Unknown;
        };
        if expect(content, OBJECT_ID).is_some() {
            return Self::DerPkcs7;
        }
        match expect(content, INTEGER) {
            // RFC 7292 section 4.
            Some(([3], _)) => Self::Pkcs12,
            Some(_) => Self::DerKey,
            None if expect(content, SEQUENCE).is_some() => Self::DerCertificate,
            None => Self::Unknown,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "empty",
            Self::Utf16 => "text in UTF-16",
            Self::Certificate => "a certificate",
            Self::DerCertificate => "a certificate in DER, not PEM",
            Self::Request => "a certificate signing request (CSR)",
            Self::Pkcs7 | Self::DerPkcs7 => "a PKCS#7 bundle",
            Self::Pkcs12 => "a PKCS#12 bundle",
            Self::RevocationList => "a certificate revocation list",
            Self::PublicKey => "a public key",
            Self::Key => "a private key",
            Self::DerKey => "a private key in DER, not PEM",
            Self::EncryptedKey => "a private key that is encrypted with a passphrase",
            Self::SshKey => "a private key of OpenSSH",
            Self::DsaKey => "a DSA key, which TLS no longer has",
            Self::Parameters => "parameters of a key without the key",
            Self::Unknown => "no PEM file",
        }
    }
}

const TO_UTF8: &str = "iconv -f UTF-16 -t UTF-8 FILE > utf8.pem";
const NEW_KEY: &str = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem, and a certificate for it";

/// The certificates of a PEM file, in order; at least one. `TRUSTED CERTIFICATE` blocks, OpenSSL's own form, are read
/// without their trust settings.
///
/// # Errors
/// The file contains none, or is damaged.
pub(crate) fn certificates(file: &[u8]) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    const TRUSTED: &str = " TRUSTED CERTIFICATE-----";
    let text = String::from_utf8_lossy(file);
    let trusted = text.contains(TRUSTED);
    let plain = text.replace(TRUSTED, " CERTIFICATE-----");
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(plain.as_bytes()) {
        let certificate = certificate.map_err(|error| {
            Wrong::new(
                format!("the PEM file with certificates is damaged: {error}"),
                "openssl x509 -in FILE -noout -text shows what can be read",
            )
        })?;
        found.push(match element(&certificate, SEQUENCE) {
            // OpenSSL's trust settings follow the certificate.
            Some((alone, rest)) if trusted && !rest.is_empty() => {
                CertificateDer::from(alone.to_vec())
            }
            Some(_) | None => certificate,
        });
    }
    if !found.is_empty() {
        return Ok(found);
    }
    let kind = Kind::of(file);
    let remedy = match kind {
        Kind::Utf16 => TO_UTF8,
        Kind::DerCertificate => "openssl x509 -inform der -in FILE -out cert.pem",
        Kind::Request => {
            "a CA makes a certificate of it; for tests: openssl x509 -req -in FILE -signkey key.pem -copy_extensions copyall -days 30 -out cert.pem"
        }
        Kind::Pkcs7 => "openssl pkcs7 -in FILE -print_certs -out cert.pem",
        Kind::DerPkcs7 => "openssl pkcs7 -inform der -in FILE -print_certs -out cert.pem",
        Kind::Pkcs12 => "openssl pkcs12 -in FILE -nokeys -out cert.pem",
        Kind::PublicKey => {
            "a certificate has a name and dates, too; for tests: openssl req -x509 -key key.pem -days 30 -subj /CN=localhost -out cert.pem"
        }
        Kind::Key | Kind::DerKey | Kind::EncryptedKey | Kind::SshKey | Kind::DsaKey => {
            "the certificate belongs here, and its private key in `key`"
        }
        Kind::Certificate
        | Kind::Nothing
        | Kind::RevocationList
        | Kind::Parameters
        | Kind::Unknown => "it begins with `-----BEGIN CERTIFICATE-----`",
    };
    Err(Wrong::new(
        format!(
            "there is no certificate in this file: it is {}",
            kind.name()
        ),
        remedy,
    ))
}

/// The unencrypted private key of a PEM file.
///
/// # Errors
/// The file contains none, or it is encrypted or damaged.
pub(crate) fn private_key(file: &[u8]) -> Result<PrivateKeyDer<'static>, Wrong> {
    if is_encrypted(file) {
        return Err(Wrong::new(
            "the private key is encrypted with a passphrase, which the gateway cannot ask for",
            "openssl pkey -in FILE -out plain.key",
        ));
    }
    let why = match PrivateKeyDer::from_pem_slice(file) {
        Ok(key) => return Ok(key),
        Err(why) => why,
    };
    let kind = Kind::of(file);
    let remedy = match kind {
        Kind::Utf16 => TO_UTF8,
        Kind::DerKey => "openssl pkey -inform der -in FILE -out key.pem",
        Kind::Pkcs12 => "openssl pkcs12 -in FILE -nocerts -nodes -out key.pem",
        Kind::SshKey => "cp FILE key.pem && ssh-keygen -p -N '' -m PKCS8 -f key.pem",
        Kind::DsaKey | Kind::Parameters => NEW_KEY,
        Kind::Certificate | Kind::DerCertificate | Kind::Request | Kind::PublicKey => {
            "the private key belongs here, which was made together with it"
        }
        Kind::Key => {
            let problem = format!("the PEM file with the private key is damaged: {why}");
            return Err(Wrong::new(
                problem,
                "openssl pkey -in FILE -noout -text shows what can be read",
            ));
        }
        Kind::EncryptedKey
        | Kind::Nothing
        | Kind::Pkcs7
        | Kind::DerPkcs7
        | Kind::RevocationList
        | Kind::Unknown => "it begins with `-----BEGIN PRIVATE KEY-----`",
    };
    Err(Wrong::new(
        format!(
            "there is no private key in this file: it is {}",
            kind.name()
        ),
        remedy,
    ))
}

/// Whether the first private key of a PEM file is encrypted (RFC 7468 section 11, RFC 1421 section 4.6.1.1).
fn is_encrypted(file: &[u8]) -> bool {
    let text = String::from_utf8_lossy(file);
    let mut parts = text.split("-----BEGIN ").skip(1);
    let key = parts.find(|part| {
        let label = part.split("-----").next().unwrap_or_default();
        label.ends_with("PRIVATE KEY")
    });
    key.is_some_and(|key| key.starts_with("ENCRYPTED ") || key.contains("Proc-Type: 4,ENCRYPTED"))
}

/// Why the TLS library cannot sign with a key that was read.
pub(crate) fn unsupported(key: &PrivateKeyDer<'_>) -> Wrong {
    const PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
    let (id, rsa) = match key {
        PrivateKeyDer::Pkcs1(key) => (None, Some(key.secret_pkcs1_der())),
        PrivateKeyDer::Pkcs8(key) => match of_pkcs8(key.secret_pkcs8_der()) {
            Some((id, inner)) => (Some(id), (id == RSA).then_some(inner)),
            None => (None, None),
        },
        PrivateKeyDer::Sec1(_) | _ => (None, None),
    };
    if id == Some(PSS) {
        return Wrong::new(
            "this is an RSA-PSS key, for which the TLS library has no signatures; a plain RSA key makes PSS signatures, too",
            "openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out key.pem, and a certificate for it",
        );
    }
    match rsa.and_then(modulus_bits) {
        Some(bits) if bits < 2048 => Wrong::new(
            format!("the RSA key has {bits} bits; 2048 are the least that is accepted"),
            NEW_KEY,
        ),
        Some(bits) if bits > 8192 => Wrong::new(
            format!("the RSA key has {bits} bits; 8192 are the most that is accepted"),
            NEW_KEY,
        ),
        Some(_) | None => Wrong::new(
            "this kind of private key is not supported, or the key is damaged; RSA, P-256, P-384, P-521 and Ed25519 are",
            NEW_KEY,
        ),
    }
}

/// The algorithm and the key in PKCS#8 (RFC 5958 section 2).
fn of_pkcs8(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (content, _) = expect(der, SEQUENCE)?;
    let (_, rest) = expect(content, INTEGER)?;
    let (algorithm, rest) = expect(rest, SEQUENCE)?;
    let (id, _) = expect(algorithm, OBJECT_ID)?;
    Some((id, expect(rest, OCTET_STRING)?.0))
}

/// The modulus length of a PKCS#1 key in bits (RFC 8017 appendix A.1.2).
fn modulus_bits(der: &[u8]) -> Option<usize> {
    let (content, _) = expect(der, SEQUENCE)?;
    let (_, rest) = expect(content, INTEGER)?;
    let (modulus, _) = expect(rest, INTEGER)?;
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let modulus = modulus.get(zeros..)?;
    let spare = usize::try_from(modulus.first()?.leading_zeros()).ok()?;
    Some(modulus.len() * 8 - spare)
}
