//! The thread that puts the frames that were made in order, binds them into pages, and signs these.

use super::Wrong;
use super::make::{Made, Maker};
use crate::manifest::{Bad, PAGE_FRAMES, Page};
use crate::prepared::Half;
use crate::pull::{manifest, manifest_title, page_title};
use crate::sign::Signer;
use std::io;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Pages are no more often than that, if they are not full, nor before children have got through all but so many frames of
/// those before: each host checks two signatures of each.
const PAGES: Duration = Duration::from_millis(4);
const STOCK: u32 = 8;

impl Maker {
    /// Ends when all frames are in pages, or the transfer has failed.
    pub(super) fn bind(&self, signer: &Signer, mut half: Half) -> Result<(), Wrong> {
        let frames = self.transfer.header.frames();
        let (mut first, mut next) = (0, Instant::now());
        // Frames with bytes that are in pages.
        let mut paged = 0;
        while first < frames {
            let mut made = Vec::new();
            while made.len() < PAGE_FRAMES && first + (made.len() as u32) < frames {
                let wanted = || {
                    let taken = self.transfer.reached().taken;
                    Instant::now() >= next && taken + STOCK > paged
                };
                match self.take(first + made.len() as u32, made.is_empty(), wanted) {
                    Some(Ok(one)) => made.push(one),
                    Some(Err(why)) => {
                        // There is less of it than there was? Of a tree the error itself says so.
                        let changed = match self.source.is_tree() {
                            true => None,
                            false => half.same(&self.source).err(),
                        };
                        return Err(changed.unwrap_or(Bad(format!("reading: {why}"))))?;
                    }
                    None if made.is_empty() || self.transfer.failed().is_some() => return Ok(()),
                    None => break,
                }
            }
            let page = Page {
                first,
                entries: made.iter().map(|made| made.entry).collect(),
            };
            let bytes = page.bytes(self.transfer.header.id);
            let signature = signer.sign(&bytes, &page_title(&self.transfer, first));
            let mut wire = (bytes.len() as u32).to_le_bytes().to_vec();
            wire.extend(bytes);
            wire.extend(signature.as_bytes());
            self.transfer.add_page(&page, wire.into());
            for (index, made) in (first..).zip(made) {
                let mut at = None;
                if !made.packed.is_empty() {
                    let spooled = half.spool(index, &made.packed);
                    at = Some(spooled.map_err(|why| Bad(format!("writing the spool: {why}")))?);
                }
                if made.entry.stored > 0 {
                    self.transfer.good(index, at);
                    paged += 1;
                }
            }
            first += page.entries.len() as u32;
            next = Instant::now() + PAGES;
        }
        half.same(&self.source)?;
        let seal = signer.sign(&manifest(&self.transfer)?, &manifest_title(&self.transfer));
        self.transfer.seal(seal.into());
        // It is on its way; without being remembered it is made again the next time.
        let _ = half.keep(&self.transfer, &self.source, &signer.key().to_string());
        Ok(())
    }

    /// The next frame. Nothing, if it is not ready, and `wanted` says that what is there is; unless nothing is (`first`).
    fn take(&self, index: u32, first: bool, wanted: impl Fn() -> bool) -> Option<io::Result<Made>> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(made) = ready.remove(&index) {
                return Some(made);
            }
            if self.transfer.failed().is_some() || !first && wanted() {
                return None;
            }
            let limit = Duration::from_millis(if first { 100 } else { 1 });
            let waited = self.came.wait_timeout(ready, limit);
            ready = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
