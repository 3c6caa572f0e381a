//! Whether a file is still in the state in which it was found: what is cached of it is valid for no other state.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::Stat;

use super::TRUSTED_FOR;

/// A file that was changed this recently may change once more without a new stamp, because the file system's clock is
/// coarse. It is not cached yet.
const SETTLED: Duration = Duration::from_secs(2);

/// Identifies a state of a file: any write, rename or replacement changes it.
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

    /// The stamp of the file that a name refers to. `None` if the numbers do not fit.
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

    /// The length of the file.
    pub(super) fn len(&self) -> u64 {
        self.size
    }

    /// Whether the file was modified in an earlier second than another: finer times are lost by archives and copies.
    pub(super) fn is_older_than(&self, other: &Self) -> bool {
        self.modified.0 < other.modified.0
    }

    /// Whether the last change is so long ago that the next one must change the stamp.
    pub(super) fn is_settled(&self, now: SystemTime) -> bool {
        let changed = u64::try_from(self.changed.0).unwrap_or_default();
        UNIX_EPOCH
            .checked_add(Duration::from_secs(changed) + SETTLED)
            .is_some_and(|settled| settled < now)
    }
}

/// The state in which a name's file was found, which is rechecked from time to time.
#[derive(Debug)]
pub(super) struct Trust {
    stamp: Stamp,
    /// When the file system was last queried.
    checked: SystemTime,
}

impl Trust {
    /// Trusts a file that was found in this state now.
    pub(super) fn new(stamp: Stamp, now: SystemTime) -> Self {
        Self {
            stamp,
            checked: now,
        }
    }

    /// Whether the name still refers to the same file in the same state. `is_still` queries the file system; it is
    /// called if the last check is not recent.
    pub(super) fn holds(&mut self, now: SystemTime, is_still: impl FnOnce(Stamp) -> bool) -> bool {
        // A clock that was set back proves nothing about age.
        let age = now.duration_since(self.checked);
        if age.is_ok_and(|age| age < TRUSTED_FOR) {
            return true;
        }
        let holds = is_still(self.stamp);
        if holds {
            self.checked = now;
        }
        holds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp() -> Stamp {
        Stamp::of(&tempfile::tempfile().unwrap().metadata().unwrap())
    }

    #[test]
    fn the_file_system_is_asked_once_in_a_while() {
        let at = |millis: u64| UNIX_EPOCH + Duration::from_millis(10_000 + millis);
        let mut trust = Trust::new(stamp(), at(0));
        let mut asks = |now, answer| {
            let mut asked = false;
            let holds = trust.holds(now, |_| {
                asked = true;
                answer
            });
            (holds, asked)
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
        let stamp = stamp();
        let changed = UNIX_EPOCH + Duration::from_secs(u64::try_from(stamp.changed.0).unwrap());
        assert!(!stamp.is_settled(changed + SETTLED));
        assert!(stamp.is_settled(changed + SETTLED + Duration::from_millis(1)));
    }
}
