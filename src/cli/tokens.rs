//! `user` and `key`: who may log in, and what the gateway signs with, edited in their files. A running
//! gateway sees the change by itself.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::{BAD_CONFIG, say};
use crate::auth::{faults_of, parse_object};
use crate::observe::log;
use crate::tokens::{
    NewKey, OWN, RingKey, TokenService, User, Users, Whom, alone, end_from_outside, hash_password,
    is_name, write_private,
};
use crate::{clock, config};

/// What `user` is asked.
#[derive(Debug, clap::Subcommand)]
pub(super) enum UserCommand {
    /// Add a user; the password is asked for twice at a terminal, and is one line of a pipe.
    Add {
        /// The name.
        name: String,
        /// What else is known of them, such as roles=["clerk"]; JSON, or a text.
        #[arg(long = "set", value_name = "NAME=VALUE")]
        more: Vec<String>,
    },
    /// Give a user another password.
    Password {
        /// The name.
        name: String,
    },
    /// Let a user no longer log in, and end their sessions.
    Disable {
        /// The name.
        name: String,
    },
    /// Let a user log in again.
    Enable {
        /// The name.
        name: String,
    },
    /// Take a user out, and end their sessions.
    Remove {
        /// The name.
        name: String,
    },
    /// Show the users.
    List,
}

/// What `key` is asked.
#[derive(Debug, clap::Subcommand)]
pub(super) enum KeyCommand {
    /// Make the first signing key, as the first start of the gateway would.
    Generate,
    /// Publish a new signing key; it signs after `rotate_keys_after`.
    Rotate,
    /// Show the signing keys.
    List,
}

/// What `token` is asked.
#[derive(Debug, clap::Subcommand)]
pub(super) enum TokenCommand {
    /// Issue an access token of no session, for scripts and for trying things out.
    Issue {
        /// Whose it is: a user, or anybody where the app decides on logins.
        sub: String,
        /// How long it is good, `access_lifetime` where this is not said.
        #[arg(long, value_name = "DURATION")]
        lifetime: Option<String>,
        /// A claim, such as roles=["clerk"]; JSON, or a text.
        #[arg(long = "set", value_name = "NAME=VALUE")]
        claims: Vec<String>,
    },
    /// End the session of a token, or all sessions of a user, and their access tokens at once.
    Revoke {
        /// The token; `-` reads it from standard input.
        #[arg(required_unless_present = "sub")]
        token: Option<String>,
        /// The user.
        #[arg(long, value_name = "NAME", conflicts_with = "token")]
        sub: Option<String>,
    },
    /// Show what a token says; nothing is checked.
    Decode {
        /// The token; `-` reads it from standard input.
        token: String,
    },
    /// Say which verifiers of the configuration accept a token, and why the others do not.
    Verify {
        /// The token; `-` reads it from standard input.
        token: String,
    },
}

/// Why a command ends, and how.
#[derive(Debug)]
pub(super) enum Ended {
    /// The configuration is refused.
    Config(String),
    /// It cannot be done.
    Failed(String),
}

/// The token service of a configuration.
pub(super) fn service(config: &Path) -> Result<Arc<TokenService>, Ended> {
    log::plainly();
    let loaded = config::load(config, &[], &|_| config::Verdict::default())
        .map_err(|refused| Ended::Config(refused.errors.to_string()))?;
    loaded
        .snapshot
        .tokens
        .ok_or_else(|| Ended::Config("the configuration has no `tokens`".to_owned()))
}

fn exit(outcome: Result<String, Ended>) -> ExitCode {
    match outcome {
        Ok(text) => {
            say(&mut std::io::stdout(), &text);
            ExitCode::SUCCESS
        }
        Err(Ended::Config(why)) => {
            say(&mut std::io::stderr(), &format!("{why}\n"));
            ExitCode::from(BAD_CONFIG)
        }
        Err(Ended::Failed(why)) => {
            say(&mut std::io::stderr(), &format!("portcullis: {why}\n"));
            ExitCode::FAILURE
        }
    }
}

/// Edits or shows the users: 0 done, 1 it cannot be done, 2 the configuration is refused.
pub(super) fn user(command: UserCommand, config: &Path) -> ExitCode {
    exit(ask_and_edit(command, config))
}

fn ask_and_edit(command: UserCommand, config: &Path) -> Result<String, Ended> {
    let file = users_file(&*service(config)?)?;
    // Nobody waits for somebody who types.
    let password = match &command {
        UserCommand::Add { .. } | UserCommand::Password { .. } => Some(new_password()?),
        UserCommand::Disable { .. }
        | UserCommand::Enable { .. }
        | UserCommand::Remove { .. }
        | UserCommand::List => None,
    };
    let edited = alone(&file, || Ok(edit(command, password, config)));
    edited.map_err(|error| Ended::Failed(format!("`{}`: {error}", file.display())))?
}

/// Where its users are.
pub(super) fn users_file(service: &TokenService) -> Result<PathBuf, Ended> {
    let why = "there is no file of users: the app at `login` decides who may log in";
    let file = service.settings().users.clone();
    file.ok_or_else(|| Ended::Failed(why.to_owned()))
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
                return Err(Ended::Failed(format!("{name:?} is there already; {hint}")));
            }
            is_name(&name).map_err(Ended::Failed)?;
            // Whoever had the name before has no sessions any more.
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
            format!("{name} has a new password, and logs in anew everywhere\n")
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

/// The time, in milliseconds since 1970.
pub(super) fn now_in_millis() -> u64 {
    let now = clock::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Puts a file of users in place.
pub(super) fn write(file: &Path, users: &Users) -> Result<(), Ended> {
    if let Some(name) = users.unwritable() {
        let why = "nothing of it would be left; mend it in the file, or take it out";
        return Err(Ended::Failed(format!(
            "the user {name:?} cannot be read, {why}"
        )));
    }
    let unwritten = |error: std::io::Error| Ended::Failed(cannot_hold(file, &error.to_string()));
    let text = users.write().map_err(unwritten)?;
    // What cannot be read back would put everybody out.
    let read = config::read_users(&text).map_err(|why| Ended::Failed(cannot_hold(file, &why)))?;
    if read.write().map_err(unwritten)? != text {
        return Err(Ended::Failed(cannot_hold(
            file,
            "it would be read otherwise",
        )));
    }
    write_private(file, text.as_bytes())
        .map_err(|error| Ended::Failed(format!("`{}`: {error}", file.display())))
}

fn cannot_hold(file: &Path, why: &str) -> String {
    format!("`{}` cannot hold this: {why}", file.display())
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

/// The hash of a new password: typed twice at a terminal, or one line of a pipe.
fn new_password() -> Result<String, Ended> {
    let failed = |error: std::io::Error| Ended::Failed(format!("no password: {error}"));
    let password = if std::io::stdin().is_terminal() {
        let first = rpassword::prompt_password("Password: ").map_err(failed)?;
        let second = rpassword::prompt_password("Again: ").map_err(failed)?;
        if first != second {
            return Err(Ended::Failed("the two are not the same".to_owned()));
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

/// Issues, ends, shows or checks a token: 0 done, or accepted; 1 refused by every verifier, or no token; 2 the
/// configuration is refused.
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
        (_, _) => Err(Ended::Failed("this is no JSON Web Token".to_owned())),
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
        (None, None) => return Err(Ended::Failed("say whose session ends".to_owned())),
    };
    let (at, lives) = service.store_at();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Ended::Failed(error.to_string()))?;
    let ended = runtime.block_on(end_from_outside(at, lives, whom, now_in_millis()));
    ended.map(|()| said).map_err(Ended::Failed)
}

/// Members that are written NAME=VALUE, the value as JSON or as a text.
fn members(pairs: &[String], own: &[&str]) -> Result<Map<String, Value>, Ended> {
    let mut members = Map::new();
    for pair in pairs {
        let (name, value) = pair
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| Ended::Failed("write --set roles='[\"clerk\"]'".to_owned()))?;
        if own.contains(&name) {
            return Err(Ended::Failed(format!("{name:?} is not yours to set")));
        }
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        members.insert(name.to_owned(), value);
    }
    Ok(members)
}

fn verify(token: &str, config: &Path) -> Result<String, Ended> {
    log::plainly();
    let loaded = config::load(config, &[], &|_| config::Verdict::default())
        .map_err(|refused| Ended::Config(refused.errors.to_string()))?;
    let now = clock::now();
    let mut lines = String::new();
    let mut accepted = false;
    for (settings, verifier) in &loaded.snapshot.verifiers {
        let faults = faults_of(verifier, token, now);
        accepted |= faults.is_empty();
        if faults.is_empty() {
            // What ended is known to the store alone.
            let session = if settings.live.is_some() {
                "; whether its session goes on is not looked up"
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

/// Rotates or shows the signing keys: 0 done, 1 it cannot be done, 2 the configuration is refused.
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
                let why = "there is a key already; `key rotate` makes the next";
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
