//! What a start does before the gateway serves: first configuration, missing files, addresses, the user, descriptors.

use std::io::{Error, ErrorKind};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::RunError;
use super::reload::Active;
use crate::admin::{self, Doors, NotBound};
use crate::clock;
use crate::privilege::{MakesAs, User};
use crate::server::{self, Bound, Server};
use crate::snapshot::{ListenAddress, Snapshot};
use crate::state::StateAt;
use crate::tokens::{States, is_taken};

/// How long a start waits for addresses and for a `state` in use by another process, and how often it tries.
const FREED: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(100));

/// Loads the first configuration, and makes the files that it lacks, which belong to the user that serves. It reads on a
/// thread of its own, since file systems may block, and that thread has ended when this returns.
pub(super) async fn load(config: &Path) -> Result<(Active, Arc<Snapshot>), RunError> {
    let (sender, loaded) = oneshot::channel();
    let config = config.to_owned();
    let loading = std::thread::Builder::new()
        .name("load".to_owned())
        .spawn(move || drop(sender.send(load_and_make(&config))))?;
    let loaded = loaded.await;
    if loading.join().is_err() {
        tracing::error!("the thread that reads the configuration panicked");
    }
    loaded.map_err(Error::other)?
}

fn load_and_make(config: &Path) -> Result<(Active, Arc<Snapshot>), RunError> {
    let (active, first) = Active::load(config)?;
    let making = first.user.as_ref().map(MakesAs::begin).transpose()?;
    make_state(&first)?;
    let made = make_missing_key(&first)?;
    drop(making);
    match made {
        true => Ok(Active::load(config)?),
        false => Ok((active, first)),
    }
}

/// Makes the directory of `state` where another user is to serve, who may not be able to.
fn make_state(snapshot: &Snapshot) -> Result<(), RunError> {
    if snapshot.user.is_none() {
        return Ok(());
    }
    let state = snapshot.state.as_ref().map(|state| &state.at);
    if let Some(StateAt::Directory(directory)) = state {
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory);
        made.map_err(|error| RunError::Make {
            path: directory.display().to_string(),
            error,
        })?;
    }
    Ok(())
}

/// Gives up root for the user that serves; returns whether there was root to give up.
pub(super) fn become_user(user: &User) -> Result<bool, RunError> {
    let became = server::become_user(user).map_err(|fault| RunError::User(fault.to_string()))?;
    if became {
        tracing::info!(user = user.name, group = user.group, "root is given up");
    }
    Ok(became)
}

/// Starts the thread of the allocator that returns unused memory to the system. It begins now and not with the process: it
/// would still be root.
pub(super) fn return_memory() {
    #[cfg(feature = "jemalloc")]
    if let Err(error) = tikv_jemalloc_ctl::background_thread::write(true) {
        tracing::debug!(%error, "the allocator returns memory without a thread of its own");
    }
}

/// Starts the token service. It may block on file systems, and waits for a `state` that another process uses.
pub(super) fn tokens(first: &Snapshot, states: &States) -> Result<(), RunError> {
    let Some(tokens) = &first.tokens else {
        return Ok(());
    };
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
    Ok(())
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
        if error.kind() != ErrorKind::AddrInUse || Instant::now() >= until {
            return Err(RunError::Bind {
                remedy: remedy(&address, &error, false),
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

/// Binds the control socket and the admin listener; where an address is in use it tries again for a while.
pub(super) async fn bind_admin(
    config: &Path,
    snapshot: &Snapshot,
) -> Result<admin::Bound, RunError> {
    let (patience, pause) = FREED;
    let until = Instant::now() + patience;
    loop {
        let NotBound { address, error } = match Doors::default().bind(config, snapshot) {
            Ok(bound) => return Ok(bound),
            Err(failed) => failed,
        };
        if error.kind() != ErrorKind::AddrInUse || Instant::now() >= until {
            return Err(RunError::Bind {
                remedy: remedy(&address, &error, false),
                address: address.to_string(),
                error,
            });
        }
        tokio::time::sleep(pause).await;
    }
}

/// What to do where the system refuses an address, after a semicolon; empty where that says enough.
pub(super) fn remedy(address: &ListenAddress, error: &Error, is_given_up: bool) -> &'static str {
    let ListenAddress::Tcp(_) = address else {
        return "";
    };
    match (error.kind(), is_given_up) {
        (ErrorKind::PermissionDenied, false) => {
            "; this port needs AmbientCapabilities=CAP_NET_BIND_SERVICE in its unit, `socket_activation`, a lower \
             net.ipv4.ip_unprivileged_port_start, or a start as root with `user`"
        }
        (ErrorKind::PermissionDenied, true) => {
            "; root was given up, and CAP_NET_BIND_SERVICE was not there to be kept: restart, or use `socket_activation` or \
             a lower net.ipv4.ip_unprivileged_port_start"
        }
        _ => "",
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
