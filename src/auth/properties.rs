//! Properties of every file of public keys, and of every text that names a certificate: it is read, or refused with a
//! reason. For tests and `fuzz/`.

use super::certificate::NamePattern;
use super::keys::{KeySet, KeySource, ShortSecrets};
use super::pem;
use crate::net::tls::{self, Fingerprint};

/// All readers of keys, on one file, as in [`tls::material_holds`].
#[track_caller]
pub(crate) fn keys_hold(input: &[u8]) {
    let Some(file) = tls::case_file(input) else {
        return;
    };
    if let Err(problem) = pem::public_key(&file) {
        assert!(!problem.to_string().is_empty());
    }
    let source = |kind: fn(Vec<u8>) -> KeySource| [kind(file.clone())];
    let as_pem = |bytes| KeySource::Pem { kid: None, bytes };
    for sources in [source(as_pem), source(KeySource::Jwks)] {
        let loaded = KeySet::load(&sources, &[], ShortSecrets::Refuse);
        if let Err(faults) = loaded {
            assert!(!faults.is_empty());
        }
    }
    if let Err(problem) = KeySet::fetched(&file) {
        assert!(!problem.to_string().is_empty());
    }
    if let Ok(text) = std::str::from_utf8(&file) {
        if let Err(problem) = NamePattern::parse(text) {
            assert!(!problem.is_empty());
        }
        if let Some(fingerprint) = Fingerprint::parse(text) {
            assert_eq!(Fingerprint::parse(&fingerprint.hex()), Some(fingerprint));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_keys_or_refused(input in proptest::collection::vec(any::<u8>(), 0..300)) {
            keys_hold(&input);
        }

        #[test]
        fn any_text_is_a_pattern_or_refused(
            kind in "(dns|uri|email|ip|DNS|)",
            name in "[ -~é\u{0}]{0,40}",
        ) {
            let text = format!("7{kind}:{name}");
            keys_hold(text.as_bytes());
        }
    }
}
