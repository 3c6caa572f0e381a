//! Parses HTTP/2 frames passing in one direction (RFC 9113 section 4.1), however the bytes are split. Only their
//! headers are parsed; what frames mean is not known here.

use std::ops::Range;

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
    pub(super) fn has_block(self) -> bool {
        matches!(self.kind, kind::HEADERS | kind::CONTINUATION)
    }

    /// Whether a field block is complete with this frame.
    pub(super) fn ends_block(self) -> bool {
        self.has_block() && self.flags & END_HEADERS != 0
    }

    /// The length of its payload if that carries fields; zero for a frame that is too long, which ends the connection.
    pub(super) fn length_of_block(self) -> usize {
        if self.has_block() && self.length <= LONGEST {
            self.length
        } else {
            0
        }
    }

    /// The place of the fields in the payload of a frame that carries some (section 6.2); `None` if it is malformed.
    pub(super) fn fields(self, payload: &[u8]) -> Option<Range<usize>> {
        let (mut start, mut padding) = (0, 0);
        if self.kind == kind::HEADERS {
            if self.flags & PADDED != 0 {
                padding = usize::from(*payload.first()?);
                start += 1;
            }
            if self.flags & PRIORITY != 0 {
                start += 5;
            }
        }
        let end = payload.len().checked_sub(padding)?;
        (start <= end).then_some(start..end)
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
        }
    }

    /// Continues with these bytes; `seen` is called with each frame that they complete.
    pub(super) fn follow(&mut self, mut bytes: &[u8], mut seen: impl FnMut(FrameHead)) {
        while let (taken, Some(frame)) = self.step(bytes) {
            seen(frame);
            bytes = bytes.get(taken..).unwrap_or_default();
        }
    }

    /// Continues with these bytes, up to the end of a frame; returns how many were taken, and the frame if it is
    /// complete. If none is, all of them were taken.
    pub(super) fn step(&mut self, bytes: &[u8]) -> (usize, Option<FrameHead>) {
        let skipped = self.preface.min(bytes.len());
        self.preface -= skipped;
        let mut rest = bytes.get(skipped..).unwrap_or_default();
        while !rest.is_empty() {
            if self.left == 0 {
                let (Some(room), wanted) = (self.head.get_mut(self.have..), HEAD - self.have)
                else {
                    break;
                };
                let taken = wanted.min(rest.len());
                let (begun, behind) = rest.split_at_checked(taken).unwrap_or_default();
                for (to, from) in room.iter_mut().zip(begun) {
                    *to = *from;
                }
                rest = behind;
                self.have += taken;
                if self.have < HEAD {
                    break;
                }
                self.have = 0;
                self.frame = FrameHead::parse(self.head);
                self.left = self.frame.length;
            } else {
                let taken = self.left.min(rest.len());
                rest = rest.get(taken..).unwrap_or_default();
                self.left -= taken;
            }
            if self.left == 0 {
                return (bytes.len() - rest.len(), Some(self.frame));
            }
        }
        (bytes.len(), None)
    }

    /// How many bytes have been read of the payload of an incomplete frame that carries fields.
    pub(super) fn begun(&self) -> usize {
        self.frame.length_of_block().saturating_sub(self.left) * usize::from(self.left > 0)
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
            let mut passing = Passing::behind(7);
            let mut seen = Vec::new();
            for piece in bytes.chunks(size) {
                passing.follow(piece, |frame| {
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
        assert_eq!(frame(PADDED | PRIORITY).fields(payload), Some(6..8));
        assert_eq!(frame(PADDED).fields(payload), Some(1..8));
        assert_eq!(frame(PRIORITY).fields(payload), Some(5..10));
        assert_eq!(frame(0).fields(payload), Some(0..10));
        assert_eq!(frame(PADDED).fields(b"\x02."), None);
        assert_eq!(frame(PADDED | PRIORITY).fields(b"\x01....."), None);
        assert_eq!(frame(PRIORITY).fields(b"...."), None);
    }

    #[test]
    fn half_a_frame_is_known_for_one() {
        let mut passing = Passing::behind(2);
        assert!(passing.is_within(), "the preface");
        passing.follow(b"ab", |_| {});
        assert!(!passing.is_within());
        passing.follow(&[0, 0, 2, 1, 4, 0, 0], |_| {});
        assert!(passing.is_within(), "a head");
        assert_eq!(passing.begun(), 0);
        passing.follow(&[0, 1, 7], |_| {});
        assert!(passing.is_within(), "a payload");
        assert_eq!(passing.begun(), 1);
        passing.follow(&[7], |_| {});
        assert!(!passing.is_within());
        assert_eq!(passing.begun(), 0);
        passing.follow(&[0, 0, 2, 0, 0, 0, 0, 0, 1, 7], |_| {});
        assert!(!passing.is_within(), "data");
        assert_eq!(passing.begun(), 0, "no fields");
    }
}
