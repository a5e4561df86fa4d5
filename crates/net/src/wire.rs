//! What is said over the holder's socket: one line of JSON each way, the answer with a descriptor where one was asked
//! for (`SCM_RIGHTS`). One question per connection.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// No question or answer is longer.
pub(crate) const LIMIT: usize = 64 << 10;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Can taps be handed out?
    Ready,
    /// Answered when dnsmasq and the way out run, or have failed for now.
    Settled,
    /// Read spec.json again.
    Reload,
    Tap {
        port: String,
    },
    Dial {
        to: SocketAddrV4,
        limit_ms: u64,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Done { warnings: Vec<String> },
    Failed { errno: Option<i32>, reason: String },
}

impl Reply {
    pub fn failed(error: &io::Error) -> Self {
        Self::Failed {
            errno: error.raw_os_error().or_else(|| errno_of(error.kind())),
            reason: error.to_string(),
        }
    }

    pub fn into_result(self) -> io::Result<Vec<String>> {
        match self {
            Self::Done { warnings } => Ok(warnings),
            Self::Failed { errno, reason } => {
                let kind = errno.map_or(io::ErrorKind::Other, |e| {
                    io::Error::from_raw_os_error(e).kind()
                });
                Err(io::Error::new(kind, reason))
            }
        }
    }
}

/// So that a kind of error that we have given a better text survives the way.
fn errno_of(kind: io::ErrorKind) -> Option<i32> {
    match kind {
        io::ErrorKind::ResourceBusy => Some(libc::EBUSY),
        io::ErrorKind::InvalidInput => Some(libc::EINVAL),
        io::ErrorKind::TimedOut => Some(libc::ETIMEDOUT),
        io::ErrorKind::PermissionDenied => Some(libc::EACCES),
        io::ErrorKind::NotFound => Some(libc::ENOENT),
        _ => None,
    }
}

/// Sends bytes, which must not be empty, and at most one descriptor with them.
pub(crate) fn send(
    socket: impl AsFd,
    bytes: &[u8],
    fd: Option<BorrowedFd<'_>>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = fd.map(|fd| [fd]);
    if let Some(fds) = &fds
        && !control.push(SendAncillaryMessage::ScmRights(fds))
    {
        return Err(io::Error::other("no room for a descriptor"));
    }
    Ok(sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?)
}

/// Receives what is there; 0 bytes are the end.
pub(crate) fn receive(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(
        socket,
        &mut [IoSliceMut::new(bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut fds = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten();
    let first = fds.next();
    // All others are closed: nobody asked for them.
    drop(fds);
    Ok((got.bytes, first))
}

/// One line of JSON.
pub(crate) fn line<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}
