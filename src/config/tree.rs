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
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The tree on one line: scalars as they are, quoted ones in quotes.
    fn brief(node: &Node) -> String {
        let list = |items: Vec<String>| items.join(", ");
        match &node.kind {
            Kind::Null => "~".to_owned(),
            Kind::Broken => "!".to_owned(),
            Kind::Scalar(s) if s.hidden => "***".to_owned(),
            Kind::Scalar(s) if s.quoted => format!("{:?}", s.text),
            Kind::Scalar(s) => s.text.clone(),
            Kind::List(items) => format!("[{}]", list(items.iter().map(brief).collect())),
            Kind::Map(entries) => {
                let entry = |(key, node): &(Key, Node)| format!("{}: {}", key.text, brief(node));
                format!("{{{}}}", list(entries.iter().map(entry).collect()))
            }
        }
    }

    fn read(text: &str) -> (Option<Node>, Errors) {
        let mut errors = Errors::default();
        let file = errors.add_file("a.yaml", text);
        let node = parse(file, text, &mut errors);
        (node, errors)
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let (node, errors) = read(text);
        assert!(errors.is_empty(), "{}", errors.finish().unwrap_err());
        assert_eq!(node.as_ref().map_or_else(String::new, brief), expected);
    }

    #[test]
    fn plain_yaml_is_read() {
        check(
            "a: 1\nb: [x, 'y', {c: ~}]\nd:\n",
            "{a: 1, b: [x, \"y\", {c: ~}], d: ~}",
        );
        check("- a\n- b: |\n    t\n", "[a, {b: \"t\\n\"}]");
        check("---\na: 1 # c\n", "{a: 1}");
        check("# nothing\n", "");
        check(
            "jwt: {token: {secret: x, secrets: [y], typ: z}}",
            "{jwt: {token: {secret: ***, secrets: [***], typ: z}}}",
        );
        check("secret: {a: [b]}", "{secret: {a: [***]}}");
        check(
            "set: {X-Api-Token: a, X-AuthUser: b, Cookies: c, Monkey: d, X-User: e}",
            "{set: {X-Api-Token: ***, X-AuthUser: ***, Cookies: ***, Monkey: ***, X-User: e}}",
        );
        check(
            "headers: {x-secret-1: a, Host: b}",
            "{headers: {x-secret-1: ***, Host: b}}",
        );
        check(
            "certificates: {key: a, read_token: b}",
            "{certificates: {key: a, read_token: ***}}",
        );
    }

    #[test]
    fn pairs_of_surrogates_are_characters_in_double_quotes_alone() {
        check(
            r#"{"a\ud83d\uDE00": "\uD83D\uDE00b", 'c': '\ud83d'}"#,
            "{a\u{1f600}: \"\u{1f600}b\", c: \"\\\\ud83d\"}",
        );
        check(
            "a: \\ud83d\\ude00\nb: |\n  \\ud83d\n",
            "{a: \\ud83d\\ude00, b: \"\\\\ud83d\\n\"}",
        );
        refuse(
            "a: 1\nb: {c: \"\\ude00\"}",
            "a.yaml:2:8: an escape that is half of a pair (`\\ud83d\\ude00` is one character)\n    2 | b: {c: \"\\ude00\"}\n      |        ^^^^^^^^",
        );
    }

    #[test]
    fn a_key_in_quotes_is_what_it_says() {
        check("{'<<': 1, \"${A}\": 2}", "{<<: 1, ${A}: 2}");
    }

    #[track_caller]
    fn refuse(text: &str, expected: &str) {
        let (_, errors) = read(text);
        let seen = errors
            .finish()
            .map_or_else(|errors| errors.to_string(), |()| "no error".to_owned());
        let seen = seen
            .rsplit_once("\n\n")
            .map_or(seen.as_str(), |(errors, _)| errors);
        assert_eq!(seen, expected, "{text}\n{seen}");
    }

    #[test]
    fn what_is_not_plain_is_refused_at_its_place() {
        refuse(
            "a: 1\na: 2",
            "a.yaml:2:1: `a` is here twice; it was at a.yaml:1:1 first\n    2 | a: 2\n      | ^",
        );
        refuse(
            "a: !t 1",
            "a.yaml:1:4: tags (`!name`) are not supported here\n    1 | a: !t 1\n      |    ^^^^",
        );
        refuse(
            "[a]: 1",
            "a.yaml:1:1: a list or map as a key is not supported here\n    1 | [a]: 1\n      | ^",
        );
        refuse(
            "a: 1\n---\nb: 2",
            "a.yaml:2:1: a second document in one file is not supported here\n    2 | ---\n      | ^^^",
        );
        refuse(
            "${A}: 1",
            "a.yaml:1:1: variables are expanded in values, not in keys\n    1 | ${A}: 1\n      | ^^^^",
        );
        refuse(
            ": 1",
            "a.yaml:1:1: a key without a name\n    1 | : 1\n      | ^",
        );
        refuse(
            "a:\n\tb: 1",
            "a.yaml:2:2: a tab where YAML wants spaces\n    2 |  b: 1\n      |  ^ use spaces for indentation",
        );
        refuse(
            "a: 'x",
            "a.yaml:1:4: a quote that is never closed\n    1 | a: 'x\n      |    ^",
        );
        refuse(
            "a: @x",
            "a.yaml:1:4: a text cannot begin with `@`\n    1 | a: @x\n      |    ^ put it into quotes",
        );
        refuse(
            "a: b: c",
            "a.yaml:1:5: a `:` that does not fit here\n    1 | a: b: c\n      |     ^ put a text with `: ` in it into quotes, or check the indentation",
        );
        refuse(
            "a: [1\n\n",
            "a.yaml:1:6: the list in brackets goes on wrongly\n    1 | a: [1\n      |      ^ a comma or the closing bracket (opened at a.yaml:1:4); inside brackets write \"${NAME}\" and addresses in quotes",
        );
        refuse(
            "secret: abc: d\n",
            "a.yaml:1:12: a `:` that does not fit here\n    1 | secret: ***\n      |         ^^^ put a text with `: ` in it into quotes, or check the indentation",
        );
    }

    #[test]
    fn aliases_are_copies_of_what_their_anchors_mark() {
        check("a: &x 1\nb: *x\n", "{a: 1, b: 1}");
        check(
            "a: &x [1, {b: 2}]\nc: [*x, *x]\n",
            "{a: [1, {b: 2}], c: [[1, {b: 2}], [1, {b: 2}]]}",
        );
        check("a: &x 1\nb: &x 2\nc: *x\n", "{a: 1, b: 2, c: 2}");
        check("a: &x b\n*x : c\n", "{a: b, b: c}");
        check("a: &x\nb: *x\n", "{a: ~, b: ~}");
        check("a: &x s\nsecret: *x\n", "{a: s, secret: ***}");
        check("secret: &x s\na: *x\n", "{secret: ***, a: ***}");
    }

    #[test]
    fn merge_keys_take_in_maps_and_own_keys_win() {
        check(
            "a: &x {p: 1, q: 2}\nb:\n  <<: *x\n  q: 3\n",
            "{a: {p: 1, q: 2}, b: {q: 3, p: 1}}",
        );
        check(
            "a: &x {p: 1, q: 2}\nb: {q: 3, <<: *x}\n",
            "{a: {p: 1, q: 2}, b: {q: 3, p: 1}}",
        );
        check(
            "- &x {p: 1}\n- &y {p: 2, q: 2}\n- {<<: [*x, *y], r: 3}\n",
            "[{p: 1}, {p: 2, q: 2}, {r: 3, p: 1, q: 2}]",
        );
        check("<<: {a: 1}\nb: 2\n", "{b: 2, a: 1}");
        check(
            "- &x {p: 1}\n- &y {<<: *x, q: 2}\n- {<<: *y}\n",
            "[{p: 1}, {q: 2, p: 1}, {q: 2, p: 1}]",
        );
        check("'<<': 1", "{<<: 1}");
    }

    #[test]
    fn aliases_that_stand_for_nothing_or_too_much_are_refused() {
        let first = |text: &str| {
            let (_, errors) = read(text);
            let errors = errors.finish().unwrap_err();
            let first = errors.iter().next().unwrap();
            format!("{}:{}: {}", first.line, first.column, first.problem)
        };
        for (text, expected) in [
            (
                "a: &x {b: *x}",
                "1:11: this alias stands inside of what it stands for",
            ),
            (
                "a: &x [*x]",
                "1:8: this alias stands inside of what it stands for",
            ),
            (
                "a: *x",
                "1:4: there is no anchor `&name` of this name above",
            ),
            (
                "host: *.example.com",
                "1:7: there is no anchor `&name` of this name above",
            ),
            (
                "a: &x 1\nb: {<<: *x}",
                "1:4: a merge key (`<<`) takes a map, or a list of maps (for the alias at a.yaml:2:9)",
            ),
            (
                "<<: [1]",
                "1:6: a merge key (`<<`) takes a map, or a list of maps",
            ),
            ("<<: {a: 1}\n<<: {b: 2}", "2:1: `<<` is here twice"),
        ] {
            assert_eq!(first(text), expected, "{text}");
        }
        // Nested aliases that would expand to a billion values.
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        assert_eq!(
            first(&text),
            "4:45: the aliases stand for more than 10,000 values in all"
        );
        let deep = (1..40).fold("a0: &a0 [x]\n".to_owned(), |text, level| {
            format!("{text}a{level}: &a{level} [*a{}]\n", level - 1)
        });
        assert_eq!(
            first(&deep),
            "32:12: more than 32 lists and maps in each other"
        );
    }

    #[test]
    fn a_secret_that_is_an_alias_is_shown_nowhere() {
        let (_, mut errors) = read("a: &x hunter2\nsecret: *x\n");
        errors.at(
            Place {
                file: 0,
                line: 1,
                column: 1,
                length: 1,
            },
            "wrong",
        );
        let said = errors.finish().unwrap_err().to_string();
        assert!(
            said.contains("wrong") && !said.contains("hunter2"),
            "{said}"
        );
    }

    #[test]
    fn what_nobody_sees_is_named_at_its_place() {
        let said = |text: &str| {
            let (_, errors) = read(text);
            let errors = errors.finish().unwrap_err();
            let first = errors.iter().next().unwrap();
            format!("{}:{}: {}", first.line, first.column, first.problem)
        };
        for (text, expected) in [
            (
                "a: 1\nb: 2\n\0",
                "3:1: U+0000 (NUL) has no place in a file of YAML",
            ),
            (
                "a: \"x\u{1b}\"",
                "1:6: U+001B (a control character) has no place in a file of YAML",
            ),
            (
                "a: 1\n\u{feff}b: 2",
                "2:1: U+FEFF (byte order mark) has no place in a file of YAML",
            ),
            (
                "a: 1\n\u{a0}b: 2\nc: 3",
                "2:1: this key has U+00A0 (no-break space) in it",
            ),
            (
                "a: 1\n\u{200b}b: 2",
                "2:1: this key has U+200B (zero-width space) in it",
            ),
            (
                "b:\u{a0}{c: 2}",
                "1:3: this key has U+00A0 (no-break space) in it",
            ),
            (
                "a: 10s\u{a0}",
                "1:7: this text ends in U+00A0 (no-break space)",
            ),
            (
                "a: [\u{200b}x]",
                "1:5: this text begins with U+200B (zero-width space)",
            ),
            (
                "a:\n  b: 1\n\u{a0} c: 2",
                "3:1: this key has U+00A0 (no-break space) in it",
            ),
        ] {
            assert_eq!(said(text), expected, "{text:?}");
        }
        check(
            "a: \"\u{a0}x\" # \u{200b}\nb: x\u{a0}y\n",
            "{a: \"\\u{a0}x\", b: x\u{a0}y}",
        );
    }

    #[test]
    fn depth_has_an_end() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(read(&deep(32)).1.is_empty());
        assert_eq!(read(&deep(33)).1.count(), 1);
        assert_eq!(read(&deep(5000)).1.count(), 1);
        let steps: String = (0..200).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
        assert_eq!(read(&steps).1.count(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn no_text_stops_the_reader(text in any::<String>()) {
            let (_, errors) = read(&text);
            let _shown = errors.finish().map_err(|errors| errors.to_string());
        }

        #[test]
        fn no_text_of_yaml_signs_stops_the_reader(text in "[-a:?&*!|>'\"%@`{}\\[\\], #\n\t\r.<~0$\u{feff}\u{85}\\\\]{0,40}") {
            let (_, errors) = read(&text);
            let _shown = errors.finish().map_err(|errors| errors.to_string());
        }
    }
}
