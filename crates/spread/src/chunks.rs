//! What two versions of a tree have in common, found by pieces that follow the content.
//!
//! What is before a file in the stream moves it by any number of bytes, so blocks at fixed places would find nothing. Each
//! header is a chunk of its own, and files are cut by FastCDC (v2020), each from its beginning: what is new in one file
//! changes nothing of the next. What a file was cut into is remembered: one that is as it was is not read again.

use crate::manifest::{FRAME, number};
use crate::tar::END;
use crate::tree::{Key, Node, Tree};
use fastcdc::v2020::FastCDC;
use std::collections::{HashMap, VecDeque};
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

/// The chunks of a tree's stream, from its beginning to its end. Reads once what `before` does not know.
pub fn chunks<'a>(tree: &'a Tree, before: Option<&Base>) -> io::Result<&'a [Chunk]> {
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
            running.push(scope.spawn(move || cut(tree, mine, before)));
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

fn cut(tree: &Tree, nodes: &[Node], before: Option<&Base>) -> io::Result<Vec<Chunk>> {
    let mut found = Vec::new();
    let mut buffer = vec![0; STEP];
    for node in nodes {
        found.push(Chunk::of(&node.entry.header()));
        let known = before.and_then(|before| before.of(&tree.key(node), node.entry.padded()));
        if let Some(known) = known {
            found.extend(known);
            continue;
        }
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

/// As it is remembered: a hash of what follows, the number of chunks (u64) and these, and for each name of the tree what its
/// file is known by and how many chunks it has (u32); that is zeros for what has to be read again.
pub fn write(tree: &Tree, chunks: &[Chunk]) -> Vec<u8> {
    let nodes = tree.nodes();
    let mut all = Vec::with_capacity(40 + chunks.len() * Chunk::KEPT + nodes.len() * FILE);
    all.extend([0; 32]);
    all.extend((chunks.len() as u64).to_le_bytes());
    for chunk in chunks {
        all.extend(chunk.len.to_le_bytes());
        all.extend(chunk.hash);
    }
    let mut rest = chunks;
    for node in nodes {
        let mut left = node.entry.padded();
        // The header is the first one.
        let of_file = rest.iter().skip(1).take_while(|chunk| {
            let more = left > 0;
            left = left.saturating_sub(u64::from(chunk.len));
            more
        });
        let count = of_file.count();
        rest = rest.get(1 + count..).unwrap_or_default();
        all.extend(tree.key(node));
        all.extend((count as u32).to_le_bytes());
    }
    let sum = *blake3::hash(&all[32..]).as_bytes();
    all[..32].copy_from_slice(&sum);
    all
}

/// Bytes that a file takes where it is remembered.
const FILE: usize = 20;

/// A version that receivers may have.
pub struct Base {
    /// What its source calls it.
    pub version: String,
    chunks: Vec<Chunk>,
    starts: Vec<u64>,
    places: HashMap<Chunk, usize>,
    /// Chunks of files that need not be read again if they are still the same: the first one, and how many.
    files: HashMap<Key, (usize, usize)>,
}

impl Base {
    /// `remembered`: by [`write`]; none if it is not what was written.
    pub fn new(version: String, remembered: &[u8]) -> Option<Self> {
        let (sum, rest) = remembered.split_at_checked(32)?;
        if sum != blake3::hash(rest).as_bytes() {
            return None;
        }
        let (count, rest) = rest.split_at_checked(8)?;
        let count = usize::try_from(u64::from_le_bytes(count.try_into().ok()?)).ok()?;
        let (chunks, files) = rest.split_at_checked(count.checked_mul(Chunk::KEPT)?)?;
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
        let mut next = 0;
        let mut known = HashMap::new();
        for file in files.as_chunks::<FILE>().0 {
            let (key, count) = file.split_at(FILE - 4);
            let mut of_file = Key::default();
            of_file.copy_from_slice(key);
            let count = number(count) as usize;
            if of_file != Key::default() {
                known.insert(of_file, (next + 1, count));
            }
            next += 1 + count;
        }
        Some(Self {
            version,
            chunks,
            starts,
            places,
            files: known,
        })
    }

    /// The chunks of a file with so many bytes that is as it was.
    fn of(&self, key: &Key, len: u64) -> Option<&[Chunk]> {
        let (first, count) = *self.files.get(key)?;
        let chunks = self.chunks.get(first..first.checked_add(count)?)?;
        let all: u64 = chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
        (all == len).then_some(chunks)
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

    fn remembered(tree: &Tree) -> Base {
        let written = write(tree, chunks(tree, None).unwrap());
        Base::new("old".to_owned(), &written).unwrap()
    }

    /// Makes all frames of the new version; returns the bytes that the patches have.
    fn remake(old: &Tree, new: &Tree) -> usize {
        let base = remembered(old);
        let ranges = Ranges::new(&base, chunks(new, Some(&base)).unwrap());
        let mut bytes = 0;
        for (index, frame) in (0..).zip(stream(new).chunks(FRAME as usize)) {
            let read = |bytes: &mut [u8], at| new.read_exact_at(bytes, at);
            match ranges.patch(index, frame.len() as u32, read).unwrap() {
                Some(patch) => {
                    assert!(patch.len() <= longest(frame.len()));
                    let mut made = Vec::new();
                    for piece in pieces(&patch, old.size(), frame.len()).unwrap() {
                        match piece {
                            Piece::New { at, len } => made.extend(&patch[at..at + len as usize]),
                            Piece::Old { from, len } => {
                                let begin = made.len();
                                made.resize(begin + len as usize, 7);
                                old.read_exact_at(&mut made[begin..], from).unwrap();
                            }
                        }
                    }
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
            let Some(pieces) = pieces(&patch, tree.size(), 64) else {
                return Ok(());
            };
            let mut all = 0;
            for piece in pieces {
                all += match piece {
                    Piece::Old { from, len } => {
                        prop_assert!(from + len <= tree.size());
                        len
                    }
                    Piece::New { at, len } => {
                        prop_assert!(at + len as usize <= patch.len());
                        len
                    }
                };
            }
            prop_assert_eq!(all, 64);
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

    /// What may have changed in the same moment in which it was looked at is read again.
    #[test]
    fn a_file_that_is_as_it_was_is_not_read_again() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            std::fs::write(dir.path().join(name), bytes(name.as_bytes()[0], 300_000)).unwrap();
        }
        let tree = Tree::open(dir.path()).unwrap();
        assert!(remembered(&tree).files.is_empty());
        let tree = tree.later(60);
        let before = remembered(&tree);
        assert_eq!(before.files.len(), 3);
        for node in &tree.nodes()[1..] {
            let known = before.of(&tree.key(node), node.entry.padded()).unwrap();
            assert!(known.len() > 3);
            assert_eq!(before.of(&tree.key(node), node.entry.padded() + 512), None);
        }
        // A clock of the file system that has gone on shows the change.
        std::thread::sleep(std::time::Duration::from_millis(30));
        std::fs::write(dir.path().join("b"), bytes(1, 300_000)).unwrap();
        let again = || Tree::open(dir.path()).unwrap().later(60);
        let (one, two) = (again(), again());
        let known = |node: &Node| before.of(&one.key(node), node.entry.padded()).is_some();
        let known: Vec<bool> = one.nodes()[1..].iter().map(known).collect();
        assert_eq!(known, [true, false, true]);
        assert_eq!(
            chunks(&one, Some(&before)).unwrap(),
            chunks(&two, None).unwrap()
        );
    }

    #[test]
    fn what_is_remembered_wrongly_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), bytes(1, 100_000)).unwrap();
        let tree = Tree::open(dir.path()).unwrap().later(60);
        let written = write(&tree, chunks(&tree, None).unwrap());
        assert!(Base::new(String::new(), &written).is_some());
        for at in [0, 33, 45, written.len() - 1] {
            let mut spoilt = written.clone();
            spoilt[at] ^= 1;
            assert!(Base::new(String::new(), &spoilt).is_none());
            assert!(Base::new(String::new(), &written[..at]).is_none());
        }
    }
}
