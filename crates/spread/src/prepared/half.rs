//! One that is being made, as it will be remembered: in a directory of its own until all of it is there.

use super::begun::sweep;
use super::directory::{alone, forget_oldest, prune, sync};
use super::{Head, Stamp, hash_of};
use crate::blocks::BLOCK;
use crate::chunks;
use crate::content::Content;
use crate::manifest::{Bad, Id};
use crate::place::write_whole;
use crate::secret::own_directory;
use crate::transfer::Transfer;
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of a block's hash.
const KEPT_OF_BLOCK: u64 = crate::blocks::KEPT as u64;

/// One that is being made. Without [`Half::keep`] nothing of it stays, unless it was begun so that it can be gone on with.
pub struct Half {
    pub(super) directory: PathBuf,
    pub(super) half: PathBuf,
    pub(super) target: PathBuf,
    pub(super) stamp: Stamp,
    pub(super) kin: Option<String>,
    /// Of the spool.
    pub(super) end: u64,
    /// What others hear of only when it is here, and the end of it.
    pub(super) pages: Option<(File, u64)>,
    /// Hosts may have some of it: what there is of it stays for the next run.
    pub(super) stays: bool,
    pub spool: Arc<File>,
    /// Of each block, in their order; a hole where there are zeros.
    pub hashes: Arc<File>,
    pub(super) _lock: File,
}

impl Half {
    /// `name`: of the file, at the receivers.
    pub fn new(directory: &Path, id: Id, name: &str, stamp: Stamp) -> io::Result<Self> {
        own_directory(directory)?;
        // Whoever begins at the same time must not take this for something that was left.
        let _alone = alone(directory)?;
        sweep(directory, name, &stamp);
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
            pages: None,
            stays: false,
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
        self.with_room(|half| half.write(index, bytes))
    }

    /// Keeps a page, before anybody hears of it.
    pub fn page(&mut self, wire: &[u8]) -> io::Result<()> {
        let mut all = (wire.len() as u32).to_le_bytes().to_vec();
        all.extend(wire);
        self.with_room(|half| {
            if let Some((pages, end)) = &mut half.pages {
                pages.write_all_at(&all, *end)?;
                *end += all.len() as u64;
            }
            Ok(())
        })
    }

    fn with_room<T>(&mut self, write: impl Fn(&mut Self) -> io::Result<T>) -> io::Result<T> {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        loop {
            match write(self) {
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

    pub fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    /// Is the file still what it was when this was begun? The error says what is not.
    pub fn same(&self, source: &Content) -> Result<(), Bad> {
        source.same(&self.stamp)
    }

    /// Remembers it, now that all of it is made.
    pub fn keep(self, transfer: &Transfer, source: &Content, key: &str) -> Result<(), Bad> {
        let seal = transfer.sealed().unwrap_or_default().to_string();
        let mut pages = Vec::new();
        for page in transfer.pages() {
            pages.extend((page.len() as u32).to_le_bytes());
            pages.extend_from_slice(&page);
        }
        let head = Head {
            header: transfer.line.clone(),
            signature: transfer.proof.clone(),
            seal,
            key: key.to_owned(),
            stamp: self.stamp.clone(),
            kin: self.kin.clone(),
            pages: Some(hash_of(&pages)),
        };
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
            let _ = std::fs::remove_file(self.half.join("begun.json"));
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
        if !self.stays {
            let _ = std::fs::remove_dir_all(&self.half);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::prepared::directory::entries;

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
                let half = Half::new(dir.path(), Id(id), "disk", stamp.clone()).unwrap();
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
