//! A tree becomes its next version where it is: what is new is made beside it, and moved to its place.
//!
//! First all is made and on the disk, and nothing in the tree is touched. Then [`Steps`] are carried out, each of which is
//! one name that is exchanged, moved or removed at once: whoever has a file of the tree open, or works in a directory of
//! it, keeps it. Between the first and the last step the tree is of both versions.

mod steps;

pub use steps::{Steps, Stopped, is_changed};

use crate::filling::Part;
use crate::manifest::FRAME;
use crate::place::is_zero;
use crate::tar::{Entry, Kind, split};
use crate::tree::{self, Known, Mark, Names, Node, Tree};
use crate::unpack::{Flow, Unpacker, bad, each, pass_padding};
use rustix::fs::AtFlags;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use steps::{Dress, Link, Move};

/// Makes what is new in a tree, and waits until it is on the disk. `base`: the tree that is to become this one. `beside`:
/// a directory that is not there yet, in the same file system. Returns what is to be remembered of the new one, too: marks are
/// missing of what is changed when the steps are carried out.
///
/// Errors are those of [`crate::unpack::unpack`].
pub fn prepare(
    from: &mut impl Flow,
    base: &Arc<Tree>,
    beside: &Path,
) -> io::Result<(Steps, Vec<u8>)> {
    let known = base.nodes().iter().enumerate();
    let known = known.map(|(index, node)| (node.entry.path.as_slice(), index));
    let mut update = Update {
        base,
        known: known.collect(),
        seen: vec![false; base.nodes().len()],
        stays: Vec::new(),
        unpacker: Unpacker::new(beside, Some(base))?,
        made: HashMap::new(),
        inside: None,
        stay: BTreeMap::new(),
        touched: BTreeSet::new(),
        gone: HashSet::new(),
        steps: Steps::in_top(base.handle()?.metadata()?.ino()),
    };
    let names = each(from, Some(base), |entry, from| update.take(entry, from))?;
    update.unpacker.end()?;
    rustix::fs::syncfs(update.unpacker.root())?;
    update.end(names)
}

struct Update<'a> {
    base: &'a Tree,
    /// Its nodes, by their paths.
    known: HashMap<&'a [u8], usize>,
    /// Those that came again.
    seen: Vec<bool>,
    /// Of all that came: which of the base's it is, if that stays as it is.
    stays: Vec<Option<usize>>,
    unpacker: Unpacker,
    /// What was made, and where beside the tree.
    made: HashMap<Vec<u8>, Vec<u8>>,
    /// The directory that was made last, and where: what follows is in it.
    inside: Option<(Vec<u8>, Vec<u8>)>,
    /// Directories of both versions, as they are in the new one.
    stay: BTreeMap<Vec<u8>, Entry>,
    /// Those of them that get their times and rights anew.
    touched: BTreeSet<Vec<u8>>,
    /// Directories in whose place something else comes.
    gone: HashSet<Vec<u8>>,
    steps: Steps,
}

impl Update<'_> {
    fn take(&mut self, entry: Entry, from: &mut impl Flow) -> io::Result<()> {
        self.stays.push(None);
        if let Some((above, place)) = &self.inside {
            let below = entry.path.strip_prefix(above.as_slice());
            if let Some([b'/', below @ ..]) = below {
                let place = [place, below].join(&b'/');
                return self.make(entry, place, Vec::new(), from);
            }
            self.inside = None;
        }
        let (parent, _) = split(&entry.path);
        if !entry.path.is_empty() && !self.stay.contains_key(parent) {
            return Err(bad("its directory has not come".to_owned()));
        }
        let index = self.known.get(entry.path.as_slice()).copied();
        if let Some(index) = index {
            self.seen[index] = true;
        }
        let base = self.base;
        let before = index.map(|index| &base.nodes()[index]);
        let mut parts = Vec::new();
        match before {
            Some(node)
                if (&node.entry.kind, &entry.kind) == (&Kind::Directory, &Kind::Directory) =>
            {
                if node.entry != entry {
                    self.touched.insert(entry.path.clone());
                }
                self.stays(index);
                self.stay.insert(entry.path.clone(), entry);
                return Ok(());
            }
            Some(node) if node.entry == entry => match &entry.kind {
                Kind::File => {
                    let same = same(base, node, from)?;
                    if same == entry.size {
                        self.stays(index);
                        return pass_padding(&entry, from);
                    }
                    parts.extend((same > 0).then_some(Part {
                        at: 0,
                        from: node.start + node.header,
                        len: same,
                    }));
                }
                Kind::Hardlink(first) if self.made.contains_key(first) => {}
                _ => {
                    self.stays(index);
                    return Ok(());
                }
            },
            _ => {}
        }
        self.put(before, entry, parts, from)
    }

    /// What came last is this one of the base's.
    fn stays(&mut self, index: Option<usize>) {
        if let Some(stays) = self.stays.last_mut() {
            *stays = index;
        }
    }

    /// What is new, or another one: it is made, and will be moved.
    fn put(
        &mut self,
        before: Option<&Node>,
        entry: Entry,
        parts: Vec<Part>,
        from: &mut impl Flow,
    ) -> io::Result<()> {
        let place = format!("in.{}", self.steps.moves.len()).into_bytes();
        let (path, is_directory) = (entry.path.clone(), entry.kind == Kind::Directory);
        self.touched.insert(split(&path).0.to_vec());
        if is_directory {
            self.inside = Some((path.clone(), place.clone()));
            // Whoever moves it may have to change its rights for that.
            let (before, after) = (None, Some(entry.clone()));
            self.steps.directories.push(Dress { before, after });
        }
        self.make(entry, place.clone(), parts, from)?;
        let was_directory = before.filter(|node| node.entry.kind == Kind::Directory);
        if let Some(node) = was_directory {
            self.gone.insert(path.clone());
            let (before, after) = (Some(node.entry.clone()), None);
            self.steps.directories.push(Dress { before, after });
        }
        let linked = self
            .steps
            .links
            .last()
            .is_some_and(|link| link.place == place);
        match before {
            None => {}
            // It is made when the steps are carried out: until then nobody knows that it is another one.
            Some(_) if linked => self.out(path.clone()),
            Some(_) => {
                let root = self.unpacker.root();
                let stat = rustix::fs::statat(root, &place, AtFlags::SYMLINK_NOFOLLOW)?;
                let inode = stat.st_ino;
                self.steps.moves.push(Move::Exchange { path, place, inode });
                return Ok(());
            }
        }
        self.steps.moves.push(Move::In { path, place });
        Ok(())
    }

    fn out(&mut self, path: Vec<u8>) {
        let place = format!("out.{}", self.steps.moves.len()).into_bytes();
        self.steps.moves.push(Move::Out { path, place });
    }

    /// Makes it beside the tree. A second name of a file that stays is made later, as that changes the file.
    fn make(
        &mut self,
        mut entry: Entry,
        place: Vec<u8>,
        parts: Vec<Part>,
        from: &mut impl Flow,
    ) -> io::Result<()> {
        let path = entry.path.clone();
        if let Kind::Hardlink(first) = &entry.kind {
            match self.made.get(first) {
                Some(made) => entry.kind = Kind::Hardlink(made.clone()),
                None => {
                    // The one that it comes to is made by then, and is changed by that.
                    if let Some(above) = self.unpacker.directory(split(&place).0) {
                        let (before, after) = (None, Some(above.clone()));
                        self.steps.directories.push(Dress { before, after });
                    }
                    self.steps.links.push(Link {
                        first: first.clone(),
                        path: path.clone(),
                        place: place.clone(),
                    });
                    self.made.insert(path, place);
                    return Ok(());
                }
            }
        }
        match entry.kind {
            Kind::File => self.unpacker.file(entry, &place, parts, from)?,
            _ => self.unpacker.make(entry, &place, from)?,
        }
        self.made.insert(path, place);
        Ok(())
    }

    fn end(mut self, names: Vec<Entry>) -> io::Result<(Steps, Vec<u8>)> {
        let base = self.base;
        let mut above: Option<&[u8]> = None;
        for (index, Node { entry, .. }) in base.nodes().iter().enumerate() {
            let below = above.and_then(|above| entry.path.strip_prefix(above));
            if below.is_some_and(|below| below.starts_with(b"/")) {
                continue;
            }
            let gone = !self.seen[index];
            if gone {
                self.out(entry.path.clone());
                self.touched.insert(split(&entry.path).0.to_vec());
                if entry.kind == Kind::Directory {
                    let (before, after) = (Some(entry.clone()), None);
                    self.steps.directories.push(Dress { before, after });
                }
            }
            if gone || self.gone.contains(&entry.path) {
                above = Some(&entry.path);
            }
        }
        for path in &self.touched {
            let before = self.known.get(path.as_slice());
            let before = before.map(|index| base.nodes()[*index].entry.clone());
            let after = self.stay.remove(path);
            self.steps.directories.push(Dress { before, after });
        }
        let names = tree::written(&self.names(names)?)?;
        Ok((self.steps, names))
    }

    /// What came, with the marks of what nothing is done to any more, and the inodes of what is moved or changed.
    fn names(&self, names: Vec<Entry>) -> io::Result<Names> {
        let nodes = self.base.nodes();
        let mut stays = vec![false; nodes.len()];
        for index in self.stays.iter().flatten() {
            stays[*index] = true;
        }
        let links: HashMap<&[u8], &[u8]> = (self.steps.links.iter())
            .map(|link| (link.path.as_slice(), link.first.as_slice()))
            .collect();
        let mark_of = |path: &[u8]| self.known.get(path).and_then(|index| nodes[*index].mark);
        let root = self.unpacker.root();
        let mut made = HashMap::new();
        for (path, place) in &self.made {
            if !links.contains_key(path.as_slice()) {
                let stat = rustix::fs::statat(root, place, AtFlags::SYMLINK_NOFOLLOW)?;
                made.insert(path.as_slice(), Mark::of(&stat));
            }
        }
        // A file that gets another name, or loses one, or of which one is moved, is changed by that under all of them.
        let linked = links.values().filter_map(|first| mark_of(first));
        let goes = (0..nodes.len()).filter(|index| !stays[*index]);
        let goes = goes.filter_map(|index| nodes[index].mark);
        let moves = self.steps.moves.iter().map(Move::path);
        let comes = moves.filter_map(|path| made.get(path).copied());
        let all = linked.chain(goes).chain(comes);
        let changed: HashSet<u64> = all.map(|mark| mark.inode).collect();
        let entered: HashSet<&[u8]> = links.keys().map(|path| split(path).0).collect();
        let name = |(entry, index): (Entry, &Option<usize>)| {
            let path = entry.path.as_slice();
            let mark = match index {
                Some(index) => nodes[*index].mark,
                None => made.get(path).copied(),
            };
            let same = !self.touched.contains(path) && !entered.contains(path);
            let known = match mark.or_else(|| mark_of(links.get(path)?)) {
                None => Known::Nothing,
                Some(mark) if same && !changed.contains(&mark.inode) => Known::Mark(mark),
                Some(mark) => Known::Inode(mark.inode),
            };
            (entry, known)
        };
        Ok(names.into_iter().zip(&self.stays).map(name).collect())
    }
}

/// So many bytes at a file's beginning are those that it has in the base. They are taken from the stream.
fn same(base: &Tree, node: &Node, from: &mut impl Flow) -> io::Result<u64> {
    let content = node.start + node.header;
    let mut at = 0;
    while at < node.entry.size {
        let left = node.entry.size - at;
        let len = match (from.shared()?, from.zeros()?) {
            (Some((start, len)), _) if start == content + at => len.min(left),
            (None, Some(len)) => {
                let len = len.min(left).min(u64::from(FRAME));
                match are_zeros(base, content + at, len as u32)? {
                    true => len,
                    false => break,
                }
            }
            _ => break,
        };
        from.skip(len);
        at += len;
    }
    Ok(at)
}

fn are_zeros(base: &Tree, at: u64, len: u32) -> io::Result<bool> {
    if base.is_hole(at, len) {
        return Ok(true);
    }
    let mut bytes = vec![0; len as usize];
    base.read_exact_at(&mut bytes, at)?;
    Ok(is_zero(&bytes))
}

#[cfg(test)]
pub(crate) mod tests;
