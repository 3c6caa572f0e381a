//! Templates with `{name}` and `{rest}` for redirects and rewrites, filled from a request's path.

use super::pattern::{Pattern, Segment};
use crate::message::path::RequestPath;

/// A text with placeholders for parts of the path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    Text(String),
    /// The segment at this index.
    Segment {
        at: usize,
        in_query: bool,
    },
    /// What the star matched, without its leading slash.
    Rest {
        depth: usize,
        in_query: bool,
    },
}

impl Template {
    /// Parses a template for the paths of `pattern`.
    ///
    /// # Errors
    /// The problem: a name that the pattern does not have, or an unbalanced brace.
    pub(crate) fn parse(text: &str, pattern: &Pattern) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        let mut in_query = false;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((name, after)) = after.split_once('}') else {
                return Err(format!("`{text}` has a brace that is not closed"));
            };
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            in_query |= before.contains('?');
            let place = pattern.segments.iter().position(|segment| match segment {
                Segment::Parameter(known) => known == name,
                Segment::Literal(_) => false,
            });
            parts.push(match place {
                Some(at) => Part::Segment { at, in_query },
                None if name == "rest" && pattern.star => Part::Rest {
                    depth: pattern.depth(),
                    in_query,
                },
                None => {
                    return Err(format!(
                        "`{{{name}}}` is no part of the path {}",
                        pattern.text
                    ));
                }
            });
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        if text.contains(|c: char| c.is_control() || c == ' ') {
            return Err(format!("`{text}` holds a space or a control character"));
        }
        Ok(Self { parts })
    }

    /// Whether it starts with a host of its own: `//www.example.com/{rest}`.
    pub(crate) fn names_host(&self) -> bool {
        matches!(self.parts.first(), Some(Part::Text(text)) if text.starts_with("//"))
    }

    /// Whether client text influences the scheme or host of a redirect: it appears in them, before them or directly
    /// after them, as in `https://www.example.com{rest}`.
    pub(crate) fn lends_host(&self) -> bool {
        let (literal, filled) = match self.parts.as_slice() {
            [Part::Text(text)] => (text.as_str(), false),
            [Part::Text(text), ..] => (text.as_str(), true),
            parts => ("", !parts.is_empty()),
        };
        // Security: browsers treat a backslash as a slash, and any number of slashes after `https:` as two.
        let slashes = ['/', '\\'];
        let rest = match literal.split_once(':') {
            Some((scheme, rest)) if !scheme.contains(['/', '\\', '?', '#']) => {
                rest.trim_start_matches(slashes)
            }
            _ => literal
                .strip_prefix("//")
                .map_or(literal, |rest| rest.trim_start_matches(slashes)),
        };
        filled && !rest.contains(['/', '\\', '?', '#'])
    }

    /// Whether it contains the segment at this index.
    pub(super) fn uses(&self, segment: usize) -> bool {
        let mut parts = self.parts.iter();
        parts.any(|part| matches!(part, Part::Segment { at, .. } if *at == segment))
    }

    /// The number of path segments before what the star matched, where the template contains `{rest}`.
    pub(super) fn rest(&self) -> Option<usize> {
        self.parts.iter().find_map(|part| match part {
            Part::Rest { depth, .. } => Some(*depth),
            Part::Text(_) | Part::Segment { .. } => None,
        })
    }

    /// The text for a request; parts are inserted as the client wrote them, except that query delimiters are escaped.
    pub(crate) fn fill(&self, path: &RequestPath) -> String {
        let mut text = String::new();
        for part in &self.parts {
            let (written, in_query) = match part {
                Part::Text(part) => (part.as_str(), false),
                Part::Segment { at, in_query } => {
                    let segment = path.written_after(*at).split('/').next();
                    (segment.unwrap_or_default(), *in_query)
                }
                Part::Rest { depth, in_query } => (path.written_after(*depth), *in_query),
            };
            if in_query {
                escape(written, &mut text);
            } else {
                text.push_str(written);
            }
        }
        text
    }
}

/// Escapes what is special only in a query: `&` and `;` separate fields, `=` names from values, `+` is a space.
fn escape(part: &str, text: &mut String) {
    for character in part.chars() {
        match character {
            '&' => text.push_str("%26"),
            '=' => text.push_str("%3D"),
            '+' => text.push_str("%2B"),
            ';' => text.push_str("%3B"),
            '#' => text.push_str("%23"),
            other => text.push(other),
        }
    }
}
