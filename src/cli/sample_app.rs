//! The app behind the gateway in `portcullis demo`: its response shows the request that it received, so that the
//! gateway's work is visible. It knows nothing of tokens, and trusts every client of its port.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::TcpListener;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::time::Interval;

use super::guide::{self, Guide};

/// The maximum size of a body that is counted, in bytes; it is never stored.
const BODY_BYTES: usize = 100 * 1024 * 1024;
/// How many events `/api/events` sends, one a second.
const TICKS: u8 = 10;

/// Serves the app on `listener` on a thread of its own, until the process ends.
///
/// Fails where the listener, the thread or its runtime cannot be set up.
pub(crate) fn start(listener: TcpListener, guide: Guide) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("sample-app".to_owned())
        .spawn(move || tokio::task::LocalSet::new().block_on(&runtime, serve(listener, guide)))?;
    Ok(())
}

/// Accepts connections forever. No timeouts: only the gateway connects to this port, and it has its own.
async fn serve(listener: TcpListener, guide: Guide) -> std::io::Result<()> {
    let guide = Rc::new(RefCell::new(guide));
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Most likely out of file descriptors: wait until some connections end.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let guide = Rc::clone(&guide);
        tokio::task::spawn_local(async move {
            let service = service_fn(|request| {
                let guide = Rc::clone(&guide);
                async move { Ok::<_, Infallible>(answer(request, &guide).await) }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the sample app lost a connection");
            }
        });
    }
}

/// Responds to one request.
async fn answer<B>(request: Request<B>, guide: &RefCell<Guide>) -> Response<Answer>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match request.uri().path() {
        "/api/events" => events(),
        path if path.starts_with("/demo/") => {
            let (status, value) = guide::answer(request, guide).await;
            answer_json(status, &value)
        }
        path if path.starts_with("/api/") => mirror(request).await,
        _ => answer_json(StatusCode::NOT_FOUND, &json!({"detail": "Not found."})),
    }
}

/// Returns what arrived here: the method, the path, the headers, the body's length.
async fn mirror<B>(request: Request<B>) -> Response<Answer>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (head, body) = request.into_parts();
    let mut body = std::pin::pin!(Limited::new(body, BODY_BYTES));
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => received += frame.data_ref().map_or(0, Bytes::len),
            Err(error) => return unread(&*error),
        }
    }
    let answer = json!({
        "app": "sample",
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query().unwrap_or_default(),
        "headers": shown(&head.headers),
        "body_bytes": received,
    });
    answer_json(StatusCode::OK, &answer)
}

/// The headers as text, several lines of one name joined; a token is never shown.
fn shown(headers: &HeaderMap) -> BTreeMap<&str, String> {
    let mut shown = BTreeMap::<&str, String>::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        let value = if name == AUTHORIZATION {
            let scheme = value.split_once(' ').map(|(scheme, _)| scheme);
            scheme.map_or_else(|| "...".to_owned(), |scheme| format!("{scheme} ..."))
        } else {
            value.into_owned()
        };
        shown
            .entry(name.as_str())
            .and_modify(|lines| {
                lines.push_str(", ");
                lines.push_str(&value);
            })
            .or_insert(value);
    }
    shown
}

/// The response to a body that is too long or was cut off.
fn unread(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Response<Answer> {
    let (status, detail) = if error.is::<LengthLimitError>() {
        (StatusCode::PAYLOAD_TOO_LARGE, "The body is too long.")
    } else {
        (StatusCode::BAD_REQUEST, "The body broke off.")
    };
    answer_json(status, &json!({"detail": detail}))
}

/// Server-Sent Events, one a second: a gateway that buffers responses would deliver them all at once.
fn events() -> Response<Answer> {
    let interval = tokio::time::interval(Duration::from_secs(1));
    let mut response = Response::new(Answer::Ticks { interval, sent: 0 });
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A JSON response with a trailing newline, for terminals.
fn answer_json(status: StatusCode, value: &Value) -> Response<Answer> {
    let text = Bytes::from(format!("{value:#}\n"));
    let mut response = Response::new(Answer::Whole(Some(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The body of a response.
#[derive(Debug)]
enum Answer {
    /// All of it at once; `None` after it was sent.
    Whole(Option<Bytes>),
    /// One event per tick, [`TICKS`] in total.
    Ticks { interval: Interval, sent: u8 },
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Ticks { sent, .. } if *sent >= TICKS => Poll::Ready(None),
            Self::Ticks { interval, sent } => {
                ready!(interval.poll_tick(context));
                *sent += 1;
                let event = format!("id: {sent}\nevent: tick\ndata: tick {sent} of {TICKS}\n\n");
                Poll::Ready(Some(Ok(Frame::data(event.into()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(text) => text.is_none(),
            Self::Ticks { sent, .. } => *sent >= TICKS,
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Whole(text) => {
                let length = text.as_ref().map_or(0, Bytes::len);
                u64::try_from(length)
                    .map_or_else(|_| Default::default(), http_body::SizeHint::with_exact)
            }
            Self::Ticks { .. } => http_body::SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use http_body_util::Full;

    use super::super::guide::Link;
    use super::*;

    fn send(request: Request<Full<Bytes>>) -> (u16, Value) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let link = Link::new(
                String::new(),
                "alice",
                String::new(),
                ([127, 0, 0, 1], 1).into(),
            );
            let guide = RefCell::new(Guide::new(Path::new("none.yaml"), link));
            let response = answer(request, &guide).await;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, serde_json::from_slice(&body).unwrap())
        })
    }

    #[test]
    fn the_app_shows_what_it_received_but_no_token() {
        let request = Request::put("/api/orders/7?page=2")
            .header(AUTHORIZATION, "Bearer abc.def.ghi")
            .header("x-user-id", "alice")
            .header("accept", "a")
            .header("accept", "b")
            .body(Full::new(Bytes::from_static(b"hello")))
            .unwrap();
        let expected = json!({
            "app": "sample",
            "method": "PUT",
            "path": "/api/orders/7",
            "query": "page=2",
            "headers": {"authorization": "Bearer ...", "x-user-id": "alice", "accept": "a, b"},
            "body_bytes": 5,
        });
        assert_eq!(send(request), (200, expected));
        let odd = Request::get("/api/").header(AUTHORIZATION, "abc.def.ghi");
        let (_, seen) = send(odd.body(Full::default()).unwrap());
        assert_eq!(seen["headers"], json!({"authorization": "..."}));
        let elsewhere = Request::get("/elsewhere").body(Full::default()).unwrap();
        assert_eq!(send(elsewhere).0, 404);
    }
}
