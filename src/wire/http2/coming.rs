//! Follows what a client sends on an HTTP/2 connection before `h2` reads it: which requests it opens, since when a frame
//! or a field block has been incomplete, and which path needs a stand-in. A frame with fields is held back until its
//! block is complete, because only then its fields are known. What the fields say is kept elsewhere.

use std::ops::Range;

use tokio::time::Instant;

use super::blocks::{Blocks, Said, StandIn};
use super::passing::{FrameHead, Passing, kind};
use super::shared::{Shared, Word};
use crate::wire::PREFACE;

/// The longest field block in several frames that is parsed: longer than any that `h2` accepts.
const LONGEST_BLOCK: usize = 1 << 20;

/// The parser of input from the client.
#[derive(Debug)]
pub(super) struct Coming {
    frames: Passing,
    /// The newest stream that a request has opened.
    newest: u32,
    /// The request whose field block is incomplete.
    opening: Option<u32>,
    in_block: bool,
    /// The received part of a block that spans several frames.
    block: Vec<u8>,
    /// Where the parts of the block are in the bytes that are held back.
    parts: Vec<Range<usize>>,
    /// Whether the frames of the block are passed on before it is complete, because `h2` refuses it anyway.
    passes: bool,
    /// The state shared by blocks; `None` after one that cannot be parsed, which ends the connection.
    blocks: Option<Blocks>,
    /// Since when a frame or a field block has been incomplete.
    half_since: Option<Instant>,
}

impl Default for Coming {
    fn default() -> Self {
        Self {
            frames: Passing::behind(PREFACE.len()),
            newest: 0,
            opening: None,
            in_block: false,
            block: Vec::new(),
            parts: Vec::new(),
            passes: false,
            blocks: Some(Blocks::default()),
            half_since: None,
        }
    }
}

impl Coming {
    /// Since when a frame or a field block has been incomplete.
    pub(super) fn half_since(&self) -> Option<Instant> {
        self.half_since
    }

    /// Continues with these bytes, of which the first `held` were held back before; returns how many of all of them may
    /// be passed on. The others have to be there again, with more bytes behind them, the next time.
    pub(super) fn follow(&mut self, bytes: &mut [u8], held: usize, shared: &Shared) -> usize {
        let mut at = held;
        // Where the block begins that is incomplete, or its frame.
        let mut begin = (held > 0).then_some(0);
        while let (taken, Some(frame)) = self.frames.step(bytes.get(at..).unwrap_or_default()) {
            at += taken;
            if frame.has_block() {
                let payload = at - frame.length_of_block();
                let from = *begin.get_or_insert(payload);
                if let Some(held) = bytes.get_mut(from..at) {
                    self.frame(frame, held, payload - from, shared);
                }
            }
            if self.in_block && frame.kind != kind::CONTINUATION && frame.kind != kind::HEADERS {
                // `h2` is to see at once that it interrupts the block, and ends the connection.
                self.pass();
            }
            if !self.in_block || self.passes {
                begin = None;
            }
        }
        at = bytes.len();
        let frame = at - self.frames.begun();
        let begin = begin.unwrap_or(frame);
        if self.in_block && at - begin > most_held(shared) {
            self.pass();
        }
        if self.in_block || self.frames.is_within() {
            self.half_since.get_or_insert_with(Instant::now);
        } else {
            self.half_since = None;
        }
        if self.passes { frame } else { begin }
    }

    /// The rest of the block is not held back.
    fn pass(&mut self) {
        self.passes = true;
        self.parts = Vec::new();
    }

    /// A frame with fields is complete, and its payload begins at this place of the bytes that are held back.
    fn frame(&mut self, frame: FrameHead, held: &mut [u8], payload: usize, shared: &Shared) {
        // Clients' streams are odd, and each has a higher number than those before (RFC 9113 section 5.1.1).
        if frame.kind == kind::HEADERS && frame.stream % 2 == 1 && frame.stream > self.newest {
            self.newest = frame.stream;
            self.opening = Some(frame.stream);
        }
        self.in_block = !frame.ends_block();
        let fields = frame.fields(held.get(payload..).unwrap_or_default());
        let Some(fields) = fields.map(|place| payload + place.start..payload + place.end) else {
            self.blocks = None;
            return;
        };
        let text = held.get(fields.clone()).unwrap_or_default();
        if self.in_block || !self.block.is_empty() {
            if self.block.len() + text.len() > LONGEST_BLOCK {
                self.blocks = None;
                return;
            }
            self.block.extend_from_slice(text);
        }
        if !self.passes && !fields.is_empty() {
            self.parts.push(fields);
        }
        if self.in_block {
            return;
        }
        let gathered = std::mem::take(&mut self.block);
        let block = if gathered.is_empty() { text } else { &gathered };
        if let Some(stand_in) = self.block(frame.stream, block, shared) {
            // A block that was passed on has no parts any more.
            let places = self.parts.iter().cloned().flatten();
            for (place, byte) in places.skip(stand_in.at).zip(stand_in.bytes) {
                if let Some(room) = held.get_mut(place) {
                    *room = byte;
                }
            }
        }
        self.parts.clear();
        self.passes = false;
    }

    /// A block of this stream is complete; returns what has to stand in for its path.
    fn block(&mut self, stream: u32, block: &[u8], shared: &Shared) -> Option<StandIn> {
        match self.blocks.as_mut().map(|blocks| blocks.read(block)) {
            Some(Ok(said)) => match self.opening.take() {
                Some(opening) if shared.open(opening, &said) => said.stand_in,
                Some(_) => None,
                None => {
                    if said.pseudo {
                        shared.spoil_trailers(stream);
                    }
                    said.stand_in
                }
            },
            Some(Err(_)) | None => {
                self.blocks = None;
                if let Some(opening) = self.opening.take() {
                    shared.open(opening, &Said::nothing());
                }
                shared.say(Word::Late);
                None
            }
        }
    }
}

/// How many bytes of one block are held back. `h2` refuses all that are longer: it compares the decoded fields with the
/// limit, no character is coded with more than four bytes, and there are few frames with few other bytes.
fn most_held(shared: &Shared) -> usize {
    let header_bytes = shared.bounds.limits.header_bytes;
    (header_bytes.saturating_mul(4).saturating_add(1024)).min(LONGEST_BLOCK)
}
