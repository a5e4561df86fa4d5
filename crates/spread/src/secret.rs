//! Files with secrets: made for their owner only, and not read when others could have.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Reads a file with a secret.
///
/// Errors: as of opening it; `PermissionDenied` if others than its owner may read or write it.
pub(crate) fn read(file: &Path) -> io::Result<String> {
    let mut open = File::open(file)?;
    let mode = open.metadata()?.mode() & 0o777;
    if mode & 0o077 != 0 {
        let file = file.display();
        return Err(io::Error::new(
            ErrorKind::PermissionDenied,
            format!(
                "its mode is {mode:04o}, so others may have its secret: make a new one, or, if \
                 nobody has seen it, chmod 600 {file}"
            ),
        ));
    }
    let mut text = String::new();
    open.read_to_string(&mut text)?;
    Ok(text)
}

/// Makes a directory that is only for its owner: also what its files are called is nobody else's business. What is there
/// stays as it is.
pub(crate) fn own_directory(directory: &Path) -> io::Result<()> {
    // Of a name without any directory it is the one that this process is in.
    let Some(parent) = directory.parent() else {
        return Ok(());
    };
    std::fs::create_dir_all(parent)?;
    match std::fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists && directory.is_dir() => Ok(()),
        other => other,
    }
}

/// Makes a file with a secret, as a whole. `false`: somebody was faster, and his stays.
pub(crate) fn make_once(file: &Path, text: &str) -> io::Result<bool> {
    if let Some(parent) = file.parent() {
        own_directory(parent)?;
    }
    // Two that start at once must end with the same: the first to link it wins.
    let half = file.with_extension(format!("{}.tmp", std::process::id()));
    let _ = std::fs::remove_file(&half);
    let mut options = OpenOptions::new();
    let mut out = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&half)?;
    let written = out
        .write_all(text.as_bytes())
        .and_then(|()| out.sync_all())
        .and_then(|()| std::fs::hard_link(&half, file));
    let _ = std::fs::remove_file(&half);
    match written {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e),
    }
}
