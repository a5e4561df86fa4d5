//! The form in which a tree goes over the network: a POSIX tar (pax), with one way to write each tree.
//!
//! Names are sorted, each directory comes before what is in it, the tree itself first, as `./`. Owners are numbers. Pax
//! records are there only for what a plain header cannot say: names of more than 100 bytes, parts of a second, extended
//! attributes. A second name of a file (a hard link) has nothing but the first one. What is read must be in this form.

use crate::manifest::LARGEST;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use tar::{EntryType, Header};

/// Bytes of a header, and what contents are filled up to.
pub const BLOCK: u64 = 512;

/// Two blocks of zeros say that nothing follows.
pub const END: u64 = 2 * BLOCK;

/// Longest name in a header; longer ones are in a pax record.
const SHORT: usize = 100;

/// Longest path that the kernel takes.
const LONGEST: usize = 4095;

/// Most bytes of an entry's pax records; the kernel has at most 64 KiB of attributes for a file.
const MOST_RECORDS: u64 = 1 << 20;

/// Before the name of an extended attribute, in a pax record.
const ATTRIBUTE: &[u8] = b"SCHILY.xattr.";

/// What has a name in a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
        self.records_at(self.modified, name, link)
    }

    /// The same with another time.
    pub fn records_at(&self, modified: (i64, u32), name: &[u8], link: &[u8]) -> Vec<u8> {
        let mut records = Vec::new();
        if link.len() > SHORT {
            record(&mut records, b"linkpath", link);
        }
        let (seconds, nanos) = modified;
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

    /// Reads the next entry's header; what follows are its `size` bytes, filled up. `None`: there are no more.
    ///
    /// Errors: reading; `InvalidData`: not in this form, or a name that leads out of the tree.
    pub fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let Some(mut header) = block(from)? else {
            return Ok(None);
        };
        let mut records = Vec::new();
        if header.entry_type() == EntryType::XHeader {
            let size = header.entry_size()?;
            if size > MOST_RECORDS {
                return Err(bad(format!("{size} bytes of pax records")));
            }
            records.resize(size.next_multiple_of(BLOCK) as usize, 0);
            from.read_exact(&mut records)?;
            records.truncate(size as usize);
            header = block(from)?.ok_or_else(|| bad("pax records of nothing"))?;
        }
        let mut name = header.path_bytes().into_owned();
        let mut link = header.link_name_bytes().unwrap_or_default().into_owned();
        let mut modified = (
            i64::try_from(header.mtime()?).map_err(|_| bad("a time too late"))?,
            0,
        );
        let mut attributes = Vec::new();
        for (key, value) in read_records(&records)? {
            match key {
                b"path" => name = value.to_vec(),
                b"linkpath" => link = value.to_vec(),
                b"mtime" => modified = read_decimal(value)?,
                _ => match key.strip_prefix(ATTRIBUTE) {
                    Some(attribute) => attributes.push((attribute.to_vec(), value.to_vec())),
                    None => return Err(bad(format!("a pax record {:?}", shown(key)))),
                },
            }
        }
        let number = |number: u64| u32::try_from(number).map_err(|_| bad("a number too large"));
        let device = || -> io::Result<(u32, u32)> {
            let major = header.device_major()?.unwrap_or_default();
            let minor = header.device_minor()?.unwrap_or_default();
            // Linux has no larger ones, and a header no room for them.
            match (major, minor) {
                (0..0x1000, 0..0x10_0000) => Ok((major, minor)),
                _ => Err(bad("a device that cannot be")),
            }
        };
        let kind = match header.entry_type() {
            EntryType::Regular => Kind::File,
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink if link.is_empty() || link.contains(&0) => {
                return Err(bad(format!("{:?}: a link to nothing", shown(&name))));
            }
            EntryType::Symlink => Kind::Symlink(link),
            EntryType::Link => Kind::Hardlink(checked(&link)?),
            EntryType::Char => device().map(|(major, minor)| Kind::Character(major, minor))?,
            EntryType::Block => device().map(|(major, minor)| Kind::Disk(major, minor))?,
            EntryType::Fifo => Kind::Fifo,
            other => return Err(bad(format!("{:?}: of kind {other:?}", shown(&name)))),
        };
        if kind == Kind::Directory && name != b"./" {
            let inner = name.strip_suffix(b"/");
            name = inner
                .ok_or_else(|| bad("a directory without / at its end"))?
                .to_vec();
        }
        let path = match name.as_slice() {
            b"./" if kind == Kind::Directory => Vec::new(),
            name => checked(name)?,
        };
        let size = header.entry_size()?;
        if size > LARGEST {
            return Err(bad(format!("{:?}: {size} bytes", shown(&path))));
        }
        if size > 0 && kind != Kind::File {
            return Err(bad(format!(
                "{:?}: {size} bytes of what is no file",
                shown(&path)
            )));
        }
        let mode = header.mode()?;
        if mode > 0o7777 {
            return Err(bad(format!("{:?}: mode {mode:o}", shown(&path))));
        }
        Ok(Some(Self {
            path,
            kind,
            mode,
            user: number(header.uid()?)?,
            group: number(header.gid()?)?,
            size,
            modified,
            attributes,
        }))
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

/// A path as it stands in a tar, without its `./`; it must lead to something below the top.
fn checked(name: &[u8]) -> io::Result<Vec<u8>> {
    let path = name.strip_prefix(b"./").unwrap_or(b"");
    let mut steps = path.split(|byte| *byte == b'/');
    let wrong = |step: &[u8]| matches!(step, b"" | b"." | b"..") || step.contains(&0);
    if path.len() > LONGEST || steps.any(wrong) {
        return Err(bad(format!(
            "{:?} is no name of something in the tree",
            shown(&name[..name.len().min(LONGEST)])
        )));
    }
    Ok(path.to_vec())
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

/// The next header; none at the end.
fn block(from: &mut impl Read) -> io::Result<Option<Header>> {
    let mut bytes = [0; BLOCK as usize];
    from.read_exact(&mut bytes)?;
    if bytes == [0; BLOCK as usize] {
        return Ok(None);
    }
    let header = Header::from_byte_slice(&bytes).clone();
    // The sum is of the block with spaces in its own place.
    let sum: u32 = bytes[..148]
        .iter()
        .chain(&bytes[156..])
        .map(|byte| u32::from(*byte))
        .sum();
    if header.as_ustar().is_none() || header.cksum()? != sum + 8 * 32 {
        return Err(bad("not a header of a tar"));
    }
    Ok(Some(header))
}

/// Adds a pax record: its own length, key and value.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // Space, equals sign, line feed.
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    records.extend(len.to_string().as_bytes());
    records.push(b' ');
    records.extend(key);
    records.push(b'=');
    records.extend(value);
    records.push(b'\n');
}

type Record<'a> = (&'a [u8], &'a [u8]);

fn read_records(mut records: &[u8]) -> io::Result<Vec<Record<'_>>> {
    let mut all = Vec::new();
    let wrong = || bad("a pax record that is none");
    while !records.is_empty() {
        let space = records.iter().position(|byte| *byte == b' ');
        let space = space.ok_or_else(wrong)?;
        let len = std::str::from_utf8(&records[..space]).ok();
        let len: usize = len.and_then(|len| len.parse().ok()).ok_or_else(wrong)?;
        let (record, rest) = records.split_at_checked(len).ok_or_else(wrong)?;
        let inner = record.get(space + 1..).and_then(|r| r.strip_suffix(b"\n"));
        let inner = inner.ok_or_else(wrong)?;
        let equals = inner.iter().position(|byte| *byte == b'=');
        let equals = equals.ok_or_else(wrong)?;
        all.push((&inner[..equals], &inner[equals + 1..]));
        records = rest;
    }
    Ok(all)
}

/// A time as pax has it: seconds with nine places, and a sign before 1970.
fn decimal(seconds: i64, nanos: u32) -> String {
    match (seconds, nanos) {
        (0.., _) | (_, 0) => format!("{seconds}.{nanos:09}"),
        _ => format!(
            "-{}.{:09}",
            (seconds + 1).unsigned_abs(),
            1_000_000_000 - nanos
        ),
    }
}

fn read_decimal(text: &[u8]) -> io::Result<(i64, u32)> {
    let wrong = || bad(format!("a time {:?}", shown(text)));
    let text = std::str::from_utf8(text).map_err(|_| wrong())?;
    let (whole, part) = text.split_once('.').ok_or_else(wrong)?;
    let seconds: i64 = whole.parse().map_err(|_| wrong())?;
    let nanos: u32 = part.parse().map_err(|_| wrong())?;
    if part.len() != 9 || part.starts_with('+') {
        return Err(wrong());
    }
    match (whole.starts_with('-'), nanos) {
        (false, _) | (true, 0) => Ok((seconds, nanos)),
        (true, _) => {
            let before = seconds.checked_sub(1).ok_or_else(wrong)?;
            Ok((before, 1_000_000_000 - nanos))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn name() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(1_u8..=255, 1..150).prop_map(|mut name| {
            name.iter_mut().for_each(|byte| {
                if *byte == b'/' {
                    *byte = b'-';
                }
            });
            if name == b"." || name == b".." {
                name = b"dots".to_vec();
            }
            name
        })
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let path = prop::collection::vec(name(), 1..4).prop_map(|names| names.join(&b'/'));
        let kind = prop_oneof![
            Just(Kind::File),
            Just(Kind::Directory),
            name().prop_map(Kind::Symlink),
            (0_u32..4096, 0_u32..(1 << 20)).prop_map(|(a, b)| Kind::Character(a, b)),
            Just(Kind::Disk(8, 1)),
            Just(Kind::Fifo),
        ];
        let attribute = (name(), prop::collection::vec(any::<u8>(), 0..200));
        let attribute = attribute.prop_map(|(mut name, value)| {
            name.retain(|byte| *byte != b'=');
            (name, value)
        });
        (
            (path, kind, 0_u32..0o10000, any::<u32>(), any::<u32>()),
            (
                0_u64..1 << 40,
                -(1_i64 << 33)..1 << 34,
                0_u32..1_000_000_000,
            ),
            prop::collection::vec(attribute, 0..3),
        )
            .prop_map(
                |((path, kind, mode, user, group), (size, seconds, nanos), attributes)| Entry {
                    size: if kind == Kind::File { size } else { 0 },
                    path,
                    kind,
                    mode,
                    user,
                    group,
                    modified: (seconds, nanos),
                    attributes,
                },
            )
    }

    proptest! {
        #[test]
        fn headers_there_and_back(entry in entry()) {
            let header = entry.header();
            prop_assert_eq!(header.len() as u64, entry.header_len());
            let mut rest = header.as_slice();
            prop_assert_eq!(Entry::read(&mut rest).unwrap(), Some(entry));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn whatever_comes_is_a_header_or_refused(
            entry in entry(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let mut header = entry.header();
            let at = at.index(header.len());
            header[at] = byte;
            let _ = Entry::read(&mut header.as_slice());
        }
    }

    #[test]
    fn names_that_would_leave_the_tree() {
        for name in [
            "/etc/passwd",
            "etc",
            "./../x",
            "./a/../../x",
            ".//x",
            "./a//b",
            "./.",
            "..",
            "./a/",
            "./",
        ] {
            let header = plain(name.as_bytes(), b"", |header| {
                header.set_entry_type(EntryType::Regular);
                header.set_size(0);
            });
            let read = Entry::read(&mut header.as_slice());
            assert!(read.is_err(), "{name}: {read:?}");
            let link = plain(b"./fine", name.as_bytes(), |header| {
                header.set_entry_type(EntryType::Link);
                header.set_size(0);
            });
            let read = Entry::read(&mut link.as_slice());
            assert!(read.is_err(), "to {name}: {read:?}");
        }
    }

    #[test]
    fn endless_pax_records_are_not_read() {
        let header = plain(b"x", b"", |header| {
            header.set_entry_type(EntryType::XHeader);
            header.set_size(1 << 40);
        });
        let read = Entry::read(&mut header.chain(io::repeat(b'1')));
        assert!(read.unwrap_err().to_string().contains("pax records"));
    }
}
