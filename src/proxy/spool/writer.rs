//! The writing end of a spool, and writes to its files.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use tokio::task::{JoinHandle, spawn_blocking};

use super::space::{Reservation, SpoolShare};
use super::{End, GATHER, Segment, Shared, SpoolError, discard};
use crate::message::body::BodyError;

/// A waiting writer does not split its piece for less room than this.
const SLIVER: usize = 4 * 1024;

/// The result of a write by a blocking task.
#[derive(Debug)]
pub(super) struct Written {
    file: Arc<File>,
    /// The end of the data in the file.
    end: u64,
    space: Option<Reservation>,
    /// The file was created for this write.
    is_new: bool,
}

/// The writing end of a spool. If it is dropped before the end of the body, the reader gets an error.
///
/// A call that is cancelled may have stored part of its piece: drop or [`fail`](Self::fail) the writer then.
#[derive(Debug)]
pub(crate) struct SpoolWriter {
    pub(super) shared: Arc<Shared>,
    pub(super) space: Option<SpoolShare>,
    /// The write in progress.
    pub(super) hop: Option<JoinHandle<io::Result<Written>>>,
}

impl SpoolWriter {
    /// Appends `piece`; never waits for the reader, only for the disk.
    ///
    /// Returns [`SpoolError::Full`] if memory is full and the space is used up, or there is none; then nothing of the
    /// piece was stored.
    pub(crate) async fn try_write(&mut self, mut piece: Bytes) -> Result<(), SpoolError> {
        self.land().await?;
        let gathered = {
            let mut state = self.shared.lock();
            if state.reader_gone {
                return Err(SpoolError::ReaderGone);
            }
            state.promote();
            let head = piece.split_to(state.room().min(piece.len()));
            let tail = if piece.is_empty() {
                None
            } else {
                let space = self
                    .space
                    .as_ref()
                    .and_then(|space| space.try_reserve(piece.len()));
                Some((piece, space.ok_or(SpoolError::Full)?))
            };
            state.push(head, tail);
            state.tail.len >= GATHER
        };
        if gathered { self.flush().await } else { Ok(()) }
    }

    /// Appends `piece`; waits for the reader to make room if memory and space are used up.
    ///
    /// If other bodies hold the space, the piece goes through memory as the reader empties it, so that a body always
    /// makes progress with its own reader. [`SpoolError::Full`] means that the disk itself is full.
    pub(crate) async fn write(&mut self, mut piece: Bytes) -> Result<(), SpoolError> {
        loop {
            self.land().await?;
            let wanted;
            let gathered = {
                let mut state = self.shared.lock();
                if state.reader_gone {
                    return Err(SpoolError::ReaderGone);
                }
                state.promote();
                let mut room = state.room();
                if !state.is_empty() && room < piece.len() && room < SLIVER {
                    room = 0;
                }
                let rest = piece.len().saturating_sub(room).min(GATHER);
                let mut space = self
                    .space_for(rest)
                    .and_then(|space| space.try_reserve(rest));
                if space.is_none() && state.is_empty() && room < SLIVER {
                    // Without this, a spool with no memory would never make progress.
                    room = room.max(GATHER);
                }
                let head = piece.split_to(room.min(piece.len()));
                wanted = piece.len().min(GATHER);
                if wanted != rest {
                    space = None;
                }
                let tail = space.map(|space| (piece.split_to(wanted), space));
                state.push(head, tail);
                state.tail.len >= GATHER
            };
            if gathered {
                self.flush().await?;
            }
            if piece.is_empty() {
                return Ok(());
            }
            if !gathered {
                self.wait_for_room(wanted, &mut piece).await?;
            }
        }
    }

    /// The space, if any bytes are wanted and it can hold `wanted` at all.
    fn space_for(&self, wanted: usize) -> Option<&SpoolShare> {
        self.space
            .as_ref()
            .filter(|space| wanted > 0 && wanted <= space.most)
    }

    /// Waits until the reader took something or `wanted` bytes of space are free; in the latter case reserves them and
    /// stores that much of `piece`.
    async fn wait_for_room(&self, wanted: usize, piece: &mut Bytes) -> Result<(), SpoolError> {
        let Some(space) = self.space_for(wanted) else {
            self.shared.taken.notified().await;
            return Ok(());
        };
        tokio::select! {
            biased;
            () = self.shared.taken.notified() => {}
            space = space.reserve(wanted) => {
                let space = space?;
                let mut state = self.shared.lock();
                if state.reader_gone {
                    return Err(SpoolError::ReaderGone);
                }
                state.push(Bytes::new(), Some((piece.split_to(wanted), space)));
            }
        }
        Ok(())
    }

    /// Returns when the reader was dropped.
    pub(crate) async fn reader_gone(&self) {
        while !self.shared.lock().reader_gone {
            self.shared.taken.notified().await;
        }
    }

    /// The body is complete; `trailers` follow its last byte.
    pub(crate) fn finish(self, trailers: Option<HeaderMap>) {
        let mut state = self.shared.lock();
        // After a write that failed or was cancelled there is a gap; dropping `self` tells the reader.
        if !state.writing {
            state.end = End::Finished(trailers);
            state.wake_reader();
        }
    }

    /// The body failed: the reader gets what was stored, then `error`.
    pub(crate) fn fail(self, error: BodyError) {
        let mut state = self.shared.lock();
        state.end = End::Failed(Some(error));
        state.wake_reader();
    }

    /// Writes the tail to disk.
    async fn flush(&mut self) -> Result<(), SpoolError> {
        self.land().await?;
        let Some(space) = &self.space else {
            return Ok(());
        };
        let job = {
            let mut state = self.shared.lock();
            // The reader may have taken it meanwhile.
            if state.tail.len == 0 {
                return Ok(());
            }
            let mut blocks = std::mem::take(&mut state.tail);
            blocks.close();
            let last = state
                .files
                .back()
                .filter(|last| last.written < space.space.file_bytes);
            let target = last.map(|last| (Arc::clone(&last.file), last.written));
            let taken = state.tail_space.take();
            state.writing = true;
            let space = Arc::clone(&space.space);
            move || write_out(&space.dir, target, blocks.closed, taken)
        };
        self.hop = Some(spawn_blocking(job));
        self.land().await
    }

    /// Waits for the write in progress, if any, and makes its bytes readable.
    async fn land(&mut self) -> Result<(), SpoolError> {
        let Some(hop) = &mut self.hop else {
            // `writing` without a task: the task failed earlier, and its bytes are lost.
            return if self.shared.lock().writing {
                Err(broken().into())
            } else {
                Ok(())
            };
        };
        let outcome = hop.await;
        self.hop = None;
        let Written {
            file,
            end,
            space,
            is_new,
        } = outcome.map_err(io::Error::from)??;
        let mut state = self.shared.lock();
        state.writing = false;
        if state.reader_gone {
            drop(state);
            discard(Segment {
                file,
                written: end,
                read: 0,
                space,
            });
            return Err(SpoolError::ReaderGone);
        }
        if is_new {
            state.files.push_back(Segment {
                file,
                written: end,
                read: 0,
                space,
            });
        } else if let Some(last) = state.files.back_mut() {
            last.written = end;
            if let Some(space) = space {
                space.add_to(&mut last.space);
            }
        }
        state.wake_reader();
        Ok(())
    }
}

impl Drop for SpoolWriter {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if matches!(state.end, End::Open) {
            state.end = End::Failed(Some(BodyError::Io(broken())));
            state.wake_reader();
        }
    }
}

fn broken() -> io::Error {
    io::Error::new(
        io::ErrorKind::BrokenPipe,
        "the body was not stored completely",
    )
}

/// Appends `blocks` to the file and position of `target`, or to a new file. Blocks.
fn write_out(
    dir: &Path,
    target: Option<(Arc<File>, u64)>,
    blocks: VecDeque<Bytes>,
    space: Option<Reservation>,
) -> io::Result<Written> {
    let is_new = target.is_none();
    let (file, mut end) = match target {
        Some(target) => target,
        None => (Arc::new(tempfile::tempfile_in(dir)?), 0),
    };
    for block in blocks {
        file.write_all_at(&block, end)?;
        end += block.len() as u64;
    }
    Ok(Written {
        file,
        end,
        space,
        is_new,
    })
}
