//! Certificates from ACME directories (RFC 8555): ordered, renewed and kept beside requests. Nothing waits for a
//! directory: neither a start, nor a reload, nor a request. Tasks on the control side do, 4 orders at a time.

mod account;
mod budget;
mod client;
mod folder;
mod hook;
mod kept;
mod listed;
mod manager;
mod order;
mod renewal;
mod request;
mod rows;
mod shared;
mod store;
mod work;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use self::account::Accounts;
use self::budget::Budget;
use self::kept::load_all;
pub(crate) use self::listed::{Listed, ask_renewal, listed};
use self::manager::Running;
use self::store::Store;
use crate::clock;
use crate::net::dial::Dialer;
use crate::snapshot::{Acme, Snapshot};

/// How long a start waits for the certificates in `state`.
const RESTORE: Duration = Duration::from_secs(5);

/// How long the end of the process waits for the locks of certificates to be released.
const ENDING: Duration = Duration::from_secs(2);

/// The task that orders and renews certificates; it ends with this.
#[derive(Debug)]
pub(crate) struct Manager {
    wanted: watch::Sender<Option<Wanted>>,
    running: JoinHandle<()>,
}

/// What the configuration in force wants.
#[derive(Clone, Debug)]
struct Wanted {
    acme: Arc<Acme>,
    dialer: Dialer,
}

impl Manager {
    /// Starts the task; it has nothing to do yet.
    pub(crate) fn start() -> Self {
        let (sender, wanted) = watch::channel(None);
        let (budget, accounts) = (Budget::default(), Accounts::default());
        let begin = move |wanted| Running::new(wanted, budget.clone(), accounts.clone()).run();
        Self {
            wanted: sender,
            running: tokio::spawn(keep(wanted, begin)),
        }
    }

    /// Stops whatever is ordered, so that another process goes on with it at once.
    pub(crate) async fn end(self) {
        drop(self.wanted);
        if timeout(ENDING, self.running).await.is_err() {
            tracing::debug!("the locks of certificates are released by their time alone");
        }
    }

    /// Follows this configuration from now on.
    pub(crate) fn follow(&self, snapshot: &Snapshot) {
        let wanted = snapshot.acme.as_ref().map(|acme| Wanted {
            acme: Arc::clone(acme),
            dialer: snapshot.dialer.clone(),
        });
        if wanted.is_some() || self.wanted.borrow().is_some() {
            self.wanted.send_replace(wanted);
        }
    }
}

/// Runs a task that follows `wanted` until its sender is dropped. One that a bug stopped is begun anew, after a pause: the
/// certificates must not expire unseen.
async fn keep<T, F>(
    mut wanted: watch::Receiver<T>,
    begin: impl Fn(watch::Receiver<T>) -> F + Send + Sync,
) where
    T: Send + Sync,
    F: Future<Output = ()> + Send + 'static,
{
    let mut stopped = 0;
    loop {
        // What is wanted now is news to the task.
        wanted.mark_changed();
        let Err(error) = tokio::spawn(begin(wanted.clone())).await else {
            return;
        };
        stopped += 1;
        let pause = Duration::from_secs(renewal::pause(stopped, None, renewal::random()));
        tracing::error!(
            again_in = ?pause,
            "a bug stopped the work on certificates, please report it: {error}"
        );
        tokio::select! {
            () = sleep(pause) => {}
            () = dropped(&mut wanted) => return,
        }
    }
}

/// Waits until the sender is dropped.
async fn dropped<T>(wanted: &mut watch::Receiver<T>) {
    while wanted.changed().await.is_ok() {}
}

/// Reads the certificates in `state` before the listeners are opened.
pub(crate) async fn restore(snapshot: &Snapshot) {
    if let Some(acme) = &snapshot.acme {
        let loading = async {
            let store = Store::new(&acme.state, snapshot.dialer.names(), &Budget::default())?;
            load_all(&store, acme).await
        };
        let why = match timeout(RESTORE, loading).await {
            Ok(Ok(())) => return,
            Ok(Err(failure)) => failure.text,
            Err(_) => format!("`state`: no answer within {RESTORE:.0?}"),
        };
        tracing::warn!(
            state = %acme.state.at,
            "certificates are served as soon as they can be read: {why}"
        );
    }
}

/// The time, in seconds since 1970.
fn now() -> u64 {
    let now = clock::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_work_is_begun_anew_where_a_bug_stopped_it() {
        let (sender, wanted) = watch::channel(5);
        let begun = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&begun);
        let begin = move |mut wanted: watch::Receiver<u32>| {
            let number = count.fetch_add(1, Ordering::Relaxed);
            async move {
                // It is told what is wanted, each time.
                wanted.changed().await.unwrap();
                assert_eq!(*wanted.borrow_and_update(), 5);
                assert!(number >= 2, "a bug");
                dropped(&mut wanted).await;
            }
        };
        let before = Instant::now();
        let keeping = tokio::spawn(keep(wanted, begin));
        sleep(Duration::from_secs(600)).await;
        assert_eq!(begun.load(Ordering::Relaxed), 3, "after 1 and 2 minutes");
        drop(sender);
        keeping.await.unwrap();
        assert_eq!(before.elapsed().as_secs(), 600);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_does_not_wait_for_the_pause_after_a_bug() {
        let (sender, wanted) = watch::channel(());
        let keeping = tokio::spawn(keep(wanted, |_| async { panic!("a bug") }));
        sleep(Duration::from_secs(1)).await;
        let before = Instant::now();
        drop(sender);
        keeping.await.unwrap();
        assert!(before.elapsed() < Duration::from_secs(1));
    }
}
