//! Exports `keys`: a JSON Schema (2020-12) for editors and CI, and the list of all keys in docs/. It describes the form
//! of each value; only `check` knows how values depend on each other.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::keys::{Default, Key, Kind, Section, TOP, Zero};

/// Matches any text with a variable, whose value is unknown here.
const VARIABLE: &str = r"\$\{";

/// The schema of gateway.yaml.
pub(crate) fn schema() -> Value {
    let mut schema = section(&TOP);
    if let Some(members) = schema.as_object_mut() {
        members.remove("required");
        let head = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "Portcullis: gateway.yaml",
            // A file may include others that contain the required keys.
            "anyOf": [{"required": ["listeners", "routes"]}, {"required": ["include"]}],
            "patternProperties": {"^x-": true},
        });
        if let Value::Object(head) = head {
            members.extend(head);
        }
    }
    schema
}

fn section(section: &Section) -> Value {
    let properties: Map<String, Value> = section
        .keys
        .iter()
        .map(|key| (key.name.to_owned(), property(key)))
        .collect();
    let required: Vec<&str> = section
        .keys
        .iter()
        .filter(|key| matches!(key.default, Default::Required))
        .map(|key| key.name)
        .collect();
    let mut schema = json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        put(&mut schema, "required", json!(required));
    }
    schema
}

fn property(key: &Key) -> Value {
    let mut schema = kind(key.kind);
    put(&mut schema, "description", json!(key.says));
    put(
        &mut schema,
        "$comment",
        json!(format!("since {}", key.since)),
    );
    match key.default {
        Default::Value(text) => put(&mut schema, "default", typed(text)),
        Default::Items(items) => put(
            &mut schema,
            "default",
            items.iter().copied().map(typed).collect(),
        ),
        Default::Required | Default::Section | Default::None(_) => {}
    }
    schema
}

fn put(schema: &mut Value, name: &str, value: Value) {
    if let Some(members) = schema.as_object_mut() {
        members.insert(name.to_owned(), value);
    }
}

/// A scalar, typed by YAML's core schema.
fn typed(text: &str) -> Value {
    match (text, text.parse::<u64>()) {
        ("true", _) => json!(true),
        ("false", _) => json!(false),
        (_, Ok(number)) => json!(number),
        (text, Err(_)) => json!(text),
    }
}

fn kind(kind: Kind) -> Value {
    let pattern =
        |pattern: &str| json!({"type": "string", "pattern": format!("{pattern}|{VARIABLE}")});
    match kind {
        Kind::Text | Kind::File | Kind::Directory => {
            json!({"type": ["string", "number", "boolean"]})
        }
        Kind::Any => json!({}),
        Kind::Path => pattern("^/"),
        Kind::Boolean => {
            json!({"enum": [true, false], "type": "boolean"}).or(&pattern("^(true|false)$"))
        }
        Kind::Whole(least, most) => {
            let mut number = json!({"type": "integer", "minimum": least});
            if most < u32::MAX {
                put(&mut number, "maximum", json!(most));
            }
            number.or(&pattern("^[0-9]+$"))
        }
        Kind::Size(zero) => {
            let least = u32::from(zero != Zero::Allowed);
            let number = json!({"type": "integer", "minimum": least});
            number.or(&pattern(&bounded("(0|[1-9][0-9]*)(B|KiB|MiB|GiB)?", zero)))
        }
        Kind::Duration(zero) => pattern(&bounded("(0|[1-9][0-9]*)(ms|s|m|h)", zero)),
        Kind::Rate => pattern("^[1-9][0-9]*/[smhd]$"),
        Kind::Word(words) => {
            let typed = words.iter().map(|word| word.parse::<f64>());
            let numbers: Vec<f64> = typed.filter_map(Result::ok).collect();
            let mut known: Vec<Value> = words.iter().map(|word| json!(word)).collect();
            known.extend(numbers.into_iter().map(|number| json!(number)));
            json!({"enum": known}).or(&json!({"type": "string", "pattern": VARIABLE}))
        }
        Kind::Form(..) => json!({"type": ["string", "number"]}),
        Kind::Either(kinds) => {
            let kinds: Vec<Value> = kinds.iter().map(|it| self::kind(*it)).collect();
            json!({"anyOf": kinds})
        }
        Kind::List(item) => json!({"type": "array", "items": self::kind(*item)}),
        Kind::Filled(item) => json!({"type": "array", "minItems": 1, "items": self::kind(*item)}),
        Kind::OneOrMore(item) => self::kind(*item).or(&self::kind(Kind::Filled(item))),
        Kind::Map(value) => json!({"type": "object", "additionalProperties": self::kind(*value)}),
        Kind::Section(known) => {
            let map = section(known);
            match known.short.and_then(|short| known.key(short)) {
                Some(short) => map.or(&self::kind(alone(short.kind))),
                None => map,
            }
        }
    }
}

/// The kind of a single value that is short for a list of it.
fn alone(kind: Kind) -> Kind {
    if let Kind::OneOrMore(item) = kind {
        return *item;
    }
    let (Kind::List(Kind::Section(item)) | Kind::Filled(Kind::Section(item))) = kind else {
        return kind;
    };
    let short = item.short.and_then(|short| item.key(short));
    short.map_or(kind, |short| short.kind)
}

/// The pattern of a number with a unit, depending on how zero is treated.
fn bounded(number: &str, zero: Zero) -> String {
    match zero {
        Zero::Refused | Zero::Allowed => format!("^{number}$"),
        Zero::Off => format!("^({number}|off)$"),
    }
}

/// A schema that accepts either of two.
trait Or {
    fn or(self, other: &Value) -> Value;
}

impl Or for Value {
    fn or(self, other: &Value) -> Value {
        json!({"anyOf": [self, other]})
    }
}

/// The list of all keys, as a page of docs/.
pub(crate) fn page() -> String {
    let mut page = String::from(
        "# All keys\n\nEvery key of `gateway.yaml` with its type, its default and the version in which it came. What the keys mean in full\n\
         is described on the pages beside this one; `portcullis schema` prints the same as a JSON Schema for editors.\n",
    );
    let mut told = Vec::new();
    sections("the file", &TOP, &mut told, &mut page);
    page
}

fn sections(
    title: &str,
    section: &'static Section,
    told: &mut Vec<(*const Section, String)>,
    page: &mut String,
) {
    let address: *const Section = section;
    if told.iter().any(|(known, _)| *known == address) {
        return;
    }
    told.push((address, title.to_owned()));
    let _written = write!(
        page,
        "\n## {title}\n\n| key | type | default | since | |\n| --- | --- | --- | --- | --- |\n"
    );
    for key in section.keys {
        let default = match key.default {
            Default::Required => "required".to_owned(),
            Default::Value(text) => format!("`{text}`"),
            Default::Items([]) => "empty".to_owned(),
            Default::Items(items) => format!("`[{}]`", items.join(", ")),
            Default::Section => "its keys'".to_owned(),
            Default::None(words) => words.to_owned(),
        };
        let _written = writeln!(
            page,
            "| `{}` | {} | {default} | {} | {} |",
            key.name,
            words(key.kind),
            key.since,
            key.says
        );
    }
    for key in section.keys {
        let title = match title {
            "the file" => key.name.to_owned(),
            outer => format!("{outer}.{}", key.name),
        };
        inner(&title, key.kind, told, page);
    }
}

/// The sections of a key.
fn inner(title: &str, kind: Kind, told: &mut Vec<(*const Section, String)>, page: &mut String) {
    match kind {
        Kind::Section(section) => sections(title, section, told, page),
        Kind::Either(kinds) => kinds.iter().for_each(|it| inner(title, *it, told, page)),
        Kind::List(item) | Kind::Filled(item) | Kind::OneOrMore(item) => {
            inner(&format!("{title}[]"), *item, told, page);
        }
        Kind::Map(value) => inner(&format!("{title}.NAME"), *value, told, page),
        Kind::Text
        | Kind::Any
        | Kind::Path
        | Kind::File
        | Kind::Directory
        | Kind::Boolean
        | Kind::Whole(..)
        | Kind::Size(_)
        | Kind::Duration(_)
        | Kind::Rate
        | Kind::Word(_)
        | Kind::Form(..) => {}
    }
}

/// The description of a kind.
fn words(kind: Kind) -> String {
    match kind {
        Kind::Text => "text".to_owned(),
        Kind::Any => "any value".to_owned(),
        Kind::Path => "URL path".to_owned(),
        Kind::File => "file".to_owned(),
        Kind::Directory => "directory".to_owned(),
        Kind::Boolean => "`true` or `false`".to_owned(),
        Kind::Whole(least, u32::MAX) => format!("number from {least}"),
        Kind::Whole(least, most) => format!("number from {least} to {most}"),
        Kind::Size(Zero::Off) => "size or `off`".to_owned(),
        Kind::Size(_) => "size".to_owned(),
        Kind::Duration(Zero::Off) => "duration or `off`".to_owned(),
        Kind::Duration(_) => "duration".to_owned(),
        Kind::Rate => "rate, such as `10/m`".to_owned(),
        Kind::Word(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
            words.join(", ")
        }
        Kind::Form(name, example) => format!("{name}, such as `{example}`"),
        Kind::Either(kinds) => {
            let kinds: Vec<String> = kinds.iter().map(|it| words(*it)).collect();
            kinds.join(" or ")
        }
        Kind::List(item) | Kind::Filled(item) => format!("list: {}", words(*item)),
        Kind::OneOrMore(item) => format!("{}, or a list", words(*item)),
        Kind::Map(value) => format!("map: {}", words(*value)),
        Kind::Section(section) => match section.short {
            Some(short) => format!("map, or its `{short}` alone"),
            None => "map".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_page_of_all_keys_is_as_the_table_says() {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/configuration/keys.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, page()).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            there == page(),
            "UPDATE_DOCS=1 cargo test --lib the_page_of_all_keys writes it anew"
        );
    }

    #[test]
    fn every_key_has_a_sentence_and_a_place_in_the_schema() {
        fn walk(section: &Section, count: &mut usize) {
            for key in section.keys {
                *count += 1;
                let sentence = key.says;
                assert!(
                    sentence.ends_with('.') && sentence.len() > 3,
                    "{}",
                    key.name
                );
                assert!(
                    !sentence.contains('|') && !key.since.is_empty(),
                    "{}",
                    key.name
                );
                below(key.kind, count);
            }
            if let Some(short) = section.short {
                assert!(section.key(short).is_some(), "{short}");
            }
        }
        fn below(kind: Kind, count: &mut usize) {
            if let Kind::Section(section) = kind {
                walk(section, count);
            } else if let Kind::Either(kinds) = kind {
                kinds.iter().for_each(|it| below(*it, count));
            } else if let Kind::List(item)
            | Kind::Filled(item)
            | Kind::OneOrMore(item)
            | Kind::Map(item) = kind
            {
                below(*item, count);
            }
        }
        let mut count = 0;
        walk(&TOP, &mut count);
        let schema = schema().to_string();
        assert_eq!(schema.matches("\"$comment\":\"since ").count(), count);
    }
}
