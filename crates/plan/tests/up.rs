//! What `up` would do, and that doing it leads to where nothing is left to do.

#![allow(clippy::unwrap_used, reason = "a test may end so")]

mod common;

use api::Name;
use common::{cluster, mpi};
use plan::{NetworkState, Observed, ObservedNode, Plan, Step, up};
use profile::Cluster;
use proptest::prelude::*;
use std::collections::BTreeMap;

const GOOD: ObservedNode = ObservedNode {
    running: true,
    paused: false,
    defined: true,
    same_disk: true,
    same: true,
    told: true,
    ready: true,
    failed: false,
};

fn nothing() -> Observed {
    Observed {
        deployed: true,
        image: None,
        network: NetworkState::Absent,
        nodes: BTreeMap::new(),
    }
}

fn all_good(cluster: &Cluster) -> Observed {
    Observed {
        deployed: true,
        image: Some("key".to_owned()),
        network: NetworkState::Up,
        nodes: cluster
            .nodes()
            .map(|(_, node)| (node.name.clone(), GOOD))
            .collect(),
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// What a driver, a network and an image builder would make of the plan.
fn apply(plan: &Plan, observed: &mut Observed) {
    for step in &plan.steps {
        match step {
            Step::BuildImage => observed.image = Some("key".to_owned()),
            Step::MakeNetwork => {
                assert_eq!(observed.network, NetworkState::Absent);
                observed.network = NetworkState::Up;
            }
            Step::UpdateNetwork => {
                assert_eq!(observed.network, NetworkState::Changed);
                observed.network = NetworkState::Up;
            }
            Step::CreateNode { node } => {
                let made = ObservedNode {
                    defined: true,
                    same_disk: true,
                    same: true,
                    told: true,
                    ..ObservedNode::default()
                };
                let had = observed
                    .nodes
                    .insert(node.clone(), made)
                    .unwrap_or_default();
                assert!(
                    !had.running && !had.paused && !had.defined,
                    "{node} is not new"
                );
            }
            Step::ReplaceNode { node, .. } => {
                let made = ObservedNode {
                    defined: true,
                    same_disk: true,
                    same: true,
                    told: true,
                    ..ObservedNode::default()
                };
                observed
                    .nodes
                    .insert(node.clone(), made)
                    .expect("only what is there is replaced");
            }
            Step::RestartNode { node, .. } => {
                let is = observed.nodes.get_mut(node).unwrap();
                assert!(is.defined && is.same_disk && (is.running || is.paused));
                *is = ObservedNode {
                    running: true,
                    paused: false,
                    same: true,
                    told: true,
                    ready: false,
                    failed: false,
                    ..*is
                };
            }
            Step::StartNode { node } => {
                let is = observed.nodes.get_mut(node).unwrap();
                assert!(
                    is.defined && is.same_disk && !is.running && !is.paused,
                    "{node}: {is:?}"
                );
                assert!(observed.image.is_some() && observed.network == NetworkState::Up);
                is.running = true;
                is.same = true;
                is.told = true;
                is.ready = false;
                is.failed = false;
            }
            Step::UpdateNode { node } => {
                let is = observed.nodes.get_mut(node).unwrap();
                assert!(is.running && is.same && (!is.told || is.failed));
                is.told = true;
                is.ready = false;
                is.failed = false;
            }
            Step::ResumeNode { node } => {
                let is = observed.nodes.get_mut(node).unwrap();
                assert!(is.paused);
                is.paused = false;
                is.running = true;
            }
            Step::RemoveNode { node } => {
                observed
                    .nodes
                    .remove(node)
                    .expect("only what is there is removed");
            }
            Step::WaitReady { nodes } => {
                assert!(*nodes > 0);
                for is in observed.nodes.values_mut() {
                    assert!(is.running, "nobody waits for a node that does not run");
                    assert!(!is.failed, "it would wait in vain");
                    is.ready = true;
                }
            }
            Step::Deploy => {
                assert!(observed.nodes.values().all(|is| is.ready));
                observed.deployed = true;
            }
        }
    }
}

#[test]
fn from_nothing() {
    let plan = up(&mpi(3), &nothing());
    assert_eq!(
        plan.to_string(),
        "+ image: to be built\n\
         + network\n\
         + node head,compute[1-3]: 1 CPU, 512M memory, 4G disk each\n\
         ? wait until 4 nodes are ready"
    );
    assert!(plan.destructive().is_empty());
    assert_eq!((plan.summary.create, plan.summary.start), (4, 0));
    assert_eq!(plan.steps.len(), 2 + 4 + 4 + 1);
}

#[test]
fn nothing_to_do() {
    let mpi = mpi(3);
    let plan = up(&mpi, &all_good(&mpi));
    assert!(plan.is_empty());
    assert_eq!(plan.summary.unchanged, 4);
    assert_eq!(
        plan.to_string(),
        "nothing to do: cluster mpi is as it should be"
    );
}

#[test]
fn one_of_each() {
    let text = "name = \"mpi\"\n[[group]]\nname = \"head\"\ncpus = 2\n[[group]]\nname = \"compute\"\ncount = 6\n\
                [[group]]\nname = \"big\"\ncount = 2\nmemory = \"2G\"";
    let cluster = cluster(text);
    let mut is = all_good(&cluster);
    is.network = NetworkState::Changed;
    is.nodes.get_mut(&name("head")).unwrap().told = false;
    is.nodes.get_mut(&name("compute1")).unwrap().same_disk = false;
    is.nodes.get_mut(&name("compute6")).unwrap().same = false;
    is.nodes.get_mut(&name("compute2")).unwrap().running = false;
    is.nodes.insert(
        name("compute3"),
        ObservedNode {
            paused: true,
            running: false,
            ..GOOD
        },
    );
    is.nodes.insert(
        name("compute4"),
        ObservedNode {
            defined: false,
            same: false,
            ..GOOD
        },
    );
    is.nodes.get_mut(&name("compute5")).unwrap().ready = false;
    is.nodes.remove(&name("big1"));
    is.nodes.remove(&name("big2"));
    is.nodes.insert(name("compute7"), GOOD);
    is.nodes.insert(name("compute8"), ObservedNode::default());
    let plan = up(&cluster, &is);
    assert_eq!(
        plan.to_string(),
        "~ network: to be changed\n\
         - remove compute[7-8]\n\
         ~ replace compute1: its image or the size of its disk has changed\n\
         ~ replace compute4: it runs, but its definition is lost\n\
         + node big[1-2]: 1 CPU, 2G memory, 4G disk each\n\
         ~ restart compute6: its definition has changed\n\
         > start compute2\n\
         > resume compute3\n\
         ~ tell head: the cluster has changed\n\
         ? wait until 9 nodes are ready"
    );
    assert_eq!(plan.destructive().len(), 5);
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(
        json["steps"][3],
        serde_json::json!({"step": "replace-node", "node": "compute1", "why": "its image or the size of its disk has changed"})
    );
    assert_eq!(
        json["summary"],
        serde_json::json!({"create": 2, "start": 1, "resume": 1, "update": 1, "restart": 1, "replace": 2, "remove": 2, "unchanged": 1})
    );
    apply(&plan, &mut is);
    assert!(up(&cluster, &is).is_empty());
}

#[test]
fn a_lost_network_costs_no_disk() {
    let mpi = mpi(1);
    let mut is = all_good(&mpi);
    is.network = NetworkState::Absent;
    let plan = up(&mpi, &is);
    assert_eq!(
        plan.to_string(),
        "+ network\n~ restart head,compute1: its network was gone\n? wait until 2 nodes are ready"
    );
    assert_eq!(plan.destructive().len(), 2, "what runs on them ends");
}

/// It was told that the node had failed, for ever, whatever was mended.
#[test]
fn a_node_that_failed_is_told_again() {
    let mpi = mpi(1);
    let mut is = all_good(&mpi);
    let node = is.nodes.get_mut(&name("compute1")).unwrap();
    (node.ready, node.failed) = (false, true);
    let plan = up(&mpi, &is);
    assert_eq!(
        plan.to_string(),
        "~ tell compute1: the cluster has changed\n? wait until 1 node is ready"
    );
    assert!(plan.destructive().is_empty());
}

/// Killed after the last node was ready, the packages' last phase was never done.
#[test]
fn the_last_phase_is_part_of_the_plan() {
    let mpi = mpi(1);
    let mut is = all_good(&mpi);
    is.deployed = false;
    let plan = up(&mpi, &is);
    assert_eq!(plan.steps, [Step::Deploy]);
    assert_eq!(
        plan.to_string(),
        "~ finish: packages' last phase, on the head"
    );
    apply(&plan, &mut is);
    assert!(up(&mpi, &is).is_empty());
}

#[test]
fn only_waiting() {
    let mpi = mpi(1);
    let mut is = all_good(&mpi);
    is.nodes.get_mut(&name("head")).unwrap().ready = false;
    assert_eq!(up(&mpi, &is).to_string(), "? wait until 1 node is ready");
}

fn node() -> impl Strategy<Value = ObservedNode> {
    any::<[bool; 8]>().prop_map(
        |[
            running,
            paused,
            defined,
            same_disk,
            same,
            told,
            ready,
            failed,
        ]| {
            ObservedNode {
                running,
                paused,
                defined,
                same_disk,
                same,
                told,
                ready: ready && !failed,
                failed,
            }
        },
    )
}

proptest! {
    /// Applying a plan leads to where there is nothing to do, from anywhere, also when it is broken off at any step.
    #[test]
    fn converges(
        count in 1usize..6,
        image in any::<bool>(),
        deployed in any::<bool>(),
        network in prop_oneof![Just(NetworkState::Absent), Just(NetworkState::Up), Just(NetworkState::Changed)],
        nodes in proptest::collection::btree_map(0usize..9, node(), 0..9),
        broken_off in any::<prop::sample::Index>(),
    ) {
        let mpi = mpi(count);
        let mut is = Observed {
            deployed,
            image: image.then(|| "key".to_owned()),
            network,
            nodes: nodes.into_iter().map(|(at, node)| {
                (if at == 0 { name("head") } else { name(&format!("compute{at}")) }, node)
            }).collect(),
        };
        let mut plan = up(&mpi, &is);
        plan.steps.truncate(broken_off.index(plan.steps.len() + 1));
        apply(&plan, &mut is);
        apply(&up(&mpi, &is), &mut is);
        let again = up(&mpi, &is);
        prop_assert!(again.is_empty(), "{again}");
        prop_assert_eq!(is.nodes.len(), count + 1);
        prop_assert!(is.nodes.values().all(|node| node.running && node.ready));
    }

    /// Nothing is lost that need not be.
    #[test]
    fn good_nodes_are_left_alone(count in 1usize..6, more in 1usize..6) {
        let is = all_good(&mpi(count));
        let plan = up(&mpi(count + more), &is);
        prop_assert!(plan.destructive().is_empty());
        prop_assert_eq!(plan.summary.unchanged as usize, count + 1);
        prop_assert_eq!(plan.summary.create as usize, more);
    }
}
