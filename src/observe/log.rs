//! The operator's log: words on the standard error, at a level that a reload may change. Who logs
//! leaves a line in bounded memory; one thread writes it out. A reader that hangs costs lines, which
//! are counted, and never stops a worker, a reload or the end.

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

/// Bytes of lines that wait to be written.
const CAPACITY: usize = 1 << 20;
/// How long what still waits at the end may take to be written.
const FLUSH: Duration = Duration::from_secs(2);
/// How long to wait where the standard error is set not to block, and is full.
const FULL: Duration = Duration::from_millis(10);

/// The running log. Dropping it waits until its lines are written, but not for a reader that hangs.
#[derive(Debug)]
pub(crate) struct Log {
    /// What changes the level; `None` where another log ran already.
    level: Option<Handle<LevelFilter, Registry>>,
    lines: Arc<Lines>,
}

/// Whether an output takes colours: a terminal does, unless its user says otherwise (no-color.org) or it is a dumb one.
pub(crate) fn takes_colour(out: &impl IsTerminal) -> bool {
    let said = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let dumb = said("TERM").is_some_and(|term| term == "dumb");
    out.is_terminal() && said("NO_COLOR").is_none() && !dumb
}

/// Writes lines as they come, at `info`: for commands that end by themselves, with their last word written.
pub(crate) fn plainly() {
    let lines = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(takes_colour(&io::stderr()))
        .with_target(false);
    let started = tracing_subscriber::registry()
        .with(LevelFilter::INFO)
        .with(lines)
        .try_init();
    // Another log, of a test, stays.
    drop(started);
}

/// Starts the log at `info`. Where a log runs already, in tests, that one stays. From now on a panic is told
/// there, too: the standard library's own words would wait for the reader.
///
/// # Errors
/// The thread that writes cannot be started.
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
        return Ok(Log { level: None, lines });
    }
    // Through a descriptor of its own: a write that hangs holds no lock.
    let mut out = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let theirs = Arc::clone(&lines);
    std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || theirs.write_out(&mut out))?;
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
    })
}

impl Log {
    /// Says from now on what is at least as grave as `level`.
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

impl Drop for Log {
    fn drop(&mut self) {
        self.lines.flush(FLUSH);
    }
}

/// The lines that wait to be written.
#[derive(Debug, Default)]
struct Lines {
    queue: Mutex<Queue>,
    /// There are lines, or they have been written.
    moved: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    /// Whether some that were taken out are not written yet.
    writing: bool,
    /// Lines that were not written, since the start.
    lost: u64,
}

impl Lines {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event's text, which is lost where there is no room for it.
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

    /// Writes lines to `out` as they come, for ever. What was lost is told once lines are written again.
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
            // A burst's memory is not kept.
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

    /// Waits until all lines are written, for `bound` at most.
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

/// Writes all, also to a pipe that another program has set not to block.
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

    /// A reader that takes a piece only when it is told to, and what it has taken.
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
