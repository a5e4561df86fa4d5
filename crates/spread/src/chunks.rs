//! What two versions of a tree have in common, found by pieces that follow the content.
//!
//! What is before a file in the stream moves it by any number of bytes, so blocks at fixed places would find nothing. Each
//! header is a chunk of its own, and files are cut by FastCDC (v2020), each from its beginning: what is new in one file
//! changes nothing of the next.

use crate::manifest::{FRAME, Hash, number};
use crate::tar::END;
use crate::tree::{Node, Tree};
use fastcdc::v2020::FastCDC;
use std::collections::HashMap;
use std::io;

/// Bytes of a chunk of a file's content: least, about, most.
const SIZES: (usize, usize, usize) = (4 << 10, 16 << 10, 64 << 10);

/// Bytes that are read at once; more than the largest chunk.
const STEP: usize = 1 << 20;

/// Most ranges that a patch of a frame may have.
const MOST: usize = 4096;

/// In a patch: the next of the bytes that follow.
const NEW: u64 = u64::MAX;

/// Bytes of a range in a patch.
const RANGE: usize = 12;

/// A piece of a tree's stream. Only what the source itself has is compared, by 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Chunk {
    len: u32,
    hash: [u8; 16],
}

impl Chunk {
    /// Bytes that one takes where it is remembered.
    const KEPT: usize = 20;

    fn of(bytes: &[u8]) -> Self {
        let mut hash = [0; 16];
        hash.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
        let len = bytes.len() as u32;
        Self { len, hash }
    }
}

/// The chunks of a tree's stream, from its beginning to its end. Reads it once.
pub fn chunks(tree: &Tree) -> io::Result<&[Chunk]> {
    if let Some(chunks) = tree.chunks.get() {
        return Ok(chunks);
    }
    let nodes = tree.nodes();
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let share = tree.size().div_ceil(threads as u64);
    let parts: Vec<io::Result<Vec<Chunk>>> = std::thread::scope(|scope| {
        let mut running = Vec::new();
        let mut rest = nodes;
        for thread in 1..=threads as u64 {
            let mine = rest.partition_point(|node| node.start < share * thread);
            let (mine, others) = rest.split_at(mine);
            rest = others;
            running.push(scope.spawn(|| cut(tree, mine)));
        }
        let joined = running.into_iter().map(|thread| thread.join());
        let gone = |_| Err(io::Error::other("a thread has ended"));
        joined.map(|part| part.unwrap_or_else(gone)).collect()
    });
    let mut all = Vec::new();
    for part in parts {
        all.extend(part?);
    }
    all.push(Chunk::of(&[0; END as usize]));
    Ok(tree.chunks.get_or_init(|| all))
}

fn cut(tree: &Tree, nodes: &[Node]) -> io::Result<Vec<Chunk>> {
    let mut found = Vec::new();
    let mut buffer = vec![0; STEP];
    for node in nodes {
        found.push(Chunk::of(&node.entry.header()));
        let start = node.start + node.header;
        // With what it is filled up by: that is a part of the last chunk.
        let len = node.entry.padded();
        let mut at = 0;
        while at < len {
            let here = (len - at).min(STEP as u64) as usize;
            let bytes = &mut buffer[..here];
            tree.read_exact_at(bytes, start + at)?;
            let last = at + here as u64 == len;
            let (least, about, most) = SIZES;
            for piece in FastCDC::new(bytes, least, about, most) {
                let end = piece.offset + piece.length;
                // It may go on in what is read next.
                if end == here && !last {
                    break;
                }
                found.push(Chunk::of(&bytes[piece.offset..end]));
                at += piece.length as u64;
            }
        }
    }
    Ok(found)
}

/// As it is remembered.
pub fn write(chunks: &[Chunk]) -> Vec<u8> {
    let mut all = Vec::with_capacity(chunks.len() * Chunk::KEPT);
    for chunk in chunks {
        all.extend(chunk.len.to_le_bytes());
        all.extend(chunk.hash);
    }
    all
}

/// A version that receivers may have.
pub struct Base {
    pub content: Hash,
    chunks: Vec<Chunk>,
    starts: Vec<u64>,
    places: HashMap<Chunk, usize>,
}

impl Base {
    /// `chunks`: as they were remembered.
    pub fn new(content: Hash, chunks: &[u8]) -> Self {
        let read = |bytes: &[u8; Chunk::KEPT]| {
            let mut hash = [0; 16];
            hash.copy_from_slice(&bytes[4..]);
            Chunk {
                len: number(&bytes[..4]),
                hash,
            }
        };
        let chunks: Vec<Chunk> = chunks.as_chunks().0.iter().map(read).collect();
        let mut at = 0;
        let mut starts = Vec::with_capacity(chunks.len());
        let mut places = HashMap::with_capacity(chunks.len());
        for (index, chunk) in chunks.iter().enumerate() {
            starts.push(at);
            at += u64::from(chunk.len);
            places.entry(*chunk).or_insert(index);
        }
        Self {
            content,
            chunks,
            starts,
            places,
        }
    }
}

/// Bytes of the new version in a row: where they are in the base, if they are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: u64,
    len: u64,
    from: Option<u64>,
}

/// The new version as it is made of the base.
pub struct Ranges {
    pub content: Hash,
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
            content: base.content,
            ranges,
        }
    }

    /// A patch that makes this frame; none if nothing of it is in the base.
    pub fn patch(&self, index: u32, frame: &[u8]) -> Option<Vec<u8>> {
        let start = u64::from(index) * u64::from(FRAME);
        let end = start + frame.len() as u64;
        let first = self
            .ranges
            .partition_point(|range| range.start + range.len <= start);
        let ranges = self.ranges[first..].iter();
        let (mut count, mut known) = (0_u32, false);
        let (mut list, mut new) = (Vec::new(), Vec::new());
        for range in ranges.take_while(|range| range.start < end) {
            let (begin, stop) = (range.start.max(start), (range.start + range.len).min(end));
            count += 1;
            list.extend(((stop - begin) as u32).to_le_bytes());
            let from = range.from.map(|from| from + begin - range.start);
            list.extend(from.unwrap_or(NEW).to_le_bytes());
            if from.is_none() {
                new.extend_from_slice(&frame[(begin - start) as usize..(stop - start) as usize]);
            }
            known |= from.is_some();
        }
        if !known || count as usize > MOST {
            return None;
        }
        let mut patch = count.to_le_bytes().to_vec();
        patch.extend(list);
        patch.extend(new);
        Some(patch)
    }
}

/// Makes a frame of a patch and the base. `frame`: as long as the frame is.
///
/// Errors: reading the base; `InvalidData`: it is not as it came. `Ok(false)`: the patch is not one for such a frame.
pub fn apply(patch: &[u8], base: &Tree, frame: &mut [u8]) -> io::Result<bool> {
    let Some((count, rest)) = patch.split_at_checked(4) else {
        return Ok(false);
    };
    let count = number(count) as usize;
    if count > MOST {
        return Ok(false);
    }
    let Some((list, mut new)) = rest.split_at_checked(count * RANGE) else {
        return Ok(false);
    };
    let mut left = frame;
    for range in list.as_chunks::<RANGE>().0 {
        let len = number(&range[..4]) as usize;
        let from = u64::from(number(&range[4..8])) | u64::from(number(&range[8..])) << 32;
        let Some((piece, after)) = left.split_at_mut_checked(len) else {
            return Ok(false);
        };
        if from == NEW {
            let Some((bytes, after)) = new.split_at_checked(len) else {
                return Ok(false);
            };
            piece.copy_from_slice(bytes);
            new = after;
        } else if from.saturating_add(len as u64) > base.size() {
            return Ok(false);
        } else {
            base.read_exact_at(piece, from)?;
        }
        left = after;
    }
    Ok(left.is_empty() && new.is_empty())
}

/// Most bytes that a patch of a frame of this length can have.
pub fn longest(frame: usize) -> usize {
    4 + MOST * RANGE + frame
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tree::tests::{bytes, make, stream, things};
    use proptest::prelude::*;
    use std::fs::OpenOptions;
    use std::os::unix::fs::FileExt;
    use std::path::{Path, PathBuf};

    fn files(top: &Path) -> Vec<PathBuf> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(top).unwrap().flatten() {
            let kind = entry.file_type().unwrap();
            match () {
                () if kind.is_dir() => all.extend(files(&entry.path())),
                () if kind.is_file() => all.push(entry.path()),
                () => {}
            }
        }
        all.sort();
        all
    }

    /// Makes all frames of the new version; returns the bytes that the patches have.
    fn remake(old: &Tree, new: &Tree) -> usize {
        let base = Base::new([0; 32], &write(chunks(old).unwrap()));
        let ranges = Ranges::new(&base, chunks(new).unwrap());
        let mut bytes = 0;
        for (index, frame) in (0..).zip(stream(new).chunks(FRAME as usize)) {
            match ranges.patch(index, frame) {
                Some(patch) => {
                    assert!(patch.len() <= longest(frame.len()));
                    let mut made = vec![7; frame.len()];
                    assert!(apply(&patch, old, &mut made).unwrap());
                    assert!(made == frame, "frame {index}");
                    bytes += patch.len();
                }
                None => bytes += frame.len(),
            }
        }
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn patches_make_the_new_version(
            things in things(),
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u16>(), 0_u8..4), 0..5),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let (one, two) = (dir.path().join("one"), dir.path().join("two"));
            make(&one, &things);
            make(&two, &things);
            for (at, salt, how) in edits {
                let files = files(&two);
                if files.is_empty() {
                    break;
                }
                let file = &files[at.index(files.len())];
                let place = u64::from(salt);
                match how {
                    0 => std::fs::remove_file(file).unwrap(),
                    1 => {
                        let open = OpenOptions::new().write(true).open(file).unwrap();
                        open.write_all_at(&bytes(9, 77), place).unwrap();
                    }
                    2 => {
                        let mut all = std::fs::read(file).unwrap();
                        let at = place as usize % (all.len() + 1);
                        all.splice(at..at, bytes(8, 5));
                        std::fs::write(file, all).unwrap();
                    }
                    _ => {
                        let new = file.with_file_name(format!("new{salt}"));
                        std::fs::write(new, bytes(7, salt.into())).unwrap();
                    }
                }
            }
            remake(&Tree::open(&one).unwrap(), &Tree::open(&two).unwrap());
        }

        #[test]
        fn whatever_comes_as_a_patch_is_refused_or_makes_a_frame(
            count in 0_u32..5, patch in prop::collection::vec(any::<u8>(), 0..90),
        ) {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("file"), bytes(1, 9000)).unwrap();
            let tree = Tree::open(dir.path()).unwrap();
            let patch = [count.to_le_bytes().as_slice(), &patch].concat();
            let _ = apply(&patch, &tree, &mut [0; 64]).unwrap();
        }
    }

    /// A byte that comes into a large file costs a chunk, not what is after it.
    #[test]
    fn what_is_moved_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::create_dir(dir.path().join("later")).unwrap();
        std::fs::write(dir.path().join("later/large"), bytes(2, 5 << 20)).unwrap();
        std::fs::write(&file, bytes(1, 3 << 20)).unwrap();
        let old = Tree::open(dir.path()).unwrap();
        // What the tree has now is read again below: a copy of it is what changes.
        let copy = tempfile::tempdir().unwrap();
        let back = copy.path().join("back");
        crate::unpack::unpack(&mut stream(&old).as_slice(), &back, &mut Vec::new()).unwrap();
        let mut all = std::fs::read(back.join("file")).unwrap();
        all.insert(1 << 20, 1);
        std::fs::write(back.join("file"), all).unwrap();
        let new = Tree::open(&back).unwrap();
        let bytes = remake(&old, &new);
        assert!(bytes < 80 << 10, "{bytes}");
    }
}
