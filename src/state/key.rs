//! `state.key`: the secret from which every key is derived that seals what lies on shared servers, one for each purpose
//! (HKDF, RFC 5869). Of several the first seals, and all open, so that one can be replaced.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{self, SHA256};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// The length of a secret, and of what is derived from it.
const KEY: usize = 32;

/// The secrets of `state.key`. Its `Debug` shows none.
#[derive(Clone)]
pub(crate) struct StateKey {
    secrets: Vec<Prk>,
    /// Tells whether two are the same.
    digest: Vec<u8>,
}

impl PartialEq for StateKey {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for StateKey {}

impl fmt::Debug for StateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl StateKey {
    /// The bytes of a secret as it is written: base64 of 32 bytes.
    ///
    /// # Errors
    /// What is expected.
    pub(crate) fn decode(text: &str) -> Result<[u8; KEY], String> {
        const WRITTEN: &str = "32 bytes in base64: openssl rand -base64 32";
        let text = text.trim_end_matches('=');
        let bytes = STANDARD_NO_PAD.decode(text);
        let bytes = bytes.or_else(|_| URL_SAFE_NO_PAD.decode(text));
        let bytes = bytes.map_err(|_| WRITTEN.to_owned())?;
        let length = bytes.len();
        let bytes = <[u8; KEY]>::try_from(bytes);
        bytes.map_err(|_| format!("this has {length} bytes; {WRITTEN}"))
    }

    /// The first seals, all open.
    pub(crate) fn new(secrets: &[[u8; KEY]]) -> Self {
        let digest = digest::digest(&SHA256, &secrets.concat());
        let secret = |secret: &[u8; KEY]| Prk::new_less_safe(HKDF_SHA256, secret);
        Self {
            secrets: secrets.iter().map(secret).collect(),
            digest: digest.as_ref().to_vec(),
        }
    }

    /// A key for one purpose that all gateways with this secret have; an older secret is of no use for it.
    ///
    /// # Errors
    /// The crypto provider failed.
    pub(crate) fn shared(&self, purpose: &str) -> Result<[u8; 16], Unspecified> {
        derived(self.secrets.first().ok_or(Unspecified)?, purpose)
    }

    /// The keys for one purpose.
    ///
    /// # Errors
    /// The crypto provider failed.
    pub(crate) fn sealer(&self, purpose: &'static str) -> Result<Sealer, Unspecified> {
        let keys = self.secrets.iter().map(|secret| {
            let mut derived = [0; KEY];
            let info = [purpose.as_bytes()];
            secret.expand(&info, Length)?.fill(&mut derived)?;
            RandomizedNonceKey::new(&AES_256_GCM, &derived)
        });
        Ok(Sealer(keys.collect::<Result<_, _>>()?))
    }
}

/// A key for one purpose, from a secret text.
///
/// # Errors
/// The crypto provider failed.
pub(crate) fn key_of_text(secret: &str, purpose: &str) -> Result<[u8; 16], Unspecified> {
    derived(
        &Prk::new_less_safe(
            HKDF_SHA256,
            digest::digest(&SHA256, secret.as_bytes()).as_ref(),
        ),
        purpose,
    )
}

fn derived(secret: &Prk, purpose: &str) -> Result<[u8; 16], Unspecified> {
    let mut derived = [0; KEY];
    let info = [purpose.as_bytes()];
    secret.expand(&info, Length)?.fill(&mut derived)?;
    derived.first_chunk().copied().ok_or(Unspecified)
}

/// The length of what is derived.
struct Length;

impl KeyType for Length {
    fn len(&self) -> usize {
        KEY
    }
}

/// Seals rows for one purpose, AES-256-GCM with a random nonce before each. There are few rows, so that no two nonces are
/// the same.
pub(crate) struct Sealer(Vec<RandomizedNonceKey>);

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// Seals a row, which can then be opened under this name alone.
    ///
    /// # Errors
    /// The crypto provider failed.
    pub(crate) fn seal(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let key = self.0.first().ok_or(Unspecified)?;
        let mut row = plain.to_vec();
        let nonce = key.seal_in_place_append_tag(Aad::from(name.as_bytes()), &mut row)?;
        Ok([nonce.as_ref().as_slice(), &row].concat())
    }

    /// Opens a row; `None` where it was sealed with another key, under another name, or is damaged.
    pub(crate) fn open(&self, name: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        self.opened(name, sealed).map(|(_, plain)| plain)
    }

    /// The same row sealed with the first key; `None` where it is already, or cannot be opened. An older key is of no use
    /// any more once all rows have gone through this.
    pub(crate) fn resealed(&self, name: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (by, plain) = self.opened(name, sealed)?;
        if by == 0 {
            return None;
        }
        self.seal(name, &plain).ok()
    }

    /// A row, and which key opened it.
    fn opened(&self, name: &str, sealed: &[u8]) -> Option<(usize, Vec<u8>)> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        self.0.iter().enumerate().find_map(|(by, key)| {
            let mut opened = sealed.to_vec();
            let aad = Aad::from(name.as_bytes());
            let plain = key.open_in_place(Nonce::from(nonce), aad, &mut opened);
            let length = plain.ok()?.len();
            opened.truncate(length);
            Some((by, opened))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(secrets: &[u8]) -> StateKey {
        let secrets: Vec<[u8; KEY]> = secrets.iter().map(|byte| [*byte; KEY]).collect();
        StateKey::new(&secrets)
    }

    #[test]
    fn a_row_opens_with_its_key_for_its_purpose_under_its_name() {
        let old = key(&[1]).sealer("rows").unwrap();
        let sealed = old.seal("a", b"secret").unwrap();
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        assert_ne!(sealed, old.seal("a", b"secret").unwrap());
        let opens = |key: &StateKey, purpose, name| {
            let sealer = key.sealer(purpose).unwrap();
            sealer.open(name, &sealed).as_deref() == Some(b"secret")
        };
        assert!(opens(&key(&[1]), "rows", "a"));
        assert!(opens(&key(&[2, 1]), "rows", "a"), "the older one opens");
        for (key, purpose, name) in [
            (key(&[2]), "rows", "a"),
            (key(&[1]), "tickets", "a"),
            (key(&[1]), "rows", "b"),
        ] {
            assert!(!opens(&key, purpose, name), "{purpose} {name}");
        }
        let new = key(&[2, 1]).sealer("rows").unwrap();
        let newer = new.seal("a", b"x").unwrap();
        assert!(old.open("a", &newer).is_none(), "the first seals");
        let again = new.resealed("a", &sealed).unwrap();
        let only = key(&[2]).sealer("rows").unwrap();
        assert_eq!(only.open("a", &again).unwrap(), b"secret");
        assert!(new.resealed("a", &again).is_none(), "it is already");
        assert!(new.resealed("b", &sealed).is_none());
        for damaged in [&sealed[..5], &sealed[..sealed.len() - 1], b""] {
            assert!(old.open("a", damaged).is_none());
        }
    }

    #[test]
    fn a_secret_has_32_bytes() {
        let text = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let bytes = StateKey::decode(text).unwrap();
        assert_eq!((bytes[0], bytes[31]), (0, 31));
        assert_eq!(StateKey::decode(text.trim_end_matches('=')).unwrap(), bytes);
        let url_safe = format!("{}_-8", "_-8A".repeat(10));
        assert_eq!(StateKey::decode(&url_safe).unwrap()[0], 0xff);
        for (bad, said) in [
            ("", "this has 0 bytes"),
            ("c2hvcnQ=", "this has 5 bytes"),
            ("not base64!", "32 bytes in base64"),
        ] {
            let why = StateKey::decode(bad).unwrap_err();
            assert!(why.contains(said), "{bad}: {why}");
        }
        assert_eq!(format!("{:?}", key(&[7])), "***");
        assert!(key(&[1]) == key(&[1]) && key(&[1]) != key(&[1, 2]));
    }
}
