//! One upstream: its servers, and a connection to one of them for each request. Which one is chosen in `balance`, idle
//! connections are kept in `pool`; the protocol spoken over them is not known here.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use smallvec::SmallVec;
use tokio::time::{Instant, sleep, timeout_at};

use super::Buffer;
use super::balance::{Deal, Dice, STEPS, hash, step};
use super::check::{Unhealthy, check};
use super::dial::dial;
use super::eject::{Change, Chosen, Moment, Standings};
use super::endpoint::{Address, Endpoint, ServerNow};
use super::h1::Connection;
use super::health::HealthSettings;
use super::hold::{Hold, Waiting};
use super::pool::{Home, Keep};
use super::queue::{Queue, Seats, Stands};
use super::retry::{self, Budget, Condition, RetrySettings};
use super::settings::{ServerSettings, UpstreamSettings};
use super::sticky::Sticky;
use crate::message::reject::Reject;
use crate::net::dial::{DialError, Dialer, Need};
use crate::net::stream::Stream;
use crate::observe::counts::{Lanes, UpstreamLane};

/// Servers that join within this many milliseconds of the first ones have their whole weight at once.
const TOGETHER: Moment = 60_000;
/// How often a request that waits for a place looks whether a server that is out is due.
const DUE_EVERY: Duration = Duration::from_millis(500);
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
    /// The cookies of its servers.
    pub(crate) sticky: Option<Sticky>,
    /// The hashes of their addresses, where a value of the request decides.
    hashes: Box<[u64]>,
    /// Each worker's turns.
    turns: Box<[Turns]>,
    /// Who waits while no server can be connected to.
    hold: Arc<Hold>,
    /// Who waits while all servers have as many requests as they may.
    queue: Arc<Queue>,
    /// The servers for who waits so, if one has a limit.
    seats: Option<Seats>,
    /// Whether requests in flight are counted.
    is_counted: bool,
    /// Whether there is one server, with neither a limit nor checks.
    is_plain: bool,
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
    /// When the share of a server that came back grows.
    grows: Option<Moment>,
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
            grows: None,
            seen: None,
            dice: Dice::new(RandomState::new().hash_one(which)),
            budget: Budget::default(),
        }
    }

    /// The indices of all servers that are dealt.
    fn all(&self) -> impl Iterator<Item = usize> {
        let all = self.servers.all().chain(self.backups.all());
        all.chain(self.outs.all())
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
    /// What the request says of its server.
    pub(super) wish: Wish,
}

impl Tries {
    /// Nothing is tried yet.
    pub(super) fn new(wish: Wish) -> Self {
        Self {
            wish,
            ..Self::default()
        }
    }
}

/// What a request says of the server that it is to have.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wish {
    /// What decides on its server, hashed.
    pub(super) key: Option<u64>,
    /// The index of the server that its cookie names.
    pub(super) stuck: Option<usize>,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum NotLeased {
    /// The server that was chosen could not be connected to, or none was left to choose.
    Failed,
    /// Others wait for a server that can be connected to.
    Held,
    /// All servers that are left have as many requests as they may.
    Full,
    /// There is no use in trying on.
    Refused(Reject),
}

/// The place of a request at a server.
#[derive(Debug)]
pub(super) struct Place {
    server: usize,
    chosen: Chosen,
    home: Home,
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
        let queue = before.map_or_else(Arc::default, |before| Arc::clone(&before.queue));
        let joins = before.map(|before| before.standings.moment(Instant::now()));
        let joins = joins.filter(|now| *now > TOGETHER);
        let endpoint = |server: &ServerSettings| {
            let kept = known
                .iter()
                .find(|known| *known.address() == server.address);
            kept.map_or_else(
                || {
                    let address = server.address.clone();
                    let endpoint = Endpoint::new(address, workers, server.max, &queue);
                    if let Some(now) = joins {
                        endpoint.comes(now);
                    }
                    Arc::new(endpoint)
                },
                Arc::clone,
            )
        };
        let endpoints: Box<[_]> = settings.servers.iter().map(endpoint).collect();
        let loads = || endpoints.iter().map(|it| Arc::clone(it.load()));
        let turn = |which| Turns(Mutex::new(Turn::new(which)));
        Self {
            name: settings.name.clone(),
            host: host_of(&settings.name),
            buffer,
            seats: settings.limits.map(|_| loads().collect()),
            is_counted: settings.limits.is_some() || settings.balance.counts(),
            is_plain: settings.servers.len() == 1
                && settings.limits.is_none()
                && settings.health.is_none(),
            endpoints,
            queue,
            names: match settings.servers.as_slice() {
                [_] => Box::default(),
                servers => servers.iter().map(|it| it.address.to_string()).collect(),
            },
            sticky: settings
                .sticky
                .as_ref()
                .map(|sticky| Sticky::new(sticky, settings.servers.iter().map(|it| &it.address))),
            hashes: match &settings.hash {
                Some(_) => settings
                    .servers
                    .iter()
                    .map(|it| hash(it.address.to_string().as_bytes()))
                    .collect(),
                None => Box::default(),
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
        self.endpoints.iter().enumerate().map(|(at, endpoint)| {
            let now = endpoint.now();
            ServerNow {
                is_up: now.is_up && !self.is_down(at),
                ..now
            }
        })
    }

    /// How many requests wait, until a server can be connected to or has a place.
    pub(crate) fn held(&self) -> usize {
        self.hold.count() + self.queue.count()
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

    /// One more request waits while no server can be connected to; `None` if `most` wait, for whatever.
    pub(super) fn hold(&self, most: usize) -> Option<Waiting<'_>> {
        self.hold.enter(most.saturating_sub(self.queue.count()))
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
        let place = self.choose(worker, tries, (reuse, now))?;
        self.lease_at(place, connect, (reuse, now), tries).await
    }

    /// A connection to the server at which the request has a place.
    ///
    /// # Errors
    /// As for [`Upstream::lease`].
    pub(super) async fn lease_at(
        &self,
        place: Place,
        connect: Duration,
        (reuse, now): (Reuse, Instant),
        tries: &mut Tries,
    ) -> Result<Lease, NotLeased> {
        let Place {
            server,
            chosen,
            home,
        } = place;
        let Some(endpoint) = self.endpoints.get(server) else {
            return Err(NotLeased::Refused(Reject::Internal));
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

    /// A place at the server for the next try.
    ///
    /// # Errors
    /// `Failed` if all were tried, `Full` if those that were not have as many requests as they may, or others wait.
    fn choose(
        &self,
        worker: usize,
        tries: &Tries,
        (reuse, now): (Reuse, Instant),
    ) -> Result<Place, NotLeased> {
        loop {
            let (server, chosen) = self.pick(worker, tries, (reuse, now))?;
            // Else another request was quicker.
            if !self.is_counted || self.enter(server) {
                return self.place_at(worker, server, chosen);
            }
        }
    }

    /// One more request is in flight at this server, if there may be.
    fn enter(&self, server: usize) -> bool {
        let endpoint = self.endpoints.get(server);
        endpoint.is_some_and(|endpoint| endpoint.load().enter())
    }

    /// The place of a request at this server, which counts it already.
    fn place_at(&self, worker: usize, server: usize, chosen: Chosen) -> Result<Place, NotLeased> {
        let keep = Keep {
            most: self.settings.keep_alive,
            idle: self.settings.timeouts.idle,
        };
        let endpoint = self.endpoints.get(server);
        let home = endpoint.and_then(|endpoint| endpoint.home(worker, keep, self.is_counted));
        let home = home.ok_or(NotLeased::Refused(Reject::Internal))?;
        Ok(Place {
            server,
            chosen,
            home,
        })
    }

    /// Waits for a place at a server that the request has not tried.
    ///
    /// # Errors
    /// `UpstreamBusy` if too many wait, or too long.
    pub(super) async fn place(
        &self,
        worker: usize,
        reuse: Reuse,
        (tries, until): (&Tries, Instant),
    ) -> Result<Place, NotLeased> {
        let busy = NotLeased::Refused(Reject::UpstreamBusy);
        let (Some(limits), Some(seats)) = (self.settings.limits, &self.seats) else {
            return Err(NotLeased::Failed);
        };
        let servers = self.settings.servers.iter().enumerate();
        let drained = servers.filter_map(|(at, server)| (server.weight == 0).then_some(at));
        let not = tries.tried.iter().copied().chain(drained).collect();
        let most = limits.queue.saturating_sub(self.hold.count());
        let Some(mut waiting) = self.queue.wait(seats, not, most) else {
            return Err(busy);
        };
        loop {
            let some_time = until.min(Instant::now() + DUE_EVERY);
            match timeout_at(some_time, waiting.place()).await {
                Ok(Some(server)) => {
                    let is_out = self.due(server).is_some();
                    let chosen = if is_out { Chosen::Last } else { Chosen::In };
                    return self.place_at(worker, server, chosen);
                }
                Ok(None) => return self.choose(worker, tries, (reuse, Instant::now())),
                Err(_) => {}
            }
            let now = Instant::now();
            if now >= until {
                return Err(busy);
            }
            let found = self
                .turn(worker)
                .and_then(|mut turn| self.pick_due(&mut turn, tries, (reuse, now)));
            if let Some(server) = found
                && self.enter(server)
            {
                return self.place_at(worker, server, Chosen::Due);
            }
        }
    }

    /// How long a request waits for a place.
    pub(super) fn wait(&self) -> Duration {
        self.settings.limits.map_or(Duration::ZERO, |it| it.wait)
    }

    /// Whether the request may try this server now.
    fn may_have(&self, at: usize, tries: &Tries) -> bool {
        !tries.tried.contains(&at) && !self.is_full(at)
    }

    /// Whether this server has as many requests as it may.
    fn is_full(&self, at: usize) -> bool {
        let full = |endpoint: &Arc<Endpoint>| endpoint.load().is_full();
        self.seats.is_some() && self.endpoints.get(at).is_some_and(full)
    }

    /// Whether requests wait for a place.
    fn has_queue(&self) -> bool {
        self.seats.is_some() && self.queue.is_used()
    }

    /// The index of the server for the next try, and how it was chosen.
    ///
    /// # Errors
    /// As for [`Upstream::choose`].
    fn pick(
        &self,
        worker: usize,
        tries: &Tries,
        (reuse, now): (Reuse, Instant),
    ) -> Result<(usize, Chosen), NotLeased> {
        if self.is_plain {
            let is_left = tries.tried.is_empty();
            return is_left.then_some((0, Chosen::In)).ok_or(NotLeased::Failed);
        }
        let internal = NotLeased::Refused(Reject::Internal);
        let mut turn = self.turn(worker).ok_or(internal)?;
        let changes = self.standings.changes();
        let grows = turn.grows;
        if turn.seen != Some(changes) || grows.is_some_and(|at| self.standings.moment(now) >= at) {
            self.deal(&mut turn, worker, now);
            turn.seen = Some(changes);
        }
        if let Some(found) = self.pick_due(&mut turn, tries, (reuse, now)) {
            return Ok((found, Chosen::Due));
        }
        let is_left = |at: usize| !tries.tried.contains(&at);
        if turn.all().next().is_none() {
            return Err(NotLeased::Refused(self.unhealthy()));
        }
        if self.has_queue() {
            let is_left = turn.all().any(is_left);
            return Err(match is_left {
                true => NotLeased::Full,
                false => NotLeased::Failed,
            });
        }
        let may = |at: usize| self.may_have(at, tries);
        let Turn {
            servers,
            backups,
            outs,
            dice,
            ..
        } = &mut *turn;
        let load = |at: usize| self.endpoints.get(at).map_or(0, |it| it.load().count());
        let balance = self.settings.balance;
        if let Some(stuck) = tries.wish.stuck
            && may(stuck)
            && self.is_usable(stuck)
        {
            return Ok((stuck, Chosen::In));
        }
        let first = match tries.wish.key {
            Some(key) => {
                let first = servers.belongs(key, &self.hashes, may);
                first.or_else(|| backups.belongs(key, &self.hashes, may))
            }
            None => {
                let first = servers.pick(balance, dice, load, may);
                first.or_else(|| backups.pick(balance, dice, load, may))
            }
        };
        if let Some(at) = first {
            return Ok((at, Chosen::In));
        }
        // One that is full is worth waiting for; one that is out is not worth trying meanwhile.
        if self.seats.is_some() && servers.all().chain(backups.all()).any(is_left) {
            return Err(NotLeased::Full);
        }
        match outs.pick(balance, dice, load, may) {
            Some(at) => Ok((at, Chosen::Last)),
            None if self.seats.is_some() && outs.all().any(is_left) => Err(NotLeased::Full),
            None => Err(NotLeased::Failed),
        }
    }

    /// The index of a server that is out and whose time is over, if this request is the one that tries it.
    fn pick_due(
        &self,
        turn: &mut Turn,
        tries: &Tries,
        (reuse, now): (Reuse, Instant),
    ) -> Option<usize> {
        let eject = self.settings.eject.as_ref()?;
        let due = turn.due?;
        let now = self.standings.moment(now);
        if now < due {
            return None;
        }
        let repeatable = reuse == Reuse::Any;
        let is_tried = |at: &usize| {
            let endpoint = self.endpoints.get(*at);
            self.may_have(*at, tries)
                && endpoint.is_some_and(|it| it.standing().tries(now, repeatable, eject.time))
        };
        let found = turn.outs.all().find(is_tried);
        turn.due = turn.outs.all().filter_map(|at| self.due(at)).min();
        found
    }

    /// Deals the servers to this worker anew, as they stand.
    fn deal(&self, turn: &mut Turn, worker: usize, now: Instant) {
        let now = self.standings.moment(now);
        turn.grows = None;
        let which = (worker, self.turns.len());
        let (mut servers, mut backups, mut outs) = (Vec::new(), Vec::new(), Vec::new());
        let skips_down = !self.tries_all();
        for (at, server) in self.settings.servers.iter().enumerate() {
            if skips_down && self.is_down(at) {
                continue;
            }
            let into = if self.due(at).is_some() {
                &mut outs
            } else if server.backup {
                &mut backups
            } else {
                &mut servers
            };
            let weight = match self.settings.slow_start {
                Duration::ZERO => server.weight,
                _ => {
                    let (step, next) = self.step(at, now);
                    let next = next.map(|it| now.saturating_add(it));
                    turn.grows = turn.grows.into_iter().chain(next).min();
                    server.weight * step
                }
            };
            into.push((at, weight));
        }
        turn.servers = Deal::new(servers, which);
        turn.backups = Deal::new(backups, which);
        turn.outs = Deal::new(outs, which);
        turn.due = turn.outs.all().filter_map(|at| self.due(at)).min();
    }

    /// The step of this server's slow start, and after how many milliseconds the next one is.
    fn step(&self, at: usize, now: Moment) -> (u32, Option<u64>) {
        let came = self.endpoints.get(at).map_or(0, |it| it.came());
        if came == 0 {
            return (STEPS, None);
        }
        let since = Duration::from_millis(now.saturating_sub(came));
        let (step, next) = step(since, self.settings.slow_start);
        let millis = |next: Duration| u64::try_from(next.as_millis()).unwrap_or(u64::MAX);
        // Rounded up.
        (step, next.map(|next| millis(next).saturating_add(1)))
    }

    /// Whether a client whose cookie names this server is served there, or waits for others while it is full.
    pub(crate) fn is_usable(&self, at: usize) -> bool {
        self.due(at).is_none() && (!self.is_down(at) || self.tries_all())
    }

    /// Whether checks have taken this server out.
    fn is_down(&self, at: usize) -> bool {
        let down = |endpoint: &Arc<Endpoint>| endpoint.health().is_down();
        self.settings.health.is_some() && self.endpoints.get(at).is_some_and(down)
    }

    /// Whether checks have taken all servers out, and requests go to them all the same.
    fn tries_all(&self) -> bool {
        let tries = self.settings.health.as_ref();
        tries.is_some_and(|health| health.tries_all) && self.all_down()
    }

    fn all_down(&self) -> bool {
        let mut servers = self.settings.servers.iter().enumerate();
        servers.all(|(at, server)| server.weight == 0 || self.is_down(at))
    }

    /// The refusal while checks have taken all servers out.
    fn unhealthy(&self) -> Reject {
        let interval = self.settings.health.as_ref().map(|health| health.interval);
        let interval = interval.unwrap_or_default();
        let seconds = interval.as_secs() + u64::from(interval.subsec_nanos() > 0);
        Reject::UpstreamUnhealthy(seconds.max(1))
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
                self.stands(endpoint);
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
            endpoint.comes(self.standings.moment(Instant::now()));
            self.standings.change();
            self.stands(endpoint);
            tracing::info!(upstream.name = self.name, endpoint = %endpoint.address(), "the server is back, {left} of {all}");
        }
    }

    /// Tells who waits for a place that this server is out, or back.
    fn stands(&self, endpoint: &Endpoint) {
        if self.seats.is_none() {
            return;
        }
        endpoint.load().stands(|| {
            let is_checked = self.settings.health.is_some();
            if is_checked && endpoint.health().is_down() && !self.tries_all() {
                Stands::Down
            } else if self.settings.eject.is_some() && endpoint.standing().is_out() {
                Stands::Out
            } else {
                Stands::In
            }
        });
    }

    /// How its servers are checked.
    pub(crate) fn health(&self) -> Option<&HealthSettings> {
        self.settings.health.as_ref()
    }

    /// Checks the server of this index once.
    ///
    /// # Errors
    /// Why it is not healthy.
    pub(crate) async fn check(&self, at: usize) -> Result<(), Unhealthy> {
        match (self.endpoints.get(at), &self.settings.health) {
            (Some(endpoint), Some(health)) => check(&self.dialer, endpoint.address(), health).await,
            _ => Ok(()),
        }
    }

    /// Whether this server and one of another configuration are the same.
    pub(crate) fn is_same(&self, at: usize, (other, other_at): (&Self, usize)) -> bool {
        let other = other.endpoints.get(other_at);
        let same = |one, other| Arc::ptr_eq(one, other);
        self.endpoints
            .get(at)
            .zip(other)
            .is_some_and(|(one, other)| same(one, other))
    }

    /// What checks say of the server of this index; `None` before its first check.
    pub(crate) fn known(&self, at: usize) -> Option<bool> {
        self.endpoints.get(at)?.health().known()
    }

    /// Whether the server of this index is taken out after failures of clients' requests.
    pub(crate) fn is_ejected(&self, at: usize) -> bool {
        self.due(at).is_some()
    }

    /// Sets what checks say of the server of this index.
    pub(crate) fn set_known(&self, at: usize, known: Option<bool>) {
        let Some(endpoint) = self.endpoints.get(at) else {
            return;
        };
        if known == Some(true) && endpoint.health().is_down() {
            endpoint.comes(self.standings.moment(Instant::now()));
        }
        endpoint.health().set(known);
        self.standings.change();
        for endpoint in &self.endpoints {
            self.stands(endpoint);
        }
        if self
            .settings
            .health
            .as_ref()
            .is_some_and(|health| !health.tries_all)
            && self.all_down()
        {
            self.queue.dismiss();
        }
    }

    /// A check has passed: the server of this index is back, if it was taken out after failures.
    pub(crate) fn readmit(&self, at: usize) {
        if self.is_ejected(at) {
            self.succeeds(at, Chosen::Due);
        }
    }

    /// How many servers are in, and how many there are.
    pub(crate) fn left(&self) -> (usize, usize) {
        let is_in = |at: &usize| !self.is_down(*at) && !self.is_ejected(*at);
        let all = self.endpoints.len();
        ((0..all).filter(is_in).count(), all)
    }

    fn turn(&self, worker: usize) -> Option<MutexGuard<'_, Turn>> {
        let turns = self.turns.get(worker)?;
        Some(turns.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether there is a server that was not tried.
    pub(super) fn has_other(&self, tries: &Tries) -> bool {
        let is_up =
            |at: usize| self.settings.health.is_none() || !self.is_down(at) || self.tries_all();
        let mut servers = self.settings.servers.iter().enumerate();
        servers.any(|(at, server)| server.weight > 0 && !tries.tried.contains(&at) && is_up(at))
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
        match dial(&self.dialer, address, Need::Client, within).await {
            Err(DialError::Scarce) => {
                sleep(RELIEF).await;
                dial(&self.dialer, address, Need::Client, within).await
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
/// seconds, though earlier requests may still hold the endpoints. Those that stay have the limits of `after`.
pub(crate) fn retire(before: &[Arc<Upstream>], after: &[Arc<Upstream>]) {
    for upstream in after {
        for (endpoint, server) in upstream.endpoints.iter().zip(&upstream.settings.servers) {
            upstream.stands(endpoint);
            endpoint.load().limit(server.max);
        }
    }
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
