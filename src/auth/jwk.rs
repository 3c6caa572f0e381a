//! Parses JSON key sets (RFC 7517): each entry is a key, or an error that says why it cannot be used. Which algorithms
//! the configuration allows is decided in `keys`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::algorithm::{Algorithm, AlgorithmSet};
use super::json;
use super::key_fault::KeyProblem;
use super::public_key::PublicKey;

/// The material of a key in a set.
pub(crate) enum Material {
    /// A shared secret.
    Secret(Vec<u8>),
    /// A public key; its strength was not checked yet.
    Public(PublicKey),
}

/// A key of a set.
pub(crate) struct Jwk {
    /// `kid`.
    pub(crate) kid: Option<String>,
    /// `x5t` and `x5t#S256`.
    pub(crate) thumbprints: Vec<String>,
    /// `alg`, which fits the type of the key.
    pub(crate) algorithm: Option<Algorithm>,
    /// The key.
    pub(crate) material: Material,
}

/// An entry of a set that cannot be used as a key.
pub(crate) struct Mistake {
    /// `kid`.
    pub(crate) kid: Option<String>,
    /// The problem.
    pub(crate) problem: KeyProblem,
}

/// The entries of a set, in order. [`KeyProblem::is_passed_over`] says whether a problem means that a key is skipped
/// or that the set is invalid. Members that are null or empty count as absent, because some servers write all members
/// that they know.
///
/// # Errors
/// Where the document is not a strict JSON object with a list `keys`.
pub(crate) fn read(document: &[u8]) -> Result<Vec<Result<Jwk, Mistake>>, KeyProblem> {
    let document = json::parse_object(json::without_mark(document));
    let document = document.map_err(|_| KeyProblem::NotJwks)?;
    let keys = document
        .get("keys")
        .and_then(Value::as_array)
        .ok_or(KeyProblem::NotJwks)?;
    Ok(keys.iter().map(entry).collect())
}

fn entry(entry: &Value) -> Result<Jwk, Mistake> {
    let kid = entry
        .as_object()
        .and_then(|members| member(members, "kid")?.as_str())
        .map(str::to_owned);
    key(entry, kid.clone()).map_err(|problem| Mistake { kid, problem })
}

fn key(entry: &Value, kid: Option<String>) -> Result<Jwk, KeyProblem> {
    let members = entry
        .as_object()
        .ok_or(KeyProblem::Malformed("a key is a JSON object"))?;
    if kid.is_none() && member(members, "kid").is_some() {
        return Err(KeyProblem::Malformed("`kid` is a text"));
    }
    let kty = text(members, "kty")?;
    is_for_verifying(members)?;
    let unknown = |name: &'static str, value: &Value| KeyProblem::Unknown {
        name,
        value: shown(value),
    };
    let algorithm = member(members, "alg")
        .map(|alg| {
            let named = alg.as_str().and_then(Algorithm::named);
            named.ok_or_else(|| unknown("alg", alg))
        })
        .transpose()?;
    let (material, fits) = match kty {
        "oct" => (Material::Secret(bytes(members, "k")?), AlgorithmSet::HMAC),
        "RSA" | "EC" | "OKP" => {
            let Some(key) = public_key(kty, members)? else {
                let curve = members.get("crv").unwrap_or(&Value::Null);
                return Err(unknown("crv", curve));
            };
            if member(members, "d").is_some() {
                return Err(KeyProblem::PrivateKey);
            }
            let fits = key.algorithms();
            (Material::Public(key), fits)
        }
        _ => return Err(unknown("kty", &kty.into())),
    };
    if algorithm.is_some_and(|algorithm| !fits.contains(algorithm)) {
        return Err(KeyProblem::Malformed(
            "`alg` does not fit the key's type or curve",
        ));
    }
    let thumbprints = ["x5t", "x5t#S256"]
        .into_iter()
        .filter_map(|name| member(members, name)?.as_str())
        .map(str::to_owned)
        .collect();
    Ok(Jwk {
        kid,
        thumbprints,
        algorithm,
        material,
    })
}

/// A member, unless it is null or empty.
fn member<'m>(members: &'m Map<String, Value>, name: &str) -> Option<&'m Value> {
    members.get(name).filter(|value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    })
}

/// Checks `use` and `key_ops` (RFC 7517 sections 4.2 and 4.3).
fn is_for_verifying(members: &Map<String, Value>) -> Result<(), KeyProblem> {
    let unfit = |name, value: &Value, wanted| KeyProblem::OtherUse {
        name,
        value: shown(value),
        wanted,
    };
    if let Some(usage) = member(members, "use").filter(|usage| *usage != "sig") {
        return Err(unfit("use", usage, "sig"));
    }
    if let Some(operations) = member(members, "key_ops") {
        let list = operations.as_array();
        if !list.is_some_and(|list| list.iter().any(|one| one == "verify")) {
            return Err(unfit("key_ops", operations, "verify"));
        }
    }
    Ok(())
}

/// The value of a member that names a kind of key, shortened to fit into a message.
fn shown(value: &Value) -> String {
    const LONGEST: usize = 40;
    let text = value.to_string();
    let mut short: String = text.chars().take(LONGEST).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short.replace(char::is_control, "?")
}

/// The public key (RFC 7518 section 6, RFC 8037 section 2); `None` for an unknown curve.
fn public_key(kty: &str, members: &Map<String, Value>) -> Result<Option<PublicKey>, KeyProblem> {
    if kty == "RSA" {
        return Ok(Some(PublicKey::rsa(
            &bytes(members, "n")?,
            &bytes(members, "e")?,
        )));
    }
    let key = match (kty, text(members, "crv")?) {
        ("EC", "P-256") => PublicKey::P256(point(members, 32)?),
        ("EC", "P-384") => PublicKey::P384(point(members, 48)?),
        ("EC", "P-521") => PublicKey::P521(point(members, 66)?),
        ("OKP", "Ed25519") => PublicKey::Ed25519(bytes(members, "x")?),
        _ => return Ok(None),
    };
    Ok(Some(key))
}

/// The point with these coordinates, each of `size` bytes, uncompressed (SEC 1 section 2.3.3).
fn point(members: &Map<String, Value>, size: usize) -> Result<Vec<u8>, KeyProblem> {
    let (x, y) = (bytes(members, "x")?, bytes(members, "y")?);
    if x.len() != size || y.len() != size {
        return Err(KeyProblem::Malformed(
            "`x` and `y` are not as long as the curve's numbers",
        ));
    }
    Ok([&[4], x.as_slice(), y.as_slice()].concat())
}

fn text<'m>(members: &'m Map<String, Value>, name: &'static str) -> Result<&'m str, KeyProblem> {
    member(members, name)
        .and_then(Value::as_str)
        .ok_or(KeyProblem::Member(name))
}

fn bytes(members: &Map<String, Value>, name: &'static str) -> Result<Vec<u8>, KeyProblem> {
    URL_SAFE_NO_PAD
        .decode(text(members, name)?)
        .map_err(|_| KeyProblem::Member(name))
}
