//! The state shared between the frames, the streams and the task of one HTTP/2 connection. Only one thread uses it; it
//! is `Sync` only because the runtime requires it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;

use bytes::Bytes;
use http::{HeaderValue, Method};
use tokio::sync::Notify;

use super::blocks::Said;
use super::huffman;
use crate::clock;
use crate::net::limits::Bounds;
use crate::wire::Line;

/// How many bytes of responses, of all streams together, may wait for the client.
const MOST_UNSENT: usize = 1 << 20;
/// How many requests must have ended before the share of resets is checked.
const JUDGED_FROM: u32 = 200;
/// How many requests are remembered that were neither handed over nor rejected: more than `h2` keeps waiting.
const MOST_OPENED: usize = 1024;

/// The most bytes of their paths that are remembered.
const MOST_PATHS: usize = 64 * 1024;
/// How many of the paths that `h2` does not report are remembered, where each is as long as a target may be: as many as
/// there may be streams.
const MOST_OWN: usize = super::MAX_STREAMS as usize;

/// A message to the connection's task.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum Word {
    /// Nothing in particular.
    GoOn,
    /// It was idle for long enough: end it so that no request is lost.
    Leave,
    /// It was told to leave, and has not in time.
    Left,
    /// A frame or field block was not completed in time, or cannot be parsed.
    Late,
    /// Nothing was received for long: send a ping to check whether the client is still there.
    Ask,
    /// The ping was not answered.
    Gone,
    /// Most of its requests were cancelled before they were answered.
    Calm,
}

/// How a request was answered that was never handed over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    /// It is waiting.
    Unknown,
    /// Its stream was reset.
    Reset,
    /// It got a head: 431, the only one that `h2` sends by itself.
    TooLarge,
}

/// A request whose head has been received.
#[derive(Debug)]
struct Request {
    stream: u32,
    fate: Fate,
    method: Method,
    path: Place,
}

/// Where the path of a request is.
#[derive(Debug)]
enum Place {
    /// In the buffer of paths, and whether it is Huffman-coded there.
    Buffered(Range<usize>, bool),
    /// Here, because `h2` reports another one.
    Own(Bytes),
}

/// The path of a request that is handed over.
#[derive(Debug)]
pub(super) enum Path {
    /// As `h2` reports it.
    Reported,
    /// This one; cut if it is longer than a target may be.
    Own(Bytes),
    /// Too many requests are waiting.
    Forgotten,
}

/// Requests that are waiting, and their paths.
#[derive(Debug, Default)]
struct Opened {
    requests: VecDeque<Request>,
    paths: Vec<u8>,
    /// The bytes of paths that are not in the buffer.
    own_bytes: usize,
}

impl Opened {
    /// Removes the first request that matches.
    fn remove(&mut self, matches: impl FnMut(&Request) -> bool) -> Option<Request> {
        let at = self.requests.iter().position(matches)?;
        let request = self.requests.remove(at)?;
        if let Place::Own(path) = &request.path {
            self.own_bytes -= path.len();
        }
        Some(request)
    }

    /// The path in this place.
    fn path_at(&self, place: &Place) -> Bytes {
        let (place, coded) = match place {
            Place::Buffered(place, coded) => (place.clone(), *coded),
            Place::Own(path) => return path.clone(),
        };
        let written = self.paths.get(place).unwrap_or_default();
        let mut path = Vec::new();
        if !coded || huffman::decode(written, &mut path).is_none() {
            path = written.to_vec();
        }
        path.into()
    }

    /// Clears the paths when no request is left.
    fn tidy(&mut self) -> usize {
        if self.requests.is_empty() {
            self.paths.clear();
        }
        self.requests.len()
    }
}

/// A request that was never handed over, as far as it is known.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) fate: Fate,
    pub(super) method: Method,
    pub(super) path: Bytes,
}

/// The state of one connection.
#[derive(Debug)]
pub(in crate::wire) struct Shared {
    pub(super) line: Arc<Line>,
    pub(super) bounds: Arc<Bounds>,
    word: AtomicU8,
    leaving: AtomicBool,
    /// Wakes the task of the connection.
    task: OnceLock<Waker>,
    /// Bytes of responses that were taken from their bodies and not written yet.
    unsent: AtomicUsize,
    /// Notifies that there may be room for more.
    room: Notify,
    ended: AtomicU32,
    given_up: AtomicU32,
    /// Requests whose heads have been received and that are waiting, and how many.
    opened: Mutex<Opened>,
    waiting: AtomicUsize,
    /// Streams with invalid trailers, and how many.
    spoilt: Mutex<Vec<u32>>,
    spoilt_count: AtomicUsize,
    date: Mutex<(u64, Option<HeaderValue>)>,
}

impl Shared {
    /// The state of a connection that begins now.
    pub(in crate::wire) fn new(line: Arc<Line>, bounds: Arc<Bounds>) -> Self {
        Self {
            line,
            bounds,
            word: AtomicU8::new(Word::GoOn as u8),
            leaving: AtomicBool::new(false),
            task: OnceLock::new(),
            unsent: AtomicUsize::new(0),
            room: Notify::new(),
            ended: AtomicU32::new(0),
            given_up: AtomicU32::new(0),
            opened: Mutex::default(),
            waiting: AtomicUsize::new(0),
            spoilt: Mutex::default(),
            spoilt_count: AtomicUsize::new(0),
            date: Mutex::default(),
        }
    }

    /// Tells the connection's task what to do when it is next polled.
    pub(super) fn say(&self, word: Word) {
        self.word.store(word as u8, Ordering::Relaxed);
    }

    /// The message to the task, cleared by reading it.
    pub(super) fn heard(&self) -> Word {
        let word = self.word.load(Ordering::Relaxed);
        if word == Word::GoOn as u8 {
            return Word::GoOn;
        }
        self.say(Word::GoOn);
        [
            Word::Leave,
            Word::Left,
            Word::Late,
            Word::Ask,
            Word::Gone,
            Word::Calm,
        ]
        .into_iter()
        .find(|known| *known as u8 == word)
        .unwrap_or(Word::GoOn)
    }

    /// The connection is shutting down.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Whether it is.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Registers the task of the connection, which stays the same.
    pub(super) fn is_polled_by(&self, waker: &Waker) {
        if self.task.get().is_none() {
            drop(self.task.set(waker.clone()));
        }
    }

    /// A request has ended; `given_up`: cancelled, by the client or because of it, before the response head was ready.
    pub(super) fn end(&self, given_up: bool) {
        let ended = self.ended.load(Ordering::Relaxed).saturating_add(1);
        self.ended.store(ended, Ordering::Relaxed);
        if !given_up {
            return;
        }
        let given_up = self.given_up.load(Ordering::Relaxed).saturating_add(1);
        self.given_up.store(given_up, Ordering::Relaxed);
        if ended >= JUDGED_FROM && given_up > ended / 2 {
            self.say(Word::Calm);
            if let Some(task) = self.task.get() {
                task.wake_by_ref();
            }
        }
    }

    /// Whether more of a response may be taken from its body.
    pub(super) fn has_room(&self) -> bool {
        self.unsent.load(Ordering::Relaxed) < MOST_UNSENT
    }

    /// Ready when there may be room.
    pub(super) async fn room(&self) {
        self.room.notified().await;
        // The next waiter checks, too.
        if self.has_room() {
            self.room.notify_one();
        }
    }

    /// This many bytes were taken.
    pub(super) fn take(&self, count: usize) {
        self.unsent.fetch_add(count, Ordering::Relaxed);
    }

    /// This many bytes were written, or will never be.
    pub(super) fn give(&self, count: usize) {
        let before = self.unsent.fetch_sub(count, Ordering::Relaxed);
        if before >= MOST_UNSENT && before.saturating_sub(count) < MOST_UNSENT {
            self.room.notify_one();
        }
    }

    /// The head of a request has been received, with this content. Returns whether it is remembered.
    pub(super) fn open(&self, stream: u32, said: &Said<'_>) -> bool {
        let mut opened = self.opened();
        if opened.requests.len() >= MOST_OPENED {
            return false;
        }
        let path = if let Some(path) = said.own_path() {
            let longest = self.bounds.limits.uri_bytes.saturating_add(1);
            let path = match path.get(..longest) {
                Some(begin) if begin.len() < path.len() => Bytes::copy_from_slice(begin),
                _ => path.clone(),
            };
            if opened.own_bytes + path.len() > longest.saturating_mul(MOST_OWN) {
                return false;
            }
            opened.own_bytes += path.len();
            Place::Own(path)
        } else {
            let from = opened.paths.len();
            let coded = from < MOST_PATHS && said.append_path(&mut opened.paths);
            Place::Buffered(from..opened.paths.len(), coded)
        };
        opened.requests.push_back(Request {
            stream,
            fate: Fate::Unknown,
            method: said.method.clone(),
            path,
        });
        self.waiting.store(opened.requests.len(), Ordering::Relaxed);
        true
    }

    /// A frame that answers a request was written. If the request was never handed over, this is its only outcome.
    pub(super) fn answered(&self, stream: u32, fate: Fate) {
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        for request in &mut self.opened().requests {
            if request.stream == stream && request.fate == Fate::Unknown {
                request.fate = fate;
            }
        }
    }

    /// A request is handed over; returns its path.
    pub(super) fn hand_over(&self, stream: u32) -> Path {
        let mut opened = self.opened();
        let request = opened.remove(|request| request.stream == stream);
        self.waiting.store(opened.tidy(), Ordering::Relaxed);
        match request.map(|request| request.path) {
            Some(Place::Buffered(..)) => Path::Reported,
            Some(Place::Own(path)) => Path::Own(path),
            None => Path::Forgotten,
        }
    }

    /// Removes a request that was answered and not handed over, once all waiting ones were; at the end of the
    /// connection, any that is left.
    pub(super) fn refused(&self, at_the_end: bool) -> Option<Refused> {
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut opened = self.opened();
        let request = opened.remove(|request| at_the_end || request.fate != Fate::Unknown)?;
        let path = opened.path_at(&request.path);
        self.waiting.store(opened.tidy(), Ordering::Relaxed);
        Some(Refused {
            fate: request.fate,
            method: request.method,
            path,
        })
    }

    fn opened(&self) -> MutexGuard<'_, Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The trailers of this stream contain pseudo-header fields (RFC 9113 section 8.1).
    pub(super) fn spoil_trailers(&self, stream: u32) {
        let mut spoilt = self.spoilt();
        if spoilt.len() >= MOST_OPENED {
            spoilt.remove(0);
        }
        spoilt.push(stream);
        self.spoilt_count.store(spoilt.len(), Ordering::Relaxed);
    }

    /// Whether they do.
    pub(super) fn has_spoilt_trailers(&self, stream: u32) -> bool {
        if self.spoilt_count.load(Ordering::Relaxed) == 0 {
            return false;
        }
        self.spoilt().contains(&stream)
    }

    fn spoilt(&self) -> MutexGuard<'_, Vec<u32>> {
        self.spoilt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of `Date` (RFC 9110 section 6.6.1) for the response whose head is ready now. It is formatted, and the
    /// clock read, once a second.
    pub(super) fn date(&self) -> Option<HeaderValue> {
        let at = self.line.answering();
        let mut date = self.date.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, value) = &mut *date;
        if at >= *until || value.is_none() {
            let now = clock::now();
            let (_, millis) = clock::since_epoch(now);
            *until = at + 1000 - u64::from(millis);
            *value = HeaderValue::try_from(httpdate::fmt_http_date(now)).ok();
        }
        value.clone()
    }
}
