//! Numbers about what the gateway does. Each worker counts in a lane of its own, with a load and a store: no locked
//! instruction, no lock, no cache line that cores share, and no name that is looked up. `admin` sums the lanes when
//! somebody asks; what the numbers are called is said there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// The upper bounds of the buckets of a histogram, in nanoseconds.
pub(crate) const BOUNDS: [u64; 14] = [
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
];

/// What becomes of requests: the classes of status codes, and those whose clients left before a response.
pub(crate) const CODES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "client_gone"];

/// The status of a request whose client left before a response.
const CLIENT_GONE: u16 = 499;

/// A number that one thread writes, and any may read.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// Adds, wrapping around. Only one thread may call this, so that no update is lost between load and store.
    pub(crate) fn add(&self, more: u64) {
        let sum = self.0.load(Ordering::Relaxed).wrapping_add(more);
        self.0.store(sum, Ordering::Relaxed);
    }

    /// Adds one. Only one thread may call this.
    pub(crate) fn one(&self) {
        self.add(1);
    }

    /// Takes one off. Only one thread may call this.
    pub(crate) fn less(&self) {
        self.add(u64::MAX);
    }

    /// Sets a gauge. Only one thread may call this.
    pub(crate) fn set(&self, to: u64) {
        self.0.store(to, Ordering::Relaxed);
    }

    /// The number.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Numbers by words of the program's own. Only one thread may count; the list grows with the first of each word.
#[derive(Debug, Default)]
pub(crate) struct Words(OnceLock<Box<Word>>);

#[derive(Debug)]
struct Word {
    word: &'static str,
    count: Count,
    next: Words,
}

impl Words {
    /// Counts one of this word.
    pub(crate) fn count(&self, word: &'static str) {
        let mut at = self;
        loop {
            let known = at.0.get_or_init(|| {
                Box::new(Word {
                    word,
                    count: Count::default(),
                    next: Self::default(),
                })
            });
            if known.word == word {
                return known.count.one();
            }
            at = &known.next;
        }
    }

    /// Each word with its number, in no order.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let mut next = self.0.get();
        std::iter::from_fn(move || {
            let word = next?;
            next = word.next.0.get();
            Some((word.word, word.count.get()))
        })
    }
}

/// A histogram of durations.
#[derive(Debug, Default)]
pub(crate) struct Durations {
    buckets: [Count; BOUNDS.len() + 1],
    nanoseconds: Count,
}

/// The sum of histograms.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Histogram {
    /// How many durations are within each bound and beyond the one before; the last are beyond all.
    pub(crate) buckets: [u64; BOUNDS.len() + 1],
    /// The sum of the durations, in seconds.
    pub(crate) sum: f64,
}

impl Durations {
    /// Counts one. Only one thread may call this.
    pub(crate) fn count(&self, duration: Duration) {
        let seconds = duration.as_secs().wrapping_mul(1_000_000_000);
        let nanoseconds = seconds.wrapping_add(u64::from(duration.subsec_nanos()));
        // From the shortest: most requests take less than the first few.
        let within = BOUNDS.iter().position(|bound| nanoseconds <= *bound);
        if let Some(bucket) = self.buckets.get(within.unwrap_or(BOUNDS.len())) {
            bucket.one();
        }
        self.nanoseconds.add(nanoseconds);
    }
}

impl Histogram {
    /// Adds the numbers of a lane.
    #[expect(clippy::cast_precision_loss, reason = "it is shown as a float")]
    pub(crate) fn add(&mut self, durations: &Durations) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&durations.buckets) {
            *sum += bucket.get();
        }
        self.sum += durations.nanoseconds.get() as f64 / 1e9;
    }

    /// How many durations were counted.
    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// One worker's numbers, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Lane<T>(T);

/// The same numbers for each worker.
#[derive(Debug)]
pub(crate) struct Lanes<T>(Box<[Lane<T>]>);

impl<T: Default> Lanes<T> {
    /// Numbers that are zero.
    pub(crate) fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Lane::default()).collect())
    }
}

impl<T> Lanes<T> {
    /// The numbers of this worker; `None` if there is no such worker.
    pub(crate) fn of(&self, worker: usize) -> Option<&T> {
        self.0.get(worker).map(|lane| &lane.0)
    }

    /// The numbers of each worker.
    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|lane| &lane.0)
    }
}

/// A request that has ended, as it is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    /// The status of its response.
    pub(crate) status: u16,
    /// How long it took; `None` for a tunnel or a stream, which has no natural end.
    pub(crate) took: Option<Duration>,
    /// The bytes of its body.
    pub(crate) received: u64,
    /// The bytes of its response's body.
    pub(crate) sent: u64,
    /// Why the gateway refused it, or why its response broke off.
    pub(crate) reason: Option<&'static str>,
    /// Why it would have been refused, had that not only been reported.
    pub(crate) reported: Option<&'static str>,
}

/// What one worker counts of a route.
#[derive(Debug, Default)]
pub(crate) struct RouteLane {
    /// Requests by what became of them, as in [`CODES`].
    pub(crate) codes: [Count; CODES.len()],
    /// How long they took, without tunnels and streams.
    pub(crate) took: Durations,
    /// Bytes of requests.
    pub(crate) received: Count,
    /// Bytes of responses.
    pub(crate) sent: Count,
    /// Refusals, and responses that broke off, by their reason.
    pub(crate) refused: Words,
    /// Refusals that were only reported, by their reason.
    pub(crate) would_refuse: Words,
}

impl RouteLane {
    /// Counts a request that has ended.
    pub(crate) fn count(&self, ended: &Ended) {
        let class = match ended.status {
            CLIENT_GONE => CODES.len() - 1,
            status => usize::from(status / 100).clamp(1, 5) - 1,
        };
        if let Some(code) = self.codes.get(class) {
            code.one();
        }
        if let Some(took) = ended.took {
            self.took.count(took);
        }
        self.received.add(ended.received);
        self.sent.add(ended.sent);
        if let Some(reason) = ended.reason {
            self.refused.count(reason);
        }
        if let Some(reason) = ended.reported {
            self.would_refuse.count(reason);
        }
    }
}

/// What one worker counts that belongs to no route.
#[derive(Debug, Default)]
pub(crate) struct WorkerLane {
    /// Requests that have begun and not ended; a gauge.
    pub(crate) in_flight: Count,
    /// Those of them that are tunnels.
    pub(crate) tunnels: Count,
    /// Logins at the token service, by reason or `good`.
    pub(crate) logins: Words,
    /// Refreshes there.
    pub(crate) refreshes: Words,
    /// Requests for which no route was found.
    pub(crate) no_route: RouteLane,
}

/// What one worker counts of a verifier.
#[derive(Debug, Default)]
pub(crate) struct TokenLane {
    /// Tokens that were verified before.
    pub(crate) remembered: Count,
    /// Tokens that were verified now.
    pub(crate) verified: Count,
    /// Tokens that were refused, by reason.
    pub(crate) refused: Words,
}

/// What one worker counts of a listener.
#[derive(Debug, Default)]
pub(crate) struct ListenerLane {
    /// Connections that were accepted and not refused.
    pub(crate) connections: Count,
    /// Those of them that have ended.
    pub(crate) closed: Count,
    /// Connections that were refused, by reason.
    pub(crate) refused: Words,
    /// TLS handshakes, by reason or `good`.
    pub(crate) handshakes: Words,
}

/// What one worker counts of an upstream.
#[derive(Debug, Default)]
pub(crate) struct UpstreamLane {
    /// How long clients waited for the head of its response.
    pub(crate) first_byte: Durations,
    /// Requests that were sent again, and those that were not for want of budget.
    pub(crate) retries: Words,
    /// What became of requests that were held.
    pub(crate) queued: Words,
}

/// What one worker counts of an upstream's server: on its pool, which is that worker's own.
#[derive(Debug, Default)]
pub(crate) struct TryCounts {
    /// Responses by the class of their status.
    codes: [Count; 5],
    /// Tries that failed, by reason.
    failures: Words,
}

impl TryCounts {
    /// Counts a response.
    pub(crate) fn answered(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        if let Some(code) = self.codes.get(class) {
            code.one();
        }
    }

    /// Counts a try that failed.
    pub(crate) fn failed(&self, reason: &'static str) {
        self.failures.count(reason);
    }

    /// Responses by their class, and failures by their reason.
    pub(crate) fn all(
        &self,
    ) -> (
        impl Iterator<Item = (&'static str, u64)>,
        impl Iterator<Item = (&'static str, u64)>,
    ) {
        let codes = CODES.into_iter().zip(self.codes.iter().map(Count::get));
        (codes, self.failures.all())
    }
}

/// Numbers by name. A name is looked up when a configuration is compiled, or with the first request; whoever counts then
/// holds the lanes.
#[derive(Debug)]
pub(crate) struct Named<T>(Mutex<BTreeMap<String, Arc<Lanes<T>>>>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Default> Named<T> {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Lanes<T>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The numbers of this name, which are kept over reloads.
    fn get(&self, name: &str, workers: usize) -> Arc<Lanes<T>> {
        let mut known = self.lock();
        if let Some(lanes) = known.get(name) {
            return Arc::clone(lanes);
        }
        let lanes = Arc::new(Lanes::new(workers));
        known.insert(name.to_owned(), Arc::clone(&lanes));
        lanes
    }

    /// All names with their numbers.
    pub(crate) fn all(&self) -> Vec<(String, Arc<Lanes<T>>)> {
        let known = self.lock();
        known
            .iter()
            .map(|(n, l)| (n.clone(), Arc::clone(l)))
            .collect()
    }
}

/// The numbers of one route, once it had its first request.
#[derive(Debug, Default)]
pub(crate) struct RouteCounts(OnceLock<Arc<Lanes<RouteLane>>>);

impl RouteCounts {
    /// Its numbers; `name` is the route's.
    pub(crate) fn get(&self, name: &str, counts: &Counts) -> &Lanes<RouteLane> {
        self.0.get_or_init(|| counts.route(name))
    }
}

/// All numbers of the process: one value from the first configuration on.
#[derive(Debug)]
pub(crate) struct Counts {
    workers: usize,
    /// How many routes have series of their own.
    most_routes: AtomicUsize,
    routes: Named<RouteLane>,
    /// The names of routes that have none, for want of room.
    folded: Mutex<BTreeSet<String>>,
    /// What those routes count, together.
    pub(crate) other: Arc<Lanes<RouteLane>>,
    /// What belongs to no route.
    pub(crate) of_workers: Lanes<WorkerLane>,
    verifiers: Named<TokenLane>,
    listeners: Named<ListenerLane>,
    /// Orders of certificates, by directory and outcome.
    orders: Mutex<BTreeMap<(String, &'static str), u64>>,
    /// Lines that access logs of earlier configurations have lost.
    pub(crate) lost_lines: AtomicU64,
}

impl Counts {
    /// Numbers that are zero, for so many workers.
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers,
            most_routes: AtomicUsize::new(usize::MAX),
            routes: Named::default(),
            folded: Mutex::default(),
            other: Arc::new(Lanes::new(workers)),
            of_workers: Lanes::new(workers),
            verifiers: Named::default(),
            listeners: Named::default(),
            orders: Mutex::default(),
            lost_lines: AtomicU64::new(0),
        }
    }

    /// At most so many routes have series of their own from now on: those that had a request first.
    pub(crate) fn set_most_routes(&self, most: usize) {
        self.most_routes.store(most, Ordering::Relaxed);
    }

    /// The numbers of a route, which are kept over reloads: its own, or those of all for which there was no room.
    fn route(&self, name: &str) -> Arc<Lanes<RouteLane>> {
        let most = self.most_routes.load(Ordering::Relaxed);
        let known = self.routes.lock();
        if known.contains_key(name) || known.len() < most {
            drop(known);
            return self.routes.get(name, self.workers);
        }
        drop(known);
        let mut folded = self.folded.lock().unwrap_or_else(PoisonError::into_inner);
        folded.insert(name.to_owned());
        Arc::clone(&self.other)
    }

    /// The numbers of a verifier.
    pub(crate) fn verifier(&self, name: &str) -> Arc<Lanes<TokenLane>> {
        self.verifiers.get(name, self.workers)
    }

    /// The numbers of a listener, by its address.
    pub(crate) fn listener(&self, address: &str) -> Arc<Lanes<ListenerLane>> {
        self.listeners.get(address, self.workers)
    }

    /// Counts an order of a certificate; it is not a request's.
    pub(crate) fn count_order(&self, directory: &str, outcome: &'static str) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        *orders.entry((directory.to_owned(), outcome)).or_default() += 1;
    }

    /// Orders of certificates, by directory and outcome.
    pub(crate) fn orders(&self) -> BTreeMap<(String, &'static str), u64> {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.clone()
    }

    /// The routes that had a request, with their numbers.
    pub(crate) fn routes(&self) -> Vec<(String, Arc<Lanes<RouteLane>>)> {
        self.routes.all()
    }

    /// How many routes have no series of their own, for want of room.
    pub(crate) fn folded(&self) -> usize {
        let folded = self.folded.lock().unwrap_or_else(PoisonError::into_inner);
        folded.len()
    }

    /// All verifiers, with their numbers.
    pub(crate) fn verifiers(&self) -> Vec<(String, Arc<Lanes<TokenLane>>)> {
        self.verifiers.all()
    }

    /// All listeners, with their numbers.
    pub(crate) fn listeners(&self) -> Vec<(String, Arc<Lanes<ListenerLane>>)> {
        self.listeners.all()
    }

    /// Forgets what a new configuration does not have any more: names of routes, verifiers and listeners.
    pub(crate) fn keep(&self, names: &Names<'_>) {
        self.routes
            .lock()
            .retain(|it, _| names.routes.contains(it.as_str()));
        let mut folded = self.folded.lock().unwrap_or_else(PoisonError::into_inner);
        folded.retain(|it| names.routes.contains(it.as_str()));
        drop(folded);
        self.verifiers
            .lock()
            .retain(|it, _| names.verifiers.contains(it.as_str()));
        self.listeners
            .lock()
            .retain(|it, _| names.listeners.contains(it.as_str()));
    }
}

/// What a configuration has.
#[derive(Debug, Default)]
pub(crate) struct Names<'n> {
    /// The names of its routes.
    pub(crate) routes: BTreeSet<&'n str>,
    /// Of its verifiers.
    pub(crate) verifiers: BTreeSet<&'n str>,
    /// The addresses of its listeners.
    pub(crate) listeners: BTreeSet<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(status: u16, milliseconds: u64) -> Ended {
        Ended {
            status,
            took: Some(Duration::from_millis(milliseconds)),
            received: 1,
            sent: 10,
            reason: None,
            reported: None,
        }
    }

    #[test]
    fn a_request_is_counted_once_in_each_place() {
        let lane = RouteLane::default();
        let (refused, gone) = (Some("token_missing"), Some("client_gone"));
        lane.count(&ended(200, 0));
        lane.count(&Ended {
            reason: refused,
            ..ended(401, 7)
        });
        lane.count(&Ended {
            reason: gone,
            ..ended(499, 31_000)
        });
        lane.count(&Ended {
            took: None,
            reported: refused,
            ..ended(101, 0)
        });
        let codes: Vec<u64> = lane.codes.iter().map(Count::get).collect();
        assert_eq!(codes, [1, 1, 0, 1, 0, 1]);
        assert_eq!((lane.received.get(), lane.sent.get()), (4, 40));
        let mut words: Vec<_> = lane.refused.all().collect();
        words.sort_unstable();
        assert_eq!(words, [("client_gone", 1), ("token_missing", 1)]);
        assert_eq!(
            lane.would_refuse.all().collect::<Vec<_>>(),
            [("token_missing", 1)]
        );
        let mut histogram = Histogram::default();
        histogram.add(&lane.took);
        assert_eq!(histogram.count(), 3, "a tunnel has no duration");
        assert_eq!(histogram.buckets[0], 1);
        assert_eq!(histogram.buckets[3], 1, "7 ms are within 10 ms");
        assert_eq!(histogram.buckets[14], 1, "31 s are beyond all");
        assert!((histogram.sum - 31.007).abs() < 1e-9);
    }

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let durations = Durations::default();
        durations.count(Duration::from_millis(1));
        durations.count(Duration::from_nanos(1_000_001));
        let mut histogram = Histogram::default();
        histogram.add(&durations);
        assert_eq!(histogram.buckets[..2], [1, 1]);
    }

    #[test]
    fn numbers_are_kept_by_name_and_those_without_room_are_one() {
        let counts = Counts::new(2);
        counts.set_most_routes(2);
        for name in ["/a", "/b", "/c", "/d", "/a"] {
            let route = RouteCounts::default();
            route
                .get(name, &counts)
                .of(1)
                .unwrap()
                .count(&ended(200, 1));
        }
        let of =
            |lanes: &Lanes<RouteLane>| -> u64 { lanes.all().map(|it| it.codes[1].get()).sum() };
        let own: Vec<_> = counts
            .routes()
            .iter()
            .map(|(name, it)| (name.clone(), of(it)))
            .collect();
        assert_eq!(own, [("/a".to_owned(), 2), ("/b".to_owned(), 1)]);
        assert_eq!((of(&counts.other), counts.folded()), (2, 2));
        let names = Names {
            routes: BTreeSet::from(["/b", "/c"]),
            ..Names::default()
        };
        counts.keep(&names);
        assert_eq!((counts.routes().len(), counts.folded()), (1, 1));
        let route = RouteCounts::default();
        assert_eq!(of(route.get("/c", &counts)), 0, "there is room now");
    }

    #[test]
    fn lanes_share_no_cache_line() {
        let lanes: Lanes<Count> = Lanes::new(3);
        let places: Vec<usize> = lanes
            .all()
            .map(|it| std::ptr::from_ref(it).addr())
            .collect();
        assert!(
            places.windows(2).all(|it| it[1] - it[0] >= 128),
            "{places:?}"
        );
        assert!(lanes.of(3).is_none());
    }
}
