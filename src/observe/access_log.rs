//! The access log: one record per request, written when the response body ends, breaks off, or the client leaves.
//! Workers format into their own buffers; one thread writes them out in batches. A slow reader loses lines, which are
//! counted, and never delays requests. Queries are not logged: they may contain tokens.

mod line;
mod sink;
mod told;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) use self::line::Entry;
use self::line::Stamp;
use self::sink::Sink;
use self::told::{Told, Trouble};

/// How long lines are collected before they are written.
const BATCH: Duration = Duration::from_millis(100);
/// A worker's recent lines are appended to its batch at this size.
const NEAR: usize = 8 << 10;
/// A batch of this size wakes the writer.
const FULL: usize = 256 << 10;
/// A batch of this size accepts no more lines.
const OVERFULL: usize = 4 << 20;

/// Where records are written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Destination {
    /// The standard output.
    Stdout,
    /// The standard error.
    Stderr,
    /// A file, created if missing, reopened after it was moved away.
    File(PathBuf),
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::Stderr => f.write_str("stderr"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// The format of records.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Format {
    /// One JSON object per line.
    Json,
    /// Apache's combined format.
    Combined,
}

/// The settings of a log; one with equal settings is kept across reloads.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct AccessLogSettings {
    /// Where records are written.
    pub(crate) to: Destination,
    /// The format of records.
    pub(crate) format: Format,
}

/// The access log of all workers.
#[derive(Debug)]
pub(crate) struct AccessLog {
    settings: AccessLogSettings,
    shared: Arc<Shared>,
    /// The output, until the writer takes it.
    sink: Mutex<Option<Sink>>,
    /// The thread that writes, once it has started.
    writer: OnceLock<JoinHandle<()>>,
    /// Which losses were already reported to the operator.
    told: Mutex<Told>,
}

#[derive(Debug)]
struct Shared {
    lanes: Box<[Lane]>,
    /// Lines dropped because a buffer was full.
    dropped: AtomicU64,
    /// Lines that could not be written.
    trouble: Mutex<Trouble>,
    stop: AtomicBool,
    reopen: AtomicBool,
}

impl Shared {
    /// Writes the workers' lines ten times a second, until it is stopped.
    fn write_out(&self, sink: &mut Sink) {
        let mut batch = Vec::new();
        loop {
            let stopping = self.stop.load(Ordering::Acquire);
            if self.reopen.swap(false, Ordering::Relaxed) {
                sink.reopen();
            }
            for lane in &self.lanes {
                if let Ok(mut lines) = lane.0.lock() {
                    lines.gather();
                    std::mem::swap(&mut lines.batch, &mut batch);
                }
                if !batch.is_empty() {
                    let written = sink.write(&batch);
                    let trouble = &self.trouble;
                    let mut trouble = trouble.lock().unwrap_or_else(PoisonError::into_inner);
                    trouble.came_of(written);
                }
                batch.clear();
            }
            if stopping {
                return;
            }
            std::thread::park_timeout(BATCH);
        }
    }
}

/// The buffers of one worker; the writer empties them ten times a second. Aligned, so that two workers never write to
/// the same cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Lane(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    /// The most recent lines. This small buffer is reused and stays in the CPU cache; in a large one every line would
    /// be a cache miss.
    last: Vec<u8>,
    /// The lines before.
    batch: Vec<u8>,
    stamp: Stamp,
}

impl Lines {
    /// Appends the recent lines to the batch.
    fn gather(&mut self) {
        self.batch.extend_from_slice(&self.last);
        self.last.clear();
    }
}

impl AccessLog {
    /// Opens the destination. Nothing is written before [`AccessLog::start`].
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(crate) fn open(settings: AccessLogSettings, workers: usize) -> std::io::Result<Self> {
        let sink = Sink::open(settings.to.clone())?;
        let mut log = Self::closed(settings, workers);
        log.sink = Mutex::new(Some(sink));
        Ok(log)
    }

    /// A log that writes nothing, and touches no file: of a configuration that is only looked at.
    pub(crate) fn closed(settings: AccessLogSettings, workers: usize) -> Self {
        Self {
            settings,
            shared: Arc::new(Shared {
                lanes: (0..workers).map(|_| Lane::default()).collect(),
                dropped: AtomicU64::new(0),
                trouble: Mutex::default(),
                stop: AtomicBool::new(false),
                reopen: AtomicBool::new(false),
            }),
            sink: Mutex::default(),
            writer: OnceLock::new(),
            told: Mutex::default(),
        }
    }

    /// Starts the thread that writes, if it has not started.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn start(&self) -> std::io::Result<()> {
        let sink = self
            .sink
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(mut sink) = sink else {
            return Ok(());
        };
        let theirs = Arc::clone(&self.shared);
        let writer = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || theirs.write_out(&mut sink))?;
        // The sink was there once, so this is the first one.
        drop(self.writer.set(writer));
        Ok(())
    }

    /// The settings it was created with.
    pub(crate) fn settings(&self) -> &AccessLogSettings {
        &self.settings
    }

    /// Reopens the file before the next line, as requested with SIGUSR1 after log rotation.
    pub(crate) fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Relaxed);
    }

    /// Appends the record of one request.
    pub(crate) fn record(&self, worker: usize, entry: &Entry<'_>) {
        let Some(lane) = self.shared.lanes.get(worker) else {
            return;
        };
        let Ok(mut lines) = lane.0.lock() else {
            return;
        };
        let Lines { last, batch, stamp } = &mut *lines;
        if batch.len() > OVERFULL {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        match self.settings.format {
            Format::Json => entry.json(last, stamp),
            Format::Combined => entry.combined(last, stamp),
        }
        if last.len() < NEAR {
            return;
        }
        let before = batch.len();
        lines.gather();
        if before < FULL && lines.batch.len() >= FULL {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(writer) = self.writer.get() {
            writer.thread().unpark();
        }
    }

    /// How many lines were lost.
    pub(crate) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Reports lost lines to the operator, at once and then every minute. The writer does not do so, as it may hang.
    pub(crate) fn tell(&self, now: Instant) {
        let trouble = self.shared.trouble.lock();
        let trouble = trouble.unwrap_or_else(PoisonError::into_inner).clone();
        let dropped = self.shared.dropped.load(Ordering::Relaxed);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.tell(&self.settings.to, dropped, &trouble, now);
    }

    /// Writes the remaining lines, for at most `bound`. Called at shutdown, when no more are recorded.
    pub(crate) async fn finish(&self, bound: Duration) {
        self.stop();
        let finished = async {
            while self
                .writer
                .get()
                .is_some_and(|writer| !writer.is_finished())
            {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if tokio::time::timeout(bound, finished).await.is_err() {
            tracing::warn!(to = %self.settings.to, "the last access records could not be written");
        }
    }

    fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.wake();
    }
}

impl Drop for AccessLog {
    /// The writer stops after its last line. Nothing waits for it: a reload must not hang.
    fn drop(&mut self) {
        self.stop();
    }
}
