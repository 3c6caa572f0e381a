//! The path of a request through the gateway, on one page: host, path, challenge, redirect to https, preflight, route,
//! addresses, early limits, certificate, authenticate, authorise, late limits, serve, accel. There are no other stages.

mod accel;
mod asking;
mod challenge;
mod ending;
mod host;
mod issuing;
mod metadata;
mod pages;
mod preflight;
mod private;
mod record;
mod refusal;

use std::convert::Infallible;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use tokio::time::Instant;

use self::asking::Asked;
pub(crate) use self::host::host_of;
pub(crate) use self::metadata::{origin_of, respond as metadata, url_of as metadata_url_of};
pub(crate) use self::preflight::{answer as answer_preflight, find as find_preflight};
use self::record::Record;
pub(crate) use self::record::Recorded;
use self::refusal::About;
use crate::auth::Scheme;
use crate::compress::Asker;
use crate::files::{AccelFolders, FileRequest};
use crate::limit::{Refusal, Sender};
use crate::message::body::Body;
use crate::message::method;
use crate::message::path::RequestPath;
use crate::message::reject::Reject;
use crate::net::client::Peer;
use crate::net::tls::ClientCertificate;
use crate::proxy::{Course, Outbound, Tunnel};
use crate::route::{Rewrite, Route, Target, Template};
use crate::snapshot::Snapshot;
use crate::wire::{self, Line};
use crate::worker::Worker;

/// State shared by all requests of one connection.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The worker that serves it.
    pub(crate) worker: Arc<Worker>,
    /// The client's address.
    pub(crate) peer: Peer,
    /// The certificate that the client showed.
    pub(crate) certificate: Option<Arc<ClientCertificate>>,
    /// The connection's state, shared with its reader and writer.
    pub(crate) line: Arc<Line>,
    /// The TLS port that plain-text requests are redirected to.
    pub(crate) redirect_to_https: Option<u16>,
    /// Whether the system can send files on it by itself.
    pub(crate) carries: bool,
}

/// Responds to one request; `refusal` is set where the request could not be parsed unambiguously.
///
/// The snapshot is taken once, at the start, so a reload during the request never mixes two configurations. Every
/// request ends in one access log record.
pub(crate) fn answer(
    connection: Arc<Connection>,
    request: Box<Request<Body>>,
    refusal: Option<Reject>,
) -> impl Future<Output = Result<Response<Recorded>, Infallible>> {
    let began = Instant::now();
    let (view, time) = connection.worker.begin(began);
    let mut record = Record::begin(&connection, &view, (began, time), &request);
    let form = refusal::Asked::of(&request);
    let navigates = form.is_page() && pages::is_navigation(&request);
    let mut tunnel = None;
    async move {
        let served = match refusal {
            None => serve(&view, &connection, &mut record, &mut tunnel, request).await,
            Some(reject) => Err(reject),
        };
        let route = record.route().and_then(|index| view.routes.get(index));
        let pages = route.map_or(&view.errors, |route| &route.errors).as_ref();
        let mut rejected = None;
        let mut response = served.unwrap_or_else(|reject| {
            rejected = Some(reject);
            record.refuse(reject);
            let route = route.map(AsRef::as_ref);
            let about = About {
                route,
                pages: pages.map(AsRef::as_ref),
                limits: &view.bounds.limits,
                id: record.id(),
            };
            form.answer(reject, &about, || record.metadata_url())
        });
        if let Some(pages) = pages
            && navigates
            && tunnel.is_none()
            && !record.is_refused()
            && !record.is_file()
            && route.is_some_and(|route| matches!(route.target, Target::Upstream { .. }))
            && pages::intercept(pages, &mut response, record.id())
        {
            record.encoded(None);
        }
        if record.is_private() && !response.status().is_informational() {
            private::keep(response.headers_mut(), record.is_file());
        }
        if let Some(cors) = route.and_then(|route| route.cors.as_ref()) {
            cors.apply(record.reader(), response.headers_mut());
        }
        if let Some(limits) = route.and_then(|route| route.limits.as_ref()) {
            // A gRPC call is refused with 200.
            let status = rejected.map_or_else(|| response.status(), Reject::status);
            let denied = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status);
            let why = match rejected {
                Some(Reject::BasicRefused) => Refusal::WrongPassword,
                Some(_) | None => Refusal::Other,
            };
            let refused = (denied && record.is_refused()).then_some(why);
            record.counted(limits, refused, response.headers_mut());
        }
        let edits = route.map_or(&view.response_headers, |route| &route.response_headers);
        edits.apply(response.headers_mut(), || record.facts());
        if record.is_refused() {
            // The cache settings of the route are for its own responses, not for refusals.
            let headers = response.headers_mut();
            headers.insert(header::CACHE_CONTROL, refusal::NO_STORE);
        }
        Ok(record.finish(response, tunnel))
    }
}

async fn serve(
    snapshot: &Snapshot,
    connection: &Connection,
    record: &mut Record,
    tunnel: &mut Option<Tunnel>,
    mut request: Box<Request<Body>>,
) -> Result<Response<Body>, Reject> {
    host::check_size(&request, &snapshot.bounds.limits)?;
    if !method::is_served(request.method()) {
        return Err(Reject::MethodNotServed);
    }
    let host = host_of(&request)?;
    let target = request.uri().path_and_query().ok_or(Reject::BadPath)?;
    if target.as_str() == "*" && request.method() == Method::OPTIONS {
        // It asks about the server as a whole (RFC 9110 section 9.3.7), which is this one.
        return Ok(Response::new(Body::Empty));
    }
    let path = RequestPath::parse(target)?;
    if let Some(acme) = &snapshot.acme
        && !connection.peer.tls
        && let Some(answer) = challenge::answer(&acme.challenges, &host, &request)
    {
        return Ok(answer);
    }
    if let Some(port) = connection.redirect_to_https
        && !record.is_secure()
    {
        return redirect_to_https(&host, port, &path, target.query());
    }
    if let Some((route, cors)) = find_preflight(snapshot, &host, &path, &request) {
        record.found(route, request.headers());
        return answer_preflight(cors, request.headers());
    }
    let route = snapshot.table.find(&host, &path, request.method())?;
    record.found(route, request.headers());
    if let Some(addresses) = &route.addresses
        && !addresses.allows(record.client())
    {
        return Err(Reject::AddressRefused);
    }
    if let Some(limits) = &route.limits {
        record.count(limits, request.headers(), &path, None)?;
    }
    let guard = &route.guard;
    let certified = guard.certify(connection.certificate.as_ref(), record.time())?;
    let mut permit = match (guard.scheme(), &route.ask) {
        (Scheme::Ask(_), Some(ask)) => {
            let sent = upstream_target(None, &path, &request);
            let target = sent.as_deref().unwrap_or(target.as_str());
            let deciding = (guard, &certified, &**ask);
            let asking = asking::ask(snapshot, connection, record, deciding, target, &request);
            match Box::pin(asking).await? {
                Asked::Permitted(permit) => permit,
                Asked::Answered(answer) => return Ok(answer),
            }
        }
        _ => {
            let remembered = &connection.worker.remembered;
            let headers = request.headers();
            let (query, now) = (target.query(), record.time());
            let authenticating = guard.authenticate(&certified, headers, query, remembered, now);
            let principal = authenticating.await?;
            record.authenticated(&principal);
            guard.authorize(principal, &certified, &route.parameters(&path))?
        }
    };
    record.permitted(&mut permit);
    if let Some(limits) = &route.limits {
        record.count(limits, request.headers(), &path, Some(&permit))?;
    }
    if permit.reported().is_some() {
        route.guard.count_reported();
    }

    let asked = FileRequest {
        worker: connection.worker.index,
        method: request.method(),
        version: request.version(),
        headers: request.headers(),
        path: &path,
        skip: route.file_depth(),
        query: target.query(),
        now: record.time(),
        at: record.began().into_std(),
        carries: connection.carries && request.version() != Version::HTTP_2,
    };
    match &route.target {
        Target::Files(files) => {
            let response = files.serve(permit, asked).await?;
            record.gave_file(response.headers());
            Ok(response)
        }
        Target::Upstream {
            forward,
            rewrite,
            compress,
            first,
            accel,
        } => {
            let permit = match first {
                None => permit,
                Some(files) => match Box::pin(files.serve_if_there(permit, asked)).await? {
                    Ok(response) => {
                        record.gave_file(response.headers());
                        return Ok(response);
                    }
                    Err(permit) => permit,
                },
            };
            if route.lacks_slash(&path, &request) {
                drop(permit);
                let to = with_query(format!("{}/", path.written()), target.query());
                return redirect(StatusCode::PERMANENT_REDIRECT, &to);
            }
            let sticky = forward.upstream.sticky.as_ref();
            let stuck = sticky.and_then(|sticky| sticky.take(request.headers_mut()));
            let target = upstream_target(rewrite.as_ref(), &path, &request);
            let wish = compress.as_ref().map(|rules| {
                rules.wish(&Asker {
                    method: request.method(),
                    version: request.version(),
                    headers: request.headers(),
                    is_private: permit.is_private(),
                    has_key: permit.has_key_in_header(request.headers()),
                    has_certificate: connection.certificate.is_some(),
                })
            });
            // The request goes to the app, which may send a file in its place.
            let kept = accel.as_ref().map(|folders| Kept::of(folders, &request));
            let key = match forward.by {
                None => None,
                Some(_) => forward.key(&Sender {
                    client: record.sender().ip,
                    headers: request.headers(),
                    path: &path,
                    permit: Some(&permit),
                }),
            };
            let outbound = Outbound {
                key,
                stuck,
                target,
                prefix: rewrite.as_ref().and_then(Rewrite::prefix),
                worker: connection.worker.index,
                peer: &connection.peer,
                client: record.sender(),
                vouched: &snapshot.vouched,
                edits: &route.request_headers,
                id: record.id(),
                began: record.began(),
                body_bytes: route.body_bytes,
                body_read: snapshot.bounds.timeouts.body_read,
                request,
            };
            let mut course = Course::default();
            let answer = match forward.timeouts.total {
                None => forward.forward(permit, outbound, &mut course).await,
                Some(total) => {
                    let all = forward.forward_in_time(total, permit, outbound, &mut course);
                    Box::pin(all).await
                }
            };
            record.took(course);
            let mut answer = answer?;
            if let Some(kept) = kept
                && answer.tunnel.is_none()
                && !answer.orders.is_empty()
            {
                let asked = FileRequest {
                    worker: connection.worker.index,
                    method: &kept.method,
                    version: kept.version,
                    headers: &kept.headers,
                    path: &path,
                    skip: 0,
                    query: None,
                    now: record.time(),
                    at: record.began().into_std(),
                    carries: connection.carries && kept.version != Version::HTTP_2,
                };
                let response = &mut answer.response;
                let replacing = accel::replace(kept.folders, &answer.orders, asked, response);
                if Box::pin(replacing).await? {
                    record.accelerated(answer.response.headers());
                    return Ok(answer.response);
                }
            }
            if let (Some(rules), Some(wish)) = (compress, wish) {
                let encoders = &connection.worker.encoders;
                record.encoded(rules.apply(&wish, encoders, &mut answer.response));
            }
            if let (Some(sticky), Some(server)) = (sticky, course.server) {
                let stays = |stuck| stuck == server || forward.upstream.is_usable(stuck);
                if !stuck.is_some_and(stays)
                    && let Some(cookie) = sticky.set(server, record.sender().secure)
                {
                    answer
                        .response
                        .headers_mut()
                        .append(header::SET_COOKIE, cookie);
                }
            }
            *tunnel = answer.tunnel;
            if answer.streams {
                record.streams();
            }
            Ok(answer.response)
        }
        Target::Redirect { status, to } => {
            drop(permit);
            redirect(*status, &location(to, &path, target.query())?)
        }
        Target::Respond {
            status,
            body,
            ready,
        } => {
            drop(permit);
            let is_draining = *ready && snapshot.readiness.is_draining();
            let status = match is_draining {
                true => StatusCode::SERVICE_UNAVAILABLE,
                false => *status,
            };
            respond(status, body.clone())
        }
        Target::Tokens { service, endpoint } => {
            drop(permit);
            let wait = snapshot.bounds.timeouts.body_read;
            let decider = route.ask.as_ref().map(|ask| issuing::Decider {
                ask,
                snapshot,
                connection,
            });
            let issuing = issuing::issue(service, *endpoint, decider, record, wait, request);
            Box::pin(issuing).await
        }
        Target::ResourceMetadata => {
            drop(permit);
            let authority = record.authority().unwrap_or(&host);
            let secure = record.is_secure();
            metadata::respond(snapshot, request.method(), secure, authority, &host, &path)
        }
    }
}

/// What is kept of a request that goes to an app which may send files.
struct Kept<'r> {
    folders: &'r AccelFolders,
    method: Method,
    version: Version,
    headers: HeaderMap,
}

impl<'r> Kept<'r> {
    fn of(folders: &'r AccelFolders, request: &Request<Body>) -> Self {
        Self {
            folders,
            method: request.method().clone(),
            version: request.version(),
            headers: request.headers().clone(),
        }
    }
}

/// The path and query sent upstream, where they differ from the request's `Uri`.
pub(crate) fn upstream_target<B>(
    rewrite: Option<&Rewrite>,
    path: &RequestPath,
    request: &Request<B>,
) -> Option<String> {
    let target = request
        .uri()
        .path_and_query()
        .map_or("", PathAndQuery::as_str);
    let verbatim = wire::verbatim_query(request);
    let path = match rewrite {
        Some(rewrite) => rewrite.path(path),
        None if verbatim.is_none() && target.starts_with('/') => return None,
        // `?x` is the root with a query (RFC 3986 section 6.2.3), but not valid in a request line.
        None => path.written().to_owned(),
    };
    Some(with_query(path, verbatim.or_else(|| request.uri().query())))
}

/// The `Location` of a redirect.
///
/// # Errors
/// `BadPath` where text from the client would be read as the name of another host.
pub(crate) fn location(
    to: &Template,
    path: &RequestPath,
    query: Option<&str>,
) -> Result<String, Reject> {
    let filled = to.fill(path);
    // Security: browsers treat a backslash as a slash.
    if filled.starts_with("//") || filled.starts_with("/\\") {
        if !to.names_host() {
            return Err(Reject::BadPath);
        }
    }
    Ok(with_query(filled, query))
}

/// Appends the client's query to a target, after the target's own query and before its fragment (RFC 3986 section 3.5).
fn with_query(mut text: String, query: Option<&str>) -> String {
    let Some(query) = query else {
        return text;
    };
    let end = text.find('#').unwrap_or(text.len());
    let (before, fragment) = text.split_at_checked(end).unwrap_or((&text, ""));
    let between = match before.bytes().next_back() {
        _ if !before.contains('?') => "?",
        Some(b'?' | b'&') | None => "",
        Some(_) if query.is_empty() => "",
        Some(_) => "&",
    };
    if fragment.is_empty() {
        text.push_str(between);
        text.push_str(query);
        return text;
    }
    [before, between, query, fragment].concat()
}

fn redirect(status: StatusCode, to: &str) -> Result<Response<Body>, Reject> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    let to = HeaderValue::try_from(to).map_err(|_| Reject::BadPath)?;
    response.headers_mut().insert(header::LOCATION, to);
    Ok(response)
}

fn redirect_to_https(
    host: &str,
    port: u16,
    path: &RequestPath,
    query: Option<&str>,
) -> Result<Response<Body>, Reject> {
    if host.is_empty() {
        return Err(Reject::BadHost);
    }
    let port = if port == 443 {
        String::new()
    } else {
        format!(":{port}")
    };
    let to = format!("https://{host}{port}{}", path.written());
    redirect(StatusCode::PERMANENT_REDIRECT, &with_query(to, query))
}

fn respond(status: StatusCode, body: bytes::Bytes) -> Result<Response<Body>, Reject> {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    Ok(response)
}

impl Route {
    /// The path's parameters by name; `None` for a value that is not UTF-8.
    pub(crate) fn parameters<'a>(
        &'a self,
        path: &'a RequestPath,
    ) -> Vec<(&'a str, Option<&'a str>)> {
        let value = |at| {
            path.resolved()
                .segments()
                .nth(at)
                .and_then(|text| std::str::from_utf8(text).ok())
        };
        self.pattern
            .parameters()
            .map(|(name, at)| (name, value(at)))
            .collect()
    }

    /// How many leading segments belong to the route and not to the file: without a star, the last segment names the
    /// file.
    pub(crate) fn file_depth(&self) -> usize {
        let depth = self.pattern.depth();
        if self.pattern.star {
            depth
        } else {
            depth.saturating_sub(1)
        }
    }
}
