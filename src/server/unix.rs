//! The files of Unix sockets: who may connect, dead ones that are replaced, closed ones that are removed. `listener`
//! accepts what comes.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::fs::{Gid, Mode, Uid};
use socket2::{Domain, SockAddr, Socket as RawSocket, Type};

use super::BACKLOG;
use crate::snapshot::SocketAccess;

/// The permission bits of a socket's owner.
const OWNERS: u32 = 0o600;

/// Binds a socket that these may connect to; one that a dead process left behind is replaced, and where it is to
/// `replace` our own, that one, too.
///
/// # Errors
/// Another process listens there, or the file cannot be made as it should be.
pub(crate) fn bind(path: &Path, access: SocketAccess, replace: bool) -> io::Result<UnixListener> {
    if replace {
        // Beside it, and then renamed, so that clients always find a socket there.
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let beside = Path::new(&beside);
        let bound = bind(beside, access, false)?;
        fs::rename(beside, path)?;
        return Ok(bound);
    }
    match bound(path, access) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let is_socket = fs::symlink_metadata(path)?.file_type().is_socket();
            let dead = UnixStream::connect(path)
                .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
            if !(is_socket && dead) {
                return Err(error);
            }
            fs::remove_file(path)?;
            bound(path, access)
        }
        bound => bound,
    }
}

/// Binds a socket. It listens once its file is as it should be: nobody else can have connected before.
fn bound(path: &Path, access: SocketAccess) -> io::Result<UnixListener> {
    let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // Linux makes the file with the mode of the socket, less the umask. Others need not see it open either.
    #[cfg(target_os = "linux")]
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(access.mode & OWNERS))?;
    socket.bind(&SockAddr::unix(path)?)?;
    if let Err(error) = permit(path, access, None).and_then(|()| socket.listen(BACKLOG)) {
        drop(fs::remove_file(path));
        return Err(error);
    }
    Ok(socket.into())
}

/// Gives a socket's file its owner, group and mode; `known` tells which file it is, where it is not a new one.
///
/// # Errors
/// The system refuses, or another file has taken its place.
#[cfg(target_os = "linux")]
pub(super) fn permit(
    path: &Path,
    access: SocketAccess,
    known: Option<(u64, u64)>,
) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;

    use rustix::fs::{AtFlags, OFlags};

    // Whoever may write in the directory could put a link there meanwhile: from here on it is this one file.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = fs::File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let there = file.metadata()?;
    check(&there, known)?;
    let change = |mode: u32| {
        let file = format!("/proc/self/fd/{}", file.as_raw_fd());
        rustix::fs::chmod(file, Mode::from_raw_mode(mode))
    };
    if let Some((owner, group)) = new_owners(&there, access) {
        // Neither the group before nor the one after has a right that only the other is to have.
        change(access.mode & OWNERS)?;
        rustix::fs::chownat(&file, "", owner, group, AtFlags::EMPTY_PATH)?;
        change(access.mode)?;
    } else if there.mode() & 0o7777 != access.mode {
        change(access.mode)?;
    }
    Ok(())
}

/// The same, where a file cannot be held without being opened.
#[cfg(not(target_os = "linux"))]
pub(super) fn permit(
    path: &Path,
    access: SocketAccess,
    known: Option<(u64, u64)>,
) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD};

    let there = fs::symlink_metadata(path)?;
    check(&there, known)?;
    if let Some((owner, group)) = new_owners(&there, access) {
        rustix::fs::chmod(path, Mode::from_raw_mode(access.mode & OWNERS))?;
        rustix::fs::chownat(CWD, path, owner, group, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    rustix::fs::chmod(path, Mode::from_raw_mode(access.mode))?;
    Ok(())
}

/// Refuses a file that is not the gateway's socket.
fn check(there: &fs::Metadata, known: Option<(u64, u64)>) -> io::Result<()> {
    let is_ours = known.map_or_else(
        || there.uid() == rustix::process::geteuid().as_raw(),
        |known| known == (there.dev(), there.ino()),
    );
    if there.file_type().is_socket() && there.nlink() == 1 && is_ours {
        return Ok(());
    }
    Err(io::Error::other("another file has taken its place"))
}

/// The owner and the group that a file is to get; `None` where it has both.
fn new_owners(there: &fs::Metadata, access: SocketAccess) -> Option<(Option<Uid>, Option<Gid>)> {
    let owner = access.owner.filter(|owner| *owner != there.uid());
    let group = Some(access.group).filter(|group| *group != there.gid());
    (owner.is_some() || group.is_some())
        .then(|| (owner.map(Uid::from_raw), group.map(Gid::from_raw)))
}

/// Identifies the file of a socket, to detect its replacement.
pub(crate) fn identity(path: &Path) -> Option<(u64, u64)> {
    let file = fs::symlink_metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

/// Removes the file of a closed socket, if it still belongs to that.
pub(crate) fn forget(path: &Path, identity_then: Option<(u64, u64)>) {
    if identity(path) != identity_then {
        return;
    }
    if let Err(error) = fs::remove_file(path) {
        tracing::debug!(path = %path.display(), %error, "the socket could not be removed");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn access(mode: u32) -> SocketAccess {
        SocketAccess {
            mode,
            owner: None,
            group: rustix::process::getegid().as_raw(),
        }
    }

    fn mode(path: &Path) -> Option<u32> {
        Some(fs::symlink_metadata(path).ok()?.mode() & 0o7777)
    }

    /// How often a socket is made while another thread looks.
    const TIMES: usize = 500;

    #[test]
    fn a_socket_is_at_no_moment_open_to_more() {
        let directory = tempfile::tempdir().unwrap();
        for wanted in [0o600, 0o660, 0o666] {
            let path = directory.path().join(format!("{wanted:o}.sock"));
            let ended = AtomicBool::new(false);
            let seen = std::thread::scope(|scope| {
                let looking = scope.spawn(|| {
                    let mut seen = BTreeSet::new();
                    while !ended.load(Ordering::Relaxed) {
                        seen.extend(mode(&path));
                    }
                    seen
                });
                for _ in 0..TIMES {
                    let bound = bind(&path, access(wanted), false).unwrap();
                    assert_eq!(mode(&path), Some(wanted));
                    let again = bind(&path, access(wanted), true).unwrap();
                    assert_eq!(mode(&path), Some(wanted));
                    drop((bound, again));
                    fs::remove_file(&path).unwrap();
                }
                ended.store(true, Ordering::Relaxed);
                looking.join().unwrap()
            });
            assert!(seen.iter().all(|seen| seen & !wanted == 0), "{seen:?}");
        }
    }

    #[test]
    fn what_another_process_has_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let kind = |path: &Path| bind(path, access(0o600), false).unwrap_err().kind();
        let live = UnixListener::bind(&path).unwrap();
        assert_eq!(kind(&path), io::ErrorKind::AddrInUse);
        drop(live);
        assert!(bind(&path, access(0o600), false).is_ok(), "it is dead");
        let file = directory.path().join("file");
        fs::write(&file, "text").unwrap();
        assert_eq!(kind(&file), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read(&file).unwrap(), b"text");
    }

    #[test]
    fn a_file_that_took_the_place_is_not_changed() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("file"), "text").unwrap();
        std::os::unix::fs::symlink("file", path("link")).unwrap();
        let _bound = bind(&path("a.sock"), access(0o600), false).unwrap();
        let ours = identity(&path("a.sock"));
        permit(&path("a.sock"), access(0o640), ours).unwrap();
        assert_eq!(mode(&path("a.sock")), Some(0o640));
        for name in ["file", "link"] {
            assert!(permit(&path(name), access(0o666), None).is_err());
        }
        fs::hard_link(path("a.sock"), path("b.sock")).unwrap();
        assert!(permit(&path("a.sock"), access(0o666), ours).is_err());
        fs::remove_file(path("a.sock")).unwrap();
        let _other = bind(&path("a.sock"), access(0o600), false).unwrap();
        assert!(permit(&path("a.sock"), access(0o666), ours).is_err());
        assert_eq!(mode(&path("a.sock")), Some(0o600));
        assert_eq!(mode(&path("file")).map(|it| it & 0o022), Some(0));
    }
}
