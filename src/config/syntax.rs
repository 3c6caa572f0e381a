//! Rephrases the YAML parser's errors for users who do not know YAML's grammar.

use super::mask::quoted;

/// The parser's error in plain words: the problem, and what to write.
pub(crate) fn words(info: &str) -> (String, Option<&'static str>) {
    /// A part of the parser's message, the problem, the remedy. The first match applies.
    const WORDS: [(&str, &str, &str); 19] = [
        (
            "tab",
            "a tab where YAML wants spaces",
            "use spaces for indentation",
        ),
        (
            "valid YAML whitespace",
            "`:` or `-` needs a space after it",
            "no tab",
        ),
        (
            "mapping values are not allowed",
            "a `:` that does not fit here",
            "put a text with `: ` in it into quotes, or check the indentation",
        ),
        ("',' or '}'", "unexpected text in the map in braces", ""),
        ("',' or ']'", "unexpected text in the list in brackets", ""),
        (
            "expected '-'",
            "a list item without its `- `",
            "check the indentation",
        ),
        (
            "did not find expected key",
            "this does not fit to what is above",
            "check the indentation; put a text that begins with `[`, `{` or a quote into quotes",
        ),
        (
            "simple key",
            "a key without `:`, or a line that fits nowhere",
            "check the line above too",
        ),
        (
            "block scalar",
            "a text block (`|` or `>`) that is wrongly indented",
            "",
        ),
        (
            "unexpected end of stream",
            "a quote that is never closed",
            "",
        ),
        (
            "unexpected document indicator",
            "a quote that is never closed",
            "",
        ),
        (
            "escape",
            "an escape that YAML does not know",
            "single quotes take a backslash as it is",
        ),
        ("trailing content after", "text after the closing quote", ""),
        ("invalid indentation", "wrong indentation", ""),
        (
            "unknown anchor",
            "there is no anchor `&name` of this name above",
            "put it into quotes if a text is meant, such as \"*.example.com\"",
        ),
        (
            "anchor",
            "an anchor (`&name`) or an alias (`*name`) without a name",
            "put it into quotes if a text is meant",
        ),
        (
            "tag",
            "tags are not supported here",
            "put it into quotes if a text is meant",
        ),
        (
            "recursion limit",
            "more than 32 lists and maps in each other",
            "",
        ),
        (
            "cannot start with",
            "a text cannot begin so",
            "put it into quotes",
        ),
    ];
    if let Some(character) = info.strip_prefix("unexpected character: ") {
        let character = character.trim_matches(['`', '\'']);
        let problem = format!("a text cannot begin with {}", quoted(character));
        return (problem, Some("put it into quotes"));
    }
    match WORDS.iter().find(|(part, ..)| info.contains(part)) {
        Some((_, problem, "")) => ((*problem).to_owned(), None),
        Some((_, problem, hint)) => ((*problem).to_owned(), Some(*hint)),
        None => (format!("this is not YAML: {info}"), None),
    }
}
