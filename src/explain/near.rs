//! Suggests routes for a path that no route has.

use std::sync::Arc;

use crate::message::path::RequestPath;
use crate::route::{Route, Segment};

/// The limit for suggestions.
const NAMED: usize = 3;

/// The routes whose paths differ from this one by a few letters, the nearest first.
pub(super) fn nearest<'r>(
    routes: &'r [Arc<Route>],
    path: &RequestPath,
) -> impl Iterator<Item = &'r Route> {
    let segments: Vec<String> = path
        .resolved()
        .segments()
        .map(|segment| String::from_utf8_lossy(segment).to_lowercase())
        .collect();
    let mut near: Vec<(usize, &Route)> = routes
        .iter()
        .filter_map(|route| Some((distance(route, &segments)?, &**route)))
        .collect();
    near.sort_by_key(|(distance, _)| *distance);
    near.into_iter().take(NAMED).map(|(_, route)| route)
}

/// The edit distance from the path to the route; `None` where a segment is a different word.
fn distance(route: &Route, segments: &[String]) -> Option<usize> {
    let pattern = &route.pattern;
    let mut distance = 0;
    for (at, segment) in pattern.segments.iter().enumerate() {
        let there = segments.get(at).map_or("", String::as_str);
        distance += match segment {
            Segment::Parameter(_) => usize::from(there.is_empty()),
            Segment::Literal(literal) => {
                let literal = String::from_utf8_lossy(literal).to_lowercase();
                let far = literal.chars().count().max(there.chars().count()) / 2;
                Some(strsim::damerau_levenshtein(there, &literal)).filter(|it| *it <= far)?
            }
        };
    }
    let more = segments.len().saturating_sub(pattern.segments.len());
    if !pattern.star {
        distance += more * 2;
    }
    (pattern.star || more <= 1).then_some(distance)
}
