//! One task a connection: TLS, then HTTP/1.1 or HTTP/2, until it ends, falls idle or is drained.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::timeout;
use tokio_util::either::Either;

use super::drain::Drain;
use super::tally::Place;
use crate::client::Peer;
use crate::gateway::{self, Connection};
use crate::limits::{Limits, Timeouts};
use crate::snapshot::Listener;
use crate::stream::Stream;
use crate::wire::{Line, Protocol, Wire};
use crate::worker::Worker;

/// Streams that one HTTP/2 connection may have open.
const MAX_STREAMS: u32 = 128;
/// hyper keeps request heads of up to so many fields without asking for memory.
const FIELDS_ON_STACK: usize = 100;

/// A connection that was accepted, with the settings that it keeps.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// Its stream.
    pub(crate) stream: Stream,
    /// The address at the other end.
    pub(crate) ip: Option<IpAddr>,
    /// The port that it came to.
    pub(crate) port: Option<u16>,
    /// Its place in the count of connections.
    pub(crate) place: Place,
    /// The listener that it came to.
    pub(crate) listener: Arc<Listener>,
    /// Sizes.
    pub(crate) limits: Limits,
    /// Deadlines.
    pub(crate) timeouts: Timeouts,
}

/// Serves one connection to its end.
pub(crate) async fn serve(worker: Arc<Worker>, accepted: Accepted, mut drain: Drain) {
    let Accepted {
        stream,
        ip,
        port,
        place,
        listener,
        limits,
        timeouts,
    } = accepted;
    let (stream, alpn_http2) = match &listener.tls {
        None => (Either::Left(stream), false),
        Some(tls) => match timeout(timeouts.tls_handshake, tls.accept(stream)).await {
            Ok(Ok((stream, http2))) => (Either::Right(Box::new(stream)), http2),
            Ok(Err(error)) => {
                tracing::debug!(client.ip = ?ip, %error, "the TLS handshake failed");
                return;
            }
            Err(_) => {
                tracing::debug!(client.ip = ?ip, "the TLS handshake took too long");
                return;
            }
        },
    };
    let line = Arc::new(Line::new());
    let mut wire = Wire::new(stream, Arc::clone(&line), limits, timeouts);
    let protocol = if alpn_http2 {
        Protocol::Http2
    } else {
        let sniffed = tokio::select! {
            sniffed = wire.sniff() => sniffed,
            () = drain.begun() => return,
        };
        let Ok(protocol) = sniffed else { return };
        protocol
    };
    let connection = Arc::new(Connection {
        worker,
        peer: Peer::new(ip, port, listener.tls.is_some()),
        line: Arc::clone(&line),
        redirect_to_https: listener.redirect_to_https,
    });
    let service = service_fn(|request: http::Request<Incoming>| {
        let answer = gateway::answer(Arc::clone(&connection), request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let ended = match protocol {
        Protocol::Http1 => {
            let mut builder = http1::Builder::new();
            // Deadlines are the wire's; the timer is for what hyper may time itself.
            builder.timer(TokioTimer::new()).header_read_timeout(None);
            if limits.header_count > FIELDS_ON_STACK {
                builder.max_headers(limits.header_count);
            }
            let hyper = builder
                .serve_connection(TokioIo::new(wire), service)
                .with_upgrades();
            tokio::pin!(hyper);
            match drain.unless_begun(hyper.as_mut()).await {
                Some(ended) => ended,
                None => {
                    hyper.as_mut().graceful_shutdown();
                    hyper.await
                }
            }
        }
        Protocol::Http2 => {
            line.become_http2();
            wire.pass_through();
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .max_concurrent_streams(MAX_STREAMS)
                .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
                .keep_alive_interval(timeouts.keep_alive)
                .keep_alive_timeout(timeouts.header_read);
            let hyper = builder.serve_connection(TokioIo::new(wire), service);
            tokio::pin!(hyper);
            match drain.unless_begun(hyper.as_mut()).await {
                Some(ended) => ended,
                None => {
                    hyper.as_mut().graceful_shutdown();
                    hyper.await
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(client.ip = ?ip, %error, "a connection ended");
    }
    // A tunnel's connection lives on in its own task, and counts until that ends.
    line.tunnel_ended().await;
    drop(place);
}
