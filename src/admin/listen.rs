//! The sockets of the admin thread: the control socket, which only root and the user that serves may use, and the admin
//! listener. One request a connection, few connections, short heads and bodies: nobody keeps another from looking.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::Shared;
use super::guard::Door;
use crate::net::stream::Stream;
use crate::privilege::User;
use crate::server;
use crate::snapshot::{AdminSettings, ListenAddress, Snapshot, SocketAccess};

/// The most connections of each door.
const CONNECTIONS: usize = 64;
/// The time for a request's head, for its body, and for a TLS handshake.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// The longest head.
const HEAD: usize = 64 * 1024;
/// The pause where no connection can be accepted.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// A socket that is bound.
#[derive(Debug)]
pub(super) enum Socket {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A Unix socket.
    Unix(std::os::unix::net::UnixListener),
}

/// What a configuration changes about the doors; `None` where one stays as it is.
#[derive(Debug, Default)]
pub(crate) struct Bound {
    control: Option<Option<File>>,
    network: Option<Option<(ListenAddress, Socket)>>,
}

/// The control socket, which is a file.
#[derive(Debug)]
pub(super) struct File {
    /// Its path.
    pub(super) path: PathBuf,
    /// Which file it is.
    pub(super) identity: Option<(u64, u64)>,
    /// The socket, until the admin thread takes it.
    socket: Option<std::os::unix::net::UnixListener>,
}

impl Drop for File {
    /// One that was never opened leaves no file.
    fn drop(&mut self) {
        if self.socket.is_some() {
            server::forget_socket(&self.path, self.identity);
        }
    }
}

/// Why a door cannot be opened.
#[derive(Debug)]
pub(crate) struct NotBound {
    /// Its address.
    pub(crate) address: ListenAddress,
    /// The system's reason.
    pub(crate) error: io::Error,
}

/// The doors that are open, as the control thread knows them.
#[derive(Debug, Default)]
pub(crate) struct Doors {
    control: Option<Known>,
    network: Option<ListenAddress>,
}

impl Doors {
    /// Binds what a configuration adds; nothing is closed yet. `config` is the configuration's file.
    ///
    /// # Errors
    /// The address and why it cannot be bound; then nothing has changed. The default control socket is no reason: it is
    /// said that there is none.
    pub(crate) fn bind(&self, config: &Path, snapshot: &Snapshot) -> Result<Bound, NotBound> {
        let none = AdminSettings::default();
        let settings = snapshot.admin.as_deref().unwrap_or(&none);
        let mut bound = Bound::default();
        let wanted = settings.socket.clone().or_else(|| default_socket(config));
        if wanted.as_ref() != self.control.as_ref().map(|(path, _)| path) {
            let opened = wanted.map(|path| {
                let opened = control_socket(&path, snapshot.user.as_ref());
                (path, opened)
            });
            bound.control = Some(match opened {
                None => {
                    tracing::info!(
                        "no control socket: neither RUNTIME_DIRECTORY nor XDG_RUNTIME_DIR is set, nor `admin.socket`"
                    );
                    None
                }
                Some((_, Ok(file))) => Some(file),
                Some((path, Err(error))) if settings.socket.is_some() => {
                    let address = ListenAddress::Unix(path);
                    return Err(NotBound { address, error });
                }
                Some((path, Err(error))) => {
                    tracing::warn!(path = %path.display(), %error, "no control socket");
                    None
                }
            });
        }
        if settings.address != self.network {
            bound.network = Some(match &settings.address {
                None => None,
                Some(address) => {
                    let socket = network_socket(address, snapshot.user.as_ref());
                    let socket = socket.map_err(|error| NotBound {
                        address: address.clone(),
                        error,
                    })?;
                    Some((address.clone(), socket))
                }
            });
        }
        Ok(bound)
    }

    /// Notes that these are open now.
    pub(super) fn note(&mut self, bound: &Bound) {
        if let Some(control) = &bound.control {
            let file = control.as_ref();
            self.control = file.map(|file| (file.path.clone(), file.identity));
        }
        if let Some(network) = &bound.network {
            self.network = network.as_ref().map(|(address, _)| address.clone());
        }
    }
}

impl Bound {
    /// Whether it changes something.
    pub(super) fn is_empty(&self) -> bool {
        self.control.is_none() && self.network.is_none()
    }
}

/// Where the control socket of a configuration is, unless it says so itself: in the directory that systemd made, or among
/// the user's own.
pub(crate) fn default_socket(config: &Path) -> Option<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(directories) = from("RUNTIME_DIRECTORY") {
        let first = std::env::split_paths(&directories).next()?;
        return Some(first.join("control.sock"));
    }
    let directory = PathBuf::from(from("XDG_RUNTIME_DIR")?);
    let name = format!("{:016x}.sock", hash(&absolute(config)));
    Some(directory.join("portcullis").join(name))
}

/// The path of a configuration's file, the same however it is written; a link that stands for the file itself is kept.
pub(crate) fn absolute(config: &Path) -> PathBuf {
    let whole = std::path::absolute(config).unwrap_or_else(|_| config.to_owned());
    let directory = whole.parent().and_then(|it| it.canonicalize().ok());
    match (directory, whole.file_name()) {
        (Some(directory), Some(name)) => directory.join(name),
        (_, _) => whole,
    }
}

/// The same number for the same path in every version of the program.
fn hash(path: &Path) -> u64 {
    use std::hash::Hasher as _;
    use std::os::unix::ffi::OsStrExt as _;
    let mut hasher = siphasher::sip::SipHasher24::new();
    hasher.write(path.as_os_str().as_bytes());
    hasher.finish()
}

/// Binds the control socket, for its owner alone from the first moment. It takes the place of one that is there: that of a
/// process that is gone, or that is about to end.
fn control_socket(path: &Path, user: Option<&User>) -> io::Result<File> {
    if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
        let made = std::fs::DirBuilder::new().mode(0o700).create(directory);
        if let Err(error) = made
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(error);
        }
    }
    let socket = server::bind_socket(path, for_owner(user), true)?;
    Ok(File {
        path: path.to_owned(),
        identity: server::socket_identity(path),
        socket: Some(socket),
    })
}

fn for_owner(user: Option<&User>) -> SocketAccess {
    SocketAccess {
        mode: 0o600,
        owner: user.map(|user| user.uid),
        group: user.map_or_else(|| rustix::process::getegid().as_raw(), |user| user.gid),
    }
}

fn network_socket(address: &ListenAddress, user: Option<&User>) -> io::Result<Socket> {
    let tcp = |address: std::net::SocketAddr| {
        let socket = std::net::TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(Socket::Tcp(socket))
    };
    match address {
        ListenAddress::Tcp(address) => tcp(*address),
        ListenAddress::AnyPort(ip, _) => tcp(std::net::SocketAddr::new(*ip, 0)),
        ListenAddress::Unix(path) => {
            server::bind_socket(path, for_owner(user), false).map(Socket::Unix)
        }
        ListenAddress::Inherited(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// The file of a socket: its path, and which file it is.
type Known = (PathBuf, Option<(u64, u64)>);

/// The doors that the admin thread keeps open.
#[derive(Debug, Default)]
pub(super) struct Open {
    control: Option<(File, JoinHandle<()>)>,
    network: Option<(Option<Known>, JoinHandle<()>)>,
}

impl Open {
    /// Opens what was bound, and then closes what it replaces. Connections that are open go on.
    pub(super) fn change(&mut self, bound: Bound, shared: &Arc<Shared>) {
        if let Some(control) = bound.control {
            let opened = control.and_then(|mut file| {
                let socket = file.socket.take()?;
                let socket = Socket::Unix(socket);
                let task = tokio::spawn(accept(socket, Door::Control, Arc::clone(shared)));
                Some((file, task))
            });
            close(
                std::mem::replace(&mut self.control, opened)
                    .map(|(file, task)| (Some((file.path.clone(), file.identity)), task)),
            );
        }
        if let Some(network) = bound.network {
            let opened = network.map(|(address, socket)| {
                let file = match &address {
                    ListenAddress::Unix(path) => {
                        Some((path.clone(), server::socket_identity(path)))
                    }
                    ListenAddress::Tcp(_)
                    | ListenAddress::AnyPort(..)
                    | ListenAddress::Inherited(_) => None,
                };
                (
                    file,
                    tokio::spawn(accept(socket, Door::Network, Arc::clone(shared))),
                )
            });
            close(std::mem::replace(&mut self.network, opened));
        }
    }

    /// Closes all.
    pub(super) fn close(&mut self) {
        let control = self.control.take();
        close(control.map(|(file, task)| (Some((file.path.clone(), file.identity)), task)));
        close(self.network.take());
    }
}

/// Closes a door, and removes its file, if that is still its own.
fn close(door: Option<(Option<Known>, JoinHandle<()>)>) {
    let Some((file, task)) = door else { return };
    task.abort();
    if let Some((path, identity)) = file {
        server::forget_socket(&path, identity);
    }
}

/// What is listened on.
enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
    /// The control socket, for this user and root.
    Control(UnixListener, u32),
}

impl Listening {
    /// Takes a socket that is bound.
    fn of(socket: Socket, door: Door) -> io::Result<Self> {
        match (socket, door) {
            (Socket::Tcp(socket), _) => {
                let address = socket.local_addr()?;
                let listener = TcpListener::from_std(socket)?;
                tracing::info!(%address, "the admin listener is open");
                Ok(Self::Tcp(listener))
            }
            (Socket::Unix(socket), Door::Network) => UnixListener::from_std(socket).map(Self::Unix),
            (Socket::Unix(socket), Door::Control) => {
                let own = rustix::process::geteuid().as_raw();
                Ok(Self::Control(UnixListener::from_std(socket)?, own))
            }
        }
    }

    /// The next connection; `None` where its peer may not use the control socket.
    async fn accept(&self) -> io::Result<Option<Stream>> {
        match self {
            Self::Tcp(listener) => Ok(Some(Stream::Tcp(listener.accept().await?.0))),
            Self::Unix(listener) => Ok(Some(Stream::Unix(listener.accept().await?.0))),
            Self::Control(listener, own) => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred()?.uid();
                if uid == 0 || uid == *own {
                    return Ok(Some(Stream::Unix(stream)));
                }
                tracing::warn!(
                    uid,
                    "a connection to the control socket was closed: its peer is another user"
                );
                Ok(None)
            }
        }
    }
}

/// Accepts connections for ever, so many at a time.
async fn accept(socket: Socket, door: Door, shared: Arc<Shared>) {
    let listening = match Listening::of(socket, door) {
        Ok(listening) => listening,
        Err(error) => return tracing::error!(%error, "a socket of the admin thread cannot be used"),
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let stream = match listening.accept().await {
            Ok(Some(stream)) => stream,
            Ok(None) => continue,
            Err(error) => {
                tracing::debug!(%error, "the admin thread cannot accept a connection for now");
                sleep(EXHAUSTED).await;
                continue;
            }
        };
        // One too many is closed at once, so that the others are served.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            match door {
                Door::Control => serve(stream, door, shared).await,
                Door::Network => serve_network(stream, shared).await,
            }
            drop(place);
        });
    }
}

/// Serves a connection to the admin listener, over TLS where that has certificates.
async fn serve_network(stream: Stream, shared: Arc<Shared>) {
    let settings = shared.snapshots.borrow().admin.clone();
    let tls = settings.as_ref().and_then(|settings| settings.tls.as_ref());
    match tls {
        None => serve(stream, Door::Network, shared).await,
        Some(tls) => match timeout(PATIENCE, tls.accept(stream, |_| None)).await {
            Ok(Ok(accepted)) => serve(accepted.stream, Door::Network, shared).await,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake of the admin listener failed");
            }
            Err(_) => tracing::debug!("a TLS handshake of the admin listener took too long"),
        },
    }
}

async fn serve<S>(stream: S, door: Door, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let answer = |request: http::Request<Incoming>| {
        let shared = Arc::clone(&shared);
        async move {
            let answered = super::answer(&shared, door, request).await;
            Ok::<http::Response<Full<Bytes>>, Infallible>(answered)
        }
    };
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service_fn(answer));
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection of the admin thread failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_the_same_however_it_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("a");
        std::fs::create_dir(&inside).unwrap();
        let direct = absolute(&inside.join("gateway.yaml"));
        assert_eq!(absolute(&inside.join("../a/gateway.yaml")), direct);
        assert_ne!(hash(&direct), hash(&absolute(&inside.join("other.yaml"))));
        let packaged = Path::new("/etc/portcullis/gateway.yaml");
        assert_eq!(hash(packaged), 0xb880_6c6d_bc04_bde9);
    }
}
