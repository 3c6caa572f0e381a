//! `portcullis user`: edits the users that may log in, in their file. A running gateway notices the change by itself.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use super::tokens::{
    Ended, exit, make_directory_of, members, now_in_millis, service, users_file, write,
};
use crate::auth::hash_password;
use crate::tokens::{User, Users, alone, is_name};

/// The arguments of `user`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum UserCommand {
    /// Add a user; prompts twice for the password on a terminal, or reads one line from a pipe.
    #[command(after_help = "Examples:
  portcullis user add alice
  printf '%s\\n' \"$PASSWORD\" | portcullis user add bob --set roles='[\"clerk\"]'")]
    Add {
        /// The name.
        name: String,
        /// Other data about the user, such as roles=["clerk"]; JSON, or a text.
        #[arg(long = "set", value_name = "NAME=VALUE")]
        more: Vec<String>,
    },
    /// Change the password of a user.
    #[command(after_help = "Examples:
  portcullis user password alice
  printf '%s\\n' \"$PASSWORD\" | portcullis user password bob")]
    Password {
        /// The name.
        name: String,
    },
    /// Disable the login of a user, and end their sessions.
    #[command(after_help = "Examples:
  portcullis user disable alice
  portcullis user disable bob -c /etc/portcullis/gateway.yaml")]
    Disable {
        /// The name.
        name: String,
    },
    /// Enable the login of a user again.
    #[command(after_help = "Examples:
  portcullis user enable alice
  portcullis user enable bob -c /etc/portcullis/gateway.yaml")]
    Enable {
        /// The name.
        name: String,
    },
    /// Remove a user, and end their sessions.
    #[command(after_help = "Examples:
  portcullis user remove alice
  portcullis user remove bob -c /etc/portcullis/gateway.yaml")]
    Remove {
        /// The name.
        name: String,
    },
    /// Show the users.
    #[command(after_help = "Examples:
  portcullis user list
  portcullis user list | grep disabled")]
    List,
}

/// Edits or shows the users: exits with 0 where done, 1 where that failed, 2 where the configuration has errors.
pub(super) fn user(command: UserCommand, config: &Path) -> ExitCode {
    exit(ask_and_edit(command, config))
}

fn ask_and_edit(command: UserCommand, config: &Path) -> Result<String, Ended> {
    let file = users_file(&*service(config)?)?;
    // The file must not stay locked while somebody types a password.
    let password = match &command {
        UserCommand::Add { .. } | UserCommand::Password { .. } => Some(new_password()?),
        UserCommand::Disable { .. }
        | UserCommand::Enable { .. }
        | UserCommand::Remove { .. }
        | UserCommand::List => None,
    };
    let made = match &command {
        UserCommand::Add { .. } => make_directory_of(&file),
        UserCommand::Password { .. }
        | UserCommand::Disable { .. }
        | UserCommand::Enable { .. }
        | UserCommand::Remove { .. }
        | UserCommand::List => Ok(()),
    };
    let edited = made.and_then(|()| alone(&file, || Ok(edit(command, password, config))));
    edited.map_err(|error| Ended::Failed(format!("`{}`: {error}", file.display())))?
}

/// A user who is to be added, with the hash of the password. No `Debug`: it could be guessed from it.
pub(super) struct FirstUser {
    name: String,
    password: String,
}

/// Asks for the password of the first user, before anything is written.
///
/// # Errors
/// The name cannot be one, or there is no password.
pub(super) fn first(name: &str) -> Result<FirstUser, Ended> {
    is_name(name).map_err(Ended::Failed)?;
    let password = new_password()?;
    Ok(FirstUser {
        name: name.to_owned(),
        password,
    })
}

/// Adds the first user to the users' file of a configuration, and says so.
///
/// # Errors
/// The configuration has errors, or the file cannot be written.
pub(super) fn add(first: FirstUser, config: &Path) -> Result<String, Ended> {
    let FirstUser { name, password } = first;
    let more = Vec::new();
    let command = UserCommand::Add { name, more };
    let file = users_file(&*service(config)?)?;
    let edited = make_directory_of(&file)
        .and_then(|()| alone(&file, || Ok(edit(command, Some(password), config))));
    edited.map_err(|error| Ended::Failed(format!("`{}`: {error}", file.display())))?
}

fn edit(command: UserCommand, password: Option<String>, config: &Path) -> Result<String, Ended> {
    let service = service(config)?;
    let file = &users_file(&service)?;
    let mut users = service.users().clone();
    let known = |users: &Users, name: &str| {
        let user = users.get(name).cloned();
        user.ok_or_else(|| Ended::Failed(format!("there is no user {name:?}")))
    };
    let said = match command {
        UserCommand::List => return Ok(list(&users)),
        UserCommand::Add { name, more } => {
            if users.get(&name).is_some() || users.broken().any(|(broken, _)| broken == name) {
                let hint = format!("`portcullis user password {name}` changes the password");
                return Err(Ended::Failed(format!("{name:?} exists already; {hint}")));
            }
            is_name(&name).map_err(Ended::Failed)?;
            // Sessions of an earlier user of this name have ended.
            let mut user = User {
                password,
                active: true,
                since: now_in_millis(),
                ..User::default()
            };
            user.more = members(&more, &["password", "active", "since"])?;
            users.put(&name, user);
            format!("{name} may log in\n")
        }
        UserCommand::Password { name } => {
            let mut user = known(&users, &name)?;
            user.password = password;
            user.since = now_in_millis();
            users.put(&name, user);
            format!("{name} has a new password, and has to log in again everywhere\n")
        }
        UserCommand::Disable { name } => {
            let mut user = known(&users, &name)?;
            user.active = false;
            users.put(&name, user);
            format!("{name} may no longer log in\n")
        }
        UserCommand::Enable { name } => {
            let mut user = known(&users, &name)?;
            if !user.active {
                user.since = now_in_millis();
            }
            user.active = true;
            users.put(&name, user);
            format!("{name} may log in\n")
        }
        UserCommand::Remove { name } => {
            if !users.remove(&name) {
                known(&users, &name)?;
            }
            format!("{name} is gone\n")
        }
    };
    write(file, &users)?;
    Ok(said)
}

fn list(users: &Users) -> String {
    let broken = users
        .broken()
        .map(|(name, why)| format!("{name:?}\tbroken\t{why}\n"));
    let good = users.iter().map(|(name, user)| {
        let state = match (user.active, &user.password) {
            (false, _) => "disabled",
            (true, None) => "no password",
            (true, Some(_)) => "active",
        };
        let more = Value::Object(user.more.clone());
        format!("{name}\t{state}\t{more}\n")
    });
    good.chain(broken).collect()
}

/// The hash of a new password: typed twice on a terminal, or one line from a pipe.
fn new_password() -> Result<String, Ended> {
    let failed = |error: std::io::Error| Ended::Failed(format!("no password: {error}"));
    let password = if std::io::stdin().is_terminal() {
        let first = rpassword::prompt_password("Password: ").map_err(failed)?;
        let second = rpassword::prompt_password("Again: ").map_err(failed)?;
        if first != second {
            return Err(Ended::Failed("the two passwords differ".to_owned()));
        }
        first
    } else {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map_err(failed)?;
        line.trim_end_matches(['\r', '\n']).to_owned()
    };
    drop(std::io::stdout().flush());
    if password.trim().is_empty() {
        return Err(Ended::Failed("the password is blank".to_owned()));
    }
    hash_password(&password).map_err(Ended::Failed)
}
