//! Merges files to one tree: reads the main file and its includes.
//!
//! Maps are merged and lists appended, in the order of the patterns and then of the file names. A duplicate name is an
//! error. All relative paths, including those in included files, are resolved against the main file's directory.

use std::path::{Path, PathBuf};

use super::error::Errors;
use super::expand::expand;
use super::foreign;
use super::mask::quoted;
use super::node::{Key, Kind, Node};
use super::place::Place;
use super::source::{Loader, after, is_pattern, why};
use super::tree;

/// Reads the main file and everything that it includes. `None` where the main file could not be read.
pub(crate) fn tree(main: &Path, loader: &Loader<'_>, errors: &mut Errors) -> Option<Node> {
    let (bytes, unread) = match loader.read(main) {
        Ok(bytes) => (bytes, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    let (file, text) = add_file(main, bytes, errors);
    if let Some(error) = unread {
        errors.at(
            Place::of_file(file),
            format!("cannot read this file: {}", why(&error)),
        );
        return None;
    }
    let (before, text) = (errors.number(), text?);
    let parsed = parse(file, &text, loader, errors);
    if !matches!(&parsed, Some(node) if matches!(node.kind, Kind::Map(_)))
        && let Some(theirs) = foreign::file(&text)
    {
        // YAML errors do not help in another program's file.
        errors.back_to(before);
        let line = Place {
            file,
            line: theirs.line,
            column: 1,
            length: 1,
        };
        errors.at(line, theirs.problem).hint(theirs.hint);
        return None;
    }
    let Some(mut root) = parsed else {
        if errors.number() == before {
            errors
                .at(Place::of_file(file), "this file is empty")
                .hint("nothing to serve");
        }
        return None;
    };
    let Kind::Map(entries) = &mut root.kind else {
        errors
            .at(root.place, "expected a map")
            .hint("such as `listeners: [...]`, `routes: [...]`");
        return None;
    };
    if let Some((key, problem, hint)) = foreign::traefiks(entries) {
        errors.at(key.place, problem).hint(hint);
        return None;
    }
    let include = entries.iter().position(|(key, _)| key.text == "include");
    let include = include.map(|at| entries.remove(at).1);
    for (path, place) in include.map_or_else(Vec::new, |node| included(&node, loader, errors)) {
        if loader.is_same(&path, main) {
            errors
                .at(place, "this file includes itself")
                .hint("put the others into a directory of their own, such as conf.d/*.yaml");
            continue;
        }
        let bytes = match loader.read(&path) {
            Ok(bytes) => bytes,
            Err(error) => {
                let problem = format!(
                    "cannot read {}: {}",
                    quoted(&path.to_string_lossy()),
                    why(&error)
                );
                errors.at(place, problem);
                continue;
            }
        };
        let blank = bytes.trim_ascii().is_empty();
        let (file, text) = add_file(&path, bytes, errors);
        if blank {
            errors
                .at(Place::of_file(file), "this file is empty")
                .hint("perhaps it is being written");
            continue;
        }
        let Some(text) = text else { continue };
        let Some(node) = parse(file, &text, loader, errors) else {
            continue;
        };
        let Kind::Map(more) = node.kind else {
            errors
                .at(node.place, "expected a map")
                .hint("such as `routes: [...]`");
            continue;
        };
        for (key, node) in more {
            merge(entries, key, node, errors);
        }
    }
    Some(root)
}

/// Reads another YAML file that the configuration names, with variables. `None` where an error was reported.
pub(crate) fn side_file(
    path: &Path,
    place: Place,
    loader: &Loader<'_>,
    errors: &mut Errors,
) -> Option<Node> {
    let mut node = plain_file(path, place, loader, errors)?;
    expand(&mut node, loader, errors);
    Some(node)
}

/// The same for a file written by a program: it contains no variables.
pub(crate) fn plain_file(
    path: &Path,
    place: Place,
    loader: &Loader<'_>,
    errors: &mut Errors,
) -> Option<Node> {
    let bytes = match loader.read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            let name = quoted(&path.to_string_lossy());
            errors.at(place, format!("{name} cannot be read: {}", why(&error)));
            return None;
        }
    };
    let blank = bytes.trim_ascii().is_empty();
    let (file, text) = add_file(path, bytes, errors);
    if blank {
        errors
            .at(Place::of_file(file), "this file is empty")
            .hint("perhaps it is being written; an empty list is `[]`");
        return None;
    }
    tree::parse(file, &text?, errors)
}

/// Stores a file for messages, and returns its text where it is UTF-8.
fn add_file(path: &Path, bytes: Vec<u8>, errors: &mut Errors) -> (u16, Option<String>) {
    let name = path.to_string_lossy();
    match String::from_utf8(bytes) {
        Ok(text) => {
            let text = match text.strip_prefix('\u{feff}') {
                Some(rest) => rest.to_owned(),
                None => text,
            };
            (errors.add_file(&name, &text), Some(text))
        }
        Err(error) => {
            let bytes = error.as_bytes();
            if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
                let file = errors.add_file(&name, "");
                errors
                    .at(Place::of_file(file), "this file is UTF-16, not UTF-8")
                    .hint("PowerShell's `>` writes so; iconv -f UTF-16 -t UTF-8 makes it good");
                return (file, None);
            }
            let good = error.utf8_error().valid_up_to();
            let byte = bytes.get(good).copied().unwrap_or_default();
            let (line, column) = after(bytes, good);
            let file = errors.add_file(&name, &String::from_utf8_lossy(bytes));
            errors.hide_by_looks(file);
            let place = Place {
                file,
                line,
                column,
                length: 1,
            };
            errors
                .at(
                    place,
                    format!("this file is not UTF-8: the byte 0x{byte:02x} fits nowhere"),
                )
                .hint("an editor set to Latin-1 or Windows-1252 writes so; save it as UTF-8");
            (file, None)
        }
    }
}

fn parse(file: u16, text: &str, loader: &Loader<'_>, errors: &mut Errors) -> Option<Node> {
    let mut node = tree::parse(file, text, errors)?;
    if let Kind::Map(entries) = &mut node.kind {
        // These only hold anchors, which were already copied to their aliases.
        entries.retain(|(key, _)| !key.text.starts_with("x-"));
    }
    expand(&mut node, loader, errors);
    Some(node)
}

/// The files that `include` names, without duplicates, with the place of the pattern.
fn included(node: &Node, loader: &Loader<'_>, errors: &mut Errors) -> Vec<(PathBuf, Place)> {
    let patterns = match &node.kind {
        Kind::List(items) => items.as_slice(),
        Kind::Scalar(_) => std::slice::from_ref(node),
        Kind::Broken => &[],
        Kind::Null | Kind::Map(_) => {
            errors
                .at(node.place, "expected a list of files")
                .hint("such as [conf.d/*.yaml]");
            &[]
        }
    };
    let mut files: Vec<(PathBuf, Place)> = Vec::new();
    for node in patterns {
        let pattern = match &node.kind {
            Kind::Scalar(scalar) if !scalar.text.is_empty() => scalar,
            Kind::Broken => continue,
            Kind::Scalar(_) | Kind::Null | Kind::List(_) | Kind::Map(_) => {
                errors
                    .at(node.place, "expected a file or a pattern")
                    .hint("such as conf.d/*.yaml");
                continue;
            }
        };
        let found = if is_pattern(&pattern.text) {
            loader.glob(&pattern.text)
        } else {
            Ok(vec![loader.directory().join(&pattern.text)])
        };
        match found {
            Ok(found) => {
                for path in found {
                    if !files.iter().any(|(known, _)| *known == path) {
                        files.push((path, node.place));
                    }
                }
            }
            Err(error) => {
                errors.at(
                    node.place,
                    format!("cannot look for {}: {}", pattern.shown(), why(&error)),
                );
            }
        }
    }
    files
}

/// Adds an included file's entry to those of the main file.
fn merge(entries: &mut Vec<(Key, Node)>, key: Key, node: Node, errors: &mut Errors) {
    if key.text == "include" {
        errors.at(key.place, "only the main file may include others");
        return;
    }
    let Some((first, old)) = entries.iter_mut().find(|(known, _)| known.text == key.text) else {
        entries.push((key, node));
        return;
    };
    match (&mut old.kind, node.kind) {
        (Kind::Broken, _) | (_, Kind::Broken) => {}
        (Kind::List(old), Kind::List(new)) => old.extend(new),
        (Kind::Map(old), Kind::Map(new)) => {
            for (key, node) in new {
                match old.iter().find(|(known, _)| known.text == key.text) {
                    Some((first, _)) => twice(first, &key, errors),
                    None => old.push((key, node)),
                }
            }
        }
        (_, _) => twice(first, &key, errors),
    }
}

fn twice(first: &Key, second: &Key, errors: &mut Errors) {
    let first_place = errors.name(first.place);
    let problem = format!(
        "{} is here a second time; it was at {first_place} first",
        quoted(&second.text)
    );
    errors
        .at(second.place, problem)
        .hint("each name is there once in all files together");
}
