//! The nodes of the groups: their names, and the MACs and addresses that were asked for.

use super::groups::Draft;
use super::{mac, name, twice};
use crate::error::{Found, Span, quoted};
use crate::model::{Network, Node, Role};
use crate::raw::{At, Field};
use api::{Mac, Name};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::Ipv4Addr;

/// What nodes have had so far. Each can be had once; the place is that of the first.
#[derive(Default)]
pub(super) struct Seen {
    names: HashMap<Name, Span>,
    macs: HashMap<Mac, Span>,
    addresses: HashMap<Ipv4Addr, Span>,
}

pub(super) fn nodes(
    draft: &Draft,
    network: Option<&Network>,
    seen: &mut Seen,
    found: &mut Found<'_>,
) -> Option<Vec<Node>> {
    let count = draft.count.unwrap_or(draft.raw.nodes.len());
    let mut nodes = Some(Vec::with_capacity(count));
    // Two groups like "a" and "a1" clash in many nodes for one reason: it is told once.
    let mut clashes = 0;
    for at in 0..count {
        let pinned = draft.raw.nodes.get(at);
        let name = match pinned.map(|node| &node.name) {
            Some(Field::Given(given)) => {
                let name = name(given, "a node", found).and_then(|name| own(name, given, found));
                name.filter(|name| match seen.names.entry(name.clone()) {
                    Entry::Vacant(entry) => {
                        entry.insert(given.span.clone());
                        true
                    }
                    Entry::Occupied(first) => {
                        let message = format!("two nodes have the name {name}");
                        twice(&given.span, first.get(), message, found);
                        false
                    }
                })
            }
            Some(Field::Bad) => None,
            Some(Field::Absent) | None => default_name(draft, at, count, seen, &mut clashes, found),
        };
        let mac = pinned.map_or(Some(None), |node| {
            mac(&node.mac, "nodes", &mut seen.macs, found)
        });
        let address = pinned.map_or(Some(None), |node| {
            address(&node.address, network, seen, found)
        });
        match (name, mac, address, &mut nodes) {
            (Some(name), Some(mac), Some(address), Some(nodes)) => {
                nodes.push(Node { name, mac, address });
            }
            _ => nodes = None,
        }
    }
    draft.count.and(nodes)
}

/// The name of the head is its group's; others are counted.
fn default_name(
    draft: &Draft,
    at: usize,
    count: usize,
    seen: &mut Seen,
    clashes: &mut usize,
    found: &mut Found<'_>,
) -> Option<Name> {
    let (group, role) = (draft.name.as_ref()?, draft.role?);
    let span = draft.raw.name.given().map(|given| given.span.clone());
    let span = span.unwrap_or(draft.raw.place.clone());
    let text = match role {
        Role::Head => group.to_string(),
        Role::Compute => format!("{group}{}", at + 1),
    };
    let Ok(name) = Name::new(&text) else {
        // The group's name is good, so only its length can be too much; the last node shows it first.
        if at + 1 == count {
            let message = format!("nodes would have names of more than 63 characters, as {text}");
            found
                .error(span, message)
                .hint("take a shorter name for the group");
        }
        return None;
    };
    match seen.names.entry(name) {
        Entry::Vacant(entry) => {
            let name = entry.key().clone();
            entry.insert(span);
            Some(name)
        }
        Entry::Occupied(first) => {
            *clashes += 1;
            if *clashes == 1 && *first.get() != span {
                let message =
                    format!("a node of group {group} would be named {text}, as another is");
                twice(&span, first.get(), message, found)
                    .hint("take another name for one of the two groups");
            }
            None
        }
    }
}

/// Names that every machine has for itself.
fn own(name: Name, at: &At<String>, found: &mut Found<'_>) -> Option<Name> {
    if name.as_str() == "localhost" {
        let message = "a node cannot be named localhost: every machine calls itself so";
        found.error(at.span.clone(), message);
        return None;
    }
    Some(name)
}

/// `Some(None)` was left to be assigned, `None` is wrong.
fn address(
    raw: &Field<String>,
    network: Option<&Network>,
    seen: &mut Seen,
    found: &mut Found<'_>,
) -> Option<Option<Ipv4Addr>> {
    let at = match raw {
        Field::Absent => return Some(None),
        Field::Bad => return None,
        Field::Given(at) => at,
    };
    let span = at.span.clone();
    let Ok(address) = at.value.parse::<Ipv4Addr>() else {
        let message = format!("{} is not an IPv4 address", quoted(&at.value));
        let problem = found.error(span, message);
        problem.hint("it is written as in \"10.77.0.50\"");
        return None;
    };
    if let Some(first) = seen.addresses.get(&address) {
        let message = format!("two nodes have the address {address}");
        twice(&span, first, message, found);
        return None;
    }
    seen.addresses.insert(address, span.clone());
    let Some(network) = network.filter(|network| !network.is_node_address(address)) else {
        return Some(Some(address));
    };
    let why = if address == network.gateway() {
        "is the gateway's"
    } else if address == network.address {
        "is the network's own"
    } else if address == network.broadcast() {
        "is the broadcast address"
    } else {
        "is not in the subnet"
    };
    let (first, last) = (
        Ipv4Addr::from_bits(network.gateway().to_bits() + 1),
        Ipv4Addr::from_bits(network.broadcast().to_bits() - 1),
    );
    found
        .error(span, format!("{address} {why} ({network})"))
        .hint(format!("nodes have addresses from {first} to {last}"))
        .doubtful();
    None
}
