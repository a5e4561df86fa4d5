//! The private network.

use crate::error::{Found, quoted};
use crate::model::Network;
use crate::raw::{self, At, Field};
use api::Name;
use std::net::Ipv4Addr;

const SUBNET: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 77, 0, 0), 24);
const FORM: &str = "a subnet is an address and a prefix length, as in \"10.77.0.0/24\"";

pub(super) fn check(raw: &raw::Network, found: &mut Found<'_>) -> Option<Network> {
    let subnet = match &raw.subnet {
        Field::Given(at) => subnet(at, found),
        Field::Bad => None,
        Field::Absent => {
            let (address, prefix) = SUBNET;
            found.note("network.subnet", format!("{address}/{prefix}"), "default");
            Some(SUBNET)
        }
    };
    let domain = match &raw.domain {
        Field::Given(at) => domain(at, found),
        Field::Bad => None,
        Field::Absent => {
            found.note("network.domain", "cluster", "default");
            Some("cluster".to_owned())
        }
    };
    let nat = match &raw.nat {
        Field::Given(at) => Some(at.value),
        Field::Bad => None,
        Field::Absent => {
            found.note("network.nat", true, "default: nodes may reach the world");
            Some(true)
        }
    };
    let (address, prefix) = subnet?;
    Some(Network {
        address,
        prefix,
        domain: domain?,
        nat: nat?,
    })
}

fn subnet(at: &At<String>, found: &mut Found<'_>) -> Option<(Ipv4Addr, u8)> {
    let text = at.value.as_str();
    let span = at.span.clone();
    let parsed = text.split_once('/').and_then(|(address, prefix)| {
        let plain = prefix.len() <= 2 && prefix.bytes().all(|b| b.is_ascii_digit());
        let prefix = prefix
            .parse()
            .ok()
            .filter(|prefix| plain && *prefix <= 32)?;
        Some((address.parse::<Ipv4Addr>().ok()?, prefix))
    });
    let Some((address, prefix)) = parsed else {
        let message = format!("{} is not a subnet", quoted(text));
        found.error(span, message).hint(FORM);
        return None;
    };
    if !(8..=29).contains(&prefix) {
        let message = format!("a cluster's subnet is from /8 to /29, not /{prefix}");
        let problem = found.error(span, message);
        if prefix > 29 {
            problem.hint("a /29 has room for 5 nodes, a /24 for 253");
        }
        return None;
    }
    let start = Ipv4Addr::from_bits(address.to_bits() & (u32::MAX << (32 - prefix)));
    if start != address {
        let message = format!("{address} is an address inside of a /{prefix}, not its first one");
        let problem = found.error(span, message);
        problem.hint(format!("write \"{start}/{prefix}\""));
        return None;
    }
    // The private ranges are a /8, a /12 and a /16: whoever starts and ends in one is within it.
    let end = Ipv4Addr::from_bits(address.to_bits() | (u32::MAX >> prefix));
    if !(start.is_private() && end.is_private()) {
        let message = format!("{start}/{prefix} is not a private network");
        let problem = found.error(span, message);
        problem.hint("private are 10.0.0.0/8, 172.16.0.0/12 and 192.168.0.0/16 (RFC 1918)");
        return None;
    }
    Some((address, prefix))
}

fn domain(at: &At<String>, found: &mut Found<'_>) -> Option<String> {
    let text = at.value.as_str();
    // A full name has at most 253 characters (RFC 1035), of which a node's own may take 64.
    let why = if text.len() > 189 {
        Some("it has more than 189 characters".to_owned())
    } else if matches!(text, "localhost" | "in-addr.arpa") {
        Some("it is reserved (RFC 6761)".to_owned())
    } else {
        let bad = text.split('.').find_map(|label| Name::new(label).err());
        bad.map(|e| format!("in each part between dots, {e}"))
    };
    let Some(why) = why else {
        return Some(text.to_owned());
    };
    let message = format!("{} cannot be the domain: {why}", quoted(text));
    let problem = found.error(at.span.clone(), message);
    problem.hint("a domain is written as in \"cluster\" or \"mpi.example\"");
    None
}

/// The smallest private subnet for so many nodes, of those that start like `like`.
pub(super) fn large_enough(nodes: u64, like: Ipv4Addr) -> (Ipv4Addr, u8) {
    let host_bits = (nodes + 3).next_power_of_two().trailing_zeros();
    let prefix = 32u32.saturating_sub(host_bits).clamp(8, 29);
    let start = Ipv4Addr::from_bits(like.to_bits() & (u32::MAX << (32 - prefix)));
    let end = Ipv4Addr::from_bits(start.to_bits() | (u32::MAX >> prefix));
    let private = start.is_private() && end.is_private();
    let start = if private {
        start
    } else {
        Ipv4Addr::new(10, 0, 0, 0)
    };
    (start, prefix as u8)
}
