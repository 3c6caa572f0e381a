//! `portcullis key`: the keys with which the gateway signs its own tokens. A running gateway notices a new key by
//! itself.

use std::path::Path;
use std::process::ExitCode;

use super::tokens::{Ended, exit, now_in_millis, service};
use crate::clock;
use crate::tokens::{NewKey, RingKey};

/// The arguments of `key`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum KeyCommand {
    /// Make the first signing key, as the first start of the gateway would.
    #[command(after_help = "Examples:
  portcullis key generate
  portcullis key generate -c /etc/portcullis/gateway.yaml")]
    Generate,
    /// Publish a new signing key; it signs after `rotate_keys_after`.
    #[command(after_help = "Examples:
  portcullis key rotate
  portcullis key rotate && portcullis key list")]
    Rotate,
    /// Show the signing keys.
    #[command(after_help = "Examples:
  portcullis key list
  portcullis key list | grep signs")]
    List,
}

/// Rotates or shows the signing keys: exits with 0 where done, 1 where that failed, 2 where the configuration has
/// errors.
pub(super) fn key(command: &KeyCommand, config: &Path) -> ExitCode {
    exit(keys(command, config))
}

fn keys(command: &KeyCommand, config: &Path) -> Result<String, Ended> {
    let service = service(config)?;
    let settings = service.settings();
    let now = now_in_millis() / 1000;
    match command {
        KeyCommand::Generate => {
            let key = service.missing_key(clock::now()).map_err(Ended::Failed)?;
            let Some(key) = key else {
                let why = "there is a key already; `key rotate` creates the next";
                return Err(Ended::Failed(why.to_owned()));
            };
            key.write(&settings.keys).map_err(|error| {
                Ended::Failed(format!("`{}`: {error}", settings.keys.display()))
            })?;
            Ok(format!("{} is made\n", key.file.trim_end_matches(".json")))
        }
        KeyCommand::Rotate => {
            let lead = settings.rotate_keys_after.as_secs();
            let key = NewKey::make(settings.algorithm, now, now + lead).map_err(Ended::Failed)?;
            key.write(&settings.keys).map_err(|error| {
                Ended::Failed(format!("`{}`: {error}", settings.keys.display()))
            })?;
            let kid = key.file.trim_end_matches(".json");
            Ok(format!("{kid} is published, and signs in {lead} s\n"))
        }
        KeyCommand::List => {
            let signing = service
                .ring()
                .signing(settings.algorithm, now)
                .map(|key| key.kid().to_owned());
            let line = |key: &RingKey| {
                let kid = key.key.kid();
                let state = if signing.as_deref() == Some(kid) {
                    "signs".to_owned()
                } else if key.signs_from > now {
                    format!("signs in {} s", key.signs_from - now)
                } else {
                    "verifies".to_owned()
                };
                format!("{kid}\t{}\t{state}\n", key.algorithm)
            };
            Ok(service.ring().keys().iter().map(line).collect())
        }
    }
}
