//! The command line: one file per subcommand; the exit codes are decided only here.

mod apikey;
mod cert;
mod check;
mod demo;
mod diff;
mod explain;
mod guide;
mod init;
mod key;
mod manual;
mod paint;
mod precompress;
mod running;
mod sample_app;
mod schema;
mod test;
mod token;
mod tokens;
mod user;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand};

use self::paint::Paint;
use crate::config::{self, Accepted, ConfigErrors};
use crate::observe::log;
use crate::{RunError, RunOptions};

/// nginx in front of the app, with the tokens checked.
#[derive(Debug, Parser)]
#[command(
    name = "portcullis",
    version,
    about,
    arg_required_else_help = true,
    after_help = "Examples:
  portcullis demo
  portcullis check && portcullis run

`portcullis help COMMAND` has more of each."
)]
struct Arguments {
    /// The configuration [default: gateway.yaml].
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The same as `check`.
    #[arg(short = 't')]
    check: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM, SIGQUIT or SIGINT, then drain.
    #[command(
        visible_alias = "serve",
        after_help = "Examples:
  portcullis run
  portcullis run -c /etc/portcullis/gateway.yaml

Saved changes are applied at once, and a file with an error changes nothing."
    )]
    Run,
    /// Read, validate and compile the configuration without binding anything.
    #[command(visible_alias = "validate")]
    Check(check::CheckArguments),
    /// Trace how the gateway would handle a request, step by step; serve nothing.
    Explain(explain::ExplainArguments),
    /// Show what one configuration changes about another, and where access gets wider.
    Diff(diff::DiffArguments),
    /// Run the policy tests of the configuration and of *.test.yaml beside it.
    Test(test::TestArguments),
    /// Edit or show the users that may log in.
    #[command(after_help = "Examples:
  portcullis user add alice --set roles='[\"clerk\"]'
  portcullis user disable alice
  portcullis user list")]
    User {
        #[command(subcommand)]
        command: user::UserCommand,
    },
    /// Make, show or remove API keys.
    #[command(after_help = "Examples:
  portcullis apikey add ci --claim scope=deploy --expires 90d
  portcullis apikey list
  portcullis apikey remove ci")]
    Apikey(apikey::ApiKeyArguments),
    /// Issue, revoke, show or check a token.
    #[command(after_help = "Examples:
  portcullis token issue alice --lifetime 1h
  portcullis token verify - < token.txt
  portcullis token revoke --sub alice")]
    Token {
        #[command(subcommand)]
        command: token::TokenCommand,
    },
    /// Rotate or show the keys that the gateway signs its own tokens with.
    #[command(after_help = "Examples:
  portcullis key list
  portcullis key rotate")]
    Key {
        #[command(subcommand)]
        command: key::KeyCommand,
    },
    /// Show or renew certificates by ACME, or make some for local development.
    #[command(after_help = "Examples:
  portcullis cert list
  portcullis cert renew www.example.com
  portcullis cert local app.test 127.0.0.1")]
    Cert {
        #[command(subcommand)]
        command: cert::CertCommand,
    },
    /// Show the gateway that runs with the configuration.
    Status(running::StatusArguments),
    /// Have the gateway that runs read its configuration again, and wait for the outcome.
    Reload(running::ReloadArguments),
    /// Show the last reloads of the gateway that runs, and what each changed.
    Reloads(running::ReloadsArguments),
    /// Have the gateway that runs log at another level for a while.
    LogLevel(running::LevelArguments),
    /// Write a first gateway.yaml, with policy tests, for what stands behind the gateway.
    Init(init::InitArguments),
    /// Write compressed files beside those of a directory, for clients that accept them.
    Precompress(precompress::PrecompressArguments),
    /// Print the JSON Schema of the configuration, for editors and CI.
    Schema(schema::SchemaArguments),
    /// Try it with nothing else installed: creates a certificate, an app and users, and shows a page to click through
    /// and commands to copy.
    Demo(demo::DemoArguments),
    /// Print what a shell completes the command line with.
    Completions(manual::CompletionsArguments),
    /// Write the man pages.
    Man(manual::ManArguments),
    /// Show the version.
    Version,
}

/// The exit code for an invalid configuration.
const BAD_CONFIG: u8 = 2;

/// The path of the configuration, unless the command line names another.
const CONFIG: &str = "gateway.yaml";

/// Runs the program: exits with 0 where done, 1 where it cannot start or a test failed, 2 for an invalid configuration
/// or invalid arguments, 3 for a request that `explain` finds refused.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let given = arguments.config;
    let config = given.clone().unwrap_or_else(|| PathBuf::from(CONFIG));
    let command = match (arguments.command, arguments.check) {
        (None, true) => Command::Check(check::CheckArguments::default()),
        (Some(command), false) => command,
        (Some(_), true) => misused(
            ErrorKind::ArgumentConflict,
            "`-t` means `check`, and cannot be combined with another subcommand such as `run`",
        ),
        (None, false) => misused(
            ErrorKind::MissingSubcommand,
            "a subcommand is missing, such as `portcullis run`",
        ),
    };
    match command {
        Command::Run => ended(&crate::run(&config, RunOptions::default())),
        Command::Explain(arguments) => explain::explain(&arguments, &config),
        Command::Diff(arguments) => diff::diff(&arguments),
        Command::Test(arguments) => test::test(&arguments, &config),
        Command::Apikey(arguments) => apikey::apikey(arguments, &config),
        Command::User { command } => user::user(command, &config),
        Command::Token { command } => token::token(command, &config),
        Command::Key { command } => key::key(&command, &config),
        Command::Cert { command } => cert::cert(command, &config),
        Command::Demo(arguments) => demo::command(arguments, given),
        Command::Check(arguments) => check::check(arguments, given),
        Command::Status(arguments) => running::status(&arguments, &config),
        Command::Reload(arguments) => running::reload(&arguments, &config),
        Command::Reloads(arguments) => running::reloads(&arguments, &config),
        Command::LogLevel(arguments) => running::log_level(&arguments, &config),
        Command::Init(arguments) => init::init(&arguments, &config),
        Command::Precompress(arguments) => precompress::precompress(&arguments),
        Command::Schema(arguments) => schema::schema(&arguments),
        Command::Completions(arguments) => manual::completions(&arguments),
        Command::Man(arguments) => manual::man(&arguments),
        Command::Version => {
            let version = Arguments::command().render_version();
            say(&mut std::io::stdout(), &version);
            ExitCode::SUCCESS
        }
    }
}

/// Ends the program as clap does for conflicting arguments.
fn misused(kind: ErrorKind, what: &str) -> ! {
    Arguments::command().error(kind, what).exit()
}

fn ended(outcome: &Result<(), RunError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(RunError::Config(errors)) => {
            say(&mut std::io::stderr(), &Paint::stderr().errors(errors));
            ExitCode::FAILURE
        }
        Err(error) => failed(error),
    }
}

/// Prints why a command failed.
fn failed(why: impl std::fmt::Display) -> ExitCode {
    say(&mut std::io::stderr(), &format!("portcullis: {why}\n"));
    ExitCode::FAILURE
}

/// A closed pipe is not an error of the command.
fn say(out: &mut dyn Write, text: &str) {
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// Loads a configuration, and the tests of these files in addition to its own.
fn load(config: &Path, tests: &[PathBuf]) -> Result<Accepted, ConfigErrors> {
    log::plainly();
    config::load(config, tests, &|_| config::Verdict::default()).map_err(|refused| refused.errors)
}

/// Prints what is wrong with the arguments.
fn bad(what: impl std::fmt::Display) -> ExitCode {
    say(&mut std::io::stderr(), &format!("{what}\n"));
    ExitCode::from(BAD_CONFIG)
}

/// Prints the errors in the configuration.
fn refused(errors: &ConfigErrors) -> ExitCode {
    say(&mut std::io::stderr(), &Paint::stderr().errors(errors));
    ExitCode::from(BAD_CONFIG)
}
