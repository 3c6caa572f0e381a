//! Upgrades (RFC 9110 section 7.8): after 101 the connection is a tunnel of bytes.

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional};

use super::Answer;
use super::h1::{AnswerHead, Exchange};
use crate::message::body::Body;
use crate::message::reject::Reject;
use crate::net::stream::Stream;

/// The app's end of a tunnel that begins when the 101 is sent.
#[derive(Debug)]
pub(crate) struct Tunnel {
    upstream: Stream,
    /// What the app said right behind its 101.
    said: Bytes,
}

/// Makes the 101 of the app the client's, where the client asked for that very protocol.
///
/// # Errors
/// `UpstreamInvalid` where it did not.
pub(crate) fn open(
    mut head: AnswerHead,
    exchange: Exchange,
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
        tunnel: Some(Tunnel {
            upstream: exchange.into_stream(),
            said,
        }),
    })
}

impl Tunnel {
    /// Carries bytes both ways until one end closes; says how many went each way, to the app
    /// first. The client has said `early` already.
    pub(crate) async fn run<C>(self, mut client: C, early: &[u8]) -> (u64, u64)
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        let Self { mut upstream, said } = self;
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
