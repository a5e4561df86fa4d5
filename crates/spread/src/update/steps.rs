//! What is done in a tree so that it becomes its next version, and what undoes it.
//!
//! They are on the disk before the first one is carried out. Whoever is killed meanwhile leaves a tree that is brought to
//! its end by carrying them out again: what is done already shows in what is still beside the tree.

use crate::tar::{Entry, Kind, shown, split};
use crate::tree::{self, Known, Names, When};
use crate::unpack::{Rights, inside, open_top};
use rustix::fs::{AtFlags, OFlags, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// In the order in which they are carried out. Paths are from the tree's top, places from that of what was made beside it.
#[derive(Default, Serialize, Deserialize)]
pub struct Steps {
    /// The inode of the tree's top.
    top: u64,
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
    /// Somebody has changed it: it is left as it is. If some of the steps were done, it is of two versions.
    Left(io::Error, bool),
    /// It may be of two versions. What is to be done is to be tried again.
    Later(io::Error),
}

/// Is this what comes of somebody else's work in a tree, and will be the same the next time?
pub fn is_changed(e: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, InvalidData, NotADirectory, NotFound};
    [AlreadyExists, InvalidData, NotADirectory, NotFound].contains(&e.kind())
}

impl Steps {
    /// None yet, in the tree whose top has this inode.
    pub fn in_top(inode: u64) -> Self {
        Self {
            top: inode,
            ..Self::default()
        }
    }

    /// Makes the tree the new version, and waits until it is on the disk. Steps that are done already are done. `again`: what
    /// the old and the new version are known by, if somebody may have been at work in the tree since it was looked at.
    pub fn carry_out(
        &self,
        tree: &Path,
        beside: &Path,
        again: Option<(Names, Names)>,
    ) -> Result<(), Stopped> {
        let site = self.site(tree, beside).map_err(|e| match is_changed(&e) {
            true => Stopped::Left(e, false),
            false => Stopped::Later(e),
        })?;
        if let Some((old, new)) = again {
            self.look(&site, tree, old, new)?;
        }
        let result = self.forward(&site, usize::MAX);
        let result = result.and_then(|()| Ok(rustix::fs::syncfs(&site.tree)?));
        result.map_err(|why| self.undo(&site, why))
    }

    /// Opens them.
    ///
    /// Errors: `InvalidData`: another tree has this name.
    pub(super) fn site(&self, tree: &Path, beside: &Path) -> io::Result<Site> {
        let site = Site::open(tree, beside)?;
        match rustix::fs::fstat(&site.tree)?.st_ino == self.top {
            true => Ok(site),
            false => {
                let why = format!("{} is another tree now", tree.display());
                Err(io::Error::new(io::ErrorKind::InvalidData, why))
            }
        }
    }

    /// Is all in the tree as whoever was killed has left it?
    fn look(&self, site: &Site, tree: &Path, old: Names, new: Names) -> Result<(), Stopped> {
        let done = self.moves.iter().map(|step| site.is_done(step));
        let done: Vec<bool> = done.collect::<io::Result<_>>().map_err(Stopped::Later)?;
        let mut now = self.names(of_files(old), of_files(new), &done);
        let Err(why) = tree::mark(tree, &mut now, When::Between) else {
            return Ok(());
        };
        if !is_changed(&why) {
            return Err(Stopped::Later(why));
        }
        if !done.contains(&true) {
            return Err(Stopped::Left(why, false));
        }
        // These would go, with all that somebody has done to them.
        let came: HashSet<&[u8]> = (self.moves.iter().zip(done))
            .filter_map(|(step, done)| done.then_some(step.path()))
            .collect();
        now.retain(|(entry, _)| above(&entry.path).any(|path| came.contains(path)));
        Err(match tree::mark(tree, &mut now, When::Between) {
            Ok(()) => self.undo(site, why),
            Err(e) if is_changed(&e) => Stopped::Left(e, true),
            Err(e) => Stopped::Later(e),
        })
    }

    fn undo(&self, site: &Site, why: io::Error) -> Stopped {
        let back = self.back(site);
        match back.and_then(|()| Ok(rustix::fs::syncfs(&site.tree)?)) {
            Ok(()) => Stopped::Undone(why),
            Err(e) => {
                let both = io::Error::other(format!("{why}, and that cannot be undone ({e})"));
                match is_changed(&e) {
                    true => Stopped::Left(both, true),
                    false => Stopped::Later(both),
                }
            }
        }
    }

    /// What is in the tree when all is undone; for [`tree::mark`].
    pub fn names_before(&self, old: Names, new: Names) -> Names {
        self.names(old, new, &vec![false; self.moves.len()])
    }

    /// What is in the tree when these moves are done.
    fn names(&self, old: Names, new: Names, done: &[bool]) -> Names {
        // Is the old one still there, and the new one there already?
        let mut moved: HashMap<&[u8], (bool, bool)> = HashMap::new();
        for (step, done) in self.moves.iter().zip(done) {
            let state = moved.entry(step.path()).or_insert((!done, *done));
            state.1 = *done;
        }
        let state = |entry: &Entry| above(&entry.path).find_map(|path| moved.get(path)).copied();
        let firsts = self.links.iter().map(|link| link.first.as_slice());
        let changed: HashSet<&[u8]> = firsts.chain(moved.keys().copied()).collect();
        let changed: HashSet<u64> = (old.iter())
            .filter(|(entry, _)| changed.contains(entry.path.as_slice()))
            .filter_map(|(_, known)| known.inode())
            .collect();
        let (came, stay): (Names, Names) = new
            .into_iter()
            .partition(|(entry, _)| state(entry).is_some());
        let stay: HashMap<Vec<u8>, Known> = (stay.into_iter())
            .map(|(entry, known)| (entry.path, known))
            .collect();
        let old = old.into_iter().filter_map(|(entry, known)| {
            let known = match (state(&entry), known) {
                (None, known) => stay.get(&entry.path).copied().unwrap_or(known),
                (Some((true, _)), Known::Mark(mark)) if changed.contains(&mark.inode) => {
                    Known::Inode(mark.inode)
                }
                (Some((true, _)), known) => known,
                (Some((false, _)), _) => return None,
            };
            Some((entry, known))
        });
        let came = (came.into_iter())
            .filter(|(entry, _)| state(entry).is_some_and(|(_, is_there)| is_there));
        old.chain(came).collect()
    }

    /// `most`: so many moves.
    pub(super) fn forward(&self, site: &Site, most: usize) -> io::Result<()> {
        for link in &self.links {
            site.link(link).map_err(|e| about(&link.path, e))?;
        }
        for step in self.moves.iter().take(most) {
            if !site.is_done(step)? {
                site.step(step).map_err(|e| about(step.path(), e))?;
            }
        }
        if most < self.moves.len() {
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

    /// Undoes the moves that are done.
    pub(super) fn back(&self, site: &Site) -> io::Result<()> {
        for step in self.moves.iter().rev() {
            if site.is_done(step)? {
                site.step_back(step).map_err(|e| about(step.path(), e))?;
            }
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

/// With what the file has in place of its other names: the first one may be gone from the tree.
fn of_files(names: Names) -> Names {
    let first = |entry: &Entry| match &entry.kind {
        Kind::Hardlink(first) => Some(first.clone()),
        _ => None,
    };
    let firsts: HashSet<Vec<u8>> = names.iter().filter_map(|(entry, _)| first(entry)).collect();
    let files = names
        .iter()
        .filter(|(entry, _)| firsts.contains(&entry.path));
    let files: HashMap<Vec<u8>, Entry> = files
        .map(|(entry, _)| (entry.path.clone(), entry.clone()))
        .collect();
    let name = |(entry, known): (Entry, Known)| {
        let file = first(&entry).and_then(|first| files.get(&first));
        let entry = match file {
            Some(file) => Entry {
                path: entry.path,
                ..file.clone()
            },
            None => entry,
        };
        (entry, known)
    };
    names.into_iter().map(name).collect()
}

/// A path, and those of the directories that it is in, without the top.
fn above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(path), |path| Some(split(path).0))
        .take_while(|path| !path.is_empty())
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

    fn is_done(&self, step: &Move) -> io::Result<bool> {
        let beside = |place: &[u8]| inode(&self.beside, place);
        Ok(match step {
            Move::Out { place, .. } => beside(place)?.is_some(),
            Move::In { place, .. } => beside(place)?.is_none(),
            Move::Exchange { place, inode, .. } => beside(place)? != Some(*inode),
        })
    }

    fn step(&self, step: &Move) -> io::Result<()> {
        match step {
            Move::Out { path, place } => self.rename(&self.tree, path, &self.beside, place),
            Move::In { path, place } => self.rename(&self.beside, place, &self.tree, path),
            Move::Exchange { path, place, .. } => self.exchange(path, place),
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

#[cfg(test)]
impl Steps {
    /// One more, of what is not there perhaps.
    pub fn out_of(&mut self, path: &str) {
        let (path, place) = (path.into(), b"out".to_vec());
        self.moves.push(Move::Out { path, place });
    }
}
