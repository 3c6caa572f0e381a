//! `Remembered`: tokens whose signature and claims were found right, so that they need not be
//! verified anew. Dates are not believed from here; whoever asks checks them again.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::verify::{Verified, VerifierId};

/// How many verifiers may remember the same token; those of replaced configurations fall out.
const MAX_VERIFIERS: usize = 8;

/// Valid tokens of one worker, bounded in bytes.
///
/// Each worker has its own, so the lock is never waited for. A token is found only by all its
/// bytes and by the verifier that found it right; a new configuration has new verifiers, so what
/// was remembered for the old ones is never found again.
pub(crate) struct Remembered {
    generations: Mutex<Generations>,
}

struct Generations {
    /// What one generation may weigh, in bytes.
    bytes: usize,
    /// What the young one weighs.
    weight: usize,
    /// What was remembered or found since the last change of generations.
    young: HashMap<Box<str>, Entry>,
    /// What was before; it is dropped with the next change.
    old: HashMap<Box<str>, Entry>,
}

struct Entry {
    weight: usize,
    verified: Vec<(VerifierId, Arc<Verified>)>,
}

impl fmt::Debug for Remembered {
    /// Tokens are never shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Remembered")
    }
}

impl Remembered {
    /// Remembers up to about so many bytes of tokens and claims; 0 remembers nothing.
    pub(crate) fn new(bytes: usize) -> Self {
        let generations = Generations {
            bytes: bytes / 2,
            weight: 0,
            young: HashMap::new(),
            old: HashMap::new(),
        };
        Self {
            generations: Mutex::new(generations),
        }
    }

    /// What was remembered of the token for a verifier that the caller accepts, together with
    /// what it found.
    pub(crate) fn find(
        &self,
        token: &str,
        accepts: impl Fn(VerifierId, &Verified) -> bool,
    ) -> Option<Arc<Verified>> {
        let mut generations = self
            .generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = generations.young.get(token) {
            return entry.find(accepts);
        }
        let found = generations.old.get(token)?.find(accepts)?;
        // It is in use: it moves to the young, and outlives the next change.
        if let Some((token, entry)) = generations.old.remove_entry(token) {
            generations.insert(token, entry);
        }
        Some(found)
    }

    /// Remembers that the verifier found the token right.
    pub(crate) fn insert(&self, token: &str, verifier: VerifierId, verified: Arc<Verified>) {
        let mut generations = self
            .generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let weight = token.len() + verified.claims().weight() + size_of::<Entry>() + 128;
        if weight > generations.bytes {
            return;
        }
        let generations = &mut *generations;
        if let Some(entry) = generations.young.get_mut(token)
            && generations.weight + weight <= generations.bytes
        {
            entry.verified.retain(|(known, _)| *known != verifier);
            if entry.verified.len() == MAX_VERIFIERS {
                entry.verified.remove(0);
            }
            // What fell out stays counted, which drops the generation earlier, never later.
            entry.weight += weight;
            generations.weight += weight;
            entry.verified.push((verifier, verified));
        } else {
            let entry = Entry {
                weight,
                verified: vec![(verifier, verified)],
            };
            generations.insert(token.into(), entry);
        }
    }
}

impl Generations {
    fn insert(&mut self, token: Box<str>, entry: Entry) {
        if self.weight + entry.weight > self.bytes {
            self.old = std::mem::take(&mut self.young);
            self.weight = 0;
        }
        self.weight += entry.weight;
        self.young.insert(token, entry);
    }
}

impl Entry {
    fn find(&self, accepts: impl Fn(VerifierId, &Verified) -> bool) -> Option<Arc<Verified>> {
        let (_, verified) = self
            .verified
            .iter()
            .find(|(id, verified)| accepts(*id, verified))?;
        Some(Arc::clone(verified))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verified() -> Arc<Verified> {
        Arc::new(Verified::default())
    }

    fn knows(remembered: &Remembered, token: &str, verifier: VerifierId) -> bool {
        remembered.find(token, |id, _| id == verifier).is_some()
    }

    #[test]
    fn a_token_is_found_by_all_its_bytes_and_its_verifier() {
        let remembered = Remembered::new(1 << 20);
        let (one, other) = (VerifierId::fresh(), VerifierId::fresh());
        remembered.insert("a.b.c", one, verified());
        assert!(knows(&remembered, "a.b.c", one));
        assert!(!knows(&remembered, "a.b.c", other));
        assert!(!knows(&remembered, "a.b.d", one));
        assert!(!knows(&remembered, "a.b.", one));
        remembered.insert("a.b.c", other, verified());
        assert!(knows(&remembered, "a.b.c", one));
        assert!(knows(&remembered, "a.b.c", other));
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let remembered = Remembered::new(100_000);
        let verifier = VerifierId::fresh();
        remembered.insert("used", verifier, verified());
        for at in 0..10_000 {
            remembered.insert(&format!("token {at}"), verifier, verified());
            assert!(knows(&remembered, "used", verifier));
        }
        assert!(knows(&remembered, "token 9999", verifier));
        assert!(!knows(&remembered, "token 0", verifier));
        let generations = remembered.generations.lock().unwrap();
        let weight: usize = generations
            .young
            .values()
            .chain(generations.old.values())
            .map(|e| e.weight)
            .sum();
        assert!(weight <= 100_000, "{weight}");
    }

    #[test]
    fn many_verifiers_of_one_token_are_bounded() {
        let remembered = Remembered::new(1 << 20);
        for _ in 0..10_000 {
            remembered.insert("a", VerifierId::fresh(), verified());
        }
        let last = VerifierId::fresh();
        remembered.insert("a", last, verified());
        assert!(knows(&remembered, "a", last));
        let generations = remembered.generations.lock().unwrap();
        assert!(
            generations
                .young
                .values()
                .all(|entry| entry.verified.len() <= MAX_VERIFIERS)
        );
    }

    #[test]
    fn nothing_is_remembered_where_there_is_no_room() {
        let remembered = Remembered::new(0);
        let verifier = VerifierId::fresh();
        remembered.insert("a", verifier, verified());
        assert!(!knows(&remembered, "a", verifier));
    }
}
