//! The errors of a configuration: collected with their places, rendered with the line and a caret.
//! The texts of all files are kept here until the end, so that later steps can point into them.
//! What an error means is decided elsewhere.

use std::fmt;
use std::sync::Arc;

use super::mask;
use super::place::{Excerpt, Place, Stretch};

/// One error while it is being described.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    place: Place,
    problem: String,
    hint: Option<String>,
}

impl Draft {
    /// Adds what is said under the caret: what to write instead.
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
    /// For what an alias copied: the file's own number, and where the alias stands.
    alias: Option<(u16, Place)>,
}

/// All errors found so far, and the texts that they point into.
#[derive(Clone, Default)]
pub(crate) struct Errors {
    texts: Vec<Text>,
    drafts: Vec<Draft>,
    warnings: Vec<ConfigWarning>,
    /// How many values were passed over that an error was reported for before.
    passed_over: usize,
    /// The sections of which it is not known what all they hold.
    unread: Vec<&'static str>,
}

/// How many errors are shown.
const SHOWN: usize = 50;

impl Errors {
    /// Remembers a file, by the name that messages call it, and gives its number for `Place`.
    /// Beyond 65,535 files the last number is given again.
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

    /// Gives a number for the places of what the alias at this place stands for: they point into the same file, and
    /// messages say where the alias is, too.
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

    /// The number that a file had at first.
    fn origin(&self, file: u16) -> u16 {
        let text = self.texts.get(usize::from(file));
        text.and_then(|text| text.alias)
            .map_or(file, |(origin, _)| origin)
    }

    /// Adds an error. Neither `problem` nor a hint may hold a secret's value.
    pub(crate) fn at(&mut self, place: Place, problem: impl Into<String>) -> &mut Draft {
        self.drafts.push_mut(Draft {
            place,
            problem: problem.into(),
            hint: None,
        })
    }

    /// Adds what is allowed, but dangerous. Its words may hold no secret's value, either.
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

    /// All that is allowed, but dangerous; none of it is there afterwards.
    pub(crate) fn take_warnings(&mut self) -> Vec<ConfigWarning> {
        std::mem::take(&mut self.warnings)
    }

    /// Notes that a value is passed over whose error was reported before: what it belongs to is not whole, and what it
    /// seems to lack is no second error.
    pub(crate) fn pass_over(&mut self) {
        self.passed_over += 1;
    }

    /// Notes that a section could not be read whole: that something is not found in it is no second error.
    pub(crate) fn leave_unread(&mut self, section: &'static str) {
        self.unread.push(section);
    }

    /// Whether a section could not be read whole.
    pub(crate) fn is_unread(&self, section: &str) -> bool {
        self.unread.contains(&section)
    }

    /// A number that is equal before and after a step that found everything whole.
    pub(crate) fn count(&self) -> usize {
        self.drafts.len() + self.passed_over
    }

    /// Takes back the errors that were added since there were so many of them.
    pub(crate) fn back_to(&mut self, number: usize) {
        self.drafts.truncate(number);
    }

    /// How many errors there are.
    pub(crate) fn number(&self) -> usize {
        self.drafts.len()
    }

    /// Whether nothing is wrong so far.
    pub(crate) fn is_empty(&self) -> bool {
        self.drafts.is_empty()
    }

    /// The file of a place, as it was named.
    pub(crate) fn file(&self, place: Place) -> &str {
        let text = self.texts.get(usize::from(self.origin(place.file)));
        text.map_or("", |text| text.name.as_str())
    }

    /// `gateway.yaml:12:3`, for messages that name a second place.
    pub(crate) fn name(&self, place: Place) -> String {
        let name = self.file(place);
        match place.line {
            0 => name.to_owned(),
            line => format!("{name}:{line}:{}", place.column),
        }
    }

    /// Lets no message show what stands in this part of a file.
    pub(crate) fn hide(&mut self, file: u16, stretch: Stretch) {
        let origin = self.origin(file);
        if let Some(text) = self.texts.get_mut(usize::from(origin)) {
            text.hidden.push(stretch);
        }
    }

    /// Hides all that looks like a secret in a file whose YAML cannot be read.
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

    /// The end: nothing, or the errors in the order of the files and lines, each once, the first [`SHOWN`] of them.
    pub(crate) fn finish(mut self) -> Result<(), ConfigErrors> {
        if self.drafts.is_empty() {
            return Ok(());
        }
        // What several aliases copied is wrong once.
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

/// The errors of a configuration, the first fifty and how many more there are. `Display` shows each with its line, and
/// a count at the end.
#[derive(Clone, Debug, Default)]
pub struct ConfigErrors {
    shown: Vec<ConfigError>,
    more: usize,
    warnings: Vec<ConfigWarning>,
}

impl ConfigErrors {
    /// The first fifty errors, in the order of the files and lines.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.shown.iter()
    }

    /// How many errors there are beyond those.
    #[must_use]
    pub fn more(&self) -> usize {
        self.more
    }

    /// What is allowed, but dangerous, as far as that was seen beside the errors.
    pub fn warnings(&self) -> impl Iterator<Item = &ConfigWarning> {
        self.warnings.iter()
    }

    /// The same, with these warnings.
    pub(crate) fn with(mut self, warnings: Vec<ConfigWarning>) -> Self {
        self.warnings = warnings;
        self
    }
}

/// What is allowed in a configuration, but dangerous. No part of it holds a secret's value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigWarning {
    /// The file, as it was named; empty where the configuration as a whole is meant.
    pub file: String,
    /// The line, from 1; 0 where no line is meant.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// What is dangerous.
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

/// One error of a configuration. No part of it holds a secret's value.
#[derive(Clone, Debug)]
pub struct ConfigError {
    /// The file, as it was named.
    pub file: String,
    /// The line, from 1; 0 where the file as a whole is meant.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// What is wrong.
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
