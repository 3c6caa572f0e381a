//! The nodes of the marked tree. How they are made of a text is said in `tree`, what they mean is decided by their readers.

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
    /// Something that a mistake was reported for; nothing more is said about it.
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
