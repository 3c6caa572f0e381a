//! JSON's escapes of characters beyond U+FFFF (RFC 8259 section 7), which YAML parsers reject: `"\ud83d\ude00"` is one
//! character written as a surrogate pair. The parser gets other escapes of the same length instead, so that all places
//! stay correct; they are converted back in its output.

use std::borrow::Cow;

/// The private-use characters that temporarily replace surrogates.
const VEILED: std::ops::RangeInclusive<char> = '\u{e000}'..='\u{edff}';
/// The third digits of surrogates in both cases, and the replacement of each.
const DIGITS: &[u8] = b"89abcdefABCDEF";
const VEILS: &[u8] = b"0123456789abcd";

/// A file's text with its surrogates replaced.
pub(super) struct Veiled<'t> {
    /// The parser's input.
    pub(super) text: Cow<'t, str>,
}

impl<'t> Veiled<'t> {
    /// Replaces the surrogates of a text, unless it already contains replacement characters.
    pub(super) fn of(text: &'t str) -> Self {
        let is_surrogate = |at| third_digit(text, at, b'd', DIGITS).is_some();
        let taken = |at| third_digit(text, at, b'e', VEILS).is_some();
        let mut escapes = text.match_indices("\\u").map(|(at, _)| at);
        let any = escapes.clone().any(is_surrogate);
        if !any || escapes.any(taken) || text.contains(|c| VEILED.contains(&c)) {
            return Self {
                text: Cow::Borrowed(text),
            };
        }
        Self {
            text: Cow::Owned(exchanged(text, (b'd', DIGITS), (b'e', VEILS))),
        }
    }

    /// A scalar's original text: each pair is one character.
    ///
    /// # Errors
    /// A surrogate without its other half.
    pub(super) fn lift<'s>(&self, scalar: &'s str) -> Result<Cow<'s, str>, ()> {
        if matches!(self.text, Cow::Borrowed(_)) {
            return Ok(Cow::Borrowed(scalar));
        }
        let units = scalar.chars().flat_map(|c| match surrogate(c) {
            Some(unit) => [unit, 0].into_iter().take(1),
            None => {
                let mut room = [0; 2];
                let length = c.encode_utf16(&mut room).len();
                room.into_iter().take(length)
            }
        });
        let text: String = char::decode_utf16(units)
            .collect::<Result<_, _>>()
            .map_err(|_| ())?;
        // Outside double quotes they are not escapes.
        Ok(Cow::Owned(exchanged(&text, (b'e', VEILS), (b'd', DIGITS))))
    }
}

/// The index in `thirds` of an escape's third digit, where its first is `first`; `at` is its backslash.
fn third_digit(text: &str, at: usize, first: u8, thirds: &[u8]) -> Option<usize> {
    let digits = text.as_bytes().get(at + 2..at + 6)?;
    let [one, two, rest @ ..] = digits else {
        return None;
    };
    let hex = rest.iter().all(u8::is_ascii_hexdigit);
    if one.to_ascii_lowercase() != first || !hex {
        return None;
    }
    thirds.iter().position(|digit| digit == two)
}

/// Converts the escapes of one kind to the other.
fn exchanged(text: &str, (from, thirds): (u8, &[u8]), (to, others): (u8, &[u8])) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\\u") {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let digit = third_digit(escape, 0, from, thirds).and_then(|third| others.get(third));
        let Some((first, digit)) = escape.chars().nth(2).zip(digit) else {
            out.push_str("\\u");
            rest = escape.get(2..).unwrap_or_default();
            continue;
        };
        let to = if first.is_ascii_uppercase() {
            to.to_ascii_uppercase()
        } else {
            to
        };
        out.push_str("\\u");
        out.push(char::from(to));
        out.push(char::from(*digit));
        out.push_str(escape.get(4..6).unwrap_or_default());
        rest = escape.get(6..).unwrap_or_default();
    }
    out + rest
}

/// The surrogate that a character replaces.
fn surrogate(c: char) -> Option<u16> {
    if !VEILED.contains(&c) {
        return None;
    }
    let code = u16::try_from(u32::from(c)).ok()?;
    let digit = DIGITS.get(usize::from(code >> 8 & 0xf))?;
    let digit = u16::try_from(char::from(*digit).to_digit(16)?).ok()?;
    Some(0xd000 | digit << 8 | code & 0xff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_veiled_keeps_its_length_and_is_put_back() {
        for text in [
            r"\ud83d\ude00 \uD83D\uDE00 \uDbFf\uDFfF",
            r"\\ud83d \ud7ff \ue000 plain",
            r"no escapes \u00e4 \u",
            r"\ud83",
        ] {
            let veiled = Veiled::of(text);
            assert_eq!(veiled.text.len(), text.len());
            assert_eq!(veiled.lift(&veiled.text).unwrap(), text);
        }
        let veiled = Veiled::of(r"\ud83d\uDE00");
        assert_eq!(veiled.text, r"\ue03d\uEc00");
        assert_eq!(veiled.lift("a\u{e03d}\u{ec00}b").unwrap(), "a\u{1f600}b");
        for half in [
            "\u{e03d}",
            "\u{ec00}",
            "\u{ec00}\u{e03d}",
            "\u{e03d}x\u{ec00}",
        ] {
            assert!(veiled.lift(half).is_err(), "{half:?}");
        }
    }
}
