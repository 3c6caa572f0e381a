//! The store of a single gateway: a file in the directory of `state`. Everything that was acknowledged survives kill
//! -9.
//!
//! Another process, such as the command line, requests the end of sessions by writing a file of its own beside it.
//!
//! One thread owns the database. It executes all queued orders in one transaction, so that they share the wait for the
//! disk.

use std::fmt;
use std::ops::Bound;
use std::os::unix::fs::DirBuilderExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, TrySendError};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{
    Everywhere, Family, FamilyName, KEPT, Lives, Longest, ORDERS, Order, Refresh, Refreshed, Store,
    StoreDown, Whom, tell,
};
use crate::auth::LiveRevoked;
use crate::filesystem;
use crate::tokens::private::write_private;

/// The maximum number of orders in one transaction.
const BATCH: usize = 512;
/// How many rows are scanned for expired entries in one go, during which no other order is executed.
const SWEPT: usize = 10_000;

const FAMILIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("families");
/// Subjects, and the time before which their families have ended.
const SUBJECTS: TableDefinition<'_, &str, u64> = TableDefinition::new("subjects");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// Revocations for which access tokens may still be valid.
#[derive(Default)]
struct Ended {
    /// Families, with the time of their end in milliseconds since 1970.
    families: Vec<(String, u64)>,
    /// Subjects, with the time before which all their families have ended.
    subjects: Vec<(String, u64)>,
}

impl Ended {
    fn tell(&self, revoked: &LiveRevoked) {
        revoked.families(self.families.iter().map(|(id, at)| (id.as_str(), *at)));
        revoked.subjects(self.subjects.iter().map(|(sub, at)| (sub.as_str(), *at)));
    }
}

/// A shared handle of the store.
pub(crate) struct Embedded {
    orders: mpsc::SyncSender<Order>,
    longest: Arc<Longest>,
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Embedded")
    }
}

impl Store for Embedded {
    fn take(&self, order: Order) {
        // An order that is dropped has failed.
        match self.orders.try_send(order) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => tracing::debug!("the store's queue is full"),
            Err(TrySendError::Disconnected(_)) => tracing::error!("the store's thread has ended"),
        }
    }

    fn longest(&self) -> &Longest {
        &self.longest
    }
}

impl Embedded {
    /// Opens the store in this directory, or creates it. Workers are notified of ended sessions through `revoked`.
    ///
    /// # Errors
    /// Why it cannot be opened; for example, another gateway has it open.
    pub(crate) fn open(
        directory: &Path,
        lives: Lives,
        now: u64,
        revoked: Arc<LiveRevoked>,
    ) -> Result<Self, String> {
        let failed = |error: &dyn fmt::Display| error.to_string();
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| failed(&error))?;
        let path = directory.join("tokens.redb");
        let database = database(&path).map_err(|error| failed(&error))?;
        let longest = Arc::new(Longest::default());
        longest.at_least(lives);
        let ended = prepare(&database, &longest, now).map_err(|error| failed(&error))?;
        ended.tell(&revoked);
        let mut keeper = Keeper {
            path,
            database: Some(database),
            known: longest.lives(),
            longest: Arc::clone(&longest),
            revoked,
            swept: String::new(),
        };
        let (orders, taken) = mpsc::sync_channel(ORDERS);
        thread::Builder::new()
            .name("tokens".to_owned())
            .spawn(move || keeper.serve(&taken))
            .map_err(|error| failed(&error))?;
        Ok(Self { orders, longest })
    }
}

/// The database at this path; created if it does not exist.
fn database(path: &Path) -> Result<Database, redb::Error> {
    if !path.exists() {
        make(path)?;
    }
    Ok(Database::open(path)?)
}

/// Creates an empty database under another name, and renames it when it is complete: a partial one, left by a killed
/// process, could never be opened.
fn make(path: &Path) -> Result<(), redb::Error> {
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    let file = tempfile::Builder::new()
        .prefix(".tokens.redb-")
        .tempfile_in(directory)?;
    drop(Database::create(file.path())?);
    match file.persist_noclobber(path) {
        Ok(file) => file.sync_all()?,
        // Another process created it first.
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error.error.into()),
    }
    // Sync the directory entry, too.
    std::fs::File::open(directory)?.sync_all()?;
    Ok(())
}

/// Another process's request to end sessions, in the format of its file.
#[derive(Deserialize, Serialize)]
struct Wish {
    /// All sessions of this subject.
    sub: String,
    /// Or only this session of theirs.
    session: Option<String>,
    /// In milliseconds since 1970.
    at: u64,
}

/// The prefix of the names of these files.
const WISHES: &str = "end-";
/// How often the gateway looks for these files.
const LOOKING: Duration = Duration::from_millis(500);

/// Whether a store cannot be opened because another process has it open; the text may have the store's name in front.
pub(crate) fn is_taken(why: &str) -> bool {
    why.ends_with(&redb::DatabaseError::DatabaseAlreadyOpen.to_string())
}

/// Asks the process that has the store open to end sessions, and waits until it has done so.
///
/// # Errors
/// Why they have not ended.
pub(crate) async fn ask_who_has_it(
    directory: &Path,
    whom: &Whom,
    now: u64,
    patience: Duration,
) -> Result<(), String> {
    let wish = match whom {
        Whom::Session(FamilyName { id, sub }) => Wish {
            sub: sub.clone(),
            session: Some(id.clone()),
            at: now,
        },
        Whom::Subject(sub) => Wish {
            sub: sub.clone(),
            session: None,
            at: now,
        },
    };
    let text = serde_json::to_vec(&wish).map_err(|error| error.to_string())?;
    let mut random = [0_u8; 8];
    getrandom::fill(&mut random).map_err(|error| error.to_string())?;
    let file = directory.join(format!("{WISHES}{:016x}.json", u64::from_be_bytes(random)));
    write_private(&file, &text).map_err(|error| format!("`{}`: {error}", file.display()))?;
    let mut left = patience;
    while file.exists() {
        let step = Duration::from_millis(50);
        let Some(less) = left.checked_sub(step) else {
            drop(std::fs::remove_file(&file));
            return Err(format!(
                "another process has `{}` open, and does not end sessions",
                directory.display()
            ));
        };
        left = less;
        tokio::time::sleep(step).await;
    }
    Ok(())
}

/// Creates the tables, raises the longest lifetimes on both sides, and reads what had ended.
fn prepare(database: &Database, longest: &Longest, now: u64) -> Result<Ended, redb::Error> {
    let transaction = database.begin_write()?;
    {
        transaction.open_table(FAMILIES)?;
        transaction.open_table(SUBJECTS)?;
        let mut meta = transaction.open_table(META)?;
        let mut known = Lives::default();
        for (name, life) in [
            ("longest_access", &mut known.access),
            ("longest_refresh", &mut known.refresh),
        ] {
            let bytes = meta.get(name)?;
            let bytes = bytes.and_then(|bytes| bytes.value().try_into().ok());
            *life = bytes.map_or(0, u64::from_be_bytes);
        }
        longest.at_least(known);
        write_down(&mut meta, longest.lives())?;
    }
    transaction.commit()?;
    let transaction = database.begin_read()?;
    let mut ended = Ended::default();
    // For anything that ended earlier, all access tokens have expired.
    let (families, subjects) = longest.told_since(now);
    for row in transaction.open_table(FAMILIES)?.iter()? {
        let (id, row) = row?;
        let at = read(row.value()).and_then(|family| family.ended);
        if let Some(at) = at
            && at >= families
        {
            ended.families.push((id.value().to_owned(), at));
        }
    }
    for row in transaction.open_table(SUBJECTS)?.iter()? {
        let (sub, before) = row?;
        if before.value() >= subjects {
            ended
                .subjects
                .push((sub.value().to_owned(), before.value()));
        }
    }
    Ok(ended)
}

fn write_down(
    meta: &mut redb::Table<'_, &'static str, &'static [u8]>,
    lives: Lives,
) -> Result<(), redb::StorageError> {
    for (name, life) in [
        ("longest_access", lives.access),
        ("longest_refresh", lives.refresh),
    ] {
        meta.insert(name, life.to_be_bytes().as_slice())?;
    }
    Ok(())
}

fn read(row: &[u8]) -> Option<Family> {
    serde_json::from_slice(row).ok()
}

/// The owner of the database.
struct Keeper {
    path: PathBuf,
    /// `None` after a failure, until it can be opened again.
    database: Option<Database>,
    longest: Arc<Longest>,
    /// The lifetimes that are written in the database.
    known: Lives,
    revoked: Arc<LiveRevoked>,
    /// The last row that was scanned for expired entries; empty at the beginning.
    swept: String,
}

impl Keeper {
    /// Returns when all handles of the store are dropped.
    fn serve(&mut self, orders: &mpsc::Receiver<Order>) {
        let mut looked = Instant::now();
        loop {
            if looked.elapsed() >= LOOKING {
                looked = Instant::now();
                self.grant_wishes();
            }
            let mut batch = match orders.recv_timeout(LOOKING) {
                Ok(first) => vec![first],
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            while batch.len() < BATCH
                && let Ok(next) = orders.try_recv()
            {
                batch.push(next);
            }
            batch.retain(|order| !order.is_abandoned());
            if !batch.is_empty() {
                self.obey(&mut batch);
            }
        }
    }

    /// Executes the orders, and sends the results; returns whether it worked.
    fn obey(&mut self, batch: &mut Vec<Order>) -> bool {
        // A panic of the library is handled like a disk error.
        let done = catch_unwind(AssertUnwindSafe(|| self.apply(batch)));
        let failure = match done {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it panicked".to_owned(),
        };
        tracing::error!(error = failure, "the store of tokens does not work");
        // After a failure the database accepts no more writes; the next batch reopens it.
        self.database = None;
        batch.drain(..).for_each(Order::fail);
        false
    }

    /// Ends the sessions that other processes want to end; deletes each file after its request is written to the
    /// database.
    fn grant_wishes(&mut self) {
        let Some(Ok(entries)) = self.path.parent().map(std::fs::read_dir) else {
            return;
        };
        let is_wish = |name: &str| name.starts_with(WISHES) && name.ends_with(".json");
        let files = entries.flatten().filter(|entry| {
            let name = entry.file_name();
            name.to_str().is_some_and(is_wish)
        });
        for file in files.map(|entry| entry.path()).collect::<Vec<_>>() {
            let read = filesystem::read(&file).map_err(|error| error.to_string());
            let wish = read.and_then(|bytes| {
                serde_json::from_slice::<Wish>(&bytes).map_err(|error| error.to_string())
            });
            let Wish { sub, session, at } = match wish {
                Ok(wish) => wish,
                Err(error) => {
                    tracing::warn!(file = %file.display(), error, "this is not a request to end sessions");
                    continue;
                }
            };
            tracing::info!(sub, session, "ending sessions for another process");
            let order = match session {
                Some(id) => {
                    let (told, _nobody) = oneshot::channel();
                    Order::End(FamilyName { id, sub }, at, Everywhere::No, told)
                }
                None => {
                    let (told, _nobody) = oneshot::channel();
                    Order::EndAll(vec![(sub, at)], told)
                }
            };
            if self.obey(&mut vec![order])
                && let Err(error) = std::fs::remove_file(&file)
            {
                tracing::warn!(file = %file.display(), %error, "the file cannot be deleted");
            }
        }
    }

    /// Executes the orders in one transaction; no result is sent before it is on the disk.
    fn apply(&mut self, batch: &mut Vec<Order>) -> Result<(), redb::Error> {
        let database = match self.database.take() {
            Some(database) => database,
            None => database(&self.path)?,
        };
        let database = self.database.insert(database);
        let transaction = database.begin_write()?;
        let mut effects = Effects::default();
        let lives = self.longest.lives();
        let (outcomes, written) = {
            let mut tables = Tables {
                families: transaction.open_table(FAMILIES)?,
                subjects: transaction.open_table(SUBJECTS)?,
                lives,
                swept: &mut self.swept,
                written: lives != self.known,
            };
            if tables.written {
                // Written before a token with that lifetime is sent.
                write_down(&mut transaction.open_table(META)?, lives)?;
            }
            let mut outcomes = Vec::with_capacity(batch.len());
            for order in batch.iter() {
                outcomes.push(tables.apply(order, &mut effects)?);
            }
            (outcomes, tables.written)
        };
        // Orders that only read need not wait for the disk.
        if written {
            transaction.commit()?;
            self.known = lives;
        } else {
            transaction.abort()?;
        }
        // Workers are notified before any result is sent, even if the caller has gone.
        effects.ended.tell(&self.revoked);
        for (sub, id) in &effects.reused {
            tracing::warn!(
                sub,
                session = id,
                "a refresh token was used again: its session has ended"
            );
        }
        let mut untold = Vec::new();
        for (order, outcome) in std::mem::take(batch).into_iter().zip(outcomes) {
            untold.extend(order.answer(outcome));
        }
        self.give_back(&untold)
    }

    /// Makes tokens valid again whose replacement was not delivered: a client that uses one again is not a thief.
    fn give_back(&mut self, untold: &[Refresh]) -> Result<(), redb::Error> {
        let Some(database) = self.database.as_ref().filter(|_| !untold.is_empty()) else {
            return Ok(());
        };
        let transaction = database.begin_write()?;
        {
            let mut families = transaction.open_table(FAMILIES)?;
            for Refresh {
                family: name,
                generation,
                now,
                ..
            } in untold
            {
                let row = families.get(name.id.as_str())?;
                let row = row.and_then(|row| read(row.value()));
                let spent = |family: &Family| {
                    generation.checked_add(1) == Some(family.generation) && family.rotated == *now
                };
                let Some(mut family) = row.filter(|family| spent(family) && !family.repeated)
                else {
                    continue;
                };
                family.generation = *generation;
                let row = serde_json::to_vec(&family)
                    .map_err(|error| redb::Error::Io(std::io::Error::other(error)))?;
                families.insert(name.id.as_str(), row.as_slice())?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

/// The effects of a batch.
#[derive(Default)]
struct Effects {
    ended: Ended,
    reused: Vec<(String, String)>,
}

impl Order {
    fn fail(self) {
        match self {
            Self::Begin(_, _, answer) | Self::EndAll(_, answer) => {
                tell(answer, Err(StoreDown));
            }
            Self::Refresh(_, answer) => tell(answer, Err(StoreDown)),
            Self::Look(_, answer) | Self::End(_, _, _, answer) => tell(answer, Err(StoreDown)),
            Self::Purge(_, answer) => tell(answer, Err(StoreDown)),
        }
    }
}

enum Outcome {
    Done,
    Refreshed(Refreshed),
    Family(Option<Family>),
    Purged(usize),
}

impl Order {
    /// Sends the result; returns a refresh that used a token for a caller that had gone.
    fn answer(self, outcome: Outcome) -> Option<Refresh> {
        match (self, outcome) {
            (Self::Begin(_, _, answer) | Self::EndAll(_, answer), Outcome::Done) => {
                tell(answer, Ok(()));
            }
            (Self::Refresh(refresh, answer), Outcome::Refreshed(outcome)) => {
                let spent =
                    matches!(outcome, Refreshed::Family(_)) && refresh.rotate_until.is_some();
                if answer.send(Ok(outcome)).is_err() && spent {
                    return Some(refresh);
                }
            }
            (Self::Look(_, answer) | Self::End(_, _, _, answer), Outcome::Family(family)) => {
                tell(answer, Ok(family));
            }
            (Self::Purge(_, answer), Outcome::Purged(count)) => tell(answer, Ok(count)),
            (order, _) => order.fail(),
        }
        None
    }
}

struct Tables<'t> {
    families: redb::Table<'t, &'static str, &'static [u8]>,
    subjects: redb::Table<'t, &'static str, u64>,
    /// The longest lifetimes.
    lives: Lives,
    /// The last row that was scanned for expired entries.
    swept: &'t mut String,
    /// Whether there is anything to commit.
    written: bool,
}

impl Tables<'_> {
    fn apply(&mut self, order: &Order, effects: &mut Effects) -> Result<Outcome, redb::Error> {
        match order {
            Order::Begin(id, family, _) => {
                self.put(id, family)?;
                Ok(Outcome::Done)
            }
            Order::Refresh(refresh, _) => self.refresh(refresh, effects).map(Outcome::Refreshed),
            Order::Look(name, _) => self.get(name).map(Outcome::Family),
            Order::End(name, now, everywhere, _) => {
                let Some(mut family) = self.get(name)? else {
                    return Ok(Outcome::Family(None));
                };
                family.ended = Some(*now);
                self.put(&name.id, &family)?;
                effects.ended.families.push((name.id.clone(), *now));
                if *everywhere == Everywhere::Yes {
                    self.end_all(&family.sub, *now, effects)?;
                }
                Ok(Outcome::Family(Some(family)))
            }
            Order::EndAll(subjects, _) => {
                for (sub, before) in subjects {
                    self.end_all(sub, *before, effects)?;
                }
                Ok(Outcome::Done)
            }
            Order::Purge(now, _) => self.purge(*now).map(Outcome::Purged),
        }
    }

    fn end_all(
        &mut self,
        sub: &str,
        before: u64,
        effects: &mut Effects,
    ) -> Result<(), redb::Error> {
        let known = self.subjects.get(sub)?.map(|known| known.value());
        // A clock that was set back makes nothing valid again.
        let before = known.map_or(before, |known| known.max(before));
        self.subjects.insert(sub, before)?;
        self.written = true;
        effects.ended.subjects.push((sub.to_owned(), before));
        Ok(())
    }

    /// A family that has not ended.
    fn get(&self, name: &FamilyName) -> Result<Option<Family>, redb::Error> {
        let row = self.families.get(name.id.as_str())?;
        let family = row.and_then(|row| read(row.value()));
        let Some(family) = family.filter(|family| family.sub == name.sub) else {
            return Ok(None);
        };
        let before = self.subjects.get(family.sub.as_str())?;
        let all_ended = before.is_some_and(|before| family.created <= before.value());
        Ok((family.ended.is_none() && !all_ended).then_some(family))
    }

    fn put(&mut self, id: &str, family: &Family) -> Result<(), redb::Error> {
        let row = serde_json::to_vec(family)
            .map_err(|error| redb::Error::Io(std::io::Error::other(error)))?;
        self.families.insert(id, row.as_slice())?;
        self.written = true;
        Ok(())
    }

    fn refresh(
        &mut self,
        asked: &Refresh,
        effects: &mut Effects,
    ) -> Result<Refreshed, redb::Error> {
        let Some(mut family) = self.get(&asked.family)? else {
            return Ok(Refreshed::Ended);
        };
        let last = asked.generation == family.generation;
        let just_spent = asked.generation.checked_add(1) == Some(family.generation)
            && asked.now.saturating_sub(family.rotated) <= asked.grace
            && asked.grace > 0
            && !family.repeated
            && asked.spender.may_be(&family.spender);
        match asked.rotate_until {
            // The same token remains in use until it expires.
            None if last => Ok(Refreshed::Family(family)),
            Some(expires) if last => {
                family.generation += 1;
                family.rotated = asked.now;
                family.expires = expires;
                family.spender = asked.spender.clone();
                family.repeated = false;
                self.put(&asked.family.id, &family)?;
                Ok(Refreshed::Family(family))
            }
            // Two tabs, or a response that was lost: it gets the same replacement as the first request, once.
            Some(_) if just_spent => {
                family.repeated = true;
                self.put(&asked.family.id, &family)?;
                Ok(Refreshed::Family(family))
            }
            None | Some(_) => {
                // Somebody uses a token that was already used. Whether thief or owner, the session ends for both.
                family.ended = Some(asked.now);
                self.put(&asked.family.id, &family)?;
                effects
                    .ended
                    .families
                    .push((asked.family.id.clone(), asked.now));
                effects.reused.push((family.sub, asked.family.id.clone()));
                Ok(Refreshed::Reused)
            }
        }
    }

    /// Scans some rows for entries that expired more than a day ago, the following rows the next time, and all
    /// subjects.
    fn purge(&mut self, now: u64) -> Result<usize, redb::Error> {
        let keep = KEPT + self.lives.access;
        let mut gone = Vec::new();
        let mut last = None;
        let rest = (Bound::Excluded(self.swept.as_str()), Bound::Unbounded);
        let mut seen = 0;
        for row in self.families.range::<&str>(rest)?.take(SWEPT) {
            let (id, row) = row?;
            seen += 1;
            if read(row.value()).is_none_or(|family| family.expires + keep < now / 1000) {
                gone.push(id.value().to_owned());
            }
            last = Some(id.value().to_owned());
        }
        *self.swept = last.filter(|_| seen == SWEPT).unwrap_or_default();
        for id in &gone {
            self.families.remove(id.as_str())?;
        }
        // No family that began before it can still be valid.
        let over = now.saturating_sub((self.lives.refresh + KEPT) * 1000);
        let mut idle = Vec::new();
        for row in self.subjects.iter()? {
            let (sub, before) = row?;
            if before.value() < over {
                idle.push(sub.value().to_owned());
            }
        }
        for sub in &idle {
            self.subjects.remove(sub.as_str())?;
        }
        let count = gone.len() + idle.len();
        self.written |= count > 0;
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
