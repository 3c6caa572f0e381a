//! The bytes of an open file. Cached bytes are read on the event loop, all others on the blocking pool, so that no
//! request waits for the disk access of another.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use rustix::io::Errno;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::pieces::{PIECE, Piece, Pieces};
use crate::message::body::{Body, BodyError, Carried, Carry, SendFile};
use crate::message::reject::Reject;

/// Up to this length, bytes are read without a stream, into memory of their own.
const SMALL: u64 = 64 * 1024;
/// Up to this length, copying costs less than `sendfile`.
pub(super) const LONGEST_COPIED: u64 = 8 * 1024;
/// How many bytes one `sendfile` is asked to send.
const CARRIED: usize = 1024 * 1024;
/// The distance between the bytes that are probed to tell whether a file is in memory.
const LOOK: u64 = 128 * 1024;

/// Reads all of a file of `len` bytes into memory.
///
/// # Errors
/// `Internal` if they cannot be read, or the file has become shorter.
pub(super) async fn read(file: Arc<File>, len: u64) -> Result<Bytes, Reject> {
    let mut content = vec![0; usize::try_from(len).map_err(|_| Reject::Internal)?];
    if read_cached(&file, &mut content, 0) == Ok(content.len()) {
        return Ok(content.into());
    }
    let read = move || file.read_exact_at(&mut content, 0).map(|()| content);
    let content = off_the_loop(read).await;
    content.map(Bytes::from).map_err(|_| Reject::Internal)
}

/// Does what waits for a disk on the blocking pool.
///
/// # Errors
/// Those of the work, and that it panicked.
pub(super) async fn off_the_loop<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match Handle::try_current() {
        Ok(runtime) => {
            let done = runtime.spawn_blocking(work).await;
            done.map_err(io::Error::other).flatten()
        }
        // `explain` and benchmarks have no runtime.
        Err(_) => work(),
    }
}

/// A large file, or a large range of one. It yields all its bytes or ends with an error: a file that is truncated while
/// it is served is never padded.
pub(super) struct FileStream {
    file: Arc<File>,
    offset: u64,
    /// How many bytes are left.
    left: u64,
    /// Whether the file system can report that a read would block.
    can_try: bool,
    /// Whether the kernel can send the file to a socket (`sendfile`).
    can_carry: bool,
    /// Whether all of it is known to be in the page cache.
    is_warm: bool,
    /// The piece that the blocking pool is reading.
    reading: Option<JoinHandle<io::Result<Piece>>>,
    pieces: Arc<Pieces>,
    /// Whether only little may be read ahead of the reader.
    gentle: bool,
}

impl FileStream {
    /// `len` bytes of a file, starting at `offset`.
    pub(super) fn new(file: Arc<File>, offset: u64, len: u64, pieces: Arc<Pieces>) -> Self {
        Self {
            file,
            offset,
            left: len,
            can_try: true,
            can_carry: true,
            is_warm: false,
            reading: None,
            pieces,
            gentle: false,
        }
    }

    /// Sets whether all of it is known to be in the page cache.
    pub(super) fn warm(self, is_warm: bool) -> Self {
        Self { is_warm, ..self }
    }

    /// Sets whether the kernel may send it to a socket.
    pub(super) fn carried(self, can_carry: bool) -> Self {
        Self { can_carry, ..self }
    }

    /// The body for connections without `sendfile`. Only a small one that can be read without blocking is read at once;
    /// read errors surface in the body.
    pub(super) fn into_body(self) -> Body {
        match self.at_once(SMALL) {
            Some(content) => Body::full(content),
            None => Body::file(self),
        }
    }

    /// All its bytes, if they are no more than these, and can be read without blocking.
    pub(super) fn at_once(&self, most: u64) -> Option<Bytes> {
        if self.left > most {
            return None;
        }
        let mut content = vec![0; usize::try_from(self.left).ok()?];
        let read = read_cached(&self.file, &mut content, self.offset);
        (read == Ok(content.len())).then(|| content.into())
    }

    /// Reads what is in memory already; returns whether that was anything.
    fn try_read(&mut self, room: &mut Piece) -> bool {
        if !self.can_try {
            return false;
        }
        match read_cached(&self.file, room, self.offset) {
            // Some kernels return 0 for "not in memory": the blocking read decides.
            Ok(0) | Err(Errno::AGAIN | Errno::INTR) => false,
            Ok(count) => {
                room.truncate(count);
                true
            }
            Err(_) => {
                self.can_try = false;
                false
            }
        }
    }

    /// Returns a piece as a frame.
    fn give(&mut self, piece: Piece) -> Frame<Bytes> {
        // Lossless: a piece is at most 240 KiB long.
        let count = piece.len() as u64;
        self.offset = self.offset.saturating_add(count);
        self.left = self.left.saturating_sub(count);
        Frame::data(piece.freeze())
    }
}

impl http_body::Body for FileStream {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.left == 0 {
            return Poll::Ready(None);
        }
        let mut reading = match this.reading.take() {
            Some(reading) => reading,
            None => {
                let left = usize::try_from(this.left).unwrap_or(PIECE);
                let mut room = if this.gentle {
                    this.pieces.take_little(left)
                } else {
                    this.pieces.take(left)
                };
                if this.try_read(&mut room) {
                    return Poll::Ready(Some(Ok(this.give(room))));
                }
                let (file, offset) = (Arc::clone(&this.file), this.offset);
                tokio::task::spawn_blocking(move || {
                    file.read_exact_at(&mut room, offset)?;
                    Ok(room)
                })
            }
        };
        let Poll::Ready(read) = Pin::new(&mut reading).poll(cx) else {
            this.reading = Some(reading);
            return Poll::Pending;
        };
        let piece = read.map_err(io::Error::other).flatten()?;
        Poll::Ready(Some(Ok(this.give(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl Carry for FileStream {
    fn go_gently(self: Pin<&mut Self>) {
        self.get_mut().gentle = true;
    }

    fn may_carry(&self) -> bool {
        self.can_carry && self.can_try && self.left > 0 && self.reading.is_none()
    }

    fn poll_carry(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        send: &mut SendFile<'_>,
    ) -> Poll<Carried> {
        let this = self.get_mut();
        let count = usize::try_from(this.left).unwrap_or(CARRIED).min(CARRIED);
        if !this.may_carry() || !(this.is_warm || is_cached(&this.file, this.offset, count)) {
            return Poll::Ready(Ok(None));
        }
        Poll::Ready(match ready!(send(cx, &this.file, this.offset, count)) {
            // It was truncated meanwhile.
            Ok(0) => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(count) => {
                this.offset = this.offset.saturating_add(count as u64);
                this.left = this.left.saturating_sub(count as u64);
                Ok(Some(Ok(count)))
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput
                ) =>
            {
                this.can_carry = false;
                Ok(None)
            }
            Err(error) => Ok(Some(Err(error))),
        })
    }
}

/// Whether the probed bytes are in memory, so that sending will hardly wait for a disk: the kernel caches and reads
/// ahead larger pieces than the distance between two probes.
fn is_cached(file: &File, offset: u64, count: usize) -> bool {
    let last = count.saturating_sub(1) as u64;
    let looks = (0..=last / LOOK).map(|at| at * LOOK).chain([last]);
    looks
        .map(|at| read_cached(file, &mut [0], offset + at))
        .all(|read| read == Ok(1))
}

/// Reads only what can be read without blocking.
#[cfg(target_os = "linux")]
fn read_cached(file: &File, room: &mut [u8], offset: u64) -> Result<usize, Errno> {
    use rustix::io::{ReadWriteFlags, preadv2};

    preadv2(
        file,
        &mut [io::IoSliceMut::new(room)],
        offset,
        ReadWriteFlags::NOWAIT,
    )
}

#[cfg(not(target_os = "linux"))]
fn read_cached(_: &File, _: &mut [u8], _: u64) -> Result<usize, Errno> {
    Err(Errno::OPNOTSUPP)
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use http_body_util::BodyExt;

    use super::*;

    /// Bytes in which no two positions look the same.
    fn bytes(len: usize) -> Vec<u8> {
        (0_u32..).flat_map(u32::to_le_bytes).take(len).collect()
    }

    fn file(content: &[u8]) -> Arc<File> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(content, 0).unwrap();
        Arc::new(file)
    }

    fn body_of(content: &[u8], offset: u64, len: u64) -> Body {
        FileStream::new(file(content), offset, len, Arc::default()).into_body()
    }

    async fn collect(body: Body) -> Result<Vec<u8>, BodyError> {
        Ok(body.collect().await?.to_bytes().to_vec())
    }

    /// Both ways of reading give the same result.
    #[track_caller]
    fn streams(content: &[u8], offset: u64, len: u64) -> [FileStream; 2] {
        [true, false].map(|can_try| {
            let mut stream = FileStream::new(file(content), offset, len, Arc::default());
            stream.can_try = can_try;
            stream
        })
    }

    #[tokio::test]
    async fn a_large_file_comes_whole() {
        let content = bytes(3 * PIECE + 17);
        for stream in streams(&content, 0, content.len() as u64) {
            assert_eq!(stream.size_hint().exact(), Some(content.len() as u64));
            assert!(collect(Body::stream(stream)).await.unwrap() == content);
        }
    }

    #[tokio::test]
    async fn pieces_may_be_kept_while_the_next_are_read() {
        let content = bytes(2 * PIECE + 1);
        for mut stream in streams(&content, 0, content.len() as u64) {
            let mut kept = Vec::new();
            while let Some(frame) = stream.frame().await {
                kept.push(frame.unwrap().into_data().unwrap());
            }
            assert!(kept.concat() == content);
        }
    }

    #[tokio::test]
    async fn sent_pieces_lend_their_memory() {
        let content = bytes(3 * PIECE);
        for mut stream in streams(&content, 0, content.len() as u64) {
            let mut seen = Vec::new();
            let pieces = Arc::clone(&stream.pieces);
            while let Some(frame) = stream.frame().await {
                seen.extend_from_slice(&frame.unwrap().into_data().unwrap());
                assert_eq!(pieces.spare(), 1);
            }
            assert!(seen == content);
        }
    }

    #[tokio::test]
    async fn a_range_comes_from_its_place() {
        let content = bytes(2 * PIECE);
        for stream in streams(&content, 5, PIECE as u64) {
            assert!(collect(Body::stream(stream)).await.unwrap() == content[5..PIECE + 5]);
        }
        let small = body_of(&content, 7, 9);
        assert_eq!(collect(small).await.unwrap(), content[7..16]);
    }

    #[tokio::test]
    async fn what_is_small_is_no_stream() {
        let limit = usize::try_from(SMALL).unwrap();
        let content = bytes(limit + 1);
        let large = body_of(&content, 0, SMALL + 1);
        assert!(matches!(large, Body::File(_)));
        // Only if the file system can tell what it has in memory.
        if read_cached(&file(&content), &mut [0], 0).is_ok() {
            let small = body_of(&content, 0, SMALL);
            assert!(matches!(small, Body::Full(_)));
            assert!(matches!(body_of(b"", 0, 0), Body::Empty));
        }
    }

    #[tokio::test]
    async fn a_file_that_grew_is_sent_as_long_as_it_was() {
        let content = bytes(PIECE + 9);
        for stream in streams(&content, 0, PIECE as u64) {
            assert!(collect(Body::stream(stream)).await.unwrap() == content[..PIECE]);
        }
    }

    #[tokio::test]
    async fn a_file_that_shrank_breaks_the_body_off() {
        let content = bytes(2 * PIECE);
        for mut stream in streams(&content, 0, content.len() as u64) {
            assert!(stream.frame().await.unwrap().is_ok());
            stream.file.set_len(PIECE as u64 + 3).unwrap();
            assert!(matches!(
                collect(Body::stream(stream)).await,
                Err(BodyError::Io(_))
            ));
        }
        for (len, is_whole) in [(3, true), (4, false)] {
            let seen = collect(body_of(b"abc", 0, len)).await;
            assert_eq!(seen.ok(), is_whole.then(|| b"abc".to_vec()));
            let read = read(file(b"abc"), len).await;
            assert_eq!(read.is_ok(), is_whole);
        }
    }

    /// Sends as the kernel would, `most` bytes at a time, and collects the bytes.
    fn carry(mut stream: FileStream, most: usize) -> Result<Vec<u8>, BodyError> {
        let mut got = Vec::new();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        while !stream.is_end_stream() {
            let mut send = |_: &mut Context<'_>, file: &File, offset, count: usize| {
                let mut piece = vec![0; count.min(most)];
                let read = file.read_at(&mut piece, offset)?;
                got.extend_from_slice(&piece[..read]);
                Poll::Ready(Ok(read))
            };
            let Poll::Ready(carried) = Pin::new(&mut stream).poll_carry(&mut cx, &mut send) else {
                continue;
            };
            assert!(carried?.unwrap().unwrap() > 0);
        }
        Ok(got)
    }

    #[test]
    fn a_file_is_carried_piece_by_piece_and_never_padded() {
        let content = bytes(2 * CARRIED + 17);
        // Only if the file system can tell what it has in memory.
        if read_cached(&file(&content), &mut [0], 0).is_err() {
            return;
        }
        let len = content.len() as u64;
        for most in [usize::MAX, 100_000, 4096] {
            let stream = FileStream::new(file(&content), 5, len - 9, Arc::default());
            assert!(carry(stream, most).unwrap() == content[5..content.len() - 4]);
        }
        // The byte is beyond the end, and so not in memory: such bytes are read, and reported missing there.
        let mut last = FileStream::new(file(&content), len, 1, Arc::default());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut send = |_: &mut Context<'_>, _: &File, _, _| Poll::Ready(Ok(0));
        let carried = Pin::new(&mut last).poll_carry(&mut cx, &mut send);
        assert!(matches!(carried, Poll::Ready(Ok(None))));

        let mut cut = FileStream::new(file(&content), 0, len, Arc::default());
        let carried = Pin::new(&mut cut).poll_carry(&mut cx, &mut send);
        assert!(matches!(carried, Poll::Ready(Err(BodyError::Io(_)))));
        let mut refused = |_: &mut Context<'_>, _: &File, _, _| {
            Poll::Ready(Err(io::ErrorKind::InvalidInput.into()))
        };
        let carried = Pin::new(&mut cut).poll_carry(&mut cx, &mut refused);
        assert!(matches!(carried, Poll::Ready(Ok(None))) && !cut.may_carry());
    }
}
