//! `RemoteKeys`: the key set of an issuer that publishes it at a URL, as the workers see it. It is
//! fetched on the control side, by `issuers`; here are what was fetched last, and the way to ask
//! for a newer one and to wait for it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::json;
use super::keys::KeySet;
use crate::fetch::{self, Url};
use crate::tls::ClientTls;

/// The least time between two fetches that tokens with unknown keys ask for.
const BETWEEN_DEMANDS: Duration = Duration::from_secs(10);
/// How long a request waits for a fetch at most; a little more than one takes.
const PATIENCE: Duration = fetch::DEADLINE.saturating_add(Duration::from_secs(1));
/// The life of a key set whose issuer does not say.
const LIFE: Duration = Duration::from_secs(600);
/// The bounds within which an issuer's word on the life is taken.
const LIVES: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(24 * 3600));

/// Where a key set is, and how long it serves.
#[derive(Clone, Debug)]
pub(crate) struct RemoteSettings {
    /// Where it is.
    pub(crate) location: Location,
    /// The longest life of a fetched set, whatever the issuer says.
    pub(crate) refresh: Option<Duration>,
    /// How long a set serves after its life while there is no newer one.
    pub(crate) stale_for: Duration,
    /// The roots to trust, as the PEM file has them; the system's without it.
    pub(crate) ca: Option<(Vec<u8>, ClientTls)>,
}

impl PartialEq for RemoteSettings {
    fn eq(&self, other: &Self) -> bool {
        let ca = |it: &Self| it.ca.as_ref().map(|(pem, _)| pem.clone());
        self.location == other.location
            && self.refresh == other.refresh
            && self.stale_for == other.stale_for
            && ca(self) == ca(other)
    }
}

/// Where a key set is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Location {
    /// At this URL.
    Jwks(Url),
    /// Where the issuer's discovery document says (OpenID Connect Discovery 1.0).
    Issuer {
        /// `issuer`, to the letter.
        issuer: String,
        /// The document.
        document: Url,
    },
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Jwks(url) | Self::Issuer { document: url, .. } => url.fmt(f),
        }
    }
}

/// A key set that was fetched.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// The keys.
    pub(crate) set: KeySet,
    /// When.
    pub(crate) at: SystemTime,
}

/// How many fetches were begun and ended, and whether one is asked for that was not begun yet.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    demanded: bool,
    begun: u64,
    ended: u64,
}

impl Progress {
    /// Whether a fetch will end without being asked for.
    fn comes(self) -> bool {
        self.demanded || self.begun > self.ended
    }
}

/// The keys of an issuer that lives elsewhere.
pub(crate) struct RemoteKeys {
    settings: RemoteSettings,
    current: ArcSwapOption<Fetched>,
    /// Changes whenever a key is no longer good, so that what it signed is not remembered.
    epoch: AtomicU64,
    progress: watch::Sender<Progress>,
    /// How many fetches have ended, for those who do not wait.
    fetches: AtomicU64,
    /// Wakes whoever fetches.
    wake: mpsc::Sender<()>,
    /// What wakes, until somebody fetches.
    demanded: Mutex<Option<mpsc::Receiver<()>>>,
    /// Why the last fetch failed, where it did.
    failure: Mutex<Option<String>>,
    /// When a token last asked for a fetch.
    last_demand: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for RemoteKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RemoteKeys at {}", self.settings.location)
    }
}

impl PartialEq for RemoteKeys {
    /// They are equal where one set serves both.
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings
    }
}

impl RemoteKeys {
    /// Keys that were not fetched yet.
    pub(crate) fn new(settings: RemoteSettings) -> Arc<Self> {
        let (wake, demanded) = mpsc::channel(1);
        Arc::new(Self {
            settings,
            current: ArcSwapOption::empty(),
            epoch: AtomicU64::new(0),
            progress: watch::Sender::new(Progress::default()),
            fetches: AtomicU64::new(0),
            wake,
            demanded: Mutex::new(Some(demanded)),
            failure: Mutex::new(None),
            last_demand: Mutex::new(None),
        })
    }

    /// Where it is, and how long it serves.
    pub(crate) fn settings(&self) -> &RemoteSettings {
        &self.settings
    }

    /// The last good set; `None` where there never was one, or it is too old.
    pub(crate) fn current(&self) -> Option<Arc<Fetched>> {
        self.current.load_full()
    }

    /// Tells one state of the keys from a later one in which a key of it is no longer good. Read
    /// before the keys are.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Why the last fetch failed, where it did.
    pub(crate) fn failure(&self) -> Option<String> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.clone()
    }

    /// Asks for a newer set than the one after so many fetches, and waits for it: with all who wait
    /// for the same fetch, and at most one new fetch in 10 s. Whether a fetch has ended since, well
    /// or not.
    pub(crate) async fn newer(&self, fetches: u64) -> bool {
        let mut progress = self.progress.subscribe();
        let seen = *progress.borrow_and_update();
        if seen.ended > fetches {
            return true;
        }
        if !seen.comes() && !self.demand() {
            // Somebody else may have asked between the look and the demand.
            let now = *self.progress.borrow();
            if !now.comes() && now.ended <= fetches {
                return false;
            }
        }
        let ended = progress.wait_for(|now| now.ended > fetches);
        tokio::time::timeout(PATIENCE, ended)
            .await
            .is_ok_and(|ended| ended.is_ok())
    }

    /// How many fetches have ended.
    pub(crate) fn fetches(&self) -> u64 {
        self.fetches.load(Ordering::Acquire)
    }

    /// Wakes whoever fetches; not where a token did so within the last 10 s, or nobody fetches.
    fn demand(&self) -> bool {
        let nobody = || {
            let demanded = self.demanded.lock().unwrap_or_else(PoisonError::into_inner);
            demanded.is_some()
        };
        let mut last = self
            .last_demand
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_early = last.is_some_and(|last| now.duration_since(last) < BETWEEN_DEMANDS);
        if is_early || nobody() {
            return false;
        }
        *last = Some(now);
        self.progress
            .send_modify(|progress| progress.demanded = true);
        // Where the channel is full, a fetch is about to begin.
        !matches!(
            self.wake.try_send(()),
            Err(mpsc::error::TrySendError::Closed(()))
        )
    }

    /// What wakes the one who fetches; `None` where somebody does so already. It ends with these
    /// keys.
    pub(crate) fn follow(&self) -> Option<mpsc::Receiver<()>> {
        let mut demanded = self.demanded.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = demanded.take();
        if taken.is_some() {
            // The first fetch comes by itself: a request that is early waits for it.
            self.progress
                .send_modify(|progress| progress.demanded = true);
        }
        taken
    }

    /// A fetch begins.
    pub(crate) fn begin(&self) {
        self.progress.send_modify(|progress| {
            progress.demanded = false;
            progress.begun += 1;
        });
    }

    /// A fetch ended with this set, or with this reason why there is none.
    pub(crate) fn end(&self, outcome: Result<Fetched, String>) {
        let failure = match outcome {
            Ok(fetched) => {
                self.replace(Some(fetched));
                None
            }
            Err(failure) => Some(failure),
        };
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        self.fetches.fetch_add(1, Ordering::Release);
        self.progress.send_modify(|progress| progress.ended += 1);
    }

    /// The last good set is too old.
    pub(crate) fn expire(&self) {
        self.replace(None);
    }

    fn replace(&self, next: Option<Fetched>) {
        let next = next.map(Arc::new);
        let before = self.current.swap(next.clone());
        let goes_on = match (&before, &next) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(before), Some(next)) => before.set.is_within(&next.set),
        };
        if !goes_on {
            // After the set is in place: what was verified with the old one and read this number
            // before is not found under the new one.
            self.epoch.fetch_add(1, Ordering::Release);
        }
    }

    /// How long a set that was fetched now lives, given what the issuer says of it.
    pub(crate) fn life(&self, said: Option<Duration>) -> Duration {
        let (least, most) = LIVES;
        let life = said.map_or(LIFE, |said| said.clamp(least, most));
        self.settings.refresh.map_or(life, |refresh| match said {
            Some(_) => life.min(refresh),
            None => refresh,
        })
    }

    /// The names of the last good set's keys, each once; for messages.
    pub(crate) fn names(&self) -> Vec<String> {
        let current = self.current.load();
        let names: BTreeSet<&str> = current
            .iter()
            .flat_map(|fetched| fetched.set.names().flatten())
            .collect();
        names.into_iter().map(str::to_owned).collect()
    }
}

/// Where the discovery document of an issuer says that its keys are (OpenID Connect Discovery 1.0
/// sections 3 and 4.3).
///
/// # Errors
/// What is wrong with the document.
pub(crate) fn jwks_uri(issuer: &str, document: &[u8]) -> Result<Url, String> {
    let members = json::parse_object(document)
        .map_err(|_| "not a JSON object, or a member twice".to_owned())?;
    match members.get("issuer").and_then(Value::as_str) {
        // To the letter, or one issuer could speak for another.
        Some(named) if named == issuer => {}
        Some(named) => {
            return Err(format!(
                "the document is of the issuer {named:?}, and `issuer` is {issuer:?}"
            ));
        }
        None => return Err("the document has no `issuer`".to_owned()),
    }
    let url = members
        .get("jwks_uri")
        .and_then(Value::as_str)
        .ok_or("the document has no `jwks_uri`")?;
    Url::parse(url).map_err(|why| format!("`jwks_uri` {url:?}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(refresh: Option<u64>) -> Arc<RemoteKeys> {
        RemoteKeys::new(RemoteSettings {
            location: Location::Jwks(Url::parse("https://issuer.example/keys").unwrap()),
            refresh: refresh.map(Duration::from_secs),
            stale_for: Duration::from_secs(3600),
            ca: None,
        })
    }

    #[test]
    fn the_life_of_a_set_is_the_issuers_word_within_bounds() {
        for (refresh, said, expected) in [
            (None, None, 600),
            (None, Some(300), 300),
            (None, Some(0), 60),
            (None, Some(59), 60),
            (None, Some(1 << 40), 86_400),
            (Some(1800), None, 1800),
            (Some(1800), Some(300), 300),
            (Some(1800), Some(86_400), 1800),
            (Some(10), Some(300), 10),
            (Some(10), None, 10),
        ] {
            let life = keys(refresh).life(said.map(Duration::from_secs));
            assert_eq!(life, Duration::from_secs(expected), "{refresh:?} {said:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_where_nobody_fetches_and_ten_seconds_lie_between_two_demands() {
        let keys = keys(None);
        assert!(!keys.newer(0).await);
        let mut demanded = keys.follow().unwrap();
        assert!(keys.follow().is_none());
        // Whoever is early waits for the first fetch, which counts for nobody.
        let early = keys.newer(0);
        keys.begin();
        keys.end(Err("down".to_owned()));
        assert!(early.await);
        let fetching = Arc::downgrade(&keys);
        tokio::spawn(async move {
            while demanded.recv().await.is_some() {
                let keys = fetching.upgrade().unwrap();
                keys.begin();
                tokio::time::sleep(Duration::from_secs(1)).await;
                keys.end(Err("down".to_owned()));
            }
        });
        let start = Instant::now();
        let both = tokio::join!(keys.newer(1), keys.newer(1));
        assert_eq!((both, keys.fetches()), ((true, true), 2));
        assert!(!keys.newer(2).await);
        // A fetch that ended since the look at the keys needs no wait.
        assert!(keys.newer(1).await);
        tokio::time::sleep_until(start + BETWEEN_DEMANDS).await;
        assert!(keys.newer(2).await);
        assert_eq!(keys.fetches(), 3);
    }

    #[test]
    fn the_epoch_changes_where_a_key_goes_and_not_where_one_comes() {
        let set = |keys: &[&str]| {
            let keys: Vec<Value> = keys
                .iter()
                .map(|kid| {
                    let mut jwk = super::super::testing::jwk(super::super::Algorithm::EdDsa);
                    jwk["kid"] = (*kid).into();
                    jwk
                })
                .collect();
            let document = serde_json::json!({ "keys": keys }).to_string();
            let (set, _) = KeySet::fetched(document.as_bytes()).unwrap();
            Ok(Fetched {
                set,
                at: SystemTime::UNIX_EPOCH,
            })
        };
        let keys = keys(None);
        let mut epochs = Vec::new();
        let mut step = |end: &dyn Fn()| {
            end();
            epochs.push(keys.epoch());
        };
        step(&|| keys.end(set(&["a"])));
        step(&|| keys.end(set(&["a", "b"])));
        step(&|| keys.end(Err("down".to_owned())));
        step(&|| keys.end(set(&["b"])));
        step(&|| keys.expire());
        step(&|| keys.end(set(&["b"])));
        assert_eq!(epochs, [0, 0, 0, 1, 2, 2]);
    }

    #[test]
    fn a_discovery_document_is_of_the_issuer_to_the_letter() {
        let of = |document: &str| jwks_uri("https://a.example", document.as_bytes());
        let good = r#"{"issuer":"https://a.example","jwks_uri":"https://b.example/keys"}"#;
        assert_eq!(of(good).unwrap().to_string(), "https://b.example/keys");
        for bad in [
            r#"{"issuer":"https://a.example/","jwks_uri":"https://b.example/keys"}"#,
            r#"{"jwks_uri":"https://b.example/keys"}"#,
            r#"{"issuer":"https://a.example"}"#,
            r#"{"issuer":"https://a.example","jwks_uri":"http://b.example/keys"}"#,
            r#"{"issuer":"https://a.example","issuer":"https://a.example","jwks_uri":"https://b.example/"}"#,
            "[]",
            "<html>",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
