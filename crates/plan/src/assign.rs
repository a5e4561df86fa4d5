//! Who gets which MAC and which address.
//!
//! What the file pins is taken. What a node had before is kept while it is still valid, so that known hosts, leases and
//! habits survive a change of the file. The rest is new: a MAC that follows from the names of cluster and node alone,
//! and the lowest free address.

use api::{Mac, Name};
use profile::{Cluster, Network};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

/// The identity of a node on the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assigned {
    pub node: Name,
    pub mac: Mac,
    pub address: Ipv4Addr,
}

/// Why nodes cannot be given addresses. A cluster that was read from a file and checked gives none of these.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignError {
    #[error(
        "{nodes} nodes do not fit into {subnet}: it has room for {capacity}; take a larger subnet"
    )]
    Full {
        nodes: usize,
        subnet: String,
        capacity: u32,
    },
    #[error("{address} of node {node} is not an address for nodes in {subnet}; change it")]
    Outside {
        node: Name,
        address: Ipv4Addr,
        subnet: String,
    },
    #[error("nodes {first} and {second} both ask for the address {address}; change one")]
    SameAddress {
        first: Name,
        second: Name,
        address: Ipv4Addr,
    },
    #[error("nodes {first} and {second} both ask for the MAC {mac}; change one")]
    SameMac { first: Name, second: Name, mac: Mac },
}

/// The gateway's address: the first usable one.
pub fn gateway(network: &Network) -> Ipv4Addr {
    network.gateway()
}

/// An identity for every node, in the order of the file. `previous` is what was assigned last time, in any order; nodes
/// that are gone free theirs.
pub fn assign(cluster: &Cluster, previous: &[Assigned]) -> Result<Vec<Assigned>, AssignError> {
    let network = &cluster.network;
    let count = cluster.nodes().count();
    let mut macs: HashMap<Mac, &Name> = HashMap::with_capacity(count);
    let mut addresses: HashMap<Ipv4Addr, &Name> = HashMap::with_capacity(count);

    // First what the file pins: it wins over all that was before.
    for (_, node) in cluster.nodes() {
        if let Some(address) = node.address {
            if !network.is_node_address(address) {
                return Err(AssignError::Outside {
                    node: node.name.clone(),
                    address,
                    subnet: network.to_string(),
                });
            }
            if let Some(first) = addresses.insert(address, &node.name) {
                return Err(AssignError::SameAddress {
                    first: first.clone(),
                    second: node.name.clone(),
                    address,
                });
            }
        }
        if let Some(mac) = node.mac
            && let Some(first) = macs.insert(mac, &node.name)
        {
            return Err(AssignError::SameMac {
                first: first.clone(),
                second: node.name.clone(),
                mac,
            });
        }
    }
    if count as u64 > u64::from(network.capacity()) {
        return Err(AssignError::Full {
            nodes: count,
            subnet: network.to_string(),
            capacity: network.capacity(),
        });
    }

    // Then what nodes had, before anything new is given away.
    let before: HashMap<&Name, &Assigned> = previous.iter().map(|had| (&had.node, had)).collect();
    let mut chosen = Vec::with_capacity(count);
    for (_, node) in cluster.nodes() {
        let had = before.get(&node.name);
        let mac = node.mac.or_else(|| {
            let mac = had?.mac;
            let free = !macs.contains_key(&mac);
            free.then(|| macs.insert(mac, &node.name));
            free.then_some(mac)
        });
        let address = node.address.or_else(|| {
            let address = had?.address;
            let free = network.is_node_address(address) && !addresses.contains_key(&address);
            free.then(|| addresses.insert(address, &node.name));
            free.then_some(address)
        });
        chosen.push((&node.name, mac, address));
    }

    let mut taken: HashSet<Mac> = macs.into_keys().collect();
    let mut free = network.node_addresses();
    let full = || AssignError::Full {
        nodes: count,
        subnet: network.to_string(),
        capacity: network.capacity(),
    };
    chosen
        .into_iter()
        .map(|(node, mac, address)| {
            let mac = match mac {
                Some(mac) => mac,
                None => new_mac(&cluster.name, node, &mut taken),
            };
            let address = match address {
                Some(address) => address,
                None => free
                    .find(|address| !addresses.contains_key(address))
                    .ok_or_else(full)?,
            };
            Ok(Assigned {
                node: node.clone(),
                mac,
                address,
            })
        })
        .collect()
}

/// `52:4f` ("RO": locally administered, unicast) and 32 bits of a hash of the names. Two nodes whose hashes agree are
/// told apart by hashing again with a number, in the order of the file.
fn new_mac(cluster: &Name, node: &Name, taken: &mut HashSet<Mac>) -> Mac {
    let mut attempt: u64 = 0;
    loop {
        // No name has a zero byte, so that no two pairs of names give the same text.
        let parts = [
            cluster.as_str().as_bytes(),
            &[0],
            node.as_str().as_bytes(),
            &[0],
            &attempt.to_be_bytes(),
        ];
        let hash = fnv1a(parts.into_iter().flatten().copied());
        // The halves are folded as the authors of FNV advise for fewer than 64 bits.
        let [a, b, c, d] = ((hash >> 32) as u32 ^ hash as u32).to_be_bytes();
        // 0x52 is an even first byte, so this is always a MAC that a NIC can have.
        if let Ok(mac) = Mac::new([0x52, 0x4f, a, b, c, d])
            && taken.insert(mac)
        {
            return mac;
        }
        attempt += 1;
    }
}

/// FNV-1a, 64 bits: small and the same everywhere, for ever. <http://www.isthe.com/chongo/tech/comp/fnv/>
fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_the_published_one() {
        // Test vectors of draft-eastlake-fnv, appendix C.
        assert_eq!(fnv1a(b"".iter().copied()), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a".iter().copied()), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar".iter().copied()), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn agreeing_hashes_are_told_apart() {
        let (cluster, node) = (Name::new("c").unwrap(), Name::new("n").unwrap());
        let mut taken = HashSet::new();
        let first = new_mac(&cluster, &node, &mut taken);
        let second = new_mac(&cluster, &node, &mut taken);
        assert_ne!(first, second);
        assert_eq!(&first.bytes()[..2], &[0x52, 0x4f]);
        assert_eq!(new_mac(&cluster, &node, &mut HashSet::new()), first);
    }
}
