//! The stage of an endpoint of the token service. What is answered is decided in `tokens`.

use std::time::Duration;

use http::{Request, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::record::Record;
use crate::body::Body;
use crate::reject::Reject;
use crate::tokens::{Asked, BODY_BYTES, Endpoint, TokenService};

/// Answers a request to an endpoint: it is short, and all of it is read first.
///
/// # Errors
/// `BodyTooLarge`, `RequestTimeout`, `BadRequest`, where the body cannot be had.
pub(super) async fn issue(
    service: &TokenService,
    endpoint: Endpoint,
    record: &mut Record,
    wait: Duration,
    request: Box<Request<Incoming>>,
) -> Result<Response<Body>, Reject> {
    let (parts, body) = request.into_parts();
    let reading = Limited::new(body, BODY_BYTES).collect();
    let read = timeout(wait, reading).await;
    let body = match read.map_err(|_| Reject::RequestTimeout)? {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return Err(Reject::BodyTooLarge(BODY_BYTES as u64));
        }
        Err(_) => return Err(Reject::BadRequest("the request body broke off")),
    };
    let asked = Asked {
        endpoint,
        method: &parts.method,
        headers: &parts.headers,
        body,
        client: record.client(),
        now: record.time(),
    };
    let (response, reason) = service.answer(asked).await;
    if let Some(reason) = reason {
        record.refused(reason);
    }
    Ok(response)
}
