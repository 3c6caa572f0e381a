//! The bytes of an HTTP/2 connection between the socket and `h2`. Frames written in one turn of the event loop are sent
//! together, and a client that reads none of them is cut off. The connection's task is notified of events that `h2`
//! does not report: requests that `h2` rejects by itself, and input that stays away, or stays incomplete, for too long.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::coming::Coming;
use super::passing::{FrameHead, Passing, kind};
use super::shared::{Fate, Shared, Word};
use crate::wire::gathered::Gathered;
use crate::wire::{DROPPED, QUIET, poll_until};

/// How long a client that was told to leave may take to close the connection after its last request.
const PARTING: Duration = Duration::from_secs(2);

/// The frames of one connection.
#[derive(Debug)]
pub(in crate::wire) struct Frames<S> {
    stream: S,
    shared: Arc<Shared>,
    /// What `h2` was not given yet: what was read before it was clear that the connection is HTTP/2, and incomplete
    /// field blocks.
    held: BytesMut,
    /// How many bytes of it `h2` may be given.
    ready: usize,
    timer: Option<Pin<Box<Sleep>>>,
    send_timer: Option<Pin<Box<Sleep>>>,
    lingering: Option<(Pin<Box<Sleep>>, u64)>,
    end_of_input: bool,
    /// Frames that wait to be written with others.
    gathered: Gathered,
    /// How many requests had been answered when such frames were last written.
    told: u32,
    coming: Coming,
    going: Passing,
    /// When the client was told to leave.
    left_at: Option<Instant>,
    watch: Watch,
}

/// Whether a client whose requests are in progress still sends anything.
#[derive(Debug, Default)]
struct Watch {
    /// When the watch began, and whether anything was received since.
    since: Option<Instant>,
    heard: bool,
    asked: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    /// A connection from which `held` was read already.
    pub(in crate::wire) fn new(stream: S, mut held: BytesMut, shared: Arc<Shared>) -> Self {
        let mut coming = Coming::default();
        let ready = match held.len() {
            // The client is idle until it sends something.
            0 => 0,
            _ => coming.follow(&mut held, 0, &shared),
        };
        Self {
            stream,
            shared,
            held,
            ready,
            timer: None,
            send_timer: None,
            lingering: None,
            end_of_input: false,
            gathered: Gathered::default(),
            told: 0,
            coming,
            going: Passing::behind(0),
            left_at: None,
            watch: Watch::default(),
        }
    }

    /// Parses what was read; returns how much of it `h2` may be given at once. The rest is held back.
    fn take(&mut self, read: &mut [u8]) -> usize {
        if read.is_empty() {
            self.end_of_input = true;
            self.ready = self.held.len();
            return 0;
        }
        if self.held.is_empty() {
            let passed = self.coming.follow(read, 0, &self.shared);
            self.held
                .extend_from_slice(read.get(passed..).unwrap_or_default());
            return passed;
        }
        let held = self.held.len();
        self.held.extend_from_slice(read);
        self.ready = self.coming.follow(&mut self.held, held, &self.shared);
        0
    }

    /// Gives `h2` what it may be given.
    fn give_ready(&mut self, buf: &mut ReadBuf<'_>) {
        let count = self.ready.min(buf.remaining());
        buf.put_slice(self.held.get(..count).unwrap_or_default());
        self.held.advance(count);
        self.ready -= count;
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
    }

    /// Notifies the connection's task when the client has been silent for too long.
    fn look_at_the_clock(&mut self, cx: &mut Context<'_>) {
        loop {
            let (deadline, word) = self.deadline();
            // The task's waker stays the same, and is registered from the first poll on.
            let waits =
                |timer: &Pin<Box<Sleep>>| !timer.is_elapsed() && timer.deadline() <= deadline;
            if self.timer.as_ref().is_some_and(waits)
                || poll_until(&mut self.timer, cx, deadline).is_pending()
            {
                return;
            }
            self.timer = None;
            match word {
                Word::Leave => self.left_at = Some(Instant::now()),
                Word::Ask if self.watch.heard => {
                    self.watch = Watch::default();
                    continue;
                }
                Word::Ask => {
                    self.watch.asked = true;
                    self.watch.since = Some(Instant::now());
                }
                Word::GoOn | Word::Left | Word::Late | Word::Gone | Word::Calm => {}
            }
            return self.shared.say(word);
        }
    }

    /// When the client's current silence has lasted too long, and what is to be done then.
    fn deadline(&mut self) -> (Instant, Word) {
        let timeouts = &self.shared.bounds.timeouts;
        let line = &self.shared.line;
        if let Some(since) = self.coming.half_since() {
            return (since + timeouts.header_read, Word::Late);
        }
        if line.is_idle() {
            if self.shared.is_leaving() {
                let left_at = *self.left_at.get_or_insert_with(Instant::now);
                return (left_at.max(line.idle_since()) + PARTING, Word::Left);
            }
            return (line.idle_since() + timeouts.keep_alive, Word::Leave);
        }
        let since = *self.watch.since.get_or_insert_with(Instant::now);
        if self.watch.asked && !self.watch.heard {
            return (since + timeouts.header_read, Word::Gone);
        }
        (since + timeouts.keep_alive, Word::Ask)
    }

    /// Watches a pending write: a client that reads nothing for `send` is cut off.
    fn watch_send<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.send_timer = None;
            return written;
        }
        let send = self.shared.bounds.timeouts.send;
        let timer = self.send_timer.get_or_insert_with(|| Box::pin(sleep(send)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Writes and flushes the gathered frames.
    fn poll_gathered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = Pin::new(&mut self.stream);
        let written = self
            .gathered
            .poll_write_to(stream, cx, self.shared.line.is_idle());
        ready!(self.watch_send(cx, written))?;
        self.told = self.shared.line.answered();
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch_send(cx, flushed)
    }

    /// Parses the output, as much of it as was accepted.
    fn follow_going(&mut self, slices: &[io::IoSlice<'_>], mut taken: usize) {
        for slice in slices {
            let bytes = slice.get(..taken.min(slice.len())).unwrap_or_default();
            taken -= bytes.len();
            let shared = &self.shared;
            self.going
                .follow(bytes, |FrameHead { kind, stream, .. }| match kind {
                    kind::RST_STREAM => shared.answered(stream, Fate::Reset),
                    kind::HEADERS => shared.answered(stream, Fate::TooLarge),
                    _ => {}
                });
        }
    }

    /// Whether exactly one response waits to be written, and no other is in progress.
    fn is_last_answer(&self) -> bool {
        self.shared.line.is_idle() && self.shared.line.answered().wrapping_sub(self.told) <= 1
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Frames<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.gathered.is_empty()
            && let Poll::Ready(Err(error)) = this.poll_gathered(cx)
        {
            return Poll::Ready(Err(error));
        }
        let before = buf.filled().len();
        loop {
            if this.ready > 0 {
                this.give_ready(buf);
                return Poll::Ready(Ok(()));
            }
            if this.end_of_input {
                return Poll::Ready(Ok(()));
            }
            match Pin::new(&mut this.stream).poll_read(cx, buf) {
                Poll::Ready(read) => read?,
                Poll::Pending => {
                    this.look_at_the_clock(cx);
                    return Poll::Pending;
                }
            }
            this.watch.heard = true;
            let passed = this.take(buf.filled_mut().get_mut(before..).unwrap_or_default());
            buf.set_filled(before + passed);
            if passed > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Frames<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(taken) = this.gathered.take(slices) {
            this.follow_going(slices, taken);
            return Poll::Ready(Ok(taken));
        }
        ready!(this.poll_gathered(cx))?;
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        if let Poll::Ready(Ok(taken)) = written {
            this.follow_going(slices, taken);
        }
        this.watch_send(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.gathered.is_empty() {
            if !this.is_last_answer() && !this.gathered.is_stuck() {
                // Other streams may have their responses ready in this turn of the event loop, and h2 may have more of
                // them: the task reaches `poll_read` once more, after them.
                cx.waker().wake_by_ref();
                return Poll::Ready(Ok(()));
            }
            return this.poll_gathered(cx);
        }
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        this.watch_send(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingering.is_none() {
            if !this.gathered.is_empty() {
                ready!(this.poll_gathered(cx))?;
            }
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if this.end_of_input {
                return Poll::Ready(Ok(()));
            }
        }
        let (timer, taken) = this
            .lingering
            .get_or_insert_with(|| (Box::pin(sleep(QUIET)), 0));
        let mut room = [0; 4096];
        while *taken < DROPPED && timer.as_mut().poll(cx).is_pending() {
            let mut buf = ReadBuf::new(&mut room);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => *taken += buf.filled().len() as u64,
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};
    use tokio::time::timeout;

    use super::*;
    use crate::wire::Line;
    use crate::wire::properties::{TIMEOUTS, bounds};

    #[tokio::test(start_paused = true)]
    async fn who_sends_nothing_is_idle_and_who_sends_half_is_late() {
        for (held, deadline, word) in [
            ("", TIMEOUTS.keep_alive, Word::Leave),
            ("PRI", TIMEOUTS.header_read, Word::Late),
        ] {
            let (_client, server) = duplex(64);
            let shared = Arc::new(Shared::new(Arc::new(Line::new()), bounds()));
            let mut frames = Frames::new(server, BytesMut::from(held), Arc::clone(&shared));
            let mut room = [0; 64];
            if !held.is_empty() {
                assert_eq!(frames.read(&mut room).await.unwrap(), held.len());
            }
            let second = Duration::from_secs(1);
            let early = timeout(deadline - second, frames.read(&mut room)).await;
            assert!(early.is_err());
            assert_eq!(shared.heard(), Word::GoOn, "{held}");
            let late = timeout(2 * second, frames.read(&mut room)).await;
            assert!(late.is_err());
            assert_eq!(shared.heard(), word, "{held}");
        }
    }
}
