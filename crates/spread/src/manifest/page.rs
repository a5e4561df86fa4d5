//! What is known of frames, in pages.
//!
//! A page, integers little-endian: magic `OVP1`, the transfer's id (16 bytes), number of its first frame (u32), count of
//! frames (u16), and for each frame one byte that says how it is stored: 0 zeros (nothing follows); 1 as it is (BLAKE3,
//! 32 bytes); 2 zstd (stored length as u32, BLAKE3 of the stored bytes, BLAKE3 of the frame); 3 as the base has it at the
//! same place (BLAKE3 of the frame); 4 a patch of the base, compressed by zstd (as 2); 5 the same, of a tree (stored
//! length as u32, BLAKE3 of the stored bytes).

use super::{Bad, Hash, Header, Id, PAGE_FRAMES, number};

const MAGIC: &[u8; 4] = b"OVP1";

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

fn hash(bytes: &[u8]) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(bytes);
    hash
}
