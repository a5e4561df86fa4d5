//! What two versions of a file have in common, found by blocks of 4 KiB.
//!
//! File systems put files at block boundaries, so that what a package brings changes blocks and moves none of the rest by
//! a few bytes. Larger units, or such that follow the content, find much less in common on a disk.

use crate::manifest::{FRAME, Hash};
use std::collections::HashMap;
use std::io;
use std::os::unix::fs::FileExt;

pub const BLOCK: usize = 4096;

/// In a patch: the next block of the bytes that follow.
const NEW: u32 = u32::MAX;

/// In a patch: a block of zeros.
const ZERO: u32 = u32::MAX - 1;

/// Bytes of a block's hash.
pub const KEPT: usize = 16;

/// Zeros for a block of zeros.
pub type BlockHash = [u8; KEPT];

/// How blocks are hashed: XXH3 with 128 bits, many times faster than what a signature needs. Its seed is a secret, so that
/// nobody can make blocks that are taken for others; if some were, the frame's own hash would not be right.
#[derive(Clone, Copy)]
pub struct Blocks(pub u64);

impl Blocks {
    pub fn hash(self, block: &[u8]) -> BlockHash {
        match crate::place::is_zero(block) {
            true => [0; KEPT],
            false => xxhash_rust::xxh3::xxh3_128_with_seed(block, self.0).to_le_bytes(),
        }
    }
}

/// A version that receivers may have.
pub struct Base {
    pub content: Hash,
    /// Hash of each frame; zeros for one of zeros.
    pub frames: Vec<Hash>,
    blocks: Vec<BlockHash>,
    places: HashMap<BlockHash, u32>,
}

/// What is to be done for a frame of the next version.
pub enum Change {
    /// Nothing: it is as it was at the same place.
    None,
    /// Its blocks come from here and there, and from the bytes that follow: the patch.
    Patch(Vec<u8>),
}

impl Base {
    pub fn new(content: Hash, frames: Vec<Hash>, blocks: Vec<BlockHash>) -> Self {
        let mut places = HashMap::with_capacity(blocks.len() / 4);
        for (place, block) in (0..ZERO).zip(&blocks) {
            if *block != [0; KEPT] {
                places.entry(*block).or_insert(place);
            }
        }
        Self {
            content,
            frames,
            blocks,
            places,
        }
    }

    /// A patch: for each block of the frame four bytes that say where it is in the base, then the new blocks. `hashes`: of
    /// the frame's blocks.
    pub fn change(&self, index: u32, frame: &[u8], hashes: &[BlockHash]) -> Change {
        let first = index as usize * (FRAME as usize / BLOCK);
        let mut where_from = Vec::new();
        let mut new = Vec::new();
        let mut same = true;
        for ((place, block), &hash) in (first..).zip(frame.chunks(BLOCK)).zip(hashes) {
            let is_whole = block.len() == BLOCK;
            let here = self.blocks.get(place) == Some(&hash) && is_whole;
            same &= here;
            let from = match hash {
                _ if here && hash != [0; KEPT] => place as u32,
                [0, ..] if hash == [0; KEPT] => ZERO,
                _ => self.places.get(&hash).copied().unwrap_or(NEW),
            };
            where_from.extend(from.to_le_bytes());
            if from == NEW {
                new.extend_from_slice(block);
            }
        }
        // The base's last frame may have been shorter.
        if same && frame.len() == FRAME as usize && (index as usize) < self.frames.len() {
            return Change::None;
        }
        where_from.extend(new);
        Change::Patch(where_from)
    }
}

/// Bytes of a frame that are in the base as they are: it need not be written where the file system can share them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    /// Where in the frame.
    pub at: usize,
    pub len: usize,
    /// Where in the base.
    pub from: u64,
}

/// Makes a frame of a patch and the base. `frame`: as long as the frame is, and zeros. Returns what is from the base, in
/// whole blocks.
///
/// Errors: reading the base. `Ok(None)`: the patch is not one for such a frame.
pub fn apply(
    patch: &[u8],
    base: &impl FileExt,
    frame: &mut [u8],
) -> io::Result<Option<Vec<Shared>>> {
    let count = frame.len().div_ceil(BLOCK);
    let Some((where_from, mut new)) = patch.split_at_checked(count * 4) else {
        return Ok(None);
    };
    let mut shared: Vec<Shared> = Vec::new();
    for (at, from) in (0..).step_by(BLOCK).zip(where_from.chunks(4)) {
        let len = BLOCK.min(frame.len() - at);
        match crate::manifest::number(from) {
            NEW => {
                let Some((bytes, rest)) = new.split_at_checked(len) else {
                    return Ok(None);
                };
                frame[at..at + len].copy_from_slice(bytes);
                new = rest;
            }
            ZERO => {}
            place => {
                let from = u64::from(place) * BLOCK as u64;
                match shared.last_mut() {
                    Some(last)
                        if last.at + last.len == at && last.from + last.len as u64 == from =>
                    {
                        last.len += len;
                    }
                    _ => shared.push(Shared { at, len, from }),
                }
            }
        }
    }
    for part in &shared {
        match base.read_exact_at(&mut frame[part.at..part.at + part.len], part.from) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
    }
    for part in &mut shared {
        part.len -= part.len % BLOCK;
    }
    Ok(new.is_empty().then_some(shared))
}

/// Most bytes that a patch of a frame of this length can have.
pub fn longest(frame: usize) -> usize {
    frame.div_ceil(BLOCK) * 4 + frame
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn file(bytes: &[u8]) -> std::fs::File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn base(bytes: &[u8]) -> Base {
        let blocks = bytes.chunks(BLOCK).map(|b| Blocks(7).hash(b)).collect();
        let frames = bytes.chunks(FRAME as usize);
        let frames = frames.map(|f| *blake3::hash(f).as_bytes()).collect();
        Base::new([0; 32], frames, blocks)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]
        #[test]
        fn a_patch_makes_the_frame(
            old in prop::collection::vec(0_u8..6, 1..600),
            new in prop::collection::vec(0_u8..9, 1..600),
            cut in 0..BLOCK,
        ) {
            let bytes = |blocks: &[u8]| -> Vec<u8> { blocks.iter().flat_map(|b| vec![*b; BLOCK]).collect() };
            let (old, mut new) = (bytes(&old), bytes(&new));
            new.truncate(new.len() - cut);
            let base = base(&old);
            let file = file(&old);
            for (index, frame) in (0..).zip(new.chunks(FRAME as usize)) {
                let hashes: Vec<_> = frame.chunks(BLOCK).map(|b| Blocks(7).hash(b)).collect();
                match base.change(index, frame, &hashes) {
                    Change::None => {
                        let start = index as usize * FRAME as usize;
                        prop_assert!(old[start..start + frame.len()] == *frame);
                    }
                    Change::Patch(patch) => {
                        prop_assert!(patch.len() <= longest(frame.len()));
                        let mut made = vec![0; frame.len()];
                        let shared = apply(&patch, &file, &mut made).unwrap().unwrap();
                        prop_assert!(made == frame);
                        for Shared { at, len, from } in shared {
                            let from = from as usize;
                            prop_assert!(frame[at..at + len] == old[from..from + len]);
                        }
                    }
                }
            }
        }

        #[test]
        fn whatever_comes_as_a_patch_is_refused_or_makes_a_frame(patch in prop::collection::vec(any::<u8>(), 0..9000)) {
            let file = file(&[1; 3 * BLOCK]);
            let mut frame = vec![0; BLOCK + 7];
            let _ = apply(&patch, &file, &mut frame).unwrap();
        }
    }
}
