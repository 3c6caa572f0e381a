//! `OneClient`: the certificate and the tickets of one connection. A ticket carries the certificate of its session, and is
//! good no longer than that: a session whose certificate has expired, or whose revocation list is due, is not resumed, and
//! the client shows its certificate anew. rustls does not look at it again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ProducesTickets;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::Clients;
use super::verifier::Verifier;
use crate::clock;

/// A client without a certificate has nothing that ends.
const NEVER: u64 = u64::MAX;

/// What one connection knows of its client, until the handshake ends.
#[derive(Debug)]
pub(in super::super) struct OneClient {
    verifier: Arc<Verifier>,
    tickets: Arc<dyn ProducesTickets>,
    /// Until when its certificate holds, in seconds since 1970.
    until: AtomicU64,
}

impl OneClient {
    /// A client of these that is not known yet, with the tickets of its listener.
    pub(in super::super) fn new(clients: &Clients, tickets: Arc<dyn ProducesTickets>) -> Arc<Self> {
        Arc::new(Self {
            verifier: Arc::clone(&clients.0.verifier),
            tickets,
            until: AtomicU64::new(NEVER),
        })
    }
}

fn now() -> u64 {
    let now = clock::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

impl ProducesTickets for OneClient {
    fn enabled(&self) -> bool {
        self.tickets.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.tickets.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let until = self.until.load(Ordering::Relaxed).to_be_bytes();
        self.tickets.encrypt(&[&until, plain].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let opened = self.tickets.decrypt(ticket)?;
        let (until, plain) = opened.split_first_chunk()?;
        let until = u64::from_be_bytes(*until);
        if now() >= until {
            return None;
        }
        // The next ticket is of the same session.
        self.until.store(until, Ordering::Relaxed);
        Some(plain.to_vec())
    }
}

impl ClientCertVerifier for OneClient {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        self.verifier.plain().client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.plain().root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let until = self.verifier.verify(shown, others, now)?;
        let until = until.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.until.store(until.as_secs(), Ordering::Relaxed);
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let plain = self.verifier.plain();
        plain.verify_tls12_signature(message, shown, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let plain = self.verifier.plain();
        plain.verify_tls13_signature(message, shown, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.plain().supported_verify_schemes()
    }
}
