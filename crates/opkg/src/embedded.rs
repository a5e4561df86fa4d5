//! The packages we ship, carried in the program so that it needs no files beside it.

use crate::error::Error;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

struct File {
    path: &'static str,
    executable: bool,
    content: &'static [u8],
}

static FILES: &[File] = include!(concat!(env!("OUT_DIR"), "/packages.rs"));

/// Puts the shipped packages under `directory` (made if missing) and tells where: `<directory>/<digest of them all>`.
/// They are written once; a directory of that name is complete, because it appears by rename.
pub fn unpack(directory: &Path) -> Result<PathBuf, Error> {
    let place = directory.join(&digest()[..32]);
    if place.is_dir() {
        return Ok(place);
    }
    fs::create_dir_all(directory).map_err(Error::io(directory))?;
    let half = tempfile::Builder::new()
        .prefix(".unpacking-")
        .tempdir_in(directory)
        .map_err(Error::io(directory))?;
    for file in FILES {
        let path = half.path().join(file.path);
        write(&path, file).map_err(Error::io(&path))?;
    }
    fs::set_permissions(half.path(), fs::Permissions::from_mode(0o755))
        .map_err(Error::io(half.path()))?;
    match fs::rename(half.path(), &place) {
        Ok(()) => {
            // Renamed away: there is nothing left to remove.
            let _ = half.keep();
            Ok(place)
        }
        // Another process was faster.
        Err(_) if place.is_dir() => Ok(place),
        Err(error) => Err(Error::io(&place)(error)),
    }
}

fn write(path: &Path, file: &File) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(if file.executable { 0o755 } else { 0o644 })
        .open(path)?
        .write_all(file.content)
}

fn digest() -> String {
    let mut hasher = blake3::Hasher::new();
    for file in FILES {
        hasher.update(file.path.as_bytes());
        hasher.update(&[0, u8::from(file.executable)]);
        hasher.update(blake3::hash(file.content).as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpacked_once() {
        let directory = tempfile::tempdir().unwrap();
        let first = unpack(directory.path()).unwrap();
        assert_eq!(first, unpack(directory.path()).unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        for file in FILES {
            assert_eq!(fs::read(first.join(file.path)).unwrap(), file.content);
        }
    }
}
