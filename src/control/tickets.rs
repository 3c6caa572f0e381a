//! Keys of session tickets that all gateways with the same `state` on servers have, so that a client resumes its session at
//! any of them. Each key is for six hours; whoever needs it first makes it, sealed with `state.key`. Without servers, or
//! while they do not answer, each gateway has keys of its own.

use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::clock;
use crate::net::tls::{SharedKey, TicketRing};
use crate::snapshot::Snapshot;
use crate::state::{Client, Sealer, State, StateAt};

/// How long a key seals, in seconds.
const PERIOD: u64 = 6 * 60 * 60;
/// How long before its time a key is made, and how long after it the one before seals: gateways look every minute, and
/// their clocks differ.
const AHEAD: u64 = 10 * 60;
const BEHIND: u64 = 2 * 60;
/// How long a key is kept after its period has begun.
const KEPT: u64 = 2 * PERIOD;
/// How often a gateway looks.
const LOOKS: Duration = Duration::from_secs(60);
/// What the keys are sealed for.
const PURPOSE: &str = "portcullis ticket keys";

/// The task that shares the keys; it ends with this.
#[derive(Debug)]
pub(super) struct SharedTickets(watch::Sender<Option<Wanted>>);

/// Whose keys are shared, and with whom.
#[derive(Clone, Debug)]
struct Wanted {
    state: State,
    ring: Arc<TicketRing>,
    client: Arc<Client>,
}

impl SharedTickets {
    /// Starts the task; it has nothing to do yet.
    pub(super) fn start() -> Self {
        let (sender, wanted) = watch::channel(None);
        tokio::spawn(share(wanted));
        Self(sender)
    }

    /// Follows this configuration from now on.
    pub(super) fn follow(&self, snapshot: &Snapshot) {
        let tls = snapshot.listeners.iter().any(|it| it.tls.is_some());
        let state = snapshot.state.as_ref();
        let state = state.filter(|state| tls && state.key.is_some());
        self.0.send_if_modified(|wanted| {
            if wanted.as_ref().map(|wanted| &wanted.state) == state {
                return false;
            }
            *wanted = state.and_then(|state| match &state.at {
                StateAt::Directory(_) => None,
                StateAt::Servers(servers) => Some(Wanted {
                    state: state.clone(),
                    ring: Arc::clone(&snapshot.tickets),
                    client: Arc::new(Client::new(servers, snapshot.dialer.names())),
                }),
            });
            true
        });
    }
}

async fn share(mut wanted: watch::Receiver<Option<Wanted>>) {
    let mut looks = interval(LOOKS);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = false;
    loop {
        let current = wanted.borrow_and_update().clone();
        tokio::select! {
            changed = wanted.changed() => match changed {
                Ok(()) => {
                    looks.reset_immediately();
                    said = false;
                    continue;
                }
                Err(_) => return,
            },
            _ = looks.tick(), if current.is_some() => {}
        }
        let Some(current) = current else { continue };
        match look(&current).await {
            Ok(keys) => {
                current.ring.share(&keys, Instant::now());
                if std::mem::replace(&mut said, false) {
                    tracing::info!("the keys of session tickets are shared again");
                }
            }
            Err(why) if !said => {
                tracing::warn!("the keys of session tickets cannot be shared: {why}");
                said = true;
            }
            Err(_) => {}
        }
    }
}

/// The keys as they are now, the one that seals first.
async fn look(wanted: &Wanted) -> Result<Vec<SharedKey>, String> {
    let key = wanted.state.key.as_ref();
    let sealer = key.and_then(|key| key.sealer(PURPOSE).ok());
    let sealer = sealer.ok_or("`state.key` cannot be used")?;
    let now = clock::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs();
    let mut keys = Vec::new();
    for (number, makes) in numbers(now) {
        keys.extend(key_of(wanted, &sealer, number, makes).await?);
    }
    Ok(keys)
}

/// The numbers of the keys that are needed at a time in seconds since 1970, the one that seals first, each with whether it
/// is made where it is missing.
fn numbers(now: u64) -> Vec<(u64, bool)> {
    let (current, since) = (now / PERIOD, now % PERIOD);
    let (before, after) = (current.saturating_sub(1), current + 1);
    if since < BEHIND {
        // Others may not know that its time is over.
        return vec![(before, false), (current, true)];
    }
    let next = (since >= PERIOD - AHEAD).then_some((after, true));
    let all = [(current, true), (before, false)];
    all.into_iter().chain(next).collect()
}

/// A key by its number; `None` where there is none and it is not to be made.
async fn key_of(
    wanted: &Wanted,
    sealer: &Sealer,
    number: u64,
    makes: bool,
) -> Result<Option<SharedKey>, String> {
    let name = format!("portcullis:tickets:{number}");
    let mut get = redis::cmd("GET");
    get.arg(&name);
    let mut sealed: Option<Vec<u8>> = wanted.client.query(&get).await?;
    if sealed.is_none() && makes {
        let mut secret = [0_u8; 32];
        getrandom::fill(&mut secret).map_err(|error| error.to_string())?;
        let made = sealer.seal(&name, &secret);
        let made = made.map_err(|_| "a key cannot be sealed")?;
        let mut set = redis::cmd("SET");
        set.arg(&name).arg(made).arg("NX");
        set.arg("EX").arg(KEPT + AHEAD);
        let _made: Option<String> = wanted.client.query(&set).await?;
        // It may be another gateway's, who was first.
        sealed = wanted.client.query(&get).await?;
    }
    let Some(sealed) = sealed else {
        return Ok(None);
    };
    let opened = sealer.open(&name, &sealed);
    let Some(secret) = opened.and_then(|secret| <[u8; 32]>::try_from(secret).ok()) else {
        let why = "a key was sealed with another `state.key`, which all gateways share";
        return if makes { Err(why.to_owned()) } else { Ok(None) };
    };
    if let Some(anew) = sealer.resealed(&name, &sealed) {
        let mut set = redis::cmd("SET");
        set.arg(&name).arg(anew).arg("XX").arg("KEEPTTL");
        let _set: Option<String> = wanted.client.query(&set).await?;
    }
    Ok(Some(SharedKey { number, secret }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_there_before_it_seals_and_opens_for_a_period_after() {
        let at = |period: u64, since: u64| numbers(period * PERIOD + since);
        let hour = 60 * 60;
        assert_eq!(at(5, 0), [(4, false), (5, true)]);
        assert_eq!(at(5, BEHIND), [(5, true), (4, false)]);
        assert_eq!(at(5, 3 * hour), [(5, true), (4, false)]);
        let last = PERIOD - AHEAD;
        assert_eq!(at(5, last - 1), [(5, true), (4, false)]);
        assert_eq!(at(5, last), [(5, true), (4, false), (6, true)]);
        // Whatever a gateway seals with, others that are behind by a look or two have it.
        for now in (0..3 * PERIOD).step_by(17) {
            let now = 10 * PERIOD + now;
            let sealing = numbers(now)[0].0;
            for late in [0, 60, BEHIND - 1] {
                let others = numbers(now - late);
                let has = others.iter().any(|(number, _)| *number == sealing);
                assert!(has, "{now} {late}");
            }
        }
    }
}
