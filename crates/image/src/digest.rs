//! BLAKE3 over fields and over streams.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// A digest of separate fields: no two different lists of fields have the same.
pub(crate) struct Fields(blake3::Hasher);

impl Fields {
    pub fn new(purpose: &str) -> Self {
        Self(blake3::Hasher::new()).add(purpose)
    }

    pub fn add(mut self, field: impl AsRef<[u8]>) -> Self {
        let bytes = field.as_ref();
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    pub fn list(mut self, items: &[String]) -> Self {
        self.0.update(&(items.len() as u64).to_le_bytes());
        for item in items {
            self = self.add(item);
        }
        self
    }

    pub fn hex(self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}

/// The digest of all that can be read, in hexadecimal; `seen` is told the bytes so far.
pub(crate) fn stream(mut from: impl Read, mut seen: impl FnMut(u64)) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finalize().to_hex().to_string()),
            Ok(n) => {
                hasher.update(&buffer[..n]);
                total += n as u64;
                seen(total);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

pub(crate) fn file(path: &Path) -> io::Result<String> {
    stream(File::open(path)?, |_| {})
}
