//! `Jws`: a token in the compact serialization of JWS (RFC 7515 section 7.1), with its header parsed and nothing
//! verified yet. Signatures are checked by `keys`, claims by `verify`.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::algorithm::Algorithm;
use super::claims::Claims;
use super::json;
use crate::message::reject::TokenFault;

/// The header of a token.
///
/// `jku`, `x5u`, `jwk` and `x5c` are dropped here: a token never says where its key is.
#[derive(Debug)]
pub(crate) struct Header {
    /// `alg`; `None` for `none` and for every unknown name.
    pub(crate) algorithm: Option<Algorithm>,
    /// `kid`.
    pub(crate) kid: Option<String>,
    /// `x5t` and `x5t#S256`: the certificate whose key signed it, never its location.
    thumbprints: [Option<String>; 2],
    /// `typ`.
    pub(crate) typ: Option<String>,
}

/// A well-formed token; neither its signature nor its claims were checked.
pub(crate) struct Jws<'t> {
    /// The parsed header.
    pub(crate) header: Arc<Header>,
    /// Header and payload with the dot between them: what the signature covers.
    pub(crate) signed: &'t str,
    payload: &'t str,
    /// The signature in base64url, not decoded.
    signature: &'t str,
}

impl Deref for Jws<'_> {
    type Target = Header;

    fn deref(&self) -> &Header {
        &self.header
    }
}

impl fmt::Debug for Jws<'_> {
    /// A token is never printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a token with {:?}", self.algorithm)
    }
}

impl Header {
    /// Parses a header from its part of a token.
    ///
    /// # Errors
    /// `Malformed` where it is not a strict JSON object with an `alg`; `Critical` where it has `crit`, or `b64` other
    /// than `true` (RFC 7797).
    fn parse(header: &str) -> Result<Self, TokenFault> {
        let header = json::parse_object(&decode(header)?).map_err(|_| TokenFault::Malformed)?;
        // `b64` changes what is signed; a parser that ignores it would verify other bytes.
        let plain = header
            .get("b64")
            .is_none_or(|b64| *b64 == Value::Bool(true));
        if header.contains_key("crit") || !plain {
            return Err(TokenFault::Critical);
        }
        let text = |name| match header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(TokenFault::Malformed),
        };
        let algorithm = header
            .get("alg")
            .and_then(Value::as_str)
            .ok_or(TokenFault::Malformed)?;
        Ok(Self {
            algorithm: Algorithm::named(algorithm),
            kid: text("kid")?,
            thumbprints: [text("x5t")?, text("x5t#S256")?],
            typ: text("typ")?,
        })
    }

    /// The thumbprints of the certificate whose key signed it (RFC 7515 sections 4.1.7 and 4.1.8).
    pub(crate) fn thumbprints(&self) -> impl Iterator<Item = &str> {
        self.thumbprints.iter().filter_map(Option::as_deref)
    }
}

impl<'t> Jws<'t> {
    /// Parses the structure and the header of a token.
    ///
    /// # Errors
    /// `Malformed` where it does not have three parts or its header is invalid; `Critical` where the header has
    /// `crit`, or `b64` other than `true` (RFC 7797).
    pub(crate) fn parse(token: &'t str) -> Result<Self, TokenFault> {
        Self::parse_with(token, |_| None)
    }

    /// The same, with headers that were parsed before: most tokens of an issuer have the same one.
    ///
    /// # Errors
    /// As [`Jws::parse`].
    pub(crate) fn parse_with(
        token: &'t str,
        known: impl FnOnce(&str) -> Option<Arc<Header>>,
    ) -> Result<Self, TokenFault> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenFault::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenFault::Malformed)?;
        if payload.contains('.') {
            return Err(TokenFault::Malformed);
        }
        let header = match known(header) {
            Some(header) => header,
            None => Arc::new(Header::parse(header)?),
        };
        Ok(Self {
            header,
            signed,
            payload,
            signature,
        })
    }

    /// The header's part of the token.
    pub(crate) fn header_part(&self) -> &'t str {
        let end = self.signed.len() - self.payload.len();
        self.signed.get(..end.saturating_sub(1)).unwrap_or_default()
    }

    /// The bytes of the signature.
    ///
    /// # Errors
    /// `Malformed` where they are not strict base64url.
    pub(crate) fn signature(&self) -> Result<Vec<u8>, TokenFault> {
        decode(self.signature)
    }

    /// The bytes of the payload.
    ///
    /// # Errors
    /// `Malformed` where they are not strict base64url.
    pub(crate) fn payload(&self) -> Result<Vec<u8>, TokenFault> {
        decode(self.payload)
    }

    /// The claims as the token states them; a caller must not trust them before the signature is verified.
    ///
    /// # Errors
    /// `Malformed` where the payload is not a strict JSON object in strict base64url.
    pub(crate) fn claims(&self) -> Result<Claims, TokenFault> {
        json::parse_object(&self.payload()?)
            .map(Claims::new)
            .map_err(|_| TokenFault::Malformed)
    }
}

/// Strict base64url (RFC 7515 section 2): no padding, and no nonzero trailing bits.
fn decode(part: &str) -> Result<Vec<u8>, TokenFault> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| TokenFault::Malformed)
}

/// The properties of every text: a token has one decomposition, and joining its parts gives the same text; other JSON
/// parsers read the same header and claims.
#[cfg(any(test, fuzzing))]
#[track_caller]
pub(crate) fn token_holds(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let Ok(jws) = Jws::parse(text) else { return };
    let header = decode(jws.header_part()).unwrap_or_default();
    let read: Option<Value> = serde_json::from_slice(&header).ok();
    let member = |name| read.as_ref().and_then(|read| read.get(name));
    assert!(member("crit").is_none());
    let named = member("alg").and_then(Value::as_str);
    assert_eq!(jws.algorithm, named.and_then(Algorithm::named));
    assert_eq!(jws.kid.as_deref(), member("kid").and_then(Value::as_str));
    assert_eq!(jws.typ.as_deref(), member("typ").and_then(Value::as_str));
    if let Ok(payload) = jws.payload() {
        if let Ok(signature) = jws.signature() {
            let parts = [&header, &payload, &signature].map(|part| URL_SAFE_NO_PAD.encode(part));
            assert_eq!(parts.join("."), text);
        }
        if let Ok(claims) = json::parse_object(&payload) {
            let read: Option<Value> = serde_json::from_slice(&payload).ok();
            assert_eq!(read, Some(Value::Object(claims)));
            assert!(jws.claims().is_ok());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, payload: &str) -> String {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.AAAA", encode(header), encode(payload))
    }

    #[track_caller]
    fn header(header: &str, expected: Result<Option<Algorithm>, TokenFault>) {
        let token = token(header, "{}");
        assert_eq!(
            Jws::parse(&token).map(|jws| jws.algorithm),
            expected,
            "{header}"
        );
    }

    #[test]
    fn the_header_names_the_algorithm() {
        header(r#"{"alg":"HS256"}"#, Ok(Some(Algorithm::HS256)));
        header(r#"{"alg":"hs256"}"#, Ok(None));
        for none in ["none", "None", "NONE", "nOnE", "none ", ""] {
            header(&format!(r#"{{"alg":"{none}"}}"#), Ok(None));
        }
        header(r#"{}"#, Err(TokenFault::Malformed));
        header(r#"{"alg":null}"#, Err(TokenFault::Malformed));
        header(r#"{"alg":["HS256"]}"#, Err(TokenFault::Malformed));
        header(
            r#"{"alg":"none","alg":"HS256"}"#,
            Err(TokenFault::Malformed),
        );
        header(r#"["alg"]"#, Err(TokenFault::Malformed));
    }

    #[test]
    fn critical_extensions_are_refused() {
        header(
            r#"{"alg":"HS256","crit":["exp"]}"#,
            Err(TokenFault::Critical),
        );
        header(r#"{"alg":"HS256","crit":[]}"#, Err(TokenFault::Critical));
        header(r#"{"alg":"HS256","crit":null}"#, Err(TokenFault::Critical));
        header(
            r#"{"alg":"HS256","b64":false,"crit":["b64"]}"#,
            Err(TokenFault::Critical),
        );
        header(r#"{"alg":"HS256","b64":false}"#, Err(TokenFault::Critical));
        header(r#"{"alg":"HS256","b64":true}"#, Ok(Some(Algorithm::HS256)));
    }

    #[test]
    fn kid_and_typ_are_texts() {
        header(r#"{"alg":"HS256","kid":7}"#, Err(TokenFault::Malformed));
        header(
            r#"{"alg":"HS256","typ":["JWT"]}"#,
            Err(TokenFault::Malformed),
        );
        header(
            r#"{"alg":"HS256","kid":"a","typ":"JWT","jku":"x"}"#,
            Ok(Some(Algorithm::HS256)),
        );
    }

    #[test]
    fn the_form_is_three_parts_of_strict_base64url() {
        let good = token(r#"{"alg":"HS256"}"#, r#"{"a":1}"#);
        assert!(Jws::parse(&good).unwrap().claims().is_ok());
        for bad in [
            "",
            ".",
            "..",
            "a.b",
            "a.b.c.d",
            "eyJhbGciOiJIUzI1NiJ9=.e30.AA",
        ] {
            assert_eq!(Jws::parse(bad).unwrap_err(), TokenFault::Malformed, "{bad}");
        }
        // `{"alg":"HS256"}` ends with spare bits; only the last letter in which they are zero is valid.
        for (payload, right) in [
            ("e30", true),
            ("e31", false),
            ("e30=", false),
            ("e3 0", false),
        ] {
            let token = format!("eyJhbGciOiJIUzI1NiJ9.{payload}.AA");
            assert_eq!(
                Jws::parse(&token).unwrap().claims().is_ok(),
                right,
                "{payload}"
            );
        }
    }

    #[test]
    fn claims_are_a_strict_object() {
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(32), "]".repeat(32));
        for payload in ["[]", "1", "", r#"{"sub":"a","sub":"b"}"#, &deep] {
            let token = token(r#"{"alg":"HS256"}"#, payload);
            let fault = Jws::parse(&token).unwrap().claims().unwrap_err();
            assert_eq!(fault, TokenFault::Malformed, "{payload}");
        }
    }
}
