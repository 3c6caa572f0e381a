//! The authorization stage of a route where an external server decides (`ask`). `proxy` queries the server, `auth`
//! interprets its response.

use http::{Request, Response, StatusCode};

use super::Connection;
use super::record::Record;
use super::refusal::Asked as Form;
use crate::auth::{Certified, Guard, Permit, Word};
use crate::message::body::Body;
use crate::message::reject::Reject;
use crate::proxy::{Ask, AskedAbout, disregard};
use crate::snapshot::Snapshot;

/// The outcome of the query.
#[derive(Debug)]
pub(super) enum Asked {
    /// The request is allowed.
    Permitted(Permit),
    /// The request is denied, and the client gets this response.
    Answered(Response<Body>),
}

/// Queries the server that authorises a route's requests.
///
/// # Errors
/// `AskFailed` where it gives no decision, `AskDenied` for a gRPC client, which can read no other response.
pub(super) fn ask<'a>(
    snapshot: &'a Snapshot,
    connection: &'a Connection,
    record: &'a mut Record,
    (guard, certified, ask): (&'a Guard, &'a Certified<'a>, &'a Ask),
    target: &'a str,
    request: &'a Request<Body>,
) -> impl Future<Output = Result<Asked, Reject>> + 'a {
    // The request's body cannot be sent to another thread, so only the head is captured.
    let route = record.route().and_then(|index| snapshot.routes.get(index));
    let form = Form::of(request).on(route.map(AsRef::as_ref));
    let (method, uri, headers) = (request.method(), request.uri(), request.headers());
    async move {
        let about = AskedAbout {
            method,
            uri,
            target,
            headers,
            worker: connection.worker.index,
            peer: &connection.peer,
            client: record.sender(),
            vouched: &snapshot.vouched,
            id: record.id(),
        };
        let answer = ask.ask(about).await?;
        match guard.judge(certified, answer.status(), answer.headers())? {
            Word::Yes(permit) => {
                disregard(answer.into_body());
                Ok(Asked::Permitted(permit))
            }
            // A gRPC client can read no other response.
            Word::No if form == Form::Grpc => {
                let nobody = answer.status() == StatusCode::UNAUTHORIZED;
                Err(Reject::AskDenied { nobody })
            }
            Word::No => {
                record.denied();
                Ok(Asked::Answered(answer))
            }
        }
    }
}
