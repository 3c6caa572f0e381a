//! The state of one worker thread: its view of the configuration, its cache of verified tokens, its request ids. Cores
//! share only the immutable snapshot behind the view.

use std::future::poll_fn;
use std::ops::Deref;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::SystemTime;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::auth::Remembered;
use crate::clock::Look;
use crate::compress::Encoders;
use crate::message::request_id::{RequestId, RequestIds};
use crate::observe::counts::{Counts, WorkerLane};
use crate::snapshot::Snapshot;

/// One worker's reference to a snapshot. Requests count their references here, in memory that only this worker touches,
/// and not at the snapshot itself.
#[derive(Debug)]
pub(crate) struct View(Arc<Snapshot>);

impl Deref for View {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

/// The state that changes during a worker's life.
#[derive(Debug)]
struct Current {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    view: Arc<View>,
    look: Look,
}

impl Current {
    /// One atomic load detects a new configuration.
    fn view(&mut self) -> Arc<View> {
        if self.snapshots.has_changed().unwrap_or(false) {
            self.view = Arc::new(View(Arc::clone(&self.snapshots.borrow_and_update())));
        }
        Arc::clone(&self.view)
    }
}

/// The state of one worker thread.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Its index among the workers.
    pub(crate) index: usize,
    /// The cache of verified tokens.
    pub(crate) remembered: Remembered,
    /// What compresses responses.
    pub(crate) encoders: Arc<Encoders>,
    /// Notified when idle client connections are to be closed.
    pub(crate) relief: Notify,
    /// How often they were.
    reliefs: AtomicU32,
    /// All numbers.
    counts: Arc<Counts>,
    current: Mutex<Current>,
    ids: RequestIds,
}

impl Worker {
    /// A worker that follows the published snapshots; `token_bytes` limits its token cache.
    pub(crate) fn new(
        index: usize,
        mut snapshots: watch::Receiver<Arc<Snapshot>>,
        token_bytes: usize,
    ) -> Self {
        let view = Arc::new(View(Arc::clone(&snapshots.borrow_and_update())));
        let counts = Arc::clone(&view.counts);
        Self {
            index,
            remembered: Remembered::new(token_bytes).of_worker(index),
            encoders: Arc::default(),
            relief: Notify::new(),
            reliefs: AtomicU32::new(0),
            counts,
            current: Mutex::new(Current {
                snapshots,
                view,
                look: Look::new(),
            }),
            ids: RequestIds::new(),
        }
    }

    /// What this worker counts that belongs to no route.
    pub(crate) fn lane(&self) -> Option<&WorkerLane> {
        self.counts.of_workers.of(self.index)
    }

    /// The configuration in force.
    pub(crate) fn view(&self) -> Arc<View> {
        self.current().view()
    }

    /// The configuration for a request that starts at `at`, and the wall clock time, which is read once a second.
    pub(crate) fn begin(&self, at: Instant) -> (Arc<View>, SystemTime) {
        let mut current = self.current();
        (current.view(), current.look.time(at))
    }

    /// Closes idle client and upstream connections because descriptors are scarce.
    pub(crate) fn relieve(&self) {
        for upstream in &self.view().upstreams {
            upstream.close_idle(self.index);
        }
        self.reliefs.fetch_add(1, Ordering::Relaxed);
        self.relief.notify_waiters();
    }

    /// Polls `work` until descriptors are scarce: its output, or `None` where that happened first.
    ///
    /// The notification is registered once and then only checked with one atomic load, as the work is woken for each
    /// request.
    pub(crate) async fn unless_scarce<F: Future>(
        &self,
        mut work: Pin<&mut F>,
    ) -> Option<F::Output> {
        let mut relief = pin!(self.relief.notified());
        let mut heard = None;
        poll_fn(|cx| {
            if let Poll::Ready(output) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            // The task's waker stays the same, so the first poll's registration still wakes it.
            let said = self.reliefs.load(Ordering::Relaxed);
            if heard.replace(said) == Some(said) {
                return Poll::Pending;
            }
            relief.as_mut().poll(cx).map(|()| None)
        })
        .await
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An id for a request.
    pub(crate) fn next_id(&self) -> RequestId {
        self.ids.next()
    }
}
