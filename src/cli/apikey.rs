//! `portcullis apikey`: makes API keys, and edits their file. A running gateway notices the change by itself.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Map, Value};

use super::tokens::{Ended, exit, make_directory_of};
use crate::auth::{hash_of, new_key};
use crate::config::{self, KeyEntry};
use crate::observe::log;
use crate::tokens::{alone, write_private};
use crate::{clock, filesystem};

/// The arguments of `apikey`.
#[derive(Debug, clap::Args)]
pub(super) struct ApiKeyArguments {
    #[command(subcommand)]
    command: ApiKeyCommand,
    /// The file of keys; by default the one that the configuration names.
    #[arg(long, global = true, value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum ApiKeyCommand {
    /// Make a key and print it, once: only its hash is stored.
    #[command(after_help = "Examples:
  portcullis apikey add ci --claim scope=deploy --expires 90d
  portcullis apikey add backup --file keys.yaml")]
    Add {
        /// The name, which is the key's `sub`.
        name: String,
        /// A claim of its bearer; JSON, or a text.
        #[arg(long = "claim", value_name = "NAME=VALUE")]
        claims: Vec<String>,
        /// How long it is valid, such as 90d or 12h.
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
    },
    /// Show the keys: names, expiry, claims.
    #[command(after_help = "Examples:
  portcullis apikey list
  portcullis apikey list --file keys.yaml")]
    List,
    /// Remove a key. It is refused as soon as the gateway has read the file again.
    #[command(after_help = "Examples:
  portcullis apikey remove ci
  portcullis apikey remove ci --file keys.yaml")]
    Remove {
        /// The name.
        name: String,
    },
}

/// Edits or shows the keys: exits with 0 where done, 1 where that failed, 2 where the configuration has errors.
pub(super) fn apikey(arguments: ApiKeyArguments, config: &Path) -> ExitCode {
    exit(edit(arguments, config))
}

fn edit(arguments: ApiKeyArguments, config: &Path) -> Result<String, Ended> {
    let file = match arguments.file {
        Some(file) => file,
        None => configured(config)?,
    };
    let made = match &arguments.command {
        ApiKeyCommand::Add { .. } => make_directory_of(&file),
        ApiKeyCommand::List | ApiKeyCommand::Remove { .. } => Ok(()),
    };
    let done = made.and_then(|()| alone(&file, || Ok(edit_alone(arguments.command, &file))));
    done.map_err(|error| failed(&file, &error))?
}

fn failed(file: &Path, error: &dyn std::fmt::Display) -> Ended {
    Ended::Failed(format!("`{}`: {error}", file.display()))
}

/// The file that the configuration names.
fn configured(config: &Path) -> Result<PathBuf, Ended> {
    log::plainly();
    let loaded = config::load(config, &[], &|_| config::Verdict::default())
        .map_err(|refused| Ended::Refused(refused.errors))?;
    let mut files: Vec<&Path> = Vec::new();
    for route in &loaded.snapshot.routes {
        if let Some(keys) = route.guard.api_keys()
            && !files.contains(&keys.file.as_path())
        {
            files.push(&keys.file);
        }
    }
    match files.as_slice() {
        [] => Err(Ended::Config(
            "the configuration has no `api_key`; `--file FILE` names a file of keys".to_owned(),
        )),
        [file] => Ok(file.to_path_buf()),
        files => {
            let names: Vec<String> = files.iter().map(|it| it.display().to_string()).collect();
            let names = names.join(", ");
            Err(Ended::Failed(format!(
                "there are several files of keys: name one with --file ({names})"
            )))
        }
    }
}

fn edit_alone(command: ApiKeyCommand, file: &Path) -> Result<String, Ended> {
    let text = match filesystem::read(file) {
        Ok(bytes) => String::from_utf8(bytes).map_err(|error| failed(file, &error))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(failed(file, &error)),
    };
    let mut entries = match text.trim() {
        "" => Vec::new(),
        text => config::parse_api_keys(text).map_err(|why| failed(file, &why))?,
    };
    let said = match command {
        ApiKeyCommand::List => return Ok(list(&entries)),
        ApiKeyCommand::Add {
            name,
            claims,
            expires,
        } => {
            if entries.iter().any(|known| known.name == name) {
                let hint = format!("`portcullis apikey remove {name}` removes it");
                return Err(Ended::Failed(format!("{name:?} exists already; {hint}")));
            }
            if name.trim().is_empty() || name.chars().any(char::is_control) {
                return Err(Ended::Failed(
                    "a key has a name without control characters".to_owned(),
                ));
            }
            let key = new_key().map_err(Ended::Failed)?;
            entries.push(KeyEntry {
                name,
                hash: hash_of(&key),
                expires: expires.as_deref().map(moment_after).transpose()?,
                claims: members(&claims)?,
            });
            format!("{key}\n")
        }
        ApiKeyCommand::Remove { name } => {
            let before = entries.len();
            entries.retain(|known| known.name != name);
            if entries.len() == before {
                return Err(Ended::Failed(format!("there is no key {name:?}")));
            }
            format!("{name} is gone\n")
        }
    };
    let text = config::write_api_keys(&entries).map_err(|why| failed(file, &why))?;
    // A file that cannot be read back would lock out every program.
    let read = config::parse_api_keys(&text).map_err(|why| failed(file, &why))?;
    if read != entries {
        return Err(failed(file, &"it would be read differently"));
    }
    write_private(file, text.as_bytes()).map_err(|error| failed(file, &error))?;
    Ok(said)
}

/// The claims of NAME=VALUE pairs, the value as JSON or as a text.
fn members(pairs: &[String]) -> Result<Map<String, Value>, Ended> {
    let mut members = Map::new();
    for pair in pairs {
        let split = pair.split_once('=').filter(|(name, _)| !name.is_empty());
        let (name, value) =
            split.ok_or_else(|| Ended::Failed("write --claim scope=deploy".to_owned()))?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        members.insert(name.to_owned(), value);
    }
    Ok(members)
}

/// The time that lies this far ahead, as the file has it.
fn moment_after(text: &str) -> Result<String, Ended> {
    let form = || Ended::Failed("write --expires 90d, or 12h".to_owned());
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(form)?;
    let each = match unit {
        "d" => 24 * 3600,
        "h" => 3600,
        "m" => 60,
        _ => return Err(form()),
    };
    let seconds = number.parse::<u64>().ok().filter(|it| *it > 0);
    let seconds = seconds
        .and_then(|it| it.checked_mul(each))
        .filter(|it| *it < 1 << 33);
    let ahead = Duration::from_secs(seconds.ok_or_else(form)?);
    let (at, _) = clock::since_epoch(clock::now() + ahead);
    let (year, month, day, hour, minute, second) = clock::civil(at);
    Ok(format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
    ))
}

fn list(entries: &[KeyEntry]) -> String {
    let lines = entries.iter().map(|entry| {
        let expires = entry.expires.as_deref().unwrap_or("never");
        let claims = Value::Object(entry.claims.clone());
        format!("{}\texpires {expires}\t{claims}\n", entry.name)
    });
    lines.collect()
}
