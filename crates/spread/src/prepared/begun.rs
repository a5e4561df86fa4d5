//! What a source had begun to make when it was killed: the next run goes on with it, under the same id, and hosts that have
//! some of it go on, too.
//!
//! For that a page is here before anybody hears of it, and its frames are here before it: two pages of one place, both
//! signed, would keep hosts that have the one from ever getting on with the other. What was written is there also after a
//! `kill -9`, but after a power cut the end of it may be missing: what was begun before the system started is of no use.

use super::directory::{KEPT, alone, entries};
use super::stored::{find_frames, take_pages};
use super::{Half, Remembered, Stamp};
use crate::content::Content;
use crate::manifest::Header;
use crate::transfer::{Stock, Transfer};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Of a transfer that is being made, in `ID.half/begun.json`.
#[derive(Serialize, Deserialize)]
pub(super) struct Begun {
    header: String,
    signature: String,
    key: String,
    stamp: Stamp,
    /// Since when the system runs, as it calls that.
    boot: String,
}

fn boot() -> io::Result<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
}

impl Begun {
    fn read(half: &Path) -> Option<(Self, Header)> {
        let text = std::fs::read(half.join("begun.json")).ok()?;
        let begun: Self = serde_json::from_slice(&text).ok()?;
        let header = Header::read(&begun.header).ok()?;
        (boot().ok()? == begun.boot).then_some((begun, header))
    }

    fn is_of(&self, header: &Header, name: &str, stamp: &Stamp, key: &str) -> bool {
        header.name == name && self.stamp == *stamp && self.key == key
    }
}

/// Directories of what is, or was, being made.
fn halves(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    entries(directory).filter(|path| path.extension().is_some_and(|e| e == "half"))
}

/// The lock of one that nobody makes any more; none: somebody does.
fn take(half: &Path) -> Option<File> {
    let lock = File::open(half.join("lock")).ok()?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(lock)
}

/// When what was begun of files of this name was made: of one that looks like this, and of the newest.
pub(super) fn made(
    directory: &Path,
    name: &str,
    stamp: &Stamp,
    key: &str,
) -> (Option<u64>, Option<u64>) {
    let all = halves(directory).filter_map(|half| Begun::read(&half));
    let all: Vec<_> = all.filter(|(_, header)| header.name == name).collect();
    let newest = |same: bool| {
        let of = all
            .iter()
            .filter(|(begun, header)| !same || begun.is_of(header, name, stamp, key));
        of.map(|(_, header)| header.created).max()
    };
    (newest(true), newest(false))
}

/// Goes on with what was begun of this file, and made at this time: with the pages that there are, and their frames.
pub fn resume(
    directory: &Path,
    name: &str,
    source: &Content,
    key: &str,
    created: u64,
) -> Option<(Half, Transfer)> {
    let stamp = source.stamp().ok()?;
    let _alone = alone(directory).ok()?;
    for half in halves(directory) {
        let Some((begun, header)) = Begun::read(&half) else {
            continue;
        };
        if !begun.is_of(&header, name, &stamp, key) || header.created != created {
            continue;
        }
        let Some(lock) = take(&half) else { continue };
        match go_on(directory, &half, lock, begun, header, source) {
            Ok(resumed) => return Some(resumed),
            // It is of no use to anybody.
            Err(_) => drop(std::fs::remove_dir_all(&half)),
        }
    }
    None
}

fn go_on(
    directory: &Path,
    half: &Path,
    lock: File,
    begun: Begun,
    header: Header,
    source: &Content,
) -> io::Result<(Half, Transfer)> {
    let open = |name: &str| {
        let mut options = OpenOptions::new();
        options.read(true).write(true).open(half.join(name))
    };
    let (spool, pages) = (Arc::new(open("spool")?), open("pages")?);
    let stock = Stock {
        file: source.handle()?,
        spool: spool.clone(),
    };
    let id = header.id;
    let transfer = Transfer::new(header, begun.header, begun.signature, stock);
    let written = std::fs::read(half.join("pages"))?;
    let used = take_pages(&transfer, &written) as u64;
    let end = find_frames(&transfer, &spool, source.is_tree())?;
    let end = end.ok_or_else(|| io::Error::other("frames are missing"))?;
    // What nobody has heard of.
    pages.set_len(used)?;
    spool.set_len(end)?;
    let transfer = transfer.of(Remembered::new(half.to_owned(), source));
    let half = Half {
        directory: directory.to_owned(),
        half: half.to_owned(),
        target: directory.join(id.to_string()),
        stamp: begun.stamp,
        kin: None,
        end,
        pages: Some((pages, used)),
        stays: false,
        spool,
        hashes: Arc::new(open("blocks")?),
        _lock: lock,
    };
    Ok((half, transfer))
}

impl Half {
    /// From now on this can be gone on with, if this process is killed.
    pub fn begin(&mut self, transfer: &Transfer, key: &str) -> io::Result<()> {
        let begun = Begun {
            header: transfer.line.clone(),
            signature: transfer.proof.clone(),
            key: key.to_owned(),
            stamp: self.stamp.clone(),
            boot: boot()?,
        };
        let pages = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.half.join("pages"))?;
        self.pages = Some((pages, 0));
        std::fs::write(self.half.join("begun.json"), serde_json::to_vec(&begun)?)
    }

    /// It is not made any further now, and hosts have some of it: the next run goes on.
    pub fn leave(&mut self, transfer: &Transfer, source: &Content) {
        let taken = transfer.reached().furthest > 0;
        self.stays = taken && self.pages.is_some() && self.same(source).is_ok();
    }
}

/// Removes what was left by those who were killed, and of which nothing is wanted: what cannot be gone on with, what was begun
/// of this name when that looked otherwise, and all but the newest. To be called with the lock of the directory.
pub(super) fn sweep(directory: &Path, name: &str, stamp: &Stamp) {
    let mut left = Vec::new();
    for half in halves(directory) {
        // Who is about to make one has the directory's lock until it has that of the half.
        if half.join("lock").exists() && take(&half).is_none() {
            continue;
        }
        match Begun::read(&half) {
            Some((begun, header)) if header.name != name || begun.stamp == *stamp => {
                let time = std::fs::metadata(half.join("begun.json")).and_then(|d| d.modified());
                left.push((time.ok(), half));
            }
            _ => drop(std::fs::remove_dir_all(&half)),
        }
    }
    left.sort();
    let many = left.len().saturating_sub(KEPT);
    for (_, half) in left.into_iter().take(many) {
        let _ = std::fs::remove_dir_all(half);
    }
}

/// Removes one that nobody makes any more, for want of room. `false`: there is none.
pub(super) fn forget_one(directory: &Path) -> io::Result<bool> {
    match halves(directory).find(|half| take(half).is_some()) {
        Some(half) => std::fs::remove_dir_all(half).map(|()| true),
        None => Ok(false),
    }
}
