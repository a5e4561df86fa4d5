//! What is done in a tree so that it becomes its next version, and what undoes it.
//!
//! They are on the disk before the first one is carried out. Whoever is killed meanwhile leaves a tree that is brought to
//! its end by carrying them out again: what is done already shows in what is still beside the tree.

use crate::tar::{Entry, shown, split};
use crate::unpack::{Rights, inside, open_top};
use rustix::fs::{AtFlags, OFlags, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// In the order in which they are carried out. Paths are from the tree's top, places from that of what was made beside it.
#[derive(Default, Serialize, Deserialize)]
pub struct Steps {
    pub(super) links: Vec<Link>,
    pub(super) moves: Vec<Move>,
    pub(super) directories: Vec<Dress>,
}

/// A second name of a file that stays.
#[derive(Serialize, Deserialize)]
pub(super) struct Link {
    pub first: Vec<u8>,
    /// Where it will be in the tree.
    pub path: Vec<u8>,
    pub place: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
pub(super) enum Move {
    /// What is in the tree goes.
    Out { path: Vec<u8>, place: Vec<u8> },
    /// What was made comes to where nothing is.
    In { path: Vec<u8>, place: Vec<u8> },
    /// What was made, of this inode, changes places with what is there.
    Exchange {
        path: Vec<u8>,
        place: Vec<u8>,
        inode: u64,
    },
}

/// A directory of the tree gets its times and rights: as it was before, and as it is to be; none if it is not there then.
#[derive(Serialize, Deserialize)]
pub(super) struct Dress {
    pub before: Option<Entry>,
    pub after: Option<Entry>,
}

/// Why a tree is not the new version.
#[derive(Debug)]
pub enum Stopped {
    /// It is the old one.
    Undone(io::Error),
    /// It is of both, and that could not be undone, for the second reason.
    Between(io::Error, io::Error),
}

impl Steps {
    /// Makes the tree the new version, and waits until it is on the disk. Steps that are done already are done.
    pub fn carry_out(&self, tree: &Path, beside: &Path) -> Result<(), Stopped> {
        let site = Site::open(tree, beside).map_err(Stopped::Undone)?;
        let mut done = 0;
        let result = self.forward(&site, &mut done, usize::MAX);
        let result = result.and_then(|()| Ok(rustix::fs::syncfs(&site.tree)?));
        result.map_err(|why| match self.back(&site, done) {
            Ok(()) => Stopped::Undone(why),
            Err(e) => Stopped::Between(why, e),
        })
    }

    /// `most`: so many moves. `done`: how many there were.
    pub(super) fn forward(&self, site: &Site, done: &mut usize, most: usize) -> io::Result<()> {
        for link in &self.links {
            site.link(link).map_err(|e| about(&link.path, e))?;
        }
        for step in self.moves.iter().take(most) {
            site.step(step).map_err(|e| about(step.path(), e))?;
            *done += 1;
        }
        if *done < self.moves.len() {
            return Ok(());
        }
        for Dress { before, after } in self.directories.iter().rev() {
            if let Some(after) = after {
                let dressed = site.dress(before.as_ref().unwrap_or(after), after);
                dressed.map_err(|e| about(&after.path, e))?;
            }
        }
        Ok(())
    }

    /// Undoes the first moves.
    pub(super) fn back(&self, site: &Site, done: usize) -> io::Result<()> {
        for step in self.moves.iter().take(done).rev() {
            site.step_back(step).map_err(|e| about(step.path(), e))?;
        }
        for Dress { before, after } in self.directories.iter().rev() {
            if let Some(before) = before {
                let dressed = site.dress(after.as_ref().unwrap_or(before), before);
                dressed.map_err(|e| about(&before.path, e))?;
            }
        }
        Ok(())
    }
}

fn about(path: &[u8], e: io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{}: {e}", shown(path)))
}

impl Move {
    pub fn path(&self) -> &[u8] {
        match self {
            Self::Out { path, .. } | Self::In { path, .. } | Self::Exchange { path, .. } => path,
        }
    }
}

/// A tree, and what was made beside it.
pub(super) struct Site {
    tree: OwnedFd,
    beside: OwnedFd,
    rights: Rights,
}

impl Site {
    pub fn open(tree: &Path, beside: &Path) -> io::Result<Self> {
        Ok(Self {
            tree: open_top(tree)?,
            beside: open_top(beside)?,
            rights: Rights::of_this_process(),
        })
    }

    fn link(&self, link: &Link) -> io::Result<()> {
        let Link { first, path, place } = link;
        let inode = inode(&self.tree, first)?;
        if inode.is_some() && inode == self::inode(&self.tree, path)? {
            return Ok(());
        }
        let (directory, name) = split(first);
        let from = inside(&self.tree, directory, OFlags::PATH)?;
        let (to, link) = self.parent(&self.beside, place)?;
        match rustix::fs::linkat(&from, name, &to, link, AtFlags::empty()) {
            Err(Errno::EXIST) => Ok(()),
            other => Ok(other?),
        }
    }

    fn step(&self, step: &Move) -> io::Result<()> {
        match step {
            Move::Out { path, place } => match inode(&self.beside, place)? {
                Some(_) => Ok(()),
                None => self.rename(&self.tree, path, &self.beside, place),
            },
            Move::In { path, place } => match inode(&self.beside, place)? {
                None => Ok(()),
                Some(_) => self.rename(&self.beside, place, &self.tree, path),
            },
            Move::Exchange {
                path,
                place,
                inode: new,
            } => match inode(&self.beside, place)? {
                Some(here) if here == *new => self.exchange(path, place),
                _ => Ok(()),
            },
        }
    }

    fn step_back(&self, step: &Move) -> io::Result<()> {
        match step {
            Move::Out { path, place } => self.rename(&self.beside, place, &self.tree, path),
            Move::In { path, place } => self.rename(&self.tree, path, &self.beside, place),
            Move::Exchange { path, place, .. } => self.exchange(path, place),
        }
    }

    fn rename(&self, from: &OwnedFd, old: &[u8], to: &OwnedFd, new: &[u8]) -> io::Result<()> {
        let (from, old) = self.parent(from, old)?;
        let (to, new) = self.parent(to, new)?;
        self.movable(&from, old)?;
        let flags = RenameFlags::NOREPLACE;
        Ok(rustix::fs::renameat_with(&from, old, &to, new, flags)?)
    }

    fn exchange(&self, path: &[u8], place: &[u8]) -> io::Result<()> {
        let (from, old) = self.parent(&self.beside, place)?;
        let (to, new) = self.parent(&self.tree, path)?;
        self.movable(&from, old)?;
        self.movable(&to, new)?;
        let flags = RenameFlags::EXCHANGE;
        Ok(rustix::fs::renameat_with(&from, old, &to, new, flags)?)
    }

    /// The directory of a path, in which names may be changed, and the name.
    fn parent<'a>(&self, top: &OwnedFd, path: &'a [u8]) -> io::Result<(OwnedFd, &'a [u8])> {
        let (directory, name) = split(path);
        let parent = inside(top, directory, OFlags::PATH)?;
        self.rights.open_up(&parent)?;
        Ok((parent, name))
    }

    /// A directory that gets another parent is changed itself.
    fn movable(&self, parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
        match inside(parent, name, OFlags::PATH) {
            Ok(directory) => self.rights.open_up(&directory),
            Err(e) if e.kind() == io::ErrorKind::CrossesDevices => Err(e),
            // It is none.
            Err(_) => Ok(()),
        }
    }

    fn dress(&self, before: &Entry, after: &Entry) -> io::Result<()> {
        let directory = inside(&self.tree, &after.path, OFlags::RDONLY)?;
        self.rights.dress_anew(&directory, before, after)
    }
}

/// Of what has this path; none if nothing has.
fn inode(top: &OwnedFd, path: &[u8]) -> io::Result<Option<u64>> {
    match rustix::fs::statat(top, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat.st_ino)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
