//! Whose place a file or a tree may take.
//!
//! It is looked at when it is offered, so that nothing comes in vain, and again when it gets its name: hours may be between.

use super::{Files, header_of};
use crate::authority;
use crate::manifest::Header;
use crate::mounts;
use crate::seen::Seen;
use std::io;
use std::path::Path;

/// It may not take the place of what is there. The words are for people, and say what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

fn refused(why: String) -> io::Error {
    io::Error::other(Refused(why))
}

/// Is this why it cannot be had?
pub fn is_refused(e: &io::Error) -> bool {
    e.get_ref().is_some_and(|inner| inner.is::<Refused>())
}

/// Why what came here before is not replaced by something older. `same`: it is still as it came.
pub fn newer(old: &Header, same: bool, new: &Header) -> String {
    let when = |header: &Header| authority::when_nanos(header.created);
    format!(
        "what {} is newer: made {} by its source's clock, this one {}; send --anew puts this one in its place",
        if same { "is here" } else { "came here last" },
        when(old),
        when(new)
    )
}

/// Why what is there stays. `known`: it came here once, and is no longer what it was then.
pub fn stays(target: &Path, known: bool) -> String {
    format!(
        "{} {}; --replace puts this in its place",
        target.display(),
        match known {
            true => "was changed since it came",
            false => "is there and did not come from here",
        }
    )
}

/// Not even to be replaced: there may be more in it than somebody thinks of.
pub fn directory(target: &Path) -> String {
    format!("{} is a directory", target.display())
}

/// Something is mounted in the tree that is there.
pub fn mounted(target: &Path) -> io::Result<()> {
    match target.symlink_metadata().is_ok_and(|data| data.is_dir()) {
        true => match mounts::inside(target)? {
            None => Ok(()),
            Some(place) => Err(refused(format!(
                "something is mounted on {}, which would go: unmount it, then send again",
                place.display()
            ))),
        },
        false => Ok(()),
    }
}

/// Somebody who shares this directory may have brought something newer meanwhile. To be called with the lock.
pub(super) fn is_newest(directory: &Path, header: &Header) -> io::Result<()> {
    match header_of(directory, &header.name) {
        Some(old) if old.created > header.created => {
            let same = Seen::read(directory, &header.name, |_| true).is_some();
            Err(refused(newer(&old, same, header)))
        }
        _ => Ok(()),
    }
}

impl Files {
    /// What is there is replaced, wherever it came from.
    pub fn replace(&mut self) {
        self.replace = true;
    }

    /// May it get its name? Says whether nothing has that.
    pub(super) fn may_take(&self, target: &Path) -> io::Result<bool> {
        let data = match target.symlink_metadata() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
            other => other?,
        };
        let known = header_of(&self.directory, &self.name).is_some();
        if data.is_dir() && !known {
            return Err(refused(directory(target)));
        }
        if !self.replace && Seen::read(&self.directory, &self.name, |_| true).is_none() {
            return Err(refused(stays(target, known)));
        }
        mounted(target)?;
        Ok(false)
    }
}
