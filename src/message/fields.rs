//! Looking for header fields in a message, by their names. Which fields mean what is not known here.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The first value of a field that few messages have: comparing a few names costs less than looking one up.
pub(crate) fn rare<'m>(headers: &'m HeaderMap, name: &HeaderName) -> Option<&'m HeaderValue> {
    let is_there = headers.keys().any(|known| known == name);
    is_there.then(|| headers.get(name)).flatten()
}

/// The first value of a field that is usually one of the first.
pub(crate) fn early<'m>(headers: &'m HeaderMap, name: &HeaderName) -> Option<&'m HeaderValue> {
    let mut all = headers.iter();
    all.find(|(known, _)| *known == name)
        .map(|(_, value)| value)
}

/// A byte that is the same in every reader's spelling of a name.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_lowercase() | byte.is_ascii_digit() | (byte == b'-')
}

/// Whether the name has another spelling for apps: CGI, WSGI, PHP, Rack and Node read every byte that is no letter and
/// no digit as the same, as they read `-`.
pub(crate) fn is_odd(name: &str) -> bool {
    // Names are short: a plain look at all bytes together costs less than a search.
    name.bytes().fold(false, |odd, byte| odd | !is_plain(byte))
}

/// The spelling, with `-`, that stands for all that apps read as the same. `name` is in lower case.
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

/// Names of fields, each of which stands for all of its spellings.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct NameSet {
    /// Folded and sorted; `None` where there are none.
    names: Option<Arc<[String]>>,
}

impl NameSet {
    /// The set of these.
    pub(crate) fn new(names: impl IntoIterator<Item = HeaderName>) -> Self {
        let names = names.into_iter();
        let mut names: Vec<String> = names.map(|name| folded(name.as_str())).collect();
        names.sort();
        names.dedup();
        Self {
            names: (!names.is_empty()).then(|| names.into()),
        }
    }

    /// Whether an app could take the name, which is folded, for one of them.
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
