//! Certificates by name, and what is said of wrong ones.

use std::path::Path;

use super::super::ClientTls;
use super::*;

fn pair(names: &[&str]) -> CertificatePair {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    CertificatePair::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap()
}

#[test]
fn the_certificate_is_chosen_by_name() {
    let pairs = vec![pair(&["a.example"]), pair(&["*.b.example", "b.example"])];
    let (first, second) = (Arc::clone(&pairs[0].key), Arc::clone(&pairs[1].key));
    let by_name = ByName::new(pairs);
    let is = |name: Option<&str>, key: &Arc<CertifiedKey>| {
        assert!(Arc::ptr_eq(&by_name.find(name).unwrap(), key), "{name:?}");
    };
    is(Some("A.example"), &first);
    is(Some("b.example"), &second);
    is(Some("x.b.example"), &second);
    is(Some("x.y.b.example"), &first);
    is(Some("else.example"), &first);
    is(None, &first);
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
        Ok(pair) => pair.warning().unwrap_or("good").to_owned(),
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
