//! Header fields that a configuration sets and removes.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Headers to set and to remove.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct HeaderEdits {
    /// Replaces every value of the name.
    pub(crate) set: Vec<(HeaderName, HeaderValue)>,
    /// Names that go.
    pub(crate) remove: Vec<HeaderName>,
}

impl HeaderEdits {
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
