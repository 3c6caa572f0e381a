//! Certificate revocation lists (RFC 5280 section 5) of the authorities of `client_auth`. Each is checked when it is read:
//! a handshake only looks a number up.

use std::collections::HashSet;
use std::time::SystemTime;

use foldhash::quality::RandomState;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject as _;
use webpki::{BorrowedCertRevocationList, CertRevocationList};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

use super::super::dates;
use super::super::material::Wrong;
use super::authorities::Authorities;
use super::subject;

/// How a list is shown.
const SHOW: &str = "openssl crl -in FILE -noout -text shows what can be read";

/// A list that an authority of the configuration signed.
#[derive(Debug)]
pub(crate) struct RevocationList {
    pub(super) der: CertificateRevocationListDer<'static>,
    /// The subject of its authority, as webpki has it, and in words.
    issuer: Vec<u8>,
    pub(super) name: String,
    /// Which certificates of its authority it is about, as it is encoded; `None` for all.
    scope: Option<Vec<u8>>,
    begins: SystemTime,
    ends: SystemTime,
    /// The serial numbers of the certificates that it revokes.
    serials: HashSet<Box<[u8]>, RandomState>,
}

impl RevocationList {
    /// Reads the lists of a file, PEM or DER.
    ///
    /// # Errors
    /// It contains none, one that cannot be read, or one that none of the authorities signed.
    pub(crate) fn read(file: &[u8], authorities: &Authorities) -> Result<Vec<Self>, Wrong> {
        let lists = if file.first() == Some(&0x30) {
            vec![CertificateRevocationListDer::from(file.to_vec())]
        } else {
            let lists = CertificateRevocationListDer::pem_slice_iter(file);
            let lists: Result<Vec<_>, _> = lists.collect();
            lists.map_err(|error| Wrong::new(format!("the PEM file is damaged: {error}"), SHOW))?
        };
        if lists.is_empty() {
            return Err(Wrong::new(
                "there is no certificate revocation list in this file",
                "it begins with `-----BEGIN X509 CRL-----`",
            ));
        }
        lists.iter().map(|der| Self::of(der, authorities)).collect()
    }

    fn of(
        der: &CertificateRevocationListDer<'static>,
        authorities: &Authorities,
    ) -> Result<Self, Wrong> {
        let damaged = || Wrong::new("the certificate revocation list is damaged", SHOW);
        let (rest, list) = CertificateRevocationList::from_der(der).map_err(|_| damaged())?;
        if !rest.is_empty() {
            return Err(damaged());
        }
        let name = subject::rfc4514(list.issuer());
        let mut signers = authorities.of_subject(list.issuer().as_raw()).peekable();
        if signers.peek().is_none() {
            return Err(Wrong::new(
                format!("the certificate revocation list is of {name}, which is not in `ca`"),
                "the certificate of its CA belongs in the file `ca`, also that of an intermediate one",
            ));
        }
        let mut signers = signers.filter(|signer| signer.signed(der)).peekable();
        if signers.peek().is_none() {
            return Err(Wrong::new(
                format!(
                    "no CA in `ca` signed the certificate revocation list of {name}: the one of that name has another key"
                ),
                "openssl crl -in FILE -noout -CAfile CA checks its signature",
            ));
        }
        if !signers.any(|signer| signer.signs_lists()) {
            return Err(Wrong::new(
                format!(
                    "{name} may not sign certificate revocation lists: its key usage has no cRLSign"
                ),
                "a CA that revokes has `keyUsage = keyCertSign, cRLSign`",
            ));
        }
        let (begins, ends) = (list.last_update(), list.next_update());
        let begins = dates::time(begins).ok_or_else(damaged)?;
        let ends = ends.and_then(dates::time).ok_or_else(|| {
            Wrong::new(
                "the certificate revocation list does not say when the next one comes (nextUpdate)",
                "openssl ca -gencrl -crldays 7 writes it",
            )
        })?;
        let read = BorrowedCertRevocationList::from_der(der).map_err(|it| unsupported(&it))?;
        let serials = read
            .into_iter()
            .map(|one| one.map(|one| one.serial_number.into()));
        let serials: Result<HashSet<Box<[u8]>, RandomState>, _> = serials.collect();
        let serials = serials.map_err(|it| unsupported(&it))?;
        let read = CertRevocationList::from(read);
        Ok(Self {
            issuer: read.issuer().to_vec(),
            scope: read.issuing_distribution_point().map(<[u8]>::to_vec),
            name,
            begins,
            ends,
            serials,
            der: der.clone(),
        })
    }

    /// Whether it is of the authority of this name, as webpki has it.
    pub(super) fn is_of(&self, issuer: &[u8]) -> bool {
        self.issuer == issuer
    }

    /// Whether it revokes the certificate of this number. Its scope is not asked: a list that is about other certificates
    /// of the authority has no reason to name it.
    pub(super) fn revokes(&self, serial: &[u8]) -> bool {
        self.serials.contains(serial)
    }

    /// How many certificates it revokes that none of the others does.
    pub(super) fn lost_in(&self, others: &[Self]) -> usize {
        let of_this: Vec<&Self> = others.iter().filter(|it| it.is_of(&self.issuer)).collect();
        let serials = self.serials.iter().map(AsRef::as_ref);
        let is_lost = |serial: &&[u8]| !of_this.iter().any(|it| it.revokes(serial));
        serials.filter(is_lost).count()
    }

    /// When the next list is due. From then on nobody of its authority is let in.
    pub(super) fn ends(&self) -> SystemTime {
        self.ends
    }

    /// Whether the other list says the same as this one, and later.
    pub(super) fn is_replaced_by(&self, other: &Self) -> bool {
        self.issuer == other.issuer
            && self.scope == other.scope
            && (self.begins, self.ends) < (other.begins, other.ends)
    }

    /// A warning about a list that is overdue.
    pub(crate) fn warning(&self, now: SystemTime) -> Option<String> {
        (now >= self.ends).then(|| {
            format!(
                "the certificate revocation list of {} was to be replaced by {}: until it is, no client of this CA is let in",
                self.name,
                httpdate::fmt_http_date(self.ends)
            )
        })
    }
}

/// Why webpki does not take a list.
fn unsupported(error: &webpki::Error) -> Wrong {
    const KNOWN: [(webpki::Error, &str, &str); 3] = [
        (
            webpki::Error::UnsupportedCrlVersion,
            "the certificate revocation list is of version 1",
            "with `crlnumber` in its configuration, openssl ca -gencrl writes version 2",
        ),
        (
            webpki::Error::UnsupportedDeltaCrl,
            "this is a delta of a certificate revocation list",
            "the whole list belongs here",
        ),
        (
            webpki::Error::UnsupportedIndirectCrl,
            "this certificate revocation list is of several CAs (indirectCRL)",
            "each CA has its own list here",
        ),
    ];
    match KNOWN.iter().find(|(known, ..)| known == error) {
        Some((_, problem, remedy)) => Wrong::new(*problem, remedy),
        None => Wrong::new(
            format!("the certificate revocation list cannot be used: {error}"),
            SHOW,
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::super::tests::{authority, day, list, pem};
    use super::*;

    #[test]
    fn a_list_is_of_an_authority_that_signed_it() {
        let ca = authority("ca", None, |_| {});
        let twin = authority("ca", None, |_| {});
        let other = authority("other", None, |_| {});
        let file = list(&ca, &[7], (0, 10));
        let authorities = |all: &[&str]| Authorities::read(all.concat().as_bytes()).unwrap();
        let own = authorities(&[&other.pem(), &ca.pem()]);
        for file in [file.clone(), pem("X509 CRL", &file).into_bytes()] {
            let read = RevocationList::read(&file, &own).unwrap();
            assert_eq!(read.len(), 1);
            assert_eq!(read[0].name, "CN=ca");
            assert!(read[0].revokes(&[7]) && !read[0].revokes(&[8]));
            assert_eq!(read[0].lost_in(&[]), 1);
            assert_eq!(read[0].lost_in(&read), 0);
        }
        // Beside another of the same name, whose key did not sign it.
        let both = authorities(&[&twin.pem(), &ca.pem()]);
        assert!(RevocationList::read(&file, &both).is_ok());
        for (all, said) in [
            ([other.pem()], "is of CN=ca, which is not in `ca`"),
            ([twin.pem()], "has another key"),
        ] {
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            let wrong = RevocationList::read(&file, &authorities(&all)).unwrap_err();
            assert!(wrong.problem.contains(said), "{}", wrong.problem);
        }
        let silent = authority("ca", None, |params| {
            params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        });
        let mut signer = authority("ca", None, |_| {});
        signer.key = rcgen::KeyPair::try_from(silent.key.serialize_der()).unwrap();
        let wrong =
            RevocationList::read(&list(&signer, &[], (0, 10)), &authorities(&[&silent.pem()]));
        assert!(wrong.unwrap_err().problem.contains("no cRLSign"));
    }

    #[test]
    fn what_is_no_list_is_said() {
        let ca = authority("ca", None, |_| {});
        let authorities = Authorities::read(ca.pem().as_bytes()).unwrap();
        let mut damaged = list(&ca, &[7], (0, 10));
        damaged.push(0);
        for (file, said) in [
            (&b""[..], "there is no certificate revocation list"),
            (
                ca.pem().as_bytes(),
                "there is no certificate revocation list",
            ),
            (&damaged, "damaged"),
            (&damaged[..20], "damaged"),
        ] {
            let wrong = RevocationList::read(file, &authorities).unwrap_err();
            assert!(wrong.problem.contains(said), "{}", wrong.problem);
        }
    }

    #[test]
    fn an_overdue_list_is_taken_and_said() {
        let ca = authority("ca", None, |_| {});
        let authorities = Authorities::read(ca.pem().as_bytes()).unwrap();
        let read = |dates| {
            let read = RevocationList::read(&list(&ca, &[], dates), &authorities);
            read.unwrap().remove(0)
        };
        let (old, new) = (read((0, 10)), read((1, 10)));
        assert_eq!(old.warning(day(10) - Duration::from_secs(1)), None);
        let warning = old.warning(day(10)).unwrap();
        assert!(
            warning.contains("of CN=ca was to be replaced by"),
            "{warning}"
        );
        assert!(old.is_replaced_by(&new) && !new.is_replaced_by(&old) && !old.is_replaced_by(&old));
        assert!(day(0) > UNIX_EPOCH);
    }
}
