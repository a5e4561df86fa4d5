//! Doors for fuzz/run to what reads bytes of others and is no interface. In no other build.

use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::{self, Write};

/// The first bytes of a disk image.
pub fn image(bytes: &[u8]) -> io::Result<()> {
    let mut file = File::from(memfd_create("image", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    let header = crate::disk::header::read(&file)?;
    crate::disk::header::is_iso(&file)?;
    // A format of ours is none of the others.
    assert!(header.format.is_none() || header.foreign.is_none());
    Ok(())
}

/// What QEMU, which a guest may have taken over, wrote about itself.
pub fn journal(bytes: &[u8]) {
    let journal = crate::journal::Journal::parse(bytes);
    assert!(!(journal.ended_well() && journal.panicked));
}
