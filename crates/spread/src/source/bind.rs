//! The thread that puts the frames that were made in order, binds them into pages, and signs these.

use super::Wrong;
use super::make::{Made, Maker};
use crate::manifest::{Bad, PAGE_FRAMES, Page};
use crate::prepared::{self, Half};
use crate::sign::Signer;
use std::io;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Pages are no more often than that, if they are not full, nor before children have got through all but so many frames of
/// those before: each host checks two signatures of each.
const PAGES: Duration = Duration::from_millis(10);
const STOCK: u32 = 8;

fn spooling(why: io::Error) -> Bad {
    Bad(format!("writing the spool: {why}"))
}

impl Maker {
    /// Ends when all frames are in pages, or the transfer has failed.
    pub(super) fn bind(&self, signer: &Signer, mut half: Half) -> Result<(), Wrong> {
        let frames = self.transfer.header.frames();
        let (mut first, mut next) = (self.transfer.known().1, Instant::now());
        // Frames with bytes that are in pages.
        let mut paged = self.before.0;
        while first < frames {
            // What is known of each, and where its bytes are. These are kept before the page is, and that before anybody hears
            // of it: whoever goes on with this has both.
            let mut made = Vec::new();
            while made.len() < PAGE_FRAMES && first + (made.len() as u32) < frames {
                let wanted = || {
                    let taken = self.transfer.reached().taken;
                    Instant::now() >= next && taken + STOCK > paged
                };
                let index = first + made.len() as u32;
                match self.take(index, made.is_empty(), wanted) {
                    Some(Ok(Made { entry, packed })) => {
                        let spooled = (!packed.is_empty()).then(|| half.spool(index, &packed));
                        made.push((entry, spooled.transpose().map_err(spooling)?));
                    }
                    Some(Err(why)) => {
                        // There is less of it than there was? Of a tree the error itself says so.
                        let changed = match self.source.is_tree() {
                            true => None,
                            false => half.same(&self.source).err(),
                        };
                        return Err(changed.unwrap_or(Bad(format!("reading: {why}"))))?;
                    }
                    None if made.is_empty() || self.transfer.failed().is_some() => {
                        half.leave(&self.transfer, &self.source);
                        return Ok(());
                    }
                    None => break,
                }
            }
            let page = Page {
                first,
                entries: made.iter().map(|(entry, _)| *entry).collect(),
            };
            let wire = prepared::sign_page(&self.transfer, signer, &page);
            half.page(&wire).map_err(spooling)?;
            self.transfer.add_page(&page, wire.into());
            for (index, (entry, at)) in (first..).zip(made) {
                if entry.stored > 0 {
                    self.transfer.good(index, at);
                    paged += 1;
                }
            }
            first += page.entries.len() as u32;
            next = Instant::now() + PAGES;
        }
        half.same(&self.source)?;
        let seal = prepared::seal(&self.transfer, signer)?;
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
