//! `Lease`: what a tunnel, or an answer that still runs, holds of the token that opened it, where it is to end with
//! that token (`on_expiry: close`). Who looks at it, and when, is decided by whoever holds it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::verify::{Ended, Verified, Verifier};

/// A token that was found right, and who found it so.
pub(crate) struct Lease {
    verified: Arc<Verified>,
    verifier: Arc<Verifier>,
}

impl fmt::Debug for Lease {
    /// What the token says is not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease by {}", self.verifier.name())
    }
}

impl Lease {
    /// How often to look at whether the session goes on; the expiry is known before.
    pub(crate) const LOOKS: Duration = Duration::from_secs(4);

    /// What is held of a token that this verifier found right.
    pub(super) fn new(verified: Arc<Verified>, verifier: Arc<Verifier>) -> Self {
        Self { verified, verifier }
    }

    /// When the token expires, with the verifier's leeway.
    pub(crate) fn expires(&self) -> Option<SystemTime> {
        self.verified.ends()
    }

    /// Why it has ended, where these are the verifiers of the configuration that is in force now: a reload brings
    /// other revocations and other users. One that is gone from it leaves what it knew.
    pub(crate) fn why_ended<'v>(
        &self,
        now_in_force: impl Iterator<Item = &'v Arc<Verifier>> + Clone,
    ) -> Option<Ended> {
        let mut same = now_in_force.clone();
        let mut namesake = now_in_force;
        let verifier = same
            .find(|verifier| self.verified.is_by(verifier))
            .or_else(|| namesake.find(|verifier| verifier.name() == self.verifier.name()));
        verifier.unwrap_or(&self.verifier).why_ended(&self.verified)
    }
}
