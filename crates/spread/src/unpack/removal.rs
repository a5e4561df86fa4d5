//! Trees are removed, but never what is mounted in one.

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Removes a tree, or a file; what is not there is removed.
///
/// Errors: something is mounted in it (`CrossesDevices`): that, and what is above it, stays.
pub fn remove(path: &Path) -> io::Result<()> {
    let is_tree = match path.symlink_metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?.is_dir(),
    };
    if !is_tree {
        return std::fs::remove_file(path);
    }
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let above = rustix::fs::open(above, flags, Mode::empty())?;
    let name = CString::new(name.as_bytes())?;
    directory(&above, &name)
}

/// Removes a directory and all that is in it.
fn directory(above: &OwnedFd, name: &CStr) -> io::Result<()> {
    let open = enter(above, name)?;
    for entry in Dir::read_from(&open)? {
        let entry = entry?;
        let name = entry.file_name();
        if [c".", c".."].contains(&name) {
            continue;
        }
        let is_directory = match entry.file_type() {
            FileType::Unknown => {
                let stat = rustix::fs::statat(&open, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            }
            kind => kind == FileType::Directory,
        };
        match is_directory {
            true => directory(&open, name)?,
            false => rustix::fs::unlinkat(&open, name, AtFlags::empty())?,
        }
    }
    Ok(rustix::fs::unlinkat(above, name, AtFlags::REMOVEDIR)?)
}

/// A directory that is not the top of a mount. One that its owner may not read or write gets the rights for that.
fn enter(above: &OwnedFd, name: &CStr) -> io::Result<OwnedFd> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |flags| rustix::fs::openat2(above, name, flags, Mode::empty(), how);
    // Before anything is done to it: is it ours?
    let found = open(flags | OFlags::PATH).map_err(|e| match e {
        Errno::XDEV => io::Error::new(
            io::ErrorKind::CrossesDevices,
            format!("something is mounted on {}", name.to_string_lossy()),
        ),
        other => other.into(),
    })?;
    let mode = rustix::fs::fstat(found)?.st_mode;
    if !rustix::process::geteuid().is_root() && mode & 0o700 != 0o700 {
        rustix::fs::chmodat(above, name, Mode::RWXU, AtFlags::empty())?;
    }
    Ok(open(flags | OFlags::RDONLY)?)
}
