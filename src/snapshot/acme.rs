//! What a configuration says about certificates from ACME directories: which, from where, and the cells that they are
//! served from. `control/acme` orders them.

use std::path::PathBuf;
use std::sync::Arc;

use crate::net::tls::{Challenges, Slot};
use crate::net::url::Url;

/// All certificates that the gateway orders itself.
#[derive(Debug)]
pub(crate) struct Acme {
    /// The directory of `state`.
    pub(crate) state: PathBuf,
    /// The certificates, in the configuration's order.
    pub(crate) managed: Vec<Arc<Managed>>,
    /// The challenges that are pending; the same across reloads.
    pub(crate) challenges: Arc<Challenges>,
}

/// One certificate.
#[derive(Debug)]
pub(crate) struct Managed {
    /// Its names, in lower case, at least one. The first names its directory in `state`.
    pub(crate) names: Vec<String>,
    /// How it is ordered.
    pub(crate) settings: Arc<AcmeSettings>,
    /// Where it is served from; the same across reloads.
    pub(crate) slot: Arc<Slot>,
}

/// How certificates are ordered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct AcmeSettings {
    /// The directory.
    pub(crate) directory: Url,
    /// Where to rehearse after a failed validation.
    pub(crate) staging: Option<Url>,
    /// Roots for the directory's own server, PEM; the system's where there are none.
    pub(crate) ca: Option<Vec<u8>>,
    /// The contact.
    pub(crate) email: Option<String>,
    /// The external account that the directory's account belongs to.
    pub(crate) eab: Option<Eab>,
    /// The challenges that may be used, in turn; at least one.
    pub(crate) challenges: Vec<ChallengeKind>,
    /// The directory's profile.
    pub(crate) profile: Option<String>,
    /// The kind of key.
    pub(crate) key: KeyKind,
}

/// A way to prove control of a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ChallengeKind {
    /// RFC 8737.
    TlsAlpn01,
    /// RFC 8555 section 8.3.
    Http01,
}

impl ChallengeKind {
    /// Its name in RFC 8555 and RFC 8737.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Http01 => "http-01",
        }
    }
}

/// The kind of a certificate's key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum KeyKind {
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// RSA with 2048 bits.
    Rsa2048,
}

/// An external account (RFC 8555 section 7.3.4).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Eab {
    /// Its name.
    pub(crate) kid: String,
    /// Its key.
    pub(crate) hmac: Hmac,
}

/// The key of an external account. Its `Debug` hides it.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct Hmac(Vec<u8>);

impl Hmac {
    /// Wraps a key.
    pub(crate) fn new(key: Vec<u8>) -> Self {
        Self(key)
    }

    /// The key's bytes.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Hmac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}
