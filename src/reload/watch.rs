//! When to look at the configuration's files again: change events of their folders, and a look
//! every two seconds where there are none (bind mounts, network file systems).

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

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
    /// Something has changed, and until then it may settle.
    unsettled: Option<Instant>,
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
            unsettled: None,
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

    /// Ready when the files may have changed and are left alone again. Who drops the future and asks
    /// again misses nothing.
    pub(crate) async fn changed(&mut self) {
        let patience = loop {
            if let Some(patience) = self.unsettled {
                break patience;
            }
            let has_changed = tokio::select! {
                event = self.events.recv(), if self.watcher.is_some() => {
                    let Some(paths) = event else {
                        self.watcher = None;
                        continue;
                    };
                    self.concerns(&paths)
                }
                () = sleep_until(self.next_poll) => {
                    self.next_poll = Instant::now() + POLL;
                    self.looks_now() != self.looks
                }
            };
            self.unsettled = has_changed.then(|| Instant::now() + PATIENCE);
        };
        // Others may write in the same folders all the time: how the files look decides, not events.
        let mut looks = self.looks_now();
        while Instant::now() < patience {
            sleep(SETTLE).await;
            while self.events.try_recv().is_ok() {}
            let now = self.looks_now();
            if now == looks {
                break;
            }
            looks = now;
        }
        self.looks = looks;
        self.unsettled = None;
    }

    fn looks_now(&self) -> Vec<Look> {
        self.files.iter().map(|file| look(file)).collect()
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

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    /// A watched file, from before its first look.
    fn watched() -> (tempfile::TempDir, PathBuf, Watch) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gateway.yaml");
        std::fs::write(&file, "one").unwrap();
        let watch = Watch::new(std::slice::from_ref(&file)).unwrap();
        (folder, file, watch)
    }

    /// Asks as a `select!` does whose other arms are ready first.
    async fn ask_and_drop(watch: &mut Watch) {
        drop(timeout(SETTLE / 4, watch.changed()).await);
    }

    #[tokio::test]
    async fn a_change_is_not_lost_with_a_future_that_is_dropped() {
        let (_folder, file, mut watch) = watched();
        watch.changed().await;
        // The regular look would find it, too.
        watch.next_poll = Instant::now() + 1000 * POLL;
        std::fs::write(&file, "another").unwrap();
        while watch.unsettled.is_none() {
            ask_and_drop(&mut watch).await;
        }
        assert!(timeout(PATIENCE, watch.changed()).await.is_ok());
    }

    #[tokio::test]
    async fn what_others_write_beside_it_does_not_put_it_off() {
        let (folder, file, mut watch) = watched();
        watch.changed().await;
        std::fs::write(&file, "another").unwrap();
        let noise = async {
            loop {
                std::fs::write(folder.path().join("db.sqlite3"), "row").unwrap();
                sleep(SETTLE / 10).await;
            }
        };
        tokio::select! {
            () = watch.changed() => {}
            () = noise => unreachable!(),
            () = sleep(PATIENCE) => panic!("not settled"),
        }
    }

    #[tokio::test]
    async fn writing_that_never_stops_is_waited_for_within_bounds_whoever_drops_the_future() {
        let (_folder, file, mut watch) = watched();
        watch.changed().await;
        let writing = async {
            for round in 0.. {
                std::fs::write(&file, round.to_string()).unwrap();
                sleep(SETTLE / 10).await;
            }
        };
        let asking = async { while timeout(PATIENCE / 2, watch.changed()).await.is_err() {} };
        tokio::select! {
            () = asking => {}
            () = writing => unreachable!(),
            () = sleep(PATIENCE * 3) => panic!("waited for without end"),
        }
    }
}
