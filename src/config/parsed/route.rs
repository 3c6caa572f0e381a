//! `defaults` and `routes`, as types.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use http::uri::PathAndQuery;

use super::super::node::Node;
use super::super::place::Place;
use super::{Limiting, Server, Spanned};
use crate::auth::{KeyPlace, NamePattern};
use crate::compress::CompressRules;
use crate::edits::Written;
use crate::files::{CacheControl, FilePattern, PrivateFolder};
use crate::message::accept::Coding;
use crate::message::cors::Origin;
use crate::message::error_pages::Statuses;
use crate::net::tls::{Fingerprint, Part};

/// `defaults`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Defaults {
    /// The access control of routes without `auth`.
    pub(crate) auth: Option<Auth>,
    /// Header changes.
    pub(crate) headers: Headers,
    /// What keeps load away from routes that do not say so themselves.
    pub(crate) limiting: Limiting,
    /// `compress`.
    pub(crate) compress: Option<Spanned<Compress>>,
}

/// `compress`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Compress {
    /// `off`.
    Off,
    /// These rules.
    On(Box<CompressRules>),
}

/// One of `routes`. Whether its parts can be combined is not checked here.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// Its place.
    pub(crate) place: Place,
    /// Whether an error was reported inside.
    pub(crate) broken: bool,
    /// Its name.
    pub(crate) name: Option<Spanned<String>>,
    /// Its hosts; empty for all.
    pub(crate) hosts: Vec<Spanned<HostPattern>>,
    /// Methods in capitals, all known; empty for all.
    pub(crate) methods: Vec<Spanned<String>>,
    /// The path pattern, with its leading slash.
    pub(crate) path: Spanned<String>,
    /// `static`.
    pub(crate) files: Option<Static>,
    /// `proxy`.
    pub(crate) proxy: Option<Spanned<ProxyTo>>,
    /// `redirect`.
    pub(crate) redirect: Option<Redirect>,
    /// `respond`.
    pub(crate) respond: Option<Respond>,
    /// The access control, where the route has its own.
    pub(crate) auth: Option<Auth>,
    /// What keeps load away.
    pub(crate) limiting: Limiting,
    /// The cross-origin policy.
    pub(crate) cors: Option<Cors>,
    /// `rewrite`.
    pub(crate) rewrite: Option<Spanned<Rewrite>>,
    /// Header changes.
    pub(crate) headers: Headers,
    /// The pages of refusals.
    pub(crate) errors: Option<ErrorPages>,
    /// The size limit of a body; at least 1.
    pub(crate) body_bytes: Option<Spanned<u64>>,
    /// `timeouts.response`.
    pub(crate) response: Option<Spanned<Duration>>,
    /// `timeouts.idle`.
    pub(crate) idle: Option<Spanned<Duration>>,
    /// `timeouts.total`.
    pub(crate) total: Option<Spanned<Duration>>,
    /// `compress`.
    pub(crate) compress: Option<Spanned<Compress>>,
    /// `accel`: the beginnings of paths, and the directories that they stand for.
    pub(crate) accel: Vec<(Spanned<String>, Spanned<PathBuf>)>,
}

impl Route {
    /// The app behind the route: that of `proxy`, or of `static.else`.
    pub(crate) fn app(&self) -> Option<&Spanned<ProxyTo>> {
        let files = self.files.as_ref();
        (self.proxy.as_ref()).or_else(|| files.and_then(|files| files.otherwise.as_ref()))
    }
}

/// The host of a route, in lower case.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum HostPattern {
    /// This host.
    Exact(String),
    /// `*.example.com`, here without `*.`: all subdomains, but not the name itself.
    Below(String),
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(name) => write!(f, "*.{name}"),
        }
    }
}

/// One of the directories of `static`.
#[derive(Clone, Debug)]
pub(crate) struct ServedRoot {
    /// The directory, up to the first claim.
    pub(crate) path: Spanned<PathBuf>,
    /// The folder of a user in it.
    pub(crate) folder: Option<PrivateFolder>,
}

impl fmt::Display for ServedRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.value.display();
        match &self.folder {
            Some(folder) => write!(f, "{path}/{folder}"),
            None => write!(f, "{path}"),
        }
    }
}

/// `static` of a route.
#[derive(Clone, Debug)]
pub(crate) struct Static {
    /// Its place.
    pub(crate) place: Place,
    /// The directories, in the order in which they are looked in.
    pub(crate) roots: Vec<ServedRoot>,
    /// File names for a directory; `index.html` by default, empty for none.
    pub(crate) index: Vec<Spanned<String>>,
    /// A path below the route's root, with its leading slash, for single-page apps.
    pub(crate) fallback: Option<Spanned<String>>,
    /// `Cache-Control` by pattern, in the order of the file.
    pub(crate) cache_control: Vec<(FilePattern, CacheControl)>,
    /// The codings of precompressed files.
    pub(crate) precompressed: Vec<Coding>,
    /// Media types by the end of the name, in lower case and with its dot.
    pub(crate) types: Vec<(String, String)>,
    /// The charset of text types.
    pub(crate) charset: Option<String>,
    /// The files that are stored instead of shown.
    pub(crate) download: Vec<FilePattern>,
    /// Whether users upload to the directory.
    pub(crate) untrusted: bool,
    /// Whether directories without an index are listed.
    pub(crate) listing: bool,
    /// `else`: the app that gets what is no file.
    pub(crate) otherwise: Option<Spanned<ProxyTo>>,
}

/// `proxy` of a route.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum ProxyTo {
    /// One of `upstreams`.
    Upstream(String),
    /// A server given by URL.
    Server(Server),
}

/// `redirect` of a route.
#[derive(Clone, Debug)]
pub(crate) struct Redirect {
    /// Its place.
    pub(crate) place: Place,
    /// The target, perhaps with `{parameters}`.
    pub(crate) to: Spanned<String>,
    /// 301, 302, 303, 307 or 308, which is the default.
    pub(crate) status: Spanned<u16>,
}

/// `respond` of a route.
#[derive(Clone, Debug)]
pub(crate) struct Respond {
    /// Its place.
    pub(crate) place: Place,
    /// 200 (the default) to 599.
    pub(crate) status: Spanned<u16>,
    /// The body.
    pub(crate) body: Option<Spanned<String>>,
    /// Whether it is 503 while the gateway drains.
    pub(crate) ready: Spanned<bool>,
}

/// `auth` of a route, or of `defaults`.
#[derive(Clone, Debug)]
pub(crate) enum Auth {
    /// `none`: everybody is allowed.
    Public(Place),
    /// A token is required.
    Jwt(Box<JwtRule>),
    /// An external server decides.
    Ask(Box<AskRule>),
    /// A client certificate is required, and nothing else.
    Certificate(Box<CertificateRule>),
}

/// The requirements for a client certificate, where nothing else is required.
#[derive(Clone, Debug)]
pub(crate) struct CertificateRule {
    /// The certificates that are accepted.
    pub(crate) certificate: Spanned<Accepted>,
    /// Headers and the parts of the certificate that they contain.
    pub(crate) forward: Vec<(Spanned<HeaderName>, Spanned<Part>)>,
    /// Whether refusals are only reported; false by default.
    pub(crate) only_reports: Spanned<bool>,
}

/// `certificate` of `auth`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Accepted {
    /// Each that the listener accepted.
    Any,
    /// Those with one of the names, if there are any, and one of the fingerprints, if there are any.
    OneOf(Vec<NamePattern>, Vec<Fingerprint>),
}

/// An external authorization server.
#[derive(Clone, Debug)]
pub(crate) struct AskRule {
    /// The server, with the path and query of the request to it.
    pub(crate) url: Spanned<(Server, PathAndQuery)>,
    /// The headers of its response that are copied to the app's request.
    pub(crate) copy: Vec<Spanned<HeaderName>>,
    /// The client certificate that is required besides.
    pub(crate) certificate: Option<Spanned<Accepted>>,
    /// Headers and the parts of the certificate that they contain.
    pub(crate) forward: Vec<(Spanned<HeaderName>, Spanned<Part>)>,
}

/// The requirements for a token.
#[derive(Clone, Debug)]
pub(crate) struct JwtRule {
    /// Its place.
    pub(crate) place: Place,
    /// Names from `jwt`, any of which may verify the token; at least one unless an error was reported.
    pub(crate) verifiers: Vec<Spanned<String>>,
    /// The API keys that are accepted, too, or instead.
    pub(crate) api_key: Option<ApiKeyRule>,
    /// The users whose passwords are accepted, and nothing else.
    pub(crate) basic: Option<BasicRule>,
    /// The client certificate that is required besides.
    pub(crate) certificate: Option<Spanned<Accepted>>,
    /// Whether a request without a token is allowed; false by default.
    pub(crate) optional: Spanned<bool>,
    /// Rules for the claims, decoded later by `json::json` or the compiler.
    pub(crate) require: Option<Node>,
    /// Headers and the claims that they contain.
    pub(crate) forward: Forwards<String>,
    /// Headers and the parts of the client certificate that they contain.
    pub(crate) forward_certificate: Forwards<Part>,
    /// Whether the token is removed from the app's request; false by default.
    pub(crate) strip_token: Spanned<bool>,
    /// Whether refusals are only reported; false by default.
    pub(crate) only_reports: Spanned<bool>,
    /// Whether tunnels and responses end with the token; false by default.
    pub(crate) ends_with_token: Spanned<bool>,
}

/// Headers, and what they carry.
pub(crate) type Forwards<T> = Vec<(Spanned<HeaderName>, Spanned<T>)>;

/// `basic` of `auth`.
#[derive(Clone, Debug)]
pub(crate) struct BasicRule {
    /// The file of the users.
    pub(crate) users: Spanned<PathBuf>,
    /// The realm of the challenge; the route's name without it.
    pub(crate) realm: Option<Spanned<String>>,
    /// Whether the app gets the password; false by default.
    pub(crate) pass: Spanned<bool>,
}

/// `api_key` of `auth`.
#[derive(Clone, Debug)]
pub(crate) struct ApiKeyRule {
    /// The file of the keys.
    pub(crate) file: Spanned<PathBuf>,
    /// Where requests have theirs.
    pub(crate) from: Vec<Spanned<KeyPlace>>,
}

/// `cors` of a route, or of `tokens`.
#[derive(Clone, Debug)]
pub(crate) struct Cors {
    /// The allowed origins; at least one unless an error was reported, and `*` only alone.
    pub(crate) origins: Vec<Spanned<Origin>>,
    /// Whether credentials are allowed; false by default, and never with `*`.
    pub(crate) credentials: Spanned<bool>,
    /// Methods in capitals, all known; empty for those of the route.
    pub(crate) methods: Vec<Spanned<String>>,
    /// The request headers that may be sent, as written, or `*` alone.
    pub(crate) headers: Vec<Spanned<String>>,
    /// The response headers that may be read, as written, or `*` alone.
    pub(crate) expose: Vec<Spanned<String>>,
    /// How long a preflight response may be cached, whole seconds; 10 min.
    pub(crate) max_age: Spanned<Duration>,
}

/// `rewrite` of a route.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Rewrite {
    /// Removes this prefix from the path.
    StripPrefix(String),
    /// Another path, perhaps with `{parameters}`.
    Path(String),
}

/// `errors`.
#[derive(Clone, Debug, Default)]
pub(crate) struct ErrorPages {
    /// The pages.
    pub(crate) pages: Vec<(Statuses, Spanned<PathBuf>)>,
    /// The statuses of apps' responses that are replaced.
    pub(crate) intercept: Option<Vec<Spanned<Statuses>>>,
}

/// `headers`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Headers {
    /// For requests to the app.
    pub(crate) request: HeaderChanges,
    /// For responses to the client.
    pub(crate) response: HeaderChanges,
    /// Whether responses get the usual security fields.
    pub(crate) security: Option<Spanned<bool>>,
}

/// Header changes in one direction.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeaderChanges {
    /// Replaces all values of the name. Values of private scalars are marked sensitive.
    pub(crate) set: Vec<(Spanned<HeaderName>, Spanned<Written>)>,
    /// Removed headers.
    pub(crate) remove: Vec<Spanned<HeaderName>>,
}
