//! Portcullis: nginx in front of the app, with the tokens checked.
//!
//! The library's front door: [`run`] serves a configuration until it is told to stop, [`check`]
//! reads one without binding anything. How the rooms fit together is said in ARCHITECTURE.md.

mod access_log;
mod alphabet;
mod auth;
#[doc(hidden)]
pub mod bench;
mod body;
pub mod cli;
mod client;
mod clock;
mod config;
mod cors;
mod der;
mod dial;
mod edits;
mod explain;
mod fetch;
mod fields;
mod files;
mod filesystem;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod gateway;
mod issuers;
mod limits;
mod log;
mod method;
mod path;
mod proxy;
mod reject;
mod reload;
mod request_id;
mod resolve;
mod route;
#[cfg(any(test, fuzzing))]
mod script;
mod server;
mod snapshot;
mod stream;
mod tls;
mod tokens;
mod url;
mod wire;
mod worker;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

pub use self::config::{ConfigError, ConfigErrors};
use self::reload::{Active, Reading, Watching};
use self::server::{Bound, Server};
use self::snapshot::ListenAddress;
use self::tokens::States;

/// What [`run`] does beside serving.
#[derive(Default)]
pub struct RunOptions {
    /// Called once, when all listeners are open.
    pub on_ready: Option<Box<dyn FnOnce() + Send>>,
}

impl std::fmt::Debug for RunOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunOptions")
            .field("on_ready", &self.on_ready.is_some())
            .finish()
    }
}

/// Why the gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration is refused.
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    /// A listener cannot be bound.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// Its address, as configured.
        address: String,
        /// The operating system's reason.
        error: std::io::Error,
    },
    /// The token service cannot start.
    #[error("the token service cannot start: {0}")]
    Tokens(String),
    /// The operating system refuses a thread, a runtime, a signal handler or a file watch.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

/// Serves the configuration at `config` until SIGTERM, SIGQUIT or SIGINT, then drains.
///
/// # Errors
/// The gateway cannot start. Once it serves, nothing but the end ends it.
pub fn run(config: &Path, options: RunOptions) -> Result<(), RunError> {
    let log = log::start()?;
    raise_descriptor_limit();
    let control = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let served = control.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut quit = signal(SignalKind::quit())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut rotated = signal(SignalKind::user_defined1())?;
        // Caught, so that they end nothing: SIGUSR2 has no meaning yet, and a log at the limit of a file's size
        // is an error of its write.
        let _upgrade = signal(SignalKind::user_defined2())?;
        let _too_large = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
        let states = Arc::new(States::default());
        let (mut active, first) = {
            let (config, states) = (config.to_owned(), Arc::clone(&states));
            let loading = tokio::task::spawn_blocking(move || start(&config, &states));
            tokio::select! {
                loaded = loading => loaded.map_err(std::io::Error::other)??,
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                _ = quit.recv() => return Ok(()),
            }
        };
        log.set(first.level);
        follow_issuers(&first);
        let (publish, snapshots) = watch::channel(first);
        let mut server = Server::start(&snapshots)?;
        let snapshot = Arc::clone(&publish.borrow());
        let bound = tokio::select! {
            bound = bind(&server, &snapshot) => bound?,
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = quit.recv() => return Ok(()),
        };
        server.listen(&snapshot, bound);
        drop(snapshot);

        let mut watch = Watching::start(active.files())?;
        let mut cleaning = tokio::time::interval(CLEANING);
        let mut renewing = tokio::time::interval(RENEWING);
        let mut telling = tokio::time::interval(TELLING);
        if let Some(on_ready) = options.on_ready {
            on_ready();
        }
        // Whether a reload is due, and if so, whether a signal asked for it.
        let mut due = None;
        let mut reading = None;
        loop {
            if reading.is_none() {
                let current = || Arc::clone(&publish.borrow());
                reading = due
                    .take()
                    .map(|asked| Reading::begin(asked, active.reader(current()), &states));
            }
            let (asked, read) = tokio::select! {
                _ = renewing.tick() => {
                    if let Some(tokens) = &publish.borrow().tokens {
                        tokens.renew_hashes();
                    }
                    continue;
                }
                _ = telling.tick() => {
                    server.tell(Instant::now());
                    if let Some(log) = &publish.borrow().access_log {
                        log.tell(Instant::now());
                    }
                    continue;
                }
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = quit.recv() => break,
                _ = hangup.recv() => {
                    due = Some(true);
                    continue;
                }
                _ = rotated.recv() => {
                    if let Some(log) = &publish.borrow().access_log {
                        log.reopen();
                    }
                    continue;
                }
                () = watch.changed() => {
                    due = due.or(Some(false));
                    continue;
                }
                read = Reading::end(&mut reading) => read,
                _ = cleaning.tick() => {
                    let tokens = publish.borrow().tokens.clone();
                    if let Some(tokens) = tokens {
                        tokio::spawn(async move { tokens.clean(clock::now()).await });
                    }
                    continue;
                }
            };
            let (read, started) = match read {
                Ok(read) => read,
                Err(error) => {
                    tracing::error!(config = %config.display(), %error, "configuration refused, the old one stays");
                    continue;
                }
            };
            let current = Arc::clone(&publish.borrow());
            let reloaded = active.reload(read, &current, asked, |next| {
                started.map_err(|why| format!("the token service cannot start: {why}"))?;
                server
                    .bind(next)
                    .map_err(|(address, error): (ListenAddress, _)| {
                        format!("cannot listen on {address}: {error}")
                    })
            });
            if let Some((next, bound)) = reloaded {
                log.set(next.level);
                say_reported(&current);
                follow_issuers(&next);
                publish.send_replace(Arc::clone(&next));
                proxy::retire(&current.upstreams, &next.upstreams);
                server.listen(&next, bound);
                tracing::info!(config = %config.display(), "configuration reloaded");
                if let (Some(before), Some(tokens)) = (&current.tokens, &next.tokens) {
                    let (before, tokens) = (Arc::clone(before), Arc::clone(tokens));
                    let now = clock::now();
                    tokio::spawn(async move {
                        tokens.end_those_who_left(&before, now).await;
                    });
                }
                // Its file is seen like any other change.
                if let Err(error) = make_missing_key(&next) {
                    tracing::error!(%error, "a signing key cannot be made");
                }
            }
            watch.follow(active.files());
        }
        let timeouts = publish.borrow().bounds.timeouts;
        tracing::info!(bound = ?timeouts.shutdown, streams = ?timeouts.shutdown_streams, "draining");
        let same_until = Instant::now() + ONE_SIGNAL;
        let hurry = async {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    _ = quit.recv() => {}
                }
                if Instant::now() >= same_until {
                    return tracing::info!("a second signal: the drain ends");
                }
            }
        };
        let cut = server.drain(&timeouts, hurry).await;
        if cut > 0 {
            tracing::warn!(
                connections = cut,
                "connections were cut off at the end of the drain"
            );
        }
        say_reported(&publish.borrow());
        let access_log = publish.borrow().access_log.clone();
        if let Some(access_log) = access_log {
            access_log.finish(FINISHING).await;
            access_log.tell(Instant::now());
        }
        tracing::info!("stopped");
        Ok(())
    });
    // A name that is still being looked up is not waited for.
    control.shutdown_background();
    served
}

/// Loads the first configuration, and starts what it needs beside workers. It may wait for file systems.
fn start(config: &Path, states: &States) -> Result<(Active, Arc<snapshot::Snapshot>), RunError> {
    let (mut active, mut first) = Active::load(config)?;
    if make_missing_key(&first)? {
        (active, first) = Active::load(config)?;
    }
    if let Some(tokens) = &first.tokens {
        let started = tokens.start(states, first.dialer.names(), clock::now());
        started.map_err(RunError::Tokens)?;
    }
    Ok((active, first))
}

/// How often hashes of older kinds are written anew, those that were found to be right.
const RENEWING: Duration = Duration::from_secs(2);
/// Signals to stop this close together are one: a terminal and who runs this program may both send theirs.
const ONE_SIGNAL: Duration = Duration::from_millis(100);
/// How long a start waits for addresses that another process has, and how often it tries.
const FREED: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(100));
/// How often it is looked whether access records were lost.
const TELLING: Duration = Duration::from_secs(1);
/// How long the last access records may take to be written.
const FINISHING: Duration = Duration::from_secs(2);
/// How often what has expired is cleaned up.
const CLEANING: Duration = Duration::from_secs(60);

/// Binds all listeners; where an address is taken, by a process that is about to end perhaps, it tries again for a
/// while.
async fn bind(server: &Server, snapshot: &snapshot::Snapshot) -> Result<Vec<Bound>, RunError> {
    let (patience, pause) = FREED;
    let until = Instant::now() + patience;
    let mut said = false;
    loop {
        let (address, error) = match server.bind(snapshot) {
            Ok(bound) => return Ok(bound),
            Err(failed) => failed,
        };
        if error.kind() != std::io::ErrorKind::AddrInUse || Instant::now() >= until {
            return Err(RunError::Bind {
                address: address.to_string(),
                error,
            });
        }
        if !said {
            tracing::warn!(%address, ?patience, "the address is in use: waiting for it to be free");
            said = true;
        }
        tokio::time::sleep(pause).await;
    }
}

/// Makes the signing key that the token service lacks; whether it lacked one.
fn make_missing_key(snapshot: &snapshot::Snapshot) -> Result<bool, RunError> {
    let Some(tokens) = &snapshot.tokens else {
        return Ok(false);
    };
    let Some(key) = tokens.missing_key(clock::now()).map_err(RunError::Tokens)? else {
        return Ok(false);
    };
    let folder = &tokens.settings().keys;
    key.write(folder)
        .map_err(|error| RunError::Tokens(format!("`{}`: {error}", folder.display())))?;
    tracing::info!(file = key.file, folder = %folder.display(), "signing key made");
    Ok(true)
}

/// Says how many requests passed that would have been refused, on routes whose refusals are only
/// reported.
fn say_reported(snapshot: &snapshot::Snapshot) {
    for route in &snapshot.routes {
        let count = match &route.guard {
            auth::Guard::Jwt(guard) => guard.reported(),
            auth::Guard::Open | auth::Guard::Ask(_) => 0,
        };
        if count > 0 {
            tracing::warn!(
                route = route.name,
                count,
                "requests passed that would be refused without `enforce: report`"
            );
        }
    }
}

/// Fetches the keys that are at a URL, from now on; those that were followed before go on.
fn follow_issuers(snapshot: &snapshot::Snapshot) {
    for keys in snapshot.verifiers.iter().filter_map(|(_, it)| it.remote()) {
        issuers::follow(keys, &snapshot.dialer);
    }
}

/// Reads, validates and compiles the configuration at `config` without binding anything. Gives
/// the warnings, and the configuration written out with its secrets hidden.
///
/// # Errors
/// Every mistake in it.
pub fn check(config: &Path) -> Result<Checked, ConfigErrors> {
    let loaded = config::load(config, &[], &reload::judge).map_err(|refused| refused.errors)?;
    Ok(Checked {
        warnings: loaded.warnings,
        summary: config::summary(&loaded.snapshot),
        printed: loaded.printed,
    })
}

/// A configuration that is good.
#[derive(Debug)]
pub struct Checked {
    /// What is allowed, but dangerous.
    pub warnings: Vec<String>,
    /// How much there is of what, and what is public, in one line.
    pub summary: String,
    /// The configuration as it was understood, as YAML, its secrets hidden.
    pub printed: String,
}

/// As many descriptors as the system lets this process have: a connection is one or two.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}
