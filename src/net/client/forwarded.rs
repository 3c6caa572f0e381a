//! Parses `X-Forwarded-For` and `Forwarded` (RFC 7239) from the right, where the nearest proxy appends. Which proxies
//! are trusted is not known here.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, header};

/// One hop, as the next proxy reports it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Hop<'h> {
    /// Its address; `None` where it is missing, obfuscated, or not an address.
    pub(super) ip: Option<IpAddr>,
    /// The scheme of its request.
    pub(super) proto: Option<Cow<'h, str>>,
    /// The host of its request.
    pub(super) host: Option<Cow<'h, str>>,
}

/// The items of a list that may span several lines, the last one first. A line that is not ASCII counts as one empty
/// item.
pub(super) fn from_the_right<'h>(
    headers: &'h HeaderMap,
    name: &'static str,
) -> impl Iterator<Item = &'h str> {
    let lines = headers.get_all(name).iter().rev();
    let texts = lines.map(|line| line.to_str().unwrap_or_default());
    texts.flat_map(|line| line.rsplit(',')).map(str::trim)
}

/// The hops of `X-Forwarded-For`, the nearest first.
pub(super) fn by_x_forwarded_for(headers: &HeaderMap) -> impl Iterator<Item = Hop<'_>> {
    from_the_right(headers, "x-forwarded-for").map(|entry| Hop {
        ip: node(entry),
        ..Hop::default()
    })
}

/// The hops of `Forwarded`, the nearest first. A malformed element is a hop without values.
pub(super) fn by_forwarded(headers: &HeaderMap) -> impl Iterator<Item = Hop<'_>> {
    let lines = headers.get_all(header::FORWARDED).iter().rev();
    let texts = lines.map(|line| line.to_str().unwrap_or_default());
    let elements = texts.flat_map(|line| {
        let mut rest = Some(line);
        std::iter::from_fn(move || {
            let (before, element) = split_last(rest?);
            rest = before;
            Some(element.trim())
        })
    });
    elements.map(|element| hop(element).unwrap_or_default())
}

/// Splits the text at the last comma outside quoted strings. Parsing from the right, nothing that a client wrote on the
/// left can absorb what a proxy appended.
fn split_last(text: &str) -> (Option<&str>, &str) {
    let mut quoted = false;
    for (at, byte) in text.bytes().enumerate().rev() {
        let before = || text.as_bytes().get(..at).unwrap_or_default();
        match byte {
            b'"' => {
                let slashes = before()
                    .iter()
                    .rev()
                    .take_while(|byte| **byte == b'\\')
                    .count();
                quoted ^= !quoted || slashes % 2 == 0;
            }
            b',' if !quoted => {
                let (before, behind) = text.split_at_checked(at).unwrap_or_default();
                return (Some(before), behind.strip_prefix(',').unwrap_or(behind));
            }
            _ => {}
        }
    }
    (None, text)
}

/// One element (RFC 7239 section 4); `None` where it is malformed or repeats a parameter.
fn hop(element: &str) -> Option<Hop<'_>> {
    let mut hop = Hop::default();
    let mut told = false;
    let mut rest = element;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        if rest.is_empty() {
            return Some(hop);
        }
        let (name, behind) = rest.split_once('=')?;
        let (value, behind) = match behind.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let end = behind.find([';', ' ', '\t']).unwrap_or(behind.len());
                let (value, behind) = behind.split_at_checked(end)?;
                (Cow::Borrowed(value), behind)
            }
        };
        rest = behind.trim_start_matches([' ', '\t']);
        if !rest.is_empty() && !rest.starts_with(';') {
            return None;
        }
        match name.to_ascii_lowercase().as_str() {
            "for" if told => return None,
            "for" => {
                told = true;
                hop.ip = node(&value);
            }
            "proto" if hop.proto.replace(value.clone()).is_some() => return None,
            "host" if hop.host.replace(value.clone()).is_some() => return None,
            _ => {}
        }
    }
}

/// The text of a quoted string after its opening quote, and the rest (RFC 9110 section 5.6.4).
fn unquoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let end = text.find(['"', '\\'])?;
    let (plain, behind) = text.split_at_checked(end)?;
    if let Some(behind) = behind.strip_prefix('"') {
        return Some((Cow::Borrowed(plain), behind));
    }
    let mut value = plain.to_owned();
    let mut letters = behind.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((Cow::Owned(value), behind.get(at + 1..)?)),
            '\\' => value.push(letters.next()?.1),
            letter => value.push(letter),
        }
    }
    None
}

/// An address, with or without a port (RFC 7239 section 6).
fn node(text: &str) -> Option<IpAddr> {
    let ip = match text.strip_prefix('[') {
        Some(literal) => {
            let (literal, port) = literal.split_once(']')?;
            let whole = port.is_empty() || port.starts_with(':');
            IpAddr::V6(literal.parse().ok().filter(|_| whole)?)
        }
        None => match (text.parse(), text.split_once(':')) {
            (Ok(ip), _) => ip,
            (Err(_), Some((ip, _))) => IpAddr::V4(ip.parse::<Ipv4Addr>().ok()?),
            (Err(_), None) => return None,
        },
    };
    Some(ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_addresses_with_or_without_a_port() {
        for (text, expected) in [
            ("192.0.2.43", Some("192.0.2.43")),
            ("192.0.2.43:47011", Some("192.0.2.43")),
            ("192.0.2.43:_port", Some("192.0.2.43")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("[2001:db8::1]:4711", Some("2001:db8::1")),
            ("[::ffff:192.0.2.1]", Some("192.0.2.1")),
            ("unknown", None),
            ("_hidden", None),
            ("", None),
            ("[192.0.2.1]", None),
            ("[2001:db8::1]x", None),
            ("2001:db8::1:x", None),
            ("a.test:80", None),
        ] {
            let seen = node(text).map(|ip| ip.to_string());
            assert_eq!(seen.as_deref(), expected, "{text}");
        }
    }

    #[track_caller]
    fn check(lines: &[&str], expected: &[(&str, &str, &str)]) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("forwarded", line.parse().unwrap());
        }
        let seen: Vec<_> = by_forwarded(&headers)
            .map(|hop| {
                let ip = hop.ip.map_or_else(String::new, |ip| ip.to_string());
                let text = |text: Option<Cow<'_, str>>| text.unwrap_or_default().into_owned();
                (ip, text(hop.proto), text(hop.host))
            })
            .collect();
        let text = |(ip, proto, host): &(&str, &str, &str)| {
            (String::from(*ip), String::from(*proto), String::from(*host))
        };
        let expected: Vec<_> = expected.iter().map(text).collect();
        assert_eq!(seen, expected, "{lines:?}");
    }

    #[test]
    fn elements_are_read_from_the_right() {
        check(
            &["for=192.0.2.60;proto=http;by=203.0.113.43;host=a.test"],
            &[("192.0.2.60", "http", "a.test")],
        );
        check(
            &["For=\"[2001:db8::1]:4711\"; PROTO=https ;Host=\"a.test:81\""],
            &[("2001:db8::1", "https", "a.test:81")],
        );
        check(
            &["for=1.1.1.1, for=2.2.2.2", "for=3.3.3.3"],
            &[
                ("3.3.3.3", "", ""),
                ("2.2.2.2", "", ""),
                ("1.1.1.1", "", ""),
            ],
        );
        check(
            &["for=\"a\\\"b, c\", for=unknown"],
            &[("", "", ""), ("", "", "")],
        );
        check(&["for=_x;proto=https"], &[("", "https", "")]);
        check(&["host=\"a\\.test\""], &[("", "", "a.test")]);
        check(&[""], &[("", "", "")]);
    }

    #[test]
    fn what_a_client_wrote_cannot_take_in_what_a_proxy_appended() {
        for theirs in [
            "for=\"evil",
            "for=\"evil\\\"",
            "\"",
            "for=evil\\",
            ";;=,=",
            "for=\"a,b",
        ] {
            check(&[theirs], &[("", "", "")].repeat(theirs.split(',').count()));
            let line = format!("{theirs}, for=203.0.113.9;proto=https");
            let mut headers = HeaderMap::new();
            headers.append("forwarded", line.parse().unwrap());
            let nearest = by_forwarded(&headers).next().unwrap();
            assert_eq!(nearest.ip, "203.0.113.9".parse().ok(), "{line}");
            assert_eq!(nearest.proto.as_deref(), Some("https"), "{line}");
        }
        check(&["for=1.1.1.1;for=2.2.2.2"], &[("", "", "")]);
        check(&["for=1.1.1.1;proto=http;proto=https"], &[("", "", "")]);
        check(&["for=1.1.1.1 proto=https"], &[("", "", "")]);
    }
}
