//! One builder at a time for each state directory, and no removal of what is being taken into use.
//!
//! The lock (flock(2)) belongs to the open file, which the builder's children inherit: it ends when the last of them
//! does. So whoever has it knows that nothing in `<state>/tmp` is in use any more.

use crate::{Error, Result};
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// Takes the lock; calls `waiting` once if another one has it.
    pub fn take(path: &Path, waiting: impl FnOnce()) -> Result<Self> {
        use FlockOperation::{LockExclusive, NonBlockingLockExclusive};
        Self::with(path, [NonBlockingLockExclusive, LockExclusive], waiting)
    }

    /// Takes the lock if nobody has it.
    pub fn attempt(path: &Path) -> Result<Option<Self>> {
        let file = Self::open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(Error::io(path)(error.into())),
        }
    }

    /// Shares the lock with others who do.
    pub fn share(path: &Path, waiting: impl FnOnce()) -> Result<Self> {
        use FlockOperation::{LockShared, NonBlockingLockShared};
        Self::with(path, [NonBlockingLockShared, LockShared], waiting)
    }

    fn with(
        path: &Path,
        [try_it, wait]: [FlockOperation; 2],
        waiting: impl FnOnce(),
    ) -> Result<Self> {
        let file = Self::open(path)?;
        match flock(&file, try_it) {
            Ok(()) => return Ok(Self(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => waiting(),
            Err(error) => return Err(Error::io(path)(error.into())),
        }
        loop {
            match flock(&file, wait) {
                Ok(()) => return Ok(Self(file)),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Error::io(path)(error.into())),
            }
        }
    }

    fn open(path: &Path) -> Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(Error::io(path))
    }

    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
