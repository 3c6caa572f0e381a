//! The request target (RFC 9112 section 3.2, RFC 9113 section 8.3.1): which bytes it may contain, and how those that
//! clients send but `Uri` rejects are handled. How its path is interpreted is not decided here.

use std::ops::Range;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Request, Uri};

use crate::message::reject::Reject;

/// Characters that curl, node and Go send unescaped in a query, and that `Uri` rejects.
const RAW: [(u8, &[u8]); 3] = [(b'"', b"%22"), (b'<', b"%3C"), (b'>', b"%3E")];

/// The query as the client wrote it, if it is escaped in the `Uri`. Stored in the extensions of such requests.
#[derive(Clone, Debug)]
struct Verbatim(Bytes);

/// The reason for every rejected target.
pub(super) const MALFORMED: Reject = Reject::BadRequest("the request target is malformed");

/// Whether all bytes of a target are permitted: visible ASCII, except `#`, because a fragment is never sent.
pub(crate) fn is_plain(target: &[u8]) -> bool {
    // Without an early exit, the loop can be vectorised.
    let fits = |byte: u8| (byte > b' ') & (byte < 0x7f) & (byte != b'#');
    let plain = target.iter().fold(true, |all, byte| all & fits(*byte));
    plain && !target.is_empty()
}

/// Whether clients send this character unescaped in a query, and `Uri` rejects it.
pub(super) fn is_raw(byte: u8) -> bool {
    // Without an early exit, loops over it can be vectorised.
    (byte == b'"') | (byte == b'<') | (byte == b'>')
}

/// Parses the target at this place, whose bytes must be plain. The second value is for [`mark`].
///
/// # Errors
/// `BadRequest` if its path contains `<`, `>` or a backtick, or if it is neither a path, nor `*`, nor a complete URI.
pub(crate) fn read(bytes: &Bytes, place: Range<usize>) -> Result<(Uri, Option<Bytes>), Reject> {
    if let Ok(uri) = Uri::from_maybe_shared(bytes.slice(place.clone())) {
        return Ok((uri, None));
    }
    let (escaped, query) = escaped(&bytes.slice(place))?;
    let uri = Uri::from_maybe_shared(escaped).map_err(|_| MALFORMED)?;
    Ok((uri, Some(query)))
}

/// Parses the path and query of an HTTP/2 request in the same way.
///
/// # Errors
/// `BadRequest` if its path contains `<`, `>` or a backtick, or if it does not start with a slash or its query.
pub(super) fn read_path(bytes: &Bytes) -> Result<(PathAndQuery, Option<Bytes>), Reject> {
    if let Ok(path) = PathAndQuery::from_maybe_shared(bytes.clone()) {
        return Ok((path, None));
    }
    let (escaped, query) = escaped(bytes)?;
    let path = PathAndQuery::from_maybe_shared(escaped).map_err(|_| MALFORMED)?;
    Ok((path, Some(query)))
}

/// The target with those characters of its query escaped that `Uri` rejects, and its query as it was.
fn escaped(target: &Bytes) -> Result<(Bytes, Bytes), Reject> {
    let question = memchr::memchr(b'?', target).ok_or(MALFORMED)?;
    let query = target.slice(question + 1..);
    let mut escaped = Vec::with_capacity(target.len() + 2 * query.len());
    escaped.extend_from_slice(target.get(..=question).unwrap_or_default());
    for byte in &query {
        match RAW.iter().find(|(raw, _)| raw == byte) {
            Some((_, escape)) => escaped.extend_from_slice(escape),
            None => escaped.push(*byte),
        }
    }
    Ok((escaped.into(), query))
}

/// A rejected target, for logs: the path in its first `most` bytes, with bytes escaped that no path may contain.
pub(super) fn legible(target: &[u8], most: usize) -> Uri {
    /// The longest text that `Uri` accepts.
    const LONGEST: usize = u16::MAX as usize - 4;
    let target = target.get(..most).unwrap_or(target);
    // A query may contain a token and is never logged.
    let path = target.split(|byte| *byte == b'?').next();
    let mut text = String::new();
    for byte in path.unwrap_or_default() {
        if text.len() >= LONGEST {
            break;
        }
        if byte.is_ascii_graphic() && !matches!(byte, b'#' | b'<' | b'>' | b'`') {
            text.push(char::from(*byte));
        } else {
            text.push('%');
            for digit in [byte >> 4, byte & 0xf] {
                let digit = char::from_digit(digit.into(), 16).unwrap_or_default();
                text.push(digit.to_ascii_uppercase());
            }
        }
    }
    // An invalid host does not hide the path after it.
    let behind = text.split_once("://").map(|(_, rest)| rest);
    let behind = behind.and_then(|rest| Some(rest.get(rest.find('/')?..)?.to_owned()));
    Uri::from_maybe_shared(text)
        .or_else(|_| Uri::from_maybe_shared(behind.unwrap_or_default()))
        .unwrap_or_default()
}

/// Stores with a request the query that the client wrote.
pub(crate) fn mark<B>(request: &mut Request<B>, query: Bytes) {
    request.extensions_mut().insert(Verbatim(query));
}

/// The query of a request as the client wrote it, if that of its `Uri` is escaped. Everything but the app uses the
/// escaped one, which is equivalent.
pub(crate) fn verbatim_query<B>(request: &Request<B>) -> Option<&str> {
    let Verbatim(query) = request.extensions().get()?;
    std::str::from_utf8(query).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(target: &str, uri: &str, query: Option<&str>) {
        let bytes = Bytes::copy_from_slice(target.as_bytes());
        let (seen, verbatim) = read(&bytes, 0..bytes.len()).unwrap();
        let mut request = Request::new(());
        *request.uri_mut() = seen;
        if let Some(verbatim) = verbatim {
            mark(&mut request, verbatim);
        }
        assert_eq!(request.uri().to_string(), uri);
        assert_eq!(verbatim_query(&request), query, "{target}");
    }

    #[test]
    fn a_query_is_kept_as_it_was_written() {
        check("/a?b=c", "/a?b=c", None);
        check("/a", "/a", None);
        check("/a?{|}^`", "/a?{|}^`", None);
        check("/?q={\"a\":1}", "/?q={%22a%22:1}", Some("q={\"a\":1}"));
        check("/?<b>?%3C", "/?%3Cb%3E?%3C", Some("<b>?%3C"));
        let all = "!\"$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
        let escaped = all
            .replace('"', "%22")
            .replace('<', "%3C")
            .replace('>', "%3E");
        check(&format!("/?{all}"), &format!("/?{escaped}"), Some(all));
        check("http://a.test?\"", "http://a.test/?%22", Some("\""));
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for target in [
            "",
            "a b",
            "/a?b c",
            "/#a",
            "/?a#b",
            "/?a\u{7f}",
            "/?a\tb",
            "/é",
            "/?é",
            "/<",
            "/a>?b",
            "/`",
            "/<?\"",
            "foo/bar?\"",
        ] {
            let bytes = Bytes::copy_from_slice(target.as_bytes());
            let seen = is_plain(&bytes).then(|| read(&bytes, 0..bytes.len()));
            assert!(!matches!(seen, Some(Ok(_))), "{target:?}");
        }
    }

    #[test]
    fn what_is_refused_can_be_written_down() {
        let path = |target: &str, most| legible(target.as_bytes(), most).path().to_owned();
        for (target, expected) in [
            ("/a b", "/a%20b"),
            ("/a#b?c", "/a%23b"),
            ("/a?b#c", "/a"),
            ("/\u{1}é%2f", "/%01%C3%A9%2f"),
            ("*", "*"),
            ("http://a.test?b", "/"),
            ("http://a<b/c d", "/c%20d"),
            // These have no path.
            ("", "/"),
            ("a/b", "/"),
            ("a\"://", "/"),
        ] {
            assert_eq!(path(target, 100), expected, "{target}");
        }
        assert_eq!(path("/abc", 3), "/ab");
        let longest = path(&format!("/{}", "\u{1}".repeat(100_000)), usize::MAX);
        assert!(longest.len() > 65_000 && longest.ends_with("%01"));
    }
}
