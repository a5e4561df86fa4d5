//! Frames and patches are compressed, where it pays.

use crate::level;
use std::io;

/// zstd's level for patches.
const PATCH_LEVEL: i32 = 6;

/// After a frame that does not become smaller, at most so many are not even tried, unless a little of one promises more.
const MOST_UNTRIED: u32 = 15;
const SAMPLE: usize = 8 << 10;

/// A compressor of some level; making one costs more than many a thing that it is for.
#[derive(Default)]
struct Compressor(Option<(i32, zstd::bulk::Compressor<'static>)>);

impl Compressor {
    fn pack(&mut self, bytes: &[u8], level: i32) -> io::Result<Vec<u8>> {
        let known = self.0.take().filter(|(now, _)| *now == level);
        let made = || Ok::<_, io::Error>((level, zstd::bulk::Compressor::new(level)?));
        let known = known.map_or_else(made, Ok)?;
        self.0.insert(known).1.compress(bytes)
    }
}

/// Compresses where it pays.
#[derive(Default)]
pub struct Packer {
    frames: Compressor,
    patches: Compressor,
    samples: Compressor,
    /// Frames in a row that did not become smaller.
    misses: u32,
    untried: u32,
}

impl Packer {
    /// Little is sent, and it is made once: it may take a moment. Nothing, if it is no less than the frame.
    pub fn pack_patch(&mut self, patch: &[u8], frame: usize) -> io::Result<Option<Vec<u8>>> {
        let packed = self.patches.pack(patch, PATCH_LEVEL)?;
        Ok((packed.len() < frame).then_some(packed))
    }

    /// Does a little of it become clearly smaller?
    fn promises(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let middle = &bytes[bytes.len() / 2..];
        let some = &middle[..middle.len().min(SAMPLE)];
        let packed = self.samples.pack(some, level::FASTEST)?;
        Ok(packed.len() < some.len() / 8 * 7)
    }

    /// A frame at this level; nothing, if it does not become smaller, or will not.
    pub fn pack(&mut self, bytes: &[u8], level: i32) -> io::Result<Option<Vec<u8>>> {
        if self.untried > 0 && !self.promises(bytes)? {
            self.untried -= 1;
            return Ok(None);
        }
        let packed = self.frames.pack(bytes, level)?;
        // A few percent are not worth the receivers' time.
        if packed.len() < bytes.len() / 32 * 31 {
            self.misses = 0;
            return Ok(Some(packed));
        }
        self.misses += 1;
        self.untried = (1 << self.misses.min(4)) - 1;
        self.untried = self.untried.min(MOST_UNTRIED);
        Ok(None)
    }
}
