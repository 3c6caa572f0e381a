//! `check --print`: the configuration of all files in one, variables expanded, as YAML that reads the same.
//!
//! Values below keys such as `secret` are `***`. What came from a file by `${file:..}` is shown as it was
//! written, and what came from the environment with its value, except where that itself has `${` in it.
//! Every default is filled in.

mod settings;

use std::borrow::Cow;

pub(crate) use self::settings::{SEPARATOR, settings};
use super::fill::filled;
use super::node::{Kind, Node, Scalar};
use crate::yaml::{self, Yaml};

/// Writes a configuration's tree, with every default.
pub(crate) fn print(root: &Node) -> String {
    // A tree of texts is always written; if not, it is seen.
    yaml::write(&written(&filled(root))).unwrap_or_else(|error| format!("# {error}\n"))
}

/// A value as it is shown.
fn written(node: &Node) -> Yaml<'_> {
    match &node.kind {
        Kind::List(items) => Yaml::List(items.iter().map(written).collect()),
        Kind::Map(entries) => Yaml::Map(
            entries
                .iter()
                .map(|(key, value)| (Cow::Borrowed(key.text.as_str()), written(value)))
                .collect(),
        ),
        Kind::Null | Kind::Broken => Yaml::Plain("null".into()),
        Kind::Scalar(Scalar { hidden: true, .. }) => Yaml::Text("***".into()),
        Kind::Scalar(scalar) => match &scalar.written {
            Some(written) if scalar.from_file || scalar.text.contains("${") => {
                Yaml::Text(written.into())
            }
            Some(_) | None if scalar.quoted => Yaml::Text((&scalar.text).into()),
            Some(_) | None => Yaml::Plain((&scalar.text).into()),
        },
    }
}

/// Whether serde_yaml reads in a text what this tree says: the same keys, and texts where it has texts.
#[cfg(any(test, fuzzing))]
pub(crate) fn reads_the_same(tree: &Node, printed: &str) -> bool {
    serde_yaml::from_str(printed).is_ok_and(|theirs| is_of(&filled(tree), &theirs))
}

#[cfg(any(test, fuzzing))]
fn is_of(node: &Node, theirs: &serde_yaml::Value) -> bool {
    use serde_yaml::Value;
    match (&node.kind, theirs) {
        (Kind::Null, Value::Null) => true,
        (Kind::Scalar(scalar), Value::String(text)) => scalar.text == *text,
        (Kind::Scalar(scalar), Value::Null | Value::Bool(_) | Value::Number(_)) => !scalar.quoted,
        (Kind::List(items), Value::Sequence(theirs)) => {
            let alike = |(item, theirs)| is_of(item, theirs);
            items.len() == theirs.len() && items.iter().zip(theirs).all(alike)
        }
        (Kind::Map(entries), Value::Mapping(theirs)) => {
            entries.len() == theirs.len()
                && entries
                    .iter()
                    .zip(theirs)
                    .all(|((key, value), (theirs, their_value))| {
                        theirs.as_str() == Some(&key.text) && is_of(value, their_value)
                    })
        }
        _ => false,
    }
}
