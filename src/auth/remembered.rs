//! `Remembered`: a cache of verified tokens, so that signature and claims need not be verified again. Dates and
//! revocations are not cached; the caller checks them each time. Pairs of name and password are cached, too, for a short
//! time.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use quick_cache::unsync::Cache;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

use super::jws::Header;
use super::verify::{Stamp, Verified};
use crate::observe::counts::{Count, Words};

/// How many verifiers may cache the same token; those of replaced configurations are evicted.
const MAX_VERIFIERS: usize = 8;
/// How many headers are cached, and how long one may be.
const MAX_HEADERS: usize = 8;
const MAX_HEADER: usize = 512;
/// The size of an ordinary token in the cache, in bytes; only an estimate of how many there will be.
const ORDINARY: usize = 3000;

/// How long a good pair of name and password need not be hashed again.
const PAIR_LIFE: Duration = Duration::from_secs(300);
/// How many of them are cached.
const MAX_PAIRS: usize = 1024;

/// What a pair of name and password is found by: a keyed hash of it.
pub(crate) type PairTag = [u8; 32];

/// Valid tokens of one worker, bounded in bytes.
///
/// Each worker has its own, so the lock is never contended. A token is found only by all its bytes, and by the
/// verifier that accepted it with keys that are still valid: a new configuration has new verifiers, so entries of the
/// old ones are never found again.
///
/// A token that was used once is in a probation queue, and is evicted before tokens that are used often: a flood of
/// new tokens does not evict the ones in use.
pub(crate) struct Remembered {
    tokens: Mutex<Option<Tokens>>,
    headers: Mutex<Headers>,
    /// Until when each pair is good, and whose it is.
    pairs: Mutex<HashMap<PairTag, (SystemTime, Arc<Verified>)>>,
    evictions: Arc<AtomicU64>,
    /// The worker's index.
    pub(super) worker: usize,
    /// Tokens that were refused before a verifier was chosen, by reason.
    pub(super) unchosen: Words,
    /// How many tokens are cached.
    held: Count,
}

/// The parsed headers of the last valid tokens. Those of one issuer are mostly the same.
#[derive(Default)]
struct Headers {
    known: Vec<(Box<str>, Arc<Header>)>,
    /// Which one is replaced next.
    next: usize,
}

struct Tokens {
    cache: Cache<Box<[u8]>, Entry, Bytes, foldhash::quality::RandomState, CountEvictions>,
    hits: u64,
    misses: u64,
}

/// The results for one token, by each verifier that accepted it.
struct Entry(Vec<(Stamp, Arc<Verified>)>);

/// How many lookups were hits and misses, and how many tokens were evicted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Counts {
    /// Tokens that need not be verified again.
    pub(crate) hits: u64,
    /// Tokens that had to be verified.
    pub(crate) misses: u64,
    /// Tokens that were evicted for others.
    pub(crate) evictions: u64,
}

impl fmt::Debug for Remembered {
    /// Tokens are never printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Remembered")
    }
}

impl Remembered {
    /// Caches up to about this many bytes of tokens and claims; 0 disables the cache.
    pub(crate) fn new(bytes: usize) -> Self {
        let evictions = Arc::new(AtomicU64::new(0));
        let options = OptionsBuilder::new()
            .estimated_items_capacity(bytes / ORDINARY)
            .weight_capacity(bytes as u64)
            .build();
        let tokens = options.ok().filter(|_| bytes > 0).map(|options| Tokens {
            cache: Cache::with_options(
                options,
                Bytes,
                foldhash::quality::RandomState::default(),
                CountEvictions(Arc::clone(&evictions)),
            ),
            hits: 0,
            misses: 0,
        });
        Self {
            tokens: Mutex::new(tokens),
            headers: Mutex::default(),
            pairs: Mutex::default(),
            evictions,
            worker: 0,
            unchosen: Words::default(),
            held: Count::default(),
        }
    }

    /// The same, of the worker of this index.
    pub(crate) fn of_worker(self, worker: usize) -> Self {
        Self { worker, ..self }
    }

    /// Tokens that were refused before a verifier was chosen, by reason.
    pub(crate) fn unchosen(&self) -> &Words {
        &self.unchosen
    }

    /// A header that was parsed before, by its part of a token.
    pub(crate) fn header(&self, part: &str) -> Option<Arc<Header>> {
        let headers = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = headers.known.iter().find(|(known, _)| **known == *part);
        known.map(|(_, header)| Arc::clone(header))
    }

    /// Caches the header of a valid token.
    pub(crate) fn keep_header(&self, part: &str, header: &Arc<Header>) {
        let mut headers = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        let headers = &mut *headers;
        if part.len() > MAX_HEADER || headers.known.iter().any(|(known, _)| **known == *part) {
            return;
        }
        let entry = (part.into(), Arc::clone(header));
        if headers.known.len() < MAX_HEADERS {
            headers.known.push(entry);
        } else if let Some(oldest) = headers.known.get_mut(headers.next) {
            *oldest = entry;
            headers.next = (headers.next + 1) % MAX_HEADERS;
        }
    }

    /// The cached result for the token of a verifier that the caller accepts, together with the caller's own value.
    pub(crate) fn find(
        &self,
        token: &[u8],
        accepts: impl Fn(Stamp, &Verified) -> bool,
    ) -> Option<Arc<Verified>> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let tokens = tokens.as_mut()?;
        let found = tokens.cache.get(token).and_then(|entry| {
            let of = |(stamp, verified): &&(Stamp, Arc<Verified>)| accepts(*stamp, verified);
            entry.0.iter().find(of)
        });
        if let Some((_, verified)) = found {
            tokens.hits += 1;
            return Some(Arc::clone(verified));
        }
        tokens.misses += 1;
        None
    }

    /// Caches that the verifier accepted the token.
    pub(crate) fn insert(&self, token: &[u8], stamp: Stamp, verified: Arc<Verified>) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Tokens { cache, .. }) = tokens.as_mut() else {
            return;
        };
        if let Some(mut entry) = cache.get_mut(token) {
            let known = &mut entry.0;
            known.retain(|(other, _)| !other.is_replaced_by(stamp));
            if known.len() == MAX_VERIFIERS {
                known.remove(0);
            }
            known.push((stamp, verified));
            return;
        }
        cache.insert(token.into(), Entry(vec![(stamp, verified)]));
        self.held.set(cache.len() as u64);
    }

    /// Whose a pair of name and password is, if it was good a short time ago.
    pub(crate) fn pair(&self, tag: &PairTag, now: SystemTime) -> Option<Arc<Verified>> {
        let pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, verified) = pairs.get(tag)?;
        is_young(*until, now).then(|| Arc::clone(verified))
    }

    /// Caches a pair that is good. All of them are forgotten where there are too many: they are hashed again.
    pub(crate) fn keep_pair(&self, tag: PairTag, verified: &Arc<Verified>, now: SystemTime) {
        let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        if pairs.len() >= MAX_PAIRS {
            pairs.retain(|_, (until, _)| is_young(*until, now));
        }
        if pairs.len() >= MAX_PAIRS {
            pairs.clear();
        }
        if let Some(until) = now.checked_add(PAIR_LIFE) {
            pairs.insert(tag, (until, Arc::clone(verified)));
        }
    }

    /// How many lookups were hits and misses, and how many tokens were evicted.
    pub(crate) fn counts(&self) -> Counts {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let (hits, misses) = tokens
            .as_ref()
            .map_or((0, 0), |tokens| (tokens.hits, tokens.misses));
        Counts {
            hits,
            misses,
            evictions: self.evictions.load(Ordering::Relaxed),
        }
    }

    /// How many tokens are cached, and how many were evicted, without a lock.
    pub(crate) fn held(&self) -> (u64, u64) {
        (self.held.get(), self.evictions.load(Ordering::Relaxed))
    }
}

/// Whether a pair that is good until then is good now; a clock that was set back makes none last longer.
fn is_young(until: SystemTime, now: SystemTime) -> bool {
    until
        .duration_since(now)
        .is_ok_and(|left| !left.is_zero() && left <= PAIR_LIFE)
}

/// The size of a token and its results, in bytes.
#[derive(Clone)]
struct Bytes;

impl Weighter<Box<[u8]>, Entry> for Bytes {
    fn weight(&self, token: &Box<[u8]>, entry: &Entry) -> u64 {
        // The entries in the tables that refer to it.
        const TABLES: usize = 96;
        let known = entry.0.iter().map(|(_, verified)| {
            size_of::<Verified>() + size_of::<(Stamp, Arc<Verified>)>() + verified.claims().weight()
        });
        let bytes = token.len() + size_of::<Entry>() + TABLES + known.sum::<usize>();
        bytes as u64
    }
}

#[derive(Clone)]
struct CountEvictions(Arc<AtomicU64>);

impl Lifecycle<Box<[u8]>, Entry> for CountEvictions {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _: Box<[u8]>, _: Entry) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verified() -> Arc<Verified> {
        Arc::new(Verified::default())
    }

    fn knows(remembered: &Remembered, token: &str, verifier: Stamp) -> bool {
        remembered
            .find(token.as_bytes(), |id, _| id == verifier)
            .is_some()
    }

    #[test]
    fn a_token_is_found_by_all_its_bytes_and_its_verifier() {
        let remembered = Remembered::new(1 << 20);
        let (one, other) = (Stamp::fresh(), Stamp::fresh());
        remembered.insert(b"a.b.c", one, verified());
        assert!(knows(&remembered, "a.b.c", one));
        assert!(!knows(&remembered, "a.b.c", other));
        assert!(!knows(&remembered, "a.b.d", one));
        assert!(!knows(&remembered, "a.b.", one));
        remembered.insert(b"a.b.c", other, verified());
        assert!(knows(&remembered, "a.b.c", one));
        assert!(knows(&remembered, "a.b.c", other));
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let remembered = Remembered::new(100_000);
        let verifier = Stamp::fresh();
        remembered.insert(b"used", verifier, verified());
        for at in 0..10_000 {
            remembered.insert(format!("token {at}").as_bytes(), verifier, verified());
            assert!(knows(&remembered, "used", verifier));
        }
        assert!(knows(&remembered, "token 9999", verifier));
        let kept = (0..10_000).filter(|at| knows(&remembered, &format!("token {at}"), verifier));
        assert!(kept.count() < 500);
        let weight = |tokens: &Tokens| tokens.cache.weight();
        let tokens = remembered.tokens.lock().unwrap();
        assert!(tokens.as_ref().is_some_and(|it| weight(it) <= 100_000));
    }

    #[test]
    fn many_verifiers_of_one_token_are_bounded() {
        let remembered = Remembered::new(1 << 20);
        for _ in 0..10_000 {
            remembered.insert(b"a", Stamp::fresh(), verified());
        }
        let last = Stamp::fresh();
        remembered.insert(b"a", last, verified());
        assert!(knows(&remembered, "a", last));
        let tokens = remembered.tokens.lock().unwrap();
        let cache = &tokens.as_ref().unwrap().cache;
        assert!(
            cache
                .iter()
                .all(|(_, entry)| entry.0.len() <= MAX_VERIFIERS)
        );
    }

    #[test]
    fn a_flood_of_tokens_that_come_once_passes_by_those_in_use() {
        let remembered = Remembered::new(1 << 20);
        let verifier = Stamp::fresh();
        let used: Vec<String> = (0..100).map(|at| format!("used {at}")).collect();
        for token in &used {
            remembered.insert(token.as_bytes(), verifier, verified());
            assert!(knows(&remembered, token, verifier));
        }
        let before = remembered.counts();
        assert_eq!(before.hits, 100);
        // Each token in use is looked up once while two thousand others are.
        for at in 0..200_000 {
            remembered.insert(format!("flood {at}").as_bytes(), verifier, verified());
            if at % 20 == 0 {
                assert!(knows(&remembered, &used[at / 20 % 100], verifier), "{at}");
            }
        }
        let after = remembered.counts();
        assert_eq!(after.hits - before.hits, 10_000);
        assert_eq!(after.misses, before.misses);
        assert!(after.evictions > 150_000, "{after:?}");
    }

    #[test]
    fn headers_are_few_and_found_by_all_their_bytes() {
        let remembered = Remembered::new(0);
        let headers: Vec<String> = (0..20)
            .map(|at| super::super::testing::encode(format!(r#"{{"alg":"HS256","kid":"{at}"}}"#)))
            .collect();
        for header in &headers {
            let token = format!("{header}.e30.AA");
            let jws = super::super::jws::Jws::parse(&token).unwrap();
            assert_eq!(jws.header_part(), header);
            for _ in 0..2 {
                remembered.keep_header(jws.header_part(), &jws.header);
            }
            let known = remembered.header(header).unwrap();
            assert!(Arc::ptr_eq(&known, &jws.header));
            assert!(remembered.header(header.split_at(1).1).is_none());
        }
        let kept = headers.iter().filter(|it| remembered.header(it).is_some());
        assert_eq!(kept.count(), MAX_HEADERS);
    }

    #[test]
    fn newer_keys_of_a_verifier_take_the_place_of_older_ones() {
        let remembered = Remembered::new(1 << 20);
        let (older, newer) = Stamp::two_states();
        remembered.insert(b"a", older, verified());
        remembered.insert(b"a", newer, verified());
        assert!(knows(&remembered, "a", newer));
        assert!(!knows(&remembered, "a", older));
    }

    #[test]
    fn nothing_is_remembered_where_there_is_no_room() {
        let remembered = Remembered::new(0);
        let verifier = Stamp::fresh();
        remembered.insert(b"a", verifier, verified());
        assert!(!knows(&remembered, "a", verifier));
    }
}
