//! API keys, for programs that have no token. The gateway knows their hashes alone; each gives its bearer claims, which
//! are then what a token's claims are. How keys are stored is said in `config`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest;
use http::{HeaderMap, HeaderName};
use serde_json::{Map, Value};

use super::claims::Claims;
use super::verify::Verified;
use crate::message::reject::Reject;

/// What new keys begin with, so that scanners for secrets recognise them.
const PREFIX: &str = "pk_";
/// The random part of a key, in bytes.
const RANDOM: usize = 32;
/// The checksum of a key, in bytes.
const CHECKSUM: usize = 4;
/// The longest key, in bytes.
const LONGEST: usize = 1024;

/// The SHA-256 of a key.
pub(crate) type KeyHash = [u8; digest::SHA256_OUTPUT_LEN];

/// The hash of a key, by which it is found. A search for it tells nothing about the key: nobody can choose a hash.
pub(crate) fn hash_of(key: &str) -> KeyHash {
    let sum = digest::digest(&digest::SHA256, key.as_bytes());
    let mut hash = KeyHash::default();
    hash.copy_from_slice(sum.as_ref());
    hash
}

/// A new key: `pk_`, 256 random bits and a checksum of all that, in hexadecimal digits.
///
/// # Errors
/// Where the system has no random numbers.
pub(crate) fn new_key() -> Result<String, String> {
    let mut random = [0; RANDOM];
    getrandom::fill(&mut random).map_err(|error| error.to_string())?;
    let body = format!("{PREFIX}{}", hex(&random));
    let sum = hash_of(&body);
    Ok(format!(
        "{body}{}",
        hex(sum.get(..CHECKSUM).unwrap_or_default())
    ))
}

/// Bytes in hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Keys by their hashes.
pub(crate) type KeyMap = HashMap<KeyHash, ApiKey>;

/// A key, as far as it is known.
#[derive(Clone)]
pub(crate) struct ApiKey {
    /// Its name.
    pub(crate) name: String,
    /// When it expires.
    pub(crate) expires: Option<SystemTime>,
    verified: Arc<Verified>,
}

impl fmt::Debug for ApiKey {
    /// Claims are never printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey {:?}", self.name)
    }
}

impl ApiKey {
    /// A key of this name, whose `sub` is its name unless its claims say otherwise.
    pub(crate) fn new(
        name: String,
        expires: Option<SystemTime>,
        mut claims: Map<String, Value>,
    ) -> Self {
        let sub = || Value::from(name.as_str());
        claims.entry("sub").or_insert_with(sub);
        Self {
            verified: Arc::new(Verified::of(Claims::new(claims))),
            name,
            expires,
        }
    }

    /// Its claims.
    pub(super) fn claims(&self) -> &Claims {
        self.verified.claims()
    }
}

/// Where a key is looked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum KeyPlace {
    /// A header field.
    Header(HeaderName),
    /// A query parameter.
    Query(String),
}

impl fmt::Display for KeyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "the header {name}"),
            Self::Query(name) => write!(f, "the query parameter {name}"),
        }
    }
}

/// The keys that a route accepts.
#[derive(Clone, Debug)]
pub(crate) struct ApiKeys {
    /// By hash.
    pub(crate) keys: Arc<KeyMap>,
    /// The file that has them.
    pub(crate) file: PathBuf,
    /// Where requests have theirs.
    pub(crate) places: Vec<KeyPlace>,
    /// The realm of the challenge: the route's name.
    pub(crate) realm: String,
}

impl ApiKeys {
    /// The one key of a request; `None` where it has none.
    ///
    /// # Errors
    /// `TokenMalformed` where it has two different ones, or one that is no text.
    fn find<'r>(
        &self,
        headers: &'r HeaderMap,
        query: Option<&'r str>,
    ) -> Result<Option<Cow<'r, str>>, Reject> {
        let mut found: Option<Cow<'r, str>> = None;
        let mut add = |key: Cow<'r, str>| match &found {
            _ if key.is_empty() => Ok(()),
            Some(known) if *known != key => Err(Reject::TokenMalformed(
                "the request has two different API keys",
            )),
            Some(_) => Ok(()),
            None => {
                found = Some(key);
                Ok(())
            }
        };
        for place in &self.places {
            match place {
                KeyPlace::Header(name) => {
                    for value in headers.get_all(name) {
                        let text = std::str::from_utf8(value.as_bytes().trim_ascii());
                        let text = text.map_err(|_| Reject::ApiKeyRefused)?;
                        add(Cow::Borrowed(text))?;
                    }
                }
                KeyPlace::Query(name) => {
                    let query = query.unwrap_or_default();
                    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
                        if key == name.as_str() {
                            add(value)?;
                        }
                    }
                }
            }
        }
        Ok(found)
    }

    /// Whose key the request has; `None` where it has none.
    ///
    /// # Errors
    /// `TokenMalformed`, `ApiKeyRefused` for one that is not known, `ApiKeyExpired`.
    pub(super) fn verify(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        now: SystemTime,
    ) -> Result<Option<Arc<Verified>>, Reject> {
        let Some(key) = self.find(headers, query)? else {
            return Ok(None);
        };
        if key.len() > LONGEST {
            return Err(Reject::ApiKeyRefused);
        }
        let known = self.keys.get(&hash_of(&key)).ok_or(Reject::ApiKeyRefused)?;
        if known.expires.is_some_and(|expires| expires <= now) {
            return Err(Reject::ApiKeyExpired);
        }
        Ok(Some(Arc::clone(&known.verified)))
    }

    /// What becomes of the request's key, in words.
    pub(super) fn explain(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        now: SystemTime,
    ) -> Vec<String> {
        let places: Vec<String> = self.places.iter().map(ToString::to_string).collect();
        let places = places.join(", ");
        let key = match self.find(headers, query) {
            Ok(Some(key)) => key,
            Ok(None) => return vec![format!("no API key in {places}")],
            Err(reject) => return vec![reject.detail().into_owned()],
        };
        let file = self.file.display();
        match (
            self.keys.get(&hash_of(&key)),
            self.verify(headers, query, now),
        ) {
            (Some(known), Ok(_)) => vec![format!("the API key `{}` of {file}", known.name)],
            (Some(known), Err(_)) => vec![format!(
                "the API key `{}` of {file} has expired",
                known.name
            )],
            (None, _) => vec![format!("an API key that {file} does not have")],
        }
    }

    /// Keys that are valid at this time, with their claims, for made-up clients.
    pub(super) fn examples(&self, now: SystemTime) -> impl Iterator<Item = (&KeyHash, &Claims)> {
        let keys = self.keys.iter();
        keys.filter(move |(_, key)| key.expires.is_none_or(|expires| expires > now))
            .map(|(hash, key)| (hash, key.claims()))
    }

    /// The claims of a key that is valid at this time.
    pub(super) fn claims(&self, hash: &KeyHash, now: SystemTime) -> Option<&Claims> {
        let key = self.keys.get(hash)?;
        let is_valid = key.expires.is_none_or(|expires| expires > now);
        is_valid.then(|| key.claims())
    }

    /// The header fields that have keys.
    pub(super) fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.places.iter().filter_map(|place| match place {
            KeyPlace::Header(name) => Some(name),
            KeyPlace::Query(_) => None,
        })
    }

    /// The query parameters that have keys.
    pub(super) fn parameters(&self) -> impl Iterator<Item = &str> {
        self.places.iter().filter_map(|place| match place {
            KeyPlace::Header(_) => None,
            KeyPlace::Query(name) => Some(name.as_str()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn new_keys_are_of_a_form_that_scanners_know_and_differ() {
        let (one, two) = (new_key().unwrap(), new_key().unwrap());
        assert_ne!(one, two);
        assert_eq!(one.len(), PREFIX.len() + 2 * (RANDOM + CHECKSUM));
        let (body, sum) = one.split_at(one.len() - 2 * CHECKSUM);
        assert!(body.starts_with(PREFIX));
        assert_eq!(hex(&hash_of(body)[..CHECKSUM]), sum);
    }

    #[test]
    fn a_key_is_found_in_its_places_and_only_one() {
        let end = UNIX_EPOCH + Duration::from_secs(100);
        let key = |name: &str, expires| ApiKey::new(name.to_owned(), expires, Map::new());
        let keys = HashMap::from([
            (hash_of("good"), key("ci", None)),
            (hash_of("until"), key("old", Some(end))),
        ]);
        let keys = ApiKeys {
            keys: Arc::new(keys),
            file: "keys.yaml".into(),
            places: vec![
                KeyPlace::Header("x-api-key".parse().unwrap()),
                KeyPlace::Query("key".to_owned()),
            ],
            realm: "r".to_owned(),
        };
        let before = end - Duration::from_secs(1);
        for (values, query, now, expected) in [
            (&["good"][..], None, end, Ok(Some("ci"))),
            (&["good", "good"], Some("key=good"), end, Ok(Some("ci"))),
            (&[], Some("a=1&key=g%6fod"), end, Ok(Some("ci"))),
            (&[], None, end, Ok(None)),
            (&[""], Some("key="), end, Ok(None)),
            (&["until"], None, before, Ok(Some("old"))),
            (&["until"], None, end, Err("api_key_expired")),
            (&["Good"], None, end, Err("api_key_refused")),
            (
                &["good"],
                Some("key=until"),
                end,
                Err("token_request_malformed"),
            ),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("x-api-key", value.parse().unwrap());
            }
            let verified = keys.verify(&headers, query, now);
            let seen = verified.map(|it| {
                it.map(|it| it.claims().get("sub").unwrap().as_str().unwrap().to_owned())
            });
            let expected = expected.map(|name| name.map(str::to_owned));
            assert_eq!(
                seen.map_err(Reject::reason),
                expected,
                "{values:?} {query:?}"
            );
        }
        let long = "x".repeat(LONGEST + 1);
        let headers = HeaderMap::from_iter([("x-api-key".parse().unwrap(), long.parse().unwrap())]);
        assert_eq!(
            keys.verify(&headers, None, end).err(),
            Some(Reject::ApiKeyRefused)
        );
    }
}
