//! dnsmasq: DHCP by MAC and DNS for one cluster. Its arguments and its files.
//!
//! Nodes that are not in the list get nothing. Leases never end, so a node keeps its address; a lease of a node that
//! is no more (or has another MAC now) is struck out before the next start, else its address would stay taken.

use crate::files::Dir;
use crate::links::BRIDGE;
use crate::{Error, Spec};
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;

const HOSTS: &str = "run/hosts";
const DHCP_HOSTS: &str = "run/dhcp-hosts";
const LEASES: &str = "run/leases";

/// Where the directory `run` is for dnsmasq.
const SEEN: &str = "/tmp";

/// Its command line. `program` is its path.
pub(crate) fn arguments(
    program: &Path,
    spec: &Spec,
    root: bool,
    resolvers: Option<&Path>,
) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--log-facility=-",
        "--no-hosts",
        "--bind-interfaces",
        "--except-interface=lo",
        "--domain-needed",
        "--bogus-priv",
        "--dhcp-authoritative",
        // Else each offer waits for three seconds whether somebody answers a ping.
        "--no-ping",
        "--dhcp-lease-max=65536",
    ]
    .map(str::to_owned)
    .into();
    arguments.insert(0, program.to_string_lossy().into_owned());
    let mut add = |text: String| arguments.push(text);
    add(format!("--interface={BRIDGE}"));
    add(format!("--addn-hosts={SEEN}/hosts"));
    add(format!("--dhcp-hostsfile={SEEN}/dhcp-hosts"));
    add(format!("--dhcp-leasefile={SEEN}/leases"));
    add(format!("--domain={}", spec.domain));
    add(format!("--local=/{}/", spec.domain));
    add(format!(
        "--dhcp-range={},static,{},infinite",
        spec.address,
        spec.mask()
    ));
    add(format!("--dhcp-option=option:dns-server,{}", spec.gateway));
    add(format!(
        "--dhcp-option=option:domain-search,{}",
        spec.domain
    ));
    // Without an address: no router at all.
    match spec.nat {
        true => add(format!("--dhcp-option=option:router,{}", spec.gateway)),
        false => add("--dhcp-option=option:router".to_owned()),
    }
    match resolvers {
        Some(path) if spec.nat => add(format!("--resolv-file={}", path.display())),
        _ => add("--no-resolv".to_owned()),
    }
    if root {
        // From here it is nobody, with the right to raw sockets and to the ARP table of its namespace.
        add("--user=nobody".to_owned());
        add("--group=nogroup".to_owned());
    } else {
        // The only user that there is in its user namespace; groups cannot be changed there.
        add("--user=root".to_owned());
        add("--group=".to_owned());
    }
    arguments
}

/// Writes what dnsmasq reads at its start and at SIGHUP.
pub(crate) fn write(dir: &Dir, spec: &Spec) -> Result<(), Error> {
    let (mut hosts, mut dhcp) = (String::new(), String::new());
    for host in &spec.hosts {
        let name = &host.name;
        let _ = write!(hosts, "{} {name}.{} {name}", host.address, spec.domain);
        for alias in &host.aliases {
            let _ = write!(hosts, " {alias}.{} {alias}", spec.domain);
        }
        hosts.push('\n');
        let _ = writeln!(dhcp, "{},{},{name},infinite", host.mac, host.address);
    }
    // Nobody must be able to read them; the directories above keep all others out.
    dir.write_bytes(HOSTS, hosts.as_bytes(), 0o644)?;
    dir.write_bytes(DHCP_HOSTS, dhcp.as_bytes(), 0o644)
}

/// Strikes out leases that contradict the specification. Only while dnsmasq does not run.
pub(crate) fn prune(dir: &Dir, spec: &Spec) -> Result<(), Error> {
    let path = dir.join(LEASES);
    let old = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::at("cannot read", &path)(e)),
    };
    // A line is: expiry, MAC, address, name, client.
    let is_right = |line: &&str| {
        let mut fields = line.split(' ').skip(1);
        let (mac, address) = (fields.next(), fields.next());
        spec.hosts.iter().any(|h| {
            Some(h.mac.to_string().as_str()) == mac
                && Some(h.address.to_string().as_str()) == address
        })
    };
    let new: String = old
        .lines()
        .filter(is_right)
        .flat_map(|line| [line, "\n"])
        .collect();
    if new == old {
        return Ok(());
    }
    dir.write_bytes(LEASES, new.as_bytes(), 0o644)
}

/// Must dnsmasq be started anew, because a host has gone or changed? New hosts only need a SIGHUP.
pub(crate) fn needs_restart(old: &Spec, new: &Spec) -> bool {
    let pair = |spec: &Spec| -> std::collections::HashSet<_> {
        spec.hosts.iter().map(|h| (h.mac, h.address)).collect()
    };
    old.domain != new.domain || old.nat != new.nat || !pair(old).is_subset(&pair(new))
}

/// The host's list of resolvers that can be reached from elsewhere than the host's own loopback.
pub(crate) fn resolvers() -> Option<&'static Path> {
    ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"]
        .map(Path::new)
        .into_iter()
        .find(|path| fs::read_to_string(path).is_ok_and(|text| has_reachable(&text)))
}

fn has_reachable(text: &str) -> bool {
    text.lines()
        .filter_map(|line| {
            line.trim()
                .strip_prefix("nameserver")?
                .trim()
                .parse::<std::net::Ipv4Addr>()
                .ok()
        })
        .any(|address| !address.is_loopback() && !address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_on_loopback_are_of_no_use() {
        assert!(!has_reachable("nameserver 127.0.0.53\noptions edns0"));
        assert!(!has_reachable("nameserver ::1\n# nameserver 9.9.9.9"));
        assert!(has_reachable("nameserver 127.0.0.1\nnameserver\t192.0.2.1"));
    }
}
