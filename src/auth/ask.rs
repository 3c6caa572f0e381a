//! `AskGuard`: access that another server decides. How it is queried is said in `proxy`; here its response is
//! interpreted.

use std::sync::Arc;

use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderName, StatusCode};

use super::permit::Permit;
use super::principal::Principal;
use crate::message::reject::Reject;

/// A guard that queries another server.
#[derive(Debug)]
pub(crate) struct AskGuard {
    /// The response headers that are copied to the app.
    pub(crate) copy: Vec<HeaderName>,
}

impl AskGuard {
    /// Interprets a response with this status and these headers.
    ///
    /// # Errors
    /// `AskFailed` where the response does not say whether the request is allowed, or contradicts itself.
    pub(crate) fn judge(&self, status: StatusCode, headers: &HeaderMap) -> Result<Word, Reject> {
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            return Ok(Word::No);
        }
        if !status.is_success() {
            return Err(Reject::AskFailed);
        }
        let mut identity = Vec::with_capacity(self.copy.len());
        for name in &self.copy {
            let mut values = headers.get_all(name).iter();
            if let Some(value) = values.next() {
                identity.push((name.clone(), value.clone()));
            }
            if values.next().is_some() {
                return Err(Reject::AskFailed);
            }
        }
        Ok(Word::Yes(Permit {
            identity,
            is_private: true,
            replaced: credentials(&self.copy),
            ..Permit::of(Principal::anonymous())
        }))
    }
}

/// The credentials among these header names. The apps of other routes, and the server that is queried, receive them
/// unchanged.
pub(super) fn credentials(names: &[HeaderName]) -> Arc<[HeaderName]> {
    let is_credential = |name: &&HeaderName| is_credential(name);
    names.iter().filter(is_credential).cloned().collect()
}

/// Whether clients authenticate themselves with this header.
pub(crate) fn is_credential(name: &HeaderName) -> bool {
    *name == AUTHORIZATION || *name == COOKIE
}

/// The decision of a server that was queried.
#[derive(Debug)]
pub(crate) enum Word {
    /// The request is allowed.
    Yes(Permit),
    /// It is denied, and the client gets that server's response.
    No,
}
