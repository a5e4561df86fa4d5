//! A tree is unpacked while its stream still comes: a thread follows what is good of it.
//!
//! It begins anew with each receiver that goes on with a transfer: what is unpacked is of the checked stream alone.

use crate::manifest::FRAME;
use crate::transfer::Transfer;
use crate::unpack::unpack;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Where a tree is made, and its headers are kept.
pub struct Target {
    pub tree: PathBuf,
    pub headers: PathBuf,
}

/// The thread. When this is dropped, it has ended.
pub struct Unpacking {
    wake: Option<Sender<()>>,
    thread: Mutex<Option<JoinHandle<bool>>>,
}

impl Unpacking {
    /// `part`: the file with the stream. `failed`: hears why, if it cannot be unpacked.
    pub fn start(
        transfer: Arc<Transfer>,
        part: Arc<File>,
        target: Target,
        failed: impl FnOnce(io::Error) + Send + 'static,
    ) -> io::Result<Self> {
        let (wake, woken) = channel();
        let mut stream = Stream {
            transfer,
            part,
            woken,
            at: 0,
        };
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

    /// Waits until the tree is made and on the disk; all of its stream has to be good.
    pub fn wait(&self) -> io::Result<()> {
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match thread.is_none_or(|thread| thread.join().unwrap_or(false)) {
            true => Ok(()),
            false => Err(io::Error::other("it could not be unpacked")),
        }
    }
}

fn all(stream: &mut Stream, target: &Target) -> io::Result<()> {
    // They have names that are in directories which not everybody may read.
    let headers = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&target.headers)?;
    let mut headers = BufWriter::new(headers);
    let mut reader = BufReader::with_capacity(64 << 10, stream);
    unpack(&mut reader, &target.tree, &mut headers)?;
    headers.flush()?;
    headers.get_ref().sync_all()
}

impl Drop for Unpacking {
    fn drop(&mut self) {
        self.wake = None;
        let _ = self.wait();
    }
}

/// What is good of the stream; waits for more.
struct Stream {
    transfer: Arc<Transfer>,
    part: Arc<File>,
    woken: Receiver<()>,
    at: u64,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let index = (self.at / u64::from(FRAME)) as u32;
        let ended = || io::Error::other("it was ended");
        loop {
            match self.woken.try_recv() {
                Ok(()) => continue,
                Err(TryRecvError::Disconnected) => return Err(ended()),
                Err(TryRecvError::Empty) => {}
            }
            if index >= self.transfer.header.frames() {
                return Ok(0);
            }
            if self.transfer.entry(index).is_some() && self.transfer.is_good(index) {
                break;
            }
            self.woken.recv().map_err(|_| ended())?;
        }
        let end = (u64::from(index) + 1) * u64::from(FRAME);
        let end = end.min(self.transfer.header.size);
        let len = buffer.len().min((end - self.at) as usize);
        self.part.read_exact_at(&mut buffer[..len], self.at)?;
        self.at += len as u64;
        Ok(len)
    }
}
