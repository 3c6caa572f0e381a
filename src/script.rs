//! A scripted peer that sends given bytes in given pieces, for tests and `fuzz/`: the same bytes must mean the same
//! however they are split. Nothing here waits for a clock, and none of it is compiled into the program.

#![allow(clippy::panic, reason = "what goes on for ever stops the test")]

use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The stream whose other end is scripted.
#[derive(Debug)]
pub(crate) struct Script {
    pieces: VecDeque<Vec<u8>>,
    /// Whether the reader has already waited for the next piece.
    paused: bool,
    /// Whether the peer closes after its last piece; otherwise it is silent.
    closes: bool,
    /// Whether the peer accepts no written data.
    deaf: bool,
}

impl Script {
    /// A peer that sends these pieces, each of which has to be waited for.
    pub(crate) fn new(pieces: impl IntoIterator<Item = Vec<u8>>, closes: bool) -> Self {
        Self {
            pieces: pieces
                .into_iter()
                .filter(|piece| !piece.is_empty())
                .collect(),
            paused: false,
            closes,
            deaf: false,
        }
    }

    /// The same peer, but it accepts no data.
    pub(crate) fn deaf(self) -> Self {
        Self { deaf: true, ..self }
    }

    /// Whether it sends nothing more, not even a close.
    pub(crate) fn is_quiet(&self) -> bool {
        self.pieces.is_empty() && !self.closes
    }

    /// The bytes that were not sent yet.
    pub(crate) fn rest(self) -> Vec<u8> {
        self.pieces.into_iter().flatten().collect()
    }
}

impl AsyncRead for Script {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.paused && (this.closes || !this.pieces.is_empty()) {
            this.paused = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Some(piece) = this.pieces.front_mut() else {
            return if this.closes {
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            };
        };
        let later = piece.split_off(piece.len().min(buf.remaining()));
        buf.put_slice(piece);
        if later.is_empty() {
            this.pieces.pop_front();
            this.paused = false;
        } else {
            *piece = later;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.deaf {
            Poll::Pending
        } else {
            Poll::Ready(Ok(bytes.len()))
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The bytes split into pieces at places derived from the seed; byte by byte for every fourth seed.
pub(crate) fn cut(bytes: &[u8], seed: u8) -> Vec<Vec<u8>> {
    let mut random = u32::from(seed);
    let longest = [1, 4, 32, 256]
        .get(usize::from(seed % 4))
        .copied()
        .unwrap_or(1);
    let mut pieces = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        // The multiplier of Numerical Recipes; its upper bits are more random.
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = 1 + (random >> 16) as usize % longest;
        let (piece, later) = rest.split_at(length.min(rest.len()));
        pieces.push(piece.to_vec());
        rest = later;
    }
    pieces
}

/// Runs a future until it completes, or waits for something that never comes (`None`). Each step needs a reason, so
/// this also fails where there are too many steps for this many bytes.
pub(crate) fn drive<F: Future>(bytes: usize, future: F) -> Option<F::Output> {
    thread_local! {
        /// Timers can be created in it; it never runs, so they never fire.
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap_or_else(|error| panic!("{error}"));
    }
    RUNTIME.with(|runtime| {
        let _entered = runtime.enter();
        let mut future = pin!(future);
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        for _ in 0..=STEPS.saturating_mul(bytes.saturating_add(100)) {
            if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                return Some(output);
            }
            if !woken.0.swap(false, Ordering::Relaxed) {
                return None;
            }
        }
        panic!("it goes on and on")
    })
}

/// How many steps a byte may take.
const STEPS: usize = 8;

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}
