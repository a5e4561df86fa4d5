//! The form in which a tree goes over the network: a POSIX tar (pax), with one way to write each tree.
//!
//! Names are sorted, each directory comes before what is in it, the tree itself first, as `./`. Owners are numbers. Pax
//! records are there only for what a plain header cannot say: names of more than 100 bytes, parts of a second, extended
//! attributes. A second name of a file (a hard link) has nothing but the first one. What is read must be in this form, to the
//! last byte.

mod pax;
mod read;

pub use read::MOST_RECORDS;

use pax::{decimal, record};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use tar::{EntryType, Header};

/// Bytes of a header, and what contents are filled up to.
pub const BLOCK: u64 = 512;

/// Two blocks of zeros say that nothing follows.
pub const END: u64 = 2 * BLOCK;

/// Longest name in a header; longer ones are in a pax record.
const SHORT: usize = 100;

/// Before the name of an extended attribute, in a pax record.
const ATTRIBUTE: &[u8] = b"SCHILY.xattr.";

/// What has a name in a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    File,
    Directory,
    /// With what it leads to.
    Symlink(Vec<u8>),
    /// With another path in this tree, of which this is a second name.
    Hardlink(Vec<u8>),
    /// Major and minor number.
    Character(u32, u32),
    /// Major and minor number.
    Disk(u32, u32),
    Fifo,
}

/// A name in a tree, and what is known of it without looking into it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// From the tree's top, without `/` at either end; the top itself is empty.
    pub path: Vec<u8>,
    pub kind: Kind,
    pub mode: u32,
    pub user: u32,
    pub group: u32,
    /// Bytes of a file; else 0.
    pub size: u64,
    /// Seconds since 1970, and nanoseconds after these.
    pub modified: (i64, u32),
    /// Extended attributes, sorted by name.
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Kind {
    /// A number for the kind, and those of a device.
    pub fn numbers(&self) -> (u32, u32, u32) {
        match self {
            Self::File => (0, 0, 0),
            Self::Directory => (1, 0, 0),
            Self::Symlink(_) => (2, 0, 0),
            Self::Hardlink(_) => (3, 0, 0),
            Self::Character(major, minor) => (4, *major, *minor),
            Self::Disk(major, minor) => (5, *major, *minor),
            Self::Fifo => (6, 0, 0),
        }
    }
}

fn bad(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

impl Entry {
    /// Another name of a file that has come.
    pub fn hardlink(path: Vec<u8>, to: Vec<u8>) -> Self {
        Self {
            path,
            kind: Kind::Hardlink(to),
            mode: 0,
            user: 0,
            group: 0,
            size: 0,
            modified: (0, 0),
            attributes: Vec::new(),
        }
    }

    /// For people.
    pub fn shown(&self) -> String {
        shown(&self.path)
    }

    /// Bytes of content, filled up.
    pub fn padded(&self) -> u64 {
        self.size
            .checked_next_multiple_of(BLOCK)
            .unwrap_or(u64::MAX)
    }

    /// The name as it stands in a tar.
    pub fn name(&self) -> Vec<u8> {
        let mut name = b"./".to_vec();
        name.extend(&self.path);
        if self.kind == Kind::Directory && !self.path.is_empty() {
            name.push(b'/');
        }
        name
    }

    /// What a link leads to, as it stands in a tar.
    pub fn link(&self) -> Vec<u8> {
        match &self.kind {
            Kind::Symlink(to) => to.clone(),
            Kind::Hardlink(to) => [b"./", to.as_slice()].concat(),
            _ => Vec::new(),
        }
    }

    /// What a plain header has no room for.
    pub fn records(&self, name: &[u8], link: &[u8]) -> Vec<u8> {
        let mut records = Vec::new();
        if link.len() > SHORT {
            record(&mut records, b"linkpath", link);
        }
        let (seconds, nanos) = self.modified;
        if seconds < 0 || nanos > 0 {
            record(&mut records, b"mtime", decimal(seconds, nanos).as_bytes());
        }
        if name.len() > SHORT {
            record(&mut records, b"path", name);
        }
        for (attribute, value) in &self.attributes {
            let key = [ATTRIBUTE, attribute].concat();
            record(&mut records, &key, value);
        }
        records
    }

    /// Bytes of [`Entry::header`].
    pub fn header_len(&self) -> u64 {
        match self.records(&self.name(), &self.link()).len() as u64 {
            0 => BLOCK,
            records => 2 * BLOCK + records.next_multiple_of(BLOCK),
        }
    }

    /// What stands before the content.
    pub fn header(&self) -> Vec<u8> {
        let (name, link) = (self.name(), self.link());
        let mut records = self.records(&name, &link);
        let mut out = Vec::new();
        if !records.is_empty() {
            let size = records.len() as u64;
            out.extend(plain(b"././@PaxHeader", b"", |header| {
                header.set_entry_type(EntryType::XHeader);
                header.set_size(size);
            }));
            records.resize(size.next_multiple_of(BLOCK) as usize, 0);
            out.extend(records);
        }
        out.extend(plain(&name, &link, |header| {
            header.set_entry_type(match self.kind {
                Kind::File => EntryType::Regular,
                Kind::Directory => EntryType::Directory,
                Kind::Symlink(_) => EntryType::Symlink,
                Kind::Hardlink(_) => EntryType::Link,
                Kind::Character(..) => EntryType::Char,
                Kind::Disk(..) => EntryType::Block,
                Kind::Fifo => EntryType::Fifo,
            });
            header.set_mode(self.mode);
            header.set_uid(self.user.into());
            header.set_gid(self.group.into());
            header.set_size(self.size);
            header.set_mtime(u64::try_from(self.modified.0).unwrap_or(0));
            if let Kind::Character(major, minor) | Kind::Disk(major, minor) = self.kind
                && let Some(header) = header.as_ustar_mut()
            {
                header.set_device_major(major);
                header.set_device_minor(minor);
            }
        }));
        out
    }
}

/// A path for people.
pub fn shown(path: &[u8]) -> String {
    Path::new(OsStr::from_bytes(path)).display().to_string()
}

/// The directory that a path is in, and its name there.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// Which of two paths comes first in a tree: a directory stands before what is in it, and that before what comes after it.
pub fn order(one: &[u8], two: &[u8]) -> Ordering {
    let is_slash = |byte: &u8| *byte == b'/';
    one.split(is_slash).cmp(two.split(is_slash))
}

/// A header alone.
fn plain(name: &[u8], link: &[u8], set: impl FnOnce(&mut Header)) -> [u8; BLOCK as usize] {
    let mut header = Header::new_ustar();
    if let Some(header) = header.as_ustar_mut() {
        let len = name.len().min(SHORT);
        header.name[..len].copy_from_slice(&name[..len]);
        let len = link.len().min(SHORT);
        header.linkname[..len].copy_from_slice(&link[..len]);
        header.set_device_major(0);
        header.set_device_minor(0);
    }
    header.set_mode(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    set(&mut header);
    header.set_cksum();
    *header.as_bytes()
}

#[cfg(test)]
mod tests;
