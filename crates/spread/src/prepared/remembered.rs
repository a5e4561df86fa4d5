//! What a source remembers may be spoilt by a bad disk, and nobody touches the file for that. When a host asks for a frame by
//! itself, which it does if that was not what it should be, the source looks at it, too. It makes it again of the file; what
//! cannot be made again is forgotten, so that the next run makes all of it.

use super::Stamp;
use crate::content::Content;
use crate::level;
use crate::manifest::{Bad, Encoding, Entry, FRAME};
use crate::transfer::{Place, Transfer};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

impl Transfer {
    /// As a source remembers it.
    pub(super) fn of(mut self, remembered: Remembered) -> Self {
        self.remembered = Some(remembered);
        self
    }

    /// Frames that a source had from earlier, were spoilt by then, and were made again.
    pub fn mended(&self) -> u32 {
        let mended = |remembered: &Remembered| remembered.mended.load(Ordering::Relaxed);
        self.remembered.as_ref().map_or(0, mended)
    }
}

/// Where what is sent is remembered, and what it was made of.
pub struct Remembered {
    directory: PathBuf,
    source: Content,
    stamp: Stamp,
    /// Held by whoever looks at a frame.
    looks: Mutex<()>,
    /// Frames that were made again.
    mended: AtomicU32,
}

impl Remembered {
    pub(super) fn new(directory: PathBuf, source: &Content, stamp: Stamp) -> Self {
        Self {
            directory,
            source: source.clone(),
            stamp,
            looks: Mutex::default(),
            mended: AtomicU32::new(0),
        }
    }

    /// Looks at a frame. If it is not what it should be, it is made again, or the transfer fails.
    pub fn look(&self, transfer: &Transfer, index: u32) {
        let _one = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(entry), Some(place)) = (transfer.entry(index), transfer.place(index)) else {
            return;
        };
        if transfer.failed().is_some() || is_good(&entry, &place) {
            return;
        }
        match self.mend(transfer, index, &entry, &place) {
            Ok(()) => {
                // Children have had it as it was, and nobody is to be blamed for that.
                transfer.bad(index);
                transfer.good(index, Some(place.offset));
                self.mended.fetch_add(1, Ordering::Relaxed);
            }
            // It may have been changed a moment ago.
            Err(why) => match self.source.same(&self.stamp) {
                Ok(()) => self.forget(transfer, &format!("frame {index} is spoilt, {why}")),
                Err(changed) => transfer.fail(&changed.to_string()),
            },
        }
    }

    /// It is of no use any more.
    pub fn forget(&self, transfer: &Transfer, why: &str) {
        let directory = self.directory.display();
        let _ = std::fs::remove_dir_all(&self.directory);
        transfer.fail(&format!(
            "what was remembered of it in {directory} is forgotten: {why}; send it again, and it is made anew"
        ));
    }

    fn mend(
        &self,
        transfer: &Transfer,
        index: u32,
        entry: &Entry,
        place: &Place,
    ) -> Result<(), Bad> {
        let len = transfer.header.frame_len(index) as usize;
        let mut frame = vec![0; len];
        let read = self
            .source
            .read_exact_at(&mut frame, u64::from(index) * u64::from(FRAME));
        read.map_err(|why| Bad(format!("and cannot be read again: {why}")))?;
        let other = || Bad("and is not made again as it was".to_owned());
        let is_it = *blake3::hash(&frame).as_bytes() == entry.hash;
        let stored = match entry.encoding {
            Encoding::Zstd if is_it => packed(&frame, entry),
            // Of a file the bytes themselves are other ones; they are never written to.
            Encoding::Raw if is_it && self.source.is_tree() => Some(frame),
            _ => None,
        };
        let stored = stored.ok_or_else(other)?;
        let written = place.file.write_all_at(&stored, place.offset);
        let written = written.and_then(|()| place.file.sync_data());
        written.map_err(|why| Bad(format!("and cannot be written again: {why}")))
    }
}

fn is_good(entry: &Entry, place: &Place) -> bool {
    let mut stored = vec![0; place.len as usize];
    let read = place.file.read_exact_at(&mut stored, place.offset);
    read.is_ok() && *blake3::hash(&stored).as_bytes() == entry.stored_hash
}

/// The frame compressed as it was: at one of the levels that there are. None, if that was done by another zstd.
fn packed(frame: &[u8], entry: &Entry) -> Option<Vec<u8>> {
    let is_it = |packed: &Vec<u8>| *blake3::hash(packed).as_bytes() == entry.stored_hash;
    let mut tries = level::all().filter_map(|level| zstd::bulk::compress(frame, level).ok());
    tries.find(is_it)
}
