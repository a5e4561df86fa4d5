//! What two versions of a file have in common, found by blocks of 4 KiB.
//!
//! File systems put files at block boundaries, so that what a package brings changes blocks and moves none of the rest by
//! a few bytes. Larger units, or such that follow the content, find much less in common on a disk.

use crate::manifest::{FRAME, Hash};
use std::collections::HashMap;
use std::fs::File;
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
/// nobody can make blocks that are taken for others.
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
    size: u64,
    /// Hash of each frame; zeros for one of zeros.
    pub frames: Vec<Hash>,
    /// Those of each frame that is not zeros.
    blocks: Vec<Option<Box<FrameBlocks>>>,
    places: HashMap<BlockHash, u32>,
}

/// Hashes of a frame's blocks.
pub type FrameBlocks = [BlockHash; FRAME as usize / BLOCK];

/// What is to be done for a frame of the next version.
pub enum Change {
    /// Nothing: it is as it was at the same place.
    None,
    /// Its blocks come from here and there, and from the bytes that follow: the patch.
    Patch(Vec<u8>),
}

impl Base {
    /// `hashes`: the file with the hash of each block, a hole where there are zeros.
    ///
    /// Errors: reading it.
    pub fn read(content: Hash, size: u64, frames: Vec<Hash>, hashes: &File) -> io::Result<Self> {
        let (mut blocks, mut places) = (Vec::with_capacity(frames.len()), HashMap::new());
        let kept = hashes.metadata()?.len();
        for frame in 0..frames.len() as u64 {
            let mut here = Box::new([[0; KEPT]; FRAME as usize / BLOCK]);
            let len = size_of_val(&*here) as u64;
            let at = frame * len;
            if at >= kept || crate::source::is_hole(hashes, at, len as u32) {
                blocks.push(None);
                continue;
            }
            let bytes = &mut here.as_flattened_mut()[..len.min(kept - at) as usize];
            hashes.read_exact_at(bytes, at)?;
            let first = frame * (u64::from(FRAME) / BLOCK as u64);
            for (place, block) in (first..u64::from(ZERO)).zip(&*here) {
                if *block != [0; KEPT] {
                    places.entry(*block).or_insert(place as u32);
                }
            }
            blocks.push(Some(here));
        }
        Ok(Self {
            content,
            size,
            frames,
            blocks,
            places,
        })
    }

    /// A patch: for each block of the frame four bytes that say where it is in the base, then the new blocks. `hashes`: of
    /// the frame's blocks.
    pub fn change(&self, index: u32, frame: &[u8], hashes: &[BlockHash]) -> Change {
        let first = index as usize * (FRAME as usize / BLOCK);
        let before = self.blocks.get(index as usize).and_then(Option::as_deref);
        let mut where_from = Vec::new();
        let mut new = Vec::new();
        let mut same = true;
        for ((at, block), &hash) in frame.chunks(BLOCK).enumerate().zip(hashes) {
            let place = first + at;
            let is_whole = block.len() == BLOCK;
            let here = before.map_or([0; KEPT], |before| before[at]) == hash && is_whole;
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
        // The base's last frame may have been shorter, also by less than a block.
        let end = (u64::from(index) + 1) * u64::from(FRAME);
        if same && frame.len() == FRAME as usize && end <= self.size {
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

/// What a patch says of a frame; what it says nothing of is zeros.
pub struct Recipe<'a> {
    pub shared: Vec<Shared>,
    /// Where in the frame, and what.
    pub new: Vec<(usize, &'a [u8])>,
}

/// Takes a patch of a frame of this length apart. `None`: it is not one.
pub fn read(patch: &[u8], frame: usize) -> Option<Recipe<'_>> {
    let (where_from, bytes) = patch.split_at_checked(frame.div_ceil(BLOCK) * 4)?;
    let mut shared: Vec<Shared> = Vec::new();
    // Ranges of `bytes`, each with its place in the frame.
    let mut new: Vec<(usize, std::ops::Range<usize>)> = Vec::new();
    let mut used = 0;
    for (at, from) in (0..).step_by(BLOCK).zip(where_from.chunks(4)) {
        let len = BLOCK.min(frame - at);
        match crate::manifest::number(from) {
            NEW => {
                match new.last_mut() {
                    Some((start, range)) if *start + range.len() == at => range.end += len,
                    _ => new.push((at, used..used + len)),
                }
                used += len;
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
    let whole = used == bytes.len();
    let new = new.into_iter();
    let new = new.map(|(at, range)| Some((at, bytes.get(range)?)));
    let new = new.collect::<Option<_>>()?;
    whole.then_some(Recipe { shared, new })
}

impl Recipe<'_> {
    /// Makes the frame. `frame`: as long as it is, and zeros. `false`: the base has no such bytes.
    ///
    /// Errors: reading the base.
    pub fn make(&self, base: &impl FileExt, frame: &mut [u8]) -> io::Result<bool> {
        for part in &self.shared {
            match base.read_exact_at(&mut frame[part.at..part.at + part.len], part.from) {
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                other => other?,
            }
        }
        for (at, bytes) in &self.new {
            frame[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        Ok(true)
    }
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
        let blocks = bytes.chunks(BLOCK).flat_map(|b| Blocks(7).hash(b));
        let hashes = file(&blocks.collect::<Vec<u8>>());
        let frames = bytes.chunks(FRAME as usize);
        let frames = frames.map(|f| *blake3::hash(f).as_bytes()).collect();
        Base::read([0; 32], bytes.len() as u64, frames, &hashes).unwrap()
    }

    /// The frame was taken for one of the base, which ends before it does.
    #[test]
    fn a_file_that_grows_by_zeros_within_its_last_block() {
        let mut old = vec![1; FRAME as usize - BLOCK];
        old.resize(FRAME as usize - 512, 0);
        let mut new = old.clone();
        new.resize(FRAME as usize, 0);
        let hashes: Vec<_> = new.chunks(BLOCK).map(|b| Blocks(7).hash(b)).collect();
        assert!(matches!(
            base(&old).change(0, &new, &hashes),
            Change::Patch(_)
        ));
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
                        let recipe = read(&patch, frame.len()).unwrap();
                        prop_assert!(recipe.make(&file, &mut made).unwrap());
                        prop_assert!(made == frame);
                        for Shared { at, len, from } in recipe.shared {
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
            if let Some(recipe) = read(&patch, frame.len()) {
                let _ = recipe.make(&file, &mut frame).unwrap();
            }
        }
    }
}
