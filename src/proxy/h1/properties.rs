//! Properties that hold for any response of an app: how it is split makes no difference, no body is longer or shorter
//! than its framing says, hyper's client reads the same, and a connection is reused only after one whole response and
//! nothing else. For tests and `fuzz/`.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "whatever does not hold stops the test"
)]

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;

use super::head::AnswerFraming;
use super::*;
use crate::script::{Script, cut, drive};
use crate::wire::properties::number;

/// The result of an exchange.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Outcome {
    /// The final response's head.
    pub(super) head: Option<Head>,
    /// What was received of the body.
    pub(super) body: Vec<u8>,
    pub(super) end: End,
}

/// A final response's head.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    reason: Option<Vec<u8>>,
    fields: HeaderMap,
    framing: AnswerFraming,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum End {
    /// All of it was received; `kept`: whether the connection can be reused.
    Whole {
        trailers: Option<HeaderMap>,
        kept: bool,
    },
    /// The protocol was switched; what the app has sent in the new one.
    Switched(Vec<u8>),
    /// The body was interrupted or is malformed.
    Broken(String),
    /// There is no response, because it is malformed.
    Refused(&'static str),
    /// The connection ended before a response.
    Gone,
    /// It waits for more.
    Waits,
}

/// Sends a request to an app that responds with this script.
pub(super) fn ask(method: &Method, app: Script, length: usize) -> Outcome {
    let mut seen = Outcome {
        head: None,
        body: Vec::new(),
        end: End::Waits,
    };
    let end = drive(length, listen(method, app, &mut seen));
    Outcome {
        end: end.unwrap_or(End::Waits),
        ..seen
    }
}

async fn listen(method: &Method, app: Script, seen: &mut Outcome) -> End {
    let connection = Box::new(Connection::new(Stream::Script(app)));
    let request = RequestHead {
        method,
        target: "/",
        fields: &Fields::default(),
    };
    let body = if method == Method::POST {
        Outgoing::Own(Bytes::from_static(b"hello"))
    } else {
        Outgoing::Empty
    };
    let mut exchange = Exchange::begin(connection, request, body);
    let is_head = method == Method::HEAD;
    let answer = exchange.answer(is_head, Instant::now(), Duration::from_secs(600));
    let mut head = match answer.await {
        Ok(head) => head,
        Err(Fault::Gone(_)) => return End::Gone,
        Err(Fault::Malformed(what)) => return End::Refused(what),
        Err(other @ (Fault::Late | Fault::Client(_))) => panic!("{other:?}"),
    };
    seen.head = Some(Head {
        status: head.status,
        reason: head.reason.as_ref().map(|words| words.as_bytes().to_vec()),
        fields: head.headers.clone(),
        framing: head.framing,
    });
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        let mut said = head.take_rest().to_vec();
        let Stream::Script(app) = exchange.into_stream() else {
            panic!("another stream");
        };
        said.append(&mut app.rest());
        return End::Switched(said);
    }
    let mut frames = AnswerFrames::new(exchange, &mut head);
    let mut trailers = None;
    let mut left = frames.size_hint().exact();
    while let Some(frame) = poll_fn(|cx| frames.poll_frame(cx)).await {
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(data)) => {
                assert!(!data.is_empty(), "hyper would wait for more");
                left = left.map(|left| left.checked_sub(data.len() as u64).unwrap());
                seen.body.extend_from_slice(&data);
            }
            Ok(Err(frame)) => trailers = frame.into_trailers().ok(),
            Err(error) => return End::Broken(error.to_string()),
        }
        assert_eq!(left, frames.size_hint().exact().filter(|_| left.is_some()));
    }
    assert!(
        matches!(left, None | Some(0)),
        "a body is all there or breaks"
    );
    let kept = frames.finish();
    End::Whole {
        trailers,
        kept: kept.is_some_and(|connection| connection.is_quiet()),
    }
}

/// An app sends these bytes, split according to the seed, and then closes or not. A deaf one reads no request.
#[track_caller]
pub(crate) fn answer_holds(method: &Method, bytes: &[u8], seed: u8, closes: bool, deaf: bool) {
    let app = |pieces| {
        let app = Script::new(pieces, closes);
        if deaf { app.deaf() } else { app }
    };
    let whole = ask(method, app(vec![bytes.to_vec()]), bytes.len());
    let pieced = ask(method, app(cut(bytes, seed)), bytes.len());
    assert_eq!(whole, pieced, "in pieces");
    let kept = matches!(whole.end, End::Whole { kept: true, .. });
    assert!(!kept || !closes && !deaf);
    if let End::Whole { trailers, .. } = &whole.end {
        let answer = Naive::read(bytes);
        let (body, length, strict) = answer.body(method);
        assert_eq!(whole.body, body);
        let before = bytes.len() - answer.behind.len();
        assert!(
            !kept || before + length == bytes.len(),
            "an answer is left over"
        );
        assert!(!kept || !said_goodbye(&answer));
        // Written in the strictest form, it is read by everyone in the same way.
        assert!(compare(method, &strict, &whole), "hyper does not take it");
        let chunked = |head: &Head| head.framing == AnswerFraming::Chunked;
        assert!(trailers.is_none() || whole.head.as_ref().is_some_and(chunked));
    }
    if closes && !deaf {
        compare(method, bytes, &whole);
    }
}

/// The final response's head, parsed naively.
struct Naive<'a> {
    line: &'a [u8],
    fields: Vec<(String, Vec<u8>)>,
    behind: &'a [u8],
}

/// Splits off a line, without its end.
fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let line = rest.get(..end)?;
    *rest = rest.get(end + 1..)?;
    Some(line.strip_suffix(b"\r").unwrap_or(line))
}

impl<'a> Naive<'a> {
    fn read(bytes: &'a [u8]) -> Self {
        let mut rest = bytes;
        loop {
            let mut first = line(&mut rest).expect("a status line");
            // Empty lines before a response are skipped.
            while first.is_empty() {
                first = line(&mut rest).expect("a status line");
            }
            let fields = fields(&mut rest).expect("a head");
            let status = first.get(9..12);
            if status == Some(b"101") || !first.get(9..).is_some_and(|it| it.starts_with(b"1")) {
                return Self {
                    line: first,
                    fields,
                    behind: rest,
                };
            }
        }
    }

    /// The items in all fields of a name.
    fn list(&self, name: &str) -> Vec<&[u8]> {
        let fields = self.fields.iter().filter(|field| field.0 == name);
        let items = fields.flat_map(|field| field.1.split(|byte| *byte == b','));
        items.map(<[u8]>::trim_ascii).collect()
    }

    /// The body, and the response in the strictest form.
    fn body(&self, method: &Method) -> (Vec<u8>, usize, Vec<u8>) {
        let codings = self.list("transfer-encoding");
        let lengths: Vec<u64> = self
            .list("content-length")
            .into_iter()
            .map(number)
            .collect();
        assert!(codings.is_empty() || lengths.is_empty(), "two framings");
        assert!(
            lengths.iter().all(|it| Some(it) == lengths.first()),
            "two lengths"
        );
        assert!(codings.iter().all(|it| it.eq_ignore_ascii_case(b"chunked")));
        let mut strict = [self.line, b"\r\n"].concat();
        for (name, value) in &self.fields {
            if name != "transfer-encoding" && name != "content-length" {
                strict.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
            }
        }
        let status = self.line.get(9..12);
        let bodiless = *method == Method::HEAD || matches!(status, Some(b"204" | b"304"));
        if let Some(length) = lengths.first() {
            strict.extend(format!("content-length: {length}\r\n").into_bytes());
        } else if !codings.is_empty() {
            strict.extend(b"transfer-encoding: chunked\r\n");
        }
        strict.extend(b"\r\n");
        if bodiless {
            return (Vec::new(), 0, strict);
        }
        if codings.is_empty() {
            let length = lengths.first().map_or(self.behind.len(), |length| {
                usize::try_from(*length).expect("a length")
            });
            let body = self.behind.get(..length).expect("a body").to_vec();
            strict.extend(&body);
            return (body, length, strict);
        }
        let mut rest = self.behind;
        let mut body = Vec::new();
        loop {
            let size = line(&mut rest).expect("a size");
            let digits = size
                .split(|byte| *byte == b';')
                .next()
                .unwrap()
                .trim_ascii();
            let size = u64::from_str_radix(std::str::from_utf8(digits).unwrap(), 16);
            let size = usize::try_from(size.expect("a size")).unwrap();
            strict.extend(format!("{size:x}\r\n").into_bytes());
            if size == 0 {
                break;
            }
            let data = rest.get(..size).expect("a chunk");
            rest = rest.get(size..).unwrap();
            body.extend(data);
            strict.extend([data, b"\r\n"].concat());
            assert!(line(&mut rest).expect("the end of a chunk").is_empty());
        }
        for (name, value) in fields(&mut rest).expect("trailers") {
            strict.extend([name.as_bytes(), b": ", &value, b"\r\n"].concat());
        }
        strict.extend(b"\r\n");
        (body, self.behind.len() - rest.len(), strict)
    }
}

/// The fields up to an empty line: a line that begins with a blank continues the one before it.
fn fields(rest: &mut &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let mut fields: Vec<(String, Vec<u8>)> = Vec::new();
    loop {
        let text = line(rest)?;
        if text.is_empty() {
            return Some(fields);
        }
        if text.starts_with(b" ") || text.starts_with(b"\t") {
            let last = &mut fields.last_mut()?.1;
            last.push(b' ');
            last.extend(text.trim_ascii());
        } else if !text.starts_with(b"HTTP/") {
            let mut parts = text.splitn(2, |byte| *byte == b':');
            let name = String::from_utf8(parts.next()?.trim_ascii_end().to_vec()).ok()?;
            let value = parts.next().unwrap_or_default().trim_ascii().to_vec();
            fields.push((name.to_ascii_lowercase(), value));
        }
    }
}

/// Whether the app says that it closes the connection, or implies it.
fn said_goodbye(answer: &Naive<'_>) -> bool {
    let options = answer.list("connection");
    let says = |word: &[u8]| options.iter().any(|it| it.eq_ignore_ascii_case(word));
    says(b"close") || answer.line.starts_with(b"HTTP/1.0") && !says(b"keep-alive")
}

/// Checks that hyper's client reads what is accepted here in the same way, or rejects it; returns which.
fn compare(method: &Method, bytes: &[u8], ours: &Outcome) -> bool {
    let Some(head) = &ours.head else { return false };
    let Some(theirs) = ask_hyper(method, Script::new([bytes.to_vec()], true), bytes.len()) else {
        return false;
    };
    assert_eq!(head.status, theirs.status);
    for name in head.fields.keys() {
        let [ours, theirs] = [&head.fields, &theirs.fields].map(|all| all.get_all(name));
        if name == header::CONTENT_LENGTH {
            let numbers = |values: header::GetAll<'_, http::HeaderValue>| {
                let lists: Vec<_> = values.iter().map(http::HeaderValue::as_bytes).collect();
                let items = lists.iter().flat_map(|it| it.split(|byte| *byte == b','));
                let mut items: Vec<u64> = items.map(|it| number(it.trim_ascii())).collect();
                items.dedup();
                items
            };
            assert_eq!(numbers(ours), numbers(theirs));
        } else {
            assert_eq!(ours, theirs, "{name}");
        }
    }
    match (&ours.end, theirs.body) {
        (End::Whole { trailers, .. }, Some((body, their_trailers))) => {
            assert_eq!(ours.body, body);
            assert_eq!(*trailers, their_trailers);
        }
        // hyper does not accept all chunk lines that are accepted from apps.
        (End::Whole { .. }, None) => return false,
        // hyper accepts some chunk lines that are rejected here.
        (End::Broken(what), Some(_)) => assert!(what.contains("malformed"), "{what}"),
        (End::Switched(_), _) | (End::Broken(_), None) => {}
        (End::Refused(_) | End::Gone | End::Waits, _) => panic!("a head without an end"),
    }
    true
}

/// A response as hyper's client reads it.
pub(super) struct Theirs {
    pub(super) status: StatusCode,
    fields: HeaderMap,
    /// Body and trailers; `None` if the body is broken.
    pub(super) body: Option<(Vec<u8>, Option<HeaderMap>)>,
}

/// The same with hyper's client; `None` if it rejects the response.
pub(super) fn ask_hyper(method: &Method, app: Script, length: usize) -> Option<Theirs> {
    let asked = async {
        let mut builder = hyper::client::conn::http1::Builder::new();
        let shaken = builder.max_headers(300).handshake(TokioIo::new(app)).await;
        let (mut sender, connection) = shaken.unwrap();
        let mut request = http::Request::new(Empty::<Bytes>::new());
        *request.method_mut() = method.clone();
        let answer = async {
            let answer = sender.send_request(request).await.ok()?;
            let (head, body) = answer.into_parts();
            let body = body.collect().await.ok().map(|collected| {
                let trailers = collected.trailers().cloned();
                (collected.to_bytes().to_vec(), trailers)
            });
            Some(Theirs {
                status: head.status,
                fields: head.headers,
                body,
            })
        };
        let driver = async {
            connection.await.ok();
            std::future::pending().await
        };
        tokio::select! {
            biased;
            theirs = answer => theirs,
            never = driver => never,
        }
    };
    drive(length, asked).flatten()
}
