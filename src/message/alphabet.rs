//! Byte sets for lexical checks: one table lookup instead of many comparisons. Each parser defines its own sets.

/// `tchar` of RFC 9110 section 5.6.2.
pub(crate) static TOKEN: Alphabet = Alphabet::alphanumeric_and(b"!#$%&'*+-.^_`|~");

/// A set of bytes.
#[derive(Debug)]
pub(crate) struct Alphabet([bool; 256]);

impl Alphabet {
    /// ASCII letters and digits, and `others`.
    pub(crate) const fn alphanumeric_and(others: &[u8]) -> Self {
        let mut table = [false; 256];
        let mut rest: &[u8] = others;
        while let [byte, more @ ..] = rest {
            set(&mut table, *byte, true);
            rest = more;
        }
        let mut byte = 0_u8;
        while byte < 0x80 {
            if byte.is_ascii_alphanumeric() {
                set(&mut table, byte, true);
            }
            byte += 1;
        }
        Self(table)
    }

    /// All bytes but control characters of ASCII, and `others`.
    pub(crate) const fn without_controls_and(others: &[u8]) -> Self {
        let mut table = [true; 256];
        let mut byte = 0_u8;
        while byte < 0x80 {
            if byte.is_ascii_control() {
                set(&mut table, byte, false);
            }
            byte += 1;
        }
        let mut rest: &[u8] = others;
        while let [byte, more @ ..] = rest {
            set(&mut table, *byte, false);
            rest = more;
        }
        Self(table)
    }

    /// Whether the set contains the byte.
    pub(crate) fn has(&self, byte: u8) -> bool {
        self.0.get(usize::from(byte)).copied().unwrap_or_default()
    }
}

#[expect(
    clippy::indexing_slicing,
    clippy::as_conversions,
    reason = "a byte is below 256, and constants are made without traits"
)]
const fn set(table: &mut [bool; 256], byte: u8, is_in: bool) {
    table[byte as usize] = is_in;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_digits_and_what_was_named() {
        let alphabet = Alphabet::alphanumeric_and(b"-\xff");
        for byte in 0..=255_u8 {
            let expected = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | 0xff);
            assert_eq!(alphabet.has(byte), expected, "{byte:#x}");
        }
    }

    #[test]
    fn everything_but_controls_and_what_was_named() {
        let alphabet = Alphabet::without_controls_and(b"\"\xff");
        for byte in 0..=255_u8 {
            let expected = byte >= b' ' && !matches!(byte, b'"' | 0x7f | 0xff);
            assert_eq!(alphabet.has(byte), expected, "{byte:#x}");
        }
    }
}
