//! The command line: one file a subcommand, exit codes decided here alone.

mod check;
mod demo;
mod explain;
mod key;
mod sample_app;
mod test;
mod token;
mod tokens;
mod user;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::RunOptions;
use crate::config::{self, ConfigErrors};
use crate::observe::log;
use crate::snapshot::Snapshot;

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
    Explain(explain::ExplainArguments),
    /// Run the policy tests of the configuration and of *.test.yaml beside it.
    Test(test::TestArguments),
    /// Edit or show the users that may log in.
    User {
        #[command(subcommand)]
        command: user::UserCommand,
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
        command: token::TokenCommand,
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
        command: key::KeyCommand,
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
        Command::Explain(arguments) => explain::explain(&arguments),
        Command::Test(arguments) => test::test(&arguments),
        Command::User { command, config } => user::user(command, &config),
        Command::Token { command, config } => token::token(command, &config),
        Command::Key { command, config } => key::key(&command, &config),
        Command::Demo { config } => ended(demo::demo(&config)),
        Command::Check { config, print } => check::check(&config, print),
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

/// Reads a configuration, and the tests of these files beside its own.
fn load(config: &Path, tests: &[PathBuf]) -> Result<Snapshot, ConfigErrors> {
    log::plainly();
    let loaded = config::load(config, tests, &|_| config::Verdict::default());
    loaded
        .map(|loaded| loaded.snapshot)
        .map_err(|refused| refused.errors)
}

/// Says what is wrong with the configuration or the arguments.
fn bad(what: impl std::fmt::Display) -> ExitCode {
    say(&mut std::io::stderr(), &format!("{what}\n"));
    ExitCode::from(BAD_CONFIG)
}
