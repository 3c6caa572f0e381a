//! Reloads the configuration: watches its files, waits until they settle, compiles them, and accepts or refuses the
//! result. The caller applies the new snapshot.

mod reading;
mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use self::reading::{Reading, Request};
pub(crate) use self::watch::Watching;
use crate::admin::{Change, InForce};
use crate::clock;
use crate::config::{self, Accepted, ConfigErrors, Purpose, Refused};
use crate::explain;
use crate::filesystem::Patience;
use crate::privilege::User;
use crate::snapshot::Snapshot;

/// The configuration in force, and the files it came from.
#[derive(Debug)]
pub(crate) struct Active {
    config: PathBuf,
    files: Arc<[PathBuf]>,
    /// The digest of the files last read, valid or not.
    digest: u64,
    /// The digest that the first look at the files finds where nothing has changed but who looks.
    expected: Option<u64>,
    /// Which files currently do not respond.
    patience: Patience,
    /// What is in force, beside the snapshot.
    in_force: Arc<InForce>,
}

/// What became of a reload.
#[derive(Debug)]
pub(crate) enum Reloaded<B> {
    /// No file has changed, and nobody asked.
    Unchanged,
    /// The configuration is refused, for these reasons; nothing has changed.
    Refused(String),
    /// It is to be published, with what was acquired for it.
    Good(Arc<Snapshot>, B, Vec<Change>),
}

/// The result of reading the files, not yet in force.
#[derive(Debug)]
pub(crate) struct Read {
    loaded: Result<Accepted, Refused>,
    /// Where access is wider than in the configuration in force.
    wider: Vec<String>,
}

impl Read {
    /// The compiled snapshot, where the files are valid.
    pub(crate) fn snapshot(&self) -> Option<&Snapshot> {
        self.loaded.as_ref().ok().map(|loaded| &loaded.snapshot)
    }
}

impl Active {
    /// Loads the first configuration.
    ///
    /// # Errors
    /// All errors in the configuration.
    pub(crate) fn load(config: &Path) -> Result<(Self, Arc<Snapshot>), ConfigErrors> {
        let patience = Patience::default();
        let loaded = config::load_again(config, &[], &judge, None, &patience, Purpose::Serve);
        let loaded = loaded.map_err(|refused| refused.errors)?;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let active = Self {
            config: config.to_owned(),
            files: loaded.files.into(),
            digest: loaded.digest,
            expected: None,
            patience,
            in_force: Arc::new(InForce {
                printed: loaded.printed,
                lines: loaded.lines,
                digest: loaded.digest,
            }),
        };
        Ok((active, Arc::new(loaded.snapshot)))
    }

    /// The files and directories that the configuration was read from.
    pub(crate) fn files(&self) -> &Arc<[PathBuf]> {
        &self.files
    }

    /// What is in force, beside the snapshot.
    pub(crate) fn in_force(&self) -> &Arc<InForce> {
        &self.in_force
    }

    /// The digest of the files last read, valid or not.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// Returns a closure that reads the files again, as the user that this process has become, and returns their digest:
    /// some may be out of reach now. It may block on file systems.
    pub(crate) fn look(&self, current: Arc<Snapshot>) -> impl FnOnce() -> u64 + Send + 'static {
        let (config, patience) = (self.config.clone(), self.patience.clone());
        move || {
            let nobody = |_: &Snapshot| config::Verdict::default();
            let before = Some(&*current);
            match config::load_again(&config, &[], &nobody, before, &patience, Purpose::Look) {
                Ok(loaded) => loaded.digest,
                Err(refused) => refused.digest,
            }
        }
    }

    /// The first look at the files may find this digest, see [`Active::look`]. It was warned of what is out of reach.
    pub(crate) fn expect(&mut self, digest: u64) {
        self.expected = Some(digest);
    }

    /// Returns a closure that compiles the files again and compares access. It may block on file systems, and takes
    /// seconds with a hundred thousand routes, so it belongs on its own thread.
    pub(crate) fn reader(&self, current: Arc<Snapshot>) -> impl FnOnce() -> Read + Send + 'static {
        let (config, patience) = (self.config.clone(), self.patience.clone());
        move || {
            let before = Some(&*current);
            let loaded =
                config::load_again(&config, &[], &judge, before, &patience, Purpose::Serve);
            let wider = loaded.as_ref().map_or_else(
                |_| Vec::new(),
                |loaded| explain::wider(&current, &loaded.snapshot, clock::now()),
            );
            Read { loaded, wider }
        }
    }

    /// Applies what was read, unless the files are unchanged (and nobody `asked`) or invalid: the reason is then logged,
    /// and nothing changes. `bind` acquires what the new snapshot needs before it is published, and may refuse
    /// it too.
    pub(crate) fn reload<B>(
        &mut self,
        read: Read,
        current: &Snapshot,
        asked: bool,
        bind: impl FnOnce(&Snapshot) -> Result<B, String>,
    ) -> Reloaded<B> {
        let Read { loaded, wider } = read;
        let (digest, files) = match &loaded {
            Ok(loaded) => (loaded.digest, loaded.files.clone()),
            Err(refused) => (refused.digest, refused.files.clone()),
        };
        let expected = self.expected.take();
        if !asked && (digest == self.digest || Some(digest) == expected) {
            return Reloaded::Unchanged;
        }
        self.digest = digest;
        self.files = files.into();
        let refuse = |why: String| {
            tracing::error!(config = %self.config.display(), "configuration refused, the old one stays:\n{why}");
            Reloaded::Refused(why)
        };
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(Refused { errors, .. }) => {
                return refuse(errors.to_string());
            }
        };
        if loaded.snapshot.workers != current.workers {
            return refuse(format!(
                "`workers` changed from {} to {}: that needs a restart",
                current.workers, loaded.snapshot.workers
            ));
        }
        if loaded.snapshot.user != current.user {
            let name = |user: &Option<User>| match user {
                Some(user) => format!("`{user}`"),
                None => "none".to_owned(),
            };
            let (before, now) = (name(&current.user), name(&loaded.snapshot.user));
            return refuse(format!(
                "`user` changed from {before} to {now}: that needs a restart"
            ));
        }
        match bind(&loaded.snapshot) {
            Ok(bound) => {
                for warning in &loaded.warnings {
                    tracing::warn!("{warning}");
                }
                let changes = report(&current.summary, &loaded.snapshot.summary, wider);
                self.in_force = Arc::new(InForce {
                    printed: loaded.printed,
                    lines: loaded.lines,
                    digest,
                });
                Reloaded::Good(Arc::new(loaded.snapshot), bound, changes)
            }
            Err(why) => refuse(why),
        }
    }
}

/// Runs a configuration's own tests; it is refused where one fails.
pub(crate) fn judge(snapshot: &Snapshot) -> config::Verdict {
    let now = clock::now();
    config::Verdict {
        failing: explain::failing(snapshot, now),
        hazards: explain::hazards(snapshot, now),
    }
}

/// Logs what changed, and warns where access got wider; returns both, the latter first.
fn report(
    old: &BTreeMap<String, String>,
    new: &BTreeMap<String, String>,
    wider: Vec<String>,
) -> Vec<Change> {
    let changes = changes(old, new);
    for change in &changes {
        tracing::info!("changed: {change}");
    }
    for wider in &wider {
        tracing::warn!("ACCESS GOT WIDER: {wider}");
    }
    let of = |wider| move |text| Change { text, wider };
    let wider = wider.into_iter().map(of(true));
    wider.chain(changes.into_iter().map(of(false))).collect()
}

/// What is said of the parts that were removed, changed and added.
pub(crate) fn changes(
    old: &BTreeMap<String, String>,
    new: &BTreeMap<String, String>,
) -> Vec<String> {
    let mut changes = Vec::new();
    for (part, was) in old {
        match new.get(part) {
            None => changes.push(format!("{part} removed ({was})")),
            Some(is) if is != was => changes.push(format!("{part}: {was} -> {is}")),
            Some(_) => {}
        }
    }
    let added = new.iter().filter(|(part, _)| !old.contains_key(*part));
    changes.extend(added.map(|(part, is)| format!("{part} added ({is})")));
    changes
}

#[cfg(test)]
mod tests;
