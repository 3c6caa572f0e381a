//! `tls` of a listener: reads its certificates, and finds hosts of routes for which there is none.

use std::collections::HashSet;
use std::sync::Arc;

use super::Compiler;
use super::acme::Orders;
use crate::clock;
use crate::config::parsed::{self, HostPattern};
use crate::config::place::Place;
use crate::net::tls::{CertificatePair, MinVersion, Tls, TlsSettings, UnknownName};
use crate::snapshot::Listener;

/// How many hosts without a certificate are named.
const NAMED: usize = 10;

impl Compiler<'_> {
    pub(super) fn tls(
        &mut self,
        parsed: &parsed::Tls,
        gateway: &parsed::Gateway,
        orders: &mut Orders,
    ) -> Option<Tls> {
        let managed = match &parsed.acme {
            Some(acme) => self.acme(acme, gateway, orders),
            None => Some(Vec::new()),
        };
        let mut certificates = Vec::new();
        for certificate in &parsed.certificates {
            let cert = self.file(&certificate.cert.value, certificate.cert.place);
            let key = self.file(&certificate.key.value, certificate.key.place);
            let (Some(cert), Some(key)) = (cert, key) else {
                continue;
            };
            match CertificatePair::from_pem(&cert, &key) {
                Ok(pair) => {
                    for warning in pair.warnings(clock::now()) {
                        let path = certificate.cert.value.display();
                        self.warnings
                            .push(format!("the certificate `{path}`: {warning}"));
                    }
                    certificates.push(pair);
                }
                Err(fault) => {
                    let (cert, key) = (&certificate.cert, &certificate.key);
                    let place = if fault.concerns_certificate() {
                        cert.place
                    } else {
                        key.place
                    };
                    let remedy = fault.remedy(&cert.value, &key.value);
                    let draft = self.errors.at(place, fault.to_string());
                    if let Some(remedy) = remedy {
                        draft.hint(remedy);
                    }
                }
            }
        }
        let clients = match &parsed.client_auth {
            None => None,
            Some(client_auth) => Some(self.client_auth(client_auth)?),
        };
        if certificates.is_empty() && parsed.acme.is_none() {
            return None;
        }
        let unknown_name = match &parsed.unknown_name {
            Some(first) if parsed.certificates.is_empty() && first.value == UnknownName::First => {
                self.errors
                    .at(
                        first.place,
                        "there is no first certificate: `acme` is alone",
                    )
                    .hint("`refuse`, which is the default here; none is made up");
                return None;
            }
            Some(written) => written.value,
            None if parsed.certificates.is_empty() => UnknownName::Refuse,
            None => UnknownName::First,
        };
        let cells = (managed?.into_iter()).map(|it| (it.names.clone(), Arc::clone(&it.slot)));
        let settings = TlsSettings {
            certificates,
            issued: cells.collect(),
            challenges: (parsed.acme.as_ref()).map(|_| Arc::clone(orders.challenges())),
            unknown_name,
            oldest: match parsed.min_version.value {
                parsed::TlsVersion::V1_2 => MinVersion::Tls12,
                parsed::TlsVersion::V1_3 => MinVersion::Tls13,
            },
            http2: parsed.http2,
            tickets: Arc::clone(&self.tickets),
            clients,
        };
        match Tls::new(&settings) {
            Ok(tls) => Some(tls),
            Err(fault) => {
                self.errors.at(parsed.place, fault.to_string());
                None
            }
        }
    }

    /// Warns about hosts of routes for which no TLS listener has a certificate, where there is a TLS listener.
    pub(super) fn hosts_without_certificate(
        &mut self,
        routes: &[parsed::Route],
        listeners: &[Arc<Listener>],
    ) {
        let tls: Vec<&Tls> = (listeners.iter())
            .filter_map(|listener| listener.tls.as_ref())
            .collect();
        if tls.is_empty() {
            return;
        }
        let has = |host: &HostPattern| match host {
            HostPattern::Exact(name) => tls.iter().any(|tls| tls.has_certificate(name)),
            HostPattern::Below(parent) => tls.iter().any(|tls| tls.has_certificate_below(parent)),
        };
        let mut seen = HashSet::new();
        let mut more = 0_usize;
        for host in routes.iter().flat_map(|route| &route.hosts) {
            let name = host.value.to_string();
            if has(&host.value) || !seen.insert(name.clone()) {
                continue;
            }
            if seen.len() > NAMED {
                more += 1;
                continue;
            }
            let warning = format!(
                "no TLS listener has a certificate for `{name}`: its clients get another's, or an alert"
            );
            self.errors.warn(host.place, &warning);
        }
        if more > 0 {
            let warning = format!("{more} more hosts have no certificate");
            self.errors.warn(Place::default(), &warning);
        }
    }
}
