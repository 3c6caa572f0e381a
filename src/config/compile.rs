//! Compiles the parsed configuration into a snapshot: reads keys and certificates, resolves references between
//! sections, opens directories. Collects every error with its place; binds nothing.

mod access;
mod accounts;
mod acme;
mod admin;
mod clients;
mod compress;
mod cors;
mod error_pages;
mod files;
mod hazards;
mod limiting;
mod listeners;
mod reach;
mod routes;
mod state;
mod tls;
mod tokens;
mod upstreams;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use http::HeaderName;
use http::uri::PathAndQuery;

pub(crate) use self::tokens::read_users;
use super::error::Errors;
use super::parsed;
use super::place::Place;
use super::source::{Loader, why};
use crate::auth::{ClaimPath, Guard, Hashing, KeyMap, Passwords, RemoteKeys, is_credential};
use crate::clock;
use crate::compress::CompressedFiles;
use crate::edits::HeaderEdits;
use crate::message::method::MethodSet;
use crate::message::path::RequestPath;
use crate::net::client::TrustedProxies;
use crate::net::dial::Dialer;
use crate::net::limits::{Bounds, Limits, Timeouts};
use crate::net::tls::{ClientTls, TicketRing, roots_warning};
use crate::observe::access_log::{AccessLog, AccessLogSettings, Destination, Format};
use crate::observe::counts::{Counts, RouteCounts};
use crate::privilege::{MakesAs, User};
use crate::proxy::Vouched;
use crate::route::{Host, Pattern, RESOURCE_METADATA, Route, RouteTable, Target};
use crate::snapshot::Snapshot;

/// What a configuration is read for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Purpose {
    /// To be looked at: no log is opened.
    Look,
    /// To be served.
    Serve,
}

/// The inputs and outputs of compiling besides the configuration itself.
pub(crate) struct Compiler<'c> {
    loader: &'c Loader<'c>,
    errors: &'c mut Errors,
    previous: Option<&'c Snapshot>,
    purpose: Purpose,
    /// The user that serves.
    user: Option<User>,
    workers: usize,
    /// All numbers; the same across reloads.
    counts: Arc<Counts>,
    dialer: Dialer,
    tickets: Arc<TicketRing>,
    /// Whether a listener asks for client certificates.
    asks_for_certificates: bool,
    /// The files that were compressed; the same across reloads.
    compressed: Arc<CompressedFiles>,
    /// The threads that check passwords; the same across reloads.
    hashing: Arc<Hashing>,
    warnings: Vec<String>,
    summary: BTreeMap<String, String>,
    /// The keys at URLs of this configuration.
    remotes: Vec<Arc<RemoteKeys>>,
    /// What keeps load away from routes that do not say so themselves.
    defaults: limiting::Defaults,
    /// The files of API keys that were read; `None` for one with errors.
    key_files: HashMap<PathBuf, Option<Arc<KeyMap>>>,
    /// The files of users with passwords that were read; `None` for one with errors.
    password_files: HashMap<PathBuf, Option<Arc<Passwords>>>,
    /// What the previous configuration has counted.
    counting: limiting::Counting,
    /// The error pages of the whole site.
    site: error_pages::Site,
}

/// Compiles a configuration. Parts that are equal in `previous` are kept: connection pools of upstreams, verifiers with
/// their token caches, the access log. `None` where an error was added to `errors`.
pub(crate) fn compile(
    gateway: &parsed::Gateway,
    loader: &Loader<'_>,
    errors: &mut Errors,
    previous: Option<&Snapshot>,
    purpose: Purpose,
) -> Option<(Snapshot, Vec<String>)> {
    let workers = match gateway.workers.value {
        parsed::Workers::Auto => std::thread::available_parallelism().map_or(1, usize::from),
        parsed::Workers::Count(count) => usize::from(count),
    };
    // Sessions can be resumed after a reload.
    let kept = previous.map(|previous| Ok(Arc::clone(&previous.tickets)));
    let tickets = match kept.unwrap_or_else(|| TicketRing::new(Instant::now()).map(Arc::new)) {
        Ok(tickets) => tickets,
        Err(fault) => {
            errors.at(Place::default(), fault.to_string());
            return None;
        }
    };
    let before = errors.count();
    let mut compiler = Compiler {
        loader,
        errors,
        previous,
        purpose,
        user: None,
        workers,
        counts: previous.map_or_else(
            || Arc::new(Counts::new(workers)),
            |previous| Arc::clone(&previous.counts),
        ),
        dialer: previous.map_or_else(Dialer::new, |previous| previous.dialer.clone()),
        tickets,
        asks_for_certificates: (gateway.listeners.iter())
            .filter_map(|listener| listener.tls.as_ref())
            .any(|tls| tls.client_auth.is_some()),
        compressed: compressed(gateway, previous),
        hashing: previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.hashing)),
        warnings: Vec::new(),
        summary: BTreeMap::new(),
        remotes: Vec::new(),
        defaults: limiting::Defaults::default(),
        key_files: HashMap::new(),
        password_files: HashMap::new(),
        counting: limiting::Counting::of(previous),
        site: error_pages::Site::default(),
    };
    compiler.user = (gateway.user.as_ref()).and_then(|account| compiler.serving_user(account));
    compiler.site = compiler.site_pages(gateway.errors.as_ref());
    compiler.defaults = compiler.default_limiting(&gateway.defaults.limiting);
    let trusted = trusted(&gateway.trusted_proxies);
    let state = compiler.state(gateway.state.as_ref());
    let mut orders = compiler.orders(state.clone());
    let listeners = compiler.listeners(gateway, &trusted, &mut orders);
    let admin = compiler.admin(gateway, &listeners, &mut orders);
    let mut verifiers = compiler.verifiers(&gateway.jwt);
    // A session that has ended stays ended in every later configuration of this process.
    let ended = previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.ended));
    let tokens = compiler.tokens(gateway, state.as_ref(), &mut verifiers, &ended);
    let key = state.as_ref().and_then(|state| state.key.as_ref());
    let mut upstreams = compiler.upstreams(&gateway.upstreams, key);
    let routes = compiler.routes(gateway, &verifiers, &mut upstreams);
    let mut table = RouteTable::default();
    for (route, place) in &routes {
        if let Err(other) = table.insert(route) {
            let problem = format!(
                "this route and `{}` serve the same host, path and method; neither is more specific",
                other.name
            );
            compiler.errors.at(*place, problem);
        }
    }
    let mut routes = routes;
    let defaults = response_edits(&gateway.defaults.headers);
    if let (Some(parsed), Some(service)) = (&gateway.tokens, &tokens) {
        let into = (&mut table, &mut routes);
        compiler.endpoints(parsed, service, &defaults, into, &mut upstreams);
    }
    let own = compiler.defaults.limiting();
    resource_metadata(&mut table, &mut routes, &defaults, (&own, &compiler.site));
    let access_log = compiler.access_log(&gateway.log.access);
    let logged_user = compiler.logged_user(&gateway.log.access);
    compiler.hosts_without_certificate(&gateway.routes, &listeners);
    compiler.hazards(gateway);
    compiler.reach(gateway);
    if compiler.errors.count() != before || !compiler.errors.is_empty() {
        return None;
    }
    let routes: Vec<_> = routes.into_iter().map(|(route, _)| route).collect();
    let Compiler {
        dialer,
        tickets,
        compressed,
        hashing,
        warnings,
        summary,
        user,
        site,
        counts,
        ..
    } = compiler;
    let snapshot = Snapshot {
        workers,
        counts,
        compressed,
        hashing,
        user,
        listeners,
        admin,
        readiness: previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.readiness)),
        metrics_routes: usize::try_from(gateway.metrics_routes.value).unwrap_or(usize::MAX),
        trusted,
        bounds: Arc::new(Bounds {
            limits: limits(&gateway.limits),
            timeouts: timeouts(&gateway.timeouts),
        }),
        table,
        vouched: Vouched::new(
            routes.iter().flat_map(|route| names_of(&route.guard)),
            previous.map(|previous| &previous.vouched),
        ),
        routes,
        verifiers: verifiers.into_iter().filter_map(|(_, made)| made).collect(),
        upstreams: upstreams.all(),
        response_headers: defaults,
        errors: site.whole,
        access_log,
        logged_user,
        state,
        acme: orders.finish(),
        tokens,
        ended,
        dialer,
        tickets,
        tests: Vec::new(),
        level: level(gateway.log.level.value),
        summary,
    };
    Some((snapshot, warnings))
}

impl Compiler<'_> {
    /// Reads a file that the configuration names; reports an error where that fails.
    fn file(&mut self, path: &Path, place: Place) -> Option<Vec<u8>> {
        self.loader.place(path, place);
        match self.loader.read(path) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                let problem = format!("`{}` cannot be read: {}", path.display(), why(&error));
                self.errors.at(place, problem);
                None
            }
        }
    }

    /// Runs work that makes a file or a directory; it belongs to the user that serves.
    fn make_file<T: Send + 'static>(
        &self,
        path: &Path,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let user = self.user.clone();
        self.loader.patiently(path, move || {
            let making = user.as_ref().map(MakesAs::begin).transpose()?;
            let made = work();
            drop(making);
            made
        })
    }

    /// Reads a file of roots that replaces the system's; reports an error where it is not valid.
    fn roots(&mut self, ca: &parsed::Spanned<PathBuf>) -> Option<Vec<u8>> {
        let pem = self.file(&ca.value, ca.place)?;
        if let Some(warning) = roots_warning(&pem, clock::now()) {
            self.errors.warn(ca.place, &warning);
        }
        if let Err(fault) = ClientTls::with_ca(&pem) {
            let draft = self.errors.at(ca.place, fault.to_string());
            if let Some(remedy) = fault.remedy(&ca.value, &ca.value) {
                draft.hint(remedy);
            }
            return None;
        }
        Some(pem)
    }

    /// The claims that may name the user in access records; the first one present is used.
    fn logged_user(&mut self, parsed: &parsed::AccessLog) -> Vec<ClaimPath> {
        let user = match parsed {
            parsed::AccessLog::On { user, .. } => user.as_ref(),
            parsed::AccessLog::Off => None,
        };
        let Some(user) = user else {
            let usual = ["sub", "user_id", "client_id"];
            return usual
                .into_iter()
                .filter_map(|it| ClaimPath::parse(it).ok())
                .collect();
        };
        match ClaimPath::parse(&user.value) {
            Ok(path) => vec![path],
            Err(problem) => {
                self.errors.at(user.place, problem);
                Vec::new()
            }
        }
    }

    fn access_log(&mut self, parsed: &parsed::AccessLog) -> Option<Arc<AccessLog>> {
        let parsed::AccessLog::On { to, format, .. } = parsed else {
            return None;
        };
        let settings = AccessLogSettings {
            to: match &to.value {
                parsed::LogTarget::Stdout => Destination::Stdout,
                parsed::LogTarget::Stderr => Destination::Stderr,
                parsed::LogTarget::File(path) => Destination::File(path.clone()),
            },
            format: match format.value {
                parsed::LogFormat::Json => Format::Json,
                parsed::LogFormat::Combined => Format::Combined,
            },
        };
        let kept = self
            .previous
            .and_then(|previous| previous.access_log.as_ref());
        if let Some(log) = kept.filter(|log| *log.settings() == settings) {
            return Some(Arc::clone(log));
        }
        let workers = self.workers;
        let opened = match (self.purpose, &to.value) {
            (Purpose::Look, _) => Ok(AccessLog::closed(settings, workers)),
            (Purpose::Serve, parsed::LogTarget::Stdout | parsed::LogTarget::Stderr) => {
                AccessLog::open(settings, workers)
            }
            // Opening a pipe may block until it has a reader.
            (Purpose::Serve, parsed::LogTarget::File(path)) => {
                self.make_file(path, move || AccessLog::open(settings, workers))
            }
        };
        match opened {
            Ok(log) => Some(Arc::new(log)),
            Err(error) => {
                self.errors.at(
                    to.place,
                    format!("the access log cannot be opened: {}", why(&error)),
                );
                None
            }
        }
    }
}

/// Adds the routes of protected resource metadata (RFC 9728), on each host that has a route with an issuer. A route of
/// the configuration for that path below `/.well-known` takes precedence.
fn resource_metadata(
    table: &mut RouteTable,
    routes: &mut Vec<(Arc<Route>, Place)>,
    response_headers: &HeaderEdits,
    (limiting, site): (&limiting::Limiting, &error_pages::Site),
) {
    let mut hosts: Vec<Host> = Vec::new();
    for (route, _) in routes
        .iter()
        .filter(|(route, _)| route.guard.has_metadata())
    {
        for host in &route.hosts {
            if !hosts.contains(host) {
                hosts.push(host.clone());
            }
        }
    }
    let Ok(pattern) = Pattern::parse(&format!("{RESOURCE_METADATA}/*")) else {
        return;
    };
    let Ok(path) = RequestPath::parse(&PathAndQuery::from_static(RESOURCE_METADATA)) else {
        return;
    };
    for host in hosts {
        let name = match &host {
            Host::Any => "",
            Host::Exact(name) | Host::Below(name) => name,
        };
        let there = table.at(name, &path).unwrap_or_default();
        if there.iter().any(|route| route.pattern.depth() > 0) {
            continue;
        }
        let route = Arc::new(Route {
            index: routes.len(),
            name: "oauth-protected-resource".to_owned(),
            hosts: vec![host],
            pattern: pattern.clone(),
            methods: MethodSet::default()
                .with("GET")
                .and_then(|methods| methods.with("OPTIONS")),
            guard: Guard::open(),
            addresses: limiting.addresses.clone(),
            limits: limiting.limits.clone(),
            ask: None,
            cors: None,
            target: Target::ResourceMetadata,
            request_headers: HeaderEdits::default(),
            response_headers: response_headers.clone(),
            errors: site.whole.clone(),
            body_bytes: 0,
            counts: RouteCounts::default(),
        });
        if table.insert(&route).is_ok() {
            routes.push((route, Place::default()));
        }
    }
}

/// The headers that tell a route's app who the client is. On all other routes credentials are the client's own.
fn names_of(guard: &Guard) -> impl Iterator<Item = HeaderName> {
    let names = guard.identity_names();
    names.filter(|name| !is_credential(name)).cloned()
}

/// The store of compressed files: the previous one, unless it may take another amount of memory.
fn compressed(gateway: &parsed::Gateway, previous: Option<&Snapshot>) -> Arc<CompressedFiles> {
    let memory = gateway.compressed.value;
    let kept = previous.map(|previous| &previous.compressed);
    match kept.filter(|kept| kept.memory() == memory) {
        Some(kept) => Arc::clone(kept),
        None => Arc::new(CompressedFiles::new(memory)),
    }
}

fn trusted(parsed: &[parsed::Spanned<parsed::TrustedPeers>]) -> TrustedProxies {
    let networks = parsed.iter().filter_map(|peers| match peers.value {
        parsed::TrustedPeers::Network(network) => Some(network),
        parsed::TrustedPeers::Unix => None,
    });
    TrustedProxies {
        networks: networks.collect(),
        unix: (parsed.iter()).any(|peers| peers.value == parsed::TrustedPeers::Unix),
    }
}

fn limits(parsed: &parsed::Limits) -> Limits {
    let size = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    Limits {
        connections: size(u64::from(parsed.connections.value)),
        connections_per_ip: parsed.connections_per_ip.value,
        header_bytes: size(parsed.header_bytes.value),
        header_count: size(u64::from(parsed.header_count.value)),
        uri_bytes: size(parsed.uri_bytes.value),
        body_bytes: parsed.body_bytes.value,
    }
}

fn timeouts(parsed: &parsed::Timeouts) -> Timeouts {
    Timeouts {
        header_read: parsed.header_read.value,
        body_read: parsed.body_read.value,
        keep_alive: parsed.keep_alive.value,
        tls_handshake: parsed.tls_handshake.value,
        send: parsed.send.value,
        shutdown: parsed.shutdown.value,
        shutdown_streams: parsed.shutdown_streams.value,
        shutdown_delay: parsed.shutdown_delay.value,
    }
}

fn edits(parsed: &parsed::HeaderChanges) -> HeaderEdits {
    let set = parsed.set.iter();
    let remove = parsed.remove.iter();
    HeaderEdits::new(
        set.map(|(name, value)| (name.value.clone(), value.value.clone()))
            .collect(),
        remove.map(|name| name.value.clone()).collect(),
    )
}

/// The edits of responses that have no route of the configuration.
fn response_edits(parsed: &parsed::Headers) -> HeaderEdits {
    let security = parsed.security.as_ref();
    edits(&parsed.response).with_security(security.is_some_and(|it| it.value))
}

fn level(parsed: parsed::Level) -> tracing::Level {
    match parsed {
        parsed::Level::Error => tracing::Level::ERROR,
        parsed::Level::Warn => tracing::Level::WARN,
        parsed::Level::Info => tracing::Level::INFO,
        parsed::Level::Debug => tracing::Level::DEBUG,
    }
}
