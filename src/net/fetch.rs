//! The gateway's own requests over HTTPS: one GET for a document, or one call with a method and a body, with limits for
//! time, size and redirects, and errors that name the step that failed. It does not parse what it receives, and no
//! client's request passes through it.

mod coding;

use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_util::either::Either;

use self::coding::BadCoding;
use crate::net::dial::{Call, DialError, Dialer, Need};
use crate::net::tls::ClientTls;
use crate::net::url::Url;

/// The timeout for a document, redirects included.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);
/// The size limit of a document in bytes.
const MAX_BYTES: usize = 1 << 20;
/// The limit for redirects.
const MAX_REDIRECTS: usize = 3;

/// A document, and how long it may be cached.
#[derive(Debug)]
pub(crate) struct Document {
    /// Its bytes.
    pub(crate) bytes: Bytes,
    /// `max-age` of `Cache-Control` less `Age` (RFC 9111 section 4.2); `None` where it must not be cached.
    pub(crate) life: Option<Duration>,
}

/// Why a document could not be fetched.
#[derive(Debug, thiserror::Error)]
#[error("{url}: {problem}")]
pub(crate) struct FetchError {
    /// The URL, after redirects.
    pub(crate) url: String,
    /// What failed.
    pub(crate) problem: FetchProblem,
}

/// The step that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchProblem {
    /// The host's name.
    #[error("DNS: {0}")]
    Dns(String),
    /// The TCP connection failed.
    #[error("TCP: {0}")]
    Tcp(std::io::Error),
    /// The TLS handshake failed, including certificate checks.
    #[error("TLS: {0}")]
    Tls(String),
    /// The HTTP exchange failed.
    #[error("HTTP: {0}")]
    Http(String),
    /// The status of the response is not 200.
    #[error("HTTP: the status is {0}, not 200")]
    Status(StatusCode),
    /// A redirect that is not followed.
    #[error("HTTP: a redirect to {to}: {why}")]
    Redirect {
        /// `Location`.
        to: String,
        /// Why it is not followed.
        why: &'static str,
    },
    /// The document exceeds the size limit.
    #[error("HTTP: the document is larger than 1 MiB")]
    TooLarge,
    /// The response's content coding failed.
    #[error("HTTP: {0}")]
    Coding(#[from] BadCoding),
    /// The document's content is not valid.
    #[error("JSON: {0}")]
    Json(String),
    /// The fetch timed out.
    #[error("{0}: no answer within {seconds} s", seconds = .1.as_secs())]
    Late(&'static str, Duration),
}

/// What the gateway sends of its own.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// The method; redirects are followed for GET and HEAD alone, since a signed body names its URL.
    pub(crate) method: Method,
    /// The header fields, besides `Host`, `Accept-Encoding`, `User-Agent` and `Connection`, which are set here.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) body: Bytes,
}

impl Message {
    /// A GET for a document of these types.
    fn get(accept: &'static str) -> Self {
        let accept = HeaderValue::from_static(accept);
        Self {
            method: Method::GET,
            headers: HeaderMap::from_iter([(header::ACCEPT, accept)]),
            body: Bytes::new(),
        }
    }
}

/// Gets a document.
///
/// # Errors
/// Any outcome but a 2xx response of at most 1 MiB within 5 s.
pub(crate) async fn get(
    url: &Url,
    tls: &ClientTls,
    dialer: &Dialer,
) -> Result<Document, FetchError> {
    let message = Message::get("application/json, application/jwk-set+json");
    let (url, answer) = call(url, &message, (tls, dialer), DEADLINE).await?;
    let (head, bytes) = answer.into_parts();
    if !head.status.is_success() {
        return Err(FetchError {
            url: url.to_string(),
            problem: FetchProblem::Status(head.status),
        });
    }
    Ok(Document {
        bytes,
        life: life(&head.headers),
    })
}

/// Sends one request, follows at most 3 redirects, and returns the URL that responded, and its response, whatever its
/// status.
///
/// # Errors
/// No response of at most 1 MiB within this time; a redirect to plain HTTP, or of anything but GET and HEAD.
pub(crate) async fn call(
    url: &Url,
    message: &Message,
    (tls, dialer): (&ClientTls, &Dialer),
    within: Duration,
) -> Result<(Url, Response<Bytes>), FetchError> {
    let progress = Progress::default();
    let following = async {
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            progress.at(&url);
            let answer = once(&url, message, (tls, dialer, within), &progress).await?;
            let Some(to) = redirect(&answer)? else {
                return Ok((url, answer));
            };
            if !matches!(message.method, Method::GET | Method::HEAD) {
                let why = "a signed request names its URL, and is sent nowhere else";
                return Err(FetchProblem::Redirect { to, why });
            }
            url = url
                .redirected(&to)
                .map_err(|why| FetchProblem::Redirect { to, why })?;
        }
        Err(FetchProblem::Http("more than 3 redirects".to_owned()))
    };
    let outcome = timeout(within, following)
        .await
        .unwrap_or_else(|_| Err(FetchProblem::Late(progress.step(), within)));
    outcome.map_err(|problem| FetchError {
        url: progress.url(),
        problem,
    })
}

/// A body that is too large; where the response is an error, that says more.
fn too_large(status: StatusCode) -> FetchProblem {
    if status.is_success() {
        FetchProblem::TooLarge
    } else {
        FetchProblem::Status(status)
    }
}

/// Where a response redirects to.
fn redirect(answer: &Response<Bytes>) -> Result<Option<String>, FetchProblem> {
    let status = answer.status();
    // 303 after a POST, as any other, would be a GET without a signature.
    if !status.is_redirection() || status == StatusCode::NOT_MODIFIED {
        return Ok(None);
    }
    let to = answer.headers().get(header::LOCATION);
    let to = to
        .and_then(|to| to.to_str().ok())
        .ok_or_else(|| FetchProblem::Http(format!("{status} without a Location")))?;
    Ok(Some(to.to_owned()))
}

/// The current step of a fetch, for the message of a timeout.
#[derive(Default)]
struct Progress(Mutex<(String, &'static str)>);

impl Progress {
    fn with<T>(&self, look: impl FnOnce(&mut (String, &'static str)) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn at(&self, url: &Url) {
        self.with(|progress| progress.0 = url.to_string());
    }

    fn set(&self, step: &'static str) {
        self.with(|progress| progress.1 = step);
    }

    fn url(&self) -> String {
        self.with(|progress| progress.0.clone())
    }

    fn step(&self) -> &'static str {
        self.with(|progress| progress.1)
    }
}

async fn once(
    url: &Url,
    message: &Message,
    (tls, dialer, within): (&ClientTls, &Dialer, Duration),
    progress: &Progress,
) -> Result<Response<Bytes>, FetchProblem> {
    progress.set("DNS");
    let found = dialer.names().find(url.host()).await;
    found.map_err(|error| FetchProblem::Dns(error.to_string()))?;
    progress.set("TCP");
    let call = Call {
        host: url.host(),
        port: url.port(),
        need: Need::Own,
        within,
    };
    // A loopback name may resolve to another machine; plain HTTP must not go there.
    let anywhere = url.is_https();
    let socket = dialer.tcp(call, |ip| anywhere || ip.is_loopback()).await;
    let socket = socket.map_err(|error| match error {
        DialError::Io(error) => FetchProblem::Tcp(error),
        DialError::Late => FetchProblem::Tcp(std::io::ErrorKind::TimedOut.into()),
        DialError::Name(_) | DialError::NoAddress | DialError::Scarce => {
            FetchProblem::Dns(error.to_string())
        }
    })?;
    let stream = if url.is_https() {
        progress.set("TLS");
        let secured = tls.connect(url.host(), socket).await;
        Either::Left(secured.map_err(|error| FetchProblem::Tls(error.to_string()))?)
    } else {
        Either::Right(socket)
    };
    progress.set("HTTP");
    exchange(url, message, stream).await
}

async fn exchange<S>(
    url: &Url,
    message: &Message,
    stream: S,
) -> Result<Response<Bytes>, FetchProblem>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let http = |error: &dyn std::error::Error| FetchProblem::Http(reason(error));
    let mut request = Request::new(Full::new(message.body.clone()));
    *request.method_mut() = message.method.clone();
    *request.uri_mut() = url.target().parse().map_err(|error| http(&error))?;
    *request.headers_mut() = message.headers.clone();
    let headers = request.headers_mut();
    let authority = HeaderValue::from_str(url.authority()).map_err(|error| http(&error))?;
    headers.insert(header::HOST, authority);
    for (name, value) in [
        // Without it any coding would be acceptable (RFC 9110 section 12.5.3).
        (header::ACCEPT_ENCODING, "identity"),
        (
            header::USER_AGENT,
            concat!("portcullis/", env!("CARGO_PKG_VERSION")),
        ),
        (header::CONNECTION, "close"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(64 * 1024)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| http(&error))?;
    let answering = async {
        let response = sender.send_request(request).await;
        let (head, mut body) = response.map_err(|error| http(&error))?.into_parts();
        if head.status.is_redirection() || message.method == Method::HEAD {
            return Ok(Response::from_parts(head, Bytes::new()));
        }
        let mut bytes = BytesMut::new();
        if body.size_hint().lower() > MAX_BYTES as u64 {
            return Err(too_large(head.status));
        }
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| http(&error))?;
            if let Ok(data) = frame.into_data() {
                if bytes.len() + data.len() > MAX_BYTES {
                    return Err(too_large(head.status));
                }
                bytes.extend_from_slice(&data);
            }
        }
        let bytes = coding::undo(&head.headers, bytes.freeze())?;
        Ok(Response::from_parts(head, bytes))
    };
    // The connection is polled here and dropped with this future, whatever the response.
    let mut answering = pin!(answering);
    tokio::select! {
        biased;
        answer = &mut answering => answer,
        // It may end before the response was read; the response then carries the error.
        _ = connection => answering.await,
    }
}

/// The lifetime from `Cache-Control` and `Age` (RFC 9111 sections 5.2.2 and 4.2.3).
fn life(headers: &HeaderMap) -> Option<Duration> {
    let directives = || {
        headers
            .get_all(header::CACHE_CONTROL)
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .map(|directive| directive.trim().to_ascii_lowercase())
    };
    if directives().any(|directive| directive == "no-store" || directive == "no-cache") {
        return Some(Duration::ZERO);
    }
    let seconds = |text: &str| text.trim_matches('"').parse::<u64>().ok();
    let most =
        directives().find_map(|directive| directive.strip_prefix("max-age=").and_then(seconds))?;
    let age = headers.get(header::AGE);
    let age = age.and_then(|age| seconds(age.to_str().ok()?)).unwrap_or(0);
    Some(Duration::from_secs(most.saturating_sub(age)))
}

/// An error with its sources, without repetition.
fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut behind = error.source();
    while let Some(error) = behind {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        behind = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_life_of_a_document_is_what_is_left_of_it() {
        let check = |lines: &[(&'static str, &'static str)], expected: Option<u64>| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, value.parse().unwrap());
            }
            assert_eq!(
                life(&headers),
                expected.map(Duration::from_secs),
                "{lines:?}"
            );
        };
        check(&[], None);
        check(&[("cache-control", "public")], None);
        check(&[("cache-control", "public, max-age=300")], Some(300));
        check(
            &[
                ("cache-control", "public"),
                ("cache-control", "MAX-AGE=\"300\""),
            ],
            Some(300),
        );
        check(
            &[("cache-control", "max-age=300"), ("age", "100")],
            Some(200),
        );
        check(&[("cache-control", "max-age=300"), ("age", "400")], Some(0));
        check(&[("cache-control", "max-age=300"), ("age", "x")], Some(300));
        check(&[("cache-control", "max-age=x")], None);
        check(&[("cache-control", "max-age=300, no-store")], Some(0));
        check(&[("cache-control", "no-cache")], Some(0));
    }
}
