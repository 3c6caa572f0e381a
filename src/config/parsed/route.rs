//! `defaults` and `routes`, as types.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue};

use super::super::node::Node;
use super::super::place::Place;
use super::{Server, Spanned};
use crate::edits::Written;
use crate::message::cors::Origin;

/// `defaults`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Defaults {
    /// For routes without `auth`.
    pub(crate) auth: Option<Auth>,
    /// Changes of headers.
    pub(crate) headers: Headers,
}

/// One of `routes`. Which of its parts fit together is not checked here.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// Where it stands.
    pub(crate) place: Place,
    /// Whether an error was reported inside.
    pub(crate) broken: bool,
    /// Its name.
    pub(crate) name: Option<Spanned<String>>,
    /// For which hosts; empty for all.
    pub(crate) hosts: Vec<Spanned<HostPattern>>,
    /// Methods in capitals, all known ones; empty where all are meant.
    pub(crate) methods: Vec<Spanned<String>>,
    /// The path's pattern, with its slash before it.
    pub(crate) path: Spanned<String>,
    /// `static`.
    pub(crate) files: Option<Static>,
    /// `proxy`.
    pub(crate) proxy: Option<Spanned<ProxyTo>>,
    /// `redirect`.
    pub(crate) redirect: Option<Redirect>,
    /// `respond`.
    pub(crate) respond: Option<Respond>,
    /// Who may come in, where the route says it.
    pub(crate) auth: Option<Auth>,
    /// What pages of other origins may do.
    pub(crate) cors: Option<Cors>,
    /// `rewrite`.
    pub(crate) rewrite: Option<Spanned<Rewrite>>,
    /// Changes of headers.
    pub(crate) headers: Headers,
    /// A body's size at most; at least 1.
    pub(crate) body_bytes: Option<Spanned<u64>>,
    /// `timeouts.response`.
    pub(crate) response: Option<Spanned<Duration>>,
    /// `timeouts.idle`.
    pub(crate) idle: Option<Spanned<Duration>>,
}

/// The host of a route, in small letters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum HostPattern {
    /// This host.
    Exact(String),
    /// `*.example.com`, here without `*.`: all hosts below it, and not itself.
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

/// `static` of a route.
#[derive(Clone, Debug)]
pub(crate) struct Static {
    /// Where it stands.
    pub(crate) place: Place,
    /// The directory.
    pub(crate) root: Spanned<PathBuf>,
    /// File names for a directory; `index.html` by default, empty for none.
    pub(crate) index: Vec<Spanned<String>>,
    /// A path below the route's root, with its slash before it, for single-page apps.
    pub(crate) fallback: Option<Spanned<String>>,
    /// `Cache-Control` of all files.
    pub(crate) cache_control: Option<Spanned<HeaderValue>>,
}

/// `proxy` of a route.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum ProxyTo {
    /// One of `upstreams`.
    Upstream(String),
    /// A server of its own.
    Server(Server),
}

/// `redirect` of a route.
#[derive(Clone, Debug)]
pub(crate) struct Redirect {
    /// Where it stands.
    pub(crate) place: Place,
    /// The target, perhaps with `{parameters}`.
    pub(crate) to: Spanned<String>,
    /// 301, 302, 303, 307 or 308, which is the default.
    pub(crate) status: Spanned<u16>,
}

/// `respond` of a route.
#[derive(Clone, Debug)]
pub(crate) struct Respond {
    /// Where it stands.
    pub(crate) place: Place,
    /// 200 (the default) to 599.
    pub(crate) status: Spanned<u16>,
    /// The body.
    pub(crate) body: Option<Spanned<String>>,
}

/// `auth` of a route, or of `defaults`.
#[derive(Clone, Debug)]
pub(crate) enum Auth {
    /// `none`: for everybody.
    Public(Place),
    /// A token is asked for.
    Jwt(Box<JwtRule>),
    /// Another server is asked.
    Ask(Box<AskRule>),
}

/// Who is asked.
#[derive(Clone, Debug)]
pub(crate) struct AskRule {
    /// The server, and the path and query that it is asked for.
    pub(crate) url: Spanned<(Server, PathAndQuery)>,
    /// The headers of its response that the app gets.
    pub(crate) copy: Vec<Spanned<HeaderName>>,
}

/// What is asked of a token.
#[derive(Clone, Debug)]
pub(crate) struct JwtRule {
    /// Where it stands.
    pub(crate) place: Place,
    /// Names from `jwt`, any of which is fine; at least one unless an error was reported.
    pub(crate) verifiers: Vec<Spanned<String>>,
    /// Whether a request without a token passes; false by default.
    pub(crate) optional: Spanned<bool>,
    /// Rules for the claims, for `json::json` or for whoever compiles them.
    pub(crate) require: Option<Node>,
    /// Headers and the claims whose values they get.
    pub(crate) forward: Vec<(Spanned<HeaderName>, Spanned<String>)>,
    /// Whether the app does not see the token; false by default.
    pub(crate) strip_token: Spanned<bool>,
    /// Whether refusals are only reported; false by default.
    pub(crate) only_reports: Spanned<bool>,
    /// Whether tunnels and answers end with the token; false by default.
    pub(crate) ends_with_token: Spanned<bool>,
}

/// `cors` of a route, or of `tokens`.
#[derive(Clone, Debug)]
pub(crate) struct Cors {
    /// Whose pages may ask; at least one unless an error was reported, and `*` alone.
    pub(crate) origins: Vec<Spanned<Origin>>,
    /// Whether with credentials; false by default, and never with `*`.
    pub(crate) credentials: Spanned<bool>,
    /// Methods in capitals, all known ones; empty where those of the route are meant.
    pub(crate) methods: Vec<Spanned<String>>,
    /// Names of the headers that they may send, as they were written, or `*` alone.
    pub(crate) headers: Vec<Spanned<String>>,
    /// Names of the headers that they may read, as they were written, or `*` alone.
    pub(crate) expose: Vec<Spanned<String>>,
    /// How long the response to a preflight may be kept, whole seconds; 10 min.
    pub(crate) max_age: Spanned<Duration>,
}

/// `rewrite` of a route.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Rewrite {
    /// Takes this off the path's beginning.
    StripPrefix(String),
    /// Another path, perhaps with `{parameters}`.
    Path(String),
}

/// `headers`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Headers {
    /// Of requests, on their way to the app.
    pub(crate) request: HeaderChanges,
    /// Of responses, on their way to the client.
    pub(crate) response: HeaderChanges,
}

/// Changes of headers in one direction.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeaderChanges {
    /// Set, in place of all of that name. Values of private scalars are marked sensitive.
    pub(crate) set: Vec<(Spanned<HeaderName>, Spanned<Written>)>,
    /// Taken out.
    pub(crate) remove: Vec<Spanned<HeaderName>>,
}
