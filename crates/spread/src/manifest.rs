//! What a file is made of, frame by frame.
//!
//! A file is cut into frames of [`FRAME`] bytes, the last one shorter. What is known of them comes in pages, each signed
//! by itself, so that a receiver can check a frame while later ones are not even compressed yet. The header and the pages
//! in their order are the manifest; its signature at the end says that nothing is missing.

mod header;
mod id;
mod page;

pub use header::Header;
pub use id::Id;
pub use page::{Encoding, Entry, Page};

/// Bytes of a frame.
pub const FRAME: u32 = 1 << 20;

/// Most frames that a page may have.
pub const PAGE_FRAMES: usize = 256;

/// Largest file. With its entries of 80 bytes a frame, a manifest of it takes about 1 GiB of memory.
pub const LARGEST: u64 = 1 << 44;

pub type Hash = [u8; 32];

/// What is wrong with what came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Bad(pub String);

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

/// What stands after its length (u32), and what follows it. None: it ends too soon.
pub(crate) fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_at_checked(4)?;
    rest.split_at_checked(number(len) as usize)
}

#[cfg(test)]
mod tests;
