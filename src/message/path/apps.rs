//! How apps read a path, reimplemented as plainly as their own code: the readings of `RequestPath` must cover these.
//! For tests and fuzzing only; nothing is decided here.

/// One app's reading: its segments, decoded. `None` where the path climbs above the root.
pub(crate) type Read = Option<Vec<Vec<u8>>>;

/// An app: its name and its way of reading.
pub(crate) type App = (&'static str, fn(&[u8]) -> Read);

/// All apps. The target's escapes are valid, and none is NUL.
pub(crate) const APPS: [App; 8] = [
    ("verbatim: segments, each decoded", |raw| Some(pieces(raw))),
    ("WSGI: decoded, then cut", |raw| Some(cut(&decode(raw)))),
    ("nginx: decoded, then cleaned", |raw| {
        clean(&merge(&decode(raw)))
    }),
    ("Go: cut, then cleaned", |raw| {
        Some(pieces(&resolve(&merge(&dots(raw)))?))
    }),
    ("URL of WHATWG: backslashes are slashes", |raw| {
        Some(pieces(&resolve(&dots(&slashes(raw)))?))
    }),
    ("IIS: decoded, backslashes are slashes, cleaned", |raw| {
        clean(&merge(&slashes(&decode(raw))))
    }),
    ("Tomcat: without parameters, decoded, cleaned", |raw| {
        clean(&merge(&slashes(&decode(&bare(raw)))))
    }),
    ("Jetty: without parameters, dots resolved", |raw| {
        Some(pieces(&resolve(&dots(&bare(raw)))?))
    }),
];

/// Split into segments first, then decoded.
fn pieces(raw: &[u8]) -> Vec<Vec<u8>> {
    cut(raw).iter().map(|segment| decode(segment)).collect()
}

fn cut(path: &[u8]) -> Vec<Vec<u8>> {
    let behind = path.get(1..).unwrap_or_default();
    behind
        .split(|byte| *byte == b'/')
        .map(<[u8]>::to_vec)
        .collect()
}

fn clean(decoded: &[u8]) -> Read {
    Some(cut(&resolve(decoded)?))
}

/// Decodes every escape once.
fn decode(raw: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut rest = raw;
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind
            .get(..2)
            .and_then(|two| std::str::from_utf8(two).ok());
        let byte = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        (rest, _) = match (first, byte) {
            (b'%', Some(byte)) => (behind.get(2..).unwrap_or_default(), decoded.push(byte)),
            (first, _) => (behind, decoded.push(*first)),
        };
    }
    decoded
}

/// Decodes only escaped dots.
fn dots(raw: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(raw);
    text.replace("%2e", ".").replace("%2E", ".").into_bytes()
}

fn slashes(path: &[u8]) -> Vec<u8> {
    let slash = |byte: &u8| if *byte == b'\\' { b'/' } else { *byte };
    path.iter().map(slash).collect()
}

fn bare(raw: &[u8]) -> Vec<u8> {
    let bare = |segment: &[u8]| {
        segment
            .split(|byte| *byte == b';')
            .next()
            .map(<[u8]>::to_vec)
    };
    let segments: Vec<_> = raw.split(|byte| *byte == b'/').filter_map(bare).collect();
    segments.join(&b'/')
}

fn merge(path: &[u8]) -> Vec<u8> {
    let mut merged: Vec<u8> = Vec::new();
    for byte in path {
        if *byte != b'/' || merged.last() != Some(&b'/') {
            merged.push(*byte);
        }
    }
    merged
}

/// RFC 3986 section 5.2.4, except that a path above the root is invalid.
fn resolve(path: &[u8]) -> Option<Vec<u8>> {
    let mut output: Vec<u8> = Vec::new();
    let mut input = path.to_vec();
    while !input.is_empty() {
        if input.starts_with(b"/./") {
            input.drain(..2);
        } else if input == b"/." {
            input.pop();
        } else if input.starts_with(b"/../") || input == b"/.." {
            let last = output.iter().rposition(|byte| *byte == b'/')?;
            output.truncate(last);
            input.drain(..3);
            if input.is_empty() {
                input.push(b'/');
            }
        } else {
            let behind = input.get(1..).unwrap_or_default();
            let end = behind.iter().position(|byte| *byte == b'/');
            output.extend(input.drain(..end.map_or(input.len(), |at| at + 1)));
        }
    }
    Some(output)
}
