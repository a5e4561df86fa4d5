//! What the network of a cluster should be. [`Spec::check`] is the edge: what passes it can be written into the files
//! of dnsmasq and the rules of nftables as it is.

use crate::Error;
use api::{Mac, Name};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::hash::Hash;
use std::net::Ipv4Addr;

/// The highest slot: 169.254.0.0/19 has room for 2048 links of four addresses each.
pub const MAX_SLOT: u16 = 2000;

/// A node, as DHCP and DNS know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    pub name: Name,
    pub mac: Mac,
    pub address: Ipv4Addr,
    /// More DNS names; each also with the domain.
    pub aliases: Vec<String>,
}

/// The network of one cluster on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    pub cluster: Name,
    /// Unique per cluster on this machine, 0 to [`MAX_SLOT`]: which link leads out.
    pub slot: u16,
    /// The network's address.
    pub address: Ipv4Addr,
    pub prefix: u8,
    /// Our own address in it: router and DNS server of the nodes.
    pub gateway: Ipv4Addr,
    /// DNS domain of the nodes.
    pub domain: String,
    /// May nodes reach the world?
    pub nat: bool,
    pub hosts: Vec<Host>,
}

impl Spec {
    /// Everything that can be wrong in a specification.
    pub fn check(&self) -> Result<(), Error> {
        self.problem().map_or(Ok(()), |problem| {
            Err(Error::Spec {
                cluster: self.cluster.clone(),
                problem,
            })
        })
    }

    pub(crate) fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(mask(self.prefix))
    }

    fn problem(&self) -> Option<String> {
        if self.slot > MAX_SLOT {
            return Some(format!("slot {} is more than {MAX_SLOT}", self.slot));
        }
        if !(8..=29).contains(&self.prefix) {
            return Some(format!(
                "prefix length /{} is not between /8 and /29",
                self.prefix
            ));
        }
        let network = self.address.to_bits() & mask(self.prefix);
        if network != self.address.to_bits() {
            return Some(format!(
                "{}/{} is not a network; did you mean {}/{}?",
                self.address,
                self.prefix,
                Ipv4Addr::from_bits(network),
                self.prefix
            ));
        }
        if self.address.is_loopback() || self.address.is_link_local() || self.address.is_multicast()
        {
            return Some(format!(
                "{} is reserved for other uses; take one of 10.0.0.0/8",
                self.address
            ));
        }
        if self.domain.len() > 200 || !self.domain.split('.').all(is_label) {
            return Some(format!("{:?} is not a DNS domain", self.domain));
        }
        let usable = |a: Ipv4Addr| {
            let host = a.to_bits() & !mask(self.prefix);
            a.to_bits() & mask(self.prefix) == network && host != 0 && host != !mask(self.prefix)
        };
        if !usable(self.gateway) {
            return Some(format!(
                "gateway {} is not a host of {}/{}",
                self.gateway, self.address, self.prefix
            ));
        }
        if let Some(host) = self.hosts.iter().find(|h| !usable(h.address)) {
            return Some(format!(
                "address {} of {} is not a host of {}/{}",
                host.address, host.name, self.address, self.prefix
            ));
        }
        if let Some(host) = self.hosts.iter().find(|h| h.address == self.gateway) {
            return Some(format!(
                "{} has the gateway's address {}",
                host.name, host.address
            ));
        }
        if let Some(bad) = self
            .hosts
            .iter()
            .flat_map(|h| &h.aliases)
            .find(|a| !is_label(a))
        {
            return Some(format!("alias {bad:?} is not a DNS label"));
        }
        let names = self.hosts.iter().flat_map(|h| {
            std::iter::once(h.name.as_str()).chain(h.aliases.iter().map(String::as_str))
        });
        if let Some(twice) = first_twice(names) {
            return Some(format!("two hosts are called {twice}"));
        }
        if let Some(twice) = first_twice(self.hosts.iter().map(|h| h.address)) {
            return Some(format!("address {twice} is given twice"));
        }
        first_twice(self.hosts.iter().map(|h| h.mac))
            .map(|twice| format!("MAC {twice} is given twice"))
    }

    /// What of a running network cannot be changed, and differs in `other`.
    pub(crate) fn fixed_difference(&self, other: &Self) -> Option<&'static str> {
        if self.cluster != other.cluster {
            Some("cluster")
        } else if self.slot != other.slot {
            Some("slot")
        } else if (self.address, self.prefix) != (other.address, other.prefix) {
            Some("address")
        } else if self.gateway != other.gateway {
            Some("gateway")
        } else {
            None
        }
    }

    /// The two ends of the link that leads out: ours in the namespace, and the host's.
    pub(crate) fn link(&self) -> (Ipv4Addr, Ipv4Addr) {
        let base = Ipv4Addr::new(169, 254, 0, 0).to_bits() + u32::from(self.slot) * 4;
        (Ipv4Addr::from_bits(base + 2), Ipv4Addr::from_bits(base + 1))
    }
}

const fn mask(prefix: u8) -> u32 {
    u32::MAX << (32 - prefix as u32)
}

/// A DNS label: safe in hosts files and arguments, too.
fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn first_twice<T: Hash + Eq + Clone>(items: impl Iterator<Item = T>) -> Option<T> {
    let mut seen = HashSet::new();
    items.into_iter().find(|item| !seen.insert(item.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Spec {
        let host = |n: u8| Host {
            name: Name::new(&format!("n{n}")).unwrap(),
            mac: Mac::new([2, 0, 0, 0, 0, n]).unwrap(),
            address: Ipv4Addr::new(10, 1, 0, n),
            aliases: vec![],
        };
        Spec {
            cluster: Name::new("a").unwrap(),
            slot: 3,
            address: Ipv4Addr::new(10, 1, 0, 0),
            prefix: 24,
            gateway: Ipv4Addr::new(10, 1, 0, 254),
            domain: "a.oscar".to_owned(),
            nat: true,
            hosts: vec![host(1), host(2)],
        }
    }

    #[test]
    fn the_link_follows_from_the_slot() {
        assert_eq!(
            spec().link(),
            (
                Ipv4Addr::new(169, 254, 0, 14),
                Ipv4Addr::new(169, 254, 0, 13)
            )
        );
    }

    #[test]
    fn each_mistake_is_named() {
        spec().check().unwrap();
        type Break = fn(&mut Spec);
        let cases: [(Break, &str); 13] = [
            (|s| s.slot = 2001, "slot 2001"),
            (|s| s.prefix = 31, "/31"),
            (|s| s.prefix = 0, "/0"),
            (
                |s| s.address = Ipv4Addr::new(10, 1, 0, 9),
                "did you mean 10.1.0.0/24",
            ),
            (
                |s| s.gateway = Ipv4Addr::new(10, 1, 0, 255),
                "gateway 10.1.0.255",
            ),
            (|s| s.domain = "a\nb".to_owned(), "not a DNS domain"),
            (|s| s.domain = String::new(), "not a DNS domain"),
            (
                |s| s.hosts[0].address = Ipv4Addr::new(10, 2, 0, 1),
                "10.2.0.1 of n1",
            ),
            (|s| s.hosts[0].address = s.gateway, "gateway's address"),
            (|s| s.hosts[0].aliases.push("a b".to_owned()), "\"a b\""),
            (|s| s.hosts[0].aliases.push("n2".to_owned()), "called n2"),
            (|s| s.hosts[0].address = s.hosts[1].address, "given twice"),
            (|s| s.hosts[0].mac = s.hosts[1].mac, "MAC"),
        ];
        for (damage, said) in cases {
            let mut spec = spec();
            damage(&mut spec);
            let error = spec.check().unwrap_err().to_string();
            assert!(error.contains(said), "{error:?} does not say {said:?}");
        }
    }
}
