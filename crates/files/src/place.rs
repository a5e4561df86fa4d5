//! A name in an open directory.

use crate::{is_root, trusted};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RenameFlags, Stat, chownat, fstat, openat, readlinkat,
    renameat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// As the kernel has it: path_resolution(7).
const MOST_LINKS: usize = 40;

/// Where a file is, or may be made: its directory, open, and its name there. Nobody can change what that directory is.
#[derive(Clone, Debug)]
pub struct Place {
    directory: Arc<OwnedFd>,
    name: OsString,
    /// Without links.
    path: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walk {
    /// To the name itself, be it a link.
    Name,
    /// Over the last link, too.
    File,
    /// As `File`, and only through directories that nobody but root and us can write to.
    Strict,
}

impl Place {
    /// Of the name that a path ends with, be it a link. Its directory has to be there.
    pub fn of(path: &Path) -> io::Result<Self> {
        place(path, Walk::Name)
    }

    /// Of the file that a path leads to. Its directory has to be there.
    pub fn found(path: &Path) -> io::Result<Self> {
        place(path, Walk::File)
    }

    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Without links, for people; whoever may write to one of its directories can make it lead elsewhere.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn directory(&self) -> &Arc<OwnedFd> {
        &self.directory
    }

    /// The same name in another directory.
    pub fn within(&self, directory: &Arc<OwnedFd>) -> Self {
        Self {
            directory: directory.clone(),
            ..self.clone()
        }
    }

    /// Another name in the same directory.
    pub fn beside(&self, name: &OsStr) -> Self {
        Self {
            directory: self.directory.clone(),
            name: name.to_owned(),
            path: self.path.with_file_name(name),
        }
    }

    /// Is there something of this name?
    pub fn is_there(&self) -> io::Result<bool> {
        match statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// What has this name, for looking at it and for changing whose it is: nothing is read, no device is woken, no link is
    /// followed.
    pub fn handle(&self) -> io::Result<File> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&self.directory, &self.name, flags, Mode::empty())?;
        Ok(fd.into())
    }

    /// An open file, or disk of the host's. Anything else is refused before it is opened: a FIFO would be waited for, and a
    /// device may act.
    pub fn open(&self, write: bool) -> io::Result<File> {
        let handle = self.handle()?;
        let reason = match FileType::from_raw_mode(fstat(&handle)?.st_mode) {
            FileType::RegularFile | FileType::BlockDevice => None,
            FileType::Directory => Some("this is a directory"),
            FileType::Symlink => Some("this is a link"),
            _ => Some("this is neither a file nor a disk"),
        };
        if let Some(reason) = reason {
            return Err(io::Error::new(ErrorKind::InvalidInput, reason));
        }
        let access = match write {
            true => OFlags::RDWR,
            false => OFlags::RDONLY,
        };
        // What the handle is of, and nothing that has come into its place.
        let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
        let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
    }

    /// A new, empty file, in the place of anything else that has this name.
    pub fn made(&self, mode: u32) -> io::Result<File> {
        self.remove()?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode);
        Ok(openat(&self.directory, &self.name, flags, mode)?.into())
    }

    /// Removes it. What is not there is removed.
    pub fn remove(&self) -> io::Result<()> {
        match unlinkat(&self.directory, &self.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Gives it another place, in that of anything that is there.
    pub fn renamed(&self, to: &Self) -> io::Result<()> {
        Ok(renameat(
            &self.directory,
            &self.name,
            &to.directory,
            &to.name,
        )?)
    }

    /// Gives it another place, where nothing may be yet.
    pub fn renamed_new(&self, to: &Self) -> io::Result<()> {
        let flags = RenameFlags::NOREPLACE;
        let (from, name) = (&self.directory, &self.name);
        Ok(renameat_with(from, name, &to.directory, &to.name, flags)?)
    }

    /// Makes a file another user's, if it is one of those that it may be taken from. A file that has a second name somewhere
    /// is refused: it may be there for somebody else.
    pub fn give(&self, (uid, gid): (u32, u32), from: impl Fn(u32) -> bool) -> io::Result<()> {
        use rustix::fs::{Gid, Uid};
        let handle = self.handle()?;
        let found = fstat(&handle)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        if found.st_uid == uid {
            // His already, of whatever group he has it.
            return Ok(());
        }
        let refused = |reason: String| Err(io::Error::new(ErrorKind::PermissionDenied, reason));
        if !from(found.st_uid) {
            let reason = format!("it belongs to user {}, and is not taken away", found.st_uid);
            return refused(reason);
        }
        if found.st_nlink > 1 {
            let reason = "it has another name elsewhere (a hard link), and is not given away";
            return refused(reason.to_owned());
        }
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        let flags = AtFlags::EMPTY_PATH;
        Ok(chownat(&handle, "", Some(uid), Some(gid), flags)?)
    }
}

fn place(path: &Path, how: Walk) -> io::Result<Place> {
    let place = walk(path, how)?;
    place.ok_or_else(|| Errno::NOENT.into())
}

/// A directory on the way: open, and its path without links.
struct Step {
    directory: OwnedFd,
    path: PathBuf,
}

impl Step {
    fn new(directory: OwnedFd, path: PathBuf, how: Walk) -> io::Result<Self> {
        if how == Walk::Strict {
            strict(&fstat(&directory)?, &path)?;
        }
        Ok(Self { directory, path })
    }
}

/// Goes along a path. None: a directory on the way is missing.
pub(crate) fn walk(path: &Path, how: Walk) -> io::Result<Option<Place>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = || -> io::Result<Step> {
        let directory = rustix::fs::open("/", flags, Mode::empty())?;
        Step::new(directory, PathBuf::from("/"), how)
    };
    let path = std::path::absolute(path)?;
    // What is still to go, the next one last.
    let mut rest = steps(&path);
    let mut at = root()?;
    let mut links = 0;
    while let Some(name) = rest.pop() {
        let last = rest.is_empty();
        let shown = at.path.join(&name);
        if name == ".." && !last {
            at.path.pop();
            let directory = openat(&at.directory, "..", flags, Mode::empty())?;
            at = Step::new(directory, at.path, how)?;
            continue;
        }
        let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = match openat(&at.directory, &name, look, Mode::empty()) {
            Ok(found) => found,
            Err(Errno::NOENT) if last => return Ok(Some(ended(at, name))),
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let stat = fstat(&found)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
            && !(last && how == Walk::Name)
        {
            links += 1;
            if links > MOST_LINKS {
                return Err(Errno::LOOP.into());
            }
            if is_root() && !trusted(stat.st_uid) {
                let user = stat.st_uid;
                let message = format!(
                    "{} is a link of user {user}'s, and root does not go where users lead it; name the file itself",
                    shown.display()
                );
                return Err(io::Error::new(ErrorKind::PermissionDenied, message));
            }
            let target = readlinkat(found.as_fd(), "", Vec::new())?.into_bytes();
            let target = PathBuf::from(OsString::from_vec(target));
            if target.is_absolute() {
                at = root()?;
            }
            rest.extend(steps(&target));
            continue;
        }
        if last {
            return Ok(Some(ended(at, name)));
        }
        let directory = openat(&at.directory, &name, flags, Mode::empty())?;
        at = Step::new(directory, shown, how)?;
    }
    let reason = format!("{} is no file's name", path.display());
    Err(io::Error::new(ErrorKind::InvalidInput, reason))
}

fn ended(at: Step, name: OsString) -> Place {
    Place {
        path: at.path.join(&name),
        directory: Arc::new(at.directory),
        name,
    }
}

fn steps(path: &Path) -> Vec<OsString> {
    let steps = path.components().filter_map(|step| match step {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    });
    steps.collect::<Vec<_>>().into_iter().rev().collect()
}

/// In a directory with the sticky bit nobody moves what is another's.
fn strict(stat: &Stat, path: &Path) -> io::Result<()> {
    let why = match () {
        () if !trusted(stat.st_uid) => format!("belongs to user {}", stat.st_uid),
        () if stat.st_mode & 0o022 != 0 && stat.st_mode & 0o1000 == 0 => {
            "can be written to by others".to_owned()
        }
        () => return Ok(()),
    };
    let message = format!("the directory {} {why}", path.display());
    Err(io::Error::new(ErrorKind::PermissionDenied, message))
}
