//! Looking for one header field in a message. Which fields mean what is not known here.

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
