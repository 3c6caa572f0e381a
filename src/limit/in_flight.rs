//! How many requests of each client are in flight: a table of atomics that all workers share, without a lock and of a
//! fixed size. Which clients there are is not known here; they are hashes.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Clients of one set, which is one cache line.
const WAYS: usize = 8;
/// In how many sets a client may have its place, where the first ones are full.
const SETS: u32 = 4;
/// The bits of a slot that count; the others are the client's.
const COUNT: u64 = (1 << 20) - 1;

/// The requests in flight of one limit.
#[derive(Debug)]
pub(crate) struct Counts {
    /// The key of the clients' hashes.
    pub(crate) key: [u8; 16],
    /// The number of sets, a power of two.
    sets: usize,
    /// Made by the first request.
    slots: OnceLock<Box<[Set]>>,
    /// Whether a client ever had its place in another set than its first.
    overflowed: AtomicBool,
}

/// A slot is the upper bits of a client's hash and a count; it is free while the count is 0.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

/// The place of a request that is in flight.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    set: u32,
    way: u8,
}

/// A slot, its place, and what it held.
type Slot<'s> = (Place, &'s AtomicU64, u64);

/// What a client has in flight.
#[derive(Debug, Default)]
struct Found<'s> {
    count: u64,
    /// The first slot that is the client's.
    known: Option<Slot<'s>>,
    /// The first free slot.
    free: Option<Slot<'s>>,
}

impl Counts {
    /// Counts at least this many clients at a time.
    pub(crate) fn new(clients: usize, key: [u8; 16]) -> Self {
        Self {
            key,
            // Indices are made of the bits below those that tell clients apart.
            sets: clients.div_ceil(WAYS).next_power_of_two().min(1 << 20),
            slots: OnceLock::new(),
            overflowed: AtomicBool::new(false),
        }
    }

    /// Takes a place for a request of this client; `None` where it has `max` in flight, or where so many clients have
    /// requests in flight that this one cannot be counted.
    pub(crate) fn enter(&self, hash: u64, max: u32) -> Option<Place> {
        loop {
            let found = self.find(hash)?;
            if found.count >= u64::from(max) {
                return None;
            }
            let (place, slot, value) = found.known.or(found.free)?;
            let next = match found.known {
                Some(_) => value + 1,
                None => hash & !COUNT | 1,
            };
            let taken = slot.compare_exchange(value, next, Ordering::AcqRel, Ordering::Relaxed);
            if taken.is_err() {
                continue;
            }
            if usize::try_from(place.set).ok()? != self.index(hash, 0) {
                self.overflowed.store(true, Ordering::Relaxed);
            }
            // Two workers may have taken different free slots for the same client.
            if found.known.is_none() && self.find(hash)?.count > u64::from(max) {
                self.leave(place);
                continue;
            }
            return Some(place);
        }
    }

    /// What this client has in flight, and where it may have one more. `None` where there are no sets.
    fn find(&self, hash: u64) -> Option<Found<'_>> {
        let mut found = Found::default();
        for probe in 0..SETS {
            let index = self.index(hash, probe);
            let set = self.set(index)?;
            for (way, slot) in set.0.iter().enumerate() {
                let value = slot.load(Ordering::Acquire);
                let place = Place {
                    set: u32::try_from(index).ok()?,
                    way: u8::try_from(way).ok()?,
                };
                if value & COUNT == 0 {
                    found.free = found.free.or(Some((place, slot, value)));
                } else if value & !COUNT == hash & !COUNT {
                    found.count += value & COUNT;
                    found.known = found.known.or(Some((place, slot, value)));
                }
            }
            // Later sets are looked at only if somebody may be there.
            let enough = found.known.is_some() || found.free.is_some();
            if enough && !self.overflowed.load(Ordering::Relaxed) {
                break;
            }
        }
        Some(found)
    }

    /// Gives a place back.
    pub(crate) fn leave(&self, place: Place) {
        let set = usize::try_from(place.set).ok().and_then(|at| self.set(at));
        if let Some(slot) = set.and_then(|set| set.0.get(usize::from(place.way))) {
            slot.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many requests are in flight, of all clients.
    pub(crate) fn all(&self) -> u64 {
        let slots = self.slots.get().into_iter().flatten().flat_map(|it| &it.0);
        slots.map(|slot| slot.load(Ordering::Relaxed) & COUNT).sum()
    }

    fn index(&self, hash: u64, probe: u32) -> usize {
        let mask = self.sets as u64 - 1;
        usize::try_from(hash.rotate_right(probe * 20) & mask).unwrap_or_default()
    }

    fn set(&self, index: usize) -> Option<&Set> {
        let sets = self
            .slots
            .get_or_init(|| (0..self.sets).map(|_| Set::default()).collect());
        sets.get(index)
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher as _;
    use std::sync::Barrier;

    use super::*;

    fn hash(client: u64) -> u64 {
        foldhash::quality::FixedState::with_seed(3).hash_one(client)
    }

    #[test]
    fn each_client_has_its_own_places() {
        let counts = Counts::new(64, [0; 16]);
        let (one, two) = (hash(1), hash(2));
        let first = counts.enter(one, 2).unwrap();
        let second = counts.enter(one, 2).unwrap();
        assert_eq!(counts.enter(one, 2), None);
        let third = counts.enter(two, 2).unwrap();
        counts.leave(first);
        let fourth = counts.enter(one, 2).unwrap();
        assert_eq!(counts.enter(one, 2), None);
        assert!(counts.enter(one, 3).is_some(), "a larger limit");
        for place in [second, third, fourth] {
            counts.leave(place);
        }
        assert_eq!(counts.all(), 1);
    }

    #[test]
    fn clients_that_find_no_place_are_refused_and_nobody_is_lost() {
        let counts = Counts::new(8, [0; 16]);
        let places: Vec<Place> = (0..8)
            .map(|client| counts.enter(hash(client), 5).unwrap())
            .collect();
        assert_eq!(counts.enter(hash(8), 5), None);
        assert!(counts.enter(hash(3), 2).is_some());
        assert_eq!(counts.enter(hash(3), 2), None);
        places.into_iter().for_each(|place| counts.leave(place));
        assert!(counts.enter(hash(8), 5).is_some());
        assert_eq!(counts.all(), 2);
    }

    #[test]
    fn a_client_in_another_set_is_counted_where_it_is() {
        let counts = Counts::new(4096, [0; 16]);
        // Nine clients whose hashes lead to the same first set.
        let same = |client: &u64| counts.index(hash(*client), 0) == 7;
        let clients: Vec<u64> = (0..).filter(same).take(9).map(hash).collect();
        let places: Vec<Place> = clients
            .iter()
            .filter_map(|it| counts.enter(*it, 2))
            .collect();
        assert_eq!(places.len(), 9);
        // Room in the first set, again: the ninth has one elsewhere, and still only two.
        counts.leave(places[0]);
        let ninth = clients[8];
        assert!(counts.enter(ninth, 2).is_some());
        assert_eq!(counts.enter(ninth, 2), None);
    }

    #[test]
    fn never_more_than_the_limit_over_all_threads() {
        let counts = Counts::new(64, [0; 16]);
        let (most, now) = (AtomicU64::new(0), AtomicU64::new(0));
        let barrier = Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    barrier.wait();
                    for _ in 0..20_000 {
                        if let Some(place) = counts.enter(hash(1), 3) {
                            let open = now.fetch_add(1, Ordering::SeqCst) + 1;
                            most.fetch_max(open, Ordering::SeqCst);
                            now.fetch_sub(1, Ordering::SeqCst);
                            counts.leave(place);
                        }
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.into_inner()));
        assert_eq!(counts.all(), 0);
    }
}
