//! `RemoteKeys`: the key set of an issuer that publishes it at a URL, as the workers see it. It is fetched on the
//! control side, by `issuers`; this file holds the last fetched set, and lets workers request a newer one and wait for
//! it.

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
use crate::net::url::Url;

/// The minimum interval between two fetches that tokens with unknown keys request.
const BETWEEN_DEMANDS: Duration = Duration::from_secs(10);
/// The lifetime of a key set whose issuer does not state one.
const LIFE: Duration = Duration::from_secs(600);
/// The bounds for the lifetime that an issuer states.
const LIVES: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(24 * 3600));

/// Where a key set is, and how long it is used.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RemoteSettings {
    /// Its location.
    pub(crate) location: Location,
    /// The maximum lifetime of a fetched set, whatever the issuer states.
    pub(crate) refresh: Option<Duration>,
    /// How long a set is used after its lifetime while there is no newer one.
    pub(crate) stale_for: Duration,
    /// The trusted roots, a PEM file; the system's roots without it.
    pub(crate) ca: Option<Vec<u8>>,
}

/// The location of a key set.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Location {
    /// At this URL.
    Jwks(Url),
    /// Given by the issuer's discovery document (OpenID Connect Discovery 1.0).
    Issuer {
        /// `issuer`, compared exactly.
        issuer: String,
        /// The document.
        document: Url,
    },
}

impl Location {
    /// The URL that is fetched first.
    pub(crate) fn url(&self) -> &Url {
        match self {
            Self::Jwks(url) | Self::Issuer { document: url, .. } => url,
        }
    }
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
    /// When it was fetched.
    pub(crate) at: SystemTime,
    /// The same on the monotonic clock.
    pub(crate) since: Instant,
    /// How long it may be cached according to its issuer; `None` where the issuer does not say.
    pub(crate) said: Option<Duration>,
}

/// Why a key set was not fetched; names the step and the URL.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotFetched(pub(crate) String);

/// An error in a discovery document (OpenID Connect Discovery 1.0 section 4.3).
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum BadDiscovery {
    /// Not unambiguous JSON.
    #[error("not a JSON object, or a duplicate member")]
    NotJson,
    /// Of another issuer.
    #[error("the document is of the issuer {said:?}, and `issuer` is {wanted:?}")]
    Issuer {
        /// The issuer in the document.
        said: String,
        /// The issuer in the configuration.
        wanted: String,
    },
    /// A member is missing.
    #[error("the document has no `{0}`")]
    Missing(&'static str),
    /// The key set's URL is not one that may be fetched.
    #[error("`jwks_uri`: {0}")]
    Url(&'static str),
}

/// How many fetches have begun and ended, and whether one was requested that has not begun yet.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    demanded: bool,
    begun: u64,
    ended: u64,
}

impl Progress {
    /// Whether a fetch will end without another request for one.
    fn comes(self) -> bool {
        self.demanded || self.begun > self.ended
    }
}

/// The keys of a remote issuer.
pub(crate) struct RemoteKeys {
    settings: RemoteSettings,
    current: ArcSwapOption<Fetched>,
    /// Changes whenever a key is no longer valid, so that tokens signed with it are no longer found in the cache.
    epoch: AtomicU64,
    progress: watch::Sender<Progress>,
    /// How many fetches have ended, for callers that do not wait.
    fetches: AtomicU64,
    /// Wakes the fetching task.
    wake: mpsc::Sender<()>,
    /// The receiver of wake-ups, until a task fetches.
    demanded: Mutex<Option<mpsc::Receiver<()>>>,
    /// Why the last fetch failed, if it did.
    failure: Mutex<Option<NotFetched>>,
    /// When a token last requested a fetch.
    last_demand: Mutex<Option<Instant>>,
    /// What became of fetches; the same across reloads.
    outcomes: Arc<Outcomes>,
}

/// How many fetches of a key set there were.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    good: AtomicU64,
    failed: AtomicU64,
    /// Those that a token asked for too soon after another.
    suppressed: AtomicU64,
}

impl std::fmt::Debug for RemoteKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RemoteKeys at {}", self.settings.location)
    }
}

impl PartialEq for RemoteKeys {
    /// They are equal if one set serves both.
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings
    }
}

impl RemoteKeys {
    /// Keys that were not fetched yet; or those of `before`, if they have the same location.
    pub(crate) fn new(settings: RemoteSettings, before: Option<&Self>) -> Arc<Self> {
        let (wake, demanded) = mpsc::channel(1);
        let from_there = before.filter(|before| {
            before.settings.location == settings.location && before.settings.ca == settings.ca
        });
        let current = from_there.and_then(Self::current);
        Arc::new(Self {
            settings,
            current: ArcSwapOption::new(current),
            epoch: AtomicU64::new(0),
            progress: watch::Sender::new(Progress::default()),
            fetches: AtomicU64::new(0),
            wake,
            demanded: Mutex::new(Some(demanded)),
            failure: Mutex::new(None),
            last_demand: Mutex::new(None),
            outcomes: before.map_or_else(Arc::default, |before| Arc::clone(&before.outcomes)),
        })
    }

    /// The location, and how long a set is used.
    pub(crate) fn settings(&self) -> &RemoteSettings {
        &self.settings
    }

    /// The last valid set; `None` where there never was one, or it is too old.
    pub(crate) fn current(&self) -> Option<Arc<Fetched>> {
        self.current.load_full()
    }

    /// Distinguishes one state of the keys from a later one in which one of its keys is no longer valid. Read it
    /// before the keys.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Why the last fetch failed, if it did.
    pub(crate) fn failure(&self) -> Option<NotFetched> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.clone()
    }

    /// Requests a set newer than the one after this many fetches, and waits for it: together with all callers that
    /// wait for the same fetch, and with at most one new fetch in 10 s. Returns whether a fetch has ended since,
    /// successfully or not. The caller limits the wait.
    pub(crate) async fn newer(&self, fetches: u64) -> bool {
        let mut progress = self.progress.subscribe();
        let seen = *progress.borrow_and_update();
        if seen.ended > fetches {
            return true;
        }
        if !seen.comes() && !self.demand() {
            // Another caller may have requested one between the check and the demand.
            let now = *self.progress.borrow();
            if !now.comes() && now.ended <= fetches {
                return false;
            }
        }
        progress.wait_for(|now| now.ended > fetches).await.is_ok()
    }

    /// How many fetches have ended.
    pub(crate) fn fetches(&self) -> u64 {
        self.fetches.load(Ordering::Acquire)
    }

    /// Wakes the fetching task, unless a token did so within the last 10 s, or no task fetches.
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
            self.outcomes.suppressed.fetch_add(1, Ordering::Relaxed);
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

    /// The receiver of wake-ups for the fetching task; `None` where there already is one. It ends with these keys.
    pub(crate) fn follow(&self) -> Option<mpsc::Receiver<()>> {
        let mut demanded = self.demanded.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = demanded.take();
        if taken.is_some() {
            // The first fetch starts without a request: an early request waits for it.
            self.progress
                .send_modify(|progress| progress.demanded = true);
        }
        taken
    }

    /// A fetch has begun.
    pub(crate) fn begin(&self) {
        self.progress.send_modify(|progress| {
            progress.demanded = false;
            progress.begun += 1;
        });
    }

    /// A fetch has ended with this set, or with the reason why there is none.
    pub(crate) fn end(&self, outcome: Result<Fetched, NotFetched>) {
        let failure = match outcome {
            Ok(fetched) => {
                self.outcomes.good.fetch_add(1, Ordering::Relaxed);
                self.replace(Some(fetched));
                None
            }
            Err(failure) => {
                self.outcomes.failed.fetch_add(1, Ordering::Relaxed);
                Some(failure)
            }
        };
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        self.fetches.fetch_add(1, Ordering::Release);
        self.progress.send_modify(|progress| progress.ended += 1);
    }

    /// The last valid set is too old.
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
            // After the set is in place: tokens that were verified with the old set, by a caller that read this number
            // before, are not found under the new number.
            self.epoch.fetch_add(1, Ordering::Release);
        }
    }

    /// The lifetime of a set.
    pub(crate) fn life(&self, fetched: &Fetched) -> Duration {
        self.life_of(fetched.said)
    }

    /// When the use of a set ends: its lifetime and the stale period.
    pub(crate) fn good_until(&self, fetched: &Fetched) -> Instant {
        fetched.since + self.life(fetched) + self.settings.stale_for
    }

    fn life_of(&self, said: Option<Duration>) -> Duration {
        let (least, most) = LIVES;
        let life = said.map_or(LIFE, |said| said.clamp(least, most));
        self.settings.refresh.map_or(life, |refresh| match said {
            Some(_) => life.min(refresh),
            None => refresh,
        })
    }

    /// How many fetches were good, how many failed, and how many a token asked for too soon.
    pub(crate) fn outcomes(&self) -> [(&'static str, u64); 3] {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Outcomes {
            good,
            failed,
            suppressed,
        } = &*self.outcomes;
        [
            ("good", of(good)),
            ("failed", of(failed)),
            ("suppressed", of(suppressed)),
        ]
    }

    /// The names of the last valid set's keys, each once; for messages.
    pub(crate) fn names(&self) -> Vec<String> {
        let current = self.current.load();
        let names: BTreeSet<&str> = current
            .iter()
            .flat_map(|fetched| fetched.set.names().flatten())
            .collect();
        names.into_iter().map(str::to_owned).collect()
    }
}

/// The location of the keys according to the discovery document of an issuer, which is at this URL (OpenID Connect
/// Discovery 1.0 sections 3 and 4.3).
///
/// # Errors
/// The error in the document.
pub(crate) fn jwks_uri(issuer: &str, at: &Url, document: &[u8]) -> Result<Url, BadDiscovery> {
    let members = json::parse_object(json::without_mark(document));
    let members = members.map_err(|_| BadDiscovery::NotJson)?;
    let text = |name: &'static str| {
        members
            .get(name)
            .and_then(Value::as_str)
            .ok_or(BadDiscovery::Missing(name))
    };
    let said = text("issuer")?;
    // Compared exactly, or one issuer could impersonate another.
    if said != issuer {
        return Err(BadDiscovery::Issuer {
            said: said.to_owned(),
            wanted: issuer.to_owned(),
        });
    }
    at.names(text("jwks_uri")?).map_err(BadDiscovery::Url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(refresh: Option<u64>) -> Arc<RemoteKeys> {
        RemoteKeys::new(settings(refresh), None)
    }

    fn settings(refresh: Option<u64>) -> RemoteSettings {
        RemoteSettings {
            location: Location::Jwks(Url::parse("https://issuer.example/keys").unwrap()),
            refresh: refresh.map(Duration::from_secs),
            stale_for: Duration::from_secs(3600),
            ca: None,
        }
    }

    fn down() -> NotFetched {
        NotFetched("down".to_owned())
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
            let life = keys(refresh).life_of(said.map(Duration::from_secs));
            assert_eq!(life, Duration::from_secs(expected), "{refresh:?} {said:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_where_nobody_fetches_and_ten_seconds_lie_between_two_demands() {
        let keys = keys(None);
        assert!(!keys.newer(0).await);
        let mut demanded = keys.follow().unwrap();
        assert!(keys.follow().is_none());
        // Early callers wait for the first fetch, which does not count as requested by them.
        let early = keys.newer(0);
        keys.begin();
        keys.end(Err(down()));
        assert!(early.await);
        let fetching = Arc::downgrade(&keys);
        tokio::spawn(async move {
            while demanded.recv().await.is_some() {
                let keys = fetching.upgrade().unwrap();
                keys.begin();
                tokio::time::sleep(Duration::from_secs(1)).await;
                keys.end(Err(down()));
            }
        });
        let start = Instant::now();
        let both = tokio::join!(keys.newer(1), keys.newer(1));
        assert_eq!((both, keys.fetches()), ((true, true), 2));
        assert!(!keys.newer(2).await);
        // If a fetch has ended since the keys were read, there is no wait.
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
                    let mut jwk = super::super::testing::jwk(super::super::Algorithm::EDDSA);
                    jwk["kid"] = (*kid).into();
                    jwk
                })
                .collect();
            let document = serde_json::json!({ "keys": keys }).to_string();
            let (set, _) = KeySet::fetched(document.as_bytes()).unwrap();
            Ok(Fetched {
                set,
                at: SystemTime::UNIX_EPOCH,
                since: Instant::now(),
                said: None,
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
        step(&|| keys.end(Err(down())));
        step(&|| keys.end(set(&["b"])));
        step(&|| keys.expire());
        step(&|| keys.end(set(&["b"])));
        assert_eq!(epochs, [0, 0, 0, 1, 2, 2]);
    }

    #[tokio::test]
    async fn keys_from_the_same_place_go_on_where_their_times_change() {
        let before = keys(None);
        let document = serde_json::json!({"keys": [super::super::testing::jwk(super::super::Algorithm::EDDSA)]});
        let (set, _) = KeySet::fetched(document.to_string().as_bytes()).unwrap();
        let since = Instant::now();
        before.end(Ok(Fetched {
            set,
            at: SystemTime::UNIX_EPOCH,
            since,
            said: None,
        }));
        let after = RemoteKeys::new(settings(Some(60)), Some(&before));
        let kept = after.current().unwrap();
        assert_eq!(after.good_until(&kept), since + Duration::from_secs(3660));
        let mut elsewhere = settings(None);
        elsewhere.ca = Some(Vec::new());
        assert!(
            RemoteKeys::new(elsewhere, Some(&before))
                .current()
                .is_none()
        );
    }

    #[test]
    fn a_discovery_document_is_of_the_issuer_to_the_letter() {
        let at = Url::parse("https://a.example/.well-known/x").unwrap();
        let of = |document: &str| jwks_uri("https://a.example", &at, document.as_bytes());
        let good = r#"{"issuer":"https://a.example","jwks_uri":"https://b.example/keys"}"#;
        assert_eq!(of(good).unwrap().to_string(), "https://b.example/keys");
        for bad in [
            r#"{"issuer":"https://a.example/","jwks_uri":"https://b.example/keys"}"#,
            r#"{"jwks_uri":"https://b.example/keys"}"#,
            r#"{"issuer":"https://a.example"}"#,
            r#"{"issuer":"https://a.example","jwks_uri":"http://b.example/keys"}"#,
            r#"{"issuer":"https://a.example","jwks_uri":"http://127.0.0.1/keys"}"#,
            r#"{"issuer":"https://a.example","issuer":"https://a.example","jwks_uri":"https://b.example/"}"#,
            "[]",
            "<html>",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
