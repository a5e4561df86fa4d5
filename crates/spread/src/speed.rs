//! How fast this host's links are, as Linux knows it.

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use std::fs::read_to_string;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

/// Bytes of TCP's payload a second on the link that leads to this host; where that is not known, on the fastest link that
/// is up; `None` if nothing is known. Links without a device say 10 Gb/s, whatever they carry: those below them are
/// asked instead, such as the ports of a bridge.
pub fn towards(host: Option<SocketAddr>) -> Option<f64> {
    let links = Path::new("/sys/class/net");
    let own = host.and_then(|host| link_of(source_of(host)?));
    let speed = own.and_then(|name| of(links, &name, DEEPEST));
    speed.or_else(|| fastest(links)).map(payload)
}

/// The part of an Ethernet link that TCP's payload gets.
const PAYLOAD: f64 = 0.94;

/// So many virtual links are one above another at most: a VLAN of a bridge of a bond.
const DEEPEST: u32 = 4;

/// Bytes a second of so many Mb/s.
fn payload(speed: f64) -> f64 {
    speed * 1e6 / 8.0 * PAYLOAD
}

/// The address by which this host reaches another one. Nothing is sent for it.
fn source_of(host: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match host {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(host).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Name of the link that has this address.
fn link_of(address: IpAddr) -> Option<String> {
    let ip = |of: &SockaddrStorage| match of.as_sockaddr_in() {
        Some(v4) => Some(IpAddr::from(v4.ip())),
        None => of.as_sockaddr_in6().map(|v6| v6.ip().into()),
    };
    let mut all = getifaddrs().ok()?;
    let its = all.find(|link| link.address.as_ref().and_then(ip) == Some(address))?;
    Some(its.interface_name)
}

/// Mb/s of this link, or of the fastest one below it.
fn of(links: &Path, name: &str, deep: u32) -> Option<f64> {
    let link = links.join(name);
    if link.join("device").exists() {
        return speed(&link);
    }
    let names = std::fs::read_dir(&link).ok()?.flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let below = names.filter_map(|name| name.strip_prefix("lower_").map(str::to_owned));
    let deeper = deep.checked_sub(1)?;
    below
        .filter_map(|name| of(links, &name, deeper))
        .reduce(f64::max)
}

/// Mb/s of a link with a device, if it is up.
fn speed(link: &Path) -> Option<f64> {
    let state = read_to_string(link.join("operstate")).ok()?;
    if !link.join("device").exists() || state.trim() != "up" {
        return None;
    }
    let speed = read_to_string(link.join("speed")).ok()?;
    // -1 where it is not known.
    let speed = speed.trim().parse::<f64>().ok();
    speed.filter(|speed| *speed > 0.0)
}

/// Mb/s of the fastest link with a device.
fn fastest(links: &Path) -> Option<f64> {
    let links = std::fs::read_dir(links).ok()?.flatten();
    let paths = links.map(|link| link.path());
    paths
        .filter_map(|link: PathBuf| speed(&link))
        .reduce(f64::max)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    struct Links(tempfile::TempDir);

    impl Links {
        fn add(&self, name: &str, device: bool, state: &str, speed: &str) {
            let dir = self.0.path().join(name);
            std::fs::create_dir_all(dir.join(if device { "device" } else { "queues" })).unwrap();
            std::fs::write(dir.join("operstate"), format!("{state}\n")).unwrap();
            std::fs::write(dir.join("speed"), format!("{speed}\n")).unwrap();
        }

        /// `above` goes over `below`.
        fn put(&self, above: &str, below: &str) {
            let of = self.0.path().join(above);
            std::os::unix::fs::symlink(
                self.0.path().join(below),
                of.join(format!("lower_{below}")),
            )
            .unwrap();
        }
    }

    #[test]
    fn the_fastest_real_link_that_is_up() {
        let links = Links(tempfile::tempdir().unwrap());
        let path = links.0.path();
        assert_eq!(fastest(path), None);
        links.add("lo", false, "unknown", "10000");
        links.add("veth0", false, "up", "10000");
        links.add("eth2", true, "up", "-1");
        assert_eq!(fastest(path), None);
        links.add("eth0", true, "up", "1000");
        links.add("eth1", true, "down", "10000");
        assert_eq!(fastest(path), Some(1000.0));
        assert_eq!(fastest(Path::new("/nowhere")), None);
        assert_eq!(payload(1000.0), 0.94 * 125e6);
    }

    /// With hosts on the slow one of two networks, the first host was taken for slow, as the other link had ten times as much.
    #[test]
    fn the_link_that_leads_there_and_not_the_fastest() {
        let links = Links(tempfile::tempdir().unwrap());
        let of = |name: &str| of(links.0.path(), name, DEEPEST);
        links.add("eth0", true, "up", "1000");
        links.add("eth1", true, "up", "10000");
        links.add("br0", false, "up", "10000");
        links.add("bond0", false, "up", "2000");
        links.add("veth0", false, "up", "10000");
        assert_eq!(of("eth0"), Some(1000.0));
        assert_eq!(of("veth0"), None);
        // A bridge of a bond and of a VM's link.
        links.add("eth2", true, "down", "1000");
        links.put("bond0", "eth0");
        links.put("bond0", "eth2");
        links.put("br0", "bond0");
        links.put("br0", "veth0");
        assert_eq!(of("br0"), Some(1000.0));
        // Not for ever, whatever is above what.
        links.put("veth0", "br0");
        assert_eq!(of("br0"), Some(1000.0));
        assert_eq!(of("nothing"), None);
    }

    #[test]
    fn the_link_of_an_address_is_found() {
        let here = |address: &str| source_of(address.parse().unwrap());
        assert_eq!(here("127.0.0.9:1"), Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(link_of(Ipv4Addr::LOCALHOST.into()).as_deref(), Some("lo"));
        assert_eq!(link_of("192.0.2.1".parse().unwrap()), None);
    }
}
