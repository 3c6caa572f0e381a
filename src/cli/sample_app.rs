//! The app behind the gateway in `portcullis demo`: it hands out tokens as Django's simplejwt does,
//! and answers everything else with what it received, so that the gateway's work can be seen.
//! A sample for one machine: its users live in memory, and it trusts whoever reaches its port.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::TcpListener;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::time::Interval;

mod tokens;

pub(crate) use tokens::{Issuer, Kind, MintError, User, hex};

/// Where the app listens; the same as the upstream in the demo's `gateway.yaml`.
pub(crate) const ADDRESS: &str = "127.0.0.1:9000";

/// How long an access token from the sign-in lives.
const ACCESS_LIFETIME: Duration = Duration::from_mins(5);
/// How long a refresh token lives.
const REFRESH_LIFETIME: Duration = Duration::from_hours(24);
/// The longest sign-in or refresh that is read, in bytes.
const FORM_BYTES: usize = 64 * 1024;
/// The longest body that is counted, in bytes; it is never stored.
const BODY_BYTES: usize = 100 * 1024 * 1024;
/// How many events `/api/events` sends, one a second.
const TICKS: u8 = 10;

/// Tells the time. Passed in, so that tests decide what it is.
pub(crate) type Clock = fn() -> SystemTime;

/// The sample app: its users, its tokens, its clock.
#[derive(Debug)]
pub(crate) struct SampleApp {
    /// Who can sign in.
    pub(crate) users: Vec<User>,
    /// Who signs the tokens.
    pub(crate) issuer: Issuer,
    /// What time it is.
    pub(crate) clock: Clock,
}

/// Serves the app on `listener` on a thread of its own, until the process ends.
///
/// Fails where the listener, the thread or its runtime cannot be set up.
pub(crate) fn start(listener: TcpListener, app: SampleApp) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("sample-app".to_owned())
        .spawn(move || {
            tokio::task::LocalSet::new().block_on(&runtime, serve(listener, Rc::new(app)))
        })?;
    Ok(())
}

/// Accepts for ever. No deadlines: only the gateway talks to this port, and it has its own.
async fn serve(listener: TcpListener, app: Rc<SampleApp>) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: let some connections end.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let app = Rc::clone(&app);
        tokio::task::spawn_local(async move {
            let service = service_fn(|request| {
                let app = Rc::clone(&app);
                async move { Ok::<_, Infallible>(app.answer(request).await) }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the sample app lost a connection");
            }
        });
    }
}

impl SampleApp {
    /// Answers one request.
    async fn answer<B>(&self, request: Request<B>) -> Response<Answer>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        match request.uri().path() {
            "/api/token" | "/api/token/" => self.token_service(request, Self::sign_in).await,
            "/api/token/refresh" | "/api/token/refresh/" => {
                self.token_service(request, Self::refresh).await
            }
            "/api/events" => events(),
            path if path.starts_with("/api/") => mirror(request).await,
            _ => answer_json(StatusCode::NOT_FOUND, &json!({"detail": "Not found."})),
        }
    }

    /// Reads the fields of a POST and answers it with `call`.
    async fn token_service<B>(
        &self,
        request: Request<B>,
        call: fn(&Self, &Fields) -> (StatusCode, Value),
    ) -> Response<Answer>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if request.method() != Method::POST {
            let detail = format!("Method \"{}\" not allowed.", request.method());
            let mut response =
                answer_json(StatusCode::METHOD_NOT_ALLOWED, &json!({"detail": detail}));
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("POST"));
            return response;
        }
        let (head, body) = request.into_parts();
        let body = match Limited::new(body, FORM_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return unread(&*error),
        };
        let (status, answer) = match fields(&head.headers, &body) {
            Ok(fields) => call(self, &fields),
            Err(status) => (
                status,
                json!({"detail": "Send the fields as JSON or as a form."}),
            ),
        };
        answer_json(status, &answer)
    }

    /// `POST /api/token/`: a name and a password for an access and a refresh token.
    fn sign_in(&self, fields: &Fields) -> (StatusCode, Value) {
        let (name, password) = match (fields.get("username"), fields.get("password")) {
            (Some(name), Some(password)) => (name, password),
            (name, password) => {
                let missing = [("username", name), ("password", password)];
                return required(missing.iter().filter(|(_, v)| v.is_none()).map(|(k, _)| *k));
            }
        };
        let Some(user) = login(&self.users, name, password) else {
            let detail = "No active account found with the given credentials";
            return (StatusCode::UNAUTHORIZED, json!({"detail": detail}));
        };
        let now = (self.clock)();
        let access = self.issuer.mint(user, Kind::Access, ACCESS_LIFETIME, now);
        let refresh = self.issuer.mint(user, Kind::Refresh, REFRESH_LIFETIME, now);
        match (access, refresh) {
            (Ok(access), Ok(refresh)) => (
                StatusCode::OK,
                json!({"access": access, "refresh": refresh}),
            ),
            (Err(error), _) | (_, Err(error)) => unminted(&error),
        }
    }

    /// `POST /api/token/refresh/`: a refresh token for a new access token.
    fn refresh(&self, fields: &Fields) -> (StatusCode, Value) {
        let Some(token) = fields.get("refresh") else {
            return required(std::iter::once("refresh"));
        };
        let now = (self.clock)();
        let name = self.issuer.refreshed(token, now);
        let Some(user) = name.and_then(|name| self.users.iter().find(|user| user.name == name))
        else {
            let answer = json!({"detail": "Token is invalid", "code": "token_not_valid"});
            return (StatusCode::UNAUTHORIZED, answer);
        };
        match self.issuer.mint(user, Kind::Access, ACCESS_LIFETIME, now) {
            Ok(access) => (StatusCode::OK, json!({"access": access})),
            Err(error) => unminted(&error),
        }
    }
}

/// The user with this name and password.
fn login<'a>(users: &'a [User], name: &str, password: &str) -> Option<&'a User> {
    let user = users.iter().find(|user| user.name == name)?;
    aws_lc_rs::constant_time::verify_slices_are_equal(
        user.password.as_bytes(),
        password.as_bytes(),
    )
    .ok()?;
    Some(user)
}

/// simplejwt's answer to fields that are missing.
fn required<'a>(missing: impl Iterator<Item = &'a str>) -> (StatusCode, Value) {
    let problems = missing.map(|name| (name.to_owned(), json!(["This field is required."])));
    (StatusCode::BAD_REQUEST, Value::Object(problems.collect()))
}

/// The answer when no token could be made.
fn unminted(error: &MintError) -> (StatusCode, Value) {
    tracing::error!(%error, "the sample app cannot issue a token");
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        json!({"detail": "No token can be issued now."}),
    )
}

/// The text fields of a JSON or form body, by name.
type Fields = BTreeMap<String, String>;

/// Reads a body as its Content-Type says, or gives the status of the refusal.
fn fields(headers: &HeaderMap, body: &[u8]) -> Result<Fields, StatusCode> {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    match kind
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
        .as_str()
    {
        "application/json" => {
            let Ok(Value::Object(object)) = serde_json::from_slice(body) else {
                return Err(StatusCode::BAD_REQUEST);
            };
            let text = |(name, value): (String, Value)| Some((name, value.as_str()?.to_owned()));
            Ok(object.into_iter().filter_map(text).collect())
        }
        "application/x-www-form-urlencoded" => form(body).ok_or(StatusCode::BAD_REQUEST),
        _ => Err(StatusCode::UNSUPPORTED_MEDIA_TYPE),
    }
}

/// The fields of an `application/x-www-form-urlencoded` body; of a name given twice the last.
/// `None` where an escape is broken or the text is not UTF-8.
fn form(body: &[u8]) -> Option<Fields> {
    let pairs = body
        .split(|&byte| byte == b'&')
        .filter(|pair| !pair.is_empty());
    let decode_pair = |pair: &[u8]| {
        let mut halves = pair.splitn(2, |&byte| byte == b'=');
        Some((
            decode(halves.next().unwrap_or_default())?,
            decode(halves.next().unwrap_or_default())?,
        ))
    };
    pairs.map(decode_pair).collect()
}

/// One name or value of a form: `+` is a space, `%41` is an A.
fn decode(text: &[u8]) -> Option<String> {
    let mut bytes = text.iter().copied();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high * 16 + low).ok()?
            }
            plain => plain,
        });
    }
    String::from_utf8(decoded).ok()
}

/// Tells the client what arrived here: the method, the path, the headers, the body's length.
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

/// The answer to a body that is too long or broke off.
fn unread(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Response<Answer> {
    let (status, detail) = if error.is::<LengthLimitError>() {
        (StatusCode::PAYLOAD_TOO_LARGE, "The body is too long.")
    } else {
        (StatusCode::BAD_REQUEST, "The body broke off.")
    };
    answer_json(status, &json!({"detail": detail}))
}

/// Server-Sent Events, one a second: a gateway that collects answers would show them all at once.
fn events() -> Response<Answer> {
    let interval = tokio::time::interval(Duration::from_secs(1));
    let mut response = Response::new(Answer::Ticks { interval, sent: 0 });
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A JSON answer with a line end, which a terminal likes.
fn answer_json(status: StatusCode, value: &Value) -> Response<Answer> {
    let text = Bytes::from(format!("{value:#}\n"));
    let mut response = Response::new(Answer::Whole(Some(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The body of an answer.
#[derive(Debug)]
enum Answer {
    /// All of it at once; `None` when it was sent.
    Whole(Option<Bytes>),
    /// An event at each tick, [`TICKS`] of them.
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
    use std::time::UNIX_EPOCH;

    use http_body_util::Full;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn app(clock: Clock) -> SampleApp {
        let user = |id, name, password: &str, roles| User {
            id,
            name,
            password: password.to_owned(),
            roles,
        };
        SampleApp {
            users: vec![
                user(1, "alice", "open sesame", &["clerk"]),
                user(2, "bob", "b&b=b", &["admin"]),
            ],
            issuer: Issuer::new(&"5".repeat(64)),
            clock,
        }
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + NOW
    }

    fn post(app: &SampleApp, path: &str, kind: &str, body: &str) -> (u16, Value) {
        let request = Request::post(path)
            .header(CONTENT_TYPE, kind)
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .unwrap();
        send(app, request)
    }

    fn send(app: &SampleApp, request: Request<Full<Bytes>>) -> (u16, Value) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let response = app.answer(request).await;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, serde_json::from_slice(&body).unwrap())
        })
    }

    #[track_caller]
    fn check_login(name: &str, password: &str, expected: Option<u32>) {
        let app = app(now);
        let found = login(&app.users, name, password).map(|user| user.id);
        assert_eq!(found, expected, "{name:?} with {password:?}");
    }

    #[test]
    fn only_a_user_with_her_own_password_signs_in() {
        check_login("alice", "open sesame", Some(1));
        check_login("bob", "b&b=b", Some(2));
        check_login("alice", "b&b=b", None);
        check_login("alice", "open sesam", None);
        check_login("alice", "", None);
        check_login("Alice", "open sesame", None);
        check_login("", "", None);
    }

    #[track_caller]
    fn check_form(body: &str, expected: Option<&[(&str, &str)]>) {
        let expected: Option<Fields> = expected.map(|pairs| {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        });
        assert_eq!(form(body.as_bytes()), expected, "form {body:?}");
    }

    #[test]
    fn forms_are_decoded_once() {
        check_form("", Some(&[]));
        check_form(
            "username=alice&password=open+sesame",
            Some(&[("username", "alice"), ("password", "open sesame")]),
        );
        check_form("password=b%26b%3db", Some(&[("password", "b&b=b")]));
        check_form("a=%2541", Some(&[("a", "%41")]));
        check_form("a=b=c&&d", Some(&[("a", "b=c"), ("d", "")]));
        check_form("a=1&a=2", Some(&[("a", "2")]));
        check_form("a=%c3%A9", Some(&[("a", "é")]));
    }

    #[test]
    fn broken_forms_are_refused() {
        check_form("a=%", None);
        check_form("a=%4", None);
        check_form("a=%zz", None);
        check_form("a=%+4", None);
        check_form("a=%ff", None);
    }

    #[test]
    fn the_sign_in_speaks_simplejwts_format() {
        let app = app(now);
        let json = "application/json";
        let form = "application/x-www-form-urlencoded; charset=utf-8";
        let good = r#"{"username": "alice", "password": "open sesame"}"#;
        let (status, tokens) = post(&app, "/api/token/", json, good);
        assert_eq!(status, 200);
        assert!(tokens["access"].is_string() && tokens["refresh"].is_string());
        assert_eq!(
            post(&app, "/api/token/", form, "username=bob&password=b%26b%3Db").0,
            200
        );

        let wrong = post(&app, "/api/token/", form, "username=bob&password=b");
        let detail = "No active account found with the given credentials";
        assert_eq!(wrong, (401, json!({"detail": detail})));
        let missing = post(
            &app,
            "/api/token/",
            json,
            r#"{"username": "alice", "password": 7}"#,
        );
        assert_eq!(
            missing,
            (400, json!({"password": ["This field is required."]}))
        );
        assert_eq!(post(&app, "/api/token/", json, "[").0, 400);
        assert_eq!(post(&app, "/api/token/", json, "[]").0, 400);
        assert_eq!(post(&app, "/api/token/", "text/plain", good).0, 415);
        assert_eq!(
            post(&app, "/api/token/", json, &" ".repeat(FORM_BYTES + 1)).0,
            413
        );
        let get = Request::get("/api/token/").body(Full::default()).unwrap();
        assert_eq!(send(&app, get).0, 405);
    }

    #[test]
    fn only_a_living_refresh_token_refreshes() {
        let app = app(now);
        let good = "username=alice&password=open+sesame";
        let form = "application/x-www-form-urlencoded";
        let (_, tokens) = post(&app, "/api/token/", form, good);
        let refresh = |app: &SampleApp, token: &Value| {
            let body = json!({"refresh": token}).to_string();
            post(app, "/api/token/refresh/", "application/json", &body)
        };
        let (status, answer) = refresh(&app, &tokens["refresh"]);
        assert_eq!(status, 200);
        assert!(answer["access"].is_string());

        let invalid = (
            401,
            json!({"detail": "Token is invalid", "code": "token_not_valid"}),
        );
        assert_eq!(refresh(&app, &tokens["access"]), invalid);
        assert_eq!(refresh(&app, &json!("x.y.z")), invalid);
        let tomorrow = self::app(|| now() + REFRESH_LIFETIME);
        assert_eq!(refresh(&tomorrow, &tokens["refresh"]), invalid);
        let mut stranger = self::app(now);
        stranger.issuer = Issuer::new(&"6".repeat(64));
        assert_eq!(refresh(&stranger, &tokens["refresh"]), invalid);
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
        assert_eq!(send(&app(now), request), (200, expected));
        let odd = Request::get("/api/").header(AUTHORIZATION, "abc.def.ghi");
        let (_, seen) = send(&app(now), odd.body(Full::default()).unwrap());
        assert_eq!(seen["headers"], json!({"authorization": "..."}));
        let elsewhere = Request::get("/elsewhere").body(Full::default()).unwrap();
        assert_eq!(send(&app(now), elsewhere).0, 404);
    }
}
