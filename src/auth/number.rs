//! JSON numbers by their text (RFC 8259 section 6): two are equal if they have the same value, however many digits
//! that takes. Nothing here converts to a double, which has only 53 bits.

use serde_json::Number;

/// The largest exponent that is accepted, positive or negative; no issuer needs one of five digits.
const MOST_EXPONENT: i64 = 9999;
/// How many digits a whole number may have when it is written without an exponent.
const MOST_DIGITS: i64 = 64;

/// The value of a number: digits without zeros at either end, and the power of ten by which they are multiplied. Zero
/// has no digits, no sign and no power.
#[derive(Debug, Eq, PartialEq)]
struct Decimal {
    is_negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    /// Parses a JSON number; `None` where its exponent is out of bounds.
    fn of(text: &str) -> Option<Self> {
        let (is_negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse().ok()?),
            None => (text, 0_i64),
        };
        if !(-MOST_EXPONENT..=MOST_EXPONENT).contains(&exponent) {
            return None;
        }
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = [whole, fraction].concat();
        let digits = all.trim_start_matches('0').trim_end_matches('0');
        if digits.is_empty() {
            return Some(Self {
                is_negative: false,
                digits: String::new(),
                exponent: 0,
            });
        }
        let zeros = all.len() - all.trim_end_matches('0').len();
        let power = i64::try_from(zeros).ok()? - i64::try_from(fraction.len()).ok()?;
        Some(Self {
            is_negative,
            digits: digits.to_owned(),
            exponent: exponent + power,
        })
    }
}

/// Whether a number can be compared with others, and converted to a double where only its magnitude matters.
pub(super) fn is_bounded(number: &Number) -> bool {
    let text = number.as_str();
    // Most are plain and short.
    let is_plain = text.len() < 300 && text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain || (Decimal::of(text).is_some() && number.as_f64().is_some_and(f64::is_finite))
}

/// Whether two numbers have the same value: 1 equals 1.0 and 1e0, and -0 equals 0.
pub(super) fn equal(one: &Number, other: &Number) -> bool {
    let (one, other) = (one.as_str(), other.as_str());
    one == other
        || match (Decimal::of(one), Decimal::of(other)) {
            (Some(one), Some(other)) => one == other,
            (None, _) | (_, None) => false,
        }
}

/// The digits of a whole number: 1000 for `1e3` and for `1000.0`. `None` for a number with a fraction, or for one of
/// more than 64 digits that uses an exponent or a decimal point.
pub(crate) fn whole(number: &Number) -> Option<String> {
    let text = number.as_str();
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.bytes().all(|byte| byte.is_ascii_digit()) && text != "-0" {
        return Some(text.to_owned());
    }
    let value = Decimal::of(text)?;
    if value.digits.is_empty() {
        return Some("0".to_owned());
    }
    let length = i64::try_from(value.digits.len()).ok()?;
    if value.exponent < 0 || length + value.exponent > MOST_DIGITS {
        return None;
    }
    let zeros = usize::try_from(value.exponent).ok()?;
    let sign = if value.is_negative { "-" } else { "" };
    Some(format!("{sign}{}{}", value.digits, "0".repeat(zeros)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(text: &str) -> Number {
        text.parse().unwrap()
    }

    #[test]
    fn numbers_are_equal_by_value_and_by_nothing_else() {
        for (one, other, expected) in [
            ("1", "1.0", true),
            ("1", "1e0", true),
            ("1000", "1e3", true),
            ("1000", "1E+3", true),
            ("0.001", "1e-3", true),
            ("10.50", "105e-1", true),
            ("0", "-0", true),
            ("0", "-0.000e17", true),
            ("0", "0e-9999", true),
            ("1", "-1", false),
            ("1", "10", false),
            ("1", "0.1", false),
            ("9007199254740993", "9007199254740992", false),
            ("9007199254740993.0", "9007199254740992.0", false),
            ("9007199254740993.0", "9007199254740993", true),
            ("123456789012345678901", "123456789012345678902", false),
            ("123456789012345678900", "1.234567890123456789e20", true),
            ("18446744073709551616", "18446744073709551617", false),
            ("-9223372036854775809", "-9223372036854775810", false),
            ("0.1", "0.10000000000000001", false),
            ("1e9999", "1e9998", false),
            // Out of bounds: equal only to themselves.
            ("1e10000", "1e10000", true),
            ("1e10000", "10e9999", false),
            ("0e99999999999999999999", "0", false),
        ] {
            assert_eq!(
                equal(&number(one), &number(other)),
                expected,
                "{one} {other}"
            );
            assert_eq!(
                equal(&number(other), &number(one)),
                expected,
                "{other} {one}"
            );
        }
    }

    #[test]
    fn whole_numbers_are_written_out() {
        for (text, expected) in [
            ("7", Some("7")),
            ("-7", Some("-7")),
            ("7.0", Some("7")),
            ("1e3", Some("1000")),
            ("-12.50e2", Some("-1250")),
            ("-0", Some("0")),
            ("0.0", Some("0")),
            ("123456789012345678901.0", Some("123456789012345678901")),
            ("7.5", None),
            ("1e-1", None),
            ("1e64", None),
            ("1e99999999999999999999", None),
        ] {
            assert_eq!(whole(&number(text)).as_deref(), expected, "{text}");
        }
        let long = "9".repeat(1000);
        assert_eq!(whole(&number(&long)), Some(long));
    }

    #[test]
    fn what_a_double_cannot_hold_in_size_is_out_of_bounds() {
        for text in [
            "0",
            "-1.5e300",
            "1e-9999",
            "123456789012345678901",
            "0e9999",
        ] {
            assert!(is_bounded(&number(text)), "{text}");
        }
        for text in [
            "1e309",
            "-1e309",
            "1e10000",
            "1e-10000",
            "1e99999999999999999999",
        ] {
            assert!(!is_bounded(&number(text)), "{text}");
        }
        assert!(!is_bounded(&number(&"9".repeat(400))));
    }

    proptest! {
        /// In the range of 128-bit integers, they compare as those do.
        #[test]
        fn equality_is_that_of_the_integers(
            one in -10_000_i128..10_000, other in -10_000_i128..10_000, zeros in 0_u32..20, point in 0_usize..5,
        ) {
            let scaled = one * 10_i128.pow(zeros);
            let spelled = format!("{one}.{}e{zeros}", "0".repeat(point + 1));
            prop_assert!(equal(&number(&spelled), &number(&scaled.to_string())));
            prop_assert_eq!(equal(&number(&spelled), &number(&other.to_string())), scaled == other);
            prop_assert_eq!(whole(&number(&spelled)), Some(scaled.to_string()));
        }
    }
}
