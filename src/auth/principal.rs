//! `Principal`: the authenticated user of a request, and how a claim is written as a header for the app. What the
//! principal is allowed to do is decided in `policy`.

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderValue;
use serde_json::Value;

use super::claims::{ClaimPath, Claims};
use super::verify::Verified;
use crate::message::reject::Reject;

/// The user of a request: the claims of its token, or anonymous.
#[derive(Debug)]
pub(crate) struct Principal {
    verified: Option<Arc<Verified>>,
    /// Why the user is unknown, where the request is allowed nevertheless.
    refused: Option<Reject>,
}

impl Principal {
    /// An anonymous principal.
    pub(super) fn anonymous() -> Self {
        Self {
            verified: None,
            refused: None,
        }
    }

    /// An anonymous principal with this reason.
    pub(super) fn unknown(refused: Reject) -> Self {
        Self {
            verified: None,
            refused: Some(refused),
        }
    }

    /// Why the user is unknown, if there is a reason.
    pub(super) fn refused(&self) -> Option<Reject> {
        self.refused
    }

    /// The token that was verified.
    pub(super) fn verified(&self) -> Option<&Arc<Verified>> {
        self.verified.as_ref()
    }

    /// The bearer of a verified token.
    pub(super) fn bearer(verified: Arc<Verified>) -> Self {
        Self {
            verified: Some(verified),
            refused: None,
        }
    }

    /// Whether the user is unknown.
    pub(crate) fn is_anonymous(&self) -> bool {
        self.verified.is_none()
    }

    /// The claims; `None` where the user is anonymous.
    pub(crate) fn claims(&self) -> Option<&Claims> {
        self.verified.as_ref().map(|verified| verified.claims())
    }

    /// One claim.
    pub(crate) fn claim(&self, path: &ClaimPath) -> Option<&Value> {
        self.claims()?.at(path)
    }

    /// A claim as text: a text unchanged, anything else as JSON. `None` where it is absent or null.
    pub(super) fn text(&self, path: &ClaimPath) -> Option<Cow<'_, [u8]>> {
        let value = self.claim(path).filter(|value| !value.is_null())?;
        Some(match text(value) {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        })
    }

    /// The first of these claims that is a text or a number, as text.
    pub(crate) fn user(&self, paths: &[ClaimPath]) -> Option<String> {
        let claims = self.claims()?;
        paths.iter().find_map(|path| match claims.at(path)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.as_str().to_owned()),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        })
    }

    /// A claim as a header value: a text unchanged, a list joined by commas, anything else as compact JSON. `None`
    /// where the claim is absent or null.
    ///
    /// # Errors
    /// `ClaimUnfit` where the app could read something other than the claim: a control character, space at the ends,
    /// or a comma inside an item of a list.
    pub(super) fn header(&self, path: &ClaimPath) -> Result<Option<HeaderValue>, Reject> {
        let text = match self.claim(path) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Array(items)) => {
                let mut joined = String::new();
                for (at, item) in items.iter().enumerate() {
                    let item = text(item);
                    if item.contains(',') || !is_fit(&item) {
                        return Err(Reject::ClaimUnfit);
                    }
                    if at > 0 {
                        joined.push(',');
                    }
                    joined.push_str(&item);
                }
                Cow::Owned(joined)
            }
            Some(other) => text(other),
        };
        if !is_fit(&text) {
            return Err(Reject::ClaimUnfit);
        }
        HeaderValue::from_bytes(text.as_bytes())
            .map(Some)
            .map_err(|_| Reject::ClaimUnfit)
    }
}

fn text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        // Exactly as in the token, digit by digit.
        Value::Number(number) => Cow::Borrowed(number.as_str()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            Cow::Owned(value.to_string())
        }
    }
}

/// Whether the text arrives unchanged; space at the ends would be trimmed in transit.
fn is_fit(text: &str) -> bool {
    !text.chars().any(char::is_control) && text.trim() == text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "rows read better without references"
    )]
    fn check(claim: Value, expected: Result<Option<&str>, Reject>) {
        let claims = Claims::new(json!({"a": {"b": claim}}).as_object().unwrap().clone());
        let principal = Principal::bearer(Arc::new(Verified::of(claims)));
        let header = principal.header(&ClaimPath::parse("a.b").unwrap());
        let seen = header
            .map(|value| value.map(|value| String::from_utf8(value.as_bytes().to_vec()).unwrap()));
        assert_eq!(seen, expected.map(|text| text.map(str::to_owned)));
    }

    #[test]
    fn claims_become_headers() {
        check(json!("alice"), Ok(Some("alice")));
        check(json!("Zoë, née Ŝ"), Ok(Some("Zoë, née Ŝ")));
        check(json!(""), Ok(Some("")));
        check(json!(7), Ok(Some("7")));
        let exact = |text: &str| super::super::json::parse(text.as_bytes()).unwrap();
        for text in ["123456789012345678901", "9007199254740993.0", "-0", "1e+3"] {
            check(exact(text), Ok(Some(text)));
        }
        check(
            exact("[123456789012345678901, 2]"),
            Ok(Some("123456789012345678901,2")),
        );
        check(json!(true), Ok(Some("true")));
        check(json!(["clerk", "admin", 3]), Ok(Some("clerk,admin,3")));
        check(json!([]), Ok(Some("")));
        check(
            json!({"x": [1, 2], "y": null}),
            Ok(Some(r#"{"x":[1,2],"y":null}"#)),
        );
        check(json!(null), Ok(None));
    }

    #[test]
    fn claims_that_would_arrive_as_something_else_are_refused() {
        for text in [
            "a\r\nX-Admin: 1",
            "a\nb",
            "a\tb",
            "\0",
            "a\u{7f}",
            "a\u{85}",
            " a",
            "a ",
        ] {
            check(json!(text), Err(Reject::ClaimUnfit));
            check(json!([text]), Err(Reject::ClaimUnfit));
        }
        check(json!(["clerk,admin"]), Err(Reject::ClaimUnfit));
        check(json!([["clerk", "admin"]]), Err(Reject::ClaimUnfit));
    }

    #[test]
    fn the_user_is_the_first_claim_that_names_one() {
        let paths = ["sub", "user_id", "a.b"].map(|path| ClaimPath::parse(path).unwrap());
        for (claims, expected) in [
            (json!({"sub": "alice", "user_id": 7}), Some("alice")),
            (json!({"sub": 0, "user_id": 7}), Some("0")),
            (json!({"user_id": 7}), Some("7")),
            (
                json!({"sub": null, "user_id": u64::MAX}),
                Some("18446744073709551615"),
            ),
            (json!({"sub": ["alice"], "a": {"b": "c"}}), Some("c")),
            (json!({"sub": true}), None),
            (json!({}), None),
        ] {
            let claims = Claims::new(claims.as_object().unwrap().clone());
            let principal = Principal::bearer(Arc::new(Verified::of(claims)));
            assert_eq!(principal.user(&paths).as_deref(), expected);
        }
    }

    #[test]
    fn the_anonymous_have_no_claims() {
        let nobody = Principal::anonymous();
        assert!(nobody.is_anonymous());
        assert_eq!(nobody.user(&[ClaimPath::parse("sub").unwrap()]), None);
        assert_eq!(nobody.header(&ClaimPath::parse("sub").unwrap()), Ok(None));
    }
}
