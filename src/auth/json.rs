//! Strict JSON (RFC 8259): duplicate members and excessive nesting are errors, because two readers of such a text may
//! see two different values. A number keeps its text. Knows nothing of tokens.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::number;

/// The maximum nesting depth of objects and lists, the outermost included.
const MAX_DEPTH: usize = 32;

/// The name under which serde_json passes the text of a number that is not a 64-bit integer to visitors (its feature
/// `arbitrary_precision`). An object with such a member could be mistaken for a number.
const NUMBER: &str = "$serde_json::private::Number";

/// The text is not strict JSON.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not JSON, or a duplicate member, or more than 32 levels deep")]
pub(crate) struct NotStrict;

/// Parses one JSON value and nothing after it.
///
/// # Errors
/// Where the text is not UTF-8 or not JSON, has a duplicate member, is nested deeper than 32 levels, or contains a
/// number that is too large for a double or has an exponent beyond 9999.
pub(crate) fn parse(text: &[u8]) -> Result<Value, NotStrict> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Strict { depth: 0 }
        .deserialize(&mut reader)
        .map_err(|_| NotStrict)?;
    reader.end().map_err(|_| NotStrict)?;
    Ok(value)
}

/// Parses exactly one number; `None` where the text is not a number, or is out of bounds as in [`parse`].
pub(crate) fn read_number(text: &str) -> Option<Number> {
    match parse(text.as_bytes()) {
        Ok(Value::Number(number)) => Some(number),
        Ok(_) | Err(NotStrict) => None,
    }
}

/// The text without a byte order mark (RFC 8259 section 8.1 allows parsers to ignore one).
pub(crate) fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// Parses one JSON object and nothing after it; errors as [`parse`].
pub(crate) fn parse_object(text: &[u8]) -> Result<Map<String, Value>, NotStrict> {
    match parse(text)? {
        Value::Object(members) => Ok(members),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(NotStrict)
        }
    }
}

/// Reads a value at nesting level `depth`.
#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn inside<E: Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom("too deep"));
        }
        Ok(Self {
            depth: self.depth + 1,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inside)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut next = members.next_key_seed(Name)?;
        if let Some(None) = next {
            return members.next_value_seed(NumberText).map(Value::Number);
        }
        let inside = self.inside()?;
        let mut map = Map::new();
        while let Some(name) = next {
            let name = name.ok_or_else(|| A::Error::custom("a name that is not for members"))?;
            let value = members.next_value_seed(inside)?;
            if map.insert(name, value).is_some() {
                return Err(A::Error::custom("a duplicate member"));
            }
            next = members.next_key_seed(Name)?;
        }
        Ok(Value::Object(map))
    }
}

/// Reads the name of a member; `None` means [`NUMBER`].
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok((name != NUMBER).then(|| name.to_owned()))
    }
}

/// Reads the text of a number. serde_json passes it as an owned string; text borrowed from the document is refused
/// here.
struct NumberText;

impl<'de> DeserializeSeed<'de> for NumberText {
    type Value = Number;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Number, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for NumberText {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Number, E> {
        Err(E::custom("a name that is not for members"))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Number, E> {
        let number = Number::from_string_unchecked(text);
        if number::is_bounded(&number) {
            Ok(number)
        } else {
            Err(E::custom("a number out of bounds"))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn accepts(text: &str) {
        let strict = parse(text.as_bytes()).unwrap_or_else(|_| panic!("{text} is refused"));
        assert_eq!(strict, serde_json::from_str::<Value>(text).unwrap());
    }

    #[track_caller]
    fn refuses(text: &str) {
        assert_eq!(parse(text.as_bytes()), Err(NotStrict), "{text} is accepted");
    }

    #[test]
    fn ordinary_json_is_read() {
        accepts(r#"{"a":1,"b":[true,null,-2.5e3,"x\u00e9"],"c":{"a":1}}"#);
        accepts(" [ ] ");
        accepts("18446744073709551615");
        accepts("[0, -0, 1.0, 1e3, 1E-3]");
    }

    #[test]
    fn a_number_stays_its_text() {
        for text in [
            "123456789012345678901",
            "9007199254740993.0",
            "-9223372036854775809",
            "0.1000000000000000055511151231257827",
            "1e+3",
            "-0",
        ] {
            let value = parse(text.as_bytes()).unwrap();
            assert!(value.is_number());
            assert_eq!(value.to_string(), text);
            accepts(&format!(r#"{{"a":[{text}]}}"#));
        }
        // An exponent gets a sign.
        for (text, read) in [("1e3", "1e+3"), ("1E-3", "1e-3"), ("1.0E0", "1.0e+0")] {
            assert_eq!(parse(text.as_bytes()).unwrap().to_string(), read);
        }
        for text in [
            "1e309", "1e99999", "1e-99999", "01", ".5", "1.", "+1", "0x1",
        ] {
            refuses(text);
        }
    }

    #[test]
    fn no_object_is_taken_for_a_number() {
        for text in [
            r#"{"$serde_json::private::Number":"1"}"#,
            r#"{"\u0024serde_json::private::Number":"1"}"#,
            r#"{"$serde_json::private::Number":"\u0031"}"#,
            r#"{"$serde_json::private::Number":1}"#,
            r#"{"a":1,"$serde_json::private::Number":"1"}"#,
            r#"{"a":{"$serde_json::private::Number":"1"}}"#,
        ] {
            refuses(text);
        }
    }

    #[test]
    fn a_member_twice_is_refused_at_any_depth_and_in_any_spelling() {
        refuses(r#"{"a":1,"a":1}"#);
        refuses(r#"{"a":1,"\u0061":2}"#);
        refuses(r#"{"x":[{"a":1,"b":2,"a":3}]}"#);
        accepts(r#"{"a":{"a":1},"b":{"a":1}}"#);
    }

    #[test]
    fn thirty_two_levels_are_accepted_and_one_more_is_refused() {
        accepts(&format!("{}1{}", "[".repeat(32), "]".repeat(32)));
        refuses(&format!("{}1{}", "[".repeat(33), "]".repeat(33)));
        accepts(&format!("{}1{}", r#"{"a":"#.repeat(32), "}".repeat(32)));
        refuses(&format!("{}1{}", r#"{"a":"#.repeat(33), "}".repeat(33)));
        refuses(&format!("{}{{}}{}", "[".repeat(32), "]".repeat(32)));
        refuses(&"[".repeat(100_000));
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in [
            "",
            "{",
            "{}{}",
            "{} x",
            "{'a':1}",
            "[1,]",
            "NaN",
            "1e999",
            r#""\ud800""#,
        ] {
            refuses(text);
        }
        assert_eq!(parse(b"\"\xff\""), Err(NotStrict));
        assert_eq!(parse_object(b"[]"), Err(NotStrict));
        assert!(parse_object(b"{}").is_ok());
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_reads_as_serde_json_reads_it(text in r#"[\[\]{}",:a-b0-2 ]{0,24}"#) {
            if let Ok(value) = parse(text.as_bytes()) {
                prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
            }
        }
    }
}
