//! What a source remembers of a file that it has sent: the manifest and the compressed frames. The next time nothing is
//! to be computed, and hosts know that they have it.
//!
//! ```text
//! DIR/KEY/head.json   header, signatures, and what the file looked like; KEY is of the file's path and its name there
//! DIR/KEY/pages       the pages, each after its length (u32)
//! DIR/KEY/spool       the compressed frames, each after its number and its length (u32)
//! DIR/*.half/         one that is being made, by whoever has its lock
//! ```

use crate::manifest::{Bad, Encoding, Header, Page, number};
use crate::place::write_whole;
use crate::pull::split_page;
use crate::transfer::{Stock, Transfer};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Files that are remembered; the ones that were made longest ago are forgotten.
const KEPT: usize = 8;

/// What changes when somebody writes into a file, or puts another one in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    size: u64,
    inode: (u64, u64),
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub fn of(file: &File) -> io::Result<Self> {
        let data = file.metadata()?;
        Ok(Self {
            size: data.size(),
            inode: (data.dev(), data.ino()),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        })
    }
}

#[derive(Serialize, Deserialize)]
struct Head {
    header: String,
    signature: String,
    seal: String,
    key: String,
    stamp: Stamp,
}

fn place(directory: &Path, file: &Path, name: &str) -> PathBuf {
    let mut hasher = blake3::Hasher::new();
    hasher.update(file.as_os_str().as_bytes());
    hasher.update(&[0]);
    hasher.update(name.as_bytes());
    directory.join(hasher.finalize().to_hex().get(..32).unwrap_or("file"))
}

/// The transfer of a file as it was made before, if the file is still the same and the key, too.
pub fn load(
    directory: &Path,
    file: &Path,
    name: &str,
    source: &Arc<File>,
    key: &str,
) -> Option<Transfer> {
    let place = place(directory, file, name);
    let head: Head = serde_json::from_slice(&std::fs::read(place.join("head.json")).ok()?).ok()?;
    if head.stamp != Stamp::of(source).ok()? || head.key != key {
        return None;
    }
    let header = Header::read(&head.header).ok()?;
    let stock = Stock {
        file: source.clone(),
        spool: Arc::new(File::open(place.join("spool")).ok()?),
    };
    let spool = stock.spool.clone();
    let transfer = Transfer::new(header, head.header, head.signature, stock);
    let pages = std::fs::read(place.join("pages")).ok()?;
    let mut rest = pages.as_slice();
    while let Some((len, after)) = rest.split_at_checked(4) {
        let (wire, after) = after.split_at_checked(number(len) as usize)?;
        let page = Page::read(split_page(wire).ok()?.0, &transfer.header).ok()?;
        if page.first != transfer.known().1 {
            return None;
        }
        transfer.add_page(&page, wire.into());
        rest = after;
    }
    let frames = transfer.header.frames();
    if transfer.known().1 != frames {
        return None;
    }
    let (mut at, mut record) = (0, [0; 8]);
    let mut good = Vec::new();
    for index in 0..frames {
        let entry = transfer.entry(index)?;
        let spooled = match entry.encoding {
            Encoding::Zstd => {
                spool.read_exact_at(&mut record, at).ok()?;
                if (number(&record[..4]), number(&record[4..])) != (index, entry.stored) {
                    return None;
                }
                at += 8 + u64::from(entry.stored);
                Some(at - u64::from(entry.stored))
            }
            _ => None,
        };
        good.push((index, spooled));
    }
    if spool.metadata().ok()?.len() < at {
        return None;
    }
    transfer.already(good);
    transfer.seal(head.seal.into());
    Some(transfer)
}

/// One that is being made. Without [`Half::keep`] nothing of it stays.
pub struct Half {
    directory: PathBuf,
    half: PathBuf,
    target: PathBuf,
    stamp: Stamp,
    end: u64,
    pub spool: Arc<File>,
    _lock: File,
}

impl Half {
    pub fn new(directory: &Path, file: &Path, name: &str, stamp: Stamp) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        sweep(directory);
        let target = place(directory, file, name);
        let half = directory.join(format!(
            "{}.{}.half",
            target.file_name().unwrap_or_default().to_string_lossy(),
            std::process::id()
        ));
        std::fs::DirBuilder::new().mode(0o700).create(&half)?;
        let open = |name: &str| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).mode(0o600);
            options.open(half.join(name))
        };
        let lock = open("lock")?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        let spool = Arc::new(open("spool")?);
        Ok(Self {
            directory: directory.to_owned(),
            half,
            target,
            stamp,
            end: 0,
            spool,
            _lock: lock,
        })
    }

    /// Keeps a compressed frame; says where.
    pub fn spool(&mut self, index: u32, bytes: &[u8]) -> io::Result<u64> {
        let at = crate::place::spool(&self.spool, self.end, index, bytes)?;
        self.end = at + bytes.len() as u64;
        Ok(at)
    }

    /// Is the file still what it was when this was begun?
    pub fn same(&self, source: &File) -> io::Result<bool> {
        Ok(Stamp::of(source)? == self.stamp)
    }

    /// Remembers it, now that all of it is made.
    pub fn keep(self, transfer: &Transfer, key: &str) -> Result<(), Bad> {
        let seal = transfer.sealed().unwrap_or_default().to_string();
        let head = Head {
            header: transfer.line.clone(),
            signature: transfer.proof.clone(),
            seal,
            key: key.to_owned(),
            stamp: self.stamp.clone(),
        };
        let mut pages = Vec::new();
        for page in transfer.pages() {
            pages.extend((page.len() as u32).to_le_bytes());
            pages.extend_from_slice(&page);
        }
        let write = || {
            write_whole(&self.half.join("pages"), &pages)?;
            write_whole(&self.half.join("head.json"), &serde_json::to_vec(&head)?)?;
            std::fs::remove_file(self.half.join("lock"))?;
            if self.target.exists() {
                std::fs::remove_dir_all(&self.target)?;
            }
            std::fs::rename(&self.half, &self.target)
        };
        write().map_err(|e: io::Error| Bad(format!("it could not be remembered: {e}")))?;
        prune(&self.directory);
        Ok(())
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.half);
    }
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    entries.flatten().map(|entry| entry.path())
}

/// Removes what was left by those who were killed.
fn sweep(directory: &Path) {
    for half in entries(directory).filter(|path| path.extension().is_some_and(|e| e == "half")) {
        let free = File::open(half.join("lock"))
            .map(|lock| flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok());
        if free.unwrap_or(true) {
            let _ = std::fs::remove_dir_all(&half);
        }
    }
}

fn prune(directory: &Path) {
    let made = |path: PathBuf| {
        let time = std::fs::metadata(path.join("head.json")).and_then(|data| data.modified());
        time.ok().map(|time| (time, path))
    };
    let mut all: Vec<(SystemTime, PathBuf)> = entries(directory).filter_map(made).collect();
    all.sort();
    let many = all.len().saturating_sub(KEPT);
    for (_, path) in all.into_iter().take(many) {
        let _ = std::fs::remove_dir_all(path);
    }
}
