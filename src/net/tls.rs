//! TLS from PEM files: certificates selected by server name, trusted roots, and handshake settings. It knows nothing of
//! HTTP or of who owns a socket.

mod dates;
mod material;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::client;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use self::dates::Dates;
use self::material::Wrong;
use crate::net::der::certificate_key;

/// The oldest TLS version that is accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum MinVersion {
    /// TLS 1.2 and 1.3.
    Tls12,
    /// Only TLS 1.3.
    Tls13,
}

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
        let of = |remedy: &str, path: &Path| remedy.replace("FILE", &path.display().to_string());
        match self {
            Self::Certificate(wrong) => Some(of(wrong.remedy, certificate)),
            Self::Key(wrong) => Some(of(wrong.remedy, key)),
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

/// A certificate with its key and its DNS names.
#[derive(Debug)]
pub(crate) struct CertificatePair {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
    first_version: bool,
    /// The dates of the chain's certificates, in order, without unreadable ones.
    dates: Vec<Dates>,
}

impl CertificatePair {
    /// Reads a pair of PEM files.
    ///
    /// # Errors
    /// Either is not PEM, or they do not match.
    pub(crate) fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, TlsFault> {
        let chain = material::certificates(certificate).map_err(TlsFault::Certificate)?;
        let malformed = |error: &dyn fmt::Display| {
            TlsFault::Certificate(Wrong {
                problem: format!("the certificate cannot be read: {error}"),
                remedy: "openssl x509 -in FILE -noout -text shows what can be read",
            })
        };
        let own: Vec<Option<(&[u8], bool)>> = chain.iter().map(|it| certificate_key(it)).collect();
        let Some(Some((_, first_version))) = own.first().copied() else {
            return Err(malformed(&"its fields are damaged"));
        };
        let names = match chain.first() {
            // It has no extensions and so no names; clients decide whether they accept it.
            Some(_) if first_version => Vec::new(),
            Some(first) => {
                let parsed =
                    webpki::EndEntityCert::try_from(first).map_err(|error| malformed(&error))?;
                let names = parsed.valid_dns_names();
                names.map(str::to_ascii_lowercase).collect()
            }
            None => Vec::new(),
        };
        let private = material::private_key(key).map_err(TlsFault::Key)?;
        let key = aws_lc_rs::sign::any_supported_type(&private)
            .map_err(|_| TlsFault::Key(material::unsupported(&private)))?;
        if let Some(public) = key.public_key() {
            let fits = |it: &Option<(&[u8], bool)>| it.is_some_and(|(key, _)| key == &*public);
            match own.iter().position(fits) {
                Some(0) => {}
                Some(at) => return Err(TlsFault::Order(at)),
                None => return Err(TlsFault::Mismatch(own.len())),
            }
        }
        Ok(Self {
            dates: chain.iter().filter_map(|it| Dates::of(it)).collect(),
            key: Arc::new(CertifiedKey::new(chain, key)),
            names,
            first_version,
        })
    }

    /// A warning about a valid but questionable certificate.
    pub(crate) fn warning(&self) -> Option<&'static str> {
        self.first_version.then_some(
            "it is of X.509 version 1, which many clients refuse; a certificate with names is of version 3: openssl \
             x509 -req ... -extfile names.cnf, with subjectAltName=DNS:HOST in names.cnf",
        )
    }
}

impl CertificatePair {
    /// A warning about certificates that have expired, will soon, or are not valid yet.
    pub(crate) fn dates_warning(&self, now: SystemTime) -> Option<String> {
        let warnings = self.dates.iter().enumerate();
        let mut warnings = warnings.filter_map(|(at, dates)| {
            let warning = dates.warning(now)?;
            Some(match at {
                0 => format!("it {warning}"),
                _ => format!("number {} of its chain {warning}", at + 1),
            })
        });
        warnings.next()
    }
}

/// A warning about a PEM file of roots where all have expired or will soon.
pub(crate) fn roots_warning(pem: &[u8], now: SystemTime) -> Option<String> {
    let certificates = material::certificates(pem).ok()?;
    let dates: Option<Vec<Dates>> = certificates.iter().map(|it| Dates::of(it)).collect();
    let dates = dates?;
    let last = dates.iter().max_by_key(|dates| dates.ends())?;
    // A bundle may contain roots that are no longer needed.
    last.warning(now)
        .filter(|_| dates.iter().all(|dates| dates.warning(now).is_some()))
        .map(|warning| match dates.len() {
            1 => format!("its certificate {warning}"),
            _ => format!("the last of its certificates {warning}"),
        })
}

/// The TLS configuration of a listener.
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
    /// The crypto provider does not support the versions.
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

    /// Performs the handshake, and returns whether HTTP/2 was negotiated.
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

/// The TLS configuration of the gateway's own requests.
#[derive(Clone)]
pub(crate) struct ClientTls(Arc<ClientConfig>);

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls")
    }
}

impl ClientTls {
    /// Trusts the system's roots. Where there are none, every handshake fails with that reason.
    ///
    /// # Errors
    /// The crypto provider does not support the versions.
    pub(crate) fn system() -> Result<Self, TlsFault> {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "a root certificate of the system cannot be read");
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

    /// Trusts only the certificates of this PEM file, as roots or as a server's own certificate.
    ///
    /// # Errors
    /// It is not a PEM file with certificates.
    pub(crate) fn with_ca(pem: &[u8]) -> Result<Self, TlsFault> {
        let mut roots = RootCertStore::empty();
        let listed = material::certificates(pem).map_err(TlsFault::Certificate)?;
        for certificate in &listed {
            roots.add(certificate.clone()).map_err(|error| {
                TlsFault::Certificate(Wrong {
                    problem: format!("a certificate of the file cannot be trusted: {error}"),
                    remedy: "openssl x509 -in FILE -noout -text shows what can be read",
                })
            })?;
        }
        let provider: Arc<CryptoProvider> = Arc::new(aws_lc_rs::default_provider());
        let chains =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let chains = chains
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ByList { chains, listed }))
            .with_no_client_auth();
        Ok(Self::of(config))
    }

    fn new(roots: RootCertStore) -> Result<Self, TlsFault> {
        let provider: Arc<CryptoProvider> = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self::of(config))
    }

    fn of(mut config: ClientConfig) -> Self {
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self(Arc::new(config))
    }

    /// Performs the handshake with the server of this name or address.
    ///
    /// # Errors
    /// The handshake failed; the certificate is not trusted or not valid for this name.
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

/// Verifies a server against a list of certificates: by a chain to one of them, as usual, or because it presents one of
/// them itself, byte for byte. A listed server certificate is trusted whoever signed it, even if it is a CA; its
/// name and dates are still checked.
#[derive(Debug)]
struct ByList {
    chains: Arc<WebPkiServerVerifier>,
    listed: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for ByList {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self
            .chains
            .verify_server_cert(shown, others, name, ocsp, now);
        match verified {
            // The verifier checks dates before it reports these errors.
            Err(rustls::Error::InvalidCertificate(why))
                if says_who_signed(&why) && self.listed.contains(shown) =>
            {
                verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains
            .verify_tls12_signature(message, shown, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains
            .verify_tls13_signature(message, shown, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// Whether the error is about a certificate's issuer or its permitted use, not about its dates or names.
fn says_who_signed(why: &CertificateError) -> bool {
    if let CertificateError::Other(OtherError(other)) = why {
        let other = other.downcast_ref::<webpki::Error>();
        return matches!(other, Some(webpki::Error::CaUsedAsEndEntity));
    }
    *why == CertificateError::UnknownIssuer
}

/// Selects certificates by server name.
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
mod tests;
