//! A new image appears whole or not at all.
//!
//! It is made in a directory of its own beside its place, which nobody else can enter and which is reached by its open
//! descriptor only: whoever may write to the directory around it can rename it, and lead nobody astray. What a process that
//! was killed left is known by a lock that nobody holds, and removed by whoever makes the next image there.

use super::program::Image;
use super::{Error, Result, at, refused};
use files::{Identity, Place};
use rustix::fs::{
    AtFlags, Dir, FlockOperation, Mode, OFlags, flock, fstat, mkdirat, openat, unlinkat,
};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;

const FIRST: &str = ".v2m-";
const LAST: &str = ".half";
/// In each of these directories: we made it, and what is in it is ours to remove.
const MARK: &str = "an image is being made here";

/// Told of a new image before it has its name, so that whoever is killed in between knows what it was.
pub type Made<'a> = &'a dyn Fn(&Path, &Identity) -> io::Result<()>;

/// Makes an image, and gives it its name if nothing has that.
pub fn whole(path: &Path, made: Made, make: impl FnOnce(&Image) -> Result<()>) -> Result<()> {
    let exists = || Error::Exists {
        path: path.to_owned(),
    };
    let place = Place::of(path).map_err(|e| match e.kind() {
        ErrorKind::NotFound => {
            let parent = path.parent().unwrap_or(path).display();
            refused(path, &format!("there is no directory {parent}"))
        }
        _ => at(path)(e),
    })?;
    if place.is_there().map_err(at(path))? {
        return Err(exists());
    }
    sweep(place.directory());
    let half = Half::new(place).map_err(at(path))?;
    make(&Image::within(path, half.inside.clone(), half.place.name()))?;
    half.ended(made).map_err(|e| match e.kind() {
        ErrorKind::AlreadyExists => exists(),
        _ => at(path)(e),
    })
}

/// The directory in which an image is made; it goes with this, and with all that is left in it.
struct Half {
    /// Where the image is to be.
    place: Place,
    name: OsString,
    /// Open, and locked.
    inside: Arc<OwnedFd>,
}

impl Half {
    fn new(place: Place) -> io::Result<Self> {
        loop {
            let random = RandomState::new().hash_one(std::process::id());
            let name = OsString::from(format!("{FIRST}{random:016x}{LAST}"));
            let around = place.directory();
            match mkdirat(around, &name, Mode::RWXU) {
                Err(Errno::EXIST) => continue,
                other => other?,
            }
            let inside = Arc::new(directory(around, &name)?);
            flock(&inside, FlockOperation::LockExclusive)?;
            let half = Self {
                place: place.clone(),
                name,
                inside,
            };
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            match openat(&half.inside, MARK, flags, Mode::RUSR) {
                // Swept away before it was locked.
                Err(Errno::NOENT) => continue,
                other => drop(other?),
            }
            return Ok(half);
        }
    }

    fn ended(&self, made: Made) -> io::Result<()> {
        let ready = self.place.within(&self.inside);
        made(self.place.path(), &Identity::of(&ready.handle()?)?)?;
        ready.renamed_new(&self.place)
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        // Nothing that fails here is an error of the image's.
        let _ = unlinkat(&self.inside, self.place.name(), AtFlags::empty());
        let _ = unlinkat(&self.inside, MARK, AtFlags::empty());
        let _ = unlinkat(self.place.directory(), &self.name, AtFlags::REMOVEDIR);
    }
}

fn directory(around: &OwnedFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(around, name, flags, Mode::empty())
}

/// Removes what commands that were killed left beside this file.
pub fn sweep_beside(path: &Path) {
    // A directory that is not there, or not to be entered, has nothing of ours.
    if let Ok(place) = Place::of(path) {
        sweep(place.directory());
    }
}

/// Removes what commands that were killed left in this directory.
fn sweep(around: &OwnedFd) {
    let Ok(list) = directory(around, OsStr::new(".")).and_then(Dir::new) else {
        // Who may only pass through it does without.
        return;
    };
    for entry in list.flatten() {
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        let bytes = name.as_bytes();
        if bytes.starts_with(FIRST.as_bytes()) && bytes.ends_with(LAST.as_bytes()) {
            // One that is not ours, or at work, stays.
            let _ = swept(around, name);
        }
    }
}

fn swept(around: &OwnedFd, name: &OsStr) -> rustix::io::Result<()> {
    let inside = directory(around, name)?;
    flock(&inside, FlockOperation::NonBlockingLockExclusive)?;
    let ours = fstat(&inside)?.st_uid == rustix::process::geteuid().as_raw();
    let names: Vec<OsString> = Dir::read_from(&inside)?
        .flatten()
        .map(|entry| OsString::from_vec(entry.file_name().to_bytes().to_vec()))
        .filter(|name| name != "." && name != "..")
        .collect();
    // Without its mark it was left empty, or is somebody's who likes the name.
    if !ours || !(names.is_empty() || names.iter().any(|name| name == MARK)) {
        return Ok(());
    }
    // The mark last.
    for file in names.iter().filter(|name| *name != MARK) {
        unlinkat(&inside, file, AtFlags::empty())?;
    }
    if !names.is_empty() {
        unlinkat(&inside, MARK, AtFlags::empty())?;
    }
    unlinkat(around, name, AtFlags::REMOVEDIR)
}
