//! One task per connection: TLS, then HTTP/1.1 or HTTP/2, until it ends, becomes idle or is drained. While a connection
//! is idle, a smaller task waits at the socket, and buffers and state are released.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::cut::Cause;
use super::drain::Drain;
use super::preamble::{self, Fault};
use super::tally::Place;
use crate::gateway::{self, Connection};
use crate::message::reject::Reject;
use crate::net::client::{Counted, Introduction, Peer};
use crate::net::limits::Bounds;
use crate::net::stream::{Carrier as _, Stream};
use crate::net::tls::{ClientCertificate, NoHandshake, Tls};
use crate::snapshot::Listener;
use crate::wire::{Ended, Http2, Line, Link, Opening};
use crate::worker::Worker;

/// How long closing an idle or draining connection may take.
const PARTING: Duration = Duration::from_secs(2);

/// How long a connected client may take to send its first bytes when its listener is closed.
const FIRST_WORD: Duration = Duration::from_millis(500);
/// How often a connection is checked, at the end of the process, for having only streams left.
const LOOK: Duration = Duration::from_millis(50);

type ClientStream = Either<Stream, Box<TlsStream<Stream>>>;

/// A connection that has begun, and the client's certificate.
type Begun = (ClientStream, Speaks, Option<Arc<ClientCertificate>>);

/// The protocol of a connection that has begun.
#[derive(Clone, Copy, Debug)]
enum Speaks {
    /// HTTP/1.1, or HTTP/2 with prior knowledge.
    Either,
    /// HTTP/2: the handshake chose it.
    Http2,
    /// Plain HTTP, where TLS was expected.
    Plainly,
}

/// The state of a connection from its handshake to its end.
struct Client {
    link: Link<ClientStream>,
    connection: Arc<Connection>,
    place: Place,
    drain: Drain,
    /// Whether it has sent a request, which was HTTP/1.1 if the connection became idle.
    spoke: bool,
}

/// An accepted connection, with the settings that it keeps.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// Its stream.
    pub(crate) stream: Stream,
    /// The address at the other end.
    pub(crate) ip: Option<IpAddr>,
    /// Its place in the count of connections.
    pub(crate) place: Place,
    /// The listener that accepted it.
    pub(crate) listener: Arc<Listener>,
    /// Limits and timeouts.
    pub(crate) bounds: Arc<Bounds>,
}

/// Serves an accepted connection until it ends.
pub(crate) async fn serve(worker: Arc<Worker>, mut accepted: Accepted, mut drain: Drain) {
    let mut handshake = accepted.bounds.timeouts.tls_handshake;
    let mut introduction = None;
    if accepted.listener.proxy_protocol {
        let began = Instant::now();
        let introducing = introduce(&worker, &mut accepted, &mut drain);
        introduction = match Box::pin(introducing).await {
            Some(introduction) => Some(introduction),
            None => return,
        };
        handshake = handshake.saturating_sub(began.elapsed());
    }
    let Accepted {
        stream,
        ip,
        place,
        listener,
        bounds,
    } = accepted;
    let came_to = introduction.as_ref().and_then(|it| it.destination);
    let (stream, speaks, certificate) = match &listener.tls {
        None => (Either::Left(stream), Speaks::Either, None),
        Some(tls) => match timeout(handshake, shake_hands(tls, stream, came_to)).await {
            Ok(Ok(begun)) => {
                place.shook_hands(match begun.1 {
                    Speaks::Plainly => "plain_http",
                    Speaks::Either | Speaks::Http2 => "good",
                });
                begun
            }
            Ok(Err(why)) => {
                place.shook_hands(why.reason());
                tracing::debug!(client.ip = ?ip, reason = why.reason(), error = %why, "the TLS handshake failed");
                return;
            }
            Err(_) => {
                place.shook_hands("tls_timeout");
                tracing::debug!(client.ip = ?ip, reason = "tls_handshake", "the TLS handshake took too long");
                return;
            }
        },
    };
    if drain.is_renounced() {
        tracing::debug!(client.ip = ?ip, "a handshake ended after `client_auth` had changed");
        return;
    }
    let peer = Peer::new(ip, matches!(stream, Either::Right(_)));
    let connection = Arc::new(Connection {
        worker,
        peer: match introduction {
            Some(introduction) => peer.introduced(introduction),
            None => peer,
        },
        certificate,
        line: Arc::new(Line::new()),
        redirect_to_https: listener.redirect_to_https,
        carries: stream.carries(),
    });
    let client = Client {
        link: Link::new(stream, bounds),
        connection,
        place,
        drain,
        spoke: false,
    };
    match speaks {
        Speaks::Either => converse(client).await,
        Speaks::Http2 => converse_http2(client).await,
        Speaks::Plainly => refuse_plain(client).await,
    }
}

/// Waits for the PROXY header, within the time for a handshake or a head, and makes who it names the peer; `None` where
/// the connection is to be closed.
async fn introduce(
    worker: &Worker,
    accepted: &mut Accepted,
    drain: &mut Drain,
) -> Option<Introduction> {
    let bounds = &accepted.bounds;
    let at_most = match &accepted.listener.tls {
        Some(_) => bounds.timeouts.tls_handshake,
        None => bounds.timeouts.header_read,
    };
    let received = {
        let mut receiving = pin!(timeout(at_most, preamble::receive(&accepted.stream)));
        match drain.unless_begun(receiving.as_mut()).await {
            Some(received) => received,
            // It has connected, and its header may be on its way.
            None => timeout(FIRST_WORD, receiving).await.ok()?,
        }
    };
    let ip = accepted.ip;
    let said = match received.unwrap_or(Err(Some(Fault::Late))) {
        Ok(said) => said,
        Err(None) => {
            tracing::debug!(client.ip = ?ip, "a connection ended before its PROXY header");
            return None;
        }
        Err(Some(why)) => {
            tracing::debug!(client.ip = ?ip, reason = "proxy_header", %why, "a connection was closed");
            accepted.place.cut(Cause::ProxyHeader(why), ip);
            return None;
        }
    };
    let ip = said.source.or(ip);
    if !worker.view().trusted.trusts(ip) {
        let counted = accepted.place.count(Counted::of(ip), &bounds.limits);
        if let Err(cause) = counted {
            accepted.place.cut(cause, ip);
            return None;
        }
    }
    accepted.ip = ip;
    Some(Introduction {
        destination: said.destination.map(|destination| destination.ip()),
        port: said.destination.map(|it| HeaderValue::from(it.port())),
        secure: said.secure,
        id: said.id,
    })
}

/// Does the TLS handshake, unless the client speaks plain HTTP: TLS never begins with a letter (RFC 8446 section 5.1).
/// `came_to` is the address that a PROXY header says the client connected to.
async fn shake_hands(
    tls: &Tls,
    stream: Stream,
    came_to: Option<IpAddr>,
) -> Result<Begun, NoHandshake> {
    let first = stream.first_byte().await.map_err(NoHandshake::Failed)?;
    if first.is_some_and(|byte| byte.is_ascii_alphabetic()) {
        return Ok((Either::Left(stream), Speaks::Plainly, None));
    }
    let local = |stream: &Stream| came_to.or_else(|| stream.local_ip());
    let accepted = tls.accept(stream, local).await?;
    let speaks = if accepted.http2 {
        Speaks::Http2
    } else {
        Speaks::Either
    };
    let stream = Either::Right(Box::new(accepted.stream));
    Ok((stream, speaks, accepted.certificate))
}

/// Tells a client that speaks plain HTTP on a TLS port what is wrong, and closes.
async fn refuse_plain(mut client: Client) {
    let Client {
        link,
        connection,
        drain,
        ..
    } = &mut client;
    let line = &connection.line;
    let refusal = Reject::PlainHttp;
    let answer = |request, _| {
        line.close();
        gateway::answer(Arc::clone(connection), request, Some(refusal))
    };
    let ended = drain.unless_begun(pin!(link.serve(line, answer))).await;
    if let Some(Ended::Over) = ended {
        link.close().await;
    }
}

/// Serves a connection until it ends or becomes idle.
async fn converse(mut client: Client) {
    if !client.spoke {
        let opening = {
            let mut sniffing = pin!(client.link.sniff(&client.connection.line));
            match client.drain.unless_begun(sniffing.as_mut()).await {
                Some(opening) => opening,
                None if client.drain.is_renounced() => return,
                // It has connected, and its first request may be on its way.
                None => match timeout(FIRST_WORD, sniffing).await {
                    Ok(opening) => opening,
                    Err(_) => return,
                },
            }
        };
        match opening {
            Ok(Opening::Http1) => client.spoke = true,
            Ok(Opening::Http2) => return Box::pin(converse_http2(client)).await,
            Ok(Opening::Nothing) => return rest(client),
            Err(_) => return,
        }
    }
    let Client {
        link,
        connection,
        drain,
        ..
    } = &mut client;
    let line = &connection.line;
    let ended = {
        let answer = |request, refusal| gateway::answer(Arc::clone(connection), request, refusal);
        let mut serving = pin!(link.serve(line, answer));
        match drain.unless_begun(serving.as_mut()).await {
            Some(ended) => ended,
            None => {
                line.close();
                tokio::select! {
                    ended = serving => ended,
                    () = Box::pin(only_streams_left(drain, line)) => return,
                }
            }
        }
    };
    match ended {
        Ended::Rests => rest(client),
        Ended::Over => Box::pin(part(client)).await,
        Ended::Broken => {}
        Ended::Switched(recorded) => {
            let (stream, early, _) = client.link.into_parts();
            let mut drain = client.drain;
            Box::pin(recorded.tunnel(stream, &early, drain.streams_end())).await;
            drop(client.place);
        }
    }
}

/// Closes a connection gracefully. A client that still sends unread data does not delay the drain.
async fn part(mut client: Client) {
    let mut closing = pin!(client.link.close());
    if client.drain.unless_begun(closing.as_mut()).await.is_none() {
        drop(timeout(PARTING, closing).await);
    }
}

/// Serves HTTP/2 requests until the connection ends.
async fn converse_http2(client: Client) {
    let Client {
        link,
        connection,
        place,
        mut drain,
        spoke: _,
    } = client;
    let (stream, held, bounds) = link.into_parts();
    let answer = |request, refusal| gateway::answer(Arc::clone(&connection), request, refusal);
    let line = Arc::clone(&connection.line);
    let mut serving = Box::pin(Http2::new(stream, held, line, bounds, answer));
    let ended = loop {
        let heard = {
            let serves = connection.worker.unless_scarce(serving.as_mut());
            drain.unless_begun(pin!(serves)).await
        };
        match heard {
            Some(Some(ended)) => break Some(ended),
            Some(None) => serving.leave_if_idle(),
            None => break None,
        }
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            serving.leave();
            tokio::select! {
                ended = serving.as_mut() => ended,
                () = Box::pin(only_streams_left(&mut drain, &connection.line)) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(client.ip = ?connection.peer.ip, %error, "an HTTP/2 connection failed");
    }
    drop(place);
}

/// Ready when the process ends and a connection has only streams left, whose time is over.
async fn only_streams_left(drain: &mut Drain, line: &Line) {
    drain.streams_end().await;
    while !line.has_only_streams() {
        sleep(LOOK).await;
    }
    line.cut();
}

/// Lets an idle connection wait in a task of its own, so that the one that served it ends: it waits at the socket for
/// the next request, for its timeout, or for the drain.
fn rest(mut client: Client) {
    client.link.rest();
    // Boxed, because a future reserves space twice for its arguments. And not a function, which would reserve space for
    // the box twice.
    let mut client = Box::new(client);
    tokio::spawn(async move {
        let Client {
            link,
            connection,
            drain,
            ..
        } = &mut *client;
        let heard = tokio::select! {
            () = poll_fn(|cx| plain(link.stream()).poll_readable(cx)) => true,
            () = drain.begun() => false,
            () = connection.worker.relief.notified() => false,
            () = sleep_until(link.closes_at(&connection.line)) => false,
        };
        if heard {
            tokio::spawn(converse(*client));
        } else if timeout(PARTING, client.link.close()).await.is_err() {
            tracing::debug!(client.ip = ?client.connection.peer.ip, "closing an idle connection timed out");
        }
    });
}

/// The stream below TLS, if there is TLS.
fn plain(stream: &ClientStream) -> &Stream {
    match stream {
        Either::Left(stream) => stream,
        Either::Right(tls) => tls.get_ref().0,
    }
}
