//! The accel stage: where an app's response names a file (`X-Accel-Redirect`, `X-Sendfile`), that file is sent in its
//! place, as the client's request asks for it: with conditions, ranges, and compressed.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};

use crate::files::{AccelFolders, FileRequest};
use crate::message::body::Body;
use crate::message::reject::Reject;
use crate::proxy::{ACCEL_REDIRECT, Orders, SENDFILE};

/// What stays of the app's response besides `Content-Type`.
const KEPT: [HeaderName; 5] = [
    header::SET_COOKIE,
    header::CACHE_CONTROL,
    header::EXPIRES,
    header::CONTENT_DISPOSITION,
    header::CONTENT_LANGUAGE,
];

/// Puts the file that the app names in the place of its response; returns whether it names one.
///
/// # Errors
/// `AccelNotFound` where there is no such file; what else files are refused for.
pub(super) async fn replace(
    folders: &AccelFolders,
    orders: &Orders,
    asked: FileRequest<'_>,
    response: &mut Response<Body>,
) -> Result<bool, Reject> {
    let mut redirects = orders.all(&ACCEL_REDIRECT);
    let mut paths = orders.all(&SENDFILE);
    let (found, value) = match (
        redirects.next(),
        redirects.next(),
        paths.next(),
        paths.next(),
    ) {
        (None, _, None, _) => return Ok(false),
        (Some(value), None, _, _) => (folders.of_redirect(value.as_bytes()), value),
        (None, _, Some(value), None) => (folders.of_sendfile(value.as_bytes()), value),
        (Some(value), Some(_), _, _) | (None, _, Some(value), Some(_)) => (None, value),
    };
    let Some((files, name)) = found else {
        return Err(not_found(value));
    };
    // A page of the app for what is gone is a page for every request.
    let status = response.status();
    let is_gone = (404..=410).contains(&status.as_u16());
    let nothing = HeaderMap::new();
    let reads = matches!(*asked.method, Method::GET | Method::HEAD);
    let asked = FileRequest {
        // The response of a POST may be a file, too; its conditions are not the file's.
        method: if reads { asked.method } else { &Method::GET },
        headers: if reads && !is_gone {
            asked.headers
        } else {
            &nothing
        },
        ..asked
    };
    let mut file = match files.serve_named(asked, &name).await {
        Ok(file) => file,
        Err(Reject::FileNotFound) => return Err(not_found(value)),
        Err(other) => return Err(other),
    };
    if is_gone {
        *file.status_mut() = status;
    }
    keep(response.headers(), &mut file);
    *response = file;
    Ok(true)
}

/// Takes over what the app says of the file.
fn keep(said: &HeaderMap, file: &mut Response<Body>) {
    let is_whole = !matches!(file.status(), StatusCode::NOT_MODIFIED);
    let is_parts = |kind: &HeaderValue| kind.as_bytes().starts_with(b"multipart/byteranges");
    let headers = file.headers_mut();
    for name in KEPT {
        if (name == header::CONTENT_DISPOSITION || name == header::CONTENT_LANGUAGE) && !is_whole {
            continue;
        }
        let mut lines = said.get_all(&name).iter();
        if let Some(first) = lines.next() {
            headers.insert(&name, first.clone());
            for line in lines {
                headers.append(&name, line.clone());
            }
        }
    }
    // What the app's response depends on, the file depends on, too.
    for line in said.get_all(header::VARY) {
        let is_ours = line.as_bytes().eq_ignore_ascii_case(b"accept-encoding");
        if !is_ours || !headers.contains_key(header::VARY) {
            headers.append(header::VARY, line.clone());
        }
    }
    // Frameworks say `text/html` of an empty response that nobody gave a type.
    if let Some(kind) = said.get(header::CONTENT_TYPE)
        && !is_html(kind)
        && is_whole
        && !headers.get(header::CONTENT_TYPE).is_some_and(is_parts)
    {
        headers.insert(header::CONTENT_TYPE, kind.clone());
    }
}

fn is_html(kind: &HeaderValue) -> bool {
    let essence = kind.as_bytes().split(|byte| *byte == b';').next();
    essence.is_some_and(|essence| essence.trim_ascii().eq_ignore_ascii_case(b"text/html"))
}

/// Names in the log what the app named, and refuses the request.
fn not_found(value: &HeaderValue) -> Reject {
    let name = String::from_utf8_lossy(value.as_bytes());
    tracing::warn!(file = ?name, "an app named a file that is not in a folder of `accel`");
    Reject::AccelNotFound
}
