//! What came earlier of a transfer, and whether it is what it should be.

use super::{Files, beside};
use crate::manifest::{Encoding, FRAME, counted, number};
use crate::pull;
use crate::rereading::Rereading;
use crate::sign::Key;
use crate::transfer::Transfer;
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;

impl Files {
    /// Looks at what came earlier: pages by their signatures, frames by their hashes. What is not right is cleared.
    pub(super) fn resume(
        &self,
        transfer: &Transfer,
        key: &Key,
        reading: &Rereading,
    ) -> io::Result<u64> {
        let file = beside(&self.directory, &self.name, "pages");
        let pages = std::fs::read(&file).unwrap_or_default();
        let mut rest = pages.as_slice();
        while let Some((page, after)) = counted(rest) {
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
        let (places, end) = self.spooled(transfer, reading)?;
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
                    reading.one_more()?;
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
        reading: &Rereading,
    ) -> io::Result<(HashMap<u32, u64>, u64)> {
        let mut places = HashMap::new();
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
            reading.one_more()?;
            let entry = transfer.entry(index);
            if entry.is_some_and(|e| e.stored_hash == *blake3::hash(&bytes).as_bytes()) {
                places.insert(index, at + 8);
            }
            at += 8 + u64::from(stored);
        }
        self.spool.set_len(at)?;
        Ok((places, at))
    }
}
