//! Fetches a document over HTTPS for the gateway itself: one GET, with limits for time, size and redirects, and errors
//! that name the step that failed. It does not parse the document, and no client's request passes through it.

mod coding;

use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode, header};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Empty};
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
    #[error("{0}: no answer within 5 s")]
    Late(&'static str),
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
    let progress = Progress::default();
    let following = async {
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            progress.at(&url);
            match once(&url, (tls, dialer), &progress).await? {
                Answer::Document(document) => return Ok(document),
                Answer::Redirect(to) => {
                    url = url
                        .redirected(&to)
                        .map_err(|why| FetchProblem::Redirect { to, why })?;
                }
            }
        }
        Err(FetchProblem::Http("more than 3 redirects".to_owned()))
    };
    let outcome = timeout(DEADLINE, following)
        .await
        .unwrap_or_else(|_| Err(FetchProblem::Late(progress.step())));
    outcome.map_err(|problem| FetchError {
        url: progress.url(),
        problem,
    })
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

enum Answer {
    Document(Document),
    Redirect(String),
}

async fn once(
    url: &Url,
    (tls, dialer): (&ClientTls, &Dialer),
    progress: &Progress,
) -> Result<Answer, FetchProblem> {
    progress.set("DNS");
    let found = dialer.names().find(url.host()).await;
    found.map_err(|error| FetchProblem::Dns(error.to_string()))?;
    progress.set("TCP");
    let call = Call {
        host: url.host(),
        port: url.port(),
        need: Need::Own,
        within: DEADLINE,
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
    exchange(url, stream).await
}

async fn exchange<S>(url: &Url, stream: S) -> Result<Answer, FetchProblem>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let http = |error: &dyn std::error::Error| FetchProblem::Http(reason(error));
    let authority = url.authority();
    let target = url.target();
    let request = Request::get(target)
        .header(header::HOST, authority)
        .header(header::ACCEPT, "application/json, application/jwk-set+json")
        // Without it any coding would be acceptable (RFC 9110 section 12.5.3).
        .header(header::ACCEPT_ENCODING, "identity")
        .header(
            header::USER_AGENT,
            concat!("portcullis/", env!("CARGO_PKG_VERSION")),
        )
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| http(&error))?;
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(64 * 1024)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| http(&error))?;
    let answering = async {
        let response = sender.send_request(request).await;
        let (head, mut body) = response.map_err(|error| http(&error))?.into_parts();
        if head.status.is_redirection() && head.status != StatusCode::NOT_MODIFIED {
            let to = head.headers.get(header::LOCATION);
            let to = to
                .and_then(|to| to.to_str().ok())
                .ok_or_else(|| FetchProblem::Http(format!("{} without a Location", head.status)))?;
            return Ok(Answer::Redirect(to.to_owned()));
        }
        if !head.status.is_success() {
            return Err(FetchProblem::Status(head.status));
        }
        let mut bytes = BytesMut::new();
        if body.size_hint().lower() > MAX_BYTES as u64 {
            return Err(FetchProblem::TooLarge);
        }
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| http(&error))?;
            if let Ok(data) = frame.into_data() {
                if bytes.len() + data.len() > MAX_BYTES {
                    return Err(FetchProblem::TooLarge);
                }
                bytes.extend_from_slice(&data);
            }
        }
        Ok(Answer::Document(Document {
            bytes: coding::undo(&head.headers, bytes.freeze())?,
            life: life(&head.headers),
        }))
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
