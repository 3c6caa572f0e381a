//! The certificates of a listener, from PEM files, and which of them a client gets: by the name that it asks for, and by
//! the signatures that it can verify. It makes none up.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, SignatureScheme};
use smallvec::SmallVec;

use super::TlsFault;
use super::dates::Dates;
use super::extensions;
use super::issued::{Issued, IssuedByName};
use super::material::{self, Wrong};
use crate::net::der::certificate_key;

/// Whom a client gets that asks for a name that no certificate has, or for none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum UnknownName {
    /// Nobody: the handshake ends with the alert `unrecognized_name` (RFC 6066 section 3).
    Refuse,
    /// The first certificate.
    First,
}

/// A certificate with its key, and the names that it is valid for.
#[derive(Debug)]
pub(crate) struct CertificatePair {
    key: Arc<CertifiedKey>,
    /// DNS names in lower case, as `*.example.com` too.
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    first_version: bool,
    must_staple: bool,
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
        let (Some(first), Some(Some((_, first_version)))) = (chain.first(), own.first().copied())
        else {
            return Err(malformed(&"its fields are damaged"));
        };
        let names = if first_version {
            // It has no extensions and so no names; clients decide whether they accept it.
            Vec::new()
        } else {
            dns_names(first).map_err(|error| malformed(&error))?
        };
        let (addresses, must_staple) = (
            extensions::addresses(first),
            extensions::demands_stapling(first),
        );
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
            addresses,
            first_version,
            must_staple,
        })
    }

    /// As a certificate that ACME brought.
    ///
    /// # Errors
    /// Its fields cannot be read.
    pub(crate) fn issued(self) -> Result<Issued, TlsFault> {
        let issued = Issued::new(self.key, self.names, self.must_staple);
        issued.ok_or_else(|| {
            TlsFault::Certificate(Wrong {
                problem: "the certificate's dates or names cannot be read".to_owned(),
                remedy: "openssl x509 -in FILE -noout -text shows what can be read",
            })
        })
    }

    /// The first of its names, or of its addresses, and its last moment; `None` where its dates cannot be read.
    pub(super) fn name_and_end(&self) -> Option<(String, SystemTime)> {
        let address = || self.addresses.first().map(ToString::to_string);
        let name = self.names.first().cloned().or_else(address);
        Some((name.unwrap_or_default(), self.dates.first()?.ends()))
    }

    /// Warnings about a valid but questionable certificate: its version, what it demands, and certificates of its chain
    /// that have expired, will soon, or are not valid yet.
    pub(crate) fn warnings(&self, now: SystemTime) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.first_version {
            warnings.push(
                "it is of X.509 version 1, which many clients refuse; a certificate with names is of version 3: openssl \
                 x509 -req ... -extfile names.cnf, with subjectAltName=DNS:HOST in names.cnf"
                    .to_owned(),
            );
        }
        if self.must_staple {
            warnings.push(
                "it demands a stapled OCSP response (must-staple, RFC 7633), which the gateway does not send: clients \
                 that honour this refuse it; ask its CA for one without"
                    .to_owned(),
            );
        }
        let dates = self.dates.iter().enumerate().find_map(|(at, dates)| {
            let warning = dates.warning(now)?;
            Some(match at {
                0 => format!("it {warning}"),
                _ => format!("number {} of its chain {warning}", at + 1),
            })
        });
        warnings.extend(dates);
        warnings
    }
}

/// The DNS names that a certificate is valid for, in lower case.
fn dns_names(certificate: &CertificateDer<'_>) -> Result<Vec<String>, webpki::Error> {
    let parsed = webpki::EndEntityCert::try_from(certificate)?;
    Ok(parsed.valid_dns_names().map(plain).collect())
}

/// A name as it is compared: in lower case, without a last dot.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// Certificates for the same clients, in the configuration's order.
type Keys = SmallVec<[Arc<CertifiedKey>; 1]>;

/// Appends those that are not among them yet.
fn add_new<'k>(keys: &mut Keys, more: impl IntoIterator<Item = &'k Arc<CertifiedKey>>) {
    for new in more {
        if !keys.iter().any(|key| Arc::ptr_eq(key, new)) {
            keys.push(Arc::clone(new));
        }
    }
}

/// The certificates of the configuration, by what they are valid for.
#[derive(Debug, Default)]
struct ByName {
    exact: HashMap<String, Keys>,
    /// By what follows `*.`.
    below: HashMap<String, Keys>,
    addresses: HashMap<IpAddr, Keys>,
}

impl ByName {
    fn add(&mut self, pair: &CertificatePair) {
        for name in &pair.names {
            let (names, name) = match name.strip_prefix("*.") {
                Some(parent) => (&mut self.below, parent),
                None => (&mut self.exact, name.as_str()),
            };
            let keys = names.entry(name.to_owned()).or_default();
            keys.push(Arc::clone(&pair.key));
        }
        for address in &pair.addresses {
            let keys = self.addresses.entry(*address).or_default();
            keys.push(Arc::clone(&pair.key));
        }
    }

    /// The certificates that are valid for a plain name; those with the name itself are first.
    fn of<'k>(
        &'k self,
        name: &str,
    ) -> impl Iterator<Item = &'k Arc<CertifiedKey>> + Clone + use<'k> {
        let parent = name.split_once('.').map(|(_, parent)| parent);
        let below = parent.and_then(|parent| self.below.get(parent));
        let both = [self.exact.get(name), below];
        both.into_iter().flatten().flatten()
    }
}

/// What a client offers to verify.
#[derive(Clone, Copy, Debug)]
struct Offer<'o> {
    schemes: &'o [SignatureScheme],
    suites: &'o [CipherSuite],
}

impl Offer<'_> {
    /// The first certificate whose key makes a signature that the client verifies; the first of all where none does, and
    /// the handshake fails for that reason.
    fn pick<'k>(
        self,
        mut keys: impl Iterator<Item = &'k Arc<CertifiedKey>> + Clone,
    ) -> Option<Arc<CertifiedKey>> {
        let mut all = keys.clone();
        let (first, second) = (all.next(), all.next());
        if second.is_none() {
            return first.map(Arc::clone);
        }
        // A client of TLS 1.3 lists PKCS#1 v1.5 for the signatures in certificates alone (RFC 8446 section 4.2.3).
        let now: Vec<_> = if self
            .suites
            .iter()
            .any(|suite| u16::from(*suite) >> 8 == 0x13)
        {
            let is_old = |scheme: &SignatureScheme| u16::from(*scheme) & 0xff == 0x01;
            let schemes = self.schemes.iter().filter(|scheme| !is_old(scheme));
            schemes.copied().collect()
        } else {
            self.schemes.to_vec()
        };
        let signs = |schemes: &[SignatureScheme], key: &CertifiedKey| {
            key.key.choose_scheme(schemes).is_some()
        };
        let mut again = keys.clone();
        let found = keys.find(|key| signs(&now, key));
        let found = found.or_else(|| again.find(|key| signs(self.schemes, key)));
        found.or(first).map(Arc::clone)
    }
}

/// Chooses the certificate of a handshake.
#[derive(Clone, Debug)]
pub(super) struct Resolver {
    files: Arc<ByName>,
    issued: Arc<IssuedByName>,
    /// For a client that asks for no name; none ends the handshake.
    unnamed: Keys,
    /// For a client that asks for an unknown name; none ends the handshake.
    unknown: Keys,
}

impl Resolver {
    /// Chooses among these certificates.
    pub(super) fn new(pairs: &[CertificatePair], unknown: UnknownName) -> Self {
        let mut files = ByName::default();
        for pair in pairs {
            files.add(pair);
        }
        let unknown: Keys = match (unknown, pairs.first()) {
            (UnknownName::First, Some(first)) => {
                // With all that are valid for the same name, so that each client can verify one of them.
                let mut keys: Keys = SmallVec::from_iter([Arc::clone(&first.key)]);
                let twins = first.names.iter().flat_map(|name| files.of(name));
                add_new(&mut keys, twins);
                keys
            }
            (UnknownName::First, None) | (UnknownName::Refuse, _) => Keys::new(),
        };
        Self {
            files: Arc::new(files),
            issued: Arc::default(),
            unnamed: unknown.clone(),
            unknown,
        }
    }

    /// Chooses among those that ACME brings, too; they come after the others.
    pub(super) fn with_issued(self, issued: IssuedByName) -> Self {
        Self {
            issued: Arc::new(issued),
            ..self
        }
    }

    /// The same for clients that came to each of the addresses that a certificate has: one that asks for no name gets it,
    /// if it can verify it.
    pub(super) fn by_address(&self) -> impl Iterator<Item = (IpAddr, Self)> {
        self.files.addresses.iter().map(|(address, keys)| {
            let mut at = self.clone();
            at.unnamed = keys.clone();
            add_new(&mut at.unnamed, &self.unknown);
            (*address, at)
        })
    }

    /// Whether a client that asks for this name, or for none, gets a certificate.
    pub(super) fn serves(&self, name: Option<&str>) -> bool {
        match name {
            Some(name) => {
                let name = plain(name);
                match (self.files.of(&name).next(), self.issued.knows(&name)) {
                    (Some(_), _) => true,
                    // Its certificate has not come yet; another one would teach clients to click on.
                    (None, true) => self.issued.key(&name).is_some(),
                    (None, false) => !self.unknown.is_empty(),
                }
            }
            None => !self.unnamed.is_empty(),
        }
    }

    /// Whether a certificate is valid for this host, a name or an IP address, or is ordered for it.
    pub(super) fn has(&self, host: &str) -> bool {
        match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) => self.files.addresses.contains_key(&address),
            Err(_) => {
                let name = plain(host);
                self.files.of(&name).next().is_some() || self.issued.knows(&name)
            }
        }
    }

    /// Whether a certificate is valid for some name below this one.
    pub(super) fn has_below(&self, parent: &str) -> bool {
        let is_below = |name: &String| {
            let rest = name.strip_suffix(parent);
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let (exact, below) = self.issued.names();
        (self.files.below.keys().chain(below)).any(is_below)
            || (self.files.exact.keys().chain(exact)).any(|name| name != parent && is_below(name))
    }

    fn find(&self, name: Option<&str>, offer: Offer<'_>) -> Option<Arc<CertifiedKey>> {
        match name {
            None => offer.pick(self.unnamed.iter()),
            Some(name) => {
                let name = plain(name);
                let issued = self.issued.key(&name);
                let found = offer.pick(self.files.of(&name).chain(issued.iter()));
                match found {
                    None if self.issued.knows(&name) => None,
                    None => offer.pick(self.unknown.iter()),
                    found => found,
                }
            }
        }
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let offer = Offer {
            schemes: hello.signature_schemes(),
            suites: hello.cipher_suites(),
        };
        self.find(hello.server_name(), offer)
    }
}

#[cfg(test)]
mod tests;
