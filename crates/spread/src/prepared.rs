//! What a source remembers of a file that it has sent: the manifest and the compressed frames. The next time nothing is
//! to be computed, and hosts know that they have it.
//!
//! ```text
//! DIR/ID/head.json   header, signatures, and what the file looked like
//! DIR/ID/pages       the pages, each after its length (u32)
//! DIR/ID/spool       the compressed frames, each after its number and its length (u32)
//! DIR/ID/blocks      a hash of each block of 4 KiB: what the next version may have in common with it; of a
//!                    tree length and hash of each chunk
//! DIR/*.half/        one that is being made, by whoever has its lock; with `begun.json` it can be gone on with
//! DIR/lock           held while one begins or ends
//! ```

mod begun;
mod directory;
mod half;
mod remembered;
mod renew;
mod stamp;
mod stored;

pub use begun::resume;
pub use half::Half;
pub use remembered::Remembered;
pub use renew::renew;
pub use stamp::Stamp;
pub use stored::{seal, sign_page};

use crate::content::Content;
use crate::manifest::{Header, content};
use crate::sign::Key;
use crate::transfer::{Stock, Transfer};
use crate::{blocks, chunks};
use directory::entries;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use stored::{find_frames, next_page, take_pages};

#[derive(Serialize, Deserialize)]
struct Head {
    header: String,
    signature: String,
    seal: String,
    key: String,
    stamp: Stamp,
    /// What others are like it that are called otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kin: Option<String>,
    /// Hash of the pages, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pages: Option<String>,
}

/// One that is remembered.
struct Known {
    directory: PathBuf,
    head: Head,
    header: Header,
}

/// All that is remembered with this key, the newest first.
fn known(directory: &Path, key: &str) -> Vec<Known> {
    let read = |directory: PathBuf| {
        let head = std::fs::read(directory.join("head.json")).ok()?;
        let head: Head = serde_json::from_slice(&head).ok()?;
        let header = Header::read(&head.header).ok()?;
        (head.key == key).then_some(Known {
            directory,
            head,
            header,
        })
    };
    // One that is not at its end yet is none, though it may look so already.
    let whole = entries(directory).filter(|path| path.extension().is_none());
    let mut all: Vec<Known> = whole.filter_map(read).collect();
    all.sort_by_key(|known| std::cmp::Reverse(known.header.created));
    all
}

/// When a file that looks like this was made, by what is remembered of it: nanoseconds since 1970. If nothing is, or `anew`,
/// it is made now, and after all others of this name, also where this host's clock was ahead once.
pub fn made(directory: &Path, name: &str, stamp: &Stamp, key: &str, anew: bool) -> u64 {
    let all = known(directory, key);
    let mut of_name = all.iter().filter(|known| known.header.name == name);
    let (begun, newest_begun) = begun::made(directory, name, stamp, key);
    let newest = of_name.clone().next().map(|known| known.header.created);
    let newest = newest.max(newest_begun);
    let same = of_name.find(|known| known.head.stamp == *stamp);
    if let Some(same) = same.map(|known| known.header.created).or(begun)
        && !anew
    {
        return same;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_nanos() as u64;
    now.max(newest.map_or(0, |newest| newest.saturating_add(1)))
}

/// A version that hosts may have.
pub enum Base {
    File(blocks::Base),
    Tree(chunks::Base),
}

/// The newest version of this name that is another one than this file is now; if there is none, the newest of its kin.
fn before(
    directory: &Path,
    name: &str,
    kin: Option<&str>,
    source: &Content,
    key: &str,
) -> Option<Known> {
    let now = source.stamp().ok()?;
    let mut all = known(directory, key);
    all.retain(|known| known.head.stamp != now);
    let named = all.iter().position(|known| known.header.name == name);
    let alike = |known: &Known| kin.is_some() && known.head.kin.as_deref() == kin;
    let at = named.or_else(|| all.iter().position(alike))?;
    // A file is not made from a tree, nor the other way around.
    let known = all.swap_remove(at);
    (known.header.tree == source.is_tree()).then_some(known)
}

/// Header and signature of the version that this file may be made from.
pub fn base_offer(
    directory: &Path,
    name: &str,
    kin: Option<&str>,
    source: &Content,
    key: &str,
) -> Option<(String, String)> {
    let known = before(directory, name, kin, source, key)?;
    Some((known.head.header, known.head.signature))
}

/// The version that this file may be made from.
pub fn base(
    directory: &Path,
    name: &str,
    kin: Option<&str>,
    source: &Content,
    key: &str,
) -> Option<Base> {
    let known = before(directory, name, kin, source, key)?;
    let blocks = known.directory.join("blocks");
    if let Some(version) = known.header.version.clone() {
        let remembered = std::fs::read(blocks).ok()?;
        return Some(Base::Tree(chunks::Base::new(version, &remembered)?));
    }
    let pages = std::fs::read(known.directory.join("pages")).ok()?;
    let mut frames = Vec::new();
    let mut rest = pages.as_slice();
    while !rest.is_empty() {
        let (page, _) = next_page(&mut rest, &known.header)?;
        frames.extend(page.entries.iter().map(|entry| entry.hash));
    }
    let size = known.header.size;
    let content = content(size, frames.iter().copied());
    let hashes = File::open(blocks).ok()?;
    let base = blocks::Base::read(content, size, frames, &hashes).ok()?;
    Some(Base::File(base))
}

/// The transfer of a file as it was made before, if the file is still the same and the key, too. `created`: when it was
/// made. `from_base`: one that is made from another version, or one of the whole.
pub fn load(
    directory: &Path,
    name: &str,
    source: &Content,
    key: &str,
    created: u64,
    from_base: bool,
) -> Option<Transfer> {
    let now = source.stamp().ok()?;
    let found = known(directory, key).into_iter().find(|known| {
        known.header.name == name
            && known.head.stamp == now
            && known.header.created == created
            && known.header.base.is_some() == from_base
    });
    let Known {
        directory: place,
        head,
        header,
    } = found?;
    let read = read_known(&place, head, header, source, key).ok()?;
    if read.is_none() {
        // It would be found again and again.
        let _ = std::fs::remove_dir_all(place);
    }
    read
}

/// What is remembered there. None: it is not what was put there.
///
/// Errors: reading it.
fn read_known(
    place: &Path,
    head: Head,
    header: Header,
    source: &Content,
    key: &str,
) -> io::Result<Option<Transfer>> {
    let spool = place.join("spool");
    // What is spoilt there is put right, where that may be.
    let open = File::options().read(true).write(true).open(&spool);
    let stock = Stock {
        file: source.handle()?,
        spool: Arc::new(open.or_else(|_| File::open(&spool))?),
    };
    let spool = stock.spool.clone();
    let pages = std::fs::read(place.join("pages"))?;
    let is_signed = Key::read(key).is_ok_and(|key| {
        let title = "oscarv spread: header";
        key.check(head.header.as_bytes(), &head.signature, title)
            .is_ok()
    });
    let is_as_written = head.pages.is_none_or(|hash| hash == hash_of(&pages));
    let transfer = Transfer::new(header, head.header, head.signature, stock);
    if !is_signed
        || !is_as_written
        || take_pages(&transfer, &pages) != pages.len()
        || transfer.known().1 != transfer.header.frames()
        || find_frames(&transfer, &spool, source.is_tree())?.is_none()
    {
        return Ok(None);
    }
    transfer.seal(head.seal.into());
    let place = place.to_owned();
    Ok(Some(
        transfer.of(Remembered::new(place, source, head.stamp)),
    ))
}

fn hash_of(pages: &[u8]) -> String {
    blake3::hash(pages).to_hex().to_string()
}
