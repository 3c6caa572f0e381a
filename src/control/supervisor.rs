//! What systemd is told (sd_notify(3)): that the gateway is ready, reloads and stops, and, where the unit has a watchdog,
//! that it turns. Nothing here waits: what systemd does not take at once is sent later. Without `NOTIFY_SOCKET` in the
//! environment nobody is told anything.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::server::{Pulse, Server};
use crate::snapshot::Snapshot;

/// How often what systemd did not take is sent again.
const AGAIN: Duration = Duration::from_secs(1);
/// How much may wait to be sent; the oldest is given up.
const MOST_WAITING: usize = 16;

/// systemd, or nobody.
#[derive(Debug)]
pub(super) struct Supervisor(Option<Listening>);

/// A supervisor that listens.
#[derive(Debug)]
struct Listening {
    socket: UnixDatagram,
    waiting: VecDeque<String>,
    watchdog: Option<Watchdog>,
    ticks: Interval,
}

/// When the workers turned last.
#[derive(Debug)]
struct Watchdog {
    /// Half of the time after which systemd ends a silent service.
    limit: Duration,
    /// When all workers were asked that answered last.
    turned: Instant,
    asked: Instant,
    pulse: Option<Pulse>,
}

impl Supervisor {
    /// Finds out who wants to be told.
    pub(super) fn find() -> Self {
        let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
            return Self(None);
        };
        match connected(&path) {
            Ok(socket) => Self(Some(Listening::new(socket, sd_notify::watchdog_enabled()))),
            Err(error) => {
                tracing::warn!(%error, "systemd's NOTIFY_SOCKET cannot be used: it is told nothing");
                Self(None)
            }
        }
    }

    /// The gateway serves this: after the start, and after every reload, a refused one, too.
    pub(super) fn ready(&mut self, snapshot: &Snapshot) {
        let count = |count: usize, what: &str| match count {
            1 => format!("1 {what}"),
            _ => format!("{count} {what}s"),
        };
        let listeners = count(snapshot.listeners.len(), "listener");
        let routes = count(snapshot.routes.len(), "route");
        let status = format!("Serving {routes} on {listeners}");
        self.tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
    }

    /// A reload begins that somebody asked for.
    pub(super) fn reloading(&mut self) {
        // systemd tells by the time which reload it was that ends.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(_) => self.tell(&[NotifyState::Reloading]),
        }
    }

    /// The drain begins.
    pub(super) fn stopping(&mut self) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status("Draining")]);
    }

    /// When [`beat`](Self::beat) is due. Cancel-safe.
    pub(super) async fn due(&mut self) {
        match &mut self.0 {
            Some(listening) => drop(listening.ticks.tick().await),
            None => std::future::pending().await,
        }
    }

    /// Sends what systemd did not take before, and that the workers turn, if they do.
    pub(super) fn beat(&mut self, server: &Server) {
        let Some(listening) = &mut self.0 else {
            return;
        };
        let turns = match &mut listening.watchdog {
            Some(watchdog) => watchdog.turns(Instant::now(), || server.pulse()),
            None => false,
        };
        listening.send();
        // One in the queue says as much as many.
        if turns && listening.waiting.is_empty() {
            self.tell(&[NotifyState::Watchdog]);
        }
    }

    fn tell(&mut self, states: &[NotifyState<'_>]) {
        if let Some(listening) = &mut self.0 {
            let lines: String = states.iter().map(|state| format!("{state}\n")).collect();
            if listening.waiting.len() == MOST_WAITING {
                listening.waiting.pop_front();
            }
            listening.waiting.push_back(lines);
            listening.send();
        }
    }
}

impl Listening {
    fn new(socket: UnixDatagram, watchdog: Option<Duration>) -> Self {
        let every = watchdog.map_or(AGAIN, |limit| {
            (limit / 4).clamp(Duration::from_millis(10), AGAIN)
        });
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let now = Instant::now();
        let watchdog = watchdog.map(|limit| Watchdog {
            limit: limit / 2,
            turned: now,
            asked: now,
            pulse: None,
        });
        Self {
            socket,
            waiting: VecDeque::new(),
            watchdog,
            ticks,
        }
    }

    /// Sends what waits, in its order, as far as it is taken.
    fn send(&mut self) {
        while let Some(lines) = self.waiting.front() {
            match self.socket.send(lines.as_bytes()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::warn!(%error, "systemd cannot be told something");
                    self.waiting.clear();
                    return;
                }
                Ok(_) => drop(self.waiting.pop_front()),
            }
        }
    }
}

impl Watchdog {
    /// Whether all workers turned within the limit; asks them again once all have answered.
    fn turns(&mut self, now: Instant, ask: impl FnOnce() -> Pulse) -> bool {
        if self.pulse.as_ref().is_none_or(Pulse::is_complete) {
            if self.pulse.is_some() {
                self.turned = self.asked;
            }
            self.asked = now;
            self.pulse = Some(ask());
        }
        now.saturating_duration_since(self.turned) <= self.limit
    }
}

/// The socket of this name, which may be abstract (`@...`).
fn connected(path: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    match path.as_bytes().strip_prefix(b"@") {
        Some(name) => connect_abstract(&socket, name)?,
        None => socket.connect(path)?,
    }
    Ok(socket)
}

#[cfg(target_os = "linux")]
fn connect_abstract(socket: &UnixDatagram, name: &[u8]) -> io::Result<()> {
    use std::os::linux::net::SocketAddrExt as _;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    socket.connect_addr(&address)
}

#[cfg(not(target_os = "linux"))]
fn connect_abstract(_: &UnixDatagram, _: &[u8]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supervised(watchdog: Option<Duration>) -> (Supervisor, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        (Supervisor(Some(Listening::new(ours, watchdog))), theirs)
    }

    fn heard(socket: &UnixDatagram) -> Option<String> {
        let mut room = [0; 256];
        let count = socket.recv(&mut room).ok()?;
        Some(String::from_utf8_lossy(&room[..count]).into_owned())
    }

    #[tokio::test]
    async fn a_supervisor_that_takes_nothing_holds_nobody_up_and_hears_the_last_word() {
        let (mut supervisor, systemd) = supervised(None);
        for _ in 0..10_000 {
            supervisor.reloading();
        }
        supervisor.stopping();
        let Supervisor(Some(listening)) = &supervisor else {
            panic!("nobody listens");
        };
        assert_eq!(listening.waiting.len(), MOST_WAITING);
        let mut last = String::new();
        for _ in 0..3 {
            while let Some(lines) = heard(&systemd) {
                last = lines;
            }
            if let Supervisor(Some(listening)) = &mut supervisor {
                listening.send();
            }
        }
        assert_eq!(last, "STOPPING=1\nSTATUS=Draining\n");
    }

    #[tokio::test]
    async fn a_supervisor_that_is_gone_is_no_failure() {
        let (mut supervisor, systemd) = supervised(None);
        drop(systemd);
        supervisor.stopping();
        supervisor.stopping();
    }

    #[test]
    fn a_worker_that_does_not_turn_silences_the_watchdog() {
        let second = Duration::from_secs(1);
        let begin = Instant::now();
        let mut watchdog = Watchdog {
            limit: 5 * second,
            turned: begin,
            asked: begin,
            pulse: None,
        };
        let stuck = Pulse::of(2);
        for tick in 0..10 {
            let now = begin + tick * second;
            assert!(watchdog.turns(now, Pulse::complete), "all turn, {tick}");
        }
        let begin = begin + 10 * second;
        for tick in 0..4 {
            let now = begin + tick * second;
            assert!(watchdog.turns(now, || stuck.clone()), "one is late, {tick}");
        }
        stuck.beat();
        assert!(
            !watchdog.turns(begin + 6 * second, || stuck.clone()),
            "it is stuck"
        );
        stuck.beat();
        // All have answered what they were asked at `begin`, which is too long ago to count; the next answer does.
        assert!(!watchdog.turns(begin + 7 * second, Pulse::complete));
        assert!(
            watchdog.turns(begin + 8 * second, Pulse::complete),
            "it turns again"
        );
    }
}
