//! The version that a new one is made from: what both have in common is shared between the files where the file system can
//! do that, and else copied.
//!
//! A version that nobody has touched since it was checked is not checked again: what is shared from it is not even read.
//! Of one that somebody has touched (its mode was changed, it got a second name) each frame is read and hashed.

use super::{Files, Looked, beside, write_sparse};
use crate::blocks::Recipe;
use crate::manifest::{FRAME, Hash};
use crate::pull;
use crate::seen::Seen;
use crate::tree::Tree;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Less is copied: each part that is shared is an extent of its own.
pub(crate) const LEAST_SHARED: usize = 16 << 10;

/// A version that a new one can be made from.
pub struct Base {
    /// What it is called here.
    pub(super) name: String,
    pub old: Old,
    /// Of each frame of a file.
    pub(super) hashes: Vec<Hash>,
    pub(super) seen: Seen,
    /// Its bytes are shared, and not looked at.
    shared: AtomicBool,
    /// Some of them were.
    taken: AtomicBool,
}

pub enum Old {
    File(File),
    Tree(Arc<Tree>),
}

/// The file with this content, or the tree, if it is here. `looked`: what need not be looked at again.
pub fn base(
    directory: &Path,
    content: &str,
    tree: bool,
    mut looked: Option<Looked>,
) -> Option<Base> {
    let entries = std::fs::read_dir(directory.join(".spread")).ok()?;
    for entry in entries.flatten() {
        let file = entry.file_name();
        let name = file.to_str().and_then(|name| name.strip_suffix(".seen"));
        let Some(name) = name else { continue };
        let wanted = |seen: &Seen| seen.content == content && seen.tree.is_some() == tree;
        let known = looked.take_if(|looked| looked.name == name && wanted(&looked.seen));
        let found = match known {
            Some(looked) => Some((looked.seen, Some(looked.tree))),
            None => Seen::find(directory, name, wanted),
        };
        let Some((seen, now)) = found else { continue };
        let target = directory.join(name);
        let read = |what: &str| std::fs::read(beside(directory, name, what));
        let (old, hashes) = if tree {
            (Old::Tree(Arc::new(now?)), Vec::new())
        } else {
            let hashes = pull::hashes(&read("manifest").ok()?)?;
            (Old::File(File::open(&target).ok()?), hashes)
        };
        let shared = match &old {
            Old::File(file) => seen.is_untouched(file).ok()?,
            Old::Tree(_) => false,
        };
        return Some(Base {
            name: name.to_owned(),
            old,
            hashes,
            seen,
            shared: shared.into(),
            taken: AtomicBool::new(false),
        });
    }
    None
}

/// Two that share with the same file at once wait for each other in the kernel, and burn a processor meanwhile.
static SHARING: Mutex<()> = Mutex::new(());

/// A part of a frame that is not shared.
enum Copied<'a> {
    New(&'a [u8]),
    /// From this place of the base, so many bytes.
    Old(u64, usize),
}

impl Base {
    fn file(&self) -> Option<&File> {
        match &self.old {
            Old::File(file) => Some(file),
            Old::Tree(_) => None,
        }
    }

    /// Was nothing taken from it unseen that somebody may have changed while that was done?
    pub fn is_as_it_was(&self) -> io::Result<bool> {
        match self.file().filter(|_| self.taken.load(Ordering::Relaxed)) {
            Some(file) => self.seen.is_untouched(file),
            None => Ok(true),
        }
    }

    /// Can its bytes be shared, without another look at them?
    pub fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Relaxed)
    }
}

impl Files {
    /// Frames that are as in the base at the same place. `false`: they have to be read.
    pub fn share_frames(&self, first: u32, bytes: u64) -> io::Result<bool> {
        let at = u64::from(first) * u64::from(FRAME);
        self.share(at, at, bytes)
    }

    /// Makes a frame of parts of the base and of new bytes. `false`: it has to be read.
    pub fn share_parts(&self, start: u64, recipe: &Recipe) -> io::Result<bool> {
        let Some(base) = self.base.as_ref().and_then(Base::file) else {
            return Ok(false);
        };
        self.taken_unseen();
        let new = recipe.new.iter();
        let mut copied: Vec<_> = new.map(|(at, bytes)| (*at, Copied::New(bytes))).collect();
        let _turn = SHARING.lock().unwrap_or_else(PoisonError::into_inner);
        for part in &recipe.shared {
            let (mut from, mut at, mut len) = (part.from, part.at, part.len);
            let whole = len - len % crate::blocks::BLOCK;
            if whole >= LEAST_SHARED {
                if !self.share(from, start + at as u64, whole as u64)? {
                    return Ok(false);
                }
                (from, at, len) = (from + whole as u64, at + whole, len - whole);
            }
            copied.push((at, Copied::Old(from, len)));
        }
        // Parts that adjoin are written at once.
        copied.sort_unstable_by_key(|(at, _)| *at);
        let (mut begin, mut run) = (0, Vec::new());
        for (at, part) in copied {
            if begin + run.len() != at {
                self.part.write_all_at(&run, start + begin as u64)?;
                run.clear();
                begin = at;
            }
            let end = run.len();
            match part {
                Copied::New(bytes) => run.extend_from_slice(bytes),
                Copied::Old(from, len) => {
                    run.resize(end + len, 0);
                    match base.read_exact_at(&mut run[end..], from) {
                        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                        other => other?,
                    }
                }
            }
        }
        self.part.write_all_at(&run, start + begin as u64)?;
        Ok(true)
    }

    /// A frame of the base.
    pub fn read_base(&self, index: u32, frame: &mut [u8]) -> io::Result<()> {
        let base = self.base.as_ref().and_then(Base::file);
        let base = base.ok_or(io::ErrorKind::NotFound)?;
        base.read_exact_at(frame, u64::from(index) * u64::from(FRAME))
    }

    /// Writes a frame that was made; leaves out blocks of zeros.
    pub fn write_frame(&self, index: u32, frame: &[u8]) -> io::Result<()> {
        write_sparse(&self.part, u64::from(index) * u64::from(FRAME), frame)
    }

    fn taken_unseen(&self) {
        if let Some(base) = &self.base {
            base.taken.store(true, Ordering::Relaxed);
        }
    }

    /// Lets a part of the base be a part of this file, too, without a copy. `false`: that cannot be.
    fn share(&self, from: u64, at: u64, len: u64) -> io::Result<bool> {
        let base = self.base.as_ref().filter(|base| base.is_shared());
        let Some((base, file)) = base.and_then(|base| Some((base, base.file()?))) else {
            return Ok(false);
        };
        self.taken_unseen();
        match clone_range(file, from, &self.part, at, len) {
            Ok(()) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::ENOSPC) => Err(e),
            Err(_) => {
                base.shared.store(false, Ordering::Relaxed);
                Ok(false)
            }
        }
    }
}

/// ioctl_ficlonerange(2)
pub(crate) fn clone_range(from: &File, start: u64, to: &File, at: u64, len: u64) -> io::Result<()> {
    #[repr(C)]
    struct Range {
        from: i64,
        start: u64,
        len: u64,
        at: u64,
    }
    /// `_IOW(0x94, 13, struct file_clone_range)`
    const CLONE_RANGE: libc::c_ulong = 0x4020_940d;
    let range = Range {
        from: from.as_raw_fd().into(),
        start,
        len,
        at,
    };
    // SAFETY: both descriptors are open as long as the files are borrowed, and the structure lives longer than the call,
    // which only reads it.
    match unsafe { libc::ioctl(to.as_raw_fd(), CLONE_RANGE, &raw const range) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
