//! Parses incoming HTTP/2 field blocks (RFC 7541) before `h2` does, because `h2` silently drops a fragment in `:path`
//! and pseudo-header fields in trailers, rejects characters in `:path` that clients send, and reports nothing about a
//! request that it rejects. Only those fields are decoded; of others only what the shared dynamic table requires.

use std::collections::VecDeque;

use bytes::Bytes;
use http::Method;

use super::{huffman, stand_in};

/// The largest permitted table: the default of SETTINGS_HEADER_TABLE_SIZE.
const LARGEST: usize = 4096;
/// The size of a table entry beyond its text (section 4.1).
const OVERHEAD: usize = 32;
/// The lengths of the names in the static table (appendix A).
static NAMES: [u8; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14,
    16, 13, 12, 6, 4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10,
    25, 17, 10, 4, 3, 16,
];

/// A block that cannot be parsed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Broken;

/// The kinds of field names that are distinguished.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Path,
    Method,
    Pseudo,
    Other,
}

/// A string as it is in a block, possibly Huffman-coded.
#[derive(Clone, Copy, Debug)]
struct Text<'b> {
    bytes: &'b [u8],
    coded: bool,
}

impl Text<'_> {
    fn read(self) -> Result<Vec<u8>, Broken> {
        if !self.coded {
            return Ok(self.bytes.to_vec());
        }
        let mut text = Vec::with_capacity(self.bytes.len() * 2);
        match huffman::decode(self.bytes, &mut text) {
            Some(_) => Ok(text),
            None => Err(Broken),
        }
    }

    /// Whether it may contain `"`, `#`, `<` or `>`.
    fn may_hold_rare(self) -> bool {
        if self.coded {
            huffman::may_hold_rare(self.bytes)
        } else {
            stand_in::is_needed(self.bytes)
        }
    }

    fn begins_with_colon(self) -> bool {
        match self.bytes.first() {
            // The code of a colon has seven bits.
            Some(first) if self.coded => first >> 1 == 0x5c,
            first => first == Some(&b':'),
        }
    }
}

/// An entry of the dynamic table, which both sides share.
#[derive(Debug)]
struct Entry {
    kind: Kind,
    name: usize,
    size: usize,
    /// Its value, if it may be needed.
    value: Bytes,
}

/// A known value.
#[derive(Clone, Debug)]
enum Value<'b> {
    Written(Text<'b>),
    Known(Bytes),
}

/// Bytes in the place of those in a block.
#[derive(Debug)]
pub(super) struct StandIn {
    pub(super) at: usize,
    pub(super) bytes: Vec<u8>,
}

/// The relevant content of a block.
#[derive(Debug)]
pub(super) struct Said<'b> {
    /// Decoded if `h2` may report another one.
    path: Option<Value<'b>>,
    /// The method, or GET if none can be read.
    pub(super) method: Method,
    /// Whether it contains a pseudo-header field.
    pub(super) pseudo: bool,
    /// What `h2` has to be given in the place of the path.
    pub(super) stand_in: Option<StandIn>,
}

impl Said<'_> {
    /// The content of a block that cannot be parsed.
    pub(super) fn nothing() -> Self {
        Said {
            path: None,
            method: Method::GET,
            pseudo: false,
            stand_in: None,
        }
    }

    /// The path, if `h2` reports another one or none.
    pub(super) fn own_path(&self) -> Option<&Bytes> {
        match &self.path {
            Some(Value::Known(path)) if stand_in::is_needed(path) => Some(path),
            Some(Value::Known(_) | Value::Written(_)) | None => None,
        }
    }

    /// Appends the path as it is in the block; returns whether it is Huffman-coded.
    pub(super) fn append_path(&self, to: &mut Vec<u8>) -> bool {
        match &self.path {
            None => false,
            Some(Value::Known(path)) => {
                to.extend_from_slice(path);
                false
            }
            Some(Value::Written(text)) => {
                to.extend_from_slice(text.bytes);
                text.coded
            }
        }
    }
}

/// The state shared by the blocks of one connection.
#[derive(Debug)]
pub(super) struct Blocks {
    /// The newest entry first.
    table: VecDeque<Entry>,
    size: usize,
    most: usize,
}

impl Default for Blocks {
    fn default() -> Self {
        Self {
            table: VecDeque::new(),
            size: 0,
            most: LARGEST,
        }
    }
}

impl Blocks {
    /// Reads the next block.
    ///
    /// # Errors
    /// It is malformed; no block can be parsed after it.
    pub(super) fn read<'b>(&mut self, block: &'b [u8]) -> Result<Said<'b>, Broken> {
        let mut said = Said::nothing();
        let mut rest = Rest(block);
        while let Some(first) = rest.0.first().copied() {
            if first & 0x80 != 0 {
                let index = rest.number(7)?;
                let (kind, value) = self.entry(index)?;
                say(&mut said, kind, value);
            } else if first & 0xe0 == 0x20 {
                let most = rest.number(5)?;
                if most > LARGEST {
                    return Err(Broken);
                }
                self.most = most;
                self.evict();
            } else {
                let inserts = first & 0x40 != 0;
                let index = rest.number(if inserts { 6 } else { 4 })?;
                let (kind, name) = self.name(index, &mut rest, inserts)?;
                let text = rest.text()?;
                let mut value = Value::Written(text);
                // A second path makes the request malformed.
                if kind == Kind::Path
                    && said.path.is_none()
                    && text.may_hold_rare()
                    && let Ok(path) = text.read()
                {
                    let at = block.len() - rest.0.len() - text.bytes.len();
                    said.stand_in = stand_in::of(&path, text.bytes, text.coded)
                        .map(|bytes| StandIn { at, bytes });
                    value = Value::Known(path.into());
                }
                if inserts {
                    self.insert(kind, name, &value)?;
                }
                say(&mut said, kind, value);
            }
        }
        Ok(said)
    }

    /// The kind of a literal's name, and its length if needed.
    fn name(
        &self,
        index: usize,
        rest: &mut Rest<'_>,
        needs_length: bool,
    ) -> Result<(Kind, usize), Broken> {
        if index > 0 {
            return match NAMES.get(index - 1) {
                Some(length) => Ok((kind_of(index), usize::from(*length))),
                None => {
                    let entry = self.table.get(index - NAMES.len() - 1).ok_or(Broken)?;
                    Ok((entry.kind, entry.name))
                }
            };
        }
        let name = rest.text()?;
        let pseudo = name.begins_with_colon();
        if !(pseudo || (needs_length && name.coded)) {
            return Ok((Kind::Other, name.bytes.len()));
        }
        let name = name.read()?;
        let kind = match name.as_slice() {
            b":path" => Kind::Path,
            b":method" => Kind::Method,
            _ if pseudo => Kind::Pseudo,
            _ => Kind::Other,
        };
        Ok((kind, name.len()))
    }

    fn entry(&self, index: usize) -> Result<(Kind, Value<'static>), Broken> {
        let fixed = |text: &'static [u8]| Value::Known(Bytes::from_static(text));
        match index {
            0 => Err(Broken),
            2 => Ok((Kind::Method, fixed(b"GET"))),
            3 => Ok((Kind::Method, fixed(b"POST"))),
            4 => Ok((Kind::Path, fixed(b"/"))),
            5 => Ok((Kind::Path, fixed(b"/index.html"))),
            1..=61 => Ok((kind_of(index), fixed(b""))),
            _ => {
                let entry = self.table.get(index - NAMES.len() - 1).ok_or(Broken)?;
                let value = match entry.kind {
                    Kind::Path | Kind::Method => Value::Known(entry.value.clone()),
                    Kind::Pseudo | Kind::Other => fixed(b""),
                };
                Ok((entry.kind, value))
            }
        }
    }

    fn insert(&mut self, kind: Kind, name: usize, value: &Value<'_>) -> Result<(), Broken> {
        let asked_for = matches!(kind, Kind::Path | Kind::Method);
        let (length, value) = match value {
            Value::Known(text) => (text.len(), text.clone()),
            Value::Written(text) if asked_for || text.coded => {
                let text = text.read()?;
                let length = text.len();
                (length, if asked_for { text.into() } else { Bytes::new() })
            }
            Value::Written(text) => (text.bytes.len(), Bytes::new()),
        };
        let size = name + length + OVERHEAD;
        self.size += size;
        self.table.push_front(Entry {
            kind,
            name,
            size,
            value,
        });
        // An entry larger than the table empties it (section 4.4).
        self.evict();
        Ok(())
    }

    fn evict(&mut self) {
        while self.size > self.most {
            let Some(entry) = self.table.pop_back() else {
                return;
            };
            self.size -= entry.size;
        }
    }
}

fn say<'b>(said: &mut Said<'b>, kind: Kind, value: Value<'b>) {
    said.pseudo |= kind != Kind::Other;
    match kind {
        Kind::Path => {
            said.path.get_or_insert(value);
        }
        Kind::Method => {
            let method = match value {
                Value::Known(text) => Method::from_bytes(&text),
                Value::Written(text) => Method::from_bytes(&text.read().unwrap_or_default()),
            };
            said.method = method.unwrap_or(Method::GET);
        }
        Kind::Pseudo | Kind::Other => {}
    }
}

/// The kind of an entry's name in the static table.
fn kind_of(index: usize) -> Kind {
    match index {
        2 | 3 => Kind::Method,
        4 | 5 => Kind::Path,
        0..=14 => Kind::Pseudo,
        _ => Kind::Other,
    }
}

/// The rest of a block.
struct Rest<'b>(&'b [u8]);

impl<'b> Rest<'b> {
    /// Reads an integer with a prefix of this many bits (section 5.1).
    fn number(&mut self, bits: u32) -> Result<usize, Broken> {
        let (first, mut rest) = self.0.split_first().ok_or(Broken)?;
        let most = (1_usize << bits) - 1;
        let mut number = usize::from(*first) & most;
        if number == most {
            let mut shift = 0;
            loop {
                let (byte, behind) = rest.split_first().ok_or(Broken)?;
                rest = behind;
                number += usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
                if shift > 21 {
                    return Err(Broken);
                }
            }
        }
        self.0 = rest;
        Ok(number)
    }

    /// Reads a string (section 5.2).
    fn text(&mut self) -> Result<Text<'b>, Broken> {
        let coded = self.0.first().ok_or(Broken)? & 0x80 != 0;
        let length = self.number(7)?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Broken)?;
        self.0 = rest;
        Ok(Text { bytes, coded })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path_of(said: &Said<'_>) -> Vec<u8> {
        let mut path = Vec::new();
        let coded = said.append_path(&mut path);
        Text {
            bytes: &path,
            coded,
        }
        .read()
        .unwrap()
    }

    #[test]
    fn the_requests_of_the_rfc_are_followed() {
        // Appendix C.4: with Huffman coding, three requests of one connection.
        let requests: [(&[u8], &[u8], usize); 3] = [
            (b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff", b"/", 57),
            (b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf", b"/", 110),
            (b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf", b"/index.html", 164),
        ];
        let mut blocks = Blocks::default();
        for (block, path, size) in requests {
            let said = blocks.read(block).unwrap();
            assert_eq!(
                (path_of(&said), said.method, said.pseudo),
                (path.to_vec(), Method::GET, true)
            );
            assert_eq!(blocks.size, size);
        }
        assert_eq!(blocks.table.len(), 3);
        // The table size is reduced: the oldest entry is evicted.
        blocks.read(b"\x3f\x51").unwrap();
        assert_eq!((blocks.table.len(), blocks.size), (2, 107));
    }

    #[test]
    fn paths_and_methods_are_known_again() {
        let mut blocks = Blocks::default();
        let said = blocks.read(b"\x44\x04/a#b\x42\x03PUT").unwrap();
        assert_eq!(said.own_path().unwrap(), "/a#b");
        assert_eq!(said.method, "PUT");
        let said = blocks.read(b"\xbf\xbe").unwrap();
        assert_eq!(said.own_path().unwrap(), "/a#b");
        assert_eq!(
            (path_of(&said), said.method.as_str()),
            (b"/a#b".to_vec(), "PUT")
        );
        // By the name of an entry, or by a literal name.
        for block in [
            &b"\x0f\x30\x03/c#"[..],
            b"\x00\x05:path\x03/c#",
            b"\x10\x05:path\x03/c#",
        ] {
            let said = blocks.read(block).unwrap();
            assert_eq!(said.own_path().unwrap(), "/c#", "{block:?}");
            assert!(said.stand_in.is_none());
        }
        assert!(blocks.read(b"\x04\x02/c").unwrap().own_path().is_none());
        let trailers = blocks.read(b"\x00\x03x-a\x01#").unwrap();
        assert!(!trailers.pseudo && trailers.own_path().is_none());
    }

    #[test]
    fn a_path_and_its_stand_in_leave_the_same_table() {
        let path = b"/a?q=<\"b\">>";
        let coded = huffman::coded(path);
        for (text, mark) in [(path.to_vec(), 0), (coded, 0x80)] {
            let length = u8::try_from(text.len()).unwrap();
            let text = [&[mark | length], text.as_slice()].concat();
            for (name, inserts) in [
                (&b"\x44"[..], true),
                (b"\x40\x05:path", true),
                (b"\x04", false),
                (b"\x10\x05:path", false),
            ] {
                let mut blocks = Blocks::default();
                let mut block = [b"\x82", name, &text, b"\x40\x01a\x01b"].concat();
                let said = blocks.read(&block).unwrap();
                assert_eq!(said.own_path().unwrap(), path.as_slice());
                let stand_in = said.stand_in.unwrap();
                let place = stand_in.at..stand_in.at + stand_in.bytes.len();
                block.splice(place, stand_in.bytes);

                let mut theirs = Blocks::default();
                let said = theirs.read(&block).unwrap();
                assert!(said.own_path().is_none(), "{block:?}");
                assert!(stand_in::is_for(&path_of(&said), path));
                assert_eq!(theirs.size, blocks.size);
                // The path is known again where it has an entry.
                let known = blocks.read(b"\xbf").map(|said| path_of(&said)).ok();
                assert_eq!(known, inserts.then(|| path.to_vec()));
            }
        }
    }

    #[test]
    fn what_is_no_block_is_broken() {
        let blocks: [&[u8]; 7] = [
            b"\x80",
            b"\xbe",
            b"\x44\x05/a",
            b"\x40",
            b"\x3f\xe2\x1f",
            b"\xff\xff\xff\xff\xff\xff\xff",
            b"\x44\x81\x00",
        ];
        for block in blocks {
            assert!(Blocks::default().read(block).is_err(), "{block:?}");
        }
    }
}
