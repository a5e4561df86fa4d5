//! One operation on a cluster at a time.

use crate::{Error, Result};
use api::Name;
use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Whoever holds the lock for longer than this is at work.
const LOOK: Duration = Duration::from_millis(100);

/// Held by an operation; ends with it, however it ends.
pub struct Lock {
    _file: File,
}

fn path(state: &Path, cluster: &Name) -> PathBuf {
    state.join("clusters").join(format!("{cluster}.lock"))
}

impl Lock {
    pub fn take(state: &Path, cluster: &Name) -> Result<Self> {
        let path = path(state, cluster);
        crate::layout::make_dir(&state.join("clusters"), 0o711)?;
        let end = Instant::now() + LOOK;
        loop {
            let mut file = fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(Error::io(&path))?;
            match file.try_lock() {
                Ok(()) => {}
                // `status` holds it for a moment, to see whether somebody else does.
                Err(TryLockError::WouldBlock) if Instant::now() < end => {
                    std::thread::sleep(LOOK / 20);
                    continue;
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::Busy {
                        name: cluster.clone(),
                        pid: read_pid(&mut file),
                    });
                }
                Err(TryLockError::Error(e)) => return Err(Error::io(&path)(e)),
            }
            // `down` removes the file at its end: what we have locked may no longer be the file of that name.
            let ours = file.metadata().map_err(Error::io(&path))?.ino();
            if fs::metadata(&path).is_ok_and(|now| now.ino() == ours) {
                file.set_len(0).map_err(Error::io(&path))?;
                write!(file, "{}", std::process::id()).map_err(Error::io(&path))?;
                return Ok(Self { _file: file });
            }
        }
    }

    /// Who holds it now.
    pub fn holder(state: &Path, cluster: &Name) -> Option<u32> {
        let mut file = File::open(path(state, cluster)).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Some(read_pid(&mut file)),
            _ => None,
        }
    }

    /// Ends the operation and leaves no file.
    pub fn remove(self, state: &Path, cluster: &Name) {
        let _ = fs::remove_file(path(state, cluster));
    }
}

fn read_pid(file: &mut File) -> u32 {
    let mut text = String::new();
    let _ = file.read_to_string(&mut text);
    text.trim().parse().unwrap_or(0)
}
