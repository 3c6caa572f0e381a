//! Loads a configuration: from a file's name to a snapshot, with everything that a reload needs.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use super::compile::{Purpose, compile};
use super::decode;
use super::error::{ConfigErrors, ConfigWarning};
use super::lines::AllLines;
use super::merge;
use super::place::Place;
use super::policy_tests;
use super::source::{Disk, Sources};
use crate::filesystem::Patience;
use crate::snapshot::{PolicyTest, Snapshot};

/// The limit for routes named in warnings.
const HAZARDS: usize = 50;

/// A valid configuration.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The compiled snapshot.
    pub(crate) snapshot: Snapshot,
    /// Warnings about settings that are allowed, but dangerous.
    pub(crate) warnings: Vec<ConfigWarning>,
    /// The configuration as YAML, its secrets hidden.
    pub(crate) printed: String,
    /// The lines of its routes and of the settings that apply to them.
    pub(crate) lines: AllLines,
    /// The files and directories that it was read from.
    pub(crate) files: Vec<PathBuf>,
    /// A digest of the contents.
    pub(crate) digest: u64,
}

/// A configuration with errors.
#[derive(Debug)]
pub(crate) struct Refused {
    /// All errors.
    pub(crate) errors: ConfigErrors,
    /// The files and directories that were read.
    pub(crate) files: Vec<PathBuf>,
    /// A digest of the contents.
    pub(crate) digest: u64,
}

/// The result of deciding requests with a configuration that compiles.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// The index of each policy test that fails, and why.
    pub(crate) failing: Vec<(usize, String)>,
    /// Warnings, each with the index of its route.
    pub(crate) hazards: Vec<(usize, String)>,
}

/// Runs the policy tests of a configuration, and detects unintended access.
pub(crate) type Judge<'j> = &'j dyn Fn(&Snapshot) -> Verdict;

/// Reads and compiles the configuration at `main` to look at it, and runs its tests. The tests of the files `more` are read but not
/// run.
///
/// # Errors
/// All errors at once; a failing test is one.
pub(crate) fn load(main: &Path, more: &[PathBuf], judge: Judge<'_>) -> Result<Loaded, Refused> {
    load_again(main, more, judge, None, &Patience::default(), Purpose::Look)
}

/// The same for a configuration that is read repeatedly, and for a purpose. Parts equal in `previous` are kept; a file that did not
/// respond before, as `patience` knows, is not waited for again.
///
/// # Errors
/// All errors at once; a failing test is one.
pub(crate) fn load_again(
    main: &Path,
    more: &[PathBuf],
    judge: Judge<'_>,
    previous: Option<&Snapshot>,
    patience: &Patience,
    purpose: Purpose,
) -> Result<Loaded, Refused> {
    let sources = Digesting {
        disk: Disk::new(patience.clone()),
        hasher: RefCell::new(DefaultHasher::new()),
    };
    let mut read = super::read(main, &sources);
    let mut tests = Vec::new();
    if let Some(gateway) = &mut read.gateway {
        tests.append(&mut gateway.tests);
    }
    for path in more {
        let place = Place::default();
        if let Some(node) = merge::side_file(path, place, &read.loader, &mut read.errors) {
            let mut decoder = decode::Decoder {
                errors: &mut read.errors,
                directory: read.loader.directory(),
            };
            tests.extend(decoder.test_file(&node));
        }
    }
    let places: Vec<Place> = tests.iter().map(|test| test.place).collect();
    let tests: Vec<PolicyTest> = tests
        .into_iter()
        .map(|test| policy_tests::with_certificate(test.value, &read.loader, &mut read.errors))
        .collect();
    let compiled = read
        .gateway
        .as_ref()
        .and_then(|gateway| compile(gateway, &read.loader, &mut read.errors, previous, purpose));
    let compiled = compiled.map(|(mut snapshot, warnings)| {
        snapshot.tests = tests;
        let verdict = judge(&snapshot);
        for (at, why) in verdict.failing {
            let place = places.get(at).copied().unwrap_or_default();
            read.errors.at(place, format!("this test fails: {why}"));
        }
        let routes = read.gateway.iter().flat_map(|gateway| &gateway.routes);
        let routes: Vec<Place> = routes.map(|route| route.path.place).collect();
        for (at, hazard) in verdict.hazards.iter().take(HAZARDS) {
            let place = routes.get(*at).copied().unwrap_or_default();
            read.errors.warn(place, hazard);
        }
        let more = verdict.hazards.len().saturating_sub(HAZARDS);
        if more > 0 {
            let warning = format!("the same applies to {more} more routes");
            read.errors.warn(Place::default(), &warning);
        }
        (snapshot, warnings)
    });
    if compiled.is_none() && read.errors.is_empty() {
        // Reports at least one error where there is no snapshot.
        read.errors
            .at(Place::default(), "the configuration cannot be compiled");
    }
    let early = read.errors.take_warnings();
    let printed = read.print();
    let lines = AllLines::of(read.tree.as_ref(), &read.errors);
    let files = read.loader.seen();
    let digest = sources.hasher.borrow().finish();
    match (compiled, read.errors.finish()) {
        (Some((snapshot, warnings)), Ok(())) => Ok(Loaded {
            snapshot,
            warnings: early
                .into_iter()
                .chain(warnings.into_iter().map(ConfigWarning::from))
                .collect(),
            printed,
            lines,
            files,
            digest,
        }),
        (_, finished) => {
            let errors = finished.err().unwrap_or_default().with(early);
            Err(Refused {
                errors,
                files,
                digest,
            })
        }
    }
}

/// The disk, with a digest of everything read from it.
struct Digesting {
    disk: Disk,
    hasher: RefCell<DefaultHasher>,
}

impl Sources for Digesting {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let read = self.disk.read(path);
        let mut hasher = self.hasher.borrow_mut();
        path.hash(&mut *hasher);
        match &read {
            Ok(bytes) => bytes.hash(&mut *hasher),
            Err(error) => error.kind().hash(&mut *hasher),
        }
        read
    }

    fn var(&self, name: &str) -> Option<String> {
        self.disk.var(name)
    }

    fn glob(&self, directory: &Path, pattern: &str) -> io::Result<Vec<PathBuf>> {
        let found = self.disk.glob(directory, pattern);
        if let Ok(paths) = &found {
            paths.hash(&mut *self.hasher.borrow_mut());
        }
        found
    }

    fn patiently(&self, path: &Path, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        self.disk.patiently(path, work)
    }
}
