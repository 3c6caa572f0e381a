//! Certificates by name, and what is said of wrong ones.

use std::path::Path;

use super::super::ClientTls;
use super::*;

/// A self-signed pair of this algorithm.
fn pair_of(
    algorithm: &'static rcgen::SignatureAlgorithm,
    names: &[&str],
    more: impl FnOnce(&mut rcgen::CertificateParams),
) -> CertificatePair {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = rcgen::CertificateParams::new(names).unwrap();
    more(&mut params);
    let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
    let made = params.self_signed(&key).unwrap();
    let (certificate, key) = (made.pem(), key.serialize_pem());
    CertificatePair::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap()
}

fn pair(names: &[&str]) -> CertificatePair {
    pair_of(&rcgen::PKCS_ECDSA_P256_SHA256, names, |_| {})
}

/// What today's browsers offer.
const MODERN: Offer<'_> = Offer {
    schemes: &[
        SignatureScheme::ECDSA_NISTP256_SHA256,
        SignatureScheme::RSA_PSS_SHA256,
        SignatureScheme::RSA_PKCS1_SHA256,
        SignatureScheme::ECDSA_NISTP384_SHA384,
    ],
    suites: &[CipherSuite::TLS13_AES_128_GCM_SHA256],
};

/// A client of TLS 1.2 without elliptic curves in certificates.
const RSA_ONLY: Offer<'_> = Offer {
    schemes: &[
        SignatureScheme::RSA_PKCS1_SHA256,
        SignatureScheme::RSA_PSS_SHA256,
    ],
    suites: &[CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256],
};

#[track_caller]
fn gets(resolver: &Resolver, name: Option<&str>, offer: Offer<'_>, pair: Option<&CertificatePair>) {
    let found = resolver.find(name, offer);
    match (&found, pair) {
        (Some(found), Some(pair)) => assert!(Arc::ptr_eq(found, &pair.key), "{name:?}"),
        (None, None) => {}
        _ => panic!("{name:?}: {found:?}"),
    }
    assert_eq!(resolver.serves(name), found.is_some(), "{name:?}");
}

#[test]
fn the_certificate_is_chosen_by_name() {
    let pairs = [pair(&["a.example"]), pair(&["*.b.example", "B.example"])];
    let [first, second] = &pairs;
    for (unknown, default) in [
        (UnknownName::First, Some(first)),
        (UnknownName::Refuse, None),
    ] {
        let resolver = Resolver::new(&pairs, unknown);
        for (name, pair) in [
            (Some("a.example"), Some(first)),
            (Some("A.example"), Some(first)),
            (Some("a.example."), Some(first)),
            (Some("b.example"), Some(second)),
            (Some("x.b.example"), Some(second)),
            (Some("X.B.example."), Some(second)),
            (Some("x.y.b.example"), default),
            (Some("x.a.example"), default),
            (Some("else.example"), default),
            (Some("example"), default),
            (None, default),
        ] {
            gets(&resolver, name, MODERN, pair);
        }
    }
}

#[test]
fn of_several_for_a_name_the_first_is_taken_that_the_client_can_verify() {
    let of = |algorithm| pair_of(algorithm, &["a.example"], |_| {});
    let (small, large) = (
        of(&rcgen::PKCS_ECDSA_P256_SHA256),
        of(&rcgen::PKCS_ECDSA_P384_SHA384),
    );
    let rsa = of(&rcgen::PKCS_RSA_SHA256);
    let all = [large, small, rsa];
    let [large, small, rsa] = &all;
    let resolver = Resolver::new(&all, UnknownName::First);
    let only = |schemes| Offer { schemes, ..MODERN };
    // RSA with PKCS#1 v1.5 signs no handshake of TLS 1.3.
    let pkcs1_and_p256 = only(&[
        SignatureScheme::RSA_PKCS1_SHA256,
        SignatureScheme::ECDSA_NISTP256_SHA256,
    ]);
    for name in [Some("a.example"), Some("unknown.example"), None] {
        gets(&resolver, name, MODERN, Some(large));
        gets(&resolver, name, RSA_ONLY, Some(rsa));
        gets(
            &resolver,
            name,
            only(&[SignatureScheme::RSA_PSS_SHA256]),
            Some(rsa),
        );
        gets(&resolver, name, pkcs1_and_p256, Some(small));
        // The handshake fails, and says for which reason.
        gets(
            &resolver,
            name,
            only(&[SignatureScheme::ED25519]),
            Some(large),
        );
    }
    let reversed = [
        of(&rcgen::PKCS_RSA_SHA256),
        of(&rcgen::PKCS_ECDSA_P256_SHA256),
    ];
    let [rsa, small] = &reversed;
    let resolver = Resolver::new(&reversed, UnknownName::First);
    gets(&resolver, Some("a.example"), MODERN, Some(rsa));
    gets(&resolver, Some("a.example"), pkcs1_and_p256, Some(small));
}

#[test]
fn a_certificate_with_the_name_itself_comes_before_one_with_a_star() {
    let star = pair(&["*.b.example"]);
    let own = pair(&["a.b.example"]);
    let rsa = pair_of(&rcgen::PKCS_RSA_SHA256, &["*.b.example"], |_| {});
    let all = [star, own, rsa];
    let [star, own, rsa] = &all;
    let resolver = Resolver::new(&all, UnknownName::Refuse);
    gets(&resolver, Some("a.b.example"), MODERN, Some(own));
    gets(&resolver, Some("a.b.example"), RSA_ONLY, Some(rsa));
    gets(&resolver, Some("c.b.example"), MODERN, Some(star));
}

#[test]
fn who_names_no_host_gets_the_certificate_of_the_address() {
    let address: IpAddr = "192.0.2.7".parse().unwrap();
    let own = pair_of(&rcgen::PKCS_ECDSA_P256_SHA256, &["b.example"], |params| {
        let name = rcgen::SanType::IpAddress(address);
        params.subject_alt_names.push(name);
    });
    let rsa = pair_of(&rcgen::PKCS_RSA_SHA256, &["a.example"], |_| {});
    let all = [pair(&["a.example"]), own, rsa];
    let [first, own, rsa] = &all;
    for (unknown, default) in [
        (UnknownName::First, Some(first)),
        (UnknownName::Refuse, None),
    ] {
        let resolver = Resolver::new(&all, unknown);
        gets(&resolver, None, MODERN, default);
        let by_address: Vec<_> = resolver.by_address().collect();
        let [(at, there)] = &by_address[..] else {
            panic!("{by_address:?}");
        };
        assert_eq!(*at, address);
        gets(there, None, MODERN, Some(own));
        let rsa = (unknown == UnknownName::First).then_some(rsa);
        gets(there, None, RSA_ONLY, rsa.or(Some(own)));
        gets(there, Some("a.example"), MODERN, Some(first));
        gets(there, Some("else.example"), MODERN, default);
        assert!(resolver.has("192.0.2.7") && !resolver.has("192.0.2.8"));
    }
}

#[test]
fn hosts_with_a_certificate_are_known_below_a_name_too() {
    let all = [pair(&["a.b.example", "*.c.example", "xd.example"])];
    let resolver = Resolver::new(&all, UnknownName::First);
    for (host, has) in [
        ("a.b.example", true),
        ("b.example", false),
        ("x.c.example", true),
    ] {
        assert_eq!(resolver.has(host), has, "{host}");
    }
    for (parent, has) in [
        ("b.example", true),
        ("c.example", true),
        ("example", true),
        ("a.b.example", false),
        ("d.example", false),
    ] {
        assert_eq!(resolver.has_below(parent), has, "{parent}");
    }
}

#[test]
fn a_certificate_that_demands_stapling_is_warned_of() {
    let made = pair_of(&rcgen::PKCS_ECDSA_P256_SHA256, &["a.example"], |params| {
        let id = &[1, 3, 6, 1, 5, 5, 7, 1, 24];
        let content = vec![0x30, 3, 2, 1, 5];
        let extension = rcgen::CustomExtension::from_oid_content(id, content);
        params.custom_extensions.push(extension);
    });
    let warnings = made.warnings(crate::clock::now());
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("must-staple"), "{warnings:?}");
    assert!(
        pair(&["a.example"])
            .warnings(crate::clock::now())
            .is_empty()
    );
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let one = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let two = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let read = |key: &str| CertificatePair::from_pem(one.cert.pem().as_bytes(), key.as_bytes());
    assert!(read(&one.signing_key.serialize_pem()).is_ok());
    assert!(matches!(
        read(&two.signing_key.serialize_pem()),
        Err(TlsFault::Mismatch(1))
    ));
    assert!(matches!(read("nonsense"), Err(TlsFault::Key(_))));
    assert!(matches!(
        CertificatePair::from_pem(b"", b""),
        Err(TlsFault::Certificate(_))
    ));
}

fn vector(name: &str) -> Vec<u8> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/certificates/");
    std::fs::read(format!("{directory}{name}")).unwrap()
}

/// The result for a pair: `good`, the warning, or the problem and the remedy.
fn said(certificate: &str, key: &str) -> String {
    match CertificatePair::from_pem(&vector(certificate), &vector(key)) {
        Ok(pair) => {
            // Within the life of them all.
            let then = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_900_000_000);
            let first = pair.warnings(then).into_iter().next();
            first.unwrap_or_else(|| "good".to_owned())
        }
        Err(fault) => {
            let remedy = fault.remedy(Path::new(certificate), Path::new(key));
            format!("{fault}; {}", remedy.unwrap_or_default())
        }
    }
}

#[test]
fn what_openssl_serves_is_served() {
    assert_eq!(said("leaf.pem", "plain.key"), "good");
    assert_eq!(said("chain.pem", "plain.key"), "good");
    assert_eq!(said("leaf.pem", "params.key"), "good");
    assert_eq!(said("trusted.pem", "plain.key"), "good");
    let pair = CertificatePair::from_pem(&vector("trusted.pem"), &vector("plain.key"));
    assert_eq!(pair.unwrap().names, ["a.example"]);
    let first_version = said("version1.pem", "plain.key");
    assert!(
        first_version.starts_with("it is of X.509 version 1"),
        "{first_version}"
    );
}

#[test]
fn a_certificate_of_the_wrong_kind_is_named_with_its_remedy() {
    for (file, problem, remedy) in [
        (
            "leaf.der",
            "it is a certificate in DER, not PEM",
            "openssl x509 -inform der -in leaf.der -out cert.pem",
        ),
        (
            "request.pem",
            "it is a certificate signing request (CSR)",
            "openssl x509 -req -in request.pem",
        ),
        ("public.pem", "it is a public key", "openssl req -x509"),
        ("plain.key", "it is a private key", "in `key`"),
        (
            "leaf.p7b",
            "it is a PKCS#7 bundle",
            "openssl pkcs7 -in leaf.p7b -print_certs",
        ),
        (
            "leaf.p7c",
            "it is a PKCS#7 bundle",
            "openssl pkcs7 -inform der -in leaf.p7c -print_certs",
        ),
        (
            "leaf.p12",
            "it is a PKCS#12 bundle",
            "openssl pkcs12 -in leaf.p12 -nokeys -out cert.pem",
        ),
        (
            "README.md",
            "it is no PEM file",
            "-----BEGIN CERTIFICATE-----",
        ),
        (
            "reversed.pem",
            "wrong order: the key belongs to number 2",
            "cat server.pem",
        ),
        (
            "ca.pem",
            "the key does not belong to the certificate",
            "openssl x509 -in ca.pem -noout -pubkey; openssl pkey -in plain.key -pubout",
        ),
    ] {
        let said = said(file, "plain.key");
        assert!(
            said.contains(problem) && said.contains(remedy),
            "{file}: {said}"
        );
        let trusted = ClientTls::with_ca(&vector(file));
        let is_fine = matches!(file, "reversed.pem" | "ca.pem");
        assert_eq!(trusted.is_ok(), is_fine, "{file}");
    }
    for roots in ["trusted.pem", "version1.pem", "chain.pem"] {
        assert!(ClientTls::with_ca(&vector(roots)).is_ok(), "{roots}");
    }
}

#[test]
fn a_key_of_the_wrong_kind_is_named_with_its_remedy() {
    for (file, problem, remedy) in [
        (
            "encrypted.key",
            "encrypted with a passphrase",
            "openssl pkey -in encrypted.key -out plain.key",
        ),
        (
            "encrypted-legacy.key",
            "encrypted with a passphrase",
            "openssl pkey -in encrypted-legacy.key -out plain.key",
        ),
        (
            "pss.key",
            "this is an RSA-PSS key",
            "openssl genpkey -algorithm RSA ",
        ),
        (
            "short.key",
            "the RSA key has 1024 bits",
            "openssl genpkey -algorithm EC",
        ),
        (
            "ed448.key",
            "this kind of private key is not supported",
            "openssl genpkey -algorithm EC",
        ),
        (
            "plain.der",
            "it is a private key in DER, not PEM",
            "openssl pkey -inform der -in plain.der -out key.pem",
        ),
        (
            "leaf.p12",
            "it is a PKCS#12 bundle",
            "openssl pkcs12 -in leaf.p12 -nocerts -nodes -out key.pem",
        ),
        ("ssh.key", "it is a private key of OpenSSH", "ssh-keygen -p"),
        (
            "public.pem",
            "it is a public key",
            "the private key belongs here",
        ),
        (
            "leaf.pem",
            "it is a certificate",
            "the private key belongs here",
        ),
        (
            "request.pem",
            "it is a certificate signing request (CSR)",
            "the private key belongs here",
        ),
        (
            "README.md",
            "it is no PEM file",
            "-----BEGIN PRIVATE KEY-----",
        ),
    ] {
        let said = said("leaf.pem", file);
        assert!(
            said.contains(problem) && said.contains(remedy),
            "{file}: {said}"
        );
    }
}
