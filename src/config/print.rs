//! `check --print`: the configuration of all files in one, variables expanded, as YAML that reads the same.
//!
//! Values below keys such as `secret` are `***`. A value from a file (`${file:..}`) is shown as written, and one from
//! the environment expanded, unless the expanded text itself contains `${`. All defaults are filled in.

use std::fmt::Write as _;

use super::fill::filled;
use super::node::{Kind, Node, Scalar};

/// Prints a configuration's tree, with all defaults.
pub(crate) fn print(root: &Node) -> String {
    let mut out = String::new();
    let root = filled(root);
    if let Kind::Map(entries) = &root.kind {
        for (key, value) in entries {
            entry(&mut out, &key.text, value, 0);
        }
    }
    out
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
        // Replaces the indentation of the item's first line with the dash.
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

/// A text without quotes where YAML reads it as one line of plain text.
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
            // Control characters, and those that YAML reads as line ends or byte order marks.
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
