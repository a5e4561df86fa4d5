//! A tree of files as one stream of bytes that can be read at any place: its tar, which is nowhere written down.
//!
//! The source sends it; a receiver has it again of the tree that came, as the base of the next version.

mod look;
mod remembered;

pub use look::is_kept;
use look::look;
pub(crate) use remembered::{Known, Names, When, digest, mark, read, written};

use crate::manifest::{Bad, Hash};
use crate::tar::{END, Entry, Kind};
use rustix::fs::{Mode, OFlags, ResolveFlags, Stat};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::OnceLock;

/// A tree, as it was when it was looked at.
pub struct Tree {
    root: OwnedFd,
    nodes: Vec<Node>,
    size: u64,
    /// When it was looked at, in seconds since 1970.
    looked: i64,
    digest: OnceLock<Hash>,
    pub(crate) chunks: OnceLock<Vec<crate::chunks::Chunk>>,
}

/// What a file is known by that need not be read again; zeros if it has to be.
pub(crate) type Key = [u8; 16];

/// A file that was changed so many seconds before it was looked at, or later, may change again without that its times
/// show it.
const SETTLED: i64 = 2;

pub(crate) struct Node {
    pub entry: Entry,
    /// Where its header is in the stream, and how long that is.
    pub start: u64,
    pub header: u64,
    /// What changes with whatever happens to it. Not of the top of a tree that came: it is moved when all is in it.
    pub mark: Option<Mark>,
}

/// Inode, and time of its last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub inode: u64,
    changed: (i64, i64),
}

impl Mark {
    pub fn of(stat: &Stat) -> Self {
        Self {
            inode: stat.st_ino,
            changed: (stat.st_ctime, stat.st_ctime_nsec as i64),
        }
    }
}

impl Tree {
    /// Looks at a tree on disk.
    ///
    /// Errors: reading; `Unsupported`, naming it: what cannot be sent.
    pub fn open(top: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(top, flags, Mode::empty())?;
        let looked = now();
        let nodes = look(&root)?;
        let nodes = nodes.into_iter().map(|(entry, mark)| (entry, Some(mark)));
        Ok(Self::new(root, nodes, looked))
    }

    fn new(root: OwnedFd, nodes: impl Iterator<Item = (Entry, Option<Mark>)>, looked: i64) -> Self {
        let mut size = 0_u64;
        let place = |(entry, mark): (Entry, Option<Mark>)| {
            let header = entry.header_len();
            let start = size;
            size = size.saturating_add(header).saturating_add(entry.padded());
            Node {
                entry,
                start,
                header,
                mark,
            }
        };
        Self {
            nodes: nodes.map(place).collect(),
            size: size.saturating_add(END),
            root,
            looked,
            digest: OnceLock::new(),
            chunks: OnceLock::new(),
        }
    }

    /// Bytes of the stream.
    pub fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// What is at this offset of the stream, and where its content begins.
    pub(crate) fn at(&self, at: u64) -> (&Node, u64) {
        let index = self.nodes.partition_point(|node| node.start <= at);
        let node = &self.nodes[index.saturating_sub(1)];
        (node, node.start + node.header)
    }

    /// What the content of a file is known by: two that have the same were read as the same bytes.
    pub(crate) fn key(&self, node: &Node) -> Key {
        let mark = node.mark.filter(|_| node.entry.kind == Kind::File);
        let Some(mark) = mark.filter(|mark| mark.changed.0 + SETTLED < self.looked) else {
            return Key::default();
        };
        let mut hasher = blake3::Hasher::new();
        let (seconds, nanos) = node.entry.modified;
        for number in [
            mark.inode,
            mark.changed.0 as u64,
            mark.changed.1 as u64,
            seconds as u64,
            nanos.into(),
            node.entry.size,
        ] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(&node.entry.path);
        let mut key = Key::default();
        hasher.finalize_xof().fill(&mut key);
        key
    }

    /// The top itself.
    pub fn handle(&self) -> io::Result<File> {
        Ok(self.root.try_clone()?.into())
    }

    /// Reads the stream.
    ///
    /// Errors: reading; `InvalidData`, naming the file: it is not as it was.
    pub fn read_exact_at(&self, mut buffer: &mut [u8], mut at: u64) -> io::Result<()> {
        if at.saturating_add(buffer.len() as u64) > self.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while !buffer.is_empty() {
            let index = self.nodes.partition_point(|node| node.start <= at);
            let next = self.nodes.get(index).map_or(self.size, |node| node.start);
            let node = &self.nodes[index - 1];
            let content = node.start + node.header;
            let end = match () {
                () if at < content => content,
                () if at < content + node.entry.size => content + node.entry.size,
                () => next,
            };
            let len = (end - at).min(buffer.len() as u64) as usize;
            let (piece, rest) = buffer.split_at_mut(len);
            if at < content {
                let from = (at - node.start) as usize;
                piece.copy_from_slice(&node.entry.header()[from..from + len]);
            } else if at < content + node.entry.size {
                self.content(node, piece, at - content)?;
            } else {
                piece.fill(0);
            }
            buffer = rest;
            at += len as u64;
        }
        Ok(())
    }

    fn content(&self, node: &Node, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let name = || node.entry.shown();
        let mut read = || -> io::Result<bool> {
            let file = self.file(node)?;
            file.read_exact_at(buffer, at)?;
            // After reading: whatever happened until then is seen.
            node.is_still(&file)
        };
        match read() {
            Ok(true) => Ok(()),
            Ok(false) => Err(changed(&name())),
            Err(e) => match e.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::NotFound
                | io::ErrorKind::NotADirectory => Err(changed(&name())),
                kind => Err(io::Error::new(kind, format!("{}: {e}", name()))),
            },
        }
    }

    /// Opens a file of the tree; no link on the way, or in its place, leads out of it.
    pub(crate) fn file(&self, node: &Node) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let path = node.entry.path.as_slice();
        let file = rustix::fs::openat2(&self.root, path, flags, Mode::empty(), inside);
        Ok(file.map_err(crate::unpack::no_link)?.into())
    }

    /// Does the file system know that there is nothing? Only looked at where it is all of one file.
    pub fn is_hole(&self, at: u64, len: u32) -> bool {
        let index = self.nodes.partition_point(|node| node.start <= at);
        let node = &self.nodes[index.saturating_sub(1)];
        let content = node.start + node.header;
        at >= content
            && at + u64::from(len) <= content + node.entry.size
            && self
                .file(node)
                .is_ok_and(|file| crate::source::is_hole(&file, at - content, len))
    }

    /// Is it all still as it was? The error names what is not.
    pub fn same(&self) -> Result<(), Bad> {
        let now = look(&self.root).map_err(|why| Bad(format!("reading: {why}")))?;
        let before = self.nodes.iter().map(|node| (&node.entry, node.mark));
        let now = now.iter().map(|(entry, mark)| (entry, Some(*mark)));
        let (mut before, mut now) = (before.fuse(), now.fuse());
        loop {
            match (before.next(), now.next()) {
                (None, None) => return Ok(()),
                (one, two) if one == two => {}
                // The top changes when something in it comes or goes: that is what is to be named.
                (Some((one, _)), Some((two, _))) if one.path.is_empty() && two.path.is_empty() => {}
                (Some((one, _)), Some((two, _)))
                    if one.kind == Kind::Directory && one.path == two.path =>
                {
                    return Err(Bad(changed(&format!("{}/", one.shown())).to_string()));
                }
                (one, two) => {
                    let first = [one, two].into_iter().flatten().map(|(entry, _)| entry);
                    let first = first.min_by(|one, two| one.path.cmp(&two.path));
                    let name = first.map(Entry::shown).unwrap_or_default();
                    return Err(Bad(changed(&name).to_string()));
                }
            }
        }
    }

    /// Of all that is known without reading files: another one for whatever is changed.
    pub fn digest(&self) -> Hash {
        *self.digest.get_or_init(|| self.make_digest())
    }

    fn make_digest(&self) -> Hash {
        let mut hasher = blake3::Hasher::new();
        for Node { entry, mark, .. } in &self.nodes {
            let (name, link) = (entry.name(), entry.link());
            for part in [&name, &link, &entry.records(&name, &link)] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
            let (kind, major, minor) = entry.kind.numbers();
            let (seconds, nanos) = entry.modified;
            for number in [
                kind,
                major,
                minor,
                entry.mode,
                entry.user,
                entry.group,
                nanos,
            ] {
                hasher.update(&number.to_le_bytes());
            }
            hasher.update(&entry.size.to_le_bytes());
            hasher.update(&seconds.to_le_bytes());
            // What moves the tree as a whole changes its top's times, and nothing in it.
            if let Some(mark) = mark.filter(|_| !entry.path.is_empty()) {
                hasher.update(&mark.inode.to_le_bytes());
                hasher.update(&mark.changed.0.to_le_bytes());
                hasher.update(&mark.changed.1.to_le_bytes());
            }
        }
        *hasher.finalize().as_bytes()
    }
}

impl Node {
    /// Is it what it was when the tree was looked at?
    pub(crate) fn is_still(&self, file: &File) -> io::Result<bool> {
        let data = file.metadata()?;
        let mark = Mark {
            inode: data.ino(),
            changed: (data.ctime(), data.ctime_nsec()),
        };
        Ok(data.is_file()
            && data.size() == self.entry.size
            && self.mark.is_none_or(|before| before == mark))
    }
}

fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs() as i64)
}

pub(crate) fn changed(name: &str) -> io::Error {
    let why = format!("{name} was changed while it was sent");
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
pub(crate) mod tests;
