//! Preconditions (RFC 9110 section 13): whether a file is sent, is unchanged, or is not the expected one.
//!
//! A malformed list of entity tags matches nothing: the safe response to `If-None-Match` is then the file, and to
//! `If-Match` 412.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::header_value;
use crate::message::accept::Coding;
use crate::message::reject::Reject;

/// The first second of the year 10000, which no HTTP date can represent.
const END_OF_DATES: u64 = 253_402_300_800;

/// Identifies a version of a file (RFC 9110 section 8.8).
#[derive(Clone, Debug)]
pub(super) struct Validators {
    /// A strong entity tag.
    pub(super) etag: HeaderValue,
    /// When the file was modified, in seconds since 1970; `None` if no HTTP date can represent it.
    modified: Option<u64>,
    /// The same as a date.
    date: Option<HeaderValue>,
}

/// The result of a request's preconditions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// The file is sent.
    Send,
    /// The client has this version already: 304.
    NotModified,
    /// The file is not the one that the client expects: 412.
    Failed,
}

impl Validators {
    /// The validators of an open file, which is a form in this coding of another one.
    pub(super) fn of(meta: &Metadata, coding: Option<Coding>) -> Result<Self, Reject> {
        // With nanoseconds, so that a file that was written twice in a second differs, too.
        let nanos = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        // No inode: copies on other machines have different inodes.
        let size = meta.size();
        // Two forms never share a tag, not even of equal sizes and times.
        let etag = match coding {
            None => header_value(format_args!("\"{size:x}-{nanos:x}\"")),
            Some(coding) => header_value(format_args!("\"{size:x}-{nanos:x}-{}\"", coding.name())),
        };
        let modified = u64::try_from(meta.mtime())
            .ok()
            .filter(|at| *at < END_OF_DATES);
        Ok(Self {
            etag: etag?,
            date: modified.map(http_date).transpose()?,
            modified,
        })
    }

    /// The validators of the same version, compressed to this length: it is in the tag, because another release of an
    /// encoder makes other bytes of the same file.
    pub(super) fn compressed(&self, coding: Coding, len: u64) -> Result<Self, Reject> {
        let tag = self.etag.to_str().map_err(|_| Reject::Internal)?;
        let opaque = tag.strip_suffix('"').unwrap_or(tag);
        Ok(Self {
            etag: header_value(format_args!("{opaque}-{}.{len:x}\"", coding.name()))?,
            ..self.clone()
        })
    }

    /// The value of `Last-Modified`, never later than now (RFC 9110 section 8.8.2.1).
    pub(super) fn last_modified(&self, now: SystemTime) -> Result<Option<HeaderValue>, Reject> {
        match self.modified {
            Some(modified) if modified > seconds(now) => http_date(seconds(now)).map(Some),
            Some(_) | None => Ok(self.date.clone()),
        }
    }

    /// Evaluates all preconditions but `If-Range`, in the order of RFC 9110 section 13.2.2.
    ///
    /// For GET and HEAD of a file that exists.
    pub(super) fn evaluate(&self, headers: &HeaderMap) -> Verdict {
        // Few requests have one; comparing names costs less than looking them up.
        if !headers.keys().any(is_precondition) {
            return Verdict::Send;
        }
        let expected = match self.listed(headers, &header::IF_MATCH, Compare::Strong) {
            Some(listed) => listed,
            None => self
                .modified_after(headers, &header::IF_UNMODIFIED_SINCE)
                .is_none_or(|modified| !modified),
        };
        if !expected {
            return Verdict::Failed;
        }
        let kept = match self.listed(headers, &header::IF_NONE_MATCH, Compare::Weak) {
            Some(listed) => listed,
            None => self
                .modified_after(headers, &header::IF_MODIFIED_SINCE)
                .is_some_and(|modified| !modified),
        };
        if kept {
            Verdict::NotModified
        } else {
            Verdict::Send
        }
    }

    /// Whether `If-Range` allows a range to be served (RFC 9110 section 13.1.5).
    ///
    /// A date is valid only if it is exactly the file's and its second is over: within that second the file may have
    /// changed twice.
    pub(super) fn range_may_be_served(&self, headers: &HeaderMap, now: SystemTime) -> bool {
        if !headers.contains_key(header::IF_RANGE) {
            return true;
        }
        let Some(value) = single(headers, &header::IF_RANGE) else {
            return false;
        };
        let value = value.as_bytes().trim_ascii();
        if value == self.etag.as_bytes() {
            return true;
        }
        let date = date(value);
        date.is_some() && date == self.modified && date.is_some_and(|date| date < seconds(now))
    }

    /// Whether a field lists the file's tag, or is `*`; `None` without the field.
    fn listed(&self, headers: &HeaderMap, name: &HeaderName, compare: Compare) -> Option<bool> {
        let mut lines = headers.get_all(name).iter().peekable();
        lines.peek()?;
        if let Some(value) = single(headers, name)
            && value.as_bytes().trim_ascii() == b"*"
        {
            return Some(true);
        }
        let mut listed = false;
        for line in lines {
            match lists(line.as_bytes(), self.etag.as_bytes(), compare) {
                Some(found) => listed |= found,
                None => return Some(false),
            }
        }
        Some(listed)
    }

    /// Whether the file was modified after the date of a field; `None` without exactly one valid date, or if the file
    /// has no date, so that the field is ignored.
    fn modified_after(&self, headers: &HeaderMap, name: &HeaderName) -> Option<bool> {
        let date = date(single(headers, name)?.as_bytes())?;
        Some(self.modified? > date)
    }
}

/// How entity tags are compared (RFC 9110 section 8.8.3.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Compare {
    /// A weak tag matches nothing.
    Strong,
    /// Weakness is ignored.
    Weak,
}

/// Whether a list of entity tags contains the tag, which is strong and quoted; `None` if the list is malformed.
fn lists(list: &[u8], etag: &[u8], compare: Compare) -> Option<bool> {
    let mut listed = false;
    let mut rest = list.trim_ascii();
    loop {
        while let Some(after) = rest.strip_prefix(b",") {
            rest = after.trim_ascii_start();
        }
        if rest.is_empty() {
            return Some(listed);
        }
        let (weak, tag) = rest
            .strip_prefix(b"W/")
            .map_or((false, rest), |tag| (true, tag));
        let opaque = tag.strip_prefix(b"\"")?;
        let end = memchr::memchr(b'"', opaque)?;
        if !opaque
            .get(..end)?
            .iter()
            .all(|byte| matches!(byte, 0x21..=0x7e | 0x80..))
        {
            return None;
        }
        let (tag, after) = tag.split_at_checked(end + 2)?;
        listed |= tag == etag && (compare == Compare::Weak || !weak);
        rest = after.trim_ascii_start();
        if !rest.is_empty() && !rest.starts_with(b",") {
            return None;
        }
    }
}

/// The value of a field that occurs on exactly one line.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    lines.next().filter(|_| lines.next().is_none())
}

/// An HTTP date in any of its three formats (RFC 9110 section 5.6.7), in seconds since 1970.
fn date(value: &[u8]) -> Option<u64> {
    let date = httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()?;
    Some(seconds(date))
}

/// A date in the only format to be sent (RFC 9110 section 5.6.7).
fn http_date(at: u64) -> Result<HeaderValue, Reject> {
    let date = httpdate::HttpDate::from(UNIX_EPOCH + Duration::from_secs(at));
    header_value(format_args!("{date}"))
}

/// Whole seconds since 1970; an earlier time counts as 1970.
fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Whether a field is evaluated before the method is.
fn is_precondition(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::IF_MATCH
            | header::IF_UNMODIFIED_SINCE
            | header::IF_NONE_MATCH
            | header::IF_MODIFIED_SINCE
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT.
    const MODIFIED: u64 = 784_111_777;
    const SAME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn file() -> Validators {
        Validators {
            etag: HeaderValue::from_static("\"a\""),
            modified: Some(MODIFIED),
            date: Some(HeaderValue::from_static(SAME)),
        }
    }

    fn fields(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[track_caller]
    fn check(lines: &[(&str, &str)], expected: Verdict) {
        assert_eq!(file().evaluate(&fields(lines)), expected, "{lines:?}");
    }

    #[test]
    fn without_preconditions_the_file_is_sent() {
        check(&[], Verdict::Send);
    }

    #[test]
    fn if_match_wants_the_same_strong_tag() {
        check(&[("if-match", "\"a\"")], Verdict::Send);
        check(&[("if-match", "\"b\", \"a\"")], Verdict::Send);
        check(
            &[("if-match", "\"b\""), ("if-match", "\"a\"")],
            Verdict::Send,
        );
        check(&[("if-match", "*")], Verdict::Send);
        check(&[("if-match", "\"b\"")], Verdict::Failed);
        check(&[("if-match", "W/\"a\"")], Verdict::Failed);
        check(&[("if-match", "a")], Verdict::Failed);
        check(&[("if-match", "\"a\", b")], Verdict::Failed);
        check(&[("if-match", "")], Verdict::Failed);
        check(&[("if-match", "*"), ("if-match", "\"b\"")], Verdict::Failed);
    }

    #[test]
    fn if_none_match_compares_weakly() {
        check(&[("if-none-match", "\"a\"")], Verdict::NotModified);
        check(&[("if-none-match", "W/\"a\"")], Verdict::NotModified);
        check(
            &[("if-none-match", "\"x,y\" ,, W/\"a\"")],
            Verdict::NotModified,
        );
        check(
            &[("if-none-match", "\"b\""), ("if-none-match", "\"a\"")],
            Verdict::NotModified,
        );
        check(&[("if-none-match", " * ")], Verdict::NotModified);
        check(&[("if-none-match", "\"b\"")], Verdict::Send);
        check(&[("if-none-match", "\"A\"")], Verdict::Send);
        check(&[("if-none-match", "w/\"a\"")], Verdict::Send);
        check(&[("if-none-match", "\"b,\"a\"")], Verdict::Send);
        check(&[("if-none-match", "\"a\" \"b\"")], Verdict::Send);
        check(&[("if-none-match", "\"a")], Verdict::Send);
        check(&[("if-none-match", "*, \"b\"")], Verdict::Send);
    }

    #[test]
    fn dates_are_compared_in_seconds() {
        check(&[("if-modified-since", SAME)], Verdict::NotModified);
        check(&[("if-modified-since", AFTER)], Verdict::NotModified);
        check(&[("if-modified-since", BEFORE)], Verdict::Send);
        check(
            &[("if-modified-since", "Sunday, 06-Nov-94 08:49:37 GMT")],
            Verdict::NotModified,
        );
        check(
            &[("if-modified-since", "Sun Nov  6 08:49:37 1994")],
            Verdict::NotModified,
        );
        check(&[("if-unmodified-since", SAME)], Verdict::Send);
        check(&[("if-unmodified-since", AFTER)], Verdict::Send);
        check(&[("if-unmodified-since", BEFORE)], Verdict::Failed);
    }

    #[test]
    fn what_is_not_one_date_is_ignored() {
        check(&[("if-modified-since", "yesterday")], Verdict::Send);
        check(
            &[("if-modified-since", SAME), ("if-modified-since", SAME)],
            Verdict::Send,
        );
        check(&[("if-unmodified-since", "yesterday")], Verdict::Send);
        check(
            &[
                ("if-unmodified-since", BEFORE),
                ("if-unmodified-since", BEFORE),
            ],
            Verdict::Send,
        );
    }

    #[test]
    fn tags_win_over_dates_and_failures_over_all() {
        check(
            &[("if-match", "\"a\""), ("if-unmodified-since", BEFORE)],
            Verdict::Send,
        );
        check(
            &[("if-match", "\"b\""), ("if-unmodified-since", AFTER)],
            Verdict::Failed,
        );
        check(
            &[("if-none-match", "\"b\""), ("if-modified-since", AFTER)],
            Verdict::Send,
        );
        check(
            &[("if-none-match", "\"a\""), ("if-modified-since", BEFORE)],
            Verdict::NotModified,
        );
        check(
            &[("if-match", "\"b\""), ("if-none-match", "\"a\"")],
            Verdict::Failed,
        );
        check(
            &[("if-match", "\"a\""), ("if-none-match", "\"a\"")],
            Verdict::NotModified,
        );
        check(
            &[("if-unmodified-since", BEFORE), ("if-none-match", "\"a\"")],
            Verdict::Failed,
        );
    }

    #[test]
    fn a_file_without_a_date_has_only_its_tag() {
        let file = Validators {
            etag: HeaderValue::from_static("\"a\""),
            modified: None,
            date: None,
        };
        let now = UNIX_EPOCH + Duration::from_secs(MODIFIED);
        assert_eq!(file.last_modified(now), Ok(None));
        assert_eq!(
            file.evaluate(&fields(&[("if-modified-since", AFTER)])),
            Verdict::Send
        );
        assert_eq!(
            file.evaluate(&fields(&[("if-unmodified-since", BEFORE)])),
            Verdict::Send
        );
        assert_eq!(
            file.evaluate(&fields(&[("if-none-match", "\"a\"")])),
            Verdict::NotModified
        );
        assert!(!file.range_may_be_served(&fields(&[("if-range", SAME)]), now));
    }

    #[test]
    fn last_modified_never_lies_in_the_future() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let shown = |now| file().last_modified(now).unwrap().unwrap();
        assert_eq!(shown(at(MODIFIED + 9)), SAME);
        assert_eq!(shown(at(MODIFIED - 1)), BEFORE);
    }

    #[track_caller]
    fn check_range(lines: &[(&str, &str)], now: u64, expected: bool) {
        let now = UNIX_EPOCH + Duration::from_secs(now);
        assert_eq!(
            file().range_may_be_served(&fields(lines), now),
            expected,
            "{lines:?}"
        );
    }

    #[test]
    fn if_range_wants_exactly_this_version() {
        let later = MODIFIED + 1;
        check_range(&[], later, true);
        check_range(&[("if-range", "\"a\"")], later, true);
        check_range(&[("if-range", SAME)], later, true);
        check_range(&[("if-range", "W/\"a\"")], later, false);
        check_range(&[("if-range", "\"b\"")], later, false);
        check_range(&[("if-range", "\"a\", \"b\"")], later, false);
        check_range(&[("if-range", "*")], later, false);
        check_range(&[("if-range", BEFORE)], later, false);
        check_range(&[("if-range", AFTER)], later + 9, false);
        check_range(
            &[("if-range", "\"a\""), ("if-range", "\"a\"")],
            later,
            false,
        );
    }

    #[test]
    fn a_date_is_no_proof_within_its_own_second() {
        check_range(&[("if-range", SAME)], MODIFIED, false);
        check_range(&[("if-range", "\"a\"")], MODIFIED, true);
    }

    proptest! {
        /// Any input gets a response, and a list without the tag never matches.
        #[test]
        fn the_list_parser_is_total(list in any::<Vec<u8>>(), pieces in "(W/|\"a\"|\"|,| |b|\\*){0,8}") {
            for list in [list.as_slice(), pieces.as_bytes()] {
                let strong = lists(list, b"\"a\"", Compare::Strong);
                let weak = lists(list, b"\"a\"", Compare::Weak);
                prop_assert!(strong != Some(true) || weak == Some(true));
                prop_assert!(weak != Some(true) || list.windows(3).any(|tag| tag == b"\"a\""));
            }
        }

        /// A well-formed list contains its members, and nothing else.
        #[test]
        fn a_list_holds_its_members(tags in prop::collection::vec("[a-c,!é]{0,2}", 0..5)) {
            let list = tags.iter().map(|tag| format!("\"{tag}\"")).collect::<Vec<_>>().join(" , ");
            let expected = tags.iter().any(|tag| tag == "a");
            prop_assert_eq!(lists(list.as_bytes(), b"\"a\"", Compare::Strong), Some(expected));
        }

        /// Invalid dates from a peer never cause a panic.
        #[test]
        fn dates_are_total(value in "(Sun, |Sunday, )?[0-9]{0,3}[ -](Nov|Feb)[ -][0-9]{0,5} [0-9]{2}:[0-9]{2}:[0-9]{2}( GMT)?|\\PC{0,29}") {
            date(value.as_bytes());
        }
    }
}
