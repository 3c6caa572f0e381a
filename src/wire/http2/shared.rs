//! What the frames of one connection of HTTP/2, its streams, and the task that has them tell each other. All of it is used
//! by one thread alone; it is `Sync` only because the runtime asks for it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;

use http::HeaderValue;
use tokio::sync::Notify;

use crate::clock;
use crate::limits::Bounds;
use crate::wire::Line;

/// How many bytes of answers may wait for the client, of all streams together.
const MOST_UNSENT: usize = 1 << 20;
/// How many requests have to have ended before their resets are judged.
const JUDGED_FROM: u32 = 200;
/// How many requests are remembered that were neither handed over nor refused: more than `h2` lets wait.
const MOST_OPENED: usize = 1024;

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
    /// A frame, or a block of fields, was begun and did not become whole in time.
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

/// The state of one connection.
#[derive(Debug)]
pub(in crate::wire) struct Shared {
    pub(super) line: Arc<Line>,
    pub(super) bounds: Arc<Bounds>,
    word: AtomicU8,
    leaving: AtomicBool,
    /// Wakes the task of the connection.
    task: OnceLock<Waker>,
    /// Bytes of answers that were taken from where they come from and not written yet.
    unsent: AtomicUsize,
    /// There may be room for more of them.
    room: Notify,
    ended: AtomicU32,
    given_up: AtomicU32,
    /// Requests whose heads are here and of which nothing has become yet, and how many.
    opened: Mutex<VecDeque<(u32, Fate)>>,
    waiting: AtomicUsize,
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

    /// A request has ended; or was given up, by the client or because of it, before its answer's head was there.
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

    /// Whether more of an answer may be taken from where it comes from.
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

    /// The head of a request is here.
    pub(super) fn open(&self, stream: u32) {
        let mut opened = self.opened();
        if opened.len() >= MOST_OPENED {
            opened.pop_front();
        }
        opened.push_back((stream, Fate::Unknown));
        self.waiting.store(opened.len(), Ordering::Relaxed);
    }

    /// A frame that answers a request was written. If it was never handed over, that is all that becomes of it.
    pub(super) fn answered(&self, stream: u32, fate: Fate) {
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        for (known, known_fate) in self.opened().iter_mut() {
            if *known == stream && *known_fate == Fate::Unknown {
                *known_fate = fate;
            }
        }
    }

    /// A request is handed over.
    pub(super) fn hand_over(&self, stream: u32) {
        let mut opened = self.opened();
        if opened.front().is_some_and(|(first, _)| *first == stream) {
            opened.pop_front();
        } else {
            opened.retain(|(known, _)| *known != stream);
        }
        self.waiting.store(opened.len(), Ordering::Relaxed);
    }

    /// Takes out a request that was answered and not handed over, when all that wait to be were; or, at the end of the
    /// connection, any that is left.
    pub(super) fn refused(&self, at_the_end: bool) -> Option<Fate> {
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut opened = self.opened();
        let at = opened
            .iter()
            .position(|(_, fate)| at_the_end || *fate != Fate::Unknown)?;
        let (_, fate) = opened.remove(at)?;
        self.waiting.store(opened.len(), Ordering::Relaxed);
        Some(fate)
    }

    fn opened(&self) -> MutexGuard<'_, VecDeque<(u32, Fate)>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of `Date` (RFC 9110 section 6.6.1) for the answer whose head is there now. It is made, and the clock looked
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
