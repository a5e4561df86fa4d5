//! The console of a VM, and how to reach a unix socket whose path may be longer than an address can be.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Where a VM's console is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Console {
    /// A unix stream socket; bytes both ways. One reader at a time. Use [`Console::connect`]: the path may be too long
    /// for `connect(2)`.
    pub socket: PathBuf,
    /// All that was ever printed.
    pub log: PathBuf,
}

impl Console {
    pub fn connect(&self) -> io::Result<UnixStream> {
        connect(&self.socket)
    }
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
    fn no_socket_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(connect(&dir.path().join("s")).is_err());
        assert!(connect(Path::new("/")).is_err());
    }
}
