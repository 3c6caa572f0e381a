//! A limit on how long a peer may be silent in the middle of a body.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// A limit on the time between two pieces; its timer is created at the first wait.
#[derive(Debug)]
pub(super) struct Silence {
    allowed: Option<Duration>,
    timer: Option<(Pin<Box<Sleep>>, bool)>,
}

impl Silence {
    /// At most `allowed` between two pieces; `None` means no limit.
    pub(super) fn new(allowed: Option<Duration>) -> Self {
        Self {
            allowed,
            timer: None,
        }
    }

    /// Ready when the silence has lasted too long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(allowed) = self.allowed else {
            return Poll::Pending;
        };
        let (timer, running) = self
            .timer
            .get_or_insert_with(|| (Box::pin(sleep(allowed)), true));
        if !*running {
            timer.as_mut().reset(Instant::now() + allowed);
            *running = true;
        }
        timer.as_mut().poll(cx)
    }

    /// A piece has arrived.
    pub(super) fn end(&mut self) {
        if let Some((_, running)) = &mut self.timer {
            *running = false;
        }
    }
}
