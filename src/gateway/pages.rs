//! The error page stage: an app's own error response is replaced by the site's page, where the configuration says so
//! (`errors.intercept`) and a browser navigates.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};

use super::refusal::{self, NO_STORE};
use crate::message::body::Body;
use crate::message::error_pages::{ErrorPages, Told};
use crate::message::request_id::RequestId;

/// What stays of the app's response.
const KEPT: [HeaderName; 3] = [
    header::SET_COOKIE,
    header::RETRY_AFTER,
    header::WWW_AUTHENTICATE,
];

/// Whether a browser opens a page with this request, which prefers HTML: a script may, too, but browsers say so.
pub(super) fn is_navigation<B>(request: &Request<B>) -> bool {
    let mode = request.headers().get("sec-fetch-mode");
    mode.is_none_or(|mode| mode == "navigate")
        && matches!(*request.method(), Method::GET | Method::HEAD | Method::POST)
}

/// Replaces an app's response, where its status is one of those that are intercepted; returns whether it is.
pub(super) fn intercept(pages: &ErrorPages, response: &mut Response<Body>, id: RequestId) -> bool {
    let status = response.status();
    if !pages.intercepts(status) {
        return false;
    }
    let detail = "the app responded with this status";
    let told = Told {
        status,
        detail,
        reason: "",
        id,
    };
    let page = match pages.page(status) {
        Some(page) => page.fill(&told),
        None => refusal::plain_page(status, sentence(status), id),
    };
    let mut kept = HeaderMap::new();
    for name in KEPT {
        for value in response.headers().get_all(&name) {
            kept.append(&name, value.clone());
        }
    }
    kept.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    kept.insert(header::CACHE_CONTROL, NO_STORE);
    *response.headers_mut() = kept;
    *response.body_mut() = Body::full(page);
    true
}

/// The sentence for visitors, where only the status is known.
fn sentence(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "You need to sign in to see this page.",
        403 => "This page is not for you.",
        404 | 410 => "There is nothing at this address. Please check it, or go back.",
        429 => "You sent too many requests in a short time. Please wait a moment and try again.",
        400..=499 => "Your browser sent a request that this site does not understand.",
        503 => "This site is not available at the moment. Please try again in a minute.",
        _ => "Something went wrong at this site. It is not your fault; please try again later.",
    }
}
