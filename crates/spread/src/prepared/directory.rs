//! The directory with all that is remembered: who may begin and end there, and what has to go.

use super::begun;
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Files that are remembered; the ones that were made longest ago are forgotten.
pub(super) const KEPT: usize = 8;

/// Makes sure that the names in a directory are on the disk.
pub(super) fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Waits until nobody else begins one here, or ends it, as long as this is held.
pub(super) fn alone(directory: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let lock = options.open(directory.join("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    Ok(lock)
}

/// What is in it.
pub(super) fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    entries.flatten().map(|entry| entry.path())
}

/// What is remembered, and when it was made, the oldest first.
fn by_age(directory: &Path) -> Vec<(SystemTime, PathBuf)> {
    let made = |path: PathBuf| {
        let time = std::fs::metadata(path.join("head.json")).and_then(|data| data.modified());
        time.ok().map(|time| (time, path))
    };
    let mut all: Vec<(SystemTime, PathBuf)> = entries(directory).filter_map(made).collect();
    all.sort();
    all
}

/// Is there one less now? Whoever sends it has it open, and goes on.
pub(super) fn forget_oldest(directory: &Path) -> io::Result<bool> {
    let _alone = alone(directory)?;
    if begun::forget_one(directory)? {
        return Ok(true);
    }
    match by_age(directory).into_iter().next() {
        Some((_, oldest)) => std::fs::remove_dir_all(oldest).map(|()| true),
        None => Ok(false),
    }
}

/// Forgets what is more than is kept.
pub(super) fn prune(directory: &Path) {
    let all = by_age(directory);
    let many = all.len().saturating_sub(KEPT);
    for (_, path) in all.into_iter().take(many) {
        let _ = std::fs::remove_dir_all(path);
    }
}
