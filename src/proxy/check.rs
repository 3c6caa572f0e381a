//! One active health check of a server, over a connection of its own. What it means for the server is decided in `health`.

use std::fmt::{Display, Formatter};
use std::future::poll_fn;
use std::time::Duration;

use bytes::BytesMut;
use http::{HeaderValue, Method, header};
use tokio::time::{Instant, timeout};

use super::dial::dial;
use super::endpoint::Address;
use super::h1::{AnswerFrames, Connection, Exchange, Fault, RequestHead};
use super::headers::Fields;
use super::health::{HealthRequest, HealthSettings};
use super::outgoing::Outgoing;
use crate::net::dial::{DialError, Dialer, Need};

/// The most bytes of a body that are read.
const MOST_BODY: usize = 64 * 1024;

static CLOSE: HeaderValue = HeaderValue::from_static("close");
static AGENT: HeaderValue = HeaderValue::from_static("portcullis-health");

/// Why a check has failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unhealthy {
    /// No connection.
    #[error("{0}")]
    Unreachable(DialError),
    /// The connection closed before a response.
    #[error("closed without a response")]
    Gone,
    /// The response breaks HTTP.
    #[error("the response is not HTTP: {0}")]
    Malformed(&'static str),
    /// Another status than expected; carries both.
    #[error("{0}, expected {1}")]
    Status(u16, String),
    /// The body has not what it must have.
    #[error("the body has no {0:?} in its first 64 KiB")]
    Body(String),
    /// It took too long.
    #[error("no response within {0:?}")]
    Late(Duration),
}

impl Unhealthy {
    /// What often helps.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Status(301 | 302 | 307 | 308, _) => Some(
                "the app redirects, perhaps to https: set headers: {X-Forwarded-Proto: https} in `health`",
            ),
            Self::Status(400, _) => Some(
                "the app may not know the check's Host (Django: ALLOWED_HOSTS): set `host` in `health`",
            ),
            Self::Status(..)
            | Self::Unreachable(_)
            | Self::Gone
            | Self::Malformed(_)
            | Self::Body(_)
            | Self::Late(_) => None,
        }
    }
}

/// Checks a server once, over a connection of its own.
///
/// # Errors
/// Why it is not healthy.
pub(super) async fn check(
    dialer: &Dialer,
    address: &Address,
    health: &HealthSettings,
) -> Result<(), Unhealthy> {
    let checked = timeout(health.timeout, async {
        let other = health.port.map(|port| address.at_port(port));
        let to = other.as_ref().unwrap_or(address);
        let stream = dial(dialer, to, Need::Own, health.timeout).await;
        let stream = stream.map_err(Unhealthy::Unreachable)?;
        match &health.request {
            Some(request) => send(request, Connection::new(stream), address).await,
            None => Ok(()),
        }
    });
    match checked.await {
        Ok(Err(Unhealthy::Unreachable(DialError::Late))) | Err(_) => {
            Err(Unhealthy::Late(health.timeout))
        }
        Ok(checked) => checked,
    }
}

/// Sends the request and reads what is asked of its response.
async fn send(
    request: &HealthRequest,
    connection: Connection,
    address: &Address,
) -> Result<(), Unhealthy> {
    let own = address.host();
    let mut fields = Fields::default();
    fields.lend(&header::HOST, request.host.as_ref().unwrap_or(&own));
    fields.lend(&header::USER_AGENT, &AGENT);
    for (name, value) in &request.headers {
        fields.lend(name, value);
    }
    fields.lend(&header::CONNECTION, &CLOSE);
    let head = RequestHead {
        method: &request.method,
        target: &request.path,
        fields: &fields,
    };
    let mut exchange = Exchange::begin(Box::new(connection), head, Outgoing::Empty);
    let is_head = request.method == Method::HEAD;
    // The caller has a deadline.
    let answered = exchange.answer(is_head, Instant::now(), Duration::from_secs(3600));
    let mut answer = answered.await.map_err(|fault| match fault {
        Fault::Malformed(what) => Unhealthy::Malformed(what),
        Fault::Gone(_) | Fault::Late | Fault::Client(_) => Unhealthy::Gone,
    })?;
    let status = answer.status.as_u16();
    if !request
        .status
        .iter()
        .any(|(from, to)| (*from..=*to).contains(&status))
    {
        return Err(Unhealthy::Status(
            status,
            Statuses(&request.status).to_string(),
        ));
    }
    let Some(text) = &request.body else {
        return Ok(());
    };
    let mut frames = AnswerFrames::new(exchange, &mut answer);
    let mut body = BytesMut::new();
    while body.len() < MOST_BODY {
        let frame = poll_fn(|cx| frames.poll_frame(cx)).await;
        // A body that breaks off is judged by what came.
        let Some(Ok(frame)) = frame else {
            break;
        };
        if let Some(data) = frame.data_ref() {
            body.extend_from_slice(data);
        }
    }
    body.truncate(MOST_BODY);
    match memchr::memmem::find(&body, text.as_bytes()) {
        Some(_) => Ok(()),
        None => Err(Unhealthy::Body(text.clone())),
    }
}

/// Statuses as the configuration writes them: `200-399`, `200, 204`.
struct Statuses<'s>(&'s [(u16, u16)]);

impl Display for Statuses<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        for (nth, (from, to)) in self.0.iter().enumerate() {
            if nth > 0 {
                f.write_str(", ")?;
            }
            if from == to {
                write!(f, "{from}")?;
            } else {
                write!(f, "{from}-{to}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_said_as_they_are_written() {
        let said = Statuses(&[(200, 399), (404, 404)]).to_string();
        assert_eq!(said, "200-399, 404");
    }
}
