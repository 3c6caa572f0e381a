//! The output of the access log, and its handling of write errors. The caller decides when to write.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

use super::Destination;

/// The pause before the next attempt where standard output is non-blocking and full.
const FULL: Duration = Duration::from_millis(10);

/// The output that lines are written to.
#[derive(Debug)]
pub(super) struct Sink {
    to: Destination,
    file: Option<File>,
    /// Whether to reopen the file before the next line.
    reopens: bool,
    /// Whether the last line was written only in part.
    torn: bool,
}

/// Lines that could not be written, or were written to the old file.
#[derive(Debug)]
pub(super) struct Unwritten {
    /// The number of lost lines.
    pub(super) lines: u64,
    /// The error.
    pub(super) error: io::Error,
}

impl Sink {
    /// Opens the destination.
    ///
    /// # Errors
    /// The file cannot be opened. A FIFO without a reader is no error: one may connect later.
    pub(super) fn open(to: Destination) -> io::Result<Self> {
        let file = match &to {
            Destination::File(path) => open(path)?,
            Destination::Stdout | Destination::Stderr => None,
        };
        Ok(Self {
            to,
            file,
            reopens: false,
            torn: false,
        })
    }

    /// Reopens the file before the next line.
    pub(super) fn reopen(&mut self) {
        self.reopens = true;
    }

    /// Writes complete lines. Where the file was moved away and no new one can be opened, the old one is used.
    ///
    /// # Errors
    /// The error and the number of lines lost; the others are written.
    pub(super) fn write(&mut self, batch: &[u8]) -> Result<(), Unwritten> {
        let (written, error) = match &self.to {
            Destination::Stdout => write_all(&mut io::stdout().lock(), batch),
            Destination::Stderr => write_all(&mut io::stderr().lock(), batch),
            Destination::File(path) => {
                let opened = renew(path, &mut self.file, self.reopens);
                self.reopens = false;
                match &mut self.file {
                    Some(file) => {
                        // The next line must not continue a torn one.
                        if self.torn && file.write_all(b"\n").is_ok() {
                            self.torn = false;
                        }
                        let (written, failed) = write_all(file, batch);
                        if written > 0 {
                            self.torn = batch.get(written - 1) != Some(&b'\n');
                        }
                        (written, failed.or_else(|| opened.err()))
                    }
                    None => (0, opened.err()),
                }
            }
        };
        let Some(error) = error else { return Ok(()) };
        let rest = batch.get(written..).unwrap_or_default();
        let lines = rest.iter().filter(|byte| **byte == b'\n').count() as u64;
        Err(Unwritten { lines, error })
    }
}

/// Opens the file at `path` if it is not the open one, or if `anew`. If that fails, the open one is kept as long as it
/// has a name.
fn renew(path: &Path, file: &mut Option<File>, anew: bool) -> io::Result<()> {
    let open_one = file.as_ref().and_then(|file| file.metadata().ok());
    let there = std::fs::metadata(path).ok();
    let identity = |of: &std::fs::Metadata| (of.dev(), of.ino());
    let same =
        open_one.is_some() && there.as_ref().map(identity) == open_one.as_ref().map(identity);
    if same && !anew {
        return Ok(());
    }
    match open(path) {
        Ok(Some(opened)) => {
            *file = Some(opened);
            Ok(())
        }
        Ok(None) => {
            *file = None;
            Err(io::Error::other("nobody reads this FIFO"))
        }
        Err(error) => {
            if open_one.is_none_or(|open| open.nlink() == 0) {
                *file = None;
            }
            Err(error)
        }
    }
}

/// Opens a file for appending without blocking; opening a FIFO normally waits for a reader. `None` for a FIFO without a
/// reader.
fn open(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC;
    let flags = flags | OFlags::NOCTTY | OFlags::NONBLOCK;
    let mode = Mode::from_raw_mode(0o666);
    let is_fifo = || std::fs::metadata(path).is_ok_and(|there| there.file_type().is_fifo());
    let file = match rustix::fs::open(path, flags, mode) {
        Ok(file) => File::from(file),
        Err(Errno::NXIO) if is_fifo() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(Some(file))
}

/// Writes everything; returns the number of bytes written, and the error that stopped it.
fn write_all(out: &mut dyn Write, bytes: &[u8]) -> (usize, Option<io::Error>) {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match out.write(rest) {
            Ok(0) => return (written, Some(io::ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::park_timeout(FULL);
            }
            Err(error) => return (written, Some(error)),
        }
    }
    (written, out.flush().err())
}
