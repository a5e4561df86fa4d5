//! A tree of files as one stream of bytes that can be read at any place: its tar, which is nowhere written down.
//!
//! The source sends it; a receiver has it again of the tree that came, as the base of the next version.

use crate::manifest::{Bad, Hash};
use crate::tar::{END, Entry, Kind, shown, split};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::OnceLock;

/// Deepest directories; the way to each is open while what is below it is looked at.
const DEEPEST: usize = 400;

/// A tree, as it was when it was looked at.
pub struct Tree {
    root: OwnedFd,
    nodes: Vec<Node>,
    size: u64,
    pub(crate) chunks: OnceLock<Vec<crate::chunks::Chunk>>,
}

pub(crate) struct Node {
    pub entry: Entry,
    /// Where its header is in the stream, and how long that is.
    pub start: u64,
    pub header: u64,
    /// What changes with whatever happens to it; not known of one that is only made from its headers.
    mark: Option<Mark>,
}

/// Inode, and time of its last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    inode: u64,
    changed: (i64, i64),
}

impl Tree {
    /// Looks at a tree on disk.
    ///
    /// Errors: reading; `Unsupported`, naming it: what cannot be sent.
    pub fn open(top: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(top, flags, Mode::empty())?;
        let nodes = look(&root)?;
        let nodes = nodes.into_iter().map(|(entry, mark)| (entry, Some(mark)));
        Ok(Self::new(root, nodes))
    }

    /// The tree that came here, with the headers that it came with.
    pub fn of_headers(top: &Path, mut headers: &[u8]) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(top, flags, Mode::empty())?;
        let mut nodes = Vec::new();
        while let Some(entry) = Entry::read(&mut headers)? {
            nodes.push((entry, None));
        }
        Ok(Self::new(root, nodes.into_iter()))
    }

    fn new(root: OwnedFd, nodes: impl Iterator<Item = (Entry, Option<Mark>)>) -> Self {
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
            let data = file.metadata()?;
            let mark = Mark {
                inode: data.ino(),
                changed: (data.ctime(), data.ctime_nsec()),
            };
            Ok(data.is_file()
                && data.size() == node.entry.size
                && node.mark.is_none_or(|before| before == mark))
        };
        match read() {
            Ok(true) => Ok(()),
            Ok(false) => Err(changed(&name())),
            Err(e) => match e.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound => Err(changed(&name())),
                kind => Err(io::Error::new(kind, format!("{}: {e}", name()))),
            },
        }
    }

    /// Opens a file of the tree; no link on the way, or in its place, leads out of it.
    fn file(&self, node: &Node) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let path = node.entry.path.as_slice();
        let file = rustix::fs::openat2(&self.root, path, flags, Mode::empty(), inside)?;
        Ok(file.into())
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
        let mut hasher = blake3::Hasher::new();
        for node in &self.nodes {
            let entry = &node.entry;
            let (name, link) = (entry.name(), entry.link());
            for part in [&name, &link, &entry.records(&name, &link)] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
            let (kind, major, minor) = entry.kind.numbers();
            for number in [
                kind,
                major,
                minor,
                entry.mode,
                entry.user,
                entry.group,
                entry.modified.1,
            ] {
                hasher.update(&number.to_le_bytes());
            }
            hasher.update(&entry.size.to_le_bytes());
            hasher.update(&entry.modified.0.to_le_bytes());
            // What moves the tree as a whole changes its top's times, and nothing in it.
            if let Some(mark) = node.mark.filter(|_| !node.entry.path.is_empty()) {
                hasher.update(&mark.inode.to_le_bytes());
                hasher.update(&mark.changed.0.to_le_bytes());
                hasher.update(&mark.changed.1.to_le_bytes());
            }
        }
        *hasher.finalize().as_bytes()
    }
}

fn changed(name: &str) -> io::Error {
    let why = format!("{name} was changed while it was sent");
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// All names of a tree, in the order of the tar.
fn look(root: &OwnedFd) -> io::Result<Vec<(Entry, Mark)>> {
    let mut walk = Walk {
        names: HashMap::new(),
        found: Vec::new(),
    };
    let stat = rustix::fs::fstat(root)?;
    walk.take(root, Vec::new(), &stat)?;
    walk.directory(root, &[], stat.st_dev, 0)?;
    Ok(walk.found)
}

struct Walk {
    /// First names of files that have several, by device and inode.
    names: HashMap<(u64, u64), Vec<u8>>,
    found: Vec<(Entry, Mark)>,
}

impl Walk {
    fn directory(
        &mut self,
        at: &OwnedFd,
        path: &[u8],
        device: u64,
        depth: usize,
    ) -> io::Result<()> {
        let about =
            |path: &[u8], e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", shown(path)));
        let refused = |path: &[u8], why: &str| {
            let why = format!("{} {why}", shown(path));
            io::Error::new(io::ErrorKind::Unsupported, why)
        };
        let mut names = Vec::new();
        for entry in Dir::read_from(at).map_err(|e| about(path, e.into()))? {
            let entry = entry.map_err(|e| about(path, e.into()))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        names.sort();
        for name in names {
            let below = match path {
                [] => name.clone(),
                path => [path, &name].join(&b'/'),
            };
            let stat = rustix::fs::statat(at, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW);
            let stat = stat.map_err(|e| about(&below, e.into()))?;
            let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if directory && stat.st_dev != device {
                return Err(refused(&below, "is another file system"));
            }
            if directory && depth == DEEPEST {
                return Err(refused(&below, "is too deep in the tree"));
            }
            if FileType::from_raw_mode(stat.st_mode) == FileType::Socket {
                return Err(refused(&below, "is a socket, and cannot be sent"));
            }
            self.take(at, below.clone(), &stat)
                .map_err(|e| about(&below, e))?;
            if directory {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let inner = rustix::fs::openat(at, name.as_slice(), flags, Mode::empty());
                let inner = inner.map_err(|e| about(&below, e.into()))?;
                self.directory(&inner, &below, device, depth + 1)?;
            }
        }
        Ok(())
    }

    /// One name, in an open directory.
    fn take(&mut self, at: &OwnedFd, path: Vec<u8>, stat: &Stat) -> io::Result<()> {
        let mark = Mark {
            inode: stat.st_ino,
            changed: (stat.st_ctime, stat.st_ctime_nsec as i64),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            if let Some(first) = self.names.get(&(stat.st_dev, stat.st_ino)) {
                let entry = Entry::hardlink(path, first.clone());
                self.found.push((entry, mark));
                return Ok(());
            }
            self.names.insert((stat.st_dev, stat.st_ino), path.clone());
        }
        let (_, name) = split(&path);
        let device = (
            rustix::fs::major(stat.st_rdev),
            rustix::fs::minor(stat.st_rdev),
        );
        let entry = Entry {
            kind: match kind {
                FileType::RegularFile => Kind::File,
                FileType::Directory => Kind::Directory,
                FileType::Symlink => {
                    Kind::Symlink(rustix::fs::readlinkat(at, name, Vec::new())?.into_bytes())
                }
                FileType::CharacterDevice => Kind::Character(device.0, device.1),
                FileType::BlockDevice => Kind::Disk(device.0, device.1),
                FileType::Fifo => Kind::Fifo,
                _ => return Err(io::Error::other("it is of an unknown kind")),
            },
            mode: match kind {
                FileType::Symlink => 0o777,
                _ => stat.st_mode & 0o7777,
            },
            user: stat.st_uid,
            group: stat.st_gid,
            size: match kind {
                FileType::RegularFile => stat.st_size as u64,
                _ => 0,
            },
            modified: (stat.st_mtime, stat.st_mtime_nsec as u32),
            attributes: attributes(at, name)?,
            path,
        };
        self.found.push((entry, mark));
        Ok(())
    }
}

/// Is this an attribute of the tree's, and not of the file system's or the machine's?
pub fn is_kept(attribute: &[u8]) -> bool {
    attribute.starts_with(b"user.")
        || [
            b"security.capability".as_slice(),
            b"system.posix_acl_access",
            b"system.posix_acl_default",
        ]
        .contains(&attribute)
}

/// Extended attributes of a name in an open directory, sorted; of the directory itself, if the name is empty.
fn attributes(at: &OwnedFd, name: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    use rustix::io::Errno;
    let mut path = format!("/proc/self/fd/{}/", at.as_raw_fd()).into_bytes();
    path.extend(if name.is_empty() { b"." } else { name });
    let mut list = vec![0; 1 << 10];
    let len = loop {
        match rustix::fs::llistxattr(path.as_slice(), list.as_mut_slice()) {
            Ok(len) => break len,
            Err(Errno::RANGE) if list.len() < 1 << 20 => list.resize(list.len() * 4, 0),
            // There are none where there cannot be any.
            Err(Errno::OPNOTSUPP) => break 0,
            Err(e) => return Err(e.into()),
        }
    };
    let names = list[..len].split(|byte| *byte == 0);
    let mut found = Vec::new();
    for name in names.filter(|name| is_kept(name)) {
        let mut value = vec![0; 1 << 16];
        match rustix::fs::lgetxattr(path.as_slice(), name, value.as_mut_slice()) {
            Ok(len) => {
                value.truncate(len);
                found.push((name.to_vec(), value));
            }
            Err(Errno::NODATA) => {}
            Err(e) => return Err(e.into()),
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
pub(crate) mod tests;
