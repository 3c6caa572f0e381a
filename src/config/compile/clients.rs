//! Client certificates: reads what `client_auth` of a listener names, and compiles what `auth` of a route demands of one.

use http::HeaderName;

use super::Compiler;
use crate::auth::{CertificateRule, Demand, is_credential};
use crate::clock;
use crate::config::parsed::{self, Accepted, Spanned};
use crate::config::place::Place;
use crate::net::tls::{Authorities, Clients, Part, RevocationList};

/// What `auth` says of client certificates.
pub(super) struct Said<'p> {
    /// Which are accepted.
    pub(super) certificate: Option<&'p Spanned<Accepted>>,
    /// The headers for the app.
    pub(super) forward: &'p [(Spanned<HeaderName>, Spanned<Part>)],
    /// Whether refusals are only reported.
    pub(super) only_reports: bool,
}

impl Compiler<'_> {
    /// The clients of a listener; `None` where an error was reported.
    pub(super) fn client_auth(&mut self, parsed: &parsed::ClientAuth) -> Option<Clients> {
        let ca = &parsed.ca;
        let pem = self.file(&ca.value, ca.place)?;
        let authorities = match Authorities::read(&pem) {
            Ok(authorities) => authorities,
            Err(wrong) => {
                let remedy = wrong.remedy_for(&ca.value);
                self.errors.at(ca.place, wrong.problem).hint(remedy);
                return None;
            }
        };
        for warning in authorities.warnings(clock::now()) {
            self.errors
                .warn(ca.place, &format!("the certificate of the CA {warning}"));
        }
        let before = self.errors.count();
        let mut lists = Vec::new();
        for file in &parsed.crl {
            let Some(bytes) = self.file(&file.value, file.place) else {
                continue;
            };
            match RevocationList::read(&bytes, &authorities) {
                Ok(read) => {
                    for warning in read.iter().filter_map(|list| list.warning(clock::now())) {
                        self.errors.warn(file.place, &warning);
                    }
                    lists.extend(read);
                }
                Err(wrong) => {
                    let remedy = wrong.remedy_for(&file.value);
                    self.errors.at(file.place, wrong.problem).hint(remedy);
                }
            }
        }
        if self.errors.count() != before {
            return None;
        }
        match Clients::new(authorities, lists, parsed.required.value) {
            Ok(clients) => Some(clients),
            Err(fault) => {
                self.errors.at(parsed.place, fault.to_string());
                None
            }
        }
    }

    /// The rule of a route for client certificates, where it says anything of them.
    pub(super) fn certificate_rule(&mut self, said: &Said<'_>) -> Option<CertificateRule> {
        let first = said.certificate.map(|it| it.place);
        let first = first.or_else(|| said.forward.first().map(|(_, part)| part.place))?;
        self.a_client_can_show_one(first);
        for (name, _) in said.forward {
            self.is_the_gateways(name);
            if is_credential(&name.value) {
                let problem = format!("`{}` carries a client's own credentials", name.value);
                self.errors
                    .at(name.place, problem)
                    .hint("take a header of its own for the certificate, such as Client-Cert");
            }
        }
        let demand = said
            .certificate
            .map(|certificate| match &certificate.value {
                Accepted::Any => Demand::Any,
                Accepted::OneOf(names, fingerprints) => Demand::OneOf {
                    names: names.clone(),
                    fingerprints: fingerprints.clone(),
                },
            });
        let forward = said.forward.iter();
        Some(CertificateRule {
            demand,
            forward: forward
                .map(|(name, part)| (name.value.clone(), part.value))
                .collect(),
            only_reports: said.only_reports,
        })
    }

    /// Without a listener that asks for them, a rule on client certificates could only refuse.
    fn a_client_can_show_one(&mut self, place: Place) {
        if !self.asks_for_certificates && !self.errors.is_unread("listeners") {
            self.errors
                .at(
                    place,
                    "no listener has `client_auth`, so that no client can show a certificate",
                )
                .hint("add `client_auth: {ca: FILE}` to the `tls` of a listener");
        }
    }
}

/// Describes what is demanded of client certificates, for the log of a reload.
pub(super) fn in_words(certificate: &Accepted) -> String {
    match certificate {
        Accepted::Any => "certificate any".to_owned(),
        Accepted::OneOf(names, fingerprints) => {
            let names = names.iter().map(ToString::to_string);
            let prints = fingerprints.iter().map(|print| print.base64url());
            let all: Vec<String> = names.chain(prints).collect();
            format!("certificate {}", all.join(" or "))
        }
    }
}
