//! Asking the holder: for a tap, for a connection, how it is.

use crate::files::{Dir, SOCKET};
use crate::wire::{self, LIMIT, Reply, Request};
use std::io::{self, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The holder answers these at once; this is for one that was stopped.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// A tap device on the cluster's bridge, for QEMU's `-netdev tap,fd=` (with `vnet_hdr`). It lives as long as the
/// descriptor. A port that is in use gives `ResourceBusy`; once its user has ended it can be had again.
pub fn tap(dir: &Path, port: &str) -> io::Result<OwnedFd> {
    let request = Request::Tap {
        port: port.to_owned(),
    };
    with_fd(ask(dir, &request, PATIENCE)?)
}

/// A TCP connection to `to`, made inside of the cluster's network. One attempt.
pub fn dial(dir: &Path, to: SocketAddrV4, limit: Duration) -> io::Result<TcpStream> {
    let request = Request::Dial {
        to,
        limit_ms: limit.as_millis().try_into().unwrap_or(u64::MAX),
    };
    let stream = TcpStream::from(with_fd(ask(
        dir,
        &request,
        limit.saturating_add(PATIENCE),
    )?)?);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Waits until DHCP, DNS and the way out work or have failed for now; returns what does not work. [`crate::up`]
/// returns earlier: as soon as taps can be had.
pub fn settled(dir: &Path, limit: Duration) -> io::Result<Vec<String>> {
    Ok(ask(dir, &Request::Settled, limit)?.0)
}

/// Hands a descriptor to the reader of our standard output, which is a socket there: what OpenSSH's `ProxyUseFdpass`
/// expects of a `ProxyCommand` (one zero byte with `SCM_RIGHTS`; monitor_fdpass.c).
pub fn send_fd_over_stdout(fd: impl AsFd) -> io::Result<()> {
    wire::send(io::stdout(), &[0], Some(fd.as_fd())).map(drop)
}

fn with_fd((_, fd): (Vec<String>, Option<OwnedFd>)) -> io::Result<OwnedFd> {
    fd.ok_or_else(|| {
        io::Error::other(
            "the network's holder answered without a descriptor; is it another version?",
        )
    })
}

/// One question and its answer.
pub(crate) fn ask(
    dir: &Path,
    request: &Request,
    limit: Duration,
) -> io::Result<(Vec<String>, Option<OwnedFd>)> {
    let absent = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => io::Error::new(
            io::ErrorKind::NotConnected,
            "the network of this cluster is not up; run `oscarv up` for it",
        ),
        _ => e,
    };
    let dir = Dir::open(dir).map_err(absent)?;
    let mut socket = UnixStream::connect(dir.short(SOCKET)).map_err(absent)?;
    socket.set_read_timeout(Some(limit.max(Duration::from_millis(1))))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.write_all(&wire::line(request)?)?;
    let mut bytes = Vec::new();
    let mut fd = None;
    let mut buffer = [0; 4096];
    while !bytes.ends_with(b"\n") {
        let (count, with) = wire::receive(&socket, &mut buffer).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => io::Error::new(
                io::ErrorKind::TimedOut,
                "the network's holder does not answer; see holder.log in its directory",
            ),
            _ => e,
        })?;
        if count == 0 || bytes.len() > LIMIT {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the network's holder has ended; see holder.log in its directory",
            ));
        }
        bytes.extend_from_slice(&buffer[..count]);
        fd = fd.or(with);
    }
    let reply: Reply = serde_json::from_slice(&bytes)?;
    Ok((reply.into_result()?, fd))
}
