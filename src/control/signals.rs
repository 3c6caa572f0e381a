//! The meaning of the process's signals.

use std::time::{Duration, Instant};

use tokio::signal::unix::{self, SignalKind};

/// Stop signals within this time count as one: a terminal and a parent process may both send one.
const ONE_SIGNAL: Duration = Duration::from_millis(100);

/// The request of a signal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Signal {
    /// SIGTERM, SIGINT, SIGQUIT: drain, then end.
    Stop,
    /// SIGHUP: reload, even if no file changed.
    Reload,
    /// SIGUSR1: reopen the access log's file.
    Reopen,
}

/// All signals that have a meaning or must not end the process.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    quit: unix::Signal,
    hangup: unix::Signal,
    rotated: unix::Signal,
    /// Caught, so that they do not end the process: SIGUSR2 has no meaning yet, and for SIGXFSZ the write to a log at
    /// its size limit returns an error.
    _silenced: [unix::Signal; 2],
}

impl Signals {
    /// Installs the handlers.
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

    /// The next signal. Cancel-safe.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            () = stop(&mut self.terminate, &mut self.interrupt, &mut self.quit) => Signal::Stop,
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.rotated.recv() => Signal::Reopen,
        }
    }

    /// The next stop signal.
    pub(super) async fn stop(&mut self) {
        stop(&mut self.terminate, &mut self.interrupt, &mut self.quit).await;
    }

    /// Completes at a second stop signal, ignoring duplicates of the first.
    pub(super) async fn stop_again(&mut self) {
        let same_until = Instant::now() + ONE_SIGNAL;
        loop {
            self.stop().await;
            if Instant::now() >= same_until {
                return;
            }
        }
    }

    /// The same, during the drain.
    pub(super) async fn again(mut self) {
        self.stop_again().await;
        tracing::info!("second signal: the drain is cut short");
    }
}

async fn stop(terminate: &mut unix::Signal, interrupt: &mut unix::Signal, quit: &mut unix::Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = quit.recv() => {}
    }
}
