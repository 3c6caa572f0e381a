//! The file system for the control side: a path may name a pipe or a device, a file may be huge, and a network drive
//! may never respond. [`read`] reads the files that the configuration names, [`Patience`] limits waiting. Static
//! files, which the workers serve, are handled by `files`.

use std::collections::HashSet;
use std::fs::{File, FileType, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

/// The largest file that is read, in bytes: a larger one is an accident.
pub(crate) const LARGEST: u64 = 16 << 20;

/// Reads a whole file. Opens only regular files: others may block, or have side effects when opened. A pipe that this
/// process inherited, such as `/dev/stdin` or bash's `<(...)`, is read to its end, too.
///
/// # Errors
/// The file is missing, of another kind, larger than [`LARGEST`], or cannot be read.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let inherited = is_inherited(path);
    check(&std::fs::metadata(path)?, inherited)?;
    let mut flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
    if !inherited {
        // The path may refer to another file by now; the open must not wait for the other end of a pipe.
        flags |= OFlags::NONBLOCK;
    }
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    check(&file.metadata()?, inherited)?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > LARGEST) {
        return Err(io::Error::other("the file is larger than 16 MiB"));
    }
    Ok(bytes)
}

/// Whether a path names one of this process's own descriptors.
fn is_inherited(path: &Path) -> bool {
    path == Path::new("/dev/stdin")
        || path.starts_with("/dev/fd")
        || path.starts_with("/proc/self/fd")
}

/// Refuses anything but regular files, with an error that names the type.
fn check(there: &Metadata, inherited: bool) -> io::Result<()> {
    let kind = there.file_type();
    if kind.is_file() || inherited && kind.is_fifo() {
        return Ok(());
    }
    let problem = format!("it is {}, not a regular file", name_of(kind));
    Err(io::Error::other(problem))
}

fn name_of(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a pipe (FIFO)"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// Calls file systems that may not respond: each call runs on a thread of its own, which is abandoned when the time is
/// up. Clones share the record of paths that do not respond.
#[derive(Clone, Debug, Default)]
pub(crate) struct Patience {
    /// The paths of pending calls. A path that does not respond is not called again, so that there are at most as many
    /// hanging threads as paths.
    asked: Arc<Mutex<HashSet<PathBuf>>>,
}

impl Patience {
    /// Runs `work`, which accesses `path`, and waits for it at most this long.
    ///
    /// # Errors
    /// `TimedOut` where there is no result in this time, or an earlier call for the path is still pending. Starting
    /// the thread may fail, too.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        path: &Path,
        at_most: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        if !self.asked().insert(path.to_owned()) {
            let problem = "its file system still does not answer";
            return Err(io::Error::new(io::ErrorKind::TimedOut, problem));
        }
        let asking = Asking {
            path: path.to_owned(),
            patience: self.clone(),
        };
        let (sender, answer) = mpsc::channel();
        std::thread::Builder::new()
            .name("file-system".to_owned())
            .spawn(move || {
                let done = work();
                drop(asking);
                // The caller may no longer be waiting.
                drop(sender.send(done));
            })?;
        answer.recv_timeout(at_most).map_err(|error| match error {
            RecvTimeoutError::Timeout => {
                let problem = format!("its file system does not answer within {at_most:.0?}");
                io::Error::new(io::ErrorKind::TimedOut, problem)
            }
            RecvTimeoutError::Disconnected => io::Error::other("the file system call failed"),
        })
    }

    fn asked(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pending call; dropped with its thread, however that ends.
struct Asking {
    path: PathBuf,
    patience: Patience,
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.patience.asked().remove(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let why = |path: &Path| read(path).unwrap_err().to_string();
        std::fs::write(path("file"), "text").unwrap();
        std::os::unix::fs::symlink("file", path("link")).unwrap();
        assert_eq!(read(&path("file")).unwrap(), b"text");
        assert_eq!(read(&path("link")).unwrap(), b"text");
        rustix::fs::mkfifoat(rustix::fs::CWD, path("fifo"), Mode::RUSR | Mode::WUSR).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        std::os::unix::fs::symlink("fifo", path("link-to-fifo")).unwrap();
        for (name, kind) in [
            ("fifo", "it is a pipe (FIFO), not a regular file"),
            ("link-to-fifo", "it is a pipe (FIFO), not a regular file"),
            ("socket", "it is a socket, not a regular file"),
            ("", "it is a directory, not a regular file"),
        ] {
            assert_eq!(why(&path(name)), kind, "{name}");
        }
        drop(socket);
        let device = why(Path::new("/dev/zero"));
        assert_eq!(device, "it is a device, not a regular file");
        let missing = read(&path("none")).unwrap_err().kind();
        assert_eq!(missing, io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_has_a_largest_size() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("huge");
        let file = File::create(&path).unwrap();
        file.set_len(LARGEST).unwrap();
        assert_eq!(read(&path).unwrap().len(), 16 << 20);
        file.set_len(LARGEST + 1).unwrap();
        let why = read(&path).unwrap_err().to_string();
        assert_eq!(why, "the file is larger than 16 MiB");
    }

    #[test]
    fn what_does_not_answer_is_left_behind_and_not_asked_twice() {
        let patience = Patience::default();
        let (path, other) = (Path::new("/silent"), Path::new("/other"));
        let (end, wait) = mpsc::channel::<()>();
        let (ended, at_the_end) = mpsc::channel::<()>();
        let silent = patience.ask(path, Duration::from_millis(20), move || {
            let _ended = wait.recv();
            drop(ended);
        });
        let why = silent.unwrap_err();
        assert_eq!(why.kind(), io::ErrorKind::TimedOut);
        assert_eq!(
            why.to_string(),
            "its file system does not answer within 20ms"
        );
        let long = Duration::from_secs(60);
        let again = patience.ask(path, long, || ()).unwrap_err().to_string();
        assert_eq!(again, "its file system still does not answer");
        assert_eq!(patience.ask(other, long, || 7).unwrap(), 7);
        // It responds after all, and is called again.
        drop(end);
        let _gone = at_the_end.recv();
        while patience.ask(path, long, || ()).is_err() {
            std::thread::yield_now();
        }
    }
}
