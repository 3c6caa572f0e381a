//! Sockets that systemd opened and passed (socket activation, sd_listen_fds(3)). They are taken once, when the process
//! starts, and kept until it ends: also those that no listener uses now, since a reload may bring one that does.

use std::io;
use std::os::fd::OwnedFd;

use listenfd::ListenFd;

use super::listener::Socket;

/// The first descriptor that is passed (`SD_LISTEN_FDS_START`).
const FIRST: usize = 3;
/// The most descriptors that are taken; systemd passes some thousands at most.
const MOST: usize = 4096;
/// The name of sockets for which none was passed.
const UNKNOWN: &str = "unknown";

/// The sockets that were passed.
#[derive(Debug, Default)]
pub(crate) struct Inherited(Vec<Passed>);

/// A socket and its name.
#[derive(Debug)]
struct Passed {
    name: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// It accepts connections.
    Listens(Socket),
    /// It is for datagrams, and only kept.
    Datagrams(#[expect(dead_code, reason = "it is kept open")] OwnedFd),
}

impl Inherited {
    /// Takes the sockets that were passed to this process: no child inherits them from here on. It changes the
    /// environment, so it is called before there is another thread.
    ///
    /// # Errors
    /// What was passed is no socket, or does not listen, or has no names.
    pub(crate) fn take() -> io::Result<Self> {
        let variable = |name| std::env::var(name).ok();
        let is_ours = variable("LISTEN_PID").is_some_and(|it| it == std::process::id().to_string());
        let count = variable("LISTEN_FDS").filter(|_| is_ours);
        let Some(count) = count.and_then(|count| count.parse().ok()) else {
            return Ok(Self::default());
        };
        if count > MOST {
            return Err(io::Error::other(format!("LISTEN_FDS is {count}")));
        }
        let names = match variable("LISTEN_FDNAMES") {
            Some(names) => names.split(':').map(str::to_owned).collect(),
            None => vec![UNKNOWN.to_owned(); count],
        };
        if names.len() != count {
            let problem = format!(
                "LISTEN_FDS is {count}, and LISTEN_FDNAMES has {}",
                names.len()
            );
            return Err(io::Error::other(problem));
        }
        let mut passed = ListenFd::from_env();
        let take = |(at, name): (usize, String)| {
            let kind = take(&mut passed, at).map_err(|error| {
                let descriptor = FIRST + at;
                io::Error::new(
                    error.kind(),
                    format!("descriptor {descriptor}, passed as `{name}`: {error}"),
                )
            })?;
            Ok(Passed { name, kind })
        };
        names
            .into_iter()
            .enumerate()
            .map(take)
            .collect::<io::Result<_>>()
            .map(Self)
    }

    /// New descriptors of the sockets with this name that accept connections.
    ///
    /// # Errors
    /// There are none; the text names those that were passed.
    pub(super) fn named(&self, wanted: &str) -> io::Result<Vec<Socket>> {
        let of_name = || self.0.iter().filter(|passed| passed.name == wanted);
        let sockets = of_name().filter_map(|passed| match &passed.kind {
            Kind::Listens(socket) => Some(socket.try_clone()),
            Kind::Datagrams(_) => None,
        });
        let sockets: Vec<Socket> = sockets.collect::<io::Result<_>>()?;
        if !sockets.is_empty() {
            return Ok(sockets);
        }
        let names = self.names();
        Err(io::Error::other(if of_name().next().is_some() {
            "it is for datagrams, and does not accept connections".to_owned()
        } else if names.is_empty() {
            "systemd passed no sockets to this process; `systemctl start` the socket's unit, which the service's \
             `Sockets=` names"
                .to_owned()
        } else {
            format!(
                "systemd passed no socket of this name; it passed {}",
                names.join(", ")
            )
        }))
    }

    /// Whether a socket with this name accepts TCP connections.
    pub(super) fn has_tcp(&self, wanted: &str) -> bool {
        let mut of_name = self.0.iter().filter(|passed| passed.name == wanted);
        of_name.any(|passed| matches!(passed.kind, Kind::Listens(Socket::Tcp(_))))
    }

    /// The names that were passed, each once, in order.
    pub(super) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for passed in &self.0 {
            if !names.contains(&passed.name.as_str()) {
                names.push(&passed.name);
            }
        }
        names
    }
}

/// Takes one descriptor, as whatever it is.
fn take(passed: &mut ListenFd, at: usize) -> io::Result<Kind> {
    if let Ok(Some(socket)) = passed.take_tcp_listener(at) {
        return listening(Socket::Tcp(socket));
    }
    if let Ok(Some(socket)) = passed.take_unix_listener(at) {
        return listening(Socket::Unix(socket));
    }
    if let Ok(Some(socket)) = passed.take_udp_socket(at) {
        return Ok(Kind::Datagrams(socket.into()));
    }
    match passed.take_unix_datagram(at) {
        Ok(Some(socket)) => Ok(Kind::Datagrams(socket.into())),
        Ok(None) | Err(_) => Err(io::Error::other("it is no socket that a gateway can use")),
    }
}

/// A socket that listens, and never blocks.
fn listening(socket: Socket) -> io::Result<Kind> {
    if !socket.accepts()? {
        let problem = "it is a connection, not a listening socket: its unit must say `Accept=no`";
        return Err(io::Error::other(problem));
    }
    socket.set_nonblocking()?;
    Ok(Kind::Listens(socket))
}
