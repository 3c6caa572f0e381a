//! The encoders of the codings, and those that a worker keeps for the next response. What is compressed is decided
//! elsewhere.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use brotli::CompressorWriter;
use flate2::{Compress, Compression, FlushCompress, Status};
use zstd::stream::raw::{CParameter, Encoder as Zstd, Operation, OutBuffer};

use crate::message::accept::Coding;
use crate::observe::counts::Count;

/// How far back an encoder looks, as a power of two: 512 KiB. Clients must keep as much; of zstd they take 8 MiB at most
/// (RFC 9659).
const WINDOW: u32 = 19;
/// The window of gzip, which has no larger one: 32 KiB.
const GZIP_WINDOW: u8 = 15;
/// How much is made room for at a time.
const ROOM: usize = 16 * 1024;
/// How many responses a worker compresses at once; the others go plain. Each may take two megabytes.
const MOST_LIVE: usize = 64;
/// How many unused encoders a worker keeps.
const MOST_IDLE: usize = 8;

/// How hard an encoder tries.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) enum Level {
    /// For the least work.
    Fast,
    /// For responses that are made for each request.
    #[default]
    Default,
    /// For less bytes at more work.
    Small,
    /// For files that are compressed once and for all.
    Best,
}

impl Level {
    fn zstd(self) -> i32 {
        match self {
            Self::Fast => 1,
            Self::Default => 3,
            Self::Small => 9,
            Self::Best => 19,
        }
    }

    fn brotli(self) -> u32 {
        match self {
            Self::Fast => 1,
            Self::Default => 4,
            Self::Small => 5,
            Self::Best => 11,
        }
    }

    fn gzip(self) -> Compression {
        Compression::new(match self {
            Self::Fast => 1,
            Self::Default => 4,
            Self::Small => 6,
            Self::Best => 9,
        })
    }

    /// The window of zstd and br, as a power of two: what is compressed once may look back as far as clients allow.
    fn window(self) -> u32 {
        match self {
            Self::Fast | Self::Default | Self::Small => WINDOW,
            Self::Best => 23,
        }
    }
}

/// An encoder of one coding at one level.
pub(super) struct Encoder {
    coding: Coding,
    level: Level,
    kind: Kind,
}

enum Kind {
    Zstd(Zstd<'static>),
    /// `None` once it has ended: it cannot be used again.
    Br(Option<Box<CompressorWriter<Vec<u8>>>>),
    Gzip(Compress),
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder")
            .field("coding", &self.coding)
            .field("level", &self.level)
            .finish_non_exhaustive()
    }
}

impl Encoder {
    /// A new encoder.
    ///
    /// # Errors
    /// There is not enough memory.
    pub(super) fn new(coding: Coding, level: Level) -> io::Result<Self> {
        let kind = match coding {
            Coding::Zstd => {
                let mut encoder = Zstd::new(level.zstd())?;
                encoder.set_parameter(CParameter::WindowLog(level.window()))?;
                Kind::Zstd(encoder)
            }
            Coding::Br => Kind::Br(Some(Box::new(CompressorWriter::new(
                Vec::new(),
                ROOM,
                level.brotli(),
                level.window(),
            )))),
            Coding::Gzip => Kind::Gzip(Compress::new_gzip(level.gzip(), GZIP_WINDOW)),
        };
        Ok(Self {
            coding,
            level,
            kind,
        })
    }

    /// Compresses some bytes; `out` gets what is ready of all so far, which may be nothing.
    pub(super) fn write(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.kind {
            Kind::Zstd(encoder) => {
                while !input.is_empty() {
                    let mut from = zstd::stream::raw::InBuffer::around(input);
                    with_room(out, |room| encoder.run(&mut from, room).map(drop))?;
                    let read = from.pos();
                    input = input.get(read..).unwrap_or_default();
                }
            }
            Kind::Br(encoder) => {
                let encoder = encoder.as_mut().ok_or_else(ended)?;
                encoder.write_all(input)?;
                out.append(encoder.get_mut());
            }
            Kind::Gzip(encoder) => {
                while !input.is_empty() {
                    let before = encoder.total_in();
                    out.reserve(ROOM);
                    encoder
                        .compress_vec(input, out, FlushCompress::None)
                        .map_err(io::Error::other)?;
                    let read = usize::try_from(encoder.total_in() - before);
                    input = input
                        .get(read.map_err(io::Error::other)?..)
                        .unwrap_or_default();
                }
            }
        }
        Ok(())
    }

    /// Puts out all that was written, so that its reader has it.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.kind {
            Kind::Zstd(encoder) => loop {
                if with_room(out, |room| encoder.flush(room))? == 0 {
                    return Ok(());
                }
            },
            Kind::Br(encoder) => {
                let encoder = encoder.as_mut().ok_or_else(ended)?;
                encoder.flush()?;
                out.append(encoder.get_mut());
            }
            Kind::Gzip(encoder) => loop {
                out.reserve(ROOM);
                encoder
                    .compress_vec(&[], out, FlushCompress::Sync)
                    .map_err(io::Error::other)?;
                if out.len() < out.capacity() {
                    return Ok(());
                }
            },
        }
        Ok(())
    }

    /// Ends the stream. Nothing can be written any more until it is reset.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.kind {
            Kind::Zstd(encoder) => loop {
                if with_room(out, |room| encoder.finish(room, true))? == 0 {
                    return Ok(());
                }
            },
            Kind::Br(encoder) => {
                let encoder = encoder.take().ok_or_else(ended)?;
                out.append(&mut encoder.into_inner());
            }
            Kind::Gzip(encoder) => loop {
                out.reserve(ROOM);
                let status = encoder
                    .compress_vec(&[], out, FlushCompress::Finish)
                    .map_err(io::Error::other)?;
                if status == Status::StreamEnd {
                    return Ok(());
                }
            },
        }
        Ok(())
    }

    /// Prepares for another stream; returns whether that is possible.
    fn reset(&mut self) -> bool {
        match &mut self.kind {
            Kind::Zstd(encoder) => encoder.reinit().is_ok(),
            Kind::Br(_) => false,
            Kind::Gzip(encoder) => {
                encoder.reset();
                true
            }
        }
    }
}

/// Lets zstd write behind what is there.
fn with_room<T>(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut OutBuffer<'_, Vec<u8>>) -> io::Result<T>,
) -> io::Result<T> {
    out.reserve(ROOM);
    let at = out.len();
    write(&mut OutBuffer::around_pos(out, at))
}

fn ended() -> io::Error {
    io::Error::other("the stream has ended")
}

/// Compresses all of some bytes.
///
/// # Errors
/// There is not enough memory.
pub(crate) fn compress(content: &[u8], coding: Coding, level: Level) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(content.len() / 3);
    let mut encoder = Encoder::new(coding, level)?;
    encoder.write(content, &mut out)?;
    encoder.finish(&mut out)?;
    Ok(out)
}

/// The encoders of one worker: making one takes two to three times as long as compressing a small response.
#[derive(Debug, Default)]
pub(crate) struct Encoders {
    live: AtomicUsize,
    idle: Mutex<Vec<Encoder>>,
    /// What this worker has compressed, in the order of [`Coding::ALL`].
    counts: [EncodedCounts; Coding::ALL.len()],
}

/// What one worker has compressed with one coding.
#[derive(Debug, Default)]
pub(crate) struct EncodedCounts {
    /// Bytes before.
    pub(crate) before: Count,
    /// Bytes after.
    pub(crate) after: Count,
    /// Responses that were not compressed, because too many were.
    pub(crate) busy: Count,
}

impl Encoders {
    /// An encoder for one response; `None` where too many responses are being compressed, or memory is scarce.
    pub(super) fn take(self: &Arc<Self>, coding: Coding, level: Level) -> Option<Lent> {
        if self.live.load(Ordering::Relaxed) >= MOST_LIVE {
            if let Some(counts) = self.counts(coding) {
                counts.busy.one();
            }
            return None;
        }
        let kept = {
            let mut idle = self.idle();
            let at = idle
                .iter()
                .rposition(|it| it.coding == coding && it.level == level);
            at.map(|at| idle.swap_remove(at))
        };
        let encoder = match kept {
            Some(encoder) => encoder,
            None => Encoder::new(coding, level).ok()?,
        };
        self.live.fetch_add(1, Ordering::Relaxed);
        Some(Lent {
            encoder: Some(encoder),
            home: Arc::clone(self),
        })
    }

    /// What was compressed with this coding.
    pub(crate) fn counts(&self, coding: Coding) -> Option<&EncodedCounts> {
        let at = Coding::ALL.iter().position(|known| *known == coding)?;
        self.counts.get(at)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Encoder>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many responses are being compressed, and how many unused encoders are kept.
    #[cfg(test)]
    pub(super) fn count(&self) -> (usize, usize) {
        (self.live.load(Ordering::Relaxed), self.idle().len())
    }
}

/// An encoder that goes back to its worker when it is dropped.
#[derive(Debug)]
pub(super) struct Lent {
    /// `None` only while it is dropped.
    encoder: Option<Encoder>,
    home: Arc<Encoders>,
}

impl Lent {
    /// Counts bytes that were compressed.
    pub(super) fn count(&self, before: usize, after: usize) {
        let coding = self.encoder.as_ref().map(|encoder| encoder.coding);
        if let Some(counts) = coding.and_then(|coding| self.home.counts(coding)) {
            counts.before.add(before as u64);
            counts.after.add(after as u64);
        }
    }

    /// The encoder.
    ///
    /// # Errors
    /// Never; the type does not know it.
    pub(super) fn get(&mut self) -> io::Result<&mut Encoder> {
        self.encoder.as_mut().ok_or_else(ended)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.live.fetch_sub(1, Ordering::Relaxed);
        let Some(mut encoder) = self.encoder.take() else {
            return;
        };
        let mut idle = self.home.idle();
        if idle.len() < MOST_IDLE && encoder.reset() {
            idle.push(encoder);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    /// What a client makes of it.
    pub(super) fn decompressed(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        match coding {
            Coding::Zstd => ruzstd::decoding::StreamingDecoder::new(bytes)
                .unwrap()
                .read_to_end(&mut plain)
                .unwrap(),
            Coding::Br => brotli_decompressor::Decompressor::new(bytes, 4096)
                .read_to_end(&mut plain)
                .unwrap(),
            Coding::Gzip => flate2::read::GzDecoder::new(bytes)
                .read_to_end(&mut plain)
                .unwrap(),
        };
        plain
    }

    const LEVELS: [Level; 4] = [Level::Fast, Level::Default, Level::Small, Level::Best];

    #[test]
    fn what_is_compressed_is_what_was_written_at_every_level() {
        let text = "all work and no play makes a dull gateway. ".repeat(5_000);
        for coding in Coding::ALL {
            let mut before = usize::MAX;
            for level in LEVELS {
                let bytes = compress(text.as_bytes(), coding, level).unwrap();
                assert!(bytes.len() < text.len() / 50, "{coding:?} {level:?}");
                assert!(
                    bytes.len() <= before.saturating_add(200),
                    "{coding:?} {level:?}"
                );
                before = bytes.len();
                assert!(decompressed(coding, &bytes) == text.as_bytes());
            }
            let nothing = compress(b"", coding, Level::Default).unwrap();
            assert_eq!(decompressed(coding, &nothing), b"");
        }
    }

    #[test]
    fn an_encoder_is_used_again_and_not_more_than_so_many_at_once() {
        let home = Arc::new(Encoders::default());
        for coding in Coding::ALL {
            for _ in 0..3 {
                let mut lent = home.take(coding, Level::Default).unwrap();
                let mut out = Vec::new();
                lent.get().unwrap().write(b"abc", &mut out).unwrap();
                lent.get().unwrap().finish(&mut out).unwrap();
                assert_eq!(decompressed(coding, &out), b"abc");
                // One that is given up in the middle is as good as new.
                let mut lent = home.take(coding, Level::Default).unwrap();
                lent.get().unwrap().write(&[7; 100_000], &mut out).unwrap();
            }
        }
        let (live, idle) = home.count();
        assert_eq!(live, 0);
        assert!(idle > 0 && idle <= MOST_IDLE);
        let many: Vec<_> = (0..MOST_LIVE)
            .map(|_| home.take(Coding::Gzip, Level::Fast).unwrap())
            .collect();
        assert!(home.take(Coding::Gzip, Level::Fast).is_none());
        drop(many);
        assert_eq!(home.count(), (0, MOST_IDLE));
        assert!(home.take(Coding::Gzip, Level::Fast).is_some());
    }

    proptest! {
        /// Any bytes in any pieces, flushed anywhere: what was flushed is there, and the whole is what was written.
        #[test]
        fn pieces_come_through_as_they_were_written(
            pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..2000), any::<bool>()), 0..12),
        ) {
            for coding in Coding::ALL {
                let mut encoder = Encoder::new(coding, Level::Default).unwrap();
                let (mut out, mut written) = (Vec::new(), Vec::new());
                for (piece, flushes) in &pieces {
                    encoder.write(piece, &mut out).unwrap();
                    written.extend_from_slice(piece);
                    if *flushes {
                        encoder.flush(&mut out).unwrap();
                    }
                }
                encoder.finish(&mut out).unwrap();
                prop_assert!(decompressed(coding, &out) == written);
            }
        }
    }
}
