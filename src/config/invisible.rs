//! Invisible characters: which they are, their names, and where they cause problems in a file.

use super::place::Place;

/// The name of a character that is invisible or looks like a space; `None` for all others.
pub(crate) fn name(c: char) -> Option<String> {
    let word = match c {
        ' ' | '\t' | '\n' | '\r' => return None,
        '\0' => "NUL",
        '\u{85}' => "next line",
        '\u{a0}' => "no-break space",
        '\u{ad}' => "soft hyphen",
        '\u{200b}' => "zero-width space",
        '\u{200c}' => "zero-width non-joiner",
        '\u{200d}' => "zero-width joiner",
        '\u{200e}' => "left-to-right mark",
        '\u{200f}' => "right-to-left mark",
        '\u{2028}' => "line separator",
        '\u{2029}' => "paragraph separator",
        '\u{202f}' => "narrow no-break space",
        '\u{2060}' => "word joiner",
        '\u{3000}' => "ideographic space",
        '\u{feff}' => "byte order mark",
        '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{205f}' => "a blank that is not the usual one",
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{61c}' => {
            "a mark of the direction of text"
        }
        '\u{34f}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{17b4}'
        | '\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{2061}'..='\u{2065}'
        | '\u{206a}'..='\u{206f}'
        | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e0fff}' => "an invisible character",
        c if c.is_control() => "a control character",
        _ => return None,
    };
    Some(format!("U+{:04X} ({word})", u32::from(c)))
}

/// Whether YAML forbids a character even in comments and quotes (YAML 1.2.2 section 5.1). A byte order mark is allowed
/// only at the start of a file, where it was already removed.
pub(crate) fn is_forbidden(c: char) -> bool {
    match c {
        '\t' | '\n' | '\r' | '\u{85}' => false,
        '\u{feff}' | '\u{fffe}' | '\u{ffff}' => true,
        c => c.is_control(),
    }
}

/// The places of a text's forbidden characters, and their names; ten at most.
pub(crate) fn forbidden(file: u16, lines: &[String]) -> Vec<(Place, String)> {
    let found = lines.iter().enumerate().flat_map(|(line, text)| {
        let characters = text.chars().enumerate();
        let bad = characters.filter(|(_, c)| is_forbidden(*c));
        bad.map(move |(column, c)| (place(file, line, column), c))
    });
    let named = found.map(|(place, c)| {
        let name = name(c).unwrap_or_else(|| format!("U+{:04X}", u32::from(c)));
        (place, name)
    });
    named.take(10).collect()
}

/// The last invisible character outside quotes and comments, up to the end of this line, from 1: the likely cause of a
/// parser's error on that line.
pub(crate) fn before(file: u16, lines: &[String], last: u32) -> Option<(Place, String)> {
    let last = usize::try_from(last).unwrap_or(usize::MAX);
    let all = lines.iter().enumerate().take(last).rev();
    all.filter_map(|(line, text)| {
        let (column, name) = outside_quotes(text)?;
        Some((place(file, line, column), name))
    })
    .next()
}

/// The first invisible character of a line outside quotes and comments.
fn outside_quotes(line: &str) -> Option<(usize, String)> {
    let mut quote = None;
    let mut last = ' ';
    for (column, c) in line.chars().enumerate() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '#' && last.is_whitespace() => return None,
            None if matches!(c, '"' | '\'') && !last.is_alphanumeric() => quote = Some(c),
            None => {
                if let Some(name) = name(c) {
                    return Some((column, name));
                }
            }
        }
        last = c;
    }
    None
}

/// The first invisible character of a key: its index, from 0, and its name.
pub(crate) fn in_key(key: &str) -> Option<(usize, String)> {
    let mut characters = key.chars().enumerate();
    characters.find_map(|(at, c)| Some((at, name(c)?)))
}

/// An invisible character at the beginning or end of a text: its index, from 0, the words for its position, and its
/// name.
pub(crate) fn at_an_end(text: &str) -> Option<(usize, &'static str, String)> {
    let first = text.chars().next().and_then(name);
    let last = || text.chars().next_back().and_then(name);
    let at = || text.chars().count().saturating_sub(1);
    first
        .map(|name| (0, "begins with", name))
        .or_else(|| last().map(|name| (at(), "ends in", name)))
}

fn place(file: u16, line: usize, column: usize) -> Place {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).saturating_add(1);
    Place {
        file,
        line: number(line),
        column: number(column),
        length: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_has_a_name() {
        for (c, expected) in [
            ('\0', "U+0000 (NUL)"),
            ('\u{a0}', "U+00A0 (no-break space)"),
            ('\u{200b}', "U+200B (zero-width space)"),
            ('\u{feff}', "U+FEFF (byte order mark)"),
            ('\u{1b}', "U+001B (a control character)"),
            ('\u{2003}', "U+2003 (a blank that is not the usual one)"),
        ] {
            assert_eq!(name(c).as_deref(), Some(expected));
        }
        assert!(" \t\nazäß語€🙂".chars().all(|c| name(c).is_none()));
    }

    #[test]
    fn a_character_in_quotes_or_a_comment_did_no_harm() {
        let column = |line: &str| outside_quotes(line).map(|(column, _)| column);
        assert_eq!(column("a:\u{a0}b"), Some(2));
        assert_eq!(column("a: \"x\u{a0}y\"\u{a0}"), Some(8));
        assert_eq!(column("a: 'x\u{a0}y' # \u{a0}"), None);
        assert_eq!(column("a: it's\u{a0}"), Some(7));
        assert_eq!(column("a: b"), None);
    }
}
