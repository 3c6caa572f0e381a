//! `portcullis check`: reads, validates and compiles a configuration without binding anything.

use std::path::Path;
use std::process::ExitCode;

use super::{BAD_CONFIG, say};

/// Says what is wrong with a configuration, or how much there is of what: 0 where it is good, 2 where it is not.
pub(super) fn check(config: &Path, print: bool) -> ExitCode {
    match crate::check(config) {
        Ok(checked) => {
            for warning in checked.warnings {
                say(&mut std::io::stderr(), &format!("warning: {warning}\n"));
            }
            // What is printed reads as YAML, so the summary does not stand in it.
            if print {
                say(&mut std::io::stdout(), &checked.printed);
                say(&mut std::io::stderr(), &format!("{}\n", checked.summary));
            } else {
                let text = format!("{}: good\n{}\n", config.display(), checked.summary);
                say(&mut std::io::stdout(), &text);
            }
            ExitCode::SUCCESS
        }
        Err(errors) => {
            say(&mut std::io::stderr(), &errors.to_string());
            ExitCode::from(BAD_CONFIG)
        }
    }
}
