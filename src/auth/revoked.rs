//! `Revoked`: tokens that are taken back before they expire, by their id or by whom they are for.
//! Reading the file in which they stand is the configuration's matter.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
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

/// What is taken back while the gateway runs: families of the tokens that it issued itself. Read by
/// every worker, written by whoever ends one.
#[derive(Debug, Default)]
pub(crate) struct LiveRevoked {
    families: ArcSwap<HashMap<String, u64>>,
    subjects: ArcSwap<HashMap<String, u64>>,
    /// One writer at a time.
    writing: Mutex<()>,
}

impl PartialEq for LiveRevoked {
    /// Each is itself alone.
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl LiveRevoked {
    /// Takes back the access tokens of a family, which ended at this time in milliseconds since 1970.
    pub(crate) fn family(&self, sid: &str, at: u64) {
        self.put(&self.families, sid, at);
    }

    /// Takes back all of a subject's whose login was before this time in milliseconds since 1970.
    pub(crate) fn subject(&self, sub: &str, before: u64) {
        self.put(&self.subjects, sub, before);
    }

    /// Forgets what was taken back before this time: its access tokens have expired.
    pub(crate) fn forget(&self, before: u64) {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        for map in [&self.families, &self.subjects] {
            let mut kept = HashMap::clone(&map.load());
            kept.retain(|_, at| *at >= before);
            map.store(Arc::new(kept));
        }
    }

    fn put(&self, map: &ArcSwap<HashMap<String, u64>>, name: &str, at: u64) {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = HashMap::clone(&map.load());
        let known = next.entry(name.to_owned()).or_insert(at);
        *known = at.max(*known);
        map.store(Arc::new(next));
    }

    /// Whether a token with these claims is taken back.
    pub(crate) fn has(&self, claims: &Claims) -> bool {
        let families = self.families.load();
        if !families.is_empty()
            && text(claims.get("sid")).is_some_and(|sid| families.contains_key(&*sid))
        {
            return true;
        }
        let subjects = self.subjects.load();
        if subjects.is_empty() {
            return false;
        }
        let before = text(claims.get("sub")).and_then(|sub| subjects.get(&*sub).copied());
        let login = claims.get("auth_time").and_then(Value::as_f64);
        // Milliseconds since 1970 are far below 2^53.
        #[expect(clippy::cast_precision_loss, reason = "milliseconds fit into a double")]
        before.is_some_and(|before| {
            login.is_none_or(|login| (login * 1000.0).round() <= before as f64)
        })
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

    #[test]
    fn a_family_or_all_of_a_subject_ends_while_the_gateway_runs() {
        let live = LiveRevoked::default();
        let has = |claims: Value| live.has(&Claims::new(claims.as_object().unwrap().clone()));
        assert!(!has(json!({"sid": "f", "sub": "a", "auth_time": 1.5})));
        live.family("f", 2000);
        assert!(has(json!({"sid": "f", "sub": "a", "auth_time": 1.5})));
        assert!(!has(json!({"sid": "g", "sub": "a", "auth_time": 1.5})));
        live.subject("a", 1500);
        assert!(has(json!({"sid": "g", "sub": "a", "auth_time": 1.5})));
        assert!(has(json!({"sid": "g", "sub": "a"})));
        assert!(!has(json!({"sid": "g", "sub": "a", "auth_time": 1.501})));
        assert!(!has(json!({"sid": "g", "sub": "b", "auth_time": 1.0})));
        live.forget(1501);
        assert!(!has(json!({"sid": "g", "sub": "a", "auth_time": 1.5})));
        assert!(has(json!({"sid": "f"})));
    }
}
