//! gateway.yaml as types: the structure is checked, the meaning is not. Every value carries its place. No names are
//! resolved, no files are opened, and nothing is compiled here.
//!
//! A part with errors contains what could be read, and its `broken` is set: what it lacks causes no second message.

mod acme;
mod limiting;
mod route;

use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;
use serde_json::Value;

use super::mask::quoted;
use super::place::Place;
use crate::net::tls::UnknownName;
use crate::proxy::Condition;
use crate::snapshot::PolicyTest;
use crate::state::StateKey;

pub(crate) use acme::{Acme, Directory as AcmeDirectory, Dns as AcmeDns, Eab as AcmeEab};
pub(crate) use limiting::{AddressLists, InFlight, LimitRule, LimitSource, Limiting, RateLimit};
pub(crate) use route::{
    Accepted, ApiKeyRule, AskRule, Auth, BasicRule, CertificateRule, Compress, Cors, Defaults,
    ErrorPages, Forwards, HeaderChanges, Headers, HostPattern, JwtRule, ProxyTo, Redirect, Respond,
    Rewrite, Route, ServedRoot, Static,
};

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Spanned<T> {
    /// The value.
    pub(crate) value: T,
    /// Its place; line 0 for a default.
    pub(crate) place: Place,
    /// Whether the value must not appear in messages: a secret, or an expanded variable.
    pub(crate) private: bool,
}

impl<T> Spanned<T> {
    /// A default value, without a place.
    pub(crate) fn default_of(value: T) -> Self {
        Self {
            value,
            place: Place::default(),
            private: false,
        }
    }
}

impl Spanned<String> {
    /// The text for a message, in backticks unless it is private.
    pub(crate) fn shown(&self) -> String {
        if self.private {
            "the expanded value".to_owned()
        } else {
            quoted(&self.value)
        }
    }
}

/// Name and value pairs in their order, without duplicate names.
pub(crate) type Named<T> = Vec<(Spanned<String>, T)>;

/// An item of `trusted_proxies`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum TrustedPeers {
    /// Peers with an address in this network.
    Network(IpNet),
    /// Peers on Unix sockets.
    Unix,
}

/// The whole configuration.
#[derive(Debug)]
pub(crate) struct Gateway {
    /// The number of event loops.
    pub(crate) workers: Spanned<Workers>,
    /// The user that serves.
    pub(crate) user: Option<Account>,
    /// The listeners; at least one unless an error was reported.
    pub(crate) listeners: Vec<Listener>,
    /// The proxies whose forwarded headers are trusted.
    pub(crate) trusted_proxies: Vec<Spanned<TrustedPeers>>,
    /// Limits for clients.
    pub(crate) limits: Limits,
    /// Timeouts for clients.
    pub(crate) timeouts: Timeouts,
    /// The verifiers of tokens.
    pub(crate) jwt: Named<Verifier>,
    /// The token service.
    pub(crate) tokens: Option<Tokens>,
    /// Where the gateway stores its state.
    pub(crate) state: Option<State>,
    /// The apps behind the gateway.
    pub(crate) upstreams: Named<Upstream>,
    /// The defaults of all routes.
    pub(crate) defaults: Defaults,
    /// The routes; at least one unless an error was reported.
    pub(crate) routes: Vec<Route>,
    /// The configuration's own tests.
    pub(crate) tests: Vec<Spanned<Test>>,
    /// The pages of refusals.
    pub(crate) errors: Option<ErrorPages>,
    /// The memory for compressed files, in bytes, at least 1.
    pub(crate) compressed: Spanned<u64>,
    /// The logs.
    pub(crate) log: Log,
    /// The admin listener and the control socket.
    pub(crate) admin: Option<Admin>,
    /// How many routes have series of their own.
    pub(crate) metrics_routes: Spanned<u32>,
}

/// `admin`.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    /// Its place.
    pub(crate) place: Place,
    /// Whether an error was reported inside.
    pub(crate) broken: bool,
    /// The address of the listener.
    pub(crate) address: Option<Spanned<ListenAddress>>,
    /// The token that may change.
    pub(crate) token: Option<Spanned<String>>,
    /// The token that may read.
    pub(crate) read_token: Option<Spanned<String>>,
    /// The names that it answers to.
    pub(crate) hosts: Vec<Spanned<String>>,
    /// Its TLS settings, with certificates from files alone.
    pub(crate) tls: Option<Tls>,
    /// The path of the control socket.
    pub(crate) socket: Option<Spanned<PathBuf>>,
}

/// One of `tests`.
#[derive(Debug)]
pub(crate) struct Test {
    /// The test, without the certificate.
    pub(crate) test: PolicyTest,
    /// The certificate that its client shows, a PEM or DER file.
    pub(crate) certificate: Option<Spanned<PathBuf>>,
}

/// `user`.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    /// The user's name.
    pub(crate) name: Spanned<String>,
    /// Its group's name.
    pub(crate) group: Option<Spanned<String>>,
}

/// `workers`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Workers {
    /// One per core.
    Auto,
    /// 1 to 1024.
    Count(u16),
}

/// One of `listeners`.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    /// Its place.
    pub(crate) place: Place,
    /// Whether an error was reported inside.
    pub(crate) broken: bool,
    /// The address.
    pub(crate) address: Spanned<ListenAddress>,
    /// The permission bits of a Unix socket.
    pub(crate) mode: Option<Spanned<u32>>,
    /// The group of a Unix socket.
    pub(crate) group: Option<Spanned<String>>,
    /// Whether it only redirects, and where.
    pub(crate) redirect_to_https: Spanned<RedirectToHttps>,
    /// Whether connections begin with a PROXY header.
    pub(crate) proxy_protocol: Spanned<bool>,
    /// The TLS settings; `None` is plain text.
    pub(crate) tls: Option<Tls>,
}

/// `redirect_to_https`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RedirectToHttps {
    /// Requests are served.
    Off,
    /// To the port of the first TLS listener.
    FirstTls,
    /// To this port.
    Port(u16),
}

/// The address of a listener.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum ListenAddress {
    /// An address and a port; with port 0 the system chooses one.
    Tcp(std::net::SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// The name of sockets that systemd passes.
    Inherited(String),
}

/// `tls` of a listener.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    /// Its place.
    pub(crate) place: Place,
    /// At least one, unless there is `acme` or an error was reported.
    pub(crate) certificates: Vec<Certificate>,
    /// The certificates that are ordered.
    pub(crate) acme: Option<Acme>,
    /// What a client gets that asks for a name without a certificate.
    pub(crate) unknown_name: Option<Spanned<UnknownName>>,
    /// The client certificates that are asked for.
    pub(crate) client_auth: Option<ClientAuth>,
    /// 1.2 by default.
    pub(crate) min_version: Spanned<TlsVersion>,
    /// Whether HTTP/2 is served.
    pub(crate) http2: bool,
}

/// `client_auth` of a listener's `tls`.
#[derive(Clone, Debug)]
pub(crate) struct ClientAuth {
    /// Its place.
    pub(crate) place: Place,
    /// The certificate authorities, a PEM file.
    pub(crate) ca: Spanned<PathBuf>,
    /// Whether clients without a certificate are refused; true by default.
    pub(crate) required: Spanned<bool>,
    /// Revocation lists, PEM or DER files.
    pub(crate) crl: Vec<Spanned<PathBuf>>,
}

/// One of `certificates`.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    /// The certificate chain, a PEM file.
    pub(crate) cert: Spanned<PathBuf>,
    /// The private key, a PEM file.
    pub(crate) key: Spanned<PathBuf>,
}

/// A TLS version.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum TlsVersion {
    /// RFC 5246.
    V1_2,
    /// RFC 8446.
    V1_3,
}

/// `limits`; sizes in bytes.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Connections in total, at least 1.
    pub(crate) connections: Spanned<u32>,
    /// Connections per address, at least 1.
    pub(crate) connections_per_ip: Spanned<u32>,
    /// A request's head, at least 1.
    pub(crate) header_bytes: Spanned<u64>,
    /// Header fields of a request, at least 1.
    pub(crate) header_count: Spanned<u32>,
    /// A request's target, at least 1.
    pub(crate) uri_bytes: Spanned<u64>,
    /// A request's body, at least 1.
    pub(crate) body_bytes: Spanned<u64>,
}

/// `timeouts`; only `shutdown` and `shutdown_streams` may be zero.
#[derive(Clone, Debug)]
pub(crate) struct Timeouts {
    /// For reading a request's head.
    pub(crate) header_read: Spanned<Duration>,
    /// Between two reads of a request's body.
    pub(crate) body_read: Spanned<Duration>,
    /// While a client reads nothing of a response.
    pub(crate) send: Spanned<Duration>,
    /// For an idle connection.
    pub(crate) keep_alive: Spanned<Duration>,
    /// For a TLS handshake.
    pub(crate) tls_handshake: Spanned<Duration>,
    /// For requests in flight after the stop signal; zero cuts them off at once.
    pub(crate) shutdown: Spanned<Duration>,
    /// For tunnels and streams after the stop signal, at most `shutdown`.
    pub(crate) shutdown_streams: Spanned<Duration>,
    /// Between the signal to stop and the drain; 0 by default.
    pub(crate) shutdown_delay: Spanned<Duration>,
}

/// One of `jwt`.
#[derive(Clone, Debug)]
pub(crate) struct Verifier {
    /// Its place.
    pub(crate) place: Place,
    /// Whether an error was reported inside.
    pub(crate) broken: bool,
    /// Algorithms by their JOSE names, all known; empty where none is named.
    pub(crate) algorithms: Vec<Spanned<String>>,
    /// Shared secrets: the current one, and older ones that are still accepted.
    pub(crate) secret: Vec<Spanned<Secret>>,
    /// PEM files.
    pub(crate) keys: Vec<KeyFile>,
    /// A key set.
    pub(crate) jwks: Option<Spanned<Jwks>>,
    /// The longest time before a key set at a URL is fetched again; 10 s to 24 h.
    pub(crate) jwks_refresh: Option<Spanned<Duration>>,
    /// How long an expired key set is still used; 1 h by default.
    pub(crate) stale_for: Spanned<Duration>,
    /// A PEM file with trusted roots for the key set's server.
    pub(crate) ca: Option<Spanned<PathBuf>>,
    /// The revoked tokens.
    pub(crate) revoked: Option<Spanned<PathBuf>>,
    /// The accepted issuers; empty where any is accepted.
    pub(crate) issuer: Vec<Spanned<String>>,
    /// The accepted audiences.
    pub(crate) audience: Option<Spanned<Audience>>,
    /// The tolerated clock difference; 30 s by default.
    pub(crate) leeway: Spanned<Duration>,
    /// Whether a token must have `exp`; true by default.
    pub(crate) require_exp: Spanned<bool>,
    /// The longest accepted time from `iat` to `exp`.
    pub(crate) max_lifetime: Option<Spanned<Duration>>,
    /// The required `typ` in the token's header.
    pub(crate) typ: Option<Spanned<String>>,
    /// Required claims and their values: dotted paths, and scalars or lists of scalars.
    pub(crate) claims: Named<Spanned<Value>>,
    /// What a token's `cnf` demands; `check` by default.
    pub(crate) cnf: Spanned<Cnf>,
    /// Where tokens are read from; only the header by default.
    pub(crate) from: Vec<Spanned<TokenSource>>,
    /// The place of `weak_secret: allow`.
    pub(crate) weak_secret: Option<Place>,
}

/// `cnf` of a verifier.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Cnf {
    /// A bound token is only accepted from its holder.
    Check,
    /// The same, and others are refused.
    Require,
    /// It is left to the app.
    Ignore,
}

/// `jwks`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Jwks {
    /// A file.
    File(PathBuf),
    /// A URL that begins with `https://`, or with `http://` and a loopback address.
    Url(crate::net::url::Url),
}

/// A shared secret. Its `Debug` hides it.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct Secret(String);

impl Secret {
    /// Wraps a secret's text.
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret's bytes.
    pub(crate) fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// `tokens`.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    /// Its place.
    pub(crate) place: Place,
    /// Whether an error was reported inside.
    pub(crate) broken: bool,
    /// The path prefix of its endpoints; `/api/token`.
    pub(crate) path: Spanned<String>,
    /// `iss` of its tokens.
    pub(crate) issuer: Option<Spanned<String>>,
    /// The algorithm of its signatures, by its JOSE name; ES256.
    pub(crate) algorithm: Spanned<String>,
    /// The directory of its keys.
    pub(crate) keys: Spanned<PathBuf>,
    /// The users file; without it there is `login`.
    pub(crate) users: Option<Spanned<PathBuf>>,
    /// The app that decides on logins, with the path and query of the request to it.
    pub(crate) login: Option<Spanned<(Server, PathAndQuery)>>,
    /// The lifetime of an access token, whole seconds; 5 min.
    pub(crate) access_lifetime: Spanned<Duration>,
    /// The lifetime of a refresh token, whole seconds; 24 h.
    pub(crate) refresh_lifetime: Spanned<Duration>,
    /// Whether a refresh token can be used only once; true.
    pub(crate) rotate_refresh: Spanned<bool>,
    /// How long a used one still returns the same replacement; 10 s.
    pub(crate) refresh_grace: Spanned<Duration>,
    /// How long a new key is published before it is used, whole seconds; 5 min.
    pub(crate) rotate_keys_after: Spanned<Duration>,
    /// The cookies that carry its tokens.
    pub(crate) cookies: Option<Cookies>,
    /// The cross-origin policy of its endpoints.
    pub(crate) cors: Option<Cors>,
    /// The field of a login with the user's name; `username`.
    pub(crate) username_field: Spanned<String>,
    /// Additional claims.
    pub(crate) claims: Named<Spanned<Value>>,
    /// Limits for password attempts.
    pub(crate) throttle: Throttle,
}

/// `state`.
#[derive(Clone, Debug)]
pub(crate) enum State {
    /// A directory.
    Directory(Spanned<PathBuf>),
    /// Servers of Redis or Valkey.
    Redis(Redis),
}

/// `redis` of `state`, and its other keys.
#[derive(Clone, Debug)]
pub(crate) struct Redis {
    /// One server, or nodes of a cluster; at least one unless an error was reported.
    pub(crate) urls: Vec<Spanned<String>>,
    /// The user name.
    pub(crate) username: Option<Spanned<String>>,
    /// The password.
    pub(crate) password: Option<Secret>,
    /// A PEM file with trusted roots for the servers.
    pub(crate) ca: Option<Spanned<PathBuf>>,
    /// The key that seals what is secret there.
    pub(crate) key: Option<StateKey>,
}

/// `cookies` of `tokens`.
#[derive(Clone, Debug)]
pub(crate) struct Cookies {
    /// The access token's; `access_token`.
    pub(crate) access: Spanned<String>,
    /// The refresh token's; `refresh_token`.
    pub(crate) refresh: Spanned<String>,
    /// Whether links from other sites send them too (`SameSite=Lax`); true.
    pub(crate) is_lax: Spanned<bool>,
    /// The domain whose hosts all get them.
    pub(crate) domain: Option<Spanned<String>>,
    /// The origins that may use them, besides the host's own.
    pub(crate) origins: Vec<Spanned<String>>,
}

/// `throttle` of `tokens`: attempts per time.
#[derive(Clone, Debug)]
pub(crate) struct Throttle {
    /// For one address; 10 per minute.
    pub(crate) per_ip: Option<(NonZeroU32, Duration)>,
    /// For one user; 5 per minute.
    pub(crate) per_user: Option<(NonZeroU32, Duration)>,
}

/// One of `keys`.
#[derive(Clone, Debug)]
pub(crate) struct KeyFile {
    /// The key's `kid` in token headers.
    pub(crate) kid: Option<Spanned<String>>,
    /// The PEM file.
    pub(crate) file: Spanned<PathBuf>,
}

/// `audience`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Audience {
    /// `any`: tokens for other audiences are accepted too.
    Any,
    /// One of these; at least one.
    OneOf(Vec<String>),
}

/// One of `from`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum TokenSource {
    /// `Authorization: Bearer`.
    Header,
    /// A cookie, by its name.
    Cookie(String),
    /// A query parameter, by its name.
    Query(String),
    /// `Sec-WebSocket-Protocol: bearer, TOKEN`.
    WebSocket,
    /// The password of `Authorization: Basic`.
    Basic,
}

/// One of `upstreams`.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    /// Its place.
    pub(crate) place: Place,
    /// Whether an error was reported inside.
    pub(crate) broken: bool,
    /// At least one unless an error was reported.
    pub(crate) servers: Vec<UpstreamServer>,
    /// The load balancing method; `round_robin`.
    pub(crate) balance: Spanned<Balance>,
    /// The timeout for connecting; 2 s.
    pub(crate) connect: Spanned<Duration>,
    /// The timeout for the start of a response; 60 s.
    pub(crate) response: Spanned<Duration>,
    /// The timeout between reads of a response, and for an idle connection; 60 s.
    pub(crate) idle: Spanned<Duration>,
    /// The timeout for a request as a whole.
    pub(crate) total: Option<Spanned<Duration>>,
    /// How long a server that comes back takes to get its whole share; 0, at most 15 min.
    pub(crate) slow_start: Spanned<Duration>,
    /// The cookie that keeps clients at their servers.
    pub(crate) sticky: Option<StickyRules>,
    /// How the servers are checked; `None` is `off`.
    pub(crate) health: Option<Health>,
    /// Which servers are taken out after failures; `None` is `off`.
    pub(crate) eject: Option<EjectRules>,
    /// What is tried again.
    pub(crate) retries: Retries,
    /// The most requests at the same time at a server.
    pub(crate) max: Option<Spanned<u32>>,
    /// How many requests may wait for a server.
    pub(crate) queue: Option<Spanned<u32>>,
    /// How long a request waits at servers that have their most.
    pub(crate) wait: Option<Spanned<Duration>>,
    /// The limit for idle connections; 1024, and 0 disables reuse.
    pub(crate) keep_alive: Spanned<u32>,
    /// The longest idle time of a connection for a request that cannot be repeated; 1 s.
    pub(crate) fresh: Spanned<Duration>,
    /// Whether and how bodies are buffered.
    pub(crate) buffer: Buffering,
    /// Whether header names with `_` are forwarded to the app; false.
    pub(crate) underscores: Spanned<bool>,
}

/// `sticky` of an upstream.
#[derive(Clone)]
pub(crate) struct StickyRules {
    /// The cookie's name.
    pub(crate) cookie: Spanned<String>,
    /// What its values are made from.
    pub(crate) secret: Option<Spanned<String>>,
    /// How long browsers keep it.
    pub(crate) max_age: Option<Spanned<Duration>>,
}

impl fmt::Debug for StickyRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The secret is nobody's business.
        f.debug_tuple("StickyRules").field(&self.cookie).finish()
    }
}

/// `health` of an upstream.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    /// What is requested; `None` only connects.
    pub(crate) request: Option<HealthRequest>,
    /// The port to connect to; the server's.
    pub(crate) port: Option<Spanned<u32>>,
    /// From one check to the next; 5 s, from 100 ms to an hour.
    pub(crate) interval: Spanned<Duration>,
    /// How long a check may take; 1 s, at most the interval.
    pub(crate) timeout: Duration,
    /// How many failures take a server out; 3.
    pub(crate) unhealthy_after: Spanned<u32>,
    /// How many passes bring it back; 2.
    pub(crate) healthy_after: Spanned<u32>,
    /// Whether requests go to all servers while all are out; false.
    pub(crate) tries_all: Spanned<bool>,
}

/// The request of `health`.
#[derive(Clone, Debug)]
pub(crate) struct HealthRequest {
    /// Path and query.
    pub(crate) path: Spanned<String>,
    /// The method; GET.
    pub(crate) method: Method,
    /// `Host`; the server's.
    pub(crate) host: Option<Spanned<HeaderValue>>,
    /// More fields.
    pub(crate) headers: Vec<(Spanned<HeaderName>, Spanned<HeaderValue>)>,
    /// The statuses that pass, from and to; 200 to 399.
    pub(crate) status: Vec<(u16, u16)>,
    /// What the body must have in it.
    pub(crate) body: Option<Spanned<String>>,
}

/// `eject` of an upstream.
#[derive(Clone, Debug)]
pub(crate) struct EjectRules {
    /// How many failures in a row; 5, at most 1000.
    pub(crate) consecutive_failures: Spanned<u32>,
    /// How long the first time; 10 s.
    pub(crate) time: Spanned<Duration>,
    /// How long at most; 5 min.
    pub(crate) longest: Spanned<Duration>,
    /// The most servers that may be out, in percent; 50.
    pub(crate) most: Spanned<u32>,
    /// Which failures count; all but statuses.
    pub(crate) on: Vec<Spanned<Condition>>,
}

/// `retries` of an upstream.
#[derive(Clone, Debug)]
pub(crate) enum Retries {
    /// `off`.
    Off,
    /// After these failures.
    On(RetryRules),
}

/// `retries` of an upstream that are not off.
#[derive(Clone, Debug)]
pub(crate) struct RetryRules {
    /// How many more tries there are; 2, at most 10.
    pub(crate) attempts: Spanned<u32>,
    /// After which failures; `connect_failure`.
    pub(crate) on: Vec<Spanned<Condition>>,
    /// The share of the requests that may be sent a second time, in percent; 20.
    pub(crate) budget: Spanned<u32>,
    /// The timeout for the start of a response, of each try.
    pub(crate) per_try: Option<Spanned<Duration>>,
    /// How long a request waits while no server can be connected to; 0, at most 60 s.
    pub(crate) hold: Spanned<Duration>,
    /// Whether requests that are not idempotent are sent a second time, too; false.
    pub(crate) non_idempotent: Spanned<bool>,
}

/// One of the servers of an upstream.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamServer {
    /// Its address.
    pub(crate) url: Spanned<Server>,
    /// Its share of the requests; 1, at most 256.
    pub(crate) weight: Spanned<u32>,
    /// Whether it is used only while no other is usable; false.
    pub(crate) backup: Spanned<bool>,
    /// The most requests at the same time; as the upstream says.
    pub(crate) max: Option<Spanned<u32>>,
}

/// The `buffer` setting of an upstream.
#[derive(Clone, Debug)]
pub(crate) enum Buffering {
    /// The default: 64 KiB for each body in memory.
    Default,
    /// `off`: bodies are streamed.
    Off,
    /// Custom settings.
    Own(Buffer),
}

/// A load balancing method.
#[derive(Clone, Debug)]
pub(crate) enum Balance {
    /// One server after the other, by weight.
    RoundRobin,
    /// The one with the fewest requests in flight for its weight.
    LeastRequests,
    /// The less busy of two drawn by weight.
    RandomTwo,
    /// The one that a value of the request belongs to.
    Hash(LimitSource),
}

/// The address of an app.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Server {
    /// HTTP/1.1 over TCP.
    Http {
        /// A name in lower case, or an address, an IPv6 one without brackets.
        host: String,
        /// The port, not 0.
        port: u16,
    },
    /// HTTP/1.1 over a Unix socket, by its path.
    Unix(PathBuf),
}

/// `buffer` of an upstream; sizes in bytes.
#[derive(Clone, Debug)]
pub(crate) struct Buffer {
    /// Its place.
    pub(crate) place: Place,
    /// How much of a request is kept in memory; 64 KiB.
    pub(crate) request: Spanned<u64>,
    /// How much of a response is kept in memory; 64 KiB.
    pub(crate) response: Spanned<u64>,
    /// The spool directory for larger bodies.
    pub(crate) spool: Option<Spanned<PathBuf>>,
    /// The size limit of the spool; 1 GiB.
    pub(crate) spool_bytes: Spanned<u64>,
}

/// `log`.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    /// Info by default.
    pub(crate) level: Spanned<Level>,
    /// The access log.
    pub(crate) access: AccessLog,
}

/// A log level.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Level {
    /// Errors that need action.
    Error,
    /// Also warnings.
    Warn,
    /// Also normal events.
    Info,
    /// Also details for debugging.
    Debug,
}

/// `log.access`; on, to stdout, as JSON by default.
#[derive(Clone, Debug)]
pub(crate) enum AccessLog {
    /// Disabled.
    Off,
    /// One line per request.
    On {
        /// The destination.
        to: Spanned<LogTarget>,
        /// The format.
        format: Spanned<LogFormat>,
        /// The claim that names the user; the usual ones by default.
        user: Option<Spanned<String>>,
    },
}

/// The destination of a log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum LogTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file.
    File(PathBuf),
}

/// The format of the access log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Apache's combined format.
    Combined,
}
