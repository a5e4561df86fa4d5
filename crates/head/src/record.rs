//! What should be, as the store has it: one record a cluster, written before anything is done.

use crate::{Error, Result};
use api::Name;
use plan::Assigned;
use profile::{Backend, Cluster};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use store::{Expected, Store, StoreJson};

const PREFIX: &str = "cluster/";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub cluster: Cluster,
    pub assigned: Vec<Assigned>,
    /// Which of the host's links this cluster's network has; unique on the host.
    pub slot: u16,
    /// What `auto` came to mean when the cluster was made.
    pub backend: Backend,
    /// Id of the image its nodes are made from; empty until it is built.
    pub image: String,
    /// Its OPKGs, those they require included, in order.
    pub opkgs: Vec<Name>,
}

impl Record {
    pub fn assigned(&self, node: &Name) -> Option<&Assigned> {
        self.assigned.iter().find(|assigned| assigned.node == *node)
    }
}

fn key(name: &Name) -> String {
    format!("{PREFIX}{name}")
}

pub fn get(store: &dyn Store, name: &Name) -> Result<Option<Record>> {
    Ok(store.get_json(&key(name))?.map(|(record, _)| record))
}

/// All, sorted by name.
pub fn all(store: &dyn Store) -> Result<Vec<Record>> {
    Ok(store
        .list_json(PREFIX)?
        .into_iter()
        .map(|(_, record, _)| record)
        .collect())
}

pub fn put(store: &dyn Store, record: &Record) -> Result<()> {
    store.put_json(&key(&record.cluster.name), record, Expected::Any)?;
    Ok(())
}

/// Forgets the cluster and frees its slot.
pub fn delete(store: &dyn Store, name: &Name) -> Result<()> {
    store.delete(&key(name), Expected::Any)?;
    for (slot, owner, generation) in store.list_json::<Name>(SLOTS)? {
        if owner == *name {
            store.delete(&slot, Expected::Generation(generation))?;
        }
    }
    Ok(())
}

const SLOTS: &str = "slot/";

/// The slot of this cluster: the one it has, or the lowest that is free. Two commands at once get different ones.
/// `bound` says that the cluster's network is there: then its slot stays. Otherwise a slot that somebody else on this
/// host (with another state directory) has taken meanwhile is given up.
pub fn slot(store: &dyn Store, name: &Name, bound: bool) -> Result<u16> {
    loop {
        let taken = store.list_json::<Name>(SLOTS)?;
        let number = |key: &str| key.strip_prefix(SLOTS).and_then(|n| n.parse::<u16>().ok());
        let own = taken.iter().find(|(_, owner, _)| owner == name);
        if let Some((key, _, generation)) = own
            && let Some(slot) = number(key)
        {
            if bound || !net::is_slot_taken(slot) {
                return Ok(slot);
            }
            store.delete(key, Expected::Generation(*generation))?;
            continue;
        }
        let taken: BTreeSet<u16> = taken.iter().filter_map(|(key, ..)| number(key)).collect();
        // Another state directory's clusters are on the same host.
        let free = (0..=net::MAX_SLOT)
            .find(|slot| !taken.contains(slot) && !net::is_slot_taken(*slot))
            .ok_or(Error::NoSlot(net::MAX_SLOT))?;
        match store.put_json(&format!("{SLOTS}{free}"), name, Expected::Absent) {
            Ok(_) => return Ok(free),
            Err(e) if e.is_conflict() => {}
            Err(e) => return Err(e.into()),
        }
    }
}
