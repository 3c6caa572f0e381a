//! Fills in all defaults, for `check --print`: adds the default in `keys` for every missing key, as if it had been
//! written.

use super::keys::{self, Default, Section};
use super::node::{Key, Kind, Node, Scalar};
use super::place::Place;

/// A tree with the defaults of all its sections. A short form becomes the map that it stands for, if that has defaults.
pub(crate) fn filled(root: &Node) -> Node {
    section(root, &keys::TOP)
}

/// The default of a key as a node; `None` for a key without one.
pub(crate) fn default_of(key: &keys::Key) -> Option<Node> {
    let node = |kind| Node {
        place: Place::default(),
        kind,
    };
    let scalar = |text: &str| {
        node(Kind::Scalar(Scalar {
            text: text.to_owned(),
            quoted: false,
            hidden: false,
            written: None,
            from_file: false,
        }))
    };
    match key.default {
        Default::Value(text) => Some(scalar(text)),
        Default::Items(items) => {
            let items = items.iter().map(|item| scalar(item));
            Some(node(Kind::List(items.collect())))
        }
        Default::Section => Some(node(Kind::Map(Vec::new()))),
        Default::Required | Default::None(_) => None,
    }
}

fn section(node: &Node, section: &'static Section) -> Node {
    let Kind::Map(entries) = &node.kind else {
        return node.clone();
    };
    let kind = |name: &str| section.key(name).map(|key| key.kind);
    let mut entries: Vec<(Key, Node)> = entries
        .iter()
        .map(|(key, value)| match kind(&key.text) {
            Some(kind) => (key.clone(), value_of(value, kind)),
            None => (key.clone(), value.clone()),
        })
        .collect();
    for key in section.keys {
        let is_there = entries.iter().any(|(known, _)| known.text == key.name);
        if let (false, Some(default)) = (is_there, default_of(key)) {
            let name = Key {
                text: key.name.to_owned(),
                place: Place::default(),
            };
            entries.push((name, value_of(&default, key.kind)));
        }
    }
    Node {
        place: node.place,
        kind: Kind::Map(entries),
    }
}

fn value_of(node: &Node, kind: keys::Kind) -> Node {
    let of_all = |kind: &keys::Kind| match &node.kind {
        Kind::List(items) => Node {
            place: node.place,
            kind: Kind::List(items.iter().map(|item| value_of(item, *kind)).collect()),
        },
        Kind::Null | Kind::Scalar(_) | Kind::Map(_) | Kind::Broken => node.clone(),
    };
    match kind {
        keys::Kind::Section(known) => match (&node.kind, known.short) {
            (Kind::Map(_), _) => section(node, known),
            (Kind::Scalar(_), Some(short)) if has_defaults(known) => {
                section(&node.clone().behind(short, known.takes_list(short)), known)
            }
            (Kind::Null | Kind::Scalar(_) | Kind::List(_) | Kind::Broken, _) => node.clone(),
        },
        keys::Kind::Either(kinds) => {
            let fits = |kind: &&keys::Kind| is_meant(node, **kind);
            match kinds.iter().find(fits) {
                Some(kind) => value_of(node, *kind),
                None => node.clone(),
            }
        }
        keys::Kind::List(kind) | keys::Kind::Filled(kind) | keys::Kind::OneOrMore(kind) => {
            of_all(kind)
        }
        keys::Kind::Map(kind) => match &node.kind {
            Kind::Map(entries) => {
                let entries = entries.iter();
                let entries = entries.map(|(key, value)| (key.clone(), value_of(value, *kind)));
                Node {
                    place: node.place,
                    kind: Kind::Map(entries.collect()),
                }
            }
            Kind::Null | Kind::Scalar(_) | Kind::List(_) | Kind::Broken => node.clone(),
        },
        keys::Kind::Text
        | keys::Kind::Any
        | keys::Kind::Path
        | keys::Kind::File
        | keys::Kind::Directory
        | keys::Kind::Boolean
        | keys::Kind::Whole(..)
        | keys::Kind::Size(_)
        | keys::Kind::Duration(_)
        | keys::Kind::Rate
        | keys::Kind::Word(_)
        | keys::Kind::Form(..) => node.clone(),
    }
}

fn has_defaults(section: &Section) -> bool {
    section.keys.iter().any(|key| default_of(key).is_some())
}

/// Whether a value has this kind, one of the alternatives for its key.
fn is_meant(node: &Node, kind: keys::Kind) -> bool {
    match (&node.kind, kind) {
        (Kind::Scalar(scalar), keys::Kind::Word(words)) => words.contains(&scalar.text.as_str()),
        (Kind::Scalar(_), keys::Kind::Section(section)) => section.short.is_some(),
        (Kind::Map(entries), keys::Kind::Section(section)) => {
            let is_there = |key: &keys::Key| entries.iter().any(|(it, _)| it.text == key.name);
            let mut required = section.keys.iter();
            required.all(|key| !matches!(key.default, Default::Required) || is_there(key))
        }
        (Kind::List(_), keys::Kind::List(_) | keys::Kind::Filled(_)) => true,
        (Kind::Null | Kind::Scalar(_) | Kind::List(_) | Kind::Map(_) | Kind::Broken, _) => false,
    }
}
