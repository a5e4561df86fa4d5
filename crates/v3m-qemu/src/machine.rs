//! Of which machine the memory in a snapshot is: only the same can load it.
//!
//! What is kept of a snapshot is the definition without what only the host sees, in the VM's directory. A snapshot of which
//! nothing is kept, another program's for example, is tried.

use crate::home::{Home, Run, read, remove, write};
use profile::{Boot, Vm};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use v3m::{Error, Result, Snapshot};

pub const FILE: &str = "snapshots.json";
pub const HALF: &str = "snapshots.half";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Machine {
    kvm: bool,
    vm: Vm,
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// Seconds since 1970: another snapshot may have got the same name.
    created: u64,
    machine: Machine,
}

impl Machine {
    /// Of a VM that runs by this definition.
    fn of(home: &Home, vm: &Vm) -> Result<Self> {
        let kvm = read::<Run>(&home.file("run.json"))?.is_some_and(|run| run.kvm);
        let mut vm = vm.clone();
        vm.backend = profile::Backend::Auto;
        for disk in &mut vm.disks {
            disk.path = PathBuf::new();
            disk.size = None;
        }
        for channel in &mut vm.channels {
            channel.log = PathBuf::new();
        }
        if let Some(cloud) = &mut vm.cloud_init {
            cloud.user_data.clear();
            cloud.network_config = None;
        }
        if let Boot::Firmware { order } = &mut vm.boot {
            order.clear();
        }
        Ok(Self { kvm, vm })
    }
}

/// One that cannot be read says nothing about any snapshot.
fn all(home: &Home) -> BTreeMap<String, Kept> {
    read(&home.file(FILE)).ok().flatten().unwrap_or_default()
}

/// Keeps of which machine this new snapshot is.
pub fn remember(home: &Home, vm: &Vm, snapshot: &Snapshot) -> Result<()> {
    let mut all = all(home);
    let kept = Kept {
        created: snapshot.created,
        machine: Machine::of(home, vm)?,
    };
    all.insert(snapshot.name.clone(), kept);
    write(&home.file(FILE), &all)
}

pub fn forget(home: &Home, tag: &str) -> Result<()> {
    let mut all = all(home);
    match (all.remove(tag), all.is_empty()) {
        (None, _) => Ok(()),
        (Some(_), true) => remove(&home.file(FILE)),
        (Some(_), false) => write(&home.file(FILE), &all),
    }
}

/// Refuses a snapshot that is of another machine than the one that runs by this definition.
pub fn fits(home: &Home, vm: &Vm, snapshot: &Snapshot) -> Result<()> {
    let now = Machine::of(home, vm)?;
    match all(home).get(&snapshot.name) {
        Some(kept) if kept.created == snapshot.created && kept.machine != now => {
            Err(Error::Failed {
                name: home.name.clone(),
                reason: format!(
                    "it is defined otherwise than when {} was made, whose memory does not fit it; a stopped VM goes back to the disks alone: stop it first, or define it as it was",
                    snapshot.name
                ),
            })
        }
        _ => Ok(()),
    }
}
