//! What has come is checked and put on disk, in a thread of its own.
//!
//! A frame that is stored as it is goes to its place in the file piece by piece, while it is hashed. A compressed one is
//! collected, its bytes are compared with their hash before anything decompresses them, and are kept in the spool, too,
//! so that children can have them. Nothing is visible under the file's own name before [`Work::Finish`].

use crate::blocks;
use crate::manifest::{Encoding, Entry, FRAME};
use crate::place::{self, Files};
use crate::transfer::Transfer;
use bytes::Bytes;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

pub enum Work {
    /// A page that was taken, as it came.
    Page(Bytes),
    /// The next piece of a frame of the flow.
    Piece(u32, Bytes),
    /// All of a frame that was fetched by itself; is it good?
    Frame(u32, Vec<Bytes>, oneshot::Sender<bool>),
    /// Give the file its name.
    Finish(oneshot::Sender<io::Result<()>>),
}

/// What the keeper has to tell.
#[derive(Debug)]
pub enum News {
    /// A frame of the flow is not what it should be.
    Bad(u32),
    /// It cannot go on: the disk is full, or worse.
    Stuck(io::Error),
}

struct Keeper {
    transfer: Arc<Transfer>,
    files: Files,
    news: mpsc::UnboundedSender<News>,
    /// The frame that is coming.
    current: Option<Coming>,
    spool_end: u64,
    /// Frames before this one have been compared with the base.
    looked_at: u32,
    packed: Vec<u8>,
    plain: Vec<u8>,
    patch: Vec<u8>,
    unpacker: zstd::bulk::Decompressor<'static>,
}

struct Coming {
    index: u32,
    entry: Entry,
    here: u32,
    hasher: blake3::Hasher,
    /// Of a compressed frame.
    pieces: Vec<Bytes>,
}

/// Starts the thread. It ends when the last sender of work is gone.
pub fn start(
    transfer: Arc<Transfer>,
    files: Files,
    spool_end: u64,
) -> io::Result<(mpsc::Sender<Work>, mpsc::UnboundedReceiver<News>)> {
    let (sender, mut work) = mpsc::channel(128);
    let (news, listener) = mpsc::unbounded_channel();
    let mut keeper = Keeper {
        transfer,
        files,
        news,
        current: None,
        spool_end,
        looked_at: 0,
        packed: Vec::new(),
        plain: Vec::new(),
        patch: Vec::new(),
        unpacker: zstd::bulk::Decompressor::new()?,
    };
    std::thread::Builder::new()
        .name("keeper".to_owned())
        .spawn(move || {
            while let Some(work) = work.blocking_recv() {
                if let Err(e) = keeper.work(work) {
                    let _ = keeper.news.send(News::Stuck(e));
                    return;
                }
            }
        })?;
    Ok((sender, listener))
}

impl Keeper {
    fn work(&mut self, work: Work) -> io::Result<()> {
        match work {
            Work::Page(wire) => {
                self.files.page(&wire)?;
                self.clear_zeros()
            }
            Work::Piece(index, piece) => self.piece(index, piece),
            Work::Frame(index, pieces, good) => {
                let Some(entry) = self.transfer.entry(index) else {
                    return Ok(());
                };
                let mut coming = Coming::new(index, entry);
                for piece in pieces {
                    self.take(&mut coming, piece)?;
                }
                let result = coming.here == entry.stored && self.end(coming)?;
                let _ = good.send(result);
                Ok(())
            }
            Work::Finish(answer) => {
                let _ = answer.send(self.files.finish(&self.transfer));
                Ok(())
            }
        }
    }

    /// Where the base had something and the new version has zeros.
    fn clear_zeros(&mut self) -> io::Result<()> {
        while let Some(entry) = self.transfer.entry(self.looked_at) {
            let zero = entry.encoding == Encoding::Zero;
            if zero && self.transfer.base_hash(self.looked_at) != [0; 32] {
                self.files.clear(self.looked_at)?;
            }
            self.looked_at += 1;
        }
        Ok(())
    }

    fn piece(&mut self, index: u32, piece: Bytes) -> io::Result<()> {
        let coming = self.current.take().filter(|c| c.index == index);
        let coming = coming.or_else(|| Some(Coming::new(index, self.transfer.entry(index)?)));
        let Some(mut coming) = coming else {
            return Ok(());
        };
        self.take(&mut coming, piece)?;
        if coming.here < coming.entry.stored {
            self.current = Some(coming);
        } else if !self.end(coming)? {
            self.transfer.bad(index);
            let _ = self.news.send(News::Bad(index));
        }
        Ok(())
    }

    fn take(&mut self, coming: &mut Coming, piece: Bytes) -> io::Result<()> {
        coming.hasher.update(&piece);
        let len = piece.len() as u32;
        if coming.entry.encoding == Encoding::Raw {
            let at = u64::from(coming.index) * u64::from(FRAME) + u64::from(coming.here);
            if coming.here + len <= coming.entry.stored {
                self.files.part.write_all_at(&piece, at)?;
            }
        } else {
            coming.pieces.push(piece);
        }
        coming.here += len;
        Ok(())
    }

    /// All of a frame is here: is it good?
    fn end(&mut self, coming: Coming) -> io::Result<bool> {
        let Coming { index, entry, .. } = coming;
        if *coming.hasher.finalize().as_bytes() != entry.stored_hash {
            self.files.clear(index)?;
            return Ok(false);
        }
        let mut spooled = None;
        if entry.encoding.is_packed() {
            self.packed.clear();
            for piece in &coming.pieces {
                self.packed.extend_from_slice(piece);
            }
            if !self.unpack(index, entry)? {
                return Ok(false);
            }
            self.files.write_sparse(index, &self.plain)?;
            let at = place::spool(&self.files.spool, self.spool_end, index, &self.packed)?;
            self.spool_end = at + u64::from(entry.stored);
            spooled = Some(at);
        }
        self.transfer.good(index, spooled);
        Ok(true)
    }
}

impl Keeper {
    /// Makes the frame of what came. The buffers are all the room that there is: a bomb ends there.
    fn unpack(&mut self, index: u32, entry: Entry) -> io::Result<bool> {
        let len = self.transfer.header.frame_len(index) as usize;
        self.plain.clear();
        self.plain.reserve(len);
        if entry.encoding == Encoding::Zstd {
            let unpacked = self
                .unpacker
                .decompress_to_buffer(&self.packed, &mut self.plain);
            if unpacked.is_err() || self.plain.len() != len {
                return Ok(false);
            }
        } else {
            self.patch.clear();
            self.patch.reserve(blocks::longest(len));
            let unpacked = self
                .unpacker
                .decompress_to_buffer(&self.packed, &mut self.patch);
            let Some(base) = self.files.base.as_ref().filter(|_| unpacked.is_ok()) else {
                return Ok(false);
            };
            self.plain.resize(len, 0);
            if !blocks::apply(&self.patch, base, &mut self.plain)? {
                return Ok(false);
            }
        }
        if *blake3::hash(&self.plain).as_bytes() != entry.hash {
            return Ok(false);
        }
        // What is left out as zeros must be.
        if self.transfer.base_hash(index) != [0; 32] {
            self.files.clear(index)?;
        }
        Ok(true)
    }
}

impl Coming {
    fn new(index: u32, entry: Entry) -> Self {
        Self {
            index,
            entry,
            here: 0,
            hasher: blake3::Hasher::new(),
            pieces: Vec::new(),
        }
    }
}
