//! What outlives the process: where it is kept, how Redis is spoken, and the key that seals. Who uses it keeps rows of its
//! own there.

mod key;
mod servers;

use std::fmt;
use std::path::PathBuf;

pub(crate) use self::key::{Sealer, StateKey, key_of_text};
pub(crate) use self::servers::{
    ANSWER, Addresses, CONNECTING, Client, Link, Servers, WHOLE, connect, dangers, io,
};

/// Where state is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum StateAt {
    /// In a directory of this machine.
    Directory(PathBuf),
    /// On servers that are shared with other gateways.
    Servers(Servers),
}

impl fmt::Display for StateAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(directory) => write!(f, "{}", directory.display()),
            Self::Servers(servers) => write!(f, "{servers}"),
        }
    }
}

/// `state` of a configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct State {
    /// Where it is.
    pub(crate) at: StateAt,
    /// What seals what lies on servers.
    pub(crate) key: Option<StateKey>,
}
