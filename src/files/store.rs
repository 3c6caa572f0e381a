//! The contents of small files that were sent before, so that the next request neither opens nor reads
//! them. Once a second the file system is asked whether a file is still the same one.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rustix::fs::Stat;

use super::TRUSTED_FOR;
use super::conditional::Validators;

/// How many bytes of content one worker keeps for one route.
const MOST: usize = 8 << 20;
/// What a kept file weighs beside its content.
const OVERHEAD: usize = 512;
/// A file that was changed this recently may be changed once more without its stamp showing it, as the
/// file system's clock is coarse. It is not kept yet.
const SETTLED: Duration = Duration::from_secs(2);

/// What tells one state of a file from every other: any write, rename or replacement changes it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of an open file.
    pub(super) fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// The stamp of what a name names. `None` where the numbers do not fit.
    #[cfg_attr(
        target_os = "linux",
        expect(clippy::useless_conversion, reason = "other systems have other types")
    )]
    pub(super) fn of_stat(stat: &Stat) -> Option<Self> {
        Some(Self {
            device: u64::try_from(stat.st_dev).ok()?,
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).ok()?,
            modified: (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).ok()?),
            changed: (stat.st_ctime, i64::try_from(stat.st_ctime_nsec).ok()?),
        })
    }

    /// Whether the last change is so long ago that the next one must show.
    pub(super) fn is_settled(&self, now: SystemTime) -> bool {
        let changed = u64::try_from(self.changed.0).unwrap_or_default();
        UNIX_EPOCH
            .checked_add(Duration::from_secs(changed) + SETTLED)
            .is_some_and(|settled| settled < now)
    }
}

/// A file as it was sent.
#[derive(Debug)]
pub(super) struct Kept {
    /// Which state of the file it is.
    pub(super) stamp: Stamp,
    /// All of it.
    pub(super) content: Bytes,
    /// Its validators.
    pub(super) validators: Validators,
    /// Its media type.
    pub(super) media_type: &'static str,
}

/// The kept files of one route.
#[derive(Debug)]
pub(super) struct Store {
    /// For each worker its own: never waited for.
    workers: Box<[Mutex<Shelf>]>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Shelf {
    files: HashMap<Box<str>, Entry>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    kept: Arc<Kept>,
    /// When the file system was last asked.
    checked: SystemTime,
}

impl Store {
    /// A store with nothing in it.
    pub(super) fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers.max(1)).map(|_| Mutex::default()).collect(),
        }
    }

    /// What was kept of a name below the root. `is_still` tells whether the file is in that state yet; it
    /// is asked where that was not found out not long ago.
    pub(super) fn get(
        &self,
        worker: usize,
        name: &str,
        now: SystemTime,
        is_still: impl FnOnce(Stamp) -> bool,
    ) -> Option<Arc<Kept>> {
        let shelf = self.workers.get(worker)?;
        let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = shelf.files.get_mut(name)?;
        // A clock that was set back is no proof of youth.
        let age = now.duration_since(entry.checked);
        if age.is_err() || age.is_ok_and(|age| age >= TRUSTED_FOR) {
            if !is_still(entry.kept.stamp) {
                return None;
            }
            entry.checked = now;
        }
        Some(Arc::clone(&entry.kept))
    }

    /// Keeps a file, as it was found at this time. When there is no room all others go: those in use are soon back, and a crowd
    /// of names that are asked for once costs no more than reading them did.
    pub(super) fn put(&self, worker: usize, name: &str, kept: Kept, now: SystemTime) {
        let Some(shelf) = self.workers.get(worker) else {
            return;
        };
        let weight = name.len() + kept.content.len() + OVERHEAD;
        let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = shelf.files.remove(name) {
            shelf.bytes -= name.len() + old.kept.content.len() + OVERHEAD;
        }
        if shelf.bytes + weight > MOST {
            *shelf = Shelf::default();
        }
        shelf.bytes += weight;
        let entry = Entry {
            kept: Arc::new(kept),
            checked: now,
        };
        shelf.files.insert(name.into(), entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_there(store: &Store, name: &str) -> bool {
        store.get(0, name, UNIX_EPOCH, |_| true).is_some()
    }

    fn kept(size: usize) -> Kept {
        let file = tempfile::tempfile().unwrap();
        let meta = file.metadata().unwrap();
        Kept {
            stamp: Stamp::of(&meta),
            content: vec![0; size].into(),
            validators: Validators::of(&meta).unwrap(),
            media_type: "text/plain",
        }
    }

    #[test]
    fn memory_is_bounded() {
        let store = Store::new(1);
        for at in 0..1000 {
            store.put(0, &format!("file {at}"), kept(60_000), UNIX_EPOCH);
            assert!(is_there(&store, &format!("file {at}")));
            let shelf = store.workers[0].lock().unwrap();
            let weight: usize = shelf
                .files
                .iter()
                .map(|(name, entry)| name.len() + entry.kept.content.len() + OVERHEAD)
                .sum();
            assert_eq!(weight, shelf.bytes);
            assert!(weight <= MOST);
        }
        assert!(!is_there(&store, "file 0"));
    }

    #[test]
    fn a_file_that_is_kept_anew_counts_once() {
        let store = Store::new(1);
        for _ in 0..1000 {
            store.put(0, "a", kept(60_000), UNIX_EPOCH);
        }
        assert_eq!(
            store.workers[0].lock().unwrap().bytes,
            1 + 60_000 + OVERHEAD
        );
        store.put(7, "a", kept(1), UNIX_EPOCH);
        assert!(store.get(7, "a", UNIX_EPOCH, |_| true).is_none());
    }

    #[test]
    fn the_file_system_is_asked_once_in_a_while() {
        let store = Store::new(1);
        let at = |millis: u64| UNIX_EPOCH + Duration::from_millis(10_000 + millis);
        store.put(0, "a", kept(1), at(0));
        let asks = |now, answer| {
            let mut asked = false;
            let found = store.get(0, "a", now, |_| {
                asked = true;
                answer
            });
            (found.is_some(), asked)
        };
        assert_eq!(asks(at(999), false), (true, false));
        assert_eq!(asks(at(1000), true), (true, true));
        assert_eq!(asks(at(1999), false), (true, false));
        assert_eq!(asks(at(2000), false), (false, true));
        assert_eq!(asks(at(2000), true), (true, true));
        assert_eq!(asks(at(1999), false), (false, true), "the clock went back");
    }

    #[test]
    fn what_was_just_changed_is_not_settled() {
        let stamp = kept(0).stamp;
        let changed = UNIX_EPOCH + Duration::from_secs(u64::try_from(stamp.changed.0).unwrap());
        assert!(!stamp.is_settled(changed + SETTLED));
        assert!(stamp.is_settled(changed + SETTLED + Duration::from_millis(1)));
    }
}
