//! Extensions of a certificate that webpki does not tell: the IP addresses that it is valid for, and whether it demands
//! stapling. Clients enforce them, not this.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use x509_parser::asn1_rs::oid;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::net::der::{INTEGER, SEQUENCE, expect, whole};

/// The numbers of `status_request` and `status_request_v2` among TLS extensions (RFC 6066, RFC 6961).
const STATUS_REQUESTS: [&[u8]; 2] = [&[5], &[17]];

/// The IP addresses that a certificate in DER is valid for (RFC 5280 section 4.2.1.6).
pub(super) fn addresses(certificate: &[u8]) -> Vec<IpAddr> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let addresses = names.value.general_names.iter().filter_map(|name| {
        let GeneralName::IPAddress(bytes) = name else {
            return None;
        };
        let four = <[u8; 4]>::try_from(*bytes).map(|it| IpAddr::V4(Ipv4Addr::from(it)));
        let six = <[u8; 16]>::try_from(*bytes).map(|it| IpAddr::V6(Ipv6Addr::from(it)));
        four.or(six).ok()
    });
    addresses.collect()
}

/// Whether a certificate in DER demands a stapled OCSP response (RFC 7633).
pub(super) fn demands_stapling(certificate: &[u8]) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return false;
    };
    let Ok(Some(features)) = certificate.get_extension_unique(&oid!(1.3.6.1.5.5.7.1.24)) else {
        return false;
    };
    let mut left = whole(features.value, SEQUENCE).unwrap_or_default();
    while let Some((number, rest)) = expect(left, INTEGER) {
        if STATUS_REQUESTS.contains(&number) {
            return true;
        }
        left = rest;
    }
    false
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CustomExtension, KeyPair, SanType};

    use super::*;

    fn signed(params: &CertificateParams) -> Vec<u8> {
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        made.der().to_vec()
    }

    #[test]
    fn addresses_of_both_families_are_read_and_names_are_none() {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        assert!(addresses(&signed(&params)).is_empty());
        let all: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let names = all.map(SanType::IpAddress);
        params.subject_alt_names.extend(names);
        assert_eq!(addresses(&signed(&params)), all);
        assert!(addresses(b"nonsense").is_empty());
    }

    #[test]
    fn a_demand_for_stapling_is_one_of_the_features() {
        for (features, demands) in [
            (&[0x30, 3, 2, 1, 5][..], true),
            (&[0x30, 6, 2, 1, 16, 2, 1, 17], true),
            (&[0x30, 3, 2, 1, 16], false),
            (&[0x30, 0], false),
            (&[2, 1, 5], false),
        ] {
            let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
            let id = &[1, 3, 6, 1, 5, 5, 7, 1, 24];
            let extension = CustomExtension::from_oid_content(id, features.to_vec());
            params.custom_extensions.push(extension);
            assert_eq!(demands_stapling(&signed(&params)), demands, "{features:?}");
        }
        assert!(!demands_stapling(b"nonsense"));
    }
}
