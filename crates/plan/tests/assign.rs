//! Who gets which MAC and address, and keeps it.

#![allow(clippy::unwrap_used, reason = "a test may end so")]

mod common;

use api::Mac;
use common::{cluster, mpi};
use plan::{AssignError, Assigned, assign, gateway};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;

fn shown(assigned: &[Assigned]) -> String {
    let lines = assigned
        .iter()
        .map(|a| format!("{} {} {}\n", a.node, a.mac, a.address));
    lines.collect()
}

#[test]
fn first_time() {
    let mpi = mpi(3);
    assert_eq!(gateway(&mpi.network), Ipv4Addr::new(10, 0, 0, 1));
    // These MACs are for ever: a change would give every cluster's nodes other ones.
    assert_eq!(
        shown(&assign(&mpi, &[]).unwrap()),
        "head 52:4f:37:57:6c:e4 10.0.0.2\n\
         compute1 52:4f:37:4c:78:0a 10.0.0.3\n\
         compute2 52:4f:6b:cb:0c:2f 10.0.0.4\n\
         compute3 52:4f:ec:3e:0a:93 10.0.0.5\n"
    );
}

#[test]
fn pinned_wins_and_the_rest_is_kept() {
    let before = assign(&mpi(3), &[]).unwrap();
    let pinned = cluster(
        r#"
        name = "mpi"
        [network]
        subnet = "10.0.0.0/16"
        [[group]]
        name = "head"
        [[group]]
        name = "compute"
        count = 4
        [[group.node]]
        [[group.node]]
        address = "10.0.0.3"
        "#,
    );
    let after = assign(&pinned, &before).unwrap();
    let addresses: Vec<_> = after
        .iter()
        .map(|a| (a.node.as_str(), a.address.octets()[3]))
        .collect();
    // compute2 takes the address that compute1 had; its own old one (4) is free for who needs one first.
    assert_eq!(
        addresses,
        [
            ("head", 2),
            ("compute1", 4),
            ("compute2", 3),
            ("compute3", 5),
            ("compute4", 6)
        ]
    );
    for had in &before {
        assert!(
            after
                .iter()
                .any(|has| has.node == had.node && has.mac == had.mac)
        );
    }
}

#[test]
fn an_identity_outlives_a_change_of_order_and_neighbours() {
    let before = assign(&mpi(3), &[]).unwrap();
    let changed = cluster(
        "name = \"mpi\"\n[network]\nsubnet = \"10.0.0.0/16\"\n[[group]]\nname = \"big\"\ncount = 2\n\
         [[group]]\nname = \"compute\"\ncount = 2\n[[group]]\nname = \"head\"",
    );
    let after = assign(&changed, &before).unwrap();
    for node in ["head", "compute1", "compute2"] {
        let of = |list: &[Assigned]| list.iter().find(|a| a.node.as_str() == node).cloned();
        assert_eq!(of(&before), of(&after), "{node}");
    }
    // compute3 is gone: its address is the lowest free one.
    assert_eq!(after[0].address, Ipv4Addr::new(10, 0, 0, 5));
    assert_eq!(after[1].address, Ipv4Addr::new(10, 0, 0, 6));
}

#[test]
fn addresses_of_another_subnet_are_not_kept() {
    let before = assign(&mpi(3), &[]).unwrap();
    let mut moved = mpi(3);
    moved.network.address = Ipv4Addr::new(192, 168, 5, 0);
    moved.network.prefix = 24;
    let after = assign(&moved, &before).unwrap();
    assert!(
        after
            .iter()
            .all(|a| moved.network.is_node_address(a.address))
    );
    let macs = |list: &[Assigned]| list.iter().map(|a| a.mac).collect::<Vec<_>>();
    assert_eq!(macs(&before), macs(&after));
}

#[test]
fn a_cluster_that_was_not_checked_is_refused() {
    let mut small = mpi(10);
    small.network.prefix = 29;
    assert_eq!(
        assign(&small, &[]).unwrap_err().to_string(),
        "11 nodes do not fit into 10.0.0.0/29: it has room for 5; take a larger subnet"
    );
    let mut twice = mpi(2);
    for node in &mut twice.groups[1].nodes {
        node.address = Some(Ipv4Addr::new(10, 0, 0, 9));
    }
    assert!(matches!(
        assign(&twice, &[]),
        Err(AssignError::SameAddress { .. })
    ));
    let mut outside = mpi(2);
    outside.groups[0].nodes[0].address = Some(Ipv4Addr::new(10, 0, 0, 1));
    assert!(matches!(
        assign(&outside, &[]),
        Err(AssignError::Outside { .. })
    ));
    let mut macs = mpi(2);
    for node in &mut macs.groups[1].nodes {
        node.mac = Some(Mac::new([2, 0, 0, 0, 0, 1]).unwrap());
    }
    assert!(matches!(
        assign(&macs, &[]),
        Err(AssignError::SameMac { .. })
    ));
    // A subnet without any room, as no file can ask for.
    let mut none = mpi(1);
    none.network.prefix = 32;
    assert!(matches!(assign(&none, &[]), Err(AssignError::Full { .. })));
}

#[test]
fn ten_thousand_nodes() {
    let large = mpi(9_999);
    let begun = std::time::Instant::now();
    let first = assign(&large, &[]).unwrap();
    let second = assign(&large, &first).unwrap();
    let took = begun.elapsed();
    assert_eq!(first, second);
    assert_eq!(
        first.iter().map(|a| a.mac).collect::<HashSet<_>>().len(),
        10_000
    );
    assert_eq!(
        first
            .iter()
            .map(|a| a.address)
            .collect::<HashSet<_>>()
            .len(),
        10_000
    );
    // A quadratic search would take minutes in a debug build.
    assert!(took.as_secs() < 5, "{took:?}");
}

proptest! {
    /// Whatever was before: no two nodes share anything, what is pinned is had, and the next time nothing changes.
    #[test]
    fn always_right_and_stable(
        before in proptest::collection::vec((0usize..12, 0u8..16, 0u32..16), 0..12),
        count in 1usize..8,
        pins in proptest::collection::btree_map(0usize..8, 2u32..14, 0..4),
    ) {
        let mut now = mpi(count);
        now.network.prefix = 28;
        let mut free: BTreeMap<u32, ()> = BTreeMap::new();
        for (node, last) in pins {
            if let Some(node) = now.groups[1].nodes.get_mut(node) && free.insert(last, ()).is_none() {
                node.address = Some(Ipv4Addr::from_bits(now.network.address.to_bits() + last));
            }
        }
        let before: Vec<Assigned> = before.into_iter().map(|(node, mac, address)| Assigned {
            node: format!("compute{node}").parse().unwrap(),
            mac: Mac::new([0x52, 0x4f, 0, 0, 0, mac]).unwrap(),
            address: Ipv4Addr::from_bits(now.network.address.to_bits() + address),
        }).collect();
        let after = assign(&now, &before).unwrap();
        prop_assert_eq!(after.len(), count + 1);
        prop_assert_eq!(after.iter().map(|a| a.mac).collect::<HashSet<_>>().len(), count + 1);
        prop_assert_eq!(after.iter().map(|a| a.address).collect::<HashSet<_>>().len(), count + 1);
        for ((_, node), has) in now.nodes().zip(&after) {
            prop_assert_eq!(&node.name, &has.node);
            prop_assert!(now.network.is_node_address(has.address));
            prop_assert!(node.address.is_none_or(|pinned| pinned == has.address));
        }
        prop_assert_eq!(assign(&now, &after).unwrap(), after);
    }
}
