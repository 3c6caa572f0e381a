//! The record of one request, from its head to the end of its response, however the response ends.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version, header};
use http_body::{Body as _, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::ending::Ending;
use super::{Connection, metadata};
use crate::auth::{Permit, Principal};
use crate::edits::Facts;
use crate::limit::{Counted, Limits, Refusal, Sender};
use crate::message::accept::Coding;
use crate::message::body::{Body, BodyError, Carried, Carry, SendFile};
use crate::message::fields;
use crate::message::path::RequestPath;
use crate::message::reject::Reject;
use crate::message::request_id::RequestId;
use crate::net::client::Client;
use crate::observe::access_log::{Entry, Format};
use crate::observe::counts::Ended;
use crate::proxy::{Course, Tunnel};
use crate::route::{Route, Target};
use crate::tokens::Endpoint;
use crate::worker::View;

/// The reason code of a stream that was cut off because the process stops.
const STOPPED: &str = "gateway_stopped";

/// What is known about a request so far. Written to the access log when dropped.
#[derive(Debug)]
pub(crate) struct Record {
    connection: Arc<Connection>,
    view: Arc<View>,
    began: Instant,
    time: SystemTime,
    id: RequestId,
    method: Method,
    uri: Uri,
    host: Option<HeaderValue>,
    version: Version,
    agent: Option<(Option<HeaderValue>, Option<HeaderValue>)>,
    client: Client,
    route: Option<usize>,
    /// The origin that may read the response, on a route with `cors`.
    reader: Option<HeaderValue>,
    subject: Option<String>,
    reason: Option<&'static str>,
    /// Why the request would have been refused, on a route that only reports refusals.
    reported: Option<Reject>,
    /// What limits of its route the request counts for.
    counted: Option<Counted>,
    /// Whether the response is for this client alone.
    private: bool,
    /// Whether the response is a stream without a natural end.
    streams: bool,
    /// Whether the response is a file.
    is_file: bool,
    /// The coding of the response, or why it has none although its client would have taken one.
    encoding: Option<&'static str>,
    /// Ends the tunnel or response body with its token.
    ending: Option<Box<Ending>>,
    /// What became of the request on its way to the app.
    course: Course,
    status: u16,
    first_byte: Option<Instant>,
    bytes: u64,
    /// Bytes of the client in a tunnel.
    tunnelled: u64,
    /// Whether it is a tunnel.
    is_tunnel: bool,
}

impl Record {
    /// Starts a record for a request whose head arrived at `began`, or `time` on the wall clock.
    pub(crate) fn begin<B>(
        connection: &Arc<Connection>,
        view: &Arc<View>,
        (began, time): (Instant, SystemTime),
        request: &Request<B>,
    ) -> Box<Self> {
        connection.line.enter();
        if let Some(lane) = connection.worker.lane() {
            lane.in_flight.one();
        }
        let headers = request.headers();
        let log = view.access_log.as_ref();
        let combined = log.is_some_and(|log| log.settings().format == Format::Combined);
        Box::new(Self {
            connection: Arc::clone(connection),
            view: Arc::clone(view),
            began,
            time,
            id: connection.worker.next_id(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            host: fields::early(headers, &header::HOST).cloned(),
            version: request.version(),
            agent: combined.then(|| {
                (
                    fields::rare(headers, &header::REFERER).cloned(),
                    fields::rare(headers, &header::USER_AGENT).cloned(),
                )
            }),
            client: view.trusted.client(&connection.peer, headers),
            route: None,
            reader: None,
            subject: None,
            reason: None,
            reported: None,
            counted: None,
            private: false,
            streams: false,
            is_file: false,
            encoding: None,
            ending: None,
            course: Course::default(),
            status: 0,
            first_byte: None,
            bytes: 0,
            tunnelled: 0,
            is_tunnel: false,
        })
    }

    /// When the request began, on the monotonic clock.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// When the request began, on the wall clock.
    pub(crate) fn time(&self) -> SystemTime {
        self.time
    }

    /// The request's id.
    pub(crate) fn id(&self) -> RequestId {
        self.id
    }

    /// Notes the route, for a request with these headers.
    pub(crate) fn found(&mut self, route: &Route, headers: &HeaderMap) {
        self.route = Some(route.index);
        if let Some(cors) = &route.cors {
            self.reader = cors.reader(headers);
        }
    }

    /// The origin that may read the response, on a route with `cors`.
    pub(crate) fn reader(&self) -> Option<HeaderValue> {
        self.reader.clone()
    }

    /// The index of the route, once it was found.
    pub(crate) fn route(&self) -> Option<usize> {
        self.route
    }

    /// Counts the request for the limits of its route that count by what is known of the client so far: by its permit,
    /// too, where it has one.
    ///
    /// # Errors
    /// `RateLimited` or `TooManyInFlight`.
    pub(crate) fn count(
        &mut self,
        limits: &Limits,
        headers: &HeaderMap,
        path: &RequestPath,
        permit: Option<&Permit>,
    ) -> Result<(), Reject> {
        let counted = self.counted.get_or_insert_default();
        let sender = Sender {
            client: self.client.ip,
            headers,
            path,
            permit,
        };
        let now = self.began.into_std();
        let result = limits.count(&sender, permit.is_some(), now, counted);
        if result.is_ok() {
            self.reported = self.reported.or_else(|| counted.reported());
        }
        result
    }

    /// Counts a request that the gateway refused, where a limit counts those, and tells the client of its limits.
    pub(crate) fn counted(
        &self,
        limits: &Limits,
        refused: Option<Refusal>,
        headers: &mut HeaderMap,
    ) {
        if let Some(counted) = &self.counted {
            if let Some(why) = refused {
                limits.refused(counted, why, self.began.into_std());
            }
            limits.tell(counted, headers);
        }
    }

    /// Notes the authenticated user.
    pub(crate) fn authenticated(&mut self, principal: &Principal) {
        if self.view.access_log.is_some() {
            self.subject = principal.user(&self.view.logged_user);
        }
    }

    /// Notes the reason code of a refusal by a token service endpoint.
    pub(crate) fn refused(&mut self, reason: &'static str) {
        self.reason = Some(reason);
    }

    /// Counts a login or a refresh at the token service, which was refused for this reason, if any.
    pub(crate) fn issued(&self, endpoint: Endpoint, reason: Option<&'static str>) {
        let Some(lane) = self.connection.worker.lane() else {
            return;
        };
        let words = match endpoint {
            Endpoint::Obtain => &lane.logins,
            Endpoint::Refresh => &lane.refreshes,
            Endpoint::Verify | Endpoint::Blacklist | Endpoint::Revoke | Endpoint::Keys => return,
        };
        words.count(reason.unwrap_or("good"));
    }

    /// The client's own address, as far as trusted proxies report it.
    pub(crate) fn client(&self) -> Option<std::net::IpAddr> {
        self.client.ip
    }

    /// The request's values that a configured response header may contain.
    pub(crate) fn facts(&self) -> Facts<'_> {
        Facts {
            client: self.client.text(&self.connection.peer),
            host: self.authority().unwrap_or_default().as_bytes(),
            secure: self.client.secure,
            id: self.id,
            permit: None,
        }
    }

    /// Whom the request comes from, as far as trusted proxies report it.
    pub(crate) fn sender(&self) -> &Client {
        &self.client
    }

    /// Notes that the external server denied the request.
    pub(crate) fn denied(&mut self) {
        self.reason = Some(Reject::AskDenied { nobody: true }.reason());
    }

    /// Whether the request is refused, by the gateway or by another server.
    pub(crate) fn is_refused(&self) -> bool {
        self.reason.is_some()
    }

    /// Notes that the client is authorised, for as long as its permit says.
    pub(crate) fn permitted(&mut self, permit: &mut Permit) {
        self.reported = self.reported.or_else(|| permit.reported());
        self.private = permit.is_private();
        let times = (self.began, self.time);
        self.ending = permit
            .take_lease()
            .map(|lease| Box::new(Ending::new(lease, &self.connection, times)));
    }

    /// The URL of the metadata that tells clients how to get a token for this target (RFC 9728 section 3.1).
    pub(crate) fn metadata_url(&self) -> Option<String> {
        Some(metadata::url(
            self.client.secure,
            self.authority()?,
            self.uri.path(),
        ))
    }

    /// Host and port as the client wrote them.
    pub(crate) fn authority(&self) -> Option<&str> {
        let host = self.host.as_ref().and_then(|host| host.to_str().ok());
        host.or_else(|| self.uri.authority().map(Authority::as_str))
    }

    /// Whether the response is for this client alone.
    pub(crate) fn is_private(&self) -> bool {
        self.private
    }

    /// Whether the client connected over TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.client.secure
    }

    /// Notes what became of the request on its way to the app.
    pub(crate) fn took(&mut self, course: Course) {
        self.course = course;
    }

    /// Notes that the app's response is a stream of events or a streaming call.
    pub(crate) fn streams(&mut self) {
        self.streams = true;
        self.connection.line.enter_stream();
    }

    /// Notes that the response is a file, with these headers.
    pub(crate) fn gave_file(&mut self, headers: &HeaderMap) {
        self.is_file = true;
        self.accelerated(headers);
    }

    /// Notes that the response, with these headers, is a file that the app named.
    pub(crate) fn accelerated(&mut self, headers: &HeaderMap) {
        let coding = fields::rare(headers, &header::CONTENT_ENCODING);
        self.encoding = coding.and_then(Coding::of).map(Coding::name);
    }

    /// Whether the response is a file.
    pub(crate) fn is_file(&self) -> bool {
        self.is_file
    }

    /// Notes the coding that the gateway sends the response in, or why it sends it as it is.
    pub(crate) fn encoded(&mut self, encoding: Option<&'static str>) {
        self.encoding = encoding;
    }

    /// Notes that the gateway refuses the request.
    pub(crate) fn refuse(&mut self, reject: Reject) {
        self.reason = Some(reject.reason());
    }

    /// The response's head is ready; the record continues with its body or tunnel.
    pub(crate) fn finish(
        mut self: Box<Self>,
        response: Response<Body>,
        tunnel: Option<Tunnel>,
    ) -> Response<Recorded> {
        self.status = response.status().as_u16();
        let now = Instant::now();
        self.first_byte = Some(now);
        self.connection.line.answer(now);
        let ending = self.ending.take();
        response.map(|body| Recorded {
            body,
            ending,
            tunnel: tunnel.map(Box::new),
            record: Some(self),
            ended: false,
            broken: None,
        })
    }
}

impl Record {
    /// Adds the request, which ends now, to the numbers of its worker and its route.
    fn tally(&self, route: Option<&Arc<Route>>, now: Instant) {
        let worker = &self.connection.worker;
        let Some(lane) = worker.lane() else {
            return;
        };
        lane.in_flight.less();
        if self.is_tunnel {
            lane.tunnels.less();
        }
        let streams = self.streams || self.is_tunnel || self.status == 101;
        let ended = Ended {
            status: self.status,
            took: (!streams).then(|| now.duration_since(self.began)),
            received: self.connection.line.take_received() + self.tunnelled,
            sent: self.bytes,
            reason: self.reason,
            reported: self.reported.map(Reject::reason),
        };
        let of_route = route.map(|route| route.counts.get(&route.name, &self.view.counts));
        match of_route.and_then(|lanes| lanes.of(worker.index)) {
            Some(lane) => lane.count(&ended),
            None => lane.no_route.count(&ended),
        }
        if let (Some(_), Some(first_byte)) = (self.course.server, self.first_byte)
            && let Some(Target::Upstream { forward, .. }) = route.map(|route| &route.target)
        {
            let waited = first_byte.duration_since(self.began);
            forward.upstream.count_first_byte(worker.index, waited);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let now = Instant::now();
        if self.streams {
            self.connection.line.leave_stream();
        }
        self.connection.line.leave(now);
        let route = self.route.and_then(|index| self.view.routes.get(index));
        let limits = route.and_then(|route| route.limits.as_deref());
        let limited = limits.zip(self.counted.as_ref());
        if let Some((limits, counted)) = limited {
            limits.leave(counted);
        }
        if self.status == 0 {
            // The request was dropped: the client left before there was a response.
            self.reason = Some(Reject::ClientGone.reason());
            self.status = 499;
        }
        self.tally(route, now);
        let Some(log) = &self.view.access_log else {
            return;
        };
        let upstream = route.and_then(|route| match &route.target {
            Target::Upstream { forward, .. } if !self.is_file => Some(&forward.upstream),
            Target::Upstream { .. }
            | Target::Files(_)
            | Target::Redirect { .. }
            | Target::Respond { .. }
            | Target::ResourceMetadata
            | Target::Tokens { .. } => None,
        });
        let host = self.host.as_ref().and_then(|host| host.to_str().ok());
        let peer = &self.connection.peer;
        let other = self
            .client
            .ip
            .filter(|client| Some(*client) != peer.ip)
            .map(|client| client.to_string());
        log.record(
            self.connection.worker.index,
            &Entry {
                time: self.time,
                id: self.id,
                client: other.as_deref().or_else(|| peer.name()),
                method: &self.method,
                host: host.or_else(|| self.uri.host()).unwrap_or_default(),
                path: self.uri.path(),
                version: self.version,
                tls: peer.tls,
                status: self.status,
                reason: self.reason,
                reported: self.reported.map(Reject::reason),
                limit: limited.and_then(|(limits, counted)| limits.name_of_over(counted)),
                route: route.map(|route| route.name.as_str()),
                upstream: upstream.map(|upstream| upstream.name.as_str()),
                server: (self.course.server).and_then(|at| upstream?.server_name(at)),
                tries: self.course.tries,
                queued: self.course.queued,
                encoding: self.encoding,
                subject: self.subject.as_deref(),
                proxy_id: peer.proxy_id(),
                certificate: (self.connection.certificate.as_ref())
                    .map(|certificate| certificate.subject()),
                bytes: self.bytes,
                began: self.began,
                first_byte: self.first_byte.unwrap_or(now),
                ended: now,
                agent: self.agent.as_ref(),
            },
        );
    }
}

/// A response body that completes its request's record when it ends.
#[derive(Debug)]
pub(crate) struct Recorded {
    body: Body,
    /// Ends the body with its token.
    ending: Option<Box<Ending>>,
    /// The tunnel that follows a response that switches protocols.
    tunnel: Option<Box<Tunnel>>,
    record: Option<Box<Record>>,
    ended: bool,
    /// The body's error, held back until the client was sent the data before it.
    broken: Option<BodyError>,
}

impl Recorded {
    /// Copies bytes between the client (`early` was already read from it) and the app that it switched protocols with,
    /// until either side closes, the token or its session ends, or the process `stops`.
    pub(crate) async fn tunnel<C>(
        mut self,
        client: C,
        early: &[u8],
        stops: impl Future<Output = ()>,
    ) where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        let (Some(tunnel), Some(mut record)) = (self.tunnel.take(), self.record.take()) else {
            return;
        };
        record.is_tunnel = true;
        if let Some(lane) = record.connection.worker.lane() {
            lane.tunnels.one();
        }
        (record.tunnelled, record.bytes) = tokio::select! {
            both = tunnel.run(client, early) => both,
            ended = Ending::wait(self.ending.take()) => {
                record.reason = Some(ended.reason());
                (0, 0)
            }
            () = stops => {
                record.reason = Some(STOPPED);
                (0, 0)
            }
        };
    }

    /// The next frame of the body, or an error where its token has ended.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(ended) = self.has_ended(cx) {
            return Poll::Ready(Some(Err(ended)));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    /// Whether the body's token has ended before the body; the rest is then cut off.
    fn has_ended(&mut self, cx: &mut Context<'_>) -> Option<BodyError> {
        let ending = self.ending.as_mut()?;
        if self.body.is_end_stream() {
            return None;
        }
        let Poll::Ready(ended) = ending.poll(cx) else {
            return None;
        };
        self.ending = None;
        self.body = Body::Empty;
        Some(BodyError::Ended(ended.reason()))
    }
}

impl http_body::Body for Recorded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = match this.broken.take() {
            Some(error) => Some(Err(error)),
            None => match ready!(this.poll_body(cx)) {
                Some(Err(error)) => {
                    // A body's error discards what was not sent yet; a pending body flushes it first. The data before
                    // the error should reach the client.
                    this.broken = Some(error);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                frame => frame,
            },
        };
        this.ended |= frame
            .as_ref()
            .is_none_or(|frame| frame.as_ref().is_ok_and(|frame| frame.is_trailers()));
        match (&frame, &mut this.record) {
            (Some(Ok(frame)), Some(record)) => {
                record.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            (Some(Err(error)), Some(record)) => {
                record.reason = Some(broken_off(error));
            }
            (None, _) | (Some(_), None) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Carry for Recorded {
    fn go_gently(self: Pin<&mut Self>) {
        Pin::new(&mut self.get_mut().body).go_gently();
    }

    fn may_carry(&self) -> bool {
        self.body.may_carry()
    }

    fn poll_carry(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        send: &mut SendFile<'_>,
    ) -> Poll<Carried> {
        let this = self.get_mut();
        let carried = match this.has_ended(cx) {
            Some(ended) => Err(ended),
            None => ready!(Pin::new(&mut this.body).poll_carry(cx, send)),
        };
        match (&carried, &mut this.record) {
            (Ok(Some(Ok(sent))), Some(record)) => record.bytes += *sent as u64,
            (Err(error), Some(record)) => record.reason = Some(broken_off(error)),
            (Ok(_), _) | (Err(_), None) => {}
        }
        Poll::Ready(carried)
    }
    fn poll_ahead(self: Pin<&mut Self>, cx: &mut Context<'_>) {
        Pin::new(&mut self.get_mut().body).poll_ahead(cx);
    }

    fn ahead(&self) -> usize {
        self.body.ahead()
    }
}

/// The reason code of a response that broke off.
fn broken_off(error: &BodyError) -> &'static str {
    match error {
        BodyError::Io(_) => "file_broke_off",
        BodyError::Upstream(_) | BodyError::UpstreamMalformed(_) => "upstream_broke_off",
        BodyError::UpstreamIdle => "upstream_fell_silent",
        BodyError::TotalTimeout => "total_timeout",
        BodyError::Ended(reason) => reason,
        BodyError::Client(_)
        | BodyError::Malformed(_)
        | BodyError::ClientIdle
        | BodyError::TooLarge(_) => "request_broke_off",
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        if let Some(record) = &mut self.record {
            // These responses are complete without a body.
            let bodiless = record.method == Method::HEAD || matches!(record.status, 204 | 304);
            let whole = self.ended || self.body.is_end_stream() || bodiless;
            if record.reason.is_none() && !whole {
                let cut = record.connection.line.is_cut();
                record.reason = Some(if cut { STOPPED } else { "client_gone" });
            }
        }
    }
}
