//! When a tunnel, or a response that still runs, ends with the token that opened it (`on_expiry: close`): at its
//! expiry, and within 5 s where it is revoked, its session ends or its user goes. What is looked at is decided in
//! `auth`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, Sleep, sleep_until};

use super::Connection;
use crate::auth::{Ended, Lease};

/// A date that is further away is never reached.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A token that is looked at for as long as something runs that it opened.
#[derive(Debug)]
pub(super) struct Ending {
    lease: Lease,
    /// Whose worker knows the configuration that is in force.
    connection: Arc<Connection>,
    expires: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl Ending {
    /// Looks at a token from now on, of a request that began at this moment of both clocks.
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

    /// Ready with the reason once it has ended.
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

    /// Waits until it has ended; for ever where there is nothing to look at.
    pub(super) async fn wait(mut ending: Option<Box<Self>>) -> Ended {
        std::future::poll_fn(|cx| match &mut ending {
            Some(ending) => ending.poll(cx),
            None => Poll::Pending,
        })
        .await
    }
}

/// When to look again.
fn next(now: Instant, expires: Option<Instant>) -> Instant {
    let look = now + Lease::LOOKS;
    expires.map_or(look, |expires| expires.min(look))
}
