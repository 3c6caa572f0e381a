//! Reads the configuration: files to `parsed::Gateway`, with every error of all files at once. Semantic errors are
//! added to `Loaded::errors` when the parsed types are compiled.

mod acme;
mod admin;
mod alias;
mod api_keys;
mod basic;
mod client_certificates;
mod compile;
mod compress;
mod cors;
mod decode;
mod error;
mod error_pages;
mod expand;
mod files;
mod fill;
mod foreign;
mod health;
mod invisible;
mod json;
mod keys;
mod limiting;
mod lines;
mod load;
mod mask;
mod merge;
mod node;
#[expect(
    dead_code,
    reason = "every part keeps its place, whether a check points there yet or not"
)]
mod parsed;
mod place;
mod policy_tests;
mod print;
mod revoked;
mod routes;
mod schema;
mod sections;
mod source;
mod summary;
mod surrogates;
mod syntax;
#[cfg(test)]
mod tests;
mod tokens;
mod tree;
mod upstreams;
mod value;
mod verifiers;

use std::fmt;
use std::path::Path;

pub(crate) use api_keys::{KeyEntry, parse as parse_api_keys, write as write_api_keys};
pub(crate) use compile::{Purpose, read_users};
pub use error::{ConfigError, ConfigErrors, ConfigWarning};
pub(crate) use lines::{AllLines, Lines};
pub(crate) use load::{Loaded as Accepted, Refused, Verdict, load, load_again};
pub(crate) use policy_tests::request;
pub(crate) use print::{SEPARATOR, settings};
pub(crate) use schema::{page as keys_page, schema};
pub(crate) use summary::summary;
pub(crate) use value::{client, duration};

/// A configuration that was read, and its errors so far.
pub(crate) struct Loaded<'s> {
    /// The parsed configuration, without the parts that `errors` names; `None` where the main file could not be read.
    pub(crate) gateway: Option<parsed::Gateway>,
    /// The errors so far.
    pub(crate) errors: error::Errors,
    /// Reads certificates and keys, and knows all files that were requested (`seen`).
    pub(crate) loader: source::Loader<'s>,
    tree: Option<node::Node>,
}

impl Loaded<'_> {
    /// The configuration for `--print`, secrets hidden. Only useful where there are no errors.
    pub(crate) fn print(&self) -> String {
        self.tree.as_ref().map_or_else(String::new, print::print)
    }
}

impl fmt::Debug for Loaded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("gateway", &self.gateway)
            .finish_non_exhaustive()
    }
}

/// Reads a configuration: the main file, its includes, the variables. Does not stop at the first error.
pub(crate) fn read<'s>(main: &Path, sources: &'s dyn source::Sources) -> Loaded<'s> {
    let loader = source::Loader::new(main, sources);
    let mut errors = error::Errors::default();
    let tree = merge::tree(main, &loader, &mut errors);
    let mut decoder = decode::Decoder {
        errors: &mut errors,
        directory: loader.directory(),
    };
    let gateway = tree.as_ref().and_then(|tree| decoder.gateway(tree));
    Loaded {
        gateway,
        errors,
        loader,
        tree,
    }
}

/// The control socket that a configuration names itself, as far as it can be read.
pub(crate) fn control_socket_of(main: &Path) -> Option<std::path::PathBuf> {
    let disk = source::Disk::new(crate::filesystem::Patience::default());
    let admin = read(main, &disk).gateway?.admin?;
    Some(admin.socket?.value)
}

/// The errors of a file's text, for tests.
#[cfg(test)]
pub(crate) fn errors_of(text: &str) -> ConfigErrors {
    let memory = source::Memory::default().file("a.yaml", text);
    let errors = read(Path::new("a.yaml"), &memory).errors;
    errors.finish().err().unwrap_or_default()
}

/// Invariants of every file: it is read, or each of its errors has a message and a place in it. Without errors it can
/// be printed, and the output is equivalent; serde_yaml, the other reader, reads it, too.
#[cfg(any(test, fuzzing))]
#[track_caller]
pub(crate) fn text_holds(text: &[u8]) {
    let main = Path::new("a.yaml");
    let memory = source::Memory::default().file("a.yaml", text);
    let loaded = read(main, &memory);
    if loaded.errors.is_empty() {
        assert!(loaded.gateway.is_some());
        let printed = loaded.print();
        let memory = source::Memory::default().file("a.yaml", &printed);
        let again = read(main, &memory);
        let printed_again = again.print();
        assert!(again.errors.is_empty(), "{printed}");
        assert_eq!(printed_again, printed);
        let tree = again.tree.as_ref();
        assert!(
            tree.is_some_and(|tree| print::reads_the_same(tree, &printed)),
            "{printed}"
        );
    } else if let Err(errors) = loaded.errors.finish() {
        assert!(errors.iter().all(|error| !error.to_string().is_empty()));
    }
}
