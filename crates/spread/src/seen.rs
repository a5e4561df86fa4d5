//! How a file or a tree that came whole is known again without reading it.

use crate::manifest::hex;
use crate::place::beside;
use crate::tree::Tree;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What is remembered of a file that is whole: to know it again without reading it.
#[derive(Serialize, Deserialize, PartialEq)]
pub struct Seen {
    size: u64,
    modified: (i64, i64),
    inode: u64,
    /// What it is, in hexadecimal digits.
    pub content: String,
    /// Of all that is in a tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<String>,
}

impl Seen {
    pub fn of(file: &Path, content: &str) -> io::Result<Self> {
        let data = std::fs::symlink_metadata(file)?;
        let tree = match data.is_dir() {
            true => Some(hex(&Tree::open(file)?.digest())),
            false => None,
        };
        Ok(Self {
            tree,
            size: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
            inode: data.ino(),
            content: content.to_owned(),
        })
    }

    /// What was remembered of the file of this name, if it is what is wanted and the file is still the same.
    pub fn read(directory: &Path, name: &str, wanted: impl Fn(&Self) -> bool) -> Option<Self> {
        let text = std::fs::read(beside(directory, name, "seen")).ok()?;
        let seen: Self = serde_json::from_slice(&text).ok()?;
        if !wanted(&seen) {
            return None;
        }
        let now = Self::of(&directory.join(name), &seen.content).ok()?;
        (now == seen).then_some(seen)
    }
}
