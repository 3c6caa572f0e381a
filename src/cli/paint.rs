//! Colours, only for people at terminals: pipes, files and editors get none, nor does a terminal whose user has set
//! `NO_COLOR` (no-color.org).

use std::borrow::Cow;
use std::io::{stderr, stdout};

use crate::config::{ConfigError, ConfigErrors};
use crate::observe::log;

const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const CYAN: &str = "36";
const BOLD: &str = "1";

/// Whether an output gets colours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint {
    on: bool,
}

impl Paint {
    /// For the standard output.
    pub(super) fn stdout() -> Self {
        Self {
            on: log::takes_colour(&stdout()),
        }
    }

    /// For the standard error.
    pub(super) fn stderr() -> Self {
        Self {
            on: log::takes_colour(&stderr()),
        }
    }

    fn with<'t>(self, code: &str, text: &'t str) -> Cow<'t, str> {
        if self.on && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m").into()
        } else {
            text.into()
        }
    }

    /// Errors and refusals.
    pub(super) fn red(self, text: &str) -> Cow<'_, str> {
        self.with(RED, text)
    }

    /// Successes.
    pub(super) fn green(self, text: &str) -> Cow<'_, str> {
        self.with(GREEN, text)
    }

    /// Warnings.
    pub(super) fn yellow(self, text: &str) -> Cow<'_, str> {
        self.with(YELLOW, text)
    }

    /// Secondary text: names of steps, hints.
    pub(super) fn cyan(self, text: &str) -> Cow<'_, str> {
        self.with(CYAN, text)
    }

    /// Text to find at a glance: the place of an error.
    pub(super) fn bold(self, text: &str) -> Cow<'_, str> {
        self.with(BOLD, text)
    }

    /// All errors of a configuration, and how many there are, with a trailing newline.
    pub(super) fn errors(self, errors: &ConfigErrors) -> String {
        let plain = errors.to_string();
        if !self.on {
            return plain + "\n";
        }
        let count = plain.rsplit("\n\n").next().unwrap_or_default();
        let mut text = String::new();
        for error in errors.iter() {
            text.push_str(&self.error(error));
            text.push_str("\n\n");
        }
        text + &self.with(BOLD, &self.red(count)) + "\n"
    }

    /// One error: its place, the message, the line, and the caret with the hint.
    fn error(self, error: &ConfigError) -> String {
        let plain = error.to_string();
        let (first, rest) = plain.split_once('\n').unwrap_or((&plain, ""));
        let (place, problem) = first.split_once(": ").unwrap_or(("", first));
        let mut text = format!("{}: {}", self.bold(place), self.red(problem));
        for line in rest.lines() {
            text.push('\n');
            // The line of the file precedes its caret, and may contain one, too.
            match line.strip_prefix("      | ").and_then(|it| it.find('^')) {
                Some(at) => {
                    let (before, caret) = line.split_at_checked(at + 8).unwrap_or((line, ""));
                    text.push_str(before);
                    text.push_str(&self.cyan(caret));
                }
                None => text.push_str(line),
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::errors_of;

    #[test]
    fn colours_are_added_and_nothing_else_changes() {
        let errors = errors_of("routes:\n  - path: /a\n    prox: ^\n");
        let plain = Paint { on: false }.errors(&errors);
        assert_eq!(plain, format!("{errors}\n"));
        let painted = Paint { on: true }.errors(&errors);
        assert!(painted.contains("\x1b[1ma.yaml:3:5\x1b[0m: \x1b[31munknown key"));
        assert!(painted.contains("    3 |     prox: ^\n"), "{painted}");
        assert!(painted.contains("\x1b[36m^^^^ did you mean"), "{painted}");
        let mut bare = String::new();
        for part in painted.split('\x1b') {
            bare.push_str(
                part.split_once('m')
                    .filter(|(code, _)| code.starts_with('['))
                    .map_or(part, |(_, text)| text),
            );
        }
        assert_eq!(bare, plain);
    }
}
