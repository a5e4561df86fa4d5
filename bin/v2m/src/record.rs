//! What v2m knows of a VM, beside what its driver does.

use profile::{Boot, BootDevice, Vm};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use v3m::{State, Status};

/// `record.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub vm: Vm,
    /// The profile it came from.
    pub profile: PathBuf,
    /// Of the id that its QEMU runs as, where it has one of its own.
    pub number: Option<u32>,
    /// Disks that were not there before it.
    pub made: Vec<PathBuf>,
    /// It was defined to be installed from its CD.
    #[serde(default)]
    pub install: bool,
}

impl Record {
    /// Is this what the record says already? A VM that was defined to be installed is the one of its profile.
    pub fn is(&self, vm: &Vm) -> bool {
        self.vm == *vm || (self.install && for_install(vm) == self.vm)
    }
}

/// The same VM, which boots its CD as long as its disk has nothing to boot.
pub fn for_install(vm: &Vm) -> Vm {
    Vm {
        boot: Boot::Firmware {
            order: vec![BootDevice::Disk, BootDevice::Cdrom],
        },
        ..vm.clone()
    }
}

/// A VM that has a record and that its driver does not know yet is defined: the next start tells the driver.
pub fn created(status: Status) -> Status {
    match status.state {
        State::Absent => Status {
            state: State::Defined,
            ..status
        },
        _ => status,
    }
}

/// What a driver says of a VM that it does not know.
pub fn absent(record: &Record) -> Status {
    Status {
        name: record.vm.name.clone(),
        state: State::Absent,
        pid: None,
        backend: record.vm.backend,
        reason: None,
    }
}
