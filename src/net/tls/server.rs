//! TLS towards clients: the settings of a listener, and the handshake. Whose the socket is, and what is spoken after it, is
//! not known here.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;
use std::{fmt, io};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{Acceptor, NoServerSessionStorage};
use rustls::{ServerConfig, SupportedProtocolVersion, version};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::TlsFault;
use super::certificates::{CertificatePair, Resolver, UnknownName};
use super::challenge::{self, ACME_TLS, Challenges};
use super::clients::{ClientCertificate, Clients, OneClient};
use super::issued::{IssuedByName, Slot};
use super::tickets::{TicketRing, Tickets};
use crate::net::stream::SEGMENT;

/// A fatal alert `unrecognized_name`, before there are keys (RFC 8446 section 6, RFC 6066 section 3).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

static FROM_12: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
static FROM_13: [&SupportedProtocolVersion; 1] = [&version::TLS13];

/// How much is sealed and sent at once: records of 16 KiB (RFC 8446 section 5.1), as many as fit into a segment.
const SEALED: usize = SEGMENT / RECORD * RECORD;
const RECORD: usize = 16 * 1024;

/// The oldest TLS version that is accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum MinVersion {
    /// TLS 1.2 and 1.3.
    Tls12,
    /// Only TLS 1.3.
    Tls13,
}

/// What a listener's TLS is made of.
#[derive(Debug)]
pub(crate) struct TlsSettings {
    /// The certificates, in the configuration's order.
    pub(crate) certificates: Vec<CertificatePair>,
    /// The cells of certificates that ACME brings, each with its names.
    pub(crate) issued: Vec<(Vec<String>, Arc<Slot>)>,
    /// Where ACME's directories find the answers to their challenges, where the listener has certificates by ACME.
    pub(crate) challenges: Option<Arc<Challenges>>,
    /// What a client gets that asks for a name that none of them has.
    pub(crate) unknown_name: UnknownName,
    /// The oldest version.
    pub(crate) oldest: MinVersion,
    /// Whether clients may choose HTTP/2.
    pub(crate) http2: bool,
    /// The keys of session tickets.
    pub(crate) tickets: Arc<TicketRing>,
    /// The client certificates that are asked for.
    pub(crate) clients: Option<Clients>,
}

/// Why a client got no TLS connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoHandshake {
    /// It asked for a name that no certificate has, or for none, and is refused for that.
    #[error("there is no certificate for {}", .0.as_deref().unwrap_or("a client that names no host"))]
    UnknownName(Option<String>),
    /// It was an ACME directory that looked for the answer to a challenge, and found it. Nothing is served to it.
    #[error("a challenge for {0} was answered")]
    Challenge(String),
    /// Its certificate was refused, or it has none where one is required.
    #[error("the client certificate is refused: {0}")]
    Certificate(String),
    /// All else: what it sent, what it offered, or its socket.
    #[error("{0}")]
    Failed(io::Error),
}

impl NoHandshake {
    /// Its word in logs.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::UnknownName(_) => "tls_unknown_name",
            Self::Challenge(_) => "acme_challenge",
            Self::Certificate(_) => "tls_client_certificate",
            Self::Failed(_) => "tls_handshake",
        }
    }

    /// Why a handshake failed.
    fn of(error: io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        match inner {
            Some(rustls::Error::NoCertificatesPresented) => {
                Self::Certificate("there is none".to_owned())
            }
            Some(rustls::Error::InvalidCertificate(why)) => Self::Certificate(why.to_string()),
            Some(_) | None => Self::Failed(error),
        }
    }
}

/// A TLS connection.
#[derive(Debug)]
pub(crate) struct Accepted<S> {
    /// What is inside of it.
    pub(crate) stream: TlsStream<S>,
    /// Whether HTTP/2 was negotiated.
    pub(crate) http2: bool,
    /// The client's certificate.
    pub(crate) certificate: Option<Arc<ClientCertificate>>,
}

/// The TLS of a listener.
#[derive(Clone)]
pub(crate) struct Tls(Arc<Inner>);

struct Inner {
    resolver: Arc<Resolver>,
    config: Arc<ServerConfig>,
    /// For clients that name no host, by the address that they came to.
    at: HashMap<IpAddr, Arc<ServerConfig>>,
    /// For ACME's directories, and what they find.
    challenges: Option<(Arc<Challenges>, Arc<ServerConfig>)>,
    clients: Option<Clients>,
    /// The first name of each certificate from a file, and its end.
    files: Vec<(String, SystemTime)>,
    /// The cells of those that ACME brings.
    issued: Vec<Arc<Slot>>,
    versions: &'static [&'static SupportedProtocolVersion],
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// TLS with these settings.
    ///
    /// # Errors
    /// The crypto provider does not support the versions.
    pub(crate) fn new(settings: &TlsSettings) -> Result<Self, TlsFault> {
        let provider: Arc<CryptoProvider> = Arc::new(aws_lc_rs::default_provider());
        let versions: &'static [_] = match settings.oldest {
            MinVersion::Tls12 => &FROM_12,
            MinVersion::Tls13 => &FROM_13,
        };
        let resolver = Resolver::new(&settings.certificates, settings.unknown_name);
        let resolver = Arc::new(resolver.with_issued(IssuedByName::new(&settings.issued)));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&resolver) as _);
        let protocols = [&b"h2"[..], b"http/1.1"].into_iter();
        let protocols = protocols.skip(usize::from(!settings.http2));
        config.alpn_protocols = protocols.map(<[u8]>::to_vec).collect();
        let demands = settings.clients.as_ref().map_or(&[][..], Clients::demands);
        let tickets = Tickets::new(Arc::clone(&settings.tickets), demands);
        config.ticketer = Arc::new(tickets);
        // A resolver is not told the address, so each address has settings of its own.
        let at = resolver.by_address().map(|(address, resolver)| {
            let mut config = config.clone();
            config.cert_resolver = Arc::new(resolver);
            (address, Arc::new(config))
        });
        let challenges = match &settings.challenges {
            Some(pending) => Some((Arc::clone(pending), challenge::config(pending)?)),
            None => None,
        };
        Ok(Self(Arc::new(Inner {
            at: at.collect(),
            challenges,
            config: Arc::new(config),
            resolver,
            clients: settings.clients.clone(),
            files: (settings.certificates.iter())
                .filter_map(CertificatePair::name_and_end)
                .collect(),
            issued: (settings.issued.iter())
                .map(|(_, slot)| Arc::clone(slot))
                .collect(),
            versions,
        })))
    }

    /// Whether a certificate is valid for this host, a name in lower case or an IP address, or is ordered for it.
    pub(crate) fn has_certificate(&self, host: &str) -> bool {
        self.0.resolver.has(host)
    }

    /// Whether a certificate is valid for some name below this one.
    pub(crate) fn has_certificate_below(&self, parent: &str) -> bool {
        self.0.resolver.has_below(parent)
    }

    /// The certificates that are here: the first name of each, and its last moment.
    pub(crate) fn certificates(&self) -> impl Iterator<Item = (String, SystemTime)> {
        let issued = self.0.issued.iter().filter_map(|slot| slot.current());
        let issued = issued.map(|it| (it.first_name().to_owned(), it.about().ends));
        self.0.files.iter().cloned().chain(issued)
    }

    /// The client certificates that are asked for.
    pub(crate) fn clients(&self) -> Option<&Clients> {
        self.0.clients.as_ref()
    }

    /// Whether a client that asks for this host by name gets as far as a certificate.
    pub(crate) fn serves(&self, name: &str) -> bool {
        self.0.resolver.serves(Some(name))
    }

    /// Performs the handshake. `local` gives the address that the client came to; it is asked only where that chooses the
    /// certificate.
    ///
    /// # Errors
    /// The handshake ended without a connection. The client has been told why, by an alert.
    pub(crate) async fn accept<S>(
        &self,
        stream: S,
        local: impl FnOnce(&S) -> Option<IpAddr>,
    ) -> Result<Accepted<S>, NoHandshake>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await;
        let mut begun = begun.map_err(NoHandshake::Failed)?;
        let hello = begun.client_hello();
        let name = hello.server_name();
        if let Some((pending, config)) = &self.0.challenges
            && hello.alpn().is_some_and(|offered| offered.eq([ACME_TLS]))
        {
            let Some(name) = name.map(str::to_owned).filter(|name| pending.has_tls(name)) else {
                let refused = NoHandshake::UnknownName(name.map(str::to_owned));
                drop(begun.io.write_all(&UNRECOGNIZED_NAME).await);
                return Err(refused);
            };
            let accepted = begun.into_stream(Arc::clone(config)).await;
            let mut stream = accepted.map_err(NoHandshake::Failed)?;
            // RFC 8737 section 3: the directory has seen the certificate, and nothing else is said.
            drop(stream.shutdown().await);
            return Err(NoHandshake::Challenge(name));
        }
        let Some(config) = self.config_for(name, || local(&begun.io)) else {
            let refused = NoHandshake::UnknownName(name.map(str::to_owned));
            // rustls would say `access_denied`. A client that is gone need not hear it.
            drop(begun.io.write_all(&UNRECOGNIZED_NAME).await);
            return Err(refused);
        };
        let config = match &self.0.clients {
            None => Arc::clone(config),
            Some(clients) => self.for_one_of(clients, config)?,
        };
        let accepted = begun.into_stream(config).await;
        let mut stream = accepted.map_err(NoHandshake::of)?;
        let connection = stream.get_mut().1;
        connection.set_buffer_limit(Some(SEALED));
        let shown = connection.peer_certificates().and_then(<[_]>::first);
        let read = shown.map(|shown| ClientCertificate::read(shown.clone()));
        let unread = |why: &str| NoHandshake::Certificate(why.to_owned());
        Ok(Accepted {
            http2: connection.alpn_protocol() == Some(b"h2"),
            certificate: read.transpose().map_err(unread)?,
            stream,
        })
    }

    /// Settings for a single connection: what a client showed decides on how long its session can be resumed.
    fn for_one_of(
        &self,
        clients: &Clients,
        config: &ServerConfig,
    ) -> Result<Arc<ServerConfig>, NoHandshake> {
        let one = OneClient::new(clients, Arc::clone(&config.ticketer));
        let provider = Arc::clone(config.crypto_provider());
        let own = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(self.0.versions)
            .map_err(|error| NoHandshake::Failed(io::Error::other(error)))?;
        let mut own = own
            .with_client_cert_verifier(Arc::clone(&one) as _)
            .with_cert_resolver(Arc::clone(&config.cert_resolver));
        own.alpn_protocols.clone_from(&config.alpn_protocols);
        own.ticketer = one;
        // Sessions are resumed by tickets alone.
        own.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Arc::new(own))
    }

    /// The settings for a client that asks for this name; `None` is an unknown one that is refused.
    fn config_for(
        &self,
        name: Option<&str>,
        local: impl FnOnce() -> Option<IpAddr>,
    ) -> Option<&Arc<ServerConfig>> {
        let Inner {
            resolver,
            config,
            at,
            ..
        } = &*self.0;
        if name.is_none() && !at.is_empty() {
            let own = local().and_then(|address| at.get(&address.to_canonical()));
            if own.is_some() {
                return own;
            }
        }
        resolver.serves(name).then_some(config)
    }
}

#[cfg(test)]
mod tests;
