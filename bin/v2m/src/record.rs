//! What v2m knows of a VM, beside what its driver does.

use crate::exit::{Code, Failure};
use crate::owner::Owner;
use files::Identity;
use profile::{Boot, BootDevice, Vm};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use v3m::{State, Status};

/// `record.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub vm: Vm,
    /// The profile it came from.
    pub profile: PathBuf,
    /// Of the id that its QEMU runs as, where it has one of its own.
    pub number: Option<u32>,
    /// Whom it runs as, as it was decided when it was last defined or started.
    pub owner: Option<Owner>,
    /// Disks that v2m made for it.
    pub made: Vec<Made>,
    /// It was defined to be installed from its CD.
    #[serde(default)]
    pub install: bool,
    /// Why the record cannot be used, where this is what else is known of the VM.
    #[serde(skip)]
    pub damaged: Option<String>,
}

/// A disk that v2m made: this file, and no other that comes into its place.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Made {
    pub path: PathBuf,
    pub identity: Identity,
}

impl Record {
    /// Is this what the record says already? A VM that was defined to be installed is the one of its profile.
    pub fn is(&self, vm: &Vm) -> bool {
        self.vm == *vm || (self.install && for_install(vm) == self.vm)
    }

    /// An error of one that is damaged, for what needs to know what the VM should be.
    pub fn usable(&self) -> Result<(), Failure> {
        match &self.damaged {
            None => Ok(()),
            Some(why) => {
                let hint = "write it anew from the VM's profile, when it is stopped: v2m create --replace FILE";
                Err(Failure::new(Code::Failed, why).hint(hint))
            }
        }
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
pub fn created(record: &Record, status: Status) -> Status {
    let state = match (status.state, &record.damaged) {
        (State::Absent, None) => State::Defined,
        // Neither says what it is.
        (State::Absent, Some(_)) => State::Unknown,
        (state, _) => state,
    };
    let damaged = record.damaged.is_some().then_some("its record is damaged");
    let reason = status.reason.or(damaged.map(str::to_owned));
    Status {
        state,
        reason,
        ..status
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
