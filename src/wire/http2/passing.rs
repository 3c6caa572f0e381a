//! Parses HTTP/2 frames passing in one direction (RFC 9113 section 4.1), however the bytes are split. Only their
//! headers are parsed; what frames mean is not known here.

/// The length of a frame header.
const HEAD: usize = 9;

/// The frame types that are distinguished (section 6).
pub(super) mod kind {
    pub(in super::super) const DATA: u8 = 0;
    pub(in super::super) const HEADERS: u8 = 1;
    pub(in super::super) const RST_STREAM: u8 = 3;
    pub(in super::super) const CONTINUATION: u8 = 9;
}

/// The flags of frames with a field block (sections 6.2 and 6.10).
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// The longest permitted frame: the default of SETTINGS_MAX_FRAME_SIZE.
const LONGEST: usize = 16_384;

/// A frame header.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct FrameHead {
    pub(super) kind: u8,
    flags: u8,
    pub(super) stream: u32,
    length: usize,
}

impl FrameHead {
    fn parse(bytes: [u8; HEAD]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = bytes;
        Self {
            kind,
            flags,
            // The first bit is reserved.
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
            length: usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c),
        }
    }

    /// Whether the frame carries fields.
    fn has_block(self) -> bool {
        matches!(self.kind, kind::HEADERS | kind::CONTINUATION)
    }

    /// Whether a field block is complete with this frame.
    pub(super) fn ends_block(self) -> bool {
        self.has_block() && self.flags & END_HEADERS != 0
    }

    /// The fields in the payload of a frame that carries some (section 6.2); `None` if it is malformed.
    pub(super) fn fields(self, mut payload: &[u8]) -> Option<&[u8]> {
        let mut padding = 0;
        if self.kind == kind::HEADERS {
            if self.flags & PADDED != 0 {
                let (length, rest) = payload.split_first()?;
                (padding, payload) = (usize::from(*length), rest);
            }
            if self.flags & PRIORITY != 0 {
                payload = payload.get(5..)?;
            }
        }
        payload.get(..payload.len().checked_sub(padding)?)
    }
}

/// The state of parsing one direction.
#[derive(Debug)]
pub(super) struct Passing {
    /// How many bytes are left before the first frame.
    preface: usize,
    head: [u8; HEAD],
    /// How many bytes of a header have been read.
    have: usize,
    frame: FrameHead,
    /// How many bytes of the frame's payload are left.
    left: usize,
    /// Whether payloads of frames with fields are wanted, and the part of the current one that was read so far.
    wants_fields: bool,
    payload: Vec<u8>,
}

impl Passing {
    /// A direction that starts with this many bytes before the first frame.
    pub(super) fn behind(preface: usize) -> Self {
        Self {
            preface,
            head: [0; HEAD],
            have: 0,
            frame: FrameHead::default(),
            left: 0,
            wants_fields: false,
            payload: Vec::new(),
        }
    }

    /// Also collects the payloads of frames that carry fields.
    pub(super) fn with_fields(self) -> Self {
        Self {
            wants_fields: true,
            ..self
        }
    }

    /// Continues with these bytes; `seen` is called with each frame that they complete, and with its payload if it
    /// carries fields and they are wanted.
    pub(super) fn follow(&mut self, mut bytes: &[u8], mut seen: impl FnMut(FrameHead, &[u8])) {
        let skipped = self.preface.min(bytes.len());
        self.preface -= skipped;
        bytes = bytes.get(skipped..).unwrap_or_default();
        while !bytes.is_empty() {
            if self.left == 0 {
                let (Some(room), wanted) = (self.head.get_mut(self.have..), HEAD - self.have)
                else {
                    return;
                };
                let taken = wanted.min(bytes.len());
                let (begun, rest) = bytes.split_at_checked(taken).unwrap_or_default();
                for (to, from) in room.iter_mut().zip(begun) {
                    *to = *from;
                }
                bytes = rest;
                self.have += taken;
                if self.have < HEAD {
                    return;
                }
                self.have = 0;
                self.frame = FrameHead::parse(self.head);
                self.left = self.frame.length;
            } else {
                let taken = self.left.min(bytes.len());
                let (piece, rest) = bytes.split_at_checked(taken).unwrap_or_default();
                bytes = rest;
                self.left -= taken;
                // A longer frame ends the connection.
                if self.wants_fields && self.frame.has_block() && self.frame.length <= LONGEST {
                    if self.left == 0 && self.payload.is_empty() {
                        seen(self.frame, piece);
                        continue;
                    }
                    self.payload.extend_from_slice(piece);
                }
            }
            if self.left == 0 {
                let payload = std::mem::take(&mut self.payload);
                seen(self.frame, &payload);
            }
        }
    }

    /// Whether a frame is incomplete. DATA frames do not count, because their request has a deadline of its own.
    pub(super) fn is_within(&self) -> bool {
        self.have > 0 || self.preface > 0 || (self.left > 0 && self.frame.kind != kind::DATA)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_seen_in_whatever_pieces_they_come() {
        let mut bytes = b"preface".to_vec();
        // HEADERS of stream 1 with three bytes, DATA of stream 3 with none, CONTINUATION that ends a block.
        bytes.extend([0, 0, 3, 1, 0, 0, 0, 0, 1, 7, 7, 7]);
        bytes.extend([0, 0, 0, 0, 1, 0x80, 0, 0, 3]);
        bytes.extend([0, 0, 1, 9, 4, 0, 0, 0, 1, 7]);
        for size in 1..bytes.len() {
            let mut passing = Passing::behind(7).with_fields();
            let mut seen = Vec::new();
            for piece in bytes.chunks(size) {
                passing.follow(piece, |frame, payload| {
                    assert_eq!(frame.length * usize::from(frame.has_block()), payload.len());
                    seen.push((frame.kind, frame.stream, frame.ends_block()));
                });
            }
            assert_eq!(seen, [(1, 1, false), (0, 3, false), (9, 1, true)], "{size}");
            assert!(!passing.is_within());
        }
    }

    #[test]
    fn fields_stand_between_priority_and_padding() {
        let frame = |flags| FrameHead {
            kind: kind::HEADERS,
            flags,
            stream: 1,
            length: 9,
        };
        let payload = b"\x02.....ab..";
        assert_eq!(
            frame(PADDED | PRIORITY).fields(payload),
            Some(b"ab".as_slice())
        );
        assert_eq!(frame(PADDED).fields(payload), Some(b".....ab".as_slice()));
        assert_eq!(frame(PRIORITY).fields(payload), Some(b".ab..".as_slice()));
        assert_eq!(frame(0).fields(payload), Some(payload.as_slice()));
        assert_eq!(frame(PADDED).fields(b"\x02."), None);
        assert_eq!(frame(PADDED | PRIORITY).fields(b"\x01....."), None);
        assert_eq!(frame(PRIORITY).fields(b"...."), None);
    }

    #[test]
    fn half_a_frame_is_known_for_one() {
        let mut passing = Passing::behind(2);
        assert!(passing.is_within(), "the preface");
        passing.follow(b"ab", |_, _| {});
        assert!(!passing.is_within());
        passing.follow(&[0, 0, 2, 1, 4, 0, 0], |_, _| {});
        assert!(passing.is_within(), "a head");
        passing.follow(&[0, 1, 7], |_, _| {});
        assert!(passing.is_within(), "a payload");
        passing.follow(&[7], |_, _| {});
        assert!(!passing.is_within());
        passing.follow(&[0, 0, 2, 0, 0, 0, 0, 0, 1, 7], |_, _| {});
        assert!(!passing.is_within(), "data");
    }
}
