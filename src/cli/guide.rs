//! The requests of the demo's page to the demo, below `/demo/` of the sample app: signing in by the printed link, and
//! what `explain` says about a request, with the lines that decided. Both only for clients on this machine.

use std::cell::RefCell;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderMap};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};

use crate::admin::{as_json, lines_of};
use crate::clock;
use crate::config::{self, Accepted, Lines, Purpose};
use crate::explain::{self as decide, Outcome, Question};
use crate::filesystem::Patience;
use crate::snapshot::Snapshot;

/// How long the link is valid.
pub(super) const LINK_LIFETIME: Duration = Duration::from_mins(10);
/// How many wrong codes are accepted before the link is revoked: it cannot be guessed.
const TRIES: u8 = 10;
/// The maximum size of a request, in bytes.
const QUESTION_BYTES: usize = 64 << 10;
/// How many lines of a file are shown at most.
const LINES: usize = 40;

/// A link that signs in one user, once. No `Debug`: it contains a password.
pub(super) struct Link {
    code: String,
    name: &'static str,
    password: String,
    /// The gateway's plain listener, which issues the tokens.
    gateway: SocketAddr,
    until: Instant,
    tries: u8,
}

impl Link {
    /// A link that is valid from now on.
    pub(super) fn new(
        code: String,
        name: &'static str,
        password: String,
        gateway: SocketAddr,
    ) -> Self {
        Self {
            code,
            name,
            password,
            gateway,
            until: Instant::now() + LINK_LIFETIME,
            tries: TRIES,
        }
    }

    /// Signs in as the page's form does; returns the gateway's response.
    async fn redeem(&self) -> Result<(StatusCode, Value), Box<dyn std::error::Error>> {
        let stream = tokio::net::TcpStream::connect(self.gateway).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driving = tokio::task::spawn_local(connection);
        let body = json!({"username": self.name, "password": self.password}).to_string();
        let request = Request::post("/api/token/")
            .header(HOST, self.gateway.to_string())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        driving.abort();
        Ok((status, serde_json::from_slice(&body)?))
    }
}

/// The state behind the page's requests.
pub(super) struct Guide {
    /// `None` where the configuration is not the demo's: a page must not show parts of other configurations.
    config: Option<PathBuf>,
    link: Option<Link>,
    /// The last valid configuration: an edit with an error changes nothing, neither here nor in the gateway.
    last: Option<Accepted>,
}

impl Guide {
    /// A guide for this configuration, which is the demo's.
    pub(super) fn new(config: &Path, link: Link) -> Self {
        Self {
            config: Some(config.to_owned()),
            link: Some(link),
            last: None,
        }
    }

    /// A guide that answers no request.
    pub(super) fn silent() -> Self {
        Self {
            config: None,
            link: None,
            last: None,
        }
    }

    /// Whether a configuration routes the page's requests here.
    pub(super) fn has_route(snapshot: &Snapshot) -> bool {
        let Ok((request, secure)) = config::request("POST http://127.0.0.1/demo/sign-in") else {
            return false;
        };
        let question = Question {
            request: &request,
            secure,
            claims: None,
            certificate: None,
            any_time: false,
            from: Some(Ipv4Addr::LOCALHOST.into()),
            now: clock::now(),
        };
        let decision = decide::explain(snapshot, &question);
        matches!(decision.outcome, Outcome::Forwarded)
    }

    /// Takes the link, if this is its code and it is still valid.
    fn take_link(&mut self, code: &str) -> Result<Link, StatusCode> {
        let Some(link) = &mut self.link else {
            return Err(StatusCode::GONE);
        };
        if Instant::now() >= link.until || link.tries == 0 {
            self.link = None;
            return Err(StatusCode::GONE);
        }
        if link.code != code {
            link.tries -= 1;
            return Err(StatusCode::FORBIDDEN);
        }
        self.link.take().ok_or(StatusCode::GONE)
    }

    /// The output of `explain` for a request.
    fn explain(&mut self, question: &Value) -> Result<Value, String> {
        let text = |name: &str| text_of(question, name);
        let line = format!("{} {}", text("method"), text("url"));
        let (mut request, secure) = config::request(&line)?;
        let nothing = Map::new();
        let headers = question.get("headers").and_then(Value::as_object);
        for (name, value) in headers.unwrap_or(&nothing) {
            let name: HeaderName = name.parse().map_err(|_| "no header's name".to_owned())?;
            let value = value
                .as_str()
                .and_then(|text| HeaderValue::from_str(text).ok());
            let value = value.ok_or("no header's value")?;
            request.headers_mut().append(name, value);
        }
        let before = self.last.as_ref().map(|last| &last.snapshot);
        let nobody = |_: &Snapshot| config::Verdict::default();
        let patience = Patience::default();
        let file = self.config.as_deref().ok_or("this is not the demo's")?;
        let read = config::load_again(file, &[], &nobody, before, &patience, Purpose::Look);
        let why = match read {
            Ok(loaded) => {
                self.last = Some(loaded);
                None
            }
            Err(refused) => Some(refused.errors.to_string()),
        };
        let loaded = self.last.as_ref();
        let loaded = loaded.ok_or_else(|| why.clone().unwrap_or_default())?;
        let decision = decide::explain(
            &loaded.snapshot,
            &Question {
                request: &request,
                secure,
                claims: None,
                certificate: None,
                any_time: false,
                from: Some(Ipv4Addr::LOCALHOST.into()),
                now: clock::now(),
            },
        );
        let mut said = as_json(&decision, &loaded.snapshot, &loaded.lines);
        let lines = lines_of(&decision, &loaded.snapshot, &loaded.lines);
        let excerpts: Vec<Value> = lines
            .into_iter()
            .map(|(of, lines)| excerpt(of, lines))
            .collect();
        if let Value::Object(said) = &mut said {
            said.insert("excerpts".to_owned(), excerpts.into());
            said.insert("refused".to_owned(), why.into());
        }
        Ok(said)
    }
}

/// A member that is a text; an empty one if it is missing.
fn text_of<'q>(question: &'q Value, name: &str) -> &'q str {
    question
        .get(name)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The current content of the lines.
fn excerpt(of: &str, lines: &Lines) -> Value {
    let text = fs::read_to_string(&lines.file).unwrap_or_default();
    let (first, last) = (lines.first as usize, lines.last as usize);
    let count = last.saturating_sub(first).saturating_add(1).min(LINES);
    let shown: Vec<&str> = text
        .lines()
        .skip(first.saturating_sub(1))
        .take(count)
        .collect();
    let name = Path::new(&lines.file)
        .file_name()
        .map(|name| name.to_string_lossy());
    json!({"of": of, "file": name, "first": first, "lines": shown})
}

/// Whether a request comes from this machine, to a name of this machine, and from a script that may send JSON: a page
/// of another site can neither send that nor, through a name of its own for this machine, read the response.
fn is_from_here(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let client = text("x-forwarded-for").and_then(|list| list.rsplit(',').next());
    let client: Option<IpAddr> = client.and_then(|client| client.trim().parse().ok());
    let host = text("x-forwarded-host").unwrap_or_default();
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let is_json = text("content-type").is_some_and(|kind| kind.starts_with("application/json"));
    client.is_some_and(|client| client.is_loopback())
        && ["127.0.0.1", "localhost", "[::1]"].contains(&host)
        && is_json
}

/// Responds to a request below `/demo/`.
pub(super) async fn answer<B>(request: Request<B>, guide: &RefCell<Guide>) -> (StatusCode, Value)
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let detail = |status: StatusCode, detail: &str| (status, json!({"detail": detail}));
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let is_known = ["/demo/sign-in", "/demo/explain"].contains(&path);
    if head.method != Method::POST || !is_known || guide.borrow().config.is_none() {
        return detail(StatusCode::NOT_FOUND, "Not found.");
    }
    if !is_from_here(&head.headers) {
        return detail(StatusCode::FORBIDDEN, "Only for this machine.");
    }
    let body = Limited::new(body, QUESTION_BYTES).collect().await;
    let question = body.ok().and_then(|body| {
        let question: Value = serde_json::from_slice(&body.to_bytes()).ok()?;
        Some(question)
    });
    let Some(question) = question else {
        return detail(StatusCode::BAD_REQUEST, "This is not JSON.");
    };
    if path == "/demo/explain" {
        return match guide.borrow_mut().explain(&question) {
            Ok(said) => (StatusCode::OK, said),
            Err(why) => detail(StatusCode::BAD_REQUEST, &why),
        };
    }
    let taken = guide.borrow_mut().take_link(text_of(&question, "code"));
    let link = match taken {
        Ok(link) => link,
        Err(status) => return detail(status, "This link was used, or is too old."),
    };
    match link.redeem().await {
        Ok((StatusCode::OK, tokens)) => (StatusCode::OK, tokens),
        failed => {
            // Nobody was signed in with it.
            guide.borrow_mut().link = Some(link);
            let (status, value) = failed.unwrap_or_else(|_| {
                detail(StatusCode::BAD_GATEWAY, "The gateway cannot be reached.")
            });
            (status, value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> Link {
        Link::new(
            "right".to_owned(),
            "alice",
            String::new(),
            ([127, 0, 0, 1], 1).into(),
        )
    }

    #[test]
    fn a_link_is_taken_once_in_time_and_not_guessed() {
        let taken = |guide: &mut Guide, code: &str| guide.take_link(code).map(|link| link.name);
        let mut guide = Guide::new(Path::new("none.yaml"), link());
        assert_eq!(taken(&mut guide, "wrong"), Err(StatusCode::FORBIDDEN));
        assert_eq!(taken(&mut guide, "right"), Ok("alice"));
        assert_eq!(taken(&mut guide, "right"), Err(StatusCode::GONE));

        guide.link = Some(Link {
            until: Instant::now(),
            ..link()
        });
        assert_eq!(taken(&mut guide, "right"), Err(StatusCode::GONE));

        guide.link = Some(link());
        for _ in 0..TRIES {
            assert_eq!(taken(&mut guide, ""), Err(StatusCode::FORBIDDEN));
        }
        assert_eq!(taken(&mut guide, "right"), Err(StatusCode::GONE));
    }

    #[test]
    fn only_this_machine_is_answered() {
        let asked = |client: &str, host: &str, kind: &str| {
            let fields = [
                ("x-forwarded-for", client),
                ("x-forwarded-host", host),
                ("content-type", kind),
            ];
            let mut headers = HeaderMap::new();
            for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
                headers.insert(name, value.parse().unwrap());
            }
            is_from_here(&headers)
        };
        let json = "application/json";
        assert!(asked("127.0.0.1", "127.0.0.1:8080", json));
        assert!(asked("::1", "[::1]:8080", json));
        assert!(asked("192.0.2.1, 127.0.0.1", "localhost", json));
        assert!(!asked("192.0.2.1", "localhost", json));
        assert!(!asked("127.0.0.1, 192.0.2.1", "localhost", json));
        assert!(!asked("127.0.0.1", "evil.example:8080", json));
        assert!(!asked("127.0.0.1", "localhost", "text/plain"));
        assert!(!asked("", "localhost", json) && !asked("127.0.0.1", "", json));
    }
}
