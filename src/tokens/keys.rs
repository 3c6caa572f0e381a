//! `KeyRing`: the keys with which the gateway signs its tokens, in a directory with one file per key. Files are
//! created and deleted atomically, so that an interruption at any point leaves a working ring.
//!
//! A key is published when its file exists, signs from a time given in its file, and is retired when all tokens that
//! it signed have expired.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::private::write_private;
use super::store::SLACK;
use crate::auth::{Algorithm, SigningKey};

/// One key of the ring.
#[derive(Debug)]
pub(crate) struct RingKey {
    /// Its file.
    pub(crate) path: PathBuf,
    /// The key.
    pub(crate) key: SigningKey,
    /// Its algorithm.
    pub(crate) algorithm: Algorithm,
    /// When it was made, in seconds since 1970.
    pub(crate) created: u64,
    /// From when it signs, in seconds since 1970.
    pub(crate) signs_from: u64,
}

/// The keys, ordered by the time from which they sign.
#[derive(Debug, Default)]
pub(crate) struct KeyRing {
    keys: Vec<RingKey>,
}

/// A key in the format of its file.
pub(crate) struct NewKey {
    /// The name of the file.
    pub(crate) file: String,
    /// The content of the file.
    pub(crate) bytes: Vec<u8>,
}

impl std::fmt::Debug for NewKey {
    /// A key is never printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewKey {}", self.file)
    }
}

impl NewKey {
    /// Generates a key that signs from a time, in seconds since 1970.
    ///
    /// # Errors
    /// Where the system has no random numbers.
    pub(crate) fn make(algorithm: Algorithm, now: u64, signs_from: u64) -> Result<Self, String> {
        let key = SigningKey::generate(algorithm).map_err(|error| error.to_string())?;
        let mut random = [0_u8; 6];
        getrandom::fill(&mut random).map_err(|error| error.to_string())?;
        let tail: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let kid = format!("{now}-{tail}");
        let text = json!({
            "kid": kid,
            "algorithm": algorithm.name(),
            "created": now,
            "signs_from": signs_from,
            "key": STANDARD.encode(key),
        });
        Ok(Self {
            file: format!("{kid}.json"),
            bytes: format!("{text}\n").into_bytes(),
        })
    }

    /// Writes the file atomically and durably, readable only by its owner; creates the directory.
    ///
    /// # Errors
    /// Any error of the file system.
    pub(crate) fn write(&self, directory: &Path) -> io::Result<()> {
        if !directory.is_dir() {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)?;
        }
        write_private(&directory.join(&self.file), &self.bytes)
    }
}

impl KeyRing {
    /// The ring of these files.
    ///
    /// # Errors
    /// The file with an error, and the reason.
    pub(crate) fn read(files: &[(PathBuf, Vec<u8>)]) -> Result<Self, (PathBuf, String)> {
        let mut keys = Vec::new();
        for (path, bytes) in files {
            let key = read_key(path, bytes).map_err(|why| (path.clone(), why))?;
            keys.push(key);
        }
        keys.sort_by_key(|key: &RingKey| (key.signs_from, key.created));
        Ok(Self { keys })
    }

    /// A ring with a key that nobody else has; `None` where the system has no random numbers.
    pub(crate) fn stranger() -> Option<Self> {
        let key = NewKey::make(Algorithm::EDDSA, 0, 0).ok()?;
        Self::read(&[(PathBuf::new(), key.bytes)]).ok()
    }

    /// The keys, ordered by the time from which they sign.
    pub(crate) fn keys(&self) -> &[RingKey] {
        &self.keys
    }

    /// Whether there is a key of the algorithm.
    pub(crate) fn has(&self, algorithm: Algorithm) -> bool {
        self.keys.iter().any(|key| key.algorithm == algorithm)
    }

    /// The key that signs at this time: the last key of the algorithm that is due; if there is none, the last of any
    /// algorithm; before all of them, the first.
    pub(crate) fn signing(&self, algorithm: Algorithm, now: u64) -> Option<&SigningKey> {
        let mut due = self.keys.iter().rev().filter(|key| key.signs_from <= now);
        let last = due.clone().next();
        let key = due.find(|key| key.algorithm == algorithm).or(last);
        key.or_else(|| self.keys.first()).map(|key| &key.key)
    }

    /// The key set that is published.
    pub(crate) fn published(&self) -> String {
        let keys: Vec<Value> = self
            .keys
            .iter()
            .filter_map(|key| key.key.public_jwk())
            .collect();
        json!({ "keys": keys }).to_string()
    }

    /// The key set with which the gateway verifies its own tokens.
    pub(crate) fn verifying(&self) -> Vec<u8> {
        let keys: Vec<Value> = self
            .keys
            .iter()
            .filter_map(|key| key.key.verifying_jwk())
            .collect();
        json!({ "keys": keys }).to_string().into_bytes()
    }

    /// The keys that were replaced longer ago than the lifetime of any token, in seconds: by a newer key of the
    /// configured algorithm, or of their own.
    pub(crate) fn retired(
        &self,
        algorithm: Algorithm,
        now: u64,
        longest: u64,
    ) -> impl Iterator<Item = &RingKey> {
        let follows = move |key: &RingKey, next: &RingKey| {
            next.algorithm == algorithm || next.algorithm == key.algorithm
        };
        self.keys.iter().enumerate().filter_map(move |(at, key)| {
            let mut later = self.keys.iter().skip(at + 1);
            let next = later.find(|next| follows(key, next))?;
            let signed = next.signs_from.saturating_add(longest);
            (signed.saturating_add(SLACK) < now).then_some(key)
        })
    }
}

fn read_key(path: &Path, bytes: &[u8]) -> Result<RingKey, String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let text = |name: &str| {
        value
            .get(name)
            .and_then(Value::as_str)
            .ok_or_else(|| format!("`{name}` is missing"))
    };
    let number = |name: &str| {
        value
            .get(name)
            .and_then(Value::as_u64)
            .ok_or_else(|| format!("`{name}` is missing"))
    };
    let algorithm = Algorithm::parse(text("algorithm")?)?;
    let key = STANDARD
        .decode(text("key")?)
        .map_err(|_| "`key` is not base64".to_owned())?;
    Ok(RingKey {
        path: path.to_owned(),
        key: SigningKey::read(text("kid")?, algorithm, &key).map_err(|error| error.to_string())?,
        algorithm,
        created: number("created")?,
        signs_from: number("signs_from")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(times: &[(u64, u64)]) -> KeyRing {
        let files: Vec<_> = times
            .iter()
            .map(|(now, from)| {
                let key = NewKey::make(Algorithm::EDDSA, *now, *from).unwrap();
                (PathBuf::from(key.file), key.bytes)
            })
            .collect();
        KeyRing::read(&files).unwrap()
    }

    #[test]
    fn a_key_signs_from_its_time_and_goes_when_all_that_it_signed_has_expired() {
        let ring = ring(&[(200, 500), (100, 100)]);
        let signs = |now| {
            ring.signing(Algorithm::EDDSA, now)
                .unwrap()
                .kid()
                .split('-')
                .next()
                .unwrap()
                .to_owned()
        };
        assert_eq!(signs(0), "100");
        assert_eq!(signs(100), "100");
        assert_eq!(signs(499), "100");
        assert_eq!(signs(500), "200");
        let retired = |now| {
            ring.retired(Algorithm::EDDSA, now, 1000)
                .map(|key| key.created)
                .collect::<Vec<_>>()
        };
        assert_eq!(retired(500), [0; 0]);
        assert_eq!(retired(1560), [0; 0]);
        assert_eq!(retired(1561), [100]);
        assert!(ring.has(Algorithm::EDDSA) && !ring.has(Algorithm::ES256));
        assert!(ring.published().contains("\"200-"));
        assert!(KeyRing::default().signing(Algorithm::EDDSA, 1).is_none());
    }

    #[test]
    fn an_algorithm_that_comes_back_signs_at_once_and_its_key_is_not_retired() {
        let made = [
            (Algorithm::ES256, 100),
            (Algorithm::EDDSA, 200),
            (Algorithm::ES256, 5000),
        ];
        let ring = |count: usize| {
            let files = made.iter().take(count).map(|(algorithm, from)| {
                let key = NewKey::make(*algorithm, *from, *from).unwrap();
                (PathBuf::from(key.file), key.bytes)
            });
            KeyRing::read(&files.collect::<Vec<_>>()).unwrap()
        };
        let signs = |ring: &KeyRing, algorithm, now| {
            let key = ring.signing(algorithm, now).unwrap();
            key.kid().split('-').next().unwrap().to_owned()
        };
        let retired = |ring: &KeyRing, algorithm, now| {
            let all = ring.retired(algorithm, now, 1000);
            all.map(|key| key.created).collect::<Vec<_>>()
        };
        let two = ring(2);
        assert_eq!(signs(&two, Algorithm::EDDSA, 150), "100");
        assert_eq!(signs(&two, Algorithm::EDDSA, 200), "200");
        assert_eq!(signs(&two, Algorithm::ES256, 9000), "100");
        assert_eq!(retired(&two, Algorithm::EDDSA, 9000), [100]);
        assert_eq!(retired(&two, Algorithm::ES256, 9000), [0; 0]);
        let three = ring(3);
        assert_eq!(signs(&three, Algorithm::ES256, 4999), "100");
        assert_eq!(retired(&three, Algorithm::ES256, 6060), [0; 0]);
        assert_eq!(retired(&three, Algorithm::ES256, 6061), [100, 200]);
    }

    #[test]
    fn a_secret_is_not_published() {
        let key = NewKey::make(Algorithm::HS256, 1, 1).unwrap();
        let ring = KeyRing::read(&[(PathBuf::from("a"), key.bytes)]).unwrap();
        assert_eq!(ring.published(), r#"{"keys":[]}"#);
        assert!(String::from_utf8(ring.verifying()).unwrap().contains("oct"));
    }

    #[test]
    fn files_are_private_and_whole() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let keys = directory.path().join("keys");
        let key = NewKey::make(Algorithm::ES256, 1, 1).unwrap();
        key.write(&keys).unwrap();
        let path = keys.join(&key.file);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&keys), mode(&path)), (0o700, 0o600));
        assert_eq!(std::fs::read(&path).unwrap(), key.bytes);
        assert_eq!(std::fs::read_dir(&keys).unwrap().count(), 1);
        for bad in [
            "",
            "{}",
            "[]",
            r#"{"kid":"a","algorithm":"none","created":1,"signs_from":1,"key":""}"#,
        ] {
            assert!(
                KeyRing::read(&[(path.clone(), bad.into())]).is_err(),
                "{bad}"
            );
        }
    }
}
