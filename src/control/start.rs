//! What a start does before the gateway serves: first configuration, missing signing key, addresses, descriptors.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::RunError;
use super::reload::Active;
use crate::clock;
use crate::server::{Bound, Server};
use crate::snapshot::Snapshot;
use crate::tokens::{States, is_taken};

/// How long a start waits for addresses and for a `state` in use by another process, and how often it tries.
const FREED: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(100));

/// Loads the first configuration, and starts what it needs besides workers. It may block on file systems.
pub(super) fn start(config: &Path, states: &States) -> Result<(Active, Arc<Snapshot>), RunError> {
    let (mut active, mut first) = Active::load(config)?;
    if make_missing_key(&first)? {
        (active, first) = Active::load(config)?;
    }
    if let Some(tokens) = &first.tokens {
        let (patience, pause) = FREED;
        let until = Instant::now() + patience;
        let mut said = false;
        while let Err(why) = tokens.start(states, first.dialer.names(), clock::now()) {
            if !is_taken(&why) || Instant::now() >= until {
                return Err(RunError::Tokens(why));
            }
            if !said {
                tracing::warn!(
                    ?patience,
                    "another process uses `state`: waiting for it to end"
                );
                said = true;
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "this thread is there to wait; no runtime's worker is it"
            )]
            std::thread::sleep(pause);
        }
    }
    Ok((active, first))
}

/// Binds all listeners; where an address is in use, perhaps by a process that is about to exit, it tries again for a
/// while.
pub(super) async fn bind(server: &Server, snapshot: &Snapshot) -> Result<Vec<Bound>, RunError> {
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

/// Creates the token service's signing key if it is missing; returns whether it was.
pub(super) fn make_missing_key(snapshot: &Snapshot) -> Result<bool, RunError> {
    let Some(tokens) = &snapshot.tokens else {
        return Ok(false);
    };
    let Some(key) = tokens.missing_key(clock::now()).map_err(RunError::Tokens)? else {
        return Ok(false);
    };
    let directory = &tokens.settings().keys;
    key.write(directory)
        .map_err(|error| RunError::Tokens(format!("`{}`: {error}", directory.display())))?;
    tracing::info!(file = key.file, folder = %directory.display(), "signing key made");
    Ok(true)
}

/// Raises the limit of descriptors to the maximum for this process: a connection needs one or two.
pub(super) fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files could not be raised");
    }
}
