//! `portcullis check`: reads, validates and compiles a configuration without binding anything.

use std::io::{stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::paint::Paint;
use super::{BAD_CONFIG, CONFIG, bad, refused, say};
use crate::config::{ConfigErrors, ConfigWarning};

/// The arguments of `check`.
#[derive(Debug, Default, clap::Args)]
#[command(after_help = "Examples:
  portcullis check
  portcullis check /etc/portcullis/gateway.yaml --print
  portcullis check --format json | jq '.messages[]'

Exit codes: 0 valid, 2 refused.")]
pub(super) struct CheckArguments {
    /// The configuration; the same as -c FILE.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Show the configuration as it was understood, with its secrets hidden.
    #[arg(long)]
    print: bool,
    /// The output format, text or JSON, for editors and CI.
    #[arg(long, value_enum, default_value_t, conflicts_with = "print")]
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
}

/// Prints the errors of a configuration, or a summary: exits with 0 where it is valid, 2 where it is not.
pub(super) fn check(arguments: CheckArguments, given: Option<PathBuf>) -> ExitCode {
    let config = match (arguments.file, given) {
        (Some(_), Some(_)) => return bad("`check` takes FILE or -c FILE, not both"),
        (one, other) => one.or(other).unwrap_or_else(|| PathBuf::from(CONFIG)),
    };
    let checked = crate::check(&config);
    if matches!(arguments.format, Format::Json) {
        let (text, code) = match &checked {
            Ok(checked) => {
                let messages: Vec<Value> = checked.warnings.iter().map(warning).collect();
                let good = json!({"good": true, "summary": checked.summary, "messages": messages, "more": 0});
                (good, ExitCode::SUCCESS)
            }
            Err(errors) => (refusal(errors), ExitCode::from(BAD_CONFIG)),
        };
        say(&mut stdout(), &format!("{text:#}\n"));
        return code;
    }
    match checked {
        Ok(checked) => {
            let paint = Paint::stderr();
            for warning in checked.warnings {
                let word = paint.yellow("warning:");
                say(&mut stderr(), &format!("{word} {warning}\n"));
            }
            // The printed configuration must be valid YAML, so the summary goes to standard error.
            if arguments.print {
                say(&mut stdout(), &checked.printed);
                say(&mut stderr(), &format!("{}\n", checked.summary));
            } else {
                let good = Paint::stdout();
                let good = good.green("good");
                let text = format!("{}: {good}\n{}\n", config.display(), checked.summary);
                say(&mut stdout(), &text);
            }
            ExitCode::SUCCESS
        }
        Err(errors) => refused(&errors),
    }
}

/// All errors, and the warnings.
fn refusal(errors: &ConfigErrors) -> Value {
    let wrong = errors.iter().map(|error| {
        json!({
            "severity": "error",
            "file": error.file,
            "line": error.line,
            "column": error.column,
            "message": error.problem,
            "hint": error.hint,
        })
    });
    let messages: Vec<Value> = wrong.chain(errors.warnings().map(warning)).collect();
    json!({"good": false, "messages": messages, "more": errors.more()})
}

fn warning(warning: &ConfigWarning) -> Value {
    json!({
        "severity": "warning",
        "file": warning.file,
        "line": warning.line,
        "column": warning.column,
        "message": warning.problem,
        "hint": null,
    })
}
