//! `portcullis test`: the policy tests of a configuration, run without serving anything.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{bad, load, say};
use crate::clock;
use crate::explain;

/// What `test` is asked.
#[derive(Debug, clap::Args)]
pub(super) struct TestArguments {
    /// Files with tests; without any, those of the configuration and *.test.yaml beside it.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Name the routes that ask for a token and have no test that expects a refusal.
    #[arg(long)]
    coverage: bool,
    /// The configuration.
    #[arg(short, long, default_value = "gateway.yaml", value_name = "FILE")]
    config: PathBuf,
}

/// Runs policy tests: 0 where all hold, 1 where one fails, 2 where the configuration is wrong.
pub(super) fn test(arguments: &TestArguments) -> ExitCode {
    let files = if arguments.files.is_empty() {
        match beside(&arguments.config) {
            Ok(files) => files,
            Err(error) => return bad(error),
        }
    } else {
        arguments.files.clone()
    };
    let snapshot = match load(&arguments.config, &files) {
        Ok(snapshot) => snapshot,
        Err(errors) => return bad(errors),
    };
    let now = clock::now();
    let mut out = std::io::stdout().lock();
    let mut failed = 0;
    for test in &snapshot.tests {
        let (decision, failure) = explain::check(&snapshot, test, now);
        // What stands in a query may be a token.
        let text_of_request = test.text.split('?').next().unwrap_or_default();
        let mut text = format!("ok      {} {text_of_request}\n", test.place);
        if let Some(why) = failure {
            failed += 1;
            text = format!("FAILED  {} {text_of_request}\n        {why}\n", test.place);
            for line in decision.to_string().lines() {
                text.push_str(&format!("        | {line}\n"));
            }
        }
        say(&mut out, &text);
    }
    let all = snapshot.tests.len();
    say(&mut out, &format!("{} of {all} tests hold\n", all - failed));
    if arguments.coverage {
        let bare = explain::without_refusing_test(&snapshot, now);
        for route in &bare {
            say(
                &mut out,
                &format!("no test expects a refusal of the route {route}\n"),
            );
        }
        if bare.is_empty() {
            say(
                &mut out,
                "every route that asks for a token has a test that expects a refusal\n",
            );
        }
    }
    drop(out.flush());
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The files *.test.yaml in the configuration's folder, sorted.
fn beside(config: &Path) -> std::io::Result<Vec<PathBuf>> {
    let folder = config
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.ends_with(".test.yaml")) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
