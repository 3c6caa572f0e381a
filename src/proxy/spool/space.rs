//! The disk space shared by all bodies of one upstream, and its accounting. Creates only one file, as a check.

use std::collections::HashMap;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use tokio::sync::Semaphore;

use super::SpoolError;
use crate::net::client::Counted;

/// The smallest and the largest size at which the next file of a body is started.
const FILE_BYTES: (u64, u64) = (256 * 1024, 16 * 1024 * 1024);
/// About how many files a body uses that fills the whole space.
const FILES: u64 = 64;

/// The most that the bodies of one client may use is the total divided by this.
const SHARE: usize = 4;

/// The disk space of one upstream's spool: a directory and a limit in bytes over all bodies at once.
#[derive(Debug)]
pub(crate) struct SpoolSpace {
    pub(super) dir: PathBuf,
    pub(super) total: usize,
    /// One permit per free byte.
    free: Semaphore,
    pub(super) file_bytes: u64,
    /// The shares of clients with bodies here, one permit per free byte. Looked up once per body that goes to disk.
    shares: Mutex<HashMap<Counted, Weak<Semaphore>>>,
}

/// The part of a [`SpoolSpace`] that one client's bodies share.
#[derive(Debug)]
pub(crate) struct SpoolShare {
    pub(super) space: Arc<SpoolSpace>,
    client: Counted,
    /// The most bytes that it may have.
    pub(super) most: usize,
    free: OnceLock<Arc<Semaphore>>,
}

impl SpoolSpace {
    /// Opens the spool in `dir` with room for `bytes` bytes, and checks that files can be created there.
    ///
    /// A missing directory is created with mode 0700. The check writes one byte to an unlinked file. Errors are those
    /// of the file system. This blocks; call it while loading a configuration.
    pub(crate) fn open(dir: PathBuf, bytes: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        tempfile::tempfile_in(&dir)?.write_all_at(b"x", 0)?;
        let total = usize::try_from(bytes)
            .unwrap_or(usize::MAX)
            .min(Semaphore::MAX_PERMITS);
        Ok(Self {
            dir,
            total,
            free: Semaphore::new(total),
            file_bytes: (bytes / FILES).clamp(FILE_BYTES.0, FILE_BYTES.1),
            shares: Mutex::default(),
        })
    }

    /// The share of a client.
    pub(crate) fn share(self: &Arc<Self>, client: Counted) -> SpoolShare {
        SpoolShare {
            space: Arc::clone(self),
            client,
            most: self.total / SHARE,
            free: OnceLock::new(),
        }
    }

    /// All of it as one share.
    #[cfg(test)]
    pub(crate) fn whole(self: &Arc<Self>) -> Option<SpoolShare> {
        Some(SpoolShare {
            most: self.total,
            free: OnceLock::from(Arc::new(Semaphore::new(self.total))),
            ..self.share(Counted::of(None))
        })
    }

    /// The free bytes of a client's share, common to all of its bodies.
    fn free_of(&self, client: Counted) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = shares.get(&client).and_then(Weak::upgrade) {
            return known;
        }
        if shares.len() == shares.capacity() {
            // Before it grows.
            shares.retain(|_, share| share.strong_count() > 0);
        }
        let share = Arc::new(Semaphore::new(self.total / SHARE));
        shares.insert(client, Arc::downgrade(&share));
        share
    }

    /// The bytes in use now, over all bodies. A file counts until it is closed.
    #[cfg(test)]
    pub(crate) fn used(&self) -> u64 {
        self.total.saturating_sub(self.free.available_permits()) as u64
    }
}

impl SpoolShare {
    /// The most bytes that a body can have here.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    fn free(&self) -> &Arc<Semaphore> {
        self.free.get_or_init(|| self.space.free_of(self.client))
    }

    /// Reserves `bytes` bytes if they are free now.
    pub(super) fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        let permits = u32::try_from(bytes).ok()?;
        let own = self.free().try_acquire_many(permits).ok()?;
        self.space.free.try_acquire_many(permits).ok()?.forget();
        own.forget();
        Some(self.reserved(bytes))
    }

    /// Reserves `bytes` bytes, waiting in line for them; more than `most` would wait forever.
    pub(super) async fn reserve(&self, bytes: usize) -> Result<Reservation, SpoolError> {
        let permits = u32::try_from(bytes).map_err(|_| SpoolError::Full)?;
        let full = |_| SpoolError::Full;
        let own = self.free().acquire_many(permits).await.map_err(full)?;
        let all = self.space.free.acquire_many(permits).await.map_err(full)?;
        all.forget();
        own.forget();
        Ok(self.reserved(bytes))
    }

    fn reserved(&self, bytes: usize) -> Reservation {
        Reservation {
            space: Arc::clone(&self.space),
            share: Arc::clone(self.free()),
            bytes,
        }
    }
}

/// Bytes of a [`SpoolSpace`] that are reserved until this is dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    space: Arc<SpoolSpace>,
    share: Arc<Semaphore>,
    bytes: usize,
}

impl Reservation {
    /// Adds these bytes to `sum`.
    pub(super) fn add_to(mut self, sum: &mut Option<Self>) {
        if let Some(sum) = sum {
            sum.bytes = sum.bytes.saturating_add(std::mem::take(&mut self.bytes));
        } else {
            *sum = Some(self);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.share.add_permits(self.bytes);
        self.space.free.add_permits(self.bytes);
    }
}
