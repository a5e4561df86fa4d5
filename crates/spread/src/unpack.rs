//! A tree, or what is new in one, is made of its stream, beside the place where it is to be.
//!
//! What comes is signed, and nevertheless not believed: each name is looked for from the open top of the new tree, over no
//! link, and only what is not there yet is made.

mod removal;
mod rights;

pub use removal::remove;
pub use rights::{Rights, set_time};

use crate::filling::{Filling, Job, Part};
use crate::manifest::Id;
use crate::tar::{BLOCK, Entry, Kind, order, shown, split};
use crate::tree::{self, Known, Tree, When};
use rights::times;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;
use std::cmp::Ordering;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes that are read at once; whole blocks of the file system.
const STEP: usize = 256 << 10;

/// A tree's stream. Parts of it may be in a version that is here.
pub trait Flow: Read {
    fn base(&self) -> Option<&Arc<Tree>> {
        None
    }

    /// Where in the base's stream the next bytes are, and how many; nothing if they are to be read. Waits for them.
    fn shared(&mut self) -> io::Result<Option<(u64, u64)>> {
        Ok(None)
    }

    /// How many of the next bytes are zeros, as far as that is known without reading them.
    fn zeros(&mut self) -> io::Result<Option<u64>> {
        Ok(None)
    }

    /// So many bytes, no more than were shared or are zeros, need not be read.
    fn skip(&mut self, _count: u64) {}
}

impl Flow for &[u8] {}

/// Makes a tree that is not there yet, and waits until it is on the disk. Returns what is to be remembered of it.
///
/// As root all is as it was at the source. As an ordinary user files are his; owners, capabilities and the bits that make
/// programs act for their owners are left out, and device nodes are an error.
///
/// Errors name what could not be made; `InvalidData`: not the stream of a tree, or its base is not as it was.
pub fn unpack(from: &mut impl Flow, top: &Path) -> io::Result<Vec<u8>> {
    let base = from.base().cloned();
    let mut unpacker = Unpacker::new(top, base.as_ref())?;
    let names = each(from, base.as_deref(), |entry, from| {
        let place = entry.path.clone();
        unpacker.make(entry, &place, from)
    })?;
    unpacker.end()?;
    let names = names.into_iter().map(|entry| (entry, Known::Nothing));
    let mut names = names.collect();
    // Whoever is to know the tree again looks at it while it is written.
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| tree::mark(top, &mut names, When::Made));
        let synced = rustix::fs::syncfs(&unpacker.root);
        let looked = looking.join();
        synced?;
        looked.unwrap_or_else(|_| Err(io::Error::other("a thread has ended")))
    })?;
    tree::written(&names)
}

/// Does this with each entry of a stream, whose content it has to take; returns all of them. They come in the order of
/// [`crate::tar`], each once, and the other names of a file after the first one.
///
/// Errors name the entry.
pub fn each<F: Flow>(
    from: &mut F,
    base: Option<&Tree>,
    mut act: impl FnMut(Entry, &mut F) -> io::Result<()>,
) -> io::Result<Vec<Entry>> {
    let mut all: Vec<Entry> = Vec::new();
    while let Some(entry) = next(from, base)? {
        let result = follows(&all, &entry).and_then(|()| act(entry.clone(), from));
        result.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", entry.shown())))?;
        all.push(entry);
    }
    match all.is_empty() {
        true => Err(bad("it is no tree".to_owned())),
        false => Ok(all),
    }
}

/// May it come after these?
fn follows(all: &[Entry], entry: &Entry) -> io::Result<()> {
    let why = match all.last() {
        None if entry.path.is_empty() => return Ok(()),
        None => "the tree itself has to come first".to_owned(),
        Some(last) if order(&last.path, &entry.path) != Ordering::Less => {
            format!("it comes after {}", last.shown())
        }
        Some(_) => {
            let Kind::Hardlink(first) = &entry.kind else {
                return Ok(());
            };
            let found = all.binary_search_by(|other| order(&other.path, first));
            match found.map(|index| &all[index].kind) {
                Ok(Kind::Directory) => {
                    format!("a second name of the directory {}", shown(first))
                }
                Ok(Kind::Hardlink(_)) => {
                    format!("a second name of {}, which is one itself", shown(first))
                }
                Ok(_) => return Ok(()),
                Err(_) => format!("a second name of {}, which has not come", shown(first)),
            }
        }
    };
    Err(bad(why))
}

pub fn bad(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The next header. One that is in the base is known.
fn next(from: &mut impl Flow, base: Option<&Tree>) -> io::Result<Option<Entry>> {
    if let Some(base) = base
        && let Some((at, len)) = from.shared()?
    {
        let (node, _) = base.at(at);
        if node.start == at && node.header <= len {
            from.skip(node.header);
            return Ok(Some(node.entry.clone()));
        }
    }
    Entry::read(from)
}

/// Makes what comes below a new directory.
pub struct Unpacker {
    root: Arc<OwnedFd>,
    rights: Rights,
    /// Directories on the way to what was made last, with their paths; the first one is the top.
    open: Vec<(Vec<u8>, Arc<OwnedFd>)>,
    /// Where they are, in the order in which they came: they get their own times and rights when all is in them.
    directories: Vec<(Vec<u8>, Entry)>,
    filling: Option<Filling>,
    buffer: Vec<u8>,
}

impl Unpacker {
    /// `top`: is made. `base`: what files are filled from.
    pub fn new(top: &Path, base: Option<&Arc<Tree>>) -> io::Result<Self> {
        std::fs::create_dir(top)?;
        std::fs::set_permissions(top, std::fs::Permissions::from_mode(0o700))?;
        let root = Arc::new(open_top(top)?);
        let rights = Rights::of_this_process();
        let filling = base.map(|base| Filling::start(base, rights));
        Ok(Self {
            open: vec![(Vec::new(), root.clone())],
            root,
            rights,
            directories: Vec::new(),
            filling: filling.transpose()?,
            buffer: vec![0; STEP],
        })
    }

    /// The directory that was made at this place, as it is to be.
    pub fn directory(&self, place: &[u8]) -> Option<&Entry> {
        let made = self.directories.iter().rev();
        let mut found = made.filter(|(other, _)| other == place);
        found.next().map(|(_, entry)| entry)
    }

    /// The new directory.
    pub fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// `place`: where, from the top on.
    pub fn make(&mut self, entry: Entry, place: &[u8], from: &mut impl Flow) -> io::Result<()> {
        let (directory, name) = split(place);
        let parent = self.parent(directory)?;
        let node = |kind, device| {
            rustix::fs::mknodat(&parent, name, kind, Mode::from_raw_mode(0o600), device)
        };
        match &entry.kind {
            Kind::Directory => {
                if !name.is_empty() {
                    rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700))?;
                }
                self.directories.push((place.to_vec(), entry));
                return Ok(());
            }
            Kind::File => return self.file(entry, place, Vec::new(), from),
            Kind::Hardlink(to) => {
                let (directory, first) = split(to);
                let other = inside(&self.root, directory, OFlags::PATH)?;
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
        if let Some((user, group)) = self.rights.owner(&entry) {
            rustix::fs::chownat(&parent, name, Some(user), Some(group), link)?;
        }
        if !matches!(entry.kind, Kind::Symlink(_)) {
            let mode = self.rights.mode(&entry);
            rustix::fs::chmodat(&parent, name, mode, AtFlags::empty())?;
        }
        rustix::fs::utimensat(&parent, name, &times(entry.modified), link)?;
        Ok(())
    }

    /// The directory of the new tree with this path. It has come before.
    fn parent(&mut self, path: &[u8]) -> io::Result<Arc<OwnedFd>> {
        let (rest, from) = loop {
            let Some((above, open)) = self.open.last() else {
                break (path, self.root.clone());
            };
            let below = path.strip_prefix(above.as_slice());
            match below {
                Some([]) => return Ok(open.clone()),
                Some(rest) if above.is_empty() => break (rest, open.clone()),
                Some([b'/', rest @ ..]) => break (rest, open.clone()),
                _ => drop(self.open.pop()),
            }
        };
        let open = Arc::new(inside(&from, rest, OFlags::PATH)?);
        self.open.push((path.to_vec(), open.clone()));
        Ok(open)
    }

    /// A file with its content; blocks of zeros are left out. What is in the base others fetch from there. `parts`: what
    /// was taken from the stream already of what is.
    pub fn file(
        &mut self,
        entry: Entry,
        place: &[u8],
        mut parts: Vec<Part>,
        from: &mut impl Flow,
    ) -> io::Result<()> {
        let (directory, name) = split(place);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(0o600);
        let parent = self.parent(directory)?;
        let file = rustix::fs::openat(&parent, name, flags | OFlags::CLOEXEC, mode)?;
        let file = File::from(file);
        let mut at = parts.last().map_or(0, |last| last.at + last.len);
        while at < entry.size {
            if let Some((start, len)) = from.shared()? {
                let len = len.min(entry.size - at);
                from.skip(len);
                match parts.last_mut() {
                    Some(last) if (last.from + last.len, last.at + last.len) == (start, at) => {
                        last.len += len;
                    }
                    _ => parts.push(Part {
                        at,
                        from: start,
                        len,
                    }),
                }
                at += len;
                continue;
            }
            if let Some(len) = from.zeros()? {
                let len = len.min(entry.size - at);
                from.skip(len);
                at += len;
                continue;
            }
            let len = (entry.size - at).min(STEP as u64) as usize;
            let mut have = 0;
            // Whole blocks, as long as nothing is shared.
            while have < len && (have == 0 || (from.shared()?.is_none() && from.zeros()?.is_none()))
            {
                match from.read(&mut self.buffer[have..len])? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => have += count,
                }
            }
            crate::place::write_sparse(&file, at, &self.buffer[..have])?;
            at += have as u64;
        }
        pass_padding(&entry, from)?;
        match &self.filling {
            Some(filling) if !parts.is_empty() => filling.add(Job { file, entry, parts }),
            _ => {
                file.set_len(entry.size)?;
                self.rights.dress(&file, &entry)
            }
        }
    }

    /// Waits until all is made.
    pub fn end(&mut self) -> io::Result<()> {
        if let Some(filling) = &mut self.filling {
            filling.end()?;
        }
        for (place, entry) in std::mem::take(&mut self.directories).iter().rev() {
            let open = inside(&self.root, place, OFlags::RDONLY);
            let dressed = open.and_then(|directory| self.rights.dress(&directory, entry));
            dressed.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", entry.shown())))?;
        }
        Ok(())
    }
}

/// Opens a directory, which is no link.
pub fn open_top(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// A directory below one that is open; over no link, and not where something is mounted.
pub fn inside(from: &OwnedFd, path: &[u8], how: OFlags) -> io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = how | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let open = rustix::fs::openat2(from, path, flags, Mode::empty(), beneath);
    open.map_err(no_link)
}

/// A link on the way to something is no directory.
pub fn no_link(e: Errno) -> io::Error {
    match e {
        Errno::LOOP => io::ErrorKind::NotADirectory.into(),
        other => other.into(),
    }
}

/// What a file is filled up with in the stream.
pub fn pass_padding(entry: &Entry, from: &mut impl Flow) -> io::Result<()> {
    let padding = entry.padded() - entry.size;
    if padding > 0 {
        match from.shared()? {
            Some((_, len)) if len >= padding => from.skip(padding),
            _ => from.read_exact(&mut [0; BLOCK as usize][..padding as usize])?,
        }
    }
    Ok(())
}

/// Gives what was made its place. What was there is there until then, and is at `made` afterwards: `true`.
///
/// Errors: `AlreadyExists`: something is there, and nothing was to be (`free`); `InvalidInput`: the file system cannot
/// exchange two names at once.
pub fn exchange(made: &Path, target: &Path, free: bool) -> io::Result<bool> {
    let rename =
        |flags| rustix::fs::renameat_with(rustix::fs::CWD, made, rustix::fs::CWD, target, flags);
    if free {
        return match rename(RenameFlags::NOREPLACE) {
            // Some file systems do not know that.
            Err(Errno::INVAL) if target.symlink_metadata().is_err() => {
                std::fs::rename(made, target).map(|()| false)
            }
            other => Ok(other.map(|()| false)?),
        };
    }
    let is_tree = |path: &Path| path.symlink_metadata().map(|data| data.is_dir());
    // A file takes another one's place at once; a tree can only change places with what is there.
    if !is_tree(target)? && !is_tree(made)? {
        std::fs::rename(made, target)?;
        return Ok(false);
    }
    rename(RenameFlags::EXCHANGE)?;
    Ok(true)
}

/// What was replaced, until it is removed. `old`: its path without the id.
pub fn aside(old: &Path, id: Id) -> PathBuf {
    let mut name = old.as_os_str().to_owned();
    name.push(format!(".{id}"));
    name.into()
}

#[cfg(test)]
mod tests;
