//! `Claims`: the content of a token, and `ClaimPath`: a place in it. Whether the claims can be trusted and what they
//! permit is decided elsewhere.

use std::fmt;

use serde_json::{Map, Value};

use super::number;

/// The claims of a token (RFC 7519 section 4).
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Claims(Map<String, Value>);

impl fmt::Debug for Claims {
    /// The content of a token is never printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} claims", self.0.len())
    }
}

impl Claims {
    /// The claims of this object.
    pub(crate) fn new(members: Map<String, Value>) -> Self {
        Self(members)
    }

    /// All claims.
    pub(super) fn members(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The top-level claim with this name.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The claim at the path.
    pub(crate) fn at(&self, path: &ClaimPath) -> Option<&Value> {
        let (first, rest) = path.0.split_first()?;
        let mut value = self.0.get(first)?;
        for name in rest {
            value = value.as_object()?.get(name)?;
        }
        Some(value)
    }

    /// Roughly how much memory the claims take, in bytes; too much rather than too little.
    pub(crate) fn weight(&self) -> usize {
        members_weight(&self.0)
    }
}

fn members_weight(members: &Map<String, Value>) -> usize {
    // A node of the map has room for eleven members, half of which may be empty.
    let node = 11 * (size_of::<String>() + size_of::<Value>());
    members
        .iter()
        .map(|(name, value)| 2 * size_of::<String>() + name.len() + 2 * weight(value))
        .fold(node, usize::saturating_add)
}

fn weight(value: &Value) -> usize {
    let inside = match value {
        Value::Null | Value::Bool(_) => 0,
        Value::Number(number) => number.as_str().len(),
        Value::String(text) => text.capacity(),
        Value::Array(items) => items.iter().map(weight).fold(0, usize::saturating_add),
        Value::Object(members) => members_weight(members),
    };
    inside.saturating_add(size_of::<Value>())
}

/// Whether two JSON values are equal; numbers by value, so that 1 equals 1.0.
pub(crate) fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(left), Value::Number(right)) => number::equal(left, right),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(a, b)| equal(a, b))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .all(|(name, value)| right.get(name).is_some_and(|twin| equal(value, twin)))
        }
        (one, other) => one == other,
    }
}

/// The path to a claim: names from the outermost to the innermost, as in `realm_access.roles`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ClaimPath(Vec<String>);

impl ClaimPath {
    /// Sets the claim at this path, and replaces values in the way that are not objects.
    pub(super) fn put(&self, claims: &mut Map<String, Value>, value: Value) {
        let Some((last, way)) = self.names().split_last() else {
            return;
        };
        let mut at = claims;
        for name in way {
            let inner = at.entry(name.clone()).or_insert_with(|| Map::new().into());
            if !inner.is_object() {
                *inner = Map::new().into();
            }
            match inner.as_object_mut() {
                Some(inner) => at = inner,
                None => return,
            }
        }
        at.insert(last.clone(), value);
    }

    /// Parses a path: a dot descends one level, `\.` is a dot in a name and `\\` a backslash.
    ///
    /// # Errors
    /// A sentence that says what is valid.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Some(escaped) = meant_as_url(text) {
            return Err(format!(
                "dots go inwards, also those of a URL: `{escaped}` is the claim of that name; for what is inside \
                 it, only the dots of the name are escaped"
            ));
        }
        let mut names = Vec::new();
        let mut name = String::new();
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '.' => names.push(std::mem::take(&mut name)),
                '\\' => match letters.next() {
                    Some(escaped @ ('.' | '\\')) => name.push(escaped),
                    Some(_) | None => {
                        return Err(r"after a backslash comes a dot or a backslash: `\.` is a dot in a name".to_owned());
                    }
                },
                other => name.push(other),
            }
        }
        names.push(name);
        if names.iter().any(String::is_empty) {
            return Err(
                r"a name in the path is empty; write `a.b` for b inside a, and `a\.b` for the name a.b"
                    .to_owned(),
            );
        }
        Ok(Self(names))
    }

    /// The names, from the outermost to the innermost.
    pub(crate) fn names(&self) -> &[String] {
        &self.0
    }

    /// Whether the path is only this top-level name.
    pub(crate) fn is(&self, name: &str) -> bool {
        matches!(self.0.as_slice(), [only] if only == name)
    }
}

/// The path with each dot escaped, if it looks like a URL, which many issuers use as a claim name, and the dots of its
/// host, or all of its dots, are unescaped.
fn meant_as_url(text: &str) -> Option<String> {
    let rest = ["https://", "http://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme))?;
    let bare = |part: &str| {
        let mut before = None;
        part.chars().any(|letter| {
            let escapes = before == Some('\\');
            // An escaped backslash escapes nothing.
            before = (!(escapes && letter == '\\')).then_some(letter);
            letter == '.' && !escapes
        })
    };
    let host = rest.split('/').next().unwrap_or_default();
    // If the dots of the host are escaped, the other dots are meant as written.
    let knows = rest.contains(r"\.");
    if !bare(host) && (knows || !bare(rest)) {
        return None;
    }
    let mut escaped = String::with_capacity(text.len() + 4);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '.' => escaped.push_str(r"\."),
            '\\' => {
                escaped.push('\\');
                escaped.extend(letters.next());
            }
            other => escaped.push(other),
        }
    }
    Some(escaped)
}

impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, name) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(".")?;
            }
            f.write_str(&name.replace('\\', r"\\").replace('.', r"\."))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: &Value) -> Claims {
        Claims::new(value.as_object().unwrap().clone())
    }

    #[test]
    fn dots_go_inwards_and_escaped_dots_do_not() {
        let claims = claims(&json!({
            "sub": "7", "a": {"b": {"c": 1}}, "a.b": 2, "https://x.example/roles": ["r"], "l": [{"b": 1}],
        }));
        for (path, expected) in [
            ("sub", Some(json!("7"))),
            ("a.b.c", Some(json!(1))),
            (r"a\.b", Some(json!(2))),
            (r"https://x\.example/roles", Some(json!(["r"]))),
            ("a.x", None),
            ("sub.b", None),
            ("l.b", None),
            ("x", None),
        ] {
            let parsed = ClaimPath::parse(path).unwrap();
            assert_eq!(claims.at(&parsed), expected.as_ref(), "{path}");
            assert_eq!(parsed.to_string(), path);
        }
    }

    #[test]
    fn paths_with_empty_names_are_refused() {
        for path in ["", ".", "a.", ".a", "a..b", r"a\b", r"a\"] {
            assert!(ClaimPath::parse(path).is_err(), "{path}");
        }
    }

    #[test]
    fn a_url_whose_dots_go_inwards_is_a_mistake_that_shows_what_is_meant() {
        for (path, meant) in [
            ("https://example.com/roles", r"https://example\.com/roles"),
            ("http://a.b.example/x.y", r"http://a\.b\.example/x\.y"),
            (
                r"https://a\.example.com/roles",
                r"https://a\.example\.com/roles",
            ),
            ("https://localhost/v1.roles", r"https://localhost/v1\.roles"),
            (r"https://a\\.example/x", r"https://a\\\.example/x"),
        ] {
            let problem = ClaimPath::parse(path).unwrap_err();
            assert!(problem.contains(&format!("`{meant}`")), "{path}: {problem}");
            assert!(ClaimPath::parse(meant).is_ok(), "{meant}");
        }
        for (path, names) in [
            (r"https://example\.com/app.roles", 2),
            (r"https://example\.com/v1\.roles", 1),
            ("https://localhost/roles", 1),
            ("realm_access.roles", 2),
            ("httpsx.y", 2),
        ] {
            assert_eq!(
                ClaimPath::parse(path).unwrap().names().len(),
                names,
                "{path}"
            );
        }
    }

    #[test]
    fn numbers_are_equal_by_value() {
        assert!(equal(&json!(1), &json!(1.0)));
        assert!(equal(&json!({"a": [1, "x"]}), &json!({"a": [1.0, "x"]})));
        assert!(!equal(&json!(1), &json!("1")));
        assert!(!equal(&json!(1), &json!(true)));
        assert!(!equal(&json!([1]), &json!([1, 1])));
        assert!(!equal(&json!(u64::MAX), &json!(u64::MAX - 1)));
        assert!(!equal(
            &json!(9_007_199_254_740_993_u64),
            &json!(9_007_199_254_740_992.0)
        ));
        let parse = |text: &str| super::super::json::parse(text.as_bytes()).unwrap();
        let (one, other) = ("123456789012345678901", "123456789012345678902");
        assert!(equal(&parse(one), &parse(one)));
        assert!(equal(&parse(one), &parse(&format!("{one}.00"))));
        assert!(!equal(&parse(one), &parse(other)));
        assert!(!equal(
            &parse(&format!("[{one}]")),
            &parse(&format!("[{other}]"))
        ));
    }
}
