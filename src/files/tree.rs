//! One of a route's roots, with what is cached of its files. Which root serves a request is decided in `files`.

use std::borrow::Cow;
use std::io;
use std::time::Instant;

use super::RootSettings;
use super::descriptors::Descriptors;
use super::private::PrivateFolder;
use super::resolve::Root;
use super::store::Store;
use super::variants::Precompressed;
use crate::message::accept::Coding;

/// One root.
#[derive(Debug)]
pub(super) struct Tree {
    /// The directory.
    pub(super) root: Root,
    /// The folder in it that is a user's own, where it has such.
    pub(super) folder: Option<PrivateFolder>,
    /// The small files that are in memory.
    pub(super) store: Store,
    /// The larger ones that are open.
    pub(super) descriptors: Descriptors,
    /// What is known of precompressed ones.
    pub(super) precompressed: Precompressed,
}

impl Tree {
    /// Opens a root.
    ///
    /// # Errors
    /// It is not a directory that can be opened.
    pub(super) fn open(root: RootSettings, codings: &[Coding], workers: usize) -> io::Result<Self> {
        Ok(Self {
            root: Root::open(root.path, workers, Instant::now())?,
            folder: root.folder,
            store: Store::new(workers),
            descriptors: Descriptors::new(workers),
            precompressed: Precompressed::new(codings.to_vec()),
        })
    }
}

/// Where one request is looked for: a root, and the folder in it that is the user's own.
#[derive(Debug)]
pub(super) struct Spot {
    /// The index of the root.
    pub(super) tree: usize,
    /// The folder, with a slash at its end; empty for none.
    pub(super) folder: String,
}

impl Spot {
    /// The name of a file of this spot below the root.
    pub(super) fn path<'n>(&self, name: &'n str) -> Cow<'n, str> {
        if self.folder.is_empty() {
            Cow::Borrowed(name)
        } else {
            Cow::Owned([&self.folder, name].concat())
        }
    }
}
