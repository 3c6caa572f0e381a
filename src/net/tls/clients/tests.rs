//! Clients that are let in and refused, chains and lists.

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, RevokedCertParams,
    SerialNumber,
};

use super::*;

/// A certificate authority, or a client of one, with its key.
pub(super) struct Made {
    pub(super) params: CertificateParams,
    pub(super) key: KeyPair,
    pub(super) der: CertificateDer<'static>,
}

impl Made {
    pub(super) fn pem(&self) -> String {
        pem("CERTIFICATE", &self.der)
    }

    pub(super) fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }
}

pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

pub(super) fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2100, 1, 1);
    params
}

pub(super) fn authority(
    name: &str,
    by: Option<&Made>,
    change: impl FnOnce(&mut CertificateParams),
) -> Made {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    change(&mut params);
    make(params, by)
}

pub(super) fn make(params: CertificateParams, by: Option<&Made>) -> Made {
    let key = KeyPair::generate().unwrap();
    let made = match by {
        None => params.self_signed(&key),
        Some(by) => params.signed_by(&key, &by.issuer()),
    };
    let der = made.unwrap().der().clone();
    Made { params, key, der }
}

/// A day of the tests, counted from the first of 2026.
pub(super) fn day(day: u64) -> SystemTime {
    const FIRST: u64 = 1_767_225_600;
    UNIX_EPOCH + Duration::from_secs(FIRST + day * 86_400)
}

/// A revocation list of these serial numbers, from one day to another.
pub(super) fn list(by: &Made, revoked: &[u8], (from, to): (u8, u8)) -> Vec<u8> {
    let at = |day: u8| rcgen::date_time_ymd(2026, 1, day + 1);
    let params = CertificateRevocationListParams {
        this_update: at(from),
        next_update: at(to),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked
            .iter()
            .map(|serial| RevokedCertParams {
                serial_number: SerialNumber::from(vec![*serial]),
                revocation_time: at(from),
                reason_code: None,
                invalidity_date: None,
            })
            .collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&by.issuer()).unwrap().der().to_vec()
}

fn client(by: &Made, serial: u8) -> Made {
    let mut params = named("client");
    params.serial_number = Some(SerialNumber::from(vec![serial]));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    make(params, Some(by))
}

fn clients(ca: &[&Made], lists: &[Vec<u8>], required: bool) -> Clients {
    let pem: String = ca.iter().map(|one| one.pem()).collect();
    let authorities = Authorities::read(pem.as_bytes()).unwrap();
    let lists = lists
        .iter()
        .flat_map(|list| RevocationList::read(list, &authorities).unwrap())
        .collect();
    Clients::new(authorities, lists, required).unwrap()
}

/// Checks that the clients let this chain in, or why not.
#[track_caller]
fn check(clients: &Clients, shown: &[&Made], now: SystemTime, said: Option<&str>) {
    let pem: String = shown.iter().map(|one| one.pem()).collect();
    let shown = (!shown.is_empty()).then(|| ShownChain::read(pem.as_bytes()).unwrap());
    match (clients.let_in(shown.as_ref(), At::Now(now)), said) {
        (Ok(()), None) => {}
        (Err(why), Some(said)) if why.contains(said) => {}
        (seen, said) => panic!("{seen:?}, expected {said:?}"),
    }
}

#[test]
fn clients_of_the_authorities_are_let_in_and_no_others() {
    let root = authority("root", None, |_| {});
    let other = authority("other", None, |_| {});
    for required in [true, false] {
        let clients = clients(&[&root], &[], required);
        check(&clients, &[&client(&root, 7)], day(0), None);
        check(
            &clients,
            &[&client(&other, 7)],
            day(0),
            Some("UnknownIssuer"),
        );
        check(
            &clients,
            &[],
            day(0),
            required.then_some("requires a client certificate"),
        );
        // A name alone proves nothing.
        let twin = authority("root", None, |_| {});
        check(&clients, &[&client(&twin, 7)], day(0), Some("BadSignature"));
        check(
            &clients,
            &[&client(&twin, 7), &twin],
            day(0),
            Some("BadSignature"),
        );
        // The authority itself is no client.
        check(&clients, &[&root], day(0), Some("CaUsedAsEndEntity"));
    }
}

#[test]
fn a_certificate_is_for_clients_and_for_its_time() {
    let root = authority("root", None, |_| {});
    let clients = clients(&[&root], &[], true);
    let made = |change: fn(&mut CertificateParams)| {
        let mut params = named("client");
        change(&mut params);
        make(params, Some(&root))
    };
    let server =
        made(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    check(&clients, &[&server], day(0), Some("extended key usage"));
    // No extended key usage is any.
    check(&clients, &[&made(|_| {})], day(0), None);
    let short = made(|params| {
        params.not_before = rcgen::date_time_ymd(2026, 1, 2);
        params.not_after = rcgen::date_time_ymd(2026, 1, 3);
    });
    check(&clients, &[&short], day(0), Some("not valid yet"));
    check(&clients, &[&short], day(1), None);
    check(&clients, &[&short], day(3), Some("expired"));
    let short = ShownChain::read(short.pem().as_bytes()).unwrap();
    assert_eq!(clients.let_in(Some(&short), At::AnyTime), Ok(()));
    let server = ShownChain::read(server.pem().as_bytes()).unwrap();
    assert!(clients.let_in(Some(&server), At::AnyTime).is_err());
}

#[test]
fn an_authority_that_has_expired_lets_nobody_in() {
    let root = authority("root", None, |params| {
        params.not_after = rcgen::date_time_ymd(2026, 1, 3);
    });
    let clients = clients(&[&root], &[], true);
    let client = client(&root, 7);
    check(&clients, &[&client], day(1), None);
    check(&clients, &[&client], day(3), Some("expired"));
    let warnings = clients.0.verifier.authorities().warnings(day(3));
    assert_eq!(
        warnings,
        ["CN=root expired on Sat, 03 Jan 2026 00:00:00 GMT"]
    );
}

#[test]
fn a_chain_is_completed_from_the_file() {
    let root = authority("root", None, |_| {});
    let inner = authority("inner", Some(&root), |_| {});
    let client = client(&inner, 7);
    let alone = clients(&[&root], &[], true);
    check(&alone, &[&client, &inner], day(0), None);
    check(&alone, &[&client], day(0), Some("UnknownIssuer"));
    let both = clients(&[&root, &inner], &[], true);
    check(&both, &[&client], day(0), None);
    let inner_alone = clients(&[&inner], &[], true);
    check(&inner_alone, &[&client], day(0), None);
    check(
        &inner_alone,
        &[&self::client(&root, 7)],
        day(0),
        Some("UnknownIssuer"),
    );
}

#[test]
fn lists_revoke_in_the_whole_chain() {
    let root = authority("root", None, |_| {});
    let inner = authority("inner", Some(&root), |params| {
        params.serial_number = Some(SerialNumber::from(vec![5]));
    });
    let (good, bad) = (client(&inner, 7), client(&inner, 8));
    let revoked = Some("Revoked");
    // The root has no list, so that nothing is known of the intermediate.
    let of_inner = clients(&[&root, &inner], &[list(&inner, &[8], (0, 10))], true);
    check(&of_inner, &[&good], day(1), None);
    check(&of_inner, &[&bad], day(1), revoked);
    check(&of_inner, &[&bad, &inner], day(1), revoked);
    // The intermediate is in the file, and revoked nevertheless.
    let of_root = clients(&[&root, &inner], &[list(&root, &[5], (0, 10))], true);
    check(&of_root, &[&good, &inner], day(1), revoked);
    check(&of_root, &[&good], day(1), revoked);
    // A number is of its authority alone.
    let others = clients(&[&root, &inner], &[list(&root, &[8], (0, 10))], true);
    check(&others, &[&bad], day(1), None);
}

#[test]
fn an_overdue_list_lets_nobody_of_its_authority_in() {
    let root = authority("root", None, |_| {});
    let other = authority("other", None, |_| {});
    let overdue = clients(&[&root, &other], &[list(&root, &[8], (0, 10))], false);
    let client_of = |by| client(by, 7);
    check(&overdue, &[&client_of(&root)], day(9), None);
    check(
        &overdue,
        &[&client_of(&root)],
        day(10),
        Some("evocation list"),
    );
    check(&overdue, &[&client_of(&other)], day(10), None);
    check(&overdue, &[], day(10), None);
    let (revoked, good) = (client(&root, 8), client_of(&root));
    let at_any_time = |one: &Made| {
        let shown = ShownChain::read(one.pem().as_bytes()).unwrap();
        overdue.let_in(Some(&shown), At::AnyTime).is_ok()
    };
    assert!(at_any_time(&good) && at_any_time(&revoked));
    // Until its successor is there, beside it or in its place.
    let lists = [list(&root, &[8], (0, 10)), list(&root, &[9], (9, 20))];
    let both = clients(&[&root, &other], &lists, false);
    check(&both, &[&client_of(&root)], day(10), None);
    check(&both, &[&client(&root, 8)], day(10), None);
    check(&both, &[&client(&root, 9)], day(10), Some("Revoked"));
}

#[test]
fn an_authority_with_a_new_key_revokes_what_it_issued_with_the_old_one() {
    let (old, new) = (authority("ca", None, |_| {}), authority("ca", None, |_| {}));
    let clients = clients(&[&old, &new], &[list(&new, &[7], (0, 10))], true);
    check(&clients, &[&client(&old, 7)], day(1), Some("Revoked"));
    check(&clients, &[&client(&old, 8)], day(1), None);
    check(&clients, &[&client(&new, 7)], day(1), Some("Revoked"));
}

#[test]
fn what_is_stricter_or_other_is_told_from_what_is_wider() {
    let (one, two) = (
        authority("one", None, |_| {}),
        authority("two", None, |_| {}),
    );
    let lists = [list(&one, &[7], (0, 10))];
    let of = |ca: &[&Made], lists: &[Vec<u8>], required| clients(ca, lists, required);
    let plain = of(&[&one], &[], true);
    for (new, stricter) in [
        (of(&[&one], &[], true), false),
        (of(&[&one], &[], false), false),
        (of(&[&two], &[], true), true),
        (of(&[&one, &two], &[], true), true),
        (of(&[&one], &lists, true), true),
    ] {
        assert_eq!(new.are_stricter_than(Some(&plain)), stricter, "{new:?}");
        assert!(new.are_stricter_than(None));
    }
    let optional = of(&[&one], &[], false);
    assert!(plain.are_stricter_than(Some(&optional)));

    let inner = authority("inner", Some(&one), |_| {});
    let names =
        |new: &[&Made], old: &[&Made]| of(new, &[], true).new_authorities(&[&of(old, &[], true)]);
    assert_eq!(names(&[&one], &[&one]), [""; 0]);
    assert_eq!(names(&[&two], &[&one]), ["CN=two"]);
    assert_eq!(names(&[&one, &two], &[&one]), ["CN=two"]);
    // Its clients were let in before.
    assert_eq!(names(&[&inner], &[&one]), [""; 0]);
    assert_eq!(names(&[&one], &[&inner]), ["CN=one"]);
    let listed = of(&[&one], &[list(&one, &[7, 8], (0, 10))], true);
    let fewer = of(&[&one], &[list(&one, &[8, 9], (1, 10))], true);
    let lost = |new: &Clients, old: &Clients| new.no_longer_revoked(old);
    assert_eq!(lost(&fewer, &listed), [("CN=one".to_owned(), 1)]);
    assert_eq!(lost(&plain, &listed), [("CN=one".to_owned(), 2)]);
    assert_eq!(lost(&listed, &plain), []);
    let other = of(&[&two], &[], true);
    assert_eq!(lost(&other, &listed), []);
    // Without its list and its certificate here, the intermediate's clients are let in by its chain.
    let of_inner = of(&[&one, &inner], &[list(&inner, &[9], (0, 10))], true);
    assert_eq!(lost(&plain, &of_inner), [("CN=inner".to_owned(), 1)]);
}
