//! Certificates from ACME directories (RFC 8555): ordered, renewed and kept beside requests. Nothing waits for a
//! directory: neither a start, nor a reload, nor a request. Tasks on the control side do, 4 orders at a time.

mod account;
mod budget;
mod client;
mod folder;
mod hook;
mod listed;
mod manager;
mod order;
mod renewal;
mod request;
mod rows;
mod store;
mod work;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::timeout;

pub(crate) use self::listed::{Listed, ask_renewal, listed};
use self::manager::{Running, load};
use crate::clock;
use crate::net::dial::Dialer;
use crate::snapshot::{Acme, Snapshot};

/// How long a start waits for the certificates in `state`.
const RESTORE: Duration = Duration::from_secs(5);

/// The task that orders and renews certificates; it ends with this.
#[derive(Debug)]
pub(crate) struct Manager(watch::Sender<Option<Wanted>>);

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
        tokio::spawn(Running::new(wanted).run());
        Self(sender)
    }

    /// Follows this configuration from now on.
    pub(crate) fn follow(&self, snapshot: &Snapshot) {
        let wanted = snapshot.acme.as_ref().map(|acme| Wanted {
            acme: Arc::clone(acme),
            dialer: snapshot.dialer.clone(),
        });
        if wanted.is_some() || self.0.borrow().is_some() {
            self.0.send_replace(wanted);
        }
    }
}

/// Reads the certificates in `state` before the listeners are opened.
pub(crate) async fn restore(snapshot: &Snapshot) {
    if let Some(acme) = &snapshot.acme {
        if timeout(RESTORE, load(acme)).await.is_err() {
            tracing::warn!(
                state = %acme.state.display(),
                "the file system of `state` does not answer: its certificates are served as soon as they are read"
            );
        }
    }
}

/// The time, in seconds since 1970.
fn now() -> u64 {
    let now = clock::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}
