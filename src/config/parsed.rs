//! What gateway.yaml says, as types: the shape is checked, the meaning is not.
//! Every value carries its place. Names are not looked up, no file is opened, nothing is compiled here.
//!
//! Where an error was reported inside a part, the part is there with what could be read, and its `broken` is
//! set: what it lacks needs no second message.

mod route;

use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use http::uri::PathAndQuery;
use ipnet::IpNet;
use serde_json::Value;

use super::mask::quoted;
use super::place::Place;
use crate::snapshot::PolicyTest;

pub(crate) use route::{
    AskRule, Auth, Cors, Defaults, HeaderChanges, Headers, HostPattern, JwtRule, ProxyTo, Redirect,
    Respond, Rewrite, Route, Static,
};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Spanned<T> {
    /// The value.
    pub(crate) value: T,
    /// Where it stands; line 0 where it is a default.
    pub(crate) place: Place,
    /// Whether the value must stay out of messages: a secret, or what variables were expanded to.
    pub(crate) private: bool,
}

impl<T> Spanned<T> {
    /// A value that nobody wrote.
    pub(crate) fn default_of(value: T) -> Self {
        Self {
            value,
            place: Place::default(),
            private: false,
        }
    }
}

impl Spanned<String> {
    /// The text for a message, in backticks unless it must stay out.
    pub(crate) fn shown(&self) -> String {
        if self.private {
            "the expanded value".to_owned()
        } else {
            quoted(&self.value)
        }
    }
}

/// Pairs in the order in which they were written; no name is there twice.
pub(crate) type Named<T> = Vec<(Spanned<String>, T)>;

/// An item of `trusted_proxies`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum TrustedPeers {
    /// All with an address in this network.
    Network(IpNet),
    /// All on Unix sockets.
    Unix,
}

/// The whole configuration.
#[derive(Debug)]
pub(crate) struct Gateway {
    /// How many event loops there are.
    pub(crate) workers: Spanned<Workers>,
    /// Where clients come in; at least one unless an error was reported.
    pub(crate) listeners: Vec<Listener>,
    /// Whose X-Forwarded-* are believed.
    pub(crate) trusted_proxies: Vec<Spanned<TrustedPeers>>,
    /// What a client may send at most.
    pub(crate) limits: Limits,
    /// How long a client may take.
    pub(crate) timeouts: Timeouts,
    /// The verifiers of tokens.
    pub(crate) jwt: Named<Verifier>,
    /// The tokens that the gateway issues itself.
    pub(crate) tokens: Option<Tokens>,
    /// Where the gateway writes things down.
    pub(crate) state: Option<State>,
    /// The apps behind the gateway.
    pub(crate) upstreams: Named<Upstream>,
    /// What holds for every route that does not say otherwise.
    pub(crate) defaults: Defaults,
    /// The routes; at least one unless an error was reported.
    pub(crate) routes: Vec<Route>,
    /// What is expected of it.
    pub(crate) tests: Vec<Spanned<PolicyTest>>,
    /// What is logged.
    pub(crate) log: Log,
}

/// `workers`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Workers {
    /// One a core.
    Auto,
    /// 1 to 1024.
    Count(u16),
}

/// One of `listeners`.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    /// Where it stands.
    pub(crate) place: Place,
    /// Whether an error was reported inside.
    pub(crate) broken: bool,
    /// Where it listens.
    pub(crate) address: Spanned<ListenAddress>,
    /// Whether it only sends clients to the TLS listener.
    pub(crate) redirect_to_https: Spanned<bool>,
    /// TLS, where it is offered.
    pub(crate) tls: Option<Tls>,
}

/// Where a listener listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum ListenAddress {
    /// An address and a port; port 0 is one that the system chooses.
    Tcp(std::net::SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// `tls` of a listener.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    /// Where it stands.
    pub(crate) place: Place,
    /// At least one unless an error was reported.
    pub(crate) certificates: Vec<Certificate>,
    /// 1.2 by default.
    pub(crate) min_version: Spanned<TlsVersion>,
}

/// One of `certificates`.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    /// The chain, a PEM file.
    pub(crate) cert: Spanned<PathBuf>,
    /// The private key, a PEM file.
    pub(crate) key: Spanned<PathBuf>,
}

/// A version of TLS.
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
    /// Connections in all, at least 1.
    pub(crate) connections: Spanned<u32>,
    /// Connections of one address, at least 1.
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

/// `timeouts`; none is zero but `shutdown` and `shutdown_streams`.
#[derive(Clone, Debug)]
pub(crate) struct Timeouts {
    /// For a request's head.
    pub(crate) header_read: Spanned<Duration>,
    /// Between two pieces of a request's body.
    pub(crate) body_read: Spanned<Duration>,
    /// How long a client may take nothing of a response.
    pub(crate) send: Spanned<Duration>,
    /// How long an idle connection is kept.
    pub(crate) keep_alive: Spanned<Duration>,
    /// For a TLS handshake.
    pub(crate) tls_handshake: Spanned<Duration>,
    /// How long requests may go on after the signal to stop; zero cuts at once.
    pub(crate) shutdown: Spanned<Duration>,
    /// How long tunnels and streams may go on then, `shutdown` at most.
    pub(crate) shutdown_streams: Spanned<Duration>,
}

/// One of `jwt`.
#[derive(Clone, Debug)]
pub(crate) struct Verifier {
    /// Where it stands.
    pub(crate) place: Place,
    /// Whether an error was reported inside.
    pub(crate) broken: bool,
    /// Algorithms by their JOSE names, all known ones; empty where none is named.
    pub(crate) algorithms: Vec<Spanned<String>>,
    /// Shared secrets: the one in use, and those that are still accepted.
    pub(crate) secret: Vec<Spanned<Secret>>,
    /// PEM files.
    pub(crate) keys: Vec<KeyFile>,
    /// A key set.
    pub(crate) jwks: Option<Spanned<Jwks>>,
    /// How long a key set at a URL lives at most; 10 s to 24 h.
    pub(crate) jwks_refresh: Option<Spanned<Duration>>,
    /// How long it serves beyond its life; 1 h by default.
    pub(crate) stale_for: Spanned<Duration>,
    /// A PEM file with the roots that its server is trusted by.
    pub(crate) ca: Option<Spanned<PathBuf>>,
    /// The revoked tokens.
    pub(crate) revoked: Option<Spanned<PathBuf>>,
    /// Issuers, any of which is fine; empty where none is asked for.
    pub(crate) issuer: Vec<Spanned<String>>,
    /// For whom a token must be.
    pub(crate) audience: Option<Spanned<Audience>>,
    /// How far clocks may differ; 30 s by default.
    pub(crate) leeway: Spanned<Duration>,
    /// Whether a token must have an end; true by default.
    pub(crate) require_exp: Spanned<bool>,
    /// From `iat` to `exp` at most.
    pub(crate) max_lifetime: Option<Spanned<Duration>>,
    /// The type in the token's header.
    pub(crate) typ: Option<Spanned<String>>,
    /// Claims that must be there and equal: dotted paths, and scalars or lists of scalars.
    pub(crate) claims: Named<Spanned<Value>>,
    /// Where tokens are looked for; the header alone by default.
    pub(crate) from: Vec<Spanned<TokenSource>>,
    /// Where `weak_secret: allow` stands.
    pub(crate) weak_secret: Option<Place>,
}

/// `jwks`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Jwks {
    /// A file.
    File(PathBuf),
    /// A URL that begins with `https://`, or with `http://` and leads to this machine.
    Url(crate::net::url::Url),
}

/// A shared secret. Its `Debug` does not show it.
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
    /// Where it stands.
    pub(crate) place: Place,
    /// Whether an error was reported inside.
    pub(crate) broken: bool,
    /// Below which its endpoints are; `/api/token`.
    pub(crate) path: Spanned<String>,
    /// `iss` of its tokens.
    pub(crate) issuer: Option<Spanned<String>>,
    /// What it signs with, by its JOSE name; ES256.
    pub(crate) algorithm: Spanned<String>,
    /// The directory of its keys.
    pub(crate) keys: Spanned<PathBuf>,
    /// The file of its users; where there is none, `login`.
    pub(crate) users: Option<Spanned<PathBuf>>,
    /// The app that decides on logins, and the path and query that it is asked for.
    pub(crate) login: Option<Spanned<(Server, PathAndQuery)>>,
    /// How long an access token lives, whole seconds; 5 min.
    pub(crate) access_lifetime: Spanned<Duration>,
    /// How long a refresh token lives, whole seconds; 24 h.
    pub(crate) refresh_lifetime: Spanned<Duration>,
    /// Whether a refresh token is good once; it is.
    pub(crate) rotate_refresh: Spanned<bool>,
    /// How long a spent one gets its successor once more; 10 s.
    pub(crate) refresh_grace: Spanned<Duration>,
    /// How long a new key is published before it signs, whole seconds; 5 min.
    pub(crate) rotate_keys_after: Spanned<Duration>,
    /// The cookies that its tokens are handed out in.
    pub(crate) cookies: Option<Cookies>,
    /// What pages of other origins may do with its endpoints.
    pub(crate) cors: Option<Cors>,
    /// The field of a login that says who it is; `username`.
    pub(crate) username_field: Spanned<String>,
    /// Claims beside the service's own.
    pub(crate) claims: Named<Spanned<Value>>,
    /// How often a password may be tried.
    pub(crate) throttle: Throttle,
}

/// `state`.
#[derive(Clone, Debug)]
pub(crate) enum State {
    /// A directory.
    Folder(Spanned<PathBuf>),
    /// Servers of Redis or Valkey.
    Redis(Redis),
}

/// `redis` of `state`, and what stands beside it.
#[derive(Clone, Debug)]
pub(crate) struct Redis {
    /// One server, or nodes of a cluster; at least one unless an error was reported.
    pub(crate) urls: Vec<Spanned<String>>,
    /// Who logs in there.
    pub(crate) username: Option<Spanned<String>>,
    /// With which password.
    pub(crate) password: Option<Secret>,
    /// Who vouches for their certificates.
    pub(crate) ca: Option<Spanned<PathBuf>>,
}

/// `cookies` of `tokens`.
#[derive(Clone, Debug)]
pub(crate) struct Cookies {
    /// The access token's; `access_token`.
    pub(crate) access: Spanned<String>,
    /// The refresh token's; `refresh_token`.
    pub(crate) refresh: Spanned<String>,
    /// Whether links from other sites bring them along, too; they do.
    pub(crate) is_lax: Spanned<bool>,
    /// For all hosts of this domain.
    pub(crate) domain: Option<Spanned<String>>,
    /// Whose pages may use them, beside the host's own.
    pub(crate) origins: Vec<Spanned<String>>,
}

/// `throttle` of `tokens`: how many tries in which time.
#[derive(Clone, Debug)]
pub(crate) struct Throttle {
    /// For one address; 10 a minute.
    pub(crate) per_ip: Option<(NonZeroU32, Duration)>,
    /// For one user; 5 a minute.
    pub(crate) per_user: Option<(NonZeroU32, Duration)>,
}

/// One of `keys`.
#[derive(Clone, Debug)]
pub(crate) struct KeyFile {
    /// The key's name in token headers.
    pub(crate) kid: Option<Spanned<String>>,
    /// The PEM file.
    pub(crate) file: Spanned<PathBuf>,
}

/// `audience`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Audience {
    /// `any`: also a token that is meant for somebody else.
    Any,
    /// One of these, at least one is named.
    OneOf(Vec<String>),
}

/// One of `from`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum TokenSource {
    /// `Authorization: Bearer`.
    Header,
    /// A cookie, by its name.
    Cookie(String),
    /// A parameter of the query, by its name.
    Query(String),
    /// `Sec-WebSocket-Protocol: bearer, TOKEN`.
    WebSocket,
    /// The password of `Authorization: Basic`.
    Basic,
}

/// One of `upstreams`.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    /// Where it stands.
    pub(crate) place: Place,
    /// Whether an error was reported inside.
    pub(crate) broken: bool,
    /// At least one unless an error was reported.
    pub(crate) servers: Vec<Spanned<Server>>,
    /// How a server is picked.
    pub(crate) balance: Spanned<Balance>,
    /// How long a server may take to accept a connection; 2 s.
    pub(crate) connect: Spanned<Duration>,
    /// How long a server may take to begin its response; 60 s.
    pub(crate) response: Spanned<Duration>,
    /// How long a response may pause, and a connection may be idle; 60 s.
    pub(crate) idle: Spanned<Duration>,
    /// How many idle connections are kept; 1024, and 0 keeps none.
    pub(crate) keep_alive: Spanned<u32>,
    /// How long a connection may have been idle for a request that cannot be repeated; 1 s.
    pub(crate) fresh: Spanned<Duration>,
    /// Whether and how bodies are taken in before they are asked for.
    pub(crate) buffer: Buffering,
    /// Whether names of fields with `_` reach the app; they do not without it.
    pub(crate) underscores: Spanned<bool>,
}

/// What an upstream says of `buffer`.
#[derive(Clone, Debug)]
pub(crate) enum Buffering {
    /// Nothing: 64 KiB each in memory.
    Default,
    /// `off`: bodies stream.
    Off,
    /// A map.
    Own(Buffer),
}

/// How a server is picked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Balance {
    /// One after the other.
    RoundRobin,
}

/// Where an app listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Server {
    /// HTTP/1.1 over TCP.
    Http {
        /// A name in small letters, or an address, an IPv6 one without brackets.
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
    /// Where it stands.
    pub(crate) place: Place,
    /// How much of a request stays in memory; 64 KiB.
    pub(crate) request: Spanned<u64>,
    /// How much of a response stays in memory; 64 KiB.
    pub(crate) response: Spanned<u64>,
    /// The directory for what goes beyond.
    pub(crate) spool: Option<Spanned<PathBuf>>,
    /// How much may lie there in all; 1 GiB.
    pub(crate) spool_bytes: Spanned<u64>,
}

/// `log`.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    /// Info by default.
    pub(crate) level: Spanned<Level>,
    /// One line a request.
    pub(crate) access: AccessLog,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Level {
    /// What needs hands.
    Error,
    /// And what looks wrong.
    Warn,
    /// And what happens.
    Info,
    /// And what helps to find errors.
    Debug,
}

/// `log.access`; on, to stdout, as JSON by default.
#[derive(Clone, Debug)]
pub(crate) enum AccessLog {
    /// Nothing is written.
    Off,
    /// A line a request.
    On {
        /// Where to.
        to: Spanned<LogTarget>,
        /// How it looks.
        format: Spanned<LogFormat>,
        /// The claim that names the user; the usual ones without it.
        user: Option<Spanned<String>>,
    },
}

/// Where a log goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum LogTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file.
    File(PathBuf),
}

/// How the access log looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LogFormat {
    /// A JSON object a line.
    Json,
    /// Apache's combined format.
    Combined,
}
