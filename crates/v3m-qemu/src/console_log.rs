//! The bound of a console's log.
//!
//! QEMU appends to it for as long as the guest prints, and can be told neither a bound nor to begin another file. So at
//! each start the VM's past is cut to its last part: what is before becomes a hole in the file (fallocate(2)), which
//! takes no room and keeps the length, so that whoever remembers a place in the log finds it.

use rustix::fs::{FallocateFlags, fallocate};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// So much of what was printed is kept from one start to the next.
const KEPT: u64 = 16 << 20;

/// Lets go of what the log's beginning holds on the disk; it reads as zeros then.
pub fn trim(log: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let file = match options.write(true).custom_flags(libc::O_NOFOLLOW).open(log) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let gone = file.metadata()?.len().saturating_sub(KEPT);
    if gone == 0 {
        return Ok(());
    }
    let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match fallocate(&file, how, 0, gone) {
        // A file system that has no holes keeps the whole log.
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn a_long_log_keeps_its_length_and_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("console.log");
        trim(&log).unwrap();
        let length = KEPT + (8 << 20);
        std::fs::write(&log, vec![b'x'; length as usize]).unwrap();
        trim(&log).unwrap();
        let file = std::fs::File::open(&log).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), length);
        assert!(metadata.blocks() * 512 <= KEPT + (1 << 20));
        let mut byte = [0];
        file.read_exact_at(&mut byte, length - KEPT).unwrap();
        assert_eq!(&byte, b"x");
    }
}
