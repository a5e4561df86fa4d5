//! A tree that came, known again without reading it: its names as they came, and what each is known by here.
//!
//! The source's tree can be told from its own names alone. What came cannot: whoever is not root has made it with other
//! owners, and its stream has those of the source.

use super::look::{names as names_in, take};
use super::{Mark, Node, Tree, now};
use crate::manifest::Hash;
use crate::tar::{Entry, Kind, shown, split};
use crate::unpack::{Rights, inside, open_top};
use rustix::fs::{AtFlags, FileType, OFlags, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// What the names of another form do not begin with.
const FORM: u32 = 2;

/// What a name is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Known {
    /// By nothing yet; the top of a tree never is.
    Nothing,
    /// What is to be there has this inode, and changes when it comes there, or when something comes into it.
    Inode(u64),
    Mark(Mark),
}

impl Known {
    pub fn inode(self) -> Option<u64> {
        match self {
            Self::Nothing => None,
            Self::Inode(inode) => Some(inode),
            Self::Mark(mark) => Some(mark.inode),
        }
    }
}

/// Names in the order of the tar.
pub(crate) type Names = Vec<(Entry, Known)>;

/// At which moment a tree is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// It was made just now, where nobody else is at work.
    Made,
    /// Some of what makes it another one is done. Directories may have other rights and times.
    Between,
    /// All of that is undone.
    Undone,
    /// All of it is done. What nothing was done to is not looked at.
    Done,
}

/// To be kept; for [`read`].
pub(crate) fn written(names: &[(Entry, Known)]) -> io::Result<Vec<u8>> {
    postcard::to_stdvec(&(FORM, names)).map_err(io::Error::other)
}

/// Names as they were [`written`].
pub(crate) fn read(bytes: &[u8]) -> io::Result<Names> {
    let bad = |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("names: {why}"));
    let (form, names): (u32, Names) =
        postcard::from_bytes(bytes).map_err(|e| bad(e.to_string()))?;
    match form {
        FORM => Ok(names),
        form => Err(bad(format!("of the unknown form {form}"))),
    }
}

/// Finds out the marks that are missing.
///
/// Errors: reading; `InvalidData`, naming it: it is not what it is to be.
pub(crate) fn mark(top: &Path, names: &mut Names, when: When) -> io::Result<()> {
    let root = open_top(top)?;
    if when != When::Made {
        are_all(&root, names)?;
    }
    let rights = Rights::of_this_process();
    for (entry, known) in names {
        let looked =
            !matches!(known, Known::Mark(_)) || matches!(when, When::Between | When::Undone);
        if entry.path.is_empty() || !looked {
            continue;
        }
        let stat = match rustix::fs::statat(&root, &entry.path, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(is_not(&entry.path)),
            other => other?,
        };
        let now = Mark::of(&stat);
        let same = match *known {
            Known::Mark(mark) => mark == now,
            known => {
                known.inode().is_none_or(|inode| inode == now.inode)
                    && is_of(entry, &stat, rights, when)
            }
        };
        if !same {
            return Err(is_not(&entry.path));
        }
        *known = Known::Mark(now);
    }
    Ok(())
}

fn is_not(path: &[u8]) -> io::Error {
    let why = format!("{} is not what came", shown(path));
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Is just what is to be there in the directories that are changed? In others their own marks say it.
fn are_all(root: &OwnedFd, names: &Names) -> io::Result<()> {
    let changed = names
        .iter()
        .filter(|(entry, known)| entry.kind == Kind::Directory && !matches!(known, Known::Mark(_)));
    let mut inner: HashMap<&[u8], Vec<&[u8]>> = changed
        .map(|(entry, _)| (entry.path.as_slice(), Vec::new()))
        .collect();
    for (entry, _) in names.iter().filter(|(entry, _)| !entry.path.is_empty()) {
        let (directory, name) = split(&entry.path);
        if let Some(inner) = inner.get_mut(directory) {
            inner.push(name);
        }
    }
    for (directory, mut known) in inner {
        let there = inside(root, directory, OFlags::RDONLY).and_then(|open| names_in(&open));
        let there = there.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => is_not(directory),
            kind => io::Error::new(kind, format!("{}: {e}", shown(directory))),
        })?;
        known.sort_unstable();
        if there != known {
            let other = there
                .iter()
                .map(Vec::as_slice)
                .find(|name| known.binary_search(name).is_err());
            let gone = || {
                let there = |name: &&[u8]| there.iter().any(|other| other == name);
                known.iter().copied().find(|name| !there(name))
            };
            let name = other.or_else(gone).unwrap_or_default();
            return Err(is_not(&match directory {
                [] => name.to_vec(),
                directory => [directory, name].join(&b'/'),
            }));
        }
    }
    Ok(())
}

fn is_of(entry: &Entry, stat: &Stat, rights: Rights, when: When) -> bool {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let same = match entry.kind {
        Kind::File => kind == FileType::RegularFile && stat.st_size as u64 == entry.size,
        Kind::Directory => kind == FileType::Directory,
        Kind::Symlink(_) => kind == FileType::Symlink,
        Kind::Hardlink(_) => kind != FileType::Directory,
        Kind::Character(..) => kind == FileType::CharacterDevice,
        Kind::Disk(..) => kind == FileType::BlockDevice,
        Kind::Fifo => kind == FileType::Fifo,
    };
    let is_any = match entry.kind {
        // The first name has what there is to know.
        Kind::Hardlink(_) => true,
        Kind::Directory => matches!(when, When::Made | When::Between),
        _ => when == When::Made,
    };
    same && (is_any || rights.has(entry, stat))
}

impl Tree {
    /// The tree that came to be this one. Its stream is as it was, as long as it [is untouched](Self::is_untouched).
    pub fn remembered(top: &Path, names: &[u8]) -> io::Result<Self> {
        let root = open_top(top)?;
        let names = read(names)?.into_iter().map(|(entry, known)| match known {
            Known::Mark(mark) => (entry, Some(mark)),
            Known::Nothing | Known::Inode(_) => (entry, None),
        });
        Ok(Self::new(root, names, now()))
    }

    /// Has nobody so much as touched anything in it? Nothing is read for that, and of directories the top alone: whatever is
    /// done in one changes its own times, as moving the tree changes the top's.
    pub fn is_untouched(&self) -> io::Result<bool> {
        let mut in_top = Vec::new();
        for Node { entry, mark, .. } in &self.nodes {
            let path = entry.path.as_slice();
            if path.is_empty() {
                continue;
            }
            if !path.contains(&b'/') {
                in_top.push(path);
            }
            match rustix::fs::statat(&self.root, path, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if *mark == Some(Mark::of(&stat)) => {}
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
                Err(e) => return Err(e.into()),
            }
        }
        in_top.sort_unstable();
        Ok(names_in(&self.root)? == in_top)
    }
}

/// Of what is remembered of a tree, and of what its top is now, but for its time: some file systems (XFS) change that where
/// it is exchanged for another one.
pub(crate) fn digest(top: &Path, names: &[u8]) -> io::Result<Hash> {
    let root: OwnedFd = open_top(top)?;
    let entry = Entry {
        modified: (0, 0),
        ..take(&root, Vec::new(), &rustix::fs::fstat(&root)?, false)?.entry
    };
    let mut hasher = blake3::Hasher::new();
    hasher.update(&postcard::to_stdvec(&entry).map_err(io::Error::other)?);
    hasher.update(names);
    Ok(*hasher.finalize().as_bytes())
}
