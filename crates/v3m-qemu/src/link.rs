//! What a NIC is plugged into, where that is not a cluster network.
//!
//! * *bridged*, *VLAN*: a tap of ours on a bridge of the host's. It is not persistent: the kernel removes it, and with it
//!   its port and VLAN, when QEMU ends, however it ends. An ordinary user has no right to make one;
//!   `qemu-bridge-helper` makes it for him where the administrator installed it setuid and allowed the bridge.
//! * *private*: QEMU sends frames by multicast on the loopback interface. It is the one way that needs no right and no
//!   process beside the VMs: nothing has to be started before the first one or ended after the last. The group is made
//!   from the driver's directory and the network's name, so that networks of other users do not meet by accident; it is
//!   no secret from them: who runs programs on the host can listen.
//! * *host-only*: as private with a bridge of our own, on which the host has its IPv6 link-local address. Root's only.

use profile::Link;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
    recvmsg, socketpair,
};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What puts an ordinary user's NICs on bridges, where it is setuid and its configuration allows the bridge.
pub const HELPER: &str = "/usr/lib/qemu/qemu-bridge-helper";

/// FNV-1a (64 bits) over parts that cannot run into each other: a name for something, not a protection.
pub fn digest(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.iter().chain(&[0]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

/// The multicast group of a private network: an address of the block that is free for use inside of one organisation
/// (RFC 2365), and a port that no service has.
pub fn group(networks: &Path, network: &str) -> String {
    let hash = digest(&[networks.as_os_str().as_bytes(), network.as_bytes()]);
    let [a, b, c, ..] = hash.to_be_bytes();
    let port = 20_000 + hash % 12_000;
    format!("239.{}.{b}.{c}:{port}", 192 + a % 60)
}

/// The descriptor that QEMU gets for this link, if it needs one; an error says what to do.
pub fn open(link: &Link, networks: &Path) -> Result<Option<OwnedFd>, String> {
    let root = rustix::process::geteuid().is_root();
    match link {
        Link::Nat | Link::Private { .. } | Link::Unplugged => Ok(None),
        Link::Network { directory, port } => net::tap(directory, port).map(Some).map_err(|e| {
            let directory = directory.display();
            format!("no port {port} from the network in {directory}: {e}")
        }),
        Link::Bridged { bridge } => {
            exists(bridge)?;
            if root {
                on_bridge(bridge).map(|(tap, _)| Some(tap))
            } else {
                by_helper(bridge).map(Some)
            }
        }
        Link::Vlan { bridge, tag } => {
            exists(bridge)?;
            if !root {
                return Err(format!(
                    "only root can put a NIC into VLAN {tag} of bridge {bridge}; as an ordinary user, have a bridge made \
                     for that VLAN and use it as `bridged`"
                ));
            }
            let filtering =
                fs::read_to_string(format!("/sys/class/net/{bridge}/bridge/vlan_filtering"));
            if filtering.unwrap_or_default().trim() != "1" {
                return Err(format!(
                    "bridge {bridge} does not tell VLANs apart; try: sudo ip link set {bridge} type bridge vlan_filtering 1"
                ));
            }
            let (tap, name) = on_bridge(bridge)?;
            let tag = tag.to_string();
            vlan(&["add", "dev", &name, "vid", &tag, "pvid", "untagged"])?;
            // Its default VLAN, where the bridge gave it one and it is another.
            if tag != "1" {
                let _ = vlan(&["del", "dev", &name, "vid", "1"]);
            }
            Ok(Some(tap))
        }
        Link::HostOnly { network } => {
            if !root {
                return Err(format!(
                    "only root can put the host into network {network}; use `private` for VMs among themselves, or `nat`"
                ));
            }
            let bridge = host_only(networks, network);
            let failed = |e: io::Error| format!("cannot make bridge {bridge}: {e}");
            match by_name(SIOCBRADDBR, &bridge) {
                Err(e) if e.raw_os_error() != Some(libc::EEXIST) => return Err(failed(e)),
                _ => up(&bridge, true).map_err(failed)?,
            }
            on_bridge(&bridge).map(|(tap, _)| Some(tap))
        }
    }
}

/// Removes the bridge of a host-only network when no VM is on it any more.
pub fn close(link: &Link, networks: &Path) {
    let Link::HostOnly { network } = link else {
        return;
    };
    let bridge = host_only(networks, network);
    let ports = fs::read_dir(format!("/sys/class/net/{bridge}/brif"));
    if ports.is_ok_and(|mut ports| ports.next().is_none()) {
        // A VM that starts at this moment fails to get on it and says so; nothing else can be lost.
        let _ = up(&bridge, false).and_then(|()| by_name(SIOCBRDELBR, &bridge));
    }
}

fn host_only(networks: &Path, network: &str) -> String {
    let hash = digest(&[networks.as_os_str().as_bytes(), network.as_bytes()]);
    format!("v3m{:08x}", hash >> 32)
}

fn exists(bridge: &str) -> Result<(), String> {
    let path = PathBuf::from(format!("/sys/class/net/{bridge}"));
    if path.join("bridge").is_dir() {
        Ok(())
    } else if path.exists() {
        Err(format!("{bridge} is a network interface, but no bridge"))
    } else {
        Err(format!(
            "there is no bridge {bridge} on this host; try: sudo ip link add {bridge} type bridge && sudo ip link set \
             {bridge} up"
        ))
    }
}

fn vlan(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("bridge").arg("vlan").args(arguments).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "bridge vlan {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(e) => Err(format!(
            "cannot run bridge ({e}); try: sudo apt-get install iproute2"
        )),
    }
}

/// A tap that QEMU's own helper made; its far end of the socket sends it (`SCM_RIGHTS`).
fn by_helper(bridge: &str) -> Result<OwnedFd, String> {
    let advice = format!(
        "as an ordinary user; try: sudo chmod u+s {HELPER} && echo 'allow {bridge}' | sudo tee -a /etc/qemu/bridge.conf"
    );
    match fs::metadata(HELPER) {
        Ok(metadata) if metadata.permissions().mode() & 0o4000 != 0 => {}
        Ok(_) => return Err(format!("no NIC on bridge {bridge} {advice}")),
        Err(_) => {
            return Err(format!(
                "{HELPER} is missing; try: sudo apt-get install qemu-system-common"
            ));
        }
    }
    let failed = |e: io::Error| format!("{HELPER}: {e}");
    let (near, far) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|e| failed(e.into()))?;
    let output = Command::new(HELPER)
        .args(["--use-vnet", "--fd=0", &format!("--br={bridge}")])
        .stdin(Stdio::from(far))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(failed)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "no NIC on bridge {bridge} ({}) {advice}",
            said.trim()
        ));
    }
    received(&near).map_err(failed)
}

fn received(socket: &OwnedFd) -> io::Result<OwnedFd> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [io::IoSliceMut::new(&mut byte)];
    recvmsg(
        socket,
        &mut buffers,
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    )?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message
            && let Some(fd) = fds.into_iter().next()
        {
            return Ok(fd);
        }
    }
    Err(io::Error::other("it sent no descriptor"))
}

/// A tap of ours on a bridge, up; and its name.
fn on_bridge(bridge: &str) -> Result<(OwnedFd, String), String> {
    let make = || {
        let (tap, name) = tap()?;
        let mut request = request(bridge)?;
        let index = fs::read_to_string(format!("/sys/class/net/{name}/ifindex"))?;
        request.ifr_ifru.ifru_ifindex = index.trim().parse().map_err(io::Error::other)?;
        ioctl(SIOCBRADDIF, &mut request)?;
        up(&name, true)?;
        Ok((tap, name))
    };
    make().map_err(|e: io::Error| format!("cannot put a NIC on bridge {bridge}: {e}"))
}

/// A tap with a name that the kernel chose.
fn tap() -> io::Result<(OwnedFd, String)> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let tun = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
    let mut request = request("v3m%d")?;
    request.ifr_ifru.ifru_flags =
        (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: a valid ifreq, in which the kernel writes the name.
    if unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let name = request.ifr_name.iter().take_while(|c| **c != 0);
    let name = name.map(|c| char::from(*c as u8)).collect();
    Ok((tun, name))
}

fn up(interface: &str, up: bool) -> io::Result<()> {
    let mut request = request(interface)?;
    ioctl(libc::SIOCGIFFLAGS, &mut request)?;
    let bit = libc::IFF_UP as libc::c_short;
    // SAFETY: the kernel has just written the flags.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = if up { flags | bit } else { flags & !bit };
    ioctl(libc::SIOCSIFFLAGS, &mut request)
}

// linux/sockios.h
const SIOCBRADDBR: libc::c_ulong = 0x89a0;
const SIOCBRDELBR: libc::c_ulong = 0x89a1;
const SIOCBRADDIF: libc::c_ulong = 0x89a2;

/// A request whose argument is a name and nothing else.
fn by_name(number: libc::c_ulong, name: &str) -> io::Result<()> {
    ioctl(number, &mut request(name)?)
}

fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: a struct of plain numbers, for which all zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= request.ifr_name.len() {
        return Err(io::Error::other(format!("{name:?} is no interface's name")));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

fn ioctl(number: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    let any = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: a valid ifreq, or for the bridge's own two requests its first field, a name that ends with zero.
    match unsafe { libc::ioctl(any.as_raw_fd(), number, request) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn groups_are_of_one_owner_and_one_network() {
        let group = |dir: &str, name| group(Path::new(dir), name);
        assert_eq!(group("/a", "x"), group("/a", "x"));
        assert_ne!(group("/a", "x"), group("/a", "y"));
        assert_ne!(group("/a", "x"), group("/b", "x"));
        // Parts do not run into each other.
        assert_ne!(group("/ab", "c"), group("/a", "bc"));
        let (address, port) = group("/a", "x")
            .split_once(':')
            .map(|(a, p)| (a.to_owned(), p.to_owned()))
            .unwrap();
        assert!(
            address
                .parse::<std::net::Ipv4Addr>()
                .unwrap()
                .is_multicast()
        );
        assert!((20_000..32_000).contains(&port.parse::<u16>().unwrap()));
    }

    /// Where the administrator has allowed it, which the variable says; elsewhere it is refused with the way there.
    #[test]
    fn a_tap_by_qemus_helper() {
        if rustix::process::geteuid().is_root() {
            return;
        }
        let Some(bridge) = std::env::var("V3M_TEST_BRIDGE").ok() else {
            let error = by_helper("nobridge0").unwrap_err();
            assert!(error.contains("; try: sudo "), "{error}");
            return;
        };
        let tap = open(
            &Link::Bridged {
                bridge: bridge.clone(),
            },
            Path::new("/"),
        )
        .unwrap()
        .unwrap();
        let ports = || {
            fs::read_dir(format!("/sys/class/net/{bridge}/brif"))
                .unwrap()
                .count()
        };
        assert_eq!(ports(), 1);
        drop(tap);
        assert_eq!(ports(), 0);
    }

    #[test]
    fn a_bridge_that_is_not_there_is_told() {
        let link = |bridge: &str| Link::Bridged {
            bridge: bridge.to_owned(),
        };
        let error = open(&link("nobridge0"), Path::new("/")).unwrap_err();
        assert!(
            error.contains("ip link add nobridge0 type bridge"),
            "{error}"
        );
        let error = open(&link("lo"), Path::new("/")).unwrap_err();
        assert_eq!(error, "lo is a network interface, but no bridge");
    }
}
