//! Patterns that pick files of a route by their names: `*.json`, `/fonts/*`, `/robots.txt`. What is decided by them is
//! not known here.

use std::fmt;

/// The forms of a pattern, for messages.
const FORMS: &str = "patterns are `*.json` (names), `/fonts/*` (everything below a directory), `/robots.txt` (one file)";

/// Picks files by their names below the route's path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct FilePattern {
    text: Box<str>,
    kind: Kind,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Kind {
    /// The last segment: texts with anything between them.
    Name(Box<[Box<str>]>),
    /// Everything whose path begins so.
    Below(Box<str>),
    /// This path alone.
    Path(Box<str>),
}

impl FilePattern {
    /// The pattern of all files.
    pub(crate) fn any() -> Self {
        Self {
            text: "*".into(),
            kind: Kind::Below("".into()),
        }
    }

    /// Reads a pattern.
    ///
    /// # Errors
    /// It is none; carries what to write instead.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::any());
        }
        let kind = match text.strip_prefix('/') {
            Some(path) => {
                let below = path.strip_suffix('*');
                let plain = below.unwrap_or(path);
                let segments = plain.strip_suffix('/').unwrap_or(plain);
                let is_whole = plain.is_empty() || plain.ends_with('/');
                let is_odd = |segment: &str| matches!(segment, "" | "." | "..");
                if plain.contains('*') || below.is_some() && !is_whole {
                    return Err(format!(
                        "beside a slash a star is the whole last segment; {FORMS}"
                    ));
                }
                if below.is_none() && is_whole {
                    return Err(format!("write `{text}*` for everything below it"));
                }
                if !segments.is_empty() && segments.split('/').any(is_odd) {
                    return Err(FORMS.to_owned());
                }
                match below {
                    Some(directory) => Kind::Below(directory.into()),
                    None => Kind::Path(path.into()),
                }
            }
            None if text.contains('/') => {
                return Err(format!("write `/{text}`, from the route's path; {FORMS}"));
            }
            None if text.is_empty() => return Err(FORMS.to_owned()),
            None => Kind::Name(text.split('*').map(Box::from).collect()),
        };
        Ok(Self {
            text: text.into(),
            kind,
        })
    }

    /// Whether it picks the file of a name below the root, which has no leading slash.
    pub(super) fn fits(&self, name: &str) -> bool {
        match &self.kind {
            Kind::Below(directory) => name.starts_with(&**directory),
            Kind::Path(path) => name == &**path,
            Kind::Name(parts) => {
                let last = name.rsplit('/').next().unwrap_or_default();
                match &**parts {
                    [only] => last == &**only,
                    [first, between @ .., end] => last
                        .strip_prefix(&**first)
                        .and_then(|rest| rest.strip_suffix(&**end))
                        .is_some_and(|rest| has_in_order(rest, between)),
                    [] => false,
                }
            }
        }
    }
}

/// Whether a text has these parts one after the other, with anything between them.
fn has_in_order(mut text: &str, parts: &[Box<str>]) -> bool {
    parts.iter().all(|part| match text.split_once(&**part) {
        Some((_, rest)) => {
            text = rest;
            true
        }
        None => false,
    })
}

impl fmt::Display for FilePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, fits: &[&str], fits_not: &[&str]) {
        let read = FilePattern::parse(pattern).unwrap();
        assert_eq!(read.to_string(), pattern);
        for name in fits {
            assert!(read.fits(name), "{pattern} {name}");
        }
        for name in fits_not {
            assert!(!read.fits(name), "{pattern} {name}");
        }
    }

    #[test]
    fn names_are_matched_in_every_directory_and_paths_from_the_routes() {
        check("*", &["a", "a/b.css"], &[]);
        check(
            "*.json",
            &["a.json", "x/a.json"],
            &["a.jso", "json/a", "ajson"],
        );
        check("a*.js", &["app.js", "a.js", "x/a1.js"], &["b.js", "a/b.js"]);
        check("a*b*c", &["abc", "a1b2c"], &["acb", "ab", "ac"]);
        check("a*a", &["aa", "aba"], &["a"]);
        check("sw.js", &["sw.js", "x/sw.js"], &["asw.js"]);
        check(
            "/fonts/*",
            &["fonts/a", "fonts/x/b"],
            &["fonts", "x/fonts/a"],
        );
        check("/*", &["a", "x/a"], &[]);
        check(
            "/robots.txt",
            &["robots.txt"],
            &["x/robots.txt", "robots.txt2"],
        );
        check("/a/b.css", &["a/b.css"], &["b.css"]);
    }

    #[test]
    fn what_has_two_meanings_is_refused() {
        for (text, hint) in [
            ("", "patterns are"),
            ("fonts/*", "write `/fonts/*`"),
            ("/fonts/", "write `/fonts/*`"),
            ("/", "write `/*`"),
            ("/a/*.js", "beside a slash"),
            ("/a/*/b", "beside a slash"),
            ("/a*", "beside a slash"),
            ("/a//b", "patterns are"),
            ("/../b", "patterns are"),
            ("/./*", "patterns are"),
        ] {
            let said = FilePattern::parse(text).unwrap_err();
            assert!(said.contains(hint), "{text}: {said}");
        }
    }
}
