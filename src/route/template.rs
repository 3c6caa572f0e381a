//! Texts with `{name}` and `{rest}`, filled from a request's path: redirects and rewrites.

use super::pattern::{Pattern, Segment};
use crate::message::path::RequestPath;

/// A text with places for parts of the path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    Text(String),
    /// The segment at this place.
    Segment {
        at: usize,
        in_query: bool,
    },
    /// What the star took, without its leading slash.
    Rest {
        depth: usize,
        in_query: bool,
    },
}

impl Template {
    /// Parses a text for the paths of `pattern`.
    ///
    /// # Errors
    /// What is wrong: a name that the pattern does not have, or a brace without its other.
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

    /// Whether it begins with a host itself: `//www.example.com/{rest}`.
    pub(crate) fn names_host(&self) -> bool {
        matches!(self.parts.first(), Some(Part::Text(text)) if text.starts_with("//"))
    }

    /// Whether what the client wrote decides on the scheme or the host of a redirect: it stands in them, before them or
    /// right behind them, as in `https://www.example.com{rest}`.
    pub(crate) fn lends_host(&self) -> bool {
        let (literal, filled) = match self.parts.as_slice() {
            [Part::Text(text)] => (text.as_str(), false),
            [Part::Text(text), ..] => (text.as_str(), true),
            parts => ("", !parts.is_empty()),
        };
        // Security: browsers take a backslash for a slash, and any number of slashes behind `https:` for two.
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

    /// Whether the segment at this place stands in it.
    pub(super) fn uses(&self, segment: usize) -> bool {
        let mut parts = self.parts.iter();
        parts.any(|part| matches!(part, Part::Segment { at, .. } if *at == segment))
    }

    /// How many segments of the path stand before what the star took, where that stands in it.
    pub(super) fn rest(&self) -> Option<usize> {
        self.parts.iter().find_map(|part| match part {
            Part::Rest { depth, .. } => Some(*depth),
            Part::Text(_) | Part::Segment { .. } => None,
        })
    }

    /// The text for one request; its parts are as the client wrote them, but for what would end them in a query.
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

/// Escapes what has no meaning in a path and one in a query: `&` and `;` part fields, `=` a name from its value, `+` is a blank.
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
