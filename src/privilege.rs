//! The user that serves, where root starts the gateway: who that is, making files as that user before the process becomes
//! it, and finding out what that user may do. Becoming the user is `server`'s.

use std::io;
use std::marker::PhantomData;
use std::path::{Display, Path, PathBuf};

use rustix::fs::Access;

/// A user of the system, with a group.
#[derive(Clone, Debug)]
pub(crate) struct User {
    /// The name.
    pub(crate) name: String,
    /// Its id.
    pub(crate) uid: u32,
    /// The name of its group, or of the one that the configuration names.
    pub(crate) group: String,
    /// The id of that group.
    pub(crate) gid: u32,
    /// All of its groups.
    pub(crate) groups: Vec<u32>,
}

impl PartialEq for User {
    /// Further groups are those of the start, and do not tell users apart.
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.uid, self.gid) == (&other.name, other.uid, other.gid)
    }
}

impl Eq for User {}

impl std::fmt::Display for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.name, self.group)
    }
}

impl User {
    /// Whether this process, or this thread, is the user already.
    pub(crate) fn is_here(&self) -> bool {
        use rustix::process::{getegid, geteuid};

        (geteuid().as_raw(), getegid().as_raw()) == (self.uid, self.gid)
    }
}

/// While it lives, its thread and those that this starts make files and directories as a user, and open existing ones
/// as root. It is for threads of root.
#[derive(Debug)]
pub(crate) struct MakesAs {
    /// The thread's group before.
    #[cfg(target_os = "linux")]
    group: rustix::process::Gid,
    /// It belongs to its thread.
    _thread: PhantomData<*const ()>,
}

#[cfg(target_os = "linux")]
impl MakesAs {
    /// Begins; `None` where this is not root: then all that it makes is its own.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn begin(user: &User) -> io::Result<Option<Self>> {
        use rustix::process::{Gid, Uid, getegid, geteuid};
        use rustix::thread::{
            CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_thread_res_gid,
            set_thread_res_uid,
        };

        if !geteuid().is_root() {
            return Ok(None);
        }
        let rights = capabilities(None)?;
        let own = Self {
            group: getegid(),
            _thread: PhantomData,
        };
        // The real and the saved ids stay root's, so that dropping it is possible. Files are made with the effective ones.
        set_thread_res_gid(None, Gid::from_raw(user.gid), None)?;
        set_thread_res_uid(None, Uid::from_raw(user.uid), None)?;
        let opening = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
        let rights = CapabilitySets {
            effective: rights.permitted & opening,
            ..rights
        };
        set_capabilities(None, rights)?;
        Ok(Some(own))
    }
}

#[cfg(target_os = "linux")]
impl Drop for MakesAs {
    fn drop(&mut self) {
        use rustix::process::Uid;
        use rustix::thread::{set_thread_res_gid, set_thread_res_uid};

        // Its effective rights come back with the user.
        let restored = set_thread_res_uid(None, Uid::ROOT, None)
            .and_then(|()| set_thread_res_gid(None, self.group, None));
        if let Err(error) = restored {
            tracing::error!(%error, "a thread cannot become root again");
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl MakesAs {
    /// Ids of threads are Linux's.
    ///
    /// # Errors
    /// None.
    pub(crate) fn begin(_: &User) -> io::Result<Option<Self>> {
        Ok(None)
    }
}

/// What a user must be able to do with a file or a directory.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Need {
    /// Read the file.
    Read,
    /// Read and change the file.
    Change,
    /// Connect to the socket.
    Connect,
    /// Open what is in the directory.
    Enter,
    /// List, make and remove what is in the directory.
    Fill,
}

impl Need {
    fn access(self) -> Access {
        match self {
            Self::Read => Access::READ_OK,
            Self::Change => Access::READ_OK | Access::WRITE_OK,
            Self::Connect => Access::WRITE_OK,
            Self::Enter => Access::EXEC_OK,
            Self::Fill => Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK,
        }
    }

    /// The permissions as chmod(1) has them.
    fn letters(self) -> &'static str {
        match self {
            Self::Read => "r",
            Self::Change => "rw",
            Self::Connect => "w",
            Self::Enter => "x",
            Self::Fill => "rwx",
        }
    }
}

/// What stands in a user's way to a file or a directory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Bar {
    /// The directory that it cannot enter, or the file itself.
    pub(crate) at: PathBuf,
    /// What it would have to be able to do with that.
    pub(crate) need: Need,
}

impl Bar {
    /// The path, as a message and a shell have it.
    pub(crate) fn shown(&self) -> Display<'_> {
        match self.at.as_os_str().is_empty() {
            true => Path::new(".").display(),
            false => self.at.display(),
        }
    }

    /// The commands that let the user in, by its group.
    pub(crate) fn remedy(&self, user: &User) -> String {
        let (at, letters) = (self.shown(), self.need.letters());
        match self.need {
            Need::Read | Need::Enter | Need::Connect => {
                format!("chgrp {} {at} && chmod g+{letters} {at}", user.group)
            }
            Need::Change | Need::Fill => format!("chown {user} {at} && chmod u+{letters} {at}"),
        }
    }
}

/// What stands in a user's way to these, in their order; `None` where nothing does, and where there is no such file. It
/// asks the system, on a thread that becomes the user and ends. It is for root.
///
/// # Errors
/// The system refuses the thread, or that it becomes the user.
#[cfg(target_os = "linux")]
pub(crate) fn bars(user: &User, needs: Vec<(PathBuf, Need)>) -> io::Result<Vec<Option<Bar>>> {
    use rustix::process::{Gid, Uid};
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
    let asking = std::thread::Builder::new()
        .name("as-user".to_owned())
        .spawn(move || -> io::Result<Vec<Option<Bar>>> {
            set_thread_groups(&groups)?;
            set_thread_res_gid(gid, gid, gid)?;
            set_thread_res_uid(uid, uid, uid)?;
            Ok(needs.iter().map(|(path, need)| bar(path, *need)).collect())
        })?;
    asking
        .join()
        .map_err(|_| io::Error::other("the thread that asked panicked"))?
}

/// Ids of threads are Linux's.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub(crate) fn bars(_: &User, needs: Vec<(PathBuf, Need)>) -> io::Result<Vec<Option<Bar>>> {
    Ok(needs.iter().map(|_| None).collect())
}

/// What stands in this thread's way to a path.
#[cfg(target_os = "linux")]
fn bar(path: &Path, need: Need) -> Option<Bar> {
    use rustix::fs::{AtFlags, CWD};
    use rustix::io::Errno;

    let refuses = |path: &Path, need: Need| {
        let path = match path.as_os_str().is_empty() {
            true => Path::new("."),
            false => path,
        };
        let asked = rustix::fs::accessat(CWD, path, need.access(), AtFlags::empty());
        matches!(asked, Err(Errno::ACCESS | Errno::PERM))
    };
    if !refuses(path, need) {
        return None;
    }
    // Links lead through directories of their own.
    let whole = |path: &Path| std::fs::read_link(path).map(|to| path.with_file_name("").join(to));
    let mut path = path.to_owned();
    for _ in 0..8 {
        let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
        above.reverse();
        if let Some(closed) = above.into_iter().find(|it| refuses(it, Need::Enter)) {
            let at = closed.to_owned();
            return Some(Bar {
                at,
                need: Need::Enter,
            });
        }
        match whole(&path) {
            Ok(to) => path = to,
            Err(_) => break,
        }
    }
    Some(Bar { at: path, need })
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;

    /// An id that is nobody's here.
    const STRANGER: u32 = 54_321;

    fn stranger() -> User {
        User {
            name: "stranger".to_owned(),
            uid: STRANGER,
            group: "strangers".to_owned(),
            gid: STRANGER,
            groups: vec![STRANGER],
        }
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_a_thread_makes_is_the_users_and_what_it_reads_is_roots() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("secret"), "text").unwrap();
        chmod(&path("secret"), 0o600);
        let user = stranger();
        let work = || {
            let making = MakesAs::begin(&user).unwrap();
            assert!(making.is_some());
            fs::create_dir(path("made")).unwrap();
            let read = std::thread::scope(|scope| {
                let reading = scope.spawn(|| {
                    fs::write(path("made/file"), "x").unwrap();
                    fs::read_to_string(path("secret")).unwrap()
                });
                reading.join().unwrap()
            });
            assert_eq!(read, "text");
            drop(making);
            fs::write(path("after"), "x").unwrap();
        };
        // A thread of its own: the others of this test stay as they are.
        std::thread::scope(|scope| scope.spawn(work).join().unwrap());
        fs::write(path("beside"), "x").unwrap();
        let owner = |name: &str| {
            let there = fs::metadata(path(name)).unwrap();
            (there.uid(), there.gid())
        };
        assert_eq!(owner("made"), (STRANGER, STRANGER));
        assert_eq!(owner("made/file"), (STRANGER, STRANGER));
        assert_eq!((owner("after").0, owner("beside").0), (0, 0));
    }

    #[test]
    fn what_stands_in_a_users_way_is_named() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        chmod(directory.path(), 0o755);
        let path = |name: &str| directory.path().join(name);
        for (name, mode) in [("open", 0o755), ("closed", 0o750)] {
            fs::create_dir(path(name)).unwrap();
            fs::write(path(&format!("{name}/readable")), "x").unwrap();
            fs::write(path(&format!("{name}/secret")), "x").unwrap();
            chmod(&path(&format!("{name}/secret")), 0o640);
            chmod(&path(name), mode);
        }
        symlink("closed/readable", path("link")).unwrap();
        std::os::unix::fs::chown(path("open/secret"), None, Some(STRANGER)).unwrap();
        let rows = [
            ("open/readable", Need::Read, None),
            ("open/secret", Need::Read, None),
            (
                "open/secret",
                Need::Change,
                Some(("open/secret", Need::Change)),
            ),
            ("open/none", Need::Read, None),
            ("open", Need::Enter, None),
            ("open", Need::Fill, Some(("open", Need::Fill))),
            ("closed", Need::Enter, Some(("closed", Need::Enter))),
            ("closed/readable", Need::Read, Some(("closed", Need::Enter))),
            ("link", Need::Read, Some(("closed", Need::Enter))),
        ];
        let needs = rows.map(|(name, need, _)| (path(name), need)).to_vec();
        let found = bars(&stranger(), needs).unwrap();
        for ((name, need, expected), found) in rows.iter().zip(&found) {
            let expected = expected.map(|(name, need)| Bar {
                at: path(name),
                need,
            });
            assert_eq!(*found, expected, "{name} {need:?}");
        }
        assert!(rustix::process::geteuid().is_root(), "only that thread");
        let bar = |need| Bar {
            at: PathBuf::from("a.key"),
            need,
        };
        assert_eq!(
            bar(Need::Read).remedy(&stranger()),
            "chgrp strangers a.key && chmod g+r a.key"
        );
        assert_eq!(
            bar(Need::Fill).remedy(&stranger()),
            "chown stranger:strangers a.key && chmod u+rwx a.key"
        );
    }
}
