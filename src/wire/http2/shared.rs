//! What the frames of one connection of HTTP/2, its streams, and the task that has them tell each other. All of it is used
//! by one thread alone; it is `Sync` only because the runtime asks for it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;

use http::{HeaderValue, Method};
use tokio::sync::Notify;

use super::blocks::Said;
use super::huffman;
use crate::clock;
use crate::net::limits::Bounds;
use crate::wire::Line;

/// How many bytes of responses may wait for the client, of all streams together.
const MOST_UNSENT: usize = 1 << 20;
/// How many requests have to have ended before their resets are judged.
const JUDGED_FROM: u32 = 200;
/// How many requests are remembered that were neither handed over nor refused: more than `h2` lets wait.
const MOST_OPENED: usize = 1024;

/// How many bytes of their paths are remembered before no more are.
const MOST_PATHS: usize = 64 * 1024;

/// What the task of a connection is to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum Word {
    /// Nothing in particular.
    GoOn,
    /// It was idle for long enough: end it so that no request is lost.
    Leave,
    /// It was given time to leave, and has not.
    Left,
    /// A frame, or a block of fields, was begun and did not become whole in time, or cannot be read.
    Late,
    /// Nothing was heard for long: ask whether the client is still there.
    Ask,
    /// It was asked, and has not answered.
    Gone,
    /// Most of its requests were given up before they were answered.
    Calm,
}

/// How a request that was never handed over was answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    /// It waits.
    Unknown,
    /// Its stream was reset.
    Reset,
    /// It got a head: 431, the only one that `h2` sends by itself.
    TooLarge,
}

/// A request whose head is here.
#[derive(Debug)]
struct Request {
    stream: u32,
    fate: Fate,
    method: Method,
    /// Whether its path has a fragment.
    fragment: bool,
    /// Where its path stands among the paths, and whether it is in Huffman's code there.
    path: (Range<usize>, bool),
}

/// Requests of which nothing has become yet, and their paths.
#[derive(Debug, Default)]
struct Opened {
    requests: VecDeque<Request>,
    paths: Vec<u8>,
}

impl Opened {
    /// The path of one of the requests.
    fn path_of(&self, request: &Request) -> Vec<u8> {
        let (place, coded) = &request.path;
        let written = self.paths.get(place.clone()).unwrap_or_default();
        let mut path = Vec::new();
        if !coded || !huffman::decode(written, &mut path) {
            path = written.to_vec();
        }
        path
    }

    /// The paths are forgotten when no request is left.
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
    pub(super) path: Vec<u8>,
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
    /// Bytes of responses that were taken from where they come from and not written yet.
    unsent: AtomicUsize,
    /// There may be room for more of them.
    room: Notify,
    ended: AtomicU32,
    given_up: AtomicU32,
    /// Requests whose heads are here and of which nothing has become yet, and how many.
    opened: Mutex<Opened>,
    waiting: AtomicUsize,
    /// Streams whose trailers are none, and how many.
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

    /// Tells the task of the connection what to do when it is polled next.
    pub(super) fn say(&self, word: Word) {
        self.word.store(word as u8, Ordering::Relaxed);
    }

    /// What the task was told, once.
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

    /// The connection is on its way to its end.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Whether it is.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// The task of the connection, which stays the same.
    pub(super) fn is_polled_by(&self, waker: &Waker) {
        if self.task.get().is_none() {
            drop(self.task.set(waker.clone()));
        }
    }

    /// A request has ended; or was given up, by the client or because of it, before its response's head was there.
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

    /// Whether more of a response may be taken from where it comes from.
    pub(super) fn has_room(&self) -> bool {
        self.unsent.load(Ordering::Relaxed) < MOST_UNSENT
    }

    /// Ready when there may be.
    pub(super) async fn room(&self) {
        self.room.notified().await;
        // The next one has a look, too.
        if self.has_room() {
            self.room.notify_one();
        }
    }

    /// So many bytes were taken.
    pub(super) fn take(&self, count: usize) {
        self.unsent.fetch_add(count, Ordering::Relaxed);
    }

    /// So many bytes were written, or will never be.
    pub(super) fn give(&self, count: usize) {
        let before = self.unsent.fetch_sub(count, Ordering::Relaxed);
        if before >= MOST_UNSENT && before.saturating_sub(count) < MOST_UNSENT {
            self.room.notify_one();
        }
    }

    /// The head of a request is here, and says this.
    pub(super) fn open(&self, stream: u32, said: &Said<'_>) {
        let mut opened = self.opened();
        if opened.requests.len() >= MOST_OPENED {
            opened.requests.pop_front();
        }
        let from = opened.paths.len();
        let coded = from < MOST_PATHS && said.append_path(&mut opened.paths);
        let path = (from..opened.paths.len(), coded);
        opened.requests.push_back(Request {
            stream,
            fate: Fate::Unknown,
            method: said.method.clone(),
            fragment: said.has_fragment(),
            path,
        });
        self.waiting.store(opened.requests.len(), Ordering::Relaxed);
    }

    /// A frame that answers a request was written. If it was never handed over, that is all that becomes of it.
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

    /// A request is handed over; gives its path if that has a fragment.
    pub(super) fn hand_over(&self, stream: u32) -> Option<Vec<u8>> {
        let mut opened = self.opened();
        let mut requests = opened.requests.iter();
        let at = requests.position(|request| request.stream == stream);
        let request = at.and_then(|at| opened.requests.remove(at));
        let request = request.filter(|request| request.fragment);
        let path = request.map(|request| opened.path_of(&request));
        self.waiting.store(opened.tidy(), Ordering::Relaxed);
        path
    }

    /// Takes out a request that was answered and not handed over, when all that wait to be were; or, at the end of the
    /// connection, any that is left.
    pub(super) fn refused(&self, at_the_end: bool) -> Option<Refused> {
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut opened = self.opened();
        let mut requests = opened.requests.iter();
        let at = requests.position(|request| at_the_end || request.fate != Fate::Unknown)?;
        let request = opened.requests.remove(at)?;
        let path = opened.path_of(&request);
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

    /// There are pseudo-header fields in the trailers of this stream (RFC 9113 section 8.1).
    pub(super) fn spoil_trailers(&self, stream: u32) {
        let mut spoilt = self.spoilt();
        if spoilt.len() >= MOST_OPENED {
            spoilt.remove(0);
        }
        spoilt.push(stream);
        self.spoilt_count.store(spoilt.len(), Ordering::Relaxed);
    }

    /// Whether there are.
    pub(super) fn has_spoilt_trailers(&self, stream: u32) -> bool {
        if self.spoilt_count.load(Ordering::Relaxed) == 0 {
            return false;
        }
        self.spoilt().contains(&stream)
    }

    fn spoilt(&self) -> MutexGuard<'_, Vec<u32>> {
        self.spoilt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of `Date` (RFC 9110 section 6.6.1) for the response whose head is there now. It is made, and the clock looked
    /// at, once a second.
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
