//! Clusters to plan for.

use profile::Cluster;

pub fn cluster(text: &str) -> Cluster {
    profile::cluster(text, "test.toml").unwrap().value
}

/// A head and `count` compute nodes.
pub fn mpi(count: usize) -> Cluster {
    let subnet = "[network]\nsubnet = \"10.0.0.0/16\"";
    cluster(&format!(
        "name = \"mpi\"\n{subnet}\n[[group]]\nname = \"head\"\n[[group]]\nname = \"compute\"\ncount = {count}"
    ))
}
