//! The marked tree: YAML's lists, maps and scalars, each with its place. Aliases and merge keys are resolved (`alias`);
//! tags and multiple documents are refused. What the values mean is decided elsewhere.

use std::collections::HashSet;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span};

use super::alias::{self, AliasFault, Anchors};
use super::error::Errors;
use super::invisible;
use super::mask::{Secrecy, has_password, is_secret_header, quoted, secrecy};
use super::node::{Key, Kind, Node, Scalar};
use super::place::Place;
use super::place::Stretch;
use super::surrogates::Veiled;
use super::syntax::words;

/// The limit for nested lists and maps.
const DEEPEST: usize = 32;

/// A list or map that is still being read.
struct Frame {
    place: Place,
    hidden: bool,
    inside: Inside,
    /// The keys of a map so far, as a set: a users file has thousands.
    keys: HashSet<String>,
    /// The number of its anchor, or 0, and where it starts.
    anchor: (usize, Marker),
    /// The values of its merge keys.
    merged: Vec<Node>,
}

enum Inside {
    List(Vec<Node>),
    Map(Vec<(Key, Node)>, Pending),
}

/// What a map expects next.
enum Pending {
    Key,
    Value(Key),
    /// The value of a key with an error.
    Nothing,
    /// The value of a merge key.
    Merge,
}

/// Parses one file's text. Errors are added to `errors`; `None` where errors prevented all reading, or where the file
/// is empty.
pub(crate) fn parse(file: u16, text: &str, errors: &mut Errors) -> Option<Node> {
    let forbidden = invisible::forbidden(file, errors.lines(file));
    if !forbidden.is_empty() {
        errors.hide_by_looks(file);
        for (place, name) in forbidden {
            errors
                .at(place, format!("{name} has no place in a file of YAML"))
                .hint("take it out");
        }
        return None;
    }
    let veiled = Veiled::of(text);
    let mut builder = Builder {
        file,
        errors,
        veiled: &veiled,
        stack: Vec::new(),
        root: None,
        anchors: Anchors::default(),
        stopped: false,
    };
    let mut documents = 0;
    for event in Parser::new_from_str(&veiled.text) {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                builder.syntax(&error);
                return None;
            }
        };
        if matches!(event, Event::DocumentStart(_)) {
            documents += 1;
            if documents > 1 {
                let place = builder.place(span);
                builder.refuse(place, "a second document in one file");
                break;
            }
        }
        builder.take(event, span);
        if builder.stopped {
            return None;
        }
    }
    builder.root.filter(|root| !matches!(root.kind, Kind::Null))
}

struct Builder<'e> {
    file: u16,
    errors: &'e mut Errors,
    veiled: &'e Veiled<'e>,
    stack: Vec<Frame>,
    root: Option<Node>,
    anchors: Anchors,
    stopped: bool,
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) {
        let place = self.place(span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.tag(place, tag.is_some());
                let hidden = self.is_hidden(false) || has_password(&text);
                if hidden {
                    self.hide(span);
                }
                let plain = style == ScalarStyle::Plain;
                if plain {
                    self.ends(place, &text);
                }
                let Ok(text) = self.veiled.lift(&text) else {
                    let problem =
                        "an escape that is half of a pair (`\\ud83d\\ude00` is one character)";
                    self.errors.at(place, problem);
                    return self.put(Node {
                        place,
                        kind: Kind::Broken,
                    });
                };
                let kind = match text.as_ref() {
                    "" | "~" | "null" | "Null" | "NULL" if plain => Kind::Null,
                    text => Kind::Scalar(Scalar {
                        text: text.to_owned(),
                        quoted: !plain,
                        hidden,
                        written: None,
                        from_file: false,
                    }),
                };
                let node = Node { place, kind };
                self.mark(anchor, &node, stretch(span.start, span.end));
                self.put(node);
            }
            Event::SequenceStart(anchor, tag) => {
                self.tag(place, tag.is_some());
                self.open(place, (anchor, span.start), Inside::List(Vec::new()));
            }
            Event::MappingStart(anchor, tag) => {
                self.tag(place, tag.is_some());
                let map = Inside::Map(Vec::new(), Pending::Key);
                self.open(place, (anchor, span.start), map);
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(mut frame) = self.stack.pop() else {
                    return;
                };
                let kind = match frame.inside {
                    Inside::List(items) => Kind::List(items),
                    Inside::Map(mut entries, _) => {
                        for value in frame.merged {
                            alias::merge(&mut entries, &mut frame.keys, value, self.errors);
                        }
                        Kind::Map(entries)
                    }
                };
                let place = frame.place;
                let node = Node { place, kind };
                let (anchor, start) = frame.anchor;
                self.mark(anchor, &node, stretch(start, span.end));
                self.put(node);
            }
            Event::Alias(anchor) => self.alias(place, anchor),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => {}
        }
    }

    /// Stores a value that has an anchor.
    fn mark(&mut self, anchor: usize, node: &Node, stretch: Stretch) {
        if anchor > 0 {
            self.anchors.mark(anchor, node, stretch);
        }
    }

    /// Replaces an alias.
    fn alias(&mut self, place: Place, anchor: usize) {
        let below = (
            DEEPEST.saturating_sub(self.stack.len()),
            self.is_hidden(false),
        );
        let kind = match self.anchors.copy(anchor, place, below, self.errors) {
            Ok(node) => return self.put(node),
            Err(AliasFault::Itself) => {
                let problem = "this alias stands inside of what it stands for";
                self.errors.at(place, problem);
                Kind::Broken
            }
            Err(AliasFault::Many) => {
                self.errors.at(
                    place,
                    "the aliases stand for more than 10,000 values in all",
                );
                self.stopped = true;
                Kind::Broken
            }
            Err(AliasFault::Deep) => {
                let problem = format!("more than {DEEPEST} lists and maps in each other");
                self.errors.at(place, problem);
                Kind::Broken
            }
        };
        self.put(Node { place, kind });
    }

    /// Starts a list or a map.
    fn open(&mut self, place: Place, anchor: (usize, Marker), inside: Inside) {
        if self.stack.len() >= DEEPEST {
            let problem = format!("more than {DEEPEST} lists and maps in each other");
            self.errors.at(place, problem);
            self.stopped = true;
            return;
        }
        let hidden = self.is_hidden(matches!(inside, Inside::Map(..)));
        self.stack.push(Frame {
            place,
            hidden,
            inside,
            keys: HashSet::new(),
            anchor,
            merged: Vec::new(),
        });
    }

    /// Adds a value to its list or map; in a map every other value is a key.
    fn put(&mut self, node: Node) {
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return;
        };
        let (hidden, keys) = (frame.hidden, &mut frame.keys);
        let (entries, pending) = match &mut frame.inside {
            Inside::List(items) => return items.push(node),
            Inside::Map(entries, pending) => (entries, pending),
        };
        match std::mem::replace(pending, Pending::Key) {
            Pending::Nothing => {}
            Pending::Merge => frame.merged.push(node),
            Pending::Value(key) => {
                let place = match node.kind {
                    Kind::Null => key.place,
                    Kind::Scalar(_) | Kind::List(_) | Kind::Map(_) | Kind::Broken => node.place,
                };
                entries.push((key, Node { place, ..node }));
            }
            Pending::Key => {
                let frame_place = &mut frame.place;
                if frame_place.line == node.place.line && frame_place.column == node.place.column {
                    *frame_place = node.place; // a map without braces is marked at its first key
                }
                *pending = Pending::Nothing;
                // Quoted keys are literal.
                let (text, plain) = match node.kind {
                    Kind::Scalar(scalar) => (scalar.text, !scalar.quoted),
                    Kind::Null => {
                        self.errors.at(node.place, "a key without a name");
                        return;
                    }
                    Kind::List(_) | Kind::Map(_) => {
                        return self.refuse(node.place, "a list or map as a key is");
                    }
                    Kind::Broken => return,
                };
                let twice = !keys.insert(text.clone());
                let first = if twice {
                    entries.iter().find(|(key, _)| key.text == text)
                } else {
                    None
                };
                if let Some((first, _)) = first {
                    let first = self.errors.name(first.place);
                    let shown = if hidden {
                        "a key".to_owned()
                    } else {
                        quoted(&text)
                    };
                    let problem = format!("{shown} is here twice; it was at {first} first");
                    self.errors.at(node.place, problem);
                } else if text == "<<" && plain && twice {
                    self.errors
                        .at(node.place, "`<<` is here twice")
                        .hint("a list takes several maps: `<<: [*one, *other]`");
                } else if text == "<<" && plain {
                    *pending = Pending::Merge;
                } else if text.contains("${") && plain {
                    let problem = "variables are expanded in values, not in keys";
                    self.errors.at(node.place, problem);
                } else {
                    *pending = Pending::Value(Key {
                        text,
                        place: node.place,
                    });
                }
            }
        }
    }

    /// Whether the next value belongs to a secret. The names below `jwt` and `upstreams` are chosen by the user, and
    /// may be `token`.
    fn is_hidden(&self, map: bool) -> bool {
        let Some(frame) = self.stack.last() else {
            return false;
        };
        let Inside::Map(_, Pending::Value(key)) = &frame.inside else {
            return frame.hidden;
        };
        let under = |frame: &Frame| match &frame.inside {
            Inside::Map(_, Pending::Value(key)) => key.text == "jwt" || key.text == "upstreams",
            Inside::Map(..) | Inside::List(_) => false,
        };
        let above = self.stack.len().checked_sub(2);
        let above = above.and_then(|at| self.stack.get(at));
        let of_headers = above.is_some_and(|frame| match &frame.inside {
            Inside::Map(_, Pending::Value(key)) => key.text == "set" || key.text == "headers",
            Inside::Map(..) | Inside::List(_) => false,
        });
        if of_headers && is_secret_header(&key.text) {
            return true;
        }
        // The key that seals what is kept on Redis; others of this name are files.
        let of_state = above.is_some_and(|frame| match &frame.inside {
            Inside::Map(_, Pending::Value(key)) => key.text == "state",
            Inside::Map(..) | Inside::List(_) => false,
        });
        if of_state && self.stack.len() == 2 && key.text == "key" {
            return true;
        }
        let named = map && self.stack.len() == 2 && self.stack.first().is_some_and(under);
        frame.hidden
            || match secrecy(&key.text) {
                Secrecy::Open => false,
                Secrecy::Near => !map,
                Secrecy::Secret => !named,
            }
    }

    /// Refuses an unquoted text that starts or ends with an invisible character. Keys are checked completely.
    fn ends(&mut self, place: Place, text: &str) {
        let is_key = matches!(
            self.stack.last().map(|frame| &frame.inside),
            Some(Inside::Map(_, Pending::Key))
        );
        let found = if is_key {
            let (at, name) = invisible::in_key(text).unzip();
            name.map(|name| (at.unwrap_or_default(), format!("this key has {name} in it")))
        } else {
            let found = invisible::at_an_end(text);
            found.map(|(at, how, name)| (at, format!("this text {how} {name}")))
        };
        if let Some((at, problem)) = found {
            // A text of several lines is marked as a whole.
            let whole =
                u32::try_from(text.chars().count()).is_ok_and(|length| length == place.length);
            let at = u32::try_from(at).ok().filter(|_| whole);
            let place = at.map_or(place, |at| Place {
                column: place.column.saturating_add(at),
                length: 1,
                ..place
            });
            self.errors
                .at(place, problem)
                .hint("take it out, or write a space; in quotes it stays");
        }
    }

    /// Refuses a tag before a value.
    fn tag(&mut self, place: Place, tag: bool) {
        if tag {
            self.refuse(place, "tags (`!name`) are");
        }
    }

    fn refuse(&mut self, place: Place, what: &str) {
        let is = if what.ends_with(" are") || what.ends_with(" is") {
            ""
        } else {
            " is"
        };
        self.errors
            .at(place, format!("{what}{is} not supported here"));
    }

    /// Hides a part of the file from all messages.
    fn hide(&mut self, span: Span) {
        let stretch = stretch(span.start, span.end);
        self.errors.hide(self.file, stretch);
    }

    /// A span as a place; a span of several lines is marked on its first.
    fn place(&self, span: Span) -> Place {
        let length = if span.end.line() == span.start.line() {
            span.end.col().saturating_sub(span.start.col())
        } else {
            let lines = self.errors.lines(self.file);
            let line = lines.get(span.start.line().saturating_sub(1));
            let all = line.map_or(0, |line| line.trim_end().chars().count());
            all.saturating_sub(span.start.col())
        };
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Place {
            file: self.file,
            line: number(span.start.line()),
            column: number(span.start.col()).saturating_add(1),
            length: number(length.max(1)),
        }
    }

    /// Reports a syntax error. The rest of the file cannot be read.
    fn syntax(&mut self, error: &ScanError) {
        self.errors.hide_by_looks(self.file);
        let mut place = self.place(Span::empty(*error.marker()));
        let lines = self.errors.lines(self.file);
        let last = u32::try_from(
            lines
                .iter()
                .rposition(|line| !line.trim().is_empty())
                .unwrap_or(0),
        )
        .map_or(u32::MAX, |last| last.saturating_add(1));
        if place.line > last {
            // An error at the end of the file is shown after the last line's text.
            let index = usize::try_from(last.saturating_sub(1)).unwrap_or(0);
            let length = lines
                .get(index)
                .map_or(0, |line| line.trim_end().chars().count());
            place.line = last;
            place.column = u32::try_from(length).unwrap_or(u32::MAX).saturating_add(1);
        }
        let (problem, hint) = words(error.info());
        let mut hint = hint.map(str::to_owned);
        if error.info().contains("',' or") {
            let open = self.stack.last().map(|frame| self.errors.name(frame.place));
            let opened = open.map_or_else(String::new, |at| format!(" (opened at {at})"));
            hint = Some(format!(
                "a comma or the closing bracket{opened}; inside brackets write \"${{NAME}}\" and \
                 addresses in quotes"
            ));
        }
        let invisible = invisible::before(self.file, self.errors.lines(self.file), place.line);
        if let Some((cause, name)) = invisible {
            self.errors
                .at(cause, format!("{name} outside quotes"))
                .hint("take it out, or write a space");
        }
        let draft = self.errors.at(place, problem);
        if let Some(hint) = hint {
            draft.hint(hint);
        }
    }
}

/// The part of a file between two marks.
fn stretch(start: Marker, end: Marker) -> Stretch {
    let point = |marker: Marker| (marker.line(), marker.col());
    Stretch {
        from: point(start),
        to: point(end),
    }
}

#[cfg(test)]
mod tests;
