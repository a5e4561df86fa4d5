//! Whether a host can carry a cluster.

#![allow(clippy::unwrap_used, reason = "a test may end so")]

mod common;

use api::MiB;
use common::{cluster, mpi};
use plan::fits;

fn said(cluster: &profile::Cluster, memory: u64, cpus: u32) -> Vec<String> {
    fits(cluster, MiB(memory), cpus)
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn enough() {
    assert!(said(&mpi(3), 2048, 4).is_empty());
}

#[test]
fn too_little_memory() {
    let end = "or end other programs and clusters (`oscarv list`) to free memory";
    assert_eq!(
        said(&mpi(3), 2047, 4),
        [format!(
            "the nodes need 2G of memory (head 1 × 512M, compute 3 × 512M), this host has 2047M to give\n\
             hint: write count = 2 in group compute, {end}"
        )]
    );
    assert_eq!(
        said(&mpi(3), 1000, 4),
        [format!(
            "the nodes need 2G of memory (head 1 × 512M, compute 3 × 512M), this host has 1000M to give\n\
             hint: write memory = \"162M\" in group compute, {end}"
        )]
    );
    let refused = fits(&mpi(3), MiB(100), 4);
    assert!(refused[0].is_refusal());
    assert!(
        refused[0]
            .to_string()
            .contains("give the nodes less memory"),
        "{}",
        refused[0]
    );
}

#[test]
fn few_cpus_are_no_reason_to_refuse() {
    let wide = cluster("name = \"wide\"\n[[group]]\nname = \"head\"\ncpus = 8");
    let notes = fits(&wide, MiB(4096), 2);
    assert_eq!(notes.len(), 2);
    assert!(notes.iter().all(|note| !note.is_refusal()));
}

#[test]
fn fake_nodes_need_nothing() {
    let fake = cluster(
        "name = \"fake\"\ntype = \"fake\"\n[network]\nsubnet = \"10.0.0.0/16\"\n[[group]]\nname = \"head\"\n\
         [[group]]\nname = \"compute\"\ncount = 10000\nmemory = \"1T\"",
    );
    assert!(said(&fake, 1, 1).is_empty());
}
