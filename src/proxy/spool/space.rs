//! The disk space that all bodies of one upstream share, and its bookkeeping. Makes no files but one, as a proof.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::SpoolError;

/// The shortest and the longest length at which a file of a body is followed by the next one.
const FILE_BYTES: (u64, u64) = (256 * 1024, 16 * 1024 * 1024);
/// About how many files a body makes that fills the whole space.
const FILES: u64 = 64;

/// The disk space of one upstream's spool: a directory and a bound in bytes over all bodies at once.
#[derive(Debug)]
pub(crate) struct SpoolSpace {
    pub(super) dir: PathBuf,
    pub(super) total: usize,
    /// One permit a free byte.
    free: Semaphore,
    pub(super) file_bytes: u64,
}

impl SpoolSpace {
    /// Opens the spool in `dir` with room for `bytes` bytes, and proves that files can be made there.
    ///
    /// A missing directory is made with mode 0700. The proof writes one byte to an unlinked file.
    /// Errors are those of the file system. This blocks; it belongs to the loading of a configuration.
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
        })
    }

    /// The bytes in use now, over all bodies. A file counts until it is closed.
    #[cfg(test)]
    pub(crate) fn used(&self) -> u64 {
        self.total.saturating_sub(self.free.available_permits()) as u64
    }

    /// Takes `bytes` bytes if they are free now.
    pub(super) fn try_reserve(self: &Arc<Self>, bytes: usize) -> Option<Reservation> {
        let permits = u32::try_from(bytes).ok()?;
        self.free.try_acquire_many(permits).ok()?.forget();
        Some(Reservation {
            space: Arc::clone(self),
            bytes,
        })
    }

    /// Takes `bytes` bytes, waiting in line for them; at most `total`, or it waits for ever.
    pub(super) async fn reserve(self: &Arc<Self>, bytes: usize) -> Result<Reservation, SpoolError> {
        let permits = u32::try_from(bytes).map_err(|_| SpoolError::Full)?;
        self.free
            .acquire_many(permits)
            .await
            .map_err(|_| SpoolError::Full)?
            .forget();
        Ok(Reservation {
            space: Arc::clone(self),
            bytes,
        })
    }
}

/// Bytes of a [`SpoolSpace`] that are taken until this is dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    space: Arc<SpoolSpace>,
    bytes: usize,
}

impl Reservation {
    /// Gives these bytes to `sum`.
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
        self.space.free.add_permits(self.bytes);
    }
}
