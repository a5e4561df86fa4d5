//! What a frame of the new version is made of: ranges of the base's stream, and bytes that are new. The source makes
//! patches that say so, and hosts take them apart.
//!
//! A patch, integers little-endian: count of ranges (u32), for each of them its length (u32) and where it is in the base
//! (u64; all ones: in the next of the bytes that follow), and the new bytes.

use super::{Base, Chunk};
use crate::manifest::{FRAME, number};
use std::collections::VecDeque;
use std::io;

/// Most ranges that a patch of a frame may have.
const MOST: usize = 4096;

/// In a patch: the next of the bytes that follow.
const NEW: u64 = u64::MAX;

/// Bytes of a range in a patch.
const RANGE: usize = 12;

/// Bytes of the new version in a row: where they are in the base, if they are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: u64,
    len: u64,
    from: Option<u64>,
}

/// The new version as it is made of the base.
pub struct Ranges {
    /// What the base is called.
    pub version: String,
    ranges: Vec<Range>,
}

impl Ranges {
    pub fn new(base: &Base, new: &[Chunk]) -> Self {
        let mut ranges: Vec<Range> = Vec::new();
        let (mut start, mut next) = (0, 0);
        for chunk in new {
            // Rather the one that follows: then the range goes on.
            let follows = base.chunks.get(next) == Some(chunk);
            let found = follows
                .then_some(next)
                .or_else(|| base.places.get(chunk).copied());
            let from = found.map(|index| base.starts[index]);
            next = found.map_or(next, |index| index + 1);
            let len = u64::from(chunk.len);
            match ranges.last_mut() {
                Some(last) if last.from.map(|at| at + last.len) == from => last.len += len,
                _ => ranges.push(Range { start, len, from }),
            }
            start += len;
        }
        Self {
            version: base.version.clone(),
            ranges,
        }
    }

    /// A patch that makes this frame; none if nothing of it is in the base. `read`: reads what is new, and no more.
    pub fn patch(
        &self,
        index: u32,
        len: u32,
        read: impl Fn(&mut [u8], u64) -> io::Result<()>,
    ) -> io::Result<Option<Vec<u8>>> {
        let start = u64::from(index) * u64::from(FRAME);
        let end = start + u64::from(len);
        let first = self
            .ranges
            .partition_point(|range| range.start + range.len <= start);
        let ranges = self.ranges[first..].iter();
        let ranges = ranges.take_while(|range| range.start < end);
        let known = ranges.clone().any(|range| range.from.is_some());
        let count = ranges.clone().count();
        if !known || count > MOST {
            return Ok(None);
        }
        let mut patch = (count as u32).to_le_bytes().to_vec();
        for range in ranges.clone() {
            let (begin, stop) = (range.start.max(start), (range.start + range.len).min(end));
            patch.extend(((stop - begin) as u32).to_le_bytes());
            let from = range.from.map(|from| from + begin - range.start);
            patch.extend(from.unwrap_or(NEW).to_le_bytes());
        }
        for range in ranges.filter(|range| range.from.is_none()) {
            let (begin, stop) = (range.start.max(start), (range.start + range.len).min(end));
            let here = patch.len();
            patch.resize(here + (stop - begin) as usize, 0);
            read(&mut patch[here..], begin)?;
        }
        Ok(Some(patch))
    }
}

/// Bytes of a frame in a row, as a patch has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// So many that are at this offset in the base.
    Old { from: u64, len: u64 },
    /// So many, from here on in the patch.
    New { at: usize, len: u64 },
}

/// What a frame is made of, in its order. `len`: how long the frame is, and `base`: the version that it is made from.
/// None: this is no patch for such a frame.
pub fn pieces(patch: &[u8], base: u64, len: usize) -> Option<VecDeque<Piece>> {
    let (count, rest) = patch.split_at_checked(4)?;
    let count = number(count) as usize;
    if count > MOST {
        return None;
    }
    let (list, _) = rest.split_at_checked(count * RANGE)?;
    let (mut at, mut left) = (4 + list.len(), len);
    let mut pieces = VecDeque::with_capacity(count);
    for range in list.as_chunks::<RANGE>().0 {
        let len = number(&range[..4]) as usize;
        let from = u64::from(number(&range[4..8])) | u64::from(number(&range[8..])) << 32;
        left = left.checked_sub(len)?;
        let bytes = len as u64;
        match from {
            _ if len == 0 => {}
            NEW => {
                pieces.push_back(Piece::New { at, len: bytes });
                at += len;
            }
            from if from.checked_add(bytes)? > base => return None,
            from => pieces.push_back(Piece::Old { from, len: bytes }),
        }
    }
    (left == 0 && at == patch.len()).then_some(pieces)
}

/// Most bytes that a patch of a frame of this length can have.
pub fn longest(frame: usize) -> usize {
    4 + MOST * RANGE + frame
}
