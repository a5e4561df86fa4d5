//! Where a receiver puts files: the directory, and what is beside them while they come.
//!
//! ```text
//! DIR/NAME                    whole and checked; appears by rename. A tree: a directory
//! DIR/.spread/NAME.tree       a tree that is being unpacked; then, for a moment, NAME.old.ID: the version before
//! DIR/.spread/NAME.headers    of the tree that is there: with its files, its stream again
//! DIR/.spread/NAME.part       what has come; sparse
//! DIR/.spread/NAME.spool      compressed frames, for children: number (u32), length (u32), bytes
//! DIR/.spread/NAME.head       header and its signature of what is coming
//! DIR/.spread/NAME.pages      the pages that have come
//! DIR/.spread/NAME.manifest   of the file that is there, with NAME.manifest.minisig and NAME.seen; with .new at the end
//!                             while one version takes the place of the other
//! ```

use crate::blocks::Shared;
use crate::manifest::{Encoding, FRAME, Hash, Header, Id, hex, number};
use crate::pull;
use crate::seen::Seen;
use crate::sign::Key;
use crate::transfer::{Stock, Transfer};
use crate::tree::Tree;
use crate::unpack;
use crate::unpacking::Target;
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The files of one transfer. Its lock is held until it is finished, or this is dropped.
pub struct Files {
    directory: PathBuf,
    name: String,
    pub part: Arc<File>,
    pub spool: Arc<File>,
    /// The version that this is made from.
    pub base: Option<Old>,
    /// The file system cannot share bytes between files.
    unshared: AtomicBool,
    id: Id,
    tree: bool,
    lock: File,
}

/// What is remembered of a transfer that is coming.
#[derive(Serialize, Deserialize)]
struct Head {
    header: String,
    signature: String,
}

/// A version that a new one can be made from.
pub struct Base {
    old: Old,
    /// Of each frame of a file.
    hashes: Vec<Hash>,
}

pub enum Old {
    File(File),
    Tree(Tree),
}

/// The file with this content, or the tree, if it is here.
pub fn base(directory: &Path, content: &str, tree: bool) -> Option<Base> {
    let entries = std::fs::read_dir(directory.join(".spread")).ok()?;
    for entry in entries.flatten() {
        let file = entry.file_name();
        let name = file.to_str().and_then(|name| name.strip_suffix(".seen"));
        let Some(name) = name else { continue };
        let wanted = |seen: &Seen| seen.content == content && seen.tree.is_some() == tree;
        if Seen::read(directory, name, wanted).is_none() {
            continue;
        }
        let read = |what: &str| std::fs::read(beside(directory, name, what));
        if tree {
            let old = Tree::of_headers(&directory.join(name), &read("headers").ok()?).ok()?;
            let (old, hashes) = (Old::Tree(old), Vec::new());
            return Some(Base { old, hashes });
        }
        let hashes = pull::hashes(&read("manifest").ok()?)?;
        let old = Old::File(File::open(directory.join(name)).ok()?);
        return Some(Base { old, hashes });
    }
    None
}

pub(crate) fn beside(directory: &Path, name: &str, what: &str) -> PathBuf {
    directory.join(".spread").join(format!("{name}.{what}"))
}

/// The header of the file of this name that is whole here, and whether the file is still as it came.
pub fn there(directory: &Path, name: &str) -> Option<(Header, bool)> {
    let seen = Seen::read(directory, name, |_| true);
    let mut file = File::open(beside(directory, name, "manifest")).ok()?;
    let mut start = vec![0; 4096];
    let count = file.read(&mut start).ok()?;
    let line = start[..count].split(|b| *b == b'\n').next()?;
    let header = Header::read(std::str::from_utf8(line).ok()?).ok()?;
    Some((header, seen.is_some()))
}

impl Files {
    /// Opens what is there of a transfer, or begins it. Returns it with the frames that are here already, and the end of
    /// the spool.
    ///
    /// Errors: the directory cannot be written to; another process is at work on this name (`WouldBlock`).
    pub fn open(
        directory: &Path,
        header: &Header,
        line: &str,
        signature: &str,
        key: &Key,
        base: Option<Base>,
    ) -> io::Result<(Self, Arc<Transfer>, u64)> {
        let name = &header.name;
        std::fs::create_dir_all(directory.join(".spread"))?;
        let open = |what: &str| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            options.mode(0o600).custom_flags(libc_nofollow());
            options.open(beside(directory, name, what))
        };
        let lock = open("lock")?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        // Who had the lock until now may have brought it to its end, or was killed while it did so.
        settle(directory, name);
        if there(directory, name).is_some_and(|(old, same)| same && old.id == header.id) {
            return Err(io::Error::other(IsThere));
        }
        let head = beside(directory, name, "head");
        let before = std::fs::read(&head).ok();
        let before = before.and_then(|text| serde_json::from_slice::<Head>(&text).ok());
        // What is made from a base is little: it begins anew.
        let resumed = base.is_none() && before.is_some_and(|before| before.header == line);
        if !resumed {
            // In this order: without its head, the rest is of nothing.
            let _ = std::fs::remove_file(&head);
            for what in ["part", "spool", "pages"] {
                let _ = std::fs::remove_file(beside(directory, name, what));
            }
        }
        sweep(directory, name);
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
        let (base, hashes) = base.map(|base| (base.old, base.hashes)).unzip();
        let transfer = transfer.on(hashes.unwrap_or_default());
        let files = Self {
            directory: directory.to_owned(),
            name: name.clone(),
            part,
            spool,
            base,
            unshared: AtomicBool::new(false),
            id: header.id,
            tree: header.tree,
            lock,
        };
        let spool_end = match resumed {
            true => files.resume(&transfer, key)?,
            false => 0,
        };
        Ok((files, Arc::new(transfer), spool_end))
    }

    /// Looks at what came earlier: pages by their signatures, frames by their hashes. What is not right is cleared.
    fn resume(&self, transfer: &Transfer, key: &Key) -> io::Result<u64> {
        let file = beside(&self.directory, &self.name, "pages");
        let pages = std::fs::read(&file).unwrap_or_default();
        let mut rest = pages.as_slice();
        while let Some((len, after)) = rest.split_at_checked(4) {
            let Some((page, after)) = after.split_at_checked(number(len) as usize) else {
                break;
            };
            if pull::add_page(transfer, key, page).is_err() {
                break;
            }
            rest = after;
        }
        // What was half written when this ended must not stand before what comes now.
        if !rest.is_empty() {
            let pages = OpenOptions::new().write(true).open(&file)?;
            pages.set_len(pages.metadata()?.len() - rest.len() as u64)?;
        }
        let (places, end) = self.spooled(transfer)?;
        // Of what follows nothing is known: it begins as zeros.
        let known = transfer.known().1;
        if known < transfer.header.frames() {
            self.part.set_len(u64::from(known) * u64::from(FRAME))?;
            self.part.set_len(transfer.header.size)?;
        }
        let mut buffer = vec![0; FRAME as usize];
        let mut good = Vec::new();
        for index in 0..known {
            let entry = transfer.entry(index);
            let frame = &mut buffer[..transfer.header.frame_len(index) as usize];
            let place = places.get(&index).copied();
            let whole = match entry {
                Some(entry) if entry.encoding == Encoding::Zero => false,
                Some(entry) if entry.encoding.is_packed() && place.is_none() => false,
                Some(entry) => {
                    self.part
                        .read_exact_at(frame, u64::from(index) * u64::from(FRAME))?;
                    *blake3::hash(frame).as_bytes() == entry.hash
                }
                None => false,
            };
            match whole {
                true => good.push((index, place)),
                false => self.clear(index)?,
            }
        }
        transfer.already(good);
        Ok(end)
    }

    /// Frames in the spool that are what they should be, and where the next one goes.
    fn spooled(
        &self,
        transfer: &Transfer,
    ) -> io::Result<(std::collections::HashMap<u32, u64>, u64)> {
        let mut places = std::collections::HashMap::new();
        let len = self.spool.metadata()?.len();
        let mut at = 0;
        let mut head = [0; 8];
        while at + 8 <= len {
            self.spool.read_exact_at(&mut head, at)?;
            let (index, stored) = (number(&head[..4]), number(&head[4..]));
            let right = transfer
                .entry(index)
                .is_some_and(|e| e.encoding.is_packed() && e.stored == stored);
            if !right || at + 8 + u64::from(stored) > len {
                break;
            }
            let mut bytes = vec![0; stored as usize];
            self.spool.read_exact_at(&mut bytes, at + 8)?;
            let entry = transfer.entry(index);
            if entry.is_some_and(|e| e.stored_hash == *blake3::hash(&bytes).as_bytes()) {
                places.insert(index, at + 8);
            }
            at += 8 + u64::from(stored);
        }
        self.spool.set_len(at)?;
        Ok((places, at))
    }

    /// Keeps a page for the next time.
    pub fn page(&self, wire: &[u8]) -> io::Result<()> {
        let mut all = Vec::with_capacity(wire.len() + 4);
        all.extend((wire.len() as u32).to_le_bytes());
        all.extend(wire);
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600);
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

    /// Writes bytes into a place that is zeros; leaves out blocks that are.
    pub fn write_sparse(&self, start: u64, bytes: &[u8]) -> io::Result<()> {
        write_sparse(&self.part, start, bytes)
    }

    /// Where a tree is unpacked.
    pub fn unpacked(&self) -> Target {
        Target {
            tree: beside(&self.directory, &self.name, "tree"),
            headers: beside(&self.directory, &self.name, "headers.new"),
        }
    }

    /// Writes a frame, of which these parts are in the base.
    pub fn write_from_base(&self, start: u64, bytes: &[u8], parts: &[Shared]) -> io::Result<()> {
        let mut written = 0;
        for part in parts.iter().filter(|part| part.len >= LEAST_SHARED) {
            if self.share(part.from, start + part.at as u64, part.len as u64)? {
                self.write_sparse(start + written as u64, &bytes[written..part.at])?;
                written = part.at + part.len;
            }
        }
        self.write_sparse(start + written as u64, &bytes[written..])
    }

    /// A frame that is as in the base at the same place.
    pub fn same(&self, index: u32, len: u32) -> io::Result<()> {
        let at = u64::from(index) * u64::from(FRAME);
        if self.share(at, at, u64::from(len))? {
            return Ok(());
        }
        let mut bytes = vec![0; len as usize];
        if let Some(Old::File(base)) = &self.base {
            base.read_exact_at(&mut bytes, at)?;
        }
        self.write_sparse(at, &bytes)
    }

    /// Lets a part of the base be a part of this file, too, without a copy. `false`: the file system cannot.
    fn share(&self, from: u64, at: u64, len: u64) -> io::Result<bool> {
        let Some(Old::File(base)) = &self.base else {
            return Ok(false);
        };
        if self.unshared.load(Ordering::Relaxed) {
            return Ok(false);
        }
        match clone_range(base, from, &self.part, at, len) {
            Ok(()) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::ENOSPC) => Err(e),
            Err(_) => {
                self.unshared.store(true, Ordering::Relaxed);
                Ok(false)
            }
        }
    }

    /// Gives the file its name, after it is on the disk for good.
    pub fn finish(&self, transfer: &Transfer) -> io::Result<()> {
        self.finish_up_to(transfer, usize::MAX)
    }

    /// The steps of it, so many of them. Whoever is killed after one leaves what [`settle`] makes good: what proves the
    /// file is there before it has its name, under other names.
    fn finish_up_to(&self, transfer: &Transfer, steps: usize) -> io::Result<()> {
        let Some(seal) = transfer.sealed().filter(|_| transfer.complete()) else {
            return Err(io::Error::other("it is not whole"));
        };
        let of = |what: &str| beside(&self.directory, &self.name, what);
        let target = self.directory.join(&self.name);
        let made = of(if self.tree { "tree" } else { "part" });
        let sync = |directory: &Path| File::open(directory)?.sync_all();
        let prove = || {
            // A tree is on the disk when it is unpacked.
            if !self.tree {
                self.part.sync_all()?;
            }
            let manifest = pull::manifest(transfer).map_err(io::Error::other)?;
            let seen = Seen::of(&made, &hex(&transfer.content()))?;
            write_whole(&of("manifest.minisig.new"), seal.as_bytes())?;
            write_whole(&of("manifest.new"), &manifest)?;
            write_whole(&of("seen.new"), &serde_json::to_vec(&seen)?)?;
            sync(&self.directory.join(".spread"))
        };
        let name = || {
            if unpack::exchange(&made, &target)? {
                let old = unpack::aside(&of("old"), self.id);
                std::fs::rename(&made, &old)?;
                // Nobody has to wait for it; what is left is removed the next time.
                std::thread::spawn(move || unpack::remove(&old));
            }
            sync(&self.directory)
        };
        let rename = |what: &str| std::fs::rename(of(&format!("{what}.new")), of(what));
        let all: [&dyn Fn() -> io::Result<()>; 7] = [
            &prove,
            &name,
            &|| match self.tree {
                true => rename("headers"),
                false => {
                    remove(&self.directory, &self.name, &["headers"]);
                    Ok(())
                }
            },
            &|| rename("manifest.minisig"),
            &|| rename("manifest"),
            &|| rename("seen"),
            &|| {
                remove(&self.directory, &self.name, &["pages", "spool", "head"]);
                if self.tree {
                    self.free(transfer)?;
                }
                sync(&self.directory.join(".spread"))?;
                Ok(flock(&self.lock, FlockOperation::Unlock)?)
            },
        ];
        all.iter().take(steps).try_for_each(|step| step())
    }

    /// Of a tree's stream only those frames are kept that children get from there.
    fn free(&self, transfer: &Transfer) -> io::Result<()> {
        remove(&self.directory, &self.name, &["part"]);
        let packed = |index: &u32| {
            let entry = transfer.entry(*index);
            entry.is_some_and(|entry| entry.encoding.is_packed())
        };
        (0..transfer.header.frames())
            .filter(packed)
            .try_for_each(|index| self.clear(index))
    }
}

/// Removes what was left of trees by those who were killed.
fn sweep(directory: &Path, name: &str) {
    let _ = unpack::remove(&beside(directory, name, "tree"));
    let old = format!("{name}.old.");
    let entries = std::fs::read_dir(directory.join(".spread"));
    for entry in entries.into_iter().flatten().flatten() {
        let file = entry.file_name();
        let id = file.to_str().and_then(|file| file.strip_prefix(&old));
        if id.is_some_and(|id| id.parse::<Id>().is_ok()) {
            let _ = unpack::remove(&entry.path());
        }
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

fn remove(directory: &Path, name: &str, what: &[&str]) {
    for what in what {
        let _ = std::fs::remove_file(beside(directory, name, what));
    }
}

/// Brings to its end what somebody who was killed had begun: if the file has its name already, what proves it gets its
/// names, too. To be called with the lock.
fn settle(directory: &Path, name: &str) {
    let new = |what: &str| beside(directory, name, &format!("{what}.new"));
    let seen = std::fs::read(new("seen")).ok();
    let seen = seen.and_then(|text| serde_json::from_slice::<Seen>(&text).ok());
    let named = seen.is_some_and(|seen| {
        Seen::of(&directory.join(name), &seen.content).is_ok_and(|now| now == seen)
    });
    for what in ["headers", "manifest.minisig", "manifest", "seen"] {
        match named {
            true => drop(std::fs::rename(new(what), beside(directory, name, what))),
            false => drop(std::fs::remove_file(new(what))),
        }
    }
    let head = std::fs::read(beside(directory, name, "head")).ok();
    let head = head.and_then(|text| serde_json::from_slice::<Head>(&text).ok());
    let coming = head.and_then(|head| Header::read(&head.header).ok());
    let is_here = |(here, same): (Header, bool)| same && coming.is_some_and(|c| c.id == here.id);
    if there(directory, name).is_some_and(is_here) {
        remove(directory, name, &["part", "pages", "spool", "head"]);
    }
}

/// Puts right what somebody left who was killed. `false`: somebody is about to give the file its name; look again.
pub fn recover(directory: &Path, name: &str) -> bool {
    let is = |what: &str| beside(directory, name, what).exists();
    let Ok(lock) = File::open(beside(directory, name, "lock")) else {
        return true;
    };
    if !is("seen.new") && !is("head") {
        return true;
    }
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return !is("seen.new");
    }
    settle(directory, name);
    true
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

/// Less is written: each part that is shared is an extent of its own.
const LEAST_SHARED: usize = 64 << 10;

/// ioctl_ficlonerange(2)
fn clone_range(from: &File, start: u64, to: &File, at: u64, len: u64) -> io::Result<()> {
    #[repr(C)]
    struct Range {
        from: i64,
        start: u64,
        len: u64,
        at: u64,
    }
    /// `_IOW(0x94, 13, struct file_clone_range)`
    const CLONE_RANGE: libc::c_ulong = 0x4020_940d;
    let range = Range {
        from: from.as_raw_fd().into(),
        start,
        len,
        at,
    };
    // SAFETY: both descriptors are open as long as the files are borrowed, and the structure lives longer than the call,
    // which only reads it.
    match unsafe { libc::ioctl(to.as_raw_fd(), CLONE_RANGE, &raw const range) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
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

fn libc_nofollow() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits() as i32
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::manifest::{Entry, Id, Page};
    use crate::sign::Signer;

    /// After a rename and before the manifest had its place a kill left a file that nobody knew: it was refused from then
    /// on. Whatever was the last step, the next offer finds it whole or goes on, and its end is the same.
    #[test]
    fn a_kill_between_any_two_steps_of_the_end() {
        let signer = Signer::new().unwrap();
        let bytes = vec![5; 1000];
        let entry = Entry::raw(1000, *blake3::hash(&bytes).as_bytes());
        let header = Header::new(Id([3; 16]), "disk", 1000, 7, None).unwrap();
        let line = header.line().unwrap();
        let page = Page {
            first: 0,
            entries: vec![entry],
        };
        let body = page.bytes(header.id);
        for steps in 0..=7 {
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path();
            let open = || Files::open(dir, &header, &line, "proof", &signer.key(), None);
            let (files, transfer, _) = open().unwrap();
            let title = pull::page_title(&transfer, 0);
            let mut wire = (body.len() as u32).to_le_bytes().to_vec();
            wire.extend(&body);
            wire.extend(signer.sign(&body, &title).unwrap().as_bytes());
            transfer.add_page(&page, wire.as_slice().into());
            files.page(&wire).unwrap();
            files.part.write_all_at(&bytes, 0).unwrap();
            transfer.good(0, None);
            transfer.seal("seal".into());
            files.finish_up_to(&transfer, steps).unwrap();
            drop((files, transfer));

            recover(dir, "disk");
            let known = there(dir, "disk");
            let named = dir.join("disk").exists();
            assert_eq!(named, steps >= 2, "after {steps}");
            assert_eq!(known.is_some_and(|(_, same)| same), named, "after {steps}");
            match open() {
                Err(e) => assert!(named && is_there(&e), "after {steps}: {e}"),
                Ok((files, transfer, _)) => {
                    assert!(!named && transfer.is_good(0), "after {steps}");
                    transfer.seal("seal".into());
                    files.finish(&transfer).unwrap();
                }
            }
            assert_eq!(std::fs::read(dir.join("disk")).unwrap(), bytes);
            assert!(there(dir, "disk").unwrap().1);
            let beside = std::fs::read_dir(dir.join(".spread")).unwrap();
            assert_eq!(beside.count(), 4, "after {steps}");
        }
    }
}
