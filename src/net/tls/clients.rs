//! Who may connect: the client certificates that a listener asks for (`client_auth`), and what is known of a client by its
//! own, read once a handshake. What a route demands of it is said in `auth`.

mod authorities;
mod certificate;
mod fingerprint;
mod one;
mod revocation;
mod subject;
mod verifier;

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;

use super::TlsFault;
use super::dates::Dates;
use super::material::{self, Wrong};

pub(crate) use self::authorities::Authorities;
use self::authorities::Authority;
pub(crate) use self::certificate::{ClientCertificate, Name, Part};
pub(crate) use self::fingerprint::Fingerprint;
pub(super) use self::one::OneClient;
pub(crate) use self::revocation::RevocationList;
use self::verifier::Verifier;

/// The client certificates that a listener asks for.
#[derive(Clone)]
pub(crate) struct Clients(Arc<Inner>);

struct Inner {
    verifier: Arc<Verifier>,
    required: bool,
    demands: Vec<u8>,
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clients of {:?}", self.0.verifier.authorities())
    }
}

impl Clients {
    /// Clients with a certificate of one of these authorities that none of the lists revokes; where it is not `required`,
    /// clients without any, too. Of several lists that say the same, the newest counts.
    ///
    /// # Errors
    /// rustls does not take the authorities.
    pub(crate) fn new(
        authorities: Authorities,
        mut lists: Vec<RevocationList>,
        required: bool,
    ) -> Result<Self, TlsFault> {
        let mut at = 0;
        while let Some(list) = lists.get(at) {
            if lists.iter().any(|other| list.is_replaced_by(other)) {
                lists.remove(at);
            } else {
                at += 1;
            }
        }
        let mut demands = vec![u8::from(required)];
        let files = authorities.iter().map(|one| one.der.as_ref());
        // Each is a DER element, which has its own length.
        let files: Vec<&[u8]> = files
            .chain(lists.iter().map(|list| list.der.as_ref()))
            .collect();
        demands.extend(files.concat());
        Ok(Self(Arc::new(Inner {
            verifier: Arc::new(Verifier::new(authorities, lists, required)?),
            required,
            demands,
        })))
    }

    /// Whether clients without a certificate are refused.
    pub(crate) fn are_required(&self) -> bool {
        self.0.required
    }

    /// What is demanded of clients, as bytes: the same only where everything is.
    pub(crate) fn demands(&self) -> &[u8] {
        &self.0.demands
    }

    /// Whether a client that the others let in may be refused here. That is so wherever another authority or another list
    /// decides.
    pub(crate) fn are_stricter_than(&self, others: Option<&Self>) -> bool {
        let Some(others) = others else {
            return true;
        };
        match (self.demands().split_first(), others.demands().split_first()) {
            (Some((own, files)), Some((other, before))) => own > other || files != before,
            _ => true,
        }
    }

    /// Whether a client that shows this, or nothing, is let in.
    ///
    /// # Errors
    /// Why it is refused.
    pub(crate) fn let_in(&self, shown: Option<&ShownChain>, at: At) -> Result<(), String> {
        let Some((shown, others)) = shown.and_then(|shown| shown.chain.split_first()) else {
            return if self.0.required {
                Err("it requires a client certificate".to_owned())
            } else {
                Ok(())
            };
        };
        let (then, now) = match at {
            At::Now(now) => (now, Some(now)),
            At::AnyTime => {
                let all = std::iter::once(shown).chain(others);
                let ends = all.filter_map(|one| Some(Dates::of(one)?.ends())).min();
                (ends.unwrap_or(UNIX_EPOCH), None)
            }
        };
        let verifier = &self.0.verifier;
        let verified = verifier.verify_at((shown, others), verifier::unix(then), now);
        verified.map(drop).map_err(|error| error.to_string())
    }

    /// The authorities whose clients are let in here and were not by the others, in words. One that another one of theirs
    /// signed is not new.
    pub(crate) fn new_authorities(&self, others: &[&Self]) -> Vec<String> {
        let before = || {
            others
                .iter()
                .flat_map(|others| others.0.verifier.authorities().iter())
        };
        let new =
            self.0.verifier.authorities().iter().filter(|one| {
                !before().any(|known| known.anchor == one.anchor || known.issued(one))
            });
        new.map(|one| one.name.clone()).collect()
    }

    /// How many certificates the others revoke and these do not, for each authority whose clients are let in.
    pub(crate) fn no_longer_revoked(&self, others: &Self) -> Vec<(String, usize)> {
        let lists = others.0.verifier.lists().iter();
        let lists = lists.filter(|list| {
            let of_list = |one: &&Authority| list.is_of(&one.anchor.subject);
            let mut theirs = others.0.verifier.authorities().iter().filter(of_list);
            let own = || self.0.verifier.authorities().iter();
            theirs.any(|their| own().any(|one| one.anchor == their.anchor || one.issued(their)))
        });
        let lost = lists.map(|list| (list.name.clone(), list.lost_in(self.0.verifier.lists())));
        lost.filter(|(_, count)| *count > 0).collect()
    }
}

/// When a certificate is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum At {
    /// At this time, with its dates and those of its authority and lists.
    Now(SystemTime),
    /// Whenever it is good: neither dates count nor revocation lists.
    AnyTime,
}

/// A client certificate from a file, and what the client sends besides.
#[derive(Debug)]
pub(crate) struct ShownChain {
    certificate: Arc<ClientCertificate>,
    /// Its own first.
    chain: Vec<CertificateDer<'static>>,
}

impl ShownChain {
    /// Reads a file, PEM or DER.
    ///
    /// # Errors
    /// It contains no certificate, or one that cannot be read.
    pub(crate) fn read(file: &[u8]) -> Result<Self, Wrong> {
        let chain = if file.first() == Some(&0x30) {
            vec![CertificateDer::from(file.to_vec())]
        } else {
            material::certificates(file)?
        };
        let own = chain.first().cloned().unwrap_or_else(|| Vec::new().into());
        let certificate = ClientCertificate::read(own).map_err(|why| {
            let problem = format!("the certificate cannot be read: {why}");
            Wrong::new(
                problem,
                "openssl x509 -in FILE -noout -text shows what can be read",
            )
        })?;
        Ok(Self { certificate, chain })
    }

    /// The client's certificate.
    pub(crate) fn certificate(&self) -> &Arc<ClientCertificate> {
        &self.certificate
    }
}

#[cfg(test)]
mod tests;
