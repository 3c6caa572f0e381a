//! Frames of HTTP/2 as they go by in one direction (RFC 9113 section 4.1), in whatever pieces they come. Only their heads
//! are read; what they mean is not known here.

/// How long the head of a frame is.
const HEAD: usize = 9;

/// The kinds of frames that are told apart (section 6).
pub(super) mod kind {
    pub(in super::super) const DATA: u8 = 0;
    pub(in super::super) const HEADERS: u8 = 1;
    pub(in super::super) const RST_STREAM: u8 = 3;
    pub(in super::super) const CONTINUATION: u8 = 9;
}

/// The flag of the last frame of a block of fields.
const END_HEADERS: u8 = 4;

/// The head of a frame.
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

    /// Whether a block of fields is whole with this frame.
    pub(super) fn ends_block(self) -> bool {
        matches!(self.kind, kind::HEADERS | kind::CONTINUATION) && self.flags & END_HEADERS != 0
    }
}

/// Where the bytes of one direction have come to.
#[derive(Debug)]
pub(super) struct Passing {
    /// What comes before the first frame.
    preface: usize,
    head: [u8; HEAD],
    /// How much of a head is here.
    have: usize,
    frame: FrameHead,
    /// How much of the frame's payload is still to come.
    left: usize,
}

impl Passing {
    /// A direction that begins with so many bytes that are no frame.
    pub(super) fn behind(preface: usize) -> Self {
        Self {
            preface,
            head: [0; HEAD],
            have: 0,
            frame: FrameHead::default(),
            left: 0,
        }
    }

    /// Goes on with these bytes; `seen` is told of each frame that is whole with them.
    pub(super) fn follow(&mut self, mut bytes: &[u8], mut seen: impl FnMut(FrameHead)) {
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
                self.left -= taken;
                bytes = bytes.get(taken..).unwrap_or_default();
            }
            if self.left == 0 {
                seen(self.frame);
            }
        }
    }

    /// Whether a frame has begun that is not whole; one of data is not meant, whose request has a deadline of its own.
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
    fn half_a_frame_is_known_for_one() {
        let mut passing = Passing::behind(2);
        assert!(passing.is_within(), "the preface");
        passing.follow(b"ab", |_| {});
        assert!(!passing.is_within());
        passing.follow(&[0, 0, 2, 1, 4, 0, 0], |_| {});
        assert!(passing.is_within(), "a head");
        passing.follow(&[0, 1, 7], |_| {});
        assert!(passing.is_within(), "a payload");
        passing.follow(&[7], |_| {});
        assert!(!passing.is_within());
        passing.follow(&[0, 0, 2, 0, 0, 0, 0, 0, 1, 7], |_| {});
        assert!(!passing.is_within(), "data");
    }
}
