//! The task that keeps all certificates: it knows when each is due, starts what is due, and follows reloads and what other
//! gateways do. What it starts are tasks, too, so that no directory and no file system holds up another certificate. How a
//! certificate is ordered is not its matter.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Wanted;
use super::account::Accounts;
use super::budget::Budget;
use super::client::Failure;
use super::kept::{load, place};
use super::order::Attempt;
use super::renewal;
use super::request;
use super::rows::{Place, Row};
use super::shared::{Look, Shown};
use super::store::{Right, Store};
use super::work::{Why, work};
use crate::net::tls::{Challenges, Posted};
use crate::snapshot::Managed;

/// How many certificates are worked on at a time.
const AT_A_TIME: usize = 4;
/// How often what is due is started, one at a time.
const TICK: Duration = Duration::from_secs(1);
/// How often a request to renew a certificate is heard at most, in seconds.
const HELD: u64 = 10;
/// How often, in ticks, a process that may not order looks for what another one ordered.
const LOOK: u64 = 10;
/// How often, in ticks, all certificates are read again, whatever was heard of them.
const AFRESH: u64 = 600;
/// How long rows are read at a time: the challenges of other gateways must not wait for thousands of them.
const READING: Duration = Duration::from_millis(500);

/// The running task.
#[derive(Debug)]
pub(super) struct Running {
    wanted: watch::Receiver<Option<Wanted>>,
    current: Option<(Wanted, Store)>,
    /// The certificates, by the name of their places.
    jobs: HashMap<String, Job>,
    /// What is done about certificates; each tells when to look again.
    tasks: JoinSet<u64>,
    budget: Budget,
    accounts: Accounts,
    right: Option<Right>,
    /// Whether it was logged that another process orders.
    waits: bool,
    /// Whether it was logged that nothing can be ordered.
    said: bool,
    /// The certificates that are to be read next, the last one first.
    unread: Vec<String>,
    /// Whether all have been read since the configuration was followed.
    loaded: bool,
    /// Whether the dangers of the servers' settings were logged.
    warned: bool,
    /// Up to where it was heard what other gateways did.
    heard: Option<String>,
    /// The challenges of other gateways that are answered here, by their ids.
    mirrored: HashMap<String, Posted>,
    ticks: u64,
}

/// A certificate, and what is done about it.
#[derive(Debug)]
struct Job {
    managed: Arc<Managed>,
    place: Place,
    /// When to work on it, in seconds since 1970.
    next: u64,
    /// Why it is worked on next.
    why: Why,
    /// Until when no other request to renew it is heard, in seconds since 1970.
    held: u64,
    /// How many of its tasks in a row were stopped by a bug.
    broken: u32,
    task: Option<AbortHandle>,
}

impl Running {
    /// A task that follows these configurations; `budget` and `accounts` have what was ordered and registered before.
    pub(super) fn new(
        wanted: watch::Receiver<Option<Wanted>>,
        budget: Budget,
        accounts: Accounts,
    ) -> Self {
        Self {
            wanted,
            current: None,
            jobs: HashMap::new(),
            tasks: JoinSet::new(),
            budget,
            accounts,
            right: None,
            waits: false,
            said: false,
            unread: Vec::new(),
            loaded: false,
            warned: false,
            heard: None,
            mirrored: HashMap::new(),
            ticks: 0,
        }
    }

    /// Keeps the certificates of each configuration until the process ends.
    pub(super) async fn run(mut self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = self.wanted.changed() => match changed {
                    Ok(()) => self.follow().await,
                    Err(_) => return self.end().await,
                },
                _ = ticks.tick(), if self.current.is_some() => self.tick().await,
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
            }
        }
    }

    /// Stops all tasks, and waits until their rights are given back.
    async fn end(mut self) {
        self.tasks.shutdown().await;
        if let Some((_, store)) = &self.current {
            store.released().await;
        }
    }

    /// Notes when to work again on a certificate whose task has ended. Those of certificates that are not wanted any more
    /// were aborted.
    fn ended(&mut self, ended: Result<(Id, u64), JoinError>) {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let is_its = |job: &&mut Job| job.task.as_ref().is_some_and(|task| task.id() == id);
        let Some(job) = self.jobs.values_mut().find(is_its) else {
            return;
        };
        job.task = None;
        job.next = match ended {
            Ok((_, next)) => {
                job.broken = 0;
                next
            }
            Err(error) => {
                job.broken = job.broken.saturating_add(1);
                // What it had noted when it was stopped is not known, and must not be ordered again and again.
                let pause = renewal::pause(job.broken, None, renewal::random());
                tracing::error!(
                    certificate = job.place.name,
                    again_in = ?Duration::from_secs(pause),
                    "a bug stopped the work on this certificate, please report it: {error}"
                );
                super::now() + pause
            }
        };
    }

    /// Follows a new configuration: certificates that are new or changed are looked at, and those that are not wanted
    /// any more are left.
    async fn follow(&mut self) {
        let wanted = self.wanted.borrow_and_update().clone();
        let store = match wanted.as_ref().map(|wanted| self.store(wanted)) {
            Some(Ok(store)) => store,
            other => {
                if let Some(Err(failure)) = other {
                    tracing::error!("no certificate can be ordered: {}", failure.text);
                }
                self.reset();
                return;
            }
        };
        let Some(wanted) = wanted else { return };
        let mut jobs = HashMap::new();
        for managed in &wanted.acme.managed {
            let place = place(managed);
            let known = self.jobs.remove(&place.name);
            let job = match known {
                Some(known) if known.is_same(managed, &place) => Job {
                    managed: Arc::clone(managed),
                    ..known
                },
                known => {
                    let changed = known.is_some();
                    if let Some(known) = known {
                        known.abort();
                    }
                    Job {
                        // Until its row is read.
                        next: if changed { 0 } else { u64::MAX },
                        why: if changed { Why::Changed } else { Why::Due },
                        managed: Arc::clone(managed),
                        place,
                        held: 0,
                        broken: 0,
                        task: None,
                    }
                }
            };
            jobs.insert(job.place.name.clone(), job);
        }
        self.jobs.values().for_each(Job::abort);
        self.jobs = jobs;
        self.current = Some((wanted, store.clone()));
        self.loaded = false;
        self.unread = self.jobs.keys().cloned().collect();
        // What comes while the certificates are read is heard of afterwards.
        if self.look(&store).await.is_ok() {
            self.read(&store).await;
        }
    }

    /// The rows of a configuration: those of before, where its `state` is the same.
    fn store(&mut self, wanted: &Wanted) -> Result<Store, Failure> {
        if let Some((current, store)) = &self.current
            && current.acme.state == wanted.acme.state
        {
            return Ok(store.clone());
        }
        self.reset();
        Store::new(&wanted.acme.state, wanted.dialer.names(), &self.budget)
    }

    /// Begins anew. What was ordered still counts.
    fn reset(&mut self) {
        self.jobs.values().for_each(Job::abort);
        *self = Self::new(
            self.wanted.clone(),
            self.budget.clone(),
            self.accounts.clone(),
        );
    }

    /// Reads rows and certificates for a while; the others follow at the next tick. `false` where servers do not answer.
    async fn read(&mut self, store: &Store) -> bool {
        let until = Instant::now() + READING;
        while let Some(name) = self.unread.pop() {
            if !self.read_one(store, &name).await {
                self.unread.push(name);
                return false;
            }
            if Instant::now() >= until {
                break;
            }
        }
        self.loaded |= self.unread.is_empty();
        true
    }

    /// Reads the row and the certificate of a job; `false` where servers do not answer.
    async fn read_one(&mut self, store: &Store, name: &str) -> bool {
        let Some(job) = self.jobs.get_mut(name) else {
            return true;
        };
        let managed = Arc::clone(&job.managed);
        let row = match load(store, &managed).await {
            Ok(row) => row,
            Err(failure) => {
                self.down(&failure);
                return false;
            }
        };
        let Some(job) = self.jobs.get_mut(name).filter(|job| job.task.is_none()) else {
            return true;
        };
        if job.why == Why::Due {
            if let (u64::MAX, Some(directory)) = (job.next, row.directory.as_deref()) {
                store.note_order(directory, row.ordered);
            }
            job.next = first(&managed, &row);
        }
        true
    }

    /// Starts what is due, one certificate at most.
    async fn tick(&mut self) {
        let Some((wanted, store)) = self.current.clone() else {
            return;
        };
        self.ticks = self.ticks.wrapping_add(1);
        if self.right.is_none() && !self.take_right(&wanted, &store).await {
            return;
        }
        if self.ticks.is_multiple_of(AFRESH) {
            self.unread = self.jobs.keys().cloned().collect();
        }
        // Nothing is ordered without a `state`; what is there serves on.
        if self.look(&store).await.is_err() || !self.read(&store).await || !self.loaded {
            return;
        }
        self.works(&store);
        if self.tasks.len() >= AT_A_TIME {
            return;
        }
        let now = super::now();
        let idle = self.jobs.values_mut().filter(|job| job.task.is_none());
        let first = idle.min_by_key(|job| job.next);
        let Some(job) = first.filter(|job| job.next <= now) else {
            return;
        };
        let attempt = Attempt {
            managed: Arc::clone(&job.managed),
            place: job.place.clone(),
            store,
            challenges: Arc::clone(&wanted.acme.challenges),
            accounts: self.accounts.clone(),
        };
        let why = std::mem::replace(&mut job.why, Why::Due);
        job.task = Some(self.tasks.spawn(work(attempt, wanted.dialer, why)));
    }

    /// Notes that `state` works.
    fn works(&mut self, store: &Store) {
        if std::mem::take(&mut self.said) {
            tracing::info!("`state` answers again: certificates can be ordered");
        }
        if !std::mem::replace(&mut self.warned, true) {
            for danger in store.dangers() {
                tracing::warn!("{danger}");
            }
        }
    }

    /// Hears what other gateways did, and who asks for a renewal.
    async fn look(&mut self, store: &Store) -> Result<(), ()> {
        let looked = store.look(&mut self.heard).await;
        let Look {
            issued,
            shown,
            asked,
        } = looked.map_err(|failure| self.down(&failure))?;
        if let Some((wanted, _)) = &self.current {
            mirror(&mut self.mirrored, shown, &wanted.acme.challenges);
        }
        for name in issued {
            self.unread.retain(|known| *known != name);
            self.unread.push(name);
        }
        let now = super::now();
        for name in asked {
            let job = self.jobs.get_mut(&name);
            // The request is there until its task has begun, and for long where `state` cannot be written.
            let is_new =
                |job: &&mut Job| job.why != Why::Asked && job.task.is_none() && now >= job.held;
            if let Some(job) = job.filter(is_new) {
                tracing::info!(certificate = name, "a renewal is asked for");
                job.why = Why::Asked;
                job.next = 0;
                job.held = now + HELD;
            }
        }
        Ok(())
    }

    /// Takes the right to order. Where another process has it, what that has ordered is served meanwhile.
    async fn take_right(&mut self, wanted: &Wanted, store: &Store) -> bool {
        match store.right().await {
            Ok(Some(right)) => {
                self.right = Some(right);
                return true;
            }
            Ok(None) => {
                if !std::mem::replace(&mut self.waits, true) {
                    tracing::info!(
                        state = %wanted.acme.state.at,
                        "another process orders certificates with this `state`: its certificates are served"
                    );
                }
                if self.ticks.is_multiple_of(LOOK) {
                    self.unread = self.jobs.keys().cloned().collect();
                }
                self.read(store).await;
            }
            Err(failure) => self.down(&failure),
        }
        false
    }

    fn down(&mut self, failure: &Failure) {
        if !std::mem::replace(&mut self.said, true) {
            tracing::error!(
                "no certificate can be ordered, those that are there serve on: {}",
                failure.text
            );
        }
    }
}

/// Answers the challenges of other gateways, and no longer those that are over.
fn mirror(
    mirrored: &mut HashMap<String, Posted>,
    shown: Vec<(String, Shown)>,
    challenges: &Arc<Challenges>,
) {
    mirrored.retain(|id, _| shown.iter().any(|(known, _)| known == id));
    for (id, shown) in shown {
        if mirrored.contains_key(&id) {
            continue;
        }
        let posted = match &shown.token {
            Some(token) => Some(challenges.post_http(&shown.host, token, &shown.proof)),
            None => {
                let proof = digest(&SHA256, shown.proof.as_bytes());
                let made = request::challenge(&shown.host, proof.as_ref()).ok();
                made.and_then(|(certificate, key)| {
                    challenges.post_tls(&shown.host, &certificate, &key).ok()
                })
            }
        };
        match posted {
            Some(posted) => drop(mirrored.insert(id, posted)),
            None => tracing::warn!(host = shown.host, "a challenge cannot be answered"),
        }
    }
}

impl Job {
    /// Whether a certificate is ordered as before.
    fn is_same(&self, managed: &Managed, place: &Place) -> bool {
        self.place == *place
            && self.managed.names == managed.names
            && self.managed.settings == managed.settings
            && Arc::ptr_eq(&self.managed.slot, &managed.slot)
    }

    /// Stops what is done about it. What was kept is taken up again when it is wanted again.
    fn abort(&self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// When to work on a certificate for the first time in this process: as it was kept, or now where there is none yet.
fn first(managed: &Managed, row: &Row) -> u64 {
    let issuer = row.directory.as_deref();
    let ours = issuer.is_some_and(|url| managed.settings.directory(url).is_some());
    let same = row.covers(&managed.names);
    let served = managed.slot.current().is_some() && ours;
    // What a process that was killed had begun goes on.
    let begun = row.order.is_some() || row.asked;
    if same && (row.failures > 0 || served && !begun) {
        row.next
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::url::Url;
    use crate::observe::counts::Counts;
    use crate::snapshot::{AcmeDirectory, AcmeSettings, ChallengeKind, KeyKind};

    fn job(name: &str) -> Job {
        let directory = AcmeDirectory {
            url: Url::parse("https://ca.test/dir").unwrap(),
            staging: None,
            ca: None,
            eab: None,
        };
        let settings = AcmeSettings {
            directories: vec![directory],
            email: None,
            challenges: vec![ChallengeKind::Http01],
            dns: None,
            profile: None,
            key: KeyKind::P256,
        };
        let managed = Managed {
            names: vec![name.to_owned()],
            settings: Arc::new(settings),
            slot: Arc::default(),
            counts: Arc::new(Counts::new(1)),
        };
        Job {
            place: place(&managed),
            managed: Arc::new(managed),
            next: u64::MAX,
            why: Why::Due,
            held: 0,
            broken: 0,
            task: None,
        }
    }

    #[tokio::test]
    async fn a_task_that_panics_is_begun_again_after_longer_and_longer_pauses() {
        let (_sender, wanted) = watch::channel(None);
        let mut running = Running::new(wanted, Budget::default(), Accounts::default());
        for name in ["a.test", "b.test"] {
            running.jobs.insert(name.to_owned(), job(name));
        }
        // One that is not wanted any more.
        running.tasks.spawn(std::future::pending()).abort();
        for (minutes, panics) in [(1, true), (2, true), (5, true), (0, false), (1, true)] {
            for (name, panics) in [("a.test", panics), ("b.test", false)] {
                let task = running.tasks.spawn(async move {
                    assert!(!panics, "a bug");
                    7
                });
                running.jobs.get_mut(name).unwrap().task = Some(task);
            }
            let before = super::super::now();
            while let Some(ended) = running.tasks.join_next_with_id().await {
                running.ended(ended);
            }
            assert!(running.jobs.values().all(|job| job.task.is_none()));
            assert_eq!(running.jobs["b.test"].next, 7);
            let next = running.jobs["a.test"].next;
            if panics {
                let pause = next - before;
                assert!((54 * minutes..67 * minutes).contains(&pause), "{pause}");
            } else {
                assert_eq!(next, 7);
            }
        }
    }
}
