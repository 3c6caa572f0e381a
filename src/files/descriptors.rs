//! Keeps larger files open that were requested before, so that the next request need not open them.
//!
//! An open file is checked for changes, each time if it is large, and once a second whether its name still refers to
//! it. Unused files are closed after some seconds, which frees the disk space of deleted ones.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use foldhash::quality::RandomState;
use tokio::runtime::Handle;

use super::about::About;
use super::pieces::Pieces;
use super::stamp::{Stamp, Trust};
use super::store;

/// How many files one worker keeps open for one route.
const MOST: usize = 256;
/// A file that was not requested between two sweeps is closed.
const SWEEP: Duration = Duration::from_secs(10);

/// A large file.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// The file itself.
    pub(super) file: Arc<File>,
    /// Its metadata.
    pub(super) about: Arc<About>,
}

/// The open files of one route, and the memory for sending them.
#[derive(Debug)]
pub(super) struct Descriptors {
    /// One per worker, so that the lock never blocks.
    workers: Box<[Arc<Shelf>]>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Shelf {
    open: Mutex<Open>,
    pieces: Arc<Pieces>,
}

#[derive(Debug, Default)]
struct Open {
    files: HashMap<Box<str>, Entry, RandomState>,
    /// Counts the look-ups in this shelf.
    uses: u64,
    /// The count at the last sweep.
    swept: u64,
    /// Whether a task sweeps this shelf.
    is_swept: bool,
}

#[derive(Debug)]
struct Entry {
    held: Held,
    trust: Trust,
    /// The count when it was last requested.
    used: u64,
}

impl Descriptors {
    /// Initially no file is open.
    pub(super) fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers.max(1)).map(|_| Arc::default()).collect(),
        }
    }

    /// The open file of a name below the root. `is_still` checks whether the name still refers to the file in that
    /// state; it is called if the last check is not recent.
    pub(super) fn get(
        &self,
        worker: usize,
        name: &str,
        now: SystemTime,
        is_still: impl FnOnce(Stamp, &About) -> bool,
    ) -> Option<Held> {
        let mut open = self.workers.get(worker)?.open();
        open.uses += 1;
        let uses = open.uses;
        let entry = open.files.get_mut(name)?;
        let Entry { held, trust, .. } = entry;
        let is_still = |known| is_still(known, &held.about);
        let holds = if held.is_small() {
            trust.holds(now, |known| held.is_unchanged() && is_still(known))
        } else {
            held.is_unchanged() && trust.holds(now, is_still)
        };
        if holds {
            entry.used = uses;
            return Some(entry.held.clone());
        }
        if let Some(entry) = open.files.remove(name) {
            close(vec![entry]);
        }
        None
    }

    /// Keeps a file open that was found at this time. If there is no room, the least recently requested file is closed.
    pub(super) fn put(&self, worker: usize, name: &str, held: Held, now: SystemTime) {
        let Some(shelf) = self.workers.get(worker) else {
            return;
        };
        shelf.see_that_it_is_swept();
        let mut open = shelf.open();
        if open.files.len() >= MOST && !open.files.contains_key(name) {
            let oldest = open.files.iter().min_by_key(|(_, entry)| entry.used);
            if let Some(name) = oldest.map(|(name, _)| name.clone()) {
                open.files.remove(&name);
            }
        }
        open.uses += 1;
        let entry = Entry {
            trust: Trust::new(held.about.stamp, now),
            held,
            used: open.uses,
        };
        open.files.insert(name.into(), entry);
    }

    /// The memory through which a worker sends its files.
    pub(super) fn pieces(&self, worker: usize) -> Option<Arc<Pieces>> {
        let shelf = self.workers.get(worker)?;
        shelf.see_that_it_is_swept();
        Some(Arc::clone(&shelf.pieces))
    }
}

impl Held {
    /// Whether it could also be cached in memory. Then it is sent at once, and checked as rarely as cached files.
    pub(super) fn is_small(&self) -> bool {
        self.about.len <= store::LONGEST
    }

    /// A write, but also a deletion or a rename over the file, shows in the metadata of the open file itself.
    fn is_unchanged(&self) -> bool {
        self.file
            .metadata()
            .is_ok_and(|meta| Stamp::of(&meta) == self.about.stamp)
    }
}

impl Shelf {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the sweeper if there is none; it ends when nothing is left, or with the route. Without a runtime, in a
    /// benchmark, there is none.
    fn see_that_it_is_swept(self: &Arc<Self>) {
        if self.open().is_swept {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        self.open().is_swept = true;
        let shelf = Arc::downgrade(self);
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                let Some(shelf) = shelf.upgrade() else {
                    return;
                };
                if !shelf.sweep() {
                    return;
                }
            }
        });
    }

    /// Closes files that were not requested since the last sweep; returns whether any are left.
    fn sweep(&self) -> bool {
        self.pieces.release();
        let mut open = self.open();
        let since = open.swept;
        open.swept = open.uses;
        let idle = open.files.extract_if(|_, entry| entry.used <= since);
        close(idle.map(|(_, entry)| entry).collect());
        open.is_swept = !open.files.is_empty();
        open.is_swept
    }
}

/// Closes files on the blocking pool: closing a deleted file frees its blocks, which is slow for large files.
fn close(files: Vec<Entry>) {
    if files.is_empty() {
        return;
    }
    if let Ok(runtime) = Handle::try_current() {
        drop(runtime.spawn_blocking(move || drop(files)));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::UNIX_EPOCH;

    use tokio::time::sleep;

    use super::super::describe::DescribeRules;
    use super::*;

    fn put(descriptors: &Descriptors, name: &str) -> Arc<File> {
        put_as(descriptors, name, 0)
    }

    /// Keeps a file open that claims to have this length.
    fn put_as(descriptors: &Descriptors, name: &str, len: u64) -> Arc<File> {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let meta = file.metadata().unwrap();
        let told = DescribeRules::default().told("a.txt").unwrap();
        let about = About {
            len,
            ..About::of(&meta, told, None).unwrap()
        };
        let held = Held {
            file: Arc::clone(&file),
            about: Arc::new(about),
        };
        descriptors.put(0, name, held, UNIX_EPOCH);
        file
    }

    fn ask(descriptors: &Descriptors, name: &str, is_still: bool, seconds: u64) -> bool {
        let now = UNIX_EPOCH + Duration::from_secs(seconds);
        descriptors.get(0, name, now, |_, _| is_still).is_some()
    }

    fn is_open(descriptors: &Descriptors, name: &str) -> bool {
        descriptors.workers[0].open().files.contains_key(name)
    }

    #[test]
    fn the_one_unused_for_the_longest_makes_room() {
        let descriptors = Descriptors::new(1);
        for at in 0..MOST {
            put(&descriptors, &at.to_string());
        }
        assert!(ask(&descriptors, "0", true, 0));
        put(&descriptors, "2");
        put(&descriptors, "one more");
        let open: Vec<_> = ["0", "1", "2", "3", "one more"]
            .map(|name| is_open(&descriptors, name))
            .into();
        assert_eq!(open, [true, false, true, true, true]);
        assert_eq!(descriptors.workers[0].open().files.len(), MOST);
    }

    #[test]
    fn a_file_that_was_written_to_is_closed_at_once_or_within_a_second() {
        for (len, seconds) in [(store::LONGEST + 1, 0), (store::LONGEST, 1)] {
            let descriptors = Descriptors::new(1);
            let file = put_as(&descriptors, "a", len);
            assert!(ask(&descriptors, "a", true, 0));
            (&*file).write_all(b"more").unwrap();
            assert_eq!(ask(&descriptors, "a", true, 0), seconds > 0);
            assert!(!ask(&descriptors, "a", true, seconds));
            assert_eq!(Arc::strong_count(&file), 1);
        }
    }

    #[test]
    fn a_name_that_stands_for_another_file_is_noticed_within_a_second() {
        let descriptors = Descriptors::new(1);
        put(&descriptors, "a");
        assert!(ask(&descriptors, "a", false, 0));
        assert!(!ask(&descriptors, "a", false, 1));
        assert!(!is_open(&descriptors, "a"));
    }

    #[test]
    fn each_worker_has_its_own() {
        let descriptors = Descriptors::new(2);
        put(&descriptors, "a");
        assert!(descriptors.get(1, "a", UNIX_EPOCH, |_, _| true).is_none());
        assert!(descriptors.get(2, "a", UNIX_EPOCH, |_, _| true).is_none());
        assert!(descriptors.pieces(1).is_some());
        assert!(descriptors.pieces(2).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_asks_for_is_closed_after_some_seconds() {
        let descriptors = Descriptors::new(1);
        for _ in 0..2 {
            put(&descriptors, "busy");
            put(&descriptors, "idle");
            drop(descriptors.pieces(0).unwrap().take(1));
            for _ in 0..4 {
                sleep(SWEEP * 3 / 5).await;
                assert!(ask(&descriptors, "busy", true, 0));
            }
            assert!(is_open(&descriptors, "busy") && !is_open(&descriptors, "idle"));
            sleep(SWEEP * 3).await;
            assert!(!is_open(&descriptors, "busy"));
            assert_eq!(descriptors.pieces(0).unwrap().spare(), 0);
        }
        let shelf = Arc::downgrade(&descriptors.workers[0]);
        drop(descriptors);
        assert!(shelf.upgrade().is_none(), "the sweeper keeps nothing");
    }
}
