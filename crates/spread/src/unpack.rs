//! A tree is made of its stream, beside the place where it is to be.
//!
//! What comes is signed, and nevertheless not believed: each name is looked for from the open top of the new tree, over no
//! link, and only what is not there yet is made.

use crate::manifest::Id;
use crate::tar::{BLOCK, Entry, Kind, shown, split};
use crate::tree::is_kept;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Timespec, Timestamps,
    UTIME_OMIT, Uid, XattrFlags,
};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes that are read at once; whole blocks of the file system.
const STEP: usize = 256 << 10;

/// Whoever is not root has his own files: these would act for him.
const ACTS_FOR_OWNER: u32 = 0o6000;

/// Makes a tree that is not there yet, and waits until it is on the disk. `headers`: gets the headers as they came.
///
/// As root all is as it was at the source. As an ordinary user files are his; owners, capabilities and the bits that make
/// programs act for their owners are left out, and device nodes are an error.
///
/// Errors name what could not be made; `InvalidData`: not the stream of a tree.
pub fn unpack(from: &mut impl Read, top: &Path, headers: &mut impl Write) -> io::Result<()> {
    std::fs::create_dir(top)?;
    std::fs::set_permissions(top, std::fs::Permissions::from_mode(0o700))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = Arc::new(rustix::fs::open(top, flags, Mode::empty())?);
    let mut unpacker = Unpacker {
        parent: (Vec::new(), root.clone()),
        root,
        is_root: rustix::process::geteuid().is_root(),
        directories: Vec::new(),
        buffer: vec![0; STEP],
    };
    while let Some(entry) = Entry::read(from)? {
        headers.write_all(&entry.header())?;
        let about = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", entry.shown()));
        unpacker.make(&entry, from).map_err(about)?;
        if entry.kind == Kind::Directory {
            unpacker.directories.push(entry);
        }
    }
    headers.write_all(&[0; BLOCK as usize])?;
    unpacker.end()
}

struct Unpacker {
    root: Arc<OwnedFd>,
    is_root: bool,
    /// The directory that something was made in last, and its path.
    parent: (Vec<u8>, Arc<OwnedFd>),
    /// In the order in which they came: they get their own times and rights when all is in them.
    directories: Vec<Entry>,
    buffer: Vec<u8>,
}

impl Unpacker {
    fn make(&mut self, entry: &Entry, from: &mut impl Read) -> io::Result<()> {
        if entry.path.is_empty() != self.directories.is_empty() {
            let why = "the tree itself has to come first, and once";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let (directory, name) = split(&entry.path);
        let parent = self.parent(directory)?;
        let node = |kind, device| {
            rustix::fs::mknodat(&parent, name, kind, Mode::from_raw_mode(0o600), device)
        };
        match &entry.kind {
            Kind::Directory if name.is_empty() => return Ok(()),
            Kind::Directory => {
                rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700))?;
                return Ok(());
            }
            Kind::File => {
                let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
                let mode = Mode::from_raw_mode(0o600);
                let file = rustix::fs::openat(&parent, name, flags | OFlags::CLOEXEC, mode)?.into();
                self.fill(&file, entry, from)?;
                return self.dress(&file, entry);
            }
            Kind::Hardlink(to) => {
                let (directory, first) = split(to);
                let other = self.parent(directory)?;
                let found = rustix::fs::statat(&other, first, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
                    let why = format!("a second name of the directory {}", shown(to));
                    return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                }
                rustix::fs::linkat(&other, first, &parent, name, AtFlags::empty())?;
                return Ok(());
            }
            Kind::Symlink(to) => rustix::fs::symlinkat(to.as_slice(), &parent, name)?,
            Kind::Character(major, minor) => node(
                FileType::CharacterDevice,
                rustix::fs::makedev(*major, *minor),
            )?,
            Kind::Disk(major, minor) => {
                node(FileType::BlockDevice, rustix::fs::makedev(*major, *minor))?;
            }
            Kind::Fifo => node(FileType::Fifo, 0)?,
        }
        // These are not opened: a device may act.
        let link = AtFlags::SYMLINK_NOFOLLOW;
        if let Some((user, group)) = self.owner(entry) {
            rustix::fs::chownat(&parent, name, Some(user), Some(group), link)?;
        }
        if !matches!(entry.kind, Kind::Symlink(_)) {
            rustix::fs::chmodat(&parent, name, self.mode(entry), AtFlags::empty())?;
        }
        rustix::fs::utimensat(&parent, name, &times(entry), link)?;
        Ok(())
    }

    /// The directory of the new tree with this path. It has come before.
    fn parent(&mut self, path: &[u8]) -> io::Result<Arc<OwnedFd>> {
        if self.parent.0 != path {
            self.parent = (path.to_vec(), Arc::new(self.inside(path, OFlags::PATH)?));
        }
        Ok(self.parent.1.clone())
    }

    fn inside(&self, path: &[u8], how: OFlags) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = how | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        Ok(rustix::fs::openat2(
            &self.root,
            path,
            flags,
            Mode::empty(),
            beneath,
        )?)
    }

    /// A file's content; blocks of zeros are left out.
    fn fill(&mut self, file: &File, entry: &Entry, from: &mut impl Read) -> io::Result<()> {
        let mut at = 0;
        while at < entry.size {
            let len = (entry.size - at).min(STEP as u64) as usize;
            let bytes = &mut self.buffer[..len];
            from.read_exact(bytes)?;
            crate::place::write_sparse(file, at, bytes)?;
            at += len as u64;
        }
        let padding = (entry.padded() - entry.size) as usize;
        let mut zeros = [0; BLOCK as usize];
        from.read_exact(&mut zeros[..padding])?;
        file.set_len(entry.size)
    }

    /// Owner, rights, attributes and time of an open file or directory, in the order in which they do not undo each other.
    fn dress(&self, file: &impl AsFd, entry: &Entry) -> io::Result<()> {
        if let Some((user, group)) = self.owner(entry) {
            rustix::fs::fchown(file, Some(user), Some(group))?;
        }
        rustix::fs::fchmod(file, self.mode(entry))?;
        for (name, value) in &entry.attributes {
            let refused = |why: &str| {
                let why = format!("attribute {}: {why}", shown(name));
                io::Error::new(io::ErrorKind::InvalidData, why)
            };
            if !is_kept(name) {
                return Err(refused("it is not one of a tree"));
            }
            if name == b"security.capability" && !self.is_root {
                continue;
            }
            rustix::fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty())
                .map_err(|e| refused(&e.to_string()))?;
        }
        Ok(rustix::fs::futimens(file, &times(entry))?)
    }

    fn owner(&self, entry: &Entry) -> Option<(Uid, Gid)> {
        // Of these two the system calls mean "as it is".
        let known = entry.user != u32::MAX && entry.group != u32::MAX;
        let owner = || (Uid::from_raw(entry.user), Gid::from_raw(entry.group));
        (self.is_root && known).then(owner)
    }

    fn mode(&self, entry: &Entry) -> Mode {
        let mut mode = entry.mode;
        if !self.is_root {
            mode &= !ACTS_FOR_OWNER;
            if entry.path.is_empty() {
                // Without, it could not be moved to its place.
                mode |= 0o700;
            }
        }
        Mode::from_raw_mode(mode)
    }

    fn end(&mut self) -> io::Result<()> {
        if self.directories.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no tree"));
        }
        for entry in std::mem::take(&mut self.directories).iter().rev() {
            let open = self.inside(&entry.path, OFlags::RDONLY);
            let dressed = open.and_then(|directory| self.dress(&directory, entry));
            dressed.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", entry.shown())))?;
        }
        Ok(rustix::fs::syncfs(&self.root)?)
    }
}

fn times(entry: &Entry) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: entry.modified.0,
            tv_nsec: entry.modified.1.into(),
        },
    }
}

/// Gives what was made its place. What was there is there until then, and is at `made` afterwards: `true`.
///
/// Errors: `InvalidInput`: the file system cannot exchange two names at once.
pub fn exchange(made: &Path, target: &Path) -> io::Result<bool> {
    let is_tree = |path: &Path| path.symlink_metadata().map(|data| data.is_dir());
    let there = match is_tree(target) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        other => Some(other?),
    };
    // A file takes another one's place at once; a tree can only change places with what is there.
    if there.is_none() || (there == Some(false) && !is_tree(made)?) {
        std::fs::rename(made, target)?;
        return Ok(false);
    }
    let flags = RenameFlags::EXCHANGE;
    rustix::fs::renameat_with(rustix::fs::CWD, made, rustix::fs::CWD, target, flags)?;
    Ok(true)
}

/// Removes a tree, or a file; what is not there is removed.
pub fn remove(path: &Path) -> io::Result<()> {
    let is_tree = match path.symlink_metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?.is_dir(),
    };
    if !is_tree {
        return std::fs::remove_file(path);
    }
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            // Root gets everywhere; an ordinary user may have directories that he may not write to.
            open_up(path)?;
            std::fs::remove_dir_all(path)
        }
        other => other,
    }
}

fn open_up(path: &Path) -> io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

/// What was replaced, until it is removed. `old`: its path without the id.
pub fn aside(old: &Path, id: Id) -> PathBuf {
    let mut name = old.as_os_str().to_owned();
    name.push(format!(".{id}"));
    name.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry(path: &str, kind: Kind) -> Entry {
        Entry {
            kind,
            mode: 0o755,
            user: rustix::process::geteuid().as_raw(),
            group: rustix::process::getegid().as_raw(),
            ..Entry::hardlink(path.as_bytes().to_vec(), Vec::new())
        }
    }

    fn top() -> Entry {
        entry("", Kind::Directory)
    }

    /// Unpacks these, each with nothing in it; returns why not, and what is around the tree afterwards.
    fn hostile(entries: &[Entry]) -> (String, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("around")).unwrap();
        std::fs::write(dir.path().join("around/file"), "mine").unwrap();
        let mut stream: Vec<u8> = entries.iter().flat_map(Entry::header).collect();
        stream.extend([0; 1024]);
        let made = unpack(
            &mut stream.as_slice(),
            &dir.path().join("tree"),
            &mut io::sink(),
        );
        let around = std::fs::read_dir(dir.path().join("around")).unwrap();
        let around = around
            .flatten()
            .map(|e| e.file_name().into_string().unwrap());
        let around = around.collect();
        assert_eq!(
            std::fs::read(dir.path().join("around/file")).unwrap(),
            b"mine"
        );
        let top: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().collect();
        assert_eq!(top.len(), 2, "beside the tree: {top:?}");
        (made.unwrap_err().to_string(), around)
    }

    #[test]
    fn hostile_streams_make_nothing_outside() {
        let outside = || Kind::Symlink(b"../around".to_vec());
        let cases = [
            // Through a link.
            vec![
                top(),
                entry("link", outside()),
                entry("link/new", Kind::File),
            ],
            vec![
                top(),
                entry("link", outside()),
                entry("link/new", Kind::Directory),
            ],
            vec![
                top(),
                entry("link", outside()),
                entry("link/new", Kind::Fifo),
            ],
            // In the place of a link.
            vec![
                top(),
                entry("link", Kind::Symlink(b"../around/file".to_vec())),
                entry("link", Kind::File),
            ],
            vec![
                top(),
                entry("link", outside()),
                entry("link", Kind::Directory),
            ],
            // A second name of what is outside.
            vec![
                top(),
                entry("link", outside()),
                Entry::hardlink(b"mine".to_vec(), b"link/file".to_vec()),
            ],
            vec![
                top(),
                Entry::hardlink(b"mine".to_vec(), b"../around/file".to_vec()),
            ],
            vec![top(), entry("../around/new", Kind::File)],
            vec![top(), entry("/tmp/new", Kind::File)],
            // Twice the same.
            vec![top(), entry("a", Kind::File), entry("a", Kind::File)],
            vec![top(), top()],
            // Before its directory, or before the tree.
            vec![top(), entry("a/b", Kind::File)],
            vec![entry("a", Kind::File)],
            vec![],
        ];
        for entries in cases {
            let (why, around) = hostile(&entries);
            assert_eq!(around, ["file"], "{entries:?}: {why}");
        }
    }

    #[test]
    fn a_file_longer_than_its_stream_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = entry("a", Kind::File);
        file.size = 1 << 40;
        let stream = [top().header(), file.header(), vec![1; 5000]].concat();
        let made = unpack(
            &mut stream.as_slice(),
            &dir.path().join("tree"),
            &mut io::sink(),
        );
        assert_eq!(made.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_tree_changes_places_with_whatever_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let (made, target) = (dir.path().join("made"), dir.path().join("target"));
        std::fs::create_dir(&made).unwrap();
        assert!(!exchange(&made, &target).unwrap());
        std::fs::create_dir(&made).unwrap();
        std::fs::write(made.join("new"), "").unwrap();
        assert!(exchange(&made, &target).unwrap());
        assert!(target.join("new").exists() && !made.join("new").exists());
        remove(&made).unwrap();
        // A file for a tree, and the other way around.
        std::fs::write(&made, "file").unwrap();
        assert!(exchange(&made, &target).unwrap());
        assert!(target.is_file() && made.is_dir());
        assert!(exchange(&made, &target).unwrap());
        assert!(target.is_dir() && made.is_file());
        remove(&made).unwrap();
        remove(&made).unwrap();
    }
}
