//! Anchors, aliases and merge keys: an alias is a copy of its anchor's value, and a merge key (`<<`) adds the entries
//! of other maps to its map. Copies are limited, and each knows both where it was written and where it is used.

use std::collections::{HashMap, HashSet};

use super::error::Errors;
use super::node::{Key, Kind, Node};
use super::place::Place;
use super::place::Stretch;

/// The limit for values that a file's aliases expand to: ten anchors of ten aliases each, nested ten times, are
/// billions.
const MOST: usize = 10_000;

/// The value of an anchor.
struct Anchored {
    node: Node,
    /// The part of the file that it spans.
    stretch: Stretch,
    /// The number of values in it, including itself, and their nesting depth.
    size: usize,
    depth: usize,
}

/// The anchors of a file so far.
#[derive(Default)]
pub(crate) struct Anchors {
    known: HashMap<usize, Anchored>,
    used: usize,
}

/// Why an alias cannot be expanded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum AliasFault {
    /// It is inside its own anchor.
    Itself,
    /// The file's aliases expand to too many values.
    Many,
    /// Its value is nested too deeply.
    Deep,
}

impl Anchors {
    /// Stores a value under its anchor's number, which is not 0.
    pub(crate) fn mark(&mut self, anchor: usize, node: &Node, stretch: Stretch) {
        let (size, depth) = extent(node);
        let anchored = Anchored {
            node: node.clone(),
            stretch,
            size,
            depth,
        };
        self.known.insert(anchor, anchored);
    }

    /// The value of an alias at `place`, where at most `depth` more levels of nesting are allowed. If the alias is a
    /// secret's value, the copy is secret too, and no message shows the anchor's text.
    ///
    /// # Errors
    /// The alias has no value, or one that is too large.
    pub(crate) fn copy(
        &mut self,
        anchor: usize,
        place: Place,
        (depth, hidden): (usize, bool),
        errors: &mut Errors,
    ) -> Result<Node, AliasFault> {
        let anchored = self.known.get(&anchor).ok_or(AliasFault::Itself)?;
        self.used = self.used.saturating_add(anchored.size);
        if self.used > MOST {
            return Err(AliasFault::Many);
        }
        if anchored.depth > depth {
            return Err(AliasFault::Deep);
        }
        if hidden {
            errors.hide(place.file, anchored.stretch);
        }
        let mut node = anchored.node.clone();
        let file = errors.add_alias(place);
        relocate(&mut node, file, hidden);
        Ok(node)
    }
}

/// The number of values in a node, and the nesting depth of lists and maps.
fn extent(node: &Node) -> (usize, usize) {
    let of_all = |nodes: &mut dyn Iterator<Item = &Node>| {
        nodes
            .map(extent)
            .fold((1, 1), |(size, depth), (more, below)| {
                (size + more, depth.max(below + 1))
            })
    };
    match &node.kind {
        Kind::List(items) => of_all(&mut items.iter()),
        Kind::Map(entries) => of_all(&mut entries.iter().map(|(_, node)| node)),
        Kind::Null | Kind::Scalar(_) | Kind::Broken => (1, 0),
    }
}

/// Gives a copy the places of its alias.
fn relocate(node: &mut Node, file: u16, hidden: bool) {
    node.place.file = file;
    match &mut node.kind {
        Kind::Scalar(scalar) => scalar.hidden |= hidden,
        Kind::List(items) => items
            .iter_mut()
            .for_each(|item| relocate(item, file, hidden)),
        Kind::Map(entries) => {
            for (key, node) in entries {
                key.place.file = file;
                relocate(node, file, hidden);
            }
        }
        Kind::Null | Kind::Broken => {}
    }
}

/// Adds the entries of a merge key's value to a map. The map's own entries win, then the earlier map of a list. `keys`
/// contains all keys of the map.
pub(crate) fn merge(
    entries: &mut Vec<(Key, Node)>,
    keys: &mut HashSet<String>,
    value: Node,
    errors: &mut Errors,
) {
    let maps = match value.kind {
        Kind::List(items) => items,
        Kind::Null | Kind::Scalar(_) | Kind::Map(_) | Kind::Broken => vec![value],
    };
    for map in maps {
        match map.kind {
            Kind::Map(more) => {
                for (key, node) in more {
                    if keys.insert(key.text.clone()) {
                        entries.push((key, node));
                    }
                }
            }
            Kind::Broken => {}
            Kind::Null | Kind::Scalar(_) | Kind::List(_) => {
                errors
                    .at(
                        map.place,
                        "a merge key (`<<`) takes a map, or a list of maps",
                    )
                    .hint("such as `<<: *name`, where `&name` marks a map above");
            }
        }
    }
}
