//! Which of several servers a request goes to: weights dealt smoothly, the least busy one, the less busy of two. Pure: it
//! knows indices, weights and counts, neither servers nor time.

#[cfg(test)]
mod tests;

use std::fmt::{Display, Formatter};
use std::time::Duration;

/// How a server is chosen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Balance {
    /// In turn, each as often as its weight says.
    RoundRobin,
    /// The one with the fewest requests in flight for its weight.
    LeastRequests,
    /// The less busy of two drawn by weight.
    RandomTwo,
}

impl Display for Balance {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::RoundRobin => "round_robin",
            Self::LeastRequests => "least_requests",
            Self::RandomTwo => "random_two",
        })
    }
}

impl Balance {
    /// Whether requests in flight must be counted.
    pub(super) fn counts(self) -> bool {
        match self {
            Self::RoundRobin => false,
            Self::LeastRequests | Self::RandomTwo => true,
        }
    }
}

/// Up to this many servers, `least_requests` looks at all of them.
const ALL: usize = 32;
/// Beyond that, it looks at this many drawn at random.
const DRAWN: usize = 8;

/// The servers that may be chosen, and the order in which their turns come.
#[derive(Debug, Default)]
pub(super) struct Deal {
    /// Their indices with their weights, which are not 0.
    servers: Vec<(usize, u32)>,
    /// One round: positions in `servers`, each as often as its weight says.
    round: Vec<u32>,
    /// The next turn in `round`.
    next: usize,
}

impl Deal {
    /// Deals these servers, given as indices and weights; those of weight 0 get no turn. The first turn is that of worker
    /// `which` of `workers`, so that workers begin at different servers.
    pub(super) fn new(
        servers: impl IntoIterator<Item = (usize, u32)>,
        (which, workers): (usize, usize),
    ) -> Self {
        let servers: Vec<_> = servers.into_iter().filter(|(_, it)| *it > 0).collect();
        let weights: Vec<u32> = servers.iter().map(|(_, weight)| *weight).collect();
        let round = round(&weights);
        let next = (round.len() * which).checked_div(workers).unwrap_or(0);
        Self {
            servers,
            round,
            next,
        }
    }

    /// The index of the server for the next request, among those that `may` accepts; `None` if there is none. `load` is
    /// the number of requests in flight at the server of an index.
    pub(super) fn pick(
        &mut self,
        balance: Balance,
        dice: &mut Dice,
        load: impl Fn(usize) -> usize,
        may: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let first = self.turn(&may)?;
        let (index, _) = *self.servers.get(first)?;
        match balance {
            Balance::RoundRobin => Some(index),
            Balance::LeastRequests if self.servers.len() <= ALL => {
                let (before, from) = self.servers.split_at_checked(first)?;
                let all = from.iter().chain(before).copied();
                least(all.filter(|(index, _)| may(*index)), load)
            }
            Balance::LeastRequests => {
                let drawn = (0..DRAWN).filter_map(|_| self.draw(dice));
                let drawn = drawn.chain(self.servers.get(first).copied());
                least(drawn.filter(|(index, _)| may(*index)), load)
            }
            Balance::RandomTwo => {
                let mut two = [self.servers.get(first).copied(), None];
                let mut held = 0;
                // Drawn by weight, the second until it is another one; where that does not come about, one is enough.
                for _ in 0..DRAWN {
                    let drawn = self.draw_by_weight(dice).filter(|(index, _)| may(*index));
                    match (held, drawn) {
                        (_, None) => {}
                        (0, drawn) => {
                            two = [drawn, None];
                            held = 1;
                        }
                        (_, drawn) if two[0] == drawn => {}
                        (_, drawn) => {
                            two[1] = drawn;
                            break;
                        }
                    }
                }
                least(two.into_iter().flatten(), load)
            }
        }
    }

    /// The index of the server that this key belongs to, among those that `may` accepts: weighted rendezvous, so that a
    /// server that leaves gives up its own keys alone, and one that joins takes its share of all. `names` are the hashes
    /// of the servers' names by index; neither their order nor who else is there decides.
    pub(super) fn belongs(
        &self,
        key: u64,
        names: &[u64],
        may: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let of = |(index, weight): &(usize, u32)| {
            let name = *names.get(*index)?;
            // One draw for each point of weight: the highest of all wins.
            let draws = (0..u64::from(*weight)).map(|nth| draw(key, name, nth));
            Some((draws.max()?, name, *index))
        };
        let servers = self.servers.iter().filter(|(index, _)| may(*index));
        servers.filter_map(of).max().map(|(.., index)| index)
    }

    /// The indices of all servers that get turns.
    pub(super) fn all(&self) -> impl Iterator<Item = usize> {
        self.servers.iter().map(|(index, _)| *index)
    }

    /// The position of the server whose turn it is, of those that `may` accepts.
    fn turn(&mut self, may: &impl Fn(usize) -> bool) -> Option<usize> {
        for _ in 0..self.round.len() {
            let at = usize::try_from(*self.round.get(self.next)?).ok()?;
            self.next += 1;
            if self.next == self.round.len() {
                self.next = 0;
            }
            if self.servers.get(at).is_some_and(|(index, _)| may(*index)) {
                return Some(at);
            }
        }
        None
    }

    fn draw(&self, dice: &mut Dice) -> Option<(usize, u32)> {
        self.servers.get(dice.below(self.servers.len())).copied()
    }

    fn draw_by_weight(&self, dice: &mut Dice) -> Option<(usize, u32)> {
        let at = self.round.get(dice.below(self.round.len()))?;
        self.servers.get(usize::try_from(*at).ok()?).copied()
    }
}

/// The first of those with the fewest requests for their weight.
fn least(
    servers: impl Iterator<Item = (usize, u32)>,
    load: impl Fn(usize) -> usize,
) -> Option<usize> {
    let mut best: Option<(usize, u128, u32)> = None;
    for (index, weight) in servers {
        let load = load(index) as u128;
        let is_less =
            best.is_none_or(|(_, least, of)| load * u128::from(of) < least * u128::from(weight));
        if is_less {
            best = Some((index, load, weight));
        }
    }
    best.map(|(index, ..)| index)
}

/// One round: each position of `weights` as often as its weight says, spread evenly. Of weight w, the turns are due at
/// 1/2w, 3/2w, 5/2w and so on of the round; 2:1:1 is a b c a.
fn round(weights: &[u32]) -> Vec<u32> {
    let by = weights.iter().copied().fold(0, greatest_common_divisor);
    let mut turns = Vec::new();
    for (at, weight) in (0_u32..).zip(weights) {
        let weight = weight.checked_div(by).unwrap_or(0);
        turns.extend((0..weight).map(|nth| (2 * nth + 1, weight, at)));
    }
    // Each weight is at most 256: the products are exact.
    turns.sort_by_key(|(due, of, at)| (Due(u64::from(*due), u64::from(*of)), *at));
    turns.into_iter().map(|(_, _, at)| at).collect()
}

/// A fraction.
struct Due(u64, u64);

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0 * other.1).cmp(&(other.0 * self.1))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Eq for Due {}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

fn greatest_common_divisor(one: u32, other: u32) -> u32 {
    let (mut one, mut other) = (one, other);
    while other > 0 {
        (one, other) = (other, one % other);
    }
    one
}

/// In how many steps a server that comes back gets its whole weight.
pub(super) const STEPS: u32 = 10;

/// The step, from 1 to [`STEPS`], of a server that came back so long ago, and after how long the next one is.
pub(super) fn step(since: Duration, slow_start: Duration) -> (u32, Option<Duration>) {
    let every = slow_start / STEPS;
    if since >= slow_start || every.is_zero() {
        return (STEPS, None);
    }
    let step = (1..STEPS).find(|step| since < every * *step);
    let step = step.unwrap_or(STEPS);
    (step, Some((every * step).saturating_sub(since)))
}

/// The hash of a value, or of a server's name: the same everywhere and for ever.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// What a server draws for a key.
fn draw(key: u64, name: u64, nth: u64) -> u64 {
    let mut pair = [0; 24];
    for (to, from) in pair.chunks_exact_mut(8).zip([key, name, nth]) {
        to.copy_from_slice(&from.to_le_bytes());
    }
    hash(&pair)
}

/// Numbers that look random; enough to spread load, not to keep a secret (SplitMix64).
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    /// Starts with a seed.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `count`; 0 if that is 0.
    pub(super) fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let scaled = (u128::from(mixed) * count as u128) >> 64;
        usize::try_from(scaled).unwrap_or(0)
    }
}
