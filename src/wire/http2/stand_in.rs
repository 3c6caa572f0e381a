//! Stand-ins for what `h2` does not accept in `:path`: the query of a request may contain `"`, `<` and `>` unescaped,
//! as over HTTP/1.1, but `http`, into whose types `h2` parses it, rejects the whole request. `h2` is given a path with
//! other characters in their place, and the client's own is put back when `h2` hands over the request.
//!
//! The stand-in is as long as the path, decoded and in its block: frames keep their lengths, and the dynamic tables of
//! client and `h2` keep the same entries (RFC 7541 section 4.1).

use super::huffman;
use crate::wire::target;

/// The stand-ins where the path is not Huffman-coded. Where it is, they have codes of the same length, except that of
/// `>`: of its length there is only `#`, so that every other `>` is one bit shorter, and every other one bit longer.
const QUOTE: (u8, u32, usize) = (b'!', 0x3f8, 10);
const LESS: (u8, u32, usize) = (b'{', 0x7ffe, 15);
const GREATER: (u8, u32, usize) = (b'$', 0x1ff9, 13);
const SHORTER_GREATER: (u8, u32, usize) = (b'\'', 0x7fa, 11);

/// Whether `h2` would report another path than this one, or none: a fragment is dropped, and a query with one of the
/// characters is rejected unless it has stand-ins.
pub(super) fn is_needed(path: &[u8]) -> bool {
    let is_rare = |byte: u8| (byte == b'#') | target::is_raw(byte);
    // Without an early exit, the loop can be vectorised. Most paths contain none at all.
    if !path.iter().fold(false, |any, byte| any | is_rare(*byte)) {
        return false;
    }
    let mut rest = path.iter().skip_while(|byte| !matches!(byte, b'?' | b'#'));
    rest.any(|byte| is_rare(*byte))
}

/// The stand-in for a path, in the form and length that the path has in its block; `None` if it needs none, or if the
/// block is malformed.
pub(super) fn of(path: &[u8], written: &[u8], is_coded: bool) -> Option<Vec<u8>> {
    let at = path.iter().position(|byte| *byte == b'?')?;
    let query = path.get(at..)?;
    if !query.iter().any(|byte| target::is_raw(*byte)) {
        return None;
    }
    if !is_coded {
        let mut stand_in = written.to_vec();
        for byte in stand_in.iter_mut().skip(at) {
            *byte = match *byte {
                b'"' => QUOTE.0,
                b'<' => LESS.0,
                b'>' => GREATER.0,
                other => other,
            };
        }
        return Some(stand_in);
    }
    let padding = huffman::decode(written, &mut Vec::new())?;
    // If their number is odd, the last bit comes from the padding or becomes part of it.
    let mut is_next_longer = padding > 0;
    let mut index = 0;
    let stand_in = huffman::replace(written, |symbol| {
        index += 1;
        let (_, code, length) = match symbol {
            _ if index <= at => return None,
            b'"' => QUOTE,
            b'<' => LESS,
            b'>' => {
                let is_longer = is_next_longer;
                is_next_longer = !is_longer;
                if is_longer { GREATER } else { SHORTER_GREATER }
            }
            _ => return None,
        };
        Some((code, length))
    })?;
    (stand_in.len() == written.len()).then_some(stand_in)
}

/// Whether what `h2` reports is this path, or a stand-in for it. If not, the dynamic tables have come to differ.
pub(super) fn is_for(reported: &[u8], path: &[u8]) -> bool {
    let is_same = |(seen, own): (&u8, &u8)| {
        let stand_ins: &[u8] = match own {
            b'"' => &[QUOTE.0],
            b'<' => &[LESS.0],
            b'>' => &[GREATER.0, SHORTER_GREATER.0],
            _ => &[],
        };
        seen == own || stand_ins.contains(seen)
    };
    reported.len() == path.len() && reported.iter().zip(path).all(is_same)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text that `h2` reads in the place of this one.
    fn read_by_h2(path: &[u8], is_coded: bool) -> Option<Vec<u8>> {
        if !is_coded {
            return of(path, path, false);
        }
        let coded = huffman::coded(path);
        let stand_in = of(path, &coded, true)?;
        assert_eq!(stand_in.len(), coded.len());
        let mut text = Vec::new();
        huffman::decode(&stand_in, &mut text).unwrap();
        Some(text)
    }

    #[test]
    fn a_stand_in_is_as_long_and_is_read_by_http() {
        // Each number of `>`, behind each number of bits.
        for count in 0..6 {
            for before in 0..8 {
                let fill = "a".repeat(before);
                let path = format!("/{fill}?\"<{}b<\"{fill}", ">b".repeat(count));
                for is_coded in [false, true] {
                    let text = read_by_h2(path.as_bytes(), is_coded).unwrap();
                    assert!(is_for(&text, path.as_bytes()));
                    assert!(!is_needed(&text));
                    let read = http::uri::PathAndQuery::try_from(text.as_slice()).unwrap();
                    assert_eq!(read.as_str().as_bytes(), text);
                }
            }
        }
    }

    #[test]
    fn only_queries_get_one() {
        for (path, needed, has_one) in [
            ("/", false, false),
            ("/a\"b", false, false),
            ("/a<b>?c", false, false),
            ("/?{|}^`", false, false),
            ("/a#b", true, false),
            ("/a?#", true, false),
            ("/\"?a\"", true, true),
            ("/<?a<", true, true),
            ("?>", true, true),
        ] {
            assert_eq!(is_needed(path.as_bytes()), needed, "{path}");
            for is_coded in [false, true] {
                let text = read_by_h2(path.as_bytes(), is_coded);
                assert_eq!(text.is_some(), has_one, "{path}");
                let own = path.split_once('?').unwrap_or_default().0.as_bytes();
                assert!(text.is_none_or(|text| text.starts_with(own)), "{path}");
            }
        }
        assert_eq!(of(b"/?<", b"\x00\x00\x00", true), None, "no Huffman code");
    }

    #[test]
    fn another_path_is_not_taken_for_one() {
        for (reported, path, fits) in [
            ("/?a", "/?a", true),
            ("/?!{$'", "/?\"<>>", true),
            ("/?\"<>>", "/?\"<>>", true),
            ("/?{!$'", "/?\"<>>", false),
            ("/?a", "/?<", false),
            ("/?!", "/?\"\"", false),
            ("", "/?\"", false),
            ("/b?!", "/a?\"", false),
        ] {
            assert_eq!(is_for(reported.as_bytes(), path.as_bytes()), fits, "{path}");
        }
    }
}
