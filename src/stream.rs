//! One kind of plain stream for clients and apps, over TCP and Unix sockets. TLS is put on top by
//! whoever has it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

#[cfg(any(test, fuzzing))]
use crate::script::Script;

/// A peer that is gone is an error and no signal, which is what the standard library asks for, too.
#[cfg(target_os = "linux")]
const QUIETLY: SendFlags = SendFlags::NOSIGNAL;
#[cfg(not(target_os = "linux"))]
const QUIETLY: SendFlags = SendFlags::empty();
/// The most slices that a system takes at once (POSIX's `IOV_MAX`, as Linux has it).
const MOST_SLICES: usize = 1024;

/// A connected stream.
#[derive(Debug)]
pub(crate) enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// A peer that is played.
    #[cfg(any(test, fuzzing))]
    Script(Script),
}

impl Stream {
    /// Ready when there is something to read, or the other end is gone. Reads nothing.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        // An error is met again by the read.
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx).map(drop),
            Self::Unix(stream) => stream.poll_read_ready(cx).map(drop),
            #[cfg(any(test, fuzzing))]
            Self::Script(script) if script.is_quiet() => Poll::Pending,
            #[cfg(any(test, fuzzing))]
            Self::Script(_) => Poll::Ready(()),
        }
    }

    /// Whether nothing came since the last read: neither bytes nor an end. Costs no system call
    /// where the event loop has heard of nothing.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        if self.poll_readable(&mut cx).is_pending() {
            return true;
        }
        let mut byte = [0];
        let read = match self {
            Self::Tcp(stream) => stream.try_read(&mut byte),
            Self::Unix(stream) => stream.try_read(&mut byte),
            #[cfg(any(test, fuzzing))]
            Self::Script(script) => return script.is_quiet(),
        };
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// Sends over TCP. Every answer comes here: `sendmsg` is a shorter way through the kernel than `writev`,
/// and the system's own call shorter than the C library's, which could be cancelled.
fn poll_send(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    length: usize,
    mut send: impl FnMut(&TcpStream) -> rustix::io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(cx))?;
        let mut sent = 0;
        let tried = stream.try_io(Interest::WRITABLE, || {
            sent = send(stream)?;
            // A part: the socket is full, and the next attempt is to wait for its word.
            (sent == length)
                .then_some(())
                .ok_or_else(|| io::ErrorKind::WouldBlock.into())
        });
        match tried {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                return Poll::Ready(Err(error));
            }
            // It is not ready any more then, and says when it is again.
            Err(_) if sent == 0 => {}
            Ok(()) | Err(_) => return Poll::Ready(Ok(sent)),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            #[cfg(any(test, fuzzing))]
            Self::Script(script) => Pin::new(script).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => poll_send(stream, cx, bytes.len(), |socket| {
                send(socket, bytes, QUIETLY)
            }),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            #[cfg(any(test, fuzzing))]
            Self::Script(script) => Pin::new(script).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let slices = slices.get(..MOST_SLICES).unwrap_or(slices);
        match self.get_mut() {
            Self::Tcp(stream) => {
                let length = slices.iter().map(|slice| slice.len()).sum();
                poll_send(stream, cx, length, |socket| {
                    sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), QUIETLY)
                })
            }
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            #[cfg(any(test, fuzzing))]
            Self::Script(script) => Pin::new(script).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Sockets hold nothing back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(any(test, fuzzing))]
            Self::Script(script) => Pin::new(script).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_a_socket_cannot_take_at_once_comes_whole_and_in_order() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap());
        let (near, far) = tokio::join!(near, listener.accept());
        let (mut near, mut far) = (Stream::Tcp(near.unwrap()), far.unwrap().0);
        let content: Vec<u8> = (0_u32..2_000_000).flat_map(u32::to_le_bytes).collect();
        let (head, body) = content.split_at(1000);
        let sending = async {
            let slices = [io::IoSlice::new(head), io::IoSlice::new(body)];
            let first = near.write_vectored(&slices).await.unwrap();
            assert!(first < content.len(), "the socket takes a part");
            near.write_all(&content[first..]).await.unwrap();
            near.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let (_, read) = tokio::join!(sending, far.read_to_end(&mut got));
        read.unwrap();
        assert!(got == content);

        let late = near.write(b"x").await.unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::BrokenPipe, "and no signal");
    }
}
