//! The configuration's input: files and environment variables. Every requested file is recorded, even a missing one:
//! the reload watches them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::place::Place;
use crate::filesystem::{self, Patience};

/// Access to files and variables.
pub(crate) trait Sources {
    /// A file's bytes.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// A variable's value; `None` where it is unset or not UTF-8.
    fn var(&self, name: &str) -> Option<String>;

    /// The sorted files that match a shell pattern below `directory`; hidden ones only if the pattern has the dot.
    fn glob(&self, directory: &Path, pattern: &str) -> io::Result<Vec<PathBuf>>;

    /// Runs work that uses the file system at a path; an error where it does not respond in time.
    fn patiently(&self, path: &Path, work: Box<dyn FnOnce() + Send>) -> io::Result<()>;
}

/// How `*` matches: no slashes, and no hidden files such as an editor's.
const MATCHING: glob::MatchOptions = glob::MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// The real file system and environment.
#[derive(Clone)]
pub(crate) struct Disk {
    /// Variables that override the environment.
    pub(crate) variables: BTreeMap<String, String>,
    /// Which paths do not respond; shared by all reads of the same configuration.
    patience: Patience,
    /// The remaining time for unresponsive paths.
    left: Cell<Duration>,
}

/// The total time that all files of a configuration may block: an unavailable drive blocks each of them.
const PATIENCE: Duration = Duration::from_secs(10);
/// The minimum timeout for one file, when the others have used up the time.
const AT_LEAST: Duration = Duration::from_millis(100);

impl Disk {
    /// The disk for one read of a configuration.
    pub(crate) fn new(patience: Patience) -> Self {
        Self {
            variables: BTreeMap::new(),
            patience,
            left: Cell::new(PATIENCE),
        }
    }

    fn ask<T: Send + 'static>(
        &self,
        path: &Path,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let (start, left) = (Instant::now(), self.left.get());
        let done = self.patience.ask(path, left.max(AT_LEAST), work);
        self.left.set(left.saturating_sub(start.elapsed()));
        done
    }
}

impl Default for Disk {
    fn default() -> Self {
        Self::new(Patience::default())
    }
}

impl Sources for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let named = path.to_owned();
        self.ask(path, move || filesystem::read(&named))?
    }

    fn var(&self, name: &str) -> Option<String> {
        self.variables
            .get(name)
            .cloned()
            .or_else(|| std::env::var(name).ok())
    }

    fn glob(&self, directory: &Path, pattern: &str) -> io::Result<Vec<PathBuf>> {
        let whole = whole_pattern(directory, pattern)?;
        let asked = PathBuf::from(&whole);
        self.ask(&asked, move || {
            let found = glob::glob_with(&whole, MATCHING).map_err(io::Error::other)?;
            let mut paths: Vec<PathBuf> = found
                .map(|path| path.map_err(io::Error::from))
                .collect::<Result<_, _>>()?;
            paths.sort();
            Ok(paths)
        })?
    }

    fn patiently(&self, path: &Path, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        self.ask(path, work)
    }
}

/// The pattern below its directory, whose special characters are escaped.
fn whole_pattern(directory: &Path, pattern: &str) -> io::Result<String> {
    let no_text = || io::Error::other("the directory's name is not UTF-8");
    let directory = glob::Pattern::escape(directory.to_str().ok_or_else(no_text)?);
    let whole = Path::new(&directory).join(pattern);
    Ok(whole.to_str().ok_or_else(no_text)?.to_owned())
}

/// Reads through `Sources` and records what was requested.
pub(crate) struct Loader<'s> {
    sources: &'s dyn Sources,
    directory: PathBuf,
    seen: RefCell<Paths>,
    read: RefCell<Paths>,
    places: RefCell<HashMap<PathBuf, Place>>,
    secrets: RefCell<(Paths, Vec<Confidential>)>,
}

/// Paths in the order in which they were named first. There may be tens of thousands, one certificate each.
#[derive(Default)]
struct Paths {
    known: HashSet<PathBuf>,
    ordered: Vec<PathBuf>,
}

impl Paths {
    /// Adds a path; returns whether it is new.
    fn add(&mut self, path: &Path) -> bool {
        let is_new = self.known.insert(path.to_owned());
        if is_new {
            self.ordered.push(path.to_owned());
        }
        is_new
    }
}

/// A file that contains a secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Confidential {
    /// The file.
    pub(crate) path: PathBuf,
    /// What it contains, such as `a private key`.
    pub(crate) what: &'static str,
    /// The place of its name in the configuration.
    pub(crate) place: Place,
}

impl<'s> Loader<'s> {
    /// A loader that resolves relative paths against the directory in which the main file was named.
    pub(crate) fn new(main: &Path, sources: &'s dyn Sources) -> Self {
        let directory = main.parent().map(Path::to_owned).unwrap_or_default();
        Self {
            sources,
            directory,
            seen: RefCell::default(),
            read: RefCell::default(),
            places: RefCell::default(),
            secrets: RefCell::default(),
        }
    }

    /// The base directory of relative paths; empty for the current one.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Reads a file, whose path is used as is, and records it.
    pub(crate) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.watch(path);
        self.read.borrow_mut().add(path);
        self.sources.read(path)
    }

    /// Reads a file that clients may see, so that it may be in a served directory, too.
    pub(crate) fn read_public(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.watch(path);
        self.sources.read(path)
    }

    /// The files that were read, or that could not be read.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        self.read.borrow().ordered.clone()
    }

    /// Records where the configuration names a file.
    pub(crate) fn place(&self, path: &Path, place: Place) {
        self.places
            .borrow_mut()
            .entry(path.to_owned())
            .or_insert(place);
    }

    /// Where the configuration names a file; the default where that is not known.
    pub(crate) fn place_of(&self, path: &Path) -> Place {
        self.places.borrow().get(path).copied().unwrap_or_default()
    }

    /// Records that a file contains a secret.
    pub(crate) fn keep_secret(&self, path: &Path, what: &'static str, place: Place) {
        let (paths, secrets) = &mut *self.secrets.borrow_mut();
        if paths.add(path) {
            secrets.push(Confidential {
                path: path.to_owned(),
                what,
                place,
            });
        }
    }

    /// The files that contain secrets.
    pub(crate) fn secrets(&self) -> Vec<Confidential> {
        self.secrets.borrow().1.clone()
    }

    /// A variable's value.
    pub(crate) fn var(&self, name: &str) -> Option<String> {
        self.sources.var(name)
    }

    /// The files that match a pattern, sorted. The directory of the first wildcard is recorded, so that new files are
    /// noticed.
    pub(crate) fn glob(&self, pattern: &str) -> io::Result<Vec<PathBuf>> {
        let fixed: PathBuf = Path::new(pattern)
            .components()
            .take_while(|part| !is_pattern(&part.as_os_str().to_string_lossy()))
            .collect();
        let directory = self.directory.join(fixed);
        self.watch(if directory.as_os_str().is_empty() {
            Path::new(".")
        } else {
            &directory
        });
        self.sources.glob(&self.directory, pattern)
    }

    /// The files of a directory whose names match the pattern, sorted. The directory is recorded, so that new files are
    /// noticed.
    pub(crate) fn list(&self, directory: &Path, pattern: &str) -> io::Result<Vec<PathBuf>> {
        self.watch(directory);
        self.sources.glob(directory, pattern)
    }

    /// Runs work that uses the file system at a path, such as opening a directory; an error where it does not respond
    /// in time.
    pub(crate) fn patiently<T: Send + 'static>(
        &self,
        path: &Path,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (sender, done) = mpsc::channel();
        let asking = move || drop(sender.send(work()));
        self.sources.patiently(path, Box::new(asking))?;
        done.recv().map_err(io::Error::other)?
    }

    /// Whether two paths are the same file.
    pub(crate) fn is_same(&self, one: &Path, other: &Path) -> bool {
        let whole = |path: &Path| {
            let named = path.to_owned();
            self.patiently(path, move || std::fs::canonicalize(&named))
                .ok()
        };
        one == other || whole(one).is_some_and(|one| whole(other) == Some(one))
    }

    /// Records a file or directory that the configuration names but that is read elsewhere.
    pub(crate) fn watch(&self, path: &Path) {
        self.seen.borrow_mut().add(path);
    }

    /// All requested files and directories, the main file first.
    pub(crate) fn seen(&self) -> Vec<PathBuf> {
        self.seen.borrow().ordered.clone()
    }
}

/// Whether an include is a pattern, not one file's name.
pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// The line and column, in characters and from 1, at which the bytes are no longer UTF-8.
pub(crate) fn after(bytes: &[u8], good: usize) -> (u32, u32) {
    let good = String::from_utf8_lossy(bytes.get(..good).unwrap_or_default());
    let last = good.rsplit('\n').next().unwrap_or_default();
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).saturating_add(1);
    (
        number(good.matches('\n').count()),
        number(last.chars().count()),
    )
}

/// The reason why a file cannot be read.
pub(crate) fn why(error: &io::Error) -> String {
    // Few kinds need their own text; the system's text is used for the others.
    if error.kind() == io::ErrorKind::NotFound {
        "there is no such file".to_owned()
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        "permission denied".to_owned()
    } else {
        error.to_string()
    }
}

/// Files and variables in memory.
#[cfg(any(test, fuzzing))]
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// The files.
    pub(crate) files: BTreeMap<PathBuf, Vec<u8>>,
    /// The variables.
    pub(crate) variables: BTreeMap<String, String>,
}

#[cfg(any(test, fuzzing))]
impl Memory {
    /// Adds a file.
    pub(crate) fn file(mut self, path: &str, bytes: impl AsRef<[u8]>) -> Self {
        self.files.insert(path.into(), bytes.as_ref().to_vec());
        self
    }

    /// Adds a variable.
    #[cfg(test)]
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }
}

#[cfg(any(test, fuzzing))]
impl Sources for Memory {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files
            .get(path)
            .cloned()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn var(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    fn glob(&self, directory: &Path, pattern: &str) -> io::Result<Vec<PathBuf>> {
        let pattern =
            glob::Pattern::new(&whole_pattern(directory, pattern)?).map_err(io::Error::other)?;
        let fits = |path: &&PathBuf| pattern.matches_path_with(path, MATCHING);
        Ok(self.files.keys().filter(fits).cloned().collect())
    }

    fn patiently(&self, _path: &Path, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        work();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_start_at_the_folder_and_leave_hidden_files_out() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("a[1]");
        std::fs::create_dir_all(root.join("conf.d")).unwrap();
        for name in ["b.yaml", "a.yaml", ".hidden.yaml", "c.txt"] {
            std::fs::write(root.join("conf.d").join(name), "x").unwrap();
        }
        let disk = Disk::default();
        let loader = Loader::new(&root.join("gateway.yaml"), &disk);
        let found = loader.glob("conf.d/*.yaml").unwrap();
        assert_eq!(
            found,
            [root.join("conf.d/a.yaml"), root.join("conf.d/b.yaml")]
        );
        assert!(loader.read(&root.join("none")).is_err());
        assert_eq!(loader.seen(), [root.join("conf.d"), root.join("none")]);
    }

    #[test]
    fn given_variables_go_before_the_environment() {
        let disk = Disk {
            variables: [("PATH".to_owned(), "mine".to_owned())].into(),
            ..Disk::default()
        };
        assert_eq!(disk.var("PATH").as_deref(), Some("mine"));
        assert_eq!(disk.var("PORTCULLIS_SURELY_NOT_SET"), None);
    }
}
