//! One upstream: its servers, and a connection to one of them for each request. Which one is chosen in `balance`, idle
//! connections are kept in `pool`; the protocol spoken over them is not known here.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use smallvec::SmallVec;
use tokio::time::{Instant, sleep};

use super::Buffer;
use super::balance::{Deal, Dice};
use super::eject::{Change, Chosen, Moment, Standings};
use super::endpoint::{Address, Endpoint, ServerNow};
use super::h1::Connection;
use super::hold::Hold;
use super::pool::{Home, Keep};
use super::retry::{self, Budget, Condition, RetrySettings};
use super::settings::{ServerSettings, UpstreamSettings};
use crate::message::reject::Reject;
use crate::net::dial::{Call, DialError, Dialer, Need};
use crate::net::stream::Stream;
use crate::observe::counts::{Lanes, UpstreamLane};

/// How long idle connections are given to close when descriptors are scarce.
const RELIEF: Duration = Duration::from_millis(20);

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
    /// Whether some status is a failure.
    heeds_statuses: bool,
    dialer: Dialer,
    /// One for each of the settings' servers, in their order.
    endpoints: Box<[Arc<Endpoint>]>,
    /// Their addresses, for access records; empty if there is one.
    names: Box<[String]>,
    /// Each worker's turns.
    turns: Box<[Turns]>,
    /// Who waits while no server can be connected to.
    hold: Arc<Hold>,
    /// Who is taken out after failures.
    standings: Arc<Standings>,
    /// What each worker counts.
    counts: Arc<Lanes<UpstreamLane>>,
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
    /// Servers that are taken out: tried last, or when they are due.
    outs: Deal,
    /// When the first of them is due.
    due: Option<Moment>,
    /// How many changes of standings this has seen; `None` before the first deal.
    seen: Option<u64>,
    dice: Dice,
    budget: Budget,
}

impl Turn {
    /// The turns of worker `which`; nothing is dealt yet.
    fn new(which: usize) -> Self {
        Self {
            servers: Deal::default(),
            backups: Deal::default(),
            outs: Deal::default(),
            due: None,
            seen: None,
            dice: Dice::new(RandomState::new().hash_one(which)),
            budget: Budget::default(),
        }
    }
}

/// What a request has tried so far.
#[derive(Debug, Default)]
pub(super) struct Tries {
    /// How often.
    pub(super) made: u32,
    /// The servers that failed, by their index, since all were tried last.
    pub(super) tried: SmallVec<[usize; 4]>,
    /// When the first connection was tried.
    pub(super) first: Option<Instant>,
    /// Whether an idle connection turned out to be closed.
    pub(super) stale: bool,
    /// Whether it waits, or has waited, for a server that can be connected to.
    pub(super) held: bool,
    /// How often it has paused.
    pauses: u32,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum NotLeased {
    /// The server that was chosen could not be connected to, or none was left to choose.
    Failed,
    /// Others wait for a server that can be connected to.
    Held,
    /// There is no use in trying on.
    Refused(Reject),
}

/// A connection to an endpoint that one request uses.
#[derive(Debug)]
pub(crate) struct Lease {
    /// The connection.
    pub(super) connection: Box<Connection>,
    /// The pool to return it to.
    pub(super) home: Home,
    /// Whether another request has used it before.
    pub(super) reused: bool,
    /// The index of the server.
    pub(super) server: usize,
    /// How it was chosen.
    pub(super) chosen: Chosen,
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
        let turn = |which| Turns(Mutex::new(Turn::new(which)));
        Self {
            name: settings.name.clone(),
            host: host_of(&settings.name),
            buffer,
            endpoints: settings.servers.iter().map(endpoint).collect(),
            names: match settings.servers.as_slice() {
                [_] => Box::default(),
                servers => servers.iter().map(|it| it.address.to_string()).collect(),
            },
            turns: (0..workers).map(turn).collect(),
            hold: before.map_or_else(Arc::default, |before| Arc::clone(&before.hold)),
            standings: before.map_or_else(Arc::default, |before| Arc::clone(&before.standings)),
            counts: before.map_or_else(
                || Arc::new(Lanes::new(workers)),
                |before| Arc::clone(&before.counts),
            ),
            heeds_statuses: settings.retries.on.has_statuses()
                || settings.eject.is_some_and(|eject| eject.on.has_statuses()),
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

    /// The address of the server of this index, if there are several.
    pub(crate) fn server_name(&self, at: usize) -> Option<&str> {
        self.names.get(at).map(String::as_str)
    }

    /// Counts something of this worker.
    pub(super) fn count(&self, worker: usize, count: impl FnOnce(&UpstreamLane)) {
        if let Some(lane) = self.counts.of(worker) {
            count(lane);
        }
    }

    /// Counts how long a client of this worker waited for the head of a response.
    pub(crate) fn count_first_byte(&self, worker: usize, waited: Duration) {
        self.count(worker, |lane| lane.first_byte.count(waited));
    }

    /// What its workers have counted.
    pub(crate) fn counts(&self) -> &Lanes<UpstreamLane> {
        &self.counts
    }

    /// Its servers as they stand.
    pub(crate) fn servers(&self) -> impl Iterator<Item = ServerNow> {
        self.endpoints.iter().map(|endpoint| endpoint.now())
    }

    /// How many requests are held, until a server can be connected to.
    pub(crate) fn held(&self) -> usize {
        self.hold.count()
    }

    /// The settings that it was made from.
    pub(crate) fn settings(&self) -> &UpstreamSettings {
        &self.settings
    }

    /// Its endpoints.
    fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.iter()
    }

    /// What is tried again.
    pub(super) fn retries(&self) -> &RetrySettings {
        &self.settings.retries
    }

    /// The failure that a response with this status is: to be tried again, or to be counted.
    pub(super) fn condition_of(&self, status: StatusCode) -> Option<Condition> {
        if !self.heeds_statuses {
            return None;
        }
        let named = [
            Some(self.settings.retries.on),
            self.settings.eject.map(|eject| eject.on),
        ];
        let is_named =
            |condition: &Condition| named.iter().flatten().any(|on| on.contains(*condition));
        Condition::of(status).filter(is_named)
    }

    /// Who waits while no server can be connected to.
    pub(super) fn hold(&self) -> &Hold {
        &self.hold
    }

    /// A connection to the server that is chosen of those that the request has not tried: an idle one, or a new one. `now`
    /// is the current time.
    ///
    /// # Errors
    /// `Failed` if it could not be connected to, which is noted; `Refused` with `UpstreamBusy` if too few descriptors are
    /// left for a new connection.
    pub(super) async fn lease(
        &self,
        worker: usize,
        connect: Duration,
        (reuse, now): (Reuse, Instant),
        tries: &mut Tries,
    ) -> Result<Lease, NotLeased> {
        let internal = NotLeased::Refused(Reject::Internal);
        let Some((server, chosen)) = self.pick(worker, tries, (reuse, now)) else {
            return Err(NotLeased::Failed);
        };
        let keep = Keep {
            most: self.settings.keep_alive,
            idle: self.settings.timeouts.idle,
        };
        let Some(endpoint) = self.endpoints.get(server) else {
            return Err(internal);
        };
        let counts = self.settings.balance.counts();
        let Some(home) = endpoint.home(worker, keep, counts) else {
            return Err(internal);
        };
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
                server,
                chosen,
            });
        }
        let holds = !self.settings.retries.hold.is_zero();
        if holds && !tries.held && self.hold.is_used() {
            return Err(NotLeased::Held);
        }
        // Boxed: requests that need no new connection should not carry its state.
        let dialled = Box::pin(self.dial(endpoint.address(), connect));
        tries.first.get_or_insert_with(Instant::now);
        match dialled.await {
            Ok(stream) => Ok(Lease {
                connection: Box::new(Connection::new(stream)),
                home,
                reused: false,
                server,
                chosen,
            }),
            Err(DialError::Scarce) => Err(NotLeased::Refused(Reject::UpstreamBusy)),
            Err(error) => {
                endpoint.is_unreachable(&self.name, &error);
                home.counts().failed("connect_failure");
                tries.made += 1;
                tries.tried.push(server);
                self.fails(server, Condition::ConnectFailure, chosen);
                Err(NotLeased::Failed)
            }
        }
    }

    /// The index of the server for the next try, and how it was chosen; `None` if all were tried.
    fn pick(
        &self,
        worker: usize,
        tries: &Tries,
        (reuse, now): (Reuse, Instant),
    ) -> Option<(usize, Chosen)> {
        if self.endpoints.len() == 1 {
            return tries.tried.is_empty().then_some((0, Chosen::In));
        }
        let mut turn = self.turn(worker)?;
        let changes = self.standings.changes();
        if turn.seen != Some(changes) {
            self.deal(&mut turn, worker);
            turn.seen = Some(changes);
        }
        let may = |at: usize| !tries.tried.contains(&at);
        if let (Some(due), Some(eject)) = (turn.due, &self.settings.eject) {
            let now = self.standings.moment(now);
            if now >= due {
                let repeatable = reuse == Reuse::Any;
                let is_tried = |at: &usize| {
                    let endpoint = self.endpoints.get(*at);
                    may(*at)
                        && endpoint
                            .is_some_and(|it| it.standing().tries(now, repeatable, eject.time))
                };
                let found = turn.outs.all().find(is_tried);
                turn.due = turn.outs.all().filter_map(|at| self.due(at)).min();
                if let Some(found) = found {
                    return Some((found, Chosen::Due));
                }
            }
        }
        let Turn {
            servers,
            backups,
            outs,
            dice,
            ..
        } = &mut *turn;
        let load = |at: usize| self.endpoints.get(at).map_or(0, |it| it.in_flight());
        let balance = self.settings.balance;
        let first = servers.pick(balance, dice, load, may);
        let first = first.or_else(|| backups.pick(balance, dice, load, may));
        let first = first.map(|at| (at, Chosen::In));
        first.or_else(|| {
            outs.pick(balance, dice, load, may)
                .map(|at| (at, Chosen::Last))
        })
    }

    /// Deals the servers to this worker anew, as they stand.
    fn deal(&self, turn: &mut Turn, worker: usize) {
        let which = (worker, self.turns.len());
        let (mut servers, mut backups, mut outs) = (Vec::new(), Vec::new(), Vec::new());
        for (at, server) in self.settings.servers.iter().enumerate() {
            let into = if self.due(at).is_some() {
                &mut outs
            } else if server.backup {
                &mut backups
            } else {
                &mut servers
            };
            into.push((at, server.weight));
        }
        turn.servers = Deal::new(servers, which);
        turn.backups = Deal::new(backups, which);
        turn.outs = Deal::new(outs, which);
        turn.due = turn.outs.all().filter_map(|at| self.due(at)).min();
    }

    /// When the server of this index may be tried again, if it is taken out.
    fn due(&self, at: usize) -> Option<Moment> {
        self.settings.eject?;
        self.endpoints.get(at)?.standing().due()
    }

    /// A request to this server has failed; `chosen` as in its lease.
    pub(super) fn fails(&self, server: usize, failure: Condition, chosen: Chosen) {
        let (Some(eject), Some(endpoint)) = (&self.settings.eject, self.endpoints.get(server))
        else {
            return;
        };
        let all = self.endpoints.iter().map(|endpoint| endpoint.standing());
        let server = (endpoint.standing(), chosen);
        let (upstream, address) = (self.name.as_str(), endpoint.address());
        match self.standings.fails(eject, failure, server, all) {
            Change::None | Change::Back(..) => {}
            Change::Out(time, left, all) => {
                tracing::warn!(upstream.name = upstream, endpoint = %address, %failure, r#for = ?time, "the server is taken out, {left} of {all} left");
            }
            Change::Kept => {
                tracing::warn!(upstream.name = upstream, endpoint = %address, %failure, most = eject.most, "the server fails, and is not taken out: too few would be left");
            }
        }
    }

    /// A request to this server was answered; `chosen` as in its lease.
    pub(super) fn succeeds(&self, server: usize, chosen: Chosen) {
        let (Some(_), Some(endpoint)) = (&self.settings.eject, self.endpoints.get(server)) else {
            return;
        };
        let all = self.endpoints.iter().map(|endpoint| endpoint.standing());
        let server = (endpoint.standing(), chosen);
        if let Change::Back(left, all) = self.standings.succeeds(server, all) {
            tracing::info!(upstream.name = self.name, endpoint = %endpoint.address(), "the server is back, {left} of {all}");
        }
    }

    fn turn(&self, worker: usize) -> Option<MutexGuard<'_, Turn>> {
        let turns = self.turns.get(worker)?;
        Some(turns.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether there is a server that was not tried.
    pub(super) fn has_other(&self, tries: &Tries) -> bool {
        let mut servers = self.settings.servers.iter().enumerate();
        servers.any(|(at, server)| server.weight > 0 && !tries.tried.contains(&at))
    }

    /// All servers were tried: how long to pause before any of them is tried again.
    pub(super) fn pause(&self, worker: usize, tries: &mut Tries) -> Duration {
        tries.tried.clear();
        let chance = self
            .turn(worker)
            .map_or(50, |mut turn| turn.dice.below(100));
        let nth = tries.pauses;
        tries.pauses += 1;
        retry::pause(nth, u32::try_from(chance).unwrap_or(50))
    }

    /// A request comes to this worker, of which a share may be sent again.
    pub(super) fn comes(&self, worker: usize) {
        if let Some(mut turn) = self.turn(worker) {
            turn.budget.comes(self.settings.retries.budget);
        }
    }

    /// Takes one try from this worker's budget, if there is one.
    pub(super) fn takes(&self, worker: usize) -> bool {
        let turn = self.turn(worker);
        turn.is_some_and(|mut turn| turn.budget.take(Instant::now()))
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
