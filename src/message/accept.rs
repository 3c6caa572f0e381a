//! Which content codings a client accepts (`Accept-Encoding`, RFC 9110 section 12.5.3), for all who choose between the
//! forms of a response. Which forms there are is not known here.

use http::HeaderValue;
use http::header::{self, HeaderMap};

/// A content coding that the gateway sends.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Coding {
    /// Zstandard (RFC 8878).
    Zstd,
    /// Brotli (RFC 7932).
    Br,
    /// gzip (RFC 1952).
    Gzip,
}

impl Coding {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Zstd, Self::Br, Self::Gzip];

    /// Its name in `Content-Encoding`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Br => "br",
            Self::Gzip => "gzip",
        }
    }

    /// The coding that a value of `Content-Encoding` names.
    pub(crate) fn of(value: &HeaderValue) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|coding| value == coding.name())
    }

    /// Its name as a header value.
    pub(crate) const fn value(self) -> HeaderValue {
        HeaderValue::from_static(self.name())
    }
}

/// The codings that a client accepts, with their quality values in thousandths; 0 is not accepted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct AcceptedCodings {
    zstd: u16,
    br: u16,
    gzip: u16,
    identity: u16,
}

impl AcceptedCodings {
    /// Reads `Accept-Encoding`. Without the field a client gets the plain form: no client of today means "any coding"
    /// by its absence.
    ///
    /// Of a coding that is named twice the first counts. A coding whose value cannot be read counts as not named, so
    /// that the value of `*` applies to it, if there is one.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut named = Named::default();
        for line in headers.get_all(header::ACCEPT_ENCODING) {
            for item in line.as_bytes().split(|byte| *byte == b',') {
                named.read(item);
            }
        }
        let rest = named.any.unwrap_or(0);
        Self {
            zstd: named.zstd.unwrap_or(rest),
            br: named.br.unwrap_or(rest),
            gzip: named.gzip.unwrap_or(rest),
            // `*` is not a wish for the plain form: who takes any coding is better off with a short one.
            identity: named.identity.unwrap_or(0),
        }
    }

    /// The quality value of a coding; `None` is the plain form, which a client without any acceptable form gets, too.
    pub(crate) fn quality(self, coding: Option<Coding>) -> u16 {
        match coding {
            Some(Coding::Zstd) => self.zstd,
            Some(Coding::Br) => self.br,
            Some(Coding::Gzip) => self.gzip,
            None => self.identity,
        }
    }

    /// The coding that the client prefers; among equals the first. `None` where it accepts none of them, or prefers the
    /// plain form.
    pub(crate) fn preferred(self, codings: impl IntoIterator<Item = Coding>) -> Option<Coding> {
        let mut best = None;
        let mut quality = 0;
        for coding in codings {
            let own = self.quality(Some(coding));
            if own > quality {
                (best, quality) = (Some(coding), own);
            }
        }
        best.filter(|_| quality >= self.identity)
    }
}

/// The values as they are written.
#[derive(Default)]
struct Named {
    zstd: Option<u16>,
    br: Option<u16>,
    gzip: Option<u16>,
    identity: Option<u16>,
    any: Option<u16>,
}

impl Named {
    /// Reads one item: a coding, perhaps with its weight.
    fn read(&mut self, item: &[u8]) {
        let mut parts = item.split(|byte| *byte == b';');
        let name = parts.next().unwrap_or_default().trim_ascii();
        let place = match name {
            b"*" => &mut self.any,
            name if name.eq_ignore_ascii_case(b"zstd") => &mut self.zstd,
            name if name.eq_ignore_ascii_case(b"br") => &mut self.br,
            // RFC 9110 section 8.4.1.3: the same coding.
            name if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") => {
                &mut self.gzip
            }
            name if name.eq_ignore_ascii_case(b"identity") => &mut self.identity,
            _ => return,
        };
        let value = match (parts.next(), parts.next()) {
            (None, _) => Some(1000),
            (Some(weight), None) => quality(weight),
            // A coding has no other parameters.
            (Some(_), Some(_)) => None,
        };
        if place.is_none() {
            *place = value;
        }
    }
}

/// A weight (RFC 9110 section 12.4.2) in thousandths: `q=0.5` is 500.
pub(crate) fn quality(weight: &[u8]) -> Option<u16> {
    let weight = weight.trim_ascii();
    let value = weight
        .strip_prefix(b"q=")
        .or_else(|| weight.strip_prefix(b"Q="))?;
    let (whole, digits): (u16, &[u8]) = match value {
        [whole @ (b'0' | b'1')] => (u16::from(whole - b'0'), &[]),
        [whole @ (b'0' | b'1'), b'.', digits @ ..] if digits.len() <= 3 => {
            (u16::from(whole - b'0'), digits)
        }
        _ => return None,
    };
    let mut thousandths = 0;
    for at in 0..3 {
        let digit = match digits.get(at) {
            None => 0,
            Some(digit) if digit.is_ascii_digit() => u16::from(digit - b'0'),
            Some(_) => return None,
        };
        thousandths = thousandths * 10 + digit;
    }
    Some(whole * 1000 + thousandths).filter(|value| *value <= 1000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accepted(lines: &[&str]) -> AcceptedCodings {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::ACCEPT_ENCODING, line.parse().unwrap());
        }
        AcceptedCodings::of(&headers)
    }

    #[track_caller]
    fn check(lines: &[&str], zstd: u16, br: u16, gzip: u16, identity: u16) {
        let expected = AcceptedCodings {
            zstd,
            br,
            gzip,
            identity,
        };
        assert_eq!(accepted(lines), expected, "{lines:?}");
    }

    #[test]
    fn codings_have_their_quality_values() {
        check(&[], 0, 0, 0, 0);
        check(&[""], 0, 0, 0, 0);
        check(&["gzip, deflate, br, zstd"], 1000, 1000, 1000, 0);
        check(
            &["GZIP;Q=0.5 , Br ; q=0.25,, zstd;q=1.000"],
            1000,
            250,
            500,
            0,
        );
        check(&["br", "gzip;q=0.1"], 0, 1000, 100, 0);
        check(&["identity;q=0.5, gzip;q=0.3"], 0, 0, 300, 500);
        check(&["gzip;q=0, br"], 0, 1000, 0, 0);
    }

    #[test]
    fn a_star_stands_for_what_is_not_named() {
        check(&["*"], 1000, 1000, 1000, 0);
        check(&["*;q=0.2, br;q=0"], 200, 0, 200, 0);
        check(&["gzip, *;q=0"], 0, 0, 1000, 0);
    }

    #[test]
    fn x_gzip_is_gzip_and_the_first_of_two_counts() {
        check(&["x-gzip;q=0.7"], 0, 0, 700, 0);
        check(&["gzip;q=0.2, x-gzip"], 0, 0, 200, 0);
    }

    #[test]
    fn a_value_that_cannot_be_read_counts_as_not_named() {
        for value in [
            "2", "1.001", "0.5555", "-1", ".5", "x", "", "1 0", "01", "0.x",
        ] {
            let text = format!("br;q={value}, gzip");
            check(&[&text], 0, 0, 1000, 0);
            let text = format!("br;q={value}, *;q=0.1");
            check(&[&text], 100, 100, 100, 0);
        }
        check(&["br;q=1., gzip;q=0."], 0, 1000, 0, 0);
        check(&["br;level=5, gzip;q=1;x=2"], 0, 0, 0, 0);
    }

    #[test]
    fn the_highest_value_wins_and_among_equals_the_first() {
        let order = [Coding::Zstd, Coding::Br, Coding::Gzip];
        for (text, expected) in [
            ("gzip, br, zstd", Some(Coding::Zstd)),
            ("gzip, br, zstd;q=0.9", Some(Coding::Br)),
            ("gzip;q=0.5, identity;q=0.5", Some(Coding::Gzip)),
            ("gzip;q=0.5, identity;q=0.6", None),
            ("deflate", None),
            ("identity", None),
            ("*;q=0", None),
            ("*", Some(Coding::Zstd)),
        ] {
            assert_eq!(accepted(&[text]).preferred(order), expected, "{text}");
        }
        assert_eq!(
            accepted(&["gzip, br"]).preferred([Coding::Gzip, Coding::Br]),
            Some(Coding::Gzip)
        );
    }

    proptest! {
        /// Any field gets an answer, and no value is above 1.
        #[test]
        fn the_reader_is_total(line in "([a-z*-]{0,8}(;q=[0-9.]{0,5})?[, ;]{0,2}){0,6}") {
            let accepted = accepted(&[&line]);
            for coding in Coding::ALL {
                prop_assert!(accepted.quality(Some(coding)) <= 1000);
            }
        }

        /// What is written as a weight is read as it.
        #[test]
        fn a_weight_is_read_as_it_was_written(value in 0_u16..=1000) {
            let text = format!("q={}.{:03}", value / 1000, value % 1000);
            prop_assert_eq!(quality(text.as_bytes()), Some(value));
        }
    }
}
