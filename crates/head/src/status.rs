//! What is: the answer of `oscarv list` and `oscarv status`.

use api::{Mac, MiB, Name};
use profile::{Backend, Role};
use serde::Serialize;
use std::net::Ipv4Addr;
use v3m::State;

/// One cluster, in a line.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    pub name: Name,
    pub health: Health,
    pub nodes: usize,
    pub running: usize,
    pub ready: usize,
    pub backend: Backend,
    pub cpus: u32,
    pub memory: MiB,
}

/// How a cluster is, as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Every node is ready.
    Ready,
    /// Nodes are on their way.
    Starting,
    /// Something that should run does not.
    Degraded,
    /// Nothing runs.
    Down,
}

/// One cluster, in full.
#[derive(Clone, Debug, Serialize)]
pub struct ClusterStatus {
    pub name: Name,
    pub health: Health,
    pub user: Name,
    /// Digest of the image its nodes run, where one was built.
    pub image: Option<String>,
    pub network: NetworkStatus,
    pub nodes: Vec<NodeStatus>,
    /// Another `oscarv` works on it now.
    pub busy: Option<u32>,
}

#[derive(Clone, Debug, Serialize)]
pub struct NetworkStatus {
    pub up: bool,
    pub subnet: String,
    pub domain: String,
    /// Why it is not up, or not as it should be.
    pub reason: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct NodeStatus {
    pub name: Name,
    pub group: Name,
    pub role: Role,
    pub state: State,
    pub ready: Readiness,
    pub backend: Backend,
    pub address: Ipv4Addr,
    pub mac: Mac,
    pub cpus: u16,
    pub memory: MiB,
    pub disk: MiB,
    pub pid: Option<u32>,
    pub reason: Option<String>,
}

/// How far a node has come by its own report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "is", content = "what")]
pub enum Readiness {
    /// The guest has said nothing yet.
    Silent,
    /// It boots; the last thing it reported.
    Booting(String),
    /// A phase or a test of a package failed.
    Failed(String),
    Ready,
}
