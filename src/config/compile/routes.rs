//! `routes`: compiles each to a guard and a target, or reports its errors.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

use super::access::{self, Verifiers};
use super::compress;
use super::upstreams::Upstreams;
use super::{Compiler, edits};
use crate::auth::{Guard, Scheme};
use crate::config::decode::suggest;
use crate::config::parsed;
use crate::config::place::Place;
use crate::edits::HeaderEdits;
use crate::message::method::{self, MethodSet};
use crate::message::path::Reading;
use crate::net::tls::Part;
use crate::observe::counts::RouteCounts;
use crate::proxy::{Ask, Forward, Purpose};
use crate::route::{Host, Pattern, Rewrite, Route, Segment, Target, Template};

impl Compiler<'_> {
    /// Compiles the routes, each with its place; those with errors are left out.
    pub(super) fn routes(
        &mut self,
        gateway: &parsed::Gateway,
        verifiers: &Verifiers,
        upstreams: &mut Upstreams,
    ) -> Vec<(Arc<Route>, Place)> {
        let mut routes: Vec<(Arc<Route>, Place)> = Vec::new();
        for parsed in &gateway.routes {
            let Some(mut route) = self.route(parsed, gateway, verifiers, upstreams) else {
                continue;
            };
            if let Some(name) = &parsed.name {
                if routes.iter().any(|(other, _)| other.name == name.value) {
                    self.errors.at(
                        name.place,
                        format!("{} is the name of another route", name.shown()),
                    );
                }
            }
            // An incomplete route must not be reported as a duplicate of another.
            if parsed.broken {
                continue;
            }
            route.index = routes.len();
            routes.push((Arc::new(route), parsed.path.place));
        }
        routes
    }

    fn route(
        &mut self,
        parsed: &parsed::Route,
        gateway: &parsed::Gateway,
        verifiers: &Verifiers,
        upstreams: &mut Upstreams,
    ) -> Option<Route> {
        if parsed.path.value.is_empty() {
            return None;
        }
        let pattern = match Pattern::parse(&parsed.path.value) {
            Ok(pattern) => pattern,
            Err(problem) => {
                self.errors.at(parsed.path.place, problem);
                return None;
            }
        };
        let hosts = self.hosts(&parsed.hosts);
        self.ends_at_a_slash(parsed, gateway, &pattern);
        let methods = self.methods(&parsed.methods);
        let guard = self.route_guard(parsed, gateway, &pattern, verifiers);
        let ask = self.ask(parsed, gateway, upstreams);
        let compress = self.compress_answers(parsed, gateway);
        let mut target = self.target(parsed, gateway, &pattern, upstreams);
        let accel = self.accel(parsed, compress::of_files(parsed, gateway).as_ref());
        if let Some(Target::Upstream {
            compress: place,
            accel: folders,
            ..
        }) = &mut target
        {
            *place = compress;
            *folders = accel;
        }
        let (guard, ask, mut target) = (guard?, ask?, target?);
        let shown: Vec<String> = parsed.hosts.iter().map(|it| it.value.to_string()).collect();
        let written = format!("{}{}", shown.join(","), parsed.path.value);
        let verbs = methods.map_or_else(String::new, |methods| {
            format!(" [{}]", methods.names().collect::<Vec<_>>().join(" "))
        });
        let words = match &target {
            Target::Files(_) => files_in_words(parsed),
            Target::Upstream {
                forward,
                rewrite,
                first,
                ..
            } => {
                let first = match first {
                    Some(_) => format!("{}, else ", files_in_words(parsed)),
                    None => String::new(),
                };
                let rewrite = if rewrite.is_some() { ", rewritten" } else { "" };
                format!("{first}proxy {}{rewrite}", forward.upstream.name)
            }
            Target::ResourceMetadata => "resource metadata".to_owned(),
            Target::Tokens { endpoint, .. } => endpoint.name().to_owned(),
            Target::Redirect { status, .. } => format!("redirect {}", status.as_u16()),
            Target::Respond { ready: true, .. } => "respond ready".to_owned(),
            Target::Respond { status, body, .. } => {
                format!("respond {} ({} bytes)", status.as_u16(), body.len())
            }
        };
        self.summary.insert(format!("{written}{verbs}"), words);
        let auth = parsed.auth.as_ref().or(gateway.defaults.auth.as_ref());
        let auth = auth.map_or_else(|| "none".to_owned(), access::in_words);
        let part = format!("{written}{verbs}");
        self.summary.insert(format!("{part} auth"), auth);
        let cors = self.cors(parsed.cors.as_ref(), methods, &part);
        self.claims_need_a_token(parsed, &guard);
        let name = parsed.name.as_ref();
        let name = name.map_or(written, |name| name.value.clone());
        if let Target::Upstream { forward, .. } = &mut target {
            forward.by = self.hashed_by(parsed, gateway, &guard, &pattern);
        }
        let limiting = self.route_limiting(&parsed.limiting, &name, &guard, &pattern);
        self.summarize_limiting(&part, &limiting, &parsed.limiting);
        let security = parsed.headers.security.as_ref();
        let security = security.or(gateway.defaults.headers.security.as_ref());
        Some(Route {
            index: 0,
            name,
            hosts,
            pattern,
            methods,
            guard,
            addresses: limiting.addresses,
            limits: limiting.limits,
            ask: ask.map(Box::new),
            cors,
            target,
            request_headers: merged(&gateway.defaults.headers.request, &parsed.headers.request),
            response_headers: merged(&gateway.defaults.headers.response, &parsed.headers.response)
                .with_security(security.is_some_and(|it| it.value)),
            errors: self.route_pages(parsed.errors.as_ref()),
            body_bytes: parsed
                .body_bytes
                .as_ref()
                .map_or(gateway.limits.body_bytes.value, |bytes| bytes.value),
            counts: RouteCounts::default(),
        })
    }

    /// A route's headers can contain claims only if its guard checks tokens; those of `defaults` are dropped otherwise.
    fn claims_need_a_token(&mut self, parsed: &parsed::Route, guard: &Guard) {
        if matches!(guard.scheme(), Scheme::Jwt(_)) {
            return;
        }
        for (_, value) in &parsed.headers.request.set {
            if value.value.has_claims() {
                self.errors
                    .at(
                        value.place,
                        "this route has no token whose claim this could be",
                    )
                    .hint("`auth: {jwt: NAME}` knows claims");
            }
        }
    }

    /// A path such as `/static/` matches that path alone, which is rarely intended: files need a star, and so does an
    /// app unless other routes serve the paths below, or another one forwards them to the same app.
    fn ends_at_a_slash(
        &mut self,
        parsed: &parsed::Route,
        gateway: &parsed::Gateway,
        pattern: &Pattern,
    ) {
        if pattern.star || !parsed.path.value.ends_with('/') {
            return;
        }
        let above = parsed.path.value.trim_end_matches('/');
        // The root path alone is a home page, never a directory.
        if above.is_empty() && parsed.files.is_none() {
            return;
        }
        let serves_below = |other: &&parsed::Route| {
            let path = other.path.value.as_str();
            let below = path
                .strip_prefix(above)
                .and_then(|rest| rest.strip_prefix('/'));
            let wider = || {
                let prefix = path.strip_suffix('*')?;
                (other.app().is_some()
                    && parsed.app().map(|it| &it.value) == other.app().map(|it| &it.value)
                    && parsed.path.value.starts_with(prefix))
                .then_some(())
            };
            below.is_some_and(|rest| !rest.is_empty()) || wider().is_some()
        };
        if parsed.files.is_none() && gateway.routes.iter().any(|other| serves_below(&other)) {
            return;
        }
        let problem = format!(
            "{} is this path alone, and nothing below it",
            parsed.path.shown()
        );
        self.errors
            .at(parsed.path.place, problem)
            .hint(format!("write `{above}/*` for everything below it too"));
    }

    /// The hosts of a route, without duplicates; all hosts where it names none.
    fn hosts(&mut self, parsed: &[parsed::Spanned<parsed::HostPattern>]) -> Vec<Host> {
        if parsed.is_empty() {
            return vec![Host::Any];
        }
        let mut hosts = Vec::with_capacity(parsed.len());
        for host in parsed {
            let made = match &host.value {
                parsed::HostPattern::Exact(name) => Host::Exact(name.clone()),
                parsed::HostPattern::Below(name) => Host::Below(format!(".{name}")),
            };
            if hosts.contains(&made) {
                let problem = format!("`{}` is here twice", host.value);
                self.errors.at(host.place, problem);
            } else {
                hosts.push(made);
            }
        }
        hosts
    }

    pub(super) fn methods(&mut self, parsed: &[parsed::Spanned<String>]) -> Option<MethodSet> {
        let mut methods = None::<MethodSet>;
        for name in parsed {
            match methods.unwrap_or_default().with(&name.value) {
                Some(more) => methods = Some(more),
                None => {
                    let problem = format!(
                        "{} exceeds the limit: {} methods besides the usual ones were already named",
                        name.shown(),
                        method::MOST_OTHERS
                    );
                    self.errors.at(name.place, problem).hint(
                        "leave `methods` out for all; names from before a reload count until a restart",
                    );
                }
            }
        }
        methods
    }

    /// The `auth` of a route, or else of `defaults`. A proxied route without either is an error; others are public.
    fn route_guard(
        &mut self,
        parsed: &parsed::Route,
        gateway: &parsed::Gateway,
        pattern: &Pattern,
        verifiers: &Verifiers,
    ) -> Option<Guard> {
        match parsed.auth.as_ref().or(gateway.defaults.auth.as_ref()) {
            Some(auth) => {
                let name = parsed.name.as_ref().map(|name| name.value.as_str());
                let realm = name.unwrap_or(&pattern.text);
                self.guard(auth, (pattern, realm), verifiers)
            }
            None if parsed.app().is_some() => {
                if !parsed.broken && !self.errors.is_unread("defaults") {
                    self.errors
                        .at(parsed.path.place, "nobody says who may use this proxied route")
                        .hint("add `auth: NAME` with a verifier from `jwt`, or `auth: none` for everybody; `defaults.auth` is for all routes");
                }
                None
            }
            None => Some(Guard::open()),
        }
    }

    /// The external server of the route's guard, where it has one; `None` where an error was reported.
    #[expect(
        clippy::option_option,
        reason = "an error is not the same as nobody to ask"
    )]
    fn ask(
        &mut self,
        parsed: &parsed::Route,
        gateway: &parsed::Gateway,
        upstreams: &mut Upstreams,
    ) -> Option<Option<Ask>> {
        let auth = parsed.auth.as_ref().or(gateway.defaults.auth.as_ref());
        let Some(parsed::Auth::Ask(rule)) = auth else {
            return Some(None);
        };
        let (server, target) = &rule.url.value;
        let upstream = self.bare(server, Purpose::Ask, rule.url.place, upstreams)?;
        let timeouts = upstream.settings().timeouts;
        Some(Some(Ask {
            forward: Forward {
                upstream,
                timeouts,
                by: None,
            },
            target: target.clone(),
        }))
    }

    fn target(
        &mut self,
        parsed: &parsed::Route,
        gateway: &parsed::Gateway,
        pattern: &Pattern,
        upstreams: &mut Upstreams,
    ) -> Option<Target> {
        let targets = usize::from(parsed.files.is_some())
            + usize::from(parsed.proxy.is_some())
            + usize::from(parsed.redirect.is_some())
            + usize::from(parsed.respond.is_some());
        if targets != 1 {
            if !parsed.broken {
                self.errors
                    .at(
                        parsed.path.place,
                        format!(
                            "this route has {} to serve it",
                            if targets == 0 {
                                "nothing"
                            } else {
                                "more than one way"
                            }
                        ),
                    )
                    .hint("write exactly one of `static`, `proxy`, `redirect` and `respond`");
            }
            return None;
        }
        self.only_for_proxies(parsed);
        if let Some(files) = &parsed.files {
            self.folders_need_claims(parsed, files, gateway);
            let served = self.files(files, compress::of_files(parsed, gateway));
            let Some(app) = &files.otherwise else {
                return served.map(Box::new).map(Target::Files);
            };
            let mut target = self.app(parsed, app, pattern, upstreams)?;
            if let Target::Upstream { first, .. } = &mut target {
                *first = Some(Box::new(served?));
            }
            return Some(target);
        }
        if let Some(redirect) = &parsed.redirect {
            return match Template::parse(&redirect.to.value, pattern) {
                Ok(to) if to.lends_host() => {
                    let shown = redirect.to.shown();
                    let problem = format!("the client decides on the host of {shown}");
                    let hint = "a placeholder stands behind the slash that ends the host: `https://www.example.com/{rest}`";
                    self.errors.at(redirect.to.place, problem).hint(hint);
                    None
                }
                Ok(to) => {
                    let status = StatusCode::from_u16(redirect.status.value);
                    Some(Target::Redirect {
                        status: status.unwrap_or(StatusCode::PERMANENT_REDIRECT),
                        to,
                    })
                }
                Err(problem) => {
                    self.errors.at(redirect.to.place, problem);
                    None
                }
            };
        }
        if let Some(respond) = &parsed.respond {
            let body = respond
                .body
                .as_ref()
                .map(|body| Bytes::from(body.value.clone()));
            let status = StatusCode::from_u16(respond.status.value).unwrap_or(StatusCode::OK);
            return Some(Target::Respond {
                status,
                body: body.unwrap_or_default(),
                ready: respond.ready.value,
            });
        }
        self.app(parsed, parsed.proxy.as_ref()?, pattern, upstreams)
    }

    /// The app that a route forwards to.
    fn app(
        &mut self,
        parsed: &parsed::Route,
        proxy: &parsed::Spanned<parsed::ProxyTo>,
        pattern: &Pattern,
        upstreams: &mut Upstreams,
    ) -> Option<Target> {
        let upstream = match &proxy.value {
            parsed::ProxyTo::Server(server) => {
                self.bare(server, Purpose::Proxy, proxy.place, upstreams)
            }
            parsed::ProxyTo::Upstream(_) if self.errors.is_unread("upstreams") => None,
            parsed::ProxyTo::Upstream(name) => upstreams.named(name).unwrap_or_else(|()| {
                let hint = suggest(name, upstreams.names(), "the names under `upstreams`");
                self.errors
                    .at(proxy.place, format!("there is no upstream `{name}`"))
                    .hint(hint);
                None
            }),
        };
        let rewrite = match &parsed.rewrite {
            None => None,
            Some(rewrite) => match self::rewrite(&rewrite.value, pattern) {
                Ok(rewrite) => Some(rewrite),
                Err(problem) => {
                    self.errors.at(rewrite.place, problem);
                    return None;
                }
            },
        };
        let upstream = upstream?;
        let mut timeouts = upstream.settings().timeouts;
        if let Some(response) = &parsed.response {
            timeouts.response = response.value;
        }
        if let Some(idle) = &parsed.idle {
            timeouts.idle = idle.value;
        }
        if let Some(total) = &parsed.total {
            timeouts.total = Some(total.value);
        }
        Some(Target::Upstream {
            forward: Forward {
                upstream,
                timeouts,
                by: None,
            },
            rewrite,
            compress: None,
            first: None,
            accel: None,
        })
    }

    /// A folder of a user's own needs to know the user of every request.
    fn folders_need_claims(
        &mut self,
        parsed: &parsed::Route,
        files: &parsed::Static,
        gateway: &parsed::Gateway,
    ) {
        let auth = parsed.auth.as_ref().or(gateway.defaults.auth.as_ref());
        let knows = match auth {
            Some(parsed::Auth::Jwt(rule)) => !rule.optional.value && !rule.only_reports.value,
            Some(parsed::Auth::Public(_) | parsed::Auth::Ask(_) | parsed::Auth::Certificate(_))
            | None => false,
        };
        for root in &files.roots {
            if let (Some(folder), false, false) = (&root.folder, knows, parsed.broken) {
                let problem =
                    format!("`{folder}`: a request of this route may come without claims");
                self.errors
                    .at(root.path.place, problem)
                    .hint("`auth: {jwt: NAME}` or `api_key` knows them, without `optional` and `enforce: report`");
            }
        }
    }

    /// Keys that have no effect without `proxy` are errors, not ignored.
    fn only_for_proxies(&mut self, parsed: &parsed::Route) {
        if parsed.app().is_some() {
            return;
        }
        let request = &parsed.headers.request;
        let first_request_header = request
            .set
            .first()
            .map(|(name, _)| name.place)
            .or_else(|| request.remove.first().map(|name| name.place));
        let first = |forward: &[(parsed::Spanned<HeaderName>, parsed::Spanned<Part>)]| {
            forward.first().map(|(name, _)| name.place)
        };
        let (forward, strip) = match &parsed.auth {
            Some(parsed::Auth::Jwt(rule)) => (
                (rule.forward.first().map(|(name, _)| name.place))
                    .or_else(|| first(&rule.forward_certificate)),
                rule.strip_token.value.then_some(rule.strip_token.place),
            ),
            Some(parsed::Auth::Certificate(rule)) => (first(&rule.forward), None),
            Some(parsed::Auth::Ask(rule)) => (first(&rule.forward), None),
            Some(parsed::Auth::Public(_)) | None => (None, None),
        };
        let places = [
            (
                "rewrite",
                parsed.rewrite.as_ref().map(|rewrite| rewrite.place),
            ),
            (
                "timeouts.response",
                parsed.response.as_ref().map(|response| response.place),
            ),
            ("timeouts.idle", parsed.idle.as_ref().map(|idle| idle.place)),
            (
                "timeouts.total",
                parsed.total.as_ref().map(|total| total.place),
            ),
            (
                "body_bytes",
                parsed.body_bytes.as_ref().map(|bytes| bytes.place),
            ),
            (
                "accel",
                parsed.accel.first().map(|(prefix, _)| prefix.place),
            ),
            ("headers.request", first_request_header),
            ("auth.forward", forward),
            ("auth.strip_token", strip),
        ];
        for (key, place) in places {
            if let Some(place) = place {
                self.errors.at(
                    place,
                    format!("`{key}` means something only beside `proxy`"),
                );
            }
        }
    }
}

/// `static` of a route, for the summary.
fn files_in_words(parsed: &parsed::Route) -> String {
    let roots = parsed.files.iter().flat_map(|files| &files.roots);
    let roots: Vec<_> = roots.map(ToString::to_string).collect();
    format!("static {}", roots.join(", "))
}

fn rewrite(parsed: &parsed::Rewrite, pattern: &Pattern) -> Result<Rewrite, String> {
    match parsed {
        parsed::Rewrite::Path(text) if text.contains('#') => {
            Err(format!("`{text}` has a fragment (#), which is never sent"))
        }
        parsed::Rewrite::Path(text) if text.starts_with('/') => {
            Template::parse(text, pattern).map(Rewrite::Path)
        }
        parsed::Rewrite::Path(text) => {
            Err(format!("`{text}` is not a path: it starts with a slash"))
        }
        parsed::Rewrite::StripPrefix(text) => {
            let prefix = Pattern::parse(text)?;
            let literal =
                |segment: &Segment| matches!(segment, Segment::Literal(text) if !text.is_empty());
            if prefix.star || prefix.segments.is_empty() || !prefix.segments.iter().all(literal) {
                return Err(format!(
                    "`{text}` is not a prefix that can be stripped; write it as `/users`"
                ));
            }
            if pattern.segments.get(..prefix.depth()) != Some(prefix.segments.as_slice()) {
                return Err(format!(
                    "`{text}` is not how the path {} begins",
                    pattern.text
                ));
            }
            let literals = prefix.segments.iter().map(|segment| match segment {
                Segment::Literal(text) => text.as_slice(),
                Segment::Parameter(_) => b"",
            });
            let joined = literals.collect::<Vec<_>>().join(&0);
            let spelled = Reading::of_segments(&joined).to_string();
            Ok(Rewrite::StripPrefix {
                segments: prefix.depth(),
                prefix: HeaderValue::try_from(spelled).map_err(|error| error.to_string())?,
            })
        }
    }
}

/// The route's edits after the defaults'; the default for a header is dropped where the route sets or removes it.
fn merged(defaults: &parsed::HeaderChanges, own: &parsed::HeaderChanges) -> HeaderEdits {
    let (mut merged, own) = (edits(defaults), edits(own));
    merged.set.retain(|(name, _)| {
        !own.set.iter().any(|(known, _)| known == name) && !own.remove.contains(name)
    });
    merged
        .remove
        .retain(|name| !own.set.iter().any(|(known, _)| known == name));
    merged.set.extend(own.set);
    merged.remove.extend(own.remove);
    HeaderEdits::new(merged.set, merged.remove)
}
