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
use tokio::time::timeout;

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
        Self {
            wanted: sender,
            running: tokio::spawn(Running::new(wanted).run()),
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
