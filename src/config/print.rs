//! `check --print`: the configuration of all files in one, variables expanded, as YAML that reads the same.
//!
//! Values below keys such as `secret` are `***`. What came from a file by `${file:..}` is shown as it was
//! written, and what came from the environment with its value, except where that itself has `${` in it.
//! The defaults of `workers`, `limits` and `timeouts` are filled in.

use std::fmt::Write as _;
use std::time::Duration;

use super::node::{Kind, Node, Scalar};
use super::parsed::{Limits, Timeouts};

/// Writes a configuration's tree.
pub(crate) fn print(root: &Node) -> String {
    let mut out = String::new();
    let entries = match &root.kind {
        Kind::Map(entries) => entries.as_slice(),
        Kind::Null | Kind::Scalar(_) | Kind::List(_) | Kind::Broken => &[],
    };
    let has = |key: &str| entries.iter().any(|(known, _)| known.text == key);
    if !has("workers") {
        out.push_str("workers: auto\n");
    }
    for (section, defaults) in [("limits", limits()), ("timeouts", timeouts())] {
        if !has(section) {
            let _written = writeln!(out, "{section}:");
            fill(&mut out, &[], &defaults);
        }
    }
    for (key, value) in entries {
        entry(&mut out, &key.text, value, 0);
        let present: Vec<&str> = match &value.kind {
            Kind::Map(entries) => entries.iter().map(|(key, _)| key.text.as_str()).collect(),
            Kind::Null | Kind::Scalar(_) | Kind::List(_) | Kind::Broken => continue,
        };
        match key.text.as_str() {
            "limits" if !present.is_empty() => fill(&mut out, &present, &limits()),
            "timeouts" if !present.is_empty() => fill(&mut out, &present, &timeouts()),
            _ => {}
        }
    }
    out
}

/// Writes the defaults that are not there.
fn fill(out: &mut String, present: &[&str], defaults: &[(&str, String)]) {
    for (key, value) in defaults.iter().filter(|(key, _)| !present.contains(key)) {
        let _written = writeln!(out, "  {key}: {value}");
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

/// `key: value`, or the key and the value's lines below it.
fn entry(out: &mut String, key: &str, value: &Node, depth: usize) {
    let _written = write!(out, "{:1$}{2}:", "", depth * 2, plain_or_quoted(key));
    match &value.kind {
        Kind::List(items) if !items.is_empty() => {
            out.push('\n');
            list(out, items, depth + 1);
        }
        Kind::Map(entries) if !entries.is_empty() => {
            out.push('\n');
            entries
                .iter()
                .for_each(|(key, value)| entry(out, &key.text, value, depth + 1));
        }
        Kind::List(_) | Kind::Map(_) | Kind::Scalar(_) | Kind::Null | Kind::Broken => {
            let _written = writeln!(out, " {}", leaf(value));
        }
    }
}

fn list(out: &mut String, items: &[Node], depth: usize) {
    for item in items {
        let begin = out.len();
        match &item.kind {
            Kind::List(items) if !items.is_empty() => list(out, items, depth + 1),
            Kind::Map(entries) if !entries.is_empty() => {
                entries
                    .iter()
                    .for_each(|(key, value)| entry(out, &key.text, value, depth + 1));
            }
            Kind::List(_) | Kind::Map(_) | Kind::Scalar(_) | Kind::Null | Kind::Broken => {
                let _written = writeln!(out, "{:1$}{2}", "", (depth + 1) * 2, leaf(item));
            }
        }
        // The item's first line is indented for its dash already.
        let dash = begin + depth * 2;
        out.replace_range(dash..dash + 2, "- ");
    }
}

/// A value on one line.
fn leaf(node: &Node) -> String {
    match &node.kind {
        Kind::List(_) => "[]".to_owned(),
        Kind::Map(_) => "{}".to_owned(),
        Kind::Null | Kind::Broken => "null".to_owned(),
        Kind::Scalar(Scalar { hidden: true, .. }) => "\"***\"".to_owned(),
        Kind::Scalar(scalar) => match &scalar.written {
            Some(written) if scalar.from_file || scalar.text.contains("${") => quoted(written),
            Some(_) | None if scalar.quoted => quoted(&scalar.text),
            Some(_) | None => plain_or_quoted(&scalar.text),
        },
    }
}

/// A text without quotes where YAML takes it for one line of plain text.
fn plain_or_quoted(text: &str) -> String {
    let first = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '+');
    let sign = text
        .strip_prefix('-')
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let legal = |c: char| {
        first(c)
            || matches!(
                c,
                '-' | '*' | '@' | '%' | '=' | ',' | ';' | '(' | ')' | ' ' | ':'
            )
    };
    let plain = (text.starts_with(first) || sign)
        && text.chars().all(legal)
        && !text.contains(": ")
        && !text.ends_with([' ', ':'])
        && !text.starts_with("...");
    if plain { text.to_owned() } else { quoted(text) }
}

/// A text in double quotes.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Control characters, and those that YAML takes for line ends or byte order marks.
            c if c.is_control()
                || matches!(
                    c,
                    '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
                ) =>
            {
                let _written = write!(out, "\\U{:08x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
