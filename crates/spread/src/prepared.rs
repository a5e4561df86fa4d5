//! What a source remembers of a file that it has sent: the manifest and the compressed frames. The next time nothing is
//! to be computed, and hosts know that they have it.
//!
//! ```text
//! DIR/ID/head.json   header, signatures, and what the file looked like
//! DIR/ID/pages       the pages, each after its length (u32)
//! DIR/ID/spool       the compressed frames, each after its number and its length (u32)
//! DIR/ID/blocks      a hash of each block of 4 KiB: what the next version may have in common with it; of a
//!                    tree length and hash of each chunk
//! DIR/*.half/        one that is being made, by whoever has its lock
//! DIR/lock           held while one begins or ends
//! ```

use crate::blocks::{self, BLOCK};
use crate::chunks;
use crate::content::Content;
use crate::manifest::{Bad, Hash, Header, Id, Page, content, hex, number};
use crate::place::write_whole;
use crate::pull::split_page;
use crate::transfer::{Stock, Transfer};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Files that are remembered; the ones that were made longest ago are forgotten.
const KEPT: usize = 8;

/// Bytes of a block's hash.
const KEPT_OF_BLOCK: u64 = crate::blocks::KEPT as u64;

/// What changes when somebody writes into a file, or puts another one in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    size: u64,
    inode: (u64, u64),
    modified: (i64, i64),
    changed: (i64, i64),
    /// Of all that is in a tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tree: Option<String>,
}

impl Stamp {
    pub fn of(file: &File) -> io::Result<Self> {
        let data = file.metadata()?;
        Ok(Self {
            size: data.size(),
            inode: (data.dev(), data.ino()),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
            tree: None,
        })
    }

    /// The same, with what is below this directory.
    pub fn of_tree(self, digest: &Hash) -> Self {
        let tree = Some(hex(digest));
        Self { tree, ..self }
    }

    /// What somebody has done to the bytes of this file since. That it has another name, or none, is nothing to them.
    pub fn difference(&self, file: &File) -> io::Result<Option<String>> {
        let now = Self::of(file)?;
        Ok(if now.size != self.size {
            Some(format!("it had {} bytes, and has {}", self.size, now.size))
        } else if now.modified != self.modified {
            Some("it was written to".to_owned())
        } else {
            None
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
    /// What others are like it that are called otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kin: Option<String>,
}

/// One that is remembered.
struct Known {
    directory: PathBuf,
    head: Head,
    header: Header,
}

/// All that is remembered with this key, the newest first.
fn known(directory: &Path, key: &str) -> Vec<Known> {
    let read = |directory: PathBuf| {
        let head = std::fs::read(directory.join("head.json")).ok()?;
        let head: Head = serde_json::from_slice(&head).ok()?;
        let header = Header::read(&head.header).ok()?;
        (head.key == key).then_some(Known {
            directory,
            head,
            header,
        })
    };
    let mut all: Vec<Known> = entries(directory).filter_map(read).collect();
    all.sort_by_key(|known| std::cmp::Reverse(known.header.created));
    all
}

/// When a file that looks like this was made, by what is remembered of it: nanoseconds since 1970. If nothing is, or `anew`,
/// it is made now, and after all others of this name, also where this host's clock was ahead once.
pub fn made(directory: &Path, name: &str, stamp: &Stamp, key: &str, anew: bool) -> u64 {
    let all = known(directory, key);
    let mut of_name = all.iter().filter(|known| known.header.name == name);
    let newest = of_name.clone().next().map(|known| known.header.created);
    if !anew && let Some(same) = of_name.find(|known| known.head.stamp == *stamp) {
        return same.header.created;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_nanos() as u64;
    now.max(newest.map_or(0, |newest| newest.saturating_add(1)))
}

/// A version that hosts may have.
pub enum Base {
    File(blocks::Base),
    Tree(chunks::Base),
}

/// The newest version of this name that is another one than this file is now; if there is none, the newest of its kin.
fn before(
    directory: &Path,
    name: &str,
    kin: Option<&str>,
    source: &Content,
    key: &str,
) -> Option<Known> {
    let now = source.stamp().ok()?;
    let mut all = known(directory, key);
    all.retain(|known| known.head.stamp != now);
    let named = all.iter().position(|known| known.header.name == name);
    let alike = |known: &Known| kin.is_some() && known.head.kin.as_deref() == kin;
    let at = named.or_else(|| all.iter().position(alike))?;
    // A file is not made from a tree, nor the other way around.
    let known = all.swap_remove(at);
    (known.header.tree == source.is_tree()).then_some(known)
}

/// Header and signature of the version that this file may be made from.
pub fn base_offer(
    directory: &Path,
    name: &str,
    kin: Option<&str>,
    source: &Content,
    key: &str,
) -> Option<(String, String)> {
    let known = before(directory, name, kin, source, key)?;
    Some((known.head.header, known.head.signature))
}

/// The version that this file may be made from.
pub fn base(
    directory: &Path,
    name: &str,
    kin: Option<&str>,
    source: &Content,
    key: &str,
) -> Option<Base> {
    let known = before(directory, name, kin, source, key)?;
    let blocks = known.directory.join("blocks");
    if let Some(version) = known.header.version.clone() {
        let remembered = std::fs::read(blocks).ok()?;
        return Some(Base::Tree(chunks::Base::new(version, &remembered)?));
    }
    let pages = std::fs::read(known.directory.join("pages")).ok()?;
    let mut frames = Vec::new();
    let mut rest = pages.as_slice();
    while let Some((len, after)) = rest.split_at_checked(4) {
        let (wire, after) = after.split_at_checked(number(len) as usize)?;
        let page = Page::read(split_page(wire).ok()?.0, &known.header).ok()?;
        frames.extend(page.entries.iter().map(|entry| entry.hash));
        rest = after;
    }
    let size = known.header.size;
    let content = content(size, frames.iter().copied());
    let hashes = File::open(blocks).ok()?;
    let base = blocks::Base::read(content, size, frames, &hashes).ok()?;
    Some(Base::File(base))
}

/// The transfer of a file as it was made before, if the file is still the same and the key, too. `created`: when it was
/// made. `from_base`: one that is made from another version, or one of the whole.
pub fn load(
    directory: &Path,
    name: &str,
    source: &Content,
    key: &str,
    created: u64,
    from_base: bool,
) -> Option<Transfer> {
    let now = source.stamp().ok()?;
    let found = known(directory, key).into_iter().find(|known| {
        known.header.name == name
            && known.head.stamp == now
            && known.header.created == created
            && known.header.base.is_some() == from_base
    });
    let Known {
        directory: place,
        head,
        header,
    } = found?;
    let stock = Stock {
        file: source.handle().ok()?,
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
            packed if packed.is_packed() || (source.is_tree() && entry.stored > 0) => {
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
    kin: Option<String>,
    end: u64,
    pub spool: Arc<File>,
    /// Of each block, in their order; a hole where there are zeros.
    pub hashes: Arc<File>,
    _lock: File,
}

impl Half {
    pub fn new(directory: &Path, id: Id, stamp: Stamp) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        // Whoever begins at the same time must not take this for something that was left.
        let _alone = alone(directory)?;
        sweep(directory);
        let target = directory.join(id.to_string());
        let half = directory.join(format!("{id}.half"));
        std::fs::DirBuilder::new().mode(0o700).create(&half)?;
        let open = |name: &str| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).mode(0o600);
            options.open(half.join(name))
        };
        let lock = open("lock")?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        let spool = Arc::new(open("spool")?);
        let hashes = Arc::new(open("blocks")?);
        hashes.set_len(stamp.size.div_ceil(BLOCK as u64) * KEPT_OF_BLOCK)?;
        Ok(Self {
            directory: directory.to_owned(),
            half,
            target,
            stamp,
            kin: None,
            end: 0,
            spool,
            hashes,
            _lock: lock,
        })
    }

    pub fn of_kin(mut self, kin: Option<String>) -> Self {
        self.kin = kin;
        self
    }

    /// Keeps a compressed frame; says where. For want of room what was made longest ago is forgotten.
    pub fn spool(&mut self, index: u32, bytes: &[u8]) -> io::Result<u64> {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        loop {
            match self.write(index, bytes) {
                Err(e) if matches!(e.kind(), StorageFull | QuotaExceeded) => {
                    if !forget_oldest(&self.directory)? {
                        let directory = self.directory.display();
                        let why = format!(
                            "{directory} is full: what is compressed needs room there, at most as much as the file"
                        );
                        return Err(io::Error::new(e.kind(), why));
                    }
                }
                other => return other,
            }
        }
    }

    fn write(&mut self, index: u32, bytes: &[u8]) -> io::Result<u64> {
        let len = bytes.len() as u32;
        let at = crate::place::spool_head(&self.spool, self.end, index, len)?;
        self.spool.write_all_at(bytes, at)?;
        self.end = at + bytes.len() as u64;
        Ok(at)
    }

    /// Is the file still what it was when this was begun? The error says what is not.
    pub fn same(&self, source: &Content) -> Result<(), Bad> {
        source.same(&self.stamp)
    }

    /// Remembers it, now that all of it is made.
    pub fn keep(self, transfer: &Transfer, source: &Content, key: &str) -> Result<(), Bad> {
        let seal = transfer.sealed().unwrap_or_default().to_string();
        let head = Head {
            header: transfer.line.clone(),
            signature: transfer.proof.clone(),
            seal,
            key: key.to_owned(),
            stamp: self.stamp.clone(),
            kin: self.kin.clone(),
        };
        let mut pages = Vec::new();
        for page in transfer.pages() {
            pages.extend((page.len() as u32).to_le_bytes());
            pages.extend_from_slice(&page);
        }
        let write = || {
            write_whole(&self.half.join("pages"), &pages)?;
            if let Content::Tree(tree) = source {
                self.hashes.set_len(0)?;
                let chunks = chunks::write(tree, chunks::chunks(tree, None)?);
                self.hashes.write_all_at(&chunks, 0)?;
            }
            self.hashes.sync_all()?;
            // What is in the spool is believed the next time.
            self.spool.sync_all()?;
            write_whole(&self.half.join("head.json"), &serde_json::to_vec(&head)?)?;
            sync(&self.half)?;
            let _alone = alone(&self.directory)?;
            std::fs::remove_file(self.half.join("lock"))?;
            std::fs::rename(&self.half, &self.target)?;
            sync(&self.directory)
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

/// Makes sure that the names in a directory are on the disk.
fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Waits until nobody else begins one here, or ends it, as long as this is held.
fn alone(directory: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let lock = options.open(directory.join("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    Ok(lock)
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

/// What is remembered, and when it was made, the oldest first.
fn by_age(directory: &Path) -> Vec<(SystemTime, PathBuf)> {
    let made = |path: PathBuf| {
        let time = std::fs::metadata(path.join("head.json")).and_then(|data| data.modified());
        time.ok().map(|time| (time, path))
    };
    let mut all: Vec<(SystemTime, PathBuf)> = entries(directory).filter_map(made).collect();
    all.sort();
    all
}

/// Is there one less now? Whoever sends it has it open, and goes on.
fn forget_oldest(directory: &Path) -> io::Result<bool> {
    let _alone = alone(directory)?;
    match by_age(directory).into_iter().next() {
        Some((_, oldest)) => std::fs::remove_dir_all(oldest).map(|()| true),
        None => Ok(false),
    }
}

fn prune(directory: &Path) {
    let all = by_age(directory);
    let many = all.len().saturating_sub(KEPT);
    for (_, path) in all.into_iter().take(many) {
        let _ = std::fs::remove_dir_all(path);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Each removes what was left by those who were killed, and took for that what another one had just begun.
    #[test]
    fn many_may_begin_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::open(dir.path()).unwrap();
        let stamp = Stamp::of(&file).unwrap();
        let begin = |thread: u8| {
            for number in 0..200 {
                let mut id = [thread; 16];
                id[0] = number;
                let half = Half::new(dir.path(), Id(id), stamp.clone()).unwrap();
                assert!(half.half.join("spool").exists());
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|n| scope.spawn(move || begin(n))).collect();
            for thread in threads {
                thread.join().unwrap();
            }
        });
        assert_eq!(entries(dir.path()).count(), 1);
    }
}
