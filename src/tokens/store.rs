//! `Store`: the refresh families and revocations. It stores no tokens, and nothing from which a token could be made.
//! `embedded` and `shared` implement the storage; the service decides on the responses.

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

/// A refresh family: all tokens that descend from one login.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Family {
    /// The user.
    pub(crate) sub: String,
    /// When it began, in milliseconds since 1970.
    pub(crate) created: u64,
    /// How often its refresh token was replaced.
    pub(crate) generation: u64,
    /// When it was last replaced, in milliseconds since 1970.
    pub(crate) rotated: u64,
    /// When the last refresh token expires, in seconds since 1970.
    pub(crate) expires: u64,
    /// The client that replaced it last.
    #[serde(default)]
    pub(crate) spender: Spender,
    /// Whether the last used token has returned its replacement once more.
    #[serde(default)]
    pub(crate) repeated: bool,
    /// When it was ended before its expiry, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended: Option<u64>,
    /// The app's data about the user at the login; empty where the users' file has it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub(crate) claims: Map<String, Value>,
}

/// The result of a refresh, by the rules that every store applies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Refreshed {
    /// The family continues, in this state.
    Family(Family),
    /// The token was used before: its family has ended.
    Reused,
    /// There is no such family, or it has ended.
    Ended,
}

/// The store does not work; the log has the reason.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the store does not work")]
pub(crate) struct StoreDown;

/// A family by its id and its subject: a store may keep all data of one subject together.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct FamilyName {
    /// Its id.
    pub(crate) id: String,
    /// Its subject.
    pub(crate) sub: String,
}

/// Which sessions end.
#[derive(Clone, Debug)]
pub(crate) enum Whom {
    /// Only this one.
    Session(FamilyName),
    /// All sessions of a subject.
    Subject(String),
}

/// A refresh that is to be decided.
#[derive(Clone, Debug)]
pub(crate) struct Refresh {
    /// The family.
    pub(crate) family: FamilyName,
    /// The generation of its refresh token, from 0.
    pub(crate) generation: u64,
    /// The time, in milliseconds since 1970.
    pub(crate) now: u64,
    /// When a new refresh token would expire, in seconds since 1970; `None` where the same token remains in use.
    pub(crate) rotate_until: Option<u64>,
    /// The grace period in which a used token returns its replacement once more to the same client, in milliseconds.
    pub(crate) grace: u64,
    /// The client.
    pub(crate) spender: Spender,
}

/// How many families end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Everywhere {
    /// All of its subject.
    Yes,
    /// Only this one.
    No,
}

type Tell<T> = oneshot::Sender<Result<T, StoreDown>>;

/// A request to a store, with the sender for its result.
pub(crate) enum Order {
    /// Begin a family.
    Begin(String, Family, Tell<()>),
    /// Check a refresh token, and mark it as used.
    Refresh(Refresh, Tell<Refreshed>),
    /// Read a family that has not ended.
    Look(FamilyName, Tell<Option<Family>>),
    /// End a family at a time in milliseconds since 1970.
    End(FamilyName, u64, Everywhere, Tell<Option<Family>>),
    /// End all families of subjects that began before a time each, in milliseconds since 1970.
    EndAll(Vec<(String, u64)>, Tell<()>),
    /// Forget some of the entries that expired more than a day ago, at a time in milliseconds since 1970.
    Purge(u64, Tell<usize>),
}

impl Order {
    /// Whether the caller has gone and the order should not be executed: a token would be used up for nobody. Orders
    /// that end sessions are always executed.
    fn is_abandoned(&self) -> bool {
        match self {
            Self::Begin(_, _, told) => told.is_closed(),
            Self::Refresh(_, told) => told.is_closed(),
            Self::Look(_, told) => told.is_closed(),
            Self::End(..) | Self::EndAll(..) | Self::Purge(..) => false,
        }
    }
}

/// The storage of the families. Workers are notified of ended sessions before the caller gets a result, even if the
/// caller has gone.
pub(crate) trait Store: Send + Sync + fmt::Debug {
    /// Accepts an order. An order that is dropped has failed.
    fn take(&self, order: Order);

    /// The longest lifetimes with which its tokens were ever issued.
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
    /// Where the store is down; no family was begun of which a caller was notified.
    pub(crate) async fn begin(&self, id: String, family: Family) -> Result<(), StoreDown> {
        self.ask(|answer| Order::Begin(id, family, answer)).await
    }

    /// Checks a refresh token of a family, and marks it as used.
    ///
    /// # Errors
    /// Where the store is down.
    pub(crate) async fn refresh(&self, refresh: Refresh) -> Result<Refreshed, StoreDown> {
        self.ask(|answer| Order::Refresh(refresh, answer)).await
    }

    /// A family that has not ended; `None` where there is none, or it has ended.
    ///
    /// # Errors
    /// Where the store is down.
    pub(crate) async fn look(&self, family: FamilyName) -> Result<Option<Family>, StoreDown> {
        self.ask(|answer| Order::Look(family, answer)).await
    }

    /// Ends a family at this time in milliseconds since 1970, and all others of its subject if requested; returns it
    /// if it had not ended before.
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

    /// Forgets some of the entries that expired more than a day ago; returns how many rows were deleted.
    ///
    /// # Errors
    /// Where the store is down.
    pub(crate) async fn purge(&self, now: u64) -> Result<usize, StoreDown> {
        self.ask(|answer| Order::Purge(now, answer)).await
    }
}

/// The lifetimes of tokens, in seconds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Lives {
    /// Access tokens.
    pub(crate) access: u64,
    /// Refresh tokens.
    pub(crate) refresh: u64,
}

/// The longest lifetimes with which tokens of a store were ever issued, in seconds.
#[derive(Debug, Default)]
pub(crate) struct Longest {
    access: AtomicU64,
    refresh: AtomicU64,
}

impl Longest {
    /// Records that tokens are issued with these lifetimes.
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

    /// How long workers are notified of the end of a family, in seconds: none of its access tokens is valid longer.
    fn ended_family(&self) -> u64 {
        self.access() + SLACK
    }

    /// The same for the end of all families of a subject: tokens without a session may live as long as any token.
    fn ended_subject(&self) -> u64 {
        self.any() + SLACK
    }

    /// The times in milliseconds since 1970 before which the ends of families, and of all families of a subject, no
    /// longer need to be published.
    pub(crate) fn told_since(&self, now: u64) -> (u64, u64) {
        let since = |seconds: u64| now.saturating_sub(seconds.saturating_mul(1000));
        (since(self.ended_family()), since(self.ended_subject()))
    }
}

/// The allowed clock difference, in seconds.
pub(crate) const SLACK: u64 = 60;

/// How many orders may be queued or in progress.
const ORDERS: usize = 4096;
/// How long an order may take, whatever the store is.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long rows are kept after their last token has expired, in seconds.
const KEPT: u64 = 24 * 3600;

/// Sends the result to the caller, which may have gone.
fn tell<T>(answer: Tell<T>, outcome: Result<T, StoreDown>) {
    if answer.send(outcome).is_err() {
        tracing::trace!("the caller no longer waits for the store");
    }
}
