//! Where ACME's rows are kept, for tasks that must not block: in a directory, each call on the runtime's blocking threads
//! and given up after a while where the file system does not answer; or on servers.

use std::io;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::budget::Budget;
use super::client::Failure;
use super::folder::{Folder, Lock};
use super::rows::{AccountRow, Pem, Place, Row};
use super::shared::{Held, Look, Shared, Shown};
use crate::net::resolve::Names;
use crate::state::{State, StateAt};

/// How long a call to a file system may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The rows of a `state`. Clones share it.
#[derive(Clone, Debug)]
pub(super) enum Store {
    /// In a directory, for one gateway. Orders are counted in this process.
    Folder(Folder, Budget),
    /// On servers, for many.
    Shared(Shared),
}

/// The right to order with a `state`, until it is dropped.
#[derive(Debug)]
pub(super) enum Right {
    /// This process has the directory.
    Folder(#[expect(dead_code, reason = "dropping it releases the lock")] Lock),
    /// Each certificate has a lock of its own.
    Shared,
}

/// The right to work on a certificate, until it is dropped.
#[derive(Debug)]
pub(super) enum Hold {
    /// Nobody else can.
    Alone,
    /// By its lock.
    Shared(Held),
}

impl Hold {
    /// Ready when the right is lost.
    pub(super) async fn lost(&self) {
        match self {
            Self::Alone => std::future::pending().await,
            Self::Shared(held) => held.lost().await,
        }
    }
}

impl Store {
    /// The rows of this `state`. The orders of one process are counted in a budget.
    ///
    /// # Errors
    /// Its key cannot be used.
    pub(super) fn new(state: &State, names: &Names, budget: &Budget) -> Result<Self, Failure> {
        match (&state.at, &state.key) {
            (StateAt::Directory(path), _) => Ok(Self::Folder(Folder::new(path), budget.clone())),
            (StateAt::Servers(servers), Some(key)) => {
                Shared::new(servers, key, names).map(Self::Shared)
            }
            (StateAt::Servers(_), None) => Err(Failure::own("`state` has no `key`")),
        }
    }

    /// Settings of the servers with which they may lose what is kept there.
    pub(super) fn dangers(&self) -> Vec<String> {
        match self {
            Self::Folder(..) => Vec::new(),
            Self::Shared(shared) => shared.dangers(),
        }
    }

    /// Takes the right to order; `None` where another process has it.
    pub(super) async fn right(&self) -> Result<Option<Right>, Failure> {
        match self {
            Self::Folder(folder, _) => {
                let lock = run(folder, |folder| folder.lock()).await?;
                Ok(lock.map(Right::Folder))
            }
            Self::Shared(_) => Ok(Some(Right::Shared)),
        }
    }

    /// Takes the right to work on a certificate; `None` where another gateway has it.
    pub(super) async fn hold(&self, name: &str) -> Result<Option<Hold>, Failure> {
        match self {
            Self::Folder(..) => Ok(Some(Hold::Alone)),
            Self::Shared(shared) => Ok(shared.lock(name).await?.map(Hold::Shared)),
        }
    }

    /// Waits until all rights that were given back are.
    pub(super) async fn released(&self) {
        match self {
            Self::Folder(..) => {}
            Self::Shared(shared) => shared.released().await,
        }
    }

    /// The same rows, written only while this right is held.
    pub(super) fn under(&self, hold: &Hold) -> Self {
        match (self, hold) {
            (Self::Shared(shared), Hold::Shared(held)) => Self::Shared(shared.under(held)),
            (other, _) => other.clone(),
        }
    }

    /// What other gateways did since `from`; nothing in a directory but the requests for renewal.
    pub(super) async fn look(&self, from: &mut Option<String>) -> Result<Look, Failure> {
        match self {
            Self::Folder(folder, _) => {
                let asked = run(folder, |folder| folder.renewals()).await?;
                Ok(Look {
                    asked,
                    ..Look::default()
                })
            }
            Self::Shared(shared) => shared.look(from, super::now()).await,
        }
    }

    /// Shows a challenge to all other gateways; `None` where there are none.
    pub(super) async fn show(&self, shown: &Shown) -> Result<Option<String>, Failure> {
        match self {
            Self::Folder(..) => Ok(None),
            Self::Shared(shared) => shared.show(shown).await.map(Some),
        }
    }

    /// Takes a challenge back.
    pub(super) async fn hide(&self, id: &str) -> Result<(), Failure> {
        match self {
            Self::Folder(..) => Ok(()),
            Self::Shared(shared) => shared.hide(id).await,
        }
    }

    /// Counts an order at a directory, unless there were too many.
    pub(super) async fn count_order(&self, directory: &str) -> Result<(), Failure> {
        let wait = match self {
            Self::Folder(_, budget) => budget.take(directory).err().unwrap_or(0),
            Self::Shared(shared) => {
                let (within, most) = Budget::bounds();
                let bounds = (super::now(), within, most);
                shared.count_order(directory, bounds).await?
            }
        };
        if wait == 0 {
            return Ok(());
        }
        Err(Failure {
            retry_after: Some(wait),
            ..Failure::own("as many orders were placed as the directory allows in three hours")
        })
    }

    /// Counts an order that was placed before this process was started.
    pub(super) fn note_order(&self, directory: &str, at: u64) {
        if let Self::Folder(_, budget) = self {
            budget.note(directory, at);
        }
    }

    pub(super) async fn account(
        &self,
        host: &str,
        id: &str,
    ) -> Result<Option<AccountRow>, Failure> {
        match self {
            Self::Folder(folder, _) => {
                let (host, id) = (host.to_owned(), id.to_owned());
                run(folder, move |folder| folder.account(&host, &id)).await
            }
            Self::Shared(shared) => shared.account(host, id).await,
        }
    }

    /// Keeps a new account; returns the one that is kept, which another gateway may have made.
    pub(super) async fn add_account(
        &self,
        host: &str,
        id: &str,
        row: AccountRow,
    ) -> Result<AccountRow, Failure> {
        match self {
            Self::Folder(..) => {
                self.keep_account(host, id, &row).await?;
                Ok(row)
            }
            Self::Shared(shared) => shared.add_account(host, id, &row).await,
        }
    }

    pub(super) async fn keep_account(
        &self,
        host: &str,
        id: &str,
        row: &AccountRow,
    ) -> Result<(), Failure> {
        match self {
            Self::Folder(folder, _) => {
                let (host, id, row) = (host.to_owned(), id.to_owned(), row.clone());
                run(folder, move |folder| folder.keep_account(&host, &id, &row)).await
            }
            Self::Shared(shared) => shared.keep_account(host, id, row).await,
        }
    }

    /// What is known about a certificate; a file that is damaged counts as none, as it says only when to try again.
    pub(super) async fn row(&self, place: &Place) -> Result<Row, Failure> {
        match self {
            Self::Folder(folder, _) => {
                let place = place.clone();
                run(folder, move |folder| match folder.row(&place) {
                    Ok(row) => Ok(row.unwrap_or_default()),
                    Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                        tracing::warn!(certificate = place.name, %error, "a row of `state` is not used");
                        Ok(Row::default())
                    }
                    Err(error) => Err(error),
                })
                .await
            }
            Self::Shared(shared) => Ok(shared.row(place).await?.unwrap_or_default()),
        }
    }

    pub(super) async fn keep_row(&self, place: &Place, row: &Row) -> Result<(), Failure> {
        match self {
            Self::Folder(folder, _) => {
                let (place, row) = (place.clone(), row.clone());
                run(folder, move |folder| folder.keep_row(&place, &row)).await
            }
            Self::Shared(shared) => shared.keep_row(place, row).await,
        }
    }

    pub(super) async fn certificate(
        &self,
        place: &Place,
        fits: fn(&Pem) -> bool,
    ) -> Result<Option<Pem>, Failure> {
        match self {
            Self::Folder(folder, _) => {
                let place = place.clone();
                run(folder, move |folder| folder.certificate(&place, fits)).await
            }
            Self::Shared(shared) => shared.certificate(place).await,
        }
    }

    /// Keeps a certificate, whose key is the next one or, after a kill, already the current one.
    pub(super) async fn keep_certificate(&self, place: &Place, pem: Pem) -> Result<(), Failure> {
        match self {
            Self::Folder(folder, _) => {
                let place = place.clone();
                run(folder, move |folder| {
                    folder.keep_certificate(&place, &pem.chain)
                })
                .await
            }
            Self::Shared(shared) => shared.keep_certificate(place, &pem).await,
        }
    }

    /// The key of the order in progress, and the key of the certificate in force.
    pub(super) async fn keys(&self, place: &Place) -> Result<[Option<Vec<u8>>; 2], Failure> {
        match self {
            Self::Folder(folder, _) => {
                let place = place.clone();
                run(folder, move |folder| {
                    Ok([folder.next_key(&place)?, folder.key(&place)?])
                })
                .await
            }
            Self::Shared(shared) => shared.keys(place).await,
        }
    }

    pub(super) async fn keep_next_key(&self, place: &Place, key: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Folder(folder, _) => {
                let (place, key) = (place.clone(), key.to_vec());
                run(folder, move |folder| folder.keep_next_key(&place, &key)).await
            }
            Self::Shared(shared) => shared.keep_next_key(place, key).await,
        }
    }

    pub(super) async fn drop_next_key(&self, place: &Place) -> Result<(), Failure> {
        match self {
            Self::Folder(folder, _) => {
                let place = place.clone();
                run(folder, move |folder| folder.drop_next_key(&place)).await
            }
            Self::Shared(shared) => shared.drop_next_key(place).await,
        }
    }

    /// Asks the gateways to renew a certificate.
    pub(super) async fn ask_renewal(&self, place: &Place) -> Result<(), Failure> {
        match self {
            Self::Folder(folder, _) => {
                let place = place.clone();
                run(folder, move |folder| folder.ask_renewal(&place)).await
            }
            Self::Shared(shared) => shared.ask_renewal(place).await,
        }
    }

    /// Whether a certificate is still to be renewed: another gateway may have begun.
    pub(super) async fn is_asked(&self, place: &Place) -> Result<bool, Failure> {
        match self {
            Self::Folder(..) => Ok(true),
            Self::Shared(shared) => shared.is_asked(place).await,
        }
    }

    pub(super) async fn end_renewal(&self, place: &Place) -> Result<(), Failure> {
        match self {
            Self::Folder(folder, _) => {
                let place = place.clone();
                run(folder, move |folder| folder.end_renewal(&place)).await
            }
            Self::Shared(shared) => shared.end_renewal(place).await,
        }
    }
}

/// Runs blocking work on a directory.
async fn run<T: Send + 'static>(
    folder: &Folder,
    work: impl FnOnce(Folder) -> io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let folder = folder.clone();
    let done = timeout(PATIENCE, spawn_blocking(move || work(folder))).await;
    let why = match done {
        Ok(Ok(Ok(done))) => return Ok(done),
        Ok(Ok(Err(error))) => error.to_string(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("its file system does not answer within {PATIENCE:.0?}"),
    };
    Err(Failure::own(format!("`state`: {why}")))
}
