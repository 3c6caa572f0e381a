//! The CORS preflight stage: a browser asks whether a page of another origin may send a request. The route of that
//! request answers, before authentication, as preflights carry no credentials. `cors` decides what is allowed.

use std::sync::Arc;

use http::{HeaderMap, Request, Response, StatusCode};

use crate::message::body::Body;
use crate::message::cors::{self, Cors};
use crate::message::path::RequestPath;
use crate::message::reject::Reject;
use crate::route::Route;
use crate::snapshot::Snapshot;

/// The route that a preflight asks about. `None` for every other request, and where the route passes preflights to its
/// app.
pub(crate) fn find<'s, B>(
    snapshot: &'s Snapshot,
    host: &str,
    path: &RequestPath,
    request: &Request<B>,
) -> Option<(&'s Arc<Route>, &'s Cors)> {
    let method = cors::preflighted(request.method(), request.headers())?;
    let route = snapshot.table.find(host, path, &method).ok()?;
    Some((route, route.cors.as_deref()?))
}

/// The response, without the headers that every response of the route gets.
///
/// # Errors
/// `OriginRefused`.
pub(crate) fn answer(cors: &Cors, headers: &HeaderMap) -> Result<Response<Body>, Reject> {
    let fields = cors.preflight(headers)?;
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    *response.headers_mut() = fields;
    Ok(response)
}
