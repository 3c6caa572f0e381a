//! Watches the files of the configuration, lets them settle, compiles them, and hands the result
//! out or refuses it. What is done with a new snapshot is the caller's.

mod reading;
mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use self::reading::Reading;
pub(crate) use self::watch::Watching;
use crate::clock;
use crate::config::{self, Accepted, ConfigErrors, Refused};
use crate::cors::{ANY, CREDENTIALS};
use crate::explain;
use crate::filesystem::Patience;
use crate::snapshot::Snapshot;

/// The configuration that is in force, and where it came from.
#[derive(Debug)]
pub(crate) struct Active {
    config: PathBuf,
    files: Vec<PathBuf>,
    /// The contents that were last looked at, good or bad.
    digest: u64,
    /// What is known of files that do not answer.
    patience: Patience,
}

/// What the files say now, not yet in force.
#[derive(Debug)]
pub(crate) struct Read(Result<Accepted, Refused>);

impl Read {
    /// What the files compile into, where they are good.
    pub(crate) fn snapshot(&self) -> Option<&Snapshot> {
        self.0.as_ref().ok().map(|loaded| &loaded.snapshot)
    }
}

impl Active {
    /// Loads the first configuration.
    ///
    /// # Errors
    /// Every mistake in it.
    pub(crate) fn load(config: &Path) -> Result<(Self, Arc<Snapshot>), ConfigErrors> {
        let patience = Patience::default();
        let loaded = config::load_again(config, &[], &judge, None, &patience);
        let loaded = loaded.map_err(|refused| refused.errors)?;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let active = Self {
            config: config.to_owned(),
            files: loaded.files,
            digest: loaded.digest,
            patience,
        };
        Ok((active, Arc::new(loaded.snapshot)))
    }

    /// The files and folders that the configuration was made from.
    pub(crate) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// What compiles the files anew. It may wait for file systems, so it belongs on a thread of its own.
    pub(crate) fn reader(&self, current: Arc<Snapshot>) -> impl FnOnce() -> Read + Send + 'static {
        let (config, patience) = (self.config.clone(), self.patience.clone());
        move || {
            let read = config::load_again(&config, &[], &judge, Some(&current), &patience);
            Read(read)
        }
    }

    /// Takes what was read. `None` where the files are as they were (unless `asked`), or bad:
    /// then the log says why, and nothing has changed. `bind` gets what the new snapshot needs
    /// before it is published, and may refuse it as well.
    pub(crate) fn reload<B>(
        &mut self,
        read: Read,
        current: &Snapshot,
        asked: bool,
        bind: impl FnOnce(&Snapshot) -> Result<B, String>,
    ) -> Option<(Arc<Snapshot>, B)> {
        let Read(loaded) = read;
        let (digest, files) = match &loaded {
            Ok(loaded) => (loaded.digest, loaded.files.clone()),
            Err(refused) => (refused.digest, refused.files.clone()),
        };
        if !asked && digest == self.digest {
            return None;
        }
        self.digest = digest;
        self.files = files;
        let refuse = |why: &str| {
            tracing::error!(config = %self.config.display(), "configuration refused, the old one stays:\n{why}");
        };
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(Refused { errors, .. }) => {
                refuse(&errors.to_string());
                return None;
            }
        };
        if loaded.snapshot.workers != current.workers {
            refuse(&format!(
                "`workers` changed from {} to {}: that needs a restart",
                current.workers, loaded.snapshot.workers
            ));
            return None;
        }
        match bind(&loaded.snapshot) {
            Ok(bound) => {
                for warning in &loaded.warnings {
                    tracing::warn!("{warning}");
                }
                report(&current.summary, &loaded.snapshot.summary);
                Some((Arc::new(loaded.snapshot), bound))
            }
            Err(why) => {
                refuse(&why);
                None
            }
        }
    }
}

/// A configuration whose own tests fail is not taken up.
pub(crate) fn judge(snapshot: &Snapshot) -> Vec<(usize, String)> {
    explain::failing(snapshot, clock::now())
}

/// Says in words what changed, and shouts where access got wider.
fn report(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) {
    for change in changes(old, new) {
        match change {
            (text, Wider::Yes) => tracing::warn!("ACCESS GOT WIDER: {text}"),
            (text, Wider::No) => tracing::info!("changed: {text}"),
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wider {
    Yes,
    No,
}

fn changes(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<(String, Wider)> {
    let mut changes = Vec::new();
    for (part, was) in old {
        match new.get(part) {
            None => changes.push((format!("{part} removed ({was})"), Wider::No)),
            Some(is) if is != was => {
                let wider = if is_wider(part, was, is) {
                    Wider::Yes
                } else {
                    Wider::No
                };
                changes.push((format!("{part}: {was} -> {is}"), wider));
            }
            Some(_) => {}
        }
    }
    for (part, is) in new {
        if !old.contains_key(part) {
            let wider = match part.strip_suffix(" cors") {
                // What is here already is opened to pages of others; a new route was never closed to them.
                Some(of) if old.contains_key(of) => Wider::Yes,
                Some(_) | None => Wider::No,
            };
            changes.push((format!("{part} added ({is})"), wider));
        }
    }
    changes
}

/// Whether more requests may pass than before.
fn is_wider(part: &str, was: &str, is: &str) -> bool {
    if part.ends_with(" revokes") {
        // Fewer tokens are taken back.
        let count = |text: &str| text.parse::<usize>().ok();
        return count(is) < count(was);
    }
    if part.ends_with(" cors") {
        return reaches_further(was, is);
    }
    // What lets in newly; what asked for something, and no longer does.
    let newly = |word: &str| is.contains(word) && !was.contains(word);
    let no_longer = |word: &str| was.contains(word) && !is.contains(word);
    part.ends_with(" auth")
        && was != "none"
        && (is == "none"
            || newly(", optional")
            || newly(", only reported")
            || no_longer(", require")
            || (is.starts_with("ask ") && !was.starts_with("ask ")))
}

/// Whether pages of an origin may do what they could not before.
fn reaches_further(was: &str, is: &str) -> bool {
    let [was, is] = [was, is].map(|text| match text.strip_suffix(CREDENTIALS) {
        Some(origins) => (origins, true),
        None => (text, false),
    });
    let before: Vec<&str> = was.0.split(", ").collect();
    let everybody = before.contains(&ANY);
    let added = |origin: &str| !everybody && !before.contains(&origin);
    (is.1 && !was.1) || is.0.split(", ").any(added)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_said_in_words() {
        let map = |rows: &[(&str, &str)]| -> BTreeMap<String, String> {
            rows.iter()
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                .collect()
        };
        let old = map(&[
            ("route /a auth", "sso"),
            ("route /b auth", "none"),
            ("route /b", "proxy b"),
            ("x", "1"),
        ]);
        let new = map(&[
            ("route /a auth", "none"),
            ("route /b auth", "sso"),
            ("route /b", "proxy b"),
            ("route /b cors", "https://a"),
            ("route /c", "proxy c"),
            ("route /c cors", "https://a"),
            ("y", "2"),
        ]);
        assert_eq!(
            changes(&old, &new),
            [
                ("route /a auth: sso -> none".to_owned(), Wider::Yes),
                ("route /b auth: none -> sso".to_owned(), Wider::No),
                ("x removed (1)".to_owned(), Wider::No),
                ("route /b cors added (https://a)".to_owned(), Wider::Yes),
                ("route /c added (proxy c)".to_owned(), Wider::No),
                ("route /c cors added (https://a)".to_owned(), Wider::No),
                ("y added (2)".to_owned(), Wider::No),
            ]
        );
    }

    #[test]
    fn access_that_got_wider_is_told_from_what_only_changed() {
        for (part, was, is, wider) in [
            ("/a auth", "sso", "none", true),
            ("/a auth", "none", "sso", false),
            ("/a auth", "sso", "sso, optional", true),
            ("/a auth", "sso, optional", "sso or app, optional", false),
            ("/a auth", "sso", "sso, only reported", true),
            ("/a auth", "sso, require {\"a\":1}", "sso", true),
            ("/a auth", "sso", "sso, require {\"a\":1}", false),
            ("/a auth", "sso", "ask http://127.0.0.1:1/", true),
            (
                "/a auth",
                "ask http://127.0.0.1:1/",
                "ask http://127.0.0.1:2/",
                false,
            ),
            ("verifier sso revokes", "10", "9", true),
            ("verifier sso revokes", "9", "10", false),
            ("/a cors", "https://a", "https://a, https://b", true),
            ("/a cors", "https://a, https://b", "https://b", false),
            (
                "/a cors",
                "https://a, https://b",
                "https://b, https://a",
                false,
            ),
            ("/a cors", "https://a", "https://b", true),
            ("/a cors", "https://a", "*", true),
            ("/a cors", "*", "https://a", false),
            ("/a cors", "https://a", "https://a, with credentials", true),
            ("/a cors", "*", "https://a, with credentials", true),
            ("/a cors", "https://a, with credentials", "https://a", false),
            (
                "/a cors",
                "https://a, with credentials",
                "https://a, https://b, with credentials",
                true,
            ),
            ("/a", "proxy a", "proxy b", false),
        ] {
            assert_eq!(is_wider(part, was, is), wider, "{part}: {was} -> {is}");
        }
    }
}
