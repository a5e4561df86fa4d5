//! Which file it is, whatever its name.

use rustix::fs::{AtFlags, StatxFlags, statx};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;

/// A file, for as long as it is there. A file system gives an inode's number again once it is free, so that the moment of
/// birth belongs to it; where none is kept, the device does, whose number may be another after the next boot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// Major and minor number.
    device: (u32, u32),
    inode: u64,
    /// Seconds and nanoseconds since 1970 (UTC).
    born: Option<(i64, u32)>,
}

impl Identity {
    pub fn of(file: &File) -> io::Result<Self> {
        let wanted = StatxFlags::INO | StatxFlags::BTIME;
        let found = statx(file, "", AtFlags::EMPTY_PATH, wanted)?;
        let has_birth = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::BTIME);
        Ok(Self {
            device: (found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
            born: has_birth.then_some((found.stx_btime.tv_sec, found.stx_btime.tv_nsec)),
        })
    }

    /// Is this the same file?
    pub fn is(&self, other: &Self) -> bool {
        self.inode == other.inode
            && match (self.born, other.born) {
                (Some(one), Some(two)) => one == two,
                _ => self.device == other.device,
            }
    }
}
