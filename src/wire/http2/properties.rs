//! Properties that hold for whatever an HTTP/2 client sends: client, gateway and `h2` have the same dynamic table after
//! each field block, and each request is heard once, as it was sent. For tests and `fuzz/`.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "whatever does not hold stops the test"
)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;

use bytes::BytesMut;
use http::{Request, Response};

use super::*;
use crate::script::{Script, cut};
use crate::wire::properties::{LIMITS, bounds};
use crate::wire::{PREFACE, verbatim_query};

/// Decisions, taken from any bytes; zeros when there are none left.
struct Choices<'c>(&'c [u8]);

impl Choices<'_> {
    fn below(&mut self, count: usize) -> usize {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        usize::from(*first) % count
    }

    /// Once in so many times.
    fn once_in(&mut self, count: usize) -> bool {
        self.below(count) == count - 1
    }

    fn text(&mut self, alphabet: &[u8], longest: usize) -> Vec<u8> {
        let length = self.below(longest + 1);
        (0..length)
            .map(|_| alphabet[self.below(alphabet.len())])
            .collect()
    }
}

/// Some entries of the static table (RFC 7541 appendix A).
const STATIC: [(usize, &[u8], &[u8]); 8] = [
    (2, b":method", b"GET"),
    (3, b":method", b"POST"),
    (4, b":path", b"/"),
    (5, b":path", b"/index.html"),
    (6, b":scheme", b"http"),
    (1, b":authority", b""),
    (19, b"accept", b""),
    (58, b"user-agent", b""),
];

/// The side of a client.
struct Client<'c> {
    choices: Choices<'c>,
    /// Its dynamic table, the newest entry first.
    table: VecDeque<(Vec<u8>, Vec<u8>)>,
    most: usize,
    paths: Vec<Vec<u8>>,
    sent: Vec<u8>,
}

impl Client<'_> {
    /// Removes what the table has no room for (section 4).
    fn evict(&mut self) {
        let size = |(name, value): &(Vec<u8>, Vec<u8>)| name.len() + value.len() + 32;
        while self.table.iter().map(size).sum::<usize>() > self.most {
            self.table.pop_back();
        }
    }

    fn resize(&mut self, block: &mut Vec<u8>) {
        // Small ones are full soon.
        self.most = [2, 2, 2, 16][self.choices.below(4)] * self.choices.below(256);
        number(block, 0x20, 5, self.most);
        self.evict();
    }

    fn text(&mut self, block: &mut Vec<u8>, text: &[u8]) {
        if self.choices.below(2) == 0 {
            let coded = huffman::coded(text);
            number(block, 0x80, 7, coded.len());
            block.extend(coded);
        } else {
            number(block, 0, 7, text.len());
            block.extend_from_slice(text);
        }
    }

    /// Writes a field in any of its forms (section 6).
    fn field(&mut self, block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
        let entries = self.table.iter().enumerate();
        let known = entries.map(|(at, (name, value))| (at + 62, name.as_slice(), value.as_slice()));
        let known: Vec<_> = STATIC.into_iter().chain(known).collect();
        let same = known
            .iter()
            .rfind(|entry| (entry.1, entry.2) == (name, value));
        if let Some((index, ..)) = same
            && self.choices.below(4) > 0
        {
            number(block, 0x80, 7, *index);
            return;
        }
        let named: Vec<usize> = known
            .iter()
            .filter(|entry| entry.1 == name)
            .map(|entry| entry.0)
            .collect();
        let index = match self.choices.below(named.len() + 1) {
            0 => 0,
            at => named[at - 1],
        };
        let form = self.choices.below(3);
        let (first, bits) = [(0x40, 6), (0, 4), (0x10, 4)][form];
        number(block, first, bits, index);
        if index == 0 {
            self.text(block, name);
        }
        self.text(block, value);
        if form == 0 {
            self.table.push_front((name.to_vec(), value.to_vec()));
            self.evict();
        }
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("a short frame");
        self.sent.extend_from_slice(&length.to_be_bytes()[1..]);
        self.sent.extend([kind, flags]);
        self.sent.extend(stream.to_be_bytes());
        self.sent.extend_from_slice(payload);
    }

    /// Sends a block in so many frames at most (RFC 9113 section 6.2).
    fn block(&mut self, stream: u32, ends_stream: bool, mut block: &[u8], frames: usize) {
        let (mut kind, mut flags) = (1, u8::from(ends_stream));
        for left in (0..frames).rev() {
            let count = match left {
                0 => block.len(),
                _ => self.choices.below(block.len() + 1),
            };
            let (fields, rest) = block.split_at(count);
            block = rest;
            let mut payload = Vec::new();
            let mut padding = 0;
            if kind == 1 && self.choices.once_in(4) {
                flags |= 0x8;
                padding = self.choices.below(20);
                payload.push(u8::try_from(padding).expect("little padding"));
            }
            if kind == 1 && self.choices.once_in(4) {
                flags |= 0x20;
                payload.extend([0, 0, 0, 0, 15]);
            }
            payload.extend_from_slice(fields);
            payload.resize(payload.len() + padding, 0);
            let ends_block = left == 0 || block.is_empty();
            self.frame(
                kind,
                flags | if ends_block { 0x4 } else { 0 },
                stream,
                &payload,
            );
            if ends_block {
                return;
            }
            (kind, flags) = (9, 0);
        }
    }

    /// A path, and whether the wire takes it.
    fn path(&mut self) -> (Vec<u8>, bool) {
        const PATH: &[u8] = b"az09/._~%!$&'()*+,;=:@[]\\^|{}\"";
        const QUERY: &[u8] = b"\"<>\"<>\"<>az09?/._~%!$&'()*+,;=:@[]\\^|{}`-";
        let path = if self.paths.is_empty() || self.choices.below(3) == 0 {
            let mut path = vec![b'/'];
            path.extend(self.choices.text(PATH, 12));
            if self.choices.below(5) > 0 {
                path.push(b'?');
                let longest = [8, 40, 250][self.choices.below(3)];
                path.extend(self.choices.text(QUERY, longest));
            }
            if self.choices.once_in(6) {
                let bad: [&[u8]; 5] = [b"#", b" ", "\u{e9}".as_bytes(), b"\x7f", b"\x01"];
                let at = 1 + self.choices.below(path.len());
                let bad = bad[self.choices.below(5)];
                path.splice(at..at, bad.iter().copied());
            }
            if self.choices.once_in(9) {
                path.insert(1, b"<>`"[self.choices.below(3)]);
            }
            self.paths.push(path.clone());
            path
        } else {
            let at = self.choices.below(self.paths.len());
            self.paths[at].clone()
        };
        let end = path.iter().position(|byte| *byte == b'?');
        let own_path = &path[..end.unwrap_or(path.len())];
        let good = target::is_plain(&path)
            && path.len() <= LIMITS.uri_bytes
            && !own_path.iter().any(|byte| b"<>`".contains(byte));
        (path, good)
    }

    /// Sends a request; returns it, and whether the wire takes it.
    fn request(&mut self, at: usize) -> (Heard, bool) {
        let stream = u32::try_from(2 * at + 1).expect("few requests");
        let mut block = Vec::new();
        if self.choices.once_in(8) {
            self.resize(&mut block);
        }
        let (path, mut good) = self.path();
        let has_body = self.choices.once_in(4);
        let id = at.to_string();
        let mut fields: Vec<(&str, Vec<u8>)> = vec![
            (
                ":method",
                if has_body { &b"POST"[..] } else { b"GET" }.to_vec(),
            ),
            (":scheme", b"http".to_vec()),
            (":authority", b"h".to_vec()),
            (":path", path.clone()),
            ("x-id", id.into_bytes()),
        ];
        let list = self.choices.below(4);
        let is_malformed = self.choices.once_in(40);
        fields.rotate_left(if is_malformed { 4 } else { 0 });
        good &= !is_malformed;
        for _ in 0..list {
            let name = ["accept", "user-agent", "x-a", "x-b"][self.choices.below(4)];
            let longest = if self.choices.once_in(8) { 255 } else { 12 };
            fields.push((name, self.choices.text(b"ab", longest)));
        }
        for (name, value) in &fields {
            self.field(&mut block, name.as_bytes(), value);
        }
        let size = |(name, value): &(&str, Vec<u8>)| name.len() + value.len() + 32;
        good &= fields.iter().map(size).sum::<usize>() < LIMITS.header_bytes;
        // `h2` ends the connection if more frames of a block follow one that is malformed.
        let frames = if !is_malformed && self.choices.once_in(3) {
            6
        } else {
            1
        };
        self.block(stream, !has_body, &block, frames);
        if has_body {
            self.frame(0, 0, stream, b"body");
            let mut block = Vec::new();
            if self.choices.once_in(3) {
                let (path, _) = self.path();
                self.field(&mut block, b":path", &path);
            }
            self.field(&mut block, b"x-trailer", b"1");
            self.block(stream, true, &block, 2);
        }
        let mut heard = Heard {
            target: String::from_utf8_lossy(&path).into_owned(),
            ..Heard::default()
        };
        for (name, value) in fields.iter().filter(|(name, _)| !name.starts_with(':')) {
            heard.add(name, value);
        }
        (heard, good)
    }
}

/// An integer (RFC 7541 section 5.1).
fn number(block: &mut Vec<u8>, first: u8, bits: u32, value: usize) {
    let byte = |value: usize| u8::try_from(value).expect("a byte");
    let most = (1 << bits) - 1;
    if value < most {
        block.push(first | byte(value));
        return;
    }
    block.push(first | byte(most));
    let mut rest = value - most;
    while rest >= 128 {
        block.push(0x80 | byte(rest % 128));
        rest /= 128;
    }
    block.push(byte(rest));
}

/// A request as it was sent or heard.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Heard {
    target: String,
    /// Whether its target is another one than that of its `Uri`.
    is_verbatim: bool,
    /// Names and values, sorted.
    fields: String,
}

impl Heard {
    fn add(&mut self, name: &str, value: &[u8]) {
        writeln!(self.fields, "{name}: {}", value.escape_ascii()).expect("a string");
    }

    fn of<B>(request: &Request<B>) -> Self {
        let uri = request.uri();
        let target = uri.path_and_query().map_or("", |target| target.as_str());
        let mut heard = Self {
            target: target.to_owned(),
            is_verbatim: false,
            fields: String::new(),
        };
        if let Some(query) = verbatim_query(request) {
            heard.target = format!("{}?{query}", uri.path());
            heard.is_verbatim = true;
        }
        for (name, value) in request.headers() {
            heard.add(name.as_str(), value.as_bytes());
        }
        heard
    }

    /// The same, with its fields in order.
    fn sorted(mut self) -> Self {
        let mut lines: Vec<&str> = self.fields.lines().collect();
        lines.sort_unstable();
        self.fields = lines.join("\n");
        self
    }
}

/// Polls a future, and what it spawns, until these pieces must have been read.
fn run(pieces: usize, future: impl Future) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let mut future = pin!(future);
        for _ in 0..4 * pieces + 100 {
            let polled = std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx)));
            if polled.await.is_ready() {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
}

/// The requests that we hear from these pieces, and why they are rejected.
fn heard(held: &[u8], pieces: Vec<Vec<u8>>) -> Vec<(Heard, Option<Reject>)> {
    let heard = RefCell::new(Vec::new());
    let answer = |request: Box<Request<Body>>, refusal| {
        heard
            .borrow_mut()
            .push((Heard::of(&request).sorted(), refusal));
        std::future::ready(Ok::<_, Infallible>(Response::new(Body::Empty)))
    };
    let held = BytesMut::from(held);
    let line = Arc::new(Line::new());
    let count = pieces.len();
    let served = Http2::new(Script::new(pieces, false), held, line, bounds(), answer);
    // Whether the connection ends in an error is not of interest.
    run(count, served);
    heard.into_inner()
}

/// Those that `h2` alone hears, byte by byte, so that an error does not hide those before it.
fn heard_by_h2(bytes: &[u8]) -> Vec<Heard> {
    let mut heard = Vec::new();
    let script = Script::new(cut(bytes, 0), false);
    run(bytes.len(), async {
        let handshake = Builder::new()
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(u32::try_from(LIMITS.header_bytes).expect("small limits"))
            .initial_window_size(WINDOW)
            .handshake::<_, bytes::Bytes>(script);
        let Ok(mut connection) = handshake.await else {
            return;
        };
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            heard.push(Heard::of(&request).sorted());
            respond.send_response(Response::new(()), true).ok();
        }
    });
    heard
}

/// Requests that these decisions make of all forms of fields and frames are heard as they were sent, and those that
/// HTTP/1.1 would reject are rejected. If one of their bytes is wrong, nothing is heard that `h2` alone would not hear,
/// except queries that it does not take.
pub(crate) fn client_holds(choices: &[u8]) {
    let mut client = Client {
        choices: Choices(choices),
        table: VecDeque::new(),
        most: 4096,
        paths: Vec::new(),
        sent: [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat(),
    };
    let seed = u8::try_from(client.choices.below(256)).expect("a byte");
    let held = client.choices.below(256);
    let wrong = client.choices.once_in(2).then(|| client.choices.below(256));
    let count = 1 + client.choices.below(30);
    let mut sent = Vec::new();
    for at in 0..count {
        if client.choices.once_in(8) {
            client.frame(6, 0, 0, b"01234567");
        }
        let (heard, good) = client.request(at);
        sent.push((heard.sorted(), good));
    }
    let mut bytes = client.sent;
    let begin = PREFACE.len() + 9;
    if let Some(wrong) = wrong {
        let at = begin + (wrong * 7 + held) % (bytes.len() - begin);
        bytes[at] ^= 1 << (seed % 8);
    }
    // The first bytes were read before it was clear that the connection is HTTP/2.
    let (first, rest) = bytes.split_at(held.min(bytes.len()));
    let ours = heard(first, cut(rest, seed));
    if wrong.is_some() {
        let theirs = heard_by_h2(&bytes);
        for (heard, refusal) in &ours {
            let known = refusal.is_some() || heard.is_verbatim || theirs.contains(heard);
            assert!(known, "{heard:?} in {theirs:?}");
        }
        return;
    }
    assert_eq!(
        ours.len(),
        sent.len(),
        "each is heard once: {ours:?} {sent:?}"
    );
    for (request, good) in &sent {
        let found = ours.iter().any(|(heard, refusal)| {
            refusal.is_none()
                && (&heard.target, &heard.fields) == (&request.target, &request.fields)
        });
        assert_eq!(found, *good, "{request:?} in {ours:?}");
    }
}
