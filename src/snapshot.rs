//! `Snapshot`: all that one configuration compiles into. Immutable; it does not know where it
//! came from.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use http::{HeaderName, Request, StatusCode};

use crate::auth::{ClaimPath, Claims, LiveRevoked, Verifier, VerifierSettings};
use crate::edits::HeaderEdits;
use crate::net::client::TrustedProxies;
use crate::net::dial::Dialer;
use crate::net::limits::Bounds;
use crate::net::tls::Tls;
use crate::observe::access_log::AccessLog;
use crate::proxy::{Upstream, Vouched};
use crate::route::{Route, RouteTable};
use crate::tokens::TokenService;

/// One configuration, compiled.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// How many worker threads serve.
    pub(crate) workers: usize,
    /// Where connections come in.
    pub(crate) listeners: Vec<Arc<Listener>>,
    /// The peers whose word on the client is believed.
    pub(crate) trusted: TrustedProxies,
    /// Sizes and deadlines.
    pub(crate) bounds: Arc<Bounds>,
    /// Host, path and method to route.
    pub(crate) table: RouteTable,
    /// All routes, in the configuration's order.
    pub(crate) routes: Vec<Arc<Route>>,
    /// All verifiers with what they were made from, for the next configuration to keep.
    pub(crate) verifiers: Vec<(VerifierSettings, Arc<Verifier>)>,
    /// All upstreams, for the next configuration to keep.
    pub(crate) upstreams: Vec<Arc<Upstream>>,
    /// Headers that only the gateway may set.
    pub(crate) vouched: Vouched,
    /// Edits of responses that belong to no route.
    pub(crate) response_headers: HeaderEdits,
    /// Where access records go.
    pub(crate) access_log: Option<Arc<AccessLog>>,
    /// The claims whose first one that is there names the user in access records.
    pub(crate) logged_user: Vec<ClaimPath>,
    /// What connects to others; the same over all reloads.
    pub(crate) dialer: Dialer,
    /// The level of the operator's log.
    pub(crate) level: tracing::Level,
    /// The service that issues tokens.
    pub(crate) tokens: Option<Arc<TokenService>>,
    /// What has ended of the tokens that it issued; the same over all reloads.
    pub(crate) ended: Arc<LiveRevoked>,
    /// What it expects of itself.
    pub(crate) tests: Vec<PolicyTest>,
    /// What it says in words, by part, for the report of a reload.
    pub(crate) summary: BTreeMap<String, String>,
}

/// A request, and what is expected to become of it.
#[derive(Debug)]
pub(crate) struct PolicyTest {
    /// Where it stands, for messages.
    pub(crate) place: String,
    /// The request as it is written.
    pub(crate) text: String,
    /// Method, target and headers.
    pub(crate) request: Request<()>,
    /// Whether it comes over TLS; by the first listener where it is not said.
    pub(crate) secure: Option<bool>,
    /// The claims of its token; without them it has the token of its headers, or none.
    pub(crate) claims: Option<Claims>,
    /// What is expected.
    pub(crate) expect: Expectation,
}

/// What is expected to become of a request; what is not said may be anything. Without a status
/// and a reason the request must be let pass.
#[derive(Debug, Default)]
pub(crate) struct Expectation {
    /// The gateway's own response.
    pub(crate) status: Option<StatusCode>,
    /// The word for why it is refused, as the access log has it.
    pub(crate) reason: Option<String>,
    /// The route's name.
    pub(crate) route: Option<String>,
    /// The upstream's name.
    pub(crate) upstream: Option<String>,
    /// Headers that the app sees; `None` for one that it must not see.
    pub(crate) headers: Vec<(HeaderName, Option<String>)>,
}

/// One listener's settings.
#[derive(Debug)]
pub(crate) struct Listener {
    /// Where it listens.
    pub(crate) address: ListenAddress,
    /// Its certificates; `None` is plain text.
    pub(crate) tls: Option<Tls>,
    /// The TLS port that plain requests are sent to.
    pub(crate) redirect_to_https: Option<u16>,
}

/// Where a listener listens; what it is known by over reloads.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum ListenAddress {
    /// An address and a port.
    Tcp(SocketAddr),
    /// An address and any port that is free; the number tells several of them apart.
    AnyPort(IpAddr, usize),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::AnyPort(ip, _) => SocketAddr::new(*ip, 0).fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
