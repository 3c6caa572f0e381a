//! Outgoing connections: tries the addresses of a name in parallel (Happy Eyeballs, RFC 8305), and reserves some file
//! descriptors, so that no peer can exhaust them. It knows nothing about the protocol on a connection.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpSocket, TcpStream, UnixSocket, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::net::resolve::{Names, Unresolved};

/// How long an attempt runs before the next address is tried in parallel (RFC 8305 section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The target of a connection attempt, and its limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    /// A name or an address.
    pub(crate) host: &'a str,
    /// The port.
    pub(crate) port: u16,
    /// Which descriptors it may use.
    pub(crate) need: Need,
    /// The timeout for resolving the name and trying all its addresses.
    pub(crate) within: Duration,
}

/// Why a connection failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The host's name could not be resolved.
    #[error("{0}")]
    Name(#[from] Unresolved),
    /// The name has no permitted address.
    #[error("the name has no permitted address")]
    NoAddress,
    /// The error of the last attempt.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// No address accepted within the timeout.
    #[error("it did not accept the connection in time")]
    Late,
    /// The remaining descriptors are reserved for clients.
    #[error("too few file descriptors are left")]
    Scarce,
}

/// Which descriptors a connection may use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Need {
    /// All but the reserve: clients determine how many are needed.
    Client,
    /// Any: there are few, and they are the gateway's own.
    Own,
}

/// Makes connections. Clones share their state.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    names: Names,
    reserve: Arc<Reserve>,
}

/// The reserved descriptors. The system assigns the lowest free number, so a descriptor's number tells how many are in
/// use, without a counter.
#[derive(Debug)]
struct Reserve {
    /// The first number of the reserve.
    from: RawFd,
    /// The first number refused to all connections: files, logs and reloads still work.
    last: RawFd,
    /// Notified each time the reserve is needed.
    touched: watch::Sender<()>,
}

impl Reserve {
    /// 64 plus 2 % of `limit`, but no more than half of it.
    fn of(limit: Option<u64>) -> Self {
        let limit = limit.unwrap_or(u64::MAX);
        let size = (64 + limit / 50).min(limit / 2);
        let number = |count: u64| RawFd::try_from(count).unwrap_or(RawFd::MAX);
        Self {
            from: number(limit - size),
            last: number(limit - size / 4),
            touched: watch::Sender::new(()),
        }
    }
}

impl Dialer {
    /// The dialer of the process, with the system's resolver and the current descriptor limit.
    pub(crate) fn new() -> Self {
        Self {
            names: Names::system(),
            reserve: Arc::new(Reserve::of(getrlimit(Resource::Nofile).current)),
        }
    }

    /// The resolver.
    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// Whether to keep a client's connection that was accepted with this descriptor. If it is one of the reserve, idle
    /// connections are closed.
    pub(crate) fn admits(&self, number: RawFd) -> bool {
        if number >= self.reserve.from {
            self.reserve.touched.send_replace(());
        }
        number < self.reserve.last
    }

    /// Notified each time descriptors are scarce.
    pub(crate) fn scarce(&self) -> watch::Receiver<()> {
        self.reserve.touched.subscribe()
    }

    /// Connects to a host over TCP, only to addresses that `may` permits.
    ///
    /// # Errors
    /// The error of the last address that failed.
    pub(crate) async fn tcp(
        &self,
        call: Call<'_>,
        may: impl Fn(IpAddr) -> bool,
    ) -> Result<TcpStream, DialError> {
        let dialled = timeout(call.within, self.unbounded(call, may)).await;
        dialled.unwrap_or(Err(DialError::Late))
    }

    async fn unbounded(
        &self,
        call: Call<'_>,
        may: impl Fn(IpAddr) -> bool,
    ) -> Result<TcpStream, DialError> {
        let Call {
            host,
            port,
            need,
            within,
        } = call;
        let found = self.names.find(host).await?;
        let usable = found.iter().filter(|address| may(address.ip()));
        let usable: Vec<SocketAddr> = usable.copied().collect();
        // Most names have one address, so there is nothing to choose.
        let best = || self.names.best(host);
        let best = (usable.len() > 1).then(best).flatten();
        let mut addresses = in_turn(&usable, best);
        for address in &mut addresses {
            address.set_port(port);
        }
        let (address, stream) = match *addresses.as_slice() {
            [] => return Err(DialError::NoAddress),
            [only] => return connect(only, Arc::clone(&self.reserve), need).await,
            // With a short timeout, the next attempt starts sooner.
            [..] => {
                let delay = ATTEMPT_DELAY.min(within / 4);
                self.race(addresses, need, delay).await?
            }
        };
        self.names.accepted(host, address.ip());
        Ok(stream)
    }

    /// Connects to a Unix socket.
    ///
    /// Why the connection failed.
    /// Why there is no connection.
    pub(crate) async fn unix(
        &self,
        path: &Path,
        need: Need,
        within: Duration,
    ) -> Result<UnixStream, DialError> {
        let socket = UnixSocket::new_stream()?;
        self.reserve.check(&socket, need)?;
        match timeout(within, socket.connect(path)).await {
            Ok(connected) => Ok(connected?),
            Err(_) => Err(DialError::Late),
        }
    }

    /// The first address that accepts; the next one is tried as soon as one has failed, or in parallel with a slow one.
    async fn race(
        &self,
        addresses: Vec<SocketAddr>,
        need: Need,
        delay: Duration,
    ) -> Result<(SocketAddr, TcpStream), DialError> {
        let mut attempts = JoinSet::new();
        let mut failed = DialError::NoAddress;
        let mut addresses = addresses.into_iter();
        loop {
            if let Some(address) = addresses.next() {
                let reserve = Arc::clone(&self.reserve);
                attempts.spawn(async move { (address, connect(address, reserve, need).await) });
            }
            let ended = if addresses.len() == 0 {
                attempts.join_next().await
            } else {
                match timeout(delay, attempts.join_next()).await {
                    Ok(ended) => ended,
                    Err(_) => continue,
                }
            };
            match ended {
                // Dropping the set cancels the others.
                Some(Ok((address, Ok(stream)))) => return Ok((address, stream)),
                Some(Ok((_, Err(DialError::Scarce)))) => return Err(DialError::Scarce),
                Some(Ok((_, Err(error)))) => failed = error,
                Some(Err(error)) => failed = io::Error::other(error).into(),
                None if addresses.len() == 0 => return Err(failed),
                None => {}
            }
        }
    }
}

impl Reserve {
    fn check(&self, socket: &impl AsRawFd, need: Need) -> Result<(), DialError> {
        if need == Need::Client && socket.as_raw_fd() >= self.from {
            self.touched.send_replace(());
            return Err(DialError::Scarce);
        }
        Ok(())
    }
}

async fn connect(
    address: SocketAddr,
    reserve: Arc<Reserve>,
    need: Need,
) -> Result<TcpStream, DialError> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    reserve.check(&socket, need)?;
    Ok(socket.connect(address).await?)
}

/// The order of attempts: families alternate, starting with that of the resolver's first address (RFC 8305 section 4),
/// but the address that last worked comes first.
fn in_turn(addresses: &[SocketAddr], best: Option<IpAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (one, other): (Vec<SocketAddr>, Vec<SocketAddr>) = addresses
        .iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut turns = Vec::with_capacity(addresses.len());
    while turns.len() < addresses.len() {
        turns.extend(one.next());
        turns.extend(other.next());
    }
    if let Some(at) = turns.iter().position(|address| Some(address.ip()) == best) {
        let found = turns.remove(at);
        turns.insert(0, found);
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_what_worked_comes_first() {
        let all = |texts: &[&str]| -> Vec<SocketAddr> {
            texts
                .iter()
                .map(|text| SocketAddr::new(text.parse().unwrap(), 0))
                .collect()
        };
        let found = all(&["::1", "::2", "::3", "10.0.0.1", "10.0.0.2"]);
        let turns = all(&["::1", "10.0.0.1", "::2", "10.0.0.2", "::3"]);
        assert_eq!(in_turn(&found, None), turns);
        let best = "10.0.0.2".parse().ok();
        let turns = all(&["10.0.0.2", "::1", "10.0.0.1", "::2", "::3"]);
        assert_eq!(in_turn(&found, best), turns);
        let gone = "10.0.0.9".parse().ok();
        let found = all(&["10.0.0.1", "::1"]);
        assert_eq!(in_turn(&found, gone), found);
        assert!(in_turn(&[], gone).is_empty());
    }

    #[test]
    fn the_reserve_is_a_small_part() {
        for (limit, from, last) in [
            (Some(1024), 940, 1003),
            (Some(100), 50, 88),
            (Some(1_000_000), 979_936, 994_984),
            (Some(0), 0, 0),
        ] {
            let reserve = Reserve::of(limit);
            assert_eq!((reserve.from, reserve.last), (from, last), "{limit:?}");
        }
        assert_eq!(Reserve::of(None).from, RawFd::MAX);
    }

    #[tokio::test]
    async fn what_clients_need_does_not_touch_the_reserve() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let dialer = |from, last| Dialer {
            names: Names::system(),
            reserve: Arc::new(Reserve {
                from,
                last,
                touched: watch::Sender::new(()),
            }),
        };
        let ample = dialer(RawFd::MAX, RawFd::MAX);
        let scarce = ample.scarce();
        let call = |need| Call {
            host: "127.0.0.1",
            port,
            need,
            within: Duration::from_secs(5),
        };
        ample.tcp(call(Need::Client), |_| true).await.unwrap();
        assert!(!scarce.has_changed().unwrap());

        let short = dialer(0, RawFd::MAX);
        let mut touched = short.scarce();
        let refused = short.tcp(call(Need::Client), |_| true).await;
        assert!(matches!(refused, Err(DialError::Scarce)));
        touched.changed().await.unwrap();
        short.tcp(call(Need::Own), |_| true).await.unwrap();
        assert!(short.admits(listener.as_raw_fd()));
        assert!(!dialer(0, 0).admits(listener.as_raw_fd()));
    }

    #[tokio::test]
    async fn an_address_that_refuses_or_is_silent_costs_the_others_little() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // Nothing listens at the first two; the third has a full accept queue and does not answer a SYN.
        let full =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let silent = SocketAddr::from(([127, 0, 0, 66], port));
        full.bind(&silent.into()).unwrap();
        full.listen(0).unwrap();
        let mut held = Vec::new();
        for _ in 0..4 {
            let client =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            client.set_nonblocking(true).unwrap();
            client.connect(&silent.into()).ok();
            held.push(client);
        }
        let addresses = [
            [127, 0, 0, 64],
            [127, 0, 0, 65],
            [127, 0, 0, 66],
            [127, 0, 0, 1],
        ]
        .map(|ip| SocketAddr::from((ip, port)));
        let began = tokio::time::Instant::now();
        let raced = Dialer::new()
            .race(addresses.to_vec(), Need::Own, ATTEMPT_DELAY)
            .await;
        assert_eq!(raced.unwrap().0, addresses[3]);
        let took = began.elapsed();
        assert!(
            took >= ATTEMPT_DELAY && took < Duration::from_secs(3),
            "{took:?}"
        );
        drop(held);

        let nobody = Dialer::new()
            .race(addresses[..2].to_vec(), Need::Own, ATTEMPT_DELAY)
            .await;
        assert!(matches!(nobody, Err(DialError::Io(_))));
    }
}
