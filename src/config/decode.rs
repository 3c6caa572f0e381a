//! The decoder's tools: convert a node of the tree to a value, or report what was found and what was expected. Unlike
//! serde it continues after an error. The keys of each section are in `keys`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::error::Errors;
use super::fill::default_of;
use super::foreign;
use super::keys::Section;
use super::mask::quoted;
use super::node::{Key, Kind, Node};
use super::parsed::{Named, Server, Spanned};
use super::place::Place;
use super::place::Stretch;
use super::value::{self, Hint};

/// Decodes nodes and collects errors.
pub(crate) struct Decoder<'e> {
    /// The errors so far.
    pub(crate) errors: &'e mut Errors,
    /// The base directory of relative paths.
    pub(crate) directory: &'e Path,
}

/// A map's entries, whose keys are all known.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'n> {
    /// The place of the map.
    pub(crate) place: Place,
    entries: &'n [(Key, Node)],
    section: &'static Section,
}

impl<'n> Fields<'n> {
    /// The value of a key, if present.
    pub(crate) fn get(self, key: &str) -> Option<&'n Node> {
        self.entries
            .iter()
            .find(|(known, _)| known.text == key)
            .map(|(_, node)| node)
    }

    /// The place of a key.
    pub(crate) fn place_of(self, key: &str) -> Option<Place> {
        self.entries
            .iter()
            .find(|(known, _)| known.text == key)
            .map(|(key, _)| key.place)
    }
}

/// A hint for an unknown name: the nearest known one, or where names are defined.
pub(crate) fn suggest<'n>(
    name: &str,
    known: impl Iterator<Item = &'n str> + Clone,
    whence: &str,
) -> String {
    match nearest(name, known.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            let known: Vec<&str> = known.collect();
            if known.is_empty() {
                format!("{whence} are none yet")
            } else {
                format!("{whence}: {}", known.join(", "))
            }
        }
    }
}

/// The nearest known word for a misspelt one, for "did you mean".
pub(crate) fn nearest<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let plain = |word: &str| word.to_lowercase().replace('-', "_");
    let wrong = plain(word);
    let far = (wrong.chars().count() / 3).max(1);
    let distance = |known: &str| strsim::damerau_levenshtein(&wrong, &plain(known));
    let best = known
        .into_iter()
        .map(|known| (distance(known), known))
        .min_by_key(|(d, _)| *d);
    best.filter(|(distance, _)| *distance <= far)
        .map(|(_, known)| known)
}

/// "did you mean `proxy`? known here: path, proxy", as a hint for an unknown word.
pub(crate) fn did_you_mean(word: &str, known: &[&str]) -> Hint {
    let list = if known.is_empty() {
        "nothing".to_owned()
    } else {
        known.join(", ")
    };
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? known here: {list}"),
        None => format!("known here: {list}"),
    }
}

/// The hint for an unknown key: the nearest one, or the equivalent of another program's key.
fn unknown(key: &str, known: &[&str]) -> Hint {
    if key == "true" && known.contains(&"on") {
        return "a tool of YAML 1.1 has read the key `on` as `true`: write \"on\" in quotes"
            .to_owned();
    }
    let near = nearest(key, known.iter().copied());
    let nearly = near.is_some_and(|near| strsim::damerau_levenshtein(key, near) <= 1);
    let theirs = if nearly { None } else { foreign::key(key) };
    theirs.unwrap_or_else(|| did_you_mean(key, known))
}

impl Decoder<'_> {
    /// Reports that something else was expected here, unless an error was already reported for the node.
    pub(crate) fn unexpected(&mut self, node: &Node, expected: &str, hint: &str) {
        let found = match &node.kind {
            Kind::Broken => return self.errors.pass_over(),
            Kind::Null => "nothing".to_owned(),
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a map".to_owned(),
            Kind::Scalar(_)
                if expected.starts_with("a list of") || expected.starts_with("a map") =>
            {
                "a text".to_owned()
            }
            Kind::Scalar(scalar) => scalar.shown(),
        };
        let draft = self
            .errors
            .at(node.place, format!("expected {expected}, found {found}"));
        if !hint.is_empty() {
            draft.hint(hint);
        }
    }

    /// The entries of a map. Unknown keys are reported, and the others are still returned.
    pub(crate) fn fields<'n>(
        &mut self,
        node: &'n Node,
        what: &str,
        section: &'static Section,
    ) -> Option<Fields<'n>> {
        let known = &section.names();
        let Kind::Map(entries) = &node.kind else {
            self.unexpected(node, what, &format!("known here: {}", known.join(", ")));
            return None;
        };
        for (key, _) in entries {
            if !known.contains(&key.text.as_str()) {
                let hint = unknown(&key.text, known);
                self.errors
                    .at(key.place, format!("unknown key {}", quoted(&key.text)))
                    .hint(hint);
            }
        }
        Some(Fields {
            place: node.place,
            entries,
            section,
        })
    }

    /// The entries of a map whose unknown keys were already reported.
    pub(crate) fn known_fields<'n>(
        &mut self,
        node: &'n Node,
        section: &'static Section,
    ) -> Option<Fields<'n>> {
        let Kind::Map(entries) = &node.kind else {
            return None;
        };
        Some(Fields {
            place: node.place,
            entries,
            section,
        })
    }

    /// Decodes a required key.
    pub(crate) fn required<T>(
        &mut self,
        fields: Fields<'_>,
        key: &str,
        read: impl FnOnce(&mut Self, &Node) -> Option<T>,
    ) -> Option<T> {
        let Some(node) = fields.get(key) else {
            self.errors.at(fields.place, format!("`{key}` is missing"));
            return None;
        };
        read(self, node)
    }

    /// Decodes an optional key.
    pub(crate) fn optional<T>(
        &mut self,
        fields: Fields<'_>,
        key: &str,
        read: impl FnOnce(&mut Self, &Node) -> Option<T>,
    ) -> Option<T> {
        fields.get(key).and_then(|node| read(self, node))
    }

    /// Decodes a key with a default, which applies if the key is missing or its value is not valid.
    pub(crate) fn value<T>(
        &mut self,
        fields: Fields<'_>,
        key: &str,
        mut read: impl FnMut(&mut Self, &Node) -> Option<T>,
    ) -> Option<T> {
        let written = fields.get(key).and_then(|node| read(self, node));
        written.or_else(|| {
            let default = default_of(fields.section.key(key)?)?;
            read(self, &default)
        })
    }

    /// Decodes a key into `target`, which is unchanged if the key is missing or its value is not valid.
    pub(crate) fn set<T>(
        &mut self,
        fields: Fields<'_>,
        key: &str,
        target: &mut T,
        read: impl FnOnce(&mut Self, &Node) -> Option<T>,
    ) {
        if let Some(value) = self.optional(fields, key, read) {
            *target = value;
        }
    }

    /// A list that may be empty. `what` is its full name: "a list of networks".
    pub(crate) fn list<T>(
        &mut self,
        node: &Node,
        what: &str,
        mut read: impl FnMut(&mut Self, &Node) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Kind::List(items) = &node.kind else {
            self.unexpected(node, what, "");
            return None;
        };
        Some(items.iter().filter_map(|item| read(self, item)).collect())
    }

    /// A list that must not be empty, as an empty one would silently disable something.
    pub(crate) fn filled_list<T>(
        &mut self,
        node: &Node,
        what: &str,
        read: impl FnMut(&mut Self, &Node) -> Option<T>,
    ) -> Option<Vec<T>> {
        if matches!(&node.kind, Kind::List(items) if items.is_empty()) {
            self.errors
                .at(node.place, format!("expected {what}, found an empty list"));
            return None;
        }
        self.list(node, what, read)
    }

    /// One value, or a list of them that is not empty.
    pub(crate) fn one_or_more<T>(
        &mut self,
        node: &Node,
        what: &str,
        mut read: impl FnMut(&mut Self, &Node) -> Option<T>,
    ) -> Option<Vec<T>> {
        match &node.kind {
            Kind::Scalar(_) => read(self, node).map(|one| vec![one]),
            Kind::Null | Kind::Map(_) => {
                self.unexpected(node, what, "");
                None
            }
            Kind::List(_) | Kind::Broken => self.filled_list(node, what, read),
        }
    }

    /// A map whose keys are names chosen by the user.
    pub(crate) fn named<T>(
        &mut self,
        node: &Node,
        what: &str,
        mut read: impl FnMut(&mut Self, &Node) -> Option<T>,
    ) -> Option<Named<T>> {
        let Kind::Map(entries) = &node.kind else {
            self.unexpected(node, what, "");
            return None;
        };
        let mut named = Vec::with_capacity(entries.len());
        for (key, node) in entries {
            let name = Spanned {
                value: key.text.clone(),
                place: key.place,
                private: false,
            };
            if name.value.is_empty() {
                self.errors.at(key.place, "a name that is empty");
            }
            if let Some(value) = read(self, node) {
                named.push((name, value));
            }
        }
        Some(named)
    }

    /// A scalar, parsed by `parse`, which returns the value or a hint. `what` names the value with its article;
    /// `general` is the hint for texts that must not appear in messages.
    pub(crate) fn scalar<T>(
        &mut self,
        node: &Node,
        what: &str,
        general: &str,
        parse: impl FnOnce(&str) -> Result<T, Hint>,
    ) -> Option<Spanned<T>> {
        let Kind::Scalar(scalar) = &node.kind else {
            self.unexpected(node, what, general);
            return None;
        };
        match parse(&scalar.text) {
            Ok(value) => Some(Spanned {
                value,
                place: node.place,
                private: scalar.is_private(),
            }),
            Err(_) if scalar.is_private() => {
                self.unexpected(node, what, general);
                None
            }
            Err(hint) => {
                self.unexpected(node, what, &hint);
                None
            }
        }
    }

    /// A text; it may look like a number, but must not be null.
    pub(crate) fn text(&mut self, node: &Node) -> Option<Spanned<String>> {
        self.scalar(node, "a text", "", |text| Ok(text.to_owned()))
    }

    /// A text that is not empty.
    pub(crate) fn filled_text(&mut self, node: &Node) -> Option<Spanned<String>> {
        self.scalar(node, "a text", "", |text| match text {
            "" => Err("it may not be empty".to_owned()),
            text => Ok(text.to_owned()),
        })
    }

    /// A path in a URL, starting with a slash.
    pub(crate) fn url_path(&mut self, node: &Node) -> Option<Spanned<String>> {
        let general = "a path begins with `/`";
        self.scalar(node, "a path", general, |text| {
            if text.starts_with('/') {
                return Ok(text.to_owned());
            }
            let known = !text.contains("://") && !text.starts_with("www.") && !text.is_empty();
            Err(if known {
                format!("write `/{text}`")
            } else {
                general.to_owned()
            })
        })
    }

    /// The path of a route, or a part of it: regular expressions, which other programs have there, are told so.
    pub(crate) fn route_path(&mut self, node: &Node) -> Option<Spanned<String>> {
        if let Kind::Scalar(scalar) = &node.kind
            && !scalar.is_private()
            && let Some(hint) = foreign::expression(&scalar.text)
        {
            self.unexpected(node, "a path", &hint);
            return None;
        }
        self.url_path(node)
    }

    /// A file or directory; relative paths are resolved against the configuration's directory.
    pub(crate) fn file(&mut self, node: &Node) -> Option<Spanned<PathBuf>> {
        let directory = self.directory;
        self.scalar(node, "a file's path", "", |text| {
            value::file_path(text, directory)
        })
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, node: &Node) -> Option<Spanned<bool>> {
        self.scalar(node, "`true` or `false`", "", value::boolean)
    }

    /// A whole number within limits.
    pub(crate) fn integer(&mut self, node: &Node, least: u32, most: u32) -> Option<Spanned<u32>> {
        let what = match most {
            u32::MAX => format!("a number from {least}"),
            most => format!("a number from {least} to {most}"),
        };
        self.scalar(node, &what, "", |text| {
            let number = value::integer(text)?;
            let fits = u32::try_from(number)
                .ok()
                .filter(|it| (least..=most).contains(it));
            fits.ok_or_else(String::new)
        })
    }

    /// A duration greater than zero.
    pub(crate) fn duration(&mut self, node: &Node) -> Option<Spanned<Duration>> {
        self.scalar(
            node,
            "a duration",
            value::DURATIONS,
            |text| match value::duration(text)? {
                Duration::ZERO => Err("zero leaves no time at all".to_owned()),
                duration => Ok(duration),
            },
        )
    }

    /// A duration that may be zero.
    pub(crate) fn duration_or_zero(&mut self, node: &Node) -> Option<Spanned<Duration>> {
        self.scalar(node, "a duration", value::DURATIONS, value::duration)
    }

    /// A duration greater than zero; `off` is [`value::NEVER`].
    pub(crate) fn duration_or_off(&mut self, node: &Node) -> Option<Spanned<Duration>> {
        let what = "a duration, or `off`";
        self.scalar(node, what, value::DURATIONS, |text| match text {
            "off" => Ok(value::NEVER),
            text => match value::duration(text) {
                Ok(Duration::ZERO) => Err("`off` waits without end".to_owned()),
                Ok(duration) => Ok(duration),
                Err(_) if value::is_off(text) => Err("write `off`".to_owned()),
                Err(hint) => Err(hint),
            },
        })
    }

    /// The size of a body, greater than zero; `off` is [`value::UNLIMITED`].
    pub(crate) fn size_or_off(&mut self, node: &Node) -> Option<Spanned<u64>> {
        let what = "a size, or `off`";
        self.scalar(node, what, value::SIZES, |text| match text {
            "off" => Ok(value::UNLIMITED),
            text => match value::size(text) {
                Ok(0) => Err(
                    "zero would refuse every body; write `off` for no limit, which is nginx's 0"
                        .to_owned(),
                ),
                Ok(size) => Ok(size),
                Err(_) if value::is_off(text) => Err("write `off`".to_owned()),
                Err(hint) => Err(hint),
            },
        })
    }

    /// A number of bytes greater than zero.
    pub(crate) fn size(&mut self, node: &Node) -> Option<Spanned<u64>> {
        self.scalar(node, "a size", value::SIZES, |text| {
            match value::size(text)? {
                0 => Err("zero leaves no room at all".to_owned()),
                size => Ok(size),
            }
        })
    }

    /// A number of bytes that may be zero.
    pub(crate) fn size_or_zero(&mut self, node: &Node) -> Option<Spanned<u64>> {
        self.scalar(node, "a size", value::SIZES, value::size)
    }

    /// One of a fixed set of words.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        node: &Node,
        what: &str,
        known: &[(&str, T)],
    ) -> Option<Spanned<T>> {
        let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
        let general = format!("known here: {}", words.join(", "));
        self.scalar(node, what, &general, |text| {
            let found = known.iter().find(|(word, _)| *word == text);
            found
                .map(|(_, value)| *value)
                .ok_or_else(|| did_you_mean(text, &words))
        })
    }

    /// The address of an app.
    pub(crate) fn server(&mut self, node: &Node) -> Option<Spanned<Server>> {
        let node = self.without_password(node)?;
        let directory = self.directory;
        self.scalar(node, "a server's URL", value::SERVERS, |text| {
            value::server(text, directory)
        })
    }

    /// Refuses a URL with a user and password, without showing them.
    pub(crate) fn without_password<'n>(&mut self, node: &'n Node) -> Option<&'n Node> {
        let Kind::Scalar(scalar) = &node.kind else {
            return Some(node);
        };
        if !(scalar.text.contains("://") && scalar.text.contains('@')) {
            return Some(node);
        }
        let number = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        let (line, column) = (
            number(node.place.line),
            number(node.place.column.saturating_sub(1)),
        );
        let to = (line, column.saturating_add(number(node.place.length)));
        self.errors.hide(
            node.place.file,
            Stretch {
                from: (line, column),
                to,
            },
        );
        self.errors
            .at(
                node.place,
                "a user or password in a URL is not supported here",
            )
            .hint("set a header: headers: {request: {set: {Authorization: ...}}}");
        None
    }

    /// A header's name.
    pub(crate) fn header_name(&mut self, node: &Node) -> Option<Spanned<HeaderName>> {
        self.scalar(node, "a header's name", "", |text| {
            HeaderName::from_bytes(text.as_bytes()).map_err(|_| "such as X-User-Id".to_owned())
        })
    }

    /// A header's value. Private values are marked sensitive.
    pub(crate) fn header_value(&mut self, node: &Node) -> Option<Spanned<HeaderValue>> {
        let general = "it has no control characters, and only ASCII";
        let mut found = self.scalar(node, "a header's value", general, |text| {
            let legal = text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && text.trim() == text;
            let value = HeaderValue::from_str(text).ok().filter(|_| legal);
            value.ok_or_else(|| general.to_owned())
        })?;
        found.value.set_sensitive(found.private);
        Some(found)
    }

    /// A map from header names to values.
    pub(crate) fn headers<T>(
        &mut self,
        node: &Node,
        what: &str,
        mut read: impl FnMut(&mut Self, &Node) -> Option<T>,
    ) -> Option<Vec<(Spanned<HeaderName>, T)>> {
        let mut headers: Vec<(Spanned<HeaderName>, T)> = Vec::new();
        for (name, value) in self.named(node, what, |it, node| Some(read(it, node)))? {
            let Ok(header) = HeaderName::from_bytes(name.value.as_bytes()) else {
                let problem = format!("expected a header's name, found {}", quoted(&name.value));
                self.errors.at(name.place, problem);
                continue;
            };
            if let Some((first, _)) = headers.iter().find(|(known, _)| known.value == header) {
                let first = self.errors.name(first.place);
                let problem = format!(
                    "{} is here twice; it was at {first} first",
                    quoted(&name.value)
                );
                self.errors.at(name.place, problem);
            } else if let Some(value) = value {
                let name = Spanned {
                    value: header,
                    place: name.place,
                    private: false,
                };
                headers.push((name, value));
            }
        }
        Some(headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_near(word: &str, expected: Option<&str>) {
        assert_eq!(
            nearest(word, ["path", "proxy", "methods", "round_robin"]),
            expected,
            "{word}"
        );
    }

    #[test]
    fn a_near_word_is_found() {
        check_near("prox", Some("proxy"));
        check_near("porxy", Some("proxy"));
        check_near("Proxy", Some("proxy"));
        check_near("method", Some("methods"));
        check_near("round-robin", Some("round_robin"));
        check_near("cors", None);
        check_near("x", None);
    }
}
