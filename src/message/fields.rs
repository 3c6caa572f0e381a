//! Lookup of header fields by name. What a field means is not known here.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The first value of a field that few messages have: comparing a few names costs less than a hash lookup.
pub(crate) fn rare<'m>(headers: &'m HeaderMap, name: &HeaderName) -> Option<&'m HeaderValue> {
    let is_there = headers.keys().any(|known| known == name);
    is_there.then(|| headers.get(name)).flatten()
}

/// The first value of a field that is usually among the first.
pub(crate) fn early<'m>(headers: &'m HeaderMap, name: &HeaderName) -> Option<&'m HeaderValue> {
    let mut all = headers.iter();
    all.find(|(known, _)| *known == name)
        .map(|(_, value)| value)
}

/// Bytes that every reader spells the same in a name.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_lowercase() | byte.is_ascii_digit() | (byte == b'-')
}

/// Whether apps may confuse the name with another spelling: CGI, WSGI, PHP, Rack and Node treat every byte that is
/// neither letter nor digit like `-`.
pub(crate) fn is_odd(name: &str) -> bool {
    // Names are short: testing all bytes without an early exit costs less than a search.
    name.bytes().fold(false, |odd, byte| odd | !is_plain(byte))
}

/// The canonical spelling, with `-`, of all names that apps read as the same. `name` is in lower case.
pub(crate) fn folded(name: &str) -> String {
    let bytes = name.bytes();
    bytes
        .map(|byte| {
            if is_plain(byte) {
                char::from(byte)
            } else {
                '-'
            }
        })
        .collect()
}

/// A set of field names that ignores how they are spelled.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct NameSet {
    /// Folded and sorted; `None` where there are none.
    names: Option<Arc<[String]>>,
}

impl NameSet {
    /// Builds the set.
    pub(crate) fn new(names: impl IntoIterator<Item = HeaderName>) -> Self {
        let names = names.into_iter();
        let mut names: Vec<String> = names.map(|name| folded(name.as_str())).collect();
        names.sort();
        names.dedup();
        Self {
            names: (!names.is_empty()).then(|| names.into()),
        }
    }

    /// Whether an app could read this folded name as one of the set.
    pub(crate) fn covers(&self, folded: &str) -> bool {
        self.names.as_ref().is_some_and(|names| {
            let found = names.binary_search_by(|known| known.as_str().cmp(folded));
            found.is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_apps_read_as_the_same_is_the_same() {
        let set = NameSet::new([
            HeaderName::from_static("x-user-id"),
            HeaderName::from_static("x_role"),
        ]);
        for byte in "-_.~!#$%&'*+^`|".chars() {
            let name = format!("x{byte}user{byte}id");
            assert_eq!(is_odd(&name), byte != '-', "{name}");
            assert!(set.covers(&folded(&name)), "{name}");
        }
        assert!(set.covers("x-role"));
        for name in ["x-user-i", "x-user-id-", "xuser-id", "accept"] {
            assert!(!is_odd(name) && !set.covers(&folded(name)), "{name}");
        }
        assert!(!NameSet::default().covers("x-user-id"));
    }
}
