//! The forms in which a file can be sent: as it is, or precompressed, as `FILE.br`, `FILE.zst` or `FILE.gz` beside it.
//! Files are compressed elsewhere; here they are found, checked for age, and chosen among.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use foldhash::quality::RandomState;

use super::resolve::{Found, Root};
use super::stamp::Stamp;
use crate::message::accept::{AcceptedCodings, Coding};
use crate::message::reject::Reject;

/// How many old siblings are named in the log; one deployment forgets all or none.
const MOST_NAMED: usize = 64;

/// What stands beside a file for one coding.
#[derive(Debug)]
pub(super) struct Sibling {
    /// The coding.
    pub(super) coding: Coding,
    /// Its name below the root.
    pub(super) name: Box<str>,
    /// What it is kept under: no name, as the same file is another one by its own name.
    pub(super) key: Box<str>,
    stamp: Stamp,
    len: u64,
    /// Whether it may be sent: it is a file below the root, and no older than what it stands for.
    is_usable: bool,
}

/// What stands beside a file. Empty without an allocation, as it is for most.
#[derive(Debug, Default)]
pub(super) struct Siblings(Box<[Sibling]>);

/// The siblings of a route's files.
#[derive(Debug, Default)]
pub(super) struct Precompressed {
    /// The codings that are looked for.
    codings: Box<[Coding]>,
    /// The old ones that were named in the log.
    named: Mutex<HashSet<Box<str>, RandomState>>,
}

/// Where a file is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// The root.
    pub(super) root: &'a Root,
    /// The worker that looks.
    pub(super) worker: usize,
    /// The length of the folder that begins each name, and is not left.
    pub(super) folder: usize,
    /// When, on the monotonic clock.
    pub(super) at: Instant,
}

impl Place<'_> {
    /// The state of what a name refers to, which may lie anywhere.
    pub(super) fn stamp(self, name: &str) -> Option<Stamp> {
        self.root.stamp(self.worker, name, self.at)
    }

    /// Opens what a name refers to.
    pub(super) fn find(self, name: &str) -> Result<Found, Reject> {
        self.root.find(self.worker, name, self.folder, self.at)
    }
}

impl Precompressed {
    /// Looks for these codings.
    pub(super) fn new(codings: Vec<Coding>) -> Self {
        Self {
            codings: codings.into(),
            named: Mutex::default(),
        }
    }

    /// Looks at what stands beside the file of a name below the root, which is in this state.
    pub(super) fn beside(&self, place: Place<'_>, name: &str, file: &Stamp) -> Siblings {
        let found = self.codings.iter().filter_map(|coding| {
            let sibling = sibling_name(name, *coding);
            let stamp = place.stamp(&sibling)?;
            let is_file = matches!(place.find(&sibling), Ok(Found::File(..)));
            let is_old = stamp.is_older_than(file);
            if is_file && is_old {
                self.say_old(&sibling);
            }
            Some(Sibling {
                coding: *coding,
                key: [name, "\0", coding.name()].concat().into(),
                name: sibling.into(),
                len: stamp.len(),
                stamp,
                is_usable: is_file && !is_old,
            })
        });
        Siblings(found.collect())
    }

    /// Whether the same stands beside a file as when it was looked at.
    pub(super) fn are_still(&self, place: Place<'_>, name: &str, known: &Siblings) -> bool {
        self.codings.iter().all(|coding| {
            let sibling = known.0.iter().find(|sibling| sibling.coding == *coding);
            match sibling {
                Some(sibling) => place.stamp(&sibling.name) == Some(sibling.stamp),
                None => place.stamp(&sibling_name(name, *coding)).is_none(),
            }
        })
    }

    /// Names a sibling in the log that is older than its file, once.
    fn say_old(&self, sibling: &str) {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if named.len() < MOST_NAMED && named.insert(sibling.into()) {
            drop(named);
            tracing::warn!(
                file = sibling,
                "a precompressed file is older than the file beside it, and is not sent"
            );
        }
    }
}

impl Siblings {
    /// Whether the file has more than one form.
    pub(super) fn are_forms(&self) -> bool {
        self.0.iter().any(|sibling| sibling.is_usable)
    }

    /// Whether there is one in this coding.
    pub(super) fn has(&self, coding: Coding) -> bool {
        let mut usable = self.0.iter().filter(|sibling| sibling.is_usable);
        usable.any(|sibling| sibling.coding == coding)
    }

    /// The form that the client prefers; among equals the smallest. `None` is the plain file of `len` bytes, which a
    /// client that accepts nothing gets, too.
    pub(super) fn preferred(&self, accepted: AcceptedCodings, len: u64) -> Option<&Sibling> {
        let mut best = None;
        let (mut quality, mut shortest) = (accepted.quality(None), len);
        for sibling in self.0.iter().filter(|sibling| sibling.is_usable) {
            let own = accepted.quality(Some(sibling.coding));
            if own > quality || own == quality && own > 0 && sibling.len < shortest {
                best = Some(sibling);
                (quality, shortest) = (own, sibling.len);
            }
        }
        best
    }
}

/// The name of a file's sibling in a coding.
fn sibling_name(name: &str, coding: Coding) -> String {
    [name, ending(coding)].concat()
}

/// What the name of a compressed file ends in.
pub(crate) fn ending(coding: Coding) -> &'static str {
    match coding {
        Coding::Zstd => ".zst",
        Coding::Br => ".br",
        Coding::Gzip => ".gz",
    }
}
