//! A tree that came, known again without reading it: its names as they came, and what each is known by here.
//!
//! The source's tree can be told from its own names alone. What came cannot: whoever is not root has made it with other
//! owners, and its stream has those of the source.

use super::look::{names, take};
use super::{Mark, Node, Tree, now};
use crate::manifest::Hash;
use crate::tar::{Entry, Kind};
use crate::unpack::open_top;
use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// What the names of another form do not begin with.
const FORM: u32 = 1;

/// Names in the order of the tar; a mark is missing where it is found out later.
pub(crate) type Names = Vec<(Entry, Option<Mark>)>;

/// To be kept; for [`read`].
pub(crate) fn written(names: &[(Entry, Option<Mark>)]) -> io::Result<Vec<u8>> {
    postcard::to_stdvec(&(FORM, names)).map_err(io::Error::other)
}

fn read(bytes: &[u8]) -> io::Result<Names> {
    let bad = |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("names: {why}"));
    let (form, names): (u32, Names) =
        postcard::from_bytes(bytes).map_err(|e| bad(e.to_string()))?;
    match form {
        FORM => Ok(names),
        form => Err(bad(format!("of the unknown form {form}"))),
    }
}

/// Looks at those whose marks are missing; but for the top.
///
/// Errors: reading; `InvalidData`, naming it: it is not what came.
pub(crate) fn marked(top: &Path, names: &mut Names) -> io::Result<()> {
    let root = open_top(top)?;
    for (entry, mark) in names {
        if mark.is_none() && !entry.path.is_empty() {
            let stat = rustix::fs::statat(&root, &entry.path, AtFlags::SYMLINK_NOFOLLOW)?;
            if !is_of(entry, &stat) {
                let why = format!("{} is not what came", entry.shown());
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            *mark = Some(Mark::of(&stat));
        }
    }
    Ok(())
}

/// The same of what [`written`] has made.
pub(crate) fn marked_again(top: &Path, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut names = read(bytes)?;
    marked(top, &mut names)?;
    written(&names)
}

/// What came, if it is all there, and nothing else, with the marks that it has now.
pub(crate) fn of_what_is_there(top: &Path, bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let (mut names, there) = (read(bytes)?, Tree::open(top)?);
    let both = names.iter().zip(&there.nodes);
    let same = names.len() == there.nodes.len()
        && both.into_iter().all(|((entry, _), node)| {
            (&entry.path, entry.size) == (&node.entry.path, node.entry.size)
        });
    for ((_, mark), node) in names.iter_mut().zip(&there.nodes).skip(1) {
        *mark = node.mark;
    }
    same.then(|| written(&names)).transpose()
}

fn is_of(entry: &Entry, stat: &Stat) -> bool {
    let kind = FileType::from_raw_mode(stat.st_mode);
    match entry.kind {
        Kind::File => kind == FileType::RegularFile && stat.st_size as u64 == entry.size,
        Kind::Directory => kind == FileType::Directory,
        Kind::Symlink(_) => kind == FileType::Symlink,
        Kind::Hardlink(_) => kind != FileType::Directory,
        Kind::Character(..) => kind == FileType::CharacterDevice,
        Kind::Disk(..) => kind == FileType::BlockDevice,
        Kind::Fifo => kind == FileType::Fifo,
    }
}

impl Tree {
    /// The tree that came to be this one. Its stream is as it was, as long as it [is untouched](Self::is_untouched).
    pub fn remembered(top: &Path, names: &[u8]) -> io::Result<Self> {
        let root = open_top(top)?;
        Ok(Self::new(root, read(names)?.into_iter(), now()))
    }

    /// Has nobody so much as touched anything in it? Nothing is read for that, and of directories the top alone: whatever is
    /// done in one changes its own times, as moving the tree changes the top's.
    pub fn is_untouched(&self) -> io::Result<bool> {
        for Node { entry, mark, .. } in &self.nodes {
            let Some(mark) = mark.filter(|_| !entry.path.is_empty()) else {
                continue;
            };
            let path = entry.path.as_slice();
            match rustix::fs::statat(&self.root, path, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if mark == Mark::of(&stat) => {}
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => return Ok(false),
                Err(e) => return Err(e.into()),
            }
        }
        let below = self.nodes.iter().map(|node| node.entry.path.as_slice());
        let in_top = below.filter(|path| !path.is_empty() && !path.contains(&b'/'));
        let mut known: Vec<&[u8]> = in_top.collect();
        known.sort_unstable();
        Ok(names(&self.root)? == known)
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
