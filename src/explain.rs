//! `explain` and the policy tests: trace how the gateway would handle a request, step by step, with the same functions
//! that handle it. Nothing is bound, connected or sent.

mod client;
mod compression;
mod hazards;
mod limiting;
mod near;
mod wider;

use std::fmt;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Instant, SystemTime};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header,
};

use crate::auth::{Certified, Claims, Principal, Remembered, Scheme};
use crate::compress::Asker;
use crate::files::{FileRequest, FileWords};
use crate::gateway;
use crate::message::body::Body;
use crate::message::cors::{self, Cors};
use crate::message::method;
use crate::message::path::{Reading, RequestPath};
use crate::message::reject::{Longest, Reject};
use crate::message::request_id::RequestId;
use crate::net::client::Peer;
use crate::net::tls::ShownChain;
use crate::proxy::Draft;
use crate::route::{Host, Rewrite, Route, RouteTable, Target};
use crate::snapshot::{PolicyTest, Snapshot};

use self::client::listener_of;
pub(crate) use self::hazards::hazards;
pub(crate) use self::wider::wider;

/// The reason code of a client that is refused in the TLS handshake, for its certificate.
const NO_CONNECTION: &str = "tls_client_certificate";

/// A request to explain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'q> {
    /// Method, target and headers, `Host` among them.
    pub(crate) request: &'q Request<()>,
    /// Whether it uses TLS; where not given, as the first listener does.
    pub(crate) secure: Option<bool>,
    /// The claims of a token whose signature is assumed to be valid.
    pub(crate) claims: Option<&'q Claims>,
    /// The certificate that the client shows.
    pub(crate) certificate: Option<&'q ShownChain>,
    /// Whether neither its dates count nor revocation lists.
    pub(crate) any_time: bool,
    /// The client's address; `None` on a Unix socket.
    pub(crate) from: Option<IpAddr>,
    /// The time.
    pub(crate) now: SystemTime,
}

/// The outcome of a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The gateway refuses it.
    Refused(Reject),
    /// The gateway responds itself.
    Answered(StatusCode),
    /// It is forwarded to an app.
    Forwarded,
    /// The TLS handshake ends without a connection.
    NoConnection,
    /// An external server decides.
    Asked,
    /// It is allowed if its token is genuine, which cannot be checked here.
    Unproven,
}

/// The outcome of a request, and how it was reached.
#[derive(Debug)]
pub(crate) struct Decision {
    steps: Vec<(&'static str, String)>,
    /// The index of the route.
    pub(crate) route: Option<usize>,
    /// The upstream's name.
    pub(crate) upstream: Option<String>,
    /// The header fields that the app would receive.
    pub(crate) app_sees: Vec<(HeaderName, HeaderValue)>,
    /// Whether the token could not be checked; the later steps then apply only if it is genuine.
    unproven: bool,
    /// The outcome.
    pub(crate) outcome: Outcome,
}

impl Decision {
    /// Whether the request is allowed.
    pub(crate) fn is_allowed(&self) -> bool {
        match &self.outcome {
            Outcome::Refused(_) | Outcome::NoConnection | Outcome::Asked | Outcome::Unproven => {
                false
            }
            Outcome::Answered(status) => !status.is_client_error() && !status.is_server_error(),
            Outcome::Forwarded => true,
        }
    }
}

impl Decision {
    /// The steps with their names.
    pub(crate) fn steps(
        &self,
    ) -> impl ExactSizeIterator<Item = (&'static str, &str)> + DoubleEndedIterator {
        self.steps.iter().map(|(name, text)| (*name, text.as_str()))
    }

    /// The header fields that the app would receive, without tokens and secrets.
    pub(crate) fn seen(&self) -> impl Iterator<Item = (&str, String)> {
        let fields = self.app_sees.iter();
        fields.map(|(name, value)| (name.as_str(), shown(name, value)))
    }

    /// The status of the gateway's own response, and the reason code of a refusal.
    pub(crate) fn answer(&self) -> (Option<StatusCode>, Option<&'static str>) {
        match &self.outcome {
            Outcome::Refused(reject) => (Some(reject.status()), Some(reject.reason())),
            Outcome::Answered(status) => (Some(*status), None),
            // Without keys the gateway would refuse it so.
            Outcome::Unproven => {
                let missing = Reject::KeysMissing;
                (Some(missing.status()), Some(missing.reason()))
            }
            Outcome::NoConnection => (None, Some(NO_CONNECTION)),
            Outcome::Forwarded | Outcome::Asked => (None, None),
        }
    }
}

impl fmt::Display for Decision {
    /// One line per step, its name in the first column; a repeated name is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = "";
        for (name, text) in &self.steps {
            let shown = if *name == before { "" } else { name };
            writeln!(f, "{shown:<10} {text}")?;
            before = name;
        }
        Ok(())
    }
}

/// Decides a request as the gateway would, with the keys that are available.
pub(crate) fn explain(snapshot: &Snapshot, question: &Question<'_>) -> Decision {
    let mut decision = Decision {
        steps: Vec::new(),
        route: None,
        upstream: None,
        app_sees: Vec::new(),
        unproven: false,
        outcome: Outcome::Forwarded,
    };
    let request = with_host(snapshot, question.request);
    let question = &Question {
        request: &request,
        ..*question
    };
    decision.outcome = match decision.way(snapshot, question) {
        Ok(_) if decision.unproven => {
            decision.say(
                "answer",
                "not known: this where the token is genuine, else 401",
            );
            Outcome::Unproven
        }
        Ok(outcome) => outcome,
        Err(reject) => {
            decision.say_refusal(snapshot, question, reject);
            Outcome::Refused(reject)
        }
    };
    decision
}

impl Decision {
    fn say(&mut self, step: &'static str, text: impl Into<String>) {
        self.steps.push((step, text.into()));
    }

    /// The stages of a request, as in `gateway`.
    fn way(&mut self, snapshot: &Snapshot, question: &Question<'_>) -> Result<Outcome, Reject> {
        let request = question.request;
        let (listener, secure) = listener_of(snapshot, question);
        let host = gateway::host_of(request)?;
        let target = request.uri().path_and_query().ok_or(Reject::BadPath)?;
        if let Some(listener) = listener {
            let kind = match &listener.tls {
                None => "plain".to_owned(),
                Some(tls) if tls.has_certificate(&host) => "TLS".to_owned(),
                // A request is not refused for this: a connection may ask for one name, and its requests for another.
                Some(tls) if tls.serves(&host) => {
                    format!("TLS, with the first certificate: none is for `{host}`")
                }
                Some(_) => format!("TLS, which refuses handshakes for `{host}`: no certificate"),
            };
            self.say("listener", format!("{}, {kind}", listener.address));
        }
        let Ok(certificate) = self.shake_hands(listener, question) else {
            self.say("answer", "none: the TLS handshake ends with an alert");
            return Ok(Outcome::NoConnection);
        };
        if !method::is_served(request.method()) {
            return Err(Reject::MethodNotServed);
        }
        self.say("host", host.as_ref());
        if target.as_str().len() > snapshot.bounds.limits.uri_bytes {
            return Err(Reject::UriTooLong);
        }
        if request.headers().len() > snapshot.bounds.limits.header_count {
            return Err(Reject::HeadTooLarge);
        }
        let path = RequestPath::parse(target)?;
        self.say("path", path.written());
        self.say_readings(snapshot, &host, &path, request.method());
        let peer = Peer::new(question.from, secure);
        let client = snapshot.trusted.client(&peer, request.headers());
        if let Some(port) = listener.and_then(|listener| listener.redirect_to_https)
            && !client.secure
        {
            self.say("answer", format!("308 to https on port {port}"));
            return Ok(Outcome::Answered(StatusCode::PERMANENT_REDIRECT));
        }
        if let Some((route, cors)) = gateway::find_preflight(snapshot, &host, &path, request) {
            self.say_routes(snapshot, &host, &path, Some(&route));
            self.route = Some(route.index);
            return self.preflight(cors, request.headers());
        }
        let found = snapshot.table.find(&host, &path, request.method());
        self.say_routes(snapshot, &host, &path, found.as_ref().ok());
        let route = found?;
        self.route = Some(route.index);
        self.say_reader(route, secure, request);
        self.limiting(route, client.ip, request.headers(), &path)?;
        let permit = {
            let params = route.parameters(&path);
            for (name, value) in &params {
                self.say(
                    "path",
                    format!("{{{name}}} is {:?}", value.unwrap_or("(not UTF-8)")),
                );
            }
            let certified = self.certify(&route.guard, certificate, question)?;
            match route.guard.scheme() {
                Scheme::Open if route.guard.demands_certificate() => {
                    self.say("auth", "the client certificate is enough");
                }
                Scheme::Open => self.say("auth", "none: for everybody"),
                Scheme::Jwt(_) => {}
                Scheme::Ask(_) => {
                    let asked = route.ask.as_ref();
                    let url = asked
                        .map(|ask| format!("{}{}", ask.forward.upstream.name, ask.target.path()));
                    let url = url.unwrap_or_default();
                    self.say("auth", format!("{url} decides; it is not asked here"));
                    return Ok(Outcome::Asked);
                }
            }
            let principal = self.principal(route, &certified, target.query(), question)?;
            for line in route.guard.explain_claims(&principal, &params) {
                self.say("require", line);
            }
            route.guard.authorize(principal, &certified, &params)?
        };
        if let Some(reject) = permit.reported() {
            let reason = reject.reason();
            self.say(
                "auth",
                format!("would be refused ({reason}), but `enforce: report` lets it pass"),
            );
        }
        let file = || FileRequest {
            worker: 0,
            method: request.method(),
            version: Version::HTTP_2,
            headers: request.headers(),
            path: &path,
            skip: route.file_depth(),
            query: target.query(),
            now: question.now,
            at: Instant::now(),
            carries: false,
        };
        match &route.target {
            Target::Files(files) => {
                let told = files.in_words(&permit, file());
                self.file(files.serve(permit, file()), told)
            }
            Target::Upstream {
                forward,
                rewrite,
                compress,
                first,
                accel,
            } => {
                if let Some(files) = first {
                    let told = files.in_words_if_there(&permit, file())?;
                    if let Some(told) = told {
                        return self.file(files.serve(permit, file()), told);
                    }
                    self.say("file", "none: the app is asked");
                }
                let length = request.headers().get(header::CONTENT_LENGTH);
                let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
                if length.is_some_and(|length| length > route.body_bytes) {
                    return Err(Reject::BodyTooLarge(Longest::BodyBytes(route.body_bytes)));
                }
                if route.lacks_slash(&path, request) {
                    self.say("answer", format!("308 to {}/", path.written()));
                    return Ok(Outcome::Answered(StatusCode::PERMANENT_REDIRECT));
                }
                let mut headers = request.headers().clone();
                let sent = gateway::upstream_target(rewrite.as_ref(), &path, request);
                let draft = Draft {
                    headers: &mut headers,
                    uri: request.uri(),
                    target: sent.as_deref().unwrap_or(target.as_str()),
                    prefix: rewrite.as_ref().and_then(Rewrite::prefix),
                    upgrade: None,
                    peer: &peer,
                    client: &client,
                    vouched: &snapshot.vouched,
                    edits: &route.request_headers,
                    id: RequestId(0),
                };
                let asker = Asker {
                    method: request.method(),
                    version: Version::HTTP_2,
                    headers: request.headers(),
                    is_private: permit.is_private(),
                    has_key: permit.has_key_in_header(request.headers()),
                    has_certificate: question.certificate.is_some(),
                };
                let compressed = compress
                    .as_ref()
                    .map(|rules| compression::in_words(rules, &asker));
                let (target, fields) = forward.head(&permit, draft)?;
                let name = &forward.upstream.name;
                self.say("upstream", name);
                let settings = forward.upstream.settings();
                if settings.servers.len() > 1 {
                    let servers = settings.servers.iter().map(ToString::to_string);
                    let servers: Vec<String> = servers.collect();
                    let line = format!("{} of {}", settings.balance_in_words(), servers.join(", "));
                    self.say("servers", line);
                }
                let (path, query) = match target.split_once('?') {
                    Some((path, _)) => (path, "?***"),
                    None => (&*target, ""),
                };
                let line = format!("{} {path}{query}", request.method());
                self.say("app sees", line);
                for (name, value) in fields.iter() {
                    if let Some(value) = value.to_header() {
                        self.say("app sees", format!("{name}: {}", shown(name, &value)));
                        self.app_sees.push((name.clone(), value));
                    }
                }
                self.upstream = Some(name.clone());
                if let Some(text) = compressed {
                    self.say("compress", text);
                }
                if let Some(folders) = accel {
                    let folders = folders.in_words();
                    self.say("accel", format!("a file, if the app names one: {folders}"));
                }
                self.say("answer", "the app's");
                Ok(Outcome::Forwarded)
            }
            Target::Redirect { status, to } => {
                let to = gateway::location(to, &path, None)?;
                self.say("answer", format!("{} to {to}", status.as_u16()));
                Ok(Outcome::Answered(*status))
            }
            Target::Respond { status, .. } => {
                self.say("answer", format!("{}, fixed", status.as_u16()));
                Ok(Outcome::Answered(*status))
            }
            Target::Tokens { endpoint, .. } => {
                self.say(
                    "answer",
                    format!("{}; nothing is issued here", endpoint.name()),
                );
                Ok(Outcome::Answered(StatusCode::OK))
            }
            Target::ResourceMetadata => {
                let authority = request.uri().authority().map_or(&*host, |it| it.as_str());
                let response =
                    gateway::metadata(snapshot, request.method(), secure, authority, &host, &path)?;
                self.say("answer", "200, how to get a token (RFC 9728)");
                Ok(Outcome::Answered(response.status()))
            }
        }
    }

    /// The response of a file, and what is said of it.
    fn file(
        &mut self,
        serving: impl Future<Output = Result<Response<Body>, Reject>>,
        told: FileWords,
    ) -> Result<Outcome, Reject> {
        let status = match pin!(serving).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(response) => response?.status(),
            Poll::Pending => StatusCode::OK,
        };
        for line in told.lines {
            self.say("file", line);
        }
        let source = told.source;
        self.say("answer", format!("{} {source}", status.as_u16()));
        Ok(Outcome::Answered(status))
    }

    /// A preflight of a route with `cors`, and how the browser evaluates the response.
    fn preflight(&mut self, cors: &Cors, asked: &HeaderMap) -> Result<Outcome, Reject> {
        let origin = list(asked, &header::ORIGIN).join(", ");
        let method = list(asked, &header::ACCESS_CONTROL_REQUEST_METHOD).join(", ");
        self.say(
            "cors",
            format!("a preflight: may a page of {origin} send {method}?"),
        );
        let answered = gateway::answer_preflight(cors, asked);
        if answered.is_err() {
            self.say("cors", format!("no: `cors` names {cors}"));
        }
        let mut answer = answered?;
        cors.apply(cors.reader(asked), answer.headers_mut());
        let fields = answer.headers();
        let methods = list(fields, &header::ACCESS_CONTROL_ALLOW_METHODS);
        let names = list(fields, &header::ACCESS_CONTROL_ALLOW_HEADERS);
        let mut objections = Vec::new();
        // These are always allowed.
        let always = [Method::GET, Method::HEAD, Method::POST];
        if !always.iter().any(|known| *known == *method) && !methods.contains(&method) {
            objections.push(format!("{method} is not among its methods"));
        }
        for name in list(asked, &header::ACCESS_CONTROL_REQUEST_HEADERS) {
            if !names.iter().any(|known| known.eq_ignore_ascii_case(&name)) {
                objections.push(format!("{name} is not among its headers"));
            }
        }
        for (name, value) in fields {
            self.say("cors", format!("{name}: {}", shown(name, value)));
        }
        for objection in objections {
            self.say("cors", format!("the browser will not send it: {objection}"));
        }
        self.say("answer", answer.status().as_u16().to_string());
        Ok(Outcome::Answered(answer.status()))
    }

    /// Whether the requesting page may read the response, where the request has an origin.
    fn say_reader<B>(&mut self, route: &Route, secure: bool, request: &Request<B>) {
        let headers = request.headers();
        if !headers.contains_key(header::ORIGIN) {
            return;
        }
        let origin = list(headers, &header::ORIGIN).join(", ");
        let own = gateway::origin_of(secure, request);
        let is_own = own.as_deref().and_then(cors::normal).as_ref() == Some(&origin);
        let reader = route.cors.as_deref().and_then(|cors| cors.reader(headers));
        let text = match (&route.cors, reader) {
            (Some(cors), Some(_)) if cors.has_credentials() => {
                format!("a page of {origin} may read the answer, also with credentials")
            }
            (_, Some(_)) => format!("a page of {origin} may read the answer"),
            (_, None) if is_own => {
                format!("a page of {origin} may read the answer, it is the host's own")
            }
            (Some(cors), None) => {
                format!("a page of {origin} may not read the answer: `cors` names {cors}")
            }
            (None, None) if route.is_for_every_page() => {
                format!("a page of {origin} may read the answer, as all may")
            }
            (None, None) => format!(
                "a page of {origin} may not read the answer, unless the app or `headers` say so: there is no `cors`"
            ),
        };
        self.say("cors", text);
    }

    fn principal(
        &mut self,
        route: &Route,
        certified: &Certified<'_>,
        query: Option<&str>,
        question: &Question<'_>,
    ) -> Result<Principal, Reject> {
        if let Some(claims) = question.claims {
            let assumed = route.guard.assume(certified, claims, question.now);
            return match assumed {
                Ok(principal) => {
                    if matches!(route.guard.scheme(), Scheme::Jwt(_)) {
                        self.say(
                            "token",
                            "assumed to be signed rightly, with the claims given",
                        );
                    }
                    Ok(principal)
                }
                Err((reject, why)) => {
                    self.say("token", why);
                    route.guard.let_pass(reject)
                }
            };
        }
        let headers = question.request.headers();
        for line in route
            .guard
            .explain_token(certified, headers, query, question.now)
        {
            self.say("token", line);
        }
        let nothing = Remembered::new(0);
        let found =
            route
                .guard
                .authenticate_at_once(certified, headers, query, &nothing, question.now);
        let refused = match found {
            Ok(principal) => return Ok(principal),
            Err(refused) => refused.reject,
        };
        if refused == Reject::KeysMissing
            && let Some(assumed) =
                route
                    .guard
                    .assume_genuine(certified, headers, query, question.now)
        {
            self.unproven = assumed.is_ok();
            return assumed.or_else(|reject| route.guard.let_pass(reject));
        }
        route.guard.let_pass(refused)
    }

    /// The ways in which apps may read the path, where there are several, and the route of each.
    fn say_readings(
        &mut self,
        snapshot: &Snapshot,
        host: &str,
        path: &RequestPath,
        method: &Method,
    ) {
        let leads = |reading: Reading<'_>| {
            let Some(routes) = snapshot.table.read(host, reading) else {
                return "no route".to_owned();
            };
            let Ok(route) = RouteTable::of_method(routes, method) else {
                return "no route for the method".to_owned();
            };
            let mut text = described(route);
            for (name, at) in route.deciding_parameters() {
                let value = reading.segments().nth(at).unwrap_or_default();
                let value = String::from_utf8_lossy(value);
                text.push_str(&format!(", {{{name}}} is {value:?}"));
            }
            text
        };
        let resolved = path.resolved();
        let (first, led) = (resolved.to_string(), leads(resolved));
        if path.has_one_reading() {
            if first != path.written() {
                self.say("path", format!("read as {first}"));
            }
            return;
        }
        let mut told = vec![first.clone()];
        self.say("path", format!("read as {first} (resolved): {led}"));
        for other in path.others() {
            let text = other.reading().to_string();
            if !told.contains(&text) {
                let led = leads(other.reading());
                self.say("path", format!("read as {text} ({}): {led}", other.how));
                told.push(text);
            }
        }
    }

    /// The route, and why other routes with this path do not match.
    fn say_routes(
        &mut self,
        snapshot: &Snapshot,
        host: &str,
        path: &RequestPath,
        found: Option<&&Arc<Route>>,
    ) {
        if let Some(route) = found {
            self.say("route", described(route));
        }
        let there = snapshot.table.at(host, path).unwrap_or_default();
        for route in snapshot.routes.iter().filter(|route| route.has_path(path)) {
            if found.is_some_and(|found| Arc::ptr_eq(found, route)) {
                continue;
            }
            let why = if !route.hosts.iter().any(|it| it.is(host)) {
                format!("not for the host {host:?}")
            } else if there.iter().any(|it| Arc::ptr_eq(it, route)) {
                let methods = route.methods.map_or_else(String::new, |methods| {
                    methods.names().collect::<Vec<_>>().join(", ")
                });
                if methods.is_empty() {
                    "a route for this very method goes before".to_owned()
                } else {
                    format!("only for {methods}")
                }
            } else {
                "less specific".to_owned()
            };
            self.say("route", format!("not {}: {why}", described(route)));
        }
        if found.is_none() && there.is_empty() {
            let near: Vec<String> = near::nearest(&snapshot.routes, path)
                .map(described)
                .collect();
            if !near.is_empty() {
                self.say("route", format!("the nearest: {}", near.join(", ")));
            }
        }
    }

    fn say_refusal(&mut self, snapshot: &Snapshot, question: &Question<'_>, reject: Reject) {
        self.say(
            "answer",
            format!(
                "{} {}: {}",
                reject.status().as_u16(),
                reject.reason(),
                reject.detail()
            ),
        );
        let route = self.route.and_then(|index| snapshot.routes.get(index));
        if let Some(challenge) = route.and_then(|route| {
            let secure = listener_of(snapshot, question).1;
            let request = question.request;
            route
                .guard
                .challenge(reject, || gateway::metadata_url_of(secure, request))
        }) {
            let text = String::from_utf8_lossy(challenge.as_bytes()).into_owned();
            self.say("answer", format!("WWW-Authenticate: {text}"));
        }
        if let Some(challenge) = route.and_then(|route| route.guard.basic_challenge(reject)) {
            let text = String::from_utf8_lossy(challenge.as_bytes()).into_owned();
            self.say("answer", format!("WWW-Authenticate: {text}"));
        }
    }
}

/// The request with a `Host`: its own, or where it has none, that of the first route with this path that names a host.
fn with_host(snapshot: &Snapshot, request: &Request<()>) -> Request<()> {
    let mut request = request.clone();
    if request.headers().contains_key(header::HOST) {
        return request;
    }
    let path = request.uri().path_and_query().map(RequestPath::parse);
    let host = path.and_then(Result::ok).and_then(|path| {
        let routes = snapshot.routes.iter();
        let mut hosts = routes
            .filter(|route| route.has_path(&path))
            .flat_map(|route| &route.hosts);
        hosts.find_map(|host| match host {
            Host::Exact(name) => HeaderValue::from_str(name).ok(),
            Host::Below(_) | Host::Any => None,
        })
    });
    let host = host.unwrap_or(HeaderValue::from_static("localhost"));
    request.headers_mut().insert(header::HOST, host);
    request
}

/// The items of a header's list, as written.
fn list(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let lines = headers.get_all(name).iter();
    lines
        .flat_map(|line| {
            let text = String::from_utf8_lossy(line.as_bytes()).into_owned();
            text.split(',')
                .map(|item| item.trim().to_owned())
                .collect::<Vec<_>>()
        })
        .filter(|item| !item.is_empty())
        .collect()
}

fn described(route: &Route) -> String {
    let pattern = &route.pattern.text;
    if route.name.ends_with(pattern.as_str()) {
        route.name.clone()
    } else {
        format!("{} ({pattern})", route.name)
    }
}

/// A header's value for display. Tokens are never shown, not even to the caller who typed one, nor are secrets of the
/// configuration.
fn shown(name: &HeaderName, value: &HeaderValue) -> String {
    let may_hold_token = [
        header::AUTHORIZATION,
        header::COOKIE,
        header::SEC_WEBSOCKET_PROTOCOL,
    ];
    if value.is_sensitive() || may_hold_token.contains(name) {
        "***".to_owned()
    } else {
        String::from_utf8_lossy(value.as_bytes()).into_owned()
    }
}

/// Runs a configuration's policy tests. Returns the index and the reason of each failure.
pub(crate) fn failing(snapshot: &Snapshot, now: SystemTime) -> Vec<(usize, String)> {
    let all = snapshot.tests.iter().enumerate();
    all.filter_map(|(at, test)| Some((at, check(snapshot, test, now).1?)))
        .collect()
}

/// Runs one policy test: the decision, and why it differs from the expectation.
pub(crate) fn check(
    snapshot: &Snapshot,
    test: &PolicyTest,
    now: SystemTime,
) -> (Decision, Option<String>) {
    let decision = explain(
        snapshot,
        &Question {
            request: &test.request,
            secure: test.secure,
            claims: test.claims.as_ref(),
            certificate: test.certificate.as_ref(),
            // Security: a certificate that expires or is revoked must keep no configuration from being loaded, least of
            // all the list that revokes it.
            any_time: true,
            from: test.from,
            now,
        },
    );
    let why = differs(snapshot, test, &decision);
    (decision, why)
}

fn differs(snapshot: &Snapshot, test: &PolicyTest, decision: &Decision) -> Option<String> {
    let expect = &test.expect;
    let (status, reason) = decision.answer();
    let because = || {
        let last = decision.steps.iter().rev();
        let why = last
            .clone()
            .filter(|(step, _)| matches!(*step, "client" | "token" | "require"))
            .map(|(_, text)| text.as_str())
            .next();
        match (&decision.outcome, why) {
            (Outcome::Refused(_) | Outcome::NoConnection, Some(why)) => format!(" ({why})"),
            (_, _) => String::new(),
        }
    };
    let is = || match (&decision.outcome, status) {
        (Outcome::Forwarded, _) => "the app answers".to_owned(),
        (Outcome::Asked, _) => "another server decides".to_owned(),
        (Outcome::NoConnection, _) => {
            format!("the handshake ends with {NO_CONNECTION}{}", because())
        }
        (_, Some(status)) => format!(
            "it is {}{}{}",
            status.as_u16(),
            reason.map_or_else(String::new, |reason| format!(" {reason}")),
            because()
        ),
        (_, None) => "nothing is known".to_owned(),
    };
    if let Some(wanted) = expect.status
        && status != Some(wanted)
    {
        return Some(format!("expected status {}, but {}", wanted.as_u16(), is()));
    }
    if let Some(wanted) = &expect.reason
        && reason != Some(wanted.as_str())
    {
        return Some(format!("expected reason {wanted}, but {}", is()));
    }
    let refusal_is_right = expect.status.is_some() || expect.reason.is_some();
    if let (Outcome::Refused(_) | Outcome::NoConnection | Outcome::Unproven, false) =
        (&decision.outcome, refusal_is_right)
    {
        return Some(format!("expected that it may pass, but {}", is()));
    }
    if let Some(wanted) = &expect.route {
        let route = decision.route.and_then(|index| snapshot.routes.get(index));
        let name = route.map_or("none", |route| route.name.as_str());
        if name != wanted {
            return Some(format!("expected the route {wanted}, but it is {name}"));
        }
    }
    if let Some(wanted) = &expect.upstream
        && decision.upstream.as_ref() != Some(wanted)
    {
        let name = decision.upstream.as_deref().unwrap_or("none");
        return Some(format!("expected the upstream {wanted}, but it is {name}"));
    }
    if !expect.headers.is_empty() && !matches!(decision.outcome, Outcome::Forwarded) {
        return Some(format!("expected that an app sees headers, but {}", is()));
    }
    for (name, wanted) in &expect.headers {
        let values = || {
            let all = decision.app_sees.iter();
            all.filter(|(known, _)| known == name)
                .map(|(_, value)| value)
        };
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let seen: Vec<String> = values().map(text).collect();
        let seen = (!seen.is_empty()).then(|| seen.join(", "));
        if seen != *wanted {
            let masked: Vec<String> = values().map(|value| shown(name, value)).collect();
            let absent = |text: Option<String>| text.unwrap_or_else(|| "absent".to_owned());
            let is = absent(seen.map(|_| format!("{:?}", masked.join(", "))));
            let wanted = absent(wanted.as_ref().map(|wanted| format!("{wanted:?}")));
            return Some(format!(
                "expected that the app sees {name} {wanted}, but it is {is}"
            ));
        }
    }
    None
}

/// The routes that require a certificate or a token but have no test that expects a refusal. Decisions of an external server cannot be
/// tested here.
pub(crate) fn without_refusing_test(snapshot: &Snapshot, now: SystemTime) -> Vec<&str> {
    let mut tested = vec![false; snapshot.routes.len()];
    for test in &snapshot.tests {
        let (decision, failure) = check(snapshot, test, now);
        // A refused origin proves nothing about access control.
        if let (Outcome::Refused(reject), None, Some(index)) =
            (&decision.outcome, failure, decision.route)
            && *reject != Reject::OriginRefused
            && let Some(tested) = tested.get_mut(index)
        {
            *tested = true;
        }
    }
    snapshot
        .routes
        .iter()
        .filter(|route| match route.guard.scheme() {
            Scheme::Jwt(_) => true,
            Scheme::Open | Scheme::Ask(_) => route.guard.demands_certificate(),
        })
        .filter(|route| !tested.get(route.index).copied().unwrap_or(false))
        .map(|route| route.name.as_str())
        .collect()
}
