//! `Store`: the refresh families and what was revoked, on disk. What was answered is there after
//! kill -9. No token is stored, and nothing from which one could be made.
//!
//! One thread has the database. It takes all requests that wait in one transaction, so that they share
//! the wait for the disk.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// How many requests share one transaction at most.
const BATCH: usize = 512;

const FAMILIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("families");
/// Subjects, and the time before which their families have ended.
const SUBJECTS: TableDefinition<'_, &str, u64> = TableDefinition::new("subjects");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// A refresh family: all tokens that go back to one login.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Family {
    /// Whose it is.
    pub(crate) sub: String,
    /// When it began, in milliseconds since 1970.
    pub(crate) created: u64,
    /// How often its refresh token was changed for a new one.
    pub(crate) generation: u64,
    /// When that was last, in milliseconds since 1970.
    pub(crate) rotated: u64,
    /// When the last refresh token expires, in seconds since 1970.
    pub(crate) expires: u64,
    /// When it was ended before its time, in milliseconds since 1970.
    pub(crate) ended: Option<u64>,
}

/// What became of a refresh.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Refreshed {
    /// The family goes on, with this state.
    Family(Family),
    /// The token was spent before: its family has ended.
    Reused,
    /// There is no such family, or it has ended.
    Ended,
}

/// The store does not work; why is in the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the store does not work")]
pub(crate) struct StoreDown;

/// How a refresh is to be judged.
#[derive(Clone, Debug)]
pub(crate) struct Refresh {
    /// The family.
    pub(crate) id: String,
    /// Which of its refresh tokens, from 0.
    pub(crate) generation: u64,
    /// The time, in milliseconds since 1970.
    pub(crate) now: u64,
    /// When a new refresh token would expire, in seconds since 1970; `None` where the same token
    /// goes on.
    pub(crate) rotate_until: Option<u64>,
    /// How long a spent token gets its successor once more, in milliseconds.
    pub(crate) grace: u64,
}

enum Order {
    Begin(String, Family, oneshot::Sender<Result<(), StoreDown>>),
    Refresh(Refresh, oneshot::Sender<Result<Refreshed, StoreDown>>),
    Look(String, oneshot::Sender<Result<Option<Family>, StoreDown>>),
    End(
        String,
        u64,
        oneshot::Sender<Result<Option<Family>, StoreDown>>,
    ),
    EndAll(String, u64, oneshot::Sender<Result<(), StoreDown>>),
    Purge(u64, oneshot::Sender<Result<usize, StoreDown>>),
}

/// What is revoked while access tokens may still be good.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Ended {
    /// Families, with the time of their end in milliseconds since 1970.
    pub(crate) families: Vec<(String, u64)>,
    /// Subjects, with the time before which all of theirs have ended.
    pub(crate) subjects: Vec<(String, u64)>,
}

/// The store, as many may use it.
pub(crate) struct Store {
    orders: mpsc::Sender<Order>,
    seed: Vec<u8>,
    ended: Ended,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

impl Store {
    /// Opens the store in this folder, or makes it.
    ///
    /// # Errors
    /// Why it cannot be opened; another gateway that has it is one reason.
    pub(crate) fn open(folder: &Path) -> Result<Self, String> {
        let failed = |error: &dyn std::fmt::Display| error.to_string();
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| failed(&error))?;
        let path = folder.join("tokens.redb");
        let database = Database::create(&path).map_err(|error| failed(&error))?;
        let (seed, ended) = prepare(&database).map_err(|error| failed(&error))?;
        let (orders, taken) = mpsc::channel();
        thread::Builder::new()
            .name("tokens".to_owned())
            .spawn(move || serve(&database, &taken))
            .map_err(|error| failed(&error))?;
        Ok(Self {
            orders,
            seed,
            ended,
        })
    }

    /// Random bytes that stay the same as long as the store does.
    pub(crate) fn seed(&self) -> &[u8] {
        &self.seed
    }

    /// What had ended when the store was opened.
    pub(crate) fn ended(&self) -> &Ended {
        &self.ended
    }

    async fn ask<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, StoreDown>>) -> Order,
    ) -> Result<T, StoreDown> {
        let (answer, answered) = oneshot::channel();
        self.orders.send(order(answer)).map_err(|_| StoreDown)?;
        answered.await.map_err(|_| StoreDown)?
    }

    /// Begins a family.
    ///
    /// # Errors
    /// Where it could not be written down for good.
    pub(crate) async fn begin(&self, id: String, family: Family) -> Result<(), StoreDown> {
        self.ask(|answer| Order::Begin(id, family, answer)).await
    }

    /// Judges a refresh token of a family, and spends it.
    ///
    /// # Errors
    /// As [`Store::begin`].
    pub(crate) async fn refresh(&self, refresh: Refresh) -> Result<Refreshed, StoreDown> {
        self.ask(|answer| Order::Refresh(refresh, answer)).await
    }

    /// A family that goes on; `None` where there is none, or it has ended.
    ///
    /// # Errors
    /// As [`Store::begin`].
    pub(crate) async fn look(&self, id: String) -> Result<Option<Family>, StoreDown> {
        self.ask(|answer| Order::Look(id, answer)).await
    }

    /// Ends a family at this time; gives it, where it had not ended before.
    ///
    /// # Errors
    /// As [`Store::begin`].
    pub(crate) async fn end(&self, id: String, now: u64) -> Result<Option<Family>, StoreDown> {
        self.ask(|answer| Order::End(id, now, answer)).await
    }

    /// Ends all families of a subject that began before this time.
    ///
    /// # Errors
    /// As [`Store::begin`].
    pub(crate) async fn end_all(&self, sub: String, now: u64) -> Result<(), StoreDown> {
        self.ask(|answer| Order::EndAll(sub, now, answer)).await
    }

    /// Forgets what has been expired for a day; gives how many rows that were.
    ///
    /// # Errors
    /// As [`Store::begin`].
    pub(crate) async fn purge(&self, now: u64) -> Result<usize, StoreDown> {
        self.ask(|answer| Order::Purge(now, answer)).await
    }
}

fn prepare(database: &Database) -> Result<(Vec<u8>, Ended), redb::Error> {
    let transaction = database.begin_write()?;
    let seed = {
        transaction.open_table(FAMILIES)?;
        transaction.open_table(SUBJECTS)?;
        let mut meta = transaction.open_table(META)?;
        let known = meta.get("seed")?.map(|seed| seed.value().to_vec());
        match known {
            Some(seed) => seed,
            None => {
                let mut seed = vec![0; 32];
                getrandom::fill(&mut seed)
                    .map_err(|error| redb::Error::Io(std::io::Error::other(error.to_string())))?;
                meta.insert("seed", seed.as_slice())?;
                seed
            }
        }
    };
    transaction.commit()?;
    let transaction = database.begin_read()?;
    let mut ended = Ended::default();
    for row in transaction.open_table(FAMILIES)?.iter()? {
        let (id, row) = row?;
        if let Some(at) = read(row.value()).and_then(|family| family.ended) {
            ended.families.push((id.value().to_owned(), at));
        }
    }
    for row in transaction.open_table(SUBJECTS)?.iter()? {
        let (sub, before) = row?;
        ended
            .subjects
            .push((sub.value().to_owned(), before.value()));
    }
    Ok((seed, ended))
}

fn read(row: &[u8]) -> Option<Family> {
    serde_json::from_slice(row).ok()
}

/// The store's thread: ends when nobody holds the store any more.
fn serve(database: &Database, orders: &mpsc::Receiver<Order>) {
    while let Ok(first) = orders.recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(next) = orders.try_recv()
        {
            batch.push(next);
        }
        if let Err(error) = apply(database, &mut batch) {
            tracing::error!(%error, "the store of tokens does not work");
            batch.into_iter().for_each(Order::fail);
        }
    }
}

/// Tells who asked, and who may be gone.
fn tell<T>(answer: oneshot::Sender<Result<T, StoreDown>>, outcome: Result<T, StoreDown>) {
    if answer.send(outcome).is_err() {
        tracing::trace!("nobody waits for the store's answer any more");
    }
}

impl Order {
    fn fail(self) {
        match self {
            Self::Begin(_, _, answer) | Self::EndAll(_, _, answer) => {
                tell(answer, Err(StoreDown));
            }
            Self::Refresh(_, answer) => tell(answer, Err(StoreDown)),
            Self::Look(_, answer) | Self::End(_, _, answer) => tell(answer, Err(StoreDown)),
            Self::Purge(_, answer) => tell(answer, Err(StoreDown)),
        }
    }
}

type Answer = Box<dyn FnOnce()>;

/// Does what is ordered in one transaction; nobody is answered before it is on the disk.
fn apply(database: &Database, batch: &mut Vec<Order>) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    let mut answers: Vec<Answer> = Vec::with_capacity(batch.len());
    {
        let mut tables = Tables {
            families: transaction.open_table(FAMILIES)?,
            subjects: transaction.open_table(SUBJECTS)?,
        };
        // The orders stay in the batch until all went well: whoever fails is told.
        let mut outcomes = Vec::with_capacity(batch.len());
        for order in batch.iter() {
            outcomes.push(tables.apply(order)?);
        }
        for (order, outcome) in std::mem::take(batch).into_iter().zip(outcomes) {
            answers.push(order.answer(outcome));
        }
    }
    match transaction.commit() {
        Ok(()) => {
            answers.into_iter().for_each(|answer| answer());
            Ok(())
        }
        // The answers are dropped, which tells those who wait as well.
        Err(error) => Err(error.into()),
    }
}

enum Outcome {
    Done,
    Refreshed(Refreshed),
    Family(Option<Family>),
    Purged(usize),
}

impl Order {
    fn answer(self, outcome: Outcome) -> Answer {
        match (self, outcome) {
            (Self::Begin(_, _, answer) | Self::EndAll(_, _, answer), Outcome::Done) => {
                Box::new(move || tell(answer, Ok(())))
            }
            (Self::Refresh(_, answer), Outcome::Refreshed(outcome)) => {
                Box::new(move || tell(answer, Ok(outcome)))
            }
            (Self::Look(_, answer) | Self::End(_, _, answer), Outcome::Family(family)) => {
                Box::new(move || tell(answer, Ok(family)))
            }
            (Self::Purge(_, answer), Outcome::Purged(count)) => {
                Box::new(move || tell(answer, Ok(count)))
            }
            (order, _) => Box::new(move || order.fail()),
        }
    }
}

struct Tables<'t> {
    families: redb::Table<'t, &'static str, &'static [u8]>,
    subjects: redb::Table<'t, &'static str, u64>,
}

impl Tables<'_> {
    fn apply(&mut self, order: &Order) -> Result<Outcome, redb::Error> {
        match order {
            Order::Begin(id, family, _) => {
                self.put(id, family)?;
                Ok(Outcome::Done)
            }
            Order::Refresh(refresh, _) => self.refresh(refresh).map(Outcome::Refreshed),
            Order::Look(id, _) => self.get(id).map(Outcome::Family),
            Order::End(id, now, _) => {
                let Some(mut family) = self.get(id)? else {
                    return Ok(Outcome::Family(None));
                };
                family.ended = Some(*now);
                self.put(id, &family)?;
                Ok(Outcome::Family(Some(family)))
            }
            Order::EndAll(sub, now, _) => {
                self.subjects.insert(sub.as_str(), *now)?;
                Ok(Outcome::Done)
            }
            Order::Purge(now, _) => self.purge(*now).map(Outcome::Purged),
        }
    }

    /// A family that goes on.
    fn get(&self, id: &str) -> Result<Option<Family>, redb::Error> {
        let row = self.families.get(id)?;
        let Some(family) = row.and_then(|row| read(row.value())) else {
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
        Ok(())
    }

    fn refresh(&mut self, asked: &Refresh) -> Result<Refreshed, redb::Error> {
        let Some(mut family) = self.get(&asked.id)? else {
            return Ok(Refreshed::Ended);
        };
        let last = asked.generation == family.generation;
        let just_spent = asked.generation.checked_add(1) == Some(family.generation)
            && asked.now.saturating_sub(family.rotated) <= asked.grace
            && asked.grace > 0;
        match asked.rotate_until {
            // The same token goes on as long as it lives.
            None if last => Ok(Refreshed::Family(family)),
            Some(expires) if last => {
                family.generation += 1;
                family.rotated = asked.now;
                family.expires = expires;
                self.put(&asked.id, &family)?;
                Ok(Refreshed::Family(family))
            }
            // Two tabs, or an answer that was lost: it gets what the first one got.
            Some(_) if just_spent => Ok(Refreshed::Family(family)),
            None | Some(_) => {
                // Somebody has a token that was spent: thief or owner, both are out.
                family.ended = Some(asked.now);
                self.put(&asked.id, &family)?;
                Ok(Refreshed::Reused)
            }
        }
    }

    fn purge(&mut self, now: u64) -> Result<usize, redb::Error> {
        const DAY: u64 = 24 * 3600;
        let mut gone = Vec::new();
        for row in self.families.iter()? {
            let (id, row) = row?;
            let expired = read(row.value()).is_none_or(|family| family.expires + DAY < now / 1000);
            if expired {
                gone.push(id.value().to_owned());
            }
        }
        for id in &gone {
            self.families.remove(id.as_str())?;
        }
        Ok(gone.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(created: u64) -> Family {
        Family {
            sub: "alice".to_owned(),
            created,
            generation: 0,
            rotated: created,
            expires: 1_000_000,
            ended: None,
        }
    }

    fn refresh(id: &str, generation: u64, now: u64) -> Refresh {
        Refresh {
            id: id.to_owned(),
            generation,
            now,
            rotate_until: Some(2_000_000),
            grace: 10_000,
        }
    }

    fn generation(refreshed: &Refreshed) -> Option<u64> {
        match refreshed {
            Refreshed::Family(family) => Some(family.generation),
            Refreshed::Reused | Refreshed::Ended => None,
        }
    }

    #[tokio::test]
    async fn a_refresh_token_is_good_once_and_a_late_repeat_ends_its_family() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store.begin("f".to_owned(), family(1)).await.unwrap();
        let refreshed = store.refresh(refresh("f", 0, 1000)).await.unwrap();
        assert_eq!(generation(&refreshed), Some(1));
        // Within the grace the same successor, and no further one.
        let again = store.refresh(refresh("f", 0, 11_000)).await.unwrap();
        assert_eq!(again, refreshed);
        let next = store.refresh(refresh("f", 1, 11_000)).await.unwrap();
        assert_eq!(generation(&next), Some(2));
        let reused = store.refresh(refresh("f", 0, 11_001)).await.unwrap();
        assert_eq!(reused, Refreshed::Reused);
        for spent in 0..4 {
            let ended = store.refresh(refresh("f", spent, 11_002)).await.unwrap();
            assert_eq!(ended, Refreshed::Ended);
        }
        assert_eq!(store.look("f".to_owned()).await, Ok(None));
        assert_eq!(
            store.refresh(refresh("g", 0, 1)).await,
            Ok(Refreshed::Ended)
        );

        store.begin("late".to_owned(), family(1)).await.unwrap();
        let first = store.refresh(refresh("late", 0, 1000)).await.unwrap();
        assert_eq!(generation(&first), Some(1));
        let late = store.refresh(refresh("late", 0, 11_001)).await.unwrap();
        assert_eq!(late, Refreshed::Reused);
        // A token from the future is as wrong as one from the past.
        store.begin("odd".to_owned(), family(1)).await.unwrap();
        assert_eq!(
            store.refresh(refresh("odd", 5, 2)).await,
            Ok(Refreshed::Reused)
        );
    }

    #[tokio::test]
    async fn without_rotation_and_without_grace() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store.begin("f".to_owned(), family(1)).await.unwrap();
        let same = Refresh {
            rotate_until: None,
            ..refresh("f", 0, 5)
        };
        for _ in 0..3 {
            let refreshed = store.refresh(same.clone()).await.unwrap();
            assert_eq!(refreshed, Refreshed::Family(family(1)));
        }
        let strict = |generation| Refresh {
            grace: 0,
            ..refresh("f", generation, 5)
        };
        assert_eq!(
            generation(&store.refresh(strict(0)).await.unwrap()),
            Some(1)
        );
        assert_eq!(store.refresh(strict(0)).await, Ok(Refreshed::Reused));
    }

    #[tokio::test]
    async fn what_was_answered_is_there_when_the_store_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let seed = {
            let store = Store::open(folder.path()).unwrap();
            for id in ["a", "b", "c"] {
                store.begin(id.to_owned(), family(1)).await.unwrap();
            }
            store.end("a".to_owned(), 7).await.unwrap();
            let mut bob = family(5);
            bob.sub = "bob".to_owned();
            store.begin("d".to_owned(), bob).await.unwrap();
            store.end_all("bob".to_owned(), 9).await.unwrap();
            assert!(Store::open(folder.path()).is_err(), "two have the store");
            store.seed().to_vec()
        };
        // The thread lets go of the file.
        let store = loop {
            match Store::open(folder.path()) {
                Ok(store) => break store,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            }
        };
        assert_eq!((store.seed(), seed.len()), (seed.as_slice(), 32));
        assert_eq!(store.ended().families, [("a".to_owned(), 7)]);
        assert_eq!(store.ended().subjects, [("bob".to_owned(), 9)]);
        assert_eq!(store.look("a".to_owned()).await, Ok(None));
        assert_eq!(store.look("b".to_owned()).await, Ok(Some(family(1))));
        assert_eq!(store.look("d".to_owned()).await, Ok(None));
        // Who logs in after that is welcome.
        let mut later = family(10);
        later.sub = "bob".to_owned();
        store.begin("e".to_owned(), later.clone()).await.unwrap();
        assert_eq!(store.look("e".to_owned()).await, Ok(Some(later)));
        assert_eq!(store.purge(1_000_000_000).await, Ok(0));
        assert_eq!(store.purge((1_000_000 + 86_401) * 1000).await, Ok(5));
        assert_eq!(store.look("b".to_owned()).await, Ok(None));
    }
}
