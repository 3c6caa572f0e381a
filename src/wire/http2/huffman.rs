//! Decodes the Huffman code of HPACK (RFC 7541 section 5.2 and appendix B). The code is canonical: the number of codes
//! of each length and the order of their symbols define it completely.

/// The number of codes with each number of bits, without that of the end of the string, which must not occur.
static COUNTS: [u32; 31] = [
    0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19,
    29, 0, 3,
];

/// The symbols, ordered by code from the shortest on.
static SYMBOLS: [u8; 256] = [
    48, 49, 50, 97, 99, 101, 105, 111, 115, 116, 32, 37, 45, 46, 47, 51, 52, 53, 54, 55, 56, 57,
    61, 65, 95, 98, 100, 102, 103, 104, 108, 109, 110, 112, 114, 117, 58, 66, 67, 68, 69, 70, 71,
    72, 73, 74, 75, 76, 77, 78, 79, 80, 81, 82, 83, 84, 85, 86, 87, 89, 106, 107, 113, 118, 119,
    120, 121, 122, 38, 42, 44, 59, 88, 90, 33, 34, 40, 41, 63, 39, 43, 124, 35, 62, 0, 36, 64, 91,
    93, 126, 94, 125, 60, 96, 123, 92, 195, 208, 128, 130, 131, 162, 184, 194, 224, 226, 153, 161,
    167, 172, 176, 177, 179, 209, 216, 217, 227, 229, 230, 129, 132, 133, 134, 136, 146, 154, 156,
    160, 163, 164, 169, 170, 173, 178, 181, 185, 186, 187, 189, 190, 196, 198, 228, 232, 233, 1,
    135, 137, 138, 139, 140, 141, 143, 147, 149, 150, 151, 152, 155, 157, 158, 165, 166, 168, 174,
    175, 180, 182, 183, 188, 191, 197, 231, 239, 9, 142, 144, 145, 148, 159, 171, 206, 215, 225,
    236, 237, 199, 207, 234, 235, 192, 193, 200, 201, 202, 205, 210, 213, 218, 219, 238, 240, 242,
    243, 255, 203, 204, 211, 212, 214, 221, 222, 223, 241, 244, 245, 246, 247, 248, 250, 251, 252,
    253, 254, 2, 3, 4, 5, 6, 7, 8, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21, 23, 24, 25, 26, 27, 28,
    29, 30, 31, 127, 220, 249, 10, 13, 22,
];

/// Whether these bits may contain the code of `"`, `#`, `<` or `>`.
pub(super) fn may_hold_rare(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while !rest.is_empty() {
        let bits = eight(rest);
        // Each bit that begins four, seven, nine or thirteen ones.
        let two = bits & bits << 1;
        let four = two & two << 2;
        let seven = four & four << 3;
        let nine = seven & two << 7;
        let thirteen = nine & four << 9;
        // The codes are 1111111001, 11111111101x and 111111111111100. They also appear where the end of one code and
        // the beginning of the next make them.
        let quote = seven & !bits << 7 & !bits << 8 & bits << 9;
        let hash_or_greater = nine & !bits << 9 & bits << 10;
        let less = thirteen & !bits << 13 & !bits << 14;
        if quote | hash_or_greater | less != 0 {
            return holds_rare(bytes);
        }
        // A code of at most 15 bits that begins in these six bytes is seen completely.
        rest = rest.get(6..).unwrap_or_default();
    }
    false
}

/// Whether they contain one, or another whose code has more than 15 bits. Going by the lengths of codes costs much less
/// than decoding.
fn holds_rare(bytes: &[u8]) -> bool {
    let mut at = 0;
    while let Some(rest) = bytes.get(at / 8..).filter(|rest| !rest.is_empty()) {
        let mut bits = eight(rest) << (at % 8);
        let mut used = 0;
        // At least 57 bits are there, of which each code takes at most 15.
        while used <= 42 {
            let length = match length_of_short(bits) {
                Some(length) => length,
                None => match bits >> 49 {
                    0x7f20..=0x7f3f | 0x7fd0..=0x7fdf | 0x7ffc | 0x7fff => return true,
                    ..0x7fa0 => 10,
                    0x7fa0..0x7fd0 => 11,
                    0x7fe0..0x7ff8 => 13,
                    0x7ff8..0x7ffc => 14,
                    _ => 15,
                },
            };
            bits <<= length;
            used += length;
        }
        at += used;
    }
    false
}

/// The first eight bytes; zeros where there are fewer.
fn eight(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => bytes
            .iter()
            .zip((0..64).step_by(8))
            .fold(0, |bits, (byte, at)| bits | u64::from(*byte) << (56 - at)),
    }
}

/// Decodes `bytes` and appends the text; returns how many bits of padding follow it, or `None` if they are invalid.
pub(super) fn decode(bytes: &[u8], text: &mut Vec<u8>) -> Option<usize> {
    walk(bytes, |symbol, _, _| text.push(symbol))
}

/// Codes the text of `bytes` anew, each symbol with the code and the length that `other` returns for it, if any.
pub(super) fn replace(
    bytes: &[u8],
    mut other: impl FnMut(u8) -> Option<(u32, usize)>,
) -> Option<Vec<u8>> {
    let mut coded = Vec::with_capacity(bytes.len());
    let (mut bits, mut have) = (0_u64, 0_usize);
    walk(bytes, |symbol, code, length| {
        let (code, length) = other(symbol).unwrap_or((code, length));
        bits = bits << length | u64::from(code);
        have += length;
        while have >= 8 {
            have -= 8;
            coded.extend((bits >> have).to_le_bytes().first());
        }
    })?;
    if have > 0 {
        // Padded with the beginning of the code of the end, which consists of ones.
        let last = (bits << (8 - have)) | (0xff >> have);
        coded.extend(last.to_le_bytes().first());
    }
    Some(coded)
}

/// Calls `seen` with each symbol, its code, and the length of that in bits; returns how many bits of padding follow, or
/// `None` if the bytes are invalid.
fn walk(bytes: &[u8], mut seen: impl FnMut(u8, u32, usize)) -> Option<usize> {
    // The first code of each length, and the place of its symbol.
    let (mut first, mut index) = (0, 0);
    let ranks = COUNTS.map(|count| {
        let rank = (first, index);
        index += count;
        first = (first + count) << 1;
        rank
    });
    let mut at = 0;
    loop {
        let rest = bytes.get(at / 8..).unwrap_or_default();
        let bits = eight(rest) << (at % 8);
        let left = bytes.len() * 8 - at;
        let code_of = |length: usize| u32::try_from(bits >> (64 - length)).unwrap_or(u32::MAX);
        let place_of = |length: usize| {
            let ((first, index), count) = (ranks.get(length)?, COUNTS.get(length)?);
            let rank = code_of(length).checked_sub(*first)?;
            (rank < *count).then_some(index + rank)
        };
        let lengths = length_of_short(bits).map_or(10..=30, |length| length..=length);
        let mut places = lengths.map(|length| (length, place_of(length)));
        let found = places.find_map(|(length, place)| Some((length, place?)));
        match found {
            Some((length, place)) if length <= left => {
                let symbol = SYMBOLS.get(usize::try_from(place).ok()?)?;
                seen(*symbol, code_of(length), length);
                at += length;
            }
            // The rest must be less than a byte of ones.
            _ => return (left < 8 && bits.leading_ones() as usize == left).then_some(left),
        }
    }
}

/// The length of the code at the beginning of these bits, if it is one of five to eight bits, which most of a text has.
fn length_of_short(bits: u64) -> Option<usize> {
    let first = bits >> 56;
    (first < 0xfe).then(|| {
        5 + usize::from(first >= 0x50) + usize::from(first >= 0xb8) + usize::from(first >= 0xf8)
    })
}

/// Codes a text, for tests.
#[cfg(any(test, fuzzing))]
pub(super) fn coded(text: &[u8]) -> Vec<u8> {
    let mut bits = String::new();
    for byte in text {
        let at = SYMBOLS.iter().position(|symbol| symbol == byte);
        let mut at = u32::try_from(at.unwrap_or_default()).unwrap_or_default();
        let mut first = 0;
        for (length, count) in COUNTS.iter().enumerate().skip(1) {
            if at < *count {
                bits.push_str(&format!("{:0length$b}", first + at));
                break;
            }
            at -= count;
            first = (first + count) << 1;
        }
    }
    while !bits.len().is_multiple_of(8) {
        bits.push('1');
    }
    let bits = bits.into_bytes();
    let byte = |bits: &[u8]| bits.iter().fold(0, |byte, bit| byte << 1 | (bit & 1));
    bits.chunks(8).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_rfc_are_read() {
        for (bytes, expected) in [
            (&b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"[..], &b"www.example.com"[..]),
            (b"\xa8\xeb\x10\x64\x9c\xbf", b"no-cache"),
            (b"\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f", b"custom-key"),
            (b"\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x82\xa6\x2d\x1b\xff", b"Mon, 21 Oct 2013 20:13:21 GMT"),
            (b"", b""),
        ] {
            let mut text = Vec::new();
            assert!(decode(bytes, &mut text).is_some());
            assert_eq!(text, expected);
        }
        for (bytes, why) in [
            (&b"\xff\xff\xff\xff"[..], "the end of the string"),
            (b"\x00\x00\x00", "padded with noughts"),
            (b"\xf1\xe3\xff\xff", "padded with too much"),
        ] {
            assert_eq!(decode(bytes, &mut Vec::new()), None, "{why}");
            assert_eq!(replace(bytes, |_| None), None, "{why}");
        }
    }

    #[test]
    fn rare_characters_are_never_overlooked() {
        for byte in 0..=u8::MAX {
            for before in 0..16 {
                for (filler, behind) in
                    [(b'a', &b""[..]), (b'X', b"z"), (b'&', b"??"), (b'~', b"!")]
                {
                    let mut text = vec![b'/'];
                    text.extend(vec![filler; before]);
                    text.push(byte);
                    text.extend_from_slice(behind);
                    let bytes = coded(&text);
                    let mut read = Vec::new();
                    assert!(decode(&bytes, &mut read).is_some());
                    assert_eq!(read, text);
                    assert_eq!(replace(&bytes, |_| None), Some(bytes.clone()));
                    // The backslash has the longest code of those that a target may contain.
                    if b"\"#<>\\".contains(&byte) {
                        assert!(may_hold_rare(&bytes), "{text:?}");
                    } else if byte.is_ascii_graphic() {
                        assert!(!may_hold_rare(&bytes), "{text:?}");
                    }
                }
            }
        }
    }
}
