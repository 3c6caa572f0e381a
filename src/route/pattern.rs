//! Parses the host and path of a route as written in the configuration.

use crate::message::path::RequestPath;

/// The hosts that a route matches.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Host {
    /// Every host.
    Any,
    /// One name, in lower case.
    Exact(String),
    /// All subdomains of a name: `.example.com`.
    Below(String),
}

impl Host {
    /// Whether this host, in lower case, matches.
    pub(crate) fn is(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => name == host,
            Self::Below(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
        }
    }
}

/// One segment of a route's path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Segment {
    /// These decoded bytes.
    Literal(Vec<u8>),
    /// `{name}`: any single segment that is not empty.
    Parameter(String),
}

/// The path of a route.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Pattern {
    /// As written, for logs and messages.
    pub(crate) text: String,
    /// The segments before the star.
    pub(crate) segments: Vec<Segment>,
    /// Whether it ends in `/*`: the path itself and everything below.
    pub(crate) star: bool,
    /// Whether any segment is a parameter: most paths have none, and their segments are not checked again.
    has_parameters: bool,
}

impl Pattern {
    /// Parses `/assets/*`, `/users/{user}` or `/ping`.
    ///
    /// # Errors
    /// The problem, and what is expected instead.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("`{text}` is not a path: {what}"));
        let Some(rest) = text.strip_prefix('/') else {
            return wrong("it starts with a slash");
        };
        let (rest, star) = match rest {
            "*" => (None, true),
            _ => match rest.strip_suffix("/*") {
                Some(rest) => (Some(rest), true),
                None => (Some(rest), false),
            },
        };
        let mut segments = Vec::new();
        for segment in rest.into_iter().flat_map(|rest| rest.split('/')) {
            if let Some(name) = segment
                .strip_prefix('{')
                .and_then(|name| name.strip_suffix('}'))
            {
                if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                {
                    return wrong("a parameter's name is letters, digits and `_`");
                }
                let taken = |known: &Segment| *known == Segment::Parameter(name.to_owned());
                if name == "rest" || segments.iter().any(taken) {
                    return wrong("each parameter has a name of its own, and `rest` is the star's");
                }
                segments.push(Segment::Parameter(name.to_owned()));
            } else if segment.contains(['*', '{', '}', '?', '#', ' ']) {
                return wrong("a star stands last, `/*`, and `{name}` takes a whole segment");
            } else {
                segments.push(Segment::Literal(segment.as_bytes().to_vec()));
            }
        }
        let empty = |segment: &Segment| *segment == Segment::Literal(Vec::new());
        let inner = segments.len().saturating_sub(1);
        if segments.iter().take(inner).any(empty) || (star && segments.last().is_some_and(empty)) {
            return wrong("an empty segment never matches, runs of slashes are one");
        }
        for segment in &mut segments {
            if let Segment::Literal(bytes) = segment {
                if !bytes.is_empty() {
                    *bytes = Self::decode(text, bytes)?;
                }
            }
        }
        Ok(Self {
            text: text.to_owned(),
            has_parameters: segments
                .iter()
                .any(|segment| matches!(segment, Segment::Parameter(_))),
            segments,
            star,
        })
    }

    /// A literal segment, decoded like that of a request.
    fn decode(text: &str, segment: &[u8]) -> Result<Vec<u8>, String> {
        if segment.contains(&b';') {
            return Err(format!(
                "`{text}` is not a path: some apps do not see what follows `;`; write `%3B` if it is part of the name"
            ));
        }
        let mut target = String::from("/");
        for byte in segment {
            if byte.is_ascii() {
                target.push(char::from(*byte));
            } else {
                target.push_str(&format!("%{byte:02X}"));
            }
        }
        let path = target
            .parse()
            .ok()
            .and_then(|target| RequestPath::parse(&target).ok());
        let only = path.as_ref().filter(|path| path.has_one_reading());
        match only.map(|path| path.resolved().split()) {
            Some((segment, None)) if !segment.is_empty() => Ok(segment.to_vec()),
            Some(_) | None => Err(format!(
                "`{text}` is not a path: a segment can be read in two ways"
            )),
        }
    }

    /// The names of the parameters with the indexes of their segments.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = (&str, usize)> {
        let segments = self.has_parameters.then_some(self.segments.as_slice());
        segments
            .unwrap_or_default()
            .iter()
            .enumerate()
            .filter_map(|(at, segment)| match segment {
                Segment::Parameter(name) => Some((name.as_str(), at)),
                Segment::Literal(_) => None,
            })
    }

    /// The number of segments before the star.
    pub(crate) fn depth(&self) -> usize {
        self.segments.len()
    }
}
