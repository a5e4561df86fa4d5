//! A tree is unpacked while its stream still comes: a thread follows what is good of it.
//!
//! It begins anew with each receiver that goes on with a transfer: what is unpacked is of the checked stream alone. What a
//! frame has from the version before is not put together anywhere: whoever unpacks takes it out of that version's files.

use crate::chunks::{self, Piece};
use crate::manifest::{Encoding, FRAME};
use crate::place::write_whole;
use crate::transfer::Transfer;
use crate::tree::Tree;
use crate::unpack::{Flow, unpack};
use crate::update::{self, Steps};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

/// Bytes that are read at once where less is wanted.
const STEP: usize = 64 << 10;

/// Where a tree is made, and what is remembered of it is kept.
pub struct Target {
    pub tree: PathBuf,
    pub names: PathBuf,
    /// The tree that is there becomes the new one by these: only what is new in it is made. None: all of it is.
    pub steps: Option<Arc<OnceLock<Steps>>>,
}

/// The thread. When this is dropped, it has ended.
pub struct Unpacking {
    wake: Option<Sender<()>>,
    thread: Mutex<Option<JoinHandle<bool>>>,
}

impl Unpacking {
    /// `failed`: hears why, if it cannot be unpacked.
    pub fn start(
        mut stream: Stream,
        target: Target,
        failed: impl FnOnce(io::Error) + Send + 'static,
    ) -> io::Result<Self> {
        let (wake, woken) = channel();
        stream.woken = Some(woken);
        let thread = std::thread::Builder::new()
            .name("unpack".to_owned())
            .spawn(move || {
                let result = all(&mut stream, &target);
                let made = result.is_ok();
                if let Err(e) = result {
                    failed(io::Error::new(e.kind(), format!("unpacking {e}")));
                }
                made
            })?;
        Ok(Self {
            wake: Some(wake),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// More is good.
    pub fn more(&self) {
        if let Some(wake) = &self.wake {
            // Who has ended has said why.
            let _ = wake.send(());
        }
    }

    /// Waits until the tree is made and on the disk; all of its stream has to be good. `false`: it could not be made, and
    /// somebody has heard why.
    pub fn wait(&self) -> bool {
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        thread.is_none_or(|thread| thread.join().unwrap_or(false))
    }
}

fn all(stream: &mut Stream, target: &Target) -> io::Result<()> {
    let names = match (&target.steps, stream.base.clone()) {
        (Some(steps), Some(base)) => {
            let (made, names) = update::prepare(stream, &base, &target.tree)?;
            let _ = steps.set(made);
            names
        }
        _ => unpack(stream, &target.tree)?,
    };
    // Also those that are in directories which not everybody may read: this file is its owner's.
    write_whole(&target.names, &names)
}

impl Drop for Unpacking {
    fn drop(&mut self) {
        self.wake = None;
        self.wait();
    }
}

/// What is good of a tree's stream; waits for more.
pub struct Stream {
    transfer: Arc<Transfer>,
    part: Arc<File>,
    base: Option<Arc<Tree>>,
    woken: Option<Receiver<()>>,
    /// Of what is read from the file with the stream.
    at: u64,
    /// What is left of the frame that is read: where its bytes are; if it comes as ranges, with the patch.
    left: VecDeque<Piece>,
    patch: Option<Vec<u8>>,
    /// The frame that is read is of zeros.
    zero: bool,
    /// The next frame.
    next: u32,
    /// Bytes that were read ahead.
    buffer: Vec<u8>,
    used: usize,
}

impl Stream {
    /// `part`: the file that frames are in as they are. `base`: what the others are made of.
    pub fn new(transfer: Arc<Transfer>, part: Arc<File>, base: Option<Arc<Tree>>) -> Self {
        Self {
            transfer,
            part,
            base,
            woken: None,
            at: 0,
            left: VecDeque::new(),
            patch: None,
            zero: false,
            next: 0,
            buffer: Vec::new(),
            used: 0,
        }
    }

    /// Waits for the next frame, if nothing is left of this one. `false`: there are no more.
    fn frame(&mut self) -> io::Result<bool> {
        if !self.left.is_empty() {
            return Ok(true);
        }
        let index = self.next;
        let ended = || io::Error::other("it was ended");
        let entry = loop {
            match self.woken.as_ref().map(Receiver::try_recv) {
                Some(Ok(())) => continue,
                None | Some(Err(TryRecvError::Disconnected)) => return Err(ended()),
                Some(Err(TryRecvError::Empty)) => {}
            }
            if index >= self.transfer.header.frames() {
                return Ok(false);
            }
            match self.transfer.entry(index) {
                Some(entry) if self.transfer.is_good(index) => break entry,
                _ => {}
            }
            let woken = self.woken.as_ref().ok_or_else(ended)?;
            woken.recv().map_err(|_| ended())?;
        };
        self.next += 1;
        self.zero = entry.encoding == Encoding::Zero;
        let len = self.transfer.header.frame_len(index);
        if entry.encoding != Encoding::Ranges {
            self.patch = None;
            self.at = u64::from(index) * u64::from(FRAME);
            let len = u64::from(len);
            self.left.push_back(Piece::New { at: 0, len });
            return Ok(true);
        }
        let gone = || io::Error::other(format!("frame {index} is not where it was put"));
        let place = self.transfer.place(index).ok_or_else(gone)?;
        let mut packed = vec![0; place.len as usize];
        place.file.read_exact_at(&mut packed, place.offset)?;
        let patch = zstd::bulk::decompress(&packed, chunks::longest(len as usize))?;
        let base = self.base.as_ref().map_or(0, |base| base.size());
        self.left = chunks::pieces(&patch, base, len as usize).ok_or_else(gone)?;
        self.patch = Some(patch);
        Ok(true)
    }

    /// So many bytes of the first piece that is left were taken.
    fn take(&mut self, count: usize) {
        let count = count as u64;
        let end = match self.left.front_mut() {
            Some(Piece::Old { from, len }) => {
                *from += count;
                *len -= count;
                *len == 0
            }
            Some(Piece::New { at, len }) => {
                *at += count as usize;
                *len -= count;
                *len == 0
            }
            None => false,
        };
        if end {
            self.left.pop_front();
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let ready = &self.buffer[self.used..];
            if !ready.is_empty() {
                let len = ready.len().min(into.len());
                into[..len].copy_from_slice(&ready[..len]);
                self.used += len;
                return Ok(len);
            }
            if !self.frame()? {
                return Ok(0);
            }
            let Some(piece) = self.left.front().copied() else {
                continue;
            };
            match (piece, &self.patch, &self.base) {
                (Piece::Old { from, len }, _, Some(base)) => {
                    let len = into.len().min(len as usize);
                    let read = base.read_exact_at(&mut into[..len], from);
                    read.map_err(|e| match e.kind() {
                        // All of the new version is wanted then.
                        io::ErrorKind::PermissionDenied => {
                            io::Error::new(io::ErrorKind::InvalidData, e)
                        }
                        _ => e,
                    })?;
                    self.take(len);
                    return Ok(len);
                }
                (Piece::New { at, len }, Some(patch), _) => {
                    let len = into.len().min(len as usize);
                    into[..len].copy_from_slice(&patch[at..at + len]);
                    self.take(len);
                    return Ok(len);
                }
                (Piece::New { at, len }, None, _) if into.len() < STEP => {
                    let len = STEP.min(len as usize);
                    self.buffer.resize(len, 0);
                    self.used = 0;
                    let from = self.at + at as u64;
                    self.part.read_exact_at(&mut self.buffer, from)?;
                    self.take(len);
                }
                (Piece::New { at, len }, None, _) => {
                    let len = into.len().min(len as usize);
                    let from = self.at + at as u64;
                    self.part.read_exact_at(&mut into[..len], from)?;
                    self.take(len);
                    return Ok(len);
                }
                (Piece::Old { .. }, _, None) => {
                    return Err(io::Error::other("it is made from nothing"));
                }
            }
        }
    }
}

impl Flow for Stream {
    fn base(&self) -> Option<&Arc<Tree>> {
        self.base.as_ref()
    }

    fn shared(&mut self) -> io::Result<Option<(u64, u64)>> {
        if self.used < self.buffer.len() || !self.frame()? {
            return Ok(None);
        }
        Ok(match self.left.front() {
            Some(Piece::Old { from, len }) => Some((*from, *len)),
            _ => None,
        })
    }

    fn zeros(&mut self) -> io::Result<Option<u64>> {
        if self.used < self.buffer.len() || !self.frame()? || !self.zero {
            return Ok(None);
        }
        Ok(match self.left.front() {
            Some(Piece::New { len, .. }) => Some(*len),
            _ => None,
        })
    }

    fn skip(&mut self, count: u64) {
        self.take(count as usize);
    }
}
