//! An entry's header is read. What comes may be anything: what is not in this form is refused.

use super::pax::{read_decimal, read_records};
use super::{ATTRIBUTE, BLOCK, Entry, Kind, bad, shown};
use crate::manifest::LARGEST;
use std::io::{self, Read};
use tar::{EntryType, Header};

/// Longest path that the kernel takes.
const LONGEST: usize = 4095;

/// Most bytes of an entry's pax records; the kernel lists at most 64 KiB of attributes' names, and has at most as much for the
/// value of one.
pub const MOST_RECORDS: u64 = 1 << 20;

impl Entry {
    /// Reads the next entry's header; what follows are its `size` bytes, filled up. `None`: there are no more.
    ///
    /// Errors: reading; `InvalidData`: not in this form, or a name that leads out of the tree.
    pub fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut read = Vec::new();
        let Some(mut header) = block(from, &mut read)? else {
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
            read.extend(&records);
            records.truncate(size as usize);
            header = block(from, &mut read)?.ok_or_else(|| bad("pax records of nothing"))?;
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
        let entry = Self {
            path,
            kind,
            mode,
            user: number(header.uid()?)?,
            group: number(header.gid()?)?,
            size,
            modified,
            attributes,
        };
        // What is remembered of a tree has to be what came, to the byte: its next version is made of that.
        match entry.is_usual() && entry.header() == read {
            true => Ok(Some(entry)),
            false => Err(bad(format!(
                "{:?}: another form than that of trees",
                entry.shown()
            ))),
        }
    }

    /// Is it as a tree on disk has it?
    fn is_usual(&self) -> bool {
        let in_order = (self.attributes.windows(2)).all(|two| two[0].0 < two[1].0);
        let of_link = match &self.kind {
            Kind::Hardlink(to) => *self == Self::hardlink(self.path.clone(), to.clone()),
            Kind::Symlink(_) => self.mode == 0o777 && self.attributes.is_empty(),
            _ => true,
        };
        in_order && of_link
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

/// The next header, which is added to what was read; none at the end.
fn block(from: &mut impl Read, read: &mut Vec<u8>) -> io::Result<Option<Header>> {
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
    read.extend(bytes);
    Ok(Some(header))
}
