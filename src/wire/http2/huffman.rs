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

/// Whether these bits may contain the code of `#`, which has twelve bits, the first nine of them ones.
pub(super) fn may_hold_fragment(bytes: &[u8]) -> bool {
    let mut ones = 0;
    for byte in bytes {
        let leading = byte.leading_ones();
        if ones + leading >= 9 {
            return true;
        }
        ones = if leading == 8 {
            ones + 8
        } else {
            byte.trailing_ones()
        };
    }
    false
}

/// Decodes `bytes` and appends the text; returns whether they are valid.
pub(super) fn decode(bytes: &[u8], text: &mut Vec<u8>) -> bool {
    let (mut code, mut first, mut index, mut length) = (0_u32, 0_u32, 0_u32, 0_usize);
    let mut padded = true;
    for bit in bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1))
    {
        code = code << 1 | u32::from(bit);
        padded &= bit == 1;
        length += 1;
        let Some(count) = COUNTS.get(length) else {
            return false;
        };
        if code < first + count {
            let at = usize::try_from(index + (code - first)).unwrap_or(usize::MAX);
            let Some(symbol) = SYMBOLS.get(at) else {
                return false;
            };
            text.push(*symbol);
            (code, first, index, length) = (0, 0, 0, 0);
            padded = true;
        } else {
            index += count;
            first = (first + count) << 1;
        }
    }
    // The rest must be less than a byte of ones.
    padded && length < 8
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
            assert!(decode(bytes, &mut text));
            assert_eq!(text, expected);
        }
        assert!(
            !decode(b"\xff\xff\xff\xff", &mut Vec::new()),
            "the end of the string"
        );
        assert!(
            !decode(b"\x00\x00\x00", &mut Vec::new()),
            "padded with noughts"
        );
        assert!(
            !decode(b"\xf1\xe3\xff\xff", &mut Vec::new()),
            "padded with too much"
        );
    }

    #[test]
    fn a_fragment_is_never_overlooked() {
        // `/a` and `#` at each of the eight bit positions that its code can have in a byte.
        let bits = |text: &[u8]| -> Vec<bool> {
            let code = |byte| match byte {
                b'/' => (0x18_u32, 6),
                b'a' => (3, 5),
                b'#' => (0xffa, 12),
                _ => panic!("another byte"),
            };
            let codes = text.iter().map(|byte| code(*byte));
            codes
                .flat_map(|(code, length)| (0..length).rev().map(move |at| code >> at & 1 == 1))
                .collect()
        };
        for before in 0..16 {
            let text = [b"/".as_slice(), &b"a".repeat(before), b"#a"].concat();
            let mut bits = bits(&text);
            while bits.len() % 8 != 0 {
                bits.push(true);
            }
            let bytes: Vec<u8> = bits
                .chunks(8)
                .map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit)))
                .collect();
            let mut read = Vec::new();
            assert!(decode(&bytes, &mut read));
            assert_eq!(read, text);
            assert!(may_hold_fragment(&bytes), "{before}");
        }
    }
}
