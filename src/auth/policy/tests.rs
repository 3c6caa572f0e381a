//! Rules for claims: what they mean, and what is wrong with them.

use serde_json::json;

use super::*;

#[track_caller]
#[expect(
    clippy::needless_pass_by_value,
    reason = "rows read better without references"
)]
fn check(require: Value, claims: Value, expected: bool) {
    let requirement = Requirement::parse(&require, &["user", "raw"])
        .unwrap_or_else(|mistakes| panic!("{require}: {mistakes:?}"));
    let known = Claims::new(claims.as_object().unwrap().clone());
    let params = [("user", Some("7")), ("raw", None)];
    assert_eq!(
        requirement.is_satisfied(&known, &params),
        expected,
        "{require} of {claims}"
    );
}

#[test]
fn a_scalar_is_equal() {
    check(json!({"sub": "a"}), json!({"sub": "a"}), true);
    check(json!({"sub": "a"}), json!({"sub": "b"}), false);
    check(json!({"sub": "a"}), json!({}), false);
    check(json!({"sub": "a"}), json!({"sub": ["a"]}), false);
    check(json!({"level": 3}), json!({"level": 3.0}), true);
    check(json!({"level": 3}), json!({"level": "3"}), false);
    check(json!({"mfa": true}), json!({"mfa": true}), true);
    check(json!({"mfa": true}), json!({"mfa": "true"}), false);
    check(json!({"a.b": "x"}), json!({"a": {"b": "x"}}), true);
    check(json!({r"a\.b": "x"}), json!({"a.b": "x"}), true);
    check(json!({"sub": "a"}), json!({"sub": {"a": 1}}), false);
    check(json!({"sub": "a"}), json!({"sub": null}), false);
}

#[test]
fn a_list_is_held_whole() {
    check(
        json!({"roles": ["a", "b"]}),
        json!({"roles": ["b", "c", "a"]}),
        true,
    );
    check(json!({"roles": ["a", "b"]}), json!({"roles": ["a"]}), false);
    check(json!({"roles": ["a"]}), json!({"roles": "a"}), true);
    check(json!({"roles": ["a"]}), json!({"roles": "a b"}), false);
    check(
        json!({"roles": ["a"]}),
        json!({"roles": {"a": true}}),
        false,
    );
    check(
        json!({"roles": {"all": ["a", "b"]}}),
        json!({"roles": ["a", "b"]}),
        true,
    );
    check(
        json!({"roles": {"all": ["a", "b"]}}),
        json!({"roles": ["b"]}),
        false,
    );
}

#[test]
fn scopes_are_sets_of_words() {
    for name in ["scope", "scp"] {
        check(json!({name: ["r"]}), json!({name: "r w"}), true);
        check(json!({name: ["r", "w"]}), json!({name: "w r"}), true);
        check(json!({name: ["r", "w"]}), json!({name: ["w", "r"]}), true);
        check(json!({name: ["r"]}), json!({name: "rw"}), false);
        check(json!({name: "r"}), json!({name: "w r"}), true);
        check(json!({name: "r w"}), json!({name: "w x r"}), true);
        check(json!({name: "r w"}), json!({name: "w"}), false);
        check(
            json!({name: {"any": ["x", "r"]}}),
            json!({name: "w r"}),
            true,
        );
        check(json!({name: {"not": "r"}}), json!({name: "w r"}), false);
    }
}

#[test]
fn any_one_is_enough_and_not_one_is_too_many() {
    check(
        json!({"r": {"any": ["a", "b"]}}),
        json!({"r": ["c", "b"]}),
        true,
    );
    check(json!({"r": {"any": ["a", "b"]}}), json!({"r": "b"}), true);
    check(
        json!({"r": {"any": ["a", "b"]}}),
        json!({"r": ["c"]}),
        false,
    );
    check(json!({"r": {"any": ["a", "b"]}}), json!({}), false);
    check(json!({"r": {"not": ["a", "b"]}}), json!({"r": ["c"]}), true);
    check(
        json!({"r": {"not": ["a", "b"]}}),
        json!({"r": ["c", "a"]}),
        false,
    );
    check(json!({"r": {"not": "a"}}), json!({"r": "a"}), false);
    check(json!({"r": {"not": "a"}}), json!({"r": {"a": 1}}), false);
    check(json!({"r": {"not": "a"}}), json!({}), true);
    check(
        json!({"r": {"any": ["a"], "not": ["b"]}}),
        json!({"r": ["a", "b"]}),
        false,
    );
    check(
        json!({"r": {"any": ["a"], "not": ["b"]}}),
        json!({"r": ["a", "c"]}),
        true,
    );
}

#[test]
fn parameters_and_other_claims_are_looked_up() {
    check(json!({"sub": "{user}"}), json!({"sub": "7"}), true);
    check(json!({"sub": "{user}"}), json!({"sub": 7}), true);
    check(json!({"sub": "{user}"}), json!({"sub": "8"}), false);
    check(json!({"sub": "{user}"}), json!({"sub": 7.0}), false);
    check(json!({"sub": "{user}"}), json!({"sub": true}), false);
    check(json!({"ids": ["{user}"]}), json!({"ids": [1, 7]}), true);
    check(json!({"sub": "{raw}"}), json!({"sub": "7"}), false);
    check(json!({"sub": {"not": "{raw}"}}), json!({"sub": "7"}), false);
    check(json!({"sub": {"not": "{raw}"}}), json!({}), false);
    check(
        json!({"sub": "{claim:owner}"}),
        json!({"sub": "a", "owner": "a"}),
        true,
    );
    check(
        json!({"sub": "{claim:owner}"}),
        json!({"sub": "a", "owner": "b"}),
        false,
    );
    check(json!({"sub": "{claim:owner}"}), json!({"sub": "a"}), false);
    check(
        json!({"sub": "{claim:owner}"}),
        json!({"sub": null, "owner": null}),
        false,
    );
    check(
        json!({"sub": {"not": "{claim:owner}"}}),
        json!({"sub": "a"}),
        false,
    );
    check(
        json!({"sub": {"any": ["{claim:a.b}"]}}),
        json!({"sub": "x", "a": {"b": "x"}}),
        true,
    );
}

#[test]
fn all_rules_of_one_map_hold() {
    let both = json!({"a": 1, "b": 2});
    check(both.clone(), json!({"a": 1, "b": 2}), true);
    check(both, json!({"a": 1}), false);
    let either = json!([{"a": 1, "b": 2}, {"c": 3}]);
    check(either.clone(), json!({"c": 3}), true);
    check(either.clone(), json!({"a": 1, "b": 2}), true);
    check(either, json!({"a": 1, "c": 4}), false);
}

#[test]
fn what_is_not_as_it_must_be_is_said() {
    let require = json!([
        {"sub": "{user}", "scope": ["read", "write"], "ok": true},
        {"realm_access.roles": {"any": ["clerk", "admin"], "not": "guest"}, "o": "{claim:p}"},
    ]);
    let requirement = Requirement::parse(&require, &["user"]).unwrap();
    let claims = json!({"sub": "8", "scope": "read", "ok": true, "realm_access": {"roles": ["guest"]}, "o": 1});
    let claims = Claims::new(claims.as_object().unwrap().clone());
    let params = [("user", Some("7"))];
    assert_eq!(
        requirement.why_not(&claims, &params),
        [
            "alternative 1:",
            r#"scope is "read", and must hold "read", "write""#,
            r#"sub is "8", and must be {user} (here "7")"#,
            "alternative 2:",
            "o is 1, and must be {claim:p} (here unknown)",
            r#"realm_access.roles is ["guest"], and must hold one of "clerk", "admin""#,
            r#"realm_access.roles is ["guest"], and must hold none of "guest""#,
        ]
    );
    let good = json!({"sub": "7", "scope": "write read", "ok": true});
    let good = Claims::new(good.as_object().unwrap().clone());
    assert!(requirement.why_not(&good, &params).is_empty());
}

#[track_caller]
#[expect(
    clippy::needless_pass_by_value,
    reason = "rows read better without references"
)]
fn refuses(require: Value, places: &[&str]) {
    let mistakes = Requirement::parse(&require, &["user"]).unwrap_err();
    let seen: Vec<&str> = mistakes.iter().map(|(place, _)| place.as_str()).collect();
    assert_eq!(seen, places, "{require}: {mistakes:?}");
}

#[test]
fn mistakes_are_named_by_their_place_all_at_once() {
    refuses(json!(null), &[""]);
    refuses(json!("admin"), &[""]);
    refuses(json!([]), &[""]);
    refuses(json!({}), &[""]);
    refuses(json!([{"a": 1}, {}, 3]), &["/1", "/2"]);
    refuses(json!({"a": null}), &["/a"]);
    refuses(json!({"a": []}), &["/a"]);
    refuses(json!({"a": ["x", ["y"]]}), &["/a/1"]);
    refuses(json!({"a": {}}), &["/a"]);
    refuses(json!({"a": {"any": "x"}}), &["/a/any"]);
    refuses(json!({"a": {"any": []}}), &["/a/any"]);
    refuses(json!({"a": {"none": ["x"]}}), &["/a/none"]);
    refuses(json!({"a": {"not": {"any": ["x"]}}}), &["/a/not"]);
    refuses(
        json!({"a": "{other}", "b": ["x-{user}"], "c": "{claim:}"}),
        &["/a", "/b/0", "/c"],
    );
    refuses(
        json!({"a..b": 1, "https://x": "{"}),
        &["/a..b", "/https:~1~1x"],
    );
    refuses(json!({"scope": " "}), &["/scope"]);
}

#[test]
fn the_scope_that_is_needed_is_told() {
    let scope = |require: Value| {
        Requirement::parse(&require, &[])
            .unwrap()
            .scope()
            .map(str::to_owned)
    };
    assert_eq!(
        scope(json!({"scope": ["r", "w"], "x": 1})).as_deref(),
        Some("r w")
    );
    assert_eq!(scope(json!([{"x": 1}, {"scp": "r"}])).as_deref(), Some("r"));
    assert_eq!(scope(json!({"scope": {"not": "r"}})), None);
    assert_eq!(scope(json!({"scope": ["a\"b", "c"]})).as_deref(), Some("c"));
    assert_eq!(scope(json!({"x": 1})), None);
}
