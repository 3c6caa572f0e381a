//! One upstream: its endpoints, and the kept connections of each worker. What is said over them is
//! not known here.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use http::HeaderValue;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep, timeout};

use super::h1::Connection;
use super::{Buffer, UpstreamTimeouts};
use crate::reject::Reject;
use crate::stream::Stream;

/// How often kept connections are looked through for those that the app has closed.
const SWEEP: Duration = Duration::from_secs(5);

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

/// What an upstream is made from; equal settings keep their connections over a reload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct UpstreamSettings {
    /// Its name, or its URL.
    pub(crate) name: String,
    /// Its endpoints, taken in turn.
    pub(crate) endpoints: Vec<Address>,
    /// Its timeouts, where a route says nothing else.
    pub(crate) timeouts: UpstreamTimeouts,
    /// Kept connections of each endpoint, in each worker.
    pub(crate) keep_alive: usize,
    /// Bytes in memory for requests and answers, the spool's folder and its size.
    pub(crate) buffer: Option<BufferSettings>,
}

/// Bytes of requests and of answers in memory; the spool's folder and how much it may hold.
pub(crate) type BufferSettings = (usize, usize, Option<(PathBuf, u64)>);

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
    /// Used by one worker alone: never waited for.
    idle: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    /// Per endpoint, the latest last.
    connections: Vec<Vec<Idle>>,
    /// Whether a task looks through them from time to time.
    swept: bool,
}

#[derive(Debug)]
struct Idle {
    connection: Box<Connection>,
    since: Instant,
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
                idle: Mutex::new(Kept {
                    connections: settings.endpoints.iter().map(|_| Vec::new()).collect(),
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

    /// What it was made from.
    pub(crate) fn settings(&self) -> &UpstreamSettings {
        &self.settings
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
        let mut idle = self.idle.lock().ok()?;
        let kept = idle.connections.get_mut(endpoint)?;
        while let Some(Idle { connection, since }) = kept.pop() {
            if connection.is_quiet() && now.duration_since(since) < self.oldest {
                return Some(connection);
            }
        }
        None
    }

    fn give(self: &Arc<Self>, endpoint: usize, connection: Box<Connection>) {
        let Ok(mut idle) = self.idle.lock() else {
            return;
        };
        let Some(kept) = idle.connections.get_mut(endpoint) else {
            return;
        };
        if kept.len() >= self.keep_alive {
            return;
        }
        kept.push(Idle {
            connection,
            since: Instant::now(),
        });
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
        for kept in &mut idle.connections {
            kept.retain(|idle| idle.connection.is_quiet() && idle.since.elapsed() < self.oldest);
        }
        idle.swept = idle.connections.iter().any(|kept| !kept.is_empty());
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
