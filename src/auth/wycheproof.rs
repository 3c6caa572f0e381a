//! Project Wycheproof's vectors for JSON Web Signatures and Keys: each is checked by the key set and the structure of
//! the token, as a request's token is. Where the result differs from the vector's, a table gives the reason; an
//! unlisted difference fails, and so does an unused entry of a table.

use serde_json::{Value, json};

use super::algorithm::AlgorithmSet;
use super::jws::Jws;
use super::keys::{KeySet, KeySource, ShortSecrets};
use crate::message::reject::TokenFault;

/// Differences and their reasons, by `tcId`.
type Deviations = &'static [(u64, &'static str)];

const SIGNATURE: Deviations = &[
    (
        346,
        "the key is for PS256 and the token says PS384; a key's own algorithm binds",
    ),
    (
        350,
        "the key is for PS256 and the token says PS384; a key's own algorithm binds",
    ),
    (
        347,
        "the vector says ES521, which is no algorithm; with P-521 goes ES512",
    ),
    (
        351,
        "the vector says ES521, which is no algorithm; with P-521 goes ES512",
    ),
    (
        367,
        "byte for byte the valid token of 357; the padding that it speaks of is not there",
    ),
    (
        370,
        "byte for byte the valid token of 357; the padding that it speaks of is not there",
    ),
    (
        372,
        "a character outside base64url in the header; RFC 7515 section 2 allows none",
    ),
    (
        373,
        "a character outside base64url in the payload; RFC 7515 section 2 allows none",
    ),
];

const KEY: Deviations = &[];

const CRYPTO: Deviations = &[];

/// The payload of a token in compact form, if one of the keys signed it.
fn verified_payload(keys: &KeySet, token: &str) -> Result<Vec<u8>, TokenFault> {
    let jws = Jws::parse(token)?;
    keys.verify(&jws, AlgorithmSet::ALL)?;
    jws.payload()
}

fn is_accepted(key: &Value, token: &Value) -> bool {
    let set = if key.get("keys").is_some() {
        key.clone()
    } else {
        json!({"keys": [key]})
    };
    let source = KeySource::Jwks(set.to_string().into_bytes());
    // A set that is refused accepts no token; a token in another serialization is not a string.
    let loaded = KeySet::load(&[source], &[], ShortSecrets::Refuse);
    match (loaded, token.as_str()) {
        (Ok((keys, _)), Some(token)) => verified_payload(&keys, token).is_ok(),
        (Ok(_) | Err(_), _) => false,
    }
}

#[track_caller]
fn check(file: &str, deviations: Deviations, expected: (usize, usize)) {
    let path = format!(
        "{}/tests/vectors/wycheproof/{file}",
        env!("CARGO_MANIFEST_DIR")
    );
    let vectors: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut wrong = Vec::new();
    let (mut accepted, mut refused, mut listed) = (0, 0, 0);
    for group in vectors["testGroups"].as_array().unwrap() {
        let key = group.get("public").unwrap_or_else(|| &group["private"]);
        for test in group["tests"].as_array().unwrap() {
            // The encryption vectors of the mixed file are not signatures.
            let Some(token) = test.get("jws") else {
                continue;
            };
            let id = test["tcId"].as_u64().unwrap();
            let is_valid = match test["result"].as_str().unwrap() {
                "valid" => true,
                "invalid" => false,
                other => panic!("{other}"),
            };
            let is_accepted = is_accepted(key, token);
            if is_accepted {
                accepted += 1;
            } else {
                refused += 1;
            }
            let is_listed = deviations.iter().any(|(deviation, _)| *deviation == id);
            listed += usize::from(is_listed);
            if (is_accepted == is_valid) == is_listed {
                wrong.push(format!("{id} {}: accepted {is_accepted}", test["comment"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{file}: {wrong:#?}");
    assert_eq!(
        listed,
        deviations.len(),
        "{file}: an entry of the table is idle"
    );
    assert_eq!((accepted, refused), expected, "{file}");
}

#[test]
fn signatures() {
    check("json_web_signature_test.json", SIGNATURE, (42, 359));
}

#[test]
fn keys() {
    check("json_web_key_test.json", KEY, (5, 21));
}

#[test]
fn signatures_of_the_mixed_file() {
    check("json_web_crypto_test.json", CRYPTO, (4, 45));
}
