//! The kernel out of the image's /boot, and out of its compressed shell.
//!
//! A bzImage unpacks itself in the guest. Unpacked here, once, it is an ELF file that QEMU and Xen start directly through
//! its PVH entry (Linux: Documentation/arch/x86/boot.rst, CONFIG_PVH): under TCG every boot is faster by that time.
//! Where that cannot be had (other architectures and compressions, no PVH entry) the kernel stays as it is.

use crate::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) struct Kernel {
    pub release: String,
    pub bytes: Vec<u8>,
    /// Is it the unpacked ELF file?
    pub unpacked: bool,
}

/// The newest kernel in the tree `root`.
pub(crate) fn find(root: &Path) -> Result<Kernel> {
    let boot = root.join("boot");
    let mut found: Vec<(Vec<Part>, String, PathBuf)> = Vec::new();
    if let Ok(entries) = fs::read_dir(&boot) {
        for entry in entries {
            let entry = entry.map_err(Error::io(&boot))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let release = name
                .strip_prefix("vmlinuz-")
                .or_else(|| name.strip_prefix("vmlinux-"));
            if let Some(release) = release {
                found.push((version(release), release.to_owned(), entry.path()));
            }
        }
    }
    found.sort();
    let (_, release, path) = found.pop().ok_or(Error::NoKernel)?;
    let packed = fs::read(&path).map_err(Error::io(&path))?;
    Ok(match unpack(&packed).filter(|elf| has_pvh_entry(elf)) {
        Some(bytes) => Kernel {
            release,
            bytes,
            unpacked: true,
        },
        None => Kernel {
            release,
            bytes: packed,
            unpacked: false,
        },
    })
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Text(String),
    Number(u64),
}

/// Numbers compare as numbers: 6.1.0-9 is older than 6.1.0-56.
fn version(release: &str) -> Vec<Part> {
    release
        .split(['.', '-', '+', '~'])
        .map(|part| {
            part.parse()
                .map_or_else(|_| Part::Text(part.to_owned()), Part::Number)
        })
        .collect()
}

/// The vmlinux inside a bzImage (boot protocol 2.08 and later) that is packed with LZ4.
fn unpack(image: &[u8]) -> Option<Vec<u8>> {
    if image.get(0x202..0x206)? != b"HdrS"
        || u16::from_le_bytes(image.get(0x206..0x208)?.try_into().ok()?) < 0x208
    {
        return None;
    }
    let word =
        |at: usize| Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?) as usize);
    let setup_sectors = match *image.get(0x1f1)? {
        0 => 4,
        n => usize::from(n),
    };
    let start = (setup_sectors + 1) * 512 + word(0x248)?;
    let payload = image.get(start..start.checked_add(word(0x24c)?)?)?;
    // The last four bytes are the unpacked size.
    let (packed, size) = payload.split_at_checked(payload.len().checked_sub(4)?)?;
    let size = u32::from_le_bytes(size.try_into().ok()?) as usize;
    lz4_legacy(packed, size).filter(|elf| elf.starts_with(b"\x7fELF"))
}

/// LZ4's legacy frame (doc/lz4_Frame_format.md in lz4): blocks of at most 8 MiB, each after its packed size.
fn lz4_legacy(mut packed: &[u8], size: usize) -> Option<Vec<u8>> {
    const BLOCK: usize = 8 << 20;
    // More than any kernel: a damaged size must not take all memory.
    if !packed.starts_with(&[0x02, 0x21, 0x4c, 0x18]) || size > 512 << 20 {
        return None;
    }
    packed = &packed[4..];
    let mut unpacked = Vec::with_capacity(size);
    while unpacked.len() < size {
        let length = u32::from_le_bytes(packed.get(..4)?.try_into().ok()?) as usize;
        let block = packed.get(4..length.checked_add(4)?)?;
        unpacked.extend(lz4_flex::block::decompress(block, BLOCK).ok()?);
        packed = &packed[4 + length..];
    }
    (unpacked.len() == size).then_some(unpacked)
}

/// Does the ELF file have Xen's note 18, XEN_ELFNOTE_PHYS32_ENTRY?
fn has_pvh_entry(elf: &[u8]) -> bool {
    let note = [
        &4u32.to_le_bytes()[..],
        &[0; 4],
        &18u32.to_le_bytes(),
        b"Xen\0",
    ]
    .concat();
    elf.windows(note.len())
        .any(|w| w[0] == 4 && w[..4] == note[..4] && w[8..] == note[8..] && matches!(w[4], 4 | 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest() {
        assert!(version("6.1.0-9-amd64") < version("6.1.0-56-amd64"));
        assert!(version("6.1.0-56-amd64") < version("6.12.1-1-amd64"));
    }

    #[test]
    fn damaged_kernels_are_left_alone() {
        assert_eq!(unpack(b""), None);
        assert_eq!(unpack(&[0; 4096]), None);
        let mut image = vec![0u8; 2048];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
        image[0x248..0x250].fill(0xff);
        assert_eq!(unpack(&image), None);
    }

    #[test]
    fn no_kernel() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(find(root.path()), Err(Error::NoKernel)));
    }
}
