//! PEM to TLS: certificates chosen by name, roots that are trusted, and the handshakes' settings.
//! Knows nothing of sockets' owners or of HTTP.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::client;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The oldest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum MinVersion {
    /// TLS 1.2 and 1.3.
    Tls12,
    /// TLS 1.3 alone.
    Tls13,
}

/// What is wrong with a certificate or its key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsFault {
    /// The certificate file.
    #[error("this is no PEM file with certificates: {0}")]
    Certificate(String),
    /// The key file.
    #[error("this is no PEM file with a private key: {0}")]
    Key(String),
    /// Both are fine, but do not belong together.
    #[error("the key does not belong to the certificate")]
    Mismatch,
    /// The settings cannot be made.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

impl TlsFault {
    /// Whether the certificate's file is at fault, not the key's.
    pub(crate) fn concerns_certificate(&self) -> bool {
        match self {
            Self::Certificate(_) => true,
            Self::Key(_) | Self::Mismatch | Self::Setup(_) => false,
        }
    }
}

/// A certificate with its key, and the names that it is for.
#[derive(Debug)]
pub(crate) struct CertificatePair {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
}

impl CertificatePair {
    /// Reads a pair of PEM files.
    ///
    /// # Errors
    /// Either is no PEM, or they do not belong together.
    pub(crate) fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, TlsFault> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<_, _>>()
            .map_err(|error| TlsFault::Certificate(error.to_string()))?;
        let Some(first) = chain.first() else {
            return Err(TlsFault::Certificate("no certificate in it".to_owned()));
        };
        let parsed = webpki::EndEntityCert::try_from(first)
            .map_err(|error| TlsFault::Certificate(error.to_string()))?;
        let names = parsed
            .valid_dns_names()
            .map(str::to_ascii_lowercase)
            .collect();
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|error| TlsFault::Key(error.to_string()))?;
        let key = aws_lc_rs::sign::any_supported_type(&key)
            .map_err(|error| TlsFault::Key(error.to_string()))?;
        let pair = CertifiedKey::new(chain, key);
        match pair.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(_) => return Err(TlsFault::Mismatch),
        }
        Ok(Self {
            key: Arc::new(pair),
            names,
        })
    }
}

/// The TLS side of one listener.
#[derive(Clone)]
pub(crate) struct Tls(Arc<ServerConfig>);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Settings for these certificates; a client that names none of them gets the first.
    ///
    /// # Errors
    /// The provider cannot serve the versions.
    pub(crate) fn new(pairs: Vec<CertificatePair>, oldest: MinVersion) -> Result<Self, TlsFault> {
        let provider: Arc<CryptoProvider> = Arc::new(aws_lc_rs::default_provider());
        let versions: &[&rustls::SupportedProtocolVersion] = match oldest {
            MinVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            MinVersion::Tls13 => &[&rustls::version::TLS13],
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(ByName::new(pairs)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        Ok(Self(Arc::new(config)))
    }

    /// Shakes hands; says whether the client chose HTTP/2.
    ///
    /// # Errors
    /// The handshake failed.
    pub(crate) async fn accept<S>(&self, stream: S) -> std::io::Result<(TlsStream<S>, bool)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = TlsAcceptor::from(Arc::clone(&self.0))
            .accept(stream)
            .await?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((stream, http2))
    }
}

/// The TLS side of the gateway's own requests.
#[derive(Clone)]
pub(crate) struct ClientTls(Arc<ClientConfig>);

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls")
    }
}

impl ClientTls {
    /// Trusts the system's roots. Where there are none, every handshake fails and says so.
    ///
    /// # Errors
    /// The provider cannot speak the versions.
    pub(crate) fn system() -> Result<Self, TlsFault> {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "a root certificate of the system is left out");
        }
        let (_, bad) = roots.add_parsable_certificates(found.certs);
        if bad > 0 {
            tracing::debug!(bad, "root certificates of the system are malformed");
        }
        if roots.is_empty() {
            tracing::warn!(
                "the system has no root certificates, so no https:// server is trusted; install \
                 ca-certificates, or name a `ca`"
            );
        }
        Self::new(roots)
    }

    /// Trusts these certificates, a PEM file, and no others.
    ///
    /// # Errors
    /// It is no PEM file with certificates.
    pub(crate) fn with_ca(pem: &[u8]) -> Result<Self, TlsFault> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            certificate
                .map_err(|error| error.to_string())
                .and_then(|it| roots.add(it).map_err(|error| error.to_string()))
                .map_err(TlsFault::Certificate)?;
        }
        if roots.is_empty() {
            return Err(TlsFault::Certificate("no certificate in it".to_owned()));
        }
        Self::new(roots)
    }

    fn new(roots: RootCertStore) -> Result<Self, TlsFault> {
        let provider: Arc<CryptoProvider> = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// Shakes hands with the server of this name or address.
    ///
    /// # Errors
    /// The handshake failed; the certificate is not trusted or is not for this name.
    pub(crate) async fn connect<S>(
        &self,
        host: &str,
        stream: S,
    ) -> std::io::Result<client::TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
        TlsConnector::from(Arc::clone(&self.0))
            .connect(name, stream)
            .await
    }
}

/// Certificates by the names that they are for.
#[derive(Debug)]
struct ByName {
    names: HashMap<String, Arc<CertifiedKey>>,
    first: Option<Arc<CertifiedKey>>,
}

impl ByName {
    fn new(pairs: Vec<CertificatePair>) -> Self {
        let mut names = HashMap::new();
        let mut first = None;
        for pair in pairs {
            first.get_or_insert_with(|| Arc::clone(&pair.key));
            for name in pair.names {
                names.entry(name).or_insert_with(|| Arc::clone(&pair.key));
            }
        }
        Self { names, first }
    }

    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let found = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            self.names.get(&name).or_else(|| {
                let (_, parent) = name.split_once('.')?;
                self.names.get(&format!("*.{parent}"))
            })
        });
        found.or(self.first.as_ref()).map(Arc::clone)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(names: &[&str]) -> CertificatePair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        CertificatePair::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap()
    }

    #[test]
    fn the_certificate_is_chosen_by_name() {
        let pairs = vec![pair(&["a.example"]), pair(&["*.b.example", "b.example"])];
        let (first, second) = (Arc::clone(&pairs[0].key), Arc::clone(&pairs[1].key));
        let by_name = ByName::new(pairs);
        let is = |name: Option<&str>, key: &Arc<CertifiedKey>| {
            assert!(Arc::ptr_eq(&by_name.find(name).unwrap(), key), "{name:?}");
        };
        is(Some("A.example"), &first);
        is(Some("b.example"), &second);
        is(Some("x.b.example"), &second);
        is(Some("x.y.b.example"), &first);
        is(Some("else.example"), &first);
        is(None, &first);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let one = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let two = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let read = |key: &str| CertificatePair::from_pem(one.cert.pem().as_bytes(), key.as_bytes());
        assert!(read(&one.signing_key.serialize_pem()).is_ok());
        assert!(matches!(
            read(&two.signing_key.serialize_pem()),
            Err(TlsFault::Mismatch)
        ));
        assert!(matches!(read("nonsense"), Err(TlsFault::Key(_))));
        assert!(matches!(
            CertificatePair::from_pem(b"", b""),
            Err(TlsFault::Certificate(_))
        ));
    }
}
