//! One access record a request, written when the response body ends, breaks, or the client
//! leaves. Workers format into buffers of their own; one thread writes them out in batches. A
//! reader that is too slow costs lines, which are counted, never time. Queries are not logged:
//! they may hold tokens.

mod line;

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

pub(crate) use self::line::Entry;
use self::line::Stamp;

/// How long lines wait to be written together.
const BATCH: Duration = Duration::from_millis(100);
/// So many bytes of lines are gathered before they go to the others.
const NEAR: usize = 8 << 10;
/// A buffer this full wakes the writer.
const FULL: usize = 256 << 10;
/// A buffer this full takes no more lines.
const OVERFULL: usize = 4 << 20;

/// Where records go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Destination {
    /// The standard output.
    Stdout,
    /// The standard error.
    Stderr,
    /// A file, made when missing, opened anew when it was moved away.
    File(PathBuf),
}

/// How records are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Format {
    /// One JSON object a line.
    Json,
    /// Apache's combined format.
    Combined,
}

/// What a log is made from; an equal one goes on over a reload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct AccessLogSettings {
    /// Where records go.
    pub(crate) to: Destination,
    /// How they are written.
    pub(crate) format: Format,
}

/// The access log of all workers.
#[derive(Debug)]
pub(crate) struct AccessLog {
    settings: AccessLogSettings,
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    lanes: Box<[Lane]>,
    dropped: AtomicU64,
    stop: AtomicBool,
    reopen: AtomicBool,
}

/// The buffers of one worker; the writer takes what they hold ten times a second. Aligned, so that two
/// workers never write to one cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Lane(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    /// The last ones. This memory is used again and again, so it is near; in a large buffer each line would be
    /// waited for.
    last: Vec<u8>,
    /// Those before.
    batch: Vec<u8>,
    stamp: Stamp,
}

impl Lines {
    /// Puts the last ones to the others.
    fn gather(&mut self) {
        self.batch.extend_from_slice(&self.last);
        self.last.clear();
    }
}

impl AccessLog {
    /// Opens the destination and starts the writer.
    ///
    /// # Errors
    /// The file cannot be opened, or no thread can be started.
    pub(crate) fn open(settings: AccessLogSettings, workers: usize) -> std::io::Result<Self> {
        let mut sink = Sink::open(settings.to.clone())?;
        let shared = Arc::new(Shared {
            lanes: (0..workers).map(|_| Lane::default()).collect(),
            dropped: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            reopen: AtomicBool::new(false),
        });
        let theirs = Arc::clone(&shared);
        let writer = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || {
                let mut batch = Vec::new();
                let mut reported = 0;
                loop {
                    let stopping = theirs.stop.load(Ordering::Acquire);
                    if theirs.reopen.swap(false, Ordering::Relaxed) {
                        sink.close();
                    }
                    for lane in &theirs.lanes {
                        if let Ok(mut lines) = lane.0.lock() {
                            lines.gather();
                            std::mem::swap(&mut lines.batch, &mut batch);
                        }
                        sink.write(&batch);
                        batch.clear();
                    }
                    let dropped = theirs.dropped.load(Ordering::Relaxed);
                    if dropped > reported {
                        tracing::warn!(
                            lines = dropped - reported,
                            "access records were dropped: their reader is too slow"
                        );
                        reported = dropped;
                    }
                    if stopping {
                        return;
                    }
                    std::thread::park_timeout(BATCH);
                }
            })?;
        Ok(Self {
            settings,
            shared,
            writer: Some(writer),
        })
    }

    /// What it was made from.
    pub(crate) fn settings(&self) -> &AccessLogSettings {
        &self.settings
    }

    /// Opens the file anew before the next line, as a program that rotates logs asks by SIGUSR1.
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
            if let Some(writer) = &self.writer {
                writer.thread().unpark();
            }
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(writer) = self.writer.take() {
            writer.thread().unpark();
            drop(writer.join());
        }
    }
}

/// The end of the log that writes.
#[derive(Debug)]
struct Sink {
    to: Destination,
    file: Option<File>,
}

impl Sink {
    fn open(to: Destination) -> std::io::Result<Self> {
        let file = match &to {
            Destination::File(path) => Some(File::options().create(true).append(true).open(path)?),
            Destination::Stdout | Destination::Stderr => None,
        };
        Ok(Self { to, file })
    }

    /// The next line opens the file.
    fn close(&mut self) {
        self.file = None;
    }

    fn write(&mut self, batch: &[u8]) {
        if batch.is_empty() {
            return;
        }
        let written = match &self.to {
            Destination::Stdout => std::io::stdout().lock().write_all(batch),
            Destination::Stderr => std::io::stderr().lock().write_all(batch),
            Destination::File(path) => {
                let there = std::fs::metadata(path)
                    .map(|there| (there.dev(), there.ino()))
                    .ok();
                let open = self.file.as_ref().and_then(|file| file.metadata().ok());
                if open.is_none() || there != open.map(|open| (open.dev(), open.ino())) {
                    self.file = File::options().create(true).append(true).open(path).ok();
                }
                match &mut self.file {
                    Some(file) => file.write_all(batch),
                    None => Err(std::io::ErrorKind::NotFound.into()),
                }
            }
        };
        if let Err(error) = written {
            tracing::debug!(%error, "access records could not be written");
        }
    }
}
