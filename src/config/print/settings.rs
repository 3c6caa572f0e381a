//! The settings of a printed configuration one by one, so that two configurations can be compared.

use std::collections::BTreeMap;

use serde_yaml::Value;

/// Stands for the name of an item that has none.
const NO_NAME: &str = "(no name)";
/// What stands between the names of a way. Not a dot, which names of routes and hosts have in them.
pub(crate) const SEPARATOR: &str = " ";

/// Each setting of a printed configuration by the way to it, such as `routes /api/* body_bytes`. What stands in a list
/// goes by its name, so that a new first route does not change all others. `None` where it is no YAML.
pub(crate) fn settings(printed: &str) -> Option<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    flatten("", &serde_yaml::from_str(printed).ok()?, &mut found);
    Some(found)
}

fn flatten(at: &str, value: &Value, found: &mut BTreeMap<String, String>) {
    let below = |name: &str| match at {
        "" => name.to_owned(),
        _ => format!("{at}{SEPARATOR}{name}"),
    };
    match value {
        Value::Mapping(members) => {
            for (name, value) in members {
                let name = text(name);
                if name != "tests" || !at.is_empty() {
                    flatten(&below(&name), value, found);
                }
            }
        }
        Value::Sequence(items) if items.iter().any(Value::is_mapping) => {
            for item in items {
                flatten(&below(&name_of(item)), item, found);
            }
        }
        Value::Sequence(items) => {
            let items: Vec<String> = items.iter().map(text).collect();
            found.insert(at.to_owned(), format!("[{}]", items.join(", ")));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Tagged(_) => {
            found.insert(at.to_owned(), text(value));
        }
    }
}

/// What tells an item of a list from the others.
fn name_of(item: &Value) -> String {
    let member = |name: &str| item.get(name).map(text);
    let place = |name: &str| {
        let methods = member("methods")
            .map(|it| format!("{it} "))
            .unwrap_or_default();
        let host = member("host")
            .filter(|host| host != "~" && host != "null")
            .unwrap_or_default();
        member(name).map(|path| format!("{methods}{host}{path}"))
    };
    let name = member("name")
        .or_else(|| place("path"))
        .or_else(|| member("address"));
    name.or_else(|| member("url"))
        .unwrap_or_else(|| NO_NAME.to_owned())
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::Sequence(_)
        | Value::Mapping(_)
        | Value::Tagged(_) => serde_yaml::to_string(value).map_or_else(
            |_| NO_NAME.to_owned(),
            |text| text.trim_end().replace('\n', " "),
        ),
    }
}
