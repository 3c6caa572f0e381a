//! Reads and writes the file of API keys (`api_key.file`): the hash, the expiry and the claims of each, by name.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::decode::Decoder;
use super::error::Errors;
use super::json::json;
use super::keys;
use super::node::{Kind, Node};
use super::parsed::Spanned;
use super::place::Place;
use super::source::Loader;
use super::{merge, tree, value};
use crate::auth::{ApiKey, KeyHash, hex};
use crate::yaml::{self, Yaml};

/// A key, as the file has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KeyEntry {
    /// Its name.
    pub(crate) name: String,
    /// Its hash.
    pub(crate) hash: KeyHash,
    /// When it expires, as written.
    pub(crate) expires: Option<String>,
    /// Its claims.
    pub(crate) claims: Map<String, Value>,
}

/// Reads the file; `None` where an error was reported.
pub(super) fn read(
    path: &Path,
    place: Place,
    loader: &Loader<'_>,
    errors: &mut Errors,
) -> Option<Vec<(KeyHash, ApiKey)>> {
    let node = merge::plain_file(path, place, loader, errors)?;
    let before = errors.count();
    let entries = entries(&node, errors, loader.directory());
    let made = entries.into_iter().map(|entry| {
        let expires = entry.expires.as_deref().and_then(|text| {
            let seconds = value::moment(text).ok()?;
            UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)
        });
        (entry.hash, ApiKey::new(entry.name, expires, entry.claims))
    });
    let made: Vec<_> = made.collect();
    (errors.count() == before).then_some(made)
}

/// Reads the text of a file of keys.
///
/// # Errors
/// Why it cannot be parsed.
pub(crate) fn parse(text: &str) -> Result<Vec<KeyEntry>, String> {
    let mut errors = Errors::default();
    let file = errors.add_file("keys.yaml", text);
    let node = tree::parse(file, text, &mut errors);
    let entries = node.map(|node| entries(&node, &mut errors, Path::new("")));
    errors.finish().map_err(|errors| errors.to_string())?;
    Ok(entries.unwrap_or_default())
}

/// The text of a file of keys.
///
/// # Errors
/// Where it cannot be YAML.
pub(crate) fn write(entries: &[KeyEntry]) -> Result<String, String> {
    let entries = entries.iter().map(|entry| {
        let hash = Yaml::Text(hex(&entry.hash).into());
        let expires = entry.expires.as_deref();
        let expires = expires.map(|text| ("expires".into(), Yaml::Text(text.into())));
        let claims = entry.claims.iter();
        let claims = claims.map(|(name, value)| (name.as_str().into(), value.into()));
        let claims =
            (!entry.claims.is_empty()).then(|| ("claims".into(), Yaml::Map(claims.collect())));
        let fields = [Some(("sha256".into(), hash)), expires, claims];
        (
            entry.name.as_str().into(),
            Yaml::Map(fields.into_iter().flatten().collect()),
        )
    });
    yaml::write(&Yaml::Map(entries.collect())).map_err(|error| error.to_string())
}

fn entries(node: &Node, errors: &mut Errors, directory: &Path) -> Vec<KeyEntry> {
    let mut decoder = Decoder { errors, directory };
    let named = decoder.named(node, "a map of keys by name", Decoder::key_entry);
    let mut entries: Vec<KeyEntry> = Vec::new();
    for (name, entry) in named.unwrap_or_default() {
        let twin = entries.iter().find(|known| known.hash == entry.value.hash);
        if let Some(twin) = twin {
            let problem = format!("this is the key of `{}`, too", twin.name);
            decoder.errors.at(entry.place, problem);
        }
        entries.push(KeyEntry {
            name: name.value,
            ..entry.value
        });
    }
    entries
}

/// 64 hexadecimal digits.
fn sha256(text: &str) -> Option<KeyHash> {
    let mut hash = KeyHash::default();
    if text.len() != 2 * hash.len() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in hash.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(hash)
}

impl Decoder<'_> {
    /// `{sha256: HEX, expires: TIME, claims: {..}}`.
    fn key_entry(&mut self, node: &Node) -> Option<Spanned<KeyEntry>> {
        let fields = self.fields(node, "{sha256: HEX}", &keys::API_KEY)?;
        let general = "64 hexadecimal digits; `portcullis apikey add NAME` makes a key";
        let hash = self.required(fields, "sha256", |it, node| {
            it.scalar(node, "the SHA-256 of a key", general, |text| {
                sha256(text).ok_or_else(|| general.to_owned())
            })
        });
        let expires = self.optional(fields, "expires", |it, node| {
            it.scalar(node, "a time", "", |text| {
                value::moment(text).map(|_| text.to_owned())
            })
        });
        let claims = self.optional(fields, "claims", |it, node| {
            if !matches!(node.kind, Kind::Map(_)) {
                it.unexpected(node, "a map of claims", "");
                return None;
            }
            json(node, it.errors)?.as_object().cloned()
        });
        Some(Spanned {
            value: KeyEntry {
                name: String::new(),
                hash: hash?.value,
                expires: expires.map(|it| it.value),
                claims: claims.unwrap_or_default(),
            },
            place: node.place,
            private: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let entry = |name: &str, byte, expires: Option<&str>, claims: Value| KeyEntry {
            name: name.to_owned(),
            hash: [byte; 32],
            expires: expires.map(str::to_owned),
            claims: claims.as_object().unwrap().clone(),
        };
        let entries = vec![
            entry("ci", 1, None, json!({})),
            entry(
                "no",
                2,
                Some("2027-03-01T00:00:00Z"),
                json!({"scope": "deploy", "n": 7, "l": ["a", true]}),
            ),
        ];
        let text = write(&entries).unwrap();
        assert_eq!(parse(&text).unwrap(), entries, "{text}");
        assert_eq!(parse(&write(&[]).unwrap()), Ok(vec![]));
    }

    #[test]
    fn mistakes_are_named() {
        let good = "0".repeat(64);
        for (text, said) in [
            ("[a]".to_owned(), "a map of keys by name"),
            ("ci: {}".to_owned(), "`sha256` is missing"),
            ("ci: {sha256: pk_123}".to_owned(), "64 hexadecimal digits"),
            (
                format!("ci: {{sha256: \"{good}\", expire: x}}"),
                "did you mean `expires`?",
            ),
            (
                format!("ci: {{sha256: \"{good}\", expires: soon}}"),
                "2026-11-23T12:00:00Z",
            ),
            (
                format!("ci: {{sha256: \"{good}\"}}\nb: {{sha256: \"{good}\"}}"),
                "the key of `ci`, too",
            ),
        ] {
            let why = parse(&text).unwrap_err();
            assert!(why.contains(said), "{text}: {why}");
        }
    }
}
