//! What `up` does: the difference between what should be and what is, as steps.
//!
//! The order of the steps is one in which they can be done; steps of one kind that stand together touch different nodes
//! and can be done at once. Nothing is lost before the image and the network are there. A plan whose execution was
//! broken off anywhere is made again from what is then, and converges.

use crate::fold;
use api::Name;
use profile::{Cluster, Group};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

/// What is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// The key of an image that was built from this recipe, if there is one.
    pub image: Option<String>,
    pub network: NetworkState,
    /// Packages have done what they do once all nodes are ready, with the cluster as it is wanted.
    pub deployed: bool,
    /// All nodes of which there is a trace, also those that the file no longer has.
    pub nodes: BTreeMap<Name, ObservedNode>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkState {
    Absent,
    Up,
    /// It is up, but not as the file has it.
    Changed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedNode {
    pub running: bool,
    pub paused: bool,
    pub defined: bool,
    /// Its disk was made from the image and with the size that are wanted.
    pub same_disk: bool,
    /// Its definition is the one that is wanted.
    pub same: bool,
    /// What it was told about itself and the cluster is what is to be told.
    pub told: bool,
    /// Its packages say that it is ready.
    pub ready: bool,
    /// It says that something went wrong when its packages wrote their configuration.
    pub failed: bool,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    BuildImage,
    MakeNetwork,
    UpdateNetwork,
    /// Makes the disks and the definition; a `StartNode` follows.
    CreateNode {
        node: Name,
    },
    StartNode {
        node: Name,
    },
    ResumeNode {
        node: Name,
    },
    /// Tells a running node what has changed around it; its packages write their configuration again.
    UpdateNode {
        node: Name,
    },
    /// Stops it and starts it again. Its disk stays.
    RestartNode {
        node: Name,
        why: String,
    },
    /// Stops it and makes it anew, as `CreateNode` does; what was on its disk is lost. A `StartNode` follows.
    ReplaceNode {
        node: Name,
        why: String,
    },
    /// Stops it and removes all that belongs to it.
    RemoveNode {
        node: Name,
    },
    /// Waits until all nodes are ready; so many are not yet.
    WaitReady {
        nodes: u32,
    },
    /// Packages do what needs all nodes to be ready.
    Deploy,
}

impl Step {
    /// Does it lose something that `up` cannot make again: a disk, or what runs on a node?
    pub fn is_destructive(&self) -> bool {
        matches!(
            self,
            Self::ReplaceNode { .. } | Self::RemoveNode { .. } | Self::RestartNode { .. }
        )
    }

    /// The node that it is done to.
    pub fn node(&self) -> Option<&Name> {
        match self {
            Self::BuildImage
            | Self::MakeNetwork
            | Self::UpdateNetwork
            | Self::WaitReady { .. }
            | Self::Deploy => None,
            Self::CreateNode { node }
            | Self::StartNode { node }
            | Self::ResumeNode { node }
            | Self::UpdateNode { node }
            | Self::RestartNode { node, .. }
            | Self::ReplaceNode { node, .. }
            | Self::RemoveNode { node } => Some(node),
        }
    }
}

/// How many nodes have what before them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    pub create: u32,
    pub start: u32,
    pub resume: u32,
    pub update: u32,
    pub restart: u32,
    pub replace: u32,
    pub remove: u32,
    /// Nothing is done to them.
    pub unchanged: u32,
}

/// What to do, in order; empty where all is as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    pub cluster: Name,
    pub steps: Vec<Step>,
    pub summary: Summary,
    /// What the groups' nodes look like, for people; with each node's group in `groups`.
    #[serde(skip)]
    shapes: Vec<String>,
    #[serde(skip)]
    groups: HashMap<Name, usize>,
}

/// What has to be done so that the cluster is as the file says.
pub fn up(cluster: &Cluster, observed: &Observed) -> Plan {
    let mut summary = Summary::default();
    let mut steps = Vec::new();
    if observed.image.is_none() {
        steps.push(Step::BuildImage);
    }
    match observed.network {
        NetworkState::Absent => steps.push(Step::MakeNetwork),
        NetworkState::Changed => steps.push(Step::UpdateNetwork),
        NetworkState::Up => {}
    }
    let wanted: HashSet<&Name> = cluster.nodes().map(|(_, node)| &node.name).collect();
    for node in observed.nodes.keys().filter(|node| !wanted.contains(node)) {
        summary.remove += 1;
        steps.push(Step::RemoveNode { node: node.clone() });
    }

    let (mut replace, mut create, mut restart) = (Vec::new(), Vec::new(), Vec::new());
    let (mut start, mut resume, mut update) = (Vec::new(), Vec::new(), Vec::new());
    let mut waiting = 0;
    for (_, node) in cluster.nodes() {
        let node = node.name.clone();
        let is = observed.nodes.get(&node).copied().unwrap_or_default();
        let alive = is.running || is.paused;
        waiting += 1;
        if !is.defined && !alive {
            create.push(Step::CreateNode { node: node.clone() });
            start.push(Step::StartNode { node });
        } else if !is.defined || !is.same_disk {
            let why = if is.defined {
                "its image or the size of its disk has changed"
            } else {
                "it runs, but its definition is lost"
            };
            replace.push(Step::ReplaceNode {
                node: node.clone(),
                why: why.to_owned(),
            });
            start.push(Step::StartNode { node });
        } else if alive && observed.network == NetworkState::Absent {
            // Its network card hangs in a network that is gone, and cannot be put into the new one.
            restart.push(Step::RestartNode {
                node,
                why: "its network was gone".to_owned(),
            });
        } else if alive && !is.same {
            restart.push(Step::RestartNode {
                node,
                why: "its definition has changed".to_owned(),
            });
        } else if is.paused {
            if !is.told || is.failed {
                update.push(Step::UpdateNode { node: node.clone() });
            }
            resume.push(Step::ResumeNode { node });
        } else if !is.running {
            summary.start += 1;
            start.push(Step::StartNode { node });
        } else {
            // One that failed is told again: perhaps what was in the way is gone.
            if is.told && !is.failed {
                summary.unchanged += 1;
                waiting -= u32::from(is.ready);
            } else {
                update.push(Step::UpdateNode { node });
            }
        }
    }
    summary.replace = replace.len() as u32;
    summary.create = create.len() as u32;
    summary.update = update.len() as u32;
    summary.restart = restart.len() as u32;
    summary.resume = resume.len() as u32;
    for more in [replace, create, restart, start, resume, update] {
        steps.extend(more);
    }
    if waiting > 0 {
        steps.push(Step::WaitReady { nodes: waiting });
    }
    if !observed.deployed {
        steps.push(Step::Deploy);
    }

    let groups = cluster.groups.iter().enumerate();
    let groups = groups.flat_map(|(at, g)| g.nodes.iter().map(move |n| (n.name.clone(), at)));
    Plan {
        cluster: cluster.name.clone(),
        steps,
        summary,
        shapes: cluster.groups.iter().map(shape).collect(),
        groups: groups.collect(),
    }
}

fn shape(group: &Group) -> String {
    let Group {
        cpus, memory, disk, ..
    } = group;
    let unit = if *cpus == 1 { "CPU" } else { "CPUs" };
    format!("{cpus} {unit}, {memory} memory, {disk} disk")
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The steps that lose something: to be agreed to before they are done.
    pub fn destructive(&self) -> Vec<&Step> {
        self.steps.iter().filter(|s| s.is_destructive()).collect()
    }

    /// The lines of these steps alone.
    pub fn only(&self, steps: &[&Step]) -> String {
        let steps = steps.iter().map(|&step| step.clone()).collect();
        let plan = Plan {
            steps,
            ..self.clone()
        };
        plan.to_string()
    }

    /// What is said of a step: a sign, a verb, the node it is done to, and what else there is to say.
    fn words<'p>(&'p self, step: &'p Step) -> (char, &'static str, Option<&'p Name>, &'p str) {
        match step {
            Step::BuildImage => ('+', "image", None, "to be built"),
            Step::MakeNetwork => ('+', "network", None, ""),
            Step::UpdateNetwork => ('~', "network", None, "to be changed"),
            Step::CreateNode { node } => {
                let shape = self.groups.get(node).and_then(|at| self.shapes.get(*at));
                ('+', "node", Some(node), shape.map_or("", |s| s))
            }
            Step::StartNode { node } => ('>', "start", Some(node), ""),
            Step::ResumeNode { node } => ('>', "resume", Some(node), ""),
            Step::UpdateNode { node } => ('~', "tell", Some(node), "the cluster has changed"),
            Step::RestartNode { node, why } => ('~', "restart", Some(node), why),
            Step::ReplaceNode { node, why } => ('~', "replace", Some(node), why),
            Step::RemoveNode { node } => ('-', "remove", Some(node), ""),
            Step::WaitReady { .. } => ('?', "wait", None, ""),
            Step::Deploy => ('~', "finish", None, "packages' last phase, on the head"),
        }
    }
}

/// `+ node compute[1-3]: 1 CPU, 512M memory, 4G disk`: a line for each thing that differs. Starting what is made, and
/// waiting, go without saying.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return write!(
                f,
                "nothing to do: cluster {} is as it should be",
                self.cluster
            );
        }
        let made: HashSet<&Name> = self
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::CreateNode { node } | Step::ReplaceNode { node, .. } => Some(node),
                _ => None,
            })
            .collect();
        let shown = self.steps.iter().filter(|step| match step {
            Step::StartNode { node } => !made.contains(node),
            Step::WaitReady { .. } => false,
            _ => true,
        });
        let words: Vec<_> = shown.map(|step| self.words(step)).collect();
        let alike = words.chunk_by(|a, b| (a.0, a.1, a.3) == (b.0, b.1, b.3));
        for (at, lines) in alike.enumerate() {
            let Some((sign, verb, _, more)) = lines.first() else {
                continue;
            };
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{sign} {verb}")?;
            let nodes = lines.iter().filter_map(|line| line.2);
            let nodes = fold(nodes.map(Name::as_str));
            if !nodes.is_empty() {
                write!(f, " {nodes}")?;
            }
            if !more.is_empty() {
                write!(f, ": {more}")?;
            }
            if lines.len() > 1 && *verb == "node" {
                write!(f, " each")?;
            }
        }
        let waits = |step: &Step| match step {
            Step::WaitReady { nodes } => Some(*nodes),
            _ => None,
        };
        if let Some(nodes) = self.steps.iter().find_map(waits) {
            if self.steps.len() > 1 {
                f.write_str("\n")?;
            }
            let unit = if nodes == 1 { "node is" } else { "nodes are" };
            write!(f, "? wait until {nodes} {unit} ready")?;
        }
        Ok(())
    }
}
