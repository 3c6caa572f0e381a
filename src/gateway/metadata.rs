//! Protected resource metadata (RFC 9728): tells clients without a token how to get one. The guard of the route in
//! question builds the document.

use http::{HeaderValue, Method, Request, Response, StatusCode, header};

use crate::message::body::Body;
use crate::message::path::RequestPath;
use crate::message::reject::Reject;
use crate::route::RESOURCE_METADATA;
use crate::snapshot::Snapshot;

/// The URL of the metadata for a path of a host (RFC 9728 section 3.1).
pub(super) fn url(secure: bool, host: &str, path: &str) -> String {
    // Some readers would end the URL at characters that a URI's path may not contain.
    let path = path.replace('"', "%22").replace('\\', "%5C");
    format!("{}{RESOURCE_METADATA}{path}", origin(secure, host))
}

/// The URL of the metadata for a request's target.
pub(crate) fn url_of<B>(secure: bool, request: &Request<B>) -> Option<String> {
    Some(url(secure, authority_of(request)?, request.uri().path()))
}

/// The origin that a request is addressed to.
pub(crate) fn origin_of<B>(secure: bool, request: &Request<B>) -> Option<String> {
    Some(origin(secure, authority_of(request)?))
}

fn authority_of<B>(request: &Request<B>) -> Option<&str> {
    let host = request.headers().get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok());
    host.or_else(|| request.uri().authority().map(|it| it.as_str()))
}

/// An origin (RFC 6454 section 6.1), with the port as the client wrote it.
pub(super) fn origin(secure: bool, host: &str) -> String {
    let scheme = if secure { "https" } else { "http" };
    format!("{scheme}://{host}")
}

/// The metadata document for a path.
///
/// # Errors
/// `NoRoute` where no route with an issuer has this path, `BadPath` where the path can be read in several ways that
/// lead to different routes.
pub(crate) fn respond(
    snapshot: &Snapshot,
    method: &Method,
    secure: bool,
    authority: &str,
    host: &str,
    path: &RequestPath,
) -> Result<Response<Body>, Reject> {
    if authority.is_empty() {
        return Err(Reject::NoRoute);
    }
    if *method == Method::OPTIONS {
        return Ok(preflight());
    }
    let own = RESOURCE_METADATA.matches('/').count();
    // As the client wrote it, since it compares the two (RFC 9728 section 3.3).
    let suffix = path.written_from(own);
    let about = if suffix.is_empty() { "/" } else { suffix };
    let about = RequestPath::parse(&about.parse().map_err(|_| Reject::BadPath)?)?;
    let resource = format!("{}{suffix}", origin(secure, authority));
    let document = snapshot
        .table
        .at(host, &about)?
        .iter()
        .find_map(|route| route.guard.metadata(&resource))
        .ok_or(Reject::NoRoute)?;
    let mut response = Response::new(Body::full(document));
    let fields = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "public, max-age=300"),
        // Clients in browsers need it too, and it contains nothing secret.
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    ] {
        fields.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// Any origin may read the document, with any header: it contains nothing secret.
fn preflight() -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    let fields = response.headers_mut();
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "*"),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ] {
        fields.insert(name, HeaderValue::from_static(value));
    }
    response
}
