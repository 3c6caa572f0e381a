//! `portcullis token`: issues, revokes, shows and checks tokens.

use std::path::Path;
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::tokens::{Ended, exit, members, now_in_millis, service};
use crate::auth::{faults_of, parse_object};
use crate::observe::log;
use crate::tokens::{OWN, Whom, end_from_outside};
use crate::{clock, config};

/// The arguments of `token`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum TokenCommand {
    /// Issue an access token without a session, for scripts and for experiments.
    #[command(after_help = "Examples:
  portcullis token issue alice
  portcullis token issue nightly --lifetime 1h --set roles='[\"backup\"]'")]
    Issue {
        /// The subject: a user, or any name if the app decides on logins.
        sub: String,
        /// The lifetime; `access_lifetime` by default.
        #[arg(long, value_name = "DURATION")]
        lifetime: Option<String>,
        /// A claim, such as roles=["clerk"]; JSON, or a text.
        #[arg(long = "set", value_name = "NAME=VALUE")]
        claims: Vec<String>,
    },
    /// End the session of a token, or all sessions of a user, and their access tokens at once.
    #[command(after_help = "Examples:
  portcullis token revoke --sub alice
  portcullis token revoke - < token.txt")]
    Revoke {
        /// The token; `-` reads it from standard input.
        #[arg(required_unless_present = "sub")]
        token: Option<String>,
        /// The user.
        #[arg(long, value_name = "NAME", conflicts_with = "token")]
        sub: Option<String>,
    },
    /// Show the content of a token without verifying it.
    #[command(after_help = "Examples:
  portcullis token decode eyJhbGciOi...
  portcullis token decode - < token.txt")]
    Decode {
        /// The token; `-` reads it from standard input.
        token: String,
    },
    /// Show which verifiers of the configuration accept a token, and why the others do not.
    #[command(after_help = "Examples:
  portcullis token verify eyJhbGciOi...
  portcullis token verify - < token.txt")]
    Verify {
        /// The token; `-` reads it from standard input.
        token: String,
    },
}

/// Issues, revokes, shows or verifies a token: exits with 0 where done or accepted; 1 where every verifier refuses it,
/// or it is not a token; 2 where the configuration has errors.
pub(super) fn token(command: TokenCommand, config: &Path) -> ExitCode {
    exit(match command {
        TokenCommand::Decode { token } => given(token).and_then(|token| decode(&token)),
        TokenCommand::Verify { token } => given(token).and_then(|token| verify(&token, config)),
        TokenCommand::Issue {
            sub,
            lifetime,
            claims,
        } => issue(&sub, lifetime.as_deref(), &claims, config),
        TokenCommand::Revoke { token, sub } => revoke(token, sub, config),
    })
}

fn given(token: String) -> Result<String, Ended> {
    if token != "-" {
        return Ok(token);
    }
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line);
    read.map_err(|error| Ended::Failed(format!("no token: {error}")))?;
    Ok(line.trim().to_owned())
}

fn decode(token: &str) -> Result<String, Ended> {
    let mut parts = token.split('.');
    let part = |part: Option<&str>| {
        let bytes = URL_SAFE_NO_PAD.decode(part.unwrap_or_default()).ok()?;
        let members = parse_object(&bytes).ok()?;
        serde_json::to_string_pretty(&Value::Object(members)).ok()
    };
    match (part(parts.next()), part(parts.next())) {
        (Some(header), Some(claims)) => Ok(format!("{header}\n{claims}\n")),
        (_, _) => Err(Ended::Failed("this is not a JSON Web Token".to_owned())),
    }
}

fn issue(
    sub: &str,
    lifetime: Option<&str>,
    claims: &[String],
    config: &Path,
) -> Result<String, Ended> {
    let service = service(config)?;
    let lifetime = match lifetime {
        None => service.settings().access_lifetime,
        Some(text) => config::duration(text).map_err(Ended::Failed)?,
    };
    let claims = members(claims, &OWN)?;
    let token = service.issue(sub, claims, lifetime, clock::now());
    token.map(|token| token + "\n").map_err(Ended::Failed)
}

fn revoke(token: Option<String>, sub: Option<String>, config: &Path) -> Result<String, Ended> {
    let service = service(config)?;
    let (whom, said) = match (token, sub) {
        (_, Some(sub)) => {
            let said = format!("all sessions of {sub} have ended\n");
            (Whom::Subject(sub), said)
        }
        (Some(token), None) => {
            let family = service.family_of(&given(token)?, clock::now());
            let family = family.map_err(Ended::Failed)?;
            let said = format!("a session of {} has ended\n", family.sub);
            (Whom::Session(family), said)
        }
        (None, None) => return Err(Ended::Failed("a token or --sub is required".to_owned())),
    };
    let (at, lives) = service.store_at();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Ended::Failed(error.to_string()))?;
    let ended = runtime.block_on(end_from_outside(at, lives, whom, now_in_millis()));
    ended.map(|()| said).map_err(Ended::Failed)
}

fn verify(token: &str, config: &Path) -> Result<String, Ended> {
    log::plainly();
    let loaded = config::load(config, &[], &|_| config::Verdict::default())
        .map_err(|refused| Ended::Refused(refused.errors))?;
    let now = clock::now();
    let mut lines = String::new();
    let mut accepted = false;
    for (settings, verifier) in &loaded.snapshot.verifiers {
        let faults = faults_of(verifier, token, now);
        accepted |= faults.is_empty();
        if faults.is_empty() {
            // Only the store knows which sessions have ended.
            let session = if settings.live.is_some() {
                "; whether its session has ended is not checked"
            } else {
                ""
            };
            lines.push_str(&format!("{}: accepts it{session}\n", settings.name));
        }
        for fault in faults {
            lines.push_str(&format!("{}: {fault}\n", settings.name));
        }
    }
    if accepted {
        Ok(lines)
    } else {
        Err(Ended::Failed(format!("no verifier accepts it\n{lines}")))
    }
}
