//! Pages and frames as a source keeps them: all of a transfer that is remembered, or what there is of one that was begun.

use crate::manifest::{Bad, Header, Page, counted, number};
use crate::pull::{manifest, manifest_title, page_title, split_page};
use crate::sign::Signer;
use crate::transfer::Transfer;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Takes the next page of those that are remembered, with how it goes to children. None: it is no page of this.
pub(super) fn next_page<'a>(rest: &mut &'a [u8], header: &Header) -> Option<(Page, &'a [u8])> {
    let (wire, after) = counted(rest)?;
    *rest = after;
    let (bytes, _) = split_page(wire).ok()?;
    Some((Page::read(bytes, header).ok()?, wire))
}

/// Takes the pages that follow each other from the beginning on; says how many bytes they are.
pub(super) fn take_pages(transfer: &Transfer, pages: &[u8]) -> usize {
    let mut rest = pages;
    let mut used = 0;
    while let Some((page, wire)) = next_page(&mut rest, &transfer.header)
        && page.first == transfer.known().1
    {
        transfer.add_page(&page, wire.into());
        used = pages.len() - rest.len();
    }
    used
}

/// Finds the frames of these pages in the spool, which has to have all of them, in their order. Returns where the next one
/// goes; none: they are not there.
///
/// Errors: reading it.
pub(super) fn find_frames(
    transfer: &Transfer,
    spool: &File,
    is_tree: bool,
) -> io::Result<Option<u64>> {
    let (mut at, mut record) = (0, [0; 8]);
    let mut good = Vec::new();
    let len = spool.metadata()?.len();
    for index in 0..transfer.known().1 {
        let Some(entry) = transfer.entry(index) else {
            return Ok(None);
        };
        let mut spooled = None;
        if entry.encoding.is_packed() || is_tree && entry.stored > 0 {
            let end = at + 8 + u64::from(entry.stored);
            if end > len {
                return Ok(None);
            }
            spool.read_exact_at(&mut record, at)?;
            if (number(&record[..4]), number(&record[4..])) != (index, entry.stored) {
                return Ok(None);
            }
            spooled = Some(at + 8);
            at = end;
        }
        good.push((index, spooled));
    }
    transfer.already(good);
    Ok(Some(at))
}

/// A page as it goes to others: its length, itself, and its signature.
pub fn sign_page(transfer: &Transfer, signer: &Signer, page: &Page) -> Vec<u8> {
    let bytes = page.bytes(transfer.header.id);
    let signature = signer.sign(&bytes, &page_title(transfer, page.first));
    let mut wire = (bytes.len() as u32).to_le_bytes().to_vec();
    wire.extend(bytes);
    wire.extend(signature.as_bytes());
    wire
}

/// The manifest's signature. All pages have to be known.
pub fn seal(transfer: &Transfer, signer: &Signer) -> Result<String, Bad> {
    Ok(signer.sign(&manifest(transfer)?, &manifest_title(transfer)))
}
