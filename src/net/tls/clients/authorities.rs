//! The certificate authorities of `client_auth`: which of them end a chain, and which only belong to one. Chains are
//! built in `verifier`.

use std::collections::BTreeSet;
use std::time::SystemTime;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, TrustAnchor};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::super::dates::Dates;
use super::super::material::{self, Wrong};
use super::subject;
use crate::net::der::{BIT_STRING, SEQUENCE, element, expect};

/// The authorities of a PEM file; at least one.
#[derive(Debug)]
pub(crate) struct Authorities(Vec<Authority>);

/// One certificate of the file.
#[derive(Debug)]
pub(super) struct Authority {
    pub(super) der: CertificateDer<'static>,
    pub(super) anchor: TrustAnchor<'static>,
    /// Its subject and its issuer, as they are encoded.
    subject: Vec<u8>,
    issuer: Vec<u8>,
    /// Its subject in words.
    pub(super) name: String,
    dates: Dates,
    signs_lists: bool,
    /// Whether another of the file signed it, so that it does not end a chain.
    is_signed: bool,
}

impl Authorities {
    /// Reads the certificates of a PEM file.
    ///
    /// # Errors
    /// It contains none, or one that cannot be read.
    pub(crate) fn read(pem: &[u8]) -> Result<Self, Wrong> {
        let certificates = material::certificates(pem)?;
        let mut all = Vec::with_capacity(certificates.len());
        for (at, der) in certificates.into_iter().enumerate() {
            all.push(Authority::read(der).map_err(|why| {
                Wrong::new(
                    format!("certificate number {} of the file: {why}", at + 1),
                    "openssl x509 -in FILE -noout -text shows what can be read",
                )
            })?);
        }
        mark_signed(&mut all);
        Ok(Self(all))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Authority> + Clone {
        self.0.iter()
    }

    /// Those that end a chain.
    pub(super) fn roots(&self) -> impl Iterator<Item = &Authority> {
        self.iter().filter(|one| !one.is_signed)
    }

    /// Those that another one of them signed. A client need not send them.
    pub(super) fn intermediates(&self) -> impl Iterator<Item = &Authority> {
        self.iter().filter(|one| one.is_signed)
    }

    /// Those that have this subject, as it is encoded.
    pub(super) fn of_subject<'a>(
        &'a self,
        subject: &'a [u8],
    ) -> impl Iterator<Item = &'a Authority> {
        self.iter().filter(move |one| one.subject == subject)
    }

    /// When the authority at the end of a chain ends; the latest where several certificates have its key.
    pub(super) fn ends(&self, anchor: &TrustAnchor<'_>) -> Option<SystemTime> {
        let same = |one: &&Authority| {
            one.anchor.subject == anchor.subject
                && one.anchor.subject_public_key_info == anchor.subject_public_key_info
        };
        self.iter().filter(same).map(Authority::ends).max()
    }

    /// Warnings about authorities that have expired, which let nobody in, or will soon.
    pub(crate) fn warnings(&self, now: SystemTime) -> Vec<String> {
        let warned = self.iter().filter_map(|one| {
            let warning = one.dates.warning(now)?;
            Some(format!("{} {warning}", one.name))
        });
        warned.collect()
    }
}

impl Authority {
    fn read(der: CertificateDer<'static>) -> Result<Self, String> {
        let anchor = webpki::anchor_from_trusted_cert(&der).map_err(|error| error.to_string())?;
        let anchor = anchor.to_owned();
        let (_, read) = X509Certificate::from_der(&der).map_err(|_| "it is damaged")?;
        let usage = read.key_usage().map_err(|_| "its key usage is damaged")?;
        Ok(Self {
            anchor,
            subject: read.subject().as_raw().to_vec(),
            issuer: read.issuer().as_raw().to_vec(),
            name: subject::rfc4514(read.subject()),
            dates: Dates::of(&der).ok_or("its dates cannot be read")?,
            signs_lists: usage.is_none_or(|usage| usage.value.crl_sign()),
            is_signed: false,
            der,
        })
    }

    /// The last moment of its validity.
    pub(super) fn ends(&self) -> SystemTime {
        self.dates.ends()
    }

    /// Whether it may sign revocation lists (RFC 5280 section 4.2.1.3).
    pub(super) fn signs_lists(&self) -> bool {
        self.signs_lists
    }

    /// Whether its key signed this certificate or revocation list.
    pub(super) fn signed(&self, der: &[u8]) -> bool {
        is_signed(der, &self.anchor.subject_public_key_info).unwrap_or(false)
    }

    /// Whether it issued the other one.
    pub(super) fn issued(&self, other: &Self) -> bool {
        self.subject == other.issuer && self.signed(&other.der)
    }
}

/// Marks those that another one signed, if a chain leads from them to one that ends it.
fn mark_signed(all: &mut [Authority]) {
    let issuers: Vec<Vec<usize>> = all
        .iter()
        .map(|one| {
            let others = all.iter().enumerate();
            let issuers = others.filter(|(_, other)| other.issued(one));
            issuers.map(|(at, _)| at).collect()
        })
        .collect();
    let ends = |at: usize, issuers: &[usize]| issuers.is_empty() || issuers.contains(&at);
    let mut reached: BTreeSet<usize> = BTreeSet::new();
    for (at, issuers) in issuers.iter().enumerate() {
        if ends(at, issuers) {
            reached.insert(at);
        }
    }
    while let Some(next) = issuers.iter().enumerate().position(|(at, issuers)| {
        !reached.contains(&at) && issuers.iter().any(|issuer| reached.contains(issuer))
    }) {
        reached.insert(next);
    }
    for (at, (one, issuers)) in all.iter_mut().zip(&issuers).enumerate() {
        one.is_signed = reached.contains(&at) && !ends(at, issuers);
    }
}

/// Whether a key signed a certificate or a revocation list (RFC 5280 sections 4.1 and 5.1). `key` is the content of a
/// SubjectPublicKeyInfo. `None` where either is damaged.
fn is_signed(der: &[u8], key: &[u8]) -> Option<bool> {
    let bits = |der| expect(der, BIT_STRING)?.0.strip_prefix(&[0]);
    let (content, _) = expect(der, SEQUENCE)?;
    let (message, rest) = element(content, SEQUENCE)?;
    let (algorithm, rest) = expect(rest, SEQUENCE)?;
    let signature = bits(rest)?;
    let (key_algorithm, rest) = expect(key, SEQUENCE)?;
    let key = bits(rest)?;
    let known = aws_lc_rs::default_provider()
        .signature_verification_algorithms
        .all;
    let mut fitting = known.iter().filter(|known| {
        known.signature_alg_id().as_ref() == algorithm
            && known.public_key_alg_id().as_ref() == key_algorithm
    });
    Some(fitting.any(|known| known.verify_signature(key, message, signature).is_ok()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rcgen::{BasicConstraints, IsCa, KeyPair};

    use super::super::tests::{Made, authority, named, pem};
    use super::*;

    #[track_caller]
    fn check(file: &[&Made], roots: &[&str]) {
        let pem: String = file.iter().map(|one| one.pem()).collect();
        let read = Authorities::read(pem.as_bytes()).unwrap();
        let names = |all: Vec<&Authority>| {
            let mut names: Vec<String> = all.iter().map(|one| one.name.clone()).collect();
            names.sort();
            names
        };
        let roots: Vec<String> = roots.iter().map(|name| format!("CN={name}")).collect();
        assert_eq!(names(read.roots().collect()), roots);
        let mut all = names(read.intermediates().collect());
        all.extend(roots);
        all.sort();
        assert_eq!(all, names(read.iter().collect()));
    }

    #[test]
    fn a_chain_ends_at_an_authority_that_no_other_one_signed() {
        let root = authority("root", None, |_| {});
        let outer = authority("outer", Some(&root), |_| {});
        let inner = authority("inner", Some(&outer), |_| {});
        check(&[&root], &["root"]);
        check(&[&inner, &root, &outer], &["root"]);
        // Without the root, the outer one is trusted by itself; without the outer one, both.
        check(&[&inner, &outer], &["outer"]);
        check(&[&inner, &root], &["inner", "root"]);
        // A name alone proves nothing.
        let twin = authority("root", None, |_| {});
        check(&[&twin, &outer], &["outer", "root"]);
        check(&[&twin, &root, &outer], &["root", "root"]);
    }

    #[test]
    fn authorities_that_signed_each_other_are_all_trusted() {
        let one = authority("one", None, |_| {});
        let other = authority("other", None, |_| {});
        let cross = |of: &Made, by: &Made| {
            let made = of.params.signed_by(&of.key, &by.issuer()).unwrap();
            Made {
                params: of.params.clone(),
                key: KeyPair::generate().unwrap(),
                der: made.der().clone(),
            }
        };
        let (by_other, by_one) = (cross(&one, &other), cross(&other, &one));
        check(&[&by_other, &by_one], &["one", "other"]);
        check(&[&one, &by_other, &other], &["one", "other"]);
        check(&[&other, &by_other], &["other"]);
    }

    #[test]
    fn what_is_no_authority_is_said() {
        for (file, said) in [
            (String::new(), "there is no certificate in this file"),
            (pem("X509 CRL", &[]), "a certificate revocation list"),
            (
                format!(
                    "{}{}",
                    authority("a", None, |_| {}).pem(),
                    pem("CERTIFICATE", &[0x30, 0])
                ),
                "certificate number 2 of the file",
            ),
        ] {
            let wrong = Authorities::read(file.as_bytes()).unwrap_err();
            assert!(wrong.problem.contains(said), "{}", wrong.problem);
        }
    }

    #[test]
    fn every_kind_of_key_signs() {
        let algorithms = BTreeMap::from([
            ("p256", &rcgen::PKCS_ECDSA_P256_SHA256),
            ("p384", &rcgen::PKCS_ECDSA_P384_SHA384),
            ("p521", &rcgen::PKCS_ECDSA_P521_SHA512),
            ("ed25519", &rcgen::PKCS_ED25519),
            ("rsa", &rcgen::PKCS_RSA_SHA256),
        ]);
        for (name, algorithm) in algorithms {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let mut params = named(name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let der = params.self_signed(&key).unwrap().der().clone();
            let authority = Authority::read(der.clone()).unwrap();
            assert!(authority.signed(&der), "{name}");
            let mut other = der.to_vec();
            let last = other.len() - 1;
            other[last] ^= 1;
            assert!(!authority.signed(&other), "{name}");
            assert!(!authority.signed(b"nonsense"));
        }
    }
}
