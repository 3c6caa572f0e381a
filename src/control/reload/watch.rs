//! Detects changes of the configuration's files: by change events of their directories, and by polling every two
//! seconds where there are none (bind mounts, network file systems). It runs on its own thread and opens no files: a
//! drive that does not respond blocks neither signals nor the other files.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroU64;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use crate::filesystem::Patience;

/// The polling interval without events.
const POLL: Duration = Duration::from_secs(2);
/// How long the files must be unchanged before they are read.
const SETTLE: Duration = Duration::from_millis(100);
/// How long to wait for writes that never stop.
const PATIENCE: Duration = Duration::from_secs(2);

/// The timeout for the metadata of one file; beyond it the file counts as missing.
const GLANCE: Duration = Duration::from_secs(1);

/// A digest of a file's metadata: device, inode, length, modification and change times in nanoseconds. `None` where it is
/// missing. Of tens of thousands of files one is kept each, and made every two seconds.
type Look = Option<NonZeroU64>;

/// The watching thread. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Watching {
    files: mpsc::UnboundedSender<Arc<[PathBuf]>>,
    changes: mpsc::Receiver<()>,
}

impl Watching {
    /// Starts the thread, with these files and directories.
    ///
    /// # Errors
    /// The system refuses a thread or a runtime. Without change events the thread only polls.
    pub(crate) fn start(files: &Arc<[PathBuf]>) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let (sender, mut followed) = mpsc::unbounded_channel::<Arc<[PathBuf]>>();
        // One pending notification covers all changes after it.
        let (changed, changes) = mpsc::channel(1);
        let files = Arc::clone(files);
        std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let mut watch = Watch::new(&files);
                    loop {
                        tokio::select! {
                            files = followed.recv() => match files {
                                Some(files) => watch.follow(&files),
                                None => break,
                            },
                            () = watch.changed() => drop(changed.try_send(())),
                        }
                    }
                });
            })?;
        Ok(Self {
            files: sender,
            changes,
        })
    }

    /// Watches these files and directories from now on, see [`Watch::follow`].
    pub(crate) fn follow(&self, files: &Arc<[PathBuf]>) {
        if self.files.send(Arc::clone(files)).is_err() {
            tracing::error!("the thread that watches the configuration's files has ended");
        }
    }

    /// Completes when the files may have changed and have settled. Cancel-safe.
    pub(crate) async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            // The thread has ended, which `follow` logs; a signal still reloads.
            std::future::pending::<()>().await;
        }
    }
}

/// Watches a changing set of files.
#[derive(Debug)]
struct Watch {
    files: Arc<[PathBuf]>,
    /// The last metadata of each; the outer `None` before the first look, so that a file removed by then is noticed.
    looks: Vec<Option<Look>>,
    directories: HashSet<PathBuf>,
    watcher: Option<RecommendedWatcher>,
    events: mpsc::UnboundedReceiver<Vec<PathBuf>>,
    next_poll: Instant,
    /// Set after a change: the deadline for settling.
    unsettled: Option<Instant>,
    patience: Patience,
}

impl Watch {
    /// Watches these files and directories.
    fn new(files: &Arc<[PathBuf]>) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // An error (an event overflow, for example) is a reason to check as well.
            let paths = match event {
                Ok(event) if is_change(event.kind) => event.paths,
                Ok(_) => return,
                Err(_) => Vec::new(),
            };
            // The receiver is dropped when the gateway stops.
            drop(sender.send(paths));
        });
        let watcher = match watcher {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::warn!(%error, "no change events; files are polled every 2 s");
                None
            }
        };
        let mut watch = Self {
            files: Arc::default(),
            looks: Vec::new(),
            directories: HashSet::new(),
            watcher,
            events,
            // At once: the files may have changed between being read and being watched.
            next_poll: Instant::now(),
            unsettled: None,
            patience: Patience::default(),
        };
        watch.follow(files);
        watch
    }

    /// Watches these files and directories from now on. New ones may have changed since they were read, so they are
    /// checked once more.
    fn follow(&mut self, files: &Arc<[PathBuf]>) {
        if self.files != *files {
            let before: HashMap<&PathBuf, Option<Look>> =
                self.files.iter().zip(self.looks.drain(..)).collect();
            self.looks = files
                .iter()
                .map(|file| before.get(file).copied().unwrap_or(None))
                .collect();
            self.files = Arc::clone(files);
            let wanted: HashSet<PathBuf> = files
                .iter()
                .flat_map(|file| self.about(file, folders_of).unwrap_or_default())
                .collect();
            if let Some(watcher) = &mut self.watcher {
                for directory in self.directories.difference(&wanted) {
                    // A removed directory is no longer watched anyway.
                    drop(watcher.unwatch(directory));
                }
                for directory in wanted.difference(&self.directories) {
                    if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
                        tracing::debug!(directory = %directory.display(), %error, "no change events from a directory");
                    }
                }
            }
            self.directories = wanted;
        }
    }

    /// Completes when the files may have changed and have settled. Cancel-safe.
    async fn changed(&mut self) {
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
        // Other programs may write in the same directories all the time, so the files' metadata decides, not events.
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

    /// The metadata of all files. They are queried together; if that times out, one by one.
    fn looks_now(&self) -> Vec<Option<Look>> {
        let files = Arc::clone(&self.files);
        let all = move || files.iter().map(|file| Some(look(file))).collect();
        let looks = self.patience.ask(Path::new(""), GLANCE, all);
        looks.unwrap_or_else(|_| {
            let one = |file: &PathBuf| Some(self.about(file, look).unwrap_or(None));
            self.files.iter().map(one).collect()
        })
    }

    /// Queries the file system about one file; `None` where it does not respond.
    fn about<T: Send + 'static>(&self, file: &Path, ask: fn(&Path) -> T) -> Option<T> {
        let named = file.to_owned();
        self.patience.ask(file, GLANCE, move || ask(&named)).ok()
    }

    /// Whether an event is about a watched file. Links and directories always count: a Kubernetes volume changes
    /// through a link next to the files.
    fn concerns(&self, paths: &[PathBuf]) -> bool {
        paths.is_empty()
            || paths.iter().any(|path| {
                self.files.iter().any(|file| {
                    file == path
                        || (file.file_name() == path.file_name() && file.file_name().is_some())
                        || path.parent().is_some_and(|directory| directory == file)
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

/// The directories whose events can announce a change: the parent of the file, and the one that a link leads to.
fn folders_of(file: &Path) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    if file.is_dir() {
        directories.push(file.to_owned());
    }
    let mut parents = vec![file.to_owned()];
    parents.extend(std::fs::canonicalize(file));
    for path in parents {
        if let Some(parent) = path.parent() {
            let here = parent.as_os_str().is_empty();
            directories.push(if here {
                PathBuf::from(".")
            } else {
                parent.to_owned()
            });
        }
    }
    directories
}

fn look(file: &Path) -> Look {
    let there = std::fs::metadata(file).ok()?;
    let times = [
        there.mtime(),
        there.mtime_nsec(),
        there.ctime(),
        there.ctime_nsec(),
    ];
    let mut hasher = DefaultHasher::new();
    (there.dev(), there.ino(), there.size(), times).hash(&mut hasher);
    NonZeroU64::new(hasher.finish() | 1)
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    /// A watched file, before its first look.
    fn watched() -> (tempfile::TempDir, PathBuf, Watch) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("gateway.yaml");
        std::fs::write(&file, "one").unwrap();
        let watch = Watch::new(&Arc::from([file.clone()]));
        (directory, file, watch)
    }

    /// Polls and drops the future, like a `select!` whose other branch is ready first.
    async fn ask_and_drop(watch: &mut Watch) {
        drop(timeout(SETTLE / 4, watch.changed()).await);
    }

    #[tokio::test]
    async fn a_change_is_not_lost_with_a_future_that_is_dropped() {
        let (_folder, file, mut watch) = watched();
        watch.changed().await;
        // Polling would find the change too.
        watch.next_poll = Instant::now() + 1000 * POLL;
        std::fs::write(&file, "another").unwrap();
        while watch.unsettled.is_none() {
            ask_and_drop(&mut watch).await;
        }
        assert!(timeout(PATIENCE, watch.changed()).await.is_ok());
    }

    #[tokio::test]
    async fn a_file_that_is_gone_before_the_first_look_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let mut watch = Watch::new(&Arc::from([directory.path().join("gateway.yaml")]));
        assert!(timeout(POLL * 4, watch.changed()).await.is_ok());
        assert!(timeout(POLL * 2, watch.changed()).await.is_err());
    }

    #[tokio::test]
    async fn what_others_write_beside_it_does_not_put_it_off() {
        let (directory, file, mut watch) = watched();
        watch.changed().await;
        std::fs::write(&file, "another").unwrap();
        let noise = async {
            loop {
                std::fs::write(directory.path().join("db.sqlite3"), "row").unwrap();
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
