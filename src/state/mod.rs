//! What outlives the process: where it is kept, and how Redis is spoken. Who uses it keeps rows of its own there.

mod servers;

use std::fmt;
use std::path::PathBuf;

pub(crate) use self::servers::{
    ANSWER, Addresses, CONNECTING, Link, Servers, connect, io, setting,
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
