//! Upgrades (RFC 9110 section 7.8): after 101 the connection is a tunnel of bytes.

use http::{HeaderValue, Response, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use super::pool::Lease;
use super::{Answer, headers};
use crate::body::Body;
use crate::reject::Reject;
use crate::wire::Line;

/// The two ends of a tunnel that begins when the 101 is sent.
#[derive(Debug)]
pub(crate) struct Tunnel {
    client: OnUpgrade,
    upstream: OnUpgrade,
    /// Held so that the connection is not taken for an idle one.
    lease: Lease,
}

/// Makes the 101 of the app the client's, where the client asked for that very protocol.
///
/// # Errors
/// `UpstreamInvalid` where it did not.
pub(crate) fn open(
    mut response: Response<Incoming>,
    lease: Lease,
    client: Option<OnUpgrade>,
    asked: Option<HeaderValue>,
    line: &Line,
) -> Result<Answer, Reject> {
    let (Some(client), Some(asked)) = (client, asked) else {
        return Err(Reject::UpstreamInvalid);
    };
    let same = response
        .headers()
        .get(header::UPGRADE)
        .is_some_and(|got| got.as_bytes().eq_ignore_ascii_case(asked.as_bytes()));
    if !same {
        return Err(Reject::UpstreamInvalid);
    }
    line.become_tunnel();
    let upstream = hyper::upgrade::on(&mut response);
    let (mut parts, _) = response.into_parts();
    headers::clean_answer(&mut parts.headers);
    parts
        .headers
        .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    parts.headers.insert(header::UPGRADE, asked);
    let response = Response::from_parts(parts, Body::Empty);
    Ok(Answer {
        response,
        tunnel: Some(Tunnel {
            client,
            upstream,
            lease,
        }),
    })
}

impl Tunnel {
    /// Carries bytes both ways until one end closes; says how many went each way, to the app
    /// first.
    pub(crate) async fn run(self) -> (u64, u64) {
        let Self {
            client,
            upstream,
            lease,
        } = self;
        let (Ok(client), Ok(upstream)) = (client.await, upstream.await) else {
            return (0, 0);
        };
        drop(lease);
        let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
        copy_bidirectional(&mut client, &mut upstream)
            .await
            .unwrap_or_default()
    }
}
