//! The stage of a token service endpoint: reads the request and sends the response. `tokens` decides what it contains.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri, response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::time::timeout;

use super::Connection;
use super::metadata;
use super::record::Record;
use crate::clock;
use crate::message::body::Body;
use crate::message::reject::{Longest, Reject};
use crate::message::request_id::RequestId;
use crate::net::client::Client;
use crate::proxy::{Ask, AskedAbout};
use crate::snapshot::Snapshot;
use crate::tokens::{Answered, Asked, BODY_BYTES, Decided, Endpoint, TokenService};

/// Timeout for reading the rest of an app's decision.
const ANSWER: Duration = Duration::from_secs(5);

/// The app that decides on logins, and the context in which it is queried.
pub(super) struct Decider<'a> {
    pub(super) ask: &'a Ask,
    pub(super) snapshot: &'a Snapshot,
    pub(super) connection: &'a Connection,
}

/// Responds to a request to an endpoint. The body is short and read completely first.
///
/// # Errors
/// `BodyTooLarge`, `RequestTimeout`, `BadRequest` where the body cannot be read.
pub(super) async fn issue(
    service: &TokenService,
    endpoint: Endpoint,
    decider: Option<Decider<'_>>,
    record: &mut Record,
    wait: Duration,
    request: Box<Request<Body>>,
) -> Result<Response<Body>, Reject> {
    // Sessions are compared with revocations to the millisecond, so the coarse clock will not do.
    let began = clock::now();
    let (parts, body) = request.into_parts();
    let reading = Limited::new(body, BODY_BYTES).collect();
    let read = timeout(wait, reading).await;
    let body = match read.map_err(|_| Reject::RequestTimeout)? {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return Err(Reject::BodyTooLarge(Longest::Endpoint(BODY_BYTES as u64)));
        }
        Err(_) => return Err(Reject::BadRequest("the request body broke off")),
    };
    let authority = record.authority();
    let origin = authority.map(|host| metadata::origin(record.is_secure(), host));
    let asked = Asked {
        endpoint,
        method: &parts.method,
        headers: &parts.headers,
        body,
        client: record.client(),
        origin: origin.as_deref(),
        // A body may arrive slowly. A login is dated to its start, as the password and the user were valid then.
        now: match endpoint {
            Endpoint::Obtain => began,
            Endpoint::Refresh
            | Endpoint::Verify
            | Endpoint::Blacklist
            | Endpoint::Revoke
            | Endpoint::Keys => clock::now(),
        },
    };
    let (response, reason) = match decider {
        Some(decider) => {
            let uri = &parts.uri;
            let about = (record.sender(), record.id());
            decided(service, &asked, decider, about, uri).await?
        }
        None => service.answer(asked).await,
    };
    record.issued(endpoint, reason);
    if let Some(reason) = reason {
        record.refused(reason);
    }
    Ok(response)
}

/// A login that the app decides.
async fn decided(
    service: &TokenService,
    asked: &Asked<'_>,
    decider: Decider<'_>,
    (client, id): (&Client, RequestId),
    uri: &Uri,
) -> Result<Answered, Reject> {
    let login = match service.begin_login(asked).await {
        Ok(login) => login,
        Err(answer) => return Ok(*answer),
    };
    let Decider {
        ask,
        snapshot,
        connection,
    } = decider;
    let about = AskedAbout {
        method: asked.method,
        uri,
        target: ask.target.as_str(),
        headers: asked.headers,
        worker: connection.worker.index,
        peer: &connection.peer,
        client,
        vouched: &snapshot.vouched,
        id,
    };
    let decision = match ask.post(about, login.question()).await {
        Ok(answer) => read(answer).await,
        Err(Reject::ClientGone) => return Err(Reject::ClientGone),
        Err(_) => Err("it does not respond"),
    };
    let decided = match decision {
        Ok((head, body)) => login.decide(head.status, &head.headers, &body),
        Err(why) => Decided::Nothing(why.to_owned()),
    };
    Ok(service.end_login(decided, asked).await)
}

/// Reads an app's response completely, up to the size limit.
async fn read(answer: Response<Body>) -> Result<(response::Parts, Bytes), &'static str> {
    let (head, body) = answer.into_parts();
    let reading = Limited::new(body, BODY_BYTES).collect();
    match timeout(ANSWER, reading).await {
        Ok(Ok(body)) => Ok((head, body.to_bytes())),
        Ok(Err(_)) => Err("its response broke off, or is too long"),
        Err(_) => Err("its response does not end"),
    }
}
