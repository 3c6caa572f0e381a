//! `Gathered`: collects small HTTP/2 frames for a single write. h2 writes and flushes each DATA frame alone, which
//! costs a TLS record and a system call per response.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;

/// How many bytes are gathered: one TLS record (RFC 8446 section 5.1).
const MOST: usize = 16 * 1024;
/// The initial capacity: enough for a response or two.
const FIRST: usize = 4 * 1024;

/// Bytes that were accepted and are not written yet.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    bytes: BytesMut,
    stuck: bool,
}

impl Gathered {
    /// Whether nothing is waiting.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether the writer was not ready at the last attempt.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Takes all of the bytes and returns how many, or takes none and returns `None` if they are too many.
    pub(super) fn take(&mut self, slices: &[IoSlice<'_>]) -> Option<usize> {
        let more: usize = slices.iter().map(|slice| slice.len()).sum();
        if self.bytes.len() + more > MOST {
            return None;
        }
        if self.bytes.capacity() == 0 {
            self.bytes.reserve(FIRST);
        }
        for slice in slices {
            self.bytes.extend_from_slice(slice);
        }
        Some(more)
    }

    /// Writes all of it. If this `ends` a period of activity, its memory is released.
    ///
    /// # Errors
    /// Those of the writer, which accepts nothing more.
    pub(super) fn poll_write_to<W: AsyncWrite>(
        &mut self,
        mut writer: Pin<&mut W>,
        cx: &mut Context<'_>,
        ends: bool,
    ) -> Poll<io::Result<()>> {
        self.stuck = true;
        while !self.bytes.is_empty() {
            let written = ready!(writer.as_mut().poll_write(cx, &self.bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.bytes.advance(written);
        }
        self.stuck = false;
        if ends {
            self.bytes = BytesMut::new();
        } else {
            self.bytes.clear();
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    #[tokio::test]
    async fn small_writes_are_gathered_and_large_ones_are_not() {
        let mut gathered = Gathered::default();
        assert_eq!(
            gathered.take(&[IoSlice::new(b"he"), IoSlice::new(b"llo")]),
            Some(5)
        );
        assert_eq!(gathered.take(&[IoSlice::new(&[0; MOST - 4])]), None);
        assert_eq!(
            gathered.take(&[IoSlice::new(&[1; MOST - 5])]),
            Some(MOST - 5)
        );

        let (mut near, mut far) = duplex(MOST - 1);
        let mut cx = Context::from_waker(Waker::noop());
        let mut write =
            |gathered: &mut Gathered| gathered.poll_write_to(Pin::new(&mut near), &mut cx, false);
        assert!(write(&mut gathered).is_pending());
        assert!(gathered.is_stuck() && !gathered.is_empty());
        let mut room = vec![0; MOST - 1];
        far.read_exact(&mut room).await.unwrap();
        assert_eq!(&room[..6], b"hello\x01");
        assert!(write(&mut gathered).is_ready());
        assert!(!gathered.is_stuck() && gathered.is_empty());
    }
}
