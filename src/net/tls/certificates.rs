//! The certificates of a listener, from PEM files, and which of them a client gets. It makes none up.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::TlsFault;
use super::dates::Dates;
use super::material::{self, Wrong};
use crate::net::der::certificate_key;

/// A certificate with its key and its DNS names.
#[derive(Debug)]
pub(crate) struct CertificatePair {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
    first_version: bool,
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
        let Some(Some((_, first_version))) = own.first().copied() else {
            return Err(malformed(&"its fields are damaged"));
        };
        let names = match chain.first() {
            // It has no extensions and so no names; clients decide whether they accept it.
            Some(_) if first_version => Vec::new(),
            Some(first) => {
                let parsed =
                    webpki::EndEntityCert::try_from(first).map_err(|error| malformed(&error))?;
                let names = parsed.valid_dns_names();
                names.map(str::to_ascii_lowercase).collect()
            }
            None => Vec::new(),
        };
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
            first_version,
        })
    }

    /// A warning about a valid but questionable certificate.
    pub(crate) fn warning(&self) -> Option<&'static str> {
        self.first_version.then_some(
            "it is of X.509 version 1, which many clients refuse; a certificate with names is of version 3: openssl \
             x509 -req ... -extfile names.cnf, with subjectAltName=DNS:HOST in names.cnf",
        )
    }
}

impl CertificatePair {
    /// A warning about certificates that have expired, will soon, or are not valid yet.
    pub(crate) fn dates_warning(&self, now: SystemTime) -> Option<String> {
        let warnings = self.dates.iter().enumerate();
        let mut warnings = warnings.filter_map(|(at, dates)| {
            let warning = dates.warning(now)?;
            Some(match at {
                0 => format!("it {warning}"),
                _ => format!("number {} of its chain {warning}", at + 1),
            })
        });
        warnings.next()
    }
}

/// Selects certificates by server name.
#[derive(Debug)]
struct ByName {
    names: HashMap<String, Arc<CertifiedKey>>,
    first: Option<Arc<CertifiedKey>>,
}

impl ByName {
    fn new(pairs: Vec<CertificatePair>) -> Self {
        let mut names = HashMap::new();
        let mut first = None;
        for pair in pairs {
            first.get_or_insert_with(|| Arc::clone(&pair.key));
            for name in pair.names {
                names.entry(name).or_insert_with(|| Arc::clone(&pair.key));
            }
        }
        Self { names, first }
    }

    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let found = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            self.names.get(&name).or_else(|| {
                let (_, parent) = name.split_once('.')?;
                self.names.get(&format!("*.{parent}"))
            })
        });
        found.or(self.first.as_ref()).map(Arc::clone)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name())
    }
}

#[cfg(test)]
mod tests;
