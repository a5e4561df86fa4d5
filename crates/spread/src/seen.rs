//! How a file or a tree that came whole is known again without reading it.

use crate::manifest::hex;
use crate::place::beside;
use crate::tree::{self, Tree};
use crate::unpack;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What is remembered of a file that is whole: to know it again without reading it.
#[derive(Serialize, Deserialize)]
pub struct Seen {
    size: u64,
    modified: (i64, i64),
    inode: u64,
    /// When anything of the file was changed last, after it got its name. Not of a tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    changed: Option<(i64, i64)>,
    /// What it is, in hexadecimal digits.
    pub content: String,
    /// Of all names in a tree, and what they are known by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<String>,
}

impl Seen {
    /// `names`: what is remembered of a tree that came.
    pub fn of(file: &Path, content: &str, names: Option<&[u8]>) -> io::Result<Self> {
        let data = std::fs::symlink_metadata(file)?;
        let digest = names.map(|names| tree::digest(file, names)).transpose()?;
        Ok(Self {
            tree: digest.map(|digest| hex(&digest)),
            size: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
            inode: data.ino(),
            changed: None,
            content: content.to_owned(),
        })
    }

    /// The same, with the time when anything of the file was changed: nobody can set that back.
    pub fn with_time_of(self, file: &Path) -> io::Result<Self> {
        let data = std::fs::symlink_metadata(file)?;
        let changed = Some((data.ctime(), data.ctime_nsec()));
        Ok(Self { changed, ..self })
    }

    /// Are these of the same file, or tree, and is it as it was? What is in a tree says it; its own time some file systems
    /// change where it changes places with another one.
    fn is(&self, other: &Self) -> bool {
        let all = |seen: &Self| (seen.size, seen.inode);
        all(self) == all(other)
            && (self.tree.is_some() || self.modified == other.modified)
            && self.content == other.content
            && self.tree == other.tree
    }

    /// Is this open file the one, and has nobody so much as touched it since? Somebody who did need not have changed its bytes.
    pub fn is_untouched(&self, file: &File) -> io::Result<bool> {
        let now = file.metadata()?;
        let changed = Some((now.ctime(), now.ctime_nsec()));
        Ok(now.ino() == self.inode && self.changed == changed)
    }

    /// Puts back the time of a tree that was given its place; what is in it has its own.
    pub fn put_time_back(&self, tree: &Path) -> io::Result<()> {
        if self.tree.is_some() {
            unpack::set_time(tree, self.modified)?;
        }
        Ok(())
    }

    /// What was remembered of the file of this name, if it is what is wanted and the file is still the same.
    pub fn read(directory: &Path, name: &str, wanted: impl Fn(&Self) -> bool) -> Option<Self> {
        Self::find(directory, name, wanted).map(|(seen, _)| seen)
    }

    /// The same, and a tree as it is now.
    pub fn find(
        directory: &Path,
        name: &str,
        wanted: impl Fn(&Self) -> bool,
    ) -> Option<(Self, Option<Tree>)> {
        let seen: Self = serde_json::from_slice(&beside_it(directory, name, "seen")?).ok()?;
        if !wanted(&seen) {
            return None;
        }
        let tree = seen.still(directory, name, "names")?;
        Some((seen, tree))
    }

    /// The file of this name, or the tree, if it is as it was; a tree as it came. `names`: where what is remembered of that is.
    pub fn still(&self, directory: &Path, name: &str, names: &str) -> Option<Option<Tree>> {
        let target = directory.join(name);
        let names = match self.tree {
            Some(_) => Some(beside_it(directory, name, names)?),
            None => None,
        };
        let now = Self::of(&target, &self.content, names.as_deref()).ok()?;
        if !now.is(self) {
            return None;
        }
        let Some(names) = names else {
            return Some(None);
        };
        let tree = Tree::remembered(&target, &names).ok()?;
        tree.is_untouched().ok()?.then_some(Some(tree))
    }
}

fn beside_it(directory: &Path, name: &str, what: &str) -> Option<Vec<u8>> {
    std::fs::read(beside(directory, name, what)).ok()
}
