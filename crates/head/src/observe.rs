//! What is, against what should be.

use crate::base::Base;
use crate::events;
use crate::head::Head;
use crate::identity::{Identity, Shared};
use crate::keys::Missing;
use crate::layout::Layout;
use crate::node::{self, Made};
use crate::record::Record;
use crate::{Readiness, Result};
use api::Name;
use opkg::Opkg;
use plan::{NetworkState, Observed, ObservedNode};
use profile::{Group, Vm};
use std::collections::BTreeMap;
use std::fs;
use v3m::{Driver, State, Status};

/// A node as it should be.
pub struct Wanted {
    pub group: Group,
    pub definition: Vm,
    pub identity: Identity,
}

/// All nodes as they should be, by name.
pub fn wanted(
    layout: &Layout,
    record: &Record,
    image: &Base,
    shared: &Shared,
) -> Result<BTreeMap<Name, Wanted>> {
    let nodes = record.cluster.nodes().map(|(group, node)| {
        let wanted = Wanted {
            definition: node::definition(layout, record, image, group, node)?,
            identity: Identity::new(layout, record, shared, group, node)?,
            group: group.clone(),
        };
        Ok((node.name.clone(), wanted))
    });
    nodes.collect()
}

pub fn net_spec(record: &Record) -> net::Spec {
    let network = &record.cluster.network;
    let head = crate::identity::head(record);
    let hosts = record.assigned.iter().map(|given| net::Host {
        name: given.node.clone(),
        mac: given.mac,
        address: given.address,
        aliases: if given.node == head && head.as_str() != "head" {
            vec!["head".to_owned()]
        } else {
            Vec::new()
        },
    });
    net::Spec {
        cluster: record.cluster.name.clone(),
        slot: record.slot,
        address: network.address,
        prefix: network.prefix,
        gateway: network.gateway(),
        domain: network.domain.clone(),
        nat: network.nat,
        hosts: hosts.collect(),
    }
}

/// Does it have a network of its own? Nodes that are no VMs need none.
pub fn has_network(record: &Record) -> bool {
    record.backend != profile::Backend::Fake
}

impl Head {
    /// Looks at the cluster. `wanted` is none where the image is not built: then nothing can be like it.
    pub(crate) async fn observe(
        &self,
        layout: &Layout,
        record: &Record,
        image: Option<&Base>,
        opkgs: &[Opkg],
    ) -> Result<Observed> {
        let network = if !has_network(record) {
            NetworkState::Up
        } else if !layout.net().exists() {
            NetworkState::Absent
        } else {
            match net::status(&layout.net()) {
                net::Status::Absent => NetworkState::Absent,
                net::Status::Broken { .. } => NetworkState::Changed,
                net::Status::Up { .. } if net::is_current(&layout.net(), &net_spec(record)) => {
                    NetworkState::Up
                }
                net::Status::Up { .. } => NetworkState::Changed,
            }
        };
        let mut nodes = BTreeMap::new();
        if layout.root.exists() {
            let wanted = match image {
                Some(image) if layout.keys().exists() => {
                    let shared = Shared::new(layout, record, opkgs, Missing::Leave)?;
                    wanted(layout, record, image, &shared)?
                }
                _ => BTreeMap::new(),
            };
            let driver = self.driver(layout, record.slot, record.backend)?;
            let there = self.traces(layout, driver.as_ref()).await?;
            for (name, status) in there {
                let made = Made::read(layout, &name)?;
                let is = one(
                    layout,
                    &name,
                    status.as_ref(),
                    made.as_ref(),
                    wanted.get(&name),
                    image,
                );
                nodes.insert(name, is);
            }
        }
        Ok(Observed {
            image: image.map(|image| image.id.clone()),
            network,
            deployed: self.is_deployed(layout, record, opkgs),
            nodes,
        })
    }

    /// Every node of which something is left: a VM, a disk, or both.
    pub(crate) async fn traces(
        &self,
        layout: &Layout,
        driver: &dyn Driver,
    ) -> Result<BTreeMap<Name, Option<Status>>> {
        let mut found: BTreeMap<Name, Option<Status>> = BTreeMap::new();
        for entry in fs::read_dir(layout.root.join("disks"))
            .into_iter()
            .flatten()
            .flatten()
        {
            if let Some(name) = entry
                .file_name()
                .to_str()
                .and_then(|name| Name::new(name).ok())
            {
                found.insert(name, None);
            }
        }
        for status in driver.list().await? {
            found.insert(status.name.clone(), Some(status));
        }
        Ok(found)
    }
}

fn one(
    layout: &Layout,
    name: &Name,
    status: Option<&Status>,
    made: Option<&Made>,
    wanted: Option<&Wanted>,
    image: Option<&Base>,
) -> ObservedNode {
    let state = status.map_or(State::Absent, |status| status.state);
    let readiness = events::readiness(&layout.events(name));
    let same = |like: &dyn Fn(&Made, &Wanted) -> bool| {
        made.zip(wanted)
            .is_some_and(|(made, wanted)| like(made, wanted))
    };
    ObservedNode {
        running: matches!(
            state,
            State::Running | State::Starting | State::Migrating | State::Stopping
        ),
        paused: state == State::Paused,
        defined: made.is_some(),
        same_disk: same(&|made, wanted| {
            image.is_some_and(|image| image.id == made.image) && made.disk == wanted.group.disk
        }),
        same: same(&|made, wanted| made.definition == wanted.definition),
        told: same(&|made, wanted| made.identity == wanted.identity.digest),
        ready: readiness == Readiness::Ready,
        failed: matches!(readiness, Readiness::Failed(_)),
    }
}
