//! Owner, rights, attributes and time of what is unpacked, as far as whoever unpacks may give them.

use crate::tar::{Entry, Kind, shown};
use crate::tree::is_kept;
use rustix::fs::{AtFlags, Gid, Mode, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// Whoever is not root has his own files: these would act for him.
const ACTS_FOR_OWNER: u32 = 0o6000;

/// What whoever unpacks may give to files.
#[derive(Clone, Copy)]
pub struct Rights {
    is_root: bool,
}

impl Rights {
    pub fn of_this_process() -> Self {
        let is_root = rustix::process::geteuid().is_root();
        Self { is_root }
    }

    /// Owner, rights, attributes and time of an open file or directory, in the order in which they do not undo each other.
    pub fn dress(self, file: &impl AsFd, entry: &Entry) -> io::Result<()> {
        if let Some((user, group)) = self.owner(entry) {
            rustix::fs::fchown(file, Some(user), Some(group))?;
        }
        // Only who may write to a file may give it attributes of users.
        let (users, others): (Vec<_>, Vec<_>) =
            (entry.attributes.iter()).partition(|(name, _)| name.starts_with(b"user."));
        self.give(file, users)?;
        rustix::fs::fchmod(file, self.mode(entry))?;
        self.give(file, others)?;
        Ok(rustix::fs::futimens(file, &times(entry.modified))?)
    }

    /// Is this what was dressed so? Times count in seconds: there are file systems that have no parts of them.
    pub fn has(self, entry: &Entry, stat: &Stat) -> bool {
        // A time that a file system has no room for becomes its first or its last one.
        let ends = [i32::MIN, i32::MAX].map(i64::from);
        let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        let is_link = matches!(entry.kind, Kind::Symlink(_));
        (is_link || Mode::from_raw_mode(stat.st_mode & 0o7777) == self.mode(entry))
            && self.owner(entry).is_none_or(|mine| mine == owner)
            && (stat.st_mtime == entry.modified.0 || ends.contains(&stat.st_mtime))
    }

    /// The same as [`Rights::dress`] for a directory that was another version: what it has and is not to have goes.
    pub fn dress_anew(self, file: &impl AsFd, before: &Entry, entry: &Entry) -> io::Result<()> {
        // Attributes of users are only given to what may be written to.
        self.open_up(file)?;
        for (name, _) in &before.attributes {
            let stays = entry.attributes.iter().any(|(other, _)| other == name);
            if !stays && is_kept(name) {
                match rustix::fs::fremovexattr(file, name.as_slice()) {
                    // It was not given to it: this process may not.
                    Ok(()) | Err(Errno::NODATA) => {}
                    Err(e) => return Err(e.into()),
                }
            }
        }
        self.dress(file, entry)
    }

    /// Lets whoever is not root change what is in a directory of his, and move it.
    pub fn open_up(self, directory: &impl AsFd) -> io::Result<()> {
        if self.is_root {
            return Ok(());
        }
        let mode = rustix::fs::fstat(directory)?.st_mode & 0o7777;
        if mode & 0o700 != 0o700 {
            let mode = Mode::from_raw_mode(mode | 0o700);
            rustix::fs::chmodat(directory, c".", mode, AtFlags::empty())?;
        }
        Ok(())
    }

    fn give(self, file: &impl AsFd, attributes: Vec<&(Vec<u8>, Vec<u8>)>) -> io::Result<()> {
        for (name, value) in attributes {
            let refused = |why: &str| {
                let why = format!("attribute {}: {why}", shown(name));
                io::Error::new(io::ErrorKind::InvalidData, why)
            };
            if !is_kept(name) {
                return Err(refused("it is not one of a tree"));
            }
            if name == b"security.capability" && !self.is_root {
                continue;
            }
            rustix::fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty())
                .map_err(|e| refused(&e.to_string()))?;
        }
        Ok(())
    }

    /// None: it is not for this process to say.
    pub(super) fn owner(self, entry: &Entry) -> Option<(Uid, Gid)> {
        // Of these two the system calls mean "as it is".
        let known = entry.user != u32::MAX && entry.group != u32::MAX;
        let owner = || (Uid::from_raw(entry.user), Gid::from_raw(entry.group));
        (self.is_root && known).then(owner)
    }

    pub(super) fn mode(self, entry: &Entry) -> Mode {
        let mut mode = entry.mode;
        if !self.is_root {
            mode &= !ACTS_FOR_OWNER;
            if entry.kind == Kind::Directory {
                // Whoever cannot look into it cannot know the tree again, nor make the next version of it.
                mode |= 0o500;
            }
            if entry.path.is_empty() {
                // Without, it could not be moved to its place.
                mode |= 0o700;
            }
        }
        Mode::from_raw_mode(mode)
    }
}

/// Gives a tree its time: seconds since 1970, and nanoseconds after these.
pub fn set_time(tree: &Path, (seconds, nanos): (i64, i64)) -> io::Result<()> {
    let nanos = u32::try_from(nanos).unwrap_or_default();
    let link = AtFlags::SYMLINK_NOFOLLOW;
    Ok(rustix::fs::utimensat(
        rustix::fs::CWD,
        tree,
        &times((seconds, nanos)),
        link,
    )?)
}

/// As system calls take it: seconds since 1970, and nanoseconds after these.
pub(super) fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: seconds,
            tv_nsec: nanos.into(),
        },
    }
}
