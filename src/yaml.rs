//! Writes YAML, with serde_yaml: layout, quotes, block scalars. Parsing is done elsewhere.
//!
//! serde_yaml follows YAML 1.2 only, and normalizes numbers. It does not quote a text such as `no`, which YAML 1.1
//! parsers read as a boolean, it writes `1.50` as 1.5, and it leaves U+2028 unescaped, which some parsers treat as a
//! line end. Such scalars are written here: a placeholder takes their place in serde_yaml's output, and is then
//! replaced.

use std::borrow::Cow;

use serde::ser::{Serialize, SerializeMap as _, Serializer};

/// A value to be written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Yaml<'a> {
    /// A map, in this order.
    Map(Vec<(Cow<'a, str>, Self)>),
    /// A list.
    List(Vec<Self>),
    /// A text, which no parser reads as anything else.
    Text(Cow<'a, str>),
    /// A number, boolean, `null`, or a text that is unquoted in its source: exactly these characters, if they are
    /// [`plain`].
    Plain(Cow<'a, str>),
}

/// Writes a document.
///
/// # Errors
/// Where serde_yaml fails.
pub(crate) fn write(yaml: &Yaml<'_>) -> Result<String, serde_yaml::Error> {
    let mut stand_ins = StandIns {
        prefix: "zz-as-written".to_owned(),
        written: Vec::new(),
    };
    // No text contains it, and no escape ends in a z, so it occurs in the output only where it was inserted.
    while has(yaml, &stand_ins.prefix) {
        stand_ins.prefix.push_str("-z");
    }
    let text = serde_yaml::to_string(&stand_ins.scalars(yaml)?)?;
    Ok(stand_ins.replaced(&text))
}

fn has(yaml: &Yaml<'_>, part: &str) -> bool {
    match yaml {
        Yaml::Map(entries) => entries
            .iter()
            .any(|(key, value)| key.contains(part) || has(value, part)),
        Yaml::List(items) => items.iter().any(|item| has(item, part)),
        Yaml::Text(text) | Yaml::Plain(text) => text.contains(part),
    }
}

/// Scalars that serde_yaml would write in a form that reads differently.
struct StandIns {
    prefix: String,
    written: Vec<String>,
}

impl StandIns {
    /// The document with placeholders for all texts that serde_yaml would write differently.
    fn scalars<'a>(&mut self, yaml: &'a Yaml<'a>) -> Result<Yaml<'a>, serde_yaml::Error> {
        Ok(match yaml {
            Yaml::Map(entries) => Yaml::Map(
                entries
                    .iter()
                    .map(|(key, value)| Ok((self.text(key)?, self.scalars(value)?)))
                    .collect::<Result<_, serde_yaml::Error>>()?,
            ),
            Yaml::List(items) => Yaml::List(
                items
                    .iter()
                    .map(|item| self.scalars(item))
                    .collect::<Result<_, _>>()?,
            ),
            Yaml::Plain(text) if !plain(text) => Yaml::Text(self.text(text)?),
            Yaml::Plain(text) if is_a_word(text) => Yaml::Text(Cow::Borrowed(text)),
            Yaml::Plain(text) => Yaml::Text(self.instead(text.to_string())),
            Yaml::Text(text) => Yaml::Text(self.text(text)?),
        })
    }

    fn text<'a>(&mut self, text: &'a str) -> Result<Cow<'a, str>, serde_yaml::Error> {
        let lines = text.contains('\n');
        // serde_yaml escapes characters beyond U+FFFF, such as emoji.
        let beyond = text.chars().any(|c| c > '\u{ffff}');
        if text.chars().any(|c| !is_shown(c) && c != '\n') || (lines && beyond) {
            return Ok(self.instead(escaped(text)));
        }
        if !lines && (beyond || (!is_a_word(text) && by_serde(text)? == text)) {
            let quoted = format!("'{}'", text.replace('\'', "''"));
            return Ok(self.instead(quoted));
        }
        Ok(Cow::Borrowed(text))
    }

    fn instead<'a>(&mut self, written: String) -> Cow<'a, str> {
        let stand_in = format!("{}{}.", self.prefix, self.written.len());
        self.written.push(written);
        Cow::Owned(stand_in)
    }

    fn replaced(&self, text: &str) -> String {
        let mut pieces = text.split(&self.prefix);
        let mut whole = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let (number, rest) = piece.split_once('.').unwrap_or((piece, ""));
            let at = number.parse().ok();
            let written: Option<&String> = at.and_then(|at: usize| self.written.get(at));
            whole.push_str(written.map_or("", String::as_str));
            whole.push_str(rest);
        }
        whole
    }
}

/// A text as serde_yaml writes it.
fn by_serde(text: &str) -> Result<String, serde_yaml::Error> {
    let mut written = serde_yaml::to_string(text)?;
    written.truncate(written.trim_end_matches('\n').len());
    Ok(written)
}

/// Whether every YAML parser reads these unquoted characters as a text. Excludes anything that looks like a number,
/// date, boolean, merge key or gateway variable, and characters beyond ASCII: some are invisible, and refused unquoted.
fn is_a_word(text: &str) -> bool {
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let first = |c: char| c.is_alphabetic() || matches!(c, '/' | '_' | '$');
    text.is_ascii()
        && text.starts_with(first)
        && !text.contains("${")
        && !WORDS.iter().any(|word| word.eq_ignore_ascii_case(text))
}

/// A text in double quotes.
fn escaped(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_shown(c) => out.push(c),
            c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

/// Whether a character is visible, and allowed in single quotes.
fn is_shown(c: char) -> bool {
    // Besides control characters, excludes what some parsers treat as line ends, byte order marks, and noncharacters.
    !c.is_control()
        && !matches!(
            c,
            '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
        )
}

/// Whether YAML reads these characters, without quotes, as one scalar on one line.
pub(crate) fn plain(text: &str) -> bool {
    let first = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '+');
    let sign = text
        .strip_prefix('-')
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let legal = |c: char| {
        first(c)
            || matches!(
                c,
                '-' | '*' | '@' | '%' | '=' | ',' | ';' | '(' | ')' | ' ' | ':'
            )
    };
    (text.starts_with(first) || sign)
        && text.chars().all(legal)
        && !text.contains(": ")
        && !text.ends_with([' ', ':'])
        && !text.starts_with("...")
}

impl Serialize for Yaml<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Map(entries) => {
                // serde_yaml looks for tags in a map that declares one entry.
                let mut map = serializer.serialize_map(None)?;
                for (key, value) in entries {
                    map.serialize_entry(key.as_ref(), value)?;
                }
                map.end()
            }
            Self::List(items) => items.serialize(serializer),
            Self::Text(text) | Self::Plain(text) => serializer.serialize_str(text),
        }
    }
}

impl<'a> From<&'a serde_json::Value> for Yaml<'a> {
    fn from(value: &'a serde_json::Value) -> Self {
        use serde_json::Value;
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => {
                Self::Plain(value.to_string().into())
            }
            Value::String(text) => Self::Text(text.into()),
            Value::Array(items) => Self::List(items.iter().map(Self::from).collect()),
            Value::Object(members) => {
                let entry = |(name, value): (&'a String, _)| (name.into(), Self::from(value));
                Self::Map(members.iter().map(entry).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn written(value: &Value) -> String {
        write(&Yaml::from(value)).unwrap()
    }

    #[test]
    fn what_serde_yaml_writes_otherwise_is_written_here() {
        let numbers = r#"{"a": [1, -0.50, 1e3, 123456789012345678901234567890123456789012, 1.0000000000000000001]}"#;
        let numbers: Value = serde_json::from_str(numbers).unwrap();
        assert_eq!(
            written(&numbers),
            "a:\n- 1\n- -0.50\n- 1e+3\n- 123456789012345678901234567890123456789012\n- 1.0000000000000000001\n"
        );
        assert_eq!(
            written(
                &json!({"no": ["Yes", "off", "n", "1", "1.50", "1e999", "0x1f", "2026-11-30", "", "null", null, true]})
            ),
            "'no':\n- 'Yes'\n- 'off'\n- 'n'\n- '1'\n- '1.50'\n- '1e999'\n- '0x1f'\n- '2026-11-30'\n- ''\n- 'null'\n- null\n- true\n"
        );
        assert_eq!(
            written(
                &json!({"<<": {"${x}": "a${b", "it's": "\u{1f600} it's", "#": "# a: b", "a": "one\ntwo\n", "b": "\u{7}"}})
            ),
            "'<<':\n  '#': '# a: b'\n  '${x}': 'a${b'\n  a: |\n    one\n    two\n  b: \"\\U00000007\"\n  it's: '\u{1f600} it''s'\n"
        );
        assert_eq!(
            written(&json!({"a": {}, "b": [[], [[1]], {"c": "d"}]})),
            "a: {}\nb:\n- []\n- - - 1\n- c: d\n"
        );
        assert_eq!(
            written(&json!(["$\u{2000}", "a\u{ad}", "\u{3164}", "é"])),
            "- '$\u{2000}'\n- 'a\u{ad}'\n- '\u{3164}'\n- 'é'\n"
        );
        assert_eq!(written(&json!({})), "{}\n");
    }

    #[test]
    fn no_text_is_taken_for_a_stand_in() {
        let texts = json!([
            "no",
            "zz-as-written0.",
            "\u{7}zz-as-written-z0.",
            "zz-as-written-z",
            "1.50"
        ]);
        let read: Value = serde_yaml::from_str(&written(&texts)).unwrap();
        assert_eq!(read, texts);
    }

    proptest! {
        #[test]
        fn serde_yaml_reads_what_was_written(
            texts in prop::collection::vec(any::<String>(), 0..4), odd in "[-0-9a-z.:# '\"\n\t$<>{}\\[\\]&*!|%@?,~=+]{0,8}",
        ) {
            let lines = texts.join("\n");
            let value = json!({"texts": texts, odd.as_str(): {"odd": odd, "lines": lines}, "list": [[odd]]});
            let read: Value = serde_yaml::from_str(&written(&value)).unwrap();
            prop_assert_eq!(read, value);
        }
    }
}
