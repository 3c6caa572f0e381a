//! Each worker's idle connections to a server. Which server a request goes to is decided in `upstream`, and what is known
//! of a server is in `endpoint`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeMetrics};
use tokio::time::{Instant, sleep};

use super::h1::Connection;
use super::queue::Load;
use crate::observe::counts::{Count, TryCounts};

/// How often idle connections are checked for those that the app has closed, or that have not been used for long.
const SWEEP: Duration = Duration::from_secs(5);
/// How long a connection is not reused after a response that has no body by its status (204, 304) and announced none:
/// some servers send one all the same, a moment later.
const QUARANTINE: Duration = Duration::from_secs(1);

/// The idle connections of one worker to one endpoint.
#[derive(Debug)]
pub(super) struct Pool {
    /// The requests in flight at the server, of all workers.
    load: Arc<Load>,
    turns: Turns,
    /// Whether no configuration uses the endpoint any more.
    is_left: AtomicBool,
    /// Used by one worker only, so that the lock never blocks.
    idle: Mutex<Resting>,
    /// What became of that worker's tries.
    counts: TryCounts,
    /// Its connections that are idle, and those that requests use; gauges.
    resting: Count,
    busy: Count,
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
    /// Whether the request counts as one in flight until this is dropped.
    counts: bool,
}

impl Drop for Home {
    fn drop(&mut self) {
        self.pool.busy.less();
        if self.counts {
            self.pool.load.leave();
        }
    }
}

impl Home {
    /// A request's place at the server of this pool. With `counts` it was counted, until this is dropped.
    pub(super) fn new(pool: Arc<Pool>, keep: Keep, counts: bool) -> Self {
        pool.busy.one();
        Self { pool, keep, counts }
    }

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
            self.pool.resting.set(idle.count() as u64);
            if age < latest.longest.min(self.keep.idle) && latest.is_quiet(turn) {
                return Some(latest.connection);
            }
        }
        None
    }

    /// Where the worker counts what becomes of its tries.
    pub(super) fn counts(&self) -> &TryCounts {
        &self.pool.counts
    }

    /// Keeps a connection for the next request.
    pub(crate) fn take_back(self, connection: Box<Connection>) {
        let (pool, keep) = (&self.pool, self.keep);
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
        pool.resting.set(idle.count() as u64);
        if !std::mem::replace(&mut idle.swept, true) {
            let every = longest.min(SWEEP);
            tokio::spawn(sweep(Arc::downgrade(pool), every));
        }
    }
}

impl Pool {
    /// A pool without connections.
    pub(super) fn new(load: Arc<Load>) -> Self {
        Self {
            load,
            turns: Turns::default(),
            is_left: AtomicBool::new(false),
            idle: Mutex::default(),
            counts: TryCounts::default(),
            resting: Count::default(),
            busy: Count::default(),
        }
    }

    /// What became of tries, and the connections that are idle and in use.
    pub(super) fn numbers(&self) -> (&TryCounts, u64, u64) {
        (&self.counts, self.resting.get(), self.busy.get())
    }

    /// The server is no longer used: idle connections are closed with the next sweep, and no more are kept.
    pub(super) fn leave(&self) {
        self.is_left.store(true, Ordering::Relaxed);
    }

    /// Closes all idle connections.
    pub(super) fn close_idle(&self) {
        if let Ok(mut idle) = self.idle.lock() {
            idle.ready.clear();
            idle.suspect.clear();
            self.resting.set(0);
        }
    }

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
        self.resting.set(idle.count() as u64);
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
