//! Certificates that ACME brought: a cell for each, which snapshots point to and which is kept over reloads, so that a
//! renewed certificate is served by the next handshake without a new snapshot. Ordering them is `control/acme`'s.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::sign::CertifiedKey;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::dates;

/// How far the clock of a directory may be ahead of ours.
const AHEAD: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest name of an issuer that is shown.
const SHOWN: usize = 200;

/// An issued certificate with its key.
#[derive(Debug)]
pub(crate) struct Issued {
    key: Arc<CertifiedKey>,
    /// DNS names in lower case, as `*.example.com` too.
    names: Vec<String>,
    about: About,
}

/// What renewal and `cert list` need to know about a certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct About {
    /// The beginning of its validity.
    pub(crate) begins: SystemTime,
    /// The end of its validity.
    pub(crate) ends: SystemTime,
    /// The issuer's common name, or its whole name where it has none.
    pub(crate) issuer: String,
    /// Its name in renewal information: key identifier of the issuer and serial number, in base64url with a dot
    /// between them (RFC 9773 section 4.1). `None` without a key identifier.
    pub(crate) id: Option<String>,
    /// Whether it demands stapled OCSP responses (RFC 7633), which the gateway does not send.
    pub(crate) must_staple: bool,
}

impl Issued {
    /// A chain with its key, valid for these names. `None` where its fields cannot be read.
    pub(super) fn new(
        key: Arc<CertifiedKey>,
        names: Vec<String>,
        must_staple: bool,
    ) -> Option<Self> {
        let about = about(key.cert.first()?, must_staple)?;
        Some(Self { key, names, about })
    }

    /// Whether it is valid for a plain name.
    fn is_for(&self, name: &str) -> bool {
        let parent = name.split_once('.').map(|(_, parent)| parent);
        self.names
            .iter()
            .any(|known| match known.strip_prefix("*.") {
                Some(known) => Some(known) == parent,
                None => known == name,
            })
    }

    /// Whether all these names are in it.
    pub(crate) fn has_all(&self, names: &[String]) -> bool {
        names.iter().all(|name| self.names.contains(name))
    }

    /// The first of its names.
    pub(crate) fn first_name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }

    /// Its dates, issuer and name.
    pub(crate) fn about(&self) -> &About {
        &self.about
    }

    /// Checks a certificate that a directory sent: it must be for exactly these names, valid now, and for TLS.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check(&self, names: &[String], now: SystemTime) -> Result<(), String> {
        let missing = names.iter().find(|name| !self.names.contains(name));
        if let Some(name) = missing {
            return Err(format!(
                "the certificate is not for {name}, but for {}",
                self.names.join(", ")
            ));
        }
        if let Some(other) = self.names.iter().find(|name| !names.contains(name)) {
            return Err(format!(
                "the certificate is also for {other}, which was not asked for"
            ));
        }
        if self.about.begins > now + AHEAD {
            let begins = httpdate::fmt_http_date(self.about.begins);
            return Err(format!("the certificate is not valid before {begins}"));
        }
        if self.about.ends <= now {
            let ends = httpdate::fmt_http_date(self.about.ends);
            return Err(format!("the certificate expired on {ends}"));
        }
        Ok(())
    }
}

fn about(certificate: &[u8], must_staple: bool) -> Option<About> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let validity = parsed.validity();
    let issuer = parsed.issuer();
    let common = issuer.iter_common_name().next();
    let issuer = common
        .and_then(|name| name.as_str().ok())
        .map_or_else(|| issuer.to_string(), str::to_owned);
    let key = parsed.extensions().iter().find_map(|extension| {
        if let ParsedExtension::AuthorityKeyIdentifier(it) = extension.parsed_extension() {
            return it.key_identifier.as_ref();
        }
        None
    });
    let serial = parsed.tbs_certificate.raw_serial();
    let id = key.map(|key| {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        format!("{}.{}", encode(key.0), encode(serial))
    });
    Some(About {
        begins: dates::time(validity.not_before)?,
        ends: dates::time(validity.not_after)?,
        issuer: issuer
            .chars()
            .filter(|letter| !letter.is_control())
            .take(SHOWN)
            .collect(),
        id,
        must_staple,
    })
}

/// The cell of one certificate: empty until it is issued for the first time.
#[derive(Debug, Default)]
pub(crate) struct Slot(ArcSwapOption<Issued>);

impl Slot {
    /// The certificate in force.
    pub(crate) fn current(&self) -> Option<Arc<Issued>> {
        self.0.load_full()
    }

    /// Serves this certificate from the next handshake on.
    pub(crate) fn replace(&self, issued: Issued) {
        self.0.store(Some(Arc::new(issued)));
    }

    /// The key for a handshake with this plain name, without a lock. None where the certificate is not valid for it: the
    /// name was added, and the certificate that has it too has not come yet.
    fn key(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let current = self.0.load();
        let issued = current.as_ref().filter(|issued| issued.is_for(name));
        issued.map(|issued| Arc::clone(&issued.key))
    }
}

/// The cells of a listener's certificates, by name.
#[derive(Debug, Default)]
pub(super) struct IssuedByName {
    exact: HashMap<String, Arc<Slot>>,
    /// By what follows `*.`.
    below: HashMap<String, Arc<Slot>>,
}

impl IssuedByName {
    /// The cells of these certificates, each with its names.
    pub(super) fn new(all: &[(Vec<String>, Arc<Slot>)]) -> Self {
        let mut by_name = Self::default();
        for (names, slot) in all {
            for name in names {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut by_name.below, parent),
                    None => (&mut by_name.exact, name.as_str()),
                };
                names.insert(name.to_owned(), Arc::clone(slot));
            }
        }
        by_name
    }

    /// Whether a plain name is one of these, whether its certificate has come or not.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.slots(name).next().is_some()
    }

    /// The certificate for a plain name; one with the name itself is first.
    pub(super) fn key(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.slots(name).find_map(|slot| slot.key(name))
    }

    /// The names, and the parents of those with a star.
    pub(super) fn names(&self) -> (impl Iterator<Item = &String>, impl Iterator<Item = &String>) {
        (self.exact.keys(), self.below.keys())
    }

    fn slots(&self, name: &str) -> impl Iterator<Item = &Arc<Slot>> {
        let parent = name.split_once('.').map(|(_, parent)| parent);
        let below = parent.and_then(|parent| self.below.get(parent));
        self.exact.get(name).into_iter().chain(below)
    }
}

#[cfg(test)]
mod tests {
    use super::super::CertificatePair;
    use super::*;

    /// A certificate of these names with its key, made by an authority with a key identifier.
    fn issued(names: &[&str], days: std::ops::Range<i32>) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut ca = rcgen::CertificateParams::default();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        ca.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(vec![0xc0, 0xff, 0xee]);
        ca.distinguished_name
            .push(rcgen::DnType::CommonName, "Test CA\u{7}");
        let ca = rcgen::CertifiedIssuer::self_signed(ca, rcgen::KeyPair::generate().unwrap());
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.serial_number = Some(vec![0xca, 0xfe].into());
        params.use_authority_key_identifier_extension = true;
        params.not_before = rcgen::date_time_ymd(2020 + days.start, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020 + days.end, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let made = params.signed_by(&key, &ca.unwrap()).unwrap();
        let (chain, key) = (made.pem(), key.serialize_pem());
        let pair = CertificatePair::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        pair.issued().unwrap()
    }

    fn at(year: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs((year - 1970) * 31_557_600)
    }

    #[test]
    fn what_renewal_needs_is_read() {
        let issued = issued(&["a.test"], 0..3);
        let about = issued.about();
        // RFC 9773 section 4.1: the serial number with the zero that keeps it positive.
        assert_eq!(about.id.as_deref(), Some("wP_u.AMr-"));
        assert_eq!(about.issuer, "Test CA");
        assert!(about.begins < at(2021) && about.ends > at(2022));
        assert!(!about.must_staple);
    }

    #[test]
    fn a_certificate_that_was_not_ordered_is_refused() {
        let issued = issued(&["a.test", "*.b.test"], 0..3);
        let check = |names: &[&str], year| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            issued.check(&names, at(year)).err().unwrap_or_default()
        };
        assert_eq!(check(&["a.test", "*.b.test"], 2021), "");
        for (names, year, said) in [
            (
                &["a.test", "c.test"][..],
                2021,
                "is not for c.test, but for a.test, *.b.test",
            ),
            (&["a.test"], 2021, "also for *.b.test"),
            (&["a.test", "*.b.test"], 2019, "not valid before"),
            (&["a.test", "*.b.test"], 2024, "expired on"),
        ] {
            let why = check(names, year);
            assert!(why.contains(said), "{names:?} {year}: {why}");
        }
    }

    #[test]
    fn a_cell_serves_what_came_for_the_names_that_it_has() {
        let slot = Arc::new(Slot::default());
        let names = vec![
            "a.test".to_owned(),
            "b.test".to_owned(),
            "*.c.test".to_owned(),
        ];
        let by_name = IssuedByName::new(&[(names, Arc::clone(&slot))]);
        for name in ["a.test", "b.test", "x.c.test"] {
            assert!(by_name.knows(name) && by_name.key(name).is_none(), "{name}");
        }
        for name in ["c.test", "x.y.c.test", "test", "x.a.test"] {
            assert!(!by_name.knows(name), "{name}");
        }
        // Before `b.test` was added there was this one.
        slot.replace(issued(&["a.test", "*.c.test"], 0..3));
        assert!(by_name.key("a.test").is_some());
        assert!(by_name.key("x.c.test").is_some());
        assert!(by_name.key("b.test").is_none());
        slot.replace(issued(&["a.test", "b.test", "*.c.test"], 0..3));
        assert!(by_name.key("b.test").is_some());
    }
}
