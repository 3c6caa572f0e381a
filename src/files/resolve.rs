//! Resolves a decoded path to an open file below the root, and to nothing else.
//!
//! The kernel confines the look-up to the root (`openat2` with `RESOLVE_BENEATH`), so that no rename can race with a
//! check. Where that call is unknown, or forbidden by a sandbox, the path is resolved in user space, with the same
//! result. How the file is sent is not decided here.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::fd::{AsFd as _, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::stamp::Stamp;
use super::{TRUSTED_FOR, is_hidden};
use crate::message::reject::Reject;

/// How often an open that a rename or a signal interrupted is retried.
const ATTEMPTS: u32 = 16;
/// How many symlinks one look-up follows; the same number as on Linux.
const LINKS: u32 = 40;

/// Without `O_NONBLOCK`, opening a FIFO would wait for its writer.
const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// A directory for look-ups, which do not require permission to read it.
#[cfg(target_os = "linux")]
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// The kind of object at a name below the root.
#[derive(Debug)]
pub(super) enum Found {
    /// A regular file. Both values are of one inode, whatever happens to the name.
    File(File, Metadata),
    /// A directory.
    Directory,
}

/// A directory below a root that is open to be read, on whatever thread.
#[derive(Debug)]
pub(super) struct Folder {
    root: OwnedFd,
    lookup: Lookup,
    directory: OwnedFd,
    /// Its name below the root, with a slash at its end; empty for the root.
    name: String,
}

/// What is in a directory and may be served.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listed<'a> {
    /// Its name in the directory.
    pub(super) name: &'a str,
    /// Whether it is a directory, and not a file.
    pub(super) is_directory: bool,
    /// Its length in bytes.
    pub(super) size: u64,
    /// When it was modified, in seconds since 1970.
    pub(super) modified: u64,
}

/// How the look-up is confined to the root.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Lookup {
    /// By the kernel: symlinks that stay below the root are followed.
    Kernel,
    /// Segment by segment, if the kernel cannot.
    Walk,
}

/// The directory that a route serves: one descriptor per worker, so that no two cores share a lock.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    lookup: Lookup,
    handles: Box<[Mutex<Handle>]>,
}

/// One worker's descriptor of the root.
#[derive(Debug)]
struct Handle {
    /// `None` while the root does not exist.
    opened: Option<Opened>,
    /// When the path was last checked.
    checked: Instant,
}

#[derive(Debug)]
struct Opened {
    descriptor: OwnedFd,
    identity: Identity,
}

/// Device and inode.
type Identity = (u64, u64);

impl Root {
    /// Opens the directory once for each worker.
    ///
    /// # Errors
    /// The path is not a directory that can be opened.
    pub(super) fn open(path: PathBuf, workers: usize, now: Instant) -> io::Result<Self> {
        let first = Opened::at(&path)?;
        let lookup = Lookup::detect(&first);
        let handles = (0..workers.max(1))
            .map(|_| {
                let opened = Some(first.again()?);
                Ok(Mutex::new(Handle {
                    opened,
                    checked: now,
                }))
            })
            .collect::<io::Result<_>>()?;
        Ok(Self {
            path,
            lookup,
            handles,
        })
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether paths are resolved in user space, because `openat2` is not available.
    pub(super) fn walks(&self) -> bool {
        self.lookup == Lookup::Walk
    }

    /// Opens the object at a name below the root. The name is relative and has no `..`. So many of its first bytes are a
    /// folder, with a slash at its end, which the look-up does not leave.
    ///
    /// # Errors
    /// `FileNotFound` for what does not exist, leads outside the root, or is neither a file nor a directory;
    /// `FileForbidden` if opening is not permitted; `Internal` if the system lacks resources, or the worker does not
    /// exist.
    pub(super) fn find(
        &self,
        worker: usize,
        name: &str,
        folder: usize,
        now: Instant,
    ) -> Result<Found, Reject> {
        let mut handle = self.handle(worker, now).ok_or(Reject::Internal)?;
        let found = handle.find(self.lookup, name, folder);
        // A deployment may delete the old directory within the second: check the path before a 404.
        if matches!(found, Err(Reject::FileNotFound)) && handle.refresh(&self.path, now) {
            return handle.find(self.lookup, name, folder);
        }
        found
    }

    /// Opens the directory of a name below the root to read it; the name ends in a slash, or is empty for the root. The
    /// folder is as in [`Self::find`].
    ///
    /// # Errors
    /// As [`Self::find`].
    pub(super) fn directory(
        &self,
        worker: usize,
        name: &str,
        folder: usize,
        now: Instant,
    ) -> Result<Folder, Reject> {
        let handle = self.handle(worker, now).ok_or(Reject::Internal)?;
        let root = handle.opened.as_ref().ok_or(Reject::FileNotFound)?;
        let (folder, name) = name.split_at_checked(folder).ok_or(Reject::Internal)?;
        let root = match folder {
            "" => root.descriptor.try_clone().map_err(|_| Reject::Internal)?,
            folder => (self.lookup)
                .open(root.borrow(), folder, DIRECTORY)
                .map_err(refusal)?,
        };
        drop(handle);
        let path = if name.is_empty() { "." } else { name };
        let found = (self.lookup).open(root.as_fd(), path, DIRECTORY);
        let found = found.map_err(refusal)?;
        // That one may be for look-ups alone.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(&found, ".", flags, Mode::empty()).map_err(refusal)?;
        Ok(Folder {
            root,
            lookup: self.lookup,
            directory,
            name: name.to_owned(),
        })
    }

    /// The stamp of the object at a name, without opening it. Use it only to recognise a file that was opened before:
    /// this look-up is not confined to the root.
    pub(super) fn stamp(&self, worker: usize, name: &str, now: Instant) -> Option<Stamp> {
        let handle = self.handle(worker, now)?;
        let root = handle.opened.as_ref()?.borrow();
        let stat = rustix::fs::statat(root, name, AtFlags::empty()).ok()?;
        Stamp::of_stat(&stat)
    }

    /// A worker's descriptor, which was checked recently.
    fn handle(&self, worker: usize, now: Instant) -> Option<MutexGuard<'_, Handle>> {
        let handle = self.handles.get(worker)?;
        let mut handle = handle.lock().unwrap_or_else(PoisonError::into_inner);
        if handle.opened.is_none() || now.saturating_duration_since(handle.checked) > TRUSTED_FOR {
            handle.refresh(&self.path, now);
        }
        Some(handle)
    }
}

impl Folder {
    /// Gives what is in the directory, in no order, until `take` returns false or the budget of entries is used up.
    /// Neither what is hidden, nor what is neither a file nor a directory, nor links that lead outside the root. Returns
    /// whether that was all. Blocks.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(super) fn each(
        &self,
        budget: &mut usize,
        mut take: impl FnMut(Listed<'_>) -> bool,
    ) -> io::Result<bool> {
        for entry in Dir::read_from(&self.directory)? {
            let entry = entry?;
            let Some(left) = budget.checked_sub(1) else {
                return Ok(false);
            };
            *budget = left;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if !is_hidden(name)
                && let Some(listed) = self.look(name)
                && !take(listed)
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What is known of an entry; `None` if it is not served.
    fn look<'a>(&self, name: &'a str) -> Option<Listed<'a>> {
        let mut stat = rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            let path = [&self.name, name].concat();
            let file = self.lookup.open(self.root.as_fd(), &path, FILE).ok()?;
            stat = rustix::fs::fstat(&file).ok()?;
        }
        let kind = FileType::from_raw_mode(stat.st_mode);
        let is_directory = kind == FileType::Directory;
        if !is_directory && kind != FileType::RegularFile {
            return None;
        }
        Some(Listed {
            name,
            is_directory,
            size: u64::try_from(stat.st_size).ok()?,
            modified: u64::try_from(stat.st_mtime).unwrap_or_default(),
        })
    }
}

impl Handle {
    /// Opens the directory that the path names now; returns whether it is a different one.
    fn refresh(&mut self, path: &Path, now: Instant) -> bool {
        self.checked = now;
        let old = self.opened.as_ref().map(|opened| opened.identity);
        let named = fs::metadata(path);
        if named.as_ref().is_ok_and(|meta| old == Some(identity(meta))) {
            return false;
        }
        match named.and_then(|_| Opened::at(path)) {
            Ok(opened) => {
                self.opened = Some(opened);
                true
            }
            Err(error) => {
                // After other errors, such as a lack of descriptors, the old one stays in use.
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound
                        | io::ErrorKind::NotADirectory
                        | io::ErrorKind::PermissionDenied
                ) {
                    self.opened = None;
                }
                false
            }
        }
    }

    fn find(&self, lookup: Lookup, name: &str, folder: usize) -> Result<Found, Reject> {
        let root = self.opened.as_ref().ok_or(Reject::FileNotFound)?;
        let (folder, name) = name.split_at_checked(folder).ok_or(Reject::Internal)?;
        let folder = match folder {
            "" => None,
            folder => Some(lookup.open(root.borrow(), folder, DIRECTORY)),
        };
        let folder = folder.transpose().map_err(refusal)?;
        let root = folder
            .as_ref()
            .map_or_else(|| root.borrow(), OwnedFd::as_fd);
        let file = File::from(lookup.open(root, name, FILE).map_err(refusal)?);
        let meta = file.metadata().map_err(|_| Reject::Internal)?;
        if meta.is_file() {
            Ok(Found::File(file, meta))
        } else if meta.is_dir() {
            Ok(Found::Directory)
        } else {
            Err(Reject::FileNotFound)
        }
    }
}

impl Opened {
    fn at(path: &Path) -> io::Result<Self> {
        let directory = File::from(rustix::fs::open(path, DIRECTORY, Mode::empty())?);
        let identity = identity(&directory.metadata()?);
        Ok(Self {
            descriptor: directory.into(),
            identity,
        })
    }

    fn again(&self) -> io::Result<Self> {
        Ok(Self {
            descriptor: self.descriptor.try_clone()?,
            identity: self.identity,
        })
    }

    fn borrow(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn identity(meta: &Metadata) -> Identity {
    (meta.dev(), meta.ino())
}

impl Lookup {
    /// Detects what this kernel offers; a sandbox that rejects unknown system calls counts, too.
    fn detect(root: &Opened) -> Self {
        match beneath(root.borrow(), ".", DIRECTORY) {
            Err(Errno::NOSYS | Errno::PERM) => Self::Walk,
            Ok(_) | Err(_) => Self::Kernel,
        }
    }

    fn open(self, root: BorrowedFd<'_>, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut attempts = 0;
        loop {
            let opened = match self {
                Self::Kernel => beneath(root, name, flags),
                Self::Walk => walk(root, name, flags),
            };
            attempts += 1;
            match opened {
                Err(Errno::AGAIN | Errno::INTR) if attempts < ATTEMPTS => {}
                other => return other,
            }
        }
    }
}

#[cfg(target_os = "linux")]
fn beneath(root: BorrowedFd<'_>, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    use rustix::fs::ResolveFlags;

    let below = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);
    rustix::fs::openat2(root, name, flags, Mode::empty(), below)
}

#[cfg(not(target_os = "linux"))]
fn beneath(_: BorrowedFd<'_>, _: &str, _: OFlags) -> Result<OwnedFd, Errno> {
    Err(Errno::NOSYS)
}

/// Opens segment by segment. The kernel follows no symlink: its target is read and resolved in the same way. `..`
/// returns to a directory that was passed through, so nothing leads outside the root, whatever is renamed meanwhile.
fn walk(root: BorrowedFd<'_>, name: &str, last: OFlags) -> Result<OwnedFd, Errno> {
    if name.is_empty() {
        return Err(Errno::NOENT);
    }
    let mut ahead = vec![];
    push(&mut ahead, name.as_bytes());
    let mut through: Vec<OwnedFd> = Vec::new();
    let mut links = 0;
    while let Some(segment) = ahead.pop() {
        match segment.as_slice() {
            b"" | b"." => continue,
            b".." => {
                through.pop().ok_or(Errno::XDEV)?;
                continue;
            }
            _ => {}
        }
        let within = through.last().map_or(root, rustix::fd::AsFd::as_fd);
        // A segment followed by a slash is a directory.
        let flags = if ahead.is_empty() { last } else { DIRECTORY };
        let opened = rustix::fs::openat(within, &*segment, flags | OFlags::NOFOLLOW, Mode::empty());
        match opened {
            Ok(file) if ahead.is_empty() => return Ok(file),
            Ok(directory) => through.push(directory),
            // The error for a symlink is one of these, depending on the flags and the system.
            Err(error @ (Errno::LOOP | Errno::NOTDIR | Errno::MLINK)) => {
                let Ok(target) = rustix::fs::readlinkat(within, &*segment, Vec::new()) else {
                    return Err(error);
                };
                links += 1;
                if links > LINKS {
                    return Err(Errno::LOOP);
                }
                if target.as_bytes().starts_with(b"/") {
                    return Err(Errno::XDEV);
                }
                push(&mut ahead, target.as_bytes());
            }
            Err(error) => return Err(error),
        }
    }
    match through.pop() {
        Some(directory) => Ok(directory),
        None => rustix::fs::openat(root, ".", DIRECTORY, Mode::empty()),
    }
}

/// Pushes a path's segments on a stack, the first one on top.
fn push(ahead: &mut Vec<Vec<u8>>, path: &[u8]) {
    let segments = path.split(|byte| *byte == b'/').map(<[u8]>::to_vec);
    ahead.extend(segments.rev());
}

/// The refusal for a failed open.
fn refusal(error: Errno) -> Reject {
    match error {
        // XDEV: it leads outside the root. NXIO and NODEV: a socket, or a device without a driver.
        Errno::NOENT
        | Errno::NOTDIR
        | Errno::LOOP
        | Errno::XDEV
        | Errno::NAMETOOLONG
        | Errno::NXIO
        | Errno::NODEV
        | Errno::OPNOTSUPP
        | Errno::INVAL
        | Errno::ILSEQ => Reject::FileNotFound,
        Errno::ACCESS | Errno::PERM => Reject::FileForbidden,
        _ => Reject::Internal,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;

    /// The results expected below.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    enum Is {
        File,
        Directory,
        Refused(Reject),
    }

    const NOT_FOUND: Is = Is::Refused(Reject::FileNotFound);

    struct Fixture {
        folder: TempDir,
        root: Root,
        start: Instant,
    }

    /// `site/` is the root; `secret` is beside it.
    fn fixture() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let site = folder.path().join("site");
        fs::create_dir_all(site.join("sub")).unwrap();
        fs::write(folder.path().join("secret"), "secret").unwrap();
        fs::write(site.join("a.txt"), "a").unwrap();
        fs::write(site.join("sub/b.txt"), "b").unwrap();
        let start = Instant::now();
        let root = Root::open(site, 2, start).unwrap();
        Fixture {
            folder,
            root,
            start,
        }
    }

    impl Fixture {
        fn site(&self, name: &str) -> PathBuf {
            self.folder.path().join("site").join(name)
        }

        fn find(&self, name: &str, after: Duration) -> Is {
            match self.root.find(0, name, 0, self.start + after) {
                Ok(Found::File(..)) => Is::File,
                Ok(Found::Directory) => Is::Directory,
                Err(reject) => Is::Refused(reject),
            }
        }

        #[track_caller]
        fn check(&mut self, name: &str, expected: Is) {
            for lookup in [Lookup::Kernel, Lookup::Walk] {
                self.root.lookup = lookup;
                assert_eq!(
                    self.find(name, Duration::ZERO),
                    expected,
                    "{name:?} by {lookup:?}"
                );
            }
        }
    }

    #[test]
    fn this_machine_has_the_kernel_lookup() {
        // On other machines, the tests of the kernel look-up below could not pass either.
        assert_eq!(fixture().root.lookup, Lookup::Kernel);
    }

    #[test]
    fn files_and_directories_are_found() {
        let mut site = fixture();
        site.check("a.txt", Is::File);
        site.check("sub/b.txt", Is::File);
        site.check("sub", Is::Directory);
        site.check("b.txt", NOT_FOUND);
        site.check("a.txt/b.txt", NOT_FOUND);
        site.check(&"x".repeat(300), NOT_FOUND);
        site.check(&"x/".repeat(3000), NOT_FOUND);
    }

    #[test]
    fn nothing_leads_outside_the_root() {
        let mut site = fixture();
        site.check("../secret", NOT_FOUND);
        site.check("sub/../../secret", NOT_FOUND);
        let secret = site.folder.path().join("secret");
        site.check(secret.to_str().unwrap(), NOT_FOUND);
        symlink("../secret", site.site("out")).unwrap();
        site.check("out", NOT_FOUND);
        symlink("..", site.site("up")).unwrap();
        site.check("up/secret", NOT_FOUND);
        symlink("/proc/self/root", site.site("magic")).unwrap();
        site.check("magic/etc/passwd", NOT_FOUND);
    }

    #[test]
    fn a_symlink_is_followed_below_the_root_and_only_relative() {
        let mut site = fixture();
        symlink("sub/b.txt", site.site("in")).unwrap();
        site.check("in", Is::File);
        symlink("../a.txt", site.site("sub/up")).unwrap();
        site.check("sub/up", Is::File);
        symlink("sub", site.site("alias")).unwrap();
        site.check("alias/b.txt", Is::File);
        symlink(site.site("a.txt"), site.site("absolute")).unwrap();
        site.check("absolute", NOT_FOUND);
        symlink("loop", site.site("loop")).unwrap();
        site.check("loop", NOT_FOUND);
        // As Kubernetes mounts a ConfigMap.
        fs::create_dir(site.site("..2026")).unwrap();
        fs::write(site.site("..2026/index.html"), "page").unwrap();
        symlink("..2026", site.site("..data")).unwrap();
        symlink("..data/index.html", site.site("index.html")).unwrap();
        site.check("index.html", Is::File);
        for (link, to, is) in [
            ("directory", "sub/", Is::Directory),
            ("itself", ".", Is::Directory),
            ("back", "sub/..", Is::Directory),
            ("round", "sub/../sub/./b.txt", Is::File),
            ("far", "alias/../a.txt", Is::File),
            ("of", "in", Is::File),
            ("slash", "a.txt/", NOT_FOUND),
            ("above", "sub/../../site/a.txt", NOT_FOUND),
            ("through", "up/secret", NOT_FOUND),
        ] {
            symlink(to, site.site(link)).unwrap();
            site.check(link, is);
        }
        site.check("itself/alias/../itself/a.txt", Is::File);
        site.check("itself/sub/b.txt", Is::File);
        site.check("round/b.txt", NOT_FOUND);
        // The kernel gives up after forty symlinks.
        symlink("a.txt", site.site("0")).unwrap();
        for at in 1..50 {
            symlink(format!("{}", at - 1), site.site(&at.to_string())).unwrap();
        }
        site.check("39", Is::File);
        site.check("40", NOT_FOUND);
        symlink("nowhere", site.site("dangling")).unwrap();
        site.check("dangling", NOT_FOUND);
    }

    #[test]
    fn a_folder_is_not_left() {
        let mut site = fixture();
        for name in ["users/ada/x", "users/eve/x", "users/ada/sub/y"] {
            fs::create_dir_all(site.site(name).parent().unwrap()).unwrap();
            fs::write(site.site(name), name).unwrap();
        }
        symlink("../eve/x", site.site("users/ada/neighbour")).unwrap();
        symlink("../eve", site.site("users/ada/next")).unwrap();
        symlink("sub/y", site.site("users/ada/own")).unwrap();
        symlink("../x", site.site("users/ada/sub/up")).unwrap();
        symlink("ada", site.site("users/alias")).unwrap();
        symlink("../..", site.site("users/out")).unwrap();
        for lookup in [Lookup::Kernel, Lookup::Walk] {
            site.root.lookup = lookup;
            let find = |folder: &str, name: &str| {
                let path = [folder, name].concat();
                match site.root.find(0, &path, folder.len(), site.start) {
                    Ok(Found::File(..)) => Is::File,
                    Ok(Found::Directory) => Is::Directory,
                    Err(reject) => Is::Refused(reject),
                }
            };
            for (folder, name, expected) in [
                ("users/ada/", "x", Is::File),
                ("users/ada/", "own", Is::File),
                ("users/ada/", "sub/up", Is::File),
                ("users/ada/", "sub", Is::Directory),
                ("users/ada/", "neighbour", NOT_FOUND),
                ("users/ada/", "next/x", NOT_FOUND),
                ("users/ada/", "../eve/x", NOT_FOUND),
                // The one who runs the site may link folders, as long as they lie below the root.
                ("users/alias/", "x", Is::File),
                ("users/alias/", "neighbour", NOT_FOUND),
                ("users/out/", "secret", NOT_FOUND),
                ("users/bob/", "x", NOT_FOUND),
                ("a.txt/", "x", NOT_FOUND),
                // Without the folder it is only the root that is not left.
                ("", "users/ada/neighbour", Is::File),
            ] {
                assert_eq!(find(folder, name), expected, "{folder}{name} by {lookup:?}");
            }
            for (folder, name, count) in [
                ("users/ada/", "", Some(3)),
                ("users/ada/", "sub/", Some(2)),
                ("users/ada/", "next/", None),
                ("users/out/", "", None),
                ("users/bob/", "", None),
            ] {
                let path = [folder, name].concat();
                let opened = site.root.directory(0, &path, folder.len(), site.start);
                let listed = opened.ok().map(|folder| {
                    let mut count = 0;
                    let whole = folder.each(&mut 100, |_| {
                        count += 1;
                        true
                    });
                    assert!(whole.unwrap());
                    count
                });
                assert_eq!(listed, count, "{path} by {lookup:?}");
            }
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn special_files_are_not_found_and_never_waited_for() {
        use rustix::fs::{CWD, FileType, mknodat};

        let mut site = fixture();
        let mode = Mode::from_raw_mode(0o644);
        mknodat(CWD, site.site("fifo"), FileType::Fifo, mode, 0).unwrap();
        site.check("fifo", NOT_FOUND);
        let _socket = UnixListener::bind(site.site("socket")).unwrap();
        site.check("socket", NOT_FOUND);
        site.check("a.txt", Is::File);
    }

    #[test]
    fn what_may_not_be_opened_is_forbidden() {
        assert_eq!(refusal(Errno::ACCESS), Reject::FileForbidden);
        assert_eq!(refusal(Errno::NOENT), Reject::FileNotFound);
        assert_eq!(refusal(Errno::MFILE), Reject::Internal);
    }

    #[test]
    fn a_root_must_be_a_directory() {
        let site = fixture();
        assert!(Root::open(site.site("sub"), 1, site.start).is_ok());
        assert!(Root::open(site.site("a.txt"), 1, site.start).is_err());
        assert!(Root::open(site.site("nowhere"), 1, site.start).is_err());
    }

    #[test]
    fn a_worker_that_there_is_not_gets_nothing() {
        let site = fixture();
        assert!(site.root.find(1, "a.txt", 0, site.start).is_ok());
        let missing = site.root.find(2, "a.txt", 0, site.start).map(drop);
        assert_eq!(missing, Err(Reject::Internal));
    }

    /// Reads a whole file through the root.
    fn text(root: &Root, name: &str, now: Instant) -> Result<String, Reject> {
        match root.find(0, name, 0, now)? {
            Found::File(file, _) => Ok(io::read_to_string(file).unwrap()),
            Found::Directory => Ok("directory".to_owned()),
        }
    }

    #[test]
    fn a_swapped_symlink_is_taken_up_within_a_second() {
        let folder = tempfile::tempdir().unwrap();
        for release in ["1", "2"] {
            fs::create_dir(folder.path().join(release)).unwrap();
            fs::write(folder.path().join(release).join("a.txt"), release).unwrap();
        }
        let current = folder.path().join("current");
        symlink("1", &current).unwrap();
        let start = Instant::now();
        let root = Root::open(current.clone(), 1, start).unwrap();
        symlink("2", folder.path().join("next")).unwrap();
        fs::rename(folder.path().join("next"), current).unwrap();

        assert_eq!(text(&root, "a.txt", start + TRUSTED_FOR).unwrap(), "1");
        let later = start + TRUSTED_FOR + Duration::from_millis(1);
        assert_eq!(text(&root, "a.txt", later).unwrap(), "2");
    }

    #[test]
    fn a_deleted_release_is_left_at_once() {
        let site = fixture();
        fs::rename(
            site.folder.path().join("site"),
            site.folder.path().join("old"),
        )
        .unwrap();
        fs::create_dir(site.folder.path().join("site")).unwrap();
        fs::write(site.site("a.txt"), "new").unwrap();
        fs::remove_file(site.folder.path().join("old/a.txt")).unwrap();

        assert_eq!(text(&site.root, "a.txt", site.start).unwrap(), "new");
    }

    #[test]
    fn a_root_that_vanished_has_no_files_until_it_is_back() {
        let site = fixture();
        let old = site.folder.path().join("old");
        fs::rename(site.folder.path().join("site"), &old).unwrap();
        let later = Duration::from_secs(2);
        assert_eq!(site.find("a.txt", later), NOT_FOUND);
        fs::rename(&old, site.folder.path().join("site")).unwrap();
        assert_eq!(site.find("a.txt", later), Is::File);
    }
}
