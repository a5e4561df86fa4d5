//! All names of a tree on disk, found by several threads.

use super::Mark;
use crate::tar::{Entry, Kind, MOST_RECORDS, shown, split};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Deepest directories; the way to each may be open while what is below it is looked at.
const DEEPEST: usize = 400;

/// Threads, at most.
const THREADS: usize = 4;

/// All names of a tree, in the order of the tar.
///
/// Errors: reading; `Unsupported`, naming it: what cannot be sent.
pub fn look(root: &OwnedFd) -> io::Result<Vec<(Entry, Mark)>> {
    let stat = rustix::fs::fstat(root)?;
    let top = take(root, Vec::new(), &stat, false)?;
    let walk = Walk {
        device: stat.st_dev,
        state: Mutex::default(),
        more: Condvar::new(),
    };
    walk.state().waiting.push(Below {
        parent: Arc::new(root.try_clone()?),
        path: Vec::new(),
        depth: 0,
    });
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(THREADS));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| walk.work());
        }
    });
    let State {
        mut found, failed, ..
    } = walk
        .state
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some((_, why)) = failed {
        return Err(why);
    }
    let (mut all, mut names) = (Vec::new(), HashMap::new());
    put_in_order(top, &mut found, &mut names, &mut all);
    Ok(all)
}

/// First names of files that have several, by device and inode.
type Names = HashMap<(u64, u64), Vec<u8>>;

/// What was found in directories, by their paths.
type InDirectories = HashMap<Vec<u8>, Vec<Found>>;

fn put_in_order(
    one: Found,
    found: &mut InDirectories,
    names: &mut Names,
    all: &mut Vec<(Entry, Mark)>,
) {
    let Found {
        mut entry,
        mark,
        also,
    } = one;
    if let Some(file) = also {
        match names.get(&file) {
            Some(first) => entry = Entry::hardlink(entry.path, first.clone()),
            None => drop(names.insert(file, entry.path.clone())),
        }
    }
    let below = match entry.kind {
        Kind::Directory => found.remove(&entry.path),
        _ => None,
    };
    all.push((entry, mark));
    for one in below.into_iter().flatten() {
        put_in_order(one, found, names, all);
    }
}

/// A name, and what is known of it.
pub(super) struct Found {
    pub entry: Entry,
    mark: Mark,
    /// Of a file with several names: device and inode.
    also: Option<(u64, u64)>,
}

/// The path of what cannot be sent, and why.
type Named = (Vec<u8>, io::Error);

/// A directory that is to be looked into.
struct Below {
    /// The one that it is in.
    parent: Arc<OwnedFd>,
    path: Vec<u8>,
    depth: usize,
}

#[derive(Default)]
struct State {
    waiting: Vec<Below>,
    /// Threads that look into one.
    busy: usize,
    found: InDirectories,
    /// The first one in the order of names that cannot be sent, of those that were seen.
    failed: Option<Named>,
}

struct Walk {
    device: u64,
    state: Mutex<State>,
    more: Condvar,
}

impl Walk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks into one directory after another, the last one that was found first.
    fn work(&self) {
        // SAFETY: no memory is passed. This thread gets a working directory of its own, and ends after this.
        let is_free = unsafe { libc::unshare(libc::CLONE_FS) } == 0;
        let mut state = self.state();
        loop {
            if let Some(below) = state.waiting.pop() {
                state.busy += 1;
                drop(state);
                let looked = self.directory(&below, is_free);
                state = self.state();
                state.busy -= 1;
                match looked {
                    Ok((found, waiting)) => {
                        state.found.insert(below.path, found);
                        state.waiting.extend(waiting);
                    }
                    Err((path, why)) => {
                        state.waiting.clear();
                        let first = state.failed.take();
                        state.failed = match first {
                            Some((first, why)) if first <= path => Some((first, why)),
                            _ => Some((path, why)),
                        };
                    }
                }
                self.more.notify_all();
            } else if state.busy == 0 {
                return;
            } else {
                state = self
                    .more
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// What is in a directory, and which of it are directories; an error with the path that it is of. `is_free`: this
    /// thread may go there.
    fn directory(&self, below: &Below, is_free: bool) -> Result<(Vec<Found>, Vec<Below>), Named> {
        let path = below.path.as_slice();
        let about = |path: &[u8], e: io::Error| {
            let why = io::Error::new(e.kind(), format!("{}: {e}", shown(path)));
            (path.to_vec(), why)
        };
        let refused = |path: &[u8], why: &str| {
            let why = format!("{} {why}", shown(path));
            let why = io::Error::new(io::ErrorKind::Unsupported, why);
            Err((path.to_vec(), why))
        };
        let at = match path {
            [] => below.parent.clone(),
            path => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let at = rustix::fs::openat(&below.parent, split(path).1, flags, Mode::empty());
                Arc::new(at.map_err(|e| about(path, e.into()))?)
            }
        };
        let is_there = is_free && rustix::process::fchdir(&at).is_ok();
        let names = names(&at).map_err(|e| about(path, e))?;
        let (mut found, mut waiting) = (Vec::with_capacity(names.len()), Vec::new());
        for name in names {
            let stat = rustix::fs::statat(&at, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW);
            let inner = match path {
                [] => name,
                path => [path, &name].join(&b'/'),
            };
            let stat = stat.map_err(|e| about(&inner, e.into()))?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            if kind == FileType::Directory {
                if stat.st_dev != self.device {
                    return refused(&inner, "is another file system");
                }
                if below.depth == DEEPEST {
                    return refused(&inner, "is too deep in the tree");
                }
                waiting.push(Below {
                    parent: at.clone(),
                    path: inner.clone(),
                    depth: below.depth + 1,
                });
            }
            if kind == FileType::Socket {
                return refused(&inner, "is a socket, and cannot be sent");
            }
            let one = take(&at, inner.clone(), &stat, is_there).map_err(|e| about(&inner, e))?;
            if one.entry.header_len() > MOST_RECORDS {
                return refused(&inner, "has more than 1 MiB of attributes");
            }
            found.push(one);
        }
        waiting.reverse();
        Ok((found, waiting))
    }
}

/// What is in a directory, sorted.
pub(super) fn names(at: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(at)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort();
    Ok(names)
}

/// One name, in an open directory. `is_there`: it is this thread's working directory.
pub(super) fn take(at: &OwnedFd, path: Vec<u8>, stat: &Stat, is_there: bool) -> io::Result<Found> {
    let mark = Mark::of(stat);
    let kind = FileType::from_raw_mode(stat.st_mode);
    let several = kind != FileType::Directory && stat.st_nlink > 1;
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
        attributes: match kind {
            // None of those that are kept can be a link's.
            FileType::Symlink => Vec::new(),
            _ => attributes(at, name, is_there)?,
        },
        path,
    };
    Ok(Found {
        entry,
        mark,
        also: several.then_some((stat.st_dev, stat.st_ino)),
    })
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
fn attributes(at: &OwnedFd, name: &[u8], is_there: bool) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    use rustix::io::Errno;
    let mut path = match is_there {
        true => Vec::new(),
        // There is no system call that takes an open directory and a name; that way is slower.
        false => format!("/proc/self/fd/{}/", at.as_raw_fd()).into_bytes(),
    };
    path.extend(if name.is_empty() { b"." } else { name });
    let mut list = vec![0; 256];
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
            // Those of a file that this process may not read are as little known as what is in it.
            Err(Errno::NODATA | Errno::ACCESS) => {}
            Err(e) => return Err(e.into()),
        }
    }
    found.sort();
    Ok(found)
}
