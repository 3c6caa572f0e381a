//! Binds sockets and accepts connections; an error of `accept` never ends the loop.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

#[cfg(target_os = "linux")]
use socket2::SockFilter;
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::{Instant, timeout_at};

use super::connection::{self, Accepted};
use super::cut::Cause;
use super::drain::{Arrivals, Drain};
use super::tally::Tally;
use super::{BACKLOG, unix};
use crate::net::client::Counted;
use crate::net::stream::Stream;
use crate::snapshot::{ListenAddress, SocketAccess};
use crate::worker::{View, Worker};

/// How long a closing listener waits for handshakes that have begun.
const HANDSHAKES: Duration = Duration::from_millis(200);
/// Drops segments that request a connection (RFC 9293 section 3.1: SYN without ACK), as a classic BPF program: load the
/// flags, mask two of them, compare, drop or accept.
#[cfg(target_os = "linux")]
const NO_SYN: [SockFilter; 5] = [
    SockFilter::new(0x30, 0, 0, 13),
    SockFilter::new(0x54, 0, 0, 0x12),
    SockFilter::new(0x15, 0, 1, 0x02),
    SockFilter::new(0x06, 0, 0, 0),
    SockFilter::new(0x06, 0, 0, u32::MAX),
];
/// How long to wait when descriptors or memory are exhausted.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// A listening socket, not yet part of a runtime.
#[derive(Debug)]
pub(crate) enum Socket {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A Unix socket.
    Unix(std::os::unix::net::UnixListener),
}

impl Socket {
    /// Another descriptor of the same socket.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(listener) => listener.try_clone().map(Self::Tcp),
            Self::Unix(listener) => listener.try_clone().map(Self::Unix),
        }
    }

    /// Whether it accepts connections, rather than being one. Known where there is systemd.
    pub(super) fn accepts(&self) -> io::Result<bool> {
        #[cfg(target_os = "linux")]
        let accepts = match self {
            Self::Tcp(listener) => SockRef::from(listener).is_listener()?,
            Self::Unix(listener) => SockRef::from(listener).is_listener()?,
        };
        #[cfg(not(target_os = "linux"))]
        let accepts = true;
        Ok(accepts)
    }

    /// Makes it return instead of waiting.
    pub(super) fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.set_nonblocking(true),
            Self::Unix(listener) => listener.set_nonblocking(true),
        }
    }

    /// The address that it is bound to, for the log.
    pub(super) fn local(&self) -> String {
        let local = match self {
            Self::Tcp(listener) => listener.local_addr().map(|address| address.to_string()),
            Self::Unix(listener) => listener.local_addr().map(|address| {
                let path = address.as_pathname().map(|path| path.display().to_string());
                format!("unix:{}", path.unwrap_or_default())
            }),
        };
        local.unwrap_or_else(|error| error.to_string())
    }

    /// A connection that the kernel has accepted already; if there is none, the error is `WouldBlock`.
    fn accept_waiting(&self) -> io::Result<(Stream, Option<IpAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok(prepared(TcpStream::from_std(stream)?, peer))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok((Stream::Unix(UnixStream::from_std(stream)?), None))
            }
        }
    }
}

/// Whether two listeners would receive each other's clients, which the system permits only to sockets that share their
/// address deliberately.
pub(crate) fn overlap(one: &ListenAddress, other: &ListenAddress) -> bool {
    let (ListenAddress::Tcp(one), ListenAddress::Tcp(other)) = (one, other) else {
        return one == other;
    };
    let takes = |all: IpAddr, part: IpAddr| {
        all == part || all.is_unspecified() && (all.is_ipv6() || part.is_ipv4())
    };
    one.port() == other.port() && (takes(one.ip(), other.ip()) || takes(other.ip(), one.ip()))
}

/// Checks whether an address is free. Sockets with SO_REUSEPORT would share it with those of another process; without
/// that option, the bind fails if the address is taken. It does not listen, so that no client connects to a socket that
/// is closed at once.
///
/// # Errors
/// It is not free.
pub(crate) fn probe(address: &ListenAddress) -> io::Result<()> {
    match address {
        ListenAddress::Tcp(address) => bound_tcp(*address, ReusePort::No).map(drop),
        ListenAddress::AnyPort(..) | ListenAddress::Unix(_) | ListenAddress::Inherited(_) => Ok(()),
    }
}

/// Binds one socket per worker. TCP has an accept queue for each (SO_REUSEPORT); a Unix socket has one for all, whose
/// file gets this `access`, and takes the place of our own with the same path, if it is to `replace` that. Also returns
/// the address that was bound. Probe it first. Sockets that systemd passes are bound already: those are `inherited`'s.
///
/// # Errors
/// The address cannot be bound.
pub(crate) fn bind(
    address: &ListenAddress,
    access: SocketAccess,
    workers: usize,
    replace: bool,
) -> io::Result<(String, Vec<Socket>)> {
    match address {
        ListenAddress::Tcp(address) => bind_queues(*address, workers),
        ListenAddress::AnyPort(ip, _) => bind_queues(SocketAddr::new(*ip, 0), workers),
        ListenAddress::Unix(path) => {
            let socket = Socket::Unix(unix::bind(path, access, replace)?);
            let local = socket.local();
            let rest = (1..workers).map(|_| socket.try_clone());
            let mut sockets: Vec<Socket> = rest.collect::<io::Result<_>>()?;
            sockets.push(socket);
            Ok((local, sockets))
        }
        ListenAddress::Inherited(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ReusePort {
    Yes,
    No,
}

/// One accept queue per worker.
fn bind_queues(address: SocketAddr, workers: usize) -> io::Result<(String, Vec<Socket>)> {
    let first = bind_tcp(address)?;
    let local = first.local_addr()?;
    let mut sockets = vec![Socket::Tcp(first)];
    for _ in 1..workers {
        sockets.push(Socket::Tcp(bind_tcp(local)?));
    }
    Ok((local.to_string(), sockets))
}

fn bind_tcp(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = bound_tcp(address, ReusePort::Yes)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A socket that is bound to the address, but does not listen yet.
fn bound_tcp(address: SocketAddr, reuse: ReusePort) -> io::Result<RawSocket> {
    let socket = RawSocket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse == ReusePort::Yes)?;
    if address.is_ipv6() {
        // `[::]` accepts IPv4 as well, as is expected of an address without a family.
        let any = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        socket.set_only_v6(!any)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Identifies the file of a Unix socket, to detect its replacement; `None` for other addresses.
pub(crate) fn identity(address: &ListenAddress) -> Option<(u64, u64)> {
    match address {
        ListenAddress::Unix(path) => unix::identity(path),
        ListenAddress::Tcp(_) | ListenAddress::AnyPort(..) | ListenAddress::Inherited(_) => None,
    }
}

/// Removes the file of a closed listener, if it still belongs to that listener.
pub(crate) fn forget(address: &ListenAddress, identity_then: Option<(u64, u64)>) {
    if let ListenAddress::Unix(path) = address {
        unix::forget(path, identity_then);
    }
}

enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listening {
    async fn accept(&self) -> io::Result<(Stream, Option<IpAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok(prepared(stream, peer))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream), None))
            }
        }
    }

    /// Ignores new clients from now on, as if the network had lost their packets; returns false if that is not
    /// possible. Established connections and handshakes that have begun are not affected.
    fn turns_away(&self) -> bool {
        #[cfg(target_os = "linux")]
        if let Self::Tcp(listener) = self {
            return SockRef::from(listener).attach_filter(&NO_SYN).is_ok();
        }
        false
    }

    /// The socket, no longer registered with the runtime.
    fn into_socket(self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => listener.into_std().map(Socket::Tcp),
            Self::Unix(listener) => listener.into_std().map(Socket::Unix),
        }
    }
}

/// An accepted connection, with its socket options set.
fn prepared(stream: TcpStream, peer: SocketAddr) -> (Stream, Option<IpAddr>) {
    // The client may have disconnected already; the first read reports that.
    let socket = SockRef::from(&stream);
    let alive = TcpKeepalive::new().with_time(Duration::from_secs(60));
    drop(
        socket
            .set_tcp_nodelay(true)
            .and_then(|()| socket.set_tcp_keepalive(&alive)),
    );
    (Stream::Tcp(stream), Some(peer.ip().to_canonical()))
}

/// Accepts connections until the listener drains. They end with the signals for `arrivals`.
pub(crate) async fn accept(
    worker: Arc<Worker>,
    tally: Arc<Tally>,
    address: ListenAddress,
    socket: Socket,
    mut drain: Drain,
    arrivals: Arrivals,
) {
    let listening = match socket {
        Socket::Tcp(socket) => TcpListener::from_std(socket).map(Listening::Tcp),
        Socket::Unix(socket) => UnixListener::from_std(socket).map(Listening::Unix),
    };
    let listening = match listening {
        Ok(listening) => listening,
        Err(error) => {
            tracing::error!(%address, %error, "the listener cannot be started");
            return;
        }
    };
    // What systemd passed is open in other processes as well: in systemd itself, and in the next one of this service.
    let is_shared = matches!(address, ListenAddress::Inherited(_));
    let listener_of = |view: &View| {
        let mut all = view.listeners.iter();
        all.find(|listener| listener.address == address).cloned()
    };
    // Keep its settings after it is removed from the configuration: its last clients arrive after that reload.
    let mut known = listener_of(&worker.view());
    let lanes = worker.view().counts.listener(&address.to_string());
    let refused = |reason| {
        if let Some(lane) = lanes.of(worker.index) {
            lane.refused.count(reason);
        }
    };
    let mut take = |accepted: io::Result<(Stream, Option<IpAddr>)>| match accepted {
        Ok((stream, ip)) => {
            let view = worker.view();
            let number = stream.descriptor();
            if number.is_some_and(|number| !view.dialer.admits(number)) {
                tracing::debug!(client.ip = ?ip, "a connection was closed: file descriptors are scarce");
                refused("descriptors");
                return None;
            }
            known = listener_of(&view).or_else(|| known.take());
            let listener = Arc::clone(known.as_ref()?);
            let trusted = view.trusted.trusts(ip);
            if listener.proxy_protocol && ip.is_some() && !trusted {
                tracing::debug!(client.ip = ?ip, reason = "proxy_untrusted", "a connection was closed");
                tally.cut.count(Cause::ProxyUntrusted, ip);
                refused(Cause::ProxyUntrusted.reason());
                return None;
            }
            // Who speaks behind a PROXY header is counted once that has come.
            let counted = (!trusted && !listener.proxy_protocol).then(|| Counted::of(ip));
            let place = match tally.enter(counted, &view.bounds.limits) {
                Ok(place) => place.of_listener(&lanes, worker.index),
                Err(cause) => {
                    tally.cut.count(cause, ip);
                    refused(cause.reason());
                    return None;
                }
            };
            let accepted = Accepted {
                stream,
                ip,
                place,
                listener,
                bounds: Arc::clone(&view.bounds),
            };
            let (worker, drain) = (Arc::clone(&worker), arrivals.drain());
            tokio::spawn(connection::serve(worker, accepted, drain));
            None
        }
        Err(error) => is_exhausted(&error).then_some(error),
    };
    loop {
        let accepted = tokio::select! {
            accepted = listening.accept() => accepted,
            () = drain.begun() => break,
        };
        if let Some(error) = take(accepted) {
            worker.relieve();
            tracing::warn!(%address, %error, "no connections can be accepted for now");
            tokio::time::sleep(EXHAUSTED).await;
        }
    }
    if is_shared && !drain.is_of_listener_alone() {
        // Clients that wait are the next process's.
        return;
    }
    if !is_shared && drain.is_of_listener_alone() && listening.turns_away() {
        // Another listener may have taken this one's place: clients that connect now retry, and reach that one.
        // Handshakes that have begun are awaited.
        let until = Instant::now() + HANDSHAKES;
        while let Ok(accepted) = timeout_at(until, listening.accept()).await {
            if take(accepted).is_some() {
                break;
            }
        }
    }
    // Clients whose connections the kernel has accepted already are served, and told to close. Accept directly from the
    // kernel, because the runtime does not know of the last ones.
    let Ok(socket) = listening.into_socket() else {
        return;
    };
    // To a shared socket clients go on connecting.
    for _ in 0..BACKLOG {
        match socket.accept_waiting() {
            Err(error) if is_of_one_connection(&error) => {}
            Err(_) => break,
            accepted => drop(take(accepted)),
        }
    }
}

/// Whether an error of `accept` concerns only one connection, so that the next one may succeed.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted
    )
}

/// Whether an error is a temporary lack of resources; all others concern only one connection.
fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    exhausted
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
