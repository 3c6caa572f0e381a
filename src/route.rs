//! `RouteTable`: host, path and method to the one `Route`. What a route's target does is not
//! decided here.

mod pattern;
mod template;

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use http::{HeaderValue, Method, Request, StatusCode, header};
use smallvec::SmallVec;

pub(crate) use self::pattern::{Host, Pattern, Segment};
pub(crate) use self::template::Template;
use crate::auth::Guard;
use crate::edits::HeaderEdits;
use crate::files::Files;
use crate::message::cors::Cors;
use crate::message::method::MethodSet;
use crate::message::path::{Other, Reading, RequestPath};
use crate::message::reject::Reject;
use crate::proxy::{Ask, Forward};
use crate::tokens::{Endpoint, TokenService};

/// One compiled route.
#[derive(Debug)]
pub(crate) struct Route {
    /// Its place among the configuration's routes.
    pub(crate) index: usize,
    /// Its `name`, or its host and path as written.
    pub(crate) name: String,
    /// For which hosts; at least one.
    pub(crate) hosts: Vec<Host>,
    /// The paths that it serves.
    pub(crate) pattern: Pattern,
    /// The methods that it serves; `None` is all.
    pub(crate) methods: Option<MethodSet>,
    /// Who may come in.
    pub(crate) guard: Guard,
    /// Whom the guard asks, where it asks.
    pub(crate) ask: Option<Box<Ask>>,
    /// What pages of other origins may do, where they may do anything.
    pub(crate) cors: Option<Arc<Cors>>,
    /// What serves it.
    pub(crate) target: Target,
    /// Edits of the request's headers before they reach an app.
    pub(crate) request_headers: HeaderEdits,
    /// Edits of every response of this route.
    pub(crate) response_headers: HeaderEdits,
    /// Bytes that a request body may have.
    pub(crate) body_bytes: u64,
}

/// What serves a route.
#[derive(Debug)]
pub(crate) enum Target {
    /// Files beneath a root.
    Files(Box<Files>),
    /// An app behind the gateway.
    Upstream {
        /// The way there.
        forward: Forward,
        /// What the app is asked for instead of the client's path.
        rewrite: Option<Rewrite>,
    },
    /// A `Location` made from the path.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: StatusCode,
        /// The text of `Location`.
        to: Template,
    },
    /// The token service.
    Tokens {
        /// The service.
        service: Arc<TokenService>,
        /// Which of its endpoints.
        endpoint: Endpoint,
    },
    /// What tells clients how to get a token for the path below (RFC 9728).
    ResourceMetadata,
    /// A fixed response.
    Respond {
        /// Its status.
        status: StatusCode,
        /// Its body.
        body: bytes::Bytes,
    },
}

/// How a path changes on its way to an app.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Rewrite {
    /// The first segments are taken away.
    StripPrefix {
        /// How many.
        segments: usize,
        /// What they are, as the app is told.
        prefix: HeaderValue,
    },
    /// A new path.
    Path(Template),
}

impl Rewrite {
    /// The path for the app.
    pub(crate) fn path(&self, path: &RequestPath) -> String {
        match self {
            Self::StripPrefix { segments, .. } => format!("/{}", path.written_after(*segments)),
            Self::Path(template) => template.fill(path),
        }
    }

    /// How many segments it takes away before it goes on with what the client wrote; `None` where it does not.
    fn rest(&self) -> Option<usize> {
        match self {
            Self::StripPrefix { segments, .. } => Some(*segments),
            Self::Path(template) => template.rest(),
        }
    }

    /// What is taken away of the path, and the app has to put before the links that it makes.
    pub(crate) fn prefix(&self) -> Option<&HeaderValue> {
        match self {
            Self::StripPrefix { prefix, .. } => Some(prefix),
            Self::Path(_) => None,
        }
    }
}

/// All routes of one configuration.
#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    exact: HashMap<String, Tree, RandomState>,
    /// `*.example.com` as `.example.com`, the longest first.
    wildcard: Vec<(String, Tree)>,
    any: Tree,
}

/// The routes of one host, as a tree of path segments. What most nodes hold lies in the node itself:
/// among many routes each further place in memory is one that no cache holds.
#[derive(Debug, Default)]
struct Tree {
    /// By literal segments; a look-up costs the same among ten and among a hundred thousand.
    literal: HashMap<SmallVec<[u8; 16]>, Self, RandomState>,
    parameter: Option<Box<Self>>,
    /// Routes whose path ends here.
    exact: SmallVec<[Arc<Route>; 1]>,
    /// Routes whose star begins here.
    star: SmallVec<[Arc<Route>; 1]>,
}

impl Route {
    /// Whether the path is one of the route's, whatever the host and the method.
    pub(crate) fn has_path(self: &Arc<Self>, path: &RequestPath) -> bool {
        let mut alone = Tree::default();
        alone.insert(Arc::clone(self)).is_ok() && alone.find(path.resolved()).is_some()
    }

    /// Whether all of the path is a prefix that is taken away, and lacks its slash: the relative links of the app's page would go
    /// one level too high. A request that writes, or wants to change to another protocol, is not sent elsewhere.
    pub(crate) fn lacks_slash<B>(&self, path: &RequestPath, request: &Request<B>) -> bool {
        let Target::Upstream {
            rewrite: Some(Rewrite::StripPrefix { segments, .. }),
            ..
        } = &self.target
        else {
            return false;
        };
        self.pattern.star
            && self.pattern.depth() == *segments
            && path.written_from(*segments).is_empty()
            && matches!(*request.method(), Method::GET | Method::HEAD)
            && !request.headers().contains_key(header::UPGRADE)
    }

    /// The text that is filled with parts of the path, where there is one.
    fn template(&self) -> Option<&Template> {
        match &self.target {
            Target::Redirect { to: template, .. }
            | Target::Upstream {
                rewrite: Some(Rewrite::Path(template)),
                ..
            } => Some(template),
            Target::Upstream { .. }
            | Target::Files(_)
            | Target::Tokens { .. }
            | Target::ResourceMetadata
            | Target::Respond { .. } => None,
        }
    }

    /// The parameters that decide something, each with the place of its segment: what its guard compares, and what its
    /// target is filled with.
    pub(crate) fn deciding_parameters(&self) -> impl Iterator<Item = (&str, usize)> {
        self.pattern.parameters().filter(|(name, at)| {
            self.guard.uses_parameter(name)
                || self.template().is_some_and(|template| template.uses(*at))
        })
    }

    /// Whether a path, all of whose readings lead here, opens the same here in all of them: each has the same parameters, as
    /// far as they decide something, and what is put behind another path stays below it.
    fn reads_alike(&self, path: &RequestPath) -> bool {
        let is_one = |at: usize| {
            let value = path.resolved().segments().nth(at);
            let mut others = path.others();
            others.all(|other| other.reading().segments().nth(at) == value)
        };
        let rest = match &self.target {
            Target::Upstream { rewrite, .. } => rewrite.as_ref().and_then(Rewrite::rest),
            Target::Redirect { to, .. } => to.rest(),
            Target::Files(_)
            | Target::Tokens { .. }
            | Target::ResourceMetadata
            | Target::Respond { .. } => None,
        };
        // The server that is asked decides on the path as it was written, and files are opened by the resolved one.
        let decided_elsewhere = self.ask.is_some() && matches!(self.target, Target::Files(_));
        !decided_elsewhere
            && self.deciding_parameters().all(|(_, at)| is_one(at))
            && rest.is_none_or(|count| path.stays_below(count))
    }

    /// Whether it is a public document that says itself that every page may read it.
    pub(crate) fn is_for_every_page(&self) -> bool {
        match self.target {
            Target::ResourceMetadata => true,
            Target::Tokens { endpoint, .. } => endpoint == Endpoint::Keys,
            Target::Files(_)
            | Target::Upstream { .. }
            | Target::Redirect { .. }
            | Target::Respond { .. } => false,
        }
    }
}

/// Where documents of RFC 9728 are; below it is the path that one is about.
pub(crate) const RESOURCE_METADATA: &str = "/.well-known/oauth-protected-resource";

impl RouteTable {
    /// Puts a route into the table.
    ///
    /// # Errors
    /// The route that serves the same host, path and method already.
    pub(crate) fn insert(&mut self, route: &Arc<Route>) -> Result<(), Arc<Route>> {
        for host in &route.hosts {
            self.tree(host).insert(Arc::clone(route))?;
        }
        Ok(())
    }

    /// The tree of a host, made where there is none.
    fn tree(&mut self, host: &Host) -> &mut Tree {
        match host {
            Host::Any => &mut self.any,
            Host::Exact(name) => self.exact.entry(name.clone()).or_default(),
            Host::Below(suffix) => {
                let at = match self.wildcard.iter().position(|(known, _)| known == suffix) {
                    Some(at) => at,
                    None => {
                        let at = self
                            .wildcard
                            .partition_point(|(known, _)| known.len() >= suffix.len());
                        self.wildcard.insert(at, (suffix.clone(), Tree::default()));
                        at
                    }
                };
                match self.wildcard.get_mut(at) {
                    Some((_, tree)) => tree,
                    None => &mut self.any,
                }
            }
        }
    }

    /// The one route of a request, whichever way its path is read: the most specific host, then the most specific path,
    /// decides; only then the method.
    ///
    /// # Errors
    /// `NoRoute`, or `MethodNotAllowed` where the path is there for other methods alone. `BadPath` where readings of the path
    /// differ in what they open.
    pub(crate) fn find(
        &self,
        host: &str,
        path: &RequestPath,
        method: &Method,
    ) -> Result<&Arc<Route>, Reject> {
        let route = Self::of_method(self.at(host, path)?, method)?;
        if !path.has_one_reading() && !route.reads_alike(path) {
            return Err(Reject::BadPath);
        }
        Ok(route)
    }

    /// The one among the routes of a path that serves the method.
    ///
    /// # Errors
    /// `MethodNotAllowed`.
    pub(crate) fn of_method<'r>(
        routes: &'r [Arc<Route>],
        method: &Method,
    ) -> Result<&'r Arc<Route>, Reject> {
        let named = routes
            .iter()
            .find(|r| r.methods.is_some_and(|set| set.contains(method)));
        named
            .or_else(|| routes.iter().find(|r| r.methods.is_none()))
            .ok_or_else(|| {
                let sets = routes.iter().filter_map(|route| route.methods);
                Reject::MethodNotAllowed(sets.fold(MethodSet::default(), MethodSet::union))
            })
    }

    /// The routes of the most specific host and path, for all methods.
    ///
    /// # Errors
    /// `NoRoute`. `BadPath` where readings of the path lead to different routes, or only some of them to one.
    pub(crate) fn at(&self, host: &str, path: &RequestPath) -> Result<&[Arc<Route>], Reject> {
        let found = self.read(host, path.resolved());
        if !path.has_one_reading() {
            let is_same = |other: Other| match (found, self.read(host, other.reading())) {
                (Some(one), Some(two)) => std::ptr::eq(one, two),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            if !path.others().all(is_same) {
                return Err(Reject::BadPath);
            }
        }
        found.ok_or(Reject::NoRoute)
    }

    /// Where one reading of a path leads.
    pub(crate) fn read(&self, host: &str, reading: Reading<'_>) -> Option<&[Arc<Route>]> {
        if let Some(found) = self.exact.get(host).and_then(|tree| tree.find(reading)) {
            return Some(found);
        }
        for (suffix, tree) in &self.wildcard {
            if host.len() > suffix.len() && host.ends_with(suffix.as_str()) {
                if let Some(found) = tree.find(reading) {
                    return Some(found);
                }
            }
        }
        self.any.find(reading)
    }
}

impl Tree {
    fn insert(&mut self, route: Arc<Route>) -> Result<(), Arc<Route>> {
        let mut tree = self;
        for segment in &route.pattern.segments {
            tree = match segment {
                Segment::Literal(text) => tree.literal.entry(text.as_slice().into()).or_default(),
                Segment::Parameter(_) => tree.parameter.get_or_insert_default(),
            };
        }
        let here = if route.pattern.star {
            &mut tree.star
        } else {
            &mut tree.exact
        };
        let clash = here
            .iter()
            .find(|other| match (other.methods, route.methods) {
                (None, None) => true,
                (Some(one), Some(two)) => one.overlaps(two),
                (None, Some(_)) | (Some(_), None) => false,
            });
        if let Some(clash) = clash {
            return Err(Arc::clone(clash));
        }
        here.push(route);
        Ok(())
    }

    fn find(&self, reading: Reading<'_>) -> Option<&[Arc<Route>]> {
        self.descend(Some(reading))
    }

    /// `rest` is what follows of the path; `None` when its last segment is behind us.
    fn descend(&self, rest: Option<Reading<'_>>) -> Option<&[Arc<Route>]> {
        let Some(rest) = rest else {
            return match (self.exact.as_slice(), self.star.as_slice()) {
                ([], []) => None,
                ([], star) => Some(star),
                (exact, _) => Some(exact),
            };
        };
        let (segment, below) = rest.split();
        if let Some(tree) = self.literal.get(segment) {
            if let Some(found) = tree.descend(below) {
                return Some(found);
            }
        }
        if let Some(tree) = self.parameter.as_deref().filter(|_| !segment.is_empty()) {
            if let Some(found) = tree.descend(below) {
                return Some(found);
            }
        }
        if self.star.is_empty() {
            None
        } else {
            Some(&self.star)
        }
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod properties;
#[cfg(test)]
mod tests;
