//! The operator's log: words on the standard error, at a level that a reload may change.

use std::io::IsTerminal;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::Handle;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

/// Changes the level of the running log.
#[derive(Debug)]
pub(crate) struct Level(Option<Handle<LevelFilter, Registry>>);

/// Starts the log at `info`. Where a log runs already, in tests, that one stays.
pub(crate) fn start() -> Level {
    let (filter, handle) = reload::Layer::new(LevelFilter::INFO);
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let started = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init();
    Level(started.is_ok().then_some(handle))
}

impl Level {
    /// Says from now on what is at least as grave as `level`.
    pub(crate) fn set(&self, level: tracing::Level) {
        let changed = self
            .0
            .as_ref()
            .map(|handle| handle.reload(LevelFilter::from_level(level)));
        if let Some(Err(error)) = changed {
            tracing::error!(%error, "the log's level cannot be changed");
        }
    }
}
