//! The stage of a route where another server decides. How it is asked is the matter of `proxy`, what
//! its response means that of `auth`.

use http::{Request, Response, StatusCode};

use super::Connection;
use super::record::Record;
use super::refusal::Asked as Form;
use crate::auth::{AskGuard, Permit, Word};
use crate::message::body::Body;
use crate::message::reject::Reject;
use crate::proxy::{Ask, AskedAbout, disregard};
use crate::snapshot::Snapshot;

/// What came of asking.
#[derive(Debug)]
pub(super) enum Asked {
    /// The request may pass.
    Permitted(Permit),
    /// It may not, and the client gets this response.
    Answered(Response<Body>),
}

/// Asks the server that decides on a route.
///
/// # Errors
/// `AskFailed` where it does not decide, `AskDenied` where the client reads no other responses.
pub(super) fn ask<'a>(
    snapshot: &'a Snapshot,
    connection: &'a Connection,
    record: &'a mut Record,
    (guard, ask): (&'a AskGuard, &'a Ask),
    target: &'a str,
    request: &'a Request<Body>,
) -> impl Future<Output = Result<Asked, Reject>> + 'a {
    // Of the request, whose body cannot be lent to another thread, only the head is kept.
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
        match guard.judge(answer.status(), answer.headers())? {
            Word::Yes(permit) => {
                disregard(answer.into_body());
                Ok(Asked::Permitted(permit))
            }
            // A client of gRPC reads no other responses.
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
