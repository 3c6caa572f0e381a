//! What ACME keeps on Redis, for many gateways: the same rows as in a directory, each sealed under its own name; a lock for
//! each certificate; the challenges that are pending; and a stream that tells which certificates are new. No client's
//! request ever waits for it: every gateway looks once a second, and answers from memory. What is done about a
//! certificate is not decided here.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use redis::{Cmd, FromRedisValue, Script, ScriptInvocation};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};

use super::client::Failure;
use super::rows::{AccountRow, Pem, Place, Row};
use crate::net::resolve::Names;
use crate::state::{Client, Sealer, Servers, StateKey};

/// What the rows' keys are derived for.
const PURPOSE: &str = "portcullis acme rows";
/// How all keys begin. They are in one slot of a cluster, since some change together.
const PREFIX: &str = "portcullis:{acme}:";
/// How long a lock is held without being renewed, how often it is renewed, and when its owner gives it up because it
/// cannot be renewed.
const LOCK: Duration = Duration::from_secs(60);
const RENEWED: Duration = Duration::from_secs(20);
const GIVEN_UP: Duration = Duration::from_secs(45);
/// How long until the renewal of a lock is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// How many entries the stream has at least.
const NEWS: usize = 10_000;
/// How long challenges are kept that nobody takes back, in seconds.
const SHOWN: u64 = 24 * 60 * 60;
/// How many entries are read at once.
const PAGE: usize = 1000;
/// How long a row is kept that nobody reads or writes, in seconds: those of names that were taken out of the configuration.
/// Each gateway reads the rows of its names every ten minutes.
const KEPT: u64 = 400 * 24 * 60 * 60;

/// The rows on servers. Clones share the connection.
#[derive(Clone)]
pub(super) struct Shared {
    inner: Arc<Inner>,
    /// The lock under which rows are written.
    under: Option<Arc<Owned>>,
}

struct Inner {
    client: Client,
    sealer: Sealer,
    scripts: Scripts,
    /// The releases of locks that are in progress.
    releases: Mutex<JoinSet<()>>,
}

struct Scripts {
    /// Extends a lock of this owner.
    extend: Script,
    /// Releases a lock of this owner.
    release: Script,
    /// Replaces a row, unless somebody has written it meanwhile.
    replace: Script,
    /// Writes a row, or removes it where it is empty, as long as a lock is this owner's.
    write: Script,
    /// Counts an order, unless there were too many; returns how long to wait.
    budget: Script,
}

/// The lock of a certificate, as its owner knows it.
struct Owned {
    key: String,
    owner: String,
}

/// A certificate and its key, PEM.
#[derive(Deserialize, Serialize)]
struct Text {
    chain: String,
    key: String,
}

/// A challenge that is pending, as all gateways see it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Shown {
    /// The host whose control is to be proven.
    pub(super) host: String,
    /// The token of http-01; without one it is tls-alpn-01's.
    pub(super) token: Option<String>,
    /// The key authorization.
    pub(super) proof: String,
    /// Until when it is of use, in seconds since 1970: who showed it may have died.
    pub(super) until: u64,
}

/// What a look found.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// The names of the places of certificates that are new.
    pub(super) issued: Vec<String>,
    /// The challenges that are pending, by their ids.
    pub(super) shown: Vec<(String, Shown)>,
    /// The requests for renewal.
    pub(super) asked: Vec<String>,
}

impl fmt::Debug for Owned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

impl Shared {
    /// The rows on these servers, sealed with this key. It does not connect yet.
    ///
    /// # Errors
    /// The crypto provider failed.
    pub(super) fn new(servers: &Servers, key: &StateKey, names: &Names) -> Result<Self, Failure> {
        let sealer = key.sealer(PURPOSE);
        let inner = Arc::new(Inner {
            client: Client::new(servers, names),
            sealer: sealer.map_err(|_| Failure::own("`state.key` cannot be used"))?,
            scripts: Scripts {
                extend: Script::new(
                    "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
                     return redis.call('PEXPIRE', KEYS[1], ARGV[2])",
                ),
                release: Script::new(
                    "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
                     return redis.call('DEL', KEYS[1])",
                ),
                replace: Script::new(
                    "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
                     redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
                     return 1",
                ),
                write: Script::new(
                    "if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
                     if ARGV[2] == '' then redis.call('DEL', KEYS[1])
                     else redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) end
                     return 1",
                ),
                budget: Script::new(
                    "local now, within, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
                     redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - within)
                     if redis.call('ZCARD', KEYS[1]) >= most then
                         local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
                         return tonumber(first[2]) + within - now
                     end
                     redis.call('ZADD', KEYS[1], now, ARGV[4])
                     redis.call('EXPIRE', KEYS[1], within)
                     return 0",
                ),
            },
            releases: Mutex::default(),
        });
        Ok(Self { inner, under: None })
    }

    /// The same rows, written only while this lock is held: one who was stopped for a while must not write over what its
    /// successor wrote.
    pub(super) fn under(&self, held: &Held) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            under: Some(Arc::clone(&held.owned)),
        }
    }

    /// Settings of the servers with which they may lose what is kept there.
    pub(super) fn dangers(&self) -> Vec<String> {
        self.inner.client.dangers("accounts and certificates")
    }

    pub(super) async fn account(
        &self,
        host: &str,
        id: &str,
    ) -> Result<Option<AccountRow>, Failure> {
        self.row_at(&account_key(host, id)).await
    }

    /// Keeps a new account, unless another gateway was first; returns the one that is kept.
    pub(super) async fn add_account(
        &self,
        host: &str,
        id: &str,
        row: &AccountRow,
    ) -> Result<AccountRow, Failure> {
        let key = account_key(host, id);
        let mut command = redis::cmd("SET");
        command.arg(&key).arg(self.sealed(&key, row)?);
        command.arg("NX").arg("EX").arg(KEPT);
        let _added: Option<String> = self.query(&command).await?;
        let kept = self.row_at(&key).await?;
        kept.ok_or_else(|| Failure::own("`state`: an account that was kept is gone"))
    }

    pub(super) async fn keep_account(
        &self,
        host: &str,
        id: &str,
        row: &AccountRow,
    ) -> Result<(), Failure> {
        self.keep_at(&account_key(host, id), row).await
    }

    pub(super) async fn row(&self, place: &Place) -> Result<Option<Row>, Failure> {
        self.row_at(&key(place, "meta")).await
    }

    pub(super) async fn keep_row(&self, place: &Place, row: &Row) -> Result<(), Failure> {
        self.keep_at(&key(place, "meta"), row).await
    }

    pub(super) async fn certificate(&self, place: &Place) -> Result<Option<Pem>, Failure> {
        let text: Option<Text> = self.row_at(&key(place, "pem")).await?;
        Ok(text.map(|text| Pem {
            chain: text.chain.into_bytes(),
            key: text.key.into_bytes(),
        }))
    }

    /// Keeps a certificate with its key, forgets that as the next one, and tells all gateways.
    pub(super) async fn keep_certificate(&self, place: &Place, pem: &Pem) -> Result<(), Failure> {
        let text = Text {
            chain: String::from_utf8_lossy(&pem.chain).into_owned(),
            key: String::from_utf8_lossy(&pem.key).into_owned(),
        };
        self.keep_at(&key(place, "pem"), &text).await?;
        self.drop_next_key(place).await?;
        let mut tell = redis::cmd("XADD");
        tell.arg(news_key()).arg("MAXLEN").arg("~").arg(NEWS);
        tell.arg("*").arg("n").arg(&place.name);
        let _at: String = self.query(&tell).await?;
        self.expire(&news_key(), KEPT).await
    }

    /// The next key, and the key of the certificate in force.
    pub(super) async fn keys(&self, place: &Place) -> Result<[Option<Vec<u8>>; 2], Failure> {
        let next: Option<String> = self.row_at(&key(place, "next-key")).await?;
        let current = self.certificate(place).await?;
        Ok([next.map(String::into_bytes), current.map(|pem| pem.key)])
    }

    pub(super) async fn keep_next_key(&self, place: &Place, pem: &[u8]) -> Result<(), Failure> {
        let text = String::from_utf8_lossy(pem);
        self.keep_at(&key(place, "next-key"), &text).await
    }

    pub(super) async fn drop_next_key(&self, place: &Place) -> Result<(), Failure> {
        self.write(&key(place, "next-key"), None).await
    }

    pub(super) async fn ask_renewal(&self, place: &Place) -> Result<(), Failure> {
        let mut command = redis::cmd("SADD");
        command.arg(renewals_key()).arg(&place.name);
        let () = self.query(&command).await?;
        self.expire(&renewals_key(), KEPT).await
    }

    /// Whether a certificate is still to be renewed.
    pub(super) async fn is_asked(&self, place: &Place) -> Result<bool, Failure> {
        let mut command = redis::cmd("SISMEMBER");
        command.arg(renewals_key()).arg(&place.name);
        self.query(&command).await
    }

    pub(super) async fn end_renewal(&self, place: &Place) -> Result<(), Failure> {
        let mut command = redis::cmd("SREM");
        command.arg(renewals_key()).arg(&place.name);
        self.query(&command).await
    }

    /// Shows a challenge to all gateways; returns its id.
    pub(super) async fn show(&self, shown: &Shown) -> Result<String, Failure> {
        let id = random_id()?;
        let sealed = self.sealed(&format!("{}{id}", challenges_key()), shown)?;
        let mut command = redis::cmd("HSET");
        command.arg(challenges_key()).arg(&id).arg(sealed);
        let () = self.query(&command).await?;
        self.expire(&challenges_key(), SHOWN).await?;
        Ok(id)
    }

    /// Takes a challenge back.
    pub(super) async fn hide(&self, id: &str) -> Result<(), Failure> {
        let mut command = redis::cmd("HDEL");
        command.arg(challenges_key()).arg(id);
        self.query(&command).await
    }

    /// What is new since `from`, a place in the stream of news, which is moved on. Without one, it is its end.
    pub(super) async fn look(&self, from: &mut Option<String>, now: u64) -> Result<Look, Failure> {
        let mut look = Look::default();
        let start = match from.clone() {
            Some(from) => from,
            None => self.last_news().await?,
        };
        let mut news = redis::cmd("XRANGE");
        news.arg(news_key()).arg(format!("({start}")).arg("+");
        news.arg("COUNT").arg(PAGE);
        let page: Vec<(String, Vec<String>)> = self.query(&news).await?;
        *from = Some(page.last().map_or(start, |(last, _)| last.clone()));
        for (_, fields) in page {
            if let [_, name] = fields.as_slice()
                && !look.issued.contains(name)
            {
                look.issued.push(name.clone());
            }
        }
        let mut challenges = redis::cmd("HGETALL");
        challenges.arg(challenges_key());
        let all: Vec<(String, Vec<u8>)> = self.query(&challenges).await?;
        for (id, sealed) in all {
            let name = format!("{}{id}", challenges_key());
            let opened = self.inner.sealer.open(&name, &sealed);
            let shown = opened.and_then(|it| serde_json::from_slice::<Shown>(&it).ok());
            match shown {
                Some(shown) if shown.until > now => look.shown.push((id, shown)),
                // Its gateway has died.
                Some(_) => self.hide(&id).await?,
                // Another `state.key`: it is for others.
                None => {}
            }
        }
        let mut renewals = redis::cmd("SMEMBERS");
        renewals.arg(renewals_key());
        look.asked = self.query(&renewals).await?;
        Ok(look)
    }

    async fn last_news(&self) -> Result<String, Failure> {
        let mut last = redis::cmd("XREVRANGE");
        last.arg(news_key()).arg("+").arg("-").arg("COUNT").arg(1);
        let last: Vec<(String, Vec<String>)> = self.query(&last).await?;
        let last = last.into_iter().next();
        Ok(last.map_or_else(|| "0-0".to_owned(), |(id, _)| id))
    }

    /// Counts an order at a directory, unless there were `most` within this time in seconds; returns how long to wait.
    pub(super) async fn count_order(
        &self,
        directory: &str,
        (now, within, most): (u64, u64, usize),
    ) -> Result<u64, Failure> {
        let key = format!("{PREFIX}orders:{directory}");
        let mut call = self.inner.scripts.budget.key(key);
        call.arg(now).arg(within).arg(most).arg(random_id()?);
        self.invoke(&call).await
    }

    /// Takes the lock of a certificate; `None` where another gateway has it.
    pub(super) async fn lock(&self, name: &str) -> Result<Option<Held>, Failure> {
        let (key, owner) = (format!("{PREFIX}lock:{name}"), random_id()?);
        let asked = Instant::now();
        let mut command = redis::cmd("SET");
        command.arg(&key).arg(&owner).arg("NX");
        command.arg("PX").arg(millis(LOCK));
        let taken: Option<String> = self.query(&command).await?;
        if taken.is_none() {
            return Ok(None);
        }
        let lost = Arc::new(Lost::default());
        let owned = Arc::new(Owned { key, owner });
        let renewing = renew(self.clone(), Arc::clone(&owned), asked, Arc::clone(&lost));
        Ok(Some(Held {
            shared: self.clone(),
            owned,
            lost,
            renewing: tokio::spawn(renewing).abort_handle(),
        }))
    }

    /// Waits until the locks that were dropped are released.
    pub(super) async fn released(&self) {
        let mut releases = {
            let releases = self.inner.releases.lock();
            std::mem::take(&mut *releases.unwrap_or_else(PoisonError::into_inner))
        };
        while releases.join_next().await.is_some() {}
    }

    async fn row_at<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Failure> {
        let mut command = redis::cmd("GETEX");
        command.arg(key).arg("EX").arg(KEPT);
        let sealed: Option<Vec<u8>> = self.query(&command).await?;
        let Some(sealed) = sealed else {
            return Ok(None);
        };
        let opened = self.inner.sealer.open(key, &sealed).ok_or_else(|| {
            Failure::own(format!(
                "`state`: {key} was sealed with another `state.key`, which all gateways share"
            ))
        })?;
        if let Some(anew) = self.inner.sealer.resealed(key, &sealed) {
            let mut call = self.inner.scripts.replace.key(key);
            call.arg(&sealed).arg(anew).arg(KEPT);
            let _replaced: u64 = self.invoke(&call).await?;
        }
        let row = serde_json::from_slice(&opened);
        row.map(Some)
            .map_err(|error| Failure::own(format!("`state`: {key} is damaged: {error}")))
    }

    async fn keep_at<T: Serialize + ?Sized>(&self, key: &str, row: &T) -> Result<(), Failure> {
        self.write(key, Some(self.sealed(key, row)?)).await
    }

    /// Writes what is sealed, or removes it; under a lock, only while that is held.
    async fn write(&self, key: &str, sealed: Option<Vec<u8>>) -> Result<(), Failure> {
        if let Some(lock) = &self.under {
            let mut call = self.inner.scripts.write.key(key);
            call.key(&lock.key).arg(&lock.owner);
            call.arg(sealed.unwrap_or_default()).arg(KEPT);
            return match self.invoke(&call).await? {
                0 => Err(Failure::own(
                    "another gateway goes on with this certificate",
                )),
                1_u64.. => Ok(()),
            };
        }
        let command = match sealed {
            Some(sealed) => {
                let mut command = redis::cmd("SET");
                command.arg(key).arg(sealed).arg("EX").arg(KEPT);
                command
            }
            None => {
                let mut command = redis::cmd("DEL");
                command.arg(key);
                command
            }
        };
        self.query(&command).await
    }

    /// What is not read row by row is gone some time after it was last written: nothing is left of a fleet that is gone.
    async fn expire(&self, key: &str, seconds: u64) -> Result<(), Failure> {
        let mut command = redis::cmd("EXPIRE");
        command.arg(key).arg(seconds);
        self.query(&command).await
    }

    fn sealed<T: Serialize + ?Sized>(&self, key: &str, row: &T) -> Result<Vec<u8>, Failure> {
        let plain = serde_json::to_vec(row)
            .map_err(|error| Failure::own(format!("`state`: {key}: {error}")))?;
        let sealed = self.inner.sealer.seal(key, &plain);
        sealed.map_err(|_| Failure::own(format!("`state`: {key} cannot be sealed")))
    }

    async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Failure> {
        let answer = self.inner.client.query(command).await;
        answer.map_err(|why| down(&why))
    }

    async fn invoke<T: FromRedisValue>(&self, call: &ScriptInvocation<'_>) -> Result<T, Failure> {
        let answer = self.inner.client.invoke(call).await;
        answer.map_err(|why| down(&why))
    }
}

fn down(why: &str) -> Failure {
    Failure::own(format!("`state`: {why}"))
}

/// The lock of a certificate. It is renewed while this is there, and released when it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    shared: Shared,
    owned: Arc<Owned>,
    lost: Arc<Lost>,
    renewing: AbortHandle,
}

/// Whether a lock was lost.
#[derive(Debug, Default)]
struct Lost {
    is: AtomicBool,
    told: Notify,
}

impl Held {
    /// Ready when the lock is no longer this gateway's for sure: another one may have it soon.
    pub(super) async fn lost(&self) {
        loop {
            let told = self.lost.told.notified();
            if self.lost.is.load(Ordering::Acquire) {
                return;
            }
            told.await;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.renewing.abort();
        // Without one, its time releases it.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let (shared, owned) = (self.shared.clone(), Arc::clone(&self.owned));
        let release = async move {
            let mut call = shared.inner.scripts.release.key(&owned.key);
            call.arg(&owned.owner);
            let released: Result<u64, Failure> = shared.invoke(&call).await;
            if let Err(failure) = released {
                tracing::debug!("a lock is released by its time alone: {}", failure.text);
            }
        };
        let releases = self.shared.inner.releases.lock();
        let mut releases = releases.unwrap_or_else(PoisonError::into_inner);
        // Those that are done.
        while releases.try_join_next().is_some() {}
        releases.spawn_on(release, &runtime);
    }
}

/// Renews a lock that was taken or renewed at a time, until it is lost.
async fn renew(shared: Shared, owned: Arc<Owned>, mut renewed: Instant, lost: Arc<Lost>) {
    let mut pause = RENEWED;
    loop {
        sleep(pause).await;
        let mut call = shared.inner.scripts.extend.key(&owned.key);
        call.arg(&owned.owner).arg(millis(LOCK));
        let asked = Instant::now();
        let extended: Result<u64, Failure> = shared.invoke(&call).await;
        let is_lost = match extended {
            Ok(0) => true,
            Ok(_) => {
                renewed = asked;
                pause = RENEWED;
                false
            }
            Err(_) => {
                pause = PAUSE;
                renewed.elapsed() > GIVEN_UP
            }
        };
        if is_lost {
            lost.is.store(true, Ordering::Release);
            lost.told.notify_waiters();
            return;
        }
    }
}

fn key(place: &Place, what: &str) -> String {
    format!("{PREFIX}{}/{}:{what}", place.host, place.name)
}

fn account_key(host: &str, id: &str) -> String {
    format!("{PREFIX}{host}/account-{id}")
}

fn news_key() -> String {
    format!("{PREFIX}news")
}

fn challenges_key() -> String {
    format!("{PREFIX}challenges")
}

fn renewals_key() -> String {
    format!("{PREFIX}renew")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn random_id() -> Result<String, Failure> {
    let mut random = [0_u8; 12];
    getrandom::fill(&mut random).map_err(|_| Failure::own("the system has no random bytes"))?;
    Ok(URL_SAFE_NO_PAD.encode(random))
}
