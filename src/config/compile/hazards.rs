//! Detects what a configuration exposes through files and addresses: files that it reads or writes below a served
//! directory, an upstream that is the gateway itself, secrets that other local users can read, and unneeded privileges.
//!
//! Hazards of routes are found in `explain`, which decides sample requests.

use std::collections::{HashMap, HashSet};
use std::fs::{self, Metadata};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Compiler;
use crate::config::parsed::{self, Spanned};
use crate::config::place::Place;

/// How many files of a served directory are named in a message.
const NAMED: usize = 3;
/// Permission bits of other users (inode(7)).
const OTHERS_READ: u32 = 0o004;
const OTHERS_WRITE: u32 = 0o002;
const NOT_THE_OWNER: u32 = 0o044;
/// The lowest port that needs no privilege, where the system does not define another.
const UNPRIVILEGED: u16 = 1024;

impl Compiler<'_> {
    /// Reports hazards. Called when everything the configuration names has been read.
    pub(super) fn hazards(&mut self, gateway: &parsed::Gateway) {
        self.served(gateway);
        self.own_listeners(gateway);
        let read = self.states(&self.loader.files());
        self.open_to_others(gateway, &read);
        self.needs_no_root(gateway, &read);
        self.passwords_in_the_clear(gateway);
    }

    /// Warns about passwords that cross a network without TLS. Behind a trusted proxy, that may have ended it.
    fn passwords_in_the_clear(&mut self, gateway: &parsed::Gateway) {
        if !gateway.trusted_proxies.is_empty() {
            return;
        }
        let is_bare = |listener: &&parsed::Listener| {
            let elsewhere = matches!(&listener.address.value,
                parsed::ListenAddress::Tcp(address) if !address.ip().is_loopback());
            let redirects = listener.redirect_to_https.value != parsed::RedirectToHttps::Off;
            elsewhere && listener.tls.is_none() && !redirects
        };
        let Some(bare) = gateway.listeners.iter().find(is_bare) else {
            return;
        };
        let listener = self.errors.name(bare.place);
        let routes = gateway.routes.iter().map(|route| route.auth.as_ref());
        let rules = routes.chain([gateway.defaults.auth.as_ref()]).flatten();
        let users: Vec<Place> = rules
            .filter_map(|auth| match auth {
                parsed::Auth::Jwt(rule) => Some(rule.basic.as_ref()?.users.place),
                parsed::Auth::Public(_) | parsed::Auth::Ask(_) | parsed::Auth::Certificate(_) => {
                    None
                }
            })
            .collect();
        for place in users {
            let warning = format!(
                "passwords cross the network unencrypted: the listener at {listener} has no TLS"
            );
            self.errors.warn(place, &warning);
        }
    }

    /// A served directory that contains files that the gateway reads or writes is an error.
    fn served(&mut self, gateway: &parsed::Gateway) {
        let roots: Vec<(&Spanned<PathBuf>, PathBuf)> = (gateway.routes.iter())
            .filter_map(|route| route.files.as_ref())
            .flat_map(|files| &files.roots)
            .map(|root| &root.path)
            .chain((gateway.routes.iter()).flat_map(|it| it.accel.iter().map(|(_, root)| root)))
            .filter_map(|root| Some((root, self.canonical(&root.value)?)))
            .collect();
        if roots.is_empty() {
            return;
        }
        let own = (self.loader.files().into_iter()).chain(written(gateway));
        let own: Vec<(PathBuf, PathBuf)> = own
            .filter_map(|path| Some((self.canonical(&path)?, path)))
            .collect();
        for (root, canonical) in roots {
            let mut held: Vec<String> = own
                .iter()
                .filter(|(path, _)| is_served(path, &canonical))
                .map(|(_, named)| format!("`{}`", named.display()))
                .collect();
            let more = held.len().saturating_sub(NAMED);
            held.truncate(NAMED);
            if held.is_empty() {
                continue;
            }
            if more > 0 {
                held.push(format!("{more} more"));
            }
            let problem = format!(
                "clients could fetch what the gateway itself reads or writes: `{}` holds {}",
                root.value.display(),
                held.join(", ")
            );
            self.errors.at(root.place, problem).hint(
                "serve a directory that holds nothing but what is meant for clients, such as `public/`",
            );
        }
    }

    /// The canonical path, links resolved; for a missing file, its future path. `None` where the file system does not
    /// respond.
    fn canonical(&self, path: &Path) -> Option<PathBuf> {
        let named = path.to_owned();
        let canonical = move || {
            let mut missing = Vec::new();
            let mut there = std::path::absolute(&named)?;
            loop {
                match fs::canonicalize(&there) {
                    Ok(found) => {
                        return Ok(missing.iter().rev().fold(found, |at, name| at.join(name)));
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        let name = there.file_name().map(ToOwned::to_owned);
                        let (Some(name), true) = (name, there.pop()) else {
                            return Err(error);
                        };
                        missing.push(name);
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        self.loader.patiently(path, canonical).ok()
    }

    /// An upstream that is a listener of this gateway is an error: every request would loop.
    fn own_listeners(&mut self, gateway: &parsed::Gateway) {
        let named = (gateway.upstreams.iter()).flat_map(|(_, upstream)| {
            let servers = upstream.servers.iter();
            servers.map(|server| (&server.url.value, server.url.place))
        });
        let bare = gateway.routes.iter().filter_map(|route| {
            let proxy = route.app()?;
            match &proxy.value {
                parsed::ProxyTo::Server(server) => Some((server, proxy.place)),
                parsed::ProxyTo::Upstream(_) => None,
            }
        });
        let ours: Vec<(&parsed::Server, Place)> = named
            .chain(bare)
            .filter(|(server, _)| {
                let listeners = &mut gateway.listeners.iter();
                listeners.any(|listener| self.leads_back(server, &listener.address.value))
            })
            .collect();
        for (server, place) in ours {
            let problem = format!(
                "`{}` is a listener of this gateway: every request would come back to it",
                super::upstreams::address(server)
            );
            self.errors
                .at(place, problem)
                .hint("write where the app listens; each needs a port of its own");
        }
    }

    fn leads_back(&self, server: &parsed::Server, listener: &parsed::ListenAddress) -> bool {
        match (server, listener) {
            (parsed::Server::Http { host, port }, parsed::ListenAddress::Tcp(listener)) => {
                *port == listener.port()
                    && addresses(host).into_iter().any(|it| takes(*listener, it))
            }
            (parsed::Server::Unix(path), parsed::ListenAddress::Unix(listener)) => {
                path == listener
                    || self
                        .canonical(path)
                        .is_some_and(|it| self.canonical(listener) == Some(it))
            }
            (parsed::Server::Http { .. }, parsed::ListenAddress::Unix(_))
            | (parsed::Server::Unix(_), parsed::ListenAddress::Tcp(_))
            | (_, parsed::ListenAddress::Inherited(_)) => false,
        }
    }

    /// The metadata of regular files; those without any are left out.
    fn states(&self, paths: &[PathBuf]) -> Vec<(PathBuf, Metadata)> {
        let state = |path: &PathBuf| {
            let named = path.clone();
            let meta = self.loader.patiently(path, move || fs::metadata(&named));
            let meta = meta.ok().filter(Metadata::is_file)?;
            Some((path.clone(), meta))
        };
        paths.iter().filter_map(state).collect()
    }

    /// Warns about secrets that every local user can read, and about files that every local user can change.
    fn open_to_others(&mut self, gateway: &parsed::Gateway, read: &[(PathBuf, Metadata)]) {
        let modes: HashMap<&Path, u32> = (read.iter())
            .map(|(path, meta)| (path.as_path(), meta.mode()))
            .collect();
        let mode = |path: &Path| modes.get(path).copied().unwrap_or_default();
        for listener in &gateway.listeners {
            let pairs = listener.tls.iter().flat_map(|tls| &tls.certificates);
            for key in pairs.map(|pair| &pair.key) {
                self.loader
                    .keep_secret(&key.value, "a private key", key.place);
            }
        }
        if let Some(tokens) = &gateway.tokens {
            let (directory, place) = (&tokens.keys.value, tokens.keys.place);
            let keys = read
                .iter()
                .filter(|(path, _)| path.parent() == Some(directory));
            for (path, _) in keys {
                self.loader.keep_secret(path, "a signing key", place);
            }
            if let Some(users) = &tokens.users {
                self.loader
                    .keep_secret(&users.value, "the users' password hashes", users.place);
            }
        }
        let secrets = self.loader.secrets();
        for secret in &secrets {
            let mode = mode(&secret.path);
            if mode & OTHERS_READ == 0 {
                continue;
            }
            let (shown, what) = (secret.path.display(), secret.what);
            let warning = format!(
                "`{shown}` holds {what}, and every user of this machine can read it (mode {:04o}): chmod o= {shown}",
                mode & 0o7777
            );
            self.errors.warn(secret.place, &warning);
        }
        let secrets: HashSet<&Path> = secrets.iter().map(|it| it.path.as_path()).collect();
        for (path, meta) in read {
            let is_secret = secrets.contains(path.as_path());
            if meta.mode() & OTHERS_WRITE == 0 || is_secret && meta.mode() & OTHERS_READ != 0 {
                continue;
            }
            let shown = path.display();
            let warning = format!(
                "every user of this machine can change `{shown}` (mode {:04o}): chmod o-w {shown}",
                meta.mode() & 0o7777
            );
            self.errors.warn(Place::default(), &warning);
        }
    }

    /// Warns about a process that stays root, at a start.
    fn needs_no_root(&mut self, gateway: &parsed::Gateway, read: &[(PathBuf, Metadata)]) {
        let is_root = rustix::process::geteuid().is_root();
        if !is_root || gateway.user.is_some() || self.previous.is_some() {
            return;
        }
        let lowest = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
        let lowest = lowest.ok().and_then(|text| text.trim().parse().ok());
        let lowest: u16 = lowest.unwrap_or(UNPRIVILEGED);
        let is_privileged = |listener: &parsed::Listener| match &listener.address.value {
            parsed::ListenAddress::Tcp(address) => address.port() != 0 && address.port() < lowest,
            parsed::ListenAddress::Unix(_) | parsed::ListenAddress::Inherited(_) => false,
        };
        let is_roots = |meta: &Metadata| meta.uid() == 0 && meta.mode() & NOT_THE_OWNER == 0;
        let needs_root = gateway.listeners.iter().any(is_privileged)
            || read.iter().any(|(_, meta)| is_roots(meta));
        let warning = if needs_root {
            "this is root, and stays root while it serves: name a `user`, which it becomes once ports and keys are open"
                .to_owned()
        } else {
            format!(
                "this is root, which neither the ports (from {lowest} on) nor the files of this configuration need: run the gateway as a user of its own"
            )
        };
        self.errors.warn(Place::default(), &warning);
    }
}

/// The files and directories that the gateway writes.
fn written(gateway: &parsed::Gateway) -> impl Iterator<Item = PathBuf> {
    let state = match &gateway.state {
        Some(parsed::State::Directory(directory)) => Some(directory.value.clone()),
        Some(parsed::State::Redis(_)) | None => None,
    };
    let tokens = gateway.tokens.iter().flat_map(|tokens| {
        let users = tokens.users.as_ref().map(|users| users.value.clone());
        std::iter::once(tokens.keys.value.clone()).chain(users)
    });
    let spools = gateway.upstreams.iter().filter_map(|(_, upstream)| {
        let parsed::Buffering::Own(buffer) = &upstream.buffer else {
            return None;
        };
        buffer.spool.as_ref().map(|spool| spool.value.clone())
    });
    let log = match &gateway.log.access {
        parsed::AccessLog::On { to, .. } => match &to.value {
            parsed::LogTarget::File(path) => Some(path.clone()),
            parsed::LogTarget::Stdout | parsed::LogTarget::Stderr => None,
        },
        parsed::AccessLog::Off => None,
    };
    state.into_iter().chain(tokens).chain(spools).chain(log)
}

/// Whether a file below this root would be served. Hidden files never are.
fn is_served(path: &Path, root: &Path) -> bool {
    path.strip_prefix(root).is_ok_and(|below| {
        below.iter().all(|segment| {
            let segment = segment.as_encoded_bytes();
            !segment.starts_with(b".") || segment == b".well-known"
        })
    })
}

/// The addresses of a host that need no look-up.
fn addresses(host: &str) -> Vec<IpAddr> {
    if host == "localhost" {
        return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    host.parse().into_iter().collect()
}

/// Whether the listener accepts connections to this address.
fn takes(listener: SocketAddr, address: IpAddr) -> bool {
    let address = address.to_canonical();
    let own = listener.ip().to_canonical();
    // Connecting to the unspecified address reaches this machine.
    let address = match address {
        IpAddr::V4(it) if it.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(it) if it.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V4(_) | IpAddr::V6(_) => address,
    };
    if !own.is_unspecified() {
        return own == address;
    }
    // `[::]` accepts IPv4 too.
    (own.is_ipv6() || address.is_ipv4()) && is_local(address)
}

/// Whether an address is local: connections to it then come from the same address.
fn is_local(address: IpAddr) -> bool {
    if address.is_loopback() {
        return true;
    }
    let any: SocketAddr = match address {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // Nothing is sent: connecting a datagram socket only queries the routing table.
    let from = UdpSocket::bind(any).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    from.is_ok_and(|from| from.ip() == address)
}
