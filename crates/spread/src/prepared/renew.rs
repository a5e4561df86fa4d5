//! What is remembered of a file, as if it was made at another moment: its frames are the same, and all that is signed is
//! signed anew. Nothing is read of it nor compressed.

use super::directory::{alone, sync};
use super::stored::{seal, sign_page};
use super::{Head, Known, hash_of, known, read_known};
use crate::content::Content;
use crate::manifest::{Header, Id, PAGE_FRAMES, Page};
use crate::place::write_whole;
use crate::sign::Signer;
use crate::source::fill_random;
use crate::transfer::{Stock, Transfer};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Makes of what is remembered of all of this file what would be if it was made at this time, in its place.
///
/// Errors: nothing is remembered of it (`NotFound`); it could not be written.
pub fn renew(
    directory: &Path,
    name: &str,
    source: &Content,
    signer: &Signer,
    created: u64,
) -> io::Result<()> {
    let key = signer.key().to_string();
    let stamp = source.stamp()?;
    let found = known(directory, &key).into_iter().find(|known| {
        known.header.name == name && known.head.stamp == stamp && known.header.base.is_none()
    });
    let none = || io::Error::from(io::ErrorKind::NotFound);
    let Known {
        directory: place,
        head,
        header,
    } = found.ok_or_else(none)?;
    let (size, kin) = (header.size, head.kin.clone());
    let old = read_known(&place, head, header, source, &key)?;
    let old = old.ok_or_else(none)?;
    let mut id = [0; 16];
    fill_random(&mut id)?;
    let id = Id(id);
    let mut header = Header::new(id, name, size, created, None).map_err(io::Error::other)?;
    if let Content::Tree(tree) = source {
        header = header.of_tree(&tree.digest());
    }
    let line = header.line().map_err(io::Error::other)?;
    let proof = signer.sign(line.as_bytes(), "oscarv spread: header");
    let file = source.handle()?;
    let stock = Stock {
        spool: file.clone(),
        file,
    };
    let transfer = Transfer::new(header, line, proof, stock);
    let mut pages = Vec::new();
    let frames = transfer.header.frames();
    for first in (0..frames).step_by(PAGE_FRAMES) {
        let end = frames.min(first + PAGE_FRAMES as u32);
        let entries = (first..end).map(|index| old.entry(index).ok_or_else(none));
        let page = Page {
            first,
            entries: entries.collect::<io::Result<_>>()?,
        };
        let wire = sign_page(&transfer, signer, &page);
        pages.extend((wire.len() as u32).to_le_bytes());
        pages.extend(&wire);
        transfer.add_page(&page, wire.into());
    }
    let head = Head {
        seal: seal(&transfer, signer).map_err(io::Error::other)?,
        header: transfer.line,
        signature: transfer.proof,
        key,
        stamp,
        kin,
        pages: Some(hash_of(&pages)),
    };
    let _alone = alone(directory)?;
    let half = directory.join(format!("{id}.half"));
    std::fs::DirBuilder::new().mode(0o700).create(&half)?;
    let written = || {
        for same in ["spool", "blocks"] {
            std::fs::hard_link(place.join(same), half.join(same))?;
        }
        write_whole(&half.join("pages"), &pages)?;
        write_whole(&half.join("head.json"), &serde_json::to_vec(&head)?)?;
        sync(&half)?;
        std::fs::rename(&half, directory.join(id.to_string()))?;
        sync(directory)
    };
    if let Err(why) = written() {
        let _ = std::fs::remove_dir_all(&half);
        return Err(why);
    }
    // Whoever sends it at the moment has it open; what cannot be removed goes with time.
    let _ = std::fs::remove_dir_all(place);
    Ok(())
}
