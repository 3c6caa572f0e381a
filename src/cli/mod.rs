//! The command line: one file a subcommand, exit codes decided here alone.

mod demo;
mod policy;
mod sample_app;
mod tokens;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{RunOptions, config};

/// nginx in front of the app, with the tokens checked.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM, SIGQUIT or SIGINT, then drain.
    Run {
        /// The configuration.
        #[arg(short, long, default_value = "gateway.yaml", value_name = "FILE")]
        config: PathBuf,
    },
    /// Read, validate and compile the configuration without binding anything.
    Check {
        /// The configuration.
        #[arg(short, long, default_value = "gateway.yaml", value_name = "FILE")]
        config: PathBuf,
        /// Show it as it was understood, its secrets hidden.
        #[arg(long)]
        print: bool,
    },
    /// Say what becomes of a request, step by step, and why; serve nothing.
    Explain(policy::ExplainArguments),
    /// Run the policy tests of the configuration and of *.test.yaml beside it.
    Test(policy::TestArguments),
    /// Edit or show the users that may log in.
    User {
        #[command(subcommand)]
        command: tokens::UserCommand,
        /// The configuration.
        #[arg(
            short,
            long,
            global = true,
            default_value = "gateway.yaml",
            value_name = "FILE"
        )]
        config: PathBuf,
    },
    /// Show what a token says, or which verifiers accept it.
    Token {
        #[command(subcommand)]
        command: tokens::TokenCommand,
        /// The configuration.
        #[arg(
            short,
            long,
            global = true,
            default_value = "gateway.yaml",
            value_name = "FILE"
        )]
        config: PathBuf,
    },
    /// Rotate or show the keys that the gateway signs its own tokens with.
    Key {
        #[command(subcommand)]
        command: tokens::KeyCommand,
        /// The configuration.
        #[arg(
            short,
            long,
            global = true,
            default_value = "gateway.yaml",
            value_name = "FILE"
        )]
        config: PathBuf,
    },
    /// Print the JSON Schema of the configuration, for editors and CI.
    Schema {
        /// Print a list of all keys in Markdown instead.
        #[arg(long)]
        markdown: bool,
    },
    /// Show the main job with nothing else installed: a certificate, an app and a user made on
    /// the spot, and the commands to try.
    Demo {
        /// The configuration.
        #[arg(short, long, default_value = "gateway.yaml", value_name = "FILE")]
        config: PathBuf,
    },
}

/// A configuration that is refused.
const BAD_CONFIG: u8 = 2;

/// Runs the program: 0 done, 1 cannot start or a test failed, 2 bad configuration or bad arguments,
/// 3 a request that `explain` finds refused.
#[must_use]
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { config } => ended(crate::run(&config, RunOptions::default())),
        Command::Explain(arguments) => policy::explain(&arguments),
        Command::Test(arguments) => policy::test(&arguments),
        Command::User { command, config } => tokens::user(command, &config),
        Command::Token { command, config } => tokens::token(command, &config),
        Command::Key { command, config } => tokens::key(&command, &config),
        Command::Schema { markdown } => {
            let text = if markdown {
                config::keys_page()
            } else {
                format!("{:#}\n", config::schema())
            };
            say(&mut std::io::stdout(), &text);
            ExitCode::SUCCESS
        }
        Command::Demo { config } => ended(demo::demo(&config)),
        Command::Check { config, print } => match crate::check(&config) {
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
        },
    }
}

fn ended<E: std::fmt::Display>(outcome: Result<(), E>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&mut std::io::stderr(), &format!("portcullis: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

/// A reader that is gone is no failure of the command.
fn say(out: &mut dyn Write, text: &str) {
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}
