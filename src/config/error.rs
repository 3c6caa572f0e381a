//! Collects the errors of a configuration with their places, and renders each with its line and a caret. It stores the
//! texts of all files, so that later steps can point into them. What an error means is decided elsewhere.

use std::fmt;
use std::sync::Arc;

use super::mask;
use super::place::{Excerpt, Place, Stretch};

/// An error that is still being built.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    place: Place,
    problem: String,
    hint: Option<String>,
}

impl Draft {
    /// Adds the hint under the caret: what to write instead.
    pub(crate) fn hint(&mut self, hint: impl Into<String>) {
        self.hint = Some(hint.into());
    }
}

/// A file's text, for the lines in messages.
#[derive(Clone)]
struct Text {
    name: String,
    lines: Arc<[String]>,
    hidden: Vec<Stretch>,
    /// For the copy of an alias: the number of the original file, and the place of the alias.
    alias: Option<(u16, Place)>,
}

/// All errors so far, and the texts that they point into.
#[derive(Clone, Default)]
pub(crate) struct Errors {
    texts: Vec<Text>,
    drafts: Vec<Draft>,
    warnings: Vec<ConfigWarning>,
    /// How many values were skipped because an error was already reported for them.
    passed_over: usize,
    /// Sections that could not be read completely.
    unread: Vec<&'static str>,
}

/// The limit for errors shown.
const SHOWN: usize = 50;

impl Errors {
    /// Stores a file under the name used in messages, and returns its number for `Place`. Beyond 65,535 files the last
    /// number is reused.
    pub(crate) fn add_file(&mut self, name: &str, text: &str) -> u16 {
        let number = u16::try_from(self.texts.len()).unwrap_or(u16::MAX);
        let name = name.chars().map(mask::harmless).collect();
        self.texts.push(Text {
            name,
            lines: mask::lines(text).into(),
            hidden: Vec::new(),
            alias: None,
        });
        number
    }

    /// Returns a file number for the copy of the alias at this place: its places point into the same file, and messages
    /// also name the alias.
    pub(crate) fn add_alias(&mut self, alias: Place) -> u16 {
        let number = u16::try_from(self.texts.len()).unwrap_or(u16::MAX);
        let origin = self.origin(alias.file);
        if let Some(text) = self.texts.get(usize::from(origin)) {
            let text = Text {
                alias: Some((origin, alias)),
                ..text.clone()
            };
            self.texts.push(text);
        }
        number
    }

    /// The number of the original file.
    fn origin(&self, file: u16) -> u16 {
        let text = self.texts.get(usize::from(file));
        text.and_then(|text| text.alias)
            .map_or(file, |(origin, _)| origin)
    }

    /// Adds an error. Neither `problem` nor the hint may contain a secret's value.
    pub(crate) fn at(&mut self, place: Place, problem: impl Into<String>) -> &mut Draft {
        self.drafts.push_mut(Draft {
            place,
            problem: problem.into(),
            hint: None,
        })
    }

    /// Adds a warning about something allowed but dangerous. It must not contain a secret's value either.
    pub(crate) fn warn(&mut self, place: Place, warning: &str) {
        let warning = ConfigWarning {
            file: self.file(place).to_owned(),
            line: place.line,
            column: if place.line > 0 { place.column } else { 0 },
            problem: warning.to_owned(),
        };
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// Removes and returns all warnings.
    pub(crate) fn take_warnings(&mut self) -> Vec<ConfigWarning> {
        std::mem::take(&mut self.warnings)
    }

    /// Notes that a value was skipped because its error was already reported: its parent is incomplete, and missing
    /// parts of that are no further errors.
    pub(crate) fn pass_over(&mut self) {
        self.passed_over += 1;
    }

    /// Notes that a section could not be read completely: a name missing from it is no further error.
    pub(crate) fn leave_unread(&mut self, section: &'static str) {
        self.unread.push(section);
    }

    /// Whether a section could not be read completely.
    pub(crate) fn is_unread(&self, section: &str) -> bool {
        self.unread.contains(&section)
    }

    /// A count that is equal before and after a step without errors.
    pub(crate) fn count(&self) -> usize {
        self.drafts.len() + self.passed_over
    }

    /// Drops the errors after the first `number`.
    pub(crate) fn back_to(&mut self, number: usize) {
        self.drafts.truncate(number);
    }

    /// The number of errors.
    pub(crate) fn number(&self) -> usize {
        self.drafts.len()
    }

    /// Whether there are no errors so far.
    pub(crate) fn is_empty(&self) -> bool {
        self.drafts.is_empty()
    }

    /// The name of a place's file.
    pub(crate) fn file(&self, place: Place) -> &str {
        let text = self.texts.get(usize::from(self.origin(place.file)));
        text.map_or("", |text| text.name.as_str())
    }

    /// `gateway.yaml:12:3`, for messages that refer to a second place.
    pub(crate) fn name(&self, place: Place) -> String {
        let name = self.file(place);
        match place.line {
            0 => name.to_owned(),
            line => format!("{name}:{line}:{}", place.column),
        }
    }

    /// Hides this part of a file from all messages.
    pub(crate) fn hide(&mut self, file: u16, stretch: Stretch) {
        let origin = self.origin(file);
        if let Some(text) = self.texts.get_mut(usize::from(origin)) {
            text.hidden.push(stretch);
        }
    }

    /// Hides everything that looks like a secret in a file that is not valid YAML.
    pub(crate) fn hide_by_looks(&mut self, file: u16) {
        if let Some(text) = self.texts.get_mut(usize::from(file)) {
            text.hidden.extend(mask::by_looks(&text.lines));
        }
    }

    /// The lines of a file.
    pub(crate) fn lines(&self, file: u16) -> &[String] {
        self.texts
            .get(usize::from(file))
            .map_or(&[], |text| &*text.lines)
    }

    /// Returns the errors, if any, in the order of files and lines, without duplicates, the first [`SHOWN`] of them.
    pub(crate) fn finish(mut self) -> Result<(), ConfigErrors> {
        if self.drafts.is_empty() {
            return Ok(());
        }
        // An error in a value that several aliases copied is reported once.
        let mut drafts = std::mem::take(&mut self.drafts);
        let origin = |place: Place| Place {
            file: self.origin(place.file),
            ..place
        };
        drafts.sort_by_key(|draft| (origin(draft.place), draft.place.file));
        drafts.dedup_by(|a, b| origin(a.place) == origin(b.place) && a.problem == b.problem);
        let whole = |draft: Draft| {
            let alias = self.texts.get(usize::from(draft.place.file));
            let alias = alias.and_then(|text| text.alias).map(|(_, alias)| alias);
            let place = origin(draft.place);
            let text = self.texts.get(usize::from(place.file));
            let mut problem = draft.problem;
            if let Some(alias) = alias {
                problem.push_str(&format!(" (for the alias at {})", self.name(alias)));
            }
            ConfigError {
                file: text.map_or_else(String::new, |text| text.name.clone()),
                line: place.line,
                column: place.column,
                problem,
                hint: draft.hint,
                excerpt: text.and_then(|text| mask::excerpt(&text.lines, &text.hidden, place)),
            }
        };
        let more = drafts.len().saturating_sub(SHOWN);
        let shown = drafts.into_iter().take(SHOWN).map(whole).collect();
        Err(ConfigErrors {
            shown,
            more,
            warnings: Vec::new(),
        })
    }
}

/// The errors of a configuration, the first fifty and the number of others. `Display` shows each with its line, and a
/// count at the end.
#[derive(Clone, Debug, Default)]
pub struct ConfigErrors {
    shown: Vec<ConfigError>,
    more: usize,
    warnings: Vec<ConfigWarning>,
}

impl ConfigErrors {
    /// The first fifty errors, in the order of files and lines.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.shown.iter()
    }

    /// How many errors there are beyond these.
    #[must_use]
    pub fn more(&self) -> usize {
        self.more
    }

    /// The warnings found in addition to the errors.
    pub fn warnings(&self) -> impl Iterator<Item = &ConfigWarning> {
        self.warnings.iter()
    }

    /// Adds these warnings.
    pub(crate) fn with(mut self, warnings: Vec<ConfigWarning>) -> Self {
        self.warnings = warnings;
        self
    }
}

/// A warning about a setting that is allowed, but dangerous. It never contains a secret's value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigWarning {
    /// The file, as it was named; empty where the warning is about the whole configuration.
    pub file: String,
    /// The line, from 1; 0 where there is none.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// The danger.
    pub problem: String,
}

impl From<String> for ConfigWarning {
    fn from(problem: String) -> Self {
        Self {
            file: String::new(),
            line: 0,
            column: 0,
            problem,
        }
    }
}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.file.as_str(), self.line) {
            ("", _) => {}
            (file, 0) => write!(f, "{file}: ")?,
            (file, line) => write!(f, "{file}:{line}:{}: ", self.column)?,
        }
        f.write_str(&self.problem)
    }
}

/// One error of a configuration. It never contains a secret's value.
#[derive(Clone, Debug)]
pub struct ConfigError {
    /// The file, as it was named.
    pub file: String,
    /// The line, from 1; 0 where the error is about the whole file.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// The problem.
    pub problem: String,
    /// What to write instead.
    pub hint: Option<String>,
    excerpt: Option<Excerpt>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {}", self.problem)?;
        let Some(excerpt) = &self.excerpt else {
            return match &self.hint {
                Some(hint) => write!(f, "; {hint}"),
                None => Ok(()),
            };
        };
        write!(f, "\n{:>5} | {}", self.line, excerpt.line)?;
        let carets = "^".repeat(excerpt.carets);
        write!(f, "\n{:>5} | {:2$}{carets}", "", "", excerpt.before)?;
        match &self.hint {
            Some(hint) => write!(f, " {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in &self.shown {
            write!(f, "{error}\n\n")?;
        }
        let mut files: Vec<&str> = self.shown.iter().map(|error| error.file.as_str()).collect();
        files.dedup();
        let count = self.shown.len() + self.more;
        let errors = if count == 1 { "error" } else { "errors" };
        write!(f, "{count} {errors} in ")?;
        match files.as_slice() {
            [one] => f.write_str(one),
            [one, other] => write!(f, "{one} and {other}"),
            many => write!(f, "{} files", many.len()),
        }?;
        if self.more > 0 {
            write!(f, ", of which the first {} are shown", self.shown.len())?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(line: u32, column: u32, length: u32) -> Place {
        Place {
            file: 0,
            line,
            column,
            length,
        }
    }

    #[test]
    fn mistakes_are_sorted_counted_and_shown_once() {
        let mut errors = Errors::default();
        errors.add_file("gateway.yaml", "one: 1\ntwo: 2\n");
        errors.at(place(2, 1, 3), "second");
        errors.at(place(1, 6, 1), "first").hint("write 2");
        errors.at(place(2, 1, 3), "second");
        errors
            .at(Place::default(), "`routes` is missing")
            .hint("nothing to serve");
        let expected = "\
gateway.yaml: `routes` is missing; nothing to serve

gateway.yaml:1:6: first
    1 | one: 1
      |      ^ write 2

gateway.yaml:2:1: second
    2 | two: 2
      | ^^^

3 errors in gateway.yaml";
        assert_eq!(errors.finish().unwrap_err().to_string(), expected);
    }

    #[test]
    fn fifty_are_shown_and_all_are_counted() {
        let mut errors = Errors::default();
        errors.add_file("gateway.yaml", "one: 1\n");
        for column in 1..=51 {
            errors.at(place(1, column, 1), "again");
        }
        let errors = errors.finish().unwrap_err();
        assert_eq!(errors.iter().count(), 50);
        let said = errors.to_string();
        let end = "\n\n51 errors in gateway.yaml, of which the first 50 are shown";
        assert!(said.ends_with(end), "{said}");
        assert_eq!(said.matches(": again").count(), 50);
    }

    #[test]
    fn no_mistake_is_no_error() {
        assert!(Errors::default().finish().is_ok());
    }
}
