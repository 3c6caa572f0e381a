//! Keeps the key sets of remote issuers fresh: fetches each one before it expires, and at once when a token names an
//! unknown key. Runs on the control side; the workers only read the result in `RemoteKeys`.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::auth::{Fetched, KeySet, Location, NotFetched, RemoteKeys, jwks_uri};
use crate::clock;
use crate::net::dial::Dialer;
use crate::net::fetch::{self, FetchError, FetchProblem};
use crate::net::tls::ClientTls;
use crate::net::url::Url;

/// The pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How many key ids of a set are logged.
const SAID: usize = 10;
/// How many keys that are left out of a set are logged one by one.
const MOST_LEFT_OUT: usize = 100;
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Starts to fetch these keys, unless a task already does. The task ends when the keys are dropped.
pub(crate) fn follow(keys: &Arc<RemoteKeys>, dialer: &Dialer) {
    if let Some(demand) = keys.follow() {
        let good_until = keys.current().map(|fetched| keys.good_until(&fetched));
        let keys = Arc::downgrade(keys);
        let dialer = dialer.clone();
        tokio::spawn(async move {
            Following {
                keys,
                dialer,
                demand,
                tls: None,
                good_until,
                failures: 0,
                said: None,
            }
            .run()
            .await;
        });
    }
}

/// Fetches a key set once, for commands that only inspect it; on failure, the keys keep the error.
pub(crate) async fn fetch_once(keys: &RemoteKeys, dialer: &Dialer) {
    keys.begin();
    let outcome = match tls_for(keys) {
        Ok(tls) => get_set(keys, &tls, dialer).await,
        Err(failure) => Err(failure),
    };
    keys.end(outcome.map(|(fetched, _)| fetched));
}

/// The task for one issuer.
struct Following {
    keys: Weak<RemoteKeys>,
    dialer: Dialer,
    demand: mpsc::Receiver<()>,
    tls: Option<ClientTls>,
    /// Until when the last fetched set is valid.
    good_until: Option<Instant>,
    /// How many attempts failed in a row.
    failures: u32,
    /// The last logged description of the keys.
    said: Option<String>,
}

impl Following {
    async fn run(mut self) {
        let mut next = Instant::now();
        loop {
            let expiry = self.good_until.filter(|good_until| *good_until < next);
            tokio::select! {
                demanded = self.demand.recv() => match demanded {
                    Some(()) => {}
                    None => return,
                },
                () = sleep_until(next) => {}
                () = sleep_until(expiry.unwrap_or(next)), if expiry.is_some() => {
                    self.good_until = None;
                    let Some(keys) = self.keys.upgrade() else { return };
                    keys.expire();
                    tracing::error!(
                        url = %keys.settings().location,
                        "the key set has expired; requests with its tokens get 503 until it can be fetched"
                    );
                    continue;
                }
            }
            let Some(keys) = self.keys.upgrade() else {
                return;
            };
            next = Instant::now() + self.fetch(&keys).await;
        }
    }

    /// Fetches the set, and returns the pause before the next fetch.
    async fn fetch(&mut self, keys: &RemoteKeys) -> Duration {
        keys.begin();
        let tls = match self.tls.take() {
            Some(tls) => Ok(tls),
            None => tls_for(keys),
        };
        let outcome = match tls {
            Ok(tls) => {
                let outcome = get_set(keys, &tls, &self.dialer).await;
                self.tls = Some(tls);
                outcome
            }
            Err(failure) => Err(failure),
        };
        let url = &keys.settings().location;
        match outcome {
            Ok((fetched, left_out)) => {
                self.failures = 0;
                self.good_until = Some(keys.good_until(&fetched));
                let life = keys.life(&fetched);
                keys.end(Ok(fetched));
                let kids = keys.names();
                let said = format!("{kids:?}, left out: {left_out:?}");
                if self.said.as_ref() != Some(&said) {
                    let (count, first) = (kids.len(), kids.get(..SAID).unwrap_or(&kids));
                    tracing::info!(%url, count, kids = ?first, ?life, "key set fetched");
                    for what in left_out.iter().take(MOST_LEFT_OUT) {
                        tracing::warn!(%url, "{what}");
                    }
                    let more = left_out.len().saturating_sub(MOST_LEFT_OUT);
                    if more > 0 {
                        tracing::warn!(%url, more, "more keys are left out of the key set");
                    }
                    self.said = Some(said);
                }
                jittered(life.mul_f64(0.8))
            }
            Err(failure) => {
                // The system's roots may have changed by the next attempt.
                self.tls = None;
                self.failures = self.failures.saturating_add(1);
                let doubled = FIRST_PAUSE.saturating_mul(1 << (self.failures - 1).min(6));
                let wait = jittered(doubled.min(LONGEST_PAUSE));
                tracing::warn!(
                    %url,
                    again_in = ?wait,
                    last_good_set = if self.good_until.is_some() { "goes on" } else { "none" },
                    "key set not fetched: {failure}"
                );
                self.said = None;
                keys.end(Err(failure));
                wait
            }
        }
    }
}

fn tls_for(keys: &RemoteKeys) -> Result<ClientTls, NotFetched> {
    let tls = match &keys.settings().ca {
        Some(pem) => ClientTls::with_ca(pem),
        None => ClientTls::system(),
    };
    tls.map_err(|fault| NotFetched(fault.to_string()))
}

/// Fetches a set; also returns messages about the keys left out.
async fn get_set(
    keys: &RemoteKeys,
    tls: &ClientTls,
    dialer: &Dialer,
) -> Result<(Fetched, Vec<String>), NotFetched> {
    let getting = async {
        let url = match &keys.settings().location {
            Location::Jwks(url) => url.clone(),
            Location::Issuer { issuer, document } => {
                discover(issuer, document, (tls, dialer)).await?
            }
        };
        let document = fetch::get(&url, tls, dialer).await?;
        let (set, left_out) = KeySet::fetched(&document.bytes).map_err(|problem| FetchError {
            url: url.to_string(),
            problem: FetchProblem::Json(problem.to_string()),
        })?;
        let fetched = Fetched {
            set,
            at: clock::now(),
            since: Instant::now(),
            said: document.life,
        };
        Ok::<_, FetchError>((fetched, left_out))
    };
    // Discovery and the key set share the timeout of one document.
    match tokio::time::timeout(fetch::DEADLINE, getting).await {
        Ok(outcome) => outcome.map_err(|error| NotFetched(error.to_string())),
        Err(_) => {
            let url = &keys.settings().location;
            Err(NotFetched(format!("{url}: no answer within 5 s")))
        }
    }
}

/// The URL of an issuer's key set (OpenID Connect Discovery 1.0 section 4).
async fn discover(
    issuer: &str,
    document: &Url,
    (tls, dialer): (&ClientTls, &Dialer),
) -> Result<Url, FetchError> {
    let found = fetch::get(document, tls, dialer).await?;
    jwks_uri(issuer, document, &found.bytes).map_err(|why| FetchError {
        url: document.to_string(),
        problem: FetchProblem::Json(why.to_string()),
    })
}

/// Adds random jitter, so that many gateways do not fetch at the same time.
fn jittered(wait: Duration) -> Duration {
    let mut random = [0; 2];
    if getrandom::fill(&mut random).is_err() {
        return wait;
    }
    let share = f64::from(u16::from_ne_bytes(random)) / f64::from(u16::MAX);
    wait.mul_f64(0.95 + share * 0.1)
}
