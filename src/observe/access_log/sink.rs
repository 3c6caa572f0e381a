//! Where lines of the access log go, and what becomes of those that cannot be written there. When they are
//! written is the caller's matter.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

use super::Destination;

/// How long to wait where the standard output is set not to block, and is full.
const FULL: Duration = Duration::from_millis(10);

/// The end of the log that writes.
#[derive(Debug)]
pub(super) struct Sink {
    to: Destination,
    file: Option<File>,
    /// Whether the file is to be opened anew before the next line.
    reopens: bool,
    /// Whether the last line was written in part.
    torn: bool,
}

/// Lines could not be written, or not to the file that they are meant for.
#[derive(Debug)]
pub(super) struct Unwritten {
    /// How many are lost.
    pub(super) lines: u64,
    /// Why.
    pub(super) error: io::Error,
}

impl Sink {
    /// Opens the destination.
    ///
    /// # Errors
    /// The file cannot be opened. A FIFO that nobody reads can: a reader may come later.
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

    /// The next line opens the file anew.
    pub(super) fn reopen(&mut self) {
        self.reopens = true;
    }

    /// Writes whole lines. Where the file was moved away and no new one can be opened, they go to the old one.
    ///
    /// # Errors
    /// What could not be done, and how many lines were lost by it; the others are written.
    pub(super) fn write(&mut self, batch: &[u8]) -> Result<(), Unwritten> {
        let (written, error) = match &self.to {
            Destination::Stdout => write_all(&mut io::stdout().lock(), batch),
            Destination::Stderr => write_all(&mut io::stderr().lock(), batch),
            Destination::File(path) => {
                let opened = renew(path, &mut self.file, self.reopens);
                self.reopens = false;
                match &mut self.file {
                    Some(file) => {
                        // A line that broke off is not continued by the next one.
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

/// Opens the file at `path` where it is not the open one, or where `anew`. If that fails the open one stays, as
/// long as it has a name.
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

/// Opens a file to be added to, without waiting for anybody: to open a FIFO waits for its reader. `None` for one that
/// nobody reads.
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

/// Writes all; how much that was, and why no more.
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
