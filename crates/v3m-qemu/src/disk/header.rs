//! What the first bytes of an image say: its format, and whether other files belong to it.
//!
//! Sources: qemu, docs/interop/qcow2.txt and block/vmdk.c; VMware, Virtual Disk Format 5.0; VirtualBox, VDICore.h; the magic
//! numbers of other formats and of packed files: file(1), magic(5).

use profile::DiskFormat;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Where QEMU looks for a VMDK's own description (block/vmdk.c: 20 sectors after the first).
const DESCRIPTION: std::ops::Range<usize> = 0x200..0x200 + 20 * 512;

pub struct Header {
    /// None: raw, or one that we do not read.
    pub format: Option<DiskFormat>,
    /// Its content is in other files, too, which it names.
    pub external: bool,
    /// The name of a format that we do not read.
    pub foreign: Option<&'static str>,
    /// It begins as a disk does: with a boot sector or partitions, or as a CD.
    pub is_disk: bool,
}

/// Formats that we do not read, by their first bytes; the place, the bytes, the name.
const FOREIGN: [(usize, &[u8], &str); 17] = [
    (0, b"vhdxfile", "VHDX"),
    (0, b"conectix", "VHD (VPC)"),
    (0, b"QED\0", "QED"),
    (0, b"WithoutFreeSpace", "Parallels"),
    (0, b"WithouFreSpacExt", "Parallels"),
    (0, b"Bochs Virtual HD Image", "Bochs"),
    (0, b"LUKS\xba\xbe", "LUKS"),
    (0, b"OOOM", "UML's copy-on-write"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"\xfd7zXZ\0", "xz"),
    (0, b"BZh", "bzip2"),
    (0, b"\x28\xb5\x2f\xfd", "zstd"),
    (0, b"\x04\x22\x4d\x18", "lz4"),
    (0, b"PK\x03\x04", "zip"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z"),
    (0, b"Rar!", "rar"),
    (257, b"ustar", "tar (an OVA is one)"),
];

pub fn read(file: &File) -> io::Result<Header> {
    let mut start = vec![0; DESCRIPTION.end];
    let length = read_at(file, &mut start, 0)?;
    start.truncate(length);
    let has = |at: usize, magic: &[u8]| start.get(at..at + magic.len()) == Some(magic);
    let number = |at: usize| start.get(at..at + 8)?.try_into().ok();
    let mut header = Header {
        format: None,
        external: false,
        foreign: None,
        is_disk: false,
    };
    if has(0, b"QFI\xfb\0\0\0\x01") {
        header.foreign = Some("qcow (the first version)");
    } else if has(0, b"QFI\xfb") {
        header.format = Some(DiskFormat::Qcow2);
        let backing = number(8).is_some_and(|at| u64::from_be_bytes(at) != 0);
        // The third of the features without which nobody may open it: the data are in a file of their own.
        let features = number(72).map_or(0, u64::from_be_bytes);
        let version = start.get(7).copied().unwrap_or(0);
        header.external = backing || (version >= 3 && features & 4 != 0);
    } else if has(0, b"KDMV") || has(0, b"COWD") {
        header.format = Some(DiskFormat::Vmdk);
        let capacity = number(12).map_or(0, u64::from_le_bytes);
        let description = start.get(DESCRIPTION.start..).unwrap_or_default();
        let parent: &[u8] = b"parentFileNameHint";
        header.external = has(0, b"KDMV")
            && (capacity == 0 || description.windows(parent.len()).any(|w| w == parent));
    } else if has(0, b"# Disk DescriptorFile") {
        header.format = Some(DiskFormat::Vmdk);
        header.external = true;
    } else if has(64, &[0x7f, 0x10, 0xda, 0xbe]) {
        header.format = Some(DiskFormat::Vdi);
    } else {
        let known = FOREIGN.iter().find(|(at, magic, _)| has(*at, magic));
        header.foreign = known.map(|(_, _, name)| *name);
        // Of a fixed VHD all is as in a raw disk, and its own 512 bytes come last.
        let mut end = [0; 8];
        let last = file.metadata()?.len().checked_sub(512);
        if let (None, Some(last)) = (header.foreign, last)
            && read_at(file, &mut end, last)? == end.len()
            && &end == b"conectix"
        {
            header.foreign = Some("VHD (VPC)");
        }
        header.is_disk = has(510, &[0x55, 0xaa]) || has(512, b"EFI PART") || is_iso(file)?;
    }
    Ok(header)
}

/// Volume descriptors begin at sector 16 (ECMA-119, 8.1; ECMA-167 has its own identifiers at the same place).
pub fn is_iso(file: &File) -> io::Result<bool> {
    let mut identifier = [0; 5];
    let length = read_at(file, &mut identifier, 32_769)?;
    Ok(length == 5 && matches!(&identifier, b"CD001" | b"BEA01"))
}

/// As much as there is.
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], at + length as u64)? {
            0 => break,
            n => length += n,
        }
    }
    Ok(length)
}
