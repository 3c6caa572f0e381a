//! The admin thread: metrics, health and state to look at, and the few changes that are not the configuration's: a reload,
//! the level of the log. It has a runtime of its own, so that neither the control thread, which compiles configurations,
//! nor a worker keeps anybody from looking. It never publishes: the control thread is asked.

mod client;
mod collector;
mod explained;
mod guard;
mod health;
mod history;
mod listen;
mod process;
mod told;

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

pub(crate) use self::client::{Client, NoAnswer};
use self::collector::Exposition;
pub(crate) use self::explained::{as_json, lines_of};
use self::guard::{Denied, Door, Right};
use self::health::Health;
pub(crate) use self::history::{By, Change, History, Outcome, Row};
pub(crate) use self::listen::{Bound, Doors, NotBound, absolute};
use crate::config::{self, AllLines};
use crate::observe::log::Losses;
use crate::server::Observer;
use crate::snapshot::Snapshot;

/// The longest body of a request.
const BODY: usize = 64 * 1024;
/// How long another level of the log may last.
const LONGEST_LEVEL: Duration = Duration::from_secs(24 * 60 * 60);
/// How often a wrong token is logged.
const SAID_EVERY: Duration = Duration::from_secs(1);

/// What is in force, beside the snapshot.
#[derive(Debug, Default)]
pub(crate) struct InForce {
    /// The configuration as YAML, its secrets hidden.
    pub(crate) printed: String,
    /// The lines of its routes.
    pub(crate) lines: AllLines,
    /// The digest of its files.
    pub(crate) digest: u64,
}

/// Something that the control thread is asked to do.
#[derive(Debug)]
pub(crate) enum Asked {
    /// To read the configuration again.
    Reload {
        /// Who asks.
        by: By,
        /// Takes what became of it; dropped where another reload runs.
        answer: oneshot::Sender<Row>,
    },
    /// To log at this level.
    Level {
        /// The level.
        level: tracing::Level,
        /// For how long; then the configuration's holds again.
        lasts: Option<Duration>,
    },
}

/// What there is to look at in a process that serves.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The configuration's file.
    pub(crate) config: PathBuf,
    /// When the process started.
    pub(crate) started: SystemTime,
    /// The snapshots.
    pub(crate) snapshots: watch::Receiver<Arc<Snapshot>>,
    /// What is in force beside them.
    pub(crate) in_force: watch::Receiver<Arc<InForce>>,
    /// The workers.
    pub(crate) observer: Observer,
    /// What became of reloads.
    pub(crate) history: Arc<History>,
    /// Lines that the log has lost.
    pub(crate) losses: Losses,
    /// The level of the log.
    pub(crate) level: watch::Receiver<tracing::Level>,
    /// Asks the control thread.
    pub(crate) asks: mpsc::Sender<Asked>,
}

/// What the tasks of the admin thread share.
#[derive(Debug)]
struct Shared {
    seen: Seen,
    health: Health,
    /// When a wrong token was logged last.
    said: Mutex<Option<Instant>>,
}

impl Deref for Shared {
    type Target = Seen;

    fn deref(&self) -> &Seen {
        &self.seen
    }
}

impl Shared {
    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    fn is_draining(&self) -> bool {
        self.snapshots.borrow().readiness.is_draining()
    }
}

/// The admin thread. Dropping it closes its sockets.
#[derive(Debug)]
pub(crate) struct Admin {
    doors: Doors,
    orders: mpsc::UnboundedSender<Bound>,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    /// Starts the thread, with the sockets that were bound.
    ///
    /// # Errors
    /// The thread or its runtime cannot be started.
    pub(crate) fn start(seen: Seen, bound: Bound) -> std::io::Result<Self> {
        let shared = Shared {
            seen,
            health: Health::default(),
            said: Mutex::default(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (orders, inbox) = mpsc::unbounded_channel();
        let thread = std::thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || {
                runtime.block_on(run(&Arc::new(shared), inbox));
                runtime.shutdown_background();
            })?;
        let mut admin = Self {
            doors: Doors::default(),
            orders,
            thread: Some(thread),
        };
        admin.open(bound);
        Ok(admin)
    }

    /// The sockets that are open.
    pub(crate) fn doors(&self) -> &Doors {
        &self.doors
    }

    /// Opens what was bound, and closes what it replaces.
    pub(crate) fn open(&mut self, bound: Bound) {
        self.doors.note(&bound);
        if !bound.is_empty() && self.orders.send(bound).is_err() {
            tracing::error!("the admin thread ended unexpectedly");
        }
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        // The thread ends with its orders.
        self.orders = mpsc::unbounded_channel().0;
        let ended = self.thread.take().map(JoinHandle::join);
        if let Some(Err(_)) = ended {
            tracing::error!("the admin thread panicked");
        }
    }
}

/// The main task of the thread: asks the workers once a second, and opens and closes sockets as it is ordered.
async fn run(shared: &Arc<Shared>, mut orders: mpsc::UnboundedReceiver<Bound>) {
    let mut open = listen::Open::default();
    let mut ticks = interval(health::EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            bound = orders.recv() => match bound {
                Some(bound) => open.change(bound, shared),
                None => return open.close(),
            },
            _ = ticks.tick() => shared.health.ask(Instant::now(), || shared.observer.pulses()),
        }
    }
}

type Answer = Response<Full<Bytes>>;

/// Answers a request.
async fn answer(shared: &Arc<Shared>, door: Door, request: Request<Incoming>) -> Answer {
    let is_head = *request.method() == Method::HEAD;
    let mut answer = match respond(shared, door, request).await {
        Ok(answer) => answer,
        Err(denied) => {
            shared.say(&denied);
            let mut answer = failed(denied.status, denied.why);
            if denied.status == StatusCode::UNAUTHORIZED {
                let bearer = HeaderValue::from_static("Bearer");
                answer
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, bearer);
            }
            answer
        }
    };
    let headers = answer.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    if is_head {
        *answer.body_mut() = Full::default();
    }
    answer
}

impl Shared {
    /// Logs a wrong token, at most once a second.
    fn say(&self, denied: &Denied) {
        if !denied.wrong_token {
            return;
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|said| said.elapsed() >= SAID_EVERY) {
            *said = Some(Instant::now());
            tracing::warn!("a request to the admin listener had a wrong token");
        }
    }
}

/// What is at a path: the method, who may, and what it does.
async fn respond(
    shared: &Arc<Shared>,
    door: Door,
    request: Request<Incoming>,
) -> Result<Answer, Denied> {
    let path = request.uri().path().to_owned();
    let (method, right) = match path.as_str() {
        "/healthz" | "/readyz" => (Method::GET, Right::Nothing),
        "/metrics" | "/config" | "/status" | "/reloads" | "/upstreams" | "/issuers"
        | "/certificates" => (Method::GET, Right::Read),
        "/explain" => (Method::POST, Right::Read),
        "/reload" => (Method::POST, Right::Change),
        "/log-level" => (Method::PUT, Right::Change),
        // Who may not even read learns nothing of what there is.
        _ => (Method::GET, Right::Nothing),
    };
    let settings = shared.snapshot().admin.clone();
    let about = (request.method(), request.uri(), request.headers());
    guard::admit(door, settings.as_deref(), about, right)?;
    let is_get = method == Method::GET;
    if *request.method() != method && !(is_get && *request.method() == Method::HEAD) {
        let mut answer = failed(StatusCode::METHOD_NOT_ALLOWED, "another method is needed");
        let allow = if is_get { "GET, HEAD" } else { method.as_str() };
        if let Ok(allow) = HeaderValue::from_str(allow) {
            answer.headers_mut().insert(header::ALLOW, allow);
        }
        return Ok(answer);
    }
    Ok(match path.as_str() {
        "/healthz" => healthz(shared),
        "/readyz" => readyz(shared),
        "/metrics" => metrics(shared, &request),
        "/config" => {
            let printed = shared.in_force.borrow().printed.clone();
            text("application/yaml", printed)
        }
        "/status" => json_of(StatusCode::OK, &told::status(shared)),
        "/reloads" => json_of(StatusCode::OK, &told::reloads(shared)),
        "/upstreams" => json_of(StatusCode::OK, &told::upstreams(shared)),
        "/issuers" => json_of(StatusCode::OK, &told::issuers(shared)),
        "/certificates" => json_of(StatusCode::OK, &told::certificates(shared)),
        "/explain" => match body_of(request).await {
            Ok(asked) => {
                let lines = Arc::clone(&shared.in_force.borrow());
                match explained::explain(&asked, &shared.snapshot(), &lines.lines) {
                    Ok(explained) => json_of(StatusCode::OK, &explained),
                    Err(why) => failed(StatusCode::BAD_REQUEST, &why),
                }
            }
            Err(answer) => answer,
        },
        "/reload" => reload(shared, door).await,
        "/log-level" => match body_of(request).await {
            Ok(asked) => log_level(shared, &asked).await,
            Err(answer) => answer,
        },
        _ => failed(StatusCode::NOT_FOUND, "there is nothing here"),
    })
}

fn text(content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    let content_type = HeaderValue::from_static(content_type);
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    answer
}

fn json_of(status: StatusCode, value: &Value) -> Answer {
    let mut answer = text("application/json", format!("{value}\n"));
    *answer.status_mut() = status;
    answer
}

fn failed(status: StatusCode, why: &str) -> Answer {
    json_of(status, &json!({ "error": why }))
}

/// A request's whole body.
async fn body_of(request: Request<Incoming>) -> Result<Bytes, Answer> {
    let reading = Limited::new(request.into_body(), BODY).collect();
    match timeout(listen::PATIENCE, reading).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(failed(
            StatusCode::PAYLOAD_TOO_LARGE,
            "bodies have 64 KiB at most",
        )),
        Ok(Err(_)) => Err(failed(StatusCode::BAD_REQUEST, "the body broke off")),
        Err(_) => Err(failed(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not arrive in time",
        )),
    }
}

fn healthz(shared: &Shared) -> Answer {
    let stuck = shared.health.stuck(Instant::now());
    if stuck.is_empty() {
        return json_of(StatusCode::OK, &json!({"healthy": true}));
    }
    let told = json!({"healthy": false, "stuck_workers": stuck});
    json_of(StatusCode::SERVICE_UNAVAILABLE, &told)
}

fn readyz(shared: &Shared) -> Answer {
    if shared.is_draining() {
        let told = json!({"ready": false, "why": "draining"});
        return json_of(StatusCode::SERVICE_UNAVAILABLE, &told);
    }
    json_of(StatusCode::OK, &json!({"ready": true}))
}

fn metrics(shared: &Arc<Shared>, request: &Request<Incoming>) -> Answer {
    let all = request.headers().get_all(header::ACCEPT).iter();
    let accept: Vec<&str> = all.filter_map(|value| value.to_str().ok()).collect();
    let exposition = Exposition::preferred(&accept.join(","));
    match collector::metrics(shared, exposition) {
        Ok(metrics) => text(exposition.content_type(), metrics),
        Err(error) => failed(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// Reads the configuration again, and waits for the end.
async fn reload(shared: &Shared, door: Door) -> Answer {
    if shared.is_draining() {
        let why = "the gateway drains: nothing is reloaded any more";
        return failed(StatusCode::SERVICE_UNAVAILABLE, why);
    }
    let by = match door {
        Door::Control => By::Prompt,
        Door::Network => By::Admin,
    };
    let (answer, outcome) = oneshot::channel();
    if shared
        .asks
        .send(Asked::Reload { by, answer })
        .await
        .is_err()
    {
        return failed(StatusCode::SERVICE_UNAVAILABLE, "the gateway stops");
    }
    match outcome.await {
        Ok(row) => {
            let status = match row.outcome {
                Outcome::Good(_) => StatusCode::OK,
                Outcome::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            };
            json_of(status, &told::row(&row))
        }
        Err(_) => failed(StatusCode::CONFLICT, "another reload runs"),
    }
}

/// Logs at another level: `{"level": "debug", "for": "10m"}`.
async fn log_level(shared: &Shared, asked: &[u8]) -> Answer {
    let (level, lasts) = match level_of(asked) {
        Ok(asked) => asked,
        Err(why) => return failed(StatusCode::BAD_REQUEST, &why),
    };
    let sent = shared.asks.send(Asked::Level { level, lasts }).await;
    if sent.is_err() {
        return failed(StatusCode::SERVICE_UNAVAILABLE, "the gateway stops");
    }
    let told = json!({
        "level": level.as_str().to_lowercase(),
        "seconds": lasts.map(|lasts| lasts.as_secs()),
    });
    json_of(StatusCode::OK, &told)
}

/// The level, and how long it holds; without a time as long as the longest.
fn level_of(asked: &[u8]) -> Result<(tracing::Level, Option<Duration>), String> {
    let asked: Value = serde_json::from_slice(asked)
        .map_err(|_| "a JSON object is needed: {\"level\": \"debug\", \"for\": \"10m\"}")?;
    let level = match asked.get("level").and_then(Value::as_str) {
        Some("error") => tracing::Level::ERROR,
        Some("warn") => tracing::Level::WARN,
        Some("info") => tracing::Level::INFO,
        Some("debug") => tracing::Level::DEBUG,
        Some(_) | None => return Err("`level` is error, warn, info or debug".to_owned()),
    };
    let lasts = match asked.get("for") {
        None | Some(Value::Null) => LONGEST_LEVEL,
        Some(lasts) => {
            let text = lasts.as_str().ok_or("`for` is a duration such as 10m")?;
            config::duration(text).map_err(|why| format!("`for`: {why}"))?
        }
    };
    if lasts.is_zero() || lasts > LONGEST_LEVEL {
        return Err("`for` is at most 24h, and not 0".to_owned());
    }
    Ok((level, Some(lasts)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_has_an_end() {
        let level = |text: &str| level_of(text.as_bytes());
        let minutes = |minutes: u64| Some(Duration::from_secs(minutes * 60));
        let debug = tracing::Level::DEBUG;
        let asked = level(r#"{"level": "debug", "for": "10m"}"#);
        assert_eq!(asked, Ok((debug, minutes(10))));
        assert_eq!(
            level(r#"{"level": "debug"}"#),
            Ok((debug, minutes(24 * 60)))
        );
        for wrong in [
            "",
            "[]",
            "debug",
            r#"{"level": "trace"}"#,
            r#"{"level": 7}"#,
            r#"{"level": "debug", "for": "25h"}"#,
            r#"{"level": "debug", "for": "0s"}"#,
            r#"{"level": "debug", "for": 10}"#,
            r#"{"level": "debug", "for": "10"}"#,
        ] {
            assert!(level(wrong).is_err(), "{wrong}");
        }
    }
}
