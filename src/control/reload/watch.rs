//! When to look at the configuration's files again: change events of their directories, and a look
//! every two seconds where there are none (bind mounts, network file systems). A thread of its own looks, and opens
//! nothing: a drive that does not answer holds up neither signals nor the other files.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use crate::filesystem::Patience;

/// How often to look without an event.
const POLL: Duration = Duration::from_secs(2);
/// How long the files must be left alone before they are read.
const SETTLE: Duration = Duration::from_millis(100);
/// How long writing that never stops is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a look at one file may take; one that takes longer counts as gone meanwhile.
const GLANCE: Duration = Duration::from_secs(1);

/// What a file looked like: device, inode, length, times of change in nanoseconds.
type Look = Option<(u64, u64, u64, i64, i64, i64, i64)>;

/// The thread that watches. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Watching {
    files: mpsc::UnboundedSender<Vec<PathBuf>>,
    changes: mpsc::Receiver<()>,
}

impl Watching {
    /// Starts the thread, which watches these files and directories.
    ///
    /// # Errors
    /// The system refuses a thread or a runtime. Without change events the regular look goes on alone.
    pub(crate) fn start(files: &[PathBuf]) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let (sender, mut followed) = mpsc::unbounded_channel::<Vec<PathBuf>>();
        // One change that nobody has asked for yet stands for all that come after it.
        let (changed, changes) = mpsc::channel(1);
        let files = files.to_vec();
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
    pub(crate) fn follow(&self, files: &[PathBuf]) {
        if self.files.send(files.to_vec()).is_err() {
            tracing::error!("the thread that watches the configuration's files is gone");
        }
    }

    /// Ready when the files may have changed and are left alone again. Who drops the future and asks again misses
    /// nothing.
    pub(crate) async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            // The thread is gone, which `follow` says; a signal still reloads.
            std::future::pending::<()>().await;
        }
    }
}

/// Watches a changing set of files.
#[derive(Debug)]
struct Watch {
    files: Vec<PathBuf>,
    /// How each looked; the outer `None` before the first look, so that a file which is gone by then is noticed.
    looks: Vec<Option<Look>>,
    folders: HashSet<PathBuf>,
    watcher: Option<RecommendedWatcher>,
    events: mpsc::UnboundedReceiver<Vec<PathBuf>>,
    next_poll: Instant,
    /// Something has changed, and until then it may settle.
    unsettled: Option<Instant>,
    patience: Patience,
}

impl Watch {
    /// Watches these files and directories.
    fn new(files: &[PathBuf]) -> Self {
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
            // At once: they may have changed between being read and being watched.
            next_poll: Instant::now(),
            unsettled: None,
            patience: Patience::default(),
        };
        watch.follow(files);
        watch
    }

    /// Watches these files and directories from now on. What is new among them may have changed since
    /// it was read, and so is looked at once more.
    fn follow(&mut self, files: &[PathBuf]) {
        if self.files != files {
            let before: HashMap<PathBuf, Option<Look>> =
                self.files.drain(..).zip(self.looks.drain(..)).collect();
            self.looks = files
                .iter()
                .map(|file| before.get(file).copied().unwrap_or(None))
                .collect();
            self.files = files.to_vec();
            let wanted: HashSet<PathBuf> = files
                .iter()
                .flat_map(|file| self.about(file, folders_of).unwrap_or_default())
                .collect();
            if let Some(watcher) = &mut self.watcher {
                for folder in self.folders.difference(&wanted) {
                    // A directory that is gone is no longer watched anyway.
                    drop(watcher.unwatch(folder));
                }
                for folder in wanted.difference(&self.folders) {
                    if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
                        tracing::debug!(directory = %folder.display(), %error, "no change events from a directory");
                    }
                }
            }
            self.folders = wanted;
        }
    }

    /// Ready when the files may have changed and are left alone again. Who drops the future and asks
    /// again misses nothing.
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
        // Others may write in the same directories all the time: how the files look decides, not events.
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

    /// How all files look. All are asked about at once; where that has no response, each by itself.
    fn looks_now(&self) -> Vec<Option<Look>> {
        let files = self.files.clone();
        let all = move || files.iter().map(|file| Some(look(file))).collect();
        let looks = self.patience.ask(Path::new(""), GLANCE, all);
        looks.unwrap_or_else(|_| {
            let one = |file: &PathBuf| Some(self.about(file, look).unwrap_or(None));
            self.files.iter().map(one).collect()
        })
    }

    /// What the file system says about one file; `None` where it does not answer.
    fn about<T: Send + 'static>(&self, file: &Path, ask: fn(&Path) -> T) -> Option<T> {
        let named = file.to_owned();
        self.patience.ask(file, GLANCE, move || ask(&named)).ok()
    }

    /// Whether an event is about a followed file. Links and directories always are: a volume of
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

/// The directories whose events tell of a change: the one that names the file, and the one that a
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
        let watch = Watch::new(std::slice::from_ref(&file));
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
    async fn a_file_that_is_gone_before_the_first_look_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = Watch::new(&[folder.path().join("gateway.yaml")]);
        assert!(timeout(POLL * 4, watch.changed()).await.is_ok());
        assert!(timeout(POLL * 2, watch.changed()).await.is_err());
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
