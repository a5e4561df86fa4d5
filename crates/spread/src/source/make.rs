//! Threads that make frames, each the next one: a little ahead of the furthest child, as small as the processor's time
//! allows, and of the version before where there is one.

use crate::blocks::{BLOCK, BlockHash, Blocks, Change};
use crate::chunks::{self, Ranges};
use crate::content::Content;
use crate::level::Levels;
use crate::manifest::{Encoding, Entry, FRAME, Hash, hex};
use crate::pack::Packer;
use crate::place::is_zero;
use crate::prepared::{self, Half};
use crate::sign::Signer;
use crate::transfer::Transfer;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Frames that may be ready before a child wants them; those without bytes do not count.
const AHEAD: u32 = 64;

/// Frames so near to the furthest child are made in any case.
const NEAR: u32 = 16;

/// Bytes that are read at a time, and hashed while they are in the processor's cache.
const STEP: usize = 128 << 10;

/// What these threads share.
pub(super) struct Maker {
    pub(super) transfer: Arc<Transfer>,
    pub(super) source: Content,
    next: AtomicU32,
    /// Frames with bytes that were made.
    made: AtomicU32,
    /// Frames with bytes that an earlier run has made, and these.
    pub(super) before: (u32, u64),
    levels: Mutex<Levels>,
    begin: Instant,
    pub(super) ready: Mutex<BTreeMap<u32, io::Result<Made>>>,
    pub(super) came: Condvar,
    base: Option<Old>,
    blocks: Blocks,
    /// Hashes of all blocks, for the next version; not of a tree.
    hashes: Arc<File>,
}

/// The version that this is made from.
pub(super) enum Old {
    File(crate::blocks::Base),
    Tree(Ranges),
}

impl Old {
    /// Of a tree, all that is new in it is read for it.
    pub(super) fn new(base: prepared::Base, source: &Content) -> io::Result<Self> {
        Ok(match (base, source) {
            (prepared::Base::Tree(base), Content::Tree(tree)) => {
                Self::Tree(Ranges::new(&base, chunks::chunks(tree, Some(&base))?))
            }
            (prepared::Base::File(base), _) => Self::File(base),
            (prepared::Base::Tree(_), Content::File(_)) => {
                return Err(io::Error::other("a file is not made from a tree"));
            }
        })
    }

    pub(super) fn content(&self) -> String {
        match self {
            Self::File(base) => hex(&base.content),
            Self::Tree(ranges) => ranges.version.clone(),
        }
    }
}

/// A frame that is made.
pub(super) struct Made {
    pub(super) entry: Entry,
    /// Of a compressed frame, and of a tree's; others are in the file.
    pub(super) packed: Vec<u8>,
}

impl Made {
    const ZERO: Self = Self {
        entry: Entry::ZERO,
        packed: Vec::new(),
    };
}

/// What was read of a frame.
enum Read {
    Zeros,
    Hashed(Hash),
    Data,
}

impl Maker {
    /// Nothing is made yet but what an earlier run has made. `half`: where what is made is kept.
    pub(super) fn new(
        transfer: Arc<Transfer>,
        source: Content,
        base: Option<Old>,
        signer: &Signer,
        half: &Half,
        threads: usize,
    ) -> Self {
        let known = transfer.known().1;
        let entries = (0..known).filter_map(|index| transfer.entry(index));
        let stored = entries.map(|entry| entry.stored).filter(|len| *len > 0);
        let before = stored.fold((0, 0), |(count, bytes), len| {
            (count + 1, bytes + u64::from(len))
        });
        Self {
            transfer,
            source,
            next: AtomicU32::new(known),
            made: AtomicU32::new(before.0),
            before,
            levels: Mutex::new(Levels::new(threads)),
            begin: Instant::now(),
            ready: Mutex::default(),
            came: Condvar::new(),
            base,
            blocks: Blocks(signer.seed()),
            hashes: half.hashes.clone(),
        }
    }

    /// A thread that makes frames.
    pub(super) fn make(&self) {
        let frames = self.transfer.header.frames();
        let mut packer = Packer::default();
        let mut room = vec![0; FRAME as usize];
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= frames {
                return;
            }
            let start = u64::from(index) * u64::from(FRAME);
            let made = match self
                .source
                .is_hole(start, self.transfer.header.frame_len(index))
            {
                true => Ok(Made::ZERO),
                false if !self.wait(index) => return,
                false => self.frame(index, &mut packer, &mut room),
            };
            if made.as_ref().is_ok_and(|made| made.entry.stored > 0) {
                self.made.fetch_add(1, Ordering::Relaxed);
            }
            let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
            ready.insert(index, made);
            self.came.notify_one();
        }
    }

    /// Waits until a child is near; says whether it is still wanted.
    fn wait(&self, index: u32) -> bool {
        loop {
            let reached = self.transfer.reached();
            let ready = self.made.load(Ordering::Relaxed);
            let ready = ready.saturating_sub(reached.taken);
            // Nobody may have taken now what was made before.
            let taken = reached.bytes.saturating_sub(self.before.1);
            self.levels().look(self.begin.elapsed(), taken, ready);
            // Others may have made what is behind this one, for which children wait.
            if ready < AHEAD || index < reached.furthest.saturating_add(NEAR) {
                return true;
            }
            if self.transfer.failed().is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn levels(&self) -> MutexGuard<'_, Levels> {
        self.levels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn frame(&self, index: u32, packer: &mut Packer, room: &mut [u8]) -> io::Result<Made> {
        let begin = Instant::now();
        let start = u64::from(index) * u64::from(FRAME);
        let len = self.transfer.header.frame_len(index);
        let made = |entry, packed| Ok(Made { entry, packed });
        // Of what is as it was nothing is read.
        if let Some(Old::Tree(ranges)) = &self.base {
            let read = |bytes: &mut [u8], at| self.source.read_exact_at(bytes, at);
            if let Some(patch) = ranges.patch(index, len, read)?
                && let Some(packed) = packer.pack_patch(&patch, len as usize)?
            {
                let stored = Entry::raw(packed.len() as u32, *blake3::hash(&packed).as_bytes());
                let entry = Entry {
                    encoding: Encoding::Ranges,
                    hash: [0; 32],
                    ..stored
                };
                return made(entry, packed);
            }
        }
        let bytes = &mut room[..len as usize];
        let mut hashes = [[0; crate::blocks::KEPT]; FRAME as usize / BLOCK];
        let read = self.read(start, bytes, &mut hashes)?;
        let hashes = &hashes[..bytes.len().div_ceil(BLOCK)];
        if matches!(read, Read::Zeros) {
            return Ok(Made::ZERO);
        }
        let at = start / BLOCK as u64 * crate::blocks::KEPT as u64;
        let is_tree = self.source.is_tree();
        if !is_tree {
            self.hashes.write_all_at(hashes.as_flattened(), at)?;
        }
        let change = match &self.base {
            Some(Old::File(base)) => match base.change(index, bytes, hashes) {
                Change::None => {
                    return made(Entry::same(base.frames[index as usize]), Vec::new());
                }
                Change::Patch(patch) => Some((Encoding::Patch, patch)),
            },
            Some(Old::Tree(_)) | None => None,
        };
        let hash = match read {
            Read::Hashed(hash) => hash,
            _ => *blake3::hash(bytes).as_bytes(),
        };
        let packed = |encoding, packed: Vec<u8>| {
            let entry = Entry {
                encoding,
                stored: packed.len() as u32,
                stored_hash: *blake3::hash(&packed).as_bytes(),
                hash,
            };
            made(entry, packed)
        };
        if let Some((encoding, patch)) = change
            && let Some(patch) = packer.pack_patch(&patch, bytes.len())?
        {
            return packed(encoding, patch);
        }
        let (read, begin) = (begin.elapsed(), Instant::now());
        let level = self.levels().level();
        let smaller = level.map(|level| packer.pack(bytes, level));
        let smaller = smaller.transpose()?.flatten();
        let result = level.zip(smaller.as_ref());
        let result = result.map(|(level, packed)| (level, begin.elapsed(), packed.len()));
        // The last one is shorter, and nothing depends on it.
        if len == FRAME {
            self.levels().made(read, result);
        }
        match smaller {
            Some(bytes) => packed(Encoding::Zstd, bytes),
            // A tree's stream is in no file that it could be sent from.
            None if is_tree => made(Entry::raw(len, hash), bytes.to_vec()),
            None => made(Entry::raw(len, hash), Vec::new()),
        }
    }

    /// Reads a frame and hashes its blocks, if it is a file's; and all of it, while it is in the processor's cache, unless it
    /// may turn out to be as it was.
    fn read(&self, start: u64, bytes: &mut [u8], hashes: &mut [BlockHash]) -> io::Result<Read> {
        let may_be_same = matches!(self.base, Some(Old::File(_)));
        let mut hasher = blake3::Hasher::new();
        let mut is_empty = true;
        for begin in (0..bytes.len()).step_by(STEP) {
            let end = bytes.len().min(begin + STEP);
            let step = &mut bytes[begin..end];
            self.source.read_exact_at(step, start + begin as u64)?;
            if is_empty && is_zero(step) {
                continue;
            }
            if !self.source.is_tree() {
                for (block, hash) in step.chunks(BLOCK).zip(&mut hashes[begin / BLOCK..]) {
                    *hash = self.blocks.hash(block);
                }
            }
            // Zeros are only hashed when something comes after them.
            let from = if is_empty { 0 } else { begin };
            is_empty = false;
            if !may_be_same {
                hasher.update(&bytes[from..end]);
            }
        }
        Ok(match is_empty {
            true => Read::Zeros,
            false if may_be_same => Read::Data,
            false => Read::Hashed(*hasher.finalize().as_bytes()),
        })
    }
}
