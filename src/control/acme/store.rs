//! Where ACME's rows are kept, for tasks that must not block: each call runs on the runtime's blocking threads, and is
//! given up after a while where the file system does not answer.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::client::Failure;
use super::folder::{Folder, Lock};
use super::rows::{AccountRow, Pem, Place, Row};

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The rows of a `state`. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Store(Folder);

impl Store {
    /// The rows in the directory at this path.
    pub(super) fn new(state: &Path) -> Self {
        Self(Folder::new(state))
    }

    pub(super) async fn lock(&self) -> Result<Option<Lock>, Failure> {
        self.run(|folder| folder.lock()).await
    }

    pub(super) async fn account(
        &self,
        host: &str,
        id: &str,
    ) -> Result<Option<AccountRow>, Failure> {
        let (host, id) = (host.to_owned(), id.to_owned());
        self.run(move |folder| folder.account(&host, &id)).await
    }

    pub(super) async fn keep_account(
        &self,
        host: &str,
        id: &str,
        row: &AccountRow,
    ) -> Result<(), Failure> {
        let (host, id, row) = (host.to_owned(), id.to_owned(), row.clone());
        self.run(move |folder| folder.keep_account(&host, &id, &row))
            .await
    }

    /// What is known about a certificate; a row that is damaged counts as none, as it says only when to try again.
    pub(super) async fn row(&self, place: &Place) -> Result<Row, Failure> {
        let place = place.clone();
        self.run(move |folder| match folder.row(&place) {
            Ok(row) => Ok(row.unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!(certificate = place.name, %error, "a row of `state` is not used");
                Ok(Row::default())
            }
            Err(error) => Err(error),
        })
        .await
    }

    pub(super) async fn keep_row(&self, place: &Place, row: &Row) -> Result<(), Failure> {
        let (place, row) = (place.clone(), row.clone());
        self.run(move |folder| folder.keep_row(&place, &row)).await
    }

    pub(super) async fn certificate(
        &self,
        place: &Place,
        fits: fn(&Pem) -> bool,
    ) -> Result<Option<Pem>, Failure> {
        let place = place.clone();
        self.run(move |folder| folder.certificate(&place, fits))
            .await
    }

    pub(super) async fn keep_certificate(
        &self,
        place: &Place,
        chain: &[u8],
    ) -> Result<(), Failure> {
        let (place, chain) = (place.clone(), chain.to_vec());
        self.run(move |folder| folder.keep_certificate(&place, &chain))
            .await
    }

    /// The key of the order in progress, and the key of the certificate in force.
    pub(super) async fn keys(&self, place: &Place) -> Result<[Option<Vec<u8>>; 2], Failure> {
        let place = place.clone();
        self.run(move |folder| Ok([folder.next_key(&place)?, folder.key(&place)?]))
            .await
    }

    pub(super) async fn keep_next_key(&self, place: &Place, key: &[u8]) -> Result<(), Failure> {
        let (place, key) = (place.clone(), key.to_vec());
        self.run(move |folder| folder.keep_next_key(&place, &key))
            .await
    }

    pub(super) async fn drop_next_key(&self, place: &Place) -> Result<(), Failure> {
        let place = place.clone();
        self.run(move |folder| folder.drop_next_key(&place)).await
    }

    /// The requests for renewal: the names of the certificates' places.
    pub(super) async fn renewals(&self) -> Result<Vec<String>, Failure> {
        self.run(|folder| folder.renewals()).await
    }

    pub(super) async fn end_renewal(&self, place: &Place) -> Result<(), Failure> {
        let place = place.clone();
        self.run(move |folder| folder.end_renewal(&place)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(Folder) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let folder = self.0.clone();
        let done = timeout(PATIENCE, spawn_blocking(move || work(folder))).await;
        let why = match done {
            Ok(Ok(Ok(done))) => return Ok(done),
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("its file system does not answer within {PATIENCE:.0?}"),
        };
        Err(Failure::own(format!("`state`: {why}")))
    }
}
