//! One server of an upstream, for the whole process: where it is, what is known of it, each worker's pool. Which server a
//! request goes to is decided in `upstream`.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;

use super::eject::{Moment, Standing};
use super::health::Health;
use super::pool::{Home, Keep, Pool};
use super::queue::{Load, Queue};

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

impl Address {
    /// The same host at another port.
    pub(super) fn at_port(&self, port: u16) -> Self {
        match self {
            Self::Tcp(host, _) => Self::Tcp(host.clone(), port),
            Self::Unix(path) => Self::Unix(path.clone()),
        }
    }

    /// The `Host` of a request to it.
    pub(super) fn host(&self) -> HeaderValue {
        let url = self.to_string();
        let host = url.strip_prefix("http://");
        let host = host.map(|host| host.strip_suffix(":80").unwrap_or(host));
        host.and_then(|host| HeaderValue::from_str(host).ok())
            .unwrap_or(HeaderValue::from_static("localhost"))
    }
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

/// One server of an upstream. The next configuration keeps it, with its connections and counts, whatever else changes in
/// the upstream.
#[derive(Debug)]
pub(crate) struct Endpoint {
    address: Address,
    /// One for each worker.
    pools: Box<[Arc<Pool>]>,
    load: Arc<Load>,
    standing: Standing,
    health: Health,
    /// When it came back, or joined, as a [`Moment`]; 0 if it did not.
    came: AtomicU64,
    said: Mutex<Said>,
}

/// A server as it stands, over all workers.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServerNow {
    /// Its address.
    pub(crate) name: String,
    /// Whether it gets requests, and is not taken out after failures.
    pub(crate) is_up: bool,
    /// How often it was taken out.
    pub(crate) ejections: u64,
    /// Its idle connections.
    pub(crate) idle: u64,
    /// Its connections that requests use.
    pub(crate) busy: u64,
    /// Its responses, by the class of their status.
    pub(crate) codes: BTreeMap<&'static str, u64>,
    /// Tries that failed, by reason.
    pub(crate) failures: BTreeMap<&'static str, u64>,
}

/// When an unreachable endpoint was last logged, and how many failures were not logged since.
#[derive(Debug, Default)]
struct Said {
    at: Option<Instant>,
    unsaid: u64,
}

impl Endpoint {
    /// An endpoint without connections, for `workers` workers, with this many requests at the same time at most; for more
    /// it has its upstream's queue.
    pub(super) fn new(
        address: Address,
        workers: usize,
        most: Option<usize>,
        queue: &Arc<Queue>,
    ) -> Self {
        let load = Arc::new(Load::new(most, Arc::clone(queue)));
        let pool = |_| Arc::new(Pool::new(Arc::clone(&load)));
        Self {
            address,
            pools: (0..workers).map(pool).collect(),
            load,
            standing: Standing::default(),
            health: Health::default(),
            came: AtomicU64::new(0),
            said: Mutex::default(),
        }
    }

    /// Where it listens.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// What is known of its failures.
    pub(super) fn standing(&self) -> &Standing {
        &self.standing
    }

    /// When it came back, or joined; 0 if it did not.
    pub(super) fn came(&self) -> Moment {
        self.came.load(Ordering::Relaxed)
    }

    /// It comes back, or joins.
    pub(super) fn comes(&self, now: Moment) {
        self.came.store(now, Ordering::Relaxed);
    }

    /// What checks say of it.
    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    /// Its requests in flight, over all workers; only those of upstreams that count them.
    pub(super) fn load(&self) -> &Arc<Load> {
        &self.load
    }

    /// What there is to tell of it.
    pub(super) fn now(&self) -> ServerNow {
        let mut now = ServerNow {
            name: self.address.to_string(),
            is_up: !self.standing.is_out(),
            ejections: self.standing.ejections(),
            ..ServerNow::default()
        };
        for pool in &self.pools {
            let (counts, idle, busy) = pool.numbers();
            let (codes, failures) = counts.all();
            now.idle += idle;
            now.busy += busy;
            for (code, count) in codes {
                *now.codes.entry(code).or_default() += count;
            }
            for (reason, count) in failures {
                *now.failures.entry(reason).or_default() += count;
            }
        }
        now
    }

    /// The pool of this worker's connections to it; `None` if there is no such worker. With `counts`, the request was
    /// counted, and is in flight until what is returned is dropped.
    pub(super) fn home(&self, worker: usize, keep: Keep, counts: bool) -> Option<Home> {
        let pool = Arc::clone(self.pools.get(worker)?);
        Some(Home::new(pool, keep, counts))
    }

    /// No configuration uses it any more: its idle connections are closed with the next sweep, and no more are kept.
    pub(super) fn leave(&self) {
        for pool in &self.pools {
            pool.leave();
        }
    }

    /// Closes this worker's idle connections to it.
    pub(super) fn close_idle(&self, worker: usize) {
        if let Some(pool) = self.pools.get(worker) {
            pool.close_idle();
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
