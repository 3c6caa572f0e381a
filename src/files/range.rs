//! The `Range` field (RFC 9110 section 14): which bytes of a file are requested.
//!
//! A single range is served. A request for several gets the whole file, which the RFC permits and which no client can
//! turn into work for the gateway.

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
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wanted {
    /// The whole file: the field is malformed, has several ranges, or an unknown unit.
    Whole,
    /// These bytes.
    Part(Part),
    /// Bytes beyond the end of the file.
    Unsatisfiable,
}

/// Parses the value of a `Range` field for a file of `len` bytes.
pub(super) fn parse(value: &[u8], len: u64) -> Wanted {
    one_range(value).map_or(Wanted::Whole, |range| range.within(len))
}

/// One range as it was written (RFC 9110 section 14.1.1).
enum Written {
    From(u64),
    Between(u64, u64),
    Suffix(u64),
}

impl Written {
    fn within(self, len: u64) -> Wanted {
        let Some(end) = len.checked_sub(1) else {
            // No `Content-Range` can describe the last bytes of an empty file.
            return match self {
                Self::Suffix(1..) => Wanted::Whole,
                Self::Suffix(0) | Self::From(_) | Self::Between(..) => Wanted::Unsatisfiable,
            };
        };
        let (first, last) = match self {
            Self::Suffix(0) => return Wanted::Unsatisfiable,
            Self::Suffix(count) => (len.saturating_sub(count), end),
            Self::From(first) => (first, end),
            Self::Between(first, last) => (first, last.min(end)),
        };
        if first > end {
            Wanted::Unsatisfiable
        } else {
            Wanted::Part(Part { first, last })
        }
    }
}

/// The only range of a set in bytes; `None` if there is not exactly one.
fn one_range(value: &[u8]) -> Option<Written> {
    let (unit, set) = value.split_at_checked(memchr::memchr(b'=', value)?)?;
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    let mut specs = set
        .get(1..)?
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|spec| !spec.is_empty());
    let spec = specs.next()?;
    if specs.next().is_some() {
        return None;
    }
    let dash = memchr::memchr(b'-', spec)?;
    let (first, last) = (spec.get(..dash)?, spec.get(dash + 1..)?);
    match (first.is_empty(), last.is_empty()) {
        (true, _) => Some(Written::Suffix(number(last)?)),
        (false, true) => Some(Written::From(number(first)?)),
        (false, false) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Written::Between(first, last))
        }
    }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
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
            "bytes=0-1,3-4",
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

    proptest! {
        /// Whatever the client sends, the served range is within the file.
        #[test]
        fn a_part_lies_in_the_file(
            value in "(bytes=|Bytes=|lines=)?([0-9]{0,21}|-|,| |\\PC){0,6}",
            len in prop_oneof![0_u64..30, any::<u64>()],
        ) {
            if let Wanted::Part(part) = parse(value.as_bytes(), len) {
                prop_assert!(part.first <= part.last);
                prop_assert!(part.last < len);
                prop_assert!(part.len() <= len && part.len() > 0);
            }
        }

        /// Any input gets a response.
        #[test]
        fn the_parser_is_total(value in any::<Vec<u8>>(), len in any::<u64>()) {
            parse(&value, len);
            parse(&[b"bytes=".as_slice(), &value].concat(), len);
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
