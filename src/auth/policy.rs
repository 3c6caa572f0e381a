//! `Requirement`: do these claims satisfy this route? A claim that is absent, unknown or of an unexpected type does
//! not. Whether the claims are genuine was decided before.

use serde_json::{Map, Value};

use super::claims::{ClaimPath, Claims, equal};

/// The requirements of a route on the claims of a token.
///
/// A list of maps of rules: all rules of one of the maps must hold. A rule names a claim and
///
/// * a scalar: the claim equals it;
/// * a list: the claim holds all of it;
/// * `{any: […]}`, `{all: […]}`, `{not: …}`: the claim holds one, all, none of it; several of
///   these in one map must all hold. An absent claim satisfies `not`, and nothing else.
///
/// A claim that is a list contains its items, a scalar contains itself, an object satisfies nothing. `scope` and `scp`
/// are sets (RFC 8693 section 4.2): their text is split at spaces, and a scalar in a rule for them means the same as a
/// list. `"{user}"` is the path parameter, and equals a text or the digits of an integer; `"{claim:owner}"` is another
/// claim, a scalar.
#[derive(Clone, Debug)]
pub(crate) struct Requirement {
    any: Vec<Vec<Rule>>,
    scope: Option<String>,
}

#[derive(Clone, Debug)]
struct Rule {
    claim: ClaimPath,
    /// Whether a text is a set of words.
    is_scope: bool,
    tests: Vec<Test>,
}

#[derive(Clone, Debug)]
enum Test {
    Equals(Operand),
    All(Vec<Operand>),
    Any(Vec<Operand>),
    Not(Vec<Operand>),
}

#[derive(Clone, Debug)]
enum Operand {
    /// A text, a number or a boolean.
    Scalar(Value),
    /// The path parameter of this name.
    Parameter(String),
    /// Another claim.
    Claim(ClaimPath),
}

/// The path parameters of a request; a value is `None` where it is not UTF-8.
pub(crate) type Parameters<'p> = [(&'p str, Option<&'p str>)];

impl Requirement {
    /// Parses `require` as in the configuration: a map, or a list of maps.
    ///
    /// # Errors
    /// Every error: its place as a JSON pointer (RFC 6901), and a sentence that says what is wrong and how to correct
    /// it.
    pub(crate) fn parse(
        value: &Value,
        known_params: &[&str],
    ) -> Result<Self, Vec<(String, String)>> {
        let mut reader = Reader {
            known_params,
            mistakes: Vec::new(),
        };
        let any = match value {
            Value::Object(rules) => vec![reader.rules("", rules)],
            Value::Array(maps) if !maps.is_empty() => maps
                .iter()
                .enumerate()
                .filter_map(|(at, map)| {
                    let place = format!("/{at}");
                    let Some(rules) = map.as_object() else {
                        reader.mistake(&place, "each item of the list is a map of claims");
                        return None;
                    };
                    Some(reader.rules(&place, rules))
                })
                .collect(),
            Value::Array(_)
            | Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_) => {
                reader.mistake(
                    "",
                    "write a map of claims and what they must be, such as {scope: [read]}, or a \
                     list of such maps, of which one must hold",
                );
                Vec::new()
            }
        };
        if !reader.mistakes.is_empty() {
            return Err(reader.mistakes);
        }
        let scope = any.iter().find_map(|rules| scope_of(rules));
        Ok(Self { any, scope })
    }

    /// Whether the claims satisfy it.
    pub(crate) fn is_satisfied(&self, claims: &Claims, params: &Parameters<'_>) -> bool {
        let holds = |rule: &Rule| {
            rule.tests
                .iter()
                .all(|test| rule.holds(test, claims, params))
        };
        self.any.iter().any(|rules| rules.iter().all(holds))
    }

    /// Whether a claim is compared with the path parameter of this name.
    pub(crate) fn uses_parameter(&self, name: &str) -> bool {
        let rules = self.any.iter().flatten();
        let operands = rules
            .flat_map(|rule| &rule.tests)
            .flat_map(|test| match test {
                Test::Equals(operand) => std::slice::from_ref(operand),
                Test::All(operands) | Test::Any(operands) | Test::Not(operands) => operands,
            });
        let mut parameters = operands.filter_map(|operand| match operand {
            Operand::Parameter(name) => Some(name),
            Operand::Scalar(_) | Operand::Claim(_) => None,
        });
        parameters.any(|known| known == name)
    }

    /// Which rules are not satisfied, in words: one line per rule; of several maps, the rules of each. Empty where the
    /// requirement is satisfied.
    pub(crate) fn why_not(&self, claims: &Claims, params: &Parameters<'_>) -> Vec<String> {
        if self.is_satisfied(claims, params) {
            return Vec::new();
        }
        let mut lines = Vec::new();
        for (at, rules) in self.any.iter().enumerate() {
            if self.any.len() > 1 {
                lines.push(format!("alternative {}:", at + 1));
            }
            for rule in rules {
                for test in &rule.tests {
                    if !rule.holds(test, claims, params) {
                        let claim = claims.at(&rule.claim);
                        let is = claim.map_or_else(|| "absent".to_owned(), Value::to_string);
                        let must = test.words(claims, params);
                        lines.push(format!("{} is {is}, and must {must}", rule.claim));
                    }
                }
            }
        }
        lines
    }

    /// The required scopes, separated by spaces, for `scope` of the challenge (RFC 6750 section 3): those of the first
    /// map that names any.
    pub(crate) fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }
}

/// A placeholder for any value that is not named.
const SOME: &str = "portcullis-probe";

impl Requirement {
    /// Claims that satisfy the requirement, each set with no more than it needs: one for each alternative, and one for
    /// each item of each `any`. Such a set may not satisfy it after all; the caller has to check.
    pub(crate) fn examples(&self, params: &Parameters<'_>) -> Vec<Map<String, Value>> {
        let mut examples = Vec::new();
        for rules in &self.any {
            let choices = rules.iter().flat_map(|rule| &rule.tests).map(Test::choices);
            let most = choices.max().unwrap_or(1);
            for choice in 0..most {
                let mut claims = Map::new();
                for rule in rules {
                    rule.exemplify(choice, params, &mut claims);
                }
                examples.push(claims);
            }
        }
        examples
    }

    /// The values that it refuses by name, with `not`.
    pub(crate) fn refused_values(&self, params: &Parameters<'_>) -> Vec<(ClaimPath, Value)> {
        let rules = self.any.iter().flatten();
        rules
            .flat_map(|rule| {
                let nots = rule.tests.iter().filter_map(|test| match test {
                    Test::Not(operands) => Some(operands),
                    Test::Equals(_) | Test::All(_) | Test::Any(_) => None,
                });
                nots.flatten()
                    .map(|operand| (rule.claim.clone(), operand.example(params)))
            })
            .collect()
    }
}

impl Rule {
    /// Adds claims that satisfy the rule; of `any`, the item `choice`.
    fn exemplify(&self, choice: usize, params: &Parameters<'_>, claims: &mut Map<String, Value>) {
        let mut holds = Vec::new();
        for test in &self.tests {
            match test {
                Test::Equals(operand) => holds.push(operand),
                Test::All(operands) => holds.extend(operands),
                Test::Any(operands) => {
                    holds.extend(operands.get(choice).or_else(|| operands.first()));
                }
                Test::Not(_) => {}
            }
        }
        for operand in &holds {
            // A comparison with another claim needs that claim.
            if let Operand::Claim(path) = operand
                && Claims::new(claims.clone()).at(path).is_none()
            {
                path.put(claims, SOME.into());
            }
        }
        let values: Vec<Value> = holds
            .iter()
            .map(|operand| operand.example(params))
            .collect();
        let value = match values.as_slice() {
            [] => return,
            [one] => one.clone(),
            many if self.is_scope => {
                let words: Vec<&str> = many.iter().filter_map(Value::as_str).collect();
                words.join(" ").into()
            }
            many => many.to_vec().into(),
        };
        self.claim.put(claims, value);
    }
}

impl Test {
    /// How many ways to satisfy it there are.
    fn choices(&self) -> usize {
        match self {
            Self::Any(operands) => operands.len(),
            Self::Equals(_) | Self::All(_) | Self::Not(_) => 1,
        }
    }
}

impl Operand {
    /// A value that satisfies it.
    fn example(&self, params: &Parameters<'_>) -> Value {
        match self {
            Self::Scalar(value) => value.clone(),
            Self::Parameter(name) => {
                let known = params.iter().find(|(known, _)| known == name);
                known.and_then(|(_, value)| *value).unwrap_or(SOME).into()
            }
            Self::Claim(_) => SOME.into(),
        }
    }
}

/// The scopes that a map of rules requires.
fn scope_of(rules: &[Rule]) -> Option<String> {
    let scopes: Vec<&str> = rules
        .iter()
        .filter(|rule| rule.is_scope)
        .flat_map(|rule| &rule.tests)
        .flat_map(|test| match test {
            Test::All(operands) | Test::Any(operands) => operands.as_slice(),
            Test::Equals(_) | Test::Not(_) => &[],
        })
        .filter_map(|operand| match operand {
            Operand::Scalar(value) => value.as_str(),
            Operand::Parameter(_) | Operand::Claim(_) => None,
        })
        // `scope-token` of RFC 6749 section 3.3.
        .filter(|word| {
            word.bytes()
                .all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
        })
        .collect();
    (!scopes.is_empty()).then(|| scopes.join(" "))
}

impl Rule {
    fn holds(&self, test: &Test, claims: &Claims, params: &Parameters<'_>) -> bool {
        let claim = match claims.at(&self.claim) {
            Some(Value::Object(_)) => return false,
            Some(claim) => claim,
            // Even for an absent claim, the operand of `not` must be known.
            None => {
                return match test {
                    Test::Not(operands) => operands
                        .iter()
                        .all(|one| one.resolve(claims, params).is_some()),
                    Test::Equals(_) | Test::All(_) | Test::Any(_) => false,
                };
            }
        };
        let contains = |operand: &Operand| {
            operand
                .resolve(claims, params)
                .map(|wanted| self.contains(claim, wanted))
        };
        match test {
            Test::Equals(operand) => operand
                .resolve(claims, params)
                .is_some_and(|wanted| wanted.equals(claim)),
            Test::All(operands) => operands.iter().all(|one| contains(one) == Some(true)),
            Test::Any(operands) => operands.iter().any(|one| contains(one) == Some(true)),
            Test::Not(operands) => operands.iter().all(|one| contains(one) == Some(false)),
        }
    }

    fn contains(&self, claim: &Value, wanted: Wanted<'_>) -> bool {
        if let Some(items) = claim.as_array() {
            items.iter().any(|item| wanted.equals(item))
        } else if let (true, Some(text)) = (self.is_scope, claim.as_str()) {
            wanted
                .text()
                .is_some_and(|wanted| text.split(' ').any(|word| word == wanted))
        } else {
            wanted.equals(claim)
        }
    }
}

impl Test {
    fn words(&self, claims: &Claims, params: &Parameters<'_>) -> String {
        let list = |operands: &[Operand]| {
            let words: Vec<String> = operands
                .iter()
                .map(|one| one.words(claims, params))
                .collect();
            words.join(", ")
        };
        match self {
            Self::Equals(operand) => format!("be {}", operand.words(claims, params)),
            Self::All(operands) => format!("hold {}", list(operands)),
            Self::Any(operands) => format!("hold one of {}", list(operands)),
            Self::Not(operands) => format!("hold none of {}", list(operands)),
        }
    }
}

/// What a claim is compared with.
#[derive(Clone, Copy)]
enum Wanted<'w> {
    Scalar(&'w Value),
    Parameter(&'w str),
}

/// Whether a number is written as a plain integer.
fn is_whole(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    text != "-0" && digits.bytes().all(|byte| byte.is_ascii_digit())
}

impl<'w> Wanted<'w> {
    fn equals(self, claim: &Value) -> bool {
        match self {
            Self::Scalar(value) => equal(value, claim),
            // A path segment has no type: 7 is the user of /users/7. Only digits written as JSON writes them count, so
            // /users/07 matches nobody.
            Self::Parameter(text) => match claim {
                Value::String(claim) => claim == text,
                Value::Number(claim) => claim.as_str() == text && is_whole(text),
                Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
            },
        }
    }

    fn text(self) -> Option<&'w str> {
        match self {
            Self::Scalar(value) => value.as_str(),
            Self::Parameter(text) => Some(text),
        }
    }
}

impl Operand {
    /// Its value; `None` where that is unknown.
    fn resolve<'w>(&'w self, claims: &'w Claims, params: &'w Parameters<'_>) -> Option<Wanted<'w>> {
        match self {
            Self::Scalar(value) => Some(Wanted::Scalar(value)),
            Self::Parameter(name) => {
                let (_, value) = params.iter().find(|(known, _)| known == name)?;
                value.map(Wanted::Parameter)
            }
            Self::Claim(path) => claims
                .at(path)
                .filter(|value| value.is_string() || value.is_number() || value.is_boolean())
                .map(Wanted::Scalar),
        }
    }
}

impl Operand {
    fn words(&self, claims: &Claims, params: &Parameters<'_>) -> String {
        let written = match self {
            Self::Scalar(value) => return value.to_string(),
            Self::Parameter(name) => format!("{{{name}}}"),
            Self::Claim(path) => format!("{{claim:{path}}}"),
        };
        let stands_for = match self.resolve(claims, params) {
            Some(Wanted::Scalar(value)) => value.to_string(),
            Some(Wanted::Parameter(text)) => format!("{text:?}"),
            None => "unknown".to_owned(),
        };
        format!("{written} (here {stands_for})")
    }
}

/// Parses rules and collects errors.
struct Reader<'k> {
    known_params: &'k [&'k str],
    mistakes: Vec<(String, String)>,
}

impl Reader<'_> {
    fn mistake(&mut self, place: &str, what: impl Into<String>) {
        self.mistakes.push((place.to_owned(), what.into()));
    }

    fn rules(&mut self, place: &str, rules: &Map<String, Value>) -> Vec<Rule> {
        if rules.is_empty() {
            self.mistake(
                place,
                "an empty map accepts every token; name a claim, or leave `require` out",
            );
        }
        rules
            .iter()
            .filter_map(|(name, value)| {
                let place = format!("{place}/{}", pointer(name));
                let claim = match ClaimPath::parse(name) {
                    Ok(claim) => claim,
                    Err(what) => {
                        self.mistake(&place, what);
                        return None;
                    }
                };
                let is_scope = claim.is("scope") || claim.is("scp");
                let tests = if let Some(tests) = value.as_object() {
                    self.tests(&place, tests, is_scope)
                } else if is_scope || value.is_array() {
                    vec![Test::All(self.operands(&place, value, is_scope))]
                } else {
                    self.operand(&place, value)
                        .map(Test::Equals)
                        .into_iter()
                        .collect()
                };
                Some(Rule {
                    claim,
                    is_scope,
                    tests,
                })
            })
            .collect()
    }

    fn tests(&mut self, place: &str, tests: &Map<String, Value>, is_scope: bool) -> Vec<Test> {
        const FORMS: &str = "write {any: [..]}, {all: [..]} or {not: ..}";
        if tests.is_empty() {
            self.mistake(place, FORMS);
        }
        tests
            .iter()
            .filter_map(|(form, value)| {
                let place = format!("{place}/{}", pointer(form));
                match form.as_str() {
                    "any" | "all" if !value.is_array() => {
                        self.mistake(&place, format!("`{form}` takes a list"));
                        None
                    }
                    "any" => Some(Test::Any(self.operands(&place, value, is_scope))),
                    "all" => Some(Test::All(self.operands(&place, value, is_scope))),
                    "not" => Some(Test::Not(self.operands(&place, value, is_scope))),
                    _ => {
                        self.mistake(&place, format!("{form} is unknown; {FORMS}"));
                        None
                    }
                }
            })
            .collect()
    }

    /// The items of a list, or a scalar as a list of one; for a set, each word.
    fn operands(&mut self, place: &str, value: &Value, is_scope: bool) -> Vec<Operand> {
        let items: Vec<(String, &Value)> = if let Some(items) = value.as_array() {
            items
                .iter()
                .enumerate()
                .map(|(at, item)| (format!("{place}/{at}"), item))
                .collect()
        } else {
            vec![(place.to_owned(), value)]
        };
        if items.is_empty() {
            self.mistake(place, "the list is empty; name the required values");
        }
        let mut operands = Vec::new();
        for (place, item) in items {
            let Some(text) = item.as_str().filter(|text| is_scope && !text.contains('{')) else {
                operands.extend(self.operand(&place, item));
                continue;
            };
            let words = text.split(' ').filter(|word| !word.is_empty());
            let before = operands.len();
            operands.extend(words.map(|word| Operand::Scalar(word.into())));
            if operands.len() == before {
                self.mistake(&place, "the scope is empty; name one");
            }
        }
        operands
    }

    fn operand(&mut self, place: &str, value: &Value) -> Option<Operand> {
        match value {
            Value::Bool(_) | Value::Number(_) => Some(Operand::Scalar(value.clone())),
            Value::String(text) => self.text(place, text),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                self.mistake(place, "write a text, a number, true or false here");
                None
            }
        }
    }

    fn text(&mut self, place: &str, text: &str) -> Option<Operand> {
        if !text.contains(['{', '}']) {
            return Some(Operand::Scalar(text.into()));
        }
        let Some(name) = text
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'))
            .filter(|name| !name.is_empty() && !name.contains(['{', '}']))
        else {
            self.mistake(
                place,
                "braces must enclose a whole value: \"{user}\" for a path parameter, or \
                 \"{claim:owner}\" for a claim",
            );
            return None;
        };
        if let Some(path) = name.strip_prefix("claim:") {
            return match ClaimPath::parse(path) {
                Ok(path) => Some(Operand::Claim(path)),
                Err(what) => {
                    self.mistake(place, what);
                    None
                }
            };
        }
        if !self.known_params.contains(&name) {
            let known: Vec<String> = self
                .known_params
                .iter()
                .map(|known| format!("{{{known}}}"))
                .collect();
            let known = if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            };
            self.mistake(
                place,
                format!(
                    "the route's path has no parameter {{{name}}}; it has {known}, and a claim is \
                     written \"{{claim:{name}}}\""
                ),
            );
            return None;
        }
        Some(Operand::Parameter(name.to_owned()))
    }
}

/// A name as a JSON pointer token (RFC 6901 section 3).
fn pointer(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests;
