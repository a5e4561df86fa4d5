//! Files of a new tree that are made of files of the version before, by several threads.
//!
//! Where the file system can share blocks between files, a file that is as it was is one call (`FICLONE`). Elsewhere it is
//! copied in the kernel. Each file that something was taken from is looked at after that: it must be the one that came.

use crate::place::{LEAST_SHARED, clone_range, write_sparse};
use crate::tar::Entry;
use crate::tree::{Node, Tree, changed};
use crate::unpack::Rights;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Files that may wait, each of them open.
const WAITING: usize = 128;

/// Threads, at most.
const THREADS: usize = 4;

/// Less is read and written: that is faster than to ask the kernel for a copy.
const SMALL: u64 = 64 << 10;

/// Blocks that file systems can share are of so many bytes, or of fewer.
const BLOCK: u64 = 4096;

/// Bytes of a new file, from here on, which are at this offset in the base's stream.
pub struct Part {
    pub at: u64,
    pub from: u64,
    pub len: u64,
}

/// A file that was made, and what is missing in it.
pub struct Job {
    pub file: File,
    pub entry: Entry,
    pub parts: Vec<Part>,
}

/// The threads. When this is dropped, they have ended.
pub struct Filling {
    jobs: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
    failed: Arc<Mutex<Option<io::Error>>>,
}

impl Filling {
    pub fn start(base: &Arc<Tree>, rights: Rights) -> io::Result<Self> {
        let (jobs, waiting) = sync_channel::<Job>(WAITING);
        let mut filling = Self {
            jobs: Some(jobs),
            threads: Vec::new(),
            failed: Arc::default(),
        };
        let (waiting, unshared) = (Arc::new(Mutex::new(waiting)), Arc::default());
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(THREADS));
        for _ in 0..threads {
            let filler = Filler {
                base: base.clone(),
                rights,
                unshared: Arc::clone(&unshared),
                buffer: vec![0; SMALL as usize],
            };
            let (waiting, failed) = (waiting.clone(), filling.failed.clone());
            let body = move || filler.work(&waiting, &failed);
            let thread = std::thread::Builder::new().name("fill".to_owned());
            filling.threads.push(thread.spawn(body)?);
        }
        Ok(filling)
    }

    /// One more. Errors are those of any one before it.
    pub fn add(&self, job: Job) -> io::Result<()> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = failed.take() {
            return Err(why);
        }
        drop(failed);
        match &self.jobs {
            Some(jobs) => jobs.send(job).map_err(|_| ended()),
            None => Err(ended()),
        }
    }

    /// Waits until all files are whole.
    pub fn end(&mut self) -> io::Result<()> {
        self.jobs = None;
        let threads = std::mem::take(&mut self.threads).into_iter();
        let gone = threads.map(JoinHandle::join).any(|ended| ended.is_err());
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        match failed.take() {
            Some(why) => Err(why),
            None if gone => Err(ended()),
            None => Ok(()),
        }
    }
}

fn ended() -> io::Error {
    io::Error::other("a thread has ended")
}

impl Drop for Filling {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

struct Filler {
    base: Arc<Tree>,
    rights: Rights,
    /// The file system cannot share bytes between files.
    unshared: Arc<AtomicBool>,
    buffer: Vec<u8>,
}

impl Filler {
    fn work(mut self, waiting: &Mutex<Receiver<Job>>, failed: &Mutex<Option<io::Error>>) {
        let failed = || failed.lock().unwrap_or_else(PoisonError::into_inner);
        let next = || {
            let waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.recv()
        };
        while let Ok(job) = next() {
            // After one has failed, the others are only taken.
            if failed().is_some() {
                continue;
            }
            if let Err(e) = self.fill(&job) {
                let why = io::Error::new(e.kind(), format!("{}: {e}", job.entry.shown()));
                failed().get_or_insert(why);
            }
        }
    }

    fn fill(&mut self, job: &Job) -> io::Result<()> {
        for part in &job.parts {
            self.part(part, &job.file)?;
        }
        if job.file.metadata()?.len() != job.entry.size {
            // A hole at its end.
            job.file.set_len(job.entry.size)?;
        }
        self.rights.dress(&job.file, &job.entry)
    }

    fn part(&mut self, part: &Part, to: &File) -> io::Result<()> {
        let base = self.base.clone();
        let Part { at, from, len } = *part;
        let mut done = 0;
        while done < len {
            let here = from + done;
            let (node, content) = base.at(here);
            let (end, left) = (content + node.entry.size, len - done);
            done += if (content..end).contains(&here) {
                let left = left.min(end - here);
                self.content(node, here - content, left, to, at + done)?;
                left
            } else {
                // A header, or what a file is filled up with.
                let next = content + node.entry.padded();
                let left = match here {
                    _ if here < content => left.min(content - here),
                    _ if here < next => left.min(next - here),
                    _ => left,
                };
                let left = left.min(SMALL);
                let bytes = &mut self.buffer[..left as usize];
                base.read_exact_at(bytes, here)?;
                write_sparse(to, at + done, bytes)?;
                left
            };
        }
        Ok(())
    }

    /// Bytes of a file of the base.
    fn content(&mut self, node: &Node, from: u64, len: u64, to: &File, at: u64) -> io::Result<()> {
        let other = || changed(&node.entry.shown());
        let file = self.base.file(node).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => other(),
            // It came so, or was made so: all of the new version is wanted then.
            io::ErrorKind::PermissionDenied => io::Error::new(io::ErrorKind::InvalidData, e),
            _ => e,
        })?;
        let whole = from == 0 && at == 0 && len == node.entry.size;
        if !self.share(&file, from, len, to, at, whole)? {
            match self.copy(&file, from, len, to, at) {
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(other()),
                other => other?,
            }
        }
        match node.is_still(&file)? {
            true => Ok(()),
            false => Err(other()),
        }
    }

    /// Lets both files have the same blocks. `false`: that cannot be.
    fn share(
        &mut self,
        file: &File,
        from: u64,
        len: u64,
        to: &File,
        at: u64,
        whole: bool,
    ) -> io::Result<bool> {
        if self.unshared.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let begin = from.next_multiple_of(BLOCK);
        let end = (from + len) / BLOCK * BLOCK;
        let shared = if whole {
            rustix::fs::ioctl_ficlone(to, file).map_err(io::Error::from)
        } else if from % BLOCK == at % BLOCK && end >= begin + LEAST_SHARED as u64 {
            let place = |offset: u64| at + (offset - from);
            let shared = clone_range(file, begin, to, place(begin), end - begin);
            if shared.is_ok() {
                self.copy(file, from, begin - from, to, at)?;
                self.copy(file, end, from + len - end, to, place(end))?;
            }
            shared
        } else {
            return Ok(false);
        };
        match shared {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::StorageFull => Err(e),
            Err(_) => {
                self.unshared.store(true, Ordering::Relaxed);
                Ok(false)
            }
        }
    }

    /// Copies what is no hole.
    fn copy(&mut self, file: &File, from: u64, len: u64, to: &File, at: u64) -> io::Result<()> {
        let (mut here, end) = (from, from + len);
        if len <= SMALL {
            let bytes = &mut self.buffer[..len as usize];
            file.read_exact_at(bytes, from)?;
            return write_sparse(to, at, bytes);
        }
        let data = file.metadata()?;
        let sparse = data.blocks().saturating_mul(512) < data.size();
        while here < end {
            let mut stop = end;
            if sparse {
                here = match rustix::fs::seek(file, SeekFrom::Data(here)) {
                    Ok(data) => data,
                    Err(Errno::NXIO) => return Ok(()),
                    Err(e) => return Err(e.into()),
                };
                if here >= end {
                    return Ok(());
                }
                stop = rustix::fs::seek(file, SeekFrom::Hole(here))?.min(end);
            }
            self.bytes(file, here, stop - here, to, at + (here - from))?;
            here = stop;
        }
        Ok(())
    }

    /// Copies bytes as they are.
    fn bytes(&mut self, file: &File, from: u64, len: u64, to: &File, at: u64) -> io::Result<()> {
        let (mut source, mut target) = (from, at);
        while source < from + len {
            let left = (from + len - source) as usize;
            match rustix::fs::copy_file_range(file, Some(&mut source), to, Some(&mut target), left)
            {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(Errno::NOSPC | Errno::DQUOT) => return Err(io::ErrorKind::StorageFull.into()),
                Err(_) => {
                    // File systems that cannot, and two that are not of one kind.
                    let bytes = &mut self.buffer[..left.min(SMALL as usize)];
                    file.read_exact_at(bytes, source)?;
                    to.write_all_at(bytes, target)?;
                    source += bytes.len() as u64;
                    target += bytes.len() as u64;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
