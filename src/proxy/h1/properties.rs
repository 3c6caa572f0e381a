//! What holds for whatever an app answers: the cuts make no difference, no body is longer or shorter
//! than its framing says, hyper's client reads the same, and a connection is used again only after
//! one whole answer and nothing else. For tests and `fuzz/`.

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
use crate::wire::properties::{dechunked, number, split_head, values};

/// What became of an exchange.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Outcome {
    /// The final answer's head.
    pub(super) head: Option<Head>,
    /// What came of the body.
    pub(super) body: Vec<u8>,
    pub(super) end: End,
}

/// A final answer's head.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    reason: Option<Vec<u8>>,
    fields: HeaderMap,
    framing: AnswerFraming,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum End {
    /// All of it came; whether the connection can be used again.
    Whole {
        trailers: Option<HeaderMap>,
        kept: bool,
    },
    /// The protocol is another one from here on; what the app has said in it.
    Switched(Vec<u8>),
    /// The body broke off or is malformed.
    Broken(String),
    /// There is no answer, as it is malformed.
    Refused(&'static str),
    /// The connection ended before an answer.
    Gone,
    /// More is waited for.
    Waits,
}

/// Sends a request to an app that answers so.
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
        target: &PathAndQuery::from_static("/"),
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

/// An app answers so, cut as the seed says, and then closes or not. A deaf one takes no request.
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
        let (body, length) = naive(method, bytes);
        assert_eq!(whole.body, body);
        assert!(!kept || length == bytes.len(), "an answer is left over");
        assert!(!kept || !said_goodbye(bytes));
        let chunked = |head: &Head| head.framing == AnswerFraming::Chunked;
        assert!(trailers.is_none() || whole.head.as_ref().is_some_and(chunked));
    }
    if closes && !deaf {
        compare(method, bytes, &whole);
    }
}

/// The head of the final answer and what is behind it, read naively.
fn final_answer(bytes: &[u8]) -> (&[u8], &[u8]) {
    let mut rest = bytes;
    loop {
        // Empty lines before an answer are passed over.
        while let Some(behind) = rest.strip_prefix(b"\r\n") {
            rest = behind;
        }
        let (head, behind) = split_head(rest).expect("a head");
        let status = head.get(9..12);
        if status == Some(b"101") || !head.get(9..).is_some_and(|from| from.starts_with(b"1")) {
            return (head, behind);
        }
        rest = behind;
    }
}

/// The body of the answer, and the length of all that belongs to it and to those before it.
fn naive(method: &Method, bytes: &[u8]) -> (Vec<u8>, usize) {
    let (head, behind) = final_answer(bytes);
    let before = bytes.len() - behind.len();
    let codings = values(head, "transfer-encoding");
    let lengths = values(head, "content-length");
    assert!(codings.len() + lengths.len() <= 1, "framed in two ways");
    let bodiless = method == Method::HEAD || matches!(head.get(9..12), Some(b"204" | b"304"));
    let (body, length) = if bodiless {
        (Vec::new(), 0)
    } else if codings.is_empty() {
        let length = lengths.first().map_or(behind.len(), |digits| {
            usize::try_from(number(digits)).expect("a length")
        });
        (behind.get(..length).expect("a body").to_vec(), length)
    } else {
        assert!(
            codings
                .iter()
                .all(|coding| coding.eq_ignore_ascii_case(b"chunked"))
        );
        dechunked(behind).expect("a chunked body")
    };
    (body, before + length)
}

/// Whether the app says that it closes, or leaves it to be understood.
fn said_goodbye(bytes: &[u8]) -> bool {
    let (head, _) = final_answer(bytes);
    let options = values(head, "connection");
    let says = |word: &[u8]| {
        let mut options = options
            .iter()
            .flat_map(|line| line.split(|byte| *byte == b','));
        options.any(|option| option.trim_ascii().eq_ignore_ascii_case(word))
    };
    says(b"close") || head.starts_with(b"HTTP/1.0") && !says(b"keep-alive")
}

/// hyper's client reads what is taken here in the same way, or does not take it.
fn compare(method: &Method, bytes: &[u8], ours: &Outcome) {
    let Some(head) = &ours.head else { return };
    let Some(theirs) = ask_hyper(method, Script::new([bytes.to_vec()], true), bytes.len()) else {
        return;
    };
    assert_eq!(head.status, theirs.status);
    for name in head.fields.keys() {
        let [ours, theirs] = [&head.fields, &theirs.fields].map(|all| all.get_all(name));
        if name == header::CONTENT_LENGTH {
            let number = |values: header::GetAll<'_, _>| {
                let values: Vec<&http::HeaderValue> = values.iter().collect();
                values
                    .iter()
                    .map(|value| number(value.as_bytes()))
                    .collect::<Vec<_>>()
            };
            assert_eq!(number(ours), number(theirs));
        } else {
            assert_eq!(ours, theirs, "{name}");
        }
    }
    match (&ours.end, theirs.body) {
        (End::Whole { trailers, .. }, Some((body, their_trailers))) => {
            assert_eq!(ours.body, body);
            assert_eq!(*trailers, their_trailers);
        }
        (End::Whole { .. }, None) => panic!("hyper finds the body broken"),
        // hyper takes some lines of chunks that are refused here.
        (End::Broken(what), Some(_)) => assert!(what.contains("malformed"), "{what}"),
        (End::Switched(_), _) | (End::Broken(_), None) => {}
        (End::Refused(_) | End::Gone | End::Waits, _) => panic!("a head without an end"),
    }
}

/// What hyper's client makes of an answer.
pub(super) struct Theirs {
    pub(super) status: StatusCode,
    fields: HeaderMap,
    /// Body and trailers; `None` where it is broken.
    pub(super) body: Option<(Vec<u8>, Option<HeaderMap>)>,
}

/// The same with hyper's client; `None` where it refuses the answer.
pub(super) fn ask_hyper(method: &Method, app: Script, length: usize) -> Option<Theirs> {
    let asked = async {
        let shaken = hyper::client::conn::http1::handshake(TokioIo::new(app)).await;
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
