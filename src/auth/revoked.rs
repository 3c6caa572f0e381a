//! `Revoked`: tokens that are taken back before they expire, by their id or by whom they are for.
//! Reading the file in which they stand is the configuration's matter.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::claims::Claims;

/// Which tokens are taken back.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Revoked {
    ids: HashSet<String>,
    /// With the time before which a token must have been issued to be taken back; `None` takes
    /// back all.
    subjects: HashMap<String, Option<f64>>,
}

impl Revoked {
    /// Takes back the token of this id (RFC 7519 section 4.1.7).
    pub(crate) fn id(&mut self, jti: String) {
        self.ids.insert(jti);
    }

    /// Takes back all tokens of this subject, or those issued before a time in seconds since 1970.
    pub(crate) fn subject(&mut self, sub: String, before: Option<f64>) {
        let known = self.subjects.entry(sub).or_insert(before);
        // The wider of two rules holds.
        *known = match (*known, before) {
            (Some(one), Some(other)) => Some(one.max(other)),
            (None, _) | (_, None) => None,
        };
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.ids.len() + self.subjects.len()
    }

    /// Whether a token with these claims is taken back. One that does not say when it was issued
    /// was issued before any time.
    pub(crate) fn has(&self, claims: &Claims, issued: Option<f64>) -> bool {
        if !self.ids.is_empty() && text(claims.get("jti")).is_some_and(|id| self.ids.contains(&*id))
        {
            return true;
        }
        if self.subjects.is_empty() {
            return false;
        }
        let subject = text(claims.get("sub"));
        match subject.and_then(|subject| self.subjects.get(&*subject)) {
            None => false,
            Some(None) => true,
            Some(Some(before)) => issued.is_none_or(|issued| issued < *before),
        }
    }
}

/// A claim as the file writes it; some issuers number their users.
fn text(claim: Option<&Value>) -> Option<std::borrow::Cow<'_, str>> {
    match claim? {
        Value::String(text) => Some(text.into()),
        Value::Number(number) => Some(number.to_string().into()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tokens_are_taken_back_by_id_subject_and_time() {
        let mut revoked = Revoked::default();
        revoked.id("x".to_owned());
        revoked.subject("gone".to_owned(), None);
        revoked.subject("reset".to_owned(), Some(100.0));
        revoked.subject("reset".to_owned(), Some(50.0));
        revoked.subject("both".to_owned(), Some(100.0));
        revoked.subject("both".to_owned(), None);
        revoked.subject("7".to_owned(), None);
        let has = |claims: Value, issued: Option<f64>| {
            revoked.has(&Claims::new(claims.as_object().unwrap().clone()), issued)
        };
        assert!(has(json!({"jti": "x", "sub": "a"}), Some(1e9)));
        assert!(!has(json!({"jti": "y", "sub": "a"}), None));
        assert!(!has(json!({"sub": "x"}), None));
        assert!(has(json!({"sub": "gone"}), Some(1e9)));
        assert!(has(json!({"sub": "both"}), Some(1e9)));
        assert!(has(json!({"sub": "reset"}), Some(99.9)));
        assert!(!has(json!({"sub": "reset"}), Some(100.0)));
        assert!(has(json!({"sub": "reset"}), None));
        assert!(has(json!({"sub": 7}), None));
        assert!(!has(json!({"sub": ["gone"], "jti": ["x"]}), None));
        assert!(!has(json!({}), None));
    }
}
