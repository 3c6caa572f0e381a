//! Active health checks of app servers: when each is due, on a thread of its own, so that no reload delays them. One
//! check is done in `proxy`, where it is also decided what its outcome means; here that is logged.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::proxy::{HealthSettings, Tally, Unhealthy, Upstream};
use crate::snapshot::Snapshot;

/// The most checks at the same time.
const MOST: usize = 64;

/// The thread that checks; it is started with the first upstream that has `health`.
#[derive(Debug, Default)]
pub(super) struct Checks(Option<mpsc::UnboundedSender<Vec<Arc<Upstream>>>>);

impl Checks {
    /// From now on checks the servers of this configuration; checks that are as before continue.
    pub(super) fn follow(&mut self, snapshot: &Snapshot) {
        let upstreams = &snapshot.upstreams;
        if self.0.is_none() {
            if upstreams.iter().all(|it| it.health().is_none()) {
                return;
            }
            match start() {
                Ok(sender) => self.0 = Some(sender),
                Err(error) => {
                    tracing::error!(%error, "the thread of health checks cannot be started: no server is checked");
                    return;
                }
            }
        }
        let ended = self.0.as_ref().map(|it| it.send(upstreams.clone()));
        if ended.is_some_and(|sent| sent.is_err()) {
            tracing::error!("the thread of health checks has ended");
        }
    }
}

fn start() -> std::io::Result<mpsc::UnboundedSender<Vec<Arc<Upstream>>>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (sender, mut followed) = mpsc::unbounded_channel::<Vec<Arc<Upstream>>>();
    std::thread::Builder::new()
        .name("checks".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                let at_a_time = Arc::new(Semaphore::new(MOST));
                let mut checked = Vec::new();
                while let Some(upstreams) = followed.recv().await {
                    checked = follow(&upstreams, checked, &at_a_time);
                }
            });
            // Does not wait for pending name look-ups.
            runtime.shutdown_background();
        })?;
    Ok(sender)
}

/// A server that is checked.
struct Checked {
    server: Arc<Mutex<Server>>,
    health: HealthSettings,
    task: JoinHandle<()>,
}

impl Drop for Checked {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A server in the current configuration.
#[derive(Clone)]
struct Server {
    upstream: Arc<Upstream>,
    at: usize,
}

/// The servers of these upstreams that have checks; those of `before` whose checks are the same continue, the others end.
fn follow(
    upstreams: &[Arc<Upstream>],
    mut before: Vec<Checked>,
    at_a_time: &Arc<Semaphore>,
) -> Vec<Checked> {
    let mut checked = Vec::new();
    for upstream in upstreams {
        let Some(health) = upstream.health() else {
            continue;
        };
        for at in 0..upstream.settings().servers.len() {
            let server = Server {
                upstream: Arc::clone(upstream),
                at,
            };
            let same = |known: &Checked| {
                let known_at = lock(&known.server);
                known.health == *health && upstream.is_same(at, (&known_at.upstream, known_at.at))
            };
            if let Some(known) = before.iter().position(same) {
                let known = before.swap_remove(known);
                *lock(&known.server) = server;
                checked.push(known);
                continue;
            }
            let server = Arc::new(Mutex::new(server));
            let checking = run(Arc::clone(&server), health.clone(), Arc::clone(at_a_time));
            checked.push(Checked {
                server,
                health: health.clone(),
                task: tokio::spawn(checking),
            });
        }
    }
    drop(before);
    // What is no longer checked is up, and not known when it is checked again.
    for upstream in upstreams.iter().filter(|it| it.health().is_none()) {
        for at in 0..upstream.settings().servers.len() {
            if upstream.known(at).is_some() {
                upstream.set_known(at, None);
            }
        }
    }
    checked
}

/// Checks a server until its configuration changes.
async fn run(server: Arc<Mutex<Server>>, health: HealthSettings, at_a_time: Arc<Semaphore>) {
    let known = {
        let server = lock(&server);
        server.upstream.known(server.at)
    };
    let mut tally = Tally::new(known);
    let chance = RandomState::new();
    let mut nth = 0_u64;
    loop {
        let begun = Instant::now();
        let checked = {
            // Never closed.
            let _permit = at_a_time.acquire().await;
            let Server { upstream, at } = lock(&server).clone();
            upstream.check(at).await
        };
        let times = tally.hears(checked.is_ok(), &health);
        lock(&server).heard(checked, times);
        nth += 1;
        sleep_until(begun + jittered(health.interval, chance.hash_one(nth))).await;
    }
}

impl Server {
    /// The outcome of a check; `times` is how many in a row were like it, where that changes what is known.
    fn heard(&self, checked: Result<(), Unhealthy>, times: Option<u32>) {
        let Self { upstream, at } = self;
        if checked.is_ok() {
            upstream.readmit(*at);
        }
        let Some(times) = times else {
            return;
        };
        let was = upstream.known(*at);
        upstream.set_known(*at, Some(checked.is_ok()));
        let (left, all) = upstream.left();
        let address = upstream.settings().servers.get(*at).map(|it| &it.address);
        let address = address.map_or_else(String::new, ToString::to_string);
        let (name, many) = (&upstream.name, many(times));
        match checked {
            Ok(()) if was.is_none() => {
                tracing::debug!(upstream.name = name, "health check of {address}: passed");
            }
            Ok(()) => {
                tracing::info!(
                    upstream.name = name,
                    "health check of {address}: passed{many}; back, {left} of {all}"
                );
            }
            Err(why) => {
                let hint = why
                    .hint()
                    .map(|hint| format!(" ({hint})"))
                    .unwrap_or_default();
                let said = format!(
                    "health check of {address}: {why}{many}; taken out, {left} of {all} left{hint}"
                );
                if left == 0 {
                    tracing::error!(upstream.name = name, "{said}");
                } else {
                    tracing::warn!(upstream.name = name, "{said}");
                }
            }
        }
    }
}

fn lock(server: &Mutex<Server>) -> std::sync::MutexGuard<'_, Server> {
    server.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `, 3 times`, unless once.
fn many(times: u32) -> String {
    match times {
        1 => String::new(),
        times => format!(", {times} times"),
    }
}

/// 10 % more or less, so that the checks of many servers and gateways do not fall together.
fn jittered(interval: Duration, chance: u64) -> Duration {
    let percent = u32::try_from(chance % 21).unwrap_or(10);
    interval * (90 + percent) / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_differ_by_a_tenth_at_most() {
        let all: Vec<_> = (0..21)
            .map(|it| jittered(Duration::from_secs(10), it))
            .collect();
        assert_eq!(all.iter().min(), Some(&Duration::from_secs(9)));
        assert_eq!(all.iter().max(), Some(&Duration::from_secs(11)));
    }

    #[test]
    fn once_is_not_said() {
        assert_eq!((many(1), many(3)), (String::new(), ", 3 times".to_owned()));
    }
}
