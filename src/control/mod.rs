//! The control side: everything that runs beside requests, on the main thread or on its own threads. Its loop handles
//! signals, reloads and periodic tasks; no request waits for it.

pub(crate) mod acme;
mod errands;
mod health;
pub(crate) mod issuers;
pub(crate) mod reload;
mod signals;
mod start;
mod supervisor;
mod tickets;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use self::errands::Errands;
use self::health::Checks;
use self::reload::{Active, Read, Reading, Reloaded, Request, Watching};
use self::signals::{Signal, Signals};
use self::supervisor::Supervisor;
use self::tickets::SharedTickets;
use crate::admin::{self, Admin, Asked, By, History, InForce, NotBound, Outcome, Row, Seen};
use crate::config::{self, ConfigErrors, ConfigWarning};
use crate::observe::counts::Names;
use crate::observe::log::{self, Log};
use crate::server::{Inherited, Server};
use crate::snapshot::{ListenAddress, Snapshot};
use crate::tokens::States;
use crate::{clock, proxy};

/// The timeout for writing the last access records.
const FINISHING: Duration = Duration::from_secs(2);

/// Options of [`run`].
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
    #[error("cannot listen on {address}: {error}{remedy}")]
    Bind {
        /// Its address, as configured.
        address: String,
        /// The operating system's reason.
        error: std::io::Error,
        /// What to do about it, after a semicolon; may be empty.
        remedy: &'static str,
    },
    /// What systemd passed cannot be used.
    #[error("the sockets that systemd passed cannot be used: {0}")]
    Inherited(std::io::Error),
    /// The process cannot become the user that serves.
    #[error("{0}")]
    User(String),
    /// A file or directory of the user that serves cannot be made.
    #[error("cannot make `{path}`: {error}")]
    Make {
        /// Its path.
        path: String,
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
/// The gateway cannot start. Once it serves, no error stops it.
pub fn run(config: &Path, options: RunOptions) -> Result<(), RunError> {
    let inherited = Inherited::take().map_err(RunError::Inherited)?;
    let log = log::start()?;
    start::raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let served = runtime.block_on(async {
        let mut signals = Signals::catch()?;
        let Some(mut control) = Control::begin(config, log, inherited, &mut signals).await? else {
            return Ok(());
        };
        if let Some(on_ready) = options.on_ready {
            on_ready();
        }
        control.serve(&mut signals).await;
        control.end(signals).await;
        Ok(())
    });
    // Does not wait for pending name look-ups.
    runtime.shutdown_background();
    served
}

/// The configuration in force, and the means to change it.
struct Control {
    config: PathBuf,
    log: Log,
    states: Arc<States>,
    active: Active,
    publish: watch::Sender<Arc<Snapshot>>,
    server: Server,
    watch: Watching,
    certificates: acme::Manager,
    supervisor: Supervisor,
    tickets: SharedTickets,
    checks: Checks,
    admin: Admin,
    /// What the admin thread asks for.
    asked: mpsc::Receiver<Asked>,
    /// What is in force beside the snapshot.
    in_force: watch::Sender<Arc<InForce>>,
    history: Arc<History>,
    level: Level,
}

/// The level of the log.
struct Level {
    current: watch::Sender<tracing::Level>,
    /// Until when another level holds than the configuration's.
    until: Option<tokio::time::Instant>,
}

impl Level {
    /// Ready when the configuration's level holds again. Cancel-safe.
    async fn ends(&self) {
        match self.until {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
    }
}

impl Control {
    /// Loads the first configuration, binds its listeners, becomes its user, and serves it; `None` where a stop signal
    /// arrived first. Until the process is that user it has one thread, but for a moment those that read files: what
    /// threads there were before would stay root.
    async fn begin(
        config: &Path,
        mut log: Log,
        inherited: Inherited,
        signals: &mut Signals,
    ) -> Result<Option<Self>, RunError> {
        let (mut active, first) = tokio::select! {
            loaded = start::load(config) => loaded?,
            () = signals.stop() => return Ok(None),
        };
        if first.user.is_none() {
            log.write()?;
        }
        let started = clock::now();
        let mut server = Server::new(first.workers, inherited);
        let bound = tokio::select! {
            bound = start::bind(&server, &first) => bound?,
            () = signals.stop() => return Ok(None),
        };
        let doors = match start::bind_admin(config, &first).await {
            Ok(doors) => doors,
            Err(error) => {
                server.unbind(&bound);
                return Err(error);
            }
        };
        // Root finds its socket, wherever that is.
        let mut supervisor = Supervisor::find();
        let mut became = false;
        if let Some(user) = &first.user {
            became = start::become_user(user)?;
            log.write()?;
        }
        log.set(first.level);
        start::return_memory();
        if let Some(access_log) = &first.access_log {
            access_log.start()?;
        }
        let states = Arc::new(States::default());
        {
            let look = became.then(|| active.look(Arc::clone(&first)));
            let (first, states) = (Arc::clone(&first), Arc::clone(&states));
            let starting = tokio::task::spawn_blocking(move || {
                start::tokens(&first, &states)?;
                Ok::<_, RunError>(look.map(|look| look()))
            });
            let started = tokio::select! {
                started = starting => started.map_err(std::io::Error::other)?.map(Some),
                () = signals.stop() => Ok(None),
            };
            match started {
                Ok(Some(Some(digest))) => active.expect(digest),
                Ok(Some(None)) => {}
                ended => {
                    server.unbind(&bound);
                    return ended.map(|_| None);
                }
            }
        }
        follow_issuers(&first);
        acme::restore(&first).await;
        let certificates = acme::Manager::start();
        certificates.follow(&first);
        let tickets = SharedTickets::start();
        tickets.follow(&first);
        first.counts.set_most_routes(first.metrics_routes);
        let (publish, snapshots) = watch::channel(Arc::clone(&first));
        server.start(&snapshots)?;
        server.listen(&first, bound);
        let (in_force, told) = watch::channel(Arc::clone(active.in_force()));
        let (level, shown) = watch::channel(first.level);
        let (asks, asked) = mpsc::channel(1);
        let history = Arc::new(History::default());
        history.add(Row {
            time: clock::now(),
            by: By::Start,
            digest: active.digest(),
            outcome: Outcome::Good(Vec::new()),
        });
        let seen = Seen {
            config: admin::absolute(config),
            started,
            snapshots,
            in_force: told,
            observer: server.observer(),
            history: Arc::clone(&history),
            losses: log.losses(),
            level: shown,
            asks,
        };
        let admin = Admin::start(seen, doors)?;
        let mut checks = Checks::default();
        checks.follow(&first);
        supervisor.ready(&first);
        Ok(Some(Self {
            config: config.to_owned(),
            log,
            states,
            watch: Watching::start(active.files())?,
            active,
            publish,
            server,
            certificates,
            supervisor,
            tickets,
            admin,
            asked,
            in_force,
            history,
            level: Level {
                current: level,
                until: None,
            },
            checks,
        }))
    }

    /// The snapshot in force.
    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.publish.borrow())
    }

    /// Serves until a stop signal.
    async fn serve(&mut self, signals: &mut Signals) {
        let mut errands = Errands::begin();
        // A pending reload, and who requested it.
        let mut due: Option<Request> = None;
        let mut reading = None;
        loop {
            if reading.is_none() {
                reading = due.take().map(|asked| {
                    if asked.by.is_asked() {
                        self.supervisor.reloading();
                    }
                    let reader = self.active.reader(self.snapshot());
                    Reading::begin(asked, reader, &self.states)
                });
            }
            tokio::select! {
                errand = errands.next() => (errand.run)(self),
                signal = signals.next() => match signal {
                    Signal::Stop => return,
                    Signal::Reload => due = Some(Request::of_signal()),
                    Signal::Reopen => {
                        if let Some(log) = &self.snapshot().access_log {
                            log.reopen();
                        }
                    }
                },
                () = self.watch.changed() => due = due.or_else(|| Some(Request::of_file())),
                Some(asked) = self.asked.recv() => match asked {
                    // One that runs, or is about to, has not seen what this one is to see.
                    Asked::Reload { by, answer } if reading.is_none() && due.is_none() => {
                        due = Some(Request { by, answer: Some(answer) });
                    }
                    Asked::Reload { .. } => {}
                    Asked::Level { level, lasts } => self.set_level(level, lasts),
                },
                () = self.level.ends() => {
                    let level = self.snapshot().level;
                    self.set_level(level, None);
                }
                (asked, read) = Reading::end(&mut reading) => {
                    self.reload(asked, read);
                    let snapshot = self.snapshot();
                    self.supervisor.ready(&snapshot);
                }
                () = self.supervisor.due() => self.supervisor.beat(&self.server),
            }
        }
    }

    /// Logs at this level, for a while or until the configuration changes.
    fn set_level(&mut self, level: tracing::Level, lasts: Option<Duration>) {
        self.log.set(level);
        self.level.current.send_replace(level);
        self.level.until = lasts.map(|lasts| tokio::time::Instant::now() + lasts);
        match lasts {
            Some(lasts) => {
                tracing::warn!(%level, r#for = ?lasts, "the log has another level for a while");
            }
            None => tracing::info!(%level, "the log has the configuration's level again"),
        }
    }

    /// Applies the new configuration, or logs why it is refused; whoever waits for that is told.
    fn reload(&mut self, asked: Request, read: std::io::Result<(Read, Result<(), String>)>) {
        let Request { by, answer } = asked;
        let outcome = self.apply(by.is_asked(), read);
        self.watch.follow(self.active.files());
        let Some(outcome) = outcome else { return };
        let row = Row {
            time: clock::now(),
            by,
            digest: self.active.digest(),
            outcome,
        };
        self.history.add(row.clone());
        if let Some(answer) = answer {
            // Who asked may have gone.
            drop(answer.send(row));
        }
    }

    /// Applies the new configuration; `None` where nothing has changed.
    fn apply(
        &mut self,
        asked: bool,
        read: std::io::Result<(Read, Result<(), String>)>,
    ) -> Option<Outcome> {
        let (read, started) = match read {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(config = %self.config.display(), %error, "configuration refused, the old one stays");
                return Some(Outcome::Refused(error.to_string()));
            }
        };
        let current = self.snapshot();
        let (server, doors, config) = (&self.server, self.admin.doors(), &self.config);
        let reloaded = self.active.reload(read, &current, asked, |next| {
            started.map_err(|why| format!("the token service cannot start: {why}"))?;
            if let Some(access_log) = &next.access_log {
                access_log
                    .start()
                    .map_err(|error| format!("the access log cannot be written: {error}"))?;
            }
            let cannot = |address: ListenAddress, error: std::io::Error| {
                let remedy = start::remedy(&address, &error, next.user.is_some());
                format!("cannot listen on {address}: {error}{remedy}")
            };
            let bound = server
                .bind(next)
                .map_err(|(address, error)| cannot(address, error))?;
            match doors.bind(config, next) {
                Ok(doors) => Ok((bound, doors)),
                Err(NotBound { address, error }) => {
                    server.unbind(&bound);
                    Err(cannot(address, error))
                }
            }
        });
        let (next, (bound, doors), changes) = match reloaded {
            Reloaded::Unchanged => return None,
            Reloaded::Refused(why) => return Some(Outcome::Refused(why)),
            Reloaded::Good(next, bound, changes) => (next, bound, changes),
        };
        if self.level.until.is_none() {
            self.log.set(next.level);
            self.level.current.send_replace(next.level);
        }
        say_reported(&current);
        say_exceeded(&current);
        follow_issuers(&next);
        next.counts.set_most_routes(next.metrics_routes);
        note_lost_lines(&current, &next);
        self.publish.send_replace(Arc::clone(&next));
        self.in_force
            .send_replace(Arc::clone(self.active.in_force()));
        keep_numbers(&next);
        self.certificates.follow(&next);
        self.tickets.follow(&next);
        proxy::retire(&current.upstreams, &next.upstreams);
        self.checks.follow(&next);
        self.server.listen(&next, bound);
        self.admin.open(doors);
        tracing::info!(config = %self.config.display(), "configuration reloaded");
        if let (Some(before), Some(tokens)) = (&current.tokens, &next.tokens) {
            let (before, tokens) = (Arc::clone(before), Arc::clone(tokens));
            let now = clock::now();
            tokio::spawn(async move {
                tokens.end_those_who_left(&before, now).await;
            });
        }
        // The new key file triggers another reload, like any change.
        if let Err(error) = start::make_missing_key(&next) {
            tracing::error!(%error, "a signing key cannot be made");
        }
        Some(Outcome::Good(changes))
    }

    /// Lets requests in flight finish, within their timeouts, and writes the remaining access records.
    async fn end(mut self, signals: Signals) {
        let last = self.snapshot();
        last.readiness.drain();
        self.supervisor.stopping();
        let timeouts = last.bounds.timeouts;
        let mut signals = signals;
        if !timeouts.shutdown_delay.is_zero() {
            tracing::info!(delay = ?timeouts.shutdown_delay, "not ready any more; connections are accepted until the drain");
            // A second signal begins the drain.
            tokio::select! {
                () = tokio::time::sleep(timeouts.shutdown_delay) => {}
                () = signals.stop_again() => {}
            }
        }
        tracing::info!(bound = ?timeouts.shutdown, streams = ?timeouts.shutdown_streams, "draining");
        let draining = self.server.drain(&timeouts, signals.again());
        let (cut, ()) = tokio::join!(draining, self.certificates.end());
        if cut > 0 {
            tracing::warn!(
                connections = cut,
                "connections were cut off at the end of the drain"
            );
        }
        say_reported(&last);
        say_exceeded(&last);
        if let Some(access_log) = &last.access_log {
            access_log.finish(FINISHING).await;
            access_log.tell(Instant::now());
        }
        drop(self.admin);
        tracing::info!("stopped");
    }
}

/// Remembers how many lines the access log has lost that is replaced.
fn note_lost_lines(before: &Snapshot, after: &Snapshot) {
    let Some(log) = &before.access_log else {
        return;
    };
    let stays = after
        .access_log
        .as_ref()
        .is_some_and(|it| Arc::ptr_eq(it, log));
    if !stays {
        let lost = &after.counts.lost_lines;
        lost.fetch_add(log.dropped(), std::sync::atomic::Ordering::Relaxed);
    }
}

/// Forgets the numbers of what a new configuration does not have any more.
fn keep_numbers(snapshot: &Snapshot) {
    let listeners = snapshot.listeners.iter();
    snapshot.counts.keep(&Names {
        routes: snapshot.routes.iter().map(|it| it.name.as_str()).collect(),
        verifiers: snapshot
            .verifiers
            .iter()
            .map(|(it, _)| it.name.as_str())
            .collect(),
        listeners: listeners.map(|it| it.address.to_string()).collect(),
    });
}

/// Logs how many requests were allowed that would have been refused, on routes that only report refusals.
fn say_reported(snapshot: &Snapshot) {
    for route in &snapshot.routes {
        let count = route.guard.reported();
        if count > 0 {
            tracing::warn!(
                route = route.name,
                count,
                "requests were allowed that would be refused without `enforce: report`"
            );
        }
    }
}

/// Logs which limits were exceeded, each once.
fn say_exceeded(snapshot: &Snapshot) {
    let mut told = HashSet::new();
    let limits = snapshot
        .routes
        .iter()
        .filter_map(|route| route.limits.as_ref());
    for (id, count, gave_way) in limits.flat_map(|limits| limits.exceeded()) {
        if told.insert(id) {
            let (route, limit) = (id.route.as_deref().unwrap_or("(defaults)"), &id.name);
            tracing::info!(route, limit, count, gave_way, "requests were over a limit");
        }
    }
}

/// Starts to fetch the keys that are at a URL; tasks of an earlier configuration continue.
fn follow_issuers(snapshot: &Snapshot) {
    for keys in snapshot.verifiers.iter().filter_map(|(_, it)| it.remote()) {
        issuers::follow(keys, &snapshot.dialer);
    }
}

/// Reads, validates and compiles the configuration at `config` without binding anything. Returns the warnings, and the
/// configuration as YAML with its secrets hidden.
///
/// # Errors
/// All errors in the configuration.
pub fn check(config: &Path) -> Result<Checked, ConfigErrors> {
    let loaded = config::load(config, &[], &reload::judge).map_err(|refused| refused.errors)?;
    Ok(Checked {
        warnings: loaded.warnings,
        summary: config::summary(&loaded.snapshot),
        printed: loaded.printed,
    })
}

/// A valid configuration.
#[derive(Debug)]
pub struct Checked {
    /// Settings that are allowed, but dangerous.
    pub warnings: Vec<ConfigWarning>,
    /// One line with the number of listeners, routes and so on, and what is public.
    pub summary: String,
    /// The effective configuration as YAML, its secrets hidden.
    pub printed: String,
}
