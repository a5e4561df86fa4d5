//! What a source sends: a file, or a tree of files as one stream.

use crate::manifest::Bad;
use crate::prepared::Stamp;
use crate::source::{changed, is_hole};
use crate::tree::Tree;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

#[derive(Clone)]
pub enum Content {
    File(Arc<File>),
    Tree(Arc<Tree>),
}

impl Content {
    /// Opens what has this path; none if it is neither a file nor a tree.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        // Not to wait for who opens the other end of a pipe.
        let file = File::options()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
            .open(path)?;
        let data = file.metadata()?;
        Ok(match () {
            () if data.is_file() => Some(Self::File(Arc::new(file))),
            () if data.is_dir() => Some(Self::Tree(Arc::new(Tree::open(path)?))),
            () => None,
        })
    }

    /// Bytes.
    pub fn size(&self) -> io::Result<u64> {
        match self {
            Self::File(file) => Ok(file.metadata()?.len()),
            Self::Tree(tree) => Ok(tree.size()),
        }
    }

    pub fn is_tree(&self) -> bool {
        matches!(self, Self::Tree(_))
    }

    pub fn stamp(&self) -> io::Result<Stamp> {
        match self {
            Self::File(file) => Stamp::of(file),
            Self::Tree(tree) => Ok(Stamp::of(&tree.handle()?)?.of_tree(&tree.digest())),
        }
    }

    /// Is it still what it was when it had this stamp? The error says what is not.
    pub fn same(&self, stamp: &Stamp) -> Result<(), Bad> {
        match self {
            Self::File(file) => match stamp.difference(file) {
                Ok(None) => Ok(()),
                Ok(Some(how)) => Err(Bad(changed(&how))),
                Err(why) => Err(Bad(format!("reading: {why}"))),
            },
            Self::Tree(tree) => tree.same(),
        }
    }

    pub fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        match self {
            Self::File(file) => file.read_exact_at(buffer, at),
            Self::Tree(tree) => tree.read_exact_at(buffer, at),
        }
    }

    /// Does the file system know that there is nothing?
    pub fn is_hole(&self, at: u64, len: u32) -> bool {
        match self {
            Self::File(file) => is_hole(file, at, len),
            Self::Tree(tree) => tree.is_hole(at, len),
        }
    }

    /// An open file: the one that frames are in as they are; of a tree its top, in which they are not.
    pub fn handle(&self) -> io::Result<Arc<File>> {
        match self {
            Self::File(file) => Ok(file.clone()),
            Self::Tree(tree) => Ok(Arc::new(tree.handle()?)),
        }
    }
}
