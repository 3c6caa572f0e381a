//! The stages of a request, one at a time, for `benches/`. Not a public API: it changes with the stages. Contains no
//! logic; each function calls the same code as `gateway`.

use std::hint::black_box;
use std::net::IpAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Instant, SystemTime};

use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Version};
use http_body::Body as _;

use crate::auth::Remembered;
use crate::config::{self, ConfigErrors};
use crate::files::FileRequest;
use crate::limit::{Counted, Sender};
use crate::message::path::RequestPath;
use crate::route::{Route, Target};
use crate::snapshot::Snapshot;

/// A configuration whose stages can be called.
#[derive(Debug)]
pub struct Stages {
    snapshot: Arc<Snapshot>,
    remembered: Remembered,
    nothing: Remembered,
}

impl Stages {
    /// Loads a configuration.
    ///
    /// # Errors
    /// Every error in it.
    pub fn load(config: &Path) -> Result<Self, ConfigErrors> {
        let loaded = config::load(config, &[], &|_| config::Verdict::default())
            .map_err(|refused| refused.errors)?;
        Ok(Self {
            snapshot: Arc::new(loaded.snapshot),
            remembered: Remembered::new(1 << 20),
            nothing: Remembered::new(0),
        })
    }

    /// Parses the path and finds the route.
    fn find(&self, target: &PathAndQuery) -> Option<(RequestPath, &Arc<Route>)> {
        let path = RequestPath::parse(target).ok()?;
        let route = self
            .snapshot
            .table
            .find("www.example.com", &path, &Method::GET);
        Some((path, route.ok()?))
    }

    /// Whether a GET of the target has a route.
    #[must_use]
    pub fn route(&self, target: &PathAndQuery) -> bool {
        self.find(target).is_some()
    }

    /// Whether the route of the target allows the request. The token is looked up in the cache of verified tokens, or
    /// verified again.
    #[must_use]
    pub fn admits(&self, target: &PathAndQuery, headers: &HeaderMap, anew: bool) -> bool {
        let Some((_, route)) = self.find(target) else {
            return false;
        };
        let remembered = if anew {
            &self.nothing
        } else {
            &self.remembered
        };
        let (guard, now) = (&route.guard, crate::clock::now());
        let Ok(certified) = guard.certify(None, now) else {
            return false;
        };
        let principal =
            guard.authenticate_at_once(&certified, headers, target.query(), remembered, now);
        principal.is_ok_and(|principal| guard.authorize(principal, &certified, &[]).is_ok())
    }

    /// Counts a request of this client for the limits of the target's route that come before authentication, and writes
    /// what the response says of them; whether it may go on.
    #[must_use]
    pub fn counts(&self, target: &PathAndQuery, client: IpAddr, now: Instant) -> bool {
        let Some((path, route)) = self.find(target) else {
            return false;
        };
        let Some(limits) = &route.limits else {
            return true;
        };
        let mut headers = HeaderMap::new();
        let sender = Sender {
            client: Some(client),
            headers: &headers,
            path: &path,
            permit: None,
        };
        let mut counted = Counted::default();
        let passes = limits.count(&sender, false, now, &mut counted).is_ok();
        limits.tell(&counted, &mut headers);
        limits.leave(&counted);
        passes && !black_box(headers).is_empty()
    }

    /// The length of the file that the target names; `None` where there is none.
    #[must_use]
    pub fn file(&self, target: &PathAndQuery, now: SystemTime) -> Option<u64> {
        let (path, route) = self.find(target)?;
        let Target::Files(files) = &route.target else {
            return None;
        };
        let none = HeaderMap::new();
        let guard = &route.guard;
        let certified = guard.certify(None, now).ok()?;
        let principal = guard
            .authenticate_at_once(&certified, &none, None, &self.nothing, now)
            .ok()?;
        let permit = guard.authorize(principal, &certified, &[]).ok()?;
        let asked = FileRequest {
            worker: 0,
            method: &Method::GET,
            version: Version::HTTP_11,
            headers: &none,
            path: &path,
            skip: route.file_depth(),
            query: None,
            now,
            at: Instant::now(),
            carries: false,
        };
        let served = pin!(files.serve(permit, asked));
        match served.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(response)) => response.body().size_hint().exact(),
            Poll::Ready(Err(_)) | Poll::Pending => None,
        }
    }
}
