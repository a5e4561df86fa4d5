//! One file on its way, as a host has it: what is known of it, what is in memory, what is on disk.
//!
//! The source and every receiver have one. Bytes go to their place on disk as they come, and children get them from
//! there, also of the frame that is still coming: what is new is in the system's page cache, and `sendfile` takes it from
//! there without a copy. No byte of a frame is kept in memory for children.

mod frames;
mod next;

pub use next::{Cursor, Next};

use crate::manifest::{Encoding, Entry, Hash, Header, Page};
use crate::prepared::Remembered;
use frames::Frames;
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

pub struct Transfer {
    pub header: Header,
    /// The header's line and its signature.
    pub line: String,
    pub proof: String,
    stock: Stock,
    /// Hashes of the base's frames, at a receiver.
    base: Vec<Hash>,
    /// Where it is from, at a source that has made it before.
    pub(crate) remembered: Option<Remembered>,
    inner: Mutex<Inner>,
    changed: watch::Sender<()>,
    whole: watch::Sender<bool>,
}

/// Where frames are on disk: those stored as they are in the file itself, the others in the spool.
#[derive(Clone)]
pub struct Stock {
    pub file: Arc<File>,
    pub spool: Arc<File>,
}

/// A range of a file.
#[derive(Clone)]
pub struct Place {
    pub file: Arc<File>,
    pub offset: u64,
    pub len: u32,
}

#[derive(Default)]
struct Inner {
    pages: Vec<Arc<[u8]>>,
    entries: Vec<Entry>,
    /// Frames that are coming or not yet checked: how many bytes of them are on disk.
    live: HashMap<u32, u32>,
    /// Who has sent the bytes of frames that are coming or not yet checked; none: several parents.
    senders: HashMap<u32, Option<SocketAddr>>,
    /// The frame that comes in next.
    head: u32,
    /// Frames that are checked and on disk.
    good: Frames,
    spooled: HashMap<u32, u64>,
    /// Frames that came, and were not what they should be; they come again.
    bad: BTreeSet<u32>,
    /// Frames that ever were bad here: what children got of them was, too, and that is not this host's fault.
    once_bad: BTreeSet<u32>,
    seal: Option<Arc<str>>,
    failed: Option<Arc<str>>,
    reached: Reached,
    /// Bytes that have come in the flow, and of frames by themselves.
    received: u64,
    fetched: u64,
}

/// How far the furthest child is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reached {
    pub furthest: u32,
    /// Of the frames before that, those that have bytes, and these.
    pub taken: u32,
    pub bytes: u64,
}

impl std::fmt::Debug for Transfer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Transfer");
        shown.field("header", &self.header).finish_non_exhaustive()
    }
}

impl Transfer {
    pub fn new(header: Header, line: String, proof: String, stock: Stock) -> Self {
        Self {
            header,
            line,
            proof,
            stock,
            base: Vec::new(),
            remembered: None,
            inner: Mutex::default(),
            changed: watch::Sender::new(()),
            whole: watch::Sender::new(false),
        }
    }

    /// With a base, whose frames have these hashes.
    pub fn on(mut self, base: Vec<Hash>) -> Self {
        self.base = base;
        self
    }

    /// Hash of a frame of the base; zeros for one of zeros, or where it has none.
    pub fn base_hash(&self, index: u32) -> Hash {
        self.base.get(index as usize).copied().unwrap_or_default()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let (result, whole) = {
            let mut inner = self.inner();
            (change(&mut inner), inner.complete(&self.header))
        };
        self.changed.send_replace(());
        if whole {
            self.whole.send_replace(true);
        }
        result
    }

    /// Sees every change from now on.
    pub fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Takes the next page. `wire`: as it goes to children.
    pub fn add_page(&self, page: &Page, wire: Arc<[u8]>) {
        self.change(|inner| {
            debug_assert_eq!(page.first as usize, inner.entries.len());
            for (index, entry) in (page.first..).zip(&page.entries) {
                // What is as in the base has to be taken from there first, unless this is the source.
                if entry.stored == 0 && (entry.encoding == Encoding::Zero || self.base.is_empty()) {
                    inner.good.insert(index);
                }
            }
            inner.entries.extend_from_slice(&page.entries);
            inner.pages.push(wire);
        });
    }

    /// What is known of a frame.
    pub fn entry(&self, index: u32) -> Option<Entry> {
        self.inner().entries.get(index as usize).copied()
    }

    /// Hashes of all frames that are known.
    pub fn hashes(&self) -> Vec<Hash> {
        self.inner()
            .entries
            .iter()
            .map(|entry| entry.hash)
            .collect()
    }

    /// What the file or the tree is, in hexadecimal digits.
    pub fn content(&self) -> String {
        let hashes = || crate::manifest::content(self.header.size, self.hashes());
        let version = self.header.version.clone();
        version.unwrap_or_else(|| crate::manifest::hex(&hashes()))
    }

    /// Pages and frames that are known.
    pub fn known(&self) -> (u32, u32) {
        let inner = self.inner();
        (inner.pages.len() as u32, inner.entries.len() as u32)
    }

    /// Where the flow goes on: frame, and bytes of it that are here.
    pub fn position(&self) -> (u32, u32) {
        let mut inner = self.inner();
        inner.pass();
        let filled = inner.live.get(&inner.head).copied().unwrap_or(0);
        (inner.head, filled)
    }

    /// The parent passes over these frames: what is before `to` and not here comes later. Returns those.
    pub fn skip_to(&self, to: u32) -> Vec<u32> {
        self.change(|inner| {
            let mut skipped = Vec::new();
            while inner.head < to {
                let index = inner.head;
                let whole = inner.whole(index);
                if !inner.good.has(index) && !whole {
                    inner.forget(index);
                    inner.senders.remove(&index);
                    inner.is_bad(index);
                    skipped.push(index);
                }
                inner.head += 1;
            }
            skipped
        })
    }

    /// The frame at the head comes now. `spooled`: where in the spool it goes, if it is compressed.
    pub fn begin(&self, index: u32, spooled: Option<u64>) {
        let mut inner = self.inner();
        inner.spooled.extend(spooled.map(|at| (index, at)));
        inner.live.insert(index, 0);
    }

    /// What comes of this frame from now on is from this parent.
    pub fn comes_from(&self, index: u32, parent: SocketAddr) {
        let mut inner = self.inner();
        let begun = inner.live.get(&index).is_some_and(|here| *here > 0);
        let sender = match begun {
            true => inner.senders.get(&index).copied().flatten(),
            false => Some(parent),
        };
        let sender = sender.filter(|sender| *sender == parent);
        inner.senders.insert(index, sender);
    }

    /// Who has sent a frame that was found bad, if all of it came from one parent. To be asked once.
    pub fn sender(&self, index: u32) -> Option<SocketAddr> {
        self.inner().senders.remove(&index).flatten()
    }

    /// So many more bytes of a frame that has begun are on disk. Returns how many there are now.
    pub fn append(&self, index: u32, len: u32) -> u32 {
        self.change(|inner| {
            inner.received += u64::from(len);
            let filled = inner.live.entry(index).or_default();
            *filled += len;
            *filled
        })
    }

    /// A frame is on disk, and was found good. `spooled`: where in the spool it is.
    pub fn good(&self, index: u32, spooled: Option<u64>) {
        self.change(|inner| {
            inner.spooled.extend(spooled.map(|at| (index, at)));
            inner.good.insert(index);
            inner.bad.remove(&index);
            inner.forget(index);
            inner.senders.remove(&index);
        });
    }

    /// A frame that came is not what it should be.
    pub fn bad(&self, index: u32) {
        self.change(|inner| {
            inner.forget(index);
            inner.is_bad(index);
        });
    }

    /// Frames that are on disk from earlier, with their places in the spool.
    pub fn already(&self, frames: impl IntoIterator<Item = (u32, Option<u64>)>) {
        self.change(|inner| {
            for (index, spooled) in frames {
                inner.good.insert(index);
                inner.spooled.extend(spooled.map(|at| (index, at)));
            }
        });
    }

    pub fn is_good(&self, index: u32) -> bool {
        self.inner().good.has(index)
    }

    /// Was this frame ever bad here?
    pub fn was_bad(&self, index: u32) -> bool {
        self.inner().once_bad.contains(&index)
    }

    /// Frames that are good; all of them.
    pub fn count(&self) -> (u32, u32) {
        (self.inner().good.count, self.header.frames())
    }

    /// So many more bytes have come of frames that are fetched by themselves.
    pub fn fetched(&self, len: u32) {
        self.inner().fetched += u64::from(len);
    }

    /// Bytes that have come, good or not.
    pub fn received(&self) -> u64 {
        let inner = self.inner();
        inner.received + inner.fetched
    }

    /// Those that have come in the flow.
    pub fn flowed(&self) -> u64 {
        self.inner().received
    }

    pub fn reached(&self) -> Reached {
        self.inner().reached
    }

    pub fn seal(&self, signature: Arc<str>) {
        self.change(|inner| inner.seal = Some(signature));
    }

    pub fn sealed(&self) -> Option<Arc<str>> {
        self.inner().seal.clone()
    }

    /// Ends it; the first reason stays.
    pub fn fail(&self, why: &str) {
        self.change(|inner| {
            inner.failed.get_or_insert_with(|| why.into());
        });
    }

    pub fn failed(&self) -> Option<Arc<str>> {
        self.inner().failed.clone()
    }

    /// Is all here and checked, and the manifest's signature too?
    pub fn complete(&self) -> bool {
        self.inner().complete(&self.header)
    }

    /// Becomes true when it is complete.
    pub fn whole(&self) -> watch::Receiver<bool> {
        self.whole.subscribe()
    }

    /// The pages as they were signed, one after another, each after its length (u32): the manifest, without its header.
    pub fn pages(&self) -> Vec<Arc<[u8]>> {
        self.inner().pages.clone()
    }

    /// Where a good frame is on disk.
    pub fn place(&self, index: u32) -> Option<Place> {
        self.inner().place(index, &self.stock)
    }
}

impl Inner {
    fn complete(&self, header: &Header) -> bool {
        self.seal.is_some() && self.good.count == header.frames()
    }

    /// A child is here.
    fn reach(&mut self, frame: u32) {
        let passed = self.entries.iter().take(frame as usize);
        for entry in passed.skip(self.reached.furthest as usize) {
            self.reached.furthest += 1;
            self.reached.taken += u32::from(entry.stored > 0);
            self.reached.bytes += u64::from(entry.stored);
        }
    }

    /// Has all come that is sent of it?
    fn whole(&self, index: u32) -> bool {
        let here = self.live.get(&index).copied().unwrap_or(0);
        let entry = self.entries.get(index as usize);
        entry.is_some_and(|entry| here >= entry.stored)
    }

    /// Moves the head over what is here as a whole.
    fn pass(&mut self) {
        while self.good.has(self.head) || self.whole(self.head) || self.bad.contains(&self.head) {
            self.head += 1;
        }
    }

    fn is_bad(&mut self, index: u32) {
        self.bad.insert(index);
        self.once_bad.insert(index);
    }

    fn forget(&mut self, index: u32) {
        self.live.remove(&index);
    }

    /// First frame of a page that is here.
    fn first_of(&self, page: u32) -> u32 {
        let wire = &self.pages[page as usize];
        // Length, magic and id are before it.
        wire.get(24..28).map_or(0, crate::manifest::number)
    }

    fn place(&self, index: u32, stock: &Stock) -> Option<Place> {
        let entry = self.entries.get(index as usize)?;
        match self.spooled.get(&index) {
            Some(at) => Some(Place {
                file: stock.spool.clone(),
                offset: *at,
                len: entry.stored,
            }),
            None if entry.encoding == Encoding::Raw => Some(Place {
                file: stock.file.clone(),
                offset: u64::from(index) * u64::from(crate::manifest::FRAME),
                len: entry.stored,
            }),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests;
