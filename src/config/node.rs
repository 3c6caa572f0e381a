//! The nodes of the marked tree. `tree` builds them from a text; the decoders decide what they mean.

use std::borrow::Cow;
use std::fmt;

use super::mask::quoted;
use super::place::Place;

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Where it starts; for a map without braces its first key, for an empty value the key before it.
    pub(crate) place: Place,
    /// The value.
    pub(crate) kind: Kind,
}

impl Node {
    /// The node itself where it is a map, or else an empty map in its place, to continue decoding after an error was
    /// reported.
    pub(crate) fn as_map(&self) -> Cow<'_, Self> {
        match self.kind {
            Kind::Map(_) => Cow::Borrowed(self),
            Kind::Null | Kind::Scalar(_) | Kind::List(_) | Kind::Broken => Cow::Owned(Self {
                place: self.place,
                kind: Kind::Map(Vec::new()),
            }),
        }
    }

    /// A map with this value, or a list of it, under one key, in the same place: the full form of a short value.
    pub(crate) fn behind(self, key: &str, in_list: bool) -> Self {
        let place = self.place;
        let value = if in_list {
            Self {
                place,
                kind: Kind::List(vec![self]),
            }
        } else {
            self
        };
        let key = Key {
            text: key.to_owned(),
            place,
        };
        Self {
            place,
            kind: Kind::Map(vec![(key, value)]),
        }
    }
}

/// The kind of a node.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Null: an empty value, `~` or `null`.
    Null,
    /// A text, number or boolean; the decoder decides which.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// A map, in order; without duplicate keys.
    Map(Vec<(Key, Node)>),
    /// A value that an error was already reported for.
    Broken,
}

/// A key of a map.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    /// The key, without its quotes.
    pub(crate) text: String,
    /// Its place.
    pub(crate) place: Place,
}

/// A text, number or boolean as written.
#[derive(Clone)]
pub(crate) struct Scalar {
    /// The text, with variables expanded.
    pub(crate) text: String,
    /// Whether it was quoted or a text block, and so is a text whatever it looks like.
    pub(crate) quoted: bool,
    /// Whether it is below a key such as `secret`.
    pub(crate) hidden: bool,
    /// The text before variables were expanded, if there were any.
    pub(crate) written: Option<String>,
    /// Whether a part of it came from a file through `${file:..}`.
    pub(crate) from_file: bool,
}

impl Scalar {
    /// Whether its text must not appear in messages: a secret, or an expanded variable.
    pub(crate) fn is_private(&self) -> bool {
        self.hidden || self.written.is_some()
    }

    /// The text for a message, in backticks; for private values the unexpanded text.
    pub(crate) fn shown(&self) -> String {
        match &self.written {
            _ if self.hidden => "a hidden value".to_owned(),
            Some(written) => format!("the value of {}", quoted(written)),
            None => quoted(&self.text),
        }
    }
}

impl fmt::Debug for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}
