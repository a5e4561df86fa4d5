//! A tap: the end of a cable for a VM. It lives as long as a descriptor of it is open; we keep none.

use crate::files::fnv;
use crate::links::Links;
use crate::space::tap_prefix;
use rustix::fs::{Mode, OFlags, open};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// The kernel's limit, without the final zero.
const LONGEST: usize = libc::IFNAMSIZ - 1;

/// The interface's name of a port: the slot, so that it can be told from other clusters' from outside of the
/// namespace, and the port's name, shortened where it must be.
pub(crate) fn interface(slot: u16, port: &str) -> String {
    let prefix = tap_prefix(slot);
    let room = LONGEST - prefix.len();
    if port.len() <= room {
        return prefix + port;
    }
    let hash = format!("{:06x}", fnv(port.as_bytes()) & 0xff_ffff);
    format!("{prefix}{}{hash}", &port[..room - hash.len()])
}

/// Opens the tap of a port and plugs it into the bridge.
pub(crate) async fn open_port(
    links: &Links,
    bridge: u32,
    slot: u16,
    port: &str,
) -> io::Result<OwnedFd> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.';
    if port.is_empty() || port.len() > 128 || !port.bytes().all(fits) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{port:?} is not the name of a port; use letters, digits, '-', '_' and '.'"),
        ));
    }
    let name = interface(slot, port);
    let tap = create(&name).map_err(|e| match e.raw_os_error() {
        Some(libc::EBUSY) => io::Error::new(
            io::ErrorKind::ResourceBusy,
            format!("port {port} is in use by a VM that runs; stop it first"),
        ),
        _ => e,
    })?;
    links
        .plug(&name, bridge)
        .await
        .map_err(|e| io::Error::other(e.chain()))?;
    Ok(tap)
}

fn create(name: &str) -> io::Result<OwnedFd> {
    let tun = open(
        "/dev/net/tun",
        OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::empty(),
    )
    .map_err(|e| {
        io::Error::new(
            io::Error::from(e).kind(),
            format!("cannot open /dev/net/tun ({e}); run `oscarv check`"),
        )
    })?;
    // SAFETY: a struct of plain numbers, for which all zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags =
        (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: the request is a valid ifreq with a name that ends with zero.
    if unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(tun)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_interfaces_fit_and_differ() {
        assert_eq!(interface(3, "compute1"), "t3-compute1");
        let (a, b) = (
            interface(2000, "compute-node-1"),
            interface(2000, "compute-node-2"),
        );
        assert_ne!(a, b);
        for name in [a, b, interface(0, &"x".repeat(63))] {
            assert!(name.len() <= LONGEST, "{name}");
        }
    }
}
