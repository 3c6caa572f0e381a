//! How far each client of a rate limit is from its limit: a table of atomics that all workers share, without a lock and
//! of a fixed size. Which clients there are is not known here; they are hashes.
//!
//! The count is GCRA (ITU-T I.371): a client has one number, the moment at which it will have used up nothing any more.
//! Each request moves it by the time in which one request is earned, and is refused where that would lead further ahead
//! than the burst allows. So there is no window at whose edge twice the rate would pass.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Clients of one set.
const WAYS: usize = 8;

/// A rate and a burst, in nanoseconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Quota {
    /// The time in which one request is earned.
    interval: u64,
    /// The time in which the burst is earned.
    depth: u64,
}

impl Quota {
    /// The longest time in which a burst may be earned.
    pub(crate) const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);
    /// The shortest time in which one request may be earned: a million requests a second.
    pub(crate) const SHORTEST: Duration = Duration::from_micros(1);

    /// This many requests in this time, and a burst. `None` where the time for the burst or for one request is out of
    /// bounds.
    pub(crate) fn new(count: u32, per: Duration, burst: u32) -> Option<Self> {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).ok();
        // Rounded up: rather a billionth too strict than too lax.
        let interval = nanos(per)?.div_ceil(u64::from(count.max(1)));
        let depth = interval.checked_mul(u64::from(burst.max(1)))?;
        let fits = interval >= nanos(Self::SHORTEST)? && depth <= nanos(Self::LONGEST)?;
        fits.then_some(Self { interval, depth })
    }

    /// The seconds in which the whole burst is earned again, at least 1.
    pub(crate) fn window(self) -> u64 {
        seconds(self.depth).max(1)
    }
}

/// Whole seconds, rounded up.
fn seconds(nanos: u64) -> u64 {
    nanos.div_ceil(1_000_000_000)
}

/// Where a client stands after its request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Standing {
    /// How many more requests would pass now.
    pub(crate) left: u64,
    /// Seconds until the whole burst is there again.
    pub(crate) reset: u64,
    /// Seconds after which a request passes, at least 1; `None` where this one did.
    pub(crate) retry: Option<u64>,
}

/// The clients of one limit.
#[derive(Debug)]
pub(crate) struct Table {
    /// The key of the clients' hashes, so that nobody can choose whose place to take.
    pub(crate) key: [u8; 16],
    /// Times are counted from here.
    origin: Instant,
    /// The number of sets, a power of two.
    sets: usize,
    /// Made by the first request: a limit that nobody meets costs nothing.
    slots: OnceLock<Box<[Set]>>,
    /// How many clients gave way before they were at rest.
    evicted: AtomicU64,
}

/// Clients whose hashes lead to the same place. A hash of 0 is an empty slot.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Set {
    hashes: [AtomicU64; WAYS],
    /// The moment at which the client has used up nothing any more.
    times: [AtomicU64; WAYS],
}

impl Table {
    /// A table for at least this many clients at a time.
    pub(crate) fn new(clients: u32, key: [u8; 16], origin: Instant) -> Self {
        let clients = usize::try_from(clients).unwrap_or(usize::MAX);
        Self {
            key,
            origin,
            sets: clients.div_ceil(WAYS).next_power_of_two(),
            slots: OnceLock::new(),
            evicted: AtomicU64::new(0),
        }
    }

    /// A table of another size with the same clients; of those that no longer fit, the ones nearest to rest are lost.
    pub(crate) fn resized(&self, clients: u32) -> Self {
        let new = Self::new(clients, self.key, self.origin);
        for set in self.slots.get().into_iter().flatten() {
            for (hash, time) in set.hashes.iter().zip(&set.times) {
                let (hash, time) = (hash.load(Ordering::Relaxed), time.load(Ordering::Relaxed));
                if let (true, Some(set)) = (hash != 0, new.set(hash)) {
                    set.put(hash, time);
                }
            }
        }
        new
    }

    /// Whether it has room for as many clients as one for this many would have.
    pub(crate) fn has_size(&self, clients: u32) -> bool {
        Self::new(clients, self.key, self.origin).sets == self.sets
    }

    /// How many clients gave way before they were at rest.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Counts a request of this client, unless it is one too many.
    pub(crate) fn take(&self, hash: u64, quota: Quota, now: Instant) -> Standing {
        let (hash, now) = (hash.max(1), self.time(now));
        let Some(set) = self.set(hash) else {
            return quota.refused(now, now);
        };
        let at = loop {
            if let Some(at) = set.find(hash) {
                break at;
            }
            if let Some(was_in_debt) = set.claim(hash, now) {
                if was_in_debt {
                    self.evicted.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        let Some(time) = set.times.get(at) else {
            return quota.refused(now, now);
        };
        let mut known = time.load(Ordering::Relaxed);
        loop {
            let next = known.max(now).saturating_add(quota.interval);
            if next.saturating_sub(now) > quota.depth {
                return quota.refused(known, now);
            }
            match time.compare_exchange_weak(known, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return quota.passed(next, now),
                Err(other) => known = other,
            }
        }
    }

    /// Whether a request of this client would pass, without counting it.
    pub(crate) fn look(&self, hash: u64, quota: Quota, now: Instant) -> Standing {
        let (hash, now) = (hash.max(1), self.time(now));
        let time = self.set(hash).and_then(|set| {
            let at = set.find(hash)?;
            Some(set.times.get(at)?.load(Ordering::Relaxed))
        });
        let time = time.unwrap_or(now);
        if (time.max(now) - now).saturating_add(quota.interval) > quota.depth {
            quota.refused(time, now)
        } else {
            quota.passed(time, now)
        }
    }

    fn time(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.origin);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX / 2)
    }

    fn set(&self, hash: u64) -> Option<&Set> {
        let sets = self
            .slots
            .get_or_init(|| (0..self.sets).map(|_| Set::default()).collect());
        let at = usize::try_from(hash & (self.sets as u64 - 1)).ok()?;
        sets.get(at)
    }
}

impl Quota {
    fn passed(self, time: u64, now: u64) -> Standing {
        let debt = time.saturating_sub(now);
        Standing {
            left: self.depth.saturating_sub(debt) / self.interval,
            reset: seconds(debt),
            retry: None,
        }
    }

    fn refused(self, time: u64, now: u64) -> Standing {
        // A limit that became stricter by a reload takes no longer to be at rest than it says itself.
        let debt = time.saturating_sub(now).min(self.depth);
        let wait = (debt + self.interval).saturating_sub(self.depth);
        Standing {
            left: 0,
            reset: seconds(debt),
            retry: Some(seconds(wait).max(1)),
        }
    }
}

impl Set {
    fn find(&self, hash: u64) -> Option<usize> {
        self.hashes
            .iter()
            .position(|known| known.load(Ordering::Acquire) == hash)
    }

    /// Takes the place that is empty, or whose client is nearest to rest: who is far over the limit stays refused,
    /// however many others come. Returns whether that client was in debt; `None` where another worker was faster.
    fn claim(&self, hash: u64, now: u64) -> Option<bool> {
        let mut nearest: Option<(u64, u64, &AtomicU64, &AtomicU64)> = None;
        for (known, time) in self.hashes.iter().zip(&self.times) {
            let of = known.load(Ordering::Acquire);
            if of == hash {
                // Another worker has just put it there; two places would count apart.
                return None;
            }
            let at = time.load(Ordering::Relaxed);
            let rest = if of == 0 { 0 } else { at.max(1) };
            if nearest.is_none_or(|(known, ..)| rest < known) {
                nearest = Some((rest, of, known, time));
            }
        }
        let (rest, of, known, time) = nearest?;
        let taken = known.compare_exchange(of, hash, Ordering::AcqRel, Ordering::Relaxed);
        taken.ok()?;
        let was_in_debt = rest > now;
        if was_in_debt {
            time.store(now, Ordering::Relaxed);
        }
        Some(was_in_debt)
    }

    /// Puts a client that comes from another table, where there is room, or somebody nearer to rest.
    fn put(&self, hash: u64, time: u64) {
        let places = self.hashes.iter().zip(&self.times);
        let nearest = places.min_by_key(|(_, time)| time.load(Ordering::Relaxed));
        if let Some((known, at)) = nearest
            && at.load(Ordering::Relaxed) < time
        {
            known.store(hash, Ordering::Relaxed);
            at.store(time, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::hash::BuildHasher as _;
    use std::sync::Barrier;
    use std::sync::atomic::AtomicUsize;

    use proptest::prelude::*;

    use super::*;

    fn quota(count: u32, seconds: u64, burst: u32) -> Quota {
        Quota::new(count, Duration::from_secs(seconds), burst).unwrap()
    }

    /// A hash as good as SipHash's, for any number.
    fn hash(client: u64) -> u64 {
        foldhash::quality::FixedState::with_seed(7).hash_one(client)
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let start = Instant::now();
        let table = Table::new(8, [0; 16], start);
        let quota = quota(60, 60, 3);
        let at = |millis| start + Duration::from_millis(millis);
        for left in [2, 1, 0] {
            let standing = table.take(5, quota, at(0));
            assert_eq!((standing.left, standing.retry), (left, None));
        }
        let refused = Standing {
            left: 0,
            reset: 3,
            retry: Some(1),
        };
        assert_eq!(table.take(5, quota, at(0)), refused);
        // A refused request costs nothing more, however often it is sent.
        for _ in 0..100 {
            assert_eq!(table.take(5, quota, at(999)).retry, Some(1));
        }
        assert_eq!(table.take(5, quota, at(1000)).retry, None);
        assert_eq!(table.take(5, quota, at(1001)).retry, Some(1));
        // A look costs nothing at all.
        for _ in 0..10 {
            assert_eq!(table.look(5, quota, at(2100)).retry, None);
        }
        assert_eq!(table.take(5, quota, at(2100)).retry, None);
        assert_eq!(table.look(5, quota, at(2100)).retry, Some(1));
        assert_eq!(table.take(6, quota, at(2100)).left, 2, "somebody else");
    }

    #[test]
    fn who_waits_as_long_as_it_is_told_passes() {
        let start = Instant::now();
        let table = Table::new(8, [0; 16], start);
        let quota = quota(7, 3600, 2);
        let mut now = start;
        let mut passed = 0;
        for _ in 0..50 {
            match table.take(1, quota, now).retry {
                None => passed += 1,
                Some(retry) => {
                    now += Duration::from_secs(retry);
                    assert_eq!(table.look(1, quota, now).retry, None);
                }
            }
        }
        assert!(passed >= 25);
    }

    #[test]
    fn bounds_of_a_quota() {
        let day = Duration::from_secs(24 * 3600);
        assert!(Quota::new(1, day, 366).is_some());
        assert_eq!(Quota::new(1, day, 367), None);
        assert_eq!(Quota::new(1, day, u32::MAX), None);
        let second = Duration::from_secs(1);
        assert!(Quota::new(1_000_000, second, 1).is_some());
        assert_eq!(
            Quota::new(1_000_001, second, 1).map(|it| it.interval),
            Some(1000)
        );
        assert_eq!(Quota::new(2_000_000, second, 1), None);
        assert_eq!(quota(100, 60, 100).window(), 60);
        assert_eq!(quota(2000, 1, 10).window(), 1);
    }

    #[test]
    fn a_stricter_limit_takes_the_debt_over_but_no_longer_than_its_own() {
        let start = Instant::now();
        let table = Table::new(8, [0; 16], start);
        let slow = quota(10, 24 * 3600, 10);
        for _ in 0..10 {
            assert_eq!(table.take(1, slow, start).retry, None);
        }
        let fast = quota(10, 1, 10);
        assert_eq!(table.take(1, fast, start).retry, Some(1));
        assert_eq!(table.take(1, slow, start).retry, Some(8640));
    }

    #[test]
    fn the_count_is_exact_over_all_threads() {
        let start = Instant::now();
        let quota = quota(1000, 3600, 1000);
        for clients in [1, 3, 20] {
            let table = Table::new(1024, [0; 16], start);
            let passed: Vec<AtomicUsize> = (0..clients).map(|_| AtomicUsize::new(0)).collect();
            let barrier = Barrier::new(4);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        barrier.wait();
                        for _ in 0..600 {
                            for (client, passed) in passed.iter().enumerate() {
                                if table
                                    .take(hash(client as u64), quota, start)
                                    .retry
                                    .is_none()
                                {
                                    passed.fetch_add(1, Ordering::Relaxed);
                                }
                            }
                        }
                    });
                }
            });
            let passed: Vec<usize> = passed.iter().map(|it| it.load(Ordering::Relaxed)).collect();
            assert_eq!(passed, vec![1000; clients]);
        }
    }

    #[test]
    fn a_million_clients_take_no_more_memory_and_free_nobody_who_is_refused() {
        let start = Instant::now();
        let table = Table::new(65_536, [0; 16], start);
        let quota = quota(60, 60, 60);
        let guilty: Vec<u64> = (0..100).map(|client| hash(u64::MAX - client)).collect();
        for hash in &guilty {
            while table.take(*hash, quota, start).retry.is_none() {}
        }
        let mut now = start;
        for client in 0..1_000_000 {
            now += Duration::from_micros(5);
            assert_eq!(table.take(hash(client), quota, now).retry, None);
        }
        // After five seconds, five more have been earned by each, and not one more.
        for hash in &guilty {
            let passed = (0..10).filter(|_| table.take(*hash, quota, now).retry.is_none());
            assert_eq!(passed.count(), 5);
        }
        assert!(table.evicted() > 0);
        let sets = table.slots.get().unwrap();
        assert_eq!(sets.len() * size_of::<Set>(), 1 << 20);
    }

    #[test]
    fn another_size_keeps_those_who_are_refused() {
        let start = Instant::now();
        let table = Table::new(4096, [0; 16], start);
        let quota = quota(60, 60, 60);
        let guilty: Vec<u64> = (0..50).map(|client| hash(client + 1)).collect();
        for hash in &guilty {
            while table.take(*hash, quota, start).retry.is_none() {}
        }
        for clients in [65_536, 512] {
            assert!(!table.has_size(clients) && table.has_size(4096));
            let other = table.resized(clients);
            for hash in &guilty {
                assert!(other.take(*hash, quota, start).retry.is_some());
            }
        }
    }

    proptest! {
        /// Beside a naive oracle that counts in fractions of a request.
        #[test]
        fn any_requests_count_as_in_a_bucket(
            count in 1..50_u32, seconds in 1..100_u64, burst in 1..20_u32,
            requests in prop::collection::vec((0..3_u64, 0..5_000_u64), 1..200),
        ) {
            let start = Instant::now();
            let (table, quota) = (Table::new(64, [0; 16], start), quota(count, seconds, burst));
            // What each has used up, in nanoseconds, and when.
            let mut used: HashMap<u64, (u128, u64)> = HashMap::new();
            let mut now = 0_u64;
            for (client, pause) in requests {
                now += pause;
                let (debt, at) = used.get(&client).copied().unwrap_or_default();
                let debt = debt.saturating_sub(u128::from(now - at) * 1_000_000);
                let cost = u128::from(seconds * 1_000_000_000).div_ceil(u128::from(count));
                let passes = debt + cost <= cost * u128::from(burst);
                let debt = if passes { debt + cost } else { debt };
                used.insert(client, (debt, now));
                let standing = table.take(hash(client), quota, start + Duration::from_millis(now));
                prop_assert_eq!(standing.retry.is_none(), passes);
                prop_assert_eq!(u128::from(standing.reset), debt.div_ceil(1_000_000_000));
                if passes {
                    prop_assert_eq!(u128::from(standing.left), (cost * u128::from(burst) - debt) / cost);
                }
            }
        }
    }
}
