//! What two versions of a tree have in common, found by pieces that follow the content.
//!
//! What is before a file in the stream moves it by any number of bytes, so blocks at fixed places would find nothing. Each
//! header is a chunk of its own, and files are cut by FastCDC (v2020), each from its beginning: what is new in one file
//! changes nothing of the next. What a file was cut into is remembered: one that is as it was is not read again.

mod patch;

pub use patch::{Piece, Ranges, longest, pieces};

use crate::manifest::number;
use crate::tar::END;
use crate::tree::{Key, Node, Tree};
use fastcdc::v2020::FastCDC;
use std::collections::HashMap;
use std::io;

/// Bytes of a chunk of a file's content: least, about, most.
const SIZES: (usize, usize, usize) = (4 << 10, 16 << 10, 64 << 10);

/// Bytes that are read at once; more than the largest chunk.
const STEP: usize = 1 << 20;

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

#[cfg(test)]
mod tests;
