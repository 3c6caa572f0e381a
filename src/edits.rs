//! Header fields that a configuration sets and removes.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::fields::NameSet;

/// Headers to set and to remove.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct HeaderEdits {
    /// Replaces every value of the name.
    pub(crate) set: Vec<(HeaderName, HeaderValue)>,
    /// Names that go.
    pub(crate) remove: Vec<HeaderName>,
    /// All of these names, in every spelling: none of a client's passes.
    pub(crate) names: NameSet,
}

impl HeaderEdits {
    /// Sets these and removes those.
    pub(crate) fn new(set: Vec<(HeaderName, HeaderValue)>, remove: Vec<HeaderName>) -> Self {
        let names = set.iter().map(|(name, _)| name).chain(&remove);
        Self {
            names: NameSet::new(names.cloned()),
            set,
            remove,
        }
    }

    /// Removes, then sets.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
    }
}
