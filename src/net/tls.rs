//! TLS: `certificates` for a listener from PEM files, `issued` those that ACME brought, `challenge` what ACME's directories
//! look for, `clients` who may connect, `server` the handshake with them, `outgoing` the gateway's own requests. It knows
//! nothing of HTTP or of who owns a socket.

mod certificates;
mod challenge;
mod clients;
mod dates;
mod extensions;
mod issued;
mod material;
mod outgoing;
#[cfg(any(test, fuzzing))]
mod properties;
mod server;
mod tickets;

use std::path::Path;

pub(crate) use self::certificates::{CertificatePair, UnknownName};
pub(crate) use self::challenge::{Challenges, Posted};
pub(crate) use self::clients::{
    At, Authorities, ClientCertificate, Clients, Fingerprint, Name, Part, RevocationList,
    ShownChain,
};
pub(crate) use self::issued::{About, Issued, Slot};
use self::material::Wrong;
pub(crate) use self::outgoing::{ClientTls, roots_warning};
#[cfg(any(test, fuzzing))]
pub(crate) use self::properties::{case_file, material_holds};
pub(crate) use self::server::{MinVersion, NoHandshake, Tls, TlsSettings};
#[cfg(any(test, fuzzing))]
pub(crate) use self::tickets::ticket_holds;
pub(crate) use self::tickets::{SharedKey, TicketRing};

/// A problem with a certificate or its key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsFault {
    /// The certificate file is not usable.
    #[error("{}", .0.problem)]
    Certificate(Wrong),
    /// The key file is not usable.
    #[error("{}", .0.problem)]
    Key(Wrong),
    /// Both are valid, but do not match.
    #[error("the key does not belong to {}", if *.0 == 1 { "the certificate" } else { "any certificate of the file; its own may be missing there" })]
    Mismatch(usize),
    /// The key matches a certificate that is not the first.
    #[error("the certificates are in the wrong order: the key belongs to number {} of the file, and its certificate stands first", .0 + 1)]
    Order(usize),
    /// rustls rejected the settings.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

impl TlsFault {
    /// Whether the problem is in the certificate file rather than the key file.
    pub(crate) fn concerns_certificate(&self) -> bool {
        match self {
            Self::Certificate(_) | Self::Order(_) => true,
            Self::Key(_) | Self::Mismatch(_) | Self::Setup(_) => false,
        }
    }

    /// The remedy, with the paths of the two files; for a file of roots, both are that file.
    pub(crate) fn remedy(&self, certificate: &Path, key: &Path) -> Option<String> {
        match self {
            Self::Certificate(wrong) => Some(wrong.remedy_for(certificate)),
            Self::Key(wrong) => Some(wrong.remedy_for(key)),
            Self::Mismatch(_) => Some(format!(
                "these two print the same where they fit: openssl x509 -in {} -noout -pubkey; openssl pkey -in {} -pubout",
                certificate.display(),
                key.display()
            )),
            Self::Order(_) => {
                Some("cat server.pem intermediates.pem > chain.pem, without the root".to_owned())
            }
            Self::Setup(_) => None,
        }
    }
}
