//! Normalises field lines from apps that violate RFC 9112 but can be read in one way only. Bytes in, bytes out. Lines
//! from clients are never normalised: they are rejected.

use crate::message::alphabet::TOKEN;

/// Field lines, normalised.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Mended {
    /// The lines, each with one colon after its name, and CR LF at its end.
    pub(crate) text: Vec<u8>,
    /// How many bytes they had, including the empty line after them; `None` if that has not arrived.
    pub(crate) length: Option<usize>,
}

/// Normalises as many whole lines as there are: white space before a colon is removed (RFC 9112 section 5.1), a folded
/// line is joined with a space (section 5.2), and a bare LF ends a line (section 2.2). As in nginx, a name without a
/// colon gets an empty value, and a second status line is skipped.
///
/// # Errors
/// Lines that can be read in two ways, or not at all.
pub(crate) fn mend(lines: &[u8]) -> Result<Mended, &'static str> {
    let mut text = Vec::with_capacity(lines.len() + 64);
    let (mut at, mut framing, mut folds) = (0, false, false);
    while let Some(rest) = lines.get(at..)
        && let Some(feed) = memchr::memchr(b'\n', rest)
    {
        at += feed + 1;
        let line = rest.get(..feed).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            text.extend_from_slice(b"\r\n");
            return Ok(Mended {
                text,
                length: Some(at),
            });
        }
        if let Some(b' ' | b'\t') = line.first() {
            let more = without_blanks(line);
            // Some parsers take a line of white space for the end, and some truncate a folded number.
            if !folds || framing || more.is_empty() || !more.iter().all(|byte| is_value(*byte)) {
                return Err("a line of the head is folded where that can be read in two ways");
            }
            text.truncate(text.len() - 2);
            text.push(b' ');
            text.extend_from_slice(more);
            text.extend_from_slice(b"\r\n");
            continue;
        }
        if line.starts_with(b"HTTP/") {
            folds = false;
            continue;
        }
        let colon = memchr::memchr(b':', line);
        let (name, value) = line
            .split_at_checked(colon.unwrap_or(line.len()))
            .unwrap_or_default();
        let name = without_blanks(name);
        let value = without_blanks(value.strip_prefix(b":").unwrap_or(value));
        framing = name.eq_ignore_ascii_case(b"content-length")
            || name.eq_ignore_ascii_case(b"transfer-encoding");
        folds = true;
        if colon.is_none() && framing {
            return Err("a line that frames the body has no colon");
        }
        if name.is_empty() || !name.iter().all(|byte| TOKEN.has(*byte)) {
            return Err("a field's name is malformed");
        }
        if !value.iter().all(|byte| is_value(*byte)) {
            return Err("a field's value is malformed");
        }
        text.extend_from_slice(name);
        text.extend_from_slice(b": ");
        text.extend_from_slice(value);
        text.extend_from_slice(b"\r\n");
    }
    Ok(Mended { text, length: None })
}

/// Removes the white space at both ends (RFC 9110 section 5.6.3), and no other.
fn without_blanks(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// Whether this byte is permitted in a field's value (RFC 9110 section 5.5).
fn is_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(lines: &str, expected: Result<&str, ()>) {
        let seen = mend(format!("{lines}\r\nrest").as_bytes());
        if let Ok(mended) = &seen {
            assert_eq!(mended.length, Some(lines.len() + 2), "{lines:?}");
        }
        let text = seen.map(|mended| String::from_utf8(mended.text).unwrap());
        let expected = expected.map(|text| format!("{text}\r\n"));
        assert_eq!(text.map_err(drop), expected, "{lines:?}");
    }

    #[test]
    fn what_can_be_read_in_one_way_is_mended() {
        check("", Ok(""));
        check("A: b\r\n", Ok("A: b\r\n"));
        check("A:b \r\nC:\r\n", Ok("A: b\r\nC: \r\n"));
        check("A : b\r\nC\t: d\r\n", Ok("A: b\r\nC: d\r\n"));
        check("Content-Length : 5\r\n", Ok("Content-Length: 5\r\n"));
        check("A: b\r\n c\r\n\t d\r\n", Ok("A: b c d\r\n"));
        check("A:\r\n c: d\r\n", Ok("A:  c: d\r\n"));
        check("A: b\nC: d\n", Ok("A: b\r\nC: d\r\n"));
        check("Name\r\nA: b\r\n", Ok("Name: \r\nA: b\r\n"));
        check("HTTP/1.1 200 OK\r\nA: b\r\n", Ok("A: b\r\n"));
        check("A: é\r\n", Ok("A: é\r\n"));
        assert_eq!(mend(b"A: b\r\nC: d").unwrap().length, None);
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_not() {
        for lines in [
            " A: b\r\n",
            "HTTP/1.1 200 OK\r\n A: b\r\n",
            "A: b\r\n \r\n",
            "A: b\r\n\t\r\nC: d\r\n",
            "Content-Length: 1\r\n 0\r\n",
            "Content-Length:\r\n 5\r\n",
            "Transfer-Encoding:\r\n chunked\r\n",
            "Content-Length\r\n",
            "transfer-encoding \r\n",
            ": b\r\n",
            "Bad header\r\n",
            "Bad header: b\r\n",
            "A\u{b}: b\r\n",
            "A: b\0\r\n",
            "A: b\rContent-Length: 5\r\n",
            "A: b\r\n c\0\r\n",
            "A: b\r\r\n",
        ] {
            check(lines, Err(()));
        }
    }
}
