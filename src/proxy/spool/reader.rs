//! The reading end of a spool, and reads from its files.

use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio::task::{JoinHandle, spawn_blocking};

use super::{End, GATHER, Shared, discard};
use crate::message::body::BodyError;

/// The reading end of a spool. When dropped, it notifies the writer.
#[derive(Debug)]
pub(crate) struct SpoolReader {
    shared: Arc<Shared>,
    /// The read in progress.
    hop: Option<JoinHandle<io::Result<Bytes>>>,
    length: Option<u64>,
    given: u64,
    /// A file could not be read, and the error was returned.
    broken: bool,
}

impl SpoolReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            hop: None,
            length: None,
            given: 0,
            broken: false,
        }
    }

    /// Bytes written so far; the length of the body once it is finished.
    #[cfg(test)]
    pub(crate) fn len(&self) -> u64 {
        self.shared.lock().written
    }

    /// Announces that the body will have `length` bytes, as in its `Content-Length`.
    pub(crate) fn with_length(mut self, length: u64) -> Self {
        self.length = Some(length);
        self
    }

    /// Counts a piece that was read from the first file, and releases a file that was read to its end.
    fn took_from_file(&self, read: usize) {
        let mut state = self.shared.lock();
        // A file that is being written to stays, even if everything before that write was read.
        let keep = usize::from(state.writing);
        let done = state.files.front_mut().is_some_and(|first| {
            first.read += read as u64;
            first.read >= first.written
        });
        let done = if done && state.files.len() > keep {
            state.files.pop_front()
        } else {
            None
        };
        drop(state);
        if let Some(done) = done {
            discard(done);
        }
    }

    /// Drops everything stored and notifies the writer.
    fn let_go(&self) {
        let mut state = self.shared.lock();
        state.reader_gone = true;
        let memory = (
            std::mem::take(&mut state.head),
            std::mem::take(&mut state.tail),
        );
        let space = state.tail_space.take();
        let files = std::mem::take(&mut state.files);
        drop(state);
        drop((memory, space));
        if !files.is_empty() {
            discard(files);
        }
        self.shared.taken.notify_one();
    }

    fn give(&mut self, piece: Bytes) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.given += piece.len() as u64;
        self.shared.taken.notify_one();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

impl http_body::Body for SpoolReader {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.broken {
            return Poll::Ready(None);
        }
        loop {
            if let Some(hop) = &mut this.hop {
                let outcome = ready!(Pin::new(hop).poll(cx)).map_err(io::Error::from);
                this.hop = None;
                match outcome.and_then(|read| read) {
                    Ok(piece) => {
                        this.took_from_file(piece.len());
                        return this.give(piece);
                    }
                    Err(error) => {
                        // What follows the gap must not be returned.
                        this.let_go();
                        this.broken = true;
                        return Poll::Ready(Some(Err(BodyError::Io(error))));
                    }
                }
            }
            let mut state = this.shared.lock();
            state.promote();
            if let Some(piece) = state.head.pop() {
                drop(state);
                return this.give(piece);
            }
            // While a write is in progress, the first of two files may have been read to its end before.
            if state.files.len() > 1
                && state
                    .files
                    .front()
                    .is_some_and(|first| first.read >= first.written)
            {
                let done = state.files.pop_front();
                drop(state);
                discard(done);
                continue;
            }
            if let Some(first) = state
                .files
                .front()
                .filter(|first| first.read < first.written)
            {
                let length = usize::try_from(first.written - first.read).unwrap_or(GATHER);
                let (file, at) = (Arc::clone(&first.file), first.read);
                drop(state);
                this.hop = Some(spawn_blocking(move || {
                    let mut piece = BytesMut::zeroed(length.min(GATHER));
                    file.read_exact_at(&mut piece, at)?;
                    Ok(piece.freeze())
                }));
                continue;
            }
            return match &mut state.end {
                End::Open => {
                    state.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
                End::Finished(trailers) => Poll::Ready(
                    trailers
                        .take()
                        .map(|trailers| Ok(Frame::trailers(trailers))),
                ),
                End::Failed(error) => Poll::Ready(error.take().map(Err)),
            };
        }
    }

    fn is_end_stream(&self) -> bool {
        let state = self.shared.lock();
        self.given >= state.written && matches!(state.end, End::Finished(None))
    }

    /// Exact once the body is finished, or if its length was announced. With trailers it is only a lower bound:
    /// HTTP/1.1 sends trailers only in a message without a length.
    fn size_hint(&self) -> SizeHint {
        let state = self.shared.lock();
        let left = state.written.saturating_sub(self.given);
        match (&state.end, self.length) {
            (End::Finished(None), _) => SizeHint::with_exact(left),
            (_, Some(length)) => SizeHint::with_exact(length.saturating_sub(self.given)),
            (End::Finished(Some(_)) | End::Open | End::Failed(_), None) => {
                let mut hint = SizeHint::new();
                hint.set_lower(left);
                hint
            }
        }
    }
}

impl Drop for SpoolReader {
    fn drop(&mut self) {
        self.let_go();
    }
}
