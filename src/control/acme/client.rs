//! The HTTP client behind instant-acme: each call is bounded in time and size and goes through the gateway's own
//! resolver and dialer. It remembers what instant-acme does not pass on, such as `Retry-After`, and says why a call failed.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};

use crate::clock;
use crate::net::dial::Dialer;
use crate::net::fetch::{self, FetchProblem, Message};
use crate::net::tls::ClientTls;
use crate::net::url::Url;
use crate::snapshot::Eab;

/// The timeout of a call, redirects included.
const CALL: Duration = Duration::from_secs(30);
/// When to ask for renewal information again, in seconds, where the directory does not say (RFC 9773 section 4.3.2).
const AGAIN: &str = "21600";
/// The longest text of a directory that is logged and kept.
const SAID: usize = 400;

/// The client of one directory. Clones share what they heard.
#[derive(Clone)]
pub(super) struct Client {
    directory: Url,
    eab: Option<Eab>,
    tls: ClientTls,
    dialer: Dialer,
    heard: Arc<Mutex<Heard>>,
}

/// The last response.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    /// Its `Retry-After` in seconds.
    retry_after: Option<u64>,
}

/// Why an attempt failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// What it means for the next attempt.
    pub(super) kind: Kind,
    /// The directory's own words, or the error.
    pub(super) text: String,
    /// How long the directory asked to wait, in seconds.
    pub(super) retry_after: Option<u64>,
}

/// What a failure means for the next attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// The directory could not be reached, failed (5xx) or asks to slow down; another directory may be tried at once.
    Elsewhere,
    /// The directory did not find proof of control of a name.
    Validation,
    /// The directory does not know the account.
    Account,
    /// It has been told already that the certificate is replaced.
    AlreadyReplaced,
    /// The order is not ready to be finalised.
    NotReady,
    /// The order is not there any more.
    Gone,
    /// Anything else.
    Other,
}

impl Failure {
    /// A failure on this side.
    pub(super) fn own(text: impl Into<String>) -> Self {
        Self {
            kind: Kind::Other,
            text: text.into(),
            retry_after: None,
        }
    }

    /// The failure of a validation, in the directory's words.
    pub(super) fn validation(problem: &Problem) -> Self {
        Self {
            kind: Kind::Validation,
            text: told(problem),
            retry_after: None,
        }
    }
}

/// An HTTP response that is no ACME response.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    /// The call failed.
    #[error("{0}")]
    Call(String),
    /// The status says that it failed, and there is no problem document.
    #[error("{0}: HTTP: the status is {1}")]
    Status(String, StatusCode),
}

impl Client {
    /// A client of the directory at this URL, whose account belongs to an external one perhaps.
    pub(super) fn new(directory: &Url, eab: Option<&Eab>, tls: ClientTls, dialer: &Dialer) -> Self {
        Self {
            directory: directory.clone(),
            eab: eab.cloned(),
            tls,
            dialer: dialer.clone(),
            heard: Arc::default(),
        }
    }

    /// The directory's URL.
    pub(super) fn directory(&self) -> &Url {
        &self.directory
    }

    /// The external account.
    pub(super) fn eab(&self) -> Option<&Eab> {
        self.eab.as_ref()
    }

    /// `Retry-After` of the last response, in seconds.
    pub(super) fn retry_after(&self) -> Option<u64> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.retry_after
    }

    /// Sends one request to a URL that the directory named.
    ///
    /// # Errors
    /// There is no response within the bounds.
    pub(super) async fn call(
        &self,
        url: &str,
        message: &Message,
    ) -> Result<Response<Bytes>, Error> {
        let bad = |why: &str| Error::Other(Box::new(NoAnswer::Call(format!("{url:.200}: {why}"))));
        // A directory at https:// cannot send the gateway to plain http://.
        let url = self.directory.names(url).map_err(bad)?;
        let answered = fetch::call(&url, message, (&self.tls, &self.dialer), CALL).await;
        let answered = answered.map_err(|error| {
            if let FetchProblem::Status(status) = error.problem {
                return NoAnswer::Status(error.url, status);
            }
            NoAnswer::Call(error.to_string())
        });
        let retry_after = answered
            .as_ref()
            .ok()
            .and_then(|(_, answer)| retry_after(answer.headers()));
        {
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.retry_after = retry_after;
        }
        let (url, answer) = answered.map_err(|error| Error::Other(Box::new(error)))?;
        let status = answer.status();
        // instant-acme reads such responses as problem documents, and would complain about their JSON.
        if !status.is_success() && serde_json::from_slice::<Problem>(answer.body()).is_err() {
            return Err(Error::Other(Box::new(NoAnswer::Status(
                url.to_string(),
                status,
            ))));
        }
        Ok(answer)
    }

    /// What an error means for the next attempt.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "instant-acme adds errors, and all others are responses that cannot be read"
    )]
    pub(super) fn failure(&self, error: &Error) -> Failure {
        let (kind, text) = match error {
            Error::Api(problem) => (kind_of(problem), told(problem)),
            Error::Other(other) => match other.downcast_ref::<NoAnswer>() {
                Some(NoAnswer::Status(_, status))
                    if status.is_client_error() && *status != StatusCode::TOO_MANY_REQUESTS =>
                {
                    let gone = matches!(*status, StatusCode::NOT_FOUND | StatusCode::GONE);
                    (
                        if gone { Kind::Gone } else { Kind::Other },
                        other.to_string(),
                    )
                }
                Some(_) => (Kind::Elsewhere, other.to_string()),
                None => (Kind::Other, other.to_string()),
            },
            error => (Kind::Elsewhere, format!("{}: {error}", self.directory)),
        };
        Failure {
            kind,
            text: shown(&text),
            retry_after: self.retry_after(),
        }
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let Ok(body) = body.collect().await;
            let message = Message {
                method: head.method,
                headers: head.headers,
                body: body.to_bytes(),
            };
            let mut answer = client.call(&head.uri.to_string(), &message).await?;
            if message.method == Method::GET && !answer.headers().contains_key(header::RETRY_AFTER)
            {
                let again = HeaderValue::from_static(AGAIN);
                answer.headers_mut().insert(header::RETRY_AFTER, again);
            }
            let (parts, body) = answer.into_parts();
            Ok(BytesResponse {
                parts,
                body: Box::new(body),
            })
        })
    }
}

/// Whether a call failed only because of its nonce, which says nothing about the request (RFC 8555 section 6.5).
pub(super) fn is_bad_nonce(error: &Error) -> bool {
    matches!(error, Error::Api(problem) if name_of(problem) == "badNonce")
}

/// The name of a problem, without its prefix (RFC 8555 section 6.7).
fn name_of(problem: &Problem) -> &str {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    kind.strip_prefix("urn:ietf:params:acme:error:")
        .unwrap_or(kind)
}

fn kind_of(problem: &Problem) -> Kind {
    match name_of(problem) {
        "rateLimited" | "serverInternal" => Kind::Elsewhere,
        _ if problem.status.is_some_and(|status| status >= 500) => Kind::Elsewhere,
        "accountDoesNotExist" => Kind::Account,
        "alreadyReplaced" => Kind::AlreadyReplaced,
        "orderNotReady" => Kind::NotReady,
        "connection" | "dns" | "incorrectResponse" | "tls" | "unauthorized" | "caa" => {
            Kind::Validation
        }
        _ if problem.status == Some(404) => Kind::Gone,
        _ => Kind::Other,
    }
}

/// A problem in the directory's own words.
fn told(problem: &Problem) -> String {
    let mut text = problem.detail.clone().unwrap_or_default();
    for part in &problem.subproblems {
        if let Some(detail) = &part.detail {
            text.push_str(if text.is_empty() { "" } else { "; " });
            text.push_str(detail);
        }
    }
    let name = name_of(problem);
    match (text.is_empty(), name.is_empty()) {
        (true, true) => text.push_str("the directory gives no reason"),
        (true, false) => text.push_str(name),
        (false, true) => {}
        (false, false) => text = format!("{text} ({name})"),
    }
    shown(&text)
}

/// A peer's text for the log: bounded, on one line.
fn shown(text: &str) -> String {
    let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
    text.chars().map(plain).take(SAID).collect()
}

/// `Retry-After` in seconds from now (RFC 9110 section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(seconds);
    }
    let at = httpdate::parse_http_date(value).ok()?;
    let now = clock::now().duration_since(UNIX_EPOCH).ok()?;
    let at = at.duration_since(UNIX_EPOCH).ok()?;
    Some(at.saturating_sub(now).as_secs())
}
