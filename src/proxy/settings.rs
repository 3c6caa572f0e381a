//! The settings of an upstream and its servers, compared after a reload. What is made of them is in `upstream`.

use std::fmt::{Display, Formatter};
use std::path::PathBuf;
use std::time::Duration;

use super::UpstreamTimeouts;
use super::balance::Balance;
use super::eject::EjectSettings;
use super::endpoint::Address;
use super::health::HealthSettings;
use super::retry::RetrySettings;
use super::sticky::StickySettings;

/// Whose requests an upstream carries. Connections are never shared between two purposes: what a client may leave
/// behind on one must not become the response that decides who it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Purpose {
    /// Clients' own.
    Proxy,
    /// Subrequests that decide whether a client's request is allowed.
    Ask,
    /// Requests that check a password.
    Login,
}

/// The settings of an upstream; if they are equal after a reload, all of it is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct UpstreamSettings {
    /// Whose requests it carries.
    pub(crate) purpose: Purpose,
    /// Its name, or its URL.
    pub(crate) name: String,
    /// Its servers; each address once.
    pub(crate) servers: Vec<ServerSettings>,
    /// How one of them is chosen.
    pub(crate) balance: Balance,
    /// The value that decides first, in words; where a request has none, `balance` does.
    pub(crate) hash: Option<String>,
    /// How long a server that comes back takes to have its whole weight.
    pub(crate) slow_start: Duration,
    /// The cookie that keeps clients at their servers.
    pub(crate) sticky: Option<StickySettings>,
    /// What is tried again.
    pub(crate) retries: RetrySettings,
    /// Which servers are taken out; only with several.
    pub(crate) eject: Option<EjectSettings>,
    /// How servers are checked.
    pub(crate) health: Option<HealthSettings>,
    /// Who waits where servers have a `max`; `None` if none has.
    pub(crate) limits: Option<Limits>,
    /// Its timeouts, unless the route sets others.
    pub(crate) timeouts: UpstreamTimeouts,
    /// The most idle connections per endpoint and worker.
    pub(crate) keep_alive: usize,
    /// How long a connection may have been idle to be used for a request that cannot be retried.
    pub(crate) fresh: Duration,
    /// Whether and how bodies are buffered.
    pub(crate) buffer: Option<BufferSettings>,
    /// Whether field names with `_` are forwarded.
    pub(crate) underscores: bool,
}

/// The settings of one server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ServerSettings {
    /// Where it listens.
    pub(crate) address: Address,
    /// Its share of the requests, compared with the others'; 0 gets none, 256 is the most.
    pub(crate) weight: u32,
    /// Whether it is used only while no other server can be.
    pub(crate) backup: bool,
    /// The most requests at the same time, over all workers.
    pub(crate) max: Option<usize>,
}

/// Who waits while all servers have as many requests as they may.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Limits {
    /// How many requests.
    pub(crate) queue: usize,
    /// How long each.
    pub(crate) wait: Duration,
}

impl Limits {
    /// The default of `connections.wait`.
    pub(crate) const WAIT: Duration = Duration::from_secs(5);
}

impl ServerSettings {
    /// A server with the defaults.
    pub(crate) fn new(address: Address) -> Self {
        Self {
            address,
            weight: 1,
            backup: false,
            max: None,
        }
    }
}

impl Display for ServerSettings {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        self.address.fmt(f)?;
        if self.weight != 1 {
            write!(f, " (weight {})", self.weight)?;
        }
        if self.backup {
            f.write_str(" (backup)")?;
        }
        if let Some(max) = self.max {
            write!(f, " (max {max})")?;
        }
        Ok(())
    }
}

/// The settings of a buffer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct BufferSettings {
    /// Bytes of a request body in memory.
    pub(crate) request: usize,
    /// Bytes of a response in memory.
    pub(crate) response: usize,
    /// The spool's directory and the most bytes that it may hold.
    pub(crate) spool: Option<(PathBuf, u64)>,
    /// Whether the upstream's configuration sets this.
    pub(crate) is_own: bool,
}

impl BufferSettings {
    /// The defaults.
    pub(crate) const DEFAULT: Self = Self {
        request: 64 << 10,
        response: 64 << 10,
        spool: None,
        is_own: false,
    };
}

impl UpstreamSettings {
    /// How a server is chosen, in words.
    pub(crate) fn balance_in_words(&self) -> String {
        match &self.hash {
            Some(value) => format!("hash:{value}"),
            None => self.balance.to_string(),
        }
    }

    /// The default number of idle connections.
    pub(crate) const KEEP_ALIVE: u32 = 1024;
    /// The default of `fresh`: app servers close after 2 s (gunicorn) and more.
    pub(crate) const FRESH: Duration = Duration::from_secs(1);
}
