//! Can this host run this cluster? "Is the file right" was asked before and elsewhere.

use api::MiB;
use profile::{Backend, Cluster, Group};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What was found about a cluster on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Finding {
    /// It works, but the user should know.
    Note { message: String },
    /// It must not be started so.
    Refusal { message: String, hint: String },
}

impl Finding {
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refusal { .. })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Note { message } => f.write_str(message),
            Self::Refusal { message, hint } => write!(f, "{message}\nhint: {hint}"),
        }
    }
}

/// What speaks against running all nodes on one host. `host_memory_available` is what can be given to nodes: what is
/// free now, and what nodes of this cluster that run already have.
pub fn fits(cluster: &Cluster, host_memory_available: MiB, host_cpus: u32) -> Vec<Finding> {
    let real: Vec<&Group> = cluster
        .groups
        .iter()
        .filter(|group| group.backend != Backend::Fake)
        .collect();
    let mut findings = Vec::new();
    let memory: u64 = real.iter().map(|g| g.memory.0 * g.nodes.len() as u64).sum();
    if memory > host_memory_available.0 {
        findings.push(too_much_memory(&real, MiB(memory), host_memory_available));
    }
    let cpus: u64 = real
        .iter()
        .map(|g| u64::from(g.cpus) * g.nodes.len() as u64)
        .sum();
    if cpus > u64::from(host_cpus) {
        findings.push(Finding::Note {
            message: format!(
                "the nodes have {cpus} CPUs in all, this host has {host_cpus}: they will take turns"
            ),
        });
    }
    for group in real.iter().filter(|g| u32::from(g.cpus) > host_cpus) {
        findings.push(Finding::Note {
            message: format!(
                "each node of group {} has {} CPUs, this host has {host_cpus}: it will be slower than with {host_cpus}",
                group.name, group.cpus
            ),
        });
    }
    findings
}

fn too_much_memory(groups: &[&Group], needed: MiB, available: MiB) -> Finding {
    let parts: Vec<String> = groups
        .iter()
        .map(|g| format!("{} {} × {}", g.name, g.nodes.len(), g.memory))
        .collect();
    let message = format!(
        "the nodes need {needed} of memory ({}), this host has {available} to give",
        parts.join(", ")
    );
    // The group that takes most is the one to change: fewer nodes, if the others leave room for one.
    let largest = groups
        .iter()
        .max_by_key(|g| g.memory.0 * g.nodes.len() as u64);
    let hint = largest.map(|g| {
        let others = needed.0 - g.memory.0 * g.nodes.len() as u64;
        let count = available.0.saturating_sub(others) / g.memory.0.max(1);
        let each = available.0.saturating_sub(others) / g.nodes.len().max(1) as u64;
        if count > 0 && g.nodes.len() > 1 {
            format!("write count = {count} in group {}", g.name)
        } else if each >= 128 {
            format!("write memory = \"{each}M\" in group {}", g.name)
        } else {
            "give the nodes less memory, or take fewer of them".to_owned()
        }
    });
    let hint = hint.unwrap_or_default();
    Finding::Refusal {
        message,
        hint: format!("{hint}, or end other programs and clusters (`oscarv list`) to free memory"),
    }
}
