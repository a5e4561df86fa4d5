//! What is mounted inside of a directory.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A place at or below this path where a file system is mounted, or a directory is bound to. Nothing is below a path that
/// is not there.
///
/// Errors: /proc/self/mountinfo cannot be read.
pub fn inside(path: &Path) -> io::Result<Option<PathBuf>> {
    let path = match path.canonicalize() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(places(&table).find(|place| place.starts_with(&path)))
}

/// The fifth column of mountinfo; see proc_pid_mountinfo(5).
fn places(table: &[u8]) -> impl Iterator<Item = PathBuf> {
    let lines = table.split(|byte| *byte == b'\n');
    lines.filter_map(|line| {
        let place = line.split(|byte| *byte == b' ').nth(4)?;
        Some(plain(place).into())
    })
}

/// A path as it is: space, tabulator, line feed and backslash are written as octal numbers there.
fn plain(mut written: &[u8]) -> OsString {
    let mut path = Vec::with_capacity(written.len());
    while let [first, rest @ ..] = written {
        written = rest;
        let number = rest
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let number = number.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match number.filter(|_| *first == b'\\') {
            Some(byte) => {
                path.push(byte);
                written = &rest[3..];
            }
            None => path.push(*first),
        }
    }
    OsString::from_vec(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn places_are_read_as_they_are() {
        let table = b"36 35 98:0 / /a\\040b\\134c rw - ext4 /dev/root rw\n37 36 0:4 /x /d/e rw shared:1 - proc p rw\n";
        let all: Vec<PathBuf> = places(table).collect();
        assert_eq!(all, [PathBuf::from("/a b\\c"), PathBuf::from("/d/e")]);
        assert_eq!(plain(b"a\\"), "a\\");
        assert_eq!(plain(b"a\\9zz"), "a\\9zz");
    }

    #[test]
    fn something_is_mounted_in_the_top_directory() {
        assert!(inside(Path::new("/")).unwrap().is_some());
        assert_eq!(inside(Path::new("/proc/self/fdinfo")).unwrap(), None);
        assert_eq!(inside(Path::new("/not/there")).unwrap(), None);
    }
}
