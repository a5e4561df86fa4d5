//! The namespaces of a cluster: made new, or found again.
//!
//! A VM's tap holds the network namespace as long as the VM lives. So when a holder was killed, the next one looks
//! for a process of ours with a tap of this cluster, borrows that descriptor (pidfd_getfd(2)) and asks it for its
//! namespace (`TUNGETDEVNETNS`); the user namespace around it is that one's owner (`NS_GET_USERNS`, ioctl_ns(2)).
//! We made both, so we may enter both. Nothing of the VM is touched. When there is no such process, nobody can miss
//! the old namespace, and a new one is made.

use crate::Error;
use crate::files::{Dir, SPACE};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open,
    set_dumpable_behavior,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// `_IO('T', 227)` of linux/if_tun.h.
const TUNGETDEVNETNS: libc::Ioctl = 0x54e3;
/// `_IO(0xb7, 1)` of linux/nsfs.h.
const NS_GET_USERNS: libc::Ioctl = 0xb701;
/// asm-generic/socket.h; unique from boot to shutdown, unlike an inode number.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// Which namespace is ours, as the holder wrote it down.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    inode: u64,
    cookie: u64,
    boot: String,
}

/// The namespace of a holder that has ended, kept by a VM.
#[derive(Debug)]
pub(crate) struct Found {
    net: OwnedFd,
    mark: Mark,
}

/// Interfaces of taps begin with this.
pub(crate) fn tap_prefix(slot: u16) -> String {
    format!("t{slot}-")
}

/// Looks for the namespace that the last holder of this directory has left behind.
pub(crate) fn find(dir: &Dir, slot: u16) -> Result<Option<Found>, Error> {
    let Some(mark) = dir.read::<Mark>(SPACE)? else {
        return Ok(None);
    };
    if mark.boot != boot_id()? {
        return Ok(None);
    }
    let prefix = tap_prefix(slot);
    let mut denied = None;
    let processes = fs::read_dir("/proc").map_err(Error::io("cannot read /proc"))?;
    for pid in processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(Pid::from_raw)
    {
        for number in taps_of(pid, &prefix) {
            match space_of(pid, number) {
                Ok(net) if inode(&net)? == mark.inode => return Ok(Some(Found { net, mark })),
                // Another cluster's, or it ended while we looked.
                Ok(_) => {}
                Err(rustix::io::Errno::PERM) => denied = Some(pid.as_raw_nonzero().get()),
                Err(_) => {}
            }
        }
    }
    denied.map_or(Ok(None), |pid| Err(Error::Lost { pid }))
}

/// The numbers of a process's descriptors that are taps with such names. Of processes that are not ours: none.
fn taps_of(pid: Pid, prefix: &str) -> Vec<i32> {
    let base = format!("/proc/{}", pid.as_raw_nonzero());
    let Ok(entries) = fs::read_dir(format!("{base}/fd")) else {
        return Vec::new();
    };
    let is_ours = |number: &i32| {
        fs::read_link(format!("{base}/fd/{number}"))
            .is_ok_and(|to| to.as_os_str() == "/dev/net/tun")
            && fs::read_to_string(format!("{base}/fdinfo/{number}")).is_ok_and(|info| {
                info.lines()
                    .filter_map(|line| line.strip_prefix("iff:"))
                    .any(|name| name.trim().starts_with(prefix))
            })
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(is_ours)
        .collect()
}

fn space_of(pid: Pid, number: i32) -> rustix::io::Result<OwnedFd> {
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let tap = pidfd_getfd(&process, number, PidfdGetfdFlags::empty())?;
    descriptor_by_ioctl(&tap, TUNGETDEVNETNS)
}

fn descriptor_by_ioctl(fd: &OwnedFd, request: libc::Ioctl) -> rustix::io::Result<OwnedFd> {
    // SAFETY: neither request has an argument; each returns a new descriptor or -1.
    let new = unsafe { libc::ioctl(fd.as_raw_fd(), request) };
    if new < 0 {
        let errno = io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(libc::EIO);
        return Err(rustix::io::Errno::from_raw_os_error(errno));
    }
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}

/// First step. As an ordinary user: enters a user namespace in which we are root. For all: the processes that are
/// started from now on live in a process namespace of their own.
pub(crate) fn enter_user(root: bool, found: Option<&Found>) -> Result<(), Error> {
    if !root {
        match found {
            Some(found) => descriptor_by_ioctl(&found.net, NS_GET_USERNS)
                .and_then(|user| {
                    move_into_link_name_space(user.as_fd(), Some(LinkNameSpaceType::User))
                })
                .map_err(|e| {
                    Error::io("cannot enter the old user namespace of this cluster")(e.into())
                })?,
            None => new_user()?,
        }
        // The change of user namespace took us for a program with secrets; our own children must find us in /proc.
        set_dumpable_behavior(DumpableBehavior::Dumpable)
            .map_err(|e| Error::io("cannot be dumpable")(e.into()))?;
    }
    unshare(UnshareFlags::NEWPID, "cannot make a process namespace")
}

fn new_user() -> Result<(), Error> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let doing = "an ordinary user may not make a user namespace here (run `oscarv check`)";
    unshare(UnshareFlags::NEWUSER, doing)?;
    fs::write("/proc/self/setgroups", "deny")
        .and_then(|()| fs::write("/proc/self/uid_map", format!("0 {} 1", uid.as_raw())))
        .and_then(|()| fs::write("/proc/self/gid_map", format!("0 {} 1", gid.as_raw())))
        .map_err(Error::io(doing))
}

/// Second step: the network namespace. From here on, files under /proc/sys/net are its own.
pub(crate) fn enter_net(dir: &Dir, found: Option<&Found>) -> Result<(), Error> {
    let Some(found) = found else {
        unshare(
            UnshareFlags::NEWNET,
            "cannot make a network namespace (run `oscarv check`)",
        )?;
        return dir.write(SPACE, &here()?);
    };
    move_into_link_name_space(found.net.as_fd(), Some(LinkNameSpaceType::Network)).map_err(
        |e| Error::io("cannot enter the old network namespace of this cluster")(e.into()),
    )?;
    if here()? == found.mark {
        return Ok(());
    }
    Err(Error::Damaged {
        path: dir.join(SPACE),
        problem: "the network namespace is another one than the one written down".to_owned(),
    })
}

/// A descriptor of the network namespace that we are in.
pub(crate) fn current() -> Result<OwnedFd, Error> {
    open(
        "/proc/self/ns/net",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|e| Error::io("cannot open /proc/self/ns/net")(e.into()))
}

fn unshare(flags: UnshareFlags, doing: &str) -> Result<(), Error> {
    // SAFETY: none of the flags that we use concerns the table of descriptors.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(|e| Error::io(doing)(e.into()))
}

fn here() -> Result<Mark, Error> {
    Ok(Mark {
        inode: inode(&current()?)?,
        cookie: cookie().map_err(Error::io(
            "cannot ask for the cookie of the network namespace",
        ))?,
        boot: boot_id()?,
    })
}

fn inode(fd: &OwnedFd) -> Result<u64, Error> {
    rustix::fs::fstat(fd)
        .map(|stat| stat.st_ino)
        .map_err(|e| Error::io("cannot examine a network namespace")(e.into()))
}

fn cookie() -> io::Result<u64> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    let mut value = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the pointers are to live variables of the sizes that are told.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    match (result, io::Error::last_os_error()) {
        (0, _) => Ok(value),
        // Before Linux 5.14 there was none.
        (_, e) if e.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(0),
        (_, e) => Err(e),
    }
}

fn boot_id() -> Result<String, Error> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .map_err(Error::io("cannot read /proc/sys/kernel/random/boot_id"))
}
