//! Writes files that contain secrets: atomically, and readable only by their owner.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{Gid, Mode, Uid, fchmod, fchown};

/// Writes a file atomically and durably. It gets the owner of the file that it replaces, or of the directory if there
/// was none, so that root can write files that the gateway's user reads; its group keeps read access if it had it,
/// others never get access. Symbolic links are followed.
///
/// # Errors
/// Any error of the file system.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let target = match std::fs::canonicalize(path) {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(error),
    };
    let directory = target
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."));
    let before = match std::fs::metadata(&target) {
        Ok(before) => Some(before),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let mut random = [0_u8; 8];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    let tail: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let beside = directory.join(format!(".{name}.{tail}"));
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        belong(&file, before.as_ref(), &std::fs::metadata(directory)?)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, &target)?;
        File::open(directory)?.sync_all()
    })();
    if written.is_err() {
        // The partial file is useless.
        drop(std::fs::remove_file(&beside));
    }
    written
}

/// Gives the new file the owner of the replaced one, or of the directory.
fn belong(file: &File, before: Option<&Metadata>, directory: &Metadata) -> io::Result<()> {
    let now = file.metadata()?;
    let model = before.unwrap_or(directory);
    if (model.uid(), model.gid()) != (now.uid(), now.gid()) {
        let owner = (model.uid() != now.uid()).then(|| Uid::from_raw(model.uid()));
        let given = fchown(file.as_fd(), owner, Some(Gid::from_raw(model.gid())));
        if owner.is_some() {
            // Otherwise the gateway could no longer read its own file.
            given?;
        }
    }
    if let Some(before) = before {
        fchmod(
            file.as_fd(),
            Mode::from_raw_mode(before.permissions().mode() & 0o640 | 0o600),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_file_is_private_whole_and_keeps_its_group() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users.yaml");
        write_private(&path, b"one").unwrap();
        assert_eq!(
            (mode(&path), std::fs::read(&path).unwrap()),
            (0o600, b"one".to_vec())
        );
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o664)).unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(
            (mode(&path), std::fs::read(&path).unwrap()),
            (0o640, b"two".to_vec())
        );
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(write_private(&directory.path().join("none/users.yaml"), b"").is_err());
    }

    #[test]
    fn a_link_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("real"), directory.path().join("link"));
        std::fs::write(&path, b"one").unwrap();
        std::os::unix::fs::symlink("real", &link).unwrap();
        write_private(&link, b"two").unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
    }

    #[test]
    fn what_root_writes_belongs_to_whom_it_belonged() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users.yaml");
        std::fs::write(&path, b"one").unwrap();
        std::os::unix::fs::chown(&path, Some(1234), Some(1235)).unwrap();
        write_private(&path, b"two").unwrap();
        let now = std::fs::metadata(&path).unwrap();
        assert_eq!((now.uid(), now.gid(), mode(&path)), (1234, 1235, 0o640));
        std::os::unix::fs::chown(directory.path(), Some(1236), Some(1237)).unwrap();
        let new = directory.path().join("new");
        write_private(&new, b"").unwrap();
        let now = std::fs::metadata(&new).unwrap();
        assert_eq!((now.uid(), now.gid(), mode(&new)), (1236, 1237, 0o600));
    }
}
