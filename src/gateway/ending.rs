//! Ends a tunnel or a streaming response with the token that opened it (`on_expiry: close`): at its expiry, and within
//! 5 s after it is revoked, its session ends or its user is removed. What is checked is decided in `auth`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, Sleep, sleep_until};

use super::Connection;
use crate::auth::{Ended, Lease};

/// Later dates count as never.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A token that is checked for as long as the stream it opened runs.
#[derive(Debug)]
pub(super) struct Ending {
    lease: Lease,
    /// Its worker has the current configuration.
    connection: Arc<Connection>,
    expires: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl Ending {
    /// Watches a token from now on; its request began at this moment of both clocks.
    pub(super) fn new(
        lease: Lease,
        connection: &Arc<Connection>,
        (began, time): (Instant, SystemTime),
    ) -> Self {
        let expires = lease.expires().map(|expires| {
            let left = expires.duration_since(time).unwrap_or_default();
            began + left.min(FAR)
        });
        let timer = Box::pin(sleep_until(next(Instant::now(), expires)));
        Self {
            lease,
            connection: Arc::clone(connection),
            expires,
            timer,
        }
    }

    /// Ready with the reason once the token has ended.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            if self.expires.is_some_and(|expires| expires <= now) {
                return Poll::Ready(Ended::Expired);
            }
            let view = self.connection.worker.view();
            let in_force = view.verifiers.iter().map(|(_, verifier)| verifier);
            if let Some(ended) = self.lease.why_ended(in_force) {
                return Poll::Ready(ended);
            }
            self.timer.as_mut().reset(next(now, self.expires));
        }
    }

    /// Waits until the token has ended; for ever where there is none.
    pub(super) async fn wait(mut ending: Option<Box<Self>>) -> Ended {
        std::future::poll_fn(|cx| match &mut ending {
            Some(ending) => ending.poll(cx),
            None => Poll::Pending,
        })
        .await
    }
}

/// When to check again.
fn next(now: Instant, expires: Option<Instant>) -> Instant {
    let look = now + Lease::LOOKS;
    expires.map_or(look, |expires| expires.min(look))
}
