//! The servers of upstreams, and each worker's idle connections to them. `upstream` decides which server a request goes
//! to.

use std::collections::VecDeque;
use std::fmt::{Display, Formatter};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeMetrics};
use tokio::time::{Instant, sleep};

use super::h1::Connection;

/// How often idle connections are checked for those that the app has closed, or that have not been used for long.
const SWEEP: Duration = Duration::from_secs(5);
/// How long a connection is not reused after a response that has no body by its status (204, 304) and announced none:
/// some servers send one all the same, a moment later.
const QUARANTINE: Duration = Duration::from_secs(1);
/// How often an unreachable endpoint is logged.
const SAID_EVERY: Duration = Duration::from_secs(1);

/// Where an endpoint listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Address {
    /// A host, by name or address, and a port.
    Tcp(String, u16),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl Display for Address {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "http://[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "http://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One server of an upstream. The next configuration keeps it, with its connections, whatever else changes in the
/// upstream.
#[derive(Debug)]
pub(crate) struct Endpoint {
    address: Address,
    /// One for each worker.
    pools: Box<[Arc<Pool>]>,
    said: Mutex<Said>,
}

/// When an unreachable endpoint was last logged, and how many failures were not logged since.
#[derive(Debug, Default)]
struct Said {
    at: Option<Instant>,
    unsaid: u64,
}

/// The idle connections of one worker to one endpoint.
#[derive(Debug, Default)]
struct Pool {
    turns: Turns,
    /// Whether no configuration uses the endpoint any more.
    is_left: AtomicBool,
    /// Used by one worker only, so that the lock never blocks.
    idle: Mutex<Resting>,
}

/// The turns of a worker's event loop: how often it has polled the system for readiness. Until the next poll, a socket
/// that was just read to its end seems quiet, whatever has arrived since.
#[derive(Debug, Default)]
struct Turns(OnceLock<RuntimeMetrics>);

impl Turns {
    /// The current turn. Between two different turns the system was polled; between two equal ones it may have been,
    /// too, if the loop was too busy to park.
    fn now(&self) -> u64 {
        let metrics = self.0.get_or_init(|| Handle::current().metrics());
        metrics.worker_park_count(0)
    }
}

#[derive(Debug, Default)]
struct Resting {
    /// Available to the next request, the latest last.
    ready: Vec<Idle>,
    /// Connections whose response might still be followed by a body that it must not have, the earliest first. They
    /// become available once they were quiet for [`QUARANTINE`].
    suspect: VecDeque<Idle>,
    /// Whether a task checks them from time to time.
    swept: bool,
    /// Whether the app was seen to send a body where there must be none. Connections are then not kept after a response
    /// without a body: the next body may arrive after the quarantine.
    distrusted: bool,
}

#[derive(Debug)]
struct Idle {
    connection: Box<Connection>,
    since: Instant,
    /// How long it may be idle.
    longest: Duration,
    /// The turn of the event loop in which it was returned.
    turn: u64,
}

impl Idle {
    /// Whether nothing has arrived since the last response, neither bytes nor an end.
    fn is_quiet(&self, turn: u64) -> bool {
        // The event loop has not polled since: ask the system now.
        self.connection.is_quiet() && (self.turn != turn || self.connection.is_silent())
    }
}

impl Resting {
    /// Makes connections available that were quiet long enough.
    fn acquit(&mut self, now: Instant, turn: u64) {
        let long = |idle: &mut Idle| now.duration_since(idle.since) >= QUARANTINE;
        while let Some(idle) = self.suspect.pop_front_if(long) {
            if idle.is_quiet(turn) {
                let at = self
                    .ready
                    .partition_point(|ready| ready.since <= idle.since);
                self.ready.insert(at, idle);
            } else if idle.connection.has_bytes() {
                self.distrusted = true;
            }
        }
    }

    fn count(&self) -> usize {
        self.ready.len() + self.suspect.len()
    }
}

/// How many idle connections an endpoint may have in a worker, and for how long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Keep {
    /// How many.
    pub(super) most: usize,
    /// How long each may be idle.
    pub(super) idle: Duration,
}

/// Where a connection returns to when its response is complete.
#[derive(Debug)]
pub(crate) struct Home {
    pool: Arc<Pool>,
    keep: Keep,
}

impl Endpoint {
    /// An endpoint without connections, for `workers` workers.
    pub(super) fn new(address: Address, workers: usize) -> Self {
        Self {
            address,
            pools: (0..workers).map(|_| Arc::default()).collect(),
            said: Mutex::default(),
        }
    }

    /// Where it listens.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// The pool of this worker's connections to it; `None` if there is no such worker.
    pub(super) fn home(&self, worker: usize, keep: Keep) -> Option<Home> {
        let pool = Arc::clone(self.pools.get(worker)?);
        Some(Home { pool, keep })
    }

    /// No configuration uses it any more: its idle connections are closed with the next sweep, and no more are kept.
    pub(super) fn leave(&self) {
        for pool in &self.pools {
            pool.is_left.store(true, Ordering::Relaxed);
        }
    }

    /// Closes this worker's idle connections to it.
    pub(super) fn close_idle(&self, worker: usize) {
        let idle = self.pools.get(worker).map(|pool| &pool.idle);
        if let Some(mut idle) = idle.and_then(|idle| idle.lock().ok()) {
            idle.ready.clear();
            idle.suspect.clear();
        }
    }

    /// Logs that it cannot be reached: at most once a second, however many requests fail.
    pub(super) fn is_unreachable(&self, upstream: &str, why: &dyn Display) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if said
            .at
            .is_some_and(|at| now.duration_since(at) < SAID_EVERY)
        {
            said.unsaid += 1;
            return;
        }
        said.at = Some(now);
        let unsaid = std::mem::take(&mut said.unsaid);
        drop(said);
        tracing::warn!(upstream.name = upstream, endpoint = %self.address, error = %why, unsaid, "the app could not be reached");
    }
}

impl Home {
    /// An idle connection that was used less than `fresh` ago; `now` is the current time.
    pub(super) fn take(&self, now: Instant, fresh: Duration) -> Option<Box<Connection>> {
        let turn = self.pool.turns.now();
        let mut idle = self.pool.idle.lock().ok()?;
        if !idle.suspect.is_empty() {
            idle.acquit(now, turn);
        }
        while let Some(latest) = idle.ready.last() {
            let age = now.duration_since(latest.since);
            let latest = idle.ready.pop_if(|_| age < fresh)?;
            if age < latest.longest.min(self.keep.idle) && latest.is_quiet(turn) {
                return Some(latest.connection);
            }
        }
        None
    }

    /// Keeps a connection for the next request.
    pub(crate) fn take_back(self, connection: Box<Connection>) {
        let Self { pool, keep } = self;
        let longest = connection
            .rests()
            .map_or(keep.idle, |said| said.min(keep.idle));
        if longest.is_zero() || pool.is_left.load(Ordering::Relaxed) {
            return;
        }
        let turn = pool.turns.now();
        let Ok(mut idle) = pool.idle.lock() else {
            return;
        };
        if idle.count() >= keep.most {
            return;
        }
        let suspect = connection.is_suspect();
        if suspect && idle.distrusted {
            return;
        }
        let resting = Idle {
            connection,
            since: Instant::now(),
            longest,
            turn,
        };
        if suspect {
            idle.suspect.push_back(resting);
        } else {
            idle.ready.push(resting);
        }
        if !std::mem::replace(&mut idle.swept, true) {
            let every = longest.min(SWEEP);
            tokio::spawn(sweep(Arc::downgrade(&pool), every));
        }
    }
}

impl Pool {
    /// Closes connections that were idle for too long or closed by the app; returns whether any are left. As the latest
    /// is used first, connections that are not needed at quiet times grow old.
    fn sweep(&self) -> bool {
        let Ok(mut idle) = self.idle.lock() else {
            return false;
        };
        let is_left = self.is_left.load(Ordering::Relaxed);
        let young = |idle: &Idle| {
            !is_left && idle.since.elapsed() < idle.longest && idle.connection.is_quiet()
        };
        let idle = &mut *idle;
        idle.ready.retain(young);
        idle.suspect.retain(|suspect| {
            let stays = young(suspect);
            idle.distrusted |= !stays && suspect.connection.has_bytes();
            stays
        });
        let most = idle.ready.len() * 2;
        idle.ready.shrink_to(most);
        idle.swept = idle.count() > 0;
        idle.swept
    }
}

/// Checks the idle connections until there are none.
async fn sweep(pool: Weak<Pool>, every: Duration) {
    loop {
        sleep(every).await;
        if !pool.upgrade().is_some_and(|pool| pool.sweep()) {
            return;
        }
    }
}
