//! Strict JSON (RFC 8259): a member that stands twice and nesting that is too deep are refused,
//! because two readers of such a text may see two different values. Knows nothing of tokens.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// How many objects and lists may stand inside each other, the outermost included.
const MAX_DEPTH: usize = 32;

/// The text is not strict JSON.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not JSON, or a member twice, or more than 32 levels deep")]
pub(crate) struct NotStrict;

/// Reads one JSON value and nothing after it.
///
/// # Errors
/// Where the text is not UTF-8 or not JSON, a member stands twice, it is nested deeper than 32
/// levels, or a number is too large for a double.
pub(crate) fn parse(text: &[u8]) -> Result<Value, NotStrict> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Strict { depth: 0 }
        .deserialize(&mut reader)
        .map_err(|_| NotStrict)?;
    reader.end().map_err(|_| NotStrict)?;
    Ok(value)
}

/// Reads one JSON object and nothing after it; errors as [`parse`].
pub(crate) fn parse_object(text: &[u8]) -> Result<Map<String, Value>, NotStrict> {
    match parse(text)? {
        Value::Object(members) => Ok(members),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(NotStrict)
        }
    }
}

/// Reads a value inside `depth` objects and lists.
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

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("not finite"))
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
        let inside = self.inside()?;
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(inside)?;
            if map.insert(name, value).is_some() {
                return Err(A::Error::custom("a member twice"));
            }
        }
        Ok(Value::Object(map))
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
