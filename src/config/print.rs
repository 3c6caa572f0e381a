//! `check --print`: the configuration of all files in one, variables expanded, as YAML that reads the same.
//!
//! Values below keys such as `secret` are `***`. What came from a file by `${file:..}` is shown as it was
//! written, and what came from the environment with its value, except where that itself has `${` in it.
//! The defaults of `workers`, `limits` and `timeouts` are filled in.

use std::borrow::Cow;
use std::time::Duration;

use super::node::{Kind, Node, Scalar};
use super::parsed::{Limits, Timeouts};
use crate::yaml::{self, Yaml};

/// Writes a configuration's tree.
pub(crate) fn print(root: &Node) -> String {
    let entries = match &root.kind {
        Kind::Map(entries) => entries.as_slice(),
        Kind::Null | Kind::Scalar(_) | Kind::List(_) | Kind::Broken => &[],
    };
    let has = |key: &str| entries.iter().any(|(known, _)| known.text == key);
    let mut all = Vec::new();
    if !has("workers") {
        all.push((Cow::Borrowed("workers"), Yaml::Plain("auto".into())));
    }
    for (section, defaults) in [("limits", limits()), ("timeouts", timeouts())] {
        if !has(section) {
            let mut filled = Vec::new();
            fill(&mut filled, defaults);
            all.push((section.into(), Yaml::Map(filled)));
        }
    }
    for (key, value) in entries {
        let mut value = written(value);
        match (key.text.as_str(), &mut value) {
            ("limits", Yaml::Map(present)) if !present.is_empty() => fill(present, limits()),
            ("timeouts", Yaml::Map(present)) if !present.is_empty() => fill(present, timeouts()),
            _ => {}
        }
        all.push((Cow::Borrowed(&key.text), value));
    }
    // A tree of texts is always written; if not, it is seen.
    yaml::write(&Yaml::Map(all)).unwrap_or_else(|error| format!("# {error}\n"))
}

/// Adds the defaults that are not there.
fn fill(present: &mut Vec<(Cow<'_, str>, Yaml<'_>)>, defaults: Vec<(&'static str, String)>) {
    for (key, value) in defaults {
        if !present.iter().any(|(known, _)| known == key) {
            present.push((key.into(), Yaml::Plain(value.into())));
        }
    }
}

fn limits() -> Vec<(&'static str, String)> {
    let limits = Limits::default();
    vec![
        ("connections", limits.connections.value.to_string()),
        (
            "connections_per_ip",
            limits.connections_per_ip.value.to_string(),
        ),
        ("header_bytes", size(limits.header_bytes.value)),
        ("header_count", limits.header_count.value.to_string()),
        ("uri_bytes", size(limits.uri_bytes.value)),
        ("body_bytes", size(limits.body_bytes.value)),
    ]
}

fn timeouts() -> Vec<(&'static str, String)> {
    let timeouts = Timeouts::default();
    let seconds = |duration: Duration| format!("{}s", duration.as_secs());
    vec![
        ("header_read", seconds(timeouts.header_read.value)),
        ("body_read", seconds(timeouts.body_read.value)),
        ("send", seconds(timeouts.send.value)),
        ("keep_alive", seconds(timeouts.keep_alive.value)),
        ("tls_handshake", seconds(timeouts.tls_handshake.value)),
        ("shutdown", seconds(timeouts.shutdown.value)),
        ("shutdown_streams", seconds(timeouts.shutdown_streams.value)),
    ]
}

fn size(bytes: u64) -> String {
    let units = [("MiB", 20), ("KiB", 10)];
    let fits = units
        .into_iter()
        .find(|(_, shift)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    fits.map_or_else(
        || bytes.to_string(),
        |(unit, shift)| format!("{}{unit}", bytes >> shift),
    )
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
    serde_yaml::from_str(printed).is_ok_and(|theirs| is_of(tree, &theirs))
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
