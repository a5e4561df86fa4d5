//! Files in places where others may be at work.
//!
//! Root works on files in directories of users, and who may write to a directory decides where a name in it leads, at any
//! moment. So a path is walked here step by step, and root goes over a link only if it is root's. What is found is a name in an
//! open directory ([`Place`]), or an open file: what was looked at is what is acted on. For an ordinary user a path is what it
//! is for every program: he has no rights but his own to lose.

mod directory;
mod identity;
mod place;

pub use directory::{lock, lock_made, own, sound};
pub use identity::Identity;
pub use place::Place;

use std::io::{self, ErrorKind, Write};
use std::path::Path;

/// The id that stands for all that a user namespace has no id for (user_namespaces(7)).
const OVERFLOW: u32 = 65534;

/// Are we root, here or in a user namespace?
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// May this user lead us? Root and we ourselves; in a user namespace also those outside, whose directories ours are in.
fn trusted(uid: u32) -> bool {
    uid == 0
        || uid == rustix::process::geteuid().as_raw()
        || (uid == OVERFLOW && in_namespace("/proc/self/uid_map"))
}

/// Has this map less than all ids?
fn in_namespace(map: &str) -> bool {
    let map = std::fs::read_to_string(map).unwrap_or_default();
    let words: Vec<&str> = map.split_whitespace().collect();
    !matches!(words[..], ["0", "0", "4294967295"])
}

/// Writes a private file that appears whole or not at all. A reader sees the old one or the new one.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let place = Place::of(path)?;
    let half = place.beside(Path::new(place.name()).with_extension("half").as_os_str());
    let made = half
        .made(0o600)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| half.renamed(&place));
    if made.is_err() {
        // Its own error would hide the one that counts.
        let _ = half.remove();
    }
    made
}

/// Removes a file, or the link that has its name. One that is not there is removed.
pub fn remove(path: &Path) -> io::Result<()> {
    match Place::of(path) {
        Ok(place) => place.remove(),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests;
