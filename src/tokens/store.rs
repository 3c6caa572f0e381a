//! `Store`: the refresh families and what was revoked. No token is stored, and nothing from which one
//! could be made. Where the rows are is the matter of the two that stand below; what a request gets
//! for it, that of the service.

pub(super) mod embedded;
pub(super) mod shared;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::spender::Spender;

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
    /// Who did that last.
    #[serde(default)]
    pub(crate) spender: Spender,
    /// Whether the last token that was spent has got its successor once more.
    #[serde(default)]
    pub(crate) repeated: bool,
    /// When it was ended before its time, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended: Option<u64>,
    /// What the app said of the user at the login; nothing where the users' file says it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub(crate) claims: Map<String, Value>,
}

/// What becomes of a refresh, by the rules that every store keeps.
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

/// A family by its id, and by whose it is: a store may keep what is one subject's together.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct FamilyName {
    /// Its id.
    pub(crate) id: String,
    /// Its subject.
    pub(crate) sub: String,
}

/// Whose sessions end.
#[derive(Clone, Debug)]
pub(crate) enum Whom {
    /// This one alone.
    Session(FamilyName),
    /// All of a subject's.
    Subject(String),
}

/// How a refresh is to be judged.
#[derive(Clone, Debug)]
pub(crate) struct Refresh {
    /// The family.
    pub(crate) family: FamilyName,
    /// Which of its refresh tokens, from 0.
    pub(crate) generation: u64,
    /// The time, in milliseconds since 1970.
    pub(crate) now: u64,
    /// When a new refresh token would expire, in seconds since 1970; `None` where the same token
    /// goes on.
    pub(crate) rotate_until: Option<u64>,
    /// How long a spent token gets its successor once more, if the same client asks, in milliseconds.
    pub(crate) grace: u64,
    /// Who asks.
    pub(crate) spender: Spender,
}

/// How much ends with a family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Everywhere {
    /// All of its subject's.
    Yes,
    /// It alone.
    No,
}

type Tell<T> = oneshot::Sender<Result<T, StoreDown>>;

/// What a store is asked, with whom to tell.
pub(crate) enum Order {
    /// Begin a family.
    Begin(String, Family, Tell<()>),
    /// Judge a refresh token, and spend it.
    Refresh(Refresh, Tell<Refreshed>),
    /// Look at a family that goes on.
    Look(FamilyName, Tell<Option<Family>>),
    /// End a family at a time in milliseconds since 1970.
    End(FamilyName, u64, Everywhere, Tell<Option<Family>>),
    /// End all families of subjects that began before a time each, in milliseconds since 1970.
    EndAll(Vec<(String, u64)>, Tell<()>),
    /// Forget some of what has been expired for a day, at a time in milliseconds since 1970.
    Purge(u64, Tell<usize>),
}

impl Order {
    /// Whether nobody waits for it any more, and it is better left undone: a token that is spent now
    /// would be spent for nobody. What is to end, ends.
    fn is_abandoned(&self) -> bool {
        match self {
            Self::Begin(_, _, told) => told.is_closed(),
            Self::Refresh(_, told) => told.is_closed(),
            Self::Look(_, told) => told.is_closed(),
            Self::End(..) | Self::EndAll(..) | Self::Purge(..) => false,
        }
    }
}

/// Where the families are. What ends is told to the workers before anybody is answered, and whether or
/// not anybody still waits for the response.
pub(crate) trait Store: Send + Sync + fmt::Debug {
    /// Takes an order. One that is dropped has failed.
    fn take(&self, order: Order);

    /// The longest lives that its tokens were ever issued with.
    fn longest(&self) -> &Longest;
}

impl dyn Store + '_ {
    async fn ask<T>(&self, order: impl FnOnce(Tell<T>) -> Order) -> Result<T, StoreDown> {
        let (answer, answered) = oneshot::channel();
        self.take(order(answer));
        let answered = timeout(PATIENCE, answered).await;
        answered.map_err(|_| StoreDown)?.map_err(|_| StoreDown)?
    }

    /// Begins a family.
    ///
    /// # Errors
    /// Where the store is down; nothing was begun that anybody was told of.
    pub(crate) async fn begin(&self, id: String, family: Family) -> Result<(), StoreDown> {
        self.ask(|answer| Order::Begin(id, family, answer)).await
    }

    /// Judges a refresh token of a family, and spends it.
    ///
    /// # Errors
    /// Where the store is down.
    pub(crate) async fn refresh(&self, refresh: Refresh) -> Result<Refreshed, StoreDown> {
        self.ask(|answer| Order::Refresh(refresh, answer)).await
    }

    /// A family that goes on; `None` where there is none, or it has ended.
    ///
    /// # Errors
    /// Where the store is down.
    pub(crate) async fn look(&self, family: FamilyName) -> Result<Option<Family>, StoreDown> {
        self.ask(|answer| Order::Look(family, answer)).await
    }

    /// Ends a family at this time in milliseconds since 1970, and with it all of its subject's, if so
    /// asked; gives it, where it had not ended before.
    ///
    /// # Errors
    /// Where the store is down.
    pub(crate) async fn end(
        &self,
        family: FamilyName,
        now: u64,
        everywhere: Everywhere,
    ) -> Result<Option<Family>, StoreDown> {
        self.ask(|answer| Order::End(family, now, everywhere, answer))
            .await
    }

    /// Ends all families of these subjects that began before a time each.
    ///
    /// # Errors
    /// Where the store is down.
    pub(crate) async fn end_all(&self, subjects: Vec<(String, u64)>) -> Result<(), StoreDown> {
        self.ask(|answer| Order::EndAll(subjects, answer)).await
    }

    /// Forgets some of what has been expired for a day; gives how many rows that were.
    ///
    /// # Errors
    /// Where the store is down.
    pub(crate) async fn purge(&self, now: u64) -> Result<usize, StoreDown> {
        self.ask(|answer| Order::Purge(now, answer)).await
    }
}

/// How long tokens live, in seconds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Lives {
    /// Access tokens.
    pub(crate) access: u64,
    /// Refresh tokens.
    pub(crate) refresh: u64,
}

/// The longest lives that tokens of a store were ever issued with, in seconds.
#[derive(Debug, Default)]
pub(crate) struct Longest {
    access: AtomicU64,
    refresh: AtomicU64,
}

impl Longest {
    /// Tokens are issued with these lives.
    pub(crate) fn at_least(&self, lives: Lives) {
        self.access.fetch_max(lives.access, Ordering::Relaxed);
        self.refresh.fetch_max(lives.refresh, Ordering::Relaxed);
    }

    /// Of access tokens.
    pub(crate) fn access(&self) -> u64 {
        self.access.load(Ordering::Relaxed)
    }

    /// Of any.
    pub(crate) fn any(&self) -> u64 {
        self.refresh.load(Ordering::Relaxed).max(self.access())
    }

    /// Both.
    fn lives(&self) -> Lives {
        Lives {
            access: self.access(),
            refresh: self.any(),
        }
    }

    /// How long the end of a family is told to the workers, in seconds: none of its access tokens is good
    /// for longer.
    fn ended_family(&self) -> u64 {
        self.access() + SLACK
    }

    /// The same for the end of all of a subject's: tokens of no session may live as long as any.
    fn ended_subject(&self) -> u64 {
        self.any() + SLACK
    }

    /// The times in milliseconds since 1970 before which the ends of families, and of all of a subject's,
    /// need no longer be told.
    pub(crate) fn told_since(&self, now: u64) -> (u64, u64) {
        let since = |seconds: u64| now.saturating_sub(seconds.saturating_mul(1000));
        (since(self.ended_family()), since(self.ended_subject()))
    }
}

/// What clocks may differ, in seconds.
pub(crate) const SLACK: u64 = 60;

/// How many orders may wait or be under way.
const ORDERS: usize = 4096;
/// How long one may take, whatever the store is.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long rows are kept after the last token of theirs has expired, in seconds.
const KEPT: u64 = 24 * 3600;

/// Tells who asked, and who may be gone.
fn tell<T>(answer: Tell<T>, outcome: Result<T, StoreDown>) {
    if answer.send(outcome).is_err() {
        tracing::trace!("nobody waits for the store's answer any more");
    }
}
