//! The `Range` field (RFC 9110 section 14): which bytes of a file are requested.
//!
//! Several ranges are served as several parts, unless a client could make work with them: then it gets the whole file,
//! which the RFC permits. How parts are sent is not decided here.

use smallvec::SmallVec;

/// A longer field is not read.
const LONGEST_FIELD: usize = 1024;
/// The most ranges of one field.
const MOST_RANGES: usize = 16;
/// Two ranges with fewer bytes between them are sent as one: a part has about as many bytes of its own.
const SHORTEST_GAP: u64 = 128;

/// The first and the last byte of a range; both are in the file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Part {
    /// The first byte.
    pub(super) first: u64,
    /// The last byte, never before the first.
    pub(super) last: u64,
}

impl Part {
    /// How many bytes the range has; at least one.
    pub(super) fn len(self) -> u64 {
        // A part is within a file, so this cannot overflow.
        self.last.saturating_sub(self.first).saturating_add(1)
    }
}

/// What a `Range` field requests.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Wanted {
    /// The whole file: the field is malformed, too long, or has an unknown unit or too many ranges.
    Whole,
    /// These bytes.
    Part(Part),
    /// Several parts, in the order in which the client named them. They are apart from each other.
    Parts(Vec<Part>),
    /// Bytes beyond the end of the file.
    Unsatisfiable,
}

/// Parses the value of a `Range` field for a file of `len` bytes.
pub(super) fn parse(value: &[u8], len: u64) -> Wanted {
    match ranges(value).as_deref() {
        None => Wanted::Whole,
        // No `Content-Range` can describe the last bytes of an empty file.
        Some(ranges) if len == 0 => {
            let any = ranges
                .iter()
                .any(|range| matches!(range, Written::Suffix(1..)));
            if any {
                Wanted::Whole
            } else {
                Wanted::Unsatisfiable
            }
        }
        Some(ranges) => {
            let inside: SmallVec<[Part; 2]> = (ranges.iter())
                .filter_map(|range| range.within(len))
                .collect();
            choose(&inside, len)
        }
    }
}

/// What is sent for ranges that are in the file.
fn choose(inside: &[Part], len: u64) -> Wanted {
    match inside {
        [] => return Wanted::Unsatisfiable,
        [part] => return Wanted::Part(*part),
        _ => {}
    }
    let parts = merged(inside);
    match parts.as_slice() {
        // Who names the file piece by piece gets it whole.
        [part] if part.len() == len => Wanted::Whole,
        [part] => Wanted::Part(*part),
        _ => Wanted::Parts(parts),
    }
}

/// Makes one of ranges that overlap or nearly touch. Each stands where the first of its ranges stood.
fn merged(ranges: &[Part]) -> Vec<Part> {
    let mut sorted: Vec<(usize, Part)> = ranges.iter().copied().enumerate().collect();
    // There are few.
    sorted.sort_by_key(|(_, part)| part.first);
    let mut merged: Vec<(usize, Part)> = Vec::with_capacity(sorted.len());
    for (at, part) in sorted {
        match merged.last_mut() {
            Some((place, before)) if part.first <= before.last.saturating_add(SHORTEST_GAP) => {
                before.last = before.last.max(part.last);
                *place = at.min(*place);
            }
            Some(_) | None => merged.push((at, part)),
        }
    }
    merged.sort_by_key(|(at, _)| *at);
    merged.into_iter().map(|(_, part)| part).collect()
}

/// One range as it was written (RFC 9110 section 14.1.1).
#[derive(Clone, Copy, Debug)]
enum Written {
    From(u64),
    Between(u64, u64),
    Suffix(u64),
}

impl Written {
    /// Its bytes in a file that is not empty; `None` if there are none.
    fn within(self, len: u64) -> Option<Part> {
        let end = len.checked_sub(1)?;
        let (first, last) = match self {
            Self::Suffix(0) => return None,
            Self::Suffix(count) => (len.saturating_sub(count), end),
            Self::From(first) => (first, end),
            Self::Between(first, last) => (first, last.min(end)),
        };
        (first <= end).then_some(Part { first, last })
    }

    fn parse(spec: &[u8]) -> Option<Self> {
        let dash = memchr::memchr(b'-', spec)?;
        let (first, last) = (spec.get(..dash)?, spec.get(dash + 1..)?);
        match (first.is_empty(), last.is_empty()) {
            (true, _) => Some(Self::Suffix(number(last)?)),
            (false, true) => Some(Self::From(number(first)?)),
            (false, false) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::Between(first, last))
            }
        }
    }
}

/// The ranges of a set in bytes; `None` if it is malformed, has none, or more than are served.
fn ranges(value: &[u8]) -> Option<SmallVec<[Written; 2]>> {
    if value.len() > LONGEST_FIELD {
        return None;
    }
    let (unit, set) = value.split_at_checked(memchr::memchr(b'=', value)?)?;
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    let mut ranges = SmallVec::new();
    for spec in set.get(1..)?.split(|byte| *byte == b',') {
        let spec = spec.trim_ascii();
        if spec.is_empty() {
            continue;
        }
        if ranges.len() == MOST_RANGES {
            return None;
        }
        ranges.push(Written::parse(spec)?);
    }
    (!ranges.is_empty()).then_some(ranges)
}

/// A run of digits. A number larger than any file saturates.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        Some(value.saturating_mul(10).saturating_add(digit))
    })
}

/// Checks everything that must hold of a field, for files of these lengths.
///
/// # Panics
/// It does not hold.
#[cfg(any(test, fuzzing))]
#[expect(clippy::panic, reason = "a property")]
pub(crate) fn range_holds(value: &[u8], len: u64) {
    let written = ranges(value);
    let inside = |at: u64| {
        let mut written = written.iter().flatten().filter_map(|it| it.within(len));
        written.any(|part| (part.first..=part.last).contains(&at))
    };
    let check = |part: Part| {
        assert!(part.first <= part.last && part.last < len, "{part:?}");
        assert!(part.len() > 0 && part.len() <= len, "{part:?}");
        // The ends of a part were asked for.
        assert!(inside(part.first) && inside(part.last), "{part:?}");
    };
    let parts = match parse(value, len) {
        Wanted::Whole => return,
        Wanted::Part(part) => vec![part],
        Wanted::Parts(parts) => {
            assert!((2..=MOST_RANGES).contains(&parts.len()));
            parts
        }
        Wanted::Unsatisfiable => vec![],
    };
    let Some(written) = &written else {
        panic!("nothing was asked for");
    };
    assert!(value.len() <= LONGEST_FIELD && written.len() <= MOST_RANGES);
    for (at, part) in parts.iter().enumerate() {
        check(*part);
        for other in parts.iter().skip(at + 1) {
            let (first, second) = match part.first < other.first {
                true => (part, other),
                false => (other, part),
            };
            assert!(second.first - first.last > SHORTEST_GAP, "{parts:?}");
        }
    }
    // All that was asked for is in some part, and the parts stand in the order of what they are made of.
    let mut seen = Vec::new();
    for asked in written.iter().filter_map(|it| it.within(len)) {
        let of = parts
            .iter()
            .position(|part| part.first <= asked.first && asked.last <= part.last);
        let Some(of) = of else {
            panic!("{asked:?} is in none of {parts:?}");
        };
        if !seen.contains(&of) {
            seen.push(of);
        }
    }
    assert!(seen.is_sorted() && seen.len() == parts.len(), "{seen:?}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "rows read better")]
    fn check(value: &str, len: u64, expected: Wanted) {
        assert_eq!(
            parse(value.as_bytes(), len),
            expected,
            "{value:?} of {len} bytes"
        );
    }

    fn part(first: u64, last: u64) -> Wanted {
        Wanted::Part(Part { first, last })
    }

    #[test]
    fn one_range_is_cut_to_the_file() {
        check("bytes=0-0", 10, part(0, 0));
        check("bytes=2-5", 10, part(2, 5));
        check("bytes=2-", 10, part(2, 9));
        check("bytes=-3", 10, part(7, 9));
        check("bytes=-99", 10, part(0, 9));
        check("bytes=9-99999999999999999999999999", 10, part(9, 9));
        check("Bytes= 1-2 ,", 10, part(1, 2));
    }

    #[test]
    fn a_range_behind_the_end_cannot_be_satisfied() {
        check("bytes=10-", 10, Wanted::Unsatisfiable);
        check("bytes=10-12", 10, Wanted::Unsatisfiable);
        check("bytes=-0", 10, Wanted::Unsatisfiable);
        check(
            "bytes=99999999999999999999999999-",
            10,
            Wanted::Unsatisfiable,
        );
        check(
            "bytes=18446744073709551615-",
            u64::MAX,
            Wanted::Unsatisfiable,
        );
        check("bytes=9-", 10, part(9, 9));
    }

    #[test]
    fn an_empty_file_has_no_ranges() {
        check("bytes=0-", 0, Wanted::Unsatisfiable);
        check("bytes=0-0", 0, Wanted::Unsatisfiable);
        check("bytes=-5", 0, Wanted::Whole);
        check("bytes=-0", 0, Wanted::Unsatisfiable);
    }

    #[test]
    fn whatever_else_is_the_whole_file() {
        for value in [
            "bytes=0-1,3-4,x",
            "bytes=0-1,5-2",
            "bytes=0-4,5-9",
            "bytes=0-,0-",
            "bytes=5-2",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=1-2-3",
            "bytes=+1-2",
            "bytes=0x1-2",
            "bytes 0-1",
            "lines=0-1",
            "",
            "=",
            "0-1",
            "bytes =0-1",
            "bytes=1 - 2",
            "bytes=--1",
        ] {
            check(value, 10, Wanted::Whole);
        }
    }

    fn parts(parts: &[(u64, u64)]) -> Wanted {
        let parts = parts.iter();
        Wanted::Parts(parts.map(|&(first, last)| Part { first, last }).collect())
    }

    #[test]
    fn several_ranges_keep_the_clients_order() {
        check("bytes=0-1,500-501", 1000, parts(&[(0, 1), (500, 501)]));
        check("bytes=500-501,0-1", 1000, parts(&[(500, 501), (0, 1)]));
        check("bytes=-1, 0-0 ,,", 1000, parts(&[(999, 999), (0, 0)]));
        check("bytes=0-0,500-,-1", 1000, parts(&[(0, 0), (500, 999)]));
    }

    #[test]
    fn ranges_that_overlap_or_nearly_touch_become_one() {
        check("bytes=0-9,5-14", 1000, part(0, 14));
        check("bytes=5-14,0-9", 1000, part(0, 14));
        check("bytes=0-9,10-19", 1000, part(0, 19));
        // 127 bytes lie between them, and 128.
        check("bytes=0-9,137-140", 1000, part(0, 140));
        check("bytes=0-9,138-140", 1000, parts(&[(0, 9), (138, 140)]));
        // The last one joins the other two.
        check("bytes=900-,0-99,50-950", 1000, Wanted::Whole);
        check("bytes=900-998,1-99,50-950", 1000, part(1, 998));
        check(
            "bytes=600-700,0-9,650-800",
            1000,
            parts(&[(600, 800), (0, 9)]),
        );
    }

    #[test]
    fn ranges_outside_the_file_are_dropped() {
        check("bytes=0-1,1000-,-0", 1000, part(0, 1));
        check("bytes=1000-,5000-6000,-0", 1000, Wanted::Unsatisfiable);
        check("bytes=0-1,2-3", 0, Wanted::Unsatisfiable);
        check("bytes=0-1,-3", 0, Wanted::Whole);
        // What is left is asked for by itself.
        check("bytes=0-,1000-", 1000, part(0, 999));
    }

    #[test]
    fn who_asks_for_too_much_gets_the_file() {
        let many = |count: u64| {
            let specs: Vec<_> = (0..count).map(|at| format!("{0}-{0}", at * 500)).collect();
            format!("bytes={}", specs.join(","))
        };
        let Wanted::Parts(parts) = parse(many(16).as_bytes(), 1_000_000) else {
            panic!("several parts");
        };
        assert_eq!(parts.len(), 16);
        check(&many(17), 1_000_000, Wanted::Whole);
        let long = format!("bytes=0-1,{}500-501", " ".repeat(1007));
        assert_eq!(long.len(), 1024);
        check(&long, 1000, self::parts(&[(0, 1), (500, 501)]));
        check(&format!("{long} "), 1000, Wanted::Whole);
        let empty = format!("bytes=0-1{}", ",".repeat(900));
        check(&empty, 1000, part(0, 1));
    }

    proptest! {
        /// Whatever the client sends, each served part is within the file and was asked for.
        #[test]
        fn parts_are_what_was_asked_for(
            value in "(bytes=|Bytes=|lines=)?([0-9]{0,21}|-|,| |\\PC){0,6}",
            len in prop_oneof![0_u64..30, any::<u64>()],
        ) {
            range_holds(value.as_bytes(), len);
        }

        /// The same of fields that are well-formed.
        #[test]
        fn parts_are_what_was_asked_for_by_many(
            value in "bytes=([0-9]{1,4}-[0-9]{0,4},|-[0-9]{1,3},){1,18}",
            len in 0_u64..9000,
        ) {
            range_holds(value.as_bytes(), len);
        }

        /// Any input gets a response.
        #[test]
        fn the_parser_is_total(value in any::<Vec<u8>>(), len in any::<u64>()) {
            range_holds(&value, len);
            range_holds(&[b"bytes=".as_slice(), &value].concat(), len);
        }

        /// A range within the file is served as requested.
        #[test]
        fn a_range_in_the_file_is_kept(first in 0_u64..1000, more in 0_u64..1000, rest in 1_u64..9) {
            let last = first + more;
            let value = format!("bytes={first}-{last}");
            prop_assert_eq!(parse(value.as_bytes(), last + rest), part(first, last));
        }
    }
}
