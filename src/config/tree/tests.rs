//! YAML as people write it, as a tree with places, and what is refused.

use proptest::prelude::*;

use super::*;

/// The tree on one line: scalars as they are, quoted ones in quotes.
fn brief(node: &Node) -> String {
    let list = |items: Vec<String>| items.join(", ");
    match &node.kind {
        Kind::Null => "~".to_owned(),
        Kind::Broken => "!".to_owned(),
        Kind::Scalar(s) if s.hidden => "***".to_owned(),
        Kind::Scalar(s) if s.quoted => format!("{:?}", s.text),
        Kind::Scalar(s) => s.text.clone(),
        Kind::List(items) => format!("[{}]", list(items.iter().map(brief).collect())),
        Kind::Map(entries) => {
            let entry = |(key, node): &(Key, Node)| format!("{}: {}", key.text, brief(node));
            format!("{{{}}}", list(entries.iter().map(entry).collect()))
        }
    }
}

fn read(text: &str) -> (Option<Node>, Errors) {
    let mut errors = Errors::default();
    let file = errors.add_file("a.yaml", text);
    let node = parse(file, text, &mut errors);
    (node, errors)
}

#[track_caller]
fn check(text: &str, expected: &str) {
    let (node, errors) = read(text);
    assert!(errors.is_empty(), "{}", errors.finish().unwrap_err());
    assert_eq!(node.as_ref().map_or_else(String::new, brief), expected);
}

#[test]
fn plain_yaml_is_read() {
    check(
        "a: 1\nb: [x, 'y', {c: ~}]\nd:\n",
        "{a: 1, b: [x, \"y\", {c: ~}], d: ~}",
    );
    check("- a\n- b: |\n    t\n", "[a, {b: \"t\\n\"}]");
    check("---\na: 1 # c\n", "{a: 1}");
    check("# nothing\n", "");
    check(
        "jwt: {token: {secret: x, secrets: [y], typ: z}}",
        "{jwt: {token: {secret: ***, secrets: [***], typ: z}}}",
    );
    check("secret: {a: [b]}", "{secret: {a: [***]}}");
    check(
        "set: {X-Api-Token: a, X-AuthUser: b, Cookies: c, Monkey: d, X-User: e}",
        "{set: {X-Api-Token: ***, X-AuthUser: ***, Cookies: ***, Monkey: ***, X-User: e}}",
    );
    check(
        "headers: {x-secret-1: a, Host: b}",
        "{headers: {x-secret-1: ***, Host: b}}",
    );
    check(
        "certificates: {key: a, read_token: b}",
        "{certificates: {key: a, read_token: ***}}",
    );
}

#[test]
fn pairs_of_surrogates_are_characters_in_double_quotes_alone() {
    check(
        r#"{"a\ud83d\uDE00": "\uD83D\uDE00b", 'c': '\ud83d'}"#,
        "{a\u{1f600}: \"\u{1f600}b\", c: \"\\\\ud83d\"}",
    );
    check(
        "a: \\ud83d\\ude00\nb: |\n  \\ud83d\n",
        "{a: \\ud83d\\ude00, b: \"\\\\ud83d\\n\"}",
    );
    refuse(
        "a: 1\nb: {c: \"\\ude00\"}",
        "a.yaml:2:8: an escape that is half of a pair (`\\ud83d\\ude00` is one character)\n    2 | b: {c: \"\\ude00\"}\n      |        ^^^^^^^^",
    );
}

#[test]
fn a_key_in_quotes_is_what_it_says() {
    check("{'<<': 1, \"${A}\": 2}", "{<<: 1, ${A}: 2}");
}

#[track_caller]
fn refuse(text: &str, expected: &str) {
    let (_, errors) = read(text);
    let seen = errors
        .finish()
        .map_or_else(|errors| errors.to_string(), |()| "no error".to_owned());
    let seen = seen
        .rsplit_once("\n\n")
        .map_or(seen.as_str(), |(errors, _)| errors);
    assert_eq!(seen, expected, "{text}\n{seen}");
}

#[test]
fn what_is_not_plain_is_refused_at_its_place() {
    refuse(
        "a: 1\na: 2",
        "a.yaml:2:1: `a` is here twice; it was at a.yaml:1:1 first\n    2 | a: 2\n      | ^",
    );
    refuse(
        "a: !t 1",
        "a.yaml:1:4: tags (`!name`) are not supported here\n    1 | a: !t 1\n      |    ^^^^",
    );
    refuse(
        "[a]: 1",
        "a.yaml:1:1: a list or map as a key is not supported here\n    1 | [a]: 1\n      | ^",
    );
    refuse(
        "a: 1\n---\nb: 2",
        "a.yaml:2:1: a second document in one file is not supported here\n    2 | ---\n      | ^^^",
    );
    refuse(
        "${A}: 1",
        "a.yaml:1:1: variables are expanded in values, not in keys\n    1 | ${A}: 1\n      | ^^^^",
    );
    refuse(
        ": 1",
        "a.yaml:1:1: a key without a name\n    1 | : 1\n      | ^",
    );
    refuse(
        "a:\n\tb: 1",
        "a.yaml:2:2: a tab where YAML wants spaces\n    2 |  b: 1\n      |  ^ use spaces for indentation",
    );
    refuse(
        "a: 'x",
        "a.yaml:1:4: a quote that is never closed\n    1 | a: 'x\n      |    ^",
    );
    refuse(
        "a: @x",
        "a.yaml:1:4: a text cannot begin with `@`\n    1 | a: @x\n      |    ^ put it into quotes",
    );
    refuse(
        "a: b: c",
        "a.yaml:1:5: a `:` that does not fit here\n    1 | a: b: c\n      |     ^ put a text with `: ` in it into quotes, or check the indentation",
    );
    refuse(
        "a: [1\n\n",
        "a.yaml:1:6: unexpected text in the list in brackets\n    1 | a: [1\n      |      ^ a comma or the closing bracket (opened at a.yaml:1:4); inside brackets write \"${NAME}\" and addresses in quotes",
    );
    refuse(
        "secret: abc: d\n",
        "a.yaml:1:12: a `:` that does not fit here\n    1 | secret: ***\n      |         ^^^ put a text with `: ` in it into quotes, or check the indentation",
    );
}

#[test]
fn aliases_are_copies_of_what_their_anchors_mark() {
    check("a: &x 1\nb: *x\n", "{a: 1, b: 1}");
    check(
        "a: &x [1, {b: 2}]\nc: [*x, *x]\n",
        "{a: [1, {b: 2}], c: [[1, {b: 2}], [1, {b: 2}]]}",
    );
    check("a: &x 1\nb: &x 2\nc: *x\n", "{a: 1, b: 2, c: 2}");
    check("a: &x b\n*x : c\n", "{a: b, b: c}");
    check("a: &x\nb: *x\n", "{a: ~, b: ~}");
    check("a: &x s\nsecret: *x\n", "{a: s, secret: ***}");
    check("secret: &x s\na: *x\n", "{secret: ***, a: ***}");
}

#[test]
fn merge_keys_take_in_maps_and_own_keys_win() {
    check(
        "a: &x {p: 1, q: 2}\nb:\n  <<: *x\n  q: 3\n",
        "{a: {p: 1, q: 2}, b: {q: 3, p: 1}}",
    );
    check(
        "a: &x {p: 1, q: 2}\nb: {q: 3, <<: *x}\n",
        "{a: {p: 1, q: 2}, b: {q: 3, p: 1}}",
    );
    check(
        "- &x {p: 1}\n- &y {p: 2, q: 2}\n- {<<: [*x, *y], r: 3}\n",
        "[{p: 1}, {p: 2, q: 2}, {r: 3, p: 1, q: 2}]",
    );
    check("<<: {a: 1}\nb: 2\n", "{b: 2, a: 1}");
    check(
        "- &x {p: 1}\n- &y {<<: *x, q: 2}\n- {<<: *y}\n",
        "[{p: 1}, {q: 2, p: 1}, {q: 2, p: 1}]",
    );
    check("'<<': 1", "{<<: 1}");
}

#[test]
fn aliases_that_stand_for_nothing_or_too_much_are_refused() {
    let first = |text: &str| {
        let (_, errors) = read(text);
        let errors = errors.finish().unwrap_err();
        let first = errors.iter().next().unwrap();
        format!("{}:{}: {}", first.line, first.column, first.problem)
    };
    for (text, expected) in [
        (
            "a: &x {b: *x}",
            "1:11: this alias stands inside of what it stands for",
        ),
        (
            "a: &x [*x]",
            "1:8: this alias stands inside of what it stands for",
        ),
        (
            "a: *x",
            "1:4: there is no anchor `&name` of this name above",
        ),
        (
            "host: *.example.com",
            "1:7: there is no anchor `&name` of this name above",
        ),
        (
            "a: &x 1\nb: {<<: *x}",
            "1:4: a merge key (`<<`) takes a map, or a list of maps (for the alias at a.yaml:2:9)",
        ),
        (
            "<<: [1]",
            "1:6: a merge key (`<<`) takes a map, or a list of maps",
        ),
        ("<<: {a: 1}\n<<: {b: 2}", "2:1: `<<` is here twice"),
    ] {
        assert_eq!(first(text), expected, "{text}");
    }
    // Nested aliases that would expand to a billion values.
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    assert_eq!(
        first(&text),
        "4:45: the aliases stand for more than 10,000 values in all"
    );
    let deep = (1..40).fold("a0: &a0 [x]\n".to_owned(), |text, level| {
        format!("{text}a{level}: &a{level} [*a{}]\n", level - 1)
    });
    assert_eq!(
        first(&deep),
        "32:12: more than 32 lists and maps in each other"
    );
}

#[test]
fn a_secret_that_is_an_alias_is_shown_nowhere() {
    let (_, mut errors) = read("a: &x hunter2\nsecret: *x\n");
    errors.at(
        Place {
            file: 0,
            line: 1,
            column: 1,
            length: 1,
        },
        "wrong",
    );
    let said = errors.finish().unwrap_err().to_string();
    assert!(
        said.contains("wrong") && !said.contains("hunter2"),
        "{said}"
    );
}

#[test]
fn what_nobody_sees_is_named_at_its_place() {
    let said = |text: &str| {
        let (_, errors) = read(text);
        let errors = errors.finish().unwrap_err();
        let first = errors.iter().next().unwrap();
        format!("{}:{}: {}", first.line, first.column, first.problem)
    };
    for (text, expected) in [
        (
            "a: 1\nb: 2\n\0",
            "3:1: U+0000 (NUL) has no place in a file of YAML",
        ),
        (
            "a: \"x\u{1b}\"",
            "1:6: U+001B (a control character) has no place in a file of YAML",
        ),
        (
            "a: 1\n\u{feff}b: 2",
            "2:1: U+FEFF (byte order mark) has no place in a file of YAML",
        ),
        (
            "a: 1\n\u{a0}b: 2\nc: 3",
            "2:1: this key has U+00A0 (no-break space) in it",
        ),
        (
            "a: 1\n\u{200b}b: 2",
            "2:1: this key has U+200B (zero-width space) in it",
        ),
        (
            "b:\u{a0}{c: 2}",
            "1:3: this key has U+00A0 (no-break space) in it",
        ),
        (
            "a: 10s\u{a0}",
            "1:7: this text ends in U+00A0 (no-break space)",
        ),
        (
            "a: [\u{200b}x]",
            "1:5: this text begins with U+200B (zero-width space)",
        ),
        (
            "a:\n  b: 1\n\u{a0} c: 2",
            "3:1: this key has U+00A0 (no-break space) in it",
        ),
    ] {
        assert_eq!(said(text), expected, "{text:?}");
    }
    check(
        "a: \"\u{a0}x\" # \u{200b}\nb: x\u{a0}y\n",
        "{a: \"\\u{a0}x\", b: x\u{a0}y}",
    );
}

#[test]
fn depth_has_an_end() {
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    assert!(read(&deep(32)).1.is_empty());
    assert_eq!(read(&deep(33)).1.count(), 1);
    assert_eq!(read(&deep(5000)).1.count(), 1);
    let steps: String = (0..200).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
    assert_eq!(read(&steps).1.count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_text_stops_the_reader(text in any::<String>()) {
        let (_, errors) = read(&text);
        let _shown = errors.finish().map_err(|errors| errors.to_string());
    }

    #[test]
    fn no_text_of_yaml_signs_stops_the_reader(text in "[-a:?&*!|>'\"%@`{}\\[\\], #\n\t\r.<~0$\u{feff}\u{85}\\\\]{0,40}") {
        let (_, errors) = read(&text);
        let _shown = errors.finish().map_err(|errors| errors.to_string());
    }
}
