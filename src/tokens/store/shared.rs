//! The store of many gateways: a Redis or Valkey server, or a cluster of them. What one gateway ends is known to the
//! others within a second.
//!
//! One thread communicates with the server. All data of one subject is in one slot of a cluster, and each order is one
//! script, so that no two gateways can use the same refresh token. Ended sessions are also written to a stream, which
//! every gateway continues to read from its last position: unlike with a subscription, nothing is missed while a
//! gateway is disconnected.

use std::collections::VecDeque;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use redis::{RedisError, RedisResult, Script};
use serde_json::Map;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::{
    Everywhere, Family, FamilyName, KEPT, Lives, Longest, ORDERS, Order, Refresh, Refreshed, Store,
    tell,
};
use crate::auth::LiveRevoked;
use crate::net::resolve::Names;
use crate::state::{ANSWER, Addresses, CONNECTING, Link, Servers, WHOLE, connect, dangers, io};
use crate::tokens::spender::Spender;

/// How often the gateway checks what other gateways ended.
const LOOKING: Duration = Duration::from_millis(200);
/// How many entries of the stream are read at once.
const PAGE: usize = 1000;
/// How many ended sessions are buffered while the server is down.
const PENDING: usize = 100_000;

/// The key of the longest lifetimes with which tokens were issued.
const LONGEST: &str = "portcullis:longest";
/// The number of those checks after which the gateway also checks whether another gateway has raised them.
const LOOKS_A_LONGEST: u32 = 25;

/// A shared handle of the store.
pub(crate) struct Shared {
    orders: mpsc::Sender<Order>,
    longest: Arc<Longest>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

impl Store for Shared {
    fn take(&self, order: Order) {
        if let Order::Purge(_, told) = order {
            // Rows have a time to live.
            return tell(told, Ok(0));
        }
        // The queue is full, or the thread has ended: an order that is dropped has failed.
        drop(self.orders.try_send(order));
    }

    fn longest(&self) -> &Longest {
        &self.longest
    }
}

impl Shared {
    /// Starts to communicate with these servers, without waiting for a connection. Workers are notified of ended
    /// sessions through `revoked`, and the servers' addresses are resolved through `names`.
    ///
    /// # Errors
    /// Where the system cannot start a thread.
    pub(crate) fn open(
        servers: Servers,
        lives: Lives,
        revoked: Arc<LiveRevoked>,
        names: Names,
    ) -> Result<Self, String> {
        let longest = Arc::new(Longest::default());
        longest.at_least(lives);
        let (orders, taken) = mpsc::channel(ORDERS);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let keeper = Keeper {
            servers: Arc::new(servers),
            addresses: Addresses::new(names),
            longest: Arc::clone(&longest),
            revoked,
            scripts: Arc::default(),
            pending: Arc::default(),
            clock: Arc::default(),
            untold: Arc::default(),
        };
        thread::Builder::new()
            .name("tokens".to_owned())
            .spawn(move || runtime.block_on(keeper.serve(taken)))
            .map_err(|error| error.to_string())?;
        Ok(Self { orders, longest })
    }
}

/// An ended family or login, with the time in milliseconds since 1970, as in the stream.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Ending {
    Family(String, u64),
    /// All families of a subject that began before.
    Subject(String, u64),
}

/// Published ends, for all gateways to read; each kind is kept as long as one of its tokens may be valid.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stream {
    Families,
    Subjects,
}

impl Stream {
    const ALL: [Self; 2] = [Self::Families, Self::Subjects];

    fn key(self) -> &'static str {
        match self {
            Self::Families => "portcullis:ended",
            Self::Subjects => "portcullis:ended:all",
        }
    }

    /// How long its entries are kept, in milliseconds.
    fn kept(self, longest: &Longest) -> u64 {
        let seconds = match self {
            Self::Families => longest.ended_family(),
            Self::Subjects => longest.ended_subject(),
        };
        seconds * 1000
    }
}

/// The last reading of the server's clock. The server's current time is never earlier than this.
#[derive(Debug, Default)]
struct ServerClock(Mutex<Option<(u64, Instant)>>);

impl ServerClock {
    /// Records the server's time, in milliseconds since 1970.
    fn said(&self, time: u64) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((time, Instant::now()));
    }

    /// The server time after which an order that is sent now has no caller any more; 0 if the clock was not read yet.
    fn deadline(&self) -> u64 {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.map_or(0, |(time, read)| time + millis(read.elapsed() + ANSWER))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A token that may have been used, and whose replacement was not delivered.
#[derive(Clone, Debug)]
struct Untold {
    family: FamilyName,
    generation: u64,
    /// The mark of the order that used it.
    by: String,
    /// When that order can no longer be executed, by the server's clock.
    deadline: u64,
}

/// The result of an order.
enum Done {
    Nothing,
    Refreshed(Refreshed),
    Family(Option<Family>),
}

/// Communicates with the servers; its parts are shared by the orders in progress.
#[derive(Clone)]
struct Keeper {
    servers: Arc<Servers>,
    addresses: Addresses,
    longest: Arc<Longest>,
    revoked: Arc<LiveRevoked>,
    scripts: Arc<Scripts>,
    /// Ended sessions that could not be published to the other gateways yet.
    pending: Arc<Mutex<VecDeque<Ending>>>,
    clock: Arc<ServerClock>,
    /// Tokens that have to be made valid again.
    untold: Arc<Mutex<VecDeque<Untold>>>,
}

impl Keeper {
    /// Returns when all handles of the store are dropped.
    async fn serve(self, mut orders: mpsc::Receiver<Order>) {
        let mut fails = 0_u32;
        let mut warned = false;
        loop {
            let connecting = timeout(CONNECTING * 2, self.connect());
            let Some(connected) = failing(connecting, &mut orders).await else {
                return;
            };
            let failure = match connected.unwrap_or_else(|_| Err(io("no connection in time"))) {
                Ok((link, warnings)) => {
                    if fails > 0 {
                        tracing::info!(servers = %self.servers, "the store of tokens is back");
                    }
                    if !std::mem::replace(&mut warned, true) {
                        for warning in warnings {
                            tracing::warn!(servers = %self.servers, "{warning}");
                        }
                    }
                    fails = 0;
                    match self.follow(link, &mut orders).await {
                        Some(failure) => failure,
                        None => return,
                    }
                }
                Err(failure) => failure,
            };
            if fails.is_multiple_of(60) {
                tracing::error!(
                    servers = %self.servers,
                    error = %failure,
                    "the store of tokens does not work; it is tried again"
                );
            }
            fails = fails.saturating_add(1);
            let pause = Duration::from_millis(250) * fails.min(4);
            if failing(sleep(pause), &mut orders).await.is_none() {
                return;
            }
        }
    }

    /// A working connection, and warnings about server settings that endanger the data.
    async fn connect(&self) -> RedisResult<(Link, Vec<String>)> {
        let (mut link, about) = connect(&self.servers, &self.addresses).await?;
        self.agree_on_lives(&mut link).await?;
        self.read_clock(&mut link).await?;
        self.give_back(&mut link).await?;
        Ok((link, dangers(&about, "sessions and their ends")))
    }

    async fn read_clock(&self, link: &mut Link) -> RedisResult<()> {
        let [seconds, micros]: [u64; 2] = link.query(&redis::cmd("TIME")).await?;
        self.clock.said(seconds * 1000 + micros / 1000);
        Ok(())
    }

    /// Makes tokens valid again whose replacement was not delivered: a client that uses one again is not a thief.
    async fn give_back(&self, link: &mut Link) -> RedisResult<()> {
        let waiting = {
            let untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
            untold.len()
        };
        for _ in 0..waiting {
            let next = {
                let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
                untold.pop_front()
            };
            let Some(next) = next else { break };
            let back = Untolds {
                untold: &self.untold,
                one: Some(next.clone()),
            };
            let mut call = self.scripts.give_back.key(family_key(&next.family));
            call.arg(next.generation).arg(&next.by).arg(next.deadline);
            let word: String = link.invoke(&call).await?;
            if word != "wait" {
                back.done();
            }
        }
        Ok(())
    }

    fn forget_later(&self, asked: &Refresh, by: &str, deadline: u64) {
        let one = Untold {
            family: asked.family.clone(),
            generation: asked.generation,
            by: by.to_owned(),
            deadline,
        };
        drop(Untolds {
            untold: &self.untold,
            one: Some(one),
        });
    }

    /// Raises the longest lifetimes on both sides; returns them.
    async fn agree_on_lives(&self, link: &mut Link) -> RedisResult<Lives> {
        let lives = [self.longest.access(), self.longest.any()];
        let mut call = self.scripts.longest.key(LONGEST);
        call.arg(&lives[..]);
        let [access, refresh] = link.invoke(&call).await?;
        self.longest.at_least(Lives { access, refresh });
        Ok(Lives { access, refresh })
    }

    /// Executes orders, and reads what others ended, until the connection fails; `None` when all handles of the store
    /// are dropped.
    async fn follow(&self, link: Link, orders: &mut mpsc::Receiver<Order>) -> Option<RedisError> {
        let (lost, mut losses) = mpsc::channel(1);
        let busy = Arc::new(Semaphore::new(ORDERS));
        // It ends with this function.
        let mut looking = JoinSet::new();
        looking.spawn(self.clone().look_on(link.clone()));
        loop {
            tokio::select! {
                order = orders.recv() => {
                    let order = order?;
                    if order.is_abandoned() {
                        continue;
                    }
                    let Ok(place) = Arc::clone(&busy).try_acquire_owned() else {
                        drop(order);
                        continue;
                    };
                    let (keeper, link, lost) = (self.clone(), link.clone(), lost.clone());
                    tokio::spawn(async move {
                        keeper.obey(link, order, &lost).await;
                        drop(place);
                    });
                }
                loss = losses.recv() => return loss,
                looked = looking.join_next() => {
                    let failure = looked.and_then(Result::ok);
                    return Some(failure.unwrap_or_else(|| io("the stream is no longer read")));
                }
            }
        }
    }

    /// Notifies the workers of what other gateways ended, and publishes pending ends to the others.
    async fn look_on(self, mut link: Link) -> RedisError {
        let mut ticks = interval(LOOKING);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut from = [None, None];
        let mut agreed = Lives::default();
        let mut looks = 0_u32;
        loop {
            ticks.tick().await;
            looks = looks.wrapping_add(1);
            let outcome = async {
                if looks.is_multiple_of(LOOKS_A_LONGEST) || agreed != self.longest.lives() {
                    agreed = self.agree_on_lives(&mut link).await?;
                }
                self.read_clock(&mut link).await?;
                self.give_back(&mut link).await?;
                self.tell_pending(&mut link).await?;
                let [families, subjects] = &mut from;
                self.catch_up(&mut link, Stream::Families, families).await?;
                self.catch_up(&mut link, Stream::Subjects, subjects).await
            };
            let outcome = outcome.await;
            if let Err(error) = outcome {
                return error;
            }
        }
    }

    async fn tell_pending(&self, link: &mut Link) -> RedisResult<()> {
        loop {
            let some: Vec<Ending> = {
                let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
                pending.iter().take(PAGE).cloned().collect()
            };
            if some.is_empty() {
                return Ok(());
            }
            self.publish(link, &some).await?;
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            let told = some.len().min(pending.len());
            pending.drain(..told);
        }
    }

    /// Continues to read a stream; at first from the time before which all tokens have expired.
    async fn catch_up(
        &self,
        link: &mut Link,
        stream: Stream,
        from: &mut Option<String>,
    ) -> RedisResult<()> {
        loop {
            let start = match &*from {
                Some(last) => format!("({last}"),
                None => {
                    let [now, _]: [u64; 2] = link.query(&redis::cmd("TIME")).await?;
                    let now = now.saturating_mul(1000);
                    format!("{}-0", now.saturating_sub(stream.kept(&self.longest)))
                }
            };
            let mut command = redis::cmd("XRANGE");
            command.arg(stream.key()).arg(start).arg("+");
            command.arg("COUNT").arg(PAGE);
            let page: Vec<(String, Vec<String>)> = link.query(&command).await?;
            let endings: Vec<Ending> = page
                .iter()
                .filter_map(|(_, fields)| ending(fields))
                .collect();
            self.tell_workers(&endings);
            match page.last() {
                Some((last, _)) => *from = Some(last.clone()),
                // The first entry will come after this.
                None => {
                    from.get_or_insert_with(|| "0-0".to_owned());
                }
            }
            if page.len() < PAGE {
                return Ok(());
            }
        }
    }

    fn tell_workers(&self, endings: &[Ending]) {
        self.revoked
            .families(endings.iter().filter_map(|it| match it {
                Ending::Family(id, at) => Some((id.as_str(), *at)),
                Ending::Subject(..) => None,
            }));
        self.revoked
            .subjects(endings.iter().filter_map(|it| match it {
                Ending::Subject(sub, at) => Some((sub.as_str(), *at)),
                Ending::Family(..) => None,
            }));
    }

    async fn publish(&self, link: &mut Link, endings: &[Ending]) -> RedisResult<()> {
        for stream in Stream::ALL {
            let mut call = self.scripts.publish.key(stream.key());
            call.arg(stream.kept(&self.longest));
            let mut any = false;
            for ending in endings {
                let (kind, name, at) = match (stream, ending) {
                    (Stream::Families, Ending::Family(id, at)) => ("f", id, at),
                    (Stream::Subjects, Ending::Subject(sub, at)) => ("s", sub, at),
                    (Stream::Families | Stream::Subjects, _) => continue,
                };
                any = true;
                call.arg(kind).arg(name).arg(at);
            }
            if any {
                let () = link.invoke(&call).await?;
            }
        }
        Ok(())
    }

    /// Notifies the workers of this gateway of ended sessions, then the other gateways; only then the caller gets a
    /// result.
    async fn ended(&self, link: &mut Link, endings: Vec<Ending>) -> RedisResult<()> {
        self.tell_workers(&endings);
        // Published later if the connection or the caller goes away before.
        let later = Later {
            pending: &self.pending,
            endings,
        };
        self.publish(link, &later.endings).await?;
        later.told();
        Ok(())
    }

    async fn obey(&self, mut link: Link, order: Order, lost: &mpsc::Sender<RedisError>) {
        let (by, deadline) = match mark() {
            Ok(by) => (by, self.clock.deadline()),
            Err(error) => {
                tracing::error!(%error, "an order to the store of tokens failed");
                return;
            }
        };
        let done = timeout(WHOLE, self.done(&mut link, &order, (&by, deadline))).await;
        match done.unwrap_or_else(|_| Err(io("no response in time"))) {
            Ok(done) => {
                if let Some(asked) = answer(order, done) {
                    self.forget_later(&asked, &by, deadline);
                }
            }
            Err(error) => {
                // It may have been executed, or may still be executed until its deadline.
                if let Order::Refresh(asked, _) = &order
                    && asked.rotate_until.is_some()
                {
                    self.forget_later(asked, &by, deadline);
                }
                tracing::debug!(%error, "an order to the store of tokens failed");
                drop(order);
                if link.is_lost(&error) {
                    // One report is enough.
                    drop(lost.try_send(error));
                }
            }
        }
    }

    /// Executes an order with this mark and deadline.
    async fn done(&self, link: &mut Link, order: &Order, marked: (&str, u64)) -> RedisResult<Done> {
        match order {
            Order::Begin(id, family, _) => self.begin(link, id, family, marked.1).await,
            Order::Refresh(refresh, _) => self.refresh(link, refresh, marked).await,
            Order::Look(name, _) => {
                let mut call = self.scripts.look.key(family_key(name));
                call.key(subject_key(&name.sub)).arg(&name.sub);
                let (word, row): (String, Row) = link.invoke(&call).await?;
                if word == "ended" {
                    self.was_ended(link, name, &row).await?;
                    return Ok(Done::Family(None));
                }
                Ok(Done::Family(Some(family(row)?)))
            }
            Order::End(name, now, everywhere, _) => self.end(link, name, *now, *everywhere).await,
            Order::EndAll(subjects, _) => {
                for (sub, before) in subjects {
                    let mut call = self.scripts.end_all.key(subject_key(sub));
                    call.arg(before).arg(self.subject_life());
                    let before: u64 = link.invoke(&call).await?;
                    let ending = Ending::Subject(sub.clone(), before);
                    self.ended(link, vec![ending]).await?;
                }
                Ok(Done::Nothing)
            }
            // The result was sent before.
            Order::Purge(..) => Ok(Done::Nothing),
        }
    }

    async fn begin(
        &self,
        link: &mut Link,
        id: &str,
        family: &Family,
        deadline: u64,
    ) -> RedisResult<Done> {
        let name = FamilyName {
            id: id.to_owned(),
            sub: family.sub.clone(),
        };
        let claims = if family.claims.is_empty() {
            String::new()
        } else {
            serde_json::to_string(&family.claims).map_err(|_| odd())?
        };
        let mut call = self.scripts.begin.key(family_key(&name));
        call.arg(&family.sub)
            .arg(family.created)
            .arg(family.generation)
            .arg(family.rotated)
            .arg(family.expires)
            .arg(claims)
            .arg((family.expires + KEPT) * 1000)
            .arg(deadline);
        let word: String = link.invoke(&call).await?;
        if word == "late" {
            return Err(late());
        }
        Ok(Done::Nothing)
    }

    async fn refresh(
        &self,
        link: &mut Link,
        asked: &Refresh,
        (by, deadline): (&str, u64),
    ) -> RedisResult<Done> {
        let name = &asked.family;
        let until = asked.rotate_until;
        let mut call = self.scripts.refresh.key(family_key(name));
        call.key(subject_key(&name.sub))
            .arg(&name.sub)
            .arg(asked.generation)
            .arg(asked.now)
            .arg(until.map_or_else(String::new, |until| until.to_string()))
            .arg(asked.grace)
            .arg(by)
            .arg((until.unwrap_or_default() + KEPT) * 1000)
            .arg(deadline)
            .arg(&asked.spender.address)
            .arg(&asked.spender.cookie);
        let (word, row): (String, Row) = link.invoke(&call).await?;
        let refreshed = match word.as_str() {
            "family" => Refreshed::Family(family(row)?),
            "reused" => {
                tracing::warn!(
                    sub = name.sub,
                    session = name.id,
                    "a refresh token was used again: its session has ended"
                );
                let ending = Ending::Family(name.id.clone(), asked.now);
                self.ended(link, vec![ending]).await?;
                Refreshed::Reused
            }
            "ended" => {
                self.was_ended(link, name, &row).await?;
                Refreshed::Ended
            }
            "late" => return Err(late()),
            _ => return Err(odd()),
        };
        Ok(Done::Refreshed(refreshed))
    }

    async fn end(
        &self,
        link: &mut Link,
        name: &FamilyName,
        now: u64,
        everywhere: Everywhere,
    ) -> RedisResult<Done> {
        let mut call = self.scripts.end.key(family_key(name));
        call.key(subject_key(&name.sub))
            .arg(&name.sub)
            .arg(now)
            .arg(u8::from(everywhere == Everywhere::Yes))
            .arg(self.subject_life());
        let (word, row): (String, Row) = link.invoke(&call).await?;
        if word == "ended" {
            self.was_ended(link, name, &row).await?;
            return Ok(Done::Family(None));
        }
        let family = family(row)?;
        let mut endings = vec![Ending::Family(name.id.clone(), now)];
        if everywhere == Everywhere::Yes {
            endings.push(Ending::Subject(name.sub.clone(), now));
        }
        self.ended(link, endings).await?;
        Ok(Done::Family(Some(family)))
    }

    /// A family that had ended before. The gateway that ended it may have failed before it notified the others.
    async fn was_ended(&self, link: &mut Link, name: &FamilyName, row: &Row) -> RedisResult<()> {
        let time = |at: usize| row.get(at)?.as_ref()?.parse::<u64>().ok();
        let mut endings = Vec::new();
        if let Some(at) = time(0).filter(|_| !self.revoked.has_family(&name.id)) {
            endings.push(Ending::Family(name.id.clone(), at));
        }
        if let Some(before) = time(1).filter(|at| !self.revoked.has_subject(&name.sub, *at)) {
            endings.push(Ending::Subject(name.sub.clone(), before));
        }
        if endings.is_empty() {
            return Ok(());
        }
        self.ended(link, endings).await
    }

    /// How long the end of all families of a subject is kept, in milliseconds.
    fn subject_life(&self) -> u64 {
        (self.longest.any() + KEPT) * 1000
    }
}

/// A token that has to be made valid again; if dropped before, it stays queued.
struct Untolds<'k> {
    untold: &'k Mutex<VecDeque<Untold>>,
    one: Option<Untold>,
}

impl Untolds<'_> {
    fn done(mut self) {
        self.one = None;
    }
}

impl Drop for Untolds<'_> {
    fn drop(&mut self) {
        let Some(one) = self.one.take() else { return };
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        if untold.len() < PENDING {
            untold.push_back(one);
        }
    }
}

/// The mark of an order: 96 random bits as text.
fn mark() -> RedisResult<String> {
    let mut random = [0_u8; 12];
    getrandom::fill(&mut random).map_err(|_| io("no random bytes"))?;
    Ok(URL_SAFE_NO_PAD.encode(random))
}

/// Ended sessions, until the other gateways are notified; if dropped before, they are queued for the next connection.
struct Later<'k> {
    pending: &'k Mutex<VecDeque<Ending>>,
    endings: Vec<Ending>,
}

impl Later<'_> {
    fn told(mut self) {
        self.endings.clear();
    }
}

impl Drop for Later<'_> {
    fn drop(&mut self) {
        if self.endings.is_empty() {
            return;
        }
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.len() + self.endings.len() > PENDING {
            tracing::error!("other gateways will not be notified of all ended sessions");
            return;
        }
        pending.extend(self.endings.drain(..));
    }
}

/// Waits for a future while orders fail at once; `None` when all handles of the store are dropped.
async fn failing<T>(
    awaited: impl Future<Output = T>,
    orders: &mut mpsc::Receiver<Order>,
) -> Option<T> {
    let mut awaited = pin!(awaited);
    loop {
        tokio::select! {
            came = &mut awaited => return Some(came),
            order = orders.recv() => drop(order?),
        }
    }
}

/// Sends the result; returns a refresh that used a token for a caller that had gone.
fn answer(order: Order, done: Done) -> Option<Refresh> {
    match (order, done) {
        (Order::Begin(_, _, told) | Order::EndAll(_, told), Done::Nothing) => tell(told, Ok(())),
        (Order::Refresh(asked, told), Done::Refreshed(refreshed)) => {
            let spent = matches!(refreshed, Refreshed::Family(_)) && asked.rotate_until.is_some();
            if told.send(Ok(refreshed)).is_err() && spent {
                return Some(asked);
            }
        }
        (Order::Look(_, told) | Order::End(_, _, _, told), Done::Family(family)) => {
            tell(told, Ok(family));
        }
        // An order that is dropped has failed.
        (order, _) => drop(order),
    }
    None
}

/// The row of a family, as returned by the scripts.
type Row = Vec<Option<String>>;

fn family(row: Row) -> RedisResult<Family> {
    let row: [Option<String>; 6] = row.try_into().map_err(|_| odd())?;
    let [sub, created, generation, rotated, expires, claims] = row.map(Option::unwrap_or_default);
    let number = |text: String| text.parse::<u64>().map_err(|_| odd());
    Ok(Family {
        sub,
        created: number(created)?,
        generation: number(generation)?,
        rotated: number(rotated)?,
        expires: number(expires)?,
        // Already evaluated by the script.
        spender: Spender::default(),
        repeated: false,
        ended: None,
        claims: match claims.as_str() {
            "" => Map::new(),
            text => serde_json::from_str(text).map_err(|_| odd())?,
        },
    })
}

fn ending(fields: &[String]) -> Option<Ending> {
    let [_, kind, _, name, _, at] = fields else {
        return None;
    };
    let at = at.parse().ok()?;
    match kind.as_str() {
        "f" => Some(Ending::Family(name.clone(), at)),
        "s" => Some(Ending::Subject(name.clone(), at)),
        _ => None,
    }
}

/// All data of one subject has one hash tag, and is therefore in one slot of a cluster.
fn tag(sub: &str) -> String {
    let sum = digest::digest(&digest::SHA256, sub.as_bytes());
    URL_SAFE_NO_PAD.encode(sum.as_ref().get(..16).unwrap_or_default())
}

fn family_key(name: &FamilyName) -> String {
    format!("portcullis:{{{}}}:{}", tag(&name.sub), name.id)
}

fn subject_key(sub: &str) -> String {
    format!("portcullis:{{{}}}", tag(sub))
}

/// The server reached an order after its deadline, and did not execute it.
fn late() -> RedisError {
    let what = "the server reached it too late";
    RedisError::from((redis::ErrorKind::UnexpectedReturnType, what))
}

/// The server's response cannot be parsed.
fn odd() -> RedisError {
    let what = "the server sent an invalid response";
    RedisError::from((redis::ErrorKind::UnexpectedReturnType, what))
}

/// The scripts: each checks and writes atomically. Numbers remain strings, because Lua loses digits when it writes
/// them.
struct Scripts {
    begin: Script,
    refresh: Script,
    give_back: Script,
    look: Script,
    end: Script,
    end_all: Script,
    publish: Script,
    longest: Script,
}

impl Default for Scripts {
    fn default() -> Self {
        let with = |more: &str| Script::new(&format!("{FAMILY}{more}"));
        Self {
            begin: Script::new(&format!("{CLOCK}{BEGIN}")),
            refresh: with(&format!("{CLOCK}{REFRESH}")),
            give_back: Script::new(&format!("{CLOCK}{GIVE_BACK}")),
            look: with(LOOK),
            end: with(END),
            end_all: with("return raise(KEYS[1], ARGV[1], ARGV[2])"),
            publish: Script::new(PUBLISH),
            longest: Script::new(LONGEST_LIVES),
        }
    }
}

/// `family`: a family of a subject that has not ended, or nothing and when it, or all families of the subject, ended.
/// `raise`: ends all that began before a time; a clock that was set back makes nothing valid again.
const FAMILY: &str = r"
local function family(key, subject, sub)
  local f = redis.call('HMGET', key, 'sub', 'created', 'generation', 'rotated', 'expires', 'claims', 'ended', 'by', 'spent',
    'address', 'cookie', 'repeated')
  if not f[1] or f[1] ~= sub then return nil, {'ended', {}} end
  local before = redis.call('GET', subject)
  if f[7] then return nil, {'ended', {f[7], before}} end
  if before and tonumber(f[2]) <= tonumber(before) then return nil, {'ended', {false, before}} end
  return f
end
local function row(f)
  return {f[1], f[2], f[3], f[4], f[5], f[6]}
end
local function raise(subject, before, life)
  local known = redis.call('GET', subject)
  if known and tonumber(known) >= tonumber(before) then before = known end
  redis.call('SET', subject, before, 'PX', life)
  return before
end
";

/// `now`: the server's clock, in milliseconds. `late`: whether that is after the deadline of an order. Its caller was
/// told that it failed, so it must not be executed afterwards, although a server that hung still gets to it.
const CLOCK: &str = r"
local t = redis.call('TIME')
local clock = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local function late(deadline)
  return clock > tonumber(deadline)
end
";

const BEGIN: &str = r"
if late(ARGV[8]) then return 'late' end
redis.call('HSET', KEYS[1], 'sub', ARGV[1], 'created', ARGV[2], 'generation', ARGV[3], 'rotated', ARGV[4],
  'expires', ARGV[5], 'claims', ARGV[6])
redis.call('PEXPIREAT', KEYS[1], ARGV[7])
return 'begun'
";

/// The rules are those of the embedded store, except for the grace period: the clocks of gateways differ, and an order
/// may have waited for a server that hung, so the server's clock is used. Also, an order that the client library sends
/// twice gets the same result both times.
const REFRESH: &str = r"
local sub, asked, now, until_, grace, by, keep, deadline, address, cookie = unpack(ARGV)
if late(deadline) then return {'late', {}} end
local f, ended = family(KEYS[1], KEYS[2], sub)
if not f then return ended end
local generation = tonumber(f[3])
if tonumber(asked) == generation then
  if until_ ~= '' then
    f[3] = tostring(redis.call('HINCRBY', KEYS[1], 'generation', 1))
    f[4], f[5] = now, until_
    redis.call('HSET', KEYS[1], 'rotated', now, 'expires', until_, 'by', by, 'spent',
      string.format('%.0f', clock), 'address', address, 'cookie', cookie, 'repeated', '0')
    redis.call('PEXPIREAT', KEYS[1], keep)
  end
  return {'family', row(f)}
end
if until_ ~= '' and tonumber(asked) + 1 == generation then
  if f[8] == by then return {'family', row(f)} end
  local same = (address ~= '' and address == f[10]) or (cookie ~= '' and cookie == f[11])
  local since = clock - tonumber(f[9] or f[4])
  if same and f[12] ~= '1' and tonumber(grace) > 0 and since <= tonumber(grace) then
    redis.call('HSET', KEYS[1], 'repeated', '1', 'by', by)
    return {'family', row(f)}
  end
end
redis.call('HSET', KEYS[1], 'ended', now)
return {'reused', {}}
";

/// Makes a token valid again whose replacement was not delivered, unless it was changed since. As long as the order
/// that used it may still be executed, this has to wait.
const GIVE_BACK: &str = r"
local asked, by, deadline = unpack(ARGV)
if not late(deadline) then return 'wait' end
local f = redis.call('HMGET', KEYS[1], 'generation', 'by', 'ended', 'repeated')
if f[1] and f[2] == by and not f[3] and f[4] ~= '1' and tonumber(f[1]) == tonumber(asked) + 1 then
  redis.call('HSET', KEYS[1], 'generation', asked)
  redis.call('HDEL', KEYS[1], 'by')
end
return 'done'
";

const LOOK: &str = r"
local f, ended = family(KEYS[1], KEYS[2], ARGV[1])
return f and {'family', row(f)} or ended
";

const END: &str = r"
local f, ended = family(KEYS[1], KEYS[2], ARGV[1])
if not f then return ended end
redis.call('HSET', KEYS[1], 'ended', ARGV[2])
if ARGV[3] == '1' then raise(KEYS[2], ARGV[2], ARGV[4]) end
return {'family', row(f)}
";

/// Each with a kind, a name and a time; entries older than any token that they could end are deleted.
const PUBLISH: &str = r"
local t = redis.call('TIME')
local first = string.format('%.0f', tonumber(t[1]) * 1000 - tonumber(ARGV[1]))
for i = 2, #ARGV, 3 do
  redis.call('XADD', KEYS[1], 'MINID', '~', first, '*', 'k', ARGV[i], 'n', ARGV[i + 1], 't', ARGV[i + 2])
end
redis.call('PEXPIRE', KEYS[1], ARGV[1] * 2)
";

const LONGEST_LIVES: &str = r"
local lives = {}
for i, name in ipairs({'access', 'refresh'}) do
  local known = tonumber(redis.call('HGET', KEYS[1], name) or '0')
  if known < tonumber(ARGV[i]) then
    redis.call('HSET', KEYS[1], name, ARGV[i])
    known = tonumber(ARGV[i])
  end
  lives[i] = known
end
return lives
";

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn servers_are_found_as_everything_else_is() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (came, comes) = std::sync::mpsc::channel();
        thread::spawn(move || listener.incoming().try_for_each(|_| came.send(())));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let names = Names::new(move |host| {
            seen.lock().unwrap().push(host.to_owned());
            // No server listens at the first address.
            let ips = [[127, 0, 0, 64], [127, 0, 0, 1]];
            Ok(ips.map(|ip| SocketAddr::from((ip, 0))).to_vec())
        });
        let servers = Servers {
            urls: vec![format!("redis://store.test:{port}")],
            username: None,
            password: None,
            ca: None,
        };
        let lives = Lives {
            access: 60,
            refresh: 60,
        };
        let store = Shared::open(servers, lives, Arc::default(), names).unwrap();
        // A server that closes each connection is retried repeatedly, and its resolved name is cached meanwhile.
        for _ in 0..3 {
            comes.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        assert_eq!(*asked.lock().unwrap(), ["store.test"]);
        drop(store);
    }

    #[test]
    fn what_is_one_subjects_lies_together() {
        let name = FamilyName {
            id: "f".to_owned(),
            sub: "a}{b".to_owned(),
        };
        let tag_of = |key: &str| {
            let (_, rest) = key.split_once('{').unwrap();
            rest.split_once('}').unwrap().0.to_owned()
        };
        assert_eq!(tag_of(&family_key(&name)), tag_of(&subject_key("a}{b")));
        assert_ne!(subject_key("a"), subject_key("b"));
        assert!(family_key(&name).ends_with(":f") && !family_key(&name).contains("a}"));
    }

    #[test]
    fn rows_and_endings_are_read_and_nothing_else_is_taken_for_one() {
        let text = |text: &str| Some(text.to_owned());
        let row = |claims: Option<String>| {
            vec![
                text("a"),
                text("1"),
                text("2"),
                text("3"),
                text("4"),
                claims,
            ]
        };
        let read = family(row(text(r#"{"roles":["x"]}"#))).unwrap();
        assert_eq!((read.generation, read.expires), (2, 4));
        assert_eq!(read.claims.len(), 1);
        assert!(family(row(None)).unwrap().claims.is_empty());
        assert!(family(row(text("[]"))).is_err());
        assert!(family(vec![text("a")]).is_err());
        let fields = |kind: &str, at: &str| ["k", kind, "n", "x", "t", at].map(str::to_owned);
        let expected = Ending::Family("x".to_owned(), 7);
        assert_eq!(ending(&fields("f", "7")), Some(expected));
        let expected = Ending::Subject("x".to_owned(), 7);
        assert_eq!(ending(&fields("s", "7")), Some(expected));
        assert_eq!(ending(&fields("z", "7")), None);
        assert_eq!(ending(&fields("f", "-7")), None);
        assert_eq!(ending(&[]), None);
    }
}
