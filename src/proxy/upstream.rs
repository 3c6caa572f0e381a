//! One upstream: its servers, and a connection to one of them for each request. Which one is chosen in `balance`, idle
//! connections are kept in `pool`; the protocol spoken over them is not known here.

use std::fmt::{Display, Formatter};
use std::hash::{BuildHasher as _, RandomState};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use smallvec::SmallVec;
use tokio::time::{Instant, sleep};

use super::balance::{Balance, Deal, Dice};
use super::endpoint::{Address, Endpoint};
use super::h1::Connection;
use super::pool::{Home, Keep};
use super::{Buffer, UpstreamTimeouts};
use crate::message::reject::Reject;
use crate::net::dial::{Call, DialError, Dialer, Need};
use crate::net::stream::Stream;

/// How long idle connections are given to close when descriptors are scarce.
const RELIEF: Duration = Duration::from_millis(20);

/// Whose requests an upstream carries. Connections are never shared between two purposes: what a client may leave
/// behind on one must not become the response that decides who it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Purpose {
    /// Clients' own.
    Proxy,
    /// Subrequests that decide whether a client's request is allowed.
    Ask,
    /// Requests that check a password.
    Login,
}

/// The settings of an upstream; if they are equal after a reload, all of it is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct UpstreamSettings {
    /// Whose requests it carries.
    pub(crate) purpose: Purpose,
    /// Its name, or its URL.
    pub(crate) name: String,
    /// Its servers; each address once.
    pub(crate) servers: Vec<ServerSettings>,
    /// How one of them is chosen.
    pub(crate) balance: Balance,
    /// Its timeouts, unless the route sets others.
    pub(crate) timeouts: UpstreamTimeouts,
    /// The most idle connections per endpoint and worker.
    pub(crate) keep_alive: usize,
    /// How long a connection may have been idle to be used for a request that cannot be retried.
    pub(crate) fresh: Duration,
    /// Whether and how bodies are buffered.
    pub(crate) buffer: Option<BufferSettings>,
    /// Whether field names with `_` are forwarded.
    pub(crate) underscores: bool,
}

/// The settings of one server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ServerSettings {
    /// Where it listens.
    pub(crate) address: Address,
    /// Its share of the requests, compared with the others'; 0 gets none, 256 is the most.
    pub(crate) weight: u32,
    /// Whether it is used only while no other server can be.
    pub(crate) backup: bool,
}

impl ServerSettings {
    /// A server with the defaults.
    pub(crate) fn new(address: Address) -> Self {
        Self {
            address,
            weight: 1,
            backup: false,
        }
    }
}

impl Display for ServerSettings {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        self.address.fmt(f)?;
        if self.weight != 1 {
            write!(f, " (weight {})", self.weight)?;
        }
        if self.backup {
            f.write_str(" (backup)")?;
        }
        Ok(())
    }
}

/// The settings of a buffer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct BufferSettings {
    /// Bytes of a request body in memory.
    pub(crate) request: usize,
    /// Bytes of a response in memory.
    pub(crate) response: usize,
    /// The spool's directory and the most bytes that it may hold.
    pub(crate) spool: Option<(PathBuf, u64)>,
    /// Whether the upstream's configuration sets this.
    pub(crate) is_own: bool,
}

impl BufferSettings {
    /// The defaults.
    pub(crate) const DEFAULT: Self = Self {
        request: 64 << 10,
        response: 64 << 10,
        spool: None,
        is_own: false,
    };
}

impl UpstreamSettings {
    /// The default number of idle connections.
    pub(crate) const KEEP_ALIVE: u32 = 1024;
    /// The default of `fresh`: app servers close after 2 s (gunicorn) and more.
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
    /// One for each of the settings' servers, in their order.
    endpoints: Box<[Arc<Endpoint>]>,
    /// Each worker's turns.
    turns: Box<[Turns]>,
}

/// On cache lines of its own, because its worker writes to it for each request. Only that worker locks it.
#[derive(Debug)]
#[repr(align(128))]
struct Turns(Mutex<Turn>);

/// Whose turn it is in one worker.
#[derive(Debug)]
struct Turn {
    servers: Deal,
    backups: Deal,
    dice: Dice,
}

impl Turn {
    /// The turns of worker `which` of `workers`.
    fn new(servers: &[ServerSettings], which: usize, workers: usize) -> Self {
        let deal = |backup: bool| {
            let all = servers.iter().enumerate();
            let some = all.filter(|(_, server)| server.backup == backup);
            Deal::new(
                some.map(|(at, server)| (at, server.weight)),
                (which, workers),
            )
        };
        Self {
            servers: deal(false),
            backups: deal(true),
            dice: Dice::new(RandomState::new().hash_one(which)),
        }
    }
}

/// The servers that a request has tried in vain, by their index.
pub(super) type Tried = SmallVec<[usize; 4]>;

/// A connection to an endpoint that one request uses.
#[derive(Debug)]
pub(crate) struct Lease {
    /// The connection.
    pub(super) connection: Box<Connection>,
    /// The pool to return it to.
    pub(super) home: Home,
    /// Whether another request has used it before.
    pub(super) reused: bool,
}

/// Which idle connections may be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reuse {
    /// None: another one may be stale, too.
    Never,
    /// Any: the request can be retried.
    Any,
    /// Only one that the app is unlikely to be closing: the request cannot be retried.
    Fresh,
}

impl Upstream {
    /// An upstream for `workers` workers. Endpoints with the same address are taken over from `before`, the upstream of
    /// this name in the previous configuration.
    pub(crate) fn new(
        settings: UpstreamSettings,
        buffer: Option<Buffer>,
        workers: usize,
        before: Option<&Self>,
        dialer: Dialer,
    ) -> Self {
        let known = before.map_or(&[][..], |before| &before.endpoints);
        let endpoint = |server: &ServerSettings| {
            let kept = known
                .iter()
                .find(|known| *known.address() == server.address);
            kept.map_or_else(
                || Arc::new(Endpoint::new(server.address.clone(), workers)),
                Arc::clone,
            )
        };
        let turn = |which| Turns(Mutex::new(Turn::new(&settings.servers, which, workers)));
        Self {
            name: settings.name.clone(),
            host: host_of(&settings.name),
            buffer,
            endpoints: settings.servers.iter().map(endpoint).collect(),
            turns: (0..workers).map(turn).collect(),
            settings,
            dialer,
        }
    }

    /// Whether field names with `_` are forwarded.
    pub(crate) fn underscores(&self) -> bool {
        self.settings.underscores
    }

    /// Whether gRPC calls are streamed, which a `buffer` of the upstream's own prevents.
    pub(crate) fn streams_calls(&self) -> bool {
        self.buffer.as_ref().is_none_or(|buffer| !buffer.is_own)
    }

    /// The settings that it was made from.
    pub(crate) fn settings(&self) -> &UpstreamSettings {
        &self.settings
    }

    /// Its endpoints.
    fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.iter()
    }

    /// A connection: an idle one to the server that is chosen, or a new one. If a server cannot be reached, another one is
    /// tried. `now` is the current time.
    ///
    /// # Errors
    /// `UpstreamUnreachable` if no server could be connected to, `UpstreamBusy` if too few descriptors are left for a
    /// new connection.
    pub(crate) async fn lease(
        &self,
        worker: usize,
        connect: Duration,
        (reuse, now): (Reuse, Instant),
    ) -> Result<Lease, Reject> {
        let keep = Keep {
            most: self.settings.keep_alive,
            idle: self.settings.timeouts.idle,
        };
        let mut tried = Tried::new();
        while let Some(at) = self.pick(worker, &tried) {
            let endpoint = self.endpoints.get(at).ok_or(Reject::Internal)?;
            let counts = self.settings.balance.counts();
            let home = endpoint
                .home(worker, keep, counts)
                .ok_or(Reject::Internal)?;
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
            // Boxed: requests that need no new connection should not carry its state.
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
            tried.push(at);
        }
        Err(Reject::UpstreamUnreachable)
    }

    /// The index of the server for the next request of this worker, none of those that it has tried; `None` if no other
    /// is usable.
    fn pick(&self, worker: usize, tried: &Tried) -> Option<usize> {
        if self.endpoints.len() == 1 {
            return tried.is_empty().then_some(0);
        }
        let turn = &self.turns.get(worker)?.0;
        let mut turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let Turn {
            servers,
            backups,
            dice,
        } = &mut *turn;
        let load = |at: usize| self.endpoints.get(at).map_or(0, |it| it.in_flight());
        let may = |at: usize| !tried.contains(&at);
        let balance = self.settings.balance;
        let first = servers.pick(balance, dice, load, may);
        first.or_else(|| backups.pick(balance, dice, load, may))
    }

    /// Opens a connection. If descriptors are scarce, idle connections are closed, and it is retried once.
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

/// Retires the endpoints that the configuration `after` no longer has: their idle connections are closed within
/// seconds, though earlier requests may still hold the endpoints.
pub(crate) fn retire(before: &[Arc<Upstream>], after: &[Arc<Upstream>]) {
    for endpoint in before.iter().flat_map(|upstream| upstream.endpoints()) {
        let mut stay = after.iter().flat_map(|upstream| upstream.endpoints());
        if !stay.any(|known| Arc::ptr_eq(known, endpoint)) {
            endpoint.leave();
        }
    }
}

/// The `Host` to use if the client sent none: the upstream's name, or its URL's host.
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
