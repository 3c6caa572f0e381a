//! `${NAME}`, `${NAME:-default}` and `${file:PATH}` inside values.
//!
//! The default applies where the variable is unset or empty, as in a shell. The last line end of a file is removed.
//! Expanded text is not expanded again. `$${NAME}` is a literal `${NAME}`; a `$` before anything but `{` is literal
//! too.

use std::path::PathBuf;

use super::error::Errors;
use super::invisible;
use super::mask::{has_password, quoted};
use super::node::{Kind, Node};
use super::place::Place;
use super::source::{Loader, after, why};

/// A text whose variables were replaced.
#[derive(Debug, Default)]
struct Expanded {
    text: String,
    any: bool,
    from_file: bool,
    files: Vec<PathBuf>,
    /// Suspicious characters in inserted values, each with the index of its variable.
    odd: Vec<(usize, String)>,
}

/// A problem with the variable whose `${` is the `at`-th of the text, from 0.
#[derive(Debug)]
struct Fault {
    at: usize,
    problem: String,
    hint: Option<&'static str>,
}

/// Replaces the variables in all values below a node. Values with an error become `Broken`.
pub(crate) fn expand(node: &mut Node, loader: &Loader<'_>, errors: &mut Errors) {
    below(node, false, loader, errors);
}

/// The keys whose values are the gateway's own secrets, not names of things that carry one.
const OWN_SECRETS: [&str; 4] = ["secret", "password", "read_token", "hmac"];

fn below(node: &mut Node, secret: bool, loader: &Loader<'_>, errors: &mut Errors) {
    match &mut node.kind {
        Kind::Null | Kind::Broken => {}
        Kind::List(items) => items
            .iter_mut()
            .for_each(|node| below(node, secret, loader, errors)),
        Kind::Map(entries) => {
            entries.iter_mut().for_each(|(key, node)| {
                let secret = OWN_SECRETS.contains(&key.text.as_str());
                below(node, secret, loader, errors);
            });
        }
        Kind::Scalar(scalar) => match expanded(&scalar.text, loader) {
            Ok(new) if new.any => {
                scalar.from_file = new.from_file;
                scalar.hidden |= has_password(&new.text);
                scalar.written = Some(std::mem::replace(&mut scalar.text, new.text));
                if scalar.hidden {
                    for path in &new.files {
                        loader.keep_secret(path, "a secret", node.place);
                    }
                    for (at, odd) in new.odd {
                        let place = place_of(node.place, at, errors);
                        errors.warn(place, &odd);
                    }
                }
            }
            Ok(_) if secret || has_password(&scalar.text) => {
                let path = PathBuf::from(errors.file(node.place));
                loader.keep_secret(&path, "a secret", node.place);
            }
            Ok(_) => {}
            Err(faults) => {
                for fault in faults {
                    let place = place_of(node.place, fault.at, errors);
                    let draft = errors.at(place, fault.problem);
                    if let Some(hint) = fault.hint {
                        draft.hint(hint);
                    }
                }
                node.kind = Kind::Broken;
            }
        },
    }
}

fn expanded(text: &str, loader: &Loader<'_>) -> Result<Expanded, Vec<Fault>> {
    let mut done = Expanded::default();
    let mut faults = Vec::new();
    let mut rest = text;
    let mut at = 0;
    while let Some((before, after)) = rest.split_once('$') {
        done.text.push_str(before);
        done.text.push('$');
        rest = after;
        if let Some(after) = rest.strip_prefix("${") {
            // The dollar sign before escapes this one.
            done.any = true;
            done.text.push('{');
            rest = after;
            at += 1;
            continue;
        }
        let Some(inner) = rest.strip_prefix('{') else {
            continue;
        };
        let mut fault = |problem: String, hint| faults.push(Fault { at, problem, hint });
        let Some((inner, after)) = inner.split_once('}') else {
            fault("`${` without its `}`".to_owned(), None);
            break;
        };
        done.text.pop();
        done.any = true;
        match one(inner, loader) {
            Ok((value, file)) => {
                if let Some(odd) = odd_ends(&value) {
                    let name = quoted(&format!("${{{inner}}}"));
                    let odd = format!("the secret of {name} {odd}, which is part of it");
                    done.odd.push((at, odd));
                }
                done.text.push_str(&value);
                done.from_file |= file.is_some();
                done.files.extend(file);
            }
            Err((problem, hint)) => fault(problem, hint),
        }
        rest = after;
        at += 1 + inner.matches("${").count();
    }
    done.text.push_str(rest);
    if faults.is_empty() {
        Ok(done)
    } else {
        Err(faults)
    }
}

/// Suspicious ends of a secret: a blank or an invisible character left there by an editor or a shell.
fn odd_ends(text: &str) -> Option<String> {
    if let Some((_, how, name)) = invisible::at_an_end(text) {
        return Some(format!("{how} {name}"));
    }
    let end = match text.chars().next_back()? {
        '\n' | '\r' => Some("ends in a line end"),
        ' ' | '\t' => Some("ends in a blank"),
        _ => None,
    };
    let begin = text.starts_with([' ', '\t', '\n', '\r']);
    end.or_else(|| begin.then_some("begins with a blank"))
        .map(str::to_owned)
}

/// A variable's value, and the file that it came from.
type Value = (String, Option<PathBuf>);

/// The value of the text between the braces, and the file that it came from.
fn one(inner: &str, loader: &Loader<'_>) -> Result<Value, (String, Option<&'static str>)> {
    if inner.contains("${") {
        return Err((
            "a variable inside a variable is not supported here".to_owned(),
            None,
        ));
    }
    if let Some(path) = inner.strip_prefix("file:") {
        if path.is_empty() {
            return Err(("`${file:}` names no file".to_owned(), Some("${file:PATH}")));
        }
        let unread = |why: String| {
            (
                format!("cannot read the file {}: {why}", quoted(path)),
                None,
            )
        };
        let file = loader.directory().join(path);
        let bytes = loader.read(&file).map_err(|e| unread(why(&e)))?;
        let mut text = String::from_utf8(bytes).map_err(|error| {
            let (line, column) = after(error.as_bytes(), error.utf8_error().valid_up_to());
            unread(format!("it is not UTF-8 at line {line}, column {column}"))
        })?;
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        return Ok((text, Some(file)));
    }
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let legal = name.starts_with(first) && name.chars().all(|c| first(c) || c.is_ascii_digit());
    if !legal {
        let problem = "what stands in `${...}` is no variable's name".to_owned();
        return Err((
            problem,
            Some("known here: ${NAME}, ${NAME:-default}, ${file:PATH}"),
        ));
    }
    match (loader.var(name), default) {
        (Some(value), None) => Ok((value, None)),
        (Some(value), Some(_)) if !value.is_empty() => Ok((value, None)),
        (_, Some(default)) => Ok((default.to_owned(), None)),
        (None, None) => {
            let problem = format!("the variable {} is not set", quoted(name));
            Err((problem, Some("set it, or give a default: ${NAME:-default}")))
        }
    }
}

/// The place of the `at`-th `${` of a value; the value's own place where it is not found.
fn place_of(value: Place, at: usize, errors: &Errors) -> Place {
    let start = usize::try_from(value.line)
        .unwrap_or(usize::MAX)
        .saturating_sub(1);
    let mut left = at;
    for (index, line) in errors.lines(value.file).iter().enumerate().skip(start) {
        let line: Vec<char> = line.chars().collect();
        let column = if index == start {
            value.column.saturating_sub(1)
        } else {
            0
        };
        let first = usize::try_from(column).unwrap_or(0);
        for (column, pair) in line.windows(2).enumerate().skip(first) {
            if pair != ['$', '{'] {
                continue;
            }
            if left > 0 {
                left -= 1;
                continue;
            }
            let length = line
                .iter()
                .skip(column)
                .position(|c| *c == '}')
                .map_or(2, |end| end + 1);
            let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            return Place {
                file: value.file,
                line: number(index).saturating_add(1),
                column: number(column).saturating_add(1),
                length: number(length),
            };
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::source::Memory;
    use super::*;

    fn memory() -> Memory {
        Memory::default()
            .variable("A", "one")
            .variable("EMPTY", "")
            .variable("B", "${A}")
            .file("etc/key", "sesame\r\n")
            .file("etc/two", "1\n\n")
            .file("etc/raw", [0xff])
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let memory = memory();
        let loader = Loader::new(Path::new("etc/gateway.yaml"), &memory);
        let seen = match expanded(text, &loader) {
            Ok(new) => new.text,
            Err(faults) => {
                let lines: Vec<String> = faults
                    .iter()
                    .map(|f| format!("{}: {}", f.at, f.problem))
                    .collect();
                lines.join("; ")
            }
        };
        assert_eq!(seen, expected, "{text}");
    }

    #[test]
    fn variables_are_replaced() {
        check("plain", "plain");
        check("${A}", "one");
        check("<${A}${A}>", "<oneone>");
        check("${EMPTY}", "");
        check("${EMPTY:-x}", "x");
        check("${NONE:-}", "");
        check("${NONE:-a:-b}", "a:-b");
        check("${B}", "${A}");
        check("${file:key}", "sesame");
        check("${file:two}", "1\n");
    }

    #[test]
    fn a_dollar_before_anything_else_stays() {
        check("a$b $ $", "a$b $ $");
        check("$$", "$$");
        check("$${A}", "${A}");
        check("$$${A}", "$${A}");
        check("a$$b $${", "a$$b ${");
        check("$${A}${A}", "${A}one");
    }

    #[test]
    fn mistakes_say_what_is_wrong_and_at_which_variable() {
        check("${NONE}", "0: the variable `NONE` is not set");
        check(
            "$${A} ${A} ${X} ${Y}",
            "2: the variable `X` is not set; 3: the variable `Y` is not set",
        );
        check("${A", "0: `${` without its `}`");
        check("${1}", "0: what stands in `${...}` is no variable's name");
        check("${A-x}", "0: what stands in `${...}` is no variable's name");
        check(
            "${A:-${B}}",
            "0: a variable inside a variable is not supported here",
        );
        check("${file:}", "0: `${file:}` names no file");
        check(
            "${file:no}",
            "0: cannot read the file `no`: there is no such file",
        );
        check(
            "${file:raw}",
            "0: cannot read the file `raw`: it is not UTF-8 at line 1, column 1",
        );
    }
}
