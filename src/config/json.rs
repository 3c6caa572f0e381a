//! Converts a node of the tree to JSON, for claims: decides which plain scalars are numbers, booleans or texts.

use serde_json::{Map, Value};

use super::error::Errors;
use super::node::{Key, Kind, Node, Scalar};
use super::value::{self, Hint};
use crate::auth;

/// A node as JSON, by YAML 1.2's core schema. Scalars that YAML readers interpret differently (`no`, `0755`, `0x1f`,
/// `.inf`) are errors. A quoted scalar is a text. `None` where an error was reported.
pub(crate) fn json(node: &Node, errors: &mut Errors) -> Option<Value> {
    match &node.kind {
        Kind::Broken => None,
        Kind::Null => Some(Value::Null),
        Kind::Scalar(scalar) => match json_scalar(scalar) {
            Ok(value) => Some(value),
            Err(hint) => {
                let problem = format!("{} could be read in two ways", scalar.shown());
                let hint = if scalar.is_private() {
                    "put it into quotes".to_owned()
                } else {
                    hint
                };
                errors.at(node.place, problem).hint(hint);
                None
            }
        },
        Kind::List(items) => {
            let values: Vec<Option<Value>> = items.iter().map(|item| json(item, errors)).collect();
            values
                .into_iter()
                .collect::<Option<Vec<_>>>()
                .map(Value::Array)
        }
        Kind::Map(entries) => {
            let pair =
                |(key, node): &(Key, Node)| json(node, errors).map(|it| (key.text.clone(), it));
            let values: Vec<Option<(String, Value)>> = entries.iter().map(pair).collect();
            values
                .into_iter()
                .collect::<Option<Map<_, _>>>()
                .map(Value::Object)
        }
    }
}

fn json_scalar(scalar: &Scalar) -> Result<Value, Hint> {
    let text = scalar.text.as_str();
    if scalar.quoted {
        return Ok(Value::String(text.to_owned()));
    }
    match text {
        "true" => return Ok(Value::Bool(true)),
        "false" => return Ok(Value::Bool(false)),
        "" | "~" | "null" => return Ok(Value::Null),
        _ => {}
    }
    if let Some(meant) = value::boolean_of_yaml_1_1(text) {
        return Err(format!(
            "write `{meant}`, or \"{text}\" if the word is meant"
        ));
    }
    let quote = || format!("write \"{text}\" if a text is meant, or the number in decimal");
    let digits = text.trim_start_matches(['-', '+']);
    let special = digits.to_ascii_lowercase();
    if matches!(special.as_str(), ".inf" | ".nan") || text.starts_with('+') && is_number(text) {
        return Err(quote());
    }
    let radix = special
        .strip_prefix("0x")
        .or_else(|| special.strip_prefix("0o"));
    if radix.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_hexdigit())) {
        return Err(quote());
    }
    if !is_number(text) {
        return Ok(Value::String(text.to_owned()));
    }
    let leading_zero =
        digits.starts_with('0') && digits.chars().nth(1).is_some_and(|c| c.is_ascii_digit());
    if leading_zero {
        return Err(quote());
    }
    auth::read_number(&as_json(text))
        .map(Value::Number)
        .ok_or_else(|| format!("this number is too large; write \"{text}\" if a text is meant"))
}

/// A decimal number of YAML in JSON's syntax, digit by digit: `.5` as 0.5, `1.` as 1.
fn as_json(text: &str) -> String {
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text),
    };
    let end = text.find(['e', 'E']).unwrap_or(text.len());
    let (mantissa, exponent) = text.split_at(end);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let whole = if whole.is_empty() { "0" } else { whole };
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{fraction}{exponent}")
}

/// Whether the core schema reads a text as a decimal number.
fn is_number(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent_fits = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty()) && exponent_fits
}

#[cfg(test)]
mod tests {
    use super::super::tree;
    use super::*;

    #[track_caller]
    fn check_json(yaml: &str, expected: &str) {
        let mut errors = Errors::default();
        let file = errors.add_file("a.yaml", yaml);
        let node = tree::parse(file, yaml, &mut errors).unwrap();
        let seen = match json(&node, &mut errors) {
            Some(value) => value.to_string(),
            None => {
                let errors = errors.finish().unwrap_err();
                let lines: Vec<String> = errors.iter().map(|e| e.problem.clone()).collect();
                lines.join("; ")
            }
        };
        assert_eq!(seen, expected, "{yaml}");
    }

    #[test]
    fn scalars_become_json_by_the_core_schema() {
        check_json(
            "[a, '1', 1, -1, 1.5, 1e3, .5, true, ~]",
            r#"["a","1",1,-1,1.5,1e+3,0.5,true,null]"#,
        );
        check_json("{a: {any: [x]}, 1: b}", r#"{"1":"b","a":{"any":["x"]}}"#);
        check_json(
            "[0, 0.5, 1.2.3, 1_0, 2026-11-23, '']",
            r#"[0,0.5,"1.2.3","1_0","2026-11-23",""]"#,
        );
        check_json(
            "[18446744073709551615, -9223372036854775808]",
            "[18446744073709551615,-9223372036854775808]",
        );
        check_json(
            "[123456789012345678901, -9223372036854775809, 9007199254740993.0, 1., -.5e-2, 1.E+2, -0]",
            "[123456789012345678901,-9223372036854775809,9007199254740993.0,1,-0.5e-2,1e+2,-0]",
        );
        check_json(
            "[no, 0755, 0x1f]",
            "`no` could be read in two ways; `0755` could be read in two ways; `0x1f` could be read in two ways",
        );
        check_json(
            "[.inf, -.inf, .NaN, +1]",
            "`.inf` could be read in two ways; `-.inf` could be read in two ways; `.NaN` could be read in two ways; `+1` could be read in two ways",
        );
        check_json(
            "[1e999, 1e-99999]",
            "`1e999` could be read in two ways; `1e-99999` could be read in two ways",
        );
    }
}
