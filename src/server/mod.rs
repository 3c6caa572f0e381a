//! The worker threads: each has its own runtime, accept queues and pools. `gateway` decides what they serve; they are
//! told what to listen on.

mod connection;
mod cut;
mod drain;
mod inherited;
mod listener;
pub(crate) mod preamble;
mod pulse;
mod tally;
mod unix;
mod user;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use self::drain::{Arrivals, DrainTrigger};
pub(crate) use self::inherited::Inherited;
pub(crate) use self::listener::Socket;
pub(crate) use self::pulse::Pulse;
use self::tally::Tally;
pub(crate) use self::unix::{
    bind as bind_socket, forget as forget_socket, identity as socket_identity,
};
pub(crate) use self::user::become_user;
use crate::net::limits::Timeouts;
use crate::net::tls::Clients;
use crate::snapshot::{ListenAddress, Listener, Snapshot, SocketAccess};
use crate::worker::Worker;

/// Bytes of verified tokens that all workers cache together.
const REMEMBERED_TOKENS: usize = 64 << 20;

/// The backlog of connections to be accepted, per worker.
const BACKLOG: i32 = 4096;

/// The shortest interval at which a worker closes its idle connections for lack of descriptors.
const RELIEF: Duration = Duration::from_millis(50);

/// The listeners, and the workers that serve them.
#[derive(Debug)]
pub(crate) struct Server {
    /// How many workers there are to be.
    count: usize,
    /// Those that run.
    workers: Vec<Handle>,
    tally: Arc<Tally>,
    /// The open listeners.
    listening: HashMap<ListenAddress, Open>,
    /// The sockets that systemd passed.
    inherited: Inherited,
}

/// An open listener.
#[derive(Debug)]
struct Open {
    /// The addresses that it is bound to: one, or as many as systemd passed.
    local: Vec<String>,
    /// Its socket file, if it has one.
    file: Option<(u64, u64)>,
    /// Who may connect to that.
    access: SocketAccess,
    /// The client certificates that it asks for.
    clients: Option<Clients>,
}

#[derive(Debug)]
struct Handle {
    worker: Arc<Worker>,
    orders: mpsc::UnboundedSender<Order>,
    thread: Option<JoinHandle<()>>,
}

/// The workers and their connections, for who looks at them from outside. Nothing here waits for a worker.
#[derive(Debug)]
pub(crate) struct Observer {
    tally: Arc<Tally>,
    workers: Vec<(Arc<Worker>, mpsc::UnboundedSender<Order>)>,
}

impl Observer {
    /// How many connections are open.
    pub(crate) fn connections(&self) -> usize {
        self.tally.open()
    }

    /// The workers.
    pub(crate) fn workers(&self) -> impl Iterator<Item = &Arc<Worker>> {
        self.workers.iter().map(|(worker, _)| worker)
    }

    /// Asks each worker whether it turns; one that has ended does not answer.
    pub(crate) fn pulses(&self) -> Vec<Pulse> {
        let ask = |orders: &mpsc::UnboundedSender<Order>| {
            let pulse = Pulse::of(1);
            drop(orders.send(Order::Turn(pulse.clone())));
            pulse
        };
        self.workers.iter().map(|(_, orders)| ask(orders)).collect()
    }
}

/// An instruction for a worker.
#[derive(Debug)]
enum Order {
    /// Accept connections of this listener from these sockets.
    Listen(ListenAddress, Vec<Socket>),
    /// Stop accepting; its connections end with their requests.
    Close(ListenAddress),
    /// The connections that were accepted until now end with their requests.
    Renounce(ListenAddress),
    /// Stop accepting anything; every connection ends with its requests, and at this time if only streams are left on
    /// it.
    Drain(Instant),
    /// Say that you turn.
    Turn(Pulse),
    /// Terminate now.
    Stop,
}

/// The sockets of a listener that is not open yet, for each worker.
#[derive(Debug)]
pub(crate) struct Bound {
    address: ListenAddress,
    local: Vec<String>,
    sockets: Vec<Vec<Socket>>,
}

impl Server {
    /// A server for so many workers, none of which runs. `inherited` are the sockets that systemd passed.
    pub(crate) fn new(count: usize, inherited: Inherited) -> Self {
        Self {
            count,
            workers: Vec::with_capacity(count),
            tally: Arc::default(),
            listening: HashMap::new(),
            inherited,
        }
    }

    /// Starts the workers; they accept nothing yet. Call it once, before [`Server::listen`].
    ///
    /// # Errors
    /// A thread or a runtime cannot be started.
    pub(crate) fn start(
        &mut self,
        snapshots: &watch::Receiver<Arc<Snapshot>>,
    ) -> std::io::Result<()> {
        // Whoever serves as a user of its own has no privilege that a client could come by.
        let gives_up = snapshots.borrow().user.is_some();
        for index in 0..self.count {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let worker = Arc::new(Worker::new(
                index,
                snapshots.clone(),
                REMEMBERED_TOKENS / self.count.max(1),
            ));
            let theirs = Arc::clone(&worker);
            let (orders, inbox) = mpsc::unbounded_channel();
            let tally = Arc::clone(&self.tally);
            let (ready, started) = std::sync::mpsc::channel();
            let thread = std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || {
                    let given_up = if gives_up {
                        user::give_up_the_last()
                    } else {
                        Ok(())
                    };
                    let is_ready = given_up.is_ok();
                    drop(ready.send(given_up));
                    if !is_ready {
                        return;
                    }
                    runtime.block_on(work(&worker, &tally, inbox));
                    // Remaining tasks are cut off; the drain's deadline has passed.
                    runtime.shutdown_timeout(Duration::from_millis(100));
                })?;
            started.recv().map_err(std::io::Error::other)??;
            self.workers.push(Handle {
                worker: theirs,
                orders,
                thread: Some(thread),
            });
        }
        Ok(())
    }

    /// Binds the listeners that the snapshot adds. Those that it removes give up their addresses to them: for a moment
    /// both are bound.
    ///
    /// # Errors
    /// The address and why it cannot be bound; then nothing has changed.
    pub(crate) fn bind(
        &self,
        snapshot: &Snapshot,
    ) -> Result<Vec<Bound>, (ListenAddress, std::io::Error)> {
        let wanted = || snapshot.listeners.iter().map(|listener| &listener.address);
        let leaving: Vec<_> = self
            .listening
            .iter()
            .filter(|(address, _)| !wanted().any(|wanted| wanted == *address))
            .collect();
        let new = || {
            let listeners = snapshot.listeners.iter();
            listeners.filter(|listener| !self.listening.contains_key(&listener.address))
        };
        // All are probed before the first listens: if one is taken, no client has connected to another.
        for Listener { address, .. } in new().map(AsRef::as_ref) {
            let probed =
                if wanted().any(|other| other != address && listener::overlap(address, other)) {
                    Err(std::io::ErrorKind::AddrInUse.into())
                } else if leaving
                    .iter()
                    .any(|(other, _)| listener::overlap(address, other))
                {
                    Ok(())
                } else {
                    listener::probe(address)
                };
            probed.map_err(|error| (address.clone(), error))?;
        }
        // A replaced socket file cannot be restored, so anything that can fail is done before.
        let (unix, others): (Vec<_>, Vec<_>) =
            new().partition(|listener| matches!(listener.address, ListenAddress::Unix(_)));
        let mut bound: Vec<Bound> = Vec::new();
        for listener in others.into_iter().chain(unix) {
            let address = &listener.address;
            let file = listener::identity(address);
            let replace = file.is_some() && leaving.iter().any(|(_, open)| open.file == file);
            match self.open(listener, replace) {
                Ok(open) => bound.push(open),
                Err(error) => {
                    self.unbind(&bound);
                    return Err((address.clone(), error));
                }
            }
        }
        if let Err(failed) = self
            .may_be_spoken(snapshot)
            .and_then(|()| self.permit(snapshot))
        {
            self.unbind(&bound);
            return Err(failed);
        }
        Ok(bound)
    }

    /// Removes the socket files of listeners that were bound and will not be opened.
    pub(crate) fn unbind(&self, bound: &[Bound]) {
        for Bound { address, .. } in bound {
            listener::forget(address, listener::identity(address));
        }
    }

    /// Binds one listener; `replace` says that it takes the place of a socket file of ours.
    fn open(&self, listener: &Listener, replace: bool) -> std::io::Result<Bound> {
        let (address, workers) = (&listener.address, self.count);
        let (local, sockets) = match address {
            ListenAddress::Inherited(name) => {
                let passed = self.inherited.named(name)?;
                let local = passed.iter().map(Socket::local).collect();
                let all = || passed.iter().map(Socket::try_clone).collect();
                let sockets = (0..workers).map(|_| all());
                (local, sockets.collect::<std::io::Result<_>>()?)
            }
            ListenAddress::Tcp(_) | ListenAddress::AnyPort(..) | ListenAddress::Unix(_) => {
                let (local, sockets) = listener::bind(address, listener.access, workers, replace)?;
                (
                    vec![local],
                    sockets.into_iter().map(|it| vec![it]).collect(),
                )
            }
        };
        Ok(Bound {
            address: address.clone(),
            local,
            sockets,
        })
    }

    /// Refuses PROXY headers on TCP sockets that systemd passed, if no peer is trusted. Of others the configuration says
    /// it already.
    fn may_be_spoken(&self, snapshot: &Snapshot) -> Result<(), (ListenAddress, std::io::Error)> {
        let nobody = snapshot.trusted.networks.is_empty();
        for listener in snapshot
            .listeners
            .iter()
            .filter(|it| nobody && it.proxy_protocol)
        {
            if let ListenAddress::Inherited(name) = &listener.address
                && self.inherited.has_tcp(name)
            {
                let problem =
                    "nobody may speak PROXY protocol there: `trusted_proxies` names no network";
                return Err((listener.address.clone(), std::io::Error::other(problem)));
            }
        }
        Ok(())
    }

    /// Gives the Unix sockets that stay open the owner, group and mode that the snapshot wants.
    ///
    /// # Errors
    /// The address and why it is refused; then nothing has changed.
    fn permit(&self, snapshot: &Snapshot) -> Result<(), (ListenAddress, std::io::Error)> {
        let mut permitted: Vec<(&PathBuf, &Open)> = Vec::new();
        for listener in &snapshot.listeners {
            let (ListenAddress::Unix(path), Some(open)) =
                (&listener.address, self.listening.get(&listener.address))
            else {
                continue;
            };
            if open.access == listener.access {
                continue;
            }
            if let Err(error) = unix::permit(path, listener.access, open.file) {
                for (path, open) in permitted {
                    drop(unix::permit(path, open.access, open.file));
                }
                return Err((listener.address.clone(), error));
            }
            permitted.push((path, open));
        }
        Ok(())
    }

    /// Opens the listeners that were bound and closes those that the snapshot removes. Call it when the snapshot is
    /// published.
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
            if let Some(open) = self.listening.remove(&address) {
                listener::forget(&address, open.file);
                for local in &open.local {
                    tracing::info!(address = %local, "listener closed");
                }
            }
            self.order(|| Order::Close(address.clone()));
        }
        let clients_of = |address: &ListenAddress| {
            let mut all = snapshot.listeners.iter();
            let listener = all.find(|listener| listener.address == *address)?;
            listener.tls.as_ref()?.clients().cloned()
        };
        let mut renounced = Vec::new();
        for (address, open) in &mut self.listening {
            let clients = clients_of(address);
            // Whoever is connected was let in by what held before.
            if clients
                .as_ref()
                .is_some_and(|it| it.are_stricter_than(open.clients.as_ref()))
            {
                renounced.push(address.clone());
                tracing::info!(address = %open.local.join(", "), "client_auth changed: connections end with their requests");
            }
            open.clients = clients;
        }
        for address in renounced {
            self.order(|| Order::Renounce(address.clone()));
        }
        for Bound {
            address,
            local,
            sockets,
        } in bound
        {
            let mut listeners = snapshot.listeners.iter();
            let Some(listener) = listeners.find(|listener| listener.address == address) else {
                continue;
            };
            let (tls, access) = (listener.tls.is_some(), listener.access);
            for (worker, sockets) in self.workers.iter().zip(sockets) {
                tell(worker, Order::Listen(address.clone(), sockets));
            }
            for local in &local {
                tracing::info!(address = %local, tls, "listening");
            }
            let file = listener::identity(&address);
            let clients = clients_of(&address);
            let open = Open {
                local,
                file,
                access,
                clients,
            };
            self.listening.insert(address, open);
        }
        for listener in &snapshot.listeners {
            if let Some(open) = self.listening.get_mut(&listener.address) {
                open.access = listener.access;
            }
        }
        for name in self.inherited.names() {
            let address = ListenAddress::Inherited(name.to_owned());
            if !self.listening.contains_key(&address) {
                tracing::warn!(
                    name,
                    "systemd passed a socket that no listener uses: a listener with `socket_activation: {name}` would"
                );
            }
        }
    }

    /// What `admin` looks at. Call it when the workers run.
    pub(crate) fn observer(&self) -> Observer {
        Observer {
            tally: Arc::clone(&self.tally),
            workers: (self.workers.iter())
                .map(|worker| (Arc::clone(&worker.worker), worker.orders.clone()))
                .collect(),
        }
    }

    /// Asks each worker whether it turns.
    pub(crate) fn pulse(&self) -> Pulse {
        let pulse = Pulse::of(self.workers.len());
        self.order(|| Order::Turn(pulse.clone()));
        pulse
    }

    /// Logs which connections were closed because of a limit, at once and then once a minute.
    pub(crate) fn tell(&self, now: std::time::Instant) {
        self.tally.cut.tell(now);
    }

    /// Stops accepting, waits `shutdown` for requests in flight and `shutdown_streams` for streams, then ends the
    /// workers; at once when `hurry` is ready. Returns how many connections were cut off.
    pub(crate) async fn drain(mut self, timeouts: &Timeouts, hurry: impl Future) -> usize {
        for (address, open) in &self.listening {
            // Before the sockets close, so that the next process finds either a listener or nothing.
            listener::forget(address, open.file);
        }
        let streams_until = Instant::now() + timeouts.shutdown_streams;
        self.order(|| Order::Drain(streams_until));
        let ended = async {
            while self.tally.open() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = ended => {}
            () = tokio::time::sleep(timeouts.shutdown) => {}
            _ = hurry => {}
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
        tracing::error!("a worker thread ended unexpectedly");
    }
}

/// Closes idle connections whenever descriptors are scarce; runs in every worker.
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

/// A listener that a worker serves.
struct Listening {
    /// Ends the accepting of connections.
    accepting: DrainTrigger,
    /// Ends the connections that arrive now.
    connections: DrainTrigger,
    arrivals: Arrivals,
}

/// The main task of a worker: follows its orders until it is stopped.
async fn work(
    worker: &Arc<Worker>,
    tally: &Arc<Tally>,
    mut orders: mpsc::UnboundedReceiver<Order>,
) {
    tokio::spawn(relieve(Arc::clone(worker)));
    let mut open: HashMap<ListenAddress, Listening> = HashMap::new();
    // Closed, but with connections whose streams may end only with the process.
    let mut closed: Vec<DrainTrigger> = Vec::new();
    while let Some(order) = orders.recv().await {
        match order {
            Order::Listen(address, sockets) => {
                let (accepting, drain) = drain::drain();
                let (connections, of_connections) = drain::drain();
                let arrivals = Arrivals::new(of_connections);
                for socket in sockets {
                    tokio::spawn(listener::accept(
                        Arc::clone(worker),
                        Arc::clone(tally),
                        address.clone(),
                        socket,
                        drain.clone(),
                        arrivals.clone(),
                    ));
                }
                let listening = Listening {
                    accepting,
                    connections,
                    arrivals,
                };
                open.insert(address, listening);
            }
            Order::Close(address) => {
                if let Some(listening) = open.remove(&address) {
                    closed.retain(DrainTrigger::is_waited_for);
                    for trigger in [listening.accepting, listening.connections] {
                        trigger.pull();
                        closed.push(trigger);
                    }
                }
            }
            Order::Renounce(address) => {
                if let Some(listening) = open.get_mut(&address) {
                    let (connections, drain) = drain::drain();
                    listening.arrivals.replace(drain);
                    let before = std::mem::replace(&mut listening.connections, connections);
                    before.renounce();
                    closed.retain(DrainTrigger::is_waited_for);
                    closed.push(before);
                }
            }
            Order::Drain(streams_until) => {
                let all = open.drain().map(|(_, listening)| listening);
                closed.extend(all.flat_map(|it| [it.accepting, it.connections]));
                for trigger in &closed {
                    trigger.end(streams_until);
                }
            }
            Order::Turn(pulse) => pulse.beat(),
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
