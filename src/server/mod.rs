//! The worker threads: each has its own runtime, its own accept queues and its own pools.
//! What they serve is decided in `gateway`; what they listen on is told to them.

mod connection;
mod drain;
mod listener;
mod tally;

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use self::drain::DrainTrigger;
pub(crate) use self::listener::Socket;
use self::tally::Tally;
use crate::snapshot::{ListenAddress, Snapshot};
use crate::worker::Worker;

/// Bytes of verified tokens that all workers remember together.
const REMEMBERED_TOKENS: usize = 64 << 20;

/// The least time between two times that a worker closes its idle connections for want of descriptors.
const RELIEF: Duration = Duration::from_millis(50);

/// The running workers.
#[derive(Debug)]
pub(crate) struct Server {
    workers: Vec<Handle>,
    tally: Arc<Tally>,
    /// The listeners that are open, with the addresses that they are bound to.
    listening: HashMap<ListenAddress, ListenAddress>,
}

#[derive(Debug)]
struct Handle {
    orders: mpsc::UnboundedSender<Order>,
    thread: Option<JoinHandle<()>>,
}

/// What a worker is told.
#[derive(Debug)]
enum Order {
    /// Accept connections of this listener from this socket.
    Listen(ListenAddress, Socket),
    /// Stop accepting; its connections end when their requests do.
    Close(ListenAddress),
    /// Stop accepting anything; every connection ends when its requests do.
    Drain,
    /// End now.
    Stop,
}

/// Sockets for the listeners of a snapshot that are not open yet: one of each for each worker.
#[derive(Debug)]
pub(crate) struct Bound {
    address: ListenAddress,
    local: ListenAddress,
    sockets: Vec<Socket>,
}

impl Server {
    /// Starts the workers; they accept nothing yet.
    ///
    /// # Errors
    /// A thread or a runtime cannot be started.
    pub(crate) fn start(snapshots: &watch::Receiver<Arc<Snapshot>>) -> std::io::Result<Self> {
        let count = snapshots.borrow().workers;
        let tally = Arc::new(Tally::default());
        let mut workers = Vec::with_capacity(count);
        for index in 0..count {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let worker = Arc::new(Worker::new(
                index,
                snapshots.clone(),
                REMEMBERED_TOKENS / count.max(1),
            ));
            let (orders, inbox) = mpsc::unbounded_channel();
            let tally = Arc::clone(&tally);
            let thread = std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || {
                    runtime.block_on(work(&worker, &tally, inbox));
                    // What still runs is cut off; the drain's deadline has passed.
                    runtime.shutdown_timeout(Duration::from_millis(100));
                })?;
            workers.push(Handle {
                orders,
                thread: Some(thread),
            });
        }
        Ok(Self {
            workers,
            tally,
            listening: HashMap::new(),
        })
    }

    /// Binds what the snapshot listens on and the server does not yet.
    ///
    /// # Errors
    /// The address and why it cannot be bound; then nothing has changed.
    pub(crate) fn bind(
        &self,
        snapshot: &Snapshot,
    ) -> Result<Vec<Bound>, (ListenAddress, std::io::Error)> {
        let mut bound = Vec::new();
        for listener in &snapshot.listeners {
            if self.listening.contains_key(&listener.address) {
                continue;
            }
            let made = listener::bind(&listener.address, self.workers.len())
                .map_err(|error| (listener.address.clone(), error))?;
            let (local, sockets) = made;
            bound.push(Bound {
                address: listener.address.clone(),
                local,
                sockets,
            });
        }
        Ok(bound)
    }

    /// Opens what was bound and closes what the snapshot no longer listens on. Call it when the
    /// snapshot is published.
    pub(crate) fn listen(&mut self, snapshot: &Snapshot, bound: Vec<Bound>) {
        let wanted = |address: &ListenAddress| {
            snapshot
                .listeners
                .iter()
                .any(|listener| listener.address == *address)
        };
        let gone: Vec<ListenAddress> = self
            .listening
            .keys()
            .filter(|address| !wanted(address))
            .cloned()
            .collect();
        for address in gone {
            let local = self.listening.remove(&address);
            tracing::info!(address = %local.as_ref().unwrap_or(&address), "listener closed");
            self.order(|| Order::Close(address.clone()));
        }
        for Bound {
            address,
            local,
            sockets,
        } in bound
        {
            let tls = snapshot
                .listeners
                .iter()
                .any(|listener| listener.address == address && listener.tls.is_some());
            for (worker, socket) in self.workers.iter().zip(sockets) {
                tell(worker, Order::Listen(address.clone(), socket));
            }
            tracing::info!(address = %local, tls, "listening");
            self.listening.insert(address, local);
        }
    }

    /// Stops accepting, lets requests in flight end within `bound`, then ends the workers.
    /// Says how many connections were cut off.
    pub(crate) async fn drain(mut self, bound: Duration) -> usize {
        self.order(|| Order::Drain);
        let deadline = tokio::time::Instant::now() + bound;
        while self.tally.open() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let left = self.tally.open();
        self.order(|| Order::Stop);
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take() {
                if thread.join().is_err() {
                    tracing::error!("a worker thread panicked");
                }
            }
        }
        for address in self.listening.keys() {
            listener::forget(address);
        }
        left
    }

    fn order(&self, order: impl Fn() -> Order) {
        for worker in &self.workers {
            tell(worker, order());
        }
    }
}

fn tell(worker: &Handle, order: Order) {
    if worker.orders.send(order).is_err() {
        tracing::error!("a worker thread has ended before its time");
    }
}

/// Closes idle connections each time when descriptors are scarce, in every worker.
async fn relieve(worker: Arc<Worker>) {
    let mut scarce = worker.view().dialer.scarce();
    while scarce.changed().await.is_ok() {
        worker.relieve();
        tracing::debug!(
            worker = worker.index,
            "idle connections were closed: file descriptors are scarce"
        );
        tokio::time::sleep(RELIEF).await;
    }
}

/// The main task of one worker: follows its orders until it is told to stop.
async fn work(
    worker: &Arc<Worker>,
    tally: &Arc<Tally>,
    mut orders: mpsc::UnboundedReceiver<Order>,
) {
    tokio::spawn(relieve(Arc::clone(worker)));
    let mut open: HashMap<ListenAddress, DrainTrigger> = HashMap::new();
    while let Some(order) = orders.recv().await {
        match order {
            Order::Listen(address, socket) => {
                let (trigger, drain) = drain::drain();
                let accepting = listener::accept(
                    Arc::clone(worker),
                    Arc::clone(tally),
                    address.clone(),
                    socket,
                    drain,
                );
                tokio::spawn(accepting);
                open.insert(address, trigger);
            }
            Order::Close(address) => {
                if let Some(trigger) = open.remove(&address) {
                    trigger.pull();
                }
            }
            Order::Drain => {
                for (_, trigger) in open.drain() {
                    trigger.pull();
                }
            }
            Order::Stop => {
                let tokens = worker.remembered.counts();
                if tokens.hits + tokens.misses > 0 {
                    tracing::info!(
                        worker = worker.index,
                        hits = tokens.hits,
                        misses = tokens.misses,
                        evictions = tokens.evictions,
                        "remembered tokens"
                    );
                }
                return;
            }
        }
    }
}
