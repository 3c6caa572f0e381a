//! Memory for the pieces of large files: filled, sent, and reused. It is zeroed only once, and the memory that was sent
//! last is reused first, because it is still in the processor's cache.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::net::stream::SEGMENT;

/// The longest piece: what leaves in whole segments, also over TLS, where each holds three records.
pub(super) const PIECE: usize = 4 * SEGMENT;
/// The longest little piece.
const LITTLE: usize = 32 * 1024;
/// The most pieces whose unused memory is kept.
const SPARE: usize = 4;

/// The memory for one route and worker.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    spare: Mutex<Vec<Box<[u8]>>>,
}

/// A piece. When its last holder drops it, its memory becomes available for the next one.
#[derive(Debug)]
pub(super) struct Piece {
    /// [`PIECE`] bytes, or the length of a little one; empty only while it is dropped.
    memory: Box<[u8]>,
    len: usize,
    home: Arc<Pieces>,
}

impl Pieces {
    /// A piece of `len` bytes, or of [`PIECE`] if that is less. Its content is undefined.
    pub(super) fn take(self: &Arc<Self>, len: usize) -> Piece {
        let spare = self.lock().pop();
        Piece {
            memory: spare.unwrap_or_else(|| vec![0; PIECE].into_boxed_slice()),
            len: len.min(PIECE),
            home: Arc::clone(self),
        }
    }

    /// A piece of `len` bytes, or of [`LITTLE`] if that is less, whose memory is not shared: many may wait for readers.
    pub(super) fn take_little(self: &Arc<Self>, len: usize) -> Piece {
        let len = len.min(LITTLE);
        Piece {
            memory: vec![0; len].into_boxed_slice(),
            len,
            home: Arc::clone(self),
        }
    }

    /// Frees unused memory.
    pub(super) fn release(&self) {
        self.lock().clear();
    }

    /// The number of unused pieces of memory.
    #[cfg(test)]
    pub(super) fn spare(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Box<[u8]>>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Piece {
    /// Keeps only the first bytes.
    pub(super) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The filled piece, to be sent.
    pub(super) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.memory.get(..self.len).unwrap_or_default()
    }
}

impl DerefMut for Piece {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(..self.len).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if self.memory.len() < PIECE {
            return;
        }
        let mut spare = self.home.lock();
        if spare.len() < SPARE {
            spare.push(std::mem::take(&mut self.memory));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_once_the_last_holder_lets_go() {
        let pieces = Arc::new(Pieces::default());
        let mut piece = pieces.take(5);
        piece.copy_from_slice(b"12345");
        piece.truncate(4);
        let sent = piece.freeze();
        let tail = sent.slice(2..);
        drop(sent);
        assert_eq!(pieces.spare(), 0);
        assert_eq!(tail, b"34".as_slice());
        drop(tail);
        assert_eq!(pieces.spare(), 1);
        assert_eq!(*pieces.take(5), *b"12345", "the same memory");
    }

    #[test]
    fn a_piece_is_never_longer_than_its_memory() {
        let pieces = Arc::new(Pieces::default());
        assert_eq!(pieces.take(PIECE + 1).len(), PIECE);
        let mut short = pieces.take(3);
        short.truncate(4);
        assert_eq!(short.len(), 3);
    }

    #[test]
    fn a_little_piece_has_its_own_memory() {
        let pieces = Arc::new(Pieces::default());
        assert_eq!(pieces.take_little(PIECE).len(), LITTLE);
        assert_eq!(pieces.take_little(3).len(), 3);
        assert_eq!(pieces.spare(), 0);
    }

    #[test]
    fn only_a_little_is_kept() {
        let pieces = Arc::new(Pieces::default());
        let many: Vec<_> = (0..=SPARE).map(|_| pieces.take(1)).collect();
        drop(many);
        assert_eq!(pieces.spare(), SPARE);
        pieces.release();
        assert_eq!(pieces.spare(), 0);
    }
}
