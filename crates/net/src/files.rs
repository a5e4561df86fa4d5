//! The directory of one network: what is in it, and how it is read, written and locked.
//!
//! ```text
//! lock           flock: one up or down at a time
//! holder.lock    held by the holder; its standard input
//! services.lock  held by the keeper of dnsmasq and pasta until both are gone
//! net.sock       the holder's door
//! spec.json      what should be            applied.json  what the holder has made of it
//! space.json     which namespace it is     status.json   how it is doing
//! run/           hosts, dhcp-hosts, leases: what dnsmasq reads and writes, and sees as /tmp
//! *.log
//! ```

use crate::{Error, Spec};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub(crate) const HOLDER_LOCK: &str = "holder.lock";
pub(crate) const SERVICES_LOCK: &str = "services.lock";
pub(crate) const SOCKET: &str = "net.sock";
pub(crate) const SPEC: &str = "spec.json";
pub(crate) const APPLIED: &str = "applied.json";
pub(crate) const SPACE: &str = "space.json";
pub(crate) const STATUS: &str = "status.json";
pub(crate) const HOLDER_LOG: &str = "holder.log";

/// An opened directory. Paths through it are short, whatever its own path is: the names of unix sockets have at most
/// 107 bytes.
#[derive(Debug)]
pub(crate) struct Dir {
    path: PathBuf,
    fd: OwnedFd,
}

impl Dir {
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            fd: open(path, flags, Mode::empty())?,
            path: path.to_owned(),
        })
    }

    /// Makes it, for us only, where it is missing.
    pub fn create(path: &Path) -> Result<Self, Error> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .and_then(|()| path.canonicalize())
            .and_then(|path| Self::open(&path))
            .map_err(Error::at("cannot make", path))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A short path of a file in it, good in this process only.
    pub fn short(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.fd.as_raw_fd()))
    }

    /// Who we are to the rest of the machine: distinct for each directory, the same each time.
    pub fn tag(&self) -> String {
        format!(
            "{:08x}",
            fnv(self.path.as_os_str().as_encoded_bytes()) as u32
        )
    }

    /// None where there is no such file.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        let bytes = match fs::read(self.join(name)) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::at("cannot read", &self.join(name))(e)),
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| Error::Damaged {
                path: self.join(name),
                problem: e.to_string(),
            })
    }

    /// Whole or not at all: a reader never sees half of it.
    pub fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Error> {
        let bytes = serde_json::to_vec(value).map_err(|e| Error::io("cannot encode")(e.into()))?;
        self.write_bytes(name, &bytes, 0o600)
    }

    pub fn write_bytes(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), Error> {
        let (path, half) = (self.join(name), self.join(&format!("{name}.new")));
        let write = || {
            // Left by one who was killed, perhaps with another mode.
            remove(&half)?;
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(mode);
            options.open(&half)?.write_all(bytes)?;
            fs::rename(&half, &path)
        };
        write().map_err(Error::at("cannot write", &path))
    }

    pub fn remove(&self, name: &str) -> Result<(), Error> {
        remove(&self.join(name)).map_err(Error::at("cannot remove", &self.join(name)))
    }

    pub fn append(&self, name: &str) -> Result<File, Error> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(self.join(name))
            .map_err(Error::at("cannot open", &self.join(name)))
    }

    pub fn spec(&self) -> Result<Option<Spec>, Error> {
        self.read(SPEC)
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// One `up` or `down` of a network at a time; ends with the value, or with the process.
#[derive(Debug)]
pub(crate) struct Turn(#[allow(dead_code, reason = "held for its lock")] File);

impl Turn {
    /// Waits for its turn. `make` says whether the directory is made where it is missing; else: none.
    pub fn take(path: &Path, make: bool) -> Result<Option<(Self, Dir)>, Error> {
        loop {
            if !make && !path.exists() {
                return Ok(None);
            }
            let dir = Dir::create(path)?;
            let lock = dir.join("lock");
            let opened = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&lock);
            let file = match opened {
                Ok(file) => file,
                // Another one took the network down just now, with its directory.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(Error::at("cannot open", &lock)(e)),
            };
            loop {
                match flock(&file, FlockOperation::LockExclusive) {
                    Err(rustix::io::Errno::INTR) => {}
                    other => break other.map_err(|e| Error::at("cannot lock", &lock)(e.into()))?,
                }
            }
            // The one before us may have removed the file that we waited for.
            let ours = file.metadata().map_err(Error::at("cannot read", &lock))?;
            if fs::metadata(&lock)
                .is_ok_and(|there| there.ino() == ours.ino() && there.dev() == ours.dev())
            {
                return Ok(Some((Self(file), dir)));
            }
        }
    }
}

/// FNV-1a, 64 bits: short names that stay the same, not security.
/// <https://datatracker.ietf.org/doc/html/draft-eastlake-fnv>
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A program in PATH or where administrators' programs are: an ordinary user's PATH has no sbin on Debian.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|path| {
            rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file()
        })
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
