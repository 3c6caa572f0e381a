//! Shared by `user`, `token`, `key` and `demo`: the token service of a configuration, its users' file, and the end of
//! a command.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use serde_json::{Map, Value};

use super::{bad, failed, refused, say};
use crate::config::ConfigErrors;
use crate::observe::log;
use crate::tokens::{TokenService, Users, write_private};
use crate::{clock, config};

/// Why a command ends early.
#[derive(Debug)]
pub(super) enum Ended {
    /// The configuration has errors.
    Refused(ConfigErrors),
    /// It lacks the section that the command needs.
    Config(String),
    /// The command failed.
    Failed(String),
}

/// The token service of a configuration.
pub(super) fn service(config: &Path) -> Result<Arc<TokenService>, Ended> {
    log::plainly();
    let loaded = config::load(config, &[], &|_| config::Verdict::default())
        .map_err(|refused| Ended::Refused(refused.errors))?;
    loaded
        .snapshot
        .tokens
        .ok_or_else(|| Ended::Config("the configuration has no `tokens`".to_owned()))
}

/// Prints the output of a command, and returns its exit code.
pub(super) fn exit(outcome: Result<String, Ended>) -> ExitCode {
    match outcome {
        Ok(text) => {
            say(&mut io::stdout(), &text);
            ExitCode::SUCCESS
        }
        Err(Ended::Refused(errors)) => refused(&errors),
        Err(Ended::Config(why)) => bad(why),
        Err(Ended::Failed(why)) => failed(why),
    }
}

/// The path of its users' file.
pub(super) fn users_file(service: &TokenService) -> Result<PathBuf, Ended> {
    let why = "there is no users' file: the app at `login` decides who may log in";
    let file = service.settings().users.clone();
    file.ok_or_else(|| Ended::Failed(why.to_owned()))
}

/// The directory of a file, `.` for a bare name.
pub(super) fn directory(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    }
}

/// Makes the directory of a file that will be written, for its owner alone, where there is none.
pub(super) fn make_directory_of(file: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory(file))
}

/// The time, in milliseconds since 1970.
pub(super) fn now_in_millis() -> u64 {
    let now = clock::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Writes the users' file.
pub(super) fn write(file: &Path, users: &Users) -> Result<(), Ended> {
    if let Some(name) = users.unwritable() {
        let why = "and would be lost; correct it in the file, or remove it";
        return Err(Ended::Failed(format!(
            "the user {name:?} cannot be read, {why}"
        )));
    }
    let unwritten = |error: io::Error| Ended::Failed(cannot_hold(file, &error.to_string()));
    let text = users.write().map_err(unwritten)?;
    // A file that cannot be read back would lock out every user.
    let read = config::read_users(&text).map_err(|why| Ended::Failed(cannot_hold(file, &why)))?;
    if read.write().map_err(unwritten)? != text {
        return Err(Ended::Failed(cannot_hold(
            file,
            "it would be read differently",
        )));
    }
    write_private(file, text.as_bytes())
        .map_err(|error| Ended::Failed(format!("`{}`: {error}", file.display())))
}

fn cannot_hold(file: &Path, why: &str) -> String {
    format!("`{}` cannot hold this: {why}", file.display())
}

/// Parses NAME=VALUE pairs, the value as JSON or as a text.
pub(super) fn members(pairs: &[String], own: &[&str]) -> Result<Map<String, Value>, Ended> {
    let mut members = Map::new();
    for pair in pairs {
        let (name, value) = pair
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| Ended::Failed("write --set roles='[\"clerk\"]'".to_owned()))?;
        if own.contains(&name) {
            return Err(Ended::Failed(format!("{name:?} is not yours to set")));
        }
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        members.insert(name.to_owned(), value);
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_a_bare_name_is_here() {
        assert_eq!(directory(Path::new("gateway.yaml")), Path::new("."));
        assert_eq!(directory(Path::new("a/gateway.yaml")), Path::new("a"));
        assert_eq!(directory(Path::new("/gateway.yaml")), Path::new("/"));
    }
}
