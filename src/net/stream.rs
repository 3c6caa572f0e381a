//! A plain-text stream to a client or an app, over TCP or a Unix socket, with sendfile where the system supports it.
//! TLS is layered on top elsewhere.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::either::Either;

#[cfg(any(test, fuzzing))]
use crate::script::Script;

/// A closed peer is an error, not a SIGPIPE signal, as in the standard library.
#[cfg(target_os = "linux")]
const QUIETLY: SendFlags = SendFlags::NOSIGNAL;
#[cfg(not(target_os = "linux"))]
const QUIETLY: SendFlags = SendFlags::empty();
#[cfg(target_os = "linux")]
const MORE: SendFlags = SendFlags::MORE;
#[cfg(not(target_os = "linux"))]
const MORE: SendFlags = SendFlags::empty();
/// The most slices that one call accepts (POSIX's `IOV_MAX`, as in Linux).
const MOST_SLICES: usize = 1024;

/// How many bytes are best sent at once. The kernel makes segments of at most 64 KiB, headers included, and leaves cutting
/// them to the card (GSO): 64 KiB and what frames them leave as two, and the small one costs hardly less than the other.
pub(crate) const SEGMENT: usize = 60 * 1024;

/// A connected stream.
#[derive(Debug)]
pub(crate) enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// A scripted peer.
    #[cfg(any(test, fuzzing))]
    Script(Script),
}

impl Stream {
    /// Ready when there is something to read or the peer has closed. Reads nothing.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        // The read will return the error again.
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx).map(drop),
            Self::Unix(stream) => stream.poll_read_ready(cx).map(drop),
            #[cfg(any(test, fuzzing))]
            Self::Script(script) if script.is_quiet() => Poll::Pending,
            #[cfg(any(test, fuzzing))]
            Self::Script(_) => Poll::Ready(()),
        }
    }

    /// Waits for the first byte and leaves it unread; `None` at the end of the stream.
    ///
    /// # Errors
    /// The socket's errors.
    pub(crate) async fn first_byte(&self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        let count = self.peek(&mut byte).await?;
        Ok((count > 0).then_some(byte[0]))
    }

    /// Waits for bytes, copies them and leaves them unread: how many there are, 0 at the end of the stream.
    ///
    /// # Errors
    /// The socket's errors.
    pub(crate) async fn peek(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut peek = |socket: BorrowedFd<'_>| {
            let (_, count) = recv(socket, &mut *bytes, RecvFlags::PEEK)?;
            Ok(count)
        };
        match self {
            Self::Tcp(stream) => {
                let peek = || peek(stream.as_fd());
                stream.async_io(Interest::READABLE, peek).await
            }
            Self::Unix(stream) => {
                let peek = || peek(stream.as_fd());
                stream.async_io(Interest::READABLE, peek).await
            }
            #[cfg(any(test, fuzzing))]
            Self::Script(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// This side's IP address; `None` for a Unix socket.
    pub(crate) fn local_ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok().map(|address| address.ip()),
            Self::Unix(_) => None,
            #[cfg(any(test, fuzzing))]
            Self::Script(_) => None,
        }
    }

    /// Reads and drops this many bytes, which [`peek`](Self::peek) has found to be there.
    ///
    /// # Errors
    /// The socket's errors; `UnexpectedEof` where there are fewer.
    pub(crate) fn skip(&self, mut count: usize) -> io::Result<()> {
        let mut bytes = [0; 256];
        while count > 0 {
            let most = count.min(bytes.len());
            let into = bytes.get_mut(..most).unwrap_or_default();
            let (_, read) = match self {
                Self::Tcp(stream) => recv(stream, into, RecvFlags::DONTWAIT)?,
                Self::Unix(stream) => recv(stream, into, RecvFlags::DONTWAIT)?,
                #[cfg(any(test, fuzzing))]
                Self::Script(_) => return Err(io::ErrorKind::Unsupported.into()),
            };
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            count -= read;
        }
        Ok(())
    }

    /// The number of its file descriptor.
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        match self {
            Self::Tcp(stream) => Some(stream.as_raw_fd()),
            Self::Unix(stream) => Some(stream.as_raw_fd()),
            #[cfg(any(test, fuzzing))]
            Self::Script(_) => None,
        }
    }

    /// Whether nothing arrived since the last read: neither bytes nor an end. Makes no system call unless the event
    /// loop reported an event.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut byte = [0];
        // `try_read` makes no system call before there is an event, and needs no waker.
        let read = match self {
            Self::Tcp(stream) => stream.try_read(&mut byte),
            Self::Unix(stream) => stream.try_read(&mut byte),
            #[cfg(any(test, fuzzing))]
            Self::Script(script) => return script.is_quiet(),
        };
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether the kernel has neither bytes nor an end to read now. Peeks only.
    pub(crate) fn is_silent(&self) -> bool {
        let mut byte = [0];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let peeked = match self {
            Self::Tcp(stream) => recv(stream, &mut byte, flags),
            Self::Unix(stream) => recv(stream, &mut byte, flags),
            #[cfg(any(test, fuzzing))]
            Self::Script(script) => return script.is_quiet(),
        };
        peeked.is_err_and(|error| error == Errno::WOULDBLOCK)
    }

    /// Whether the kernel has bytes to read now. Peeks only.
    pub(crate) fn has_bytes(&self) -> bool {
        let mut byte = [0];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let peeked = match self {
            Self::Tcp(stream) => recv(stream, &mut byte, flags),
            Self::Unix(stream) => recv(stream, &mut byte, flags),
            #[cfg(any(test, fuzzing))]
            Self::Script(_) => return false,
        };
        peeked.is_ok_and(|(_, count)| count > 0)
    }
}

/// Sends over TCP. Every response comes through here: `sendmsg` is a shorter path through the kernel than `writev`, and
/// the direct system call is shorter than the C library's, which is a cancellation point.
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
            // A partial send: the socket is full, so the next attempt must wait for its event.
            (sent == length)
                .then_some(())
                .ok_or_else(|| io::ErrorKind::WouldBlock.into())
        });
        match tried {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                return Poll::Ready(Err(error));
            }
            // The socket is then not ready, and the next poll registers for its event.
            Err(_) if sent == 0 => {}
            Ok(()) | Err(_) => return Poll::Ready(Ok(sent)),
        }
    }
}

/// Sends bytes of a file with sendfile. Gives 0 where a regular file is shorter than expected.
#[cfg(target_os = "linux")]
fn poll_send_file(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    file: &File,
    offset: u64,
    count: usize,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(cx))?;
        let mut from = offset;
        let sent = stream.try_io(Interest::WRITABLE, || {
            Ok(rustix::fs::sendfile(stream, file, Some(&mut from), count)?)
        });
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            sent => return Poll::Ready(sent),
        }
    }
}

/// A stream that may support sendfile.
pub(crate) trait Carrier: AsyncWrite + Unpin {
    /// Whether it does.
    fn carries(&self) -> bool {
        false
    }

    /// Writes bytes that more will follow immediately.
    fn poll_write_more(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self).poll_write(cx, bytes)
    }

    /// Sends bytes of a file; 0 where the file has none at this offset.
    fn poll_send_file(
        &mut self,
        _: &mut Context<'_>,
        _: &File,
        _: u64,
        _: usize,
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

impl Carrier for Stream {
    fn carries(&self) -> bool {
        cfg!(target_os = "linux") && matches!(self, Self::Tcp(_))
    }

    fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        file: &File,
        offset: u64,
        count: usize,
    ) -> Poll<io::Result<usize>> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Tcp(stream) => poll_send_file(stream, cx, file, offset, count),
            #[cfg(not(target_os = "linux"))]
            Self::Tcp(_) => {
                let _ = (cx, file, offset, count);
                Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
            }
            Self::Unix(_) => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
            #[cfg(any(test, fuzzing))]
            Self::Script(_) => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        }
    }

    fn poll_write_more(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => poll_send(stream, cx, bytes.len(), |socket| {
                send(socket, bytes, QUIETLY | MORE)
            }),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            #[cfg(any(test, fuzzing))]
            Self::Script(script) => Pin::new(script).poll_write(cx, bytes),
        }
    }
}

/// Only plain-text streams support sendfile.
impl<T: AsyncRead + AsyncWrite + Unpin> Carrier for Either<Stream, T> {
    fn carries(&self) -> bool {
        matches!(self, Self::Left(stream) if stream.carries())
    }

    fn poll_write_more(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Left(stream) => stream.poll_write_more(cx, bytes),
            Self::Right(other) => Pin::new(other).poll_write(cx, bytes),
        }
    }

    fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        file: &File,
        offset: u64,
        count: usize,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Left(stream) => stream.poll_send_file(cx, file, offset, count),
            Self::Right(_) => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        }
    }
}

#[cfg(test)]
impl Carrier for tokio::io::DuplexStream {}
#[cfg(any(test, fuzzing))]
impl Carrier for Script {}

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
        // Sockets have no user-space buffer.
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

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_file_is_carried_behind_its_head_as_far_as_it_goes() {
        use std::future::poll_fn;
        use std::os::unix::fs::FileExt;

        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap());
        let (near, far) = tokio::join!(near, listener.accept());
        let (mut near, mut far) = (Stream::Tcp(near.unwrap()), far.unwrap().0);
        let content: Vec<u8> = (0_u32..2_000_000).flat_map(u32::to_le_bytes).collect();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&content, 0).unwrap();
        assert!(near.carries());
        let sending = async {
            let head = poll_fn(|cx| near.poll_write_more(cx, b"head")).await;
            assert_eq!(head.unwrap(), 4);
            let mut at = 7;
            loop {
                let sent = poll_fn(|cx| near.poll_send_file(cx, &file, at, 1 << 20)).await;
                let sent = sent.unwrap();
                assert!(sent <= 1 << 20);
                at += sent as u64;
                if sent == 0 {
                    break;
                }
            }
            near.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let (_, read) = tokio::join!(sending, far.read_to_end(&mut got));
        read.unwrap();
        assert!(got == [b"head", &content[7..]].concat());
    }
}
