//! Active health checks: what one is, and when its outcome takes a server out or brings it back. How one is done is in
//! `check`, when it is due and what is logged of it in `control/health`; failures of clients' own requests are in `eject`.

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

/// `health` of an upstream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct HealthSettings {
    /// What is sent and expected; `None` only connects.
    pub(crate) request: Option<HealthRequest>,
    /// The port to connect to, if not the server's own.
    pub(crate) port: Option<u16>,
    /// From one check to the next.
    pub(crate) interval: Duration,
    /// How long one may take.
    pub(crate) timeout: Duration,
    /// How many failures in a row take a server out.
    pub(crate) unhealthy_after: u32,
    /// How many passes in a row bring it back.
    pub(crate) healthy_after: u32,
    /// Whether requests go to all servers while all are out, instead of being refused.
    pub(crate) tries_all: bool,
}

/// The request of a check, and the response that passes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct HealthRequest {
    /// GET, HEAD or OPTIONS.
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: String,
    /// `Host`, if not the server's.
    pub(crate) host: Option<HeaderValue>,
    /// More fields.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// The statuses that pass, from and to.
    pub(crate) status: Vec<(u16, u16)>,
    /// What the body must have in it.
    pub(crate) body: Option<String>,
}

/// What checks say of a server. Read when the servers are dealt, written when it changes.
#[derive(Debug, Default)]
pub(super) struct Health(AtomicU8);

const PASSES: u8 = 1;
const FAILS: u8 = 2;

impl Health {
    /// Whether it passes; `None` before its first check.
    pub(super) fn known(&self) -> Option<bool> {
        match self.0.load(Ordering::Relaxed) {
            PASSES => Some(true),
            FAILS => Some(false),
            _ => None,
        }
    }

    /// Whether checks have taken it out.
    pub(super) fn is_down(&self) -> bool {
        self.known() == Some(false)
    }

    /// Sets what is known.
    pub(super) fn set(&self, known: Option<bool>) {
        let value = match known {
            Some(true) => PASSES,
            Some(false) => FAILS,
            None => 0,
        };
        self.0.store(value, Ordering::Relaxed);
    }
}

/// The checks of one server so far, as far as they decide.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tally {
    known: Option<bool>,
    /// How many in a row said otherwise.
    against: u32,
}

impl Tally {
    /// Begins with what is known from before.
    pub(crate) fn new(known: Option<bool>) -> Self {
        Self { known, against: 0 }
    }

    /// A check has passed or failed. Returns how many in a row did so where that changes what is known: the first one
    /// decides alone.
    pub(crate) fn hears(&mut self, passed: bool, health: &HealthSettings) -> Option<u32> {
        let enough = match (self.known, passed) {
            (Some(known), _) if known == passed => {
                self.against = 0;
                return None;
            }
            (None, _) => 1,
            (Some(_), true) => health.healthy_after,
            (Some(_), false) => health.unhealthy_after,
        };
        self.against += 1;
        if self.against < enough {
            return None;
        }
        self.known = Some(passed);
        Some(std::mem::take(&mut self.against))
    }
}
