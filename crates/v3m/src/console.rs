//! The console of a VM, and how to reach a unix socket whose path may be longer than an address can be.

use rustix::fs::FlockOperation;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Where a VM's console is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Console {
    /// A unix stream socket; bytes both ways. One reader at a time: see [`Console::hold`]. Use [`Console::connect`]: the
    /// path may be too long for `connect(2)`.
    pub socket: PathBuf,
    /// What was printed: drivers may let go of the oldest.
    pub log: PathBuf,
    /// Where VNC listens, of a VM that has such a display: a unix socket.
    pub vnc: Option<PathBuf>,
}

/// Whose a console is: see [`Console::hold`].
#[derive(Debug)]
pub enum Held {
    /// Ours, as long as this lives.
    Ours(File),
    /// Another process has it: this one, where the kernel says.
    Others(Option<u32>),
}

impl Console {
    /// Takes the console for this process. QEMU serves one reader at a time and lets others wait unheard, while what they
    /// type is kept for the guest; so whoever connects should have this first. It is a lock on the log (flock(2)): it ends
    /// with the process, however that ends.
    pub fn hold(&self) -> io::Result<Held> {
        let log = File::open(&self.log)?;
        match rustix::fs::flock(&log, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Held::Ours(log)),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let log = log.metadata()?;
                let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
                // The same number may be another file's, on another file system.
                let mut who = lockers(&locks, log.ino());
                Ok(Held::Others(who.find(|pid| has_open(*pid, &log))))
            }
            Err(e) => Err(e.into()),
        }
    }

    pub fn connect(&self) -> io::Result<UnixStream> {
        connect(&self.socket)
    }
}

/// Who holds locks on files of this number, by `/proc/locks` (proc(5)): `1: FLOCK  ADVISORY  WRITE 1234 08:01:567 0 EOF`.
/// Its device is not always the one that stat(2) tells, on Btrfs for example.
fn lockers(locks: &str, inode: u64) -> impl Iterator<Item = u32> {
    locks.lines().filter_map(move |line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, pid, file, ..] = fields.as_slice() else {
            return None;
        };
        let of_file = file.rsplit(':').next()?.parse() == Ok(inode);
        // A process of another name space has no number here.
        let pid = pid.parse().ok().filter(|pid| *pid != 0);
        pid.filter(|_| of_file)
    })
}

/// Has this process the file open? Of one that we may not look into: no.
fn has_open(pid: u32, file: &Metadata) -> bool {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd"));
    open.into_iter().flatten().flatten().any(|entry| {
        let found = std::fs::metadata(entry.path());
        found.is_ok_and(|found| (found.dev(), found.ino()) == (file.dev(), file.ino()))
    })
}

/// Connects to a unix socket by a path of any length. An address holds 108 bytes (unix(7)); so the socket's directory
/// is opened and named by its descriptor.
pub fn connect(socket: &Path) -> io::Result<UnixStream> {
    let (Some(directory), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} is not the path of a socket", socket.display()),
        ));
    };
    let directory = rustix::fs::open(
        directory,
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    let mut address = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    address.push(name);
    UnixStream::connect(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_path_longer_than_an_address() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("d".repeat(120));
        std::fs::create_dir(&long).unwrap();
        let handle = std::fs::File::open(&long).unwrap();
        let listener =
            UnixListener::bind(format!("/proc/self/fd/{}/s", handle.as_raw_fd())).unwrap();
        let mut near = connect(&long.join("s")).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        far.write_all(b"x").unwrap();
        let mut byte = [0];
        near.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }

    #[test]
    fn a_console_has_one_holder_who_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let console = Console {
            socket: dir.path().join("s"),
            log: dir.path().join("log"),
            vnc: None,
        };
        assert!(console.hold().is_err());
        std::fs::write(&console.log, "").unwrap();
        let Held::Ours(ours) = console.hold().unwrap() else {
            panic!("nobody had it");
        };
        let Held::Others(who) = console.hold().unwrap() else {
            panic!("we have it");
        };
        assert_eq!(who, Some(std::process::id()));
        drop(ours);
        assert!(matches!(console.hold().unwrap(), Held::Ours(_)));
    }

    /// A lock on a file of the same number, on another file system, is not one on the log.
    #[test]
    fn who_has_another_file_of_the_same_number_is_not_named() {
        let dir = tempfile::tempdir().unwrap();
        let (log, other) = (dir.path().join("log"), dir.path().join("other"));
        let log = File::create(log).unwrap().metadata().unwrap();
        let us = std::process::id();
        let line = |pid: u32| format!("1: FLOCK  ADVISORY  WRITE {pid} 08:01:{} 0 EOF", log.ino());
        let locks = format!("{}\n{}\n", line(1 << 30), line(us));
        assert_eq!(
            lockers(&locks, log.ino()).collect::<Vec<_>>(),
            [1 << 30, us]
        );
        assert!(!has_open(us, &log), "it was closed");
        let other = File::create(other).unwrap();
        assert!(has_open(us, &other.metadata().unwrap()));
        assert!(!has_open(1 << 30, &log), "there is no such process");
    }

    #[test]
    fn no_socket_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(connect(&dir.path().join("s")).is_err());
        assert!(connect(Path::new("/")).is_err());
    }
}
