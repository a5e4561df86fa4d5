//! Directories: whose they are, and one command at a time in them.

use crate::place::{Walk, walk};
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

/// Can nobody but root and us change what this path leads to? An error names the directory that stands against it. What is not
/// there yet is as its directory.
pub fn sound(path: &Path) -> io::Result<()> {
    walk(path, Walk::Strict).map(drop)
}

/// Is this directory, where it is there, ours and only ours to write to? As root the directories above it, too.
pub fn own(path: &Path) -> io::Result<()> {
    if crate::is_root() {
        sound(path)?;
    }
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    let refused = |reason: String| {
        let message = format!("{} {reason}", path.display());
        Err(io::Error::new(ErrorKind::PermissionDenied, message))
    };
    let (user, group) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    // A user's own group has mostly nobody else in it.
    let others = match user != 0 && metadata.gid() == group {
        true => 0o002,
        false => 0o022,
    };
    if !metadata.is_dir() {
        refused("is no directory".to_owned())
    } else if metadata.uid() != user {
        refused(format!("belongs to user {}", metadata.uid()))
    } else if metadata.mode() & others != 0 {
        refused("can be written to by others".to_owned())
    } else {
        Ok(())
    }
}

/// Waits for the lock on a directory, which ends with the returned file; none if there is no such directory.
pub fn lock(path: &Path) -> io::Result<Option<File>> {
    loop {
        let found = File::open(path).and_then(|directory| {
            directory.lock()?;
            // Whoever had the lock may have removed the directory, and another may have made it again.
            let (now, ours) = (fs::metadata(path)?, directory.metadata()?);
            Ok(((now.dev(), now.ino()) == (ours.dev(), ours.ino())).then_some(directory))
        });
        match found {
            Ok(Some(directory)) => return Ok(Some(directory)),
            Ok(None) => {}
            // Gone before it was opened, or while we waited for its lock.
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        }
    }
}

/// The same, of a directory that is made, with those above it, where it is missing.
pub fn lock_made(path: &Path, mode: u32) -> io::Result<File> {
    loop {
        DirBuilder::new().recursive(true).mode(mode).create(path)?;
        if let Some(lock) = lock(path)? {
            return Ok(lock);
        }
    }
}
