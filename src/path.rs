//! `RequestPath`: the path of one request, decoded and normalised exactly once.
//!
//! Routing, authorisation, file lookup and the forwarded target all take this type, never the
//! raw text, so they cannot disagree about which resource a request names. What routes do with
//! it is not decided here.

use http::uri::PathAndQuery;

use crate::alphabet::Alphabet;
use crate::reject::Reject;

/// The path of one request (RFC 3986 section 3.3), decoded once.
///
/// It starts with `/`; no segment is `.` or `..`, none but the last is empty, and none holds a
/// slash, a backslash or NUL. A path that could be read in two ways is refused, not repaired.
#[derive(Clone, Debug)]
pub(crate) struct RequestPath {
    text: Text,
    /// The decoded bytes, where they differ from the text.
    decoded: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
enum Text {
    /// The client's own spelling is the canonical one.
    Raw(PathAndQuery),
    /// The path written anew.
    Built(String),
}

impl RequestPath {
    /// Parses the path of a request target.
    ///
    /// # Errors
    /// `BadPath` where an escape is invalid, a segment hides a slash, a backslash or NUL, or the
    /// path climbs above the root.
    pub(crate) fn parse(target: &PathAndQuery) -> Result<Self, Reject> {
        let raw = target.path();
        if is_canonical(raw.as_bytes()) {
            return Ok(Self {
                text: Text::Raw(target.clone()),
                decoded: None,
            });
        }
        let rest = raw.strip_prefix('/').ok_or(Reject::BadPath)?;
        let mut segments: Vec<Vec<u8>> = Vec::new();
        let mut directory = false;
        for segment in rest.split('/') {
            let segment = decode(segment)?;
            directory = true;
            match segment.as_slice() {
                b"" | b"." => {}
                b".." => {
                    segments.pop().ok_or(Reject::BadPath)?;
                }
                _ => {
                    segments.push(segment);
                    directory = false;
                }
            }
        }
        let mut text = String::with_capacity(raw.len());
        let mut decoded = Vec::with_capacity(raw.len());
        for segment in &segments {
            text.push('/');
            decoded.push(b'/');
            encode(segment, &mut text);
            decoded.extend_from_slice(segment);
        }
        if directory || segments.is_empty() {
            text.push('/');
            decoded.push(b'/');
        }
        let decoded = (decoded != text.as_bytes()).then_some(decoded);
        Ok(Self {
            text: Text::Built(text),
            decoded,
        })
    }

    /// The path as it is forwarded: percent-encoded, canonical, always of this one spelling.
    pub(crate) fn as_str(&self) -> &str {
        match &self.text {
            Text::Raw(target) => target.path(),
            Text::Built(text) => text,
        }
    }

    /// The decoded path; not always UTF-8.
    pub(crate) fn decoded(&self) -> &[u8] {
        self.decoded
            .as_deref()
            .unwrap_or_else(|| self.as_str().as_bytes())
    }

    /// The decoded path as text; `None` where it is not UTF-8.
    pub(crate) fn decoded_text(&self) -> Option<&str> {
        match &self.decoded {
            Some(decoded) => std::str::from_utf8(decoded).ok(),
            None => Some(self.as_str()),
        }
    }

    /// Whether the client spelled the path canonically.
    pub(crate) fn is_verbatim(&self) -> bool {
        matches!(self.text, Text::Raw(_))
    }

    /// The decoded segments: `/a/b` has `a` and `b`, `/a/` has `a` and an empty one.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &[u8]> {
        self.decoded()
            .get(1..)
            .unwrap_or_default()
            .split(|byte| *byte == b'/')
    }

    /// The canonical text after its first `count` segments, without a leading slash.
    pub(crate) fn text_after(&self, count: usize) -> &str {
        after(self.as_str().as_bytes(), count)
            .and_then(|at| self.as_str().get(at..))
            .unwrap_or_default()
    }

    /// The decoded text after the first `count` segments, without a leading slash; `None` where the path is not UTF-8.
    pub(crate) fn decoded_text_after(&self, count: usize) -> Option<&str> {
        let decoded = self.decoded_text()?;
        after(decoded.as_bytes(), count).map_or(Some(""), |at| decoded.get(at..))
    }

    /// The decoded bytes after the first `count` segments, without a leading slash.
    pub(crate) fn decoded_after(&self, count: usize) -> &[u8] {
        let decoded = self.decoded();
        after(decoded, count)
            .and_then(|at| decoded.get(at..))
            .unwrap_or_default()
    }
}

/// Where the text after the first `count` segments begins.
fn after(path: &[u8], count: usize) -> Option<usize> {
    memchr::memchr_iter(b'/', path)
        .nth(count)
        .map(|slash| slash + 1)
}

/// Whether the path needs no decoding and no normalising.
fn is_canonical(path: &[u8]) -> bool {
    if path.first() != Some(&b'/') {
        return false;
    }
    let mut previous = 0;
    for byte in path {
        let plain = match byte {
            // An empty segment, or one that may be a dot segment, takes the long way.
            b'/' => previous != b'/',
            b'.' => previous != b'/',
            other => PATH.has(*other),
        };
        if !plain {
            return false;
        }
        previous = *byte;
    }
    true
}

/// `pchar` of RFC 3986 without the escapes.
static PATH: Alphabet = Alphabet::alphanumeric_and(b"-._~!$&'()*+,;=:@");

fn decode(segment: &str) -> Result<Vec<u8>, Reject> {
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        let byte = if byte == b'%' {
            let high = bytes.next().and_then(hex_digit).ok_or(Reject::BadPath)?;
            let low = bytes.next().and_then(hex_digit).ok_or(Reject::BadPath)?;
            high << 4 | low
        } else {
            byte
        };
        if matches!(byte, b'/' | b'\\' | 0) {
            return Err(Reject::BadPath);
        }
        decoded.push(byte);
    }
    Ok(decoded)
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

fn encode(segment: &[u8], text: &mut String) {
    const HEX: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    for byte in segment {
        if PATH.has(*byte) {
            text.push(char::from(*byte));
        } else {
            text.push('%');
            text.extend(HEX.get(usize::from(byte >> 4)));
            text.extend(HEX.get(usize::from(byte & 15)));
        }
    }
}

/// What holds for every request target: a path that is parsed names something at or below the root,
/// and its forwarded spelling, parsed again, is the same path, so that the app sees what was checked.
#[cfg(any(test, fuzzing))]
#[track_caller]
pub(crate) fn holds(target: &[u8]) {
    let Ok(target) = PathAndQuery::try_from(target) else {
        return;
    };
    let Ok(path) = RequestPath::parse(&target) else {
        return;
    };
    let text = path.as_str();
    let spelled = |byte: u8| PATH.has(byte) || matches!(byte, b'/' | b'%');
    assert!(text.starts_with('/') && text.bytes().all(spelled), "{text}");
    assert!(!path.is_verbatim() || text == target.path());
    let segments: Vec<&[u8]> = path.segments().collect();
    for (at, segment) in segments.iter().enumerate() {
        assert!(!matches!(*segment, b"." | b".."), "{text}");
        assert!(!segment.is_empty() || at + 1 == segments.len(), "{text}");
        assert!(!segment.contains(&b'\\') && !segment.contains(&0), "{text}");
    }
    let segment = |text: &str| decode(text).unwrap_or_default();
    let decoded: Vec<Vec<u8>> = text.split('/').skip(1).map(segment).collect();
    assert_eq!(decoded, segments, "{text}");
    let again = text.parse().ok();
    let again = again.and_then(|again| RequestPath::parse(&again).ok());
    let same = |again: RequestPath| again.as_str() == text && again.decoded() == path.decoded();
    assert!(again.is_some_and(same), "{text}");
    for count in 0..=segments.len() {
        let rest = segments.get(count..).unwrap_or_default().join(&b'/');
        assert_eq!(path.decoded_after(count), rest, "{text} after {count}");
        // Of a path that is not UTF-8 there is no text, not even of a part.
        let expected = path.decoded_text();
        let expected = expected.and_then(|_| std::str::from_utf8(&rest).ok());
        let seen = path.decoded_text_after(count);
        assert_eq!(seen, expected, "{text} after {count}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(raw: &str) -> Result<RequestPath, Reject> {
        RequestPath::parse(&raw.parse().map_err(|_| Reject::BadPath)?)
    }

    #[track_caller]
    fn check(raw: &str, expected: Result<(&str, &str), Reject>) {
        let parsed = parse(raw);
        let seen = parsed
            .as_ref()
            .map(|path| (path.as_str(), path.decoded_text().unwrap()));
        assert_eq!(seen, expected.as_ref().copied(), "path {raw:?}");
    }

    #[test]
    fn plain_paths_stay_as_they_are() {
        check("/", Ok(("/", "/")));
        check("/a/b", Ok(("/a/b", "/a/b")));
        check("/a/b/", Ok(("/a/b/", "/a/b/")));
        check("/a;v=1/b", Ok(("/a;v=1/b", "/a;v=1/b")));
        assert!(parse("/a/b.css?x=/../").unwrap().is_verbatim());
    }

    #[test]
    fn escapes_are_decoded_once() {
        check("/%61%2Db", Ok(("/a-b", "/a-b")));
        check("/a%20b", Ok(("/a%20b", "/a b")));
        check("/%252e%252e/x", Ok(("/%252e%252e/x", "/%2e%2e/x")));
        check("/caf%c3%A9", Ok(("/caf%C3%A9", "/café")));
        check("/a%3Fb%23", Ok(("/a%3Fb%23", "/a?b#")));
    }

    #[test]
    fn dot_segments_and_runs_of_slashes_are_resolved() {
        check("//admin", Ok(("/admin", "/admin")));
        check("/a//b///", Ok(("/a/b/", "/a/b/")));
        check("/a/./b/..", Ok(("/a/", "/a/")));
        check("/a/%2e%2e/b", Ok(("/b", "/b")));
        check("/..a/...", Ok(("/..a/...", "/..a/...")));
        check("/.hidden", Ok(("/.hidden", "/.hidden")));
    }

    #[test]
    fn climbing_above_the_root_is_refused() {
        check("/..", Err(Reject::BadPath));
        check("/a/../..", Err(Reject::BadPath));
        check("/a/%2e%2e/%2E%2e/etc/passwd", Err(Reject::BadPath));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for raw in [
            "/a%2fb", "/a%2Fb", "/a%5cb", "/a%00", "/a%", "/a%2", "/a%zz", "/a\\b",
        ] {
            check(raw, Err(Reject::BadPath));
        }
    }

    #[test]
    fn the_rest_is_what_follows_the_segments() {
        let path = parse("/assets/a%20b/c").unwrap();
        assert_eq!(path.text_after(1), "a%20b/c");
        assert_eq!(path.decoded_after(1), b"a b/c");
        assert_eq!(path.text_after(0), "assets/a%20b/c");
        assert_eq!(parse("/assets").unwrap().text_after(1), "");
        assert_eq!(parse("/assets/").unwrap().text_after(1), "");
    }

    proptest! {
        #[test]
        fn paths_hold(
            raw in "/(/|%2e|\\.|%2f|%5c|%|[a-c]|%00|;){0,24}",
            escaped in "/(/|%2e|\\.|%[2-7][0-9a-f]|[a-c]|%C3|;){0,24}",
        ) {
            holds(raw.as_bytes());
            holds(escaped.as_bytes());
        }
    }
}
