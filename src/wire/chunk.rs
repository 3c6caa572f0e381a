//! Chunked bodies (RFC 9112 section 7.1): locates their data and their end. Clients' bodies are parsed strictly; apps'
//! may contain some lines that are odd but unambiguous.

use crate::message::alphabet::TOKEN;

/// The longest chunk-size line with its extensions, in bytes.
const LONGEST_LINE: usize = 4096;

/// The state of the parser of a chunked body.
#[derive(Debug)]
pub(crate) struct Chunks {
    at: At,
    size: u64,
    /// Bytes of the current line, or of the trailers so far.
    length: usize,
    /// The most bytes that all trailers together may have.
    longest_trailers: usize,
    /// The bytes of the trailers, if they are wanted.
    trailers: Option<Vec<u8>>,
    /// Whether lines may end in a bare LF (RFC 9112 section 2.2), sizes in white space, and extensions and trailers may
    /// have any form, as nginx permits for upstreams.
    lenient: bool,
}

/// What the next bytes of a chunked body are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Piece {
    /// After `skip` bytes of framing, `length` bytes of data.
    Data {
        /// Bytes before the data.
        skip: usize,
        /// Bytes of data.
        length: usize,
    },
    /// All of it is framing, and the body continues.
    Framing,
    /// The body ends after this many bytes.
    End(usize),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum At {
    /// The first digit of a size.
    First,
    Digits,
    /// The first byte of an extension's name, or of its value.
    NameFirst,
    Name,
    ValueFirst,
    Value,
    Quoted,
    QuotedPair,
    QuotedEnd,
    /// White space after the size, in a line from an app.
    Blank,
    /// An extension, in a line from an app.
    Anything,
    SizeLineFeed,
    Data,
    DataReturn,
    DataLineFeed,
    /// The first byte of a trailer line.
    TrailerFirst,
    TrailerName,
    /// After the colon.
    Trailer,
    TrailerLineFeed,
    LastLineFeed,
}

impl Chunks {
    /// Starts a chunked body.
    pub(crate) fn new(longest_trailers: usize) -> Self {
        Self {
            at: At::First,
            size: 0,
            length: 0,
            longest_trailers,
            trailers: None,
            lenient: false,
        }
    }

    /// Starts a chunked body whose trailers are wanted.
    pub(crate) fn with_trailers(longest_trailers: usize) -> Self {
        Self {
            trailers: Some(Vec::new()),
            ..Self::new(longest_trailers)
        }
    }

    /// Starts a chunked body from an app, whose trailers are wanted.
    pub(crate) fn of_an_app(longest_trailers: usize) -> Self {
        Self {
            lenient: true,
            ..Self::with_trailers(longest_trailers)
        }
    }

    /// Whether it comes from an app, so that its trailers have to be normalised.
    pub(crate) fn is_an_apps(&self) -> bool {
        self.lenient
    }

    /// The lines of the trailers with the empty line that ends them. Call it after the end of the body.
    pub(crate) fn take_trailers(&mut self) -> Vec<u8> {
        self.trailers.take().unwrap_or_default()
    }

    /// Finds the next data in `bytes`. What the returned piece covers counts as consumed.
    ///
    /// # Errors
    /// A description of the framing error.
    pub(crate) fn piece(&mut self, bytes: &[u8]) -> Result<Piece, &'static str> {
        for (at, byte) in bytes.iter().enumerate() {
            if self.at == At::Data {
                let there = bytes.len() - at;
                let length = usize::try_from(self.size).unwrap_or(usize::MAX).min(there);
                self.size -= length as u64;
                if self.size == 0 {
                    self.at = At::DataReturn;
                }
                return Ok(Piece::Data { skip: at, length });
            }
            if self.step(*byte)? {
                return Ok(Piece::End(at + 1));
            }
        }
        Ok(Piece::Framing)
    }

    /// Consumes `bytes`; returns how many belong to this body, and whether it has ended.
    ///
    /// # Errors
    /// A description of the framing error.
    pub(crate) fn follow(&mut self, bytes: &[u8]) -> Result<(usize, bool), &'static str> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            if self.at == At::Data {
                let there = bytes.len() - at;
                let taken = usize::try_from(self.size).unwrap_or(usize::MAX).min(there);
                self.size -= taken as u64;
                at += taken;
                if self.size == 0 {
                    self.at = At::DataReturn;
                }
                continue;
            }
            at += 1;
            if self.step(*byte)? {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    /// Consumes one byte, and returns whether it was the last one of the body.
    fn step(&mut self, byte: u8) -> Result<bool, &'static str> {
        self.length = self.length.saturating_add(1);
        if let Some(trailers) = &mut self.trailers
            && matches!(
                self.at,
                At::TrailerFirst
                    | At::TrailerName
                    | At::Trailer
                    | At::TrailerLineFeed
                    | At::LastLineFeed
            )
        {
            trailers.push(byte);
        }
        self.at = match (self.at, byte) {
            (At::First | At::Digits, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                if self.size > u64::MAX >> 8 {
                    return Err("a chunk size is too large");
                }
                self.size = self.size << 4 | u64::from(digit);
                At::Digits
            }
            (At::Digits | At::Blank, b' ' | b'\t') if self.lenient => At::Blank,
            (At::Digits | At::Blank, b';') if self.lenient => At::Anything,
            (At::Digits | At::Blank | At::Anything, b'\n') if self.lenient => self.behind_size(),
            (At::Blank | At::Anything, b'\r') => At::SizeLineFeed,
            (At::Anything, byte) if is_field_byte(byte) => At::Anything,
            (At::DataReturn, b'\n') if self.lenient => self.behind_data(),
            (At::TrailerFirst, b'\n') if self.lenient => return Ok(true),
            (At::Trailer, b'\n') if self.lenient => At::TrailerFirst,
            // Their content is checked when all of them have been received.
            (At::TrailerFirst, byte) if self.lenient && is_field_byte(byte) => At::Trailer,
            (At::Digits | At::Name | At::Value | At::QuotedEnd, b';') => At::NameFirst,
            (At::Digits | At::Name | At::Value | At::QuotedEnd, b'\r') => At::SizeLineFeed,
            (At::First | At::Digits, _) => return Err("a chunk size is malformed"),
            (At::NameFirst | At::Name, byte) if TOKEN.has(byte) => At::Name,
            (At::Name, b'=') => At::ValueFirst,
            (At::ValueFirst, b'"') => At::Quoted,
            (At::ValueFirst | At::Value, byte) if TOKEN.has(byte) => At::Value,
            (At::Quoted, b'"') => At::QuotedEnd,
            (At::Quoted, b'\\') => At::QuotedPair,
            (At::Quoted | At::QuotedPair, byte) if is_field_byte(byte) => At::Quoted,
            (At::SizeLineFeed, b'\n') => self.behind_size(),
            (At::DataReturn, b'\r') => At::DataLineFeed,
            (At::DataLineFeed, b'\n') => self.behind_data(),
            (At::TrailerFirst, b'\r') => At::LastLineFeed,
            (At::TrailerFirst | At::TrailerName, byte) if TOKEN.has(byte) => At::TrailerName,
            (At::TrailerName, b':') => At::Trailer,
            (At::TrailerFirst | At::TrailerName, _) => return Err("a trailer is malformed"),
            (At::Trailer, byte) if is_field_byte(byte) => At::Trailer,
            (At::Trailer, b'\r') => At::TrailerLineFeed,
            (At::TrailerLineFeed, b'\n') => At::TrailerFirst,
            (At::LastLineFeed, b'\n') => return Ok(true),
            _ => return Err("a line of a chunked body is malformed"),
        };
        let longest = match self.at {
            At::TrailerFirst | At::TrailerName | At::Trailer | At::TrailerLineFeed => {
                self.longest_trailers
            }
            At::First
            | At::Digits
            | At::NameFirst
            | At::Name
            | At::ValueFirst
            | At::Value
            | At::Quoted
            | At::QuotedPair
            | At::QuotedEnd
            | At::Blank
            | At::Anything
            | At::SizeLineFeed
            | At::Data
            | At::DataReturn
            | At::DataLineFeed
            | At::LastLineFeed => LONGEST_LINE,
        };
        if self.length > longest && self.at != At::LastLineFeed {
            return Err("a line of a chunked body is too long");
        }
        Ok(false)
    }
}

impl Chunks {
    fn behind_size(&mut self) -> At {
        self.length = 0;
        if self.size == 0 {
            At::TrailerFirst
        } else {
            At::Data
        }
    }

    fn behind_data(&mut self) -> At {
        self.length = 0;
        At::First
    }
}

/// Bytes permitted in field values: no control character but the tab (RFC 9110 section 5.5).
fn is_field_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Parses byte by byte: returns the number of bytes until the end, or the error.
    fn slowly(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
        let mut chunks = Chunks::new(256);
        for (at, byte) in bytes.iter().enumerate() {
            let (taken, end) = chunks.follow(std::slice::from_ref(byte))?;
            assert_eq!(taken, 1);
            if end {
                return Ok(Some(at + 1));
            }
        }
        Ok(None)
    }

    #[track_caller]
    fn check(text: &str, expected: Result<Option<usize>, ()>) {
        let mut chunks = Chunks::new(256);
        let whole = chunks
            .follow(text.as_bytes())
            .map(|(taken, end)| end.then_some(taken));
        assert_eq!(whole.map_err(drop), expected, "{text:?}");
        assert_eq!(
            slowly(text.as_bytes()).map_err(drop),
            expected,
            "{text:?} slowly"
        );
    }

    #[test]
    fn bodies_are_followed_to_their_end() {
        check("0\r\n\r\n", Ok(Some(5)));
        check("0\r\n\r\nGET /", Ok(Some(5)));
        check("5\r\nhello\r\n0\r\n\r\n", Ok(Some(15)));
        check(
            "A;x=\"y\"\r\n0123456789\r\n000\r\nx-a: b\r\n\r\n",
            Ok(Some(36)),
        );
        check("0\r\nx:\r\ny: \u{e9}:\tz\r\n\r\n", Ok(Some(19)));
        check("5\r\nhel", Ok(None));
        check("0\r\nx-a: b\r\n", Ok(None));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for text in [
            "\r\n",
            ";x\r\n",
            "5 \r\nhello\r\n",
            "5\nhello\n",
            "0x5\r\n",
            "-1\r\n",
            "5\r\nhelloX",
            "5\r\nhello\n0\r\n\r\n",
            "0\r\nx: a\n\r\n",
            "0\r\n x: a\r\n\r\n",
            "0\r\n: a\r\n\r\n",
            "0\r\nx\r\n\r\n",
            "0\r\nx : a\r\n\r\n",
            "0\r\nx\u{e9}: a\r\n\r\n",
            "0\r\nx: a\0\r\n\r\n",
            "0\r\n\r\r",
            "5;a\nb\r\n",
            "5;a\0\r\n",
            "5;\r\n",
            "5;a[=b\r\n",
            "5;a=\r\n",
            "5;a=\"b\r\n",
            "fffffffffffffffff\r\n",
            "10000000000000000\r\n",
            "5\rhello",
        ] {
            check(text, Err(()));
        }
        check(&format!("5;{}\r\n", "a".repeat(5000)), Err(()));
        check(&format!("0\r\nx: {}\r\n", "a".repeat(5000)), Err(()));
    }

    #[test]
    fn apps_may_write_odd_lines_that_have_one_reading() {
        let end = |text: &str| {
            let mut chunks = Chunks::of_an_app(256);
            let mut slow = Chunks::of_an_app(256);
            let mut slowly = Ok((0, false));
            for (at, byte) in text.bytes().enumerate() {
                slowly = slow.follow(&[byte]).map(|(taken, end)| (at + taken, end));
                if !matches!(slowly, Ok((_, false))) {
                    break;
                }
            }
            let whole = chunks.follow(text.as_bytes());
            assert_eq!(whole, slowly, "{text:?}");
            whole.map(|(taken, end)| end.then_some(taken)).map_err(drop)
        };
        for text in [
            "5 \r\nhello\r\n0\r\n\r\n",
            "5\t  \r\nhello\r\n0  \r\n\r\n",
            "5\nhello\n0\n\n",
            "5\r\nhello\n0\r\n\n",
            "5 ; a = b\r\nhello\r\n0\r\n\r\n",
            "5;\r\nhello\r\n0\r\n\r\n",
            "0\nx : a\n b\nname\n\n",
        ] {
            assert_eq!(end(text), Ok(Some(text.len())), "{text:?}");
        }
        for text in [
            "\r\n",
            " 5\r\n",
            "5 5\r\n",
            "5; a\u{1}\r\n",
            "0x5\r\n",
            "-1\r\n",
            "5\rhello",
            "5\r\nhelloX",
            "5\r\nhello\rX",
            "0\r\n\r\r",
            "0\r\nx: a\0\r\n",
            "fffffffffffffffff\r\n",
        ] {
            assert_eq!(end(text), Err(()), "{text:?}");
        }
        assert_eq!(end(&format!("5;{}\r\n", "a".repeat(5000))), Err(()));
        assert_eq!(end(&format!("0\n{}\n", "a\n".repeat(200))), Err(()));
    }

    proptest! {
        /// How the bytes are split makes no difference.
        #[test]
        fn pieces_make_no_difference(text in "([0-9a-f]{1,2}(;a)?\r\n[a-z]{0,6}(\r\n)?|0\r\n\r\n|[\r\n]){0,8}") {
            let mut chunks = Chunks::new(256);
            let whole = chunks.follow(text.as_bytes()).map(|(taken, end)| end.then_some(taken));
            prop_assert_eq!(whole, slowly(text.as_bytes()));
        }
    }
}
