//! `portcullis schema`: prints the keys of the configuration, for editors and CI.

use std::process::ExitCode;

use clap::Args;

use super::say;
use crate::config;

/// The arguments of `schema`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  portcullis schema > gateway.schema.json
  portcullis schema --markdown")]
pub(super) struct SchemaArguments {
    /// Print a list of all keys in Markdown instead.
    #[arg(long)]
    markdown: bool,
}

/// Prints the JSON Schema (2020-12) of the configuration, or the list of its keys.
pub(super) fn schema(arguments: &SchemaArguments) -> ExitCode {
    let text = if arguments.markdown {
        config::keys_page()
    } else {
        format!("{:#}\n", config::schema())
    };
    say(&mut std::io::stdout(), &text);
    ExitCode::SUCCESS
}
