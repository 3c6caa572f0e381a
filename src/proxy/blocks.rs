//! Bytes of a body in memory. Knows nothing of files.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Pieces below this length are copied together; longer ones are kept as they are.
const COPY_BELOW: usize = 4 * 1024;
/// Pieces that are copied together form blocks of up to this length.
const JOIN_BELOW: usize = 16 * 1024;

/// Bytes in memory, in order. Many small pieces become few blocks.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    /// Blocks that no longer grow, before those that `close` adds.
    pub(crate) closed: VecDeque<Bytes>,
    open: BytesMut,
    /// The total number of bytes.
    pub(crate) len: usize,
}

impl Blocks {
    /// Appends a piece; small pieces are copied together.
    pub(crate) fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        let small = piece.len() < COPY_BELOW;
        let fits = !self.open.is_empty() && self.open.len() + piece.len() <= JOIN_BELOW;
        let first = self.len == 0;
        self.len += piece.len();
        if !(small && fits) {
            self.close();
        }
        // A single small piece, the usual small body, is not copied.
        if small && !first {
            self.open.extend_from_slice(&piece);
        } else {
            self.closed.push_back(piece);
        }
    }

    /// Moves everything to `closed`.
    pub(crate) fn close(&mut self) {
        if !self.open.is_empty() {
            self.closed
                .push_back(std::mem::take(&mut self.open).freeze());
        }
    }

    /// Takes the first block.
    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        if self.closed.is_empty() {
            self.close();
        }
        let piece = self.closed.pop_front()?;
        self.len = self.len.saturating_sub(piece.len());
        Some(piece)
    }

    /// All of it, if that is one piece.
    pub(crate) fn as_one(&self) -> Option<&Bytes> {
        self.closed.front().filter(|first| first.len() == self.len)
    }

    /// The same bytes once more, without copying them.
    pub(crate) fn again(&mut self) -> Self {
        self.close();
        Self {
            closed: self.closed.clone(),
            open: BytesMut::new(),
            len: self.len,
        }
    }

    /// Appends all of `other`.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.close();
        other.close();
        self.len += other.len;
        self.closed.append(&mut other.closed);
    }
}
