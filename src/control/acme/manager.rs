//! The task that keeps all certificates: it knows when each is due, starts what is due, and follows reloads. What it
//! starts are tasks, too, so that no directory and no file system holds up another certificate.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

use super::Wanted;
use super::account::Accounts;
use super::budget::Budget;
use super::folder::Lock;
use super::order::Attempt;
use super::rows::{Pem, Place, Row};
use super::store::Store;
use super::work::{Why, work};
use crate::net::tls::{CertificatePair, Issued, TlsFault};
use crate::snapshot::{Acme, Managed};

/// How many certificates are worked on at a time.
const AT_A_TIME: usize = 4;
/// How often what is due is started, one at a time.
const TICK: Duration = Duration::from_secs(1);
/// How often a request to renew a certificate is heard at most, in seconds.
const HELD: u64 = 10;
/// How often, in ticks, a process that may not order looks for what another one ordered.
const LOOK: u64 = 10;
/// When to work again on a certificate whose task failed by a bug, in seconds.
const BROKEN: u64 = 60;

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
    lock: Option<Lock>,
    /// Whether it was logged that another process orders.
    said: bool,
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
    task: Option<AbortHandle>,
}

impl Running {
    /// A task that follows these configurations.
    pub(super) fn new(wanted: watch::Receiver<Option<Wanted>>) -> Self {
        Self {
            wanted,
            current: None,
            jobs: HashMap::new(),
            tasks: JoinSet::new(),
            budget: Budget::default(),
            accounts: Accounts::default(),
            lock: None,
            said: false,
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
                    Err(_) => return,
                },
                _ = ticks.tick(), if self.current.is_some() => self.tick().await,
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
            }
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
            Ok((_, next)) => next,
            Err(error) => {
                tracing::error!(
                    certificate = job.place.name,
                    again_in = ?Duration::from_secs(BROKEN),
                    "a bug stopped the work on this certificate, please report it: {error}"
                );
                super::now() + BROKEN
            }
        };
    }

    /// Follows a new configuration: certificates that are new or changed are looked at, and those that are not wanted
    /// any more are left.
    async fn follow(&mut self) {
        let wanted = self.wanted.borrow_and_update().clone();
        let Some(wanted) = wanted else {
            *self = Self {
                budget: self.budget.clone(),
                accounts: self.accounts.clone(),
                ..Self::new(self.wanted.clone())
            };
            return;
        };
        let moved = |(current, _): &(Wanted, Store)| current.acme.state != wanted.acme.state;
        if self.current.as_ref().is_none_or(moved) {
            self.lock = None;
            self.said = false;
            self.jobs.values().for_each(Job::abort);
            self.jobs.clear();
        }
        let store = Store::new(&wanted.acme.state);
        let rows = load(&wanted.acme).await;
        let mut jobs = HashMap::new();
        for (managed, (place, row)) in wanted.acme.managed.iter().zip(rows) {
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
                    let directory = row.directory.as_deref().filter(|_| row.ordered > 0);
                    if let Some(directory) = directory {
                        self.budget.note(directory, row.ordered);
                    }
                    Job {
                        next: if changed { 0 } else { first(managed, &row) },
                        managed: Arc::clone(managed),
                        place,
                        why: if changed { Why::Changed } else { Why::Due },
                        held: 0,
                        task: None,
                    }
                }
            };
            jobs.insert(job.place.name.clone(), job);
        }
        self.jobs.values().for_each(Job::abort);
        self.jobs = jobs;
        self.current = Some((wanted, store));
    }

    /// Starts what is due, one certificate at most.
    async fn tick(&mut self) {
        let Some((wanted, store)) = self.current.clone() else {
            return;
        };
        self.ticks = self.ticks.wrapping_add(1);
        if self.lock.is_none() && !self.take_lock(&wanted, &store).await {
            return;
        }
        let now = super::now();
        for name in store.renewals().await.unwrap_or_default() {
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
        if self.tasks.len() >= AT_A_TIME {
            return;
        }
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
            budget: self.budget.clone(),
            accounts: self.accounts.clone(),
        };
        let why = std::mem::replace(&mut job.why, Why::Due);
        job.task = Some(self.tasks.spawn(work(attempt, wanted.dialer, why)));
    }

    /// Takes the right to order. Where another process has it, what that has ordered is served meanwhile.
    async fn take_lock(&mut self, wanted: &Wanted, store: &Store) -> bool {
        match store.lock().await {
            Ok(Some(lock)) => {
                self.lock = Some(lock);
                return true;
            }
            Ok(None) => {
                if !self.said {
                    tracing::info!(
                        state = %wanted.acme.state.display(),
                        "another process orders certificates with this `state`: its certificates are served"
                    );
                    self.said = true;
                }
                if self.ticks.is_multiple_of(LOOK) {
                    load(&wanted.acme).await;
                }
            }
            Err(failure) => {
                if !self.said {
                    tracing::error!("no certificate can be ordered: {}", failure.text);
                    self.said = true;
                }
            }
        }
        false
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
    let same = row.names == managed.names;
    let served = managed.slot.current().is_some() && ours;
    // What a process that was killed had begun goes on.
    let begun = row.order.is_some() || row.asked;
    if same && (row.failures > 0 || served && !begun) {
        row.next
    } else {
        0
    }
}

/// Reads certificates and rows from `state`, and serves the certificates: those that are not served yet, or not in this
/// form. Returns the rows, in order.
pub(super) async fn load(acme: &Acme) -> Vec<(Place, Row)> {
    let store = Store::new(&acme.state);
    let mut rows = Vec::with_capacity(acme.managed.len());
    for managed in &acme.managed {
        let place = place(managed);
        let row = store.row(&place).await.unwrap_or_else(|failure| {
            tracing::error!(certificate = place.name, "{}", failure.text);
            Row::default()
        });
        for place in places(managed) {
            match store.certificate(&place, fits).await {
                Ok(Some(pem)) => serve(managed, &place, &pem),
                Ok(None) => {}
                Err(failure) => tracing::error!(certificate = place.name, "{}", failure.text),
            }
        }
        rows.push((place, row));
    }
    rows
}

/// Serves a certificate from `state`, unless it is served already.
fn serve(managed: &Managed, place: &Place, pem: &Pem) {
    match issued(pem) {
        Ok(issued) => {
            // One that arrived while this was read is newer.
            let known = managed.slot.current();
            if known.is_none_or(|known| known.about().begins < issued.about().begins) {
                managed.slot.replace(issued);
            }
        }
        Err(fault) => tracing::error!(
            certificate = place.name,
            "the certificate in `state` cannot be used: {fault}"
        ),
    }
}

/// Reads a certificate and its key.
pub(super) fn issued(pem: &Pem) -> Result<Issued, TlsFault> {
    CertificatePair::from_pem(&pem.chain, &pem.key)?.issued()
}

/// Whether a certificate and a key belong together.
pub(super) fn fits(pem: &Pem) -> bool {
    issued(pem).is_ok()
}

/// Where what is known about a certificate is kept, and the certificate itself where its first directory issued it.
pub(super) fn place(managed: &Managed) -> Place {
    let all = places(managed).next();
    all.unwrap_or_else(|| Place::new("", ""))
}

/// Where a certificate may be kept: one place for each directory.
pub(super) fn places(managed: &Managed) -> impl Iterator<Item = Place> {
    let name = managed.names.first().map_or("", String::as_str);
    let directories = managed.settings.directories.iter();
    directories.map(move |directory| Place::new(directory.url.authority(), name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::url::Url;
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
        };
        Job {
            place: place(&managed),
            managed: Arc::new(managed),
            next: u64::MAX,
            why: Why::Due,
            held: 0,
            task: None,
        }
    }

    #[tokio::test]
    async fn a_task_that_panics_is_begun_again_after_a_minute() {
        let (_sender, wanted) = watch::channel(None);
        let mut running = Running::new(wanted);
        for (name, panics) in [("a.test", true), ("b.test", false)] {
            let task = async move {
                assert!(!panics, "a bug");
                7
            };
            let task = Some(running.tasks.spawn(task));
            running
                .jobs
                .insert(name.to_owned(), Job { task, ..job(name) });
        }
        // One that is not wanted any more.
        running.tasks.spawn(std::future::pending()).abort();
        let before = super::super::now();
        while let Some(ended) = running.tasks.join_next_with_id().await {
            running.ended(ended);
        }
        assert!(running.jobs.values().all(|job| job.task.is_none()));
        assert_eq!(running.jobs["b.test"].next, 7);
        let next = running.jobs["a.test"].next;
        assert!((before + BROKEN..before + 2 * BROKEN).contains(&next));
    }
}
