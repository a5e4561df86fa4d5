//! The tree as an ext4 file system, filled without mounting it (mke2fs -d).
//!
//! It keeps its journal: nodes are killed and must come up again without a check. Its group descriptors have room to grow
//! to 1 TiB while mounted: a node's overlay is larger than the image and the guest takes the rest at boot. Times, UUID and
//! hash seed are fixed, so that equal trees give disks that differ in nothing that matters.

use crate::apt::disk_full;
use crate::sandbox::Sandbox;
use crate::{Error, Result};
use std::ffi::OsString;
use std::fs::File;
use std::path::Path;

const UUID: &str = "05ca2f00-0000-4000-8000-000000000001";
const BLOCK: u64 = 4096;
const MIB: u64 = 1 << 20;

/// How large the file system must be, in bytes, for so many files with so many bytes in whole blocks.
pub(crate) fn size(files: u64, bytes: u64) -> u64 {
    let inodes = files * 256;
    let journal = 16 * MIB;
    // One sixteenth for what mke2fs lays out, 64 MiB so that a node can boot before it has grown.
    let size = bytes + inodes + journal + (bytes + inodes) / 16 + 64 * MIB;
    // At least as many inodes as files, at one for 8 KiB, and some to spare.
    let for_inodes = (files + files / 4) * 8192;
    size.max(for_inodes)
        .max(128 * MIB)
        .next_multiple_of(4 * MIB)
}

/// Makes `disk` from the tree `root`.
pub(crate) fn make(
    sandbox: &Sandbox,
    root: &Path,
    disk: &Path,
    size: u64,
    state: &Path,
) -> Result<()> {
    let file = File::create_new(disk).map_err(Error::io(disk))?;
    file.set_len(size).map_err(Error::io(disk))?;
    // resize=: blocks the descriptors can grow to while mounted.
    let growth = (1u64 << 40) / BLOCK;
    let extended = format!(
        "hash_seed={UUID},root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0,nodiscard,resize={growth}"
    );
    let mut arguments: Vec<OsString> = [
        "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-i", "8192",
    ]
    .into_iter()
    .chain([
        "-m",
        "1",
        "-L",
        "oscarv-root",
        "-U",
        UUID,
        "-J",
        "size=16",
        "-E",
        &extended,
        "-d",
    ])
    .map(OsString::from)
    .collect();
    arguments.push(root.into());
    arguments.push(disk.into());
    match sandbox.run("mke2fs", &arguments, |_| {})? {
        Ok(()) => Ok(()),
        Err(failed) => Err(
            disk_full(&failed.lines, state, size / MIB).unwrap_or_else(|| {
                sandbox.step(
                    "making the disk",
                    &failed.status,
                    failed.lines.join("\n           "),
                )
            }),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_for_all() {
        for (files, bytes) in [
            (0, 0),
            (30_000, 400 * MIB),
            (500_000, 500 * MIB),
            (10, 4 << 30),
        ] {
            let size = size(files, bytes);
            assert!(
                size > bytes + 64 * MIB && size / 8192 > files,
                "{files} {bytes} {size}"
            );
            assert_eq!(size % BLOCK, 0);
        }
    }
}
