//! `TokenState`: state preserved across reloads, whatever else changes: the store, and when this process used its keys.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::store::embedded::Embedded;
pub(crate) use super::store::embedded::is_taken;
use super::store::shared::Shared;
use super::store::{Everywhere, Lives, Store, StoreDown, Whom, embedded};
use crate::auth::LiveRevoked;
use crate::net::resolve::Names;
use crate::state::StateAt;

/// A hash that is to be replaced by one of the current kind.
#[derive(Clone)]
pub(crate) struct Renewal {
    /// The hash in the users' file.
    pub(crate) old: String,
    /// The hash that replaces it.
    pub(crate) new: String,
}

impl fmt::Debug for Renewal {
    /// Hashes are never printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewal")
    }
}

/// The store of one `state`, and what waits to be written elsewhere.
#[derive(Debug)]
pub(crate) struct TokenState {
    store: Arc<dyn Store>,
    /// When each key signed last, in seconds since 1970.
    signed: Mutex<HashMap<String, u64>>,
    /// Hashes to be written to the users' file, by user name.
    renewals: Mutex<HashMap<String, Renewal>>,
    /// Subjects whose sessions ended at a time that is not written yet.
    unended: Mutex<HashMap<String, u64>>,
    /// When this was opened, in seconds since 1970.
    opened: u64,
}

impl TokenState {
    /// Opens the store; workers are notified of ended sessions through `revoked`, and servers are resolved through
    /// `names`.
    ///
    /// # Errors
    /// Why it cannot be opened.
    fn open(
        at: &StateAt,
        lives: Lives,
        now: u64,
        revoked: &Arc<LiveRevoked>,
        names: &Names,
    ) -> Result<Self, String> {
        let store: Arc<dyn Store> = match at {
            StateAt::Directory(directory) => {
                Arc::new(Embedded::open(directory, lives, now, Arc::clone(revoked))?)
            }
            StateAt::Servers(servers) => {
                let (servers, names) = (servers.clone(), names.clone());
                Arc::new(Shared::open(servers, lives, Arc::clone(revoked), names)?)
            }
        };
        Ok(Self {
            store,
            signed: Mutex::default(),
            renewals: Mutex::default(),
            unended: Mutex::default(),
            opened: now / 1000,
        })
    }

    /// The refresh families.
    pub(crate) fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Keeps a hash until it is written to the users' file.
    pub(crate) fn renew(&self, name: &str, renewal: Renewal) {
        let mut all = self.renewals.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(name.to_owned(), renewal);
    }

    /// The hashes that are not written yet.
    pub(crate) fn renewals(&self) -> Vec<(String, Renewal)> {
        let all = self.renewals.lock().unwrap_or_else(PoisonError::into_inner);
        let all = all.iter();
        all.map(|(name, renewal)| (name.clone(), renewal.clone()))
            .collect()
    }

    /// A hash no longer needs to be written.
    pub(crate) fn renewed(&self, name: &str) {
        let mut all = self.renewals.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(name);
    }

    /// Keeps the subjects whose sessions ended, and when, in milliseconds since 1970, until that can be written.
    pub(crate) fn end_later(&self, ended: &[(String, u64)]) {
        let mut all = self.unended.lock().unwrap_or_else(PoisonError::into_inner);
        for (subject, at) in ended {
            let known = all.entry(subject.clone()).or_default();
            *known = (*known).max(*at);
        }
    }

    /// Takes out the entries of [`TokenState::end_later`].
    pub(crate) fn unended(&self) -> Vec<(String, u64)> {
        let mut all = self.unended.lock().unwrap_or_else(PoisonError::into_inner);
        all.drain().collect()
    }

    /// Records that a key signs at a time in seconds since 1970.
    pub(crate) fn signs(&self, kid: &str, now: u64) {
        let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        match signed.get_mut(kid) {
            Some(last) => *last = now.max(*last),
            None => drop(signed.insert(kid.to_owned(), now)),
        }
    }

    /// When a key may have signed last, in seconds since 1970; usage before this was opened is unknown.
    pub(crate) fn signed_last(&self, kid: &str) -> u64 {
        let signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        signed.get(kid).copied().unwrap_or(self.opened)
    }
}

/// Ends sessions from a process other than the gateway's, at a time in milliseconds since 1970.
///
/// # Errors
/// Why they have not ended.
pub(crate) async fn end_from_outside(
    at: &StateAt,
    lives: Lives,
    whom: Whom,
    now: u64,
) -> Result<(), String> {
    /// How long a server, or the gateway that has the directory open, may take.
    const PATIENCE: Duration = Duration::from_secs(10);
    let store: Arc<dyn Store> = match at {
        StateAt::Directory(directory) => {
            match Embedded::open(directory, lives, now, Arc::default()) {
                Ok(store) => Arc::new(store),
                // The gateway is running.
                Err(why) if is_taken(&why) => {
                    return embedded::ask_who_has_it(directory, &whom, now, PATIENCE).await;
                }
                Err(why) => return Err(format!("`{}`: {why}", directory.display())),
            }
        }
        StateAt::Servers(servers) => {
            let names = Names::system();
            Arc::new(Shared::open(servers.clone(), lives, Arc::default(), names)?)
        }
    };
    let mut tries = PATIENCE.as_millis() / 100;
    loop {
        let ended = match &whom {
            Whom::Session(family) => {
                let ended = store.end(family.clone(), now, Everywhere::No).await;
                ended.map(|_| ())
            }
            Whom::Subject(sub) => store.end_all(vec![(sub.clone(), now)]).await,
        };
        match ended {
            Ok(()) => return Ok(()),
            Err(StoreDown) if tries == 0 => return Err(format!("{at} does not respond")),
            Err(StoreDown) => tries -= 1,
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The open states: a configuration that is restored finds the state that requests of older configurations still use.
#[derive(Debug, Default)]
pub(crate) struct States(Mutex<Vec<(StateAt, Weak<TokenState>)>>);

impl States {
    /// The state at this location; opens it if necessary.
    ///
    /// # Errors
    /// Why it cannot be opened.
    pub(crate) fn open(
        &self,
        at: &StateAt,
        lives: Lives,
        now: u64,
        revoked: &Arc<LiveRevoked>,
        names: &Names,
    ) -> Result<Arc<TokenState>, String> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, state)| state.strong_count() > 0);
        let known = open.iter().find(|(known, _)| known == at);
        if let Some(state) = known.and_then(|(_, state)| state.upgrade()) {
            state.store.longest().at_least(lives);
            return Ok(state);
        }
        let state = Arc::new(TokenState::open(at, lives, now, revoked, names)?);
        open.push((at.clone(), Arc::downgrade(&state)));
        Ok(state)
    }
}
