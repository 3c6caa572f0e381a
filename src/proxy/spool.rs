//! A FIFO store of one body: first in memory, then in unlinked files.
//!
//! It knows nothing of requests and responses; `buffer` decides which bodies go through it. No file is accessed on the
//! event loop: blocking tasks create, write, read and close files.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::Bytes;
use http::HeaderMap;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::blocks::Blocks;
use crate::message::body::BodyError;
pub(crate) use reader::SpoolReader;
use space::Reservation;
pub(crate) use space::{SpoolShare, SpoolSpace};
pub(crate) use writer::SpoolWriter;

mod reader;
mod space;
#[cfg(test)]
mod tests;
mod writer;

/// Bytes that are gathered before one write to a file, and the most that one read takes from it.
const GATHER: usize = 64 * 1024;

/// Why a piece could not be stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpoolError {
    /// The memory and the disk space are used up.
    #[error("the spool is full")]
    Full,
    /// A file of the spool could not be created or written.
    #[error("writing to the spool failed: {0}")]
    Io(#[source] io::Error),
    /// The reader is gone.
    #[error("the reader of the spool went away")]
    ReaderGone,
}

impl From<io::Error> for SpoolError {
    /// A full disk or quota counts as a full spool.
    fn from(error: io::Error) -> Self {
        if matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ) {
            Self::Full
        } else {
            Self::Io(error)
        }
    }
}

/// One unlinked file of a body. The file is closed before its space is released: fields are dropped in order.
#[derive(Debug)]
struct Segment {
    file: Arc<File>,
    written: u64,
    read: u64,
    space: Option<Reservation>,
}

/// How a body ended.
#[derive(Debug)]
enum End {
    /// Not yet.
    Open,
    /// All of it was stored.
    Finished(Option<HeaderMap>),
    /// It failed; the reader takes the error.
    Failed(Option<BodyError>),
}

/// The state shared by both ends. The order of the bytes is `head`, `files`, `tail`.
#[derive(Debug)]
struct State {
    memory: usize,
    head: Blocks,
    files: VecDeque<Segment>,
    /// Gathered for the next write to a file; its bytes are reserved already.
    tail: Blocks,
    tail_space: Option<Reservation>,
    /// Bytes between `files` and `tail` are being written to disk, or were lost there.
    writing: bool,
    end: End,
    reader_gone: bool,
    written: u64,
    reader: Option<Waker>,
}

impl State {
    /// Moves the tail back into memory if no file precedes it and it fits.
    fn promote(&mut self) {
        let fits = self.head.len == 0 || self.head.len + self.tail.len <= self.memory;
        if self.tail.len > 0 && self.files.is_empty() && !self.writing && fits {
            self.head.append(std::mem::take(&mut self.tail));
            self.tail_space = None;
        }
    }

    /// How many bytes may be stored in memory now.
    fn room(&self) -> usize {
        if self.files.is_empty() && !self.writing && self.tail.len == 0 {
            self.memory.saturating_sub(self.head.len)
        } else {
            0
        }
    }

    fn is_empty(&self) -> bool {
        self.head.len == 0 && self.files.is_empty() && !self.writing && self.tail.len == 0
    }

    fn push(&mut self, head: Bytes, tail: Option<(Bytes, Reservation)>) {
        self.written += head.len() as u64;
        self.head.push(head);
        if let Some((piece, space)) = tail {
            self.written += piece.len() as u64;
            self.tail.push(piece);
            space.add_to(&mut self.tail_space);
        }
        self.wake_reader();
    }

    fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The reader took something, or is gone.
    taken: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Creates an empty store: `memory` bytes in memory, the rest in unlinked files within `space`.
///
/// Besides `memory`, a body on disk uses up to 64 KiB and one piece for data to be written, and up to 64 KiB for data
/// that was read.
pub(crate) fn spool(memory: usize, space: Option<SpoolShare>) -> (SpoolWriter, SpoolReader) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            memory,
            head: Blocks::default(),
            files: VecDeque::new(),
            tail: Blocks::default(),
            tail_space: None,
            writing: false,
            end: End::Open,
            reader_gone: false,
            written: 0,
            reader: None,
        }),
        taken: Notify::new(),
    });
    let space = space.filter(|space| space.most > 0);
    let writer = SpoolWriter {
        shared: Arc::clone(&shared),
        space,
        hop: None,
    };
    (writer, SpoolReader::new(shared))
}

/// Drops files where blocking is permitted: closing a long unlinked file takes time.
fn discard<T: Send + 'static>(files: T) {
    if let Ok(runtime) = Handle::try_current() {
        drop(runtime.spawn_blocking(move || drop(files)));
    }
}
