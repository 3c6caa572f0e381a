//! Upgrades (RFC 9110 section 7.8): after 101 the connection is a tunnel of bytes.

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional};

use super::Answer;
use super::h1::{AnswerHead, Exchange};
use super::orders::Orders;
use super::pool::Home;
use crate::message::body::Body;
use crate::message::reject::Reject;
use crate::net::stream::Stream;

/// The app's end of a tunnel, which begins when the 101 is sent.
#[derive(Debug)]
pub(crate) struct Tunnel {
    upstream: Stream,
    /// Bytes that the app sent right after its 101.
    said: Bytes,
    /// The request is in flight until the tunnel is closed.
    home: Home,
}

/// Turns the app's 101 into the response for the client, if the client requested that protocol.
///
/// # Errors
/// `UpstreamInvalid` if it did not.
pub(crate) fn open(
    mut head: AnswerHead,
    exchange: Exchange,
    home: Home,
    asked: Option<HeaderValue>,
) -> Result<Answer, Reject> {
    let Some(asked) = asked else {
        return Err(Reject::UpstreamInvalid);
    };
    let same = head
        .headers
        .get(header::UPGRADE)
        .is_some_and(|got| got.as_bytes().eq_ignore_ascii_case(asked.as_bytes()));
    if !same {
        return Err(Reject::UpstreamInvalid);
    }
    let said = head.take_rest();
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = head.status;
    let fields = response.headers_mut();
    *fields = head.headers;
    fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    fields.insert(header::UPGRADE, asked);
    Ok(Answer {
        response,
        streams: false,
        orders: Orders::default(),
        tunnel: Some(Tunnel {
            upstream: exchange.into_stream(),
            said,
            home,
        }),
    })
}

impl Tunnel {
    /// Copies bytes in both directions until one end closes; returns the number of bytes in each direction, to the app
    /// first. `early` was already received from the client.
    pub(crate) async fn run<C>(self, mut client: C, early: &[u8]) -> (u64, u64)
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        let Self {
            mut upstream,
            said,
            home: _home,
        } = self;
        let begun = async {
            client.write_all(&said).await?;
            client.flush().await?;
            upstream.write_all(early).await
        };
        if begun.await.is_err() {
            return (0, 0);
        }
        let (up, down) = copy_bidirectional(&mut client, &mut upstream)
            .await
            .unwrap_or_default();
        (up + early.len() as u64, down + said.len() as u64)
    }
}
