//! The location of the demo's files, and its ports: the repository's own `gateway.yaml`, one that the command line
//! names, or the files built into the program, in a directory of their own and on free ports.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{DemoError, file_error};
use crate::cli::CONFIG;
use crate::proxy::Address;
use crate::snapshot::{ListenAddress, Snapshot};

/// The files built into the program, without the configuration.
const PAGE: [(&str, &str); 4] = [
    (
        "static/index.html",
        include_str!("../../../static/index.html"),
    ),
    ("static/app.js", include_str!("../../../static/app.js")),
    (
        "static/style.css",
        include_str!("../../../static/style.css"),
    ),
    (
        "static/favicon.svg",
        include_str!("../../../static/favicon.svg"),
    ),
];
/// The configuration.
const GATEWAY: &str = include_str!("../../../gateway.yaml");

/// The ports in it: of the plain listener, of the TLS listener, and of the sample app.
const PORTS: [(u16, &str); 3] = [(8080, "HTTP"), (8443, "HTTPS"), (9000, "the sample app")];
/// How many ports after a taken one are tried before the system chooses one.
const TRIED: u16 = 20;

/// The location of the demo.
#[derive(Debug)]
pub(super) struct Place {
    /// The configuration.
    pub(super) config: PathBuf,
    /// Messages about ports and files.
    pub(super) notes: Vec<String>,
    /// The chosen ports, bound until they are needed, so that no other program gets them meanwhile.
    held: Vec<TcpListener>,
    /// Deleted at the end, with all its content.
    _temporary: Option<TempDir>,
}

impl Place {
    /// Releases the ports that the gateway is about to bind, and returns the sample app's listener, if one is held.
    pub(super) fn release(&mut self) -> Option<TcpListener> {
        let app = self.held.pop();
        self.held.clear();
        app
    }

    /// An existing configuration.
    pub(super) fn of(config: PathBuf) -> Result<Self, DemoError> {
        if !config.is_file() {
            return Err(DemoError::NoConfiguration(config));
        }
        Ok(Self {
            config,
            notes: Vec::new(),
            held: Vec::new(),
            _temporary: None,
        })
    }

    /// The repository's configuration, if it is in the current directory; else the built-in files, in `directory` or a
    /// temporary directory, with the plain listener on `port`.
    pub(super) fn find(directory: Option<PathBuf>, port: Option<u16>) -> Result<Self, DemoError> {
        let Some(directory) = directory else {
            let here = PathBuf::from(CONFIG);
            if port.is_none() && fs::read_to_string(&here).is_ok_and(|text| is_the_demos(&text)) {
                return Self::of(here);
            }
            let temporary = TempDir::with_prefix("portcullis-demo-")
                .map_err(|source| file_error(&std::env::temp_dir(), source))?;
            let mut place = Self::bring(temporary.path(), port)?;
            let note = format!(
                "Its files are in {}/ and are deleted with it; --dir DIR keeps them.",
                temporary.path().display()
            );
            place.notes.push(note);
            place._temporary = Some(temporary);
            return Ok(place);
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(|source| file_error(&directory, source))?;
        let there = directory.join(CONFIG);
        if there.exists() {
            // An edited file must not be overwritten.
            return match port {
                None => Self::of(there),
                Some(_) => Err(DemoError::HasPorts(there)),
            };
        }
        let mut place = Self::bring(&directory, port)?;
        let note = format!("Its files are in {}/ and stay there.", directory.display());
        place.notes.push(note);
        Ok(place)
    }

    /// Writes the files that do not exist.
    fn bring(directory: &Path, port: Option<u16>) -> Result<Self, DemoError> {
        let mut notes = Vec::new();
        let mut held = Vec::new();
        let mut config = GATEWAY.to_owned();
        for (at, (usual, whose)) in PORTS.into_iter().enumerate() {
            let listener = match port.filter(|_| at == 0) {
                Some(port) => bind(port).map_err(|error| DemoError::Bind {
                    address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
                    error,
                })?,
                None => free(usual, whose, &mut notes)?,
            };
            let chosen = listener.local_addr().map_err(DemoError::App)?.port();
            let address = |port: u16| format!("127.0.0.1:{port}");
            config = config.replace(&address(usual), &address(chosen));
            held.push(listener);
        }
        let files = PAGE.into_iter().chain([(CONFIG, config.as_str())]);
        for (name, text) in files {
            let path = directory.join(name);
            if path.exists() {
                continue;
            }
            let beside = path.parent().unwrap_or(directory);
            fs::create_dir_all(beside).map_err(|source| file_error(beside, source))?;
            fs::write(&path, text).map_err(|source| file_error(&path, source))?;
        }
        Ok(Self {
            config: directory.join(CONFIG),
            notes,
            held,
            _temporary: None,
        })
    }
}

/// Whether a configuration is the demo's own, on whatever ports: it names the certificate that only the demo creates,
/// and the route that only its page uses.
pub(super) fn is_the_demos(text: &str) -> bool {
    text.contains("certs/demo.pem") && text.contains("path: /demo/*")
}

fn bind(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

/// A free port, the usual one if possible.
fn free(usual: u16, whose: &str, notes: &mut Vec<String>) -> Result<TcpListener, DemoError> {
    let last = usual.saturating_add(TRIED);
    for port in (usual..=last).chain([0]) {
        match bind(port) {
            Ok(listener) => {
                let chosen = listener.local_addr().map_err(DemoError::App)?.port();
                if chosen != usual {
                    notes.push(format!("Port {usual} is taken: {whose} is on {chosen}."));
                }
                return Ok(listener);
            }
            Err(error) if port == 0 => return Err(DemoError::App(error)),
            Err(_) => {}
        }
    }
    Err(DemoError::App(ErrorKind::AddrInUse.into()))
}

/// The addresses on which a configuration listens, and where it expects the app.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    /// The first plain listener.
    pub(super) http: SocketAddr,
    /// The first TLS listener.
    pub(super) https: SocketAddr,
    /// The upstream that is called `app`.
    pub(super) app: SocketAddr,
}

impl Addresses {
    /// The addresses of a configuration; missing ones are those of the demo's own.
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let [http, https, app] =
            PORTS.map(|(port, _)| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let first = |tls: bool, usual| {
            let listeners = snapshot.listeners.iter();
            let mut found = listeners.filter_map(|listener| match &listener.address {
                ListenAddress::Tcp(address) if listener.tls.is_some() == tls => Some(*address),
                ListenAddress::Tcp(_)
                | ListenAddress::AnyPort(..)
                | ListenAddress::Unix(_)
                | ListenAddress::Inherited(_) => None,
            });
            found.next().unwrap_or(usual)
        };
        let upstream = snapshot.upstreams.iter().find(|it| it.name == "app");
        let server = upstream.and_then(|it| it.settings().servers.first());
        let named = match server.map(|server| &server.address) {
            Some(Address::Tcp(host, port)) => {
                let host = if host == "localhost" {
                    "127.0.0.1"
                } else {
                    host
                };
                host.parse().ok().map(|ip| SocketAddr::new(ip, *port))
            }
            Some(Address::Unix(_)) | None => None,
        };
        Self {
            http: first(false, http),
            https: first(true, https),
            // Never at an address of another machine.
            app: named.filter(|app| app.ip().is_loopback()).unwrap_or(app),
        }
    }

    /// The page's URL for a browser on this machine.
    pub(super) fn page(&self) -> String {
        if self.http.ip().is_unspecified() {
            format!("http://127.0.0.1:{}", self.http.port())
        } else {
            format!("http://{}", self.http)
        }
    }

    /// The page's URL over TLS, with a name that the certificate contains.
    pub(super) fn secure_page(&self) -> String {
        format!("https://localhost:{}", self.https.port())
    }

    /// An error if another program listens already. The gateway would report that, too, but only after a while, and
    /// without a way out.
    pub(super) fn are_free(&self) -> Result<(), DemoError> {
        for address in [self.http, self.https] {
            if let Err(error) = TcpListener::bind(address)
                && error.kind() == ErrorKind::AddrInUse
            {
                return Err(DemoError::Taken(address));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_are_those_of_the_repositorys_gateway_yaml() {
        let [(http, _), (https, _), (app, _)] = PORTS;
        assert!(GATEWAY.contains(&format!("servers: [http://127.0.0.1:{app}]")));

        for port in [http, https] {
            assert!(GATEWAY.contains(&format!("address: 127.0.0.1:{port}")));
        }
        assert!(is_the_demos(GATEWAY));
        assert!(
            GATEWAY.contains("body: pong"),
            "the live edit finds its line"
        );
    }
}
