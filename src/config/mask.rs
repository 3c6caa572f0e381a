//! Makes source lines safe for messages: hides secrets and control characters, and shortens long lines.

use super::place::{Excerpt, Place, Stretch};

/// The longest line that is shown completely, in characters.
const LONGEST: usize = 160;

/// The likelihood that a key's value is a secret.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Secrecy {
    /// It is not a secret.
    Open,
    /// The key is a near match of a secret's key: a text below it is hidden, a map is not.
    Near,
    /// Everything below the key is hidden.
    Secret,
}

/// Keys and header names whose values are secrets.
const SECRETS: [&str; 11] = [
    "secret",
    "token",
    "password",
    "read_token",
    "hmac",
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "api_key",
];

/// Whether the value of a header of this name is a secret.
pub(crate) fn is_secret_header(name: &str) -> bool {
    let name = name.to_lowercase();
    let words = ["secret", "token", "key", "password", "auth", "cookie"];
    words.iter().any(|word| name.contains(word))
}

/// Whether a key's value is a secret. A key that is misspelt by a letter or two counts as near.
pub(crate) fn secrecy(key: &str) -> Secrecy {
    let key = key.to_lowercase();
    if SECRETS.contains(&key.as_str()) {
        return Secrecy::Secret;
    }
    let near = |known: &str| {
        key.chars().next() == known.chars().next() && strsim::damerau_levenshtein(&key, known) <= 2
    };
    if SECRETS.iter().take(3).any(|known| near(known)) {
        Secrecy::Near
    } else {
        Secrecy::Open
    }
}

/// Whether a text is a URL with a user or password.
pub(crate) fn has_password(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.contains('@')
}

/// Splits a text as YAML does: at LF, CRLF and CR.
pub(crate) fn lines(text: &str) -> Vec<String> {
    text.split('\n')
        .map(|line| line.strip_suffix('\r').unwrap_or(line))
        .flat_map(|line| line.split('\r'))
        .map(str::to_owned)
        .collect()
}

/// Replaces characters that move the cursor or change the direction of text.
pub(crate) fn harmless(c: char) -> char {
    match c {
        '\t' => ' ',
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        '\u{2028}' | '\u{2029}' | '\u{feff}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

/// A text of the configuration for use inside a message: in backticks, on one line, at most 60 characters, and without
/// anything that looks like a secret, for example when a missing quote includes the lines below.
pub(crate) fn quoted(text: &str) -> String {
    let secret = value_of_secret(text);
    let mut shown = String::new();
    for c in text.chars().take(secret.unwrap_or(60).min(60)) {
        match c {
            '\n' | '\r' | '\t' => shown.push(harmless(c)),
            c => match super::invisible::name(c) {
                Some(_) => shown.push_str(&format!("<U+{:04X}>", u32::from(c))),
                None => shown.push(c),
            },
        }
    }
    if secret.is_some_and(|column| column < 60) {
        shown.push_str(" ***");
    } else if text.chars().nth(60).is_some() {
        shown.push_str("...");
    }
    format!("`{shown}`")
}

/// The line at a place with `***` for hidden parts, and the position of its caret.
pub(crate) fn excerpt(lines: &[String], hidden: &[Stretch], place: Place) -> Option<Excerpt> {
    let number = usize::try_from(place.line).ok()?;
    let line: Vec<char> = lines.get(number.checked_sub(1)?)?.chars().collect();
    let column = usize::try_from(place.column.saturating_sub(1))
        .ok()?
        .min(line.len());
    let length = usize::try_from(place.length).ok()?;

    // The visible characters, each with its original column.
    let mut shown: Vec<(char, usize)> = Vec::with_capacity(line.len());
    let mut before = None;
    for (at, c) in line.iter().enumerate() {
        if is_hidden(&line, number, at, hidden) {
            let starts = at == 0 || !is_hidden(&line, number, at - 1, hidden);
            if starts {
                shown.extend([('*', at); 3]);
            }
        } else {
            shown.push((harmless(*c), at));
        }
        if at == column {
            before = Some(match shown.last() {
                Some((_, last)) => shown.iter().position(|(_, at)| at == last).unwrap_or(0),
                None => 0,
            });
        }
    }
    let mut before = before.unwrap_or(shown.len());
    let marked = |at: usize| at >= column && at < column.saturating_add(length);
    let mut carets = shown
        .iter()
        .skip(before)
        .take_while(|(_, at)| marked(*at))
        .count();
    if shown.get(before).is_some_and(|(_, at)| *at < column) {
        carets = 3; // in the middle of a hidden part
    }

    let mut text: String = shown.iter().map(|(c, _)| c).collect();
    if shown.len() > LONGEST {
        let skipped = before.saturating_sub(LONGEST / 2);
        let part = shown.iter().skip(skipped).take(LONGEST).map(|(c, _)| c);
        text = part.collect();
        before -= skipped;
        carets = carets.min(LONGEST - before.min(LONGEST));
        if skipped > 0 {
            text.insert_str(0, "...");
            before += 3;
        }
        if shown.len() > skipped + LONGEST {
            text.push_str("...");
        }
    }
    Some(Excerpt {
        line: text.trim_end().to_owned(),
        before,
        carets: carets.max(1),
    })
}

/// Whether a character is in a hidden part. White space at a part's ends is not hidden, line by line.
fn is_hidden(line: &[char], number: usize, at: usize, hidden: &[Stretch]) -> bool {
    hidden.iter().any(|stretch| {
        let from = match stretch.from {
            (first, column) if first == number => column,
            (first, _) if first < number => 0,
            _ => return false,
        };
        let to = match stretch.to {
            (last, column) if last == number => column.min(line.len()),
            (last, _) if last > number => line.len(),
            _ => return false,
        };
        let ink = |part: Option<&[char]>| part.is_some_and(|p| p.iter().any(|c| *c != ' '));
        at >= from && at < to && ink(line.get(from..=at)) && ink(line.get(at..to))
    })
}

/// Finds what looks like a secret in a file that is not valid YAML: from the key to the line's end, and the lines that
/// may continue the value. Hides too much rather than too little.
pub(crate) fn by_looks(lines: &[String]) -> Vec<Stretch> {
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(column) = value_of_secret(line) else {
            continue;
        };
        let depth = indentation(line);
        let value: Vec<char> = line
            .chars()
            .skip(column)
            .filter(|c| !c.is_whitespace())
            .collect();
        let open = match value.first() {
            Some(quote @ ('"' | '\'')) => {
                (!value.get(1..).is_some_and(|rest| rest.contains(quote))).then_some(*quote)
            }
            _ => None,
        };
        let brackets = |of: [char; 2]| line.chars().filter(|c| of.contains(c)).count();
        let in_flow = brackets(['{', '[']) > brackets(['}', ']']);
        // A list below a key may have the same indentation as the key.
        let is_item = |next: &str| {
            value.is_empty() && indentation(next) == depth && next.trim_start().starts_with('-')
        };
        let mut last = index;
        for (number, next) in lines.iter().enumerate().skip(index + 1) {
            let deeper =
                indentation(next) > depth || in_flow && indentation(next) >= depth || is_item(next);
            if open.is_none() && !deeper && !next.trim().is_empty() {
                break;
            }
            last = number;
            if open.is_some_and(|quote| next.contains(quote)) {
                break;
            }
        }
        found.push(Stretch {
            from: (index + 1, column),
            to: (last + 1, usize::MAX),
        });
    }
    found
}

/// The indentation of a line.
fn indentation(line: &str) -> usize {
    line.chars().take_while(|c| matches!(c, ' ' | '\t')).count()
}

/// The column after the colon of the line's first key whose value is a secret.
fn value_of_secret(line: &str) -> Option<usize> {
    let mut word = String::new();
    let mut ended = false;
    for (column, c) in line.chars().enumerate() {
        match c {
            ':' if secrecy(&word) != Secrecy::Open
                || word.contains('-') && is_secret_header(&word) =>
            {
                return Some(column + 1);
            }
            'A'..='Z' | 'a'..='z' | '0'..='9' | '_' | '-' => {
                if ended {
                    word.clear();
                }
                ended = false;
                word.push(c);
            }
            ' ' | '\t' | '"' | '\'' => ended = true,
            _ => word.clear(),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_with_a_password_is_a_secret() {
        assert!(has_password("redis://:s3cret@h:6379/2") && has_password("http://a@h"));
        assert!(!has_password("redis://h:6379/a@b") && !has_password("a@b"));
    }

    #[track_caller]
    fn check(line: &str, hidden: &[(usize, usize)], column: u32, length: u32, expected: &str) {
        let hidden: Vec<Stretch> = hidden
            .iter()
            .map(|(a, b)| Stretch {
                from: (1, *a),
                to: (1, *b),
            })
            .collect();
        let place = Place {
            file: 0,
            line: 1,
            column,
            length,
        };
        let shown = excerpt(&[line.to_owned()], &hidden, place).unwrap();
        let carets = "^".repeat(shown.carets);
        let seen = format!("{}\n{:2$}{carets}", shown.line, "", shown.before);
        assert_eq!(seen, expected, "{line}");
    }

    #[test]
    fn the_line_is_shown_without_what_is_hidden() {
        check("a: word", &[], 4, 4, "a: word\n   ^^^^");
        check(
            "a: hunter2, b: c",
            &[(3, 10)],
            13,
            1,
            "a: ***, b: c\n        ^",
        );
        check("a: hunter2, b: c", &[(3, 10)], 4, 7, "a: ***, b: c\n   ^^^");
        check("a: hunter2, b: c", &[(3, 10)], 6, 1, "a: ***, b: c\n   ^^^");
        check("a: h2 ", &[(0, 6)], 1, 1, "***\n^^^");
        check(
            "a:\tb\u{202e}\u{1b}[0m",
            &[],
            1,
            1,
            "a: b\u{fffd}\u{fffd}[0m\n^",
        );
        check("past the end", &[], 99, 9, "past the end\n            ^");
    }

    #[test]
    fn a_long_line_is_cut_around_the_caret() {
        let line = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let place = Place {
            file: 0,
            line: 1,
            column: 501,
            length: 1,
        };
        let shown = excerpt(&[line], &[], place).unwrap();
        assert_eq!(shown.line.chars().nth(shown.before), Some('X'));
        assert!(shown.line.len() < 200);
    }

    #[test]
    fn a_text_in_a_message_is_short_and_without_secrets() {
        assert_eq!(quoted("a\tb\n"), "`a b\u{fffd}`");
        assert_eq!(quoted(&"x".repeat(61)), format!("`{}...`", "x".repeat(60)));
        assert_eq!(
            quoted("[HS256] secret: hunter2 typ: x"),
            "`[HS256] secret: ***`"
        );
    }

    #[track_caller]
    fn check_looks(text: &str, expected: &[&str]) {
        let lines = lines(text);
        let hidden = by_looks(&lines);
        let shown: Vec<String> = (1..)
            .zip(&lines)
            .map(|(line, _)| Place {
                file: 0,
                line,
                column: 1,
                length: 1,
            })
            .filter_map(|place| excerpt(&lines, &hidden, place))
            .map(|shown| shown.line)
            .collect();
        assert_eq!(shown, expected, "{text}");
    }

    #[test]
    fn secrets_are_found_by_their_looks() {
        check_looks("a: 1\nsecret: x: y\nb: 2", &["a: 1", "secret: ***", "b: 2"]);
        check_looks("{a: 1, \"secret\" : x", &["{a: 1, \"secret\" : ***"]);
        check_looks(
            "  secret: |\n    k: v\n  b: 2",
            &["  secret: ***", "    ***", "  b: 2"],
        );
        check_looks(
            "token: \"a\nb\nc\"\nd: 1",
            &["token: ***", "***", "***", "d: 1"],
        );
        check_looks("secert: abc", &["secert: ***"]);
        check_looks("read_token: abc", &["read_token: ***"]);
        check_looks("set: {X-Auth-Key: abc", &["set: {X-Auth-Key: ***"]);
        check_looks("strip_token: true", &["strip_token: true"]);
        check_looks("weak_secret: allow", &["weak_secret: allow"]);
        check_looks(
            "  secret:\n  - x\n  -   y: z\n  typ: JWT",
            &["  secret:", "  ***", "  ***", "  typ: JWT"],
        );
    }
}
