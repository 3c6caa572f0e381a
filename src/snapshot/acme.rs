//! What a configuration says about certificates from ACME directories: which, from where, and the cells that they are
//! served from. `control/acme` orders them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::net::tls::{Challenges, Slot};
use crate::net::url::Url;
use crate::observe::counts::Counts;
use crate::state::State;

/// All certificates that the gateway orders itself.
#[derive(Debug)]
pub(crate) struct Acme {
    /// Where keys and certificates are kept.
    pub(crate) state: State,
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
    /// All numbers.
    pub(crate) counts: Arc<Counts>,
}

/// How certificates are ordered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct AcmeSettings {
    /// The directories, in the order in which they are tried; at least one. The first one's directory in `state` has what is
    /// known about the certificates.
    pub(crate) directories: Vec<AcmeDirectory>,
    /// The contact.
    pub(crate) email: Option<String>,
    /// The challenges that may be used, in turn; at least one.
    pub(crate) challenges: Vec<ChallengeKind>,
    /// Who changes the DNS for `dns-01`.
    pub(crate) dns: Option<DnsHook>,
    /// The directory's profile.
    pub(crate) profile: Option<String>,
    /// The kind of key.
    pub(crate) key: KeyKind,
}

impl AcmeSettings {
    /// The directory with this URL.
    pub(crate) fn directory(&self, url: &str) -> Option<&AcmeDirectory> {
        let mut directories = self.directories.iter();
        directories.find(|directory| directory.url.whole() == url)
    }
}

/// A directory, and what it needs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct AcmeDirectory {
    /// Its URL.
    pub(crate) url: Url,
    /// Where to rehearse after a failed validation.
    pub(crate) staging: Option<Url>,
    /// Roots for its own server, PEM; the system's where there are none.
    pub(crate) ca: Option<Arc<Vec<u8>>>,
    /// The external account that the account there belongs to.
    pub(crate) eab: Option<Eab>,
}

/// A program that changes the DNS, with lego's `exec` arguments.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct DnsHook {
    /// The program.
    pub(crate) hook: PathBuf,
    /// How long a change takes until all servers of the zone have it.
    pub(crate) wait: Duration,
}

/// A way to prove control of a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ChallengeKind {
    /// RFC 8737.
    TlsAlpn01,
    /// RFC 8555 section 8.3.
    Http01,
    /// RFC 8555 section 8.4.
    Dns01,
}

impl ChallengeKind {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::TlsAlpn01, Self::Http01, Self::Dns01];

    /// Its name in RFC 8555 and RFC 8737.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Http01 => "http-01",
            Self::Dns01 => "dns-01",
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
