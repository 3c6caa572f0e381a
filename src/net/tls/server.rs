//! TLS towards clients: the settings of a listener, and the handshake. Whose the socket is, and what is spoken after it, is
//! not known here.

use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::TlsFault;
use super::certificates::{ByName, CertificatePair};

/// The oldest TLS version that is accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum MinVersion {
    /// TLS 1.2 and 1.3.
    Tls12,
    /// Only TLS 1.3.
    Tls13,
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
