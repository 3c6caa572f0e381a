//! Properties of every file of certificates, revocation lists or keys: it is read, or refused with a reason and a remedy;
//! what was read can be used, and reads the same when it is written again. For tests and `fuzz/`.

#![allow(clippy::expect_used, reason = "whatever does not hold stops the test")]

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

/// The kinds of PEM blocks that are read; any other number is a file as it is.
const LABELS: [&str; 7] = [
    "CERTIFICATE",
    "X509 CRL",
    "PRIVATE KEY",
    "RSA PRIVATE KEY",
    "EC PRIVATE KEY",
    "TRUSTED CERTIFICATE",
    "PUBLIC KEY",
];

/// A file in PEM.
fn pem(label: &str, der: &[u8]) -> Vec<u8> {
    let text = STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n").into_bytes()
}

/// The file of a case: its first byte says of which kind, the others are what is in it.
pub(crate) fn case_file(input: &[u8]) -> Option<Vec<u8>> {
    let (kind, content) = input.split_first()?;
    let kind = usize::from(*kind) % (LABELS.len() + 1);
    Some(match LABELS.get(kind) {
        Some(label) => pem(label, content),
        None => content.to_vec(),
    })
}

/// All readers of this room, on one file.
#[track_caller]
pub(crate) fn material_holds(input: &[u8]) {
    let Some(file) = case_file(input) else { return };
    let now = UNIX_EPOCH + Duration::from_secs(1_790_000_000);
    let said = |wrong: &Wrong| {
        assert!(!wrong.problem.is_empty());
        assert!(!wrong.remedy_for(Path::new("a.pem")).is_empty());
    };
    match material::certificates(&file) {
        Ok(certificates) => {
            let again: Vec<u8> = (certificates.iter())
                .flat_map(|one| pem("CERTIFICATE", one))
                .collect();
            let again = material::certificates(&again).expect("what was read");
            assert_eq!(again, certificates);
            for one in &certificates {
                client_holds(one);
            }
        }
        Err(wrong) => said(&wrong),
    }
    if let Err(wrong) = material::private_key(&file) {
        said(&wrong);
    }
    match CertificatePair::from_pem(&file, &file) {
        Ok(pair) => drop(pair.warnings(now)),
        Err(fault) => assert!(!fault.to_string().is_empty()),
    }
    drop(roots_warning(&file, now));
    if let Err(fault) = ClientTls::with_ca(&file) {
        assert!(!fault.to_string().is_empty());
    }
    let shown = ShownChain::read(&file);
    match Authorities::read(&file) {
        Ok(authorities) => {
            drop(authorities.warnings(now));
            let lists = match RevocationList::read(&file, &authorities) {
                Ok(lists) => lists,
                Err(wrong) => {
                    said(&wrong);
                    Vec::new()
                }
            };
            for list in &lists {
                drop(list.warning(now));
            }
            if let Ok(clients) = Clients::new(authorities, lists, true) {
                assert!(!clients.are_stricter_than(Some(&clients)));
                for at in [At::Now(now), At::AnyTime] {
                    assert!(
                        clients.let_in(None, at).is_err(),
                        "nothing is no certificate"
                    );
                    drop(clients.let_in(shown.as_ref().ok(), at));
                }
            }
        }
        Err(wrong) => said(&wrong),
    }
    if let Err(wrong) = &shown {
        said(wrong);
    }
}

/// What is told of a client by its certificate is one header field, or none.
#[track_caller]
fn client_holds(der: &[u8]) {
    let Ok(client) = ClientCertificate::read(der.to_vec().into()) else {
        return;
    };
    for (name, part) in Part::ALL {
        if let Some(value) = client.header(part) {
            let is_plain = |byte: &u8| (b' '..=b'~').contains(byte);
            assert!(value.as_bytes().iter().all(is_plain), "{name}: {value:?}");
        }
    }
    let again = Fingerprint::parse(&client.fingerprint().hex());
    assert_eq!(again, Some(*client.fingerprint()));
    let again = Fingerprint::parse(&client.fingerprint().base64url());
    assert_eq!(again, Some(*client.fingerprint()));
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Files that are good, each with its kind in front.
    fn seeds() -> Vec<Vec<u8>> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/material");
        let mut files: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|file| file.unwrap().path())
            .collect();
        files.sort();
        files.iter().map(|file| fs::read(file).unwrap()).collect()
    }

    /// One change: what is done, where, and with which byte.
    fn change(bytes: &mut Vec<u8>, (what, at, byte): (u8, usize, u8)) {
        let at = at % bytes.len().max(1);
        match what % 5 {
            0 => bytes.truncate(at),
            1 => bytes.insert(at.min(bytes.len()), byte),
            2 => drop(bytes.drain(at..(at + usize::from(byte)).min(bytes.len()))),
            _ => {
                if let Some(there) = bytes.get_mut(at) {
                    *there = if what % 5 == 3 { *there ^ byte } else { byte };
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(input in vec(any::<u8>(), 0..300)) {
            material_holds(&input);
        }

        #[test]
        fn damaged_files_are_read_or_refused(
            seed in any::<prop::sample::Index>(),
            changes in vec((any::<u8>(), any::<usize>(), any::<u8>()), 1..4),
        ) {
            let seeds = seeds();
            let mut input = seed.get(&seeds).clone();
            for one in changes {
                let mut content = input.split_off(1);
                change(&mut content, one);
                input.append(&mut content);
            }
            material_holds(&input);
        }
    }

    #[test]
    fn the_seeds_are_good() {
        let mut read = [0; 4];
        for seed in seeds() {
            let file = case_file(&seed).unwrap();
            let certificates = material::certificates(&file).map(|all| all.len());
            read[0] += certificates.unwrap_or_default();
            read[1] += usize::from(material::private_key(&file).is_ok());
            read[2] += usize::from(CertificatePair::from_pem(&file, &file).is_ok());
            let lists = Authorities::read(&file).map(|them| RevocationList::read(&file, &them));
            read[3] += usize::from(matches!(lists, Ok(Ok(lists)) if lists.len() == 1));
        }
        assert!(read.iter().all(|count| *count > 0), "{read:?}");
    }
}
