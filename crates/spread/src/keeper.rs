//! What has come is put on disk, checked, and said to be here.
//!
//! Bytes of the flow go to their place as they come ([`Inflow`]): those of a frame that is stored as it is into the file
//! itself, those of a compressed one into the spool. Children get them from there, while they are still hashed here. A
//! compressed frame is collected, too; when its bytes are what they should be, other threads decompress it. Another one
//! hashes for the flow when more comes than the flow can do by itself.
//!
//! Nothing is visible under the file's own name before [`Work::Finish`].

mod inflow;

pub use inflow::Inflow;

use crate::blocks;
use crate::chunks;
use crate::manifest::{Encoding, Entry, FRAME};
use crate::place::{self, Base, Files, Old};
use crate::transfer::Transfer;
use crate::unpacking::{Stream, Unpacking};
use bytes::Bytes;
use inflow::Hashing;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// What may wait for a thread: compressed frames, or pieces.
const WAITING: usize = 16;

/// Threads that decompress, at most.
const THREADS: usize = 4;

/// So often the disk is told to begin with what has come.
const WRITE_BACK: Duration = Duration::from_millis(250);

pub enum Work {
    /// Frames that are as in the base.
    Same(Range<u32>),
    /// All of a compressed frame, whose bytes are what they should be.
    Unpack(u32, Vec<u8>),
    /// All of a frame that was fetched by itself; is it good?
    Frame(u32, Vec<Bytes>, oneshot::Sender<bool>),
    /// Give the file its name.
    Finish(oneshot::Sender<io::Result<()>>),
}

/// What there is to tell.
#[derive(Debug)]
pub enum News {
    /// A frame of the flow is not what it should be.
    Bad(u32),
    /// It cannot go on: the disk is full, or worse.
    Stuck(io::Error),
}

/// What all threads have.
struct Shared {
    transfer: Arc<Transfer>,
    /// Of a tree. Before the files: it ends before their lock does.
    unpacking: Option<Unpacking>,
    files: Files,
    news: mpsc::UnboundedSender<News>,
    spool_end: AtomicU64,
    /// Who waits for a tree that cannot be made: the reason is among the news, and says more than an answer.
    unanswered: Mutex<Vec<oneshot::Sender<io::Result<()>>>>,
}

/// A thread that does what is to be done for whole frames.
struct Keeper {
    shared: Arc<Shared>,
    plain: Vec<u8>,
    patch: Vec<u8>,
    unpacker: zstd::bulk::Decompressor<'static>,
}

/// What there is to keep a transfer with: the taker of the flow, threads for the rest, and what they have to tell. The
/// threads end when the last sender of work is gone.
pub fn start(
    transfer: Arc<Transfer>,
    files: Files,
    spool_end: u64,
) -> io::Result<(Inflow, mpsc::Sender<Work>, mpsc::UnboundedReceiver<News>)> {
    let (work, works) = mpsc::channel(WAITING);
    let (hash, mut pieces) = mpsc::channel(WAITING);
    let (news, listener) = mpsc::unbounded_channel();
    let unpacking = match transfer.header.tree {
        true => {
            let news = news.clone();
            let failed = move |why| drop(news.send(News::Stuck(why)));
            let base = match files.base.as_ref().map(|base| &base.old) {
                Some(Old::Tree(base)) => Some(base.clone()),
                _ => None,
            };
            let stream = Stream::new(transfer.clone(), files.part.clone(), base);
            Some(Unpacking::start(stream, files.unpacked(), failed)?)
        }
        false => None,
    };
    let shared = Arc::new(Shared {
        transfer,
        unpacking,
        files,
        news,
        spool_end: spool_end.into(),
        unanswered: Mutex::default(),
    });
    if !shared.transfer.header.tree {
        let shared = Arc::downgrade(&shared);
        let disk = move || {
            while let Some(shared) = shared.upgrade() {
                shared.files.write_back();
                drop(shared);
                std::thread::sleep(WRITE_BACK);
            }
        };
        std::thread::Builder::new()
            .name("disk".to_owned())
            .spawn(disk)?;
    }
    let works = Arc::new(Mutex::new(works));
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(THREADS));
    for _ in 0..threads {
        let mut keeper = Keeper {
            shared: shared.clone(),
            plain: Vec::new(),
            patch: Vec::new(),
            unpacker: zstd::bulk::Decompressor::new()?,
        };
        let works = works.clone();
        let next = move || {
            let mut works = works.lock().unwrap_or_else(PoisonError::into_inner);
            works.blocking_recv()
        };
        let shared = shared.clone();
        thread("keeper", shared, next, move |work| keeper.work(work))?;
    }
    let mut hashing = Hashing::new(shared.clone());
    let next = move || pieces.blocking_recv();
    thread("hash", shared.clone(), next, move |piece| {
        hashing.piece(piece)
    })?;
    let inflow = Inflow::new(shared, work.clone(), hash);
    Ok((inflow, work, listener))
}

/// Starts a thread that does one thing after another, until there are no more or one cannot be done.
fn thread<T>(
    name: &str,
    shared: Arc<Shared>,
    mut next: impl FnMut() -> Option<T> + Send + 'static,
    mut act: impl FnMut(T) -> io::Result<()> + Send + 'static,
) -> io::Result<()> {
    let body = move || {
        while let Some(what) = next() {
            if let Err(e) = act(what) {
                let _ = shared.news.send(News::Stuck(e));
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map(drop)
}

impl Shared {
    /// Room in the spool for a frame; says where its bytes go.
    fn spool(&self, index: u32, len: u32) -> io::Result<u64> {
        let size = place::SPOOL_HEAD + u64::from(len);
        let end = self.spool_end.fetch_add(size, Ordering::Relaxed);
        place::spool_head(&self.files.spool, end, index, len)
    }

    /// A frame is on disk, and was found good.
    fn good(&self, index: u32, spooled: Option<u64>) {
        self.transfer.good(index, spooled);
        self.more();
    }

    /// There may be more of a tree to unpack.
    fn more(&self) {
        if let Some(unpacking) = &self.unpacking {
            unpacking.more();
        }
    }

    fn finish(&self, answer: oneshot::Sender<io::Result<()>>) {
        if self.unpacking.as_ref().is_none_or(Unpacking::wait) {
            match self.files.finish(&self.transfer) {
                // What is told of the base ends it, and not this.
                Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                    let _ = self.news.send(News::Stuck(e));
                }
                result => {
                    let _ = answer.send(result);
                    return;
                }
            }
        }
        let unanswered = self.unanswered.lock();
        let mut unanswered = unanswered.unwrap_or_else(PoisonError::into_inner);
        unanswered.push(answer);
    }

    fn bad(&self, index: u32) {
        self.transfer.bad(index);
        let _ = self.news.send(News::Bad(index));
    }
}

impl Keeper {
    fn work(&mut self, work: Work) -> io::Result<()> {
        match work {
            Work::Same(frames) => self.same(frames)?,
            Work::Unpack(index, packed) => {
                let entry = self.shared.transfer.entry(index);
                match entry {
                    Some(entry) if self.unpack(index, entry, &packed)? => {
                        self.shared.good(index, None);
                    }
                    _ => self.shared.bad(index),
                }
            }
            Work::Frame(index, pieces, good) => {
                let entry = self.shared.transfer.entry(index);
                let result = match entry {
                    Some(entry) => self.frame(index, entry, &pieces.concat())?,
                    None => false,
                };
                let _ = good.send(result);
            }
            Work::Finish(answer) => {
                self.shared.finish(answer);
            }
        }
        Ok(())
    }

    /// A frame by itself: puts it where it belongs, if it is good.
    fn frame(&mut self, index: u32, entry: Entry, stored: &[u8]) -> io::Result<bool> {
        if *blake3::hash(stored).as_bytes() != entry.stored_hash {
            return Ok(false);
        }
        let mut spooled = None;
        if entry.encoding == Encoding::Raw {
            let at = u64::from(index) * u64::from(FRAME);
            self.shared.files.part.write_all_at(stored, at)?;
        } else {
            if !self.unpack(index, entry, stored)? {
                return Ok(false);
            }
            let at = self.shared.spool(index, entry.stored)?;
            self.shared.files.spool.write_all_at(stored, at)?;
            spooled = Some(at);
        }
        self.shared.good(index, spooled);
        Ok(true)
    }

    /// Makes the frame of what came, and writes it. The buffers are all the room that there is: a bomb ends there.
    fn unpack(&mut self, index: u32, entry: Entry, packed: &[u8]) -> io::Result<bool> {
        let Shared {
            transfer, files, ..
        } = &*self.shared;
        let len = transfer.header.frame_len(index) as usize;
        self.plain.clear();
        self.plain.reserve(len);
        if entry.encoding == Encoding::Zstd {
            let unpacked = self.unpacker.decompress_to_buffer(packed, &mut self.plain);
            if unpacked.is_err() || self.plain.len() != len {
                return Ok(false);
            }
        } else {
            self.patch.clear();
            let longest = blocks::longest(len).max(chunks::longest(len));
            self.patch.reserve(longest);
            let unpacked = self.unpacker.decompress_to_buffer(packed, &mut self.patch);
            if unpacked.is_err() {
                return Ok(false);
            }
            if let (Some(Old::Tree(base)), Encoding::Ranges) =
                (files.base.as_ref().map(|base| &base.old), entry.encoding)
            {
                // It is made of its ranges where it is unpacked, and nowhere before.
                return Ok(chunks::pieces(&self.patch, base.size(), len).is_some());
            }
            let base = files.base.as_ref();
            let recipe = match entry.encoding {
                Encoding::Patch => Some(blocks::read(&self.patch, len)),
                _ => None,
            };
            if let Some(Some(recipe)) = &recipe
                && base.is_some_and(Base::is_shared)
                && files.share_parts(u64::from(index) * u64::from(FRAME), recipe)?
            {
                return Ok(true);
            }
            self.plain.resize(len, 0);
            let made = match (base.map(|base| &base.old), recipe) {
                (Some(Old::File(base)), Some(Some(recipe))) => {
                    recipe.make(base, &mut self.plain)?
                }
                _ => false,
            };
            if !made {
                return Ok(false);
            }
        }
        if *blake3::hash(&self.plain).as_bytes() != entry.hash {
            return match entry.encoding {
                Encoding::Zstd => Ok(false),
                // The patch is what the source has signed.
                _ => Err(other_base()),
            };
        }
        files.write_frame(index, &self.plain)?;
        Ok(true)
    }

    /// Frames that are as in the base.
    fn same(&mut self, frames: Range<u32>) -> io::Result<()> {
        let Shared {
            transfer, files, ..
        } = &*self.shared;
        let len = |index| transfer.header.frame_len(index);
        let bytes = frames.clone().map(|index| u64::from(len(index))).sum();
        let shared = files.share_frames(frames.start, bytes)?;
        for index in frames {
            if !shared {
                self.plain.resize(len(index) as usize, 0);
                files.read_base(index, &mut self.plain)?;
                let entry = transfer.entry(index);
                let hash = *blake3::hash(&self.plain).as_bytes();
                if entry.is_none_or(|entry| entry.hash != hash) {
                    return Err(other_base());
                }
                files.write_frame(index, &self.plain)?;
            }
            self.shared.good(index, None);
        }
        Ok(())
    }
}

/// The version that is here has other bytes, though it looks as it came: the source sends all of it then.
fn other_base() -> io::Error {
    let why = "the version that is here is not as it came";
    io::Error::new(io::ErrorKind::InvalidData, why)
}
