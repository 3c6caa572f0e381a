//! `portcullis test`: the policy tests of a configuration, run without serving anything.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::paint::Paint;
use super::{bad, load, refused, say};
use crate::clock;
use crate::explain;

/// The arguments of `test`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  portcullis test
  portcullis test --coverage
  portcullis test access.test.yaml --json | jq '.tests[] | select(.passed | not)'

Exit codes: 0 all passed, 1 one failed, 2 wrong configuration or arguments.")]
pub(super) struct TestArguments {
    /// Files with tests; without any, those of the configuration and *.test.yaml beside it.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// List the routes that require a token but have no test that expects a refusal.
    #[arg(long)]
    coverage: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs policy tests: exits with 0 where all pass, 1 where one fails, 2 where the configuration has errors.
pub(super) fn test(arguments: &TestArguments, config: &Path) -> ExitCode {
    let files = if arguments.files.is_empty() {
        match beside(config) {
            Ok(files) => files,
            Err(error) => return bad(error),
        }
    } else {
        arguments.files.clone()
    };
    let snapshot = match load(config, &files) {
        Ok(loaded) => loaded.snapshot,
        Err(errors) => return refused(&errors),
    };
    let now = clock::now();
    let paint = Paint::stdout();
    let mut out = std::io::stdout().lock();
    let mut failed = 0;
    let mut told = Vec::new();
    for test in &snapshot.tests {
        let (decision, failure) = explain::check(&snapshot, test, now);
        failed += usize::from(failure.is_some());
        // A query may contain a token.
        let request = test.text.split('?').next().unwrap_or_default();
        if arguments.json {
            let steps = decision.steps();
            let steps = steps.map(|(step, text)| json!({"step": step, "text": text}));
            told.push(json!({
                "place": test.place,
                "request": request,
                "passed": failure.is_none(),
                "why": failure,
                "steps": steps.collect::<Vec<_>>(),
            }));
            continue;
        }
        let text = match failure {
            None => format!("{}      {} {request}\n", paint.green("ok"), test.place),
            Some(why) => {
                let word = paint.red("FAILED");
                let mut text = format!("{word}  {} {request}\n        {why}\n", test.place);
                for line in decision.to_string().lines() {
                    text.push_str(&format!("        | {line}\n"));
                }
                text
            }
        };
        say(&mut out, &text);
    }
    let passed = snapshot.tests.len() - failed;
    let untested = (arguments.coverage).then(|| explain::without_refusing_test(&snapshot, now));
    let text = if arguments.json {
        let mut all = json!({"passed": passed, "failed": failed, "tests": told});
        if let (Some(untested), Value::Object(all)) = (untested, &mut all) {
            all.insert("untested".to_owned(), json!(untested));
        }
        format!("{all:#}\n")
    } else {
        let mut text = untested.map_or_else(String::new, |untested| coverage(&untested));
        let count = format!("{passed} passed, {failed} failed");
        let count = if failed == 0 {
            paint.green(&count)
        } else {
            paint.red(&count)
        };
        text.push_str(&format!("{count}\n"));
        text
    };
    say(&mut out, &text);
    drop(out.flush());
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The report on routes for which no test expects a refusal.
fn coverage(untested: &[&str]) -> String {
    let line = |route: &&str| format!("no test expects a refusal of the route {route}\n");
    if untested.is_empty() {
        "every route that requires a token has a test that expects a refusal\n".to_owned()
    } else {
        untested.iter().map(line).collect()
    }
}

/// The files *.test.yaml in the configuration's directory, sorted.
fn beside(config: &Path) -> std::io::Result<Vec<PathBuf>> {
    let directory = config
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty());
    let directory = directory.unwrap_or_else(|| Path::new("."));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.ends_with(".test.yaml")) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
