//! The operator's log: messages on standard error, at a level that a reload may change. Logging adds a line to bounded
//! memory; one thread writes it out. A hanging reader loses lines, which are counted, and never blocks a worker, a
//! reload or the shutdown.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::Handle;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

/// The limit for bytes of unwritten lines.
const CAPACITY: usize = 1 << 20;
/// How long the shutdown waits for unwritten lines.
const FLUSH: Duration = Duration::from_secs(2);
/// The pause before the next attempt where standard error is non-blocking and full.
const FULL: Duration = Duration::from_millis(10);

/// The log. Dropping it waits until its lines are written, but not for a hanging reader.
#[derive(Debug)]
pub(crate) struct Log {
    /// The handle that changes the level; `None` where another log was running already.
    level: Option<Handle<LevelFilter, Registry>>,
    lines: Arc<Lines>,
    /// Where its lines are written, until the thread that does so takes it.
    out: Option<File>,
}

/// Whether an output supports colours: a terminal does, unless `NO_COLOR` is set (no-color.org) or `TERM` is `dumb`.
pub(crate) fn takes_colour(out: &impl IsTerminal) -> bool {
    let said = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let dumb = said("TERM").is_some_and(|term| term == "dumb");
    out.is_terminal() && said("NO_COLOR").is_none() && !dumb
}

/// Logs synchronously at `info`: for commands that exit by themselves, so that their last message is written.
pub(crate) fn plainly() {
    let lines = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(takes_colour(&io::stderr()))
        .with_target(false);
    let started = tracing_subscriber::registry()
        .with(LevelFilter::INFO)
        .with(lines)
        .try_init();
    // A log that a test has installed stays.
    drop(started);
}

/// Begins the log at `info`; its lines wait for [`Log::write`]. Where a test has installed a log already, that one stays.
/// Panics are logged too from now on: the standard library's own message would block on a hanging reader.
///
/// # Errors
/// There is no descriptor left.
pub(crate) fn start() -> io::Result<Log> {
    let (filter, handle) = reload::Layer::new(LevelFilter::INFO);
    let lines = Arc::new(Lines::default());
    let layer = fmt::layer()
        .with_writer(Arc::clone(&lines))
        .with_ansi(takes_colour(&io::stderr()))
        .with_target(false);
    let started = tracing_subscriber::registry()
        .with(filter)
        .with(layer)
        .try_init();
    if started.is_err() {
        return Ok(Log {
            level: None,
            lines,
            out: None,
        });
    }
    // A descriptor of its own, so that a hanging write holds no lock.
    let out = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("?");
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            tracing::error!(thread, "{panic}\n{trace}");
        } else {
            tracing::error!(thread, "{panic}");
        }
    }));
    Ok(Log {
        level: Some(handle),
        lines,
        out: Some(out),
    })
}

impl Log {
    /// Starts the thread that writes lines, those that waited first.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn write(&mut self) -> io::Result<()> {
        let Some(mut out) = self.out.take() else {
            return Ok(());
        };
        let theirs = Arc::clone(&self.lines);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || theirs.write_out(&mut out))?;
        Ok(())
    }

    /// Counts the lines that are lost.
    pub(crate) fn losses(&self) -> Losses {
        Losses(Arc::clone(&self.lines))
    }

    /// Logs messages of at least this level from now on.
    pub(crate) fn set(&self, level: tracing::Level) {
        let changed = self
            .level
            .as_ref()
            .map(|handle| handle.reload(LevelFilter::from_level(level)));
        if let Some(Err(error)) = changed {
            tracing::error!(%error, "the log's level cannot be changed");
        }
    }
}

/// Counts the lines of the log that are lost.
#[derive(Clone, Debug)]
pub(crate) struct Losses(Arc<Lines>);

impl Losses {
    /// How many lines were lost since the start.
    pub(crate) fn count(&self) -> u64 {
        self.0.queue().lost
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // A start that fails has lines, too. Without a thread they are lost, and so is the reason.
        drop(self.write());
        self.lines.flush(FLUSH);
    }
}

/// The lines not yet written.
#[derive(Debug, Default)]
struct Lines {
    queue: Mutex<Queue>,
    /// Notified when lines were added or written.
    moved: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    /// Whether lines taken from the queue are still being written.
    writing: bool,
    /// Lines lost since the start.
    lost: u64,
}

impl Lines {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event's text, or counts it as lost where there is no room.
    fn add(&self, text: &[u8]) {
        let mut queue = self.queue();
        if queue.bytes.len() + text.len() > CAPACITY {
            queue.lost += 1;
            return;
        }
        queue.bytes.extend_from_slice(text);
        drop(queue);
        self.moved.notify_all();
    }

    /// Writes lines to `out` as they arrive, for ever. Losses are reported once lines are written again.
    fn write_out(&self, out: &mut impl Write) {
        let mut batch = Vec::new();
        let mut told = 0;
        loop {
            let mut queue = self.queue();
            while queue.bytes.is_empty() {
                queue = self
                    .moved
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut queue.bytes, &mut batch);
            queue.writing = true;
            drop(queue);
            let written = write_all(out, &batch);
            let events = batch.iter().filter(|byte| **byte == b'\n').count() as u64;
            // Releases the memory of a burst.
            batch = Vec::new();
            let mut queue = self.queue();
            queue.writing = false;
            if written.is_err() {
                queue.lost += events;
            }
            let lost = queue.lost;
            drop(queue);
            if written.is_ok() && lost > told {
                tracing::warn!(
                    lines = lost - told,
                    "lines of this log were lost: their reader is too slow"
                );
                told = lost;
            }
            self.moved.notify_all();
        }
    }

    /// Waits until all lines are written, for at most `bound`.
    fn flush(&self, bound: Duration) {
        let waits = |queue: &mut Queue| queue.writing || !queue.bytes.is_empty();
        let waited = self.moved.wait_timeout_while(self.queue(), bound, waits);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Write for &Lines {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.add(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes everything, even to a pipe that another program has set to non-blocking.
fn write_all(out: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::park_timeout(FULL);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A reader that accepts data only when told to, and a record of it.
    struct Hanging(Receiver<()>, Sender<Vec<u8>>);

    impl Write for Hanging {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.recv().map_err(io::Error::other)?;
            self.1.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_hangs_costs_lines_and_neither_time_nor_memory() {
        let (go, gone) = channel();
        let (taken, written) = channel();
        let lines = Arc::new(Lines::default());
        let theirs = Arc::clone(&lines);
        std::thread::spawn(move || theirs.write_out(&mut Hanging(gone, taken)));
        let line = [&[b'x'; 999][..], b"\n"].concat();
        for _ in 0..3_000 {
            (&*lines).write_all(&line).unwrap();
        }
        lines.flush(Duration::from_millis(1));
        let queue = lines.queue();
        assert!(queue.bytes.len() <= CAPACITY, "{}", queue.bytes.len());
        assert!(queue.lost > 900, "{}", queue.lost);
        let lost = queue.lost;
        drop(queue);

        for _ in 0..3 {
            go.send(()).unwrap();
        }
        lines.flush(Duration::from_secs(10));
        let text: Vec<u8> = written.try_iter().flatten().collect();
        assert_eq!(text.len() as u64, (3_000 - lost) * 1_000);
        assert!(!lines.queue().writing);
    }

    #[test]
    fn a_pipe_that_does_not_block_is_waited_for() {
        struct Busy(u8, Vec<u8>);
        impl Write for Busy {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 += 1;
                match self.0 % 3 {
                    0 => Err(io::ErrorKind::WouldBlock.into()),
                    1 => Err(io::ErrorKind::Interrupted.into()),
                    _ => self.1.write(&bytes[..bytes.len().min(2)]),
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut busy = Busy(0, Vec::new());
        write_all(&mut busy, b"a line\n").unwrap();
        assert_eq!(busy.1, b"a line\n");
    }
}
