//! Where a receiver puts files: the directory, and what is beside them while they come.
//!
//! ```text
//! DIR/NAME                    whole and checked; appears by rename. A tree: a directory
//! DIR/.spread/NAME.tree       a tree that is being unpacked, or what is new in it; then, for a moment, NAME.old.ID: the
//!                             version before, or what is not in the new one
//! DIR/.spread/NAME.steps      what makes the tree that is there the new one, while that is done
//! DIR/.spread/NAME.names      of the tree that is there: its names as they came, and what each is known by here
//! DIR/.spread/NAME.part       what has come; sparse
//! DIR/.spread/NAME.spool      compressed frames, for children: number (u32), length (u32), bytes
//! DIR/.spread/NAME.head       header and its signature of what is coming
//! DIR/.spread/NAME.pages      the pages that have come
//! DIR/.spread/NAME.manifest   of the file that is there, with NAME.manifest.minisig and NAME.seen; with .new at the end
//!                             while one version takes the place of the other
//! ```

mod base;
mod change;
mod finish;
mod resume;
mod taking;

pub use base::{Base, Old, base};
pub(crate) use base::{LEAST_SHARED, clone_range};
pub use finish::{recover, recover_trees};
pub use taking::{directory, is_refused, mounted, newer, stays};

use crate::idle;
use crate::manifest::{FRAME, Header, Id};
use crate::rereading::Rereading;
use crate::seen::Seen;
use crate::sign::Key;
use crate::transfer::{Stock, Transfer};
use crate::tree::Tree;
use crate::unpacking::Target;
use crate::update::Steps;
use finish::{remove, settle, sweep};
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// The files of one transfer. Its lock is held until it is finished, or this is dropped.
pub struct Files {
    directory: PathBuf,
    name: String,
    pub part: Arc<File>,
    pub spool: Arc<File>,
    /// The version that this is made from.
    pub base: Option<Base>,
    /// Only its owner may read it.
    private: bool,
    /// Whatever is there may be replaced.
    replace: bool,
    id: Id,
    tree: bool,
    /// What makes the tree that is there the new one, if it is to become that in its place.
    steps: Option<Arc<OnceLock<Steps>>>,
    lock: File,
}

/// What is remembered of a transfer that is coming.
#[derive(Serialize, Deserialize)]
struct Head {
    header: String,
    signature: String,
}

pub(crate) fn beside(directory: &Path, name: &str, what: &str) -> PathBuf {
    directory.join(".spread").join(format!("{name}.{what}"))
}

/// A tree that was looked at a moment ago, and was as it came. Its files are looked at again when they are read.
pub struct Looked {
    name: String,
    seen: Seen,
    tree: Tree,
}

/// The header of the file of this name that is whole here, and whether the file is still as it came; and a tree for
/// [`base`], which is not looked at twice then.
pub fn look(directory: &Path, name: &str) -> (Option<(Header, bool)>, Option<Looked>) {
    let found = Seen::find(directory, name, |_| true);
    let same = found.is_some();
    let there = header_of(directory, name).map(|header| (header, same));
    let (seen, tree) = found.unzip();
    let looked = seen.zip(tree.flatten()).map(|(seen, tree)| Looked {
        name: name.to_owned(),
        seen,
        tree,
    });
    (there, looked)
}

/// Is this transfer whole here, and as it came? Of another one nothing is looked at.
fn has(directory: &Path, name: &str, id: Id) -> bool {
    header_of(directory, name).is_some_and(|header| header.id == id)
        && Seen::read(directory, name, |_| true).is_some()
}

fn header_of(directory: &Path, name: &str) -> Option<Header> {
    let mut file = File::open(beside(directory, name, "manifest")).ok()?;
    let mut start = vec![0; 4096];
    let count = file.read(&mut start).ok()?;
    let line = start[..count].split(|b| *b == b'\n').next()?;
    Header::read(std::str::from_utf8(line).ok()?).ok()
}

/// The directory beside the files. Whoever else could write there could say what is whole here.
fn own(directory: &Path) -> io::Result<()> {
    let beside = directory.join(".spread");
    std::fs::create_dir_all(&beside)?;
    let data = std::fs::symlink_metadata(&beside)?;
    let mine = rustix::process::geteuid().as_raw();
    if data.is_dir() && [mine, std::fs::metadata(directory)?.uid()].contains(&data.uid()) {
        return Ok(());
    }
    let why = format!("{} is not this user's directory", beside.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

impl Files {
    /// Only its owner is to read what comes.
    pub fn make_private(&mut self) {
        self.private = true;
    }

    /// Opens what is there of a transfer, or begins it. Returns it with the frames that are here already, and the end of
    /// the spool.
    ///
    /// Errors: the directory cannot be written to; another process is at work on this name (`WouldBlock`); what is there is
    /// newer ([`is_refused`]); nobody wants it any more (`Interrupted`).
    pub fn open(
        directory: &Path,
        header: &Header,
        line: &str,
        signature: &str,
        key: &Key,
        mut base: Option<Base>,
        reading: &Rereading,
    ) -> io::Result<(Self, Arc<Transfer>, u64)> {
        let name = &header.name;
        own(directory)?;
        let open = |what: &str| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            options.mode(0o600).custom_flags(libc::O_NOFOLLOW);
            options.open(beside(directory, name, what))
        };
        let lock = open("lock")?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        // Who had the lock until now may have brought it to its end, or was killed while it did so.
        settle(directory, name)?;
        if has(directory, name, header.id) {
            return Err(io::Error::other(IsThere));
        }
        taking::is_newest(directory, header)?;
        let head = beside(directory, name, "head");
        let before = std::fs::read(&head).ok();
        let before = before.and_then(|text| serde_json::from_slice::<Head>(&text).ok());
        // What is made from a base is little: it begins anew.
        let resumed = base.is_none() && before.is_some_and(|before| before.header == line);
        if !resumed {
            // In this order: without its head, the rest is of nothing.
            let _ = std::fs::remove_file(&head);
            remove(directory, name, &["part", "spool", "pages"]);
        }
        sweep(directory, name)?;
        let part = Arc::new(open("part")?);
        let spool = Arc::new(open("spool")?);
        part.set_len(header.size)?;
        if !resumed {
            let text = serde_json::to_vec(&Head {
                header: line.to_owned(),
                signature: signature.to_owned(),
            })?;
            write_whole(&head, &text)?;
        }
        let stock = Stock {
            file: part.clone(),
            spool: spool.clone(),
        };
        let transfer = Transfer::new(header.clone(), line.to_owned(), signature.to_owned(), stock);
        let hashes = base.as_mut().map(|base| std::mem::take(&mut base.hashes));
        let transfer = transfer.on(hashes.unwrap_or_default());
        let files = Self {
            directory: directory.to_owned(),
            name: name.clone(),
            part,
            spool,
            base,
            private: false,
            replace: false,
            id: header.id,
            tree: header.tree,
            steps: None,
            lock,
        };
        let spool_end = match resumed {
            true => files.resume(&transfer, key, reading)?,
            false => 0,
        };
        Ok((files, Arc::new(transfer), spool_end))
    }

    /// Keeps a page for the next time.
    pub fn page(&self, wire: &[u8]) -> io::Result<()> {
        let mut all = Vec::with_capacity(wire.len() + 4);
        all.extend((wire.len() as u32).to_le_bytes());
        all.extend(wire);
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600);
        options.custom_flags(libc::O_NOFOLLOW);
        options
            .open(beside(&self.directory, &self.name, "pages"))?
            .write_all(&all)
    }

    /// A frame that is to come is zeros until then.
    pub fn clear(&self, index: u32) -> io::Result<()> {
        let offset = u64::from(index) * u64::from(FRAME);
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&*self.part, flags, offset, u64::from(FRAME)) {
            Err(rustix::io::Errno::OPNOTSUPP) => {
                let len = self.part.metadata()?.len().saturating_sub(offset);
                let zeros = vec![0; len.min(u64::from(FRAME)) as usize];
                self.part.write_all_at(&zeros, offset)
            }
            other => other.map_err(Into::into),
        }
    }

    /// Lets the disk begin with what has come, so that little is left to wait for at the end. sync_file_range(2)
    pub fn write_back(&self) {
        // SAFETY: the descriptor is open as long as the file is borrowed, and no memory is passed. Whether it succeeds
        // changes nothing: what has to be on the disk is brought there by fsync.
        unsafe {
            libc::sync_file_range(self.part.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE);
        }
    }

    /// Where a tree is unpacked.
    pub fn unpacked(&self) -> Target {
        Target {
            tree: beside(&self.directory, &self.name, "tree"),
            names: beside(&self.directory, &self.name, "names.new"),
            steps: self.steps.clone(),
        }
    }
}

impl Drop for Files {
    /// A version that has lost its name goes when the last one closes it, with all that is in memory of it. That takes a while;
    /// nobody has to wait for it, and it takes nothing from whoever still works.
    fn drop(&mut self) {
        let Some(base) = self.base.take() else { return };
        let let_go = move || {
            let _ = idle::stand_back();
            drop(base);
        };
        let thread = std::thread::Builder::new().name("let-go".to_owned());
        let _ = thread.spawn(let_go);
    }
}

/// Writes into a place of a file that is zeros; leaves out blocks that are.
pub(crate) fn write_sparse(file: &File, start: u64, bytes: &[u8]) -> io::Result<()> {
    const BLOCK: usize = 4096;
    let mut begin = 0;
    while begin < bytes.len() {
        let zeros = bytes[begin..]
            .chunks(BLOCK)
            .take_while(|block| is_zero(block))
            .count();
        begin += zeros * BLOCK;
        if begin >= bytes.len() {
            break;
        }
        let blocks = bytes[begin..].chunks(BLOCK);
        let data: usize = blocks
            .take_while(|block| !is_zero(block))
            .map(<[u8]>::len)
            .sum();
        file.write_all_at(&bytes[begin..begin + data], start + begin as u64)?;
        begin += data;
    }
    Ok(())
}

/// What was to be begun is whole.
#[derive(Debug, thiserror::Error)]
#[error("it is there")]
struct IsThere;

/// Is this why it was not opened?
pub fn is_there(e: &io::Error) -> bool {
    e.get_ref().is_some_and(|inner| inner.is::<IsThere>())
}

/// Why what comes cannot be kept, in words that help.
pub fn why_stuck(e: &io::Error, directory: &Path, transfer: &Transfer) -> String {
    let directory = directory.display();
    if is_refused(e) {
        return e.to_string();
    }
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
    if !full.contains(&e.kind()) {
        return format!("what came could not be kept in {directory}: {e}");
    }
    let frames = 0..transfer.header.frames();
    let open = frames.filter(|index| !transfer.is_good(*index));
    let bytes: u64 = open
        .map(|index| {
            // A compressed frame is kept for children, too.
            let packed = transfer.entry(index).filter(|e| e.encoding.is_packed());
            let packed = packed.map_or(0, |entry| u64::from(entry.stored));
            u64::from(transfer.header.frame_len(index)) + packed
        })
        .sum();
    format!(
        "{directory} is full: {} needs up to {bytes} bytes more ({e})",
        transfer.header.name
    )
}

/// Bytes before each frame of a spool.
pub(crate) const SPOOL_HEAD: u64 = 8;

/// Begins a compressed frame at the end of a spool; says where its bytes go.
pub(crate) fn spool_head(spool: &File, end: u64, index: u32, len: u32) -> io::Result<u64> {
    let mut head = [0; SPOOL_HEAD as usize];
    head[..4].copy_from_slice(&index.to_le_bytes());
    head[4..].copy_from_slice(&len.to_le_bytes());
    spool.write_all_at(&head, end)?;
    Ok(end + SPOOL_HEAD)
}

pub(crate) fn is_zero(block: &[u8]) -> bool {
    // Many bytes at a time: the compiler makes wide instructions of the inner loop.
    block
        .chunks(256)
        .all(|piece| piece.iter().fold(0, |any, byte| any | byte) == 0)
}

/// Writes a file that appears whole.
pub(crate) fn write_whole(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut half = file.as_os_str().to_owned();
    half.push(".tmp");
    let half = PathBuf::from(half);
    let _ = std::fs::remove_file(&half);
    let mut options = OpenOptions::new();
    let mut out = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&half)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    std::fs::rename(&half, file)
}
