//! The word that a listener's connections should end when their requests do.

use tokio::sync::watch;

/// Says the word; said by being dropped, too.
#[derive(Debug)]
pub(crate) struct DrainTrigger(watch::Sender<bool>);

/// Waits for the word.
#[derive(Clone, Debug)]
pub(crate) struct Drain(watch::Receiver<bool>);

/// A trigger and what waits for it.
pub(crate) fn drain() -> (DrainTrigger, Drain) {
    let (sender, receiver) = watch::channel(false);
    (DrainTrigger(sender), Drain(receiver))
}

impl DrainTrigger {
    /// Tells all who wait.
    pub(crate) fn pull(self) {
        self.0.send_replace(true);
    }
}

impl Drain {
    /// Ready when draining has begun.
    pub(crate) async fn begun(&mut self) {
        // An error means that the trigger is gone, which says the same.
        drop(self.0.wait_for(|begun| *begun).await.map(drop));
    }
}
