//! `explain` and `test`: what the configuration makes of requests, without serving any.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use http::{HeaderName, HeaderValue, header};

use super::{BAD_CONFIG, say};
use crate::auth::{Claims, parse_object};
use crate::clock;
use crate::config::{self, ConfigErrors};
use crate::control::issuers;
use crate::explain::{self, Question};
use crate::observe::log;
use crate::snapshot::Snapshot;

/// A request that is refused.
const REFUSED: u8 = 3;

/// What `explain` is asked.
#[derive(Debug, clap::Args)]
pub(super) struct ExplainArguments {
    /// The request's method.
    method: String,
    /// A path, or a whole URL.
    #[arg(value_name = "URL-or-path")]
    target: String,
    /// A header of the request.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The claims of a token, as JSON, that is taken to be signed rightly.
    #[arg(long, value_name = "JSON")]
    claims: Option<String>,
    /// Fetch the keys that are at a URL.
    #[arg(long)]
    online: bool,
    /// The configuration.
    #[arg(short, long, default_value = "gateway.yaml", value_name = "FILE")]
    config: PathBuf,
}

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

fn load(config: &Path, tests: &[PathBuf]) -> Result<Snapshot, ConfigErrors> {
    log::plainly();
    let loaded = config::load(config, tests, &|_| config::Verdict::default());
    loaded
        .map(|loaded| loaded.snapshot)
        .map_err(|refused| refused.errors)
}

fn bad(what: impl std::fmt::Display) -> ExitCode {
    say(&mut std::io::stderr(), &format!("{what}\n"));
    ExitCode::from(BAD_CONFIG)
}

/// Says what becomes of a request: 0 where it may pass, 3 where it is refused or nobody here can
/// tell, 2 where the question or the configuration is wrong.
pub(super) fn explain(arguments: &ExplainArguments) -> ExitCode {
    let line = format!("{} {}", arguments.method, arguments.target);
    let (mut request, secure) = match config::request(&line) {
        Ok(request) => request,
        Err(why) => return bad(format!("`{line}` is no request: {why}")),
    };
    for text in &arguments.headers {
        let parsed = text.split_once(':').and_then(|(name, value)| {
            let name: HeaderName = name.trim().parse().ok()?;
            Some((name, HeaderValue::from_str(value.trim()).ok()?))
        });
        let Some((name, value)) = parsed else {
            return bad("a header is written -H 'Name: value'");
        };
        if name == header::HOST {
            request.headers_mut().remove(header::HOST);
        }
        request.headers_mut().append(name, value);
    }
    let claims = arguments.claims.as_deref().map(str::as_bytes);
    let claims = match claims.map(parse_object) {
        None => None,
        Some(Ok(claims)) => Some(Claims::new(claims)),
        Some(Err(error)) => return bad(format!("--claims takes a JSON object: {error}")),
    };
    let snapshot = match load(&arguments.config, &[]) {
        Ok(snapshot) => snapshot,
        Err(errors) => return bad(errors),
    };
    if arguments.online {
        if let Err(error) = fetch_keys(&snapshot) {
            return bad(error);
        }
    }
    let decision = explain::explain(
        &snapshot,
        &Question {
            request: &request,
            secure,
            claims: claims.as_ref(),
            now: clock::now(),
        },
    );
    say(&mut std::io::stdout(), &decision.to_string());
    if decision.is_allowed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(REFUSED)
    }
}

/// Fetches each key set that is at a URL, once.
fn fetch_keys(snapshot: &Snapshot) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        for keys in snapshot.verifiers.iter().filter_map(|(_, it)| it.remote()) {
            if keys.fetches() == 0 {
                issuers::fetch_once(keys, &snapshot.dialer).await;
            }
        }
    });
    Ok(())
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
