//! What the system's signals ask of the gateway.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::signal::unix::{self, SignalKind};

/// Signals to stop this close together are one: a terminal and who runs this program may both send theirs.
const ONE_SIGNAL: Duration = Duration::from_millis(100);

/// What a signal asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Signal {
    /// SIGTERM, SIGINT, SIGQUIT: drain, then end.
    Stop,
    /// SIGHUP: reload, also where no file changed.
    Reload,
    /// SIGUSR1: open the access log's file anew.
    Reopen,
}

/// All signals that mean something, or must not end the process.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    quit: unix::Signal,
    hangup: unix::Signal,
    rotated: unix::Signal,
    /// Caught, so that they end nothing: SIGUSR2 has no meaning yet, and a log at the limit of a file's size is an error of
    /// its write.
    _silenced: [unix::Signal; 2],
}

impl Signals {
    /// Catches them from now on.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub(super) fn catch() -> std::io::Result<Self> {
        let catch = unix::signal;
        let too_large = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
        Ok(Self {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
            quit: catch(SignalKind::quit())?,
            hangup: catch(SignalKind::hangup())?,
            rotated: catch(SignalKind::user_defined1())?,
            _silenced: [catch(SignalKind::user_defined2())?, catch(too_large)?],
        })
    }

    /// The next one. Who drops the future and asks again misses none.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            () = stop(&mut self.terminate, &mut self.interrupt, &mut self.quit) => Signal::Stop,
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.rotated.recv() => Signal::Reopen,
        }
    }

    /// The next one that asks to stop.
    pub(super) async fn stop(&mut self) {
        stop(&mut self.terminate, &mut self.interrupt, &mut self.quit).await;
    }

    /// What is ready when a second signal asks to stop, later than the first one's echo.
    pub(super) fn again(mut self) -> impl Future<Output = ()> {
        let same_until = Instant::now() + ONE_SIGNAL;
        async move {
            loop {
                self.stop().await;
                if Instant::now() >= same_until {
                    return tracing::info!("a second signal: the drain ends");
                }
            }
        }
    }
}

async fn stop(terminate: &mut unix::Signal, interrupt: &mut unix::Signal, quit: &mut unix::Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = quit.recv() => {}
    }
}
