//! `list` and `status`: read-only, no lock, no connection to any node.

use crate::head::Head;
use crate::lock::Lock;
use crate::observe;
use crate::record::{self, Record};
use crate::{
    ClusterStatus, Error, Health, NetworkStatus, NodeStatus, Readiness, Result, Summary, events,
};
use api::{MiB, Name};
use profile::Backend;
use std::collections::BTreeMap;
use v3m::{Console, State};

impl Head {
    /// All clusters, sorted by name.
    pub async fn list(&self) -> Result<Vec<Summary>> {
        let mut all = Vec::new();
        for record in record::all(&self.store)? {
            let nodes = self.nodes_of(&record).await?;
            all.push(Summary {
                name: record.cluster.name.clone(),
                health: health(&nodes),
                nodes: nodes.len(),
                running: nodes
                    .iter()
                    .filter(|node| node.state == State::Running)
                    .count(),
                ready: nodes.iter().filter(|node| is_ready(node)).count(),
                backend: record.backend,
                cpus: nodes.iter().map(|node| u32::from(node.cpus)).sum(),
                memory: MiB(nodes.iter().map(|node| node.memory.0).sum()),
            });
        }
        Ok(all)
    }

    pub async fn status(&self, name: &Name) -> Result<ClusterStatus> {
        let record = self.record(name)?;
        let nodes = self.nodes_of(&record).await?;
        let layout = self.layout(name);
        let network = &record.cluster.network;
        let (up, reason) = match net::status(&layout.net()) {
            _ if !observe::has_network(&record) => {
                (false, Some("nodes without VMs have none".to_owned()))
            }
            net::Status::Up { warnings, .. } => {
                (true, (!warnings.is_empty()).then(|| warnings.join("; ")))
            }
            net::Status::Broken { why } => (false, Some(why)),
            net::Status::Absent => (false, None),
        };
        Ok(ClusterStatus {
            name: name.clone(),
            health: health(&nodes),
            user: record.cluster.user.clone(),
            image: (!record.image.is_empty()).then(|| record.image.clone()),
            network: NetworkStatus {
                up,
                subnet: format!("{}/{}", network.address, network.prefix),
                domain: network.domain.clone(),
                reason,
            },
            nodes,
            busy: Lock::holder(&self.state, name),
        })
    }

    /// A node's console.
    pub async fn console(&self, cluster: &Name, node: &Name) -> Result<Console> {
        let record = self.record(cluster)?;
        if record.assigned(node).is_none() {
            return Err(Error::NoSuchNode {
                name: cluster.clone(),
                node: node.clone(),
            });
        }
        let driver = self.driver(&self.layout(cluster), record.slot, record.backend)?;
        Ok(driver.console(node).await?)
    }

    /// The file that a node's reports are in.
    pub fn events(&self, cluster: &Name, node: &Name) -> std::path::PathBuf {
        self.layout(cluster).events(node)
    }

    /// What the hypervisor of a node has said.
    pub fn hypervisor_log(&self, cluster: &Name, node: &Name) -> std::path::PathBuf {
        self.layout(cluster).vms().join(node).join("qemu.log")
    }

    async fn nodes_of(&self, record: &Record) -> Result<Vec<NodeStatus>> {
        let layout = self.layout(&record.cluster.name);
        let mut there = BTreeMap::new();
        if layout.vms().exists() {
            let driver = self.driver(&layout, record.slot, record.backend)?;
            there = driver
                .list()
                .await?
                .into_iter()
                .map(|status| (status.name.clone(), status))
                .collect();
        }
        let nodes = record.cluster.nodes().filter_map(|(group, node)| {
            let given = record.assigned(&node.name)?;
            let status = there.remove(&node.name);
            let state = status.as_ref().map_or(State::Absent, |status| status.state);
            let ready = match state {
                State::Running | State::Paused => events::readiness(&layout.events(&node.name)),
                _ => Readiness::Silent,
            };
            Some(NodeStatus {
                name: node.name.clone(),
                group: group.name.clone(),
                role: group.role,
                state,
                ready,
                backend: status
                    .as_ref()
                    .map_or(chosen(record, group.backend), |status| status.backend),
                address: given.address,
                mac: given.mac,
                cpus: group.cpus,
                memory: group.memory,
                disk: group.disk,
                pid: status.as_ref().and_then(|status| status.pid),
                reason: status.and_then(|status| status.reason),
            })
        });
        Ok(nodes.collect())
    }
}

fn chosen(record: &Record, group: Backend) -> Backend {
    if group == Backend::Auto {
        record.backend
    } else {
        group
    }
}

fn is_ready(node: &NodeStatus) -> bool {
    node.state == State::Running && node.ready == Readiness::Ready
}

fn health(nodes: &[NodeStatus]) -> Health {
    let alive =
        |node: &&NodeStatus| !matches!(node.state, State::Absent | State::Defined | State::Stopped);
    if nodes.iter().all(is_ready) {
        Health::Ready
    } else if nodes.iter().filter(alive).count() == 0 {
        Health::Down
    } else if nodes.iter().all(|node| {
        matches!(node.state, State::Running | State::Starting)
            && !matches!(node.ready, Readiness::Failed(_))
    }) {
        Health::Starting
    } else {
        Health::Degraded
    }
}
