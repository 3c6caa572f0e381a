//! Caches the contents of small files, so that the next request neither opens nor reads them. Once a second the file
//! system is queried whether a file is still the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use foldhash::quality::RandomState;

use super::about::About;
use super::stamp::{Stamp, Trust};

/// Longer files are not cached.
pub(super) const LONGEST: u64 = 256 * 1024;
/// How many bytes of content one worker caches for one route, in each of two generations.
const MOST: usize = 4 << 20;
/// The weight of a cached file besides its content.
const OVERHEAD: usize = 512;

/// A file as it was sent.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// All of it.
    pub(super) content: Bytes,
    /// Its metadata.
    pub(super) about: Arc<About>,
}

/// The cached files of one route.
#[derive(Debug)]
pub(super) struct Store {
    /// One per worker, so that the lock never blocks.
    workers: Box<[Mutex<Shelf>]>,
}

/// Two generations: when the young one is full, it replaces the old one. A file of the old one that is requested
/// becomes young again, so that files in use stay cached, even if a client requests many other names.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shelf {
    young: Generation,
    old: Generation,
}

#[derive(Debug, Default)]
struct Generation {
    files: HashMap<Box<str>, Entry, RandomState>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    kept: Kept,
    trust: Trust,
}

impl Store {
    /// An empty store.
    pub(super) fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers.max(1)).map(|_| Mutex::default()).collect(),
        }
    }

    /// The cached file of a name below the root. `is_still` checks whether the file is still in that state; it is
    /// called if the last check is not recent.
    pub(super) fn get(
        &self,
        worker: usize,
        name: &str,
        now: SystemTime,
        is_still: impl FnOnce(Stamp, &About) -> bool,
    ) -> Option<Kept> {
        let shelf = self.workers.get(worker)?;
        let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = shelf.young.files.get_mut(name) {
            return entry.holds(now, is_still).then(|| entry.kept.clone());
        }
        let (name, mut entry) = shelf.old.take(name)?;
        if !entry.holds(now, is_still) {
            return None;
        }
        let kept = entry.kept.clone();
        shelf.add(name, entry);
        Some(kept)
    }

    /// Caches a file that was found at this time.
    pub(super) fn put(&self, worker: usize, name: &str, kept: Kept, now: SystemTime) {
        let Some(shelf) = self.workers.get(worker) else {
            return;
        };
        let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.young.take(name);
        shelf.old.take(name);
        let entry = Entry {
            trust: Trust::new(kept.about.stamp, now),
            kept,
        };
        shelf.add(name.into(), entry);
    }
}

impl Shelf {
    /// Adds a file that is in neither generation.
    fn add(&mut self, name: Box<str>, entry: Entry) {
        let weight = entry.weight(&name);
        if self.young.bytes + weight > MOST {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.bytes += weight;
        self.young.files.insert(name, entry);
    }
}

impl Generation {
    fn take(&mut self, name: &str) -> Option<(Box<str>, Entry)> {
        let (name, entry) = self.files.remove_entry(name)?;
        self.bytes -= entry.weight(&name);
        Some((name, entry))
    }
}

impl Entry {
    fn holds(&mut self, now: SystemTime, is_still: impl FnOnce(Stamp, &About) -> bool) -> bool {
        let about = &self.kept.about;
        self.trust.holds(now, |stamp| is_still(stamp, about))
    }

    fn weight(&self, name: &str) -> usize {
        name.len() + self.kept.content.len() + OVERHEAD
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::super::describe::DescribeRules;
    use super::*;

    fn is_there(store: &Store, name: &str) -> bool {
        store.get(0, name, UNIX_EPOCH, |_, _| true).is_some()
    }

    fn about(meta: &std::fs::Metadata) -> About {
        let told = DescribeRules::default().told("a.txt").unwrap();
        About::of(meta, told, None).unwrap()
    }

    fn put(store: &Store, worker: usize, name: &str, size: usize) {
        let meta = tempfile::tempfile().unwrap().metadata().unwrap();
        let kept = Kept {
            content: vec![0; size].into(),
            about: Arc::new(about(&meta)),
        };
        store.put(worker, name, kept, UNIX_EPOCH);
    }

    #[test]
    fn memory_is_bounded() {
        let store = Store::new(1);
        for at in 0..1000 {
            put(&store, 0, &format!("file {at}"), 60_000);
            assert!(is_there(&store, &format!("file {at}")));
            let shelf = store.workers[0].lock().unwrap();
            for generation in [&shelf.young, &shelf.old] {
                let files = generation.files.iter();
                let weight: usize = files.map(|(name, entry)| entry.weight(name)).sum();
                assert_eq!(weight, generation.bytes);
                assert!(weight <= MOST);
            }
        }
        assert!(!is_there(&store, "file 0"));
    }

    #[test]
    fn what_is_in_use_stays() {
        let store = Store::new(1);
        put(&store, 0, "hot", 60_000);
        for at in 0..1000 {
            put(&store, 0, &format!("file {at}"), 60_000);
            if at % 50 == 0 {
                assert!(is_there(&store, "hot"), "{at}");
            }
        }
    }

    #[test]
    fn a_file_that_is_kept_anew_counts_once() {
        let store = Store::new(1);
        for _ in 0..1000 {
            put(&store, 0, "a", 60_000);
        }
        let shelf = store.workers[0].lock().unwrap();
        let bytes = (shelf.young.bytes, shelf.old.bytes);
        assert_eq!(bytes, (1 + 60_000 + OVERHEAD, 0));
    }

    #[test]
    fn a_file_that_changed_is_not_given_out() {
        let store = Store::new(1);
        put(&store, 0, "a", 1);
        let later = UNIX_EPOCH + std::time::Duration::from_secs(1);
        assert!(store.get(0, "a", later, |_, _| false).is_none());
        assert!(store.get(0, "a", later, |_, _| true).is_some());
    }

    #[test]
    fn a_worker_that_there_is_not_keeps_nothing() {
        let store = Store::new(1);
        put(&store, 7, "a", 1);
        assert!(store.get(7, "a", UNIX_EPOCH, |_, _| true).is_none());
    }
}
