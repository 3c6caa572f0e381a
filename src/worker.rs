//! What one worker thread owns: its view of the configuration, its remembered tokens, its ids.
//! Nothing here is shared between cores but the immutable snapshot behind the view.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::auth::Remembered;
use crate::request_id::RequestId;
use crate::snapshot::Snapshot;

/// One worker's hold on a snapshot. Requests count their references here, in memory that only
/// this worker touches, and not at the snapshot itself.
#[derive(Debug)]
pub(crate) struct View(Arc<Snapshot>);

impl Deref for View {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

/// The state of one worker thread.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Its place among the workers.
    pub(crate) index: usize,
    /// The tokens that it has verified.
    pub(crate) remembered: Remembered,
    current: Mutex<(watch::Receiver<Arc<Snapshot>>, Arc<View>)>,
    next_id: AtomicU64,
}

impl Worker {
    /// A worker that follows the published snapshots; `token_bytes` bounds what it remembers.
    pub(crate) fn new(
        index: usize,
        mut snapshots: watch::Receiver<Arc<Snapshot>>,
        token_bytes: usize,
    ) -> Self {
        let view = Arc::new(View(Arc::clone(&snapshots.borrow_and_update())));
        let mut seed = [0; 8];
        // Ids need not be secret, only unlike those of other workers and runs.
        let random = getrandom::fill(&mut seed).is_ok();
        let seed = if random {
            u64::from_ne_bytes(seed)
        } else {
            index as u64
        };
        Self {
            index,
            remembered: Remembered::new(token_bytes),
            current: Mutex::new((snapshots, view)),
            next_id: AtomicU64::new(seed),
        }
    }

    /// The configuration of a request that begins now: one atomic load tells whether it changed.
    pub(crate) fn view(&self) -> Arc<View> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let (snapshots, view) = &mut *current;
        if snapshots.has_changed().unwrap_or(false) {
            *view = Arc::new(View(Arc::clone(&snapshots.borrow_and_update())));
        }
        Arc::clone(view)
    }

    /// An id for a request.
    pub(crate) fn next_id(&self) -> RequestId {
        // One thread alone comes here: nothing is lost between the two.
        let id = self.next_id.load(Ordering::Relaxed);
        self.next_id
            .store(id.wrapping_add(0x9e37_79b9_7f4a_7c15), Ordering::Relaxed);
        RequestId(id)
    }
}
