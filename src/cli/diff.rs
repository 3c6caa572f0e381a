//! `portcullis diff`: what one configuration changes about another, access first. Where access got wider is decided with
//! requests, as a reload does it, not found by comparing words.

use std::collections::BTreeMap;
use std::io::{stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use super::paint::Paint;
use super::{failed, load, refused, say};
use crate::config::{self, SEPARATOR};
use crate::control::reload;
use crate::{clock, explain};

/// The arguments of `diff`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  portcullis diff gateway.yaml gateway.new.yaml
  git show HEAD:gateway.yaml > old.yaml; portcullis diff old.yaml gateway.yaml

Exit codes: 0 nothing changed, 1 something did, 2 a file is refused, 3 access got wider.")]
pub(super) struct DiffArguments {
    /// The configuration as it was.
    #[arg(value_name = "OLD")]
    old: PathBuf,
    /// The configuration as it is to be. Both are read where they are, with the files that they name.
    #[arg(value_name = "NEW")]
    new: PathBuf,
}

/// The exit codes beyond those of every command.
const CHANGED: u8 = 1;
const WIDER: u8 = 3;

/// Prints the differences: exits with 0 where there are none, 1 where there are, 2 where a file is refused, 3 where
/// access got wider.
pub(super) fn diff(arguments: &DiffArguments) -> ExitCode {
    let mut both = Vec::new();
    for file in [&arguments.old, &arguments.new] {
        match load(file, &[]) {
            Ok(accepted) => both.push(accepted),
            Err(errors) => return refused(&errors),
        }
    }
    let [old, new] = both.as_slice() else {
        return ExitCode::FAILURE;
    };
    let wider = explain::wider(&old.snapshot, &new.snapshot, clock::now());
    let mut lines = reload::changes(&old.snapshot.summary, &new.snapshot.summary);
    let settings = [&old.printed, &new.printed].map(|printed| config::settings(printed));
    let [Some(mut was), Some(mut is)] = settings else {
        return failed("what `check --print` shows cannot be read again");
    };
    let (before, after) = (was.clone(), is.clone());
    was.retain(|way, _| !is_told(way, &after));
    is.retain(|way, _| !is_told(way, &before));
    lines.extend(reload::changes(&was, &is));
    let paint = Paint::stdout();
    let words = paint.yellow("ACCESS GOT WIDER:");
    let said: String = wider
        .iter()
        .map(|line| format!("{words} {line}\n"))
        .chain(lines.iter().map(|line| format!("{line}\n")))
        .collect();
    say(&mut stdout(), &said);
    if !wider.is_empty() {
        return ExitCode::from(WIDER);
    }
    if lines.is_empty() {
        say(&mut stderr(), "nothing changed\n");
        return ExitCode::SUCCESS;
    }
    ExitCode::from(CHANGED)
}

/// Whether the words of a reload tell of this setting: who may open a route, which servers there are, and which routes
/// and listeners are not in the `other` configuration at all.
fn is_told(way: &str, other: &BTreeMap<String, String>) -> bool {
    let (section, rest) = way.split_once(SEPARATOR).unwrap_or((way, ""));
    let (name, rest) = rest.split_once(SEPARATOR).unwrap_or((rest, ""));
    let below = format!("{section}{SEPARATOR}{name}{SEPARATOR}");
    let is_new = || {
        !other
            .range(below.clone()..)
            .next()
            .is_some_and(|(way, _)| way.starts_with(&below))
    };
    match section {
        "routes" => {
            let auth = format!("{below}auth");
            let is_other_kind = || {
                other.contains_key(&auth) || other.contains_key(&format!("{auth}{SEPARATOR}jwt"))
            };
            let is_whole = rest == "auth" || rest.starts_with("auth ") && other.contains_key(&auth);
            rest == "auth jwt" || is_whole && is_other_kind() || is_new()
        }
        "listeners" => is_new(),
        "upstreams" => rest == "servers" || is_new(),
        _ => false,
    }
}
