//! What a file looked like, to see whether it is still the same.

use crate::manifest::{Hash, hex};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

/// What changes when somebody writes into a file, or puts another one in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    pub(super) size: u64,
    inode: (u64, u64),
    modified: (i64, i64),
    changed: (i64, i64),
    /// Of all that is in a tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tree: Option<String>,
}

impl Stamp {
    pub fn of(file: &File) -> io::Result<Self> {
        let data = file.metadata()?;
        Ok(Self {
            size: data.size(),
            inode: (data.dev(), data.ino()),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
            tree: None,
        })
    }

    /// The same, with what is below this directory.
    pub fn of_tree(self, digest: &Hash) -> Self {
        let tree = Some(hex(digest));
        Self { tree, ..self }
    }

    /// What somebody has done to the bytes of this file since. That it has another name, or none, is nothing to them.
    pub fn difference(&self, file: &File) -> io::Result<Option<String>> {
        let now = Self::of(file)?;
        Ok(if now.size != self.size {
            Some(format!("it had {} bytes, and has {}", self.size, now.size))
        } else if now.modified != self.modified {
            Some("it was written to".to_owned())
        } else {
            None
        })
    }
}
