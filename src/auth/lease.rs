//! `Lease`: the part of a token that a tunnel or a response in progress keeps, if it has to end with that token
//! (`on_expiry: close`). The holder decides when to check it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::verify::{Ended, Verified, Verifier};

/// A verified token and the verifier that accepted it.
pub(crate) struct Lease {
    verified: Arc<Verified>,
    verifier: Arc<Verifier>,
}

impl fmt::Debug for Lease {
    /// The content of the token is never printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease by {}", self.verifier.name())
    }
}

impl Lease {
    /// How often to check whether the session has ended; the expiry is known in advance.
    pub(crate) const LOOKS: Duration = Duration::from_secs(4);

    /// A lease of a token that this verifier accepted.
    pub(super) fn new(verified: Arc<Verified>, verifier: Arc<Verifier>) -> Self {
        Self { verified, verifier }
    }

    /// When the token expires, with the verifier's leeway.
    pub(crate) fn expires(&self) -> Option<SystemTime> {
        self.verified.ends()
    }

    /// Why it has ended, according to the verifiers of the current configuration: a reload brings other revocations
    /// and other users. If the verifier was removed, its last known state applies.
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
