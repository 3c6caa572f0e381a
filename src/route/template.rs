//! Texts with `{name}` and `{rest}`, filled from a request's path: redirects and rewrites.

use super::pattern::{Pattern, Segment};
use crate::path::RequestPath;

/// A text with places for parts of the path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    Text(String),
    /// The segment at this place.
    Segment(usize),
    /// What the star took, without its leading slash.
    Rest(usize),
}

impl Template {
    /// Parses a text for the paths of `pattern`.
    ///
    /// # Errors
    /// What is wrong: a name that the pattern does not have, or a brace without its other.
    pub(crate) fn parse(text: &str, pattern: &Pattern) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((name, after)) = after.split_once('}') else {
                return Err(format!("`{text}` has a brace that is not closed"));
            };
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let place = pattern.segments.iter().position(|segment| match segment {
                Segment::Parameter(known) => known == name,
                Segment::Literal(_) => false,
            });
            parts.push(match place {
                Some(at) => Part::Segment(at),
                None if name == "rest" && pattern.star => Part::Rest(pattern.depth()),
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

    /// The text for one request; its parts keep the path's canonical percent-encoding.
    pub(crate) fn fill(&self, path: &RequestPath) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Segment(at) => {
                    text.push_str(path.text_after(*at).split('/').next().unwrap_or_default());
                }
                Part::Rest(depth) => text.push_str(path.text_after(*depth)),
            }
        }
        text
    }
}
