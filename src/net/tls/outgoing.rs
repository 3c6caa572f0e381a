//! TLS of the gateway's own requests: which servers are trusted. It knows nothing of HTTP.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::TlsFault;
use super::dates::Dates;
use super::material::{self, Wrong};

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
    pub(crate) async fn connect<S>(&self, host: &str, stream: S) -> std::io::Result<TlsStream<S>>
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_shows_a_listed_certificate_is_trusted_for_its_name_and_its_time() {
        let year = |year| rcgen::date_time_ymd(year, 1, 1);
        let make = |ca: bool, until| {
            let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
            if ca {
                params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            }
            (params.not_before, params.not_after) = (year(2020), year(until));
            let key = rcgen::KeyPair::generate().unwrap();
            params.self_signed(&key).unwrap()
        };
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_790_000_000));
        let verify = |listed: &[&rcgen::Certificate], shown: &rcgen::Certificate, name: &str| {
            let mut roots = RootCertStore::empty();
            let listed: Vec<_> = listed.iter().map(|it| it.der().clone()).collect();
            for one in &listed {
                roots.add(one.clone()).unwrap();
            }
            let provider = Arc::new(aws_lc_rs::default_provider());
            let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
            let chains = chains.build().unwrap();
            let name = ServerName::try_from(name.to_owned()).unwrap();
            let by_list = ByList { chains, listed };
            let verified = by_list.verify_server_cert(shown.der(), &[], &name, &[], now);
            verified.map(drop).map_err(|error| error.to_string())
        };
        for ca in [true, false] {
            let (good, twin, old) = (make(ca, 2100), make(ca, 2100), make(ca, 2021));
            assert_eq!(verify(&[&twin, &good], &good, "a.example"), Ok(()));
            for (listed, shown, name, said) in [
                (&good, &good, "b.example", "not valid for name"),
                (&old, &old, "a.example", "expired"),
                (&twin, &good, "a.example", ""),
            ] {
                let refused = verify(&[listed], shown, name).unwrap_err();
                assert!(refused.contains(said), "{refused}");
            }
        }
    }
}
