//! `Guard`: what a route requires. It authenticates a request, and authorizes whoever sent it. How a rejected client
//! is told what it lacks is said in `challenge`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::ask::AskGuard;
use super::jwt_guard::{JwtGuard, Unauthenticated};
use super::permit::Permit;
use super::policy::Parameters;
use super::principal::Principal;
use super::remembered::Remembered;
use super::token;
use super::verify::Lack;
use crate::message::reject::Reject;

/// The total time that a request waits for newer keys; slightly longer than a fetch takes.
const PATIENCE: Duration = Duration::from_secs(6);

/// What a route requires of a request.
#[derive(Debug)]
pub(crate) enum Guard {
    /// Nothing: `auth: none`.
    Open,
    /// A valid token.
    Jwt(Box<JwtGuard>),
    /// The decision of a server that is queried for each request.
    Ask(AskGuard),
}

impl Guard {
    /// Authenticates the request: exactly one token in the places that the route's verifiers list, with a valid
    /// signature and valid registered claims. If the token's key is unknown, waits for a newer key set, where one may
    /// be requested from the issuer.
    ///
    /// # Errors
    /// `TokenMissing`, `TokenMalformed`, `TokenInvalid` or `KeysMissing`.
    pub(crate) async fn authenticate(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        remembered: &Remembered,
        now: SystemTime,
    ) -> Result<Principal, Reject> {
        let mut deadline = None;
        loop {
            let refused = match self.authenticate_at_once(headers, query, remembered, now) {
                Ok(principal) => return Ok(principal),
                Err(refused) => refused,
            };
            // Where failed checks are only reported, do not wait for keys.
            let waits = !refused.lacks.is_empty() && !self.only_reports();
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
            let news = async { waits && any_newer(refused.lacks).await };
            if !timeout_at(deadline, news).await.unwrap_or(false) {
                return self.let_pass(refused.reject);
            }
        }
    }

    /// Whether a claim is compared with the path parameter of this name.
    pub(crate) fn uses_parameter(&self, name: &str) -> bool {
        match self {
            Self::Jwt(guard) => {
                let require = guard.require.as_ref();
                require.is_some_and(|require| require.uses_parameter(name))
            }
            Self::Open | Self::Ask(_) => false,
        }
    }

    fn only_reports(&self) -> bool {
        match self {
            Self::Jwt(guard) => guard.only_reports,
            Self::Open | Self::Ask(_) => false,
        }
    }

    /// Counts a request that was allowed although it failed the checks.
    pub(crate) fn count_reported(&self) {
        if let Self::Jwt(guard) = self {
            guard.reported.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// An anonymous principal with this reason, where failed checks are only reported.
    ///
    /// # Errors
    /// The reason, where they are enforced.
    pub(crate) fn let_pass(&self, reject: Reject) -> Result<Principal, Reject> {
        match self {
            Self::Jwt(_) if self.only_reports() => Ok(Principal::unknown(reject)),
            Self::Jwt(_) | Self::Open | Self::Ask(_) => Err(reject),
        }
    }

    /// The same, with the keys at hand.
    ///
    /// # Errors
    /// As [`Guard::authenticate`].
    pub(crate) fn authenticate_at_once(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        remembered: &Remembered,
        now: SystemTime,
    ) -> Result<Principal, Unauthenticated> {
        let Self::Jwt(guard) = self else {
            return Ok(Principal::anonymous());
        };
        match token::find(headers, query, &guard.places)? {
            Some(found) => {
                let verified = if found.rivals.is_empty() {
                    guard.verify(&found, remembered, now)?
                } else {
                    guard.verify_one_of(found, remembered, now)?
                };
                Ok(Principal::bearer(verified))
            }
            None if guard.optional => Ok(Principal::anonymous()),
            None => Err(Reject::TokenMissing.into()),
        }
    }

    /// Authorizes the principal: the route's `require` holds, and the claims can be written as headers. `params` are
    /// the route's path parameters.
    ///
    /// # Errors
    /// `Forbidden` where the claims do not satisfy the route, and `TokenMissing` where an anonymous principal does
    /// not; `ClaimUnfit` where a claim cannot be a header; `AskFailed` where another server has to decide.
    pub(crate) fn authorize(
        &self,
        principal: Principal,
        params: &Parameters<'_>,
    ) -> Result<Permit, Reject> {
        let guard = match self {
            Self::Open => return Ok(Permit::of(principal)),
            Self::Jwt(guard) => guard,
            // Only the server that is queried can decide.
            Self::Ask(_) => return Err(Reject::AskFailed),
        };
        let mut reported = principal.refused();
        if let Err(reject) = guard.check(&principal, params) {
            if !guard.only_reports {
                return Err(reject);
            }
            reported = reported.or(Some(reject));
        }
        let mut identity = Vec::with_capacity(guard.forward.len());
        for (name, claim) in &guard.forward {
            match principal.header(claim) {
                Ok(Some(value)) => identity.push((name.clone(), value)),
                Ok(None) => {}
                Err(reject) if guard.only_reports => reported = reported.or(Some(reject)),
                Err(reject) => return Err(reject),
            }
        }
        Ok(Permit {
            is_private: !principal.is_anonymous() || reported.is_some(),
            lease: guard
                .ends_with_token
                .then(|| guard.lease(&principal))
                .flatten(),
            principal,
            identity,
            places: Some(Arc::clone(&guard.places)),
            strips: guard.strip_token,
            reported,
            only_reports: guard.only_reports,
            replaced: Arc::clone(&guard.replaced),
        })
    }
}

/// Waits until one of these key sets was fetched again; returns whether one was.
async fn any_newer(lacks: Vec<Lack>) -> bool {
    let mut waiting = JoinSet::new();
    for Lack { keys, fetches } in lacks {
        waiting.spawn(async move { keys.newer(fetches).await });
    }
    while let Some(came) = waiting.join_next().await {
        if came.unwrap_or(false) {
            return true;
        }
    }
    false
}
