//! What a file is made of, frame by frame.
//!
//! A file is cut into frames of [`FRAME`] bytes, the last one shorter. What is known of them comes in pages, each signed
//! by itself, so that a receiver can check a frame while later ones are not even compressed yet. The header and the pages
//! in their order are the manifest; its signature at the end says that nothing is missing.
//!
//! A page, integers little-endian: magic `OVP1`, the transfer's id (16 bytes), number of its first frame (u32), count of
//! frames (u16), and for each frame one byte that says how it is stored: 0 zeros (nothing follows); 1 as it is (BLAKE3,
//! 32 bytes); 2 zstd (stored length as u32, BLAKE3 of the stored bytes, BLAKE3 of the frame); 3 as the base has it at the
//! same place (BLAKE3 of the frame); 4 a patch of the base, compressed by zstd (as 2); 5 the same, of a tree (stored
//! length as u32, BLAKE3 of the stored bytes).

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Bytes of a frame.
pub const FRAME: u32 = 1 << 20;

/// Most frames that a page may have.
pub const PAGE_FRAMES: usize = 256;

/// Largest file. With its entries of 80 bytes a frame, a manifest of it takes about 1 GiB of memory.
pub const LARGEST: u64 = 1 << 44;

const MAGIC: &[u8; 4] = b"OVP1";
const FORMAT: &str = "oscarv-spread-1";

pub type Hash = [u8; 32];

/// Which transfer this is: random, made once for a version of a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(pub [u8; 16]);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.to_string()
    }
}

impl FromStr for Id {
    type Err = Bad;
    fn from_str(text: &str) -> Result<Self, Bad> {
        let bad = || Bad(format!("{text:?} is not an id: 32 hexadecimal digits"));
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let mut id = [0; 16];
        for (at, byte) in id.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self(id))
    }
}

impl TryFrom<String> for Id {
    type Error = Bad;
    fn try_from(text: String) -> Result<Self, Bad> {
        text.parse()
    }
}

/// What is wrong with what came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Bad(pub String);

/// The first line of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    format: String,
    pub id: Id,
    /// What the file is called at the receivers.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// When the transfer was made, nanoseconds since 1970 by the source's clock. Compared only with others of the same
    /// name: an older one never takes a newer one's place.
    pub created: u64,
    /// The content of the version that this is made from, in hexadecimal digits; none: from nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Is it a tree of files, as a tar?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tree: bool,
    /// Of a tree what its source knows this version by, in hexadecimal digits: that is its content for whoever has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

impl Header {
    pub fn new(
        id: Id,
        name: &str,
        size: u64,
        created: u64,
        base: Option<String>,
    ) -> Result<Self, Bad> {
        let header = Self {
            format: FORMAT.to_owned(),
            id,
            name: name.to_owned(),
            size,
            created,
            base,
            tree: false,
            version: None,
        };
        header.check()?;
        Ok(header)
    }

    /// The same, of a tree, which its source knows by this.
    pub fn of_tree(self, version: &Hash) -> Self {
        Self {
            tree: true,
            version: Some(hex(version)),
            ..self
        }
    }

    /// Is it of the same version of the same file, and has the same content? There may be two transfers of one version: what
    /// is new in it, and all of it.
    pub fn same_version(&self, other: &Self) -> bool {
        let alike = (self.created, self.size, self.tree, &self.version)
            == (other.created, other.size, other.tree, &other.version);
        self.id == other.id || (self.name == other.name && alike)
    }

    /// Reads the line, which has come from outside.
    pub fn read(line: &str) -> Result<Self, Bad> {
        let header: Self =
            serde_json::from_str(line).map_err(|e| Bad(format!("not a header: {e}")))?;
        header.check()?;
        Ok(header)
    }

    pub fn line(&self) -> Result<String, Bad> {
        serde_json::to_string(self).map_err(|e| Bad(e.to_string()))
    }

    fn check(&self) -> Result<(), Bad> {
        if self.format != FORMAT {
            return Err(Bad(format!(
                "format {:?} is not known here, only {FORMAT}",
                self.format
            )));
        }
        if self.size > LARGEST {
            return Err(Bad(format!("{} bytes are more than 16 TiB", self.size)));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
        let starts = self.name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !starts || self.name.len() > 200 || !self.name.chars().all(plain) {
            return Err(Bad(format!(
                "the name {:?} is not letters, digits, '.', '_', '-' and '+', beginning with a letter or digit",
                self.name
            )));
        }
        let digits =
            |text: &String| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        // Of a tree that is made from another one not all frames have hashes that say what it is.
        let known = self
            .version
            .as_ref()
            .map_or(!self.tree || self.base.is_none(), digits);
        if !known {
            return Err(Bad("a tree without its version".to_owned()));
        }
        Ok(())
    }

    /// How many frames the file has.
    pub fn frames(&self) -> u32 {
        self.size.div_ceil(u64::from(FRAME)) as u32
    }

    /// Bytes of a frame of this file.
    pub fn frame_len(&self, index: u32) -> u32 {
        let start = u64::from(index) * u64::from(FRAME);
        self.size.saturating_sub(start).min(u64::from(FRAME)) as u32
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Zero,
    Raw,
    Zstd,
    Same,
    Patch,
    Ranges,
}

impl Encoding {
    /// Is what is stored other than the frame itself?
    pub fn is_packed(self) -> bool {
        matches!(self, Self::Zstd | Self::Patch | Self::Ranges)
    }
}

/// What is known of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub encoding: Encoding,
    /// Bytes on the wire.
    pub stored: u32,
    /// BLAKE3 of these.
    pub stored_hash: Hash,
    /// BLAKE3 of the frame; zeros for one of ranges, which nobody has as a whole.
    pub hash: Hash,
}

impl Entry {
    pub const ZERO: Self = Self {
        encoding: Encoding::Zero,
        stored: 0,
        stored_hash: [0; 32],
        hash: [0; 32],
    };

    pub fn same(hash: Hash) -> Self {
        Self {
            encoding: Encoding::Same,
            hash,
            ..Self::ZERO
        }
    }

    pub fn raw(bytes: u32, hash: Hash) -> Self {
        Self {
            encoding: Encoding::Raw,
            stored: bytes,
            stored_hash: hash,
            hash,
        }
    }
}

/// Some frames in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub first: u32,
    pub entries: Vec<Entry>,
}

impl Page {
    pub fn bytes(&self, id: Id) -> Vec<u8> {
        let mut out = Vec::with_capacity(26 + self.entries.len() * 69);
        out.extend(MAGIC);
        out.extend(id.0);
        out.extend(self.first.to_le_bytes());
        out.extend((self.entries.len() as u16).to_le_bytes());
        for entry in &self.entries {
            match entry.encoding {
                Encoding::Zero => out.push(0),
                Encoding::Raw => {
                    out.push(1);
                    out.extend(entry.hash);
                }
                Encoding::Same => {
                    out.push(3);
                    out.extend(entry.hash);
                }
                Encoding::Zstd | Encoding::Patch | Encoding::Ranges => {
                    out.push(match entry.encoding {
                        Encoding::Zstd => 2,
                        Encoding::Patch => 4,
                        _ => 5,
                    });
                    out.extend(entry.stored.to_le_bytes());
                    out.extend(entry.stored_hash);
                    if entry.encoding != Encoding::Ranges {
                        out.extend(entry.hash);
                    }
                }
            }
        }
        out
    }

    /// Reads a page of this transfer; every frame must be one that the file has.
    pub fn read(bytes: &[u8], header: &Header) -> Result<Self, Bad> {
        let mut rest = bytes;
        let mut take = |count: usize| -> Result<&[u8], Bad> {
            let (taken, left) = rest
                .split_at_checked(count)
                .ok_or_else(|| Bad("a page ends too soon".to_owned()))?;
            rest = left;
            Ok(taken)
        };
        if take(4)? != MAGIC {
            return Err(Bad("not a page".to_owned()));
        }
        if take(16)? != header.id.0 {
            return Err(Bad("a page of another transfer".to_owned()));
        }
        let first = number(take(4)?);
        let count = number(take(2)?) as usize;
        if count == 0 || count > PAGE_FRAMES {
            return Err(Bad(format!("a page of {count} frames")));
        }
        let end = first.checked_add(count as u32);
        if end.is_none_or(|end| end > header.frames()) {
            return Err(Bad("a page beyond the end of the file".to_owned()));
        }
        let mut entries = Vec::with_capacity(count);
        for index in (first..).take(count) {
            let len = header.frame_len(index);
            // A tree and a file are made from their bases in different ways.
            let base = header.base.as_ref().map(|_| header.tree);
            entries.push(match (take(1)?[0], base) {
                (0, _) => Entry::ZERO,
                (1, _) => Entry::raw(len, hash(take(32)?)),
                (3, Some(false)) => Entry::same(hash(take(32)?)),
                (kind @ 2, _) | (kind @ 4, Some(false)) | (kind @ 5, Some(true)) => {
                    let stored = number(take(4)?);
                    // The source sends as it is what does not become smaller.
                    if stored == 0 || stored >= len {
                        return Err(Bad(format!("frame {index}: {stored} bytes of {len}")));
                    }
                    Entry {
                        encoding: match kind {
                            2 => Encoding::Zstd,
                            4 => Encoding::Patch,
                            _ => Encoding::Ranges,
                        },
                        stored,
                        stored_hash: hash(take(32)?),
                        hash: match kind {
                            5 => [0; 32],
                            _ => hash(take(32)?),
                        },
                    }
                }
                (other, _) => return Err(Bad(format!("frame {index}: encoding {other}"))),
            });
        }
        match rest.is_empty() {
            true => Ok(Self { first, entries }),
            false => Err(Bad("a page has more than its frames".to_owned())),
        }
    }
}

/// What a file is, however it came: its size and its frames.
pub fn content(size: u64, frames: impl IntoIterator<Item = Hash>) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&size.to_le_bytes());
    for frame in frames {
        hasher.update(&frame);
    }
    *hasher.finalize().as_bytes()
}

/// A hash in hexadecimal digits.
pub fn hex(hash: &Hash) -> String {
    blake3::Hash::from_bytes(*hash).to_hex().to_string()
}

/// A little-endian number of up to four bytes.
pub(crate) fn number(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn hash(bytes: &[u8]) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(bytes);
    hash
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn header(size: u64) -> Header {
        Header::new(Id([7; 16]), "disk.raw", size, 1, None).unwrap()
    }

    fn entry() -> impl Strategy<Value = Entry> {
        prop_oneof![
            Just(Entry::ZERO),
            any::<Hash>().prop_map(|hash| Entry::raw(FRAME, hash)),
            (1..FRAME, any::<Hash>(), any::<Hash>()).prop_map(|(stored, stored_hash, hash)| {
                Entry {
                    encoding: Encoding::Zstd,
                    stored,
                    stored_hash,
                    hash,
                }
            }),
        ]
    }

    proptest! {
        #[test]
        fn pages_there_and_back(entries in prop::collection::vec(entry(), 1..PAGE_FRAMES), first in 0_u32..9) {
            let header = header(300 * u64::from(FRAME));
            let page = Page { first, entries };
            prop_assert_eq!(Page::read(&page.bytes(header.id), &header).unwrap(), page);
        }

        #[test]
        fn whatever_comes_is_a_page_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut page = Page { first: 0, entries: vec![Entry::ZERO] }.bytes(Id([7; 16]));
            page.truncate(20);
            page.extend(bytes);
            if let Ok(read) = Page::read(&page, &header(1 << 40)) {
                prop_assert_eq!(read.bytes(Id([7; 16])), page);
            }
        }
    }

    #[test]
    fn names_that_would_leave_the_directory() {
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "/etc/passwd",
            "-rf",
            ".ssh",
            "a\0b",
            "a b",
            "ä",
        ] {
            assert!(
                Header::new(Id([0; 16]), name, 1, 1, None).is_err(),
                "{name:?}"
            );
        }
        assert!(Header::new(Id([0; 16]), &"a".repeat(201), 1, 1, None).is_err());
    }

    /// What is made of ranges has no hash of its own, and is of a tree that is made from another one.
    #[test]
    fn a_tree_is_known_by_its_version() {
        let known = Header::new(Id([7; 16]), "tree", u64::from(FRAME), 1, None).unwrap();
        let whole = known.clone().of_tree(&[3; 32]);
        assert_eq!(Header::read(&whole.line().unwrap()), Ok(whole.clone()));
        let base = Some("ab".repeat(32));
        let made = Header {
            base,
            ..whole.clone()
        };
        assert_eq!(Header::read(&made.line().unwrap()), Ok(made.clone()));
        for version in [None, Some("short".to_owned())] {
            let nameless = Header {
                version,
                ..made.clone()
            };
            assert!(Header::read(&nameless.line().unwrap()).is_err());
        }
        let entry = Entry {
            encoding: Encoding::Ranges,
            hash: [0; 32],
            ..Entry::raw(900, [5; 32])
        };
        let page = Page {
            first: 0,
            entries: vec![entry],
        };
        let bytes = page.bytes(made.id);
        assert_eq!(bytes.len(), 26 + 1 + 4 + 32);
        assert_eq!(Page::read(&bytes, &made).unwrap(), page);
        assert!(Page::read(&bytes, &whole).is_err());
    }

    #[test]
    fn the_last_frame_is_shorter() {
        let header = header(u64::from(FRAME) * 2 + 5);
        assert_eq!(header.frames(), 3);
        assert_eq!(header.frame_len(1), FRAME);
        assert_eq!(header.frame_len(2), 5);
        assert_eq!(super::tests::header(0).frames(), 0);
    }
}
