//! The driver contract.

use crate::{Console, Snapshots, State, Stats};
use api::Name;
use async_trait::async_trait;
use profile::{Backend, Vm};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// What a back-end can do: data, not code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    pub backend: Backend,
    pub direct_kernel_boot: bool,
    pub disk_boot: bool,
    pub pause: bool,
    pub console: bool,
    pub snapshot: bool,
    /// Can it say what its VMs use?
    pub stats: bool,
    pub migrate: bool,
    pub fork: bool,
    pub hotplug: bool,
    pub install_medium: bool,
    pub max_cpus: u16,
}

/// Can this host run this back-end now?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub backend: Backend,
    pub usable: bool,
    /// Version, accelerator: what was found.
    pub found: String,
    /// What is missing, with the command that mends it.
    pub missing: Vec<Missing>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    pub what: String,
    /// A command line that mends it, for a person to read and run; none if there is no such command.
    pub remedy: Option<String>,
}

/// What is, of one VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub name: Name,
    pub state: State,
    /// The process that runs it, where there is one.
    pub pid: Option<u32>,
    /// Which back-end runs it: `auto` has been decided.
    pub backend: Backend,
    /// Why it is crashed or unknown.
    pub reason: Option<String>,
}

/// How a VM came to be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It was so already.
    Already,
    /// The guest shut down when it was asked.
    Asked,
    /// It was switched off: its time was over, or it had none, or it could not be asked.
    Forced,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no VM {0}")]
    NoSuchVm(Name),
    #[error("{action} of VM {name} is not possible while it is {state}")]
    WrongState {
        name: Name,
        action: &'static str,
        state: State,
    },
    #[error("VM {name} is already defined, otherwise; undefine it first")]
    DefinedOtherwise { name: Name },
    #[error("VM {name} did not start: {reason}")]
    StartFailed { name: Name, reason: String },
    #[error("VM {name}: {reason}")]
    Failed { name: Name, reason: String },
    /// As `StartFailed`, and what stands against it is the host: a program, a bridge, memory that it does not have.
    #[error("VM {name} did not start: {reason}")]
    Unfit { name: Name, reason: String },
    #[error("type {backend} cannot be used on this host: {reason}")]
    Unusable { backend: Backend, reason: String },
    #[error("cannot use {path}")]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
}

pub type Result<T> = std::result::Result<T, Error>;

/// A hypervisor back-end on this host.
#[async_trait]
pub trait Driver: Send + Sync {
    fn capabilities(&self) -> Vec<Capabilities>;

    /// Is this host able to run it? May boot a tiny guest; the answer is cached by the driver.
    async fn probe(&self, backend: Backend) -> Probe;

    /// absent → defined. Repeated with the same VM: nothing happens. With another: `DefinedOtherwise`.
    async fn define(&self, vm: &Vm) -> Result<()>;

    /// Gives a VM without a process another definition; one that is absent is defined. Drivers keep what is the VM's own
    /// beside its disks: what its console printed, the variables of its firmware.
    async fn redefine(&self, vm: &Vm) -> Result<()> {
        self.undefine(&vm.name).await?;
        self.define(vm).await
    }

    /// defined, stopped, crashed → running. Of a running VM: nothing happens. Returns when the guest's CPUs run.
    async fn start(&self, name: &Name) -> Result<()>;

    /// → stopped. Asks politely (a paused guest goes on for that), then after `grace` forces. Zero grace: at once. Of a
    /// stopped VM: nothing happens.
    async fn stop(&self, name: &Name, grace: Duration) -> Result<Stopped>;

    /// running → paused.
    async fn pause(&self, name: &Name) -> Result<()>;

    /// paused → running.
    async fn resume(&self, name: &Name) -> Result<()>;

    /// running → running, from the machine's reset on. The power button is pressed first, and a guest that shuts down
    /// within `grace` is started anew; one that does not is reset. Zero grace: reset at once. A caller that dies between
    /// shutdown and start leaves the VM stopped. Firmware that is reset while it starts itself may hang: then stop, start.
    async fn reboot(&self, name: &Name, grace: Duration) -> Result<()>;

    /// What is. An unknown name is `absent`, not an error.
    async fn status(&self, name: &Name) -> Result<Status>;

    /// All VMs that are defined, sorted by name.
    async fn list(&self) -> Result<Vec<Status>>;

    async fn console(&self, name: &Name) -> Result<Console>;

    /// defined, stopped, crashed → absent. Of an absent VM: nothing happens. Removes what `define` and `start` made,
    /// never a disk that the VM's definition only refers to.
    async fn undefine(&self, name: &Name) -> Result<()>;

    /// Where VMs can be taken back to what they were.
    fn snapshots(&self) -> Option<&dyn Snapshots> {
        None
    }

    /// Where the driver can say what its VMs use.
    fn stats(&self) -> Option<&dyn Stats> {
        None
    }
}
