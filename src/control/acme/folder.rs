//! What ACME keeps in a `state` directory. Every file is written beside its place, synced and renamed, so that a process
//! that is killed at any moment leaves the old file or the new one. Links below `state` are not followed. These calls
//! block; `store` makes them wait elsewhere.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::rows::{AccountRow, Pem, Place, Row, file_name};

/// The largest file that is read, in bytes.
const LARGEST: u64 = 1 << 20;
/// The directory below `state`.
const ROOT: &str = "acme";
const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";
/// The key of the next certificate, from before its order is finalised.
const NEXT_KEY: &str = "next-key.pem";
/// The next certificate, until both it and its key have their names.
const NEXT_CERTIFICATE: &str = "next-cert.pem";
const ROW: &str = "meta.json";
/// Has a file for each certificate that is to be renewed now. No host's directory begins with a dot.
const RENEW: &str = ".renew";
/// Locked by the process that orders.
const LOCK: &str = "lock";

/// Permission to order with a `state` directory, until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "closing it releases the lock")] File);

/// The directory of `state`.
#[derive(Clone, Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// The directory at this path; it is made when something is written.
    pub(crate) fn new(state: &Path) -> Self {
        Self(state.to_owned())
    }

    /// Takes the right to order, which one process has; `None` where another has it.
    ///
    /// # Errors
    /// The lock file cannot be made.
    pub(crate) fn lock(&self) -> io::Result<Option<Lock>> {
        let root = self.made(&[])?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&root, LOCK, flags, Mode::RUSR | Mode::WUSR)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock(File::from(file)))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// An account by its id.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub(crate) fn account(&self, host: &str, id: &str) -> io::Result<Option<AccountRow>> {
        self.json(&[&file_name(host)], &account_file(id))
    }

    /// Keeps an account.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn keep_account(&self, host: &str, id: &str, row: &AccountRow) -> io::Result<()> {
        let directory = self.made(&[&file_name(host)])?;
        write(&directory, &account_file(id), &to_json(row)?)
    }

    /// What is known about a certificate.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub(crate) fn row(&self, place: &Place) -> io::Result<Option<Row>> {
        self.json(&[&place.host, &place.name], ROW)
    }

    /// Keeps what is known about a certificate.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn keep_row(&self, place: &Place, row: &Row) -> io::Result<()> {
        write(&self.made(&parts(place))?, ROW, &to_json(row)?)
    }

    /// The certificate and its key. Where a process was killed while it gave both their names, that is finished first.
    ///
    /// # Errors
    /// They cannot be read.
    pub(crate) fn certificate(
        &self,
        place: &Place,
        fits: impl Fn(&Pem) -> bool,
    ) -> io::Result<Option<Pem>> {
        let Some(directory) = self.there(&parts(place))? else {
            return Ok(None);
        };
        let Some(key) = read(&directory, KEY)? else {
            return Ok(None);
        };
        if let Some(chain) = read(&directory, NEXT_CERTIFICATE)? {
            let pem = Pem {
                chain,
                key: key.clone(),
            };
            if fits(&pem) {
                rustix::fs::renameat(&directory, NEXT_CERTIFICATE, &directory, CERTIFICATE)?;
                rustix::fs::fsync(&directory)?;
                return Ok(Some(pem));
            }
        }
        let chain = read(&directory, CERTIFICATE)?;
        Ok(chain.map(|chain| Pem { chain, key }))
    }

    /// Keeps a certificate whose key is the next key.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn keep_certificate(&self, place: &Place, chain: &[u8]) -> io::Result<()> {
        let directory = self.made(&parts(place))?;
        write(&directory, NEXT_CERTIFICATE, chain)?;
        match rustix::fs::renameat(&directory, NEXT_KEY, &directory, KEY) {
            // It was renamed before the process was killed.
            Err(Errno::NOENT) => {}
            renamed => renamed?,
        }
        match rustix::fs::renameat(&directory, NEXT_CERTIFICATE, &directory, CERTIFICATE) {
            // `cert list` was faster.
            Err(Errno::NOENT) => {}
            renamed => renamed?,
        }
        Ok(rustix::fs::fsync(&directory)?)
    }

    /// The key of the order in progress: the next key, or the current one where a process was killed after it was
    /// renamed.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn next_key(&self, place: &Place) -> io::Result<Option<Vec<u8>>> {
        match self.there(&parts(place))? {
            Some(directory) => read(&directory, NEXT_KEY),
            None => Ok(None),
        }
    }

    /// The key of the certificate in force, for an order that was downloaded but not noted as done.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn key(&self, place: &Place) -> io::Result<Option<Vec<u8>>> {
        match self.there(&parts(place))? {
            Some(directory) => read(&directory, KEY),
            None => Ok(None),
        }
    }

    /// Keeps the key of an order.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn keep_next_key(&self, place: &Place, key: &[u8]) -> io::Result<()> {
        write(&self.made(&parts(place))?, NEXT_KEY, key)
    }

    /// Forgets the key of an order that is not finished.
    ///
    /// # Errors
    /// It cannot be removed.
    pub(crate) fn drop_next_key(&self, place: &Place) -> io::Result<()> {
        match self.there(&parts(place))? {
            Some(directory) => remove(&directory, NEXT_KEY),
            None => Ok(()),
        }
    }

    /// Asks the running gateway to renew a certificate.
    ///
    /// # Errors
    /// The request cannot be written.
    pub(crate) fn ask_renewal(&self, place: &Place) -> io::Result<()> {
        write(&self.made(&[RENEW])?, &place.name, b"")
    }

    /// All requests for renewal: the names of the certificates' places.
    ///
    /// # Errors
    /// They cannot be read.
    pub(crate) fn renewals(&self) -> io::Result<Vec<String>> {
        let Some(directory) = self.there(&[RENEW])? else {
            return Ok(Vec::new());
        };
        let mut asked = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            // One that begins with a dot is not written yet.
            if !name.starts_with('.') {
                asked.push(name);
            }
        }
        Ok(asked)
    }

    /// Ends a request for renewal, which is noted in the row.
    ///
    /// # Errors
    /// It cannot be removed.
    pub(crate) fn end_renewal(&self, place: &Place) -> io::Result<()> {
        match self.there(&[RENEW])? {
            Some(directory) => remove(&directory, &place.name),
            None => Ok(()),
        }
    }

    fn json<T: DeserializeOwned>(&self, parts: &[&str], name: &str) -> io::Result<Option<T>> {
        let Some(directory) = self.there(parts)? else {
            return Ok(None);
        };
        let Some(bytes) = read(&directory, name)? else {
            return Ok(None);
        };
        let row = serde_json::from_slice(&bytes);
        row.map(Some).map_err(|error| {
            let why = format!("`{name}` is damaged: {error}");
            io::Error::new(io::ErrorKind::InvalidData, why)
        })
    }

    /// A directory below `state/acme`, if it exists.
    fn there(&self, parts: &[&str]) -> io::Result<Option<OwnedFd>> {
        let mut directory = match open_state(&self.0) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        for part in [ROOT].iter().chain(parts) {
            directory = match step(&directory, part) {
                Ok(next) => next,
                Err(Errno::NOENT) => return Ok(None),
                Err(error) => return Err(named(error, part)),
            };
        }
        Ok(Some(directory))
    }

    /// A directory below `state/acme`, which is made for its owner alone where it is missing.
    fn made(&self, parts: &[&str]) -> io::Result<OwnedFd> {
        let mut directory = match open_state(&self.0) {
            Err(Errno::NOENT) => {
                std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&self.0)?;
                open_state(&self.0)?
            }
            opened => opened?,
        };
        for part in [ROOT].iter().chain(parts) {
            let next = match step(&directory, part) {
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(&directory, *part, Mode::RWXU) {
                        // Another process was first.
                        Ok(()) | Err(Errno::EXIST) => rustix::fs::fsync(&directory)?,
                        Err(error) => return Err(named(error, part)),
                    }
                    step(&directory, part)
                }
                opened => opened,
            };
            directory = next.map_err(|error| named(error, part))?;
        }
        Ok(directory)
    }
}

fn parts(place: &Place) -> [&str; 2] {
    [&place.host, &place.name]
}

fn account_file(id: &str) -> String {
    format!("account-{}.json", file_name(id))
}

/// The directory of `state` itself may be behind links: systemd's `StateDirectory=` is one.
fn open_state(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
}

fn step(directory: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

fn named(error: Errno, part: &str) -> io::Error {
    let why = match error {
        Errno::LOOP | Errno::NOTDIR => format!("`{part}` is a link or no directory"),
        error => format!("`{part}`: {}", io::Error::from(error)),
    };
    io::Error::new(io::Error::from(error).kind(), why)
}

/// A regular file's content; `None` where it is missing.
fn read(directory: &OwnedFd, name: &str) -> io::Result<Option<Vec<u8>>> {
    // A pipe must not wait for its other end.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => {
            return Err(io::Error::other(format!("`{name}` is a link")));
        }
        Err(error) => return Err(error.into()),
    };
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
    if kind != FileType::RegularFile {
        return Err(io::Error::other(format!("`{name}` is no regular file")));
    }
    let mut bytes = Vec::new();
    File::from(file).take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other(format!("`{name}` is larger than 1 MiB")));
    }
    Ok(Some(bytes))
}

/// Writes a file for its owner alone, beside its place, and renames it.
fn write(directory: &OwnedFd, name: &str, bytes: &[u8]) -> io::Result<()> {
    let beside = format!(".{name}.new");
    // A process that was killed may have left it behind.
    remove(directory, &beside)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let owner = Mode::RUSR | Mode::WUSR;
    let mut file = File::from(rustix::fs::openat(directory, &*beside, flags, owner)?);
    file.write_all(bytes)?;
    file.sync_all()?;
    rustix::fs::renameat(directory, &*beside, directory, name)?;
    Ok(rustix::fs::fsync(directory.as_fd())?)
}

fn remove(directory: &OwnedFd, name: &str) -> io::Result<()> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn to_json(row: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(row).map_err(io::Error::other)?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_kept_is_for_its_owner_alone_and_can_be_read_back() {
        let there = tempfile::tempdir().unwrap();
        let state = there.path().join("data");
        let folder = Folder::new(&state);
        let place = Place::new("ca.test:14000", "*.a.test");
        assert_eq!(folder.row(&place).unwrap(), None);
        let row = Row {
            names: vec!["*.a.test".to_owned()],
            next: 7,
            ..Row::default()
        };
        folder.keep_row(&place, &row).unwrap();
        assert_eq!(folder.row(&place).unwrap(), Some(row));
        let named = state.join("acme/ca.test_14000/_.a.test");
        assert_eq!(mode(&state), 0o700);
        assert_eq!(mode(&named), 0o700);
        assert_eq!(mode(&named.join("meta.json")), 0o600);

        assert!(folder.renewals().unwrap().is_empty());
        folder.ask_renewal(&place).unwrap();
        assert_eq!(folder.renewals().unwrap(), ["_.a.test"]);
        folder.end_renewal(&place).unwrap();
        assert!(folder.renewals().unwrap().is_empty());

        let lock = folder.lock().unwrap();
        assert!(lock.is_some());
        assert!(folder.lock().unwrap().is_none());
        drop(lock);
        assert!(folder.lock().unwrap().is_some());
    }

    #[test]
    fn a_certificate_and_its_key_change_together_wherever_it_stops() {
        let there = tempfile::tempdir().unwrap();
        let folder = Folder::new(there.path());
        let place = Place::new("ca.test", "a.test");
        // A chain fits a key of the same number.
        let fits = |pem: &Pem| pem.chain.last() == pem.key.last();
        let current = || folder.certificate(&place, fits).unwrap().unwrap();
        folder.keep_next_key(&place, b"key 1").unwrap();
        folder.keep_certificate(&place, b"chain 1").unwrap();
        assert_eq!(current().chain, b"chain 1");
        assert_eq!(folder.next_key(&place).unwrap(), None);

        let named = there.path().join("acme/ca.test/a.test");
        folder.keep_next_key(&place, b"key 2").unwrap();
        assert_eq!(current().key, b"key 1", "killed before it arrived");
        std::fs::write(named.join("next-cert.pem"), b"chain 2").unwrap();
        assert_eq!(current().key, b"key 1", "killed before the key's rename");
        std::fs::rename(named.join("next-key.pem"), named.join("key.pem")).unwrap();
        let pem = current();
        assert_eq!(
            (pem.chain.as_slice(), pem.key.as_slice()),
            (&b"chain 2"[..], &b"key 2"[..])
        );
        assert_eq!(std::fs::read(named.join("cert.pem")).unwrap(), b"chain 2");
        assert!(!named.join("next-cert.pem").exists());
    }

    #[test]
    fn links_below_the_state_are_not_followed() {
        let (there, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let place = Place::new("ca.test", "a.test");
        let other = Folder::new(elsewhere.path());
        other.keep_next_key(&place, b"stolen").unwrap();
        // The whole directory, one below it, and a file.
        symlink(elsewhere.path().join("acme"), there.path().join("acme")).unwrap();
        let folder = Folder::new(there.path());
        assert!(folder.next_key(&place).is_err());
        assert!(folder.keep_next_key(&place, b"mine").is_err());
        std::fs::remove_file(there.path().join("acme")).unwrap();
        std::fs::create_dir(there.path().join("acme")).unwrap();
        let (from, to) = ("acme/ca.test", there.path().join("acme/ca.test"));
        symlink(elsewhere.path().join(from), &to).unwrap();
        let why = folder.keep_next_key(&place, b"mine").unwrap_err();
        assert_eq!(why.to_string(), "`ca.test` is a link or no directory");
        std::fs::remove_file(&to).unwrap();
        std::fs::create_dir_all(to.join("a.test")).unwrap();
        let key = "acme/ca.test/a.test/next-key.pem";
        symlink(elsewhere.path().join(key), there.path().join(key)).unwrap();
        let why = folder.next_key(&place).unwrap_err().to_string();
        assert_eq!(why, "`next-key.pem` is a link");
        // Writing replaces the link itself.
        folder.keep_next_key(&place, b"mine").unwrap();
        assert_eq!(folder.next_key(&place).unwrap().unwrap(), b"mine");
        assert_eq!(other.next_key(&place).unwrap().unwrap(), b"stolen");
    }
}
