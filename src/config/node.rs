//! The nodes of the marked tree. How they are made of a text is said in `tree`, what they mean is decided by their readers.

use std::borrow::Cow;
use std::fmt;

use super::mask::quoted;
use super::place::Place;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Where it begins; for a map without braces its first key, for nothing the key before it.
    pub(crate) place: Place,
    /// What it is.
    pub(crate) kind: Kind,
}

impl Node {
    /// Itself where it is a map, or else a map without entries in its place: what is to be read on after an error was
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

    /// A map with this value behind one key, or a list of it, in its place: what a value alone stands for.
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

/// What a node is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Nothing: an empty value, `~` or `null`.
    Null,
    /// A text, number or boolean; which of them is decided by whoever reads it.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// A map, in its order; no key is there twice.
    Map(Vec<(Key, Node)>),
    /// Something that an error was reported for; nothing more is said about it.
    Broken,
}

/// A key of a map.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    /// The key, without its quotes.
    pub(crate) text: String,
    /// Where it stands.
    pub(crate) place: Place,
}

/// A text, number or boolean as it was written.
#[derive(Clone)]
pub(crate) struct Scalar {
    /// The text, variables expanded.
    pub(crate) text: String,
    /// Whether it was in quotes or a text block, and so is a text whatever it looks like.
    pub(crate) quoted: bool,
    /// Whether it stands below a key such as `secret`.
    pub(crate) hidden: bool,
    /// The text before variables were expanded, where there were any.
    pub(crate) written: Option<String>,
    /// Whether some of it came from a file by `${file:..}`.
    pub(crate) from_file: bool,
}

impl Scalar {
    /// Whether its text must stay out of messages: a secret, or what variables were expanded to.
    pub(crate) fn is_private(&self) -> bool {
        self.hidden || self.written.is_some()
    }

    /// The text for a message, in backticks; what was written where the text must stay out.
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
