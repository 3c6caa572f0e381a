//! The file and lines of each route and of the settings that apply to it, for readers of `explain` to change.

use std::fmt;

use super::error::Errors;
use super::node::{Kind, Node};
use super::place::Place;

/// A range of lines in a file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Lines {
    /// The file, as it was named.
    pub(crate) file: String,
    /// The first line, from 1.
    pub(crate) first: u32,
    /// The last one.
    pub(crate) last: u32,
}

impl fmt::Display for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.first)?;
        if self.last > self.first {
            write!(f, "-{}", self.last)?;
        }
        Ok(())
    }
}

/// The lines of a configuration that `explain` refers to.
#[derive(Clone, Debug, Default)]
pub(crate) struct AllLines {
    /// Those of each route, and whether it has its own `auth`.
    routes: Vec<(Lines, bool)>,
    auth: Option<Lines>,
    tokens: Option<Lines>,
}

impl AllLines {
    /// Collects the lines of a whole configuration. A route has the same index here as in the snapshot, which only
    /// exists if no route has an error.
    pub(super) fn of(tree: Option<&Node>, errors: &Errors) -> Self {
        let Some(tree) = tree else {
            return Self::default();
        };
        let routes = match tree.below("routes").map(|(_, node)| &node.kind) {
            Some(Kind::List(routes)) => routes.as_slice(),
            Some(_) | None => &[],
        };
        let section =
            |found: Option<(Place, &Node)>| found.map(|(key, node)| lines(key, node, errors));
        let defaults = tree.below("defaults");
        Self {
            routes: routes
                .iter()
                .map(|route| {
                    let own = route.below("auth").is_some();
                    (lines(route.place, route, errors), own)
                })
                .collect(),
            auth: section(defaults.and_then(|(_, defaults)| defaults.below("auth"))),
            tokens: section(tree.below("tokens")),
        }
    }

    /// The lines of a route, and those of `defaults.auth` where that is its guard.
    pub(crate) fn of_route(&self, index: usize) -> Vec<(&'static str, &Lines)> {
        let Some((route, own)) = self.routes.get(index) else {
            return Vec::new();
        };
        let auth = self.auth.iter().filter(|_| !own);
        std::iter::once(("route", route))
            .chain(auth.map(|auth| ("defaults.auth", auth)))
            .collect()
    }

    /// The lines of the token service, whose endpoints are not routes of the file.
    pub(crate) fn of_tokens(&self) -> Option<(&'static str, &Lines)> {
        self.tokens.as_ref().map(|lines| ("tokens", lines))
    }
}

impl Node {
    /// The value of a key, and the place of the key.
    fn below(&self, name: &str) -> Option<(Place, &Self)> {
        let Kind::Map(entries) = &self.kind else {
            return None;
        };
        let found = entries.iter().find(|(key, _)| key.text == name);
        found.map(|(key, node)| (key.place, node))
    }

    /// The last line on which a part of it starts.
    fn last_line(&self, file: u16) -> u32 {
        let own = if self.place.file == file {
            self.place.line
        } else {
            0
        };
        let below = match &self.kind {
            Kind::Map(entries) => entries.iter().map(|(_, node)| node.last_line(file)).max(),
            Kind::List(items) => items.iter().map(|node| node.last_line(file)).max(),
            Kind::Null | Kind::Scalar(_) | Kind::Broken => None,
        };
        own.max(below.unwrap_or(0))
    }
}

fn lines(from: Place, node: &Node, errors: &Errors) -> Lines {
    Lines {
        file: errors.file(from).to_owned(),
        first: from.line,
        last: node.last_line(from.file).max(from.line),
    }
}
