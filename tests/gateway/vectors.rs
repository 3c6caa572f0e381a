//! Requests that others collected (`tests/vectors`), each judged by its own project's expectation
//! as a client sees it: the first answer's status, and whether the gateway closes.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::support::{Answer, App, Gateway, config, find};

/// Cases in which the gateway differs on purpose, with the reason. An entry that does not differ is
/// a failure too.
const ACCEPTED: &[(&str, &str)] = &[
    (
        "http11probe:COMP-HEAD-NO-BODY",
        "its rule looks at the body; the table has no good outcome",
    ),
    (
        "http11probe:MAL-POST-CL-HUGE-NO-BODY",
        "a body past the limit is 413",
    ),
    (
        "llhttp:invalid.md:HTTP protocol and ANNOUNCE method#45",
        "methods are the app's business",
    ),
    (
        "llhttp:invalid.md:Invalid method#55",
        "methods are the app's business",
    ),
    (
        "desync:ambiguous.yaml:Transfer_Encoding with underscore.#16",
        SHADOW,
    ),
    (
        "desync:ambiguous.yaml:Content_Length with underscore.#17",
        SHADOW,
    ),
    (
        "desync:ambiguous.yaml:Get with a body and Content-Length#21",
        BODY,
    ),
    (
        "desync:ambiguous.yaml:Get with a body and Transfer-Encoding#22",
        BODY,
    ),
    (
        "desync:ambiguous.yaml:Head with a body and Content-Length#23",
        BODY,
    ),
    (
        "desync:ambiguous.yaml:Head with a body and Transfer-Encoding#24",
        BODY,
    ),
    (
        "desync:ambiguous.yaml:Transfer-Encoding with multiple hyphens#39",
        "just another name",
    ),
    (
        "desync:ambiguous.yaml:Transfer-Encoding with multiple delimiters#40",
        "just another name",
    ),
    (
        "desync:more-compliant-tests.yaml:Large Size OK#75",
        "its body is not sent, and waited for",
    ),
    ("desync:real-life-test-cases.yaml:Has a CL in GET#79", BODY),
    ("desync:real-life-test-cases.yaml:Has a TE in GET#80", BODY),
    (
        "desync:rfc-compliant.yaml:Compliant URL#114",
        "its target has a fragment and quotes",
    ),
    (
        "desync:rfc-compliant.yaml:Empty URI#116",
        "it has no target",
    ),
];
/// Why a name with an underscore is served.
const SHADOW: &str = "not a length; what shadows a field of the gateway is taken out";
/// Why GET and HEAD may have a body.
const BODY: &str = "its length is plain, and is written anew for the app";

/// How long a case may stay without a whole answer before it counts as `TimedOut`.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an answered connection is watched before it counts as `Open`.
const GLANCE: Duration = Duration::from_millis(150);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Open,
    ClosedByServer,
    TimedOut,
}

type Judge = Box<dyn Fn(Option<u16>, State) -> bool + Send + Sync>;

struct Case {
    id: String,
    wanted: String,
    payload: Vec<u8>,
    /// Whether this outcome is good.
    judge: Judge,
}

#[tokio::test]
async fn http11probes_scored_requests_have_an_outcome_that_it_accepts() {
    let file = load("http11probe/requests.json");
    let cases = file["requests"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|case| case["scored"] == true);
    judge(cases.map(|case| {
        let outcomes = |key: &str| case[key].as_array().unwrap().clone();
        let good: HashSet<String> = outcomes("pass")
            .into_iter()
            .chain(outcomes("warn"))
            .map(|outcome| outcome.as_str().unwrap().to_owned())
            .collect();
        Case {
            id: format!("http11probe:{}", text(&case["id"])),
            wanted: text(&case["expected"]),
            payload: STANDARD.decode(text(&case["payload"])).unwrap(),
            judge: Box::new(move |status, state| {
                let status = status.map_or_else(|| "none".to_owned(), |status| status.to_string());
                good.contains(&format!("{status}/{state:?}"))
            }),
        }
    }))
    .await;
}

#[tokio::test]
async fn what_llhttp_refuses_is_refused() {
    let file = load("llhttp/requests.json");
    let cases = file
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .filter(|(_, case)| {
            let reason = text(&case["error"]["reason"]);
            case["strict"] == true
                && !case["error"].is_null()
                && case["complete"] == 0
                && case["error"]["code"] != 5
                && !reason.contains("callback error")
                && !reason.to_lowercase().contains("pause")
        });
    judge(cases.map(|(at, case)| {
        let payload = STANDARD.decode(text(&case["payload"])).unwrap();
        Case {
            id: format!(
                "llhttp:{}:{}#{at}",
                text(&case["file"]),
                text(&case["name"])
            ),
            wanted: format!("refused: {}", text(&case["error"]["reason"])),
            payload: with_host(payload),
            judge: Box::new(|status, _| status.is_none_or(|status| status >= 400)),
        }
    }))
    .await;
}

#[tokio::test]
async fn what_http_desync_guardian_calls_ambiguous_is_refused_or_closed() {
    let file = load("http-desync-guardian/cases.json");
    let cases = file
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .filter(|(_, case)| {
            let empty = |key: &str| case[key].as_str().is_none_or(str::is_empty);
            !empty("method") && !case["uri"].is_null() && !empty("version")
        });
    judge(cases.map(|(at, case)| {
        let tier = text(&case["tier"]);
        Case {
            id: format!(
                "desync:{}:{}#{at}",
                text(&case["file"]),
                text(&case["name"])
            ),
            wanted: format!("{tier} {}", text(&case["reason"])),
            payload: desync_payload(case),
            judge: Box::new(move |status, state| match (tier.as_str(), status) {
                ("Acceptable", _) => true,
                ("Compliant", status) => status.is_some_and(|status| status != 400),
                (_, Some(status)) => status >= 400 || state == State::ClosedByServer,
                (_, None) => true,
            }),
        }
    }))
    .await;
}

fn desync_payload(case: &Value) -> Vec<u8> {
    let headers = case["headers"].as_array().unwrap();
    let named = |wanted: &str| {
        headers
            .iter()
            .find(|header| text(&header["name"]).trim().eq_ignore_ascii_case(wanted))
            .map(|header| text(&header["value"]))
    };
    let mut payload = ["method", "uri", "version"]
        .map(|key| latin1(&text(&case[key])))
        .join(&b' ');
    payload.extend(b"\r\n");
    if named("host").is_none() {
        payload.extend(b"Host: lab.test\r\n");
    }
    for header in headers {
        payload.extend(latin1(&text(&header["name"])));
        payload.extend(b": ");
        payload.extend(latin1(&text(&header["value"])));
        payload.extend(b"\r\n");
    }
    payload.extend(b"\r\n");
    if named("transfer-encoding").is_some() {
        payload.extend(b"0\r\n\r\n");
    } else if let Some(length @ 0..100_000) =
        named("content-length").and_then(|length| length.trim().parse().ok())
    {
        payload.extend(std::iter::repeat_n(b'x', length));
    }
    payload
}

/// Sends every case on a connection of its own and reports all that went wrong together.
async fn judge(cases: impl Iterator<Item = Case>) {
    let app = App::start(|seen| match seen.method() {
        "GET" | "HEAD" | "OPTIONS" => Answer::Ok("OK"),
        _ => Answer::EchoBody,
    })
    .await;
    let text = config(
        "routes: [{path: /*, proxy: @app, auth: none}]",
        &[("app", &app.url())],
    );
    let gateway = Gateway::start(&text).await;
    let address = gateway.address();
    let mut cases = cases;
    let mut running = JoinSet::new();
    let mut failures = Vec::new();
    let mut passed = 0;
    loop {
        while running.len() < 48
            && let Some(case) = cases.next()
        {
            running.spawn(async move {
                let (status, state) = talk(address, &case.payload, &case.judge).await;
                let good = (case.judge)(status, state);
                (case.id, case.wanted, status, state, good)
            });
        }
        let Some(done) = running.join_next().await else {
            break;
        };
        let (id, wanted, status, state, good) = done.unwrap();
        let accepted = ACCEPTED.iter().any(|(known, _)| *known == id);
        match (good, accepted) {
            (true, false) | (false, true) => passed += 1,
            (false, false) => {
                failures.push(format!("{id}: got {status:?}/{state:?}, wanted {wanted}"));
            }
            (true, true) => failures.push(format!("{id}: is accepted as a deviation, and is none")),
        }
    }
    failures.sort();
    assert!(passed > 10, "the corpus is there");
    assert!(
        failures.is_empty(),
        "{passed} passed, {} failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// Sends the payload; gives the first status and the state of the connection after it. A closing
/// that the case depends on is waited for longer than a glance.
async fn talk(address: SocketAddr, payload: &[u8], judge: &Judge) -> (Option<u16>, State) {
    let (mut read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
    let payload = payload.to_vec();
    let sender = tokio::spawn(async move {
        write.write_all(&payload).await.ok();
        write
    });
    let mut seen = Vec::new();
    let mut until = Instant::now() + PATIENCE;
    let mut answered = false;
    let mut patient = true;
    let state = loop {
        match timeout_at(until, read.read_buf(&mut seen)).await {
            Ok(Ok(1..)) => {}
            Ok(_) => break State::ClosedByServer,
            Err(_) if !answered => break State::TimedOut,
            Err(_) if !patient || judge(status(&seen), State::Open) => break State::Open,
            Err(_) => {
                patient = false;
                until = Instant::now() + GLANCE * 12;
            }
        }
        if !answered && find(&seen, b"\r\n\r\n").is_some() {
            answered = true;
            until = Instant::now() + GLANCE;
        }
    };
    sender.abort();
    (status(&seen), state)
}

fn status(answer: &[u8]) -> Option<u16> {
    let rest = answer.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    std::str::from_utf8(rest).ok()?.parse().ok()
}

fn load(name: &str) -> Value {
    let path = format!("{}/tests/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A value as text; null is empty.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Characters as the bytes that they stand for.
fn latin1(text: &str) -> Vec<u8> {
    text.chars()
        .map(|character| u8::try_from(u32::from(character)).unwrap_or(b'?'))
        .collect()
}

/// Puts a Host behind the request line where there is none.
fn with_host(payload: Vec<u8>) -> Vec<u8> {
    let has = payload.split(|byte| *byte == b'\n').any(|line| {
        line.get(..5)
            .is_some_and(|start| start.eq_ignore_ascii_case(b"host:"))
    });
    let line = payload
        .iter()
        .position(|byte| matches!(byte, b'\r' | b'\n'));
    match line {
        Some(at) if !has && payload[at..].starts_with(b"\r\n") => {
            [&payload[..at], b"\r\nHost: lab.test", &payload[at..]].concat()
        }
        _ => payload,
    }
}
