//! `RequestPath`: the path of a request, and every way in which an app may read it.
//!
//! Apps differ: one resolves dot segments or merges slashes, another treats an escaped slash or a backslash as a slash,
//! a third strips path parameters. The app gets the client's own bytes, so the gateway's decision must hold for every
//! reading. All readings are computed here; `route` decides whether they lead to the same route.

use std::fmt;

use http::uri::PathAndQuery;
use smallvec::SmallVec;

use crate::message::alphabet::Alphabet;
use crate::message::reject::Reject;

/// The path of a request (RFC 3986 section 3.3), as the client wrote it, and its readings.
///
/// The resolved reading names files and fills parameters: its escapes are decoded once, its dot segments are resolved,
/// its empty segments are merged, and an escaped slash stays inside its segment. Most paths have no other reading.
#[derive(Clone, Debug)]
pub(crate) struct RequestPath {
    target: PathAndQuery,
    /// `None` where the path needs no decoding or resolving.
    read: Option<Box<Read>>,
}

/// The resolved reading of a path that differs from its written form or is ambiguous.
#[derive(Clone, Debug)]
struct Read {
    /// The segments, each preceded by the byte `between`.
    decoded: Vec<u8>,
    between: u8,
    doubts: Doubts,
}

/// What makes a path ambiguous, as bits.
type Doubts = u8;

/// A backslash, which some apps treat as a slash.
const BACKSLASH: Doubts = 1;
/// An escaped backslash.
const ESCAPED_BACKSLASH: Doubts = 2;
/// An escaped slash.
const ESCAPED_SLASH: Doubts = 4;
/// Whatever some apps treat as a slash.
const SLASHES: Doubts = BACKSLASH | ESCAPED_BACKSLASH | ESCAPED_SLASH;
/// A path parameter: what follows `;` in a segment.
const PARAMETERS: Doubts = 8;
/// A dot segment, or an empty segment that is not the last.
const UNEVEN: Doubts = 16;

/// Separates segments that may contain a slash: no path contains NUL.
const NUL: u8 = 0;

/// One way to read a path: its segments, decoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Reading<'p> {
    bytes: &'p [u8],
    between: u8,
}

impl<'p> Reading<'p> {
    /// A reading of segments with NUL between them.
    pub(crate) fn of_segments(bytes: &'p [u8]) -> Self {
        Self {
            bytes,
            between: NUL,
        }
    }

    /// The first segment, and the rest; `None` after the last one.
    pub(crate) fn split(self) -> (&'p [u8], Option<Self>) {
        let Self { bytes, between } = self;
        match memchr::memchr(between, bytes) {
            None => (bytes, None),
            Some(at) => {
                let (first, rest) = bytes.split_at_checked(at).unwrap_or_default();
                let bytes = rest.get(1..).unwrap_or_default();
                (first, Some(Self { bytes, between }))
            }
        }
    }

    /// The segments: `/a/b` has `a` and `b`, `/a/` has `a` and an empty one.
    pub(crate) fn segments(self) -> impl Iterator<Item = &'p [u8]> {
        let mut rest = Some(self);
        std::iter::from_fn(move || {
            let (first, behind) = rest?.split();
            rest = behind;
            Some(first)
        })
    }
}

impl fmt::Display for Reading<'_> {
    /// A path with this reading: characters that are not literal in a segment are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for segment in self.segments() {
            text.push('/');
            encode(segment, &mut text);
        }
        f.write_str(&text)
    }
}

/// A reading other than the resolved one.
#[derive(Clone, Debug)]
pub(crate) struct Other {
    /// How the path was read.
    pub(crate) how: How,
    segments: Vec<u8>,
}

impl Other {
    /// The reading itself.
    pub(crate) fn reading(&self) -> Reading<'_> {
        Reading {
            bytes: &self.segments,
            between: NUL,
        }
    }
}

/// How a path is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct How {
    /// What counts as a slash besides the slash.
    slashes: Doubts,
    /// Whether path parameters are stripped, and which of `slashes` end them.
    parameters: Option<Doubts>,
    /// Whether empty segments are merged.
    merges: bool,
    /// Whether dot segments are resolved.
    resolves: bool,
}

impl How {
    /// Every way to split a path with these doubts into segments, the resolved one first. Each stands for all
    /// treatments of dot segments and empty segments.
    fn cuts(doubts: Doubts) -> impl Iterator<Item = (Doubts, Option<Doubts>)> {
        let hidden = doubts & SLASHES;
        let has_parameters = doubts & PARAMETERS != 0;
        let sets = (0..=SLASHES).filter(move |set| set & !hidden == 0);
        sets.flat_map(move |slashes| {
            let bare = has_parameters.then_some((slashes, Some(slashes)));
            // Apps that strip parameters before decoding see no other slash.
            let early = (has_parameters && slashes != 0).then_some((slashes, Some(0)));
            [Some((slashes, None)), bare, early].into_iter().flatten()
        })
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: SmallVec<[&str; 5]> = SmallVec::new();
        if self.slashes & ESCAPED_SLASH != 0 {
            words.push("%2F as a slash");
        }
        if self.slashes & ESCAPED_BACKSLASH != 0 {
            words.push("%5C as a slash");
        }
        if self.slashes & BACKSLASH != 0 {
            words.push("\\ as a slash");
        }
        if self.parameters.is_some() {
            words.push("without ; parameters");
        }
        words.push(match (self.merges, self.resolves) {
            (true, true) => "resolved",
            (false, true) => "dot segments resolved",
            (true, false) => "slashes merged",
            (false, false) => "as written",
        });
        f.write_str(&words.join(", "))
    }
}

impl RequestPath {
    /// Parses the path of a request target.
    ///
    /// # Errors
    /// `BadPath` where an escape is invalid or stands for NUL, or where the path climbs above the root in any reading.
    pub(crate) fn parse(target: &PathAndQuery) -> Result<Self, Reject> {
        let read = if is_plain(target.path().as_bytes()) {
            None
        } else {
            Some(Read::of(target.path())?)
        };
        Ok(Self {
            target: target.clone(),
            read,
        })
    }

    /// The path as the client wrote it.
    pub(crate) fn written(&self) -> &str {
        self.target.path()
    }

    /// What the client wrote after the first `count` segments, with its leading slash; empty where nothing follows.
    ///
    /// A route's pattern matches the path segment by segment as written, since that is one of the readings that lead to
    /// the route.
    pub(crate) fn written_from(&self, count: usize) -> &str {
        let path = self.written();
        let slash = memchr::memchr_iter(b'/', path.as_bytes()).nth(count);
        slash.and_then(|at| path.get(at..)).unwrap_or_default()
    }

    /// The same without its leading slash.
    pub(crate) fn written_after(&self, count: usize) -> &str {
        self.written_from(count).get(1..).unwrap_or_default()
    }

    /// Whether there is only the resolved reading.
    pub(crate) fn has_one_reading(&self) -> bool {
        self.read.as_ref().is_none_or(|read| read.doubts == 0)
    }

    /// The resolved reading.
    pub(crate) fn resolved(&self) -> Reading<'_> {
        let (bytes, between) = self.decoded();
        Reading {
            bytes: bytes.get(1..).unwrap_or_default(),
            between,
        }
    }

    /// All other readings, possibly with duplicates. They are built one by one: a target may have dozens, and is long.
    pub(crate) fn others(&self) -> impl Iterator<Item = Other> {
        let doubts = self.read.as_ref().map_or(0, |read| read.doubts);
        let all = (doubts != 0).then(|| others(self.written(), doubts));
        // `parse` already refused paths with an unreadable reading.
        all.into_iter().flatten().filter_map(Result::ok)
    }

    /// Whether the part after the first `count` segments, as written, stays below them in every reading, so that it is
    /// safe to append to another path.
    pub(crate) fn stays_below(&self, count: usize) -> bool {
        let rest = self.written_from(count);
        self.has_one_reading() || rest.is_empty() || Read::of(rest).is_ok()
    }

    /// The path of a file: the resolved reading, as text.
    ///
    /// # Errors
    /// `BadPath` where a segment contains a slash or a backslash, or the path is not UTF-8 (overlong forms are not).
    pub(crate) fn file(&self) -> Result<&str, Reject> {
        match &self.read {
            Some(read) if read.doubts & SLASHES != 0 => Err(Reject::BadPath),
            Some(read) => std::str::from_utf8(&read.decoded).map_err(|_| Reject::BadPath),
            None => Ok(self.written()),
        }
    }

    /// The path of a file after the first `count` segments, without a leading slash.
    ///
    /// # Errors
    /// As [`Self::file`].
    pub(crate) fn file_after(&self, count: usize) -> Result<&str, Reject> {
        let file = self.file()?;
        let slash = memchr::memchr_iter(b'/', file.as_bytes()).nth(count);
        let rest = slash.and_then(|at| file.get(at + 1..));
        Ok(rest.unwrap_or_default())
    }

    /// The decoded segments of the resolved reading, and the byte before each.
    fn decoded(&self) -> (&[u8], u8) {
        match &self.read {
            Some(read) => (&read.decoded, read.between),
            None => (self.written().as_bytes(), b'/'),
        }
    }
}

impl Read {
    fn of(raw: &str) -> Result<Box<Self>, Reject> {
        let mut doubts = 0;
        for piece in Pieces::of(raw)? {
            doubts |= match piece? {
                Piece::Slash | Piece::Byte(_) => 0,
                Piece::Hidden(kind) => kind,
                Piece::Semicolon => PARAMETERS,
            };
        }
        let cut = cut(raw, 0, None)?;
        let uneven = !is_even(&cut);
        if uneven {
            doubts |= UNEVEN;
        }
        let between = if doubts & SLASHES == 0 { b'/' } else { NUL };
        let mut decoded = vec![between];
        if uneven {
            decoded.extend(normalised(&cut, true, true)?);
        } else {
            decoded.extend(cut);
        }
        if between != NUL {
            for byte in decoded.iter_mut().filter(|byte| **byte == NUL) {
                *byte = between;
            }
        }
        if doubts != 0 {
            for other in others(raw, doubts) {
                drop(other?);
            }
        }
        Ok(Box::new(Self {
            decoded,
            between,
            doubts,
        }))
    }
}

/// All readings of a path with these doubts, except the resolved one.
fn others(raw: &str, doubts: Doubts) -> impl Iterator<Item = Result<Other, Reject>> {
    let groups = How::cuts(doubts).map(move |(slashes, parameters)| {
        const WAYS: [(bool, bool); 4] =
            [(true, true), (false, false), (true, false), (false, true)];
        let cut = match cut(raw, slashes, parameters) {
            Ok(cut) => cut,
            Err(reject) => return SmallVec::from_iter([Err(reject)]),
        };
        let ways = WAYS
            .into_iter()
            .take(if is_even(&cut) { 1 } else { WAYS.len() });
        let is_resolved = (slashes, parameters) == (0, None);
        let all: SmallVec<[_; 4]> = ways
            .skip(usize::from(is_resolved))
            .map(|(merges, resolves)| {
                let segments = normalised(&cut, merges, resolves)?;
                let how = How {
                    slashes,
                    parameters,
                    merges,
                    resolves,
                };
                Ok(Other { how, segments })
            })
            .collect();
        all
    });
    groups.flatten()
}

/// A path's decoded segments, separated by NUL: `slashes` count as slashes too, and `parameters`, where they are
/// stripped, end at one of these.
fn cut(raw: &str, slashes: Doubts, parameters: Option<Doubts>) -> Result<Vec<u8>, Reject> {
    let mut segments = Vec::with_capacity(raw.len());
    let mut skips = false;
    for piece in Pieces::of(raw)? {
        match piece? {
            Piece::Slash => {
                skips = false;
                segments.push(NUL);
            }
            Piece::Hidden(kind) if parameters.is_some_and(|ends| skips && kind & ends != 0) => {
                skips = false;
                segments.push(NUL);
            }
            Piece::Semicolon if parameters.is_some() => skips = true,
            _ if skips => {}
            Piece::Hidden(kind) if kind & slashes != 0 => segments.push(NUL),
            Piece::Hidden(ESCAPED_SLASH) => segments.push(b'/'),
            Piece::Hidden(_) => segments.push(b'\\'),
            Piece::Semicolon => segments.push(b';'),
            Piece::Byte(byte) => segments.push(byte),
        }
    }
    Ok(segments)
}

/// Whether there is no dot segment, and no empty segment but the last.
fn is_even(cut: &[u8]) -> bool {
    let mut segments = cut.split(|byte| *byte == NUL);
    let last = segments.next_back().unwrap_or_default();
    !matches!(last, b"." | b"..") && !segments.any(|segment| matches!(segment, b"" | b"." | b".."))
}

/// The segments with empty ones merged, dot segments resolved (RFC 3986 section 5.2.4), or both.
fn normalised(cut: &[u8], merges: bool, resolves: bool) -> Result<Vec<u8>, Reject> {
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut directory = false;
    for segment in cut.split(|byte| *byte == NUL) {
        directory = match segment {
            b"" if merges => true,
            b"." if resolves => true,
            b".." if resolves => {
                kept.pop().ok_or(Reject::BadPath)?;
                true
            }
            _ => {
                kept.push(segment);
                false
            }
        };
    }
    if directory || kept.is_empty() {
        kept.push(b"");
    }
    Ok(kept.join(&NUL))
}

/// A part of a path.
enum Piece {
    Slash,
    /// What some apps treat as a slash.
    Hidden(Doubts),
    Semicolon,
    /// Any other byte, decoded.
    Byte(u8),
}

/// The parts of a path after its first slash. Escapes are decoded once: `%252F` is not a slash.
struct Pieces<'p>(std::slice::Iter<'p, u8>);

impl<'p> Pieces<'p> {
    fn of(raw: &'p str) -> Result<Self, Reject> {
        let rest = raw.strip_prefix('/').ok_or(Reject::BadPath)?;
        Ok(Self(rest.as_bytes().iter()))
    }

    fn escaped(&mut self) -> Result<Piece, Reject> {
        let mut digit = || self.0.next().and_then(|byte| hex_digit(*byte));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(Reject::BadPath);
        };
        match high << 4 | low {
            NUL => Err(Reject::BadPath),
            b'/' => Ok(Piece::Hidden(ESCAPED_SLASH)),
            b'\\' => Ok(Piece::Hidden(ESCAPED_BACKSLASH)),
            byte => Ok(Piece::Byte(byte)),
        }
    }
}

impl Iterator for Pieces<'_> {
    type Item = Result<Piece, Reject>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(match *self.0.next()? {
            b'/' => Ok(Piece::Slash),
            b'\\' => Ok(Piece::Hidden(BACKSLASH)),
            b';' => Ok(Piece::Semicolon),
            b'%' => self.escaped(),
            NUL => Err(Reject::BadPath),
            byte => Ok(Piece::Byte(byte)),
        })
    }
}

/// Whether the path has one reading, which is its written form.
fn is_plain(path: &[u8]) -> bool {
    if path.first() != Some(&b'/') {
        return false;
    }
    let mut previous = 0;
    for byte in path {
        let plain = match byte {
            // An empty segment, or one that may be a dot segment, takes the slow path.
            b'/' => previous != b'/',
            b'.' => previous != b'/',
            other => PLAIN.has(*other),
        };
        if !plain {
            return false;
        }
        previous = *byte;
    }
    true
}

/// `pchar` of RFC 3986 without escapes and without `;`, which starts path parameters.
static PLAIN: Alphabet = Alphabet::alphanumeric_and(b"-._~!$&'()*+,=:@");

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
        // A literal `;` is escaped, or it would start a parameter.
        if PLAIN.has(*byte) {
            text.push(char::from(*byte));
        } else {
            text.push('%');
            text.extend(HEX.get(usize::from(byte >> 4)));
            text.extend(HEX.get(usize::from(byte & 15)));
        }
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod apps;

/// Invariants of every request target: it is forwarded as written, the resolved reading is at or below the root, and
/// every app's reading is among the readings.
#[cfg(any(test, fuzzing))]
#[track_caller]
pub(crate) fn holds(target: &[u8]) {
    let Ok(target) = PathAndQuery::try_from(target) else {
        return;
    };
    let Ok(path) = RequestPath::parse(&target) else {
        return;
    };
    let text = path.written();
    assert_eq!(text, target.path());
    let resolved: Vec<&[u8]> = path.resolved().segments().collect();
    for (at, segment) in resolved.iter().enumerate() {
        assert!(!matches!(*segment, b"." | b".."), "{text}");
        assert!(!segment.is_empty() || at + 1 == resolved.len(), "{text}");
        assert!(!segment.contains(&NUL), "{text}");
    }
    let again = path.resolved().to_string().parse().ok();
    let again = again.and_then(|again| RequestPath::parse(&again).ok());
    let same = |again: RequestPath| again.resolved().segments().eq(path.resolved().segments());
    assert!(again.is_some_and(same), "{text}");

    let others: Vec<Other> = path.others().collect();
    assert!(others.is_empty() || !path.has_one_reading(), "{text}");
    for (app, read) in apps::APPS {
        let read = read(text.as_bytes());
        assert!(read.is_some(), "{text} is above the root for {app}");
        let read = read.unwrap_or_default();
        let mut readings = others.iter().map(Other::reading).chain([path.resolved()]);
        let is_one = readings.any(|reading| reading.segments().eq(read.iter().map(Vec::as_slice)));
        assert!(is_one, "{text} for {app}: {read:?}");
    }

    if let Ok(file) = path.file() {
        assert_eq!(
            file.as_bytes().get(1..),
            Some(&*resolved.join(&b'/')),
            "{text}"
        );
        assert!(!file.contains('\\'), "{text}");
        for count in 0..=resolved.len() {
            let rest = resolved.get(count..).unwrap_or_default().join(&b'/');
            assert_eq!(
                path.file_after(count).map(str::as_bytes),
                Ok(&*rest),
                "{text}"
            );
        }
    }
    let written: Vec<&str> = text.split('/').skip(1).collect();
    for count in 0..=written.len() {
        let rest = written.get(count..).unwrap_or_default().join("/");
        assert_eq!(path.written_after(count), rest, "{text} after {count}");
    }
}

#[cfg(test)]
mod tests;
