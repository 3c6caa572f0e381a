//! Verifies client certificates: a chain to an authority of the configuration, for clients, that nobody revoked. Only the
//! signatures of the handshake itself are left to rustls.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, RootCertStore};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use super::super::TlsFault;
use super::super::dates::Dates;
use super::authorities::Authorities;
use super::revocation::RevocationList;

/// Who is let in.
#[derive(Debug)]
pub(super) struct Verifier {
    authorities: Authorities,
    lists: Vec<RevocationList>,
    anchors: Vec<TrustAnchor<'static>>,
    /// What clients need not send.
    intermediates: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
    /// rustls's own verifier of the same authorities.
    plain: Arc<dyn ClientCertVerifier>,
}

impl Verifier {
    /// A verifier for clients of these authorities that none of the lists revokes.
    ///
    /// # Errors
    /// rustls does not take the authorities.
    pub(super) fn new(
        authorities: Authorities,
        lists: Vec<RevocationList>,
        required: bool,
    ) -> Result<Self, TlsFault> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let mut roots = RootCertStore::empty();
        roots.extend(authorities.roots().map(|one| one.anchor.clone()));
        let anchors = roots.roots.clone();
        let plain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let plain = if required {
            plain
        } else {
            plain.allow_unauthenticated()
        };
        let plain = plain
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let intermediates = authorities.intermediates().map(|one| one.der.clone());
        Ok(Self {
            intermediates: intermediates.collect(),
            authorities,
            lists,
            anchors,
            algorithms,
            plain,
        })
    }

    pub(super) fn authorities(&self) -> &Authorities {
        &self.authorities
    }

    pub(super) fn lists(&self) -> &[RevocationList] {
        &self.lists
    }

    /// What rustls itself does with client certificates.
    pub(super) fn plain(&self) -> &dyn ClientCertVerifier {
        &*self.plain
    }

    /// Verifies a client's certificate with what it sent besides. Returns until when that holds: a part of the chain ends,
    /// or a list is due.
    ///
    /// # Errors
    /// Why it is refused.
    pub(super) fn verify(
        &self,
        shown: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<SystemTime, rustls::Error> {
        self.verify_at((shown, others), now, Some(moment(now)))
    }

    /// The same at a time when the chain is good, with the lists and authorities as they are `now`, if they count.
    pub(super) fn verify_at(
        &self,
        (shown, others): (&CertificateDer<'_>, &[CertificateDer<'_>]),
        then: UnixTime,
        now: Option<SystemTime>,
    ) -> Result<SystemTime, rustls::Error> {
        let own = self.intermediates.iter();
        let all: Vec<CertificateDer<'_>> = others
            .iter()
            .map(|other| CertificateDer::from(other.as_ref()))
            .chain(own.map(|one| CertificateDer::from(one.as_ref())))
            .collect();
        let malformed = |_| rustls::Error::from(CertificateError::BadEncoding);
        let client = EndEntityCert::try_from(shown).map_err(malformed)?;
        let check = |path: &VerifiedPath<'_>| now.map_or(Ok(()), |now| self.check(path, now));
        let verified = client.verify_for_usage(
            self.algorithms.all,
            &self.anchors,
            &all,
            then,
            KeyUsage::client_auth(),
            None,
            Some(&check),
        );
        let why = match verified {
            Ok(path) => {
                return self
                    .holds_until(&path)
                    .ok_or(CertificateError::BadEncoding.into());
            }
            Err(why) => why,
        };
        // What `check` refuses, and all else is refused by rustls, too, which chooses the alert.
        if why == webpki::Error::CertRevoked {
            return Err(CertificateError::Revoked.into());
        }
        if let webpki::Error::CrlExpired { time, next_update } = why {
            return Err(
                CertificateError::ExpiredRevocationListContext { time, next_update }.into(),
            );
        }
        if let webpki::Error::CertExpired { time, not_after } = why {
            return Err(CertificateError::ExpiredContext { time, not_after }.into());
        }
        match self.plain.verify_client_cert(shown, &all, then) {
            Err(why) => Err(why),
            Ok(_) => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    /// Checks a chain whose signatures and constraints are good: that its authority has not expired, and what the lists
    /// say of each certificate. A list is looked up by the name of the authority alone: an authority with a new key revokes
    /// what it issued with the old one.
    fn check(&self, path: &VerifiedPath<'_>, now: SystemTime) -> Result<(), webpki::Error> {
        let ends = self.authorities.ends(path.anchor()).unwrap_or(UNIX_EPOCH);
        if now > ends {
            return Err(webpki::Error::CertExpired {
                time: unix(now),
                not_after: unix(ends),
            });
        }
        let client = path.end_entity();
        let numbers = std::iter::once((client.issuer(), client.serial())).chain(
            path.intermediate_certificates()
                .map(|one| (one.issuer(), one.serial())),
        );
        for (issuer, serial) in numbers {
            for list in self.lists.iter().filter(|list| list.is_of(issuer)) {
                if list.revokes(serial) {
                    return Err(webpki::Error::CertRevoked);
                }
                if now >= list.ends() {
                    return Err(webpki::Error::CrlExpired {
                        time: unix(now),
                        next_update: unix(list.ends()),
                    });
                }
            }
        }
        Ok(())
    }

    /// Until when a chain that was checked stays good.
    fn holds_until(&self, path: &VerifiedPath<'_>) -> Option<SystemTime> {
        let mut until = self.authorities.ends(path.anchor())?;
        let certificates = std::iter::once(path.end_entity().der())
            .chain(path.intermediate_certificates().map(|one| one.der()));
        for certificate in certificates {
            until = until.min(Dates::of(&certificate)?.ends());
        }
        let issuers = std::iter::once(path.end_entity().issuer())
            .chain(path.intermediate_certificates().map(|one| one.issuer()));
        for issuer in issuers {
            let lists = self.lists.iter().filter(|list| list.is_of(issuer));
            until = lists.map(RevocationList::ends).fold(until, SystemTime::min);
        }
        Some(until)
    }
}

fn moment(time: UnixTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(time.as_secs())
}

pub(super) fn unix(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}
