//! The word that a listener's connections should end when their requests do.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use tokio::sync::watch;

/// Says the word; said by being dropped, too.
#[derive(Debug)]
pub(crate) struct DrainTrigger(watch::Sender<()>);

/// Waits for the word.
#[derive(Clone, Debug)]
pub(crate) struct Drain(watch::Receiver<()>);

/// A trigger and what waits for it.
pub(crate) fn drain() -> (DrainTrigger, Drain) {
    let (sender, receiver) = watch::channel(());
    (DrainTrigger(sender), Drain(receiver))
}

impl DrainTrigger {
    /// Tells all who wait.
    pub(crate) fn pull(self) {
        self.0.send_replace(());
    }
}

impl Drain {
    /// Ready when draining has begun.
    pub(crate) async fn begun(&mut self) {
        // An error means that the trigger is gone, which says the same.
        drop(self.0.changed().await);
    }

    /// Works until the word comes: the work's output, or `None` where the word came first.
    ///
    /// The word is waited for once and then only looked for with one atomic load, as the work is
    /// woken for each request.
    pub(crate) async fn unless_begun<F: Future>(
        &mut self,
        mut work: Pin<&mut F>,
    ) -> Option<F::Output> {
        let said = self.0.clone();
        let mut begun = pin!(self.begun());
        let mut waits = false;
        poll_fn(|cx| {
            if let Poll::Ready(output) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            // The task's waker stays the same, and is woken by the word from the first poll on.
            if !waits || said.has_changed().unwrap_or(true) {
                waits = true;
                return begun.as_mut().poll(cx).map(|()| None);
            }
            Poll::Pending
        })
        .await
    }
}
