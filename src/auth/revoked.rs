//! `Revoked`: tokens that are revoked before they expire, by their id or by their subject. The file that lists them is
//! read by the configuration.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use serde_json::Value;

use super::claims::Claims;
use super::number::whole;

/// The revoked tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Revoked {
    ids: HashSet<String>,
    /// With the time before which a token must have been issued to be revoked; `None` revokes all.
    subjects: HashMap<String, Option<f64>>,
}

impl Revoked {
    /// Revokes the token of this id (RFC 7519 section 4.1.7).
    pub(crate) fn id(&mut self, jti: String) {
        self.ids.insert(jti);
    }

    /// Revokes all tokens of this subject, or those issued before a time in seconds since 1970.
    pub(crate) fn subject(&mut self, sub: String, before: Option<f64>) {
        let known = self.subjects.entry(sub).or_insert(before);
        // The wider of two rules applies.
        *known = match (*known, before) {
            (Some(one), Some(other)) => Some(one.max(other)),
            (None, _) | (_, None) => None,
        };
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.ids.len() + self.subjects.len()
    }

    /// How many of its entries are missing in another one, or cover fewer tokens there.
    pub(crate) fn lost_in(&self, other: &Self) -> usize {
        let ids = self.ids.difference(&other.ids).count();
        let subjects = self.subjects.iter().filter(|(name, before)| {
            let now = other.subjects.get(*name);
            now.is_none_or(|now| match (now, before) {
                (None, _) => false,
                (Some(_), None) => true,
                (Some(now), Some(before)) => now < before,
            })
        });
        ids + subjects.count()
    }

    /// Whether a token with these claims is revoked. A token without an issue time counts as issued before any time.
    pub(crate) fn has(&self, claims: &Claims, issued: Option<f64>) -> bool {
        if !self.ids.is_empty() && texts(claims.get("jti")).any(|id| self.ids.contains(&*id)) {
            return true;
        }
        if self.subjects.is_empty() {
            return false;
        }
        texts(claims.get("sub"))
            .filter_map(|subject| self.subjects.get(&*subject))
            .any(|before| before.is_none_or(|before| issued.is_none_or(|issued| issued < before)))
    }
}

/// Revocations at run time: families of the tokens that the gateway issued itself. Every worker reads it without a
/// lock; whoever ends a family writes it.
#[derive(Debug, Default)]
pub(crate) struct LiveRevoked {
    families: Times,
    subjects: Times,
}

/// Names with a time each. A write copies only the recent ones, and occasionally all.
#[derive(Debug, Default)]
struct Times {
    maps: ArcSwap<Maps>,
    /// One writer at a time.
    writing: Mutex<()>,
}

/// Names with a time each, hashed with a fast hash that is keyed anew in every process.
type ByName = HashMap<String, u64, foldhash::quality::RandomState>;

#[derive(Clone, Debug, Default)]
struct Maps {
    frozen: Arc<ByName>,
    recent: ByName,
}

impl Maps {
    fn get(&self, name: &str) -> Option<u64> {
        self.recent
            .get(name)
            .or_else(|| self.frozen.get(name))
            .copied()
    }

    fn is_empty(&self) -> bool {
        self.recent.is_empty() && self.frozen.is_empty()
    }
}

impl Times {
    /// Adds these, each with the later of its times.
    fn put<'n>(&self, entries: impl Iterator<Item = (&'n str, u64)>) {
        const RECENT: usize = 256;
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Maps::clone(&self.maps.load());
        for (name, at) in entries {
            let later = next.get(name).map_or(at, |known| known.max(at));
            next.recent.insert(name.to_owned(), later);
        }
        if next.recent.len() > RECENT {
            let mut all = ByName::clone(&next.frozen);
            all.extend(next.recent.drain());
            next.frozen = Arc::new(all);
        }
        self.maps.store(Arc::new(next));
    }

    fn forget(&self, before: u64) {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.maps.load();
        if !now
            .recent
            .values()
            .chain(now.frozen.values())
            .any(|at| *at < before)
        {
            return;
        }
        let mut next = Maps::clone(&now);
        let mut frozen = ByName::clone(&next.frozen);
        frozen.retain(|_, at| *at >= before);
        next.recent.retain(|_, at| *at >= before);
        next.frozen = Arc::new(frozen);
        self.maps.store(Arc::new(next));
    }
}

impl PartialEq for LiveRevoked {
    /// Each is equal only to itself.
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl LiveRevoked {
    /// Revokes the access tokens of families that ended at these times in milliseconds since 1970.
    pub(crate) fn families<'n>(&self, ended: impl Iterator<Item = (&'n str, u64)>) {
        self.families.put(ended);
    }

    /// Revokes all tokens of subjects whose login was before these times in milliseconds since 1970.
    pub(crate) fn subjects<'n>(&self, ended: impl Iterator<Item = (&'n str, u64)>) {
        self.subjects.put(ended);
    }

    /// Whether a family was revoked, and not forgotten since.
    pub(crate) fn has_family(&self, id: &str) -> bool {
        self.families.maps.load().get(id).is_some()
    }

    /// Whether all tokens of a subject whose login was before this time were revoked, and that was not forgotten
    /// since.
    pub(crate) fn has_subject(&self, sub: &str, before: u64) -> bool {
        let known = self.subjects.maps.load().get(sub);
        known.is_some_and(|known| known >= before)
    }

    /// Forgets the families that were revoked before a time, and the subjects before another: their access tokens have
    /// expired.
    pub(crate) fn forget(&self, families: u64, subjects: u64) {
        self.families.forget(families);
        self.subjects.forget(subjects);
    }

    /// Whether a token with these claims is revoked.
    pub(crate) fn has(&self, claims: &Claims) -> bool {
        let families = self.families.maps.load();
        if !families.is_empty()
            && text(claims.get("sid")).is_some_and(|sid| families.get(&sid).is_some())
        {
            return true;
        }
        let subjects = self.subjects.maps.load();
        if subjects.is_empty() {
            return false;
        }
        let ended = text(claims.get("sub")).and_then(|sub| subjects.get(&sub));
        ended.is_some_and(|ended| login(claims).is_none_or(|login| login <= ended))
    }
}

/// The users who may have sessions, each with a time in milliseconds since 1970: sessions that began earlier have
/// ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Admitted(ByName);

impl Admitted {
    /// These subjects, each with its time.
    pub(crate) fn new(subjects: impl Iterator<Item = (String, u64)>) -> Self {
        Self(subjects.collect())
    }

    /// Whether a token with these claims belongs to a session that has not ended.
    pub(crate) fn admits(&self, claims: &Claims) -> bool {
        let since = text(claims.get("sub")).and_then(|sub| self.0.get(&*sub));
        since.is_some_and(|since| *since == 0 || login(claims).is_some_and(|login| login >= *since))
    }
}

/// When the user logged in, in milliseconds since 1970. The seconds may have a fraction, as in tokens that were issued
/// before `auth_ms` was added.
fn login(claims: &Claims) -> Option<u64> {
    let seconds = claims.get("auth_time").and_then(Value::as_f64)?;
    let more = claims.get("auth_ms").and_then(Value::as_u64);
    let more = more.and_then(|more| u16::try_from(more).ok());
    let more = more.filter(|more| *more < 1000).unwrap_or(0);
    let millis = (seconds * 1000.0).round() + f64::from(more);
    // Beyond 2^53 it is not a valid time.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is within the range"
    )]
    (0.0..9e15).contains(&millis).then_some(millis as u64)
}

/// The same, and for a number in another form (`7.0`, `1e3`) also its digits, because the file may have been written
/// in either form.
fn texts(claim: Option<&Value>) -> impl Iterator<Item = std::borrow::Cow<'_, str>> {
    let digits = match claim {
        Some(Value::Number(number)) => whole(number).filter(|digits| digits != number.as_str()),
        Some(_) | None => None,
    };
    text(claim).into_iter().chain(digits.map(Into::into))
}

/// A claim as written in the file; some issuers number their users.
fn text(claim: Option<&Value>) -> Option<std::borrow::Cow<'_, str>> {
    match claim? {
        Value::String(text) => Some(text.into()),
        Value::Number(number) => Some(number.as_str().into()),
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
        revoked.subject("123456789012345678901".to_owned(), None);
        revoked.id("123456789012345678901".to_owned());
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
        assert!(has(json!({"sub": 7.0}), None));
        for (text, expected) in [
            ("123456789012345678901", true),
            ("123456789012345678902", false),
            ("123456789012345678901.0", true),
            ("1.23456789012345678901e20", true),
            ("70e-1", true),
        ] {
            for name in ["sub", "jti"] {
                let claims =
                    super::super::parse_object(format!("{{\"{name}\":{text}}}").as_bytes());
                let has = revoked.has(&Claims::new(claims.unwrap()), None);
                assert_eq!(
                    has,
                    expected && (name == "sub" || text.len() > 6),
                    "{name} {text}"
                );
            }
        }
        assert!(!has(json!({"sub": ["gone"], "jti": ["x"]}), None));
        assert!(!has(json!({}), None));
    }

    #[test]
    fn a_family_or_all_of_a_subject_ends_while_the_gateway_runs() {
        let live = LiveRevoked::default();
        let has = |claims: Value| live.has(&Claims::new(claims.as_object().unwrap().clone()));
        assert!(!has(json!({"sid": "f", "sub": "a", "auth_time": 1.5})));
        live.families([("f", 2000)].into_iter());
        assert!(has(json!({"sid": "f", "sub": "a", "auth_time": 1.5})));
        assert!(!has(json!({"sid": "g", "sub": "a", "auth_time": 1.5})));
        assert!(live.has_family("f") && !live.has_family("g"));
        live.subjects([("a", 1500), ("a", 1400)].into_iter());
        assert!(has(json!({"sid": "g", "sub": "a", "auth_time": 1.5})));
        assert!(has(json!({"sid": "g", "sub": "a"})));
        assert!(!has(json!({"sid": "g", "sub": "a", "auth_time": 1.501})));
        let whole = |ms: u64| has(json!({"sid": "g", "sub": "a", "auth_time": 1, "auth_ms": ms}));
        assert!(whole(0) && whole(500) && !whole(501));
        assert!(!has(json!({"sid": "g", "sub": "b", "auth_time": 1.0})));
        assert!(live.has_subject("a", 1500) && !live.has_subject("a", 1501));
        assert!(!live.has_subject("b", 0));
        live.forget(1501, 1500);
        assert!(has(json!({"sid": "g", "sub": "a", "auth_time": 1.5})));
        live.forget(1501, 1501);
        assert!(!has(json!({"sid": "g", "sub": "a", "auth_time": 1.5})));
        assert!(has(json!({"sid": "f"})));
        // Many names.
        let names: Vec<String> = (0..5000).map(|at| format!("s{at}")).collect();
        for name in &names {
            live.families([(name.as_str(), 3000)].into_iter());
        }
        assert!(names.iter().all(|name| has(json!({"sid": name}))));
        assert!(has(json!({"sid": "f"})) && !has(json!({"sid": "s5000"})));
        live.forget(3001, 0);
        assert!(!names.iter().any(|name| has(json!({"sid": name}))));
    }

    #[test]
    fn who_is_admitted_has_the_sessions_that_began_since() {
        let subjects = [("a".to_owned(), 0), ("b".to_owned(), 1500)];
        let admitted = Admitted::new(subjects.into_iter());
        let has =
            |claims: Value| admitted.admits(&Claims::new(claims.as_object().unwrap().clone()));
        assert!(has(json!({"sub": "a"})) && has(json!({"sub": "a", "auth_time": 0.001})));
        assert!(has(json!({"sub": "b", "auth_time": 1.5})));
        assert!(has(json!({"sub": "b", "auth_time": 1, "auth_ms": 500})));
        for refused in [
            json!({}),
            json!({"sub": "c", "auth_time": 9}),
            json!({"sub": ["a"]}),
            json!({"sub": "b"}),
            json!({"sub": "b", "auth_time": 1.499}),
            json!({"sub": "b", "auth_time": 1, "auth_ms": 499}),
            json!({"sub": "b", "auth_time": 1, "auth_ms": 1000}),
            json!({"sub": "b", "auth_time": 1, "auth_ms": -1}),
            json!({"sub": "b", "auth_time": -1}),
            json!({"sub": "b", "auth_time": 1e300}),
            json!({"sub": "b", "auth_time": "9"}),
        ] {
            assert!(!has(refused.clone()), "{refused}");
        }
    }
}
