//! `RouteTable`: finds the one `Route` of a host, path and method. What a route's target does is not decided here.

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
use crate::compress::CompressRules;
use crate::edits::HeaderEdits;
use crate::files::{AccelFolders, Files};
use crate::limit::Limits;
use crate::message::cors::Cors;
use crate::message::error_pages::ErrorPages;
use crate::message::method::MethodSet;
use crate::message::path::{Other, Reading, RequestPath};
use crate::message::reject::Reject;
use crate::net::addresses::Addresses;
use crate::observe::counts::RouteCounts;
use crate::proxy::{Ask, Forward};
use crate::tokens::{Endpoint, TokenService};

/// One compiled route.
#[derive(Debug)]
pub(crate) struct Route {
    /// Its index in the configuration's list of routes.
    pub(crate) index: usize,
    /// Its `name`, or its host and path as written.
    pub(crate) name: String,
    /// Its hosts; at least one.
    pub(crate) hosts: Vec<Host>,
    /// The paths that it matches.
    pub(crate) pattern: Pattern,
    /// The methods that it allows; `None` is all.
    pub(crate) methods: Option<MethodSet>,
    /// Its access control.
    pub(crate) guard: Guard,
    /// The addresses of clients that are allowed, where not all are.
    pub(crate) addresses: Option<Arc<Addresses>>,
    /// How often and how many at a time clients may send requests, where it has limits.
    pub(crate) limits: Option<Arc<Limits>>,
    /// The external server that decides, where the guard has one.
    pub(crate) ask: Option<Box<Ask>>,
    /// The CORS policy, where it has one.
    pub(crate) cors: Option<Arc<Cors>>,
    /// What serves its requests.
    pub(crate) target: Target,
    /// Edits of the request's headers before they are sent upstream.
    pub(crate) request_headers: HeaderEdits,
    /// Edits of every response of this route.
    pub(crate) response_headers: HeaderEdits,
    /// The error pages, its own and those of the site.
    pub(crate) errors: Option<Arc<ErrorPages>>,
    /// The size limit of a request body.
    pub(crate) body_bytes: u64,
    /// The numbers of its requests.
    pub(crate) counts: RouteCounts,
}

/// What serves a route.
#[derive(Debug)]
pub(crate) enum Target {
    /// Files below a root directory.
    Files(Box<Files>),
    /// An app behind the gateway.
    Upstream {
        /// The upstream and how to forward to it.
        forward: Forward,
        /// How the path changes on its way upstream.
        rewrite: Option<Rewrite>,
        /// How the app's responses are compressed, where they are.
        compress: Option<Box<CompressRules>>,
        /// The files that are served in place of the app where there are such, if the route has any.
        first: Option<Box<Files>>,
        /// The folders whose files the app may name in its responses.
        accel: Option<Box<AccelFolders>>,
    },
    /// A redirect with a `Location` built from the path.
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
        /// The endpoint.
        endpoint: Endpoint,
    },
    /// Metadata that tells clients how to get a token for the path below (RFC 9728).
    ResourceMetadata,
    /// A fixed response.
    Respond {
        /// Its status.
        status: StatusCode,
        /// Its body.
        body: bytes::Bytes,
        /// Whether it is 503 while the gateway drains.
        ready: bool,
    },
}

/// How a path is rewritten on its way to an app.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Rewrite {
    /// The first segments are removed.
    StripPrefix {
        /// How many.
        segments: usize,
        /// The removed prefix, as sent to the app.
        prefix: HeaderValue,
    },
    /// The path is replaced.
    Path(Template),
}

impl Rewrite {
    /// The path to send upstream.
    pub(crate) fn path(&self, path: &RequestPath) -> String {
        match self {
            Self::StripPrefix { segments, .. } => format!("/{}", path.written_after(*segments)),
            Self::Path(template) => template.fill(path),
        }
    }

    /// How many segments it removes before the rest of the client's path; `None` where it does not use the rest.
    fn rest(&self) -> Option<usize> {
        match self {
            Self::StripPrefix { segments, .. } => Some(*segments),
            Self::Path(template) => template.rest(),
        }
    }

    /// The removed prefix, which the app must prepend to its links.
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
    /// `*.example.com` as `.example.com`, the longest suffix first.
    wildcard: Vec<(String, Tree)>,
    any: Tree,
}

/// The routes of one host, as a tree of path segments. Small contents are stored inside the node: with many routes
/// every further memory access is a cache miss.
#[derive(Debug, Default)]
struct Tree {
    /// By literal segment; a look-up among a hundred thousand costs the same as among ten.
    literal: HashMap<SmallVec<[u8; 16]>, Self, RandomState>,
    parameter: Option<Box<Self>>,
    /// Routes whose path ends here.
    exact: SmallVec<[Arc<Route>; 1]>,
    /// Routes whose star starts here.
    star: SmallVec<[Arc<Route>; 1]>,
}

impl Route {
    /// Whether the route matches the path, regardless of host and method.
    pub(crate) fn has_path(self: &Arc<Self>, path: &RequestPath) -> bool {
        let mut alone = Tree::default();
        alone.insert(Arc::clone(self)).is_ok() && alone.find(path.resolved()).is_some()
    }

    /// Whether the path is exactly the stripped prefix and lacks the trailing slash: relative links of the app's page
    /// would resolve one level too high. Requests with unsafe methods and upgrades are not redirected.
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

    /// The template filled with parts of the path, where there is one.
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

    /// The parameters that matter, with the index of their segment: those that the guard compares, that limits count by,
    /// or that the target's template contains.
    pub(crate) fn deciding_parameters(&self) -> impl Iterator<Item = (&str, usize)> {
        self.pattern.parameters().filter(|(name, at)| {
            self.guard.uses_parameter(name)
                || (self.limits.as_ref()).is_some_and(|limits| limits.have_segment(*at))
                || self.template().is_some_and(|template| template.uses(*at))
        })
    }

    /// Whether a path whose readings all lead to this route means the same in each: the parameters that matter are
    /// equal, and what is appended to another path stays below it.
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
        let decided_elsewhere = self.ask.is_some() && self.has_files();
        !decided_elsewhere
            && self.deciding_parameters().all(|(_, at)| is_one(at))
            && rest.is_none_or(|count| path.stays_below(count))
    }

    /// Whether it serves files.
    pub(crate) fn has_files(&self) -> bool {
        match &self.target {
            Target::Files(_) => true,
            Target::Upstream { first, .. } => first.is_some(),
            Target::Redirect { .. }
            | Target::Tokens { .. }
            | Target::ResourceMetadata
            | Target::Respond { .. } => false,
        }
    }

    /// Whether it is a public document that itself allows every origin to read it.
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

/// The path of RFC 9728 documents; the path that one describes follows it.
pub(crate) const RESOURCE_METADATA: &str = "/.well-known/oauth-protected-resource";

impl RouteTable {
    /// Adds a route to the table.
    ///
    /// # Errors
    /// The route that already serves the same host, path and method.
    pub(crate) fn insert(&mut self, route: &Arc<Route>) -> Result<(), Arc<Route>> {
        for host in &route.hosts {
            self.tree(host).insert(Arc::clone(route))?;
        }
        Ok(())
    }

    /// The tree of a host, created if missing.
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

    /// The route of a request, which must be the same in every reading of its path: the most specific host wins, then
    /// the most specific path, and only then the method.
    ///
    /// # Errors
    /// `NoRoute`, or `MethodNotAllowed` where the path only has routes for other methods. `BadPath` where the path's
    /// readings differ in their result.
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

    /// The route for the method among the routes of a path.
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
    /// `NoRoute`. `BadPath` where readings of the path lead to different routes, or some of them to none.
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

    /// The routes of one reading of a path.
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

    /// `rest` is the remaining path; `None` after its last segment.
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
