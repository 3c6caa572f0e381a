//! The summary that `check` prints for a valid configuration: how many listeners, routes and so on; public routes.

use crate::route::{Route, Target};
use crate::snapshot::Snapshot;

/// The limit for public routes that are named.
const NAMED: usize = 20;

/// One line, such as `1 listener, 6 routes, 2 of them public: /static/*, /ping; 1 verifier`. The gateway's own
/// endpoints are not counted as routes.
pub(crate) fn summary(snapshot: &Snapshot) -> String {
    let routes: Vec<&Route> = snapshot
        .routes
        .iter()
        .map(|route| &**route)
        .filter(|route| match route.target {
            Target::Tokens { .. } | Target::ResourceMetadata => false,
            Target::Files(_)
            | Target::Upstream { .. }
            | Target::Redirect { .. }
            | Target::Respond { .. } => true,
        })
        .collect();
    let mut public: Vec<String> = routes.iter().filter_map(|route| open(route)).collect();
    let count = public.len();
    let more = count.saturating_sub(NAMED);
    public.truncate(NAMED);
    if more > 0 {
        public.push(format!("and {more} more"));
    }
    let of_them = match (count, routes.len()) {
        (0, _) => ", none of them public".to_owned(),
        (_, 1) => format!(", public: {}", public.join(", ")),
        (count, _) => format!(", {count} of them public: {}", public.join(", ")),
    };
    format!(
        "{}, {}{of_them}; {}",
        counted(snapshot.listeners.len(), "listener"),
        counted(routes.len(), "route"),
        counted(snapshot.verifiers.len(), "verifier"),
    )
}

/// The name of a public route, and the reason; `None` where a certificate, a token or an external server is required.
fn open(route: &Route) -> Option<String> {
    let pattern = &route.pattern.text;
    let name = if route.name.ends_with(pattern.as_str()) {
        route.name.clone()
    } else {
        format!("{} ({pattern})", route.name)
    };
    match &route.guard {
        guard if guard.is_open() => Some(name),
        guard if guard.only_reports() => Some(format!("{name} (only reported)")),
        guard if guard.is_optional() => Some(format!("{name} (optional)")),
        _ => None,
    }
}

/// `1 route`, `2 routes`.
fn counted(count: usize, what: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {what}{s}")
}
