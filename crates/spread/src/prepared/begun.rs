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
    let remembered = Remembered::new(half.to_owned(), source, begun.stamp.clone());
    let transfer = transfer.of(remembered);
    let half = Half {
        directory: directory.to_owned(),
        half: half.to_owned(),
        target: directory.join(id.to_string()),
        stamp: begun.stamp,
        kin: None,
        end,
        pages: Some((pages, used)),
        stays: true,
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

    /// It is not made any further now. If hosts have some of it, the next run goes on.
    pub fn leave(&mut self, transfer: &Transfer, source: &Content) {
        let taken = self.stays || transfer.reached().furthest > 0;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::manifest::{Encoding, Entry, FRAME, Id, Page};
    use crate::prepared::sign_page;
    use crate::sign::Signer;
    use std::io::Write;
    use tempfile::TempDir;

    struct Begins {
        dir: TempDir,
        signer: Signer,
        source: Content,
        file: PathBuf,
    }

    /// What is in the spool of a frame.
    fn stored(frame: u32) -> Vec<u8> {
        vec![frame as u8; 100]
    }

    impl Begins {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("file");
            std::fs::write(&file, vec![1; 5 * FRAME as usize]).unwrap();
            Self {
                signer: Signer::new().unwrap(),
                source: Content::open(&file).unwrap().unwrap(),
                file,
                dir,
            }
        }

        fn memory(&self) -> PathBuf {
            self.dir.path().join("memory")
        }

        fn half(&self, id: u8, name: &str, created: u64) -> (Half, Transfer) {
            let stamp = self.source.stamp().unwrap();
            let mut half = Half::new(&self.memory(), Id([id; 16]), name, stamp).unwrap();
            let size = self.source.size().unwrap();
            let header = Header::new(Id([id; 16]), name, size, created, None).unwrap();
            let line = header.line().unwrap();
            let stock = Stock {
                file: self.source.handle().unwrap(),
                spool: half.spool.clone(),
            };
            let transfer = Transfer::new(header, line, String::new(), stock);
            half.begin(&transfer, &self.signer.key().to_string())
                .unwrap();
            half.stays = true;
            (half, transfer)
        }

        /// As a source does it.
        fn page(&self, half: &mut Half, transfer: &Transfer, frames: u32) {
            let first = transfer.known().1;
            let entry = |frame| Entry {
                encoding: Encoding::Zstd,
                ..Entry::raw(100, *blake3::hash(&stored(frame)).as_bytes())
            };
            for frame in first..first + frames {
                half.spool(frame, &stored(frame)).unwrap();
            }
            let entries = (first..first + frames).map(entry).collect();
            let page = Page { first, entries };
            let wire = sign_page(transfer, &self.signer, &page);
            half.page(&wire).unwrap();
            transfer.add_page(&page, wire.into());
        }

        fn resume(&self, name: &str, created: u64) -> Option<(Half, Transfer)> {
            let key = self.signer.key().to_string();
            resume(&self.memory(), name, &self.source, &key, created)
        }

        fn made(&self, name: &str) -> Option<u64> {
            let key = self.signer.key().to_string();
            made(&self.memory(), name, &self.source.stamp().unwrap(), &key).0
        }
    }

    fn append(file: &Path, bytes: &[u8]) {
        let mut file = OpenOptions::new().append(true).open(file).unwrap();
        file.write_all(bytes).unwrap();
    }

    /// A page that is not all there, and frames of which no page says anything: nobody has heard of them.
    #[test]
    fn the_end_of_what_was_begun_may_be_half_written() {
        let begins = Begins::new();
        let (mut half, transfer) = begins.half(1, "disk", 7);
        begins.page(&mut half, &transfer, 1);
        begins.page(&mut half, &transfer, 2);
        let place = half.half.clone();
        drop(half);
        append(&place.join("pages"), &[200, 0, 0, 0, 1, 2, 3]);
        append(&place.join("spool"), &[3, 0, 0, 0, 100, 0, 0, 0, 1]);
        assert_eq!(begins.made("disk"), Some(7));
        let (mut half, transfer) = begins.resume("disk", 7).unwrap();
        assert_eq!(transfer.known(), (2, 3));
        begins.page(&mut half, &transfer, 1);
        assert!(begins.resume("disk", 7).is_none(), "somebody is at work");
        drop(half);
        let (half, transfer) = begins.resume("disk", 7).unwrap();
        assert_eq!(transfer.known(), (3, 4));
        for frame in 0..4 {
            let place = transfer.place(frame).unwrap();
            let mut bytes = vec![0; 100];
            std::os::unix::fs::FileExt::read_exact_at(&*place.file, &mut bytes, place.offset)
                .unwrap();
            assert_eq!(bytes, stored(frame));
        }
        // Frames that are missing: hosts have heard of them.
        let spool = half.spool.clone();
        drop(half);
        spool.set_len(250).unwrap();
        assert!(begins.resume("disk", 7).is_none());
        assert!(!place.exists());
    }

    #[test]
    fn what_was_begun_before_the_system_started_is_of_no_use() {
        let begins = Begins::new();
        let (mut half, transfer) = begins.half(1, "disk", 7);
        begins.page(&mut half, &transfer, 1);
        let place = half.half.clone();
        drop(half);
        let file = place.join("begun.json");
        let text = std::fs::read_to_string(&file).unwrap();
        let now = serde_json::to_string(&boot().unwrap()).unwrap();
        assert!(text.contains(&now));
        std::fs::write(&file, text.replace(&now, "\"an earlier one\"")).unwrap();
        assert!(begins.resume("disk", 7).is_none());
        assert_eq!(begins.made("disk"), None);
        drop(begins.half(2, "other", 8));
        assert!(!place.exists());
    }

    #[test]
    fn what_was_begun_goes_when_the_file_has_changed_and_not_before() {
        let begins = Begins::new();
        let place = |half: (Half, Transfer)| half.0.half.clone();
        let first = place(begins.half(1, "disk", 7));
        let other = place(begins.half(2, "other", 8));
        assert!(first.exists() && other.exists());
        append(&begins.file, b"more");
        let next = place(begins.half(3, "disk", 9));
        assert!(!first.exists() && other.exists() && next.exists());
        // Not without end.
        for number in 10..30 {
            drop(begins.half(number, &format!("disk{number}"), 9));
        }
        let left = halves(&begins.memory()).count();
        assert_eq!(left, KEPT + 1);
        while forget_one(&begins.memory()).unwrap() {}
        assert_eq!(halves(&begins.memory()).count(), 0);
    }
}
