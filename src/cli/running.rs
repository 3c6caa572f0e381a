//! `portcullis status`, `reload`, `reloads`, `log-level`: what the gateway that runs is asked over its control socket.

use std::io::{stderr, stdout};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::paint::Paint;
use super::{failed, say};
use crate::admin::{Client, NoAnswer};

/// How long `reload` waits for a reload that somebody else began, and how often it looks.
const OTHERS: (Duration, Duration) = (Duration::from_secs(70), Duration::from_millis(100));

/// The arguments of `status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  portcullis status
  portcullis status -c /etc/portcullis/gateway.yaml --json
  portcullis status --quick

Exit codes: 0 it runs (with --quick: its workers turn), 1 it does not.")]
pub(super) struct StatusArguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Only whether it runs and its workers turn, for health checks.
    #[arg(long, conflicts_with = "json")]
    quick: bool,
}

/// The arguments of `reload`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  portcullis reload
  portcullis reload -c /etc/portcullis/gateway.yaml

Exit codes: 0 the configuration is in force, 1 it is refused or no gateway runs.")]
pub(super) struct ReloadArguments {}

/// The arguments of `reloads`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  portcullis reloads
  portcullis reloads --json | jq '.[] | select(.changes[].wider)'

Exit codes: 0 they are shown, 1 no gateway runs.")]
pub(super) struct ReloadsArguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The arguments of `log-level`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  portcullis log-level debug --for 10m
  portcullis log-level warn

Exit codes: 0 it is changed, 1 no gateway runs, or it refuses.")]
pub(super) struct LevelArguments {
    /// error, warn, info or debug.
    #[arg(value_name = "LEVEL")]
    level: String,
    /// For how long, at most 24h; then the configuration's level holds again.
    #[arg(long = "for", value_name = "DURATION", default_value = "24h")]
    lasts: String,
}

/// Shows the gateway that runs.
pub(super) fn status(arguments: &StatusArguments, config: &Path) -> ExitCode {
    let client = match Client::find(config) {
        Ok(client) => client,
        Err(error) => return failed(error),
    };
    if arguments.quick {
        return match client.request("GET", "/healthz", b"") {
            Ok(answered) if answered.status == 200 => ExitCode::SUCCESS,
            Ok(answered) => failed(format!("it does not work: {}", answered.json())),
            Err(error) => failed(error),
        };
    }
    let status = client.status();
    if arguments.json {
        say(&mut stdout(), &format!("{status:#}\n"));
        return ExitCode::SUCCESS;
    }
    let text = |name: &str| shown(status.get(name));
    let state = match status.get("draining").and_then(Value::as_bool) {
        Some(true) => Paint::stdout().yellow("draining"),
        Some(false) | None => Paint::stdout().green("serving"),
    }
    .to_string();
    let listeners = status.get("listeners").and_then(Value::as_array);
    let listeners: Vec<String> = listeners
        .into_iter()
        .flatten()
        .map(|it| shown(Some(it)))
        .collect();
    let mut lines = format!(
        "{state}, process {}, version {}, since {}\n\
         config     {} ({})\n\
         listeners  {}\n\
         routes     {}\n\
         workers    {}, {} connections\n\
         log level  {}\n",
        text("pid"),
        text("version"),
        text("started"),
        text("config"),
        text("digest"),
        listeners.join(", "),
        text("routes"),
        text("workers"),
        text("connections"),
        text("log_level"),
    );
    if let Some(last) = status.get("last_reload").filter(|last| !last.is_null()) {
        lines.push_str(&format!("reload     {}\n", in_words(last)));
    }
    say(&mut stdout(), &lines);
    ExitCode::SUCCESS
}

/// Has the configuration read again, and waits for the end.
pub(super) fn reload(_: &ReloadArguments, config: &Path) -> ExitCode {
    let client = match Client::find(config) {
        Ok(client) => client,
        Err(error) => return failed(error),
    };
    let (patience, pause) = OTHERS;
    let until = Instant::now() + patience;
    let answered = loop {
        match client.request("POST", "/reload", b"") {
            Ok(answered) if answered.status == 409 && Instant::now() < until => {
                std::thread::park_timeout(pause);
            }
            Ok(answered) => break answered,
            Err(error) => return failed(error),
        }
    };
    let row = answered.json();
    match answered.status {
        200 => {
            say(&mut stdout(), &changes(&row));
            ExitCode::SUCCESS
        }
        422 => {
            let mistakes = row.get("mistakes").and_then(Value::as_str);
            say(
                &mut stderr(),
                &format!("{}\n", mistakes.unwrap_or_default().trim_end()),
            );
            failed("the configuration is refused, the old one stays")
        }
        _ => failed(answered.error()),
    }
}

/// Shows the last reloads.
pub(super) fn reloads(arguments: &ReloadsArguments, config: &Path) -> ExitCode {
    let asked = Client::find(config).and_then(|client| client.request("GET", "/reloads", b""));
    let rows = match asked {
        Ok(answered) if answered.status == 200 => answered.json(),
        Ok(answered) => return failed(answered.error()),
        Err(error) => return failed(error),
    };
    if arguments.json {
        say(&mut stdout(), &format!("{rows:#}\n"));
        return ExitCode::SUCCESS;
    }
    let rows = rows.as_array().map_or(&[][..], Vec::as_slice);
    let text: String = rows
        .iter()
        .map(|row| format!("{}\n{}", in_words(row), indented(row)))
        .collect();
    say(&mut stdout(), &text);
    ExitCode::SUCCESS
}

/// Has the log written at another level for a while.
pub(super) fn log_level(arguments: &LevelArguments, config: &Path) -> ExitCode {
    let asked = json!({"level": arguments.level, "for": arguments.lasts}).to_string();
    let asked = Client::find(config)
        .and_then(|client| client.request("PUT", "/log-level", asked.as_bytes()));
    match asked {
        Ok(answered) if answered.status == 200 => {
            let (level, lasts) = (&arguments.level, &arguments.lasts);
            say(&mut stdout(), &format!("level {level} for {lasts}\n"));
            ExitCode::SUCCESS
        }
        Ok(answered) => failed(answered.error()),
        Err(error @ (NoAnswer::NotRunning(..) | NoAnswer::Broken(..))) => failed(error),
    }
}

/// A value without quotation marks.
fn shown(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => "?".to_owned(),
    }
}

/// A reload on one line.
fn in_words(row: &Value) -> String {
    let text = |name: &str| shown(row.get(name));
    format!(
        "{} {} ({}) {}",
        text("time"),
        text("result"),
        text("by"),
        text("digest")
    )
}

/// What a reload changed, each on a line.
fn changes(row: &Value) -> String {
    let changes = row.get("changes").and_then(Value::as_array);
    let lines = changes.into_iter().flatten().map(|change| {
        let text = shown(change.get("text"));
        match change.get("wider").and_then(Value::as_bool) {
            Some(true) => {
                let words = Paint::stdout().yellow("ACCESS GOT WIDER:").to_string();
                format!("{words} {text}\n")
            }
            Some(false) | None => format!("changed: {text}\n"),
        }
    });
    let lines: String = lines.collect();
    if lines.is_empty() {
        return "reloaded: nothing changed\n".to_owned();
    }
    lines
}

/// What a reload changed, or why it was refused, below its line.
fn indented(row: &Value) -> String {
    let mistakes = row.get("mistakes").and_then(Value::as_str);
    let has_changes = row.get("changes").and_then(Value::as_array);
    let text = match mistakes {
        Some(mistakes) => mistakes.to_owned(),
        None if has_changes.is_some_and(Vec::is_empty) => return String::new(),
        None => changes(row),
    };
    text.lines().map(|line| format!("    {line}\n")).collect()
}
