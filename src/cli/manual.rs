//! `portcullis completions` and `portcullis man`: what shells complete and `man` shows, from the command line itself.
//! What the configuration may say is not here: `portcullis schema`.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{failed, say};

/// The arguments of `completions`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  portcullis completions bash > /etc/bash_completion.d/portcullis
  portcullis completions zsh > ~/.zfunc/_portcullis")]
pub(super) struct CompletionsArguments {
    /// The shell.
    shell: Shell,
}

/// The arguments of `man`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  portcullis man /usr/local/share/man/man1
  portcullis man pages && man ./pages/portcullis.1")]
pub(super) struct ManArguments {
    /// The directory, which is made if it is not there.
    directory: PathBuf,
}

/// Prints the completions of one shell.
pub(super) fn completions(arguments: &CompletionsArguments) -> ExitCode {
    let mut text = Vec::new();
    clap_complete::generate(
        arguments.shell,
        &mut super::Arguments::command(),
        "portcullis",
        &mut text,
    );
    say(&mut io::stdout(), &String::from_utf8_lossy(&text));
    ExitCode::SUCCESS
}

/// Writes a page for the program and one for each of its commands: exits with 0 where done, 1 where not.
pub(super) fn man(arguments: &ManArguments) -> ExitCode {
    let directory = &arguments.directory;
    let program = super::Arguments::command().disable_help_subcommand(true);
    let written = fs::create_dir_all(directory);
    match written.and_then(|()| clap_mangen::generate_to(program, directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(format_args!("`{}`: {error}", directory.display())),
    }
}
