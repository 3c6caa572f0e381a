//! One upstream: its endpoints, and the kept connections of each worker.
//!
//! Behind `Lease` stands hyper's client connection; a hand-written one can take its place without
//! the rest of the module knowing.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout};

use super::body::Outgoing;
use super::{Buffer, UpstreamTimeouts};
use crate::reject::Reject;

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
    /// Per endpoint, the latest last. Used by one worker alone: never waited for.
    idle: Mutex<Vec<Vec<Idle>>>,
}

#[derive(Debug)]
struct Idle {
    sender: SendRequest<Outgoing>,
    since: Instant,
}

/// A connection to an endpoint that one request uses.
#[derive(Debug)]
pub(crate) struct Lease {
    sender: SendRequest<Outgoing>,
    pool: Arc<Pool>,
    endpoint: usize,
    reused: bool,
}

impl Upstream {
    /// An upstream with empty pools for `workers` workers.
    pub(crate) fn new(settings: UpstreamSettings, buffer: Option<Buffer>, workers: usize) -> Self {
        let pool = || {
            Arc::new(Pool {
                next: AtomicUsize::new(0),
                keep_alive: settings.keep_alive,
                oldest: settings.timeouts.idle,
                idle: Mutex::new(settings.endpoints.iter().map(|_| Vec::new()).collect()),
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
    /// cannot be reached passes its turn on.
    ///
    /// # Errors
    /// `UpstreamUnreachable` when no endpoint could be connected to.
    pub(crate) async fn lease(
        &self,
        worker: usize,
        connect: Duration,
        fresh: bool,
    ) -> Result<Lease, Reject> {
        let pool = self.pools.get(worker).ok_or(Reject::Internal)?;
        let count = self.settings.endpoints.len();
        let first = pool.next.fetch_add(1, Ordering::Relaxed);
        for turn in 0..count {
            let endpoint = first.wrapping_add(turn) % count;
            if !fresh {
                while let Some(mut sender) = pool.take(endpoint) {
                    // Its task may still have to notice that the last answer is over.
                    if sender.is_ready() || sender.ready().await.is_ok() {
                        return Ok(Lease {
                            sender,
                            pool: Arc::clone(pool),
                            endpoint,
                            reused: true,
                        });
                    }
                }
            }
            let Some(address) = self.settings.endpoints.get(endpoint) else {
                continue;
            };
            // In a box: the way of a request that needs no new connection is not to carry its room.
            match timeout(connect, Box::pin(dial(address))).await {
                Ok(Ok(sender)) => {
                    return Ok(Lease {
                        sender,
                        pool: Arc::clone(pool),
                        endpoint,
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
    fn take(&self, endpoint: usize) -> Option<SendRequest<Outgoing>> {
        let mut idle = self.idle.lock().ok()?;
        let kept = idle.get_mut(endpoint)?;
        while let Some(Idle { sender, since }) = kept.pop() {
            if !sender.is_closed() && since.elapsed() < self.oldest {
                return Some(sender);
            }
        }
        None
    }

    fn give(&self, endpoint: usize, sender: SendRequest<Outgoing>) {
        let Ok(mut idle) = self.idle.lock() else {
            return;
        };
        let Some(kept) = idle.get_mut(endpoint) else {
            return;
        };
        if kept
            .first()
            .is_some_and(|oldest| oldest.since.elapsed() >= self.oldest)
        {
            kept.retain(|idle| !idle.sender.is_closed() && idle.since.elapsed() < self.oldest);
        }
        if kept.len() < self.keep_alive {
            kept.push(Idle {
                sender,
                since: Instant::now(),
            });
        }
    }
}

impl Lease {
    /// Whether another request used the connection before.
    pub(crate) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Sends a request and waits for the head of its answer.
    pub(crate) fn send(
        &mut self,
        request: Request<Outgoing>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Outgoing>>>> + use<>
    {
        self.sender.try_send_request(request)
    }

    /// The answer was taken to its end: the connection is kept for the next request.
    pub(crate) fn give_back(self) {
        if !self.sender.is_closed() {
            self.pool.give(self.endpoint, self.sender);
        }
    }
}

async fn dial(address: &Address) -> std::io::Result<SendRequest<Outgoing>> {
    match address {
        Address::Tcp(host, port) => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            let alive = socket2::TcpKeepalive::new().with_time(Duration::from_secs(60));
            socket2::SockRef::from(&stream).set_tcp_keepalive(&alive)?;
            handshake(TokioIo::new(stream)).await
        }
        Address::Unix(path) => handshake(TokioIo::new(UnixStream::connect(path).await?)).await,
    }
}

async fn handshake<S>(stream: S) -> std::io::Result<SendRequest<Outgoing>>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .handshake(stream)
        .await
        .map_err(std::io::Error::other)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to the app ended");
        }
    });
    Ok(sender)
}
