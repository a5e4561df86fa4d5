//! A file is made into a transfer: read, looked at for zeros, hashed, compressed, signed; a little ahead of the
//! furthest child, and no more.

use crate::blocks::{BLOCK, BlockHash, Blocks, Change};
use crate::chunks::{self, Ranges};
use crate::content::Content;
use crate::level::Levels;
use crate::manifest::{Bad, Encoding, Entry, FRAME, Hash, Header, Id, PAGE_FRAMES, Page, hex};
use crate::pack::Packer;
use crate::place::is_zero;
use crate::prepared::{self, Half, Stamp};
use crate::pull::{manifest, manifest_title, page_title};
use crate::sign::Signer;
use crate::transfer::{Stock, Transfer};
use crate::version::Version;
use rustix::fs::SeekFrom;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Frames that may be ready before a child wants them; those without bytes do not count.
const AHEAD: u32 = 64;

/// Frames so near to the furthest child are made in any case.
const NEAR: u32 = 16;

/// Pages are no more often than that, if they are not full, nor before children have got through all but so many frames of
/// those before: each host checks two signatures of each.
const PAGES: Duration = Duration::from_millis(4);
const STOCK: u32 = 8;

/// Bytes that are read at a time, and hashed while they are in the processor's cache.
const STEP: usize = 128 << 10;

/// So often the file is looked at while it is sent.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    #[error("{} could not be {what}: {why}", file.display())]
    File {
        file: PathBuf,
        what: &'static str,
        why: io::Error,
    },
    #[error("{} is neither a file nor a tree of files", .0.display())]
    NotAFile(PathBuf),
    #[error(transparent)]
    Bad(#[from] Bad),
}

/// What a transfer is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Nothing,
    /// A version that hosts may have.
    Version,
}

/// A file that is made into a transfer. When this is dropped, making it ends; if all of it was made, it is remembered.
pub struct Source {
    pub transfer: Arc<Transfer>,
    threads: Vec<JoinHandle<()>>,
    /// As long as this is there, the file is looked at.
    guarded: Option<mpsc::Sender<()>>,
}

impl Drop for Source {
    fn drop(&mut self) {
        if self.transfer.sealed().is_none() {
            self.transfer.fail("the source has ended");
        }
        self.guarded = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Looks at a file as long as it is sent, because frames are sent from it also after all of them were made.
fn guard(
    transfer: Arc<Transfer>,
    source: &Content,
    stamp: Stamp,
) -> (mpsc::Sender<()>, Option<JoinHandle<()>>) {
    let (guarded, ended) = mpsc::channel();
    // Frames of a tree are sent from what is remembered.
    let Content::File(file) = source else {
        return (guarded, None);
    };
    let file = file.clone();
    let thread = std::thread::spawn(move || {
        while ended.recv_timeout(LOOK) == Err(mpsc::RecvTimeoutError::Timeout) {
            match stamp.difference(&file) {
                Ok(None) => {}
                Ok(Some(how)) => transfer.fail(&changed(&how)),
                Err(why) => transfer.fail(&format!("reading: {why}")),
            }
        }
    });
    (guarded, Some(thread))
}

pub(crate) fn changed(how: &str) -> String {
    format!("the file was changed while it was sent: {how}")
}

/// Makes a transfer of a file, or of a tree of files, and starts to fill it; or finds the one that was made before of the
/// same.
///
/// `name`: what it is called at the receivers. `memory`: the directory where the source remembers what it has made; it
/// may be missing. `threads`: how many compress. `from`: make it from the newest other version of that name that is
/// remembered, for hosts that have that; `None` if there is none.
pub fn open(
    file: &Path,
    name: &str,
    signer: Arc<Signer>,
    memory: &Path,
    threads: usize,
    from: From,
) -> Result<Option<Source>, Wrong> {
    let version = Version::new(file, name, signer, memory);
    let made = version.made()?;
    version.open(made, threads, from)
}

pub(crate) fn open_version(
    version: &Version,
    created: u64,
    threads: usize,
    from: From,
) -> Result<Option<Source>, Wrong> {
    let Version {
        file,
        name,
        memory,
        kin,
        ..
    } = version;
    let signer = version.signer.clone();
    let wrong = |what| {
        move |why| Wrong::File {
            file: file.to_owned(),
            what,
            why,
        }
    };
    let source = Content::open(file).map_err(wrong("opened"))?;
    let source = source.ok_or_else(|| Wrong::NotAFile(file.to_owned()))?;
    let stamp = source.stamp().map_err(wrong("read"))?;
    let size = source.size().map_err(wrong("read"))?;
    let key = signer.key().to_string();
    let is_new = from == From::Version;
    if let Some(transfer) = prepared::load(memory, name, &source, &key, created, is_new) {
        let transfer = Arc::new(transfer);
        let (guarded, thread) = guard(transfer.clone(), &source, stamp);
        return Ok(Some(Source {
            transfer,
            threads: thread.into_iter().collect(),
            guarded: Some(guarded),
        }));
    }
    let base = match from {
        From::Nothing => None,
        From::Version => match prepared::base(memory, name, kin.as_deref(), &source, &key) {
            Some(base) => Some(Old::new(base, &source).map_err(wrong("read"))?),
            None => return Ok(None),
        },
    };
    let mut id = [0; 16];
    fill_random(&mut id).map_err(wrong("given an id"))?;
    let content = base.as_ref().map(Old::content);
    let mut header = Header::new(Id(id), name, size, created, None)?;
    header.base = content;
    if let Content::Tree(tree) = &source {
        header = header.of_tree(&tree.digest());
    }
    let line = header.line()?;
    let proof = signer.sign(line.as_bytes(), "oscarv spread: header")?;
    let half = Half::new(memory, Id(id), stamp.clone()).map_err(|why| Wrong::File {
        file: memory.to_owned(),
        what: "written to",
        why,
    })?;
    let half = half.of_kin(kin.clone());
    let stock = Stock {
        file: source.handle().map_err(wrong("read"))?,
        spool: half.spool.clone(),
    };
    let transfer = Arc::new(Transfer::new(header, line, proof, stock.clone()));
    let maker = Arc::new(Maker {
        transfer: transfer.clone(),
        source,
        next: AtomicU32::new(0),
        made: AtomicU32::new(0),
        levels: Mutex::new(Levels::new(threads)),
        begin: Instant::now(),
        ready: Mutex::default(),
        came: Condvar::new(),
        base,
        blocks: Blocks(signer.seed()),
        hashes: half.hashes.clone(),
    });
    let (guarded, thread) = guard(transfer.clone(), &maker.source, stamp);
    let mut running = Vec::from_iter(thread);
    for _ in 0..threads.max(1) {
        let maker = maker.clone();
        running.push(std::thread::spawn(move || maker.make()));
    }
    running.push(std::thread::spawn(move || {
        if let Err(why) = maker.bind(&signer, half) {
            maker.transfer.fail(&why.to_string());
        }
    }));
    Ok(Some(Source {
        transfer,
        threads: running,
        guarded: Some(guarded),
    }))
}

pub(crate) fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    use std::io::Read;
    File::open("/dev/urandom")?.read_exact(bytes)
}

struct Maker {
    transfer: Arc<Transfer>,
    source: Content,
    next: AtomicU32,
    /// Frames with bytes that were made.
    made: AtomicU32,
    levels: Mutex<Levels>,
    begin: Instant,
    ready: Mutex<BTreeMap<u32, io::Result<Made>>>,
    came: Condvar,
    base: Option<Old>,
    blocks: Blocks,
    /// Hashes of all blocks, for the next version; not of a tree.
    hashes: Arc<File>,
}

/// The version that this is made from.
enum Old {
    File(crate::blocks::Base),
    Tree(Ranges),
}

impl Old {
    /// Of a tree, all that is new in it is read for it.
    fn new(base: prepared::Base, source: &Content) -> io::Result<Self> {
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

    fn content(&self) -> String {
        match self {
            Self::File(base) => hex(&base.content),
            Self::Tree(ranges) => ranges.version.clone(),
        }
    }
}

struct Made {
    entry: Entry,
    /// Of a compressed frame, and of a tree's; others are in the file.
    packed: Vec<u8>,
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
    /// A thread that makes frames.
    fn make(&self) {
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
            self.levels()
                .look(self.begin.elapsed(), reached.bytes, ready);
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

    /// The thread that puts frames in order, binds them into pages and signs these.
    fn bind(&self, signer: &Signer, mut half: Half) -> Result<(), Wrong> {
        let frames = self.transfer.header.frames();
        let (mut first, mut next) = (0, Instant::now());
        // Frames with bytes that are in pages.
        let mut paged = 0;
        while first < frames {
            let mut made = Vec::new();
            while made.len() < PAGE_FRAMES && first + (made.len() as u32) < frames {
                let wanted = || {
                    let taken = self.transfer.reached().taken;
                    Instant::now() >= next && taken + STOCK > paged
                };
                match self.take(first + made.len() as u32, made.is_empty(), wanted) {
                    Some(Ok(one)) => made.push(one),
                    Some(Err(why)) => {
                        // There is less of it than there was? Of a tree the error itself says so.
                        let changed = match self.source.is_tree() {
                            true => None,
                            false => half.same(&self.source).err(),
                        };
                        return Err(changed.unwrap_or(Bad(format!("reading: {why}"))))?;
                    }
                    None if made.is_empty() || self.transfer.failed().is_some() => return Ok(()),
                    None => break,
                }
            }
            let page = Page {
                first,
                entries: made.iter().map(|made| made.entry).collect(),
            };
            let bytes = page.bytes(self.transfer.header.id);
            let signature = signer.sign(&bytes, &page_title(&self.transfer, first))?;
            let mut wire = (bytes.len() as u32).to_le_bytes().to_vec();
            wire.extend(bytes);
            wire.extend(signature.as_bytes());
            self.transfer.add_page(&page, wire.into());
            for (index, made) in (first..).zip(made) {
                let mut at = None;
                if !made.packed.is_empty() {
                    let spooled = half.spool(index, &made.packed);
                    at = Some(spooled.map_err(|why| Bad(format!("writing the spool: {why}")))?);
                }
                if made.entry.stored > 0 {
                    self.transfer.good(index, at);
                    paged += 1;
                }
            }
            first += page.entries.len() as u32;
            next = Instant::now() + PAGES;
        }
        half.same(&self.source)?;
        let seal = signer.sign(&manifest(&self.transfer)?, &manifest_title(&self.transfer))?;
        self.transfer.seal(seal.into());
        // It is on its way; without being remembered it is made again the next time.
        let _ = half.keep(&self.transfer, &self.source, &signer.key().to_string());
        Ok(())
    }

    /// The next frame. Nothing, if it is not ready, and `wanted` says that what is there is; unless nothing is (`first`).
    fn take(&self, index: u32, first: bool, wanted: impl Fn() -> bool) -> Option<io::Result<Made>> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(made) = ready.remove(&index) {
                return Some(made);
            }
            if self.transfer.failed().is_some() || !first && wanted() {
                return None;
            }
            let limit = Duration::from_millis(if first { 100 } else { 1 });
            let waited = self.came.wait_timeout(ready, limit);
            ready = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Does the file system know that there is nothing?
pub(crate) fn is_hole(file: &File, start: u64, len: u32) -> bool {
    match rustix::fs::seek(file, SeekFrom::Data(start)) {
        Ok(data) => data >= start + u64::from(len),
        Err(e) => e == rustix::io::Errno::NXIO,
    }
}
