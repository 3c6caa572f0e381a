//! Signals a listener's connections to end with their requests, and when streams must end that would never do so by
//! themselves.

use std::future::{pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Sends the signal, also by being dropped.
#[derive(Debug)]
pub(crate) struct DrainTrigger(watch::Sender<Word>);

/// Waits for the signal.
#[derive(Clone, Debug)]
pub(crate) struct Drain(watch::Receiver<Word>);

#[derive(Clone, Copy, Debug)]
enum Word {
    /// Nothing ends yet.
    Serve,
    /// The listener is closed: connections end with their requests.
    Close,
    /// The listener demands something else of its clients: the same, and no new request begins.
    Renounce,
    /// The process ends, and streams end at this time.
    End(Instant),
}

/// The signal for connections that are accepted from now on. They get another one than those before where these alone
/// have to end.
#[derive(Clone, Debug)]
pub(crate) struct Arrivals(Arc<Mutex<Drain>>);

impl Arrivals {
    /// Connections that end with this signal.
    pub(crate) fn new(drain: Drain) -> Self {
        Self(Arc::new(Mutex::new(drain)))
    }

    /// The signal for a connection that arrives now.
    pub(crate) fn drain(&self) -> Drain {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Connections that arrive from now on end with this signal.
    pub(crate) fn replace(&self, drain: Drain) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = drain;
    }
}

/// A trigger and its receiver.
pub(crate) fn drain() -> (DrainTrigger, Drain) {
    let (sender, receiver) = watch::channel(Word::Serve);
    (DrainTrigger(sender), Drain(receiver))
}

impl DrainTrigger {
    /// Signals that the listener is closed.
    pub(crate) fn pull(&self) {
        self.0.send_replace(Word::Close);
    }

    /// Signals that the listener demands something else of its clients.
    pub(crate) fn renounce(&self) {
        self.0.send_replace(Word::Renounce);
    }

    /// Signals that the process ends, and when streams do.
    pub(crate) fn end(&self, streams_until: Instant) {
        self.0.send_replace(Word::End(streams_until));
    }

    /// Whether any receiver is left.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.0.receiver_count() > 0
    }
}

impl Drain {
    /// Ready when draining has begun.
    pub(crate) async fn begun(&mut self) {
        let begun = |word: &Word| !matches!(word, Word::Serve);
        // An error means that the trigger is gone, which means the same.
        drop(self.0.wait_for(begun).await);
    }

    /// Whether only the listener is closed, and the process continues.
    pub(crate) fn is_of_listener_alone(&self) -> bool {
        matches!(*self.0.borrow(), Word::Close)
    }

    /// Whether the listener demands something else of its clients since the connection was accepted.
    pub(crate) fn is_renounced(&self) -> bool {
        matches!(*self.0.borrow(), Word::Renounce)
    }

    /// Ready when streams are to end with the process.
    pub(crate) async fn streams_end(&mut self) {
        let ends = |word: &Word| matches!(word, Word::End(_));
        let word = self.0.wait_for(ends).await.map(|word| *word);
        match word {
            Ok(Word::End(until)) => sleep_until(until).await,
            // The trigger is gone without a signal to end: there is nothing to wait for.
            Ok(Word::Serve | Word::Close | Word::Renounce) | Err(_) => pending().await,
        }
    }

    /// Runs `work` until draining begins: returns its output, or `None` if draining began first.
    ///
    /// The signal is awaited once and then only checked with one atomic load, because the work is woken for each
    /// request.
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
            // The task's waker stays the same, and is registered for the signal from the first poll on.
            if !waits || said.has_changed().unwrap_or(true) {
                waits = true;
                return begun.as_mut().poll(cx).map(|()| None);
            }
            Poll::Pending
        })
        .await
    }
}
