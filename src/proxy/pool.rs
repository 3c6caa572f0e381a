//! One upstream: its endpoints, and the kept connections of each worker. What is said over them is
//! not known here.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use http::HeaderValue;
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Handle, RuntimeMetrics};
use tokio::time::{Instant, sleep, timeout};

use super::h1::Connection;
use super::{Buffer, UpstreamTimeouts};
use crate::reject::Reject;
use crate::stream::Stream;

/// How often kept connections are looked through for those that the app has closed.
const SWEEP: Duration = Duration::from_secs(5);
/// How long a connection is not used behind a response that has no body by its status (204, 304) and
/// announced none: some servers write one all the same, a moment later.
const QUARANTINE: Duration = Duration::from_millis(250);

/// Where an endpoint listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Address {
    /// A host, by name or address, and a port.
    Tcp(String, u16),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "http://[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "http://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Whose requests an upstream carries. Connections are never shared between two of these: what a
/// client may leave behind on one must not become the response that decides who it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Purpose {
    /// Clients' own.
    Proxy,
    /// Those that ask whether a client's may pass.
    Ask,
    /// Those that ask whether a password is right.
    Login,
}

/// What an upstream is made from; equal settings keep their connections over a reload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct UpstreamSettings {
    /// Whose requests it carries.
    pub(crate) purpose: Purpose,
    /// Its name, or its URL.
    pub(crate) name: String,
    /// Its endpoints, taken in turn.
    pub(crate) endpoints: Vec<Address>,
    /// Its timeouts, where a route says nothing else.
    pub(crate) timeouts: UpstreamTimeouts,
    /// Kept connections of each endpoint, in each worker.
    pub(crate) keep_alive: usize,
    /// Whether and how bodies are buffered.
    pub(crate) buffer: Option<BufferSettings>,
    /// Whether names of fields with `_` reach it.
    pub(crate) underscores: bool,
}

/// What a buffer is made from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct BufferSettings {
    /// Bytes of a request body in memory.
    pub(crate) request: usize,
    /// Bytes of an answer in memory.
    pub(crate) response: usize,
    /// The spool's folder and how much it may hold.
    pub(crate) spool: Option<(PathBuf, u64)>,
    /// Whether the upstream's configuration says so.
    pub(crate) is_own: bool,
}

impl BufferSettings {
    /// What holds where nothing is said.
    pub(crate) const DEFAULT: Self = Self {
        request: 64 << 10,
        response: 64 << 10,
        spool: None,
        is_own: false,
    };
}

impl UpstreamSettings {
    /// Kept connections where nothing is said.
    pub(crate) const KEEP_ALIVE: usize = 64;
}

/// A named service behind the gateway.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// Its name.
    pub(crate) name: String,
    /// The `Host` of requests that have none.
    pub(crate) host: HeaderValue,
    /// Whether and how bodies are buffered.
    pub(crate) buffer: Option<Buffer>,
    settings: UpstreamSettings,
    pools: Box<[Arc<Pool>]>,
}

/// The kept connections of one worker.
#[derive(Debug)]
struct Pool {
    next: AtomicUsize,
    keep_alive: usize,
    oldest: Duration,
    turns: Turns,
    /// Used by one worker alone: never waited for.
    idle: Mutex<Kept>,
}

/// The turns of a worker's event loop: how often it has asked the system what the sockets have. Until
/// then, a socket that was just read to its end seems quiet, whatever has come since.
#[derive(Debug, Default)]
struct Turns(OnceLock<RuntimeMetrics>);

impl Turns {
    /// The present turn. Two that differ have the system's word between them; two that are equal may
    /// have it, too, where the loop was too busy to wait for it.
    fn now(&self) -> u64 {
        let metrics = self.0.get_or_init(|| Handle::current().metrics());
        metrics.worker_park_count(0)
    }
}

#[derive(Debug)]
struct Kept {
    endpoints: Vec<Resting>,
    /// Whether a task looks through them from time to time.
    swept: bool,
}

/// The idle connections of one endpoint.
#[derive(Debug, Default)]
struct Resting {
    /// Those that the next request may have, the latest last.
    ready: Vec<Idle>,
    /// Those behind a response that might still be followed by a body that it must not have, the
    /// earliest first. They are ready when they were quiet for [`QUARANTINE`].
    suspect: VecDeque<Idle>,
}

#[derive(Debug)]
struct Idle {
    connection: Box<Connection>,
    since: Instant,
    /// The turn of the event loop in which it was given back.
    turn: u64,
}

impl Idle {
    /// Whether nothing has come since the last response, neither bytes nor an end.
    fn is_quiet(&self, turn: u64) -> bool {
        // The event loop has not asked the system since: it is asked now.
        self.connection.is_quiet() && (self.turn != turn || self.connection.is_silent())
    }
}

impl Resting {
    /// Moves those that were quiet long enough to where they are taken from.
    fn acquit(&mut self, now: Instant, turn: u64) {
        let long = |idle: &mut Idle| now.duration_since(idle.since) >= QUARANTINE;
        while let Some(idle) = self.suspect.pop_front_if(long) {
            if idle.is_quiet(turn) {
                let at = self
                    .ready
                    .partition_point(|ready| ready.since <= idle.since);
                self.ready.insert(at, idle);
            }
        }
    }

    fn count(&self) -> usize {
        self.ready.len() + self.suspect.len()
    }
}

/// A connection to an endpoint that one request uses.
#[derive(Debug)]
pub(crate) struct Lease {
    /// The connection.
    pub(super) connection: Box<Connection>,
    /// Where it goes back to.
    pub(super) home: Home,
    /// Whether another request used it before.
    pub(super) reused: bool,
}

/// Where a connection goes back to when its answer was taken to the end.
#[derive(Debug)]
pub(crate) struct Home {
    pool: Arc<Pool>,
    endpoint: usize,
}

impl Upstream {
    /// An upstream with empty pools for `workers` workers.
    pub(crate) fn new(settings: UpstreamSettings, buffer: Option<Buffer>, workers: usize) -> Self {
        let pool = || {
            Arc::new(Pool {
                next: AtomicUsize::new(0),
                keep_alive: settings.keep_alive,
                oldest: settings.timeouts.idle,
                turns: Turns::default(),
                idle: Mutex::new(Kept {
                    endpoints: settings
                        .endpoints
                        .iter()
                        .map(|_| Resting::default())
                        .collect(),
                    swept: false,
                }),
            })
        };
        let pools = (0..workers).map(|_| pool()).collect();
        Self {
            name: settings.name.clone(),
            host: host_of(&settings.name),
            buffer,
            settings,
            pools,
        }
    }

    /// Whether names of fields with `_` reach it.
    pub(crate) fn underscores(&self) -> bool {
        self.settings.underscores
    }

    /// What it was made from.
    pub(crate) fn settings(&self) -> &UpstreamSettings {
        &self.settings
    }

    /// Whether calls of gRPC stream through, which an upstream with a `buffer` of its own does not let them.
    pub(crate) fn streams_calls(&self) -> bool {
        self.buffer.as_ref().is_none_or(|buffer| !buffer.is_own)
    }

    /// A connection: a kept one of the endpoint whose turn it is, or a new one. An endpoint that
    /// cannot be reached passes its turn on. `kept` is the present time, or `None` where only a new
    /// one will do.
    ///
    /// # Errors
    /// `UpstreamUnreachable` when no endpoint could be connected to.
    pub(crate) async fn lease(
        &self,
        worker: usize,
        connect: Duration,
        kept: Option<Instant>,
    ) -> Result<Lease, Reject> {
        let pool = self.pools.get(worker).ok_or(Reject::Internal)?;
        let count = self.settings.endpoints.len();
        let first = pool.next.fetch_add(1, Ordering::Relaxed);
        for turn in 0..count {
            let endpoint = first.wrapping_add(turn) % count;
            let home = || Home {
                pool: Arc::clone(pool),
                endpoint,
            };
            if let Some(connection) = kept.and_then(|now| pool.take(endpoint, now)) {
                return Ok(Lease {
                    connection,
                    home: home(),
                    reused: true,
                });
            }
            let Some(address) = self.settings.endpoints.get(endpoint) else {
                continue;
            };
            // In a box: the way of a request that needs no new connection is not to carry its room.
            match timeout(connect, Box::pin(dial(address))).await {
                Ok(Ok(stream)) => {
                    return Ok(Lease {
                        connection: Box::new(Connection::new(stream)),
                        home: home(),
                        reused: false,
                    });
                }
                Ok(Err(error)) => {
                    tracing::warn!(upstream.name = %self.name, endpoint = %address, %error, "the app could not be reached");
                }
                Err(_) => {
                    tracing::warn!(upstream.name = %self.name, endpoint = %address, "the app did not accept the connection in time");
                }
            }
        }
        Err(Reject::UpstreamUnreachable)
    }
}

/// What a server is called where no client names it: the upstream's name, or its URL's host.
fn host_of(name: &str) -> HeaderValue {
    let host = name.strip_prefix("http://").unwrap_or(name);
    let host = host.split('/').next().unwrap_or_default();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte);
    let host = Some(host).filter(|host| !host.starts_with("unix:") && host.bytes().all(plain));
    host.and_then(|host| HeaderValue::from_str(host).ok())
        .unwrap_or(HeaderValue::from_static("localhost"))
}

impl Pool {
    fn take(&self, endpoint: usize, now: Instant) -> Option<Box<Connection>> {
        let turn = self.turns.now();
        let mut idle = self.idle.lock().ok()?;
        let kept = idle.endpoints.get_mut(endpoint)?;
        if !kept.suspect.is_empty() {
            kept.acquit(now, turn);
        }
        while let Some(idle) = kept.ready.pop() {
            if idle.is_quiet(turn) && now.duration_since(idle.since) < self.oldest {
                return Some(idle.connection);
            }
        }
        None
    }

    fn give(self: &Arc<Self>, endpoint: usize, connection: Box<Connection>) {
        let turn = self.turns.now();
        let Ok(mut idle) = self.idle.lock() else {
            return;
        };
        let Some(kept) = idle.endpoints.get_mut(endpoint) else {
            return;
        };
        if kept.count() >= self.keep_alive {
            return;
        }
        let suspect = connection.is_suspect();
        let resting = Idle {
            connection,
            since: Instant::now(),
            turn,
        };
        if suspect {
            kept.suspect.push_back(resting);
        } else {
            kept.ready.push(resting);
        }
        if !idle.swept {
            idle.swept = true;
            tokio::spawn(sweep(Arc::downgrade(self), self.oldest.min(SWEEP)));
        }
    }

    /// Closes what is too old, or was closed by the app; says whether any are left.
    fn sweep(&self) -> bool {
        let Ok(mut idle) = self.idle.lock() else {
            return false;
        };
        let young = |idle: &Idle| idle.connection.is_quiet() && idle.since.elapsed() < self.oldest;
        for kept in &mut idle.endpoints {
            kept.ready.retain(young);
            kept.suspect.retain(young);
        }
        idle.swept = idle.endpoints.iter().any(|kept| kept.count() > 0);
        idle.swept
    }
}

/// Looks through the kept connections until there are none.
async fn sweep(pool: Weak<Pool>, every: Duration) {
    loop {
        sleep(every).await;
        if !pool.upgrade().is_some_and(|pool| pool.sweep()) {
            return;
        }
    }
}

impl Home {
    /// Keeps a connection for the next request.
    pub(crate) fn take_back(self, connection: Box<Connection>) {
        self.pool.give(self.endpoint, connection);
    }
}

async fn dial(address: &Address) -> std::io::Result<Stream> {
    match address {
        Address::Tcp(host, port) => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            let alive = socket2::TcpKeepalive::new().with_time(Duration::from_secs(60));
            socket2::SockRef::from(&stream).set_tcp_keepalive(&alive)?;
            Ok(Stream::Tcp(stream))
        }
        Address::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
    }
}
