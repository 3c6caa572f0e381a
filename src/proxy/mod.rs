//! Forwards one request to an upstream and returns its response. The caller chooses the upstream and the path to
//! request.

mod ahead;
mod ask;
mod attempts;
mod balance;
mod blocks;
mod body;
mod buffer;
mod check;
mod dial;
mod eject;
mod endpoint;
mod h1;
mod headers;
mod health;
mod hold;
mod orders;
mod outgoing;
mod pool;
mod queue;
mod reserved;
mod retry;
mod settings;
mod silence;
mod spool;
mod sticky;
mod timed;
mod tunnel;
mod upstream;

use std::borrow::Cow;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use http_body::Body as _;
use tokio::time::{Instant, sleep_until};

use self::ahead::Ahead;
pub(crate) use self::ask::{Ask, AskedAbout, disregard};
pub(crate) use self::attempts::Course;
pub(crate) use self::balance::Balance;
use self::body::AnswerBody;
use self::buffer::TakeInError;
pub(crate) use self::check::Unhealthy;
pub(crate) use self::eject::EjectSettings;
pub(crate) use self::endpoint::Address;
#[cfg(any(test, fuzzing))]
pub(crate) use self::h1::answer_holds;
use self::h1::{AnswerFrames, RequestHead};
pub(crate) use self::headers::{Fields, is_grpc};
pub(crate) use self::health::{HealthRequest, HealthSettings, Tally};
pub(crate) use self::orders::{ACCEL_REDIRECT, Orders, SENDFILE};
use self::outgoing::{ClientBody, Outgoing};
use self::reserved::TrailerRules;
pub(crate) use self::reserved::{Vouched, ends_loops, frames, is_the_gateways};
pub(crate) use self::retry::{Condition, RetrySettings};
pub(crate) use self::settings::{
    BufferSettings, Limits, Purpose, ServerSettings, UpstreamSettings,
};
use self::spool::SpoolError;
pub(crate) use self::spool::SpoolSpace;
pub(crate) use self::sticky::StickySettings;
use self::timed::Timed;
use self::upstream::Wish;
pub(crate) use self::upstream::{Upstream, retire};
use crate::auth::Permit;
use crate::edits::HeaderEdits;
use crate::limit::{By, Sender};
use crate::message::body::{Body, BodyError};
use crate::message::reject::{Longest, Reject};
use crate::message::request_id::RequestId;
use crate::net::client::{Client, Counted, Peer};

/// Timeouts towards an upstream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct UpstreamTimeouts {
    /// To connect to one endpoint.
    pub(crate) connect: Duration,
    /// From the last piece of the request to the head of the response.
    pub(crate) response: Duration,
    /// Between two pieces of the response.
    pub(crate) idle: Duration,
    /// From the head of the request to the end of the response.
    pub(crate) total: Option<Duration>,
}

impl UpstreamTimeouts {
    /// The defaults.
    pub(crate) const DEFAULT: Self = Self {
        connect: Duration::from_secs(2),
        response: Duration::from_secs(60),
        idle: Duration::from_secs(60),
        total: None,
    };
}

/// `buffer:` of an upstream.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// Bytes of a request body that stay in memory.
    pub(crate) request: usize,
    /// Bytes of a response that stay in memory.
    pub(crate) response: usize,
    /// Where the rest is stored; without it, nothing is stored outside memory.
    pub(crate) space: Option<Arc<SpoolSpace>>,
    /// Whether the upstream's configuration sets this, instead of leaving the default.
    pub(crate) is_own: bool,
}

/// A route's connection to its upstream.
#[derive(Debug)]
pub(crate) struct Forward {
    /// The upstream.
    pub(crate) upstream: Arc<Upstream>,
    /// The upstream's timeouts, or the route's own.
    pub(crate) timeouts: UpstreamTimeouts,
    /// What decides on the server, if a value of the request does.
    pub(crate) by: Option<Box<By>>,
}

/// A request to be forwarded, with everything that its head is built from.
#[derive(Debug)]
pub(crate) struct Outbound<'a> {
    /// The client's request.
    pub(crate) request: Box<Request<Body>>,
    /// The path and query to request from the app, if they differ from the client's.
    pub(crate) target: Option<String>,
    /// The prefix that was stripped from the path.
    pub(crate) prefix: Option<&'a HeaderValue>,
    /// The worker that serves the request.
    pub(crate) worker: usize,
    /// The peer that sent it.
    pub(crate) peer: &'a Peer,
    /// The client, as identified by the peer's address and trusted proxies.
    pub(crate) client: &'a Client,
    /// Fields that only the gateway may set.
    pub(crate) vouched: &'a Vouched,
    /// The route's header edits, applied last.
    pub(crate) edits: &'a HeaderEdits,
    /// The request's id.
    pub(crate) id: RequestId,
    /// When the request began.
    pub(crate) began: Instant,
    /// What decides on the server, hashed, if it does.
    pub(crate) key: Option<u64>,
    /// The index of the server that the client's cookie names.
    pub(crate) stuck: Option<usize>,
    /// The most bytes that the body may have.
    pub(crate) body_bytes: u64,
    /// The longest time between two pieces of the body.
    pub(crate) body_read: Duration,
}

/// What the head of a forwarded request is built from.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    /// The client's header fields; a token that the app must not see is removed from them.
    pub(crate) headers: &'a mut HeaderMap,
    /// The client's target.
    pub(crate) uri: &'a Uri,
    /// The path and query to request from the app.
    pub(crate) target: &'a str,
    /// The prefix that was stripped from the path.
    pub(crate) prefix: Option<&'a HeaderValue>,
    /// The protocol that the client wants to switch to.
    pub(crate) upgrade: Option<&'a HeaderValue>,
    /// The peer that sent it.
    pub(crate) peer: &'a Peer,
    /// The client, as identified by the peer's address and trusted proxies.
    pub(crate) client: &'a Client,
    /// Fields that only the gateway may set.
    pub(crate) vouched: &'a Vouched,
    /// The route's header edits, applied last.
    pub(crate) edits: &'a HeaderEdits,
    /// The request's id.
    pub(crate) id: RequestId,
}

/// A response, and the tunnel that it may open.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The response for the client.
    pub(crate) response: Response<Body>,
    /// Whether its body is a stream of events, or of a gRPC call, which does not end by itself.
    pub(crate) streams: bool,
    /// What the app says to the gateway alone.
    pub(crate) orders: Orders,
    /// Both ends of a tunnel, if the app switched protocols.
    pub(crate) tunnel: Option<Tunnel>,
}

pub(crate) use self::tunnel::Tunnel;

impl Forward {
    /// What decides on the server, hashed; `None` if that is not a value of the request, or it has none.
    pub(crate) fn key(&self, sender: &Sender<'_>) -> Option<u64> {
        let by = self.by.as_ref()?;
        by.first(sender).map(|value| balance::hash(&value))
    }

    /// Sends an authorised request and waits for the head of the response, whose body is streamed. `course` tells what
    /// became of it, also where it fails. `timeouts.total` is the caller's to heed: see [`Forward::forward_in_time`].
    ///
    /// # Errors
    /// `Upstream*` for failures of the app, `Body*` and `Request*` for those of the client.
    pub(crate) async fn forward(
        &self,
        permit: Permit,
        outbound: Outbound<'_>,
        course: &mut Course,
    ) -> Result<Answer, Reject> {
        let Outbound {
            request,
            target,
            worker,
            peer,
            body_bytes,
            body_read,
            client: &Client { ip: client, .. },
            ..
        } = outbound;
        // A handshake has no body (RFC 9110 section 7.8): a request with a body is an ordinary one.
        let bodiless = request.body().is_end_stream();
        let upgrade = bodiless.then(|| headers::upgrade(&request)).flatten();
        let buffer = self.upstream.buffer.as_ref();
        let is_grpc = is_grpc(&request);
        let buffer = buffer.filter(|_| !(is_grpc && self.upstream.streams_calls()));
        let (parts, incoming) = request.into_parts();
        let mut headers = parts.headers;
        let offers_bearer = upgrade.is_some() && permit.offers_bearer(&headers);
        let own = || parts.uri.path_and_query().map(PathAndQuery::as_str);
        let target = target.as_deref().or_else(own).ok_or(Reject::BadPath)?;
        let (target, fields) = self.head(
            &permit,
            Draft {
                headers: &mut headers,
                uri: &parts.uri,
                target,
                prefix: outbound.prefix,
                upgrade: upgrade.as_ref(),
                peer,
                client: outbound.client,
                vouched: outbound.vouched,
                edits: outbound.edits,
                id: outbound.id,
            },
        )?;

        let body = if bodiless {
            Outgoing::Empty
        } else {
            if incoming
                .size_hint()
                .exact()
                .is_some_and(|length| length > body_bytes)
            {
                return Err(Reject::BodyTooLarge(Longest::BodyBytes(body_bytes)));
            }
            let is_here = matches!(incoming, Body::Full(_));
            let rules = TrailerRules {
                vouched: outbound.vouched.names.clone(),
                edited: outbound.edits.names.clone(),
                underscores: self.upstream.underscores(),
            };
            let body = ClientBody::new(incoming, body_bytes, body_read, rules);
            match buffer {
                Some(buffer) if !is_here => Box::pin(taken_in(body, buffer, client)).await?,
                Some(_) | None => Outgoing::Streamed(body),
            }
        };

        let head = RequestHead {
            method: &parts.method,
            target: &target,
            fields: &fields,
        };
        let wish = Wish {
            key: outbound.key,
            stuck: outbound.stuck,
        };
        let at = (worker, outbound.began, wish);
        let (mut head, mut exchange, home) = self.exchange(at, head, body, course).await?;
        exchange.keep_table(headers);
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            let mut answer = tunnel::open(*head, exchange, home, upgrade)?;
            if offers_bearer {
                // A browser closes a WebSocket if none of its protocols is chosen.
                let fields = answer.response.headers_mut();
                let chosen = fields.entry(header::SEC_WEBSOCKET_PROTOCOL);
                chosen.or_insert(HeaderValue::from_static("bearer"));
            }
            return Ok(answer);
        }
        let event_stream = headers::is_event_stream(&head.headers);
        let as_it_comes = event_stream || head.orders.forbid_buffering();
        let bodiless = head.is_bodiless();
        // A stream of events may be silent for long; TCP keep-alive tells whether the connection is alive.
        let idle = (!event_stream).then_some(self.timeouts.idle);
        let answer = AnswerBody::new(AnswerFrames::new(exchange, &mut head), home, idle);
        let body = match buffer {
            _ if bodiless => Body::Empty,
            // A body that is already read needs no buffer.
            Some(buffer) if !as_it_comes && !answer.is_here() => {
                let is_http2 = parts.version == Version::HTTP_2;
                read_ahead(answer, buffer, client, is_http2)
            }
            Some(_) | None => Body::stream(answer),
        };
        let mut response = Response::new(body);
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        if let Some(reason) = head.reason {
            response.extensions_mut().insert(reason);
        }
        Ok(Answer {
            response,
            streams: event_stream || is_grpc,
            orders: head.orders,
            tunnel: None,
        })
    }

    /// The same for an upstream with `timeouts.total`: the response, too, has to be there by then. A method of its own,
    /// so that others do not pay for one future in another.
    ///
    /// # Errors
    /// As [`Forward::forward`].
    pub(crate) async fn forward_in_time(
        &self,
        total: Duration,
        permit: Permit,
        outbound: Outbound<'_>,
        course: &mut Course,
    ) -> Result<Answer, Reject> {
        let mut ends = Box::pin(sleep_until(outbound.began + total));
        let mut answering = pin!(self.forward(permit, outbound, course));
        let mut answer = poll_fn(|cx| match ends.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(Reject::UpstreamTimeout)),
            Poll::Pending => answering.as_mut().poll(cx),
        })
        .await?;
        let body = answer.response.body_mut();
        if answer.tunnel.is_none() && !body.is_end_stream() {
            *body = Body::ahead(Timed::new(std::mem::replace(body, Body::Empty), ends));
        }
        Ok(answer)
    }

    /// The target and the header fields that the app will see, without those that frame the body.
    ///
    /// # Errors
    /// `LoopDetected` if the request has passed this gateway before, `ClaimUnfit` if a header that the route sets would
    /// carry a claim that no header can hold.
    pub(crate) fn head<'a>(
        &'a self,
        permit: &'a Permit,
        draft: Draft<'a>,
    ) -> Result<(Cow<'a, str>, Fields<'a>), Reject> {
        let Draft {
            headers, target, ..
        } = draft;
        let stripped = permit.strip_token(headers, target);
        let target = stripped.map_or(Cow::Borrowed(target), Cow::Owned);
        let hop = headers::Hop {
            peer: draft.peer,
            client: draft.client,
            vouched: draft.vouched,
            edits: Some(draft.edits),
            underscores: self.upstream.underscores(),
            id: draft.id,
            host: &self.upstream.host,
        };
        let mut fields = headers::prepare(headers, draft.uri, draft.upgrade, hop)?;
        if let Some(prefix) = draft.prefix {
            fields.below(prefix);
        }
        fields.apply(draft.edits, hop, permit)?;
        for name in permit.replaced() {
            fields.remove(name);
        }
        for (name, value) in permit.identity() {
            fields.lend(name, value);
        }
        Ok((target, fields))
    }
}

/// Buffers a request's body before connecting to the app, as far as `buffer` has room: with a `spool`, all of it.
async fn taken_in(
    body: ClientBody,
    buffer: &Buffer,
    client: Option<IpAddr>,
) -> Result<Outgoing, Reject> {
    if let Some(space) = &buffer.space {
        let share = Some(space.share(Counted::of(client)));
        let stored = buffer::take_in(body, buffer.request, share).await;
        return stored
            .map(Outgoing::Stored)
            .map_err(|error| taking_in_failed(&error));
    }
    let held = buffer::hold(body, buffer.request).await;
    let held = held.map_err(|error| refusal_of(&error))?;
    Ok(match held.as_one() {
        Some(bytes) => Outgoing::Own(bytes.clone()),
        None => Outgoing::Held(Box::new(held)),
    })
}

/// A response that is read from the app before its client requests it, as far as `buffer` has room.
fn read_ahead(answer: AnswerBody, buffer: &Buffer, client: Option<IpAddr>, is_http2: bool) -> Body {
    let memory = buffer.response;
    let length = answer.size_hint().exact();
    match &buffer.space {
        Some(space) => {
            let share = Some(space.share(Counted::of(client)));
            Body::stream(buffer::let_go(answer, memory, share))
        }
        None => {
            // Over HTTP/2 many may wait: if not all of the response fits, the app waits for its client anyway.
            let fits = !is_http2 || length.is_none_or(|length| length <= memory as u64);
            Body::ahead(Ahead::new(answer, if fits { memory } else { 0 }))
        }
    }
}

fn taking_in_failed(error: &TakeInError) -> Reject {
    match error {
        TakeInError::Body(error) => refusal_of(error),
        TakeInError::NeverFits(most) => Reject::BodyTooLarge(Longest::Buffer(*most)),
        TakeInError::Slow => Reject::RequestTimeout,
        TakeInError::Spool(SpoolError::Full) => Reject::UpstreamBusy,
        TakeInError::Spool(SpoolError::Io(_) | SpoolError::ReaderGone) => Reject::Internal,
    }
}

/// The refusal for a request body that failed.
fn refusal_of(error: &BodyError) -> Reject {
    match error {
        BodyError::TooLarge(limit) => Reject::BodyTooLarge(Longest::BodyBytes(*limit)),
        BodyError::ClientIdle => Reject::RequestTimeout,
        BodyError::Client(_) => Reject::BadRequest("the request body broke off or is malformed"),
        BodyError::Malformed(what) => Reject::BadRequest(what),
        BodyError::Io(_)
        | BodyError::Upstream(_)
        | BodyError::UpstreamMalformed(_)
        | BodyError::UpstreamIdle
        | BodyError::TotalTimeout
        | BodyError::Ended(_) => Reject::Internal,
    }
}
