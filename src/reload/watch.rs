//! When to look at the configuration's files again: change events of their folders, and a look
//! every two seconds where there are none (bind mounts, network file systems).

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

/// How often to look without an event.
const POLL: Duration = Duration::from_secs(2);
/// How long the files must be left alone before they are read.
const SETTLE: Duration = Duration::from_millis(100);
/// How long writing that never stops is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a file looked like: device, inode, length, times of change in nanoseconds.
type Look = Option<(u64, u64, u64, i64, i64, i64, i64)>;

/// Watches a changing set of files.
#[derive(Debug)]
pub(crate) struct Watch {
    files: Vec<PathBuf>,
    looks: Vec<Look>,
    folders: HashSet<PathBuf>,
    watcher: Option<RecommendedWatcher>,
    events: mpsc::UnboundedReceiver<Vec<PathBuf>>,
    next_poll: Instant,
}

impl Watch {
    /// Watches these files and folders.
    ///
    /// # Errors
    /// Never because of missing events: the regular look goes on without them.
    pub(crate) fn new(files: &[PathBuf]) -> std::io::Result<Self> {
        let (sender, events) = mpsc::unbounded_channel();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // An error (too many events, say) is a reason to look as well.
            let paths = match event {
                Ok(event) if is_change(event.kind) => event.paths,
                Ok(_) => return,
                Err(_) => Vec::new(),
            };
            // The receiver is gone when the gateway stops.
            drop(sender.send(paths));
        });
        let watcher = match watcher {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::warn!(%error, "no change events; files are looked at every 2 s");
                None
            }
        };
        let mut watch = Self {
            files: Vec::new(),
            looks: Vec::new(),
            folders: HashSet::new(),
            watcher,
            events,
            next_poll: Instant::now() + POLL,
        };
        watch.follow(files);
        Ok(watch)
    }

    /// Watches these files and folders from now on. What is new among them may have changed since
    /// it was read, and so is looked at once more.
    pub(crate) fn follow(&mut self, files: &[PathBuf]) {
        if self.files != files {
            let before: HashMap<PathBuf, Look> =
                self.files.drain(..).zip(self.looks.drain(..)).collect();
            self.looks = files
                .iter()
                .map(|file| before.get(file).copied().unwrap_or(None))
                .collect();
            self.files = files.to_vec();
            let wanted: HashSet<PathBuf> = files.iter().flat_map(|file| folders_of(file)).collect();
            if let Some(watcher) = &mut self.watcher {
                for folder in self.folders.difference(&wanted) {
                    // A folder that is gone is no longer watched anyway.
                    drop(watcher.unwatch(folder));
                }
                for folder in wanted.difference(&self.folders) {
                    if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
                        tracing::debug!(folder = %folder.display(), %error, "no change events from a folder");
                    }
                }
            }
            self.folders = wanted;
        }
    }

    /// Ready when the files may have changed and are left alone again.
    pub(crate) async fn changed(&mut self) {
        loop {
            tokio::select! {
                event = self.events.recv(), if self.watcher.is_some() => {
                    let Some(paths) = event else {
                        self.watcher = None;
                        continue;
                    };
                    if self.concerns(&paths) {
                        break;
                    }
                }
                () = sleep_until(self.next_poll) => {
                    self.next_poll = Instant::now() + POLL;
                    let looks: Vec<Look> = self.files.iter().map(|file| look(file)).collect();
                    if looks != self.looks {
                        break;
                    }
                }
            }
        }
        let patience = Instant::now() + PATIENCE;
        let mut looks: Vec<Look> = self.files.iter().map(|file| look(file)).collect();
        while Instant::now() < patience {
            let event = timeout(SETTLE, self.events.recv()).await;
            let now: Vec<Look> = self.files.iter().map(|file| look(file)).collect();
            if event.is_err() && now == looks {
                break;
            }
            looks = now;
        }
        self.looks = looks;
    }

    /// Whether an event is about a followed file. Links and folders always are: a volume of
    /// Kubernetes changes by one link beside the files.
    fn concerns(&self, paths: &[PathBuf]) -> bool {
        paths.is_empty()
            || paths.iter().any(|path| {
                self.files.iter().any(|file| {
                    file == path
                        || (file.file_name() == path.file_name() && file.file_name().is_some())
                        || path.parent().is_some_and(|folder| folder == file)
                }) || std::fs::symlink_metadata(path).is_ok_and(|there| !there.is_file())
            })
    }
}

fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    }
}

/// The folders whose events tell of a change: the one that names the file, and the one that a
/// link leads to.
fn folders_of(file: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if file.is_dir() {
        folders.push(file.to_owned());
    }
    let mut parents = vec![file.to_owned()];
    parents.extend(std::fs::canonicalize(file));
    for path in parents {
        if let Some(parent) = path.parent() {
            let here = parent.as_os_str().is_empty();
            folders.push(if here {
                PathBuf::from(".")
            } else {
                parent.to_owned()
            });
        }
    }
    folders
}

fn look(file: &Path) -> Look {
    let there = std::fs::metadata(file).ok()?;
    Some((
        there.dev(),
        there.ino(),
        there.size(),
        there.mtime(),
        there.mtime_nsec(),
        there.ctime(),
        there.ctime_nsec(),
    ))
}
