//! One of a route's roots, with what is cached of its files. Which root serves a request is decided in `files`.

use std::io;
use std::path::PathBuf;
use std::time::Instant;

use super::descriptors::Descriptors;
use super::resolve::Root;
use super::store::Store;
use super::variants::Precompressed;
use crate::message::accept::Coding;

/// One root.
#[derive(Debug)]
pub(super) struct Tree {
    /// The directory.
    pub(super) root: Root,
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
    pub(super) fn open(path: PathBuf, codings: &[Coding], workers: usize) -> io::Result<Self> {
        Ok(Self {
            root: Root::open(path, workers, Instant::now())?,
            store: Store::new(workers),
            descriptors: Descriptors::new(workers),
            precompressed: Precompressed::new(codings.to_vec()),
        })
    }
}
