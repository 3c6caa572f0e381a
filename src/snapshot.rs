//! `Snapshot`: everything that a configuration compiles into. Immutable; it does not know where it came from.

mod acme;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderName, Request, StatusCode};

pub(crate) use self::acme::{
    Acme, AcmeDirectory, AcmeSettings, ChallengeKind, DnsHook, Eab, Hmac, KeyKind, Managed,
};

use crate::auth::{ClaimPath, Claims, Hashing, LiveRevoked, Verifier, VerifierSettings};
use crate::compress::CompressedFiles;
use crate::edits::HeaderEdits;
use crate::message::error_pages::ErrorPages;
use crate::net::client::TrustedProxies;
use crate::net::dial::Dialer;
use crate::net::limits::Bounds;
use crate::net::tls::{ShownChain, TicketRing, Tls};
use crate::observe::access_log::AccessLog;
use crate::observe::counts::Counts;
use crate::privilege::User;
use crate::proxy::{Upstream, Vouched};
use crate::route::{Route, RouteTable};
use crate::state::State;
use crate::tokens::TokenService;

/// A compiled configuration.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// The number of worker threads.
    pub(crate) workers: usize,
    /// The user that serves; `None` is whoever started the process.
    pub(crate) user: Option<User>,
    /// The listeners.
    pub(crate) listeners: Vec<Arc<Listener>>,
    /// The admin listener and the control socket, where the configuration says something of them.
    pub(crate) admin: Option<Arc<AdminSettings>>,
    /// Whether the process is about to stop; the same across reloads.
    pub(crate) readiness: Arc<Readiness>,
    /// How many routes have series of their own.
    pub(crate) metrics_routes: usize,
    /// The proxies whose forwarded headers are trusted.
    pub(crate) trusted: TrustedProxies,
    /// Limits and timeouts.
    pub(crate) bounds: Arc<Bounds>,
    /// Finds a route by host, path and method.
    pub(crate) table: RouteTable,
    /// All routes, in the configuration's order.
    pub(crate) routes: Vec<Arc<Route>>,
    /// All verifiers with their settings, for the next configuration to reuse.
    pub(crate) verifiers: Vec<(VerifierSettings, Arc<Verifier>)>,
    /// All upstreams, for the next configuration to reuse.
    pub(crate) upstreams: Vec<Arc<Upstream>>,
    /// Headers that only the gateway may set.
    pub(crate) vouched: Vouched,
    /// Edits of responses without a route.
    pub(crate) response_headers: HeaderEdits,
    /// Error pages of refusals without a route.
    pub(crate) errors: Option<Arc<ErrorPages>>,
    /// The access log.
    pub(crate) access_log: Option<Arc<AccessLog>>,
    /// The claims that may name the user in access records; the first one present is used.
    pub(crate) logged_user: Vec<ClaimPath>,
    /// All numbers; the same across reloads.
    pub(crate) counts: Arc<Counts>,
    /// Makes outgoing connections; the same across reloads.
    pub(crate) dialer: Dialer,
    /// The level of the operator's log.
    pub(crate) level: tracing::Level,
    /// The keys of TLS session tickets; the same across reloads.
    pub(crate) tickets: Arc<TicketRing>,
    /// Where state is kept.
    pub(crate) state: Option<State>,
    /// The certificates that the gateway orders itself.
    pub(crate) acme: Option<Arc<Acme>>,
    /// The files that were compressed; the same across reloads.
    pub(crate) compressed: Arc<CompressedFiles>,
    /// The token service.
    pub(crate) tokens: Option<Arc<TokenService>>,
    /// Its ended sessions and revoked tokens; the same across reloads.
    pub(crate) ended: Arc<LiveRevoked>,
    /// The threads that check passwords; the same across reloads.
    pub(crate) hashing: Arc<Hashing>,
    /// The configuration's own tests.
    pub(crate) tests: Vec<PolicyTest>,
    /// A description by section, for the log of a reload.
    pub(crate) summary: BTreeMap<String, String>,
}

/// A request, and the expected outcome.
#[derive(Debug)]
pub(crate) struct PolicyTest {
    /// Its place in the file, for messages.
    pub(crate) place: String,
    /// The request as written.
    pub(crate) text: String,
    /// Method, target and headers.
    pub(crate) request: Request<()>,
    /// Whether it uses TLS; where not given, as the first listener does.
    pub(crate) secure: Option<bool>,
    /// The claims of its token; without them the token in its headers, if any, is used.
    pub(crate) claims: Option<Claims>,
    /// The certificate that its client shows.
    pub(crate) certificate: Option<ShownChain>,
    /// The client's address; `None` on a Unix socket.
    pub(crate) from: Option<IpAddr>,
    /// The expected outcome.
    pub(crate) expect: Expectation,
}

/// The expected outcome of a request; anything that is not given may have any value. Without a status and a reason code
/// the request must be allowed.
#[derive(Debug, Default)]
pub(crate) struct Expectation {
    /// The status of the gateway's own response.
    pub(crate) status: Option<StatusCode>,
    /// The reason code of the refusal, as in the access log.
    pub(crate) reason: Option<String>,
    /// The route's name.
    pub(crate) route: Option<String>,
    /// The upstream's name.
    pub(crate) upstream: Option<String>,
    /// Headers that the app receives; `None` for one that it must not receive.
    pub(crate) headers: Vec<(HeaderName, Option<String>)>,
}

/// Whether the gateway wants more requests: not from the first moment of a stop on.
#[derive(Debug, Default)]
pub(crate) struct Readiness(AtomicBool);

impl Readiness {
    /// The stop begins.
    pub(crate) fn drain(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it has begun.
    pub(crate) fn is_draining(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// `admin`.
#[derive(Default)]
pub(crate) struct AdminSettings {
    /// The address of the admin listener; without one there is only the control socket.
    pub(crate) address: Option<ListenAddress>,
    /// The token that may read and change.
    pub(crate) token: Option<String>,
    /// The token that may read.
    pub(crate) read_token: Option<String>,
    /// The names that the listener answers to, beside IP addresses and localhost.
    pub(crate) hosts: Vec<String>,
    /// Its certificates; `None` is plain text.
    pub(crate) tls: Option<Tls>,
    /// Where the control socket is; `None` is the usual place.
    pub(crate) socket: Option<PathBuf>,
}

impl std::fmt::Debug for AdminSettings {
    /// Tokens are never printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminSettings")
            .field("address", &self.address)
            .field("hosts", &self.hosts)
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

/// One listener's settings.
#[derive(Debug)]
pub(crate) struct Listener {
    /// The address.
    pub(crate) address: ListenAddress,
    /// Its certificates; `None` is plain text.
    pub(crate) tls: Option<Tls>,
    /// The TLS port that plain-text requests are redirected to.
    pub(crate) redirect_to_https: Option<u16>,
    /// Whether every connection begins with a PROXY header.
    pub(crate) proxy_protocol: bool,
    /// Who may connect to it, if it is a Unix socket.
    pub(crate) access: SocketAccess,
}

/// The file of a Unix socket: who may connect.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct SocketAccess {
    /// Its permission bits.
    pub(crate) mode: u32,
    /// Its owner; `None` is whoever makes it.
    pub(crate) owner: Option<u32>,
    /// Its group.
    pub(crate) group: u32,
}

/// The address of a listener; identifies it across reloads.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum ListenAddress {
    /// An address and a port.
    Tcp(SocketAddr),
    /// An IP address and any free port; the number distinguishes several of them.
    AnyPort(IpAddr, usize),
    /// A socket in the file system.
    Unix(PathBuf),
    /// The sockets that systemd passes under this name.
    Inherited(String),
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::AnyPort(ip, _) => SocketAddr::new(*ip, 0).fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Inherited(name) => write!(f, "the systemd socket `{name}`"),
        }
    }
}
