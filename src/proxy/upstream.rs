//! One upstream: its servers, and which of them a request's connection goes to. Idle connections are
//! kept in `pool`; what is said over them is not known here.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::HeaderValue;
use tokio::time::{Instant, sleep};

use super::h1::Connection;
use super::pool::{Address, Endpoint, Home, Keep};
use super::{Buffer, UpstreamTimeouts};
use crate::message::reject::Reject;
use crate::net::dial::{Call, DialError, Dialer, Need};
use crate::net::stream::Stream;

/// How long idle connections are given to end where descriptors are scarce.
const RELIEF: Duration = Duration::from_millis(20);

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

/// What an upstream is made from; equal settings keep all of it over a reload.
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
    /// Idle connections of each endpoint, in each worker.
    pub(crate) keep_alive: usize,
    /// How long a connection may have been idle for a request that cannot be repeated.
    pub(crate) fresh: Duration,
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
    /// Bytes of a response in memory.
    pub(crate) response: usize,
    /// The spool's directory and how much it may hold.
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
    /// Idle connections where nothing is said.
    pub(crate) const KEEP_ALIVE: u32 = 1024;
    /// `fresh` where nothing is said: app servers close after 2 s (gunicorn) and more.
    pub(crate) const FRESH: Duration = Duration::from_secs(1);
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
    dialer: Dialer,
    endpoints: Box<[Arc<Endpoint>]>,
    /// Each worker's place in the round of the endpoints.
    rounds: Box<[Round]>,
}

/// On cache lines of its own, as its worker writes to it for each request.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Round(AtomicUsize);

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

/// Which idle connections will do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reuse {
    /// None: another may be as stale as the one before.
    Never,
    /// Any: the request can be repeated.
    Any,
    /// One that the app will hardly be closing: the request cannot be repeated.
    Fresh,
}

impl Upstream {
    /// An upstream for `workers` workers. Endpoints of the same addresses are those that `before` has,
    /// which is the upstream of this name in the configuration before.
    pub(crate) fn new(
        settings: UpstreamSettings,
        buffer: Option<Buffer>,
        workers: usize,
        before: Option<&Self>,
        dialer: Dialer,
    ) -> Self {
        let known = before.map_or(&[][..], |before| &before.endpoints);
        let endpoint = |address: &Address| {
            let kept = known.iter().find(|known| known.address() == address);
            kept.map_or_else(
                || Arc::new(Endpoint::new(address.clone(), workers)),
                Arc::clone,
            )
        };
        Self {
            name: settings.name.clone(),
            host: host_of(&settings.name),
            buffer,
            endpoints: settings.endpoints.iter().map(endpoint).collect(),
            rounds: (0..workers).map(|_| Round::default()).collect(),
            settings,
            dialer,
        }
    }

    /// Whether names of fields with `_` reach it.
    pub(crate) fn underscores(&self) -> bool {
        self.settings.underscores
    }

    /// Whether calls of gRPC stream through, which an upstream with a `buffer` of its own does not let them.
    pub(crate) fn streams_calls(&self) -> bool {
        self.buffer.as_ref().is_none_or(|buffer| !buffer.is_own)
    }

    /// What it was made from.
    pub(crate) fn settings(&self) -> &UpstreamSettings {
        &self.settings
    }

    /// Its endpoints.
    fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.iter()
    }

    /// A connection: an idle one of the endpoint whose turn it is, or a new one. An endpoint that
    /// cannot be reached passes its turn on. `now` is the present time.
    ///
    /// # Errors
    /// `UpstreamUnreachable` when no endpoint could be connected to, `UpstreamBusy` when too few
    /// descriptors are left for a new connection.
    pub(crate) async fn lease(
        &self,
        worker: usize,
        connect: Duration,
        (reuse, now): (Reuse, Instant),
    ) -> Result<Lease, Reject> {
        let round = self.rounds.get(worker).ok_or(Reject::Internal)?;
        let count = self.endpoints.len();
        let first = round.0.fetch_add(1, Ordering::Relaxed);
        let keep = Keep {
            most: self.settings.keep_alive,
            idle: self.settings.timeouts.idle,
        };
        for turn in 0..count {
            let at = first.wrapping_add(turn) % count;
            let Some(endpoint) = self.endpoints.get(at) else {
                continue;
            };
            let home = endpoint.home(worker, keep).ok_or(Reject::Internal)?;
            let idle = match reuse {
                Reuse::Never => None,
                Reuse::Any => home.take(now, Duration::MAX),
                Reuse::Fresh => home.take(now, self.settings.fresh),
            };
            if let Some(connection) = idle {
                return Ok(Lease {
                    connection,
                    home,
                    reused: true,
                });
            }
            // In a box: the way of a request that needs no new connection is not to carry its room.
            match Box::pin(self.dial(endpoint.address(), connect)).await {
                Ok(stream) => {
                    return Ok(Lease {
                        connection: Box::new(Connection::new(stream)),
                        home,
                        reused: false,
                    });
                }
                Err(DialError::Scarce) => return Err(Reject::UpstreamBusy),
                Err(error) => endpoint.is_unreachable(&self.name, &error),
            }
        }
        Err(Reject::UpstreamUnreachable)
    }

    /// A new connection. Where descriptors are scarce, idle connections are closed, and it is tried
    /// once more.
    async fn dial(&self, address: &Address, within: Duration) -> Result<Stream, DialError> {
        match dial(&self.dialer, address, within).await {
            Err(DialError::Scarce) => {
                sleep(RELIEF).await;
                dial(&self.dialer, address, within).await
            }
            dialled => dialled,
        }
    }

    /// Closes this worker's idle connections.
    pub(crate) fn close_idle(&self, worker: usize) {
        for endpoint in &self.endpoints {
            endpoint.close_idle(worker);
        }
    }
}

/// Tells the endpoints that the configuration `after` does not have any more: their idle connections
/// are closed within seconds, though requests of before may still hold on to them.
pub(crate) fn retire(before: &[Arc<Upstream>], after: &[Arc<Upstream>]) {
    for endpoint in before.iter().flat_map(|upstream| upstream.endpoints()) {
        let mut stay = after.iter().flat_map(|upstream| upstream.endpoints());
        if !stay.any(|known| Arc::ptr_eq(known, endpoint)) {
            endpoint.leave();
        }
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

async fn dial(dialer: &Dialer, address: &Address, within: Duration) -> Result<Stream, DialError> {
    let need = Need::Client;
    match address {
        Address::Tcp(host, port) => {
            let call = Call {
                host,
                port: *port,
                need,
                within,
            };
            let stream = dialer.tcp(call, |_| true).await?;
            stream.set_nodelay(true)?;
            let alive = socket2::TcpKeepalive::new().with_time(Duration::from_secs(60));
            socket2::SockRef::from(&stream).set_tcp_keepalive(&alive)?;
            Ok(Stream::Tcp(stream))
        }
        Address::Unix(path) => dialer.unix(path, need, within).await.map(Stream::Unix),
    }
}
